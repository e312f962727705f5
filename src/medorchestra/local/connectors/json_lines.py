"""JSON lines -> rows: one object a line. Values keep their types; a column that a line leaves out is empty there."""

from __future__ import annotations

import json
from typing import Any

from medorchestra.errors import SourceError
from medorchestra.local.connectors.decoding import text_in
from medorchestra.local.connectors.rows import Row, Rows


class _DoubledKeyError(ValueError):
    """An object with the same key twice."""


def json_line_rows(content: bytes, where: str, encoding: str) -> Rows:
    """All lines that are not blank; the columns are all keys, in the order in which they first come.

    Raises:
        SourceError: not text, or a line that is not one JSON object; names the line.
    """
    rows: list[Row] = []
    columns: dict[str, None] = {}
    # Not splitlines: JSON strings may hold U+2028 and other line ends.
    for number, line in enumerate(text_in(content, where, encoding).split("\n"), start=1):
        if not line.strip():
            continue
        fields, problem = _object_in(line)
        if fields is None:
            raise SourceError(f"{where}: line {number}: {problem}; every line must be one JSON object")
        rows.append(Row(f"line {number}", fields))
        columns |= dict.fromkeys(fields)
    return Rows(tuple(columns), rows)


def _object_in(line: str) -> tuple[dict[str, Any] | None, str]:
    """The object, or what is wrong with the line. Returned, not raised: json's own errors hold the line."""
    try:
        fields = json.loads(line, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} (character {error.colno})"
    except _DoubledKeyError:
        return None, "the same key twice in one object"
    except (ValueError, RecursionError):
        return None, "not JSON that can be read: a number too long, or nested too deeply"
    return (fields, "") if isinstance(fields, dict) else (None, f"a JSON {type(fields).__name__}, no object")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _DoubledKeyError
    return fields
