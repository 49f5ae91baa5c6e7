"""Family P: two Python threads, each with a stream of its own, beside one."""

import callers
import rows

import fastrnn

ROWS = rows.family("P")
LAYERS = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU}


def test_callers(row, engine, benchmark, record):
    layer = LAYERS[row.cell](row.input_size, row.hidden_size, num_threads=1, backend="cython").init()
    record(row, engine, figures={"speedup": round(callers.speedup(layer, row.steps), 3)})
    benchmark.pedantic(layer.stream(1).push, args=([[[0.0] * row.input_size]],))
