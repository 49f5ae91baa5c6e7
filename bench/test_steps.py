"""Family S: one step from a given state."""

import rows

ROWS = rows.family("S")


def test_steps(row, engine, compare):
    compare(row, engine)
