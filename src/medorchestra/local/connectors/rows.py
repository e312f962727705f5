"""Rows of any table -> reports: picks id and text, carries the rest, refuses rows that are not reports.

Knows no file format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from types import MappingProxyType

from medorchestra.errors import SourceError
from medorchestra.local.connectors.columns import ID_COLUMN, TEXT_COLUMN, find_column, how_to_name
from medorchestra.local.records import Report

LONGEST_ID = 200
"""Characters; a longer id is a wrong column, and the column with the text would put reports into messages."""

MOST_PLACES = 5
"""Rows or ids that a message names."""


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """One row of a source.

    Attributes:
        place: where it stands, as a person would look for it: `row 7 (line 40)`.
        fields: column -> value; a column that is not there is empty.
    """

    place: str
    fields: Mapping[str, object]

    def __repr__(self) -> str:
        return f"Row({self.place}, {len(self.fields)} fields)"


@dataclass(frozen=True, slots=True, repr=False)
class Rows:
    """All rows of a source and its columns, in the source's order."""

    columns: tuple[str, ...]
    rows: Sequence[Row]

    def __repr__(self) -> str:
        return f"Rows({len(self.rows)} rows, {len(self.columns)} columns)"


def reports_in(rows: Rows, where: str, *, id_column: str | None, text_column: str | None) -> tuple[Report, ...]:
    """The rows as reports, in their order.

    Raises:
        SourceError: a column is missing; an id is missing or no id; a text is no text. Names rows, never text.
    """
    id_name = find_column(rows.columns, ID_COLUMN, id_column, where)
    text_name = find_column(rows.columns, TEXT_COLUMN, text_column, where)
    if id_name == text_name:
        raise SourceError(f"{where}: column {id_name!r} cannot be both id and text; name two columns")
    carried = [name for name in rows.columns if name not in (id_name, text_name)]
    reports: list[Report] = []
    without_id: list[str] = []
    for row in rows.rows:
        report_id = _id_in(row, id_name, where)
        if report_id is None:
            without_id.append(row.place)
            continue
        text = _text_in(row, text_name, where)
        reports.append(Report(report_id, text, MappingProxyType({name: row.fields.get(name) for name in carried})))
    if without_id:
        count = f"{len(without_id)} row{'s' if len(without_id) > 1 else ''} without an id"
        raise SourceError(f"{where}: {count} in column {id_name!r}: {some(without_id)}; every report needs one")
    return tuple(reports)


def some(names: Iterable[str]) -> str:
    """The first few of these, for a message."""
    known = list(names)
    return ", ".join(known[:MOST_PLACES]) + (
        f" and {len(known) - MOST_PLACES} more" if len(known) > MOST_PLACES else ""
    )


def is_missing(value: object) -> bool:
    """None, or what tables write for it: NaN, NaT, NA."""
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in ("NaTType", "NAType")


def _id_in(row: Row, column: str, where: str) -> str | None:
    """The id as text; None where there is none."""
    value = row.fields.get(column)
    if is_missing(value):
        return None
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, str):
        kind = type(value).__name__
        raise SourceError(
            f"{where}: {row.place}: an id of type {kind} in column {column!r}; ids are text or whole numbers"
        )
    if len(value) > LONGEST_ID:
        said = f"an id of {len(value)} characters in column {column!r}; at most {LONGEST_ID}"
        raise SourceError(
            f"{where}: {row.place}: {said}. Is it the right column? Name it with {how_to_name(ID_COLUMN)}"
        )
    return value if value.strip() else None


def _text_in(row: Row, column: str, where: str) -> str:
    """The text, unchanged; empty where there is none."""
    value = row.fields.get(column)
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        said = f"a value of type {type(value).__name__} in column {column!r} where text should be"
        raise SourceError(f"{where}: {row.place}: {said}. Name the column with the text by {how_to_name(TEXT_COLUMN)}")
    return value
