"""All layers and directions for some rows of a batch: from the arrays of a call to jobs, and the entry point."""

from numba import prange

from fastrnn.numba_kernels.ahead import AHEAD
from fastrnn.numba_kernels.arrays import place, size, step
from fastrnn.numba_kernels.calls import call_rows, stack
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.forward import TILE_ROWS, Job, Sizes, forward, phases_of
from fastrnn.numba_kernels.gemm import GATES, PHASE_NUMBERS, Rows, packed_at, project
from fastrnn.numba_kernels.simd import GROUP_BYTES, address, data, integers, lanes, move, pointer
from fastrnn.numba_kernels.tile import MOST_ROWS

__all__ = [
    "CALL_NUMBERS",
    "CHUNK_BYTES",
    "EMBEDDING",
    "HAS_C",
    "HEADER",
    "STACK_BYTES",
    "TILE_GROUPS",
    "describe",
    "run_all",
    "run_call",
    "run_rows",
    "run_table",
    "work_bytes",
]

TILE_GROUPS = MOST_ROWS * 8
"""Groups of sums of a tile, at most: the gates of an own cell."""

EMBEDDING, HAS_C, RUN = 5, 6, 7
HEADER = 8
"""Numbers before those of weights: layers, directions, I, H, R, the embedding if ids number rows of it, whether there
is a c, and what `call_rows` calls.

Then come `PHASE_NUMBERS` for each of two phases of each layer and direction.
"""

_STEPS, _BATCH, _X, _Y, _STATES, _STATES_OUT = 0, 1, 2, 5, 8, 10
_ORDER, _LENGTHS, _BLANK, _BETWEEN, _IDS = range(12, 17)
CALL_NUMBERS = 19
"""Numbers of a call: what `describe` is given, in this order."""

CHUNK_BYTES = 1 << 17
"""What a layer or a part hands to the next at a time, at most: it stays in the nearer caches."""

STACK_BYTES = 1 << 15
"""Workspace of a call that is given none."""

_INTEGERS = 8  # of a row at the front of a workspace; seven are used, eight keep what follows aligned
_LINES = 8  # integers of two lines of inputs that are projected on the way, for each phase three


def work_bytes(variant: str, rows: int, hidden: int, itemsize: int, *, single: bool = False) -> int:
    """Bytes of workspace for some rows, whatever T is, or for a single step; `run_rows` cuts it up."""
    n = GROUP_BYTES // itemsize
    padded = -(-hidden // n) * n
    floats = (
        (2 * TILE_GROUPS + 4 * AHEAD) * n
        + 2 * rows * padded
        + (0 if single else TILE_ROWS * padded * sum(p.gates for p in phases_of(variant)))
    )
    return 8 * (_INTEGERS * rows + TILE_ROWS + _LINES) + floats * itemsize


@njit(cache=True)
def run_rows(phases, like, addresses, call, work, first, every):
    """Run rows first, first + every, .. of the batch, longest first, through all layers; nothing else is touched.

    No array comes here: Numba would count references to it, in atomic steps.
    """
    table, now = integers(addresses), integers(call)
    steps, batch, order, lengths = now[_STEPS], now[_BATCH], now[_ORDER], now[_LENGTHS]
    h, c = pointer(like, now[_STATES]), pointer(like, now[_STATES + 1])
    h_out, c_out = pointer(like, now[_STATES_OUT]), pointer(like, now[_STATES_OUT + 1])
    rows = (batch - first + every - 1) // every if every > 1 else batch
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

    x_base, x_step, x_row, ids = pointer(like, now[_X]), now[_X + 1], now[_X + 2], 0
    if now[_IDS]:
        x_base, x_step, x_row, ids = pointer(like, table[EMBEDDING]), now[_IDS + 1], now[_IDS + 2], now[_IDS]
    y_base, y_step, y_row = pointer(like, now[_Y]), now[_Y + 1], now[_Y + 2]
    for layer in range(layers):
        target, target_step, target_row = y_base, y_step, y_row
        if layer < layers - 1:
            target = move(pointer(like, now[_BETWEEN]), layer % 2 * steps * batch * outputs)
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
                        cells[i * padded + k] = c[(index * batch + which[i]) * hidden + k]
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
                Rows(h, h_at),
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
                final, place = h, h_at[i]
                if length[i]:
                    final, place = column, y_at[i] + sign * (length[i] - 1) * target_step
                for k in range(state):
                    h_out[h_at[i] + k] = final[place + k]
                if table[HAS_C]:
                    for k in range(hidden):
                        c_out[(index * batch + which[i]) * hidden + k] = cells[i * padded + k]
        if layer == layers - 1 and not now[_BLANK]:  # what lies between layers is not read there
            for i in range(rows):
                for t in range(length[i], steps):
                    for k in range(outputs):
                        target[t * target_step + which[i] * target_row + k] = 0
        x_base, x_step, x_row, ids = target, target_step, target_row, 0


@njit(forceinline=True)
def describe(call, steps, batch, x, y, states, states_out, order, lengths, blank, between, ids):
    """Set the numbers of a call.

    Parameters
    ----------
    call : int
        Where they are set.
    steps, batch : int
        T and B.
    x, y : tuple
        Address, elements from step to step, and from row to row.
    states, states_out : tuple
        Addresses of h and of c, or again of h.
    order, lengths : int
        Addresses of the numbers of the rows, longest first, and of the length of each row; or 0.
    blank : int
        Whether y is all zeros already.
    between : int
        Address of what passes between layers, if there are several.
    ids : tuple
        Ids in the place of x, as x; their address is 0 if there are none.
    """
    now = integers(call)
    now[_STEPS], now[_BATCH] = steps, batch
    now[_X], now[_X + 1], now[_X + 2] = x
    now[_Y], now[_Y + 1], now[_Y + 2] = y
    now[_STATES], now[_STATES + 1] = states
    now[_STATES_OUT], now[_STATES_OUT + 1] = states_out
    now[_ORDER], now[_LENGTHS], now[_BLANK], now[_BETWEEN] = order, lengths, blank, between
    now[_IDS], now[_IDS + 1], now[_IDS + 2] = ids


@njit(forceinline=True)
def _steps(array):
    return address(place(array)), step(array, 0), step(array, 1)


@njit(forceinline=True)
def _both(states):
    return address(place(states[0])), address(place(states[-1]))


@njit(forceinline=True)
def _describe_arrays(call, x, state, y, state_out, more):
    rest = integers(more)
    states, states_out, ids = _both(state), _both(state_out), (rest[4], rest[5], rest[6])
    lengths = rest[0], rest[1], rest[2]
    describe(call, size(y, 0), size(y, 1), _steps(x), _steps(y), states, states_out, *lengths, rest[3], ids)


@njit(cache=True)
def run_call(addresses, x, state, y, state_out, more, work):
    """Do `run_rows` with all rows.

    Parameters
    ----------
    x, y
        (T, B, .) arrays.
    state, state_out
        Tuples of one or two (L*D, B, .) arrays.
    more
        Address of `order`, `lengths`, `blank`, `between` and `ids` of `describe`.
    work
        Workspace, or 0 for `STACK_BYTES` of the stack.
    """
    call = stack(8 * CALL_NUMBERS)
    _describe_arrays(call, x, state, y, state_out, more)
    if not work:
        work = stack(STACK_BYTES)
    call_rows(integers(addresses)[RUN], place(y), addresses, call, work, 0, 1)


@njit(cache=True, parallel=True)
def run_all(like, addresses, x, state, y, state_out, more, work, work_size, parts):
    """As `run_call`, with the rows dealt out to `parts` threads, each with `work_size` bytes of workspace.

    `like` is an array of Numba's, which its parallel loops can take.
    """
    call, run = stack(8 * CALL_NUMBERS), integers(addresses)[RUN]
    _describe_arrays(call, x, state, y, state_out, more)
    for part in prange(parts):
        call_rows(run, data(like), addresses, call, work + part * work_size, part, parts)


@njit(cache=True)
def run_table(addresses, direction, second, embedding, offsets, out):
    """Write the table of a direction's first phase, or of its second, b + W_ih x for the rows x of an embedding."""
    table, like = integers(addresses), place(embedding)
    at = HEADER + PHASE_NUMBERS * (2 * direction + second)
    packed = packed_at(like, table, at, place(out), integers(offsets), like)
    rows = Rows(like, integers(offsets))
    project(packed, Sizes(table[2], table[3]), rows, size(embedding, 0))
