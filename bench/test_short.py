"""Family O: what a call on ten million short sequences takes beside its kernels."""

import sys

import fresh
import pytest
import rows

ROWS = rows.family("O")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_short(row, engine, benchmark, record):
    figures = fresh.beside_kernels(row)
    record(row, engine, figures={name: float(f"{value:.4g}") for name, value in figures.items()})
    benchmark.pedantic(fresh.beside_kernels, args=(row._replace(batch=1000),))
