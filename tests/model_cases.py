"""Models for the tests: a table of them, their inputs, and an oracle of higher precision written step by step."""

from typing import Any, NamedTuple

import numpy as np
from layer_cases import arrays, make, oracle

import fastrnn
from fastrnn import reference
from fastrnn.recurrent import Recurrent

WIRINGS = [("many_to_many", None), *(("many_to_one", pool) for pool in ("final", "last", "mean", "max"))]


def dense(size: int, inputs: int, activation: str | None = None, bias: bool = True, seed: int = 0) -> fastrnn.Dense:
    """Draw a dense layer."""
    rng = np.random.default_rng((seed, size, inputs))
    weight = rng.normal(size=(size, inputs)) / np.sqrt(inputs)
    return fastrnn.Dense(weight, rng.normal(size=size) if bias else None, activation)


def matrix(vocab: int, size: int) -> np.ndarray:
    """Draw an embedding."""
    return np.random.default_rng((vocab, size)).normal(size=(vocab, size))


def vectors(dtype: Any = None, **config: Any) -> fastrnn.SequenceModel:
    """One layer and nothing else: vectors in, states out."""
    return fastrnn.SequenceModel(make("gru", dtype=dtype), **config)


def stacked(dtype: Any = None, **config: Any) -> fastrnn.SequenceModel:
    """Layers of one size, of which the last writes the result."""
    return fastrnn.SequenceModel([make("gru", 5, 7, dtype=dtype), make("lstm", 7, 7, dtype=dtype)], **config)


def characters(dtype: Any = None, **config: Any) -> fastrnn.SequenceModel:
    """The character model of the introductions."""
    layer = make("lstm", 19, 17, num_layers=2, dtype=dtype)
    return fastrnn.SequenceModel(layer, embedding="one_hot", head=dense(19, 17, "softmax"), **config)


def intents(dtype: Any = None, **config: Any) -> fastrnn.SequenceModel:
    """The classifier of the introductions: both directions, a chain of output layers."""
    layer = make("lstm", 6, 16, bidirectional=True, dtype=dtype)
    head = [dense(9, 32, "relu"), dense(3, 9, "log_softmax")]
    return fastrnn.SequenceModel(layer, embedding=matrix(11, 6), head=head, **config)


def deep(dtype: Any = None, **config: Any) -> fastrnn.SequenceModel:
    """Dense layers before, between and after recurrent ones of every layout."""
    layers = [
        dense(4, 5, "relu"),
        make("rnn", 4, 15, dtype=dtype, bidirectional=True),
        dense(7, 30, "tanh", bias=False),
        dense(5, 7),
        make("lstm_proj", 5, 7, dtype=dtype, batch_first=True),
        make("gru_before", 3, 37, dtype=dtype, bidirectional=True, num_layers=2),
        dense(8, 74, "sigmoid"),
    ]
    return fastrnn.SequenceModel(layers, head=dense(5, 8), **config)


def forward(dtype: Any = None, **config: Any) -> fastrnn.SequenceModel:
    """As deep, in one direction, for streams; V = I."""
    layers = [
        dense(4, 5, "relu"),
        make("rnn", 4, 15, dtype=dtype),
        dense(5, 15, "tanh"),
        make("lstm_proj", 5, 7, dtype=dtype, batch_first=True, num_layers=2),
        dense(8, 3, "sigmoid"),
    ]
    return fastrnn.SequenceModel(layers, head=dense(5, 8), **config)


MODELS = {function.__name__: function for function in (vectors, stacked, characters, intents, deep, forward)}
STREAMS = {name: MODELS[name] for name in ("vectors", "stacked", "characters", "forward")}
BY_IDS = {
    "tables": lambda: fastrnn.SequenceModel([make("gru", 5, 37), make("rnn", 37, 9)], embedding=matrix(11, 5)),
    "one_hot": lambda: fastrnn.SequenceModel(make("lstm_proj", 11, 17), embedding="one_hot", head=dense(11, 3, "tanh")),
    "dense": lambda: fastrnn.SequenceModel(
        [dense(4, 5, "relu"), dense(6, 4), make("gru_before", 6, 17)], embedding=matrix(11, 5), head=dense(3, 17)
    ),
    "one_hot_dense": lambda: fastrnn.SequenceModel([dense(4, 11), make("lstm", 4, 17)], embedding="one_hot"),
}


def sequences(model: Any, batch: int | None = 3, steps: int = 6, seed: int = 0) -> np.ndarray:
    """Draw ids where a model takes them, else vectors; one sequence with batch None."""
    rng = np.random.default_rng((seed, 4))
    axes = (steps,) if batch is None else (batch, steps)
    if model.embedding is None:
        return rng.normal(size=(*axes, model.layers[0].input_size)).astype(model._dtype)
    return rng.integers(0, model._vocab, axes)


def beginning(model: Any, batch: int | None = 3, seed: int = 0) -> list[Any]:
    """Draw a state."""
    rng = np.random.default_rng((seed, 5))
    state = []
    for layer in model.layers:
        if isinstance(layer, Recurrent):
            axes = (layer._stacked,) if batch is None else (layer._stacked, batch)
            hx = tuple(rng.uniform(-1, 1, (*axes, n)).astype(layer.dtype) for n in layer._state_sizes)
            state.append(hx if len(hx) > 1 else hx[0])
    return state


class Expected(NamedTuple):
    """What a model should give."""

    y: np.ndarray
    state: list[np.ndarray]  # of all layers, flat


def expected(
    model: Any, x: np.ndarray, lengths: Any = None, state: Any = None, wiring: str = "many_to_many", pool: str = "final"
) -> Expected:
    """Run a batch by the reference in a wider type, sequence by sequence, so that no length is ever needed."""
    batch, steps = x.shape[:2]
    results, states = [], []
    for b in range(batch):
        valid = steps if lengths is None else int(lengths[b])
        hx = None if state is None else [[s[:, b] for s in arrays(layer)] for layer in state]
        y, last, finals = _alone(model, x[b, :valid], hx)
        states.append(finals)
        if wiring == "many_to_many":
            y = _dense(model.head, y)
            results.append(np.concatenate([y, np.zeros((steps - valid, y.shape[1]), y.dtype)]))
            continue
        if pool == "final":
            pooled = last
        elif not valid:
            pooled = np.zeros_like(last)
        else:
            pooled = {"last": lambda y: y[-1], "mean": lambda y: y.mean(0), "max": lambda y: y.max(0)}[pool](y)
        results.append(_dense(model.head, pooled[None])[0])
    return Expected(np.array(results), [np.stack(parts, axis=1) for parts in zip(*states, strict=True)])


def _alone(model: Any, x: np.ndarray, state: Any) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """What the layers give at each step of one sequence, what "final" starts from, and the states."""
    wide = np.float64 if model._dtype == np.float32 else np.longdouble
    if x.dtype.kind in "iu":
        x = (np.eye(model._vocab) if isinstance(model.embedding, str) else model.embedding)[x]
    y, final, finals = np.asarray(x, wide), np.zeros(0, wide), []
    for layer in model.layers:
        if not isinstance(layer, Recurrent):
            y, final = _dense([layer], y), _dense([layer], final[None])[0] if final.size else final
            continue
        y, *hx = oracle(layer, y, None if state is None else tuple(state.pop(0)))
        final = hx[0][-(1 + layer.bidirectional) :].reshape(-1)
        finals += hx
    return y, final, finals


def _dense(layers: Any, rows: np.ndarray) -> np.ndarray:
    for layer in layers:
        plan = layer.plan
        sums = rows @ plan.weight.astype(rows.dtype).T + (0 if plan.bias is None else plan.bias)
        rows = np.empty_like(sums)
        reference.activate(plan.activation, sums, rows)
    return rows
