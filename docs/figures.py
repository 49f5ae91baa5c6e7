"""Draw the figures of networks.md into figures/, from the states of the demo's classifier and its twins."""

from pathlib import Path

import matplotlib
import numpy as np

import fastrnn.plot
from fastrnn import demo

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "examples/models"
SHORT = "wake me up at half past six tomorrow"
LONG = (
    "please call my mother and tell her that I will be home a little later than I said this morning "
    "because the train is late"
)


def read(path: Path, sentence: str, skip: str = "none") -> tuple[fastrnn.RNN, np.ndarray]:
    """A model's recurrent layer, without the weights whose names hold `skip`, and what it reads of a sentence."""
    model = fastrnn.load(path)
    (layer,) = model.layers
    layer = fastrnn.from_state_dict({name: w for name, w in layer.state_dict().items() if skip not in name})
    return layer, model.embedding[model.vocabulary.encode(demo.words(sentence))]


def main(folder: Path = HERE / "figures") -> None:
    def save(figure, name: str) -> None:
        with matplotlib.rc_context(fastrnn.plot.STYLE):
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})

    bilstm, rnn = MODELS / "intent_bilstm.safetensors", MODELS / "intent_rnn.safetensors"
    layers, inputs = {}, {}
    layers["RNN"], inputs["RNN"] = read(rnn, LONG)
    layers["LSTM"], inputs["LSTM"] = read(bilstm, LONG, skip="_reverse")
    save(fastrnn.plot.influence(layers, inputs, demo.words(LONG)), "influence")
    save(fastrnn.plot.gates(layers["LSTM"], inputs["LSTM"], demo.words(LONG)), "lstm-gates")
    save(fastrnn.plot.gates(*read(bilstm, SHORT), demo.words(SHORT)), "both-directions")
    save(fastrnn.plot.gates(*read(demo.DATA / "intent_gru.safetensors", SHORT), demo.words(SHORT)), "gru-gates")


if __name__ == "__main__":
    main()
