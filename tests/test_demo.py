"""The demo: its models and texts, its figures, and that it says so when they are wrong."""

import importlib.util
import io
import lzma
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import fastrnn
from fastrnn import demo, threads

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module", params=fastrnn.available_backends())
def reports(request):
    steps = []
    found = demo.read_text(request.param, steps.append), demo.label_sentences(request.param, steps.append)
    assert len(steps) == demo.STEPS
    return request.param, *found


@pytest.fixture
def fake(monkeypatch):
    """Reports as run() finds them, to be changed by a test, so that nothing has to be computed."""
    agreement = demo.Agreement(0.5, 1.0, 1e-7, True)
    text = demo.TextReport(1000, 72, 256, 1.75, "one; two; and the end.", "He was here. She went", agreement)
    rows = [("hello", "greeting", "greeting", 0.9), ("bye now", "goodbye", "thanks", 0.5)]
    found = {"text": text, "sentences": demo.SentenceReport(3, 9, 64, ["goodbye", "greeting"], rows, 0.5, agreement)}

    def reader(name):
        def read(backend, step):
            step(f"reading on {backend}")
            return found[name]

        return read

    monkeypatch.setattr(demo, "read_text", reader("text"))
    monkeypatch.setattr(demo, "label_sentences", reader("sentences"))
    return found


def test_models_are_small_and_complete():
    assert sum(path.stat().st_size for path in demo.DATA.glob("*.safetensors")) <= 1_500_000
    assert len(demo.character_model().vocabulary) == 72
    model = demo.intent_model()
    assert model.vocabulary.tokens[0] == model.vocabulary.unknown == demo.UNKNOWN
    assert (model.wiring, len(model.labels)) == ("many_to_one", 12)


def test_the_character_model_reads_and_writes(reports):
    backend, text, _ = reports
    assert 29_000 < text.characters < 30_000
    assert text.bits == pytest.approx(1.5161, abs=1e-4)  # as measured once
    assert text.agreement.difference < 1e-5
    assert text.agreement.equal or backend == "reference"
    written = text.continuation.split()
    assert len(text.continuation) == demo.LENGTH
    novels = lzma.decompress((EXAMPLES / "data/austen.txt.xz").read_bytes()).decode()
    known = set(novels.split())
    assert np.mean([word in known for word in written]) > 0.8
    assert text.continuation[:40] not in novels


def test_the_classifier_knows_most_intents(reports):
    backend, _, sentences = reports
    assert sentences.accuracy == 164 / 180  # as measured once
    assert sentences.accuracy == np.mean([intent == guess for _, intent, guess, _ in sentences.sentences])
    assert sentences.agreement.difference < 1e-5
    assert sentences.agreement.equal or backend == "reference"
    assert all(1 / len(sentences.labels) < p <= 1 for *_, p in sentences.sentences)


@pytest.fixture(scope="module")
def torchs():
    """Bits per character, and each sentence's label and probability, by torch."""
    torch = pytest.importorskip("torch")

    def load(name, model, layer):
        tensors = {key: torch.tensor(value) for key, value in load_file(demo.DATA / name).items()}
        layer = layer(model.layers[0].input_size, model.layers[0].hidden_size)
        layer.load_state_dict({key: tensors[f"layers.0.{key}"] for key in layer.state_dict()})

        def run(tokens):
            y, _ = layer(tensors["embedding.weight"][model.vocabulary.encode(tokens)])
            return torch.log_softmax(y @ tensors["head.0.weight"].T + tensors["head.0.bias"], -1).numpy()

        return run

    characters, intents = demo.character_model(), demo.intent_model()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more only get in each other's way at batch size 1
    with torch.inference_mode():
        read = load("char_lstm.safetensors", characters, torch.nn.LSTM)
        text = (demo.DATA / "pride_and_prejudice.txt").read_text(encoding="utf-8")
        log_p = read(text[:-1])[range(len(text) - 1), characters.vocabulary.encode(text[1:])]
        label = load("intent_gru.safetensors", intents, torch.nn.GRU)
        last = np.exp([label(demo.words(sentence))[-1] for sentence in demo.requests()[0]])
    torch.set_num_threads(threads)
    guesses = [intents.labels[i] for i in last.argmax(1)]
    return -log_p.mean(dtype=np.float64) / np.log(2), guesses, last.max(1)


def test_figures_equal_torchs(reports, torchs):
    _, text, sentences = reports
    bits, guesses, p = torchs
    assert text.bits == pytest.approx(bits, abs=1e-4)
    assert [guess for _, _, guess, _ in sentences.sentences] == guesses
    np.testing.assert_allclose([found for *_, found in sentences.sentences], p, atol=1e-4)


@pytest.mark.parametrize(("name", "right"), [("intent_bilstm", 166), ("intent_rnn", 162)])
def test_the_twins_know_as_many_intents_as_was_measured(name, right, backend):
    path = EXAMPLES / "models" / f"{name}.safetensors"
    assert path.stat().st_size <= 150_000
    model = fastrnn.load(path)
    assert model.vocabulary == demo.intent_model().vocabulary
    sentences, intents = demo.requests()
    p = model.predict_many([model.vocabulary.encode(demo.words(sentence)) for sentence in sentences])
    assert sum(intent == model.labels[i] for intent, i in zip(intents, p.argmax(1), strict=True)) == right


def test_the_threads_are_named(fake, monkeypatch):
    for count, said in ((1, "1 thread"), (2, "2 threads")):
        monkeypatch.setattr(threads, "_chosen", count)
        monkeypatch.setattr(threads, "count", None)
        file = io.StringIO()
        demo.run(file=file)
        assert file.getvalue().splitlines()[0].endswith(f"), {said}")


def test_held_out_means_held_out():
    train = lzma.decompress((EXAMPLES / "data/austen.txt.xz").read_bytes()).decode()
    held_out = (demo.DATA / "pride_and_prejudice.txt").read_text(encoding="utf-8")
    pieces = [held_out[i : i + 50] for i in range(0, len(held_out) - 50, 25)]
    assert not [piece for piece in pieces if piece in train]


def test_no_held_out_sentence_is_a_template_without_slots():
    source = tomllib.loads((EXAMPLES / "data/intents.toml").read_text(encoding="utf-8"))
    held_out, intents = demo.requests()
    assert set(intents) == set(source["intents"])
    sentences = [tuple(demo.words(sentence)) for sentence in held_out]
    assert len(set(sentences)) == len(sentences)
    assert not {tuple(demo.words(t)) for templates in source["intents"].values() for t in templates} & set(sentences)


def test_templates_expand():
    pytest.importorskip("torch")
    import random

    spec = importlib.util.spec_from_file_location("train_intent_model", EXAMPLES / "train_intent_model.py")
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    assert train.expand("(a|{x}) c", {"x": "(a|a)"}, random.Random(0)) == "a c"
    source = tomllib.loads((EXAMPLES / "data/intents.toml").read_text(encoding="utf-8"))
    for templates in source["intents"].values():
        for template in templates:
            sentence = train.expand(template, source["slots"], random.Random(1))
            assert not set("(){}|") & set(sentence)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("What's the TIME?", ["what", "s", "the", "time"]),
        ("12 Baker Street", ["0", "baker", "street"]),
        ("7:30am", ["0", "0", "am"]),
        ("?!", []),
    ],
)
def test_words(sentence, expected):
    assert demo.words(sentence) == expected


def test_run_prints_an_aligned_table(fake, capsys):
    assert demo.run("reference") == 0
    out, err = capsys.readouterr()
    assert err == ""  # no bar where there is no terminal
    lines = out.splitlines()
    assert all(len(line) <= 120 and line == line.rstrip() for line in lines)
    table = {line[2:29].strip(): (line[29:63].rstrip(), line[63:]) for line in lines[2 : lines.index("", 2)]}
    assert table["result"] == ("1.7500 bits per character", "1 of 2 intents right (50.0%)")
    assert table["speed ratio"] == ("2.0x", "2.0x")
    assert table["whole = chunked = batched"] == ("yes, every bit", "yes, every bit")
    assert all(a and b and a[0] != " " != b[0] for a, b in table.values())
    assert any("thanks" in line and "(not goodbye)" in line for line in lines)


@pytest.mark.parametrize("name", ["text", "sentences"])
@pytest.mark.parametrize(("backend", "equal_counts"), [("numba", True), ("reference", False)])
def test_run_fails_where_the_answers_differ(name, backend, equal_counts, fake, capsys, monkeypatch):
    monkeypatch.setattr(fastrnn, "use_backend", lambda _: fastrnn.backends.use_backend(None))
    monkeypatch.setattr(fastrnn, "cpu_info", lambda: {"backend": backend, "tier": None, "num_threads": 2})
    right = fake[name]
    fake[name] = right._replace(agreement=right.agreement._replace(equal=False))
    assert demo.run(backend) == equal_counts
    assert "NO, bits differ" in capsys.readouterr().out
    for difference in (0.1, float("nan")):
        fake[name] = right._replace(agreement=right.agreement._replace(difference=difference))
        assert demo.run(backend) == 1


def test_run_draws_a_bar_on_a_terminal(fake, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert demo.run("reference", io.StringIO()) == 0
    assert "reading on reference" in terminal.getvalue()
