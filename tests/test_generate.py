"""Generation and score: what prompts and options mean, and what is written."""

import signal
import threading

import numpy as np
import pytest
from generate_cases import SAME, TEXT, make, text_model
from layer_cases import peak_of

import fastrnn
from fastrnn import backends
from fastrnn.sampling import Sampling

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
    with pytest.raises(fastrnn.UnsupportedError, match="a model that writes goes forward only, and GRU"):
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
