"""Pairs of modules for the tests of fastrnn.torch: torch's own, and ours with the same weights. Needs torch."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import fastrnn.torch

torch.set_num_threads(1)  # its pool is a hundred times slower than one thread where cores are busy

QUIET = [
    pytest.mark.filterwarnings("ignore:LSTM with projections"),  # that oneDNN does not have them
    pytest.mark.filterwarnings("ignore:.*(jit|weight_norm).*deprecated"),
]
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "RNN-tanh": ("RNN", {}),
    "RNN-relu": ("RNN", {"nonlinearity": "relu"}),
    "LSTM": ("LSTM", {}),
    "LSTM-proj": ("LSTM", {"proj_size": 3}),
    "GRU": ("GRU", {}),
}
CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "RNNCell-tanh": ("RNNCell", {}),
    "RNNCell-relu": ("RNNCell", {"nonlinearity": "relu"}),
    "LSTMCell": ("LSTMCell", {}),
    "GRUCell": ("GRUCell", {}),
}
KINDS = LAYERS | CELLS
NAMES = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")


def pair(kind: str, input_size: int = 5, hidden_size: int = 7, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    """Make (torch's, ours), both for evaluation."""
    name, given = KINDS[kind]
    modules = []
    for library in (torch.nn, fastrnn.torch):
        torch.manual_seed(seed)  # both draw the same weights
        modules.append(getattr(library, name)(input_size, hidden_size, **given, **options).eval())
    return modules[0], modules[1]


def every_option() -> Iterator[dict[str, Any]]:
    """Yield all combinations of a layer's options."""
    names = ("num_layers", "bias", "batch_first", "bidirectional")
    for values in itertools.product((1, 2), *[(True, False)] * 3):
        yield dict(zip(names, values, strict=True))


def inputs(module: Any, steps: int = 4, batch: int | None = 3, seed: int = 0) -> torch.Tensor:
    """Draw x in the layout of a layer or a cell; with batch None one sequence."""
    shape = [module.input_size] if batch is None else [batch, module.input_size]
    if hasattr(module, "batch_first"):
        shape.insert(1 if batch is not None and module.batch_first else 0, steps)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=next(module.parameters()).dtype)


def states(module: Any, batch: int | None = 3, seed: int = 0) -> Any:
    """Draw hx."""
    generator = torch.Generator().manual_seed(seed + 1)
    axes = [] if batch is None else [batch]
    if hasattr(module, "batch_first"):
        axes.insert(0, module.num_layers * (1 + module.bidirectional))
    sizes = [getattr(module, "proj_size", 0) or module.hidden_size, module.hidden_size]
    dtype = next(module.parameters()).dtype
    h, c = (torch.rand([*axes, size], generator=generator, dtype=dtype) * 2 - 1 for size in sizes)
    return (h, c) if isinstance(module, (torch.nn.LSTM, torch.nn.LSTMCell)) else h


def flat(result: Any) -> list[torch.Tensor]:
    """Return all tensors of a result, those of a PackedSequence too."""
    if isinstance(result, tuple):
        return [t for part in result for t in flat(part)]
    return [] if result is None else [result]


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal bits."""
    assert type(ours) is type(theirs)
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=0, atol=0)


def assert_close(ours: Any, theirs: Any) -> None:
    """Equal but for the rounding of two ways to add up: 16 eps, values being around 1."""
    assert type(ours) is type(theirs)
    for a, b in zip(flat(ours), flat(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=16 * torch.finfo(b.dtype).eps if b.is_floating_point() else 0)


def calls(module: Any) -> tuple[int, int]:
    """Return how often fastrnn and torch ran a module."""
    [(_, _, _, fast, left)] = fastrnn.torch.report(module)
    return fast, left


def reason(module: Any) -> str:
    """Return why torch ran a module's last call that it did."""
    [(_, state, why, _, _)] = fastrnn.torch.report(module)
    assert state == "fast"
    return why


def spy(module: Any) -> list[tuple[Any, ...]]:
    """Make a module, which has run, note its calls of fastrnn from now on: (x, states, ..., threads, results)."""
    noted = []
    [(name, call)] = module.__dict__["_held"].calls.items()

    def caller(*arguments: Any) -> Any:
        results = call(*arguments)
        noted.append((*arguments, results))
        return results

    module.__dict__["_held"].calls[name] = caller
    return noted


def change_and_run(module: Any, x: Any, queue: Any) -> None:
    """In a process that shares a module: change its weights and send what it then gives."""
    with torch.no_grad():
        module(torch.from_numpy(x))
        for weight in module.parameters():
            weight.mul_(2)
        queue.put(module(torch.from_numpy(x))[0].numpy())
