"""Backends, best first, and the choice among them.

A `Backend` makes runners, which may be called from several threads at once. ``layer(plan)`` makes
``run(x, state, lengths, y, state_out, threads=1, blank=False)``:

    x          (T, B, I)        of plan.dtype, aligned, last axis contiguous, any stride of T and B; may be read-only,
               (T, B) int64     or ids of plan.embedding, 0..plan.vocab_size-1 (not checked here), any stride
    state      (L*D, B, R or H) arrays, C-contiguous; may be read-only
    lengths    (B,) int64 in 0..T, or None
    y          (T, B, D*R)      written whole, zeros beyond a length; strides as for x
    state_out  like state, written
    threads    how many the call may use
    blank      whether y is all zeros already

Ids have the bits of the vectors that they stand for. Kernels do not sum over these again: at the first call with ids
they make tables of ``b + W_ih e`` for all of them, `Plan.table_bytes` large, or none where that is 0.

``dense(plan)`` makes ``run(x, out, threads=1)`` with x (N, K) and out (N, V), last axes contiguous, and
``activate(activation, x, out)`` applies a function of `dense.FUNCTIONS` to rows (N, V), C-contiguous; out may be x.
``sum_steps(x, out)`` adds the steps of x (B, T, K) in order of time to out (B, K), both C-contiguous.

A backend that compiles chains of layers has two classes that take runners of its own, each fed by the one before:
``generator``, see `sampling.Generator`, and ``stepper``, see `numba_kernels.Stepper`, which takes the single steps of
streams. The compiled backend's streams are classes of their own instead.
"""

import importlib
import os
import platform
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from fastrnn import checks, preparing, threads

if TYPE_CHECKING:
    from fastrnn.dense import DensePlan
    from fastrnn.packing import Plan

__all__ = ["available_backends", "cpu_info", "use_backend"]

Run: TypeAlias = Callable[..., None]


def _sum_steps(x: np.ndarray, out: np.ndarray) -> None:
    """Add one by one: NumPy's own sums have an order that depends on the shape of the batch."""
    for now in x.transpose(1, 0, 2):
        out += now


class Backend(NamedTuple):
    """What runs layers, dense layers, the functions that follow them, sums over time, and chains of all these."""

    layer: Callable[["Plan"], Run]
    dense: Callable[["DensePlan"], Run]
    activate: Callable[[str, np.ndarray, np.ndarray], None]
    sum_steps: Callable[[np.ndarray, np.ndarray], None] = _sum_steps
    generator: Callable[..., Callable[[np.ndarray], int]] | None = None
    stepper: Callable[..., Callable[..., None]] | None = None


# The registry ---------------------------------------------------------------------------------------------------------


def _cython() -> Backend:
    _native = importlib.import_module("fastrnn._native")
    if tier := os.environ.get("FASTRNN_ISA"):
        try:
            _native.select_tier(tier)
        except (ValueError, RuntimeError) as error:
            raise type(error)(f"the environment variable FASTRNN_ISA={tier}: {error}") from None
    return Backend(_native.Engine, _native.DenseEngine, _native.activate_rows, _native.sum_steps, _native.Generator)


def _numba() -> Backend:
    from fastrnn import numba_kernels

    return Backend(
        numba_kernels.prepare,
        numba_kernels.prepare_dense,
        numba_kernels.activate_rows,
        generator=numba_kernels.Generator,
        stepper=numba_kernels.Stepper,
    )


def _reference() -> Backend:
    from fastrnn import reference

    def layer(plan: "Plan") -> Run:
        def run(x: Any, state: Any, lengths: Any, y: Any, out: Any, threads: int = 1, blank: bool = False) -> None:
            reference.run(plan, x, state, lengths, y, out)

        return run

    def dense(plan: "DensePlan") -> Run:
        return lambda x, out, threads=1: reference.dense(plan, x, out)

    return Backend(layer, dense, reference.activate)


_LOADERS: dict[str, Callable[[], Backend]] = {"cython": _cython, "numba": _numba, "reference": _reference}
_CURES = {
    "cython": "reinstall fastrnn with its compiled module: pip install fastrnn",
    "numba": "pip install 'fastrnn[numba]'",
}
_loaded: dict[str, Backend] = {}
_absent: dict[str, str] = {}  # why a backend cannot run here


def load(name: str) -> Backend:
    """Return a backend; ValueError for an unknown name, ImportError where it cannot run here."""
    checks.choice(name, "backend", tuple(_LOADERS))
    if reason := _why_absent(name):
        raise ImportError(
            f"backend {name!r} cannot run here ({reason}); available: {available_backends()}; cure: {_CURES[name]}"
        )
    return _loaded[name]


def available_backends() -> list[str]:
    """Names of the backends that can run here, best first.

    Returns
    -------
    list of str
        Of "cython" (compiled kernels), "numba" (the same kernels, JIT compiled), "reference" (plain NumPy).

    Examples
    --------
    >>> import fastrnn
    >>> "reference" in fastrnn.available_backends()
    True
    """
    return [name for name in _LOADERS if _why_absent(name) is None]


def _why_absent(name: str) -> str | None:
    with preparing.lock:
        if name not in _loaded and name not in _absent:
            try:
                _loaded[name] = _LOADERS[name]()
            except ImportError as error:
                _absent[name] = str(error)
        return _absent.get(name)


# The choice -----------------------------------------------------------------------------------------------------------


class _Thread(threading.local):
    def __init__(self) -> None:
        self.backend: str | None = None
        self.before: list[str | None] = []  # what the enclosing `with` blocks go back to


_thread = _Thread()
_process: str | None = None  # the last choice for the whole process
_automatic: str | None = None
_choices: "list[tuple[weakref.ref[_Choice], str | None]]" = []  # might become `with` blocks


def current() -> str:
    """Return the backend of layers that name none."""
    return _thread.backend or _process or automatic()


def automatic() -> str:
    """Return FASTRNN_BACKEND, or the best that can run here."""
    global _automatic
    if _automatic is None:
        name = os.environ.get("FASTRNN_BACKEND")
        if name:
            try:
                load(name)
            except (ValueError, ImportError) as error:
                raise type(error)(f"the environment variable FASTRNN_BACKEND={name}: {error}") from None
        _automatic = name or next(name for name in _LOADERS if _why_absent(name) is None)
    return _automatic


class _Choice(AbstractContextManager[None]):
    """A choice for the process, until a `with` turns it into one for a thread."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        with preparing.lock:
            settled = max((i for i, (choice, _) in enumerate(_choices) if choice() is None), default=0)
            del _choices[:settled]
            _choices.append((weakref.ref(self), name))
            _publish()

    def __enter__(self) -> None:
        with preparing.lock:
            _choices[:] = [entry for entry in _choices if entry[0]() is not self]
            _publish()
        backend = self._name or automatic()
        _thread.before.append(_thread.backend)
        _thread.backend = backend

    def __exit__(self, *_: object) -> None:
        _thread.backend = _thread.before.pop()


def _publish() -> None:
    global _process
    _process = _choices[-1][1] if _choices else None


def use_backend(name: str | None) -> AbstractContextManager[None]:
    """Choose the backend of all layers that were built with ``backend=None``, from their next call on.

    Parameters
    ----------
    name : str or None
        One of `available_backends`; None for the automatic choice: the environment variable FASTRNN_BACKEND, else the
        best.

    Returns
    -------
    context manager
        Called plainly, the choice holds for the process. In a ``with`` statement it holds for this thread, up to the
        end of the block, and wins over the process's choice.

    Raises
    ------
    ValueError
        For an unknown name.
    ImportError
        For a backend that cannot run here, with the reason.

    Examples
    --------
    >>> import fastrnn
    >>> with fastrnn.use_backend("reference"):
    ...     y, h = fastrnn.GRU(2, 3).init()([[1.0, 2.0]])
    """
    if name is not None:
        load(name)
    return _Choice(name)


# The machine ----------------------------------------------------------------------------------------------------------


def cpu_info() -> dict[str, Any]:
    """Tell what fastrnn found out about this machine and about itself.

    Returns
    -------
    dict
        ``machine``, ``system``, ``model`` of the CPU and ``cpus`` this process may use; ``num_threads`` a call may use;
        ``backend`` in use; ``backends``, each "ok" or why it cannot run; ``tier`` and ``tiers`` of the compiled kernels
        (None and {} without them); ``numba_target``, the CPU that Numba compiles for (None without it).
    """
    backends = {name: _why_absent(name) or "ok" for name in _LOADERS}
    tier, tiers, target = None, {}, None
    if backends["cython"] == "ok":
        _native = importlib.import_module("fastrnn._native")
        tier, tiers = _native.tier(), _native.tiers()
    if backends["numba"] == "ok":
        target = importlib.import_module("fastrnn.numba_kernels.target").processor()
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "model": _cpu_model(),
        "cpus": threads.cpus(),
        "num_threads": threads.get_num_threads(),
        "backend": current(),
        "backends": backends,
        "tier": tier,
        "tiers": tiers,
        "numba_target": target,
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
