"""examples/score_parquet.py: results beside their rows, whatever the row groups, nulls and slices; no copies."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn

pa = pytest.importorskip("pyarrow", reason="pip install pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

PATH = Path(__file__).resolve().parent.parent / "examples/score_parquet.py"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("score_parquet", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(embedding="one_hot"):
    return fastrnn.SequenceModel(fastrnn.GRU(6, 9, bidirectional=True).init(), embedding=embedding)


def run(example, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["score_parquet.py", *map(str, arguments)])
    example.main()


def test_a_file(example, monkeypatch, tmp_path, capsys):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 6, n).tolist() for n in rng.integers(0, 12, 50)]
    sequences[7] = None
    column = pa.array([[9], *sequences], pa.list_(pa.int32()))[1:]  # not from offset 0
    table = pa.table({"key": np.arange(50), "words": column})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=20)
    make().save(tmp_path / "model")
    monkeypatch.setattr(example, "ROWS", 16)
    files = (tmp_path / "model", tmp_path / "in.parquet", tmp_path / "out.parquet")
    run(example, monkeypatch, *files, "--column", "words", "--result", "h")
    assert "50/50" in capsys.readouterr().err
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.drop_columns("h").equals(table)
    assert found.schema.field("h").type == pa.list_(pa.float32(), 18)
    for sequence, h in zip(sequences, found["h"].to_pylist(), strict=True):
        if sequence is None:
            assert h is None
        else:
            assert np.array_equal(np.float32(h), make().predict(sequence, wiring="many_to_one"))


@pytest.mark.parametrize("vectors", [False, True])
def test_large_lists(example, monkeypatch, tmp_path, vectors):
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 9, 20)
    if vectors:
        sequences = [rng.normal(size=(n, 6)).astype(np.float32).tolist() for n in lengths]
    else:
        sequences = [rng.integers(0, 6, n).tolist() for n in lengths]
    inner = pa.list_(pa.float32(), 6) if vectors else pa.int64()
    pq.write_table(pa.table({"ids": pa.array(sequences, pa.large_list(inner))}), tmp_path / "in")
    model = make(None if vectors else "one_hot")
    model.save(tmp_path / "model")
    run(example, monkeypatch, tmp_path / "model", tmp_path / "in", tmp_path / "out")
    found = pq.read_table(tmp_path / "out")
    assert found.schema.field("ids").type == pa.large_list(inner)
    parts = [np.float32(s).reshape(-1, 6) if vectors else s for s in sequences]
    assert np.array_equal(np.float32(found["scores"].to_pylist()), model.predict_many(parts, wiring="many_to_one"))


def test_the_cure_for_lists_of_lists_cures(example):
    x = np.random.default_rng(0).normal(size=(1, 4, 6))
    column = pa.array(x.tolist()).cast(pa.list_(pa.list_(pa.float64(), 6)))
    example.check(column.type, "ids", 6)
    assert np.array_equal(
        np.float32(example.scores(make(None), column).to_pylist()),
        make(None).predict_many(list(x), wiring="many_to_one"),
    )


@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_nothing_is_copied(example, monkeypatch, kind):
    vectors = kind == np.float32
    model = make(None if vectors else "one_hot")
    values = np.arange(72).astype(kind) % 6
    flat = pa.array(values)
    flat = pa.FixedSizeListArray.from_arrays(flat, 6)[2:] if vectors else flat
    column = pa.ListArray.from_arrays(pa.array([1, 3, 3, 10], pa.int32()), flat)
    predict, given = fastrnn.SequenceModel.predict_many, []

    def recorded(self, sequences, **options):
        given.append(sequences)
        return predict(self, sequences, **options)

    monkeypatch.setattr(fastrnn.SequenceModel, "predict_many", recorded)
    found = example.scores(model, column).to_pylist()
    assert np.shares_memory(np.asarray(given[0].values), values)
    expected = model.predict_many([np.array(part) for part in column.to_pylist()], wiring="many_to_one")
    assert np.array_equal(np.float32(found), expected)


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        ({"ids": [[1]]}, ["--column", "x"], r"--column 'x' is not among the columns of .*\['ids'\]"),
        ({"ids": [[1]]}, ["--result", "ids"], "--result 'ids' is a column of .* already"),
        ({"ids": [1]}, [], "--column 'ids' must hold lists of ids, or of vectors as fixed-size lists, got int64$"),
        ({"ids": [["a"]]}, [], "--column 'ids' must hold lists of ids, .* got list<.*string>$"),
        ({"ids": [[[1.0] * 6]]}, [], r"got list<.*double>>: cast it to pa\.list_\(pa\.list_\(pa\.float64\(\), 6\)\)$"),
        (
            {"ids": pa.array([[1]], pa.list_(pa.int8(), 1))},
            [],
            r"got fixed_size.*: cast it to pa\.list_\(pa\.int8\(\)\)$",
        ),
        ({"ids": [[1], [9]]}, [], r"^error: sequences\.values must hold ids in 0\.\.5, got 9"),
    ],
    ids=["column", "result", "type", "strings", "lists of lists", "fixed size", "data"],
)
def test_errors(example, monkeypatch, tmp_path, table, arguments, message):
    pq.write_table(pa.table(table), tmp_path / "in")
    make().save(tmp_path / "model")
    with pytest.raises(SystemExit, match=message):
        run(example, monkeypatch, tmp_path / "model", tmp_path / "in", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_files_that_will_not_do(example, monkeypatch, tmp_path, capsys):
    pq.write_table(pa.table({"ids": [[1]]}), tmp_path / "in")
    make().save(tmp_path / "model")
    fastrnn.GRU(2, 3).init().save(tmp_path / "layer")
    with pytest.raises(SystemExit):
        run(example, monkeypatch, tmp_path / "model", tmp_path / "in", tmp_path / "in")
    assert "in exists: choose another name" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(example, monkeypatch, tmp_path / "layer", tmp_path / "in", tmp_path / "out")
    assert "must hold a SequenceModel, got GRU(2, 3)" in capsys.readouterr().err
