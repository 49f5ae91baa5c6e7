"""Many sequences: `predict_many` against torch in batches, and how much of its time is not spent in kernels."""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastrnn
from fastrnn import backends
from fastrnn._bench import ratios

VOCABULARY, CLASSES = 1000, 12
BATCH = 32  # torch's
AGAINST = ["ours", "packed", "padded"]
REST = 0.2  # seconds in which the threads of the engine before go to sleep


class Way:
    """A way to run all sequences, as `ratios.compare` times it."""

    scale = 1.0

    def __init__(self, run: Callable[[], Any]) -> None:
        self.run = run

    def output(self) -> np.ndarray:
        """The result."""
        return np.asarray(self.run())

    def block(self, count: int) -> float:
        """Seconds that `count` runs take."""
        time.sleep(REST)
        start = time.perf_counter()
        for _ in range(count):
            self.run()
        return time.perf_counter() - start


def make(kind: str, embedding: int, hidden: int, bidirectional: bool) -> fastrnn.SequenceModel:
    """A many-to-one classifier with weights drawn at random."""
    rng = np.random.default_rng(0)
    layer = getattr(fastrnn, kind)(embedding, hidden, bidirectional=bidirectional).init()
    width = hidden * (1 + bidirectional)
    head = fastrnn.Dense(rng.normal(size=(CLASSES, width)) / width**0.5, np.zeros(CLASSES), "softmax")
    matrix = rng.normal(size=(VOCABULARY, embedding))
    return fastrnn.SequenceModel(layer, embedding=matrix, head=head, wiring="many_to_one")


def draw(lengths: np.ndarray) -> fastrnn.Ragged:
    """Sequences of these lengths, without temporary arrays that would hide what a call needs."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return fastrnn.Ragged(np.random.default_rng(0).integers(0, VOCABULARY, offsets[-1], np.int32), offsets)


# Against torch --------------------------------------------------------------------------------------------------------


def against_torch(count: int, threads: int, rounds: int, against: list[str]) -> None:
    """LSTM 128 in both directions, log-normal lengths of 40 steps on average, as family R draws them.

    Packed batches give what we do. In padded ones, the backward direction has read padding before it begins.
    """
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

    model = make("LSTM", 64, 128, True)
    lengths = np.ceil(np.random.default_rng(1).lognormal(np.log(40) - 0.18, 0.6, count)).astype(np.int64)
    sequences = draw(lengths)
    fastrnn.set_num_threads(threads)
    torch.set_num_threads(threads)
    layer = torch.nn.LSTM(64, 128, batch_first=True, bidirectional=True)
    layer.load_state_dict({k: torch.from_numpy(v) for k, v in model.layers[0].state_dict().items()})
    matrix, weight = torch.tensor(model.embedding), torch.tensor(model.head[0].plan.weight)
    parts = torch.from_numpy(sequences.values).split(lengths.tolist())
    batches = [parts[i : i + BATCH] for i in range(0, count, BATCH)]

    def label(h: Any) -> Any:
        return torch.softmax(torch.nn.functional.linear(h, weight), 1)

    @torch.inference_mode()
    def padded() -> Any:
        found = []
        for batch in batches:
            y, _ = layer(torch.nn.functional.embedding(pad_sequence(batch, batch_first=True), matrix))
            ends = torch.tensor([len(part) - 1 for part in batch])
            found.append(label(torch.cat([y[torch.arange(len(batch)), ends, :128], y[:, 0, 128:]], 1)))
        return torch.cat(found)

    @torch.inference_mode()
    def packed() -> Any:
        found = []
        for batch in batches:
            x = torch.nn.functional.embedding(pad_sequence(batch, batch_first=True), matrix)
            ends = torch.tensor([len(part) for part in batch])
            _, (h, _) = layer(pack_padded_sequence(x, ends, batch_first=True, enforce_sorted=False))
            found.append(label(torch.cat([h[0], h[1]], 1)))
        return torch.cat(found)

    ours = Way(lambda: model.predict_many(sequences))
    ways = {"ours": ours, "packed": Way(packed), "padded": Way(padded)}
    expected = ours.output()
    print(f"{count} sequences of {lengths.mean():.1f} steps, {threads} thread{'s' * (threads > 1)}")
    for name in against:
        way = ways[name]
        agreement = ratios.agreement(way.output(), expected)
        if name != "padded" and agreement.fraction < 1:
            raise SystemExit(f"{name} gives another result: {agreement}")
        found = ratios.compare(ours, way, 0, rounds)
        print(
            f"  {name:6} {found.other:7.3f} s, {found.median:5.2f} times ours"
            f" ({found.low:.2f} to {found.high:.2f}), {agreement.fraction:.0%} of the numbers as ours",
            flush=True,
        )


# Beside the kernels ---------------------------------------------------------------------------------------------------


class Clock:
    """Seconds spent in the kernels of the backend in use: those of every runner made from now on."""

    def __init__(self) -> None:
        self.seconds, self.name = 0.0, backends.current()
        loaded = backends.load(self.name)
        backends._loaded[self.name] = loaded._replace(layer=self.timed(loaded.layer), dense=self.timed(loaded.dense))

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


def peak() -> int:
    """Most bytes of memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def beside_kernels(count: int, hidden: int, threads: int, rounds: int) -> None:
    """A GRU on sequences of 2 to 12 ids: a result for each is about as much work as its bookkeeping."""
    clock = Clock()
    model = make("GRU", 16, hidden, False)
    sequences = draw(np.random.default_rng(1).integers(2, 13, count, np.int8))
    fastrnn.set_num_threads(threads)
    model.predict_many([[1, 2]])
    before, shares, times = peak(), [], []
    for _ in range(rounds):
        clock.seconds, start = 0.0, time.perf_counter()
        model.predict_many(sequences)
        times.append(time.perf_counter() - start)
        shares.append(1 - clock.seconds / times[-1])
    print(
        f"GRU {hidden}, {count} sequences of 2 to 12 ids, {threads} thread{'s' * (threads > 1)}:"
        f" {np.median(times):.2f} s, {np.median(times) / count * 1e9:.0f} ns a sequence,"
        f" {np.median(shares):.1%} of it not in kernels ({min(shares):.1%} to {max(shares):.1%});"
        f" memory grew by {(peak() - before) / 1e6:.0f} MB, of which the result takes {count * CLASSES * 4 / 1e6:.0f}",
        flush=True,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["torch", "short"], help="against torch; short sequences, beside the kernels")
    parser.add_argument("--count", type=int, help="sequences: 20 000 against torch, else 10 million")
    parser.add_argument("--hidden", type=int, default=16, help="H of short sequences")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--against", nargs="+", choices=AGAINST, default=AGAINST, help="torch's batches; ours is A/A")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "torch":
        against_torch(options.count or 20_000, options.threads, options.rounds, options.against)
    else:
        beside_kernels(options.count or 10_000_000, options.hidden, options.threads, options.rounds)


if __name__ == "__main__":
    main()
