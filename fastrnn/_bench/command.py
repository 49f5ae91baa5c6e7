"""`fastrnn bench`: one shape, or one saved layer, beside other engines."""

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastrnn
from fastrnn._bench import plots, ratios
from fastrnn._bench.engines import PACKAGES, PEERS, obstacle, ours, settings
from fastrnn._bench.problems import GATES, Problem, Row, problem
from fastrnn._bench.workers import Crew

__all__ = ["add_arguments", "duration", "machine", "print_load", "print_table", "run", "size", "threads"]

AGAINST = (*(peer for peer in PEERS if peer != "torch-padded"), "numba")
SHAPE = {"cell": "lstm", "input": None, "hidden": 128, "layers": 1, "bidirectional": False, "dtype": "float32"}
BUDGET = 1.5  # seconds for one engine, unless a call is slow
SLOW = 12.0  # seconds: what would take the calls of all engines longer is measured in fewer
COPIES = 4  # of weights, inputs and results among ours, theirs and what both are built from
BUSY = 0.5  # load average from which the figures are doubtful


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; those of SHAPE have no default, for a saved model fixes them."""
    parser.add_argument("--cell", choices=tuple(GATES), help="default: lstm")
    parser.add_argument("--input", type=size, help="input size, default: that of --hidden")
    parser.add_argument("--hidden", type=size, help="default: 128")
    parser.add_argument("--layers", type=size, help="default: 1")
    parser.add_argument("--bidirectional", action="store_true", default=None)
    parser.add_argument("--batch", type=size, default=1, help="default: 1")
    parser.add_argument("--steps", type=size, default=100, help="default: 100; 1: from a given state")
    parser.add_argument("--dtype", choices=("float32", "float64"), help="default: float32")
    parser.add_argument("--threads", type=threads, default=1, help="a number, or all; default: 1")
    parser.add_argument(
        "--against",
        type=_engines,
        default=AGAINST[:-1],
        metavar="ENGINES",
        help=f"of {','.join(AGAINST)}; default: all but the last",
    )
    parser.add_argument("--model", metavar="FILE", help="a layer that save() wrote, instead of a shape")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="write a plot: .svg, .png or .pdf")


def run(args: argparse.Namespace) -> int:
    """Compare and print a table.

    Parameters
    ----------
    args : argparse.Namespace
        Of `add_arguments`.

    Returns
    -------
    int
        0; 1 where an engine's outputs differ from ours.

    Raises
    ------
    ValueError
        For a model that the engines do not all have, a shape beside a model or beyond the memory, and a plot of another
        format.
    OSError
        For a plot that cannot be written there.
    ImportError
        For ``--plot`` without matplotlib.
    """
    from tqdm import tqdm

    if args.plot:
        plots.check(args.plot)
    of = _problem(args)
    row = of.row
    reasons = {name: reason for name in args.against if (reason := obstacle(name, row))}
    first = ours(row)
    names = [first, *(["cython"] if first != "cython" else []), *(name for name in args.against if name not in reasons)]
    lines, shown, different = [], [], []
    with Crew() as crew, tqdm(total=len(names), disable=None, leave=False) as bar:
        bar.set_description("fastrnn")
        seconds = _call(crew, first, of)
        brief = seconds * sum(_calls(name, row.threads) for name in names) > SLOW
        if brief:
            bar.clear()
            print(_brief(seconds, names, row.threads), end="\n\n", flush=True)
        mine = crew.contender(first, of)
        expected = mine.output()
        for name in names:
            label = {"cython": "fastrnn's layer", first: "fastrnn"}.get(name, name)
            bar.set_description(label)
            try:
                other = crew.contender(name, of, second=True, brief=brief)
            except (ImportError, OSError) as error:
                if name not in AGAINST:
                    raise
                reasons[name] = _broken(name, error)
                bar.update()
                continue
            found = ratios.agreement(other.output(), expected)
            ratio = ratios.compare(mine, other, BUDGET, rounds=1, brief=brief)
            spread = f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
            agreed = f"{found.fraction:.2%}, within {found.difference:.1e}"
            lines.append((label, duration(ratio.other), duration(ratio.other / row.steps), spread, agreed))
            shown.append((label, {"ratio": ratio.median}))
            different += [name] if found.fraction < 1 else []
            bar.update()
    print(_title(row), machine(AGAINST), sep="\n", end="\n\n")
    width = print_table([("engine", "a call", "a step", "time over fastrnn's", "outputs that agree"), *lines])
    for name, reason in reasons.items():
        print(f"{name.ljust(width)}  {reason}")
    print_load()
    if args.plot:
        plots.dots(args.plot, f"Time over fastrnn's: {_title(row)}", shown, line=1)
    if different:
        print(f"fastrnn: error: the outputs of {', '.join(different)} differ from ours", file=sys.stderr)
    return 1 if different else 0


def _call(crew: Crew, name: str, of: Problem) -> float:
    """About how long a call takes, from one on a few of its steps."""
    steps = max(1, of.row.steps // 50)
    part = crew.contender(name, of._replace(row=of.row._replace(steps=steps), x=of.x[:steps]))
    part.output()
    return part.block(1) * of.row.steps / steps


def _calls(name: str, threads: int) -> int:
    """Calls that an engine costs at least, with ours beside it: its output, a block of each, A B B A, settings."""
    tried = len(settings(name, threads))
    return 7 + (5 * tried if tried > 1 else 0)


def _brief(seconds: float, names: Sequence[str], threads: int) -> str:
    on = f", on {threads} threads only" if threads > 1 else ""
    return (
        f"A call takes about {seconds:.2g} s: each engine is timed by few calls, each beside one of ours{on}.\n"
        f"Even so this takes {3 * len(names) * seconds:.0f} s or more; smaller --batch or --steps, or fewer engines "
        "(--against), take less."
    )


def _broken(name: str, error: Exception) -> str:
    again = f"pip install --force-reinstall {' '.join(PACKAGES[name])}"
    return f"does not load here: {error}; try {again}, or leave it out of --against"


def _problem(args: argparse.Namespace) -> Problem:
    """The problem that the arguments describe."""
    given = [name for name in SHAPE if getattr(args, name) is not None]
    if args.model is None:
        shape: dict[str, Any] = SHAPE | {name: getattr(args, name) for name in given}
        return problem(_row(args, **shape))
    if given:
        raise ValueError(f"--model fixes the shape: leave out {', '.join(f'--{name}' for name in given)}")
    try:
        layer = fastrnn.load(args.model)
    except fastrnn.FormatError as error:
        raise fastrnn.FormatError(f"--model takes a file that the save() of a fastrnn layer wrote; {error}") from None
    kind = type(layer).__name__.lower()
    config = layer._config() if kind in GATES else {}
    usual = {"nonlinearity": "tanh", "proj_size": 0, "reset_after": True}
    unusual = [f"{name}={config[name]}" for name, value in usual.items() if config.get(name, value) != value]
    if kind not in GATES or unusual:
        raise ValueError(
            "--model takes an RNN with tanh, an LSTM without projection or a GRU with reset_after=True, "
            f"which all engines have, got {layer!r}; save() such a layer alone"
        )
    row = _row(args, kind, layer.input_size, layer.hidden_size, layer.num_layers, layer.bidirectional, layer.dtype.name)
    drawn = problem(row)
    biases = {name: np.zeros_like(array) for name, array in drawn.weights.items()}  # of a layer without
    return drawn._replace(weights=biases | layer.state_dict())


def _row(
    args: argparse.Namespace,
    cell: str,
    input: int | None,
    hidden: int,
    layers: int,
    bidirectional: bool,
    dtype: str,
) -> Row:
    family = "S" if args.steps == 1 and not bidirectional else "Q" if args.batch == 1 else "B"
    row = Row(
        family,
        cell,
        input or hidden,
        hidden,
        args.batch,
        args.steps,
        layers,
        1 + bidirectional,
        dtype,
        args.threads,
    )
    values = row.weights + row.valid * (row.input_size + row.directions * hidden)
    needed = COPIES * values * np.dtype(dtype).itemsize
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise ValueError(
            "--input, --hidden, --layers, --batch and --steps must ask for no more than this machine's memory of "
            f"{memory // 10**9} GB, got {_title(row)}, which needs about {needed // 10**9} GB: make one of them smaller"
        )
    return row


def _title(row: Row) -> str:
    parts = [f"{row.cell.upper()} {row.input_size}->{row.hidden_size}"]
    parts += [f"{row.layers} layers"] if row.layers > 1 else []
    parts += ["bidirectional"] if row.directions == 2 else []
    parts += [f"B={row.batch}, T={row.steps}", row.dtype, f"{row.threads} thread{'s' * (row.threads > 1)}"]
    return ", ".join(parts)


def machine(packages: Sequence[str]) -> str:
    """Say what runs: the processor, its tier, and the versions of those packages that are installed."""
    cpu = fastrnn.cpu_info()
    versions = [f"fastrnn {fastrnn.__version__}"]
    for name in ("numpy", *packages):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{cpu['model']}, tier {cpu['tier']}; {', '.join(versions)}"


def print_table(lines: Sequence[tuple[str, ...]]) -> int:
    """Print lines in columns and return the first one's width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    return widths[0]


def print_load() -> None:
    """Say where others use the machine too."""
    if os.getloadavg()[0] > BUSY:
        print(f"\nThe load average is {os.getloadavg()[0]:.1f}: the figures hold on a quiet machine only.")


def duration(seconds: float) -> str:
    """Write seconds in their unit."""
    for unit, length in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= length:
            return f"{seconds / length:.4g} {unit}"
    return f"{seconds * 1e9:.4g} ns"


def size(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def threads(text: str) -> int:
    """Read a number of threads."""
    cpus: int = fastrnn.cpu_info()["cpus"]
    if text == "all":
        return cpus
    if not text.isdecimal() or not 1 <= int(text) <= cpus:
        raise argparse.ArgumentTypeError(f"must be all, or a whole number from 1 to {cpus}, got {text!r}")
    return int(text)


def _engines(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in AGAINST]:
        raise argparse.ArgumentTypeError(f"must be of {', '.join(AGAINST)}, got {', '.join(unknown)}")
    return names
