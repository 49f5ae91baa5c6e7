"""One answer: the same bits from every backend and tier, whatever the shape, batch, chunks and memory layout."""

import numpy as np
import pytest
from cases import DTYPES, Case, make_inputs, make_lengths, make_plan, results
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_cases import equal

import fastrnn
from fastrnn import backends
from fastrnn.cells import VARIANTS
from fastrnn.packing import Plan

TIERS = ("generic", "neon", "avx2", "avx512")
SIZES = st.sampled_from((1, 2, 3, 8, 15, 16, 17, 31, 33, 37, 64, 65, 80, 129))
settings.register_profile("bits", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("bits")

native = pytest.importorskip("fastrnn._native")


@st.composite
def problems(draw):
    """A plan, x, states and lengths of any shape."""
    variant = draw(st.sampled_from(sorted(VARIANTS)))
    case = Case(
        variant,
        draw(st.sampled_from(VARIANTS[variant].activations)),
        draw(SIZES),
        draw(SIZES),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 2)),
        draw(st.booleans()),
        steps=draw(st.sampled_from((0, 1, 2, 7, 50))),
        batch=draw(st.sampled_from((0, 1, 2, 5, 6, 7, 8, 13, 25, 49))),
    )
    dtype = draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 1000))
    x, state = make_inputs(case, dtype, seed)
    return make_plan(case, dtype, seed), x, state, make_lengths(case, seed) if draw(st.booleans()) else None


@given(problems())
def test_tiers_agree(problem):
    plan, *data = problem
    expected = results(plan, native.Engine(plan, tier="generic"), *data)
    for tier in TIERS:
        if native.tiers()[tier] == "ok":
            assert equal(results(plan, native.Engine(plan, tier=tier), *data), expected), tier


@given(problems(), st.data())
def test_rows_chunks_and_layout(problem, data):
    plan, x, state, lengths = problem
    run = native.Engine(plan)
    whole = results(plan, run, x, state, lengths)

    rows = data.draw(st.lists(st.integers(0, x.shape[1] - 1), unique=True) if x.shape[1] else st.just([]), label="rows")
    part = results(
        plan,
        run,
        np.ascontiguousarray(x[:, rows]),
        tuple(np.ascontiguousarray(s[:, rows]) for s in state),
        None if lengths is None else lengths[rows],
    )
    assert equal(part, (whole[0][:, rows], tuple(s[:, rows] for s in whole[1])))

    if plan.num_directions == 1:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(x)), max_size=4), label="cuts"))
        outputs, now = [], state
        for start, stop in zip([0, *cuts], [*cuts, len(x)], strict=True):
            valid = None if lengths is None else np.clip(lengths - start, 0, stop - start)
            y, now = results(plan, run, x[start:stop], now, valid)
            outputs.append(y)
        assert equal((np.concatenate(outputs), now), whole)

    # batch first, every other step
    strided = np.zeros((x.shape[1], 2 * len(x), x.shape[2]), x.dtype).transpose(1, 0, 2)[::2]
    strided[:] = x
    strided.flags.writeable = False
    assert equal(results(plan, run, strided, state, lengths), whole)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_numba_agrees(variant, dtype):
    if "numba" not in backends.available_backends():
        pytest.skip("numba is not installed")
    for batch, steps, hidden in ((1, 50, 80), (5, 7, 37), (49, 3, 17)):
        case = Case(variant, VARIANTS[variant].activations[0], 20, hidden, 2, 2, steps=steps, batch=batch)
        plan: Plan = make_plan(case, dtype)
        data = (*make_inputs(case, dtype), make_lengths(case))
        assert equal(
            results(plan, backends.load("numba").layer(plan), *data), results(plan, native.Engine(plan), *data)
        )


@pytest.mark.parametrize(("inputs", "steps"), [(67, 24), (67, 25), (67, 35), (402, 35)])
@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_inputs_projected_on_the_way(variant, dtype, inputs, steps):
    """One row with more weights than the nearest cache holds; beside a second row, steps and projection are apart.

    402 inputs of a plain RNN leave Numba no room for them, so that they are projected before.
    """
    case = Case(variant, VARIANTS[variant].activations[0], inputs, 170, 2, 2, steps=steps, batch=2)
    plan = make_plan(case, dtype)
    x, state = make_inputs(case, dtype)
    both = results(plan, native.Engine(plan), x, state)
    for name in set(backends.available_backends()) & {"cython", "numba"}:
        y, last = results(plan, backends.load(name).layer(plan), x[:, 1:], tuple(s[:, 1:].copy() for s in state))
        assert equal((y, last), (both[0][:, 1:], tuple(s[:, 1:] for s in both[1]))), name


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("groups", range(1, 9))
def test_blocks_side_by_side(groups, dtype):
    """One row of an LSTM whose weights are near takes blocks by twos and threes; two rows do not."""
    hidden = groups * 64 // np.dtype(dtype).itemsize - 3
    layer = fastrnn.LSTM(2, hidden, proj_size=2, dtype=dtype).init(groups)
    x = np.random.default_rng(groups).standard_normal((4, 2, 2)).astype(dtype)
    for steps in (1, 4):
        y, (h, c) = layer(x[:steps])
        for name in set(backends.available_backends()) & {"cython", "numba"}:
            with fastrnn.use_backend(name):
                alone, (h_alone, c_alone) = layer(x[:steps, 1:])
            expected = y[:, 1:], (h[:, 1:], c[:, 1:])
            assert equal((alone, (h_alone, c_alone)), expected), name


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_weights_from_the_last_cache(monkeypatch, variant, dtype):
    """One row of 2 to 12 MB of weights, which some processors fetch ahead (C: tests/c), but not beside a second row."""
    case = Case(variant, VARIANTS[variant].activations[0], 133, 1030 if variant == "rnn" else 530, steps=1, batch=2)
    plan = make_plan(case, dtype)
    x, state = make_inputs(case, dtype)
    y, last = results(plan, native.Engine(plan), x, state)
    one = x[:, :1], tuple(s[:, :1].copy() for s in state)
    runs = {tier: native.Engine(plan, tier=tier) for tier in TIERS if native.tiers()[tier] == "ok"}
    if "numba" in backends.available_backends():
        kernels = backends.load("numba")
        for fetches in (False, True):
            monkeypatch.setattr("fastrnn.numba_kernels.fetches_far", lambda answer=fetches: answer)
            runs[f"numba, {fetches}"] = kernels.layer(plan)
    for name, run in runs.items():
        assert equal(results(plan, run, *one), (y[:, :1], tuple(s[:, :1] for s in last))), name


@pytest.mark.parametrize(("variant", "hidden"), [("rnn", 2240), ("lstm", 1085), ("gru", 1265)])
@pytest.mark.parametrize(("steps", "batch"), [(1, 7), (3, 100)])
def test_weights_from_memory(variant, hidden, steps, batch):
    """Several rows of more than 20 MB of weights, which are fetched ahead; inputs of two steps of 100 are projected.

    Of one row weights are not fetched, and the inputs of all steps are projected.
    """
    case = Case(variant, VARIANTS[variant].activations[0], 133, hidden, steps=steps, batch=batch)
    plan = make_plan(case, np.float32)
    assert sum(part.w_x.nbytes + part.w_h.nbytes for part in plan.packed[0]) > 20 << 20
    x, state = make_inputs(case, np.float32)
    run = native.Engine(plan)
    alone = [results(plan, run, x[:, r : r + 1], tuple(s[:, r : r + 1].copy() for s in state)) for r in range(batch)]
    y = np.concatenate([one for one, _ in alone], axis=1)
    last = tuple(np.concatenate(rows, axis=1) for rows in zip(*(states for _, states in alone), strict=True))
    runs = {tier: native.Engine(plan, tier=tier) for tier in TIERS if native.tiers()[tier] == "ok"}
    runs["blocks"] = native.Engine(plan, split=(1, 1, 2, False))
    runs["apart"] = native.Engine(plan, split=(1, 1, 2, True))
    if "numba" in backends.available_backends():
        runs["numba"] = backends.load("numba").layer(plan)
    for name, run in runs.items():
        assert equal(results(plan, run, x, state), (y, last)), name


@pytest.mark.parametrize("name", ["cython", "numba"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_padding(variant, directions, name):
    """y is cleared beyond a length, or left as it is where it is blank; between layers nothing reads it."""
    if name == "numba":
        pytest.importorskip("numba")
    case = Case(variant, VARIANTS[variant].activations[0], 5, 19, 3, directions, steps=40, batch=7)
    plan = make_plan(case, "float32")
    x, state = make_inputs(case, "float32")
    lengths = make_lengths(case)
    beyond = np.arange(case.steps)[:, None] >= lengths
    assert beyond.any()
    prepare = backends.load(name).layer
    expected = results(plan, prepare(plan), x, state, lengths)
    assert not expected[0][beyond].any()
    run = prepare(plan)
    results(plan, run, np.full_like(x, np.nan), state, np.full_like(lengths, case.steps))  # leaves NaN in its workspace
    assert equal(results(plan, run, x, state, lengths), expected)
    y, out = np.full_like(expected[0], 7), tuple(map(np.empty_like, state))
    run(x, state, lengths, y, out, 1, True)
    assert (y[beyond] == 7).all()
    assert equal((np.where(beyond[..., None], 0, y), out), expected)


def test_tier_errors():
    with pytest.raises(ValueError, match="unknown ISA tier 'sse'; accepted: generic, neon, avx2, avx512"):
        native.select_tier("sse")
    for name, state in native.tiers().items():
        if state == "not built":
            with pytest.raises(RuntimeError, match=f"'{name}' is not built into this copy"):
                native.select_tier(name)
        elif state == "cannot run here":
            with pytest.raises(RuntimeError, match=f"'{name}' cannot run here"):
                native.select_tier(name)
