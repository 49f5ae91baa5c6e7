"""Family R: ragged batches, both directions."""

import rows

ROWS = rows.family("R")


def test_ragged(row, engine, compare):
    compare(row, engine)
