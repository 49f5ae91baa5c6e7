"""Published cells beyond RNN, LSTM and GRU, each as `fastrnn.cell` has it, for ``fastrnn.Recurrent``. Needs Numba.

Each docstring has the equations of the paper and where its weights go. ``x`` and ``h`` are those of a step, s is the
sigmoid, products of vectors are unit by unit. Rows of ``weight_ih``, ``weight_hh`` and the biases are in the order of
`gates`; ``u_l0`` and the like are vectors (H,). What a paper leaves out, a bias or a matrix, is zero.

Examples
--------
>>> import numpy as np, fastrnn
>>> from fastrnn.more_cells import ind_rnn
>>> layer = fastrnn.Recurrent(ind_rnn, 3, 4, num_layers=2, backend="reference").init(seed=0)
>>> list(layer.state_dict())
['weight_ih_l0', 'bias_ih_l0', 'u_l0', 'weight_ih_l1', 'bias_ih_l1', 'u_l1']
>>> y, h = layer(np.ones((5, 3)))
>>> y.shape, h.shape
((5, 4), (2, 4))
"""

from typing import Any

from fastrnn import simd
from fastrnn.own_cells import cell

__all__ = ["fast_grnn", "ind_rnn", "li_gru", "min_gru", "min_gru_positive", "min_lstm", "min_lstm_positive", "sru"]


@cell(gates=("z", "n"), recurrent=False)
def min_gru(z: Any, n: Any, h: Any) -> Any:
    """The minimal GRU: ``z = s(W_z x + b_z)``, ``n = W_n x + b_n``, ``h' = (1 - z) h + z n`` [1]_.

    References
    ----------
    .. [1] Feng, Tung, Ahmed, Bengio, Hajimirsadeghi, "Were RNNs all we needed?", 2024, section 3.1.
    """
    z = simd.sigmoid(z)
    return simd.fma(z, n, simd.fma(-z, h, h))


@cell(gates=("z", "n"), recurrent=False)
def min_gru_positive(z: Any, n: Any, h: Any) -> Any:
    """The minimal GRU as it is trained in log space: ``n = g(W_n x + b_n)``, else as `min_gru` [1]_.

    ``g(a) = a + 1/2`` for ``a >= 0``, else ``s(a)``.

    References
    ----------
    .. [1] Feng, Tung, Ahmed, Bengio, Hajimirsadeghi, "Were RNNs all we needed?", 2024, appendix B.
    """
    n = simd.where_less(n, 0.0, simd.sigmoid(n), n + 0.5)
    z = simd.sigmoid(z)
    return simd.fma(z, n, simd.fma(-z, h, h))


@cell(gates=("f", "i", "n"), recurrent=False)
def min_lstm(f: Any, i: Any, n: Any, h: Any) -> Any:
    """The minimal LSTM [1]_.

    ``f, i = s(W x + b)``, ``n = W_n x + b_n``, ``h' = f / (f + i) h + i / (f + i) n``. Where f and i are both 0, h' is
    NaN.

    References
    ----------
    .. [1] Feng, Tung, Ahmed, Bengio, Hajimirsadeghi, "Were RNNs all we needed?", 2024, section 3.2.
    """
    f, i = simd.sigmoid(f), simd.sigmoid(i)
    total = f + i
    return simd.fma(f / total, h, i / total * n)


@cell(gates=("f", "i", "n"), recurrent=False)
def min_lstm_positive(f: Any, i: Any, n: Any, h: Any) -> Any:
    """The minimal LSTM as it is trained in log space: ``n = g(W_n x + b_n)`` as in `min_gru_positive` [1]_.

    References
    ----------
    .. [1] Feng, Tung, Ahmed, Bengio, Hajimirsadeghi, "Were RNNs all we needed?", 2024, appendix B.
    """
    n = simd.where_less(n, 0.0, simd.sigmoid(n), n + 0.5)
    f, i = simd.sigmoid(f), simd.sigmoid(i)
    total = f + i
    return simd.fma(f / total, h, i / total * n)


@cell(gates=("h_new",), parameters=("u",), recurrent=False)
def ind_rnn(h_new: Any, h: Any, u: Any) -> Any:
    """The independently recurrent network: ``h' = max(0, W x + u h + b)`` [1]_.

    References
    ----------
    .. [1] Li, Li, Cook, Zhu, Gao, "Independently recurrent neural network (IndRNN)", CVPR 2018, equation 2.
    """
    return simd.relu(simd.fma(u, h, h_new))


@cell(gates=("n", "f", "r", "p"), states=("h", "c"), parameters=("v_f", "v_r"), recurrent=False)
def sru(n: Any, f: Any, r: Any, p: Any, h: Any, c: Any, v_f: Any, v_r: Any) -> Any:
    """The simple recurrent unit [1]_.

    ``f = s(W_f x + v_f c + b_f)``, ``r = s(W_r x + v_r c + b_r)``, ``c' = f c + (1 - f) W x``,
    ``h' = r c' + (1 - r) x``. The last rows p are what takes x to the size of h: the identity where I = H, which leaves
    x as it is, or a matrix where they differ. h is not read; c is what goes from step to step.

    References
    ----------
    .. [1] Lei, Zhang, Wang, Dai, Artzi, "Simple recurrent units for highly parallelizable recurrence", EMNLP 2018,
       equations 1 to 4.
    """
    f, r = simd.sigmoid(simd.fma(v_f, c, f)), simd.sigmoid(simd.fma(v_r, c, r))
    c = simd.fma(f, c, simd.fma(-f, n, n))
    return simd.fma(r, c, simd.fma(-r, p, p)), c


@cell(gates=("a",), parameters=("b_z", "b_n", "zeta", "nu"))
def fast_grnn(a: Any, h: Any, b_z: Any, b_n: Any, zeta: Any, nu: Any) -> Any:
    """The FastGRNN, whose gates share their matrices [1]_.

    ``a = W x + U h``, ``z = s(a + b_z)``, ``n = tanh(a + b_n)``, ``h' = (zeta (1 - z) + nu) n + z h``. zeta and nu are
    numbers between 0 and 1, after the sigmoid that keeps them there in training: here vectors of H times the same.
    Matrices of low rank are multiplied out.

    References
    ----------
    .. [1] Kusupati, Singh, Bhatia, Kumar, Jain, Varma, "FastGRNN: a fast, accurate, stable and tiny kilobyte sized
       gated recurrent neural network", NeurIPS 2018, section 3.2.
    """
    z, n = simd.sigmoid(a + b_z), simd.tanh(a + b_n)
    return simd.fma(simd.fma(-zeta, z, zeta) + nu, n, z * h)


@cell(gates=("z", "n"))
def li_gru(z: Any, n: Any, h: Any) -> Any:
    """The light GRU: ``z = s(W_z x + U_z h)``, ``n = max(0, W_n x + U_n h)``, ``h' = z h + (1 - z) n`` [1]_.

    The batch normalisation of ``W x`` becomes part of the weights: with its mean m, variance v, scale g and shift d,
    rows of W are multiplied by ``g / sqrt(v + eps)``, and the bias is ``d - g m / sqrt(v + eps)``.

    References
    ----------
    .. [1] Ravanelli, Brakel, Omologo, Bengio, "Light gated recurrent units for speech recognition", IEEE Transactions
       on Emerging Topics in Computational Intelligence 2 (2018), equations 6 to 8.
    """
    z, n = simd.sigmoid(z), simd.relu(n)
    return simd.fma(z, h, simd.fma(-z, n, n))
