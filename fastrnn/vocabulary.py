"""Between text and ids: a vocabulary of characters, words or bytes."""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastrnn import checks, model_checks, text_checks

__all__ = ["Vocabulary"]

UNITS = ("char", "word", "byte")


class Vocabulary:
    """Tokens and their ids, which are their places.

    Parameters
    ----------
    tokens : sequence of str
        V different ones, V >= 1. ``unit="char"``: characters (Unicode code points); ``"word"``: what white space
        divides; ``"byte"``: chr(0) .. chr(255), which stand for the bytes of UTF-8.
    unit : {"char", "word", "byte"}
        What a text is divided into.
    unknown : str, optional
        The token that stands for all that are not among the tokens. Without it they are an error.
    pad, start, stop : str, optional
        The tokens that fill up a batch, precede a text, and end it.

    Raises
    ------
    ValueError
        For no tokens, a token that occurs twice or is no unit of text, and a special token that is not among them.
    TypeError
        For tokens that are not strings.

    Notes
    -----
    The special tokens stand among `tokens` and have ids as all others have. No text has those that cannot be a unit
    of it, ``"<pad>"`` among characters, nor any special word: `encode` never gives their ids for a text, though it
    does for a list of tokens, and `decode` leaves out pad, start and stop. A special token that is a character or a
    byte, ``stop="."``, stays an ordinary one too.

    Vocabularies do not change; they are equal where all of their parameters are.

    Examples
    --------
    >>> import fastrnn
    >>> vocabulary = fastrnn.Vocabulary(["<unknown>", "a", "b", "你"], unknown="<unknown>")
    >>> vocabulary.encode("你ab?")
    array([3, 1, 2, 0])
    >>> vocabulary.decode([3, 1, 2])
    '你ab'
    """

    tokens: tuple[str, ...]
    unit: str
    unknown: str | None
    pad: str | None
    start: str | None
    stop: str | None
    _ids: dict[str, int]
    _of_text: dict[str, int]  # the tokens that a text can have
    _written: list[str]  # what each id is in a text

    def __init__(
        self,
        tokens: Iterable[str],
        *,
        unit: str = "char",
        unknown: str | None = None,
        pad: str | None = None,
        start: str | None = None,
        stop: str | None = None,
    ) -> None:
        unit = checks.choice(unit, "unit", UNITS)
        special = {"unknown": unknown, "pad": pad, "start": start, "stop": stop}
        found = text_checks.vocabulary(tokens, special, unit)
        self.__dict__.update(tokens=found, unit=unit, **special)
        self.__dict__["_ids"] = {token: i for i, token in enumerate(found)}
        apart = {
            token
            for token in special.values()
            if token is not None and (unit == "word" or not text_checks.is_unit(token, unit))
        }
        self.__dict__["_of_text"] = {token: i for token, i in self._ids.items() if token not in apart}
        self.__dict__["_written"] = ["" if token in apart and token != unknown else token for token in found]

    @classmethod
    def from_text(cls, text: str, unit: str = "char", **special: str) -> "Vocabulary":
        """Make the vocabulary of a text: special tokens, in the order given, then the text's own, sorted.

        Parameters
        ----------
        text : str
        unit : {"char", "word", "byte"}
            Bytes are all 256, whichever the text has.
        **special : str
            ``unknown``, ``pad``, ``start`` and ``stop``, as for the constructor.

        Returns
        -------
        Vocabulary

        Examples
        --------
        >>> import fastrnn
        >>> fastrnn.Vocabulary.from_text("to be or not to be", "word", unknown="<unknown>").tokens
        ('<unknown>', 'be', 'not', 'or', 'to')
        """
        text_checks.text(text, "text")
        own = map(chr, range(256)) if unit == "byte" else sorted(set(_units(text, unit)))
        first = dict.fromkeys(token for token in special.values() if token is not None)
        return cls((*first, *(token for token in own if token not in first)), unit=unit, **special)

    def encode(self, text: str | Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return a text's ids.

        Parameters
        ----------
        text : str or sequence of str
            A text, or its tokens where it is divided already; those may be special ones.

        Returns
        -------
        (T,) array of int64

        Raises
        ------
        ValueError
            For a token that is not known, in a vocabulary without `unknown`; of bytes, for a lone surrogate, which has
            none.
        """
        units, ids = (
            (_units(text, self.unit), self._of_text) if isinstance(text, str) else (text_checks.units(text), self._ids)
        )
        if self.unknown is not None:
            other = self._ids[self.unknown]
            return np.array([ids.get(unit, other) for unit in units], np.int64)
        try:
            return np.array([ids[unit] for unit in units], np.int64)
        except KeyError as error:
            raise text_checks.unknown_token(error.args[0], self.unit) from None

    def decode(self, ids: Any) -> str:
        """Return the text that ids stand for.

        Parameters
        ----------
        ids : (T,) array_like of int

        Returns
        -------
        str
            Words with a space between them. Bytes that are no UTF-8 become U+FFFD.

        Raises
        ------
        ValueError
            For an id that is not in 0..V-1.
        TypeError
            For ids that are not integers.
        """
        return "".join(self._pieces(text_checks.decodable(ids, len(self.tokens))))

    def _pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield what ids add to a text, one by one; a character of several bytes comes whole."""
        undecoded, space = codecs.getincrementaldecoder("utf-8")("replace"), ""
        for written in (self._written[i] for i in ids):
            if self.unit == "byte":
                piece = undecoded.decode(written.encode("latin-1" if text_checks.is_unit(written, "byte") else "utf-8"))
            else:
                piece = space + written if written else ""
            if piece:
                space = " " if self.unit == "word" else ""
                yield piece
        if rest := undecoded.decode(b"", final=True):
            yield rest

    def __len__(self) -> int:
        return len(self.tokens)

    def _config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __repr__(self) -> str:
        given = [
            f"{name}={value!r}" for name, value in self._config().items() if name != "tokens" and value is not None
        ]
        return f"Vocabulary(<{len(self)} tokens>, {', '.join(given)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._config() == other._config()

    def __hash__(self) -> int:
        return hash((self.tokens, self.unit))

    def __setattr__(self, name: str, value: Any) -> None:
        raise model_checks.fixed(self, name)

    def __delattr__(self, name: str) -> None:
        raise model_checks.fixed(self, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Vocabulary, **self._config()), ()


def _units(text: str, unit: str) -> Iterable[str]:
    """Divide a text."""
    if unit == "word":
        return text.split()
    return text if unit == "char" else text_checks.utf8(text).decode("latin-1")
