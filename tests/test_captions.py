"""The example of captions: accuracy as measured once, what is held out; one answer alone, batched and step by step."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import fastrnn

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLES / "caption.py"))


@pytest.fixture(scope="module")
def models(example):
    sizes = [(EXAMPLES / f"models/{name}.safetensors").stat().st_size for name in ("captions", "captions_encoder")]
    assert sum(sizes) <= 150_000
    return example["load"]()


@pytest.mark.parametrize(("scenes", "right"), [("SHOWN", 991), ("NEW", 984)])
def test_captions_are_right_as_often_as_was_measured(example, models, backend, scenes, right):
    images, truth = example["drawings"](example[scenes], 1000, seed=2)
    found = example["captions"](*models, images)
    # as measured once; drawings may round differently on other processors
    assert sum(map(str.__eq__, found, truth)) == pytest.approx(right, abs=3)


def test_one_answer(example, models, backend):
    reader, writer = models
    images, _ = example["drawings"](example["SHOWN"], 20, seed=3)
    _, (h,) = reader.predict(images[:, None], return_state=True)
    captions = example["captions"](reader, writer, images)
    for k, image in enumerate(images):
        assert example["captions"](reader, writer, image[None]) == [captions[k]]
        live = reader.stream()
        live.step(image)
        assert np.array_equal(live.get_state(), [h[:, k]])
        words = writer.vocabulary.encode([*captions[k].split(), writer.vocabulary.stop])
        live = writer.stream(state=[h[:, k]])
        assert [live.step(word).argmax() for word in words[:-1]] == words[1:].tolist()


def test_drawings_are_told_apart_by_their_seed_alone(example):
    images, captions = example["drawings"](example["SHOWN"], 50, seed=0)
    again, same = example["drawings"](example["SHOWN"], 50, seed=0)
    assert np.array_equal(images, again)
    assert captions == same
    other, _ = example["drawings"](example["SHOWN"], 50, seed=1)
    assert not (images == other).all(axis=1).any()
    assert images.shape == (50, 256)
    assert len({image.tobytes() for image in images}) == 50


def test_what_is_drawn(example):
    rng = np.random.default_rng(0)

    def drawn(*scene):
        return example["draw"](scene, rng).reshape(16, 16)

    small, large = ("small", "bright", "square"), ("large", "dim", "cross")
    assert example["describe"]((small, "above", large)) == "a small bright square above a large dim cross"
    assert example["describe"]((large,)) == "a large dim cross"
    for _ in range(20):
        for image in (drawn(small, "above", large), drawn(small, "left of", large).T):
            lit = image > 0.2
            assert not lit[7:9].any(axis=1).all()  # a gap between them
            assert image[:8].max() > 0.7 > image[8:].max()  # the bright one comes first
        assert (drawn(("large", "bright", "square")) > 0.2).sum() > 1.5 * (drawn(small) > 0.2).sum()


def test_new_captions_are_not_among_those_that_training_shows(example):
    shown, new = ({example["describe"](scene) for scene in example[scenes]} for scenes in ("SHOWN", "NEW"))
    assert (len(shown), len(new), len(shown & new)) == (16 + 460, 52, 0)


def test_what_is_printed(example, models, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["caption.py", "-n", "2", "--seed", "5"])
    example["main"]()
    printed = capsys.readouterr().out
    images, truth = example["drawings"](example["SINGLES"] + example["NEW"], 2, 5)
    both = zip(images, truth, strict=True)
    assert printed == "".join(f"{example['picture'](image)}\n{words}\n\n" for image, words in both)


def test_no_drawings_are_refused(example, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["caption.py", "-n", "0"])
    with pytest.raises(SystemExit):
        example["main"]()
    assert "-n must be at least 1, got 0" in capsys.readouterr().err


def test_the_encoder_shares_the_writers_layer(models):
    reader, writer = models
    assert reader.layers[-1] is writer.layers[0]
    assert isinstance(reader.layers[-1], fastrnn.GRU)
