"""The `compare` fixture: one engine against our compiled kernels on one row, and what is written about it."""

import os
import sys
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "FASTRNN_NUM_THREADS", "NUMBA_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before NumPy is loaded
sys.path.insert(0, str(Path(__file__).parent))

import functools  # noqa: E402
import importlib.metadata  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import engines  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import ratios  # noqa: E402
from rows import Row  # noqa: E402

import fastrnn  # noqa: E402

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}  # of an output, in absolute terms: outputs lie in [-1, 1]
PACKAGES = ("numpy", "numba", "torch", "onnxruntime", "fastrnn")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows", choices=("core", "all"), default="core", help="the README's rows, or all (an hour)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "default")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per row of the module and engine; the engines of a row follow each other."""
    cases = [(row, engine) for row in metafunc.module.ROWS for engine in engines.names(row)]
    metafunc.parametrize(("row", "engine"), cases, ids=[f"{row.name}-{engine}" for row, engine in cases])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("rows") == "all":
        return
    chosen = {True: [], False: []}
    for item in items:
        chosen[item.callspec.params["row"].core].append(item)
    config.hook.pytest_deselected(items=chosen[False])
    items[:] = chosen[True]


@functools.lru_cache(maxsize=1)
def prepared(row: Row) -> tuple[engines.Problem, engines.Engine, np.ndarray]:
    """A row's problem, our engine for it and the output that all must agree with."""
    problem = engines.problem(row)
    reference = engines.build("reference", problem)
    return problem, engines.build("cython", problem), reference.numpy(reference.call())


@pytest.fixture
def compare(benchmark: Any) -> Callable[[Row, str], None]:
    """Check that an engine agrees, time it against ours, and keep the result."""

    def run(row: Row, name: str) -> None:
        load = os.getloadavg()[0]
        problem, ours, expected = prepared(row)
        engine = engines.build(name, problem)
        for candidate in (ours,) if name == "lstm" else (ours, engine):
            with candidate.context():
                np.testing.assert_allclose(
                    candidate.numpy(candidate.call()), expected, rtol=0, atol=TOLERANCE[row.dtype]
                )
        ratio = ratios.compare(ours, engine, rounds=2 if name == "reference" else ratios.ROUNDS)
        benchmark.group = row.name
        benchmark.extra_info.update(
            row=row.name, core=row.core, engine=name, ratio=ratio._asdict(), flops=row.flops, load=load, threads=1
        )
        with engine.context():
            benchmark.pedantic(engine.call, rounds=5, iterations=ratios.calls_per_block(engine))

    return run


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """What the figures depend on, and no name of a machine."""
    info = fastrnn.cpu_info()
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    machine_info.clear()
    machine_info.update(cpu=info, python=sys.version.split()[0], versions=versions, cores=os.cpu_count())


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Keep what the report reads."""
    rows = [
        benchmark["extra_info"] | {name: benchmark["stats"][name] for name in ("median", "iqr")}
        for benchmark in output_json["benchmarks"]
    ]
    kept = {"date": output_json["datetime"][:10], "machine": output_json["machine_info"], "rows": rows}
    output_json.clear()
    output_json.update(kept)
