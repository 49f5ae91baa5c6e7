"""Family B: batches of sequences."""

import rows

ROWS = rows.batches()


def test_batches(row, engine, compare):
    compare(row, engine)
