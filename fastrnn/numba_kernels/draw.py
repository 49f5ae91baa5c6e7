"""The draw of a token from logits, as in src_kernels/_draw.pxi; fastrnn/sampling.py describes it, in NumPy."""

from collections import namedtuple

import numpy as np

from fastrnn.numba_kernels.dense import activate
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.kind import Kind

__all__ = ["Sampling", "pick"]

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
def _before(p, a, b):
    """Whether token a is more probable than b; of equals the first is."""
    return p[a] > p[b] or (p[a] == p[b] and a < b)


@njit()
def _sink(p, heap, size, at):
    """Move an entry down to where no child comes before it."""
    moved = heap[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _before(p, heap[child + 1], heap[child]):
            child += 1
        if not _before(p, heap[child], moved):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moved


@njit()
def _ranked(p, heap, size, ranks, rank):
    """Take tokens from the heap up to one of this rank; they stand behind it, the most probable last. Return `ranks`.

    So many of them have left the heap.
    """
    while ranks <= rank:
        last = size - 1 - ranks
        token = heap[0]
        heap[0] = heap[last]
        _sink(p, heap, last, 0)
        heap[last] = token
        ranks += 1
    return ranks


@njit()
def _draw(p, size, how, u, heap):
    """Where u times the sum of what may be drawn lies; ids in order, or in that of falling probability if some may not.

    Sums are of float64, one term after the other.
    """
    kept = min(how.top_k, size) if how.top_k else size
    few = kept < size
    cut = few or how.top_p < 1
    ranks = 0
    if cut:
        for i in range(size):
            heap[i] = i
        for i in range(size // 2 - 1, -1, -1):
            _sink(p, heap, size, i)
    total = 0.0
    for i in range(kept):
        token = i
        if few:
            ranks = _ranked(p, heap, size, ranks, i)
            token = heap[size - 1 - i]
        total += np.float64(p[token])
    if how.top_p < 1:
        enough, reached = how.top_p * total, 0.0
        for i in range(kept):
            ranks = _ranked(p, heap, size, ranks, i)
            reached += np.float64(p[heap[size - 1 - i]])
            if reached >= enough:
                kept, total = i + 1, reached
                break
    reached, chosen = 0.0, 0
    for i in range(kept):
        token = i
        if cut:
            ranks = _ranked(p, heap, size, ranks, i)
            token = heap[size - 1 - i]
        reached += np.float64(p[token])
        if p[token] > 0:
            chosen = token
        if reached > u * total:
            break
    return chosen


@njit()
def pick(logits, p, size, how, seed, count, heap, group):
    """The token after `count` others, or -1 where a logit is NaN or the largest is infinite."""
    best = 0
    for i in range(size):
        if logits[i] != logits[i]:
            return -1
        if logits[i] > logits[best]:
            best = i
    if logits[best] - logits[best] != 0:
        return -1
    group[0] = how.temperature  # rounded to the logits' type
    temperature = group[0]
    if temperature == 0:
        return best
    for i in range(size):
        p[i] = (logits[i] - logits[best]) / temperature
    activate(_SOFTMAX, p, p, size, group)
    return _draw(p, size, how, _uniform(seed, count), heap)
