"""What stands between the layers of a model: dense layers over steps, and pools over time.

Letters in shapes: N rows, T time, B batch, I, K and O what a layer takes and gives. Everything lies batch first,
(B, T, ..): dense layers read that as rows, recurrent layers through a view with time first. The rows of a batch do not
meet, and what lies beyond a length is not computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from fastrnn import backends, preparing, threads
from fastrnn.dense import DenseLayer
from fastrnn.packing import Plan
from fastrnn.recurrent import Recurrent
from fastrnn.weighted import Array

if TYPE_CHECKING:
    from fastrnn.model import SequenceModel

__all__ = [
    "ByIds",
    "Chain",
    "OfModel",
    "Place",
    "Stage",
    "States",
    "divided",
    "layout",
    "over_rows",
    "over_steps",
    "pooled",
    "rows_of_ids",
    "stage",
    "through",
]

States: TypeAlias = tuple[Array, ...]  # of one recurrent layer: h (L*D, B, P or H), for LSTM c (L*D, B, H) too
Chain: TypeAlias = tuple[DenseLayer, ...]  # each fed by the one before


class Place(NamedTuple):
    """Where dense layers run: where the recurrent layer beside them does."""

    backend: str
    num_threads: int


class Stage(NamedTuple):
    """A recurrent layer of a call, and the dense layers between it and the one before."""

    dense: Chain
    place: Place
    output_size: int
    dtype: np.dtype[Any]
    run: Callable[[Array, Array | None, Array, bool], None]  # x (T, B, I) or ids (T, B), lengths, y (T, B, O), blank


class OfModel:
    """The base of what `SequenceModel` inherits: methods that are written beside it, and what they belong to."""

    @property
    def _model(self) -> "SequenceModel":
        return self  # type: ignore[return-value]


class ByIds:
    """A model's first layer where it takes ids: it has tables for them, from its plan with the embedding."""

    def __init__(self, layer: Recurrent, embedding: Array | Literal["one_hot"]) -> None:
        self.layer, self.embedding = layer, embedding
        self._runs: dict[str, tuple[Plan, backends.Run]] = {}  # by backend, and the layer's plan that each is of

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_runs": {}}

    def run(self, backend: str | None = None) -> backends.Run:
        """Return what runs it on a backend, or on the one in use, made once for its weights."""
        name = backend or self.layer.backend or backends.current()
        plan, run = self._runs.get(name, (None, None))
        if run is None or plan is not self.layer._plan:
            with preparing.lock:
                plan, run = self._runs.get(name, (None, None))
                if run is None or plan is not self.layer._plan:
                    plan, by_ids = self.layer._planned(), self._plan()
                    by_ids.__dict__["packed"] = plan.packed  # which both need
                    run = backends.load(name).layer(by_ids)
                    self._runs[name] = plan, run
        return run

    @property
    def table_bytes(self) -> int:
        """What the tables take."""
        return self._plan().table_bytes

    def _plan(self) -> Plan:
        return replace(self.layer._planned(), embedding=self.embedding)


def rows_of_ids(embedding: Array | Literal["one_hot"] | None, vocab: int, dtype: np.dtype[Any]) -> Array:
    """Return what ids stand for, (vocab, I), read-only: one-hot rows are windows of one line of numbers."""
    if isinstance(embedding, np.ndarray):
        return embedding
    line = np.zeros(2 * vocab - 1, dtype)
    line[vocab - 1] = 1
    return np.lib.stride_tricks.sliding_window_view(line, vocab)[::-1]


def layout(states: Sequence[States], batched: bool) -> list[Any]:
    """Return the states of layers as these do: h, or (h, c), without B for one sequence."""
    found = states if batched else [tuple(s[:, 0] for s in state) for state in states]
    return [state if len(state) > 1 else state[0] for state in found]


def stage(dense: Chain, layer: Recurrent, run: backends.Run, state: States, final: States) -> Stage:
    """Return what runs a layer once, from `state` to `final`, which it writes."""
    place = Place(layer.backend or backends.current(), layer.num_threads or threads.count or threads.get_num_threads())

    def call(x: Array, lengths: Array | None, y: Array, blank: bool) -> None:
        run(x, state, lengths, y, final, place.num_threads, blank)

    return Stage(dense, place, layer._output_size, layer.dtype, call)


def divided(layers: Sequence[Recurrent | DenseLayer]) -> tuple[tuple[tuple[Chain, Recurrent], ...], Chain]:
    """Give each recurrent layer the dense layers before it; those after the last one are the rest."""
    recurrent: list[tuple[Chain, Recurrent]] = []
    dense: list[DenseLayer] = []
    for layer in layers:
        if isinstance(layer, Recurrent):
            recurrent.append((tuple(dense), layer))
            dense = []
        else:
            dense.append(layer)
    return tuple(recurrent), tuple(dense)


def over_rows(dense: Chain, rows: Array, place: Place, out: Array | None = None) -> Array:
    """Run dense layers over rows (N, K)."""
    for i, layer in enumerate(dense, 1):
        rows = layer(rows, out if i == len(dense) else None, *place)
    return rows


def over_steps(dense: Chain, y: Array, lengths: Array | None, place: Place, out: Array | None = None) -> Array:
    """Run dense layers over y (B, T, K); what lies beyond a length is zero."""
    if not dense:
        return y
    if out is None:
        out = np.empty((*y.shape[:2], dense[-1].plan.output_size), y.dtype)
    if lengths is None:
        over_rows(dense, y.reshape(-1, y.shape[2]), place, out.reshape(-1, out.shape[2]))
    else:
        valid = _valid(y, lengths)
        out[~valid] = 0
        out[valid] = over_rows(dense, y[valid], place)
    return out


def through(stages: Sequence[Stage], x: Array, lengths: Array | None, out: Array | None = None) -> Array:
    """Run all stages over x (B, T, I), or ids (B, T): what the last recurrent layer gives, in `out` or a new array."""
    for i, stage in enumerate(stages, 1):
        x = over_steps(stage.dense, x, lengths, stage.place)
        y = out if i == len(stages) else None
        blank = y is None and lengths is not None
        if y is None:
            y = (np.zeros if blank else np.empty)((*x.shape[:2], stage.output_size), stage.dtype)
        stage.run(x.swapaxes(0, 1), lengths, y.swapaxes(0, 1), blank)
        x = y
    return x


def pooled(pool: str, dense: Chain, y: Array, lengths: Array | None, place: Place) -> Array:
    """Run dense layers over y (B, T, O) and pool over time, by "last", "mean" or "max": (B, K), zeros for no step."""
    batch, steps, _ = y.shape
    if lengths is None:
        lengths = np.full(batch, steps)
    if steps and pool == "last":
        rows = over_rows(dense, y[np.arange(batch), lengths - 1], place)
    else:
        y = over_steps(dense, y, lengths, place)
        with np.errstate(all="ignore"):  # kernels do not warn either
            rows = _mean(y, lengths, place) if pool == "mean" else _max(y, lengths)
    rows[lengths == 0] = 0
    return rows


def _mean(y: Array, lengths: Array, place: Place) -> Array:
    """Add the steps in order of time; beyond a length they are +0, which changes nothing."""
    total = np.zeros((len(y), y.shape[2]), y.dtype)
    backends.load(place.backend).sum_steps(y, total)
    result: Array = total / np.maximum(lengths, 1).astype(y.dtype)[:, None]
    return result


def _max(y: Array, lengths: Array) -> Array:
    """Take the largest; of -0 and +0, which are equal, NumPy gives either, so a sum with +0 makes them one."""
    y[~_valid(y, lengths)] = -np.inf
    result: Array = y.max(axis=1, initial=-np.inf) + 0
    return result


def _valid(y: Array, lengths: Array) -> Array:
    """Tell which steps of y (B, T, ..) are not beyond a length."""
    valid: Array = np.arange(y.shape[1]) < lengths[:, None]
    return valid
