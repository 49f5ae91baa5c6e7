"""What takes a process of its own each time: cold starts (family C), memory (families M and O)."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fastrnn._bench import graphs
from fastrnn._bench.problems import Problem, Row, fastrnn_layer

# Each loads the model at `path` and calls it with x; they import what they need, after NumPy.
COLD = {
    "cython": """
import fastrnn
y = fastrnn.load(path)(x)[0]
""",
    "torch": """
import torch
torch.set_num_threads(1)
module = torch.nn.LSTM(128, 128)
module.load_state_dict(torch.load(path, weights_only=True))
with torch.inference_mode():
    y = module.eval()(torch.from_numpy(x))[0].numpy()
""",
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
y = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0][:, 0]
""",
    "openvino": """
import openvino
options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
y = openvino.Core().compile_model(path, "CPU", options)({"x": x})["y"][:, 0]
""",
}

TIMED = """
import pickle, sys, time
import numpy
path, x = pickle.load(sys.stdin.buffer)
start = time.perf_counter()
exec(sys.argv[1])
seconds = time.perf_counter() - start
pickle.dump((seconds, y), sys.stdout.buffer)
"""

MEMORY = """
import pickle, sys
from fastrnn._bench.engines import build
from fastrnn._bench.memory import peak
from fastrnn._bench.problems import problem
name, row = pickle.load(sys.stdin.buffer)
engine = build(name, problem(row))
with engine.context():
    result, grown = peak(engine.call)
    new = 0 if result is None else engine.output(result).nbytes / 2**20
pickle.dump(grown - new, sys.stdout.buffer)
"""

SHORT = """
import pickle, sys
from fastrnn._bench.many import beside_kernels
pickle.dump(beside_kernels(pickle.load(sys.stdin.buffer)), sys.stdout.buffer)
"""


def run(script: str, *arguments: str, given: Any) -> Any:
    """What a script pickles to its standard output in a fresh process. Bytecode is kept, as of installed packages."""
    command = [sys.executable, "-P", "-c", script, *arguments]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, input=pickle.dumps(given), stdout=subprocess.PIPE, env=env, check=True)
    return pickle.loads(done.stdout)


class Cold:
    """Fresh processes that import an engine, load a saved model and call it; the import of NumPy is not counted."""

    scale = 1.0

    def __init__(self, name: str, problem: Problem, folder: Path) -> None:
        self.name, self.x, self.path = name, problem.x, folder / f"{problem.row.name}.{name}"
        if name == "cython":
            self.path = self.path.with_suffix(".safetensors")
            fastrnn_layer(problem.row).load_state_dict(problem.weights).save(self.path)
        elif name == "torch":
            import torch

            torch.save({key: torch.from_numpy(array) for key, array in problem.weights.items()}, self.path)
        else:
            self.path = self.path.with_suffix(".onnx")
            self.path.write_bytes(graphs.model(problem))

    def output(self) -> np.ndarray:
        """Return what one process put out."""
        return run(TIMED, COLD[self.name], given=(str(self.path), self.x))[1]

    def block(self, count: int) -> float:
        """Seconds that `count` processes counted."""
        return sum(run(TIMED, COLD[self.name], given=(str(self.path), self.x))[0] for _ in range(count))


def workspace(name: str, row: Row) -> float:
    """Megabytes that a process grows by in its first call, without the results."""
    return run(MEMORY, given=(name, row))


def beside_kernels(row: Row) -> dict[str, float]:
    """What `predict_many` takes for each sequence, and the share of it outside of kernels."""
    return run(SHORT, given=row)
