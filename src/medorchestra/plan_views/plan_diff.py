"""What changed between two plans: findings, rules, prompts, and what that does to decisions and synthetic cases.

Decisions are compared exactly, over all combinations of stated findings that both plans know, not on a sample. Says
what differs, never which is right.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medorchestra.decision_diagram import DecisionTable
from medorchestra.errors import RuleError
from medorchestra.plan import Finding, Plan
from medorchestra.plan_pieces import PlanPiece
from medorchestra.plan_views.condition_text import condition_text
from medorchestra.rules import (
    AllOf,
    AnyOf,
    Condition,
    DecisionRule,
    Domain,
    In,
    Not,
    Numbers,
    OptionIs,
    PartIn,
    expand_parts,
    findings_in,
)
from medorchestra.synthetic import SyntheticCase

NO_OUTCOME = "no rule holds"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that changed.

    Attributes:
        what: `finding sma_contact`, `rule aorta`, `subtask ca_contact, prompt`.
        how: added, removed, moved, or what is different.
        lines: a unified diff where texts changed.
    """

    what: str
    how: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CaseChange:
    """A synthetic case that comes out otherwise.

    Attributes:
        case: its id.
        before, after: outcome, or the outcomes that remain possible, joined by `or`; `does not fit` where the case has
            findings or values that the plan does not know.
    """

    case: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class DecisionChange:
    """Combinations of stated findings that are decided otherwise.

    Attributes:
        before, after: outcomes; `no rule holds` where there is none.
        combinations: how many.
        example: one of them, told by the findings that matter.
    """

    before: str
    after: str
    combinations: int
    example: Mapping[str, str | float]


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """The difference between two plans.

    Attributes:
        changes: of the plans themselves, in the order of a plan.
        cases: that come out otherwise.
        cases_compared: all that were looked at.
        decisions: final decisions that differ; None where they could not be compared.
        combinations: of the stated findings that the rules ask, with values that both plans know: all were compared.
        not_compared: why decisions could not be compared.
    """

    changes: tuple[Change, ...]
    cases: tuple[CaseChange, ...]
    cases_compared: int
    decisions: tuple[DecisionChange, ...] | None
    combinations: int
    not_compared: str = ""

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.changes or self.cases or self.decisions or self.decisions is None)

    def lines(self) -> list[str]:
        """For a terminal."""
        lines: list[str] = []
        for change in self.changes:
            lines.append(f"{change.what}: {change.how}")
            lines += [f"    {line}" for line in change.lines]
        if self.decisions is None:
            lines.append(f"decisions: not compared: {self.not_compared}")
        else:
            lines += self._decision_lines(self.decisions)
        lines.append(f"cases: {len(self.cases)} of {self.cases_compared} come out otherwise")
        lines += [f"    {case.case}: {case.before} -> {case.after}" for case in self.cases]
        return lines

    def _decision_lines(self, decisions: Sequence[DecisionChange]) -> Iterator[str]:
        differing = sum(change.combinations for change in decisions)
        yield f"decisions: {differing:,} of {self.combinations:,} combinations of stated findings are decided otherwise"
        for change in decisions:
            values = (
                f"{name}={value if isinstance(value, str) else f'{value:g}'}" for name, value in change.example.items()
            )
            example = ", ".join(values) or "any findings"
            yield f"    {change.before} -> {change.after}: {change.combinations:,}, such as {example}"


def diff_plans(before: Plan, after: Plan, cases: Iterable[SyntheticCase] = ()) -> PlanDiff:
    """Compare two plans.

    Args:
        before, after: the plans.
        cases: synthetic cases to decide by both. A finding that a plan does not have is left out for it; one that a
            case does not have is unknown.
    """
    cases = tuple(cases)
    changes = (
        *_head_changes(before, after),
        *_finding_changes(before, after),
        *_subtask_changes(before, after),
        *_rule_changes(before, after),
        *_flag_changes(before, after),
    )
    try:
        decisions, combinations = _Comparison(before, after).run()
    except RuleError as error:
        return PlanDiff(changes, _case_changes(before, after, cases), len(cases), None, 0, str(error))
    return PlanDiff(changes, _case_changes(before, after, cases), len(cases), decisions, combinations)


# --------------------------------------------------------------------------- pieces


def _fields_that_differ(before: PlanPiece, after: PlanPiece, leave_out: Iterable[str] = ()) -> tuple[str, ...]:
    names = [name for name in type(before).model_fields if name not in leave_out]
    return tuple(name for name in names if getattr(before, name) != getattr(after, name))


def _pairs(
    what: str, before: Mapping[str, PlanPiece], after: Mapping[str, PlanPiece]
) -> tuple[list[Change], list[str]]:
    """What was added and removed, and the names that both have and that differ."""
    changes = [Change(f"{what} {name}", "removed") for name in before if name not in after]
    changes += [Change(f"{what} {name}", "added") for name in after if name not in before]
    return changes, [name for name in before if name in after and before[name] != after[name]]


def _text_diff(before: str, after: str) -> tuple[str, ...]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="", n=1)
    return tuple(lines)


def _said(value: object) -> str:
    return "nothing" if value is None else repr(value) if isinstance(value, str) else str(value)


def _told(before: PlanPiece, after: PlanPiece, names: Iterable[str]) -> str:
    return "; ".join(f"{name}: {_said(getattr(before, name))} -> {_said(getattr(after, name))}" for name in names)


def _head_changes(before: Plan, after: Plan) -> Iterator[Change]:
    names = ("topic", "title")
    changed = [name for name in names if getattr(before, name) != getattr(after, name)]
    if changed:
        yield Change("plan", _told(before, after, changed))
    fields = _fields_that_differ(before.guideline, after.guideline)
    if fields:
        yield Change("guideline", _told(before.guideline, after.guideline, fields))
    fields = _fields_that_differ(before.scope, after.scope)
    if fields:
        yield Change("scope", f"{', '.join(fields)} changed")
    fields = _fields_that_differ(before.profile, after.profile, ("head",))
    if fields:
        yield Change("profile", _told(before.profile, after.profile, fields))
    yield from _prompt_changes("profile, head", before.profile.head, after.profile.head)
    owners = [("", before.outcomes, after.outcomes)]
    parts = {part.name: part for part in after.parts}
    owners += [
        (f"part {part.name}, ", part.outcomes, parts[part.name].outcomes) for part in before.parts if part.name in parts
    ]
    for owner, old, new in owners:
        first, second = {one.name: one for one in old}, {one.name: one for one in new}
        changes, differing = _pairs(f"{owner}outcome", first, second)
        yield from changes
        for name in differing:
            yield Change(f"{owner}outcome {name}", _told(first[name], second[name], ("description",)))
    yield from _pairs("part", {part.name: part for part in before.parts}, parts)[0]
    options_before = {option.name: option for option in before.options}
    options_after = {option.name: option for option in after.options}
    changes, differing = _pairs("option", options_before, options_after)
    yield from changes
    for name in differing:
        old_option, new_option = options_before[name], options_after[name]
        yield Change(f"option {name}", _told(old_option, new_option, _fields_that_differ(old_option, new_option)))


def _finding_changes(before: Plan, after: Plan) -> Iterator[Change]:
    old, new = {one.name: one for one in before.findings}, {one.name: one for one in after.findings}
    changes, differing = _pairs("finding", old, new)
    yield from changes
    for name in differing:
        yield Change(f"finding {name}", "; ".join(_about_finding(old[name], new[name])))


def _about_finding(before: Finding, after: Finding) -> Iterator[str]:
    old, new = before.values or {}, after.values or {}
    for how, values in (
        ("values removed", [value for value in old if value not in new]),
        ("values added", [value for value in new if value not in old]),
        ("described anew", [value for value in old if value in new and old[value] != new[value]]),
    ):
        if values:
            yield f"{how}: {', '.join(values)}"
    if before.description != after.description:
        yield f"description: {before.description!r} -> {after.description!r}"
    if before.number != after.number:
        yield f"number: {before.number or 'none'} -> {after.number or 'none'}"
    fields = _fields_that_differ(before.not_stated, after.not_stated)
    if fields:
        yield f"silence: {_told(before.not_stated, after.not_stated, fields)}"
    if list(old) != list(new) and set(old) == set(new):
        yield "order of the values"


def _prompt_changes(what: str, before: PlanPiece, after: PlanPiece) -> Iterator[Change]:
    for form in _fields_that_differ(before, after):
        diff = _text_diff(getattr(before, form) or "", getattr(after, form) or "")
        yield Change(what, f"{form} prompt changed", diff)


def _subtask_changes(before: Plan, after: Plan) -> Iterator[Change]:
    old, new = {one.id: one for one in before.subtasks}, {one.id: one for one in after.subtasks}
    changes, differing = _pairs("subtask", old, new)
    yield from changes
    for name in differing:
        yield from _prompt_changes(f"subtask {name}", old[name].prompt, new[name].prompt)
        fields = _fields_that_differ(old[name], new[name], ("prompt",))
        if fields:
            yield Change(f"subtask {name}", f"{', '.join(fields)} changed")


def _owner_of_rules(plan: Plan) -> dict[str, str]:
    owners = {rule.id: f"part {part.name}" for part in plan.parts for rule in part.rules}
    return owners | {rule.id: "final decision" for rule in plan.rules}


def _rule_changes(before: Plan, after: Plan) -> Iterator[Change]:
    old, new = {rule.id: rule for rule in before.all_rules}, {rule.id: rule for rule in after.all_rules}
    owners_before, owners_after = _owner_of_rules(before), _owner_of_rules(after)
    changes, differing = _pairs("rule", old, new)
    yield from changes
    for name in differing:
        yield Change(f"rule {name}", "; ".join(_about_rule(name, before, after)))
    kept = [name for name in old if name in new]
    order = [name for name in new if name in old]
    # The longest common run stays; what is not in it has moved.
    matcher = difflib.SequenceMatcher(None, kept, order, autojunk=False)
    stayed = {name for block in matcher.get_matching_blocks() for name in kept[block.a : block.a + block.size]}
    for name in kept:
        if owners_before[name] != owners_after[name]:
            yield Change(f"rule {name}", f"moved from {owners_before[name]} to {owners_after[name]}")
        elif name not in stayed:
            beside = [other for other in order if owners_after[other] == owners_after[name]]
            place = beside.index(name)
            yield Change(f"rule {name}", f"moved, now {f'after rule {beside[place - 1]}' if place else 'first'}")


def _about_rule(rule_id: str, before: Plan, after: Plan) -> Iterator[str]:
    old, new = before.rule(rule_id), after.rule(rule_id)
    if old.when != new.when:
        yield f"condition: {condition_text(old.when, before)} -> {condition_text(new.when, after)}"
    if old.outcome != new.outcome:
        yield f"outcome: {old.outcome} -> {new.outcome}"
    for field in ("citation", "note"):
        if getattr(old, field) != getattr(new, field):
            yield f"{field} changed"


def _flag_changes(before: Plan, after: Plan) -> Iterator[Change]:
    old, new = {flag.id: flag for flag in before.flags}, {flag.id: flag for flag in after.flags}
    changes, differing = _pairs("flag", old, new)
    yield from changes
    for name in differing:
        yield Change(f"flag {name}", f"{', '.join(_fields_that_differ(old[name], new[name]))} changed")
    if before.undecidable != after.undecidable:
        yield Change("undecidable", f"{len(before.undecidable)} declared -> {len(after.undecidable)} declared")


# ------------------------------------------------------------------------ decisions


class _Comparison:
    """Both decisions as one rule list for each outcome of the first: "the first gives it, and the second that"."""

    def __init__(self, before: Plan, after: Plan) -> None:
        self.before = _options_apart(before, "before")
        self.after = _options_apart(after, "after")
        self.options = {f"before.{name}": setting for name, setting in before.option_settings.items()}
        self.options |= {f"after.{name}": setting for name, setting in after.option_settings.items()}
        self.domains, self.shared = _joined_domains(before, after)

    def run(self) -> tuple[tuple[DecisionChange, ...], int]:
        asked = {name for rule in (*self.before, *self.after) for name in findings_in(rule.when)}
        changes: list[DecisionChange] = []
        total = 0
        for outcome, condition in self._ways(self.before):
            table = DecisionTable(self._second(condition), self.domains, self.options)
            values = {name: self.shared.get(name) or table.stated_values(name) for name in asked}
            total = max(total, math.prod(len(found) for found in values.values()))
            alike = {name: dict.fromkeys(found, 1 / len(found)) for name, found in values.items()}
            shares = table.probabilities(alike).outcomes
            for other in (other for other in shares if other != outcome):
                rules = [rule.rule for rule in table.rules if rule.outcome == other]
                example = next((found for rule in rules if (found := table.example(rule)) is not None), None)
                if example is not None:
                    changes.append(DecisionChange(outcome, other, round(shares[other] * total), example))
        return tuple(changes), total

    @staticmethod
    def _ways(rules: Sequence[DecisionRule]) -> Iterator[tuple[str, Condition]]:
        """Each outcome, and the condition under which the rules come to it."""
        for outcome in dict.fromkeys(rule.outcome for rule in rules):
            yield outcome, expand_parts(PartIn(part="one", **{"in": (outcome,)}), {"one": rules})
        yield NO_OUTCOME, Not(**{"not": AnyOf(any=tuple(rule.when for rule in rules))})

    def _second(self, first: Condition) -> list[DecisionRule]:
        """The second plan's rules where the first one's condition holds, among values that both know."""
        known = tuple(In(finding=name, **{"in": values}) for name, values in self.shared.items())
        first = AllOf(all=(first, *known))
        rules = [DecisionRule(f"{i}", rule.outcome, AllOf(all=(first, rule.when))) for i, rule in enumerate(self.after)]
        return [*rules, DecisionRule("none", NO_OUTCOME, first)]


def _options_apart(plan: Plan, owner: str) -> list[DecisionRule]:
    """The final rules, with options that keep the settings of their own plan."""

    def renamed(condition: Condition) -> Condition:
        if isinstance(condition, OptionIs):
            return OptionIs(option=f"{owner}.{condition.option}", **{"is": condition.is_})
        if isinstance(condition, Not):
            return Not(**{"not": renamed(condition.not_)})
        if isinstance(condition, AllOf):
            return AllOf(all=tuple(map(renamed, condition.all)))
        return AnyOf(any=tuple(map(renamed, condition.any))) if isinstance(condition, AnyOf) else condition

    return [DecisionRule(rule.rule, rule.outcome, renamed(rule.when)) for rule in plan.decision_table.rules]


def _joined_domains(before: Plan, after: Plan) -> tuple[tuple[Domain, ...], dict[str, tuple[str, ...]]]:
    """The findings of both with the values of either, and of those whose values differ, the values of both.

    Raises:
        RuleError: a finding of both has no value in common.
    """
    domains: dict[str, Domain] = {}
    shared: dict[str, tuple[str, ...]] = {}
    for domain in (*before.domains, *after.domains):
        name, other = domain.finding, domains.get(domain.finding)
        if other is None:
            domains[name] = Domain(name, domain.values, numbers=domain.numbers)
        elif other.values is not None and domain.values is not None:
            values = tuple(dict.fromkeys((*other.values, *domain.values)))
            if set(other.values) != set(domain.values):
                shared[name] = tuple(value for value in domain.values if value in other.values)
            domains[name] = Domain(name, values)
        elif other.values is domain.values:
            numbers = Numbers(
                max(other.numbers.minimum, domain.numbers.minimum),
                min(other.numbers.maximum, domain.numbers.maximum),
                whole=other.numbers.whole or domain.numbers.whole,
            )
            domains[name] = Domain(name, None, numbers=numbers)
        else:
            shared[name] = ()
        if shared.get(name) == ():
            raise RuleError(f"finding {name!r} has no value that both plans know")
    return tuple(domains.values()), shared


# ---------------------------------------------------------------------------- cases


def _case_changes(before: Plan, after: Plan, cases: Iterable[SyntheticCase]) -> tuple[CaseChange, ...]:
    changes: list[CaseChange] = []
    for case in cases:
        first, second = _outcome_of(case, before), _outcome_of(case, after)
        if first != second:
            changes.append(CaseChange(case.id, first, second))
    return tuple(changes)


def _outcome_of(case: SyntheticCase, plan: Plan) -> str:
    names = {finding.name for finding in plan.findings}
    known = {name: value for name, value in case.known().items() if name in names}
    try:
        verdict = plan.decision_table.decide(known)
    except (RuleError, ValueError):
        return "does not fit"
    if verdict.outcome is not None:
        return verdict.outcome
    return " or ".join((*verdict.possible, *([NO_OUTCOME] if verdict.gap else [])))
