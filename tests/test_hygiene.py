"""Every kind of array goes in, nothing that goes in is changed, and nothing that comes out shares memory."""

import itertools
import sys

import numpy as np
import pytest
from cases import same_bits
from layer_cases import CELLS, KINDS, arrays, equal, initial, inputs, make, readonly, strided

import fastrnn

SIZES = (1, 3, 15, 16, 17, 37)


def sliced(a):
    """A column range of a wider array: the last axis is contiguous, nothing else is."""
    big = np.full((*a.shape[:-1], a.shape[-1] + 3), 99, a.dtype)
    big[..., 2:-1] = a
    return big[..., 2:-1]


def backwards(a):
    return np.ascontiguousarray(a[::-1])[::-1]


def misaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    b = raw[1:].view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


class Exporter:
    """Nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Convertible:
    """Nothing but __array__."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


FORMS = {
    "readonly": readonly,
    "strided": strided,
    "sliced": sliced,
    "backwards": backwards,
    "fortran": np.asfortranarray,
    "misaligned": misaligned,
    "big endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "other dtype": lambda a: a.astype(np.float64 if a.dtype == np.float32 else np.longdouble),
    "memmap": None,
    "list": lambda a: a.tolist(),
    "dlpack": Exporter,
    "__array__": Convertible,
    "subclass": lambda a: a.view(type("Mine", (np.ndarray,), {})),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_forms(backend, kind, form, tmp_path):
    def mapped(a):
        array = np.memmap(tmp_path / "x", a.dtype, "w+", shape=a.shape)
        array[...] = a
        array.flush()
        return np.memmap(tmp_path / "x", a.dtype, "r", shape=a.shape)

    change = FORMS[form] or mapped
    for batch_first, batch in ((False, 3), (True, 3), (False, None)):
        layer = make(kind, batch_first=batch_first, bidirectional=True)
        x, hx = inputs(layer, batch=batch), initial(layer, batch=batch)
        expected = layer(x, hx)
        assert equal(layer(change(x), hx), expected)
        if form == "memmap":
            continue
        changed = tuple(map(change, hx)) if isinstance(hx, tuple) else change(hx)
        assert equal(layer(x, changed), expected)
        if batch:
            lengths = np.array([2, 6, 0])
            expected = layer(x, hx, lengths=lengths)
            if form != "other dtype":
                assert equal(layer(x, hx, lengths=change(lengths)), expected)
            for kind_of_int in ["i1", "u1", "i4", "u8"]:
                assert equal(layer(x, hx, lengths=lengths.astype(kind_of_int)), expected)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("form", [form for form in FORMS if form != "memmap"])
def test_forms_of_a_cells_arguments(backend, kind, form):
    cell = CELLS[kind](5, 7).init()
    rng = np.random.default_rng(0)
    for axes in ((3,), ()):
        x = rng.normal(size=(*axes, 5)).astype(np.float32)
        hx = rng.uniform(-1, 1, (*axes, 7)).astype(np.float32)
        change = FORMS[form]
        pair = kind == "lstm"
        expected = cell(x, (hx, hx) if pair else hx)
        assert equal(cell(change(x), (change(hx), change(hx)) if pair else change(hx)), expected)


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i4", "i8", "f2", "f8", "g"])
def test_dtypes_that_are_cast(backend, dtype):
    layer = make("gru")
    x = np.rint(inputs(layer)).astype(dtype)
    assert equal(layer(x), layer(x.astype(np.float32)))


@pytest.mark.parametrize("dtype", ["c8", "O", "S3", "U3", "M8[s]", "f4,f4"])
def test_dtypes_that_are_refused(dtype):
    layer = make("gru")
    x = np.zeros((6, 3, 5), dtype)
    with pytest.raises(TypeError, match="x must hold floats, integers or bools, got dtype"):
        layer(x)
    with pytest.raises(TypeError, match="hx must hold"):
        layer(inputs(layer), np.zeros((1, 3, 7), dtype))
    with pytest.raises(TypeError, match="weight_ih_l0 must hold"):
        layer.load_state_dict({**layer.state_dict(), "weight_ih_l0": np.zeros((21, 5), dtype)})


def test_bfloat16_is_cast():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16  # a dtype of JAX
    layer = make("gru")
    rounded = {key: w.astype(bfloat16) for key, w in layer.state_dict().items()}
    again = fastrnn.from_state_dict(rounded)
    assert equal(again.state_dict().values(), [w.astype(np.float32) for w in rounded.values()])
    x = inputs(layer).astype(bfloat16)
    assert equal(again(x), again(x.astype(np.float32)))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_any_form(backend, kind):
    layer = make(kind)
    expected = layer(inputs(layer))
    for name, change in FORMS.items():
        if name != "memmap":
            again = make(kind, seed=1)
            again.load_state_dict({key: change(w) for key, w in layer.state_dict().items()})
            assert equal(again(inputs(layer)), expected)


# Empty inputs and odd sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_empty(backend, kind):
    for batch_first, bidirectional in itertools.product((False, True), repeat=2):
        layer = make(kind, num_layers=2, batch_first=batch_first, bidirectional=bidirectional)
        for steps, batch in ((0, 3), (5, 0), (0, 0)):
            x, hx = inputs(layer, steps, batch), initial(layer, batch)
            y, states = layer(x, hx)
            assert y.shape == (*x.shape[:2], layer._output_size)
            assert equal(states, hx)  # without steps the state passes through
            assert not any(np.shares_memory(a, b) for a, b in zip(arrays(states), arrays(hx), strict=True))
            assert equal(layer(x, hx, lengths=np.zeros(batch, int))[1], hx)
            assert not any(s.any() for s in arrays(layer(x)[1]))
            assert layer(x, out=np.empty_like(y))[0].size == 0
        x, hx = inputs(layer, 0, None), initial(layer, None)
        assert equal(layer(x, hx)[1], hx)
        x, hx = inputs(layer, 5), initial(layer)
        y, states = layer(x, hx, lengths=[0, 0, 0])
        assert not y.any()
        assert equal(states, hx)


@pytest.mark.parametrize("kind", CELLS)
def test_empty_cell(backend, kind):
    cell = CELLS[kind](5, 7).init()
    assert all(s.shape == (0, 7) for s in arrays(cell(np.zeros((0, 5)))))


@pytest.mark.parametrize("kind", KINDS)
def test_odd_sizes(backend, kind):
    reference = {}
    for input_size, hidden_size in itertools.product(SIZES, repeat=2):
        if kind == "lstm_proj" and hidden_size <= 3:
            continue
        layer = make(kind, input_size, hidden_size)
        x = inputs(layer, 3, 2)
        y, _ = layer(x)
        with fastrnn.use_backend("reference"):
            reference = layer(x)[0]
        np.testing.assert_allclose(y, reference, rtol=0, atol=3e-6 * max(1, np.abs(reference).max()))


# Values ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_non_finite_values_stay_in_their_row(backend, kind, dtype):
    layer = make(kind, 5, 17, dtype=dtype)
    x = inputs(layer, 4, 6)
    y, states = layer(x)
    x[1, 1, 2] = np.nan
    x[1, 3, 2] = np.inf
    x[1, 4, 2] = -np.inf
    got, got_states = layer(x)
    clean = [0, 2, 5]
    assert same_bits(got[:, clean], y[:, clean])
    assert equal([s[:, clean] for s in arrays(got_states)], [s[:, clean] for s in arrays(states)])
    assert same_bits(got[0], y[0])
    assert np.isnan(got[1:, 1]).all()
    with fastrnn.use_backend("reference"):
        expected = layer(x)[0]
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_huge_values_do_not_warn(backend, kind):
    layer = make(kind)
    x = inputs(layer) * np.float32(1e30)
    with np.errstate(all="raise"):
        y, _ = layer(x)
    if kind != "rnn_relu":
        assert np.isfinite(y).all()


# Nothing is changed, nothing is shared --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_passed_in_changes(backend, kind):
    for batch_first in (False, True):
        layer = make(kind, num_layers=2, bidirectional=True, batch_first=batch_first)
        layer.initial_state = initial(layer, batch=None, seed=5)
        x, hx, lengths = inputs(layer), initial(layer), np.array([3, 0, 6])
        given = [x, *arrays(hx), *arrays(layer.initial_state)]
        before = [a.copy() for a in given]
        weights = layer.state_dict()
        layer(x, hx, lengths=lengths)
        layer(x)
        layer.trace(x[0] if batch_first else x[:, 0])
        assert equal(given, before)
        assert lengths.tolist() == [3, 0, 6]
        assert equal(layer.state_dict().values(), weights.values())


@pytest.mark.parametrize("kind", KINDS)
def test_results_share_no_memory(backend, kind):
    for steps, batch in ((4, 3), (0, 3), (4, None)):
        layer = make(kind)
        layer.initial_state = initial(layer, batch=None, seed=5)
        x, hx = inputs(layer, steps, batch), initial(layer, batch)
        first, second, third = layer(x, hx), layer(x, hx), layer(x)
        everything = [x, *arrays(hx), *arrays(first), *arrays(second), *arrays(third), *arrays(layer.initial_state)]
        everything += list(arrays(layer._start(batch or 1)))
        for a, b in itertools.combinations(everything, 2):
            assert not np.shares_memory(a, b)
        assert all(a.flags.writeable for result in (first, third) for a in arrays(result))


@pytest.mark.parametrize("kind", KINDS)
def test_results_that_are_written_to_change_nothing(backend, kind):
    layer = make(kind)
    x = inputs(layer)
    expected = layer(x)
    kept = [a.copy() for a in arrays(expected)]
    for a in arrays(expected):
        a[:] = 9
    assert equal(layer(x), kept)


def test_out_overlaps_no_argument(backend):
    layer = make("lstm", 7, 7)
    room = np.zeros(6 * 3 * 7 + 1 * 3 * 7, np.float32)
    x, h = room[: 6 * 3 * 7].reshape(6, 3, 7), room[6 * 3 * 7 :].reshape(1, 3, 7)
    out = np.zeros((6, 3, 7), np.float32)
    shifted = room[3 * 7 :].reshape(6, 3, 7)
    with pytest.raises(ValueError, match="out overlaps x: pass an array of its own"):
        layer(x, out=x)
    with pytest.raises(ValueError, match="out overlaps x"):
        layer(x, out=shifted)
    with pytest.raises(ValueError, match="out overlaps hx"):
        layer(x.copy(), (h, h.copy()), out=shifted)
    with pytest.raises(ValueError, match="out overlaps hx"):
        layer(x.copy(), (h.copy(), h), out=shifted)
    with pytest.raises(ValueError, match="out overlaps lengths"):
        layer(x, lengths=out.view(np.int32)[0, 0, :3], out=out)
    with pytest.raises(ValueError, match="out must be writeable"):
        layer(x, out=readonly(out))
    assert layer(x, (h, h), out=out)[0] is out


@pytest.mark.parametrize("kind", KINDS)
def test_no_leak(backend, kind):
    resource = pytest.importorskip("resource")

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 2**-10)

    layer = make(kind, 16, 33, bidirectional=True)
    x, hx = inputs(layer, 2, 2), initial(layer, 2)
    before = np.inf
    for i in range(11):  # the first thousand calls warm up
        for _ in range(500):
            layer(x, hx, lengths=[2, 1])
            layer(x)
        before = peak() if i == 0 else before
    assert peak() - before < 2**21


def test_out_may_be_a_memmap(backend, tmp_path):
    layer = make("gru")
    x = inputs(layer)
    out = np.memmap(tmp_path / "y", np.float32, "w+", shape=(6, 3, 7))
    layer(x, out=out)
    assert same_bits(np.asarray(out), layer(x)[0])


@pytest.mark.parametrize("cls", [fastrnn.GRU, fastrnn.LSTM])
def test_the_initial_state_is_a_copy(cls):
    layer = cls(2, 3).init()
    mine = np.ones((1, 3), np.float32)
    layer.initial_state = (mine, mine) if cls is fastrnn.LSTM else mine
    mine[:] = 0
    assert all((a == 1).all() for a in arrays(layer.initial_state))
    assert not any(a.flags.writeable for a in arrays(layer.initial_state))
