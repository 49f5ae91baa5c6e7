"""Weights of fastrnn.torch's modules that change between calls."""

import subprocess
import sys
import warnings

import pytest

torch = pytest.importorskip("torch")

from module_cases import (  # noqa: E402
    assert_close,
    calls,
    flat,
    inputs,
    pair,
    reason,
    states,
)


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LSTM with projections")  # that oneDNN does not have them
        yield


def optimiser_step(module):
    module.train()
    with torch.enable_grad():
        sum(t.square().sum() for t in flat(module(inputs(module)))).backward()
    torch.optim.SGD(module.parameters(), lr=0.5).step()
    for weight in module.parameters():
        weight.grad = None


def load_state_dict(module):
    module.load_state_dict({name: value * 2 for name, value in module.state_dict().items()})


def assign_state_dict(module):
    state = {name: value * 2 for name, value in module.state_dict().items()}
    module.load_state_dict(state, assign=True)


def one_number(module):
    module.weight_hh_l0[3, 2] += 1


def copy_to_data(module):
    module.weight_hh_l0.data.copy_(module.weight_hh_l0 * 2)


def multiply_data(module):
    module.bias_hh_l0.data.mul_(3)


def new_data(module):
    module.weight_ih_l0.data = module.weight_ih_l0.data * 2


def set_storage(module):
    module.weight_ih_l0.set_(module.weight_ih_l0.data * 2)


def new_parameter(module):
    module.weight_ih_l0 = torch.nn.Parameter(module.weight_ih_l0 * 2)


def to_float64(module):
    module.double()


def numpy_writes(module):
    module.weight_hh_l0.detach().numpy()[...] *= 2


def shared_memory(module):
    module.share_memory()
    module.weight_hh_l0.mul_(2)


def reset(module):
    module.reset_parameters()


CHANGES = [
    optimiser_step,
    load_state_dict,
    assign_state_dict,
    one_number,
    copy_to_data,
    multiply_data,
    new_data,
    set_storage,
    new_parameter,
    to_float64,
    numpy_writes,
    shared_memory,
    reset,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(change):
    theirs, ours = pair("GRU", 9, 11)
    x = inputs(ours)
    before = ours(x)
    change(ours)
    x = x.to(ours.weight_hh_l0.dtype)
    theirs.to(x.dtype).load_state_dict(ours.state_dict())
    after = ours(x)
    assert_close(after, theirs(x))
    assert not torch.equal(after[0].float(), before[0])
    assert calls(ours)[0] == 2


def turned_in_place(module):
    module.weight_hh_l0.data = module.weight_hh_l0.data.t()


def negative_where_it_is_read(module):
    module.weight_hh_l0 = torch.nn.Parameter(torch._neg_view(module.weight_hh_l0.detach()), requires_grad=False)


@pytest.mark.parametrize("change", [turned_in_place, negative_where_it_is_read])
def test_the_same_memory_read_in_another_way_is_noticed(change):
    theirs, ours = pair("RNN-tanh", 7, 7)
    x = inputs(ours)
    ours(x)
    change(ours)
    theirs.load_state_dict(ours.state_dict())
    assert_close(ours(x), theirs(x))
    assert calls(ours) == (1, 1)
    assert "not all its weights are contiguous" in reason(ours)


def test_changes_of_misaligned_weights_are_noticed():
    theirs, ours = pair("GRU")
    x, weight = inputs(ours), ours.weight_hh_l0
    memory = torch.zeros(4 * weight.numel() + 1, dtype=torch.uint8)
    odd = torch.frombuffer(memory.numpy(), dtype=torch.float32, offset=1).view_as(weight)
    ours.weight_hh_l0 = torch.nn.Parameter(odd, requires_grad=False)
    before = ours(x)
    memory[1:] = torch.full_like(weight, 0.5).view(torch.uint8).flatten()  # which is a change of another tensor
    theirs.load_state_dict(ours.state_dict())
    after = ours(x)
    assert_close(after, theirs(x))
    assert not torch.equal(after[0], before[0])
    assert calls(ours) == (2, 0)


MOVED = """
import torch, fastrnn.torch
cell, x = fastrnn.torch.GRUCell(1, 1700).requires_grad_(False), torch.ones(1, 1)
before = cell(x)
for weight in cell.parameters():
    weight.share_memory_()  # as torch.multiprocessing does to what it sends; what they were in goes back to the system
assert torch.equal(cell(x), before)
"""


def test_memory_that_weights_had_before_is_not_read():
    subprocess.run([sys.executable, "-c", MOVED], check=True, timeout=120)


def test_a_change_of_one_column_is_noticed():
    # numbers that are looked at lie in many columns, though H*H is a multiple of their count
    _, ours = pair("RNN-tanh", 32, 32)
    x = inputs(ours)
    before = ours(x)
    weight = ours.weight_hh_l0.detach().numpy()
    noticed = 0
    for column in range(32):
        weight[:, column] += 1
        noticed += not torch.equal(ours(x)[0], before[0])
        before = ours(x)
    assert noticed >= 12


def test_nothing_is_packed_again_while_weights_stay():
    _, ours = pair("LSTMCell")
    ours(inputs(ours))
    held = ours.__dict__["_held"]
    ours(inputs(ours), states(ours))
    ours.eval().train()
    ours.requires_grad_(False)
    ours(inputs(ours))
    assert ours.__dict__["_held"] is held


def test_training_in_place():
    theirs, ours = pair("LSTM")
    data, x = inputs(ours, 6, 4), inputs(ours, seed=3)
    optimisers = [torch.optim.Adam(module.parameters(), lr=0.05) for module in (theirs, ours)]
    for _ in range(3):
        for module, optimiser in zip((theirs, ours), optimisers, strict=True):
            with torch.enable_grad():
                loss = module.train()(data)[0].square().mean()
                optimiser.zero_grad()
                loss.backward()
            optimiser.step()
        assert_close(ours.eval()(x), theirs.eval()(x))
    assert calls(ours) == (3, 3)
