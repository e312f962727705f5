"""Before the first phrase: what a phrase bank must know of how findings hang together, asked for and checked.

Sections are the planner's own: one for each finding, so that layouts can order them as they like. Which findings rest
on others, follow from the wording of others or compare two parts of the report, and which numbers are usual, says the
cloud model; where it says nothing, the plan does as far as it can. Writes no phrase.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pydantic import BaseModel, ConfigDict, Field

from medorchestra.cloud.cases.case_targets import bounds_of
from medorchestra.cloud.cases.reading_back import findings_piece, patient, reading_sections
from medorchestra.cloud.desk.cloud_desk import CloudDesk
from medorchestra.cloud.guideline import Guideline
from medorchestra.cloud.outgoing import guideline_piece
from medorchestra.cloud.prompt_texts import instruction
from medorchestra.phrases.phrase_answers import (
    ClosingAnswer,
    DependencyAnswer,
    DerivedAnswer,
    FrameAnswer,
    NumberHabitAnswer,
    new_bank,
)
from medorchestra.phrases.phrase_bank import NUMBER, Dependency, PhraseBank
from medorchestra.phrases.targets import TargetDraw
from medorchestra.plan import Finding, Plan, Provenance
from medorchestra.rules import NOT_STATED, findings_in


class AgreementAnswer(BaseModel):
    """The finding that asks whether the conclusion agrees with the rest of the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding: str
    agrees: str = Field(description="its value where they agree")
    conflicts: str | None = Field(default=None, description="its value where they contradict each other; null: none")
    about: list[str] = Field(default_factory=list, description="findings on which a contradiction counts")


class WrittenFrame(BaseModel):
    """How findings hang together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dependencies: list[DependencyAnswer] = Field(default_factory=list, max_length=500)
    derived: list[DerivedAnswer] = Field(default_factory=list, max_length=50)
    agreement: AgreementAnswer | None = None
    numbers: list[NumberHabitAnswer] = Field(default_factory=list, max_length=50)

    @property
    def unconnected(self) -> bool:
        """Whether no finding is said to hang together with another."""
        return not (self.dependencies or self.derived or self.agreement)


@dataclass(frozen=True, slots=True)
class FrameWriting:
    """What came of it.

    Attributes:
        bank: without phrases; its first section is the history, the last two are other things and the conclusion.
        left_out: `what number: problem` for each piece of the answer that stayed wrong and is not used.
    """

    bank: PhraseBank
    left_out: tuple[str, ...]


def write_frame(desk: CloudDesk, plan: Plan, guideline: Guideline | None) -> FrameWriting:
    """A bank without phrases.

    Raises:
        CloudError: no usable answer within the desk's effort.
        EgressError: something must not leave.
    """
    sections = [] if guideline is None else reading_sections(guideline, plan)
    pieces = (instruction("write_frame"), *map(guideline_piece, sections), findings_piece(plan))
    answer = desk.ask("write frame", pieces, WrittenFrame, check=patient(_problems(plan)))
    answer, left_out = _right_pieces(plan, answer)
    return FrameWriting(_bank(plan, answer, desk.model_name), tuple(left_out))


# ------------------------------------------------------------------------------------------------------------ building


def _apart(plan: Plan, name: str) -> str:
    """A name for a section that no finding has."""
    taken = {finding.name for finding in plan.findings}
    while name in taken:
        name += "_part"
    return name


def _bank(plan: Plan, answer: WrittenFrame, model: str, made_on: date | None = None) -> PhraseBank:
    """The bank of a right answer; on what the answer says nothing about, the plan is asked."""
    agreement = answer.agreement
    compares = None if agreement is None else agreement.finding
    spoken = [name for name in _spoken(plan) if name != compares]
    history, other, closing = (_apart(plan, name) for name in ("history", "other", "conclusion"))
    said_of = {habit.finding for habit in answer.numbers}
    usual = [_habit(plan, finding) for finding in plan.findings if finding.name not in said_of]
    frame = FrameAnswer(
        findings=[f.name for f in plan.findings if f.name in {*spoken, compares}],
        sections=[history, *spoken, other, closing],
        closing=ClosingAnswer(sections=[closing], **({} if agreement is None else agreement.model_dump())),
        derived=answer.derived,
        dependencies=_silences(plan, spoken)
        if answer.unconnected
        else [_read(plan, one) for one in answer.dependencies],
        numbers=[*answer.numbers, *(habit for habit in usual if habit is not None)],
    )
    provenance = Provenance(
        origin="planner", author="medorchestra", made_on=made_on or datetime.now(UTC).date(), model=model
    )
    return new_bank(plan, frame, provenance)


def _spoken(plan: Plan) -> list[str]:
    """Findings that phrases can state: all but those that say of the report as a whole that it contradicts itself."""
    conditions = (plan.expanded(flag.when) for flag in plan.flags if flag.kind == "contradiction")
    unsayable = {named[0] for condition in conditions if len(named := findings_in(condition)) == 1}
    return [finding.name for finding in plan.findings if finding.name not in unsayable]


def _silences(plan: Plan, spoken: Sequence[str]) -> list[DependencyAnswer]:
    """Findings whose silence the plan reads only where another one is stated."""
    return [
        DependencyAnswer(finding=finding.name, on=on, among=list(plan.finding(on).values or (NUMBER,)))
        for finding in plan.findings
        if (on := finding.not_stated.if_stated) is not None and {finding.name, on} <= {*spoken}
    ]


def _read(plan: Plan, one: DependencyAnswer) -> DependencyAnswer:
    """With silence among what the other finding may be, where the plan reads this silence as one of those values."""
    silence = plan.finding(one.on).not_stated
    always = silence.if_stated is None and silence.unless is None
    if always and silence.reads_as in one.among and NOT_STATED not in one.among:
        return one.model_copy(update={"among": [*one.among, NOT_STATED]})
    return one


def _habit(plan: Plan, finding: Finding) -> NumberHabitAnswer | None:
    """Usual numbers: around the bounds that the rules name."""
    number, bounds = finding.number, bounds_of(plan, finding.name)
    if number is None or not bounds:
        return None
    low, high = max(number.minimum, bounds[0] * 0.4), min(number.maximum, bounds[-1] * 1.8)
    if low >= high:
        return None
    return NumberHabitAnswer(finding=finding.name, low=low, high=high, decimals=1 if number.unit == "cm" else 0)


# ------------------------------------------------------------------------------------------------------------ checking


def _problems(plan: Plan) -> Callable[[WrittenFrame], list[str]]:
    """What is wrong with an answer, for the model to mend."""

    def problems(answer: WrittenFrame) -> list[str]:
        found = [f"{piece}: {problem}" for piece, problem in _faults(plan, answer)]
        said_of = {habit.finding for habit in answer.numbers}
        found += [
            f"numbers: no entry for {f.name}" for f in plan.findings if f.number is not None and f.name not in said_of
        ]
        return found or [_told(rule) for rule in _lost_rules(plan, answer)]

    return problems


def _right_pieces(plan: Plan, answer: WrittenFrame) -> tuple[WrittenFrame, list[str]]:
    """The answer without the pieces that are wrong, and what is wrong with those."""
    faults = list(_faults(plan, answer))
    wrong = {piece for piece, _ in faults}
    right = WrittenFrame(
        dependencies=[one for i, one in enumerate(answer.dependencies, start=1) if f"dependency {i}" not in wrong],
        derived=[one for i, one in enumerate(answer.derived, start=1) if f"derived {i}" not in wrong],
        agreement=None if "agreement" in wrong else answer.agreement,
        numbers=[one for i, one in enumerate(answer.numbers, start=1) if f"number {i}" not in wrong],
    )
    left_out = [f"{piece}: {problem}" for piece, problem in faults]
    lost = _lost_rules(plan, right)
    if lost:
        # Which of them is wrong cannot be told.
        left_out.append(f"dependencies, derived, agreement: {'; '.join(map(_told, lost))}")
        right = WrittenFrame(numbers=right.numbers)
    return right, left_out


def _faults(plan: Plan, answer: WrittenFrame) -> Iterator[tuple[str, str]]:
    """(piece, problem) for all that is wrong with single pieces."""
    check = _Check(plan, answer)
    pieces: list[tuple[str, Iterator[str]]] = [
        *((f"dependency {i}", check.dependency(one)) for i, one in enumerate(answer.dependencies, start=1)),
        *((f"derived {i}", check.derived(one)) for i, one in enumerate(answer.derived, start=1)),
        *([] if answer.agreement is None else [("agreement", check.agreement(answer.agreement))]),
        *((f"number {i}", check.habit(one)) for i, one in enumerate(answer.numbers, start=1)),
    ]
    for piece, problems in pieces:
        yield from ((piece, problem) for problem in dict.fromkeys(problems))


class _Check:
    """Holds single pieces of an answer against the plan, and against each other."""

    def __init__(self, plan: Plan, answer: WrittenFrame) -> None:
        self._findings = {finding.name: finding for finding in plan.findings}
        self._compares = None if answer.agreement is None else answer.agreement.finding
        self._unsayable = self._findings.keys() - {*_spoken(plan)}
        self._derived = Counter(one.finding for one in answer.derived)
        self._habits = Counter(habit.finding for habit in answer.numbers)

    def dependency(self, one: DependencyAnswer) -> Iterator[str]:
        yield from self._names(one.finding, one.on)
        yield from self._values(one.finding, one.values)
        yield from self._values(one.on, one.among, silence=True)
        if one.finding == one.on:
            yield f"{one.on} rests on itself"
        if not one.among:
            yield "`among` is empty: no report could state it"
        if one.on in self._derived:
            yield f"{one.on} is derived; name what it is derived from"

    def derived(self, one: DerivedAnswer) -> Iterator[str]:
        yield from self._names(one.finding, *one.if_any_stated)
        yield from self._closed_value(one.finding, one.value)
        if not one.if_any_stated or any(name in self._derived for name in one.if_any_stated):
            yield "`if_any_stated` needs findings, none of which is derived"
        if self._derived[one.finding] > 1:
            yield f"{one.finding} stands in `derived` {self._derived[one.finding]} times"

    def agreement(self, one: AgreementAnswer) -> Iterator[str]:
        yield from self._closed_value(one.finding, one.agrees)
        if one.conflicts is not None:
            yield from self._closed_value(one.finding, one.conflicts)
        yield from self._names(*one.about)
        if one.agrees == one.conflicts:
            yield "`agrees` and `conflicts` are the same value"
        if one.conflicts is not None and not one.about:
            yield "`about` is empty: name the findings on which a contradiction counts"

    def habit(self, one: NumberHabitAnswer) -> Iterator[str]:
        finding = self._findings.get(one.finding)
        if finding is None or finding.number is None:
            yield f"{one.finding!r} is no number finding"
        elif not finding.number.minimum <= one.low < one.high <= finding.number.maximum:
            yield f"{one.finding}: low must be below high, and both within {finding.number.numbers}"
        if not 0 <= one.decimals <= 3:
            yield f"{one.finding}: {one.decimals} decimals; 0 to 3 are possible"
        if self._habits[one.finding] > 1:
            yield f"{one.finding} stands in `numbers` {self._habits[one.finding]} times"

    def _names(self, *names: str) -> Iterator[str]:
        for name in names:
            if name not in self._findings:
                yield f"there is no finding {name!r}"
            elif name == self._compares:
                yield f"{name} belongs to `agreement` alone"
            elif name in self._unsayable:
                yield f"{name} says that the report contradicts itself: it belongs to `agreement`, or nowhere"

    def _values(self, name: str, values: Sequence[str], *, silence: bool = False) -> Iterator[str]:
        if name in self._findings:
            there = (*(self._findings[name].values or (NUMBER,)), *((NOT_STATED,) if silence else ()))
            yield from (
                f"finding {name} has no value {value!r}; it has: {', '.join(there)}"
                for value in values
                if value not in there
            )

    def _closed_value(self, name: str, value: str) -> Iterator[str]:
        if name not in self._findings:
            yield f"there is no finding {name!r}"
        elif self._findings[name].values is None:
            yield f"{name} is a number"
        else:
            yield from self._values(name, (value,))


def _lost_rules(plan: Plan, answer: WrittenFrame) -> list[str]:
    """Rules that no report can come under by this answer, although one could without it."""
    speakable = {finding.name: tuple(finding.values or (NUMBER,)) for finding in plan.findings}
    follows = {one.finding for one in answer.derived}
    if answer.agreement is not None:
        follows.add(answer.agreement.finding)
    if not (answer.dependencies or follows):
        return []
    dependencies = [Dependency.model_validate(one.model_dump()) for one in answer.dependencies]
    free, bound = TargetDraw(plan), TargetDraw(plan, dependencies=dependencies, apart=follows)
    without = free.reachable(speakable)
    within = bound.reachable(speakable, among=without)
    return [stratum.rule for stratum in without if stratum not in within]


def _told(rule: str) -> str:
    return f"rule {rule}: no report could come under it with these dependencies and derived findings"
