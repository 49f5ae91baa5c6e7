"""Logical weights: torch's order of gates, torch's names, every shape checked."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastrnn import checks
from fastrnn.cells import variant

__all__ = [
    "Sizes",
    "Weights",
    "bare_names",
    "check_arrays",
    "check_tensors",
    "expected_shapes",
    "fold_biases",
    "frozen",
    "init_weights",
    "sizes_from_state_dict",
    "state_dict",
]


class Weights(NamedTuple):
    """One layer and direction. G gates in torch's order, I input, H hidden, P projection, R = P or H."""

    w_ih: np.ndarray  # (G*H, I)
    w_hh: np.ndarray  # (G*H, R); (G*H, 0) for cells that are not recurrent
    b_ih: np.ndarray | None = None  # (G*H,)
    b_hh: np.ndarray | None = None  # (G*H,)
    w_hr: np.ndarray | None = None  # (P, H)
    parameters: tuple[np.ndarray, ...] = ()  # (H,) each, of own cells

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "Weights":
        """Return what a function makes of each array."""
        given = {field: w for field, w in self._asdict().items() if w is not None and field != "parameters"}
        made = {field: function(w) for field, w in given.items()}
        return Weights(parameters=tuple(map(function, self.parameters)), **made)

    def astype(self, dtype: npt.DTypeLike) -> "Weights":
        """Return contiguous, read-only copies."""
        return self.map(lambda w: frozen(w, dtype))


class Sizes(NamedTuple):
    """What fixes the names and shapes of all weights of a layer."""

    variant: str  # a name of cells.variant
    input_size: int
    hidden_size: int
    proj_size: int = 0
    num_layers: int = 1
    num_directions: int = 1
    bias: bool = True
    cell: bool = False  # RNNCell, LSTMCell, GRUCell: names without "_l0"


def fold_biases(name: str, weights: Weights) -> tuple[np.ndarray, np.ndarray | None]:
    """Add the biases as the arithmetic contract does.

    Returns
    -------
    b : (G*H,) array
        ``b_ih + b_hh``, added in the weights' dtype, but ``b_ih`` alone for the gate kept apart; zeros without bias.
    b_h : (H,) array or None
        ``b_hh`` of the gate kept apart, None for variants without one.
    """
    kind = variant(name)
    size, dtype = len(weights.w_ih), weights.w_ih.dtype
    b_ih = np.zeros(size, dtype) if weights.b_ih is None else weights.b_ih
    b_hh = np.zeros(size, dtype) if weights.b_hh is None else weights.b_hh
    b = b_ih + b_hh
    if kind.apart is None:
        return b, None
    hidden = size // len(kind.gates)
    apart = slice(kind.gates.index(kind.apart) * hidden, (kind.gates.index(kind.apart) + 1) * hidden)
    b[apart] = b_ih[apart]
    return b, b_hh[apart]


# Names and shapes -----------------------------------------------------------------------------------------------------

_FIELDS = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh", "w_hr": "weight_hr"}
_PARAMETER = "parameters."  # before a parameter's name, in the place of a field
_KEY = re.compile(
    r"(?P<prefix>.*?)(?P<stem>(?:weight|bias)_(?:ih|hh|hr))(?P<layer>_l(?P<k>\d+)(?P<reverse>_reverse)?)?"
)
_HIDDEN_KEY = re.compile(
    r"(?:^|[._])(?:parametrizations\.|(?:weight|bias)_(?:ih|hh|hr)_l\d+(?:_reverse)?_(?:g|v|orig)$)"
)


def _names(sizes: Sizes) -> list[dict[str, str]]:
    """Map the fields of Weights that are present to torch's names: one dict per layer and direction, in order."""
    kind = variant(sizes.variant)
    absent = set() if sizes.bias else {"b_ih", "b_hh"}
    if not sizes.proj_size:
        absent.add("w_hr")
    if not kind.recurrent:
        absent |= {"w_hh", "b_hh"}
    stems = {field: stem for field, stem in _FIELDS.items() if field not in absent}
    stems |= {_PARAMETER + name: name for name in kind.parameters}
    return [
        {field: stem + ("" if sizes.cell else f"_l{layer}" + "_reverse" * direction) for field, stem in stems.items()}
        for layer in range(sizes.num_layers)
        for direction in range(sizes.num_directions)
    ]


class _Shape(NamedTuple):
    symbols: tuple[str, ...]
    shape: tuple[int, ...]


def _shapes(sizes: Sizes, layer: int) -> dict[str, _Shape]:
    """Map the fields of Weights to their shapes, in symbols and in numbers."""
    kind = variant(sizes.variant)
    gates, h, p = len(kind.gates), sizes.hidden_size, sizes.proj_size
    rows = "H" if gates == 1 else f"{gates}*H"
    state = ("P", p) if p else ("H", h)
    inputs = ("I", sizes.input_size)
    if layer:
        d = sizes.num_directions
        inputs = (state[0] if d == 1 else f"{d}*{state[0]}", d * state[1])
    bias = _Shape((rows,), (gates * h,))
    return {
        "w_ih": _Shape((rows, inputs[0]), (gates * h, inputs[1])),
        "w_hh": _Shape((rows, state[0]), (gates * h, state[1])),
        "b_ih": bias,
        "b_hh": bias,
        "w_hr": _Shape(("P", "H"), (p, h)),
    } | {_PARAMETER + name: _Shape(("H",), (h,)) for name in kind.parameters}


def expected_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Map torch's names of all weights, in torch's order, to their shapes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, names in enumerate(_names(sizes)):
        wanted = _shapes(sizes, index // sizes.num_directions)
        shapes |= {name: wanted[field].shape for field, name in names.items()}
    return shapes


def _misshapen(name: str, shape: tuple[int, ...], wanted: _Shape) -> str | None:
    """Say what is wrong with a shape and how to cure it; None where it is right."""
    if shape == wanted.shape:
        return None
    symbols = ", ".join(wanted.symbols) + "," * (len(wanted.symbols) == 1)
    cure = f": pass {name}.T" if shape == wanted.shape[::-1] else ""
    return f"{name} is {shape}, expected ({symbols}) = {wanted.shape}{cure}"


def frozen(array: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
    """Return a contiguous, read-only copy of a dtype."""
    copy = np.array(array, dtype=np.dtype(dtype), order="C")
    copy.flags.writeable = False
    return copy


# In and out -----------------------------------------------------------------------------------------------------------


def bare_names(tensors: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Pick the tensors under `prefix`, by torch's bare names.

    A further prefix that all of them share (``module.``, ``_orig_mod.``, any) is taken off too.

    Raises
    ------
    ValueError
        If no key starts with `prefix`, if the recurrent keys have more than one prefix, or if they have one that other
        keys lack.
    """
    chosen = {key[len(prefix) :]: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    if not chosen and prefix:
        have = sorted({match["prefix"] for key in tensors if (match := _KEY.fullmatch(key))})
        raise ValueError(f"no key starts with prefix {prefix!r}; recurrent weights were found under: {_list(have)}")
    prefixes = sorted({match["prefix"] for key in chosen if (match := _KEY.fullmatch(key))})
    if len(prefixes) > 1:
        found = _list([prefix + further for further in prefixes])
        raise ValueError(f"the keys hold several recurrent modules: pass prefix= one of {found}")
    common = prefixes[0] if prefixes else ""
    others = [prefix + key for key in chosen if not key.startswith(common)]
    if others:
        raise ValueError(f"unknown keys {_list(others)}: to leave them out pass prefix={prefix + common!r}")
    return {key[len(common) :]: tensor for key, tensor in chosen.items()}


def check_tensors(
    tensors: Mapping[str, Any], sizes: Sizes, dtype: npt.DTypeLike, prefix: str = ""
) -> tuple[Weights, ...]:
    """Make weights from a state dict, strictly: every key is used, every shape is right.

    Parameters
    ----------
    tensors : mapping of str to array
        By torch's names, behind `prefix` and any prefix that all of them share. Copied and cast to `dtype`.
    sizes : Sizes
        What the weights must fit.
    dtype : dtype
        float32 or float64.
    prefix : str
        Only keys that start with it are looked at.

    Returns
    -------
    tuple of Weights
        Index ``layer * num_directions + direction``.

    Raises
    ------
    ValueError
        That names all missing, all unknown and all misshapen keys.
    TypeError
        For weights that are not real numbers.
    """
    arrays = {name: checks.array(tensor, prefix + name) for name, tensor in bare_names(tensors, prefix).items()}
    wanted = {
        name: shape
        for index, names in enumerate(_names(sizes))
        for name, shape in ((n, _shapes(sizes, index // sizes.num_directions)[field]) for field, n in names.items())
    }
    missing = [name for name in wanted if name not in arrays]
    unknown = [name for name in arrays if name not in wanted]
    wrong = [
        problem
        for name, shape in wanted.items()
        if name in arrays and (problem := _misshapen(name, arrays[name].shape, shape))
    ]
    problems = ["missing " + _list(missing)] * bool(missing) + ["unknown " + _list(unknown)] * bool(unknown) + wrong
    if problems:
        raise ValueError(
            f"the weights do not fit {_describe(sizes)}: " + "; ".join(problems) + _hint(sizes, missing, unknown)
        )
    return tuple(
        _weights({field: arrays[name] for field, name in names.items()}).astype(dtype) for names in _names(sizes)
    )


def _weights(found: dict[str, np.ndarray]) -> Weights:
    """Make Weights of their fields and parameters."""
    parameters = tuple(array for field, array in found.items() if field.startswith(_PARAMETER))
    fields: dict[str, Any] = {field: array for field, array in found.items() if not field.startswith(_PARAMETER)}
    fields.setdefault("w_hh", np.empty((len(fields["w_ih"]), 0)))
    return Weights(parameters=parameters, **fields)


def check_arrays(
    kind: str,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    dtype: npt.DTypeLike = np.float32,
) -> tuple[Sizes, Weights]:
    """Make one layer's weights from U (G*H, I), W (G*H, H), b_ih and b_hh (G*H,); sizes are read off.

    Raises
    ------
    ValueError
        That names all misshapen arrays.
    TypeError
        For arrays that are not real numbers.
    """
    given = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh}
    labels = {"w_ih": "U", "w_hh": "W"}
    arrays = {f: checks.array(a, labels.get(f, f)) for f, a in given.items() if a is not None}
    for field, label in labels.items():
        if arrays[field].ndim != 2 or 0 in arrays[field].shape:
            raise ValueError(f"{label} must be a matrix, got shape {arrays[field].shape}")
    gates = len(variant(kind).gates)
    hidden = min(arrays["w_hh"].shape)  # whichever way round W lies
    u = arrays["w_ih"].shape
    inputs = u[0] if u[0] != gates * hidden and u[1] == gates * hidden else u[1]
    sizes = Sizes(kind, inputs, hidden, bias=b_ih is not None or b_hh is not None)
    wanted = _shapes(sizes, 0)
    problems = [p for f, a in arrays.items() if (p := _misshapen(labels.get(f, f), a.shape, wanted[f]))]
    if problems:
        raise ValueError("; ".join(problems))
    return sizes, _weights(arrays).astype(dtype)


def state_dict(weights: Sequence[Weights], sizes: Sizes) -> dict[str, np.ndarray]:
    """Copy all weights to a dict by torch's names, in torch's order; a bias that is None becomes zeros."""
    tensors = {}
    for w, names in zip(weights, _names(sizes), strict=True):
        parameters = dict(zip(variant(sizes.variant).parameters, w.parameters, strict=True))
        for field, name in names.items():
            value = parameters[field.removeprefix(_PARAMETER)] if field not in _FIELDS else getattr(w, field)
            tensors[name] = np.zeros(len(w.w_ih), w.w_ih.dtype) if value is None else value.copy()
    return tensors


def init_weights(sizes: Sizes, dtype: npt.DTypeLike, seed: int = 0) -> tuple[Weights, ...]:
    """Draw from (-1/sqrt(H), 1/sqrt(H)), as torch does; in float64, so that both dtypes get the same numbers."""
    rng = np.random.default_rng(seed)
    bound = sizes.hidden_size**-0.5
    tensors = {name: rng.uniform(-bound, bound, shape) for name, shape in expected_shapes(sizes).items()}
    return check_tensors(tensors, sizes, dtype)


def sizes_from_state_dict(tensors: Mapping[str, Any], prefix: str = "") -> Sizes:
    """Read kind of cell, sizes, layers, directions, projection and bias off names and shapes.

    A state dict does not tell a GRU that resets before from one that resets after ("gru" is returned), nor relu from
    tanh.

    Raises
    ------
    ValueError
        Where names or shapes are no torch RNN, LSTM or GRU.
    """
    bare = bare_names(tensors, prefix)
    keys = {name: match for name in bare if (match := _KEY.fullmatch(name))}
    unknown = [prefix + name for name in bare if name not in keys]
    if unknown:
        what = f"unknown keys {_list(unknown)}" if keys else f"no recurrent layer's weights among {_list(unknown)}"
        raise ValueError(what + _hint(None, [], unknown))
    cell = any(match["layer"] is None for match in keys.values())
    first = "" if cell else "_l0"
    shapes = {stem: tuple(bare[stem + first].shape) for stem in _FIELDS.values() if stem + first in bare}
    lacking = [stem + first for stem in ("weight_ih", "weight_hh") if len(shapes.get(stem, ())) != 2]
    if lacking or len(shapes.get("weight_hr", (0, 0))) != 2:
        raise ValueError(
            f"{_list(lacking or ['weight_hr' + first])} missing or no matrix, got keys {_list(list(bare))}:"
            " pass what a torch module's state_dict() gives, and prefix= if its names stand after one"
        )
    rows, state = shapes["weight_hh"]
    proj, hidden = shapes.get("weight_hr", (0, state))
    kinds = {1: "rnn", 3: "gru", 4: "lstm"}
    gates = rows // hidden if hidden else 0
    if gates not in kinds or rows != gates * hidden or (proj and kinds[gates] != "lstm"):
        raise ValueError(
            f"weight_hh{first} is {(rows, state)}: expected (G*H, H) with G = 1 (RNN), 3 (GRU) or 4 (LSTM),"
            f" or (4*H, P) beside weight_hr{first} (P, H)"
            + (f": pass weight_hh{first}.T" if state in (3 * rows, 4 * rows) else "")
        )
    return Sizes(
        variant="lstm_proj" if proj else kinds[gates],
        input_size=shapes["weight_ih"][1],
        hidden_size=hidden,
        proj_size=proj,
        num_layers=len({match["k"] for match in keys.values()}),  # not the highest: a hostile file could name any
        num_directions=2 if any(match["reverse"] for match in keys.values()) else 1,
        bias=any(match["stem"].startswith("bias") for match in keys.values()),
        cell=cell,
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _describe(sizes: Sizes) -> str:
    s = sizes
    extra = f", proj_size={s.proj_size}" * bool(s.proj_size) + f", num_layers={s.num_layers}" * (s.num_layers > 1)
    extra += ", bidirectional=True" * (s.num_directions > 1) + ", bias=False" * (not s.bias)
    function = variant(s.variant).function
    start = s.variant.split("_")[0].upper() + "Cell" * s.cell + "("
    if function is not None:
        start = f"Recurrent({function.__qualname__}, "
    return f"{start}{s.input_size}, {s.hidden_size}{extra})"


def _hint(sizes: Sizes | None, missing: Sequence[str], unknown: Sequence[str]) -> str:
    """Name the likely cause, where the keys show it."""
    if any(_HIDDEN_KEY.search(name) for name in unknown):
        return "; normalised or pruned weights are stored in parts: remove the parametrization before saving"
    if sizes is None:
        return ""
    if unknown and not sizes.bias and not missing and all(name.startswith("bias_") for name in unknown):
        return "; for weights with biases pass bias=True"
    if missing and sizes.bias and not unknown and all(name.startswith("bias_") for name in missing):
        return "; for weights without biases pass bias=False"
    if sizes.num_directions == 1 and any(name.endswith("_reverse") for name in unknown):
        return "; for weights of both directions pass bidirectional=True"
    if not sizes.proj_size and any(name.startswith("weight_hr") for name in unknown):
        return "; for weights with a projection pass proj_size="
    return ""
