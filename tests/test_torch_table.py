"""The table of docs/torch.md: every cell is a case that runs here."""

import copy
import io
import pickle
import re
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from module_cases import NAMES, QUIET, flat, inputs, pair, states  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune, rnn  # noqa: E402

import fastrnn.torch  # noqa: E402

pytestmark = QUIET
CASES = {}


def case(row, *kinds):
    """A function of a kind that runs what a row of the table says, on torch's module too; it returns ours."""

    def add(function):
        CASES[row] = (function, kinds or NAMES)
        return function

    return add


LAYERS = NAMES[:3]


def made(kind, **config):
    """A module of ours and torch's own with the same weights, in eval mode."""
    plain, ours = pair(f"{kind}-tanh" if kind.startswith("RNN") else kind, **config)
    return ours, plain


def given(kind):
    return inputs(made(kind)[0])


def same(a, b, tolerance=1e-5):
    torch.testing.assert_close(flat(a), flat(b), atol=tolerance, rtol=tolerance)


def both(kind, *, x=None, hx=None, tolerance=1e-5, change=lambda module: None, **config):
    """Run both on the same input; returns ours."""
    ours, plain = made(kind, **config)
    x = inputs(ours) if x is None else x
    for module in (ours, plain):
        change(module)
    same(ours(x, hx), plain(x, hx), tolerance)
    return ours


def without_grad(row, *kinds):
    """A case under no_grad."""
    return lambda function: case(row, *kinds)(torch.no_grad()(function))


# Modes ----------------------------------------------------------------------------------------------------------------


@case("`torch.inference_mode()`")
def _(kind):
    ours, plain = made(kind)
    with torch.inference_mode():
        same(ours(given(kind)), plain(given(kind)))
    return ours


@case("`torch.no_grad()`")
def _(kind):
    with torch.no_grad():
        return both(kind)


@case("autograd on, nothing requires grad")
def _(kind):
    return both(kind, change=lambda module: module.requires_grad_(False))


@case("autograd on, weights or input require grad")
def _(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = both(kind)
        flat(ours(given(kind)))[0].sum().backward()
    assert ours.weight_ih.grad is not None if kind.endswith("Cell") else ours.weight_ih_l0.grad is not None
    return ours


@without_grad("training mode without dropout")
def _(kind):
    return both(kind, change=lambda module: module.train())


@without_grad("training mode with dropout between layers", *LAYERS)
def _(kind):
    torch.manual_seed(0)
    ours, plain = made(kind, num_layers=2, dropout=0.5)
    results = []
    for module in (ours.train(), plain.train()):
        torch.manual_seed(0)
        results.append(module(given(kind)))
    same(*results)
    return ours


@without_grad("`torch.autocast`")
def _(kind):
    with torch.autocast("cpu"):
        return both(kind, tolerance=0.1)


# Kinds and options ----------------------------------------------------------------------------------------------------


@without_grad("float64")
def _(kind):
    return both(kind, dtype=torch.float64, tolerance=1e-12)


@without_grad("bfloat16")
def _(kind):
    return both(kind, dtype=torch.bfloat16, tolerance=0.1)


@without_grad("`bias=False`")
def _(kind):
    return both(kind, bias=False)


@without_grad('`nonlinearity="relu"`', "RNN", "RNNCell")
def _(kind):
    return both(kind, nonlinearity="relu")


@without_grad("several layers, `bidirectional`, `batch_first`", *LAYERS)
def _(kind):
    return both(kind, num_layers=3, bidirectional=True, batch_first=True)


@without_grad("`proj_size`", "LSTM")
def _(kind):
    return both(kind, proj_size=3)


# Inputs ---------------------------------------------------------------------------------------------------------------


@without_grad("initial states")
def _(kind):
    return both(kind, hx=states(made(kind)[0]))


@without_grad("one sequence, or one row, without a batch")
def _(kind):
    return both(kind, x=given(kind)[..., 0, :])


@without_grad("`PackedSequence`, in any order of lengths", *LAYERS)
def _(kind):
    sequences = [torch.randn(n, 5) for n in (2, 5, 1, 4)]
    return both(kind, x=rnn.pack_sequence(sequences, enforce_sorted=False))


@without_grad("transposed, expanded or sliced input")
def _(kind):
    x = given(kind)
    ours = both(kind, x=x[..., :1, :].expand(x.shape))
    for strided in (x[..., ::2, :], x.transpose(-1, -2).contiguous().transpose(-1, -2)):
        same(ours(strided), ours(strided.contiguous()), 0)
    return ours


@without_grad("no rows (B = 0)")
def _(kind):
    return both(kind, x=inputs(made(kind)[0], batch=0))


@without_grad("another device (`meta`)")
def _(kind):
    ours, _ = made(kind)
    ours.to("meta")
    assert flat(ours(given(kind).to("meta")))[0].is_meta
    return ours


@without_grad("subclasses of `torch.Tensor`")
def _(kind):
    class Named(torch.Tensor):
        pass

    return both(kind, x=given(kind).as_subclass(Named))


# Weights --------------------------------------------------------------------------------------------------------------


def _after(kind, change):
    """A call, a change of the weights, a call that has to see it."""
    ours, plain = made(kind)
    with torch.no_grad():
        before = flat(ours(given(kind)))[0].clone()
        for module in (ours, plain):
            change(module)
        after = ours(given(kind))
        assert not torch.equal(before, flat(after)[0])
        same(after, plain(given(kind)))
    return ours


@case("weights changed in place, through `.data` or replaced")
def _(kind):
    _after(kind, lambda module: [p.mul_(2) for p in module.parameters()])
    _after(kind, lambda module: [p.data.mul_(2) for p in module.parameters()])
    _after(kind, lambda module: [setattr(p, "data", 2 * p.data) for p in module.parameters()])
    return _after(
        kind, lambda module: [setattr(module, n, nn.Parameter(2 * p)) for n, p in list(module.named_parameters())]
    )


def _name(kind):
    return "weight_hh" if kind.endswith("Cell") else "weight_hh_l0"


@without_grad("weight norm, parametrizations, pruning")
def _(kind):
    both(kind, change=lambda module: prune.l1_unstructured(module, _name(kind), 0.5))
    return both(kind, change=lambda module: parametrizations.weight_norm(module, _name(kind)))


@without_grad("the same after `accelerate`")
def _(kind):
    for change in (
        lambda module: prune.l1_unstructured(module, _name(kind), 0.5),
        lambda module: parametrizations.weight_norm(module, _name(kind)),
    ):
        _, plain = made(kind)
        change(plain)
        expected = plain(given(kind))
        ours = fastrnn.torch.accelerate(plain)
        same(ours(given(kind)), expected)
    return ours


@without_grad("hooks")
def _(kind):
    seen = []

    def change(module):
        module.register_forward_pre_hook(lambda module, args: seen.append("before"))
        module.register_forward_hook(lambda module, args, output: seen.append("after"))

    ours = both(kind, change=change)
    assert seen == ["before", "after"] * 2
    return ours


# Copies and graphs ----------------------------------------------------------------------------------------------------


@without_grad("`deepcopy`, `pickle`, `torch.save`")
def _(kind):
    ours, plain = made(kind)
    ours(given(kind))
    saved = io.BytesIO()
    torch.save(ours, saved)
    saved.seek(0)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(saved, weights_only=False)):
        assert fastrnn.torch.report(other) == [("", "fast", "", 0, 0)]
        same(other(given(kind)), plain(given(kind)))
    return other


class Wrapped(nn.Module):
    """A model around a module."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@without_grad("`torch.compile` of a model around it")
def _(kind):
    ours, plain = made(kind)
    compiled = torch.compile(Wrapped(ours), backend="eager")
    same(compiled(given(kind)), plain(given(kind)))
    return ours


@without_grad("`torch.fx.symbolic_trace` of a model around it")
def _(kind):
    ours, plain = made(kind)
    graph = torch.fx.symbolic_trace(Wrapped(ours))
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "output"]
    ours.__dict__.pop("_counts")
    same(graph(given(kind)), plain(given(kind)))
    return ours


@without_grad("`torch.jit.trace`")
def _(kind):
    ours, plain = made(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(ours, given(kind), check_trace=False)
    same(traced(given(kind)), plain(given(kind)))
    return ours


@without_grad("`torch.jit.script`")
def _(kind):
    ours, plain = made(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(Wrapped(ours))
    same(scripted(given(kind)), plain(given(kind)))
    return scripted.inner


@without_grad("`torch.export`")
def _(kind):
    ours, plain = made(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Wrapped(ours), (given(kind),))
    same(program.module()(given(kind)), plain(given(kind)))
    return ours


@without_grad("`torch.func.functional_call`")
def _(kind):
    ours, plain = made(kind)
    weights = {name: 2 * p for name, p in plain.named_parameters()}
    results = [torch.func.functional_call(module, weights, (given(kind),)) for module in (ours, plain)]
    same(*results)
    return ours


@without_grad("forward-mode differentiation", "RNN", "GRU", "RNNCell", "LSTMCell", "GRUCell")  # torch has none for LSTM
def _(kind):
    ours, plain = made(kind)
    with torch.autograd.forward_ad.dual_level():
        x = torch.autograd.forward_ad.make_dual(given(kind), given(kind))
        tangents = [torch.autograd.forward_ad.unpack_dual(flat(module(x))[0]).tangent for module in (ours, plain)]
    assert tangents[1] is not None
    same(*tangents)
    return ours


# The table ------------------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parent.parent / "docs" / "torch.md").read_text(encoding="utf-8")
TABLE = {
    row[0]: dict(zip(NAMES, row[1:], strict=True))
    for row in (
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in re.search(r"\| \| RNN \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE)[1].splitlines()
    )
}


def test_every_row_has_a_case():
    assert list(TABLE) == list(CASES)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("row", CASES)
def test_cell(row, kind):
    function, kinds = CASES[row]
    if kind not in kinds:
        assert TABLE[row][kind] == ""
        return
    ((_, _, _, fast, left),) = fastrnn.torch.report(function(kind))
    assert not (fast and left)
    assert TABLE[row][kind] == ("fast" if fast else "torch")  # a graph of torch's own operations counts neither
