"""When a parallel twin may be launched: Numba's threads end with a fork, and one of its layers dies of two launches.

The workqueue layer aborts the process if two threads launch at once, so launches take turns there, and who would have
to wait runs the serial twin. Which layer it is Numba tells only after the first launch. The OpenMP layer ends a forked
child that launches, whoever launched before the fork, so nothing is launched but by the process that imported fastrnn.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import numba

from fastrnn import _process

__all__ = ["launch"]

_turn = threading.Lock()
_together = False  # whether launches may overlap


def launch(run: Callable[..., None], *args: Any) -> bool:
    """Call a parallel twin if that is safe now; return whether it was."""
    global _together
    if os.getpid() != _process:
        return False
    if _together:
        run(*args)
        return True
    if not _turn.acquire(blocking=False):
        return False
    try:
        run(*args)
        _together = numba.threading_layer() != "workqueue"
    finally:
        _turn.release()
    return True
