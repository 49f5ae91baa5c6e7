"""Architectures of torch.nn before and after accelerate: the same outputs, every recurrent module on fastrnn."""

import copy

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # its pool is a hundred times slower than one thread where cores are busy

from fastrnn._bench import zoo  # noqa: E402
from fastrnn.torch import accelerate, report  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")  # that oneDNN does not have them


@pytest.mark.parametrize("name", zoo.ZOO)
def test_accelerated(name):
    model, inputs = zoo.ZOO[name].make()
    recurrent = [n for n, m in model.named_modules() if isinstance(m, (torch.nn.RNNBase, torch.nn.RNNCellBase))]
    fast = accelerate(copy.deepcopy(model))
    with torch.inference_mode():
        before, after, again = (zoo.flat(run(*inputs)) for run in (model, fast, model))
    assert recurrent
    for y, expected, unchanged in zip(after, before, again, strict=True):
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
        largest = expected.abs().max().item()
        assert (y - expected).abs().max().item() <= 1e-5 * min(1, largest)
        assert torch.equal(unchanged, expected)
    rows = report(fast)
    assert [(n, state, reason, left) for n, state, reason, _, left in rows] == [(n, "fast", "", 0) for n in recurrent]
    assert all(calls > 0 for *_, calls, _ in rows)
    assert [row[1:3] for row in report(model)] == [("left", "accelerate was not called")] * len(recurrent)


def test_weights_stay_tied():
    model, _ = zoo.ZOO["language model, 10 rows of 35 words"].make()
    assert accelerate(model).decoder.weight is model.embedding.weight


def test_the_same_each_time():
    specimen, state = zoo.ZOO["RNNoise, a frame"], torch.get_rng_state()
    with torch.inference_mode():
        first, second = (zoo.flat(model(*inputs)) for model, inputs in (specimen.make(), specimen.make()))
    assert all(map(torch.equal, first, second))
    assert torch.equal(torch.get_rng_state(), state)
