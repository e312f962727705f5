"""A batch: reports with ids of their own, where they came from, and the digest of what was read.

Also makes one of what a notebook has at hand. Reads no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from medorchestra.errors import SourceError
from medorchestra.local.connectors.columns import ID_COLUMN, TEXT_COLUMN, find_column
from medorchestra.local.connectors.rows import LONGEST_ID, Row, Rows, reports_in, some
from medorchestra.local.connectors.tables import frame_rows, table_rows
from medorchestra.local.records import Report

if TYPE_CHECKING:
    import pandas as pd

IN_MEMORY = "in memory"
"""Source of a batch that was handed over as objects."""

_ACCEPTED = (
    "give a path, Report objects, a mapping of ids to texts, a list of mappings with id and text, "
    "a pandas data frame or an Arrow table"
)


@dataclass(frozen=True, slots=True, repr=False)
class ReportBatch:
    """Reports that belong together.

    Attributes:
        reports: at least one, in the source's order, no two with the same id.
        source: path of the source, or `in memory`.
        digest: `sha256:…` of the content that was read (in memory: of ids, texts and carried values).
        notes: what was left out on purpose, for the person who runs it; counts only.
    """

    reports: tuple[Report, ...]
    source: str
    digest: str
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ReportBatch({len(self.reports)} reports, source={self.source!r})"


def whole_batch(reports: Sequence[Report], source: str, digest: str, *, notes: tuple[str, ...] = ()) -> ReportBatch:
    """A batch of these reports.

    Raises:
        SourceError: there is none, or two have the same id.
    """
    if not reports:
        raise SourceError(f"{source}: no reports in it")
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for report in reports:
        if report.report_id in seen:
            repeated[report.report_id] = None
        seen.add(report.report_id)
    if repeated:
        ids = "id stands" if len(repeated) == 1 else "ids stand"
        count = f"{len(repeated)} {ids} for more than one report ({len(reports) - len(seen)} reports too many)"
        raise SourceError(f"{source}: {count}: {some(map(repr, repeated))}; make them unique in the source")
    return ReportBatch(tuple(reports), source, digest, notes)


def batch_of(reports: object, *, id_column: str | None = None, text_column: str | None = None) -> ReportBatch:
    """A batch of what a notebook has at hand.

    Args:
        reports: `Report` objects, a mapping id -> text, mappings with id and text, a pandas data frame, an Arrow table
            (or another frame that hands itself over as one).
        id_column, text_column: as in `read_reports`, where there are columns.

    Raises:
        SourceError: it is none of these, or holds a row that is not a report with an id of its own.
    """
    found = _reports_of(reports, id_column, text_column)
    parts = (str(part) for report in found for part in (report.report_id, report.text, dict(report.carried)))
    return whole_batch(found, IN_MEMORY, content_digest_of(part.encode("utf-8", "surrogatepass") for part in parts))


def content_digest_of(parts: Iterable[bytes]) -> str:
    """`sha256:…` of a file's content, or of several parts, each with its length before it."""
    known = list(parts)
    if len(known) == 1:
        return "sha256:" + hashlib.sha256(known[0]).hexdigest()
    digest = hashlib.sha256()
    for part in known:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return "sha256:" + digest.hexdigest()


def _reports_of(reports: object, id_column: str | None, text_column: str | None) -> tuple[Report, ...]:
    if isinstance(reports, Mapping):
        return _from_texts(reports)
    rows = _typed_rows(reports)
    if rows is None:
        if isinstance(reports, str | bytes) or not isinstance(reports, Iterable):
            raise SourceError(f"{type(reports).__name__} is nothing that reports are read from; {_ACCEPTED}")
        known = list(reports)
        if all(isinstance(one, Report) for one in known):
            return tuple(_with_usable_id(report, i) for i, report in enumerate(known, start=1))
        rows = _from_mappings(known)
    return reports_in(rows, IN_MEMORY, id_column=id_column, text_column=text_column)


def _typed_rows(reports: object) -> Rows | None:
    """Rows of a data frame or table; None for anything else."""
    is_pandas = type(reports).__module__.startswith("pandas") and type(reports).__name__ == "DataFrame"
    if not is_pandas and not hasattr(reports, "__arrow_c_stream__"):
        return None
    if is_pandas:
        return frame_rows(cast("pd.DataFrame", reports), IN_MEMORY)
    try:
        table = pa.table(reports)
    except (pa.ArrowException, TypeError, ValueError):
        table = None  # raised below: Arrow's messages may hold values
    if table is None:
        raise SourceError(f"{type(reports).__name__} is no table of columns; {_ACCEPTED}")
    return table_rows(table, IN_MEMORY)


def _from_texts(texts: Mapping[object, object]) -> tuple[Report, ...]:
    if _is_one_row(list(texts)):
        raise SourceError("a mapping with id and text is one report; give a list of them, or a mapping of ids to texts")
    rows = [Row(f"report {i}", {"id": key, "text": text}) for i, (key, text) in enumerate(texts.items(), start=1)]
    return reports_in(Rows(("id", "text"), rows), IN_MEMORY, id_column="id", text_column="text")


def _is_one_row(keys: list[object]) -> bool:
    names = [key for key in keys if isinstance(key, str)]
    try:
        return all(find_column(names, wanted, None, IN_MEMORY) for wanted in (ID_COLUMN, TEXT_COLUMN))
    except SourceError:
        return False


def _from_mappings(known: list[object]) -> Rows:
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for i, one in enumerate(known, start=1):
        if not isinstance(one, Mapping) or not all(isinstance(key, str) for key in one):
            raise SourceError(f"{IN_MEMORY}: report {i} is a {type(one).__name__}, no report; {_ACCEPTED}")
        rows.append(Row(f"report {i}", one))
        columns |= dict.fromkeys(one)
    return Rows(tuple(columns), rows)


def _with_usable_id(report: Report, number: int) -> Report:
    if not isinstance(report.report_id, str) or not report.report_id.strip() or len(report.report_id) > LONGEST_ID:
        raise SourceError(f"{IN_MEMORY}: report {number}: an id must be text of 1 to {LONGEST_ID} characters")
    return report
