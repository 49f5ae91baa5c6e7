"""Streams take every kind of array, change nothing that goes in, share nothing that comes out; what errors say."""

import itertools

import numpy as np
import pytest
from cases import same_bits
from layer_cases import KINDS, arrays, by_steps, equal, initial, inputs, make, readonly, strided

import fastrnn


def f(*shape):
    return np.zeros(shape, np.float32)


# What goes in and comes out -------------------------------------------------------------------------------------------


def sliced(a):
    big = np.full((*a.shape[:-1], a.shape[-1] + 3), 99, a.dtype)
    big[..., 2:-1] = a
    return big[..., 2:-1]


def misaligned(a):
    view = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


FORMS = {
    "readonly": readonly,
    "strided": strided,
    "sliced": sliced,
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "fortran": np.asfortranarray,
    "misaligned": misaligned,
    "big endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "other dtype": lambda a: a.astype(np.float64),
    "list": lambda a: a.tolist(),
    "subclass": lambda a: a.view(type("Mine", (np.ndarray,), {})),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_forms(backend, kind, form):
    layer, change = make(kind), FORMS[form]
    for batch in (None, 3):
        x, hx = inputs(layer, batch=batch), initial(layer, batch)
        expected = layer(x, hx)[0]
        changed = tuple(map(change, hx)) if isinstance(hx, tuple) else change(hx)
        stream = layer.stream(batch, hx=changed)
        assert same_bits(np.stack([stream.step(change(now)) for now in x]), expected)
        stream.set_state(changed)
        assert same_bits(stream.push(change(x)), expected)
    if form != "other dtype":
        x, rows = inputs(layer), np.array([2, 0, 3])
        stream = layer.stream(4)
        assert same_bits(np.stack([stream.step(now, rows=change(rows)) for now in x]), layer(x)[0])


def test_tensors(backend):
    torch = pytest.importorskip("torch")
    layer = make("lstm")
    x = inputs(layer)
    stream = layer.stream(3)
    assert same_bits(np.stack([stream.step(torch.from_numpy(now)) for now in x]), layer(x)[0])
    before = stream.get_state()
    for call in (stream.step, stream.push):
        with pytest.raises(TypeError, match=r"x is a tensor that requires grad .*x\.detach\(\)"):
            call(torch.zeros(3, 5, requires_grad=True))
    assert equal(stream.get_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_new_arrays(backend, kind):
    layer = make(kind)
    for batch in (None, 3):
        x = inputs(layer, batch=batch)
        stream = layer.stream(batch)
        results = [stream.step(now) for now in x] + [stream.push(x), stream.push(x)]
        results += [*arrays(stream.get_state()), *arrays(stream.get_state()), *stream._states, x]
        for a, b in itertools.combinations(results, 2):
            assert not np.shares_memory(a, b)
        for y in results[:6]:
            y[:] = 9  # is not what the next step reads
        stream.reset()
        stream.step(x[0])[:] = 9
        assert same_bits(stream.step(x[1]), layer(x)[0][1])


@pytest.mark.parametrize("kind", KINDS)
def test_out(backend, kind):
    layer = make(kind)
    for batch in (None, 3):
        x = inputs(layer, batch=batch)
        expected = layer(x)[0]
        stream = layer.stream(batch)
        out = np.full_like(expected[0], np.nan)
        for t, now in enumerate(x):
            assert stream.step(now, out=out) is out
            assert same_bits(out, expected[t])
            assert stream.step.__self__ is stream
        stream.reset()
        whole = np.full_like(expected, np.nan)
        assert stream.push(x, out=whole) is whole
        assert same_bits(whole, expected)
        stream.reset()
        for t, now in enumerate(x):  # a row of a larger array
            stream.step(now, out=whole[t])
        assert same_bits(whole, expected)
    stream = layer.stream(4)
    rows = np.array([3, 1, 0])
    for t, now in enumerate(x):
        assert stream.step(now, rows=rows, out=whole[t]).base is whole
    assert same_bits(whole, expected)


def test_out_may_be_a_memmap(backend, tmp_path):
    layer = make("gru")
    out = np.memmap(tmp_path / "y", np.float32, "w+", shape=(3, 7))
    assert layer.stream(3).step(inputs(layer)[0], out=out) is out
    assert same_bits(np.asarray(out), layer(inputs(layer))[0][0])


def test_out_overlaps_no_argument(backend):
    layer = make("gru", 7, 7)
    room = f(50)
    x, inside = room[:21].reshape(3, 7), room[7:28].reshape(3, 7)
    stream = layer.stream(3)
    for out in (x, inside):
        with pytest.raises(ValueError, match="out overlaps x: pass an array of its own"):
            stream.step(x, out=out)
        with pytest.raises(ValueError, match="out overlaps x"):
            stream.push(x[None], out=out[None])
    stream.step(x, out=room[21:42].reshape(3, 7))  # side by side is apart
    rows, lengths = room[7:13].view(np.int64), room[7:13].view(np.int64)
    rows[:] = 2, 0, 1
    with pytest.raises(ValueError, match="out overlaps rows"):
        stream.step(x.copy(), rows=rows, out=inside)
    with pytest.raises(ValueError, match="out overlaps rows"):
        stream.push(x.copy()[None], rows=rows, out=inside[None])
    lengths[:] = 1, 1, 0
    with pytest.raises(ValueError, match="out overlaps lengths"):
        stream.push(x.copy()[None], lengths=lengths, out=inside[None])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_passed_in_changes(backend, kind):
    layer = make(kind, num_layers=2)
    layer.initial_state = initial(layer, None, seed=5)
    x, hx, lengths, rows = inputs(layer), initial(layer), np.array([3, 0, 6]), np.array([1, 2, 0])
    given = [x, *arrays(hx), *arrays(layer.initial_state), *layer.state_dict().values()]
    before = [a.copy() for a in given]
    stream = layer.stream(3, hx=hx)
    stream.push(x, lengths=lengths, rows=rows)
    stream.set_state(hx, rows=rows)
    stream.step(x[0], rows=rows)
    stream.step(x[0])
    stream.reset(rows)
    stream.step(x[0])
    after = [x, *arrays(hx), *arrays(layer.initial_state), *layer.state_dict().values()]
    assert equal(after, before)
    assert (lengths.tolist(), rows.tolist()) == ([3, 0, 6], [1, 2, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_empty(backend, kind):
    layer = make(kind, num_layers=2)
    none = layer.stream(0)
    assert none.step(f(0, 5)).shape == (0, layer._output_size)
    assert none.step(f(0, 5), rows=[]).shape == (0, layer._output_size)
    assert none.push(f(4, 0, 5), lengths=[]).shape == (4, 0, layer._output_size)
    assert all(s.shape[1] == 0 for s in arrays(none.get_state()))
    none.reset()
    hx = initial(layer)
    stream = layer.stream(3, hx=hx)
    assert stream.push(f(0, 3, 5)).shape == (0, 3, layer._output_size)
    assert stream.step(f(0, 5), rows=[]).shape == (0, layer._output_size)
    assert not stream.push(inputs(layer), lengths=[0, 0, 0]).any()
    stream.reset([])
    assert equal(stream.get_state(), hx)


@pytest.mark.parametrize("kind", KINDS)
def test_non_finite_values_stay_in_their_row(backend, kind):
    layer = make(kind, 5, 17)
    x = inputs(layer, 4, 5)
    clean = by_steps(layer.stream(5), x)
    x[1, 1, 2], x[1, 3, 0], x[2, 4, 1] = np.nan, np.inf, -np.inf
    stream = layer.stream(5)
    y = by_steps(stream, x)
    assert same_bits(y, layer(x)[0])
    assert same_bits(y[:, [0, 2]], clean[:, [0, 2]])
    assert np.isnan(y[1:, 1]).all()
    stream.reset([1])
    x = inputs(layer, 4, 5)
    assert same_bits(stream.step(x[0, 1:2], rows=[1]), clean[0, 1:2])


# Errors ---------------------------------------------------------------------------------------------------------------


def single():
    return make("gru", 3, 4).stream()


def four(**config):
    return make("gru", 3, 4, **config).stream(4)


ERRORS = [
    (lambda: make("gru").stream(-1), ValueError, r"batch_size must be an int >= 0, got -1"),
    (lambda: make("gru").stream(2.0), TypeError, r"batch_size must be an int >= 0, got 2\.0"),
    (
        lambda: make("gru", bidirectional=True).stream(),
        fastrnn.UnsupportedError,
        r"a stream goes forward only, and GRU\(5, 7, bidirectional=True\) .*: call the layer on whole sequences, or",
    ),
    (lambda: fastrnn.GRU(3, 4).stream(), ValueError, r"GRU\(3, 4\) has no weights: call load_state_dict"),
    (lambda: make("gru").stream(3, hx=f(1, 2, 7)), ValueError, r"hx is \(1, 2, 7\), expected \(L, N, H\) = \(1, 3, 7"),
    (lambda: make("gru").stream(hx=f(1, 1, 7)), ValueError, r"hx is \(1, 1, 7\), expected \(L, H\) = \(1, 7\)"),
    (lambda: make("lstm").stream(hx=f(1, 7)), TypeError, r"hx must be a pair \(h, c\), got ndarray"),
    # x
    (lambda: single().step(f(4)), ValueError, r"x is \(4,\), expected \(I,\) = \(3,\)$"),
    (lambda: single().step(f(1, 3)), ValueError, r"= \(3,\): step takes one time step, push takes many$"),
    (
        lambda: four().step(f(3, 3)),
        ValueError,
        r"\(N, I\) = \(4, 3\): one row for each stream, or name some with",
    ),
    (lambda: four().step(f(3, 4)), ValueError, r"x is \(3, 4\), expected \(N, I\) = \(4, 3\): pass x\.T$"),
    (lambda: four().step(f(3)), ValueError, r"x is \(3,\), expected \(N, I\) = \(4, 3\)$"),
    (lambda: four().step(f(1, 4, 3)), ValueError, r"x is \(1, 4, 3\), .*: step takes one time step, push takes many$"),
    (lambda: four().step(f(4, 3), rows=[1]), ValueError, r"expected \(n, I\) = \(1, 3\): one row for each of rows$"),
    (lambda: four().step("text"), TypeError, r"x must hold floats, integers or bools, got dtype <U4"),
    (lambda: four().step(f(4, 3) * 1j), TypeError, r"x must hold .*complex64"),
    (lambda: four().push(f(4, 3)), ValueError, r"\(T, 4, 3\): push takes many time steps, step takes one$"),
    (lambda: four().push(f(2, 3, 3)), ValueError, r"\(T, N, I\) = \(T, 4, 3\): one row for each stream, or name some"),
    (lambda: four().push(f(2, 4, 5)), ValueError, r"x is \(2, 4, 5\), expected \(T, N, I\) = \(T, 4, 3\)$"),
    (
        lambda: four(batch_first=True).push(f(2, 4, 3)),
        ValueError,
        r"\(N, T, I\) = \(4, T, 3\): one row for each stream",
    ),
    (lambda: four().push(f(2, 4, 3), rows=[1]), ValueError, r"\(T, n, I\) = \(T, 1, 3\): one row for each of rows$"),
    (lambda: single().push(f(2, 4)), ValueError, r"x is \(2, 4\), expected \(T, I\) = \(T, 3\)$"),
    (lambda: single().push(f(3)), ValueError, r"\(T, I\) = \(T, 3\): push takes many time steps, step takes one$"),
    (lambda: single().push(1.0), ValueError, r"x is \(\), expected \(T, I\)"),
    # rows
    (lambda: single().step(f(3), rows=[0]), ValueError, r"rows must be None for a stream without batch_size: make it"),
    (lambda: four().step(f(2, 3), rows=[1, 4]), ValueError, r"rows must lie in 0\.\.N-1 = 0\.\.3, got 4"),
    (lambda: four().step(f(2, 3), rows=np.array([-1, 2])), ValueError, r"rows must lie in 0\.\.N-1 = 0\.\.3, got -1"),
    (lambda: four().step(f(3, 3), rows=np.array([1, 2, 1])), ValueError, r"rows must be distinct, got 1 more than"),
    (lambda: four().push(f(5, 2, 3), rows=[3, 3]), ValueError, r"rows must be distinct, got 3 more than once"),
    (lambda: four().step(f(4, 3), rows=[True] * 4), TypeError, r"rows must be integers, .*np\.flatnonzero\(rows\)"),
    (lambda: four().step(f(1, 3), rows=[1.0]), TypeError, r"rows must be integers, got dtype float64"),
    (lambda: four().step(f(1, 3), rows="ab"), TypeError, r"rows must be integers, got dtype <U2"),
    (lambda: four().step(f(1, 3), rows=2), ValueError, r"rows is \(\), expected \(n,\): the numbers of n streams"),
    (lambda: make("gru").stream(0).step(f(1, 5), rows=[0]), ValueError, r"rows must be empty, for there is no stream"),
    (lambda: four().reset([4]), ValueError, r"rows must lie in"),
    (lambda: four().get_state([0, 0]), ValueError, r"rows must be distinct"),
    (lambda: four().set_state(f(1, 1, 4), [5]), ValueError, r"rows must lie in"),
    (lambda: single().reset([0]), ValueError, r"rows must be None"),
    # lengths, out, state
    (lambda: four().push(f(2, 4, 3), lengths=[2, 2]), ValueError, r"lengths is \(2,\), expected \(N,\) = \(4,\)"),
    (lambda: four().push(f(2, 2, 3), rows=[0, 1], lengths=[2]), ValueError, r"expected \(n,\) = \(2,\): one length"),
    (lambda: single().push(f(2, 3), lengths=[2, 2]), ValueError, r"expected \(N,\) = \(1,\): one length for"),
    (lambda: four().push(f(2, 4, 3), lengths=[2, 2, 3, 0]), ValueError, r"lengths must lie in 0\.\.T = 0\.\.2, got 3"),
    (lambda: single().step(f(3), out=f(3)), ValueError, r"out is \(3,\), expected \(4,\)"),
    (lambda: single().step(f(3), out=np.zeros(4)), ValueError, r"out has dtype float64, expected float32"),
    (lambda: single().step(f(3), out=[0] * 4), TypeError, r"out must be a NumPy array, got list"),
    (lambda: single().step(f(3), out=f(8)[::2]), ValueError, r"out must be C-contiguous and aligned"),
    (lambda: single().step(f(3), out=readonly(f(4))), ValueError, r"out must be writeable"),
    (lambda: four().step(f(4, 3), out=f(1, 4)), ValueError, r"out is \(1, 4\), expected \(4, 4\)"),
    (lambda: four().push(f(2, 4, 3), out=f(4, 4)), ValueError, r"out is \(4, 4\), expected \(2, 4, 4\)"),
    (lambda: four().set_state(f(1, 3, 4)), ValueError, r"state is \(1, 3, 4\), expected \(L, N, H\) = \(1, 4, 4\)"),
    (lambda: four().set_state(f(1, 1, 4), [0, 1]), ValueError, r"expected \(L, n, H\) = \(1, 2, 4\)"),
    (lambda: single().set_state(f(1, 1, 4)), ValueError, r"state is \(1, 1, 4\), expected \(L, H\) = \(1, 4\)"),
    (lambda: make("lstm").stream().set_state(f(1, 7)), TypeError, r"state must be a pair \(h, c\), got ndarray"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message[:60] for _, _, message in ERRORS])
def test_message(backend, call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error


@pytest.mark.parametrize("kind", KINDS)
def test_errors_change_nothing(backend, kind):
    layer = make(kind)
    hx = initial(layer, 4)
    stream = layer.stream(4, hx=hx)
    out = np.full((4, layer._output_size), 7, np.float32)
    for call in (
        lambda: stream.step(f(4, 4), out=out),
        lambda: stream.step(f(3, 5), rows=[1, 2, 2], out=out[:3]),
        lambda: stream.step(f(2, 5), rows=np.array([1, 4]), out=out[:2]),
        lambda: stream.step(f(4, 5), out=out[:3]),
        lambda: stream.push(f(2, 4, 5), lengths=[1, 2, 3, 4]),
        lambda: stream.push(f(1, 4, 5), out=out),
        lambda: stream.set_state([f(1, 4, 7), f(1, 4, 8)] if isinstance(hx, tuple) else f(1, 4, 8)),
        lambda: stream.reset([9]),
    ):
        with pytest.raises(ValueError, match=r"expected|must"):
            call()
        assert equal(stream.get_state(), hx)
        assert (out == 7).all()


def test_a_stream_is_what_a_layer_makes(backend):
    stream = make("lstm", 3, 4, num_layers=2).stream(5)
    assert repr(stream) == "<Stream of LSTM(3, 4, num_layers=2), batch_size=5>"
    for name in ("step", "push", "reset", "get_state", "set_state"):
        assert getattr(type(stream), name).__doc__
        assert getattr(fastrnn.Stream, name).__doc__
