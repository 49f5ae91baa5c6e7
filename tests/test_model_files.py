"""Saved models of several layers: what comes back, and what broken and hostile files meet."""

import contextlib
import json
import struct
import tracemalloc

import numpy as np
import pytest
from cases import DTYPES, same_bits
from layer_cases import initial, make
from model_cases import MODELS, dense, intents, matrix, sequences

import fastrnn
from fastrnn import files


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back(tmp_path, name, dtype):
    model = MODELS[name](dtype, wiring="many_to_one", pool="mean")
    model.save(tmp_path / "model.safetensors")
    again = fastrnn.load(tmp_path / "model.safetensors")
    assert type(again) is fastrnn.SequenceModel
    assert repr(again) == repr(model)
    assert (again.wiring, again.pool, again.labels, again.vocabulary) == ("many_to_one", "mean", None, None)
    x = sequences(model)
    assert same_bits(again.predict(x), model.predict(x))
    assert same_bits(again.predict(x, wiring="many_to_many"), model.predict(x, wiring="many_to_many"))


def full(**config):
    """A model with everything that is saved."""
    layer = make("lstm", 4, 7)
    layer.initial_state = initial(layer, batch=None)
    vocabulary = fastrnn.Vocabulary(["<pad>", "你", "好", "\ud800"], pad="<pad>")
    settings = {"embedding": matrix(4, 4), "vocabulary": vocabulary, "labels": ["nein", "ja"], "pool": "last"}
    head = [dense(5, 7, "tanh", bias=False), dense(2, 5, "softmax")]
    return fastrnn.SequenceModel(layer, head=head, wiring="many_to_one", **settings | config)


def test_everything_comes_back(tmp_path):
    model = full()
    model.save(tmp_path / "model")
    again = fastrnn.load(tmp_path / "model")
    assert again.vocabulary == model.vocabulary
    assert again.labels == ("nein", "ja")
    assert same_bits(again.layers[0].initial_state, model.layers[0].initial_state)
    assert same_bits(again.embedding, model.embedding)
    assert same_bits(again.predict(again.vocabulary.encode("你好")), model.predict([1, 2]))


def test_the_file_says_what_is_in_it(tmp_path):
    from safetensors import safe_open

    full().save(tmp_path / "model")
    with safe_open(tmp_path / "model", framework="numpy") as file:
        assert set(file.keys()) == {
            *(f"layers.0.{name}" for name in make("lstm").state_dict()),
            *("layers.0.initial_state_h", "layers.0.initial_state_c", "embedding.weight"),
            *("head.0.weight", "head.1.weight", "head.1.bias"),
        }
        assert list(file.metadata()) == ["fastrnn"]
        assert json.loads(file.metadata()["fastrnn"])["architecture"]["kind"] == "SequenceModel"


def test_the_same_model_is_the_same_bytes(tmp_path):
    for name in range(10):
        full().save(tmp_path / str(name))
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_what_load_would_refuse_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LARGEST_HEADER", 1000)
    with pytest.raises(ValueError, match=r"vocabulary and labels take \d+ bytes in a file, and may take 1000"):
        intents(labels=["a" * 1000, "b", "c"]).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"GRU\(2, 3\) has no weights"):
        fastrnn.SequenceModel(fastrnn.GRU(2, 3)).save(tmp_path / "model")


# Broken and hostile files ---------------------------------------------------------------------------------------------


def write(path, header, data=b""):
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


@pytest.fixture
def saved(tmp_path):
    """The header and the data of a saved model."""
    full().save(tmp_path / "saved")
    raw = (tmp_path / "saved").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def test_a_name_twice(tmp_path, saved):
    header, data = saved
    entry = header["__metadata__"]["fastrnn"]
    twice = dict(header, __metadata__={"fastrnn": entry[:-1] + ', "format": 1}'})
    with pytest.raises(fastrnn.FormatError, match="a name twice among"):
        fastrnn.load(write(tmp_path / "twice", twice, data))


def changed(header, change):
    entry = json.loads(header["__metadata__"]["fastrnn"])
    change(entry["architecture"])
    return dict(header, __metadata__={"fastrnn": json.dumps(entry)})


def sets(**entries):
    return lambda architecture: architecture.update(entries)


def layer(**entries):
    return lambda architecture: architecture["layers"][0].update(entries)


def vocabulary(**entries):
    return lambda architecture: architecture["vocabulary"].update(entries)


def head(**entries):
    return lambda architecture: architecture["head"][1].update(entries)


GRU = {"kind": "GRU", **fastrnn.GRU(4, 7)._config(), "dtype": "float32"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (sets(kind="Sequence"), "belong to no layer"),
        (sets(kind=3), "belong to no layer"),
        (sets(dtype="float64"), r"layers\.0\.dtype is 'float32', and the model's float64"),
        (sets(dtype="int8"), "cannot be read.*dtype must be float32"),
        (sets(layers=[]), "tensors of 4 parts, and its architecture 3"),
        (sets(layers=3), "cannot be read"),
        (sets(layers="L"), "cannot be read"),
        (sets(layers=[GRU]), r"6 tensors are not what GRU\(4, 7\) has"),
        (sets(layers=[{"kind": "GRUCell", "dtype": "float32"}]), "missing or unknown"),
        (sets(layers=[{"kind": "SequenceModel", "dtype": "float32"}]), "cannot be read.*SequenceModel"),
        (sets(layers=[3]), "cannot be read"),
        (sets(layers=[{}]), "cannot be read.*kind"),
        (sets(head=[]), "tensors of 4 parts, and its architecture 2"),
        (sets(head=None), "cannot be read"),
        (sets(head=[GRU, GRU]), r"1 tensors are not what GRU\(4, 7\) has"),
        (sets(embedding=None), "tensors of 4 parts, and its architecture 3"),
        (sets(embedding="one_hot"), "tensors of 4 parts, and its architecture 3"),
        (sets(embedding=[[1.0]]), "tensors of 4 parts, and its architecture 3"),
        (sets(wiring="loop"), "cannot be read.*wiring must be one of"),
        (sets(pool=None), "cannot be read.*pool must be one of"),
        (sets(labels=["one"]), "cannot be read.*labels must be 2"),
        (sets(labels=[1, 2]), "cannot be read.*labels must be a sequence of 2 str"),
        (vocabulary(tokens=["<pad>"]), "cannot be read.*vocabulary has 1 tokens, embedding 4 rows"),
        (vocabulary(tokens="abcd"), "cannot be read.*tokens must be a sequence"),
        (vocabulary(path="b"), r"cannot be read.*\['path'\] are missing or unknown"),
        (lambda architecture: architecture["vocabulary"].pop("unit"), r"\['unit'\] are missing or unknown"),
        (sets(vocabulary=["a"]), "cannot be read"),
        (sets(extra=1), r"\['extra'\] are missing or unknown"),
        (lambda architecture: architecture.pop("pool"), r"\['pool'\] are missing or unknown"),
        (layer(hidden_size=8), r"'layers\.0\.weight_ih_l0' is F32 \(28, 4\), expected float32 \(32, 4\)"),
        (layer(input_size=10**12), r"expected float32 \(28, 1000000000000\)"),
        (layer(num_layers=10**12), "6 tensors are not what"),
        (layer(num_layers=10**300), "num_layers must be an int in 1..1099511627776"),
        (layer(bidirectional=True), "6 tensors are not what"),
        (layer(dtype="float64"), r"layers\.0\.dtype is 'float64', and the model's float32"),
        (layer(kind="Dense"), r"missing or unknown"),
        (head(bias=False), r"head\.1\.\* has the tensors \['bias', 'weight'\], expected \['weight'\]"),
        (head(bias=1), "bias must be True or False"),
        (head(activation="elu"), "activation must be one of"),
        (head(path="/"), r"\['path'\] are missing or unknown"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_architectures_that_do_not_fit(tmp_path, saved, change, message):
    header, data = saved
    with pytest.raises(fastrnn.FormatError, match=message):
        fastrnn.load(write(tmp_path / "model", changed(header, change), data))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"embedding.weight": "embedding.table"}, "'embedding.weight' is missing, or not alone"),
        ({"embedding.weight": "weight"}, "'embedding.weight' is missing, or not alone"),
        ({"head.0.weight": "head.2.weight"}, r"head\.0\.\* has the tensors \[\], expected \['weight'\]"),
        ({"head.1.bias": "head.0.bias"}, r"head\.0\.\* has the tensors \['bias', 'weight'\], expected \['weight'\]"),
        ({"layers.0.bias_hh_l0": "layers.0.bias_hh"}, "'layers.0.bias_hh_l0' is missing"),
        ({"layers.0.initial_state_h": "layers.0.initial_state"}, "6 tensors are not what"),
        (
            {"head.0.weight": "head.1.weight", "head.1.weight": "head.0.weight"},
            r"cannot be read.*head\[1\]\.bias is \(2,\), expected \(V,\) = \(5,\)",
        ),
    ],
    ids=str,
)
def test_tensors_that_do_not_fit(tmp_path, saved, names, message):
    header, data = saved
    renamed = {names.get(key, key): value for key, value in header.items()}
    with pytest.raises(fastrnn.FormatError, match=message):
        fastrnn.load(write(tmp_path / "model", renamed, data))


def test_extra_tensors(tmp_path, saved):
    header, data = saved
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
    for name in ("stranger", "head.1.scale", "layers.0.scale", "embedding.scale", "layers.1.weight", "a.b.c"):
        with pytest.raises(fastrnn.FormatError, match=r"tensors|tensor "):
            fastrnn.load(write(tmp_path / "model", dict(header, **{name: entry}), data + bytes(4)))


def test_tensors_of_another_dtype(tmp_path, saved):
    header, data = saved
    for name in ("embedding.weight", "head.0.weight"):
        rows, columns = header[name]["shape"]
        for shape, dtype in (([rows, columns * 2], "F16"), ([rows, columns], "I32")):
            with pytest.raises(fastrnn.FormatError, match=rf"'{name}' is {dtype} .* expected float32"):
                fastrnn.load(
                    write(tmp_path / "model", header | {name: header[name] | {"shape": shape, "dtype": dtype}}, data)
                )
        with pytest.raises(fastrnn.FormatError, match="cannot be read"):
            fastrnn.load(write(tmp_path / "model", header | {name: header[name] | {"shape": [rows * columns]}}, data))


def test_one_byte_changed(tmp_path, saved):
    header, data = saved
    path = write(tmp_path / "model", header, data)
    good = path.read_bytes()
    fastrnn.load(path)
    rng = np.random.default_rng(0)
    for _ in range(300):  # the same sizes and other weights, or an error
        raw = bytearray(good)
        raw[rng.integers(len(raw) - len(data))] = rng.integers(256)
        path.write_bytes(raw)
        with contextlib.suppress(fastrnn.FormatError):
            fastrnn.load(path)


def test_memory_stays_in_proportion_to_the_file(tmp_path, saved):
    header, data = saved
    hostile = [
        changed(header, sets(layers=[{}] * 100_000)),
        changed(header, sets(head=[0] * 200_000)),
        changed(header, layer(num_layers=10**9)),
        changed(header, layer(hidden_size=10**9, input_size=10**9)),
        changed(header, sets(labels=["a"] * 100_000)),
    ]
    paths = [write(tmp_path / str(i), each, data) for i, each in enumerate(hostile)]
    fastrnn.load(write(tmp_path / "good", header, data))
    tracemalloc.start()
    for path in paths:
        tracemalloc.reset_peak()
        with pytest.raises(fastrnn.FormatError):
            fastrnn.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20 + 40 * path.stat().st_size
    tracemalloc.stop()
