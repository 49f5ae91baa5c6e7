"""Layers are called from several threads at once, and after a fork."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from layer_cases import KINDS, THREADS, arrays, at_once, equal, inputs, make

import fastrnn


@pytest.mark.parametrize("name", fastrnn.available_backends())
@pytest.mark.parametrize("kind", KINDS)
def test_one_layer_from_many_threads(name, kind):
    layer = make(kind, 16, 33, num_layers=2, bidirectional=True, backend=name)
    xs = [inputs(layer, 3 + i, 1 + i % 4, seed=i) for i in range(THREADS)]
    lengths = [None if i % 2 else [i % 3] * (1 + i % 4) for i in range(THREADS)]
    expected = [layer(x, lengths=n) for x, n in zip(xs, lengths, strict=True)]
    results = at_once(lambda i: [layer(xs[i], lengths=lengths[i]) for _ in range(5)])
    for i, calls in enumerate(results):
        assert all(equal(call, expected[i]) for call in calls)


def test_one_model_from_many_threads(backend):
    """Calls of every kind at once, on one model: each thread gets what it gets alone."""
    layer, head = make("lstm", 16, 33, num_layers=2, num_threads=2, backend=backend), np.eye(12, 33)
    matrix = np.random.default_rng(0).normal(size=(12, 16))
    model = fastrnn.SequenceModel(layer, embedding=matrix, head=fastrnn.Dense(head, activation="softmax"))
    both = fastrnn.Seq2Seq(fastrnn.SequenceModel(layer), model, start=0, stop=1)

    def work(i):
        rng = np.random.default_rng(i)
        ids, x = rng.integers(0, 12, (3, 4 + i)), rng.standard_normal((3, 4 + i, 16)).astype(np.float32)
        stream = model.stream(3)
        yield model.predict(ids, lengths=[4, 0, 2])
        yield [stream.step(now) for now in ids.T], stream.push(x), stream.get_state()
        yield model.predict_many(list(ids), wiring="many_to_one"), model.unroll(x[:, 0], 3)
        yield model.generate(ids.tolist(), 5, seed=i), both.generate(x, 5, beam=2)
        yield np.array(model.score(ids[0]))

    def bits(i):
        return [(array.dtype, array.shape, array.tobytes()) for array in arrays(work(i))]

    alone = [bits(i) for i in range(THREADS)]
    for found, expected in zip(at_once(lambda i: [bits(i) for _ in range(3)]), alone, strict=True):
        assert found == [expected] * 3


@pytest.mark.parametrize("name", [name for name in fastrnn.available_backends() if name != "reference"])
def test_other_threads_run_while_kernels_do(name):
    """The GIL is released: this thread sees the result of one call half written."""
    layer = make("lstm", 64, 128, num_threads=1, backend=name)
    x = inputs(layer, 20_000, 1)
    model = fastrnn.SequenceModel(layer)
    calls = {
        "layer": lambda out: layer(x, out=out),
        "push": lambda out: layer.stream(1).push(x, out=out),
        "model": lambda out: model.predict(x[:, 0], out=out[:, 0]),
        "model's push": lambda out: model.stream().push(x[:, 0], out=out[:, 0]),
    }
    for what, call in calls.items():
        call(out := np.empty((20_000, 1, 128), np.float32))
        out[:] = np.nan
        seen = out[::1000, 0, 0]
        thread = threading.Thread(target=call, args=(out,))
        thread.start()
        levels = set()
        while thread.is_alive():
            levels.add(np.count_nonzero(~np.isnan(seen)))
        thread.join()
        assert levels - {0, len(seen)}, what


@pytest.mark.parametrize("name", fastrnn.available_backends())
def test_a_layer_is_prepared_once(monkeypatch, name):
    from fastrnn import backends

    backend, made = backends.load(name), []

    def slow(plan):
        made.append(plan)
        time.sleep(0.05)
        return backend.layer(plan)

    monkeypatch.setitem(backends._loaded, name, backend._replace(layer=slow))
    layer = make("lstm", backend=name)
    x = inputs(layer)
    results = at_once(lambda _: layer(x))
    assert len(made) == 1
    assert all(equal(result, results[0]) for result in results)


def test_new_weights_while_others_call():
    layer = make("gru", backend="reference")
    x, versions = inputs(layer), [make("gru", seed=seed, backend="reference") for seed in range(2)]
    expected = [version(x) for version in versions]
    weights = [version.state_dict() for version in versions]
    stop = threading.Event()

    def load():
        for i in range(50):
            layer.load_state_dict(weights[i % 2])
        stop.set()

    def work(i):
        if i == 0:
            return load()
        seen = [layer(x)]
        while not stop.is_set():
            seen.append(layer(x))
        assert all(equal(y, expected[0]) or equal(y, expected[1]) for y in seen)
        return None

    at_once(work, 4)


def test_a_with_block_is_for_its_thread_alone():
    from fastrnn import backends

    usual = backends.current()
    inside, leave = threading.Event(), threading.Event()

    def other():
        with fastrnn.use_backend("reference"):
            inside.set()
            leave.wait(10)
            return backends.current()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(other)
        assert inside.wait(10)
        assert backends.current() == usual
        leave.set()
        assert future.result() == "reference"
    assert backends.current() == usual


def test_with_blocks_in_many_threads_leave_nothing_behind():
    from fastrnn import backends

    usual = backends.current()

    def enter(i):
        name = fastrnn.available_backends()[i % len(fastrnn.available_backends())]
        for _ in range(200):
            with fastrnn.use_backend(name):
                assert backends.current() == name

    at_once(enter)
    assert backends.current() == usual
    assert backends._process is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", fastrnn.available_backends())
def test_calls_after_a_fork(name):
    layer = make("lstm", 16, 33, backend=name)
    x = inputs(layer, 20, 8)
    expected = layer(x)
    at_once(lambda _: layer(x), 2)
    fresh = make("gru", backend=name)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fine = equal(layer(x), expected) and fresh(inputs(fresh))[0].shape == (6, 3, 7)
            status = 0 if fine else 2
        finally:
            sys.stdout.flush()
            os._exit(status)
    for _ in range(600):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_waits_for_a_thread_that_prepares():
    from fastrnn import preparing

    holding, done = threading.Event(), []

    def hold():
        with preparing.lock:
            holding.set()
            time.sleep(0.5)
            done.append(True)

    layer = make("gru", backend="reference")
    x = inputs(layer)
    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(10)
    pid = os.fork()
    if pid == 0:
        layer(x)
        os._exit(not done)
    thread.join()
    for _ in range(300):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
