"""Calls a second of 1, 2, 4 and 8 Python threads that call one layer at once.

More threads than cores must not collapse. Calls at work at once share the processors, so that with two callers on two
cores each has a core.
"""

import argparse
import threading
import time
from typing import Any

import numpy as np

import fastrnn


def calls_a_second(layer: Any, x: np.ndarray, callers: int, seconds: float) -> float:
    """Total rate of all callers."""
    counts, barrier = [0] * callers, threading.Barrier(callers + 1)

    def call(caller: int) -> None:
        layer(x)
        barrier.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            layer(x)
            counts[caller] += 1

    pool = [threading.Thread(target=call, args=(i,)) for i in range(callers)]
    for thread in pool:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in pool:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    options = parser.parse_args()
    print("LSTM, B = 1, T = 100: calls a second of so many callers, in brackets beside one caller on one thread")
    for hidden in options.hidden:
        x = np.random.default_rng(0).standard_normal((100, hidden), np.float32)
        alone = calls_a_second(fastrnn.LSTM(hidden, hidden, num_threads=1).init(), x, 1, options.seconds)
        for num_threads in (1, 2, 4, 8):
            layer = fastrnn.LSTM(hidden, hidden, num_threads=num_threads).init()
            rates = [(n, calls_a_second(layer, x, n, options.seconds)) for n in (1, 2, 4, 8)]
            text = "  ".join(f"{n}: {rate:8.0f} ({rate / alone:.2f})" for n, rate in rates)
            print(f"H = {hidden:4d}, num_threads = {num_threads}:  {text}", flush=True)


if __name__ == "__main__":
    main()
