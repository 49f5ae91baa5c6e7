"""Pictures of a layer at work: its gates and states over time, and how much each step matters in the end.

They need matplotlib, the extra ``plot``, and are drawn in grey on nothing: readable on light and on dark pages.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrnn import checks
from fastrnn.cells import variant
from fastrnn.recurrent import Recurrent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["gates", "influence"]

GREY = "#808080"
BLUE, ORANGE, GREEN = COLOURS = ("#4c8bd6", "#e08a2e", "#5fa55a")
STYLE = {
    "svg.fonttype": "none",  # text stays text: small files
    "svg.hashsalt": "fastrnn",
    "text.color": GREY,
    "font.size": 8,
    "figure.facecolor": "none",
    **{f"axes.{name}": GREY for name in ("edgecolor", "labelcolor", "titlecolor")},
    **{f"{axis}tick.color": GREY for axis in "xy"},
}
# What trace() calls them, and what they are
NAMES = {
    "i": "input gate",
    "f": "forget gate",
    "g": "candidate",
    "o": "output gate",
    "r": "reset gate",
    "z": "update gate",
    "n": "candidate",
    "c": "cell state",
    "h": "hidden state",
}


def require() -> None:
    """Raise ImportError, with the cure, where matplotlib is missing."""
    if find_spec("matplotlib") is None:
        raise ImportError("plots need matplotlib: pip install 'fastrnn[plot]'")


def gates(layer: Recurrent, x: Any, labels: Iterable[Any] | None = None, hx: Any = None) -> "Figure":
    """Draw every gate and state of a layer over time, as `layer.trace` gives them: of own cells the gates' sums.

    Parameters
    ----------
    layer : RNN, LSTM, GRU or Recurrent
    x : (T, I) array_like
        One sequence, T >= 1.
    labels : iterable of T labels, optional
        Written below the steps, such as the words or characters that they read. Default: numbers from 0.
    hx : array_like or pair of array_like, optional
        The initial states, as for a call with one sequence.

    Returns
    -------
    matplotlib.figure.Figure
        A heat map for each gate and state, from top to bottom, of each layer and direction, from left to right. Time
        runs to the right, unit 0 is on top; blue is positive, orange negative, the page's own colour 0, grey NaN.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        For wrong shapes, no steps, another number of labels than of steps, and for a layer without weights.
    TypeError
        For anything but a layer, and as for a call.

    Examples
    --------
    >>> import numpy as np, fastrnn.plot
    >>> layer = fastrnn.LSTM(3, 4).init(seed=0)
    >>> figure = fastrnn.plot.gates(layer, np.ones((5, 3)), labels="hello")
    >>> [axes.get_title() for axes in figure.axes[:4]]
    ['input gate i', 'forget gate f', 'candidate g', 'output gate o']
    """
    require()
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    _check_layer(layer)
    traces = layer.trace(x, hx)
    names = _names(labels, len(traces[0]["h"]))
    stops = [(0.0, ORANGE), (0.5, ORANGE + "00"), (0.5, BLUE + "00"), (1.0, BLUE)]  # 00: transparent
    colours = LinearSegmentedColormap.from_list("fastrnn", stops).with_extremes(bad=GREY)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(len(traces) * _width(names), 0.6 + 1.1 * len(traces[0])), layout="constrained")
        panels = figure.subplots(len(traces[0]), len(traces), sharex=True, squeeze=False)
        for row, name in zip(panels, traces[0], strict=True):
            values = [trace[name] for trace in traces]
            limit = max(np.abs(v).max(initial=1.0, where=np.isfinite(v)) for v in values)
            for index, (axes, v) in enumerate(zip(row, values, strict=True)):
                image = axes.imshow(v.T, colours, aspect="auto", interpolation="none", vmin=-limit, vmax=limit)
                axes.set_title(f"{_kind(layer, name)} {name}{_place(layer, index)}", fontsize="medium")
                axes.patch.set_visible(False)
            bar = figure.colorbar(image, ax=list(row))
            bar.ax.patch.set_visible(False)
            bar.solids.set_rasterized(True)  # one picture in place of 256 shapes
        for axes in panels[-1]:
            _label(axes, names)
    return figure


def influence(layer: Recurrent | Mapping[str, Recurrent], x: Any, labels: Iterable[Any] | None = None) -> "Figure":
    """Draw how much the final hidden state changes when the input of one step is left out.

    For each step t this is ``||h_T - h_T without x_t||``, with zeros in place of x_t; h_T is the final hidden state of
    the last layer, of both directions where there are two. All T + 1 runs are one batch, of T (T + 1) I numbers.

    Parameters
    ----------
    layer : RNN, LSTM, GRU or Recurrent, or dict of str to them
        Several are drawn into one picture, under their names.
    x : (T, I) array_like, or dict of str to (T, I) array_like
        One sequence, T >= 1; for several layers one for all, or one for each, of the same T, under the layers' names.
    labels : iterable of T labels, optional
        As for `gates`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError, ValueError, TypeError
        As for `gates`; ValueError also where the names of layers and sequences differ.

    Examples
    --------
    >>> import numpy as np, fastrnn.plot
    >>> layer = fastrnn.RNN.from_weights([[1.0]], [[0.5]], nonlinearity="linear")
    >>> figure = fastrnn.plot.influence(layer, np.ones((4, 1)))
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [0.125, 0.25, 0.5, 1.0]
    """
    require()
    import matplotlib
    from matplotlib.figure import Figure

    layers = layer if isinstance(layer, Mapping) else {"": layer}
    inputs = x if isinstance(x, Mapping) else dict.fromkeys(layers, x)
    if not layers:
        raise ValueError("layer is an empty dict, expected at least one layer in it")
    if inputs.keys() != layers.keys():
        raise ValueError(f"x has the names {list(inputs)}, expected those of layer: {list(layers)}")
    changes = {name: _changes(layers[name], inputs[name]) for name in layers}
    lengths = {name: len(values) for name, values in changes.items()}
    steps = max(lengths.values())
    if min(lengths.values()) < steps:
        raise ValueError(f"the sequences of x must have the same number of steps, got {lengths}")
    names = _names(labels, steps)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_width(names), 2.6), layout="constrained")
        axes = figure.subplots()
        axes.set_prop_cycle(color=COLOURS)
        lines = [axes.plot(values, "o-", markersize=3, linewidth=1)[0] for values in changes.values()]
        axes.set_ylim(bottom=0)
        axes.set_ylabel("change of the final h")
        axes.grid(axis="y", color=GREY, alpha=0.25)
        axes.patch.set_visible(False)
        _label(axes, names)
        if isinstance(layer, Mapping):
            legend = axes.legend(lines, [" "] * len(lines), frameon=False)
            for text, name in zip(legend.get_texts(), changes, strict=True):  # as they are: matplotlib drops "_x"
                text.set_text(str(name))
                text.set_parse_math(False)
    return figure


def _changes(layer: Recurrent, x: Any) -> NDArray[Any]:
    """Return (T,): the distance between the final h and the one without x_t."""
    _check_layer(layer)
    x = checks.readable(x, "x", layer.dtype)
    if x.ndim != 2 or x.shape[1] != layer.input_size:
        raise checks.wrong_input(x.shape, ("T, I",), layer.input_size)
    steps = np.arange(len(x))
    batch = np.repeat(x[:, None], len(x) + 1, axis=1)  # (T, T+1, I): the last row is x itself
    batch[steps, steps] = 0
    _, hx = layer(batch.swapaxes(0, 1) if layer.batch_first else batch)
    h = hx[0] if isinstance(hx, tuple) else hx
    h = h[-1 - layer.bidirectional :]  # (D, T+1, P or H): of the last layer
    changes: NDArray[Any] = np.linalg.norm(h[:, :-1] - h[:, -1:], axis=(0, 2))
    return changes


def _check_layer(layer: Any) -> None:
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer must be an RNN, LSTM or GRU, got {type(layer).__name__}")


def _names(labels: Iterable[Any] | None, steps: int) -> list[str]:
    """Return the labels of the steps, none where numbers will do."""
    if steps == 0:
        raise ValueError("x has no steps, expected T >= 1")
    if labels is None:
        return []
    if not isinstance(labels, Iterable):
        raise TypeError(f"labels must be names, one for each step, got {type(labels).__name__}")
    names = [str(label) for label in labels]
    if len(names) != steps:
        raise ValueError(f"labels has {len(names)} entries, expected T = {steps}: one for each step")
    return names


def _width(names: Sequence[str]) -> float:
    """Return the width of a panel in inches."""
    return max(6.0, 1.2 + 0.18 * len(names))


def _label(axes: "Axes", names: Sequence[str]) -> None:
    """Write labels below the steps, upright where they are words."""
    if names:
        upright = any(len(name) > 2 for name in names)
        axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0, parse_math=False)
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("step")


def _kind(layer: Recurrent, name: str) -> str:
    """Say what a trace's gate or state is: what own cells make of their gates' sums is theirs to say."""
    cell = variant(layer._sizes.variant)
    return "sum of gate" if cell.function is not None and name in cell.gates else NAMES.get(name, "state")


def _place(layer: Recurrent, index: int) -> str:
    """Say which layer and direction a trace is of, where there are several."""
    number, direction = divmod(index, 1 + layer.bidirectional)
    words = [f"layer {number}"] if layer.num_layers > 1 else []
    words += [("forward", "backward")[direction]] if layer.bidirectional else []
    return f" ({', '.join(words)})" if words else ""
