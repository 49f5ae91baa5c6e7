"""What user code compiled by Numba calls, by address: steps of a few rows on the stack, whole sequences, errors.

So a user's function holds a comparison of shapes and a call, and no kernel: it compiles in no time, its fastmath does
not reach in, and its cache holds no kernel that an upgrade would leave behind.
"""

import numpy as np
from numba import carray

from fastrnn.numba_kernels.calls import call, call_dense, call_rows, stack
from fastrnn.numba_kernels.chain import COUNT, IDS, OUT, ROWS, STATES, STEP, STREAMS, TURN, WORK, X_STRIDE, X, walk
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.simd import GROUP_BYTES, address, data, integers, itemsize, move, pointer

__all__ = [
    "CALL",
    "IS_STATE",
    "IS_X",
    "IS_Y",
    "NETWORK",
    "PACKED",
    "PART_FORWARD",
    "forward_all",
    "refuse",
    "reset_all",
    "step_rows",
]

STEP_ROWS, FORWARD, RESET, REFUSE, CHAIN, INPUTS, OUTPUTS, VOCAB, EMBEDDING, STRIDE = range(10)
FIXED, PER_ROW, ALL_STEPS, BUFFER, NETWORKS, PARTS, FORWARDS = range(10, 17)
PACKED = 17
"""Numbers of packed weights, before those of its recurrent parts.

Addresses of the functions here; the chain's; I, V; how many ids there are, or 0, what they number and its stride; bytes
of workspace of a step, and of each row; whether a part wants all steps at once; the most numbers of a row between two
parts; how many recurrent parts there are, how many parts, and the address of what `forward_all` reads of them.
"""

NETWORK = 5
"""Numbers of a recurrent part: L*D, R, H or 0 without c, and addresses of the initial h and c, or 0 for zeros."""

PART_FORWARD = 6
"""Numbers of a part, for whole sequences: its function, its numbers, the same for ids, what it puts out, and bytes of
workspace, fixed and per row."""

COLUMN, TIME, STEPS = STEP, STEP + 1, STEP + 2
CALL = STEP + 3
"""Numbers of a call, before two addresses for each recurrent part: those of a step, with elements from column to column
of x and from step to step, and how many steps there are. X_STRIDE is that of ids, where x is ids."""

_STACK_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 17  # that a part hands to the next at a time: they stay in the nearer caches


class ArgumentError(ValueError):
    """A ValueError in words that Numba would take seconds to compile, from the numbers that `refuse` has."""

    def __init__(self, what: int, axes: int, *numbers: int) -> None:
        given, (inputs, outputs, vocab, rows, *sizes) = numbers[:axes], numbers[_MOST_AXES:]
        if what == IS_X:
            message = f"x is {given}, expected I = {inputs} as its last axis"
        elif what == IS_Y:
            message = f"y is {given}, expected the axes of x before the last, then {outputs}"
        elif what == IS_ID:
            message = f"x must hold ids in 0..{vocab - 1}, got {given}"
        else:
            name, wanted = "hc"[what % 2], "B, size" if axes == _MOST_AXES else "size"
            message = (
                f"{name} of state is {given}, expected L*D, {wanted} with L*D = {rows}, size = {sizes[what % 2]} and"
                " x's B: make it with jit.init_state"
            )
        super().__init__(message)

    def __reduce__(self) -> tuple[type[ValueError], tuple[object, ...]]:
        return ValueError, self.args


IS_X, IS_Y, IS_ID, IS_STATE = 0, 1, 2, 4
"""What is wrong, as `refuse` is told; after IS_STATE h and c of each recurrent part."""
_MOST_AXES = 3


@njit(cache=True)
def refuse(like, table, told):
    """Raise what is wrong with the shape of an argument: which one, its number of axes, and the axes."""
    given, now = integers(table), integers(told)
    what = now[0]
    part = move(given, PACKED + NETWORK * max(0, (what - IS_STATE) // 2))
    inputs, outputs, vocab = given[INPUTS], given[OUTPUTS], given[VOCAB]
    raise ArgumentError(what, now[1], now[2], now[3], now[4], inputs, outputs, vocab, part[0], part[1], part[2])


@njit()
def _check_ids(like, table, ids, count, stride):
    given, now = integers(table), integers(stack(8 * (2 + _MOST_AXES)))
    for i in range(count):
        if ids[i * stride] < 0 or ids[i * stride] >= given[VOCAB]:
            now[0], now[1], now[2] = IS_ID, 1, ids[i * stride]
            call(given[REFUSE], given, table, address(now))


@njit(cache=True)
def step_rows(like, table, call):
    """Take one step, as many rows at a time as their workspace fits the stack."""
    given, now = integers(table), integers(call)
    if given[ALL_STEPS]:
        raise ValueError("jit.step goes forward only, and a layer is bidirectional: pass all steps to jit.forward")
    count = now[COUNT]
    inputs, row_bytes = given[INPUTS], given[INPUTS] * itemsize(like)
    most = max(1, min(count, (_STACK_BYTES - given[FIXED]) // given[PER_ROW]))
    work = stack(given[FIXED] + most * given[PER_ROW])
    step, rows, ids = integers(work), integers(work + 2 * GROUP_BYTES), integers(work + 2 * GROUP_BYTES + 8 * most)
    copies = work + 2 * GROUP_BYTES + 16 * most
    rest = (copies + most * row_bytes + GROUP_BYTES - 1) // GROUP_BYTES * GROUP_BYTES
    x, target = pointer(like, copies), pointer(like, now[X])
    if now[IDS]:
        _check_ids(like, table, integers(now[IDS]), count, now[X_STRIDE])
    for first in range(0, count, most):
        n = min(most, count - first)
        step[X], step[X_STRIDE], step[IDS] = now[X] + first * now[X_STRIDE] * itemsize(like), now[X_STRIDE], 0
        if now[IDS]:
            for i in range(n):
                ids[i] = integers(now[IDS])[(first + i) * now[X_STRIDE]]
            step[X], step[X_STRIDE], step[IDS] = given[EMBEDDING], given[STRIDE], address(ids)
        elif now[COLUMN] != 1:
            for i in range(n):
                for k in range(inputs):
                    x[i * inputs + k] = target[(first + i) * now[X_STRIDE] + k * now[COLUMN]]
            step[X], step[X_STRIDE] = copies, inputs
        step[ROWS] = 0
        if n < count:
            for i in range(n):
                rows[i] = first + i
            step[ROWS] = address(rows)
        step[COUNT], step[STREAMS], step[STATES] = n, count, now[STATES]
        step[OUT], step[WORK], step[TURN] = now[OUT] + first * given[OUTPUTS] * itemsize(like), rest, now[TURN]
        walk(like, given[CHAIN], work)


@njit(cache=True)
def reset_all(like, table, call):
    """Set all states to where they begin."""
    given, now = integers(table), integers(call)
    states = integers(now[STATES])
    for k in range(given[NETWORKS]):
        part = move(given, PACKED + NETWORK * k)
        for i in range(2):
            size, target, start = part[1 + i], pointer(like, states[2 * k + i]), pointer(like, part[3 + i])
            for row in range(part[0] * now[COUNT]):
                for j in range(size):
                    target[row * size + j] = start[row // now[COUNT] * size + j] if part[3 + i] else 0


@njit()
def _gather(like, given, now, first, count, x):
    """Copy x of some time steps, or what ids number, to rows one after the other."""
    inputs, batch = given[INPUTS], now[COUNT]
    source, table = pointer(like, now[X]), pointer(like, given[EMBEDDING])
    for t in range(count):
        for row in range(batch):
            at = (first + t) * now[TIME] + row * now[X_STRIDE]
            to = (t * batch + row) * inputs
            if now[IDS]:
                at = integers(now[IDS])[at] * given[STRIDE]
                for k in range(inputs):
                    x[to + k] = table[at + k]
            else:
                for k in range(inputs):
                    x[to + k] = source[at + k * now[COLUMN]]


@njit(cache=True)
def forward_all(like, table, call):
    """Run whole sequences through all parts, a chunk of time after the other where no part goes backwards."""
    given, now = integers(table), integers(call)
    steps, batch, parts = now[STEPS], now[COUNT], given[PARTS]
    if not steps * batch:
        return
    if now[IDS]:
        for t in range(steps):
            ids = move(integers(now[IDS]), t * now[TIME])
            _check_ids(like, table, ids, batch, now[X_STRIDE])
    step_size = batch * given[BUFFER]
    chunk = steps if given[ALL_STEPS] else min(steps, max(1, _CHUNK_BYTES // (step_size * itemsize(like))))
    part_bytes = 0
    for k in range(parts):
        part = move(integers(given[FORWARDS]), PART_FORWARD * k)
        part_bytes = max(part_bytes, part[4] + part[5] * batch)
    area = (chunk * step_size * itemsize(like) + GROUP_BYTES - 1) // GROUP_BYTES * GROUP_BYTES
    memory = np.empty(5 * area + part_bytes + GROUP_BYTES, np.uint8)
    base = (address(data(memory)) + GROUP_BYTES - 1) // GROUP_BYTES * GROUP_BYTES
    work = base + 5 * area
    reads_ids = now[IDS] != 0 and integers(given[FORWARDS])[2] > 0
    for first in range(0, steps, chunk):
        count = min(chunk, steps - first)
        if not reads_ids:
            _gather(like, given, now, first, count, pointer(like, base))
        x, inputs, states = base, given[INPUTS], integers(now[STATES])
        for k in range(parts):
            part = move(integers(given[FORWARDS]), PART_FORWARD * k)
            outputs = part[3]
            out = base + (1 + k % 2) * area
            if k == parts - 1:
                out = now[OUT] + first * batch * outputs * itemsize(like)
            if part[2] < 0:  # a dense layer
                rows, result = (count * batch, inputs), (count * batch, outputs)
                given_rows, written = carray(pointer(like, x), rows), carray(pointer(like, out), result)
                call_dense(part[0], part[1], given_rows, written, 48, work)
            else:
                numbers, by_ids = part[1], 0
                if k == 0 and reads_ids:
                    numbers, by_ids = part[2], now[IDS] + 8 * first * now[TIME]
                sizes = integers(numbers)
                stacked, hidden = sizes[0] * sizes[1], sizes[3]
                y = carray(pointer(like, out), (count, batch, outputs))
                vectors = carray(pointer(like, x), (count, batch, inputs))
                h = carray(pointer(like, states[0]), (stacked, batch, sizes[4]))
                c = carray(pointer(like, states[1]), (stacked, batch, hidden))
                between = base + 3 * area
                time, row = now[TIME], now[X_STRIDE]
                call_rows(part[0], numbers, vectors, h, c, y, h, c, by_ids, time, row, 0, 0, between, work, 0, 1)
                states = move(states, 2)
            x, inputs = out, outputs
