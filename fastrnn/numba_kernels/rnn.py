"""The plain RNN: h' = f(acc)."""

from fastrnn.cells import VARIANTS
from fastrnn.numba_kernels.activations import activation, flush
from fastrnn.numba_kernels.phases import Phase
from fastrnn.numba_kernels.simd import load, store_some

__all__ = ["RNN", "rnn_state"]


def rnn_state(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Finish one vector of units of one row."""
    store_some(new, flush(activation(kind, load(sums, 0))), count)


RNN = Phase(VARIANTS["rnn"], 0, rnn_state)
