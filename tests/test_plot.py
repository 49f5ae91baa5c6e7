"""Pictures: what they show is what the layer does, on any page; what cannot be drawn is refused."""

import base64
import io
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import fastrnn
from fastrnn import plot
from fastrnn.cells import VARIANTS

LAYERS = [
    fastrnn.RNN(3, 5).init(),
    fastrnn.LSTM(3, 5, bidirectional=True).init(),
    fastrnn.LSTM(3, 5, num_layers=2, proj_size=2).init(),
    fastrnn.GRU(3, 5, num_layers=2, bidirectional=True, batch_first=True).init(),
    fastrnn.GRU(3, 5, reset_after=False, dtype="float64").init(),
]
DOCS = Path(__file__).parent.parent / "docs"
X = np.random.default_rng(0).standard_normal((6, 3), np.float32)


@pytest.fixture
def matplotlib():
    return pytest.importorskip("matplotlib")


def pixels(figure):
    """The figure as the screen gets it, (height, width, RGBA), drawn under matplotlib's own settings."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_gates_show_the_trace(layer, matplotlib):
    traces = layer.trace(X)
    figure = plot.gates(layer, X)
    panels = [axes for axes in figure.axes if axes.images]
    titles = [axes.get_title() for axes in panels]
    assert len(panels) == len(set(titles)) == len(traces) * len(traces[0])
    for index, axes in enumerate(panels):
        row, column = divmod(index, len(traces))
        name = list(traces[0])[row]
        assert f"{plot.NAMES[name]} {name}" in titles[index]
        np.testing.assert_array_equal(axes.images[0].get_array(), traces[column][name].T)


def test_every_gate_and_state_has_a_name():
    assert plot.NAMES.keys() == {name for variant in VARIANTS.values() for name in variant.gates + variant.states}


@pytest.mark.parametrize("name", ["sru", "ind_rnn", "fast_grnn", "li_gru"])
def test_gates_of_own_cells_are_sums(name, matplotlib):
    cell = getattr(pytest.importorskip("fastrnn.more_cells"), name)
    layer = fastrnn.Recurrent(cell, 3, 5, direction="bidirectional", backend="reference").init()
    figure, (trace, _) = plot.gates(layer, X), layer.trace(X)
    panels = {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}
    titles = [f"{plot.NAMES[state]} {state}" for state in cell.variant.states]
    titles = [f"sum of gate {gate}" for gate in cell.variant.gates] + titles
    for title, values in zip(titles, trace.values(), strict=True):
        np.testing.assert_array_equal(panels[f"{title} (forward)"], values.T)


def test_panels_of_layers_and_directions_are_named(matplotlib):
    figure = plot.gates(fastrnn.RNN(3, 2, num_layers=2, bidirectional=True).init(), X)
    assert [axes.get_title() for axes in figure.axes[:4]] == [
        "hidden state h (layer 0, forward)",
        "hidden state h (layer 0, backward)",
        "hidden state h (layer 1, forward)",
        "hidden state h (layer 1, backward)",
    ]


def test_gates_start_from_a_state(matplotlib):
    layer, hx = fastrnn.GRU(3, 5).init(), np.ones((1, 5), np.float32)
    shown = plot.gates(layer, X, hx=hx).axes[3].images[0].get_array()
    np.testing.assert_array_equal(shown, layer.trace(X, hx)[0]["h"].T)
    assert (shown != layer.trace(X)[0]["h"].T).all()


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_influence_is_that_of_one_step_after_the_other(layer, matplotlib):
    def final(x):
        _, hx = layer(x)
        return (hx[0] if isinstance(hx, tuple) else hx)[-1 - layer.bidirectional :]

    expected = []
    for t in range(len(X)):
        without = X.copy()
        without[t] = 0
        expected.append(np.linalg.norm(final(X) - final(without)))
    (line,) = plot.influence(layer, X).axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-6)
    assert min(expected) > 0


def test_several_layers_share_a_picture(matplotlib):
    rnn, lstm = LAYERS[:2]
    wide = fastrnn.LSTM(7, 5).init()
    axes = plot.influence({"one": rnn, "two": lstm}, X).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    for layer, line in zip((rnn, lstm), axes.lines, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), plot.influence(layer, X).axes[0].lines[0].get_ydata())
    axes = plot.influence({"one": rnn, "two": wide}, {"one": X, "two": np.ones((6, 7))}).axes[0]
    assert axes.lines[0].get_color() != axes.lines[1].get_color()


def test_names_of_layers_stand_as_they_are(matplotlib):
    names = ["_x", "$a$", "x$\\foo$"]
    figure = plot.influence(dict.fromkeys(names, LAYERS[0]), X)
    texts = figure.axes[0].get_legend().get_texts()
    assert [text.get_text() for text in texts] == names
    assert not any(text.get_parse_math() for text in texts)
    figure.savefig(io.BytesIO())


@pytest.mark.parametrize("draw", [plot.gates, plot.influence])
def test_labels_stand_below_their_steps(draw, matplotlib):
    figure = draw(LAYERS[0], X, ["to", "be", 3, "$or$", "not", "to"])
    axes = next(axes for axes in figure.axes[::-1] if axes.images or axes.lines)
    assert list(axes.get_xticks()) == list(range(6))
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == ["to", "be", "3", "$or$", "not", "to"]
    assert {label.get_rotation() for label in labels} == {90.0}
    assert not any(label.get_parse_math() for label in labels)
    letters = draw(LAYERS[0], X, "letter").axes[0].get_xticklabels()
    assert {label.get_rotation() for label in letters} == {0.0}


@pytest.mark.parametrize("labels", [None, "letter"])
@pytest.mark.parametrize("draw", [plot.gates, plot.influence])
def test_pictures_are_readable_on_light_and_on_dark(draw, labels, matplotlib):
    found = pixels(draw(LAYERS[1], X, labels) if draw is plot.gates else draw({"a": LAYERS[0]}, X, labels)) / 255
    assert (found[[0, 0, -1, -1], [0, -1, 0, -1], 3] == 0).all()  # the page shows through
    assert (found[..., 3] == 0).mean() > 0.3
    brightness = found[found[..., 3] > 0.5][:, :3] @ [0.2126, 0.7152, 0.0722]
    assert 0.3 < brightness.min() <= brightness.max() < 0.75


def test_zero_is_the_pages_colour(matplotlib):
    layer = fastrnn.RNN.from_weights([[1.0], [0.0], [-1.0]], np.zeros((3, 3)), nonlinearity="linear")
    image = plot.gates(layer, [[0.5]]).axes[0].images[0]
    opacity = image.to_rgba(image.get_array())[:, 0, 3]
    np.testing.assert_allclose(opacity, [0.5, 0, 0.5], atol=0.01)


def test_nan_is_grey(matplotlib):
    x = X.copy()
    x[3:] = np.nan
    image = plot.gates(LAYERS[0], x).axes[0].images[0]
    assert image.get_clim() == (-1, 1)
    colours = image.to_rgba(image.get_array())
    np.testing.assert_allclose(colours[:, 3:], np.broadcast_to([0.502, 0.502, 0.502, 1], (5, 3, 4)), atol=1e-3)
    assert not np.allclose(colours[:, 0, :3], 0.502, atol=1e-3)


def test_pictures_warn_of_nothing_and_start_no_window(matplotlib):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.gates(LAYERS[0], X[:1]).savefig(io.BytesIO(), format="svg")
        plot.influence(LAYERS[0], X[:1], "x").savefig(io.BytesIO(), format="svg")
    code = """
import sys, numpy as np, fastrnn.plot
assert "matplotlib" not in sys.modules
fastrnn.plot.gates(fastrnn.RNN(1, 1).init(), np.ones((2, 1)))
fastrnn.plot.influence(fastrnn.RNN(1, 1).init(), np.ones((2, 1)))
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def words(svg):
    return [text.text for text in svg.iterfind(".//{*}text")]


def points(svg):
    """Curves, grids and frames of all axes, in parts of the frame, which another matplotlib may place otherwise."""
    found = []
    for axes in svg.iterfind(".//{*}g"):
        if axes.get("id", "").startswith("axes_"):
            paths = [*axes.iterfind("{*}g/{*}path"), *axes.iterfind("{*}g/{*}g/{*}g/{*}path")]
            numbers = re.findall(r"-?[\d.]+", " ".join(path.get("d") for path in paths))
            part = np.array(numbers, float).reshape(-1, 2)
            found.append((part - part.min(0)) / np.ptp(part, axis=0))
    return np.concatenate(found)


def heat_maps(svg):
    """The colours of every unit and step; the bars beside them have no style."""
    from matplotlib.image import imread

    links = [image.get("{http://www.w3.org/1999/xlink}href") for image in svg.iterfind(".//{*}image[@style]")]
    return [imread(io.BytesIO(base64.b64decode(link.partition(",")[2]))) for link in links]


def outline(path):
    """All that the numbers of places and sizes stand in."""
    text = re.sub(r'base64,[^"]*|(id="|#)[a-z]+[0-9a-f]{10}', "", path.read_text(encoding="utf-8"))
    return re.sub(r"(?<![\w#])-?\d[\d.]*(?!\w)", "", text)


def test_the_figures_of_the_docs_are_those_that_the_script_draws(tmp_path, matplotlib):
    """Colours of lines and labels are compared where the matplotlib is that of the docs, whose SVG this is."""
    runpy.run_path(str(DOCS / "figures.py"))["main"](tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in (DOCS / "figures").iterdir()}
    for name in names:
        paths = tmp_path / name, DOCS / "figures" / name
        ours, theirs = map(ElementTree.parse, paths)
        assert words(ours) == words(theirs)
        np.testing.assert_allclose(points(ours), points(theirs), rtol=0, atol=0.002)
        for a, b in zip(heat_maps(ours), heat_maps(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=0.01)
        if f"Matplotlib v{matplotlib.__version__}," in paths[1].read_text(encoding="utf-8"):
            assert outline(paths[0]) == outline(paths[1])
    assert names == set(re.findall(r"\]\(figures/(.*?)\)", (DOCS / "networks.md").read_text(encoding="utf-8")))
    assert max(path.stat().st_size for path in (DOCS / "figures").iterdir()) < 200_000


@pytest.mark.parametrize("draw", [plot.gates, plot.influence])
def test_without_matplotlib_the_cure_is_named(draw, monkeypatch):
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'fastrnn\[plot\]'"):
        draw(LAYERS[0], X)


RNN = LAYERS[0]
BOTH = [
    (lambda draw: draw(RNN, X[:, :2]), ValueError, r"x is \(6, 2\), expected \(T, I\) = \(T, 3\)"),
    (lambda draw: draw(RNN, X.T), ValueError, r"x is \(3, 6\), expected \(T, I\) = \(T, 3\): pass x\.T"),
    (lambda draw: draw(RNN, X[None]), ValueError, r"x is \(1, 6, 3\), expected \(T, I\)"),
    (lambda draw: draw(RNN, X[:0]), ValueError, r"x has no steps, expected T >= 1"),
    (lambda draw: draw(RNN, X + 0j), TypeError, r"x must hold floats"),
    (lambda draw: draw(RNN, X, 3), TypeError, r"labels must be names, one for each step, got int"),
    (lambda draw: draw(RNN, X, "hello"), ValueError, r"labels has 5 entries, expected T = 6: one for each step"),
    (lambda draw: draw(fastrnn.RNN(3, 5), X), ValueError, r"has no weights: call load_state_dict"),
    (lambda draw: draw(fastrnn.RNNCell(3, 5).init(), X), TypeError, r"layer must be an RNN, .*, got RNNCell"),
    (lambda draw: draw(None, X), TypeError, r"layer must be an RNN, LSTM or GRU, got NoneType"),
]


@pytest.mark.parametrize("draw", [plot.gates, plot.influence])
@pytest.mark.parametrize(("call", "kind", "message"), BOTH, ids=[message for *_, message in BOTH])
def test_what_cannot_be_drawn_is_refused(draw, call, kind, message, matplotlib):
    with pytest.raises(kind, match=message):
        call(draw)


INFLUENCE = [
    (({}, X), r"layer is an empty dict, expected at least one layer"),
    (({"a": RNN}, {"b": X}), r"x has the names \['b'\], expected those of layer: \['a'\]"),
    (({"a": RNN, "b": RNN}, {"a": X, "b": X[:4]}), r"the same number of steps, got {'a': 6, 'b': 4}"),
]


@pytest.mark.parametrize(("arguments", "message"), INFLUENCE, ids=[message for _, message in INFLUENCE])
def test_layers_and_sequences_that_do_not_fit_are_refused(arguments, message, matplotlib):
    with pytest.raises(ValueError, match=message):
        plot.influence(*arguments)
