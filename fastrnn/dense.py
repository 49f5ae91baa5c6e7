"""Output layers and other dense layers: ``f(W h + b)``, from what users give to what backends run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastrnn import backends, checks, preparing, threads
from fastrnn.packing import PackedPhase, pack_dense
from fastrnn.weights import frozen

__all__ = ["Dense", "DenseLayer", "DensePlan"]

FUNCTIONS = ("linear", "relu", "sigmoid", "tanh", "softmax", "log_softmax")  # "linear" is activation=None


class Dense(NamedTuple):
    """A dense layer ``f(W h + b)``: V rows of weights, one for each number it puts out.

    Attributes
    ----------
    weight : (V, K) array_like
        W, in torch's layout.
    bias : (V,) array_like, optional
        b.
    activation : {"linear", "softmax", "log_softmax", "sigmoid", "tanh", "relu"}, optional
        f; None is "linear"; softmax and log_softmax are over the V numbers of a row.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.Dense([[1.0, 2.0]], activation="tanh").activation
    'tanh'
    """

    weight: Any
    bias: Any = None
    activation: str | None = None


@dataclass(frozen=True, eq=False)
class DensePlan:
    """Everything a backend needs to run a dense layer. Pickles and copies hold the logical weights and pack again."""

    weight: np.ndarray  # (V, K), read-only
    bias: np.ndarray | None  # (V,), read-only
    activation: str  # of FUNCTIONS

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of weights, inputs and results."""
        return self.weight.dtype

    @property
    def input_size(self) -> int:
        """K."""
        return int(self.weight.shape[1])

    @property
    def output_size(self) -> int:
        """V."""
        return len(self.weight)

    @property
    def packed(self) -> PackedPhase:
        """The weights in kernel order, packed at first use; see `packing.Plan.packed`."""
        if "packed" not in self.__dict__:
            self.__dict__.setdefault("packed", pack_dense(self.weight, self.bias))
        found: PackedPhase = self.__dict__["packed"]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "packed"}


class DenseLayer:
    """A `DensePlan` with its runner on each backend, as layers have."""

    def __init__(self, plan: DensePlan) -> None:
        self.plan = plan
        self._runners: dict[str, Callable[..., None]] = {}
        self._linear: DenseLayer | None = None

    def __getstate__(self) -> DensePlan:
        return self.plan

    def __setstate__(self, plan: DensePlan) -> None:
        self.__init__(plan)  # type: ignore[misc]

    @property
    def input_size(self) -> int:
        """K."""
        return self.plan.input_size

    @property
    def linear(self) -> "DenseLayer":
        """The layer without its function, made once."""
        if self._linear is None:
            plan = replace(self.plan, activation="linear")
            plan.__dict__["packed"] = self.plan.packed  # which both need
            self._linear = DenseLayer(plan)
        return self._linear

    @property
    def _output_size(self) -> int:  # V, by the name that recurrent layers have for it
        return self.plan.output_size

    def __repr__(self) -> str:
        plan = self.plan
        function = f", {plan.activation!r}" if plan.activation != "linear" else ""
        return f"Dense({plan.input_size}, {plan.output_size}{function}{', bias=False' * (plan.bias is None)})"

    def __call__(
        self,
        x: np.ndarray,
        out: np.ndarray | None = None,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> np.ndarray:
        """Compute ``f(W x + b)`` for the rows of x (N, K) into `out` (N, V), of the plan's dtype, or a new array."""
        x = checks.readable(x, "x", self.plan.dtype)
        if x.ndim != 2 or x.shape[1] != self.plan.input_size:
            raise ValueError(f"x is {x.shape}, expected (N, K) = (N, {self.plan.input_size})")
        if out is None:
            out = np.empty((len(x), self.plan.output_size), self.plan.dtype)
        self.runner(backend)(x, out, num_threads or threads.count or threads.get_num_threads())
        return out

    def runner(self, backend: str | None = None) -> Callable[..., None]:
        """Return the runner of a backend, or of the one in use, made once."""
        name = backend or backends.current()
        run = self._runners.get(name)
        if run is None:
            with preparing.lock:
                if name not in self._runners:
                    self._runners[name] = backends.load(name).dense(self.plan)
                run = self._runners[name]
        return run


def make_plan(given: Any, dtype: np.dtype[Any], name: str) -> DensePlan:
    """Read Dense, (V, c), (V, c, "softmax") or any object with .weight and .bias; copies, cast to `dtype`."""
    named = (getattr(given, attribute, None) for attribute in ("weight", "bias"))
    parts = tuple(given if isinstance(given, (tuple, list)) else named)
    if not 1 <= len(parts) <= 3 or parts[0] is None:
        raise TypeError(
            f"{name} must be a fastrnn.Dense, (weight, bias), (weight, bias, activation) or an object with .weight and"
            f" .bias, such as torch.nn.Linear, got {type(given).__name__}"
        )
    weight, bias, activation = (*parts, None, None)[:3]
    weight = checks.weight(weight, f"{name}.weight")
    if weight.ndim != 2 or 0 in weight.shape:
        cure = "" if weight.ndim else ": Dense(weight, bias, activation) takes arrays, and no sizes as torch.nn.Linear"
        raise ValueError(f"{name}.weight must be a matrix (V, K), got shape {weight.shape}{cure}")
    if bias is not None:
        bias = checks.weight(bias, f"{name}.bias")
        if bias.shape != (len(weight),):
            cure = f": pass {name}.weight.T" if bias.shape == (weight.shape[1],) else ""
            raise ValueError(f"{name}.bias is {bias.shape}, expected (V,) = ({len(weight)},){cure}")
        bias = frozen(bias, dtype)
    function = "linear" if activation is None else checks.choice(activation, f"{name}.activation", FUNCTIONS)
    return DensePlan(frozen(weight, dtype), bias, function)


def make_layer(given: Any, dtype: np.dtype[Any], name: str) -> DenseLayer:
    """Read what `make_plan` does, or a DenseLayer, which is not copied if it has the dtype."""
    if isinstance(given, DenseLayer):
        if given.plan.dtype == dtype:
            return given
        given = (given.plan.weight, given.plan.bias, given.plan.activation)
    return DenseLayer(make_plan(given, dtype, name))


def make_chain(given: Any, dtype: np.dtype[Any], name: str) -> tuple[DenseLayer, ...]:
    """Read None, one dense layer, or a list of them; a tuple is a list of them if it holds nothing else."""
    if given is None:
        return ()
    if isinstance(given, tuple) and all(isinstance(part, (Dense, DenseLayer)) for part in given):
        given = list(given)
    if isinstance(given, list):
        return tuple(make_layer(part, dtype, f"{name}[{i}]") for i, part in enumerate(given))
    return (make_layer(given, dtype, name),)
