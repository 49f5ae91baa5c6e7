"""A backtest with a network inside: one LSTM step for each bar, in a loop that Numba compiles.

The loop cannot be a call for the whole series: the network sees the position that it took at the bar before. The same
trading rule then runs live, bar by bar in Python, with `layer.stream()`. Both take the same positions, bit for bit.

    python examples/backtest.py
"""

import time
from typing import Any

import numba
import numpy as np

import fastrnn
from fastrnn import jit

BARS = 20_000
FEE = 0.0005


def prices(seed: int = 0) -> np.ndarray:
    """Log returns of a made-up market whose volatility comes in waves; no data of a real one."""
    rng = np.random.default_rng(seed)
    volatility = 0.002 * np.exp(np.sin(np.arange(BARS) / 500))
    return (volatility * rng.standard_normal(BARS)).astype(np.float32)


@numba.njit(cache=True)
def backtest(w: Any, returns: np.ndarray, positions: np.ndarray) -> float:
    """Fill `positions`, each in [-1, 1] from the return of its bar and the position before; return the profit."""
    state = jit.init_state(w)
    x, y = np.zeros(w.input_size, np.float32), np.empty(w.output_size, np.float32)
    position, profit = np.float32(0), 0.0
    for t in range(len(returns)):
        profit += position * returns[t]
        x[0], x[1] = returns[t] * np.float32(100), position
        jit.step(w, x, state, y)
        profit -= FEE * abs(y[0] - position)
        position = y[0]
        positions[t] = position
    return profit


def live(model: fastrnn.SequenceModel, returns: np.ndarray) -> np.ndarray:
    """Take the positions as they would be taken on the day: one return at a time."""
    stream, position, positions = model.stream(), np.float32(0), np.empty_like(returns)
    for t, change in enumerate(returns):
        position = stream.step(np.array([change * np.float32(100), position], np.float32))[0]
        positions[t] = position
    return positions


def main() -> None:
    """Run both and compare."""
    head = fastrnn.Dense(np.random.default_rng(1).normal(size=(1, 32)) / 4, activation="tanh")
    model = fastrnn.SequenceModel(fastrnn.LSTM(2, 32).init(seed=0), head=head)  # untrained: the rule is no good
    returns, positions = prices(), np.empty(BARS, np.float32)
    w = jit.pack(model)
    backtest(w, returns[:1], positions[:1])  # compiles
    start = time.perf_counter()
    profit = backtest(w, returns, positions)
    seconds = time.perf_counter() - start
    print(f"{BARS} bars, {seconds / BARS * 1e9:.0f} ns each, profit {profit:+.3f}")
    print("live positions are the same to the bit:", np.array_equal(live(model, returns), positions))


if __name__ == "__main__":
    main()
