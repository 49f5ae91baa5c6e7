"""The formulas in NumPy: the oracle of the tests, and a backend.

Per cell `<cell>_gates` is the pointwise math, `<cell>_step` one time step, `<cell>_forward` the loop over time. Results
are in the dtype of the arrays and agree with the kernels up to rounding: NumPy's functions and sums round in their own
way. Letters in shapes: T time, B batch, I input, H hidden, P projection, R = P or H, G gates, L layers, D directions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.cells import variant
from fastrnn.weights import Weights, fold_biases

if TYPE_CHECKING:
    from fastrnn.dense import DensePlan
    from fastrnn.packing import Plan

__all__ = [
    "ACTIVATIONS",
    "activate",
    "dense",
    "flush",
    "gru_forward",
    "gru_gates",
    "gru_step",
    "linear",
    "log_softmax",
    "lstm_forward",
    "lstm_gates",
    "lstm_step",
    "relu",
    "rnn_forward",
    "rnn_gates",
    "rnn_step",
    "run",
    "sigmoid",
    "softmax",
    "trace",
]

Arrays = dict[str, np.ndarray]  # gates and states of a step by name, (B, H) each; h is (B, R)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return ``1 / (1 + exp(-x))`` without overflow: the exponent is never positive."""
    e = np.exp(-np.abs(x))
    result: np.ndarray = np.where(x >= 0, e.dtype.type(1), e) / (1 + e)
    return result


def relu(x: np.ndarray) -> np.ndarray:
    """Return ``max(0, x)``; NaN passes."""
    result: np.ndarray = np.maximum(x, 0)
    return result


def linear(x: np.ndarray) -> np.ndarray:
    """Return x."""
    return x


def softmax(x: np.ndarray) -> np.ndarray:
    """Return ``exp(x) / sum(exp(x))`` over the last axis, from x less its largest so that nothing overflows."""
    e = np.exp(x - x.max(-1, keepdims=True))
    result: np.ndarray = e / e.sum(-1, keepdims=True)
    return result


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Return ``log(softmax(x))`` without taking the logarithm of a small number."""
    below = x - x.max(-1, keepdims=True)
    result: np.ndarray = below - np.log(np.exp(below).sum(-1, keepdims=True))
    return result


Function = Callable[[np.ndarray], np.ndarray]
ACTIVATIONS: dict[str, Function] = {
    "tanh": np.tanh,
    "relu": relu,
    "sigmoid": sigmoid,
    "linear": linear,
}
_ROWS: dict[str, Function] = ACTIVATIONS | {"softmax": softmax, "log_softmax": log_softmax}
_SIGMA_TANH: dict[str, tuple[Function, Function]] = {"standard": (sigmoid, np.tanh), "linear": (linear, linear)}
_TINY = {np.dtype(np.float32): 2.0**-62, np.dtype(np.float64): 2.0**-510}


def flush(state: np.ndarray) -> np.ndarray:
    """Replace tiny values, below 2^-62 (float32) or 2^-510 (float64) in magnitude, by +0; NaN is kept."""
    return np.where(np.abs(state) < _TINY[state.dtype], state.dtype.type(0), state)


def _times(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Multiply x (B, K) by w (N, K) transposed.

    Row by row: `x @ w.T` is faster, but there a row's bits depend on how many rows there are.
    """
    product: np.ndarray = (x[:, None, :] @ w.T)[:, 0]
    return product


def activate(activation: str, x: np.ndarray, out: np.ndarray) -> None:
    """Write a function of `dense.FUNCTIONS` of x (N, V) to out."""
    with np.errstate(all="ignore"):  # kernels do not warn either
        out[:] = _ROWS[activation](x)


def dense(plan: "DensePlan", x: np.ndarray, out: np.ndarray) -> None:
    """Write ``f(W x + b)`` to out (N, V) for x (N, K)."""
    with np.errstate(all="ignore"):
        a = _times(x, plan.weight) + (0 if plan.bias is None else plan.bias)
    activate(plan.activation, a, out)


def rnn_gates(a: np.ndarray, activation: str = "tanh") -> Arrays:
    """Compute ``h' = f(a)``; a (B, H) is the sum before activation."""
    return {"h": ACTIVATIONS[activation](a)}


def rnn_step(w: Weights, x: np.ndarray, h: np.ndarray, *, activation: str = "tanh") -> Arrays:
    """Compute ``h' = f(U x + b_ih + W h + b_hh)`` for x (B, I), h (B, H) [1]_.

    References
    ----------
    .. [1] Elman, "Finding structure in time", Cognitive Science 14 (1990).
    """
    b, _ = fold_biases("rnn", w)
    new = rnn_gates(b + _times(x, w.w_ih) + _times(h, w.w_hh), activation)
    return new | {"h": flush(new["h"])}


def lstm_gates(a: np.ndarray, c: np.ndarray, activation: str = "standard") -> Arrays:
    """Compute ``c' = s(f) c + s(i) tanh(g)`` and ``h' = s(o) tanh(c')``; a (B, 4H) holds i, f, g, o.

    h' is not flushed: a projection takes it as it is.
    """
    s, tanh = _SIGMA_TANH[activation]
    i, f, g, o = np.split(a, 4, axis=-1)
    i, f, g, o = s(i), s(f), tanh(g), s(o)
    c = flush(f * c + i * g)
    return {"i": i, "f": f, "g": g, "o": o, "c": c, "h": o * tanh(c)}


def lstm_step(w: Weights, x: np.ndarray, h: np.ndarray, c: np.ndarray, *, activation: str = "standard") -> Arrays:
    """Compute one step of an LSTM [1]_, with projection ``h' = W_hr (s(o) tanh(c'))`` where w has w_hr [2]_.

    Parameters
    ----------
    w : Weights
    x : (B, I) array
    h : (B, R) array
    c : (B, H) array
    activation : {"standard", "linear"}

    Returns
    -------
    dict of str to array
        The gates i, f, g, o after activation and the new c, (B, H) each, and the new h (B, R).

    References
    ----------
    .. [1] Gers, Schmidhuber, Cummins, "Learning to forget", Neural Computation 12 (2000).
    .. [2] Sak, Senior, Beaufays, "Long short-term memory recurrent neural network architectures", Interspeech 2014.
    """
    b, _ = fold_biases("lstm", w)
    new = lstm_gates(b + _times(x, w.w_ih) + _times(h, w.w_hh), c, activation)
    return new | {"h": flush(new["h"] if w.w_hr is None else _times(new["h"], w.w_hr))}


def gru_gates(
    a_r: np.ndarray,
    a_z: np.ndarray,
    a_n: Function,
    h: np.ndarray,
    activation: str = "standard",
) -> Arrays:
    """Compute ``h' = (1 - z) n + z h``; `a_n` makes the sum before n's activation from r, by either form of reset."""
    s, tanh = _SIGMA_TANH[activation]
    r, z = s(a_r), s(a_z)
    n = tanh(a_n(r))
    return {"r": r, "z": z, "n": n, "h": z * h + (n - z * n)}


def gru_step(
    w: Weights, x: np.ndarray, h: np.ndarray, *, activation: str = "standard", reset_after: bool = True
) -> Arrays:
    """Compute one step of a GRU.

    ``n = tanh(U x + b_in + r * (W h + b_hn))`` with `reset_after` (torch), ``n = tanh(U x + W (r * h) + b_in + b_hn)``
    without, as first published [1]_.

    Parameters
    ----------
    w : Weights
    x : (B, I) array
    h : (B, H) array
    activation : {"standard", "linear"}
    reset_after : bool

    Returns
    -------
    dict of str to array
        The gates r, z, n after activation and the new h, (B, H) each.

    References
    ----------
    .. [1] Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014.
    """
    b, b_h = fold_biases("gru" if reset_after else "gru_before", w)
    w_r, w_z, w_n = np.split(w.w_hh, 3)
    x_r, x_z, x_n = np.split(b + _times(x, w.w_ih), 3, axis=-1)

    def a_n(r: np.ndarray) -> np.ndarray:
        a: np.ndarray = r * (b_h + _times(h, w_n)) + x_n if reset_after else x_n + _times(r * h, w_n)
        return a

    new = gru_gates(x_r + _times(h, w_r), x_z + _times(h, w_z), a_n, h, activation)
    return new | {"h": flush(new["h"])}


def _forward(
    step: Callable[..., Arrays],
    names: Sequence[str],
    x: np.ndarray,
    state: Sequence[np.ndarray],
    lengths: np.ndarray | None,
    reverse: bool,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Run `step` over x (T, B, I); `names` are the states'. A row takes no step at times beyond its length."""
    state = [s.copy() for s in state]
    y = np.zeros((*x.shape[:2], state[0].shape[-1]), x.dtype)
    times = range(len(x))
    for t in reversed(times) if reverse else times:
        live: Any = slice(None) if lengths is None else np.flatnonzero(t < lengths)
        new = step(x[t, live], *(s[live] for s in state))
        for s, name in zip(state, names, strict=True):
            s[live] = new[name]
        y[t, live] = new["h"]
    return y, state


def rnn_forward(
    w: Weights,
    x: np.ndarray,
    h: np.ndarray,
    *,
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    activation: str = "tanh",
) -> tuple[np.ndarray, np.ndarray]:
    """Run `rnn_step` over time.

    Parameters
    ----------
    w : Weights
    x : (T, B, I) array
    h : (B, H) array
    lengths : (B,) array of int, optional
        Steps that are valid, 0..T. With 0 the state passes through.
    reverse : bool
        Run from the last valid step to the first; y stays aligned with x.
    activation : {"tanh", "relu", "sigmoid", "linear"}

    Returns
    -------
    y : (T, B, H) array
        Zero beyond a length.
    h : (B, H) array
    """
    y, (h,) = _forward(partial(rnn_step, w, activation=activation), "h", x, (h,), lengths, reverse)
    return y, h


def lstm_forward(
    w: Weights,
    x: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
    *,
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    activation: str = "standard",
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Run `lstm_step` over time: as `rnn_forward`, with y and h (.., R) and the state (h, c)."""
    step = partial(lstm_step, w, activation=activation)
    y, (h, c) = _forward(step, "hc", x, (h, c), lengths, reverse)
    return y, (h, c)


def gru_forward(
    w: Weights,
    x: np.ndarray,
    h: np.ndarray,
    *,
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    activation: str = "standard",
    reset_after: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Run `gru_step` over time: as `rnn_forward`."""
    step = partial(gru_step, w, activation=activation, reset_after=reset_after)
    y, (h,) = _forward(step, "h", x, (h,), lengths, reverse)
    return y, h


def own_step(name: str, w: Weights, x: np.ndarray, *state: np.ndarray, activation: str = "standard") -> Arrays:
    """Compute one step of a cell of one's own: its gates, before its function, and its states."""
    kind = variant(name)
    assert kind.function is not None
    b, b_h = fold_biases(name, w)
    over_x = np.split(b + _times(x, w.w_ih), len(kind.gates), axis=-1)
    sums = over_x
    if kind.recurrent:
        over_h = np.split(_times(state[0], w.w_hh), len(kind.gates), axis=-1)
        sums = [a + b for a, b in zip(over_x, over_h, strict=True)]
        if b_h is not None:
            sums[-1:] = over_x[-1], b_h + over_h[-1]
    new = kind.function(*sums, *state, *w.parameters)
    given = dict(zip(kind.gates, sums[: len(kind.gates)], strict=True))
    return given | dict(zip(kind.states, map(flush, new if isinstance(new, tuple) else (new,)), strict=True))


# Layers ---------------------------------------------------------------------------------------------------------------

_STEPS: dict[str, Callable[..., Arrays]] = {
    "rnn": rnn_step,
    "lstm": lstm_step,
    "lstm_proj": lstm_step,
    "gru": gru_step,
    "gru_before": partial(gru_step, reset_after=False),
}


def _step_of(name: str) -> Callable[..., Arrays]:
    return _STEPS.get(name) or partial(own_step, name)


def _layers(
    plan: "Plan",
    x: np.ndarray,
    state: Sequence[np.ndarray],
    lengths: np.ndarray | None,
    watch: Callable[[int, Arrays], None] | None = None,
) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Run all layers; returns y and, per layer and direction, the final states. `watch` sees every step."""
    finals = []
    for layer in range(plan.num_layers):
        outputs = []
        for direction in range(plan.num_directions):
            index = layer * plan.num_directions + direction
            step = partial(_step_of(plan.variant), plan.weights[index], activation=plan.activation)
            if watch is not None:
                step = partial(_watched, step, watch, index)
            y, final = _forward(
                step, variant(plan.variant).states, x, [s[index] for s in state], lengths, direction == 1
            )
            outputs.append(y)
            finals.append(final)
        x = np.concatenate(outputs, axis=-1)
    return x, finals


def _watched(
    step: Callable[..., Arrays], watch: Callable[[int, Arrays], None], index: int, *args: np.ndarray
) -> Arrays:
    new = step(*args)
    watch(index, new)
    return new


def _embed(plan: "Plan", ids: np.ndarray) -> np.ndarray:
    """Return the vectors (T, B, I) that ids (T, B) stand for."""
    assert plan.embedding is not None
    if not isinstance(plan.embedding, str):
        rows: np.ndarray = plan.embedding[ids]
        return rows
    x = np.zeros((*ids.shape, plan.input_size), plan.dtype)
    np.put_along_axis(x, ids[..., None], 1, axis=-1)
    return x


def run(
    plan: "Plan",
    x: np.ndarray,
    state: Sequence[np.ndarray],
    lengths: np.ndarray | None,
    y: np.ndarray,
    state_out: Sequence[np.ndarray],
) -> None:
    """Run a plan: the backend.

    Parameters
    ----------
    plan : Plan
    x : (T, B, I) array
        Of the plan's dtype, as are all arrays; or int64 (T, B) ids of its embedding.
    state : sequence of (L*D, B, R or H) arrays
    lengths : (B,) array of int, or None
    y : (T, B, D*R) array
        Written.
    state_out : sequence of (L*D, B, R or H) arrays
        Written.
    """
    if x.ndim == 2:
        x = _embed(plan, x)
    with np.errstate(all="ignore"):  # kernels do not warn either
        y[...], finals = _layers(plan, x, state, lengths)
    for index, final in enumerate(finals):
        for target, s in zip(state_out, final, strict=True):
            target[index] = s


def trace(plan: "Plan", x: np.ndarray, state: Sequence[np.ndarray]) -> list[Arrays]:
    """Return every gate, after its activation, and every state of every step.

    Parameters
    ----------
    plan : Plan
    x : (T, I) array
    state : sequence of (L*D, R or H) arrays

    Returns
    -------
    list of dict of str to array
        Per layer and direction; (T, H) arrays, h (T, R), aligned with x.
    """
    count = plan.num_layers * plan.num_directions
    steps: list[list[Arrays]] = [[] for _ in range(count)]
    with np.errstate(all="ignore"):
        _layers(plan, x[:, None], [s.reshape(count, 1, -1) for s in state], None, lambda i, new: steps[i].append(new))
    kind = variant(plan.variant)
    sizes = dict.fromkeys(kind.gates, plan.hidden_size) | dict(zip(kind.states, plan.state_sizes, strict=True))
    traces = []
    for index, new in enumerate(steps):
        if index % plan.num_directions:  # the backward direction ran from the end
            new.reverse()
        traces.append(
            {name: np.array([s[name][0] for s in new], plan.dtype).reshape(-1, size) for name, size in sizes.items()}
        )
    return traces
