"""What runs single time steps: the numbers of a chain, from the runners of its parts, and workspace.

`Stepper` is for streams, `Generator` for text; both are src_kernels/_chain.pxi's and _generate.pxi's.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba.core import types

from fastrnn.numba_kernels.arrays import GivenType
from fastrnn.numba_kernels.calls import address_of, compiled
from fastrnn.numba_kernels.chain import BY_IDS, CHAIN, STEP, advance_dense, run_step, run_steps
from fastrnn.numba_kernels.dense import DENSE_GROUPS
from fastrnn.numba_kernels.draw import PLACES
from fastrnn.numba_kernels.forward import phases_of
from fastrnn.numba_kernels.kind import PhasesType
from fastrnn.numba_kernels.layers import TILE_GROUPS
from fastrnn.numba_kernels.simd import GROUP_BYTES
from fastrnn.numba_kernels.threads import launch
from fastrnn.numba_kernels.workspace import empty
from fastrnn.numba_kernels.writing import SETTINGS, run_writing, run_writing_all

__all__ = ["FIXED_BYTES", "PARALLEL_WORK", "Chain", "Generator", "Part", "Stepper"]

PARALLEL_WORK = 1 << 24  # multiplications, half a millisecond, from which on a launch of Numba's threads pays


class Part(NamedTuple):
    """What a chain takes of a runner: the attribute ``run.part``."""

    plan: Any
    advance: Any  # the entry point of a step
    numbers: np.ndarray  # that it reads
    by_ids: Callable[[], tuple[np.ndarray, Any]]  # the same where x is ids, and what they point into
    work: int  # multiplications of a step of one row

    @property
    def function(self) -> int:
        """Address of the compiled step."""
        count = 1 if self.is_dense else len(phases_of(self.plan.variant))
        return _function(self.advance, count, self.plan.dtype.name)

    @property
    def is_dense(self) -> bool:
        """Whether it is a dense layer, and no network."""
        return self.advance is advance_dense

    @property
    def row_bytes(self) -> int:
        """Workspace of each row of a step."""
        if self.is_dense:
            return 8
        return 4 * (-(-self.plan.hidden_size * self.plan.dtype.itemsize // GROUP_BYTES) * GROUP_BYTES + 8)


_NONE = np.empty(0, np.int64)

FIXED_BYTES = GROUP_BYTES * max(2 * TILE_GROUPS, DENSE_GROUPS)  # of a step, in any part


@cache
def _function(advance: Any, phases: int, dtype: str) -> int:
    return address_of(advance, PhasesType(phases), types.CPointer(getattr(types, dtype)), types.int64, types.int64)


@cache
def _compiled_step(dtype: str, parallel: bool) -> Callable[..., None]:
    number, address = getattr(types, dtype), types.int64
    vectors, numbers = GivenType(number), GivenType(address)
    given = *[address] * 3, vectors, numbers, numbers, vectors, address, address
    if parallel:
        return compiled(run_steps, types.Array(number, 1, "C"), *given, address, address)
    return compiled(run_step, *given)


@cache
def _compiled_writing(dtype: str, parallel: bool) -> Callable[..., None]:
    like = types.Array(getattr(types, dtype), 1, "C")
    settings = types.Array(types.int64, 2, "C") if parallel else types.int64
    entry = run_writing_all if parallel else run_writing
    return compiled(entry, like, types.int64, settings, types.float64, types.float64)


class Chain:
    """The numbers of a chain.

    Parameters
    ----------
    parts : sequence of Part
        Each fed by the one before.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        outputs = [part.plan.output_size for part in parts]
        self.parts, self.dtype, self.output_size = parts, parts[0].plan.dtype, outputs[-1]
        self.widest = max(outputs[:-1], default=0)
        self.work = sum(part.work for part in parts)
        self.like = np.empty(0, self.dtype)
        entries = [len(parts), self.widest]
        for part, size in zip(parts, outputs, strict=True):
            numbers = part.numbers.ctypes.data
            entries += [part.function, numbers, numbers if part.is_dense else 0, size]
        self.numbers = np.array(entries, np.int64)
        self.address = self.numbers.ctypes.data
        self.by_ids = [0] * len(parts)

    def read_ids(self, run: Any) -> None:
        """Let the first part, a network, take ids as this runner does, whose plan has the embedding."""
        self._kept = run.part.by_ids()
        self.numbers[CHAIN + BY_IDS] = self.by_ids[0] = self._kept[0].ctypes.data

    def step_bytes(self, rows: int) -> int:
        """Workspace of a step of so many rows, a multiple of 64."""
        between = 2 * _padded(rows * self.widest * self.dtype.itemsize)
        return 2 * GROUP_BYTES + between + FIXED_BYTES + _padded(rows * max(part.row_bytes for part in self.parts))


def _addresses(states: Sequence[tuple[np.ndarray, ...] | None]) -> np.ndarray:
    """h and c of each recurrent part; 0 where it has no c."""
    pairs = [(*(s.ctypes.data for s in state), 0)[:2] for state in states if state is not None]
    return np.array(pairs, np.int64)


class Stepper:
    """One time step at a time for up to `rows` rows, whose states change in place.

    Parameters
    ----------
    parts : list of (runner, states)
        Runners of layers with h (L, N, R), for LSTM and c (L, N, H); of dense layers with None.
    embedding : (vocab, I) array, or None
        What ids number, of the dtype of all parts and any stride of rows.
    by_ids : runner, or None
        Of the first part's plan with the embedding; None where no network comes first.
    rows : int
        N.
    threads : int
    """

    def __init__(
        self, parts: Sequence[tuple[Any, Any]], embedding: np.ndarray | None, by_ids: Any, rows: int, threads: int = 1
    ) -> None:
        self._chain = chain = Chain([run.part for run, _ in parts])
        self._states = [states for _, states in parts]
        self._addresses = _addresses(self._states)
        self._given = chain.address, self._addresses.ctypes.data, rows
        self._embedding, self._by_ids, self._rows = embedding, by_ids, np.arange(rows)
        self._threads, self._turn = threads, 0
        self._work, self._most = empty(0), -1  # for steps of so many rows
        self._run = _compiled_step(chain.dtype.name, False)

    def __call__(self, x: np.ndarray, rows: np.ndarray | None, out: np.ndarray) -> None:
        """Take one step: x (n, I) with its last axis contiguous, or ids (n,); for streams `rows`, out (n, V)."""
        chain, count, ids = self._chain, len(out), _NONE
        if x.ndim == 1:
            assert self._embedding is not None
            if self._by_ids is not None:
                chain.read_ids(self._by_ids)
                self._by_ids = None
            ids, x = np.ascontiguousarray(x, np.int64), self._embedding
        self._turn ^= 1
        if self._threads > 1 and count * chain.work >= PARALLEL_WORK:
            parts = min(self._threads, count)
            share, each = chain.step_bytes(-(-count // parts)), self._rows if rows is None else rows
            self._make_room(share * parts)
            rest = each, out, self._turn, self._work[1], share, parts
            if launch(_compiled_step(chain.dtype.name, True), chain.like, *self._given, x, ids, *rest):
                return
        if count > self._most:
            self._make_room(chain.step_bytes(count))
            self._most = count
        self._run(*self._given, x, ids, _NONE if rows is None else rows, out, self._turn, self._work[1])

    def _make_room(self, size: int) -> None:
        if self._work[2] < size:
            self._work = empty(size)


class Generator:
    """Rows that are being written: ``generator(tokens)`` goes on with all that have not come to their end.

    Parameters
    ----------
    parts, embedding, threads
        As for `Stepper`; the first part's plan has the embedding, if it is a network.
    how : temperature, top_k (0: all), top_p
    seeds : (R,) array of uint64
    stops : (n,) array of int64
    last, made : (R,) array of int64
        What each row is fed next, -1 after a stop, and the tokens that it has; they change.
    most : int
        Tokens of a row.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Any, Any]],
        embedding: np.ndarray,
        how: tuple[float, int, float],
        seeds: np.ndarray,
        stops: np.ndarray,
        last: np.ndarray,
        made: np.ndarray,
        most: int,
        threads: int = 1,
    ) -> None:
        self._chain = chain = Chain([run.part for run, _ in parts])
        if parts[0][1] is not None:
            chain.read_ids(parts[0][0])
        states = _addresses([states for _, states in parts])
        self._how, rows, vocab, itemsize = how, len(last), chain.output_size, chain.dtype.itemsize
        threads = min(threads, rows) if rows * chain.work >= PARALLEL_WORK else 1
        share = -(-rows // threads)
        sizes = {
            "now": 8 * STEP,
            "rows": 8 * share,
            "ids": 8 * share,
            "order": 2 * 8 * vocab,
            "places": 8 * PLACES,
            "group": GROUP_BYTES,
            "p": vocab * itemsize,
            "logits": share * vocab * itemsize,
            "work": chain.step_bytes(share),
        }
        size = sum(map(_padded, sizes.values()))
        self._work = empty(size * threads)
        self._settings = np.zeros((threads, len(SETTINGS)), np.int64)
        self._kept = parts, embedding, states, seeds, stops, last, made
        same = {
            "streams": rows,
            "states": states.ctypes.data,
            "embedding": embedding.ctypes.data,
            "stride": embedding.strides[0] // itemsize,
            "vocab": vocab,
            "top_k": how[1],
            "seeds": seeds.ctypes.data,
            "stops": stops.ctypes.data,
            "stop_count": len(stops),
            "last": last.ctypes.data,
            "made": made.ctypes.data,
            "most": most,
        }
        for i, row in enumerate(self._settings):
            starts = self._work[1] + i * size + np.cumsum([0, *map(_padded, sizes.values())])
            own = {"first": i * rows // threads, "end": (i + 1) * rows // threads}
            for name, value in (same | own | dict(zip(sizes, starts, strict=False))).items():
                row[SETTINGS.index(name)] = value

    def __call__(self, tokens: np.ndarray) -> int:
        """Write up to `steps` tokens to each row of tokens (R, steps), -1 where there is none.

        Returns the row whose logits are not finite, or -1.
        """
        tokens.fill(-1)
        settings, chain = self._settings, self._chain
        settings[:, SETTINGS.index("tokens")] = tokens.ctypes.data
        settings[:, SETTINGS.index("steps")] = tokens.shape[1]
        settings[:, SETTINGS.index("failed")] = -1
        temperature, _, top_p = self._how
        name, arguments = chain.dtype.name, (float(temperature), float(top_p))
        all_rows = _compiled_writing(name, True) if len(settings) > 1 else None
        if all_rows is None or not launch(all_rows, chain.like, chain.address, settings, *arguments):
            for own in settings:
                _compiled_writing(name, False)(chain.like, chain.address, own.ctypes.data, *arguments)
        failed = settings[:, SETTINGS.index("failed")]
        return int(failed[failed >= 0].min() % len(tokens)) if (failed >= 0).any() else -1


def _padded(size: int) -> int:
    return -(-size // GROUP_BYTES) * GROUP_BYTES
