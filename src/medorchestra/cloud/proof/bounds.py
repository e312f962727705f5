"""Bounds of rules, values and labels against the words beside them: exactly 180 degrees falls where it is said to.

A rule is held against its quote, and where that compares no number, against the sentence of the guideline it stands
in; a value against its own description and its label. Where the words compare nothing, nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from medorchestra.cloud.guideline import Guideline
from medorchestra.cloud.proof.comparisons import (
    ABOVE,
    AT_LEAST,
    AT_MOST,
    BELOW,
    EXACTLY,
    Comparison,
    Sides,
    comparisons_in,
)
from medorchestra.cloud.proof.problems import Problem, ProblemKind
from medorchestra.plan import Citation, Finding, Plan, Rule
from medorchestra.rules import Bounds, Condition, In, Is, Not, children_of

_COMPLEMENT = re.compile(r"\b(otherwise|unless|else|except|all others?|remaining|the rest)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z])")
_EVERYWHERE: Sides = (True, True, True)


def prove_bounds(plan: Plan, guideline: Guideline) -> tuple[list[Problem], dict[str, int]]:
    """Every bound of rules, values and labels that contradicts the words beside it."""
    problems: list[Problem] = []
    compared = 0
    for rule in plan.all_rules:
        for claim in _claims_of(rule, plan):
            compared += 1
            problems += _against_guideline(claim, rule, guideline)
    for finding in plan.findings:
        problems += _values_against_words(finding, plan)
        problems += _values_that_do_not_meet(finding)
    return problems, {"bounds compared": compared}


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a rule or a value says around a number."""

    finding: str
    unit: str | None
    number: float
    sides: Sides

    def words(self) -> str:
        return str(Comparison(self.number, self.unit, self.sides))


def unit_of(finding: Finding) -> str | None:
    """The unit of a number, or of the numbers in the names of values."""
    if finding.number is not None:
        return finding.number.unit
    texts = (*(finding.values or {}).values(), finding.description)
    units = {comparison.unit for text in texts for comparison in comparisons_in(text) if comparison.unit}
    return units.pop() if len(units) == 1 else None


def bounds_of(condition: Condition, plan: Plan) -> Mapping[tuple[str, float], Sides]:
    """(finding, number) -> what a condition says around the number, its alternatives taken together.

    Counts are told as inclusive bounds: above 3 is at least 4. Parts that the condition asks are not looked into.
    """
    claims: dict[tuple[str, float], Sides] = {}
    for finding, number, sides in _bounds(condition, plan, negated=False):
        before = claims.get((finding, number), (False, False, False))
        claims[(finding, number)] = _either(before, sides)
    return claims


def _either(first: Sides, second: Sides) -> Sides:
    return first[0] or second[0], first[1] or second[1], first[2] or second[2]


def _opposite(sides: Sides) -> Sides:
    return not sides[0], not sides[1], not sides[2]


def _bounds(condition: Condition, plan: Plan, *, negated: bool) -> Iterator[tuple[str, float, Sides]]:
    if isinstance(condition, Not):
        yield from _bounds(condition.not_, plan, negated=not negated)
    elif isinstance(condition, Is | In):
        values = (condition.is_,) if isinstance(condition, Is) else condition.in_
        together: dict[float, Sides] = {}
        for comparison in (comparison for value in values for comparison in comparisons_in(value)):
            before = together.get(comparison.number, (False, False, False))
            together[comparison.number] = _either(before, comparison.sides)
        for number, sides in together.items():
            yield condition.finding, number, _opposite(sides) if negated else sides
    elif isinstance(condition, Bounds):
        numbers = plan.finding(condition.finding).number
        whole = numbers is not None and numbers.numbers.whole
        for kind, bound in (
            (ABOVE, condition.above),
            (AT_LEAST, condition.at_least),
            (BELOW, condition.below),
            (AT_MOST, condition.at_most),
        ):
            if bound is not None:
                exactly = condition.at_least == condition.at_most == bound
                yield condition.finding, *_told(bound, EXACTLY if exactly else kind, whole=whole, negated=negated)
    for part in () if isinstance(condition, Not) else children_of(condition):
        yield from _bounds(part, plan, negated=negated)


def _told(number: float, sides: Sides, *, whole: bool, negated: bool) -> tuple[float, Sides]:
    """A comparison as it is told: of a count, as an inclusive one."""
    sides = _opposite(sides) if negated else sides
    if whole and sides == ABOVE:
        return number + 1, AT_LEAST
    if whole and sides == BELOW:
        return number - 1, AT_MOST
    return number, sides


def _claims_of(rule: Rule, plan: Plan) -> Iterator[_Claim]:
    for (name, number), sides in bounds_of(rule.when, plan).items():
        if sides != _EVERYWHERE:
            yield _Claim(name, unit_of(plan.finding(name)), number, sides)


def _in_unit(comparisons: Iterable[Comparison], unit: str | None) -> list[Comparison]:
    """The comparisons that can be about this unit; those of counts as inclusive ones."""
    fitting = [one for comparison in comparisons if (one := comparison.in_unit(unit)) is not None]
    if unit != "count":
        return fitting
    told = ((one, *_told(one.number, one.sides, whole=True, negated=False)) for one in fitting)
    return [Comparison(number, one.unit, sides) for one, number, sides in told]


# --------------------------------------------------------------- rules and guideline


def _against_guideline(claim: _Claim, rule: Rule, guideline: Guideline) -> Iterator[Problem]:
    quote = rule.citation.quote
    said = _in_unit(comparisons_in(quote), claim.unit)
    own_words = bool(said)
    text = quote if own_words else _sentence_of(rule.citation, guideline)
    said = said or _in_unit(comparisons_in(text), claim.unit)
    allowed = {comparison.sides for comparison in said if comparison.number == claim.number}
    if not own_words or _COMPLEMENT.search(text):
        allowed |= {_opposite(sides) for sides in allowed}
    words = ", ".join(str(comparison) for comparison in said)
    place = f"section {rule.citation.section} says: {words}"
    if allowed and claim.sides not in allowed:
        message = f"asks {claim.finding} {claim.words()}, but {place}"
        yield Problem(ProblemKind.BOUNDARY, f"rule {rule.id}", message)
    named_elsewhere = [comparison for comparison in said if claim.unit and comparison.unit == claim.unit]
    if own_words and not allowed and named_elsewhere and claim.unit != "count":
        message = f"asks {claim.finding} {claim.words()}, a bound that its quote does not name; {place}"
        yield Problem(ProblemKind.BOUNDARY, f"rule {rule.id}", message)


def _sentence_of(citation: Citation, guideline: Guideline) -> str:
    """The sentences of the section in which the quote stands."""
    section = guideline.sections.get(citation.section)
    text = " ".join(section.text.split()) if section else ""
    quote = " ".join(citation.quote.split())
    at = text.find(quote)
    if at < 0:
        return ""
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(text))]
    start = max(position for position in starts if position <= at)
    end = min((position for position in starts if position >= at + len(quote)), default=len(text))
    return text[start:end]


# --------------------------------------------------------------- values and their words


def _values_against_words(finding: Finding, plan: Plan) -> Iterator[Problem]:
    labels = next((subtask.labels for subtask in plan.subtasks if subtask.finding == finding.name), {})
    for value, description in (finding.values or {}).items():
        for what, text in (("described", description), ("labelled", labels.get(value, ""))):
            said = comparisons_in(text)
            for claim in comparisons_in(value):
                allowed = {comparison.sides for comparison in said if comparison.number == claim.number}
                elsewhere = not allowed and any(comparison.unit for comparison in said)
                if elsewhere or (allowed and claim.sides not in allowed):
                    words = ", ".join(str(comparison) for comparison in said)
                    message = f"its name says {claim}, but it is {what} as {words}"
                    yield Problem(ProblemKind.BOUNDARY, f"finding {finding.name}, value {value}", message)


def _values_that_do_not_meet(finding: Finding) -> Iterator[Problem]:
    """A number between two values that belongs to none of them, or to both."""
    around: dict[float, set[Sides]] = {}
    for value, description in (finding.values or {}).items():
        for comparison in comparisons_in(value) or comparisons_in(description):
            around.setdefault(comparison.number, set()).add(comparison.sides)
    for number, kinds in around.items():
        lower = {sides[1] for sides in kinds if sides[0] and not sides[2]}
        upper = {sides[1] for sides in kinds if sides[2] and not sides[0]}
        if not lower or not upper or EXACTLY in kinds:
            continue
        at = (True in lower) + (True in upper)
        if at != 1:
            message = f"{number:g} belongs to {'no value' if at == 0 else 'two values'}"
            yield Problem(ProblemKind.BOUNDARY, f"finding {finding.name}", message)
