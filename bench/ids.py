"""Ids beside the vectors that they stand for: how many times longer a model takes on vectors, one thread."""

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import fastrnn
from fastrnn._bench import ratios
from fastrnn._bench.engines import Engine

SHAPES = (("LSTM", 128, 1), ("LSTM", 256, 1), ("GRU", 128, 1), ("LSTM", 128, 32), ("LSTM", 256, 32), ("GRU", 256, 32))
STEPS = 100
INPUTS = 64  # that calls take in turn, so that no cache keeps the rows of a large vocabulary


def calls(model: fastrnn.SequenceModel, inputs: list[Any]) -> Callable[[], Any]:
    """Runs a model on one input after another."""
    turns = itertools.cycle(inputs)
    return lambda: model.predict(next(turns))


def main() -> None:
    """Print a line for each shape: cell, I = H, rows, ratio with quartiles, microseconds of a call with ids."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=96, help="ids that there are (default: 96)")
    vocabulary = parser.parse_args().vocabulary
    rng = np.random.default_rng(0)
    fastrnn.set_num_threads(1)
    for cell, hidden, batch in SHAPES:
        embedding = rng.standard_normal((vocabulary, hidden), np.float32)
        model = fastrnn.SequenceModel(getattr(fastrnn, cell)(hidden, hidden).init(), embedding=embedding)
        ids = list(rng.integers(0, vocabulary, (INPUTS, batch, STEPS)))
        vectors = [embedding[x] for x in ids]
        engines = [ratios.Local(Engine(calls(model, inputs), np.asarray)) for inputs in (ids, vectors)]
        by_ids, by_vectors = (engine.output() for engine in engines)
        assert np.array_equal(by_ids, by_vectors)
        found = ratios.compare(*engines)
        ratio = f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"
        print(f"{cell} {hidden}, {batch:2} rows  {ratio}  {found.ours * 1e6:.0f} us", flush=True)


if __name__ == "__main__":
    main()
