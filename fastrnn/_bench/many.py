"""Families N and O: many sequences of ids, ours in one call, torch in batches; and what of a call is not in kernels."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn._bench.memory import peak
from fastrnn._bench.problems import Array, Problem, Row, fastrnn_layer, problem

__all__ = ["beside_kernels", "predict_many", "torch_batches"]

BATCH = 32  # torch's
ROUNDS = 3


def predict_many(of: Problem, backend: str) -> Callable[[], Array]:
    """Our model's `predict_many`."""
    import fastrnn

    assert of.lengths is not None
    layer = fastrnn_layer(of.row, backend).load_state_dict(of.weights)
    model = fastrnn.SequenceModel(layer, embedding=of.embedding, head=(of.head, None, "softmax"), wiring="many_to_one")
    sequences = fastrnn.Ragged(of.x, np.concatenate([[0], of.lengths.cumsum()]))
    return lambda: model.predict_many(sequences)


def torch_batches(of: Problem, module: Any, packed: bool) -> Callable[[], Array]:
    """torch.nn modules on batches in the order given; padded ones take the last valid steps of a forward layer."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

    assert of.lengths is not None
    matrix, head = torch.from_numpy(of.embedding), torch.from_numpy(of.head)
    lengths = torch.from_numpy(of.lengths).split(BATCH)
    sequences = torch.from_numpy(of.x).split(of.lengths.tolist())
    batches = [sequences[i : i + BATCH] for i in range(0, len(sequences), BATCH)]

    def label(batch: Any, lengths: Any) -> Any:
        x = torch.nn.functional.embedding(pad_sequence(batch), matrix)
        if packed:
            _, hx = module(pack_padded_sequence(x, lengths, enforce_sorted=False))
            final = torch.cat(list(hx[0] if of.row.cell == "lstm" else hx), 1)
        else:
            final = module(x)[0][lengths - 1, torch.arange(len(lengths))]
        return torch.softmax(torch.nn.functional.linear(final, head), 1)

    return lambda: torch.cat(list(map(label, batches, lengths))).numpy()


class Clock:
    """Seconds spent in the kernels of a backend: those of every runner made from now on."""

    def __init__(self, name: str) -> None:
        from fastrnn import backends

        self.seconds, loaded = 0.0, backends.load(name)
        backends._loaded[name] = loaded._replace(layer=self.timed(loaded.layer), dense=self.timed(loaded.dense))

    def timed(self, prepare: Callable[..., Callable[..., None]]) -> Callable[..., Callable[..., None]]:
        """Make runners that count their time."""

        def prepare_timed(plan: Any) -> Callable[..., None]:
            run = prepare(plan)

            def run_timed(*given: Any) -> None:
                start = time.perf_counter()
                run(*given)
                self.seconds += time.perf_counter() - start

            return run_timed

        return prepare_timed


def beside_kernels(row: Row) -> dict[str, float]:
    """What `predict_many` takes in this process: `nanoseconds` a sequence, the share of them `outside` of the calls for
    layers and heads, and `megabytes` beyond inputs and result.
    """
    clock = Clock("cython")
    predict_many(problem(row._replace(batch=1)), "cython")()
    call = predict_many(problem(row), "cython")
    result, grown = peak(call)
    shares, times = [], []
    for _ in range(ROUNDS):
        clock.seconds, start = 0.0, time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        shares.append(1 - clock.seconds / times[-1])
    return {
        "nanoseconds": statistics.median(times) / row.batch * 1e9,
        "outside": statistics.median(shares),
        "megabytes": grown - result.nbytes / 2**20,
    }
