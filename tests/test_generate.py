"""Generation and score: the draw, its independence of everything but the seed, and what prompts and options mean."""

import itertools
import math
import signal
import threading
from unittest import mock

import numpy as np
import pytest
from layer_cases import peak_of

import fastrnn
from fastrnn import backends, generate, packing, reference
from fastrnn.sampling import Sampling, _mixed, choose, uniform

SAME = [name for name in fastrnn.available_backends() if name != "reference"]  # backends of equal bits
TEXT = "the cat sat on the mat. the dog sat on the log."


KINDS = {
    "rnn": (fastrnn.RNN, {}),
    "lstm": (fastrnn.LSTM, {}),
    "lstm_proj": (fastrnn.LSTM, {"proj_size": 6}),
    "gru": (fastrnn.GRU, {}),
    "gru_before": (fastrnn.GRU, {"reset_after": False}),
}


@pytest.fixture(params=SAME)
def compiled(request):
    """The name of a backend whose generation is compiled, which all layers of this test run on, in this thread."""
    with fastrnn.use_backend(request.param):
        yield request.param


def make(
    kind="lstm",
    vocab=13,
    hidden=17,
    seed=0,
    embedding=None,
    layers=1,
    dtype=None,
    scale=2.0,
    head=None,
    num_threads=None,
    **given,
):
    """A model whose next token is uncertain and depends on the state."""
    rng = np.random.default_rng(seed)
    cell, options = KINDS[kind]
    matrix = rng.normal(size=(vocab, 5)) if embedding is None else embedding
    size = vocab if embedding is not None else 5
    chain = [cell(size, hidden, layers, dtype=dtype, num_threads=num_threads, **options).init(seed)]
    weight = rng.normal(size=(vocab, options.get("proj_size", hidden))) * scale
    head = (weight, rng.normal(size=vocab) / 2, "softmax") if head is None else head
    return fastrnn.SequenceModel(chain, embedding=matrix, head=head, **given)


def text_model(**given):
    vocabulary = fastrnn.Vocabulary.from_text(TEXT, **given)
    return make(vocab=len(vocabulary), vocabulary=vocabulary)


# The draw -------------------------------------------------------------------------------------------------------------


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


# What is written ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", fastrnn.available_backends())
@pytest.mark.parametrize("activation", ["softmax", "log_softmax", None])
def test_greedy_is_the_argmax_of_predict(backend, activation):
    rng = np.random.default_rng(0)
    head = [fastrnn.Dense(rng.normal(size=(9, 17)), None, "tanh"), (rng.normal(size=(13, 9)) * 3, None, activation)]
    with fastrnn.use_backend(backend):
        model = make(head=head)
        ids = [4, 2]
        for _ in range(12):
            ids.append(int(model.predict(ids)[-1].argmax()))
        assert model.generate([4, 2], 12, temperature=0).tolist() == ids[2:]


def test_dense_layers_between(compiled):
    rng = np.random.default_rng(0)
    chain = [
        fastrnn.GRU(5, 16).init(),
        fastrnn.Dense(rng.normal(size=(7, 16)), None, "relu"),
        fastrnn.LSTM(7, 9, proj_size=4).init(),
        fastrnn.Dense(rng.normal(size=(3, 4)), None, "tanh"),
    ]
    model = fastrnn.SequenceModel(chain, embedding=rng.normal(size=(11, 5)), head=(rng.normal(size=(11, 3)) * 9,))
    ids = [4, 2]
    for _ in range(12):
        ids.append(int(model.predict(ids)[-1].argmax()))
    assert model.generate([4, 2], 12, temperature=0).tolist() == ids[2:]
    _, state = model.predict([4, 2], return_state=True)
    assert model.generate([], 12, temperature=0, state=state).tolist() == ids[2:]


def test_a_state_goes_on():
    model = make("gru", embedding="one_hot")
    whole = model.generate([1, 2, 3], 20, temperature=0)
    _, state = model.predict([1, 2], return_state=True)
    assert np.array_equal(model.generate([3], 20, temperature=0, state=state), whole)
    _, state = model.predict([1, 2, 3], return_state=True)
    assert np.array_equal(model.generate([], 20, temperature=0, state=state), whole)
    before = state[0].copy()
    model.generate([], 20, state=state)
    assert np.array_equal(state[0], before)


def test_a_long_prompt_is_read_in_chunks():
    model = make()
    ids = np.random.default_rng(0).integers(0, 13, 1300)
    _, state = model.predict(ids[:-1], return_state=True)
    assert np.array_equal(model.generate(ids, 20, seed=0), model.generate(ids[-1:], 20, seed=0, state=state))


@pytest.mark.parametrize("backend", fastrnn.available_backends())
def test_a_stop_ends_a_row_and_is_left_out(backend):
    with fastrnn.use_backend(backend):
        model = make()
        whole = model.generate([[1], [2], [3]], 60, seed=5)
        stopped = model.generate([[1], [2], [3]], 60, seed=5, stop=[4, 9])
        assert any(len(row) < 60 for row in stopped)
        for row, short in zip(whole, stopped, strict=True):
            ends = np.flatnonzero(np.isin(row, [4, 9]))
            assert np.array_equal(short, row[: ends[0]] if len(ends) else row)
        assert np.array_equal(model.generate([2], 60, seed=6, stop=4), model.generate([2], 60, seed=6, stop=[4]))


def test_kinds_of_prompts():
    model = text_model(start="<s>", stop="<e>")
    text = model.generate("the ", 15, seed=1)
    assert isinstance(text, str)
    assert len(text) <= 15
    assert model.generate(["the ", "a"], 15, seed=1)[0] == text
    ids = model.generate(model.vocabulary.encode("the "), 15, seed=1)
    assert ids.dtype == np.int64
    assert model.vocabulary.decode(ids) == text
    both = model.generate([model.vocabulary.encode("the "), [3]], 15, n=2, seed=1)
    assert [len(rows) for rows in both] == [2, 2]
    assert np.array_equal(both[0][0], ids)
    matrix = model.generate(np.array([[1, 2], [3, 4]]), 5, seed=0)
    assert np.array_equal(matrix[1], model.generate([3, 4], 5, seed=1))
    assert model.generate([], 4, seed=0).shape[0] <= 4  # no ids: from the start token
    assert model.generate("", 9, seed=2) == model.vocabulary.decode(model.generate([0], 9, seed=2))
    assert model.generate("the ", 0) == ""
    assert model.generate(np.empty((0, 3), int), 5) == []


def test_special_tokens_are_not_text():
    model = text_model(start="<s>", stop="<e>", pad="<p>")
    for seed in range(20):
        assert "<" not in model.generate("t", 50, seed=seed)


@pytest.mark.parametrize(
    ("unit", "text"), [("char", TEXT), ("word", TEXT), ("byte", "你好, naïve café 你好"), ("char", "你好世界")]
)
def test_pieces_are_the_text(unit, text):
    vocabulary = fastrnn.Vocabulary.from_text(text, unit)
    model = make(vocab=len(vocabulary), vocabulary=vocabulary)
    for seed in range(5):
        pieces = list(model.generate_iter(text, 40, seed=seed))
        assert "".join(pieces) == model.generate(text, 40, seed=seed)
        assert all(pieces)


def test_a_vocabulary_of_one():
    model = make(vocab=1)
    assert model.generate([0], 5, seed=0).tolist() == [0] * 5
    assert model.score([0, 0, 0]) == 0


def test_new_seeds_each_time():
    model = make(vocab=37)
    assert len({tuple(model.generate([1], 50)) for _ in range(4)}) == 4


def test_ctrl_c_stops_it(compiled):
    model = make(vocab=200, hidden=200)
    model.generate([1], 1)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs inherit that it is ignored
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            model.generate([1], 10**9)
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGINT, before)


# Score ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", fastrnn.available_backends())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_score(backend, dtype):
    model = make(dtype=dtype)
    ids = np.random.default_rng(0).integers(0, 13, 1100)
    with fastrnn.use_backend("reference"):
        p = model.predict(ids[:-1]).astype(float)
    expected = -np.log2(p[np.arange(len(p)), ids[1:]]).mean()
    with fastrnn.use_backend(backend):
        assert model.score(ids) == pytest.approx(expected, rel=1e-5 if dtype == np.float32 else 1e-12)
        _, state = model.predict(ids[:50], return_state=True)
        total = model.score(ids[:51]) * 50 + model.score(ids[50:], state=state) * (len(ids) - 51)
        assert total / (len(ids) - 1) == pytest.approx(model.score(ids))


def test_score_of_text():
    model = text_model()
    assert model.score(TEXT) == model.score(model.vocabulary.encode(TEXT))


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", fastrnn.available_backends())
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite(backend, bad):
    rng = np.random.default_rng(0)
    model = make(head=(np.full((13, 17), bad), None))
    healthy = make(head=(rng.normal(size=(13, 17)), None))
    with fastrnn.use_backend(backend):
        for how in ({}, {"temperature": 0}):
            with pytest.raises(ValueError, match="logits of row 0 are NaN or infinite"):
                model.generate([1], 5, **how)
        with pytest.raises(ValueError, match="NaN or infinite"):
            model.score([1, 2, 3])
        state = healthy.predict([1], return_state=True)[1]
        state[0][0][:] = np.nan
        with pytest.raises(ValueError, match="logits of row 0 are NaN or infinite"):
            healthy.generate([], 5, state=state)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_tokens": -1}, ValueError, "max_tokens must be an int >= 0, got -1"),
        ({"max_tokens": 1.5}, TypeError, "max_tokens must be an int >= 0, got 1.5"),
        ({"n": 0}, ValueError, "n must be an int >= 1, got 0"),
        ({"temperature": -1}, ValueError, r"temperature must be a finite number >= 0, got -1"),
        ({"temperature": np.nan}, ValueError, "temperature must be a finite number >= 0, got nan"),
        ({"temperature": np.inf}, ValueError, "temperature must be a finite number >= 0, got inf"),
        ({"temperature": "hot"}, TypeError, "temperature must be a finite number >= 0, got 'hot'"),
        ({"top_k": 0}, ValueError, "top_k must be an int >= 1, got 0"),
        ({"top_p": 0}, ValueError, r"top_p must be a number in \(0, 1\], got 0"),
        ({"top_p": 1.5}, ValueError, r"top_p must be a number in \(0, 1\], got 1.5"),
        ({"seed": -1}, ValueError, "seed must be an int >= 0, got -1"),
        ({"stop": 13}, ValueError, r"stop must be in 0..12, got 13"),
        ({"stop": "x"}, ValueError, "stop 'x' needs a model with a vocabulary: give its id"),
        ({"stop": 1.5}, TypeError, "stop must be a token, an id, or a list of them, got 1.5"),
        ({"prompt": "text"}, ValueError, "prompt is a text, and the model has no vocabulary"),
        ({"prompt": [99]}, ValueError, r"prompt must hold ids in 0..12, got 99"),
        ({"prompt": [[1], [2, -1]]}, ValueError, r"prompt\[1\] must hold ids in 0..12, got -1"),
        ({"prompt": [1.5]}, TypeError, "prompt must hold ids as integers, got dtype float64"),
        ({"prompt": []}, ValueError, "an empty prompt needs a vocabulary with a start token, or state="),
        ({"state": 3}, TypeError, "state must be a list"),
    ],
    ids=str,
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        make().generate(**({"prompt": [1], "max_tokens": 5} | options))


def test_wrong_models_and_texts():
    both = fastrnn.GRU(5, 4, bidirectional=True).init()
    with pytest.raises(fastrnn.UnsupportedError, match="bidirectional"):
        fastrnn.SequenceModel(both, embedding="one_hot", head=(np.ones((5, 8)),)).generate([1], 3)
    layer = fastrnn.GRU(5, 4).init()
    with pytest.raises(ValueError, match="needs a head whose last layer has V = 5 numbers, one for each id, got 6"):
        fastrnn.SequenceModel(layer, embedding="one_hot", head=(np.ones((6, 4)),)).generate([1], 3)
    with pytest.raises(ValueError, match="needs a head that ends in softmax, log_softmax or no activation, got 'tanh'"):
        fastrnn.SequenceModel(layer, embedding="one_hot", head=(np.ones((5, 4)), None, "tanh")).generate([1], 3)
    with pytest.raises(ValueError, match="needs a head"):
        fastrnn.SequenceModel(layer, embedding="one_hot").score([1, 2])
    with pytest.raises(ValueError, match="needs an embedding"):
        fastrnn.SequenceModel(layer, head=(np.ones((5, 4)),)).generate([1], 3)
    with pytest.raises(ValueError, match="text must have two tokens at least"):
        make().score([1])
    with pytest.raises(TypeError, match="one prompt"):
        make().generate_iter([[1], [2]], 5)
    with pytest.raises(TypeError, match="'n'"):
        make().generate_iter([1], 5, n=2)
    with pytest.raises(ValueError, match=r"stop '\?' is not in the vocabulary"):
        text_model().generate("the", 5, stop="?")
    unloaded = fastrnn.SequenceModel(fastrnn.GRU(5, 4), embedding="one_hot", head=(np.ones((5, 4)),))
    with pytest.raises(ValueError, match="no weights"):
        unloaded.generate([1], 3)


def test_backends_are_known():
    """The compiled loop runs where it can."""
    if "cython" in SAME:
        from fastrnn import _native
        from fastrnn.generate import Logits

        model = make()
        states = [tuple(s.copy() for s in model._given(None, 1, False)[0])]
        settings = (
            Sampling(1.0, 0, 1.0),
            np.zeros(1, np.uint64),
            np.zeros(0, np.int64),
            np.zeros(1, np.int64),
            np.zeros(1, np.int64),
            5,
        )
        assert isinstance(Logits(model).generator(states, *settings), _native.Generator)
    assert set(SAME) < set(backends._LOADERS)


def test_one_long_prompt_costs_the_others_nothing(backend):
    head = np.random.default_rng(0).normal(size=(8, 16))
    model = fastrnn.SequenceModel(fastrnn.GRU(8, 16).init(seed=0), embedding="one_hot", head=(head,))
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 8, size) for size in (1, 1500, 2, 513, *[1] * 500)]
    model.generate(prompts[:2], 2, temperature=0)
    results: list = []
    assert peak_of(lambda: results.extend(model.generate(prompts, 2, temperature=0))) < 4e6  # of 16 MB, with padding
    assert all(map(np.array_equal, results, [model.generate(prompt, 2, temperature=0) for prompt in prompts]))


@pytest.mark.parametrize("given", [["ab", np.str_("ba")], [np.str_("ab"), "ba"]])
def test_strings_of_numpy(given):
    vocabulary = fastrnn.Vocabulary.from_text("ab")
    layer = fastrnn.GRU(2, 2).init(seed=0)
    model = fastrnn.SequenceModel(layer, embedding="one_hot", head=(np.eye(2),), vocabulary=vocabulary)
    assert model.generate(given, 3, seed=1) == model.generate(list(map(str, given)), 3, seed=1)
