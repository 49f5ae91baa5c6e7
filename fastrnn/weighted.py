"""What all layers and cells are made of: configuration, weights, states."""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np

from fastrnn import backends, checks, preparing
from fastrnn.cells import variant
from fastrnn.packing import Plan
from fastrnn.weights import Sizes, Weights, check_arrays, check_tensors, init_weights, state_dict

__all__ = ["Array", "Saved", "Weighted"]

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
    "direction": "forward",
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

    _variant: ClassVar[str]  # the name of the variant that fixes the shapes of the weights

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
        self._state_sizes = variant(sizes.variant).state_sizes(sizes.hidden_size, sizes.proj_size)
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
        config = self._config() | {"backend": self.backend, "num_threads": self.num_threads}
        first = [str(config[name]) for name in ("cell", "input_size", "hidden_size") if name in config]
        given = [f"{name}={config[name]}" for name, usual in _DEFAULTS.items() if config.get(name, usual) != usual]
        return f"{type(self).__name__}({', '.join([*first, *given])})"

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
        if w_hh is None:
            raise TypeError("w_hh must be a matrix (G*H, H), got None: own cells alone have none")
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
        self._publish(init_weights(self._sizes, self.dtype, checks.integer(seed, "seed", 0, None)))
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
        with preparing.lock:
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
        self._function = checks.choice(name, "_activation", variant(self._sizes.variant).activations)
        with preparing.lock:
            if self._plan is not None:
                self._plan, self._runners = replace(self._plan, activation=name), {}

    # What a call needs ------------------------------------------------------------------------------------------------

    def _prepare(self, backend: str | None = None) -> backends.Run:
        """Return the runner of a backend, or of the one in use, made once."""
        name = backend or self.backend or backends.current()
        run = self._runners.get(name)
        if run is not None:
            return run
        with preparing.lock:
            plan, runners = self._planned(), self._runners
            if name not in runners:
                if name == "cython" and variant(plan.variant).function is not None:
                    raise checks.own_cell(self)
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
