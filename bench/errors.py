"""Largest distances from a float64 reference, ours and torch's, in units of the bound that docs/arithmetic.md names."""

import argparse

import numpy as np
import torch

import fastrnn

SHAPES = ((17, 130, 6), (1, 256, 6), (1, 512, 6), (16, 512, 50), (512, 512, 6), (1, 1024, 4))  # I, H, T
KINDS = (("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("LSTM", {"proj_size": 64}), ("GRU", {}))
SEEDS = 10


def in_bounds(kind: str, options: dict, inputs: int, hidden: int, steps: int) -> tuple[float, float]:
    """Our largest error and torch's, float32, over the larger of 2 x torch's and 4 eps x the largest value."""
    ours = theirs = largest = 0.0
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        module = getattr(torch.nn, kind)(inputs, hidden, **options)
        wide = getattr(torch.nn, kind)(inputs, hidden, dtype=torch.float64, **options)
        wide.load_state_dict({name: value.double() for name, value in module.state_dict().items()})
        x = torch.randn(steps, 1, inputs)
        with torch.inference_mode():
            torchs, exact = module(x)[0].numpy(), wide(x.double())[0].numpy()
        ours = max(ours, np.abs(fastrnn.from_torch(module)(x.numpy())[0] - exact).max())
        theirs, largest = max(theirs, np.abs(torchs - exact).max()), max(largest, np.abs(exact).max())
    bound = max(2 * theirs, 4 * np.finfo(np.float32).eps * largest)
    return ours / bound, theirs / bound


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    for kind, options in KINDS:
        for shape in SHAPES:
            ours, theirs = in_bounds(kind, options, *shape)
            print(f"{kind} {options or ''} {shape}: fastrnn {ours:.2f}, torch {theirs:.2f}")
