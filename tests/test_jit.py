"""fastrnn.jit inside compiled functions: the bits of calls and streams, callers, and what stays alive."""

import gc
import threading
import tracemalloc
import weakref

import layer_cases
import numpy as np
import pytest
from cases import DTYPES, same_bits
from layer_cases import equal
from model_cases import BY_IDS, STREAMS, beginning, dense, sequences

import fastrnn.packing

numba = pytest.importorskip("numba")
from numba.core.errors import TypingError  # noqa: E402

from fastrnn import jit  # noqa: E402
from fastrnn.numba_kernels import packed  # noqa: E402


def make(kind="lstm", hidden=17, layers=2, **options):
    return layer_cases.make(kind, 5, hidden, num_layers=layers, **options)


def data(layer, *axes, seed=0):
    return np.random.default_rng(seed).normal(size=(*axes, layer.input_size)).astype(layer.dtype)


@numba.njit
def by_steps(w, x, state, y):
    for t in range(len(x)):
        jit.step(w, x[t], state, y[t])


@numba.njit
def at_once(w, x, state, y):
    jit.forward(w, x, state, y)


def run(w, x, batch=None, way=by_steps, state=None):
    """y and the final state, as a layer returns them."""
    state = jit.init_state(w, batch) if state is None else state
    axes = x.shape[:1] if batch is None else x.shape[:2]
    y = np.full((*axes, w.output_size), np.nan, w.dtype)
    way(w, x, state, y)
    return y, state


# Bits -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [by_steps, at_once])
@pytest.mark.parametrize(
    ("kind", "dtype"), [*((kind, np.float32) for kind in layer_cases.KINDS), ("lstm", np.float64), ("gru", np.float64)]
)
def test_layers(kind, dtype, way):
    layer = make(kind, dtype=dtype)
    w = jit.pack(layer)
    for batch in (None, 1, 7):
        x = data(layer, 9, *(() if batch is None else (batch,)))
        assert equal(run(w, x, batch, way), layer(x))
    assert (w.dtype, w.input_size, w.output_size) == (layer.dtype, 5, layer._output_size)


@pytest.mark.parametrize(("hidden", "batch"), [(1, 3), (16, 1), (64, 50), (300, 40)])
def test_sizes(hidden, batch):
    """More rows than fit the stack at once too."""
    layer = make("lstm", hidden)
    x = data(layer, 3, batch)
    assert equal(run(jit.pack(layer), x, batch), layer(x))


@pytest.mark.parametrize("way", [by_steps, at_once])
@pytest.mark.parametrize("name", STREAMS)
def test_models(name, way):
    model = STREAMS[name]()
    w = jit.pack(model)
    for batch in (None, 3):
        x = sequences(model, batch, 9)
        wanted, final = model.predict(x, state=beginning(model, batch), return_state=True)
        given = x if batch is None else x.swapaxes(0, 1)
        state = tuple(tuple(map(np.copy, s)) if isinstance(s, tuple) else s.copy() for s in beginning(model, batch))
        y, state = run(w, given, batch, way, state)
        assert same_bits(y if batch is None else y.swapaxes(0, 1), wanted)
        assert equal(state, final)


@pytest.mark.parametrize("most", [0, 1 << 20])
@pytest.mark.parametrize("way", [by_steps, at_once])
@pytest.mark.parametrize("name", BY_IDS)
def test_ids_and_vectors(name, way, most, monkeypatch):
    monkeypatch.setattr(fastrnn.packing, "MOST_TABLE_BYTES", most)
    model = BY_IDS[name]()
    w, x = jit.pack(model), sequences(model, 3, 8)
    wanted = model.predict(x)
    for given in (x, model._vectors(x)):
        assert same_bits(run(w, given.swapaxes(0, 1), 3, way)[0].swapaxes(0, 1), wanted)
        assert same_bits(run(w, given[0], None, way)[0], wanted[0])
    assert same_bits(run(w, np.repeat(x, 2, 1)[1, ::2], None, way)[0], wanted[1])
    for wrong in (-1, 11):
        with pytest.raises(ValueError, match=rf"x must hold ids in 0\.\.10, got {wrong}$"):
            run(w, np.array([1, wrong]), None, way)


def test_forward_takes_bidirectional_layers():
    layer = fastrnn.LSTM(5, 17, 2, bidirectional=True).init(0)
    model = fastrnn.SequenceModel([layer, fastrnn.GRU(34, 9).init(0)], head=dense(3, 9, "softmax"))
    x = data(layer, 300, 4)
    assert equal(run(jit.pack(layer), x, 4, at_once), layer(x))
    assert same_bits(run(jit.pack(model), x, 4, at_once)[0].swapaxes(0, 1), model.predict(x.swapaxes(0, 1)))
    for subject in (layer, model):
        with pytest.raises(ValueError, match=r"jit\.step goes forward only.*jit\.forward"):
            run(jit.pack(subject), x, 4)


def test_long_sequences_go_in_chunks():
    layer = make("gru", 64)
    x = data(layer, 3000, 4)
    assert equal(run(jit.pack(layer), x, 4, at_once), layer(x))


@pytest.mark.parametrize("steps", [0, 1])
def test_empty(steps):
    layer = make()
    assert equal(run(jit.pack(layer), data(layer, steps, 0), 0, at_once), layer(data(layer, steps, 0)))
    assert equal(run(jit.pack(layer), data(layer, steps), None, at_once), layer(data(layer, steps)))


def test_another_dtype():
    rng = np.random.default_rng(0)
    for model in (make(), fastrnn.SequenceModel(make(), head=(rng.normal(size=(3, 17)), rng.normal(size=3)))):
        x = rng.normal(size=(4, 5))
        wide = fastrnn.LSTM(5, 17, 2, dtype=np.float64).load_state_dict(make().state_dict())
        head = [] if isinstance(model, fastrnn.LSTM) else list(model.head)
        w = jit.pack(model, dtype=np.float64)
        wanted = fastrnn.SequenceModel(wide, head=head or None).predict(x)
        assert w.dtype == np.float64
        assert same_bits(run(w, x)[0], wanted)


@pytest.mark.parametrize("way", [by_steps, at_once])
def test_strided_inputs(way):
    layer = make()
    wanted, x = layer(data(layer, 6, 4)), data(layer, 6, 4)
    for strided in (np.asfortranarray(x), np.repeat(x, 2, 2)[..., ::2], x[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]):
        assert equal(run(jit.pack(layer), strided, 4, way), wanted)
        assert same_bits(run(jit.pack(layer), strided[:, 1], None, way)[0], wanted[0][:, 1])
    x.flags.writeable = False
    assert equal(run(jit.pack(layer), x, 4, way), wanted)


def test_states():
    layer = make("lstm_proj")
    layer.initial_state = np.full((2, 3), 0.5), np.full((2, 17), -0.5)
    w, x = jit.pack(layer), data(layer, 5)
    y, state = run(w, x)
    assert equal((y, state), layer(x))
    jit.reset(w, state)
    assert equal(state, layer.initial_state)
    assert equal(run(w, x, state=state)[0], y)
    h, c = jit.init_state(w, 3)
    assert (h.shape, c.shape) == ((2, 3, 3), (2, 3, 17))
    assert same_bits(h[:, 1], layer.initial_state[0])
    jit.forward(w, data(layer, 1, 3), (h, c), np.empty((1, 3, 3), np.float32))
    jit.reset(w, (h, c))
    assert same_bits(c[:, 2], layer.initial_state[1])


def test_what_is_packed_stays():
    layer = make()
    w, x = jit.pack(layer), data(layer, 5)
    wanted = layer(x)
    layer.init(seed=9)
    assert equal(run(w, x), wanted)
    assert not equal(run(jit.pack(layer), x), wanted)


# Compiled callers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"fastmath": True}, {"nogil": True}, {"error_model": "numpy"}, {"boundscheck": True}]
)
def test_callers_options(options):
    layer = make("gru")
    x = data(layer, 7)
    caller = numba.njit(**options)(by_steps.py_func)
    assert equal(run(jit.pack(layer), x, way=caller), layer(x))


def test_prange_over_sequences():
    @numba.njit(parallel=True, nogil=True)
    def scan(w, x, out):
        for i in numba.prange(x.shape[0]):
            state = jit.init_state(w)
            y = np.empty(w.output_size, np.float32)
            for t in range(x.shape[1]):
                jit.step(w, x[i, t], state, y)
            out[i] = y

    layer = make()
    x, out = data(layer, 40, 30), np.empty((40, 17), np.float32)
    scan(jit.pack(layer), x, out)
    assert same_bits(out, layer(x.swapaxes(0, 1))[0][-1])


def test_threads_share_weights():
    layer = make("gru", 32)
    w, x = jit.pack(layer), data(layer, 2000)
    wanted, results = layer(x), [None] * 4
    free = numba.njit(nogil=True)(by_steps.py_func)

    def work(i):
        results[i] = run(w, x, way=free)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(equal(result, wanted) for result in results)


def test_a_step_allocates_nothing():
    from numba.core.runtime import _nrt_python, rtsys

    model = BY_IDS["one_hot"]()
    w, ids = jit.pack(model), np.arange(11).repeat(100)
    state, y = jit.init_state(w), np.empty((len(ids), w.output_size), np.float32)
    by_steps(w, ids, state, y)
    _nrt_python.memsys_enable_stats()
    tracemalloc.start()
    try:
        counts = [rtsys.get_allocation_stats().alloc]
        for steps in (1, len(ids)):
            by_steps(w, ids[:steps], state, y)
            counts.append(rtsys.get_allocation_stats().alloc)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        _nrt_python.memsys_disable_stats()
    assert counts[2] - counts[1] == counts[1] - counts[0]  # what the arguments of a call take
    assert peak < 2048  # what the call itself takes, not its 1100 steps


def test_a_step_counts_no_references():
    """What Numba does around a call must not cost more than the call."""
    steps = numba.njit(by_steps.py_func)
    layer = make("gru")
    run(jit.pack(layer), data(layer, 3), way=steps)
    (code,) = steps.inspect_llvm().values()
    own = code[code.index("define ") : code.index("\n}\n")]
    assert "by_steps" in own.splitlines()[0]
    assert "NRT_incref" not in own


@pytest.mark.parametrize("batch", [None, 1, 7])
def test_steps_whose_workspace_the_stack_has_no_room_for(batch, monkeypatch):
    layer, model = make("gru_before"), BY_IDS["one_hot_dense"]()
    of_layer = data(layer, 6, *([] if batch is None else [batch]))
    for subject, x in ((layer, of_layer), (model, np.random.default_rng(0).integers(0, 11, of_layer.shape[:-1]))):
        wanted = run(jit.pack(subject), x, batch)
        with monkeypatch.context() as patch:
            patch.setattr(packed, "_STACK_BYTES", 1)
            patch.setattr(packed, "_ROW_BYTES", 1)
            assert equal(run(jit.pack(subject), x, batch), wanted)


def test_compiled_code_keeps_what_it_was_given():
    @numba.njit
    def steps(w, x):
        state, y = jit.init_state(w), np.empty(w.output_size, np.float32)
        for t in range(len(x)):
            jit.step(w, x[t], state, y)
            yield y.copy()

    @numba.njit
    def of_the_first(several, x, y):
        by_steps(several[0], x, jit.init_state(several[0]), y)
        return y

    layer = make()
    x, w = data(layer, 9), jit.pack(layer)
    chain, several = weakref.ref(w._kept[1]), numba.typed.List([w])
    found = steps(w, x)
    first = next(found)
    del w
    gc.collect()
    assert chain() is not None
    assert same_bits(np.array([first, *found]), layer(x)[0])
    assert same_bits(of_the_first(several, x, np.empty((9, 17), np.float32)), layer(x)[0])
    del several, found
    gc.collect()
    assert chain() is None


def test_arguments_by_name():
    @numba.njit
    def named(w, x, state, y):
        for t in range(len(x)):
            jit.step(w, y=y[t], x=x[t], state=state)

    layer = make("gru")
    w, x = jit.pack(layer), data(layer, 5)
    assert equal(run(w, x, way=named), layer(x))
    state, y = jit.init_state(w, batch=None), np.empty((5, 17), np.float32)
    jit.forward(w, y=y, x=x, state=state)
    assert equal((y, state), layer(x))


def test_values_of_compiled_code():
    """Kept alive while compiled code has them; attributes; in tuples."""

    @numba.njit
    def both(pair, x):
        a, b = pair
        state, y = jit.init_state(a), np.empty(a.output_size, np.float32)
        second, z = jit.init_state(b), np.empty(b.output_size, np.float32)
        for t in range(len(x)):
            jit.step(a, x[t], state, y)
            jit.step(b, y, second, z)
        return z, a.input_size

    first, second = make("gru"), layer_cases.make("lstm", 17, 9, num_layers=2)
    x = data(first, 6)
    z, size = both((jit.pack(first), jit.pack(second)), x)
    assert same_bits(z, second(first(x)[0])[0][-1])
    assert size == 5


def test_activations():
    native = pytest.importorskip("fastrnn._native")
    for dtype in DTYPES:
        a = np.array([-np.inf, -100, -1.5, -0.0, 0, 1e-30, 0.3, 20, np.inf, np.nan], dtype)
        for name, function in (("sigmoid", jit.sigmoid), ("tanh", jit.tanh)):
            fast = numba.njit(fastmath=True)(lambda a, function=function: function(a))
            found = np.array([fast(v) for v in a], dtype)
            assert same_bits(found, native.activate(name, a))
        for size in (0, 1, 7, 16, 100):
            x = np.random.default_rng(0).normal(size=size).astype(dtype) * 5
            out, wanted = np.empty_like(x), np.empty_like(x)
            jit.softmax(x, out)
            native.activate_rows("softmax", x[None], wanted[None])
            assert same_bits(out, wanted)
            jit.softmax(x, x)
            assert same_bits(x, wanted)
    with pytest.raises(ValueError, match="out must have the length of x"):
        jit.softmax(np.zeros(3), np.zeros(4))
    with pytest.raises(TypingError, match="x must be an array"):
        jit.softmax(np.zeros((2, 2))[:, 0], np.zeros(2))
    with pytest.raises(TypingError, match="out must be of float32 or float64, as the other"):
        jit.softmax(np.zeros(2), np.zeros(2, np.float32))
