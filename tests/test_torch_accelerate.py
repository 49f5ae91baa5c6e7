"""accelerate and report: what is kept, what becomes a parameter, what is left and why."""

import copy
import re
import warnings

import pytest

import fastrnn

torch = pytest.importorskip("torch")

from module_cases import (  # noqa: E402
    LAYERS,
    QUIET,
    assert_close,
    assert_same,
    calls,
    inputs,
    pair,
    reason,
)
from torch.nn.utils import parametrizations, prune  # noqa: E402

import fastrnn.torch as fast  # noqa: E402

pytestmark = QUIET


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
            with torch.no_grad(), torch.inference_mode():  # makes no difference
                assert fast.accelerate(module) is module
        expected = ours(x)
        assert_close(theirs(x), expected)
        assert calls(ours) == (1, 1)
        assert calls(theirs) == (1, 0)
    assert set(theirs.state_dict()) == set(pair(kind)[0].state_dict())
    assert all(weight.requires_grad == trained for weight in theirs.parameters())


@pytest.mark.parametrize("what", COMPUTED)
@pytest.mark.parametrize("kind", ["GRU", "LSTMCell"])
def test_a_copy_leaves_the_original(kind, what):
    theirs, _ = computed(kind, what)
    with torch.no_grad():
        expected = theirs(inputs(theirs))  # prepares what hooks compute
        assert_close(fast.accelerate(copy.deepcopy(theirs))(inputs(theirs)), expected)
        assert_same(theirs(inputs(theirs)), expected)
    assert getattr(theirs, "weight_hh" + "_l0" * (kind in LAYERS)).shape[1] == theirs.hidden_size


# Accelerate and report ------------------------------------------------------------------------------------------------


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
