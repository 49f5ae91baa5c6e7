"""The rows of the benchmark, for one and all threads, named so that `-k` and targets.toml can pick them."""

import functools
import os

from fastrnn._bench.problems import GATES, Row

CELLS = tuple(GATES)
ALL_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def steps() -> list[Row]:
    """Family S: one step from a given state."""

    def core(cell: str, input_size: int, hidden: int, batch: int) -> bool:
        if batch > 1:
            return cell == "lstm" and input_size == hidden and hidden in (64, 128)
        return input_size == hidden and hidden in (16, 64, 128, 256, 512)

    rows = [
        Row("S", cell, input_size, hidden, batch, core=core(cell, input_size, hidden, batch))
        for cell in CELLS
        for hidden in (8, 16, 40, 64, 128, 256, 512, 1024)
        for input_size in (1, hidden)
        for batch in (1, 4, 16)
    ]
    return rows + [Row("S", cell, 3, 37, 5, core=cell == "lstm") for cell in CELLS]


def sequences() -> list[Row]:
    """Family Q: sequences, shallow and deep, one and both directions."""
    rows = []
    for cell in CELLS:
        lstm = cell == "lstm"
        rows += [
            Row("Q", cell, hidden, hidden, 1, 100, core=lstm or hidden in (64, 128, 256))
            for hidden in (32, 64, 128, 256, 512, 1024)
        ]
        rows += [
            Row("Q", cell, 40, 64, 1, 100, core=lstm),
            Row("Q", cell, 3, 37, 5, 100, core=lstm),
            Row("Q", cell, 128, 128, 1, 1000),
            Row("Q", cell, 60, 128, 1, 589, layers=4, directions=2, core=lstm),
            Row("Q", cell, 60, 128, 32, 589, layers=4, directions=2),
            Row("Q", cell, 256, 256, 16, 128, layers=2, directions=2, core=lstm),
            Row("Q", cell, 512, 256, 32, 64, layers=2, directions=2),
            Row("Q", cell, 256, 256, 1, 1000, layers=3),
            Row("Q", cell, 384, 384, 64, 800, layers=5, alternating=True),
            Row("Q", cell, 640, 640, 8, 1),
            Row("Q", cell, 128, 128, 1, 100, dtype="float64", core=lstm),
        ]
    return rows


def batches() -> list[Row]:
    """Family B: batches of sequences."""
    lengths = {8: 100, 32: 50, 128: 20}

    def core(cell: str, hidden: int, batch: int) -> bool:
        return batch <= 32 if hidden <= 256 else (cell, hidden, batch) == ("lstm", 512, 32)

    rows = [
        Row("B", cell, hidden, hidden, batch, length, core=core(cell, hidden, batch))
        for cell in CELLS
        for hidden in (64, 128, 256, 512, 1024)
        for batch, length in lengths.items()
    ]
    rows += [
        Row("B", cell, 128, 128, batch, lengths[batch], dtype="float64", core=(cell, batch) == ("lstm", 8))
        for cell in CELLS
        for batch in (8, 32)
    ]
    return rows + [Row("B", cell, 3, 37, 5, 100) for cell in CELLS]


def ragged() -> list[Row]:
    """Family R: ragged batches, both directions, lengths log-normal up to T."""

    def core(cell: str, hidden: int, steps: int) -> bool:
        return cell != "rnn" and hidden == 128 and steps <= 32_000

    rows = [
        Row("R", cell, hidden, hidden, batch, longest, directions=2, core=core(cell, hidden, batch * longest))
        for cell in CELLS
        for hidden in (64, 128, 256)
        for batch in (32, 256)
        for longest in (64, 1000, 4000)
        if hidden * batch <= 64 * 256 or longest < 4000  # else gigabytes, and minutes
    ]
    return rows + [Row("R", cell, 3, 37, 5, 1000, directions=2) for cell in CELLS]


def decays() -> list[Row]:
    """Family D: a decaying state fed zeros, which passes through the denormal numbers."""
    rows = [Row("D", cell, 64, 64, 1, 10_000, core=True) for cell in CELLS]
    return rows + [Row("D", cell, 3, 37, 5, 10_000) for cell in CELLS]


def generation() -> list[Row]:
    """Family G: a character model, a smaller one, and a decoder after its encoder write, a token at a time."""
    return [
        Row("G", "lstm", 64, 512, 1, 1000, layers=2, core=True),
        Row("G", "gru", 256, 256, 1, 200, core=True),
        Row("G", "gru", 256, 256, 1, 10, core=True, encoder=True),
        Row("G", "rnn", 3, 37, 1, 200),
    ]


def many() -> list[Row]:
    """Family N: many sequences of log-normal lengths, T steps on average, in one call."""
    rows = [
        Row("N", cell, 64, 128, 2000, 40, directions=directions, core=cell == "lstm")
        for cell in CELLS
        for directions in (1, 2)
    ]
    return rows + [Row("N", cell, 3, 37, 5, 40) for cell in CELLS]


def short() -> list[Row]:
    """Family O: ten million short sequences, each about as much work as its bookkeeping."""
    return [Row("O", "gru", 16, 16, 10_000_000, 6, core=True)]


def cold() -> list[Row]:
    """Family C: import, load a saved model, first call."""
    return [Row("C", "lstm", 128, 128, 1, 100, core=True)]


def memory() -> list[Row]:
    """Family M: the workspace of a call on a long sequence."""
    return [Row("M", "lstm", 128, 128, 1, 20_000, core=True)]


def callers() -> list[Row]:
    """Family P: two Python threads with a stream each, by steps and by chunks of 100."""
    return [
        Row("P", cell, hidden, hidden, 1, steps, core=True)
        for cell in ("lstm", "gru")
        for hidden in (64, 128, 256, 512)
        for steps in (1, 100)
    ]


FAMILIES = {
    "S": steps,
    "Q": sequences,
    "B": batches,
    "R": ragged,
    "D": decays,
    "G": generation,
    "N": many,
    "O": short,
    "C": cold,
    "M": memory,
    "P": callers,
}
ONE_THREAD = "DCP"  # families without rows on all threads


def family(letter: str, cpus: int = ALL_THREADS) -> list[Row]:
    """Every row of a family on one thread, then on all."""
    counts = {1} if letter in ONE_THREAD else {1, cpus}
    return [row._replace(threads=threads) for threads in sorted(counts) for row in FAMILIES[letter]()]


@functools.cache
def every(cpus: int = ALL_THREADS) -> tuple[Row, ...]:
    """All rows of all families."""
    return tuple(row for letter in FAMILIES for row in family(letter, cpus))


def parse(name: str) -> Row:
    """The row of a name."""
    family, cell, *sizes, direction, batch, steps, dtype, threads = name.split("-")
    input_size, hidden, layers = (int(size[1:]) for size in sizes)
    return Row(
        family,
        cell,
        input_size,
        hidden,
        int(batch[1:]),
        int(steps[1:]),
        layers,
        1 + (direction == "bi"),
        dtype.replace("f", "float"),
        int(threads[:-1]),
        alternating=direction == "alt",
        encoder=direction == "s2s",
    )
