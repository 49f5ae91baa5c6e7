"""What user code compiled by Numba calls, by address: steps of a few rows on the stack, whole sequences, errors.

So a user's function holds the numbers of a call, and no check and no kernel: it compiles in no time, its fastmath does
not reach in, and its cache holds no kernel that an upgrade would leave behind.
"""

import numpy as np
from numba import int64

from fastrnn.numba_kernels.calls import call, call_dense, call_rows, stack
from fastrnn.numba_kernels.chain import COUNT, IDS, OUT, ROWS, STATES, STREAMS, TURN, WORK, X_STRIDE, X, walk
from fastrnn.numba_kernels.dense import DENSE_TILE_ROWS
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.layers import CALL_NUMBERS, CHUNK_BYTES, describe
from fastrnn.numba_kernels.simd import (
    GROUP_BYTES,
    address,
    data,
    integers,
    itemsize,
    move,
    never_inline,
    never_unroll,
    pointer,
)

__all__ = ["CALL", "NETWORK", "PACKED", "PART_FORWARD", "forward_all", "refuse", "reset_all", "step_rows"]

STEP_ROWS, FORWARD, RESET, REFUSE, CHAIN, INPUTS, OUTPUTS, VOCAB, EMBEDDING, STRIDE = range(10)
FIXED, PER_ROW, MOST_ROWS, ALL_STEPS, BUFFER, NETWORKS, PARTS, FORWARDS = range(10, 18)
PACKED = 18
"""Numbers of packed weights, before those of its recurrent parts.

Addresses of the functions here; the chain's; I, V; how many ids there are, or 0, what they number and its stride; bytes
of workspace of a step, and of each row; the most rows at a time that fit the stack; whether a part wants all steps at
once; the most numbers of a row between two parts; how many recurrent parts there are, how many parts, and the address
of what `forward_all` reads of them.
"""

NETWORK = 5
"""Numbers of a recurrent part: L*D, R, H or 0 without c, and addresses of the initial h and c, or 0 for zeros."""

PART_FORWARD = 6
"""Numbers of a part, for whole sequences: its function, its numbers, the same for ids, what it puts out, and bytes of
workspace, fixed and per row."""

ODD, TIMED, BATCHED, BY_ID, ID, SKEWED, SOURCE, TARGET = 0, 1, 2, 3, 4, 5, 6, 13
CALL = 17
"""Numbers of a call, before those of its states.

1 in every other step from one place in a user's function, which walks the blocks backwards; whether x and y have axes
for time and for the batch; whether x is ids, and the id if it is a single one; not 0 if a step along x is no whole
number of elements. Of x the address, (T, B, I) and elements from one to the next along each; of y the address and
(T, B, V). An axis that is not there has length 1, and step 0.

Then the addresses of h and c of each recurrent part, 0 if there is no c, and then (L*D, B, R or H) of each.
"""


# Shapes ---------------------------------------------------------------------------------------------------------------

IS_X, IS_Y, IS_ID, IS_SKEWED, IS_STATE = 0, 1, 2, 3, 4
"""What is wrong with a call; after IS_STATE h and c of each recurrent part."""


class ArgumentError(ValueError):
    """A ValueError in words that Numba would take seconds to compile, from the numbers that `refuse` has."""

    def __init__(self, what: int, timed: int, batched: int, *numbers: int) -> None:
        axes, (inputs, outputs, vocab, rows, *sizes) = numbers[:3], numbers[3:]
        is_state = what >= IS_STATE
        given = axes[: timed or is_state] + axes[1 : 1 + batched] + axes[2:]
        if what == IS_X:
            message = f"x is {given}, expected I = {inputs} as its last axis"
        elif what == IS_Y:
            message = f"y is {given}, expected the axes of x before the last, then {outputs}"
        elif what == IS_ID:
            message = f"x must hold ids in 0..{vocab - 1}, got {axes[0]}"
        elif what == IS_SKEWED:
            message = "x has strides that are no multiples of its itemsize: pass x.copy()"
        else:
            name, wanted = "hc"[what % 2], "B, size" if batched else "size"
            message = (
                f"{name} of state is {given}, expected L*D, {wanted} with L*D = {rows}, size = {sizes[what % 2]} and"
                " x's B: make it with jit.init_state"
            )
        super().__init__(message)

    def __reduce__(self) -> tuple[type[ValueError], tuple[object, ...]]:
        return ValueError, self.args


@njit(forceinline=True)
def _of_part(given, now, k):
    """Return the numbers of a recurrent part, and where the axes of its h and c are."""
    axes = move(now, CALL + 2 * given[NETWORKS] + 6 * k)
    return move(given, PACKED + NETWORK * k), axes, move(axes, 3)


@njit(forceinline=True)
def _is_wrong(axes, part, now, size):
    return axes[0] != part[0] or axes[1] != now[SOURCE + 2] or axes[2] != part[size]


@njit(forceinline=True)
def _are_states_wrong(given, now):
    wrong = False
    for k in range(given[NETWORKS]):
        part, h, c = _of_part(given, now, k)
        wrong |= _is_wrong(h, part, now, 1)
        if part[2]:
            wrong |= _is_wrong(c, part, now, 2)
    return wrong


@njit(forceinline=True)
def _is_any_wrong(given, now):
    """Tell whether a shape is not the expected one."""
    x, y = move(now, SOURCE + 1), move(now, TARGET + 1)
    wrong = now[SKEWED] or y[0] != x[0] or y[1] != x[1] or y[2] != given[OUTPUTS]
    return wrong or (x[2] != given[INPUTS] and not now[BY_ID]) or _are_states_wrong(given, now)


@njit()
def _wrong_id(given, now):
    """Point at the first id that numbers no row, or nowhere."""
    x = move(now, SOURCE)
    for t in range(x[1]):
        for i in range(x[2]):
            found = move(integers(x[0]), t * x[4] + i * x[5])
            if found[0] < 0 or found[0] >= given[VOCAB]:
                return found
    return integers(0)


@njit()
def _find_wrong(given, now):
    """Return which argument is wrong, the recurrent part it belongs to, and its axes."""
    for k in range(given[NETWORKS]):
        part, h, c = _of_part(given, now, k)
        if _is_wrong(h, part, now, 1):
            return IS_STATE + 2 * k, part, h
        if part[2] and _is_wrong(c, part, now, 2):
            return IS_STATE + 2 * k + 1, part, c
    part, x, y = move(given, PACKED), move(now, SOURCE + 1), move(now, TARGET + 1)
    if now[SKEWED]:
        return IS_SKEWED, part, x
    if x[2] != given[INPUTS] and not now[BY_ID]:
        return IS_X, part, x
    if y[0] != x[0] or y[1] != x[1] or y[2] != given[OUTPUTS]:
        return IS_Y, part, y
    return IS_ID, part, _wrong_id(given, now)


@njit(cache=True)
def refuse(like, table, request):
    """Raise which argument of a call is wrong. It is called where one is."""
    given, now = integers(table), integers(request)
    what, part, axes = _find_wrong(given, now)
    inputs, outputs, vocab = given[INPUTS], given[OUTPUTS], given[VOCAB]
    raise ArgumentError(
        what, now[TIMED], now[BATCHED], axes[0], axes[1], axes[2], inputs, outputs, vocab, part[0], part[1], part[2]
    )


# Steps ----------------------------------------------------------------------------------------------------------------


@njit()
def _arrange(like, given, now, step, first, count, spare, copies):
    """Set what is a step's x, and its rows, where they are not all rows of an array whose columns are contiguous."""
    never_inline()
    rows, ids, x, inputs = spare, move(spare, count), pointer(like, copies), given[INPUTS]
    column, stride = now[SOURCE + 6], now[SOURCE + 5]
    if now[BY_ID]:
        for i in range(count):
            ids[i] = integers(now[SOURCE])[(first + i) * stride]
        step[X], step[X_STRIDE], step[IDS] = given[EMBEDDING], given[STRIDE], address(ids)
    elif column != 1:
        for i in range(count):
            source = move(pointer(like, now[SOURCE]), (first + i) * stride)
            for k in range(inputs):
                x[i * inputs + k] = source[k * column]
        step[X], step[X_STRIDE] = copies, inputs
    for i in range(count):
        rows[i] = first + i
    step[ROWS] = address(rows)


@njit(forceinline=True)
def _step_rows(like, given, now, count, most, work):
    stride, odd = now[SOURCE + 5], 1 - now[ODD]
    now[ODD] = odd
    step, spare = integers(work), work + 2 * GROUP_BYTES
    copies = spare + 16 * most
    rest = (copies + most * given[INPUTS] * itemsize(like) + GROUP_BYTES - 1) // GROUP_BYTES * GROUP_BYTES
    first = 0
    while first < count:  # a range with a step would divide
        n = min(most, count - first)
        step[X], step[X_STRIDE] = now[SOURCE] + first * stride * itemsize(like), stride
        step[IDS], step[ROWS], step[COUNT], step[STREAMS] = 0, 0, n, count
        if now[SOURCE + 6] != 1 or n < count:
            _arrange(like, given, now, step, first, n, integers(spare), copies)
        step[STATES], step[OUT] = address(move(now, CALL)), now[TARGET] + first * given[OUTPUTS] * itemsize(like)
        step[WORK], step[TURN] = rest, odd
        walk(like, given[CHAIN], work)
        first += n


@njit()
def _step_wide_rows(like, given, now, count):
    """Take one step, row by row, where not even the workspace of one fits the stack."""
    never_inline()
    memory = np.empty(given[FIXED] + given[PER_ROW] + GROUP_BYTES, np.uint8)
    work = (address(data(memory)) + GROUP_BYTES - 1) // GROUP_BYTES * GROUP_BYTES
    _step_rows(like, given, now, count, int64(1), work)
    memory[0] = 0  # see forward_all


@njit(cache=True)
def step_rows(like, table, request):
    """Take one step, as many rows at a time as their workspace fits the stack."""
    never_unroll()
    given, now = integers(table), integers(request)
    if _is_any_wrong(given, now) or (now[BY_ID] and address(_wrong_id(given, now))):
        call(given[REFUSE], given, table, request)
    if given[ALL_STEPS]:
        raise ValueError("jit.step goes forward only, and a layer is bidirectional: pass all steps to jit.forward")
    count, most = now[SOURCE + 2], given[MOST_ROWS]
    if most == 0:
        _step_wide_rows(like, given, now, count)
    elif count == 1:  # compiled once more, without the loop over rows
        _step_rows(like, given, now, int64(1), int64(1), stack(given[FIXED] + given[PER_ROW]))
    else:
        most = min(count, most)
        _step_rows(like, given, now, count, most, stack(given[FIXED] + most * given[PER_ROW]))


@njit(cache=True)
def reset_all(like, table, request):
    """Set all states to where they begin."""
    given, now = integers(table), integers(request)
    if _are_states_wrong(given, now):
        call(given[REFUSE], given, table, request)
    states, batch = move(now, CALL), now[SOURCE + 2]
    for k in range(given[NETWORKS]):
        part = move(given, PACKED + NETWORK * k)
        for i in range(2):
            size, target, start = part[1 + i], pointer(like, states[2 * k + i]), pointer(like, part[3 + i])
            for row in range(part[0] * batch):
                for j in range(size):
                    target[row * size + j] = start[row // batch * size + j] if part[3 + i] else 0


@njit()
def _gather(given, now, first, count, x):
    """Copy x of some time steps, or what ids number, to rows one after the other."""
    inputs, batch = given[INPUTS], now[SOURCE + 2]
    source, table = pointer(x, now[SOURCE]), pointer(x, given[EMBEDDING])
    for t in range(count):
        for row in range(batch):
            at = (first + t) * now[SOURCE + 4] + row * now[SOURCE + 5]
            to = (t * batch + row) * inputs
            if now[BY_ID]:
                at = integers(now[SOURCE])[at] * given[STRIDE]
                for k in range(inputs):
                    x[to + k] = table[at + k]
            else:
                for k in range(inputs):
                    x[to + k] = source[at + k * now[SOURCE + 6]]


@njit(cache=True)
def forward_all(like, table, request):
    """Run whole sequences through all parts, a chunk of time after the other where no part goes backwards."""
    given, now = integers(table), integers(request)
    if _is_any_wrong(given, now) or (now[BY_ID] and address(_wrong_id(given, now))):
        call(given[REFUSE], given, table, request)
    steps, batch, parts = now[SOURCE + 1], now[SOURCE + 2], given[PARTS]
    if not steps * batch:
        return
    step_size = batch * given[BUFFER]
    chunk = steps if given[ALL_STEPS] else min(steps, max(1, CHUNK_BYTES // (step_size * itemsize(like))))
    part_bytes = 0
    for k in range(parts):
        part = move(integers(given[FORWARDS]), PART_FORWARD * k)
        part_bytes = max(part_bytes, part[4] + part[5] * batch)
    area = (chunk * step_size * itemsize(like) + GROUP_BYTES - 1) // GROUP_BYTES * GROUP_BYTES
    memory = np.empty(5 * area + part_bytes + GROUP_BYTES, np.uint8)
    base = (address(data(memory)) + GROUP_BYTES - 1) // GROUP_BYTES * GROUP_BYTES
    work, of_rows = base + 5 * area, stack(8 * CALL_NUMBERS)
    reads_ids = now[BY_ID] != 0 and integers(given[FORWARDS])[2] > 0
    for first in range(0, steps, chunk):
        count = min(chunk, steps - first)
        if not reads_ids:
            _gather(given, now, first, count, pointer(like, base))
        x, inputs, states = base, given[INPUTS], move(now, CALL)
        for k in range(parts):
            part = move(integers(given[FORWARDS]), PART_FORWARD * k)
            outputs = part[3]
            out = base + (1 + k % 2) * area
            if k == parts - 1:
                out = now[TARGET] + first * batch * outputs * itemsize(like)
            if part[2] < 0:  # a dense layer
                call_dense(part[0], like, part[1], x, inputs, count * batch, out, outputs, DENSE_TILE_ROWS, work)
            else:
                numbers, by_ids = part[1], 0
                if k == 0 and reads_ids:
                    numbers, by_ids = part[2], now[SOURCE] + 8 * first * now[SOURCE + 4]
                x_at, y_at, state = (x, batch * inputs, inputs), (out, batch * outputs, outputs), (states[0], states[1])
                ids = by_ids, now[SOURCE + 4], now[SOURCE + 5]
                describe(of_rows, count, batch, x_at, y_at, state, state, 0, 0, 0, base + 3 * area, ids)
                call_rows(part[0], like, numbers, of_rows, work, 0, 1)
                states = move(states, 2)
            x, inputs = out, outputs
    memory[0] = 0  # Numba frees an array after its last mention, and above there are only addresses into it
