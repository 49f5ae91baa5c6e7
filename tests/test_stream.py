"""Streams: one answer step by step, in chunks and in any company; states, copies and pickles."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from cases import DTYPES, same_bits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_cases import KINDS, arrays, by_steps, equal, initial, inputs, make

import fastrnn

SIZES = (1, 3, 15, 16, 17, 37)


def f(*shape):
    return np.zeros(shape, np.float32)


def time_axis(layer, batch):
    return 1 if layer.batch_first and batch is not None else 0


def in_chunks(stream, x, axis, cuts=(0, 0, 1, 4)):
    return np.concatenate([stream.push(chunk) for chunk in np.split(x, cuts, axis)], axis)


def check_bits(layer, batch):
    """Step by step, in chunks and mixed against the whole."""
    x, hx = inputs(layer, batch=batch), initial(layer, batch)
    axis = time_axis(layer, batch)
    for start in (None, hx):
        expected = layer(x, start)
        for way in (by_steps, in_chunks):
            stream = layer.stream(batch, hx=start)
            assert isinstance(stream, fastrnn.Stream)
            assert same_bits(way(stream, x, axis), expected[0])
            assert equal(stream.get_state(), expected[1])
        first, rest = np.split(x, [2], axis)
        stream = layer.stream(batch, hx=start)
        assert same_bits(np.concatenate([stream.push(first), by_steps(stream, rest, axis)], axis), expected[0])
        assert equal(stream.get_state(), expected[1])


# One answer -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_bits(backend, kind, dtype):
    for num_layers, batch, batch_first in itertools.product((1, 2, 3), (None, 1, 5), (False, True)):
        check_bits(make(kind, num_layers=num_layers, dtype=dtype, batch_first=batch_first), batch)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_bits_of_odd_sizes(backend, kind, dtype):
    for input_size, hidden_size in itertools.product(SIZES, repeat=2):
        if kind == "lstm_proj" and hidden_size <= 3:
            continue
        for batch in (None, 5):
            check_bits(make(kind, input_size, hidden_size, num_layers=2, bias=hidden_size != 15, dtype=dtype), batch)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_of_every_tier(kind):
    native = pytest.importorskip("fastrnn._native")
    layer = make(kind, 17, 37, num_layers=2, backend="cython")
    x = inputs(layer, batch=13)
    expected = layer(x)
    for tier, state in native.tiers().items():
        if state == "ok":
            layer._runners = {"cython": native.Engine(layer._plan, tier=tier)}
            stream = layer.stream(13)
            assert same_bits(by_steps(stream, x), expected[0])
            assert equal(stream.get_state(), expected[1])


@pytest.mark.parametrize("kind", KINDS)
def test_backends_agree(kind):
    if "numba" not in fastrnn.available_backends() or "cython" not in fastrnn.available_backends():
        pytest.skip("takes both")
    results = []
    for name in ("cython", "numba"):
        layer = make(kind, 20, 80, num_layers=2, backend=name)
        stream = layer.stream(7)
        results.append((by_steps(stream, inputs(layer, batch=7)), stream.get_state()))
    assert equal(*results)


@pytest.mark.parametrize("rows", [[0], [4], [4, 0, 2], [1, 3], [3, 4, 1, 0, 2], []])
@pytest.mark.parametrize("kind", KINDS)
def test_rows(backend, kind, rows):
    """Only the streams named advance, each as if it were alone."""
    for num_layers, batch_first in ((1, False), (2, True)):
        layer = make(kind, 5, 17, num_layers=num_layers, batch_first=batch_first)
        hx, x = initial(layer, 5), inputs(layer, 6, 5)[:, : len(rows)] if not batch_first else inputs(layer, 6, 5)
        x = x[: len(rows)] if batch_first else x
        axis = time_axis(layer, 5)
        picked = [np.ascontiguousarray(s[:, rows]) for s in arrays(hx)]
        expected, finals = layer(x, tuple(picked) if len(picked) > 1 else picked[0])
        after = [s.copy() for s in arrays(hx)]
        for s, final in zip(after, arrays(finals), strict=True):
            s[:, rows] = final
        for named in (rows, np.array(rows, np.int64), np.array(rows, ">u2")):
            stream = layer.stream(5, hx=hx)
            y = np.stack([stream.step(now, rows=named) for now in np.moveaxis(x, axis, 0)], axis)
            assert same_bits(y, expected)
            assert equal(stream.get_state(), after)
            assert equal(stream.get_state(named), finals)
            stream.set_state(hx)
            assert same_bits(stream.push(x, rows=named), expected)
            assert equal(stream.get_state(), after)


@pytest.mark.parametrize("kind", KINDS)
def test_lengths(backend, kind):
    for batch_first in (False, True):
        layer = make(kind, batch_first=batch_first, num_layers=2)
        x, hx, lengths = inputs(layer, batch=4), initial(layer, 4), [2, 0, 6, 5]
        expected = layer(x, hx, lengths=lengths)
        stream = layer.stream(4, hx=hx)
        assert equal((stream.push(x, lengths=lengths), stream.get_state()), expected)
        stream = layer.stream(9)
        stream.set_state(hx, rows=[7, 8, 1, 0])
        assert equal((stream.push(x, lengths=lengths, rows=[7, 8, 1, 0]), stream.get_state([7, 8, 1, 0])), expected)
        assert not any(s[:, 2:7].any() for s in arrays(stream.get_state()))
    layer = make(kind)
    x = inputs(layer, batch=None)
    stream = layer.stream()
    assert equal((stream.push(x, lengths=4), stream.get_state()), layer(x, lengths=4))
    assert equal(layer.stream().push(x, lengths=[0]), np.zeros_like(layer(x)[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_streams_come_stall_and_go(backend, kind):
    """Each has the bits that it has alone, whoever else advances, and by steps or chunks."""
    rng = np.random.default_rng(list(KINDS).index(kind))
    layer = make(kind, 3, 17, num_layers=2)
    layer.initial_state = initial(layer, None, seed=3)
    stream = layer.stream(100)
    sequences = {}  # by stream: the inputs of whoever has it now, and what came out
    done = []

    def leave(number):
        done.append((*sequences.pop(number), stream.get_state([number])))

    for _ in range(120):
        free = [number for number in range(100) if number not in sequences]
        joining = rng.permutation(free)[: rng.integers(0, 9)]
        stream.reset(joining)
        sequences.update((int(number), ([], [])) for number in joining)
        present = rng.permutation(list(sequences))
        rows = present[: rng.integers(0, len(present) + 1)]  # the others stall
        if rng.random() < 0.8:
            x = rng.normal(size=(len(rows), 3)).astype(np.float32)
            for number, given, y in zip(rows, x, stream.step(x, rows=rows), strict=True):
                sequences[number][0].append(given)
                sequences[number][1].append(y)
        else:
            x, lengths = rng.normal(size=(4, len(rows), 3)).astype(np.float32), rng.integers(0, 5, len(rows))
            y = stream.push(x, rows=rows, lengths=lengths)
            for i, (number, length) in enumerate(zip(rows, lengths, strict=True)):
                sequences[number][0].extend(x[:length, i])
                sequences[number][1].extend(y[:length, i])
        for number in present[: rng.integers(0, 5)]:
            leave(number)
    for number in list(sequences):
        leave(number)
    assert len(done) > 100
    for xs, ys, state in done:
        y, final = layer(np.reshape(xs, (-1, 1, 3)))
        assert same_bits(np.reshape(ys, y.shape).astype(y.dtype), y)
        assert equal(state, final)
        alone = layer.stream()
        assert same_bits(np.reshape([alone.step(now) for now in xs], y.shape).astype(y.dtype), y)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_calls_in_any_order(data):
    """Against a call of the layer for each stream and chunk, with the state carried by hand."""
    draw = data.draw
    layer = make(
        draw(st.sampled_from(sorted(KINDS))),
        draw(st.sampled_from((1, 5, 16))),
        draw(st.sampled_from((4, 8, 16, 17, 33, 65))),
        num_layers=draw(st.integers(1, 3)),
        dtype=draw(st.sampled_from(("float32", "float64"))),
        backend=draw(st.sampled_from(fastrnn.available_backends())),
    )
    layer.initial_state = initial(layer, None) if draw(st.booleans()) else None
    count = draw(st.integers(0, 9))
    stream = layer.stream(count)
    kept = [None] * count  # the state of each, None for the initial one
    for call in draw(st.lists(st.sampled_from(("step", "push", "reset", "set_state")), max_size=8)):
        chosen = draw(st.none() | st.lists(st.integers(0, count - 1), unique=True) if count else st.none())
        rows = range(count) if chosen is None else chosen
        if call == "reset":
            stream.reset(chosen)
            for row in rows:
                kept[row] = None
        elif call == "set_state":
            state = initial(layer, len(rows), seed=draw(st.integers(0, 9)))
            stream.set_state(state, chosen)
            for i, row in enumerate(rows):
                kept[row] = tuple(s[:, i : i + 1] for s in arrays(state))
        else:
            x = inputs(layer, 1 if call == "step" else draw(st.integers(0, 5)), len(rows), draw(st.integers(0, 9)))
            lengths = None
            if call == "step":
                y = stream.step(x[0], rows=chosen)[None]
            else:
                lengths = draw(st.none() | st.lists(st.integers(0, len(x)), min_size=len(rows), max_size=len(rows)))
                y = stream.push(x, lengths=lengths, rows=chosen)
            for i, row in enumerate(rows):
                hx = kept[row] if kept[row] is None or len(kept[row]) > 1 else kept[row][0]
                expected, state = layer(x[:, i : i + 1], hx, lengths=lengths and lengths[i : i + 1])
                assert same_bits(y[:, i : i + 1], expected)
                kept[row] = tuple(arrays(state))
        for row, state in enumerate(kept):
            start = [s.copy() for s in layer._start(1)] if state is None else state
            assert equal(stream.get_state([row]), start)


@pytest.mark.parametrize("kind", KINDS)
def test_many_rows(backend, kind):
    """More rows than a tile, and enough work that other threads may run."""
    layer = make(kind, 20, 40)
    x = inputs(layer, 2, 70)
    rows = np.random.default_rng(0).permutation(200)[:70]
    stream = layer.stream(200)
    assert same_bits(np.stack([stream.step(now, rows=rows) for now in x]), layer(x)[0])
    assert same_bits(by_steps(layer.stream(70), x), layer(x)[0])


# State ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_state(backend, kind):
    layer = make(kind, num_layers=2)
    for batch in (None, 1, 4):
        hx, x = initial(layer, batch), inputs(layer, batch=batch)
        stream = layer.stream(batch)
        assert not any(s.any() for s in arrays(stream.get_state()))
        stream.set_state(hx)
        assert equal(stream.get_state(), hx)
        assert [s.shape for s in arrays(stream.get_state())] == [s.shape for s in arrays(hx)]
        before = stream.get_state()
        y = stream.push(x)
        assert equal(before, hx)
        stream.set_state(before)
        assert same_bits(stream.push(x), y)
        stream.set_state(layer(x)[1])
        assert equal(stream.get_state(), layer(x)[1])
        for s in arrays(stream.get_state()):
            s[:] = 9  # a copy
        for s in arrays(before):
            s[:] = 9
        assert equal(stream.get_state(), layer(x)[1])
        stream.set_state([s.tolist() for s in hx] if isinstance(hx, tuple) else hx.astype(np.float64))
        assert equal(stream.get_state(), hx)


@pytest.mark.parametrize("kind", KINDS)
def test_reset(backend, kind):
    layer = make(kind, num_layers=2)
    learned = initial(layer, None, seed=4)
    for start in (None, learned):
        layer.initial_state = start
        x, hx = inputs(layer), initial(layer)
        stream = layer.stream(3, hx=hx)
        stream.push(x)
        before = stream.get_state()
        stream.reset(rows=[2, 0])
        assert equal([s[:, 1] for s in arrays(stream.get_state())], [s[:, 1] for s in arrays(before)])
        assert equal(stream.push(x[:, :2], rows=[2, 0]), layer(x[:, :2])[0])
        stream.reset()
        assert equal(stream.push(x), layer(x)[0])
        assert equal(layer.stream(3).push(x), layer(x)[0])
        single = layer.stream(hx=initial(layer, None))
        single.reset()
        assert equal(single.push(x[:, 0]), layer(x[:, 0])[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_keeps_the_layer_as_it_was(backend, kind):
    layer, x = make(kind), inputs(make(kind))
    layer.initial_state = initial(layer, None)
    expected = layer(x)[0]
    stream = layer.stream(3)
    layer.init(seed=9)
    layer.initial_state = None
    with fastrnn.use_backend("reference"):
        assert same_bits(by_steps(stream, x), expected)
        stream.reset()
        assert same_bits(stream.push(x), expected)
        stream.reset()
        assert same_bits(copy.copy(stream).get_state()[0], stream.get_state()[0])
    assert same_bits(copy.deepcopy(stream).push(x), expected)
    assert not same_bits(layer(x)[0], expected)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_pickles(backend, kind, way):
    for batch in (None, 3):
        layer = make(kind, num_layers=2, dtype="float64")
        x = inputs(layer, batch=batch)
        stream = layer.stream(batch, hx=initial(layer, batch))
        stream.push(x)
        again = way(stream)
        assert type(again) is type(stream)
        assert repr(again) == repr(stream)
        assert equal(again.get_state(), stream.get_state())
        first = stream.push(x)
        assert same_bits(again.push(x), first)  # and the other did not notice
        again.reset()
        assert same_bits(again.push(x), layer(x)[0])


@pytest.mark.parametrize("sizes", [(48, 145), (49, 97), (129, 130), (300, 80)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_projected_on_the_way(backend, kind, dtype, sizes):
    """One row projects the inputs of later steps beside its own sums; a stream's step has none to project."""
    layer = make(kind, *sizes, dtype=dtype, num_threads=1)
    x = inputs(layer, steps=38, batch=None)
    y = by_steps(layer.stream(), x)
    for steps in (24, 25, 37, 38):
        assert same_bits(layer(x[:steps])[0], y[:steps])
    layer.num_threads = 2
    assert same_bits(layer(x)[0], y)
