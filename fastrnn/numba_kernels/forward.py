"""The loop over time, alike for all cells: inputs are projected for a tile of time steps, then the steps follow."""

from collections import namedtuple
from collections.abc import Callable
from typing import Any

from numba import int64
from numba.core.extending import intrinsic

from fastrnn.numba_kernels.ahead import AHEAD, Ahead, can_ahead
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.gemm import Rows, project, walk
from fastrnn.numba_kernels.gru import GRU, GRU_NEW, GRU_RESET
from fastrnn.numba_kernels.lstm import LSTM, LSTM_PROJ, PROJECT
from fastrnn.numba_kernels.phases import Phase, gate_count
from fastrnn.numba_kernels.rnn import RNN
from fastrnn.numba_kernels.simd import GROUP_BYTES, constant_of, integers, lanes, move

__all__ = ["MANY_ROWS", "TILE_ROWS", "VARIANTS", "Job", "Sizes", "forward", "tabulate", "take_step"]

VARIANTS = {
    "rnn": (RNN,),
    "lstm": (LSTM,),
    "lstm_proj": (LSTM_PROJ, PROJECT),
    "gru": (GRU,),
    "gru_before": (GRU_RESET, GRU_NEW),
}
"""Phases of a step."""

TILE_ROWS = 48  # rows of projected inputs held at a time, whatever T is: they stay in the nearer caches
AHEAD_LEAST = 64 * 1024  # bytes of W_hh that the nearest cache serves about as fast as they are multiplied,
AHEAD_MOST = 12 * 1024 * 1024  # and of both matrices, from which on memory is what a step waits for
AHEAD_INPUTS = 48  # I, below which projecting on the way takes longer than before the steps
MANY_ROWS = 32  # from here on a step has rows enough to sum over x and h in one go

Job = namedtuple(
    "Job",
    [
        "inputs",  # I of this layer
        "hidden",  # H
        "state",  # R = P or H
        "rows",  # n
        "steps",  # the longest row's
        "lengths",  # [n] steps of each row, longest first
        "x",  # Rows: where each row's first step lies; step t lies t*dx further
        "dx",
        "ids",  # where x is ids: the address of what its offsets point into; 0 where it is vectors
        "by_table",  # whether ids number rows of the tables that are in the place of w_x, not rows of x.base
        "y",  # Rows, as x
        "dy",
        "h",  # Rows: the states to start from
        "inner",  # Rows in the workspace: m of a projected LSTM, r*h of a GRU that resets before
        "cells",  # [n][padded] in the workspace: c of an LSTM, z of a GRU that resets before
        "padded",  # H padded to whole groups
        "sums",  # one tile's sums
        "x_sums",  # one tile's sums over x
        "first",  # Packed, first phase
        "second",  # Packed, second phase if there is one
        "list",  # [TILE_ROWS] offsets of the rows that are projected
        "numbered",  # [n] what the ids of a step number: rows of a table, or offsets of rows of x.base
    ],
)
"""One layer in one direction for some rows. The backward direction has negative dx and dy."""


Sizes = namedtuple("Sizes", "inputs hidden")
"""What `project` takes of a `Job`."""


def _phase_of(choose: Callable[[str], Phase]) -> Any:
    """Make an intrinsic of a Kind that gives one of its phases."""

    @intrinsic
    def phase(typingctx, kind):
        return choose(kind.variant).type(kind), lambda context, builder, sig, args: context.get_dummy_value()

    return phase


_first = _phase_of(lambda variant: VARIANTS[variant][0])
_last = _phase_of(lambda variant: VARIANTS[variant][-1])
_last_with_x = _phase_of(lambda variant: [p for p in VARIANTS[variant] if not p.type.flags["projects"]][-1])
_has_second = constant_of(lambda kind: len(VARIANTS[kind.variant]) > 1)
_second_has_x = constant_of(lambda kind: kind.variant == "gru_before")


@njit()
def _waits_for_weights(phase, job):
    """Whether one row waits for weights from the outer caches, so that it can project inputs on the way."""
    row = (job.hidden + lanes(job.first.b) - 1) // lanes(job.first.b) * gate_count(phase) * GROUP_BYTES
    few = job.rows == 1 and not job.ids and job.steps >= 2 * AHEAD and job.inputs >= AHEAD_INPUTS
    return few and row * job.state > AHEAD_LEAST and row * (job.state + job.inputs) <= AHEAD_MOST


@njit()
def _x_at(job, row, step):
    """Offset of a row of x at a step; where ids number rows of a table, the row's number."""
    at = job.x.offsets[row] + step * job.dx
    if job.ids:
        return integers(job.ids)[at] * (1 if job.by_table else job.inputs)
    return at


@njit(forceinline=True)
def take_step(kind, job, h, step, rows, at, ahead):
    """One time step from state h: all phases; the arguments are those of `walk`."""
    walk(_first(kind), kind, job.first, job, h, step, rows, at, ahead)
    if _has_second(kind):
        walk(_last(kind), kind, job.second, job, h, step, rows, at, ahead)


@njit()
def forward(kind, job):
    """Run all steps of a job, every row as far as it goes."""
    first = _first(kind)
    step, rows = int64(0), job.rows  # a bare 0 is a type of its own, for which Numba compiles everything once more
    h = job.h  # the state before a step: y holds it, but for the first
    end, at = 0, -1  # inputs are projected up to this step; the next ones start at this row of the buffer
    looks_ahead = can_ahead(first) and _waits_for_weights(first, job)
    ahead, half, since = Ahead(-1, 0, 0, 0), 0, 0
    while step < job.steps:
        while job.lengths[rows - 1] <= step:
            rows -= 1
        if step == end:
            since = step
        if looks_ahead and step == end and step > 0:  # projected on the way, into the other half of the buffer
            half = AHEAD - half
            end, at = end + AHEAD, half
        elif step == end and not job.by_table and rows < MANY_ROWS and (step + 1 < job.steps or looks_ahead):
            count, live = 0, rows
            most = (job.steps - 1) % AHEAD + 1 if looks_ahead else TILE_ROWS  # short at first, then whole tiles
            while end < job.steps and count + live <= most:
                for row in range(live):
                    job.list[count + row] = _x_at(job, row, end)
                count += live
                end += 1
                while end < job.steps and job.lengths[live - 1] <= end:
                    live -= 1
            x = Rows(job.x.base, job.list)
            project(first, job.first, job, x, count)
            if _second_has_x(kind):
                project(_last_with_x(kind), job.second, job, x, count)
            at = 0
        elif step == end:
            end, at = end + 1, -1
        if looks_ahead:
            ahead = Ahead(end if end < job.steps else -1, AHEAD - half, step - since, end - since)
        if job.ids and at < 0:
            for row in range(rows):
                job.numbered[row] = _x_at(job, row, step)
        take_step(kind, job, h, step, rows, at, ahead)
        h = Rows(move(job.y.base, step * job.dy), job.y.offsets)
        step += 1
        if at >= 0:
            at += rows


@njit()
def tabulate(kind, second, packed, sizes, x, rows):
    """Write a table, the buffer of `packed`: b + W_ih x of the first phase, or of the second, for so many rows of x."""
    if not second:
        project(_first(kind), packed, sizes, x, rows)
    elif _second_has_x(kind):
        project(_last_with_x(kind), packed, sizes, x, rows)
