"""A vector type for Numba: operations on a register of units that LLVM turns into instructions of any target.

Plain loops, left to LLVM's vectoriser, reach half the speed. A `Vector` lives in an LLVM vector such as
``<16 x float>``; the functions here and ``+ - * /`` work lane by lane and round once, whatever the flags of the
function that they stand in.

Memory is a pointer to elements and an index, without checks: kernels see the arrays' addresses and strides, not arrays,
so that one compiled kernel serves every layout.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic, lower_builtin, lower_cast, models, register_model
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from fastrnn.cells import GROUP_BYTES
from fastrnn.numba_kernels.target import registers
from fastrnn.numba_kernels.values import LANE, Value, broadcast, call, float_bits, suffix

__all__ = [
    "GROUP_BYTES",
    "Vector",
    "absolute",
    "address",
    "copy",
    "copysign",
    "data",
    "fma",
    "integers",
    "itemsize",
    "lanes",
    "lanewise",
    "load",
    "load_filled",
    "load_some",
    "move",
    "never_inline",
    "never_unroll",
    "pointer",
    "splat",
    "store",
    "store_some",
    "where_less",
    "width",
]

INDEX = ir.IntType(64)


class Vector(types.Type):
    """As many floats of one type as a register of the target holds."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = registers().width * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype} x {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        element = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.lanes))


# Arithmetic -----------------------------------------------------------------------------------------------------------


def lanewise(name: str, build: Callable[..., Value], on_arrays: Callable[..., Any] | None = None) -> Any:
    """Make a function of vectors that gives a vector, from one of `Value`; in Python it is one of NumPy arrays.

    In compiled code numbers may stand in the place of some of the vectors.
    """

    def function(*arrays: Any) -> Any:
        assert on_arrays is not None
        if all(type(a) in (int, float) for a in arrays):
            raise TypeError(f"simd.{name} takes an array at least, got numbers alone")
        return on_arrays(*arrays)

    function.__name__ = name
    _define(function, build, build.__code__.co_argcount)
    return function


def _define(function: Callable[..., Any], build: Callable[..., Value], arity: int) -> None:
    class _Template(AbstractTemplate):
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            vectors = [a for a in args if isinstance(a, Vector)]
            if len(args) != arity or not vectors:
                return None
            if any(a != vectors[0] and not isinstance(a, types.Number) for a in args):
                return None
            return signature(vectors[0], *vectors[:1] * arity)

    infer_global(function, types.Function(_Template))

    @lower_builtin(function, *[Vector] * arity)
    def _lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return build(*(Value(builder, a) for a in args)).value


@lower_cast(types.Number, Vector)
def _to_vector(context: Any, builder: Any, number: Any, vector: Any, value: Any) -> Any:
    """A number in the place of a vector is cast to the lanes' type."""
    single = context.cast(builder, value, number, vector.dtype)
    return broadcast(builder, single, context.get_value_type(vector))


for _op in (operator.add, operator.sub, operator.mul, operator.truediv):
    _define(_op, _op, 2)
_define(operator.neg, operator.neg, 1)

fma = lanewise("fma", lambda a, b, c: a.fma(b, c), lambda a, b, c: a * b + c)
"""a * b + c, rounded once; twice in Python."""
absolute = lanewise("absolute", lambda a: abs(a), np.abs)
copysign = lanewise("copysign", lambda a, sign: a.copysign(sign), np.copysign)
where_less = lanewise(
    "where_less",
    lambda a, b, yes, no: a.where("<", b, yes, no),
    lambda a, b, yes, no: np.where(np.less(a, b), yes, no),
)
"""a < b ? yes : no; a comparison with NaN is false."""


@intrinsic
def splat(typingctx, like, value):
    """Put a number, cast to the lanes' type, in every lane of a vector like `like`."""
    if not isinstance(like, Vector) or not isinstance(value, types.Number):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return broadcast(builder, context.cast(builder, args[1], value, like.dtype), args[0].type)

    return like(like, value), codegen


# Memory ---------------------------------------------------------------------------------------------------------------


def _is_floats(kind: types.Type) -> bool:
    return isinstance(kind, types.CPointer) and isinstance(kind.dtype, types.Float)


def _place(builder: Any, kind: ir.VectorType, pointer: Any, index: Any) -> Any:
    return builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer())


def load_at(builder: Any, kind: ir.VectorType, pointer: Any, index: Any) -> Any:
    """IR for a vector load; no more than an element's alignment is assumed."""
    return builder.load(_place(builder, kind, pointer, index), align=float_bits(kind) // 8)


def store_at(builder: Any, value: Any, pointer: Any, index: Any) -> None:
    """IR for a vector store; no more than an element's alignment is assumed."""
    builder.store(value, _place(builder, value.type, pointer, index), align=float_bits(value.type) // 8)


def _mask(builder: Any, kind: ir.VectorType, count: Any) -> Any:
    lanes = ir.VectorType(LANE, kind.count)
    many = broadcast(builder, builder.trunc(count, LANE), lanes)
    return builder.icmp_signed("<", ir.Constant(lanes, list(range(kind.count))), many)


@intrinsic
def load(typingctx, pointer, index):
    """Read the vector that starts at ``pointer[index]``."""
    if not _is_floats(pointer):
        return None
    result = Vector(pointer.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return load_at(builder, context.get_value_type(result), *args)

    return result(pointer, types.int64), codegen


@intrinsic
def store(typingctx, pointer, index, value):
    """Write a vector from ``pointer[index]`` on."""
    if not _is_floats(pointer) or value != Vector(pointer.dtype):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        store_at(builder, args[2], args[0], args[1])
        return context.get_dummy_value()

    return types.void(pointer, types.int64, value), codegen


def _load_first(builder: Any, kind: ir.VectorType, pointer: Any, count: Any, others: Any) -> Any:
    start = _place(builder, kind, pointer, INDEX(0))
    align, name = LANE(float_bits(kind) // 8), f"llvm.masked.load.{suffix(kind)}.p0"
    # The branch spares whole vectors the masked load, which some processors do slowly.
    with builder.if_else(builder.icmp_signed("<", count, INDEX(kind.count))) as (some, all_lanes):
        with some:
            masked = call(builder, name, kind, [start, align, _mask(builder, kind, count), others])
            some_block = builder.block
        with all_lanes:
            whole = load_at(builder, kind, pointer, INDEX(0))
            all_block = builder.block
    value = builder.phi(kind)
    value.add_incoming(masked, some_block)
    value.add_incoming(whole, all_block)
    return value


@intrinsic
def load_some(typingctx, pointer, count):
    """Read a vector, or no more than its first `count` lanes; the others are +0."""
    if not _is_floats(pointer):
        return None
    result = Vector(pointer.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = context.get_value_type(result)
        return _load_first(builder, kind, args[0], args[1], ir.Constant(kind, [0.0] * kind.count))

    return result(pointer, types.int64), codegen


@intrinsic
def load_filled(typingctx, pointer, count, others):
    """Read a vector, or no more than its first `count` lanes; the others are those of a vector."""
    if not _is_floats(pointer) or others != Vector(pointer.dtype):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _load_first(builder, args[2].type, args[0], args[1], args[2])

    return others(pointer, types.int64, others), codegen


@intrinsic
def store_some(typingctx, pointer, value, count):
    """Write a vector, or no more than its first `count` lanes."""
    if not _is_floats(pointer) or value != Vector(pointer.dtype):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = args[1].type
        start, align = _place(builder, kind, args[0], INDEX(0)), LANE(float_bits(kind) // 8)
        with builder.if_else(builder.icmp_signed("<", args[2], INDEX(kind.count))) as (some, all_lanes):
            with some:
                mask = _mask(builder, kind, args[2])
                call(builder, f"llvm.masked.store.{suffix(kind)}.p0", ir.VoidType(), [args[1], start, align, mask])
            with all_lanes:
                store_at(builder, args[1], args[0], INDEX(0))
        return context.get_dummy_value()

    return types.void(pointer, value, types.int64), codegen


@intrinsic
def data(typingctx, array):
    """Point at an array's first element."""
    if not isinstance(array, types.Array):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def pointer(typingctx, like, address):
    """Turn an address into a pointer like `like`."""
    if not isinstance(like, types.CPointer) or not isinstance(address, types.Integer):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[1], args[0].type)

    return like(like, types.int64), codegen


@intrinsic
def integers(typingctx, address):
    """Turn an address into a pointer to int64."""
    if not isinstance(address, types.Integer):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], INDEX.as_pointer())

    return types.CPointer(types.int64)(types.int64), codegen


@intrinsic
def address(typingctx, pointer):
    """Tell where a pointer points."""
    if not isinstance(pointer, types.CPointer):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], INDEX)

    return types.int64(pointer), codegen


@intrinsic
def move(typingctx, pointer, count):
    """Point `count` elements further."""
    if not isinstance(pointer, types.CPointer) or not isinstance(count, types.Integer):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), codegen


@intrinsic
def copy(typingctx, source, target, count):
    """Copy `count` elements to where no other of them lies."""
    if not isinstance(source, types.CPointer) or target != source or not isinstance(count, types.Integer):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        cgutils.raw_memcpy(builder, args[1], args[0], args[2], source.dtype.bitwidth // 8, align=1)
        return context.get_dummy_value()

    return types.void(source, target, types.int64), codegen


def _marked(attribute: str) -> Any:
    """Make what gives the function that calls it an attribute of LLVM's."""

    @intrinsic
    def mark(typingctx):
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.function.attributes.add(attribute)
            return context.get_dummy_value()

        return types.void(), codegen

    return mark


never_inline = _marked("noinline")
"""Keep LLVM from inlining the function that calls this."""
never_unroll = _marked("optsize")
"""Keep LLVM from unrolling the loops of the function that calls this: for a row or two that would take longer."""


def constant_of(value: Callable[[types.Type], int]) -> Any:
    """Make an intrinsic that gives a number known from the type of its argument."""

    @intrinsic
    def constant(typingctx, of):
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return INDEX(int(value(of)))

        return types.int64(of), codegen

    return constant


lanes = constant_of(lambda floats: GROUP_BYTES * 8 // floats.dtype.bitwidth)
"""Units of a group, for the type a pointer points at."""
width = constant_of(lambda floats: Vector(floats.dtype).lanes)
"""Units of a vector, for the type a pointer points at."""
itemsize = constant_of(lambda floats: floats.dtype.bitwidth // 8)
"""Bytes of what a pointer points at."""
