"""Models: every wiring against the reference, and one answer whichever way they run."""

import copy
import pickle
import threading

import numpy as np
import pytest
from cases import DTYPES, assert_close, same_bits
from layer_cases import arrays, equal, make, readonly, strided
from model_cases import (
    MODELS,
    WIRINGS,
    beginning,
    characters,
    deep,
    dense,
    expected,
    intents,
    matrix,
    sequences,
    vectors,
)

import fastrnn

LENGTHS = np.array([4, 0, 6])


def close(actual, wanted, dtype):
    """Errors add up from layer to layer: three times what one layer may have."""
    assert_close(
        actual / 3, wanted / 3, *{4: ("float64", "float32"), 8: ("kernel", "float64")}[np.dtype(dtype).itemsize]
    )


# Against the reference ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("wiring", "pool"), WIRINGS)
@pytest.mark.parametrize("name", MODELS)
def test_reference(backend, name, wiring, pool, dtype):
    model = MODELS[name](dtype)
    x, state = sequences(model), beginning(model)
    for lengths, given in ((None, None), (LENGTHS, None), (LENGTHS, state)):
        y, final = model.predict(x, lengths=lengths, state=given, return_state=True, wiring=wiring, pool=pool)
        wanted = expected(model, x, lengths, given, wiring, pool or "final")
        close(y, wanted.y, dtype)
        for a, b in zip(arrays(final), wanted.state, strict=True):
            close(a, b, dtype)


# One answer -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("wiring", "pool"), WIRINGS)
@pytest.mark.parametrize("name", MODELS)
def test_bits(backend, name, wiring, pool, dtype):
    """A row alone is what it is in any batch, under any length, and on any backend but the reference."""
    model = MODELS[name](dtype)
    x, state = sequences(model, 7, 11), beginning(model, 7)
    lengths = np.array([11, 3, 0, 1, 11, 10, 5])
    options = {"wiring": wiring, "pool": pool, "return_state": True}
    y, final = model.predict(x, lengths=lengths, state=state, **options)
    for b, n in enumerate(lengths):
        alone, end = model.predict(x[b, :n], state=[layer_row(s, b) for s in state], **options)
        assert same_bits(y[b, :n] if wiring == "many_to_many" else y[b], alone)
        assert equal([layer_row(s, b) for s in final], end)
        assert wiring == "many_to_one" or not y[b, n:].any()
    if backend != "reference":
        with fastrnn.use_backend(fastrnn.available_backends()[0]):
            assert equal(model.predict(x, lengths=lengths, state=state, **options), (y, final))


def layer_row(hx, b):
    return tuple(s[:, b] for s in hx) if isinstance(hx, tuple) else hx[:, b]


def test_threads_do_not_change_bits():
    layers = [make("lstm", 64, 96, bidirectional=True, num_threads=n) for n in (1, 2, 5)]
    models = [
        fastrnn.SequenceModel(layer, embedding=matrix(50, 64), head=dense(700, 192, "softmax")) for layer in layers
    ]
    x = sequences(models[0], 9, 50)
    assert equal([models[1].predict(x), models[2].predict(x)], [models[0].predict(x)] * 2)


def test_calls_from_several_threads():
    model = deep()
    batches = [sequences(model, 3, 20, seed) for seed in range(8)]
    wanted, found = [model.predict(x) for x in batches], [None] * len(batches)

    def call(i):
        for _ in range(20):
            found[i] = model.predict(batches[i])

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert equal(found, wanted)


def test_the_mean_adds_in_order_of_time(backend):
    for hidden, dtype in ((1, np.float32), (3, np.float64), (16, np.float32)):
        model = fastrnn.SequenceModel(make("gru", 2, hidden, dtype=dtype), wiring="many_to_one", pool="mean")
        x, lengths = sequences(model, 3, 300), np.array([300, 0, 299])
        total = np.zeros((3, hidden), dtype)
        for now in model.predict(x, lengths=lengths, wiring="many_to_many").transpose(1, 0, 2):
            total += now
        wanted = total / np.maximum(lengths, 1).astype(dtype)[:, None]
        assert same_bits(model.predict(x, lengths=lengths), wanted)
        assert same_bits(model.predict(x[0]), wanted[0])


def test_the_largest_of_both_zeros(backend):
    layer = fastrnn.RNN.from_weights([[1.0]], [[0.0]], nonlinearity="linear")
    model = fastrnn.SequenceModel([layer, fastrnn.Dense([[-1e-30]], [-0.0])], wiring="many_to_one", pool="max")
    x = np.full((3, 40, 1), 1e-18, np.float32)  # products that are too small for any number but a zero with a sign
    x[:, ::3] *= -1
    if backend != "reference":  # whose products are NumPy's, and start from +0
        assert 0 < np.signbit(model.predict(x, wiring="many_to_many")).sum() < x.size
    for steps in (slice(None), slice(0, 2), slice(1, 2)):
        assert same_bits(model.predict(x[:, steps]), np.zeros((3, 1), np.float32))
        assert same_bits(model.predict(x[0, steps]), np.zeros(1, np.float32))


@pytest.mark.parametrize(("wiring", "pool"), WIRINGS)
def test_what_is_not_finite_stays_in_its_row(backend, wiring, pool):
    model = fastrnn.SequenceModel(make("rnn_relu", bidirectional=True), head=dense(3, 14), wiring=wiring)
    x = sequences(model)
    x[1, -1] = np.nan
    y = model.predict(x, pool=pool)
    assert np.isnan(y[1]).any()
    assert same_bits(y[[0, 2]], model.predict(x[[0, 2]], pool=pool))
    assert np.isfinite(y[[0, 2]]).all()


# What goes in and comes out -------------------------------------------------------------------------------------------


def test_one_hot_is_the_identity_matrix(backend):
    model = characters()
    ids = sequences(model)
    again = fastrnn.SequenceModel(model.layers[0], embedding=np.eye(19), head=model.head)
    assert same_bits(model.predict(ids), again.predict(ids))
    assert same_bits(model.predict(ids), model.predict(np.eye(19)[ids]))


def test_floats_pass_the_embedding_by(backend):
    model = intents()
    ids = sequences(model)
    assert same_bits(model.predict(ids), model.predict(model.embedding[ids]))
    assert same_bits(model.predict(ids[0]), model.predict(model.embedding[ids[0]]))


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i4", "u8", "i8"])
def test_ids_of_any_integer_dtype(dtype):
    model = intents()
    ids = sequences(model)
    wanted = model.predict(ids)
    for given in (ids.astype(dtype), readonly(ids.astype(dtype)), strided(ids.astype(dtype)), ids.tolist()):
        assert same_bits(model.predict(given), wanted)


@pytest.mark.parametrize("name", MODELS)
def test_unbatched(backend, name):
    model = MODELS[name]()
    x, state = sequences(model, 1), beginning(model, 1)
    for wiring, pool in WIRINGS:
        options = {"wiring": wiring, "pool": pool, "return_state": True}
        y, final = model.predict(x, state=state, lengths=[4], **options)
        alone, end = model.predict(x[0], state=[layer_row(s, 0) for s in state], lengths=4, **options)
        assert same_bits(alone, y[0])
        assert equal(end, [layer_row(s, 0) for s in final])


@pytest.mark.parametrize(("wiring", "pool"), WIRINGS)
@pytest.mark.parametrize("name", MODELS)
def test_empty(backend, name, wiring, pool):
    model = MODELS[name]()
    size = model._output_size
    for batch, steps in ((0, 4), (3, 0), (0, 0)):
        x = sequences(model, batch, steps)
        for lengths in (None, np.zeros(batch, int)):
            y, state = model.predict(x, lengths=lengths, wiring=wiring, pool=pool, return_state=True)
            assert y.shape == ((batch, steps, size) if wiring == "many_to_many" else (batch, size))
            assert not any(s.any() for s in arrays(state))
    y = model.predict(sequences(model, None, 0), wiring=wiring, pool=pool)
    assert y.shape == ((0, size) if wiring == "many_to_many" else (size,))


def test_an_empty_list_is_ids():
    assert intents().predict([]).shape == (0, 3)
    assert intents().predict([[], []]).shape == (2, 0, 3)


def test_length_0_pools_to_the_initial_state_or_to_zeros(backend):
    layer = make("lstm", bidirectional=True)
    layer.initial_state = (np.full((2, 7), 0.5), np.zeros((2, 7)))
    head = dense(3, 14, "tanh")
    model = fastrnn.SequenceModel(layer, head=head, wiring="many_to_one")
    x = sequences(model, 2)
    assert_close(
        model.predict(x, lengths=[0, 6])[0], np.tanh(0.5 * head.weight.sum(1) + head.bias), "kernel", np.float32
    )
    for pool in ("last", "mean", "max"):
        assert_close(model.predict(x, lengths=[0, 6], pool=pool)[0], np.tanh(head.bias), "kernel", np.float32)


@pytest.mark.parametrize(("wiring", "pool"), WIRINGS)
@pytest.mark.parametrize("name", MODELS)
def test_out(backend, name, wiring, pool):
    model = MODELS[name]()
    x = sequences(model)
    for lengths in (None, LENGTHS):
        wanted = model.predict(x, lengths=lengths, wiring=wiring, pool=pool)
        out = np.full_like(wanted, np.nan)
        assert model.predict(x, lengths=lengths, wiring=wiring, pool=pool, out=out) is out
        assert same_bits(out, wanted)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_passed_in_is_changed_and_results_share_nothing(backend, name):
    model = MODELS[name]()
    x, state = readonly(sequences(model)), beginning(model)
    before = copy.deepcopy(state)
    y, final = model.predict(x, state=state, lengths=readonly(LENGTHS), return_state=True)
    assert equal(state, before)
    results = [y, *arrays(final)]
    for i, a in enumerate(results):
        assert a.flags.owndata or a.base.size == a.size
        for b in (x, *arrays(state), *results[:i]):
            assert not np.shares_memory(a, b)


@pytest.mark.parametrize("name", ["vectors", "deep"])
def test_vectors_in_any_layout(backend, name):
    model = MODELS[name]()
    x = sequences(model)
    wanted = model.predict(x)
    for given in (strided(x), np.asfortranarray(x), x.astype(">f8"), x[::-1].copy()[::-1], x.tolist()):
        assert same_bits(model.predict(given), wanted)


def test_a_state_goes_on(backend):
    model = deep()
    x = sequences(model)[:, :3]
    forward = fastrnn.SequenceModel(make("lstm", 5, 7))
    whole = forward.predict(sequences(model))
    y, state = forward.predict(x, return_state=True)
    assert same_bits(np.concatenate([y, forward.predict(sequences(model)[:, 3:], state=state)], axis=1), whole)
    partly = beginning(model)
    zeros = [make_zero(hx) for hx in partly]
    assert same_bits(
        model.predict(x, state=[None, partly[1], None]), model.predict(x, state=[zeros[0], partly[1], zeros[2]])
    )


def make_zero(hx):
    return tuple(map(np.zeros_like, hx)) if isinstance(hx, tuple) else np.zeros_like(hx)


# One to many ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_unroll_is_the_formula(backend, dtype):
    """h_t = f(U x_t + W h_(t-1) + b), written out."""
    layer = make("rnn", 5, 5, dtype=dtype)
    model = fastrnn.SequenceModel(layer)
    w = {name: tensor.astype(np.longdouble) for name, tensor in layer.state_dict().items()}
    x = sequences(model, 3, 1)[:, 0]
    for feed in ("first", "every", "output"):
        h, now, wanted = np.zeros((3, 5)), x, []
        for _ in range(8):
            h = np.tanh(now @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"])
            now = {"first": np.zeros_like(x), "every": x, "output": h}[feed]
            wanted.append(h)
        y, (state,) = model.unroll(x, 8, feed=feed, return_state=True)
        close(y, np.stack(wanted, axis=1), dtype)
        assert same_bits(state[0], y[:, -1])


@pytest.mark.parametrize("name", MODELS)
def test_first_and_every_are_not_equivalent(backend, name):
    model = MODELS[name]()
    x = sequences(model, 3, 1)[:, 0]
    first, every = model.unroll(x, 5), model.unroll(x, 5, feed="every")
    vector = model._vectors(x) if model.embedding is not None else x
    inputs = np.repeat(vector[:, None], 5, axis=1)
    assert same_bits(every, model.predict(inputs))
    inputs[:, 1:] = 0
    assert same_bits(first, model.predict(inputs))
    assert not np.allclose(first[:, 1:], every[:, 1:])
    for feed, y in (("first", first), ("every", every)):
        assert same_bits(model.unroll(x[1], 5, feed=feed), y[1])


@pytest.mark.parametrize("name", ["characters", "forward"])
def test_output_is_what_comes_next(backend, name):
    model = MODELS[name]()
    x, state = sequences(model, 3, 1)[:, 0], beginning(model)
    y, final = model.unroll(x, 6, feed="output", state=state, return_state=True)
    now = x[:, None]
    for t in range(6):
        now, state = model.predict(now, state=state, return_state=True)
        assert same_bits(y[:, t], now[:, 0])
    assert equal(final, state)
    start = [layer_row(s, 0) for s in beginning(model)]
    alone, end = model.unroll(x[0], 6, feed="output", state=start, return_state=True)
    assert same_bits(alone, y[0])
    assert equal(end, [layer_row(s, 0) for s in final])


@pytest.mark.parametrize("feed", ["first", "every", "output"])
def test_unroll_edges(backend, feed):
    model = characters()
    out = np.full((2, 4, 19), np.nan, np.float32)
    assert model.unroll([3, 5], 4, feed=feed, out=out) is out
    assert same_bits(out, model.unroll(np.eye(19)[[3, 5]], 4, feed=feed))
    assert same_bits(out[1], model.unroll(5, 4, feed=feed))
    assert model.unroll([3, 5], 0, feed=feed).shape == (2, 0, 19)
    assert model.unroll(np.zeros((0, 19)), 4, feed=feed).shape == (0, 4, 19)


# The object -----------------------------------------------------------------------------------------------------------


def test_the_layers_are_kept():
    layer = make("gru")
    model = fastrnn.SequenceModel(layer, head=dense(3, 7))
    assert model.layers == (layer,)
    x = sequences(model)
    before = model.predict(x)
    layer.init(seed=5)
    assert not np.allclose(model.predict(x), before)
    again = fastrnn.SequenceModel(model.layers, head=model.head)
    assert again.layers == model.layers
    assert again.head == model.head


def test_everything_given_is_copied_and_cast():
    weight, table = np.ones((3, 7)), np.ones((4, 5))
    model = fastrnn.SequenceModel(make("gru"), embedding=table, head=(weight, None, "tanh"))
    before = model.predict([0, 1])
    weight[:], table[:] = 7, 7
    assert same_bits(model.predict([0, 1]), before)
    assert model.embedding.dtype == model.head[0].plan.dtype == np.float32
    assert not model.embedding.flags.writeable


def test_no_layer_runs_where_one_has_no_weights(monkeypatch):
    first = make("gru")
    model = fastrnn.SequenceModel([first, fastrnn.LSTM(7, 2)])
    monkeypatch.setattr(first, "_prepare", lambda: lambda *_: pytest.fail("a kernel ran"))
    with pytest.raises(ValueError, match=r"LSTM\(7, 2\) has no weights"):
        model.predict(sequences(model))


def test_dense_layers_run_where_their_neighbour_does():
    model = fastrnn.SequenceModel(make("gru", backend="reference", num_threads=3), head=dense(3, 7))
    threads = []
    model.head[0]._runners = {"reference": lambda x, out, count: threads.append(count)}
    model.predict(sequences(model))
    model.stream().step(np.zeros(5))
    assert threads == [3, 3]


def test_overrides():
    model = intents(wiring="many_to_one", pool="mean")
    ids = sequences(model)
    assert same_bits(model.predict(ids), intents().predict(ids, wiring="many_to_one", pool="mean"))
    assert same_bits(model.predict(ids, pool="last"), intents().predict(ids, wiring="many_to_one", pool="last"))
    assert same_bits(model.predict(ids, wiring="many_to_many"), intents().predict(ids))


def test_attributes():
    vocabulary = fastrnn.Vocabulary(list("abcdefghijk"))
    model = intents(wiring="many_to_one", pool="max", vocabulary=vocabulary, labels=["x", "y", "z"])
    assert (model.wiring, model.pool, model.vocabulary, model.labels) == (
        "many_to_one",
        "max",
        vocabulary,
        ("x", "y", "z"),
    )
    for name in ("layers", "wiring", "vocabulary", "anything"):
        for change in (lambda name=name: setattr(model, name, None), lambda name=name: delattr(model, name)):
            with pytest.raises(
                AttributeError, match=f"{name} cannot be set or deleted: a SequenceModel does not change"
            ):
                change()
    assert model.labels == ("x", "y", "z")


def test_repr():
    assert repr(vectors()) == "SequenceModel(GRU(5, 7))"
    assert repr(intents(wiring="many_to_one")) == (
        "SequenceModel(embedding (11, 6) -> LSTM(6, 16, bidirectional=True) -> 'final'"
        " -> Dense(32, 9, 'relu') -> Dense(9, 3, 'log_softmax'))"
    )
    assert repr(characters()).startswith(
        "SequenceModel(one_hot 19 -> LSTM(19, 17, num_layers=2) -> Dense(17, 19, 'soft"
    )
    assert "Dense(30, 7, 'tanh', bias=False)" in repr(deep())


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", MODELS)
def test_copies(backend, name, way):
    model = MODELS[name](wiring="many_to_one", pool="mean", labels=None)
    x = sequences(model)
    wanted = model.predict(x, lengths=LENGTHS)
    again = way(model)
    assert repr(again) == repr(model)
    assert same_bits(again.predict(x, lengths=LENGTHS), wanted)
    with pytest.raises(AttributeError):
        again.pool = "max"
    if isinstance(again.embedding, np.ndarray):
        assert not again.embedding.flags.writeable


def test_warmup(backend):
    fastrnn.warmup(characters(), deep())


def test_warmup_of_both_parts():
    encoder = fastrnn.SequenceModel(make("gru"), embedding=matrix(9, 5))
    decoder = fastrnn.SequenceModel(make("gru"), embedding=matrix(3, 5), head=dense(3, 7))
    fastrnn.warmup(fastrnn.Seq2Seq(encoder, decoder, start=0, stop=1))
    assert all(model._by_ids._runs for model in (encoder, decoder))
