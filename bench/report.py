"""Turn results/*.json into the README's table, and hold them against targets.toml with --check."""

import argparse
import json
import math
import statistics
import sys
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
MARKERS = ("<!-- bench -->", "<!-- /bench -->")
SHOWN = ("numba", "torch", "onnxruntime")
PEERS = ("torch", "onnxruntime")

NOISE = 0.05  # at most so much of a run's A/A spread counts as an excuse

Run = dict[str, Any]  # one JSON file, its rows as {row: {engine: entry}}


def load(folder: Path) -> dict[str, Run]:
    """All runs by name."""
    runs = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        rows: dict[str, dict[str, Any]] = {}
        for entry in run["rows"]:
            rows.setdefault(entry["row"], {})[entry["engine"]] = entry
        runs[path.stem] = run | {"rows": rows}
    return runs


def noise(run: Run) -> float:
    """The A/A spread of a run: how far from 1 nine in ten ratios of our kernels against themselves stay."""
    distances = sorted(abs(row["cython"]["ratio"]["median"] - 1) for row in run["rows"].values() if "cython" in row)
    return distances[math.ceil(0.9 * len(distances)) - 1] if distances else 0.0


def best(row: dict[str, Any], against: tuple[str, ...] | list[str]) -> float | None:
    """The ratio to the fastest of some engines, or None where none of them ran."""
    return min((row[engine]["ratio"]["median"] for engine in against if engine in row), default=None)


def check(target: dict[str, Any], run: Run) -> tuple[str, str]:
    """-> pass, miss, bound or "not measured"; and the figure that decided."""
    ratios = {
        name: ratio
        for name, row in run["rows"].items()
        if any(fnmatchcase(name, pattern) for pattern in target["rows"])
        and (ratio := best(row, target["against"])) is not None
    }
    if not ratios:
        return "not measured", ""
    tolerance, lower = min(noise(run), NOISE), "at_least" in target
    if target.get("over", "each") == "geomean":
        value, where = statistics.geometric_mean(ratios.values()), f"geometric mean of {len(ratios)} rows"
    else:
        worst = (min if lower else max)(ratios, key=ratios.__getitem__)
        value, where = ratios[worst], f"{worst}, worst of {len(ratios)} rows"
    if lower:
        sign, limit = ">=", target["at_least"]
        holds = value >= limit * (1 - tolerance)
    else:
        sign, limit = "<=", target["at_most"]
        holds = value <= limit * (1 + tolerance)
    status = "pass" if holds else "bound" if "bound" in target else "miss"
    reason = f"; {target['bound']}" if status == "bound" else ""
    return status, f"{value:.2f}, wanted {sign} {limit}: {where}{reason}"


def print_checks(targets: list[dict[str, Any]], runs: dict[str, Run]) -> bool:
    """Print every target; -> whether all that are required hold in every run."""
    missed = False
    for name, run in (runs or {"no results": {"rows": {}}}).items():
        print(f"{name}, A/A spread {noise(run):.1%}" + (": too noisy, measure again" if noise(run) > NOISE else ""))
        for target in targets:
            status, figure = check(target, run)
            later = target.get("later", False)
            missed |= status == "miss" and not later
            print(f"  {status:12} {'(later) ' if later else ''}{target['name']}: {figure or 'no such row'}")
    return not missed


def cell(entry: dict[str, Any] | None) -> str:
    """A ratio with its quartiles; bold where a peer beats us."""
    if entry is None:
        return ""
    ratio = entry["ratio"]
    text = f"{ratio['median']:.2f}"
    if entry["engine"] in PEERS and ratio["median"] < 1:
        text = f"**{text}**"
    return f"{text} ({ratio['low']:.2f}-{ratio['high']:.2f})"


def label(name: str) -> str:
    """S-lstm-I64-H64-L1-uni-B1-T1-f32 -> LSTM 64, and so on: what differs from the ordinary only."""
    _, kind, inputs, hidden, layers, direction, *_, dtype = name.split("-")
    sizes = hidden[1:] if inputs[1:] == hidden[1:] else f"{inputs[1:]}->{hidden[1:]}"
    more = [f"{layers[1:]} layers"] if layers != "L1" else []
    more += ["bidirectional"] if direction == "bi" else []
    more += ["float64"] if dtype == "f64" else []
    return ", ".join([f"{kind.upper()} {sizes}", *more])


def table(run: Run) -> list[str]:
    """The README's table of a run: the core rows, and every row that a peer wins."""
    rows = run["rows"]
    ratios = {name: ratio for name, row in rows.items() if (ratio := best(row, PEERS)) is not None}
    machine = run["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    load = max((entry["load"] for row in rows.values() for entry in row.values()), default=0.0)
    lines = [
        f"{machine['cpu']['model']}, tier {machine['cpu']['tier']}, one thread, {run['date']}; {versions}.",
        f"Load at most {load:.1f}, A/A spread {noise(run):.1%}.",
    ]
    if ratios:
        ahead = sum(ratio >= 1 for ratio in ratios.values())
        mean = statistics.geometric_mean(ratios.values())
        lines.append(
            f"Ahead of the best of {' and '.join(PEERS)} in {ahead} of {len(ratios)} rows, geometric mean {mean:.2f}x."
        )
    lines += [
        "",
        "| layer | B | T | fastrnn us | GFLOP/s | " + " | ".join(SHOWN) + " |",
        "|---|--:|--:|--:|--:|" + "--:|" * len(SHOWN),
    ]
    for name, row in sorted(rows.items(), key=lambda item: "SQB".index(item[0][0])):
        ours = row.get("cython")
        if ours is None or not (ours["core"] or ratios.get(name, 1) < 1):
            continue
        seconds = ours["ratio"]["ours"]
        batch, steps = (part[1:] for part in name.split("-")[6:8])
        figures = [
            f"{seconds * 1e6:.4g}",
            f"{ours['flops'] / seconds / 1e9:.3g}",
            *(cell(row.get(engine)) for engine in SHOWN),
        ]
        lines.append(f"| {' | '.join([label(name), batch, steps, *figures])} |")
    return lines


def readme(text: str, runs: dict[str, Run]) -> str:
    """The README with its table written anew."""
    lines = ["No results yet: `python bench/run.py` measures."] if not runs else []
    for run in runs.values():
        lines += [*table(run), ""]
    if runs:
        lines += [
            "Columns from numba on: how many times longer that engine takes: median of interleaved blocks, quartiles.",
            "**Bold: fastrnn loses.** Written by `python bench/report.py`.",
        ]
    before, rest = text.split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    return before + "\n".join([MARKERS[0], *lines, MARKERS[1]]) + after


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="print pass, miss or bound for each target; 1 if one is missed"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of JSON files")
    options = parser.parse_args()
    runs = load(options.results)
    if options.check:
        targets = tomllib.loads((HERE / "targets.toml").read_text())["target"]
        return 0 if print_checks(targets, runs) else 1
    README.write_text(readme(README.read_text(), runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
