"""Check that a build with FASTRNN_DEBUG=1 aborts a step or a call that goes out of range past Python's checks."""

import signal
import subprocess
import sys

BEGIN = """
import resource
from dataclasses import replace

import numpy as np

import fastrnn
from fastrnn import _native

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
layer = fastrnn.LSTM(4, 8).init(0)
"""
STEP = "layer.stream(2)._advance(np.zeros((1, 4), 'f4'), np.array([{}]), np.zeros((1, 8), 'f4'))"
CALL = """
engine = _native.Engine(replace(layer._planned(), embedding="one_hot"))
states = [np.zeros((1, 1, 8), "f4") for _ in range(4)]
engine(np.array([[{}]]), tuple(states[:2]), None, np.zeros((1, 1, 8), "f4"), tuple(states[2:]))
"""

for name, code, right, wrong in (("row", STEP, 1, 2), ("row", STEP, 0, -1), ("id", CALL, 3, 4), ("id", CALL, 0, -1)):
    for number, expected in ((right, 0), (wrong, -signal.SIGABRT)):
        command = [sys.executable, "-c", BEGIN + code.format(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != expected:
            sys.exit(f"{name} {number}: status {done.returncode}, expected {expected}\n{done.stderr}")
    print(f"{name} {wrong}: {done.stderr.strip()}")
