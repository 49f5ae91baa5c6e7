"""Ratios of two engines that hold on a noisy machine: blocks of calls in the order A B B A, compared block by block."""

import gc
import math
import statistics
import time
from typing import NamedTuple, Protocol

import numpy as np

from fastrnn._bench.engines import Engine
from fastrnn._bench.problems import Array

__all__ = ["Agreement", "Contender", "Local", "Ratio", "Rested", "agreement", "block", "calls_per_block", "compare"]

BLOCK = 4e-3  # seconds of one block, at least
BUDGET = 0.8  # seconds for one pair of engines, unless a call is slow
ROUNDS = 5  # at least, of A B B A
REST = 0.02  # seconds in which idle threads of a pool stop to spin
TOLERANCE = {"float32": 2e-5, "float64": 1e-12, "int64": 0}  # of an output of size 1; ids are equal


class Contender(Protocol):
    """Something to time."""

    scale: float  # of its times, where a call does another amount of work

    def output(self) -> Array:
        """Return y (T, B, D*H), or its forward half."""

    def block(self, count: int) -> float:
        """Seconds that `count` calls take."""


class Local:
    """An engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.scale = engine, engine.scale

    def output(self) -> Array:
        """Return what a call puts out."""
        with self.engine.context():
            return self.engine.output(self.engine.call())

    def block(self, count: int) -> float:
        """Seconds that `count` calls take."""
        return block(self.engine, count)


class Rested(Local):
    """An engine whose threads are woken, once those of the other one in its process have fallen asleep."""

    def block(self, count: int) -> float:
        """Seconds that `count` calls take, after a rest and a call that is not counted."""
        time.sleep(REST)
        super().block(1)
        return super().block(count)


class Agreement(NamedTuple):
    """An engine's outputs beside the reference's."""

    fraction: float  # of the values that are within the tolerance
    difference: float  # the largest


class Ratio(NamedTuple):
    """How much longer `other` takes than `ours`: median and quartiles over the rounds, and seconds per call."""

    median: float
    low: float
    high: float
    rounds: int
    ours: float
    other: float


def agreement(y: Array, expected: Array) -> Agreement:
    """Compare outputs; where y is the forward direction only, that one."""
    wanted = expected[..., : y.shape[-1]]
    if y.shape != wanted.shape:
        raise ValueError(f"outputs of shape {y.shape}, expected {wanted.shape}")
    distance = np.abs(y - wanted)
    close = distance <= TOLERANCE[expected.dtype.name] * np.maximum(1, np.abs(wanted))  # false for NaN
    return Agreement(float(close.mean()), float(distance.max()))


def block(engine: Engine, count: int) -> float:
    """Seconds that `count` calls take."""
    call = engine.call
    collecting = gc.isenabled()
    gc.disable()
    try:
        with engine.context():
            start = time.perf_counter()
            for _ in range(count):
                call()
            return time.perf_counter() - start
    finally:
        if collecting:
            gc.enable()


def calls_per_block(contender: Contender) -> int:
    """Calls that fill a block."""
    count = 1
    while (elapsed := contender.block(count)) < BLOCK:
        count = max(count + 1, math.ceil(1.1 * count * BLOCK / max(elapsed, BLOCK / 100)))
    return count


def compare(
    ours: Contender, other: Contender, budget: float = BUDGET, rounds: int = ROUNDS, brief: bool = False
) -> Ratio:
    """Time two engines against each other; both must have run before. `brief`, for slow ones: single calls, A B."""
    pair = (ours, other)
    counts = [1, 1] if brief else [calls_per_block(contender) for contender in pair]
    order = (0, 1) if brief else (0, 1, 1, 0)
    ratios: list[float] = []
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + budget
    while len(ratios) < rounds or time.perf_counter() < end:
        seconds = [0.0, 0.0]
        for which in order:
            contender, count = pair[which], counts[which]
            seconds[which] += contender.block(count) * contender.scale / (order.count(which) * count)
        ratios.append(seconds[1] / seconds[0])
        times.append((seconds[0], seconds[1]))
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    return Ratio(median, low, high, len(ratios), mine, theirs)
