"""Step 2 of the planner: question, labels and focus terms for every finding; and their revision after a rehearsal.

Asks the cloud for a few findings at a time. A draft is accepted when it makes a valid subtask of the plan and its
citation stands in the guideline. Knows no report: a revision sees synthetic development cases only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medorchestra.cloud.decomposition import Decomposition, FindingDraft, relevant_sections
from medorchestra.cloud.desk.cloud_desk import Ask, CloudDesk
from medorchestra.cloud.guideline import Guideline
from medorchestra.cloud.outgoing import Piece, PieceKind, case_piece, guideline_piece
from medorchestra.cloud.prompt_texts import instruction
from medorchestra.plan import Citation, Plan, PromptForms, Subtask
from medorchestra.plan_files import describe_plan_errors
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import SyntheticCase

FINDINGS_IN_A_REQUEST = 6
MOST_FAILURES_SHOWN = 8
"""Failed cases that a revision sees for each finding."""


class _Draft(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelDraft(_Draft):
    """What the model answers for a value."""

    value: str
    label: str


class SubtaskDraft(_Draft):
    """The question for one finding."""

    finding: str
    instructed: str = Field(
        description="with the placeholders {{ labels }}, {{ unit }}, {{ examples }}, {{ description }}"
    )
    compact: str = Field(description="a few words, no placeholders")
    labels: list[LabelDraft]
    focus_terms: list[str]
    citation: Citation


class SubtaskDrafts(_Draft):
    """The questions for the findings asked for, each once."""

    subtasks: list[SubtaskDraft]


@dataclass(frozen=True, slots=True)
class Failure:
    """A synthetic development case on which a subtask was answered wrongly.

    Attributes:
        case: the case.
        expected, answered: value, number or `not_stated`; `answered` is None where no answer could be read.
    """

    case: SyntheticCase
    expected: str | float
    answered: str | float | None


def write_subtasks(desk: CloudDesk, guideline: Guideline, decomposition: Decomposition) -> tuple[Subtask, ...]:
    """One subtask for every finding, in their order.

    Raises:
        CloudError: no usable questions within the desk's effort.
    """
    sections = [guideline_piece(section) for section in relevant_sections(guideline, decomposition)]
    batches = _batches(decomposition.findings)
    asks = [
        Ask(
            f"write subtasks {i}",
            (instruction("write_subtasks", findings=_names(batch)), *sections, _findings_piece(batch)),
            SubtaskDrafts,
            _faults_in(batch, guideline),
        )
        for i, batch in enumerate(batches, start=1)
    ]
    drafts = {draft.finding: draft for answer in desk.ask_all(asks) for draft in answer.subtasks}
    return tuple(_subtask(drafts[finding.name], finding) for finding in decomposition.findings)


def revise_subtasks(
    desk: CloudDesk,
    guideline: Guideline,
    decomposition: Decomposition,
    plan: Plan,
    failures: Mapping[str, Sequence[Failure]],
) -> tuple[Subtask, ...]:
    """New subtasks for the findings that failed.

    Args:
        plan: whose subtasks failed.
        failures: finding -> the development cases on which it was misread.

    Raises:
        CloudError: as `write_subtasks`.
        ValueError: a case is not of the development split.
    """
    foreign = sorted({f.case.id for found in failures.values() for f in found if f.case.split != "development"})
    if foreign:
        raise ValueError(f"{len(foreign)} cases are not of the development split, first: {foreign[0]}")
    findings = [draft for draft in decomposition.findings if draft.name in failures]
    sections = [guideline_piece(section) for section in relevant_sections(guideline, decomposition)]
    asks = [
        Ask(
            f"revise subtasks {i}",
            (
                instruction("revise_subtasks", findings=_names(batch)),
                *sections,
                _findings_piece(batch),
                *_failure_pieces(plan, {finding.name: failures[finding.name] for finding in batch}),
            ),
            SubtaskDrafts,
            _faults_in(batch, guideline),
        )
        for i, batch in enumerate(_batches(findings), start=1)
    ]
    drafts = {draft.finding: draft for answer in desk.ask_all(asks) for draft in answer.subtasks}
    return tuple(_subtask(drafts[finding.name], finding) for finding in findings)


def with_subtasks(plan: Plan, subtasks: Sequence[Subtask]) -> Plan:
    """The plan with these subtasks in place of those of the same id.

    Raises:
        ValidationError: the new ones do not fit.
    """
    new = {subtask.id: subtask for subtask in subtasks}
    changed = tuple(new.get(subtask.id, subtask) for subtask in plan.subtasks)
    return Plan.model_validate(plan.model_dump(by_alias=True) | {"subtasks": changed})


def _batches(findings: Sequence[FindingDraft]) -> list[list[FindingDraft]]:
    size = FINDINGS_IN_A_REQUEST
    return [list(findings[start : start + size]) for start in range(0, len(findings), size)]


def _names(findings: Sequence[FindingDraft]) -> str:
    return ", ".join(finding.name for finding in findings)


def _findings_piece(findings: Sequence[FindingDraft]) -> Piece:
    shown = [
        finding.model_dump(mode="json", include={"name", "description", "values", "number"}, exclude_none=True)
        for finding in findings
    ]
    return Piece(PieceKind.PLAN, "findings", json.dumps(shown, ensure_ascii=False, indent=1))


def _failure_pieces(plan: Plan, failures: Mapping[str, Sequence[Failure]]) -> list[Piece]:
    """The failed questions, the cases they failed on (each once), and what was expected and answered."""
    subtasks = {subtask.finding: subtask for subtask in plan.subtasks}
    pieces: list[Piece] = []
    cases: dict[str, SyntheticCase] = {}
    lines: list[str] = []
    for finding, found in failures.items():
        subtask = subtasks[finding]
        asked = subtask.model_dump(mode="json", include={"prompt", "labels", "focus_terms"})
        pieces.append(Piece(PieceKind.PLAN, f"question on {finding}", json.dumps(asked, ensure_ascii=False, indent=1)))
        for failure in found[:MOST_FAILURES_SHOWN]:
            cases[failure.case.id] = failure.case
            answered = "no answer" if failure.answered is None else failure.answered
            lines.append(f"{failure.case.id}: {finding} expected {failure.expected}, answered {answered}")
    pieces += [case_piece(case) for case in cases.values()]
    return [*pieces, Piece(PieceKind.PROBLEM, "rehearsal", "\n".join(lines))]


def _faults_in(findings: Sequence[FindingDraft], guideline: Guideline) -> Callable[[SubtaskDrafts], list[str]]:
    by_name = {finding.name: finding for finding in findings}

    def faults(answer: SubtaskDrafts) -> list[str]:
        written = [draft.finding for draft in answer.subtasks]
        found = [f"{name}: no question was written" for name in by_name if name not in written]
        found += [f"{name}: not asked for" for name in dict.fromkeys(written) if name not in by_name]
        found += [f"{name}: written {written.count(name)} times" for name in by_name if written.count(name) > 1]
        compact = [draft.compact.strip().casefold() for draft in answer.subtasks]
        found += [
            f"compact question {text!r} is there twice" for text in sorted(set(compact)) if compact.count(text) > 1
        ]
        for draft in answer.subtasks:
            if draft.finding in by_name:
                found += _draft_faults(draft, by_name[draft.finding], guideline)
        return found

    return faults


def _draft_faults(draft: SubtaskDraft, finding: FindingDraft, guideline: Guideline) -> list[str]:
    where = draft.finding
    found: list[str] = []
    if not guideline.cites(draft.citation.section, draft.citation.quote):
        found.append(f"{where}: the citation does not stand word for word in section {draft.citation.section}")
    needed = {*(value.name for value in finding.values or ()), NOT_STATED}
    given = [label.value for label in draft.labels]
    if set(given) != needed or len(given) != len(needed):
        found.append(f"{where}: labels are needed for exactly these values: {', '.join(sorted(needed))}")
    if "{{" in draft.compact:
        found.append(f"{where}: the compact question takes no placeholders")
    if finding.values is not None and "labels" not in draft.instructed:
        found.append(f"{where}: the instructed question does not show the answers; put {{{{ labels }}}} in")
    try:
        _subtask(draft, finding)
    except ValidationError as error:
        found += [f"{where}: {line}" for line in describe_plan_errors(error)]
    return found


def _subtask(draft: SubtaskDraft, finding: FindingDraft) -> Subtask:
    return Subtask(
        id=finding.name,
        finding=finding.name,
        answer="choice" if finding.values is not None else "number",
        prompt=PromptForms(instructed=draft.instructed, compact=draft.compact),
        labels={label.value: label.label for label in draft.labels},
        focus_terms=tuple(dict.fromkeys(draft.focus_terms)),
        citation=draft.citation,
    )
