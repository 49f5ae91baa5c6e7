"""Layers and models for compiled code: docs/cython.md and docs/c.md."""

import os
from typing import Any

from fastrnn import backends, checks, preparing
from fastrnn.dense import DenseLayer
from fastrnn.model import SequenceModel
from fastrnn.weighted import Weighted
from fastrnn.wiring import rows_of_ids

__all__ = ["capsule", "get_include"]


def get_include() -> str:
    """Return the folder of ``fastrnn.h``, for the ``include_dirs`` of an extension module in C, C++ or Cython."""
    return os.path.join(os.path.dirname(__file__), "include")


def capsule(model: Any) -> Any:
    """Give a layer or a model to code in C, C++ or Cython, which runs it without Python.

    Parameters
    ----------
    model : RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell or SequenceModel
        With weights, in one direction. Of a model its steps, as by `SequenceModel.stream`: embedding, layers and head.

    Returns
    -------
    PyCapsule
        Named "fastrnn.model", with the weights that the model has now; what is loaded later is for later capsules.
        Its model is immutable, and there for as long as this object is: whoever has the pointer keeps the object too.
        It runs on the compiled kernels, whatever the backend in use, and always on the thread that calls.

    Raises
    ------
    UnsupportedError
        For a bidirectional layer, whose backward direction starts at the end.
    ImportError
        Without the compiled module.
    ValueError
        For a layer without weights.
    TypeError
        For anything else.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.capsule(fastrnn.LSTM(3, 4).init(seed=0))
    <capsule object "fastrnn.model" at 0x...>
    """
    if not isinstance(model, (Weighted, SequenceModel)):
        raise TypeError(
            "capsule takes a layer, a cell or a SequenceModel of fastrnn, such as fastrnn.from_torch(module) returns, "
            f"got {type(model).__name__}"
        )
    backends.load("cython")
    from fastrnn import _native

    def network(layer: Weighted) -> Any:
        """Return what the layers of one network are to a chain: their weights and the states that they start from."""
        checks.forward_only([layer])
        engine: Any = layer._prepare("cython")
        return _native.Stepper(engine, layer._start(1), True)

    with preparing.lock:  # so that all parts have the weights of one moment
        if isinstance(model, Weighted):
            return _native.capsule([network(model)], None, None)
        parts = [
            part.runner("cython") if isinstance(part, DenseLayer) else network(part)
            for part in (*model.layers, *model.head)
        ]
        if model._vocab is None:
            return _native.capsule(parts, None, None)
        by_ids: Any = None if model._by_ids is None else model._by_ids.run("cython")
        return _native.capsule(parts, rows_of_ids(model.embedding, model._vocab, model._dtype), by_ids)
