"""Phases of a step: the shape of their blocks, and the gate math that finishes their tiles.

The walk over blocks reads a phase's numbers and calls its tiles and its gate math by address. So it is compiled once
for all cells, and what is compiled for a cell is no more than these.
"""

from functools import cache
from typing import Any

from numba.core import types
from numba.core.extending import models, register_model

from fastrnn.cells import Variant
from fastrnn.numba_kernels.calls import address_of
from fastrnn.numba_kernels.door import STAMP, njit, overload
from fastrnn.numba_kernels.simd import constant_of, lanes, move, width

__all__ = ["Phase", "gates_address", "run_gates"]


class Phase:
    """A phase of a variant of cells.py, and its math."""

    def __init__(
        self,
        variant: Variant,
        index: int,
        state_math: Any,  # from the gates of one vector of units of one row to its new state; see `_renew`
        gate_math: Any = None,  # before, from its sums to its gates, in place; see `_open`
    ) -> None:
        phase = variant.phases[index]
        self.name, self.gate_math, self.state_math = f"{variant.name}, {phase.name}", gate_math, state_math
        self.groups, self.gates = phase.groups, max(1, len(phase.gates))  # U, G
        self.apart = variant.apart is not None  # over h the last gate starts from a bias of its own
        self.has_x, self.has_h = bool(phase.gates), variant.recurrent


class GatesType(types.Type):
    """What gate math is compiled for: a phase and an activation. No value has it; a null pointer will do."""

    def __init__(self, phase: Phase, activation: str) -> None:
        self.gate_math, self.state_math, self.activation = phase.gate_math, phase.state_math, activation
        self.gates = phase.gates
        super().__init__(name=f"fastrnn.Gates({phase.name}, {activation}, {STAMP})")


register_model(GatesType)(models.OpaqueModel)

_gates = constant_of(lambda kind: kind.gates)


def _open(kind, sums):
    """Turn the sums of one vector of units, [G][lanes], into gates as far as that takes nothing else."""


@overload(_open)
def _opened(kind, sums):
    def nothing(kind, sums):
        pass

    return kind.gate_math or nothing


def _renew(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Do what follows for `count` units of a row, no more than a vector.

    What `_open` left, [G][lanes], and the sums over x alone; c, or what the second phase takes of the first; h before,
    and what becomes of it; the parameters of an own cell, each `stride` elements after the other.
    """


@overload(_renew)
def _renewed(kind, sums, x_sums, cell, old, new, own, stride, count):
    return kind.state_math


@njit(cache=True)
def run_gates(
    kind, rows, first, count, sums, stride, x_sums, x_stride, cells, padded, old, old_at, new, new_at, own
):  # fmt: skip
    """Finish a tile, or one row of blocks that follow each other: `count` units from the unit `first` on.

    In two loops, since a row's gates and its state in one are a chain too long for the processor to see the next row
    past it.

    Parameters
    ----------
    kind : GatesType
    rows, first, count : int
    sums, stride, x_sums, x_stride
        [rows][U][G][lanes], all sums, which are used up, and those over x alone; elements from row to row.
    cells, padded
        c or z of the first row and unit; elements from row to row.
    old, old_at, new, new_at
        The states before and after: row j starts at base[offsets[j]].
    own
        The parameters of own cells, [parameters][groups][lanes], from the first unit on.
    """
    if rows == 1 and count <= width(sums):  # no loop, before which all constants would be loaded: they are operands
        before, after = move(old, old_at[0] + first), move(new, new_at[0] + first)
        _open(kind, sums)
        _renew(kind, sums, x_sums, cells, before, after, own, padded, count)
        return
    n, wide = lanes(sums), width(sums)
    for j in range(rows):
        for unit in range(0, count, wide):
            _open(kind, move(sums, j * stride + unit // n * _gates(kind) * n + unit % n))
    for j in range(rows):
        for unit in range(0, count, wide):
            place, at = unit // n * _gates(kind) * n + unit % n, first + unit
            row, x_row, cell = move(sums, j * stride + place), move(x_sums, j * x_stride + place), j * padded + unit
            now = move(cells, cell), move(old, old_at[j] + at), move(new, new_at[j] + at)
            _renew(kind, row, x_row, *now, move(own, unit), padded, min(wide, count - unit))


@cache
def gates_address(phase: Phase, activation: str, dtype: str) -> int:
    """Compile the gate math of a phase; return what `calls.call_gates` calls."""
    i, floats, integers = types.int64, types.CPointer(getattr(types, dtype)), types.CPointer(types.int64)
    places = floats, i, floats, i, floats, i, floats, integers, floats, integers
    return address_of(run_gates, GatesType(phase, activation), i, i, i, *places, floats)
