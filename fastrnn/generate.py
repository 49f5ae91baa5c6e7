"""What a model writes: text from a prompt, and how probable a text is."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrnn import backends, checks, text_checks, threads
from fastrnn.dense import DenseLayer
from fastrnn.recurrent import Recurrent
from fastrnn.sampling import Generator, Sampling, choose
from fastrnn.weighted import Array
from fastrnn.wiring import OfModel, Place, States, rows_of_ids

if TYPE_CHECKING:
    from fastrnn.model import SequenceModel

__all__ = ["Logits", "Writer", "Writing"]

_CHUNK = 512  # steps of a prompt, or of a text to score, that pass through all layers together
_TOKENS = 32  # of each row between two looks at Ctrl-C, at first;
_OFTEN = 0.01  # seconds: twice as many after a piece that took less


class Logits:
    """A model up to its logits: layers, then the head without the softmax at its end."""

    def __init__(self, model: "SequenceModel") -> None:
        head = model.head
        self.vocab = text_checks.logits(head[-1].plan.activation if head else None, model._output_size, model._vocab)
        self.model, self.layers, beside = model, list(model.layers), model._recurrent[-1][1]
        self.place = Place(beside.backend or backends.current(), beside.num_threads or threads.get_num_threads())
        self.head: list[Recurrent | DenseLayer] = [*head[:-1], head[-1].linear]
        checks.forward_only([layer for _, layer in model._recurrent], "a model that writes", "call predict")

    @property
    def activate(self) -> Callable[[str, Array, Array], None]:
        """What applies the functions of rows."""
        return backends.load(self.place.backend).activate

    def read(self, rows: Sequence[Array], states: list[States]) -> Iterator[tuple[int, Array]]:
        """Run rows of ids, (T,) each; yields (first step, y (t, n, O) of the last layer for the rows that get there).

        The states are replaced by new arrays.
        """
        lengths = np.array([len(row) for row in rows])
        states[:] = [tuple(s.copy() for s in state) for state in states]
        for first in range(0, int(lengths.max(initial=0)), _CHUNK):
            there = np.flatnonzero(lengths > first)
            left = np.minimum(lengths[there] - first, _CHUNK)
            ids = np.zeros((len(there), left.max()), np.int64)
            for target, row, count in zip(ids, there.tolist(), left, strict=True):
                target[:count] = rows[row][first : first + _CHUNK]
            now = [tuple(s.take(there, axis=1) for s in state) for state in states]
            yield first, self._through(self.layers, self.model._readable(ids.T), now, left)
            for state, new in zip(states, now, strict=True):
                for s, n in zip(state, new, strict=True):
                    s[:, there] = n

    def step(self, ids: Array, states: list[States]) -> Array:
        """Return the logits (N, V) after one more id for each row."""
        logits: Array = self._through([*self.layers, *self.head], self.model._readable(ids[None]), states)[0]
        return logits

    def of(self, y: Array) -> Array:
        """Return the logits (n, V) of rows y (n, O) of the last layer."""
        logits: Array = self._through(self.head, y[None], [])[0]
        return logits

    def of_states(self, states: list[States]) -> Array:
        """Return the logits (N, V) that the states give without another step."""
        last = max(i for i, layer in enumerate(self.layers) if isinstance(layer, Recurrent))
        return self.of(self._through(self.layers[last + 1 :], states[-1][0][-1:], [])[0])

    def generator(
        self, states: list[States], how: Sampling, seeds: Array, stops: Array, last: Array, made: Array, most: int
    ) -> Callable[[Array], int]:
        """Make what writes: one compiled loop where all parts are of one backend that has it, else `Generator`."""
        settings = how, seeds, stops, last, made, most
        of_layer, by_ids = iter(states), self.model._by_ids
        parts: list[tuple[Any, tuple[Array, ...] | None]] = [
            (layer.runner(self.place.backend), None)
            if isinstance(layer, DenseLayer)
            else (layer._prepare() if i or by_ids is None else by_ids.run(), next(of_layer))
            for i, layer in enumerate([*self.layers, *self.head])
        ]
        names = {layer.backend or backends.current() for layer in self.layers if isinstance(layer, Recurrent)}
        compiled = backends.load(names.pop()).generator
        if compiled and not names:
            rows = rows_of_ids(self.model.embedding, self.vocab, self.model._dtype)
            return compiled(parts, rows, *settings, self.place.num_threads)
        return Generator(self.step, states, *settings, self.activate)

    def _through(
        self, layers: Sequence[Recurrent | DenseLayer], x: Array, states: list[States], lengths: Array | None = None
    ) -> Array:
        """Run layers over x (T, N, ..), or ids (T, N); the states of the recurrent ones, in order, are replaced."""
        of_layer = iter(range(len(states)))
        for layer in layers:
            if isinstance(layer, DenseLayer):
                rows = np.ascontiguousarray(x).reshape(-1, x.shape[2])
                x = layer(rows, None, *self.place).reshape(*x.shape[:2], layer._output_size)
                continue
            k = next(of_layer)
            y, new = np.empty((*x.shape[:2], layer._output_size), layer.dtype), tuple(map(np.empty_like, states[k]))
            by_ids = self.model._by_ids if x.ndim == 2 else None
            run = layer._prepare() if by_ids is None else by_ids.run()
            run(x, states[k], lengths, y, new, self.place.num_threads)
            x, states[k] = y, new
        return x


class Writer:
    """The rows of one call: `more` tokens of each until all have come to their end.

    Parameters
    ----------
    model : SequenceModel
    prompts : sequence of (T,) arrays of int64
    copies : int
        Rows of each prompt, one after the other; row k draws with ``seed + k``.
    most : int
        Tokens of a row.
    how : Sampling
    stops : sequence of int
    seed : int
    start : int or None
        What an empty prompt is replaced by. None: its first token is drawn from its state.
    states : list of tuples of arrays (L, len(prompts), ..)
        Of each recurrent layer; they are copied.
    """

    def __init__(
        self,
        model: "SequenceModel",
        prompts: Sequence[Array],
        copies: int,
        most: int,
        how: Sampling,
        stops: Sequence[int],
        seed: int,
        start: int | None,
        states: list[States],
    ) -> None:
        logits = Logits(model)
        fed = [prompt if len(prompt) or start is None else np.array([start]) for prompt in prompts]
        states = list(states)
        if max(map(len, fed), default=0) > 1:
            for _ in logits.read([given[:-1] for given in fed], states):
                pass
        states = [tuple(s.repeat(copies, 1) for s in state) for state in states]
        rows, last = len(fed) * copies, [given[-1] if len(given) else -1 for given in fed]
        self._stops, self._left = np.array(stops, np.int64), most if rows else 0
        self._seeds = np.array([(seed + k) % (1 << 64) for k in range(rows)], np.uint64)
        self._made = np.zeros(rows, np.int64)
        self._last = np.array(last, np.int64).repeat(copies)
        self._first: Array | None = None
        if most and -1 in last:
            self._first = self._draw_first(logits.of_states(states), how, logits.activate)
        self._write = logits.generator(states, how, self._seeds, self._stops, self._last, self._made, most)

    def _draw_first(self, logits: Array, how: Sampling, activate: Callable[[str, Array, Array], None]) -> Array:
        """Draw a token for each row without a prompt: (R, 1), -1 for the others and after a stop."""
        tokens = np.full((len(self._last), 1), -1, np.int64)
        for row in np.flatnonzero(self._last < 0):
            token = choose(logits[row], how, int(self._seeds[row]), 0, activate)
            if token < 0:
                raise text_checks.not_finite_logits(int(row))
            if token not in self._stops:
                self._last[row], tokens[row], self._made[row] = token, token, 1
        return tokens

    def more(self, count: int) -> Array:
        """Return up to `count` further tokens of each row: (R, n), -1 where there is none; n = 0 at the end."""
        if self._first is not None:
            tokens, self._first = self._first, None
            return tokens
        tokens = np.empty((len(self._last), min(count, self._left)), np.int64)
        if not self._left:
            return tokens
        failed = self._write(tokens)
        if failed >= 0:
            raise text_checks.not_finite_logits(failed)
        stopped = len(self._stops) and tokens[:, -1].max() < 0
        self._left = 0 if stopped else self._left - tokens.shape[1]
        return tokens

    def rest(self) -> list[Array]:
        """Return all further tokens of every row."""
        if not len(self._stops):  # nothing else ends a row before its last token
            checks.integer(self._left, "max_tokens", 0)
        pieces: list[Array] = []
        count = _TOKENS
        while not pieces or self._left:
            start = time.perf_counter()
            pieces.append(self.more(count))
            if time.perf_counter() - start < _OFTEN:
                count *= 2
        return [row[row >= 0] for row in np.concatenate(pieces, 1)]

    def one_by_one(self) -> Iterator[int]:
        """Yield the tokens of a single row."""
        while (tokens := self.more(1)).shape[1]:
            if tokens[0, 0] >= 0:
                yield int(tokens[0, 0])


def score(model: "SequenceModel", ids: Array, states: list[States]) -> float:
    """Return the mean of -log2 p(x_t | x_<t) over t >= 2, from the kernels' log_softmax."""
    logits, total = Logits(model), 0.0
    for first, y in logits.read([ids[:-1]], states):
        p = logits.of(y[:, 0])
        logits.activate("log_softmax", p, p)
        target = ids[first + 1 : first + 1 + len(p)]
        total -= math.fsum(p[np.arange(len(p)), target].tolist())
        if math.isnan(total):
            raise text_checks.not_finite_logits(0)
    return total / (len(ids) - 1) / math.log(2)


def first_seed(seed: Any) -> int:
    """Read the seed of the first row; None draws one."""
    return int.from_bytes(os.urandom(8)) if seed is None else checks.integer(seed, "seed", 0, None)


class Prompts(NamedTuple):
    """What a caller gave as prompt."""

    ids: list[Array]  # (T,) int64 each
    is_text: bool
    is_list: bool


def sampling(temperature: Any, top_k: Any, top_p: Any, vocab: int, dtype: np.dtype[Any]) -> Sampling:
    """Read the options of a draw among `vocab` tokens by logits of a dtype, in which the temperature stays finite."""
    return Sampling(
        min(text_checks.number(temperature, "temperature", 0), float(np.finfo(dtype).max)),
        0 if top_k is None else min(checks.integer(top_k, "top_k", 1, None), vocab),
        1.0 if top_p is None else text_checks.number(top_p, "top_p", 0, 1, above=True),
    )


class Writing(OfModel):
    """What `SequenceModel` inherits: generation and score."""

    def generate(
        self,
        prompt: Any,
        max_tokens: int,
        *,
        n: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Any = None,
        seed: int | None = None,
        state: Any = None,
    ) -> Any:
        """Go on writing from a prompt: the most recent token is fed, and the next one drawn from the head's softmax.

        Parameters
        ----------
        prompt : str, (T,) array_like of int, or a list of either
            A text, with a `vocabulary`, or ids. An empty one stands for the vocabulary's start token; without that the
            first token is drawn from `state`.
        max_tokens : int
            Tokens of each result at most.
        n : int
            Results for each prompt.
        temperature : float
            What logits are divided by: 1 draws as the model learned to, below is safer, 0 takes the most probable
            token (greedy; of equals the first).
        top_k : int, optional
            Draw among the k most probable tokens only.
        top_p : float in (0, 1], optional
            Draw among the most probable tokens, as few as reach this share of the probability, after `top_k`.
        stop : int, str or a list of them, optional
            Tokens that end a result and are left out of it. Default: the vocabulary's stop token, if there is one.
        seed : int, optional
            Row k of the result, counted over prompts and n, draws with ``seed + k`` and nothing else decides it: not
            the rows beside it, the backend, the processor or the threads. Default: a new one each time.
        state : list, optional
            One hx for each recurrent layer, as for `predict`: where the prompts start. Default: as for `predict`.

        Returns
        -------
        str, array, or list
            Of the kind of the prompt, without the prompt and without the stop: a text or (t,) int64 ids; for a list of
            prompts a list; with n > 1 a list of n in the place of each.

        Raises
        ------
        ValueError
            For wrong values, and where logits are NaN or infinite.
        TypeError
            For arguments of a wrong kind.
        UnsupportedError
            For a model with a bidirectional layer, which would have to know the end.

        Notes
        -----
        The number that decides token t of a row is number t of SplitMix64 from the row's seed: docs/arithmetic.md has
        every step.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> vocabulary = fastrnn.Vocabulary.from_text("hello world")
        >>> layer = fastrnn.GRU(8, 16).init(seed=0)
        >>> head = np.random.default_rng(0).normal(size=(8, 16))
        >>> model = fastrnn.SequenceModel(layer, embedding="one_hot", head=(head,), vocabulary=vocabulary)
        >>> text = model.generate("hello", 20, seed=7)
        >>> len(text)
        20
        >>> model.generate(["hello", "he"], 20, seed=6, temperature=0.5) == [
        ...     model.generate("hello", 20, seed=6, temperature=0.5),
        ...     model.generate("he", 20, seed=7, temperature=0.5),
        ... ]
        True
        """
        vocabulary = self._model.vocabulary
        given = self._prompts(prompt)
        copies = checks.integer(n, "n", 1)
        writer = self._writer(given, copies, max_tokens, temperature, top_k, top_p, stop, seed, state)
        rows: list[Any] = writer.rest()
        if given.is_text and vocabulary is not None:
            rows = [vocabulary.decode(row) for row in rows]
        if copies > 1:
            rows = [rows[k : k + copies] for k in range(0, len(rows), copies)]
        return rows if given.is_list else rows[0]

    def generate_iter(self, prompt: Any, max_tokens: int, **options: Any) -> Iterator[Any]:
        """Write as `generate` does, and yield each piece as soon as it is there.

        Parameters
        ----------
        prompt : str or (T,) array_like of int
            One prompt.
        max_tokens, **options
            As for `generate`, without `n`.

        Yields
        ------
        str or int
            Pieces whose concatenation is `generate`'s text, or ids. A character of several bytes comes whole.

        Raises
        ------
        ValueError, TypeError, UnsupportedError
            As for `generate`; those of arguments at once, not at the first piece.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> layer, head = fastrnn.GRU(5, 4).init(), np.eye(5, 4)
        >>> model = fastrnn.SequenceModel(layer, embedding="one_hot", head=(head,))
        >>> list(model.generate_iter([1], 3, temperature=0)) == model.generate([1], 3, temperature=0).tolist()
        True
        """
        given = self._prompts(prompt)
        if given.is_list:
            raise text_checks.one_prompt()
        defaults: dict[str, Any] = {"temperature": 1.0} | dict.fromkeys(("top_k", "top_p", "stop", "seed", "state"))
        text_checks.options(options, defaults)
        tokens = self._writer(given, 1, max_tokens, *(defaults | options).values()).one_by_one()
        vocabulary = self._model.vocabulary
        return vocabulary._pieces(tokens) if given.is_text and vocabulary is not None else tokens

    def score(self, text: Any, *, state: Any = None) -> float:
        """Return how many bits a token of a text costs: the mean of ``-log2 p(x_t | x_1 .. x_{t-1})`` over t >= 2.

        Parameters
        ----------
        text : str or (T,) array_like of int
            A text, with a `vocabulary`, or ids; two tokens at least, since the first one is given.
        state : list, optional
            As for `generate`.

        Returns
        -------
        float
            Bits per token; ``2 ** score`` is the perplexity.

        Raises
        ------
        ValueError
            For a text of fewer than two tokens, and where logits are NaN or infinite.
        TypeError, UnsupportedError
            As for `generate`.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> uniform = (np.zeros((4, 3)),)
        >>> model = fastrnn.SequenceModel(fastrnn.RNN(4, 3).init(), embedding="one_hot", head=uniform)
        >>> round(model.score([0, 1, 2, 3]), 6)
        2.0
        """
        given = self._prompts(text, "text")
        if given.is_list or len(given.ids[0]) < 2:
            raise text_checks.short_text(given.is_list)
        return score(self._model, given.ids[0], self._model._given(state, 1, False))

    def _writer(
        self,
        given: Prompts,
        copies: int,
        max_tokens: Any,
        temperature: Any,
        top_k: Any,
        top_p: Any,
        stop: Any,
        seed: Any,
        state: Any,
    ) -> Writer:
        model, vocabulary = self._model, self._model.vocabulary
        vocab = model._vocab or 0
        how = sampling(temperature, top_k, top_p, vocab, model._dtype)
        most = checks.integer(max_tokens, "max_tokens", 0, sys.maxsize)
        stops = text_checks.stops(stop, vocabulary, vocab)
        start = None if vocabulary is None or vocabulary.start is None else vocabulary.tokens.index(vocabulary.start)
        if start is None and state is None and not all(len(ids) for ids in given.ids):
            raise text_checks.empty_prompt()
        states = model._given(state, len(given.ids), given.is_list)
        return Writer(model, given.ids, copies, most, how, stops, first_seed(seed), start, states)

    def _prompts(self, prompt: Any, name: str = "prompt") -> Prompts:
        """Read a text, ids, or a list of either."""
        vocab = self._model._vocab
        if vocab is None:
            raise text_checks.no_embedding()
        if isinstance(prompt, str):
            return Prompts([self._encoded(prompt, name)], True, False)
        number = (int, float, np.number, np.bool_)
        one = not isinstance(prompt, (list, tuple)) or not len(prompt) or isinstance(prompt[0], number)
        if not one and any(isinstance(text, str) for text in prompt):
            return Prompts([self._encoded(text, f"{name}[{i}]") for i, text in enumerate(prompt)], True, True)
        if not one or getattr(prompt, "ndim", 1) == 2:
            return Prompts([text_checks.ids(ids, vocab, f"{name}[{i}]") for i, ids in enumerate(prompt)], False, True)
        return Prompts([text_checks.ids(prompt, vocab, name)], False, False)

    def _encoded(self, text: Any, name: str) -> Array:
        text_checks.text(text, name)
        if self._model.vocabulary is None:
            raise text_checks.no_vocabulary(name)
        return self._model.vocabulary.encode(text)
