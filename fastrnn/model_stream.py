"""Streams of models: embedding, layers and head, one time step at a time."""

import copy
from collections.abc import Iterable
from functools import partial
from typing import Any

from fastrnn import backends, checks, model_checks, preparing
from fastrnn.model import SequenceModel
from fastrnn.stream import ChainStream, LayerStream, Stream, write
from fastrnn.stream import start as start_layer
from fastrnn.weighted import Array
from fastrnn.wiring import ByIds, Place, Stage, over_steps, rows_of_ids, through

__all__ = ["ModelStream"]


class ModelStream(Stream):
    """The `Stream` of a model.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> head = fastrnn.Dense(np.eye(4, 3), activation="softmax")
    >>> model = fastrnn.SequenceModel(fastrnn.GRU(5, 3).init(seed=0), embedding="one_hot", head=head)
    >>> ids = [0, 3, 1, 2]
    >>> stream = model.stream()
    >>> y = [stream.step(i) for i in ids]
    >>> np.array_equal(y, model.predict(ids))
    True
    """

    def __init__(self, model: SequenceModel, batch_size: int | None, streams: list[LayerStream]) -> None:
        super().__init__(batch_size)
        self._model = model
        self._streams = streams  # of the recurrent layers
        self._places = [Place(s._layer.backend or backends.current(), s._threads) for s in streams]

    def __repr__(self) -> str:
        return f"<ModelStream of {self._model!r}, batch_size={self._batch_size}>"

    def __reduce__(self) -> tuple[Any, ...]:
        streams = self._alone(lambda: [copy.copy(s) for s in self._streams])
        return of_streams, (self._model, self._batch_size, streams)

    # Steps ------------------------------------------------------------------------------------------------------------

    def step(self, x: Any, *, rows: Any = None, out: Array | None = None) -> Array:
        """Advance by one time step.

        Parameters
        ----------
        x : (N,) array_like of int, or (N, I) array_like of float
            Ids, or vectors, which pass the embedding by, as for `SequenceModel.predict`; one int or (I,) without
            batch_size.
        rows : (n,) array_like of int, optional
            Distinct numbers of streams, in any order: x has n rows, and only these streams advance.
        out : array, optional
            Receives the result: of its shape and dtype, C-contiguous, overlapping no argument. On the compiled backend
            a step with `out` allocates nothing, from the second one on, if x is one int, or C-contiguous and of int64
            or the model's dtype, and `rows` of int64; on Numba's it then makes Python objects, less than 4 kB
            whatever the sizes, and no array.

        Returns
        -------
        (N, V), (n, V) or (V,) array
            `out`, or a new array each time.

        Raises
        ------
        ValueError
            For wrong shapes and values. Nothing has changed then.
        TypeError
            For arguments that are not real numbers, for tensors that require grad, and for bools as ids.
        RuntimeError
            While a call from another thread is inside.
        """
        given = (x, rows)
        rows = self._chosen(rows)
        axes = self._axes(rows)
        x = self._read(x, "".join(axes), axes)
        out = self._model._result(out, (*axes.values(), self._model._output_size), None, given, ("x", "rows"))
        self._alone(self._advance, x if axes else x[None], rows, out if axes else out[None])
        return out

    def push(self, x: Any, *, lengths: Any = None, rows: Any = None, out: Array | None = None) -> Array:
        """Advance by a chunk of time steps.

        Parameters
        ----------
        x : (N, T) array_like of int, or (N, T, I) array_like of float
            As for `step`, with an axis of time, which may be 0; (T,) or (T, I) without batch_size.
        lengths : (N,) array_like of int, optional
            Valid steps of each row, 0 to T; a stream with 0 stays as it is.
        rows : (n,) array_like of int, optional
            As for `step`: x and `lengths` have n rows.
        out : array, optional
            As for `step`, but what the layers hand to each other takes memory for the time of the call.

        Returns
        -------
        (N, T, V), (n, T, V) or (T, V) array
            `out`, or a new array; zeros beyond a length.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As for `step`.
        """
        given = (x, lengths, rows)
        rows = self._chosen(rows)
        axes = self._axes(rows)
        x = self._read(x, "".join(axes) + "T", axes)
        steps = x.shape[len(axes)]
        if lengths is not None:
            letter, count = next(iter(axes.items()), ("N", 1))
            lengths = checks.lengths(lengths, steps, count, bool(axes), letter)
        shape = (*axes.values(), steps, self._model._output_size)
        out = self._model._result(out, shape, None, given, ("x", "lengths", "rows"))
        self._alone(self._forward, x if axes else x[None], lengths, rows, out if axes else out[None])
        return out

    # State ------------------------------------------------------------------------------------------------------------

    def reset(self, rows: Any = None) -> None:
        """Go back to the layers' initial states, or zeros where they have none: all streams, or `rows` of them.

        Parameters
        ----------
        rows : (n,) array_like of int, optional
            Distinct numbers of streams.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As for `step`.
        """
        rows = self._chosen(rows)
        self._alone(self._write, [s for stream in self._streams for s in stream._layer._start(1)], rows)

    def get_state(self, rows: Any = None) -> list[Any]:
        """Copy the state of all streams, or of `rows` in their order.

        Parameters
        ----------
        rows : (n,) array_like of int, optional
            Distinct numbers of streams.

        Returns
        -------
        list
            One hx for each recurrent layer: h (L, n, P or H), for LSTM (h, c) with c (L, n, H); without batch_size
            (L, ..).

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As for `step`.
        """
        rows = self._chosen(rows)
        found: list[Any] = self._alone(lambda: [s.get_state(rows) for s in self._streams])
        return found

    def set_state(self, state: Any, rows: Any = None) -> None:
        """Give all streams a state, or `rows` of them in their order.

        Parameters
        ----------
        state : list
            What `get_state` returns, or the final states of `SequenceModel.predict`; it is copied.
        rows : (n,) array_like of int, optional
            Distinct numbers of streams.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As for `step`.
        """
        rows = self._chosen(rows)
        given = model_checks.states(state, len(self._streams))
        parts = enumerate(zip(self._streams, given, strict=True))
        new = [part for i, (s, hx) in parts for part in s._given(hx, rows, f"state[{i}]")]
        self._alone(self._write, new, rows)

    # Inside -----------------------------------------------------------------------------------------------------------

    def _read(self, x: Any, letters: str, axes: dict[str, int]) -> Array:
        """Read ids with the axes `letters`, or vectors with I after them."""
        found = self._model._ids_or_vectors(x)
        sizes = axes | {"I": self._model._input_size}
        letters += "" if found.dtype.kind == "i" else "I"
        if found.ndim != len(letters) or any(n != sizes.get(k, n) for k, n in zip(letters, found.shape, strict=True)):
            or_ids = self._model._vocab is not None and letters[-1:] == "I"
            raise checks.wrong_stream_input(found.shape, letters, sizes, or_ids)
        return found

    def _advance(self, x: Array, rows: Array | None, out: Array) -> None:
        """Take one step: x (n,) or (n, I), out (n, V)."""
        self._forward(x[:, None], None, rows, out[:, None])

    def _forward(self, x: Array, lengths: Array | None, rows: Array | None, out: Array) -> None:
        """Take a chunk of steps: x (n, T) or (n, T, I), out (n, T, V). All states change together, at the end."""
        model, new = self._model, list[Array]()

        def run(stream: LayerStream, x: Array, lengths: Array | None, y: Array, blank: bool) -> None:
            new.extend(stream._after(x, lengths, y, rows, blank))

        stages = [
            Stage(before, place, stream._layer._output_size, stream._layer.dtype, partial(run, stream))
            for (before, _), stream, place in zip(model._recurrent, self._streams, self._places, strict=True)
        ]
        dense = model._tail + model.head
        y = through(stages, model._vectors(x), lengths, None if dense else out)
        over_steps(dense, y, lengths, self._places[-1], out)
        self._write(new, rows)

    def _parts(self) -> tuple[list[Any], Array | None, Any]:
        """Return what a step goes through, and what ids are there."""
        model, parts = self._model, []
        for (before, _), stream, place in zip(model._recurrent, self._streams, self._places, strict=True):
            parts += [*(layer.runner(place.backend) for layer in before), stream]
        parts += [layer.runner(self._places[-1].backend) for layer in model._tail + model.head]
        if model._vocab is None:
            return parts, None, None
        return parts, rows_of_ids(model.embedding, model._vocab, model._dtype), self._by_ids()

    def _by_ids(self) -> Any:
        """Return what runs the first layer on ids, where it is a recurrent one, with the stream's weights."""
        found, layer = self._model._by_ids, self._streams[0]._layer
        if found is None:
            return None
        with preparing.lock:
            if found.layer._plan is not layer._plan:
                found = ByIds(layer, found.embedding)
            return found.run(self._places[0].backend)

    def _write(self, new: Iterable[Array], rows: Array | None) -> None:
        write([s for stream in self._streams for s in stream._states], new, rows)


class ChainModelStream(ModelStream):
    """A ModelStream whose step is one call of its backend's `stepper`, from the id or the vector to the result."""

    def __init__(self, model: SequenceModel, batch_size: int | None, streams: list[LayerStream]) -> None:
        super().__init__(model, batch_size, streams)
        parts, rows, by_ids = self._parts()
        chained = [(p._run, p._states) if isinstance(p, LayerStream) else (p, None) for p in parts]
        stepper = backends.load(self._places[0].backend).stepper
        assert stepper is not None
        threads = min(s._threads for s in streams)
        self._step = stepper(chained, rows, by_ids, streams[0]._states[0].shape[1], threads)

    def _advance(self, x: Array, rows: Array | None, out: Array) -> None:
        self._step(x, rows, out)


_KINDS: dict[type[LayerStream], type[ModelStream]] = {ChainStream: ChainModelStream}

try:
    from fastrnn import _native
    from fastrnn.stream import CompiledStream
except ImportError:  # without the compiled module; the package has complained where that is not meant
    pass
else:

    class CompiledModelStream(_native.ModelStepper, ModelStream):
        """A ModelStream whose step is one compiled call, from the id or the vector to the head's result."""

        def __init__(self, model: SequenceModel, batch_size: int | None, streams: list[LayerStream]) -> None:
            ModelStream.__init__(self, model, batch_size, streams)
            _native.ModelStepper.__init__(self, *self._parts(), min(s._threads for s in streams))

    _KINDS[CompiledStream] = CompiledModelStream


def of_streams(model: SequenceModel, batch_size: int | None, streams: list[LayerStream]) -> ModelStream:
    """Make a stream of those of the recurrent layers: one compiled step where all of them have the same."""
    kinds = set(map(type, streams))
    kind = _KINDS.get(kinds.pop(), ModelStream)
    return (ModelStream if kinds else kind)(model, batch_size, streams)


def start(model: SequenceModel, batch_size: Any, state: Any) -> ModelStream:
    """Make a stream of the weights that the layers have now: `SequenceModel.stream`."""
    if batch_size is not None:
        batch_size = checks.integer(batch_size, "batch_size", 0)
    layers = [layer for _, layer in model._recurrent]
    given = [None] * len(layers) if state is None else model_checks.states(state, len(layers))
    parts = enumerate(zip(layers, given, strict=True))
    streams = [start_layer(layer, batch_size, hx, f"state[{i}]") for i, (layer, hx) in parts]
    return of_streams(model, batch_size, streams)
