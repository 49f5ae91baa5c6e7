"""Measure: runs the suite in a process of its own and writes results/NAME.json; all else goes on to pytest."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from rows import every  # noqa: E402

FAMILIES = {
    "S": "steps",
    "Q": "sequences",
    "B": "batches",
    "R": "ragged",
    "D": "decay",
    "G": "generation",
    "N": "many",
    "O": "short",
    "C": "cold",
    "M": "memory",
    "P": "callers",
}


def highest(old: Any, new: Any) -> Any:
    """The limits that two runs of one machine found: the highest rates, for a busy machine's are too low."""
    if isinstance(old, dict):
        return old | {key: highest(old[key], value) if key in old else value for key, value in new.items()}
    if isinstance(old, list):
        return [highest(*pair) for pair in zip(old, new, strict=True)]
    return max(old, new)


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Two runs of one machine as one: entries of an engine and a row that was measured again, or is no more, go."""
    for what in ("cpu", "python", "versions", "cores"):
        if old["machine"][what] != new["machine"][what]:
            raise ValueError(
                f"these results are not of the same {what}: {old['machine'][what]} and {new['machine'][what]}; "
                "give another --name, or remove the old file"
            )
    there = {row.name.rpartition("-")[0] for row in every()}
    kept = [entry for entry in old["rows"] if entry["row"].rpartition("-")[0] in there]
    rows = {(entry["row"], entry["engine"]): entry for entry in kept}
    rows |= {(entry["row"], entry["engine"]): entry for entry in new["rows"]}
    return old | new | {"rows": list(rows.values()), "limits": highest(old["limits"], new["limits"])}


def written(run: dict[str, Any]) -> str:
    """A run as JSON, a line for each engine of a row."""
    head = json.dumps(run | {"rows": []}, indent=1)
    return head.replace('"rows": []', '"rows": [\n' + ",\n".join(map(json.dumps, run["rows"])) + "\n]") + "\n"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", help="write results/NAME.json, or merge into it (default: nothing is written)")
    parser.add_argument("--rows", choices=("core", "all"), default="core", help="the README's rows, or all (hours)")
    parser.add_argument("--family", choices=FAMILIES, action="append", help="only this one; may be repeated")
    parser.add_argument("-k", help="choose rows and engines by name, as in pytest")
    options, rest = parser.parse_known_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's, for the reference on one thread
    if os.getloadavg()[0] > 0.5:
        print(f"load average {os.getloadavg()[0]:.1f}: the figures hold on a quiet machine only", file=sys.stderr)
    files = [str(HERE / f"test_{FAMILIES[family]}.py") for family in options.family or FAMILIES]
    command = [sys.executable, "-P", "-m", "pytest", *files, "--rows", options.rows, "-q", "-n0"]
    command += ["--benchmark-columns=median,iqr", *rest]
    if options.k:
        command += ["-k", options.k]
    if not options.name:
        return subprocess.run(command, cwd=HERE.parent, check=False).returncode
    path = HERE / "results" / f"{options.name}.json"
    path.parent.mkdir(exist_ok=True)
    measured = subprocess.run([sys.executable, "-P", str(HERE / "limits.py")], stdout=subprocess.PIPE, check=True)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.json"
        code = subprocess.run([*command, f"--benchmark-json={part}"], cwd=HERE.parent, check=False).returncode
        if not part.exists() or not part.stat().st_size:
            print("nothing was measured, nothing is written", file=sys.stderr)
            return code or 1
        found = json.loads(part.read_text()) | {"limits": json.loads(measured.stdout)}
    if path.exists():
        found = merged(json.loads(path.read_text()), found)
    path.write_text(written(found))
    return code


if __name__ == "__main__":
    sys.exit(main())
