"""LLVM values with operators: what the vector operations and activations are written in.

A `Value` is a vector inside an LLVM function that is being built. Building code in Python costs a hundredth of what
Numba needs to compile the same lines, and a first call waits for that.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

__all__ = ["Value", "broadcast", "call"]

LANE = ir.IntType(32)


def suffix(kind: ir.VectorType) -> str:
    """Name of a vector type in the names of LLVM's intrinsics."""
    return f"v{kind.count}f{float_bits(kind)}"


def float_bits(kind: ir.VectorType) -> int:
    """Bits of a lane."""
    return 32 if isinstance(kind.element, ir.FloatType) else 64


def call(builder: ir.IRBuilder, name: str, result: ir.Type, args: Sequence[Any]) -> Any:
    """Call one of LLVM's intrinsics by its full name."""
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, args)


def broadcast(builder: ir.IRBuilder, scalar: Any, kind: ir.VectorType) -> Any:
    """Put a scalar in every lane."""
    nothing = ir.Constant(kind, ir.Undefined)
    zeros = ir.Constant(ir.VectorType(LANE, kind.count), [0] * kind.count)
    return builder.shuffle_vector(builder.insert_element(nothing, scalar, ir.Constant(LANE, 0)), nothing, zeros)


def _exact(instruction: Any) -> Any:
    """Keep the fastmath of a user's function out.

    Numba gives its flags to instructions that have none. Then `rint_pow2` no longer rounds, and tanh is wrong by a
    sixth. An empty flag is one for Numba and none for LLVM.
    """
    instruction.flags.append("")
    return instruction


class Value:
    """A vector of floats. Operators and methods work lane by lane and round once; Python floats are constants."""

    def __init__(self, builder: ir.IRBuilder, value: Any) -> None:
        self.builder, self.value, self.kind = builder, value, value.type
        self.bits = float_bits(value.type)

    def _constant(self, value: float) -> "Value":
        return Value(self.builder, ir.Constant(self.kind, [value] * self.kind.count))

    def _value(self, other: "Value | float") -> Any:
        return other.value if isinstance(other, Value) else self._constant(other).value

    def _new(self, value: Any) -> "Value":
        return Value(self.builder, value)

    def __add__(self, other: "Value | float") -> "Value":
        return self._new(_exact(self.builder.fadd(self.value, self._value(other))))

    def __sub__(self, other: "Value | float") -> "Value":
        return self._new(_exact(self.builder.fsub(self.value, self._value(other))))

    def __mul__(self, other: "Value | float") -> "Value":
        return self._new(_exact(self.builder.fmul(self.value, self._value(other))))

    def __truediv__(self, other: "Value | float") -> "Value":
        return self._new(_exact(self.builder.fdiv(self.value, self._value(other))))

    def __rtruediv__(self, other: float) -> "Value":
        return self._constant(other) / self

    def __neg__(self) -> "Value":
        return self._new(self.builder.fneg(self.value))

    def __abs__(self) -> "Value":
        return self._call("llvm.fabs")

    def _call(self, name: str, *others: "Value | float") -> "Value":
        args = [self.value, *map(self._value, others)]
        return self._new(call(self.builder, f"{name}.{suffix(self.kind)}", self.kind, args))

    def fma(self, factor: "Value | float", summand: "Value | float") -> "Value":
        """self * factor + summand, rounded once."""
        return self._call("llvm.fma", factor, summand)

    def copysign(self, sign: "Value") -> "Value":
        """|self| with the sign of another vector."""
        return self._call("llvm.copysign", sign)

    def where(self, relation: str, other: "Value | float", yes: "Value | float", no: "Value | float") -> "Value":
        """self < other ? yes : no, for < or >; a comparison with NaN is false."""
        mask = _exact(self.builder.fcmp_ordered(relation, self.value, self._value(other)))
        return self._new(self.builder.select(mask, self._value(yes), self._value(no)))

    def at_most(self, limit: float) -> "Value":
        """self > limit ? limit : self, as x86 has it and unlike LLVM's minnum: NaN passes."""
        return self.where(">", limit, limit, self)

    def at_least(self, limit: float) -> "Value":
        """self < limit ? limit : self; NaN passes."""
        return self.where("<", limit, limit, self)

    def rint_pow2(self) -> "tuple[Value, Value]":
        """n = rint(self) and 2^n, for |self| small enough that 2^n is normal.

        Adding 1.5 * 2^23 (float32) leaves n in the low bits. A conversion to an integer would be poison for NaN.
        """
        mantissa = 23 if self.bits == 32 else 52
        integers = ir.VectorType(ir.IntType(self.bits), self.kind.count)
        one_bits = (1 << self.bits - 2) - (1 << mantissa)
        shift, one = (ir.Constant(integers, [c] * self.kind.count) for c in (mantissa, one_bits))
        moved = self + 1.5 * 2.0**mantissa
        bits = self.builder.shl(self.builder.bitcast(moved.value, integers), shift)
        power = self.builder.bitcast(self.builder.add(bits, one), self.kind)
        return moved - 1.5 * 2.0**mantissa, self._new(power)
