"""Step 1 of the planner: guideline text into findings, outcomes, ordered rules and their citations.

The cloud model answers with a `Decomposition`; it is accepted only when it makes a valid plan whose rules hold up and
whose every citation stands in the guideline. Asks no questions of reports and writes no prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medorchestra.cloud.desk.cloud_desk import Ask, CloudDesk
from medorchestra.cloud.guideline import Guideline, Section
from medorchestra.cloud.outgoing import Piece, PieceKind, guideline_piece
from medorchestra.cloud.prompt_texts import instruction
from medorchestra.cloud.proof.proof import prove
from medorchestra.errors import CaseError, RuleError
from medorchestra.plan import (
    Citation,
    ExecutionProfile,
    Flag,
    GuidelineReference,
    NumberRange,
    Option,
    Outcome,
    Part,
    Plan,
    PromptForms,
    Provenance,
    Rule,
    Subtask,
    TermGroup,
    Undecidable,
)
from medorchestra.plan_files import describe_plan_errors
from medorchestra.rules import NOT_STATED, Condition
from medorchestra.synthetic import SyntheticCase, check_case

MOST_GUIDELINE_CHARACTERS = 60_000
"""Guideline text in one request (about 15,000 tokens); a longer guideline is read in parts and merged."""

INSTRUCTED_HEAD = (
    "You read a medical report and answer short questions on it. Use only what the report states. If the report says "
    "nothing on a question, choose the answer that says so.\n\nReport:"
)
COMPACT_HEAD = "Report:"


class _Draft(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class ValueDraft(_Draft):
    """One closed value of a finding."""

    name: str = Field(description="short, without spaces, commas, semicolons or bars")
    description: str = Field(description="when a reader should choose it")


class PriorDraft(_Draft):
    """Weight of a value where silence stays unknown."""

    value: str
    weight: Annotated[float, Field(ge=0, le=1)]


class SilenceDraft(_Draft):
    """What a report's silence on a finding means for the outcome."""

    reads_as: str | None = None
    if_stated: str | None = None
    unless: Condition | None = None
    review: bool = False
    prior: list[PriorDraft] | None = None
    why: str


class FindingDraft(_Draft):
    """One fact to be read from a report: closed `values`, or a `number`."""

    name: str
    description: str
    values: list[ValueDraft] | None = None
    number: NumberRange | None = None
    not_stated: SilenceDraft
    citation: Citation


class ScopeDraft(_Draft):
    """Which reports the plan is for."""

    language: str
    requires: list[TermGroup]
    excludes: list[str]
    competing: list[str]


class Decomposition(_Draft):
    """A guideline as findings and rules: the answer of step 1."""

    topic: str
    title: str
    scope: ScopeDraft
    outcomes: list[Outcome]
    parts: list[Part] = []
    options: list[Option] = []
    findings: list[FindingDraft]
    rules: list[Rule]
    undecidable: list[Undecidable] = []
    flags: list[Flag] = []

    def citation_of(self, finding: str) -> Citation:
        """Why a finding is asked (KeyError if there is none of this name)."""
        return {draft.name: draft.citation for draft in self.findings}[finding]


def decompose(desk: CloudDesk, guideline: Guideline, cases: Sequence[SyntheticCase] = ()) -> Decomposition:
    """Ask for the decomposition of a guideline, until it holds up.

    Args:
        cases: development cases that are there already: the plan has to use their names and to decide them as they
            are labelled.

    Raises:
        CloudError: no decomposition without faults within the desk's effort; names the faults.
        EgressError: see `CloudDesk.ask`.
    """

    def faults(answer: Decomposition) -> Sequence[str]:
        return decomposition_faults(answer, guideline, cases)

    names = (_names_piece(cases),) if cases else ()
    chunks = guideline_chunks(guideline)
    asked = [(instruction("decompose"), *map(guideline_piece, chunk), *names) for chunk in chunks]
    if len(asked) == 1:
        return desk.ask("decompose", asked[0], Decomposition, check=faults)
    drafts = desk.ask_all(
        [Ask(f"decompose part {i}", pieces, Decomposition) for i, pieces in enumerate(asked, start=1)]
    )
    drafted = [
        Piece(PieceKind.PLAN, f"part {i}", draft.model_dump_json(by_alias=True, exclude_defaults=True))
        for i, draft in enumerate(drafts, start=1)
    ]
    return desk.ask("merge", (instruction("merge"), *drafted, *names), Decomposition, check=faults)


def _names_piece(cases: Sequence[SyntheticCase]) -> Piece:
    """Names of findings, values and outcomes that labelled cases use."""
    findings: dict[str, set[str]] = {}
    for case in cases:
        for name, value in case.findings.items():
            values = findings.setdefault(name, set())
            if isinstance(value, str) and value != NOT_STATED:
                values.add(value)
    parts = sorted({name for case in cases for name in case.parts})
    outcomes = sorted({outcome for case in cases for outcome in case.possible_outcomes})
    names = {
        "findings": {name: sorted(values) or "number" for name, values in findings.items()},
        "parts": parts,
        "outcomes": outcomes,
    }
    return Piece(PieceKind.PLAN, "names that labelled cases use", json.dumps(names, ensure_ascii=False, indent=1))


def guideline_chunks(guideline: Guideline, longest: int = MOST_GUIDELINE_CHARACTERS) -> list[list[Section]]:
    """The sections in order, in as few chunks as the size allows; a section is never cut."""
    chunks: list[list[Section]] = []
    used = longest
    for section in guideline.sections.values():
        size = len(section.title) + len(section.text)
        if not chunks or used + size > longest:
            chunks.append([])
            used = 0
        chunks[-1].append(section)
        used += size
    return chunks


def relevant_sections(guideline: Guideline, decomposition: Decomposition) -> list[Section]:
    """All sections of a guideline that fits one request; of a longer one, those that are cited."""
    chunks = guideline_chunks(guideline)
    if len(chunks) == 1:
        return chunks[0]
    rules = [*decomposition.rules, *(rule for part in decomposition.parts for rule in part.rules)]
    cited = {draft.citation.section for draft in decomposition.findings} | {rule.citation.section for rule in rules}
    return [section for section in guideline.sections.values() if section.number in cited]


def decomposition_faults(
    decomposition: Decomposition, guideline: Guideline, cases: Sequence[SyntheticCase] = ()
) -> list[str]:
    """Everything that can be told to be wrong before there are prompts, in words that a model can act on."""
    faults = [
        f"finding {draft.name!r}: its citation does not stand word for word in section {draft.citation.section}"
        for draft in decomposition.findings
        if not guideline.cites(draft.citation.section, draft.citation.quote)
    ]
    try:
        plan = plan_of(decomposition, guideline, _stub_subtasks(decomposition), model="draft")
    except ValidationError as error:
        return [*faults, *describe_plan_errors(error)]
    return [*faults, *map(str, prove(plan, guideline).problems), *_faults_by_cases(plan, cases)]


def _faults_by_cases(plan: Plan, cases: Sequence[SyntheticCase]) -> list[str]:
    """Where the plan does not use the names of labelled cases, or decides them otherwise."""
    named = {name for case in cases for name in case.findings}
    asked = {finding.name for finding in plan.findings}
    if named and named != asked:
        lacking, extra = ", ".join(sorted(named - asked)) or "none", ", ".join(sorted(asked - named)) or "none"
        return [f"the labelled cases have findings that the plan lacks: {lacking}; and do not have: {extra}"]
    faults: list[str] = []
    for case in cases:
        try:
            check_case(under_rules_of(plan, case), plan)
        except CaseError as error:
            faults.append(str(error))
    return faults


def under_rules_of(plan: Plan, case: SyntheticCase) -> SyntheticCase:
    """The case with this plan's rule in place of that of the plan it was labelled by. What it expects stays."""
    try:
        verdict = plan.decision_table.decide(case.known())
    except (RuleError, ValueError):
        return case  # it has other findings: `check_case` says which
    return case.model_copy(update={"rule": verdict.rule})


def plan_of(
    decomposition: Decomposition,
    guideline: Guideline,
    subtasks: Sequence[Subtask | Mapping[str, object]],
    *,
    model: str,
    made_on: date | None = None,
) -> Plan:
    """The plan that a decomposition and its subtasks make, origin `planner`.

    Args:
        model: name of the cloud model, for the provenance.
        made_on: day of making; default today (UTC).

    Raises:
        ValidationError: they do not hang together.
    """
    # Checked as one, so that an error says which finding or rule it is about.
    return Plan.model_validate(
        {
            "topic": decomposition.topic,
            "title": decomposition.title,
            "guideline": GuidelineReference(title=guideline.title, edition=guideline.edition, digest=guideline.digest),
            "provenance": Provenance(
                origin="planner", author="medorchestra", made_on=made_on or datetime.now(UTC).date(), model=model
            ),
            "scope": decomposition.scope.model_dump(),
            "profile": ExecutionProfile(head=PromptForms(instructed=INSTRUCTED_HEAD, compact=COMPACT_HEAD)),
            "outcomes": decomposition.outcomes,
            "options": decomposition.options,
            "findings": [_finding(draft) for draft in decomposition.findings],
            "subtasks": subtasks,
            "parts": decomposition.parts,
            "rules": decomposition.rules,
            "undecidable": decomposition.undecidable,
            "flags": decomposition.flags,
        }
    )


def _finding(draft: FindingDraft) -> dict[str, object]:
    silence = draft.not_stated
    return {
        "name": draft.name,
        "description": draft.description,
        "values": None if draft.values is None else {value.name: value.description for value in draft.values},
        "number": draft.number,
        "not_stated": {
            "reads_as": silence.reads_as,
            "if_stated": silence.if_stated,
            "unless": silence.unless,
            "review": silence.review,
            "prior": None if not silence.prior else {one.value: one.weight for one in silence.prior},
            "why": silence.why,
        },
    }


def _stub_subtasks(decomposition: Decomposition) -> list[Mapping[str, object]]:
    """Subtasks that only let the rules be checked before the real ones are written."""
    return [
        {
            "id": draft.name,
            "finding": draft.name,
            "answer": "choice" if draft.values is not None else "number",
            "prompt": {"instructed": "{{ labels }}"},
            "labels": {name: name for name in (*(value.name for value in draft.values or ()), NOT_STATED)},
            "citation": draft.citation,
        }
        for draft in decomposition.findings
    ]
