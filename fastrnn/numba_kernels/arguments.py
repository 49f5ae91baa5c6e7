"""What `fastrnn.jit` offers to compiled code: arguments are checked and turned into the numbers of a call."""

from functools import cache
from typing import Any

import numpy as np
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.core.extending import intrinsic

from fastrnn.numba_kernels.activations import sigmoid_of_one, tanh_of_one
from fastrnn.numba_kernels.calls import call, stack
from fastrnn.numba_kernels.chain import COUNT, IDS, OUT, STATES, TURN, X_STRIDE, X
from fastrnn.numba_kernels.dense import activate
from fastrnn.numba_kernels.door import attribute, njit, overload
from fastrnn.numba_kernels.inside import (
    CALL,
    COLUMN,
    FORWARD,
    INPUTS,
    IS_STATE,
    IS_X,
    IS_Y,
    NETWORK,
    OUTPUTS,
    PACKED,
    REFUSE,
    RESET,
    STEP_ROWS,
    STEPS,
    TIME,
)
from fastrnn.numba_kernels.kind import Kind
from fastrnn.numba_kernels.packed import PackedType, check_packed, floats, numbers_of, room
from fastrnn.numba_kernels.simd import GROUP_BYTES, INDEX, address, data, integers, itemsize, move, pointer

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


# Shapes: errors when it runs ------------------------------------------------------------------------------------------


@njit()
def _refuse(table, now, what, shape):
    """Raise what is wrong with a shape."""
    now[0], now[1] = what, len(shape)
    for i in range(len(shape)):
        now[2 + i] = shape[i]
    call(table[REFUSE], table, address(table), address(now))


@cache
def _locator(steps: bool, ids: bool, batch: bool) -> Any:
    """Make what puts down where an array x lies; its axes are those of time, of the batch, and I, if it has them."""
    last, axes = steps + batch, steps + batch + (not ids)
    stride = 1 + axes  # of the first axis, among the numbers of `_flat_strided`

    @njit(forceinline=True)
    def locate(like, table, now, x):
        unit = 8 if ids else itemsize(like)
        now[COLUMN], now[TIME], now[X_STRIDE], now[STEPS], now[COUNT] = 1, 0, 0, 1, 1
        if ids:
            now[IDS] = x[0]
        else:
            now[X], now[IDS] = x[0], 0
            if x[1 + last] != table[INPUTS]:
                _refuse(table, now, IS_X, x[1:stride])
            now[COLUMN] = x[stride + last] // unit
        if steps:
            now[TIME], now[STEPS] = x[stride] // unit, x[1]
        if batch:
            now[X_STRIDE], now[COUNT] = x[stride + last - 1] // unit, x[last]

    return locate


@njit(forceinline=True)
def _locate_id(like, table, now, x):
    """Put down a single id, and where."""
    now[TIME], now[IDS], now[X_STRIDE], now[STEPS], now[COUNT] = x[0], address(move(now, TIME)), 0, 1, 1


def _flattened(strided: bool) -> Any:
    @intrinsic
    def flat(typingctx, given):
        def leaves(kind: Any) -> list[Any]:
            return [leaf for part in kind for leaf in leaves(part)] if isinstance(kind, types.BaseTuple) else [kind]

        sizes = [1 + (1 + strided) * leaf.ndim if isinstance(leaf, types.Array) else 1 for leaf in leaves(given)]
        result = types.UniTuple(types.int64, sum(sizes))

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def values(kind: Any, value: Any) -> list[Any]:
                if isinstance(kind, types.BaseTuple):
                    parts = [values(part, builder.extract_value(value, i)) for i, part in enumerate(kind)]
                    return [number for part in parts for number in part]
                if not isinstance(kind, types.Array):
                    return [context.cast(builder, value, kind, types.int64)]
                array = context.make_array(kind)(context, builder, value)
                found = [builder.ptrtoint(array.data, INDEX), *cgutils.unpack_tuple(builder, array.shape, kind.ndim)]
                return found + strided * cgutils.unpack_tuple(builder, array.strides, kind.ndim)

            return context.make_tuple(builder, result, values(given, args[0]))

        return result(given), codegen

    return flat


_flat, _flat_strided = _flattened(False), _flattened(True)
"""For every array in nested tuples its address, its shape and, if wanted, its strides: a tuple of numbers.

Numba would count references to what it takes out of a tuple, for longer than it takes to compare a shape.
"""


@cache
def _states(counts: tuple[int, ...], batch: bool) -> Any:
    """Make what puts down where the states of recurrent parts lie, from the numbers of `_flat`."""
    places, each = [], 3 + batch  # numbers of an array
    for k, count in enumerate(counts):
        for i in range(count):
            places.append((PACKED + NETWORK * k, 1 + i, CALL + 2 * k + i, IS_STATE + 2 * k + i))
    put: Any = None
    for n in reversed(range(len(places))):
        put = _putter(*places[n], n * each, batch, put)
    return put


def _putter(part: int, size: int, place: int, what: int, at: int, batch: bool, after: Any) -> Any:
    """Make what puts down an array of a state, and those after it."""
    last = at + 2 + batch

    @njit(forceinline=True)
    def put(like, table, now, flat):
        wrong = flat[at + 1] != table[part] or flat[last] != table[part + size]
        if batch:
            if wrong or flat[at + 2] != now[COUNT]:
                _refuse(table, now, what, (flat[at + 1], flat[at + 2], flat[last]))
        elif wrong:
            _refuse(table, now, what, (flat[at + 1], flat[last]))
        now[place] = flat[at]
        if after is not None:
            after(like, table, now, flat)

    return put


def _call_step(w, x, state, y):
    """Take a step."""


def _call_forward(w, x, state, y):
    """Run whole sequences."""


@cache
def _caller(timed: bool, ids: bool, batch: bool, single: bool, states: tuple[int, ...]) -> Any:
    """Make what checks shapes, puts down the numbers of a call and calls."""
    locate = _locate_id if single else _locator(timed, ids, batch)
    put, last, function = _states(states, batch), 1 + timed + batch, FORWARD if timed else STEP_ROWS

    @njit()
    def check_and_call(like, table, place, x, state, y):
        now = integers(place)
        locate(like, table, now, x)
        wrong = y[last] != table[OUTPUTS]
        if timed:
            wrong = wrong or y[1] != now[STEPS]
        if batch:
            wrong = wrong or y[last - 1] != now[COUNT]
        if wrong:
            _refuse(table, now, IS_Y, y[1:])
        put(like, table, now, state)
        now[OUT], now[STATES], now[TURN] = y[0], address(move(now, CALL)), 0
        call(table[function], like, address(table), place)

    return check_and_call


def _called(timed: bool, w: Any, x: Any, state: Any, y: Any) -> Any:
    batch = bool(_axes_of_x(w, x, timed))
    _array(y, w, "y", timed + batch + 1)
    _state(w, state, 2 + batch)
    check_and_call = _caller(timed, _ids(w, x), batch, not isinstance(x, types.Array), w.states)

    def run(w, x, state, y):
        check_and_call(floats(w), numbers_of(w), room(w), _flat_strided(x), _flat(state), _flat(y))

    return run


@overload(_call_step)
def _step_called(w, x, state, y):
    return _called(False, w, x, state, y)


@overload(_call_forward)
def _forward_called(w, x, state, y):
    return _called(True, w, x, state, y)


def _only_states(w, like, table, now, state):
    """Put down where states lie."""


@overload(_only_states)
def _only_states_put(w, like, table, now, state):
    check_packed(w)
    first = state[0] if w.is_model and isinstance(state, types.BaseTuple) and len(state) else state
    first = first[0] if isinstance(first, types.BaseTuple) and len(first) else first
    batch = getattr(first, "ndim", 2) == 3
    _state(w, state, 2 + batch)
    put = _states(w.states, batch)

    def fill(w, like, table, now, state):
        now[COUNT] = 1
        if batch:
            now[COUNT] = _flat(state)[2]
        put(like, table, now, _flat(state))
        now[STATES] = address(move(now, CALL))

    return fill


@attribute(PackedType, "input_size")
def _input_size(w):
    return lambda w: numbers_of(w)[INPUTS]


@attribute(PackedType, "output_size")
def _output_size(w):
    return lambda w: numbers_of(w)[OUTPUTS]


# What is public -------------------------------------------------------------------------------------------------------


@njit(forceinline=True)
def step(w, x, state, y):
    """Advance by one time step; allocates nothing.

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
    _call_step(w, x, state, y)


@njit()
def forward(w, x, state, y):
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
    _call_forward(w, x, state, y)


@njit()
def reset(w, state):
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
    table, now, like = numbers_of(w), integers(room(w)), floats(w)
    _only_states(w, like, table, now, state)
    call(table[RESET], like, address(table), address(now))


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
    make, is_model = _maker(w.states, w.dtype, not alone), w.is_model

    def new(w, batch):
        table = numbers_of(w)
        states = make(table, 1 if alone else batch)
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


def _check_softmax(x, out):
    """Refuse other arrays than softmax takes."""


@overload(_check_softmax)
def _softmax_checked(x, out):
    for name, given in (("x", x), ("out", out)):
        if not isinstance(given, types.Array) or given.ndim != 1 or given.layout != "C":
            raise TypingError(f"{name} must be an array (V,) in C order, got {given}: np.ascontiguousarray({name})")
        if given.dtype not in (types.float32, types.float64) or given.dtype != x.dtype:
            raise TypingError(f"{name} must be of float32 or float64, as the other, got {given.dtype}")
    if not out.mutable:
        raise TypingError("out is written: it must not be read-only")
    return lambda x, out: None


@njit()
def softmax(x, out):
    """Write the softmax of x (V,) to out (V,), which may be x; with the bits of a model's head.

    Raises
    ------
    ValueError
        For different lengths.
    TypingError
        For other arrays than of one dtype, float32 or float64, and in C order.
    """
    _check_softmax(x, out)
    if len(x) != len(out):
        raise ValueError("out must have the length of x")
    if len(x):
        activate(_SOFTMAX, data(x), data(out), len(x), pointer(data(x), stack(GROUP_BYTES)))
