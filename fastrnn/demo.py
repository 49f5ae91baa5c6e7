"""`fastrnn demo`: two trained networks read real text on the kernels, compared with the NumPy reference.

The models and texts lie in fastrnn/data; examples/README.md says where they come from and how they were trained.
"""

import math
import re
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from fastrnn import __version__

if TYPE_CHECKING:
    from fastrnn.model import SequenceModel

__all__ = ["character_model", "intent_model", "label_sentences", "read_text", "requests", "run", "words"]

DATA = Path(__file__).parent / "data"
UNKNOWN = "<unknown>"  # the word with id 0: every word that the training did not see
TOLERANCE = 1e-4  # between a backend and the reference; a wrong kernel is off by far more, rounding by far less
CHUNK, ROWS = 64, 8  # steps in the longest chunk; rows of the batch that the text is one of
TEMPERATURE, LENGTH, SEED = 0.6, 480, 2  # of the continuation
STEPS = 11  # of the progress bar

Step = Callable[[str], None]


class Agreement(NamedTuple):
    """One layer on one backend, against the reference and against itself."""

    seconds: float
    seconds_reference: float
    difference: float  # the largest, over all outputs
    equal: bool  # whole, chunked and batched runs agree in every bit


class TextReport(NamedTuple):
    """What `read_text` found."""

    characters: int
    alphabet: int
    hidden_size: int
    bits: float  # per character
    ending: str  # of the text
    continuation: str
    agreement: Agreement


class SentenceReport(NamedTuple):
    """What `label_sentences` found."""

    words: int
    vocabulary: int
    hidden_size: int
    labels: list[str]
    sentences: list[tuple[str, str, str, float]]  # sentence, its intent, the model's, the model's probability
    accuracy: float
    agreement: Agreement


def words(sentence: str) -> list[str]:
    """Split a sentence into lower-case words; every number becomes "0".

    Parameters
    ----------
    sentence : str

    Returns
    -------
    list of str

    Examples
    --------
    >>> from fastrnn.demo import words
    >>> words("I'm up at 6:45!")
    ['i', 'm', 'up', 'at', '0', '0']
    """
    return ["0" if word.isdigit() else word for word in re.findall(r"[a-z]+|[0-9]+", sentence.lower())]


def character_model(backend: str | None = None) -> "SequenceModel":
    """Return the network that knows which character follows, with its vocabulary.

    Parameters
    ----------
    backend : str, optional
        Of its layer.

    Examples
    --------
    >>> from fastrnn.demo import character_model
    >>> character_model().generate("It is a truth univ", 7, temperature=0)
    'ersally'
    """
    return _model("char_lstm.safetensors", backend)


def intent_model(backend: str | None = None) -> "SequenceModel":
    """Return the network that knows what a sentence wants, with its vocabulary and labels.

    Parameters
    ----------
    backend : str, optional
        Of its layer.

    Examples
    --------
    >>> from fastrnn.demo import intent_model, words
    >>> model = intent_model()
    >>> p = model.predict(model.vocabulary.encode(words("What time is it?")))
    >>> model.labels[p.argmax()]
    'time'
    """
    return _model("intent_gru.safetensors", backend)


def _model(name: str, backend: str | None) -> "SequenceModel":
    import fastrnn

    model: SequenceModel = fastrnn.load(DATA / name)
    for layer in model.layers:
        if isinstance(layer, fastrnn.Recurrent):
            layer.backend = backend
    return model


def requests() -> tuple[list[str], list[str]]:
    """Return the held-out sentences, and what each of them wants."""
    lines = (DATA / "intents.tsv").read_text(encoding="utf-8").splitlines()
    intents, sentences = zip(*(line.split("\t") for line in lines), strict=True)
    return list(sentences), list(intents)


def timed(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, float]:
    """Return a function's result and its shortest time in a second of runs."""
    seconds, end = math.inf, time.perf_counter() + 1.0
    while (start := time.perf_counter()) < end:
        result = function(*args, **options)
        seconds = min(seconds, time.perf_counter() - start)
    return result, seconds


def in_chunks(layer: Any, x: NDArray[np.float32], sizes: list[int]) -> tuple[NDArray[np.float32], Any]:
    """Run a layer over x piece by piece, carrying its state."""
    pieces, state = [], None
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        y, state = layer(part, state)
        pieces.append(y)
    return np.concatenate(pieces), state


def read_text(backend: str, step: Step = lambda what: None) -> TextReport:
    """Let the character model read the text it was not trained on, then write on.

    Parameters
    ----------
    backend : str
        One of `available_backends`.
    step : callable, optional
        Told, before each piece of work, what comes.

    Returns
    -------
    TextReport
    """
    import fastrnn

    step("the character model")
    model: Any = character_model(backend)
    by_reference: Any = character_model("reference")
    fastrnn.warmup(model, by_reference)
    text = (DATA / "pride_and_prejudice.txt").read_text(encoding="utf-8")
    alphabet = model.vocabulary
    ids, embedding, (lstm,), (reference,) = alphabet.encode(text), model.embedding, model.layers, by_reference.layers

    step(f"reading on {backend}")
    x = embedding[ids]  # (T, I)
    (y, state), seconds = timed(lstm, x)
    bits = model.score(text)
    step("reading on the reference")
    (y_reference, _), seconds_reference = timed(reference, x)

    step("reading in chunks")
    rng = np.random.default_rng(SEED)
    sizes: list[int] = []
    while (rest := len(ids) - sum(sizes)) > 0:
        sizes.append(min(rest, int(rng.integers(1, CHUNK + 1))))
    chunked, chunked_state = in_chunks(lstm, x, sizes)
    step("reading in a batch")
    rows = np.stack([np.roll(ids, -(row * len(ids)) // ROWS) for row in range(ROWS)], axis=1)  # row 0 is the text
    batched, batched_state = in_chunks(lstm, embedding[rows], [len(ids) // 2, len(ids) - len(ids) // 2])
    equal = np.array_equal(y, chunked) and np.array_equal(y, batched[:, 0])
    for whole, other, row in zip(state, chunked_state, batched_state, strict=True):
        equal = equal and np.array_equal(whole, other) and np.array_equal(whole, row[:, 0])

    step("writing on")
    continuation = model.generate("", LENGTH, temperature=TEMPERATURE, seed=SEED, state=[state])
    difference = float(np.abs(y - y_reference).max())
    agreement = Agreement(seconds, seconds_reference, difference, bool(equal))
    return TextReport(len(ids), len(alphabet), lstm.hidden_size, bits, text[-200:], continuation, agreement)


def label_sentences(backend: str, step: Step = lambda what: None) -> SentenceReport:
    """Let the classifier label sentences it was not trained on.

    Parameters
    ----------
    backend : str
        One of `available_backends`.
    step : callable, optional
        Told, before each piece of work, what comes.

    Returns
    -------
    SentenceReport
    """
    import fastrnn

    step("the sentence classifier")
    model: Any = intent_model(backend)
    by_reference: Any = intent_model("reference")
    fastrnn.warmup(model, by_reference)
    sentences, intents = requests()
    (gru,), (reference,), embedding = model.layers, by_reference.layers, model.embedding
    ids = [model.vocabulary.encode(words(sentence)) for sentence in sentences]

    step(f"labelling on {backend}")
    lengths = np.array([len(sentence) for sentence in ids])
    padded = np.zeros((lengths.max(), len(ids)), np.int64)  # (T, B)
    for row, sentence in enumerate(ids):
        padded[: len(sentence), row] = sentence
    x = embedding[padded]  # (T, B, I)
    (_, (h,)), seconds = timed(gru, x, lengths=lengths)  # h (B, H): the state after each sentence's last word
    p = model.predict_many(ids)  # (B, V)
    step("labelling on the reference")
    (_, (h_reference,)), seconds_reference = timed(reference, x, lengths=lengths)
    step("labelling one by one")
    whole = np.stack([gru(embedding[sentence])[1][0] for sentence in ids])
    step("labelling word by word")
    chunked = np.stack([in_chunks(gru, embedding[sentence], [1] * len(sentence))[1][0] for sentence in ids])
    equal = np.array_equal(whole, chunked) and np.array_equal(whole, h)

    guesses = [model.labels[i] for i in p.argmax(1)]
    rows = list(zip(sentences, intents, guesses, map(float, p.max(1)), strict=True))
    accuracy = float(np.mean([intent == guess for _, intent, guess, _ in rows]))
    agreement = Agreement(seconds, seconds_reference, float(np.abs(h - h_reference).max()), bool(equal))
    return SentenceReport(
        int(lengths.sum()), len(model.vocabulary), gru.hidden_size, list(model.labels), rows, accuracy, agreement
    )


def run(backend: str | None = None, file: TextIO | None = None) -> int:
    """Run both models and print what came out.

    Parameters
    ----------
    backend : str, optional
        One of `available_backends`. Default: the one in use.
    file : text file, optional
        Where to print. Default: standard output.

    Returns
    -------
    int
        0; 1 where the backend and the reference disagree, or where bits depend on chunks or batches (the reference
        makes no promise about the latter).

    Raises
    ------
    ImportError
        For a backend that cannot run here.
    """
    from tqdm import tqdm

    import fastrnn

    with fastrnn.use_backend(backend):
        info = fastrnn.cpu_info()
    backend = info["backend"]
    # standard error, and only where that is a terminal
    with tqdm(total=STEPS, disable=None, leave=False, bar_format="{desc:28}{bar:30} {n}/{total}") as bar:

        def step(what: str) -> None:
            bar.set_description_str(what)
            bar.update()

        text = read_text(backend, step)
        sentences = label_sentences(backend, step)
    for line in report(text, sentences, info):
        print(line, file=file or sys.stdout)
    agreements = (text.agreement, sentences.agreement)
    agree = all(a.difference <= TOLERANCE for a in agreements)
    return 0 if agree and (backend == "reference" or all(a.equal for a in agreements)) else 1


def report(text: TextReport, sentences: SentenceReport, info: dict[str, Any]) -> list[str]:
    """Return the lines that `run` prints."""
    backend = info["backend"]
    on = {"cython": f"compiled kernels, {info['tier']}", "numba": "Numba kernels", "reference": "NumPy"}[backend]

    def row(name: str, a: str, b: str) -> str:
        return f"  {name:27}{a:34}{b}".rstrip()

    def both(name: str, cell: Callable[[Agreement], str]) -> str:
        return row(name, cell(text.agreement), cell(sentences.agreement))

    threads = f"{info['num_threads']} thread{'s' * (info['num_threads'] > 1)}"
    right = sum(intent == guess for _, intent, guess, _ in sentences.sentences)
    examples = {intent: row for row in sentences.sentences[::-1] for intent in [row[1]]}  # the first of each intent
    wrong = [row for row in sentences.sentences if row[1] != row[2]]
    shown = [*list(examples.values())[::-1], *wrong]
    width = max(len(sentence) for sentence, *_ in shown) + 2
    ending = text.ending.rstrip().rpartition(";")[2].strip()
    prose = text.continuation[: text.continuation.rfind(" ")].split("\n")
    return [
        f"fastrnn {__version__}: two trained networks on the {backend} backend ({on}), {threads}",
        "",
        row("", "characters", "sentences"),
        row("reads (held out)", "Pride and Prejudice, ch. 59-61", f"{len(sentences.sentences)} requests"),
        row("length", f"{text.characters:,} characters", f"{sentences.words:,} words"),
        row(
            "network",
            f"LSTM {text.hidden_size}, {text.alphabet} characters",
            f"GRU {sentences.hidden_size}, {sentences.vocabulary:,} words, {len(sentences.labels)} intents",
        ),
        row(
            "result",
            f"{text.bits:.4f} bits per character",
            f"{right} of {len(sentences.sentences)} intents right ({sentences.accuracy:.1%})",
        ),
        both(f"time, {backend}", lambda a: f"{1e3 * a.seconds:,.1f} ms"),
        both("time, NumPy reference", lambda a: f"{1e3 * a.seconds_reference:,.1f} ms"),
        both("speed ratio", lambda a: f"{a.seconds_reference / a.seconds:.1f}x"),
        both("largest difference", lambda a: f"{a.difference:.1e}"),
        both("whole = chunked = batched", lambda a: "yes, every bit" if a.equal else "NO, bits differ"),
        "",
        f"The novel ends, and the character model writes on (temperature {TEMPERATURE}, seed {SEED}):",
        "",
        *textwrap.wrap(f"...{ending}", 100, initial_indent="  > ", subsequent_indent="  > "),
        *(line for part in prose for line in textwrap.wrap(part, 100, initial_indent="  ", subsequent_indent="  ")),
        "",
        "The classifier's labels: a sentence of each intent, then all it gets wrong",
        "",
        f"  {'sentence':{width}}{'label':12}probability",
        *(
            f"  {sentence:{width}}{guess:12}{p:4.2f}" + (f"  (not {intent})" if guess != intent else "")
            for sentence, intent, guess, p in shown
        ),
    ]
