"""fastrnn.simd in compiled functions of users: every function and operator, in lanes of every count, against NumPy."""

from fractions import Fraction

import numpy as np
import pytest
from cases import DTYPES, same_bits

import fastrnn.reference

numba = pytest.importorskip("numba")

from fastrnn import simd  # noqa: E402

MEMORY = {"data", "load", "load_filled", "load_some", "move", "splat", "store", "store_some", "width"}
SIZES = (1, 3, 17, 100)


def fused(a, b, c):
    """a * b + c, rounded once: from exact fractions."""
    rows = np.stack(np.broadcast_arrays(a, b, c), axis=-1).tolist()
    return np.array([float(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in rows])


# Name: what users write of vectors u, v and a number x, what NumPy gives, and how many eps they may differ by.
OPERATIONS = {
    "+": (lambda u, v, x: u + v, lambda u, v, x: u + v, 0),
    "-": (lambda u, v, x: x - u - v, lambda u, v, x: x - u - v, 0),
    "*": (lambda u, v, x: u * v * x, lambda u, v, x: u * v * x, 0),
    "/": (lambda u, v, x: u / v + 1 / v, lambda u, v, x: u / v + 1 / v, 0),
    "neg": (lambda u, v, x: -u, lambda u, v, x: -u, 0),
    "fma": (lambda u, v, x: simd.fma(u, v, u), lambda u, v, x: fused(u, v, u), 0),
    "fma of numbers": (lambda u, v, x: simd.fma(x, v, 3), lambda u, v, x: fused(x, v, 3), 0),
    "absolute": (lambda u, v, x: simd.absolute(u), lambda u, v, x: np.abs(u), 0),
    "copysign": (lambda u, v, x: simd.copysign(u, v), lambda u, v, x: np.copysign(u, v), 0),
    "where_less": (lambda u, v, x: simd.where_less(u, v, x, u), lambda u, v, x: np.where(u < v, x, u), 0),
    "relu": (lambda u, v, x: simd.relu(u), lambda u, v, x: np.maximum(u, 0), 0),
    "sigmoid": (lambda u, v, x: simd.sigmoid(u), lambda u, v, x: fastrnn.reference.sigmoid(u), 4),
    "tanh": (lambda u, v, x: simd.tanh(u), lambda u, v, x: np.tanh(u), 4),
}


def compiled(operation):
    """Make a function of a user that goes through arrays by whole vectors and what is left."""
    function = numba.njit(operation)

    @numba.njit
    def user(a, b, x, out):
        p, q, target = simd.data(a), simd.data(b), simd.data(out)
        for i in range(0, len(a), simd.width(p)):
            left = len(a) - i
            u = simd.load_some(simd.move(p, i), left)
            v = simd.load_filled(simd.move(q, i), left, simd.splat(u, 1))
            simd.store_some(simd.move(target, i), function(u, v, x), left)

    return user


def vectors(n, dtype):
    a, b = np.random.default_rng(n).normal(size=(2, n)).astype(dtype) * 3
    return a, b


def test_every_function_is_here():
    assert {name.split()[0] for name in OPERATIONS if name[0] not in "+-*/n"} | MEMORY == set(simd.__all__)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name):
    operation, in_numpy, most = OPERATIONS[name]
    user, x = compiled(operation), 1.5
    for dtype in DTYPES:
        for n in SIZES:
            a, b = vectors(n, dtype)
            out = np.full(n + 2, 7, dtype)
            user(a, b, x, out)
            wanted, eps = np.asarray(in_numpy(a, b, x), dtype), np.finfo(dtype).eps
            if most:
                np.testing.assert_allclose(out[:n], wanted, rtol=most * eps, atol=0)
            else:
                assert same_bits(out[:n], wanted)
            assert (out[n:] == 7).all()
            np.testing.assert_allclose(operation(a, b, dtype(x)), wanted, rtol=4 * eps, atol=100 * eps)


def test_fma_rounds_once():
    for dtype in DTYPES:
        a, b = vectors(100, dtype)
        assert not same_bits((a * b + a).astype(dtype), fused(a, b, a).astype(dtype))


@pytest.mark.parametrize("name", ["absolute", "copysign", "neg", "relu", "sigmoid", "tanh", "where_less"])
def test_numbers_that_are_not_finite(name):
    operation, in_numpy, most = OPERATIONS[name]
    user = compiled(operation)
    for dtype in DTYPES:
        a = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, np.nan], dtype)
        b = np.array([1.0, np.nan, np.inf, -1.0, -0.0, np.nan, np.nan], dtype)
        out = np.empty_like(a)
        user(a, b, 1.5, out)
        np.testing.assert_allclose(out, in_numpy(a, b, 1.5), rtol=most * np.finfo(dtype).eps)
        if name in ("absolute", "copysign", "neg", "tanh"):
            assert (np.signbit(out) == np.signbit(in_numpy(a, b, 1.5)))[~np.isnan(a)].all()


@numba.njit
def read(a, n, other, some, filled, whole):
    """The three ways to read a vector, written as a whole; returns its width."""
    p = simd.data(a)
    simd.store(simd.data(some), 1, simd.load_some(p, n))
    simd.store(simd.data(filled), 1, simd.load_filled(p, n, simd.splat(simd.load(p, 0), other)))
    simd.store(simd.data(whole), 1, simd.load(p, 1))
    return simd.width(p)


def test_lanes_that_are_not_read():
    for dtype in DTYPES:
        a = np.arange(1, 20, dtype=dtype)
        for n in range(19):
            some, filled, whole = np.full((3, 20), -1, dtype)
            wide = read(a, n, 3, some, filled, whole)
            inside = np.arange(wide) < n
            assert wide in (2, 4, 8, 16)
            assert same_bits(some[1 : wide + 1], np.where(inside, a[:wide], dtype(0)))
            assert same_bits(filled[1 : wide + 1], np.where(inside, a[:wide], dtype(3)))
            assert same_bits(whole[1 : wide + 1], a[1 : wide + 1])
            for array in (some, filled, whole):
                assert array[0] == -1
                assert (array[wide + 1 :] == -1).all()
