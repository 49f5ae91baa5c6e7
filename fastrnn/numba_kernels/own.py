"""Own cells: a phase made of the function that finishes their gates."""

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

from numba.core import types
from numba.core.extending import intrinsic

from fastrnn.cells import Variant
from fastrnn.numba_kernels.activations import flush
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.phases import Phase
from fastrnn.numba_kernels.simd import Vector, lanes, load, load_at, load_some, store, store_some

__all__ = ["own_phases"]


def _loads(count: int) -> Any:
    """Make an intrinsic that reads a tuple of so many vectors: the first at p, each `stride` elements further."""

    @intrinsic
    def loads(typingctx, p, stride):
        vector = Vector(p.dtype)
        result = types.UniTuple(vector, count)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = context.get_value_type(vector)
            places = [builder.mul(args[1], args[1].type(i)) for i in range(count)]
            vectors = [load_at(builder, kind, args[0], place) for place in places]
            return context.make_tuple(builder, result, vectors)

        return result(p, types.int64), codegen

    return loads


def _ours(variant: Variant) -> FunctionType:
    """Return the function of a cell as one of this module: Numba's disk cache imports the modules of what it holds."""
    function: Any = variant.function
    ours = FunctionType(function.__code__, function.__globals__, variant.name, None, function.__closure__)
    ours.__module__, ours.__qualname__ = __name__, variant.name
    return ours


@cache
def own_phases(variant: Variant) -> tuple[Phase]:
    """Make the phase of an own cell."""
    apart, parameters = variant.apart is not None, len(variant.parameters)
    math = _gate_math(_ours(variant), len(variant.gates), apart, len(variant.states) > 1, parameters)
    return (Phase(variant, 0, math),)


def _gate_math(function: Callable[..., Any], gates: int, apart: bool, has_c: bool, parameters: int) -> Any:
    """Compile what finishes one vector of units of one row."""
    compute = njit(forceinline=True)(function)
    loads_gates, loads_parameters = _loads(gates), _loads(parameters)

    @njit(forceinline=True)
    def sums_of(sums, x_sums):
        given = loads_gates(sums, lanes(sums))
        if not apart:
            return given
        return (*given[:-1], load(x_sums, (gates - 1) * lanes(sums)), given[-1])

    def with_h(kind, sums, x_sums, cell, old, new, own, stride, count):
        given = (*sums_of(sums, x_sums), load_some(old, count), *loads_parameters(own, stride))
        store_some(new, flush(compute(*given)), count)

    def with_h_and_c(kind, sums, x_sums, cell, old, new, own, stride, count):
        given = (*sums_of(sums, x_sums), load_some(old, count), load(cell, 0), *loads_parameters(own, stride))
        h, c = compute(*given)
        store(cell, 0, flush(c))
        store_some(new, flush(h), count)

    return with_h_and_c if has_c else with_h
