"""Family B: batches of sequences."""

import rows

ROWS = rows.family("B")


def test_batches(row, engine, compare):
    compare(row, engine)
