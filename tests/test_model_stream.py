"""Streams of models: step by step, in chunks and in any company, one answer."""

import copy
import pickle

import numpy as np
import pytest
from cases import DTYPES, same_bits
from layer_cases import arrays, by_steps, make
from model_cases import STREAMS, beginning, characters, forward, intents, sequences

import fastrnn


def equal(a, b):
    a, b = list(arrays(a)), list(arrays(b))
    return len(a) == len(b) and all(map(same_bits, a, b))


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
    wanted, stream = model.predict([1, 2, 3]), model.stream()
    stream.step(1)
    layer.init(seed=9)
    layer.initial_state = None
    stream.reset()
    assert same_bits(by_steps(stream, np.array([1, 2, 3])), wanted)


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


MESSAGES = [
    (lambda s: s.step([1, 2]), ValueError, r"x is \(2,\), expected \(N,\) = \(3,\)"),
    (lambda s: s.step(1), ValueError, r"x is \(\), expected \(N,\) = \(3,\)"),
    (lambda s: s.step([[1], [2], [3]]), ValueError, r"x is \(3, 1\).*: step takes one time step, push takes many"),
    (lambda s: s.step([1, 2, 19]), ValueError, r"x must hold ids in 0\.\.18, got 19 at \(2,\)"),
    (lambda s: s.step([True] * 3), TypeError, r"got bools"),
    (lambda s: s.step(np.zeros((3, 18))), ValueError, r"x is \(3, 18\), expected \(N, I\) = \(3, 19\)"),
    (lambda s: s.step([1, 2], rows=[0, 0]), ValueError, r"rows must be distinct, got 0"),
    (lambda s: s.step([1, 2], rows=[0, 3]), ValueError, r"rows must lie in 0\.\.N-1 = 0\.\.2, got 3"),
    (lambda s: s.step([1], rows=[0, 2]), ValueError, r"x is \(1,\), expected \(n,\) = \(2,\)"),
    (lambda s: s.step([1, 2, 3], out=np.zeros((3, 19))), ValueError, r"out has dtype float64, expected float32"),
    (lambda s: s.push([1, 2, 3]), ValueError, r"x is \(3,\), expected \(N, T\).*: push takes many time steps"),
    (lambda s: s.push(np.zeros((3, 2), int), lengths=[1, 2, 3]), ValueError, r"lengths must lie in 0\.\.T = 0\.\.2"),
    (lambda s: s.push(np.zeros((2, 2), int), rows=[0, 2], lengths=[1]), ValueError, r"expected \(B,\) = \(2,\)"),
    (lambda s: s.set_state([]), ValueError, r"state must be a list with one hx for each recurrent layer, 1 in all"),
    (lambda s: s.set_state([np.zeros((2, 3, 17))]), TypeError, r"state\[0\] must be a pair \(h, c\), got ndarray"),
    (lambda s: s.get_state(rows=[9]), ValueError, r"rows must lie in"),
    (lambda s: s.reset(rows=[9]), ValueError, r"rows must lie in"),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES, ids=[message[:50] for *_, message in MESSAGES])
def test_messages_come_before_anything_changes(call, error, message):
    stream = characters().stream(3)
    stream.push([[1, 2], [3, 4], [5, 6]])
    before = stream.get_state()
    with pytest.raises(error, match=message):
        call(stream)
    assert equal(stream.get_state(), before)


def test_all_states_are_checked_before_one_is_set():
    model = forward()
    stream, state = model.stream(3), beginning(model)
    with pytest.raises(ValueError, match=r"h of state\[1\] is"):
        stream.set_state([state[0], tuple(s[:1] for s in state[1])])
    assert not any(s.any() for s in arrays(stream.get_state()))


def test_models_without_a_stream():
    with pytest.raises(fastrnn.UnsupportedError, match="a stream goes forward only, and LSTM"):
        intents().stream()
    with pytest.raises(ValueError, match="batch_size must be an int >= 0, got -1"):
        characters().stream(-1)
    with pytest.raises(ValueError, match=r"h of state\[0\] is \(2, 1, 17\), expected \(L, N, H\) = \(2, 4, 17\)"):
        characters().stream(4, state=[(np.zeros((2, 1, 17)), np.zeros((2, 4, 17)))])
    with pytest.raises(ValueError, match="has no weights"):
        fastrnn.SequenceModel(fastrnn.GRU(2, 3)).stream()
