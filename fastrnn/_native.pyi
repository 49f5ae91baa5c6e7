from typing import Any, final

import numpy as np
import numpy.typing as npt

from fastrnn.dense import DensePlan
from fastrnn.weights import Plan

@final
class Engine:
    def __init__(self, plan: Plan, *, tier: str | None = None, split: tuple[int, int, int] | None = None) -> None: ...
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

class Alone:
    def _enter(self) -> bool: ...
    def _leave(self) -> None: ...

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

def tiers() -> dict[str, str]: ...
def tier() -> str: ...
def select_tier(name: str | None = None) -> None: ...
def activate(name: str, array: np.ndarray, tier: str | None = None) -> np.ndarray: ...
def activate_rows(activation: str, x: np.ndarray, out: np.ndarray, *, tier: str | None = None) -> None: ...
def sum_steps(x: np.ndarray, out: np.ndarray) -> None: ...
