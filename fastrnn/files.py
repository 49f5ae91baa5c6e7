"""Saved models: safetensors with the architecture in the metadata."""

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fastrnn import checks
from fastrnn.cells import ARITHMETIC
from fastrnn.checks import FormatError, UnsupportedError
from fastrnn.dense import Dense, DenseLayer
from fastrnn.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from fastrnn.model import SequenceModel
from fastrnn.own_cells import Cell
from fastrnn.recurrent import Recurrent
from fastrnn.vocabulary import Vocabulary
from fastrnn.weighted import Weighted
from fastrnn.weights import expected_shapes

__all__ = ["load", "save", "token"]

FORMAT = 1  # rises when older versions cannot read what this one writes
_ENTRY = "fastrnn"  # of the metadata
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell, Recurrent)}
_DTYPES = {"F32": np.float32, "F64": np.float64}
_MATRIX = "matrix"  # in the place of an embedding's
_INITIAL = ("initial_state_h", "initial_state_c")
_CURE = "save the model again with its method save"
_LARGEST_HEADER = 1 << 24  # bytes; a thousand tensors take a tenth of a megabyte


def save(model: Weighted | SequenceModel, path: "str | os.PathLike[str]") -> None:
    """Write a layer or cell, or a model: see `Saved.save`."""
    import safetensors.numpy

    name = checks.path(path)
    entry, tensors = _contents(model)
    # One entry: safetensors writes several in an order that changes from call to call
    data = safetensors.numpy.save(tensors, {_ENTRY: entry})
    header = int.from_bytes(data[:8], "little")
    if header > _LARGEST_HEADER:
        raise checks.large_header(header, _LARGEST_HEADER)
    _write(data, name)


def token(model: Weighted | SequenceModel | DenseLayer) -> str:
    """Return a hash of its class and what `save` writes: equal in all processes for equal models, and these alone."""
    entry, tensors = _contents(model)
    kind = [type(model).__module__, type(model).__qualname__]
    layers = model.layers if isinstance(model, SequenceModel) else (model,)
    kind += [layer._sizes.variant for layer in layers if isinstance(layer, Recurrent)]  # an own cell's has its hash
    shapes = [[name, tensor.shape] for name, tensor in tensors.items()]
    found = hashlib.sha256(json.dumps([kind, entry, shapes]).encode())
    for tensor in tensors.values():
        found.update(np.ascontiguousarray(tensor).data)
    return found.hexdigest()


def _contents(model: Weighted | SequenceModel | DenseLayer) -> tuple[str, dict[str, np.ndarray]]:
    """Return what a file says of the model, as JSON, and the tensors."""
    architecture, tensors = _describe_model(model) if isinstance(model, SequenceModel) else _describe(model)
    return json.dumps({"format": FORMAT, "arithmetic": ARITHMETIC, "architecture": architecture}), tensors


def _describe(layer: Weighted | DenseLayer) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return architecture and tensors of one layer."""
    if isinstance(layer, DenseLayer):
        plan = layer.plan
        tensors = {"weight": plan.weight} | ({} if plan.bias is None else {"bias": plan.bias})
        return {"kind": "Dense", "bias": plan.bias is not None, "activation": plan.activation}, tensors
    kind = next(name for name, kind in _KINDS.items() if isinstance(layer, kind))
    architecture = {"kind": kind, **layer._config(), "dtype": layer.dtype.name}
    if "cell" in architecture:
        architecture["cell"] = architecture["cell"].config()
    return architecture, layer.state_dict() | dict(zip(_INITIAL, layer._initial or (), strict=False))


def _describe_model(model: SequenceModel) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return architecture and tensors of a model: "layers.0.weight_ih_l0", "head.0.weight", "embedding.weight", .."""
    architecture: dict[str, Any] = {"kind": "SequenceModel", "dtype": model._dtype.name, "layers": [], "head": []}
    tensors: dict[str, np.ndarray] = {}
    for part in ("layers", "head"):
        for i, layer in enumerate(getattr(model, part)):
            config, own = _describe(layer)
            architecture[part].append(config)
            tensors |= {f"{part}.{i}.{name}": tensor for name, tensor in own.items()}
    architecture["embedding"] = model.embedding
    if isinstance(model.embedding, np.ndarray):
        architecture["embedding"], tensors["embedding.weight"] = _MATRIX, model.embedding
    architecture |= {"wiring": model.wiring, "pool": model.pool, "labels": model.labels}
    architecture["vocabulary"] = None if model.vocabulary is None else model.vocabulary._config()
    return architecture, tensors


def _write(data: bytes, name: str) -> None:
    """Write a file whole or not at all: a full disk or an interrupt leaves what was there before."""
    path = os.path.realpath(name)  # a link goes on pointing at its file
    if os.path.exists(path) and not os.path.isfile(path):  # a device or a pipe is written to, never replaced
        with open(path, "wb") as file:
            file.write(data)
        return
    if not os.path.isdir(folder := os.path.dirname(path)):
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", folder)
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
    RNN, LSTM, GRU, Recurrent, RNNCell, LSTMCell, GRUCell or SequenceModel
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


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of JSON, whose names must differ."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise FormatError(f"its metadata have a name twice among {[name for name, _ in pairs]!r:.80}: {_CURE}")
    return found


def _model(file: Any) -> Any:
    architecture = _architecture(file.metadata() or {})
    tensors: dict[str, set[str]] = {}  # what there is, by what stands before the last dot
    for name in file.keys():  # noqa: SIM118 - no mapping
        before, dot, last = name.rpartition(".")
        tensors.setdefault(before + dot, set()).add(last)
    with _reading():
        if architecture["kind"] == SequenceModel.__name__:
            return _sequence_model(architecture, file, tensors)
        if strangers := sorted(tensors.keys() - {""}):
            raise FormatError(f"the tensors {strangers[0] + '*'!r} belong to no layer")
        return _layer(architecture, file, "", tensors.get("", set()))


def _architecture(metadata: dict[str, str]) -> Any:
    """Return what the metadata says of the model."""
    if _ENTRY not in metadata:
        raise FormatError(
            "not saved by fastrnn; for plain weights use fastrnn.from_state_dict(safetensors.numpy.load_file(path))"
        )
    with _reading():
        entry = json.loads(metadata[_ENTRY], object_pairs_hook=_once)
        known = {"format": FORMAT, "arithmetic": ARITHMETIC}  # an older arithmetic has the same weights, and other bits
        for name, newest in known.items():  # first: a newer version may have other entries
            version = entry.get(name)
            if type(version) is not int or version < 1:
                raise FormatError(f"its {name} is {version!r:.40}, expected an int in 1..{newest}: {_CURE}")
            if version > newest:
                raise FormatError(
                    f"its {name} is {version!r:.40}, this fastrnn reads {newest}: install a newer fastrnn"
                )
        for where, found, wanted in (("metadata", metadata, {_ENTRY}), (_ENTRY, entry, {*known, "architecture"})):
            if found.keys() != wanted:
                raise FormatError(
                    f"in its {where!r} {sorted(found.keys() ^ wanted)!s:.200} are missing or unknown: {_CURE}"
                )
        return entry["architecture"]


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Turn what is raised over an architecture that makes no sense into FormatError."""
    try:
        yield
    except FormatError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError, LookupError, UnsupportedError) as error:
        raise FormatError(f"its architecture cannot be read ({type(error).__name__}: {error!s:.200})") from error


def _sequence_model(config: dict[str, Any], file: Any, tensors: Mapping[str, set[str]]) -> SequenceModel:
    """Make a model of its parts."""
    _demand(config, ("kind", "dtype", "layers", "head", "embedding", "wiring", "pool", "labels", "vocabulary"))
    matrix = config["embedding"] == _MATRIX
    # The count comes first: a file may claim more layers than it has bytes for.
    count = len(config["layers"]) + len(config["head"]) + matrix
    if count != len(tensors):
        raise FormatError(f"it has the tensors of {len(tensors)} parts, and its architecture {count}")
    if matrix and tensors.get("embedding.") != {"weight"}:
        raise FormatError("tensor 'embedding.weight' is missing, or not alone")
    dtype = checks.dtype(config["dtype"])

    def parts(name: str) -> list[Any]:
        prefixes = [f"{name}.{i}." for i in range(len(config[name]))]
        return [
            _part(part, file, prefix, tensors.get(prefix, set()), dtype)
            for part, prefix in zip(config[name], prefixes, strict=True)
        ]

    vocabulary = config["vocabulary"]
    if vocabulary is not None:
        _demand(vocabulary, Vocabulary(("a",))._config())
    return SequenceModel(
        parts("layers"),
        head=parts("head"),
        embedding=_tensor(file, "embedding.weight", dtype) if matrix else config["embedding"],
        wiring=config["wiring"],
        pool=config["pool"],
        labels=config["labels"],
        vocabulary=None if vocabulary is None else Vocabulary(**vocabulary),
    )


def _part(config: dict[str, Any], file: Any, prefix: str, names: set[str], dtype: np.dtype[Any]) -> Any:
    """Make a layer of a model, which has this dtype."""
    if config["kind"] != Dense.__name__:
        if config["dtype"] != dtype.name:
            raise FormatError(f"{prefix}dtype is {config['dtype']!r:.20}, and the model's {dtype.name}")
        return _layer(config, file, prefix, names)
    _demand(config, ("kind", "bias", "activation"))
    wanted = ["weight", "bias"] if checks.flag(config["bias"], "bias") else ["weight"]
    if names != set(wanted):
        raise FormatError(f"{prefix}* has the tensors {sorted(names)}, expected {wanted}")
    tensors = {name: _tensor(file, prefix + name, dtype) for name in wanted}
    return Dense(**tensors, activation=config["activation"])


def _layer(config: dict[str, Any], file: Any, prefix: str, names: set[str]) -> Any:
    """Make a recurrent layer or a cell, with its weights."""
    kind = _KINDS[config.pop("kind")]
    first: tuple[Any, ...] = ()
    if kind is Recurrent:
        _demand(config["cell"], Cell("rnn").config())
        config["cell"] = Cell.of(config["cell"])
        first = (config["cell"],)
    _demand(config, kind(*first, 1, 1)._config())
    model = kind(**config)
    initial = [
        name for name in _INITIAL[: len(model._state_sizes)] if name in names and hasattr(model, "initial_state")
    ]
    sizes = model._sizes
    # The count comes first: a file may claim so many layers that their names alone would fill the memory.
    per_layer = len(expected_shapes(sizes._replace(num_layers=1, num_directions=1)))
    if len(names) != sizes.num_layers * sizes.num_directions * per_layer + len(initial):
        raise FormatError(f"{len(names)} tensors are not what {model!r} has")
    wanted: dict[str, tuple[int, ...]] = expected_shapes(sizes)
    wanted |= {
        name: (model._stacked, n) for name, n in zip(_INITIAL, model._state_sizes, strict=False) if name in initial
    }
    for name in wanted:
        if name not in names:
            raise FormatError(f"tensor {prefix + name!r} is missing")
    tensors = {name: _tensor(file, prefix + name, model.dtype, shape) for name, shape in wanted.items()}
    if initial:
        states = tuple(tensors.pop(name) for name in initial)
        if len(states) != len(model._state_sizes):
            raise FormatError("the initial state is incomplete")
        model.initial_state = states if len(states) > 1 else states[0]
    return model.load_state_dict(tensors)


def _demand(config: dict[str, Any], names: Iterable[str]) -> None:
    """Demand an architecture with these entries and no other."""
    if config.keys() != set(names):
        raise ValueError(f"arguments {sorted(config.keys() ^ set(names))} are missing or unknown")


def _tensor(file: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...] | None = None) -> Any:
    """Read a tensor of this dtype, and of this shape where it is known."""
    entry = file.get_slice(name)
    found = tuple(entry.get_shape())
    if found != (shape or found) or _DTYPES.get(entry.get_dtype()) != dtype.type:
        raise FormatError(f"tensor {name!r} is {entry.get_dtype()} {found}, expected {dtype} {shape or ''}")
    return file.get_tensor(name)
