"""What all layers and cells are made of: configuration, weights, states, calls."""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy import empty, ndarray

from fastrnn import backends, checks, threads
from fastrnn.cells import VARIANTS
from fastrnn.weights import Plan, Sizes, Weights, check_arrays, check_tensors, init_weights, state_dict

if TYPE_CHECKING:
    from fastrnn.stream import Stream

__all__ = ["Recurrent", "Saved", "Weighted"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# Arguments that have defaults, in the order of torch's repr. All but the last two are fixed once a layer is built.
_DEFAULTS = {
    "proj_size": 0,
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "nonlinearity": "tanh",
    "reset_after": True,
    "dtype": checks.FLOAT32,
    "backend": None,
    "num_threads": None,
}
_FIXED = ("input_size", "hidden_size", *list(_DEFAULTS)[:-2])


class Saved:
    """What layers, cells and models share: files, and a hash for Dask of what a file says."""

    def save(self, path: "str | PathLike[str]") -> None:
        """Write configuration and weights to one safetensors file that `fastrnn.load` reads, whole or not at all.

        Not written: ``backend`` and ``num_threads`` of layers, which belong to a machine.
        """
        from fastrnn import files

        files.save(self, path)  # type: ignore[arg-type]

    def __dask_tokenize__(self) -> str:
        from fastrnn import files

        return files.token(self)  # type: ignore[arg-type]


class Weighted(Saved):
    """What layers and cells share: configuration, weights, the prepared runner of each backend, pickles."""

    _variant: ClassVar[str]  # the key of VARIANTS that fixes the shapes of the weights

    input_size: int
    hidden_size: int
    bias: bool
    dtype: np.dtype[Any]
    backend: str | None
    num_threads: int | None

    def __init__(
        self, sizes: Sizes, activation: str, dtype: Any, device: Any, backend: str | None, num_threads: int | None
    ) -> None:
        checks.device(device)
        if backend is not None:
            backends.load(backend)
        self.input_size, self.hidden_size, self.bias = sizes.input_size, sizes.hidden_size, sizes.bias
        self.dtype = checks.dtype(dtype)
        self.backend = backend
        self.num_threads = checks.num_threads(num_threads)
        self._function = activation
        self._stacked = sizes.num_layers * sizes.num_directions  # L*D
        self._state_sizes = (sizes.proj_size or sizes.hidden_size, sizes.hidden_size)[
            : len(VARIANTS[sizes.variant].states)
        ]
        self._state_letters = "PH" if sizes.proj_size else "HH"
        self._plan: Plan | None = None
        self._initial: tuple[Array, ...] | None = None  # (L*D, P or H) each
        self._forget()
        self._sizes = sizes  # last: from here on the configuration is fixed

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and "_sizes" in self.__dict__:
            raise AttributeError(f"{name} is fixed once a layer is built: build another {type(self).__name__}")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        given = [
            f"{name}={self.__dict__[name]}"
            for name, usual in _DEFAULTS.items()
            if self.__dict__.get(name, usual) != usual
        ]
        return f"{type(self).__name__}({', '.join([str(self.input_size), str(self.hidden_size), *given])})"

    def _config(self) -> dict[str, Any]:
        """Return the constructor's arguments, but for those that belong to a process."""
        return {name: self.__dict__[name] for name in _FIXED if name in self.__dict__}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_runners", "_held")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, dtype=checks.dtype(state["dtype"]))  # the dtype object that `is` looks for
        self._forget()

    def _forget(self) -> None:
        self._runners: dict[str, backends.Run] = {}
        self._held: tuple[tuple[Array, ...] | None, int, tuple[Array, ...]] = (None, -1, ())

    # Weights ----------------------------------------------------------------------------------------------------------

    @classmethod
    def from_weights(cls, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None, **config: Any) -> Self:
        """One layer in one direction from its matrices, with the sizes read off them.

        Parameters
        ----------
        w_ih : (G*H, I) array_like
            U, rows in torch's order of gates: LSTM i f g o, GRU r z n.
        w_hh : (G*H, H) array_like
            W.
        b_ih, b_hh : (G*H,) array_like, optional
            Without both the layer has ``bias=False``.
        **config
            The constructor's other arguments.

        Returns
        -------
        layer
            With copies of the weights, in ``dtype`` (default float32).

        Raises
        ------
        ValueError
            That names every array whose shape does not fit.
        TypeError
            For arrays that are not real numbers, and for arguments that are read off the shapes.

        Examples
        --------
        >>> import fastrnn
        >>> fastrnn.RNN.from_weights([[1.0], [2.0]], [[0.5, 0.0], [0.0, 0.5]])
        RNN(1, 2, bias=False)
        """
        checks.read_off(config, ("input_size", "hidden_size", "num_layers", "bias", "bidirectional", "proj_size"))
        given = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
        arrays = {
            name: checks.weight(value, name) for name, value in given.items() if value is not None or name[0] == "w"
        }
        sizes, weights = check_arrays(cls._variant, **arrays, dtype=checks.dtype(config.get("dtype")))
        make: Any = cls
        layer: Self = make(sizes.input_size, sizes.hidden_size, bias=sizes.bias, **config)
        layer._publish((weights,))
        return layer

    def load_state_dict(self, tensors: Mapping[str, Any], prefix: str = "") -> Self:
        """Take weights by torch's names, strictly: every key is used and every shape is right, or nothing changes.

        Parameters
        ----------
        tensors : mapping of str to array_like
            Arrays or tensors; they are detached, copied and cast to the layer's dtype.
        prefix : str
            Only keys that start with it are looked at. A further prefix that all of them share is taken off.

        Returns
        -------
        layer
            Itself.

        Raises
        ------
        ValueError
            That names all missing, unknown and misshapen keys.
        TypeError
            For weights that are not real numbers.
        """
        self._publish(check_tensors(checks.tensors(tensors, prefix), self._sizes, self.dtype, prefix))
        return self

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the weights, by torch's names and in torch's order; ValueError without weights."""
        return state_dict(self._planned().weights, self._sizes)

    def init(self, seed: int = 0) -> Self:
        """Draw the weights uniformly from (-1/sqrt(H), 1/sqrt(H)), torch's distribution; returns the layer itself."""
        self._publish(init_weights(self._sizes, self.dtype, checks.integer(seed, "seed", 0)))
        return self

    def _publish(self, weights: tuple[Weights, ...]) -> None:
        """Set the weights of calls that start from now on."""
        s = self._sizes
        plan = Plan(
            variant=s.variant,
            activation=self._function,
            input_size=s.input_size,
            hidden_size=s.hidden_size,
            proj_size=s.proj_size,
            num_layers=s.num_layers,
            num_directions=s.num_directions,
            dtype=self.dtype,
            weights=weights,
        )
        with backends.lock:
            self._plan, self._runners = plan, {}

    def _planned(self) -> Plan:
        if self._plan is None:
            raise checks.no_weights(self)
        return self._plan

    @property
    def _activation(self) -> str:
        """For tests: "linear" replaces every sigmoid and tanh by the identity."""
        return self._function

    @_activation.setter
    def _activation(self, name: str) -> None:
        self._function = checks.choice(name, "_activation", VARIANTS[self._sizes.variant].activations)
        with backends.lock:
            if self._plan is not None:
                self._plan, self._runners = replace(self._plan, activation=name), {}

    # What a call needs ------------------------------------------------------------------------------------------------

    def _prepare(self, backend: str | None = None) -> backends.Run:
        """Return the runner of a backend, or of the one in use, made once."""
        name = backend or self.backend or backends.current()
        run = self._runners.get(name)
        if run is not None:
            return run
        with backends.lock:
            plan, runners = self._planned(), self._runners
            if name not in runners:
                runners[name] = backends.load(name).layer(plan)
            return runners[name]

    def _start(self, batch: int) -> tuple[Array, ...]:
        """Return the states that hx=None means; those of the last batch size are kept, for loops over steps."""
        held = self._held
        if held[1] == batch and held[0] is self._initial:
            return held[2]
        initial = self._initial
        state = tuple(np.zeros((self._stacked, batch, size), self.dtype) for size in self._state_sizes)
        for i, array in enumerate(state):
            if initial is not None:
                array[:] = initial[i][:, None]
            array.flags.writeable = False
        self._held = (initial, batch, state)
        return state

    def _given(self, hx: Any, axes: tuple[int, ...], letters: str, batch: int, name: str = "hx") -> tuple[Array, ...]:
        """Return the states in hx, each (*axes, size), as (L*D, B, size)."""
        found = checks.states(hx, axes, self._state_sizes, self.dtype, letters, self._state_letters, name)
        if len(axes) == 2:
            return found
        return tuple([s.reshape(self._stacked, batch, n) for s, n in zip(found, self._state_sizes, strict=True)])

    def _warm_up(self) -> None:
        raise NotImplementedError


class Recurrent(Weighted):
    """The base of RNN, LSTM and GRU."""

    num_layers: int
    batch_first: bool
    dropout: float
    bidirectional: bool

    def __init__(
        self,
        variant: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int = 0,
        *,
        activation: str = "standard",
        **settings: Any,
    ) -> None:
        self.num_layers = checks.integer(num_layers, "num_layers", 1)
        self.batch_first = checks.flag(batch_first, "batch_first")
        self.dropout = checks.dropout(dropout)
        self.bidirectional = checks.flag(bidirectional, "bidirectional")
        sizes = Sizes(
            variant,
            input_size=checks.integer(input_size, "input_size", 1),
            hidden_size=checks.integer(hidden_size, "hidden_size", 1),
            proj_size=proj_size,
            num_layers=self.num_layers,
            num_directions=1 + self.bidirectional,
            bias=checks.flag(bias, "bias"),
        )
        self._output_size = sizes.num_directions * (proj_size or sizes.hidden_size)
        super().__init__(sizes, activation, **settings)

    @property
    def initial_state(self) -> Any:
        """A learned state that every call with ``hx=None`` starts from, for all rows alike; None means zeros.

        Set it to h, or (h, c) for LSTM: h (L*D, P or H), c (L*D, H). It is copied, saved and pickled with the layer.
        """
        initial = self._initial
        return initial if initial is None or len(initial) > 1 else initial[0]

    @initial_state.setter
    def initial_state(self, value: Any) -> None:
        if value is None:
            self._initial = None
            return
        pair = len(self._state_sizes) > 1 and isinstance(value, (tuple, list))
        parts = tuple(checks.weight(part, "initial_state") for part in (value if pair else (value,)))
        parts = tuple(p[:, 0] if p.ndim == 3 and p.shape[1] == 1 else p for p in parts)  # (L*D, 1, H), torch's habit
        found = checks.states(
            parts if pair else parts[0],
            (self._stacked,),
            self._state_sizes,
            self.dtype,
            "L*D, ",
            self._state_letters,
            "initial_state",
        )
        copies = tuple(array.copy() for array in found)
        for array in copies:
            array.flags.writeable = False
        self._initial = copies

    def __call__(self, x: Any, hx: Any = None, *, lengths: Any = None, out: Array | None = None) -> tuple[Array, Any]:
        """Run a batch of sequences.

        Parameters
        ----------
        x : (T, B, I) array_like
            Or (B, T, I) with ``batch_first``, or one sequence (T, I). Read in place where it is C-contiguous and of the
            layer's dtype, else cast once.
        hx : array_like or pair of array_like, optional
            The initial states: h (L*D, B, P or H), for LSTM (h, c) with c (L*D, B, H); without B for one sequence.
            Never batch first. Default: `initial_state`, or zeros.
        lengths : (B,) array_like of int, optional
            Valid steps of each row, 0 to T in any order. Beyond them y is zero; states are those after the last of
            them.
        out : array, optional
            Receives y: of its shape and dtype, C-contiguous, overlapping no argument.

        Returns
        -------
        y : array
            Shape of x with O = D*(P or H) as last axis.
        hx : array or pair of arrays
            The final states, in the layout of the argument. All results are new arrays that share no memory.

        Raises
        ------
        ValueError
            For wrong shapes and values, and for a layer without weights.
        TypeError
            For arguments that are not real numbers, and for tensors that require grad.
        """
        run = self._runners.get(self.backend or backends.current()) or self._prepare()
        num_threads = self.num_threads or threads.count or threads.get_num_threads()
        given = (x, hx, lengths)
        dtype = self.dtype
        # The same check as checks.readable makes, without its calls: a step on a small layer takes a microsecond.
        if type(x) is not ndarray or x.dtype is not dtype or not (flags := x.flags).c_contiguous or not flags.aligned:
            x = checks.readable(x, "x", dtype)
        shape = x.shape
        ndim = len(shape)
        if not 2 <= ndim <= 3 or shape[-1] != self.input_size:
            symbols = ("B, T, I" if self.batch_first else "T, B, I", "T, I")
            raise checks.wrong_input(shape, symbols, self.input_size)
        if ndim == 2:
            x = x.reshape(shape[0], 1, shape[1])
        elif self.batch_first:
            x = x.transpose(1, 0, 2)
        steps, batch, _ = x.shape
        stacked = self._stacked
        if hx is None:
            state = self._start(batch)
        elif ndim == 3:
            state = self._given(hx, (stacked, batch), "L*D, B, ", batch)
        else:
            state = self._given(hx, (stacked,), "L*D, ", batch)
        if lengths is not None:
            lengths = checks.lengths(lengths, steps, batch, ndim == 3)
        size = self._output_size
        shape = (shape[0], shape[1], size) if ndim == 3 else (steps, size)
        if out is None:
            out = empty(shape, dtype)
        else:
            checks.out(out, shape, dtype, given)
        y: Array = out
        if ndim == 2:
            y = out.reshape(steps, 1, size)
        elif self.batch_first:
            y = out.transpose(1, 0, 2)
        sizes = self._state_sizes
        h = empty((stacked, batch, sizes[0]), dtype)
        if len(sizes) == 1:
            run(x, state, lengths, y, (h,), num_threads)
            return out, (h if ndim == 3 else h.reshape(stacked, sizes[0]))
        c = empty((stacked, batch, sizes[1]), dtype)
        run(x, state, lengths, y, (h, c), num_threads)
        return out, ((h, c) if ndim == 3 else (h.reshape(stacked, sizes[0]), c.reshape(stacked, sizes[1])))

    def stream(self, batch_size: int | None = None, *, hx: Any = None) -> "Stream":
        """Make a `Stream`: the layer with a state that stays between calls, for inputs that come step by step.

        Parameters
        ----------
        batch_size : int, optional
            N, the number of streams that the object holds, each at its own point in time. Default: one, without an axis
            for it.
        hx : array_like or pair of array_like, optional
            Where the streams start: h (L, N, P or H), for LSTM (h, c) with c (L, N, H); (L, ..) without batch_size.
            Default: `initial_state`, or zeros, which is also what `Stream.reset` goes back to.

        Returns
        -------
        Stream
            With the weights, the initial state and the backend that the layer has now.

        Raises
        ------
        UnsupportedError
            For a bidirectional layer, whose backward direction starts at the end.
        ValueError, TypeError
            As for a call.

        Examples
        --------
        >>> import fastrnn
        >>> stream = fastrnn.GRU(2, 3).init().stream(batch_size=5)
        >>> stream.step([[1.0, 2.0]], rows=[4]).shape
        (1, 3)
        """
        from fastrnn import stream  # which depends on this module

        return stream.start(self, batch_size, hx)

    def trace(self, x: Any, hx: Any = None) -> list[dict[str, Array]]:
        """Every gate and state of every step, from the reference formulas: slow, for eyes.

        Parameters
        ----------
        x : (T, I) array_like
            One sequence.
        hx : array_like or pair of array_like, optional
            As for a call with one sequence.

        Returns
        -------
        list of dict
            For each layer and direction, index ``layer*D + direction``: gate or state name -> (T, H) array.
        """
        from fastrnn import reference

        plan = self._planned()
        x = checks.readable(x, "x", self.dtype)
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise checks.wrong_input(x.shape, ("T, I",), self.input_size)
        state = self._start(1) if hx is None else self._given(hx, (self._stacked,), "L*D, ", 1)
        return reference.trace(plan, x, state)

    def _warm_up(self) -> None:
        x = np.zeros((1, 1, self.input_size), self.dtype)
        self(x)
        self(x, lengths=[1])
