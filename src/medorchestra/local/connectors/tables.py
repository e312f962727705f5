"""Typed tables -> rows: Parquet files, Arrow tables, data frames. Values keep the types they have there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from medorchestra.errors import SourceError
from medorchestra.local.connectors.columns import refuse_repeats
from medorchestra.local.connectors.rows import Row, Rows, is_missing

if TYPE_CHECKING:
    import pandas as pd


def parquet_rows(content: bytes, where: str, encoding: str) -> Rows:  # noqa: ARG001 - one shape for all readers
    """All rows of a Parquet file.

    Raises:
        SourceError: not a Parquet file, a damaged one, or doubled columns.
    """
    try:
        table = pq.ParquetFile(pa.BufferReader(content)).read()  # read_table refuses doubled columns without a name
    except (pa.ArrowException, OSError, ValueError):
        table = None  # raised below: Arrow's messages may hold values
    if table is None:
        raise SourceError(f"{where}: cannot be read as Parquet: damaged, cut off, or another kind of file")
    return table_rows(table, where)


def table_rows(table: pa.Table, where: str) -> Rows:
    """All rows of an Arrow table.

    Raises:
        SourceError: doubled columns.
    """
    columns = tuple(table.column_names)
    refuse_repeats(columns, where)
    values = [_python_values(column) for column in table.columns]
    return Rows(columns, _numbered(columns, values, table.num_rows))


def frame_rows(frame: pd.DataFrame, where: str) -> Rows:
    """All rows of a pandas data frame; an index that has a name is a column too.

    Raises:
        SourceError: a column whose name is not text, or doubled columns.
    """
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    frame = frame.reset_index(level=named) if named else frame
    if not all(isinstance(name, str) for name in frame.columns):
        raise SourceError(f"{where}: the names of all columns must be text; rename those that are not")
    columns = tuple(frame.columns)
    refuse_repeats(columns, where)
    values = [
        [None if is_missing(value) else value for value in frame[name].tolist()]  # NaN stands for what is missing
        for name in columns
    ]
    return Rows(columns, _numbered(columns, values, len(frame)))


def _numbered(columns: tuple[str, ...], values: list[list[object]], count: int) -> list[Row]:
    return [
        Row(f"row {i + 1}", {name: column[i] for name, column in zip(columns, values, strict=True)})
        for i in range(count)
    ]


def _python_values(column: pa.ChunkedArray) -> list[object]:
    """Values of a column as Python has them; nanoseconds, which Python has not, as microseconds where none is lost."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        try:
            column = column.cast(pa.timestamp("us", column.type.tz))
        except pa.ArrowInvalid:
            column = column.cast(pa.string())
    return list(column.to_pylist())
