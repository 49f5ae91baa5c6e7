"""The draw of a token, and its independence of everything but the seed."""

import itertools
import math
import threading
from unittest import mock

import numpy as np
import pytest
from generate_cases import KINDS, SAME, make

import fastrnn
from fastrnn import generate, packing, reference
from fastrnn.sampling import Sampling, _mixed, choose, uniform


def test_numbers_are_splitmix64s():
    golden, state = 0x9E3779B97F4A7C15, 1234567
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [_mixed((state + (t + 1) * golden) % 2**64) for t in range(5)] == expected
    assert uniform(7, 3) == (_mixed((_mixed(7) + 4 * golden) % 2**64) >> 11) / 2**53
    numbers = [uniform(seed, t) for seed in range(100) for t in range(100)]
    assert min(numbers) >= 0
    assert max(numbers) < 1
    assert np.histogram(numbers, 10, (0, 1))[0] == pytest.approx(1000, abs=120)


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        (Sampling(1.0, 0, 1.0), [0, 1, 2, 3, 4]),
        (Sampling(0.5, 0, 1.0), [0, 1, 2, 3, 4]),
        (Sampling(1.0, 2, 1.0), [1, 3]),
        (Sampling(1.0, 0, 0.75), [1, 3, 4]),
        (Sampling(1.0, 3, 0.6), [1, 3]),
        (Sampling(1.0, 99, 1.0), [0, 1, 2, 3, 4]),
    ],
    ids=str,
)
def test_draws_follow_the_probabilities(how, kept):
    logits = np.log(np.array([0.06, 0.4, 0.09, 0.25, 0.2])).astype(np.float32)
    drawn = np.bincount([choose(logits, how, seed, 0, reference.activate) for seed in range(20_000)], minlength=5)
    p = np.exp(logits.astype(float) / how.temperature)
    p[np.setdiff1d(np.arange(5), kept)] = 0
    p /= p.sum()
    assert set(np.flatnonzero(drawn)) == set(kept)
    np.testing.assert_allclose(drawn / 20_000, p, atol=4 * math.sqrt(0.25 / 20_000))


def test_of_equals_the_first():
    logits = np.array([1, 3, 3, 2], np.float32)
    for how in (Sampling(0.0, 0, 1.0), Sampling(1.0, 1, 1.0), Sampling(1.0, 0, 0.01), Sampling(1e-50, 0, 1.0)):
        assert {choose(logits, how, seed, 0, reference.activate) for seed in range(50)} == {1}


def test_a_low_temperature_overflows_to_the_largest():
    logits = np.array([-3e38, 3e38, -np.inf], np.float32)
    assert choose(logits, Sampling(1e-30, 0, 1.0), 0, 0, reference.activate) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("top_p", "kept"), [(0.5, {1}), (0.75, {1, 3}), (0.875, {0, 1, 3}), (0.876, {0, 1, 2, 3})])
def test_a_share_that_is_reached_exactly(backend, top_p, kept, dtype):
    logits = dtype(-math.log(2)) * np.array([2, 0, 2, 1])  # probabilities 1/8, 1/2, 1/8, 1/4 without a rounding
    model = make(vocab=4, dtype=dtype, head=(np.zeros((4, 17)), logits))
    assert model.predict([0])[0].tolist() == logits.tolist()
    assert set(model.generate([0], 200, top_p=top_p, seed=0).tolist()) == kept


HOWS = [
    {"temperature": 0},
    {},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.8},
    {"top_k": 9, "top_p": 0.5},
    {"temperature": 0.01},
    {"temperature": 5.0, "top_k": 100, "top_p": 0.9},
    {"top_k": 1},
]


@pytest.mark.parametrize("how", HOWS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_writes_the_same(kind, dtype, how):
    """The compiled loop, and the same in NumPy on all kernels."""
    model = make(kind, vocab=37, dtype=dtype, layers=2)
    prompts = [[1], [5, 3, 36], [], list(range(30))]
    state = [model.predict([[0]] * 4, return_state=True)[1][0]]
    results = []
    for name in SAME:
        with fastrnn.use_backend(name):
            results.append(model.generate(prompts, 25, n=2, seed=3, state=state, **how))
    for other in results[1:]:
        assert all(
            np.array_equal(a, b) for a, b in zip(itertools.chain(*results[0]), itertools.chain(*other), strict=True)
        )


def large(dtype, scale):
    """A model of many tokens, of which some are equally probable; the larger the scale, the more are improbable."""
    vocab, rng = 3001, np.random.default_rng(5)
    weight, bias = rng.normal(size=(vocab, 17)) * scale, np.round(rng.normal(size=vocab) * scale)
    weight[::3] = 0
    return make(vocab=vocab, dtype=dtype, head=(weight, bias, "softmax"))


@pytest.mark.parametrize(
    "how",
    [
        {"top_k": 1},
        {"top_k": 40},
        {"top_k": 1700},
        {"top_k": 3000},
        {"top_p": 0.9},
        {"top_p": 1e-9},
        {"top_p": 1 - 2**-53},
        {"top_k": 2999, "top_p": 1 - 2**-53},
        {"top_k": 60, "top_p": 0.8},
    ],
    ids=str,
)
@pytest.mark.parametrize("scale", [0, 0.01, 1, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_tokens(dtype, scale, how):
    """Compiled draws find the most probable ones among few."""
    model, results = large(dtype, scale), []
    for name in SAME:
        with fastrnn.use_backend(name):
            results.append(model.generate([[1], [2, 3]], 12, seed=3, **how))
    for other in results[1:]:
        assert all(map(np.array_equal, other, results[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_tables_or_none(compiled, kind, monkeypatch):
    """A matrix that is too large for tables has its rows projected at each step."""
    model, without = make(kind), make(kind)
    expected = model.generate([[1], [2, 3]], 40, seed=1)
    assert model.table_bytes > 0
    monkeypatch.setattr(packing, "MOST_TABLE_BYTES", 0)
    assert without.table_bytes == 0
    assert all(map(np.array_equal, without.generate([[1], [2, 3]], 40, seed=1), expected))
    one_hot = make(kind, embedding="one_hot")
    rows = fastrnn.SequenceModel(one_hot.layers, embedding=np.eye(13), head=list(one_hot.head))
    assert all(map(np.array_equal, rows.generate([[1], [2]], 40, seed=1), one_hot.generate([[1], [2]], 40, seed=1)))


def test_every_tier_writes_the_same(monkeypatch):
    native = pytest.importorskip("fastrnn._native")
    results, tier = [], native.tier()
    for name, found in native.tiers().items():
        if found == "ok":
            native.select_tier(name)
            try:
                results.append(make().generate([[1], [2, 3]], 40, seed=1))
            finally:
                native.select_tier(tier)
    assert all(np.array_equal(a, b) for result in results[1:] for a, b in zip(result, results[0], strict=True))


def test_a_row_depends_on_its_seed_alone(compiled):
    model = make()
    four = model.generate([3], 30, n=4, seed=7)
    for k in range(4):
        assert np.array_equal(four[k], model.generate([3], 30, seed=7 + k))
    beside = model.generate([[1, 2], [3], [4, 5, 6]], 30, seed=8)
    assert np.array_equal(beside[1], four[2])
    assert not np.array_equal(four[0], four[1])
    assert np.array_equal(model.generate([3], 12, seed=7), four[0][:12])
    assert np.array_equal(list(model.generate_iter([3], 30, seed=7)), four[0])


def test_generation_is_compiled(compiled):
    """Not the loop in NumPy, which writes the same."""
    model = make()
    with mock.patch.object(generate, "Generator", side_effect=AssertionError):
        model.generate([[3], [4, 5]], 5)


@pytest.mark.parametrize("how", [{}, {"stop": [4, 9]}, {"top_k": 5, "top_p": 0.9}], ids=str)
def test_rows_on_threads_of_numba(how, monkeypatch):
    stepping = pytest.importorskip("fastrnn.numba_kernels.stepping")
    model = make(num_threads=3)
    prompts = [[1], [2, 3], [], [4]]
    state = [model.predict([[0]] * 4, return_state=True)[1][0]]
    with fastrnn.use_backend("numba"):
        expected = model.generate(prompts, 40, n=2, seed=3, state=state, **how)
        monkeypatch.setattr(stepping, "PARALLEL_WORK", 0)
        found = model.generate(prompts, 40, n=2, seed=3, state=state, **how)
        states = model.predict([[1]] * 8, return_state=True)[1]
        states[0][0][:, 5:] = np.nan
        with pytest.raises(ValueError, match="logits of row 5 are NaN"):
            model.generate([[1]] * 8, 4, state=states)
    assert all(map(np.array_equal, itertools.chain(*found), itertools.chain(*expected)))


def test_threads_write_the_same(compiled):
    """Threads share the blocks of every layer, of which one row's head has enough, and the draws."""
    model = make(hidden=512, layers=2, vocab=96, scale=0.3)
    wide = make(hidden=17, vocab=9000, scale=0.3)
    results = []
    for count in (1, 2, 5):
        fastrnn.set_num_threads(count)
        try:
            results.append([*model.generate([[1], [2]], 40, n=3, seed=0), wide.generate([1], 40, top_k=9, seed=0)])
        finally:
            fastrnn.set_num_threads(None)
    assert all(np.array_equal(a, b) for result in results[1:] for a, b in zip(result, results[0], strict=True))


def test_a_failure_is_the_first_row_s_on_any_number_of_threads(compiled):
    model = make(hidden=512, layers=2, vocab=96, scale=0.3)
    states = model.predict([[1]] * 8, return_state=True)[1]
    for h in states[0][0][:, 3], states[0][0][:, 6]:
        h[:] = np.nan
    for count in (1, 2, 5):
        fastrnn.set_num_threads(count)
        try:
            with pytest.raises(ValueError, match="logits of row 3 are NaN"):
                model.generate([[1]] * 8, 4, state=states)
        finally:
            fastrnn.set_num_threads(None)


@pytest.mark.parametrize("hidden", [17, 256])
def test_calls_at_once(compiled, hidden):
    model = make(hidden=hidden)
    expected, results = model.generate([1], 200, seed=1), [None] * 4

    def call(i):
        with fastrnn.use_backend(compiled):
            results[i] = model.generate([1], 200, seed=1)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(result, expected) for result in results)
