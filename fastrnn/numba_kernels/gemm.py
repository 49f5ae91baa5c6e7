"""Walks of the register tile over blocks and rows: the projection of inputs, and one phase of a step.

Rows are addressed by offsets, so that time steps, rows of a batch and rows still alive are all the same.
"""

from collections import namedtuple

from fastrnn.numba_kernels.ahead import ahead_tile, begin_ahead, finish_ahead
from fastrnn.numba_kernels.calls import call_gates, call_row
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.simd import lanes, load, move, never_inline, pointer, store, width
from fastrnn.numba_kernels.tile import height, sum_tile, tile_count

__all__ = ["GATES", "PHASE_NUMBERS", "Packed", "Rows", "packed_at", "project", "walk"]

Rows = namedtuple("Rows", "base offsets")
"""Rows of a matrix: row r starts at base[offsets[r]]."""

PHASE_NUMBERS, GATES = 17, 9
"""Numbers of a phase of a layer and direction, and the place of G among them.

Addresses of w_x, w_h, b, and of b_h or 0; what `sum_tile`, `call_gates` and `call_columns` call, or 0 for the last
where inputs are never projected on the way; U, G, the rows of the highest tile, how many blocks there are, and whether
the sums are over x, and over h; the most columns of weights of which one row takes two blocks at once; the address of
the parameters of an own cell; how many blocks of one row have their gate math together.
"""

Packed = namedtuple(
    "Packed",
    "w_x w_h b b_h row tile finish columns groups gates most blocks has_x has_h pairs own at_once "
    "buffer line ahead_sums",
)  # fmt: skip
"""The numbers of a phase, and pointers: to projected inputs, [TILE_ROWS][groups][G][lanes]; and to what a step hands
to the next of the inputs that are projected on the way: the block, vector and column that are next on the line, and the
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
        table[at + 12] != 0,
        table[at + 13] != 0,
        table[at + 14],
        pointer(like, table[at + 15]),
        table[at + 16],
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
def _sum_ahead(packed, job, ahead, depth, q, count, groups, backwards, x_sums, a_row):
    """Sum `count` blocks of one row over h, and take columns of inputs on the way; there are `groups` from q on."""
    n = lanes(packed.b)
    gates = packed.gates * n
    for i in range(count):
        done = (count - 1 - i if backwards else i) * packed.groups
        here, at, w_h = min(packed.groups, groups - done), done * gates, move(packed.w_h, (q + done) * gates * depth)
        apart = move(pointer(packed.b, packed.b_h), (q + done) * n) if packed.b_h else pointer(packed.b, 0)
        ahead_tile(packed, job, ahead, here, depth, move(x_sums, at), apart, move(job.sums, at), a_row, w_h)


@njit(forceinline=True)
def _walk_row(packed, job, a, depth, old, new, units, start, x, sums_x, looks_up, step, ahead):
    """As `walk` for one row: some blocks at a time have their gate math together, and their sums behind each other."""
    n = lanes(packed.b)
    gates, null = packed.gates * n, pointer(packed.b, 0)
    all_groups = (units + n - 1) // n
    a_row, x_row = move(a.base, a.offsets[0]), move(x.base, x.offsets[0])
    looks_ahead = ahead.step >= 0 and packed.has_x
    by_twos = depth + (job.inputs if sums_x else 0) <= packed.pairs
    backwards = step & 1
    if looks_ahead and ahead.part == 0:
        begin_ahead(packed, job, ahead)
    done = 0
    while done < packed.blocks:
        count = min(packed.at_once, packed.blocks - done)
        q = packed.groups * (packed.blocks - done - count if backwards else done)
        groups = min(count * packed.groups, all_groups - q)
        x_sums = move(start, q * gates)
        if looks_up:
            _look_up(1, job.numbered, move(packed.w_x, q * gates), all_groups * gates, groups * gates, job.x_sums, 0)
        if looks_up or sums_x:
            x_sums = job.x_sums
        if looks_ahead:
            _sum_ahead(packed, job, ahead, depth, q, count, groups, backwards, x_sums, a_row)
        else:
            # Blocks of one shape go in one call; then the last one, of fewer groups or without a second.
            at, here, alike = 0, packed.groups, count - (groups < count * packed.groups)
            if by_twos:
                here, alike = 2, count // 2
            while at < groups:
                if not alike:
                    here, alike = groups - at, 1
                place, w_x, w_h = at * gates, (q + at) * gates * job.inputs, (q + at) * gates * depth
                if sums_x:
                    before, w, out = move(start, (q + at) * gates), move(packed.w_x, w_x), move(job.x_sums, place)
                    call_row(packed.row, here, alike, backwards, job.inputs, before, null, out, x_row, w)
                if packed.has_h:
                    apart = move(pointer(null, packed.b_h), (q + at) * n) if packed.b_h else null
                    before, w, out = move(x_sums, place), move(packed.w_h, w_h), move(job.sums, place)
                    call_row(packed.row, here, alike, backwards, depth, before, apart, out, a_row, w)
                at, alike = at + alike * here, 0
        first = q * n
        sums, cells, own = job.sums if packed.has_h else x_sums, move(job.cells, first), move(packed.own, first)
        left = min(groups * n, units - first)
        call_gates(
            packed.finish, 1, first, left, sums, 0, x_sums, 0, cells, job.padded, old.base, old.offsets, new.base,
            new.offsets, own,
        )  # fmt: skip
        done += count
    if looks_ahead and ahead.part + 1 == ahead.parts:
        finish_ahead(packed, job, ahead)


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
    if rows == 1:
        _walk_row(packed, job, a, depth, old, new, units, start, x, sums_x, looks_up, step, ahead)
        return
    for i in range(packed.blocks):
        q = packed.groups * (packed.blocks - 1 - i if step & 1 else i)
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
            else:
                offsets = move(a.offsets, row)
                sum_tile(
                    packed.row, packed.tile, m, here, depth, x_sums, x_stride, apart, job.sums, stride, a.base, offsets,
                    w_h,
                )  # fmt: skip
            first, cells, own = q * n, move(job.cells, row * job.padded + q * n), move(packed.own, q * n)
            old_at, new_at = move(old.offsets, row), move(new.offsets, row)
            call_gates(
                packed.finish, m, first, min(here * n, units - first), sums, sums_stride, x_sums, x_stride, cells,
                job.padded, old.base, old_at, new.base, new_at, own,
            )  # fmt: skip
            row += m
            tiles -= 1
