"""The table of test cases, the table of tolerances, and what makes data for them. Read by tests and benches."""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from fastrnn.cells import VARIANTS
from fastrnn.packing import Plan
from fastrnn.weights import Sizes, Weights, check_tensors, expected_shapes, init_weights, state_dict

if TYPE_CHECKING:
    import torch

Results = tuple[np.ndarray, tuple[np.ndarray, ...]]  # y, states
DTYPES = (np.float32, np.float64)
_NEEDS = dict.fromkeys(("fastrnn.comparison", "fastrnn.tensors", "fastrnn.torch", "fastrnn._bench.zoo"), "torch")
_NEEDS |= {"fastrnn.jit": "numba", "fastrnn.simd": "numba", "fastrnn.more_cells": "numba", "fastrnn.own_cells": "numba"}

# (I, H) around the widths of groups and blocks; H = 130 gives whole blocks and a shorter last one for U = 2 and 4.
SIZES = ((1, 1), (5, 3), (3, 15), (1, 16), (16, 17), (37, 37), (17, 130))


def skip_without_extra(module: str) -> None:
    """Skip where a module of fastrnn imports a library that is not installed."""
    if needed := "numba" if module.startswith("fastrnn.numba_kernels") else _NEEDS.get(module):
        pytest.importorskip(needed)


class Case(NamedTuple):
    """A layer and the data it runs on."""

    variant: str
    activation: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    num_directions: int = 1
    bias: bool = True
    steps: int = 6
    batch: int = 3

    @property
    def proj_size(self) -> int:
        return max(1, self.hidden_size * 4 // 7) if self.variant == "lstm_proj" else 0

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            self.variant,
            self.input_size,
            self.hidden_size,
            self.proj_size,
            self.num_layers,
            self.num_directions,
            self.bias,
        )

    def __str__(self) -> str:
        shape = f"I{self.input_size}-H{self.hidden_size}-L{self.num_layers}-D{self.num_directions}"
        return f"{self.variant}-{self.activation}-{shape}" + "-nobias" * (not self.bias)


# Every width; every stack of layers, directions and biases; every activation.
CASES: tuple[Case, ...] = tuple(
    dict.fromkeys(
        [Case(v.name, v.activations[0], i, h) for v in VARIANTS.values() for i, h in SIZES]
        + [
            Case(v.name, v.activations[0], 5, 3, num_layers, num_directions, bias)
            for v in VARIANTS.values()
            for num_layers in (1, 2, 3)
            for num_directions in (1, 2)
            for bias in (True, False)
        ]
        + [Case(v.name, activation, 5, 17, 2, 2) for v in VARIANTS.values() for activation in v.activations]
    )
)


class Tolerance(NamedTuple):
    """Largest difference, times the largest expected value where that is above 1."""

    limit: float
    reason: str


TOLERANCES: dict[tuple[str, str], Tolerance] = {
    ("torch", "float64"): Tolerance(
        1e-14, "reference against torch: 50 eps, for sums in another order and libm's tanh and exp"
    ),
    ("torch", "float32"): Tolerance(2e-6, "17 eps: in float32 torch's own activations are up to 2 eps off"),
    ("torch golden", "float64"): Tolerance(2e-15, "9 eps: layers of golden/torch.npz are small, its runs short"),
    ("torch golden", "float32"): Tolerance(1e-6, "as float64: 8 eps"),
    ("onnxruntime", "float32"): Tolerance(2e-6, "as torch; its activations are rational approximations"),
    ("float64", "float32"): Tolerance(
        2e-6, "a float32 reference against its float64 self: sums and activations are rounded"
    ),
    ("kernel", "float32"): Tolerance(
        2e-6, "kernels against the reference of the same dtype: each rounds in its own order"
    ),
    ("kernel", "float64"): Tolerance(2e-14, "as float32; activations are up to 4e-16 off"),
}


def assert_close(actual: np.ndarray, expected: np.ndarray, what: str, dtype: npt.DTypeLike) -> None:
    """Assert that shapes are equal and values within `TOLERANCES[what, dtype]`."""
    limit = TOLERANCES[what, np.dtype(dtype).name].limit
    assert actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=limit * scale)


def canonical_nan(array: npt.ArrayLike) -> np.ndarray:
    """Copy with every NaN's sign and payload replaced by NumPy's."""
    array = np.array(array)
    if array.dtype.kind == "f":
        array[np.isnan(array)] = np.nan
    return array


def same_bits(a: npt.ArrayLike, b: npt.ArrayLike) -> bool:
    """Tell whether dtypes, shapes and bits are equal: -0 is not +0, but any NaN is any other."""
    a, b = canonical_nan(a), canonical_nan(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def make_plan(case: Case, dtype: npt.DTypeLike, seed: int = 0, weights: Sequence[Weights] | None = None) -> Plan:
    """Build the plan of a case, with random weights unless they are given.

    In linear mode nothing bounds the states, so the weights are small.
    """
    dtype = np.dtype(dtype)
    if weights is None:
        weights = init_weights(case.sizes, dtype, seed)
        if case.activation == "linear":
            weights = [w.map(lambda a: a * dtype.type(0.25)) for w in weights]
    return Plan(
        variant=case.variant,
        activation=case.activation,
        input_size=case.input_size,
        hidden_size=case.hidden_size,
        proj_size=case.proj_size,
        num_layers=case.num_layers,
        num_directions=case.num_directions,
        dtype=dtype,
        weights=tuple(weights),
    )


def make_inputs(case: Case, dtype: npt.DTypeLike, seed: int = 0) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Draw x (T, B, I) and the initial states (L*D, B, R or H)."""
    rng = np.random.default_rng((seed, 1))
    x = rng.normal(size=(case.steps, case.batch, case.input_size)).astype(dtype)
    count = case.num_layers * case.num_directions
    sizes = (case.proj_size or case.hidden_size, case.hidden_size)[: len(VARIANTS[case.variant].states)]
    return x, tuple(rng.uniform(-1, 1, (count, case.batch, size)).astype(dtype) for size in sizes)


def make_lengths(case: Case, seed: int = 0) -> np.ndarray:
    """Draw lengths in 0..T, in no order; where the batch allows, 0 and T are among them."""
    rng = np.random.default_rng((seed, 2))
    lengths = np.concatenate([[0, case.steps], rng.integers(0, case.steps + 1, case.batch)])[: case.batch]
    return rng.permutation(lengths).astype(np.int64)


def integer_plan(case: Case, dtype: npt.DTypeLike, seed: int = 0) -> Plan:
    """Build a plan whose weights are one 1 or -1 per row among zeros, and whose biases are -1, 0 or 1.

    In linear mode, with integer inputs, every sum and product of two steps of one layer, or of one step of two layers,
    is exact in float32: any mistaken index or order of gates shows as inequality.
    """
    rng = np.random.default_rng((seed, 3))
    tensors = {}
    for name, shape in expected_shapes(case.sizes).items():
        tensors[name] = rng.integers(-1, 2, shape)
        if len(shape) == 2:
            rows = np.arange(shape[0])
            tensors[name][:] = 0
            tensors[name][rows, rng.integers(0, shape[1], shape[0])] = rng.choice([-1, 1], shape[0])
    return make_plan(case, dtype, weights=check_tensors(tensors, case.sizes, dtype))


def integer_inputs(case: Case, dtype: npt.DTypeLike, seed: int = 0) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Draw x and the initial states from -1, 0, 1."""
    x, state = make_inputs(case, np.float64, seed)
    return np.clip(np.rint(x), -1, 1).astype(dtype), tuple(np.rint(s).astype(dtype) for s in state)


def results(
    plan: Plan, run: Callable[..., None], x: np.ndarray, state: Sequence[np.ndarray], lengths: np.ndarray | None = None
) -> Results:
    """Call a backend's `run` into fresh arrays full of NaN: (y, states)."""
    y = np.full((*x.shape[:2], plan.output_size), np.nan, plan.dtype)
    state_out = tuple(np.full(s.shape, np.nan, plan.dtype) for s in state)
    run(x, state, lengths, y, state_out)
    return y, state_out


def torch_twin(plan: Plan) -> "torch.nn.RNNBase":
    """Build torch's module with the plan's weights."""
    import torch

    case = Case(plan.variant, plan.activation, plan.input_size, plan.hidden_size, plan.num_layers, plan.num_directions)
    options = {
        "num_layers": plan.num_layers,
        "bidirectional": plan.num_directions == 2,
        "bias": plan.weights[0].b_ih is not None,
        "dtype": torch.float64 if plan.dtype == np.float64 else torch.float32,
    }
    if plan.variant == "rnn":
        module = torch.nn.RNN(plan.input_size, plan.hidden_size, nonlinearity=plan.activation, **options)
    elif plan.variant == "gru":
        module = torch.nn.GRU(plan.input_size, plan.hidden_size, **options)
    else:
        module = torch.nn.LSTM(plan.input_size, plan.hidden_size, proj_size=plan.proj_size, **options)
    sizes = case.sizes._replace(proj_size=plan.proj_size, bias=options["bias"])
    module.load_state_dict({name: torch.from_numpy(t) for name, t in state_dict(plan.weights, sizes).items()})
    return module.eval()


def torch_has(case: Case) -> bool:
    """Tell whether torch can express the case."""
    if case.variant == "rnn":
        return case.activation in ("tanh", "relu")
    return case.variant != "gru_before" and case.activation == "standard" and case.proj_size < case.hidden_size


def run_torch(
    module: "torch.nn.RNNBase", x: np.ndarray, state: Sequence[np.ndarray] = (), lengths: np.ndarray | None = None
) -> Results:
    """Run torch's module, by a packed sequence where there are lengths (which torch wants above 0): (y, states)."""
    import torch

    h, *c = [torch.from_numpy(s.copy()) for s in state] or [None]
    hx = (h, *c) if c else h
    inputs = torch.from_numpy(x.copy())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LSTM with projections")  # that oneDNN does not have them
        if lengths is None:
            y, hx = module(inputs, hx)
        else:
            utils, first = torch.nn.utils.rnn, module.batch_first
            packed = utils.pack_padded_sequence(
                inputs, torch.from_numpy(lengths), batch_first=first, enforce_sorted=False
            )
            y, hx = module(packed, hx)
            y, _ = utils.pad_packed_sequence(y, batch_first=first, total_length=x.shape[1 if first else 0])
    return y.numpy(), tuple(h.numpy() for h in (hx if isinstance(hx, tuple) else (hx,)))
