"""What a step of a stream costs beyond its kernels: `step` against a loop in C over the same steps, interleaved.

The loop's steps, `advance` for a layer and `walk` for a model, hold the kernels of all phases, the copy of the new
state and nothing else. All on one thread. `--jit`: also `fastrnn.jit.step` in a loop that Numba compiles.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastrnn

LAYERS = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN}
BLOCK = 2e-3  # seconds
ROUNDS = 101


def block(work: Callable[[int], None], count: int) -> float:
    """Nanoseconds of one of `count` steps."""
    start = time.perf_counter_ns()
    work(count)
    return (time.perf_counter_ns() - start) / count


def layer(cell: str, hidden: int, batch: int | None) -> tuple[Any, Any, Any, Any, np.ndarray]:
    """Return a layer, its stream, x for its step and for its loop in C, and the result of one."""
    network = LAYERS[cell](hidden, hidden, backend="cython", num_threads=1).init()
    stream = network.stream(batch)
    x = np.random.default_rng(0).standard_normal((*([batch] if batch else []), hidden), np.float32)
    return network, stream, x, x.reshape(-1, hidden), stream.step(x)


def model(cell: str, hidden: int, batch: int | None, vocab: int) -> tuple[Any, Any, Any, Any, np.ndarray]:
    """Return the same of a model: ids, two layers, and the softmax over as many."""
    recurrent = LAYERS[cell](vocab, hidden, 2, backend="cython", num_threads=1).init()
    head = fastrnn.Dense(np.random.default_rng(0).normal(size=(vocab, hidden)), np.zeros(vocab), "softmax")
    network = fastrnn.SequenceModel(recurrent, embedding="one_hot", head=head)
    stream = network.stream(batch)
    x = np.arange(batch) % vocab if batch else 1
    return network, stream, x, x, stream.step(x)


def jitted(network: Any, batch: int | None, x: Any, y: np.ndarray) -> Callable[[int], None]:
    """Return what takes so many steps by `jit.step`, compiled."""
    import numba

    from fastrnn import jit

    @numba.njit
    def repeat(w: Any, x: Any, state: Any, y: Any, count: int) -> None:
        for _ in range(count):
            jit.step(w, x, state, y)

    w, out = jit.pack(network), np.empty_like(y)
    state = jit.init_state(w, batch)
    return lambda count: repeat(w, x, state, out, count)


def overheads(stream: Any, x: Any, rows: Any, y: np.ndarray, *more: Callable[[int], None]) -> tuple[float, ...]:
    """Median nanoseconds: a step of the loop in C; what step(x, out=out) and step(x) take beyond it; `more`'s steps."""
    out, step = np.empty_like(y), stream.step
    in_c = out.reshape(-1, out.shape[-1])

    def compiled(count: int) -> None:
        stream._repeat(rows, in_c, count)

    def given(count: int) -> None:
        for _ in range(count):
            step(x, out=out)

    def fresh(count: int) -> None:
        for _ in range(count):
            step(x)

    def empty(count: int) -> None:  # the loop itself, which is not the stream's
        for _ in range(count):
            pass

    for work in (fresh, *more):
        block(work, 1000)
    count = max(20, int(BLOCK * 1e9 / block(fresh, 1000)))
    rounds = []
    for _ in range(ROUNDS):
        times = dict.fromkeys((compiled, given, fresh, empty, *more), 0.0)
        for work in (*times, *reversed(times)):
            times[work] += block(work, count) / 2
        base = times[compiled]
        beyond = (times[work] - times[empty] - base for work in (given, fresh))
        rounds.append((base, *beyond, *map(times.get, more)))
    return tuple(map(statistics.median, zip(*rounds, strict=True)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", choices=LAYERS, default="lstm")
    parser.add_argument("--hidden", type=int, nargs="+", default=[8, 16, 64, 128], help="H, and I")
    parser.add_argument("--batch", type=int, help="N; without it streams without an axis for it")
    parser.add_argument("--vocab", type=int, help="of a model's stream, instead of a layer's: ids, two layers, softmax")
    parser.add_argument("--jit", action="store_true", help="jit.step too")
    options = parser.parse_args()
    gc.disable()
    head = "   H   loop in C   step(x, out=out)   step(x)" + "   jit.step" * options.jit
    print(f"{head}      nanoseconds; the second and third beyond the loop in C")
    for hidden in options.hidden:
        shape = options.cell, hidden, options.batch
        network, stream, x, rows, y = model(*shape, options.vocab) if options.vocab else layer(*shape)
        more = [jitted(network, options.batch, x, y)] if options.jit else []
        loop, given, fresh, *found = overheads(stream, x, rows, y, *more)
        print(f"{hidden:4d} {loop:11.0f} {given:+18.0f} {fresh:+9.0f}", *(f"{t:10.0f}" for t in found))


if __name__ == "__main__":
    main()
