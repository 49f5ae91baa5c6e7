"""What a model says of parts that do not fit, and of arguments that are wrong."""

import numpy as np
import pytest
from layer_cases import make
from model_cases import characters, deep, dense, intents, matrix, vectors

import fastrnn

Model = fastrnn.SequenceModel


def f(*shape):
    return np.zeros(shape, np.float32)


def of(layers, **config):
    return Model(layers, **config)


def gru(inputs=5, hidden=7, **config):
    return make("gru", inputs, hidden, **config)


def letters(count):
    return fastrnn.Vocabulary([chr(97 + i) for i in range(count)])


def reader():
    return of(gru(), embedding="one_hot", vocabulary=letters(5))


CONSTRUCTORS = [
    # layers
    (lambda: of([]), ValueError, r"layers must have at least one RNN, LSTM or GRU"),
    (lambda: of(dense(3, 4)), ValueError, r"layers must have at least one RNN, LSTM or GRU"),
    (lambda: of(fastrnn.GRUCell(2, 3)), TypeError, r"layers\[0\] must be an RNN.*got GRUCell: a cell takes one step"),
    (lambda: of([gru(), 3]), TypeError, r"layers\[1\] must be an RNN, LSTM or GRU, or a fastrnn\.Dense, got 3$"),
    (lambda: of(None), TypeError, r"layers\[0\] must be .*got None"),
    (lambda: of([gru(), vectors()]), TypeError, r"layers\[1\] must be .*got SequenceModel"),
    (
        lambda: of([gru(), make("lstm", 7, 2, dtype="float64")]),
        ValueError,
        r"layers must be of one dtype, got layers\[0\] = GRU\(5, 7\) of float32 and layers\[1\] = LSTM\(7, 2, dtype="
        r"float64\) of float64: build both with one dtype=",
    ),
    # neighbours
    (
        lambda: of([gru(), gru()]),
        ValueError,
        r"layers\[0\] = GRU\(5, 7\) gives 7 numbers, layers\[1\] = GRU\(5, 7\) takes 5: put a fastrnn\.Dense between",
    ),
    (lambda: of([gru(bidirectional=True), gru(7)]), ValueError, r"gives 14 numbers, layers\[1\] = .* takes 7"),
    (
        lambda: of([gru(), dense(7, 3)]),
        ValueError,
        r"gives 7 numbers, layers\[1\] = Dense\(3, 7\) takes 3: pass its weight\.T",
    ),
    (lambda: of(gru(), head=dense(3, 8)), ValueError, r"layers\[0\] = GRU\(5, 7\) gives 7 .*head\[0\] = Dense\(8, 3\)"),
    (
        lambda: of(gru(), head=[dense(3, 7), dense(3, 7)]),
        ValueError,
        r"head\[0\] = Dense\(7, 3\) gives 3 numbers, head\[1\] = Dense\(7, 3\) takes 7",
    ),
    (
        lambda: of(gru(), embedding=matrix(9, 4)),
        ValueError,
        r"embedding gives 4 numbers, layers\[0\] = GRU\(5, 7\) takes 5",
    ),
    (
        lambda: of(gru(), embedding=matrix(5, 9)),
        ValueError,
        r"embedding gives 9 numbers, layers\[0\] = GRU\(5, 7\) takes 5: pass embedding\.T",
    ),
    (
        lambda: of([dense(5, 4), gru()], embedding=matrix(9, 3)),
        ValueError,
        r"embedding gives 3 .*Dense\(4, 5\) takes 4",
    ),
    # head
    (lambda: of(gru(), head="softmax"), TypeError, r"head must be a fastrnn\.Dense, \(weight, bias\).*got str"),
    (lambda: of(gru(), head=[dense(3, 7), 1]), TypeError, r"head\[1\] must be a fastrnn\.Dense.*got int"),
    (lambda: of(gru(), head=(f(3, 7), f(7))), ValueError, r"head\.bias is \(7,\), expected \(V,\) = \(3,\)"),
    (lambda: of(gru(), head=dense(3, 7, "elu")), ValueError, r"head\.activation must be one of 'linear', 'relu'"),
    (lambda: of([gru(), fastrnn.Dense(f(7))]), ValueError, r"layers\[1\]\.weight must be a matrix \(V, K\)"),
    (lambda: of([gru(), fastrnn.Dense(5, 7)]), ValueError, r"got shape \(\): Dense\(weight, .* takes arrays"),
    # embedding
    (
        lambda: of(gru(), embedding="onehot"),
        ValueError,
        r"embedding must be None, 'one_hot' or a matrix .*got 'onehot'",
    ),
    (lambda: of(gru(), embedding=f(5)), ValueError, r"embedding must be a matrix \(vocab, I\).*got shape \(5,\)"),
    (lambda: of(gru(), embedding=f(0, 5)), ValueError, r"embedding must be a matrix .*got shape \(0, 5\)"),
    (lambda: of(gru(), embedding=f(3, 5) * 1j), TypeError, r"embedding must hold floats.*got dtype complex"),
    # wiring, pool, vocabulary, labels
    (lambda: of(gru(), wiring="one_to_one"), ValueError, r"wiring must be one of 'many_to_many', 'many_to_one', got"),
    (lambda: of(gru(), pool=None), TypeError, r"pool must be one of 'final', 'last', 'mean', 'max', got None"),
    (lambda: of(gru(), vocabulary="abc"), TypeError, r"vocabulary must be a fastrnn\.Vocabulary, got 'abc'"),
    (
        lambda: of(gru(), embedding=matrix(9, 5), vocabulary=letters(8)),
        ValueError,
        r"vocabulary has 8 tokens, embedding 9 rows: expected one row for each token",
    ),
    (
        lambda: of(gru(), embedding="one_hot", vocabulary=letters(8)),
        ValueError,
        r"embedding='one_hot' gives 8 numbers, layers\[0\] = GRU\(5, 7\) takes 5",
    ),
    (lambda: of(gru(), labels=["a"]), ValueError, r"labels must be 7, one for each number .*got 1"),
    (lambda: of(gru(), labels="abcdefg"), TypeError, r"labels must be a sequence of 7 str, got 'abcdefg'"),
    (lambda: of(gru(), labels=[1] * 7), TypeError, r"labels must be a sequence of 7 str, got 1 at 0"),
]

CALLS = [
    # ids
    (lambda: intents().predict([[1, 2], [3, 11]]), ValueError, r"x must hold ids in 0\.\.10, got 11 at \(1, 1\)"),
    (lambda: intents().predict([3, -1]), ValueError, r"x must hold ids in 0\.\.10, got -1 at \(1,\)"),
    (lambda: intents().predict(np.array([3, -128], np.int8)), ValueError, r"ids in 0\.\.10, got -128 at \(1,\)"),
    (lambda: intents().predict(np.array([3, 2**64 - 1], np.uint64)), ValueError, r"got 18446744073709551615 at \(1,\)"),
    (lambda: intents().predict([2**63 - 1, -(2**63)]), ValueError, r"got 9223372036854775807 at \(0,\)"),
    (lambda: intents().predict(np.array([2**64 - 1], "u8")), ValueError, r"got 18446744073709551615 at \(0,\)"),
    (lambda: intents().predict([True, False]), TypeError, r"x must hold ids as integers .*got bools"),
    (
        lambda: intents().predict(np.zeros((2, 3, 6), int)),
        ValueError,
        r"x of integers is \(2, 3, 6\), expected ids \(B, T\) or \(T,\): vectors must be floats",
    ),
    (lambda: intents().predict(3), ValueError, r"x of integers is \(\), expected ids \(B, T\) or \(T,\)$"),
    (lambda: intents().predict("text"), TypeError, r"x must hold floats, integers or bools, got dtype <U4: pass numb"),
    (lambda: reader().predict("text"), TypeError, r"got dtype <U4: pass model\.vocabulary\.encode\(text\)$"),
    (lambda: reader().predict(["te", "xt"]), TypeError, r"<U2: pass model\.vocabulary\.encode\(text\)$"),
    (lambda: reader().unroll("t", 3), TypeError, r"<U1: pass model\.vocabulary\.encode\(text\)$"),
    (lambda: reader().stream().step("t"), TypeError, r"<U1: pass model\.vocabulary\.encode\(text\)$"),
    (lambda: reader().stream().push("text"), TypeError, r"<U4: pass model\.vocabulary\.encode\(text\)$"),
    (lambda: reader().predict(b"text"), TypeError, r"got dtype \|S4: pass numbers$"),
    # vectors
    (
        lambda: intents().predict(f(2, 3, 5)),
        ValueError,
        r"x of floats is \(2, 3, 5\), expected vectors \(B, T, I\) = \(B, T, 6\) or \(T, I\) = \(T, 6\)$",
    ),
    (lambda: intents().predict([1.0, 2.0]), ValueError, r"x of floats is \(2,\).*: ids must be integers$"),
    (
        lambda: vectors().predict(f(2, 3, 4)),
        ValueError,
        r"x is \(2, 3, 4\), expected \(B, T, I\) = \(B, T, 5\) or \(T, I\)",
    ),
    (lambda: vectors().predict(f(5, 3, 2)), ValueError, r": pass np\.moveaxis\(x, 0, -1\)$"),
    (lambda: vectors().predict(f(5, 3)), ValueError, r": pass np\.moveaxis\(x, 0, -1\)$"),
    (lambda: vectors().predict(f(5)), ValueError, r"x is \(5,\), expected"),
    (lambda: of(gru(1)).predict(f(2, 3)), ValueError, r": pass x\[\.\.\., None\]$"),
    (lambda: vectors().predict([[1, 2], [3]]), ValueError, r"x must be an array of real numbers: .*inhomogeneous"),
    # lengths
    (lambda: vectors().predict(f(2, 3, 5), lengths=[1, 4]), ValueError, r"lengths must lie in 0\.\.T = 0\.\.3, got 4"),
    (lambda: vectors().predict(f(2, 3, 5), lengths=[1]), ValueError, r"lengths is \(1,\), expected \(B,\) = \(2,\)"),
    # state
    (
        lambda: vectors().predict(f(2, 3, 5), state=f(1, 2, 7)),
        TypeError,
        r"state must be a list with one hx for each recurrent layer, 1 in all, got ndarray: pass \[hx\]",
    ),
    (
        lambda: characters().predict([1], state=(f(2, 17), f(2, 17))),
        ValueError,
        r"1 in all, got 2 elements: pass \[\(h, c\)\]",
    ),
    (lambda: deep().predict(f(2, 3, 5), state=[None]), ValueError, r"state must be a list .*3 in all, got 1 elements$"),
    (
        lambda: deep().predict(f(2, 3, 5), state=[f(2, 2, 15), None, f(4, 2, 36)]),
        ValueError,
        r"state\[2\] is \(4, 2, 36\), expected \(L\*D, B, H\) = \(4, 2, 37\)",
    ),
    (
        lambda: vectors().predict(f(3, 5), state=[f(1, 1, 7)]),
        ValueError,
        r"state\[0\] is .*expected \(L\*D, H\) = \(1, 7\)",
    ),
    # wiring
    (lambda: vectors().predict(f(2, 3, 5), wiring="one"), ValueError, r"wiring must be one of 'many_to_many', "),
    (lambda: vectors().predict(f(2, 3, 5), wiring=""), ValueError, r"wiring must be one of 'many_to_many', "),
    (
        lambda: vectors().predict(f(2, 3, 5), pool="max"),
        ValueError,
        r"pool is for wiring='many_to_one', and this call is",
    ),
    (
        lambda: vectors().predict(f(2, 3, 5), wiring="many_to_one", pool="sum"),
        ValueError,
        r"pool must be one of 'final', 'last', 'mean', 'max', got 'sum'",
    ),
    # out
    (lambda: vectors().predict(f(2, 3, 5), out=f(2, 3, 5)), ValueError, r"out is \(2, 3, 5\), expected \(2, 3, 7\)"),
    (
        lambda: vectors().predict(f(2, 3, 5), wiring="many_to_one", out=f(2, 3, 7)),
        ValueError,
        r"out is \(2, 3, 7\), expected \(2, 7\)",
    ),
    (lambda: vectors().predict(f(2, 3, 5), out=f(7, 3, 2).T), ValueError, r"out must be C-contiguous"),
    # unroll
    (
        lambda: vectors().unroll(f(2, 3, 5), 4),
        ValueError,
        r"x is \(2, 3, 5\), expected \(B, I\) = \(B, 5\) or \(I,\) = \(5,\)",
    ),
    (lambda: intents().unroll([[1]], 4), ValueError, r"x of integers is \(1, 1\), expected ids \(B,\) or \(\)"),
    (lambda: vectors().unroll(f(5), -1), ValueError, r"steps must be an int >= 0, got -1"),
    (
        lambda: vectors().unroll(f(5), 4, feed="last"),
        ValueError,
        r"feed must be one of 'first', 'every', 'output', got",
    ),
    (
        lambda: vectors().unroll(f(5), 4, feed="output"),
        ValueError,
        r"feed='output' needs a model that gives what it takes, and this one gives 7 numbers and takes 5",
    ),
    (
        lambda: deep().unroll(f(5), 4, feed="output"),
        fastrnn.UnsupportedError,
        r"feed='output' goes forward only, and RNN\(4, 15, bidirectional=True\) .*: pass feed='every', or build",
    ),
    (lambda: vectors().predict(f(2, 3, 5), return_state=3), TypeError, r"return_state must be True or False, got 3"),
    (lambda: vectors().unroll(f(5), 3, return_state="a"), TypeError, r"return_state must be True or False, got 'a'"),
    (lambda: fastrnn.warmup("a"), TypeError, r"warmup takes layers, cells and models, got str"),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), CONSTRUCTORS + CALLS, ids=[message[:60] for _, _, message in CONSTRUCTORS + CALLS]
)
def test_message(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error


def test_out_overlaps_nothing():
    model = of(gru(7))
    x, h = f(2, 3, 7), f(1, 6, 7)
    with pytest.raises(ValueError, match="out overlaps x"):
        model.predict(x, out=x)
    state = make("lstm", 7, 7)
    with pytest.raises(ValueError, match="out overlaps state"):
        model.predict(x, state=[h[:, :2]], out=h.reshape(2, 3, 7))
    with pytest.raises(ValueError, match="out overlaps state"):
        of(state).predict(x, state=[(f(1, 2, 7), h[:, :2])], out=h.reshape(2, 3, 7))
    with pytest.raises(ValueError, match="out overlaps x"):
        model.unroll(x[:, 0], 3, out=x)
    with pytest.raises(ValueError, match="out overlaps x"):
        model.stream(2).push(x, out=x)


def test_an_embedding_that_gives_other_rows_than_its_weights():
    torch = pytest.importorskip("torch")

    class Scaled(torch.nn.Embedding):
        def forward(self, ids):
            return 2 * super().forward(ids)

    for given in (torch.nn.Embedding(9, 5, max_norm=1.0), Scaled(9, 5)):
        with pytest.raises(
            fastrnn.UnsupportedError, match=r"embedding must give the rows of its weight, .* pass what it gives, embedd"
        ):
            of(gru(), embedding=given)
        rows = given(torch.arange(given.num_embeddings))
        assert of(gru(), embedding=rows).embedding.tolist() == rows.tolist()
    for given in (torch.nn.EmbeddingBag(9, 5), torch.nn.Dropout()):
        with pytest.raises(TypeError, match="embedding must hold floats"):
            of(gru(), embedding=given)


def test_torch_modules_have_a_cure():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"layers\[0\] must be .*got LSTM: pass fastrnn\.from_torch\(layers\[0\]\)"):
        of(torch.nn.LSTM(2, 3))
    with pytest.raises(TypeError, match=r"layers\[1\] must be .*got Linear: pass fastrnn\.from_torch\(layers\[1\]\)"):
        of([gru(), torch.nn.Linear(7, 3)])
