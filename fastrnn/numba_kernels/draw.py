"""The draw of a token from logits, as in src_kernels/_draw.pxi; fastrnn/sampling.py describes it, in NumPy."""

from collections import namedtuple

import numpy as np

from fastrnn.numba_kernels.dense import activate
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.kind import Kind
from fastrnn.numba_kernels.simd import address, integers, itemsize, move

__all__ = ["PLACES", "Sampling", "pick"]

PLACES = 257
"""Numbers of workspace that `pick` sorts with."""

Sampling = namedtuple("Sampling", "temperature top_k top_p")

_SOFTMAX = Kind("softmax")
_FIRST_FACTOR, _SECOND_FACTOR = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_27, _30, _31, _11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)  # an int would make the result a float


@njit()
def _mixed(z):
    """SplitMix64's output function."""
    z = (z ^ (z >> _30)) * _FIRST_FACTOR
    z = (z ^ (z >> _27)) * _SECOND_FACTOR
    return z ^ (z >> _31)


@njit()
def _uniform(seed, count):
    """Number `count` of SplitMix64 from the state mixed(seed): a multiple of 2^-53 in [0, 1)."""
    return np.float64(_mixed(_mixed(seed) + np.uint64(count + 1) * _GOLDEN) >> _11) * 2.0**-53


@njit()
def _digit(p, token, shift):
    """A byte of a probability; of a larger one it is smaller, if the bytes above are equal."""
    at = token * itemsize(p)
    return 255 - (integers(address(p))[at >> 3] >> ((at & 7) * 8 + shift) & 255)


@njit()
def _rank(p, size, least, order, places):
    """Write the tokens that are as probable as `least`, or more, to order, the most probable first; return how many.

    Of equals the first one is first. A radix sort: byte by byte, from the lowest one on.
    """
    count = 0
    for i in range(size):
        order[count] = i
        count += int(p[i] >= least)
    given, spare = order, move(order, size)
    for shift in range(0, 8 * itemsize(p), 8):
        for k in range(PLACES):
            places[k] = 0
        for i in range(count):
            places[1 + _digit(p, given[i], shift)] += 1
        for k in range(256):
            places[k + 1] += places[k]
        for i in range(count):
            k = _digit(p, given[i], shift)
            spare[places[k]] = given[i]
            places[k] += 1
        given, spare = spare, given
    return count


@njit()
def _reached_by(p, size, count):
    """A number that `count` tokens reach, and few others.

    Of so many stretches each one has a largest, and this is the least of them.
    """
    least = np.float64(1)
    for k in range(count):
        largest = np.float64(0)
        for i in range(size * k // count, size * (k + 1) // count):
            largest = max(largest, np.float64(p[i]))
        least = min(least, largest)
    return least


@njit()
def _draw(p, size, how, u, order, places):
    """Where u times the sum of what may be drawn lies; ids in order, or in that of falling probability if some may not.

    Sums are of float64, one term after the other.
    """
    kept = min(how.top_k, size) if how.top_k else size
    few = kept < size
    cut = few or how.top_p < 1
    ranked, total = 0, 0.0
    if few:
        ranked = _rank(p, size, _reached_by(p, size, kept), order, places)
    for i in range(kept):
        total += np.float64(p[order[i] if few else i])
    if how.top_p < 1:
        if not few:  # those below make up half of what may be left out
            ranked = _rank(p, size, (1 - how.top_p) * total / (2 * size), order, places)
        enough, reached = how.top_p * total, 0.0
        for i in range(kept):
            if i == ranked:  # but for what sums are rounded by
                ranked = _rank(p, size, 0.0, order, places)
            reached += np.float64(p[order[i]])
            if reached >= enough:
                kept, total = i + 1, reached
                break
    reached, chosen = 0.0, 0
    for i in range(kept):
        token = order[i] if cut else i
        reached += np.float64(p[token])
        if p[token] > 0:
            chosen = token
        if reached > u * total:
            break
    return chosen


@njit()
def pick(logits, p, size, how, seed, count, order, places, group):
    """The token after `count` others, or -1 where a logit is NaN or the largest is infinite.

    `order` is for two numbers of each token, `places` for `PLACES`, and `group` for virtual lanes.
    """
    best, largest = 0, logits[0]
    for i in range(size):
        if not logits[i] <= largest:
            if logits[i] != logits[i]:
                return -1
            best, largest = i, logits[i]
    if largest - largest != 0:
        return -1
    group[0] = how.temperature  # rounded to the logits' type
    temperature = group[0]
    if temperature == 0:
        return best
    for i in range(size):
        p[i] = (logits[i] - largest) / temperature
    activate(_SOFTMAX, p, p, size, group)
    return _draw(p, size, how, _uniform(seed, count), order, places)
