"""Other frameworks' modules as fastrnn's layers. A framework is imported when it is used."""

from typing import Any

import numpy as np

from fastrnn import checks, layers
from fastrnn.checks import UnsupportedError
from fastrnn.dense import Dense
from fastrnn.weights import expected_shapes

__all__ = ["from_torch"]

_KINDS = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "Linear")
_FORWARDS = ("torch.nn.modules.rnn", "torch.nn.modules.linear", "fastrnn.torch")


def from_torch(module: Any) -> Any:
    """Make a layer, cell or `Dense` with the configuration and a copy of the weights of a torch module.

    Parameters
    ----------
    module : torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell or Linear
        On any device, training or not. Weight-normalised, pruned and parametrized weights are taken as the module would
        use them now.

    Returns
    -------
    RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell or Dense
        In float64 for a float64 module, else in float32. A Linear gives a `Dense` of NumPy arrays without activation.

    Raises
    ------
    TypeError
        For what is no torch module.
    UnsupportedError
        For other modules, and for subclasses with a forward of their own.

    Examples
    --------
    >>> import torch, fastrnn
    >>> fastrnn.from_torch(torch.nn.LSTM(3, 4, batch_first=True))
    LSTM(3, 4, batch_first=True)
    >>> fastrnn.from_torch(torch.nn.Linear(4, 2)).weight.shape
    (2, 4)
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("from_torch needs torch: pip install 'fastrnn[torch]'") from error
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be one of torch.nn's {', '.join(_KINDS)}, got {type(module).__name__}")
    kind = next((kind for kind in _KINDS if isinstance(module, getattr(torch.nn, kind))), None)
    if kind is None:
        inner = [name for name, m in module.named_modules() if isinstance(m, (torch.nn.RNNBase, torch.nn.RNNCellBase))]
        cure = f": pass one of its recurrent modules ({', '.join(inner[:8])})" if inner else ""
        raise UnsupportedError(
            f"module must be one of torch.nn's {', '.join(_KINDS)}, got {type(module).__name__}{cure}"
        )
    if type(module).forward.__module__ not in _FORWARDS:
        raise UnsupportedError(f"{type(module).__name__} has a forward of its own, which fastrnn would not run")
    fresh = _recomputed(module)
    if kind == "Linear":
        dtype = np.float64 if module.weight.dtype == torch.float64 else np.float32
        weight, bias = (fresh.get(name, getattr(module, name)) for name in ("weight", "bias"))
        return Dense(
            np.array(checks.weight(weight, "weight"), dtype),
            None if bias is None else np.array(checks.weight(bias, "bias"), dtype),
        )
    names = ["input_size", "hidden_size", "bias"]
    if kind in ("RNN", "LSTM", "GRU"):
        names += ["num_layers", "batch_first", "dropout", "bidirectional"]
    config = {name: getattr(module, name) for name in names}
    if kind == "LSTM":
        config["proj_size"] = module.proj_size
    elif getattr(module, "proj_size", 0):  # torch's constructor refuses it, but an attribute can be set
        raise checks.not_yet(f"proj_size={module.proj_size} of a {kind}")
    if kind == "RNN":
        config["nonlinearity"] = module.mode.removeprefix("RNN_").lower()
    elif kind == "RNNCell":
        config["nonlinearity"] = checks.choice(module.nonlinearity, "nonlinearity", ("tanh", "relu"))
    if kind.endswith("Cell"):
        config["bias"] = module.bias_ih is not None  # which decides, in torch's forward
    w_ih = module.weight_ih if kind.endswith("Cell") else module.weight_ih_l0
    config["dtype"] = "float64" if w_ih.dtype == torch.float64 else "float32"
    layer = getattr(layers, kind)(**config)
    return layer.load_state_dict(
        {name: fresh.get(name, getattr(module, name)) for name in expected_shapes(layer._sizes)}
    )


def _recomputed(module: Any) -> dict[str, Any]:
    """Weights that hooks compute before each forward: the attributes hold what the last forward saw."""
    from torch.nn.utils.prune import BasePruningMethod
    from torch.nn.utils.weight_norm import WeightNorm

    hooks = module._forward_pre_hooks.values()
    normalised = {hook.name: hook.compute_weight(module) for hook in hooks if isinstance(hook, WeightNorm)}
    pruned = {hook._tensor_name: hook.apply_mask(module) for hook in hooks if isinstance(hook, BasePruningMethod)}
    return normalised | pruned
