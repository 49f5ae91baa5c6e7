"""Generation: from an id through the chain to logits and to the next id, as in src_kernels/_generate.pxi."""

import numpy as np
from numba import int64, prange

from fastrnn.numba_kernels.chain import COUNT, IDS, OUT, ROWS, STATES, STREAMS, TURN, WORK, X_STRIDE, X, walk
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.draw import Sampling, pick
from fastrnn.numba_kernels.simd import address, data, integers, itemsize, move, pointer

__all__ = ["SETTINGS", "run_writing", "run_writing_all"]

SETTINGS = (
    "first",  # of the rows that this thread writes to,
    "end",  # and the one after the last of them
    "streams",  # how many rows there are
    "states",  # two addresses, h and c, for each recurrent part; they change
    "embedding",  # what ids number,
    "stride",  # and elements from row to row of it
    "vocab",  # V
    "top_k",
    "seeds",  # [R] uint64
    "stops",  # ids that end a row
    "stop_count",
    "last",  # [R] what each row is fed next; -1: it has come to a stop
    "made",  # [R] tokens that it has
    "most",  # tokens of a row
    "tokens",  # [R][steps] results
    "steps",
    "failed",  # number of a token whose logits are not finite, counted over steps, then rows, or -1; written
    # workspace of this thread:
    "now",  # the numbers of a step
    "rows",  # [rows] those that go on,
    "ids",  # [rows] and what they are fed
    "order",  # [2][V] for `pick`,
    "places",  # and [PLACES]
    "group",  # for virtual lanes
    "p",  # [V] probabilities of a row
    "logits",  # [rows][V]
    "work",  # for a step
)
"""Numbers of a call, most of them addresses."""
(
    _FIRST,
    _END,
    _STREAMS,
    _STATES,
    _EMBEDDING,
    _STRIDE,
    _VOCAB,
    _TOP_K,
    _SEEDS,
    _STOPS,
    _STOP_COUNT,
    _LAST,
    _MADE,
    _MOST,
    _TOKENS,
    _STEPS,
    _FAILED,
    _NOW,
    _ROWS,
    _IDS,
    _ORDER,
    _PLACES,
    _GROUP,
    _P,
    _LOGITS,
    _WORK,
) = range(len(SETTINGS))


@njit(cache=True)
def run_writing(like, chain, settings, temperature, top_p):
    """Write some rows' tokens: up to `steps` of each."""
    given, kind = integers(settings), data(like)
    now, rows, ids = integers(given[_NOW]), integers(given[_ROWS]), integers(given[_IDS])
    order, places = integers(given[_ORDER]), integers(given[_PLACES])
    group, p = pointer(kind, given[_GROUP]), pointer(kind, given[_P])
    last, made, tokens = integers(given[_LAST]), integers(given[_MADE]), integers(given[_TOKENS])
    seeds, stops = integers(given[_SEEDS]), integers(given[_STOPS])
    how = Sampling(temperature, given[_TOP_K], top_p)
    for step in range(given[_STEPS]):
        alive = int64(0)
        for row in range(given[_FIRST], given[_END]):
            if last[row] >= 0 and made[row] < given[_MOST]:
                rows[alive], ids[alive] = row, last[row]
                alive += 1
        if not alive:
            break
        now[X], now[X_STRIDE], now[IDS], now[ROWS] = given[_EMBEDDING], given[_STRIDE], given[_IDS], given[_ROWS]
        now[COUNT], now[STREAMS], now[OUT], now[STATES] = alive, given[_STREAMS], given[_LOGITS], given[_STATES]
        now[WORK], now[TURN] = given[_WORK], step & 1
        walk(kind, chain, given[_NOW])
        for i in range(alive):
            row, logits = rows[i], pointer(kind, given[_LOGITS] + i * given[_VOCAB] * itemsize(kind))
            token = pick(logits, p, given[_VOCAB], how, np.uint64(seeds[row]), made[row], order, places, group)
            if token < 0:
                given[_FAILED] = step * given[_STREAMS] + row
                return
            last[row] = token
            for k in range(given[_STOP_COUNT]):
                if token == stops[k]:
                    last[row] = -1
            if last[row] >= 0:
                tokens[row * given[_STEPS] + step] = token
                made[row] += 1


@njit(cache=True, parallel=True)
def run_writing_all(like, chain, settings, temperature, top_p):
    """Do `run_writing` on as many threads as there are rows of settings."""
    for part in prange(settings.shape[0]):
        mine = address(move(data(settings), part * settings.shape[1]))
        run_writing(like, chain, mine, temperature, top_p)
