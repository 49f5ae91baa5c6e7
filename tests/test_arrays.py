"""Arrays of other libraries and buffers: the same answers, read where they lie, or refused by name."""

import array
import ctypes
import tracemalloc
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest
from layer_cases import arrays, equal, make, readonly

import fastrnn
from fastrnn import many


class Exporter:
    """Nothing but DLPack, on a device of any kind."""

    def __init__(self, values, kind=1):
        self.values, self.kind = values, kind

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.kind, 0


class Fetched(Exporter):
    """What would be copied from a device without a word, as JAX's arrays are."""

    device = "gpu:0"

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("it was fetched")


class OnCuda:
    """An array of Numba's on a device: no DLPack."""

    __cuda_array_interface__ = {}  # noqa: RUF012

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("it was fetched")


def in_c(a):
    kind = {4: ctypes.c_float, 8: ctypes.c_int64}[a.itemsize]
    for n in reversed(a.shape):
        kind *= n
    return kind.from_buffer(a)


def in_array(a):
    return memoryview(array.array({4: "f", 8: "q"}[a.itemsize], a.ravel())).cast("B").cast(a.dtype.char, a.shape)


def in_torch(a):
    return pytest.importorskip("torch").from_numpy(a)


def in_jax(a):
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        return jax.numpy.asarray(a)


def in_read_only_dlpack(a):
    if np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("NumPy exports no read-only arrays before 2.1")
    return Exporter(readonly(a))


FORMS = {
    "memoryview": memoryview,
    "read-only memoryview": lambda a: memoryview(a).toreadonly(),
    "bytes": lambda a: memoryview(a.tobytes()).cast("B").cast(a.dtype.char, a.shape),
    "ctypes": in_c,
    "array.array": in_array,
    "dlpack": Exporter,
    "read-only dlpack": in_read_only_dlpack,
    "pinned": lambda a: Exporter(a, kind=3),
    "torch": in_torch,
    "jax": in_jax,
}


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


@cache
def calls(backend):
    """What takes arrays, on the backend in use, each with one that is large beside all else that a call needs."""
    rng = np.random.default_rng(0)
    layer = fastrnn.GRU(8192, 2, num_threads=1).init()
    model = fastrnn.SequenceModel(layer, head=fastrnn.Dense(rng.normal(size=(3, 2)), activation="softmax"))
    dense_first = fastrnn.SequenceModel([fastrnn.Dense(rng.normal(size=(2, 8192))), fastrnn.GRU(2, 2).init()])
    x = rng.standard_normal((20, 3, 8192)).astype(np.float32)
    ends = np.arange(0, 61, 3)
    return {
        "layer": (layer, x),
        "cell": (fastrnn.GRUCell(8192, 2).init(), x[0]),
        "step": (layer.stream(3).step, x[0]),
        "step of rows": (partial(layer.stream(9).step, rows=[3, 1, 8]), x[0]),
        "push": (layer.stream(3).push, x),
        "predict": (model.predict, x),
        "dense first": (dense_first.predict, x),
        "unroll": (partial(model.unroll, steps=0), x[0]),
        "model's step": (model.stream(3).step, x[0]),
        "model's push": (model.stream(3).push, x.swapaxes(0, 1).copy()),
        "predict_many": (lambda x: model.predict_many(fastrnn.Ragged(x, ends)), x.reshape(60, 8192)),
    }


@cache
def calls_with_ids():
    """The same for ids: on the compiled backend alone, others turn ids into vectors on their way."""
    model = fastrnn.SequenceModel(fastrnn.GRU(8, 2, num_threads=1, backend="cython").init(), embedding="one_hot")
    ids = np.random.default_rng(0).integers(0, 8, (2, 50_000))
    ends = np.arange(0, 100_001, 200)
    return {
        "predict": (model.predict, ids),
        "step": (model.stream(100_000).step, ids.ravel()),
        "predict_many": (lambda x: model.predict_many(fastrnn.Ragged(x, ends), wiring="many_to_one"), ids.ravel()),
    }


def allocated(call, x):
    """Bytes that Python and NumPy hold at most while a call runs, its results left out."""
    call(x)
    tracemalloc.start()
    result = call(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - sum(a.nbytes for a in arrays(result))


@pytest.fixture
def small_batches(monkeypatch):
    """Let predict_many gather little at a time."""
    monkeypatch.setattr(many, "_NUMBERS", 1 << 10)


# In place -------------------------------------------------------------------------------------------------------------


def test_nothing_is_copied(backend, form, small_batches):
    for name, (call, x) in calls(backend).items():
        assert allocated(call, form(x)) < x.nbytes / 2, name


def test_no_ids_are_copied(form, small_batches):
    if "cython" not in fastrnn.available_backends():
        pytest.skip("other backends turn ids into vectors")
    for name, (call, x) in calls_with_ids().items():
        assert allocated(call, form(x)) < x.nbytes / 2, name


@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", ">i8"])
def test_ids_of_any_width_are_looked_at_in_place(dtype, small_batches):
    if "cython" in fastrnn.available_backends():
        call, x = calls_with_ids()["predict_many"]
        x = x.astype(dtype)
        assert allocated(call, x) < x.nbytes / 2


def test_a_copy_would_be_seen(backend):
    for name, (call, x) in calls(backend).items():
        if name != "predict_many":  # which casts a batch at a time
            assert allocated(call, x.astype(np.float64)) >= x.nbytes, name


def test_a_read_only_memmap_is_not_copied(backend, tmp_path, small_batches):
    for name, (call, x) in calls(backend).items():
        x.tofile(tmp_path / "x")
        assert allocated(call, np.memmap(tmp_path / "x", x.dtype, "r", shape=x.shape)) < x.nbytes / 2, name


# The same answers -----------------------------------------------------------------------------------------------------


def in_form(form, batch=3, steps=6):
    """Draw an array for each kind of argument, all of one form."""
    rng = np.random.default_rng(0)

    def floats(*shape):
        return form(rng.uniform(-1, 1, shape).astype(np.float32))

    def ids(*shape):
        return form(rng.integers(0, 4, shape))

    return SimpleNamespace(
        x=floats(steps, batch, 5),
        batch_first=floats(batch, steps, 5),
        now=floats(batch, 5),
        state=[(floats(1, batch, 7), floats(1, batch, 7))],
        of_cell=floats(batch, 7),
        ids=ids(batch, steps),
        ids_now=ids(batch),
        flat=ids(batch * steps),
        offsets=form(np.arange(batch + 1) * steps),
        lengths=form(np.arange(batch) % (steps + 1)),
        rows=form(np.arange(batch)[::-1].copy()),
    )


def answers(form, batch=3, steps=6):
    """Run everything that takes arrays on some of a form."""
    a = in_form(form, batch, steps)
    layer, cell = make("lstm"), fastrnn.GRUCell(5, 7).init()
    head = fastrnn.Dense(np.arange(28).reshape(4, 7) / 9, activation="softmax")
    model = fastrnn.SequenceModel(layer, embedding=np.arange(20).reshape(4, 5) / 9, head=head)
    streams = layer.stream(batch), model.stream(batch)
    yield layer(a.x, a.state[0], lengths=a.lengths)
    yield cell(a.now, a.of_cell)
    for stream, x in zip(streams, (a.x, a.batch_first), strict=True):
        yield stream.step(a.now, rows=a.rows), stream.push(x, lengths=a.lengths, rows=a.rows), stream.get_state(a.rows)
    streams[0].set_state(a.state[0], rows=a.rows)
    streams[1].set_state(a.state)
    yield streams[0].get_state(), streams[1].step(a.ids_now), streams[1].push(a.ids, lengths=a.lengths)
    for x in (a.ids, a.batch_first):
        yield model.predict(x, lengths=a.lengths, state=a.state, return_state=True)
        yield model.predict(x, state=a.state, wiring="many_to_one", pool="mean")
    yield model.unroll(a.now, 3, feed="every", state=a.state)
    yield model.predict_many(fastrnn.Ragged(a.flat, a.offsets)), model.predict_many([a.flat, a.flat])
    if batch and steps:
        yield model.generate(a.flat, 3, temperature=0)


def test_the_same_answers(backend, form):
    for found, expected in zip(answers(form), answers(np.array), strict=True):
        assert equal(found, expected)


@pytest.mark.parametrize("form", ["memoryview", "read-only memoryview", "dlpack", "torch", "jax"], indirect=True)
def test_empty_arrays(backend, form):
    for batch, steps in ((0, 6), (3, 0), (0, 0)):
        for found, expected in zip(answers(form, batch, steps), answers(np.array, batch, steps), strict=True):
            assert equal(found, expected)


def test_weights(backend, form):
    rng = np.random.default_rng(0)
    matrix, weight, h = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 5), (2, 7), (1, 7)))

    def model(form):
        state = {name: form(w) for name, w in make("gru").state_dict().items()}
        layer = fastrnn.GRU(5, 7).load_state_dict(state)
        layer.initial_state = form(h)
        return fastrnn.SequenceModel(layer, embedding=form(matrix), head=fastrnn.Dense(form(weight)))

    assert equal(model(form).predict([0, 3, 2]), model(np.array).predict([0, 3, 2]))


@pytest.mark.parametrize("order", "<>")
def test_buffers_of_either_byte_order(backend, order):
    def ordered(a):
        return memoryview(a.astype(a.dtype.newbyteorder(order)))

    for found, expected in zip(answers(ordered), answers(np.array), strict=True):
        assert equal(found, expected)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u4", ">i4", "i8", ">u8"])
def test_ids_out_of_range(dtype):
    model = fastrnn.SequenceModel(fastrnn.RNN(200, 2).init(), embedding="one_hot")
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    for good in (0, min(199, high)):
        assert model.predict(np.array([good], dtype)).shape == (1, 2)
    for wrong in {-1, 200, low, high} - set(range(200)):
        if low <= wrong <= high:
            with pytest.raises(ValueError, match=rf"x must hold ids in 0\.\.199, got {wrong} at \(1,\)"):
                model.predict(np.array([3, wrong], dtype))


# What is refused ------------------------------------------------------------------------------------------------------


@cache
def arguments():
    """Calls with a value in the place of each argument, by what messages name it."""
    layer, cell = make("lstm"), fastrnn.GRUCell(5, 7).init()
    model = fastrnn.SequenceModel(layer, embedding="one_hot")
    good = in_form(np.array)
    h, c = good.state[0]
    streams = layer.stream(3), model.stream(3)
    floats = [
        ("x", lambda v: layer(v)),
        ("h of hx", lambda v: layer(good.x, (v, c))),
        ("c of hx", lambda v: layer(good.x, (h, v))),
        ("x", lambda v: cell(v)),
        ("hx", lambda v: cell(good.now, v)),
        ("h of hx", lambda v: layer.stream(3, hx=(v, c))),
        *(("x", call) for stream in streams for call in (stream.step, stream.push)),
        ("h of state", lambda v: streams[0].set_state((v, c))),
        (r"h of state\[0\]", lambda v: streams[1].set_state([(v, c)])),
        ("x", model.predict),
        (r"c of state\[0\]", lambda v: model.predict(good.batch_first, state=[(h, v)])),
        ("x", lambda v: model.unroll(v, 2)),
        (r"sequences\[1\]", lambda v: model.predict_many([good.now, v])),
        (r"sequences\.values", lambda v: model.predict_many(fastrnn.Ragged(v, [0, 1]))),
    ]
    ids = [
        ("lengths", lambda v: layer(good.x, lengths=v)),
        ("rows", lambda v: streams[0].step(good.now, rows=v)),
        ("rows", lambda v: streams[1].push(good.batch_first, rows=v)),
        ("lengths", lambda v: model.predict(good.ids, lengths=v)),
        (r"sequences\.offsets", lambda v: model.predict_many(fastrnn.Ragged(good.flat, v))),
        ("prompt", lambda v: model.generate(v, 2)),
    ]
    return floats, ids


ELSEWHERE = {
    "dlpack": Exporter(np.zeros(3), kind=2),
    "fetched": Fetched(np.zeros(3), kind=10),
    "cuda": OnCuda(),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_arrays_on_another_device(backend, name):
    floats, ids = arguments()
    weights = make("gru").state_dict()
    built = [
        ("bias_ih_l0", lambda v: make("gru").load_state_dict(weights | {"bias_ih_l0": v})),
        ("embedding", lambda v: fastrnn.SequenceModel(make("gru"), embedding=v)),
        ("head.weight", lambda v: fastrnn.SequenceModel(make("gru"), head=fastrnn.Dense(v))),
        ("initial_state", lambda v: setattr(make("gru"), "initial_state", v)),
    ]
    place = "gpu:0" if name == "fetched" else "another device"
    for argument, call in floats + ids + built:
        message = (
            rf"{argument} must be an array of real numbers on the CPU, got \w+ on {place}: pass a copy of {argument}"
        )
        with pytest.raises(TypeError, match=message):
            call(ELSEWHERE[name])


@pytest.mark.parametrize(
    ("module", "cure"), [("jaxlib._jax", r"jax\.device_get\(x\)"), ("cupy._core", r"cupy\.asnumpy\(x\)")]
)
def test_how_arrays_come_from_a_device(module, cure):
    value = type("Array", (Fetched,), {"__module__": module})(np.zeros(3), kind=2)
    with pytest.raises(TypeError, match=f"got Array on gpu:0: pass {cure}$"):
        make("gru")(value)


def test_tensors_on_another_device():
    torch = pytest.importorskip("torch")
    floats, _ = arguments()
    for argument, call in floats:
        with pytest.raises(
            TypeError, match=rf"{argument} must be .* on the CPU, got Tensor on meta: pass .*\.cpu\(\)$"
        ):
            call(torch.zeros(6, 3, 5, device="meta"))


def test_tensors_that_require_grad(backend):
    torch = pytest.importorskip("torch")
    floats, _ = arguments()
    for argument, call in floats:
        with pytest.raises(
            TypeError, match=rf"{argument} is a tensor that requires grad .*: pass {argument}\.detach\(\)"
        ):
            call(torch.zeros(6, 3, 5, requires_grad=True))


def test_what_an_exporter_refuses():
    swapped = Exporter(np.zeros((6, 3, 5), np.dtype(np.float32).newbyteorder()))
    with pytest.raises(TypeError, match=r"x must be an array .* got Exporter \(DLPack only supports native byte order"):
        make("gru")(swapped)


def test_numbers_that_jax_traces():
    jax = pytest.importorskip("jax")
    layer = make("gru")
    with pytest.raises(TypeError, match=r"x must be an array of real numbers on the CPU, got .*Tracer"):
        jax.jit(lambda x: layer(x)[0])(jax.numpy.zeros((6, 3, 5)))
