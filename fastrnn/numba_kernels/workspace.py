"""Memory for kernels, at lines of the cache, which waits for the next call."""

from typing import TypeAlias

import numpy as np

from fastrnn.numba_kernels.simd import GROUP_BYTES

__all__ = ["Work", "empty", "give_back", "take"]

Work: TypeAlias = tuple[np.ndarray, int, int]
"""Bytes, the address of the first, a multiple of 64, and how many there are."""

_KEEP_BYTES = 1 << 22  # a larger workspace is not kept for the next call


def empty(size: int) -> Work:
    """Return so many bytes."""
    raw = np.empty(size + GROUP_BYTES, np.uint8)
    start = -raw.ctypes.data % GROUP_BYTES
    return raw[start : start + size], raw.ctypes.data + start, size


def take(idle: list[Work], size: int) -> Work:
    """Return an idle workspace that is large enough, or a new one."""
    try:
        work = idle.pop()
    except IndexError:
        return empty(size)
    return work if work[2] >= size else empty(size)


def give_back(idle: list[Work], work: Work) -> None:
    """Keep a workspace for the next call, unless it is large."""
    if work[2] <= _KEEP_BYTES:
        idle.append(work)
