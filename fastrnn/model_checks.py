"""What `checks` does, for models."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from fastrnn.checks import UnsupportedError, axes_text, kind_of, weight

__all__: list[str] = []

# Construction ---------------------------------------------------------------------------------------------------------


def not_a_layer(value: Any, name: str) -> TypeError:
    """Return the error of what stands in the place of a layer."""
    cure = ""
    if type(value).__name__.endswith("Cell"):
        cure = ": a cell takes one step, build the layer"
    elif type(value).__module__.partition(".")[0] == "torch":
        cure = f": pass fastrnn.from_torch({name})"
    return TypeError(f"{name} must be an RNN, LSTM or GRU, or a fastrnn.Dense, got {kind_of(value)}{cure}")


def one_dtype(layers: Sequence[tuple[str, np.dtype[Any]]]) -> np.dtype[Any]:
    """Return the dtype of the recurrent layers, which are given by their names."""
    if not layers:
        raise ValueError("layers must have at least one RNN, LSTM or GRU, which sets the dtype and holds the state")
    (first, dtype), *others = layers
    for name, other in others:
        if other != dtype:
            raise ValueError(
                f"layers must be of one dtype, got {first} of {dtype} and {name} of {other}: build both with one dtype="
            )
    return dtype


def chain(name: str, gives: int, after: str, takes: int, transposed: int | None, vocab: int | None) -> None:
    """Demand that a part gives what the next one takes; a dense layer would take `transposed` if its weight were."""
    if gives != takes:
        cure = "put a fastrnn.Dense between them, or build one to fit"
        if gives == transposed:
            cure = "pass its weight.T"
        elif name == "embedding" and takes == vocab:
            cure = "pass embedding.T"
        raise ValueError(f"{name} gives {gives} numbers, {after} takes {takes}: {cure}")


def embedding(value: Any) -> np.ndarray | Literal["one_hot"] | None:
    """Return None, "one_hot" or a matrix (vocab, I), which may be the weight of a torch.nn.Embedding."""
    if value is None:
        return None
    if isinstance(value, str) and value == "one_hot":
        return "one_hot"
    if isinstance(value, str):
        raise ValueError(f"embedding must be None, 'one_hot' or a matrix (vocab, I), got {value!r}")
    if hasattr(value, "num_embeddings") and not hasattr(value, "mode"):  # which an EmbeddingBag has, that adds rows
        if value.max_norm is not None or type(value).forward.__module__ != "torch.nn.modules.sparse":
            raise UnsupportedError(
                f"embedding must give the rows of its weight, got {kind_of(value)} with max_norm or a forward of its"
                " own: pass what it gives, embedding(torch.arange(embedding.num_embeddings))"
            )
        value = value.weight
    found = weight(value, "embedding")
    if found.ndim != 2 or 0 in found.shape:
        raise ValueError(f"embedding must be a matrix (vocab, I), one row for each id, got shape {found.shape}")
    return found


def vocabulary_size(tokens: int, rows: int) -> None:
    """Demand one row of the embedding for each token."""
    if tokens != rows:
        raise ValueError(f"vocabulary has {tokens} tokens, embedding {rows} rows: expected one row for each token")


def labels(value: Any, size: int) -> tuple[str, ...]:
    """Return the names of the V numbers that a model gives."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"labels must be a sequence of {size} str, got {kind_of(value)}")
    for i, label in enumerate(value):
        if not isinstance(label, str):
            raise TypeError(f"labels must be a sequence of {size} str, got {kind_of(label)} at {i}")
    if len(value) != size:
        raise ValueError(f"labels must be {size}, one for each number that the model gives, got {len(value)}")
    return tuple(value)


def instance(value: Any, kind: type, name: str) -> None:
    """Demand an object of a class of fastrnn."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a fastrnn.{kind.__name__}, got {kind_of(value)}")


def fixed(value: Any, name: str) -> AttributeError:
    """Return the error of a model or vocabulary that is to be changed."""
    return AttributeError(f"{name} cannot be set or deleted: a {type(value).__name__} does not change, build another")


# Calls ----------------------------------------------------------------------------------------------------------------


def ids(found: np.ndarray, size: int) -> np.ndarray:
    """Return ids in 0..size-1 as int64."""
    if found.dtype.kind == "b":
        raise TypeError("x must hold ids as integers or vectors of floats, got bools: for a mask of ids pass ids[mask]")
    return in_range(found, size, "x").astype(np.int64, copy=False)


def in_range(found: np.ndarray, size: int, name: str) -> np.ndarray:
    """Return ids that lie in 0..size-1."""
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold ids as integers, got dtype {found.dtype}")
    # Negative numbers are large ones without a sign: one look at all ids instead of two, and no copy.
    negative = 1 << 8 * found.itemsize - (found.dtype.kind == "i")
    if found.size and found.view(found.dtype.str.replace("i", "u")).max() >= min(size, negative):
        where = tuple(np.argwhere((found < 0) | (found >= size))[0].tolist())
        raise ValueError(f"{name} must hold ids in 0..{size - 1}, got {found[where]} at {axes_text(where)}")
    return found


def wrong_input(shape: tuple[int, ...], of_ids: bool, axes: Sequence[str], size: int, vocab: int | None) -> ValueError:
    """Return the error of an x whose axes are none of `axes`, such as ("B, T", "T"), before I of vectors."""
    as_ids = " or ".join(f"({a}{',' * (len(a) == 1)})" for a in axes)
    vectors = [f"{a}, I" if a else "I," for a in axes]
    as_vectors = " or ".join(f"({a}) = ({a.replace('I', str(size))})" for a in vectors)
    cure = ""
    if of_ids:
        cure = ": vectors must be floats" if shape[-1:] == (size,) else ""
        return ValueError(f"x of integers is {shape}, expected ids {as_ids}{cure}")
    if vocab is not None:
        cure = ": ids must be integers" if len(shape) < max(len(a.split(",")) for a in vectors) else ""
        return ValueError(f"x of floats is {shape}, expected vectors {as_vectors}{cure}")
    if shape[:-2:-1] != (size,) and size in shape:
        cure = f": pass np.moveaxis(x, {shape.index(size)}, -1)"
    elif size == 1 and len(shape) < max(len(a.split(",")) for a in vectors):
        cure = ": pass x[..., None]"
    return ValueError(f"x is {shape}, expected {as_vectors}{cure}")


def states(value: Any, count: int, name: str = "state") -> Sequence[Any]:
    """Return one hx, or None, for each recurrent layer."""
    what = f"{name} must be a list with one hx for each recurrent layer, {count} in all"
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{what}, got {kind_of(value)}" + ": pass [hx]" * (count == 1))
    if len(value) != count:
        raise ValueError(f"{what}, got {len(value)} elements" + ": pass [(h, c)]" * (count == 1 and len(value) == 2))
    return value


def pool_without_use() -> ValueError:
    """Return the error of a pool for a result that has all steps."""
    return ValueError("pool is for wiring='many_to_one', and this call is many_to_many: pass both, or leave pool out")


def no_feedback(gives: int, takes: int) -> ValueError:
    """Return the error of outputs that cannot be inputs."""
    return ValueError(
        f"feed='output' needs a model that gives what it takes, and this one gives {gives} numbers and takes {takes}: "
        "use feed='first' or 'every', or add a fastrnn.Dense as head"
    )
