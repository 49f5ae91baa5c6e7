r"""Vectors of the processor inside functions that Numba compiles: what fastrnn's own Numba kernels are written in.

A vector holds as many float32 or float64 as a register of the processor: `width` of them. Memory is a pointer to an
array's elements and an index, without checks. Needs the extra ``numba``.

==========================================  ===========================================================================
``data(a)``                                 pointer to the first element of an array, to be named after its last use
``move(p, n)``                              pointer n elements further
``width(p)``                                elements of a vector, for what p points at: a constant
``load(p, i)``, ``store(p, i, v)``          the vector that starts at p[i]
``load_some(p, n)``, ``store_some(p, v, n)``  the first n elements of a vector, or all if n is larger; the others are +0
``load_filled(p, n, v)``                    the same, with the others taken from v
``splat(v, x)``                             a vector like v with the number x in every lane
``a + b``, ``a - b``, ``a * b``, ``a / b``, ``-a``  lane by lane, as is what follows; some of a, b, c may be numbers
``fma(a, b, c)``                            a * b + c, rounded once
``absolute(a)``, ``copysign(a, b)``         \|a\|; \|a\| with the signs of b
``where_less(a, b, yes, no)``               a < b ? yes : no, lane by lane; false where either is NaN
``sigmoid(a)``, ``tanh(a)``, ``relu(a)``    with the bits of fastrnn's layers
==========================================  ===========================================================================

From ``a + b`` on, all of these also take NumPy arrays in plain Python, where ``fma`` rounds twice.

Every operation rounds once and follows IEEE 754, on every processor alike: lanes do not meet, so that no width of a
register shows in the bits. ``fastmath=True`` on your function does not reach them. A function in Numba's disk cache
keeps the operations that it was compiled with.

Examples
--------
The sum of products in a fixed order, so that its bits are the same on every processor: 64 bytes of lanes, each of which
adds every sixteenth term, and then one lane after the other.

>>> import numba, numpy as np
>>> from fastrnn import simd
>>> @numba.njit
... def dot(a, b):
...     p, q, wide = simd.data(a), simd.data(b), simd.width(simd.data(a))
...     lanes = np.zeros(16, np.float32)
...     for first in range(0, 16, wide):  # all 16 lanes, in as many registers as that takes
...         total = simd.load(simd.data(lanes), first)
...         for i in range(first, len(a), 16):
...             left = len(a) - i
...             total = simd.fma(simd.load_some(simd.move(p, i), left), simd.load_some(simd.move(q, i), left), total)
...         simd.store(simd.data(lanes), first, total)
...     for lane in lanes[1:]:
...         lanes[0] += lane
...     return lanes[0]
>>> a = np.arange(100, dtype=np.float32)
>>> dot(a, a)
328350.0
"""

try:
    from fastrnn.numba_kernels.simd import (
        absolute,
        copysign,
        data,
        fma,
        load,
        load_filled,
        load_some,
        move,
        splat,
        store,
        store_some,
        where_less,
        width,
    )
except ImportError as error:
    raise ImportError(f"fastrnn.simd needs Numba ({error}): pip install 'fastrnn[numba]'") from error
from fastrnn.numba_kernels.activations import relu, sigmoid, tanh

__all__ = [
    "absolute",
    "copysign",
    "data",
    "fma",
    "load",
    "load_filled",
    "load_some",
    "move",
    "relu",
    "sigmoid",
    "splat",
    "store",
    "store_some",
    "tanh",
    "where_less",
    "width",
]
