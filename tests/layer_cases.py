"""Public layers for the tests: one per kind, their inputs, and an oracle of higher precision."""

import itertools
import math
import os
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from cases import same_bits

import fastrnn
from fastrnn import reference

THREADS = 8  # that call at once
# Kind -> (class, arguments). One per variant of cells.py.
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn": (fastrnn.RNN, {}),
    "rnn_relu": (fastrnn.RNN, {"nonlinearity": "relu"}),
    "lstm": (fastrnn.LSTM, {}),
    "lstm_proj": (fastrnn.LSTM, {"proj_size": 3}),
    "gru": (fastrnn.GRU, {}),
    "gru_before": (fastrnn.GRU, {"reset_after": False}),
}
CELLS = {"rnn": fastrnn.RNNCell, "lstm": fastrnn.LSTMCell, "gru": fastrnn.GRUCell}


def make(kind: str, input_size: int = 5, hidden_size: int = 7, seed: int = 0, **config: Any) -> Any:
    """Make a layer of a kind with random weights."""
    cls, given = KINDS[kind]
    return cls(input_size, hidden_size, **given, **config).init(seed)


def inputs(layer: Any, steps: int = 6, batch: int | None = 3, seed: int = 0) -> np.ndarray:
    """Draw x in the layer's layout; with batch None one sequence."""
    rng = np.random.default_rng((seed, 1))
    shape: tuple[int, ...] = (steps, layer.input_size) if batch is None else (steps, batch, layer.input_size)
    if batch is not None and layer.batch_first:
        shape = (batch, steps, layer.input_size)
    return rng.normal(size=shape).astype(layer.dtype)


def draw(case: dict[str, Any], seed: int) -> tuple[Any, np.ndarray, Any, np.ndarray | None]:
    """Draw (layer, x, hx, lengths) of a case of golden/torch.npz.

    By `random` alone, then exact steps and one rounding: `normal` calls the platform's log, `uniform` may be compiled
    to a fused multiply-add.
    """
    rng = np.random.default_rng((case["seed"], seed))

    def uniform(shape: tuple[int, ...], limit: float) -> np.ndarray:
        return ((2 * rng.random(shape) - 1) * limit).astype(case["dtype"])

    layer = make(case["kind"], *case["sizes"], **case["options"], dtype=case["dtype"])
    limit = 1 / math.sqrt(layer.hidden_size)
    layer.load_state_dict({name: uniform(w.shape, limit) for name, w in layer.state_dict().items()})
    x = uniform(inputs(layer, case["steps"], case["batch"]).shape, 2)
    h, *c = [uniform(s.shape, 1) for s in arrays(initial(layer, case["batch"]))]
    lengths = rng.integers(1, case["steps"] + 1, case["batch"]) if case["ragged"] else None
    return layer, x, (h, *c) if c else h, lengths


def checksum(drawn: Iterable[tuple[Any, ...]]) -> int:
    """CRC-32 of all that `draw` gave for some seeds, little endian."""
    crc = 0
    for layer, *call in drawn:
        for a in arrays([list(layer.state_dict().values()), call]):
            crc = zlib.crc32(np.ascontiguousarray(a, a.dtype.newbyteorder("<")), crc)
    return crc


def large() -> tuple[Any, np.ndarray]:
    """Make a layer that two threads share, and its input."""
    layer = make("lstm", 64, 300, num_threads=2, backend="cython")
    return layer, inputs(layer, 20, 1)


def large_outputs(seed: int) -> list[bytes]:
    """Run it. Here, for a spawned process imports this module, and not one that pytest has found."""
    layer, x = large()
    return [array.tobytes() for array in arrays([layer(x + seed) for _ in range(3)])]


def initial(layer: Any, batch: int | None = 3, seed: int = 0) -> Any:
    """Draw hx."""
    rng = np.random.default_rng((seed, 2))
    count = layer.num_layers * (1 + layer.bidirectional)
    sizes = [getattr(layer, "proj_size", 0) or layer.hidden_size]
    if isinstance(layer, fastrnn.LSTM):
        sizes.append(layer.hidden_size)
    axes = (count,) if batch is None else (count, batch)
    states = tuple(rng.uniform(-1, 1, (*axes, size)).astype(layer.dtype) for size in sizes)
    return states if len(states) > 1 else states[0]


def arrays(result: Any) -> Iterator[np.ndarray]:
    """Yield all arrays of a result or a state."""
    if isinstance(result, np.ndarray):
        yield result
    elif result is not None:
        for part in result:
            yield from arrays(part)


def equal(a: Any, b: Any) -> bool:
    """Compare the bits of all arrays of two results."""
    mine, theirs = list(arrays(a)), list(arrays(b))
    return len(mine) == len(theirs) and all(map(same_bits, mine, theirs))


def by_steps(stream: Any, x: np.ndarray, axis: int = 0) -> np.ndarray:
    """Take a stream through x step by step; time is this axis of x and of the result."""
    return np.stack([stream.step(now) for now in np.moveaxis(x, axis, 0)], axis)


def oracle(layer: Any, x: np.ndarray, hx: Any = None, lengths: Any = None) -> list[np.ndarray]:
    """Run the reference in a wider type, on the layer's rounded weights: [y, h] or [y, h, c], in the layer's layout."""
    wide = np.dtype(np.float64 if layer.dtype == np.float32 else np.longdouble)
    plan = layer._plan.astype(wide)
    x = np.asarray(x, wide)
    batched = x.ndim == 3
    x = x[:, None] if not batched else x.transpose(1, 0, 2) if layer.batch_first else x
    count = plan.num_layers * plan.num_directions
    state = [np.asarray(s, wide).reshape(count, x.shape[1], -1) for s in arrays(hx)]
    if hx is None:
        state = [np.zeros((count, x.shape[1], size), wide) for size in plan.state_sizes]
    y = np.empty((*x.shape[:2], plan.output_size), wide)
    out = [np.empty_like(s) for s in state]
    tiny = reference._TINY
    reference._TINY = tiny | {np.dtype(np.longdouble): tiny[np.dtype(np.float64)]}
    try:
        reference.run(plan, x, state, None if lengths is None else np.asarray(lengths), y, out)
    finally:
        reference._TINY = tiny
    if not batched:
        return [y[:, 0], *(s[:, 0] for s in out)]
    return [y.transpose(1, 0, 2) if layer.batch_first else y, *out]


def largest(a: np.ndarray) -> float:
    """Return the largest absolute value, 0 of no values."""
    return float(np.abs(a).max(initial=0))


def root_mean_square(a: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(a))))


class Errors:
    """Errors of ours and torch's against the oracle, and the bound of the first by the second, which may be known."""

    def __init__(
        self, dtype: npt.DTypeLike, norm: Callable[[np.ndarray], float] = largest, theirs: float = 0.0
    ) -> None:
        self.dtype, self.norm = np.dtype(dtype), norm
        self.ours, self.theirs, self.scale = 0.0, theirs, 0.0

    def distance(self, results: Iterable[np.ndarray], exact: Iterable[np.ndarray]) -> float:
        """Return the largest norm of a difference."""
        distance = 0.0
        for a, e in zip(results, exact, strict=True):
            assert a.shape == e.shape
            assert a.dtype == self.dtype
            distance = max(distance, self.norm(a - e))
        return distance

    def add(self, ours: Iterable[np.ndarray], theirs: Iterable[np.ndarray] | None, exact: Sequence[np.ndarray]) -> None:
        self.ours = max(self.ours, self.distance(ours, exact))
        if theirs is not None:
            self.theirs = max(self.theirs, self.distance(theirs, exact))
        self.scale = max(self.scale, *map(largest, exact))

    def check(self, what: str = "") -> None:
        bound = max(2 * self.theirs, 4 * np.finfo(self.dtype).eps * self.scale)
        assert self.ours <= bound, f"{what}: error {self.ours:.3g}, torch's {self.theirs:.3g}, bound {bound:.3g}"


def readonly(a: np.ndarray) -> np.ndarray:
    """Return a copy that must not be written."""
    a = a.copy()
    a.flags.writeable = False
    return a


def strided(a: np.ndarray) -> np.ndarray:
    """Return every second element of a larger array, along every axis."""
    big = np.full([2 * n for n in a.shape], 99, a.dtype)
    big[tuple(slice(None, None, 2) for _ in a.shape)] = a
    return big[tuple(slice(None, None, 2) for _ in a.shape)]


def peak_of(call: Callable[[], Any]) -> int:
    """Return the most bytes that Python and NumPy hold at a time in a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def interrupted_everywhere(
    fresh: Callable[[], Any], call: Callable[[Any], Any]
) -> Iterator[tuple[Any, KeyboardInterrupt]]:
    """Call with what `fresh` gives, again and again, each time interrupted one bytecode of fastrnn later than before.

    Yields what it gave, and the interrupt: its traceback keeps the frames of the call, as it does where one is handled.
    """
    package = os.path.dirname(fastrnn.__file__)

    def at(step: int) -> Callable[..., Any]:
        left = step

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal left
            name = frame.f_code.co_filename
            if not name.startswith(package) or name == reference.__file__:  # which goes on and on
                return None
            frame.f_trace_opcodes = True
            left -= event == "opcode"
            if event == "opcode" and left < 0:
                raise KeyboardInterrupt(f"at {name}:{frame.f_lineno}")
            return trace

        return trace

    for step in itertools.count():
        made, before = fresh(), sys.gettrace()
        sys.settrace(at(step))
        try:
            call(made)
        except KeyboardInterrupt as error:
            sys.settrace(before)
            yield made, error
        else:
            return
        finally:
            sys.settrace(before)


def at_once(function: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """Call function(i) in `count` threads that start together."""
    barrier = threading.Barrier(count)

    def start(i: int) -> Any:
        barrier.wait()
        return function(i)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(start, range(count)))
