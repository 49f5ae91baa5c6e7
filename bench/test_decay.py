"""Family D: a decaying state fed zeros, beside the same layer on noise."""

import rows

ROWS = rows.family("D")


def test_decay(row, engine, compare):
    compare(row, engine)
