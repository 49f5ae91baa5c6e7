"""The README's figures come from the committed results, and every target is held against them."""

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"
REPORT = BENCH / "report.py"
report = runpy.run_path(str(REPORT))
TARGETS = tomllib.loads((BENCH / "targets.toml").read_text())["target"]


def ratio(median):
    return {
        "median": median,
        "low": median - 0.1,
        "high": median + 0.1,
        "rounds": 5,
        "ours": 1e-6,
        "other": median * 1e-6,
    }


def run_of(**engines):
    """A run of one row, with the given ratios."""
    row = {
        name: {"engine": name, "ratio": ratio(value), "flops": 1000, "core": True, "load": 0.1}
        for name, value in engines.items()
    }
    machine = {"cpu": {"model": "a CPU", "tier": "avx2"}, "versions": {"numpy": "2.0", "torch": None}}
    return {"date": "2026-01-01", "machine": machine, "rows": {"Q-gru-I3-H37-L1-uni-B5-T100-f32": row}}


def test_check_prints_every_target():
    done = subprocess.run([sys.executable, REPORT, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    lines = done.stdout.splitlines()
    for target in TARGETS:
        found = [line.split()[0] for line in lines if f" {target['name']}: " in line]
        assert found, target
        assert set(found) <= {"pass", "miss", "bound", "not"}


def test_readme_table_is_what_the_report_writes():
    text = report["README"].read_text()
    assert report["readme"](text, report["load"](BENCH / "results")) == text


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["name"])
def test_targets_are_well_formed(target):
    assert set(target) <= {"name", "rows", "against", "at_least", "at_most", "over", "later", "bound"}
    assert ("at_least" in target) != ("at_most" in target)
    assert target.get("over", "each") in ("each", "geomean")


def test_noise_excuses_no_more_than_itself():
    target = {"rows": ["Q-gru-*"], "against": ["torch", "onnxruntime"], "at_least": 1.3}
    check = report["check"]
    assert check(target, run_of(cython=1.02, torch=5.0, onnxruntime=1.29))[0] == "pass"
    assert check(target, run_of(cython=1.00, torch=5.0, onnxruntime=1.29))[0] == "miss"
    assert check(target, run_of(cython=1.50, torch=5.0, onnxruntime=1.2))[0] == "miss"  # too noisy to tell
    assert check(target | {"bound": "the L3"}, run_of(cython=1.0, torch=1.2))[0] == "bound"
    assert check(target | {"rows": ["S-*"]}, run_of(cython=1.0, torch=1.4))[0] == "not measured"
    assert check({"rows": ["*"], "against": ["numba"], "at_most": 1.15}, run_of(cython=1.0, numba=1.2))[0] == "miss"


def test_losing_rows_are_shown():
    run = run_of(cython=1.0, torch=0.8)
    (row,) = run["rows"].values()
    for entry in row.values():
        entry["core"] = False
    assert report["table"](run)[-1].startswith("| GRU 3->37 | 5 | 100 | 1 |")
    assert "**0.80** (0.70-0.90)" in report["table"](run)[-1]
    row["torch"]["ratio"] = ratio(1.2)
    assert "GRU" not in report["table"](run)[-1]
