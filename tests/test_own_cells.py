"""Own cells: those of the package against their papers' equations, two of the built-in ones against themselves."""

import os
import subprocess
import sys
import textwrap

import layer_cases
import numpy as np
import pytest
from cases import same_bits
from layer_cases import by_steps, equal

import fastrnn

pytest.importorskip("numba")

from fastrnn import jit, more_cells, simd


@fastrnn.cell(gates=("r", "z", "n"), apart="n")
def gru(r, z, n_x, n_h, h):
    r, z = simd.sigmoid(r), simd.sigmoid(z)
    n = simd.tanh(simd.fma(r, n_h, n_x))
    return simd.fma(z, h, simd.fma(-z, n, n))


@fastrnn.cell(gates=("i", "f", "g", "o"), states=("h", "c"))
def lstm(i, f, g, o, h, c):
    c = simd.fma(simd.sigmoid(f), c, simd.sigmoid(i) * simd.tanh(g))
    return simd.sigmoid(o) * simd.tanh(c), c


TWINS = {"gru": gru, "lstm": lstm}


def twins(kind, inputs, hidden, **options):
    """Make a built-in layer on numba, and the same of an own cell."""
    built_in = layer_cases.make(kind, inputs, hidden, backend="numba", **options)
    if options.pop("bidirectional", False):
        options["direction"] = "bidirectional"
    own = fastrnn.Recurrent(TWINS[kind], inputs, hidden, **options)
    return built_in, own.load_state_dict(built_in.state_dict())


# Own cells that do what a built-in one does have its bits -------------------------------------------------------------


@pytest.mark.parametrize(("kind", "dtype"), [("gru", np.float32), ("lstm", np.float32), ("lstm", np.float64)])
@pytest.mark.parametrize(
    ("inputs", "hidden", "batch", "steps", "options"),
    [
        (3, 1, 3, 5, {}),
        (37, 33, 1, 40, {"num_layers": 2, "bidirectional": True}),
        (64, 128, 1, 60, {}),  # projects inputs on the way
        (17, 16, 37, 9, {"num_layers": 2, "batch_first": True}),
        (5, 15, 7, 6, {"bias": False}),
        (5, 17, 0, 6, {}),
        (5, 17, 3, 0, {}),
    ],
)
def test_twins(kind, dtype, inputs, hidden, batch, steps, options):
    built_in, own = twins(kind, inputs, hidden, dtype=dtype, **options)
    x = layer_cases.inputs(built_in, steps, batch)
    hx = layer_cases.initial(built_in, batch)
    assert equal(own(x), built_in(x))
    lengths = np.arange(batch) % (steps + 1)
    assert equal(own(x, hx, lengths=lengths), built_in(x, hx, lengths=lengths))


@pytest.mark.parametrize("kind", TWINS)
def test_streams(kind):
    built_in, own = twins(kind, 5, 17, num_layers=2)
    x = layer_cases.inputs(own, 12, 4)
    y, state = built_in(x)
    stream = own.stream(4)
    assert same_bits(by_steps(stream, x[:5]), y[:5])
    assert same_bits(stream.push(x[5:]), y[5:])
    assert equal(stream.get_state(), state)
    stream.reset()
    assert same_bits(stream.step(x[0, [2, 0]], rows=[2, 0]), y[0, [2, 0]])


@pytest.mark.parametrize("hidden", [16, 17, 33, 48, 64])
def test_one_row_of_four_gates(hidden):
    """A row alone, of few units, takes two blocks at a time; rows together do not."""

    @fastrnn.cell(gates=("i", "f", "g", "o"), states=("h", "c"), parameters=("p", "q", "s"))
    def peephole(i, f, g, o, h, c, p, q, s):
        c_new = simd.fma(simd.sigmoid(simd.fma(q, c, f)), c, simd.sigmoid(simd.fma(p, c, i)) * simd.tanh(g))
        return simd.sigmoid(simd.fma(s, c_new, o)) * simd.tanh(c_new), c_new

    layer = fastrnn.Recurrent(peephole, 3, hidden).init(seed=0)
    x = layer_cases.inputs(layer, 9, 3)
    y, _ = layer(x)
    assert same_bits(layer(x[:, 1])[0], y[:, 1])
    stream = layer.stream()
    assert same_bits(np.stack([stream.step(now) for now in x[:, 2]]), y[:, 2])
    layer.backend = "reference"
    assert np.abs(layer(x)[0] - y).max() < 1e-6


SCALE = 0.5


def test_numbers_from_outside_are_fixed(monkeypatch):
    def make(scale):
        @fastrnn.cell(gates=("a",))
        def scaled(a, h):
            return simd.tanh(a) * scale * SCALE

        return scaled

    x = np.ones((1, 3), np.float32)
    kinds = [make(scale) for scale in (1.0, 8.0)]
    monkeypatch.setitem(globals(), "SCALE", 7.0)  # before anything is compiled
    for backend in ("numba", "reference"):
        one, eight = (fastrnn.Recurrent(kind, 3, 4, backend=backend).init(0)(x)[0] for kind in kinds)
        np.testing.assert_allclose(eight, 8 * one, rtol=1e-6)
        assert np.abs(one).max() < 0.5
    assert abs(kinds[0](np.full(1, 9.0), np.zeros(1)) - 0.5) < 1e-6


def test_integers_are_floats():
    large, larger = 3_000_000_000, 40_000_000_000_000_000_000

    @fastrnn.cell(gates=("a",))
    def wide(a, h):
        p, q = 3_000_000_000, 4_000_000_000
        return a * (large * large) * 1e-19 + 30_000_000_000_000_000_000 / larger + p * q * 1e-19

    x = np.ones((3, 2, 3), np.float32)
    found, wanted = (fastrnn.Recurrent(wide, 3, 4, backend=b).init(0)(x)[0] for b in ("numba", "reference"))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_inside_numba():
    import numba

    @numba.njit
    def run(w, x, y):
        state = jit.init_state(w, x.shape[1])
        for t in range(len(x)):
            jit.step(w, x[t], state, y[t])
        return state

    layer = fastrnn.Recurrent(more_cells.sru, 5, 17, 2).init()
    x = layer_cases.inputs(layer, 6, 3)
    y, state = layer(x)
    written = np.empty_like(y)
    assert equal(run(jit.pack(layer), x, written), state)
    assert same_bits(written, y)


def test_models():
    """By ids and by their vectors, beside layers of the compiled backend, with an output layer."""
    rng = np.random.default_rng(0)
    layers = [fastrnn.Recurrent(gru, 11, 17).init(), fastrnn.LSTM(17, 9).init()]
    model = fastrnn.SequenceModel(
        layers, embedding="one_hot", head=fastrnn.Dense(rng.normal(size=(4, 9)), None, "tanh")
    )
    ids = rng.integers(0, 11, (3, 6))
    y = model.predict(ids)
    vectors = np.eye(11, dtype=np.float32)[ids]
    assert same_bits(model.predict(vectors), y)
    stream = model.stream(3)
    assert same_bits(by_steps(stream, ids, 1), y)


def test_generation():
    """All on numba, where the loop over tokens is compiled."""
    with fastrnn.use_backend("numba"):
        layer = fastrnn.Recurrent(more_cells.sru, 11, 17).init()
        head = fastrnn.Dense(np.random.default_rng(0).normal(size=(11, 17)), None, "softmax")
        model = fastrnn.SequenceModel(layer, embedding="one_hot", head=head)
        tokens = model.generate([1, 2], 9, n=3, seed=5)
        assert np.array_equal(model.generate([1, 2], 9, seed=6), tokens[1])
        assert np.array_equal(list(model.generate_iter([1, 2], 9, seed=6)), tokens[1])


# Those of the package against their papers' equations -----------------------------------------------------------------


def s(x):
    return 1 / (1 + np.exp(-x))


def g(x):
    return np.where(x >= 0, x + 0.5, s(x))


def li_gru(a, h, c):
    z, n = s(a["z"]), np.maximum(0, a["n"])
    return z * h + (1 - z) * n, c


def fast_grnn(a, h, c, b_z, b_n, zeta, nu):
    z, n = s(a["a"] + b_z), np.tanh(a["a"] + b_n)
    return (zeta * (1 - z) + nu) * n + z * h, c


def sru(a, h, c, v_f, v_r):
    f, r = s(a["f"] + v_f * c), s(a["r"] + v_r * c)
    new = f * c + (1 - f) * a["n"]
    return r * new + (1 - r) * a["p"], new


def minimal_gru(function):
    return lambda a, h, c: ((1 - s(a["z"])) * h + s(a["z"]) * function(a["n"]), c)


def minimal_lstm(function):
    def step(a, h, c):
        f, i = s(a["f"]), s(a["i"])
        return f / (f + i) * h + i / (f + i) * function(a["n"]), c

    return step


PAPERS = {
    "fast_grnn": fast_grnn,
    "ind_rnn": lambda a, h, c, u: (np.maximum(0, a["h_new"] + u * h), c),
    "li_gru": li_gru,
    "min_gru": minimal_gru(lambda n: n),
    "min_gru_positive": minimal_gru(g),
    "min_lstm": minimal_lstm(lambda n: n),
    "min_lstm_positive": minimal_lstm(g),
    "sru": sru,
}


def by_paper(layer, x, reverse=False):
    """Run the equations of a layer's cell in float64: x (T, B, I)."""
    kind = layer._cell.kind.variant
    ending = "_l0" + "_reverse" * reverse
    weights = {name: np.float64(w) for name, w in layer.state_dict().items()}
    over_x = x @ weights["weight_ih" + ending].T + weights["bias_ih" + ending]
    h = c = np.zeros((x.shape[1], layer.hidden_size))
    parameters = [weights[name + ending] for name in kind.parameters]
    y = np.empty((*x.shape[:2], layer.hidden_size))
    for t in range(len(x))[:: -1 if reverse else 1]:
        a = over_x[t]
        if kind.recurrent:
            a = a + h @ weights["weight_hh" + ending].T + weights["bias_hh" + ending]
        h, c = PAPERS[kind.function.__name__](
            dict(zip(kind.gates, np.split(a, len(kind.gates), -1), strict=True)), h, c, *parameters
        )
        y[t] = h
    return y


def test_every_cell_has_its_paper():
    assert sorted(PAPERS) == sorted(more_cells.__all__)


@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize("name", PAPERS)
def test_papers(name, backend):
    cell = getattr(more_cells, name)
    layer = fastrnn.Recurrent(cell, 5, 37, direction="bidirectional", backend=backend).init(3)
    x = np.random.default_rng(0).normal(size=(20, 3, 5)).astype(np.float32)
    y, _ = layer(x)
    wanted = np.concatenate([by_paper(layer, np.float64(x), reverse) for reverse in (False, True)], -1)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)
    assert same_bits(layer(x[:, 1:2])[0], y[:, 1:2])
    assert same_bits(layer(x, lengths=[20, 7, 0])[0][:7, 1, :37], y[:7, 1, :37])


@pytest.mark.parametrize("name", PAPERS)
def test_float64(name):
    cell = getattr(more_cells, name)
    backend = "numba" if name == "fast_grnn" else "reference"  # each takes seconds to compile
    layer = fastrnn.Recurrent(cell, 5, 17, dtype="float64", backend=backend).init(3)
    x = np.random.default_rng(0).normal(size=(20, 3, 5))
    np.testing.assert_allclose(layer(x)[0], by_paper(layer, x), rtol=1e-12, atol=1e-14)


# Most gates, states and parameters; the narrowest registers -----------------------------------------------------------

MOST = """
import fastrnn
from fastrnn import simd

SLOPE = 0.25

@fastrnn.cell(
    gates=tuple("abcdefgi"), states=("h", "m"), parameters=("p", "q", "r", "s", "t", "u", "v", "w"), apart="i"
)
def most(a, b, c, d, e, f, g, i_x, i_h, h, m, p, q, r, s, t, u, v, w):
    one = simd.tanh(a + p) * simd.sigmoid(b * q) + simd.relu(c - r) * SLOPE
    two = simd.where_less(d, e, simd.absolute(f) + s, simd.copysign(g, t)) / (2 + simd.absolute(u))
    return simd.tanh(one + two + v * h), simd.fma(0.5, m, i_x * w - i_h)
"""


def test_the_most_of_all(tmp_path):
    """Where a vector has 4 floats, and there are 16 of them, the bits are the same."""
    (tmp_path / "most_of_all.py").write_text(MOST)
    program = textwrap.dedent("""
        import sys
        import numpy as np
        sys.path.insert(0, sys.argv[1])
        import fastrnn, most_of_all
        from fastrnn.numba_kernels.target import registers
        layer = fastrnn.Recurrent(most_of_all.most, 5, 37, 2).init(1)
        x = np.random.default_rng(0).normal(size=(9, 8, 5)).astype(np.float32)
        y, (h, m) = layer(x)
        again = fastrnn.Recurrent(most_of_all.most, 5, 37, 2, backend="reference").load_state_dict(layer.state_dict())
        for a, b in zip((y, h, m), (again(x)[0], *again(x)[1])):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        print(registers().width, y.tobytes().hex(), h.tobytes().hex(), m.tobytes().hex())
    """)
    found = []
    for cpu in ("", "x86-64"):
        if cpu and os.uname().machine != "x86_64":
            pytest.skip("needs an x86-64 processor")
        environment = os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""} if cpu else dict(os.environ)
        command = [sys.executable, "-c", program, str(tmp_path)]
        found.append(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    (_, *bits), (width, *narrow) = map(str.split, found)
    assert width == "16"
    assert bits == narrow


def test_a_cache_does_not_import_the_cells_module(tmp_path):
    """It may be a script, or be found elsewhere in the next process."""
    program = textwrap.dedent("""
        import sys
        import numpy as np
        cells = {"__name__": "of_this_process"}
        exec(sys.argv[1], cells)
        import fastrnn
        from fastrnn.numba_kernels.phases import run_gates
        layer = fastrnn.Recurrent(cells["most"], 5, 7).init(1)
        print(layer(np.ones((3, 2, 5)))[0].tobytes().hex(), sum(run_gates.stats.cache_hits.values()))
    """)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    found = [
        subprocess.run(
            [sys.executable, "-c", program, MOST], env=environment, check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert found[0][0] == found[1][0]
    assert [hits for _, hits in found] == ["0", "1"]
