"""Family G: a model that writes token by token, ours in one call, a peer's step by step with the choice in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn._bench import graphs
from fastrnn._bench.problems import STOP, Array, Problem, fastrnn_layer
from fastrnn.sampling import uniform

__all__ = ["generate", "onnxruntime_step", "torch_step", "write"]

Step = Callable[[int], Array]  # an id -> logits (V,), from the state that the steps before left
START = 0


def generate(of: Problem, backend: str | None = None) -> Callable[[], Array]:
    """Our model's `generate`, greedy where an encoder reads first."""
    import fastrnn

    assert of.embedding is not None
    layer = fastrnn_layer(of.row, backend).load_state_dict(of.weights)
    model = fastrnn.SequenceModel(layer, embedding=of.embedding, head=(of.head, None, "softmax"))
    if of.encoder is None:
        return lambda: model.generate([START], of.row.steps, seed=0)
    reading = fastrnn_layer(of.encoder.row, backend).load_state_dict(of.encoder.weights)
    encoder = fastrnn.SequenceModel(reading, embedding=of.encoder.embedding)
    both = fastrnn.Seq2Seq(encoder, model, start=START, stop=STOP)
    return lambda: both.generate(of.encoder.letters, of.row.steps)  # type: ignore[union-attr]


def write(of: Problem, begin: Callable[[], Step]) -> Callable[[], Array]:
    """Drive a peer: the numbers that decide are those that ours draws with."""
    numbers = [uniform(0, t) for t in range(of.row.steps)]

    def drawn() -> Array:
        step, token, ids = begin(), START, []
        for number in numbers:
            logits = step(token)
            sums = np.exp(logits - logits.max()).cumsum()
            token = int(sums.searchsorted(number * sums[-1], side="right"))
            ids.append(token)
        return np.array(ids)

    def greedy() -> Array:
        step, token, ids = begin(), START, []
        for _ in numbers:
            token = int(step(token).argmax())
            if token == STOP:
                break
            ids.append(token)
        return np.array(ids)

    return drawn if of.encoder is None else greedy


def torch_step(of: Problem) -> Callable[[], Step]:
    """torch.nn modules on one token at a time."""
    import torch

    def parts(of: Problem) -> tuple[Any, Any]:
        kind = getattr(torch.nn, of.row.cell.upper())
        layer = kind(of.row.input_size, of.row.hidden_size, of.row.layers).eval()
        layer.load_state_dict({name: torch.from_numpy(array) for name, array in of.weights.items()})
        return layer, torch.from_numpy(of.embedding)

    layer, embedding = parts(of)
    head = torch.from_numpy(of.head)
    if of.encoder is not None:
        reader, letters = parts(of.encoder)
        word = torch.from_numpy(of.encoder.letters)

    def begin() -> Step:
        hx: Any = None if of.encoder is None else reader(letters[word][:, None])[1]

        def step(token: int) -> Array:
            nonlocal hx
            y, hx = layer(embedding[token][None, None], hx)
            logits: Array = torch.nn.functional.linear(y[0, 0], head).numpy()
            return logits

        return step

    return begin


def onnxruntime_step(of: Problem, session: Any, encoder: Any = None) -> Callable[[], Step]:
    """A session of one step whose states go from output to input without a copy: two bindings take turns."""
    import onnxruntime

    row = of.row._replace(steps=1)
    shape = (1, 1, row.hidden_size)
    names = [f"{letter}{layer}" for layer in range(row.layers) for letter in graphs.states(row)]
    make = onnxruntime.OrtValue.ortvalue_from_numpy
    values = [{name: make(np.zeros(shape, np.float32)) for name in names} for _ in range(2)]
    x = np.zeros((1, 1, row.input_size), np.float32)
    logits = make(np.empty((1, len(of.head)), np.float32))  # type: ignore[arg-type]
    bindings = []
    for turn in range(2):
        binding = session.io_binding()
        binding.bind_cpu_input("x", x)
        binding.bind_ortvalue_output("logits", logits)
        for name in names:
            binding.bind_ortvalue_input(name, values[turn][name])
            binding.bind_ortvalue_output(f"{name}_out", values[1 - turn][name])
        bindings.append(binding)

    read = None if of.encoder is None else onnxruntime_read(of.encoder, encoder, values[0])

    def begin() -> Step:
        turn = 0
        if read is not None:
            read()
        else:
            for value in values[0].values():  # a name in this function keeps what the bindings only point at
                value.update_inplace(np.zeros(shape, np.float32))

        def step(token: int) -> Array:
            nonlocal turn
            x[0, 0] = of.embedding[token]  # type: ignore[index]
            session.run_with_iobinding(bindings[turn])
            turn = 1 - turn
            return logits.numpy()[0]  # type: ignore[no-any-return]

        return step

    return begin


def onnxruntime_read(of: Problem, session: Any, states: dict[str, Any]) -> Callable[[], None]:
    """An encoder's session, which leaves its states where the decoder takes them."""
    x = np.empty_like(of.x)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    for name, value in states.items():
        binding.bind_ortvalue_output(f"{name}_out", value)

    def read() -> None:
        x[:, 0] = of.embedding[of.letters]  # type: ignore[index]
        session.run_with_iobinding(binding)

    return read
