"""The register tile: sums of M rows by the vectors of a block, written as LLVM IR.

The contract's order: columns go in runs, the sums of a run are chains of fma from +0 that stay in registers, and a run
that is complete is added to what is there. It is built as IR, for Numba would take many times longer to compile loops
over tuples of vectors for all heights of a tile. And it is an entry point, called by its address: LLVM would
optimise all tiles once more with each of their callers, for most of the time of a first call.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic, models, register_model

from fastrnn.cells import RUN
from fastrnn.numba_kernels.calls import address_of, call_row, call_tile
from fastrnn.numba_kernels.door import STAMP, njit
from fastrnn.numba_kernels.simd import (
    GROUP_BYTES,
    INDEX,
    address,
    constant_of,
    lanes,
    load_at,
    move,
    never_unroll,
    store_at,
)
from fastrnn.numba_kernels.target import registers
from fastrnn.numba_kernels.values import LANE, Value, broadcast, call

__all__ = [
    "MOST_ROWS",
    "BlockType",
    "height",
    "most_rows",
    "pairs",
    "row_address",
    "run_row",
    "run_tile",
    "sum_tile",
    "tile_address",
    "tile_count",
]

MOST_ROWS = 6  # then the loads of a tile are well below its multiplications
_FETCH_BYTES = 1024  # how far ahead one row's weights are fetched where the processor's own prefetcher does not keep up
_FETCH_BYTES_OF_ROWS = 16 * 1024  # and those of several rows, which keep the processor from looking far ahead
_NEAR = 64  # columns of weights that are read twice or more, a part of a run: the nearest cache holds them


def _sums() -> int:
    """Sums of a tile: three quarters of the registers; weights and broadcast values need the rest."""
    return registers().number * 3 // 4


def most_rows(gates: int, groups: int = 1) -> int:
    """The height of the highest tile over blocks with so many gates.

    `groups` of weights from the outer caches are read together, as they lie there, if four rows at least can be.
    """
    whole = _sums() // (groups * gates)
    return min(MOST_ROWS, whole if whole >= 4 else _sums() // gates)


def pairs(groups: int, gates: int) -> bool:
    """Whether one row may take two blocks of this shape at once.

    The LSTM's four chains of fma are half of what keeps the multipliers at work where the nearest cache has the
    weights; with narrow registers a block is more chains.
    """
    return (groups, gates) == (1, 4) and registers().width == GROUP_BYTES


@njit(forceinline=True)
def tile_count(rows, most):
    """Tiles that so many rows are divided into."""
    if rows == 1 or rows <= most:  # mostly; and where rows is a constant 1, so is this
        return 1
    return (rows + most - 1) // most


@njit(forceinline=True)
def height(rows, tiles):
    """The height of the next of so many tiles.

    Eight rows are 4 + 4, for 6 + 2 would leave two rows at a third of the speed.
    """
    return rows if tiles == 1 else (rows + tiles - 1) // tiles


class BlockType(types.Type):
    """What a tile is compiled for: blocks of U groups of G gates, and whether weights are fetched from far away.

    No value has it; a null pointer will do.
    """

    def __init__(self, groups: int, gates: int, is_far: bool = False) -> None:
        self.groups, self.gates, self.is_far = groups, gates, is_far
        super().__init__(name=f"fastrnn.Block({groups}, {gates}, {is_far}, {STAMP})")


register_model(BlockType)(models.OpaqueModel)


class _Tile:
    """Builds the code of tiles of a shape of block: a switch over rows M and groups U, runs of k in each.

    Parts are vectors of units: group after group, and within a group one or, on narrow targets, more. A tile takes as
    many of them at once as it has registers for, all gates of each, and the others in further passes over the same
    run of columns. Passes that share lines of weights take few columns at a time, so that the lines are near for the
    next pass, and keep the sums of an unfinished run aside.
    """

    def __init__(self, block: BlockType, dtype: types.Float, arguments: dict[str, Any]) -> None:
        self.gates, self.most_groups, self.most_rows = block.gates, block.groups, most_rows(block.gates)
        self.is_far = block.is_far
        self.lanes, self.width = GROUP_BYTES * 8 // dtype.bitwidth, registers().width * 8 // dtype.bitwidth
        self.parts = self.lanes // self.width  # of a group
        self.vector = ir.VectorType(ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType(), self.width)
        vars(self).update(arguments)

    def build(self, builder: ir.IRBuilder, heights: range) -> None:
        end = builder.append_basic_block("end")
        key = builder.add(builder.mul(self.groups, INDEX(self.most_rows)), self.rows)
        switch = builder.switch(key, end)
        most = self.most_groups
        if 1 in heights and pairs(most, self.gates):
            most += 1  # the group of a second block
        for u in range(1, most + 1):
            for m in heights:
                with builder.goto_block(builder.append_basic_block(f"u{u}m{m}")):
                    switch.add_case(u * self.most_rows + m, builder.block)
                    self._passes(builder, m, u)
                    builder.branch(end)
        builder.position_at_end(end)

    def _passes(self, builder: ir.IRBuilder, m: int, u: int) -> None:
        """Pass over as many parts at once as there are registers for; one row takes most, having the fewest chains."""
        total = u * self.parts
        at_once = max(
            n
            for n in range(1, total + 1)
            if total % n == 0
            and (n == 1 or n * m * self.gates <= _sums())
            and (n % self.parts == 0 or self.parts % n == 0)
        )
        columns, aside = RUN, None
        if at_once % self.parts:
            columns, aside = _NEAR, cgutils.alloca_once(builder, self.vector, INDEX(m * total * self.gates))
        with cgutils.for_range_slice(builder, INDEX(0), self.depth, INDEX(columns)) as (first, _):
            last = builder.add(first, INDEX(columns))
            last = builder.select(builder.icmp_signed("<", last, self.depth), last, self.depth)
            with cgutils.for_range_slice(builder, INDEX(0), INDEX(total), INDEX(at_once)) as (part, _):
                self._sum(builder, m, u, at_once, part, first, last, aside)

    def _sum(
        self, builder: ir.IRBuilder, m: int, u: int, at_once: int, part: Any, first: Any, last: Any, aside: Any
    ) -> None:
        """Add columns first..last to `at_once` parts from `part` on: a run, or a part of it if there is `aside`."""
        group, lane = builder.udiv(part, INDEX(self.parts)), builder.urem(part, INDEX(self.parts))
        lane = builder.mul(lane, INDEX(self.width))
        base = builder.add(builder.mul(group, INDEX(self.gates * self.lanes)), lane)
        apart = builder.gep(self.apart, [builder.add(builder.mul(group, INDEX(self.lanes)), lane)])
        is_apart = builder.icmp_unsigned("!=", self.apart, self.apart.type(None))
        is_first = builder.icmp_signed("<", first, INDEX(RUN))
        places = [(*divmod(n, self.parts), gate) for n in range(at_once) for gate in range(self.gates)]
        offsets = [
            builder.add(base, INDEX((q * self.gates + gate) * self.lanes + v * self.width)) for q, v, gate in places
        ]
        # Of a pair of blocks the second follows the first; else the groups of a column lie side by side.
        pair = u > self.most_groups
        column = (1 if pair else u) * self.gates * self.lanes
        places_w = offsets
        if pair:
            block = builder.mul(self.depth, INDEX(column))
            places_w = [builder.add(builder.mul(block, INDEX(q)), INDEX(gate * self.lanes)) for q, _, gate in places]
        rows = [self.a]
        if m > 1:
            rows = [builder.gep(self.a, [builder.load(builder.gep(self.offsets, [INDEX(i)]))]) for i in range(m)]
        outs = [builder.gep(self.out, [builder.mul(self.out_stride, INDEX(i))]) for i in range(m)]
        sums = [[cgutils.alloca_once(builder, self.vector) for _ in places] for _ in range(m)]
        zero = ir.Constant(self.vector, [0.0] * self.width)

        def kept(i: int, place: int) -> Any:
            row = builder.add(part, INDEX(i * u * self.parts))
            return builder.gep(aside, [builder.add(builder.mul(row, INDEX(self.gates)), INDEX(place))])

        begins = builder.icmp_signed("==", builder.and_(first, INDEX(RUN - 1)), INDEX(0))
        for i in range(m):
            for place, total in enumerate(sums[i]):
                start = builder.select(begins, zero, builder.load(kept(i, place))) if aside is not None else zero
                builder.store(start, total)
        with cgutils.for_range_slice(builder, first, last, INDEX(1)) as (k, _):
            w = builder.gep(self.w, [builder.mul(k, INDEX(column))])
            if self.is_far:
                ahead = _FETCH_BYTES if m == 1 else _FETCH_BYTES_OF_ROWS
                lines = [(q * self.gates + gate) * GROUP_BYTES + ahead for q, v, gate in places if not v]
                _fetch(builder, builder.bitcast(w, ir.IntType(8).as_pointer()), lines)

            def value(i: int) -> Value:
                return Value(builder, broadcast(builder, builder.load(builder.gep(rows[i], [k])), self.vector))

            def weights(place: int) -> Value:
                return Value(builder, load_at(builder, self.vector, w, places_w[place]))

            def add(i: int, place: int, a: Value, b: Value) -> None:
                total = Value(builder, builder.load(sums[i][place]))
                builder.store(a.fma(b, total).value, sums[i][place])

            # What there are fewer of is held, the others pass one at a time: 16 registers are just enough.
            if m < len(places):
                held = [value(i) for i in range(m)]
                for place in range(len(places)):
                    passing = weights(place)
                    for i in range(m):
                        add(i, place, held[i], passing)
            else:
                held = [weights(place) for place in range(len(places))]
                for i in range(m):
                    passing = value(i)
                    for place in range(len(places)):
                        add(i, place, passing, held[place])

        def join() -> None:
            for i in range(m):
                start = builder.gep(self.start, [builder.mul(self.start_stride, INDEX(i))])
                for total, (q, v, gate), offset in zip(sums[i], places, offsets, strict=True):
                    source = builder.gep(start, [offset])
                    if gate == self.gates - 1:
                        own = builder.gep(apart, [INDEX(q * self.lanes + v * self.width)])
                        source = builder.select(is_apart, own, source)
                    source = builder.select(is_first, source, builder.gep(outs[i], [offset]))
                    before = Value(builder, load_at(builder, self.vector, source, INDEX(0)))
                    store_at(builder, (before + Value(builder, builder.load(total))).value, outs[i], offset)

        if aside is None:
            join()
            return
        ends = builder.or_(
            builder.icmp_signed("==", builder.and_(last, INDEX(RUN - 1)), INDEX(0)),
            builder.icmp_signed("==", last, self.depth),
        )
        with builder.if_else(ends) as (run_ends, run_goes_on):
            with run_ends:
                join()
            with run_goes_on:
                for i in range(m):
                    for place, total in enumerate(sums[i]):
                        builder.store(builder.load(total), kept(i, place))


def _fetch(builder: ir.IRBuilder, start: Any, lines: Sequence[int]) -> None:
    """Ask for lines of memory, so many bytes from `start`, which will be read soon."""
    options = [ir.Constant(LANE, n) for n in (0, 3, 1)]  # to read, into the nearest cache, data
    for line in lines:
        call(builder, "llvm.prefetch.p0", ir.VoidType(), [builder.gep(start, [INDEX(line)]), *options])


@intrinsic
def _row(typingctx, block, groups, depth, start, apart, out, a, w):
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        arguments = dict(zip(["groups", "depth", "start", "apart", "out", "a", "w"], args[1:], strict=True))
        arguments |= {"rows": INDEX(1), "start_stride": INDEX(0), "out_stride": INDEX(0)}
        _Tile(block, start.dtype, arguments).build(builder, range(1, 2))
        return context.get_dummy_value()

    i, p = types.int64, start
    return types.void(block, i, i, p, p, p, p, p), codegen


@intrinsic
def _tile(typingctx, block, rows, groups, depth, start, start_stride, apart, out, out_stride, a, offsets, w):
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        names = ["rows", "groups", "depth", "start", "start_stride", "apart", "out", "out_stride", "a", "offsets", "w"]
        tiles = _Tile(block, start.dtype, dict(zip(names, args[1:], strict=True)))
        tiles.build(builder, range(2, tiles.most_rows + 1))
        return context.get_dummy_value()

    i = types.int64
    return types.void(block, i, i, i, start, i, start, start, i, start, offsets, start), codegen


_gates = constant_of(lambda block: block.gates)


@njit(cache=True)
def run_row(block, groups, count, backwards, depth, start, apart, out, a, w):
    """Sum tiles of one row, which is a[0], .. a[K - 1], for `count` blocks one after the other; see `run_tile`.

    An entry point of its own, for steps of one row call it all the time. Where `pairs` says so `groups` may be two, of
    two blocks each, w being the first one's weights.
    """
    never_unroll()  # eight columns at a time would come from the second cache at two thirds of the rate on AMD's Zen 5
    units = groups * lanes(w)
    size = units * _gates(block)
    for i in range(count):
        at = count - 1 - i if backwards else i
        own = move(apart, at * units) if address(apart) else apart
        place = at * size
        _row(block, groups, depth, move(start, place), own, move(out, place), a, move(w, place * depth))


@njit(cache=True)
def run_tile(block, rows, groups, depth, start, start_stride, apart, out, out_stride, a, offsets, w):
    """Sum a tile of two rows or more.

    Parameters
    ----------
    block : BlockType
        Shape of blocks: U groups of G gates.
    rows, groups, depth : int
        M; U, or what is left of it in the last block; K.
    start, start_stride
        [M][U][G][lanes], what sums start from, and elements from row to row; 0 for a bias.
    apart
        [U][lanes], what the last gate starts from instead, or null.
    out, out_stride
        [M][U][G][lanes], written.
    a, offsets
        Row m is a[offsets[m]], .. a[offsets[m] + K - 1].
    w
        [K][U][G][lanes].
    """
    _tile(block, rows, groups, depth, start, start_stride, apart, out, out_stride, a, offsets, w)


@njit(forceinline=True)
def sum_tile(one, more, rows, groups, depth, start, start_stride, apart, out, out_stride, a, offsets, w):
    """Sum a tile, of one row or more, by the entry points at these addresses."""
    if rows == 1:
        call_row(one, groups, 1, 0, depth, start, apart, out, move(a, offsets[0]), w)
    else:
        call_tile(more, rows, groups, depth, start, start_stride, apart, out, out_stride, a, offsets, w)


@cache
def row_address(groups: int, gates: int, dtype: str, is_far: bool = False) -> int:
    """Compile the tiles of one row of a shape of block; return what `sum_tile` calls."""
    i, floats = types.int64, types.CPointer(getattr(types, dtype))
    return address_of(run_row, BlockType(groups, gates, is_far), i, i, i, i, *[floats] * 5)


@cache
def tile_address(groups: int, gates: int, dtype: str, is_far: bool = False) -> int:
    """Compile the tiles of two rows or more; return what `sum_tile` calls."""
    i, floats, integers = types.int64, types.CPointer(getattr(types, dtype)), types.CPointer(types.int64)
    block = BlockType(groups, gates, is_far)
    return address_of(run_tile, block, i, i, i, floats, i, floats, floats, i, floats, integers, floats)
