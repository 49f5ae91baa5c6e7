"""The engines under comparison: the same weights and input, on one thread, each set up as well as it can be."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from rows import Row

import fastrnn

LAYERS = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN}
PEERS = ("torch", "onnxruntime")
ONNX_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}  # from torch's order to i o f c, z r h, h
SLOW = 2e9  # operations of a call from which the NumPy reference is not worth its time


class Engine(NamedTuple):
    """One way to compute a row."""

    call: Callable[[], Any]
    numpy: Callable[[Any], np.ndarray]  # what `call` returned -> y (T, B, D*H)
    context: Callable[[], AbstractContextManager[Any]] = nullcontext  # entered once around many calls


class Problem(NamedTuple):
    """Weights and input of a row, the same for every engine."""

    row: Row
    weights: dict[str, np.ndarray]  # torch's names
    x: np.ndarray  # (T, B, I)
    state: tuple[np.ndarray, ...] | None  # h, or h and c (L*D, B, H), for steps; sequences start from zeros


def problem(row: Row) -> Problem:
    """Draw weights and input for a row."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((row.steps, row.batch, row.input_size)).astype(row.dtype)
    shape = (row.layers * row.directions, row.batch, row.hidden_size)
    state = tuple(rng.uniform(-1, 1, shape).astype(row.dtype) for _ in range(1 + (row.cell == "lstm")))
    return Problem(row, fastrnn_layer(row).init(0).state_dict(), x, state if row.family == "S" else None)


def names(row: Row) -> list[str]:
    """Engines that can run a row here; cython against itself is the A/A row, `lstm` our LSTM of a GRU's shape."""
    found = ["cython", "numba"] if find_spec("numba") else ["cython"]
    if row.flops < SLOW:
        found.append("reference")
    if row.cell == "gru":
        found.append("lstm")
    if find_spec("torch"):
        found.append("torch")
    if find_spec("onnxruntime") and find_spec("onnx") and row.dtype == "float32":
        found.append("onnxruntime")
    return found


def build(name: str, problem: Problem) -> Engine:
    """Prepare one engine for a problem."""
    if name == "torch":
        return torch_engine(problem)
    if name == "onnxruntime":
        return onnxruntime_engine(problem)
    if name == "lstm":
        return lstm_engine(problem)
    layer = fastrnn_layer(problem.row, backend=name)
    layer.load_state_dict(problem.weights)
    hx = problem.state if problem.state is None or len(problem.state) == 2 else problem.state[0]
    return Engine(lambda: layer(problem.x, hx), lambda result: result[0])


def fastrnn_layer(row: Row, backend: str | None = None) -> Any:
    """Our layer of a row's shape, without weights."""
    return LAYERS[row.cell](
        row.input_size,
        row.hidden_size,
        row.layers,
        bidirectional=row.directions == 2,
        dtype=row.dtype,
        backend=backend,
        num_threads=1,
    )


def lstm_engine(of: Problem) -> Engine:
    """Our LSTM of the same shape."""
    twin = problem(of.row._replace(cell="lstm"))
    return build("cython", twin)


def torch_engine(problem: Problem) -> Engine:
    """torch.nn's module in inference mode."""
    import torch

    torch.set_num_threads(1)
    row = problem.row
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[row.cell]
    module = kind(
        row.input_size, row.hidden_size, row.layers, bidirectional=row.directions == 2, dtype=getattr(torch, row.dtype)
    ).eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in problem.weights.items()})
    x = torch.from_numpy(problem.x)
    state = None if problem.state is None else tuple(map(torch.from_numpy, problem.state))
    hx = state if state is None or len(state) == 2 else state[0]
    return Engine(lambda: module(x, hx), lambda result: result[0].numpy(), torch.inference_mode)


def onnxruntime_engine(problem: Problem) -> Engine:
    """A graph of ONNX nodes, weights as initializers; fixed buffers are bound: a third less overhead than run()."""
    import onnxruntime

    row = problem.row
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx_model(problem), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", problem.x)
    for name, array in zip(("h", "c"), problem.state or (), strict=False):
        binding.bind_cpu_input(name, array)
    y = np.empty((row.steps, row.directions, row.batch, row.hidden_size), row.dtype)
    state = (row.directions, row.batch, row.hidden_size)
    shapes = {output.name: y.shape if output.name == "y" else state for output in session.get_outputs()}
    values = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.empty(shape, row.dtype)) for name, shape in shapes.items()
    }
    for name, value in values.items():
        binding.bind_ortvalue_output(name, value)

    def numpy(_: object) -> np.ndarray:
        return values["y"].numpy().transpose(0, 2, 1, 3).reshape(row.steps, row.batch, -1)

    return Engine(lambda: session.run_with_iobinding(binding), numpy)


def onnx_model(problem: Problem) -> bytes:
    """The row as a graph: inputs x, h, c; outputs y (T, D, B, H) of the last layer and every layer's states."""
    from onnx import TensorProto, helper, numpy_helper

    row = problem.row
    operator = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}[row.cell]
    states = ("h", "c") if row.cell == "lstm" else ("h",)
    options: dict[str, Any] = {
        "hidden_size": row.hidden_size,
        "direction": ("forward", "bidirectional")[row.directions - 1],
    }
    if row.cell == "gru":
        options["linear_before_reset"] = 1
    nodes, outputs, initializers = [], ["y"], []
    given = [name if problem.state else "" for name in states]
    if problem.state and row.layers > 1:
        raise NotImplementedError("steps of several layers")
    x = "x"
    for layer in range(row.layers):
        for name, array in onnx_weights(problem, layer).items():
            initializers.append(numpy_helper.from_array(array, f"{name}{layer}"))
        last = layer == row.layers - 1
        results = ["y" if last else f"y{layer}", *(f"{state}{layer}" for state in states)]
        outputs += results[1:]
        nodes.append(
            helper.make_node(operator, [x, f"W{layer}", f"R{layer}", f"B{layer}", "", *given], results, **options)
        )
        if not last:  # (T, D, B, H) -> (T, B, D*H)
            nodes.append(helper.make_node("Transpose", [results[0]], [f"t{layer}"], perm=(0, 2, 1, 3)))
            nodes.append(helper.make_node("Reshape", [f"t{layer}", "shape"], [f"x{layer}"]))
            x = f"x{layer}"
    if row.layers > 1:
        initializers.append(numpy_helper.from_array(np.array([0, 0, -1]), "shape"))

    def value(name: str, shape: tuple[int, ...] | None) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs = [
        value("x", problem.x.shape),
        *(value(n, a.shape) for n, a in zip(states, problem.state or (), strict=False)),
    ]
    graph = helper.make_graph(nodes, row.name, inputs, [value(name, None) for name in outputs], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def onnx_weights(problem: Problem, layer: int) -> dict[str, np.ndarray]:
    """W (D, G*H, I), R (D, G*H, H) and B (D, 2*G*H) of a layer, in ONNX's order of gates."""
    order = ONNX_GATES[problem.row.cell]

    def gather(name: str) -> np.ndarray:
        tensors = [problem.weights[f"{name}_l{layer}{suffix}"] for suffix in ("", "_reverse")[: problem.row.directions]]
        return np.stack([np.concatenate([np.split(tensor, len(order))[gate] for gate in order]) for tensor in tensors])

    return {
        "W": gather("weight_ih"),
        "R": gather("weight_hh"),
        "B": np.concatenate([gather("bias_ih"), gather("bias_hh")], 1),
    }
