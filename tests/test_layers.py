"""Layers and cells through their public interface."""

import itertools

import numpy as np
import pytest
from cases import DTYPES, assert_close, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import CELLS, KINDS, arrays, equal, initial, inputs, make, oracle

import fastrnn

# Shapes and layouts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_against_the_reference_in_a_wider_type(backend, kind, dtype):
    for num_layers, bias, bidirectional in itertools.product((1, 2), (True, False), (True, False)):
        layer = make(kind, num_layers=num_layers, bias=bias, bidirectional=bidirectional, dtype=dtype)
        x, hx = inputs(layer), initial(layer)
        for lengths in (None, [6, 0, 3]):
            for got, exact in zip(arrays(layer(x, hx, lengths=lengths)), oracle(layer, x, hx, lengths), strict=True):
                assert got.dtype == dtype
                assert_close(got, exact, "kernel", dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes(backend, kind):
    layer = make(kind, num_layers=2, bidirectional=True)
    out, states = 2 * (getattr(layer, "proj_size", 0) or 7), [getattr(layer, "proj_size", 0) or 7, 7]
    y, hx = layer(inputs(layer))
    assert y.shape == (6, 3, out)
    assert [s.shape for s in arrays(hx)] == [(4, 3, n) for n in states[: len(list(arrays(hx)))]]
    assert isinstance(hx, tuple) == isinstance(layer, fastrnn.LSTM)
    y, hx = layer(inputs(layer, batch=None))
    assert y.shape == (6, out)
    assert [s.shape for s in arrays(hx)] == [(4, n) for n in states[: len(list(arrays(hx)))]]


@pytest.mark.parametrize("kind", KINDS)
def test_batch_first_moves_axes_and_nothing_else(backend, kind):
    plain = make(kind, num_layers=2)
    first = make(kind, num_layers=2, batch_first=True)
    x, hx = inputs(plain), initial(plain)
    y, states = plain(x, hx, lengths=[2, 6, 5])
    got, got_states = first(np.ascontiguousarray(x.transpose(1, 0, 2)), hx, lengths=[2, 6, 5])
    assert same_bits(got.transpose(1, 0, 2), y)
    assert got.flags.c_contiguous
    assert equal(got_states, states)


@pytest.mark.parametrize("kind", KINDS)
def test_unbatched_equals_a_batch_of_one(backend, kind):
    layer = make(kind, bidirectional=True)
    x, hx = inputs(layer, batch=None), initial(layer, batch=None)
    pair = isinstance(hx, tuple)
    y, states = layer(x[:, None], tuple(s[:, None] for s in hx) if pair else hx[:, None])
    expected = [y[:, 0], *(s[:, 0] for s in arrays(states))]
    assert equal(layer(x, hx), expected)
    assert equal(layer(x, hx, lengths=6), expected)
    assert equal(layer(x, hx, lengths=[6]), expected)
    assert same_bits(layer(x, hx, lengths=2)[0][2:], np.zeros_like(y[2:, 0]))


@pytest.mark.parametrize("kind", KINDS)
def test_lengths(backend, kind):
    layer = make(kind, num_layers=2, bidirectional=True)
    x, hx, lengths = inputs(layer), initial(layer), [4, 0, 6]
    y, states = layer(x, hx, lengths=lengths)
    for row, length in enumerate(lengths):
        assert not y[length:, row].any()
        given = tuple(s[:, row] for s in hx) if isinstance(hx, tuple) else hx[:, row]
        alone, alone_states = layer(x[:length, row], given)
        assert same_bits(y[:length, row], alone)
        assert equal([s[:, row] for s in arrays(states)], alone_states)


@pytest.mark.parametrize("kind", KINDS)
def test_out_is_written_and_returned(backend, kind):
    for batch_first in (False, True):
        layer = make(kind, batch_first=batch_first)
        for batch in (3, None):
            x = inputs(layer, batch=batch)
            y, hx = layer(x)
            out = np.full_like(y, np.nan)
            got, states = layer(x, out=out)
            assert got is out
            assert equal((got, states), (y, hx))


# Bits -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_the_batch(backend, kind):
    layer = make(kind, 16, 33)
    x, hx = inputs(layer, batch=9), initial(layer, batch=9)
    y, states = layer(x, hx)
    for rows in ([0], [8], [3, 1], range(2, 7)):
        rows = list(rows)
        part = tuple(s[:, rows] for s in hx) if isinstance(hx, tuple) else hx[:, rows]
        got, got_states = layer(x[:, rows], part)
        assert same_bits(got, y[:, rows])
        assert equal(got_states, [s[:, rows] for s in arrays(states)])


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_chunks_equal_the_whole(data):
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    backend = data.draw(st.sampled_from(fastrnn.available_backends()))
    layer = make(kind, data.draw(st.integers(1, 20)), data.draw(st.integers(4, 40)), num_layers=2, backend=backend)
    steps = data.draw(st.integers(0, 12))
    x = inputs(layer, steps, batch=2)
    y, states = layer(x)
    cuts = sorted(data.draw(st.lists(st.integers(0, steps), max_size=4)))
    hx, parts = None, []
    for start, stop in itertools.pairwise([0, *cuts, steps]):
        part, hx = layer(x[start:stop], hx)
        parts.append(part)
    assert same_bits(np.concatenate(parts), y)
    assert equal(hx, states)


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_is_one_step_of_a_layer(backend, kind):
    layer = make(kind)
    cell = CELLS[kind](5, 7).load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x, hx = inputs(layer, 1), initial(layer)
    flat = tuple(s[0] for s in hx) if isinstance(hx, tuple) else hx[0]
    assert equal(cell(x[0], flat), [s[0] for s in arrays(layer(x, hx)[1])])
    assert equal(cell(x[0]), [s[0] for s in arrays(layer(x)[1])])
    row = tuple(s[1] for s in flat) if isinstance(flat, tuple) else flat[1]
    assert equal(cell(x[0, 1], row), [s[0, 1] for s in arrays(layer(x, hx)[1])])


# Weights --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru", "gru_before"])
def test_from_weights(backend, kind):
    layer = make(kind, bias=True)
    w = layer.state_dict()
    u, r, b_ih, b_hh = (w[name + "_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    x = inputs(layer)
    cls, config = KINDS[kind]
    assert equal(cls.from_weights(u, r, b_ih, b_hh, **config)(x), layer(x))
    plain = cls.from_weights(u.tolist(), r.tolist(), **config)
    assert plain.bias is False
    assert plain.input_size == 5
    assert plain.hidden_size == 7
    one = cls.from_weights(u, r, b_ih, batch_first=True, dtype="float64", **config)
    assert one.batch_first
    assert one.dtype == np.float64
    assert not one.state_dict()["bias_hh_l0"].any()


@pytest.mark.parametrize("kind", KINDS)
def test_from_state_dict(kind):
    layer = make(kind, num_layers=2, bidirectional=True, bias=False)
    config = {k: v for k, v in KINDS[kind][1].items() if k != "proj_size"}
    again = fastrnn.from_state_dict({"module.rnn." + k: v for k, v in layer.state_dict().items()}, **config)
    assert repr(again) == repr(layer)
    assert equal(again.state_dict().values(), layer.state_dict().values())
    tensors = {"a." + k: v for k, v in layer.state_dict().items()} | {"head.weight": np.zeros((2, 2))}
    assert equal(fastrnn.from_state_dict(tensors, "a.", **config)(inputs(layer)), layer(inputs(layer)))


@pytest.mark.parametrize("kind", CELLS)
def test_from_state_dict_of_a_cell(kind):
    cell = CELLS[kind](3, 4, bias=False).init()
    again = fastrnn.from_state_dict(cell.state_dict())
    assert repr(again) == repr(cell)
    assert equal(again(np.ones(3)), cell(np.ones(3)))


def test_state_dict_is_a_copy():
    layer = make("gru")
    tensors = layer.state_dict()
    before = {k: v.copy() for k, v in tensors.items()}
    for array in tensors.values():
        array[:] = 0
    assert equal(layer.state_dict().values(), before.values())
    mine = {k: v.copy() for k, v in before.items()}
    layer.load_state_dict(mine)
    for array in mine.values():
        array[:] = 0
    assert equal(layer.state_dict().values(), before.values())


def test_failed_load_changes_nothing():
    layer = make("lstm")
    before = layer.state_dict()
    broken = dict(before, weight_hh_l0=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="weight_hh_l0"):
        layer.load_state_dict(broken)
    assert equal(layer.state_dict().values(), before.values())


def test_init():
    layer = fastrnn.GRU(20, 25)
    assert layer.init() is layer
    weights = np.concatenate([a.ravel() for a in layer.state_dict().values()])
    assert np.abs(weights).max() <= 0.2
    assert np.abs(weights).max() > 0.19
    assert equal(layer.state_dict().values(), fastrnn.GRU(20, 25).init(0).state_dict().values())
    assert not equal(layer.state_dict().values(), fastrnn.GRU(20, 25).init(1).state_dict().values())


def test_new_weights_are_used_at_once(backend):
    layer = make("rnn")
    x = inputs(layer)
    before = layer(x)
    assert not equal(layer.init(seed=1)(x), before)
    assert equal(layer.init(seed=0)(x), before)


@pytest.mark.parametrize("kind", KINDS)
def test_initial_state(backend, kind):
    layer = make(kind, num_layers=2, bidirectional=True)
    assert layer.initial_state is None
    x, one = inputs(layer), initial(layer, batch=None)
    every = tuple(np.repeat(s[:, None], 3, 1) for s in one) if isinstance(one, tuple) else np.repeat(one[:, None], 3, 1)
    zeros, expected = layer(x), layer(x, every)
    layer.initial_state = one
    assert equal(layer.initial_state, one)
    assert equal(layer(x), expected)
    assert equal(layer(x[:, 0])[0], expected[0][:, 0])
    assert not equal(layer(x, lengths=[0, 0, 0]), zeros)
    layer.initial_state = tuple(s[:, None] for s in one) if isinstance(one, tuple) else one[:, None]
    assert equal(layer(x), expected)
    layer.initial_state = None
    assert equal(layer(x), zeros)


# Traces ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_trace(backend, kind):
    layer = make(kind, num_layers=2, bidirectional=True)
    x, hx = inputs(layer, batch=None), initial(layer, batch=None)
    y, _ = layer(x, hx)
    steps = layer.trace(x, hx)
    assert len(steps) == 4
    gates = {"r": {"h"}, "l": {"i", "f", "g", "o", "c", "h"}, "g": {"r", "z", "n", "h"}}[kind[0]]
    assert all(gates == set(step) for step in steps)
    assert_close(np.concatenate([steps[2]["h"], steps[3]["h"]], axis=1), y, "kernel", np.float32)
    assert all(a.shape == (6, 7) for name, a in steps[0].items() if name != "h")
    assert layer.trace(x)[0]["h"].shape == steps[0]["h"].shape


# Linear mode ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_linear_mode_is_exact(backend, kind):
    if kind == "rnn_relu":
        pytest.skip("linear mode is one of the activations of the same variant")
    layer = make(kind, 3, 5)
    layer._activation = "linear"
    rng = np.random.default_rng(0)
    layer.load_state_dict({k: rng.integers(-1, 2, v.shape) for k, v in layer.state_dict().items()})
    x = rng.integers(-1, 2, (1, 2, 3)).astype(np.float32)
    hx = initial(layer, batch=2)
    hx = tuple(np.rint(s) for s in hx) if isinstance(hx, tuple) else np.rint(hx)
    for got, exact in zip(arrays(layer(x, hx)), oracle(layer, x, hx), strict=True):
        assert np.array_equal(got, exact)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", [1, 15, 16, 17, 37])
def test_a_forget_gate_of_one_sums_and_of_zero_forgets(backend, hidden, dtype):
    """i = o = 1 and g = x, all integers: c is the running sum of x, or x itself, to the bit."""
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 9, (9, 7, hidden)).astype(dtype)
    h, c = rng.integers(-8, 9, (2, 1, 7, hidden)).astype(dtype)
    one, zero = np.ones(hidden), np.zeros(hidden)
    w_ih = np.concatenate([np.zeros((2 * hidden, hidden)), np.eye(hidden), np.zeros((hidden, hidden))])
    for forget, expected in ((one, c + np.cumsum(x, axis=0)), (zero, x)):
        bias = np.concatenate([one, forget, zero, one])
        layer = fastrnn.LSTM.from_weights(w_ih, np.zeros((4 * hidden, hidden)), bias, 0 * bias, dtype=dtype)
        layer._activation = "linear"
        y, (h_n, c_n) = layer(x, (h, c))
        assert np.array_equal(y, expected)
        assert np.array_equal(h_n[0], expected[-1])
        assert np.array_equal(c_n[0], expected[-1])


# Settings -------------------------------------------------------------------------------------------------------------


def test_repr():
    layer = fastrnn.GRU(2, 3, 2, dropout=0.5, reset_after=False, dtype="float64", backend="reference", num_threads=2)
    assert repr(layer) == (
        "GRU(2, 3, num_layers=2, dropout=0.5, reset_after=False, dtype=float64, backend=reference, num_threads=2)"
    )
    assert repr(fastrnn.RNN(2, 3, nonlinearity="sigmoid")) == "RNN(2, 3, nonlinearity=sigmoid)"


def test_use_backend(monkeypatch):
    layer = make("rnn")
    used = []
    layer._runners = {name: lambda *_, name=name: used.append(name) for name in ("reference", "other", "third")}
    best = fastrnn.cpu_info()["backend"]
    layer._runners.setdefault(best, lambda *_: used.append(best))
    x = inputs(layer)

    def now():
        layer(x)
        return used[-1]

    from fastrnn import backends

    monkeypatch.setattr(backends, "_loaded", dict(backends._loaded))
    for name in ("other", "third"):
        monkeypatch.setitem(backends._LOADERS, name, lambda: None)
    assert now() == best
    with fastrnn.use_backend("other"):
        assert now() == "other"
        with fastrnn.use_backend("third"):
            assert now() == "third"
            with fastrnn.use_backend(None):
                assert now() == best
        assert now() == "other"
    assert now() == best
    try:
        fastrnn.use_backend("third")
        assert now() == "third"
        with fastrnn.use_backend("other"):
            assert now() == "other"
        assert now() == "third"
        for _ in range(100):
            kept = fastrnn.use_backend("other")
        assert now() == "other"
        assert len(backends._choices) < 10
        with kept, kept:
            pass
        layer.backend = "reference"
        assert now() == "reference"
        layer.backend = None
    finally:
        fastrnn.use_backend(None)
    assert now() == best


def test_a_backend_of_its_own():
    layer = make("rnn", backend="reference")
    with fastrnn.use_backend(fastrnn.available_backends()[0]):
        layer(inputs(layer))
    assert list(layer._runners) == ["reference"]


def test_cpu_info():
    info = fastrnn.cpu_info()
    assert info["backend"] in fastrnn.available_backends()
    assert [name for name, state in info["backends"].items() if state == "ok"] == fastrnn.available_backends()
    assert info["cpus"] >= 1
    assert info["tier"] is None or info["tiers"][info["tier"]] == "ok"


def test_warmup(backend):
    layer = make("lstm")
    cell = fastrnn.GRUCell(2, 3).init()
    fastrnn.warmup(layer, cell)
    assert list(layer._runners) == list(cell._runners) == [backend]
    fastrnn.warmup()
    with pytest.raises(TypeError, match="warmup takes layers, cells and models, got str"):
        fastrnn.warmup("lstm")
    with pytest.raises(ValueError, match="has no weights"):
        fastrnn.warmup(fastrnn.GRU(1, 1))
