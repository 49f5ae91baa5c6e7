"""The C interface, called as it is through ctypes: bits, states, errors, threads, and what a step must not do."""

import ctypes
import gc
import os
import platform
import shutil
import subprocess
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_ssize_t, c_void_p
from pathlib import Path

import numpy as np
import pytest
from cases import same_bits
from layer_cases import CELLS, KINDS, at_once, inputs, make
from model_cases import STREAMS, deep, sequences

import fastrnn
from fastrnn import backends, capi

pytest.importorskip("fastrnn._native")

OK, NULL, MODEL, STATE, SIZE, ID, NO_IDS, OVERLAP, MEMORY, VERSION = range(0, -10, -1)


class Sizes(ctypes.Structure):
    _fields_ = [(name, c_ssize_t) for name in ("size", "itemsize", "inputs", "outputs", "vocab")]


class Api(ctypes.Structure):
    """fastrnn_api."""

    _fields_ = [
        ("size", c_size_t),
        ("version", c_int),
        ("error_text", ctypes.CFUNCTYPE(c_char_p, c_int)),
        ("get_model", ctypes.PYFUNCTYPE(c_void_p, ctypes.py_object, c_size_t)),
        ("get_sizes", ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(Sizes))),
        ("state_bytes", ctypes.CFUNCTYPE(c_ssize_t, c_void_p, c_ssize_t)),
        ("init_state", ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_ssize_t, c_ssize_t)),
        ("reset_state", ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)),
        ("copy_state", ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_ssize_t)),
        ("step", ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_void_p)),
        ("step_ids", ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_void_p)),
        ("forward", ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_ssize_t, c_void_p)),
        ("forward_ids", ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_ssize_t, c_void_p)),
    ]


def pointer_in(capsule, name):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = c_void_p, [ctypes.py_object, c_char_p]
    return get(capsule, name)


api = Api.from_address(pointer_in(fastrnn._C_API, b"fastrnn._C_API"))


def at(array):
    return None if array is None else array.ctypes.data


class Model:
    """A capsule, its pointer and its sizes."""

    def __init__(self, model):
        self.capsule = fastrnn.capsule(model)
        self.dtype = np.dtype(getattr(model, "dtype", None) or model._dtype)
        self.pointer = api.get_model(self.capsule, self.dtype.itemsize)
        self.sizes = Sizes(ctypes.sizeof(Sizes))
        assert api.get_sizes(self.pointer, byref(self.sizes)) == OK

    def state(self, batch=1, misaligned=0):
        memory = np.full(api.state_bytes(self.pointer, batch) + misaligned, 0xA5, np.uint8)[misaligned:]
        assert api.init_state(self.pointer, at(memory), len(memory), batch) == OK
        return memory

    def result(self, *axes):
        return np.full((*axes, self.sizes.outputs), np.nan, self.dtype)

    def steps(self, state, x):
        """One call for each of x (T, B, ..)."""
        y = self.result(*x.shape[:2])
        function = api.step_ids if x.ndim == 2 else api.step
        for now, out in zip(x, y, strict=True):
            assert function(self.pointer, at(state), at(now), at(out)) == OK
        return y

    def forward(self, state, x):
        y = self.result(*x.shape[:2])
        function = api.forward_ids if x.ndim == 2 else api.forward
        assert function(self.pointer, at(state), at(x), len(x), at(y)) == OK
        return y


# Bits -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [*KINDS, "rnn_linear"])
def test_layers_have_the_bits_of_a_call(kind, dtype):
    for layers, hidden, batch in ((1, 7, 1), (2, 33, 3), (3, 40, 9)):
        layer = make(kind.replace("_linear", ""), 5, hidden, num_layers=layers, dtype=dtype)
        if kind == "rnn_linear":
            layer._activation = "linear"
        model, x = Model(layer), inputs(layer, 60, batch)
        expected = layer(x)[0]
        assert same_bits(model.steps(model.state(batch), x), expected)
        assert same_bits(model.forward(model.state(batch, misaligned=13), x), expected)
        state = model.state(batch)
        parts = [model.forward(state, x[:7]), model.steps(state, x[7:11]), model.forward(state, x[11:])]
        assert same_bits(np.concatenate(parts), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STREAMS)
def test_models_have_the_bits_of_predict(name, dtype):
    whole = STREAMS[name](dtype)
    model = Model(whole)
    assert model.sizes.outputs == whole._output_size
    assert model.sizes.inputs == whole._input_size
    assert model.sizes.vocab == (whole._vocab or 0)
    for batch in (1, 3, 50):
        x = sequences(whole, batch, 25)
        expected = whole.predict(x).swapaxes(0, 1)
        x = np.ascontiguousarray(x.swapaxes(0, 1))
        assert same_bits(model.steps(model.state(batch), x), expected)
        assert same_bits(model.forward(model.state(batch), x), expected)


@pytest.mark.parametrize("embedding", ["one_hot", "matrix", "large", "dense", "one_hot_dense"])
def test_ids(embedding, monkeypatch):
    """Through tables, through rows of a matrix that is too large for them, and where no recurrent layer comes first."""
    vocab = 11
    if embedding == "large":
        monkeypatch.setattr("fastrnn.packing.MOST_TABLE_BYTES", 0)
    rng = np.random.default_rng(0)
    size = vocab if "one_hot" in embedding else 6
    matrix = "one_hot" if "one_hot" in embedding else rng.normal(size=(vocab, size))
    layers = [make("gru_before", size, 20, num_layers=2)]
    if "dense" in embedding:
        layers = [fastrnn.Dense(rng.normal(size=(5, size)), activation="tanh"), make("lstm", 5, 20)]
    head = fastrnn.Dense(rng.normal(size=(vocab, 20)), activation="log_softmax")
    whole = fastrnn.SequenceModel(layers, embedding=matrix, head=head)
    model, ids = Model(whole), rng.integers(0, vocab, (40, 3))
    expected = whole.predict(ids.T).swapaxes(0, 1)
    assert same_bits(model.steps(model.state(3), ids), expected)
    assert same_bits(model.forward(model.state(3), ids), expected)
    vectors = rng.normal(size=(4, 3, model.sizes.inputs)).astype(np.float32)  # which pass the embedding by
    expected = whole.predict(vectors.swapaxes(0, 1)).swapaxes(0, 1)
    assert same_bits(model.steps(model.state(3), vectors), expected)
    assert same_bits(model.forward(model.state(3), vectors), expected)


@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind):
    cell = CELLS[kind](5, 17).init(seed=0)
    model, x = Model(cell), np.random.default_rng(0).normal(size=(4, 2, 5)).astype(np.float32)
    hx, expected = None, []
    for now in x:
        hx = cell(now, hx)
        expected.append(hx[0] if kind == "lstm" else hx)
    assert same_bits(model.steps(model.state(2), x), np.array(expected))


def test_chunks_of_a_long_sequence():
    """A model of several parts goes through them in chunks of time."""
    whole = STREAMS["forward"]()
    model, x = Model(whole), sequences(whole, 1, 1100)
    assert same_bits(model.forward(model.state(1), x.swapaxes(0, 1).copy())[:, 0], whole.predict(x)[0])


@pytest.mark.parametrize("backend", fastrnn.available_backends())
def test_the_backend_in_use_does_not_matter(backend):
    layer = make("lstm")
    x = inputs(layer)
    with fastrnn.use_backend("cython"):
        expected = layer(x)[0]
    with fastrnn.use_backend(backend):
        model = Model(layer)
    assert same_bits(model.steps(model.state(3), x), expected)


# States ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_states_begin_as_the_layer_does_and_go_back(kind):
    layer = make(kind, num_layers=2)
    rng = np.random.default_rng(0)
    state = tuple(rng.normal(size=(2, n)) for n in layer._state_sizes)
    layer.initial_state = state if len(state) > 1 else state[0]
    model, x = Model(layer), inputs(layer, batch=4)
    memory = model.state(4)
    first = model.steps(memory, x)
    assert same_bits(first, layer(x)[0])
    assert not same_bits(model.steps(memory, x), first)
    assert api.reset_state(model.pointer, at(memory)) == OK
    assert same_bits(model.steps(memory, x), first)


@pytest.mark.parametrize("name", STREAMS)
def test_a_clone_goes_its_own_way(name):
    whole = STREAMS[name]()
    model = Model(whole)
    x = np.ascontiguousarray(sequences(whole, 2, 12).swapaxes(0, 1))
    state = model.state(2)
    model.steps(state, x[:4])
    clone = np.random.default_rng(0).integers(0, 256, len(state) + 7, np.uint8)[7:]
    assert api.copy_state(model.pointer, at(state), at(clone), len(clone)) == OK
    other = model.steps(clone, x[8:])
    expected = model.forward(model.state(2), x)
    assert same_bits(model.steps(state, x[4:]), expected[4:])
    assert not same_bits(other, expected[8:])
    assert api.copy_state(model.pointer, at(state), at(clone), len(clone)) == OK
    assert same_bits(model.steps(clone, x), model.steps(state, x))


def test_the_weights_are_those_of_the_capsule():
    layer = make("lstm")
    x, model = inputs(layer), Model(layer)
    expected = layer(x)[0]
    layer.init(seed=1)
    assert same_bits(model.steps(model.state(3), x), expected)
    model = Model(layer)
    assert same_bits(model.steps(model.state(3), x), layer(x)[0])


# Errors ---------------------------------------------------------------------------------------------------------------


def test_what_has_no_capsule():
    with pytest.raises(fastrnn.UnsupportedError, match="goes forward only, and LSTM"):
        fastrnn.capsule(make("lstm", bidirectional=True))
    with pytest.raises(fastrnn.UnsupportedError, match="goes forward only, and RNN"):
        fastrnn.capsule(deep())
    with pytest.raises(ValueError, match="has no weights"):
        fastrnn.capsule(fastrnn.GRU(2, 3))
    with pytest.raises(TypeError, match=r"capsule takes a layer, .* fastrnn.from_torch\(module\) returns, got int"):
        fastrnn.capsule(3)


def test_without_the_compiled_module(monkeypatch):
    monkeypatch.delitem(backends._loaded, "cython", raising=False)
    monkeypatch.setitem(backends._absent, "cython", "it is hidden")
    with pytest.raises(ImportError, match=r"'cython' cannot run here \(it is hidden\).* cure: reinstall fastrnn"):
        fastrnn.capsule(make("lstm"))


def test_get_model():
    with pytest.raises(TypeError, match=r"expected what fastrnn.capsule\(layer_or_model\) returns, got LSTM"):
        api.get_model(make("lstm"), 4)
    with pytest.raises(TypeError, match=r"computes in float64, and its caller in numbers of 32 bits: build its layers"):
        api.get_model(fastrnn.capsule(make("lstm", dtype="float64")), 4)


def test_every_error_has_a_text():
    texts = [api.error_text(error) for error in range(0, -10, -1)]
    assert len(set(texts)) == 10
    assert {api.error_text(error) for error in (1, -10, -(2**31))} == {b"unknown error"}


def test_arguments_that_are_null():
    model, x, y = Model(make("lstm")), np.zeros((1, 5), np.float32), np.zeros((1, 7), np.float32)
    state = model.state()
    m, s, n = model.pointer, at(state), len(state)
    assert api.get_sizes(None, byref(model.sizes)) == NULL
    assert api.get_sizes(m, None) == NULL
    assert api.state_bytes(None, 1) == NULL
    assert api.init_state(None, s, n, 1) == NULL
    assert api.init_state(m, None, n, 1) == NULL
    assert api.reset_state(None, s) == api.reset_state(m, None) == NULL
    assert api.copy_state(None, s, s, n) == api.copy_state(m, None, s, n) == api.copy_state(m, s, None, n) == NULL
    for function, more in ((api.step, ()), (api.forward, (1,))):
        for arguments in ((None, s, at(x), at(y)), (m, None, at(x), at(y)), (m, s, None, at(y)), (m, s, at(x), None)):
            assert function(*arguments[:3], *more, arguments[3]) == NULL
    assert not y.any()
    assert api.step(m, s, at(x), at(y)) == OK


def test_nothing_to_do():
    model, x, y = Model(make("lstm")), np.zeros(5, np.float32), np.full(7, 3, np.float32)
    none, one = model.state(0), model.state(1)
    assert api.step(model.pointer, at(none), None, None) == OK
    assert api.forward(model.pointer, at(none), None, 5, None) == OK
    assert api.forward(model.pointer, at(one), None, 0, None) == OK
    assert api.forward(model.pointer, at(one), at(x), 0, at(y)) == OK
    assert (y == 3).all()


def test_sizes():
    model, x, y = Model(make("lstm")), np.zeros(5, np.float32), np.full(7, 3, np.float32)
    needed, memory = api.state_bytes(model.pointer, 2), np.empty(10**6, np.uint8)
    assert needed > 0
    for batch in (-1, -(2**63), 2**62, 2**63 - 1):
        assert api.state_bytes(model.pointer, batch) == SIZE
        assert api.init_state(model.pointer, at(memory), 2**63 - 1, batch) == SIZE
    for n in (needed - 1, 0, -1):
        assert api.init_state(model.pointer, at(memory), n, 2) == SIZE
        assert api.copy_state(model.pointer, at(model.state(2)), at(memory), n) == SIZE
    for steps in (-1, -(2**63), 2**62):
        assert api.forward(model.pointer, at(model.state()), at(x), steps, at(y)) == SIZE
    assert (y == 3).all()


@pytest.mark.parametrize("size", [0, 8, ctypes.sizeof(Sizes) - 8, ctypes.sizeof(Sizes) + 8])
def test_sizes_of_another_version(size):
    assert api.get_sizes(Model(make("gru")).pointer, byref(Sizes(size))) == VERSION


def test_ids_and_vectors_where_they_do_not_belong():
    whole = STREAMS["characters"]()
    model, ids, y = Model(whole), np.zeros(3, np.int64), np.full((2, 3, 19), 3, np.float32)
    state = model.state(3)
    expected = model.state(3)
    for wrong in (-1, 19, -(2**63), 2**63 - 1):
        for at_row in range(3):
            ids[:] = 0
            ids[at_row] = wrong
            assert api.step_ids(model.pointer, at(state), at(ids), at(y)) == ID
        both = np.stack([np.zeros(3, np.int64), ids])
        assert api.forward_ids(model.pointer, at(state), at(both), 2, at(y)) == ID
    assert (y == 3).all()
    ids[:] = 0
    assert same_bits(model.steps(state, ids[None]), model.steps(expected, ids[None]))
    layer = Model(make("gru"))
    assert api.step_ids(layer.pointer, at(layer.state()), at(ids), at(y)) == NO_IDS
    assert api.forward_ids(layer.pointer, at(layer.state()), at(ids), 1, at(y)) == NO_IDS


def test_overlap():
    model = Model(make("gru", 7, 7))
    both, state = np.zeros(100, np.float32), model.state()
    for shift in range(-6, 7):
        assert api.step(model.pointer, at(state), at(both[30:]), at(both[30 + shift :])) == OVERLAP
        assert api.forward(model.pointer, at(state), at(both[30:]), 2, at(both[30 + 2 * shift :])) == OVERLAP
    assert api.copy_state(model.pointer, at(state), at(state), len(state)) == OVERLAP
    assert not both.any()
    assert api.step(model.pointer, at(state), at(both[30:]), at(both[37:])) == OK
    assert api.step(model.pointer, at(state), at(both[30:]), at(both[23:])) == OK


def test_memory_that_is_no_state_of_the_model():
    layer = make("gru")
    model, other = Model(layer), Model(layer)
    x, y = np.zeros((1, 1, 5), np.float32), np.full(7, 3, np.float32)
    state = model.state()
    moved = np.empty(len(state) + 128, np.uint8)
    moved = moved[(at(state) - at(moved)) % 128 :][: len(state)]
    moved[:] = state  # as memcpy would have it
    for wrong in (other.state(), moved, np.zeros_like(state), np.full_like(state, 255)):
        assert api.step(model.pointer, at(wrong), at(x), at(y)) == STATE
        assert api.forward(model.pointer, at(wrong), at(x), 1, at(y)) == STATE
        assert api.reset_state(model.pointer, at(wrong)) == STATE
        assert api.copy_state(model.pointer, at(wrong), at(state), len(state)) == STATE
    assert (y == 3).all()
    model.steps(state, x)


def test_a_model_whose_capsule_is_gone():
    layer = make("gru")
    model, x, y = Model(layer), np.zeros(5, np.float32), np.full(7, 3, np.float32)
    state = model.state()
    del model.capsule
    gc.collect()
    assert api.get_sizes(model.pointer, byref(model.sizes)) == MODEL
    assert api.state_bytes(model.pointer, 1) == MODEL
    assert api.init_state(model.pointer, at(state), len(state), 1) == MODEL
    assert api.reset_state(model.pointer, at(state)) == MODEL
    assert api.copy_state(model.pointer, at(state), at(state), len(state)) == MODEL
    assert api.step(model.pointer, at(state), at(x), at(y)) == MODEL
    assert api.forward(model.pointer, at(state), at(x), 1, at(y)) == MODEL
    again = Model(layer)  # in the same place, perhaps: then the old state is not its own
    assert api.step(again.pointer, at(state), at(x), at(y)) == STATE
    assert (y == 3).all()


def test_a_capsule_holds_what_it_needs_and_no_longer():
    resource = pytest.importorskip("resource")

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 2**-10)

    before = np.inf
    for i in range(60):  # 4 MB of weights each
        layer = make("lstm", 500, 300)
        model, x = Model(layer), inputs(layer, 2, 1)
        expected = layer(x)[0]
        del layer
        gc.collect()
        assert same_bits(model.steps(model.state(), x), expected)
        before = peak() if i == 20 else before
    assert peak() - before < 2**26


def test_get_include():
    assert (Path(fastrnn.get_include()) / "fastrnn.h").is_file()
    assert capi.get_include() == fastrnn.get_include()


# Threads --------------------------------------------------------------------------------------------------------------


def test_one_model_in_many_threads():
    """ctypes lets go of the GIL in each call."""
    whole = STREAMS["characters"]()
    model = Model(whole)
    xs = [sequences(whole, 2, 300, seed).T.copy() for seed in range(4)]
    expected = [model.forward(model.state(2), x) for x in xs]
    results = at_once(lambda i: model.steps(model.state(2), xs[i]), 4)
    assert all(map(same_bits, results, expected))


# Real time ------------------------------------------------------------------------------------------------------------

TRAPPED = """
import ctypes, sys
import numpy as np
sys.path.insert(0, {tests!r})
from test_capi import Model, api, at
from layer_cases import KINDS, inputs, make
from model_cases import STREAMS, sequences

traps = ctypes.CDLL({library!r})
traps.trap.restype = ctypes.c_char_p
traps.trap.argtypes = [ctypes.c_void_p] * 5

def trap(function, *arguments):
    found = traps.trap(ctypes.cast(function, ctypes.c_void_p), *arguments, *[None] * (4 - len(arguments)))
    return found and found.decode()

# Each trap catches what it is for
libc, mutex = ctypes.CDLL(None), np.zeros(64, np.uint8)
assert trap(libc.malloc, 64) == "malloc"
assert trap(libc.calloc, 64, 1) == "calloc"
assert trap(libc.realloc, None, 64) == "realloc"
assert trap(libc.free, None) == "free"
assert trap(libc.posix_memalign, at(mutex), 64, 64) == "posix_memalign"
mutex[:] = 0
assert trap(libc.pthread_mutex_lock, at(mutex)) == "pthread_mutex_lock"
assert trap(libc.sched_yield) == "system call"
assert trap(libc.abs, 3) == "an error"

models = [make(kind, 20, 40, num_layers=2, dtype=dtype) for kind in KINDS for dtype in ("float32", "float64")]
models += [make("lstm", 300, 300)] + [STREAMS[name]() for name in STREAMS]
for whole in models:
    model = Model(whole)
    for batch in (1, 3, 40):
        state, clone = model.state(batch), model.state(batch)
        x = np.zeros((batch, model.sizes.inputs), model.dtype)
        y = model.result(batch)
        assert trap(api.step, model.pointer, at(state), at(x), at(y)) is None
        if model.sizes.vocab:
            ids = np.arange(batch) % model.sizes.vocab
            assert trap(api.step_ids, model.pointer, at(state), at(ids), at(y)) is None
        assert trap(api.reset_state, model.pointer, at(state)) is None
        assert trap(api.copy_state, model.pointer, at(state), at(clone), len(clone)) is None
        assert trap(api.step, model.pointer, at(state), at(x), None) == "an error"
        assert np.isfinite(y).all()
print("done")
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the traps are glibc's and Linux's")
def test_a_step_neither_allocates_nor_locks_nor_enters_the_system(tmp_path):
    """In a process whose malloc and mutexes are trapped, and in children that Linux kills at any call of it."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    tests, library = Path(__file__).parent, tmp_path / "traps.so"
    flags = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, tests / "c" / "traps.c", "-o", library, "-ldl"], check=True)
    code = TRAPPED.format(tests=str(tests), library=str(library))
    environment = os.environ | {"LD_PRELOAD": str(library)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
