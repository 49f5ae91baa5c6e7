"""`fastrnn check`: every part of what it prints, what makes it fail, and what it refuses."""

import functools
import hashlib
import importlib
import math
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastrnn
from fastrnn import cli

torch = pytest.importorskip("torch")

import fastrnn.torch  # noqa: E402
from fastrnn import comparison  # noqa: E402

WAYS = ("whole", "row by row", "1 thread", "all threads")
START = """
import warnings
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrizations, rnn, weight_norm

import fastrnn.torch


class Net(nn.Module):
    def __init__(self, run, **modules):
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *given):
        return self.run(self, *given)

"""


class Printed:
    """What a check printed."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        head, engines, modules, *bits = out.split("\n\n")
        self.head = head.splitlines()
        self.engines = {line.split()[0]: line for line in engines.splitlines()}
        cells = [re.split(r"  +", line) for line in modules.splitlines()[1:]]
        self.modules = {name: rest for name, *rest in cells}
        self.bits = [line.split(None, 1) for line in bits[0].splitlines()[1:]] if bits and "bits" in bits[0] else []
        self.calls = int(bits[0].split()[2]) if self.bits else 0
        self.absolute, self.relative = map(float, re.findall(r"(\S+), (\S+) of the largest value", out)[0])


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Write a module `mine` and run `fastrnn check`; returns the exit code, the output and the errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)

    def call(body, *arguments, factory="mine:make"):
        (tmp_path / "mine.py").write_text(START + textwrap.dedent(body))
        importlib.invalidate_caches()
        code = cli.main(["check", factory, "--seconds", "0", *map(str, arguments)])
        return code, *capsys.readouterr()

    yield call
    sys.modules.pop("mine", None)


@pytest.fixture
def check(call):
    """Run `fastrnn check` to its end."""
    return lambda body, *arguments: Printed(*call(body, *arguments))


TAGGER = """
class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.encoder = nn.LSTM(8, 20, bidirectional=True, batch_first=True)
        self.head = nn.Linear(40, 5)

    def forward(self, ids):
        y, (h, c) = self.encoder(self.embedding(ids))
        return {"logits": self.head(y), "last": [h, None, (c, 3)]}

make = Tagger
"""


def test_all_parts(check):
    threads = torch.get_num_threads()
    found = check(TAGGER, "--input", "4,5", "--input-ids", 50)
    assert (found.code, found.err) == (0, "")
    assert found.head[0] == "mine:make, 1 thread"
    assert f"fastrnn {fastrnn.__version__}, numpy {np.__version__}, torch " in found.head[1]
    assert list(found.engines) == ["engine", "fastrnn", "torch"]
    for engine in ("fastrnn", "torch"):  # a call, and the ratio with its quartiles
        assert re.match(engine + r" +[\d.]+ [mu]?s +([\d.]+) \(([\d.]+)-([\d.]+)\)", found.engines[engine])
    assert 0 < found.absolute < found.relative < 1e-5
    assert re.search(r"output\['(logits|last)'\]", found.engines["torch"])
    assert found.modules == {"encoder": ["LSTM", "1", "0"]}
    assert [re.fullmatch("[0-9a-f]{16}", digest) and way for digest, way in found.bits] == [", ".join(WAYS)]
    assert torch.get_num_threads() == threads
    again = check(TAGGER, "--input", "4,5", "--input-ids", 50, "--threads", "all")
    assert (again.bits, again.relative) == (found.bits, found.relative)
    assert f"{fastrnn.cpu_info()['cpus']} thread" in again.head[0]
    assert torch.get_num_threads() == threads


def test_the_hash_is_that_of_the_rows_of_the_outputs(check):
    found = check("model = nn.GRU(3, 17, batch_first=True)\nmake = lambda: (model, torch.ones(3, 5, 3) / 7)")
    layer = fastrnn.from_torch(sys.modules["mine"].model)
    y, h = layer(np.ones((3, 5, 3), np.float32) / np.float32(7))
    digest = hashlib.sha256(b"".join(y[i].tobytes() + h[:, i].tobytes() for i in range(3))).hexdigest()
    assert found.bits == [[digest[:16], ", ".join(WAYS)]]
    assert found.modules == {"(model)": ["GRU", "1", "0"]}


def test_the_hash_is_that_of_calls_as_they_were(check):
    body = """
    def run(net, x):
        h = net.cell(x)
        h[:] = net.cell(x, h)  # over what went in
        return h

    model = Net(run, cell=nn.GRUCell(3, 17))
    make = lambda: (model, torch.ones(2, 3))
    """
    found = check(body)
    cell, x = fastrnn.from_torch(sys.modules["mine"].model.cell), np.ones((2, 3), np.float32)
    h = cell(x)
    assert found.bits[0][0] == hashlib.sha256(h.tobytes() + cell(x, h).tobytes()).hexdigest()[:16]


FORMS = {
    "tensor": "return nn.RNN(3, 5), torch.randn(7, 2, 3)",
    "unbatched": "return nn.LSTM(3, 5, 2), torch.randn(7, 3)",
    "batch first": "return nn.GRU(3, 5, batch_first=True, bidirectional=True), torch.randn(4, 7, 3)",
    "float64": "return nn.GRU(3, 5).double(), torch.randn(7, 2, 3).double()",
    "states": "return nn.LSTM(3, 5), (torch.randn(7, 4, 3), (torch.randn(1, 4, 5), torch.randn(1, 4, 5)))",
    "state": "return nn.GRU(3, 5, batch_first=True), (torch.randn(4, 7, 3), torch.randn(1, 4, 5))",
    "dict": "return nn.GRU(3, 5), {'hx': torch.randn(1, 2, 5), 'input': torch.randn(7, 2, 3)}",
    "projection": """
        warnings.filterwarnings("ignore", "LSTM with projections")  # that oneDNN does not have them
        return nn.LSTM(3, 5, proj_size=2), torch.randn(7, 2, 3)
    """,
    "packed": """
        x = [torch.randn(n, 3) for n in (2, 7, 1, 5)]
        return nn.LSTM(3, 5, 2, bidirectional=True), rnn.pack_sequence(x, enforce_sorted=False)
    """,
    "packed states": """
        x = [torch.randn(n, 3) for n in (5, 2, 2)]
        return nn.GRU(3, 5, batch_first=True), (rnn.pack_sequence(x), torch.randn(1, 3, 5))
    """,
    "cell": "return nn.GRUCell(3, 5), torch.randn(4, 3)",
    "cell, unbatched": "return nn.RNNCell(3, 5), (torch.randn(3), torch.randn(5))",
    "cell, both states": "return nn.LSTMCell(3, 5), (torch.randn(4, 3), (torch.randn(4, 5), torch.randn(4, 5)))",
    "two inputs": """
        def run(net, x, h):
            c = h
            for step in x:
                h, c = net.cell(step, hx=(h, c))
            return h

        return Net(run, cell=nn.LSTMCell(3, 5)), (torch.randn(6, 2, 3), torch.randn(2, 5))
    """,
    "past the hooks": "return Net(lambda net, x: net.rnn.forward(x), rnn=nn.GRU(3, 5)), torch.randn(7, 2, 3)",
    "a hook changes what goes in": """
        model = nn.GRU(3, 5)
        model.register_forward_pre_hook(lambda module, given: (given[0][..., 0],))
        return model, torch.randn(7, 2, 2, 3).mT
    """,
    "writes to its input": "return Net(lambda net, x: net.rnn(x.mul_(2)), rnn=nn.GRU(3, 5)), torch.ones(7, 2, 3)",
    "remembers": """
        def run(net, x):
            y, net.state = net.rnn(x, net.state)
            return y

        model = Net(run, rnn=nn.GRU(3, 5))
        model.state = None
        return model, torch.randn(7, 2, 3)
    """,
    "inputs with a history": "return nn.GRU(3, 5), nn.Linear(2, 3)(torch.randn(7, 2, 2))",
    "not a number": "return nn.LSTM(3, 5), torch.full((7, 2, 3), torch.nan)",
}


@pytest.mark.parametrize("form", FORMS)
def test_models_and_inputs(check, form):
    found = check("def make():\n" + textwrap.indent(textwrap.dedent(FORMS[form]), "    "))
    calls = 6 if form == "two inputs" else 1
    assert (found.code, found.err) == (0, "")
    ((_, fast, left),) = found.modules.values()
    assert (int(fast), int(left), found.calls) == (calls, 0, calls)
    assert [way for _, way in found.bits] == [", ".join(WAYS)]


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("norm", ["weight_norm", "parametrizations.weight_norm"])
def test_weights_that_are_computed_anew(check, norm):
    body = f"""
    def make():
        modules = dict(first={norm}(nn.GRU(3, 3), "weight_hh_l0"), second=nn.GRU(3, 3))
        model, x = Net(lambda net, x: net.second(net.first(x)[0]), **modules), torch.randn(7, 2, 3)
        model(x)  # autograd holds the weights that it leaves
        return model, x
    """
    found = check(body)
    assert (found.code, found.err) == (0, "")
    assert found.modules["second"] == ["GRU", "1", "0"]
    assert found.modules["first"] == ["GRU", "1", "0"]


def test_a_model_alone(check):
    body = "model = nn.GRU(3, 5)\nmake = lambda: model"
    found = check(body, "--input", "7,2,3")
    assert (found.code, found.calls) == (0, 1)
    assert check(body.replace("lambda: ", ""), "--input", "7,2,3").modules == found.modules


FALLBACKS = """
class Own(nn.LSTM):
    pass

def run(net, x):
    x = net.small(net.fast(x)[0].bfloat16())[0].float()
    with torch.enable_grad():
        return [net.cell(t) for t in net.own(x)[0]]

def make():
    modules = dict(fast=nn.GRU(3, 3), small=nn.RNN(3, 3).bfloat16(), own=Own(3, 3), idle=nn.GRU(3, 3))
    return Net(run, **modules, cell=nn.GRUCell(3, 3)), torch.randn(7, 2, 3)
"""


@pytest.mark.filterwarnings("ignore:autograd is on")
def test_what_falls_back_and_why(check):
    found = check(FALLBACKS)
    assert found.code == 0
    why = {name: rest[3] for name, rest in found.modules.items() if rest[3:]}
    assert {name: rest[:3] for name, rest in found.modules.items()} == {
        "fast": ["GRU", "1", "0"],
        "small": ["RNN", "0", "1"],
        "own": ["Own", "0", "all"],
        "idle": ["GRU", "0", "0"],
        "cell": ["GRUCell", "0", "7"],
    }
    assert "NumPy" in why["small"] or "float32" in why["small"]
    assert "class of its own" in why["own"]
    assert why["idle"] == "it was not called"
    assert "autograd" in why["cell"]
    assert found.calls == 1


def test_a_model_that_fastrnn_never_runs_fails(check):
    found = check("make = lambda: (nn.GRU(3, 5).bfloat16(), torch.randn(7, 2, 3).bfloat16())")
    assert (found.code, found.bits, found.absolute) == (1, [], 0)
    assert found.err == "fastrnn: error: no call ran on fastrnn\n"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_model_is_told_what_to_do(check):
    found = check(TAGGER + "make = lambda: torch.jit.script(Tagger())", "--input", "4,5", "--input-ids", 50)
    assert (found.code, found.bits) == (1, [])
    assert found.modules["encoder"][:3] == ["LSTM", "0", "all"]
    assert "TorchScript" in found.modules["encoder"][3]


def broken(monkeypatch, kind, change):
    """Let fastrnn's module of a kind put out `change(y, x)` instead of y."""
    forward = getattr(fastrnn.torch, kind).forward

    @functools.wraps(forward)
    def wrong(self, input, hx=None):
        y, states = forward(self, input, hx)
        return change(y, input), states

    monkeypatch.setattr(getattr(fastrnn.torch, kind), "forward", wrong)


GRU = "make = lambda: (nn.GRU(3, 16), torch.randn(7, 4, 3))"


@pytest.mark.parametrize(
    ("change", "odd"),
    [
        (lambda y, x: y + (1e-7 if x.shape[1] == 1 else 0), {"row by row"}),
        (lambda y, x: y.roll(1, 1) if x.shape[1] > 1 else y, {"row by row"}),
        (lambda y, x: y + 1e-7 * (torch.get_num_threads() > 1), {"all threads"}),
    ],
    ids=["by batch", "rows in another order", "by threads"],
)
def test_bits_that_differ_fail(check, monkeypatch, change, odd):
    cpus = fastrnn.cpu_info() | {"cpus": 2}
    monkeypatch.setattr(fastrnn, "cpu_info", lambda: cpus)
    broken(monkeypatch, "GRU", change)
    found = check(GRU, "--tolerance", "10")
    assert found.code == 1
    assert found.err == "fastrnn: error: the bits of the recurrent modules' outputs differ\n"
    assert [way for _, way in found.bits] == list(WAYS)
    digests = {way: digest for digest, way in found.bits}
    assert len(set(digests.values())) == 2
    assert {way for way in WAYS if digests[way] != digests["whole"]} == odd


def test_nans_of_either_sign_are_the_same(check, monkeypatch):
    broken(monkeypatch, "GRU", lambda y, x: (y * math.nan).copysign(torch.tensor(x.shape[1] - 1.5)))
    assert [way for _, way in check(GRU).bits] == [", ".join(WAYS)]


def test_outputs_that_differ_fail(check, monkeypatch):
    broken(monkeypatch, "GRU", lambda y, x: y + 0.25)
    found = check(GRU)
    assert found.code == 1
    assert found.absolute == pytest.approx(0.25, rel=1e-3)
    assert found.err == "fastrnn: error: the outputs differ by more than 1e-05 of the largest value\n"
    assert len(found.bits) == 1
    assert check(GRU, "--tolerance", "10").code == 0


def test_modules_of_fastrnn_are_compared_with_torchs(check, monkeypatch):
    broken(monkeypatch, "GRU", lambda y, x: y + 0.25)
    found = check(GRU.replace("nn.GRU", "fastrnn.torch.GRU"))
    assert found.absolute == pytest.approx(0.25, rel=1e-3)
    assert found.modules == {"(model)": ["GRU", "1", "0"]}


# Differences ----------------------------------------------------------------------------------------------------------


def tensors(*values):
    return list(comparison._tensors([torch.as_tensor(value) for value in values]))


def test_differences_are_relative_to_the_largest_value_of_their_tensor():
    found = comparison._difference(tensors([100.0, 0.0], [0.5, 2.0]), tensors([100.5, 0.0], [0.5, 2.125]))
    assert found == (0.5, 0.0625, " of output[1]")
    assert comparison._difference(tensors(), tensors()) == (0, 0, "")
    nothing = torch.zeros(0)
    assert comparison._difference(tensors(nothing, 0.0), tensors(nothing, 0.0)) == (0, 0, "")
    assert comparison._difference(tensors(0.0), tensors(1e-30)).relative == math.inf


def test_differences_of_what_is_no_float():
    assert comparison._difference(tensors(100000, True), tensors(100001, True)) == (1, 1, " of output[0]")
    assert comparison._difference(tensors([True, False]), tensors([True, True])).relative == 1
    assert comparison._difference(tensors(3 + 4j), tensors(3 + 5j)) == (1, 0.2, " of output[0]")


def test_differences_of_what_is_not_finite():
    nan, inf = math.nan, math.inf
    assert comparison._difference(tensors([nan, inf, -inf, 2.0]), tensors([nan, inf, -inf, 2.5])).relative == 0.25
    for a, b in ((nan, 1.0), (1.0, nan), (inf, -inf), (inf, 1.0)):
        assert comparison._difference(tensors([a, 1.0]), tensors([b, 1.0])).relative == inf


def test_other_shapes_dtypes_and_structures_differ_without_end():
    one = torch.ones(2)
    for other in (torch.ones(1), torch.ones(2, 1), one.double()):
        assert "[0] has another shape or dtype" in str(comparison._difference(tensors(one), tensors(other)))
    found = comparison._difference(tensors(one), tensors(one, one))
    assert (found.relative, found.where) == (math.inf, ": they have other tensors")


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("make = 3", "mine:make must be a function that returns a model, got 3"),
        ("make = lambda: 3", "mine:make must return a torch.nn.Module, or (model, inputs), got 3"),
        ("make = lambda: (nn.GRU(1, 1), 1, 2)", "got (GRU, 1, 2): put the inputs in a tuple of their own"),
        ("make = lambda: (3, torch.ones(1))", "got (3, Tensor)"),
        ("make = lambda: (nn.GRU(1, 1), [1])", "inputs of mine:make must be a tensor, a tuple of positional arguments"),
        ("make = lambda: nn.GRU(1, 1)", "mine:make gives a model without inputs: return (model, inputs), or pass --in"),
        ("make = lambda: (nn.Linear(1, 1), torch.ones(1))", "a recurrent module: torch.nn's RNN, LSTM or GRU or a"),
        ("other = 3", "mine has no make, only Net"),
        ("def other(): ...", "mine has no make, only Net, other"),
        (
            "class Own(fastrnn.torch.GRU): ...\nmake = lambda: (nn.Sequential(Own(3, 3)), torch.ones(2, 2, 3))",
            "0 must run on torch too, and is of a class made from fastrnn.torch.GRU: make that from torch.nn.GRU",
        ),
        (
            "class Odd(nn.GRU):\n def forward(self, x): return 3\nmake = lambda: (Odd(3, 3), torch.ones(2, 2, 3))",
            "the model must return tensors, or tuples, lists and dicts of them, got 3",
        ),
        (
            """
            def run(net, x):
                return nn.functional.dropout(net.rnn(x)[0], training=True)

            make = lambda: (Net(run, rnn=nn.GRU(3, 5)), torch.randn(7, 2, 3))
            """,
            "the model must repeat itself: two runs on torch differ by",
        ),
    ],
)
def test_refused(call, body, named):
    code, out, err = call(body)
    assert (code, out) == (1, "")
    assert err.startswith("fastrnn: error: ")
    assert err.count("\n") == 1
    assert named in err


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("import nowhere", "import mine raised ModuleNotFoundError: No module named 'nowhere'"),
        ("def make(size): ...", "mine:make raised TypeError: make() missing 1 required positional argument: 'size'"),
        ("make = lambda: {}['weights']", "mine:make raised KeyError: 'weights'"),
        ("make = lambda: (nn.GRU(3, 5), torch.ones(2, 2, 4))", "the model raised RuntimeError: input.size(-1) must be"),
        (
            "make = lambda: (nn.GRU(3, 5), (torch.ones(2, 2, 3), (i for i in ())))",
            "copy.deepcopy raised TypeError: cannot pickle 'generator' object",
        ),
    ],
)
def test_what_others_code_raises_is_shown_whole(call, body, named):
    code, out, err = call(body)
    assert (code, out) == (1, "")
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith(f"fastrnn: error: {named}")


@pytest.mark.parametrize(
    ("factory", "named"),
    [
        ("mine", "MODULE:FACTORY must be such as package.module:factory, as import names it, got 'mine'"),
        ("mine.py:make", "got 'mine.py:make'"),
        ("models/mine:make", "got 'models/mine:make'"),
        ("nowhere.mine:make", "no module nowhere: it is neither installed nor in "),
        ("mine.deeper:make", "no module mine.deeper: it is neither installed nor in "),
    ],
)
def test_names_that_cannot_be(call, factory, named):
    code, out, err = call(GRU, factory=factory)
    assert (code, out) == (1, "")
    assert err.startswith("fastrnn: error: ")
    assert err.count("\n") == 1
    assert named in err


@pytest.mark.parametrize("option", ["--input", "--input-ids"])
def test_inputs_come_once(call, option):
    code, _, err = call(GRU, option, "3")
    assert code == 1
    assert "mine:make returns inputs: leave out --input and --input-ids" in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "MODULE:FACTORY"),
        (["m:f", "--against", "numpy"], "torch"),
        (["m:f", "--input", "3,x"], "must be sizes such as 100,1,64, got '3,x'"),
        (["m:f", "--input-ids", "0"], "must be a whole number from 1, got '0'"),
        (["m:f", "--threads", "0"], "must be all, or a whole number from 1"),
        (["m:f", "--tolerance", "nan"], "must be a number from 0, got 'nan'"),
        (["m:f", "--seconds", "long"], "must be a number from 0, got 'long'"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, named, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["check", *arguments])
    assert error.value.code == 2
    assert named in capsys.readouterr().err


def test_without_torch(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "fastrnn.comparison")
    code, out, err = call(GRU)
    assert (code, out) == (1, "")
    assert err == "fastrnn: error: fastrnn check needs torch: pip install 'fastrnn[torch]'\n"


def test_the_command_imports_from_the_current_directory(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text(START + GRU)
    command = [sys.executable, "-m", "fastrnn.cli", "check", "models.mine:make", "--against", "torch", "--seconds", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("models.mine:make, 1 thread\n")
