"""Traps of Numba for functions that call fastrnn.jit, each in its own process: flags, caches, lifetimes, stacks."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("numba")

USER = """
import re, sys, warnings
import numba, numpy as np, fastrnn
from fastrnn import jit

@numba.njit({options})
def user(w, x, state, y):
    for t in range(len(x)):
        jit.step(w, x[t], state, y)
    return y

def check(cell):
    layer = cell(5, 17).init(0)
    x = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    w = jit.pack(layer)
    y = user(w, x, jit.init_state(w), np.empty(17, np.float32))
    with fastrnn.use_backend("cython"):
        assert np.array_equal(y, layer(x)[0][-1])
"""


@pytest.fixture(scope="module")
def fresh_cache(tmp_path_factory):
    """What Numba has cached: at first nothing."""
    return tmp_path_factory.mktemp("cache")


def process(tmp_path, cache, script, options="cache=True", **environment):
    """Run a script after USER, a file that stays as it is."""
    path = tmp_path / "user.py"
    if not path.exists():
        path.write_text(USER.replace("{options}", options))
    env = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment}
    program = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom user import *\n" + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def test_a_fastmath_caller_comes_first(tmp_path, fresh_cache):
    """In a fresh process with a fresh cache; a second process reads what it left there, and calls kernels directly."""
    pytest.importorskip("fastrnn._native")
    first = """
    check(fastrnn.GRU)
    from fastrnn.numba_kernels.chain import advance
    from fastrnn.numba_kernels.phases import run_gates
    from fastrnn.numba_kernels.tile import run_row
    flags = "fast|nnan|ninf|nsz|arcp|contract|afn|reassoc"
    for entry in (advance, run_gates, run_row):
        assert entry.signatures and not entry.stats.cache_hits
        for ir in entry.inspect_llvm().values():
            assert not re.search(rf"= f(add|sub|mul|div|cmp|neg) ({flags})", ir)
    """
    second = """
    check(fastrnn.GRU)
    layer = fastrnn.GRU(5, 17).init(0)
    x = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    wanted = layer(x)[0]
    with fastrnn.use_backend("numba"):
        stream = layer.stream()
        assert np.array_equal([stream.step(row) for row in x], wanted)
    from fastrnn.numba_kernels.chain import advance
    assert user.stats.cache_hits and advance.stats.cache_hits and not advance.stats.cache_misses
    """
    process(tmp_path, fresh_cache, first, "fastmath=True, cache=True")
    process(tmp_path, fresh_cache, second)


def test_an_upgrade_under_a_cached_user_function(tmp_path, fresh_cache):
    """Other kernels are another type of the packed weights, for which a user's function is compiled anew."""
    pytest.importorskip("fastrnn._native")
    script = "check(fastrnn.GRU)\nprint(sum(user.stats.cache_hits.values()))"
    upgrade = "from fastrnn.numba_kernels import packed\npacked.STAMP = '0' * 16\n"
    assert process(tmp_path, fresh_cache, script) == "0"
    assert process(tmp_path, fresh_cache, script) == "1"
    assert process(tmp_path, fresh_cache, upgrade + script) == "0"
    assert process(tmp_path, fresh_cache, upgrade + script) == "1"


def test_a_global_is_frozen_and_not_cached(tmp_path, fresh_cache):
    pytest.importorskip("fastrnn._native")
    script = """
    W = jit.pack(fastrnn.GRU(5, 17).init(0))

    @numba.njit
    def run(x, state, y):
        for t in range(len(x)):
            jit.step(W, x[t], state, y)
        return y

    x = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    wanted = user(W, x, jit.init_state(W), np.empty(17, np.float32))
    first = run(x, jit.init_state(W), np.empty(17, np.float32))
    state = jit.init_state(W)
    W = None
    import gc
    gc.collect()
    assert np.array_equal(first, wanted)
    assert np.array_equal(run(x, state, np.empty(17, np.float32)), wanted)
    library = run.overloads[run.signatures[0]].library
    assert library.has_dynamic_globals  # for which Numba writes no cache
    """
    process(tmp_path, fresh_cache, script)


def test_the_backtest_is_the_live_stream():
    script = Path(__file__).parent.parent / "examples" / "backtest.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "live positions are the same to the bit: True" in done.stdout


def test_a_large_workspace_lives_as_long_as_forward_needs_it(tmp_path, fresh_cache):
    """Where glibc gives freed blocks back to the system at once, the first write into one ends the process."""
    pytest.importorskip("fastrnn._native")
    script = """
    layer = fastrnn.LSTM(40, 128).init(0)
    x = np.random.default_rng(0).normal(size=(1000, 40)).astype(np.float32)
    w, y = jit.pack(layer), np.empty((1000, 128), np.float32)
    for _ in range(5):
        jit.forward(w, x, jit.init_state(w), y)
    assert np.array_equal(y, layer(x)[0])
    """
    process(tmp_path, fresh_cache, script, MALLOC_MMAP_THRESHOLD_="65536")


def test_wide_layers_leave_the_stack(tmp_path, fresh_cache):
    script = """
    import resource
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 23, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    layers = [fastrnn.GRU(5, 4).init(0), fastrnn.Dense(np.ones((1_500_000, 4)))]
    model = fastrnn.SequenceModel(layers, head=fastrnn.Dense(np.full((2, 1_500_000), 1e-6)))
    w, x = jit.pack(model), np.ones((2, 5), np.float32)
    y = user(w, x, jit.init_state(w), np.empty(2, np.float32))
    assert np.array_equal(y, model.predict(x)[-1])
    """
    process(tmp_path, fresh_cache, script)
