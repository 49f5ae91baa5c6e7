from typing import final

import numpy as np
import numpy.typing as npt

from fastrnn.weights import Plan

@final
class Engine:
    def __init__(self, plan: Plan, *, tier: str | None = None) -> None: ...
    def __call__(
        self,
        x: np.ndarray,
        state: tuple[np.ndarray, ...],
        lengths: npt.NDArray[np.int64] | None,
        y: np.ndarray,
        state_out: tuple[np.ndarray, ...],
    ) -> None: ...

def tiers() -> dict[str, str]: ...
def tier() -> str: ...
def select_tier(name: str | None = None) -> None: ...
def activate(name: str, array: np.ndarray, tier: str | None = None) -> np.ndarray: ...
