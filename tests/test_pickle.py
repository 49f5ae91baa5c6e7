"""Pickles and copies hold the logical weights and nothing else."""

import copy
import pickle

import numpy as np
import pytest
from cases import DTYPES, same_bits
from layer_cases import CELLS, KINDS, arrays, initial, inputs, make

import fastrnn

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle{n}": lambda v, n=n: pickle.loads(pickle.dumps(v, n)) for n in range(2, pickle.HIGHEST_PROTOCOL + 1)},
}


def equal(a, b):
    return all(map(same_bits, arrays(a), arrays(b)))


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
