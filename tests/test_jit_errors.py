"""What fastrnn.jit checks: shapes in each call, kinds when a caller is compiled, byte order in calls from Python."""

import pickle

import layer_cases
import numpy as np
import pytest
from cases import same_bits
from layer_cases import arrays
from model_cases import BY_IDS

import fastrnn

numba = pytest.importorskip("numba")
from numba.core.errors import TypingError  # noqa: E402

from fastrnn import jit  # noqa: E402


def make():
    return layer_cases.make("lstm", 5, 17, num_layers=2)


F32, F64 = np.float32, np.float64
SHAPES = [
    (lambda w, s: (np.zeros(4, F32), s, np.zeros(17, F32)), r"x is \(4,\), expected I = 5 as its last axis"),
    (lambda w, s: (np.zeros(5, F32), s, np.zeros(16, F32)), r"y is \(16,\), expected the axes of x .* then 17"),
    (lambda w, s: (np.zeros(5, F32), (s[0][:1], s[1]), np.zeros(17, F32)), r"h of state is \(1, 17\).*L\*D = 2"),
    (lambda w, s: (np.zeros(5, F32), (s[0], np.zeros((2, 9), F32)), np.zeros(17, F32)), r"c of state is \(2, 9\).*17"),
    (
        lambda w, s: (np.zeros(5, [("a", "i1"), ("x", "f4")])["x"], s, np.zeros(17, F32)),
        r"x has strides .* x\.copy",
    ),
    (lambda w, s: (np.zeros((3, 5), F32), jit.init_state(w, 3), np.zeros((4, 17), F32)), r"y is \(4, 17\)"),
    (lambda w, s: (np.zeros((3, 5), F32), jit.init_state(w, 4), np.zeros((3, 17), F32)), r"h of state is \(2, 4, 17\)"),
]


@pytest.mark.parametrize(("given", "message"), SHAPES, ids=[message for _, message in SHAPES])
def test_shapes_are_checked_before_anything_changes(given, message):
    w = jit.pack(make())
    x, state, y = given(w, jit.init_state(w))
    with pytest.raises(ValueError, match=message):
        jit.step(w, x, state, y)
    assert not any(s.any() for s in arrays(state))
    with pytest.raises(ValueError, match=message.replace(r"\(4,\)", r"\(1, 4\)").split(r"\(")[0]):
        jit.forward(w, x[None], state, y[None])


Y = np.zeros(17, F32)
KINDS = [
    (lambda w, s: (np.zeros(5), s, Y), r"x must be an array of float32.*got float64 array.*jit.pack\(layer, dtype=\)"),
    (lambda w, s: (np.zeros(5, F32), s, Y.astype(F64)), r"y must be an array of float32.*got float64 array"),
    (lambda w, s: (np.zeros(5, F32), (s[0], s[1].astype(F64)), Y), "c of state must be an array of float32"),
    (lambda w, s: (np.zeros(5, F32), s[0], Y), r"state of an LSTM must be a tuple \(h, c\)"),
    (lambda w, s: (np.zeros(5, F32), s, np.zeros((17, 2), F32)[:, 0]), "y is written: it must be in C order"),
    (lambda w, s: (np.zeros((2, 5), F32), s, Y), "y must have 2 axes, got 1"),
    (lambda w, s: (np.zeros((2, 5), F32), s, np.zeros((2, 17), F32)), "h of state must have 3 axes, got 2"),
    (lambda w, s: (np.zeros((2, 2, 5), F32), s, Y), r"x must be \(I\) or \(B, I\)"),
    (lambda w, s: (3, s, Y), "x is ids .* has no embedding"),
    (lambda w, s: ("text", s, Y), "x must be an array of float32"),
]


@pytest.mark.parametrize(("given", "message"), KINDS, ids=[message for _, message in KINDS])
def test_kinds_are_typing_errors(given, message):
    w = jit.pack(make())
    with pytest.raises(TypingError, match=message):
        jit.step(w, *given(w, jit.init_state(w)))


def test_a_state_is_of_a_batch():
    w = jit.pack(make())
    assert jit.init_state(w, 0)[0].shape == (2, 0, 17)
    with pytest.raises(ValueError, match="batch must be an int >= 0"):
        jit.init_state(w, -1)
    with pytest.raises(TypingError, match="batch must be an int or None, got float64"):
        jit.init_state(w, 1.5)


def test_messages_of_models():
    w = jit.pack(BY_IDS["tables"]())
    y = np.zeros(9, F32)
    with pytest.raises(TypingError, match=r"state of a model must be a tuple of 2, one for each recurrent layer"):
        jit.step(w, 1, jit.init_state(w)[:1], y)
    with pytest.raises(TypingError, match=r"ids of int64 .* got an array of int32: x.astype\(np.int64\)"):
        jit.step(w, np.zeros(2, np.int32), jit.init_state(w, 2), np.zeros((2, 9), F32))
    with pytest.raises(TypingError, match=r"w must be packed weights.*call jit.pack\(layer\) in Python"):
        jit.step(3, 1, jit.init_state(w), y)


def test_what_can_be_packed():
    with pytest.raises(TypeError, match=r"be a fastrnn\.RNN, LSTM, GRU, Recurrent or SequenceModel, got int"):
        jit.pack(3)
    with pytest.raises(ValueError, match="has no weights"):
        jit.pack(fastrnn.GRU(2, 3))
    w = jit.pack(make())
    assert repr(w) == "<packed LSTM(5, 17, num_layers=2), float32>"
    with pytest.raises(TypeError, match="pickle the layer or the model, and pack it again"):
        pickle.dumps(w)


def swapped(a):
    """The same numbers in the other byte order, read-only."""
    a = a.astype(a.dtype.newbyteorder())
    a.flags.writeable = False
    return a


def test_the_other_byte_order_is_refused():
    """Numba has seen a read-only or misaligned array of the machine's order, and takes the other for the same."""
    w = jit.pack(make())
    x, y, state = np.ones(5, F32), np.zeros(17, F32), jit.init_state(w)
    x.flags.writeable = False
    unaligned = np.zeros(4 * 17 + 1, np.uint8)[1:].view(F32)
    jit.step(w, x, state, y)
    jit.step(w, unaligned[:5], state, unaligned[:17].copy())
    jit.forward(w, x[None], state, y[None])
    jit.softmax(x, np.empty(5, F32))
    calls = [
        lambda: jit.step(w, swapped(x), state, y),
        lambda: jit.step(w, x, state, y.astype(y.dtype.newbyteorder())),
        lambda: jit.step(w, x, (state[0], swapped(state[1])), y),
        lambda: jit.forward(w, swapped(x[None]), state, y[None]),
        lambda: jit.reset(w, (swapped(state[0]), state[1])),
        lambda: jit.softmax(swapped(x), np.empty(5, F32)),
    ]
    kept = [y.copy(), *map(np.copy, state)]
    for call in calls:
        with pytest.raises(TypingError, match=r"arrays must have the machine's byte order, got [<>]f4: a\.astype"):
            call()
    assert all(same_bits(a, b) for a, b in zip([y, *state], kept, strict=True))


@pytest.mark.parametrize("align", [False, True])
def test_fields_of_records(align):
    """Numba calls a field of packed records misaligned, wherever it lies."""

    @numba.njit
    def by_records(w, records, state, y):
        jit.forward(w, records["x"], state, y)

    layer = make()
    records = np.zeros(9, np.dtype([("time", "i8"), ("x", "f4", 5)], align=align))
    records["x"] = np.random.default_rng(0).normal(size=(9, 5))
    w, y = jit.pack(layer), np.empty((9, 17), F32)
    by_records(w, records, jit.init_state(w), y)
    assert same_bits(y, layer(records["x"])[0])
