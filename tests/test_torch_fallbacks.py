"""What fastrnn.torch leaves to torch's own forward, and what it then says."""

import contextlib
import copy
import warnings

import pytest

torch = pytest.importorskip("torch")

from module_cases import (  # noqa: E402
    KINDS,
    QUIET,
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

import fastrnn.torch as fast  # noqa: E402

pytestmark = QUIET


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
    "nested": (None, lambda x: torch.nested.nested_tensor([x])),
    "mkldnn": (None, lambda x: x.to_mkldnn()),
    "quantized": (None, lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)),
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
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that torch's support of such tensors may change
                found.append(module(convert(x) if convert else x))
        except Exception as error:
            found.append((type(error), str(error)))
    theirs, ours = found
    if isinstance(theirs[0], type):
        assert ours == theirs
    else:
        assert_same(ours, theirs)
    assert calls(module)[0] == 0


def weight_of(*shape):
    return torch.nn.Parameter(torch.zeros(shape))


ODD = {  # what torch runs or refuses, and no layer of fastrnn is like
    "an int as bias": (lambda: torch.nn.GRUCell(5, 7, bias=1), lambda m: None),
    "one bias": (lambda: torch.nn.LSTMCell(5, 7), lambda m: setattr(m, "bias_hh", None)),
    "another bias": (lambda: torch.nn.LSTMCell(5, 7), lambda m: setattr(m, "bias_ih", None)),
    "a bias that is broadcast": (lambda: torch.nn.RNNCell(5, 7), lambda m: setattr(m, "bias_hh", weight_of(1))),
    "bias set later": (lambda: torch.nn.GRUCell(5, 7), lambda m: setattr(m, "bias", False)),
    "bias of a layer set later": (lambda: torch.nn.GRU(5, 7), lambda m: setattr(m, "bias", False)),
    "hidden_size set later": (lambda: torch.nn.LSTM(5, 7, 2), lambda m: setattr(m, "hidden_size", 6)),
    "input_size set later": (lambda: torch.nn.GRUCell(5, 7), lambda m: setattr(m, "input_size", 9)),
    "proj_size set later": (lambda: torch.nn.GRU(5, 7), lambda m: setattr(m, "proj_size", 3)),
    "a tensor as dropout": (lambda: torch.nn.LSTM(5, 7), lambda m: setattr(m, "dropout", torch.tensor(0.0))),
    "a wrong shape": (lambda: torch.nn.GRU(5, 7), lambda m: setattr(m, "weight_ih_l0", weight_of(21, 6))),
    "a function of fastrnn's": (lambda: torch.nn.RNNCell(5, 7, nonlinearity="sigmoid"), lambda m: None),
}


@pytest.mark.parametrize("what", ODD)
def test_modules_that_no_layer_is_like(what):
    make, change = ODD[what]
    found = []
    for accelerate in (lambda m: m, fast.accelerate):
        torch.manual_seed(0)
        module = accelerate(make())
        change(module)
        with torch.inference_mode():
            try:
                found.append(flat(module(torch.ones(4, 5))))
            except Exception as error:
                found.append((type(error), str(error)))
    if isinstance(found[0][0], torch.Tensor):
        for theirs, ours in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    else:
        assert found[0] == found[1]


def test_another_parameter_changes_nothing():
    module = fast.accelerate(torch.nn.GRU(5, 7))
    module.temperature = weight_of(1)
    with torch.inference_mode():
        module(torch.ones(4, 5))
    assert calls(module) == (1, 0)


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


def test_weights_that_are_no_plain_tensors():
    theirs, ours = pair("LSTM")
    x = inputs(ours)
    with torch.no_grad():
        ours(x)
        for module in (theirs, ours):
            module.weight_hh_l0 = torch.nn.Parameter(module.weight_hh_l0.detach().as_subclass(Sub))
        ours(x)
    assert calls(ours) == (1, 1)
    assert "weights are plain tensors" in reason(ours)


def test_weights_that_are_views():
    theirs, ours = pair("RNN-tanh", 7, 7)
    for module in (theirs, ours):
        module.weight_hh_l0.data = module.weight_hh_l0.data.T
    with torch.no_grad():
        assert_same(ours(inputs(ours)), theirs(inputs(ours)))
    assert "contiguous" in reason(ours)
