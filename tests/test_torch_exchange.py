"""What fastrnn.torch takes from torch by other ways than its methods: the memory of tensors, and its threads."""

import ctypes
import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

import fastrnn

torch = pytest.importorskip("torch")

from module_cases import KINDS, QUIET, assert_close, assert_same, calls, inputs, pair, states  # noqa: E402

from fastrnn import tensors  # noqa: E402

pytestmark = QUIET
exchange = tensors.EXCHANGE
compiled = pytest.mark.skipif(exchange is None, reason="torch or fastrnn was built without an exchange of tensors")


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


# Tensors --------------------------------------------------------------------------------------------------------------

READ = {
    "vector": torch.randn(3),
    "empty": torch.empty(0, 3),
    "transposed": torch.randn(2, 3, 4).permute(2, 0, 1),
    "sliced": torch.randn(9, 8)[::3, 1::2],
    "expanded": torch.randn(1, 3).expand(4, 3),
    "parameter": torch.nn.Parameter(torch.randn(2, 3)),
    "double": torch.randn(2, 3, dtype=torch.float64),
}


@compiled
@pytest.mark.parametrize("name", READ)
def test_arrays_are_the_memory_of_tensors(name):
    t = READ[name]
    [a] = exchange.arrays((t,), t.dtype == torch.float64)
    expected = t.detach().numpy()
    assert (a.shape, a.strides, a.dtype) == (expected.shape, expected.strides, expected.dtype)
    assert (a.flags.c_contiguous, a.flags.aligned) == (expected.flags.c_contiguous, True)
    np.testing.assert_array_equal(a, expected)
    if a.size:
        assert a.ctypes.data == t.data_ptr()
        assert not a.flags.writeable


@compiled
def test_an_array_keeps_its_tensor():
    t = torch.ones(5)
    [a] = exchange.arrays((t,), False)
    tensor = weakref.ref(t)
    del t
    gc.collect()
    assert tensor() is not None
    assert a.sum() == 5
    del a
    assert tensor() is None


def misaligned():
    wide = torch.frombuffer(bytearray(17), dtype=torch.uint8)
    return torch.from_numpy(wide[1:].numpy().view(np.float32))


NOT_READ = {
    "another dtype": lambda: torch.randn(3, dtype=torch.float64),
    "half": lambda: torch.randn(3, dtype=torch.bfloat16),
    "integers": lambda: torch.arange(3, dtype=torch.int32),
    "complex": lambda: torch.zeros(3, dtype=torch.complex64),
    "negated when read": lambda: torch.complex(torch.zeros(3), torch.ones(3)).conj().imag,
    "zeros without memory": lambda: torch._efficientzerotensor(3),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.empty(3, device="meta"),
    "misaligned": misaligned,
    "of four axes": lambda: torch.zeros(1, 1, 1, 1),
}


@compiled
@pytest.mark.parametrize("name", NOT_READ)
def test_other_tensors_are_left_to_torch(name):
    good = torch.ones(3)
    assert exchange.arrays((good, NOT_READ[name]()), False) is None
    assert exchange.arrays((good, good), False) is not None


@compiled
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tensors_are_the_memory_of_arrays(dtype):
    a = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    for view in (a, a[:, 0], a[0, 0], a.transpose(2, 0, 1), np.empty((0, 3), dtype)):
        [t] = exchange.tensors([view])
        assert t.data_ptr() == view.ctypes.data or not view.size
        assert t.dtype == torch.from_numpy(view).dtype
        np.testing.assert_array_equal(t.numpy(), view)


@compiled
def test_a_tensor_keeps_its_array_and_lets_it_go():
    a = np.ones(5, np.float32)
    before = sys.getrefcount(a)
    tensors = [exchange.tensors([a])[0] for _ in range(10)]
    assert sys.getrefcount(a) == before + 10
    view = tensors[0][1:]
    del tensors
    assert sys.getrefcount(a) == before + 1
    del view
    assert sys.getrefcount(a) == before


def capsule(*words):
    """Return a table of functions that begins with these numbers, and what keeps it alive."""
    table = (ctypes.c_uint64 * 7)(*words)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    name = ctypes.create_string_buffer(b"dlpack_exchange_api")
    return new(ctypes.addressof(table), name, None), table, name


@compiled
def test_tables_that_are_of_no_use():
    kind, two, blind = type(exchange), capsule(2, 0, 1, 1, 1, 1, 1), capsule(1, 0, 1, 1, 1, 0, 1)
    with pytest.raises(ValueError, match="version 2"):
        kind(two[0])
    with pytest.raises(ValueError, match="cannot read"):
        kind(blind[0])
    with pytest.raises(ValueError, match="PyCapsule"):
        kind(None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_without_short_cuts(kind, monkeypatch):
    theirs, ours = pair(kind)
    x, hx = inputs(ours), states(ours)
    expected = ours(x, hx)
    monkeypatch.setattr(tensors, "EXCHANGE", None)
    ours.__dict__.pop("_held")
    assert_same(ours(x, hx), expected)
    for module in (theirs, ours):
        with pytest.raises((RuntimeError, ValueError), match="dtype"):
            module(x.double(), hx)
    ours.weight_hh_l0.data.mul_(2) if hasattr(ours, "weight_hh_l0") else ours.weight_hh.mul_(2)
    theirs.load_state_dict(ours.state_dict())
    assert_close(ours(x, hx), theirs(x, hx))
    assert calls(ours) == (3, 1)


# Threads --------------------------------------------------------------------------------------------------------------

ON_TORCHS = """
import os, threading, torch, fastrnn.torch as fast
from fastrnn import tensors
names = lambda: [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
fast.ALONE = 0
layer, x = fast.LSTM(200, 300, 2).requires_grad_(False), torch.randn(30, 9, 200)
with torch.inference_mode():
    torch.set_num_threads(1)
    expected, _ = layer(x)
    for count in (2, 3):  # of which fastrnn may take fewer
        torch.set_num_threads(count)
        found = [layer(x)[0] for _ in range(3)]
        assert all(torch.equal(y, expected) for y in found)
    assert "fastrnn" not in names(), names()
    found = []
    callers = [threading.Thread(target=lambda: found.extend(layer(x)[0].numpy() for _ in range(5))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 20 and all((y == expected.numpy()).all() for y in found)
    child = os.fork()
    if not child:  # which has none of these threads, and torch would wait for them for ever
        same = (layer(x)[0].numpy() == expected.numpy()).all()
        os._exit(0 if same and "fastrnn" in names() else 1)
    assert os.waitpid(child, 0)[1] == 0
print("ran on torch's threads" if tensors.OPENMP else "no OpenMP")
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads have names on Linux")
@pytest.mark.skipif("cython" not in fastrnn.available_backends(), reason="the compiled backend")
def test_runs_on_torchs_threads():
    if len(os.sched_getaffinity(0)) < 2 or not tensors.OPENMP:
        pytest.skip("one processor, or a torch without OpenMP")
    environment = os.environ | {"FASTRNN_BACKEND": "cython"}
    done = subprocess.run(
        [sys.executable, "-c", ON_TORCHS], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran on torch's threads\n"
