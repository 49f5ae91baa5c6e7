"""RNN, LSTM, GRU and their cells: torch.nn's constructors, shapes and names, on NumPy arrays."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import empty, ndarray

from fastrnn import backends, checks, threads
from fastrnn.cells import VARIANTS
from fastrnn.recurrent import Recurrent
from fastrnn.weighted import Weighted
from fastrnn.weights import Sizes, sizes_from_state_dict

if TYPE_CHECKING:
    from fastrnn.model import SequenceModel
    from fastrnn.seq2seq import Seq2Seq

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "from_state_dict", "warmup"]


class RNN(Recurrent):
    """Elman networks [1]_: ``h' = f(W_ih x + b_ih + W_hh h + b_hh)``.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L; each layer reads the output of the one before.
    nonlinearity : {"tanh", "relu", "sigmoid", "linear"}
        f.
    bias : bool
        False: no b_ih and b_hh.
    batch_first : bool
        x and y are (B, T, ..) instead of (T, B, ..); states never are.
    dropout : float
        Kept for repr; inference has none.
    bidirectional : bool
        D = 2: a second set of weights reads each sequence from its end; y holds both, concatenated.
    device : None or "cpu"
        For the sake of torch's signature.
    dtype : dtype or str, optional
        float32 (default) or float64, NumPy's or torch's name for it.
    backend : str, optional
        One of `available_backends` for this layer alone. Default: `use_backend`'s choice.
    num_threads : int, optional
        Threads for this layer. Default: automatic.

    References
    ----------
    .. [1] J. L. Elman, "Finding structure in time", Cognitive Science 14, 1990; in the form of ``torch.nn.RNN``.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.RNN(3, 4).init(seed=0)
    >>> y, h = layer(np.ones((5, 2, 3)))
    >>> y.shape, h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    _variant = "rnn"
    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.nonlinearity = checks.choice(nonlinearity, "nonlinearity", VARIANTS["rnn"].activations)
        self._set_up(
            "rnn",
            *(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional),
            activation=nonlinearity,
            device=device,
            dtype=dtype,
            backend=backend,
            num_threads=num_threads,
        )


class LSTM(Recurrent):
    """Long short-term memory [1]_ with forget gates [2]_, optionally with a projection of its output [3]_.

    ``i, f, o = s(W_ih x + b_ih + W_hh h + b_hh)``, ``g = tanh(..)`` alike, ``c' = f c + i g``, ``h' = o tanh(c')``, and
    with ``proj_size`` ``h' = W_hr (o tanh(c'))``; s is the sigmoid, the rows of the weights are in the order i f g o.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype, backend, num_threads
        As for `RNN`.
    proj_size : int
        P, less than hidden_size: the size of h; 0 for no projection.

    References
    ----------
    .. [1] S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997.
    .. [2] F. A. Gers, J. Schmidhuber, F. Cummins, "Learning to forget", Neural Computation 12, 2000.
    .. [3] H. Sak, A. Senior, F. Beaufays, "Long short-term memory based recurrent neural network architectures for
       large vocabulary speech recognition", 2014. All in the form of ``torch.nn.LSTM``.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.LSTM(3, 4, batch_first=True).init(seed=0)
    >>> y, (h, c) = layer(np.ones((2, 5, 3)), lengths=[5, 2])
    >>> y.shape, h.shape, c.shape
    ((2, 5, 4), (1, 2, 4), (1, 2, 4))
    """

    _variant = "lstm"
    proj_size: int

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.proj_size = checks.projection(proj_size, checks.integer(hidden_size, "hidden_size", 1))
        self._set_up(
            "lstm_proj" if self.proj_size else "lstm",
            *(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, self.proj_size),
            device=device,
            dtype=dtype,
            backend=backend,
            num_threads=num_threads,
        )


class GRU(Recurrent):
    """Gated recurrent units [1]_.

    ``r, z = s(W_ih x + b_ih + W_hh h + b_hh)``, ``n = tanh(W_in x + b_in + r (W_hn h + b_hn))``,
    ``h' = (1 - z) n + z h``; s is the sigmoid, the rows of the weights are in the order r z n.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype, backend, num_threads
        As for `RNN`.
    reset_after : bool
        False: ``n = tanh(W_in x + b_in + W_hn (r h) + b_hn)``, the form of the paper, of Keras with
        ``reset_after=False`` and of ONNX with ``linear_before_reset=0``; torch does not have it.

    References
    ----------
    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
       translation", 2014; in the form of ``torch.nn.GRU``.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.GRU(3, 4, bidirectional=True).init(seed=0)
    >>> y, h = layer(np.ones((5, 3)))
    >>> y.shape, h.shape
    ((5, 8), (2, 4))
    """

    _variant = "gru"
    reset_after: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        reset_after: bool = True,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.reset_after = checks.flag(reset_after, "reset_after")
        self._set_up(
            "gru" if self.reset_after else "gru_before",
            *(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional),
            device=device,
            dtype=dtype,
            backend=backend,
            num_threads=num_threads,
        )


class _Cell(Weighted):
    """The base of RNNCell, LSTMCell and GRUCell: one step of one layer."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> None:
        sizes = Sizes(
            self._variant,
            input_size=checks.integer(input_size, "input_size", 1),
            hidden_size=checks.integer(hidden_size, "hidden_size", 1),
            bias=checks.flag(bias, "bias"),
            cell=True,
        )
        activation = getattr(self, "nonlinearity", "standard")  # of RNNCell, which sets it first
        super().__init__(sizes, activation, dtype, device, backend, num_threads)

    def __call__(self, x: Any, hx: Any = None) -> Any:
        """Advance a batch of rows by one step.

        Parameters
        ----------
        x : (B, I) array_like
            Or one row (I,).
        hx : array_like or pair of array_like, optional
            h (B, H), for LSTMCell (h, c); (H,) for one row. Default: zeros.

        Returns
        -------
        array or pair of arrays
            h, or (h, c), in the layout of the argument; new arrays.

        Raises
        ------
        ValueError, TypeError
            As for the layers.
        """
        run = self._runners.get(self.backend or backends.current()) or self._prepare()
        num_threads = self.num_threads or threads.count or threads.get_num_threads()
        dtype = self.dtype
        if (
            type(x) is not ndarray
            or (x.dtype is not dtype and x.dtype != dtype)  # an unpickled array has a dtype of its own
            or not (flags := x.flags).c_contiguous
            or not flags.aligned
        ):
            x = checks.readable(x, "x", dtype)
        shape = x.shape
        if not 1 <= len(shape) <= 2 or shape[-1] != self.input_size:
            raise checks.wrong_input(shape, ("B, I", "I,"), self.input_size)
        batch = shape[0] if len(shape) == 2 else 1
        if hx is None:
            state = self._start(batch)
        else:
            state = self._given(hx, shape[:-1], "B, " * (len(shape) == 2), batch)
        layout, result = (1, batch, self.hidden_size), (*shape[:-1], self.hidden_size)
        x, y, h = x.reshape(1, batch, self.input_size), empty(layout, dtype), empty(layout, dtype)
        if len(state) == 1:
            run(x, state, None, y, (h,), num_threads)
            return h.reshape(result)
        c = empty(layout, dtype)
        run(x, state, None, y, (h, c), num_threads)
        return h.reshape(result), c.reshape(result)

    def _warm_up(self) -> None:
        self(np.zeros(self.input_size, self.dtype))


class RNNCell(_Cell):
    """One step of a one-layer `RNN`.

    Parameters
    ----------
    input_size, hidden_size, bias, nonlinearity, device, dtype, backend, num_threads
        As for `RNN`.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> cell = fastrnn.RNNCell(3, 4).init(seed=0)
    >>> cell(np.ones((2, 3))).shape
    (2, 4)
    """

    _variant = "rnn"
    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.nonlinearity = checks.choice(nonlinearity, "nonlinearity", VARIANTS["rnn"].activations)
        super().__init__(input_size, hidden_size, bias, device, dtype, backend=backend, num_threads=num_threads)


class LSTMCell(_Cell):
    """One step of a one-layer `LSTM`: ``cell(x, (h, c)) -> (h, c)``.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype, backend, num_threads
        As for `RNN`.
    """

    _variant = "lstm"


class GRUCell(_Cell):
    """One step of a one-layer `GRU` (reset after): ``cell(x, h) -> h``.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype, backend, num_threads
        As for `RNN`.
    """

    _variant = "gru"


def from_state_dict(tensors: Mapping[str, Any], prefix: str = "", **config: Any) -> Any:
    """Make a layer from torch's weights alone.

    Its kind, sizes, layers, directions, projection and bias are read off names and shapes.

    Parameters
    ----------
    tensors : mapping of str to array_like
        Such as ``module.state_dict()``, or what ``safetensors.numpy.load_file`` returns.
    prefix : str
        Only keys that start with it are looked at. A further prefix that all of them share is taken off.
    **config
        What names and shapes do not tell: ``nonlinearity``, ``reset_after``, ``batch_first``, ``dtype`` (default
        float32), ..

    Returns
    -------
    RNN, LSTM or GRU
        RNNCell, LSTMCell or GRUCell for names without ``_l0``.

    Raises
    ------
    ValueError
        Where names or shapes are no torch RNN, LSTM or GRU; all missing, unknown and misshapen keys are named.
    TypeError
        For weights that are not real numbers, and for arguments that are read off the weights.

    Examples
    --------
    >>> import fastrnn
    >>> weights = fastrnn.GRU(3, 4, num_layers=2, bidirectional=True).init().state_dict()
    >>> fastrnn.from_state_dict({"encoder." + key: w for key, w in weights.items()}, batch_first=True)
    GRU(3, 4, num_layers=2, batch_first=True, bidirectional=True)
    """
    checks.read_off(config, ("input_size", "hidden_size", "num_layers", "bias", "bidirectional", "proj_size"))
    arrays = checks.tensors(tensors, prefix)
    sizes = sizes_from_state_dict(arrays, prefix)
    if sizes.cell:
        kind: Any = {"rnn": RNNCell, "lstm": LSTMCell, "gru": GRUCell}[sizes.variant]
    else:
        kind = {"rnn": RNN, "lstm": LSTM, "lstm_proj": LSTM, "gru": GRU}[sizes.variant]
        config |= {"num_layers": sizes.num_layers, "bidirectional": sizes.num_directions == 2}
        config |= {"proj_size": sizes.proj_size} if sizes.proj_size else {}
    return kind(sizes.input_size, sizes.hidden_size, bias=sizes.bias, **config).load_state_dict(arrays, prefix)


def warmup(*models: "Weighted | SequenceModel | Seq2Seq") -> None:
    """Pack weights and compile kernels now instead of at the first call.

    Parameters
    ----------
    *models : layers, cells and models
        With weights, for the backend that each would run on. Without arguments: small float32 layers of each kind,
        which compiles what all float32 layers of the numba backend share.
    """
    for model in models or (RNN(1, 1).init(), LSTM(1, 1).init(), GRU(1, 1).init()):
        if not hasattr(model, "_warm_up"):
            raise TypeError(f"warmup takes layers, cells and models, got {type(model).__name__}")
        model._warm_up()
