"""The LSTM: c' = sigma(f) c + sigma(i) tanh(g), h' = sigma(o) tanh(c'), with projection W_hr times that."""

from fastrnn.cells import VARIANTS
from fastrnn.numba_kernels.activations import candidate, flush, gate
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.phases import Phase
from fastrnn.numba_kernels.simd import fma, lanes, load, store, store_some

__all__ = ["LSTM", "LSTM_PROJ", "PROJECT", "lstm_gates", "lstm_proj_state", "lstm_state", "project_state"]


def lstm_gates(kind, sums):
    """Turn one vector of sums of each gate into i, f, g and o."""
    n = lanes(sums)
    store(sums, 0, gate(kind, load(sums, 0)))
    store(sums, n, gate(kind, load(sums, n)))
    store(sums, 2 * n, candidate(kind, load(sums, 2 * n)))
    store(sums, 3 * n, gate(kind, load(sums, 3 * n)))


@njit(forceinline=True)
def _output(kind, gates, cell):
    """Update c and return o tanh(c')."""
    n = lanes(gates)
    c = flush(fma(load(gates, n), load(cell, 0), load(gates, 0) * load(gates, 2 * n)))
    store(cell, 0, c)
    return load(gates, 3 * n) * candidate(kind, c)


def lstm_state(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Finish one vector of units of one row."""
    store_some(new, flush(_output(kind, sums, cell)), count)


def lstm_proj_state(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Finish one vector of units of one row; what the projection takes is not flushed."""
    store_some(new, _output(kind, sums, cell), count)


def project_state(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Finish one vector of the projected state of one row."""
    store_some(new, flush(load(sums, 0)), count)


LSTM = Phase(VARIANTS["lstm"], 0, lstm_state, lstm_gates)
LSTM_PROJ = Phase(VARIANTS["lstm_proj"], 0, lstm_proj_state, lstm_gates)
PROJECT = Phase(VARIANTS["lstm_proj"], 1, project_state)
