"""Walks of the register tile over blocks and rows: the projection of inputs, and one phase of a step.

Rows are addressed by offsets, so that time steps, rows of a batch and rows still alive are all the same.
"""

from collections import namedtuple

from fastrnn.numba_kernels.ahead import ahead_tile, begin_ahead, can_ahead, finish_ahead
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.phases import finish, flag, gate_count, group_count
from fastrnn.numba_kernels.simd import lanes, load, move, pointer, store, width
from fastrnn.numba_kernels.tile import most_rows, tile

__all__ = ["Packed", "Rows", "project", "walk"]

Rows = namedtuple("Rows", "base offsets")
"""Rows of a matrix: row r starts at base[offsets[r]]."""

Packed = namedtuple("Packed", "w_x w_h b b_h buffer line ahead_sums")
"""Pointers to one phase's packed weights; to its projected inputs, [rows][groups][G][lanes]; and what a step hands to
the next of the inputs that are projected on the way: the block, vector and column that are next on the line, and the
sums of the vectors at work, [AHEAD][2][lanes]. Where ids number the rows of a table, [vocab][groups][G][lanes], this is
in the place of w_x.
"""


@njit()
def project(phase, packed, job, x, rows):
    """buffer[row] = b + W_ih x[row]: a product of matrices over the rows of several time steps."""
    n, most = lanes(packed.b), most_rows(phase)
    groups = (job.hidden + n - 1) // n
    gates = gate_count(phase) * n  # elements of a group
    null = pointer(packed.b, 0)
    for q in range(0, groups, group_count(phase)):
        here = min(group_count(phase), groups - q)
        b, w = move(packed.b, q * gates), move(packed.w_x, q * gates * job.inputs)
        row = 0
        while row < rows:
            # Tiles of equal height: eight rows are 4 + 4, for 6 + 2 would leave two rows at a third of the speed.
            tiles = (rows - row + most - 1) // most
            m = (rows - row + tiles - 1) // tiles
            out = move(packed.buffer, (row * groups + q) * gates)
            tile(phase, m, here, job.inputs, b, 0, null, out, groups * gates, x.base, move(x.offsets, row), w)
            row += m


@njit()
def walk(phase, kind, packed, job, step, rows, at, ahead):
    """One phase of one time step: the sums of all blocks for the first `rows` rows, then their gate math.

    Projected inputs start at row `at` of the buffer; with at < 0 they are not projected yet and x is summed here. Odd
    steps walk the blocks backwards: the weights read last are still in the nearest cache.
    """
    n, most, wide = lanes(packed.b), most_rows(phase), width(packed.b)
    y = Rows(move(job.y.base, step * job.dy), job.y.offsets)
    h = job.h  # the state before this step: y holds it, but for the first
    if step > 0:
        h = Rows(move(job.y.base, (step - 1) * job.dy), job.y.offsets)
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
            tiles = (rows - row + most - 1) // most
            m = (rows - row + tiles - 1) // tiles
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
            for j in range(m):
                cells = move(job.cells, (row + j) * job.padded)
                old, new = move(h.base, h.offsets[row + j]), move(out.base, out.offsets[row + j])
                for unit in range(q * n, min(units, (q + here) * n), wide):
                    place = (unit // n - q) * gates + unit % n
                    finish(
                        phase,
                        kind,
                        move(job.sums, j * stride + place),
                        move(x_sums, j * x_stride + place),
                        move(cells, unit),
                        move(old, unit),
                        move(new, unit),
                        min(wide, units - unit),
                    )
            row += m
    if looks_ahead and ahead.part + 1 == ahead.parts:
        finish_ahead(phase, packed, job, ahead)
