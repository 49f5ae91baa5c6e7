"""Logical weights to packed blocks, and back; a plan, which is what backends take.

A group is 64 bytes of units (16 float32, 8 float64). U groups share a block, the last block of a phase has the groups
that are left, and within a block the order is the order of use: for each column k, for each group, for each gate, 64
bytes. So units are padded to whole groups, and nothing else is. With K columns, G gates, ``q = u // lanes`` and U_b
groups in block ``q // U``, element (unit u, gate g, column k) of ``w_x`` and ``w_h`` lies at

    (q // U) * U*K*G*lanes  +  ((k*U_b + q % U)*G + g)*lanes  +  u % lanes
"""

import contextlib
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fastrnn.cells import GROUP_BYTES, VARIANTS, Phase, lanes, variant
from fastrnn.weights import Weights, fold_biases

__all__ = ["PackedPhase", "Plan", "aligned_zeros", "pack", "pack_dense", "table_bytes", "tables", "unpack"]

# The most that tables of an embedding may take. Even from memory a row of sums comes faster than it is computed from
# I = 48 on, so it is not speed that ends it: this holds 16 000 words for an LSTM of 256, all bytes for one of 16 000.
MOST_TABLE_BYTES = 64 * 1024 * 1024
HUGE_PAGE = 2 * 1024 * 1024
LARGE_BYTES = 128 * 1024  # arrays from here on lie on huge pages


class PackedPhase(NamedTuple):
    """One phase's weights in the order in which kernels read them: 1-D, 64-byte aligned, read-only."""

    w_x: np.ndarray  # [blocks][I][U][G][lanes]: rows of W_ih; empty for "project"
    w_h: np.ndarray  # [blocks][K][U][G][lanes]: rows of W_hh with K = R; for "project" W_hr with K = H and G = 1
    b: np.ndarray  # [groups][G][lanes]: b_ih + b_hh, but b_ih alone for the gate kept apart; +0 where there is none
    b_h: np.ndarray  # [vectors][groups][lanes]: b_hh of the gate kept apart, if any, then the parameters of own cells


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything a backend needs to run a layer. Pickles and copies hold the logical weights and pack again."""

    variant: str
    activation: str
    input_size: int
    hidden_size: int
    proj_size: int
    num_layers: int
    num_directions: int
    dtype: np.dtype
    weights: tuple[Weights, ...]  # index layer * num_directions + direction
    # What ids stand for: rows (vocab, I) of dtype, C-contiguous; "one_hot": those of the identity (vocab = I)
    embedding: np.ndarray | Literal["one_hot"] | None = None

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Last axis of each state: R for h, H for c."""
        return variant(self.variant).state_sizes(self.hidden_size, self.proj_size)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The passes of one step, in order."""
        return variant(self.variant).phases

    @property
    def output_size(self) -> int:
        """Last axis of y: D*R."""
        return self.num_directions * self.state_sizes[0]

    @property
    def packed(self) -> tuple[tuple[PackedPhase, ...], ...]:
        """The weights in kernel order, packed at first use.

        Not a `cached_property`: without a lock of its own, as from Python 3.12 on, that keeps what the last of several
        threads has packed, and engines hold addresses into what they were given.
        """
        if "packed" not in self.__dict__:
            self.__dict__.setdefault("packed", tuple(pack(self.variant, w, self.dtype) for w in self.weights))
        found: tuple[tuple[PackedPhase, ...], ...] = self.__dict__["packed"]
        return found

    @property
    def vocab_size(self) -> int:
        """Number of ids; 0 without an embedding."""
        if self.embedding is None:
            return 0
        return self.input_size if isinstance(self.embedding, str) else len(self.embedding)

    @property
    def table_bytes(self) -> int:
        """What a backend of kernels spends on `tables` from the first call with ids on; 0 where it makes none."""
        return table_bytes(self)

    def tables(self, project: Callable[[int, int, np.ndarray], None]) -> tuple[tuple[np.ndarray, ...], ...]:
        """Make the rows ``b + W_ih e`` that ids number, see `tables`."""
        return tables(self, project)

    def astype(self, dtype: npt.DTypeLike) -> "Plan":
        """Return the same plan with its weights cast; in float64 that is the oracle of a float32 plan."""
        embedding = self.embedding
        if embedding is not None and not isinstance(embedding, str):
            embedding = embedding.astype(dtype, order="C")
        weights = tuple(w.astype(dtype) for w in self.weights)
        return replace(self, dtype=np.dtype(dtype), weights=weights, embedding=embedding)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "packed"}


def aligned_zeros(size: int, dtype: npt.DTypeLike) -> np.ndarray:
    """Return ``numpy.zeros(size, dtype)`` that starts on a multiple of 64 bytes, which NumPy does not promise."""
    dtype = np.dtype(dtype)
    used = -(-size * dtype.itemsize // GROUP_BYTES) * GROUP_BYTES + GROUP_BYTES  # empty arrays are aligned too
    raw = _huge_pages(used) if used >= LARGE_BYTES else np.zeros(used + GROUP_BYTES, np.uint8)
    start = -raw.ctypes.data % GROUP_BYTES
    return raw[start : start + used].view(dtype)[:size]


_left: list[np.ndarray] = []  # what the newest mapping has left, if anything; pop and append need no lock


def _huge_pages(size: int) -> np.ndarray:
    """Return zeros on huge pages, where the system gives them, which small arrays share.

    One row's step walks all weights, and each of their small pages costs it a look into the page tables.
    """
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.zeros(size + GROUP_BYTES, np.uint8)
    page = _left.pop() if _left else np.empty(0, np.uint8)
    if len(page) < size:
        length = -(-size // HUGE_PAGE) * HUGE_PAGE
        memory = mmap.mmap(-1, length + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
        page = np.frombuffer(memory, np.uint8)
        page = page[-page.ctypes.data % HUGE_PAGE :][:length]
    _left[:] = [page[size:]]
    return page[:size]


def pack(variant_name: str, weights: Weights, dtype: npt.DTypeLike) -> tuple[PackedPhase, ...]:
    """Pack one layer and direction: one `PackedPhase` per phase of the variant.

    Weights are cast to `dtype` first, so biases are added in it.
    """
    kind = variant(variant_name)
    dtype = np.dtype(dtype)
    if weights.w_ih.dtype != dtype:
        weights = weights.astype(dtype)
    bias, bias_h = fold_biases(variant_name, weights)
    gates = len(kind.gates)
    hidden = len(weights.w_ih) // gates
    packed = []
    for phase in kind.phases:
        if phase.operand == "m":
            assert weights.w_hr is not None
            w_x, w_h = np.empty((1, len(weights.w_hr), 0), dtype), weights.w_hr[None]
            b, vectors = np.zeros((1, len(weights.w_hr)), dtype), []
        else:
            rows = list(phase.gates)
            w_x = weights.w_ih.reshape(gates, hidden, -1)[rows]
            w_h = weights.w_hh.reshape(gates, hidden, weights.w_hh.shape[1])[rows]
            b, vectors = bias.reshape(gates, hidden)[rows], [*([] if bias_h is None else [bias_h]), *weights.parameters]
        packed.append(
            PackedPhase(
                w_x=_blocks(w_x, phase.groups),
                w_h=_blocks(w_h, phase.groups),
                b=_blocks(b[:, :, None], 1),
                b_h=_vectors(vectors, hidden, dtype),
            )
        )
    return tuple(packed)


def _vectors(vectors: Sequence[np.ndarray], hidden: int, dtype: np.dtype) -> np.ndarray:
    """(H,) each -> [vectors][groups][lanes], flat."""
    n = lanes(dtype)
    packed = aligned_zeros(len(vectors) * (-(-hidden // n) * n), dtype)
    for row, vector in zip(packed.reshape(len(vectors), -1), vectors, strict=True) if vectors else ():
        row[:hidden] = vector
    return _frozen(packed)


def pack_dense(weight: np.ndarray, bias: np.ndarray | None) -> PackedPhase:
    """Pack a dense layer (V, K) as the plain RNN's part over x; without a bias its sums start at +0."""
    none = _frozen(aligned_zeros(0, weight.dtype))
    b = np.zeros(len(weight), weight.dtype) if bias is None else bias
    w_x = _blocks(weight[None], VARIANTS["rnn"].phases[0].groups)
    return PackedPhase(w_x, none, _blocks(b[None, :, None], 1), none)


def table_bytes(plan: Plan) -> int:
    """Return the bytes of a plan's `tables`, 0 where it has no embedding or a matrix with too many rows.

    Those for one-hot rows are as large as W_ih, at any size.
    """
    gates, groups = len(variant(plan.variant).gates), -(-plan.hidden_size // lanes(plan.dtype))
    size = plan.num_directions * plan.vocab_size * groups * gates * GROUP_BYTES
    return size if isinstance(plan.embedding, str) or size <= MOST_TABLE_BYTES else 0


def tables(plan: Plan, project: Callable[[int, int, np.ndarray], None]) -> tuple[tuple[np.ndarray, ...], ...]:
    """Make what the sums of the first layer start from, ``b + W_ih e``, for the vector e of every id.

    Parameters
    ----------
    plan : Plan
        With an embedding.
    project
        ``project(direction, i, table)`` writes the sums for every row of the matrix: only kernels have their bits.

    Returns
    -------
    tuple of tuple of array
        By direction and phase: flat [vocab][groups][G][lanes], empty for a phase without inputs.
    """
    made = []
    for direction, parts in enumerate(plan.packed[: plan.num_directions]):
        if isinstance(plan.embedding, str):
            made.append(tuple(_one_hot_table(*both) for both in zip(parts, plan.phases, strict=True)))
            continue
        made.append(
            tuple(aligned_zeros(plan.vocab_size * part.b.size if part.w_x.size else 0, plan.dtype) for part in parts)
        )
        for i, table in enumerate(made[-1]):
            if table.size:
                project(direction, i, table)
    return tuple(made)


def _one_hot_table(part: PackedPhase, phase: Phase) -> np.ndarray:
    """Give the bits of the sums over one-hot rows: all terms but one are +0, and so is the sum that this one joins."""
    n, gates = lanes(part.b.dtype), len(phase.gates)
    table = aligned_zeros(part.w_x.size, part.b.dtype)
    if not table.size:
        return table
    columns = table.reshape(-1, part.b.size)
    vocab = len(columns)
    for first, blocks, u in _runs(part.b.size // (gates * n), phase.groups):
        run = slice(first * gates * n, (first + blocks * u) * gates * n)
        source = part.w_x[run.start * vocab : run.stop * vocab].reshape(blocks, vocab, u * gates * n)
        columns[:, run] = source.transpose(1, 0, 2).reshape(vocab, -1)
    with np.errstate(all="ignore"):
        infinite = ~np.isfinite(columns)
        if infinite.any():
            columns[infinite.sum(0) > infinite] = np.nan  # zero times another column's
        columns += 0  # -0 becomes +0
        columns += part.b
    return table


def unpack(
    variant_name: str, packed: Sequence[PackedPhase], input_size: int, hidden_size: int, proj_size: int = 0
) -> Weights:
    """Invert `pack`, but for the biases: ``b_ih`` comes back folded, ``b_hh`` holds the gate kept apart, or is None."""
    kind = variant(variant_name)
    dtype = packed[0].w_h.dtype
    g, h, r = len(kind.gates), hidden_size, (proj_size or hidden_size) * kind.recurrent
    w_ih, w_hh = np.zeros((g, h, input_size), dtype), np.zeros((g, h, r), dtype)
    b_ih, b_hh, w_hr, parameters = np.zeros((g, h), dtype), None, None, []
    for phase, p in zip(kind.phases, packed, strict=True):
        if phase.operand == "m":
            w_hr = _unblocks(p.w_h, phase, proj_size, h)[0]
            continue
        rows = list(phase.gates)
        w_ih[rows] = _unblocks(p.w_x, phase, h, input_size)
        w_hh[rows] = _unblocks(p.w_h, phase, h, r)
        b_ih[rows] = _unblocks(p.b, phase._replace(groups=1), h, 1)[:, :, 0]
        parameters = [row[:h] for row in p.b_h.reshape(-1, -(-h // lanes(dtype)) * lanes(dtype))]
        if kind.apart is not None:
            b_hh = np.zeros((g, h), dtype)
            b_hh[kind.gates.index(kind.apart)] = parameters.pop(0)
    return Weights(
        w_ih.reshape(g * h, input_size),
        w_hh.reshape(g * h, r),
        b_ih.reshape(-1),
        None if b_hh is None else b_hh.reshape(-1),
        w_hr,
        tuple(parameters),
    )


def _runs(groups: int, per_block: int) -> list[tuple[int, int, int]]:
    """(first group, blocks, groups per block): the full blocks, then the last block where it is shorter."""
    full, rest = divmod(groups, per_block)
    return [run for run in ((0, full, per_block), (full * per_block, 1, rest)) if run[1] and run[2]]


def _blocks(w: np.ndarray, per_block: int) -> np.ndarray:
    """(G, units, K) -> [blocks][K][U][G][lanes], flat."""
    g, units, k = w.shape
    n = lanes(w.dtype)
    groups = -(-units // n)
    padded = np.zeros((g, groups * n, k), w.dtype)
    padded[:, :units] = w
    packed = aligned_zeros(padded.size, w.dtype)
    for first, blocks, u in _runs(groups, per_block):
        run = slice(first * n, (first + blocks * u) * n)
        target = packed[run.start * k * g : run.stop * k * g].reshape(blocks, k, u, g, n)
        target[:] = padded[:, run].reshape(g, blocks, u, n, k).transpose(1, 4, 2, 0, 3)
    return _frozen(packed)


def _unblocks(packed: np.ndarray, phase: Phase, units: int, k: int) -> np.ndarray:
    """Invert `_blocks`."""
    g, n = max(1, len(phase.gates)), lanes(packed.dtype)
    groups = -(-units // n)
    w = np.empty((g, groups * n, k), packed.dtype)
    for first, blocks, u in _runs(groups, phase.groups):
        run = slice(first * n, (first + blocks * u) * n)
        source = packed[run.start * k * g : run.stop * k * g].reshape(blocks, k, u, g, n)
        w[:, run] = source.transpose(3, 0, 2, 4, 1).reshape(g, blocks * u * n, k)
    return w[:, :units]


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
