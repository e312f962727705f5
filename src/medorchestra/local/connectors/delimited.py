"""CSV and TSV -> rows. Everything stays text, ids and carried columns too: a CSV has no types, and 00123 is not 123.

Strict, by the csv module: a quote that is never closed or a row of another length is an error with its place, because
what follows it would end up in the wrong report.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager

from medorchestra.errors import SourceError
from medorchestra.local.connectors.columns import ID_COLUMN, TEXT_COLUMN, WantedColumn, find_column, refuse_repeats
from medorchestra.local.connectors.decoding import text_in
from medorchestra.local.connectors.rows import Row, Rows

_DELIMITERS = ",;\t|"
_NO_LIMIT = 2**31 - 1
"""Characters in a field: what fits a C long everywhere."""


def delimited_rows(content: bytes, where: str, encoding: str) -> Rows:
    """All rows behind the header; rows without any field are blank lines and are passed over.

    Columns without a name (an index that pandas wrote) are called `unnamed_1`, by their position.

    Raises:
        SourceError: not text, no rows, doubled columns, a row of another length, a quote out of place.
    """
    text = text_in(content, where, encoding)
    with _long_fields():
        delimiter = _delimiter(text)
        records = _records(text, delimiter, where)
        _, names = next(records, ("", []))
        columns = tuple(name if name.strip() else f"unnamed_{i}" for i, name in enumerate(names, start=1))
        refuse_repeats(columns, where)
        rows = [Row(place, _fields(columns, record, f"{where}: {place}")) for place, record in records]
    if columns and not rows:
        raise SourceError(f"{where}: a row with column names, but no reports behind it")
    return Rows(columns, rows)


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters a field: it is one for the whole process, so put it back."""
    before = csv.field_size_limit(_NO_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _delimiter(text: str) -> str:
    """The delimiter with which the header has the columns that are needed; failing that, the most columns."""

    def fitness(delimiter: str) -> tuple[int, int]:
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            columns = next((record for record in reader if record), [])
        except csv.Error:
            return 0, 0
        return sum(_has(columns, wanted) for wanted in (ID_COLUMN, TEXT_COLUMN)), len(columns)

    return max(_DELIMITERS, key=fitness)


def _has(columns: list[str], wanted: WantedColumn) -> bool:
    try:
        find_column(columns, wanted, None, "")
    except SourceError:
        return False
    return True


def _records(text: str, delimiter: str, where: str) -> Iterator[tuple[str, list[str]]]:
    """Every record that has fields, with its place; the header is row 0."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    row = line = 0
    while True:
        place = f"row {row} (line {line + 1})" if row else f"row of column names (line {line + 1})"
        try:
            record = next(reader, None)
            problem = None
        except csv.Error as error:
            record, problem = None, str(error)
        if problem is not None:
            unclosed = "end of data" in problem
            said = "a quote that is never closed" if unclosed else "a quote inside a quoted field that is not doubled"
            raise SourceError(f"{where}: {place}: {said}; double the quotes inside fields, or save as Parquet")
        if record is None:
            return
        line = reader.line_num
        if record:
            yield place, record
            row += 1


def _fields(columns: tuple[str, ...], record: list[str], where: str) -> dict[str, str]:
    if len(record) != len(columns):
        said = f"{len(record)} fields, but {len(columns)} columns"
        raise SourceError(f"{where}: {said}; fields that hold the delimiter or a line break must be quoted")
    return dict(zip(columns, record, strict=True))
