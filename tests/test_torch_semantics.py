"""What torch documents and tests of its recurrent modules in inference, asked of fastrnn.torch's."""

import warnings

import pytest

torch = pytest.importorskip("torch")

from module_cases import CELLS, KINDS, LAYERS, assert_close, assert_same, calls, flat, inputs, pair, states  # noqa: E402

import fastrnn.torch as fast  # noqa: E402

utils = torch.nn.utils.rnn


@pytest.fixture(autouse=True)
def _inference():
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LSTM with projections")  # that oneDNN does not have them
        yield


def both(kind, call, **options):
    """Run torch's and ours: (results or errors of both, ours)."""
    found = []
    for module in pair(kind, **options):
        try:
            found.append(call(module))
        except Exception as error:
            found.append((type(error), str(error)))
    return *found, module


# Formulas -------------------------------------------------------------------------------------------------------------


def gates(cell, x, h, count):
    """x and h through the weights of a cell: (from x, from h), a part for each gate."""
    from_x = x @ cell.weight_ih.T + cell.bias_ih
    from_h = h @ cell.weight_hh.T + cell.bias_hh
    return from_x.chunk(count, -1), from_h.chunk(count, -1)


def rnn_step(cell, x, h):
    (a,), (b,) = gates(cell, x, h, 1)
    return torch.tanh(a + b) if cell.nonlinearity == "tanh" else torch.relu(a + b)


def lstm_step(cell, x, hc):
    h, c = hc
    i, f, g, o = (a + b for a, b in zip(*gates(cell, x, h, 4), strict=True))
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(cell, x, h):
    (r, z, n), (hr, hz, hn) = gates(cell, x, h, 3)
    r, z = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
    return (1 - z) * torch.tanh(n + r * hn) + z * h


STEPS = {"RNNCell-tanh": rnn_step, "RNNCell-relu": rnn_step, "LSTMCell": lstm_step, "GRUCell": gru_step}


@pytest.mark.parametrize("kind", CELLS)
def test_formulas_of_the_cells(kind):
    _, ours = pair(kind, dtype=torch.float64)
    x, hx = inputs(ours), states(ours)
    for _ in range(3):
        expected = STEPS[kind](ours, x, hx)
        hx = ours(x, hx)
        assert_close(hx, expected)
    assert calls(ours) == (3, 0)


@pytest.mark.parametrize(
    ("kind", "cell"),
    [("RNN-tanh", "RNNCell-tanh"), ("RNN-relu", "RNNCell-relu"), ("LSTM", "LSTMCell"), ("GRU", "GRUCell")],
)
def test_a_layer_is_its_cell_step_by_step(kind, cell):
    _, layer = pair(kind)
    _, cell = pair(cell)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x, hx = inputs(layer), states(cell)
    y, final = layer(x, tuple(t[None] for t in hx) if isinstance(hx, tuple) else hx[None])
    for now, expected in zip(x, y, strict=True):
        hx = cell(now, hx)
        assert_same(flat(hx)[0], expected)
    assert_same(tuple(t[0] for t in flat(final)), tuple(flat(hx)))


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_and_directions_are_stacked(kind):
    _, both_ways = pair(kind, num_layers=2, bidirectional=True)
    x = inputs(both_ways)
    y, final = both_ways(x)
    below = x
    for layer in range(2):
        halves = []
        for direction, suffix in enumerate(("", "_reverse")):
            _, one = pair(kind, below.shape[-1])
            weights = {
                name.replace(f"_l{layer}{suffix}", "_l0"): value
                for name, value in both_ways.state_dict().items()
                if name.endswith(f"_l{layer}{suffix}")
            }
            one.load_state_dict(weights)
            half, last = one(below.flip(0) if direction else below)
            halves.append(half.flip(0) if direction else half)
            for whole, part in zip(flat(final), flat(last), strict=True):
                assert_same(whole[2 * layer + direction], part[0])
        below = torch.cat(halves, -1)
    assert_same(y, below)


# Shapes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_shapes(kind):
    for directions in (1, 2):
        for batch_first in (False, True):
            _, ours = pair(kind, num_layers=3, bidirectional=directions == 2, batch_first=batch_first)
            size = ours.proj_size or 7
            y, final = ours(inputs(ours, 4, 2))
            assert y.shape == ((2, 4) if batch_first else (4, 2)) + (directions * size,)
            assert [t.shape for t in flat(final)] == [(3 * directions, 2, size), (3 * directions, 2, 7)][
                : len(flat(final))
            ]
            y, final = ours(inputs(ours, 4, None))
            assert y.shape == (4, directions * size)
            assert [t.shape for t in flat(final)] == [(3 * directions, size), (3 * directions, 7)][: len(flat(final))]
            assert calls(ours) == (2, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_states_mean_zeros(kind):
    _, ours = pair(kind)
    x, hx = inputs(ours), states(ours)
    zeros = tuple(torch.zeros_like(t) for t in hx) if isinstance(hx, tuple) else torch.zeros_like(hx)
    assert_same(ours(x), ours(x, zeros))
    assert not torch.equal(flat(ours(x))[0], flat(ours(x, hx))[0])


@pytest.mark.parametrize("kind", LAYERS)
def test_batch_first_moves_the_batch_alone(kind):
    _, ours = pair(kind, num_layers=2)
    _, first = pair(kind, num_layers=2, batch_first=True)
    x, hx = inputs(ours), states(ours)
    y, final = ours(x, hx)
    z, same = first(x.transpose(0, 1), hx)
    assert_same(z.transpose(0, 1), y)
    assert_same(same, final)


@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_is_a_batch_of_one(kind):
    _, ours = pair(kind)
    x, hx = inputs(ours, batch=None), states(ours, None)
    axis = x.ndim - 1
    wide = tuple(t.unsqueeze(axis) for t in hx) if isinstance(hx, tuple) else hx.unsqueeze(axis)
    expected = ours(x.unsqueeze(axis), wide)
    assert_same(tuple(flat(ours(x, hx))), tuple(t.squeeze(axis) for t in flat(expected)))


def test_relu_is_not_tanh():
    for name in ("RNN", "RNNCell"):
        results = [flat(pair(f"{name}-{function}")[1](torch.full((2, 5), 2.0)))[0] for function in ("tanh", "relu")]
        assert (results[1] >= 0).all()
        assert (results[0] < 0).any()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("RNNCell-tanh", "nonlinearity", "relu"), ("RNN-relu", "mode", "RNN_TANH"), ("LSTM", "batch_first", True)],
)
def test_settings_that_are_changed_later(kind, name, value):
    theirs, ours = pair(kind)
    x = inputs(ours)
    before = ours(x)
    for module in (theirs, ours):
        setattr(module, name, value)
    assert_close(ours(x), theirs(x))
    assert not torch.equal(flat(ours(x))[0], flat(before)[0])
    assert calls(ours) == (3, 0)


# Packed sequences -----------------------------------------------------------------------------------------------------

LENGTHS = torch.tensor([2, 5, 1, 4])


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_packed_is_each_sequence_alone(kind, batch_first, rows, monkeypatch):
    """In groups of any number of rows."""
    monkeypatch.setattr(fast, "PACKED_ROWS", rows)
    _, ours = pair(kind, num_layers=2, bidirectional=True, batch_first=batch_first)
    x, hx = inputs(ours, 5, 4), states(ours, 4)
    packed = utils.pack_padded_sequence(x, LENGTHS, batch_first, enforce_sorted=False)
    y, final = ours(packed, hx)
    assert y.batch_sizes is packed.batch_sizes
    assert_same(y.sorted_indices, packed.sorted_indices)
    assert_same(y.unsorted_indices, packed.unsorted_indices)
    rows, lengths = utils.pad_packed_sequence(y, batch_first=True)
    assert torch.equal(lengths, LENGTHS)
    for i, length in enumerate(LENGTHS):
        one = x[i, :length] if batch_first else x[:length, i]
        alone = tuple(t[:, i] for t in flat(hx))
        expected, last = ours(one, alone if len(alone) > 1 else alone[0])
        assert_same(rows[i, :length], expected)
        assert not rows[i, length:].any()
        assert_same(tuple(t[:, i] for t in flat(final)), tuple(flat(last)))
    assert calls(ours) == (5, 0)


@pytest.mark.parametrize("kind", LAYERS)
def test_unsorted_is_sorted_in_another_order(kind):
    _, ours = pair(kind)
    x, hx = inputs(ours, 5, 4), states(ours, 4)
    order = LENGTHS.argsort(descending=True)
    sorted_hx = tuple(t[:, order] for t in flat(hx))
    unsorted = ours(utils.pack_padded_sequence(x, LENGTHS, enforce_sorted=False), hx)
    by_length = ours(
        utils.pack_padded_sequence(x[:, order], LENGTHS[order]), sorted_hx if len(sorted_hx) > 1 else sorted_hx[0]
    )
    assert_same(unsorted[0].data, by_length[0].data)
    assert_same(tuple(t[:, order] for t in flat(unsorted[1])), tuple(flat(by_length[1])))


def test_lists_of_sequences():
    theirs, ours = pair("GRU")
    packed = utils.pack_sequence([torch.randn(n, 5) for n in (1, 3, 2)], enforce_sorted=False)
    for a, b in zip(utils.unpack_sequence(ours(packed)[0]), utils.unpack_sequence(theirs(packed)[0]), strict=True):
        assert_close(a, b)


BROKEN = {
    "too few rows": lambda x: (x[:5], torch.tensor([3, 2, 1]), None, None),
    "too many rows": lambda x: (x[:7], torch.tensor([3, 2, 1]), None, None),
    "too many features": lambda x: (torch.ones(6, 6), torch.tensor([3, 2, 1]), None, None),
    "three axes": lambda x: (x[:6, None], torch.tensor([3, 2, 1]), None, None),
    "growing": lambda x: (x[:5], torch.tensor([2, 1, 2]), None, None),
    "another dtype": lambda x: (x[:6].double(), torch.tensor([3, 2, 1]), None, None),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("kind", LAYERS)
def test_broken_packed_sequences(kind, what):
    packed = utils.PackedSequence(*BROKEN[what](torch.ones(9, 5)))
    theirs, ours, module = both(kind, lambda module: module(packed))
    if isinstance(theirs[0], type):
        assert ours == theirs
    else:
        assert_same(ours[0], theirs[0])
    assert calls(module) == (0, 1)


@pytest.mark.parametrize("batch", [3, 5])
@pytest.mark.parametrize("kind", LAYERS)
def test_states_for_another_batch_than_the_packed_one(kind, batch):
    for enforce_sorted, lengths in ((True, [4, 2, 1, 1]), (False, [1, 2, 4, 1])):
        packed = utils.pack_padded_sequence(torch.ones(4, 4, 5), lengths, enforce_sorted=enforce_sorted)
        theirs, ours, module = both(kind, lambda module: module(packed, states(module, batch)))  # noqa: B023
        if isinstance(theirs[0], type):
            assert ours == theirs
        else:
            assert_same(ours[0], theirs[0])
        assert calls(module) == (0, 1)


# What is refused ------------------------------------------------------------------------------------------------------

X_LAYER = {"features": (4, 3, 6), "4 axes": (1, 4, 3, 5), "1 axis": (5,), "none": (), "2 features": (4, 6)}
X_CELL = {"features": (3, 6), "3 axes": (4, 3, 5), "none": (), "1 feature": (1,)}


@pytest.mark.parametrize(("kind", "what"), [(k, w) for k in KINDS for w in (X_LAYER if k in LAYERS else X_CELL)])
def test_wrong_inputs(kind, what):
    shape = (X_LAYER if kind in LAYERS else X_CELL)[what]
    theirs, ours, module = both(kind, lambda module: module(torch.zeros(shape)))
    assert issubclass(theirs[0], Exception)
    assert ours == theirs
    assert calls(module) == (0, 1)


HX_LAYER = {  # of x (4, 3, 5) and (4, 5)
    "batch of 1": (1, 1, 7),
    "batch": (1, 4, 7),
    "size": (1, 3, 8),
    "size 1": (1, 3, 1),
    "layers": (2, 3, 7),
    "batch first": (3, 1, 7),
    "no layer": (3, 7),
    "1 axis": (7,),
    "4 axes": (1, 1, 3, 7),
}
HX_CELL = {
    "batch of 1": (1, 7),
    "batch": (4, 7),
    "size": (3, 8),
    "size 1": (3, 1),
    "3 axes": (1, 3, 7),
    "1 axis": (7,),
    "none": (),
}


@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize(("kind", "what"), [(k, w) for k in KINDS for w in (HX_LAYER if k in LAYERS else HX_CELL)])
def test_wrong_states(kind, what, unbatched):
    shape = (HX_LAYER if kind in LAYERS else HX_CELL)[what]
    x = torch.zeros(((5,) if kind in CELLS else (4, 5)) if unbatched else (3, 5) if kind in CELLS else (4, 3, 5))
    h = torch.zeros(shape)
    pairs = [(h, h), (h, torch.zeros(1, 3, 7)), (torch.zeros(3, 7), h)]
    for hx in pairs if "LSTM" in kind else [h]:
        theirs, ours, module = both(kind, lambda module: module(x, hx))  # noqa: B023
        if isinstance(theirs[0], type):
            assert ours == theirs
            assert calls(module) == (0, 1)
        else:
            assert_close(ours, theirs)


MESSAGES = [
    ("GRU", (4, 3, 5), (1, 1, 7), RuntimeError, r"Expected hidden size \(1, 3, 7\), got \[1, 1, 7\]"),
    ("GRU", (4, 3, 6), None, RuntimeError, r"input.size\(-1\) must be equal to input_size. Expected 5, got 6"),
    ("GRU", (4, 5), (1, 3, 7), RuntimeError, "For unbatched 2-D input, hx should also be 2-D but got 3-D tensor"),
    ("RNN-tanh", (4, 3, 5), (1, 7), RuntimeError, "For batched 3-D input, hx should also be 3-D but got 2-D tensor"),
    ("GRU", (5,), None, ValueError, "GRU: Expected input to be 2D or 3D, got 1D"),
    ("GRUCell", (4, 3, 5), None, ValueError, "GRUCell: Expected input to be 1D or 2D, got 3D instead"),
    ("GRUCell", (3, 5), (1, 3, 7), ValueError, "GRUCell: Expected hidden to be 1D or 2D, got 3D instead"),
    ("RNNCell-tanh", (3, 5), (1, 7), RuntimeError, "Input batch size 3 doesn't match hidden0 batch size 1"),
    ("GRUCell", (3, 6), None, RuntimeError, "input has inconsistent input_size: got 6 expected 5"),
    ("GRUCell", (3, 5), (3, 8), RuntimeError, "hidden0 has inconsistent hidden_size: got 8, expected 7"),
]


@pytest.mark.parametrize(("kind", "x", "h", "error", "message"), MESSAGES)
def test_messages(kind, x, h, error, message):
    _, ours = pair(kind)
    with pytest.raises(error, match=message):
        ours(torch.zeros(x), None if h is None else torch.zeros(h))


PAIRS = {
    "a tensor": lambda h: h,
    "a stacked pair": lambda h: torch.stack([h, h]),
    "one": lambda h: (h,),
    "three": lambda h: (h, h, h),
    "none of it": lambda h: (),
    "h alone": lambda h: (h, None),
    "nothing": lambda h: (None, None),
    "another dtype": lambda h: (h, h.double()),
    "numbers": lambda h: (0, 0),
}


@pytest.mark.parametrize("what", PAIRS)
@pytest.mark.parametrize("kind", KINDS)
def test_states_that_are_no_pair_or_one(kind, what):
    x = torch.ones((4, 3, 5) if kind in LAYERS else (3, 5))

    def call(module):
        return module(x, PAIRS[what](flat(states(module))[0]))

    theirs, ours, _ = both(kind, call)
    if isinstance(theirs, tuple) and isinstance(theirs[0], type):
        assert ours == theirs
    else:
        assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(0, 3, 5), (4, 0, 5), (0, 5), (0, 0, 5)], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_no_steps_and_no_rows(kind, shape):
    theirs, ours, module = both(kind, lambda module: module(torch.zeros(shape)))
    if isinstance(theirs[0], type):
        assert ours == theirs
    else:
        assert_same(ours, theirs)
    assert calls(module) == (0, 1)


@pytest.mark.parametrize("kind", CELLS)
def test_no_rows_of_a_cell(kind):
    theirs, ours, _ = both(kind, lambda module: module(torch.zeros(0, 5), None))
    assert_same(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_non_finite_numbers_pass_as_in_torch(kind):
    theirs, ours = pair(kind)
    for value in (float("nan"), float("inf"), -float("inf")):
        x = inputs(ours)
        x.flatten()[7] = value
        for a, b in zip(flat(ours(x)), flat(theirs(x)), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_depend_on_each_other(kind):
    _, ours = pair(kind, 17, 18)
    x = inputs(ours, 5, 9)
    axis = x.ndim - 2
    for i in range(9):
        assert_same(flat(ours(x.narrow(axis, i, 1)))[0], flat(ours(x))[0].narrow(axis, i, 1))


def test_bad_constructions_do_not_depend_on_the_library():
    for options in (
        {"proj_size": 7},
        {"proj_size": -1},
        {"num_layers": 0},
        {"dropout": 2.0},
        {"nonlinearity": "sigmoid"},
    ):
        for name in ("RNN", "LSTM", "GRU"):
            found = []
            for library in (torch.nn, fast):
                with pytest.raises((TypeError, ValueError)) as error:
                    getattr(library, name)(5, 7, **options)
                found.append((error.type, str(error.value)))
            assert found[0] == found[1]
