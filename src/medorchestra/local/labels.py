"""Reads a hospital's labels of its own reports: a CSV with ids, outcomes and findings. Never shows what stands in it.

An empty cell is "not labelled"; silence of the report is written `not_stated`, an open decision `open`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from medorchestra.errors import SourceError
from medorchestra.local.calibrating import OPEN, LabelledReport
from medorchestra.local.records import Report
from medorchestra.plan import Finding, Plan
from medorchestra.rules import NOT_STATED

ID, OUTCOME = "id", "outcome"


def read_labelled(plan: Plan, reports: Iterable[Report], path: str | Path) -> list[LabelledReport]:
    """The reports that have labels, with them.

    Where all findings are labelled and the outcome is not, the plan's rules give it.

    Args:
        plan: whose findings and outcomes are labelled.
        reports: the reports; those without a label are left out.
        path: CSV with a column `id`, and `outcome` and/or columns named like findings.

    Raises:
        SourceError: not readable, a column or label that the plan does not have (names row and column, not the label),
            an id twice, or labels for reports that are not there.
    """
    path = Path(path)
    labels = _rows(plan, path)
    found = [LabelledReport(report, *labels.pop(report.report_id)) for report in reports if report.report_id in labels]
    if labels:
        raise SourceError(f"{path}: {len(labels)} labelled ids are not among the reports; check the column `{ID}`")
    return found


def _rows(plan: Plan, path: Path) -> dict[str, tuple[dict[str, str | float], str | None]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            _check_columns(plan, path, columns)
            rows: dict[str, tuple[dict[str, str | float], str | None]] = {}
            for number, row in enumerate(reader, start=2):
                case = (row[ID] or "").strip()
                if not case or case in rows:
                    raise SourceError(f"{path}: row {number}: the id is {'there twice' if case else 'empty'}")
                if None in row:  # cells beyond the header, as an unquoted comma makes them
                    raise SourceError(f"{path}: row {number}: more cells than columns; quote what holds a comma")
                rows[case] = _labels(plan, row, f"{path}: row {number}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: cannot be read as a CSV in UTF-8 ({type(error).__name__})") from None
    return rows


def _check_columns(plan: Plan, path: Path, columns: list[str]) -> None:
    names = {finding.name for finding in plan.findings}
    unknown = [column for column in columns if column not in names | {ID, OUTCOME}]
    twice = len(columns) - len(set(columns))
    if ID not in columns or len(columns) < 2 or unknown or twice:
        raise SourceError(
            f"{path}: columns must be `{ID}`, `{OUTCOME}` and names of findings of plan {plan.topic}, each once; "
            f"{len(unknown)} are something else, {twice} are there again"
        )


def _labels(plan: Plan, row: Mapping[str, str | None], where: str) -> tuple[dict[str, str | float], str | None]:
    findings: dict[str, str | float] = {}
    for finding in plan.findings:
        written = (row.get(finding.name) or "").strip()
        if written:
            value = finding_label(finding, written)
            if value is None:
                raise SourceError(f"{where}: column {finding.name}: none of its values, nor `{NOT_STATED}`")
            findings[finding.name] = value
    outcome = (row.get(OUTCOME) or "").strip() or None
    if outcome is not None and outcome not in {one.name for one in plan.outcomes} | {OPEN}:
        raise SourceError(f"{where}: column {OUTCOME}: none of the plan's outcomes, nor `{OPEN}`")
    return findings, outcome if outcome is not None else outcome_by_rules(plan, findings)


def finding_label(finding: Finding, written: str) -> str | float | None:
    """The value, number or `not_stated` that is written; None where it is none of these."""
    if written in finding.all_values:
        return written
    if finding.number is not None:
        try:
            number = float(written)
        except ValueError:
            return None
        if finding.number.numbers.holds(number):
            return number
    return None


def outcome_by_rules(plan: Plan, findings: Mapping[str, str | float]) -> str | None:
    """What the rules make of labelled findings: an outcome or `OPEN`; None where a finding is not labelled."""
    if len(findings) < len(plan.findings):
        return None
    return plan.decision_table.decide(findings).outcome or OPEN
