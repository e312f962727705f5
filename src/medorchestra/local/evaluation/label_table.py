"""Brings reports and the cells with their labels together, whether these stand in one file or in two. Knows no plan.

Messages name files, columns, rows, ids and counts, never what stands in a cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medorchestra.errors import SourceError
from medorchestra.local.connectors import ReportBatch
from medorchestra.local.connectors.batches import content_digest_of
from medorchestra.local.connectors.columns import ID_COLUMN, find_column, listed, there_are
from medorchestra.local.connectors.delimited import delimited_rows
from medorchestra.local.connectors.rows import Rows, is_missing, some
from medorchestra.local.records import Report

_LABEL_FILES = (".csv", ".tsv", ".tab")


@dataclass(frozen=True, slots=True, repr=False)
class LabelLine:
    """A report, its cells, and where they stand: `row 3 (line 7)`, or `row 3 ('A-17')` beside the reports."""

    report: Report
    place: str
    cells: Mapping[str, object]


@dataclass(frozen=True, slots=True, repr=False)
class LabelTable:
    """Reports with their cells.

    Attributes:
        where: the file with the labels, for messages.
        digest: `sha256:…` of what was read.
        columns: those that may hold outcomes and findings.
        all_columns: those that may hold anything else: the reports' own too.
        lines: in the order of the reports.
        notes: reports without a row.
    """

    where: str
    digest: str
    columns: tuple[str, ...]
    all_columns: tuple[str, ...]
    lines: tuple[LabelLine, ...]
    notes: tuple[str, ...] = ()


def own_labels(batch: ReportBatch) -> LabelTable:
    """The labels that stand beside the reports."""
    columns = tuple(batch.reports[0].carried)
    lines = tuple(
        LabelLine(report, f"row {number} ({report.report_id!r})", report.carried)
        for number, report in enumerate(batch.reports, start=1)
    )
    return LabelTable(batch.source, batch.digest, columns, columns, lines)


def labels_beside(batch: ReportBatch, path: Path, *, id_column: str | None, encoding: str) -> LabelTable:
    """The labels of another file, joined to the reports by id.

    Args:
        batch: the reports.
        path: CSV or TSV.
        id_column: column with the ids; the usual names where the file has no such column.
        encoding: of the file.

    Raises:
        SourceError: it cannot be read, or has a row without id, with an id that is there twice or that no report has.
    """
    where = str(path)
    if path.suffix.lower() not in _LABEL_FILES:
        raise SourceError(f"{where}: labels are read from a CSV (.csv) or TSV (.tsv)")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{where}: cannot be read: {error.strerror or type(error).__name__}") from None
    if not content.strip():
        raise SourceError(f"{where}: the file is empty")
    rows = delimited_rows(content, where, encoding)
    id_name = find_column(rows.columns, ID_COLUMN, id_column if id_column in rows.columns else None, where)
    lines = _joined(batch, rows, id_name, where)
    own = tuple(name for name in rows.columns if name != id_name)
    without = len(batch.reports) - len(lines)
    return LabelTable(
        where=where,
        digest=content_digest_of([batch.digest.encode(), content]),
        columns=own,
        all_columns=tuple(dict.fromkeys((*own, *batch.reports[0].carried))),
        lines=lines,
        notes=(f"{without} of {len(batch.reports)} reports have no row in {where}",) if without else (),
    )


def _joined(batch: ReportBatch, rows: Rows, id_name: str, where: str) -> tuple[LabelLine, ...]:
    """The reports that have a row, with its cells and, where the row has no such column, the report's own."""
    reports = {report.report_id: report for report in batch.reports}
    found: dict[str, LabelLine] = {}
    empty: list[str] = []
    repeated: list[str] = []
    foreign: list[str] = []
    for row in rows.rows:
        written = str(row.fields[id_name])
        case = written if written in reports else written.strip()
        if not case:
            empty.append(row.place)
        elif case in found:
            repeated.append(row.place)
        elif case not in reports:
            foreign.append(row.place)
        else:
            found[case] = LabelLine(reports[case], row.place, {**reports[case].carried, **row.fields})
    for places, problem in (
        (empty, "have no id"),
        (repeated, "have an id that an earlier row has"),
        (foreign, f"have an id that no report of {batch.source} has"),
    ):
        if places:
            count = f"{len(places)} of {len(rows.rows)} rows"
            raise SourceError(f"{where}: {count} {problem} (column {id_name!r}): {some(places)}")
    return tuple(found[report.report_id] for report in batch.reports if report.report_id in found)


def written_in(cell: object) -> str | None:
    """What stands in a cell, as text without spaces around it; None where it is empty. 2.0 and 2 are one label."""
    if is_missing(cell):
        return None
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip() or None


def column_named(columns: Sequence[str], name: str, where: str) -> str | None:
    """The column of this name, or the one that differs in case, spaces and punctuation only; None: there is none.

    Raises:
        SourceError: several differ only so.
    """
    if name in columns:
        return name
    near = [column for column in columns if plain_name(column) == plain_name(name)]
    if len(near) > 1:
        raise SourceError(f"{where}: {listed(near)} all look like column {name!r}; write it as it stands there")
    return near[0] if near else None


def plain_name(name: str) -> str:
    """A name without case, spaces and punctuation."""
    return "".join(filter(str.isalnum, name.casefold()))


def what_is_there(columns: Sequence[str]) -> str:
    """The columns there are, for a message."""
    return there_are(columns) if columns else "it has no columns beside id and text"
