"""NumPy arrays as entry points take them: an address, and axes and strides as they stand in the object.

A caller holds its arrays until the call returns. Numba's own would allocate for each, and count references to it in
atomic steps: 32 ns an array instead of 5 on Zen 5, where a step of a small layer takes 100.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import NativeValue, intrinsic, models, register_model, unbox

from fastrnn.numba_kernels.simd import INDEX

__all__ = ["GivenType", "place", "size", "step"]

_HEADER = object.__basicsize__
_SHAPE, _STRIDES = _HEADER + 16, _HEADER + 24
"""Where PyArrayObject_fields, a part of NumPy's binary interface, has an array's parts; its address comes first."""


class GivenType(types.Type):
    """An array of one dtype: any number of axes, any strides, read-only or not, none of which is checked."""

    def __init__(self, dtype: types.Number) -> None:
        self.dtype = dtype
        super().__init__(name=f"fastrnn.Given({dtype})")


@register_model(GivenType)
class _GivenModel(models.StructModel):
    def __init__(self, dmm: Any, fe_type: GivenType) -> None:
        indices = types.CPointer(types.int64)
        members = [("data", types.CPointer(fe_type.dtype)), ("shape", indices), ("strides", indices)]
        super().__init__(dmm, fe_type, members)


@unbox(GivenType)
def _unbox_given(kind: GivenType, value: Any, c: Any) -> Any:
    start = c.builder.bitcast(value, ir.IntType(8).as_pointer())
    given = cgutils.create_struct_proxy(kind)(c.context, c.builder)
    for name, at in (("data", _HEADER), ("shape", _SHAPE), ("strides", _STRIDES)):
        field = c.builder.gep(start, [INDEX(at)])
        setattr(given, name, c.builder.load(c.builder.bitcast(field, getattr(given, name).type.as_pointer())))
    return NativeValue(given._getvalue())


@intrinsic
def place(typingctx, array):
    """Point at an array's first element."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return cgutils.create_struct_proxy(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


def _number(name: str, divides: bool) -> Any:
    """Make an intrinsic that reads a number of an axis."""

    @intrinsic
    def number(typingctx, array, axis):
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            numbers = getattr(cgutils.create_struct_proxy(array)(context, builder, args[0]), name)
            found = builder.load(builder.gep(numbers, [args[1]]))
            return builder.sdiv(found, INDEX(array.dtype.bitwidth // 8)) if divides else found

        return types.int64(array, types.int64), codegen

    return number


size = _number("shape", divides=False)
"""How long an axis of an array is."""
step = _number("strides", divides=True)
"""Elements from one to the next along an axis of an array."""
