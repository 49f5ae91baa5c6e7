"""Layers and models inside functions that Numba compiles: ``pack`` them in Python, and ``step`` needs no Python.

docs/njit.md is the guide. Needs the extra ``numba``.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

try:
    from fastrnn.numba_kernels.packed import Packed
except ImportError as error:
    raise ImportError(f"fastrnn.jit needs Numba ({error}): pip install 'fastrnn[numba]'") from error
from fastrnn import checks
from fastrnn.dense import DenseLayer, DensePlan
from fastrnn.model import SequenceModel
from fastrnn.numba_kernels.arguments import forward, init_state, reset, sigmoid, softmax, step, tanh
from fastrnn.recurrent import Recurrent
from fastrnn.wiring import rows_of_ids

if TYPE_CHECKING:
    from fastrnn.packing import Plan

__all__ = ["Packed", "forward", "init_state", "pack", "reset", "sigmoid", "softmax", "step", "tanh"]


def pack(layer_or_model: Any, dtype: Any = None) -> Packed:
    """Pack the weights that a layer or a model has now, for functions that Numba compiles.

    Parameters
    ----------
    layer_or_model : RNN, LSTM, GRU, Recurrent or SequenceModel
        A model goes from ids or vectors through all layers and its head; a pool is left out, as by its stream.
    dtype : dtype, optional
        float32 or float64: of weights, inputs, states and results. Default: the layer's.

    Returns
    -------
    Packed
        To be passed as an argument. A global of a compiled function is frozen, as all globals are: what is packed later
        does not reach that function, and it is not cached.

    Raises
    ------
    TypeError
        For what is no layer and no model.
    ValueError
        Without weights.

    Examples
    --------
    >>> import numba, numpy as np, fastrnn
    >>> from fastrnn import jit
    >>> @numba.njit
    ... def last(w, x):
    ...     state, y = jit.init_state(w), np.empty(w.output_size, x.dtype)
    ...     for t in range(len(x)):
    ...         jit.step(w, x[t], state, y)
    ...     return y
    >>> layer = fastrnn.LSTM(3, 4).init(seed=0)
    >>> x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    >>> np.array_equal(last(jit.pack(layer), x), layer(x)[0][-1])
    True
    """
    given = layer_or_model
    model = given if isinstance(given, SequenceModel) else None
    if model is None and not isinstance(given, Recurrent):
        accepted = "fastrnn.RNN, LSTM, GRU, Recurrent or SequenceModel"
        raise TypeError(f"layer_or_model must be a {accepted}, got {type(given).__name__}")
    layers = [given] if model is None else [*model.layers, *model.head]
    wanted = next(layer.dtype for layer in layers if isinstance(layer, Recurrent))
    if dtype is not None:
        wanted = checks.dtype(dtype)
    plans = [_plan(layer, wanted) for layer in layers]
    initial = [
        None if layer._initial is None else tuple(state.astype(wanted) for state in layer._initial)
        for layer in layers
        if isinstance(layer, Recurrent)
    ]
    embedding: Any = None if model is None else model.embedding
    ids = None
    if model is not None and model._vocab is not None:
        if isinstance(embedding, np.ndarray):
            embedding = embedding.astype(wanted, order="C")
        ids = rows_of_ids(embedding, model._vocab, wanted)
    return Packed(plans, initial, model is not None, ids, embedding, f"{given!r}, {wanted}")


def _plan(layer: Recurrent | DenseLayer, dtype: np.dtype[Any]) -> "Plan | DensePlan":
    if isinstance(layer, Recurrent):
        plan = layer._planned()
        return plan if plan.dtype == dtype else plan.astype(dtype)
    dense = layer.plan
    if dense.dtype == dtype:
        return dense
    bias = None if dense.bias is None else dense.bias.astype(dtype)
    return DensePlan(dense.weight.astype(dtype), bias, dense.activation)
