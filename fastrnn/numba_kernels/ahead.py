"""One row's sums over h, and on the way the projection of inputs that later steps will need.

One row reads each weight for a single fma, so the multipliers wait for the cache half of the time. A tile of inputs
needs many fmas a weight. Side by side they take little longer than the sums over h alone.

What is to be projected is a line of columns: those of W_ih for the first two vectors of the first block, for the next
two, and so on. A block takes as many of them on its way as fit beside its columns of h, the last block of the last step
all that are left. The sums of the two vectors at work stay in memory, in the nearest cache, until their run of columns
is complete. The loops over columns are written as LLVM IR and called by address, as in tile.py; what leads them along
the line is not.
"""

from collections import namedtuple
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from fastrnn.cells import RUN
from fastrnn.numba_kernels.calls import address_of, call_columns
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.simd import (
    GROUP_BYTES,
    INDEX,
    address,
    lanes,
    load,
    load_at,
    move,
    splat,
    store,
    store_at,
)
from fastrnn.numba_kernels.target import registers
from fastrnn.numba_kernels.tile import BlockType
from fastrnn.numba_kernels.values import Value, broadcast

__all__ = ["AHEAD", "Ahead", "ahead_tile", "begin_ahead", "can_ahead", "columns_address", "finish_ahead", "run_columns"]

AHEAD = 12  # time steps: 12 rows x 2 vectors of inputs fit beside the 4 or 6 sums of one row
BESIDE = 4  # columns of h beside one of inputs: it divides a run, so that loads keep one stride over the whole matrix


def can_ahead(count: int) -> bool:
    """Whether the target's registers hold these and so many sums of one row; then a vector is a group."""
    return registers().width == GROUP_BYTES and registers().number >= 2 * AHEAD + count + 2


class _Columns:
    """Builds the code of one shape of block: a switch over its groups U, loops over columns each.

    First columns of inputs, each beside some of h; then those of inputs alone, then those of h alone.
    """

    def __init__(self, block: BlockType, dtype: types.Float, arguments: dict[str, Any]) -> None:
        self.gates, self.most_groups, self.lanes = block.gates, block.groups, GROUP_BYTES * 8 // dtype.bitwidth
        self.vector = ir.VectorType(ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType(), self.lanes)
        vars(self).update(arguments)

    def build(self, builder: ir.IRBuilder) -> None:
        end = builder.append_basic_block("end")
        for half in range(2):  # all rows at once would be compiled to code that spills
            with builder.if_then(builder.icmp_signed(">", self.of_x, INDEX(0))):
                self._inputs(builder, range(half * AHEAD // 2, (half + 1) * AHEAD // 2))
        switch = builder.switch(self.groups, end)
        for u in range(1, self.most_groups + 1):
            with builder.goto_block(builder.append_basic_block(f"u{u}")):
                switch.add_case(u, builder.block)
                self._block(builder, u * self.gates)
                builder.branch(end)
        builder.position_at_end(end)

    def _block(self, builder: ir.IRBuilder, count: int) -> None:
        """Sum over h for `count` vectors, the first columns beside those of inputs."""
        totals = self._load(builder, self.run, range(count))

        def over_h(k: Any) -> None:
            value = self._broadcast(builder, builder.gep(self.h, [k]))
            w = builder.gep(self.w_h, [builder.mul(k, INDEX(count * self.lanes))])
            for v, total in enumerate(totals):
                weights = Value(builder, load_at(builder, self.vector, w, INDEX(v * self.lanes)))
                self._add(builder, total, value, weights)

        with builder.if_then(builder.icmp_signed(">", self.both, INDEX(0))):
            rows = range(AHEAD)
            sums = self._load(builder, self.sums, range(2 * AHEAD))
            with cgutils.for_range_slice(builder, INDEX(0), self.both, INDEX(1)) as (i, _):
                weights = self._weights(builder, i)
                k = builder.mul(i, INDEX(BESIDE))
                for j in range(BESIDE):  # h after x: the other way round takes longer, H = 128 by a twentieth
                    for r in rows[j * AHEAD // BESIDE : (j + 1) * AHEAD // BESIDE]:
                        self._over_x(builder, i, r, weights, sums[2 * r : 2 * r + 2])
                    over_h(builder.add(k, INDEX(j)))
            self._store(builder, sums, self.sums, 0)
        first = builder.mul(self.both, INDEX(BESIDE))
        with cgutils.for_range_slice(builder, first, builder.add(first, self.of_h), INDEX(1)) as (k, _):
            over_h(k)
        self._store(builder, totals, self.run, 0)

    def _inputs(self, builder: ir.IRBuilder, rows: range) -> None:
        """Sum over inputs alone for some rows."""
        places = range(2 * rows.start, 2 * rows.stop)
        sums = self._load(builder, self.sums, places)
        with cgutils.for_range_slice(builder, self.both, builder.add(self.both, self.of_x), INDEX(1)) as (i, _):
            weights = self._weights(builder, i)
            for n, r in enumerate(rows):
                self._over_x(builder, i, r, weights, sums[2 * n : 2 * n + 2])
        self._store(builder, sums, self.sums, places.start)

    def _load(self, builder: ir.IRBuilder, source: Any, places: range) -> list[Any]:
        """Vectors of `source` as variables."""
        loaded = [load_at(builder, self.vector, source, INDEX(v * self.lanes)) for v in places]
        variables = [cgutils.alloca_once(builder, self.vector) for _ in places]
        for value, variable in zip(loaded, variables, strict=True):
            builder.store(value, variable)
        return variables

    def _store(self, builder: ir.IRBuilder, variables: list[Any], out: Any, first: int) -> None:
        for v, variable in enumerate(variables, first):
            store_at(builder, builder.load(variable), out, INDEX(v * self.lanes))

    def _weights(self, builder: ir.IRBuilder, i: Any) -> list[Value]:
        """The two vectors of column i of W_ih."""
        w = builder.gep(self.w_x, [builder.mul(i, self.w_stride)])
        return [Value(builder, load_at(builder, self.vector, w, place)) for place in (INDEX(0), self.second)]

    def _over_x(self, builder: ir.IRBuilder, i: Any, r: int, weights: list[Value], sums: Any) -> None:
        place = builder.add(builder.mul(i, INDEX(AHEAD)), INDEX(r))
        value = self._broadcast(builder, builder.gep(self.x, [place]))
        for total, w in zip(sums, weights, strict=True):
            self._add(builder, total, value, w)

    def _broadcast(self, builder: ir.IRBuilder, pointer: Any) -> Value:
        return Value(builder, broadcast(builder, builder.load(pointer), self.vector))

    def _add(self, builder: ir.IRBuilder, total: Any, a: Value, b: Value) -> None:
        builder.store(a.fma(b, Value(builder, builder.load(total))).value, total)


@intrinsic
def _columns(typingctx, block, groups, both, of_x, of_h, run, h, w_h, sums, x, w_x, w_stride, second):
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        of_h = ["groups", "both", "of_x", "of_h", "run", "h", "w_h"]
        of_x = ["sums", "x", "w_x", "w_stride", "second"]
        _Columns(block, run.dtype, dict(zip(of_h + of_x, args[1:], strict=True))).build(builder)
        return context.get_dummy_value()

    i, p = types.int64, run
    return types.void(block, i, i, i, i, p, p, p, p, p, p, i, i), codegen


@njit(cache=True)
def run_columns(block, groups, both, of_x, of_h, run, h, w_h, sums, x, w_x, w_stride, second):
    """Sum some columns.

    Parameters
    ----------
    block : BlockType
        Shape of blocks: U groups of G gates.
    groups : int
        U, or what is left of it in the last block.
    both, of_x, of_h : int
        Columns of inputs, each beside BESIDE of h; of inputs alone; and of h alone.
    run
        [U][G][lanes], sums over h, read and written.
    h, w_h
        A value for each column of h; [columns][U][G][lanes].
    sums
        [AHEAD][2][lanes], sums over x of two vectors of a block, read and written.
    x
        [columns of x][AHEAD], values of so many rows.
    w_x, w_stride, second
        The first of the two vectors of the first column of x; elements from column to column, and to the other vector.
    """
    _columns(block, groups, both, of_x, of_h, run, h, w_h, sums, x, w_x, w_stride, second)


@cache
def columns_address(groups: int, gates: int, dtype: str) -> int:
    """Compile the loops over columns of a shape of block; return what `calls.call_columns` calls."""
    i, floats = types.int64, types.CPointer(getattr(types, dtype))
    of_x = floats, floats, floats, i, i
    return address_of(run_columns, BlockType(groups, gates), i, i, i, i, floats, floats, floats, *of_x)


Ahead = namedtuple("Ahead", "step to part parts")
"""Inputs to project on the way: of the AHEAD time steps from `step` on, to row `to` of the buffer; step < 0 for none.

This step does part `part` of `parts`; they go in order.
"""

_Stretch = namedtuple("_Stretch", "columns w w_stride second x b out")
"""What is next on the line, within one run of the columns of two vectors, as in the arguments of `_Columns`.

Where a block has but one vector, it is done twice: `second` is 0.
"""


@njit(forceinline=True)
def _next_stretch(packed, job, ahead):
    n, inputs, column = lanes(packed.b), job.inputs, packed.line[2]
    first = packed.line[0] * packed.groups
    count = min(packed.groups, job.padded // n - first) * packed.gates  # vectors of the block
    vector = max(0, min(packed.line[1], count - 2))  # the last of an odd number goes with the one before it again
    place = (first * packed.gates + vector) * n
    return _Stretch(
        min(inputs - column, RUN - column % RUN),
        move(packed.w_x, (first * packed.gates * inputs + column * count + vector) * n),
        count * n,
        n if count > 1 else 0,
        move(_by_columns(packed, job), column * AHEAD),
        move(packed.b, place),
        move(packed.buffer, ahead.to * job.padded * packed.gates + place),
    )


@njit()
def _clear(vectors, count):
    """Set so many vectors to zero."""
    zero = splat(load(vectors, 0), 0.0)
    for i in range(count):
        store(vectors, i * lanes(vectors), zero)


@njit()
def _join_run(line, sums, inputs, out_stride, stretch):
    """Add a stretch's run, which is complete, to the projected inputs; the line goes on with the next one."""
    n = lanes(sums)
    for r in range(AHEAD):
        out, run = move(stretch.out, r * out_stride), move(sums, 2 * r * n)
        before = stretch.b if line[2] < RUN else out
        store(out, 0, load(before, 0) + load(run, 0))
        if stretch.second:
            store(out, n, load(before, n) + load(run, n))
    _clear(sums, 2 * AHEAD)
    line[2] += stretch.columns
    if line[2] == inputs:
        line[2] = 0
        line[1] += 2
        if line[1] * n >= stretch.w_stride:
            line[1] = 0
            line[0] += 1


@intrinsic
def _turn(typingctx, x, stride, out):
    """Write four columns of AHEAD rows, `stride` elements apart, as [4][AHEAD]."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        quad = ir.VectorType(args[0].type.pointee, 4)

        def mixed(a: Any, b: Any, *places: int) -> Any:
            return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), 4), list(places)))

        for r in range(0, AHEAD, 4):
            rows = [load_at(builder, quad, args[0], builder.mul(args[1], INDEX(r + i))) for i in range(4)]
            for j in (0, 2):
                low, high = (mixed(rows[i], rows[i + 1], j, j + 4, j + 1, j + 5) for i in (0, 2))
                store_at(builder, mixed(low, high, 0, 1, 4, 5), args[2], INDEX(j * AHEAD + r))
                store_at(builder, mixed(low, high, 2, 3, 6, 7), args[2], INDEX((j + 1) * AHEAD + r))
        return context.get_dummy_value()

    return types.void(x, types.int64, x), codegen


@njit(forceinline=True)
def _by_columns(packed, job):
    """Where a tile of inputs lies as [columns][AHEAD], behind two tiles of projected ones."""
    return move(packed.buffer, 2 * AHEAD * job.padded * packed.gates)


@njit()
def begin_ahead(packed, job, ahead):
    """Begin the line of a tile of inputs.

    They are packed by columns: rows that are a power of two apart would share a few lines of the nearest cache, where
    W_hh passes through.
    """
    x, out = move(job.x.base, job.x.offsets[0] + ahead.step * job.dx), _by_columns(packed, job)
    whole = job.inputs // 4 * 4
    for k in range(0, whole, 4):
        _turn(move(x, k), job.dx, move(out, k * AHEAD))
    for k in range(whole, job.inputs):
        for r in range(AHEAD):
            out[k * AHEAD + r] = x[r * job.dx + k]
    for i in range(3):
        packed.line[i] = 0
    _clear(packed.ahead_sums, 2 * AHEAD)


@njit(forceinline=True)  # a call would copy the whole job to the stack
def ahead_tile(packed, job, ahead, groups, depth, start, apart, sums, h, w_h):
    """Sum one row of one block over h as `tile` does, into `sums`; take columns of inputs while there is h beside."""
    n, gates = lanes(packed.b), packed.gates
    count = groups * gates
    run = job.x_sums  # which has nothing to hold: all inputs are projected
    k = 0
    while k < depth:
        end, is_first = min(k + RUN, depth), k == 0
        _clear(run, count)
        while end - k >= BESIDE and packed.line[0] < packed.blocks:
            part = _next_stretch(packed, job, ahead)
            both = min(part.columns, (end - k) // BESIDE)
            left = end - k - both * BESIDE
            left = left if left < BESIDE else 0  # columns of h that are too few for one more of inputs
            a, w, both_sums = move(h, k), move(w_h, k * count * n), packed.ahead_sums
            call_columns(
                packed.columns, groups, both, 0, left, run, a, w,
                both_sums, part.x, part.w, part.w_stride, part.second,
            )  # fmt: skip
            if both == part.columns:
                _join_run(packed.line, packed.ahead_sums, job.inputs, job.padded * gates, part)
            else:
                packed.line[2] += both
            k += both * BESIDE + left
        if k < end:
            a, w = move(h, k), move(w_h, k * count * n)
            call_columns(packed.columns, groups, 0, 0, end - k, run, a, w, run, run, run, 0, 0)
        k = end
        for q in range(groups):
            for gate in range(gates):
                place = (q * gates + gate) * n
                before = move(start if is_first else sums, place)
                if is_first and gate == gates - 1 and address(apart):
                    before = move(apart, q * n)
                store(sums, place, load(before, 0) + load(run, place))


@njit()
def finish_ahead(packed, job, ahead):
    """Take all that is left of the line."""
    while packed.line[0] < packed.blocks:
        part = _next_stretch(packed, job, ahead)
        sums = packed.ahead_sums
        call_columns(
            packed.columns, 0, 0, part.columns, 0, sums, part.x, part.w,
            sums, part.x, part.w, part.w_stride, part.second,
        )  # fmt: skip
        _join_run(packed.line, sums, job.inputs, job.padded * packed.gates, part)
