"""Numbers that no memory or no float holds: an error that names the argument, or the same as without a limit."""

import sys
from functools import partial

import numpy as np
import pytest

import fastrnn

HUGE = (2**63, 10**30)
WORD, COUNT = f"{sys.maxsize}", f"{2**40}"


def make():
    """A model that writes."""
    head = np.random.default_rng(0).normal(size=(8, 5))
    return fastrnn.SequenceModel(fastrnn.GRU(8, 5).init(seed=0), embedding="one_hot", head=(head,))


def translator():
    encoder = fastrnn.SequenceModel(fastrnn.GRU(8, 5).init(seed=1), embedding="one_hot")
    return fastrnn.Seq2Seq(encoder, make(), start=0, stop=1)


def vectors():
    return fastrnn.SequenceModel(fastrnn.RNN(2, 3).init(seed=0))


CALLS = {
    "max_tokens": (lambda v: make().generate([1], v), f"max_tokens must be an int in 0..{WORD}"),
    "max_tokens of pieces": (lambda v: make().generate_iter([1], v), f"max_tokens must be an int in 0..{WORD}"),
    "max_tokens of Seq2Seq": (lambda v: translator().generate([1], v), f"max_tokens must be an int in 0..{WORD}"),
    "beam": (lambda v: translator().generate([1], 3, beam=v), f"beam must be an int in 1..{COUNT}"),
    "n": (lambda v: make().generate([1], 3, n=v), f"n must be an int in 1..{COUNT}"),
    "lookahead": (lambda v: make().predict_iter([[1]], lookahead=v), f"lookahead must be an int in 1..{WORD}"),
    "steps": (lambda v: vectors().unroll(np.ones(2), v), f"steps must be an int in 0..{COUNT}"),
    "batch_size": (lambda v: vectors().stream(v), f"batch_size must be an int in 0..{COUNT}"),
    "batch_size of a layer": (lambda v: fastrnn.GRU(2, 3).init().stream(v), f"batch_size must be an int in 0..{COUNT}"),
    "hidden_size": (lambda v: fastrnn.GRU(2, v), f"hidden_size must be an int in 1..{COUNT}"),
    "num_layers": (lambda v: fastrnn.GRU(2, 3, v), f"num_layers must be an int in 1..{COUNT}"),
    "num_threads": (lambda v: fastrnn.GRU(2, 3, num_threads=v), "num_threads must be an int in 1..2147483647"),
    "set_num_threads": (fastrnn.set_num_threads, "n must be an int in 1..2147483647"),
    "stop": (lambda v: make().generate([1], 3, stop=v), "stop must be in 0..7"),
}


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("name", CALLS)
def test_counts_that_nothing_holds(name, value, backend):
    call, message = CALLS[name]
    with pytest.raises(ValueError, match=f"{message}, got {value}"):
        call(value)


@pytest.mark.parametrize(
    ("name", "accepted"), [("temperature", "finite number"), ("top_p", "number"), ("length_penalty", "number")]
)
def test_numbers_that_no_float_holds(name, accepted):
    with pytest.raises(ValueError, match=f"{name} must be a {accepted} .*, got 1000"):
        translator().generate([1], 3, **{name: 10**400})


def test_without_a_stop_all_tokens_must_fit():
    with pytest.raises(ValueError, match=f"max_tokens must be an int in 0..{COUNT}, got {sys.maxsize}"):
        make().generate([1], sys.maxsize)


@pytest.mark.parametrize("value", HUGE)
def test_a_top_k_above_the_tokens_means_all(value, backend):
    write = partial(make().generate, [1], 20, seed=3)
    assert np.array_equal(write(top_k=value), write())
    read = partial(translator().generate, [1], 20, temperature=1.0, seed=3)
    assert np.array_equal(read(top_k=value), read())


def test_a_limit_may_be_as_large_as_a_word(backend):
    model, stop = make(), [2, 5]
    for most in (10**9, sys.maxsize):
        assert np.array_equal(model.generate([1], most, stop=stop, seed=0), model.generate([1], 500, stop=stop, seed=0))
        assert next(model.generate_iter([1], most, seed=0)) == model.generate([1], 1, seed=0)[0]
    (y,) = model.predict_iter([[1, 2]], lookahead=sys.maxsize)
    assert np.array_equal(y, model.predict([1, 2]))


@pytest.mark.parametrize("never", [None, 3])
def test_a_temperature_that_the_dtype_rounds_to_infinity(backend, never):
    """A token whose logit is -inf has no probability at any temperature."""
    bias = np.zeros(8)
    if never is not None:
        bias[never] = -np.inf
    model = fastrnn.SequenceModel(make().layers, embedding="one_hot", head=(make().head[0].plan.weight, bias))
    hot = model.generate([1], 99, seed=0, temperature=1e300)
    assert np.array_equal(hot, model.generate([1], 99, seed=0, temperature=1e30))
    assert set(hot.tolist()) == set(range(8)) - {never}


def test_seeds_have_no_end(backend):
    model = make()
    assert np.array_equal(model.generate([1], 9, seed=2**64 + 5), model.generate([1], 9, seed=5))
    fastrnn.GRU(2, 3).init(seed=10**30)
