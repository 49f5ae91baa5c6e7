"""Cells of one's own: `cell` makes a kind of a small function, and `Cell` is a kind with its options."""

import builtins
import dis
import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from hashlib import sha256
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from fastrnn import checks
from fastrnn.cells import OWN, Phase, Variant
from fastrnn.checks import UnsupportedError

__all__ = ["Cell", "OwnCell", "as_cell", "cell"]

MOST_GATES, MOST_STATES, MOST_PARAMETERS = 8, 2, 8
_GROUPS = {1: 4, 2: 2, 3: 2}  # U for so many gates, else 1: as many chains of fma as hide each other's latency
_MODULES = ("fastrnn", "fastrnn.simd", "fastrnn.numba_kernels.simd", "fastrnn.numba_kernels.activations")
_MAY = "the function of a cell may use + - * /, numbers and the functions of fastrnn.simd"
_ALLOWED = {  # instructions of Python 3.11 to 3.13, beside those that find what is outside
    "BINARY_OP", "BUILD_TUPLE", "CALL", "CALL_KW", "COPY", "COPY_FREE_VARS", "KW_NAMES", "LOAD_CONST", "LOAD_FAST",
    "LOAD_FAST_LOAD_FAST", "NOP", "POP_TOP", "PRECALL", "PUSH_NULL", "RESUME", "RETURN_CONST", "RETURN_VALUE",
    "STORE_FAST", "STORE_FAST_LOAD_FAST", "STORE_FAST_STORE_FAST", "SWAP", "UNARY_NEGATIVE", "UNPACK_SEQUENCE",
}  # fmt: skip
_REFUSED = {
    "BUILD_LIST": "a list",
    "BUILD_MAP": "a dict",
    "IMPORT_NAME": "an import",
    "DELETE_FAST": "del",
    "COMPARE_OP": "a comparison",
    "IS_OP": "a comparison",
    "CONTAINS_OP": "a comparison",
    "UNARY_POSITIVE": "a sign +",
    "UNARY_NOT": "not",
    "UNARY_INVERT": "~",
    "CALL_INTRINSIC_1": "a sign +",  # since Python 3.12
    "BINARY_SUBSCR": "an index",
    "BINARY_SLICE": "an index",
}
_ORDER = """\
b = b_ih + b_hh
{gates} = acc(b; x{h})
{states} = {name}({arguments}), and each is flushed
"""

_latest: dict[str, "OwnCell"] = {}  # by module and name: what files mean


class OwnCell:
    """A kind of cell that `cell` made of a function; pickles hold its module and name."""

    def __init__(self, function: Callable[..., Any], variant: Variant) -> None:
        self.__module__, self.__qualname__, self.__doc__ = _module(function), function.__qualname__, function.__doc__
        self.variant = variant

    def __call__(self, *arrays: Any) -> Any:
        """Call the function itself, on NumPy arrays."""
        assert self.variant.function is not None
        return self.variant.function(*arrays)

    def __repr__(self) -> str:
        return self.__qualname__

    def __reduce__(self) -> str:
        return self.__qualname__


def cell(
    *,
    gates: Sequence[str],
    states: Sequence[str] = ("h",),
    parameters: Sequence[str] = (),
    recurrent: bool = True,
    apart: str | None = None,
) -> Callable[[Callable[..., Any]], OwnCell]:
    """Make a kind of cell of the function that finishes its gates.

    ``new = function(*gates, *states, *parameters)``, where each gate is ``W_ih x + b_ih + W_hh h + b_hh`` of its own
    rows, or ``W_ih x + b_ih`` without `recurrent`. The function computes one unit of one row, from its arguments alone;
    it is run on vectors of units in code that Numba compiles, and on NumPy arrays by the reference. So it is written
    with ``+ - * /``, numbers, and the functions of `fastrnn.simd`, and has no branches: `simd.where_less` chooses.

    Parameters
    ----------
    gates : sequence of str
        The first arguments of the function, 1 to 8, in the order of the rows of the matrices.
    states : sequence of str
        The next: one or two. The first one, h, is what the layer puts out and what W_hh multiplies.
    parameters : sequence of str
        The last, up to 8: vectors of one number for each unit, (H,) each, ``u_l0`` for u in a state dict.
    recurrent : bool
        False: there is no W_hh.
    apart : str, optional
        The last gate, where the function wants its sum over x and its sum over h as two arguments, ``n_x`` and ``n_h``
        in the place of ``n``, as the GRU does.

    Returns
    -------
    decorator
        That turns the function into an `OwnCell`, for `Cell` and `Recurrent`.

    Raises
    ------
    TypeError, ValueError
        For names that are none, too many or not those of the function's arguments, for a function that uses anything
        but its arguments, numbers and `simd`, and for one that does not give an array of the shape of its arguments for
        each state.

    Notes
    -----
    The sums, the functions of `simd` and the flush of tiny states follow the arithmetic contract, docs/arithmetic.md:
    the bits are the same for any batch, chunk, number of threads and processor. Numba and the reference run own
    cells; the compiled backend does not.

    Examples
    --------
    The gated recurrent unit without products over h, minGRU:

    >>> import numpy as np, fastrnn
    >>> from fastrnn import simd
    >>> @fastrnn.cell(gates=("z", "n"), recurrent=False)
    ... def min_gru(z, n, h):
    ...     z = simd.sigmoid(z)
    ...     return simd.fma(z, n, simd.fma(-z, h, h))
    >>> layer = fastrnn.Recurrent(min_gru, 3, 4, backend="reference").init()
    >>> layer
    Recurrent(min_gru, 3, 4, backend=reference)
    >>> y, h = layer(np.ones((5, 2, 3)))
    >>> y.shape, h.shape
    ((5, 2, 4), (1, 2, 4))
    """
    gates = _names(gates, "gates", 1, MOST_GATES)
    states = _names(states, "states", 1, MOST_STATES)
    parameters = _names(parameters, "parameters", 0, MOST_PARAMETERS)
    recurrent = checks.flag(recurrent, "recurrent")
    if states[0] != "h":
        raise ValueError(f"states must begin with 'h', what the layer puts out, got {states}")
    if apart is not None and (not recurrent or checks.choice(apart, "apart", gates) != gates[-1]):
        raise ValueError(f"apart must be the last gate, {gates[-1]!r}, of a recurrent cell, got {apart!r}")
    sums = gates if apart is None else (*gates[:-1], f"{apart}_x", f"{apart}_h")
    arguments = (*sums, *states, *parameters)
    if len(set(arguments)) < len(arguments):
        raise ValueError(f"gates, states and parameters must have names of their own, got {arguments}")

    def decorate(function: Callable[..., Any]) -> OwnCell:
        if not isinstance(function, FunctionType):
            raise TypeError(f"fastrnn.cell decorates a plain function, got {type(function).__name__}")
        found = tuple(inspect.signature(function).parameters)
        if found != arguments:
            raise ValueError(
                f"{function.__qualname__} has the arguments {found}, expected gates, states, parameters: {arguments}"
            )
        function, outside = _fixed(function)
        _try(function, arguments, states)
        qualified = f"{_module(function)}.{function.__qualname__}"
        order = _ORDER.format(
            gates=", ".join(gates), h=", h" * recurrent, states=", ".join(f"{s}'" for s in states),
            name=function.__name__, arguments=", ".join(arguments),
        )  # fmt: skip
        phase = Phase(qualified, tuple(range(len(gates))), _GROUPS.get(len(gates), 1), "h")
        described = Variant(
            qualified, gates, states, ("standard",), apart, (phase,), order, parameters, recurrent, function
        )
        # Code with another hash is another kind: compiled kernels are found by its name.
        code = function.__code__.co_code, function.__code__.co_consts, function.__code__.co_names, outside
        digest = sha256(repr((described[:-1], code)).encode()).hexdigest()
        name = f"{qualified}-{digest[:16]}"
        OWN[name] = described._replace(name=name, phases=(phase._replace(name=name),))
        _latest[qualified] = OwnCell(function, OWN[name])
        return _latest[qualified]

    return decorate


def _names(names: Any, what: str, least: int, most: int) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
        raise TypeError(f"{what} must be a tuple of names, got {names!r}")
    if not least <= len(names) <= most:
        raise ValueError(f"{what} must be {least} to {most} names, got {len(names)}")
    for name in names:
        if not name.isidentifier() or name.startswith(("weight_", "bias_")):
            raise ValueError(f"{what} must be names of arguments that do not begin with weight_ or bias_, got {name!r}")
    return tuple(names)


def _module(function: Callable[..., Any]) -> str:
    """Name the module of a function: that of a script has another name in the processes that it spawns."""
    return "__main__" if function.__module__ == "__mp_main__" else function.__module__


def _try(function: Callable[..., Any], arguments: Sequence[str], states: Sequence[str]) -> None:
    """Run the function on arrays of one unit, and look at what it gives."""
    with np.errstate(all="ignore"):
        given = function(*(np.full((1, 1), 0.5, np.float32) for _ in arguments))
    found = given if isinstance(given, tuple) else (given,)
    kinds = [(np.shape(a), getattr(a, "dtype", None)) for a in found]
    if kinds != [((1, 1), checks.FLOAT32)] * len(states):
        raise ValueError(
            f"{function.__name__} must return an array of the shape and dtype of its arguments for each of its states "
            f"{tuple(states)}, got {kinds} for (1, 1) float32"
        )


def _fixed(function: FunctionType) -> tuple[FunctionType, dict[str, Any]]:
    """Return a function with the numbers that it finds outside itself now, whatever becomes of them.

    And what these are: numbers, and the names of functions of `simd`. All numbers become floats, for Numba's integers
    end at 64 bits. The instructions are read, for what vectors cannot do must not wait for a first call.
    """
    code = function.__code__
    found: dict[str, Any] = {}
    outside: dict[str, Any] = {"__name__": function.__module__}
    if any(isinstance(constant, CodeType) for constant in code.co_consts):
        raise TypeError(f"{function.__qualname__} defines a function inside: write it out")
    enclosing = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    name, value = "", None  # what the instruction before has found outside
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"):
            name = str(step.argval)
            value = enclosing[name].cell_contents if name in enclosing else _global(function, name)
            outside[name] = value = _floats(function, value, name)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            if not isinstance(value, ModuleType):
                raise TypeError(f"{function.__qualname__} uses .{step.argval}, which vectors do not have: {_MAY}")
            name, value = f"{name}.{step.argval}", getattr(value, str(step.argval))
        else:
            refused = None if step.opname in _ALLOWED else _REFUSED.get(step.opname, step.opname)
            if "JUMP" in step.opname:
                refused = "a branch"
            if step.opname == "BINARY_OP" and step.argrepr not in ("+", "-", "*", "/"):
                refused = step.argrepr  # += too, which would change the reference's arrays
            if refused:
                raise TypeError(f"{function.__qualname__} uses {refused}: {_MAY}")
            name, value = "", None
            continue
        ours = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        if isinstance(value, float):
            found[name] = value
        elif ours not in _MODULES:
            raise TypeError(f"{function.__qualname__} uses {name}, {type(value).__name__}: {_MAY}")
        elif not isinstance(value, ModuleType):
            found[name] = f"{ours}.{value.__name__}"
    numbers = tuple(_floats(function, constant, str(constant)) for constant in code.co_consts)
    cells = tuple(CellType(outside[name]) for name in code.co_freevars)
    fixed = FunctionType(code.replace(co_consts=numbers), outside, function.__name__, function.__defaults__, cells)
    fixed.__qualname__, fixed.__doc__ = function.__qualname__, function.__doc__
    return fixed, found


def _floats(function: FunctionType, value: Any, name: str) -> Any:
    """Return a number as a float, constants of a tuple too, and anything else as it is."""
    if type(value) is tuple:
        return tuple(_floats(function, each, str(each)) for each in value)
    if isinstance(value, bool):
        raise TypeError(f"{function.__qualname__} uses {name}, bool: {_MAY}")
    try:
        return float(value) if isinstance(value, (int, float)) else value
    except OverflowError:
        raise TypeError(f"{function.__qualname__} uses {name}, which no float holds: {_MAY}") from None


def _global(function: FunctionType, name: str) -> Any:
    if name in function.__globals__:
        return function.__globals__[name]
    if hasattr(builtins, name):
        return getattr(builtins, name)
    raise NameError(f"{function.__qualname__} uses {name}, which is not defined")


@dataclass(frozen=True)
class Cell:
    """What a `Recurrent` layer repeats: a kind of cell, and its options.

    Parameters
    ----------
    kind : {"rnn", "lstm", "gru"} or OwnCell
        What `cell` returns is a kind too.
    reset_after : bool
        Of a GRU, as there.
    activations, peephole, coupled, clip, cell_clip, proj_clip, proj_bias, layer_norm
        Not supported yet, but for their defaults.

    Raises
    ------
    UnsupportedError
        For options that are not supported.
    ValueError, TypeError
        For other kinds.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.Recurrent(fastrnn.Cell("gru", reset_after=False), 3, 4)
    Recurrent(Cell('gru', reset_after=False), 3, 4)
    """

    kind: Any
    _: KW_ONLY
    activations: Any = None
    reset_after: bool = True
    peephole: bool = False
    coupled: str | None = None
    clip: float | None = None
    cell_clip: float | None = None
    proj_clip: float | None = None
    proj_bias: bool = False
    layer_norm: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, OwnCell):
            if not isinstance(self.kind, str):
                raise TypeError(
                    "kind must be 'rnn', 'lstm', 'gru' or what fastrnn.cell returns, got " + type(self.kind).__name__
                )
            checks.choice(self.kind, "kind", ("rnn", "lstm", "gru"))
        for name in ("reset_after", "peephole", "proj_bias"):
            checks.flag(getattr(self, name), name)
        for name, accepted in (("coupled", ("f=1-i", "i=1-f")), ("layer_norm", ("gates", "ih_hh"))):
            if getattr(self, name) is not None:
                checks.choice(getattr(self, name), name, accepted)
        changed = [f.name for f in fields(self) if f.name != "kind" and getattr(self, f.name) != f.default]
        known = ["reset_after"] if self.kind == "gru" else []
        if refused := [name for name in changed if name not in known]:
            raise UnsupportedError(
                f"a cell of kind {self.kind!r} does not have the options {', '.join(refused)}: leave them out,"
                " or write it with fastrnn.cell"
            )

    def __repr__(self) -> str:
        if isinstance(self.kind, OwnCell):
            return repr(self.kind)
        return f"Cell({self.kind!r}{'' if self.reset_after else ', reset_after=False'})"

    def config(self) -> dict[str, Any]:
        """Return what files say of it: an own cell by its module and name."""
        kind = self.kind
        name = f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, OwnCell) else kind
        return {"kind": name, "reset_after": self.reset_after}

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Cell":
        """Invert `config`; LookupError for an own cell that no module of this process has defined."""
        name = config["kind"]
        if "." not in name:
            return cls(**config)
        if name.startswith("fastrnn.more_cells."):
            importlib.import_module("fastrnn.more_cells")
        if name not in _latest:
            raise LookupError(f"the cell {name} is not defined in this process: import the module that defines it")
        return cls(_latest[name])

    def variant(self, proj_size: int) -> str:
        """Name its entry in the tables of cells.py, for layers with a projection or without."""
        if isinstance(self.kind, OwnCell):
            return self.kind.variant.name
        if self.kind == "lstm" and proj_size:
            return "lstm_proj"
        return "gru_before" if self.kind == "gru" and not self.reset_after else self.kind


def as_cell(value: Any) -> Cell:
    """Return a Cell, or the one of a kind without options."""
    return value if isinstance(value, Cell) else Cell(value)
