"""Fixtures of backends: the tests that take one run over every backend that can run here."""

import os
from collections.abc import Iterator

import pytest
from generate_cases import SAME

import fastrnn

os.environ["PYTHONSAFEPATH"] = "1"  # processes that tests start import the installed package, not the checkout


@pytest.fixture(params=fastrnn.available_backends())
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the backend that all layers of this test run on, in this thread."""
    with fastrnn.use_backend(request.param):
        yield request.param


@pytest.fixture(params=SAME)
def compiled(request: pytest.FixtureRequest) -> Iterator[str]:
    """As `backend`, of those whose generation is compiled."""
    with fastrnn.use_backend(request.param):
        yield request.param
