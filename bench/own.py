"""Own cells of fastrnn/more_cells.py beside the same cell under torch.compile and as a scan of JAX, on one thread.

And what a gate takes: an own cell with the GRU's equations beside the built-in GRU, on the numba backend.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # read by its import

import jax
import numpy as np
import torch

import fastrnn
from fastrnn import more_cells, simd
from fastrnn._bench import ratios
from fastrnn._bench.engines import Engine

jax.config.update("jax_cpu_enable_async_dispatch", False)

SHAPES = [(64, 128, 1, 100), (64, 128, 16, 100)]  # I, H, B, T


@fastrnn.cell(gates=("r", "z", "n"), apart="n")
def gru(r: Any, z: Any, n_x: Any, n_h: Any, h: Any) -> Any:
    """The built-in GRU."""
    r, z = simd.sigmoid(r), simd.sigmoid(z)
    n = simd.tanh(simd.fma(r, n_h, n_x))
    return simd.fma(z, h, simd.fma(-z, n, n))


class Torch:
    """Functions that the cells below are written in."""

    sigmoid, tanh, relu = staticmethod(torch.sigmoid), staticmethod(torch.tanh), staticmethod(torch.relu)


class Jax:
    """The same of JAX."""

    sigmoid, tanh, relu = staticmethod(jax.nn.sigmoid), staticmethod(jax.numpy.tanh), staticmethod(jax.nn.relu)


def min_gru(f: Any, z: Any, n: Any, h: Any, c: Any) -> Any:
    """As in more_cells.py, for either library."""
    z = f.sigmoid(z)
    return h + z * (n - h), c


def sru(f: Any, n: Any, forget: Any, r: Any, p: Any, h: Any, c: Any, v_f: Any, v_r: Any) -> Any:
    """As in more_cells.py."""
    forget, r = f.sigmoid(forget + v_f * c), f.sigmoid(r + v_r * c)
    c = forget * c + (1 - forget) * n
    return r * c + (1 - r) * p, c


def li_gru(f: Any, z: Any, n: Any, h: Any, c: Any) -> Any:
    """As in more_cells.py."""
    z = f.sigmoid(z)
    return z * h + (1 - z) * f.relu(n), c


def fast_grnn(f: Any, a: Any, h: Any, c: Any, b_z: Any, b_n: Any, zeta: Any, nu: Any) -> Any:
    """As in more_cells.py."""
    z = f.sigmoid(a + b_z)
    return (zeta * (1 - z) + nu) * f.tanh(a + b_n) + z * h, c


def min_lstm(f: Any, forget: Any, i: Any, n: Any, h: Any, c: Any) -> Any:
    """As in more_cells.py."""
    forget, i = f.sigmoid(forget), f.sigmoid(i)
    total = forget + i
    return forget / total * h + i / total * n, c


def ind_rnn(f: Any, new: Any, h: Any, c: Any, u: Any) -> Any:
    """As in more_cells.py."""
    return f.relu(new + u * h), c


STEPS = {
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "ind_rnn": ind_rnn,
    "sru": sru,
    "li_gru": li_gru,
    "fast_grnn": fast_grnn,
}


def layer_of(cell: Any, inputs: int, hidden: int) -> Any:
    """A layer with weights, on one thread."""
    return fastrnn.Recurrent(cell, inputs, hidden, num_threads=1).init()


def weights_of(layer: Any) -> tuple[Any, ...]:
    """W_ih, the sum of the biases, W_hh or None, and the parameters."""
    w = {name.removesuffix("_l0"): array for name, array in layer.state_dict().items()}
    bias = w["bias_ih"] + w.get("bias_hh", 0)
    return w["weight_ih"], bias, w.get("weight_hh"), [w[name] for name in layer._cell.kind.variant.parameters]


def in_torch(name: str, layer: Any, x: np.ndarray) -> Callable[[], Any]:
    """The same loop, compiled by torch: its time steps are unrolled."""
    kind, step = layer._cell.kind.variant, STEPS[name]
    w_ih, b, w_hh, parameters = (
        None if a is None else [*map(torch.tensor, a)] if isinstance(a, list) else torch.tensor(a)
        for a in weights_of(layer)
    )

    def run(x: Any) -> Any:
        over_x, outputs = torch.nn.functional.linear(x, w_ih, b), []
        h = c = torch.zeros(x.shape[1], layer.hidden_size)
        for now in over_x.unbind(0):
            a = now if w_hh is None else now + h @ w_hh.T
            h, c = step(Torch, *a.chunk(len(kind.gates), -1), h, c, *parameters)
            outputs.append(h)
        return torch.stack(outputs)

    compiled, tensor = torch.compile(run), torch.tensor(x)
    return lambda: compiled(tensor)


def in_jax(name: str, layer: Any, x: np.ndarray) -> Callable[[], Any]:
    """The same loop as a scan."""
    kind, step = layer._cell.kind.variant, STEPS[name]
    w_ih, b, w_hh, parameters = weights_of(layer)

    def run(x: Any) -> Any:
        h = jax.numpy.zeros((x.shape[1], layer.hidden_size))

        def body(state: Any, now: Any) -> Any:
            a = now if w_hh is None else now + state[0] @ w_hh.T
            state = step(Jax, *jax.numpy.split(a, len(kind.gates), -1), *state, *parameters)
            return state, state[0]

        return jax.lax.scan(body, (h, h), x @ w_ih.T + b)[1]

    compiled, array = jax.jit(run), jax.numpy.asarray(x)
    return lambda: compiled(array).block_until_ready()


def contender(call: Callable[[], Any], expected: np.ndarray | None = None) -> ratios.Local:
    """Something to time, once its result is seen to be right."""
    made = ratios.Local(Engine(call, np.asarray, torch.inference_mode))
    if expected is not None and not np.allclose(made.output(), expected, atol=2e-5):
        raise SystemExit("outputs differ")
    return made


def compare(name: str, shape: tuple[int, ...], budget: float) -> None:
    """Print a line: torch's and JAX's time over ours."""
    inputs, hidden, batch, steps = shape
    layer = layer_of(getattr(more_cells, name), inputs, hidden)
    x = np.random.default_rng(0).normal(size=(steps, batch, inputs)).astype(np.float32)
    expected = layer(x)[0]
    ours = contender(lambda: layer(x)[0])
    found = [ratios.compare(ours, contender(make(name, layer, x), expected), budget) for make in (in_torch, in_jax)]
    peers = "  ".join(f"{r.median:7.2f} ({r.low:.2f} to {r.high:.2f})" for r in found)
    print(f"{name:10} {shape!s:20} {1e6 * found[0].ours:8.1f} us  {peers}", flush=True)


def gates(shape: tuple[int, ...], budget: float) -> None:
    """Print a line: what an own cell's gate takes over one of the built-in GRU's."""
    inputs, hidden, batch, steps = shape
    x = np.random.default_rng(0).normal(size=(steps, batch, inputs)).astype(np.float32)
    built_in = fastrnn.GRU(inputs, hidden, backend="numba", num_threads=1).init()
    ours = contender(lambda: built_in(x)[0])
    for cell in (gru, *(getattr(more_cells, name) for name in STEPS)):
        layer = layer_of(cell, inputs, hidden)
        found = ratios.compare(ours, contender(lambda layer=layer: layer(x)[0]), budget)  # type: ignore[misc]
        each = [time * 3 / len(cell.variant.gates) for time in (found.median, found.low, found.high)]
        print(f"{cell!r:10} {shape!s:20} {each[0]:5.2f} ({each[1]:.2f} to {each[2]:.2f})", flush=True)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for a comparison")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("time of a gate over one of the built-in GRU, numba")
    for shape in SHAPES:
        gates(shape, options.budget)
    print("time over ours                  ours              torch.compile               JAX")
    for name in options.cells:
        for shape in SHAPES:
            compare(name, shape, options.budget)


if __name__ == "__main__":
    main()
