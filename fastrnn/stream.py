"""Streams: layers that keep their state between calls and take one time step at a time."""

import contextvars
import copy
import itertools
import operator
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from fastrnn import backends, checks, preparing, threads
from fastrnn.packing import aligned_zeros
from fastrnn.recurrent import Recurrent
from fastrnn.weighted import Array

__all__ = ["LayerStream", "Stream"]


class Stream(ABC):
    """N sequences that advance as their inputs come: what `Recurrent.stream` and `SequenceModel.stream` make.

    A sequence has the same bits by `step`, by `push` in chunks of any size and by the whole call, whichever other
    streams advance with it. Weights, backends and numbers of threads are those that the layers had when the stream was
    made.

    One thread at a time: there is no lock, and a call that finds another one inside raises RuntimeError. Pickles and
    copies hold the layer or the model, and the state. Shapes and errors stand with the methods of the class that a
    layer or a model makes.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> stream = fastrnn.GRU(3, 4).init(seed=0).stream(batch_size=5)
    >>> isinstance(stream, fastrnn.Stream), stream.step(np.zeros((2, 3)), rows=[4, 0]).shape
    (True, (2, 4))
    """

    @abstractmethod
    def step(self, x: Any, *, rows: Any = None, out: Array | None = None) -> Array:
        """Advance by one time step: x (N, I), or a model's ids (N,), to (N, O); without N for a single stream."""

    @abstractmethod
    def push(self, x: Any, *, lengths: Any = None, rows: Any = None, out: Array | None = None) -> Array:
        """Advance by a chunk of time steps, which is as the layer or the model takes its x, and so is the result."""

    @abstractmethod
    def reset(self, rows: Any = None) -> None:
        """Go back to the initial state, or zeros where there is none: all streams, or `rows` of them."""

    @abstractmethod
    def get_state(self, rows: Any = None) -> Any:
        """Copy the state of all streams, or of `rows` in their order."""

    @abstractmethod
    def set_state(self, state: Any, rows: Any = None) -> None:
        """Give all streams a state, or `rows` of them in their order: what `get_state` returns."""

    # Which rows a call is about, and one thread at a time -------------------------------------------------------------

    def __init__(self, batch_size: int | None) -> None:
        self._batch_size = batch_size
        self._inside = contextvars.Context()  # entered while a call is inside
        self._seen = np.empty(batch_size or 0, np.bool_)

    def _chosen(self, rows: Any) -> Array | None:
        if rows is None:
            return None
        found = checks.rows(rows, self._batch_size)
        self._alone(checks.distinct, found, self._seen)
        return found

    def _axes(self, rows: Array | None) -> dict[str, int]:
        """Return the axis of rows, if there is one, by its letter in messages."""
        if rows is not None:
            return {"n": len(rows)}
        return {} if self._batch_size is None else {"N": self._batch_size}

    def _alone(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call `work` if no other call is inside.

        A Context lets in one call at a time, whatever its thread, and C code opens and closes it: an interrupt, which
        may come between any two steps of Python, cannot leave it shut.
        """
        try:
            return self._inside.run(work, *arguments)
        except RuntimeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:  # it is work's own
                raise
            raise checks.stream_in_use() from None


class LayerStream(Stream):
    """The `Stream` of a layer.

    Its initial state is the layer's when the stream was made, too: what is loaded or set later is for later streams. No
    backend but the reference makes arrays where `out` is given: see `step` and `push`.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.LSTM(3, 4).init(seed=0)
    >>> x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    >>> stream = layer.stream()
    >>> y = [stream.step(row) for row in x]
    >>> np.array_equal(y, layer(x)[0])
    True

    Three streams, of which two advance:

    >>> stream = layer.stream(3)
    >>> stream.step(x[:2], rows=[2, 0]).shape
    (2, 4)
    >>> h, c = stream.get_state()
    >>> h.shape, h[0, 1]
    ((1, 3, 4), array([0., 0., 0., 0.], dtype=float32))
    """

    def __init__(self, layer: Recurrent, batch_size: int | None, run: backends.Run, state: tuple[Array, ...]) -> None:
        super().__init__(batch_size)
        self._layer = layer
        self._run = run
        self._threads = layer.num_threads or threads.get_num_threads()
        self._states = state  # h (L, N, R), c (L, N, H)
        self._spare = tuple(np.empty_like(s) for s in state)
        self._picked: tuple[Array, ...] = ()

    def __repr__(self) -> str:
        return f"<Stream of {self._layer!r}, batch_size={self._batch_size}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return start, (self._layer, self._batch_size, self.get_state())

    # Steps ------------------------------------------------------------------------------------------------------------

    def step(self, x: Any, *, rows: Any = None, out: Array | None = None) -> Array:
        """Advance by one time step.

        Parameters
        ----------
        x : (N, I) array_like
            Or (I,) without batch_size. Read in place where it is C-contiguous and of the layer's dtype, else cast once.
        rows : (n,) array_like of int, optional
            Distinct numbers of streams, in any order: x has n rows, and only these streams advance.
        out : array, optional
            Receives the result: of its shape and dtype, C-contiguous, overlapping no argument. With `out`, x
            C-contiguous and of the layer's dtype, and `rows` of int64, a step on the compiled backend allocates
            nothing; on Numba's it makes Python objects, less than 4 kB whatever the sizes, and no array.

        Returns
        -------
        (N, O), (n, O) or (O,) array
            `out`, or a new array each time.

        Raises
        ------
        ValueError
            For wrong shapes and values. Nothing has changed then.
        TypeError
            For arguments that are not real numbers, and for tensors that require grad.
        RuntimeError
            While a call from another thread is inside.
        """
        layer, given = self._layer, (x, rows)
        x = checks.readable(x, "x", layer.dtype)
        rows = self._chosen(rows)
        axes = self._axes(rows)
        if x.shape != (*axes.values(), layer.input_size):
            raise checks.wrong_stream_input(x.shape, "".join(axes) + "I", axes | {"I": layer.input_size})
        shape = (*axes.values(), layer._output_size)
        if out is None:
            out = np.empty(shape, layer.dtype)
        else:
            checks.out(out, shape, layer.dtype, given, ("x", "rows"))
        self._alone(self._advance, x if axes else x[None], rows, out if axes else out[None])
        return out

    def push(self, x: Any, *, lengths: Any = None, rows: Any = None, out: Array | None = None) -> Array:
        """Advance by a chunk of time steps.

        Parameters
        ----------
        x : (T, N, I) array_like
            As the layer takes it: (N, T, I) with ``batch_first``, (T, I) without batch_size. T may be 0.
        lengths : (N,) array_like of int, optional
            Valid steps of each row, 0 to T; a stream with 0 stays as it is.
        rows : (n,) array_like of int, optional
            As for `step`: x and `lengths` have n rows.
        out : array, optional
            As for `step`. A push with `out`, and `lengths` of int64 too, makes Python objects, less than 12 kB whatever
            the sizes, and from the second one of a shape on no array: what it works in is kept, by the stream and, up
            to 8 MB on the compiled backend and 4 MB on Numba's, by the layer.

        Returns
        -------
        array
            `out`, or a new array: the shape of x with O as last axis, zeros beyond a length.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As for `step`.
        """
        layer, given = self._layer, (x, lengths, rows)
        x = checks.readable(x, "x", layer.dtype)
        rows = self._chosen(rows)
        axes = self._axes(rows)
        letters = "".join(axes)
        letters = (letters + "T" if layer.batch_first else "T" + letters) + "I"
        sizes = axes | {"I": layer.input_size}
        if x.ndim != len(letters) or any(n != sizes.get(k, n) for k, n in zip(letters, x.shape, strict=True)):
            raise checks.wrong_stream_input(x.shape, letters, sizes)
        shape = (*x.shape[:-1], layer._output_size)
        x = self._time_first(x)
        if lengths is not None:
            lengths = checks.lengths(lengths, x.shape[0], x.shape[1], bool(axes), next(iter(axes), "N"))
        if out is None:
            out = np.empty(shape, layer.dtype)
        else:
            checks.out(out, shape, layer.dtype, given, ("x", "lengths", "rows"))
        self._alone(self._forward, x, lengths, self._time_first(out), rows)
        return out

    # State ------------------------------------------------------------------------------------------------------------

    def reset(self, rows: Any = None) -> None:
        """Go back to the layer's initial state, or zeros where it has none: all streams, or `rows` of them.

        The hx that a stream was made with is where it starts, not what it goes back to.

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
        initial = self._layer._start(1)
        self._alone(self._write, initial, rows)

    def get_state(self, rows: Any = None) -> Any:
        """Copy the state of all streams, or of `rows` in their order.

        Parameters
        ----------
        rows : (n,) array_like of int, optional
            Distinct numbers of streams.

        Returns
        -------
        array or pair of arrays
            In the layer's layout: h (L, n, P or H), for LSTM (h, c) with c (L, n, H); without batch_size (L, ..).

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As for `step`.
        """
        rows = self._chosen(rows)
        state = self._alone(self._read, rows)
        if self._batch_size is None:
            state = tuple(s[:, 0] for s in state)
        return state if len(state) > 1 else state[0]

    def set_state(self, state: Any, rows: Any = None) -> None:
        """Give all streams a state, or `rows` of them in their order.

        Parameters
        ----------
        state : array_like or pair of array_like
            What `get_state` returns, or the hx that a layer returns; it is copied.
        rows : (n,) array_like of int, optional
            Distinct numbers of streams.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As for `step`.
        """
        rows = self._chosen(rows)
        self._alone(self._write, self._given(state, rows, "state"), rows)

    # Inside -----------------------------------------------------------------------------------------------------------

    def _given(self, state: Any, rows: Array | None, name: str) -> tuple[Array, ...]:
        """Return the states in `state` as (L, n, size)."""
        layer = self._layer
        axes = {"L": layer.num_layers, **self._axes(rows)}
        letters = "".join(f"{letter}, " for letter in axes)
        return layer._given(state, tuple(axes.values()), letters, axes.get("n", axes.get("N", 1)), name)

    def _time_first(self, chunk: Array) -> Array:
        """View what the layer takes or gives as (T, n, K)."""
        if self._batch_size is None:
            return chunk[:, None]
        return chunk.transpose(1, 0, 2) if self._layer.batch_first else chunk

    def _advance(self, x: Array, rows: Array | None, out: Array) -> None:
        """Take one step: x (n, I), out (n, O) C-contiguous."""
        self._forward(x[None], None, out[None], rows)

    def _forward(self, x: Array, lengths: Array | None, y: Array, rows: Array | None) -> None:
        """Take the steps of x (T, n, I): the state changes when all have been taken."""
        self._write(self._after(x, lengths, y, rows), rows)

    def _after(
        self, x: Array, lengths: Array | None, y: Array, rows: Array | None, blank: bool = False
    ) -> tuple[Array, ...]:
        """Run the layer's backend over x (T, n, I), and return the state that it leads to; `blank`: y is zeros."""
        state, new = self._states, self._spare
        if rows is not None:
            self._picked = self._picked or tuple(np.empty_like(s) for s in state)
            state, new = _first(self._picked, len(rows)), _first(new, len(rows))
            for s, picked in zip(self._states, state, strict=True):
                s.take(rows, 1, picked, "clip")  # "raise" would fill a copy
        self._run(x, state, lengths, y, new, self._threads, blank)
        return new

    def _read(self, rows: Array | None) -> tuple[Array, ...]:
        return tuple(s.copy() if rows is None else s.take(rows, axis=1) for s in self._states)

    def _write(self, state: tuple[Array, ...], rows: Array | None) -> None:
        write(self._states, state, rows)


class ChainStream(LayerStream):
    """A LayerStream whose step is one call of its backend's `stepper`."""

    def __init__(self, layer: Recurrent, batch_size: int | None, run: backends.Run, state: tuple[Array, ...]) -> None:
        super().__init__(layer, batch_size, run, state)
        stepper = backends.load(layer.backend or backends.current()).stepper
        assert stepper is not None
        self._step = stepper([(run, state)], None, None, state[0].shape[1], self._threads)

    def _advance(self, x: Array, rows: Array | None, out: Array) -> None:
        self._step(x, rows, out)


_KINDS: dict[type, type[LayerStream]] = {}  # by the type of the runner; LayerStream itself runs on any

try:
    from fastrnn import _native
except ImportError:  # without the compiled module; the package has complained where that is not meant
    pass
else:

    class CompiledStream(_native.Stepper, LayerStream):
        """A LayerStream whose step is compiled: nothing in Python stands between the caller and the kernels."""

        def __init__(
            self, layer: Recurrent, batch_size: int | None, run: _native.Engine, state: tuple[Array, ...]
        ) -> None:
            LayerStream.__init__(self, layer, batch_size, run, state)
            _native.Stepper.__init__(self, run, state, batch_size is not None, self._threads)

    _KINDS[_native.Engine] = CompiledStream


def _own(state: Array) -> Array:
    """Copy a state to whole lines: threads write parts of it, and of a shared line they would wait for each other."""
    own: Array = aligned_zeros(state.size, state.dtype).reshape(state.shape)
    own[:] = state
    return own


def _first(arrays: tuple[Array, ...], n: int) -> tuple[Array, ...]:
    """Return (L, n, size) in the memory of each (L, N, size)."""
    return tuple(np.ndarray((len(a), n, a.shape[2]), a.dtype, a) for a in arrays)


def write(states: Iterable[Array], new: Iterable[Array], rows: Array | None) -> None:
    """Copy each of `new` (L, n, size) to the streams `rows` of one of `states` (L, N, size), or to all of them.

    What calls what is C code: no interrupt comes between h and c, or between the layers of a model.
    """
    place = slice(None), slice(None) if rows is None else rows
    deque(map(operator.setitem, states, itertools.repeat(place), new), maxlen=0)  # type: ignore[arg-type]


def start(layer: Recurrent, batch_size: Any, hx: Any, name: str = "hx") -> LayerStream:
    """Make a stream of the weights that the layer has now: `Recurrent.stream`."""
    if batch_size is not None:
        batch_size = checks.integer(batch_size, "batch_size", 0)
    checks.forward_only([layer])
    with preparing.lock:
        run, layer = layer._prepare(), copy.copy(layer)
    count = 1 if batch_size is None else batch_size
    if hx is None:
        state = layer._start(count)
    elif batch_size is None:
        state = layer._given(hx, (layer.num_layers,), "L, ", 1, name)
    else:
        state = layer._given(hx, (layer.num_layers, count), "L, N, ", count, name)
    kind = ChainStream if backends.load(layer.backend or backends.current()).stepper else LayerStream
    return _KINDS.get(type(run), kind)(layer, batch_size, run, tuple(map(_own, state)))
