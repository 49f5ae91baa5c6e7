"""Family R: ragged batches, both directions."""

import rows

ROWS = rows.ragged()


def test_ragged(row, engine, compare):
    compare(row, engine)
