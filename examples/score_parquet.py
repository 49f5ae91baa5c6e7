"""Score the sequences of a Parquet file with a saved model: a list column goes in, a column of results is added.

    pip install pyarrow
    python examples/score_parquet.py model.safetensors sequences.parquet scored.parquet --column ids

The column holds lists of ids, or of vectors as fixed-size lists. The new one holds the V numbers of each sequence, null
where the list is null. Memory is bounded: rows are read, run and written a batch at a time.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

import fastrnn

ROWS = 1 << 17  # of a batch, which becomes a row group


def scores(model: fastrnn.SequenceModel, column: pa.Array) -> pa.Array:
    """The results of a list column, read in place."""
    values = column.values
    if pa.types.is_fixed_size_list(values.type):  # vectors
        size = values.type.list_size
        values = np.asarray(values.values)[values.offset * size :].reshape(-1, size)
    found = model.predict_many(fastrnn.Ragged(values, column.offsets), wiring="many_to_one")
    mask = column.is_null() if column.null_count else None
    return pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), found.shape[1], mask=mask)


def score(model: fastrnn.SequenceModel, source: Path, target: Path, column: str, result: str) -> None:
    """Copy a file, with one more column."""
    with pq.ParquetFile(source) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise SystemExit(f"--column {column!r} is not among the columns of {source}: {names}")
        if result in names:
            raise SystemExit(f"--result {result!r} is a column of {source} already: choose another name")
        if not pa.types.is_list(kind := file.schema_arrow.field(column).type):
            raise SystemExit(f"--column {column!r} must hold lists of ids or of vectors, got {kind}")
        none = pa.array([], kind)
        schema = file.schema_arrow.append(pa.field(result, scores(model, none).type))
        with pq.ParquetWriter(target, schema) as writer, tqdm(total=file.metadata.num_rows, unit="seq") as bar:
            for batch in file.iter_batches(ROWS):
                found = scores(model, batch.column(column))
                writer.write_batch(pa.record_batch([*batch.columns, found], schema))
                bar.update(len(batch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="what SequenceModel.save wrote")
    parser.add_argument("source", type=Path, help="a Parquet file")
    parser.add_argument("target", type=Path, help="the file to write")
    parser.add_argument("--column", default="ids", help="the list column (default: ids)")
    parser.add_argument("--result", default="scores", help="the new column (default: scores)")
    options = parser.parse_args()
    if options.target.exists():
        parser.error(f"{options.target} exists: choose another name")
    model = fastrnn.load(options.model)
    if not isinstance(model, fastrnn.SequenceModel):
        parser.error(f"{options.model} must hold a SequenceModel, got {model!r}")
    score(model, options.source, options.target, options.column, options.result)


if __name__ == "__main__":
    main()
