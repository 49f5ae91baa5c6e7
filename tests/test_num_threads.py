"""Calls on several threads: bits however a call is split, forks, interrupts, exits, idling, and who sets the number."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import DTYPES, Case, make_inputs, make_lengths, make_plan, results, same_bits
from layer_cases import KINDS, equal, inputs, large, large_outputs, make

import fastrnn
from fastrnn.cells import VARIANTS

native = pytest.importorskip("fastrnn._native")

# Rows of the batch, directions and unit blocks in so many parts; or, instead of blocks, threads that project inputs
# for one that takes the steps. More threads than this machine has are among them.
PARTS = [(1, 1, 2), (2, 1, 1), (3, 1, 2), (1, 2, 1), (2, 2, 2), (1, 1, 8), (5, 1, 1)]
SPLITS = [(*parts, apart) for parts in PARTS for apart in (False, True) if parts[2] > 1 or not apart]


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_splits(split, variant, dtype):
    rows, ways, _, _ = split
    shapes = (1, 5, 3), (37, 5, 30), (17, 3 * rows, 30), (130, rows, 25), (150, rows + 1, 1), (70, 5, 0)
    for hidden, batch, steps in shapes:
        for layers, directions in ((1, ways), (3, ways)):
            activation = VARIANTS[variant].activations[0]
            case = Case(variant, activation, 20, hidden, layers, directions, steps=steps, batch=batch)
            plan, (x, state) = make_plan(case, dtype), make_inputs(case, dtype)
            for lengths in (None, make_lengths(case)):
                alone = results(plan, native.Engine(plan), x, state, lengths)
                shared = results(plan, native.Engine(plan, split=split), x, state, lengths)
                assert equal(alone, shared), (hidden, batch, steps, layers, lengths)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_shared_steps_of_a_stream(kind, threads):
    layer = make(kind, 6, 70, num_layers=2)
    x = inputs(layer, 9, 5)
    y, _ = layer(x)
    state = tuple(np.zeros((2, 5, size), np.float32) for size in layer._state_sizes)
    stepper = native.Stepper(native.Engine(layer._plan), state, True, threads, forced=True)
    for row, expected in zip(x, y, strict=True):
        out = np.empty_like(expected)
        stepper._advance(row, None, out)
        assert same_bits(out, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_threads(backend, kind):
    layer = make(kind, 64, 200, num_layers=2, bidirectional=True)
    x = inputs(layer, 12, 7)
    lengths = [12, 0, 3, 12, 1, 7, 12]
    layer.num_threads = 1
    expected = layer(x), layer(x[:, :1]), layer(x, lengths=lengths)
    for threads in (2, 3, 8):
        layer.num_threads = threads
        assert equal((layer(x), layer(x[:, :1]), layer(x, lengths=lengths)), expected)


def test_streams_on_any_number_of_threads():
    layer = make("lstm", 200, 300)
    x = inputs(layer, 5, 3)
    y, _ = layer(x)
    for threads in (1, 2, 8):
        layer.num_threads = threads
        stream = layer.stream(3)
        assert same_bits(np.stack([stream.step(row) for row in x]), y)


def test_callers_at_once():
    layer, x = large()
    expected = layer(x)
    with ThreadPoolExecutor(8) as pool:
        assert all(equal(result, expected) for result in pool.map(lambda _: layer(x), range(200)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_after_use(method):
    expected = [large_outputs(seed) for seed in range(2)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(large_outputs, range(2)).get(timeout=100) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_forks_while_another_thread_calls():
    layer, x = large()
    expected = layer(x)
    with ThreadPoolExecutor(1) as pool:
        calls = pool.submit(lambda: [layer(x) for _ in range(300)])
        for _ in range(10):
            child = os.fork()
            if child == 0:
                os._exit(0 if equal(layer(x), expected) else 1)
            assert os.waitpid(child, 0)[1] == 0
        assert all(equal(result, expected) for result in calls.result())


@pytest.mark.parametrize("shape", [(50, 0, 300), (0, 4, 300), (0, 0, 300)], ids=str)
def test_nothing_to_share(shape):
    """A layer large enough for two threads, and no row or no step."""
    layer = fastrnn.LSTM(300, 300, num_threads=2).init()
    y, (h, c) = layer(np.ones(shape, np.float32))
    assert y.shape == shape
    assert h.shape == c.shape == (1, *shape[1:])


# Processes of their own -----------------------------------------------------------------------------------------------

LAYER = """
import os, sys, time
import numpy as np, fastrnn
layer = fastrnn.LSTM(300, 300, num_threads=2).init()
x = np.ones((200, 300), np.float32)
layer(x)
"""
IDLE = "start = time.process_time(); time.sleep(1); print(time.process_time() - start)"


def script(code, **environment):
    """Start a process that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output(code, **environment):
    process = script(code, **environment)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out.strip()


def test_nothing_burns_after_a_call():
    """CPU time of all threads of the process in a second after a call: 5 ms is what a busy wait takes in 5 ms.

    NumPy's OpenBLAS starts threads of its own on import, which spin for up to 20 ms: not here.
    """
    assert float(output(LAYER + IDLE, OPENBLAS_NUM_THREADS="1")) < 0.005


def test_nothing_burns_after_a_batch_on_numba():
    pytest.importorskip("numba")
    batch = """
layer = fastrnn.LSTM(64, 64, num_threads=2, backend="numba").init()
layer(np.ones((50, 64, 64), np.float32))
assert "GOMP_SPINCOUNT" not in os.environ
"""
    assert float(output(LAYER + batch + IDLE, OPENBLAS_NUM_THREADS="1", NUMBA_NUM_THREADS="2")) < 0.005


def test_exit_with_workers_asleep_and_at_work():
    assert output(LAYER + "print('done')") == "done"
    daemon = """
import threading
def call():
    while True: layer(x)
threading.Thread(target=call, daemon=True).start()
time.sleep(0.1)
print('done')
"""
    assert output(LAYER + daemon) == "done"


def test_interrupts():
    process = script(
        LAYER
        + """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
try:
    print("calling", flush=True)  # from here on an interrupt may come
    while True: layer(x)
except KeyboardInterrupt:
    layer(x)
    print("interrupted")
"""
    )
    assert process.stdout.readline() == "calling\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert out == "interrupted\n"


# The number -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def automatic():
    yield
    fastrnn.set_num_threads(None)


def test_set_num_threads(automatic):
    before = fastrnn.get_num_threads()
    assert before >= 1
    fastrnn.set_num_threads(3)
    assert fastrnn.get_num_threads() == 3
    fastrnn.set_num_threads(None)
    assert fastrnn.get_num_threads() == before
    for wrong, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="n must be an int >= 1"):
            fastrnn.set_num_threads(wrong)
    with pytest.raises(ValueError, match=r"n must be an int in 1\.\.2147483647, got 1000"):
        fastrnn.set_num_threads(10**20)
    fastrnn.set_num_threads(2**31 - 1)
    fastrnn.GRU(3, 4).init()(np.ones((5, 2, 3)))
    fastrnn.set_num_threads(None)
    assert fastrnn.get_num_threads() == before


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FASTRNN_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, "3"),
        ({"FASTRNN_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, "5"),
        ({"FASTRNN_NUM_THREADS": "", "OMP_NUM_THREADS": "4,2"}, "4"),
        ({"FASTRNN_NUM_THREADS": "", "OMP_NUM_THREADS": "many"}, None),
        ({"FASTRNN_NUM_THREADS": "", "OMP_NUM_THREADS": ""}, None),
        ({"FASTRNN_NUM_THREADS": "", "OMP_NUM_THREADS": "9" * 5000}, None),
    ],
)
def test_the_environment_sets_the_number(environment, expected):
    found = output("import fastrnn; print(fastrnn.get_num_threads())", **environment)
    assert found == expected if expected else 1 <= int(found) <= os.cpu_count()


@pytest.mark.parametrize("wrong", ["two", "0", "1" + 20 * "0"])
def test_a_wrong_environment_is_named(wrong):
    process = script("import fastrnn; fastrnn.get_num_threads()", FASTRNN_NUM_THREADS=wrong)
    _, err = process.communicate(timeout=100)
    assert f"FASTRNN_NUM_THREADS={wrong}: expected an int in 1..2147483647" in err
