"""Every check of an argument, and every message: what it is, what is accepted, what came, and the cure."""

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["FormatError", "UnsupportedError"]

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
LARGEST = 1 << 40  # of counts: no memory holds more of anything

_READABLE = (1, 3, 11, 13)  # DLPack's kinds of device: the CPU, and what CUDA or ROCm pin or manage in its memory
_FETCHES = {"torch": "{}.cpu()", "jaxlib": "jax.device_get({})", "cupy": "cupy.asnumpy({})"}  # by module


class FormatError(ValueError):
    """A file that is broken, hostile or not what its name says."""


class UnsupportedError(NotImplementedError):
    """A fair request that fastrnn, or this backend, does not do."""


# Values ---------------------------------------------------------------------------------------------------------------


def integer(value: Any, name: str, least: int, most: int | None = LARGEST) -> int:
    """Return an int from `least` to `most`, without an end for None."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int >= {least}, got {kind_of(value)}") from None
    if number < least:
        raise ValueError(f"{name} must be an int >= {least}, got {number}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be an int in {least}..{most}, got {number}")
    return number


def flag(value: Any, name: str) -> bool:
    """Return True or False; an int in its place is most often an argument too many before it."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {kind_of(value)}")
    return bool(value)


def choice(value: Any, name: str, accepted: Sequence[str]) -> str:
    """Return one of a few strings."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {quoted(accepted)}, got {kind_of(value)}")
    if value not in accepted:
        raise ValueError(f"{name} must be one of {quoted(accepted)}, got {value!r}")
    return value


def dropout(value: Any) -> float:
    """Return a probability, which is kept and never used."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"dropout must be a number in [0, 1], got {kind_of(value)}")
    if not 0 <= value <= 1:
        raise ValueError(f"dropout must be a number in [0, 1], got {value}")
    return float(value)


def device(value: Any) -> None:
    """Accept None or "cpu", as a string or torch's device."""
    if value is not None and str(value) != "cpu":
        raise UnsupportedError(f"device must be None or 'cpu', got {value!r}: fastrnn runs on CPUs only")


def dtype(value: Any) -> np.dtype[Any]:
    """Return float32 or float64 for None, a type, or NumPy's or torch's name for it."""
    accepted = "dtype must be float32 (None) or float64"
    if value is None:
        return FLOAT32
    name = str(value).removeprefix("torch.") if isinstance(value, str) or _is_torch(value) else value
    try:
        found = np.dtype(name)
    except TypeError:
        if isinstance(name, str):
            raise _wrong_dtype(accepted, name) from None
        raise TypeError(f"{accepted}, got {kind_of(value)}") from None
    for known in (FLOAT32, FLOAT64):
        if found == known:
            return known  # always the same object, so that layers compare by `is`
    raise _wrong_dtype(accepted, found.name if found.isnative else found.str)


def _wrong_dtype(accepted: str, name: str) -> Exception:
    if "float" in name and name not in ("float32", "float64"):
        return UnsupportedError(f"{accepted}, got {name}: weights and inputs of other types are cast to it")
    return ValueError(f"{accepted}, got {name}")


def num_threads(value: Any, name: str = "num_threads") -> int | None:
    """Return None for automatic, or an int >= 1 that a C int holds."""
    return None if value is None else integer(value, name, 1, (1 << 31) - 1)


def projection(value: Any, hidden_size: int) -> int:
    """Return proj_size: 0 for none, else less than hidden_size."""
    size = integer(value, "proj_size", 0)
    if size >= hidden_size:
        raise ValueError(f"proj_size must be less than hidden_size = {hidden_size}, got {size}: 0 means no projection")
    return size


def tensors(value: Any, prefix: Any) -> dict[str, np.ndarray | None]:
    """Return a state dict with the entries under `prefix` as arrays, the others as None."""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a string, got {kind_of(prefix)}")
    if not isinstance(value, Mapping):
        cure = ": pass module.state_dict()" if hasattr(value, "state_dict") else ""
        raise TypeError(f"tensors must be a mapping of names to arrays, got {kind_of(value)}{cure}")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"tensors must have strings as keys, got {key!r}")
    return {key: weight(value[key], key) if key.startswith(prefix) else None for key in value}


def read_off(config: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse arguments that the shapes of the weights already give."""
    if given := sorted(config.keys() & set(names)):
        raise TypeError(f"{', '.join(given)} must not be given: the names and shapes of the weights tell")


def path(value: Any) -> str:
    """Return a file's name."""
    try:
        return os.fsdecode(value)
    except TypeError:
        raise TypeError(f"path must be a string or a path, got {kind_of(value)}") from None


def large_header(size: int, limit: int) -> ValueError:
    """Return the error of a model whose description takes more bytes than `load` reads."""
    return ValueError(f"the vocabulary and labels take {size} bytes in a file, and may take {limit}: shorten them")


def no_weights(layer: object) -> ValueError:
    """Return the error of a layer that is called before it has weights."""
    return ValueError(f"{layer!r} has no weights: call load_state_dict(tensors), or init(seed) for random ones")


def own_cell(layer: object) -> UnsupportedError:
    """Return the error of a layer of an own cell on the compiled backend."""
    return UnsupportedError(
        f"{layer!r} has an own cell, which backend 'cython' does not run: 'numba' and 'reference' do"
    )


def not_yet(what: str) -> UnsupportedError:
    """Return the error of an argument that interface and file have room for, and nothing runs."""
    return UnsupportedError(f"{what} is not supported yet: leave it out")


# Arrays ---------------------------------------------------------------------------------------------------------------


def array(value: Any, name: str, text_cure: str = "pass numbers") -> np.ndarray:
    """Return any array-like or DLPack CPU tensor as an array of real numbers, in place where it can be."""
    value = value if type(value) is np.ndarray else _converted(value, name)
    if value.dtype.kind not in "fiub" and value.dtype.name != "bfloat16":
        raise TypeError(
            f"{name} must hold floats, integers or bools, got dtype {value.dtype}{_dtype_cure(value, text_cure)}"
        )
    return value  # type: ignore[no-any-return]


def integers(value: Any, name: str, of_bools: str = "") -> np.ndarray:
    """Return any array-like of integers as an array, or one without elements; of bools the message has a cure."""
    found = value if type(value) is np.ndarray else _converted(value, name)
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {found.dtype}{of_bools * (found.dtype.kind == 'b')}")
    return found


def weight(value: Any, name: str) -> np.ndarray:
    """Return an array of weights: tensors that require grad are detached, those on other devices are fetched."""
    if _is_torch(value) and hasattr(value, "detach"):
        try:
            value = value.detach().cpu()
        except NotImplementedError as error:  # on the meta device there is nothing to fetch
            raise TypeError(f"{name} must be an array of real numbers: {error}") from error
    return array(value, name)


def readable(value: Any, name: str, dtype: np.dtype[Any]) -> np.ndarray:
    """Return what kernels read: of `dtype`, aligned, last axis contiguous; the given array where it is so already."""
    found = array(value, name)
    if found.dtype == dtype and found.flags.aligned and (found.flags.c_contiguous or _last_contiguous(found)):
        return found
    return found.astype(dtype, order="C")


def _last_contiguous(value: np.ndarray) -> bool:
    return value.ndim > 0 and (value.shape[-1] <= 1 or value.strides[-1] == value.itemsize)


def _converted(value: Any, name: str) -> np.ndarray:
    """Turn anything but a plain array into one."""
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(
            f"{name} is a tensor that requires grad and fastrnn does not train: pass {name}.detach(), "
            "or use the modules of fastrnn.torch, which take tensors and fall back to torch where grad is needed"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost: pass {name}.filled(value)")
    if type(value).__name__ == "PackedSequence":
        raise TypeError(f"{name} is a PackedSequence: pass pad_packed_sequence's output, and its lengths as lengths=")
    if _elsewhere(value):
        cure = _FETCHES.get(type(value).__module__.partition(".")[0], "a copy of {} in the memory of the CPU")
        raise TypeError(
            f"{name} must be an array of real numbers on the CPU, got {kind_of(value)} on "
            f"{getattr(value, 'device', 'another device')}: pass {cure.format(name)}"
        )
    try:
        if _is_torch(value) and str(getattr(value, "dtype", None)) == "torch.bfloat16":
            value = value.float()  # NumPy has no bfloat16
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array of real numbers: {error}") from error
    except (TypeError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"{name} must be an array of real numbers on the CPU, got {kind_of(value)} ({error})"
        ) from error


def _dtype_cure(value: np.ndarray, text_cure: str) -> str:
    if value.dtype.kind == "c":
        return ": pass the real part, or real and imaginary parts as features"
    return {"U": f": {text_cure}", "O": ": pass numbers", "S": ": pass numbers"}.get(value.dtype.kind, "")


def _is_torch(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch" or hasattr(value, "__torch_function__")


def _elsewhere(value: Any) -> bool:
    """Tell whether an array lies on another device: some, such as JAX's, would be fetched from there unasked."""
    if _is_torch(value):
        return str(getattr(value, "device", "cpu")) != "cpu"
    try:
        kind, _ = value.__dlpack_device__()
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):  # no DLPack, or parts in many places
        return hasattr(value, "__cuda_array_interface__")
    return kind not in _READABLE


# The arguments of a call ----------------------------------------------------------------------------------------------


def wrong_input(shape: tuple[int, ...], symbols: Sequence[str], size: int) -> ValueError:
    """Return the error of an x whose shape is none of `symbols`, such as ("T, B, I", "T, I") or ("B, I", "I,")."""
    accepted = " or ".join(f"({s}) = ({s.replace('I', str(size))})" for s in symbols)
    cure = ""
    if len(shape) in [len(s.rstrip(",").split(",")) for s in symbols] and size in shape[:-1]:
        axis = len(shape) - 2 - shape[-2::-1].index(size)
        cure = ": pass x.T" if len(shape) == 2 else f": pass np.moveaxis(x, {axis}, -1)"
    elif size == 1 and len(shape) < 3 and shape[-1:] != (1,):
        cure = ": pass x[..., None]"
    elif shape[-1:] == (size,) and len(shape) == 1:
        cure = ": one step is x[None]"
    return ValueError(f"x is {shape}, expected {accepted}{cure}")


def states(
    hx: Any,
    axes: tuple[int, ...],
    sizes: tuple[int, ...],
    dtype: np.dtype[Any],
    letters: str,
    last: str,
    name: str = "hx",
) -> tuple[np.ndarray, ...]:
    """Return the arrays of `hx`, h or (h, c), C-contiguous, (*axes, size) each.

    `letters` stand for the axes in messages ("L*D, B, "), each of `last` for a state's last axis.
    """
    if len(sizes) == 1:
        if isinstance(hx, tuple):
            raise TypeError(f"{name} must be one array h, got a tuple: a pair (h, c) is for LSTM")
        return (_state(hx, (*axes, sizes[0]), dtype, letters + last[0], name),)
    if not isinstance(hx, (tuple, list)):
        raise TypeError(f"{name} must be a pair (h, c), got {kind_of(hx)}")
    if len(hx) != 2:
        raise ValueError(f"{name} must be a pair (h, c), got {len(hx)} elements")
    h, c = hx
    return (
        _state(h, (*axes, sizes[0]), dtype, letters + last[0], name, "h of "),
        _state(c, (*axes, sizes[1]), dtype, letters + last[1], name, "c of "),
    )


def _state(
    value: Any, shape: tuple[int, ...], dtype: np.dtype[Any], letters: str, name: str, part: str = ""
) -> np.ndarray:
    if type(value) is np.ndarray and (value.dtype is dtype or value.dtype == dtype) and value.shape == shape:
        flags = value.flags
        if flags.c_contiguous and flags.aligned:
            return value  # what a call returned, most often
    label = part + name
    found = readable(value, label, dtype)
    if found.shape == shape:
        return found if found.flags.c_contiguous else found.copy(order="C")
    cure = ""
    if len(shape) == 3 and found.shape == (shape[1], shape[0], shape[2]):
        cure = ": states are never batch first, pass h.transpose(1, 0, 2)"
    elif len(shape) == 3 and found.shape == (shape[0], shape[2]):
        cure = f": for one state in all rows pass np.repeat(h[:, None], {shape[1]}, axis=1)"
    elif len(shape) < 3 and found.shape == (shape[0], 1, *shape[1:]):
        cure = ": x is unbatched, pass h[:, 0]"
    elif len(shape) == 2 and found.shape == shape[::-1]:
        cure = ": pass h.T"
    raise ValueError(f"{label} is {found.shape}, expected ({letters}{',' * (len(shape) == 1)}) = {shape}{cure}")


def lengths(value: Any, steps: int, batch: int, batched: bool, letter: str = "B") -> np.ndarray:
    """Return (B,) ints in 0..T as int64, with this letter in messages; for unbatched x a plain int will do."""
    found = integers(value, "lengths")
    if not batched and found.ndim == 0:
        found = found[None]
    if found.shape != (batch,):
        raise ValueError(f"lengths is {found.shape}, expected ({letter},) = ({batch},): one length for each sequence")
    if found.size and (found.min() < 0 or found.max() > steps):
        wrong = found[(found < 0) | (found > steps)][0]
        raise ValueError(f"lengths must lie in 0..T = 0..{steps}, got {wrong}")
    return np.ascontiguousarray(found, dtype=np.int64)


def out(
    value: Any,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    given: Sequence[Any],
    names: Sequence[str] = ("x", "hx", "lengths"),
) -> np.ndarray:
    """Return an array that a call may write its result to; the arguments as given must not overlap it."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {kind_of(value)}")
    if value.dtype != dtype:
        raise ValueError(f"out has dtype {value.dtype}, expected {dtype}")
    if value.shape != shape:
        raise ValueError(f"out is {value.shape}, expected {shape}")
    if not value.flags.c_contiguous or not value.flags.aligned:
        raise ValueError("out must be C-contiguous and aligned: pass np.empty(shape, dtype)")
    if not value.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    for name, argument in zip(names, given, strict=True):
        for part in argument if isinstance(argument, (tuple, list)) else (argument,):
            if part is not None and np.shares_memory(value, array(part, name)):
                raise ValueError(f"out overlaps {name}: pass an array of its own")
    return value


# Streams --------------------------------------------------------------------------------------------------------------


def forward_only(
    layers: Iterable[Any], what: str = "a stream", cure: str = "call the layer on whole sequences"
) -> None:
    """Demand layers, or cells, of which none runs backwards too."""
    for layer in layers:
        if getattr(layer, "bidirectional", False):
            raise UnsupportedError(
                f"{what} goes forward only, and {layer!r} reads every sequence from its end too: "
                f"{cure}, or build and train one with bidirectional=False"
            )


def stream_in_use() -> RuntimeError:
    """Return the error of a call that finds another one inside."""
    return RuntimeError(
        "this Stream is inside another call, and takes one thread at a time: make a stream for each thread, "
        "or take turns with a lock"
    )


def rows(value: Any, streams: int | None) -> np.ndarray:
    """Return numbers of streams as int64; `streams` is None for a stream without batch_size."""
    if streams is None:
        raise ValueError("rows must be None for a stream without batch_size: make it with layer.stream(batch_size=N)")
    found = integers(value, "rows", ": pass np.flatnonzero(rows)")
    if found.ndim != 1:
        raise ValueError(f"rows is {found.shape}, expected (n,): the numbers of n streams")
    if found.size == 0:
        return np.zeros(0, np.int64)  # np.asarray([]) is float64
    if streams == 0:
        raise ValueError(f"rows must be empty, for there is no stream: batch_size is 0, got {len(found)} rows")
    if (wrong := found.min()) < 0 or (wrong := found.max()) >= streams:
        raise ValueError(f"rows must lie in 0..N-1 = 0..{streams - 1}, got {wrong}")
    return np.ascontiguousarray(found, dtype=np.int64)


def distinct(rows: np.ndarray, seen: np.ndarray) -> None:
    """Refuse rows that name a stream twice; `seen` (N,) holds bools, which change."""
    seen.fill(False)
    seen[rows] = True
    if np.count_nonzero(seen) < len(rows):
        numbers, counts = np.unique(rows, return_counts=True)
        raise ValueError(f"rows must be distinct, got {numbers[counts > 1][0]} more than once")


def wrong_stream_input(
    shape: tuple[int, ...], letters: str, sizes: Mapping[str, int], or_ids: bool = False
) -> ValueError:
    """Return the error of an x whose axes are not `letters`, of which `sizes` gives all but T; `or_ids`: without I.

    A step has no T; n stands for the streams of rows=, N for all of them.
    """
    expected = tuple(sizes.get(letter, letter) for letter in letters)
    cure = ""
    if not letters and shape == (1,):
        cure = ": pass x[0]"
    elif or_ids and len(shape) == len(letters) - 1:
        cure = ": ids must be integers"
    elif len(shape) == len(letters) + 1 and "T" not in letters:
        cure = ": step takes one time step, push takes many"
    elif len(shape) == len(letters) - 1 and "T" in letters:
        cure = ": push takes many time steps, step takes one"
    elif shape[::-1] == expected:
        cure = ": pass x.T"
    elif len(shape) == len(letters) and shape[-1] == sizes["I"]:
        cure = ": one row for each of rows" if "n" in letters else ": one row for each stream, or name some with rows="
    return ValueError(f"x is {shape}, expected {axes_text(letters)} = {axes_text(expected)}{cure}")


# Words of messages ----------------------------------------------------------------------------------------------------


def axes_text(sizes: Sequence[object]) -> str:
    """Write a shape, or the letters of one."""
    return f"({', '.join(map(str, sizes))}{',' * (len(sizes) == 1)})"


def kind_of(value: Any) -> str:
    """Say in a few words what came."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return f"{value!r:.60}"
    return type(value).__name__


def quoted(names: Sequence[str]) -> str:
    """List names."""
    return ", ".join(map(repr, names))
