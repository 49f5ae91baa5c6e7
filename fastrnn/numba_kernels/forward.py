"""The loop over time, alike for all cells: inputs are projected for a tile of time steps, then the steps follow."""

from collections import namedtuple

from numba import int64

from fastrnn.cells import variant
from fastrnn.numba_kernels.ahead import AHEAD, Ahead, can_ahead
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.gemm import Rows, project, walk
from fastrnn.numba_kernels.gru import GRU, GRU_NEW, GRU_RESET
from fastrnn.numba_kernels.kind import has_two
from fastrnn.numba_kernels.lstm import LSTM, LSTM_PROJ, PROJECT
from fastrnn.numba_kernels.own import own_phases
from fastrnn.numba_kernels.phases import Phase
from fastrnn.numba_kernels.rnn import RNN
from fastrnn.numba_kernels.simd import GROUP_BYTES, integers, lanes, move

__all__ = [
    "MANY_ROWS",
    "TILE_ROWS",
    "Job",
    "Sizes",
    "forward",
    "phases_of",
    "take_step",
    "waits_for_weights",
]

_PHASES = {
    "rnn": (RNN,),
    "lstm": (LSTM,),
    "lstm_proj": (LSTM_PROJ, PROJECT),
    "gru": (GRU,),
    "gru_before": (GRU_RESET, GRU_NEW),
}

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


def phases_of(name: str) -> tuple[Phase, ...]:
    """Return the phases of a step of a variant."""
    return _PHASES.get(name) or own_phases(variant(name))


def waits_for_weights(phase: Phase, hidden: int, state: int, itemsize: int) -> bool:
    """Whether one row waits for W_hh from the outer caches, and the target can project inputs on the way."""
    row = -(-hidden * itemsize // GROUP_BYTES) * phase.gates * GROUP_BYTES
    return phase.has_h and can_ahead(phase.groups * phase.gates) and row * state > AHEAD_LEAST


@njit()
def _looks_ahead(job):
    """Whether inputs are projected on the way of a row's steps."""
    row = (job.hidden + lanes(job.first.b) - 1) // lanes(job.first.b) * job.first.gates * GROUP_BYTES
    few = job.rows == 1 and not job.ids and job.steps >= 2 * AHEAD and job.inputs >= AHEAD_INPUTS
    gates = min(job.first.gates, job.second.gates) if job.second.has_x else job.first.gates
    fit = AHEAD * job.inputs <= (TILE_ROWS - 2 * AHEAD) * job.padded * gates  # behind two tiles, by columns
    return job.first.columns != 0 and few and fit and row * (job.state + job.inputs) <= AHEAD_MOST


@njit()
def _x_at(job, row, step):
    """Offset of a row of x at a step; where ids number rows of a table, the row's number."""
    at = job.x.offsets[row] + step * job.dx
    if job.ids:
        return integers(job.ids)[at] * (1 if job.by_table else job.inputs)
    return at


@njit(forceinline=True)
def take_step(phases, job, h, step, rows, at, ahead):
    """One time step from state h; the other arguments are those of `walk`.

    Where there is a second phase, it multiplies what the first one leaves in the workspace: m or r*h.
    """
    y = Rows(move(job.y.base, step * job.dy), job.y.offsets)
    new = job.inner if has_two(phases) else y
    walk(job.first, job, h, job.state, h, new, job.hidden, step, rows, at, ahead)
    if has_two(phases):
        walk(job.second, job, job.inner, job.hidden, h, y, job.state, step, rows, at, ahead)


@njit()
def forward(phases, job):
    """Run all steps of a job, every row as far as it goes."""
    step, rows = int64(0), job.rows  # a bare 0 is a type of its own, for which Numba compiles everything once more
    h = job.h  # the state before a step: y holds it, but for the first
    end, at = 0, -1  # inputs are projected up to this step; the next ones start at this row of the buffer
    looks_ahead = _looks_ahead(job)
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
            project(job.first, job, x, count)
            if has_two(phases) and job.second.has_x:
                project(job.second, job, x, count)
            at = 0
        elif step == end:
            end, at = end + 1, -1
        if looks_ahead:
            ahead = Ahead(end if end < job.steps else -1, AHEAD - half, step - since, end - since)
        if job.ids and at < 0:
            for row in range(rows):
                job.numbered[row] = _x_at(job, row, step)
        take_step(phases, job, h, step, rows, at, ahead)
        h = Rows(move(job.y.base, step * job.dy), job.y.offsets)
        step += 1
        if at >= 0:
            at += rows
