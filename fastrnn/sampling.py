"""The draw of a token from logits, and the loop over tokens on any backend."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastrnn.weighted import Array

__all__ = ["Generator", "Sampling", "choose", "uniform"]

_MASK = (1 << 64) - 1


class Sampling(NamedTuple):
    """How tokens are drawn."""

    temperature: float  # logits are divided by it; 0: the most probable token
    top_k: int  # tokens that may be drawn; 0: all
    top_p: float  # share of their probability that is kept


def _mixed(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def uniform(seed: int, count: int) -> float:
    """Return the number in [0, 1) that decides token `count` of the row with this seed.

    SplitMix64 [1]_ started at ``mixed(seed)``: number t is ``mixed(mixed(seed) + (t + 1) * 0x9E3779B97F4A7C15)``, of
    which the upper 53 bits are the fraction. No number depends on another one.

    References
    ----------
    .. [1] Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    return (_mixed((_mixed(seed & _MASK) + (count + 1) * 0x9E3779B97F4A7C15) & _MASK) >> 11) * 2.0**-53


def choose(logits: Array, how: Sampling, seed: int, count: int, activate: Callable[[str, Array, Array], None]) -> int:
    """Draw a token from a row of logits; -1 where one is NaN or the largest is infinite.

    The probabilities are ``softmax((a - max(a)) / temperature)``, in the dtype of the logits. `top_k` keeps the most
    probable tokens, of equals the first; `top_p` the shortest run of the most probable of these whose sum reaches that
    share of theirs. Drawn is the token in which ``u`` times the sum of what is kept lies, in order of ids, or of
    falling probability where not all are kept. Sums are of float64, one term after the other.
    """
    largest = logits.max()
    if not np.isfinite(largest):
        return -1
    with np.errstate(over="ignore"):
        temperature = logits.dtype.type(how.temperature)
        if temperature == 0:
            return int(logits.argmax())
        p = ((logits - largest) / temperature)[None]
    activate("softmax", p, p)
    p = p[0].astype(np.float64)
    few, cut = 0 < how.top_k < len(p), 0 < how.top_k < len(p) or how.top_p < 1
    ids = np.argsort(-p, kind="stable") if cut else np.arange(len(p))
    kept = ids[: how.top_k] if few else ids
    total = np.cumsum(p[kept] if few else p)[-1]
    sums = np.cumsum(p[kept])
    if how.top_p < 1:
        reached = np.flatnonzero(sums >= how.top_p * total)
        if len(reached):
            kept, sums = kept[: reached[0] + 1], sums[: reached[0] + 1]
            total = sums[-1]
    drawn = np.flatnonzero(sums > uniform(seed, count) * total)
    end = drawn[0] + 1 if len(drawn) else len(kept)
    return int(kept[:end][p[kept[:end]] > 0][-1])


class Generator:
    """Rows that are being written: ``generator(tokens)`` goes on with all that have not come to their end.

    What `_native.Generator` and `numba_kernels.Generator` do in one compiled loop, for all backends.

    Parameters
    ----------
    step : callable
        ``step(ids (n,), states) -> logits (n, V)`` replaces the states in its list.
    states : list of tuples of arrays (L, R, ..)
        Of each recurrent layer; they change.
    how : Sampling
    seeds : (R,) array of uint64
    stops : (n,) array of int64
        Ids that end a row.
    last, made : (R,) array of int64
        What each row is fed next, -1 where it has come to a stop; and its number of tokens. They change.
    most : int
        Tokens of a row.
    activate : callable
        The backend's.
    """

    def __init__(
        self,
        step: Callable[[Array, list[tuple[Array, ...]]], Array],
        states: list[tuple[Array, ...]],
        how: Sampling,
        seeds: Array,
        stops: Array,
        last: Array,
        made: Array,
        most: int,
        activate: Callable[[str, Array, Array], None],
    ) -> None:
        self._step, self._states, self._how, self._activate = step, states, how, activate
        self._seeds, self._stops, self._last, self._made, self._most = seeds, stops, last, made, most

    def __call__(self, tokens: Array) -> int:
        """Write up to `steps` tokens to each row of tokens (R, steps), -1 where there is none.

        Returns the row whose logits are not finite, or -1.
        """
        tokens.fill(-1)
        for t in range(tokens.shape[1]):
            rows = np.flatnonzero((self._last >= 0) & (self._made < self._most))
            if not len(rows):
                break
            states = [tuple(s.take(rows, axis=1) for s in state) for state in self._states]
            x = self._step(self._last[rows], states)
            for state, new in zip(self._states, states, strict=True):
                for s, part in zip(state, new, strict=True):
                    s[:, rows] = part
            for row, logits in zip(rows, x, strict=True):
                token = choose(logits, self._how, int(self._seeds[row]), int(self._made[row]), self._activate)
                if token < 0:
                    return int(row)
                self._last[row] = -1 if token in self._stops else token
                if self._last[row] >= 0:
                    tokens[row, t] = token
                    self._made[row] += 1
        return -1
