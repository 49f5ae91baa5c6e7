"""Walks of the register tile over blocks and rows: the projection of inputs, and one phase of a step.

Rows are addressed by offsets, so that time steps, rows of a batch and rows still alive are all the same.
"""

from collections import namedtuple

from fastrnn.numba_kernels.ahead import ahead_tile, begin_ahead, can_ahead, finish_ahead
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.phases import finish, flag, gate_count, group_count
from fastrnn.numba_kernels.simd import lanes, load, move, never_inline, pointer, store, width
from fastrnn.numba_kernels.tile import height, tile

__all__ = ["Packed", "Rows", "packed_at", "project", "walk"]

Rows = namedtuple("Rows", "base offsets")
"""Rows of a matrix: row r starts at base[offsets[r]]."""

Sums = namedtuple("Sums", "of_h stride of_x x_stride")
"""Sums of a tile, and elements from row to row: all of them, and those over x alone."""

Packed = namedtuple("Packed", "w_x w_h b b_h buffer line ahead_sums")
"""Pointers to one phase's packed weights; to its projected inputs, [rows][groups][G][lanes]; and what a step hands to
the next of the inputs that are projected on the way: the block, vector and column that are next on the line, and the
sums of the vectors at work, [AHEAD][2][lanes]. Where ids number the rows of a table, [vocab][groups][G][lanes], this is
in the place of w_x.
"""


@njit(forceinline=True)
def packed_at(like, table, at, buffer, line, ahead_sums):
    """One phase's packed weights, from the four addresses that stand in a table from `at` on."""
    return Packed(
        pointer(like, table[at]),
        pointer(like, table[at + 1]),
        pointer(like, table[at + 2]),
        pointer(like, table[at + 3]),
        buffer,
        line,
        ahead_sums,
    )


@njit()
def project(phase, packed, job, x, rows):
    """buffer[row] = b + W_ih x[row]: a product of matrices over the rows of several time steps."""
    n = lanes(packed.b)
    groups = (job.hidden + n - 1) // n
    gates = gate_count(phase) * n  # elements of a group
    null = pointer(packed.b, 0)
    for q in range(0, groups, group_count(phase)):
        here = min(group_count(phase), groups - q)
        b, w = move(packed.b, q * gates), move(packed.w_x, q * gates * job.inputs)
        row = 0
        while row < rows:
            m = height(phase, rows - row)
            out = move(packed.buffer, (row * groups + q) * gates)
            tile(phase, m, here, job.inputs, b, 0, null, out, groups * gates, x.base, move(x.offsets, row), w)
            row += m


@njit()
def finish_tile(phase, kind, rows, first, end, units, sums, cells, padded, old, new):
    """The gate math of a tile, for units first..end. A function of its own: its constants stay out of other loops."""
    never_inline()
    n, wide = lanes(cells), width(cells)
    gates = gate_count(phase) * n
    for j in range(rows):
        row, x_row = move(sums.of_h, j * sums.stride), move(sums.of_x, j * sums.x_stride)
        cell = move(cells, j * padded)
        before, after = move(old.base, old.offsets[j]), move(new.base, new.offsets[j])
        for unit in range(first, end, wide):
            place = (unit - first) // n * gates + unit % n
            finish(
                phase,
                kind,
                move(row, place),
                move(x_row, place),
                move(cell, unit),
                move(before, unit),
                move(after, unit),
                min(wide, units - unit),
            )


@njit(forceinline=True)  # a call would copy the whole job to the stack
def walk(phase, kind, packed, job, h, step, rows, at, ahead):
    """One phase of one time step from state h: the sums of all blocks for the first `rows` rows, then their gate math.

    Projected inputs start at row `at` of the buffer; with at < 0 they are not projected yet and x is summed here. Odd
    steps walk the blocks backwards: the weights read last are still in the nearest cache.
    """
    n, wide = lanes(packed.b), width(packed.b)
    y = Rows(move(job.y.base, step * job.dy), job.y.offsets)
    a, depth = (job.inner, job.hidden) if flag(phase, "takes_inner") else (h, job.state)
    out = job.inner if flag(phase, "gives_inner") else y
    units = job.state if flag(phase, "projects") else job.hidden
    groups = (units + n - 1) // n
    blocks = (groups + group_count(phase) - 1) // group_count(phase)
    gates = gate_count(phase) * n  # elements of a group
    stride = group_count(phase) * gates  # of a block
    start, start_stride = packed.b, 0
    if at >= 0 and not flag(phase, "projects"):
        start, start_stride = move(packed.buffer, at * groups * gates), groups * gates
    null = pointer(packed.b, 0)
    sums_x = at < 0 and not job.by_table and not flag(phase, "projects")
    looks_up = job.by_table and not flag(phase, "projects")
    x = Rows(move(job.x.base, step * job.dx), job.x.offsets)
    if job.ids:
        x = Rows(job.x.base, job.numbered)
    looks_ahead = can_ahead(phase) and ahead.step >= 0 and not flag(phase, "projects")
    if looks_ahead and ahead.part == 0:
        begin_ahead(packed)
    for i in range(blocks):
        q = group_count(phase) * (blocks - 1 - i if step & 1 else i)
        here = min(group_count(phase), groups - q)
        w_x, w_h = move(packed.w_x, q * gates * job.inputs), move(packed.w_h, q * gates * depth)
        apart = move(packed.b_h, q * n) if flag(phase, "apart") else null
        row = 0
        while row < rows:
            m = height(phase, rows - row)
            x_sums, x_stride = move(start, row * start_stride + q * gates), start_stride
            if sums_x:
                offsets = move(x.offsets, row)
                tile(phase, m, here, job.inputs, x_sums, 0, null, job.x_sums, stride, x.base, offsets, w_x)
                x_sums, x_stride = job.x_sums, stride
            elif looks_up:
                for j in range(m):  # copied to where rows have one stride
                    found = move(packed.w_x, (job.numbered[row + j] * groups + q) * gates)
                    for k in range(0, here * gates, wide):
                        store(job.x_sums, j * stride + k, load(found, k))
                x_sums, x_stride = job.x_sums, stride
            if looks_ahead:
                ahead_tile(phase, packed, job, ahead, here, depth, x_sums, apart, move(a.base, a.offsets[0]), w_h)
            else:
                offsets = move(a.offsets, row)
                tile(phase, m, here, depth, x_sums, x_stride, apart, job.sums, stride, a.base, offsets, w_h)
            sums, cells = Sums(job.sums, stride, x_sums, x_stride), move(job.cells, row * job.padded)
            old, new = Rows(h.base, move(h.offsets, row)), Rows(out.base, move(out.offsets, row))
            finish_tile(phase, kind, m, q * n, min(units, (q + here) * n), units, sums, cells, job.padded, old, new)
            row += m
    if looks_ahead and ahead.part + 1 == ahead.parts:
        finish_ahead(phase, packed, job, ahead)
