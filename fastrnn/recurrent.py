"""Recurrent layers: one or more of the same cells in turn, in one direction or both."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy import empty, ndarray, zeros

from fastrnn import backends, checks, threads
from fastrnn.cells import variant
from fastrnn.own_cells import Cell, OwnCell, as_cell
from fastrnn.weighted import Array, Weighted
from fastrnn.weights import Sizes, frozen

if TYPE_CHECKING:
    from fastrnn.stream import LayerStream

__all__ = ["Recurrent"]


class Recurrent(Weighted):
    """Layers of any cell; the base of RNN, LSTM and GRU.

    Parameters
    ----------
    cell : Cell, or a kind of cell
        What each step computes: "rnn", "lstm", "gru", or what `fastrnn.cell` returns.
    input_size, hidden_size, num_layers, bias, batch_first, dtype, num_threads
        As for `RNN`. Weights have torch's names; own cells that are not recurrent have no ``weight_hh`` and
        ``bias_hh``, and parameters of cells are called ``u_l0`` or ``u_l0_reverse``, for u.
    proj_size : int
        Of LSTM, as there.
    direction : {"forward", "bidirectional"}
        "reverse" is not supported yet.
    backward_cell, merge, padding
        Not supported yet, but for their defaults.
    backend : str, optional
        As for `RNN`; own cells run on "numba", their default, and on "reference".

    Raises
    ------
    UnsupportedError
        For what is not supported.
    ValueError, TypeError
        For arguments that are not as above.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> layer = fastrnn.Recurrent("gru", 3, 4, direction="bidirectional").init(seed=0)
    >>> y, h = layer(np.ones((5, 3)))
    >>> y.shape, h.shape
    ((5, 8), (2, 4))
    """

    num_layers: int
    batch_first: bool
    dropout: float
    bidirectional: bool
    _cell: Cell | None = None  # of RNN, LSTM and GRU their arguments say it

    def __init__(
        self,
        cell: Any,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        *,
        proj_size: int = 0,
        direction: str = "forward",
        backward_cell: Any = None,
        merge: str | None = "concat",
        padding: str = "zero",
        dtype: Any = None,
        backend: str | None = None,
        num_threads: int | None = None,
    ) -> None:
        cell = as_cell(cell)
        proj_size = checks.projection(proj_size, checks.integer(hidden_size, "hidden_size", 1))
        if proj_size and cell.kind != "lstm":
            raise checks.not_yet(f"proj_size={proj_size} of a cell of kind {cell.kind!r}")
        checks.choice(direction, "direction", ("forward", "reverse", "bidirectional"))
        checks.choice(padding, "padding", ("zero", "hold"))
        if merge is not None:
            checks.choice(merge, "merge", ("concat", "sum", "mul", "ave"))
        if backward_cell is not None:
            backward_cell = as_cell(backward_cell)
        wanted = {"direction": direction, "backward_cell": backward_cell, "merge": merge, "padding": padding}
        known = {"direction": ("forward", "bidirectional"), "merge": ("concat",), "padding": ("zero",)}
        for name, value in wanted.items():
            if value not in known.get(name, (None,)):
                raise checks.not_yet(f"{name}={value!r}")
        is_own = isinstance(cell.kind, OwnCell)
        self._cell, self.proj_size, self.direction = cell, proj_size, direction
        name = cell.variant(proj_size)
        self._set_up(
            name,
            *(input_size, hidden_size, num_layers, bias, batch_first, 0.0, direction == "bidirectional", proj_size),
            activation=variant(name).activations[0],
            device=None,
            dtype=dtype,
            backend=backend or ("numba" if is_own else None),
            num_threads=num_threads,
        )
        if backend == "cython" and is_own:
            raise checks.own_cell(self)

    def _set_up(
        self,
        name: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int = 0,
        *,
        activation: str = "standard",
        **settings: Any,
    ) -> None:
        self.num_layers = checks.integer(num_layers, "num_layers", 1)
        self.batch_first = checks.flag(batch_first, "batch_first")
        self.dropout = checks.dropout(dropout)
        self.bidirectional = checks.flag(bidirectional, "bidirectional")
        sizes = Sizes(
            name,
            input_size=checks.integer(input_size, "input_size", 1),
            hidden_size=checks.integer(hidden_size, "hidden_size", 1),
            proj_size=proj_size,
            num_layers=self.num_layers,
            num_directions=1 + self.bidirectional,
            bias=checks.flag(bias, "bias"),
        )
        self._output_size = sizes.num_directions * (proj_size or sizes.hidden_size)
        super().__init__(sizes, activation, **settings)

    def _config(self) -> dict[str, Any]:
        config = super()._config()
        if self._cell is None:
            return config
        del config["dropout"], config["bidirectional"]  # not arguments of this class
        return {"cell": self._cell, **config}

    @classmethod
    def from_weights(cls, w_ih: Any, w_hh: Any = None, b_ih: Any = None, b_hh: Any = None, **config: Any) -> Self:
        """One layer in one direction from its matrices: see `RNN.from_weights`.

        Of ``Recurrent`` itself there are two arguments more: `cell`, and for own cells `parameters`, a mapping of their
        names to arrays (H,). Own cells that are not recurrent have no w_hh.
        """
        if "cell" not in config:
            return super().from_weights(w_ih, w_hh, b_ih, b_hh, **config)
        checks.read_off(config, ("input_size", "hidden_size", "num_layers", "bias", "direction", "proj_size"))
        cell = as_cell(config.pop("cell"))
        w_ih, parameters = checks.weight(w_ih, "w_ih"), config.pop("parameters", {})
        if w_ih.ndim != 2:
            raise ValueError(f"w_ih must be a matrix (G*H, I), got shape {w_ih.shape}")
        kind, has_bias = variant(cell.variant(0)), b_ih is not None or b_hh is not None
        rows = len(w_ih)
        make: Any = cls
        layer: Self = make(cell, w_ih.shape[1], max(1, rows // len(kind.gates)), bias=has_bias, **config)
        given = {"weight_ih": w_ih, "weight_hh": w_hh, "bias_ih": b_ih, "bias_hh": b_hh, **parameters}
        if has_bias:
            given |= {
                name: np.zeros(rows) for name in ("bias_ih", "bias_hh")[: 1 + kind.recurrent] if given[name] is None
            }
        return layer.load_state_dict({f"{name}_l0": array for name, array in given.items() if array is not None})

    @property
    def initial_state(self) -> Any:
        """A learned state that every call with ``hx=None`` starts from, for all rows alike; None means zeros.

        Set it to h, or (h, c) for LSTM: h (L*D, P or H), c (L*D, H). It is copied, saved and pickled with the layer.
        """
        initial = self._initial
        return initial if initial is None or len(initial) > 1 else initial[0]

    @initial_state.setter
    def initial_state(self, value: Any) -> None:
        if value is None:
            self._initial = None
            return
        pair = isinstance(value, tuple) or (len(self._state_sizes) > 1 and isinstance(value, list))
        parts = tuple(checks.weight(part, "initial_state") for part in (value if pair else (value,)))
        parts = tuple(p[:, 0] if p.ndim == 3 and p.shape[1] == 1 else p for p in parts)  # (L*D, 1, H), torch's habit
        found = checks.states(
            parts if pair else parts[0],
            (self._stacked,),
            self._state_sizes,
            self.dtype,
            "L*D, ",
            self._state_letters,
            "initial_state",
        )
        self._initial = tuple(frozen(array, self.dtype) for array in found)

    def __call__(self, x: Any, hx: Any = None, *, lengths: Any = None, out: Array | None = None) -> tuple[Array, Any]:
        """Run a batch of sequences.

        Parameters
        ----------
        x : (T, B, I) array_like
            Or (B, T, I) with ``batch_first``, or one sequence (T, I). Read in place where it is of the layer's dtype
            and its last axis is contiguous, else cast once.
        hx : array_like or pair of array_like, optional
            The initial states: h (L*D, B, P or H), for LSTM (h, c) with c (L*D, B, H); without B for one sequence.
            Never batch first. Default: `initial_state`, or zeros.
        lengths : (B,) array_like of int, optional
            Valid steps of each row, 0 to T in any order. Beyond them y is zero; states are those after the last of
            them.
        out : array, optional
            Receives y: of its shape and dtype, C-contiguous, overlapping no argument.

        Returns
        -------
        y : array
            Shape of x with O = D*(P or H) as last axis.
        hx : array or pair of arrays
            The final states, in the layout of the argument. All results are new arrays that share no memory.

        Raises
        ------
        ValueError
            For wrong shapes and values, and for a layer without weights.
        TypeError
            For arguments that are not real numbers, and for tensors that require grad.
        """
        run = self._runners.get(self.backend or backends.current()) or self._prepare()
        num_threads = self.num_threads or threads.count or threads.get_num_threads()
        given = (x, hx, lengths)
        dtype = self.dtype
        # The same check as checks.readable makes, without its calls: a step on a small layer takes a microsecond.
        if (
            type(x) is not ndarray
            or (x.dtype is not dtype and x.dtype != dtype)  # an unpickled array has a dtype of its own
            or not (flags := x.flags).c_contiguous
            or not flags.aligned
        ):
            x = checks.readable(x, "x", dtype)
        shape = x.shape
        ndim = len(shape)
        if not 2 <= ndim <= 3 or shape[-1] != self.input_size:
            symbols = ("B, T, I" if self.batch_first else "T, B, I", "T, I")
            raise checks.wrong_input(shape, symbols, self.input_size)
        if ndim == 2:
            x = x.reshape(shape[0], 1, shape[1])
        elif self.batch_first:
            x = x.transpose(1, 0, 2)
        steps, batch, _ = x.shape
        stacked = self._stacked
        if hx is None:
            state = self._start(batch)
        elif ndim == 3:
            state = self._given(hx, (stacked, batch), "L*D, B, ", batch)
        else:
            state = self._given(hx, (stacked,), "L*D, ", batch)
        if lengths is not None:
            lengths = checks.lengths(lengths, steps, batch, ndim == 3)
        size = self._output_size
        shape = (shape[0], shape[1], size) if ndim == 3 else (steps, size)
        blank = out is None and lengths is not None  # the system clears new memory, and no kernel has to
        if out is None:
            out = (zeros if blank else empty)(shape, dtype)
        else:
            checks.out(out, shape, dtype, given)
        y: Array = out
        if ndim == 2:
            y = out.reshape(steps, 1, size)
        elif self.batch_first:
            y = out.transpose(1, 0, 2)
        sizes = self._state_sizes
        h = empty((stacked, batch, sizes[0]), dtype)
        if len(sizes) == 1:
            run(x, state, lengths, y, (h,), num_threads, blank)
            return out, (h if ndim == 3 else h.reshape(stacked, sizes[0]))
        c = empty((stacked, batch, sizes[1]), dtype)
        run(x, state, lengths, y, (h, c), num_threads, blank)
        return out, ((h, c) if ndim == 3 else (h.reshape(stacked, sizes[0]), c.reshape(stacked, sizes[1])))

    def stream(self, batch_size: int | None = None, *, hx: Any = None) -> "LayerStream":
        """Make a `Stream`: the layer with a state that stays between calls, for inputs that come step by step.

        Parameters
        ----------
        batch_size : int, optional
            N, the number of streams that the object holds, each at its own point in time. Default: one, without an axis
            for it.
        hx : array_like or pair of array_like, optional
            Where the streams start: h (L, N, P or H), for LSTM (h, c) with c (L, N, H); (L, ..) without batch_size.
            Default: `initial_state`, or zeros, which is also what `Stream.reset` goes back to.

        Returns
        -------
        LayerStream
            With the weights, the initial state and the backend that the layer has now.

        Raises
        ------
        UnsupportedError
            For a bidirectional layer, whose backward direction starts at the end.
        ValueError, TypeError
            As for a call.

        Examples
        --------
        >>> import fastrnn
        >>> stream = fastrnn.GRU(2, 3).init().stream(batch_size=5)
        >>> stream.step([[1.0, 2.0]], rows=[4]).shape
        (1, 3)
        """
        from fastrnn import stream  # which depends on this module

        return stream.start(self, batch_size, hx)

    def trace(self, x: Any, hx: Any = None) -> list[dict[str, Array]]:
        """Every gate and state of every step, from the reference formulas: slow, for eyes.

        Parameters
        ----------
        x : (T, I) array_like
            One sequence.
        hx : array_like or pair of array_like, optional
            As for a call with one sequence.

        Returns
        -------
        list of dict
            For each layer and direction, index ``layer*D + direction``: gate or state name -> (T, H) array.
        """
        from fastrnn import reference

        plan = self._planned()
        x = checks.readable(x, "x", self.dtype)
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise checks.wrong_input(x.shape, ("T, I",), self.input_size)
        state = self._start(1) if hx is None else self._given(hx, (self._stacked,), "L*D, ", 1)
        return reference.trace(plan, x, state)

    def _warm_up(self) -> None:
        x = np.zeros((1, 1, self.input_size), self.dtype)
        self(x)
        self(x, lengths=[1])
