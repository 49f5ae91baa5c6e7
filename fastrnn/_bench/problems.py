"""A row of the benchmark, one shape, and the weights and inputs that every engine gets for it."""

import importlib
from typing import Any, NamedTuple, TypeAlias

import numpy as np

__all__ = ["GATES", "STOP", "Array", "Problem", "Row", "fastrnn_layer", "problem"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
VOCABULARY = {"lstm": 96, "gru": 74, "rnn": 96}  # V of family G: characters, and phonemes
LETTERS = 29  # V of its encoders
STOP = 1  # the phoneme that ends a word
WORDS, CLASSES = 1000, 12  # V of families N and O, and what their models tell apart
SPREAD = 0.6  # of the logarithms of lengths
SLOW_DECAY = 4.0  # bias of the gate that keeps a state in family D: it shrinks by 1.8 % a step, to nothing in 6000


class Row(NamedTuple):
    """One shape to time.

    Families: S one step from a given state, Q sequences, B batches of sequences, R ragged batches, D a state that
    decays under zeros, G generation of T tokens, N many sequences in one call, O short ones and what of the call is
    outside of kernels, C a cold start, M memory, P streams of two Python threads.
    """

    family: str
    cell: str
    input_size: int
    hidden_size: int
    batch: int = 1
    steps: int = 1
    layers: int = 1
    directions: int = 1
    dtype: str = "float32"
    threads: int = 1
    core: bool = False  # in the default selection and in the README
    alternating: bool = False  # every other layer runs backwards
    encoder: bool = False  # in family G: another such network reads T letters before T phonemes are written

    @property
    def name(self) -> str:
        """For example S-lstm-I64-H64-L1-uni-B1-T1-f32-1t."""
        direction = "alt" if self.alternating else "s2s" if self.encoder else ("uni", "bi")[self.directions - 1]
        sizes = f"I{self.input_size}-H{self.hidden_size}-L{self.layers}-{direction}-B{self.batch}-T{self.steps}"
        return f"{self.family}-{self.cell}-{sizes}-{self.dtype.replace('float', 'f')}-{self.threads}t"

    @property
    def layer_weights(self) -> list[tuple[int, int]]:
        """Weights over the input and over h of one direction of each layer, without biases."""
        units = GATES[self.cell] * self.hidden_size
        inputs = [self.input_size] + [self.directions * self.hidden_size] * (self.layers - 1)
        return [(units * size, units * self.hidden_size) for size in inputs]

    @property
    def weights(self) -> int:
        """Weights of all layers and directions, without biases."""
        deep = (self.layers - 1) * (self.directions + 1) * self.hidden_size
        return self.directions * GATES[self.cell] * self.hidden_size * (self.input_size + self.hidden_size + deep)

    @property
    def token_weights(self) -> int:
        """Weights that a token of family G reads: W_ih of its first layer is in the table that its ids number."""
        return self.weights - self.layer_weights[0][0] + VOCABULARY[self.cell] * self.hidden_size

    @property
    def lengths(self) -> Array | None:
        """Valid steps of each row (B,), log-normal: in family R the longest of T steps, in N and O T on average."""
        if self.family not in "RNO":
            return None
        draws = np.random.default_rng(1).lognormal(0, SPREAD, self.batch)
        unit = draws.max() if self.family == "R" else np.exp(SPREAD**2 / 2)
        lengths: Array = np.ceil(self.steps / unit * draws).astype(np.int64)
        return lengths

    @property
    def valid(self) -> int:
        """Steps of all rows of the batch together."""
        lengths = self.lengths
        return self.batch * self.steps if lengths is None else int(lengths.sum())

    @property
    def flops(self) -> int:
        """Useful operations of one call: a multiplication and an addition per weight and valid step."""
        return 2 * self.weights * self.valid * (1 + self.encoder)


class Problem(NamedTuple):
    """Weights and input of a row, the same for every engine."""

    row: Row
    weights: dict[str, Array]  # torch's names
    x: Array  # (T, B, I); in families N and O the ids of all sequences, one after the other
    state: tuple[Array, ...] | None = None  # h, or h and c (L*D, B, H), in families S and D; others start from zeros
    lengths: Array | None = None  # (B,) in families R, N and O
    embedding: Array | None = None  # (V, I) in families G, N and O
    head: Array | None = None  # (V, H) in family G; (classes, D*H) in N and O
    letters: Array | None = None  # (T,) of an encoder: rows of its embedding
    encoder: "Problem | None" = None  # of a row with one


def problem(row: Row) -> Problem:
    """Draw weights and input for a row."""
    if row.family in "NO":
        return many(row)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((row.steps, row.batch, row.input_size)).astype(row.dtype)
    shape = (row.layers * row.directions, row.batch, row.hidden_size)
    state = tuple(rng.uniform(-1, 1, shape).astype(row.dtype) for _ in range(1 + (row.cell == "lstm")))
    weights = fastrnn_layer(row).init(0).state_dict()
    if row.family == "D":
        x, weights = np.zeros_like(x), decaying(weights, row)
    if row.family == "G":
        size = VOCABULARY[row.cell]
        embedding = rng.standard_normal((size, row.input_size)).astype(row.dtype)
        head = 4 * rng.standard_normal((size, row.hidden_size)) / row.hidden_size**0.5  # so that many ids are likely
        encoder = None
        if row.encoder:
            head[STOP] = 0  # never the largest, so that all T are written
            encoder = reader(row)
        return Problem(row, weights, x, embedding=embedding, head=head.astype(row.dtype), encoder=encoder)
    return Problem(row, weights, x, state if row.family in "SD" else None, row.lengths)


def many(row: Row) -> Problem:
    """Sequences of ids, and a model that tells classes apart."""
    rng, width, lengths = np.random.default_rng(0), row.directions * row.hidden_size, row.lengths
    assert lengths is not None
    ids = rng.integers(0, WORDS, lengths.sum(), np.int32)
    embedding = rng.standard_normal((WORDS, row.input_size)).astype(row.dtype)
    head = (rng.standard_normal((CLASSES, width)) / width**0.5).astype(row.dtype)
    weights = fastrnn_layer(row).init(0).state_dict()
    return Problem(row, weights, ids, lengths=lengths, embedding=embedding, head=head)


def reader(row: Row) -> Problem:
    """What reads a word, for a decoder's row."""
    rng, row = np.random.default_rng(1), row._replace(family="Q", encoder=False)
    embedding = rng.standard_normal((LETTERS, row.input_size)).astype(row.dtype)
    letters = rng.integers(0, LETTERS, row.steps)
    weights = fastrnn_layer(row).init(1).state_dict()
    return Problem(row, weights, embedding[letters][:, None], embedding=embedding, letters=letters)


def decaying(weights: dict[str, Array], row: Row) -> dict[str, Array]:
    """Weights of one layer under which a state shrinks slowly enough to linger among denormal numbers."""
    biases = [name for name in weights if name.startswith("bias")]
    weights = weights | {name: np.zeros_like(weights[name]) for name in biases}
    if row.cell == "rnn":
        return weights | {"weight_hh_l0": np.eye(row.hidden_size, dtype=row.dtype) * np.asarray(0.98, row.dtype)}
    weights["bias_ih_l0"][row.hidden_size : 2 * row.hidden_size] = SLOW_DECAY  # f of the LSTM, z of the GRU
    return weights | {"weight_hh_l0": weights["weight_hh_l0"] / 100}  # else what i lets in outweighs what f takes away


def fastrnn_layer(row: Row, backend: str | None = None) -> Any:
    """Our layer of a row's shape, without weights."""
    kind = getattr(importlib.import_module("fastrnn"), row.cell.upper())
    return kind(
        row.input_size,
        row.hidden_size,
        row.layers,
        bidirectional=row.directions == 2,
        dtype=row.dtype,
        backend=backend,
        num_threads=row.threads,
    )
