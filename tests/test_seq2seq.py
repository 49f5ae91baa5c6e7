"""Sequence to sequence: greedy, sampled and beam, against plain loops over `predict`; bridges; errors."""

import itertools

import numpy as np
import pytest
from layer_cases import peak_of

import fastrnn
from fastrnn.seq2seq import _least

SAME = [name for name in fastrnn.available_backends() if name != "reference"]
LAYERS = {"rnn": fastrnn.RNN, "lstm": fastrnn.LSTM, "gru": fastrnn.GRU}


def make(kind="gru", vocab=5, hidden=9, layers=1, dtype=None, scale=2.0, start=0, stop=1, **given):
    rng = np.random.default_rng(3)
    cell = LAYERS[kind]
    encoder = fastrnn.SequenceModel(cell(4, hidden, layers, dtype=dtype).init(1), embedding=rng.normal(size=(7, 4)))
    head = (rng.normal(size=(vocab, hidden)) * scale, rng.normal(size=vocab) / 4, "softmax")
    decoder = cell(3, hidden, layers, dtype=dtype).init(2)
    decoder = fastrnn.SequenceModel(decoder, embedding=rng.normal(size=(vocab, 3)), head=head)
    return fastrnn.Seq2Seq(encoder, decoder, start=start, stop=stop, **given)


def log_p(model, state, ids):
    """log p of ids, with the stop if it is there, from the decoder's `predict`."""
    p = model.decoder.predict([model._start, *ids[:-1]], state=state)
    return np.log(p[np.arange(len(ids)), ids].astype(float)).sum()


@pytest.mark.parametrize("backend", fastrnn.available_backends())
@pytest.mark.parametrize(("kind", "layers"), [("rnn", 1), ("lstm", 2), ("gru", 1)])
def test_greedy(backend, kind, layers):
    model = make(kind, layers=layers)
    x = [[5, 3, 2, 6], [1, 1, 0, 0], [4, 4, 4, 0]]
    lengths = [4, 2, 3]
    with fastrnn.use_backend(backend):
        results = model.generate(x, 8, lengths=lengths)
        for row, length, result in zip(x, lengths, results, strict=True):
            _, state = model.encoder.predict(row[:length], return_state=True)
            ids = []
            while len(ids) < 8 and model._stop not in ids:
                ids.append(int(model.decoder.predict([0, *ids], state=state)[-1].argmax()))
            assert result.tolist() == [i for i in ids if i != model._stop]
            assert np.array_equal(model.generate(row[:length], 8), result)


def test_drawn_rows_depend_on_their_seed_alone():
    model = make("lstm")
    x = np.array([[5, 3], [2, 6], [1, 1]])
    results = []
    for backend in SAME:
        with fastrnn.use_backend(backend):
            results.append(model.generate(x, 30, temperature=1.0, top_k=4, seed=5))
            for k, row in enumerate(x):
                assert np.array_equal(results[-1][k], model.generate(row, 30, temperature=1.0, top_k=4, seed=5 + k))
    for other in results[1:]:
        assert all(map(np.array_equal, results[0], other))


@pytest.mark.parametrize("penalty", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_wide_beam_finds_the_best(kind, penalty):
    """Against every result there is."""
    model, most = make(kind, vocab=4, scale=1.0), 4
    x = [[5, 3, 2], [6, 0, 1]]
    found = model.generate(x, most, beam=4**most, length_penalty=penalty)
    for row, result in zip(x, found, strict=True):
        _, state = model.encoder.predict(row, return_state=True)
        best = max(
            (
                [*ids, 1] if count < most else ids
                for count in range(most + 1)
                for ids in map(list, itertools.product([0, 2, 3], repeat=count))
            ),
            key=lambda ids: log_p(model, state, ids) / len(ids) ** penalty,
        )
        assert result.tolist() == [i for i in best if i != 1]


def test_a_beam_of_two():
    """By hand: at each step the two best of all continuations."""
    model = make(vocab=6, scale=1.5)
    x = [5, 3, 2]
    _, state = model.encoder.predict(x, return_state=True)
    kept = [([], 0.0)]
    for _ in range(5):
        following = [(ids, score) for ids, score in kept if ids[-1:] == [1]]
        for ids, _ in kept:
            if ids[-1:] != [1]:
                following += [([*ids, v], log_p(model, state, [*ids, v])) for v in range(6)]
        kept = sorted(following, key=lambda result: -result[1])[:2]
    assert model.generate(x, 5, beam=2).tolist() == [i for i in kept[0][0] if i != 1]


@pytest.mark.parametrize("count", [1, 2, 37, 999, 1000])
def test_the_least_numbers_are_those_of_a_stable_sort(count):
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(size=(5, 1000)) * [[1e-3], [1], [30], [1000], [1]])
    values[4, rng.random(1000) < 0.999] = np.nan
    values[1:4, ::5] = np.inf
    assert np.array_equal(_least(values, count), np.argsort(values, axis=1, kind="stable")[:, :count])


@pytest.mark.parametrize("backend", SAME)
def test_beams_have_the_same_results_everywhere(backend):
    model = make("lstm", vocab=9, layers=2)
    x = np.random.default_rng(0).integers(0, 7, (5, 6))
    expected = model.generate(x, 12, beam=3, length_penalty=0.5)
    with fastrnn.use_backend(backend):
        assert all(map(np.array_equal, model.generate(x, 12, beam=3, length_penalty=0.5), expected))
        for row, result in zip(x, expected, strict=True):
            assert np.array_equal(model.generate(row, 12, beam=3, length_penalty=0.5), result)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_bridges(kind):
    rng = np.random.default_rng(0)
    encoder = LAYERS[kind](4, 6, 2, bidirectional=True).init(1)
    decoder = fastrnn.SequenceModel(
        LAYERS[kind](3, 5, 2).init(2), embedding=rng.normal(size=(4, 3)), head=(rng.normal(size=(4, 5)) * 3,)
    )
    weight, bias = rng.normal(size=(10, 12)), rng.normal(size=10)
    dense = fastrnn.Seq2Seq(encoder, decoder, start=0, stop=1, bridge=fastrnn.Dense(weight, bias, "tanh"))

    def bridge(states):
        ((h, c),) = states if kind == "lstm" else ((states[0], None),)

        def state(s):
            rows = np.concatenate([s[2], s[3]], 1)  # the last layer's two directions
            return np.tanh(rows @ weight.T + bias).reshape(-1, 2, 5).transpose(1, 0, 2)

        return [(state(h), state(c)) if kind == "lstm" else state(h)]

    function = fastrnn.Seq2Seq(encoder, decoder, start=0, stop=1, bridge=bridge)
    x = rng.normal(size=(3, 7, 4)).astype(np.float32)
    results = dense.generate(x, 9, lengths=[7, 0, 3])
    assert all(map(np.array_equal, results, function.generate(x, 9, lengths=[7, 0, 3])))
    assert np.array_equal(dense.generate(x[2, :3], 9), results[2])


def test_beams_that_have_ended_may_overflow(backend):
    """They are fed on beside the others, and the state of this decoder grows tenfold with every token."""
    make = fastrnn.RNN.from_weights
    one, ten = np.ones((1, 1)), np.full((1, 1), 10.0)
    head = np.array([[0.0], [195.0], [0.0], [0.0]]), np.array([-500.0, -200.0, 0.0, -500.0])
    embedding = np.array([[1.0], [0.0], [-1e30], [0.0]])
    decoder = fastrnn.SequenceModel(make(one, ten, nonlinearity="relu"), embedding=embedding, head=head)
    model = fastrnn.Seq2Seq(make(one, 0 * one, nonlinearity="relu"), decoder, start=0, stop=1)
    x = np.zeros((1, 1), np.float32)
    assert model.generate(x, 60, beam=2).tolist() == model.generate(x, 60).tolist() == [2] * 60


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (None, TypeError, r"bridge\(states\) must be a list with one hx for each recurrent layer, 1 in all, got None"),
        ([], ValueError, r"bridge\(states\) must be a list with one hx .* got 0 elements"),
        (
            [np.zeros((1, 9, 7))],
            ValueError,
            r"bridge\(states\)\[0\] is \(1, 9, 7\), expected \(L\*D, B, H\) = \(1, 2, 7\)",
        ),
        ([np.zeros((1, 1, 7))], ValueError, r"bridge\(states\)\[0\] is \(1, 1, 7\), expected"),
    ],
)
def test_what_a_bridge_must_return(given, error, message):
    rng = np.random.default_rng(0)
    decoder = fastrnn.SequenceModel(
        fastrnn.GRU(2, 7).init(), embedding=rng.normal(size=(4, 2)), head=(rng.normal(size=(4, 7)),)
    )
    model = fastrnn.Seq2Seq(fastrnn.GRU(3, 5).init(), decoder, start=0, stop=1, bridge=lambda states: given)
    with pytest.raises(error, match=message):
        model.generate(np.zeros((2, 4, 3)), 3)


def test_texts():
    letters = fastrnn.Vocabulary.from_text("abcdefg", unknown="?")
    sounds = fastrnn.Vocabulary(["<s>", "</s>", "A", "E", "X"], unit="word", start="<s>", stop="</s>")
    rng = np.random.default_rng(0)
    encoder = fastrnn.SequenceModel(fastrnn.GRU(8, 6).init(1), embedding="one_hot", vocabulary=letters)
    decoder = fastrnn.SequenceModel(
        fastrnn.GRU(5, 6).init(2), embedding="one_hot", head=(rng.normal(size=(5, 6)) * 3,), vocabulary=sounds
    )
    model = fastrnn.Seq2Seq(encoder, decoder, start="<s>", stop="</s>")
    results = model.generate(["bad", "cafe", ""], 6)
    assert all(isinstance(result, str) and set(result.split()) <= {"A", "E", "X"} for result in results)
    assert model.generate("cafe", 6) == results[1]
    assert sounds.decode(model.generate(letters.encode("cafe"), 6)) == results[1]
    assert model.generate(["cafe", "bad"], 6, beam=3)[0] == model.generate("cafe", 6, beam=3)
    with pytest.raises(ValueError, match="texts have their own"):
        model.generate(["a"], 5, lengths=[1])
    with pytest.raises(ValueError, match="texts have their own"):
        model.generate("a", 5, lengths=1)


@pytest.mark.parametrize("dtypes", [("float64", "float32"), ("float32", "float64")], ids="-".join)
def test_a_bridge_between_dtypes(backend, dtypes):
    encoder = fastrnn.GRU(4, 6, dtype=dtypes[0]).init(1)
    model = make(hidden=8, dtype=dtypes[1]).decoder
    weight = np.random.default_rng(0).normal(size=(8, 6))
    bridged = fastrnn.Seq2Seq(encoder, model, start=0, stop=1, bridge=fastrnn.Dense(weight))
    by_hand = fastrnn.Seq2Seq(encoder, model, start=0, stop=1, bridge=lambda states: [states[0] @ weight.T])
    x = np.random.default_rng(1).normal(size=(3, 7, 4))
    assert all(map(np.array_equal, bridged.generate(x, 9), by_hand.generate(x, 9)))
    assert bridged.generate(x[:0], 9) == []


def test_one_long_text_costs_the_others_nothing():
    letters = fastrnn.Vocabulary.from_text("ab")
    encoder = fastrnn.SequenceModel(fastrnn.LSTM(2, 9).init(1), embedding="one_hot", vocabulary=letters)
    model = fastrnn.Seq2Seq(encoder, make("lstm").decoder, start=0, stop=1)
    texts = ["a", "ab" * 5000, "", *["b"] * 500]
    model.generate(texts[:4], 3)
    results: list = []
    assert peak_of(lambda: results.extend(model.generate(texts, 3))) < 16e6  # with padding ids alone take 40 MB
    assert all(map(np.array_equal, results, [model.generate(text, 3) for text in texts]))


def test_empty():
    model = make()
    assert model.generate(np.empty((0, 4), int), 5) == []
    assert model.generate(np.empty((0, 4), int), 5, beam=2) == []
    assert model.generate([5, 3], 0).tolist() == model.generate([5, 3], 0, beam=2).tolist() == []
    assert len(model.generate(np.empty((2, 0), int), 5)) == 2


def test_errors():
    rng = np.random.default_rng(0)
    model = make()
    gru = fastrnn.GRU(4, 6).init()
    with pytest.raises(
        ValueError, match=r"the encoder's states are \(1, B, 6\) and the decoder's \(1, B, 9\): pass bridge="
    ):
        fastrnn.Seq2Seq(gru, model.decoder, start=0, stop=1)
    with pytest.raises(
        ValueError, match="bridge takes 5 numbers and gives 9, the encoder's states have 6 and the decoder's 9"
    ):
        fastrnn.Seq2Seq(gru, model.decoder, start=0, stop=1, bridge=fastrnn.Dense(rng.normal(size=(9, 5))))
    both, deep = fastrnn.GRU(4, 9, bidirectional=True).init(), fastrnn.GRU(9, 9, 2).init()
    deep_decoder = fastrnn.SequenceModel(deep, embedding=np.ones((5, 9)), head=(np.ones((5, 9)),))
    with pytest.raises(ValueError, match=r"\(2, B, 9\) of both directions and the decoder's \(2, B, 9\): pass bridge="):
        fastrnn.Seq2Seq(both, deep_decoder, start=0, stop=1)
    bridge = fastrnn.Dense(rng.normal(size=(9, 6)))
    with pytest.raises(ValueError, match="from 2 states of the encoder to 1"):
        fastrnn.Seq2Seq(fastrnn.LSTM(4, 6).init(), model.decoder, start=0, stop=1, bridge=bridge)
    with pytest.raises(TypeError, match=r"bridge must be a fastrnn\.Dense or a function"):
        fastrnn.Seq2Seq(gru, model.decoder, start=0, stop=1, bridge=3)
    with pytest.raises(TypeError, match=r"encoder must be a fastrnn\.SequenceModel"):
        fastrnn.Seq2Seq("gru", model.decoder, start=0, stop=1)
    with pytest.raises(ValueError, match="encoder must have no head"):
        fastrnn.Seq2Seq(model.decoder, model.decoder, start=0, stop=1)
    with pytest.raises(ValueError, match="writing needs a head"):
        fastrnn.Seq2Seq(model.encoder, model.encoder, start=0, stop=1)
    with pytest.raises(ValueError, match=r"start must be in 0..4, got 5"):
        fastrnn.Seq2Seq(model.encoder, model.decoder, start=5, stop=1)
    with pytest.raises(ValueError, match="beam=2 keeps the most probable results"):
        model.generate([1], 5, beam=2, temperature=1.0)
    with pytest.raises(ValueError, match="beam must be an int >= 1, got 0"):
        model.generate([1], 5, beam=0)
    with pytest.raises(TypeError, match=r"length_penalty must be a number in \[-10, 10\], got None"):
        model.generate([1], 5, beam=2, length_penalty=None)
    with pytest.raises(ValueError, match="no vocabulary"):
        model.generate("text", 5)
    with pytest.raises(ValueError, match=r"x must hold ids in 0..6, got 9"):
        model.generate([9], 5)
    nan = make(scale=np.nan)
    for beam in (1, 2):
        with pytest.raises(ValueError, match="NaN or infinite"):
            nan.generate([1], 5, beam=beam)
