"""`fastrnn check`: someone's torch model on torch and on fastrnn."""

import argparse
import copy
import functools
import hashlib
import importlib
import math
import operator
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

try:
    import torch
except ImportError as error:
    raise ImportError("fastrnn check needs torch: pip install 'fastrnn[torch]'") from error
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, unpack_sequence

import fastrnn
import fastrnn.torch
from fastrnn._bench import ratios
from fastrnn._bench.command import duration, machine, print_load, print_table
from fastrnn._bench.engines import Engine
from fastrnn.checks import UnsupportedError, kind_of

__all__ = ["run"]

ROUNDS = 3  # of A B B A, at least
PLAIN = {fast: plain for plain, fast in fastrnn.torch._FAST.items()}


def run(args: argparse.Namespace) -> int:
    """Compare and print.

    Parameters
    ----------
    args : argparse.Namespace
        Of `fastrnn.cli`.

    Returns
    -------
    int
        0; 1 where the outputs differ by more than the tolerance, the bits differ, or no call ran on fastrnn.

    Raises
    ------
    ImportError, TypeError, ValueError
        For a factory that is not there, or is none; a model without recurrent modules, or whose outputs are not the
        same each time.
    UnsupportedError
        For subclasses of fastrnn.torch's modules.
    RuntimeError
        For what the factory or the model raise.
    """
    from tqdm import tqdm

    model, given = _made(args)
    with tqdm(total=4, disable=None, leave=False) as bar, _threads(args.threads):
        bar.set_description("torch")
        plain, fast = _pair(model)
        expected = _outputs(_copied(plain), given)  # by a copy, for a model may keep something until its next call
        again = _difference(expected, _outputs(_copied(plain), given))
        if not again.relative <= args.tolerance:
            raise ValueError(
                f"the model must repeat itself: two runs on torch differ by {again}. Take out of its forward what is "
                "random, such as dropout that eval() does not stop, or give it a seed there"
            )
        bar.update()
        bar.set_description("fastrnn")
        with _recorded(fast) as calls:
            difference = _difference(expected, _outputs(fast, given))
        modules = _modules(fast)
        bar.update()
        bar.set_description("bits")
        bits = _bits(calls) if calls else {}
        bar.update()
        bar.set_description("time")
        mine, theirs = _timed(fast, given), _timed(plain, given)
        itself = ratios.compare(mine, mine, args.seconds / 4, rounds=ROUNDS)
        ratio = ratios.compare(mine, theirs, args.seconds * 3 / 4, rounds=ROUNDS)
    print(f"{args.factory}, {_count(args.threads, 'thread')}", machine(["torch"]), sep="\n", end="\n\n")
    lines = [("engine", "a call", "time over fastrnn's", "largest difference")]
    lines += [("fastrnn", duration(ratio.ours), _spread(itself), "")]
    lines += [("torch", duration(ratio.other), _spread(ratio), str(difference))]
    print_table(lines)
    print()
    print_table([("module", "class", "calls on fastrnn", "on torch", "why"), *modules])
    same = len(set(bits.values())) == 1
    if bits:
        print()
        hashes = [(bits["whole"], ", ".join(bits))] if same else [(digest, way) for way, digest in bits.items()]
        print_table([(f"bits of {_count(len(calls), 'call')}", "run"), *hashes])
    print_load()
    wrong = []
    if not difference.relative <= args.tolerance:
        wrong += [f"the outputs differ by more than {args.tolerance:g} of the largest value"]
    if not same:
        wrong += ["the bits of the recurrent modules' outputs differ" if calls else "no call ran on fastrnn"]
    for message in wrong:
        print(f"fastrnn: error: {message}", file=sys.stderr)
    return 1 if wrong else 0


# The model ------------------------------------------------------------------------------------------------------------


def _made(args: argparse.Namespace) -> tuple[Any, Any]:
    """Return the model that the arguments describe, and what it is called with: (positional, keyword arguments)."""
    name = args.factory
    factory = _found(name)
    torch.manual_seed(0)  # weights of a new model, and so its bits, are the same each time
    made = factory
    if not isinstance(factory, nn.Module):
        if not callable(factory):
            raise TypeError(f"{name} must be a function that returns a model, got {kind_of(factory)}")
        with _theirs(name):
            made = factory()
    if isinstance(made, nn.Module):
        return made, ((_drawn(args, name),), {})
    if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[0], nn.Module):
        what = f"({', '.join(map(kind_of, made))})" if isinstance(made, tuple) else kind_of(made)
        cure = ": put the inputs in a tuple of their own" if isinstance(made, tuple) and len(made) > 2 else ""
        raise TypeError(f"{name} must return a torch.nn.Module, or (model, inputs), got {what}{cure}")
    if args.input or args.input_ids:
        raise ValueError(f"{name} returns inputs: leave out --input and --input-ids")
    model, inputs = made
    if isinstance(inputs, (Tensor, PackedSequence)):
        return model, ((inputs,), {})
    if isinstance(inputs, tuple):
        return model, (inputs, {})
    if isinstance(inputs, Mapping):
        return model, ((), dict(inputs))
    raise TypeError(
        f"inputs of {name} must be a tensor, a tuple of positional arguments or a dict of keyword arguments, "
        f"got {kind_of(inputs)}"
    )


def _found(name: str) -> Any:
    """Import what "package.module:factory" names, from the current directory too."""
    home, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*home.split("."), *attribute.split("."))) or home.endswith(".py"):
        raise ValueError(f"MODULE:FACTORY must be such as package.module:factory, as import names it, got {name!r}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    module = None
    with _theirs(f"import {home}"):
        try:
            module = importlib.import_module(home)
        except ModuleNotFoundError as error:
            if not f"{home}.".startswith(f"{error.name}."):
                raise
            missing = error.name
    if module is None:
        raise ImportError(f"no module {missing}: it is neither installed nor in {here}")
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        has = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        raise ValueError(f"{home} has no {attribute}, only {', '.join(has) or 'imports'}") from None


def _drawn(args: argparse.Namespace, name: str) -> Tensor:
    """Return the input that the options describe."""
    if not args.input:
        raise ValueError(f"{name} gives a model without inputs: return (model, inputs), or pass --input SHAPE")
    generator = torch.Generator().manual_seed(0)
    if args.input_ids:
        return torch.randint(args.input_ids, args.input, generator=generator)
    return torch.randn(args.input, generator=generator)


@contextmanager
def _theirs(what: str) -> Iterator[None]:
    """Show where code that is not ours failed."""
    try:
        yield
    except Exception as error:
        traceback.print_exception(error)
        raise RuntimeError(f"{what} raised {type(error).__name__}: {error}") from error


def _copied(value: Any) -> Any:
    """Return a deep copy, with what autograd has computed, which torch does not copy, as constants."""
    modules = value.modules() if isinstance(value, nn.Module) else ()
    held = [t for part in (value, *map(vars, modules)) for _, t in _tensors(part)]
    with _theirs("copy.deepcopy"):
        return copy.deepcopy(value, {id(t): t.detach().clone() for t in held if not t.is_leaf})


def _pair(model: Any) -> tuple[Any, Any]:
    """Return two copies of a model, one that torch runs and one that fastrnn does."""
    plain = _torchs(_copied(model)).eval()
    fast = fastrnn.torch.accelerate(_copied(plain))
    if not fastrnn.torch.report(fast):
        raise ValueError(
            f"the model must have a recurrent module: torch.nn's RNN, LSTM or GRU or a cell, got {kind_of(model)}"
        )
    return plain, fast


def _torchs(model: Any) -> Any:
    """Turn modules of fastrnn.torch back into torch.nn's."""
    for name, module in model.named_modules():
        if type(module) in PLAIN:
            module.__class__ = PLAIN[type(module)]
        elif isinstance(module, tuple(PLAIN)):
            kind = next(kind for kind in PLAIN if isinstance(module, kind)).__name__
            raise UnsupportedError(
                f"{name or 'the model'} must run on torch too, and is of a class made from fastrnn.torch.{kind}: "
                f"make that from torch.nn.{kind}"
            )
    return model


# Outputs --------------------------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """How far outputs are apart."""

    absolute: float  # the largest
    relative: float  # to the largest value of the same tensor, the largest
    where: str  # the latter is

    def __str__(self) -> str:
        return f"{self.absolute:.1e}, {self.relative:.1e} of the largest value{self.where}"


def _outputs(model: Any, given: Any) -> list[tuple[str, Tensor]]:
    args, keywords = _copied(given)
    with _theirs("the model"), torch.inference_mode():
        result = model(*args, **keywords)
    found = list(_tensors(result))
    if not found:
        raise TypeError(f"the model must return tensors, or tuples, lists and dicts of them, got {kind_of(result)}")
    return found


def _tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in tuples, PackedSequences among them, lists and dicts, and where each is."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(part, f"{path}[{key!r}]")
    elif isinstance(value, (tuple, list)):
        for i, part in enumerate(value):
            yield from _tensors(part, f"{path}[{i}]")


def _difference(expected: list[tuple[str, Tensor]], found: list[tuple[str, Tensor]]) -> Difference:
    if [path for path, _ in expected] != [path for path, _ in found]:
        return Difference(math.inf, math.inf, ": they have other tensors")
    absolute = relative = 0.0
    where = ""
    for (path, a), (_, b) in zip(expected, found, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return Difference(math.inf, math.inf, f": {path} has another shape or dtype")
        if not a.numel():
            continue
        wide = torch.promote_types(a.dtype, torch.float64)
        scale = 1.0
        if a.is_floating_point() or a.is_complex():
            scale = float(a.abs().nan_to_num(0, 0, 0).max())
        a, b = a.cpu().to(wide), b.cpu().to(wide)
        same = (a == b) | (a.isnan() & b.isnan())
        largest = float((a - b).abs().nan_to_num(math.inf, math.inf).masked_fill(same, 0).max())
        absolute = max(absolute, largest)
        share = largest / scale if scale else math.inf * largest if largest else 0.0
        if share > relative:
            relative, where = share, f" of output{path}" if path else ""
    return Difference(absolute, relative, where)


def _modules(model: Any) -> list[tuple[str, ...]]:
    """Return a line for each recurrent module, after one run of the model."""
    lines: list[tuple[str, ...]] = []
    modules = dict(model.named_modules())
    for name, state, why, fast, left in fastrnn.torch.report(model):
        kind = getattr(modules[name], "original_name", type(modules[name]).__name__)  # the former of TorchScript's
        if state == "left":
            lines.append((name or "(model)", kind, "0", "all", why))
        else:
            lines.append((name or "(model)", kind, str(fast), str(left), why if fast or left else "it was not called"))
    return lines


# Bits -----------------------------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """What a recurrent module was called with."""

    module: Any
    input: Any  # a tensor, or a PackedSequence
    states: list[Tensor]


@contextmanager
def _recorded(model: Any) -> Iterator[list[Call]]:
    """Give a list that takes every call that fastrnn runs."""
    calls: list[Call] = []

    def forward(module: Any, input: Any, hx: Any = None) -> Any:
        packed = isinstance(input, PackedSequence)
        kept = PackedSequence(input.data.clone(), *input[1:]) if packed else input.clone()
        call = Call(module, kept, [t.clone() for _, t in _tensors(hx)])  # the model may write to its tensors later
        before = fastrnn.torch.report(module)[0][3]
        result = type(module).forward(module, input, hx)
        if fastrnn.torch.report(module)[0][3] > before:
            calls.append(call)
        return result

    modules = [module for module in model.modules() if type(module) in PLAIN]
    for module in modules:
        module.forward = functools.partial(forward, module)  # a hook would not see what later hooks make of the call
    yield calls
    for module in modules:
        del module.forward


def _bits(calls: Sequence[Call]) -> dict[str, str]:
    """Hash the outputs of calls, run again in four ways."""
    bits = {"whole": _hash(calls, _rows_of), "row by row": _hash(calls, _rows_alone)}
    for way, count in (("1 thread", 1), ("all threads", fastrnn.cpu_info()["cpus"])):
        with _threads(count):
            bits[way] = _hash(calls, _rows_of)
    return bits


def _hash(calls: Sequence[Call], way: Callable[[Call], Any]) -> str:
    digest = hashlib.sha256()
    with torch.inference_mode():
        for t in (t for call in calls for row in way(call) for t in row):
            digest.update(t.masked_fill(t.isnan(), math.nan).contiguous().numpy())  # a NaN's sign is not promised
    return digest.hexdigest()[:16]


def _rows_of(call: Call) -> Any:
    """Return the outputs of a call as it was, by rows."""
    return _rows(call.module, *_forward(*call))


def _rows_alone(call: Call) -> Any:
    """Yield the outputs of a call's rows, each run as a batch of its own."""
    module, (axis, state_axis) = call.module, _axes(call.module)
    for x, *states in _rows(*call):
        yield from _rows(module, *_forward(module, x.unsqueeze(axis), [s.unsqueeze(state_axis) for s in states]))


def _axes(module: Any) -> tuple[int, int]:
    """Return the batch axes of inputs and outputs, and of states."""
    return (0, 0) if isinstance(module, nn.RNNCellBase) else (0 if module.batch_first else 1, 1)


def _rows(module: Any, sequence: Any, states: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Divide what goes into a call, or comes out of it, by rows; what is unbatched is one row."""
    axis, state_axis = _axes(module)
    if isinstance(sequence, PackedSequence):
        sequences = unpack_sequence(sequence)
    elif sequence.dim() == (1 if isinstance(module, nn.RNNCellBase) else 2):
        return [(sequence, *states)]
    else:
        sequences = sequence.unbind(axis)
    return list(zip(sequences, *(s.unbind(state_axis) for s in states), strict=True))


def _forward(module: Any, sequence: Any, states: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
    """Run a module past its hooks; for a cell, h is the sequence that comes out and c the states."""
    pair = isinstance(module, (nn.LSTM, nn.LSTMCell))
    hx = (tuple(states) if pair else states[0]) if states else None
    result = type(module).forward(module, sequence, hx)
    if isinstance(module, nn.RNNCellBase):
        h, *c = (t for _, t in _tensors(result))
        return h, c
    return result[0], [t for _, t in _tensors(result[1])]


# Time -----------------------------------------------------------------------------------------------------------------


def _timed(model: Any, given: Any) -> ratios.Local:
    args, keywords = _copied(given)
    kind = ratios.Rested if torch.get_num_threads() > 1 else ratios.Local
    contender = kind(Engine(lambda: model(*args, **keywords), lambda result: result, torch.inference_mode))
    contender.block(1)  # the first call is slower
    return contender


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _spread(ratio: ratios.Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def _count(number: int, of: str) -> str:
    return f"{number} {of}{'s' * (number != 1)}"
