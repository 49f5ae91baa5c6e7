"""Saved models: safetensors with the architecture in the metadata."""

import contextlib
import json
import os
import threading
from typing import Any

import numpy as np

from fastrnn import checks
from fastrnn.checks import FormatError, UnsupportedError
from fastrnn.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from fastrnn.recurrent import Weighted
from fastrnn.weights import expected_shapes

__all__ = ["load", "save"]

FORMAT = 1  # rises when older versions cannot read what this one writes
_ENTRY = "fastrnn"  # of the metadata
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell)}
_DTYPES = {"F32": np.float32, "F64": np.float64}
_INITIAL = ("initial_state_h", "initial_state_c")
_LARGEST_HEADER = 1 << 24  # bytes; a thousand tensors take a tenth of a megabyte


def save(model: Weighted, path: "str | os.PathLike[str]") -> None:
    """Write a layer or cell: see `Weighted.save`."""
    import safetensors.numpy

    from fastrnn import ARITHMETIC

    name = checks.path(path)
    kind = next(name for name, kind in _KINDS.items() if isinstance(model, kind))
    architecture = {"kind": kind, **model._config(), "dtype": model.dtype.name}
    # One entry: safetensors writes several in an order that changes from call to call
    metadata = {_ENTRY: json.dumps({"format": FORMAT, "arithmetic": ARITHMETIC, "architecture": architecture})}
    tensors = model.state_dict() | dict(zip(_INITIAL, model._initial or (), strict=False))
    _write(safetensors.numpy.save(tensors, metadata), name)


def _write(data: bytes, name: str) -> None:
    """Write a file whole or not at all: a full disk or an interrupt leaves what was there before."""
    path = os.path.realpath(name)  # a link goes on pointing at its file
    if os.path.exists(path) and not os.path.isfile(path):  # a device or a pipe is written to, never replaced
        with open(path, "wb") as file:
            file.write(data)
        return
    beside = f"{path}.{os.getpid()}.{threading.get_ident()}.tmp"
    file = open(beside, "xb")  # noqa: SIM115 - before the try: what stands there already is not ours to remove
    try:
        with file:
            file.write(data)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(beside)
        raise


def load(path: "str | os.PathLike[str]") -> Any:
    """Read what ``save`` wrote.

    Nothing that the file claims is believed before it is checked against the size of the file, so memory stays in
    proportion to it.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell
        Of the kind that was saved.

    Raises
    ------
    FormatError
        For a file that is broken, or no model of fastrnn.
    OSError
        For a file that cannot be opened.

    Examples
    --------
    >>> import fastrnn, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "gru.safetensors")
    >>> fastrnn.GRU(3, 4, batch_first=True).init().save(path)
    >>> fastrnn.load(path)
    GRU(3, 4, batch_first=True)
    """
    from safetensors import SafetensorError, safe_open

    name = checks.path(path)
    _check_header(name)
    try:
        with safe_open(name, framework="numpy") as file:
            return _model(file)
    except (SafetensorError, FormatError) as error:
        raise FormatError(f"{name}: {error}") from error


def _check_header(name: str) -> None:
    """Demand a header of a fair size, before anything reads it."""
    with open(name, "rb") as file:
        start = file.read(8)
        size = os.fstat(file.fileno()).st_size
    header = int.from_bytes(start, "little")
    if len(start) < 8 or header > size - 8:
        raise FormatError(f"{name}: no safetensors file, or one that was cut off ({size} bytes)")
    if header > _LARGEST_HEADER:
        raise FormatError(f"{name}: its header of {header} bytes is larger than any model's ({_LARGEST_HEADER})")


def _model(file: Any) -> Any:
    model = _architecture(file.metadata() or {})
    names = set(file.keys())
    initial = [
        name for name in _INITIAL[: len(model._state_sizes)] if name in names and hasattr(model, "initial_state")
    ]
    sizes = model._sizes
    # The count comes first: a file may claim so many layers that their names alone would fill the memory.
    per_layer = 2 + 2 * sizes.bias + (sizes.proj_size > 0)
    if len(names) != sizes.num_layers * sizes.num_directions * per_layer + len(initial):
        raise FormatError(f"{len(names)} tensors are not what {model!r} has")
    wanted: dict[str, tuple[int, ...]] = expected_shapes(sizes)
    wanted |= {
        name: (model._stacked, n) for name, n in zip(_INITIAL, model._state_sizes, strict=False) if name in initial
    }
    for name, shape in wanted.items():
        if name not in names:
            raise FormatError(f"tensor {name!r} is missing")
        entry = file.get_slice(name)
        if tuple(entry.get_shape()) != shape or _DTYPES.get(entry.get_dtype()) != model.dtype.type:
            raise FormatError(
                f"tensor {name!r} is {entry.get_dtype()} {tuple(entry.get_shape())}, expected {model.dtype} {shape}"
            )
    tensors = {name: file.get_tensor(name) for name in wanted}
    if initial:
        states = tuple(tensors.pop(name) for name in initial)
        if len(states) != len(model._state_sizes):
            raise FormatError("the initial state is incomplete")
        model.initial_state = states if len(states) > 1 else states[0]
    return model.load_state_dict(tensors)


def _architecture(metadata: dict[str, str]) -> Any:
    """Return the model that the metadata describes, without weights."""
    if _ENTRY not in metadata:
        raise FormatError(
            "not saved by fastrnn; for plain weights use fastrnn.from_state_dict(safetensors.numpy.load_file(path))"
        )
    try:
        entry = json.loads(metadata[_ENTRY])
        version = entry["format"]
        if version == FORMAT:
            config = entry["architecture"]
            kind = _KINDS[config.pop("kind")]
            known, given = kind(1, 1)._config().keys(), config.keys()
            if known != given:
                raise ValueError(f"arguments {sorted(given ^ known)} are missing or unknown")
            return kind(**config)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, UnsupportedError) as error:
        raise FormatError(f"its architecture cannot be read ({type(error).__name__}: {error!s:.200})") from error
    raise FormatError(f"its format is {version!r:.20}, this fastrnn reads {FORMAT}: install a newer fastrnn")
