"""Pickles, copies and hashes are about the logical weights and nothing else."""

import copy
import os
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from cases import DTYPES
from layer_cases import CELLS, KINDS, equal, initial, inputs, make

import fastrnn

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle{n}": lambda v, n=n: pickle.loads(pickle.dumps(v, n)) for n in range(2, pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_layers(backend, kind, way):
    layer = make(kind, num_layers=2, batch_first=True, dropout=0.5, num_threads=2)
    layer.initial_state = initial(layer, batch=None)
    x = inputs(layer)
    expected = layer(x)
    again = WAYS[way](layer)
    assert type(again) is type(layer)
    assert repr(again) == repr(layer)
    assert equal(again(x), expected)
    assert equal(again.initial_state, layer.initial_state)
    again.init(seed=3)
    again.initial_state = None
    assert equal(layer(x), expected)
    with pytest.raises(AttributeError, match="fixed"):
        again.hidden_size = 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CELLS)
def test_cells(backend, kind, way):
    cell = CELLS[kind](3, 4).init()
    assert equal(WAYS[way](cell)(np.ones(3)), cell(np.ones(3)))
    assert repr(WAYS[way](CELLS[kind](3, 4))) == repr(cell)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_small(backend, kind, dtype):
    layer = make(kind, 64, 128, dtype=dtype)
    layer(inputs(layer))
    size = sum(w.nbytes for w in layer.state_dict().values())
    assert len(pickle.dumps(layer)) < size + 3000


def test_a_copy_keeps_the_fast_path():
    layer = pickle.loads(pickle.dumps(make("gru")))
    assert layer.dtype is np.zeros(0, np.float32).dtype


def test_a_layer_without_weights():
    layer = pickle.loads(pickle.dumps(fastrnn.LSTM(3, 4, backend="reference")))
    assert layer.backend == "reference"
    with pytest.raises(ValueError, match="has no weights"):
        layer(np.ones((2, 3)))


def test_linear_mode_is_kept():
    layer = make("gru")
    layer._activation = "linear"
    again = pickle.loads(pickle.dumps(layer))
    assert again._activation == "linear"
    assert equal(again(inputs(layer)), layer(inputs(layer)))


def large():
    """A model whose weights are large beside all else."""
    rng = np.random.default_rng(0)
    layer, head = fastrnn.LSTM(64, 128, num_layers=2).init(), fastrnn.Dense(rng.normal(size=(300, 128)))
    return fastrnn.SequenceModel(layer, embedding=rng.normal(size=(300, 64)), head=head)


def test_small_models(backend, tmp_path):
    model = large()
    model.predict([1, 2, 3])  # packs, and fills tables
    model.save(tmp_path / "model")
    size = (tmp_path / "model").stat().st_size
    assert len(pickle.dumps(model)) < size + 3000
    stream = model.stream(50)
    stream.push(np.zeros((50, 3), int))
    assert len(pickle.dumps(stream)) < size + 2 * 2 * 50 * 128 * 4 + 4000
    both = fastrnn.Seq2Seq(model.layers[0], model, start=0, stop=1)
    assert len(pickle.dumps(both)) < size + 4000  # they share the layer


# Hashes ---------------------------------------------------------------------------------------------------------------


def token(model):
    return model.__dask_tokenize__()


def test_equal_models_have_equal_hashes(backend, tmp_path):
    for make_one in (*(lambda kind=kind: make(kind, num_layers=2, bidirectional=True) for kind in KINDS), large):
        model = make_one()
        expected = token(model)
        assert token(make_one()) == expected
        fastrnn.warmup(model)
        assert token(model) == expected
        for way in WAYS.values():
            assert token(way(model)) == expected
        model.save(tmp_path / "model")
        assert token(fastrnn.load(tmp_path / "model")) == expected
    layer = make("gru")
    weights = {name: np.asfortranarray(w).astype(np.float64) for name, w in layer.state_dict().items()}
    assert token(fastrnn.GRU(5, 7, num_threads=2, backend=backend).load_state_dict(weights)) == token(layer)


def test_hashes_of_other_processes():
    model = "fastrnn.SequenceModel(fastrnn.LSTM(3, 4).init(), embedding='one_hot')"
    code = f"import fastrnn; print({model}.__dask_tokenize__())"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in "123"
    }
    assert found == {token(fastrnn.SequenceModel(fastrnn.LSTM(3, 4).init(), embedding="one_hot"))}


def test_another_class_is_another_hash():
    class Doubled(fastrnn.GRU):
        def __call__(self, x, hx=None, **options):
            y, h = super().__call__(x, hx, **options)
            return 2 * y, h

    assert token(Doubled(2, 3).init(seed=0)) != token(fastrnn.GRU(2, 3).init(seed=0))


def test_any_other_number_is_another_hash():
    layer = make("lstm_proj", num_layers=2)
    layer.initial_state = initial(layer, batch=None)
    found = [token(layer)]
    for name, weight in layer.state_dict().items():
        for i in (0, -1):
            changed = weight.copy()
            changed.flat[i] = np.nextafter(changed.flat[i], np.float32(9))
            other = copy.copy(layer)
            found.append(token(other.load_state_dict(layer.state_dict() | {name: changed})))
    h, c = layer.initial_state
    for state in (None, (h, c + 1), (h + 1, c)):
        other = copy.copy(layer)
        other.initial_state = state
        found.append(token(other))
    assert len(set(found)) == 1 + 2 * len(layer.state_dict()) + 3


def zeroed(layer):
    return layer.load_state_dict({name: np.zeros_like(w) for name, w in layer.init().state_dict().items()})


def test_any_other_setting_is_another_hash():
    rnn, gru, model = fastrnn.RNN, fastrnn.GRU, fastrnn.SequenceModel
    settings = ({}, {"nonlinearity": "relu"}, {"batch_first": True}, {"dtype": "float64"}, {"bias": False})
    found = [zeroed(rnn(3, 2, **setting)) for setting in (*settings, {"num_layers": 2}, {"bidirectional": True})]
    found += [zeroed(layer) for layer in (gru(3, 2), gru(3, 2, reset_after=False), fastrnn.RNNCell(3, 2), rnn(2, 3))]
    layer, head, tokens = found[0], np.zeros((2, 2)), ["a", "b", "c"]
    found += [model(layer), model(layer, embedding="one_hot"), model(layer, embedding=np.zeros((3, 3)))]
    found += [model(layer, wiring="many_to_one"), model(layer, pool="mean"), model(layer, labels=["a", "b"])]
    found += [model(layer, head=(head,)), model(layer, head=(head, head[0])), model(layer, head=(head, None, "tanh"))]
    for given in ((tokens,), (tokens[::-1],), (tokens, "word")):
        vocabulary = fastrnn.Vocabulary(given[0], unit="".join(given[1:]) or "char")
        found.append(model(layer, embedding="one_hot", vocabulary=vocabulary))
    assert len(set(map(token, found))) == len(found)


def test_no_weights_have_no_hash():
    with pytest.raises(ValueError, match="has no weights"):
        token(fastrnn.GRU(3, 2))


def test_dask():
    tokenize = partial(pytest.importorskip("dask.base").tokenize, ensure_deterministic=True)
    model = large()
    decoder = fastrnn.SequenceModel(make("gru"), embedding=np.ones((4, 5)), head=(np.ones((4, 7)),))
    bridges = [fastrnn.Dense(np.ones((7, 7))), fastrnn.Dense(np.zeros((7, 7))), None, np.negative]
    both = [fastrnn.Seq2Seq(make("gru"), decoder, start=0, stop=1, bridge=bridge) for bridge in bridges]
    both.append(fastrnn.Seq2Seq(make("gru"), decoder, start=0, stop=2))
    values = [model, model.layers[0], decoder, *both]
    found = list(map(tokenize, values))
    assert len(set(found)) == len(values)
    both[0].generate(np.ones((2, 5)), 3)
    assert [tokenize(pickle.loads(pickle.dumps(value))) for value in values] == found
