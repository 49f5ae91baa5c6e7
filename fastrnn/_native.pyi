from collections.abc import Callable
from typing import Any, final

import numpy as np
import numpy.typing as npt

from fastrnn.dense import DensePlan
from fastrnn.packing import Plan

_C_API: Any
__pyx_capi__: dict[str, Any]

@final
class Engine:
    def __init__(
        self, plan: Plan, *, tier: str | None = None, split: tuple[int, int, int, bool] | None = None
    ) -> None: ...
    def apply(
        self, x: np.ndarray, state: list[np.ndarray], batch_first: bool, cell: bool, threads: int = 1
    ) -> list[np.ndarray] | None: ...
    def borrow(self, parallel: int, number: int, count: int) -> None: ...
    def __call__(
        self,
        x: np.ndarray,
        state: tuple[np.ndarray, ...],
        lengths: npt.NDArray[np.int64] | None,
        y: np.ndarray,
        state_out: tuple[np.ndarray, ...],
        threads: int = 1,
    ) -> None: ...
    @property
    def table_bytes(self) -> int: ...
    def _project(self, way: int, i: int, table: np.ndarray) -> None: ...

@final
class DenseEngine:
    def __init__(self, plan: DensePlan, *, tier: str | None = None) -> None: ...
    def __call__(self, x: np.ndarray, out: np.ndarray, threads: int = 1) -> None: ...

@final
class Generator:
    def __init__(
        self,
        parts: list[tuple[Any, tuple[np.ndarray, ...] | None]],
        embedding: np.ndarray,
        how: tuple[float, int, float],
        seeds: npt.NDArray[np.uint64],
        stops: npt.NDArray[np.int64],
        last: npt.NDArray[np.int64],
        made: npt.NDArray[np.int64],
        most: int,
        threads: int = 1,
    ) -> None: ...
    def __call__(self, tokens: npt.NDArray[np.int64]) -> int: ...

@final
class Exchange:
    def __init__(self, capsule: object, *lazy: Callable[[Any], bool]) -> None: ...
    def arrays(self, tensors: tuple[Any, ...], double: bool) -> list[np.ndarray] | None: ...
    def seen(self, tensors: dict[str, Any], samples: int) -> bytes | None: ...
    def tensors(self, arrays: list[np.ndarray]) -> list[Any]: ...

class Alone:
    def _alone(self, work: Callable[..., Any], *arguments: Any) -> Any: ...

class Stepper(Alone):
    def __init__(
        self,
        engine: Engine,
        states: tuple[np.ndarray, ...],
        batched: bool,
        threads: int = 1,
        *,
        forced: bool = False,
    ) -> None: ...
    def step(self, x: Any, *, rows: Any = None, out: np.ndarray | None = None) -> np.ndarray: ...
    def _advance(self, x: np.ndarray, rows: npt.NDArray[np.int64] | None, out: np.ndarray) -> None: ...
    def _repeat(self, x: np.ndarray, out: np.ndarray, count: int) -> None: ...

class ModelStepper(Alone):
    def __init__(
        self,
        parts: list[Any],
        embedding: np.ndarray | None,
        by_ids: Engine | None,
        threads: int = 1,
        *,
        forced: bool = False,
    ) -> None: ...
    def step(self, x: Any, *, rows: Any = None, out: np.ndarray | None = None) -> np.ndarray: ...
    def _advance(self, x: np.ndarray, rows: npt.NDArray[np.int64] | None, out: np.ndarray) -> None: ...
    def _repeat(self, x: Any, out: np.ndarray, count: int) -> None: ...

def capsule(parts: list[Any], embedding: np.ndarray | None, by_ids: Engine | None) -> Any: ...
def tiers() -> dict[str, str]: ...
def tier() -> str: ...
def select_tier(name: str | None = None) -> None: ...
def activate(name: str, array: np.ndarray, tier: str | None = None) -> np.ndarray: ...
def activate_rows(activation: str, x: np.ndarray, out: np.ndarray, *, tier: str | None = None) -> None: ...
def sum_steps(x: np.ndarray, out: np.ndarray) -> None: ...
