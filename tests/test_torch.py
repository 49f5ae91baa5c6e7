"""Live comparison with torch: the whole grid of options, and the error of both against a wider reference."""

import functools
import inspect
import itertools
import warnings

import cases
import numpy as np
import pytest
from cases import same_bits
from layer_cases import Errors, arrays, initial, inputs, oracle, root_mean_square

import fastrnn

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # its pool is a hundred times slower than one thread where cores are busy

SEEDS = range(10)
KINDS = {
    "RNN-tanh": ("RNN", {}),
    "RNN-relu": ("RNN", {"nonlinearity": "relu"}),
    "LSTM": ("LSTM", {}),
    "LSTM-proj": ("LSTM", {"proj_size": 3}),
    "GRU": ("GRU", {}),
}
CELLS = {"RNNCell": {}, "RNNCell-relu": {"nonlinearity": "relu"}, "LSTMCell": {}, "GRUCell": {}}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "dropout option adds dropout")
        yield


def tensors(result):
    """Copy arrays to tensors, tuples kept."""
    if isinstance(result, tuple):
        return tuple(tensors(part) for part in result)
    return None if result is None else torch.from_numpy(result.copy())


def numpy(result):
    """All tensors of a result, as a flat list of arrays."""
    return [a for part in result for a in numpy(part)] if isinstance(result, tuple) else [result.numpy()]


def run_torch(module, x, hx=None, lengths=None):
    """[y, h] or [y, h, c] of a torch layer; rows of length 0, which torch refuses, are left to the caller."""
    y, states = cases.run_torch(module, x, list(arrays(hx)), lengths)
    return [y, *states]


OPTIONS = ("num_layers", "bias", "batch_first", "bidirectional")


@functools.cache
def grid(kind, dtype):
    """Every combination of options and calls, with what torch and the oracle say: [(options, call, samples)]."""
    name, given = KINDS[kind]
    rows = []
    for values in itertools.product((1, 2), *[(True, False)] * 3):
        options = dict(zip(OPTIONS, values, strict=True))
        calls = {what: [] for what in ("zeros", "states", "unbatched", "lengths")}
        for seed in SEEDS:
            torch.manual_seed(seed)
            module = getattr(torch.nn, name)(5, 7, **options, dtype=DTYPES[dtype], **given)
            layer = fastrnn.from_torch(module)
            x, hx = inputs(layer, 4, seed=seed), initial(layer, seed=seed)
            arguments = {
                "zeros": (x, None, None),
                "states": (x, hx, None),
                "unbatched": (inputs(layer, 4, batch=None, seed=seed), initial(layer, batch=None, seed=seed), None),
                "lengths": (x, hx, np.random.default_rng(seed).integers(1, 5, 3)),
            }
            for what, call in arguments.items():
                calls[what].append((layer, call, run_torch(module, *call), oracle(layer, *call)))
        rows += [(options, what, samples) for what, samples in calls.items()]
    return rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_grid(backend, kind, dtype):
    for options, what, samples in grid(kind, dtype):
        errors = Errors(dtype)
        for layer, (x, hx, lengths), theirs, exact in samples:
            assert layer.dtype == dtype
            errors.add(list(arrays(layer(x, hx, lengths=lengths))), theirs, exact)
        errors.check(f"{kind} {options} {what}")


SIZES = [(1, 1), (3, 15), (1, 16), (16, 17), (40, 37), (17, 130), (1, 256), (16, 512)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_sizes(backend, kind, sizes):
    name, given = KINDS[kind]
    if "proj_size" in given:
        given = {"proj_size": sizes[1] // 2}
    errors = Errors(np.float32)
    for seed in SEEDS:
        torch.manual_seed(seed)
        module = getattr(torch.nn, name)(*sizes, **given)
        layer = fastrnn.from_torch(module)
        x = inputs(layer, seed=seed)
        errors.add(list(arrays(layer(x))), run_torch(module, x), oracle(layer, x))
    errors.check(str(layer))


@functools.cache
def long_runs(kind, dtype):
    """1000 steps, for each seed."""
    name, given = KINDS[kind]
    samples = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        module = getattr(torch.nn, name)(4, 16, dtype=DTYPES[dtype], **given)
        layer = fastrnn.from_torch(module)
        x = inputs(layer, steps=1000, batch=1, seed=seed)
        samples.append((layer, x, run_torch(module, x), oracle(layer, x)))
    return samples


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_root_mean_square_of_a_long_run(backend, kind, dtype):
    errors = Errors(dtype, root_mean_square)
    for layer, x, theirs, exact in long_runs(kind, dtype):
        errors.add(list(arrays(layer(x))), theirs, exact)
    errors.check(kind)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_cells(backend, kind, bias, dtype):
    name = kind.partition("-")[0]
    errors = Errors(dtype)
    for seed in SEEDS:
        torch.manual_seed(seed)
        module = getattr(torch.nn, name)(5, 7, bias, dtype=DTYPES[dtype], **CELLS[kind])
        cell = fastrnn.from_torch(module)
        assert repr(cell).replace(", dtype=float64", "") == repr(module)
        layer = fastrnn.from_state_dict(
            {key + "_l0": value for key, value in module.state_dict().items()}, dtype=dtype, **CELLS[kind]
        )
        rng = np.random.default_rng(seed)
        for axes in ((3,), ()):
            x = rng.normal(size=(*axes, 5)).astype(dtype)
            h, c = rng.uniform(-1, 1, (2, *axes, 7)).astype(dtype)
            given = (h, c) if name == "LSTMCell" else h
            for hx in (None, given):
                ours = list(arrays(cell(x, hx)))
                with torch.no_grad():
                    theirs = numpy(module(tensors(x), tensors(hx)))
                wide = [None if s is None else s[None] for s in ((h, c) if name == "LSTMCell" else (h,))]
                states = None if hx is None else tuple(wide)
                exact = [e.reshape(*axes, 7) for e in oracle(layer, x[None], states)[1:]]
                errors.add(ours, theirs, exact)
    errors.check(repr(cell))


# Signatures, names and layouts ----------------------------------------------------------------------------------------

POSITIONAL = [
    ("RNN", (3, 5, 2, "relu", False, True, 0.25, True)),
    ("LSTM", (3, 5, 2, False, True, 0.25, True, 2)),
    ("GRU", (3, 5, 2, False, True, 0.25, True)),
    ("RNNCell", (3, 5, False, "relu")),
    ("LSTMCell", (3, 5, False)),
    ("GRUCell", (3, 5, False)),
]


@pytest.mark.parametrize(("name", "arguments"), POSITIONAL)
def test_positional_arguments_and_repr(name, arguments):
    for used in range(2, len(arguments) + 1):
        ours = repr(getattr(fastrnn, name)(*arguments[:used], device="cpu", dtype=torch.float32))
        theirs = repr(getattr(torch.nn, name)(*arguments[:used], device="cpu", dtype=torch.float32))
        # torch's RNN does not show its nonlinearity, its RNNCell does
        assert ours.replace(", nonlinearity=relu", "") == theirs.replace(", nonlinearity=relu", "")


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_have_torchs_signature(name):
    theirs = list(inspect.signature(getattr(torch.nn, name)).parameters)
    ours = list(inspect.signature(getattr(fastrnn, name)).parameters)
    assert ours[: len(theirs)] == theirs


@pytest.mark.parametrize(("name", "arguments"), POSITIONAL)
def test_names_and_shapes_of_the_weights(name, arguments):
    ours = getattr(fastrnn, name)(*arguments).init().state_dict()
    module = getattr(torch.nn, name)(*arguments)
    assert {k: tuple(v.shape) for k, v in module.state_dict().items()} == {k: v.shape for k, v in ours.items()}
    assert list(ours) == list(module.state_dict())
    module.load_state_dict({k: torch.from_numpy(v) for k, v in ours.items()})
    again = fastrnn.from_torch(module).state_dict()
    assert all(same_bits(again[k], ours[k]) for k in ours)


def test_dtype_names():
    for name in (torch.float64, torch.double, "torch.float64", "float64", np.float64, np.dtype("f8"), float):
        assert fastrnn.GRU(1, 1, dtype=name).dtype == np.float64
    for name in (None, torch.float32, torch.float, "float32", np.float32):
        assert fastrnn.GRU(1, 1, dtype=name).dtype == np.float32
    assert fastrnn.GRU(1, 1, device=torch.device("cpu")).input_size == 1


# Into fastrnn ---------------------------------------------------------------------------------------------------------


def test_from_state_dict_reads_everything_off():
    module = torch.nn.LSTM(3, 5, 2, bias=False, bidirectional=True, proj_size=2)
    assert repr(fastrnn.from_state_dict(module.state_dict())) == repr(module)
    model = torch.nn.ModuleDict({"encoder": module, "out": torch.nn.Linear(4, 2)})
    layer = fastrnn.from_state_dict(model.state_dict(), "encoder.", dtype="float64")
    x = inputs(layer)
    module = module.double()
    errors = Errors(np.float64)
    errors.add(list(arrays(layer(x))), run_torch(module, x), oracle(layer, x))
    errors.check()


def test_weights_that_require_grad_and_bfloat16_are_taken():
    module = torch.nn.GRU(3, 5)
    layer = fastrnn.GRU(3, 5).load_state_dict(dict(module.named_parameters()))
    assert same_bits(layer.state_dict()["weight_ih_l0"], module.weight_ih_l0.detach().numpy())
    layer = fastrnn.from_torch(module.to(torch.bfloat16))
    assert layer.dtype == np.float32
    assert same_bits(layer.state_dict()["weight_hh_l0"], module.weight_hh_l0.detach().float().numpy())


def test_the_layer_keeps_its_own_copy():
    module = torch.nn.RNN(3, 5)
    layer = fastrnn.from_torch(module)
    before = layer.state_dict()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert all(same_bits(before[k], layer.state_dict()[k]) for k in before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_becomes_a_dense_layer(bias, dtype):
    module = torch.nn.Linear(5, 2, bias, dtype=DTYPES[dtype])
    assert module.weight.requires_grad
    dense = fastrnn.from_torch(module)
    expected = {key: value.numpy().copy() for key, value in module.state_dict().items()}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert type(dense) is fastrnn.Dense
    assert type(dense.weight) is np.ndarray
    assert dense.weight.dtype == dtype
    assert same_bits(dense.weight, expected["weight"])
    if bias:
        assert type(dense.bias) is np.ndarray
        assert dense.bias.dtype == dtype
        assert same_bits(dense.bias, expected["bias"])
    else:
        assert dense.bias is None
    assert dense.activation is None


def test_a_linear_as_a_part_of_a_model(backend):
    gru, inner, head = torch.nn.GRU(3, 5, batch_first=True), torch.nn.Linear(4, 3), torch.nn.Linear(5, 2)
    model = fastrnn.SequenceModel([fastrnn.from_torch(inner), fastrnn.from_torch(gru)], head=fastrnn.from_torch(head))
    x = torch.randn(2, 6, 4)
    with torch.no_grad():
        expected = head(gru(inner(x))[0]).numpy()
    np.testing.assert_allclose(model.predict(x), expected, rtol=0, atol=1e-6)


def test_a_linear_of_bfloat16_is_float32():
    module = torch.nn.Linear(3, 2, dtype=torch.bfloat16)
    dense = fastrnn.from_torch(module)
    assert dense.weight.dtype == dense.bias.dtype == np.float32
    assert same_bits(dense.weight, module.weight.detach().float().numpy())


# The module, and its weight that is stored in parts.
IN_PARTS = {"GRU": ((3, 5), "weight_hh_l0"), "Linear": ((3, 5), "weight")}


def fresh(kind):
    sizes, name = IN_PARTS[kind]
    return getattr(torch.nn, kind)(*sizes), name


def weight_normalised(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(*fresh(kind))


def pruned(kind):
    from torch.nn.utils import prune

    return prune.l1_unstructured(*fresh(kind), amount=0.5)


def parametrized(kind):
    return torch.nn.utils.parametrizations.weight_norm(*fresh(kind))


@pytest.mark.parametrize("kind", IN_PARTS)
@pytest.mark.parametrize("make", [weight_normalised, pruned, parametrized])
def test_weights_stored_in_parts(make, kind):
    module = make(kind)
    with torch.no_grad():  # the attribute is stale until the next forward
        for name, parameter in module.named_parameters():
            if name != IN_PARTS[kind][1]:
                parameter.mul_(1.5)
    layer = fastrnn.from_torch(module)
    if kind == "Linear":
        module(torch.zeros(3))
        assert same_bits(layer.weight, module.weight.detach().numpy())
        return
    x = inputs(layer)
    errors = Errors(np.float32)
    errors.add(list(arrays(layer(x))), run_torch(module, x), oracle(layer, x))
    errors.check()


def test_what_from_torch_refuses():
    class Mine(torch.nn.LSTM):
        def forward(self, x):
            return x

    class MyLinear(torch.nn.Linear):
        def forward(self, x):
            return torch.relu(super().forward(x))

    with pytest.raises(fastrnn.UnsupportedError, match="forward of its own"):
        fastrnn.from_torch(Mine(2, 3))
    with pytest.raises(fastrnn.UnsupportedError, match=r"one of its recurrent modules \(0, 1\)"):
        fastrnn.from_torch(torch.nn.Sequential(torch.nn.LSTM(2, 3), torch.nn.GRUCell(3, 4)))
    with pytest.raises(fastrnn.UnsupportedError, match=r"must be one of torch.nn's RNN, .*, Linear, got Conv1d"):
        fastrnn.from_torch(torch.nn.Conv1d(2, 3, 1))
    with pytest.raises(fastrnn.UnsupportedError, match="MyLinear has a forward of its own"):
        fastrnn.from_torch(MyLinear(2, 3))
    with pytest.raises(TypeError, match=r"must be one of torch.nn's RNN, LSTM, GRU"):
        fastrnn.from_torch({"weight_ih_l0": 0})
    with pytest.raises(TypeError, match="weight must be an array of real numbers"):
        fastrnn.from_torch(torch.nn.Linear(2, 3, device="meta"))
    with pytest.raises(TypeError, match=r"weight must hold floats.*complex64"):
        fastrnn.from_torch(torch.nn.Linear(2, 3, dtype=torch.complex64))
    with pytest.raises(TypeError, match="weight_ih_l0"):
        fastrnn.from_torch(torch.nn.GRU(2, 3, device="meta"))


def test_tensors_as_inputs(backend):
    layer = fastrnn.GRU(3, 5).init()
    x = torch.randn(4, 2, 3)
    expected = layer(x.numpy())
    assert all(map(same_bits, arrays(layer(x)), arrays(expected)))
    assert same_bits(layer(x.double())[0], expected[0])
    assert same_bits(layer(x.permute(1, 0, 2).contiguous().permute(1, 0, 2))[0], expected[0])
    assert layer(x.to(torch.bfloat16))[0].shape == (4, 2, 5)
    h = torch.zeros(1, 2, 5)
    assert same_bits(layer(x, h)[0], expected[0])
    assert same_bits(layer(x, lengths=torch.tensor([4, 4]))[0], expected[0])


def test_tensors_that_are_refused():
    layer = fastrnn.LSTM(3, 5).init()
    x = torch.randn(4, 2, 3, requires_grad=True)
    h = torch.zeros(1, 2, 5)
    with pytest.raises(TypeError, match=r"x is a tensor that requires grad.*x\.detach\(\).*fastrnn\.torch"):
        layer(x)
    with pytest.raises(TypeError, match=r"c of hx is a tensor that requires grad.*detach\(\)"):
        layer(x.detach(), (h, h.clone().requires_grad_()))
    with pytest.raises(TypeError, match=r"PackedSequence.*lengths="):
        layer(torch.nn.utils.rnn.pack_sequence([x.detach()[0]]))
    with pytest.raises(TypeError, match=r"x must be an array of real numbers on the CPU.*x\.cpu\(\)"):
        layer(torch.empty(4, 2, 3, device="meta"))
    with pytest.raises(TypeError, match="complex"):
        layer(torch.zeros(4, 2, 3, dtype=torch.complex64))
