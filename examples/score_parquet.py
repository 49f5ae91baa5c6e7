"""Score the sequences of a Parquet file with a saved model: a list column goes in, a column of results is added.

    pip install pyarrow
    python examples/score_parquet.py model.safetensors sequences.parquet scored.parquet --column ids

The column holds lists or large lists of ids, or of vectors as fixed-size lists. The new one holds the V numbers of each
sequence, null where the list is null. Memory is bounded: rows are read, run and written a batch at a time.
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


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def check(kind: pa.DataType, column: str, inputs: int) -> None:
    """Demand lists of ids, or of vectors of so many numbers."""
    cure = ""
    if is_list(kind):
        inner = kind.value_type
        if is_number(inner.value_type if pa.types.is_fixed_size_list(inner) else inner):
            return
        if is_list(inner) and is_number(inner.value_type):
            number = np.dtype(inner.value_type.to_pandas_dtype())
            cure = f": cast it to pa.list_(pa.list_(pa.{number}(), {inputs}))"
    elif pa.types.is_fixed_size_list(kind) and is_number(kind.value_type):
        cure = f": cast it to pa.list_(pa.{np.dtype(kind.value_type.to_pandas_dtype())}())"
    raise SystemExit(f"--column {column!r} must hold lists of ids, or of vectors as fixed-size lists, got {kind}{cure}")


def score(model: fastrnn.SequenceModel, source: Path, target: Path, column: str, result: str) -> None:
    """Copy a file, with one more column."""
    with pq.ParquetFile(source) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise SystemExit(f"--column {column!r} is not among the columns of {source}: {names}")
        if result in names:
            raise SystemExit(f"--result {result!r} is a column of {source} already: choose another name")
        check(kind := file.schema_arrow.field(column).type, column, model.layers[0].input_size)
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
    try:
        model = fastrnn.load(options.model)
        if not isinstance(model, fastrnn.SequenceModel):
            parser.error(f"{options.model} must hold a SequenceModel, got {model!r}")
        score(model, options.source, options.target, options.column, options.result)
    except BaseException as error:
        options.target.unlink(missing_ok=True)  # half a file is none, and would be in the way of the next try
        if isinstance(error, (OSError, TypeError, ValueError)):
            raise SystemExit(f"error: {error}") from error
        raise


if __name__ == "__main__":
    main()
