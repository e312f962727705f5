"""Finds the columns with the report ids and the report text, and names columns without giving away a report.

A table without a header row has its first report where the names should be: names that look like data are withheld.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medorchestra.errors import SourceError

_LONGEST_NAME = 60
_MOST_WORDS = 8
_MOST_LISTED = 40


@dataclass(frozen=True, slots=True)
class WantedColumn:
    """A column that a table of reports must have.

    Attributes:
        what: what stands in it, for messages.
        option: the argument that names it; `--` and dashes make it the option of the command line.
        names: names it may have, most expected first; compared without case, spaces and punctuation.
    """

    what: str
    option: str
    names: tuple[str, ...]


ID_COLUMN = WantedColumn(
    "report ids",
    "id_column",
    ("report_id", "Accession Number", "Accession No", "Accession", "note_id", "id"),
)
TEXT_COLUMN = WantedColumn("report text", "text_column", ("text", "Report Text", "report", "note_text"))


def find_column(columns: Sequence[str], wanted: WantedColumn, asked: str | None, where: str) -> str:
    """The column of `columns` that is meant.

    Args:
        columns: the table's columns.
        wanted: what is looked for.
        asked: the name that was given, or None for the usual names.
        where: names the source in errors.

    Raises:
        SourceError: there is none, or several that fit equally; lists the columns there are.
    """
    for name in (asked,) if asked is not None else wanted.names:
        if name in columns:
            return name
        near = [column for column in columns if _plain(column) == _plain(name)]
        if len(near) > 1:
            said = f"{listed(near)} all look like the column with the {wanted.what}"
            raise SourceError(f"{where}: {said}; choose one with {how_to_name(wanted)}")
        if near:
            return near[0]
    missing = f"no column {asked!r}" if asked is not None else f"no column with the {wanted.what}"
    usual = "" if asked is not None else f" ({' or '.join(repr(name) for name in wanted.names[:2])})"
    raise SourceError(f"{where}: {missing}{usual}; {there_are(columns)}. Name it with {how_to_name(wanted)}")


def refuse_repeats(columns: Sequence[str], where: str) -> None:
    """Raise SourceError where two columns have one name: what stands in the first would be lost."""
    repeated = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
    if repeated:
        raise SourceError(f"{where}: more than one column named {listed(repeated)}; rename them in the source")


def there_are(columns: Sequence[str]) -> str:
    """The columns there are, for a message."""
    return f"the columns are: {listed(columns)}"


def listed(columns: Sequence[str]) -> str:
    """Names for a message; withheld, all of them, where one looks like a value rather than like a name."""
    if any(_looks_like_data(name) for name in columns):
        return f"{len(columns)} (names withheld, they look like data: is the row with the names missing?)"
    more = f" and {len(columns) - _MOST_LISTED} more" if len(columns) > _MOST_LISTED else ""
    return ", ".join(repr(name) for name in columns[:_MOST_LISTED]) + more


def how_to_name(wanted: WantedColumn) -> str:
    """The option that names the column, for a message."""
    return f"--{wanted.option.replace('_', '-')} ({wanted.option}= in Python)"


def _looks_like_data(name: str) -> bool:
    many = len(name) > _LONGEST_NAME or len(name.split()) > _MOST_WORDS
    return many or "\n" in name or name.rstrip().endswith(".") or name.strip().isdigit()


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
