"""Whole networks: an embedding, recurrent and dense layers, output layers, and how sequences become results."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastrnn import checks, model_checks
from fastrnn.dense import Dense, DenseLayer, make_chain, make_layer
from fastrnn.generate import Writing
from fastrnn.many import ManySequences
from fastrnn.recurrent import Recurrent
from fastrnn.vocabulary import Vocabulary
from fastrnn.weighted import Array, Saved
from fastrnn.weights import frozen
from fastrnn.wiring import (
    ByIds,
    Chain,
    Stage,
    States,
    divided,
    layout,
    over_rows,
    over_steps,
    pooled,
    rows_of_ids,
    stage,
    through,
)

if TYPE_CHECKING:
    from fastrnn.model_stream import ModelStream

__all__ = ["SequenceModel"]

WIRINGS = ("many_to_many", "many_to_one")
POOLS = ("final", "last", "mean", "max")
FEEDS = ("first", "every", "output")


class SequenceModel(Saved, Writing, ManySequences):
    """A network from ids or vectors to one result for each step, or one for each sequence.

    Parameters
    ----------
    layers : RNN, LSTM, GRU, Recurrent, or a list of them and Dense
        Each fed by the one before. The recurrent layers are kept, not copied: weights loaded into them later are the
        model's. At least one of them; all of one dtype, to which everything else is cast.
    embedding : None, "one_hot", (vocab, I) array_like or torch.nn.Embedding
        None: the model takes vectors. A matrix: it takes ids, whose rows the first layer reads. "one_hot": it takes
        ids, and the first layer reads a vector that is 1 at the id and 0 elsewhere.
    head : Dense, tuple as Dense takes it, object with .weight and .bias, or a list of these; optional
        The output layers, after the pool in many-to-one. A tuple is (weight,), (weight, bias) or (weight, bias,
        activation).
    wiring : {"many_to_many", "many_to_one"}
        A result for each step, or one for each sequence.
    pool : {"final", "last", "mean", "max"}
        What stands for a sequence in many-to-one. "final": the final h of each direction of the last recurrent layer,
        concatenated; Dense layers after that layer are applied to it. "last": what `layers` give at the last valid
        step, as in torch's ``out[:, -1]``. "mean", "max": over what they give at all valid steps. The mean adds the
        steps in order of time, in the model's dtype. A sequence of length 0 has its initial state as "final", and
        zeros, before the head, otherwise.
    vocabulary : Vocabulary, optional
        What ids stand for; it has as many tokens as the embedding has rows.
    labels : sequence of str, optional
        What the V numbers stand for.

    Attributes
    ----------
    layers : tuple
        The layers as given, a `Dense` as what runs it.
    embedding : None, "one_hot" or (vocab, I) array
    head : tuple
        The output layers.
    wiring, pool, vocabulary, labels
        As given. None of the attributes can be set or deleted, and all are saved with the model.
    table_bytes : int
        What a recurrent first layer takes, from its first call with ids on, for a table of ``b + W_ih e``, the part of
        its sums that only depends on the id: as much as W_ih for "one_hot", at most 64 MB for a matrix, else 0.

    Raises
    ------
    ValueError
        For parts that do not fit each other; the message names both.
    TypeError
        For what is no layer, and for weights that are not real numbers.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> encoder = fastrnn.LSTM(8, 16, bidirectional=True).init(seed=0)
    >>> rng = np.random.default_rng(0)
    >>> head = fastrnn.Dense(rng.normal(size=(3, 32)), np.zeros(3), "softmax")
    >>> model = fastrnn.SequenceModel(encoder, embedding=rng.normal(size=(50, 8)), head=head, wiring="many_to_one")
    >>> model
    SequenceModel(embedding (50, 8) -> LSTM(8, 16, bidirectional=True) -> 'final' -> Dense(32, 3, 'softmax'))
    >>> model.predict([[4, 8, 15, 16], [23, 42, 0, 0]], lengths=[4, 2]).shape
    (2, 3)
    """

    layers: tuple[Recurrent | DenseLayer, ...]
    embedding: Array | Literal["one_hot"] | None
    head: Chain
    wiring: str
    pool: str
    vocabulary: Vocabulary | None
    labels: tuple[str, ...] | None
    _dtype: np.dtype[Any]
    _input_size: int  # I, of vectors
    _output_size: int  # V
    _recurrent: tuple[tuple[Chain, Recurrent], ...]  # each with the dense layers between it and the one before
    _tail: Chain  # the dense layers after the last of them
    _vocab: int | None  # how many ids there are
    _by_ids: ByIds | None  # the first layer on ids, where it is a recurrent one

    def __init__(
        self,
        layers: Any,
        *,
        embedding: Any = None,
        head: Any = None,
        wiring: str = "many_to_many",
        pool: str = "final",
        vocabulary: Vocabulary | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        parts = list(layers) if isinstance(layers, (list, tuple)) and not isinstance(layers, Dense) else [layers]
        for i, part in enumerate(parts):
            if not isinstance(part, (Recurrent, Dense, DenseLayer)):
                raise model_checks.not_a_layer(part, f"layers[{i}]")
        dtype = model_checks.one_dtype(
            [(f"layers[{i}] = {part!r}", part.dtype) for i, part in enumerate(parts) if isinstance(part, Recurrent)]
        )
        kept = tuple(
            part if isinstance(part, Recurrent) else make_layer(part, dtype, f"layers[{i}]")
            for i, part in enumerate(parts)
        )
        if vocabulary is not None:
            model_checks.instance(vocabulary, Vocabulary, "vocabulary")
        matrix = model_checks.embedding(embedding)
        if isinstance(matrix, np.ndarray):
            matrix = frozen(matrix, dtype)
        recurrent, tail = divided(kept)
        self.__dict__.update(
            layers=kept,
            embedding=matrix,
            head=make_chain(head, dtype, "head"),
            wiring=checks.choice(wiring, "wiring", WIRINGS),
            pool=checks.choice(pool, "pool", POOLS),
            vocabulary=vocabulary,
            _dtype=dtype,
            _input_size=kept[0].input_size,
            _recurrent=recurrent,
            _tail=tail,
            _by_ids=None if matrix is None or isinstance(kept[0], DenseLayer) else ByIds(kept[0], matrix),
        )
        self.__dict__["_vocab"] = self._fit()
        self.__dict__["_output_size"] = (*self.layers, *self.head)[-1]._output_size
        self.__dict__["labels"] = None if labels is None else model_checks.labels(labels, self._output_size)

    def _fit(self) -> int | None:
        """Check the sizes from part to part; returns how many ids there are."""
        first, vocab, given = self.layers[0], None, None
        if isinstance(self.embedding, np.ndarray):
            vocab, given = len(self.embedding), ("embedding", self.embedding.shape[1])
            if self.vocabulary is not None:
                model_checks.vocabulary_size(len(self.vocabulary), vocab)
        elif self.embedding is not None:
            vocab = first.input_size if self.vocabulary is None else len(self.vocabulary)
            given = ("embedding='one_hot'", vocab)
        names = [f"layers[{i}] = {layer!r}" for i, layer in enumerate(self.layers)]
        names += [f"head[{i}] = {layer!r}" for i, layer in enumerate(self.head)]
        for name, layer in zip(names, (*self.layers, *self.head), strict=True):
            if given is not None:
                transposed = layer._output_size if isinstance(layer, DenseLayer) else None
                model_checks.chain(*given, name, layer.input_size, transposed, vocab)
            given = (name, layer._output_size)
        return vocab

    def __setattr__(self, name: str, value: Any) -> None:
        raise model_checks.fixed(self, name)

    def __delattr__(self, name: str) -> None:
        raise model_checks.fixed(self, name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.embedding, np.ndarray):
            self.embedding.flags.writeable = False  # which pickles do not keep

    def __repr__(self) -> str:
        chain = [*map(repr, self.layers), *map(repr, self.head)]
        if self.wiring == "many_to_one":
            chain.insert(len(self.layers), repr(self.pool))
        if self.embedding is not None:
            size = self._vocab if isinstance(self.embedding, str) else self.embedding.shape
            chain.insert(0, f"one_hot {size}" if isinstance(self.embedding, str) else f"embedding {size}")
        return f"SequenceModel({' -> '.join(chain)})"

    # Calls ------------------------------------------------------------------------------------------------------------

    def predict(
        self,
        x: Any,
        *,
        lengths: Any = None,
        state: Any = None,
        return_state: bool = False,
        wiring: str | None = None,
        pool: str | None = None,
        out: Array | None = None,
    ) -> Any:
        """Run a batch of sequences.

        Parameters
        ----------
        x : (B, T) array_like of int, or (B, T, I) array_like of float
            Ids, or vectors, which pass the embedding by; (T,) or (T, I) for one sequence. With an embedding the kind of
            the dtype tells them apart: integers are ids, in 0..vocab-1, floats are vectors. Without one all are
            vectors. Whatever `batch_first` the layers have, a model takes and gives the batch first.
        lengths : (B,) array_like of int, optional
            Valid steps of each row, 0 to T in any order; one int for one sequence. Beyond them the result is zero.
        state : list, optional
            One hx for each recurrent layer, in that layer's layout: h (L*D, B, P or H), for LSTM (h, c) with c
            (L*D, B, H); without B for one sequence. None, in the list or for it: the layer's initial state.
        return_state : bool
            Return the final states too.
        wiring, pool : str, optional
            Instead of the model's own, for this call.
        out : array, optional
            Receives y: of its shape and dtype, C-contiguous, overlapping no argument.

        Returns
        -------
        y : (B, T, V) array
            Many-to-one: (B, V). Without B for one sequence. `out`, or a new array each time.
        state : list
            With `return_state`: the final states, in the layout of the argument.

        Raises
        ------
        ValueError
            For wrong shapes and values, ids out of range, and layers without weights.
        TypeError
            For arguments that are not real numbers, for tensors that require grad, and for bools as ids.

        Examples
        --------
        >>> import fastrnn
        >>> model = fastrnn.SequenceModel(fastrnn.GRU(4, 5).init(), embedding="one_hot")
        >>> y, (h,) = model.predict([0, 3, 2], return_state=True)
        >>> y.shape, h.shape
        ((3, 5), (1, 5))
        >>> model.predict([0, 3, 2], wiring="many_to_one", pool="mean").shape
        (5,)
        """
        wiring, pool = self._wiring(wiring, pool)
        to_one = wiring == "many_to_one"
        return_state = checks.flag(return_state, "return_state")
        given = (x, lengths)
        x, batched = self._read(x, "B, T")
        batch, steps = x.shape[:2]
        states = self._given(state, batch, batched)
        if lengths is not None:
            lengths = checks.lengths(lengths, steps, batch, batched)
        shape = (batch, self._output_size) if to_one else (batch, steps, self._output_size)
        out = self._result(out, shape if batched else shape[1:], state, given, ("x", "lengths"))
        result = out if batched else out[None]
        if to_one:
            finals = self._to_one(self._readable(x), lengths, states, result, pool)
        else:
            finals = self._to_many(self._readable(x), lengths, states, result)
        return (out, layout(finals, batched)) if return_state else out

    def unroll(
        self,
        x: Any,
        steps: int,
        *,
        feed: str = "first",
        state: Any = None,
        return_state: bool = False,
        out: Array | None = None,
    ) -> Any:
        """Make a sequence of one vector: one-to-many.

        Parameters
        ----------
        x : (B, I) array_like of float, or (B,) array_like of int
            Vectors, or ids, which the embedding turns into vectors; (I,) or one int for one sequence.
        steps : int
            T.
        feed : {"first", "every", "output"}
            What the steps read, in a layer ``h_t = f(U x_t + W h_{t-1} + b)``. "first": ``x_1 = x``, then zeros, so
            that ``h_t = f(W h_{t-1} + b)``. "every": ``x_t = x``. They are not equivalent: with "every" U x is added at
            each step. "output": ``x_1 = x``, then ``x_t = y_{t-1}``, what the model gave, for models with V = I.
        state, return_state, out
            As for `predict`.

        Returns
        -------
        y : (B, T, V) array
            (T, V) for one sequence. `out`, or a new array each time.
        state : list
            With `return_state`: the final states.

        Raises
        ------
        ValueError, TypeError
            As for `predict`, and for "output" with V other than I.
        UnsupportedError
            For "output" with a bidirectional layer, whose backward direction starts at the end.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> model = fastrnn.SequenceModel(fastrnn.RNN(2, 2).init(seed=0))
        >>> first = model.unroll(np.ones(2), 3)
        >>> every = model.unroll(np.ones(2), 3, feed="every")
        >>> (first == every).all(axis=1)
        array([ True, False, False])
        """
        checks.choice(feed, "feed", FEEDS)
        steps = checks.integer(steps, "steps", 0)
        if feed == "output" and self._output_size != self._input_size:
            raise model_checks.no_feedback(self._output_size, self._input_size)
        if feed == "output":
            checks.forward_only([layer for _, layer in self._recurrent], "feed='output'", "pass feed='every'")
        return_state = checks.flag(return_state, "return_state")
        given = (x,)
        x, batched = self._read(x, "B")
        states = self._given(state, len(x), batched)
        shape = (len(x), steps, self._output_size)
        out = self._result(out, shape if batched else shape[1:], state, given, ("x",))
        result = out if batched else out[None]
        now = self._vectors(x)
        if feed == "output":
            finals = self._feed_back(now, states, result)
        else:
            inputs = np.broadcast_to(now[:, None], (len(x), steps, self._input_size))
            if feed == "first":
                inputs = np.zeros(inputs.shape, self._dtype)
                inputs[:, :1] = now[:, None]
            finals = self._to_many(inputs, None, states, result)
        return (out, layout(finals, batched)) if return_state else out

    def stream(self, batch_size: int | None = None, *, state: Any = None) -> "ModelStream":
        """Make a stream: the model with a state that stays between calls, for inputs that come step by step.

        Parameters
        ----------
        batch_size : int, optional
            N, the number of streams that the object holds, each at its own point in time. Default: one, without an axis
            for it.
        state : list, optional
            Where the streams start: one hx for each recurrent layer, h (L, N, P or H), for LSTM (h, c) with c
            (L, N, H); (L, ..) without batch_size. Default: the layers' initial states, which is also what
            `ModelStream.reset` goes back to.

        Returns
        -------
        ModelStream
            With the weights, the initial states and the backends that the layers have now.

        Raises
        ------
        UnsupportedError
            For a bidirectional layer, whose backward direction starts at the end.
        ValueError, TypeError
            As for `predict`.

        Examples
        --------
        >>> import fastrnn
        >>> stream = fastrnn.SequenceModel(fastrnn.GRU(4, 5).init(), embedding="one_hot").stream(batch_size=2)
        >>> stream.step([3, 0]).shape
        (2, 5)
        """
        from fastrnn import model_stream  # which depends on this module

        return model_stream.start(self, batch_size, state)

    def _wiring(self, wiring: Any, pool: Any) -> tuple[str, str]:
        """Return what a call says, or else what the model has."""
        wiring = checks.choice(self.wiring if wiring is None else wiring, "wiring", WIRINGS)
        if pool is not None and wiring == "many_to_many":
            raise model_checks.pool_without_use()
        return wiring, checks.choice(self.pool if pool is None else pool, "pool", POOLS)

    @property
    def table_bytes(self) -> int:
        """Memory of the first layer's tables for ids, from its first call with ids on."""
        return 0 if self._by_ids is None else self._by_ids.table_bytes

    # What goes in and comes out ---------------------------------------------------------------------------------------

    def _ids_or_vectors(self, x: Any) -> Array:
        """Read x as int64 ids that are in range, or as vectors of the model's dtype."""
        cure = "pass numbers" if self.vocabulary is None else "pass model.vocabulary.encode(text)"
        found = checks.array(x, "x", cure)
        # No vector has a last axis of 0: that is what np.asarray([]) makes of an empty list of ids.
        none = found.size == 0 and found.shape[-1:] == (0,)
        if self._vocab is not None and (found.dtype.kind in "iub" or none):
            return model_checks.ids(found, self._vocab)
        return checks.readable(found, "x", self._dtype)

    def _read(self, x: Any, axes: str) -> tuple[Array, bool]:
        """Read x with these axes, or without B, as batched; tells whether it was."""
        found = self._ids_or_vectors(x)
        of_ids = found.dtype.kind == "i"
        ndim = len(axes.split(", ")) + (not of_ids)
        if found.ndim not in (ndim - 1, ndim) or not (of_ids or found.shape[-1] == self._input_size):
            raise model_checks.wrong_input(found.shape, of_ids, (axes, axes[3:]), self._input_size, self._vocab)
        return (found, True) if found.ndim == ndim else (found[None], False)

    def _given(self, state: Any, batch: int, batched: bool, name: str = "state") -> list[States]:
        """Read the states of all layers, or the initial ones."""
        if state is None:
            return [layer._start(batch) for _, layer in self._recurrent]
        given = model_checks.states(state, len(self._recurrent), name)
        axes, letters = ((batch,), "L*D, B, ") if batched else ((), "L*D, ")
        return [
            layer._start(batch)
            if hx is None
            else layer._given(hx, (layer._stacked, *axes), letters, batch, f"{name}[{i}]")
            for i, ((_, layer), hx) in enumerate(zip(self._recurrent, given, strict=True))
        ]

    def _result(
        self, out: Array | None, shape: tuple[int, ...], state: Any, given: Sequence[Any], names: Sequence[str]
    ) -> Array:
        """Return where a result goes, which is none of the arguments."""
        if out is None:
            return np.empty(shape, self._dtype)
        arrays = [part for hx in state or () for part in (hx if isinstance(hx, (tuple, list)) else (hx,))]
        return checks.out(out, shape, self._dtype, (arrays, *given), ("state", *names))

    def _vectors(self, x: Array) -> Array:
        """Return what x stands for."""
        return rows_of_ids(self.embedding, self._vocab or 0, self._dtype)[x] if x.dtype.kind == "i" else x

    def _readable(self, x: Array) -> Array:
        """Return what the first layer reads: a recurrent one takes ids as they are."""
        return self._vectors(x) if self._by_ids is None else x

    # What runs --------------------------------------------------------------------------------------------------------

    def _stages(self, states: Sequence[States], of_ids: bool) -> tuple[list[Stage], list[States]]:
        """Return what runs the layers once, from these states, and the final ones, which that writes."""
        stages: list[Stage] = []
        finals: list[States] = []
        for (dense, layer), state in zip(self._recurrent, states, strict=True):
            by_ids = self._by_ids if of_ids and not stages else None
            final = tuple([np.empty(s.shape, s.dtype) for s in state])
            run = layer._prepare() if by_ids is None else by_ids.run()
            stages.append(stage(dense, layer, run, state, final))
            finals.append(final)
        return stages, finals

    def _to_many(self, x: Array, lengths: Array | None, states: Sequence[States], out: Array) -> list[States]:
        """Run x (B, T, I), or ids (B, T), to out (B, T, V)."""
        stages, finals = self._stages(states, x.ndim == 2)
        dense = self._tail + self.head
        y = through(stages, x, lengths, None if dense else out)
        over_steps(dense, y, lengths, stages[-1].place, out)
        return finals

    def _to_one(self, x: Array, lengths: Array | None, states: Sequence[States], out: Array, pool: str) -> list[States]:
        """Run x (B, T, I), or ids (B, T), to out (B, V)."""
        stages, finals = self._stages(states, x.ndim == 2)
        place = stages[-1].place
        y = through(stages, x, lengths)
        if pool == "final":
            h = finals[-1][0]  # (L*D, B, P or H)
            rows = np.concatenate(h[-2:], axis=1) if self._recurrent[-1][1].bidirectional else h[-1]
            rows = over_rows(self._tail, rows, place)
        else:
            rows = pooled(pool, self._tail, y, lengths, place)
        if self.head:
            over_rows(self.head, rows, place, out)
        else:
            out[:] = rows
        return finals

    def _feed_back(self, x: Array, states: Sequence[States], out: Array) -> list[States]:
        """Run x (B, I), and what becomes of it, to out (B, T, V)."""
        stream = self.stream(len(x), state=layout(states, True))
        for t in range(out.shape[1]):
            x = stream.step(x)
            out[:, t] = x
        return [hx if isinstance(hx, tuple) else (hx,) for hx in stream.get_state()]

    def _warm_up(self) -> None:
        of_ids = self._vocab is not None
        x = np.zeros((1, 1), np.int64) if of_ids else np.zeros((1, 1, self._input_size), self._dtype)
        for wiring in WIRINGS:
            self.predict(x, wiring=wiring)
        self.predict(x, lengths=[1])
