"""What kernels are compiled for, as Numba types without data: an activation, and how many phases a step has."""

from dataclasses import dataclass
from typing import Any

from numba.core import types
from numba.core.extending import models, register_model, typeof_impl
from numba.core.imputils import lower_constant

from fastrnn.numba_kernels.door import STAMP
from fastrnn.numba_kernels.simd import constant_of

__all__ = ["Kind", "KindType", "PhasesType", "has_two"]


@dataclass(frozen=True)
class Kind:
    """An activation of cells.py or of a dense layer; a constant of compiled code."""

    activation: str


class KindType(types.Type):
    """The type of a Kind. It has no data, so it costs nothing to pass, and a null pointer will do as a value."""

    def __init__(self, activation: str) -> None:
        self.activation = activation
        super().__init__(name=f"fastrnn.Kind({activation}, {STAMP})")


register_model(KindType)(models.OpaqueModel)


@typeof_impl.register(Kind)
def _typeof_kind(value: Kind, c: Any) -> KindType:
    return KindType(value.activation)


@lower_constant(KindType)
def _constant_kind(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.get_dummy_value()


class PhasesType(types.Type):
    """How many phases a step has: 1 or 2. Code for both would take a step of small layers a few nanoseconds more."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"fastrnn.Phases({count}, {STAMP})")


register_model(PhasesType)(models.OpaqueModel)


has_two = constant_of(lambda phases: int(phases.count == 2))
