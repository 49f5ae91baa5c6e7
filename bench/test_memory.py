"""Family M: what a call on a long sequence needs beyond its arguments and results, beside a short one."""

import sys

import fresh
import pytest
import rows

from fastrnn._bench.engines import obstacle

ROWS = rows.family("M")
SHORT = 200  # steps


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory(row, engine, benchmark, record):
    if reason := obstacle(engine, row):
        pytest.skip(f"{engine}: {reason}")
    megabytes = [fresh.workspace(engine, row._replace(steps=steps)) for steps in (SHORT, row.steps)]
    figures = {"megabytes": megabytes[1], "growth": megabytes[1] - megabytes[0]}
    record(row, engine, figures={name: round(value, 2) for name, value in figures.items()})
    benchmark.pedantic(fresh.workspace, args=(engine, row._replace(steps=SHORT)))
