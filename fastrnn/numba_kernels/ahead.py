"""One row's sums over h, and on the way the projection of inputs that later steps will need, written as LLVM IR.

One row reads each weight for a single fma, so the multipliers wait for the cache half of the time. A tile of inputs
needs many fmas a weight. Side by side they take little longer than the sums over h alone.
"""

from collections import namedtuple
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from fastrnn.numba_kernels.phases import PhaseType
from fastrnn.numba_kernels.simd import GROUP_BYTES, INDEX, constant_of, declare, load_at, store_at
from fastrnn.numba_kernels.target import registers
from fastrnn.numba_kernels.values import Value, broadcast

__all__ = ["AHEAD", "Inputs", "ahead_tile", "can_ahead"]

AHEAD = 12  # time steps: 12 rows x 2 vectors of inputs fit beside the 4 or 6 sums of one row

can_ahead = constant_of(lambda phase: int(registers().width == GROUP_BYTES and registers().number >= 32))
"""Whether the target's registers hold both."""


class _Ahead:
    """Builds the LLVM function of one shape of block: a switch over its groups U, a loop over columns each."""

    def __init__(self, module: ir.Module, phase: PhaseType, dtype: types.Float) -> None:
        self.gates, self.lanes = phase.gates, GROUP_BYTES * 8 // dtype.bitwidth
        element = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
        self.vector = ir.VectorType(element, self.lanes)
        floats = element.as_pointer()
        arguments = {
            "groups": INDEX,  # U, or what is left of it in the last block
            "depth": INDEX,  # K
            "start": floats,  # IN [U][G][lanes]: what the sums start from
            "apart": floats,  # IN [U][lanes]: what the last gate starts from instead, or null
            "sums": floats,  # OUT [U][G][lanes]
            "h": floats,  # IN [K]
            "w_h": floats,  # IN [K][U][G][lanes]
            "inputs": INDEX,  # I
            "b": floats,  # IN [U][G][lanes]
            "x": floats,  # IN AHEAD rows [I]
            "x_stride": INDEX,  # from row to row
            "w_x": floats,  # IN [I][U][G][lanes]
            "out": floats,  # INOUT AHEAD rows [U][G][lanes]: b + W_ih x, complete after the last part
            "out_stride": INDEX,
            "part": INDEX,  # this call does part `part` of `parts`; the parts go in order
            "parts": INDEX,
        }
        name = f"fastrnn.ahead.{dtype}.{phase.groups}.{phase.gates}"
        self.function, is_new = declare(module, name, arguments)
        if is_new:
            vars(self).update(zip(arguments, self.function.args, strict=True))
            self._build(phase.groups)

    def _build(self, most: int) -> None:
        builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        end = self.function.append_basic_block("end")
        switch = builder.switch(self.groups, end)
        for u in range(1, most + 1):
            with builder.goto_block(self.function.append_basic_block(f"u{u}")):
                switch.add_case(u, builder.block)
                self._block(builder, u)
                builder.branch(end)
        builder.position_at_end(end)
        builder.ret_void()

    def _block(self, builder: ir.IRBuilder, u: int) -> None:
        count = u * self.gates
        at_once = 1 if count % 2 else 2  # vectors of inputs in registers at a time
        columns_of_h = AHEAD * at_once // count  # beside one of x: as many fmas of either kind
        total = [cgutils.alloca_once(builder, self.vector) for _ in range(count)]
        is_apart = builder.icmp_unsigned("!=", self.apart, self.apart.type(None))
        for v in range(count):
            source = builder.gep(self.start, [INDEX(v * self.lanes)])
            if v % self.gates == self.gates - 1:
                own = builder.gep(self.apart, [INDEX(v // self.gates * self.lanes)])
                source = builder.select(is_apart, own, source)
            builder.store(load_at(builder, self.vector, source, INDEX(0)), total[v])

        def over_h(k: Any) -> None:
            value = self._broadcast(builder, builder.gep(self.h, [k]))
            for v in range(count):
                self._add(builder, total[v], value, self._weights(builder, self.w_h, k, count, v))

        done = cgutils.alloca_once_value(builder, INDEX(0))  # columns of h
        columns = builder.mul(self.inputs, INDEX(count // at_once))
        share = builder.sdiv(columns, self.parts)
        begin = builder.mul(self.part, share)
        is_last = builder.icmp_signed("==", builder.add(self.part, INDEX(1)), self.parts)
        end = builder.select(is_last, columns, builder.add(begin, share))
        for first_vector in range(0, count, at_once):
            first = self._pick(builder, ">", begin, INDEX(0))
            last = self._pick(builder, "<", end, self.inputs)
            begin, end = builder.sub(begin, self.inputs), builder.sub(end, self.inputs)
            with builder.if_then(builder.icmp_signed("<", first, last)):
                self._columns(builder, count, first_vector, at_once, first, last, done, columns_of_h, over_h)
        with cgutils.for_range_slice(builder, builder.load(done), self.depth, INDEX(1)) as (k, _):
            over_h(k)
        for v in range(count):
            store_at(builder, builder.load(total[v]), self.sums, INDEX(v * self.lanes))

    def _columns(
        self,
        builder: ir.IRBuilder,
        count: int,
        first_vector: int,
        at_once: int,
        first: Any,
        last: Any,
        done: Any,
        columns_of_h: int,
        over_h: Any,
    ) -> None:
        """Columns first..last of `at_once` vectors of the inputs, each beside as many columns of h as are left."""
        sums = [[cgutils.alloca_once(builder, self.vector) for _ in range(at_once)] for _ in range(AHEAD)]
        is_first = builder.icmp_signed("==", first, INDEX(0))
        outs = [builder.gep(self.out, [builder.mul(self.out_stride, INDEX(r))]) for r in range(AHEAD)]
        # Every third row; the two after it are an index away, so that the addresses fit the integer registers.
        rows = [builder.gep(self.x, [builder.mul(self.x_stride, INDEX(r))]) for r in range(0, AHEAD, 3)]
        for r in range(AHEAD):
            source = builder.select(is_first, self.b, outs[r])
            for v in range(at_once):
                place = INDEX((first_vector + v) * self.lanes)
                builder.store(load_at(builder, self.vector, source, place), sums[r][v])

        def over_x(i: Any, r0: int, r1: int, weights: list[Value]) -> None:
            for r in range(r0, r1):
                place = builder.add(i, builder.mul(self.x_stride, INDEX(r % 3)))
                value = self._broadcast(builder, builder.gep(rows[r // 3], [place]))
                for v in range(at_once):
                    self._add(builder, sums[r][v], value, weights[v])

        def weights_of(i: Any) -> list[Value]:
            return [self._weights(builder, self.w_x, i, count, first_vector + v) for v in range(at_once)]

        start = builder.load(done)
        fitting = builder.sdiv(builder.sub(self.depth, start), INDEX(columns_of_h))
        both = builder.add(first, fitting)
        both = builder.select(builder.icmp_signed("<", both, last), both, last)
        with cgutils.for_range_slice(builder, first, both, INDEX(1)) as (i, _):
            weights = weights_of(i)
            k = builder.load(done)
            for j in range(columns_of_h):
                over_h(builder.add(k, INDEX(j)))
                over_x(i, j * AHEAD // columns_of_h, (j + 1) * AHEAD // columns_of_h, weights)
            builder.store(builder.add(k, INDEX(columns_of_h)), done)
        for r in (0, AHEAD // 2):  # all rows at once would be compiled to code that spills
            with cgutils.for_range_slice(builder, both, last, INDEX(1)) as (i, _):
                over_x(i, r, r + AHEAD // 2, weights_of(i))
        for r in range(AHEAD):
            for v in range(at_once):
                place = INDEX((first_vector + v) * self.lanes)
                store_at(builder, builder.load(sums[r][v]), outs[r], place)

    def _pick(self, builder: ir.IRBuilder, than: str, a: Any, b: Any) -> Any:
        return builder.select(builder.icmp_signed(than, a, b), a, b)

    def _broadcast(self, builder: ir.IRBuilder, pointer: Any) -> Value:
        return Value(builder, broadcast(builder, builder.load(pointer), self.vector))

    def _weights(self, builder: ir.IRBuilder, w: Any, column: Any, count: int, vector: int) -> Value:
        place = builder.add(builder.mul(column, INDEX(count * self.lanes)), INDEX(vector * self.lanes))
        return Value(builder, load_at(builder, self.vector, w, place))

    def _add(self, builder: ir.IRBuilder, total: Any, a: Value, b: Value) -> None:
        builder.store(a.fma(b, Value(builder, builder.load(total))).value, total)


Inputs = namedtuple("Inputs", "inputs b x x_stride w_x out out_stride part parts")
"""What is projected on the way, as in the arguments of `_Ahead`."""


@intrinsic
def ahead_tile(typingctx, phase, groups, depth, start, apart, sums, h, w_h, of_x):
    """Sum one row of one block, and one part of the inputs ahead; for the arguments see `_Ahead`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        inputs = cgutils.unpack_tuple(builder, args[-1])
        builder.call(_Ahead(builder.module, phase, start.dtype).function, [*args[1:-1], *inputs])
        return context.get_dummy_value()

    i, p = types.int64, start
    of_x = types.NamedTuple((i, p, p, i, p, p, i, i, i), Inputs)
    return types.void(phase, i, i, p, p, p, p, p, of_x), codegen
