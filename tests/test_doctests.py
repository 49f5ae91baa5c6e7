"""Every example in a docstring, in the README or in docs/ runs."""

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
from pathlib import Path

import pytest
from cases import skip_without_extra

import fastrnn

TREE = Path(__file__).parent.parent
MODULES = ["fastrnn", *(module.name for module in pkgutil.walk_packages(fastrnn.__path__, "fastrnn."))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = BLOCK.findall((TREE / "README.md").read_text())
TEXTS = {page: page.read_text(encoding="utf-8") for page in sorted((TREE / "docs").glob("*.md"))}
PACKAGE = "```toml\n# pyproject.toml\n"  # the blocks of such a page are files: test_foreign.py builds and runs them
EXAMPLES_NEED = {"fastrnn.conversion": "torch", "fastrnn.plot": "matplotlib"}  # for their examples
PAGES = [page for page, text in TEXTS.items() if BLOCK.search(text) and PACKAGE not in text]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    skip_without_extra(name)
    if name in EXAMPLES_NEED:
        pytest.importorskip(EXAMPLES_NEED[name])
    finder = doctest.DocTestFinder(exclude_empty=True)
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for example in finder.find(importlib.import_module(name), name):
        runner.run(example, out=report.write)
    assert not runner.failures, report.getvalue()


def skip_without_frameworks(text):
    """Skip where a program imports what is not installed."""
    for framework in re.findall(r"^\s*(?:>>> )?(?:import|from) (torch|onnx|keras|numba)\b", text, re.MULTILINE):
        pytest.importorskip(framework)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block{number}" for number in range(1, len(BLOCKS) + 1)])
def test_readme(block, tmp_path, monkeypatch):
    """Blocks with prompts are compared, blocks without are run."""
    skip_without_frameworks(block)
    monkeypatch.chdir(tmp_path)
    if ">>>" in block:
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        report = io.StringIO()
        runner.run(doctest.DocTestParser().get_doctest(block, {}, "README", "README.md", 0), out=report.write)
        assert not runner.failures, report.getvalue()
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_docs(page, monkeypatch):
    """The blocks of a page are one program, run from the top of the tree."""
    text = TEXTS[page]
    skip_without_frameworks("".join(BLOCK.findall(text)))
    if "fastrnn.plot" in text:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(TREE)
    session = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in BLOCK.finditer(text):
            lines = "\n" * text[: block.start(1)].count("\n")  # so that a traceback names the page's line
            exec(compile(lines + block[1], page, "exec"), session)
