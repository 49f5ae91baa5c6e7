"""Calls of compiled functions by their address: a chain of layers is data, and no code is compiled for its shape.

Like the table of functions of src_kernels/dispatch.c. A function that is called so is compiled by itself, through the
project's door: neither a caller's flags nor a caller's cache reach into it.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from fastrnn import preparing
from fastrnn.numba_kernels import threads
from fastrnn.numba_kernels.simd import INDEX

__all__ = [
    "address_of",
    "build_call",
    "call",
    "call_columns",
    "call_dense",
    "call_function",
    "call_gates",
    "call_part",
    "call_row",
    "call_rows",
    "call_tile",
    "compiled",
    "stack",
]


def compiled(entry: Any, *signature: Any) -> Callable[..., None]:
    """Compile an entry point, or read it from the disk cache.

    Returns Numba's function for one signature: a call checks no more of its arguments than the size of their elements,
    and one compiled kernel takes arrays of any layout, writable or not.
    """
    if entry.targetoptions.get("parallel"):
        threads.start()
    with preparing.lock:
        entry.compile(signature)
        function: Callable[..., None] = entry.overloads[signature].entry_point
    return function


def address_of(entry: Any, *signature: Any) -> int:
    """Compile an entry point, or read it from the disk cache; return where its machine code begins."""
    with preparing.lock:
        entry.compile(signature)
        result = entry.overloads[signature]
        return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


def build_call(context: Any, builder: Any, address: Any, kinds: tuple[Any, ...], args: list[Any]) -> Any:
    """IR of a call by Numba's convention; an exception passes on."""
    function = context.call_conv.get_function_type(types.none, kinds)
    callee = builder.inttoptr(address, function.as_pointer())
    status, _ = context.call_conv.call_function(builder, callee, types.none, kinds, args)
    with cgutils.if_unlikely(builder, status.is_error):
        block = builder.block
        context.call_conv.return_status_propagate(builder, status)
        # As Numba marks its own raises: or it would count references around the call, which decides whether they end.
        for store in block.instructions:
            if isinstance(store, ir.instructions.StoreInstr):
                store.set_metadata("numba_exception_output", builder.module.add_metadata([ir.IntType(1)(1)]))
    return context.get_dummy_value()


def _call_address(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """IR of a call of what the first argument points at."""
    return build_call(context, builder, args[0], sig.args[1:], args[1:])


def _call_any(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """IR of a call with one more argument at first, which is only a type: it has no data, so that any will do.

    What is called raises nothing, and its status is not looked at: it is called in the innermost loops.
    """
    kinds = types.voidptr, *sig.args[1:]
    function = context.call_conv.get_function_type(types.none, kinds)
    nothing = ir.Constant(context.get_argument_type(types.voidptr), None)
    given = context.get_arg_packer(kinds).as_arguments(builder, [nothing, *args[1:]])
    result = cgutils.alloca_once(builder, function.args[0].pointee)  # None
    no_exception = ir.Constant(function.args[1], None)
    builder.call(builder.inttoptr(args[0], function.as_pointer()), [result, no_exception, *given])
    return context.get_dummy_value()


@intrinsic
def call(typingctx, address, like, first, second):
    """Call a function of ``(like, int64, int64)``."""
    return types.none(types.int64, like, types.int64, types.int64), _call_address


@intrinsic
def call_part(typingctx, address, like, first, second):
    """Call a compiled `chain.advance` or `advance_dense`, whatever its phases."""
    return types.none(types.int64, like, types.int64, types.int64), _call_any


@intrinsic
def stack(typingctx, size):
    """Return the address, a multiple of 64, of `size` bytes that last until the function returns."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        block = builder.alloca(ir.IntType(8), args[0])
        block.align = 64
        return builder.ptrtoint(block, INDEX)

    return types.int64(types.int64), codegen


@intrinsic
def call_rows(typingctx, address, like, numbers, call, work, first, every):
    """Call a compiled `layers.run_rows`, whatever its phases."""
    return types.none(types.int64, like, *[types.int64] * 5), _call_any


@intrinsic
def call_dense(typingctx, address, like, numbers, x, x_row, count, out, out_row, tile_rows, work):
    """Call a compiled `dense.run_dense`."""
    i = types.int64
    return types.none(i, like, *[i] * 8), _call_address


@intrinsic
def call_function(typingctx, address, source, target, count, group):
    """Call a compiled `dense.run_function`, whatever its Kind."""
    i, p = types.int64, source
    return types.none(i, p, p, i, p), _call_any


@intrinsic
def call_row(typingctx, address, groups, count, backwards, depth, start, apart, out, a, w):
    """Call a compiled `tile.run_row`, whatever its shape of block."""
    i, p = types.int64, start
    return types.none(i, i, i, i, i, p, p, p, p, p), _call_any


@intrinsic
def call_tile(typingctx, address, rows, groups, depth, start, start_stride, apart, out, out_stride, a, offsets, w):
    """Call a compiled `tile.run_tile`, whatever its shape of block."""
    i, p = types.int64, start
    return types.none(i, i, i, i, p, i, p, p, i, p, offsets, p), _call_any


@intrinsic
def call_columns(typingctx, address, groups, both, of_x, of_h, run, h, w_h, sums, x, w_x, w_stride, second):
    """Call a compiled `ahead.run_columns`, whatever its shape of block."""
    i, p = types.int64, run
    return types.none(i, i, i, i, i, p, p, p, p, p, p, i, i), _call_any


@intrinsic
def call_gates(
    typingctx, address, rows, first, count, sums, stride, x_sums, x_stride, cells, padded, old, old_at, new, new_at, own
):  # fmt: skip
    """Call a compiled `phases.run_gates`, whatever its phase and activation."""
    i, p = types.int64, sums
    return types.none(i, i, i, i, p, i, p, i, p, i, p, old_at, p, new_at, p), _call_any
