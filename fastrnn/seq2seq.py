"""Sequence to sequence: an encoder reads, and its final states start a decoder that writes."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn import checks, files, model_checks, text_checks
from fastrnn.dense import Dense, DenseLayer, make_layer
from fastrnn.generate import Logits, Writer, first_seed, sampling
from fastrnn.model import SequenceModel
from fastrnn.recurrent import Recurrent
from fastrnn.weighted import Array
from fastrnn.wiring import States, layout

__all__ = ["Seq2Seq"]

_PENALTY = 10.0  # at most: the power of any number of tokens is finite


class Seq2Seq:
    """An encoder and a decoder, for results that are not as long as what they come from.

    Parameters
    ----------
    encoder : RNN, LSTM, GRU, Recurrent, or SequenceModel without head
        What reads: ids where it has an embedding, texts where it has a vocabulary, else vectors.
    decoder : SequenceModel
        What writes: with an embedding, and a head that has a number for each id. It starts from the encoder's final
        states.
    start, stop : int or str
        What the decoder is fed first, and what ends a result: ids, or tokens of its vocabulary.
    bridge : Dense, or callable, optional
        From the encoder's states to the decoder's, where sizes, layers or directions differ. A Dense takes each state
        of the encoder's last recurrent layer, h and for LSTM c, the final ones of its directions concatenated, to that
        of a decoder with one recurrent layer, its L layers one after the other. A function takes the encoder's list of
        states, as `SequenceModel.predict` returns it for a batch, and returns the decoder's.

    Raises
    ------
    ValueError
        For parts that do not fit each other.
    TypeError
        For what is none of these.
    UnsupportedError
        For a bidirectional decoder.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> rng = np.random.default_rng(0)
    >>> encoder = fastrnn.SequenceModel(fastrnn.GRU(4, 8).init(seed=1), embedding=rng.normal(size=(29, 4)))
    >>> head = (rng.normal(size=(12, 8)), None, "softmax")
    >>> decoder = fastrnn.SequenceModel(fastrnn.GRU(3, 8).init(seed=2), embedding=rng.normal(size=(12, 3)), head=head)
    >>> model = fastrnn.Seq2Seq(encoder, decoder, start=0, stop=1)
    >>> results = model.generate([[5, 3, 9], [2, 2, 0]], 6, lengths=[3, 2])
    >>> np.array_equal(results[1], model.generate([2, 2], 6))
    True
    """

    encoder: SequenceModel
    decoder: SequenceModel
    bridge: DenseLayer | Callable[[list[Any]], list[Any]] | None

    def __init__(self, encoder: Any, decoder: Any, *, start: Any, stop: Any, bridge: Any = None) -> None:
        if isinstance(encoder, Recurrent):
            encoder = SequenceModel(encoder)
        for part, name in ((encoder, "encoder"), (decoder, "decoder")):
            model_checks.instance(part, SequenceModel, name)
        text_checks.headless(encoder.head)
        vocab, vocabulary = Logits(decoder).vocab, decoder.vocabulary
        self._start = text_checks.token(start, "start", vocabulary, vocab)
        self._stop = text_checks.token(stop, "stop", vocabulary, vocab)
        if isinstance(bridge, (Dense, DenseLayer)):
            bridge = make_layer(bridge, decoder._dtype, "bridge")
            last = encoder._recurrent[-1][1]
            state = [(1 + last.bidirectional) * size for size in last._state_sizes]
            targets = [[layer.num_layers * size for size in layer._state_sizes] for _, layer in decoder._recurrent]
            text_checks.dense_bridge(bridge._output_size, bridge.input_size, state, targets)
        elif bridge is None:
            text_checks.states_fit(_shapes(encoder), _shapes(decoder))
        elif not callable(bridge):
            raise text_checks.no_bridge(bridge)
        self.encoder, self.decoder, self.bridge = encoder, decoder, bridge

    def __repr__(self) -> str:
        return f"Seq2Seq({self.encoder!r}, {self.decoder!r})"

    def _warm_up(self) -> None:
        self.encoder._warm_up()
        self.decoder._warm_up()

    def __dask_tokenize__(self) -> Any:
        from dask.base import normalize_token  # Dask is what calls this

        bridge = files.token(self.bridge) if isinstance(self.bridge, DenseLayer) else self.bridge
        return normalize_token(("fastrnn.Seq2Seq", self.encoder, self.decoder, self._start, self._stop, bridge))

    def generate(
        self,
        x: Any,
        max_tokens: int,
        *,
        lengths: Any = None,
        beam: int = 1,
        length_penalty: float = 0.0,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> Any:
        """Read x and write what it stands for.

        Parameters
        ----------
        x : (B, T) or (T,) array_like of int, (B, T, I) or (T, I) array_like of float, str, or list of str
            As the encoder's `predict` takes it; texts where it has a vocabulary.
        max_tokens : int
            Tokens of each result at most.
        lengths : (B,) array_like of int, optional
            Valid steps of each row of x.
        beam : int
            Results that are kept at each step; 1 is greedy. The best in the end is returned.
        length_penalty : float in [-10, 10]
            With a beam, results are compared by ``log p / t ** length_penalty``, t their tokens with the stop; 0
            compares the probabilities themselves.
        temperature, top_k, top_p, seed
            As for `SequenceModel.generate`; temperature 0 is greedy. Row k draws with ``seed + k``.

        Returns
        -------
        (t,) array of int64, str, or list of them
            Without start and stop; a list for a batch. Texts where x is text and the decoder has a vocabulary.

        Raises
        ------
        ValueError, TypeError
            As for `SequenceModel.predict` and `SequenceModel.generate`.
        """
        most, width = checks.integer(max_tokens, "max_tokens", 0, sys.maxsize), checks.integer(beam, "beam", 1)
        how = sampling(temperature, top_k, top_p, self.decoder._vocab or 0, self.decoder._dtype)
        penalty = text_checks.number(length_penalty, "length_penalty", -_PENALTY, _PENALTY)
        text_checks.beam(width, how.temperature)
        first = first_seed(seed)
        is_text, batched, x, lengths = self._texts(x, lengths)
        states = self._bridged(x, lengths, batched, is_text)
        if width > 1:
            rows = self._search(states, most, width, penalty)
        else:
            start = np.array([self._start])
            prompts = [start] * states[0][0].shape[1]
            rows = Writer(self.decoder, prompts, 1, most, how, [self._stop], first, None, states).rest()
        vocabulary = self.decoder.vocabulary
        results: list[Any] = list(map(vocabulary.decode, rows)) if is_text and vocabulary is not None else rows
        return results if batched else results[0]

    def _texts(self, x: Any, lengths: Any) -> tuple[bool, bool, Any, Any]:
        """Encode texts: whether x is text, whether it is a batch, what the encoder reads (of texts a list of ids)."""
        if isinstance(x, str):
            text_checks.no_lengths(lengths)
            return True, False, self.encoder._encoded(x, "x"), None
        if isinstance(x, (list, tuple)) and any(isinstance(one, str) for one in x):
            text_checks.no_lengths(lengths)
            return True, True, [self.encoder._encoded(one, f"x[{i}]") for i, one in enumerate(x)], None
        return False, self.encoder._read(x, "B, T")[1], x, lengths

    def _bridged(self, x: Any, lengths: Any, batched: bool, is_text: bool) -> list[States]:
        """Run the encoder: the states that the decoder starts from."""
        if is_text and batched:
            states = layout(self.encoder._final_states(x), True)
        else:
            _, states = self.encoder.predict(x, lengths=lengths, return_state=True, wiring="many_to_one", pool="final")
        if not batched:
            states = [tuple(s[:, None] for s in hx) if isinstance(hx, tuple) else hx[:, None] for hx in states]
        batch, name = np.shape(states[0][0] if isinstance(states[0], tuple) else states[0])[1], "bridge(states)"
        if isinstance(self.bridge, DenseLayer):
            last = states[-1] if isinstance(states[-1], tuple) else (states[-1],)
            ways = 1 + self.encoder._recurrent[-1][1].bidirectional
            layers = self.decoder._recurrent[0][1].num_layers
            given = tuple(self._through_bridge(s[-ways:], layers) for s in last)
            states = [given if len(given) > 1 else given[0]]
        elif self.bridge is not None:
            states = list(model_checks.states(self.bridge(states), len(self.decoder._recurrent), name))
        return self.decoder._given(states, batch, True, name)

    def _through_bridge(self, state: Array, layers: int) -> Array:
        """(D, B, H) -> (L, B, H')."""
        assert isinstance(self.bridge, DenseLayer)
        ways, batch, size = state.shape
        rows = self.bridge(np.ascontiguousarray(state.transpose(1, 0, 2)).reshape(batch, ways * size))
        return np.ascontiguousarray(rows.reshape(batch, layers, rows.shape[1] // layers).transpose(1, 0, 2))

    def _search(self, states: list[States], most: int, width: int, penalty: float) -> list[Array]:
        """Beam search: the tokens of the best result of each row."""
        logits = Logits(self.decoder)
        batch = states[0][0].shape[1]
        states = [tuple(np.repeat(s, width, 1) for s in state) for state in states]
        tokens = np.full((batch, width, 0), -1, np.int64)
        last = np.full((batch, width), self._start)
        scores = np.where(np.arange(width), -np.inf, 0.0)[None].repeat(batch, 0)  # at first all are the same
        ended = np.zeros((batch, width), bool)
        counts = np.zeros((batch, width), np.int64)
        while tokens.shape[2] < most and not ended.all():
            p = logits.step(last.reshape(-1), states)
            logits.activate("log_softmax", p, p)
            alive = ~ended & (scores > -np.inf)  # the others are fed too, and what they give does not count
            failed = np.isnan(p).any(1) & alive.reshape(-1)
            if failed.any():
                raise text_checks.not_finite_logits(int(failed.argmax()) // width)
            size = p.shape[1]
            following = scores[..., None] + p.reshape(batch, width, size)
            following[~alive] = -np.inf
            following[..., self._stop][ended] = scores[ended]  # a result that has ended is one candidate, as it is
            length = np.maximum(counts + ~ended, 1)[..., None] ** penalty
            order = _least(-(following / length).reshape(batch, -1), width)
            scores = np.take_along_axis(following.reshape(batch, -1), order, 1)
            parent, token = order // size, order % size
            was = np.take_along_axis(ended, parent, 1)
            tokens = np.take_along_axis(tokens, parent[..., None], 1)
            ended = was | (token == self._stop)
            tokens = np.concatenate([tokens, np.where(ended, -1, token)[..., None]], 2)
            counts = np.take_along_axis(counts, parent, 1) + ~was
            last = np.where(ended, self._start, token)
            rows = (parent + width * np.arange(batch)[:, None]).reshape(-1)
            states = [tuple(np.ascontiguousarray(s[:, rows]) for s in state) for state in states]
        best = tokens[:, 0]  # the first of the order in which the last step left them
        return [row[row >= 0] for row in best]


def _least(values: Array, count: int) -> Array:
    """Return where the least numbers of each row (B, n) are, as a stable sort has them, NaN last: (B, count)."""
    limits = np.partition(values, count - 1, axis=1)[:, count - 1]
    found = [np.flatnonzero(~(row > limit)) for row, limit in zip(values, limits, strict=True)]
    return np.array(
        [among[np.argsort(row[among], kind="stable")[:count]] for row, among in zip(values, found, strict=True)]
    )


def _shapes(model: SequenceModel) -> list[list[tuple[int, int, int]]]:
    """Return (L, D, size) of the states of each recurrent layer."""
    return [
        [(layer.num_layers, 1 + layer.bidirectional, size) for size in layer._state_sizes]
        for _, layer in model._recurrent
    ]
