"""The LSTM: c' = sigma(f) c + sigma(i) tanh(g), h' = sigma(o) tanh(c'), with projection W_hr times that."""

from fastrnn.numba_kernels.activations import candidate, flush, gate
from fastrnn.numba_kernels.door import njit
from fastrnn.numba_kernels.phases import Phase
from fastrnn.numba_kernels.simd import fma, lanes, load, store, store_some

__all__ = ["LSTM", "LSTM_PROJ", "PROJECT", "lstm_gates", "lstm_proj_gates", "project_gates"]


@njit(forceinline=True)
def _output(kind, sums, cell):
    """Update c and return sigma(o) tanh(c')."""
    n = lanes(sums)
    i, f = gate(kind, load(sums, 0)), gate(kind, load(sums, n))
    g, o = candidate(kind, load(sums, 2 * n)), gate(kind, load(sums, 3 * n))
    c = flush(fma(f, load(cell, 0), i * g))
    store(cell, 0, c)
    return o * candidate(kind, c)


@njit()
def lstm_gates(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Finish one vector of units of one row."""
    store_some(new, flush(_output(kind, sums, cell)), count)


@njit()
def lstm_proj_gates(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Finish one vector of units of one row; what the projection takes is not flushed."""
    store_some(new, _output(kind, sums, cell), count)


@njit()
def project_gates(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Finish one vector of the projected state of one row."""
    store_some(new, flush(load(sums, 0)), count)


LSTM = Phase("lstm", lstm_gates, groups=1, gates=4)
LSTM_PROJ = Phase("lstm_proj", lstm_proj_gates, groups=1, gates=4)
PROJECT = Phase("project", project_gates, groups=4, gates=1, has_x=False)
