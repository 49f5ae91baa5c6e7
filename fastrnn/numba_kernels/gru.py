"""The GRU: h' = z h + (1 - z) n, exact at z = 0 and z = 1; r acts after or before the product with W_hn."""

from fastrnn.cells import VARIANTS
from fastrnn.numba_kernels.activations import candidate, flush, gate
from fastrnn.numba_kernels.phases import Phase
from fastrnn.numba_kernels.simd import fma, lanes, load, load_some, store, store_some

__all__ = ["GRU", "GRU_NEW", "GRU_RESET", "gru_gates", "gru_new_state", "gru_reset_state", "gru_state"]


def gru_gates(kind, sums):
    """Turn one vector of sums of each gate into r and z; n waits for r."""
    m = lanes(sums)
    store(sums, 0, gate(kind, load(sums, 0)))
    store(sums, m, gate(kind, load(sums, m)))


def gru_state(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Finish one vector of units of one row: n_x is among the sums over x, n_h among those over h."""
    m = lanes(sums)
    r, z = load(sums, 0), load(sums, m)
    n = candidate(kind, fma(r, load(sums, 2 * m), load(x_sums, 2 * m)))
    store_some(new, flush(fma(z, load_some(old, count), fma(-z, n, n))), count)


def gru_reset_state(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Finish r and z of one vector of one row: z is kept, r*h is what W_hn multiplies."""
    r, z = load(sums, 0), load(sums, lanes(sums))
    store(cell, 0, z)
    store_some(new, r * load_some(old, count), count)


def gru_new_state(kind, sums, x_sums, cell, old, new, own, stride, count):
    """Finish n and h' of one vector of one row."""
    n, z = candidate(kind, load(sums, 0)), load(cell, 0)
    store_some(new, flush(fma(z, load_some(old, count), fma(-z, n, n))), count)


GRU = Phase(VARIANTS["gru"], 0, gru_state, gru_gates)
GRU_RESET = Phase(VARIANTS["gru_before"], 0, gru_reset_state, gru_gates)
GRU_NEW = Phase(VARIANTS["gru_before"], 1, gru_new_state)
