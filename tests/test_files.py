"""Saved models: what comes back, and what broken and hostile files meet."""

import contextlib
import json
import os
import struct
import threading
import tracemalloc

import numpy as np
import pytest
from cases import DTYPES, same_bits
from layer_cases import CELLS, KINDS, arrays, initial, inputs, make

import fastrnn


def same(a, b):
    return all(map(same_bits, arrays(a), arrays(b)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_comes_back(tmp_path, kind, dtype):
    for config in ({}, {"num_layers": 2, "bias": False, "batch_first": True, "bidirectional": True, "dropout": 0.5}):
        layer = make(kind, dtype=dtype, **config)
        layer.save(tmp_path / "model.safetensors")
        again = fastrnn.load(str(tmp_path / "model.safetensors"))
        assert type(again) is type(layer)
        assert repr(again) == repr(layer)
        assert same(again.state_dict().values(), layer.state_dict().values())
        assert same(again(inputs(layer)), layer(inputs(layer)))


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_comes_back(tmp_path, kind):
    cell = CELLS[kind](3, 4, bias=False).init()
    cell.save(tmp_path / "cell")
    again = fastrnn.load(tmp_path / "cell")
    assert repr(again) == repr(cell)
    assert same(again(np.ones(3)), cell(np.ones(3)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_initial_state_comes_back(tmp_path, kind):
    layer = make(kind, num_layers=2)
    layer.initial_state = initial(layer, batch=None)
    layer.save(tmp_path / "model")
    again = fastrnn.load(tmp_path / "model")
    assert same(again.initial_state, layer.initial_state)
    assert same(again(inputs(layer)), layer(inputs(layer)))


def test_a_subclass_is_saved_as_its_base(tmp_path):
    class Mine(fastrnn.GRU):
        pass

    Mine(2, 3).init().save(tmp_path / "model")
    assert type(fastrnn.load(tmp_path / "model")) is fastrnn.GRU


def test_the_process_is_not_saved(tmp_path):
    make("gru", backend="reference", num_threads=3).save(tmp_path / "model")
    layer = fastrnn.load(tmp_path / "model")
    assert layer.backend is None
    assert layer.num_threads is None


def test_metadata(tmp_path):
    from safetensors import safe_open

    make("lstm").save(tmp_path / "model")
    with safe_open(tmp_path / "model", framework="numpy") as file:
        assert set(file.keys()) == set(make("lstm").state_dict())
        metadata = file.metadata()
    entry = json.loads(metadata["fastrnn"])
    assert (entry["format"], entry["arithmetic"]) == (1, fastrnn.ARITHMETIC)
    assert entry["architecture"]["kind"] == "LSTM"


def test_the_same_model_is_the_same_bytes(tmp_path):
    layer = make("lstm")
    for name in range(20):
        layer.save(tmp_path / str(name))
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


# Broken and hostile files ---------------------------------------------------------------------------------------------


def write(path, header, data=b""):
    raw = json.dumps(header).encode() if isinstance(header, dict) else header
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "model"
    make("gru").save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            make("lstm").save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    with pytest.raises(OSError, match="missing"):
        make("lstm").save(tmp_path / "missing" / "model")


def test_a_link_goes_on_pointing_and_a_pipe_stays_one(tmp_path):
    make("gru").save(tmp_path / "model")
    (tmp_path / "link").symlink_to("model")
    make("lstm").save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert repr(fastrnn.load(tmp_path / "model")) == repr(make("lstm"))
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    make("lstm").save(tmp_path / "pipe")
    reader.join(10)
    assert found == [(tmp_path / "model").read_bytes()]


@pytest.fixture
def saved(tmp_path):
    """The header and the data of a saved GRU(2, 3)."""
    fastrnn.GRU(2, 3).init().save(tmp_path / "saved")
    raw = (tmp_path / "saved").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def test_bytes_that_are_no_model(tmp_path, saved):
    header, data = saved
    path = tmp_path / "model"
    good = write(path, header, data).read_bytes()
    assert repr(fastrnn.load(path)) == "GRU(2, 3)"
    for raw in (
        b"",
        b"1234567",
        b"\xff" * 64,
        b"PK\x03\x04" + bytes(100),
        good[:50],
        good[:-1],
        good + b"\0",
        bytes(16),
    ):
        path.write_bytes(raw)
        with pytest.raises(fastrnn.FormatError, match="model: "):
            fastrnn.load(path)
    rng = np.random.default_rng(0)
    for _ in range(300):  # one byte changed: the same sizes and other weights, or an error
        raw = bytearray(good)
        raw[rng.integers(len(raw) - len(data))] = rng.integers(256)
        path.write_bytes(raw)
        with contextlib.suppress(fastrnn.FormatError):
            fastrnn.load(path)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError):
        fastrnn.load(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"directory|denied"):
        fastrnn.load(tmp_path)


def test_plain_weights_point_to_from_state_dict(tmp_path):
    from safetensors.numpy import save_file

    save_file(make("gru").state_dict(), tmp_path / "model")
    with pytest.raises(fastrnn.FormatError, match=r"not saved by fastrnn.*from_state_dict"):
        fastrnn.load(tmp_path / "model")


def changed(header, **architecture):
    entry = json.loads(header["__metadata__"]["fastrnn"])
    entry["architecture"] |= architecture
    return dict(header, __metadata__={"fastrnn": json.dumps(entry)})


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"kind": "Transformer"}, "architecture cannot be read.*Transformer"),
        ({"kind": ["GRU"]}, "architecture cannot be read"),
        ({"kind": "LSTM"}, "missing or unknown"),
        ({"window": 3}, "'window'.* missing or unknown"),
        ({"backend": "numba"}, "'backend'.* missing or unknown"),
        ({"hidden_size": 0}, "hidden_size must be an int >= 1"),
        ({"hidden_size": "3"}, "hidden_size must be an int"),
        ({"hidden_size": 4}, r"'weight_ih_l0' is F32 \(9, 2\), expected float32 \(12, 2\)"),
        ({"hidden_size": 10**12}, r"expected float32 \(3000000000000, 2\)"),
        ({"input_size": 10**12}, "'weight_ih_l0' is F32"),
        ({"input_size": 10**30}, "input_size must be an int in 1..1099511627776"),
        ({"num_layers": 10**12}, "4 tensors are not what"),
        ({"num_layers": 10**300}, "num_layers must be an int in 1..1099511627776"),
        ({"bias": False}, "4 tensors are not what"),
        ({"bidirectional": True}, "4 tensors are not what"),
        ({"dtype": "float64"}, r"is F32 \(9, 2\), expected float64"),
        ({"dtype": "float16"}, "architecture cannot be read"),
        ({"dropout": float("nan")}, "dropout must be"),
    ],
    ids=str,
)
def test_architectures_that_do_not_fit(tmp_path, saved, architecture, message):
    header, data = saved
    with pytest.raises(fastrnn.FormatError, match=message):
        fastrnn.load(write(tmp_path / "model", changed(header, **architecture), data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "cannot be read"),
        ("[]", "cannot be read"),
        ("", "cannot be read"),
        ("1" * 10_000, "cannot be read"),
    ],
    ids=["deep", "list", "empty", "digits"],
)
def test_architectures_that_are_no_json_object(tmp_path, saved, text, message):
    header, data = saved
    header["__metadata__"]["fastrnn"] = text
    with pytest.raises(fastrnn.FormatError, match=message):
        fastrnn.load(write(tmp_path / "model", header, data))


def with_entries(header, **entries):
    """A header with other entries beside the architecture; None takes one away."""
    entry = json.loads(header["__metadata__"]["fastrnn"]) | entries
    kept = {name: value for name, value in entry.items() if value is not None}
    return dict(header, __metadata__={"fastrnn": json.dumps(kept)})


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": 2}, "its format is 2, this fastrnn reads 1: install a newer fastrnn"),
        ({"format": 2, "arithmetic": None, "parts": 3}, "its format is 2, this fastrnn reads 1: install a newer"),
        ({"format": 0}, "its format is 0, expected an int in 1..1: save the model again"),
        ({"format": True}, "its format is True, expected an int in 1..1: save the model again"),
        ({"format": 1.0}, "its format is 1.0, expected"),
        ({"format": "1"}, "its format is '1', expected"),
        ({"format": None}, "its format is None, expected"),
        ({"arithmetic": None}, "its arithmetic is None, expected an int in 1..2: save the model again"),
        ({"arithmetic": 0}, "its arithmetic is 0, expected"),
        ({"arithmetic": True}, "its arithmetic is True, expected"),
        ({"arithmetic": "x"}, "its arithmetic is 'x', expected"),
        ({"arithmetic": 3}, "its arithmetic is 3, this fastrnn reads 2: install a newer fastrnn"),
        ({"arithmetic": 10**30}, "its arithmetic is 10{30}, this fastrnn reads 2: install a newer"),
        ({"architecture": None}, r"in its 'fastrnn' \['architecture'\] are missing or unknown: save the model again"),
        ({"notes": "a", "author": "b"}, r"in its 'fastrnn' \['author', 'notes'\] are missing or unknown"),
    ],
    ids=str,
)
def test_entries_beside_the_architecture(tmp_path, saved, entries, message):
    header, data = saved
    with pytest.raises(fastrnn.FormatError, match=message):
        fastrnn.load(write(tmp_path / "model", with_entries(header, **entries), data))


def test_foreign_metadata(tmp_path, saved):
    header, data = saved
    header["__metadata__"]["format"] = "pt"
    message = r"in its 'metadata' \['format'\] are missing or unknown: save the model again"
    with pytest.raises(fastrnn.FormatError, match=message):
        fastrnn.load(write(tmp_path / "model", header, data))


def test_weights_of_an_older_arithmetic_are_weights(tmp_path, saved):
    header, data = saved
    again = fastrnn.load(write(tmp_path / "model", with_entries(header, arithmetic=1), data))
    assert same(again.state_dict().values(), fastrnn.GRU(2, 3).init().state_dict().values())


def test_renamed_and_extra_tensors(tmp_path, saved):
    header, data = saved
    path = tmp_path / "model"
    renamed = {("stranger" if key == "bias_hh_l0" else key): value for key, value in header.items()}
    with pytest.raises(fastrnn.FormatError, match="'bias_hh_l0' is missing"):
        fastrnn.load(write(path, renamed, data))
    extra = dict(header, stranger={"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]})
    with pytest.raises(fastrnn.FormatError, match="5 tensors are not what"):
        fastrnn.load(write(path, extra, data + bytes(4)))


def test_memory_stays_in_proportion_to_the_file(tmp_path, saved):
    header, data = saved
    hostile = [
        write(tmp_path / "a", changed(header, num_layers=10**9), data),
        write(tmp_path / "b", changed(header, hidden_size=10**9), data),
        write(
            tmp_path / "c", dict(header, weight_hh_l0={"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]})
        ),
    ]
    (tmp_path / "d").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with open(tmp_path / "e", "wb") as file:  # a sparse file with a header of 1 GB
        file.write(struct.pack("<Q", 2**30))
        file.truncate(2**30 + 8)
    fastrnn.load(write(tmp_path / "good", header, data))
    tracemalloc.start()
    for path in (*hostile, tmp_path / "d", tmp_path / "e"):
        with pytest.raises(fastrnn.FormatError):
            fastrnn.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21
