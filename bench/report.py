"""Turn results/*.json into plots and the tables of both READMEs, and hold them against targets.toml with --check."""

import argparse
import json
import math
import statistics
import sys
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import limits  # noqa: E402
import rows as grid  # noqa: E402

from fastrnn._bench import engines, plots  # noqa: E402
from fastrnn._bench.engines import PEERS  # noqa: E402
from fastrnn._bench.problems import Row  # noqa: E402

README = HERE.parent / "README.md"
MISSED = HERE / "README.md"
SHOWN = ("numba", "reference", "torch", "onnxruntime", "openvino")
FAMILIES = {
    "S": "one step from a given state",
    "Q": "sequences",
    "B": "batches",
    "R": "ragged batches, both directions",
    "D": "a decaying state fed zeros",
    "G": "generation of T tokens",
    "N": "many sequences of T steps on average, us a sequence",
    "C": "import, load and first call, us in all",
}

ASKED = {"limit": "SQBRDG", "growth": "M", "speedup": "P"}  # families with such a figure; others are of all but M, P
UNEXPLAINED = "not known"
NOISE = 0.05  # at most so much of a run's A/A spread counts as an excuse
MANY_ROWS = 32  # from this batch size on the arithmetic is the limit, below it the weights

Run = dict[str, Any]  # one JSON file, its rows as {row: {engine: entry}}


class Figure(NamedTuple):
    """What a target looks at in one row."""

    value: float
    bound: float = math.inf  # the most that the machine allows
    enough: float = 0.9  # the part of the bound that counts as reaching it


class Verdict(NamedTuple):
    """A target held against a run."""

    status: str  # pass, miss, bound, or "not measured"
    figures: dict[str, Figure]  # of each row, or of the geometric mean
    statuses: dict[str, str]
    measured: int
    named: int  # rows, the measured ones among them

    def missed(self) -> dict[str, Figure]:
        """The figures that miss it."""
        return {name: found for name, found in self.figures.items() if self.statuses[name] == "miss"}


def load(folder: Path) -> dict[str, Run]:
    """All runs by name."""
    return {path.stem: grouped(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))}


def grouped(run: Run) -> Run:
    """A run with its entries by row and engine."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in run["rows"]:
        rows.setdefault(entry["row"], {})[entry["engine"]] = entry
    return run | {"rows": rows}


# What a row says ------------------------------------------------------------------------------------------------------


def mine(row: dict[str, Any]) -> dict[str, Any] | None:
    """The entry of our engine against itself."""
    return row.get(next(iter(row.values()))["ours"])


def threads(name: str) -> int:
    """The threads of a row by its name."""
    return int(name.rsplit("-", 1)[1][:-1])


def spelled(count: int) -> str:
    """A number of threads in words."""
    return f"{count} thread{'s' * (count > 1)}"


def noise(run: Run, count: int) -> float:
    """The A/A spread: how far from 1 nine in ten ratios of ours against ours stay, on so many threads."""
    entries = [mine(row) for name, row in run["rows"].items() if threads(name) == count]
    distances = sorted(abs(entry["ratio"]["median"] - 1) for entry in entries if entry and "ratio" in entry)
    return distances[math.ceil(0.9 * len(distances)) - 1] if distances else 0.0


def fastest(row: dict[str, Any], against: tuple[str, ...] | list[str]) -> dict[str, Any] | None:
    """The entry of the fastest of some engines, or None where none of them ran."""
    names = [next(iter(row.values()))["ours"] if engine == "ours" else engine for engine in against]
    ran = [row[engine] for engine in names if "ratio" in row.get(engine, ())]
    return min(ran, key=lambda entry: entry["ratio"]["median"], default=None)


def least(name: str, run: Run) -> float | None:
    """Seconds that the machine needs for a row at least."""
    row = grid.parse(name)
    return limits.seconds(row, run["limits"]) if "limits" in run and row.family in ASKED["limit"] else None


def figure(target: dict[str, Any], name: str, run: Run) -> Figure | None:
    """The figure of a row that a target asks for; None where it was not measured."""
    row = run["rows"][name]
    ours, least_seconds = mine(row), least(name, run)
    enough = 0.85 if grid.parse(name).batch >= MANY_ROWS else 0.9
    match target.get("figure", "ratio"):
        case "ratio":
            against = target.get("against", PEERS)
            other = fastest(row, against)
            if other is None or ("ours" in target and target["ours"] not in row):
                return None
            base = row[target["ours"]]["ratio"]["median"] if target.get("ours", other["ours"]) != other["ours"] else 1.0
            allowed = least_seconds and set(against) <= set(PEERS)
            bound = other["ratio"]["other"] / least_seconds if allowed else math.inf
            return Figure(other["ratio"]["median"] / base, bound, enough)
        case "seconds":
            return Figure(ours["ratio"]["ours"]) if ours else None
        case "limit":
            return Figure(least_seconds / ours["ratio"]["ours"]) if ours and least_seconds else None
        case kind:
            return Figure(ours["figures"][kind]) if ours else None


# Targets --------------------------------------------------------------------------------------------------------------


def has_figure(target: dict[str, Any], row: Row) -> bool:
    """Whether a target asks for a figure that a row has, once it is measured."""
    kind = target.get("figure", "ratio")
    if row.family not in ASKED.get(kind, "SQBRDGNC"):
        return False
    ran, ours = engines.engines(row), engines.ours(row)
    against = [ours if name == "ours" else name for name in target.get("against", PEERS)]
    return kind != "ratio" or (target.get("ours", ours) in ran and not set(ran).isdisjoint(against))


def named(target: dict[str, Any], run: Run) -> list[str]:
    """The rows of a target: those of rows.py, and what was measured when it had others."""
    cpus = run["machine"]["cpu"]["cpus"]
    found = {row.name: row for row in grid.every(cpus)} | {name: grid.parse(name) for name in run["rows"]}
    return [
        name
        for name, row in found.items()
        if row.threads == (cpus if target.get("threads") == "all" else 1)
        and any(fnmatchcase(name.rpartition("-")[0], pattern) for pattern in target["rows"])
        and has_figure(target, row)
    ]


def hold(target: dict[str, Any], run: Run) -> Verdict:
    """Hold a target against a run."""
    names = named(target, run) if run["rows"] else []
    figures = {name: found for name in names if name in run["rows"] and (found := figure(target, name, run))}
    if not figures:
        return Verdict("not measured", {}, {}, 0, len(names))
    measured = len(figures)
    tolerance = min(noise(run, threads(names[0])), NOISE) if target.get("figure", "ratio") == "ratio" else 0.0
    if target.get("over") == "geomean":
        columns = zip(*figures.values(), strict=True)
        figures = {"geometric mean": Figure(*(statistics.geometric_mean(column) for column in columns))}
    judged = {name: judge(found, target, tolerance) for name, found in figures.items()}
    return Verdict(max(judged.values(), key=("pass", "bound", "miss").index), figures, judged, measured, len(names))


def check(target: dict[str, Any], run: Run) -> tuple[str, str]:
    """-> pass, miss, bound or "not measured"; and the figure that decided."""
    held = hold(target, run)
    if not held.figures:
        return held.status, f"none of {held.named} rows" if held.named else ""
    lower = "at_least" in target
    worst = (min if lower else max)(
        (name for name in held.figures if held.statuses[name] == held.status), key=lambda name: held.figures[name].value
    )
    found = held.figures[worst]
    text = f"{found.value:.3g}, wanted {wanted(target)}: {worst}"
    if held.measured > 1:
        text += f" of {held.measured} rows" if worst not in run["rows"] else f", worst of {held.measured} rows"
    if held.measured < held.named:
        text += f", {held.named - held.measured} more are not measured"
    if held.status != "pass" and (allowed := beyond(found, target)):
        text += f"; {allowed}, of which this is {found.value / found.bound:.0%}"
    return held.status, text


def wanted(target: dict[str, Any]) -> str:
    """What a target's figure must reach."""
    return f">= {target['at_least']}" if "at_least" in target else f"<= {target['at_most']}"


def beyond(found: Figure, target: dict[str, Any]) -> str:
    """What the machine allows, where that is less than a target wants."""
    return f"the machine allows {found.bound:.3g}" if found.bound < target.get("at_least", 0) else ""


def judge(found: Figure, target: dict[str, Any], tolerance: float) -> str:
    """Hold one figure against a target; where the machine does not allow the target its limit takes its place."""
    if "at_most" in target:
        return "pass" if found.value <= target["at_most"] * (1 + tolerance) else "miss"
    if found.value >= target["at_least"] * (1 - tolerance):
        return "pass"
    return "bound" if found.bound < target["at_least"] and found.value >= found.enough * found.bound else "miss"


def print_checks(targets: list[dict[str, Any]], runs: dict[str, Run]) -> bool:
    """Print every target; -> whether all hold in every run."""
    missed = False
    for name, run in (runs or {"no results": {"rows": {}}}).items():
        spreads = {count: noise(run, count) for count in sorted({threads(row) for row in run["rows"]})}
        texts = [f"{spread:.1%} on {spelled(count)}" for count, spread in spreads.items()]
        print(f"{name}: A/A spread {', '.join(texts)}")
        if any(spread > NOISE for spread in spreads.values()):
            print("  too noisy, measure again")
        for target in targets:
            status, text = check(target, run)
            missed |= status == "miss"
            where = "all" if target.get("threads") == "all" else 1
            print(f"  {status:12} {target['name']}, threads {where}: {text or 'no such row'}")
    return not missed


# The READMEs ----------------------------------------------------------------------------------------------------------


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
    """S-lstm-I64-H64-L1-uni-B1-T1-f32-1t -> LSTM 64, and so on: what differs from the ordinary only."""
    row = grid.parse(name)
    sizes = str(row.hidden_size) if row.input_size == row.hidden_size else f"{row.input_size}->{row.hidden_size}"
    more = [f"{row.layers} layers"] if row.layers > 1 else []
    more += ["bidirectional"] if row.directions == 2 and row.family != "R" else []
    more += ["encoder and decoder"] if row.encoder else []
    more += ["float64"] if row.dtype == "float64" else []
    return ", ".join([f"{row.cell.upper()} {sizes}", *more])


def title(name: str) -> str:
    """A row in words."""
    row = grid.parse(name)
    return f"{row.family} {label(name)}, B {row.batch}, T {row.steps}"


def in_order(run: Run, count: int) -> list[str]:
    """Names of the rows with a ratio, family by family."""
    names = [name for name in run["rows"] if threads(name) == count and name[0] in FAMILIES]
    return sorted((name for name in names if mine(run["rows"][name])), key=lambda name: list(FAMILIES).index(name[0]))


def table(run: Run, count: int, *, whole: bool = True) -> list[str]:
    """The table of a run for a number of threads: every row that a peer wins, and the core rows of a whole one."""
    names = in_order(run, count)
    best = {name: found["ratio"]["median"] for name in names if (found := fastest(run["rows"][name], PEERS))}
    load = max((entry["load"] for name in names for entry in run["rows"][name].values()), default=0.0)
    lines = [f"**{'One thread' if count == 1 else f'{count} threads'}.** Load at most {load:.1f}, "]
    lines[0] += f"A/A spread {noise(run, count):.1%}."
    if best:
        ahead, mean = sum(ratio >= 1 for ratio in best.values()), statistics.geometric_mean(best.values())
        lines.append(f"Ahead of the best peer in {ahead} of {len(best)} rows, geometric mean {mean:.2f}x.")
    names = [name for name in names if (whole and mine(run["rows"][name])["core"]) or best.get(name, 1) < 1]
    if not names:
        return lines
    lines += [
        "",
        "| | layer | B | T | us a step | GFLOP/s | GB/s | of the limit | layer | " + " | ".join(SHOWN) + " |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|" + "--:|" * len(SHOWN),
    ]
    for name in names:
        row, entries = grid.parse(name), run["rows"][name]
        ours = mine(entries)
        seconds, least_seconds = ours["ratio"]["ours"], least(name, run)
        rates = ["", "", f"{least_seconds / seconds:.0%}" if least_seconds else ""]
        if row.family not in "CGN":  # models have more layers, or tables in their place
            rates[:2] = [f"{ours['flops'] / seconds / 1e9:.3g}", f"{limits.streamed(row) / seconds / 1e9:.3g}"]
        shown = {"layer": entries.get("cython") if ours["engine"] != "cython" else None}
        shown |= {engine: entries.get(engine) for engine in SHOWN}
        if row.family in "RN":
            shown["torch"] = fastest(entries, ["torch", "torch-padded"])
        each = seconds / {"C": 1, "N": row.batch}.get(row.family, row.steps)
        figures = [f"{each * 1e6:.4g}", *rates, *map(cell, shown.values())]
        lines.append(f"| {' | '.join([row.family, label(name), str(row.batch), str(row.steps), *figures])} |")
    return lines


def beside_ourselves(run: Run) -> list[str]:
    """Sentences on families R, D, M and O: fastrnn beside itself, memory, and time outside of kernels."""
    lines = []
    for engine, subject, other in (
        ("dense", "A valid step of a ragged batch", "a step of the dense batch"),
        ("normal", "A step of a decaying state under zeros", "one of the same layer on noise"),
    ):
        found = [1 / row[engine]["ratio"]["median"] for row in run["rows"].values() if engine in row]
        if found:
            lines += [f"{subject} takes at most {max(found):.2f} times as long as {other} ({len(found)} rows).", ""]
    for name, entries in run["rows"].items():
        if name[0] == "M" and threads(name) == 1 and entries:
            found = [f"{engine} {entry['figures']['megabytes']:.1f}" for engine, entry in entries.items()]
            call = f"{grid.parse(name).steps} steps of {label(name)}"
            text = f"Memory of a call on {call} beyond inputs and results, MB: {', '.join(found)}."
            lines += [text.replace("cython", "fastrnn"), ""]
    for name, entries in run["rows"].items():
        if name[0] == "O" and (ours := mine(entries)):
            row, found = grid.parse(name), ours["figures"]
            lines += [
                f"{row.batch:,} sequences of {row.steps} ids on average through {label(name)}, {spelled(row.threads)}: "
                f"{found['nanoseconds']:.0f} ns each, {found['outside']:.0%} of it not in kernels, "
                f"{found['megabytes']:.0f} MB beyond inputs and result.",
                "",
            ]
    return lines


def readme(text: str, runs: dict[str, Run], targets: list[dict[str, Any]]) -> str:
    """The README with its tables written anew: a whole one of the run of most rows, of others what they lose."""
    by_rows = sorted(runs.items(), key=lambda found: -len(found[1]["rows"]))
    lines = ["No results yet: `python bench/run.py` measures."] if not runs else []
    for i, (name, run) in enumerate(by_rows):
        machine = run["machine"]
        versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items() if version)
        lines += [
            f"**{name}**: {machine['cpu']['model']}, tier {machine['cpu']['tier']}, {run['date']}; {versions}.",
            "",
        ]
        rows, count = (
            len(grid.every(machine["cpu"]["cpus"])),
            sum(hold(target, run).status == "miss" for target in targets),
        )
        lines += [
            f"Measured, and all that is said here rests on them: {len(run['rows'])} of the {rows} rows of",
            f"[bench/rows.py](bench/rows.py). Missed: {count} of the {len(targets)} targets that we set ourselves;",
            "[which rows, and what bounds them](bench/README.md#missed-targets).",
            "",
        ]
        for plot, what in drawn(run).items():
            lines += [f"![{what}](bench/results/{name}-{plot}.svg)", ""]
        for count in sorted({threads(row) for row in run["rows"]}):
            lines += [*table(run, count, whole=i == 0), ""]
        lines += beside_ourselves(run)
    if runs:
        families = "; ".join(f"{letter} {what}" for letter, what in FAMILIES.items())
        lines += [
            f"{families}.",
            "",
            "Columns from layer on: how many times longer that engine takes: median of interleaved blocks, quartiles.",
            "Layer: `layer(x, hx)`, where fastrnn's own figure is a stream's. In R the better of torch's two.",
            "**Bold: fastrnn loses.** GB/s: of weights. Of the limit: the machine's least time over fastrnn's.",
            "Written by `python bench/report.py`.",
        ]
    return between(text, "bench", lines)


def missed(text: str, runs: dict[str, Run], targets: list[dict[str, Any]]) -> str:
    """The README of this folder with every row that misses its target, and what bounds it."""
    lines = []
    for name, run in runs.items():
        lines += [
            f"{name}:",
            "",
            "| target | threads | wanted | rows that miss it | what bounds them |",
            "|---|--:|--:|---|---|",
        ]
        for target in targets:
            cells = []
            for row, found in hold(target, run).missed().items():
                what = title(row) if row in run["rows"] else f"{row} of {hold(target, run).measured} rows"
                allowed = beyond(found, target)
                cells.append(f"{what}: {found.value:.3g}" + (f" ({allowed})" if allowed else ""))
            if cells:
                columns = [target["name"], str(target.get("threads", 1)), wanted(target), "<br>".join(cells)]
                lines.append(f"| {' | '.join([*columns, bound_in(target, name)])} |")
        lines.append("")
    return between(text, "missed", lines[:-1])


def streams(text: str, runs: dict[str, Run]) -> str:
    """The README of this folder with how much faster two Python threads are than one."""
    lines = []
    for name, run in runs.items():
        found = {grid.parse(key): mine(row)["figures"]["speedup"] for key, row in run["rows"].items() if key[0] == "P"}
        if not found:
            continue
        sizes = sorted({row.hidden_size for row in found})
        lines += [f"| {name}: H = I | {' | '.join(map(str, sizes))} |", "|---|" + "--:|" * len(sizes)]
        for cell, steps in dict.fromkeys((row.cell, row.steps) for row in found):
            of_size = {row.hidden_size: rate for row, rate in found.items() if (row.cell, row.steps) == (cell, steps)}
            way = "`step`" if steps == 1 else f"`push` of {steps}"
            cells = [f"{of_size[size]:.2f}" if size in of_size else "" for size in sizes]
            lines.append(f"| {cell.upper()}, {way} | {' | '.join(cells)} |")
        lines.append("")
    return between(text, "streams", lines[:-1])


def bound_in(target: dict[str, Any], name: str) -> str:
    """What bounds the rows that miss a target in a run; a text for all runs, or one for each."""
    bound = target.get("bound", UNEXPLAINED)
    return bound if isinstance(bound, str) else bound.get(name, UNEXPLAINED)


def unexplained(runs: dict[str, Run], targets: list[dict[str, Any]]) -> list[str]:
    """Missed targets of which nobody said what bounds them."""
    return [
        f"{target['name']}, threads {target.get('threads', 1)}"
        for target in targets
        if any(
            bound_in(target, name) == UNEXPLAINED and hold(target, run).status == "miss" for name, run in runs.items()
        )
    ]


def between(text: str, marker: str, lines: list[str]) -> str:
    """A text with other lines between its two markers."""
    first, last = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, rest = text.split(first)
    _, after = rest.split(last)
    return before + "\n".join([first, *lines, last]) + after


# The plots ------------------------------------------------------------------------------------------------------------


def drawn(run: Run) -> dict[str, str]:
    """Titles of a run's plots."""
    found = {"ratio": "Time of the fastest peer over ours"}
    return found | ({"limit": "Fraction of the machine's limit"} if "limits" in run else {})


def draw(folder: Path, name: str, run: Run) -> None:
    """Write the plots of a run beside its JSON: core rows, one series per number of threads."""
    shown: dict[str, dict[str, dict[str, float]]] = {plot: {} for plot in drawn(run)}
    for count in sorted({threads(row) for row in run["rows"]}):
        series = spelled(count)
        for key in in_order(run, count):
            entries = run["rows"][key]
            ours, best, least_seconds = mine(entries), fastest(entries, PEERS), least(key, run)
            if not ours["core"]:
                continue
            text = title(key)
            if best:
                shown["ratio"].setdefault(text, {})[series] = best["ratio"]["median"]
            if least_seconds:
                shown["limit"].setdefault(text, {})[series] = least_seconds / ours["ratio"]["ours"]
    for plot, what in drawn(run).items():
        rows = list(shown[plot].items())
        plots.dots(folder / f"{name}-{plot}.svg", what, rows, line=1, log=plot == "ratio")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="print pass, miss or bound for each target; 1 if one is missed"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of JSON files")
    options = parser.parse_args()
    runs = load(options.results)
    targets = tomllib.loads((HERE / "targets.toml").read_text())["target"]
    if options.check:
        return 0 if print_checks(targets, runs) else 1
    README.write_text(readme(README.read_text(), runs, targets))
    MISSED.write_text(streams(missed(MISSED.read_text(), runs, targets), runs))
    for name, run in runs.items():
        draw(options.results, name, run)
    if without := unexplained(runs, targets):
        print(f"missed, and no `bound` in targets.toml says why: {'; '.join(without)}", file=sys.stderr)
    return 1 if without else 0


if __name__ == "__main__":
    sys.exit(main())
