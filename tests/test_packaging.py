"""What an installed fastrnn consists of, and what importing it costs."""

import importlib
import importlib.metadata
import importlib.resources
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cases import skip_without_extra

import fastrnn

MODULES = [module.name for module in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.")]
TREE = Path(__file__).parent.parent

IMPORT = """
import json, sys, time
import numpy
before, start = set(sys.modules), time.perf_counter()
import fastrnn
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "modules": sorted(set(sys.modules) - before)}))
"""


def run(code):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_little():
    modules = json.loads(run(IMPORT))["modules"]
    assert {name for name in modules if name.startswith("fastrnn")} <= {"fastrnn", "fastrnn._native"}
    assert len(modules) <= 20, modules


def test_import_is_quick():
    """30 ms beyond NumPy; any of many tries will do, so that a busy machine does not fail the test."""
    assert any(json.loads(run(IMPORT))["seconds"] <= 0.030 for _ in range(20))


@pytest.mark.parametrize("name", [name for name in MODULES if name != "fastrnn._no_native"])
def test_modules_have_a_docstring_and_an_honest_all(name):
    skip_without_extra(name)
    module = importlib.import_module(name)
    assert name == "fastrnn._native" or module.__doc__
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public)


def test_package_data():
    files = importlib.resources.files("fastrnn")
    assert (files / "py.typed").is_file()
    assert (files / "_native.pyi").is_file()
    assert (files / "__init__.pxd").is_file()
    assert (files / "include" / "fastrnn.h").is_file()
    assert any(file.name.endswith(".safetensors") for file in (files / "data").iterdir())


def test_version_agrees():
    assert importlib.metadata.version("fastrnn") == fastrnn.__version__
    newest = re.search(r"^## (\S+)", (TREE / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == fastrnn.__version__


def test_requirements():
    requirements = importlib.metadata.requires("fastrnn") or []
    always = {re.match(r"[\w-]+", line)[0] for line in requirements if "extra ==" not in line}
    assert always == {"numpy", "safetensors", "tqdm"}
    for_tests = [line for line in requirements if re.search(r"extra == .test.", line)]
    assert for_tests
    assert not any(line.startswith(("torch", "onnx")) for line in for_tests)


def test_command_is_installed():
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="fastrnn")
    assert callable(command.load())
