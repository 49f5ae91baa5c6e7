"""How many threads a call may use."""

import os

from fastrnn import checks

__all__ = ["get_num_threads", "set_num_threads"]

count: int | None = None  # what calls read; None: not found out yet
_chosen: int | None = None


def set_num_threads(n: int | None) -> None:
    """Set how many threads a call may use, for layers with ``num_threads=None``, in the whole process.

    Results have the same bits with any number. It is an upper bound: a call uses more than one thread only where that
    saves time, and at most one for each processor that the process may use.

    Parameters
    ----------
    n : int or None
        At least 1. None for the automatic choice, the first that is set of: the environment variable
        FASTRNN_NUM_THREADS; OMP_NUM_THREADS, which joblib, Dask and Spark set in their workers; the processors that
        affinity and control groups leave to the process.

    Raises
    ------
    TypeError, ValueError
        For anything but a positive integer or None.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.set_num_threads(1)
    >>> fastrnn.get_num_threads()
    1
    >>> fastrnn.set_num_threads(None)
    """
    global _chosen, count
    _chosen = checks.num_threads(n, "n")
    count = None


def get_num_threads() -> int:
    """Return how many threads a call of a layer with ``num_threads=None`` may use.

    Returns
    -------
    int
        What `set_num_threads` chose, or the automatic choice.

    Raises
    ------
    ValueError
        Where FASTRNN_NUM_THREADS is no positive integer.
    """
    global count
    if count is None:
        count = _chosen or _from_environment() or _available()
    return count


def _from_environment() -> int | None:
    text = os.environ.get("FASTRNN_NUM_THREADS")
    if text:
        number = _number(text)
        if number is None:
            raise ValueError(
                f"the environment variable FASTRNN_NUM_THREADS={text}: expected an int in 1..2147483647; correct"
                " or unset it"
            )
        return number
    return _number(os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip())  # a list, one for each level of nesting


def _number(text: str) -> int | None:
    """Read what `set_num_threads` takes; None where the text is anything else."""
    try:
        return checks.num_threads(int(text)) if text.isascii() and text.isdigit() else None
    except ValueError:  # 0, or far too much
        return None


def cpus() -> int:
    """Return how many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _available() -> int:
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return max(1, min(cpus(), -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no control group, or one without a limit: "max"
        return cpus()
