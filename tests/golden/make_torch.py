"""Write torch.npz: what torch 2.13 makes of layers, and how far it is from the reference.

    python tests/golden/make_torch.py

The file holds ``torch`` (its version), ``cases`` (the table below as JSON) and per case ``<name>``: y, h and c that
torch gave for the first seed, one after the other as one flat array; runs of 1000 steps have none. To each case of the
table are added ``checksum``, of all that was drawn for it, and ``error``, torch's largest error over all seeds against
the reference in a wider type: the largest difference, or the root mean square in runs of 1000 steps. Weights and inputs
are not in the file: `layer_cases.draw` draws them again.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parent))

import cases  # noqa: E402
import layer_cases  # noqa: E402

GOLDEN = FOLDER / "torch.npz"
VERSION = "2.13.0"
SEEDS = range(10)
LONG = 1000  # steps
DTYPES = ("float32", "float64")
KINDS = [kind for kind in layer_cases.KINDS if kind != "gru_before"]  # which torch does not have
OPTIONS = ("num_layers", "bias", "batch_first", "bidirectional")
SIZES = ((1, 4), (3, 17), (17, 16), (16, 37))  # I, H
DEFAULTS: dict[str, Any] = {"sizes": [3, 5], "options": {}, "steps": 4, "batch": 3, "ragged": False}


def table() -> list[dict[str, Any]]:
    """All cases: of every kind and dtype all options, sizes, lengths in a full stack, and a long run."""
    every = [dict(zip(OPTIONS, v, strict=True)) for v in itertools.product((1, 2), *[(True, False)] * 3)]
    changes: dict[str, dict[str, Any]] = {
        **{f"grid{i}": {"options": options} for i, options in enumerate(every)},
        **{f"I{i}-H{h}": {"sizes": [i, h]} for i, h in SIZES},
        "ragged": {"options": {"num_layers": 2, "bidirectional": True}, "steps": 7, "batch": 5, "ragged": True},
        "long": {"sizes": [3, 17], "steps": LONG, "batch": 1},
    }
    rows: list[dict[str, Any]] = []
    for dtype, kind, (what, change) in itertools.product(DTYPES, KINDS, changes.items()):
        head = {"name": f"{kind}-{what}-{dtype}", "dtype": dtype, "kind": kind, "seed": len(rows)}
        rows.append(head | DEFAULTS | change)
    return rows


def run(drawn: tuple[Any, ...]) -> list[np.ndarray]:
    """Run torch on what `layer_cases.draw` gave: [y, h] or [y, h, c]."""
    import torch

    layer, x, hx, lengths = drawn
    names = (*OPTIONS, "nonlinearity", "proj_size")
    options = {name: getattr(layer, name) for name in names if hasattr(layer, name)}
    sizes, dtype = (layer.input_size, layer.hidden_size), getattr(torch, layer.dtype.name)
    module = getattr(torch.nn, type(layer).__name__)(*sizes, **options, dtype=dtype)
    module.load_state_dict({name: torch.from_numpy(w) for name, w in layer.state_dict().items()})
    y, states = cases.run_torch(module, x, list(layer_cases.arrays(hx)), lengths)
    return [y, *states]


def errors_of(case: dict[str, Any], theirs: float = 0.0) -> layer_cases.Errors:
    """Return where to add up a case's errors."""
    norm = layer_cases.root_mean_square if case["steps"] == LONG else layer_cases.largest
    return layer_cases.Errors(case["dtype"], norm, theirs)


def main() -> None:
    """Write torch.npz."""
    import torch

    if torch.__version__.partition("+")[0] != VERSION:
        raise SystemExit(f"torch.npz is of torch {VERSION}, here is {torch.__version__}")
    torch.set_num_threads(1)
    arrays, rows = {"torch": np.array(torch.__version__)}, table()
    for case in rows:
        drawn = [layer_cases.draw(case, seed) for seed in SEEDS]
        results = [run(d) for d in drawn]
        errors = errors_of(case)
        case["error"] = max(errors.distance(r, layer_cases.oracle(*d)) for r, d in zip(results, drawn, strict=True))
        case["checksum"] = layer_cases.checksum(drawn)
        if case["steps"] != LONG:
            arrays[case["name"]] = np.concatenate([a.ravel() for a in results[0]])
    np.savez_compressed(GOLDEN, cases=np.array(json.dumps(rows)), **arrays)
    print(f"wrote {len(rows)} cases, {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
