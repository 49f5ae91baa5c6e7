"""Calls a second of 1, 2, 4 and 8 Python threads that call one layer at once; and of two with a stream each (family P).

More threads than cores must not collapse. Calls at work at once share the processors, so that with two callers on two
cores each has a core.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

import fastrnn


def calls_a_second(make: Callable[[], Callable[[], Any]], callers: int, seconds: float, block: int = 1) -> float:
    """Total rate of all callers, each of which calls what `make` returned to it, `block` times between two looks."""
    counts, barrier = [0] * callers, threading.Barrier(callers + 1)

    def run(caller: int) -> None:
        call, count = make(), 0
        call()
        barrier.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for _ in repeat(None, block):
                call()
            count += block
        counts[caller] = count

    pool = [threading.Thread(target=run, args=(i,)) for i in range(callers)]
    for thread in pool:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in pool:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def speedup(layer: Any, steps: int, callers: int = 2, rounds: int = 5, seconds: float = 0.1) -> float:
    """Rate of threads that each take a stream of their own on, by steps or in chunks, over the rate of one alone."""
    x = np.random.default_rng(0).standard_normal((steps, layer.input_size), np.float32)

    def make() -> Callable[[], Any]:
        stream, out = layer.stream(), np.empty((steps, layer.hidden_size), np.float32)
        if steps == 1:
            step, now, y = stream.step, x[0], out[0]
            return lambda: step(now, out=y)
        return lambda: stream.push(x, out=out)

    block = max(1, round(1e-3 * calls_a_second(make, 1, seconds)))  # a millisecond
    ratios = []
    for _ in range(rounds):
        one, two, again, once = (calls_a_second(make, n, seconds, block) for n in (1, callers, callers, 1))
        ratios.append((two + again) / (one + once))
    return statistics.median(ratios)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    options = parser.parse_args()
    print("LSTM, B = 1, T = 100: calls a second of so many callers, in brackets beside one caller on one thread")
    for hidden in options.hidden:
        x = np.random.default_rng(0).standard_normal((100, hidden), np.float32)
        single = fastrnn.LSTM(hidden, hidden, num_threads=1).init()
        alone = calls_a_second(partial(partial, single, x), 1, options.seconds)
        for num_threads in (1, 2, 4, 8):
            layer = fastrnn.LSTM(hidden, hidden, num_threads=num_threads).init()
            rates = [(n, calls_a_second(partial(partial, layer, x), n, options.seconds)) for n in (1, 2, 4, 8)]
            text = "  ".join(f"{n}: {rate:8.0f} ({rate / alone:.2f})" for n, rate in rates)
            print(f"H = {hidden:4d}, num_threads = {num_threads}:  {text}", flush=True)


if __name__ == "__main__":
    main()
