"""Measure: runs the suite in a process of its own and writes results/NAME.json; all else goes on to pytest."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", help="write results/NAME.json (default: nothing is written)")
    parser.add_argument(
        "--rows", choices=("core", "all"), default="core", help="the README's rows (ten minutes) or all (an hour)"
    )
    parser.add_argument("-k", help="choose rows and engines by name, as in pytest")
    options, rest = parser.parse_known_args()
    if os.getloadavg()[0] > 0.5:
        print(f"load average {os.getloadavg()[0]:.1f}: the figures hold on a quiet machine only", file=sys.stderr)
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        str(HERE),
        "--rows",
        options.rows,
        "-q",
        "--benchmark-columns=median,iqr",
        *rest,
    ]
    if options.k:
        command += ["-k", options.k]
    if options.name:
        (HERE / "results").mkdir(exist_ok=True)
        command.append(f"--benchmark-json={HERE / 'results' / options.name}.json")
    return subprocess.run(command, cwd=HERE.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
