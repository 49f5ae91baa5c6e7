"""What streams of models refuse, before anything changes."""

import numpy as np
import pytest
from layer_cases import arrays, equal
from model_cases import beginning, characters, forward, intents

import fastrnn

MESSAGES = [
    (lambda s: s.step([1, 2]), ValueError, r"x is \(2,\), expected \(N,\) = \(3,\)"),
    (lambda s: s.step([1.0, 2.0, 3.0]), ValueError, r"x is \(3,\), expected \(N, I\) = .*: ids must be integers"),
    (lambda s: s.step(1), ValueError, r"x is \(\), expected \(N,\) = \(3,\)"),
    (lambda s: s.step([[1], [2], [3]]), ValueError, r"x is \(3, 1\).*: step takes one time step, push takes many"),
    (lambda s: s.step([1, 2, 19]), ValueError, r"x must hold ids in 0\.\.18, got 19 at \(2,\)"),
    (lambda s: s.step([True] * 3), TypeError, r"got bools"),
    (lambda s: s.step(np.zeros((3, 18))), ValueError, r"x is \(3, 18\), expected \(N, I\) = \(3, 19\)"),
    (lambda s: s.step([1, 2], rows=[0, 0]), ValueError, r"rows must be distinct, got 0"),
    (lambda s: s.step([1, 2], rows=[0, 3]), ValueError, r"rows must lie in 0\.\.N-1 = 0\.\.2, got 3"),
    (lambda s: s.step([1], rows=[0, 2]), ValueError, r"x is \(1,\), expected \(n,\) = \(2,\)"),
    (lambda s: s.step([1, 2, 3], out=np.zeros((3, 19))), ValueError, r"out has dtype float64, expected float32"),
    (lambda s: s.push([1, 2, 3]), ValueError, r"x is \(3,\), expected \(N, T\).*: push takes many time steps"),
    (lambda s: s.push(np.zeros((3, 2), int), lengths=[1, 2, 3]), ValueError, r"lengths must lie in 0\.\.T = 0\.\.2"),
    (lambda s: s.push(np.zeros((2, 2), int), rows=[0, 2], lengths=[1]), ValueError, r"expected \(n,\) = \(2,\)"),
    (lambda s: s.set_state([]), ValueError, r"state must be a list with one hx for each recurrent layer, 1 in all"),
    (lambda s: s.set_state([np.zeros((2, 3, 17))]), TypeError, r"state\[0\] must be a pair \(h, c\), got ndarray"),
    (lambda s: s.get_state(rows=[9]), ValueError, r"rows must lie in"),
    (lambda s: s.reset(rows=[9]), ValueError, r"rows must lie in"),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES, ids=[message[:50] for *_, message in MESSAGES])
def test_messages_come_before_anything_changes(call, error, message):
    stream = characters().stream(3)
    stream.push([[1, 2], [3, 4], [5, 6]])
    before = stream.get_state()
    with pytest.raises(error, match=message):
        call(stream)
    assert equal(stream.get_state(), before)


def test_all_states_are_checked_before_one_is_set():
    model = forward()
    stream, state = model.stream(3), beginning(model)
    with pytest.raises(ValueError, match=r"h of state\[1\] is"):
        stream.set_state([state[0], tuple(s[:1] for s in state[1])])
    assert not any(s.any() for s in arrays(stream.get_state()))


def test_one_id_in_a_list():
    with pytest.raises(ValueError, match=r"x is \(1,\), expected \(\) = \(\): pass x\[0\]"):
        characters().stream().step([1])


def test_models_without_a_stream():
    with pytest.raises(fastrnn.UnsupportedError, match="a stream goes forward only, and LSTM"):
        intents().stream()
    with pytest.raises(ValueError, match="batch_size must be an int >= 0, got -1"):
        characters().stream(-1)
    with pytest.raises(ValueError, match=r"h of state\[0\] is \(2, 1, 17\), expected \(L, N, H\) = \(2, 4, 17\)"):
        characters().stream(4, state=[(np.zeros((2, 1, 17)), np.zeros((2, 4, 17)))])
    with pytest.raises(ValueError, match="has no weights"):
        fastrnn.SequenceModel(fastrnn.GRU(2, 3)).stream()
