"""The engines under comparison: the same weights, inputs and number of threads, each set up as well as it can be."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from fastrnn._bench import graphs, many, writers
from fastrnn._bench.problems import Array, Problem, Row, fastrnn_layer, problem

__all__ = ["PACKAGES", "PEERS", "Engine", "Setting", "build", "engines", "obstacle", "ours", "settings"]

PEERS = ("torch", "torch-padded", "onnxruntime", "openvino")
PACKAGES = {  # what must be installed
    "torch": ("torch",),
    "torch-padded": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
    "numba": ("numba",),
}


MOST_ONNX = 2**31 - 2**24  # bytes of weights, so that biases and the rest have room


class Engine(NamedTuple):
    """One way to compute a row."""

    call: Callable[[], Any]
    output: Callable[[Any], Array]  # what `call` returned -> y (T, B, D*H), or its forward half, zero beyond lengths
    context: Callable[[], AbstractContextManager[Any]] = nullcontext  # entered once around many calls
    scale: float = 1.0  # of its times, where a call does another amount of work


class Setting(NamedTuple):
    """How an engine may use the machine."""

    threads: int = 1
    spinning: bool = True  # whether idle threads of onnxruntime's pool spin


def settings(name: str, threads: int) -> list[Setting]:
    """What an engine may choose from: a peer the best of 1 to all threads; ours chooses inside."""
    if name not in PEERS or threads == 1:
        return [Setting(threads)]
    counts = [*(2**i for i in range(threads.bit_length()) if 2**i < threads), threads]
    choices = [Setting(count) for count in counts]
    if name == "onnxruntime":
        choices += [Setting(count, spinning=False) for count in counts[1:]]
    return choices


def engines(row: Row) -> tuple[str, ...]:
    """Names of the engines that a row compares with ours, ours against itself first."""
    first = ours(row)
    if row.family in "OP":
        return (first,)
    if row.family == "C":
        return (first, "torch", "onnxruntime", "openvino")
    if row.family in "GM":
        return (first, "torch", "onnxruntime")
    if row.family == "N":  # the backward direction of a padded sequence would read the padding first
        return (first, "torch", *["torch-padded"][: row.directions == 1])
    names = [first] if first == "cython" else [first, "cython"]
    if row.threads == 1 or row.family in "BR":
        names.append("numba")
    if row.threads == 1 and row.family in "SQ":
        names.append("reference")
    if row.cell == "gru" and row.threads == 1 and row.family in "SQB":
        names.append("lstm")
    names += {"R": ["dense", "torch-padded"], "D": ["normal"]}.get(row.family, [])
    return (*names, "torch", "onnxruntime", "openvino")


def ours(row: Row) -> str:
    """The engine that all others of a row are compared with: for single steps a stream, where it can run."""
    return "stream" if row.family in "SP" and row.directions == 1 else "cython"


def obstacle(name: str, row: Row) -> str | None:
    """Why an engine cannot run a row here; None where it can."""
    missing = [package for package in PACKAGES.get(name, ()) if find_spec(package) is None]
    if missing:
        return f"not installed: pip install {' '.join(missing)}"
    if name in ("onnxruntime", "openvino") and row.dtype != "float32":
        return f"has no {row.dtype} {row.cell.upper()}"
    if "onnx" in PACKAGES.get(name, ()) and 4 * row.weights > MOST_ONNX:
        return "a graph of ONNX holds 2 GB at most"
    return None


def build(name: str, of: Problem, setting: Setting | None = None) -> Engine:
    """Prepare one engine for a problem.

    "cython", "numba", "reference": a backend of ours through the public layer; "stream": its stream of single steps;
    "lstm": our LSTM of a GRU's shape; "dense": our layer on a ragged batch without its lengths, for an equal number of
    steps; "normal": our layer on noise instead of zeros; else a peer.
    """
    setting = setting or Setting(of.row.threads)
    if of.row.family == "G":
        return writing_engine(name, of, setting)
    if of.row.family == "N":
        return many_engine(name, of, setting)
    if name in ("torch", "torch-padded"):
        return torch_engine(of, setting, packed=name == "torch")
    if name == "onnxruntime":
        return onnxruntime_engine(of, setting)
    if name == "openvino":
        return openvino_engine(of, setting)
    if name == "stream":
        return stream_engine(of)
    if name == "lstm":
        return build(ours(of.row), problem(of.row._replace(cell="lstm")), setting)
    if name == "dense":
        dense = layer_engine("cython", of._replace(lengths=None))
        return dense._replace(scale=of.row.valid / (of.row.batch * of.row.steps))
    if name == "normal":
        noise = problem(of.row._replace(family="Q")).x
        return layer_engine("cython", of._replace(x=noise))
    return layer_engine(name, of)


def writing_engine(name: str, of: Problem, setting: Setting) -> Engine:
    """What writes the tokens of family G; the output is their ids."""
    if name == "torch":
        import torch

        torch.set_num_threads(setting.threads)
        return Engine(writers.write(of, writers.torch_step(of)), lambda ids: ids, torch.inference_mode)
    if name == "onnxruntime":
        row = of.row._replace(steps=1)
        state = tuple(np.zeros((row.layers, 1, row.hidden_size), row.dtype) for _ in graphs.states(row))
        session = onnxruntime_session(of._replace(row=row, x=of.x[:1], state=state), setting)
        encoder = of.encoder and onnxruntime_session(of.encoder, setting)
        return Engine(writers.write(of, writers.onnxruntime_step(of, session, encoder)), lambda ids: ids)
    return Engine(writers.generate(of, name), lambda ids: ids)


def many_engine(name: str, of: Problem, setting: Setting) -> Engine:
    """What labels the sequences of family N; the output is their probabilities."""
    if name in ("torch", "torch-padded"):
        import torch

        torch.set_num_threads(setting.threads)
        batches = many.torch_batches(of, torch_module(of), packed=name == "torch")
        return Engine(batches, lambda found: found, torch.inference_mode)
    return Engine(many.predict_many(of, name), lambda found: found)


def layer_engine(backend: str, of: Problem) -> Engine:
    """Our layer on one of its backends; results are new arrays."""
    if of.row.alternating:
        layers = []
        for part in parts(of):
            layers.append(fastrnn_layer(part.row, backend=backend))
            layers[-1].load_state_dict(part.weights)
        return Engine(lambda: alternate(layers, of.x, lambda y: y[::-1]), lambda y: y)
    layer = fastrnn_layer(of.row, backend=backend)
    layer.load_state_dict(of.weights)
    x, hx, lengths = of.x, unpacked(of.state), of.lengths
    if lengths is None:
        return Engine(lambda: layer(x, hx), lambda result: result[0])
    return Engine(lambda: layer(x, hx, lengths=lengths), lambda result: result[0])


def parts(of: Problem) -> list[Problem]:
    """Each layer as a problem of its own."""
    found = []
    for layer in range(of.row.layers):
        own = {n.replace(f"_l{layer}", "_l0"): array for n, array in of.weights.items() if n.endswith(f"_l{layer}")}
        inputs = of.row.input_size if layer == 0 else of.row.hidden_size
        found.append(of._replace(row=of.row._replace(input_size=inputs, layers=1, alternating=False), weights=own))
    return found


def alternate(layers: list[Any], x: Any, turned: Callable[[Any], Any]) -> Any:
    """Run every other layer backwards."""
    for i, layer in enumerate(layers):
        x = turned(layer(turned(x))[0]) if i % 2 else layer(x)[0]
    return x


def stream_engine(of: Problem) -> Engine:
    """Our stream, which keeps its states, writing to one array."""
    row = of.row
    layer = fastrnn_layer(row, backend="cython")
    layer.load_state_dict(of.weights)
    alone = row.batch == 1
    stream = layer.stream() if alone else layer.stream(batch_size=row.batch)
    x = of.x[0, 0] if alone else of.x[0]
    out = np.empty((*x.shape[:-1], row.hidden_size), row.dtype)
    hx = unpacked(tuple(s[:, 0] if alone else s for s in of.state or ()))
    step = stream.step

    def first(_: object) -> Array:  # the call before has moved the states on
        stream.set_state(hx)
        y: Array = step(x, out=out).reshape(1, row.batch, -1).copy()
        return y

    return Engine(lambda: step(x, out=out), first)


def unpacked(state: tuple[Any, ...] | None) -> Any:
    """Return h, or (h, c), as a layer takes it."""
    return state if state is None or len(state) == 2 else state[0]


def torch_engine(of: Problem, setting: Setting, packed: bool) -> Engine:
    """torch.nn's module in inference mode; for one step of one layer the cell, which is up to five times as fast."""
    import torch

    torch.set_num_threads(setting.threads)
    row = of.row
    x, state = torch.from_numpy(of.x), tuple(torch.from_numpy(s) for s in of.state or ())
    if row.family == "S" and row.layers == row.directions == 1:
        cell: Any = getattr(torch.nn, f"{row.cell.upper()}Cell")
        cell = cell(row.input_size, row.hidden_size, dtype=x.dtype).eval()
        cell.load_state_dict({name.removesuffix("_l0"): torch.from_numpy(array) for name, array in of.weights.items()})
        x, hx = x[0], unpacked(tuple(s[0] for s in state))
        return Engine(
            lambda: cell(x, hx),
            lambda result: (result[0] if row.cell == "lstm" else result).numpy()[None],
            torch.inference_mode,
        )
    if row.alternating:
        modules = [torch_module(part) for part in parts(of)]
        return Engine(lambda: alternate(modules, x, lambda y: y.flip(0)), lambda y: y.numpy(), torch.inference_mode)
    module = torch_module(of)
    hx = unpacked(state or None)
    if of.lengths is None:
        return Engine(lambda: module(x, hx), lambda result: result[0].numpy(), torch.inference_mode)
    lengths, steps = torch.from_numpy(of.lengths), row.steps
    if packed:
        pack, pad = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence

        def call() -> Any:
            y, hx = module(pack(x, lengths, enforce_sorted=False))
            return pad(y, total_length=steps)[0], hx

        return Engine(call, lambda result: result[0].numpy(), torch.inference_mode)

    valid = np.arange(steps)[:, None, None] < of.lengths[:, None]

    def forward(result: Any) -> Array:  # the other direction read the padding first
        y: Array = np.where(valid, result[0].numpy()[..., : row.hidden_size], 0)
        return y

    return Engine(lambda: module(x), forward, torch.inference_mode)


def torch_module(of: Problem) -> Any:
    """torch.nn's module with a problem's weights."""
    import torch

    row, kind = of.row, getattr(torch.nn, of.row.cell.upper())
    dtype = getattr(torch, row.dtype)
    module = kind(row.input_size, row.hidden_size, row.layers, bidirectional=row.directions == 2, dtype=dtype).eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in of.weights.items()})
    return module


def onnxruntime_engine(of: Problem, setting: Setting) -> Engine:
    """A session with fixed buffers bound to it: a third less overhead than run()."""
    import onnxruntime

    session = onnxruntime_session(of, setting)
    binding = session.io_binding()
    for name, array in graphs.inputs(of).items():
        binding.bind_cpu_input(name, array)
    values = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(np.empty(shape, of.row.dtype))
        for name, shape in graphs.outputs(of).items()
    }
    for name, value in values.items():
        binding.bind_ortvalue_output(name, value)

    def output(_: object) -> Array:  # what numpy() returns does not own its memory, which goes with the value
        return graphs.time_major(values["y"].numpy().copy(), of.row)

    return Engine(lambda: session.run_with_iobinding(binding), output)


def onnxruntime_session(of: Problem, setting: Setting) -> Any:
    """A session for a problem's graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(setting.spinning)))
    return onnxruntime.InferenceSession(graphs.model(of), options, providers=["CPUExecutionProvider"])


def openvino_engine(of: Problem, setting: Setting) -> Engine:
    """The same graph, compiled for latency, in full precision: by default it would compute in bfloat16 where it can."""
    import openvino

    core = openvino.Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": setting.threads,
    }
    request = core.compile_model(core.read_model(graphs.model(of)), "CPU", options).create_infer_request()
    inputs = graphs.inputs(of)
    for name, array in inputs.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def output(_: object, held: object = inputs) -> Array:  # the request points at these arrays and does not own them
        return graphs.time_major(request.get_tensor("y").data.copy(), of.row)

    return Engine(lambda: request.infer(share_outputs=True), output)
