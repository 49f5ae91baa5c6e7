"""The reference against torch and onnxruntime, against formulas written out, and against itself."""

from functools import partial

import cases
import numpy as np
import pytest

from fastrnn import reference
from fastrnn.cells import VARIANTS
from fastrnn.weights import Weights, init_weights


def backend(plan):
    return partial(reference.run, plan)


def run_case(case, dtype, lengths=None, seed=0):
    plan = cases.make_plan(case, dtype, seed)
    x, state = cases.make_inputs(case, dtype, seed)
    return plan, x, state, *cases.results(plan, backend(plan), x, state, lengths)


# Against others -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("case", [case for case in cases.CASES if cases.torch_has(case)], ids=str)
def test_equals_torch(case, dtype, ragged):
    pytest.importorskip("torch")
    for seed in range(3):
        lengths = np.maximum(1, cases.make_lengths(case, seed)) if ragged else None  # torch refuses length 0
        plan, x, state, y, final = run_case(case, dtype, lengths, seed)
        y_torch, final_torch = cases.run_torch(cases.torch_twin(plan), x, state, lengths)
        for actual, expected in zip((y, *final), (y_torch, *final_torch), strict=True):
            cases.assert_close(actual, expected, "torch", dtype)


@pytest.mark.parametrize(
    ("variant", "activation"), [("rnn", "tanh"), ("lstm", "standard"), ("lstm_proj", "standard"), ("gru", "standard")]
)
def test_stays_with_torch_over_1000_steps(variant, activation):
    pytest.importorskip("torch")
    case = cases.Case(variant, activation, 5, 16, steps=1000, batch=2)
    plan, x, state, y, final = run_case(case, np.float64)
    y_torch, final_torch = cases.run_torch(cases.torch_twin(plan), x, state)
    np.testing.assert_allclose(y, y_torch, rtol=0, atol=1e-12)
    for actual, expected in zip(final, final_torch, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def onnx_session(plan):
    """Build an ONNX model of one layer: GRU with either reset, RNN with any activation."""
    helper = pytest.importorskip("onnx").helper
    onnxruntime = pytest.importorskip("onnxruntime")
    order = [1, 0, 2] if plan.variant != "rnn" else [0]  # ONNX has z r h

    def stack(field):
        arrays = [getattr(w, field) for w in plan.weights]
        return np.stack([a.reshape(len(order), plan.hidden_size, -1)[order].reshape(a.shape) for a in arrays])

    values = {"W": stack("w_ih"), "R": stack("w_hh"), "B": np.concatenate([stack("b_ih"), stack("b_hh")], axis=1)}
    options = {"hidden_size": plan.hidden_size, "direction": ["forward", "bidirectional"][plan.num_directions - 1]}
    if plan.variant == "rnn":
        options["activations"] = [plan.activation.capitalize()] * plan.num_directions
    else:
        options["linear_before_reset"] = int(plan.variant == "gru")
    node = helper.make_node(
        plan.variant.split("_")[0].upper(), ["X", "W", "R", "B", "lengths", "h"], ["Y", "Y_h"], **options
    )
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info(*info, None) for info in (("X", 1), ("lengths", 6), ("h", 1))],
        [helper.make_tensor_value_info(name, 1, None) for name in ("Y", "Y_h")],
        [helper.make_tensor(name, 1, a.shape, a.ravel()) for name, a in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("hidden", [3, 16, 37])
@pytest.mark.parametrize(
    ("variant", "activation"), [("gru_before", "standard"), ("gru", "standard"), ("rnn", "sigmoid"), ("rnn", "relu")]
)
def test_equals_onnxruntime(variant, activation, hidden, directions):
    case = cases.Case(variant, activation, 5, hidden, 1, directions)
    lengths = np.maximum(1, cases.make_lengths(case))
    plan, x, state, y, final = run_case(case, np.float32, lengths)
    feed = {"X": x, "lengths": lengths.astype(np.int32), "h": state[0]}
    y_onnx, h_onnx = onnx_session(plan).run(None, feed)
    cases.assert_close(y, y_onnx.transpose(0, 2, 1, 3).reshape(y.shape), "onnxruntime", np.float32)
    cases.assert_close(final[0], h_onnx, "onnxruntime", np.float32)


def test_gru_reset_before_by_its_formula():
    case = cases.Case("gru_before", "standard", 3, 4)
    plan, x, state, y, _ = run_case(case, np.float64)
    (w,) = plan.weights
    u_r, u_z, u_n = w.w_ih.reshape(3, 4, 3)
    w_r, w_z, w_n = w.w_hh.reshape(3, 4, 4)
    b_r, b_z, b_n = (w.b_ih + w.b_hh).reshape(3, 4)
    for b in range(case.batch):
        h = state[0][0, b]
        for t in range(case.steps):
            r = 1 / (1 + np.exp(-(u_r @ x[t, b] + w_r @ h + b_r)))
            z = 1 / (1 + np.exp(-(u_z @ x[t, b] + w_z @ h + b_z)))
            n = np.tanh(u_n @ x[t, b] + w_n @ (r * h) + b_n)
            h = (1 - z) * n + z * h
            np.testing.assert_allclose(y[t, b], h, rtol=0, atol=1e-14)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_float32_is_close_to_float64(case):
    plan, x, state, y, final = run_case(case, np.float32)
    wide = plan.astype(np.float64)
    expected, expected_final = cases.results(
        wide, backend(wide), x.astype(np.float64), [s.astype(np.float64) for s in state]
    )
    for actual, exact in zip((y, *final), (expected, *expected_final), strict=True):
        assert actual.dtype == np.float32
        cases.assert_close(actual, exact, "float64", np.float32)


# Linear mode: small integers are exact --------------------------------------------------------------------------------


def gate_weights(variant, units, dtype, **bias):
    """Weights 0, U the identity in the gates named by True, and the constant of every other gate that is named."""
    gates = VARIANTS[variant].gates
    w_ih, b = np.zeros((len(gates), units, units), dtype), np.zeros((len(gates), units), dtype)
    for gate, value in bias.items():
        if value is True:
            w_ih[gates.index(gate)] = np.eye(units)
        else:
            b[gates.index(gate)] = value
    size = len(gates) * units
    return Weights(w_ih.reshape(size, units), np.zeros((size, units), dtype), b.reshape(-1), np.zeros(size, dtype))


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_forget_gate_of_one_sums_and_of_zero_forgets(dtype):
    rng = np.random.default_rng(0)
    x, h, c = (rng.integers(-8, 9, shape).astype(dtype) for shape in ((7, 2, 5), (2, 5), (2, 5)))
    for forget, expected in ((1, c + np.cumsum(x, axis=0)), (0, x)):
        w = gate_weights("lstm", 5, dtype, i=1, f=forget, g=True, o=1)
        y, (_, final) = reference.lstm_forward(w, x, h, c, activation="linear")
        assert cases.same_bits(y, expected.astype(dtype) + 0)
        assert cases.same_bits(final, y[-1])


@pytest.mark.parametrize("reset_after", [True, False])
def test_an_update_gate_of_one_keeps_and_of_zero_takes(reset_after):
    variant = "gru" if reset_after else "gru_before"
    rng = np.random.default_rng(0)
    x, h = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((7, 2, 5), (2, 5)))
    for update, expected in ((1, np.broadcast_to(h, x.shape)), (0, x)):
        w = gate_weights(variant, 5, np.float32, r=1, z=update, n=True)
        y, _ = reference.gru_forward(w, x, h, activation="linear", reset_after=reset_after)
        assert np.array_equal(y, expected)


def test_where_the_reset_gate_acts():
    """With r = 2, W_hn = 1, b_hn = 3: n = 2*(h + 3) after, 2*h + 3 before."""
    for reset_after, expected in ((True, 2 * (5 + 3)), (False, 2 * 5 + 3)):
        w = Weights(np.zeros((3, 1)), np.array([[0.0], [0], [1]]), np.array([2.0, 0, 0]), np.array([0.0, 0, 3]))
        y, _ = reference.gru_forward(
            w, np.zeros((1, 1, 1)), np.full((1, 1), 5.0), activation="linear", reset_after=reset_after
        )
        assert y.item() == expected


@pytest.mark.parametrize(("num_layers", "steps"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_small_integers_are_exact(variant, num_layers, steps):
    case = cases.Case(variant, "linear", 5, 17, num_layers, 2, steps=steps)
    for seed in range(5):
        found = []
        for dtype in cases.DTYPES:
            plan, (x, state) = cases.integer_plan(case, dtype, seed), cases.integer_inputs(case, dtype, seed)
            y, _ = cases.results(plan, backend(plan), x, state)
            found.append(y)
        assert 2 < np.abs(found[0]).max() < 2**24
        assert np.array_equal(*found)
        assert np.array_equal(found[0], np.rint(found[0]))


# States and lengths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_rows_chunks_and_lengths_do_not_change_bits(case, dtype):
    lengths = cases.make_lengths(case)
    plan, x, state, y, final = run_case(case, dtype, lengths)
    for row, length in enumerate(lengths):
        alone = [s[:, row : row + 1] for s in state]
        y_row, final_row = cases.results(plan, backend(plan), x[:length, row : row + 1], alone)
        assert cases.same_bits(y[:length, row : row + 1], y_row)
        assert cases.same_bits(y[length:, row], np.zeros_like(y[length:, row]))
        for all_rows, one in zip(final, final_row, strict=True):
            assert cases.same_bits(all_rows[:, row : row + 1], one)
    if case.num_directions == 1:
        chunks, held = [], state
        for begin, end in ((0, 1), (1, 1), (1, 4), (4, 6)):
            part, held = cases.results(plan, backend(plan), x[begin:end], held)
            chunks.append(part)
        whole, final = cases.results(plan, backend(plan), x, state)
        assert cases.same_bits(np.concatenate(chunks), whole)
        assert all(cases.same_bits(a, b) for a, b in zip(held, final, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_to_do_passes_the_state_through(variant):
    case = cases.Case(variant, VARIANTS[variant].activations[0], 5, 3, 2, 2)
    plan = cases.make_plan(case, np.float32)
    x, state = cases.make_inputs(case, np.float32)
    state[0][:] = 1e-30  # a given state is not flushed
    for inputs, lengths in ((x[:0], None), (x, np.zeros(3, np.int64)), (x[:0], np.zeros(3, np.int64))):
        y, final = cases.results(plan, backend(plan), inputs, state, lengths)
        assert y.shape == (len(inputs), 3, plan.output_size)
        assert not y.any()
        assert all(cases.same_bits(a, b) for a, b in zip(final, state, strict=True))
    y, final = cases.results(plan, backend(plan), x[:, :0], [s[:, :0] for s in state], np.zeros(0, np.int64))
    assert y.shape == (6, 0, plan.output_size)


def test_a_backward_pass_is_a_forward_pass_over_flipped_time():
    (w,) = init_weights(cases.Case("gru", "standard", 5, 3).sizes, np.float64)
    x, (h,) = cases.make_inputs(cases.Case("gru", "standard", 5, 3), np.float64)
    y, last = reference.gru_forward(w, x[::-1], h[0])
    y_back, last_back = reference.gru_forward(w, x, h[0], reverse=True)
    assert cases.same_bits(y_back, y[::-1])
    assert cases.same_bits(last_back, last)


@pytest.mark.parametrize("case", cases.CASES[:: len(cases.CASES) // 12], ids=str)
def test_inputs_are_neither_written_nor_aliased(case):
    plan = cases.make_plan(case, np.float32)
    x, state = cases.make_inputs(case, np.float32)
    y, final = cases.results(plan, backend(plan), x, state)
    strided = np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2)
    wide = np.full((case.steps, 2 * case.batch, plan.output_size + 3), np.nan, np.float32)
    into = wide[:, ::2, :-3]
    for array in (strided, *state):
        array.flags.writeable = False
    reference.run(plan, strided, state, None, into, final_again := tuple(np.empty_like(s) for s in final))
    assert cases.same_bits(into, y)
    assert np.isnan(wide[:, 1::2]).all()
    assert np.isnan(wide[..., -3:]).all()
    assert all(cases.same_bits(a, b) for a, b in zip(final_again, final, strict=True))
    assert not any(np.shares_memory(a, b) for a in (y, *final) for b in (x, *state))


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_sigmoid_is_stable(dtype):
    tiny = np.finfo(dtype).tiny
    x = np.array([-np.inf, -1e4, -30, -tiny, -0.0, 0, tiny, 30, 1e4, np.inf, np.nan], dtype)
    result = reference.sigmoid(x)
    assert result.dtype == dtype
    assert cases.same_bits(result[[0, 4, 5, 9]], np.array([0, 0.5, 0.5, 1], dtype))
    assert np.isnan(result[-1])
    assert (np.diff(result[:-1]) >= 0).all()
    np.testing.assert_allclose(result[2], np.exp(-30.0), rtol=1e-6)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_flush(dtype):
    limit = dtype(2.0**-62 if dtype == np.float32 else 2.0**-510)
    below = np.nextafter(limit, dtype(0))
    flushed = reference.flush(np.array([limit, -limit, below, -below, -0.0, np.nan, -np.inf, 1], dtype))
    assert cases.same_bits(flushed, np.array([limit, -limit, 0, 0, 0, np.nan, -np.inf, 1], dtype))


def test_tiny_states_that_a_step_produces_are_zero():
    w = gate_weights("lstm", 1, np.float32, i=0, f=0.5, g=0, o=1)
    c = np.array([[2.0**-60]], np.float32)
    x = np.zeros((4, 1, 1), np.float32)
    y, (h, c) = reference.lstm_forward(w, x, np.zeros_like(c), c, activation="linear")
    assert y.ravel().tolist() == [2.0**-61, 2.0**-62, 0, 0]
    assert h == 0
    assert c == 0


def test_what_a_projection_takes_is_not_flushed_but_its_result_is():
    w = gate_weights("lstm", 1, np.float32, i=1, f=0, g=1, o=2.0**-100)
    for weight, expected in ((2.0**90, 2.0**-10), (2.0**30, 0)):
        w = w._replace(w_hr=np.array([[weight]], np.float32))
        y, _ = reference.lstm_forward(
            w, np.zeros((1, 1, 1), np.float32), *np.zeros((2, 1, 1), np.float32), activation="linear"
        )
        assert y.item() == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_not_finite_stays_in_its_row_and_warns_of_nothing(variant):
    case = cases.Case(variant, VARIANTS[variant].activations[0], 5, 17)
    plan, x, state, y, _ = run_case(case, np.float32)
    bad = x.copy()
    bad[2, 0, 1], bad[2, 1, 1] = np.nan, np.inf
    y_bad, _ = cases.results(plan, backend(plan), bad, state)
    assert cases.same_bits(y_bad[:, 2], y[:, 2])
    assert cases.same_bits(y_bad[:2], y[:2])
    assert np.isnan(y_bad[2:, 0]).all()


# Trace ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_trace(variant):
    case = cases.Case(variant, VARIANTS[variant].activations[0], 5, 3, 2, 2, batch=1)
    plan, x, state, y, final = run_case(case, np.float64)
    traces = reference.trace(plan, x[:, 0], [s[:, 0] for s in state])
    assert len(traces) == 4
    for index, trace in enumerate(traces):
        assert set(trace) == {*VARIANTS[variant].gates, *VARIANTS[variant].states}
        last = 0 if index % 2 else -1
        for name, s in zip(VARIANTS[variant].states, final, strict=True):
            assert cases.same_bits(trace[name][last], s[index, 0])
        if variant.startswith("lstm"):
            before = np.concatenate([state[1][index], trace["c"]] if last else [trace["c"], state[1][index]])
            held = before[:-1] if last else before[1:]
            np.testing.assert_allclose(trace["c"], trace["f"] * held + trace["i"] * trace["g"], rtol=1e-14)
    assert cases.same_bits(np.concatenate([traces[2]["h"], traces[3]["h"]], axis=1), y[:, 0])
    empty = reference.trace(plan, x[:0, 0], [s[:, 0] for s in state])
    assert {name: a.shape for name, a in empty[0].items()} == {name: (0, a.shape[1]) for name, a in traces[0].items()}
