"""Write new names of one kind: the class is the state that the network starts from.

python examples/names.py town
"""

import argparse
from pathlib import Path

from safetensors.numpy import load_file

import fastrnn

MODELS = Path(__file__).resolve().parent / "models"


def main() -> None:
    states = load_file(MODELS / "names_states.safetensors")  # (1, H) for each kind
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=sorted(states))
    parser.add_argument("-n", type=int, default=10, help="names (default: 10)")
    parser.add_argument("--temperature", type=float, default=0.7, help="0: always the most probable (default: 0.7)")
    parser.add_argument("--seed", type=int, default=0, help="of the first name (default: 0)")
    args = parser.parse_args()
    model = fastrnn.load(MODELS / "names.safetensors")
    for k in range(args.n):
        # an empty prompt: the first letter comes from the state
        print(model.generate("", 30, temperature=args.temperature, seed=args.seed + k, state=[states[args.kind]]))


if __name__ == "__main__":
    main()
