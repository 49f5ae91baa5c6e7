"""What `fastrnn.cell`, `Cell` and `Recurrent` take, refuse, save and show."""

import json
import os
import pickle
import subprocess
import sys

import layer_cases
import numpy as np
import pytest
from cases import DTYPES, same_bits
from layer_cases import equal

import fastrnn
from fastrnn import reference
from fastrnn.cells import variant

pytest.importorskip("numba")

from fastrnn import more_cells, simd


@fastrnn.cell(gates=("i", "f", "g", "o"), states=("h", "c"))
def lstm(i, f, g, o, h, c):
    c = simd.fma(simd.sigmoid(f), c, simd.sigmoid(i) * simd.tanh(g))
    return simd.sigmoid(o) * simd.tanh(c), c


# What a cell may be ---------------------------------------------------------------------------------------------------


def test_simd_on_arrays():
    """What the reference runs is what the kernels run, up to rounding."""
    a, b = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
    assert same_bits(simd.fma(a, 0.5, b), a * np.float32(0.5) + b)
    assert same_bits(simd.where_less(a, 0.0, b, 1.0), np.where(a < 0, b, np.float32(1)))
    assert same_bits(simd.copysign(a, b), np.copysign(a, b))
    assert same_bits(simd.sigmoid(a), reference.sigmoid(a))


def scaled(factor):
    @fastrnn.cell(gates=("a",))
    def cell(a, h):
        return simd.tanh(a) * factor

    return cell


def test_numbers_outside_make_another_kind():
    one, two = scaled(0.5), scaled(0.25)
    assert one.variant.name == scaled(0.5).variant.name != two.variant.name
    layers = [fastrnn.Recurrent(cell, 3, 5, backend="reference").init() for cell in (one, two)]
    x = np.ones((1, 1, 3))
    assert same_bits(layers[0](x)[0], 2 * layers[1](x)[0])


def activated(act):
    @fastrnn.cell(gates=("a",))
    def cell(a, h):
        return act(a)

    return cell


def test_functions_outside_make_another_kind():
    one, two = activated(simd.tanh), activated(simd.sigmoid)
    assert one.variant.name == activated(simd.tanh).variant.name != two.variant.name
    for backend in ("reference", "numba"):
        x = np.ones((1, 1, 3))
        y, z = (fastrnn.Recurrent(cell, 3, 5, backend=backend).init()(x)[0] for cell in (one, two))
        assert np.allclose(z, 1 / (1 + np.exp(-np.arctanh(y))), rtol=1e-5)


tanh = np.tanh  # no function of `simd`, but cells may still use that of the same name


def test_names_of_attributes_are_not_globals():
    @fastrnn.cell(gates=("a",))
    def kind(a, h):
        return simd.tanh(a)

    x = np.ones((1, 1, 3))
    layers = [fastrnn.Recurrent(kind, 3, 5, backend=backend).init() for backend in ("numba", "reference")]
    assert np.allclose(layers[0](x)[0], layers[1](x)[0])


SPAWNS = """
import multiprocessing
import numpy as np
import fastrnn
from fastrnn import simd

@fastrnn.cell(gates=("a",))
def kind(a, h):
    return simd.tanh(a)

def work(layer):
    return layer, layer(np.ones((3, 3)))[0]

if __name__ == "__main__":
    layer = fastrnn.Recurrent(kind, 3, 5, backend="reference").init()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        again, y = pool.map(work, [layer])[0]
    assert np.array_equal(y, work(layer)[1])
    assert np.array_equal(again(np.ones((3, 3)))[0], y)
"""


def test_a_cell_of_a_script_in_processes_that_it_spawns(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SPAWNS)
    subprocess.run([sys.executable, "-P", script], check=True, timeout=120)


def plain(a, h):
    return a


def branches(a, h):
    return a if a > 0 else h


def compares(a, h):
    return (a > 0) * h


def takes_the_least(a, h):
    return min(a, h)


def takes_a_power(a, h):
    return a**2


def adds_in_place(a, h):
    h += a
    return h


def takes_one(a, h):
    return a[0] + h


def has_a_sign(a, h):
    return +a


def makes_a_list(a, h):
    p, q = [a, h]
    return p * q


def imports(a, h):
    import math  # noqa: F401

    return a


def deletes(a, h):
    del h
    return a


def takes_a_bool(a, h):
    return a * YES + h


def takes_too_large_a_number(a, h):
    return a / LARGE


def takes_numbers_alone(a, h):
    return a + simd.fma(2.0, 3.0, 1.0)


YES, LARGE = True, 10**400


def uses_numpy(a, h):
    return np.tanh(a)


def uses_a_function(a, h):
    return plain(a, h)


def lambda_inside(a, h):
    return (lambda x: x)(a)


def sums_up(a, h):
    return (a + h).sum()


def wide(a, h):
    return a * np.float64(1)


def two_states(a, h):
    return a, h


def misordered(h, a):
    return a


@pytest.mark.parametrize(
    ("function", "options", "error", "said"),
    [
        (plain, {"gates": "a"}, TypeError, "gates must be a tuple of names"),
        (plain, {"gates": ()}, ValueError, "gates must be 1 to 8 names, got 0"),
        (plain, {"gates": ["a"] * 9}, ValueError, "gates must be 1 to 8 names, got 9"),
        (plain, {"gates": ("a", "a")}, ValueError, "names of their own"),
        (plain, {"gates": ("bias_ih",)}, ValueError, "do not begin with weight_ or bias_"),
        (plain, {"gates": ("a",), "states": ("c",)}, ValueError, "states must begin with 'h'"),
        (plain, {"gates": ("a",), "states": ("h", "b", "c")}, ValueError, "states must be 1 to 2 names"),
        (plain, {"gates": ("a",), "parameters": "p"}, TypeError, "parameters must be"),
        (plain, {"gates": ("a",), "recurrent": 1}, TypeError, "recurrent must be True or False"),
        (plain, {"gates": ("a", "b"), "apart": "a"}, ValueError, "apart must be the last gate"),
        (plain, {"gates": ("a",), "apart": "a", "recurrent": False}, ValueError, "of a recurrent cell"),
        (plain, {"gates": ("a", "b")}, ValueError, r"has the arguments \('a', 'h'\), expected .* \('a', 'b', 'h'\)"),
        (misordered, {"gates": ("a",)}, ValueError, r"has the arguments \('h', 'a'\)"),
        (plain, {"gates": ("a",), "states": ("h", "c")}, ValueError, "has the arguments"),
        (makes_a_list, {"gates": ("a",)}, TypeError, "uses a list: "),
        (imports, {"gates": ("a",)}, TypeError, "uses an import: "),
        (deletes, {"gates": ("a",)}, TypeError, "uses del: "),
        (takes_a_bool, {"gates": ("a",)}, TypeError, "uses YES, bool: "),
        (takes_too_large_a_number, {"gates": ("a",)}, TypeError, "uses LARGE, which no float holds: "),
        (takes_numbers_alone, {"gates": ("a",)}, TypeError, "simd.fma takes an array at least, got numbers alone"),
        (uses_numpy, {"gates": ("a",)}, TypeError, "uses np, module: .* numbers and the functions of fastrnn.simd"),
        (uses_a_function, {"gates": ("a",)}, TypeError, "uses plain, function"),
        (lambda_inside, {"gates": ("a",)}, TypeError, "defines a function inside"),
        (sums_up, {"gates": ("a",)}, TypeError, "uses .sum, which vectors do not have: .* functions of fastrnn.simd"),
        (wide, {"gates": ("a",)}, TypeError, "uses np, module"),
        (branches, {"gates": ("a",)}, TypeError, "branches uses a (comparison|branch): "),
        (compares, {"gates": ("a",)}, TypeError, "compares uses a comparison: "),
        (takes_the_least, {"gates": ("a",)}, TypeError, "uses min, builtin_function_or_method"),
        (takes_a_power, {"gates": ("a",)}, TypeError, r"uses \*\*: "),
        (adds_in_place, {"gates": ("a",)}, TypeError, r"uses \+=: "),
        (takes_one, {"gates": ("a",)}, TypeError, "uses (an index|.*\\[\\]): "),
        (has_a_sign, {"gates": ("a",)}, TypeError, r"uses a sign \+: "),
        (two_states, {"gates": ("a",)}, ValueError, "for each of its states"),
        (len, {"gates": ("a",)}, TypeError, "decorates a plain function"),
    ],
)
def test_refused(function, options, error, said):
    with pytest.raises(error, match=said):
        fastrnn.cell(**options)(function)


def test_the_compiled_backend_refuses():
    with pytest.raises(fastrnn.UnsupportedError, match="'numba' and 'reference' do"):
        fastrnn.Recurrent(lstm, 3, 4, backend="cython")
    with pytest.raises(fastrnn.UnsupportedError, match="'numba' and 'reference' do"):
        fastrnn.capsule(fastrnn.Recurrent(lstm, 3, 4).init())


# Recurrent and Cell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "layer", "options"),
    [
        ("rnn", fastrnn.RNN(3, 4), {}),
        ("lstm", fastrnn.LSTM(3, 4, 2, bidirectional=True), {"num_layers": 2, "direction": "bidirectional"}),
        ("lstm", fastrnn.LSTM(3, 4, proj_size=2), {"proj_size": 2}),
        ("gru", fastrnn.GRU(3, 4, batch_first=True), {"batch_first": True}),
        (fastrnn.Cell("gru", reset_after=False), fastrnn.GRU(3, 4, reset_after=False), {}),
    ],
)
def test_built_in_kinds(cell, layer, options):
    general = fastrnn.Recurrent(cell, 3, 4, **options).load_state_dict(layer.init().state_dict())
    x = layer_cases.inputs(layer)
    assert equal(general(x), layer(x))


def test_repr():
    layer = fastrnn.Recurrent(lstm, 3, 4, 2, direction="bidirectional", backend="reference", num_threads=1)
    assert repr(layer) == (
        "Recurrent(lstm, 3, 4, num_layers=2, direction=bidirectional, backend=reference, num_threads=1)"
    )
    assert repr(fastrnn.Recurrent("lstm", 3, 4, proj_size=2)) == "Recurrent(Cell('lstm'), 3, 4, proj_size=2)"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"direction": "reverse"}, fastrnn.UnsupportedError, "direction='reverse' is not supported yet"),
        ({"direction": "back"}, ValueError, "direction must be one of"),
        ({"merge": "sum"}, fastrnn.UnsupportedError, "merge='sum'"),
        ({"merge": "add"}, ValueError, "merge must be one of 'concat', 'sum', 'mul', 'ave', got 'add'"),
        ({"padding": "hod"}, ValueError, "padding must be one of 'zero', 'hold', got 'hod'"),
        ({"backward_cell": "grue"}, ValueError, "kind must be one of 'rnn', 'lstm', 'gru', got 'grue'"),
        ({"padding": "hold"}, fastrnn.UnsupportedError, "padding='hold'"),
        ({"backward_cell": "gru"}, fastrnn.UnsupportedError, r"backward_cell=Cell\('gru'\)"),
        ({"proj_size": 2}, fastrnn.UnsupportedError, "proj_size=2 of a cell of kind lstm"),
    ],
)
def test_not_yet(options, error, said):
    with pytest.raises(error, match=said):
        fastrnn.Recurrent(lstm, 3, 4, **options)


@pytest.mark.parametrize(
    ("kind", "options", "error", "said"),
    [
        (lstm, {"clip": 1.0}, fastrnn.UnsupportedError, "clip"),
        ("lstm", {"peephole": True}, fastrnn.UnsupportedError, "peephole"),
        ("lstm", {"peephole": 3}, TypeError, "peephole must be True or False, got 3"),
        ("lstm", {"coupled": "f=1-i"}, fastrnn.UnsupportedError, "coupled"),
        ("lstm", {"coupled": "i"}, ValueError, "coupled must be one of 'f=1-i', 'i=1-f', got 'i'"),
        ("lstm", {"layer_norm": 3}, TypeError, "layer_norm must be one of 'gates', 'ih_hh', got 3"),
        ("lstm", {"reset_after": False}, fastrnn.UnsupportedError, "reset_after"),
        ("grue", {}, ValueError, "kind must be one of"),
        (plain, {}, TypeError, "kind must be 'rnn', 'lstm', 'gru' or what fastrnn.cell returns, got function"),
    ],
)
def test_cell_errors(kind, options, error, said):
    with pytest.raises(error, match=said):
        fastrnn.Cell(kind, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sru", "fast_grnn"])
def test_from_weights(name, dtype):
    cell = getattr(more_cells, name)
    whole = fastrnn.Recurrent(cell, 5, 7, backend="reference", dtype=dtype).init(1)
    weights = {key.removesuffix("_l0"): array for key, array in whole.state_dict().items()}
    parameters = {key: weights[key] for key in cell.variant.parameters}
    matrices = [weights.get(key) for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    options = {"cell": cell, "parameters": parameters, "dtype": dtype, "backend": "reference"}
    layer = fastrnn.Recurrent.from_weights(*matrices, **options)
    x = layer_cases.inputs(whole)
    assert equal(layer(x), whole(x))
    bare = fastrnn.Recurrent.from_weights(*matrices[:2], **options)
    assert not bare.bias
    with pytest.raises(ValueError, match="missing"):
        fastrnn.Recurrent.from_weights(*matrices, **options | {"parameters": {}})
    with pytest.raises(ValueError, match="expected"):
        fastrnn.Recurrent.from_weights(matrices[0][:-1], *matrices[1:], **options)


def test_state_dict():
    layer = fastrnn.Recurrent(more_cells.sru, 3, 4, direction="bidirectional", backend="reference").init()
    shapes = {name: array.shape for name, array in layer.state_dict().items()}
    one = {"weight_ih_l0": (16, 3), "bias_ih_l0": (16,), "v_f_l0": (4,), "v_r_l0": (4,)}
    assert shapes == one | {name + "_reverse": shape for name, shape in one.items()}
    with pytest.raises(ValueError, match=r"v_r_l0 is \(5,\), expected \(H,\) = \(4,\)"):
        layer.load_state_dict(layer.state_dict() | {"v_r_l0": np.zeros(5)})


def test_trace():
    """Gates are shown before the function, which alone knows what it does to them."""
    layer = fastrnn.Recurrent(lstm, 3, 4, backend="reference").init()
    built_in = fastrnn.LSTM(3, 4).load_state_dict(layer.state_dict())
    x = layer_cases.inputs(layer, batch=None)
    (own,), (known,) = layer.trace(x), built_in.trace(x)
    np.testing.assert_allclose(own["c"], known["c"], rtol=1e-6)
    np.testing.assert_allclose(reference.sigmoid(own["f"]), known["f"], rtol=1e-6)


# Files and pickles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [more_cells.sru, lstm, "gru"])
def test_files_and_pickles(cell, tmp_path):
    layer = fastrnn.Recurrent(cell, 3, 4, 2, direction="bidirectional", backend="reference").init()
    x = layer_cases.inputs(layer)
    path = tmp_path / "layer.safetensors"
    layer.save(path)
    for again in (fastrnn.load(path), pickle.loads(pickle.dumps(layer))):
        again.backend = "reference"
        assert equal(again(x), layer(x))
        assert again.__dask_tokenize__() == layer.__dask_tokenize__()


def test_tokens_tell_cells_apart():
    layers = [fastrnn.Recurrent(scaled(factor), 3, 5, backend="reference").init() for factor in (0.5, 0.25)]
    assert layers[0].__dask_tokenize__() != layers[1].__dask_tokenize__()


def test_files_know_no_code(tmp_path):
    """A process that has not defined the cell says so."""
    text = "import fastrnn\n@fastrnn.cell(gates=('a',))\ndef held(a, h):\n    return a\n"
    (tmp_path / "elsewhere.py").write_text(text)
    path = tmp_path / "layer.safetensors"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    }
    program = f"import fastrnn, elsewhere; fastrnn.Recurrent(elsewhere.held, 3, 4).init().save({str(path)!r})"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    with pytest.raises(fastrnn.FormatError, match=r"the cell elsewhere\.held is not defined in this process"):
        fastrnn.load(path)


def test_unknown_variants():
    with pytest.raises(LookupError, match="is not defined in this process: import the module"):
        variant("nowhere.cell-0")


@pytest.mark.parametrize("cell", [{"kind": "gru"}, {"kind": "gru", "reset_after": True, "clip": 1.0}, "gru", None])
def test_files_with_other_cells(cell, tmp_path):
    """What a file says of the cell is these entries and no other."""
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "layer.safetensors"
    fastrnn.Recurrent("gru", 3, 4).init().save(path)
    assert isinstance(fastrnn.load(path), fastrnn.Recurrent)
    header = path.read_bytes()
    size = int.from_bytes(header[:8], "little")
    entry = json.loads(json.loads(header[8 : 8 + size])["__metadata__"]["fastrnn"])
    entry["architecture"]["cell"] = cell
    save_file(load_file(path), path, {"fastrnn": json.dumps(entry)})
    with pytest.raises(fastrnn.FormatError, match="its architecture cannot be read"):
        fastrnn.load(path)
