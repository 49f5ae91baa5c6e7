"""Print how many held-out sentences classifiers of intents get right: a bidirectional LSTM, an RNN, the demo's GRU.

python examples/intents.py
"""

import argparse
from pathlib import Path

import fastrnn
from fastrnn import demo

HERE = Path(__file__).resolve().parent
MODELS = [HERE / "models/intent_bilstm.safetensors", HERE / "models/intent_rnn.safetensors"]
MODELS += [demo.DATA / "intent_gru.safetensors"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, default=MODELS, help="saved models (default: these three)")
    sentences, intents = demo.requests()
    for path in parser.parse_args().models:
        model = fastrnn.load(path)
        p = model.predict_many([model.vocabulary.encode(demo.words(sentence)) for sentence in sentences])
        right = sum(model.labels[i] == intent for i, intent in zip(p.argmax(1), intents, strict=True))
        print(f"{path.stem:15}{right} of {len(intents)} right ({right / len(intents):.1%})")


if __name__ == "__main__":
    main()
