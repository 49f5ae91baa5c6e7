"""Models against the same networks of torch.nn's parts: every wiring and pool, unroll, Seq2Seq, generate and score."""

import math

import numpy as np
import pytest
from cases import DTYPES, assert_close, run_torch
from layer_cases import arrays

import fastrnn

torch = pytest.importorskip("torch")

from module_cases import LAYERS, QUIET  # noqa: E402
from torch import nn  # noqa: E402

pytestmark = QUIET
FEW = [name for name in fastrnn.available_backends() if name != "numba"]  # which compiles for seconds
VOCAB, VECTOR = 13, 5
LENGTHS = np.array([4, 7, 1])
SHAPES = {
    "one": {"hidden": 17},
    "two": {"hidden": 9, "num_layers": 2},
    "both": {"hidden": 37, "bidirectional": True},
    "two-both": {"hidden": 15, "num_layers": 2, "bidirectional": True},
}


class Network(nn.Module):
    """Embedding, recurrent layer and linear layer; with small weights a greedy text is one id, again and again."""

    def __init__(self, kind, dtype=np.float32, hidden=17, out=VOCAB, seed=0, scale=1, **options):
        super().__init__()
        torch.manual_seed(seed)
        name, given = LAYERS[kind]
        self.embedding = nn.Embedding(VOCAB, VECTOR, padding_idx=3)  # a row of zeros, for ids as all others
        self.recurrent = getattr(nn, name)(VECTOR, hidden, batch_first=True, **given, **options)
        ways = 1 + self.recurrent.bidirectional
        self.linear = nn.Linear(ways * (self.recurrent.proj_size or hidden), out)
        self.to(torch.float64 if dtype == np.float64 else torch.float32).requires_grad_(False)
        for weight in self.parameters():
            weight *= scale

    def model(self, activation=None, **config):
        head = (self.linear.weight, self.linear.bias, activation)
        layer = fastrnn.from_torch(self.recurrent)
        return fastrnn.SequenceModel(layer, embedding=self.embedding, head=head, **config)

    def step(self, x, hx=None):
        """Run vectors (B, I) for one step: the linear layer's results (B, V), and the state."""
        y, hx = self.recurrent(x[:, None], hx)
        return self.linear(y[:, 0]), hx

    def forward(self, ids, hx=None):
        y, hx = self.recurrent(self.embedding(torch.as_tensor(ids)), hx)
        return self.linear(y), hx

    def greedy(self, ids, count, hx=None, stop=None):
        """Write up to `count` ids after those given, all of which are read anew each time."""
        written = []
        while len(written) < count:
            token = int(self([[*ids, *written]], hx)[0][0, -1].argmax())
            if token == stop:
                break
            written.append(token)
        return written


def drawn(*shape):
    return np.random.default_rng(shape).integers(0, VOCAB, shape)


def pools(y, h, lengths, ways):
    """What stands for each row: of y (B, T, O), zeros beyond the lengths, and h (L*D, B, P or H)."""
    beyond = torch.arange(y.shape[1]) >= lengths[:, None]
    return {
        "final": torch.cat(list(h[-ways:]), dim=1),
        "last": y[torch.arange(len(y)), lengths - 1],
        "mean": y.sum(1) / lengths[:, None],
        "max": y.masked_fill(beyond[..., None], -math.inf).amax(1),
    }


def check_wirings(kind, shape, dtype):
    network = Network(kind, dtype, **SHAPES[shape])
    model, ids = network.model("softmax"), drawn(len(LENGTHS), max(LENGTHS))
    for lengths in (None, LENGTHS):
        y, states = run_torch(network.recurrent, network.embedding(torch.from_numpy(ids)).numpy(), lengths=lengths)
        y, h = torch.from_numpy(y), torch.from_numpy(states[0])
        steps = torch.full((len(ids),), ids.shape[1]) if lengths is None else torch.from_numpy(lengths)
        every = torch.softmax(network.linear(y), -1)
        every[torch.arange(ids.shape[1]) >= steps[:, None]] = 0
        found, state = model.predict(ids, lengths=lengths, return_state=True)
        assert_close(found, every.numpy(), "torch", dtype)
        for ours, theirs in zip(arrays(state), states, strict=True):
            assert_close(ours, theirs, "torch", dtype)
        for pool, rows in pools(y, h, steps, 1 + network.recurrent.bidirectional).items():
            wanted = torch.softmax(network.linear(rows), -1).numpy()
            found = model.predict(ids, lengths=lengths, wiring="many_to_one", pool=pool)
            assert_close(found, wanted, "torch", dtype)


@pytest.mark.parametrize("backend", FEW, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", LAYERS)
def test_wirings(backend, kind, shape, dtype):
    check_wirings(kind, shape, dtype)


@pytest.mark.skipif("numba" not in fastrnn.available_backends(), reason="needs numba")
def test_wirings_on_numba():
    with fastrnn.use_backend("numba"):
        check_wirings("LSTM-proj", "two-both", np.float32)


@pytest.mark.parametrize("backend", FEW, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_chain_of_parts(backend, dtype):
    """Layers of three kinds, linear ones before, between and after them, two of these as head."""
    torch.manual_seed(0)
    sizes = [(3, 7), (10, 9), (11, 5), (5, 4)]
    linear = [nn.Linear(*size).to(torch.from_numpy(np.empty(0, dtype)).dtype).requires_grad_(False) for size in sizes]
    options = {"batch_first": True, "dtype": linear[0].weight.dtype}
    rnn, lstm = nn.RNN(7, 5, bidirectional=True, **options), nn.LSTM(9, 11, proj_size=3, **options)
    gru = nn.GRU(3, 11, 2, **options)
    first, between, *head = [
        fastrnn.Dense(part.weight, part.bias, name)
        for part, name in zip(linear, ("relu", "tanh", "sigmoid", "log_softmax"), strict=True)
    ]
    layers = [first, fastrnn.from_torch(rnn), between, fastrnn.from_torch(lstm), fastrnn.from_torch(gru)]
    x = np.random.default_rng(0).normal(size=(4, 9, 3)).astype(dtype)
    with torch.no_grad():
        y, _ = rnn(torch.relu(linear[0](torch.from_numpy(x))))
        y, _ = gru(lstm(torch.tanh(linear[1](y)))[0])
        wanted = torch.log_softmax(linear[3](torch.sigmoid(linear[2](y))), -1)
    assert_close(fastrnn.SequenceModel(layers, head=head).predict(x), wanted.numpy(), "torch", dtype)


# One to many ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", FEW, indirect=True)
@pytest.mark.parametrize("feed", ["first", "every", "output"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ["one", "two"])
@pytest.mark.parametrize("kind", LAYERS)
def test_unroll(backend, kind, shape, dtype, feed):
    network = Network(kind, dtype, out=VECTOR, **SHAPES[shape])
    ids = drawn(3)
    x = now = network.embedding(torch.from_numpy(ids))
    hx, results = None, []
    for _ in range(9):
        y, hx = network.step(now, hx)
        results.append(torch.tanh(y))
        now = {"first": torch.zeros_like(x), "every": x, "output": results[-1]}[feed]
    wanted, model = torch.stack(results, dim=1).numpy(), network.model("tanh")
    for given in (ids, x.numpy()):
        found, (state,) = model.unroll(given, 9, feed=feed, return_state=True)
        assert_close(found, wanted, "torch", dtype)
        for ours, theirs in zip(arrays(state), hx if isinstance(hx, tuple) else (hx,), strict=True):
            assert_close(ours, theirs.numpy(), "torch", dtype)


@pytest.mark.parametrize("backend", FEW, indirect=True)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_vector_sets_the_state(backend, kind):
    """One to many as captions are written: the state that a vector leaves, then ids."""
    network, picture = Network(kind, scale=5), np.random.default_rng(0).normal(size=(1, VECTOR)).astype(np.float32)
    _, hx = network.step(torch.from_numpy(picture))
    model = network.model("softmax")
    _, state = model.predict(picture, return_state=True)
    assert model.generate([2], 12, temperature=0, state=state).tolist() == network.greedy([2], 12, hx)


# Writing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", FEW, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", ["one", "two"])
@pytest.mark.parametrize("kind", LAYERS)
def test_generate(backend, kind, shape, dtype):
    network = Network(kind, dtype, scale=5, **SHAPES[shape])
    model, prompts = network.model("softmax"), [[3], [1, 4, 1, 5], [9, 2]]
    wanted = [network.greedy(prompt, 15) for prompt in prompts]
    assert len(set(map(tuple, wanted))) > 1
    assert [row.tolist() for row in model.generate(prompts, 15, temperature=0)] == wanted


@pytest.mark.parametrize("backend", FEW, indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", LAYERS)
def test_score(backend, kind, dtype):
    network, ids = Network(kind, dtype, num_layers=2), drawn(40)
    loss = nn.functional.cross_entropy(network(ids[None, :-1])[0][0], torch.from_numpy(ids[1:])).item()
    found = network.model("log_softmax").score(ids)
    assert found == pytest.approx(loss / math.log(2), rel=1e-6 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("backend", FEW, indirect=True)
def test_seq2seq(backend):
    """GRU to GRU, greedy: batches with lengths, and results that end by the stop and by their number."""
    start, stop, most = 0, 1, 10
    encoder, decoder = Network("GRU", seed=2, scale=3), Network("GRU", seed=6, scale=3)
    reader = fastrnn.SequenceModel(fastrnn.from_torch(encoder.recurrent), embedding=encoder.embedding)
    model = fastrnn.Seq2Seq(reader, decoder.model("softmax"), start=start, stop=stop)
    x = drawn(8, 6)
    lengths = np.array([6, 1, 3, 2, 5, 4, 6, 1])
    wanted = []
    for row, length in zip(x, lengths, strict=True):
        _, h = encoder(row[None, :length])
        wanted.append(decoder.greedy([start], most, h, stop))
    assert {True, False} == {len(ids) == most for ids in wanted}
    assert [ids.tolist() for ids in model.generate(x, most, lengths=lengths)] == wanted
