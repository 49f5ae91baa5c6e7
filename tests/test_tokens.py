"""Ids in the place of vectors: the bits of the vectors that they stand for, through tables and without them."""

import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from threading import Barrier

import numpy as np
import pytest
from cases import DTYPES, Case, make_inputs, make_lengths, make_plan, results
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_cases import equal, readonly, strided

from fastrnn import backends, packing
from fastrnn.cells import VARIANTS
from fastrnn.packing import Plan
from fastrnn.weights import Weights

native = pytest.importorskip("fastrnn._native")
SIZES = st.sampled_from((1, 2, 3, 8, 15, 16, 17, 33, 37, 65, 129))
WAYS = ("table", "rows")  # what ids number
PARTS = ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 2), (1, 1, 5))  # by rows, directions, blocks or inputs
SPLITS = [(*parts, apart) for parts in PARTS for apart in (False, True) if parts[2] > 1 or not apart]
DTYPE_NAMES = [np.dtype(dtype).name for dtype in DTYPES]


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Tables, or none because their limit is 0."""
    limit(monkeypatch, request.param)
    return request.param


def limit(monkeypatch, way):
    if way == "rows":
        monkeypatch.setattr(packing, "MOST_TABLE_BYTES", 0)


def embed(case, dtype, vocab, seed=0, weights=None):
    """A plan with so many random rows or with one-hot rows; ids, the vectors that they stand for, states."""
    rng = np.random.default_rng((seed, 4))
    embedding = vocab if vocab == "one_hot" else readonly(rng.normal(size=(vocab, case.input_size)).astype(dtype))
    plan = replace(make_plan(case, dtype, seed, weights), embedding=embedding)
    ids = rng.integers(0, plan.vocab_size, (case.steps, case.batch))
    rows = np.eye(plan.vocab_size, dtype=dtype) if vocab == "one_hot" else embedding
    return plan, ids, rows[ids], make_inputs(case, dtype, seed)[1]


@st.composite
def problems(draw):
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
        batch=draw(st.sampled_from((0, 1, 2, 5, 7, 13, 25, 49))),
    )
    seed = draw(st.integers(0, 1000))
    vocab = draw(st.sampled_from(("one_hot", 1, 2, 60)))
    lengths = make_lengths(case, seed) if draw(st.booleans()) else None
    return *embed(case, draw(st.sampled_from(DTYPES)), vocab, seed), lengths


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems(), st.sampled_from(WAYS), st.sampled_from(SPLITS))
def test_any_shape_tier_and_split(problem, way, split):
    plan, ids, x, state, lengths = problem
    split = (split[0], min(split[1], plan.num_directions), *split[2:])
    for tier in (name for name, found in native.tiers().items() if found == "ok"):
        with pytest.MonkeyPatch.context() as patch:
            limit(patch, way)
            run = native.Engine(plan, tier=tier, split=split)
            expected = results(plan, native.Engine(plan, tier=tier), x, state, lengths)
            assert equal(results(plan, run, ids, state, lengths), expected), tier
            assert run.table_bytes == plan.table_bytes
            assert equal(results(plan, run, x, state, lengths), expected), tier


# Inputs of several runs; one row with weights enough to project vectors on the way; more rows than a tile; odd ones.
SHAPES = ((130, 37, 1, 1, 7, 5), (67, 170, 2, 2, 35, 1), (20, 17, 2, 1, 3, 49), (3, 5, 1, 2, 4, 3))


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPE_NAMES)
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_backends_agree(backend, variant, dtype, way):
    for *sizes, steps, batch in SHAPES:
        case = Case(variant, VARIANTS[variant].activations[0], *sizes, steps=steps, batch=batch)
        for vocab in (9, "one_hot"):
            plan, ids, x, state = embed(case, dtype, vocab)
            for lengths in (None, make_lengths(case)):
                run, vectors = backends.load(backend).layer(plan), native.Engine(plan)
                if backend == "reference":
                    vectors = run
                assert equal(results(plan, run, ids, state, lengths), results(plan, vectors, x, state, lengths)), case


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads(backend, threads, way, monkeypatch):
    if backend == "numba":
        monkeypatch.setattr("fastrnn.numba_kernels.stepping.PARALLEL_WORK", 0)
    case = Case("lstm", "standard", 64, 130, 2, 2, steps=40, batch=13)
    plan, ids, x, state = embed(case, np.float32, 96)
    run = backends.load(backend).layer(plan)
    expected = results(plan, run, x, state, make_lengths(case))

    def on_threads(*args):
        run(*args, threads)

    assert equal(results(plan, on_threads, ids, state, make_lengths(case)), expected)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_rows_of_a_table_that_are_fetched_ahead(variant):
    case = Case(variant, VARIANTS[variant].activations[0], 5, 70, 1, 2, steps=6, batch=9)
    plan, ids, x, state = embed(case, np.float32, 6000)  # beyond NEAR_TABLE of _loop.pxi
    assert plan.table_bytes > 2 * 6000 * 70 * 4
    for lengths in (None, make_lengths(case)):
        expected = results(plan, native.Engine(plan), x, state, lengths)
        for tier in (name for name, found in native.tiers().items() if found == "ok"):
            for split in SPLITS:
                run = native.Engine(plan, tier=tier, split=split)
                assert equal(results(plan, run, ids, state, lengths), expected), (tier, split)


def test_rows_and_layout(backend, way):
    case = Case("gru", "standard", 20, 37, 2, 2, steps=9, batch=7)
    plan, ids, x, state = embed(case, np.float32, 11)
    run = backends.load(backend).layer(plan)
    lengths = make_lengths(case)
    whole = results(plan, run, x, state, lengths)
    batch_first = np.ascontiguousarray(ids.T).T
    for given_ids in (ids, batch_first, strided(ids), readonly(ids), ids[::-1].copy()[::-1], np.asfortranarray(ids)):
        assert equal(results(plan, run, given_ids, state, lengths), whole)
    for row in range(case.batch):
        alone = results(
            plan, run, ids[:, row : row + 1], tuple(s[:, row : row + 1].copy() for s in state), lengths[row : row + 1]
        )
        assert equal(alone, (whole[0][:, row : row + 1], tuple(s[:, row : row + 1] for s in whole[1])))


def special(case, dtype, values, seed=0):
    """Weights of a case with some of these values here and there."""
    rng = np.random.default_rng((seed, 5))

    def some(w):
        w = w.copy()
        chosen = rng.random(w.shape) < 0.1
        w[chosen] = rng.choice(np.array(values, dtype), int(chosen.sum()))
        return w

    return [w._replace(w_ih=some(w.w_ih), b_ih=some(w.b_ih)) for w in make_plan(case, dtype, seed).weights]


@pytest.mark.parametrize("values", [[-0.0, 0.0], [np.inf], [np.inf, -np.inf, np.nan]], ids=["zeros", "inf", "all"])
@pytest.mark.parametrize("variant", ["rnn", "lstm", "gru", "gru_before"])
def test_special_weights(variant, values, way):
    """Zeros of either sign, and what is not finite: one-hot rows multiply every other column by zero."""
    for inputs in (1, 3, 17, 300):
        case = Case(variant, VARIANTS[variant].activations[0], inputs, 20, steps=4, batch=5)
        for vocab in (7, "one_hot"):
            plan, ids, x, state = embed(case, np.float32, vocab, weights=special(case, np.float32, values))
            if vocab != "one_hot":
                rows = special(Case("rnn", "tanh", inputs, vocab), np.float32, values)[0].w_ih
                plan = replace(plan, embedding=rows)
                x = rows[ids]
            for name in set(backends.available_backends()) & {"cython", "numba"}:
                run = backends.load(name).layer(plan)
                assert equal(results(plan, run, ids, state), results(plan, native.Engine(plan), x, state)), name


def test_negative_zeros_begin_sums():
    """b = -0 and a column of -0: the direct sum is +0, and 1 / h tells."""
    ones, zeros = np.ones((1, 1), np.float32), np.full((1, 1), -0.0, np.float32)
    plan = make_plan(Case("rnn", "linear", 1, 1), np.float32, weights=[Weights(zeros, ones, -np.zeros(1, np.float32))])
    for embedding in ("one_hot", ones):
        run = native.Engine(replace(plan, embedding=embedding))
        start = (np.full((1, 1, 1), -0.0, np.float32),)
        expected = results(plan, run, np.ones((1, 1, 1), np.float32), start)
        assert equal(results(plan, run, np.zeros((1, 1), np.int64), start), expected)
        assert not np.signbit(expected[0]).any()


def test_memory_is_bounded_and_reported(monkeypatch):
    case = Case("gru_before", "standard", 5, 17, 2, 2)
    plan, ids, x, state = embed(case, np.float64, 6)
    rows = 2 * 6 * 3 * 24 * 8  # directions, ids, gates, units in whole groups, bytes
    assert plan.table_bytes == rows
    run = native.Engine(plan)
    results(plan, run, x, state)
    assert run.table_bytes == 0, "made before ids came"
    results(plan, run, ids, state)
    assert run.table_bytes == rows

    monkeypatch.setattr(packing, "MOST_TABLE_BYTES", rows)
    assert plan.table_bytes == rows
    monkeypatch.setattr(packing, "MOST_TABLE_BYTES", rows - 1)
    assert plan.table_bytes == 0
    run = native.Engine(plan)
    results(plan, run, ids, state)
    assert run.table_bytes == 0

    plan, ids, x, state = embed(case, np.float64, "one_hot")
    assert plan.table_bytes == sum(part.w_x.nbytes for parts in plan.packed[:2] for part in parts)
    assert replace(plan, embedding=None).table_bytes == 0


def test_first_calls_at_once(backend, way):
    case = Case("lstm", "standard", 40, 64, steps=5, batch=2)
    plan, ids, x, state = embed(case, np.float32, 500)
    expected = results(plan, backends.load(backend).layer(plan), x, state)
    for _ in range(5):
        run, together = backends.load(backend).layer(plan), Barrier(8)

        def first_call(run=run, together=together):
            together.wait()
            return [equal(results(plan, run, given, state), expected) for given in (ids, x, ids)]

        with ThreadPoolExecutor(8) as pool:
            assert all(all(found.result()) for found in [pool.submit(first_call) for _ in range(8)])


@pytest.mark.parametrize("place", ["tables", "vocab_size"])
def test_another_first_call_within_the_first_one(place):
    """As if threads changed where Python code runs: what the other call has made stays: its kernels may run."""
    made, others = [], []

    def change(plan, here):
        if here == place and made and not others:
            others.append("one is enough")
            results(plan, run, ids, state)

    class Watched(Plan):
        def tables(self, project):
            tables = super().tables(project)
            made.append(weakref.ref(tables[0][0]))
            change(self, "tables")
            return tables

        @property
        def vocab_size(self):
            change(self, "vocab_size")
            return super().vocab_size

    plan, ids, x, state = embed(Case("lstm", "standard", 40, 64, steps=5, batch=2), np.float32, 500)
    watched = Watched(**{field.name: getattr(plan, field.name) for field in fields(plan)})
    run = native.Engine(watched)
    assert equal(results(plan, run, ids, state), results(plan, run, x, state))
    assert made[-1]() is not None


def test_without_an_embedding():
    plan, ids, _, state = embed(Case("rnn", "tanh", 3, 4), np.float32, "one_hot")
    for name in set(backends.available_backends()) & {"cython", "numba"}:
        with pytest.raises(ValueError, match="x is ids, and the plan has no embedding"):
            results(plan, backends.load(name).layer(replace(plan, embedding=None)), ids, state)


@pytest.mark.parametrize("vocab", [4, "one_hot"])
def test_plans_keep_their_embedding(vocab):
    plan, ids, _, state = embed(Case("gru", "standard", 3, 4), np.float32, vocab)
    expected = results(plan, native.Engine(plan), ids, state)
    copy = pickle.loads(pickle.dumps(plan))
    assert equal(results(copy, native.Engine(copy), ids, state), expected)
    wide = plan.astype(np.float64)
    assert wide.vocab_size == plan.vocab_size
    y, _ = results(wide, native.Engine(wide), ids, tuple(s.astype(np.float64) for s in state))
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, expected[0], atol=1e-6)
