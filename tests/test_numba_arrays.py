"""What the Numba backend's entry points are passed: arrays of any axes and strides, and workspace."""

import sys

import numpy as np
import pytest

pytest.importorskip("numba")
from cases import Case, make_inputs, make_plan, results, same_bits
from numba.core import types

from fastrnn import _native, numba_kernels
from fastrnn.cells import VARIANTS
from fastrnn.numba_kernels.arrays import GivenType, place, size, step
from fastrnn.numba_kernels.calls import compiled
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.layers import STACK_BYTES, work_bytes
from fastrnn.numba_kernels.simd import address


@njit()
def describe(array, axes, out):
    found = place(out)
    found[0] = address(place(array))
    for axis in range(axes):
        found[1 + axis], found[4 + axis] = size(array, axis), step(array, axis)


def make_arrays():
    base = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    frozen = base.copy()
    frozen.flags.writeable = False
    return {
        "contiguous": base,
        "transposed": base.transpose(1, 0, 2),
        "reversed": base[::-1],
        "every other": base[:, ::2, 1:],
        "empty": base[:0],
        "repeated": np.broadcast_to(base[0], (7, 4, 5)),
        "read-only": frozen,
        "of two axes": base[1],
        "of one": base[1, 2],
        "a subclass": base.view(type("Own", (np.ndarray,), {})),
    }


@pytest.mark.parametrize("name", make_arrays())
def test_an_entry_point_sees_an_array_as_numpy_does(name):
    array, numbers = make_arrays()[name], np.zeros(7, np.int64)
    held = sys.getrefcount(array)
    compiled(describe, GivenType(types.float32), types.int64, GivenType(types.int64))(array, array.ndim, numbers)
    assert numbers[0] == array.ctypes.data
    assert tuple(numbers[1 : 1 + array.ndim]) == array.shape
    assert tuple(4 * numbers[4 : 4 + array.ndim]) == array.strides
    assert sys.getrefcount(array) == held


def test_a_memmap_is_read_in_place(tmp_path):
    array = np.memmap(tmp_path / "x", np.float32, "w+", shape=(3, 4))
    numbers = np.zeros(7, np.int64)
    compiled(describe, GivenType(types.float32), types.int64, GivenType(types.int64))(array, 2, numbers)
    assert numbers.tolist() == [array.ctypes.data, 3, 4, 0, 4, 1, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", ["rnn", "lstm", "lstm_proj", "gru", "gru_before"])
def test_a_single_step_keeps_within_its_share_of_the_stack(variant, dtype):
    """On memory of ours, behind which nothing may change, and by `run` with as many rows as the stack has room for."""
    case = Case(variant, VARIANTS[variant].activations[0], 9, 37, 1, 1, steps=1, batch=1)
    plan = make_plan(case, dtype)
    fixed, one = (work_bytes(variant, rows, 37, plan.dtype.itemsize, single=True) for rows in (0, 1))
    most = (STACK_BYTES - fixed) // (one - fixed)
    assert most > 20
    run = numba_kernels.prepare(plan)
    for batch in (1, most, most + 1):
        case = case._replace(batch=batch)
        x, state = make_inputs(case, dtype)
        expected = results(plan, _native.Engine(plan), x, state, None)
        got = results(plan, run, x, state, None)
        assert same_bits(got[0], expected[0])
        assert all(map(same_bits, got[1], expected[1]))
        size = fixed + (one - fixed) * batch
        memory = np.full(size + 4096, 77, np.uint8)
        start = -memory.ctypes.data % 64
        y, out = np.empty_like(got[0]), tuple(np.empty_like(s) for s in state)
        numbers, plain = numba_kernels._addresses(plan), np.zeros(7, np.int64)
        call = numba_kernels._compiled(len(state), dtype)
        call(numbers.ctypes.data, x, state, y, out, plain.ctypes.data, memory.ctypes.data + start)
        assert same_bits(y, expected[0])
        assert (memory[start + size :] == 77).all()
        assert (memory[:start] == 77).all()
