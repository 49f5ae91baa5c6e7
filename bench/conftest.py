"""The `compare` fixture: one engine against ours on one row, and what is written about it."""

import os
import sys
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "FASTRNN_NUM_THREADS", "NUMBA_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before NumPy is loaded; for rows of one thread
sys.path.insert(0, str(Path(__file__).parent))

import functools  # noqa: E402
import importlib.metadata  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from typing import Any  # noqa: E402

import fresh  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn._bench import engines, ratios  # noqa: E402
from fastrnn._bench.problems import Problem, Row, problem  # noqa: E402
from fastrnn._bench.workers import Crew  # noqa: E402

PACKAGES = ("numpy", "numba", "torch", "onnxruntime", "openvino", "fastrnn")


class Clock:
    """pytest-benchmark's timer: seconds per call as the engines count them, in whatever process they are."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


clock = Clock()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows", choices=("core", "all"), default="core", help="the README's rows, or all (hours)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "default")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per row of the module and engine; the engines of a row follow each other."""
    cases = [(row, name) for row in metafunc.module.ROWS for name in engines.engines(row)]
    metafunc.parametrize(("row", "engine"), cases, ids=[f"{row.name}-{name}" for row, name in cases])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = {True: [], False: []}
    for item in items:
        item.add_marker(pytest.mark.benchmark(timer=clock))
        chosen[config.getoption("rows") == "all" or item.callspec.params["row"].core].append(item)
    config.hook.pytest_deselected(items=chosen[False])
    items[:] = chosen[True]


@pytest.fixture(scope="session")
def crew() -> Iterator[Crew]:
    with Crew() as crew:
        yield crew


@functools.lru_cache(maxsize=1)
def prepared(row: Row) -> tuple[Problem, np.ndarray]:
    """A row's problem and the output that all must agree with."""
    of = problem(row)
    return of, ratios.Local(engines.build("reference", of)).output()


@pytest.fixture(scope="session")
def contender(crew: Crew, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ratios.Contender]:
    """Prepare an engine for a row and check its output; ours is kept for the other engines of the row."""

    @functools.lru_cache(maxsize=1)
    def first(row: Row) -> ratios.Contender:
        return make(row, engines.ours(row), False)

    def make(row: Row, name: str, second: bool = True) -> ratios.Contender:
        of, expected = prepared(row)
        if row.family == "C":
            made: ratios.Contender = fresh.Cold(name, of, tmp_path_factory.mktemp("cold"))
        else:
            made = crew.contender(name, of, second)
        if name not in ("lstm", "normal", "dense"):  # which compute something else
            found = ratios.agreement(made.output(), expected)
            assert found.fraction == 1, found
        return made

    return lambda row, name=None: first(row) if name is None else make(row, name)


@pytest.fixture
def record(benchmark: Any) -> Callable[..., None]:
    """Keep what the report reads."""

    def keep(row: Row, name: str, **found: Any) -> None:
        benchmark.group = row.name
        benchmark.extra_info.update(
            row=row.name,
            core=row.core,
            engine=name,
            ours=engines.ours(row),
            flops=row.flops,
            threads=row.threads,
            load=os.getloadavg()[0],
            **found,
        )

    return keep


@pytest.fixture
def compare(
    benchmark: Any, contender: Callable[..., ratios.Contender], record: Callable[..., None]
) -> Callable[[Row, str], None]:
    """Check that an engine agrees, time it against ours, and keep the result."""

    def run(row: Row, name: str) -> None:
        if reason := engines.obstacle(name, row):
            pytest.skip(f"{name}: {reason}")
        ours, other = contender(row), contender(row, name)
        ratio = ratios.compare(ours, other)
        setting = getattr(other, "setting", engines.Setting(row.threads))
        figures = {key: float(f"{value:.5g}") for key, value in ratio._asdict().items()}
        record(row, name, ratio=figures, setting=setting._asdict())
        count = ratios.calls_per_block(other)

        def call() -> None:
            clock.now += other.block(count) * other.scale / count

        benchmark.pedantic(call, rounds=3)

    return run


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """What the figures depend on, and no name of a machine."""
    info = fastrnn.cpu_info()
    del info["num_threads"]  # a setting, which each row has its own of
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
    rows = [benchmark["extra_info"] for benchmark in output_json["benchmarks"]]
    kept = {"date": output_json["datetime"][:10], "machine": output_json["machine_info"], "rows": rows}
    output_json.clear()
    output_json.update(kept)
