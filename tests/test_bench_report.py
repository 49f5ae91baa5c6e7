"""The README's figures come from the committed results, and every target is held against them."""

import runpy
import shutil
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path

import pytest

import fastrnn

BENCH = Path(__file__).parent.parent / "bench"
REPORT = BENCH / "report.py"
report = runpy.run_path(str(REPORT))
limits = runpy.run_path(str(BENCH / "limits.py"))
run_py = runpy.run_path(str(BENCH / "run.py"))
rows = sys.modules["rows"]  # which report.py imports
TARGETS = tomllib.loads((BENCH / "targets.toml").read_text())["target"]
NAME = "Q-gru-I3-H37-L1-uni-B5-T100-f32-1t"


def ratio(median):
    return {
        "median": median,
        "low": median - 0.1,
        "high": median + 0.1,
        "rounds": 5,
        "ours": 1e-6,
        "other": median * 1e-6,
    }


def run_of(name=NAME, **engines):
    """A run of one row, with the given ratios."""
    row = {
        engine: {"engine": engine, "ours": "cython", "ratio": ratio(value), "flops": 1000, "core": True, "load": 0.1}
        for engine, value in engines.items()
    }
    machine = {"cpu": {"model": "a CPU", "tier": "avx2", "cpus": 4}, "versions": {"numpy": "2.0", "torch": None}}
    return {"date": "2026-01-01", "machine": machine, "rows": {name: row}}


def limits_of(gflops, gigabytes, threads=1):
    stream = [[2**i, gigabytes] for i in range(14, 28)]
    return {"threads": {str(threads): {"peak": {"float32": gflops, "float64": gflops / 2}, "stream": stream}}}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_limits_run_the_loop_of_the_kernels(tmp_path):
    for dtype, library in limits["compiled"](tmp_path, fastrnn.cpu_info()["tier"]).items():
        loops = limits["Loops"](library, dtype)
        assert loops.run(None, 2) == 2 * loops.run(None, 1) > 0
        for wide, far in product((False, True), repeat=2):
            assert loops.run(1 << 16, 3, wide, far) == 3 << 16


def test_check_prints_every_target():
    done = subprocess.run([sys.executable, REPORT, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    lines = done.stdout.splitlines()
    for target in TARGETS:
        found = [
            line.split()[0] for line in lines if f" {target['name']}, threads {target.get('threads', 1)}: " in line
        ]
        assert found, target
        assert set(found) <= {"pass", "miss", "bound", "not"}


@pytest.mark.parametrize(("path", "write"), [("README", "readme"), ("MISSED", "missed")])
def test_readme_tables_are_what_the_report_writes(path, write):
    text = report[path].read_text()
    assert report[write](text, report["load"](BENCH / "results"), TARGETS) == text


def test_the_table_of_streams_is_what_the_report_writes():
    text = report["MISSED"].read_text()
    assert report["streams"](text, report["load"](BENCH / "results")) == text
    row = "P-gru-I64-H64-L1-uni-B1-T100-f32-1t"
    entries = {"stream": {"engine": "stream", "ours": "stream", "figures": {"speedup": 1.234}}}
    runs = {"here": {"rows": {row: entries, row.replace("64", "8").replace("T100", "T1"): entries}}, "there": run_of()}
    assert report["streams"]("<!-- streams --><!-- /streams -->", runs).splitlines()[1:-1] == [
        "| here: H = I | 8 | 64 |",
        "|---|--:|--:|",
        "| GRU, `push` of 100 |  | 1.23 |",
        "| GRU, `step` | 1.23 |  |",
    ]


def test_every_missed_target_says_what_bounds_it():
    assert report["unexplained"](report["load"](BENCH / "results"), TARGETS) == []
    target = {"name": "much", "rows": ["Q-*"], "against": ["torch"], "at_least": 3.0}
    runs = {"here": run_of(cython=1.0, torch=2.0)}
    assert report["unexplained"](runs, [target]) == ["much, threads 1"]
    assert report["unexplained"](runs, [target | {"at_least": 1.5}, target | {"bound": "memory"}]) == []
    of_one = target | {"bound": {"here": "memory"}}
    assert report["unexplained"](runs, [of_one]) == []
    assert report["unexplained"](runs | {"there": run_of(cython=1.0, torch=2.0)}, [of_one]) == ["much, threads 1"]
    text = report["missed"](
        "<!-- missed --><!-- /missed -->", runs | {"there": run_of(cython=1.0, torch=2.0)}, [of_one]
    )
    assert text.index("| memory |") < text.index("there:") < text.index("| not known |")


def test_runs_of_fewer_rows_show_what_they_lose():
    lost = "Q-rnn-I32-H32-L1-uni-B1-T100-f32-1t"
    whole, part = run_of(cython=1.0, torch=2.0), run_of(lost, cython=1.0, torch=0.9)
    whole["rows"] |= run_of("Q-rnn-I64-H64-L1-uni-B1-T100-f32-1t", cython=1.0, torch=3.0)["rows"]
    whole["rows"] |= run_of("Q-rnn-I16-H16-L1-uni-B1-T100-f32-1t", cython=1.0, torch=3.0)["rows"]
    part["rows"] |= run_of(cython=1.0, torch=2.0)["rows"]
    text = report["readme"]("<!-- bench --><!-- /bench -->", {"part": part, "whole": whole}, [])
    whole_text, part_text = text.split("**part**")
    assert part_text.count("| Q |") == 1
    assert "| Q | RNN 32 | 1 | 100 |" in part_text
    assert whole_text.count("| Q |") == 3
    assert "Ahead of the best peer in 1 of 2 rows" in part_text


def test_all_rows_that_miss_a_target_are_told():
    run = run_of(cython=1.0, torch=2.0)
    for name, ratio in (("Q-rnn-I64-H64-L1-uni-B1-T100-f32-1t", 2.5), ("Q-rnn-I32-H32-L1-uni-B1-T100-f32-1t", 4.0)):
        run["rows"] |= run_of(name, cython=1.0, torch=ratio)["rows"]
    target = {"name": "much", "rows": ["Q-*"], "against": ["torch"], "at_least": 3.0, "bound": "memory"}
    unbound = {name: value for name, value in target.items() if name != "bound"}
    mean = target | {"over": "geomean"}
    text = report["missed"]("<!-- missed --><!-- /missed -->", {"here": run}, [target, unbound, mean])
    rows = "Q GRU 3->37, B 5, T 100: 2<br>Q RNN 64, B 1, T 100: 2.5"
    assert f"| much | 1 | >= 3.0 | {rows} | memory |\n| much | 1 | >= 3.0 | {rows} | not known |" in text
    assert "| geometric mean of 3 rows: 2.71 | memory |" in text
    run["limits"] = limits_of(1e12, 100 * 4 * 64 * 64 / 0.88e-6 / 1e9)
    assert "Q RNN 64, B 1, T 100: 2.5 (the machine allows 2.81)" in report["missed"](text, {"here": run}, [target])


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target['name']}, {target.get('threads', 1)}")
def test_targets_are_well_formed(target):
    assert set(target) <= {
        "name",
        "rows",
        "threads",
        "against",
        "ours",
        "figure",
        "at_least",
        "at_most",
        "over",
        "bound",
    }
    assert ("at_least" in target) != ("at_most" in target)
    assert target.get("over", "each") in ("each", "geomean")
    assert target.get("figure", "ratio") in ("ratio", "seconds", "limit", "growth", "speedup")
    assert target.get("threads", 1) in (1, "all")


def test_every_glob_of_a_target_names_a_row():
    names = [row.name.rpartition("-")[0] for row in rows.every()]
    for target in TARGETS:
        for pattern in target["rows"]:
            assert any(report["fnmatchcase"](name, pattern) for name in names), (target["name"], pattern)


@pytest.mark.parametrize("letter", rows.FAMILIES)
def test_names_say_all_of_a_row(letter):
    found = [row._replace(core=False) for row in rows.family(letter)]
    assert len({row.name for row in found}) == len(found)
    assert [rows.parse(row.name) for row in found] == found


DEEP = [
    (60, 128, 1, 589, 4, 2),
    (60, 128, 32, 589, 4, 2),
    (256, 256, 16, 128, 2, 2),
    (512, 256, 32, 64, 2, 2),
    (256, 256, 1, 1000, 3, 1),
    (384, 384, 64, 800, 5, 1),
]
GRID = {  # I, H, B, T, layers, directions; of each cell
    "S": [(i or h, h, b, 1, 1, 1) for h in (8, 16, 40, 64, 128, 256, 512, 1024) for i in (1, 0) for b in (1, 4, 16)],
    "Q": [
        *((h, h, 1, 100, 1, 1) for h in (32, 64, 128, 256, 512, 1024)),
        (40, 64, 1, 100, 1, 1),
        (128, 128, 1, 1000, 1, 1),
        (640, 640, 8, 1, 1, 1),
        *DEEP,
    ],
    "B": [(h, h, b, t, 1, 1) for h in (64, 128, 256, 512, 1024) for b, t in ((8, 100), (32, 50), (128, 20))],
    "R": [
        *((h, h, b, t, 1, 2) for h in (64, 128, 256) for b in (32, 256) for t in (64, 1000)),
        *((h, h, 32, 4000, 1, 2) for h in (64, 128, 256)),
        (64, 64, 256, 4000, 1, 2),
    ],
    "D": [(64, 64, 1, 10_000, 1, 1)],
}
OTHERS = [
    rows.Row("G", "gru", 256, 256, 1, 10, encoder=True),
    rows.Row("G", "lstm", 64, 512, 1, 1000, layers=2),
    rows.Row("N", "lstm", 64, 128, 2000, 40),
    rows.Row("O", "gru", 16, 16, 10_000_000, 6),
    rows.Row("C", "lstm", 128, 128, 1, 100),
    rows.Row("M", "lstm", 128, 128, 1, 20_000),
]


@pytest.mark.parametrize("letter", GRID)
def test_every_item_of_the_grid_has_a_row(letter):
    found = {row[1:8] for row in rows.family(letter, 1)}
    missing = [(cell, shape) for cell in rows.CELLS for shape in GRID[letter] if (cell, *shape) not in found]
    assert missing == []
    odd = {(row.cell, row.directions) for row in rows.family(letter, 1) if row[2:5] == (3, 37, 5)}
    assert odd == {(cell, 1 + (letter == "R")) for cell in rows.CELLS}


def test_the_rest_of_the_grid_has_rows():
    found = {row.name for row in rows.every(2)}
    assert {row.name for row in OTHERS} <= found
    assert sum(row.alternating for row in rows.every(1)) == len(rows.CELLS)
    assert {row.dtype for row in rows.every(1)} == {"float32", "float64"}
    both = {row.family for row in rows.every(2) if row.threads == 2}
    assert both == set(rows.FAMILIES) - set(rows.ONE_THREAD)


def test_noise_excuses_no_more_than_itself():
    target = {"rows": ["Q-gru-*"], "against": ["torch", "onnxruntime"], "at_least": 1.3}
    check = report["check"]
    assert check(target, run_of(cython=1.02, torch=5.0, onnxruntime=1.29))[0] == "pass"
    assert check(target, run_of(cython=1.00, torch=5.0, onnxruntime=1.29))[0] == "miss"
    assert check(target, run_of(cython=1.50, torch=5.0, onnxruntime=1.2))[0] == "miss"  # too noisy to tell
    assert check(target | {"rows": ["S-*"]}, run_of(cython=1.0, torch=1.4))[0] == "not measured"
    assert check({"rows": ["*"], "against": ["numba"], "at_most": 1.15}, run_of(cython=1.0, numba=1.2))[0] == "miss"


def test_rows_that_are_not_measured_are_counted():
    run = run_of("B-lstm-I512-H512-L1-uni-B32-T50-f32-1t", cython=1.0, torch=1.2, openvino=1.1)
    target = {"rows": ["B-lstm-*-H512-*", "B-lstm-*-H1024-*"], "at_least": 1.0}
    status, text = report["check"](target, run)
    assert status == "pass"
    assert text.endswith("H512-L1-uni-B32-T50-f32-1t, 5 more are not measured")
    status, text = report["check"](target | {"over": "geomean"}, run)
    assert text.endswith("geometric mean, 5 more are not measured")
    assert report["check"](target | {"rows": ["B-lstm-*-H512-*-B32-*"]}, run)[1].endswith("-1t")
    assert report["check"](target | {"rows": ["B-rnn-I64-*"]}, run) == ("not measured", "none of 3 rows")
    assert report["check"](target | {"rows": ["B-*-f64"], "against": ["lstm"]}, run) == (
        "not measured",
        "none of 2 rows",
    )
    assert report["check"](target | {"figure": "growth"}, run) == ("not measured", "")


def test_targets_of_all_threads_look_at_those_rows():
    run = run_of(cython=1.0, torch=1.2)
    target = {"rows": ["Q-*-f32"], "against": ["torch"], "at_least": 1.0}
    assert report["check"](target | {"threads": "all"}, run)[0] == "not measured"
    run["rows"] |= run_of(NAME[:-2] + "4t", cython=1.0, torch=0.9)["rows"]
    assert report["check"](target, run)[0] == "pass"
    assert report["check"](target | {"threads": "all"}, run)[0] == "miss"


def test_the_machines_limit_takes_the_place_of_a_target_beyond_it():
    name = "Q-rnn-I64-H64-L1-uni-B1-T100-f32-1t"  # 100 steps of 64 * 64 weights, a projection of as many
    target = {"rows": ["Q-*"], "against": ["torch"], "at_least": 3.0}
    run = run_of(name, cython=1.0, torch=2.0) | {"limits": limits_of(1e9, 4 * 64 * 64 / 9.4 * 1e9 / 1e9)}
    run["limits"] = limits_of(1e12, 100 * 4 * 64 * 64 / 0.95e-6 / 1e9)  # 0.95 us, and the projection 0.0095
    assert report["least"](name, run) == pytest.approx(0.9595e-6)
    status, text = report["check"](target, run)
    assert status == "bound"
    assert "the machine allows 2.08, of which this is 96%" in text
    run["limits"] = limits_of(1e12, 100 * 4 * 64 * 64 / 0.8e-6 / 1e9)
    assert report["check"](target, run)[0] == "miss"  # the limit is far away still
    assert report["check"](target | {"against": ["numba"]}, run_of(name, cython=1.0, numba=2.0))[0] == "miss"
    assert report["check"](target | {"figure": "limit", "at_least": 0.8}, run)[0] == "pass"


def test_the_least_time_of_a_row():
    seconds = limits["seconds"]
    batch = rows.parse("B-lstm-I64-H64-L1-uni-B32-T50-f32-1t")
    assert seconds(batch, limits_of(100, 1e9)) == pytest.approx(batch.flops / 100e9)
    half = batch._replace(threads=2)
    assert seconds(half, limits_of(100, 1e9, 2)) == pytest.approx(batch.flops / 200e9)
    assert seconds(half, limits_of(100, 1e9)) is None
    step = rows.parse("S-gru-I64-H64-L1-uni-B1-T1-f64-1t")
    assert seconds(step, limits_of(1e9, 50)) == pytest.approx(8 * step.weights / 50e9)
    ragged = rows.parse("R-gru-I64-H64-L1-bi-B32-T64-f32-1t")
    assert 0 < ragged.valid < 32 * 64
    assert seconds(ragged, limits_of(100, 1e9)) == pytest.approx(ragged.flops / 100e9)
    written = rows.parse("G-lstm-I64-H512-L2-uni-B1-T1000-f32-1t")
    assert written.token_weights == 3 * 4 * 512 * 512 + 96 * 512  # W_hh twice, W_ih of the second layer, the head
    assert seconds(written._replace(encoder=True), limits_of(1e9, 50)) is None
    assert seconds(written, limits_of(1e9, 50)) == pytest.approx(1000 * 4 * written.token_weights / 50e9)


def test_streaming_rates_lie_between_the_measured_ones():
    curve = limits_of(1, 1)
    curve["threads"]["1"]["stream"] = [[1024, 100], [4096, 50]]
    rates = [limits["streaming"](curve, 1, size) for size in (1, 1024, 2048, 4096, 1 << 30)]
    assert rates == pytest.approx([100e9, 100e9, 75e9, 50e9, 50e9])


def test_losing_rows_are_shown():
    run = run_of(cython=1.0, torch=0.8)
    (row,) = run["rows"].values()
    for entry in row.values():
        entry["core"] = False
    assert report["table"](run, 1)[-1].startswith("| Q | GRU 3->37 | 5 | 100 | 0.01 |")
    assert "**0.80** (0.70-0.90)" in report["table"](run, 1)[-1]
    row["torch"]["ratio"] = ratio(1.2)
    assert "GRU" not in report["table"](run, 1)[-1]


def test_rows_beside_ourselves_are_told():
    run = run_of("R-gru-I3-H37-L1-bi-B5-T100-f32-1t", cython=1.0, dense=0.8)
    assert report["beside_ourselves"](run)[0].startswith("A valid step of a ragged batch takes at most 1.25 times")
    entry = {"engine": "cython", "ours": "cython", "figures": {"megabytes": 0.5, "growth": 0.1}}
    run |= {"rows": {"M-lstm-I128-H128-L1-uni-B1-T20000-f32-1t": {"cython": entry}}}
    wanted = "Memory of a call on 20000 steps of LSTM 128 beyond inputs and results, MB: fastrnn 0.5."
    assert report["beside_ourselves"](run) == [wanted, ""]
    target = {"rows": ["M-*"], "figure": "growth", "at_most": 1.0}
    assert report["check"](target, run)[0] == "pass"
    assert report["check"](target | {"at_most": 0.05}, run)[0] == "miss"
    entry["figures"] = {"nanoseconds": 545.0, "outside": 0.29, "megabytes": 9.2}
    run |= {"rows": {"O-gru-I16-H16-L1-uni-B10000000-T6-f32-1t": {"cython": entry}}}
    wanted = "10,000,000 sequences of 6 ids on average through GRU 16, 1 thread: 545 ns each, 29% of it not in kernels"
    assert report["beside_ourselves"](run) == [f"{wanted}, 9 MB beyond inputs and result.", ""]


def test_many_sequences_are_told_by_the_sequence():
    run = run_of("N-lstm-I64-H128-L1-uni-B2000-T40-f32-1t", **{"cython": 1.0, "torch": 3.0, "torch-padded": 2.0})
    line = report["table"](run, 1)[-1]
    assert line.startswith("| N | LSTM 64->128 | 2000 | 40 | 0.0005 |  |  |  |")
    assert "| 2.00 (1.90-2.10) |" in line  # the better of torch's two
    target = {"rows": ["N-*"], "against": ["torch-padded"], "at_least": 2.0}
    assert report["check"](target, run)[0] == "pass"


def test_runs_of_one_machine_are_merged():
    def run(version, gflops=1, gigabytes=1, **engines):
        machine = {"cpu": "a CPU", "python": "3", "versions": {"numpy": version}, "cores": 2}
        entries = [{"row": NAME, "engine": engine, "ratio": value} for engine, value in engines.items()]
        return {"date": version, "machine": machine, "rows": entries, "limits": limits_of(gflops, gigabytes)}

    old = run("2", 100, 30, torch=1, numba=2)
    old["rows"].append({"row": NAME.replace("T100", "T99"), "engine": "torch", "ratio": 1})  # of rows.py once
    found = run_py["merged"](old, run("2", 99, 40, torch=3, openvino=4))
    assert found["limits"] == limits_of(100, 40)
    assert {entry["row"] for entry in found["rows"]} == {NAME}
    assert {entry["engine"]: entry["ratio"] for entry in found["rows"]} == {"torch": 3, "numba": 2, "openvino": 4}
    with pytest.raises(ValueError, match="not of the same versions"):
        run_py["merged"](run("1"), run("2"))


def test_plots_are_readable_on_any_background(tmp_path):
    pytest.importorskip("matplotlib")
    run = run_of(cython=1.0, torch=2.0) | {"limits": limits_of(100, 100)}
    report["draw"](tmp_path, "here", run)
    plots = sorted(tmp_path.iterdir())
    assert [plot.name for plot in plots] == ["here-limit.svg", "here-ratio.svg"]
    for plot in plots:
        text = plot.read_text()
        assert "GRU 3-&gt;37" in text  # as text, not as outlines
        assert "#ffffff" not in text
        assert "#000000" not in text
        before = plot.read_bytes()
        report["draw"](tmp_path, "here", run)
        assert plot.read_bytes() == before
