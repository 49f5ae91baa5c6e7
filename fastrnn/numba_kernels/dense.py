"""Dense layers, f(b + W x), and the functions of a row: as in src_kernels/dense.h. Entry points."""

from collections import namedtuple

import numpy as np

from fastrnn.numba_kernels.activations import activation, exp_minus, log_reduced, to_normal
from fastrnn.numba_kernels.door import njit, overload
from fastrnn.numba_kernels.gemm import Rows, project
from fastrnn.numba_kernels.rnn import RNN
from fastrnn.numba_kernels.simd import (
    constant_of,
    data,
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

__all__ = ["activate", "dense", "run_activation", "run_dense"]

_LOG_SPLIT = 2.0**0.5  # the larger half of the significands is halved once more
_MOST_HALVINGS = 64  # no total is larger than a count of numbers; an infinite one ends too

Matrix = namedtuple("Matrix", "w_x b buffer inputs hidden")
"""What `project` reads of a phase's weights and of a job: pointers, and K and V."""

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
def dense(kind, matrix, x, rows, out, out_stride, group):
    """Write f(b + W x) for some rows, whose sums the matrix's buffer holds."""
    n = lanes(group)
    padded = (matrix.hidden + n - 1) // n * n
    project(RNN, matrix, matrix, x, rows)
    for row in range(rows):
        activate(kind, move(matrix.buffer, row * padded), move(out, row * out_stride), matrix.hidden, group)


@njit(cache=True)
def run_dense(kind, addresses, x, out, tile, work):
    """Run all rows, `tile` of them at a time; `work` is for a group, their sums and their offsets."""
    table = integers(addresses)
    like = data(x)
    x_row, out_row = x.strides[0] // x.itemsize, out.strides[0] // out.itemsize
    group = pointer(like, work)
    sums = move(group, lanes(like))
    padded = (table[1] + lanes(like) - 1) // lanes(like) * lanes(like)
    offsets = integers(work + (lanes(like) + tile * padded) * x.itemsize)
    matrix = Matrix(pointer(like, table[2]), pointer(like, table[3]), sums, table[0], table[1])
    for first in range(0, x.shape[0], tile):
        rows = min(tile, x.shape[0] - first)
        for i in range(rows):
            offsets[i] = (first + i) * x_row
        dense(kind, matrix, Rows(like, offsets), rows, move(data(out), first * out_row), out_row, group)


@njit(cache=True)
def run_activation(kind, x, out, work):
    """Write a function of the rows of x, which may be out; `work` is for a group."""
    size, group = x.shape[1], pointer(data(x), work)
    for row in range(x.shape[0]):
        activate(kind, move(data(x), row * size), move(data(out), row * size), size, group)
