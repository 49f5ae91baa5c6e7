"""Architectures of fastrnn/_bench/zoo.py: how many times longer torch takes than the same model after accelerate."""

import argparse
import copy
import functools
import os
import time
import warnings
from typing import Any

import numpy as np
import torch

from fastrnn._bench import ratios
from fastrnn._bench.engines import Engine
from fastrnn._bench.zoo import ZOO, flat
from fastrnn.torch import accelerate

ROUNDS = 5
CELLS = [
    ("LSTMCell", 16, 16, 1),
    ("LSTMCell", 64, 64, 1),
    ("LSTMCell", 200, 128, 1),
    ("LSTMCell", 200, 128, 16),
    ("GRUCell", 64, 64, 1),
    ("GRUCell", 200, 128, 16),
    ("RNNCell", 64, 64, 1),
    ("RNNCell", 200, 128, 16),
]


def numbers(result: Any) -> np.ndarray:
    """All numbers of what a model returned."""
    return np.concatenate([tensor.numpy().ravel() for tensor in flat(result)])


def recurrent_share(model: torch.nn.Module, inputs: tuple[Any, ...], budget: float) -> float:
    """Share of a call's time that is spent in recurrent modules: median of calls for so many seconds."""
    model, marks = copy.deepcopy(model), []
    for module in model.modules():
        if isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase)):
            module.register_forward_pre_hook(lambda *_: marks.append(-time.perf_counter()))
            module.register_forward_hook(lambda *_: marks.append(time.perf_counter()))
    shares: list[float] = []
    end = time.perf_counter() + budget
    with torch.inference_mode():
        model(*inputs)
        while len(shares) < ROUNDS or time.perf_counter() < end:
            marks.clear()
            start = time.perf_counter()
            model(*inputs)
            shares.append(sum(marks) / (time.perf_counter() - start))
    return float(np.median(shares))


def contenders(name: str, plain: Any, fast: Any, inputs: tuple[Any, ...], threads: int) -> list[ratios.Local]:
    """Make ours and torch's ready to be timed: their outputs are equal."""
    kind = ratios.Rested if threads > 1 else ratios.Local
    ours, theirs = (kind(Engine(functools.partial(m, *inputs), numbers, torch.inference_mode)) for m in (fast, plain))
    agreement = ratios.agreement(ours.output(), theirs.output())
    if agreement.fraction < 1:
        raise SystemExit(f"{name}: outputs differ, {agreement}")
    return [ours, theirs]


def spread(ratio: ratios.Ratio) -> str:
    """The median and the quartiles."""
    return f"{ratio.median:5.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def compare(name: str, threads: int, budget: float) -> str:
    """Measure an architecture: a line of the table."""
    model, inputs = ZOO[name].make()
    fast = accelerate(copy.deepcopy(model))
    ours, theirs = contenders(name, model, fast, inputs, threads)
    same, found = ratios.compare(ours, ours, budget / 2), ratios.compare(ours, theirs, budget)
    share, rest = (recurrent_share(m, inputs, budget / 4) for m in (model, fast))
    modules = found.median * share / rest
    return f"{name:36} {1e3 * found.other:7.2f} ms  {share:4.0%}  {spread(found)}  {modules:5.2f}  A/A {spread(same)}"


def compare_cell(kind: str, inputs: int, hidden: int, rows: int, budget: float) -> str:
    """Measure one step of a cell alone."""
    cell = getattr(torch.nn, kind)(inputs, hidden).eval()
    h, c = torch.randn(2, rows, hidden)
    given = (torch.randn(rows, inputs), (h, c) if kind == "LSTMCell" else h)
    ours, theirs = contenders(kind, cell, accelerate(copy.deepcopy(cell)), given, 1)
    found = ratios.compare(ours, theirs, budget)
    return f"{kind:8} {inputs:4} -> {hidden:4}, {rows:2} rows {1e6 * found.other:7.1f} us  {spread(found)}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; without, all")
    parser.add_argument("--cells", action="store_true", help="cells alone instead, one step a call, one thread")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, len(os.sched_getaffinity(0))])
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for a ratio")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "LSTM with projections")  # that oneDNN does not have them
    if options.cells:
        torch.set_num_threads(1)
        for cell in CELLS:
            print(compare_cell(*cell, options.budget), flush=True)
        return
    for threads in options.threads:
        torch.set_num_threads(threads)
        print(
            f"{threads} thread{'s' * (threads > 1)}: torch's time, share in recurrent modules, over ours, these alone"
        )
        for name in ZOO:
            if not options.names or any(part in name for part in options.names):
                print(compare(name, threads, options.budget), flush=True)


if __name__ == "__main__":
    main()
