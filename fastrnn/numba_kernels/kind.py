"""What a kernel is compiled for, as a Numba type: the first argument of every entry point."""

from dataclasses import dataclass
from typing import Any

from numba.core import types
from numba.core.extending import NativeValue, models, register_model, typeof_impl, unbox
from numba.core.imputils import lower_constant

from fastrnn.numba_kernels.door import STAMP

__all__ = ["Kind", "KindType"]


@dataclass(frozen=True)
class Kind:
    """A variant of cells.py or "dense", and its activation, for the serial or the parallel twin of the entry point."""

    variant: str
    activation: str
    parallel: bool = False


class KindType(types.Type):
    """The type of a Kind. It has no data, so it costs nothing to pass."""

    def __init__(self, variant: str, activation: str, parallel: bool) -> None:
        self.variant, self.activation, self.parallel = variant, activation, parallel
        super().__init__(name=f"fastrnn.Kind({variant}, {activation}, {parallel}, {STAMP})")


register_model(KindType)(models.OpaqueModel)


@typeof_impl.register(Kind)
def _typeof_kind(value: Kind, c: Any) -> KindType:
    return KindType(value.variant, value.activation, value.parallel)


@lower_constant(KindType)
def _constant_kind(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.get_dummy_value()


@unbox(KindType)
def _unbox_kind(kind: Any, value: Any, c: Any) -> Any:
    return NativeValue(c.context.get_dummy_value())
