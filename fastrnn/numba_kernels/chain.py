"""One time step through a chain: recurrent and dense layers, each fed by the one before, as in src_kernels/_chain.pxi.

A chain is a table of numbers, each part with the address of what does its step: `advance` or `advance_dense`. So `walk`
is compiled once, whatever the chain, and allocates nothing.
"""

from numba import int64, prange

from fastrnn.numba_kernels.ahead import Ahead
from fastrnn.numba_kernels.arrays import place, size
from fastrnn.numba_kernels.arrays import step as step_of
from fastrnn.numba_kernels.calls import call_part
from fastrnn.numba_kernels.dense import DENSE_GROUPS, dense, matrix_at
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.forward import Job, take_step
from fastrnn.numba_kernels.gemm import PHASE_NUMBERS, Rows, packed_at
from fastrnn.numba_kernels.layers import EMBEDDING, HAS_C, HEADER, TILE_GROUPS
from fastrnn.numba_kernels.simd import (
    GROUP_BYTES,
    address,
    copy,
    data,
    integers,
    itemsize,
    lanes,
    move,
    never_unroll,
    pointer,
)

__all__ = ["CHAIN", "PART", "STEP", "advance", "advance_dense", "run_step", "run_steps", "walk"]

PARTS, WIDEST = 0, 1
CHAIN = 2
"""Numbers before the parts: how many there are, and the most that one puts out but for the last."""

FUNCTION, NUMBERS, BY_IDS, OUTPUTS = 0, 1, 2, 3
PART = 4
"""Numbers of a part: its function, its layers' or matrix's numbers, the same where x is ids, and what it puts out."""

X, X_STRIDE, IDS, ROWS, COUNT, STREAMS, OUT, STATES, WORK, TURN = range(10)
STEP = 10
"""Numbers of a step, most of which change from part to part.

x and elements from row to row of it, ids: which of these rows they are, or 0 for in order; which streams advance, or 0
for the first ones, and how many; how many there are; the result; two addresses, h and c, for each recurrent part; the
workspace; and 1 in every other step, which walks the blocks backwards.
"""


@njit(forceinline=True)
def _advance(phases, like, numbers, step, count):
    """Take one step with so many rows."""
    table, now = integers(numbers), integers(step)
    layers, inputs, hidden, state, embedding = table[0], table[2], table[3], table[4], table[EMBEDDING]
    ids, rows, streams = integers(now[IDS]), integers(now[ROWS]), now[STREAMS]
    states = integers(now[STATES])
    h, c = pointer(like, states[0]), pointer(like, states[1])
    now[STATES] += 16
    n = lanes(like)
    padded = (hidden + n - 1) // n * n
    sums = pointer(like, now[WORK])
    x_sums = move(sums, TILE_GROUPS * n)
    cells = move(x_sums, TILE_GROUPS * n)
    inner = move(cells, count * padded)
    between = move(inner, count * padded)
    spare = integers(now[WORK] + (2 * TILE_GROUPS * n + 4 * count * padded) * itemsize(like))
    x_at, y_at, h_at, inner_at = spare, move(spare, count), move(spare, 2 * count), move(spare, 3 * count)
    x, x_stride, by_ids = pointer(like, now[X]), now[X_STRIDE], now[IDS] != 0
    none = int64(0)  # a bare 0 is a type of its own
    for layer in range(layers):
        target = pointer(like, now[OUT]) if layer == layers - 1 else move(between, layer % 2 * count * padded)
        for i in range(count):
            place = layer * streams + (rows[i] if now[ROWS] else i)
            x_at[i] = (ids[i] if by_ids else i) * x_stride
            y_at[i], h_at[i], inner_at[i] = i * state, place * state, i * padded
            if table[HAS_C]:
                own = move(cells, i * padded)
                copy(move(c, place * hidden), own, hidden)
                for k in range(hidden, padded):
                    own[k] = 0
        at = HEADER + 2 * PHASE_NUMBERS * layer
        job = Job(
            inputs if layer == 0 else state,
            hidden,
            state,
            count,
            int64(1),
            spare,
            Rows(x, x_at),
            none,
            none,
            by_ids and embedding == 0,
            Rows(target, y_at),
            none,
            Rows(h, h_at),
            Rows(inner, inner_at),
            cells,
            padded,
            sums,
            x_sums,
            packed_at(like, table, at, like, spare, like),
            packed_at(like, table, at + PHASE_NUMBERS, like, spare, like),
            spare,
            ids,
        )
        take_step(phases, job, job.h, now[TURN], count, int64(-1), Ahead(int64(-1), none, none, none))
        for i in range(count):
            place = layer * streams + (rows[i] if now[ROWS] else i)
            copy(move(target, i * state), move(h, place * state), state)
            if table[HAS_C]:
                copy(move(cells, i * padded), move(c, place * hidden), hidden)
        x, x_stride, by_ids = target, state, False


@njit(cache=True)
def advance(phases, like, numbers, step):
    """Take one step through the layers of a network, whose state changes in place."""
    never_unroll()
    count = integers(step)[COUNT]
    if count == 1:  # compiled once more, without the loops over rows
        _advance(phases, like, numbers, step, int64(1))
    else:
        _advance(phases, like, numbers, step, count)


@njit(cache=True)
def advance_dense(phases, like, numbers, step):
    """Take one step through a dense layer, with the arguments of `advance`."""
    table, now = integers(numbers), integers(step)
    ids, count, stride = integers(now[IDS]), now[COUNT], now[X_STRIDE]
    offsets = integers(now[WORK] + DENSE_GROUPS * GROUP_BYTES)
    for i in range(count):
        offsets[i] = (ids[i] if now[IDS] else i) * stride
    x, out, group = Rows(pointer(like, now[X]), offsets), pointer(like, now[OUT]), pointer(like, now[WORK])
    dense(matrix_at(like, table), x, count, out, table[1], group)


@njit(forceinline=True)
def walk(like, chain, step):
    """Take one step through all parts; the step's numbers are used up."""
    table, now = integers(chain), integers(step)
    n = lanes(like)
    between, final = now[WORK], now[OUT]
    size = (now[COUNT] * table[WIDEST] + n - 1) // n * GROUP_BYTES
    now[WORK] += 2 * size
    for k in range(table[PARTS]):
        part = move(table, CHAIN + PART * k)
        now[OUT] = final if k == table[PARTS] - 1 else between + k % 2 * size
        call_part(part[FUNCTION], like, part[BY_IDS if now[IDS] else NUMBERS], step)
        now[X], now[X_STRIDE], now[IDS] = now[OUT], part[OUTPUTS], 0


@njit(forceinline=True)
def _step(like, chain, states, streams, x, x_stride, ids, rows, count, out, turn, work):
    now = integers(work)
    now[X], now[X_STRIDE], now[IDS], now[ROWS], now[COUNT], now[STREAMS] = x, x_stride, ids, rows, count, streams
    now[OUT], now[STATES], now[WORK], now[TURN] = out, states, work + 2 * GROUP_BYTES, turn
    walk(like, chain, work)


@njit(forceinline=True)
def _start(array, count):
    return address(place(array)) if count else 0


@njit(cache=True)
def run_step(chain, states, streams, x, ids, rows, out, turn, work):
    """Take one step.

    The numbers of a step, but arrays: x (n, I), or what ids (n,) number, where there are such; the streams that
    advance (n,), or none for the first ones; out (n, V), C-contiguous.
    """
    count, start = size(out, 0), address(place(x))
    given, chosen = _start(ids, size(ids, 0)), _start(rows, size(rows, 0))
    _step(
        place(out), chain, states, streams, start, step_of(x, 0), given, chosen, count, address(place(out)), turn, work
    )  # fmt: skip


@njit(cache=True, parallel=True)
def run_steps(like, chain, states, streams, x, ids, rows, out, turn, work, share, parts):
    """As `run_step`, with the rows dealt out to `parts` threads, each with `share` bytes of workspace.

    `rows` names all that advance. `like` is an array of Numba's, which its parallel loops can take.
    """
    count, outputs, x_stride = size(out, 0), size(out, 1), step_of(x, 0)
    start, target, given = address(place(x)), address(place(out)), _start(ids, size(ids, 0))
    chosen = address(place(rows))
    for part in prange(parts):
        first, end = count * part // parts, count * (part + 1) // parts
        mine = start if given else start + first * x_stride * like.itemsize
        numbers = given + 8 * first if given else 0
        own, space = target + first * outputs * like.itemsize, work + part * share
        _step(
            data(like), chain, states, streams, mine, x_stride, numbers, chosen + 8 * first, end - first, own, turn,
            space,
        )  # fmt: skip
