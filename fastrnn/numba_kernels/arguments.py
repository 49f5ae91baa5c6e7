"""What `fastrnn.jit` offers to compiled code: arguments are checked and turned into the numbers of a call."""

from collections.abc import Callable
from functools import cache, reduce
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.core.typing.templates import infer_global, make_intrinsic_template

from fastrnn.numba_kernels.activations import sigmoid_of_one, tanh_of_one
from fastrnn.numba_kernels.calls import build_call, stack
from fastrnn.numba_kernels.dense import activate
from fastrnn.numba_kernels.door import attribute, njit, overload
from fastrnn.numba_kernels.inside import (
    BATCHED,
    BY_ID,
    CALL,
    FORWARD,
    ID,
    INPUTS,
    NETWORK,
    OUTPUTS,
    PACKED,
    RESET,
    SKEWED,
    SOURCE,
    STEP_ROWS,
    TARGET,
    TIMED,
)
from fastrnn.numba_kernels.kind import Kind
from fastrnn.numba_kernels.packed import PackedType, check_packed, numbers_of, table_of
from fastrnn.numba_kernels.simd import GROUP_BYTES, INDEX, data, pointer

__all__ = ["forward", "init_state", "reset", "sigmoid", "softmax", "step", "tanh"]

_SOFTMAX = Kind("softmax")


# Types: errors when the caller's function is compiled -----------------------------------------------------------------


def _array(given: Any, w: PackedType, name: str, axes: int | None = None, written: bool = True) -> None:
    """Refuse what is no array of the weights' dtype, of so many axes and, if it is written, in C order."""
    if not isinstance(given, types.Array) or given.dtype != w.dtype:
        got = f"{given.dtype} array" if isinstance(given, types.Array) else str(given)
        raise TypingError(
            f"{name} must be an array of {w.dtype}, as the packed weights, got {got}: cast it, or pack the weights by"
            f" jit.pack(layer, dtype=) for it"
        )
    if axes is not None and given.ndim != axes:
        raise TypingError(
            f"{name} must have {axes} axes, got {given.ndim}: with a batch x, y and the state have B each"
        )
    if written and (given.layout != "C" or not given.mutable):
        raise TypingError(f"{name} is written: it must be in C order and not read-only; make it with np.empty")


def _state(w: PackedType, state: Any, axes: int) -> None:
    """Refuse what is not h, or (h, c), for a layer, or a tuple of these for a model."""
    each = state if w.is_model else [state]
    if w.is_model and (not isinstance(state, types.BaseTuple) or len(state) != len(w.states)):
        raise TypingError(
            f"state of a model must be a tuple of {len(w.states)}, one for each recurrent layer, got {state}"
        )
    for given, count in zip(each, w.states, strict=True):
        if count == 2 and not (isinstance(given, types.BaseTuple) and len(given) == 2):
            raise TypingError(f"state of an LSTM must be a tuple (h, c), got {given}: make it with jit.init_state")
        for name, part in zip("hc", given if count == 2 else [given], strict=False):
            _array(part, w, f"{name} of state", axes)


def _ids(w: PackedType, x: Any) -> bool:
    """Tell whether x is ids."""
    number = x.dtype if isinstance(x, types.Array) else x
    if not isinstance(number, types.Integer) or isinstance(number, types.Boolean):
        return False
    if not w.has_ids:
        raise TypingError(f"x is ids ({x}), and the packed model has no embedding: pass vectors of {w.dtype}")
    if isinstance(x, types.Array) and number != types.int64:
        raise TypingError(
            f"x must be ids of int64 or vectors of {w.dtype}, got an array of {number}: x.astype(np.int64)"
        )
    return True


def _axes_of_x(w: Any, x: Any, steps: int) -> int:
    """Return 1 if x has a batch, else 0."""
    check_packed(w)
    ids = _ids(w, x)
    if not ids:
        _array(x, w, "x", written=False)
    axes = (x.ndim if isinstance(x, types.Array) else 0) - steps - (not ids)
    if axes not in (0, 1):
        names = ("I", "B, I") if not steps else ("T, I", "T, B, I")
        raise TypingError(f"x must be ({names[0]}) or ({names[1]}), or ids without I, got {x}")
    return axes


# A call: the numbers that describe it, and the function that takes them ---------------------------------------------


class _Call:
    """Builds a call of one of `inside`'s functions, in the code that Numba makes of a user's function.

    It borrows its arguments: in a compiled function of its own Numba would count references to all arrays, for longer
    than it takes to compare shapes. The numbers of the call stand on the stack of the user's function, which keeps them
    from step to step.
    """

    def __init__(self, context: Any, builder: Any, w: PackedType, value: Any) -> None:
        self.context, self.builder, self.w = context, builder, w
        self.table = table_of(context, builder, w, value)
        self.room = cgutils.alloca_once(builder, ir.ArrayType(INDEX, CALL + 8 * len(w.states)))  # zeros at first

    def put(self, place: int, number: Any) -> None:
        """Write a number; one that is known now, once for all calls from this place."""
        if isinstance(number, int):
            with self.builder.goto_entry_block():
                self.builder.store(INDEX(number), self.at(place))
        else:
            self.builder.store(number, self.at(place))

    def at(self, place: int) -> Any:
        """Point at a number."""
        return self.builder.gep(self.room, [INDEX(0), INDEX(place)], inbounds=True)

    def array(self, kind: Any, value: Any) -> tuple[Any, list[Any], list[Any]]:
        """Take apart an array: its address, shape and strides."""
        array = self.context.make_array(kind)(self.context, self.builder, value)
        shape, strides = (cgutils.unpack_tuple(self.builder, axes, kind.ndim) for axes in (array.shape, array.strides))
        return self.builder.ptrtoint(array.data, INDEX), list(shape), list(strides)

    def axes(self, place: int, numbers: list[Any], given: tuple[bool, ...], missing: int) -> None:
        """Write a number for each of three axes, of which some are given."""
        rest = iter(numbers)
        for i, is_given in enumerate(given):
            self.put(place + i, next(rest) if is_given else missing)

    def x(self, kind: Any, value: Any, timed: bool, batched: bool, is_ids: bool) -> None:
        """Write where x lies."""
        if isinstance(kind, types.Array):
            start, shape, strides = self.array(kind, value)
            size = INDEX(8 if is_ids else self.w.dtype.bitwidth // 8)
            skewed = reduce(self.builder.or_, [self.builder.srem(stride, size) for stride in strides])
            self.put(SKEWED, skewed if kind.layout == "A" else 0)
            strides = [self.builder.sdiv(stride, size) for stride in strides]
        else:
            number = self.context.cast(self.builder, value, kind, types.int64)
            self.put(ID, number)
            start, shape, strides = self.builder.ptrtoint(self.at(ID), INDEX), [], []
        given = timed, batched, not is_ids
        self.put(TIMED, int(timed))
        self.put(BATCHED, int(batched))
        self.put(BY_ID, int(is_ids))
        self.put(SOURCE, start)
        self.axes(SOURCE + 1, shape, given, 1)
        self.axes(SOURCE + 4, strides, given, 0)

    def y(self, kind: Any, value: Any, timed: bool, batched: bool) -> None:
        """Write where y lies."""
        start, shape, _ = self.array(kind, value)
        self.put(TARGET, start)
        self.axes(TARGET + 1, shape, (timed, batched, True), 1)

    def state(self, kind: Any, value: Any, batched: bool) -> Any:
        """Write where states lie; returns the batch of the first one."""
        counts, batches = self.w.states, []
        each = [(kind, value)] if not self.w.is_model else self.parts(kind, value)
        for k, (count, one) in enumerate(zip(counts, each, strict=True)):
            for i, (of_part, part) in enumerate(self.parts(*one) if count == 2 else [one]):
                start, shape, _ = self.array(of_part, part)
                self.put(CALL + 2 * k + i, start)
                self.axes(CALL + 2 * len(counts) + 3 * (2 * k + i), shape, (True, batched, True), 1)
                batches.append(shape[1] if batched else 1)
        return batches[0]

    def parts(self, kind: Any, value: Any) -> list[tuple[Any, Any]]:
        """Take apart a tuple."""
        return [(part, self.builder.extract_value(value, i)) for i, part in enumerate(kind)]

    def run(self, function: int) -> Any:
        """Call the function whose address is so many numbers into the packed weights."""
        builder, like = self.builder, types.CPointer(self.w.dtype)
        nothing = ir.Constant(self.context.get_value_type(like), None)
        callee = builder.load(builder.gep(self.table, [INDEX(function)]))
        numbers = builder.ptrtoint(self.table, INDEX), builder.ptrtoint(self.room, INDEX)
        return build_call(self.context, builder, callee, (like, types.int64, types.int64), [nothing, *numbers])


def _check_order(*given: Any) -> None:
    """Refuse arrays of the other byte order in a call from Python: Numba may take them for native ones it has seen."""
    for each in given:
        if isinstance(each, tuple):
            _check_order(*each)
        elif isinstance(each, np.ndarray) and not each.dtype.isnative:
            raise TypingError(
                f"arrays must have the machine's byte order, got {each.dtype.str}: a.astype(a.dtype.newbyteorder('='))"
            )


def _compiled(definition: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let Numba build calls of a function by `definition`, as of an intrinsic; in Python it is called as it is."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        infer_global(function, types.Function(make_intrinsic_template(function, definition, function.__name__)))
        return function

    return decorate


def _definition(function: int, timed: bool) -> Callable[..., Any]:
    """Make what types and builds a call with x, a state and y."""

    def define(typingctx: Any, w: Any, x: Any, state: Any, y: Any) -> Any:
        batched = bool(_axes_of_x(w, x, timed))
        _array(y, w, "y", timed + batched + 1)
        _state(w, state, 2 + batched)
        is_ids = _ids(w, x)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            made = _Call(context, builder, w, args[0])
            made.x(x, args[1], timed, batched, is_ids)
            made.state(state, args[2], batched)
            made.y(y, args[3], timed, batched)
            return made.run(function)

        return types.none(w, x, state, y), codegen

    return define


def _define_reset(typingctx: Any, w: Any, state: Any) -> Any:
    """Type and build a call with a state alone."""
    check_packed(w)
    first = state[0] if w.is_model and isinstance(state, types.BaseTuple) and len(state) else state
    first = first[0] if isinstance(first, types.BaseTuple) and len(first) else first
    batched = getattr(first, "ndim", 2) == 3
    _state(w, state, 2 + batched)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        made = _Call(context, builder, w, args[0])
        made.put(BATCHED, int(batched))
        made.put(SOURCE + 2, made.state(state, args[1], batched))
        return made.run(RESET)

    return types.none(w, state), codegen


@attribute(PackedType, "input_size")
def _input_size(w):
    return lambda w: numbers_of(w)[INPUTS]


@attribute(PackedType, "output_size")
def _output_size(w):
    return lambda w: numbers_of(w)[OUTPUTS]


# What is public -------------------------------------------------------------------------------------------------------


@_compiled(_definition(STEP_ROWS, timed=False))
def step(w: Any, x: Any, state: Any, y: Any) -> None:
    """Advance by one time step; allocates nothing, but where a row's workspace is above 256 KB.

    Parameters
    ----------
    w : Packed
        From `pack`.
    x : (I,) or (B, I) array, int or (B,) array of int64
        Vectors of the weights' dtype, any strides; for a model with an embedding also ids.
    state : array, tuple of arrays, or for a model a tuple of these
        From `init_state`; it changes in place.
    y : (O or V,) or (B, O or V) array
        Receives the result; C order, apart from x and the state.

    Raises
    ------
    ValueError
        For wrong shapes and ids out of range. Nothing has changed then.
    TypingError
        For other dtypes and kinds, when the caller is compiled.
    """
    _check_order(x, state, y)
    _step(w, x, state, y)


@_compiled(_definition(FORWARD, timed=True))
def forward(w: Any, x: Any, state: Any, y: Any) -> None:
    """Run whole sequences: the results of `step` for each time step, faster.

    Parameters
    ----------
    w : Packed
        From `pack`; bidirectional layers too.
    x : (T, I) or (T, B, I) array, or (T,) or (T, B) array of int64
        Time first, always. Else as for `step`.
    state : array, tuple of arrays, or for a model a tuple of these
        As for `step`.
    y : (T, O or V) or (T, B, O or V) array
        As for `step`.

    Raises
    ------
    ValueError, TypingError
        As for `step`.
    """
    _check_order(x, state, y)
    _forward(w, x, state, y)


@_compiled(_define_reset)
def reset(w: Any, state: Any) -> None:
    """Set a state back to where it begins: the layer's `initial_state`, or zeros.

    Parameters
    ----------
    w : Packed
        From `pack`.
    state : array, tuple of arrays, or for a model a tuple of these
        As for `step`.

    Raises
    ------
    ValueError, TypingError
        As for `step`.
    """
    _check_order(state)
    _reset(w, state)


@njit()
def _step(w, x, state, y):
    step(w, x, state, y)


@njit()
def _forward(w, x, state, y):
    forward(w, x, state, y)


@njit()
def _reset(w, state):
    reset(w, state)


@cache
def _maker(counts: tuple[int, ...], dtype: Any, batch: bool, k: int = 0) -> Any:
    """Make what allocates the states of a recurrent part and of those after it, as a tuple."""
    two, last = counts[k] == 2, k == len(counts) - 1
    after: Any = None if last else _maker(counts, dtype, batch, k + 1)
    at = PACKED + NETWORK * k

    @njit()
    def array(table, size, count):
        if batch:
            return np.empty((table[at], count, table[at + size]), dtype)
        return np.empty((table[at], table[at + size]), dtype)

    @njit()
    def make(table, count):
        if two:
            state = array(table, 1, count), array(table, 2, count)
        else:
            state = array(table, 1, count)
        if last:
            return (state,)
        return (state,) + after(table, count)  # noqa: RUF005  Numba knows no unpacking here

    return make


def _new_state(w, batch):
    """Allocate a state."""


@overload(_new_state)
def _made_state(w, batch):
    check_packed(w)
    alone = batch is None or isinstance(batch, (types.NoneType, types.Omitted))
    if not alone and not isinstance(batch, types.Integer):
        raise TypingError(f"batch must be an int or None, got {batch}")
    make, is_model = _maker(w.states, w.dtype, not alone), w.is_model

    def new(w, batch):
        count = 1 if alone else batch
        if count < 0:
            raise ValueError("batch must be an int >= 0")
        states = make(numbers_of(w), count)
        return states if is_model else states[0]

    return new


@njit()
def init_state(w, batch=None):
    """Make a state as it begins, in plain arrays of the layer's layout.

    Parameters
    ----------
    w : Packed
        From `pack`.
    batch : int, optional
        B. Default: no axis for it.

    Returns
    -------
    array, tuple of arrays, or for a model a tuple of these
        h (L*D, R) or (L*D, B, R), for LSTM (h, c).

    Raises
    ------
    ValueError, TypingError
        For a batch that is no int from 0 on.
    """
    state = _new_state(w, batch)
    reset(w, state)
    return state


@njit()
def sigmoid(a):
    """Return 1 / (1 + e^-a) of a float32 or float64, with the bits of the kernels."""
    return sigmoid_of_one(a)


@njit()
def tanh(a):
    """Return tanh a of a float32 or float64, with the bits of the kernels."""
    return tanh_of_one(a)


def softmax(x: Any, out: Any) -> None:
    """Write the softmax of x (V,) to out (V,), which may be x; with the bits of a model's head.

    Raises
    ------
    ValueError
        For different lengths.
    TypingError
        For other arrays than of one dtype, float32 or float64, and in C order.
    """
    _check_order(x, out)
    _softmax(x, out)


@overload(softmax)
def _softmax_of(x, out):
    for name, given in (("x", x), ("out", out)):
        if not isinstance(given, types.Array) or given.ndim != 1 or given.layout != "C":
            raise TypingError(f"{name} must be an array (V,) in C order, got {given}: np.ascontiguousarray({name})")
        if given.dtype not in (types.float32, types.float64) or given.dtype != x.dtype:
            raise TypingError(f"{name} must be of float32 or float64, as the other, got {given.dtype}")
    if not out.mutable:
        raise TypingError("out is written: it must not be read-only")

    def write(x, out):
        if len(x) != len(out):
            raise ValueError("out must have the length of x")
        if len(x):
            activate(_SOFTMAX, data(x), data(out), len(x), pointer(data(x), stack(GROUP_BYTES)))

    return write


@njit()
def _softmax(x, out):
    softmax(x, out)
