"""Reading synthetic reports without knowing what they were meant to say, and comparing the two.

The reader is asked in a conversation of its own and sees report texts, findings and the guideline; no brief, no target,
no label. Knows how to ask and how to compare; keeps, rejects and writes nothing.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

from medorchestra.cloud.decomposition import guideline_chunks
from medorchestra.cloud.desk.cloud_desk import Ask, CloudDesk
from medorchestra.cloud.guideline import Guideline, Section
from medorchestra.cloud.outgoing import Piece, PieceKind, case_piece, guideline_piece
from medorchestra.cloud.prompt_texts import instruction
from medorchestra.plan import Finding, Plan
from medorchestra.rules import NOT_STATED, evaluate
from medorchestra.synthetic import SyntheticCase

REPORTS_IN_A_REQUEST = 8
COMPLAINTS = 2
"""How often an answer is sent back for what it says. The desk's effort must allow at least so many repairs."""

T = TypeVar("T", bound=BaseModel)
Reading = Mapping[str, str | float]
"""Finding -> value, number or `not_stated`, for every finding of a plan."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReadFinding(_Answer):
    """One fact of a report."""

    name: str = Field(description="name of the finding")
    value: str | float = Field(description="one of its values, a number in its unit, or not_stated")


class ReadReport(_Answer):
    """All findings of one report."""

    case: str = Field(description="id from the heading of the report")
    findings: list[ReadFinding]


class ReadReports(_Answer):
    """What was read, report by report."""

    reports: list[ReadReport]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A finding that was read otherwise than it was meant.

    Attributes:
        finding: its name.
        wanted, read: value, number or `not_stated`.
    """

    finding: str
    wanted: str | float
    read: str | float


def patient(check: Callable[[T], Sequence[str]]) -> Callable[[T], Sequence[str]]:
    """The same check, but content with anything after some complaints.

    What is still wrong then costs the reports concerned, not the whole run.
    """
    left = COMPLAINTS

    def checked(answer: T) -> Sequence[str]:
        nonlocal left
        problems = check(answer) if left > 0 else ()
        if problems:
            left -= 1
        return problems

    return checked


# --------------------------------------------------------------------------------------------------------------- asking


def findings_piece(plan: Plan, names: Sequence[str] | None = None) -> Piece:
    """What is looked for: name, description, and values or number, of all findings or of those named."""
    shown = [
        finding.model_dump(mode="json", include={"name", "description", "values", "number"}, exclude_none=True)
        for finding in plan.findings
        if names is None or finding.name in names
    ]
    return Piece(PieceKind.PLAN, "findings", json.dumps(shown, ensure_ascii=False, indent=1))


def reading_sections(guideline: Guideline, plan: Plan) -> list[Section]:
    """All sections of a guideline that fits one request; of a longer one, those that questions and rules cite."""
    chunks = guideline_chunks(guideline)
    if len(chunks) == 1:
        return chunks[0]
    cited = {subtask.citation.section for subtask in plan.subtasks} | {rule.citation.section for rule in plan.all_rules}
    return [section for section in guideline.sections.values() if section.number in cited]


def read_back(
    desk: CloudDesk, guideline: Guideline | None, plan: Plan, cases: Sequence[SyntheticCase]
) -> dict[str, Reading]:
    """What an independent reader takes from the reports.

    Args:
        desk: the cases are registered at its gate.
        guideline: says how reports are read; None leaves that to the descriptions of the values.
        plan: its findings are asked for.
        cases: only their texts leave.

    Returns:
        case id -> reading. A case that was not read completely is left out.

    Raises:
        CloudError: no usable answer within the desk's effort.
        EgressError: a text must not leave.
    """
    sections = [] if guideline is None else [*map(guideline_piece, reading_sections(guideline, plan))]
    size = REPORTS_IN_A_REQUEST
    batches = [cases[start : start + size] for start in range(0, len(cases), size)]
    for case in cases:
        desk.register(case)
    asks = [
        Ask(
            "read back",
            (
                instruction("read_back", count=str(len(batch))),
                *sections,
                findings_piece(plan),
                *map(case_piece, batch),
            ),
            ReadReports,
            patient(_reading_problems(plan, [case.id for case in batch])),
        )
        for batch in batches
    ]
    readings: dict[str, Reading] = {}
    for batch, answer in zip(batches, desk.ask_all(asks), strict=True):
        for report in answer.reports:
            if report.case in {case.id for case in batch} and not _report_problems(plan, report):
                readings.setdefault(report.case, _reading(plan, report))
    return readings


def _reading(plan: Plan, report: ReadReport) -> Reading:
    values = {one.name: value_of(plan.finding(one.name), one.value) for one in report.findings}
    return {finding.name: value for finding in plan.findings if (value := values[finding.name]) is not None}


def value_of(finding: Finding, answered: str | float) -> str | float | None:
    """The value, number or `not_stated` that an answer means; None where it means none of the finding's values."""
    if answered == NOT_STATED or (isinstance(answered, str) and answered in (finding.values or ())):
        return answered
    if finding.number is None:
        return None
    try:
        number = float(answered)
    except ValueError:
        return None
    return number if math.isfinite(number) and finding.number.numbers.holds(number) else None


def _reading_problems(plan: Plan, ids: Sequence[str]) -> Callable[[ReadReports], list[str]]:
    def problems(answer: ReadReports) -> list[str]:
        counted = Counter(report.case for report in answer.reports)
        found = [f"report {one}: missing" for one in ids if one not in counted]
        found += [f"report {one}: given {counted[one]} times" for one in ids if counted[one] > 1]
        found += [f"{one!r}: there is no such report" for one in counted if one not in ids]
        for report in answer.reports:
            if report.case in ids:
                found += [f"report {report.case}: {problem}" for problem in _report_problems(plan, report)]
        return found

    return problems


def _report_problems(plan: Plan, report: ReadReport) -> list[str]:
    by_name = {finding.name: finding for finding in plan.findings}
    counted = Counter(one.name for one in report.findings)
    found = [f"finding {name}: missing" for name in by_name if name not in counted]
    found += [f"finding {name}: given {counted[name]} times" for name in by_name if counted[name] > 1]
    found += [f"{name!r}: there is no such finding" for name in counted if name not in by_name]
    for one in report.findings:
        finding = by_name.get(one.name)
        if finding is not None and value_of(finding, one.value) is None:
            found.append(f"finding {one.name}: {one.value!r} is none of its values; it has {_has(finding)}")
    return found


def _has(finding: Finding) -> str:
    if finding.number is not None:
        return f"a number in {finding.number.unit}, {finding.number.numbers}, or {NOT_STATED}"
    return ", ".join(finding.all_values)


# ------------------------------------------------------------------------------------------------------------ comparing


def disagreements(plan: Plan, wanted: Reading, read: Reading) -> tuple[Disagreement, ...]:
    """Where a reading says something else than was meant.

    Silence agrees with the value that the plan reads this silence as, since the two mean the same for every decision.
    """
    return tuple(
        Disagreement(finding.name, wanted[finding.name], read[finding.name])
        for finding in plan.findings
        if not _agree(finding, wanted, read, plan.option_settings)
    )


def _agree(finding: Finding, wanted: Reading, read: Reading, options: Mapping[str, str]) -> bool:
    meant, found = wanted[finding.name], read[finding.name]
    if isinstance(meant, int | float) and isinstance(found, int | float):
        return math.isclose(meant, found, rel_tol=1e-6, abs_tol=1e-9)
    if meant == found:
        return True
    silence = finding.not_stated
    if NOT_STATED not in (meant, found) or silence.reads_as not in (meant, found):
        return False
    if silence.if_stated is not None and read[silence.if_stated] == NOT_STATED:
        return False
    return silence.unless is None or evaluate(silence.unless, read, options) is False
