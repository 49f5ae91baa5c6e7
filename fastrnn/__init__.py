"""Runs trained RNN, LSTM and GRU networks on CPUs: fast, and with the same bits whichever way they run."""

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastrnn.backends import available_backends, cpu_info, use_backend
    from fastrnn.capi import capsule, get_include
    from fastrnn.cells import ARITHMETIC
    from fastrnn.checks import FormatError, UnsupportedError
    from fastrnn.conversion import from_torch
    from fastrnn.dense import Dense
    from fastrnn.files import load
    from fastrnn.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, from_state_dict, warmup
    from fastrnn.model import SequenceModel
    from fastrnn.own_cells import Cell, cell
    from fastrnn.recurrent import Recurrent
    from fastrnn.stream import Stream
    from fastrnn.threads import get_num_threads, set_num_threads
    from fastrnn.vocabulary import Vocabulary

__version__ = "0.1.0"
_process = os.getpid()  # not its children's: see numba_kernels/threads.py, which a child may be the first to import

_HOMES = {
    "_native": ("_C_API", "__pyx_capi__"),  # what compiled code imports, by PyCapsule_Import and by cimport
    "backends": ("available_backends", "cpu_info", "use_backend"),
    "capi": ("capsule", "get_include"),
    "cells": ("ARITHMETIC",),
    "checks": ("FormatError", "UnsupportedError"),
    "conversion": ("from_torch",),
    "dense": ("Dense",),
    "files": ("load",),
    "layers": ("GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell", "from_state_dict", "warmup"),
    "many": ("Ragged",),
    "model": ("SequenceModel",),
    "own_cells": ("Cell", "cell"),
    "recurrent": ("Recurrent",),
    "seq2seq": ("Seq2Seq",),
    "stream": ("Stream",),
    "threads": ("get_num_threads", "set_num_threads"),
    "vocabulary": ("Vocabulary",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ARITHMETIC",
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "Dense",
    "FormatError",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Ragged",
    "Recurrent",
    "Seq2Seq",
    "SequenceModel",
    "Stream",
    "UnsupportedError",
    "Vocabulary",
    "__version__",
    "available_backends",
    "capsule",
    "cell",
    "cpu_info",
    "from_state_dict",
    "from_torch",
    "get_include",
    "get_num_threads",
    "load",
    "set_num_threads",
    "use_backend",
    "warmup",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fastrnn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastrnn.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def _import_native() -> None:
    """Fail now, with the cure, where the compiled module should be and is not."""
    knowingly = os.environ.get("FASTRNN_NO_NATIVE", "0") not in ("", "0")
    if knowingly or importlib.util.find_spec("fastrnn._no_native"):
        return
    try:
        importlib.import_module("fastrnn._native")
    except ImportError as error:
        raise ImportError(
            f"fastrnn's compiled module does not load ({error}). From a source tree build it: pip install -e . "
            "To run without it, on the slower numba and reference backends, set FASTRNN_NO_NATIVE=1"
        ) from error


_import_native()
