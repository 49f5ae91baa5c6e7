"""Family Q: sequences, shallow and deep, one and both directions."""

import rows

ROWS = rows.family("Q")


def test_sequences(row, engine, compare):
    compare(row, engine)
