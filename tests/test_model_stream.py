"""Streams of models: step by step, in chunks and in any company, one answer."""

import contextlib
import copy
import itertools
import pickle
import threading
import time
import tracemalloc

import numpy as np
import pytest
from cases import DTYPES, same_bits
from layer_cases import arrays, by_steps, equal, interrupted_everywhere, make, peak_of
from model_cases import BY_IDS, STREAMS, beginning, characters, dense, matrix, sequences

import fastrnn
from fastrnn import packing
from fastrnn.model_stream import ChainModelStream
from fastrnn.recurrent import Recurrent
from fastrnn.stream import ChainStream


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STREAMS)
def test_steps_and_chunks(backend, name, dtype):
    model = STREAMS[name](dtype)
    x, state = sequences(model, 3, 9), beginning(model)
    wanted, final = model.predict(x, state=state, return_state=True)
    stream = model.stream(3, state=state)
    assert same_bits(by_steps(stream, x, axis=1), wanted)
    assert equal(stream.get_state(), final)
    stream = model.stream(3, state=state)
    assert same_bits(np.concatenate([stream.push(x[:, a:b]) for a, b in ((0, 2), (2, 2), (2, 9))], axis=1), wanted)
    assert equal(stream.get_state(), final)


@pytest.mark.parametrize("name", STREAMS)
def test_one_stream(backend, name):
    model = STREAMS[name]()
    x = sequences(model, None, 9)
    wanted, final = model.predict(x, return_state=True)
    stream = model.stream()
    assert isinstance(stream, fastrnn.Stream)
    assert same_bits(by_steps(stream, x), wanted)
    assert equal(stream.get_state(), final)
    stream.reset()
    assert same_bits(stream.push(x), wanted)
    stream = model.stream(state=final)
    assert same_bits(stream.step(x[0]), model.predict(x[:1], state=final)[0])


@pytest.mark.parametrize("name", STREAMS)
def test_rows_and_lengths(backend, name):
    """Streams that advance at their own pace: each is what it is alone."""
    model = STREAMS[name]()
    x = sequences(model, 4, 12)
    wanted = model.predict(x)
    stream, done = model.stream(4), np.zeros(4, int)
    rng = np.random.default_rng(0)
    while done.min() < 9:
        rows = rng.permutation(4)[: rng.integers(0, 5)]
        y = stream.step(x[rows, done[rows]], rows=rows)
        assert same_bits(y, wanted[rows, done[rows]])
        done[rows] += 1
        rows = np.flatnonzero(done < 9)
        lengths = rng.integers(0, 3, len(rows))
        chunk = np.array([x[r, done[r] : done[r] + 2] for r in rows]).reshape(len(rows), 2, *x.shape[2:])
        y = stream.push(chunk.astype(x.dtype), lengths=lengths, rows=rows)
        for row, n, found in zip(rows, lengths, y, strict=True):
            assert same_bits(found[:n], wanted[row, done[row] : done[row] + n])
            assert not found[n:].any()
            done[row] += n
        if done.max() > 9:
            break
    assert done.max() > 2


@pytest.mark.parametrize("name", STREAMS)
def test_states(backend, name):
    model = STREAMS[name]()
    x, state = sequences(model, 3), beginning(model)
    stream = model.stream(3)
    stream.push(x)
    moved = stream.get_state()
    assert equal(stream.get_state(rows=[2, 0]), [rows_of(hx, [2, 0]) for hx in moved])
    stream.set_state([rows_of(hx, [1]) for hx in state], rows=[2])
    assert equal(stream.get_state(rows=[2]), [rows_of(hx, [1]) for hx in state])
    assert equal(stream.get_state(rows=[0, 1]), [rows_of(hx, [0, 1]) for hx in moved])
    stream.reset(rows=[0])
    assert not any(s.any() for s in arrays(stream.get_state(rows=[0])))
    stream.set_state(state)
    assert equal(stream.get_state(), state)
    assert same_bits(stream.push(x), model.predict(x, state=state))


def rows_of(hx, rows):
    return tuple(s[:, rows] for s in hx) if isinstance(hx, tuple) else hx[:, rows]


@pytest.mark.parametrize("name", STREAMS)
def test_out(backend, name):
    model = STREAMS[name]()
    x = sequences(model, 3)
    wanted, stream = model.predict(x), model.stream(3)
    out = np.full((3, model._output_size), np.nan, np.float32)
    assert stream.step(x[:, 0], out=out) is out
    assert same_bits(out, wanted[:, 0])
    out = np.full((3, 5, model._output_size), np.nan, np.float32)
    assert stream.push(x[:, 1:], out=out) is out
    assert same_bits(out, wanted[:, 1:])


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda stream: pickle.loads(pickle.dumps(stream))])
@pytest.mark.parametrize("name", STREAMS)
def test_copies(backend, name, way):
    model = STREAMS[name]()
    x = sequences(model, 3)
    wanted, stream = model.predict(x), model.stream(3)
    stream.push(x[:, :3])
    again = way(stream)
    assert repr(again) == repr(stream)
    assert same_bits(again.push(x[:, 3:]), wanted[:, 3:])
    assert same_bits(stream.push(x[:, 3:]), wanted[:, 3:])


def test_a_stream_keeps_its_weights(backend):
    layer = make("gru", 4, 5)
    layer.initial_state = np.full((1, 5), 0.5)
    model = fastrnn.SequenceModel(layer, embedding="one_hot")
    wanted, stream, fresh = model.predict([1, 2, 3]), model.stream(), model.stream()
    stream.step(1)
    layer.init(seed=9)
    layer.initial_state = None
    stream.reset()
    for kept in (stream, fresh):
        for each in (copy.copy(kept), pickle.loads(pickle.dumps(kept)), kept):
            assert same_bits(by_steps(each, np.array([1, 2, 3])), wanted)


def test_a_stream_keeps_its_backend():
    model = characters()
    with fastrnn.use_backend("reference"):
        wanted, stream = model.predict([1, 2, 3]), model.stream()
    assert same_bits(by_steps(stream, np.array([1, 2, 3])), wanted)


def test_one_thread_at_a_time():
    stream = characters().stream()
    for call in (
        lambda: stream.step(1),
        lambda: stream.push([1]),
        stream.reset,
        stream.get_state,
        lambda: stream.set_state(beginning(characters(), None)),
        lambda: copy.copy(stream),
    ):
        with pytest.raises(RuntimeError, match="this Stream is inside another call"):
            stream._alone(call)
    stream.step(1)


def two_layers(backend):
    """A model with vectors in, whose second layer runs on the backend named, or on the one in use."""
    layers = [make("lstm", 3, 5), dense(4, 5, "tanh"), make("gru", 4, 3, backend=backend)]
    return fastrnn.SequenceModel(layers, head=dense(2, 3, "softmax"))


@pytest.mark.parametrize("second", [None, "reference"])
def test_an_interrupt_at_any_instant(backend, second):
    """No layer has a state that another one has not come to."""
    model = two_layers(second)
    x, rows = sequences(model, 3, 2), np.array([2, 0])
    state = model.predict(x, return_state=True)[1]
    for call in (
        lambda stream: stream.step(x[:, 0].tolist()),
        lambda stream: stream.push(x),
        lambda stream: stream.push(x[:2], rows=rows, lengths=[2, 1]),
        lambda stream: stream.set_state(state),
        lambda stream: stream.reset(rows),
    ):
        done = model.stream(3)
        before = done.get_state()
        call(done)
        for stream, where in interrupted_everywhere(lambda: model.stream(3), call):
            assert equal(stream.get_state(), before) or equal(stream.get_state(), done.get_state()), where


# Ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1 << 20])
@pytest.mark.parametrize("name", BY_IDS)
def test_ids_and_vectors(backend, name, most, monkeypatch):
    """Rows of tables or of the embedding, and vectors in between, which pass both by."""
    monkeypatch.setattr(packing, "MOST_TABLE_BYTES", most)
    model = BY_IDS[name]()
    x = sequences(model, 3, 8)
    wanted, vectors, stream = model.predict(x), model._vectors(x), model.stream(3)
    for t in range(8):
        assert same_bits(stream.step(x[:, t] if t % 3 else vectors[:, t]), wanted[:, t])
    stream = model.stream()
    for t in range(8):
        assert same_bits(stream.step(x[0, t] if t % 3 else vectors[0, t]), wanted[0, t])


FORMS = {
    "int": int,
    "int64": np.int64,
    "int32": np.int32,
    "uint8": np.uint8,
    "uint64": np.uint64,
    "0-d": np.array,
    "big-endian": lambda i: np.array(i, ">i4"),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_ids(backend, form):
    model = characters()
    x = sequences(model, None, 5)
    assert same_bits(by_steps(model.stream(), [FORMS[form](i) for i in x]), model.predict(x))
    streams, wanted = model.stream(3), model.predict(x[:3, None])
    assert same_bits(streams.step([FORMS[form](i) for i in x[:3]]), wanted[:, 0])
    streams.reset()
    assert same_bits(streams.step(np.repeat(x[:3], 2)[::2]), wanted[:, 0])


@pytest.mark.parametrize("wrong", [-1, 19, 2**31, -(2**63), np.int64(19), np.int64(-1)])
def test_ids_out_of_range(backend, wrong):
    one, three = characters().stream(), characters().stream(3)
    for stream in (one, three):
        stream.step(stream._model._vectors(np.array(1 if stream is one else [1, 2, 3])))
        before = stream.get_state()
        for _ in range(2):  # before and after the first ids have come
            with pytest.raises(ValueError, match=r"x must hold ids in 0\.\.18, got"):
                stream.step(wrong if stream is one else np.array([0, wrong, 2]))
            assert equal(stream.get_state(), before)
            stream.step(1 if stream is one else [1, 2, 3])
            stream.set_state(before)
    for huge in (2**63, np.uint64(2**63)):
        with pytest.raises(ValueError, match=r"x must hold ids in 0\.\.18, got 9223372036854775808"):
            one.step(huge)


# The compiled step ----------------------------------------------------------------------------------------------------


def compiled(model, *arguments):
    native = pytest.importorskip("fastrnn._native")
    with fastrnn.use_backend("cython"):
        stream = model.stream(*arguments)
    assert isinstance(stream, native.ModelStepper)
    return stream


@pytest.mark.parametrize("name", STREAMS | BY_IDS)
def test_a_step_with_out_allocates_nothing(name):
    model = (STREAMS | BY_IDS)[name]()
    ids = sequences(model, 8)[:, 0].copy()
    inputs = [ids] if model.embedding is None else [ids, model._vectors(ids)]
    rows = np.array([5, 1, 2])
    for x in inputs:
        one = int(x[0]) if x.ndim == 1 else x[0]
        for batch, given, chosen in ((None, one, None), (8, x, None), (8, x[:3], rows)):
            stream = compiled(model, batch)
            step, out, count = stream.step, stream.step(given, rows=chosen), itertools.repeat(None, 1000)
            tracemalloc.start()
            try:
                for _ in count:
                    step(given, rows=chosen, out=out)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 64  # a float would take 24, a view of an array 112


def test_a_step_with_out_makes_no_array_on_numba():
    pytest.importorskip("numba")
    model = characters()
    ids, rows = sequences(model, 4000)[:, 0].copy(), np.random.default_rng(0).permutation(4000)[:3000]
    with fastrnn.use_backend("numba"):
        stream = model.stream(4000)
    out = stream.step(ids)
    for call in (lambda: stream.step(ids, out=out), lambda: stream.step(ids[:3000], rows=rows, out=out[:3000])):
        call()
        assert peak_of(call) < 4096


def test_out_is_a_new_array_or_overlaps_nothing():
    model = characters()
    stream, x = compiled(model, 3), np.array([1, 2, 3])
    first, kept = stream.step(x), stream.step(x).copy()
    stream.reset()
    stream.step(x)
    second = stream.step(x)
    assert not np.shares_memory(first, second)
    assert same_bits(second, kept)
    before, line = stream.get_state(), np.zeros(19, np.float32)
    inside = line[2:4].view(np.int64)  # which is [0]
    for x, rows, name in ((inside, np.array([1]), "x"), (np.array([1]), inside, "rows")):
        with pytest.raises(ValueError, match=f"out overlaps {name}"):
            stream.step(x, rows=rows, out=line[None])
    assert equal(stream.get_state(), before)


def many_ids():
    """Tables of more than 1 MB, whose rows are fetched."""
    return fastrnn.SequenceModel(make("gru_before", 5, 37), embedding=matrix(9000, 5))


def wide_heads():
    """Dense layers that threads share by blocks, where there are few rows."""
    return fastrnn.SequenceModel(make("gru", 5, 37), head=[dense(999, 37, "tanh"), dense(4001, 999, "softmax")])


SHARED = STREAMS | BY_IDS | {"many_ids": many_ids, "wide_heads": wide_heads}


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("batch", [1, 5, 60])
@pytest.mark.parametrize("name", SHARED)
def test_shared_steps(name, batch, threads):
    """Each thread does its share of the networks' blocks and of the dense layers' rows."""
    native = pytest.importorskip("fastrnn._native")

    class Forced(native.ModelStepper):
        def __init__(self, stream):
            parts, rows, by_ids = stream._parts()
            native.ModelStepper.__init__(self, parts, rows, by_ids, threads, forced=True)

    model = SHARED[name]()
    x = sequences(model, batch, 5)
    wanted, shared = model.predict(x), Forced(compiled(model, batch))
    for t in range(5):
        out = np.empty_like(wanted[:, t])
        shared._advance(x[:, t], None, out)
        assert same_bits(out, wanted[:, t])


def test_a_wide_dense_layer_after_a_narrow_one():
    """Their workspace is one, and threads may be in either: for long enough that some are."""
    pytest.importorskip("fastrnn._native")
    model = fastrnn.SequenceModel(make("rnn", 5, 64), head=[dense(64, 64, "tanh"), dense(4000, 64)])
    x = sequences(model, 100, 1)[:, 0]
    with fastrnn.use_backend("cython"):
        fastrnn.set_num_threads(1)
        try:
            alone = model.stream(100)
            wanted = [alone.step(x) for _ in range(20)]
            fastrnn.set_num_threads(2)
            for _ in range(15):
                shared = model.stream(100)
                assert all(same_bits(shared.step(x), y) for y in wanted)
        finally:
            fastrnn.set_num_threads(None)


@pytest.mark.parametrize("batch", [1, 5, 13])
@pytest.mark.parametrize("name", STREAMS | BY_IDS)
def test_chains_of_numba(name, batch, monkeypatch):
    """A step is one compiled call; where it is worth a launch, threads share the rows."""
    stepping = pytest.importorskip("fastrnn.numba_kernels.stepping")
    model = (STREAMS | BY_IDS)[name]()
    for layer in model.layers:
        if isinstance(layer, Recurrent):
            layer.num_threads = 3
    x = sequences(model, batch, 6)
    wanted, rows = model.predict(x), np.arange(batch)[::-2]
    with fastrnn.use_backend("numba"):
        for work in (stepping.PARALLEL_WORK, 0):
            monkeypatch.setattr(stepping, "PARALLEL_WORK", work)
            stream = model.stream(batch)
            assert isinstance(stream, ChainModelStream)
            assert same_bits(by_steps(stream, x[:, :4], axis=1), wanted[:, :4])
            assert same_bits(stream.step(x[rows, 4], rows=rows), wanted[rows, 4])
            assert same_bits(stream.push(x[rows, 5:], rows=rows), wanted[rows, 5:])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "lstm_proj", "gru", "gru_before"])
def test_layers_on_numba(cell):
    pytest.importorskip("numba")
    layer = make(cell, 5, 37, num_layers=3)
    x = np.random.default_rng(0).normal(size=(9, 4, 5)).astype(np.float32)
    wanted = layer(x)
    layer.backend = "numba"
    stream = layer.stream(4)
    assert isinstance(stream, ChainStream)
    assert same_bits(by_steps(stream, x), wanted[0])
    assert equal(stream.get_state(), wanted[1])


def test_every_tier():
    native = pytest.importorskip("fastrnn._native")
    model, before = BY_IDS["dense"](), native.tier()
    x = sequences(model, 7)
    wanted = model.predict(x)
    for tier, found in native.tiers().items():
        if found == "ok":
            native.select_tier(tier)
            try:
                assert same_bits(by_steps(compiled(BY_IDS["dense"](), 7), x, axis=1), wanted)
            finally:
                native.select_tier(before)


def test_layers_on_several_backends():
    """One compiled chain takes layers of one backend only; others have their own."""
    pytest.importorskip("fastrnn._native")
    layers = [make("gru", 5, 7, backend="reference"), make("lstm", 7, 9, backend="cython")]
    model = fastrnn.SequenceModel(layers, head=dense(4, 9, "softmax"))
    x = sequences(model, 3)
    assert same_bits(by_steps(model.stream(3), x, axis=1), model.predict(x))


def test_a_second_thread_in_a_step():
    """A step of much work lets other threads run, and none of them in."""
    layer = make("lstm", 256, 256, num_layers=2)
    model = fastrnn.SequenceModel(layer, embedding="one_hot", head=dense(256, 256, "softmax"))
    stream, x = compiled(model, 256), np.arange(256)
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
                results.append(stream.step(x))
    finally:
        stop.set()
        thread.join()
    assert len(refused) >= 3
    assert same_bits(np.array(results), model.predict(np.repeat(x[:, None], len(results), 1)).swapaxes(0, 1))
