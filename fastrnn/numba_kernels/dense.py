"""Dense layers, f(b + W x), and the functions of a row: as in src_kernels/dense.h. Entry points."""

from collections import namedtuple
from functools import cache

import numpy as np
from numba.core import types

from fastrnn.numba_kernels.activations import activation, exp_minus, log_reduced, to_normal
from fastrnn.numba_kernels.arrays import place, size, step
from fastrnn.numba_kernels.calls import address_of, call_dense, call_function
from fastrnn.numba_kernels.door import njit, overload
from fastrnn.numba_kernels.gemm import Rows
from fastrnn.numba_kernels.kind import KindType
from fastrnn.numba_kernels.rnn import RNN
from fastrnn.numba_kernels.simd import (
    GROUP_BYTES,
    address,
    constant_of,
    integers,
    lanes,
    load,
    load_filled,
    load_some,
    move,
    pointer,
    splat,
    store,
    store_some,
    where_less,
    width,
)
from fastrnn.numba_kernels.tile import MOST_ROWS, height, sum_tile, tile_count

__all__ = [
    "DENSE_GROUPS",
    "DENSE_TILE_ROWS",
    "activate",
    "dense",
    "function_address",
    "matrix_at",
    "run_activation",
    "run_dense",
    "run_dense_call",
    "run_function",
]

_LOG_SPLIT = 2.0**0.5  # the larger half of the significands is halved once more
_MOST_HALVINGS = 64  # no total is larger than a count of numbers; an infinite one ends too

_BLOCK = RNN.groups

DENSE_TILE_ROWS = 48
"""Rows at a time, at most."""

DENSE_GROUPS = 1 + MOST_ROWS * _BLOCK
"""Groups of workspace that `dense` takes: one for the virtual lanes, and the sums of a tile."""

Matrix = namedtuple("Matrix", "w b inputs outputs row tile most function is_linear")
"""Pointers to packed weights; K and V; what `sum_tile` calls, and the rows of the highest tile; what `call_function`
calls, and whether that only copies."""

_is_log = constant_of(lambda kind: kind.activation == "log_softmax")


@njit(forceinline=True)
def _maximum(a, b):
    """a > b ? a : b, as x86 has it."""
    return where_less(b, a, a, b)


@njit(forceinline=True)
def _halves(group, largest):
    """Reduce the lanes of a group in halves: 8 and 8, 4 and 4, .."""
    half = lanes(group) // 2
    while half:
        for j in range(half):
            a, b = group[j], group[j + half]
            if largest:
                group[j] = a if a > b else b
            else:
                group[j] = a + b
        half //= 2
    return group[0]


@njit(forceinline=True)
def _log(like, x):
    """ln x for x >= 1, in every lane of a vector like `like`. Halving is exact."""
    f, k = float(x), 0
    while f > _LOG_SPLIT and k < _MOST_HALVINGS:
        f *= 0.5
        k += 1
    return log_reduced(splat(like, f), splat(like, k))


@njit()
def softmax(kind, source, target, count, group):
    """Write softmax or log_softmax of one row, which may be its own target; `group` is for the virtual lanes."""
    n, wide = lanes(source), width(source)
    lowest = splat(load(group, 0), -np.inf)
    for lane in range(0, n, wide):
        largest = lowest
        for i in range(lane, count, n):
            largest = _maximum(largest, load_filled(move(source, i), count - i, lowest))
        store(group, lane, largest)
    top = splat(lowest, _halves(group, True))
    for lane in range(0, n, wide):
        total = splat(lowest, 0.0)
        for i in range(lane, count, n):
            e = exp_minus(top - load_filled(move(source, i), count - i, lowest))
            total = total + e
            if not _is_log(kind):
                store_some(move(target, i), e, count - i)
        store(group, lane, total)
    total = _halves(group, False)
    if _is_log(kind):
        by = _log(lowest, total)
        for i in range(0, count, wide):
            store_some(move(target, i), load_some(move(source, i), count - i) - top - by, count - i)
    else:
        by = splat(lowest, total)
        for i in range(0, count, wide):
            store_some(move(target, i), to_normal(load_some(move(target, i), count - i) / by), count - i)


@njit()
def pointwise(kind, source, target, count, group):
    """Write a function of the numbers of a row one by one."""
    for i in range(0, count, width(source)):
        store_some(move(target, i), activation(kind, load_some(move(source, i), count - i)), count - i)


def activate(kind, source, target, count, group):
    """Write the function of a Kind of one row, which may be its own target."""


@overload(activate)
def _activate(kind, source, target, count, group):
    of_row = softmax if kind.activation in ("softmax", "log_softmax") else pointwise

    def call(kind, source, target, count, group):
        of_row(kind, source, target, count, group)

    return call


@njit()
def dense(matrix, x, rows, out, out_stride, group):
    """Write f(b + W x) for some rows.

    Sums are written where results belong, but those of a padded block behind `group`. Those of a row of one block are
    read there: a masked store would keep the loads after it waiting.
    """
    n, wide = lanes(group), width(group)
    groups = (matrix.outputs + n - 1) // n
    sums, null = move(group, n), pointer(group, 0)
    for q in range(0, groups, _BLOCK):
        here = min(_BLOCK, groups - q)
        left = matrix.outputs - q * n
        b, w = move(matrix.b, q * n), move(matrix.w, q * n * matrix.inputs)
        row, tiles = 0, tile_count(rows, matrix.most)
        while row < rows:
            m = height(rows - row, tiles)
            target, offsets = move(out, row * out_stride + q * n), move(x.offsets, row)
            whole = left >= here * n and groups > _BLOCK
            to, stride = (target, out_stride) if whole else (sums, here * n)
            sum_tile(matrix.row, matrix.tile, m, here, matrix.inputs, b, 0, null, to, stride, x.base, offsets, w)
            for j in range(0 if whole else m):
                if q == 0:
                    call_function(matrix.function, move(sums, j * stride), move(target, j * out_stride), left, group)
                else:
                    for k in range(0, left, wide):
                        store_some(move(target, j * out_stride + k), load(sums, j * stride + k), left - k)
            row += m
            tiles -= 1
    if not matrix.is_linear and groups > _BLOCK:
        for row in range(rows):
            at = move(out, row * out_stride)
            call_function(matrix.function, at, at, matrix.outputs, group)


@njit(forceinline=True)
def matrix_at(like, table):
    """The matrix that the numbers of a dense layer describe."""
    w, b = pointer(like, table[2]), pointer(like, table[3])
    return Matrix(w, b, table[0], table[1], table[4], table[5], table[6], table[7], table[8] != 0)


@njit(cache=True)
def run_dense(like, addresses, x, x_row, count, out, out_row, tile_rows, work):
    """Run `count` rows, `tile_rows` of them at a time; `work` is for `DENSE_GROUPS` and their offsets."""
    table = integers(addresses)
    offsets = integers(work + DENSE_GROUPS * GROUP_BYTES)
    matrix = matrix_at(like, table)
    source, target, group = pointer(like, x), pointer(like, out), pointer(like, work)
    for first in range(0, count, tile_rows):
        rows = min(tile_rows, count - first)
        for i in range(rows):
            offsets[i] = (first + i) * x_row
        dense(matrix, Rows(source, offsets), rows, move(target, first * out_row), out_row, group)


@njit(cache=True)
def run_dense_call(run, addresses, x, out, tile_rows, work):
    """Do `run_dense`, compiled and at the address `run`, with all rows of x (N, K) and out (N, V)."""
    given, written = address(place(x)), address(place(out))
    call_dense(run, place(x), addresses, given, step(x, 0), size(x, 0), written, step(out, 0), tile_rows, work)


@njit(cache=True)
def run_function(kind, source, target, count, group):
    """Write the function of a Kind of one row, which may be its own target; `group` is for the virtual lanes."""
    activate(kind, source, target, count, group)


@cache
def function_address(activation: str, dtype: str) -> int:
    """Compile a function of a row; return what `calls.call_function` calls."""
    floats = types.CPointer(getattr(types, dtype))
    return address_of(run_function, KindType(activation), floats, floats, types.int64, floats)


@njit(cache=True)
def run_activation(function, x, out, work):
    """Write a function of the rows of x (N, V), C-contiguous as is out, which may be x; `work` is for a group."""
    source, target, count = place(x), place(out), size(x, 1)
    for row in range(size(x, 0)):
        call_function(function, move(source, row * count), move(target, row * count), count, pointer(source, work))
