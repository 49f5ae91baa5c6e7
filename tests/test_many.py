"""Many sequences: in order, equal to one at a time, from lists, Ragged and iterables, in bounded memory."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import peak_of

import fastrnn
from fastrnn import many


def make(embedding="one_hot", wiring="many_to_one", bidirectional=True, dtype=None, **given):
    rng = np.random.default_rng(0)
    layer = fastrnn.GRU(6, 9, bidirectional=bidirectional, dtype=dtype).init(0)
    head = (rng.normal(size=(4, 9 * (1 + bidirectional))), rng.normal(size=4), "softmax")
    return fastrnn.SequenceModel(layer, embedding=embedding, head=head, wiring=wiring, **given)


def draw(lengths, vectors=False, seed=1):
    rng = np.random.default_rng(seed)
    if vectors:
        return [rng.normal(size=(n, 6)).astype(np.float32) for n in lengths]
    return [rng.integers(0, 6, n) for n in lengths]


def ragged(sequences):
    values = np.concatenate(sequences) if sequences else np.empty(0, np.int64)
    return fastrnn.Ragged(values, np.cumsum([0, *map(len, sequences)]))


MODELS = {vectors: make(None if vectors else "one_hot") for vectors in (False, True)}


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 30), max_size=40),
    st.sampled_from(["final", "last", "mean", "max"]),
    st.booleans(),
    st.integers(1, 300),
    st.integers(1, 50),
)
def test_one_at_a_time(lengths, pool, vectors, numbers, window):
    """In batches of any size, so of any number of rows, and sorted any number at a time."""
    model, sequences, before = MODELS[vectors], draw(lengths, vectors), (many._NUMBERS, many._WINDOW)
    many._NUMBERS, many._WINDOW = numbers * 20, window
    try:
        found = model.predict_many(sequences, pool=pool)
        steps = model.predict_many(ragged(sequences), wiring="many_to_many") if sequences or not vectors else None
    finally:
        many._NUMBERS, many._WINDOW = before
    assert found.shape == (len(lengths), 4)
    for i, sequence in enumerate(sequences):
        assert np.array_equal(found[i], model.predict(sequence, pool=pool))
        part = steps.values[steps.offsets[i] : steps.offsets[i + 1]]
        assert np.array_equal(part, model.predict(sequence, wiring="many_to_many"))


@pytest.mark.parametrize("backend", fastrnn.available_backends())
def test_forms(backend):
    with fastrnn.use_backend(backend):
        model, sequences = make(), draw([3, 0, 7, 1, 7, 12])
        expected = model.predict_many(sequences)
        assert np.array_equal(model.predict_many(ragged(sequences)), expected)
        assert np.array_equal(model.predict_many([s.tolist() for s in sequences]), expected)
        assert np.array_equal(model.predict_many(tuple(s.astype(np.uint8) for s in sequences)), expected)
        assert np.array_equal(model.predict_many(np.array([[1, 2], [3, 4]])), model.predict([[1, 2], [3, 4]]))
        whole = ragged(sequences)
        part = fastrnn.Ragged(whole.values.astype(np.int32), whole.offsets[2:6].astype(np.int32))
        assert np.array_equal(model.predict_many(part), expected[2:5])
        beyond = fastrnn.Ragged([6, *whole.values, 6], whole.offsets + 1)  # no id, and of no sequence
        assert np.array_equal(model.predict_many(beyond), expected)
        steps = model.predict_many(beyond, wiring="many_to_many")
        assert np.array_equal(steps.values, model.predict_many(whole, wiring="many_to_many").values)
        assert np.array_equal(steps.offsets, whole.offsets)
        frozen = fastrnn.Ragged(whole.values.copy(), whole.offsets.copy())
        for array in frozen:
            array.flags.writeable = False
        assert np.array_equal(model.predict_many(frozen), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_out(dtype, tmp_path):
    model, sequences = make(dtype=dtype), draw(range(50))
    expected = model.predict_many(sequences)
    assert expected.dtype == dtype
    memory = np.memmap(tmp_path / "out", dtype, "w+", shape=(50, 4))
    assert model.predict_many(sequences, out=memory) is memory
    assert np.array_equal(memory, expected)


def test_threads():
    model, sequences = make(), draw(np.random.default_rng(0).lognormal(3, 0.6, 3000).astype(int))
    results = []
    for count in (1, 2, 5):
        fastrnn.set_num_threads(count)
        try:
            results.append(model.predict_many(ragged(sequences)))
        finally:
            fastrnn.set_num_threads(None)
    assert all(np.array_equal(results[0], result) for result in results[1:])


def test_texts():
    vocabulary = fastrnn.Vocabulary.from_text("abcdef")
    model = make(vocabulary=vocabulary)
    assert np.array_equal(model.predict_many(["fad", "", "be"])[0], model.predict(vocabulary.encode("fad")))
    with pytest.raises(ValueError, match=r"sequences\[1\] is a text, and the model has no vocabulary"):
        make().predict_many([[1], "a"])


def test_none():
    model = make()
    assert model.predict_many([]).shape == (0, 4)
    assert model.predict_many(fastrnn.Ragged(np.empty(0, np.int64), [0])).shape == (0, 4)
    found = model.predict_many([], wiring="many_to_many")
    assert found.values.shape == (0, 4)
    assert found.offsets.tolist() == [0]
    assert list(model.predict_iter([])) == []
    assert model.predict_many([[], []]).shape == (2, 4)
    assert make(None).predict_many([np.empty((0, 6)), []]).shape == (2, 4)


@pytest.mark.parametrize("lookahead", [1, 3, 4096])
@pytest.mark.parametrize("wiring", ["many_to_one", "many_to_many"])
def test_iter(wiring, lookahead):
    model, sequences = make(), draw([3, 0, 7, 1, 7, 12, 2])
    found = list(model.predict_iter(iter(sequences), lookahead=lookahead, wiring=wiring))
    assert len(found) == 7
    for y, sequence in zip(found, sequences, strict=True):
        assert np.array_equal(y, model.predict(sequence, wiring=wiring))


@pytest.mark.parametrize("lookahead", [1, 2, 4096])
def test_iter_of_a_ragged(lookahead):
    model, sequences = make(), draw([3, 0, 7, 1, 1])
    whole = ragged([*sequences, np.array([5])])
    found = list(model.predict_iter(fastrnn.Ragged(whole.values, whole.offsets[:-1]), lookahead=lookahead))
    assert np.array_equal(found, model.predict_many(sequences))


def test_iter_is_lazy():
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield [i % 6] * (i % 9)

    found = make().predict_iter(endless(), lookahead=10)
    for _ in range(25):
        next(found)
    assert len(taken) == 30


def test_an_empty_ragged_of_vectors():
    model = fastrnn.SequenceModel(fastrnn.GRU(3, 4).init(), wiring="many_to_one")
    assert np.array_equal(model.predict_many(fastrnn.Ragged([], [0, 0, 0])), model.predict_many([[], []]))


def test_a_bar(capsys):
    model = make()
    model.predict_many(draw([1, 2, 3]))
    assert capsys.readouterr().err == ""
    model.predict_many(draw([1, 2, 3]), progress=True)
    assert "3/3" in capsys.readouterr().err
    list(model.predict_iter(draw([1, 2, 3]), lookahead=2))
    assert capsys.readouterr().err == ""
    list(model.predict_iter(draw([1, 2, 3]), lookahead=2, progress=True))
    assert "3/3" in capsys.readouterr().err
    list(model.predict_iter(iter(draw([1, 2, 3])), progress=True))  # nobody knows how many
    assert "3seq" in capsys.readouterr().err


def test_sequences_run_in_batches_of_about_one_length(monkeypatch):
    model, predict, padded, lengths = make(), fastrnn.SequenceModel.predict, [], np.arange(5000) % 37

    def counted(self, x, **options):
        padded.append(x.shape[0] * x.shape[1])
        return predict(self, x, **options)

    monkeypatch.setattr(fastrnn.SequenceModel, "predict", counted)
    model.predict_many(draw(lengths))
    assert len(padded) < 10
    assert sum(padded) < 1.5 * lengths.sum()


def test_rows_of_a_batch_finish_together():
    """Nearly so, but for the narrowest networks: why none is given another sequence."""
    model = fastrnn.SequenceModel(fastrnn.GRU(6, 128).init(), embedding="one_hot")
    sizes = np.random.default_rng(0).lognormal(3.5, 0.8, many._WINDOW).astype(int) + 1
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    places = sum(at.size for _, _, at, _ in model._batches(np.zeros(offsets[-1], int), offsets))
    assert sizes.sum() > 0.97 * places


def test_a_ragged_makes_no_object_for_a_sequence():
    model, count = make(bidirectional=False), 100_000
    given = fastrnn.Ragged(np.zeros(count, np.int64), np.arange(count + 1))
    out = np.empty((count, 4), np.float32)
    model.predict_many(given, out=out)
    assert peak_of(lambda: model.predict_many(given, out=out)) < 20 * count  # an array takes 100 bytes and more


def test_ids_of_any_integers_and_empty_sequences_mix():
    model = make()
    expected = model.predict_many([[1], [2], []])
    assert np.array_equal(model.predict_many([np.array([1], np.uint64), np.array([2], np.int8), []]), expected)
    assert np.array_equal(model.predict_many([[], np.array([2], np.uint64), [1]])[::-1], expected)
    vectors = draw([2, 3], vectors=True)
    assert np.array_equal(model.predict_many([[], *vectors])[1:], model.predict_many(vectors))


def test_ctrl_c_stops_it(monkeypatch):
    model, predict, calls = make(), fastrnn.SequenceModel.predict, []

    def interrupted(self, *given, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(self, *given, **options)

    monkeypatch.setattr(fastrnn.SequenceModel, "predict", interrupted)
    monkeypatch.setattr(many, "_ROWS", 1000)
    with pytest.raises(KeyboardInterrupt):
        model.predict_many(draw([5] * 5000))
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        ("abc", TypeError, "sequences must be a fastrnn.Ragged or a list, got 'abc'"),
        ({1, 2}, TypeError, "sequences must be a fastrnn.Ragged or a list, got set: predict_iter takes iterables"),
        ([[1], [9]], ValueError, r"sequences\[1\] must hold ids in 0..5, got 9 at \(0,\)"),
        ([[1], [1.5]], TypeError, r"sequences\[1\] must hold ids as integers, got dtype float64"),
        (
            [[1], [[1, 2]]],
            ValueError,
            r"sequences\[1\] is \(1, 2\) of int64, expected \(T,\) ids or \(T, I\) = \(T, 6\) vectors of floats",
        ),
        ([1, 2], ValueError, r"sequences\[0\] is \(\) of int64, expected \(T,\) ids or"),
        ([[1], np.zeros((2, 6), int)], ValueError, r"sequences\[1\] is \(2, 6\) of int64, .* vectors of floats"),
        (fastrnn.Ragged(5, [0]), ValueError, r"sequences.values is \(\) of int64"),
        ([np.zeros((6, 2))], ValueError, r"sequences\[0\] is \(6, 2\) of float64, .*: pass sequences\[0\]\.T"),
        ([[1], np.zeros((2, 6))], ValueError, r"all of ids or all of vectors, sequences\[1\]"),
        (fastrnn.Ragged([1, 2], [0, 3]), ValueError, r"sequences.offsets must lie in 0..2, got 0..3"),
        (fastrnn.Ragged([1, 2], [-1, 2]), ValueError, r"sequences.offsets must lie in 0..2, got -1..2"),
        (fastrnn.Ragged([1, 2], [0, 2, 1]), ValueError, r"sequences.offsets must not fall, got 2, 1 at 1"),
        (fastrnn.Ragged([1, 2], []), ValueError, r"sequences.offsets must be \(N\+1,\), got shape \(0,\)"),
        (fastrnn.Ragged([1, 2], [0.0, 2.0]), TypeError, "sequences.offsets must be integers, got dtype float64"),
        (fastrnn.Ragged([1, 7], [0, 2]), ValueError, r"sequences.values must hold ids in 0..5, got 7 at \(1,\)"),
    ],
    ids=str,
)
def test_errors(sequences, error, message):
    with pytest.raises(error, match=message):
        make().predict_many(sequences)


def test_errors_of_options():
    model = make()
    with pytest.raises(ValueError, match="out is for wiring='many_to_one'"):
        model.predict_many([[1]], wiring="many_to_many", out=np.empty((1, 4), np.float32))
    with pytest.raises(ValueError, match="out"):
        model.predict_many([[1]], out=np.empty((2, 4), np.float32))
    with pytest.raises(TypeError, match="progress must be True or False, got 'bar'"):
        model.predict_many([[1]], progress="bar")
    with pytest.raises(TypeError, match="progress must be True or False, got 1"):
        model.predict_iter([[1]], progress=1)
    ids = np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="out overlaps sequences"):
        model.predict_many([[1], ids][1:], out=ids.view(np.float32).reshape(1, 4))
    assert not ids.any()
    with pytest.raises(ValueError, match="lookahead must be an int >= 1, got 0"):
        model.predict_iter([[1]], lookahead=0)
    with pytest.raises(TypeError, match="sequences must be an iterable of sequences, got 3"):
        model.predict_iter(3)
    with pytest.raises(ValueError, match="wiring must be one of"):
        model.predict_iter([[1]], wiring="one")
    with pytest.raises(ValueError, match=r"sequences\[7\] must hold ids in 0..5, got 9"):
        list(model.predict_iter([*[[1]] * 7, [9]], lookahead=5))
