"""Derive the coefficients of the activations and write them for C and for Numba.

sigma and tanh need e^-x and e^2x. Both take out n ln 2, the nearest multiple, and are left with e^g - 1 = g * q(g),
|g| <= ln 2 / 2. q is a minimax polynomial whose first coefficient is exactly 1, for the sake of tanh at small x; the
others are rounded to the dtype one after the other, lowest first, and each time the rest is fitted anew, so that it
makes up for the rounding. sigma has g = -f, tanh has g = 2f: their coefficients are q's times exact powers of -1 and 2.
The logarithm of softmax needs no such care: its polynomial is a Chebyshev fit with rounded coefficients.

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
# Bits of the significand, degree of q, largest n of sigma, degree of the logarithm's polynomial.
DTYPES = {"F32": (24, 5, 126, 3), "F64": (53, 10, 1022, 9)}
GRID = 1500  # points the error is looked at; even, so that none is 0
MEANING = {
    "Q_SIGMA": "(e^-f - 1) / f for |f| <= ln 2 / 2, lowest coefficient first",
    "Q_TANH": "(e^2f - 1) / f for |f| <= ln 2 / 4",
    "Q_LOG": "(ln((1 + u) / (1 - u)) - 2u) / u^3 by powers of u^2, |u| <= (sqrt 2 - 1) / (sqrt 2 + 1)",
    "SIGMA_LIMIT": "sigma is 0 below minus this; there e^-x is the largest power of two whose inverse is normal",
}


def nearest(value: mp.mpf, bits: int) -> mp.mpf:
    """Round to nearest even with `bits` bits; every number here is in the normal range of its dtype."""
    with mp.workprec(bits):
        return +value


def fit(fixed: list[mp.mpf], degree: int) -> list[mp.mpf]:
    """Remez exchange for the coefficients of q above the `fixed` ones: minimise the largest |(e^g - 1) / g - q(g)|."""
    first, unknowns = len(fixed), degree + 1 - len(fixed)
    # Away from 0 the powers g^first .. g^degree are a Haar system; its error alternates once g^first's sign is out.
    points = [mp.cos(mp.pi * (2 * i + 1) / (2 * GRID)) * mp.ln(2) / -2 for i in range(GRID)]
    signs = [1 if g > 0 or first % 2 == 0 else -1 for g in points]
    target = [mp.expm1(g) / g - mp.polyval(fixed[::-1], g) for g in points]
    chosen = [round(GRID * (1 - mp.cos(mp.pi * i / unknowns)) / 2) for i in range(unknowns + 1)]
    chosen = [min(max(i, 0), GRID - 1) for i in chosen]
    for _ in range(50):
        rows = mp.matrix(unknowns + 1, unknowns + 1)
        right = mp.matrix(unknowns + 1, 1)
        for row, i in enumerate(chosen):
            for column in range(unknowns):
                rows[row, column] = points[i] ** (first + column)
            rows[row, unknowns] = (-1) ** row * signs[i]
            right[row] = target[i]
        solution = mp.lu_solve(rows, right)
        rest, level = [solution[j] for j in range(unknowns)], abs(solution[unknowns])
        errors = [
            sign * (t - g**first * mp.polyval(rest[::-1], g)) for g, sign, t in zip(points, signs, target, strict=True)
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


def log_series(square: mp.mpf) -> mp.mpf:
    """(ln((1 + u) / (1 - u)) - 2u) / u^3 from u^2, by its series: the formula loses digits near 0."""
    return mp.nsum(lambda j: 2 * square**j / (2 * j + 3), [0, mp.inf], method="direct") if square else mp.mpf(2) / 3


def derive(bits: int, degree: int, most: int, log_degree: int) -> dict[str, list[mp.mpf]]:
    """Return the rounded constants of one dtype."""
    log2e, ln2 = nearest(1 / mp.ln(2), bits), nearest(mp.ln(2), bits)
    q = [mp.mpf(1)]
    while len(q) <= degree:
        q.append(nearest(fit(q, degree)[0], bits))
    largest = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2
    log = mp.chebyfit(log_series, [0, largest], log_degree + 1)[::-1]
    with mp.workprec(bits):
        limit = mp.fmul(most, ln2, rounding="d")
    return {
        "Q_SIGMA": [c * (-1) ** (j + 1) for j, c in enumerate(q)],
        "Q_TANH": [c * 2 ** (j + 1) for j, c in enumerate(q)],
        "Q_LOG": [nearest(c, bits) for c in log],
        "LN2": [ln2],
        "MINUS_HALF_LN2": [-ln2 / 2],
        "MINUS_LOG2E": [-log2e],
        "TWO_LOG2E": [2 * log2e],
        "SIGMA_LIMIT": [limit],
    }


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
    for dtype, parameters in DTYPES.items():
        suffix = "f" if dtype == "F32" else ""
        for name, values in derive(*parameters).items():
            texts = [float(value).hex().replace("0000000p", "p") for value in values]  # float32 has the zeros
            if name in MEANING:
                c.append(f"/* {MEANING[name]} */")
                python.append(f"# {MEANING[name]}")
            if len(texts) > 1:
                c.append(f"#define FASTRNN_{name}_{dtype} \\")
                c.append("    {" + ", \\\n     ".join(text + suffix for text in texts) + "}")
                python += [f"{name}_{dtype} = (", *(f'    float.fromhex("{text}"),' for text in texts), ")"]
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
