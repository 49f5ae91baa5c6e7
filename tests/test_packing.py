"""Packed blocks against the written formula of their layout."""

import os
from concurrent.futures import ThreadPoolExecutor

import cases
import numpy as np
import pytest

from fastrnn.cells import GROUP_BYTES, VARIANTS, lanes
from fastrnn.packing import PackedPhase, aligned_zeros, pack, unpack
from fastrnn.weights import Weights, fold_biases, init_weights

ONE_LAYER = [case for case in cases.CASES if (case.num_layers, case.num_directions) == (1, 1)]


def offset(unit: int, gate: int, k: int, units: int, gates: int, columns: int, per_block: int, width: int) -> int:
    groups = -(-units // width)
    group, lane = divmod(unit, width)
    block, place = divmod(group, per_block)
    in_block = min(per_block, groups - block * per_block)
    return block * per_block * columns * gates * width + ((k * in_block + place) * gates + gate) * width + lane


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("case", ONE_LAYER, ids=str)
def test_every_element_lies_where_the_formula_says(case, dtype):
    (w,) = init_weights(case.sizes, dtype, seed=1)
    variant, h, width = VARIANTS[case.variant], case.hidden_size, lanes(dtype)
    b, b_h = fold_biases(case.variant, w)
    for phase, packed in zip(variant.phases, pack(case.variant, w, dtype), strict=True):
        if phase.operand == "m":
            units, gates, w_x, w_h, bias = case.proj_size, 1, None, w.w_hr[None], np.zeros((1, case.proj_size), dtype)
        else:
            units, gates, rows = h, len(phase.gates), list(phase.gates)
            w_x, w_h, bias = (a.reshape(-1, h, *a.shape[1:])[rows] for a in (w.w_ih, w.w_hh, b))
        padded = -(-units // width) * width
        for logical, flat in ((w_x, packed.w_x), (w_h, packed.w_h)):
            if logical is None:
                assert flat.size == 0
                continue
            columns = logical.shape[2]
            expected = np.zeros(padded * gates * columns, dtype)
            for unit in range(units):
                for gate in range(gates):
                    for k in range(columns):
                        index = offset(unit, gate, k, units, gates, columns, phase.groups, width)
                        expected[index] = logical[gate, unit, k]
            assert cases.same_bits(flat, expected)
        expected = np.zeros(padded * gates, dtype)
        for unit in range(units):
            for gate in range(gates):
                expected[(unit // width * gates + gate) * width + unit % width] = bias[gate, unit]
        assert cases.same_bits(packed.b, expected)
        if variant.apart is None:
            assert packed.b_h.size == 0
        else:
            assert cases.same_bits(packed.b_h, np.concatenate([b_h, np.zeros(padded - units, dtype)]))


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("case", ONE_LAYER, ids=str)
def test_arrays_are_aligned_and_read_only(case, dtype):
    (w,) = init_weights(case.sizes, dtype)
    for packed in pack(case.variant, w, dtype):
        for array in packed:
            assert array.ndim == 1
            assert array.dtype == dtype
            assert array.ctypes.data % GROUP_BYTES == 0
            assert not array.flags.writeable


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("case", ONE_LAYER, ids=str)
def test_unpack_inverts_pack(case, dtype):
    (w,) = init_weights(case.sizes, dtype)
    packed = pack(case.variant, w, dtype)
    back = unpack(case.variant, packed, case.input_size, case.hidden_size, case.proj_size)
    assert cases.same_bits(back.w_ih, w.w_ih)
    assert cases.same_bits(back.w_hh, w.w_hh)
    assert (back.w_hr is None) if w.w_hr is None else cases.same_bits(back.w_hr, w.w_hr)
    for field, again in zip(PackedPhase._fields, zip(*pack(case.variant, back, dtype), strict=True), strict=True):
        for a, p in zip(again, packed, strict=True):
            assert cases.same_bits(a, getattr(p, field))


def test_biases_are_added_in_the_packed_dtype():
    one, tiny = np.array([1.0]), np.array([2.0**-40])
    w = Weights(np.zeros((1, 1)), np.zeros((1, 1)), one, tiny)
    assert pack("rnn", w, np.float64)[0].b[0] == 1 + 2.0**-40
    assert pack("rnn", w, np.float32)[0].b[0] == 1
    w = Weights(np.zeros((3, 1)), np.zeros((3, 1)), np.arange(3.0), 10 * np.arange(3.0))
    after = pack("gru", w, np.float64)[0]
    assert after.b.reshape(3, 8)[:, 0].tolist() == [0, 11, 2]
    assert after.b_h[0] == 20
    reset, new = pack("gru_before", w, np.float64)
    assert reset.b.reshape(2, 8)[:, 0].tolist() == [0, 11]
    assert new.b[0] == 22


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_aligned_zeros(size):
    for dtype in cases.DTYPES:
        array = aligned_zeros(size, dtype)
        assert array.shape == (size,)
        assert array.dtype == dtype
        assert array.ctypes.data % GROUP_BYTES == 0
        assert not array.any()


def test_large_arrays_share_pages_and_nothing_else():
    """Written ones do not show in those that come later, from several threads too."""

    def fill(value):
        arrays = [aligned_zeros(size, np.float32) for size in (40_000, 700_000, 33_001) for _ in range(8)]
        assert not any(array.any() for array in arrays)
        for k, array in enumerate(arrays):
            array[:] = 100 * value + k + 1
        return [(array, 100 * value + k + 1) for k, array in enumerate(arrays)]

    with ThreadPoolExecutor(4) as pool:
        filled = [pair for pairs in pool.map(fill, range(16)) for pair in pairs]
    assert all((array == value).all() and array.ctypes.data % GROUP_BYTES == 0 for array, value in filled)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_dropped_arrays_give_their_pages_back():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    for _ in range(200):
        aligned_zeros(500_000, np.float32)[:] = 1  # 400 MB in all
    assert resident() - before < 100e6
