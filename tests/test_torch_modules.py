"""The modules of fastrnn.torch beside torch's: the same outside, close results, and the bits of the NumPy interface."""

import copy
import io
import pickle
import threading
import warnings

import numpy as np
import pytest
from cases import same_bits
from layer_cases import arrays

import fastrnn

torch = pytest.importorskip("torch")

from module_cases import (  # noqa: E402
    CELLS,
    KINDS,
    LAYERS,
    NAMES,
    assert_close,
    assert_same,
    calls,
    every_option,
    flat,
    inputs,
    pair,
    spy,
    states,
)

import fastrnn.torch as fast  # noqa: E402

DTYPES = (torch.float32, torch.float64)
utils = torch.nn.utils.rnn


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LSTM with projections")  # that oneDNN does not have them
        yield


# Outside --------------------------------------------------------------------------------------------------------------

ARGUMENTS = {
    "RNN": (3, 5, 2, "relu", False, True, 0.25, True),
    "LSTM": (3, 5, 2, False, True, 0.25, True, 2),
    "GRU": (3, 5, 2, False, True, 0.25, True),
    "RNNCell": (3, 5, False, "relu"),
    "LSTMCell": (3, 5, False),
    "GRUCell": (3, 5, False),
}


@pytest.mark.parametrize("name", NAMES)
def test_constructor_repr_and_state_dict(name):
    for used in range(2, len(ARGUMENTS[name]) + 1):
        made = []
        for library in (torch.nn, fast):
            torch.manual_seed(used)
            made.append(getattr(library, name)(*ARGUMENTS[name][:used], device="cpu", dtype=torch.float64))
        theirs, ours = made
        assert isinstance(ours, getattr(torch.nn, name))
        assert repr(ours) == repr(theirs)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert_same(tuple(ours.state_dict().values()), tuple(theirs.state_dict().values()))
        theirs.load_state_dict(ours.state_dict())
        ours.load_state_dict(theirs.state_dict())


WRONG = [(0, 5), (3, 0), (3, 5.0), (3,), (3, 5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)]


@pytest.mark.parametrize("arguments", WRONG, ids=str)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_wrong_arguments_have_torchs_errors(name, arguments):
    with pytest.raises((TypeError, ValueError)) as theirs:
        getattr(torch.nn, name)(*arguments)
    with pytest.raises(theirs.type) as ours:
        getattr(fast, name)(*arguments)
    assert str(ours.value) == str(theirs.value)


def by_pickle(module):
    return pickle.loads(pickle.dumps(module))


def by_torch(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [by_pickle, by_torch, copy.deepcopy, copy.copy])
@pytest.mark.parametrize("kind", KINDS)
def test_copies(kind, duplicate):
    _, ours = pair(kind)
    x, hx = inputs(ours), states(ours)
    before = ours(x, hx)
    again = duplicate(ours)
    assert type(again) is type(ours)
    assert calls(again) == (0, 0)
    assert_same(again(x, hx), before)
    assert_same(again.requires_grad_(False)(x, hx), before)
    assert calls(again) == (2, 0)
    if duplicate is not copy.copy:  # which shares the weights
        for weight in again.parameters():
            weight.zero_()
        assert_same(ours(x, hx), before)
        assert not any(t.any() for t in flat(again(x)))


def test_a_pickle_has_no_packed_weights():
    theirs, ours = pair("LSTM", 32, 32)
    ours(inputs(ours))
    assert len(pickle.dumps(ours)) < len(pickle.dumps(theirs)) + 100


# Results --------------------------------------------------------------------------------------------------------------


def arguments(module):
    """All ways to call a module with tensors."""
    for batch in (3, None):
        x, hx = inputs(module, batch=batch), states(module, batch)
        yield from [(x,), (x, None), (x, hx)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_are_close_to_torchs(kind, dtype):
    for options in every_option():
        theirs, ours = pair(kind, dtype=dtype, **options)
        for count, call in enumerate(arguments(ours), 1):
            assert_close(ours(*call), theirs(*call))
            assert calls(ours) == (count, 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", CELLS)
def test_cells_are_close_to_torchs(kind, dtype):
    for bias in (True, False):
        theirs, ours = pair(kind, bias=bias, dtype=dtype)
        for count, call in enumerate(arguments(ours), 1):
            assert_close(ours(*call), theirs(*call))
            assert calls(ours) == (count, 0)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 15), (1, 16), (16, 17), (17, 33), (40, 37)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_sizes(kind, sizes):
    if kind == "LSTM-proj" and sizes[1] <= 3:
        pytest.skip("torch wants projections to be smaller than what they project")
    theirs, ours = pair(kind, *sizes)
    for batch in (1, 5):
        x, hx = inputs(ours, 1, batch), states(ours, batch)
        assert_close(ours(x, hx), theirs(x, hx))
    assert calls(ours) == (2, 0)


LENGTHS = {"sorted": (4, 4, 2, 1), "unsorted": (1, 4, 3, 4), "equal": (3, 3, 3, 3), "one": (3,)}


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kind", LAYERS)
def test_packed_sequences(kind, lengths):
    for options in every_option():
        theirs, ours = pair(kind, **options)
        x, hx = inputs(ours, 4, len(LENGTHS[lengths])), states(ours, len(LENGTHS[lengths]))
        for enforce_sorted in {lengths != "unsorted", False}:
            packed = utils.pack_padded_sequence(x, LENGTHS[lengths], options["batch_first"], enforce_sorted)
            for call in [(packed,), (packed, hx)]:
                y, final = ours(*call)
                expected, expected_final = theirs(*call)
                assert_close(y, expected)
                assert_close(final, expected_final)
    assert calls(ours)[1] == 0


@pytest.mark.parametrize("kind", LAYERS)
def test_bits_of_the_numpy_interface(backend, kind):
    for options in ({}, {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False}):
        _, ours = pair(kind, 17, 18, **options)
        layer = fastrnn.from_torch(ours)
        for call in arguments(ours):
            expected = layer(
                *(None if t is None else tuple(map(np.asarray, t)) if type(t) is tuple else t.numpy() for t in call)
            )
            assert all(map(same_bits, (t.numpy() for t in flat(ours(*call))), arrays(expected)))
        x, lengths = inputs(ours), np.array([2, 4, 3])
        packed = utils.pack_padded_sequence(x, torch.from_numpy(lengths), ours.batch_first, enforce_sorted=False)
        y, final = ours(packed)
        y, _ = utils.pad_packed_sequence(y, ours.batch_first)
        expected = layer(x.numpy(), lengths=lengths)
        assert all(map(same_bits, (t.numpy() for t in flat((y, final))), arrays(expected)))
        assert backend in ours.__dict__["_held"].layer._runners


@pytest.mark.parametrize("kind", CELLS)
def test_bits_of_the_numpy_cells(backend, kind):
    _, ours = pair(kind, 17, 18)
    cell = fastrnn.from_torch(ours)
    for call in arguments(ours):
        expected = cell(
            *(None if t is None else tuple(map(np.asarray, t)) if type(t) is tuple else t.numpy() for t in call)
        )
        assert all(map(same_bits, (t.numpy() for t in flat(ours(*call))), arrays(expected)))
    assert backend in ours.__dict__["_held"].layer._runners


def test_the_backend_is_chosen_anew_for_each_call():
    _, ours = pair("GRU")
    x = inputs(ours)
    expected = ours(x)
    with fastrnn.use_backend("reference"):
        noted = spy(ours)
        assert_close(ours(x), expected)  # the formulas, in NumPy's own order of additions
    assert not noted
    assert set(ours.__dict__["_held"].layer._runners) == {fastrnn.available_backends()[0], "reference"}


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_tensors_of_their_own(kind):
    _, ours = pair(kind)
    x, hx = inputs(ours), states(ours)
    given = [x.clone(), *(t.clone() for t in flat(hx))]
    first, second = flat(ours(x, hx)), flat(ours(x, hx))
    memory = [t.untyped_storage().data_ptr() for t in (*first, *second, x, *flat(hx))]
    assert len(set(memory)) == len(memory)
    for t in first:
        t.fill_(9)  # may be written
        assert t.is_contiguous()
        assert not t.requires_grad
        assert not t.is_inference()
    assert_same(tuple(second), tuple(flat(ours(x, hx))))
    assert_same((x, *flat(hx)), tuple(given))
    with torch.inference_mode():
        assert all(t.is_inference() for t in flat(ours(x, hx)))


# Inputs ---------------------------------------------------------------------------------------------------------------


def transposed(x):
    return x.transpose(0, 1).contiguous().transpose(0, 1)


def sliced(x):
    wide = torch.full((2 * x.shape[0], x.shape[1] + 1, x.shape[2] + 3), 99, dtype=x.dtype)
    wide[::2, 1:, 2:-1] = x
    return wide[::2, 1:, 2:-1]


def expanded(x):
    return x[:, :1].expand(-1, 3, -1)


def permuted(x):
    return x.permute(2, 0, 1).contiguous().permute(1, 2, 0)


VIEWS = {"contiguous": torch.clone, "transposed": transposed, "sliced": sliced, "expanded": expanded}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", LAYERS)
def test_inputs_are_read_where_they_are(kind, view, batch_first):
    _, ours = pair(kind, batch_first=batch_first)
    x, hx = VIEWS[view](inputs(ours, 3)), states(ours)
    expected = ours(x.clone(memory_format=torch.contiguous_format), hx)
    noted, before = spy(ours), x.clone()
    assert_same(ours(x, hx), expected)
    [(seen, start, *_)] = noted
    assert seen.ctypes.data == x.data_ptr()
    assert seen.strides == tuple(4 * n for n in x.stride())
    assert [a.ctypes.data for a in start] == [t.data_ptr() for t in flat(hx)]
    assert_same(x, before)


def test_results_are_not_copied_either():
    _, ours = pair("LSTM")
    x = inputs(ours)
    ours(x)
    noted = spy(ours)
    y, (h, c) = ours(x)
    [(*_, results)] = noted
    assert [a.ctypes.data for a in results] == [t.data_ptr() for t in (y, h, c)]


@pytest.mark.parametrize("kind", CELLS)
def test_cells_read_rows_where_they_are(kind):
    _, ours = pair(kind)
    x, hx = inputs(ours, batch=9)[::3], states(ours)
    expected = ours(x.clone(), hx)
    noted = spy(ours)
    assert_same(ours(x, hx), expected)
    [(seen, start, *_)] = noted
    assert seen.ctypes.data == x.data_ptr()
    assert [a.ctypes.data for a in start] == [t.data_ptr() for t in flat(hx)]


@pytest.mark.parametrize("kind", LAYERS)
def test_any_layout_of_inputs_and_states(kind):
    theirs, ours = pair(kind, num_layers=2)
    x, hx = inputs(ours, 3), states(ours)
    expected = theirs(x, hx)
    odd = tuple(map(sliced, flat(hx)))
    odd = odd if len(odd) > 1 else odd[0]
    wide = torch.frombuffer(bytearray(x.numel() * 4 + 4), dtype=torch.uint8)
    shifted = wide[1:-3].numpy().view(np.float32).reshape(x.shape)  # aligned to a byte
    shifted[...] = x
    ours(x)
    noted = spy(ours)
    assert_close(ours(torch.from_numpy(shifted)), theirs(x))
    assert noted[0][0].flags.aligned  # kernels may rely on it
    imaginary = torch.complex(torch.zeros_like(x), -x).conj().imag  # negated when it is read
    assert imaginary.is_neg()
    for given in (permuted(x), sliced(x), torch.from_numpy(shifted), imaginary, x.requires_grad_()):
        assert_close(ours(given, odd), expected)
    assert_close(ours(x[..., :1].expand(x.shape), odd), theirs(x[..., :1].expand(x.shape), hx))
    assert calls(ours) == (8, 0)


# Calls ----------------------------------------------------------------------------------------------------------------


def test_threads_are_torchs(monkeypatch):
    """Unless the call is small."""
    _, ours = pair("GRU", 5, 7)
    x = inputs(ours, 4, 3)
    ours(x)
    noted = spy(ours)
    try:
        for work in (4 * 3 * (21 * (5 + 7 + 2)) - 1, 4 * 3 * (21 * (5 + 7 + 2))):
            monkeypatch.setattr(fast, "ALONE", work)
            for count in (1, 3):
                torch.set_num_threads(count)
                ours(x)
    finally:
        torch.set_num_threads(1)
    assert [threads for *_, threads, _ in noted] == [1, 3, 1, 1]


def test_calls_from_threads():
    _, ours = pair("LSTM", 16, 32)
    xs = [inputs(ours, 20, 2, seed) for seed in range(4)]
    expected = [ours(x) for x in xs]
    found = [None] * len(xs)
    fresh = copy.deepcopy(ours)

    def work(i):
        with torch.no_grad():
            found[i] = [fresh(xs[i]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, results in zip(expected, found, strict=True):
        for result in results:
            assert_same(result, one)


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_run(kind):
    theirs, ours = pair(kind)
    x, hx = inputs(ours), states(ours)
    for module in (theirs, ours):
        module.register_forward_pre_hook(lambda module, args: (args[0] * 2, *args[1:]))
        module.register_forward_hook(lambda module, args, result: tuple(t + 1 for t in flat(result)))
    assert_close(ours(x, hx), theirs(x, hx))
    assert calls(ours) == (1, 0)


def test_a_default_device_does_not_move_results():
    _, ours = pair("LSTM")
    x = inputs(ours)
    with torch.device("meta"):
        results = ours(x)
    assert_same(results, ours(x))
    assert calls(ours) == (2, 0)


def test_keywords():
    for kind in KINDS:
        _, ours = pair(kind)
        x, hx = inputs(ours), states(ours)
        assert_same(ours(input=x, hx=hx), ours(x, hx))


def test_a_pair_may_be_a_list():
    for kind in ("LSTM", "LSTMCell"):
        theirs, ours = pair(kind)
        x, hx = inputs(ours), states(ours)
        assert_close(ours(x, list(hx)), theirs(x, hx))
        assert calls(ours) == (1, 0)
