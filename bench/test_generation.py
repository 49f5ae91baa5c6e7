"""Family G: generation, one call beside a step and a draw in NumPy for every token."""

import rows

ROWS = rows.family("G")


def test_generation(row, engine, compare):
    compare(row, engine)
