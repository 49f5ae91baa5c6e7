"""All layers and directions for some rows of a batch: from the arrays of a call to jobs, and the entry point."""

from numba import prange

from fastrnn.numba_kernels.ahead import AHEAD
from fastrnn.numba_kernels.calls import call_rows
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.forward import TILE_ROWS, Job, Sizes, forward, phases_of
from fastrnn.numba_kernels.gemm import GATES, PHASE_NUMBERS, Rows, packed_at, project
from fastrnn.numba_kernels.simd import GROUP_BYTES, data, integers, lanes, move, pointer
from fastrnn.numba_kernels.tile import MOST_ROWS

__all__ = ["EMBEDDING", "HAS_C", "HEADER", "TILE_GROUPS", "run_all", "run_rows", "run_table", "work_bytes"]

TILE_GROUPS = MOST_ROWS * 8
"""Groups of sums of a tile, at most: the gates of an own cell."""

EMBEDDING, HAS_C = 5, 6
HEADER = 7
"""Numbers before those of weights: layers, directions, I, H, R, the embedding if ids number rows of it, and whether
there is a c.

Then come `PHASE_NUMBERS` for each of two phases of each layer and direction.
"""
_INTEGERS = 8  # of a row at the front of a workspace; seven are used, eight keep what follows aligned
_LINES = 8  # integers of two lines of inputs that are projected on the way, for each phase three


def work_bytes(variant: str, rows: int, hidden: int, itemsize: int) -> int:
    """Bytes of workspace for some rows, whatever T is; `run_rows` cuts it up."""
    n = GROUP_BYTES // itemsize
    padded = -(-hidden // n) * n
    floats = (
        (2 * TILE_GROUPS + 4 * AHEAD) * n
        + 2 * rows * padded
        + TILE_ROWS * padded * sum(p.gates for p in phases_of(variant))
    )
    return 8 * (_INTEGERS * rows + TILE_ROWS + _LINES) + floats * itemsize


@njit(cache=True)
def run_rows(
    phases, addresses, x, h, c, y, h_out, c_out, ids, ids_step, ids_row, order, lengths, between, work, first, every
):
    """Run rows first, first + every, .. of the batch, longest first, through all layers; nothing else is touched.

    Where `ids` is not 0 it is the address of int64 numbers, and x is not read.
    """
    table = integers(addresses)
    steps, batch = y.shape[0], y.shape[1]
    rows = (batch - first + every - 1) // every
    like = data(x)
    layers, directions, inputs, hidden, state = table[0], table[1], table[2], table[3], table[4]
    padded = (hidden + lanes(like) - 1) // lanes(like) * lanes(like)
    outputs = directions * state

    spare = integers(work)
    which, length, x_at, y_at = spare, move(spare, rows), move(spare, 2 * rows), move(spare, 3 * rows)
    h_at, inner_at, numbered = move(spare, 4 * rows), move(spare, 5 * rows), move(spare, 6 * rows)
    tile_list = move(spare, 7 * rows)
    for i in range(rows):
        which[i] = integers(order)[first + i * every] if order else first + i * every
        length[i] = integers(lengths)[which[i]] if lengths else steps
        inner_at[i] = i * padded
    line = move(tile_list, TILE_ROWS)
    sums = pointer(like, work + 8 * (_INTEGERS * rows + TILE_ROWS + _LINES))
    x_sums = move(sums, TILE_GROUPS * lanes(like))
    ahead_sums = move(x_sums, TILE_GROUPS * lanes(like))
    cells = move(ahead_sums, 4 * AHEAD * lanes(like))
    inner = move(cells, rows * padded)
    buffer = move(inner, rows * padded)
    buffer_second = move(buffer, TILE_ROWS * padded * table[HEADER + GATES])

    x_base, x_step, x_row = like, x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    if ids:
        x_base, x_step, x_row = pointer(like, table[EMBEDDING]), ids_step, ids_row
    y_base, y_step, y_row = data(y), y.strides[0] // y.itemsize, y.strides[1] // y.itemsize
    for layer in range(layers):
        target, target_step, target_row = y_base, y_step, y_row
        if layer < layers - 1:
            target = move(pointer(like, between), layer % 2 * steps * batch * outputs)
            target_step, target_row = batch * outputs, outputs
        for direction in range(directions):
            index = layer * directions + direction
            column = move(target, direction * state)
            sign = -1 if direction else 1
            for i in range(rows):
                start = length[i] - 1 if direction else 0
                x_at[i] = start * x_step + which[i] * x_row
                y_at[i] = start * target_step + which[i] * target_row
                h_at[i] = (index * batch + which[i]) * state
                if table[HAS_C]:
                    for k in range(hidden):
                        cells[i * padded + k] = data(c)[(index * batch + which[i]) * hidden + k]
                    for k in range(hidden, padded):
                        cells[i * padded + k] = 0
            at = HEADER + 2 * PHASE_NUMBERS * index
            job = Job(
                inputs if layer == 0 else outputs,
                hidden,
                state,
                rows,
                length[0],
                length,
                Rows(x_base, x_at),
                sign * x_step,
                ids,
                ids != 0 and table[EMBEDDING] == 0,
                Rows(column, y_at),
                sign * target_step,
                Rows(data(h), h_at),
                Rows(inner, inner_at),
                cells,
                padded,
                sums,
                x_sums,
                packed_at(like, table, at, buffer, line, ahead_sums),
                packed_at(
                    like,
                    table,
                    at + PHASE_NUMBERS,
                    buffer_second,
                    move(line, _LINES // 2),
                    move(ahead_sums, 2 * AHEAD * lanes(like)),
                ),
                tile_list,
                numbered,
            )
            forward(phases, job)
            for i in range(rows):
                final, place = data(h), h_at[i]
                if length[i]:
                    final, place = column, y_at[i] + sign * (length[i] - 1) * target_step
                for k in range(state):
                    data(h_out)[h_at[i] + k] = final[place + k]
                if table[HAS_C]:
                    for k in range(hidden):
                        data(c_out)[(index * batch + which[i]) * hidden + k] = cells[i * padded + k]
        for i in range(rows):
            for t in range(length[i], steps):
                for k in range(outputs):
                    target[t * target_step + which[i] * target_row + k] = 0
        x_base, x_step, x_row, ids = target, target_step, target_row, 0


@njit(cache=True, parallel=True)
def run_all(
    run, addresses, x, h, c, y, h_out, c_out, ids, ids_step, ids_row, order, lengths, between, work, work_size, parts
):
    """Do `run_rows`, compiled and at the address `run`, with the rows dealt out to `parts` threads.

    Each has `work_size` bytes of workspace.
    """
    for part in prange(parts):
        mine = work + part * work_size
        arrays = (x, h, c, y, h_out, c_out)
        call_rows(run, addresses, *arrays, ids, ids_step, ids_row, order, lengths, between, mine, part, parts)


@njit(cache=True)
def run_table(addresses, direction, second, embedding, offsets, out):
    """Write the table of a direction's first phase, or of its second, b + W_ih x for the rows x of an embedding."""
    table, like = integers(addresses), data(embedding)
    at = HEADER + PHASE_NUMBERS * (2 * direction + second)
    packed = packed_at(like, table, at, data(out), integers(offsets), like)
    rows = Rows(like, integers(offsets))
    project(packed, Sizes(table[2], table[3]), rows, embedding.shape[0])
