"""Dense layers: what is read as one, what each error says, and their functions on every backend."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from cases import DTYPES, assert_close, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import readonly, strided

from fastrnn import backends, reference
from fastrnn.dense import FUNCTIONS, Dense, DenseLayer, make_plan

SIZES = ((1, 1), (5, 3), (130, 15), (1, 16), (37, 17), (257, 37), (5, 130))  # K, V: around groups, blocks and runs
F32 = np.dtype(np.float32)
KERNELS = [name for name in backends.available_backends() if name != "reference"]


def make(inputs, units, function="softmax", dtype=F32, bias=True, scale=1.0, seed=0):
    rng = np.random.default_rng((seed, inputs, units))
    weight = scale * rng.normal(size=(units, inputs)) / np.sqrt(inputs)
    return DenseLayer(
        make_plan(Dense(weight, rng.normal(size=units) if bias else None, function), np.dtype(dtype), "head")
    )


def rows(layer, count, seed=0):
    rng = np.random.default_rng((seed, 1))
    return rng.normal(size=(count, layer.plan.input_size)).astype(layer.plan.dtype)


def function_of(x, function, dtype=F32):
    """A function alone, of rows of any numbers."""
    x = np.atleast_2d(np.array(x, dtype, order="C"))
    out = np.full_like(x, 99)
    backends.load(backends.current()).activate(function, x, out)
    return out


# What is read ---------------------------------------------------------------------------------------------------------

W = np.arange(6.0).reshape(2, 3) - 2
B = np.array([1.0, -1.0])
FORMS = {
    "Dense": (Dense(W, B, "tanh"), B, "tanh"),
    "Dense without bias": (Dense(W), None, "linear"),
    "pair": ((W, B), B, "linear"),
    "triple": ((W, B, "softmax"), B, "softmax"),
    "activation None": ((W, B, None), B, "linear"),
    "activation linear": ((W, None, "linear"), None, "linear"),
    "weight alone": ((W,), None, "linear"),
    "list": ([W.tolist(), B.tolist(), "relu"], B, "relu"),
    "object": (SimpleNamespace(weight=W, bias=B), B, "linear"),
    "object without bias": (SimpleNamespace(weight=W), None, "linear"),
    "integers": ((W.astype(int), B.astype(np.int8)), B, "linear"),
    "big-endian": ((W.astype(">f8"), B.astype(">f4")), B, "linear"),
    "strided": ((strided(W), strided(B)), B, "linear"),
    "transposed": ((np.ascontiguousarray(W.T).T, B), B, "linear"),
    "read-only": ((readonly(W), readonly(B)), B, "linear"),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_forms(form, dtype):
    value, bias, activation = FORMS[form]
    plan = make_plan(value, np.dtype(dtype), "head")
    assert same_bits(plan.weight, W.astype(dtype))
    assert plan.bias is None if bias is None else same_bits(plan.bias, bias.astype(dtype))
    assert (plan.activation, plan.dtype, plan.input_size, plan.output_size) == (activation, dtype, 3, 2)


@pytest.mark.parametrize("bias", [True, False])
def test_torch_linear(bias):
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3, 2, bias=bias)
    plan = make_plan(module, F32, "head")
    assert same_bits(plan.weight, module.weight.detach().numpy())
    assert same_bits(plan.bias, module.bias.detach().numpy()) if bias else plan.bias is None
    half = make_plan((module.weight.bfloat16(), module.bias), F32, "head")
    assert same_bits(half.weight, module.weight.bfloat16().float().detach().numpy())


def test_a_plan_is_a_copy():
    weight, bias = W.astype(F32), B.astype(F32)
    plan = make_plan((weight, bias), F32, "head")
    weight[:] = bias[:] = 99
    assert same_bits(plan.weight, W.astype(F32))
    assert same_bits(plan.bias, B.astype(F32))
    for array in (plan.weight, plan.bias, *plan.packed):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


ACCEPTED = r"a fastrnn\.Dense, \(weight, bias\), \(weight, bias, activation\) or an object with \.weight and \.bias"
ERRORS = [
    (None, TypeError, rf"^head must be {ACCEPTED}, such as torch\.nn\.Linear, got NoneType$"),
    (W, TypeError, rf"^head must be {ACCEPTED}.*got ndarray$"),
    ("softmax", TypeError, rf"^head must be {ACCEPTED}.*got str$"),
    ((), TypeError, rf"^head must be {ACCEPTED}.*got tuple$"),
    ((W, B, "tanh", 1), TypeError, rf"^head must be {ACCEPTED}.*got tuple$"),
    ((None, B), TypeError, rf"^head must be {ACCEPTED}.*got tuple$"),
    (SimpleNamespace(bias=B), TypeError, rf"^head must be {ACCEPTED}.*got SimpleNamespace$"),
    ((B, B), ValueError, r"^head\.weight must be a matrix \(V, K\), got shape \(2,\)$"),
    ((W[None], B), ValueError, r"^head\.weight must be a matrix \(V, K\), got shape \(1, 2, 3\)$"),
    ((W[:0], None), ValueError, r"^head\.weight must be a matrix \(V, K\), got shape \(0, 3\)$"),
    ((W[:, :0], B), ValueError, r"^head\.weight must be a matrix \(V, K\), got shape \(2, 0\)$"),
    ((W.T, B), ValueError, r"^head\.bias is \(2,\), expected \(V,\) = \(3,\): pass head\.weight\.T$"),
    ((W, B[:1]), ValueError, r"^head\.bias is \(1,\), expected \(V,\) = \(2,\)$"),
    ((W, B[None]), ValueError, r"^head\.bias is \(1, 2\), expected \(V,\) = \(2,\)$"),
    ((W, 1.0), ValueError, r"^head\.bias is \(\), expected \(V,\) = \(2,\)$"),
    ((W * 1j, B), TypeError, r"^head\.weight must hold floats, integers or bools, got dtype complex128"),
    ((W, ["a", "b"]), TypeError, r"^head\.bias must hold floats, integers or bools, got dtype <U1"),
    (([[1, 2], [3]], None), ValueError, r"^head\.weight must be an array of real numbers: .*inhomogeneous"),
    ((W, B, "gelu"), ValueError, r"^head\.activation must be one of 'linear', 'relu', .*'log_softmax', got 'gelu'$"),
    ((W, B, 3), TypeError, r"^head\.activation must be one of 'linear', .*got 3$"),
    ((W, "softmax"), TypeError, r"^head\.bias must hold floats, integers or bools, got dtype <U7"),
]


@pytest.mark.parametrize(("value", "error", "message"), ERRORS, ids=[message[:70] for _, _, message in ERRORS])
def test_errors(value, error, message):
    with pytest.raises(error, match=message) as caught:
        make_plan(value, F32, "head")
    assert type(caught.value) is error


# The layer ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_against_the_reference_in_float64(backend, function, dtype):
    for size in SIZES:
        for bias in (True, False):
            layer = make(*size, function, dtype, bias, scale=3.0)
            x = rows(layer, 7)
            plan, expected = layer.plan, np.empty((7, layer.plan.output_size))
            wide = None if plan.bias is None else plan.bias.astype(np.float64)
            reference.dense(make_plan((plan.weight, wide, function), np.dtype(np.float64), "head"), x, expected)
            y = layer(x)
            assert y.dtype == dtype
            assert_close(y, expected, "kernel", dtype)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_against_torch(backend, function):
    torch = pytest.importorskip("torch")
    layer = make(37, 17, function, np.float64, scale=3.0)
    x = rows(layer, 5)
    sums = torch.nn.functional.linear(*map(torch.tensor, (x, layer.plan.weight, layer.plan.bias)))
    of_row = {"dim": -1} if function.endswith("softmax") else {}
    expected = sums if function == "linear" else getattr(torch, function)(sums, **of_row)
    assert_close(layer(x), expected.numpy(), "torch", np.float64)


def test_rows_of_another_dtype_or_width(backend):
    layer = make(37, 17, "linear")
    x = rows(layer, 12)
    assert same_bits(layer(x.astype(np.float64)), layer(x))
    for wrong in (x[:, :36], x[0], x[None]):
        with pytest.raises(ValueError, match=r"expected \(N, K\) = \(N, 37\)"):
            layer(wrong)


@pytest.mark.parametrize("function", ["linear", "log_softmax"])
def test_rows_in_any_layout(backend, function):
    layer = make(37, 17, function)
    x = rows(layer, 12)
    expected = layer(x)
    wide = np.full((12, 50), 99, F32)
    wide[:, 5:42] = x
    layouts = {
        "read-only": readonly(x),
        "every second": np.repeat(x, 2, axis=0)[::2],
        "columns of a wider array": wide[:, 5:42],
        "backwards": np.ascontiguousarray(x[::-1])[::-1],
    }
    for name, laid_out in layouts.items():
        before = laid_out.copy()
        assert same_bits(layer(laid_out), expected), name
        assert same_bits(laid_out, before), name
    once = np.broadcast_to(x[:1], x.shape)
    assert same_bits(layer(once), np.repeat(expected[:1], 12, axis=0))

    target = np.full((12, 20), 99, F32)
    out = target[:, 2:19]
    assert layer(x, out) is out
    assert same_bits(out, expected)
    assert (target[:, :2] == 99).all()
    assert (target[:, 19:] == 99).all()


@pytest.mark.parametrize("inputs", [130, 940])  # 940: runs of columns by four, two and one, and a part of one
def test_rows_are_independent(backend, inputs):
    layer = make(inputs, 37)
    for count in (0, 1, 2, 6, 7, 8, 48, 49, 100):
        x = rows(layer, count)
        together = layer(x)
        assert together.shape == (count, 37)
        for i in {0, count // 2, count - 1} if count else ():
            assert same_bits(layer(x[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize("function", ["sigmoid", "softmax"])
@pytest.mark.parametrize("name", KERNELS)
def test_the_same_bits_on_any_number_of_threads(name, function):
    layer = make(300, 300, function)
    run = backends.load(name).dense(layer.plan)
    for count in (1, 3, 200):  # the last is worth sharing
        x = rows(layer, count)
        expected = layer(x, backend=name)
        for threads in (1, 2, 5):
            out = np.full((count, 300), 99, F32)
            run(x, out, threads)
            assert same_bits(out, expected)


def test_threads_share_the_blocks_of_a_single_row():
    pytest.importorskip("fastrnn._native")
    layer = make(2100, 4099)
    x = rows(layer, 1)
    expected = layer(x, backend="cython", num_threads=1)
    for threads in (2, 5):
        assert same_bits(layer(x, backend="cython", num_threads=threads), expected)


@pytest.mark.parametrize("name", KERNELS)
def test_calls_from_many_threads(name):
    """More calls at once than there are processors, each worth sharing, which leaves some no processor to share."""
    layer = make(300, 300)
    xs = [rows(layer, 101 + i, seed=i) for i in range(8)]
    expected = [layer(x, backend=name) for x in xs]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda x: [layer(x, backend=name) for _ in range(10)], xs))
    for calls, y in zip(results, expected, strict=True):
        assert all(same_bits(call, y) for call in calls)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_answer(data):
    """Every tier of the compiled kernels and Numba's, whatever the shape."""
    native = pytest.importorskip("fastrnn._native")
    sizes = st.sampled_from((1, 2, 3, 8, 15, 16, 17, 31, 33, 64, 65, 129, 260))
    inputs = data.draw(sizes | st.sampled_from((256, 384, 512, 700, 940)))
    units, count = data.draw(sizes), data.draw(st.sampled_from((1, 2, 6, 7, 8, 13, 49)))
    function, dtype = data.draw(st.sampled_from(FUNCTIONS)), data.draw(st.sampled_from(DTYPES))
    scale, seed = data.draw(st.sampled_from((0.1, 3.0, 100.0))), data.draw(st.integers(0, 1000))
    layer = make(inputs, units, function, dtype, data.draw(st.booleans()), scale, seed)
    x = rows(layer, count, seed)
    runs = {tier: native.DenseEngine(layer.plan, tier=tier) for tier, state in native.tiers().items() if state == "ok"}
    if "numba" in KERNELS:
        runs["numba"] = backends.load("numba").dense(layer.plan)
    expected = np.empty((count, units), dtype)
    runs.pop("generic")(x, expected)
    for name, run in runs.items():
        out = np.full((count, units), 99, dtype)
        run(x, out)
        assert same_bits(out, expected), name


# Functions of rows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)
@given(row=st.lists(st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-20, 20, width=32), min_size=1, max_size=70))
def test_softmax_is_a_distribution(row, dtype):
    for name in backends.available_backends():
        with backends.use_backend(name):
            share, log = function_of(row, "softmax", dtype), function_of(row, "log_softmax", dtype)
        eps = np.finfo(dtype).eps
        assert abs(float(share.sum(dtype=np.float64)) - 1) <= 8 * eps
        assert share.min() >= 0
        assert share[0, np.argmax(row)] == share.max()
        assert log.max() <= 0
        np.testing.assert_allclose(np.exp(log), share, rtol=0, atol=8 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_non_finite_rows(backend, dtype):
    inf, nan = np.inf, np.nan
    for size in (3, 16, 40):
        for special in ([nan], [inf], [inf, -inf], [nan, inf], [-inf] * size):
            row = np.resize(special + [0.5] * (size - len(special)), size)
            for function in ("softmax", "log_softmax"):
                assert np.isnan(function_of(row, function, dtype)).all()
                assert np.isnan(function_of(row[::-1], function, dtype)).all()
        masked = [-inf] * (size - 1) + [7.0]
        assert same_bits(function_of(masked, "softmax", dtype)[0], np.eye(size, dtype=dtype)[-1])
        assert same_bits(function_of(masked, "log_softmax", dtype)[0], np.array([-inf] * (size - 1) + [0], dtype))
    assert function_of([3.0], "softmax", dtype) == 1
    assert same_bits(function_of([-3.0], "log_softmax", dtype), np.zeros((1, 1), dtype))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("linear", [np.nan, np.inf, -np.inf]),
        ("relu", [np.nan, np.inf, 0]),
        ("sigmoid", [np.nan, 1, 0]),
        ("tanh", [np.nan, 1, -1]),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_non_finite_numbers(backend, function, expected, dtype):
    assert same_bits(function_of([np.nan, np.inf, -np.inf], function, dtype), np.array([expected], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KERNELS)
def test_shares_are_never_denormal(name, dtype):
    low, lower = {"float32": (-87.0, -100.0), "float64": (-708.0, -740.0)}[np.dtype(dtype).name]
    with backends.use_backend(name):
        assert function_of([0, low], "softmax", dtype)[0, 1] >= np.finfo(dtype).tiny
        assert function_of([0, lower], "softmax", dtype)[0, 1] == 0  # e^lower would be denormal
        assert function_of([0, 0, 0, 0, low], "softmax", dtype)[0, 4] == 0  # its quarter would be


# Copies ---------------------------------------------------------------------------------------------------------------

WAYS = {"pickle": lambda value: pickle.loads(pickle.dumps(value)), "copy": copy.copy, "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("way", WAYS)
def test_copies(backend, way):
    layer = make(37, 17, "log_softmax", np.float64)
    x = rows(layer, 3)
    expected = layer(x)
    assert same_bits(WAYS[way](layer)(x), expected)
    assert same_bits(DenseLayer(WAYS[way](layer.plan))(x), expected)


def test_pickles_hold_the_logical_weights_alone(backend):
    layer = make(64, 65)
    layer(rows(layer, 1))
    size = layer.plan.weight.nbytes + layer.plan.bias.nbytes
    assert len(pickle.dumps(layer)) < size + 1000
