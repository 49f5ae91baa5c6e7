"""What `import fastrnn` loads, offers and says."""

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest

import fastrnn

HEAVY = ("numba", "llvmlite", "torch", "onnx", "onnxruntime", "safetensors", "tqdm", "h5py", "keras", "matplotlib")


def run(code, **environment):
    """Run code in a process of its own; its standard output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded(code):
    """Which of the heavy packages code loads."""
    return run(f"import sys\n{textwrap.dedent(code)}\nprint(*[name for name in {HEAVY} if name in sys.modules])")


def test_import_is_light():
    assert loaded("import fastrnn; dir(fastrnn); fastrnn.load; fastrnn.from_torch") == ""


def test_all_names_load_nothing_heavy():
    assert loaded("from fastrnn import *; GRU(2, 3)") == ""


@pytest.mark.skipif("cython" not in fastrnn.available_backends(), reason="without the compiled module Numba is next")
def test_a_call_loads_nothing_heavy():
    assert loaded("import fastrnn; fastrnn.LSTM(2, 3).init()([[1.0, 2.0]])") == ""


def test_the_reference_loads_nothing_heavy():
    assert loaded("import fastrnn; fastrnn.LSTM(2, 3, backend='reference').init()([[1.0, 2.0]])") == ""


def test_import_does_no_threads():
    assert run("import threading, fastrnn; print(threading.active_count())") == "1"


def test_public_names():
    assert dir(fastrnn) == sorted(fastrnn.__all__)
    for name in fastrnn.__all__:
        assert getattr(fastrnn, name) is not None
        assert getattr(fastrnn, name) is getattr(fastrnn, name)
    modules = {path.partition(".")[0] for path in os.listdir(os.path.dirname(fastrnn.__file__))}
    assert not set(fastrnn.__all__) & (modules - {"__init__"})
    with pytest.raises(AttributeError, match="module 'fastrnn' has no attribute 'Transformer'"):
        fastrnn.Transformer  # noqa: B018


def test_public_names_are_documented():
    for name in set(fastrnn.__all__) - {"ARITHMETIC", "__version__"}:
        assert getattr(fastrnn, name).__doc__, name


def test_arithmetic_is_one_number():
    from fastrnn import cells

    assert fastrnn.ARITHMETIC == cells.ARITHMETIC == 2


BLOCKED = """
    import importlib.util, sys

    class Block:
        def find_spec(self, name, path=None, target=None):
            if name == "fastrnn._native":
                raise ImportError("it is not there")
            if name == "fastrnn._no_native":
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Block())
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, package=None: None if name == "fastrnn._no_native" else find(name, package)
    try:
        import fastrnn
    except ImportError as error:
        print(error)
    else:
        print(fastrnn.available_backends()[-1], "cython" in fastrnn.available_backends())
"""


def test_without_the_compiled_module():
    message = run(BLOCKED, FASTRNN_NO_NATIVE="0")
    assert "compiled module does not load (it is not there)" in message
    assert "pip install" in message
    assert "FASTRNN_NO_NATIVE=1" in message
    assert run(BLOCKED, FASTRNN_NO_NATIVE="1") == "reference False"


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_from_torch_without_torch():
    with pytest.raises(ImportError, match=r"pip install 'fastrnn\[torch\]'"):
        fastrnn.from_torch(None)
