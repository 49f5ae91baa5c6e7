"""The command line: what it prints, its errors and its exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn
from fastrnn import cli

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def cpu(monkeypatch):
    """A cpu_info that a test may change."""
    info = {
        "machine": "x86_64",
        "system": "Linux",
        "model": "A CPU",
        "cpus": 2,
        "num_threads": 2,
        "backend": "cython",
        "backends": {"cython": "ok", "numba": "No module named 'numba'", "reference": "ok"},
        "tier": "avx2",
        "tiers": {"avx512": "cannot run here", "avx2": "ok", "neon": "not built", "generic": "ok"},
        "numba_target": None,
    }
    monkeypatch.setattr(fastrnn, "cpu_info", lambda: info)
    return info


def info(capsys):
    assert cli.main(["info"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return dict(line.strip().split(None, 1) for line in out.splitlines())


def run(*args, **env):
    command = [sys.executable, "-m", "fastrnn.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | env)


def test_info_here(capsys):
    lines = info(capsys)
    found = fastrnn.cpu_info()
    assert lines["backend"] == found["backend"]
    assert lines["reference"] == "ok"
    assert lines["fastrnn"] == f"{fastrnn.__version__}, arithmetic {fastrnn.ARITHMETIC}"
    assert lines["python"] == ".".join(map(str, sys.version_info[:3]))
    assert lines["threads"] == f"up to {fastrnn.get_num_threads()} a call; {found['cpus']} CPUs"
    assert {"cpu", "tier", "threads", "numpy", "torch", "onnxruntime"} <= set(lines)


def test_info_names_the_reason_for_a_missing_backend(capsys, cpu):
    assert "No module named 'numba'" in [line.split(None, 1)[1] for line in cli.info() if line.startswith("  numba")]
    lines = info(capsys)
    assert lines["tier"] == "avx2"
    assert (lines["avx512"], lines["neon"]) == ("cannot run here", "not built")


def test_info_says_that_generic_is_slow(capsys, cpu):
    cpu["tier"] = "generic"
    assert "slow and exact" in info(capsys)["tier"]


def test_info_without_compiled_kernels(capsys, cpu):
    cpu.update(tier=None, tiers={}, backend="reference")
    assert "missing" in info(capsys)["tier"]


def test_info_without_peers(capsys, cpu, monkeypatch):
    def version(name):
        if name == "numpy":
            return "2.0.0"
        raise cli.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(cli.importlib.metadata, "version", version)
    lines = info(capsys)
    assert (lines["numpy"], lines["torch"]) == ("2.0.0", "not installed")


def test_info_imports_no_framework():
    code = (
        "import sys; from fastrnn.cli import main; main(['info']);"
        "sys.exit(bool({'torch', 'onnx', 'onnxruntime', 'tqdm', 'safetensors'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 0


def test_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"fastrnn {fastrnn.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["train"], "train"),
        (["demo", "--backend", "fast"], "cython"),
        (["info", "--verbose"], "--verbose"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, named, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    assert error.value.code == 2
    assert named in capsys.readouterr().err


def test_a_backend_that_cannot_run_exits_with_1(capsys, monkeypatch):
    monkeypatch.setitem(fastrnn.backends._absent, "numba", "No module named 'numba'")
    monkeypatch.delitem(fastrnn.backends._loaded, "numba", raising=False)
    assert cli.main(["demo", "--backend", "numba"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastrnn: error: ")
    assert err.count("\n") == 1
    assert "pip install" in err


def test_a_wrong_variable_exits_with_1():
    done = run("info", FASTRNN_BACKEND="fast")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fastrnn: error: the environment variable FASTRNN_BACKEND=fast")


def test_interrupted(monkeypatch):
    def interrupt(backend):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastrnn.demo.run", interrupt)
    assert cli.main(["demo"]) == 130


def test_the_demos_verdict_is_the_exit_code(monkeypatch):
    monkeypatch.setattr("fastrnn.demo.run", lambda backend: 1)
    assert cli.main(["demo"]) == 1


def test_generate_writes_on(capsys):
    options = ["--prompt", "Elizabeth", "--max-tokens", "40", "--seed", "3"]
    assert cli.main(["generate", *options]) == 0
    out, err = capsys.readouterr()
    assert (out[:9], err) == ("Elizabeth", "")
    assert len(out) == 9 + 40 + 1
    assert cli.main(["generate", *options]) == 0
    assert capsys.readouterr().out == out
    assert cli.main(["generate", *options, "--temperature", "0", "--top-k", "5", "--top-p", "0.5"]) == 0
    assert capsys.readouterr().out != out


def test_classify_prints_intents_with_probabilities(capsys):
    assert cli.main(["classify", "what time is it"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][0] == "time"
    p = [float(p) for _, p in lines]
    assert p == sorted(p, reverse=True)
    assert sum(p) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "name", ["examples/models/intent_bilstm", "examples/models/intent_rnn", "fastrnn/data/intent_gru"]
)
def test_classify_with_each_of_the_intent_classifiers(capsys, name):
    path = str(ROOT / f"{name}.safetensors")
    found = []
    for sentence in ("what time is it", "What TIME is it?", "what is 12 and 7"):
        assert cli.main(["classify", sentence, "--model", path]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]  # divided as the training did
    assert found[0].split()[0] == "time"
    assert len(found[0].splitlines()) == 12
    assert found[2] == "\n".join(cli.label("what is 0 and 0", path)) + "\n"


def test_classify_refuses_a_label_for_each_word(capsys):
    assert cli.main(["classify", "i book", "--model", str(ROOT / "examples/models/tags.safetensors")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "tags.safetensors must be a model with wiring='many_to_one', got 'many_to_many'" in err


def test_a_reader_that_has_enough():
    command = [sys.executable, "-u", "-m", "fastrnn.cli", "generate", "--prompt", "It", "--max-tokens", "3000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        writer.stdout.read(3)
        writer.stdout.close()
        assert writer.wait(timeout=120) == 1
        assert writer.stderr.read() == b""


def test_models_of_ones_own(capsys, tmp_path):
    import numpy as np

    vocabulary = fastrnn.Vocabulary.from_text("yes no maybe", "word", unknown="?")
    rng = np.random.default_rng(0)
    layer, head = fastrnn.GRU(4, 5).init(), (rng.normal(size=(4, 5)), None, "softmax")
    given = {"embedding": "one_hot", "head": head, "vocabulary": vocabulary}
    labelled = {"labels": ["a", "b", "c", "d"], "wiring": "many_to_one"}
    fastrnn.SequenceModel(layer, **given, **labelled).save(tmp_path / "labels")
    fastrnn.SequenceModel(layer, **given | {"head": head[:1]}, **labelled).save(tmp_path / "scores")
    fastrnn.SequenceModel(layer, **given).save(tmp_path / "model")
    layer.save(tmp_path / "layer")
    assert cli.main(["classify", "yes maybe so", "--model", str(tmp_path / "labels")]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set("abcd")
    assert cli.main(["generate", "--prompt", "yes", "--max-tokens", "3", "--model", str(tmp_path / "model")]) == 0
    assert len(capsys.readouterr().out.split()) == 4
    for command, name, message in (
        (["classify", "yes"], "model", "has no labels"),
        (["classify", "yes"], "scores", "must give probabilities"),
        (["generate", "--prompt", "yes"], "layer", "must be a SequenceModel with a vocabulary"),
        (["classify", "yes"], "missing", "No such file"),
        (["generate", "--prompt", "yes", "--temperature", "-1"], "model", "temperature must be a finite number >= 0"),
    ):
        assert cli.main([*command, "--model", str(tmp_path / name)]) == 1
        assert message in capsys.readouterr().err
