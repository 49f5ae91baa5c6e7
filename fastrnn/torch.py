# mypy: disallow-subclassing-any=False
"""torch.nn's recurrent modules, run by fastrnn in inference: change the import, or call `accelerate`.

A module here is torch's own with another forward. Where nothing needs torch, fastrnn runs the call on the memory of its
tensors; else torch's forward does, and `report` says why. The weights stay torch's: a packed copy is kept beside them
and made anew once they change.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

try:
    import torch
except ImportError as error:
    raise ImportError("fastrnn.torch needs torch: pip install 'fastrnn[torch]'") from error
from torch import Tensor, nn
from torch._C import _is_tracing, _len_torch_dispatch_stack
from torch._C._dynamo.eval_frame import set_eval_frame
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm, rnn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fastrnn import backends, conversion
from fastrnn.checks import UnsupportedError
from fastrnn.tensors import OPENMP, Array, Left, arrays_of, seen_of, tensors_of
from fastrnn.weights import expected_shapes

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "accelerate", "report"]

Call: TypeAlias = Callable[..., list[Array] | None]

PACKED_ROWS = 64  # of a PackedSequence, run at once
_TENSORS = {Tensor, nn.Parameter}
_DTYPES = ({torch.float32}, {torch.float64})
_SHAPES = "its arguments are empty, or of shapes that torch refuses"
_warned = False


# Multiply-adds up to which a call stays on its thread: small ones, and where it would have to share processors with
# torch's threads most of them, for it would wait for these at every step.
ALONE = 1_000_000 if OPENMP else 100_000_000


class _Held(NamedTuple):
    """A layer made from a module's weights, and what tells whether these are still the same."""

    layer: Any
    inputs: int
    size: int  # numbers in the weights: multiply-adds of a step of one row
    seen: Any
    calls: dict[str, Call]  # by backend


class _Fast(nn.Module):
    """What all modules share: which calls fastrnn runs, and with which weights."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run the module as torch's forward does: on fastrnn, or where torch is needed there."""
        if torch.compiler.is_compiling():  # before anything that a graph would have to record
            return super().forward(input, hx)
        counts = self.__dict__.get("_counts") or self.__dict__.setdefault("_counts", [0, 0, ""])
        callback = set_eval_frame(None)  # torch.compile runs layers as they are, but would compile what they call
        try:
            result = self._run(input, hx)
        except Left as left:
            counts[1] += 1
            counts[2] = str(left)
        else:
            counts[0] += 1
            return result
        finally:
            set_eval_frame(callback)
        if isinstance(input, torch.fx.Proxy):  # torch.nn's modules are leaves of a graph
            target = input.tracer.path_of_module(self)
            return input.tracer.create_proxy("call_module", target, (input, hx), {})
        return super().forward(input, hx)

    def _run(self, input: Any, hx: Any) -> Any:
        """Run a call on fastrnn; Left where torch has to."""
        raise NotImplementedError

    def _layer(self, tensors: tuple[Any, ...]) -> _Held:
        """Return fastrnn's layer of the weights of now, for a call with these tensors; Left where torch runs it."""
        if _is_tracing():
            raise Left("it is being traced")
        if not _TENSORS.issuperset(map(type, tensors)):
            raise Left("not all arguments are plain tensors")
        if forward_ad._current_level >= 0 or peek_interpreter_stack() is not None or _len_torch_dispatch_stack():
            raise Left("forward-mode autograd, torch.func or a dispatch mode is at work")
        if torch.is_grad_enabled() and any(
            t is not None and t.requires_grad for t in (*tensors, *self._parameters.values())
        ):
            self._warn()
            raise Left("autograd is on: call it under torch.inference_mode()")
        if torch.is_autocast_enabled("cpu"):
            raise Left("autocast is on")
        held: _Held | None = self.__dict__.get("_held")
        if held is None or seen_of(self._parameters) != held.seen:
            held = self.__dict__["_held"] = self._hold()
        return held

    def _warn(self) -> None:
        global _warned
        if not (self.training or _warned):
            _warned = True
            message = "autograd is on, so torch runs, not fastrnn: call the model under torch.inference_mode()"
            warnings.warn(message, stacklevel=7)  # where the module is called

    def _hold(self) -> _Held:
        weights = [w for w in self._parameters.values() if w is not None]
        if not self._parameters.keys() >= set(self._names()):
            raise Left("its weights are computed anew in each call: accelerate() makes them parameters")
        if not _TENSORS.issuperset(map(type, weights)):
            raise Left("not all its weights are plain tensors")
        if {w.dtype for w in weights} not in _DTYPES:
            raise Left("its weights are not all float32, or not all float64")
        if any(w.is_inference() for w in weights):
            raise Left("its weights were made under inference_mode, where torch does not count changes")
        if not all(w.is_contiguous() and not w.is_neg() for w in weights):
            raise Left("not all its weights are contiguous, and as their memory has them")
        seen = seen_of(self._parameters)  # before they are copied: a change meanwhile is noticed in the next call
        if seen is None:
            raise Left("not all its weights are dense, and in the CPU's memory")
        try:
            layer = conversion.from_torch(self._plain())
        except (TypeError, ValueError, AttributeError, UnsupportedError) as error:
            raise Left(f"no layer of fastrnn is like it: {error}") from None
        if expected_shapes(layer._sizes).keys() != {n for n in self._names() if self._parameters[n] is not None}:
            raise Left("its settings and its weights do not fit")
        return _Held(layer, layer.input_size, sum(w.numel() for w in weights), seen, {})

    def _names(self) -> list[str]:
        """Names of the parameters that forward reads, None or not."""
        raise NotImplementedError

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "training":
            self.__dict__.pop("_held", None)  # such as the nonlinearity of a cell
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return _without_ours(state)

    def _plain(self) -> nn.Module:
        """Return torch's module with the same parameters, hooks and settings."""
        plain = next(plain for plain in _FAST if isinstance(self, plain))
        module: nn.Module = plain.__new__(plain)
        module.__dict__.update(_without_ours(self.__dict__))
        return module

    def __prepare_scriptable__(self) -> nn.Module:
        """Return what torch.jit.script compiles."""
        return self._plain() if type(self) in _FAST.values() else self


def _without_ours(state: dict[str, Any]) -> dict[str, Any]:
    """Return a module's attributes but for those that belong to a process."""
    return {name: value for name, value in state.items() if name not in ("_held", "_counts")}


def _tensors(input: Any, hx: Any, pair: bool) -> tuple[Any, ...]:
    """Return x, and h or h and c where they are given."""
    if hx is None:
        return (input,)
    if not pair:
        return input, hx
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise Left("its states are no pair of tensors")
    return (input, *hx)


def _call(held: _Held, x: Array, states: list[Array], batch_first: bool, cell: bool) -> list[Array]:
    """Run a call -> y and the final states, of a cell these alone, as new arrays."""
    call = held.calls.get(backends.current()) or _prepare(held)
    results = call(x, states, batch_first, cell, _threads(held, x))
    if results is None:
        raise Left(_SHAPES)
    return results


def _threads(held: _Held, x: Array) -> int:
    return torch.get_num_threads() if x.size // held.inputs * held.size > ALONE else 1


def _prepare(held: _Held) -> Call:
    """Make a layer ready for the backend of now: on torch's threads, where they can be had."""
    run = held.layer._prepare()
    call = getattr(run, "apply", None) or functools.partial(_apply, held.layer)
    if OPENMP and hasattr(run, "borrow"):
        run.borrow(*OPENMP)
    held.calls[backends.current()] = call
    return call


def _apply(
    layer: Any, x: Array, states: list[Array], batch_first: bool, cell: bool, threads: int
) -> list[Array] | None:
    """Run a layer as the compiled backend's `apply` does, for backends without it."""
    if not x.size:
        return None
    layer.num_threads = threads
    try:
        result = layer(x, _pair(states) if states else None)
    except ValueError:
        return None
    if cell:
        return list(result) if isinstance(result, tuple) else [result]
    y, final = result
    return [y, *final] if isinstance(final, tuple) else [y, final]


def _pair(states: Sequence[Any]) -> Any:
    """Return h, or h and c."""
    return states[0] if len(states) == 1 else tuple(states)


class _Layer(_Fast):
    """RNN, LSTM and GRU."""

    def _names(self) -> list[str]:
        names: list[str] = self._flat_weights_names
        return names

    def _run(self, input: Any, hx: Any) -> Any:
        if self.training and self.dropout and self.num_layers > 1:
            raise Left("dropout is on: call eval()")
        if isinstance(input, rnn.PackedSequence):
            return self._run_packed(input, hx)
        tensors = _tensors(input, hx, isinstance(self, nn.LSTM))
        held = self._layer(tensors)
        x, *states = arrays_of(tensors, held.layer.dtype)
        y, *final = tensors_of(_call(held, x, states, self.batch_first, False))
        return y, _pair(final)

    def _run_packed(self, input: rnn.PackedSequence, hx: Any) -> Any:
        tensors = _tensors(input.data, hx, isinstance(self, nn.LSTM))
        held = self._layer(tensors)
        layer = held.layer
        data, *states = arrays_of(tensors, layer.dtype)
        sizes, order, back = input.batch_sizes.numpy(), input.sorted_indices, input.unsorted_indices
        if (
            data.shape[:-1] != (sizes.sum(),)
            or not data.size
            or (np.diff(sizes) > 0).any()
            or any(a.shape[1:2] != (sizes[0],) for a in states)
        ):
            raise Left(_SHAPES)
        if order is not None:
            states = [a.take(order.numpy(), 1) for a in states]
        if backends.current() not in held.calls:
            _prepare(held)
        layer.num_threads = _threads(held, data)
        out = np.empty((len(data), layer._output_size), data.dtype)
        finals = []
        for first in range(0, sizes[0], PACKED_ROWS):  # padded to the longest of each group, not of all
            steps = sizes[sizes > first]
            rows = np.arange(first, min(first + PACKED_ROWS, sizes[0]))
            valid = rows < steps[:, None]  # (T, B)
            places = ((np.cumsum(steps) - steps)[:, None] + rows)[valid]  # in data
            shape = valid.T.shape if self.batch_first else valid.shape
            x = np.zeros((*shape, data.shape[1]), data.dtype)
            self._by_time(x)[valid] = data[places]
            try:
                y, final = layer(x, _pair([a[:, rows] for a in states]) if states else None, lengths=valid.sum(0))
            except ValueError:
                raise Left(_SHAPES) from None
            out[places] = self._by_time(y)[valid]
            finals.append(final if isinstance(final, tuple) else (final,))
        final = [np.concatenate(parts, 1) for parts in zip(*finals, strict=True)]
        if back is not None:
            final = [a.take(back.numpy(), 1) for a in final]
        result = rnn.PackedSequence(torch.from_numpy(out), input.batch_sizes, order, back)
        return result, _pair(tensors_of(final))

    def _by_time(self, a: Array) -> Array:
        """Return (T, B, N) of an array in the module's order."""
        return a.transpose(1, 0, 2) if self.batch_first else a


class _Cell(_Fast):
    """RNNCell, LSTMCell and GRUCell."""

    def _names(self) -> list[str]:
        return ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]

    def _run(self, input: Any, hx: Any) -> Any:
        tensors = _tensors(input, hx, isinstance(self, nn.LSTMCell))
        held = self._layer(tensors)
        x, *states = arrays_of(tensors, held.layer.dtype)
        return _pair(tensors_of(_call(held, x, states, False, True)))


class RNN(_Layer, nn.RNN):
    """torch.nn.RNN, run by fastrnn in inference."""


class LSTM(_Layer, nn.LSTM):
    """torch.nn.LSTM, run by fastrnn in inference.

    Arguments, parameters, inputs and results are torch's, also for the other modules here.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> lstm = fastrnn.torch.LSTM(3, 4, batch_first=True)
    >>> with torch.inference_mode():
    ...     y, (h, c) = lstm(torch.ones(2, 7, 3))
    >>> y.shape, h.shape, c.shape
    (torch.Size([2, 7, 4]), torch.Size([1, 2, 4]), torch.Size([1, 2, 4]))
    """


class GRU(_Layer, nn.GRU):
    """torch.nn.GRU, run by fastrnn in inference."""


class RNNCell(_Cell, nn.RNNCell):
    """torch.nn.RNNCell, run by fastrnn in inference."""


class LSTMCell(_Cell, nn.LSTMCell):
    """torch.nn.LSTMCell, run by fastrnn in inference."""


class GRUCell(_Cell, nn.GRUCell):
    """torch.nn.GRUCell, run by fastrnn in inference."""


_FAST: dict[Any, Any] = {kind.__bases__[1]: kind for kind in (RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell)}


def accelerate(model: nn.Module) -> nn.Module:
    """Turn every recurrent module of a model into fastrnn's, in place.

    A module stays the same object: parameters, hooks and references to it stay. Weights that are recomputed at each
    call (weight norm, other parametrizations, pruning) are replaced by what they are now.

    Parameters
    ----------
    model : torch.nn.Module
        Such as ``torch.nn.LSTM``, or one that has such modules at any depth.

    Returns
    -------
    torch.nn.Module
        The model itself.

    Raises
    ------
    TypeError
        For what is no module.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GRU(4, 5))
    >>> fastrnn.torch.accelerate(model) is model
    True
    >>> with torch.inference_mode():
    ...     y, h = model(torch.ones(7, 2, 3))
    >>> fastrnn.torch.report(model)
    [('1', 'fast', '', 1, 0)]
    """
    for module in list(_checked(model).modules()):
        kind = parametrize.type_before_parametrizations(module)
        if kind in _FAST or issubclass(kind, _Fast):
            with torch.inference_mode(False):  # it turns autograd on: parameters keep whether they require grad
                _materialise(module)
            module.__class__ = _FAST.get(kind, kind)
    return model


def report(model: nn.Module) -> list[tuple[str, str, str, int, int]]:
    """Tell which recurrent modules of a model fastrnn runs.

    Parameters
    ----------
    model : torch.nn.Module
        After `accelerate`, or with modules of `fastrnn.torch`.

    Returns
    -------
    list of (name, state, reason, fast_calls, fallback_calls)
        One for each recurrent module, by its name in the model, "" for the model itself. State is "fast" for a module
        of `fastrnn.torch`, with the reason why torch's forward ran its last call that did; "left" for others, with the
        reason why they are.

    Raises
    ------
    TypeError
        For what is no module.
    """
    rows = []
    for name, module in _checked(model).named_modules():
        if isinstance(module, _Fast):
            fast, left, reason = module.__dict__.get("_counts", (0, 0, ""))
            rows.append((name, "fast", reason, fast, left))
        elif reason := _why_left(module):
            rows.append((name, "left", reason, 0, 0))
    return rows


def _checked(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return model


def _why_left(module: nn.Module) -> str:
    """Return why a recurrent module is not one of ours, "" for other modules."""
    if isinstance(module, torch.jit.ScriptModule):
        names = [kind.__name__ for kind in _FAST]
        return "it is TorchScript: accelerate the model that it was made from" if module.original_name in names else ""
    if parametrize.type_before_parametrizations(module) in _FAST:
        return "accelerate was not called"
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return f"{type(module).__name__} is a class of its own"
    if type(module).__module__.startswith("torch.ao.nn.quantized") and hasattr(module, "hidden_size"):
        return "its weights are quantized"
    return ""


def _materialise(module: Any) -> None:
    """Replace weights that are recomputed at each call by parameters."""
    frozen = not any(weight.requires_grad for weight in module.parameters())
    if parametrize.is_parametrized(module):  # its class is that of its copies, which would lose the weight too
        kind = type(module)
        module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
    for name in list(getattr(module, "parametrizations", ())):
        parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        if name not in module._parameters:  # torch leaves a plain tensor where nothing required grad
            setattr(module, name, nn.Parameter(getattr(module, name), requires_grad=False))
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, hook.name)
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)
    if frozen:  # of which torch does not take care
        module.requires_grad_(False)
