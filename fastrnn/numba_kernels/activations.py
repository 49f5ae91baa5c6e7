"""sigma, tanh, relu, softmax's e^-d and ln, and the flush of tiny states: fixed sequences of operations, as in
src_kernels/activations.h and dense.h.

sigma and tanh start from e^y = s (1 + p), y = -x or 2x: n = rint(y log2 e), s = 2^n, f = x less n ln 2 in units of x,
p = f q(f). Clamps let NaN pass and keep every 2^n normal. Coefficients: src_kernels/coefficients.py.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from fastrnn import reference
from fastrnn.numba_kernels import coefficients
from fastrnn.numba_kernels.simd import Vector, lanewise
from fastrnn.numba_kernels.values import LANE, Value, broadcast

__all__ = [
    "activation",
    "candidate",
    "exp_minus",
    "flush",
    "gate",
    "log_reduced",
    "relu",
    "sigmoid",
    "sigmoid_of_one",
    "tanh",
    "tanh_of_one",
    "to_normal",
]

# By bits of a lane.
_Q_SIGMA = {32: coefficients.Q_SIGMA_F32, 64: coefficients.Q_SIGMA_F64}
_Q_TANH = {32: coefficients.Q_TANH_F32, 64: coefficients.Q_TANH_F64}
_Q_LOG = {32: coefficients.Q_LOG_F32, 64: coefficients.Q_LOG_F64}
_LN2 = {32: coefficients.LN2_F32, 64: coefficients.LN2_F64}
_MINUS_HALF_LN2 = {32: coefficients.MINUS_HALF_LN2_F32, 64: coefficients.MINUS_HALF_LN2_F64}
_MINUS_LOG2E = {32: coefficients.MINUS_LOG2E_F32, 64: coefficients.MINUS_LOG2E_F64}
_TWO_LOG2E = {32: coefficients.TWO_LOG2E_F32, 64: coefficients.TWO_LOG2E_F64}
_SIGMA_LIMIT = {32: coefficients.SIGMA_LIMIT_F32, 64: coefficients.SIGMA_LIMIT_F64}
_TANH_LIMIT = {32: 11.0, 64: 22.0}
_TANH_TINY = {32: 2.0**-125, 64: 2.0**-1021}
_STATE_TINY = {32: 2.0**-62, 64: 2.0**-510}
_LEAST_NORMAL = {32: 2.0**-126, 64: 2.0**-1022}


def _polynomial(x: Value, series: tuple[float, ...]) -> Value | float:
    *rest, last = series
    q: Value | float = last
    for c in reversed(rest):
        q = x.fma(q, c)
    return q


def _exp_parts(x: Value, log2e: float, ln2: float, series: tuple[float, ...]) -> tuple[Value, Value]:
    n, s = (x * log2e).rint_pow2()
    f = n.fma(ln2, x)
    return f * _polynomial(f, series), s


def _sigmoid(x: Value) -> Value:
    limit = _SIGMA_LIMIT[x.bits]
    inside = x.at_least(-limit).at_most(limit)
    p, s = _exp_parts(inside, _MINUS_LOG2E[x.bits], _LN2[x.bits], _Q_SIGMA[x.bits])
    t = 1.0 / (s.fma(p, s) + 1.0)
    return x.where("<", -limit, 0.0, t)  # there t would be denormal


def _tanh(x: Value) -> Value:
    a = abs(x)
    inside = a.at_most(_TANH_LIMIT[x.bits])
    p, s = _exp_parts(inside, _TWO_LOG2E[x.bits], _MINUS_HALF_LN2[x.bits], _Q_TANH[x.bits])
    m = s.fma(p, s - 1.0)
    # m / (m + 2) while that is small; above, 1 - 2 / (m + 2): rounding a large m + 2 would make the quotient step back
    t = s.where(">", 2.0, -2.0, m) / (m + 2.0) + s.where(">", 2.0, 1.0, 0.0)
    return a.where("<", _TANH_TINY[x.bits], 0.0, t).copysign(x)


def _exp_minus(d: Value) -> Value:
    limit = _SIGMA_LIMIT[d.bits]
    p, s = _exp_parts(d.at_most(limit), _MINUS_LOG2E[d.bits], _LN2[d.bits], _Q_SIGMA[d.bits])
    return d.where(">", limit, 0.0, s.fma(p, s))


def _log_reduced(f: Value, k: Value) -> Value:
    u = (f - 1.0) / (f + 1.0)
    square = u * u
    return k.fma(_LN2[f.bits], (u * square).fma(_polynomial(square, _Q_LOG[f.bits]), u + u))


def _to_normal(x: Value) -> Value:
    return x.where("<", _LEAST_NORMAL[x.bits], 0.0, x)


def _relu(x: Value) -> Value:
    return x.at_least(0.0)


def _flush(x: Value) -> Value:
    return abs(x).where("<", _STATE_TINY[x.bits], 0.0, x)


def _linear(x: Value) -> Value:
    return x


def _of_kind(functions: dict[str, Callable[[Value], Value]]) -> Any:
    """Make an intrinsic of a Kind and a vector that picks its function by the Kind's activation."""

    @intrinsic
    def picked(typingctx, kind, x):
        if not isinstance(x, Vector):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return functions[kind.activation](Value(builder, args[1])).value

        return x(kind, x), codegen

    return picked


def _of_one(function: Callable[[Value], Value]) -> Any:
    """Make an intrinsic of a single number."""

    @intrinsic
    def single(typingctx, a):
        if a not in (types.float32, types.float64):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            alone = broadcast(builder, args[0], ir.VectorType(args[0].type, 1))
            return builder.extract_element(function(Value(builder, alone)).value, LANE(0))

        return a(a), codegen

    return single


sigmoid = lanewise("sigmoid", _sigmoid, reference.sigmoid)
"""1 / (1 + e^-x)."""
sigmoid_of_one = _of_one(_sigmoid)
tanh_of_one = _of_one(_tanh)
tanh = lanewise("tanh", _tanh, np.tanh)
"""(e^2x - 1) / (e^2x + 1), from |x| so that it is odd to the bit."""
exp_minus = lanewise("exp_minus", _exp_minus)
"""e^-d for d >= 0, 0 where that is below e^-SIGMA_LIMIT."""
log_reduced = lanewise("log_reduced", _log_reduced)
"""ln(2^k f) for f in (sqrt(1/2), sqrt(2)], k >= 0: u = (f - 1) / (f + 1), ln f = 2u + u^3 q(u^2)."""
to_normal = lanewise("to_normal", _to_normal)
"""+0 for what is below the least normal number; NaN is kept."""
relu = lanewise("relu", _relu, reference.relu)
"""max(0, x); NaN passes."""
flush = lanewise("flush", _flush, reference.flush)
"""Replace a tiny state by +0; NaN is kept."""
activation = _of_kind({"tanh": _tanh, "relu": _relu, "sigmoid": _sigmoid, "linear": _linear})
"""f of a plain RNN, or of the numbers of a dense layer one by one."""
gate = _of_kind({"standard": _sigmoid, "linear": _linear})
"""sigma of an LSTM's or GRU's gate; the identity in the linear test mode."""
candidate = _of_kind({"standard": _tanh, "linear": _linear})
"""tanh of an LSTM or a GRU; the identity in the linear test mode."""
