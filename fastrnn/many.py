"""Many sequences of any lengths: grouped by length, run as ragged batches, given back in their order."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import nullcontext
from itertools import islice
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from fastrnn import checks, model_checks, text_checks
from fastrnn.weighted import Array
from fastrnn.wiring import OfModel, States

__all__ = ["ManySequences", "Ragged"]

_NUMBERS = 1 << 21  # that a batch hands from layer to layer: they stay in the outer caches
_LEAST_ROWS = 4  # of a batch: with fewer, a step takes as long as reading all weights does
_ROWS = 2048  # of a batch at most: more gain nothing, and their states leave the caches
_WINDOW = 1 << 15  # sequences that are sorted at a time, so that what their batches gather and scatter stays there too


class Ragged(NamedTuple):
    """Sequences of any lengths, one after the other: sequence k is ``values[offsets[k]:offsets[k + 1]]``.

    What an Arrow list column is: ``Ragged(column.values, column.offsets)``, without a copy.

    Attributes
    ----------
    values : (S,) array_like of int, or (S, I) array_like of float
        Ids, or vectors.
    offsets : (N+1,) array_like of int
        Where sequences begin and the last one ends: they never fall, and lie in 0..S.

    Examples
    --------
    >>> import fastrnn
    >>> len(fastrnn.Ragged([1, 2, 3], [0, 2, 2, 3]).offsets) - 1
    3
    """

    values: Any
    offsets: Any


class ManySequences(OfModel):
    """What `SequenceModel` inherits: calls over many sequences."""

    def predict_many(
        self,
        sequences: Any,
        *,
        wiring: str | None = None,
        pool: str | None = None,
        out: Array | None = None,
        progress: bool = False,
    ) -> Any:
        """Run any number of sequences of any lengths.

        They are sorted by length and run in batches that the caches hold: no work is done on padding, and no Python
        object is made for a sequence of a `Ragged`. Ctrl-C stops it between two batches.

        A row that has finished is not given another sequence: sorted ones finish nearly together, and a backward
        direction begins at the end.

        Parameters
        ----------
        sequences : Ragged, or list of (T,) array_like of int, of (T, I) array_like of float, or of str
            As `predict` takes them one by one; texts need a `vocabulary`.
        wiring, pool : str, optional
            As for `predict`.
        out : array, optional
            Many-to-one: receives the result, of its shape and dtype, C-contiguous; it may be a memmap.
        progress : bool
            Draw a bar.

        Returns
        -------
        (N, V) array, or Ragged
            Many-to-one: a row for each sequence, in the order given; `out`, or a new array. Many-to-many: a Ragged
            whose values (S, V) follow each other in that order, from offset 0.

        Raises
        ------
        ValueError, TypeError
            As for `predict`, and for offsets that fall or lie outside of the values.

        Examples
        --------
        >>> import fastrnn
        >>> model = fastrnn.SequenceModel(fastrnn.GRU(4, 5).init(), embedding="one_hot", wiring="many_to_one")
        >>> model.predict_many([[0, 3, 2], [1], []]).shape
        (3, 5)
        >>> model.predict_many(fastrnn.Ragged([0, 3, 2, 1], [0, 3, 4, 4]), wiring="many_to_many").values.shape
        (4, 5)
        """
        model, how = self._model, {"wiring": wiring, "pool": pool}
        progress = checks.flag(progress, "progress")
        to_one = model._wiring(wiring, pool)[0] == "many_to_one"
        values, offsets = self._ragged(sequences)
        if out is not None and not to_one:
            raise text_checks.out_without_use()
        if out is not None:
            shape = len(offsets) - 1, model._output_size
            given = () if isinstance(sequences, Ragged) else [one for one in sequences if isinstance(one, np.ndarray)]
            checks.out(out, shape, model._dtype, (values, offsets, given), ("sequences",) * 3)
        with _bar(len(offsets) - 1, progress) as bar:
            out = self._results(values, offsets, to_one, how, out, bar.update)
        return out if to_one else Ragged(out, offsets - offsets[0])

    def predict_iter(
        self,
        sequences: Ragged | Iterable[Any],
        *,
        lookahead: int = 4096,
        wiring: str | None = None,
        pool: str | None = None,
        progress: bool = False,
    ) -> Iterator[Array]:
        """Run the sequences of any iterable lazily, in order, in memory that does not grow with their number.

        Parameters
        ----------
        sequences : Ragged, or iterable
            Of what `predict_many` takes in a list.
        lookahead : int
            Sequences that are taken from it at a time, and sorted by length among themselves.
        wiring, pool : str, optional
            As for `predict`.
        progress : bool
            Draw a bar.

        Yields
        ------
        (V,) or (T, V) array
            One for each sequence, as `predict` gives it.

        Raises
        ------
        ValueError, TypeError
            As for `predict_many`.

        Examples
        --------
        >>> import fastrnn
        >>> model = fastrnn.SequenceModel(fastrnn.GRU(4, 5).init(), embedding="one_hot")
        >>> [y.shape for y in model.predict_iter([[0, 3, 2], [1]])]
        [(3, 5), (1, 5)]
        """
        lookahead = checks.integer(lookahead, "lookahead", 1, sys.maxsize)
        progress = checks.flag(progress, "progress")
        to_one = self._model._wiring(wiring, pool)[0] == "many_to_one"
        how = {"wiring": wiring, "pool": pool}
        if isinstance(sequences, Ragged):
            values, offsets = self._ragged(sequences)
            count: int | None = len(offsets) - 1
            starts = range(0, len(offsets) - 1, lookahead)
            windows: Iterator[tuple[Array, Array]] = ((values, offsets[k : k + lookahead + 1]) for k in starts)
        else:
            count = len(sequences) if isinstance(sequences, Sized) else None
            lists = enumerate(_windows(text_checks.iterable(sequences, "sequences"), lookahead))
            windows = (self._ragged(window, k * lookahead) for k, window in lists)
        return self._lazily(windows, to_one, how, count, progress)

    def _lazily(
        self,
        windows: Iterator[tuple[Array, Array]],
        to_one: bool,
        how: dict[str, Any],
        count: int | None,
        progress: bool,
    ) -> Iterator[Array]:
        with _bar(count, progress) as bar:
            for values, offsets in windows:
                found = self._results(values, offsets, to_one, how, None, bar.update)
                rows = found if to_one else np.split(found, offsets[1:-1] - offsets[0])
                yield from (row.copy() for row in rows)

    def _results(
        self,
        values: Array,
        offsets: Array,
        to_one: bool,
        how: dict[str, Any],
        out: Array | None,
        done: Callable[[int], Any],
    ) -> Array:
        """Run checked sequences: a row for each one, or for each step; calls `done` with how many have just come."""
        model, first = self._model, int(offsets[0])
        if out is None:
            out = np.empty((len(offsets) - 1 if to_one else int(offsets[-1]) - first, model._output_size), model._dtype)
        found = _whole(out)
        for rows, lengths, at, x in self._batches(values, offsets):
            y = _whole(model.predict(x, lengths=lengths, **how))
            if to_one:
                found[rows] = y
            else:
                valid = np.arange(lengths[0]) < lengths[:, None]
                found[at[valid] - first] = y[valid]
            done(len(rows))
        return out

    def _ragged(self, sequences: Any, first: int = 0) -> tuple[Array, Array]:
        """Read what `predict_many` takes: values, checked but not cast, and offsets; messages count from `first` on."""
        if isinstance(sequences, Ragged):
            values = checks.array(sequences.values, "sequences.values")
            if values.shape == (0,) and self._model._vocab is None:  # np.asarray([]) has no axis of I
                values = values.reshape(0, self._model._input_size)
            offsets = text_checks.offsets(sequences.offsets, len(values) if values.ndim else 0)
            self._check_values(values[offsets[0] : offsets[-1]] if values.ndim else values, "sequences.values")
            return values[: offsets[-1]], offsets
        if not isinstance(sequences, (list, tuple, np.ndarray)):
            raise text_checks.not_sequences(sequences)
        model = self._model
        none = np.empty(0, np.int64) if model._vocab is not None else np.empty((0, model._input_size), model._dtype)
        parts: list[Array] = []
        offsets = np.zeros(len(sequences) + 1, np.int64)
        for i, sequence in enumerate(sequences):
            name = f"sequences[{first + i}]"
            part = model._encoded(sequence, name) if isinstance(sequence, str) else checks.array(sequence, name)
            if part.shape == (0,):  # np.asarray([]) is of floats, whatever stands beside it
                offsets[i + 1] = offsets[i]
                continue
            self._check_values(part, name)
            offsets[i + 1] = offsets[i] + len(part)
            if parts and part.ndim != parts[-1].ndim:
                raise text_checks.mixed_sequences(first + i)
            parts.append(part.astype(np.int64, copy=False) if part.ndim == 1 else part)
        return (np.concatenate(parts) if parts else none), offsets

    def _check_values(self, values: Array, name: str) -> None:
        """Demand ids (T,) in range, or vectors (T, I)."""
        model = self._model
        if model._vocab is not None and values.ndim == 1:
            model_checks.in_range(values, model._vocab, name)
        elif values.ndim != 2 or values.shape[1] != model._input_size or (model._vocab and values.dtype.kind in "iu"):
            raise text_checks.wrong_sequence(values, name, model._input_size, model._vocab)

    def _final_states(self, rows: list[Array]) -> list[States]:
        """Run rows of ids, (T,) each: the final states of all recurrent layers."""
        model, offsets = self._model, np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        values = np.concatenate([np.empty(0, np.int64), *rows])
        states = [tuple(map(np.empty_like, layer._start(len(rows)))) for _, layer in model._recurrent]
        for numbers, lengths, _, x in self._batches(values, offsets):
            _, final = model.predict(x, lengths=lengths, return_state=True, wiring="many_to_one", pool="final")
            for state, new in zip(states, final, strict=True):
                for s, n in zip(state, new if isinstance(new, tuple) else (new,), strict=True):
                    s[:, numbers] = n
        return states

    def _batches(self, values: Array, offsets: Array) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Yield sequences of about one length together, the longest first: numbers, lengths, places (B, T), values.

        Beyond a length a place is any that there is.
        """
        model = self._model
        width = max(max(layer.input_size, layer._output_size) for layer in (*model.layers, *model.head))
        for start in range(0, len(offsets) - 1, _WINDOW):
            lengths = np.diff(offsets[start : start + _WINDOW + 1])
            longest = int(lengths.max())
            # NumPy sorts integers of 16 bits by their digits, ten times as fast as larger ones.
            order = np.argsort((longest - lengths).astype(np.min_scalar_type(longest)), kind="stable")
            lengths = lengths[order]
            first = 0
            while first < len(order):
                rows = max(_LEAST_ROWS, min(_ROWS, _NUMBERS // (max(1, int(lengths[first])) * width)))
                numbers, among = start + order[first : first + rows], lengths[first : first + rows]
                at = np.arange(among[0])[:, None] + offsets[numbers]
                yield numbers, among, at.T, values.take(at, axis=0, mode="clip").swapaxes(0, 1)
                first += rows


def _whole(rows: Array) -> Array:
    """Return rows (.., V) as one element each, (..), which NumPy scatters in half the time and less."""
    return rows.view(np.dtype((np.void, rows.itemsize * rows.shape[-1])))[..., 0]


def _windows(given: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Yield `size` elements at a time."""
    while window := list(islice(given, size)):
        yield window


def _bar(count: int | None, progress: bool) -> Any:
    if not progress:
        return nullcontext(SimpleNamespace(update=lambda done: None))
    from tqdm import tqdm

    return tqdm(total=count, unit="seq")
