"""Packages of others: the files on docs/cython.md and docs/c.md, built by setuptools against installs of fastrnn."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastrnn

native = pytest.importorskip("fastrnn._native")
from test_capi import Model, api  # noqa: E402

pytest.importorskip("setuptools", "77")
if shutil.which("cc") is None:
    pytest.skip("no C compiler", allow_module_level=True)

TREE = Path(__file__).parent.parent
FILE = re.compile(r"^```\w+\n(?:#|//|/\*) (\S+\.\w+)(?: \*/)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Before all that this interpreter sees, and with .pth files, which PYTHONPATH alone does not read
SITE = """
import os, site, sys
before = len(sys.path)
site.addsitedir(os.path.dirname(__file__))
sys.path[:] = sys.path[before:] + sys.path[:before]
"""


def run(*command, site, folder, **environment):
    """What a process in a folder prints, with the packages of a site."""
    environment = os.environ | {"PYTHONPATH": str(site)} | environment
    done = subprocess.run(map(str, command), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=["normal", "editable"])
def site(request, tmp_path_factory):
    """A folder that fastrnn is installed into from its sources, but for the compiled module, which is slow to build."""
    tree, folder = tmp_path_factory.mktemp("sources") / "fastrnn", tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITE)
    unused = shutil.ignore_patterns("__pycache__", "*.so", "data")
    shutil.copytree(TREE / "fastrnn", tree / "fastrnn", ignore=unused)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(TREE / name, tree)
    build = "build_wheel" if request.param == "normal" else "build_editable"
    code = f"from setuptools import build_meta; build_meta.{build}({str(folder)!r})"
    run(sys.executable, "-c", code, site=folder, folder=tree, FASTRNN_NO_NATIVE="1")
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder)
    package = (folder if request.param == "normal" else tree) / "fastrnn"
    (package / "_no_native.py").unlink()
    shutil.copy(native.__file__, package)
    where = run(sys.executable, "-c", "import fastrnn; print(fastrnn.__file__)", site=folder, folder=folder)
    assert Path(where.strip()) == package / "__init__.py"
    return folder


def files(page):
    """The files on a page, by name."""
    found = dict(FILE.findall((TREE / "docs" / page).read_text()))
    assert found.keys() >= {"pyproject.toml", "setup.py"}
    return found


@pytest.fixture(scope="module", params=["cython.md", "c.md"])
def package(request, site, tmp_path_factory):
    """A folder with a page's files, and their modules in one of its own."""
    if request.param == "cython.md":
        pytest.importorskip("Cython")
    folder = tmp_path_factory.mktemp("package")
    for name, text in files(request.param).items():
        (folder / name).write_text(text)
    options = ("-q", "--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--no-index")
    command = (sys.executable, "-m", "pip", "install", *options, "--target", folder / "modules", ".")
    run(*command, site=site, folder=folder, CFLAGS="-O0")
    return folder


def run_scripts(package, site, needing_scipy):
    """Those on a page; their names."""
    scripts = [path for path in package.glob("*.py") if path.name != "setup.py"]
    scripts = [path for path in scripts if ("scipy" in path.read_text()) == needing_scipy]
    for script in scripts:
        run(sys.executable, "-W", "error", script, site=f"{package / 'modules'}{os.pathsep}{site}", folder=package)
    return [script.name for script in scripts]


def test_scripts_run(site, package):
    assert run_scripts(package, site, needing_scipy=False) == ["follow.py"]


@pytest.mark.parametrize("package", ["cython.md"], indirect=True)
def test_scipy_calls_a_layer(site, package):
    pytest.importorskip("scipy")
    assert run_scripts(package, site, needing_scipy=True) == ["image.py"]


@pytest.mark.parametrize("package", ["c.md"], indirect=True)
def test_functions_of_another_version(site, package):
    """What C imports is refused then; a cimport finds each function by itself."""
    code = f"""
import ctypes, sys
sys.path.append({str(TREE / "tests")!r})
from test_capi import Api, api
import fastrnn

new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
for name, change in (("version", 1), ("size", -8)):
    other = Api.from_buffer_copy(api)
    setattr(other, name, getattr(api, name) + change)
    fastrnn._C_API = new(ctypes.addressof(other), b"fastrnn._C_API", None)
    try:
        import follower
    except ImportError as error:
        print(error)
fastrnn._C_API = None
other = Api.from_buffer_copy(api)
other.size += 8
fastrnn._C_API = new(ctypes.addressof(other), b"fastrnn._C_API", None)
import follower
"""
    both = f"{package / 'modules'}{os.pathsep}{site}"
    lines = run(sys.executable, "-c", code, site=both, folder=package).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("the installed fastrnn has version 2 of its C interface, 104 bytes")
    assert lines[1].startswith("the installed fastrnn has version 1 of its C interface, 96 bytes")
    assert all("this module was built for version 1, 104 bytes: build it again" in line for line in lines)


# Half of the steps by one object and the others by its copy, while the first goes on with other inputs.
IN_CPLUSPLUS = """
extern "C"
const char *follow_both(const fastrnn_api *rnn, const fastrnn_model *model, const float *x, float *y, int steps)
{
    static float unused[4];
    try {
        Follower first(rnn, model);
        for (int t = 0; t < steps / 2; t++) first.step(x + 3 * t, y + 4 * t);
        Follower second(first);
        for (int t = steps / 2; t < steps; t++) {
            first.step(x, unused);
            second.step(x + 3 * t, y + 4 * t);
        }
        first.step(nullptr, unused);
    } catch (const std::runtime_error &) {
        return "thrown";
    }
    return "";
}
"""


@pytest.mark.parametrize("standard", ["c++11", "c++20"])
def test_cplusplus(standard, tmp_path):
    """The header and the class compile without a warning, as does the C module, and run."""
    compiler = shutil.which("c++") or pytest.skip("no C++ compiler")
    found = files("c.md")
    (tmp_path / "follower.cpp").write_text(found["follower.hpp"] + found["follower.c"] + IN_CPLUSPLUS)
    flags = [f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"]
    shared = ["-shared", "-fPIC", *(["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else [])]
    folders = ["-isystem", sysconfig.get_path("include"), "-I", fastrnn.get_include()]
    library = tmp_path / "follower.so"
    subprocess.run([compiler, *flags, *shared, *folders, tmp_path / "follower.cpp", "-o", library], check=True)

    layer = fastrnn.GRU(3, 4).init(seed=0)
    x, y = np.random.default_rng(0).standard_normal((9, 3), np.float32), np.empty((9, 4), np.float32)
    follow = ctypes.PyDLL(library).follow_both
    follow.restype, follow.argtypes = ctypes.c_char_p, [*[ctypes.c_void_p] * 4, ctypes.c_int]
    model = Model(layer)
    assert follow(ctypes.addressof(api), model.pointer, x.ctypes.data, y.ctypes.data, len(x)) == b"thrown"
    assert np.array_equal(y, layer(x)[0])
