"""The examples on words and names: figures as measured once, what they print, and that held out means held out."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from safetensors.numpy import load_file

import fastrnn

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def load(name):
    """Import an example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(name, *args):
    """Run an example as README.md does; returns its lines."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


# Intents: many-to-one -------------------------------------------------------------------------------------------------


def test_intents_prints_how_many_held_out_sentences_are_right():
    assert printed("intents") == [
        "intent_bilstm  166 of 180 right (92.2%)",  # as measured once
        "intent_rnn     162 of 180 right (90.0%)",
        "intent_gru     164 of 180 right (91.1%)",
    ]
    path = EXAMPLES / "models/intent_rnn.safetensors"
    assert printed("intents", str(path)) == ["intent_rnn     162 of 180 right (90.0%)"]


# Tags: many-to-many ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tagger():
    path = EXAMPLES / "models/tags.safetensors"
    assert path.stat().st_size <= 150_000
    return fastrnn.load(path)


@pytest.fixture(scope="module")
def tagged():
    """Held-out sentences: words, and their tags."""
    lines = (EXAMPLES / "data/tags.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(zip(*(pair.split("/") for pair in line.split()), strict=True)) for line in lines]


def test_the_tagger_knows_as_many_words_as_was_measured(tagger, tagged, backend):
    guesses = tagger.predict_many([tagger.vocabulary.encode(words) for words, _ in tagged])
    tags = [tag for _, own in tagged for tag in own]
    found = [tagger.labels[i] for i in guesses.values.argmax(1)]
    assert (sum(map(str.__eq__, found, tags)), len(tags)) == (400, 432)  # as measured once


def test_a_word_has_the_tag_that_its_neighbours_give_it(tagger, tagged, backend):
    def tags(words):
        return [tagger.labels[i] for i in tagger.predict(tagger.vocabulary.encode(words)).argmax(1)]

    assert tags("i want to book the book") == ["PRON", "VERB", "PART", "VERB", "DET", "NOUN"]
    assert tags("can you open the can")[0::4] == ["AUX", "NOUN"]
    twice = [(words, own) for words, own in tagged if len(set(zip(words, own, strict=True))) > len(set(words))]
    assert (sum(tags(words) == list(own) for words, own in twice), len(twice)) == (11, 15)  # as measured once


def test_tag_prints_each_word_with_its_tag():
    lines = [line.split() for line in printed("tag", "I want to book the book")]
    assert " ".join(word for word, _ in lines) == "i/PRON want/VERB to/PART book/VERB the/DET book/NOUN"
    assert all(0.9 < float(p) <= 1 for _, p in lines)
    assert printed("tag", "") == []


def gives(template, slots, sentence):
    """Tell whether a sentence of tagged words can be drawn from a template."""

    @cache
    def of_slot(name, start):
        return ends(slots[name], frozenset({start}))

    def ends(text, starts):
        """Where in the sentence may end what starts there; a group has its starts, its places now, earlier ends."""
        groups = [(starts, starts, frozenset())]
        for part in re.findall(r"[(|)]|\{\w+\}|[^\s(|){}]+", text):
            first, now, done = groups[-1]
            if part == "(":
                groups.append((now, now, frozenset()))
            elif part == "|":
                groups[-1] = first, first, done | now
            elif part == ")":
                groups.pop()
                groups[-1] = groups[-1][0], done | now, groups[-1][2]
            elif part.startswith("{"):
                groups[-1] = first, frozenset().union(*(of_slot(part[1:-1], i) for i in now)), done
            else:
                groups[-1] = first, frozenset(i + 1 for i in now if sentence[i : i + 1] == [part]), done
        return groups[0][1]

    return len(sentence) in ends(template, frozenset({0}))


def test_no_template_gives_a_held_out_sentence(tagged):
    pytest.importorskip("torch")
    import random

    train, rng = load("train_tag_model"), random.Random(0)
    source = tomllib.loads((EXAMPLES / "data/tags.toml").read_text(encoding="utf-8"))
    templates, slots = train.read_templates(source)
    for template in templates:
        drawn = ["/".join(pair) for pair in train.draw(template, slots, rng)]
        assert not set("(){}|") & set(" ".join(drawn))
        assert gives(template, slots, drawn)
        assert not gives(template, slots, [*drawn, "else/ADV"])
    assert {tag for _, own in tagged for tag in own} == set(source["words"]) | {"INTJ", "PART"}
    for words, own in tagged:
        sentence = list(map("/".join, zip(words, own, strict=True)))
        assert not any(gives(template, slots, sentence) for template in templates), words


# Names: one-to-many ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def namer():
    """The model, the state of each kind, and the kinds' names."""
    paths = EXAMPLES / "models/names.safetensors", EXAMPLES / "models/names_states.safetensors"
    assert sum(path.stat().st_size for path in paths) <= 150_000
    listed = tomllib.loads((EXAMPLES / "data/names.toml").read_text(encoding="utf-8"))
    return fastrnn.load(paths[0]), load_file(paths[1]), {kind: text.split() for kind, text in listed.items()}


@pytest.mark.parametrize(
    ("kind", "greedy", "drawn"),
    [
        ("town", "barton", ["wecten", "shewchen", "drhorton"]),
        ("dinosaur", "saurosaurus", ["secteratosaurus", "scetanosaurus", "drioptor"]),
        ("mineral", "challite", ["socy", "qrexite", "conpite"]),
        ("pasta", "cancalli", ["ticrelli", "sonuchi", "fresston"]),
    ],
)
def test_the_state_decides_what_is_written(namer, kind, greedy, drawn, backend):
    model, states, _ = namer
    state = [states[kind]]
    assert model.generate("", 30, temperature=0, state=state) == greedy
    assert model.generate("", 30, n=3, temperature=0.7, seed=0, state=state) == drawn


def test_names_prints_what_the_model_writes(namer):
    model, states, _ = namer
    drawn = model.generate("", 30, n=2, temperature=0.7, seed=5, state=[states["pasta"]])
    assert printed("names", "pasta", "-n", "2", "--seed", "5") == drawn


def test_written_names_end_as_those_of_their_kind(namer):
    model, states, names = namer
    endings = ("us", "ite", "i")
    found = {}
    for kind, state in states.items():
        drawn = model.generate("", 30, n=100, temperature=0.7, seed=0, state=[state])
        assert len(set(drawn) - set(names[kind])) >= 99  # they are new
        found[kind] = [sum(name.endswith(ending) for name in drawn) for ending in endings]
    measured = {"town": [0, 0, 0], "dinosaur": [86, 0, 0], "mineral": [0, 79, 0], "pasta": [0, 8, 60]}
    assert found == measured  # as measured once


def test_a_held_out_name_is_most_probable_from_the_state_of_its_kind(namer, backend):
    model, states, names = namer

    def guess(name):
        bits = {kind: model.score(name + "\n", state=[state]) for kind, state in states.items()}
        return min(bits, key=bits.get)

    right = {kind: sum(guess(name) == kind for name in own[::10]) for kind, own in names.items()}
    assert right == {"town": 24, "dinosaur": 19, "mineral": 20, "pasta": 17}  # as measured once
