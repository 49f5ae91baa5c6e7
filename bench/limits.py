"""What the machine allows: operations a second, and bytes of weights a second by where they lie.

Measured with the inner loop of our own kernels and printed as JSON. `seconds` turns them into the least time that any
code needs for a row.
"""

import argparse
import ctypes
import json
import math
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from rows import ALL_THREADS, Row  # noqa: E402

FLAGS = {"avx512": ["-mavx512f", "-mavx512vl", "-mfma"], "avx2": ["-mavx2", "-mfma"]}
BITS = {"float32": 32, "float64": 64}
SIZES = [2**i for i in range(14, 28)]  # bytes of weights: 16 KB to 128 MB
DEPTH = 512  # of a block: h of 512 units
SECONDS, REPEATS = 0.01, 10

Limits = dict[str, Any]


class Loops:
    """The two loops of limits.c for one dtype, and arrays for one thread."""

    def __init__(self, library: Path, dtype: str) -> None:
        self.library = ctypes.CDLL(str(library))
        for name in ("stream", "multiply"):
            getattr(self.library, name).restype = ctypes.c_double
        self.dtype = np.dtype(dtype)
        self.weights = np.full(SIZES[-1] // self.dtype.itemsize + 64, 1e-3, dtype)
        start = -self.weights.ctypes.data % 64 // self.dtype.itemsize
        self.weights = self.weights[start:]
        self.rows, self.out = np.full(4096, 1e-3, dtype), np.empty(4096, dtype)

    def run(self, size: int | None, passes: int, wide: bool = False, far: bool = False) -> float:
        """Read `size` bytes of weights again and again, or multiply for None; -> bytes, or operations."""
        w, a, out = (ctypes.c_void_p(array.ctypes.data) for array in (self.weights, self.rows, self.out))
        if size is None:
            return self.library.multiply(w, a, out, ctypes.c_ssize_t(passes))
        column = self.library.block_bytes(wide)
        depth = min(DEPTH, size // column)
        blocks = size // (depth * column)
        sizes = ctypes.c_ssize_t(blocks), ctypes.c_ssize_t(depth)
        return self.library.stream(wide, far, w, *sizes, a, out, ctypes.c_ssize_t(passes))


def compiled(folder: Path, tier: str) -> dict[str, Path]:
    """Libraries of limits.c by dtype."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        raise SystemExit(f"bench/limits.py needs a C compiler and {compiler!r} is missing: install gcc or clang")
    libraries = {}
    for dtype, bits in BITS.items():
        libraries[dtype] = folder / f"limits{bits}.so"
        command = [compiler, "-O3", "-std=c11", "-ffp-contract=off", "-shared", "-fPIC", *FLAGS.get(tier, [])]
        command += [f"-DFASTRNN_BITS={bits}", f'-DISA="isa_{tier}.h"', f"-I{HERE.parent / 'src_kernels'}"]
        subprocess.run([*command, str(HERE / "limits.c"), "-lm", "-o", str(libraries[dtype])], check=True)
    return libraries


def rate(loops: list[Loops], size: int | None, wide: bool = False, far: bool = False) -> float:
    """The best rate of one thread in 1e9 a second, while as many threads run as there are loops."""
    passes, seconds = 1, 0.0
    while seconds < SECONDS:
        start = time.perf_counter()
        loops[0].run(size, passes, wide, far)
        seconds = time.perf_counter() - start
        passes = math.ceil(passes * min(100, 1.2 * SECONDS / max(seconds, 1e-9))) if seconds < SECONDS else passes
    barrier = Barrier(len(loops))

    def work(loop: Loops) -> float:
        best = 0.0
        for _ in range(REPEATS):
            barrier.wait()
            start = time.perf_counter()
            done = loop.run(size, passes, wide, far)
            best = max(best, done / (time.perf_counter() - start))
        return best

    with ThreadPoolExecutor(len(loops)) as pool:
        return min(pool.map(work, loops)) / 1e9


def streaming_rate(loops: list[Loops], size: int) -> float:
    """The same of bytes of weights, in the way that is fastest."""
    return max(rate(loops, size, *way) for way in product((False, True), repeat=2))


def measure(thread_counts: tuple[int, ...] = (1, ALL_THREADS)) -> Limits:
    """The limits of one core, alone and while all run: GFLOP/s by dtype, GB/s by bytes of weights."""
    import fastrnn

    tier = fastrnn.cpu_info()["tier"]
    found: Limits = {"tier": tier, "threads": {}}
    with tempfile.TemporaryDirectory() as folder:
        libraries = compiled(Path(folder), tier)
        for threads in sorted(set(thread_counts)):
            loops = {dtype: [Loops(path, dtype) for _ in range(threads)] for dtype, path in libraries.items()}
            found["threads"][str(threads)] = {
                "peak": {dtype: round(rate(some, None), 1) for dtype, some in loops.items()},
                "stream": [[size, round(streaming_rate(loops["float32"], size), 1)] for size in SIZES],
            }
    return found


def streaming(limits: Limits, threads: int, size: float) -> float:
    """Bytes a second of one core for so many bytes of weights, between the measured sizes by their logarithm."""
    curve = limits["threads"][str(threads)]["stream"]
    sizes = [point[0] for point in curve]
    i = bisect_left(sizes, size)
    if i in (0, len(sizes)):
        return 1e9 * curve[min(i, len(sizes) - 1)][1]
    (low, slow), (high, fast) = curve[i - 1], curve[i]
    part = math.log(size / low) / math.log(high / low)
    return 1e9 * (slow + part * (fast - slow))


def seconds(row: Row, limits: Limits) -> float | None:
    """The least time of a call: each layer at the larger of operations at the peak and bytes at the streaming rate.

    W_hh is read at every step, W_ih once, divided among the cores; the projection can go on while W_hh is read. At
    T = 1 all the weights of a call compete for the caches, and so do those of a token in family G. Nothing is charged
    for activations, calls and padding. Rows with an encoder have no limit.
    """
    if str(row.threads) not in limits["threads"] or row.encoder:
        return None
    peak = 1e9 * limits["threads"][str(row.threads)]["peak"][row.dtype]
    size = int(row.dtype[-2:]) // 8

    def reading(weights: int, resident: int) -> float:
        return size * weights / row.threads / streaming(limits, row.threads, resident / row.threads)

    if row.family == "G":
        operations = 2 * row.token_weights / (row.threads * peak)
        return row.steps * max(operations, reading(row.token_weights, size * row.token_weights))
    total = 0.0
    for inputs, hidden in row.layer_weights:
        every, once = (size * (row.weights if row.steps == 1 else weights) for weights in (hidden, inputs))
        operations = 2 * (inputs + hidden) * row.valid / (row.threads * peak)
        total += max(operations, row.steps * reading(hidden, every) + reading(inputs, once))
    return row.directions * total


def streamed(row: Row) -> int:
    """Bytes of weights that a call reads at least: W_hh at every step, W_ih once."""
    pairs = row.layer_weights
    return row.directions * (int(row.dtype[-2:]) // 8) * sum(inputs + row.steps * hidden for inputs, hidden in pairs)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(json.dumps(measure()))
