"""Family C: import, load a saved model and call it, in fresh processes."""

import rows

ROWS = rows.family("C")


def test_cold(row, engine, compare):
    compare(row, engine)
