"""When a parallel twin may be launched: Numba's threads end with a fork, and one of its layers dies of two launches.

The workqueue layer aborts the process if two threads launch at once, so launches take turns there, and who would have
to wait runs the serial twin. Which layer it is Numba tells only after the first launch. The OpenMP layer ends a forked
child that launches, whoever launched before the fork, so nothing is launched but by the process that imported fastrnn.
"""

import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numba

from fastrnn import _process

__all__ = ["launch", "start"]

_turn = threading.Lock()
_together = False  # whether launches may overlap


@cache
def start() -> None:
    """Let Numba load its threading layer, whose idle threads are not to spin for long where it is GNU's OpenMP.

    They would for 8 ms after each launch. The library reads how often they look out for work as it is loaded, which
    says nothing to one that something else has loaded before. Who has set GOMP_SPINCOUNT or OMP_WAIT_POLICY knows
    better.
    """
    quiet = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ)
    if quiet:
        os.environ["GOMP_SPINCOUNT"] = "3000"  # a tenth of a millisecond
    try:
        numba.get_num_threads()
    finally:
        if quiet:
            os.environ.pop("GOMP_SPINCOUNT", None)


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
