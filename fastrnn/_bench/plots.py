"""One kind of plot: a dot per row and series on a common axis, readable on light and on dark pages."""

import os
from collections.abc import Sequence
from pathlib import Path

from fastrnn.plot import COLOURS, GREY, STYLE, require

__all__ = ["check", "dots"]

FORMATS = (".svg", ".png", ".pdf")


def check(path: Path) -> None:
    """Raise ValueError for a name that is no plot's, OSError where it cannot be written, ImportError for matplotlib."""
    if path.suffix not in FORMATS:
        raise ValueError(f"the name of a plot must end in one of {', '.join(FORMATS)}, got {str(path)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"a plot needs a folder that is there, got {str(path)!r}: make {str(path.parent)!r} first"
        )
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(f"a plot needs a file that may be written, got {str(path)!r}: choose another one")
    require()


def dots(path: Path, title: str, rows: Sequence[tuple[str, dict[str, float]]], line: float, log: bool = False) -> None:
    """Write a plot.

    Parameters
    ----------
    path : Path
        Its suffix is the format.
    title : str
    rows : sequence of (str, dict)
        Label, and values by the name of the series; from top to bottom.
    line : float
        Drawn as a vertical line: what the values are to be compared with.
    log : bool
        Whether the axis is logarithmic.

    Raises
    ------
    ValueError, OSError, ImportError
        As `check`.
    """
    check(path)
    import matplotlib
    from matplotlib.figure import Figure

    series = list(dict.fromkeys(name for _, values in rows for name in values))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 1 + 0.16 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.patch.set_visible(False)
        for size, name, colour in zip(range(len(series), 0, -1), series, COLOURS, strict=False):
            points = [(values[name], i) for i, (_, values) in enumerate(rows) if name in values]
            axes.scatter(*zip(*points, strict=True), s=14 * size, color=colour, label=name)  # none hides an earlier one
        axes.axvline(line, color=GREY, linewidth=1)
        axes.set_xscale("log" if log else "linear")
        if log:
            low, high = axes.get_xlim()
            ticks = [tick for tick in (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64) if low <= tick <= high]
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        else:
            axes.set_xlim(left=0)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(axis="x", color=GREY, alpha=0.25)
        axes.tick_params(top=True, labeltop=True)
        axes.set_title(title)
        if len(series) > 1:
            figure.legend(frameon=False, labelcolor=GREY, loc="outside lower right", ncols=len(series))
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata)
