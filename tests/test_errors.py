"""Every error names the argument, what is accepted, what came, and the cure."""

import subprocess
import sys

import numpy as np
import pytest
from layer_cases import make

import fastrnn

GRU, LSTM, RNN = fastrnn.GRU, fastrnn.LSTM, fastrnn.RNN


def f(*shape):
    return np.zeros(shape, np.float32)


CONSTRUCTORS = [
    (lambda: GRU(0, 4), ValueError, r"input_size must be an int >= 1, got 0"),
    (lambda: GRU(3, -1), ValueError, r"hidden_size must be an int >= 1, got -1"),
    (lambda: GRU(3.0, 4), TypeError, r"input_size must be an int >= 1, got 3\.0"),
    (lambda: GRU("3", 4), TypeError, r"input_size must be an int >= 1, got '3'"),
    (lambda: GRU(3, None), TypeError, r"hidden_size must be an int >= 1, got None"),
    (lambda: GRU(True, 4), TypeError, r"input_size must be an int >= 1, got True"),
    (lambda: GRU(3, 4, 0), ValueError, r"num_layers must be an int >= 1, got 0"),
    (lambda: LSTM(3, 4, 1, "tanh"), TypeError, r"bias must be True or False, got 'tanh'"),
    (lambda: LSTM(3, 4, bias=1), TypeError, r"bias must be True or False, got 1"),
    (lambda: LSTM(3, 4, batch_first=None), TypeError, r"batch_first must be True or False, got None"),
    (lambda: LSTM(3, 4, bidirectional=0), TypeError, r"bidirectional must be True or False, got 0"),
    (lambda: LSTM(3, 4, dropout=1.5), ValueError, r"dropout must be a number in \[0, 1\], got 1\.5"),
    (lambda: LSTM(3, 4, dropout=True), TypeError, r"dropout must be a number in \[0, 1\], got True"),
    (lambda: LSTM(3, 4, dropout=float("nan")), ValueError, r"dropout must be a number in \[0, 1\], got nan"),
    (lambda: LSTM(3, 4, proj_size=4), ValueError, r"proj_size must be less than hidden_size = 4, got 4"),
    (lambda: LSTM(3, 4, proj_size=-1), ValueError, r"proj_size must be an int >= 0, got -1"),
    (lambda: RNN(3, 4, nonlinearity="elu"), ValueError, r"nonlinearity must be one of 'tanh', 'relu', .*got 'elu'"),
    (lambda: RNN(3, 4, 1, True), TypeError, r"nonlinearity must be one of 'tanh', .*got True"),
    (lambda: GRU(3, 4, reset_after=1), TypeError, r"reset_after must be True or False, got 1"),
    (lambda: GRU(3, 4, dtype="float16"), fastrnn.UnsupportedError, r"dtype must be float32 .*got float16: .*cast"),
    (lambda: GRU(3, 4, dtype="bfloat16"), fastrnn.UnsupportedError, r"dtype must be float32 .*got bfloat16"),
    (lambda: GRU(3, 4, dtype=">f4"), ValueError, r"dtype must be float32 \(None\) or float64, got >f4"),
    (lambda: GRU(3, 4, dtype=int), ValueError, r"dtype must be float32 \(None\) or float64, got int64"),
    (lambda: GRU(3, 4, dtype="single-ish"), ValueError, r"dtype must be float32 \(None\) or float64, got single-ish"),
    (lambda: GRU(3, 4, dtype=3), TypeError, r"dtype must be float32 \(None\) or float64, got 3"),
    (lambda: GRU(3, 4, device="cuda"), fastrnn.UnsupportedError, r"device must be None or 'cpu', got 'cuda'"),
    (lambda: GRU(3, 4, num_threads=0), ValueError, r"num_threads must be an int >= 1, got 0"),
    (lambda: GRU(3, 4, num_threads=10**20), ValueError, r"num_threads must be an int in 1\.\.2147483647, got 100000"),
    (lambda: GRU(3, 4, num_threads=2**31), ValueError, r"num_threads must be an int in 1\.\.2147483647, got 2147"),
    (lambda: GRU(3, 4, num_threads=1.5), TypeError, r"num_threads must be an int >= 1, got 1\.5"),
    (lambda: GRU(3, 4, backend="cuda"), ValueError, r"backend must be one of 'cython', 'numba', 'reference', got"),
    (lambda: GRU(3, 4, backend=1), TypeError, r"backend must be one of 'cython', 'numba', 'reference', got 1"),
    (lambda: fastrnn.RNNCell(3, 4, nonlinearity="elu"), ValueError, r"nonlinearity must be one of"),
    (lambda: fastrnn.LSTMCell(3, 4, 2), TypeError, r"bias must be True or False, got 2"),
    (lambda: fastrnn.GRUCell(3, 0), ValueError, r"hidden_size must be an int >= 1, got 0"),
    (lambda: fastrnn.use_backend("cuda"), ValueError, r"backend must be one of 'cython', 'numba', 'reference'"),
    (lambda: fastrnn.use_backend(3), TypeError, r"backend must be one of .*got 3"),
]


def gru(**config):
    return make("gru", 3, 4, **config)


def lstm(**config):
    return make("lstm", 3, 4, **config)


CALLS = [
    # x (T, B, I) = (., ., 3)
    (
        lambda: gru()(f(5, 2, 4)),
        ValueError,
        r"x is \(5, 2, 4\), expected \(T, B, I\) = \(T, B, 3\) or \(T, I\) = \(T, 3\)",
    ),
    (lambda: gru(batch_first=True)(f(5, 2, 4)), ValueError, r"x is \(5, 2, 4\), expected \(B, T, I\) = \(B, T, 3\) or"),
    (lambda: gru()(f(5, 3, 2)), ValueError, r": pass np\.moveaxis\(x, 1, -1\)$"),
    (lambda: gru()(f(3, 5, 2)), ValueError, r": pass np\.moveaxis\(x, 0, -1\)$"),
    (lambda: gru()(f(3, 5)), ValueError, r"x is \(3, 5\).*: pass x\.T$"),
    (lambda: gru()(f(3)), ValueError, r"x is \(3,\).*: one step is x\[None\]$"),
    (lambda: gru()(f(2, 2, 2, 3)), ValueError, r"x is \(2, 2, 2, 3\), expected"),
    (lambda: gru()(1.0), ValueError, r"x is \(\), expected"),
    (lambda: make("gru", 1, 4)(f(5, 2)), ValueError, r": pass x\[\.\.\., None\]$"),
    (lambda: gru()("text"), TypeError, r"x must hold floats, integers or bools, got dtype <U4: pass numbers"),
    (lambda: gru()(None), TypeError, r"x must hold floats, integers or bools, got dtype object: pass numbers"),
    (lambda: gru()(f(5, 2, 3) * 1j), TypeError, r"x must hold .*got dtype complex64: pass the real part"),
    (lambda: gru()([[1, 2, 3], [1, 2]]), ValueError, r"x must be an array of real numbers: .*inhomogeneous"),
    (lambda: gru()(f(5, 2, 3).astype("M8[s]")), TypeError, r"x must hold .*got dtype datetime64"),
    (lambda: gru()(np.ma.masked_array(f(5, 2, 3))), TypeError, r"x is a masked array.*pass x\.filled\(value\)"),
    # hx (L*D, B, H) = (1, 2, 4)
    (lambda: gru()(f(5, 2, 3), f(1, 3, 4)), ValueError, r"hx is \(1, 3, 4\), expected \(L\*D, B, H\) = \(1, 2, 4\)$"),
    (lambda: gru()(f(5, 2, 3), f(2, 1, 4)), ValueError, r"never batch first, pass h\.transpose\(1, 0, 2\)"),
    (lambda: gru()(f(5, 2, 3), f(1, 4)), ValueError, r"pass np\.repeat\(h\[:, None\], 2, axis=1\)"),
    (lambda: gru()(f(5, 3), f(1, 1, 4)), ValueError, r"hx is \(1, 1, 4\), expected \(L\*D, H\) = \(1, 4\).*h\[:, 0\]"),
    (lambda: gru()(f(5, 3), f(4, 1)), ValueError, r"hx is \(4, 1\), expected .*pass h\.T"),
    (lambda: gru()(f(5, 2, 3), (f(1, 2, 4),) * 2), TypeError, r"hx must be one array h, got a tuple: .*for LSTM"),
    (lambda: lstm()(f(5, 2, 3), f(1, 2, 4)), TypeError, r"hx must be a pair \(h, c\), got ndarray"),
    (lambda: lstm()(f(5, 2, 3), (f(1, 2, 4),)), ValueError, r"hx must be a pair \(h, c\), got 1 elements"),
    (lambda: lstm()(f(5, 2, 3), (f(1, 2, 4), f(1, 2, 3))), ValueError, r"c of hx is \(1, 2, 3\), expected"),
    (
        lambda: make("lstm_proj", 3, 4)(f(5, 2, 3), (f(1, 2, 4), f(1, 2, 4))),
        ValueError,
        r"h of hx is \(1, 2, 4\), expected \(L\*D, B, P\) = \(1, 2, 3\)",
    ),
    # lengths
    (lambda: gru()(f(5, 2, 3), lengths=[5]), ValueError, r"lengths is \(1,\), expected \(B,\) = \(2,\)"),
    (lambda: gru()(f(5, 2, 3), lengths=5), ValueError, r"lengths is \(\), expected \(B,\) = \(2,\)"),
    (lambda: gru()(f(5, 2, 3), lengths=[5, 6]), ValueError, r"lengths must lie in 0\.\.T = 0\.\.5, got 6"),
    (lambda: gru()(f(5, 2, 3), lengths=[-1, 5]), ValueError, r"lengths must lie in 0\.\.T = 0\.\.5, got -1"),
    (lambda: gru()(f(5, 2, 3), lengths=np.array([0, 2**64 - 1], "u8")), ValueError, r"got 18446744073709551615"),
    (lambda: gru()(f(5, 2, 3), lengths=[1.0, 2.0]), TypeError, r"lengths must be integers, got dtype float64"),
    (lambda: gru()(f(5, 2, 3), lengths="ab"), TypeError, r"lengths must be integers, got dtype <U2"),
    (lambda: gru()(f(5, 2, 3), lengths=[True, False]), TypeError, r"lengths must be integers, got dtype bool"),
    # out
    (lambda: gru()(f(5, 2, 3), out=[0]), TypeError, r"out must be a NumPy array, got list"),
    (lambda: gru()(f(5, 2, 3), out=f(5, 2, 3)), ValueError, r"out is \(5, 2, 3\), expected \(5, 2, 4\)"),
    (lambda: gru()(f(5, 2, 3), out=np.zeros((5, 2, 4))), ValueError, r"out has dtype float64, expected float32"),
    (lambda: gru()(f(5, 2, 3), out=np.zeros((5, 2, 4), ">f4")), ValueError, r"out has dtype >f4, expected float32"),
    (lambda: gru()(f(5, 2, 3), out=f(4, 2, 5).T), ValueError, r"out must be C-contiguous and aligned"),
    (lambda: gru()(f(5, 2, 3), out=np.broadcast_to(f(1, 1, 1), (5, 2, 4))), ValueError, r"out must be C-contiguous"),
    # cells
    (
        lambda: fastrnn.GRUCell(3, 4).init()(f(2, 4)),
        ValueError,
        r"x is \(2, 4\), expected \(B, I\) = \(B, 3\) or \(I,\) = \(3,\)",
    ),
    (lambda: fastrnn.GRUCell(3, 4).init()(f(1, 2, 3)), ValueError, r"x is \(1, 2, 3\), expected"),
    (lambda: fastrnn.GRUCell(3, 4).init()(f(3, 2)), ValueError, r": pass x\.T$"),
    (
        lambda: fastrnn.GRUCell(3, 4).init()(f(2, 3), f(3, 4)),
        ValueError,
        r"hx is \(3, 4\), expected \(B, H\) = \(2, 4\)",
    ),
    (lambda: fastrnn.GRUCell(3, 4).init()(f(3), f(1, 4)), ValueError, r"hx is \(1, 4\), expected \(H,\) = \(4,\)"),
    (lambda: fastrnn.LSTMCell(3, 4).init()(f(2, 3), f(2, 4)), TypeError, r"hx must be a pair \(h, c\), got ndarray"),
    # weights
    (
        lambda: GRU(3, 4)(f(5, 2, 3)),
        ValueError,
        r"GRU\(3, 4\) has no weights: call load_state_dict\(tensors\), or init",
    ),
    (lambda: GRU(3, 4).state_dict(), ValueError, r"GRU\(3, 4\) has no weights"),
    (lambda: GRU(3, 4).trace(f(5, 3)), ValueError, r"GRU\(3, 4\) has no weights"),
    (lambda: GRU(3, 4).save("nowhere"), ValueError, r"GRU\(3, 4\) has no weights"),
    (lambda: fastrnn.LSTMCell(3, 4)(f(3)), ValueError, r"LSTMCell\(3, 4\) has no weights"),
    (lambda: gru().trace(f(5, 2, 3)), ValueError, r"x is \(5, 2, 3\), expected \(T, I\) = \(T, 3\)$"),
    (lambda: gru().init(-1), ValueError, r"seed must be an int >= 0, got -1"),
    (lambda: gru().init("a"), TypeError, r"seed must be an int >= 0, got 'a'"),
    (lambda: gru().load_state_dict([1]), TypeError, r"tensors must be a mapping of names to arrays, got list"),
    (lambda: gru().load_state_dict(gru()), TypeError, r"got GRU: pass module\.state_dict\(\)"),
    (lambda: gru().load_state_dict({1: f(2)}), TypeError, r"tensors must have strings as keys, got 1"),
    (lambda: gru().load_state_dict({}, 3), TypeError, r"prefix must be a string, got 3"),
    (lambda: gru().load_state_dict({"a.weight_ih_l0": 0}, "b."), ValueError, r"'b\.'.*'a\.'"),
    (
        lambda: gru().load_state_dict({"weight_ih_l0": f(3, 12), "weight_hh_l0": f(1, 1), "extra_l0": f(1)}),
        ValueError,
        r"missing 'bias_ih_l0', 'bias_hh_l0'.*unknown 'extra_l0'.*weight_ih_l0 is \(3, 12\).*weight_hh_l0 is \(1, 1\)",
    ),
    (
        lambda: gru().load_state_dict(dict(gru().state_dict(), bias_ih_l0=np.zeros(12, complex))),
        TypeError,
        r"bias_ih_l0 must hold floats, integers or bools, got dtype complex128",
    ),
    (lambda: RNN.from_weights(f(3, 4), f(4, 4)), ValueError, r"is \(3, 4\), expected \(H, I\) = \(4, 3\): pass .*\.T"),
    (
        lambda: GRU.from_weights(f(12, 3), f(4, 12)),
        ValueError,
        r"is \(4, 12\), expected \(3\*H, H\) = \(12, 4\): pass .*\.T",
    ),
    (lambda: GRU.from_weights(f(12, 3), f(12, 4), f(4)), ValueError, r"b_ih is \(4,\), expected \(3\*H,\) = \(12,\)"),
    (lambda: GRU.from_weights(None, f(12, 4)), TypeError, r"w_ih must hold .*got dtype object"),
    (
        lambda: GRU.from_weights(f(12, 3), f(12, 4), num_layers=2, bias=False),
        TypeError,
        r"bias, num_layers must not be given",
    ),
    (lambda: fastrnn.from_state_dict({"a": f(2)}), ValueError, r"no recurrent layer's weights"),
    (lambda: fastrnn.from_state_dict(gru().state_dict(), hidden_size=4), TypeError, r"hidden_size must not be given"),
    (lambda: fastrnn.from_state_dict(dict(gru().state_dict(), weight_ih_l99999999=f(1))), ValueError, r"99999999"),
    # fixed
    (lambda: setattr(gru(), "hidden_size", 5), AttributeError, r"hidden_size is fixed once a layer is built"),
    (
        lambda: setattr(gru(), "initial_state", f(1, 5)),
        ValueError,
        r"initial_state is \(1, 5\), expected \(L\*D, H\) = \(1, 4\)",
    ),
    (lambda: setattr(gru(), "initial_state", (f(1, 4),) * 2), TypeError, r"initial_state must be one array h, got a"),
    (lambda: setattr(lstm(), "initial_state", f(1, 4)), TypeError, r"initial_state must be a pair \(h, c\)"),
    (lambda: fastrnn.load(3), TypeError, r"path must be a string or a path, got 3"),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), CONSTRUCTORS + CALLS, ids=[message[:60] for _, _, message in CONSTRUCTORS + CALLS]
)
def test_message(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error


@pytest.mark.parametrize("name", fastrnn.available_backends())
def test_errors_come_before_any_kernel(name):
    layer = make("lstm", 3, 4, backend=name)
    layer(f(5, 2, 3))

    def run(*_):
        raise AssertionError("a kernel ran")

    layer._runners = {name: run}
    out = f(5, 2, 4)
    for arguments in (
        {"x": f(5, 2, 4)},
        {"x": f(5, 2, 3), "hx": (f(1, 2, 4), f(1, 2, 3))},
        {"x": f(5, 2, 3), "lengths": [5, 6]},
        {"x": f(5, 2, 3), "out": f(5, 2, 3)},
        {"x": out[:, :, :3], "out": out},
    ):
        with pytest.raises(ValueError, match=r"expected|must|overlaps"):
            layer(**arguments)


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        (
            "FASTRNN_BACKEND",
            "cuda",
            "ValueError: the environment variable FASTRNN_BACKEND=cuda: backend must be one of",
        ),
        ("FASTRNN_ISA", "mmx", "ValueError: the environment variable FASTRNN_ISA=mmx"),
    ],
)
def test_environment(variable, value, error):
    if variable == "FASTRNN_ISA" and "cython" not in fastrnn.available_backends():
        pytest.skip("the tier is the compiled module's")
    code = f"import os; os.environ[{variable!r}] = {value!r}; import fastrnn; fastrnn.GRU(1, 1).init()([[1.0]])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert error in done.stderr


def test_an_absent_backend_says_why(monkeypatch):
    from fastrnn import backends

    def load():
        raise ImportError("No module named 'numba'")

    monkeypatch.setitem(backends._LOADERS, "numba", load)
    monkeypatch.setattr(backends, "_loaded", {k: v for k, v in backends._loaded.items() if k != "numba"})
    monkeypatch.setattr(backends, "_absent", {})
    assert "numba" not in fastrnn.available_backends()
    message = r"backend 'numba' cannot run here \(No module named 'numba'\).*pip install 'fastrnn\[numba\]'"
    with pytest.raises(ImportError, match=message):
        fastrnn.use_backend("numba")
    with pytest.raises(ImportError, match=message):
        fastrnn.GRU(1, 1, backend="numba")
    assert fastrnn.cpu_info()["backends"]["numba"] == "No module named 'numba'"
