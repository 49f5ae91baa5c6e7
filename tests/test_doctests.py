"""Every example in a docstring or in the README runs."""

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
from pathlib import Path

import pytest

import fastrnn

TREE = Path(__file__).parent.parent
MODULES = ["fastrnn", *(module.name for module in pkgutil.walk_packages(fastrnn.__path__, "fastrnn."))]
BLOCKS = re.findall(r"^```python\n(.*?)^```", (TREE / "README.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    if name == "fastrnn.torch":
        pytest.importorskip("torch")
    if name.startswith("fastrnn.numba_kernels"):
        pytest.importorskip("numba")
    finder = doctest.DocTestFinder(exclude_empty=True)
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for example in finder.find(importlib.import_module(name), name):
        runner.run(example, out=report.write)
    assert not runner.failures, report.getvalue()


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block{number}" for number in range(1, len(BLOCKS) + 1)])
def test_readme(block, tmp_path, monkeypatch):
    """Blocks with prompts are compared, blocks without are run."""
    for framework in re.findall(r"^\s*(?:>>> )?(?:import|from) (torch|onnx|keras)\b", block, re.MULTILINE):
        pytest.importorskip(framework)
    monkeypatch.chdir(tmp_path)
    if ">>>" in block:
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        report = io.StringIO()
        runner.run(doctest.DocTestParser().get_doctest(block, {}, "README", "README.md", 0), out=report.write)
        assert not runner.failures, report.getvalue()
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
