"""Write golden.npz: the bits of golden.c over a table of cases.

    python tests/golden/make.py            compile golden.c with $CC or cc, run it, write golden.npz
    python tests/golden/make.py --check    compare golden.npz with a fresh run

The file holds ``arithmetic`` (the version of the contract), ``cases`` (the table below as JSON) and per case
``<name>/y``, a CRC-32 of the bits of every time step of y, and ``<name>/h``, ``<name>/c``, the final states. NaN counts
as one value.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
GOLDEN = FOLDER / "golden.npz"
ARITHMETIC = 2
VARIANTS = {"rnn": "tanh relu sigmoid linear"} | dict.fromkeys(
    ("lstm", "lstm_proj", "gru", "gru_before"), "standard linear"
)
WIDTHS = ((1, 1), (3, 3), (16, 15), (37, 16), (1, 17), (3, 37), (16, 64), (129, 16), (16, 130), (260, 128), (5, 257))
# I, H: either side of groups, blocks and runs of 128
# golden.c's arguments after the first two, in its order; it says what they mean.
DEFAULTS = {
    "I": 3,
    "H": 17,
    "P": 0,
    "L": 1,
    "D": 1,
    "T": 6,
    "B": 3,
    "bias": 1,
    "ragged": 0,
    "seed": 0,
    "weight_shift": 2,
    "state_shift": 0,
    "loud": 1000,
    "special": 0,
}


def kinds(dtype: str, others: list[str]) -> dict[str, dict[str, Any]]:
    """What every variant runs: widths, other activations, long runs, stacks, decaying states, non-finite inputs."""
    return {
        **{f"I{i}-H{h}": {"I": i, "H": h, "B": 7, "T": 4} for i, h in WIDTHS},
        **{other: {"activation": other, "weight_shift": 3} for other in others},  # small weights: states may grow
        "long": {"H": 37, "T": 40, "B": 2, "weight_shift": 1},
        "nobias": {"bias": 0, "B": 1},
        "stack": {"L": 2, "D": 2, "I": 16, "B": 7, "T": 9, "ragged": 1},
        "decay": {"L": 2, "B": 7, "T": 12, "bias": 0, "loud": 0, "ragged": 1}
        | {"state_shift": {"float32": 58, "float64": 504}[dtype]},
        "nonfinite": {"L": 2, "D": 2, "special": 1},
    }


def table() -> list[dict[str, Any]]:
    """All cases."""
    cases: list[dict[str, Any]] = []
    for dtype in ("float32", "float64"):
        for variant, activations in VARIANTS.items():
            first, *others = activations.split()
            for kind, sizes in kinds(dtype, others).items():
                head = {"name": f"{variant}-{kind}-{dtype}", "dtype": dtype, "variant": variant, "activation": first}
                case = head | DEFAULTS | sizes | {"seed": len(cases) + 1}
                case["P"] = max(1, case["H"] * 4 // 7) if variant == "lstm_proj" else 0
                case["loud"] = min(case["loud"], case["T"])
                cases.append(case)
    return cases


def crc(y: np.ndarray) -> np.ndarray:
    """CRC-32 of every time step, little endian, any NaN as numpy's."""
    y = np.where(np.isnan(y), y.dtype.type(np.nan), y)
    return np.array([zlib.crc32(np.ascontiguousarray(step, step.dtype.newbyteorder("<"))) for step in y], np.uint32)


def compute(program: Path, case: dict[str, Any]) -> dict[str, np.ndarray]:
    """Run one case."""
    arguments = [case["variant"], case["activation"], *(str(case[key]) for key in DEFAULTS)]
    output = np.frombuffer(
        subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE).stdout, case["dtype"]
    )
    layers, batch, r = case["L"] * case["D"], case["B"], case["P"] or case["H"]
    y, h, c = np.split(output, np.cumsum([case["T"] * batch * case["D"] * r, layers * batch * r]))
    arrays = {"y": crc(y.reshape(case["T"], -1)), "h": h.reshape(layers, batch, r)}
    if c.size:
        arrays["c"] = c.reshape(layers, batch, case["H"])
    return {f"{case['name']}/{key}": value for key, value in arrays.items()}


def compute_all() -> dict[str, np.ndarray]:
    """Compile golden.c for both dtypes and run the table."""
    cases = table()
    arrays = {"arithmetic": np.array(ARITHMETIC), "cases": np.array(json.dumps(cases))}
    with tempfile.TemporaryDirectory() as folder:
        for dtype, define in (("float32", []), ("float64", ["-DFASTRNN_DOUBLE"])):
            program = Path(folder) / dtype
            flags = ["-std=c11", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", *define]
            command = [*os.environ.get("CC", "cc").split(), *flags, str(FOLDER / "golden.c"), "-o", str(program), "-lm"]
            subprocess.run(command, check=True)
            for case in cases:
                if case["dtype"] == dtype:
                    arrays |= compute(program, case)
    return arrays


def main() -> int:
    """Write or check golden.npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only; exit status 1 if bits differ")
    check = parser.parse_args().check
    arrays = compute_all()
    if not check:
        np.savez_compressed(GOLDEN, **arrays)
        print(f"wrote {len(table())} cases, {GOLDEN.stat().st_size} bytes")
        return 0
    with np.load(GOLDEN) as stored:
        before = dict(stored)
    differ = [name for name in before | arrays if not same(before.get(name), arrays.get(name))]
    print("\n".join([f"differs: {name}" for name in differ]) or "golden.npz is what golden.c computes")
    return int(bool(differ))


def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Equal bits, any NaN as one value."""
    if a is None or b is None:
        return False
    if a.dtype.kind != "f" or a.shape != b.shape:
        return np.array_equal(a, b)
    bits = f"u{a.itemsize}"
    return bool(np.all((a.view(bits) == b.view(bits)) | (np.isnan(a) & np.isnan(b))))


if __name__ == "__main__":
    sys.exit(main())
