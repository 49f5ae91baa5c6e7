"""What fastrnn.torch leaves to torch's own forward, and what it then says; tracing, scripting, export, processes."""

import contextlib
import copy
import io
import multiprocessing
import re
import warnings

import pytest

import fastrnn

torch = pytest.importorskip("torch")

from module_cases import (  # noqa: E402
    CELLS,
    KINDS,
    LAYERS,
    assert_close,
    assert_same,
    calls,
    flat,
    inputs,
    pair,
    reason,
    states,
)
from torch.autograd import forward_ad  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

import fastrnn.torch as fast  # noqa: E402


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LSTM with projections")  # that oneDNN does not have them
        warnings.filterwarnings("ignore", ".*(jit|weight_norm).*deprecated")
        yield


# Autograd -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    theirs, ours = pair(kind)
    grads = []
    for module in (theirs.train(), ours.train()):
        x, hx = inputs(module).requires_grad_(), states(module)
        sum(t.square().sum() for t in flat(module(x, hx))).backward()
        grads.append((x.grad, *[weight.grad for weight in module.parameters()]))
    assert_same(*grads)
    assert calls(ours) == (0, 1)
    assert "torch.inference_mode()" in reason(ours)


@pytest.mark.parametrize("kind", KINDS)
def test_what_requires_grad(kind):
    _, ours = pair(kind)
    ours.train()
    x, hx = inputs(ours), states(ours)
    ours(x, hx)
    assert calls(ours) == (0, 1)
    ours.requires_grad_(False)
    ours(x, hx)
    assert calls(ours) == (1, 1)
    ours(x.clone().requires_grad_(), hx)
    assert calls(ours) == (1, 2)
    flat(hx)[-1].requires_grad_()
    ours(x, hx)
    assert calls(ours) == (1, 3)
    with torch.no_grad():
        ours(x, hx)
    with torch.inference_mode():
        ours(x, hx)
    assert calls(ours) == (3, 3)


def test_evaluation_with_autograd_warns_once(monkeypatch):
    monkeypatch.setattr(fast, "_warned", False)
    _, ours = pair("GRU")
    x = inputs(ours)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours.train()(x)
        with torch.inference_mode():
            ours.eval()(x)
        assert not caught
        for module in (ours, copy.deepcopy(ours), ours):
            module(x)
    [warning] = caught
    assert "torch.inference_mode()" in str(warning.message)
    assert warning.filename == __file__


def test_dropout():
    _, ours = pair("LSTM", num_layers=2, dropout=0.5)
    theirs = copy.deepcopy(pair("LSTM", num_layers=2, dropout=0.5)[0])
    x = inputs(ours)
    with torch.no_grad():
        assert_close(ours(x), theirs(x))
        torch.manual_seed(1)
        dropped = ours.train()(x)
        torch.manual_seed(1)
        assert_same(dropped, theirs.train()(x))
        assert calls(ours) == (1, 1)
        assert reason(ours) == "dropout is on: call eval()"
        for options in ({"dropout": 0.0, "num_layers": 2}, {}):  # training, with nothing to drop
            theirs, ours = pair("LSTM", **options)
            assert_close(ours.train()(x), theirs.train()(x))
            assert calls(ours) == (1, 0)


# Arguments and modes --------------------------------------------------------------------------------------------------


class Sub(torch.Tensor):
    """A subclass of tensors, as libraries make them."""


@contextlib.contextmanager
def dual_level():
    with forward_ad.dual_level():
        yield


def mode():
    from torch.utils.flop_counter import FlopCounterMode

    return FlopCounterMode(display=False)


SETTINGS = {  # what is done to the module, to x and around the call; the reason
    "autocast": (None, None, lambda: torch.autocast("cpu", torch.bfloat16), "autocast"),
    "bfloat16": (lambda m: m.bfloat16(), lambda x: x.bfloat16(), None, "float32"),
    "half": (lambda m: m.half(), lambda x: x.half(), None, "float32"),
    "subclass": (None, lambda x: x.as_subclass(Sub), None, "plain tensors"),
    "meta": (lambda m: m.to("meta"), lambda x: x.to("meta"), None, "memory"),
    "forward-mode autograd": (None, None, dual_level, "forward-mode"),
    "dispatch mode": (None, None, mode, "dispatch mode"),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_torch_runs(kind, setting):
    change, convert, around, why = SETTINGS[setting]
    modules = pair(kind)
    results = []
    for module in modules:
        if change:
            change(module)
        x, hx = inputs(module), states(module)
        x, hx = (x.cpu(), hx) if setting != "meta" else (torch.empty_like(x, device="meta"), None)
        with torch.no_grad(), around() if around else contextlib.nullcontext():
            results.append(module(convert(x) if convert else x, hx))
    theirs, ours = results
    if setting == "meta":
        assert [(t.shape, t.device) for t in flat(ours)] == [(t.shape, t.device) for t in flat(theirs)]
    else:
        assert_same(ours, theirs)
    assert calls(modules[1]) == (0, 1)
    assert why in reason(modules[1])


REFUSED = {
    "float64 input": (None, lambda x: x.double()),
    "half input": (None, lambda x: x.half()),
    "integers": (None, lambda x: x.long()),
    "complex": (None, lambda x: torch.complex(x, x).conj()),
    "sparse": (None, lambda x: x.to_sparse()),
    "half weights": (lambda m: m.half(), None),
    "mixed weights": (
        lambda m: setattr(
            m,
            next(iter(m._parameters)),
            torch.nn.Parameter(m.weight_ih_l0.double() if hasattr(m, "weight_ih_l0") else m.weight_ih.double()),
        ),
        None,
    ),
    "None": (None, lambda x: None),
    "array": (None, lambda x: x.numpy()),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("kind", KINDS)
def test_what_torch_refuses_it_refuses_here_too(kind, what):
    change, convert = REFUSED[what]
    found = []
    for module in pair(kind):
        x = inputs(module)
        if change:
            change(module)
        try:
            with torch.no_grad():
                found.append(module(convert(x) if convert else x))
        except Exception as error:
            found.append((type(error), str(error)))
    theirs, ours = found
    if isinstance(theirs[0], type):
        assert ours == theirs
    else:
        assert_same(ours, theirs)
    assert calls(module)[0] == 0


def test_forward_mode_gradients():
    for kind in ("GRU", "LSTMCell"):
        found = []
        for module in pair(kind):
            x = inputs(module)
            with forward_ad.dual_level(), torch.no_grad():
                y = flat(module(forward_ad.make_dual(x, torch.ones_like(x))))[0]
                found.append(forward_ad.unpack_dual(y).tangent)
        assert_same(*found)
        assert found[0].any()


def test_function_transforms():
    theirs, ours = pair("GRUCell")
    x = torch.stack([inputs(ours, seed=seed) for seed in range(3)])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that vmap is slow on cells
        assert_same(torch.vmap(ours)(x), torch.vmap(theirs)(x))
    assert calls(ours) == (0, 1)
    for kind in ("GRU", "LSTMCell"):
        theirs, ours = pair(kind)
        x = inputs(ours)
        jacobians = [
            torch.func.jacrev(lambda x: flat(torch.func.functional_call(module, weights, x))[0])(x)  # noqa: B023
            for module in (theirs, ours)
            for weights in [{name: w.detach() for name, w in module.named_parameters()}]
        ]
        assert_same(jacobians[1], jacobians[0])
        assert "torch.func" in reason(ours)


def test_functional_call_runs_here():
    theirs, ours = pair("LSTM")
    x, weights = inputs(ours), {name: w.detach() * 2 for name, w in ours.named_parameters()}
    with torch.no_grad():
        before = ours(x)
        assert_close(torch.func.functional_call(ours, weights, x), torch.func.functional_call(theirs, weights, x))
        assert_same(ours(x), before)
    assert calls(ours) == (3, 0)


def test_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    _, ours = pair("LSTM", num_layers=2)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad():
        y, (h, _) = ours(fake.from_tensor(inputs(ours)))
    assert (tuple(y.shape), tuple(h.shape)) == ((4, 3, 7), (2, 3, 7))
    assert calls(ours) == (0, 1)


def test_weights_of_inference_mode():
    with torch.inference_mode():
        theirs, ours = pair("LSTM")
        x = inputs(ours)
        assert_same(ours(x), theirs(x))
        assert "made under inference_mode" in reason(ours)
    _, ours = pair("LSTM")
    with torch.inference_mode():
        ours(x)
        ours.weight_hh_l0 = torch.nn.Parameter(torch.zeros(28, 7))  # after it ran fast
        ours(x)
    assert calls(ours) == (1, 1)


def test_weights_that_are_views():
    theirs, ours = pair("RNN-tanh", 7, 7)
    for module in (theirs, ours):
        module.weight_hh_l0.data = module.weight_hh_l0.data.T
    with torch.no_grad():
        assert_same(ours(inputs(ours)), theirs(inputs(ours)))
    assert "contiguous" in reason(ours)


# Weights that are computed --------------------------------------------------------------------------------------------

COMPUTED = {
    "weight_norm hook": lambda m, name: torch.nn.utils.weight_norm(m, name),
    "spectral_norm hook": lambda m, name: torch.nn.utils.spectral_norm(m, name),
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "pruned": lambda m, name: prune.l1_unstructured(m, name, amount=0.5),
}


def computed(kind, what):
    made = []
    for module in pair(kind):
        torch.manual_seed(1)
        COMPUTED[what](module, "weight_hh" + "_l0" * (kind in LAYERS))
        made.append(module.eval())
    return made


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("what", COMPUTED)
@pytest.mark.parametrize("kind", ["GRU", "LSTMCell"])
def test_computed_weights(kind, what, trained):
    theirs, ours = (module.requires_grad_(trained) for module in computed(kind, what))
    x = inputs(ours)
    with torch.no_grad():
        assert_same(ours(x), theirs(x))
        assert calls(ours) == (0, 1)
        assert "accelerate()" in reason(ours)
        for module in (theirs, ours):
            with torch.inference_mode():  # makes no difference
                assert fast.accelerate(module) is module
        expected = ours(x)
        assert_close(theirs(x), expected)
        assert calls(ours) == (1, 1)
        assert calls(theirs) == (1, 0)
    assert set(theirs.state_dict()) == set(pair(kind)[0].state_dict())
    assert all(weight.requires_grad == trained for weight in theirs.parameters())


# Graphs ---------------------------------------------------------------------------------------------------------------


class Tagger(torch.nn.Module):
    """A model around a layer and a cell."""

    def __init__(self, library, kind="GRU"):
        super().__init__()
        torch.manual_seed(0)
        self.inner = getattr(library, kind)(5, 7, num_layers=2, batch_first=True)
        self.cell = library.GRUCell(7, 6)
        self.out = torch.nn.Linear(6, 3)

    def forward(self, x):
        y, _ = self.inner(x)
        return self.out(self.cell(y[:, -1]))


def graph_of(model, x, how):
    with torch.no_grad():
        if how == "trace":
            return torch.jit.trace(model, (x,))
        if how == "script":
            return torch.jit.script(model)
        if how == "saved script":
            file = io.BytesIO()
            torch.jit.save(torch.jit.script(model), file)
            file.seek(0)
            return torch.jit.load(file)
        if how == "fx":
            return torch.fx.symbolic_trace(model)
        if how == "compile":
            return torch.compile(model, backend="eager")
        return torch.export.export(model, (x,), strict=how == "strict export").module()


@pytest.mark.parametrize("how", ["trace", "script", "saved script", "fx", "compile", "export", "strict export"])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_graphs(kind, how):
    theirs, ours = (Tagger(library, kind).eval() for library in (torch.nn, fast))
    x, later = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    with torch.no_grad():
        ours(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, which it gives for its own modules too
            graph = graph_of(ours, x, how)
        for given in (x, later):
            assert_close(graph(given), theirs(given))
        assert_close(ours(later), theirs(later))
        if how in ("trace", "script"):  # what follows the graph's weights, as torch's do
            ours.inner.weight_hh_l0.zero_()
            assert_close(graph(x), ours(x))


@pytest.mark.parametrize("kind", CELLS)
def test_scripts_of_cells(kind):
    theirs, ours = pair(kind)
    x, hx = inputs(ours), states(ours)
    with torch.no_grad():
        script = torch.jit.script(ours)
        assert_same(script(x, hx), theirs(x, hx))


def test_graphs_of_fx_hold_the_modules():
    ours = Tagger(fast).eval()
    graph = torch.fx.symbolic_trace(ours)
    with torch.no_grad():
        graph(torch.randn(3, 4, 5))
    assert [type(graph.get_submodule(name)) for name in ("inner", "cell")] == [fast.GRU, fast.GRUCell]
    assert [row[3] for row in fast.report(graph)] == [1, 1]


def test_compiled_models_do_not_recompile():
    from torch._dynamo.utils import counters

    ours = Tagger(fast).eval()
    compiled = torch.compile(ours, backend="eager")
    with torch.no_grad():
        for _ in range(2):
            compiled(torch.randn(3, 4, 5))
        before = dict(counters["frames"])
        for _ in range(12):
            compiled(torch.randn(3, 4, 5))
    assert dict(counters["frames"]) == before


# Processes ------------------------------------------------------------------------------------------------------------


class Encoded(torch.utils.data.Dataset):
    """Data that a module makes in a worker process."""

    def __init__(self, module):
        self.module = module

    def __len__(self):
        return 4

    def __getitem__(self, i):
        with torch.no_grad():
            y, _ = self.module(inputs(self.module, seed=i))
        assert calls(self.module)[1] == 0
        return y


def test_data_loader_workers():
    _, ours = pair("LSTM", 16, 32)
    with torch.no_grad():
        expected = torch.stack([ours(inputs(ours, seed=i))[0] for i in range(4)])
    loader = torch.utils.data.DataLoader(Encoded(ours), 2, num_workers=2, multiprocessing_context="fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads
        assert_same(torch.cat(list(loader)), expected)


def test_a_spawned_process_sees_a_shared_model():
    from module_cases import change_and_run

    _, ours = pair("GRU")
    x = inputs(ours)
    ours.share_memory()
    with torch.no_grad():
        before = ours(x)[0]
        context = multiprocessing.get_context("spawn")
        queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
        process = context.Process(target=change_and_run, args=(ours, x.numpy(), queue))
        process.start()
        there = queue.get()
        process.join()
        assert process.exitcode == 0
        after = ours(x)[0]
    assert not torch.equal(after, before)
    assert (after.numpy() == there).all()
    assert calls(ours) == (2, 0)


# accelerate and report ------------------------------------------------------------------------------------------------


class Mine(torch.nn.LSTM):
    def forward(self, x):
        return super().forward(x.flip(0))


class Ours(fast.LSTM):
    def forward(self, x):
        return super().forward(x.flip(0))[0]


def test_a_subclass_of_ours_runs_here():
    theirs, _ = pair("LSTM")
    ours = Ours(5, 7).eval()
    ours.load_state_dict(theirs.state_dict())
    x = inputs(theirs)
    with torch.no_grad():
        assert_close(ours(x), theirs(x.flip(0))[0])
        assert_close(copy.deepcopy(ours)(x), ours(x))
    assert calls(ours) == (2, 0)


def test_accelerate_keeps_everything():
    model = torch.nn.ModuleDict(
        {
            name.lower(): getattr(torch.nn, name)(5, 5)
            for name in ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
        }
    )
    model["again"] = model["gru"]
    model["gru"].weight_ih_l0 = model["rnn"].weight_hh_l0 = torch.nn.Parameter(torch.eye(15, 5))  # tied
    model["rnn"].weight_hh_l0 = torch.nn.Parameter(torch.eye(5))
    model["rnncell"].weight_ih = model["rnn"].weight_hh_l0
    ran = []
    model["lstm"].register_forward_hook(lambda *_: ran.append("forward"))
    model["lstm"].register_forward_pre_hook(lambda *_: ran.append("before"))
    model["lstm"].note = {"of": "the user"}
    modules, weights, note = dict(model.named_modules()), dict(model.named_parameters()), model["lstm"].note
    text, x = repr(model), torch.randn(4, 5)
    model.eval()
    with torch.no_grad():
        expected = {name: model[name](x) for name in model}
        ran.clear()
        for _ in range(2):  # twice does no harm
            assert fast.accelerate(model) is model
        assert dict(model.named_modules()) == modules
        assert all(a is b for a, b in zip(model.parameters(), weights.values(), strict=True))
        assert model["rnncell"].weight_ih is model["rnn"].weight_hh_l0
        assert repr(model) == text
        assert model["lstm"].note is note
        assert not model["lstm"].training
        for name in model:
            assert_close(model[name](x), expected[name])
    assert ran == ["before", "forward"]
    assert {row[0]: row[1:] for row in fast.report(model)} == {
        name: ("fast", "", 1 + (name == "gru"), 0) for name in modules if name and name != "again"
    }


def test_what_accelerate_leaves_and_why():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.LSTM(5, 7)), {torch.nn.LSTM})
    script = torch.jit.script(torch.nn.Sequential(torch.nn.GRU(5, 7)))
    model = torch.nn.ModuleList([Mine(5, 7), script, quantized, torch.nn.Linear(5, 7), torch.nn.GRU(5, 7)])
    x = torch.randn(4, 3, 5)
    with torch.no_grad():
        expected = [module(x) for module in model]
        assert fast.report(model)[-1] == ("4", "left", "accelerate was not called", 0, 0)
        fast.accelerate(model)
        for module, result in zip(model, expected, strict=True):
            assert_close(module(x), result)
    rows = {row[0]: row[1:] for row in fast.report(model)}
    assert list(rows) == ["0", "1.0", "2.0", "4"]
    assert rows["0"] == ("left", "Mine is a class of its own", 0, 0)
    assert rows["1.0"] == ("left", "it is TorchScript: accelerate the model that it was made from", 0, 0)
    assert rows["2.0"] == ("left", "its weights are quantized", 0, 0)
    assert rows["4"] == ("fast", "", 1, 0)


def test_report_counts_both_kinds_of_calls():
    _, ours = pair("LSTM")
    model = torch.nn.ModuleList([ours])
    assert fast.report(model) == [("0", "fast", "", 0, 0)]
    x = inputs(ours)
    with torch.no_grad():
        for _ in range(3):
            ours(x)
        ours(x[:0]) if False else None
    ours.train()(x)
    assert fast.report(model) == [("0", "fast", "autograd is on: call it under torch.inference_mode()", 3, 1)]


@pytest.mark.parametrize("what", [None, "lstm", 3, fastrnn.GRU(2, 3), torch.nn.LSTM], ids=repr)
@pytest.mark.parametrize("function", [fast.accelerate, fast.report])
def test_what_is_no_module(function, what):
    with pytest.raises(TypeError, match=re.escape("model must be a torch.nn.Module, got " + type(what).__name__)):
        function(what)
