"""Describe small drawings in words: the image is what the network reads before its first word.

python examples/caption.py --seed 7
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

import fastrnn

MODELS = Path(__file__).resolve().parent / "models"
WIDTH = 16  # pixels
LONGEST = 12  # words of a caption, with the stop

# How far a point is outside of a shape of this half-width: below 0 inside
SHAPES = {
    "ring": lambda x, y, r: abs(np.hypot(x, y) - 0.75 * r) - 0.25 * r,
    "square": lambda x, y, r: np.maximum(abs(x), abs(y)) - r,
    "triangle": lambda x, y, r: np.maximum(y - r, (2 * abs(x) - y - r) / 5**0.5),
    "cross": lambda x, y, r: np.maximum(np.minimum(abs(x), abs(y)) - r / 3, np.maximum(abs(x), abs(y)) - r),
}
SIZES = {"small": (2.0, 2.5), "large": (3.2, 3.8)}  # half-widths
LIGHTS = {"dim": (0.35, 0.5), "bright": (0.8, 1.0)}
NOISE = 0.04

THINGS = list(itertools.product(SIZES, LIGHTS, SHAPES))
SINGLES = [(thing,) for thing in THINGS]
PAIRS = list(itertools.product(THINGS, ("above", "left of"), THINGS))
NEW = PAIRS[::10]  # never shown in training
SHOWN = SINGLES + [pair for i, pair in enumerate(PAIRS) if i % 10]


def describe(scene: tuple) -> str:
    """The caption of one thing, or of (thing, relation, thing)."""
    return " ".join(f"a {' '.join(part)}" if isinstance(part, tuple) else part for part in scene)


def draw(scene: tuple, rng: np.random.Generator) -> np.ndarray:
    """A drawing (WIDTH * WIDTH,) of a scene: places, sizes, brightness and noise differ from one to the next."""
    image = np.zeros((WIDTH, WIDTH))
    y, x = np.mgrid[:WIDTH, :WIDTH] + 0.5
    for i, (size, light, shape) in enumerate(scene[::2]):
        along, across = rng.uniform(3.8, 4.6) + 7.6 * i, rng.uniform(5.5, 10.5)
        if len(scene) == 1:
            along = rng.uniform(5.5, 10.5)
        row, column = (across, along) if scene[1:2] == ("left of",) else (along, across)
        outside = SHAPES[shape](x - column, y - row, rng.uniform(*SIZES[size]))
        image = np.maximum(image, rng.uniform(*LIGHTS[light]) * np.clip(0.5 - outside, 0, 1))
    return np.float32(image + rng.normal(0, NOISE, image.shape)).ravel()


def drawings(scenes: list[tuple], count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Drawings (count, WIDTH * WIDTH) of scenes that are drawn by lot, and their captions."""
    rng = np.random.default_rng(seed)
    chosen = [scenes[i] for i in rng.integers(0, len(scenes), count)]
    return np.stack([draw(scene, rng) for scene in chosen]), [describe(scene) for scene in chosen]


def load() -> tuple[fastrnn.SequenceModel, fastrnn.SequenceModel]:
    """Return what reads an image, and what writes: they share the recurrent layer."""
    writer = fastrnn.load(MODELS / "captions.safetensors")
    weights = load_file(MODELS / "captions_encoder.safetensors")
    dense = [
        fastrnn.Dense(weights["0.weight"], weights["0.bias"], "relu"),
        fastrnn.Dense(weights["2.weight"], weights["2.bias"]),
    ]
    return fastrnn.SequenceModel([*dense, *writer.layers]), writer


def captions(reader: fastrnn.SequenceModel, writer: fastrnn.SequenceModel, images: np.ndarray) -> list[str]:
    """Describe images (B, WIDTH * WIDTH)."""
    _, state = reader.predict(images[:, None], return_state=True)  # an image is a sequence of one vector
    # empty prompts: the first word comes from the state
    return writer.generate([""] * len(images), LONGEST, temperature=0, state=state)


def picture(image: np.ndarray) -> str:
    """An image in characters."""
    shades = np.clip(image.reshape(WIDTH, WIDTH) * 5, 0, 4).astype(int)
    return "\n".join("".join(" ░▒▓█"[shade] * 2 for shade in row).rstrip() for row in shades)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=3, help="drawings (default: 3)")
    parser.add_argument("--seed", type=int, default=7, help="of the drawings (default: 7)")
    args = parser.parse_args()
    if args.n < 1:
        parser.error(f"-n must be at least 1, got {args.n}")
    images, truth = drawings(SINGLES + NEW, args.n, args.seed)
    for image, words, right in zip(images, captions(*load(), images), truth, strict=True):
        print(picture(image), words, "" if words == right else f"wrong: {right}", sep="\n")


if __name__ == "__main__":
    main()
