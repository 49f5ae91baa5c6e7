"""A stream is one thread's: a second one is refused. No step allocates or leaks."""

import contextlib
import itertools
import pickle
import sys
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pytest
from cases import same_bits
from layer_cases import KINDS, at_once, by_steps, equal, initial, inputs, interrupted_everywhere, make, peak_of

import fastrnn


def f(*shape):
    return np.zeros(shape, np.float32)


# Threads --------------------------------------------------------------------------------------------------------------


def enter(stream, layer):
    """Try every call from this thread."""
    x = f(layer.input_size)
    state = tuple(s[:, 0] for s in layer._start(1))
    calls = (
        lambda: stream.step(x),
        lambda: stream.step(x.tolist()),
        lambda: stream.push(x[None]),
        lambda: stream.get_state(),
        lambda: stream.set_state(state if len(state) > 1 else state[0]),
        lambda: stream.reset(),
        lambda: pickle.dumps(stream),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match="inside another call, and takes one thread at a time"):
            call()


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_thread_raises(backend, kind):
    """While a push of another thread is held up inside its engine."""
    layer = make(kind)
    x = inputs(layer, batch=None)
    expected = layer(x)
    stream = layer.stream()
    run, inside, go_on = stream._run, threading.Event(), threading.Event()

    def slow(*arguments):
        inside.set()
        assert go_on.wait(60)
        run(*arguments)

    stream._run = slow
    results = []
    thread = threading.Thread(target=lambda: results.append(stream.push(x)))
    thread.start()
    try:
        assert inside.wait(60)
        enter(stream, layer)
    finally:
        go_on.set()
        thread.join()
    assert same_bits(results[0], expected[0])
    assert equal(stream.get_state(), expected[1])
    stream.reset()
    assert same_bits(by_steps(stream, x), expected[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_thread_in_a_step(kind):
    """The compiled step lets other threads run where it has much to do, and none of them in."""
    if "cython" not in fastrnn.available_backends():
        pytest.skip("the compiled step")
    layer = make(kind, 256, 256, num_layers=2, backend="cython")
    x = inputs(layer, batch=256, steps=1)
    stream = layer.stream(256)
    refused, results, stop = [], [], threading.Event()

    def intrude():
        while not stop.is_set():
            try:
                stream.get_state([0])
            except RuntimeError:
                refused.append(True)
            time.sleep(0.0005)

    thread = threading.Thread(target=intrude)
    thread.start()
    try:
        end = time.monotonic() + 30
        while len(refused) < 3 and time.monotonic() < end:
            with contextlib.suppress(RuntimeError):  # where the intruder was inside
                results.append(stream.step(x[0]))  # nothing else of this thread could refuse it
    finally:
        stop.set()
        thread.join()
    assert len(refused) >= 3
    assert same_bits(results, layer(x.repeat(len(results), 0))[0])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_inside_leaves_the_stream_usable(backend, error):
    layer = make("lstm")
    hx = initial(layer, None)
    stream = layer.stream(hx=hx)
    run = stream._run

    def fail(*arguments):
        run(*arguments)
        raise error("of the engine")

    stream._run = fail
    with pytest.raises(error, match="of the engine"):
        stream.push(f(3, 5))
    stream._run = run
    assert equal(stream.get_state(), hx)
    assert same_bits(stream.push(f(3, 5)), layer(f(3, 5), hx)[0])


@pytest.mark.parametrize("kind", ["gru", "lstm_proj"])
def test_an_interrupt_at_any_instant(backend, kind):
    """The stream stays usable, in the state from before or after the call: never with one's h and the other's c."""
    layer = make(kind, num_layers=2, backend=backend)
    hx, other, rows = initial(layer, 3), initial(layer, 3, seed=5), np.array([2, 0])
    x = inputs(layer, 2, 3)
    for call in (
        lambda stream: stream.step(x[0]),
        lambda stream: stream.step(x[0].tolist()),
        lambda stream: stream.step(x[0, :2], rows=rows.tolist()),
        lambda stream: stream.push(x),
        lambda stream: stream.push(x[:, :2], rows=rows, lengths=[2, 1]),
        lambda stream: stream.get_state(),
        lambda stream: stream.set_state(other),
        lambda stream: stream.reset(rows),
    ):
        done = layer.stream(3, hx=hx)
        call(done)
        for stream, where in interrupted_everywhere(lambda: layer.stream(3, hx=hx), call):
            assert equal(stream.get_state(), hx) or equal(stream.get_state(), done.get_state()), where


def test_streams_of_one_layer_in_many_threads(backend):
    layer = make("gru", 16, 80, backend=backend)
    xs = [inputs(layer, 40, 4, seed) for seed in range(4)]
    expected = [layer(x)[0] for x in xs]
    results = at_once(lambda i: by_steps(layer.stream(4), xs[i]), 4)
    assert all(map(same_bits, results, expected))


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_with_out_allocates_nothing(kind):
    native = pytest.importorskip("fastrnn._native")
    layer = make(kind, 64, 64, num_layers=2, backend="cython")
    for batch, rows in ((None, None), (8, None), (8, np.array([5, 1, 2]))):
        stream = layer.stream(batch)
        assert isinstance(stream, native.Stepper)
        x = inputs(layer, 1, batch)[0]
        x = x if rows is None else x[: len(rows)]
        out = stream.step(x) if rows is None else stream.step(x, rows=rows)
        step, count = stream.step, itertools.repeat(None, 1000)
        tracemalloc.start()
        try:
            for _ in count:
                step(x, rows=rows, out=out)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 64  # a float would take 24, a view of an array 112


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", ["lstm_proj", "gru"])
def test_calls_with_out_make_no_array(backend, kind, num_layers):
    if backend == "reference":
        pytest.skip("plain NumPy")
    layer = make(kind, 5, 7, num_layers=num_layers, backend=backend)
    stream, x = layer.stream(4000), inputs(layer, 3, 4000)
    out, few = layer(x)[0], 3000  # of whose numbers an array takes 24 kB
    rows, lengths = np.random.default_rng(0).permutation(4000)[:few], np.arange(few) % 2
    for most, call in (
        (12288, lambda: stream.push(x, out=out)),
        (12288, lambda: stream.push(x[:1, :few], rows=rows, out=out[:1, :few])),
        (12288, lambda: stream.push(x[:1, :few], rows=rows, lengths=lengths, out=out[:1, :few])),
        (4096, lambda: stream.step(x[0], out=out[0])),
        (4096, lambda: stream.step(x[0, :few], rows=rows, out=out[0, :few])),
    ):
        call()
        assert peak_of(call) < most


@pytest.mark.parametrize("kind", KINDS)
def test_no_leak(backend, kind):
    resource = pytest.importorskip("resource")

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 2**-10)

    layer = make(kind, 16, 33, num_layers=2)
    x, chunk, rows = inputs(layer, 1, 4)[0], inputs(layer, 3, 4), np.array([3, 0])
    stream = layer.stream(4)
    before = np.inf
    for i in range(11):  # the first thousand calls warm up
        for _ in range(250):
            stream.step(x)
            stream.step(x[:2], rows=rows)
            stream.step(x[:2].tolist(), rows=[0, 1])
            stream.push(chunk, lengths=[0, 1, 2, 3])
        for _ in range(50):
            layer.stream(4, hx=stream.get_state()).step(x)
        stream.reset()
        before = peak() if i == 0 else before
    assert peak() - before < 2**21


def test_a_stream_goes_with_its_last_reference(backend):
    stream = make("gru").stream(3)
    stream.push(f(2, 3, 5))
    gone = weakref.ref(stream)
    del stream
    assert gone() is None


def test_streams_share_the_weights(backend):
    layer = make("lstm", 16, 33)
    first, second = layer.stream(), layer.stream(2)
    assert first._run is second._run
    assert first._layer._plan is layer._plan
