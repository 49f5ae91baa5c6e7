"""What times fastrnn beside other engines: one problem for all, ratios, processes, the command. No time is asserted."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from fastrnn import backends, cli, plot
from fastrnn._bench import engines, many, memory, ratios, workers
from fastrnn._bench.problems import Row, problem

ROWS = [
    Row("S", "lstm", 3, 5),
    Row("S", "gru", 5, 5, batch=3),
    Row("S", "rnn", 5, 5, layers=2),
    Row("Q", "lstm", 3, 5, 2, 7, layers=2, directions=2),
    Row("Q", "gru", 3, 5, 2, 7, layers=3, alternating=True),
    Row("B", "gru", 4, 4, 3, 6),
    Row("Q", "rnn", 3, 5, 1, 6, dtype="float64"),
    Row("R", "lstm", 4, 5, 6, 9, directions=2),
    Row("R", "gru", 4, 5, 6, 9, directions=2),
    Row("R", "rnn", 4, 5, 6, 9, directions=2),
    *(Row("D", cell, 4, 4, 1, 40) for cell in ("lstm", "gru", "rnn")),
    Row("D", "gru", 3, 4, 5, 40),
    *(Row("G", cell, 3, 16, 1, 12, encoder=True) for cell in ("lstm", "gru")),
    *(Row("N", cell, 3, 5, 40, 6, directions=directions) for cell in ("lstm", "gru", "rnn") for directions in (1, 2)),
    *(Row("G", cell, 3, 16, 1, 30, layers=layers) for cell, layers in (("lstm", 2), ("gru", 1), ("rnn", 1))),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_engines_compute_the_same(row):
    of = problem(row)
    expected = ratios.Local(engines.build("reference", of)).output()
    ran = 0
    for name in engines.engines(row):
        if name in ("lstm", "normal", "dense") or engines.obstacle(name, row):
            continue
        made = ratios.Local(engines.build(name, of))
        y = made.output()
        assert not np.shares_memory(y, made.output()), name  # the engine may be gone when it is read
        found = ratios.agreement(y, expected)
        assert found.fraction == 1, (name, found)
        ran += 1
    assert ran


def test_a_decoder_writes_after_its_encoder():
    row = Row("G", "gru", 3, 16, 1, 12, encoder=True)
    of = problem(row)
    ids = ratios.Local(engines.build("reference", of)).output()
    assert len(ids) == 12
    assert not np.array_equal(of.weights["weight_hh_l0"], of.encoder.weights["weight_hh_l0"])
    other = of._replace(encoder=of.encoder._replace(letters=of.encoder.letters[::-1].copy()))
    assert not np.array_equal(ratios.Local(engines.build("reference", other)).output(), ids)
    assert row.flops == 4 * row.weights * 12


def test_a_ragged_row_counts_valid_steps():
    row = Row("R", "gru", 4, 5, 6, 9, directions=2)
    of = problem(row)
    assert of.lengths.max() == 9
    assert row.valid == of.lengths.sum() < 6 * 9
    assert row.flops == 2 * row.weights * row.valid
    assert engines.build("dense", of).scale == pytest.approx(row.valid / 54)


def test_many_sequences_have_lengths_of_a_mean():
    row = Row("N", "gru", 3, 5, 20_000, 40)
    of = problem(row)
    assert len(of.lengths) == 20_000
    assert of.lengths.min() >= 1
    assert of.lengths.mean() == pytest.approx(40.5, rel=0.02)  # rounded up
    assert len(of.x) == row.valid == of.lengths.sum()
    labels = ratios.Local(engines.build("cython", of)).output()
    assert labels.shape == (20_000, 12)
    assert not np.array_equal(labels[0], labels[1])
    assert "torch-padded" in engines.engines(row)
    assert "torch-padded" not in engines.engines(row._replace(directions=2))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_what_many_sequences_take_beside_the_kernels(monkeypatch):
    monkeypatch.setattr(backends, "_loaded", {"cython": backends.load("cython")})
    found = many.beside_kernels(Row("O", "gru", 4, 5, 3000, 6))
    assert 0 < found["outside"] < 1
    assert found["nanoseconds"] > 0
    monkeypatch.setattr(many, "predict_many", lambda of, backend: lambda: np.ones(1 << 20))
    found = many.beside_kernels(Row("O", "gru", 4, 5, 3, 6))
    assert found["outside"] == 1  # no kernel was called
    assert found["megabytes"] < 8


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_peak_is_that_of_the_call():
    def call():
        np.ones(5 << 20)
        return np.ones(1 << 20)

    np.ones(20 << 20)  # before it
    result, grown = memory.peak(call)
    assert len(result) == 1 << 20
    assert 39 < grown < 60


def test_weights_are_counted():
    row = Row("Q", "lstm", 3, 5, layers=3, directions=2)
    arrays = problem(row).weights
    assert row.weights == sum(array.size for name, array in arrays.items() if name.startswith("weight"))


def test_the_state_of_family_d_passes_through_the_denormals():
    for cell in ("lstm", "gru", "rnn"):
        of = problem(Row("D", cell, 8, 8, 1, 10_000, dtype="float64"))
        y = np.abs(ratios.Local(engines.build("reference", of)).output()[:, 0]).max(1)
        tiny = np.finfo(np.float32).tiny
        denormal = np.count_nonzero((y < tiny) & (y > tiny * 2.0**-23))
        assert denormal > 300, cell


def test_agreement():
    y = np.zeros((2, 1, 4), np.float32)
    assert ratios.agreement(y, y) == (1.0, 0.0)
    wrong = y.copy()
    wrong[0, 0, :2] = 1, np.nan
    assert ratios.agreement(wrong, y).fraction == 0.75
    assert ratios.agreement(y[..., :2], y).fraction == 1
    with pytest.raises(ValueError, match="outputs of shape"):
        ratios.agreement(y[:1], y)


def test_ratios_come_from_blocks_and_their_scales():
    class Fixed:
        def __init__(self, seconds, scale=1.0):
            self.seconds, self.scale = seconds, scale

        def block(self, count):
            return self.seconds * count

    for brief in (False, True):
        found = ratios.compare(Fixed(1e-3), Fixed(4e-3, scale=0.5), budget=0, rounds=3, brief=brief)
        assert found == pytest.approx((2, 2, 2, 3, 1e-3, 2e-3))
    assert ratios.calls_per_block(Fixed(1e-3)) >= 4


def test_a_peer_chooses_among_settings():
    assert engines.settings("torch", 1) == [(1, True)]
    assert engines.settings("cython", 4) == [(4, True)]
    assert engines.settings("torch", 6) == [(1, True), (2, True), (4, True), (6, True)]
    assert engines.settings("onnxruntime", 2) == [(1, True), (2, True), (2, False)]


def test_a_worker_computes_and_times_and_rests():
    of = problem(Row("Q", "gru", 3, 5, 2, 7, threads=2))
    with workers.Crew() as crew:
        contender = crew.contender("cython", of)
        expected = ratios.Local(engines.build("reference", of)).output()
        assert ratios.agreement(contender.output(), expected).fraction == 1
        assert contender.block(3) > 0
        process = contender.worker.process
        if sys.platform == "linux":
            assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"  # stopped
        with pytest.raises(RuntimeError, match="ValueError: backend"):
            crew.contender("nonsense", of)
    assert process.returncode == -signal.SIGKILL


def test_a_worker_that_dies_is_an_error():
    of = problem(Row("Q", "gru", 3, 5, 2, 7, threads=2))
    with workers.Crew() as crew:
        contender = crew.contender("cython", of)
        contender.worker.process.kill()
        with pytest.raises(RuntimeError, match="died"):
            contender.block(1)


# The command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("fastrnn._bench.command.BUDGET", 0.0)
    monkeypatch.setattr(ratios, "BLOCK", 1e-4)


def bench(capsys, *arguments):
    code = cli.main(["bench", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_bench_prints_a_table(quick, capsys):
    code, out, err = bench(capsys, "--cell", "gru", "--input", 3, "--hidden", 5, "--steps", 4, "--batch", 2)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "GRU 3->5, B=2, T=4, float32, 1 thread"
    assert lines[3].split()[:3] == ["engine", "a", "call"]
    table = {line.split()[0]: line for line in lines[4:] if line}
    assert "100.00%" in table["fastrnn"]
    for name in ("torch", "onnxruntime", "openvino"):
        installed = all(importlib.util.find_spec(package) for package in engines.PACKAGES[name])
        assert ("100.00%" if installed else "pip install") in table[name]


def test_bench_names_what_is_missing(quick, capsys, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    code, out, _ = bench(capsys, "--hidden", 4, "--steps", 1, "--against", "torch,onnxruntime,torch")
    assert code == 0
    assert out.count("not installed: pip install torch\n") == 1
    assert "not installed: pip install onnxruntime onnx\n" in out


@pytest.mark.parametrize("threads", [1, "all"])
def test_bench_names_a_peer_that_does_not_load(quick, capsys, monkeypatch, tmp_path, threads):
    (tmp_path / "torch.py").write_text("raise ImportError('no libtorch here')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    code, out, _ = bench(capsys, "--hidden", 4, "--steps", 3, "--against", "torch,numba", "--threads", threads)
    assert code == 0
    (line,) = (line for line in out.splitlines() if line.startswith("torch"))
    assert "no libtorch here; try pip install --force-reinstall torch, or leave it out of --against" in line
    assert "\nnumba " in out


def test_bench_says_first_that_calls_are_slow(quick, capsys, monkeypatch):
    monkeypatch.setattr("fastrnn._bench.command.SLOW", 0.0)
    code, out, err = bench(capsys, "--hidden", 4, "--steps", 200, "--against", "numba", "--threads", "all")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("A call takes about ")
    assert "each engine is timed by few calls" in lines[0]
    assert "s or more; smaller --batch or --steps" in lines[1]
    assert "100.00%" in next(line for line in lines if line.startswith("numba"))


def test_slow_calls_are_made_once_and_on_all_threads():
    asked = []

    class Worker:
        def ask(self, order):
            asked.append(order)
            return None, 1.0

    of = problem(Row("Q", "gru", 3, 5, threads=4))
    workers.Remote(Worker(), "onnxruntime", of, brief=True)
    assert [order[2] for order in asked] == [engines.Setting(4)]


def test_bench_on_all_threads(quick, capsys):
    if fastrnn.cpu_info()["cpus"] < 2:
        pytest.skip("one CPU")
    code, out, _ = bench(capsys, "--hidden", 4, "--steps", 3, "--threads", "all", "--against", "numba")
    assert code == 0
    assert f"{fastrnn.cpu_info()['cpus']} threads" in out


@pytest.mark.parametrize(
    "layer",
    [
        fastrnn.LSTM(3, 4, 2, bidirectional=True, batch_first=True),
        fastrnn.GRU(3, 4, bias=False),
        fastrnn.RNN(3, 4, dtype="float64"),
    ],
    ids=repr,
)
def test_bench_of_a_saved_layer(quick, capsys, tmp_path, layer):
    layer.init(3).save(tmp_path / "layer.safetensors")
    code, out, err = bench(capsys, "--model", tmp_path / "layer.safetensors", "--steps", 5)
    assert (code, err) == (0, "")
    assert out.startswith(f"{type(layer).__name__} 3->4, ")
    assert layer.dtype.name in out


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (fastrnn.GRU(2, 3, reset_after=False), "GRU with reset_after=True"),
        (fastrnn.LSTM(2, 3, proj_size=2), "LSTM without projection"),
        (fastrnn.RNN(2, 3, nonlinearity="relu"), "RNN with tanh"),
        (fastrnn.LSTMCell(2, 3), "got LSTMCell"),
    ],
    ids=repr,
)
def test_bench_refuses_what_the_engines_do_not_share(capsys, tmp_path, layer, named):
    layer.init().save(tmp_path / "layer.safetensors")
    code, out, err = bench(capsys, "--model", tmp_path / "layer.safetensors")
    assert (code, out) == (1, "")
    assert named in err


def test_bench_refuses_a_saved_model(capsys, tmp_path):
    model = fastrnn.SequenceModel(fastrnn.GRU(2, 3).init(), embedding=np.ones((5, 2)))
    model.save(tmp_path / "model.safetensors")
    code, out, err = bench(capsys, "--model", tmp_path / "model.safetensors")
    assert (code, out) == (1, "")
    assert "--model takes an RNN with tanh" in err
    assert "got SequenceModel(" in err
    assert "save() such a layer alone" in err


@pytest.mark.parametrize(
    "sizes",
    [
        ("--input", 99999999999, "--hidden", 3),
        ("--hidden", 10**200),
        ("--layers", 10**15),
        ("--steps", 10**15),
        ("--batch", 10**15),
    ],
)
def test_bench_refuses_what_memory_does_not_hold(capsys, sizes):
    code, out, err = bench(capsys, *sizes)
    assert (code, out) == (1, "")
    assert "must ask for no more than this machine's memory" in err
    assert "make one of them smaller" in err


def test_weights_beyond_a_graph_are_an_obstacle(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: True)
    row = Row("Q", "lstm", 8192, 8192)
    assert engines.obstacle("openvino", row) == "a graph of ONNX holds 2 GB at most"
    assert engines.obstacle("torch", row) is engines.obstacle("onnxruntime", row._replace(input_size=1024)) is None


def test_bench_refuses_other_files_and_a_shape_beside_a_model(capsys, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"0123456789")
    code, _, err = bench(capsys, "--model", tmp_path / "x.onnx")
    assert code == 1
    assert "--model takes a file that the save() of a fastrnn layer wrote" in err
    code, _, err = bench(capsys, "--model", tmp_path / "x.onnx", "--hidden", 3, "--bidirectional")
    assert code == 1
    assert "leave out --hidden, --bidirectional" in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--threads", "0"], "must be all, or a whole number from 1"),
        (["--hidden", "-3"], "must be a whole number from 1"),
        (["--against", "torch,jax"], "got jax"),
        (["--dtype", "int64"], "choose from"),
        (["--cell", "lru"], "lstm"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, named, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["bench", *arguments])
    assert error.value.code == 2
    assert named in capsys.readouterr().err


def test_outputs_that_differ_are_an_error(quick, capsys, monkeypatch):
    build = engines.build

    def wrong(name, of, setting=None):
        engine = build("cython", of, setting)
        shift = 1 if name == "numba" else 0
        return engine._replace(output=lambda result: result[0] + np.float32(shift))

    monkeypatch.setattr(workers, "build", wrong)
    monkeypatch.setattr(engines, "find_spec", lambda name: True)
    code, out, err = bench(capsys, "--hidden", 4, "--steps", 3, "--against", "numba")
    assert code == 1
    assert "0.00%" in out
    assert "the outputs of numba differ" in err


def test_bench_writes_a_plot(quick, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    code, _, _ = bench(capsys, "--hidden", 4, "--steps", 3, "--against", "numba", "--plot", tmp_path / "plot.svg")
    assert code == 0
    assert "fastrnn" in (tmp_path / "plot.svg").read_text()


def test_plots_that_cannot_be_written_are_refused_first(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    code, out, err = bench(capsys, "--plot", "plot.svg")
    assert (code, out) == (1, "")
    assert "pip install 'fastrnn[plot]'" in err
    code, out, err = bench(capsys, "--plot", "plot.txt")
    assert (code, out) == (1, "")
    assert "must end in one of .svg, .png, .pdf, got 'plot.txt'" in err
    code, out, err = bench(capsys, "--plot", tmp_path / "none" / "plot.svg")
    assert (code, out) == (1, "")
    assert "a plot needs a folder that is there" in err
    assert f"make '{tmp_path / 'none'}' first" in err
    (tmp_path / "plot.svg").mkdir()
    for path in (tmp_path / "plot.svg", tmp_path / "plot.pdf"):
        code, out, err = bench(capsys, "--plot", path)
        assert (code, out) == (1, "")
        assert f"a plot needs a file that may be written, got '{path}': choose another one" in err
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # a superuser may write anywhere


def test_times_have_units():
    from fastrnn._bench.command import duration

    assert [duration(seconds) for seconds in (2.5, 3e-3, 4.25e-5, 5e-9)] == ["2.5 s", "3 ms", "42.5 us", "5 ns"]
