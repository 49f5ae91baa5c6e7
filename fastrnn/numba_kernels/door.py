"""The one door to Numba: every kernel is compiled through `njit` and `overload` of this module, for the reasons below.

- Numba hands a caller's ``fastmath``, ``error_model`` and ``forceinline`` down to callees that leave them unset, keeps
  that version for later callers and writes it to the disk cache. So all three are always set here.
- ``inline="always"`` would paste a kernel's statements into the caller, whose flags then hold. It is never used;
  ``forceinline`` is LLVM's and safe.
- ``cache=True`` raises where no directory can be written. Then there is no cache.
- The disk cache looks at the time stamp of one file only, and a user's own cached function keeps old kernels after an
  upgrade. So entry points, and the Numba types of packed weights and Kinds, have `STAMP` in their names: other kernels,
  other files and other types.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from numba import extending

from fastrnn import cells

__all__ = ["STAMP", "attribute", "njit", "overload"]

_FLAGS = {"fastmath": False, "error_model": "numpy"}


def _stamp() -> str:
    digest = sha256()
    for path in (Path(cells.__file__), *sorted(Path(__file__).parent.glob("*.py"))):  # what kernels are made of
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


STAMP = _stamp()


def njit(
    *, cache: bool = False, parallel: bool = False, forceinline: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a kernel; `cache` is for entry points, which hold the code of everything they call."""
    options = {**_FLAGS, "parallel": parallel, "forceinline": forceinline, "nogil": True}

    def decorate(function: Callable[..., Any]) -> Any:
        if cache:
            function.__qualname__ += f".{STAMP}"
            try:
                return numba.njit(cache=True, **options)(function)
            except RuntimeError:  # "no locator available": nowhere to write
                pass
        return numba.njit(**options)(function)

    return decorate


def overload(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Choose, by the types of the arguments, what a call of `function` runs; LLVM inlines it."""
    return extending.overload(function, jit_options={**_FLAGS, "forceinline": True})


def attribute(kind: type, name: str) -> Callable[[Callable[..., Any]], Any]:
    """Choose, by the type of a value, what reading an attribute of it runs; LLVM inlines it."""
    return extending.overload_attribute(kind, name, jit_options={**_FLAGS, "forceinline": True})
