"""Packed weights as values of compiled code: what `fastrnn.jit.pack` makes, and its Numba type."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.errors import TypingError
from numba.core.extending import intrinsic, register_model, typeof_impl, unbox
from numba.core.imputils import lower_constant

from fastrnn.numba_kernels import dense_address, prepare, prepare_dense, rows_address
from fastrnn.numba_kernels.calls import address_of
from fastrnn.numba_kernels.dense import DENSE_GROUPS, DENSE_TILE_ROWS
from fastrnn.numba_kernels.door import STAMP
from fastrnn.numba_kernels.forward import phases_of
from fastrnn.numba_kernels.inside import forward_all, refuse, reset_all, step_rows
from fastrnn.numba_kernels.layers import work_bytes
from fastrnn.numba_kernels.simd import GROUP_BYTES, INDEX
from fastrnn.numba_kernels.stepping import FIXED_BYTES, Chain, Part

__all__ = ["Packed", "PackedType", "check_packed", "numbers_of", "table_of"]

_STACK_BYTES = 1 << 16  # that a step takes of the stack, if more than one row is in it,
_ROW_BYTES = 1 << 18  # and that one row may take: some threads have stacks of 512 KB


class _Owner:
    """The base of an array of addresses, and what they point into: compiled code may keep the array alone."""

    def __init__(self, numbers: np.ndarray, kept: list[Any]) -> None:
        self.numbers, self.kept, self.__array_interface__ = numbers, kept, numbers.__array_interface__


class Packed:
    """Weights in the order of kernels, for functions that Numba compiles: see `fastrnn.jit.pack`.

    Attributes
    ----------
    dtype : dtype
        Of weights, inputs, states and results.
    input_size, output_size : int
        I and V.
    """

    def __init__(
        self,
        plans: Sequence[Any],
        initial: Sequence[tuple[np.ndarray, ...] | None],
        is_model: bool,
        ids: np.ndarray | None,
        embedding: Any,
        description: str,
    ) -> None:
        """`plans` of layers and dense layers; `initial` states (L*D, R or H) of each layer; rows that `ids` number."""
        runners = [prepare(plan) if hasattr(plan, "variant") else prepare_dense(plan) for plan in plans]
        chain = Chain([run.part for run in runners])
        first = plans[0]
        self._kept: list[Any] = [runners, chain, initial, ids]
        if ids is not None and hasattr(first, "variant"):
            by_ids = replace(first, embedding=embedding)
            by_ids.__dict__["packed"] = first.packed  # which both need
            run = prepare(by_ids)
            chain.read_ids(run)
            self._kept.append(run)
        self.dtype, self.input_size, self.output_size = chain.dtype, first.input_size, chain.output_size
        self._description = description
        layers = [plan for plan in plans if hasattr(plan, "variant")]
        self._type = PackedType(
            chain.dtype.name, tuple(len(plan.state_sizes) for plan in layers), is_model, ids is not None
        )
        self._table = self._numbers(chain, ids, layers, initial)

    def _numbers(
        self,
        chain: Chain,
        ids: np.ndarray | None,
        layers: Sequence[Any],
        initial: Sequence[tuple[np.ndarray, ...] | None],
    ) -> np.ndarray:
        itemsize, number = chain.dtype.itemsize, getattr(types, chain.dtype.name)
        forward = np.array([_forward(part, by_ids) for part, by_ids in zip(chain.parts, chain.by_ids, strict=True)])
        fixed = FIXED_BYTES + 8 * GROUP_BYTES
        row_bytes = 2 * chain.widest * itemsize + max(part.row_bytes for part in chain.parts)
        row_bytes += 16 + self.input_size * itemsize
        entries = [
            *(_function(entry, number) for entry in (step_rows, forward_all, reset_all)),
            _function(refuse, types.int64),  # whatever the weights' dtype
            chain.address,
            self.input_size,
            self.output_size,
            0 if ids is None else len(ids),
            0 if ids is None else ids.ctypes.data,
            0 if ids is None else ids.strides[0] // itemsize,
            fixed,
            row_bytes,
            max(int(fixed + row_bytes <= _ROW_BYTES), (_STACK_BYTES - fixed) // row_bytes),
            int(any(plan.num_directions == 2 for plan in layers)),
            max(self.input_size, *(part.plan.output_size for part in chain.parts)),
            len(layers),
            len(chain.parts),
            forward.ctypes.data,
        ]
        for plan, start in zip(layers, initial, strict=True):
            sizes = (*plan.state_sizes, 0)[:2]
            starts = (0, 0) if start is None else (*(s.ctypes.data for s in start), 0)[:2]
            entries += [plan.num_layers * plan.num_directions, *sizes, *starts]
        self._kept.append(forward)
        return np.asarray(_Owner(np.array(entries, np.int64), self._kept))

    def __repr__(self) -> str:
        return f"<packed {self._description}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "packed weights hold addresses of this process: pickle the layer or the model, and pack it again"
        )


def _forward(part: Part, by_ids: int) -> list[int]:
    """What `forward_all` reads of a part."""
    plan, name = part.plan, part.plan.dtype.name
    if part.is_dense:
        function = dense_address(name)
        sizes = -1, plan.output_size, DENSE_GROUPS * GROUP_BYTES + 8 * DENSE_TILE_ROWS, 0
    else:
        function = rows_address(len(phases_of(plan.variant)), name)
        of_rows = [work_bytes(plan.variant, rows, plan.hidden_size, plan.dtype.itemsize) for rows in (0, 1)]
        sizes = by_ids, plan.output_size, of_rows[0], of_rows[1] - of_rows[0]
    return [function, part.numbers.ctypes.data, *sizes]


@cache
def _function(entry: Any, number: types.Number) -> int:
    return address_of(entry, types.CPointer(number), types.int64, types.int64)


class PackedType(types.Type):
    """The type of packed weights. Its name has the kernels' stamp: a user's cached function is of one version."""

    def __init__(self, dtype: str, states: tuple[int, ...], is_model: bool, has_ids: bool) -> None:
        self.dtype, self.states, self.is_model, self.has_ids = getattr(types, dtype), states, is_model, has_ids
        super().__init__(name=f"fastrnn.Packed({dtype}, {states}, {is_model}, {has_ids}, {STAMP})")


_TABLE = types.Array(types.int64, 1, "C")


@register_model(PackedType)
class _PackedModel(models.StructModel):
    def __init__(self, dmm: Any, fe_type: PackedType) -> None:
        super().__init__(dmm, fe_type, [("table", _TABLE)])


@typeof_impl.register(Packed)
def _typeof_packed(value: Packed, c: Any) -> PackedType:
    return value._type


@unbox(PackedType)
def _unbox_packed(kind: PackedType, value: Any, c: Any) -> Any:
    found = c.pyapi.object_getattr_string(value, "_table")
    native = c.unbox(_TABLE, found)
    c.pyapi.decref(found)
    packed = cgutils.create_struct_proxy(kind)(c.context, c.builder)
    packed.table = native.value
    return type(native)(packed._getvalue(), is_error=native.is_error)


_frozen: list[Packed] = []  # globals of compiled functions: their addresses are in the code


@lower_constant(PackedType)
def _constant_packed(context: Any, builder: Any, kind: PackedType, value: Packed) -> Any:
    """A global: Numba freezes it, and a dynamic address keeps the function out of the disk cache."""
    _frozen.append(value)
    array = context.make_array(_TABLE)(context, builder)
    start = context.add_dynamic_addr(builder, value._table.ctypes.data, "fastrnn.jit.pack")
    array.data = builder.bitcast(start, array.data.type)
    array.itemsize = INDEX(8)
    array.nitems = INDEX(len(value._table))
    array.shape = cgutils.pack_array(builder, [INDEX(len(value._table))])
    array.strides = cgutils.pack_array(builder, [INDEX(8)])
    packed = cgutils.create_struct_proxy(kind)(context, builder)
    packed.table = array._getvalue()
    return packed._getvalue()


def check_packed(w: Any) -> None:
    """Refuse what is no packed weights, when a caller is compiled."""
    if not isinstance(w, PackedType):
        raise TypingError(f"w must be packed weights, got {w}: call jit.pack(layer) in Python and pass its result")


def table_of(context: Any, builder: Any, kind: PackedType, value: Any) -> Any:
    """IR that points at the numbers of packed weights."""
    table = cgutils.create_struct_proxy(kind)(context, builder, value).table
    return context.make_array(_TABLE)(context, builder, table).data


@intrinsic
def numbers_of(typingctx, packed):
    """Point at the numbers of packed weights."""
    check_packed(packed)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return table_of(context, builder, packed, args[0])

    return types.CPointer(types.int64)(packed), codegen
