"""The table of cell variants: what every kernel, importer, test and document reads. `OWN` has those of users.

Orders of operations are written in the notation of the arithmetic contract: one rounding per operation,
``fma(a, b, c)`` is ``a*b + c`` with one rounding, ``flush`` stores a tiny state as +0, s is the sigmoid.
``acc(b; x, h)`` is ``acc = b``, then x times a row of W_ih is added, then h times a row of W_hh, each in runs of at
most `RUN` terms: ``run = +0``; ``run = fma(x[i], W_ih[row, i], run)`` for the next i in order; ``acc = acc + run``.
docs/arithmetic.md says why, and has the order of output layers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["ARITHMETIC", "GROUP_BYTES", "OWN", "RUN", "VARIANTS", "Phase", "Variant", "lanes", "variant"]

ARITHMETIC = 2  # the version of the contract that `Variant.order` writes down: the same number, the same bits
RUN = 128  # terms of a sum that are added up from +0 before they join it
GROUP_BYTES = 64  # a group is this many bytes of units: one AVX-512 register, two of AVX2, four of NEON


class Phase(NamedTuple):
    """One pass of a step over a set of packed blocks; where threads split a step, a barrier follows it."""

    name: str
    gates: tuple[int, ...]  # the rows (in torch's gate order) this phase computes; () where it multiplies by W_hr
    groups: int  # U: groups of units that share a block, so that U*G chains of fma hide each other's latency
    operand: str  # what w_h multiplies: "h" the state before the step, "r*h" rounded, "m" the output before projection


class Variant(NamedTuple):
    """A kind of cell."""

    name: str
    gates: tuple[str, ...]  # torch's order
    states: tuple[str, ...]
    activations: tuple[str, ...]  # accepted names, the default first
    apart: str | None  # the gate whose b_hh is kept apart from b_ih
    phases: tuple[Phase, ...]
    order: str  # the operations of a step
    # Of own cells alone, see own_cells.py:
    parameters: tuple[str, ...] = ()  # vectors (H,) beside the matrices
    recurrent: bool = True  # whether there is W_hh
    function: Callable[..., Any] | None = None  # (*gates, *states, *parameters) -> the new states

    def state_sizes(self, hidden_size: int, proj_size: int) -> tuple[int, ...]:
        """Last axis of each state: R for h, H for c."""
        return (proj_size or hidden_size, hidden_size)[: len(self.states)]


# "linear" replaces every s and tanh of LSTM and GRU by the identity: the test mode in which small integers are exact.
_GATED = ("standard", "linear")
_LSTM_GATES = ("i", "f", "g", "o")
_GRU_GATES = ("r", "z", "n")
_LSTM_PHASE = Phase("lstm", gates=(0, 1, 2, 3), groups=1, operand="h")
_LSTM_ORDER = """\
b = b_ih + b_hh
i, f, g, o = acc(b; x, h)
c' = flush(fma(s(f), c, s(i) * tanh(g)))
"""

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            "rnn",
            gates=("h",),
            states=("h",),
            activations=("tanh", "relu", "sigmoid", "linear"),
            apart=None,
            phases=(Phase("rnn", gates=(0,), groups=4, operand="h"),),
            order="""\
b = b_ih + b_hh
h' = flush(f(acc(b; x, h)))
""",
        ),
        Variant(
            "lstm",
            gates=_LSTM_GATES,
            states=("h", "c"),
            activations=_GATED,
            apart=None,
            phases=(_LSTM_PHASE,),
            order=_LSTM_ORDER + "h' = flush(s(o) * tanh(c'))\n",
        ),
        Variant(
            "lstm_proj",
            gates=_LSTM_GATES,
            states=("h", "c"),
            activations=_GATED,
            apart=None,
            phases=(_LSTM_PHASE, Phase("project", gates=(), groups=4, operand="m")),
            order=_LSTM_ORDER
            + """\
m = s(o) * tanh(c')
h'[p] = flush(acc(+0; m))  over W_hr[p]
""",
        ),
        Variant(
            "gru",
            gates=_GRU_GATES,
            states=("h",),
            activations=_GATED,
            apart="n",
            phases=(Phase("gru", gates=(0, 1, 2), groups=2, operand="h"),),
            order="""\
b = b_ih + b_hh for r and z
r, z = s(acc(b; x, h))
n_x = acc(b_in; x), n_h = acc(b_hn; h)
n = tanh(fma(r, n_h, n_x))
h' = flush(fma(z, h, fma(-z, n, n)))
""",
        ),
        Variant(
            "gru_before",
            gates=_GRU_GATES,
            states=("h",),
            activations=_GATED,
            apart=None,
            phases=(
                Phase("gru_reset", gates=(0, 1), groups=2, operand="h"),
                Phase("gru_new", gates=(2,), groups=4, operand="r*h"),
            ),
            order="""\
b = b_ih + b_hh
r, z = s(acc(b; x, h))
n = tanh(acc(b; x, r*h))  with each r[k]*h[k] rounded first
h' = flush(fma(z, h, fma(-z, n, n)))
""",
        ),
    )
}

OWN: dict[str, Variant] = {}
"""Kinds of cells that are defined elsewhere, by `own_cells.cell`."""


def variant(name: str) -> Variant:
    """Return the variant of a name, built in or not."""
    found = VARIANTS.get(name) or OWN.get(name)
    if found is None:
        raise LookupError(
            f"the kind of cell {name!r} is not defined in this process: import the module that defines it, as it was"
        )
    return found


def lanes(dtype: npt.DTypeLike) -> int:
    """Units per group: 16 for float32, 8 for float64."""
    return GROUP_BYTES // np.dtype(dtype).itemsize
