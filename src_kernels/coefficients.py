"""Derive the coefficients of the activations and write them for C and for Numba.

Both sigma and tanh are built on 2^f - 1 = f * q(f) with |f| <= 1/2. q is a minimax polynomial whose coefficients are
rounded to the dtype one after the other, lowest first; each time the rest is fitted anew, so that it makes up for the
rounding. Q[0] is not fitted: tanh(x) for small x is x * (2 log2 e) * Q[0] / 2 with 2 log2 e rounded too, so Q[0] is the
number whose product with that constant comes closest to 2.

    python src_kernels/coefficients.py            write coefficients.h and fastrnn/numba_kernels/coefficients.py
    python src_kernels/coefficients.py --check    compare them with a fresh derivation
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mpmath as mp

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "src_kernels" / "coefficients.h"
PYTHON = ROOT / "fastrnn" / "numba_kernels" / "coefficients.py"
DTYPES = {"F32": (24, 5), "F64": (53, 10)}  # name: bits of the significand, degree of q
GRID = 1500  # points the error is looked at; even, so that none is 0


def nearest(value: mp.mpf, bits: int) -> mp.mpf:
    """Round to nearest even with `bits` bits; every number here is in the normal range of its dtype."""
    with mp.workprec(bits):
        return +value


def weight(f: mp.mpf) -> mp.mpf:
    """Turn the error of f * q(f) into what is made equally small.

    The relative error of q serves tanh, which needs relative accuracy, but with a rounded Q[0] it cannot vanish at 0;
    there the absolute error takes over.
    """
    return 1 / max(abs(f), mp.mpf(1) / 8)


def fit(fixed: list[mp.mpf], degree: int) -> list[mp.mpf]:
    """Remez exchange for the coefficients of q above the `fixed` ones: minimise max |weight(f) (2^f - 1 - f q(f))|."""
    first, unknowns = len(fixed), degree + 1 - len(fixed)
    # Away from 0, where the error is 0 anyway, f^(first+1) .. f^(degree+1) are a Haar system; its error alternates in
    # sign once the sign of f^(first+1) is taken out.
    points = [mp.cos(mp.pi * (2 * i + 1) / (2 * GRID)) / -2 for i in range(GRID)]
    signs = [1 if f > 0 or first % 2 else -1 for f in points]
    target = [mp.expm1(f * mp.ln(2)) - f * mp.polyval(fixed[::-1], f) for f in points]
    weights = [weight(f) for f in points]
    chosen = [round(GRID * (1 - mp.cos(mp.pi * i / unknowns)) / 2) for i in range(unknowns + 1)]
    chosen = [min(max(i, 0), GRID - 1) for i in chosen]
    for _ in range(50):
        rows = mp.matrix(unknowns + 1, unknowns + 1)
        right = mp.matrix(unknowns + 1, 1)
        for row, i in enumerate(chosen):
            for column in range(unknowns):
                rows[row, column] = points[i] ** (first + 1 + column)
            rows[row, unknowns] = (-1) ** row * signs[i] / weights[i]
            right[row] = target[i]
        solution = mp.lu_solve(rows, right)
        rest, level = [solution[j] for j in range(unknowns)], abs(solution[unknowns])
        errors = [
            s * w * (t - f ** (first + 1) * mp.polyval(rest[::-1], f))
            for f, s, w, t in zip(points, signs, weights, target, strict=True)
        ]
        runs: list[int] = []  # the largest error of every stretch of one sign that reaches the level
        for i, error in enumerate(errors):
            if abs(error) < level * (1 - mp.mpf(10) ** -9):
                continue
            if not runs or error * errors[runs[-1]] < 0:
                runs.append(i)
            elif abs(error) > abs(errors[runs[-1]]):
                runs[-1] = i
        while len(runs) > unknowns + 1:
            runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
        if max(map(abs, errors)) <= level * (1 + mp.mpf(10) ** -6):
            return rest
        chosen = runs
    raise RuntimeError(f"the exchange did not settle with {first} coefficients fixed")


def derive(bits: int, degree: int) -> dict[str, list[mp.mpf]]:
    """Return the rounded q, -log2 e and 2 log2 e of one dtype."""
    log2e = nearest(1 / mp.ln(2), bits)
    q = [nearest(1 / log2e, bits)]
    while len(q) <= degree:
        q.append(nearest(fit(q, degree)[0], bits))
    return {"Q": q, "MINUS_LOG2E": [-log2e], "TWO_LOG2E": [2 * log2e]}


def files() -> dict[Path, str]:
    """Return the text of both files."""
    head = "written by src_kernels/coefficients.py, which says how; do not edit"
    c = [
        f"/* The activations' coefficients, {head}. */",
        "#ifndef FASTRNN_COEFFICIENTS_H",
        "#define FASTRNN_COEFFICIENTS_H",
        "",
    ]
    python = [f'"""The activations\' coefficients, {head}."""', ""]
    for dtype, (bits, degree) in DTYPES.items():
        suffix = "f" if dtype == "F32" else ""
        for name, values in derive(bits, degree).items():
            texts = [float(value).hex().replace("0000000p", "p") for value in values]  # float32 has the zeros
            if name == "Q":
                c.append("/* q(f) ~ (2^f - 1) / f, |f| <= 1/2, lowest coefficient first */")
                c.append(f"#define FASTRNN_Q_{dtype} \\")
                c.append("    {" + ", \\\n     ".join(text + suffix for text in texts) + "}")
                python += [f"Q_{dtype} = (", *(f'    float.fromhex("{text}"),' for text in texts), ")"]
            else:
                c.append(f"#define FASTRNN_{name}_{dtype} ({texts[0]}{suffix})")
                python.append(f'{name}_{dtype} = float.fromhex("{texts[0]}")')
        c.append("")
    c += ["#endif", ""]
    return {HEADER: "\n".join(c), PYTHON: "\n".join([*python, ""])}


def main() -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only; exit status 1 if a file differs")
    check = parser.parse_args().check
    mp.mp.prec = 250
    differ = 0
    for path, text in files().items():
        if check:
            same = path.exists() and path.read_text() == text
            differ += not same
            print(f"{path.relative_to(ROOT)}: {'as derived' if same else 'differs from what is derived'}")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
