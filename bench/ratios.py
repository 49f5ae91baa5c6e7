"""Ratios of two engines that hold on a noisy machine: blocks of calls in the order A B B A, compared block by block."""

import gc
import math
import statistics
import time
from typing import NamedTuple

from engines import Engine

BLOCK = 4e-3  # seconds of one block, at least
BUDGET = 0.8  # seconds for one pair of engines, unless a call is slow
ROUNDS = 5  # at least, of A B B A


class Ratio(NamedTuple):
    """How much longer `other` takes than `ours`: median and quartiles over the rounds, and seconds per call."""

    median: float
    low: float
    high: float
    rounds: int
    ours: float
    other: float


def calls_per_block(engine: Engine) -> int:
    """Calls that fill a block."""
    count = 1
    while (elapsed := block(engine, count)) < BLOCK:
        count = max(count + 1, math.ceil(1.1 * count * BLOCK / max(elapsed, BLOCK / 100)))
    return count


def block(engine: Engine, count: int) -> float:
    """Seconds that `count` calls take."""
    call = engine.call
    with engine.context():
        start = time.perf_counter()
        for _ in range(count):
            call()
        return time.perf_counter() - start


def compare(ours: Engine, other: Engine, budget: float = BUDGET, rounds: int = ROUNDS) -> Ratio:
    """Time two engines against each other; both must have run before."""
    counts = [calls_per_block(engine) for engine in (ours, other)]
    ratios, times = [], ([], [])
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + budget
        while len(ratios) < rounds or time.perf_counter() < end:
            seconds = [0.0, 0.0]
            for which in (0, 1, 1, 0):
                seconds[which] += block((ours, other)[which], counts[which]) / (2 * counts[which])
            ratios.append(seconds[1] / seconds[0])
            for record, value in zip(times, seconds, strict=True):
                record.append(value)
    finally:
        if collecting:
            gc.enable()
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, low, high, len(ratios), *map(statistics.median, times))
