"""What `fastrnn.torch` takes from torch past its methods, where that goes: the memory of tensors, and threads."""

import ctypes
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["OPENMP", "Array", "Left", "arrays_of", "seen_of", "tensors_of"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

SAMPLES = 16  # of a weight, up to so many numbers are looked at in each call


class Left(Exception):
    """Why torch runs a call."""


# Threads --------------------------------------------------------------------------------------------------------------


def _openmp() -> tuple[int, ...]:
    """Return where the functions are that run a job on torch's threads, () if these are not OpenMP's.

    These threads spin for milliseconds after each parallel operation, on the processors that threads of ours want.
    """
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return ()
    names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
    try:
        library = ctypes.CDLL(torch._C.__file__)  # finds what it is linked to as well
        return tuple([ctypes.cast(library[name], ctypes.c_void_p).value or 0 for name in names])
    except (AttributeError, OSError):
        return ()


OPENMP = _openmp()

# Tensors --------------------------------------------------------------------------------------------------------------


def _exchange() -> Any:
    """Return what reads and makes tensors past their methods; None where torch or fastrnn was built without it."""
    try:
        from fastrnn._native import Exchange

        return Exchange(Tensor.__dlpack_c_exchange_api__, Tensor.is_neg, Tensor._is_zerotensor)
    except (ImportError, AttributeError, ValueError):
        return None


EXCHANGE = _exchange()


def _array(t: Tensor) -> Array:
    """Return the memory of a tensor as an array."""
    try:
        a: Array = t.numpy()
    except (RuntimeError, TypeError) as error:
        if t.requires_grad or t.is_neg():
            return _array(t.detach().resolve_neg())
        raise Left("not all tensors are dense, of a dtype that NumPy has, and in the CPU's memory") from error
    return a if a.flags.aligned else a.copy()


def arrays_of(tensors: tuple[Tensor, ...], dtype: np.dtype[Any]) -> list[Array]:
    """Return the memory of tensors, which all have to be of this dtype."""
    arrays: list[Array] | None = EXCHANGE and EXCHANGE.arrays(tensors, dtype.itemsize == 8)
    if arrays is not None:
        return arrays
    arrays = [_array(t) for t in tensors]
    for a in arrays:
        if a.dtype is not dtype:
            raise Left(f"not all arguments are {dtype}, as the weights are")
    return arrays


def tensors_of(arrays: list[Array]) -> list[Tensor]:
    """Return tensors in the memory of arrays."""
    return EXCHANGE.tensors(arrays) if EXCHANGE else list(map(torch.from_numpy, arrays))


def seen_of(weights: dict[str, Tensor | None]) -> Any:
    """Tell weights from later ones; None where that cannot be told.

    torch counts changes in place, but not those through ``.data``, NumPy or another process: samples show these.
    """
    if EXCHANGE:
        return EXCHANGE.seen(weights, SAMPLES)
    found = []
    for w in weights.values():
        if w is not None:
            try:
                a = w.detach().numpy()
                found.append((w.data_ptr(), w._version, a.ravel()[:: -(-a.size // SAMPLES) | 1].tobytes()))
            except (RuntimeError, TypeError):
                return None
    return found
