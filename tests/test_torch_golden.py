"""Every backend against what torch 2.13 once gave, and against its errors; needs no torch. See golden/make_torch.py."""

import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import assert_close
from golden import make_torch
from layer_cases import arrays, checksum, draw, oracle

with np.load(make_torch.GOLDEN) as _file:
    GOLDEN = dict(_file)
CASES = json.loads(str(GOLDEN["cases"]))


def families(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test for every kind and dtype."""
    return pytest.mark.parametrize("kind", make_torch.KINDS)(pytest.mark.parametrize("dtype", make_torch.DTYPES)(test))


@functools.cache
def family(kind: str, dtype: str) -> list[tuple[dict[str, Any], list[Any], list[list[np.ndarray]]]]:
    """All cases of a kind and a dtype, with what is drawn for them and what the oracle says, for each seed."""
    rows = []
    for case in CASES:
        if (case["kind"], case["dtype"]) == (kind, dtype):
            drawn = [draw(case, seed) for seed in make_torch.SEEDS]
            assert checksum(drawn) == case["checksum"], (
                f"{case['name']}: not the weights and inputs that torch.npz was made for: numpy's generator or "
                "layer_cases.draw has changed (python tests/golden/make_torch.py makes it anew)"
            )
            rows.append((case, drawn, [oracle(*d) for d in drawn]))
    return rows


def assert_golden(results: list[np.ndarray], case: dict[str, Any]) -> None:
    """Close to what torch gave for the first seed."""
    flat = np.concatenate([a.ravel() for a in results])
    assert flat.dtype == case["dtype"]
    assert_close(flat, GOLDEN[case["name"]], "torch golden", case["dtype"])


def test_the_file_is_of_the_table_of_the_script():
    measured = ("error", "checksum")
    assert [{k: v for k, v in case.items() if k not in measured} for case in CASES] == make_torch.table()
    assert set(GOLDEN) == {"torch", "cases"} | {c["name"] for c in CASES if c["steps"] != make_torch.LONG}
    assert str(GOLDEN["torch"]).startswith(make_torch.VERSION)


@families
def test_results(backend, kind, dtype):
    for case, [(layer, x, hx, lengths), *_], [exact, *_] in family(kind, dtype):
        if case["steps"] != make_torch.LONG:
            results = list(arrays(layer(x, hx, lengths=lengths)))
            assert [a.shape for a in results] == [e.shape for e in exact]
            assert_golden(results, case)


@families
def test_error(backend, kind, dtype):
    """At most twice torch's, or 4 eps of the largest value: the root mean square over 1000 steps, else the largest."""
    for case, drawn, exact in family(kind, dtype):
        errors = make_torch.errors_of(case, case["error"])
        for (layer, x, hx, lengths), e in zip(drawn, exact, strict=True):
            errors.add(arrays(layer(x, hx, lengths=lengths)), None, e)
        errors.check(case["name"])


@families
def test_torch_gives_what_the_file_holds(kind, dtype):
    torch = pytest.importorskip("torch")
    if not torch.__version__.startswith("2.13."):
        pytest.skip(f"torch {torch.__version__}, the file is of {make_torch.VERSION}")
    torch.set_num_threads(1)
    for case, drawn, exact in family(kind, dtype):
        results = [make_torch.run(d) for d in drawn]
        if case["steps"] != make_torch.LONG:
            assert_golden(results[0], case)
        errors = make_torch.errors_of(case)
        for r, e in zip(results, exact, strict=True):
            errors.add(r, None, e)
        eps = np.finfo(dtype).eps * errors.scale  # torch rounds otherwise on other processors
        assert errors.ours / 2 - eps <= case["error"] <= 2 * errors.ours + eps, case["name"]
