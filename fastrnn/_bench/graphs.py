"""A problem as an ONNX graph: inputs x, lengths, h0, c0, ..; outputs y of the last layer and every layer's states."""

from typing import Any

import numpy as np

from fastrnn._bench.problems import Array, Problem, Row

__all__ = ["inputs", "model", "outputs", "time_major"]

GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}  # from torch's order to i o f c, z r h, h


def states(row: Row) -> str:
    """Letters of the states."""
    return "hc" if row.cell == "lstm" else "h"


def inputs(problem: Problem) -> dict[str, Array]:
    """Arrays by the names of the graph's inputs."""
    found = {"x": problem.x}
    if problem.lengths is not None:
        found["lengths"] = problem.lengths.astype(np.int32)
    for letter, array in zip(states(problem.row), problem.state or (), strict=False):
        for layer, part in enumerate(np.split(array, problem.row.layers)):
            found[f"{letter}{layer}"] = np.ascontiguousarray(part)
    return found


def outputs(problem: Problem) -> dict[str, tuple[int, ...]]:
    """Shapes by the names of the graph's outputs: y (T, D, B, H), states (D, B, H)."""
    row = problem.row
    shape = (row.directions, row.batch, row.hidden_size)
    found: dict[str, tuple[int, ...]] = {"y": (row.steps, *shape)}
    for layer in range(row.layers):
        found |= {f"{letter}{layer}_out": shape for letter in states(row)}
    return found


def time_major(y: Array, row: Row) -> Array:
    """Return (T, D, B, H) as (T, B, D*H)."""
    return y.transpose(0, 2, 1, 3).reshape(row.steps, row.batch, -1)


def model(problem: Problem) -> bytes:
    """The graph, with the weights as initializers."""
    from onnx import TensorProto, helper, numpy_helper

    row = problem.row
    given = inputs(problem)
    options: dict[str, Any] = {"hidden_size": row.hidden_size}
    if row.cell == "gru":
        options["linear_before_reset"] = 1
    nodes, initializers = [], []
    x = "x"
    for layer in range(row.layers):
        for name, array in layer_weights(problem, layer).items():
            initializers.append(numpy_helper.from_array(array, f"{name}{layer}"))
        last = layer == row.layers - 1
        optional = [name if name in given else "" for name in ("lengths", *(f"{s}{layer}" for s in states(row)))]
        results = ["y" if last else f"y{layer}", *(f"{letter}{layer}_out" for letter in states(row))]
        arguments = [x, f"W{layer}", f"R{layer}", f"B{layer}", *optional]
        backwards = "reverse" if row.alternating and layer % 2 else "forward"
        direction = "bidirectional" if row.directions == 2 else backwards
        nodes.append(helper.make_node(row.cell.upper(), arguments, results, direction=direction, **options))
        if not last:  # (T, D, B, H) -> (T, B, D*H)
            nodes.append(helper.make_node("Transpose", [results[0]], [f"t{layer}"], perm=(0, 2, 1, 3)))
            nodes.append(helper.make_node("Reshape", [f"t{layer}", "shape"], [f"x{layer}"]))
            x = f"x{layer}"
    results_of = outputs(problem)
    if problem.head is not None:  # one step of a model that writes
        initializers.append(numpy_helper.from_array(problem.head.T.copy(), "head"))
        initializers.append(numpy_helper.from_array(np.array([1, -1]), "row"))
        nodes.append(helper.make_node("Reshape", ["y", "row"], ["h"]))
        nodes.append(helper.make_node("MatMul", ["h", "head"], ["logits"]))
        results_of["logits"] = (1, len(problem.head))
    if row.layers > 1:
        initializers.append(numpy_helper.from_array(np.array([0, 0, -1]), "shape"))
    types = {"lengths": TensorProto.INT32}
    graph = helper.make_graph(
        nodes,
        row.name,
        [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), a.shape) for n, a in given.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in results_of],
        initializers,
    )
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return data


def layer_weights(problem: Problem, layer: int) -> dict[str, Array]:
    """W (D, G*H, I), R (D, G*H, H) and B (D, 2*G*H) of a layer, in ONNX's order of gates."""
    order = GATES[problem.row.cell]

    def gather(name: str) -> Array:
        tensors = [problem.weights[f"{name}_l{layer}{suffix}"] for suffix in ("", "_reverse")[: problem.row.directions]]
        return np.stack([np.concatenate([np.split(tensor, len(order))[gate] for gate in order]) for tensor in tensors])

    return {
        "W": gather("weight_ih"),
        "R": gather("weight_hh"),
        "B": np.concatenate([gather("bias_ih"), gather("bias_hh")], 1),
    }
