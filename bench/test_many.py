"""Family N: many sequences in one call, beside torch in batches."""

import rows

ROWS = rows.family("N")


def test_many(row, engine, compare):
    compare(row, engine)
