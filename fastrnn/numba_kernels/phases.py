"""Phases of a step: the shape of their blocks, and the gate math that finishes their tiles.

The walk over blocks reads a phase's numbers and calls its tiles and its gate math by address. So it is compiled once
for all cells, and what is compiled for a cell is no more than these.
"""

from functools import cache
from typing import Any

from numba.core import types
from numba.core.extending import models, register_model

from fastrnn.numba_kernels.calls import address_of, call_gates, call_row_gates
from fastrnn.numba_kernels.door import STAMP, njit, overload
from fastrnn.numba_kernels.simd import constant_of, lanes, move, width

__all__ = ["Phase", "finish_tile", "gates_addresses", "run_gates", "run_row_gates"]


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
        self.groups, self.gates = phase.groups, phase.gates
        super().__init__(name=f"fastrnn.Gates({phase.name}, {activation}, {STAMP})")


register_model(GatesType)(models.OpaqueModel)

_groups = constant_of(lambda kind: kind.groups)
_gates = constant_of(lambda kind: kind.gates)


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


@njit(forceinline=True)
def _finish_row(kind, count, sums, x_sums, cell, old, new, own, stride):
    n, wide = lanes(cell), width(cell)
    unit = 0
    while True:
        place = unit // n * _gates(kind) * n + unit % n
        now = move(cell, unit), move(old, unit), move(new, unit)
        _finish(kind, move(sums, place), move(x_sums, place), *now, move(own, unit), stride, min(wide, count - unit))
        unit += wide
        # A block of one vector takes no loop, before which all constants would be loaded: they are operands.
        if _groups(kind) * n == wide or unit >= count:
            break


@njit(cache=True)
def run_row_gates(kind, count, sums, x_sums, cell, old, new, own, padded):
    """Finish a tile of one row: `run_gates` with its states at `old` and `new`."""
    _finish_row(kind, count, sums, x_sums, cell, old, new, own, padded)


@njit(cache=True)
def run_gates(
    kind, rows, first, count, sums, stride, x_sums, x_stride, cells, padded, old, old_at, new, new_at, own
):  # fmt: skip
    """Finish a tile: do the gate math for `count` units from the unit `first` on.

    Parameters
    ----------
    kind : GatesType
    rows, first, count : int
    sums, stride, x_sums, x_stride
        [rows][U][G][lanes], all sums and those over x alone; elements from row to row.
    cells, padded
        c or z of the first row and unit; elements from row to row.
    old, old_at, new, new_at
        The states before and after: row j starts at base[offsets[j]].
    own
        The parameters of own cells, [parameters][groups][lanes], from the first unit on.
    """
    for j in range(rows):
        row, x_row, cell = move(sums, j * stride), move(x_sums, j * x_stride), move(cells, j * padded)
        before, after = move(old, old_at[j] + first), move(new, new_at[j] + first)
        _finish_row(kind, count, row, x_row, cell, before, after, own, padded)


@njit(forceinline=True)
def finish_tile(
    one, more, rows, first, count, sums, stride, x_sums, x_stride, cells, padded, old, old_at, new, new_at, own
):  # fmt: skip
    """Finish a tile of one row or more, by the entry points at these addresses."""
    if rows == 1:
        before, after = move(old, old_at[0] + first), move(new, new_at[0] + first)
        call_row_gates(one, count, sums, x_sums, cells, before, after, own, padded)
    else:
        call_gates(
            more, rows, first, count, sums, stride, x_sums, x_stride, cells, padded, old, old_at, new, new_at, own
        )  # fmt: skip


@cache
def gates_addresses(phase: Phase, activation: str, dtype: str) -> tuple[int, int]:
    """Compile the gate math of a phase; return what `finish_tile` calls."""
    i, floats, integers = types.int64, types.CPointer(getattr(types, dtype)), types.CPointer(types.int64)
    places = floats, i, floats, i, floats, i, floats, integers, floats, integers
    kind = GatesType(phase, activation)
    one = address_of(run_row_gates, kind, i, *[floats] * 6, i)
    return one, address_of(run_gates, kind, i, i, i, *places, floats)
