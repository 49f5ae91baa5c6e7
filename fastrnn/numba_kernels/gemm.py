"""Walks of the register tile over blocks and rows: the projection of inputs, and one phase of a step.

Rows are addressed by offsets, so that time steps, rows of a batch and rows still alive are all the same.
"""

from collections import namedtuple

from fastrnn.numba_kernels.ahead import ahead_tile, begin_ahead, finish_ahead
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.phases import finish_tile
from fastrnn.numba_kernels.simd import lanes, load, move, never_inline, pointer, store, width
from fastrnn.numba_kernels.tile import height, sum_tile, tile_count

__all__ = ["GATES", "PHASE_NUMBERS", "Packed", "Rows", "packed_at", "project", "walk"]

Rows = namedtuple("Rows", "base offsets")
"""Rows of a matrix: row r starts at base[offsets[r]]."""

PHASE_NUMBERS, GATES = 17, 10
"""Numbers of a phase of a layer and direction, and the place of G among them.

Addresses of w_x, w_h, b, and of b_h or 0; what `sum_tile`, `finish_tile` and `call_columns` call, or 0 for the last
where inputs are never projected on the way; U, G, the rows of the highest tile, how many blocks there are, and whether
the sums are over x, and over h; the most columns of weights of which one row takes two blocks at once; the address of
the parameters of an own cell.
"""

Packed = namedtuple(
    "Packed",
    "w_x w_h b b_h row tile finish_row finish columns groups gates most blocks has_x has_h pairs own "
    "buffer line ahead_sums",
)  # fmt: skip
"""The numbers of a phase, and pointers: to its projected inputs, [rows][groups][G][lanes]; and to what a step hands to
the next of the inputs that are projected on the way: the block, vector and column that are next on the line, and the
sums of the vectors at work, [AHEAD][2][lanes]. Where ids number the rows of a table, [vocab][groups][G][lanes], this is
in the place of w_x.
"""


@njit(forceinline=True)
def packed_at(like, table, at, buffer, line, ahead_sums):
    """One phase's packed weights, from its numbers, which stand in a table from `at` on."""
    return Packed(
        pointer(like, table[at]),
        pointer(like, table[at + 1]),
        pointer(like, table[at + 2]),
        table[at + 3],
        table[at + 4],
        table[at + 5],
        table[at + 6],
        table[at + 7],
        table[at + 8],
        table[at + 9],
        table[at + 10],
        table[at + 11],
        table[at + 12],
        table[at + 13] != 0,
        table[at + 14] != 0,
        table[at + 15],
        pointer(like, table[at + 16]),
        buffer,
        line,
        ahead_sums,
    )


@njit()
def project(packed, job, x, rows):
    """buffer[row] = b + W_ih x[row]: a product of matrices over the rows of several time steps."""
    n = lanes(packed.b)
    groups = (job.hidden + n - 1) // n
    gates = packed.gates * n  # elements of a group
    null = pointer(packed.b, 0)
    for block in range(packed.blocks):
        q = block * packed.groups
        here = min(packed.groups, groups - q)
        b, w = move(packed.b, q * gates), move(packed.w_x, q * gates * job.inputs)
        row, tiles = 0, tile_count(rows, packed.most)
        while row < rows:
            m = height(rows - row, tiles)
            out = move(packed.buffer, (row * groups + q) * gates)
            offsets = move(x.offsets, row)
            sum_tile(packed.row, packed.tile, m, here, job.inputs, b, 0, null, out, groups * gates, x.base, offsets, w)
            row += m
            tiles -= 1


@njit()
def _look_up(rows, numbers, table, row_size, size, out, stride):
    """Copy parts of rows of a table to where rows have one stride. Inlined it would slow down the walk without ids."""
    never_inline()
    for j in range(rows):
        for k in range(0, size, width(table)):
            store(out, j * stride + k, load(move(table, numbers[j] * row_size), k))


@njit(forceinline=True)
def _walk_pairs(packed, job, a, depth, old, new, units, start, x, sums_x):
    """As `walk` for one row, two blocks of one group at a time; return the first block that is left."""
    n = lanes(packed.b)
    groups = (units + n - 1) // n
    gates = packed.gates * n
    null = pointer(packed.b, 0)
    q = 0
    while q + 2 <= packed.blocks:
        w_x, w_h = move(packed.w_x, q * gates * job.inputs), move(packed.w_h, q * gates * depth)
        x_sums = move(start, q * gates)
        if sums_x:
            sum_tile(
                packed.row, packed.tile, 1, 2, job.inputs, x_sums, 0, null, job.x_sums, 0, x.base, x.offsets, w_x
            )  # fmt: skip
            x_sums = job.x_sums
        elif job.by_table and packed.has_x:
            _look_up(1, job.numbered, move(packed.w_x, q * gates), groups * gates, 2 * gates, job.x_sums, 0)
            x_sums = job.x_sums
        sum_tile(packed.row, packed.tile, 1, 2, depth, x_sums, 0, null, job.sums, 0, a.base, a.offsets, w_h)
        for block in range(2):
            first = (q + block) * n
            finish_tile(
                packed.finish_row, packed.finish, 1, first, min(n, units - first), move(job.sums, block * gates), 0,
                move(x_sums, block * gates), 0, move(job.cells, first), job.padded, old.base, old.offsets, new.base,
                new.offsets, move(packed.own, first),
            )  # fmt: skip
        q += 2
    return q


@njit(forceinline=True)  # a call would copy the whole job to the stack
def walk(packed, job, a, depth, old, new, units, step, rows, at, ahead):
    """One phase of one time step: the sums of all blocks for the first `rows` rows, then their gate math.

    The phase multiplies `depth` columns of w_h by `a`, and leads from the states `old` to `new`. Projected inputs start
    at row `at` of the buffer; with at < 0 they are not projected yet and x is summed here. Odd steps walk the blocks
    backwards: the weights read last are still in the nearest cache. Where all of them are, one row may take two blocks
    at a time.
    """
    n = lanes(packed.b)
    groups = (units + n - 1) // n
    gates = packed.gates * n  # elements of a group
    stride = packed.groups * gates  # of a block
    start, start_stride = packed.b, 0
    if at >= 0 and packed.has_x:
        start, start_stride = move(packed.buffer, at * groups * gates), groups * gates
    null = pointer(packed.b, 0)
    sums_x = at < 0 and not job.by_table and packed.has_x
    looks_up = job.by_table and packed.has_x
    x = Rows(move(job.x.base, step * job.dx), job.x.offsets)
    if job.ids:
        x = Rows(job.x.base, job.numbered)
    looks_ahead = ahead.step >= 0 and packed.has_x
    if looks_ahead and ahead.part == 0:
        begin_ahead(packed)
    done = 0
    if rows == 1 and depth + (job.inputs if sums_x else 0) <= packed.pairs:
        done = _walk_pairs(packed, job, a, depth, old, new, units, start, x, sums_x)
    for i in range(done, packed.blocks):
        q = packed.groups * (packed.blocks - 1 + done - i if step & 1 else i)
        here = min(packed.groups, groups - q)
        w_x, w_h = move(packed.w_x, q * gates * job.inputs), move(packed.w_h, q * gates * depth)
        apart = move(pointer(null, packed.b_h), q * n) if packed.b_h else null
        row, tiles = 0, tile_count(rows, packed.most)
        while row < rows:
            m = height(rows - row, tiles)
            x_sums, x_stride = move(start, row * start_stride + q * gates), start_stride
            if sums_x:
                offsets = move(x.offsets, row)
                sum_tile(
                    packed.row, packed.tile, m, here, job.inputs, x_sums, 0, null, job.x_sums, stride, x.base, offsets,
                    w_x,
                )  # fmt: skip
                x_sums, x_stride = job.x_sums, stride
            elif looks_up:
                table, numbers = move(packed.w_x, q * gates), move(job.numbered, row)
                _look_up(m, numbers, table, groups * gates, here * gates, job.x_sums, stride)
                x_sums, x_stride = job.x_sums, stride
            sums, sums_stride = job.sums, stride
            if not packed.has_h:
                sums, sums_stride = x_sums, x_stride
            elif looks_ahead:
                ahead_tile(packed, job, ahead, here, depth, x_sums, apart, move(a.base, a.offsets[0]), w_h)
            else:
                offsets = move(a.offsets, row)
                sum_tile(
                    packed.row, packed.tile, m, here, depth, x_sums, x_stride, apart, job.sums, stride, a.base, offsets,
                    w_h,
                )  # fmt: skip
            first, cells, own = q * n, move(job.cells, row * job.padded + q * n), move(packed.own, q * n)
            old_at, new_at = move(old.offsets, row), move(new.offsets, row)
            finish_tile(
                packed.finish_row, packed.finish, m, first, min(here * n, units - first), sums, sums_stride,
                x_sums, x_stride, cells, job.padded, old.base, old_at, new.base, new_at, own,
            )  # fmt: skip
            row += m
            tiles -= 1
    if looks_ahead and ahead.part + 1 == ahead.parts:
        finish_ahead(packed, job, ahead)
