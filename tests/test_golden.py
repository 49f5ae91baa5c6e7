"""Every backend and tier against golden.c's bits: whole, in chunks, by rows, on two threads. See golden/make.py."""

import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import assert_close, canonical_nan, results, same_bits

from fastrnn import backends
from fastrnn.backends import Backend
from fastrnn.cells import ARITHMETIC, VARIANTS
from fastrnn.dense import DensePlan
from fastrnn.dense import make_plan as make_dense
from fastrnn.packing import Plan
from fastrnn.weights import Weights

Run = Callable[..., None]
ENGINES = ("numba", *(f"cython-{tier}" for tier in ("generic", "neon", "avx2", "avx512")))
STREAM_X, STREAM_STATES, STREAM_LENGTHS, STREAM_WEIGHTS = 0, (1, 2), 3, 16  # as in golden.c

with np.load(Path(__file__).parent / "golden" / "golden.npz") as _file:
    GOLDEN = dict(_file)
CASES, DENSE = (json.loads(str(GOLDEN[table])) for table in ("cases", "dense"))


def mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x7FEB352D)
    x = (x ^ x >> np.uint32(15)) * np.uint32(0x846CA68B)
    return x ^ x >> np.uint32(16)


def draw(seed: int, stream: int, count: int) -> np.ndarray:
    return mix(mix(np.array([seed * 256 + stream], np.uint32)) + np.arange(count, dtype=np.uint32))


def uniform(case: dict[str, Any], stream: int, shape: tuple[int, ...], shift: int = 0) -> np.ndarray:
    """golden.c's `tensor`: the same integers, and only exact operations on them."""
    high, low = (draw(case["seed"], stream, 2 * int(np.prod(shape))) >> np.uint32(8)).astype(np.int64).reshape(-1, 2).T
    wide = case["dtype"] == "float64"
    value = np.ldexp(high * 2**24 + low - 2**47, -47) if wide else np.ldexp(high - 2**23, -23)
    return np.ldexp(value, -shift).astype(case["dtype"]).reshape(shape)


def make_plan(case: dict[str, Any]) -> Plan:
    g, h, p = len(VARIANTS[case["variant"]].gates), case["H"], case["P"]
    weights = []
    for index in range(case["L"] * case["D"]):
        inputs = case["D"] * (p or h) if index >= case["D"] else case["I"]
        shapes = ((g * h, inputs), (g * h, p or h), (g * h,), (g * h,), (p, h))
        present = (True, True, case["bias"], case["bias"], p)
        weights.append(
            Weights(
                *(
                    uniform(case, STREAM_WEIGHTS + 5 * index + field, shape, case["weight_shift"]) if there else None
                    for field, (shape, there) in enumerate(zip(shapes, present, strict=True))
                )
            )
        )
    dtype = np.dtype(case["dtype"])
    return Plan(case["variant"], case["activation"], case["I"], h, p, case["L"], case["D"], dtype, tuple(weights))


def make_inputs(case: dict[str, Any], plan: Plan) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray | None]:
    x = uniform(case, STREAM_X, (case["T"], case["B"], case["I"]))
    x[case["loud"] :] = 0
    if case["special"]:
        x[1, 0, 0], x[2, 1, 0], x[1, 2, 0] = np.inf, -np.inf, np.nan
    layers = case["L"] * case["D"]
    state = tuple(
        uniform(case, stream, (layers, case["B"], size), case["state_shift"])
        for stream, size in zip(STREAM_STATES, plan.state_sizes, strict=False)
    )
    lengths = (draw(case["seed"], STREAM_LENGTHS, case["B"]) % (case["T"] + 1)).astype(np.int64)
    return x, state, lengths if case["ragged"] else None


def assert_golden(case: dict[str, Any], y: np.ndarray, state: tuple[np.ndarray, ...], how: str) -> None:
    steps = [zlib.crc32(np.ascontiguousarray(step, step.dtype.newbyteorder("<"))) for step in canonical_nan(y)]
    wrong = np.flatnonzero(GOLDEN[f"{case['name']}/y"] != steps)
    assert not wrong.size, f"{how}: y differs at steps {wrong}"
    for name, s in zip("hc", state, strict=False):
        assert same_bits(GOLDEN[f"{case['name']}/{name}"], s), f"{how}: {name} differs"


def load(engine: str, **options: Any) -> Backend:
    """A backend, or one tier of the compiled one, with options; skips what cannot run here and says so."""
    backend, _, tier = engine.partition("-")
    if backend not in backends.available_backends():
        pytest.skip(f"{backend} cannot run here")
    if backend == "numba":
        return backends.load(backend)
    from fastrnn import _native

    if _native.tiers()[tier] != "ok":
        pytest.skip(f"tier {tier}: {_native.tiers()[tier]}")
    layer, *parts = _native.Engine, _native.DenseEngine, _native.activate_rows
    return Backend(partial(layer, tier=tier, **options), *(partial(part, tier=tier) for part in parts))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize("engine", ENGINES)
def test_bits(engine: str, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(case)
    run = load(engine).layer(plan)
    x, state, lengths = make_inputs(case, plan)
    assert_golden(case, *results(plan, run, x, state, lengths), "whole")

    rows = np.split(np.arange(case["B"]), [1, 3]) if case["B"] > 3 else np.arange(case["B"])[:, None]
    parts = [
        results(plan, run, x[:, r], tuple(s[:, r].copy() for s in state), None if lengths is None else lengths[r])
        for r in rows
    ]
    y, states = zip(*parts, strict=True)
    assert_golden(case, np.concatenate(y, 1), tuple(np.concatenate(s, 1) for s in zip(*states, strict=True)), "rows")

    if case["D"] == 1:  # a backward direction needs the whole sequence
        outputs, now = [], state
        for start, stop in ((0, 1), (1, 3), (3, case["T"])):
            part = None if lengths is None else np.clip(lengths - start, 0, stop - start)
            y_part, now = results(plan, run, x[start:stop], now, part)
            outputs.append(y_part)
        assert_golden(case, np.concatenate(outputs), now, "chunks")

    if engine == "numba":  # cases are too small to be shared of themselves
        monkeypatch.setattr("fastrnn.numba_kernels.stepping.PARALLEL_WORK", 0)
        assert_golden(case, *results(plan, partial(run, threads=2), x, state, lengths), "rows on two threads")
        return
    splits = {"rows": (2, 1, 1, False), "units": (1, 1, 2, False), "inputs": (1, 1, 2, True)}
    splits |= {"directions": (1, 2, 1, False)} if case["D"] == 2 else {}
    for how, split in splits.items():
        shared = load(engine, split=split).layer(plan)
        assert_golden(case, *results(plan, shared, x, state, lengths), f"{how} on two threads")


def test_version() -> None:
    assert GOLDEN["arithmetic"] == ARITHMETIC


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["activation"] != "linear"], ids=lambda case: case["name"]
)
def test_reference_is_close(case: dict[str, Any]) -> None:
    """The reference rounds in NumPy's way; this is about golden.c, which nothing else checks."""
    plan = make_plan(case)
    x, state, lengths = make_inputs(case, plan)
    _, final = results(plan, backends.load("reference").layer(plan), x, state, lengths)
    for name, s in zip("hc", final, strict=False):
        golden = GOLDEN[f"{case['name']}/{name}"]
        np.testing.assert_allclose(s, golden, rtol=0, atol=1e-5 if case["dtype"] == "float32" else 1e-13)


def make_dense_case(case: dict[str, Any], activation: str) -> tuple[DensePlan, np.ndarray]:
    k, v, shift = case["I"], case["H"], case["weight_shift"]
    x = uniform(case, STREAM_X, (case["T"], k))
    weight = uniform(case, STREAM_WEIGHTS, (v, k), shift)
    bias = uniform(case, STREAM_WEIGHTS + 2, (v,), shift) if case["bias"] else None
    if case["special"]:
        x[0, 0], x[1, 0], bias[0] = np.inf, np.nan, -np.inf
    return make_dense((weight, bias, None if activation == "linear" else activation), weight.dtype, "layer"), x


def apply(run: Run, plan: DensePlan, x: np.ndarray) -> np.ndarray:
    out = np.full((len(x), plan.output_size), 99, plan.dtype)
    run(x, out)
    return out


@pytest.mark.parametrize("case", DENSE, ids=lambda case: case["name"])
@pytest.mark.parametrize("engine", ENGINES)
def test_dense_bits(engine: str, case: dict[str, Any]) -> None:
    backend, golden = load(engine), GOLDEN[f"{case['name']}/out"]
    plan, x = make_dense_case(case, case["activation"])
    run = backend.dense(plan)
    assert same_bits(apply(run, plan, x), golden), "rows together"
    assert same_bits(np.concatenate([apply(run, plan, row[None]) for row in x]), golden), "rows alone"
    linear, _ = make_dense_case(case, "linear")
    sums = apply(backend.dense(linear), linear, x)
    out = np.full_like(sums, 99)
    backend.activate(case["activation"], sums, out)
    assert same_bits(out, golden), "the function after the sums"
    backend.activate(case["activation"], sums, sums)
    assert same_bits(sums, golden), "in place"


@pytest.mark.parametrize("case", DENSE, ids=lambda case: case["name"])
def test_dense_reference_is_close(case: dict[str, Any]) -> None:
    golden = GOLDEN[f"{case['name']}/out"]
    plan, x = make_dense_case(case, case["activation"])
    out = apply(backends.load("reference").dense(plan), plan, x)
    finite = np.isfinite(golden)
    np.testing.assert_array_equal(out[~finite], golden[~finite])
    assert_close(out[finite], golden[finite], "kernel", plan.dtype)
