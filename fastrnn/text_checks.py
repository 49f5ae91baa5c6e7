"""What `checks` does, for texts, what models write and many sequences."""

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.checks import array, integers, kind_of, quoted
from fastrnn.model_checks import in_range

if TYPE_CHECKING:
    from fastrnn.vocabulary import Vocabulary

__all__: list[str] = []

# Text -----------------------------------------------------------------------------------------------------------------


def text(value: Any, name: str) -> str:
    """Return a str."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {kind_of(value)}")
    return value


def vocabulary(tokens: Any, special: Mapping[str, Any], unit: str) -> tuple[str, ...]:
    """Return the tokens of a vocabulary; all but special ones are units of text, and none comes twice."""
    for name, token in special.items():
        if token is not None:
            text(token, name)
    if isinstance(tokens, str) or not isinstance(tokens, Iterable):
        raise TypeError(f"tokens must be a sequence of str, got {kind_of(tokens)}: list(text) has its characters")
    found = tuple(tokens)
    if not found:
        raise ValueError("tokens must be at least one, got none: an id needs a token that it stands for")
    seen: set[str] = set()
    for i, token in enumerate(found):
        if not isinstance(token, str):
            raise TypeError(f"tokens must be strings, got {kind_of(token)} at {i}")
        if token in seen:
            raise ValueError(f"tokens must differ, got {token!r} again at {i}")
        seen.add(token)
        if token not in special.values() and not is_unit(token, unit):
            what = {"char": "one character", "word": "a word without white space", "byte": "of chr(0) .. chr(255)"}
            raise ValueError(f"each of tokens must be {what[unit]} for unit={unit!r}, got {token!r} at {i}")
    for name, token in special.items():
        if token is not None and token not in seen:
            raise ValueError(f"{name}={token!r} must be among tokens: put it there")
    return found


def is_unit(token: str, unit: str) -> bool:
    """Whether a text can have this token."""
    if unit == "word":
        return token.split() == [token]
    return len(token) == 1 and (unit == "char" or ord(token) < 256)


def units(value: Any) -> list[str]:
    """Return the tokens of a text that is divided already."""
    if not isinstance(value, Iterable):
        raise TypeError(f"text must be a str or a sequence of them, got {kind_of(value)}")
    return [text(unit, "each token of text") for unit in value]


def unknown_token(token: str, unit: str) -> ValueError:
    """Return the error of text that a vocabulary has no id for."""
    what = f"byte {ord(token):#04x}" if unit == "byte" and len(token) == 1 else repr(token)
    return ValueError(f"text has {what}, which is not in the vocabulary: give the vocabulary an unknown token")


def decodable(value: Any, size: int) -> list[int]:
    """Return ids of a vocabulary of `size` tokens."""
    found = integers(value, "ids")
    if found.ndim != 1:
        raise ValueError(f"ids must be (T,), got shape {found.shape}")
    if found.size and not (found.min() >= 0 and found.max() < size):
        raise ValueError(f"ids must be in 0..{size - 1}, got {found.min()}..{found.max()}")
    return found.tolist()  # type: ignore[no-any-return]


def utf8(text: str) -> bytes:
    """Return the bytes of a text."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text must be of characters that UTF-8 has bytes for, got the lone surrogate {text[error.start]!r} at"
            f" {error.start}: pass text.encode(errors='replace').decode()"
        ) from None


# What a model writes --------------------------------------------------------------------------------------------------


def ids(value: Any, size: int, name: str) -> np.ndarray:
    """Return ids (T,) in 0..size-1 as int64."""
    found = in_range(array(value, name), size, name)
    if found.ndim != 1:
        raise ValueError(f"{name} must be (T,) ids, got shape {found.shape}")
    return found.astype(np.int64, copy=False)


def number(value: Any, name: str, least: float = -math.inf, most: float = math.inf, *, above: bool = False) -> float:
    """Return a finite number from `least`, or above it, to `most`."""
    accepted = "a number" if most < math.inf else "a finite number"
    if most < math.inf:
        accepted += f" in {'(' if above else '['}{least:g}, {most:g}]"
    elif least > -math.inf:
        accepted += f" {'>' if above else '>='} {least:g}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be {accepted}, got {kind_of(value)}")
    try:
        found = float(value)
    except OverflowError:  # an int that no float holds
        found = math.inf
    if not (math.isfinite(found) and least <= found <= most) or (above and found == least):
        raise ValueError(f"{name} must be {accepted}, got {value}")
    return found


def logits(activation: str | None, size: int, vocab: int | None) -> int:
    """Return the number of ids of a model that can write: ids in, and out a number for each id."""
    if vocab is None:
        raise no_embedding()
    if activation is None:
        raise ValueError(f"writing needs a head: pass head=(V, c, 'softmax') with a row for each of the {vocab} ids")
    if activation not in ("linear", "softmax", "log_softmax"):
        raise ValueError(
            f"writing needs a head that ends in softmax, log_softmax or no activation, got {activation!r}: its numbers"
            " must be the logits of the next id"
        )
    if size != vocab:
        raise ValueError(f"writing needs a head whose last layer has V = {vocab} numbers, one for each id, got {size}")
    return vocab


def no_embedding() -> ValueError:
    """Return the error of a model of vectors that is to read or write ids."""
    return ValueError("the model takes vectors, and writing needs an embedding: pass 'one_hot' or a matrix (vocab, I)")


def no_vocabulary(name: str) -> ValueError:
    """Return the error of text for a model that knows ids only."""
    return ValueError(f"{name} is a text, and the model has no vocabulary: pass ids, or build it with vocabulary=")


def not_finite_logits(row: int) -> ValueError:
    """Return the error of logits that no token can be drawn from."""
    return ValueError(
        f"the logits of row {row} are NaN or infinite: its state or the weights are, or hold numbers that are too large"
    )


def token(value: Any, name: str, vocabulary: "Vocabulary | None", size: int) -> int:
    """Return the id of a token, or an id."""
    if isinstance(value, str):
        if vocabulary is None:
            raise ValueError(f"{name} {value!r} needs a model with a vocabulary: give its id")
        if value not in vocabulary.tokens:
            raise ValueError(f"{name} {value!r} is not in the vocabulary: expected one of its tokens, or an id")
        return vocabulary.tokens.index(value)
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a token, an id, or a list of them, got {kind_of(value)}") from None
    if not 0 <= found < size:
        raise ValueError(f"{name} must be in 0..{size - 1}, got {found}")
    return found


def stops(value: Any, vocabulary: "Vocabulary | None", size: int) -> list[int]:
    """Return the ids that end a text; by default the vocabulary's stop token."""
    if value is None:
        value = [] if vocabulary is None or vocabulary.stop is None else [vocabulary.stop]
    elif isinstance(value, (str, bytes)) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        value = [value]
    return [token(one, "stop", vocabulary, size) for one in value]


def empty_prompt() -> ValueError:
    """Return the error of a prompt that gives nothing to go on from."""
    return ValueError("an empty prompt needs a vocabulary with a start token, or state=: pass one, or a prompt")


def one_prompt() -> TypeError:
    """Return the error of a list where one prompt is written to piece by piece."""
    return TypeError("generate_iter takes one prompt, got a list: call it for each")


def options(given: Mapping[str, Any], accepted: Iterable[str]) -> None:
    """Demand keywords that a function has."""
    unknown = [name for name in given if name not in accepted]
    if unknown:
        raise TypeError(f"unknown arguments {quoted(unknown)}: expected some of {quoted(list(accepted))}")


def short_text(is_list: bool) -> Exception:
    """Return the error of what has no token to predict."""
    if is_list:
        return TypeError("score takes one text, got a list: call it for each")
    return ValueError("text must have two tokens at least: the first is given, the others are predicted")


def classifier(path: str | None, labels: Any, wiring: str, activation: str | None) -> None:
    """Demand a model from `path` that gives each label a probability for a text."""
    if labels is None:
        raise ValueError(f"{path} has no labels: build the model with labels=, save it and try again")
    if wiring != "many_to_one":
        raise ValueError(
            f"{path} must be a model with wiring='many_to_one', got {wiring!r}, which labels each token: its predict"
            " gives them; for one label build and train it with wiring='many_to_one'"
        )
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(
            f"{path} must give probabilities, from a head with activation 'softmax' or 'sigmoid', got {activation!r}:"
            " build the model with one, save it and try again"
        )


# Many sequences -------------------------------------------------------------------------------------------------------


def offsets(value: Any, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return where the sequences of a Ragged begin, and the last one ends."""
    found = integers(value, "sequences.offsets")
    if found.ndim != 1 or not len(found):
        raise ValueError(f"sequences.offsets must be (N+1,), got shape {found.shape}: no sequences are [0]")
    checked: np.ndarray[Any, np.dtype[np.int64]] = found.astype(np.int64, copy=False)
    falls = np.flatnonzero(checked[1:] < checked[:-1])
    if len(falls):
        at = int(falls[0])
        raise ValueError(f"sequences.offsets must not fall, got {checked[at]}, {checked[at + 1]} at {at}")
    if checked[0] < 0 or checked[-1] > size:
        raise ValueError(f"sequences.offsets must lie in 0..{size}, got {checked[0]}..{checked[-1]}")
    return checked


def not_sequences(value: Any) -> TypeError:
    """Return the error of what holds no sequences."""
    return TypeError(
        f"sequences must be a fastrnn.Ragged or a list, got {kind_of(value)}: predict_iter takes iterables"
    )


def wrong_sequence(value: np.ndarray, name: str, size: int, vocab: int | None) -> ValueError:
    """Return the error of a sequence with wrong axes."""
    ids, of_floats = ("(T,) ids or ", " of floats") if vocab is not None else ("", "")
    expected = f"{ids}(T, I) = (T, {size}) vectors{of_floats}"
    cure = f": pass {name}.T" if value.ndim == 2 and len(value) == size else ""
    return ValueError(f"{name} is {value.shape} of {value.dtype}, expected {expected}{cure}")


def mixed_sequences(i: int) -> ValueError:
    """Return the error of ids among vectors."""
    return ValueError(f"sequences must be all of ids or all of vectors, sequences[{i}] is not as those before")


def out_without_use() -> ValueError:
    """Return the error of `out` for a result of which the size is not known."""
    return ValueError("out is for wiring='many_to_one': many_to_many returns a Ragged of new arrays")


def iterable(value: Any, name: str) -> Iterator[Any]:
    """Return an iterator."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be an iterable of sequences, got {kind_of(value)}")
    return iter(value)


# Sequence to sequence -------------------------------------------------------------------------------------------------


def headless(head: Sequence[Any]) -> None:
    """Demand an encoder that ends in its layers."""
    if head:
        raise ValueError("encoder must have no head, its final states are what the decoder starts from: leave head out")


def no_bridge(value: Any) -> TypeError:
    """Return the error of what takes no states."""
    return TypeError(f"bridge must be a fastrnn.Dense or a function of the encoder's states, got {kind_of(value)}")


def dense_bridge(gives: int, takes: int, state: Sequence[int], targets: Sequence[Sequence[int]]) -> None:
    """Demand a Dense from the states of one layer, of these sizes with all directions, to those of one."""
    if len(targets) != 1:
        raise ValueError(f"bridge is a Dense and decoder has {len(targets)} recurrent layers: pass a function")
    (target,) = targets
    if len(state) != len(target):
        raise ValueError(
            f"bridge is a Dense, from {len(state)} states of the encoder to {len(target)} of the decoder, h or h and c:"
            " pass a function"
        )
    if {takes} != set(state) or {gives} != set(target):
        raise ValueError(
            f"bridge takes {takes} numbers and gives {gives}, the encoder's states have {_different(state)} and"
            f" the decoder's {_different(target)}"
        )


def states_fit(given: Sequence[Any], wanted: Sequence[Any]) -> None:
    """Demand that states, their shapes without the batch, are what a decoder starts from."""
    if given != wanted:
        raise ValueError(
            f"the encoder's states are {_shapes(given)} and the decoder's {_shapes(wanted)}: pass bridge=, a"
            " fastrnn.Dense or a function"
        )


def _different(sizes: Sequence[int]) -> str:
    return " and ".join(map(str, dict.fromkeys(sizes)))


def _shapes(states: Sequence[Any]) -> str:
    def shape(layers: int, ways: int, size: int) -> str:
        return f"({layers * ways}, B, {size})" + " of both directions" * (ways == 2)

    return "; ".join(", ".join(shape(*state) for state in layer) for layer in states)


def beam(width: int, temperature: float) -> None:
    """Demand that a beam is not to draw."""
    if width > 1 and temperature:
        raise ValueError(f"beam={width} keeps the most probable results and draws none: pass beam=1 or temperature=0")


def no_lengths(lengths: Any) -> None:
    """Demand that texts come without lengths, which they have themselves."""
    if lengths is not None:
        raise ValueError("lengths are for ids and vectors: texts have their own")
