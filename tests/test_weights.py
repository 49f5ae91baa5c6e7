"""Names, shapes and messages of logical weights; plans."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import cases
import numpy as np
import pytest

import fastrnn
from fastrnn import dense, packing
from fastrnn.packing import pack
from fastrnn.weights import (
    Sizes,
    Weights,
    bare_names,
    check_arrays,
    check_tensors,
    expected_shapes,
    fold_biases,
    init_weights,
    sizes_from_state_dict,
    state_dict,
)

TORCH_CASES = [case for case in cases.CASES if cases.torch_has(case)]


def tensors_of(sizes: Sizes) -> dict[str, np.ndarray]:
    return state_dict(init_weights(sizes, np.float32), sizes)


def equal(a: Weights, b: Weights) -> bool:
    return all((x is None) == (y is None) and (x is None or cases.same_bits(x, y)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("case", TORCH_CASES, ids=str)
def test_names_and_shapes_are_torchs(case):
    pytest.importorskip("torch")
    module = cases.torch_twin(cases.make_plan(case, np.float32))
    assert {name: tuple(t.shape) for name, t in module.state_dict().items()} == expected_shapes(case.sizes)
    assert list(module.state_dict()) == list(expected_shapes(case.sizes))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_names_of_cells_are_torchs(kind):
    torch = pytest.importorskip("torch")
    tensors = getattr(torch.nn, kind + "Cell")(3, 4).state_dict()
    sizes = Sizes(kind.lower(), 3, 4, cell=True)
    assert list(tensors) == list(expected_shapes(sizes))
    assert sizes_from_state_dict(tensors) == sizes
    (w,) = check_tensors(tensors, sizes, np.float32)
    assert cases.same_bits(w.w_hh, tensors["weight_hh"].numpy())


@pytest.mark.parametrize("case", cases.CASES, ids=str)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.encoder.rnn."])
def test_state_dict_round_trip(case, prefix):
    weights = init_weights(case.sizes, np.float32, seed=3)
    tensors = {prefix + name: t for name, t in state_dict(weights, case.sizes).items()}
    again = check_tensors(tensors, case.sizes, np.float32)
    assert all(equal(a, b) for a, b in zip(again, weights, strict=True))
    read = "gru" if case.variant == "gru_before" else case.variant
    assert sizes_from_state_dict(tensors) == case.sizes._replace(variant=read)


def test_only_keys_under_the_prefix_count():
    sizes = Sizes("lstm", 3, 4)
    tensors = {"encoder." + name: t for name, t in tensors_of(sizes).items()}
    both = tensors | {"decoder." + name: t for name, t in tensors_of(Sizes("gru", 5, 6)).items()}
    assert sizes_from_state_dict(both, "encoder.") == sizes
    assert len(check_tensors(both, sizes, np.float32, "encoder.")) == 1
    assert list(bare_names(both, "encoder")) == list(expected_shapes(sizes))
    with pytest.raises(ValueError, match=r"several recurrent modules: pass prefix= one of 'decoder\.', 'encoder\.'"):
        sizes_from_state_dict(both)
    with pytest.raises(ValueError, match=r"unknown keys 'head\.weight': to leave them out pass prefix='encoder\.'"):
        check_tensors(tensors | {"head.weight": np.zeros(3)}, sizes, np.float32)
    with pytest.raises(ValueError, match=r"no key starts with prefix 'lstm\.'; .* under: 'encoder\.'"):
        check_tensors(tensors, sizes, np.float32, "lstm.")


def test_all_problems_are_named_at_once():
    sizes = Sizes("lstm", 3, 4, num_layers=2)
    tensors = tensors_of(sizes)
    del tensors["bias_ih_l0"], tensors["weight_hh_l1"]
    tensors["extra"] = tensors["weight_ih_l9"] = np.zeros(2)
    tensors["weight_ih_l0"] = tensors["weight_ih_l0"].T
    tensors["bias_hh_l1"] = np.zeros(15)
    with pytest.raises(ValueError, match="do not fit") as error:
        check_tensors(tensors, sizes, np.float32)
    assert str(error.value) == (
        "the weights do not fit LSTM(3, 4, num_layers=2): missing 'bias_ih_l0', 'weight_hh_l1'; "
        "unknown 'extra', 'weight_ih_l9'; "
        "weight_ih_l0 is (3, 16), expected (4*H, I) = (16, 3): pass weight_ih_l0.T; "
        "bias_hh_l1 is (15,), expected (4*H,) = (16,)"
    )


@pytest.mark.parametrize(
    ("have", "want", "cure"),
    [
        (Sizes("gru", 3, 4), Sizes("gru", 3, 4, bias=False), "pass bias=True"),
        (Sizes("gru", 3, 4, bias=False), Sizes("gru", 3, 4), "pass bias=False"),
        (Sizes("gru", 3, 4, num_directions=2), Sizes("gru", 3, 4), "pass bidirectional=True"),
        (Sizes("lstm_proj", 3, 4, 2), Sizes("lstm", 3, 4), "pass proj_size="),
    ],
)
def test_the_likely_cure_is_named(have, want, cure):
    with pytest.raises(ValueError, match=cure):
        check_tensors(tensors_of(have), want, np.float32)


@pytest.mark.parametrize("suffix", ["weight_hh_l0_v", "parametrizations.weight_hh_l0.original0"])
def test_weights_in_parts_are_told(suffix):
    sizes = Sizes("lstm", 3, 4)
    tensors = tensors_of(sizes)
    tensors["lstm." + suffix] = tensors.pop("weight_hh_l0")
    tensors = {name if name.startswith("lstm.") else "lstm." + name: t for name, t in tensors.items()}
    for attempt in (lambda: check_tensors(tensors, sizes, np.float32), lambda: sizes_from_state_dict(tensors)):
        with pytest.raises(ValueError, match="remove the parametrization before saving"):
            attempt()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "'weight_ih_l0', 'weight_hh_l0' missing"),
        ({"head.weight": np.zeros((2, 2))}, r"no recurrent layer's weights among 'head\.weight'"),
        ({"weight_ih_l0": np.zeros((8, 3)), "weight_hh_l0": np.zeros((8, 4))}, r"\(8, 4\): expected \(G\*H, H\)"),
        ({"weight_ih_l0": np.zeros((16, 3)), "weight_hh_l0": np.zeros((4, 16))}, r"pass weight_hh_l0\.T"),
        ({"weight_ih_l0": np.zeros(8), "weight_hh_l0": np.zeros((8, 4))}, "'weight_ih_l0' missing or no matrix"),
        ({"weight_ih_l0": np.zeros((0, 3)), "weight_hh_l0": np.zeros((0, 0))}, r"expected \(G\*H, H\)"),
    ],
)
def test_what_is_no_layer_is_refused(tensors, message):
    with pytest.raises(ValueError, match=message):
        sizes_from_state_dict(tensors)


def test_a_far_layer_number_costs_nothing():
    tensors = tensors_of(Sizes("gru", 3, 4))
    tensors["weight_ih_l999999999999"] = tensors["weight_ih_l0"]
    sizes = sizes_from_state_dict(tensors)
    with pytest.raises(ValueError, match="unknown 'weight_ih_l999999999999'"):
        check_tensors(tensors, sizes, np.float32)


def test_arrays_become_one_layer():
    rng = np.random.default_rng(0)
    u, w, b = rng.normal(size=(16, 3)), rng.normal(size=(16, 4)), rng.normal(size=16)
    assert check_arrays("lstm", u, w)[0] == Sizes("lstm", 3, 4, bias=False)
    sizes, weights = check_arrays("lstm", u, w, b, dtype=np.float64)
    assert sizes == Sizes("lstm", 3, 4)
    assert equal(weights, Weights(u, w, b))
    assert cases.same_bits(state_dict([weights], sizes)["bias_hh_l0"], np.zeros(16))


@pytest.mark.parametrize(
    ("variant", "shapes", "message"),
    [
        ("rnn", [(3, 4), (4, 4)], r"^U is \(3, 4\), expected \(H, I\) = \(4, 3\): pass U\.T$"),
        ("lstm", [(16, 3), (4, 16)], r"^W is \(4, 16\), expected \(4\*H, H\) = \(16, 4\): pass W\.T$"),
        ("gru", [(3, 12), (4, 12)], r"U is \(3, 12\).*pass U\.T; W is \(4, 12\).*pass W\.T"),
        ("gru", [(12, 3), (12, 4), (4,)], r"^b_ih is \(4,\), expected \(3\*H,\) = \(12,\)$"),
        ("rnn", [(4,), (4, 4)], r"U must be a matrix, got shape \(4,\)"),
    ],
)
def test_swapped_axes_are_told(variant, shapes, message):
    with pytest.raises(ValueError, match=message):
        check_arrays(variant, *map(np.zeros, shapes))


def test_recurrent_weights_are_needed():
    for name in ("RNN", "LSTM", "GRU"):
        with pytest.raises(TypeError, match=r"w_hh must be a matrix \(G\*H, H\), got None: own cells alone have none"):
            getattr(fastrnn, name).from_weights(np.ones((12, 3)), None)


def test_only_real_numbers_are_weights():
    with pytest.raises(TypeError, match="W must hold floats"):
        check_arrays("rnn", np.zeros((2, 2)), np.zeros((2, 2), complex))
    sizes = Sizes("rnn", 2, 2)
    with pytest.raises(TypeError, match="bias_hh_l0 must hold"):
        check_tensors(tensors_of(sizes) | {"bias_hh_l0": np.array([None, None])}, sizes, np.float32)


def test_weights_are_copied():
    sizes = Sizes("gru", 3, 4)
    tensors = {name: np.asfortranarray(t.astype(">f8")) for name, t in tensors_of(sizes).items()}
    (w,) = check_tensors(tensors, sizes, np.float64)
    for array, tensor in zip(w[:4], tensors.values(), strict=True):
        assert not np.shares_memory(array, tensor)
        assert array.flags.c_contiguous
        assert not array.flags.writeable
        assert array.dtype.isnative
        np.testing.assert_array_equal(array, tensor)


def test_init_draws_the_same_numbers_in_both_dtypes():
    sizes = Sizes("lstm", 3, 25)
    (w,), (w64,) = init_weights(sizes, np.float32, 5), init_weights(sizes, np.float64, 5)
    assert equal(w, w64.astype(np.float32))
    assert 0.19 < np.abs(w.w_hh).max() <= 0.2
    assert not equal(w, init_weights(sizes, np.float32, 6)[0])


def test_fold_biases():
    zeros, b_ih, b_hh = np.zeros((3, 1)), np.arange(3.0), 10 * np.arange(3.0)
    for given, b, b_h in [
        ((b_ih, b_hh), [0, 11, 2], 20),
        ((None, b_hh), [0, 10, 0], 20),
        ((b_ih, None), [0, 1, 2], 0),
        ((None, None), [0, 0, 0], 0),
    ]:
        folded = fold_biases("gru", Weights(zeros, zeros, *given))
        assert folded[0].tolist() == b
        assert folded[1].tolist() == [b_h]
    assert fold_biases("gru_before", Weights(zeros, zeros, b_ih, b_hh))[1] is None
    assert b_ih.tolist() == [0, 1, 2]


def test_plans_pickle_without_what_they_packed():
    case = cases.Case("lstm_proj", "standard", 5, 17, 2, 2)
    plan = cases.make_plan(case, np.float32)
    size = len(pickle.dumps(plan))
    assert plan.packed is plan.packed
    assert len(plan.packed) == 4
    assert cases.same_bits(plan.packed[3][1].w_h, pack("lstm_proj", plan.weights[3], np.float32)[1].w_h)
    assert len(pickle.dumps(plan)) == size
    for twin in (pickle.loads(pickle.dumps(plan)), copy.copy(plan), copy.deepcopy(plan)):
        assert "packed" not in twin.__dict__
        assert all(equal(a, b) for a, b in zip(twin.weights, plan.weights, strict=True))
    assert plan.state_sizes == (case.proj_size, 17)
    assert plan.output_size == 2 * case.proj_size
    assert plan.astype(np.float64).weights[0].w_ih.dtype == np.float64


@pytest.mark.parametrize("kind", ["layer", "dense"])
def test_threads_that_pack_at_once_get_the_same_arrays(kind, monkeypatch):
    """Engines hold addresses into what they were given, and plans alone keep it."""
    name = {"layer": "pack", "dense": "pack_dense"}[kind]
    together, real = Barrier(2), getattr(packing, name)

    def slow(*arguments):
        together.wait(timeout=60)
        return real(*arguments)

    monkeypatch.setattr(dense if kind == "dense" else packing, name, slow)
    output = dense.DensePlan(np.ones((3, 4), np.float32), None, "linear")
    plan = output if kind == "dense" else cases.make_plan(cases.Case("gru", "standard", 5, 17), np.float32)
    with ThreadPoolExecutor(2) as pool:
        first, second = [pool.submit(lambda: plan.packed) for _ in range(2)]
        assert first.result() is second.result() is plan.packed
