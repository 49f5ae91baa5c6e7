"""Write golden.npz: the bits of golden.c over a table of cases.

    python tests/golden/make.py            compile golden.c with $CC or cc, run it, write golden.npz
    python tests/golden/make.py --check    compare golden.npz with a fresh run

The file holds ``arithmetic`` (the version of the contract), ``cases`` and ``dense`` (the tables below as JSON); per
case ``<name>/y``, a CRC-32 of the bits of every time step of y, and ``<name>/h``, ``<name>/c``, the final states; and
per dense layer ``<name>/out``. NaN counts as one value.
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


def dense_table() -> list[dict[str, Any]]:
    """All dense layers: widths, large weights for tiny shares of softmax, no bias, non-finite numbers; five rows."""
    kinds: dict[str, dict[str, Any]] = {
        **{f"K{i}-V{h}": {"I": i, "H": h} for i, h in ((1, 1), (5, 3), (130, 15), (16, 16), (3, 37), (37, 130))},
        "large": {"I": 37, "H": 37, "weight_shift": -5},
        "nobias": {"bias": 0},
        "nonfinite": {"special": 1},
    }
    of_one = {"K260-V17": {"I": 260}, "nonfinite": kinds["nonfinite"]}
    cases: list[dict[str, Any]] = []
    for dtype in ("float32", "float64"):
        for activation in ("softmax", "log_softmax", "sigmoid", "tanh", "relu", "linear"):
            for kind, sizes in (kinds if activation.endswith("softmax") else of_one).items():
                head = {"name": f"{activation}-{kind}-{dtype}", "dtype": dtype, "activation": activation}
                cases.append(head | DEFAULTS | {"T": 5} | sizes | {"seed": len(cases) + 1})
    return cases


def crc(y: np.ndarray) -> np.ndarray:
    """CRC-32 of every time step, little endian, any NaN as numpy's."""
    y = np.where(np.isnan(y), y.dtype.type(np.nan), y)
    return np.array([zlib.crc32(np.ascontiguousarray(step, step.dtype.newbyteorder("<"))) for step in y], np.uint32)


def run(program: Path, variant: str, case: dict[str, Any]) -> np.ndarray:
    """Run one case: all its numbers."""
    arguments = [variant, case["activation"], *(str(case[key]) for key in DEFAULTS)]
    done = subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE)
    return np.frombuffer(done.stdout, case["dtype"])


def compute(program: Path, case: dict[str, Any]) -> dict[str, np.ndarray]:
    """Run a layer."""
    output = run(program, case["variant"], case)
    layers, batch, r = case["L"] * case["D"], case["B"], case["P"] or case["H"]
    y, h, c = np.split(output, np.cumsum([case["T"] * batch * case["D"] * r, layers * batch * r]))
    arrays = {"y": crc(y.reshape(case["T"], -1)), "h": h.reshape(layers, batch, r)}
    if c.size:
        arrays["c"] = c.reshape(layers, batch, case["H"])
    return {f"{case['name']}/{key}": value for key, value in arrays.items()}


def compute_all() -> dict[str, np.ndarray]:
    """Compile golden.c for both dtypes and run the tables."""
    cases, dense_cases = table(), dense_table()
    arrays = {"arithmetic": np.array(ARITHMETIC)}
    arrays |= {"cases": np.array(json.dumps(cases)), "dense": np.array(json.dumps(dense_cases))}
    with tempfile.TemporaryDirectory() as folder:
        for dtype, define in (("float32", []), ("float64", ["-DFASTRNN_DOUBLE"])):
            program = Path(folder) / dtype
            flags = ["-std=c11", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", *define]
            command = [*os.environ.get("CC", "cc").split(), *flags, str(FOLDER / "golden.c"), "-o", str(program), "-lm"]
            subprocess.run(command, check=True)
            for case in cases:
                if case["dtype"] == dtype:
                    arrays |= compute(program, case)
            for case in dense_cases:
                if case["dtype"] == dtype:
                    arrays[f"{case['name']}/out"] = run(program, "dense", case).reshape(case["T"], case["H"])
    return arrays


def main() -> int:
    """Write or check golden.npz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only; exit status 1 if bits differ")
    check = parser.parse_args().check
    arrays = compute_all()
    if not check:
        np.savez_compressed(GOLDEN, **arrays)
        print(f"wrote {len(table())} + {len(dense_table())} cases, {GOLDEN.stat().st_size} bytes")
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
