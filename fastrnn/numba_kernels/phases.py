"""Phases of a step as constants of the compiler: what distinguishes the cells, but for their gate math.

A `Phase` is a value without data whose Numba type knows everything, so that one walk serves all of them and no function
is ever an argument: code with functions as values cannot be kept in the disk cache.
"""

from typing import Any

from numba.core import types
from numba.core.extending import intrinsic, models, register_model, typeof_impl
from numba.core.imputils import lower_constant

from fastrnn.numba_kernels.door import overload
from fastrnn.numba_kernels.simd import INDEX, constant_of

__all__ = ["Phase", "PhaseType", "finish", "flag", "gate_count", "group_count"]


class Phase:
    """One pass over a set of packed blocks, as in cells.py."""

    def __init__(
        self,
        name: str,
        gate_math: Any,  # (kind, sums, x_sums, cell, old, new, count): finishes one vector of units of one row
        *,
        groups: int,  # U
        gates: int,  # G
        apart: bool = False,  # over h the last gate starts from a bias of its own, and its sum over x is kept apart
        takes_inner: bool = False,  # w_h multiplies the workspace's m or r*h, not h
        gives_inner: bool = False,  # the gate math writes the workspace's m or r*h, not y
        projects: bool = False,  # the units are those of the projected state; there is no x
    ) -> None:
        self.type = PhaseType(name, groups, gates)
        self.type.gate_math = gate_math
        self.type.flags = {
            "apart": apart,
            "takes_inner": takes_inner,
            "gives_inner": gives_inner,
            "projects": projects,
        }


class PhaseType(types.Type):
    """The type of a `Phase`."""

    def __init__(self, name: str, groups: int, gates: int) -> None:
        self.groups, self.gates = groups, gates
        self.gate_math: Any = None
        self.flags: dict[str, bool] = {}
        super().__init__(name=f"fastrnn.Phase({name})")


register_model(PhaseType)(models.OpaqueModel)


@typeof_impl.register(Phase)
def _typeof_phase(value: Phase, c: Any) -> PhaseType:
    return value.type


@lower_constant(PhaseType)
def _constant_phase(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.get_dummy_value()


group_count = constant_of(lambda phase: phase.groups)
"""U, groups of a block."""
gate_count = constant_of(lambda phase: phase.gates)
"""G, gates of a group."""


@intrinsic(prefer_literal=True)
def flag(typingctx, phase, name):
    """Whether a phase has a flag, as a constant."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return INDEX(int(phase.flags[name.literal_value]))

    return types.int64(phase, name), codegen


def finish(phase, kind, sums, x_sums, cell, old, new, count):
    """Do a phase's gate math."""


@overload(finish)
def _finish(phase, kind, sums, x_sums, cell, old, new, count):
    gate_math = phase.gate_math

    def call(phase, kind, sums, x_sums, cell, old, new, count):
        gate_math(kind, sums, x_sums, cell, old, new, count)

    return call
