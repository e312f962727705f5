"""Reads a labelled set: reports, what is true of them, what people said of them, and their groups. Asks no model.

An empty cell is "not labelled"; silence of the report is written `not_stated`, an open decision `open`. Messages name
files, columns, rows, ids and counts, never what stands in a cell: a wrong column would put reports into them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medorchestra.errors import SourceError
from medorchestra.local.calibrating import OPEN, LabelledReport
from medorchestra.local.connectors import read_reports
from medorchestra.local.connectors.columns import listed
from medorchestra.local.connectors.rows import is_missing, some
from medorchestra.local.evaluation.label_table import (
    LabelLine,
    LabelTable,
    column_named,
    labels_beside,
    own_labels,
    plain_name,
    what_is_there,
    written_in,
)
from medorchestra.local.evaluation.predictions import LabelledCase
from medorchestra.local.labels import finding_label, outcome_by_rules
from medorchestra.plan import Finding, Plan
from medorchestra.rules import NOT_STATED

OUTCOME = "outcome"
"""The outcome's column where no other is named."""
NESTED = "findings"
"""Column of a JSON lines file that may hold all labelled findings as one object, as files of synthetic cases do."""
MISSING = "missing"
"""Group of a case whose cell is empty."""

_LONGEST_GROUP = 100
"""Characters; what is longer is text and no group, and the groups are printed."""
_MANY_GROUPS = 50
_LONGEST_LABEL = 100
"""Characters that are compared with the names of the plan."""
_MOST_NAMES = 12
_MOST_COLUMNS = 3
"""Columns with unknown labels that a message describes."""
_JSON = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True, repr=False)
class LabelColumns:
    """Where the labels stand and how they are written.

    Attributes:
        outcome: column with the true outcome. It may be absent only under this name, and where all findings are
            labelled: the rules then give the outcome.
        id, text: columns of the reports; None: the usual names.
        readers: columns with the outcomes that human readers gave.
        groups: columns whose values make subgroups.
        outcome_names: label in the file -> outcome of the plan, or `open`; for the readers too. Names of the plan need
            no entry.
        finding_columns: finding -> its column; a finding without an entry is looked for under its own name.
        encoding: of text files.
    """

    outcome: str = OUTCOME
    id: str | None = None
    text: str | None = None
    readers: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    outcome_names: Mapping[str, str] = field(default_factory=dict)
    finding_columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"

    def __repr__(self) -> str:  # what a person types may be a cell of the file, and so of a report
        return (
            f"LabelColumns({len(self.readers)} readers, {len(self.groups)} groups, {len(self.outcome_names)} mapped "
            f"labels, {len(self.finding_columns)} named findings)"
        )


@dataclass(frozen=True, slots=True, repr=False)
class LabelledSet:
    """Labelled reports that are measured together.

    Attributes:
        name: of the file or files.
        digest: `sha256:…` of what was read.
        cases: at least one, in the order of the reports, no two with the same id.
        readers: human readers, by their columns.
        groups: columns with subgroups.
        findings: those with at least one label, in the plan's order.
        unlabelled: reports without an outcome, left out.
        notes: what was left out or worked out, for the person who runs it; names and counts only.
    """

    name: str
    digest: str
    cases: tuple[LabelledCase, ...]
    readers: tuple[str, ...]
    groups: tuple[str, ...]
    findings: tuple[str, ...]
    unlabelled: int
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"LabelledSet({self.name!r}, {len(self.cases)} cases, {self.unlabelled} unlabelled)"


def read_labelled_set(
    plan: Plan, source: str | Path, columns: LabelColumns | None = None, *, labels: Path | None = None
) -> LabelledSet:
    """Read reports with their labels.

    Args:
        plan: whose outcomes and findings are labelled.
        source: the reports, as `read_reports` takes them; their labels are other columns of the same file, or an
            object `findings` in each line of a JSON lines file (there null is a number that is not stated).
        columns: where the labels stand; default: column `outcome` and columns named like findings.
        labels: a CSV or TSV with ids and labels, where they stand apart. Outcomes and findings are then taken from it
            alone; readers and groups from it where it has their columns, else from the reports.

    Raises:
        SourceError: the reports or labels cannot be read, a column is not there, an id is there twice or has no
            report, a label is not the plan's, or no report has an outcome. Gives counts and places, never labels.
        SettingsError: there is no such encoding.
    """
    columns = columns or LabelColumns()
    batch = read_reports(source, id_column=columns.id, text_column=columns.text, encoding=columns.encoding)
    if labels is None:
        table = own_labels(batch)
    else:
        table = labels_beside(batch, Path(labels), id_column=columns.id, encoding=columns.encoding)
    reader = _LabelReader(plan, columns, table)
    read = [reader.case(line) for line in table.lines]
    reader.refuse_unknown()
    cases = tuple(case for case in read if case is not None)
    unlabelled = len(batch.reports) - len(cases)
    if not cases:
        raise SourceError(
            f"{table.where}: none of {len(table.lines)} rows has an outcome in column {columns.outcome!r}, nor all "
            f"findings of plan {plan.topic}"
        )
    labelled = {name for case in cases for name in case.labels.findings}
    path = Path(source)
    return LabelledSet(
        name=(path.name or str(path)) + (f" with {Path(labels).name}" if labels is not None else ""),
        digest=table.digest,
        cases=cases,
        readers=tuple(reader.readers),
        groups=tuple(reader.groups),
        findings=tuple(finding.name for finding in plan.findings if finding.name in labelled),
        unlabelled=unlabelled,
        notes=(*batch.notes, *table.notes, *reader.notes(cases, len(labelled))),
    )


# ------------------------------------------------------------------------------ cells


class _LabelReader:
    """Reads the cells of a table; what is no label is kept until all rows are read, and then told at once.

    Attributes:
        readers, groups: name as it was given -> column.
    """

    def __init__(self, plan: Plan, columns: LabelColumns, table: LabelTable) -> None:
        self._plan, self._table = plan, table
        self._names = _outcome_names(plan, columns.outcome_names)
        self._mapped = set(self._names) - {outcome.name for outcome in plan.outcomes} - {OPEN}
        self._finding_columns = _finding_columns(plan, columns, table)
        self._nested = _holds_objects(plan, table)
        self._is_json = table.where.lower().endswith(_JSON)
        self._outcome = self._outcome_column(columns)
        self.readers = self._person_columns(columns.readers, "--reader")
        self.groups = self._person_columns(columns.groups, "--group")
        if self._outcome is not None and self._outcome in self.readers.values():
            raise SourceError(f"{table.where}: column {self._outcome!r} cannot be both the true outcome and a reader's")
        # column and finding (None: outcomes) -> place and label
        self._unknown: dict[tuple[str, str | None], list[tuple[str, str]]] = {}
        self._seen: set[str] = set()
        self._by_rules = 0

    def case(self, line: LabelLine) -> LabelledCase | None:
        """The case of a row; None where it has no outcome."""
        findings = self._findings(line)
        truth = self._outcome_label(line, self._outcome) if self._outcome is not None else None
        readers = {name: self._outcome_label(line, column) for name, column in self.readers.items()}
        groups = {name: written_in(line.cells.get(column)) or MISSING for name, column in self.groups.items()}
        if truth is None:
            truth = outcome_by_rules(self._plan, findings)
            self._by_rules += truth is not None
        if truth is None:
            return None
        return LabelledCase(LabelledReport(line.report, findings, truth), readers, groups)

    def refuse_unknown(self) -> None:
        """Raise SourceError where cells hold what is no label, or text where groups should be."""
        self._refuse_long_groups()
        if not self._unknown:
            return
        told = [self._problem(*where, found) for where, found in list(self._unknown.items())[:_MOST_COLUMNS]]
        left = len(self._unknown) - len(told)
        more = f"; and {left} more columns with unknown labels" if left else ""
        raise SourceError(f"{self._table.where}: {'; '.join(told)}{more}")

    def notes(self, cases: Sequence[LabelledCase], labelled: int) -> list[str]:
        """What was left out or worked out."""
        without, rows = len(self._table.lines) - len(cases), len(self._table.lines)
        never = len(self._mapped - self._seen)
        named = {plain_name(finding.name) for finding in self._plan.findings} - {
            plain_name(name) for name in self._finding_columns
        }
        near = [column for column in self._table.columns if plain_name(column) in named]
        many = [(name, len({case.groups[name] for case in cases})) for name in self.groups]
        told = {
            f"{without} of {rows} rows have no outcome and are left out": without,
            f"the outcome of {self._by_rules} cases is what the plan's rules make of their labelled findings": (
                self._by_rules
            ),
            f"{labelled} of {len(self._plan.findings)} findings are labelled": 0 < labelled < len(self._plan.findings),
            f"{never} labels that are mapped to outcomes do not occur": never,
            f"columns that look like findings but are not read: {listed(near)}; name them with --finding": near,
        }
        told |= {
            f"column {name!r} makes {count} groups of {len(cases)} cases: most are too small to say much": True
            for name, count in many
            if count > _MANY_GROUPS
        }
        return [note for note, holds in told.items() if holds]

    def _outcome_column(self, columns: LabelColumns) -> str | None:
        found = column_named(self._table.columns, columns.outcome, self._table.where)
        complete = self._nested or len(self._finding_columns) == len(self._plan.findings)
        if found is None and (columns.outcome != OUTCOME or not complete):
            raise SourceError(
                f"{self._table.where}: no column {columns.outcome!r} with the outcomes; "
                f"{what_is_there(self._table.columns)}. Name it with --outcome-column (LabelColumns.outcome in "
                "Python), or give a file of labels with --labels"
            )
        return found

    def _person_columns(self, names: Iterable[str], option: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in dict.fromkeys(names):
            column = column_named(self._table.all_columns, name, self._table.where)
            if column is None:
                there = what_is_there(self._table.all_columns)
                raise SourceError(f"{self._table.where}: no column {name!r}, which {option} names; {there}")
            found[name] = column
        return found

    def _findings(self, line: LabelLine) -> dict[str, str | float]:
        found: dict[str, str | float] = {}
        for finding in self._plan.findings:
            column = self._finding_columns.get(finding.name)
            written = written_in(line.cells.get(column)) if column is not None else None
            if column is not None and written is not None:
                self._take(found, finding, column, written, line)
            nested = self._nested_label(finding, line)
            if nested is not None:
                self._take(found, finding, f"{NESTED}.{finding.name}", nested, line)
        return found

    def _take(
        self, found: dict[str, str | float], finding: Finding, column: str, written: str, line: LabelLine
    ) -> None:
        value = finding_label(finding, written)
        if value is None or found.get(finding.name, value) != value:
            self._unknown.setdefault((column, finding.name), []).append((line.place, written))
        else:
            found[finding.name] = value

    def _nested_label(self, finding: Finding, line: LabelLine) -> str | None:
        """What the object says of a finding; None where it says nothing."""
        nested = line.cells.get(NESTED) if self._nested else None
        if not isinstance(nested, Mapping) or finding.name not in nested:
            return None
        if not is_missing(nested[finding.name]):
            return written_in(nested[finding.name]) or ""
        if not self._is_json:
            return None  # Parquet has no objects that leave a name out: null says nothing there
        return NOT_STATED if finding.number is not None else ""

    def _outcome_label(self, line: LabelLine, column: str) -> str | None:
        written = written_in(line.cells.get(column))
        if written is None:
            return None
        self._seen.add(written)
        outcome = self._names.get(written)
        if outcome is None:
            self._unknown.setdefault((column, None), []).append((line.place, written))
        return outcome

    def _problem(self, column: str, name: str | None, found: Sequence[tuple[str, str]]) -> str:
        """What is wrong with a column of outcomes, or of a finding, and what may stand there."""
        labels = {label for _, label in found}
        cells, kinds = f"{len(found)} cell{'s'[: len(found) > 1]}", f"{len(labels)} label{'s'[: len(labels) > 1]}"
        said, places = f"column {column!r}: {cells} with {kinds}", some(place for place, _ in found)
        if name is None:
            near = _nearest(labels, [outcome.name for outcome in self._plan.outcomes])
            return (
                f"{said}, neither outcomes of plan {self._plan.topic} nor `{OPEN}` ({places}); {near}. Map labels with "
                "--map LABEL=OUTCOME (LabelColumns.outcome_names in Python)"
            )
        finding = next(finding for finding in self._plan.findings if finding.name == name)
        if finding.number is not None:
            can_be = f"a number is wanted, {finding.number.numbers} ({finding.number.unit})"
        else:
            can_be = _nearest(labels, list(finding.values or ()))
        own = self._finding_columns.get(name, column)
        differ = "" if own == column else f", or other than in column {own!r}"
        return f"{said}, neither values of {name} nor `{NOT_STATED}`{differ} ({places}); {can_be}"

    def _refuse_long_groups(self) -> None:
        for name, column in self.groups.items():
            odd = [line.place for line in self._table.lines if not _can_be_group(line.cells.get(column))]
            if odd:
                raise SourceError(
                    f"{self._table.where}: column {name!r}: {len(odd)} cells are no groups: lists, several lines or "
                    f"more than {_LONGEST_GROUP} characters ({some(odd)}); name another column with --group"
                )


def _can_be_group(value: object) -> bool:
    written = written_in(value) or ""
    return not isinstance(value, Mapping | list) and len(written) <= _LONGEST_GROUP and len(written.splitlines()) <= 1


# ------------------------------------------------------------------------------ names and columns


def _outcome_names(plan: Plan, mapped: Mapping[str, str]) -> dict[str, str]:
    """Label -> outcome or `OPEN`."""
    own = [outcome.name for outcome in plan.outcomes]
    strange = sorted({name for name in mapped.values() if name not in own and name != OPEN})
    if strange:
        raise SourceError(
            f"outcome names: {listed(strange)}: no outcome of plan {plan.topic}, nor `{OPEN}`; {_nearest(strange, own)}"
        )
    return {name: name for name in (*own, OPEN)} | {label.strip(): name for label, name in mapped.items()}


def _finding_columns(plan: Plan, columns: LabelColumns, table: LabelTable) -> dict[str, str]:
    """Finding -> column, for those that have one."""
    names = [finding.name for finding in plan.findings]
    strange = sorted(set(columns.finding_columns) - set(names))
    if strange:
        raise SourceError(
            f"finding columns: {listed(strange)}: no findings of plan {plan.topic}; {_nearest(strange, names)}"
        )
    found: dict[str, str] = {}
    for name in names:
        asked = columns.finding_columns.get(name)
        if asked is None:
            if name in table.columns and name not in columns.finding_columns.values():
                found[name] = name
            continue
        column = column_named(table.columns, asked, table.where)
        if column is None:
            there = what_is_there(table.columns)
            raise SourceError(f"{table.where}: no column {asked!r} for finding {name}; {there}")
        found[name] = column
    return found


def _holds_objects(plan: Plan, table: LabelTable) -> bool:
    """Whether column `findings` holds labels. Where it is text (a part of the report) it does not."""
    if NESTED not in table.columns:
        return False
    cells = [(line.place, line.cells.get(NESTED)) for line in table.lines]
    if not any(isinstance(cell, Mapping) for _, cell in cells):
        return False
    others = [place for place, cell in cells if not isinstance(cell, Mapping) and not is_missing(cell)]
    if others:
        raise SourceError(f"{table.where}: column {NESTED!r}: {len(others)} rows hold no object: {some(others)}")
    known = {finding.name for finding in plan.findings}
    foreign = [place for place, cell in cells if isinstance(cell, Mapping) and set(cell) - known]
    if foreign:
        names = sorted({str(name) for _, cell in cells if isinstance(cell, Mapping) for name in set(cell) - known})
        raise SourceError(
            f"{table.where}: column {NESTED!r}: {len(foreign)} rows with names that are no findings of plan "
            f"{plan.topic}: {listed(names)} ({some(foreign)})"
        )
    return True


def _nearest(labels: Iterable[str], names: Sequence[str]) -> str:
    """The names that unknown labels come near; all of them where none does. Never the labels."""
    plain = {name.casefold(): name for name in names}
    found: dict[str, None] = {}
    for label in sorted(labels)[:_MOST_NAMES]:
        tidy = "_".join(label[:_LONGEST_LABEL].casefold().split())
        found |= dict.fromkeys(plain[near] for near in difflib.get_close_matches(tidy, list(plain), n=1))
    if found:
        return f"nearest: {', '.join(found)}"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"there are: {', '.join(names[:_MOST_NAMES])}{more}"
