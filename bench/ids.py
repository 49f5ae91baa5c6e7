"""Ids beside the vectors that they stand for: how many times longer a model takes on vectors, one thread."""

import functools

import numpy as np

import fastrnn
from fastrnn._bench import ratios
from fastrnn._bench.engines import Engine

SHAPES = (("LSTM", 128, 1), ("LSTM", 256, 1), ("GRU", 128, 1), ("LSTM", 128, 32), ("LSTM", 256, 32), ("GRU", 256, 32))
VOCABULARY, STEPS = 96, 100


def main() -> None:
    """Print a line for each shape: cell, I = H, rows, ratio with quartiles."""
    rng = np.random.default_rng(0)
    fastrnn.set_num_threads(1)
    for cell, hidden, batch in SHAPES:
        embedding = rng.standard_normal((VOCABULARY, hidden), np.float32)
        model = fastrnn.SequenceModel(getattr(fastrnn, cell)(hidden, hidden).init(), embedding=embedding)
        ids = rng.integers(0, VOCABULARY, (batch, STEPS))
        inputs = (ids, embedding[ids])
        engines = [ratios.Local(Engine(functools.partial(model.predict, x), np.asarray)) for x in inputs]
        by_ids, by_vectors = (engine.output() for engine in engines)
        assert np.array_equal(by_ids, by_vectors)
        found = ratios.compare(*engines)
        print(f"{cell} {hidden}, {batch:2} rows  {found.median:.2f} ({found.low:.2f} to {found.high:.2f})", flush=True)


if __name__ == "__main__":
    main()
