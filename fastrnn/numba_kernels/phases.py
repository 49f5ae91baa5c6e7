"""Phases of a step: the shape of their blocks, and the gate math that finishes their tiles.

The walk over blocks reads a phase's numbers and calls its tiles and its gate math by address. So it is compiled once
for all cells, and what is compiled for a cell is no more than these.
"""

from functools import cache
from typing import Any

from numba.core import types
from numba.core.extending import models, register_model

from fastrnn.numba_kernels.calls import address_of
from fastrnn.numba_kernels.door import STAMP, njit, overload
from fastrnn.numba_kernels.simd import lanes, move, width

__all__ = ["Phase", "gates_address", "run_gates"]


class Phase:
    """One pass over a set of packed blocks, as in cells.py."""

    def __init__(
        self,
        name: str,
        gate_math: Any,  # finishes one vector of units of one row; for its arguments see `_finish`
        *,
        groups: int,  # U
        gates: int,  # G
        apart: bool = False,  # over h the last gate starts from a bias of its own, and its sum over x is kept apart
        has_x: bool = True,
        has_h: bool = True,
    ) -> None:
        self.name, self.gate_math, self.groups, self.gates = name, gate_math, groups, gates
        self.apart, self.has_x, self.has_h = apart, has_x, has_h


class GatesType(types.Type):
    """What gate math is compiled for: a phase and an activation. No value has it; a null pointer will do."""

    def __init__(self, phase: Phase, activation: str) -> None:
        self.gate_math, self.activation = phase.gate_math, activation
        super().__init__(name=f"fastrnn.Gates({phase.name}, {activation}, {STAMP})")


register_model(GatesType)(models.OpaqueModel)


def _finish(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Do a phase's gate math for `count` units of a row, no more than a vector.

    Sums over x and h, [G][lanes], and those over x alone; c, or what the second phase takes of the first; h before, and
    what becomes of it; the parameters of an own cell, each `stride` elements after the other.
    """


@overload(_finish)
def _finished(kind, sums, x_sums, cell, old, new, own, stride, count):
    gate_math = kind.gate_math

    def call(kind, sums, x_sums, cell, old, new, own, stride, count):
        gate_math(kind, sums, x_sums, cell, old, new, own, stride, count)

    return call


@njit(cache=True)
def run_gates(
    kind, rows, first, end, units, gates, sums, stride, x_sums, x_stride, cells, padded, old, old_at, new, new_at, own
):
    """Finish a tile: do the gate math for units first..end of `units`.

    Parameters
    ----------
    kind : GatesType
    rows, first, end, units, gates : int
    sums, stride, x_sums, x_stride
        [rows][U][G][lanes], all sums and those over x alone; elements from row to row.
    cells, padded
        c or z of the first row; elements from row to row.
    old, old_at, new, new_at
        The states before and after: row j starts at base[offsets[j]].
    own
        The parameters of own cells, [parameters][groups][lanes].
    """
    n, wide = lanes(cells), width(cells)
    for j in range(rows):
        row, x_row = move(sums, j * stride), move(x_sums, j * x_stride)
        cell, before, after = move(cells, j * padded), move(old, old_at[j]), move(new, new_at[j])
        for unit in range(first, end, wide):
            place = (unit - first) // n * gates * n + unit % n
            now, left = (move(cell, unit), move(before, unit), move(after, unit)), min(wide, units - unit)
            _finish(kind, move(row, place), move(x_row, place), *now, move(own, unit), padded, left)


@cache
def gates_address(phase: Phase, activation: str, dtype: str) -> int:
    """Compile the gate math of a phase; return what `calls.call_gates` calls."""
    i, floats, integers = types.int64, types.CPointer(getattr(types, dtype)), types.CPointer(types.int64)
    places = floats, i, floats, i, floats, i, floats, integers, floats, integers
    return address_of(run_gates, GatesType(phase, activation), i, i, i, i, i, *places, floats)
