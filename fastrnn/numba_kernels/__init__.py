"""The Numba backend: the kernels of src_kernels/ again, as explicit vectors that Numba compiles for this processor.

From the arrays of a call to the last instruction:

    __init__.py     prepare(plan) -> run: workspace, order of rows, one call of compiled code
    dense.py        prepare_dense and activate_rows run it: output layers and the functions of a row
    layers.py       layers and directions for some rows; the entry points, serial and parallel
    forward.py      the loop over time: which rows are alive, which inputs are projected ahead
    stepping.py     Stepper and Generator: single steps through a chain of parts, for streams and for text
    chain.py        a step through all parts
    writing.py draw.py  the loop over tokens, and the draw of one
    gemm.py         the walk of one phase over blocks and rows
    tile.py ahead.py  the register tile; the same for one row, with inputs projected on the way
    phases.py rnn.py lstm.py gru.py  gate math    activations.py  sigma, tanh, e^-d, ln
    simd.py values.py      the vector type        kind.py  types without data, for which code is compiled
    arrays.py       NumPy arrays as entry points take them        workspace.py  memory that waits for the next call
    calls.py        calls by address: of parts, tiles, gate math, functions of rows
    own.py          the phase of an own cell      threads.py  when a parallel twin may be launched
    packed.py arguments.py inside.py  fastrnn.jit: packed weights as a type, what callers pass, what it calls by address
    door.py         the only way to njit          target.py  what Numba compiles for
    coefficients.py  of the activations, written by src_kernels/coefficients.py

Importing this compiles nothing. The first run in a dtype compiles the walk, or reads it from Numba's disk cache, and
that of a variant its tiles and its gate math. These are called by address, for Numba lets LLVM optimise a function, and
all that it calls by name, once more with each of its callers.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba.core import types

from fastrnn.numba_kernels import stepping
from fastrnn.numba_kernels.ahead import columns_address
from fastrnn.numba_kernels.arrays import GivenType
from fastrnn.numba_kernels.calls import address_of, compiled
from fastrnn.numba_kernels.chain import advance, advance_dense
from fastrnn.numba_kernels.dense import (
    DENSE_GROUPS,
    DENSE_TILE_ROWS,
    function_address,
    run_activation,
    run_dense,
    run_dense_call,
)
from fastrnn.numba_kernels.forward import phases_of, waits_for_weights
from fastrnn.numba_kernels.gemm import PHASE_NUMBERS
from fastrnn.numba_kernels.kind import PhasesType
from fastrnn.numba_kernels.layers import CHUNK_BYTES, STACK_BYTES, run_all, run_call, run_rows, run_table, work_bytes
from fastrnn.numba_kernels.phases import gates_address
from fastrnn.numba_kernels.rnn import RNN
from fastrnn.numba_kernels.simd import GROUP_BYTES
from fastrnn.numba_kernels.stepping import Generator, Part, Stepper
from fastrnn.numba_kernels.target import fetches_far
from fastrnn.numba_kernels.threads import launch
from fastrnn.numba_kernels.tile import most_rows, pairs, row_address, tile_address
from fastrnn.numba_kernels.workspace import Work, empty, give_back, take

__all__ = ["Generator", "Stepper", "activate_rows", "prepare", "prepare_dense"]

_PLAIN = np.zeros(7, np.int64)
_NEAREST_BYTES = 40 * 1024  # of weights that the nearest cache holds
_FAR_BYTES = range((2 << 20) + 1, (12 << 20) + 1)  # of those of one row that come from the last one
_FAR_BYTES_OF_ROWS = 20 << 20  # of those of several rows, which come from memory from here on
_SUMS_AT_ONCE = 32  # of one row, of blocks whose gate math is done together
_DENSE_TILE_BYTES = 1 << 18  # that a dense layer sums before its function reads them, down to _DENSE_TILE_LEAST rows
_DENSE_TILE_LEAST = 6


@cache
def rows_address(phases: int, dtype: str) -> int:
    """Compile `run_rows` for steps of 1 or 2 phases; return what `calls.call_rows` calls."""
    return address_of(run_rows, PhasesType(phases), types.CPointer(getattr(types, dtype)), *[types.int64] * 5)


@cache
def _compiled(states: int, dtype: str, parallel: bool = False) -> Callable[..., None]:
    """Return the entry point of layers with so many states, or the parallel one."""
    number, address = getattr(types, dtype), types.int64
    array = GivenType(number)
    arrays = address, array, types.UniTuple(array, states), array, types.UniTuple(array, states), address, address
    if parallel:
        return compiled(run_all, types.Array(number, 1, "C"), *arrays, address, address)
    return compiled(run_call, *arrays)


@cache
def _compiled_table(dtype: str) -> Callable[..., None]:
    """Return the entry point that makes tables of projected inputs."""
    number, address = getattr(types, dtype), types.int64
    array = GivenType(number)
    return compiled(run_table, *[address] * 3, array, address, array)


@cache
def _compiled_dense(dtype: str) -> Callable[..., None]:
    """Return the entry point of dense layers."""
    array, address = GivenType(getattr(types, dtype)), types.int64
    return compiled(run_dense_call, address, address, array, array, address, address)


@cache
def dense_address(dtype: str) -> int:
    """Compile `run_dense`; return what `calls.call_dense` calls."""
    return address_of(run_dense, types.CPointer(getattr(types, dtype)), *[types.int64] * 8)


@cache
def _compiled_activation(dtype: str) -> Callable[..., None]:
    """Return the entry point of functions of rows."""
    array = GivenType(getattr(types, dtype))
    return compiled(run_activation, types.int64, array, array, types.int64)


def _addresses(plan: Any, tables: Sequence[Sequence[np.ndarray]] = (), embedding: int = 0) -> np.ndarray:
    """Make the numbers that `run_rows` reads, with these tables in the place of the first layer's w_x."""
    hidden, state, itemsize, name = plan.hidden_size, plan.state_sizes[0], plan.dtype.itemsize, plan.dtype.name
    entries = [plan.num_layers, plan.num_directions, plan.input_size, hidden, state, embedding]
    phases = phases_of(plan.variant)
    entries += [len(plan.state_sizes) - 1, rows_address(len(phases), name)]
    waits = waits_for_weights(phases[0], hidden, state, itemsize)
    for index, weights in enumerate(plan.packed):
        at = len(entries)
        for phase, units, packed in zip(phases, (hidden, state), weights, strict=False):
            addresses, size = [array.ctypes.data for array in packed], packed.w_x.nbytes + packed.w_h.nbytes
            shape = phase.groups, phase.gates
            entries += [*addresses[:3], addresses[3] if phase.apart else 0]
            entries += [row_address(*shape, name, fetches_far() and size in _FAR_BYTES)]
            entries += [tile_address(*shape, name, size > _FAR_BYTES_OF_ROWS)]
            entries += [gates_address(phase, plan.activation, name), columns_address(*shape, name) if waits else 0]
            blocks = -(-units * itemsize // (phase.groups * GROUP_BYTES))
            by_twos = pairs(*shape) and phase.has_h and not phase.apart
            near = _NEAREST_BYTES // (blocks * phase.gates * GROUP_BYTES) if by_twos else 0
            most = most_rows(phase.gates, phase.groups if size >= _FAR_BYTES.start else 1)
            own = addresses[3] + phase.apart * packed.b.nbytes // phase.gates
            entries += [*shape, most, blocks, phase.has_x, phase.has_h, near, own]
            entries += [_SUMS_AT_ONCE // (phase.groups * phase.gates)]
        for i, table in enumerate(tables[index] if index < len(tables) else ()):
            entries[at + PHASE_NUMBERS * i] = table.ctypes.data
        entries += [0] * (at + 2 * PHASE_NUMBERS - len(entries))
    return np.array(entries, np.int64)


def _by_ids(plan: Any, numbers: np.ndarray) -> tuple[np.ndarray, Any]:
    """Make the numbers for calls whose x is ids, and what their addresses point at."""
    if plan.embedding is None:
        raise ValueError("x is ids, and the plan has no embedding")
    if not plan.table_bytes:
        return _addresses(plan, embedding=plan.embedding.ctypes.data), plan.embedding

    def project(direction: int, i: int, table: np.ndarray) -> None:
        offsets = np.arange(plan.vocab_size) * plan.input_size
        run = _compiled_table(plan.dtype.name)
        run(numbers.ctypes.data, direction, i, plan.embedding, offsets.ctypes.data, table)

    tables = plan.tables(project)
    return _addresses(plan, tables), tables


def prepare(plan: Any) -> Callable[..., None]:
    """Make the function that runs a plan.

    Parameters
    ----------
    plan : fastrnn.packing.Plan

    Returns
    -------
    run
        ``run(x, state, lengths, y, state_out, threads=1, blank=False)``, see backends.py. Threads share the rows of a
        batch, if there are as many rows and the work is worth a launch.
    """
    variant, layers, directions, hidden = plan.variant, plan.num_layers, plan.num_directions, plan.hidden_size
    dtype, packed = np.dtype(plan.dtype), plan.packed
    numbers = _addresses(plan)
    numbers_by_ids: tuple[np.ndarray, Any] | None = None
    name, table, plain = dtype.name, numbers.ctypes.data, _PLAIN.ctypes.data  # which take NumPy a microsecond
    fixed = work_bytes(variant, 0, hidden, dtype.itemsize)
    per_row = work_bytes(variant, 1, hidden, dtype.itemsize) - fixed
    outputs, states = plan.output_size, len(plan.state_sizes)
    work_of_row = sum(p.w_x.size + p.w_h.size for phases in packed for p in phases)  # multiplications of a step
    entry: Callable[..., None] | None = None
    like = np.empty(0, dtype)
    few = (STACK_BYTES - work_bytes(variant, 0, hidden, dtype.itemsize, single=True)) // per_row
    idle: list[Work] = []  # workspaces that no call is using; append and pop are atomic
    idle_between: list[Work] = []
    numbers_of_rows = np.arange(0)

    def by_ids() -> tuple[np.ndarray, Any]:
        nonlocal numbers_by_ids
        if numbers_by_ids is None:  # threads that meet here may all make them, and one stays
            numbers_by_ids = _by_ids(plan, numbers)
        return numbers_by_ids

    def order_rows(lengths: np.ndarray, steps: int, order: np.ndarray) -> None:
        """Write the numbers of the rows, longest first and rows of one length as they come, to order (B,)."""
        nonlocal numbers_of_rows
        count, every = len(lengths), numbers_of_rows
        if len(every) < count:
            every = numbers_of_rows = np.arange(count)
        np.subtract(steps, lengths, out=order)
        order *= count
        order += every[:count]
        order.sort()
        order %= count

    def call(
        x: np.ndarray,
        state: tuple[np.ndarray, ...],
        lengths: np.ndarray | None,
        y: np.ndarray,
        state_out: tuple[np.ndarray, ...],
        order: int,
        blank: bool,
        between: int,
        work: int,
        share: int,
        parts: int,
    ) -> None:
        assert entry is not None
        numbered, given, ids = table, x, [0, 0, 0]
        if x.ndim == 2:
            held = by_ids()  # up to the end of this call
            numbered = held[0].ctypes.data
            ids = [x.ctypes.data, *(stride // x.itemsize for stride in x.strides)]
            given = y  # any: it is not read
        more = np.array([order, 0 if lengths is None else lengths.ctypes.data, blank, between, *ids], np.int64)
        arrays = given, state, y, state_out, more.ctypes.data, work
        if parts > 1 and launch(_compiled(states, name, True), like, numbered, *arrays, share, parts):
            return
        entry(numbered, *arrays)

    def run(
        x: np.ndarray,
        state: tuple[np.ndarray, ...],
        lengths: np.ndarray | None,
        y: np.ndarray,
        state_out: tuple[np.ndarray, ...],
        threads: int = 1,
        blank: bool = False,
        keep: Any = (numbers, packed),  # the table's addresses are theirs
    ) -> None:
        nonlocal entry
        if entry is None:
            entry = _compiled(states, name)
        shape = x.shape
        steps, batch = shape[0], shape[1]
        parts = 1
        if threads > 1 and steps * batch * work_of_row >= stepping.PARALLEL_WORK:
            parts = min(threads, batch)
        if lengths is None and parts == layers == 1 and len(shape) == 3 and batch:
            if batch <= few and steps == 1:
                entry(table, x, state, y, state_out, plain, 0)
                return
            work = take(idle, fixed + per_row * batch)
            entry(table, x, state, y, state_out, plain, work[1])
            give_back(idle, work)
            return
        if not batch:
            return
        share = fixed + per_row * -(-batch // parts)
        size, order = share * parts, 0
        work, left = take(idle, size + 16 * batch), lengths
        if lengths is not None:
            longest_first, left = np.ndarray((2, batch), np.int64, work[0], size)
            order_rows(lengths, steps, longest_first)
            order = work[1] + size
        if layers == 1:
            call(x, state, lengths, y, state_out, order, blank, 0, work[1], share, parts)
        else:
            row = batch * outputs * dtype.itemsize
            # Layers take turns over chunks of time, so that memory does not grow with T; but backwards needs all of it.
            chunk = max(1, steps if directions == 2 else CHUNK_BYTES // row)
            between = take(idle_between, 2 * min(chunk, steps) * row)
            for t in range(0, max(1, steps), chunk):
                if lengths is not None:
                    np.clip(np.subtract(lengths, t, out=left), 0, chunk, out=left)
                part = slice(t, t + chunk)
                call(x[part], state, left, y[part], state_out, order, blank, between[1], work[1], share, parts)
                state = state_out
            give_back(idle_between, between)
        give_back(idle, work)

    run.part = Part(plan, advance, numbers, by_ids, work_of_row)
    return run


def prepare_dense(plan: Any) -> Callable[..., None]:
    """Make the function that runs a dense layer.

    Parameters
    ----------
    plan : fastrnn.dense.DensePlan

    Returns
    -------
    run
        ``run(x, out, threads=1)``, see backends.py. It has no parallel twin: one thread does all rows, whatever
        `threads` says.
    """
    packed, itemsize = plan.packed, plan.dtype.itemsize
    name, activation = plan.dtype.name, plan.activation
    entries = [plan.input_size, plan.output_size, packed.w_x.ctypes.data, packed.b.ctypes.data]
    shape = RNN.groups, RNN.gates
    entries += [row_address(*shape, name), tile_address(*shape, name), most_rows(RNN.gates)]
    entries += [function_address(activation, name), activation == "linear"]
    numbers = np.array(entries, np.int64)
    table, most = numbers.ctypes.data, _DENSE_TILE_BYTES // (plan.output_size * itemsize)
    most = max(_DENSE_TILE_LEAST, min(DENSE_TILE_ROWS, most))
    idle: list[Work] = []
    entry: Callable[..., None] | None = None
    run_rows_at = 0

    def run(x: np.ndarray, out: np.ndarray, threads: int = 1, keep: Any = (numbers, packed)) -> None:
        nonlocal entry, run_rows_at
        if len(x):
            if entry is None:
                run_rows_at, entry = dense_address(name), _compiled_dense(name)
            tile = min(most, len(x))
            size = DENSE_GROUPS * GROUP_BYTES + 8 * tile
            work = take(idle, size)
            entry(run_rows_at, table, x, out, tile, work[1])
            give_back(idle, work)

    run.part = Part(plan, advance_dense, numbers, lambda: (numbers, packed), packed.w_x.size)
    return run


def activate_rows(activation: str, x: np.ndarray, out: np.ndarray) -> None:
    """Write a function of the rows of x (N, V) to out, which may be x; both C-contiguous and of one dtype."""
    work = empty(GROUP_BYTES)
    name = x.dtype.name
    _compiled_activation(name)(function_address(activation, name), x, out, work[1])
