"""What Numba does behind one's back, each in its own process: callers' flags, caches, threads, forks, other targets."""

import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

import fastrnn

pytest.importorskip("numba")
pytest.importorskip("fastrnn._native")

# A ragged two-layer network of each variant, a dense layer and its function alone; `expected` holds what the compiled
# kernels say.
PROBLEMS = """
import functools
import itertools
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import fastrnn
from cases import Case, make_inputs, make_lengths, make_plan, results, same_bits
from fastrnn import _native, numba_kernels
from fastrnn.cells import VARIANTS
from fastrnn.dense import make_plan as make_dense
from fastrnn.numba_kernels.ahead import run_columns
from fastrnn.numba_kernels.dense import run_activation, run_dense, run_function
from fastrnn.numba_kernels.layers import run_rows
from fastrnn.numba_kernels.phases import run_gates
from fastrnn.numba_kernels.tile import run_row, run_tile

CALLED = run_rows, run_dense, run_activation
BY_ADDRESS = run_columns, run_function, run_gates, run_row, run_tile
SHARE_NO_PHASE = ("rnn", "lstm_proj", "gru", "gru_before")  # every phase, compiled once

def problem(variant, dtype="float32", batch=7):
    case = Case(variant, VARIANTS[variant].activations[0], 9, 37, 2, 1, steps=8, batch=batch)
    plan = make_plan(case, dtype)
    data = (*make_inputs(case, dtype), make_lengths(case))
    return plan, data, results(plan, _native.Engine(plan), *data)

def check(got, expected):
    assert same_bits(got[0], expected[0]) and all(same_bits(a, b) for a, b in zip(got[1], expected[1], strict=True))

def check_writing(dtype="float32"):
    model = fastrnn.SequenceModel(
        [
            fastrnn.GRU(11, 37, 2, dtype=dtype).init(0),
            fastrnn.LSTM(37, 21, proj_size=9, dtype=dtype).init(1),
        ],
        embedding="one_hot",
        head=[(4 * np.random.default_rng(0).normal(size=(11, 9)), None, "softmax")],
    )
    results = []
    for backend in ("cython", "numba"):
        with fastrnn.use_backend(backend):
            stream = model.stream(3)
            results.append([stream.step([i, 3, 5]) for i in range(9)])
            results[-1] += model.generate([[1], [2, 3]], 30, n=2, seed=5, top_p=0.9)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(*results, strict=True))

def check_dense(activation, dtype="float32"):
    rng = np.random.default_rng(0)
    plan = make_dense((4 * rng.normal(size=(37, 9)), None, activation), np.dtype(dtype), "head")
    x, got, expected = rng.normal(size=(7, 9)).astype(dtype), np.empty((7, 37), dtype), np.empty((7, 37), dtype)
    _native.DenseEngine(plan)(x, expected)
    numba_kernels.prepare_dense(plan)(x, got)
    assert same_bits(got, expected)
    numba_kernels.activate_rows(activation, expected, got)
    _native.activate_rows(activation, expected, expected)
    assert same_bits(got, expected)

def check_every_phase():
    for variant in SHARE_NO_PHASE:
        plan, data, expected = problem(variant)
        check(results(plan, numba_kernels.prepare(plan), *data), expected)
    for activation in ("softmax", "log_softmax"):
        check_dense(activation)
"""


def run(script, cache, *arguments, **environment):
    """Run a script after PROBLEMS with the arguments, with a Numba cache of its own or, for None, that of other tests.

    Return what it printed.
    """
    env = {**os.environ, **({"NUMBA_CACHE_DIR": str(cache)} if cache else {}), **environment}
    command = [sys.executable, "-c", PROBLEMS + textwrap.dedent(script), os.path.dirname(__file__), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_importing_compiles_nothing(tmp_path):
    run(
        """
        from fastrnn.numba_kernels.chain import advance, advance_dense, run_step, run_steps
        from fastrnn.numba_kernels.dense import run_dense_call
        from fastrnn.numba_kernels.layers import run_all, run_call, run_table
        from fastrnn.numba_kernels.writing import run_writing, run_writing_all
        steps = advance, advance_dense, run_step, run_steps, run_writing, run_writing_all
        others = run_all, run_call, run_dense_call, run_table
        assert not any(entry.signatures for entry in (*others, *steps, *CALLED, *BY_ADDRESS))
        """,
        tmp_path,
    )


def test_a_callers_fastmath_stays_outside(tmp_path):
    """The caller compiles the kernel first and writes the cache that a second process then reads."""
    stamp = run(
        """
        import re
        import numba
        from fastrnn.numba_kernels.ahead import columns_address
        @numba.njit(fastmath=True, error_model="python")
        def caller(phases, like, table, call, work, first, every):
            run_rows(phases, like, table, call, work, first, every)

        @numba.njit(fastmath=True, error_model="python")
        def dense_caller(like, table, x, x_row, count, out, out_row, tile, work):
            run_dense(like, table, x, x_row, count, out, out_row, tile, work)

        @numba.njit(fastmath=True, error_model="python")
        def activation_caller(function, x, out, work):
            run_activation(function, x, out, work)

        # compiled in their place, from the same types: what they leave in the cache is what the next process looks for
        numba_kernels.run_rows, numba_kernels.run_dense, numba_kernels.run_activation = (
            caller, dense_caller, activation_caller)
        check_every_phase()
        columns_address(1, 4, "float32")  # for weights larger than these
        for entry in (*CALLED, *BY_ADDRESS):
            assert entry.signatures and not entry.stats.cache_hits
            for ir in entry.inspect_llvm().values():
                assert not re.search(r"= f(add|sub|mul|div|cmp|neg) (fast|nnan|ninf|nsz|arcp|contract|afn|reassoc)", ir)
                assert not re.search(r"call (fast|nnan|ninf|nsz|arcp|contract|afn|reassoc)", ir)
        print(numba_kernels.door.STAMP)
        """,
        tmp_path,
    ).strip()
    written = list(tmp_path.rglob("*.nbi"))  # an index of what is cached of an entry point
    assert written
    assert all(stamp in path.name for path in written)
    run(
        """
        check_every_phase()
        for entry in (*CALLED, run_function, run_gates, run_row, run_tile):
            assert entry.stats.cache_hits and not entry.stats.cache_misses
        """,
        tmp_path,
    )


def test_a_callers_fastmath_stays_outside_of_what_users_call():
    """The caller's own numbers have its flags; vectors, `jit.step` and `jit.tanh` in the same function have none."""
    run(
        """
        import re
        import numba
        from fastrnn import jit, simd

        @numba.njit(fastmath=True)
        def user(w, x, state, y, a, out, scale):
            jit.step(w, x, state, y)
            p, wide = simd.data(a), simd.width(simd.data(a))
            for i in range(0, len(a), wide):
                u, left = simd.load_some(simd.move(p, i), len(a) - i), len(a) - i
                for k, v in enumerate((simd.tanh(u), simd.sigmoid(u), simd.fma(u, u, u), (u + 1e9) - 1e9, u / 3)):
                    simd.store_some(simd.data(out[k, i:]), v, left)
            for i in range(len(a)):
                out[5, i] = jit.tanh(a[i])
                out[6, i] = scale * a[i]  # to be seen with a flag

        layer = fastrnn.GRU(5, 17).init(0)
        rng = np.random.default_rng(0)
        x, a, y = rng.normal(size=5).astype("f4"), 3 * rng.normal(size=100).astype("f4"), np.empty(17, "f4")
        a[:3] = np.nan, np.inf, -0.0
        out, wanted = np.empty((7, 100), "f4"), np.empty((7, 100), "f4")
        w = jit.pack(layer)
        user(w, x, jit.init_state(w), y, a, out, np.float32(2))
        flags = "fast|nnan|ninf|nsz|arcp|contract|afn|reassoc"
        (ir,) = user.inspect_llvm().values()
        assert re.search(r"= fmul fast (float|<)", ir)
        flagged = re.findall(rf"= (?:tail )?(f(?:add|sub|div|cmp|neg)|call) (?:{flags}) ", ir)
        assert not flagged, flagged

        with fastrnn.use_backend("cython"):
            assert same_bits(y, layer(x[None])[0][-1])
        exact = numba.njit(user.py_func)
        exact(w, x, jit.init_state(w), y, a, wanted, np.float32(2))
        assert same_bits(out, wanted)
        for k, name in ((0, "tanh"), (1, "sigmoid"), (5, "tanh")):
            assert same_bits(out[k], _native.activate(name, a))
        """,
        None,
    )


@pytest.mark.parametrize("cpu", ["haswell", "x86-64"])
def test_other_processors_have_the_same_bits(cpu, tmp_path):
    if os.uname().machine != "x86_64":
        pytest.skip("names of x86-64 processors")
    width = run(
        """
        from fastrnn.numba_kernels.target import registers
        pairs = itertools.product(VARIANTS, ("float32", "float64"))
        half = sys.argv[2] == "haswell"  # every pair is compiled for one of the two
        for variant, dtype in (pair for i, pair in enumerate(pairs) if (i % 2 + i // 2) % 2 == half):
            plan, data, expected = problem(variant, dtype)
            check(results(plan, numba_kernels.prepare(plan), *data), expected)
        check_dense("log_softmax", "float32")
        check_dense("softmax", "float64")
        check_writing("float32" if half else "float64")
        print(registers().width)
        """,
        tmp_path,
        cpu,
        NUMBA_CPU_NAME=cpu,
        NUMBA_CPU_FEATURES="",
    )
    assert int(width) == {"haswell": 32, "x86-64": 16}[cpu]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_kernel_calls_libm(dtype, tmp_path):
    """Its bits would be those of one machine's libm, and it takes one number at a time."""
    run(
        """
        import math, re
        import numba
        from numba.core.dispatcher import Dispatcher
        from fastrnn import jit, more_cells
        from fastrnn.numba_kernels.ahead import columns_address

        FUNCTION = r"a?(?:sin|cos|tan)h?|exp(?:2|10|m1)?|log(?:2|10|1p)?|pow"
        CALL = re.compile(rf'@"?((?:llvm\\.)?(?:{FUNCTION})f?(?:\\.\\w+)?)"?\\(')

        def found(entry):
            return {name for ir in entry.inspect_llvm().values() for name in CALL.findall(ir)}

        dtype = sys.argv[2]
        for function in (math.tanh, math.exp, math.log, math.sinh, np.tanh, np.exp, np.log):
            probe = numba.njit(lambda a: function(a))
            probe(np.dtype(dtype).type(0.5))
            assert found(probe), function

        numba_kernels.stepping.PARALLEL_WORK = 0
        for variant, kind in VARIANTS.items():
            for activation in {*kind.activations} - {"linear"}:
                plan = make_plan(Case(variant, activation, 9, 37), dtype)
                run, data = numba_kernels.prepare(plan), make_inputs(Case(variant, activation, 9, 37), dtype)
                check(results(plan, run, *data), results(plan, functools.partial(run, threads=2), *data))
            first = kind.phases[0]
            columns_address(first.groups, len(first.gates), dtype)  # for weights larger than these
        for activation in ("softmax", "log_softmax", "sigmoid", "tanh", "relu", None):
            check_dense(activation or "linear", dtype)
        for threads in (1, 2):
            fastrnn.set_num_threads(threads)
            check_writing(dtype)
        for kind in map(more_cells.__dict__.get, more_cells.__all__):
            fastrnn.Recurrent(kind, 3, 5, dtype=dtype).init()(np.ones((2, 3)))

        @numba.njit
        def caller(w, x, y):
            state = jit.init_state(w)
            jit.forward(w, x, state, y)
            jit.reset(w, state)
            jit.step(w, x[0], state, y[0])
            jit.softmax(y[0], y[1])
            return jit.sigmoid(x[0, 0]) + jit.tanh(x[0, 0])

        layer, x = fastrnn.LSTM(3, 5, dtype=dtype).init(), np.ones((4, 3), dtype)
        caller(jit.pack(layer), x, np.empty((4, 5), dtype))
        model = fastrnn.SequenceModel(fastrnn.GRU(3, 5, dtype=dtype).init(), embedding=np.ones((9, 3)))
        with fastrnn.use_backend("numba"):
            model.predict([1, 2, 3])

        modules = [module for name, module in sys.modules.items() if name.startswith("fastrnn.numba_kernels")]
        entries = {value for m in modules for value in vars(m).values() if isinstance(value, Dispatcher)}
        cached = {entry for entry in entries if entry.py_func.__qualname__.endswith(numba_kernels.door.STAMP)}
        assert cached >= {*CALLED, *BY_ADDRESS}
        assert not [entry for entry in cached if not entry.signatures]
        calls = {entry.__name__: names for entry in (*entries, caller) if (names := found(entry))}
        assert not calls, calls
        """,
        tmp_path,
        dtype,
    )


def test_without_a_writable_cache(tmp_path):
    """Numba tries NUMBA_CACHE_DIR, __pycache__ beside the file and the user's cache: here all lie below a file."""
    file = tmp_path / "file"
    file.touch()
    package = tmp_path / "fastrnn"
    shutil.copytree(os.path.dirname(fastrnn.__file__), package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "numba_kernels" / "__pycache__").touch()
    run(
        """
        from pathlib import Path
        import numba
        assert Path(fastrnn.__file__).parent == Path(sys.argv[2])
        try:
            numba.njit(cache=True)(run_rows.py_func)
        except RuntimeError as error:
            assert "no locator available" in str(error)
        else:
            raise AssertionError("Numba found a directory for its cache")
        check_writing()
        check_every_phase()
        for entry in (*CALLED, run_function, run_gates, run_row, run_tile):
            assert entry.signatures and entry.stats.cache_path is None
        """,
        file / "cache",
        str(package),
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        HOME=str(file),
        XDG_CACHE_HOME=str(file),
    )
    assert not list(tmp_path.rglob("*.nb?"))


def test_another_version_is_another_type(tmp_path):
    """The stamp in their argument's type tells entry points, and users' cached functions that call them, apart."""
    name = run('print(numba_kernels.kind.KindType("softmax").name)', tmp_path).strip()
    assert re.fullmatch(r"fastrnn\.Kind\(softmax, [0-9a-f]{16}\)", name)
    script = """
        import numba, numba.core.types
        from fastrnn.numba_kernels import door, kind
        kind.STAMP = "0" * 16
        print(numba_kernels.kind.KindType("softmax").name)
        """
    assert run(script, tmp_path).strip() != name


@pytest.mark.parametrize("layer", ["workqueue", "omp", "tbb"])
def test_threading_layers(layer):
    """The parallel twin: its bits, launches from several threads at once, and the serial twin in a forked child."""
    printed = run(
        """
        import os, threading, warnings
        import numba
        from numba.core.errors import NumbaError

        warnings.simplefilter("ignore")
        plan, data, expected = problem("lstm", batch=13)
        numba_kernels.stepping.PARALLEL_WORK = 0  # this small problem would run alone
        parallel = functools.partial(numba_kernels.prepare(plan), threads=2)
        try:
            check(results(plan, parallel, *data), expected)
            print(numba.threading_layer())
        except (NumbaError, ValueError) as error:
            print("absent:", error)
            raise SystemExit

        failures = []
        def work():
            try:
                for _ in range(50):
                    check(results(plan, parallel, *data), expected)
            except BaseException as error:
                failures.append(error)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert not failures, failures

        child = os.fork()
        if child == 0:
            try:
                check(results(plan, parallel, *data), expected)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        check(results(plan, parallel, *data), expected)
        """,
        None,
        NUMBA_THREADING_LAYER=layer,
    )
    if printed.startswith("absent"):
        pytest.skip(printed)
    assert printed.strip() == layer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_while_another_thread_compiles(tmp_path):
    script = """
        import os, signal, threading, time
        import numpy as np, fastrnn
        from fastrnn import simd
        x = np.ones((3, 2, 3), np.float32)
        begun = threading.Event()

        def run(scale):
            @fastrnn.cell(gates=("a",))
            def scaled(a, h):
                return simd.tanh(a) * scale
            fastrnn.Recurrent(scaled, 3, 4).init(0)(x)

        def compile_always():
            for k in range(1000):
                begun.set()
                run(k)

        threading.Thread(target=compile_always, daemon=True).start()
        begun.wait()
        for k in range(3):
            time.sleep(0.2)
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                run(-1 - k)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os._exit(0)
        """
    run(textwrap.dedent(script), tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_of_a_process_that_launched_threads_itself():
    """By a function of its own, before fastrnn had a reason to import Numba."""
    code = """
        import os, sys
        import numba
        import numpy as np
        import fastrnn

        @numba.njit(parallel=True)
        def total(a):
            s = 0.0
            for i in numba.prange(len(a)):
                s += a[i]
            return s

        total(np.ones(1000))
        assert "fastrnn.numba_kernels" not in sys.modules
        if os.fork() == 0:
            layer = fastrnn.LSTM(256, 256, backend="numba", num_threads=2).init()
            layer(np.ones((60, 64, 256), np.float32))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=os.environ | {"NUMBA_THREADING_LAYER": "omp"},
    )
    if "No threading layer could be loaded" in done.stderr:
        pytest.skip("without OpenMP")
    assert done.returncode == 0, done.stderr


def test_the_parallel_twin_takes_any_number_of_threads():
    run(
        """
        numba_kernels.stepping.PARALLEL_WORK = 0
        for batch in (0, 1, 2, 3, 13):
            for threads in (1, 2, 5):
                plan, data, expected = problem("gru", batch=batch)
                run = functools.partial(numba_kernels.prepare(plan), threads=threads)
                check(results(plan, run, *data), expected)
        """,
        None,
    )
