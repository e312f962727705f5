"""The rule language: typed conditions over findings, three-valued, pure.

Rules are read in order and the first that holds decides. A condition is data (a tree of `all`, `any`, `not`, `is`,
`in`, numeric bounds, plan options and earlier parts of the decision), never code. `evaluate` is Kleene's strong
three-valued logic; `decide` and `probabilities` are exact, over all completions of what is not known (see
`decision_diagram`). Knows nothing of models, prompts or reports.

Three states of a finding must not be confused:
    a value        the report states it;
    NOT_STATED     the report was read and is silent: the plan says what silence means, finding by finding;
    unknown        nobody managed to read it (a failed answer): any stated value remains possible.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from medorchestra.errors import RuleError

NOT_STATED: Literal["not_stated"] = "not_stated"

Known: TypeAlias = Mapping[str, str | float | None]
"""What is known of a report: finding -> value, `NOT_STATED`, or None (or absent) for unknown."""


class _Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True)


class AllOf(_Node):
    """Holds when every part holds; false when one is false."""

    all: tuple[Condition, ...] = Field(min_length=1)


class AnyOf(_Node):
    """Holds when one part holds; false when all are false."""

    any: tuple[Condition, ...] = Field(min_length=1)


class Not(_Node):
    """Holds when the part is false; unknown stays unknown."""

    not_: Condition = Field(alias="not")


class Is(_Node):
    """The finding has this value."""

    finding: str
    is_: str = Field(alias="is")


class In(_Node):
    """The finding has one of these values."""

    finding: str
    in_: tuple[str, ...] = Field(alias="in", min_length=1)


class Bounds(_Node):
    """The number lies within these bounds, in the finding's unit. `above` and `below` exclude the bound itself."""

    finding: str
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Bounds:
        given = [bound for bound in (self.above, self.at_least, self.below, self.at_most) if bound is not None]
        if not given:
            raise ValueError("give at least one of above, at_least, below, at_most")
        if not all(math.isfinite(bound) for bound in given):
            raise ValueError("bounds must be finite numbers")
        return self

    def holds(self, number: float) -> bool:
        """Whether this number lies within the bounds."""
        return not (
            (self.above is not None and number <= self.above)
            or (self.at_least is not None and number < self.at_least)
            or (self.below is not None and number >= self.below)
            or (self.at_most is not None and number > self.at_most)
        )

    @property
    def cuts(self) -> tuple[float, ...]:
        """The numbers at which the truth of this condition can change."""
        return tuple(b for b in (self.above, self.at_least, self.below, self.at_most) if b is not None)


class OptionIs(_Node):
    """A named option of the plan has this setting: known before any report is read."""

    option: str
    is_: str = Field(alias="is")


class PartIn(_Node):
    """An earlier part of the decision (the T of a TNM stage) comes out as one of these. See `expand_parts`."""

    part: str
    in_: tuple[str, ...] = Field(alias="in", min_length=1)


def _kind_of(value: Any) -> str | None:
    """Which condition a mapping (or an already built node) is, by its keys."""
    if isinstance(value, _Node):
        return type(value).__name__
    if not isinstance(value, Mapping):
        return None
    keys = set(value)
    for key, kind in (("all", "AllOf"), ("any", "AnyOf"), ("not", "Not"), ("option", "OptionIs"), ("part", "PartIn")):
        if key in keys:
            return kind
    if "is" in keys:
        return "Is"
    return "In" if "in" in keys else "Bounds"


Condition: TypeAlias = Annotated[
    Annotated[AllOf, Tag("AllOf")]
    | Annotated[AnyOf, Tag("AnyOf")]
    | Annotated[Not, Tag("Not")]
    | Annotated[Is, Tag("Is")]
    | Annotated[In, Tag("In")]
    | Annotated[Bounds, Tag("Bounds")]
    | Annotated[OptionIs, Tag("OptionIs")]
    | Annotated[PartIn, Tag("PartIn")],
    Discriminator(
        _kind_of,
        custom_error_type="condition",
        custom_error_message="not a condition: expected all, any, not, option, part, or finding with is, in or bounds",
    ),
]

for _model in (AllOf, AnyOf, Not):
    _model.model_rebuild()


def children_of(condition: Condition) -> tuple[Condition, ...]:
    """The direct parts of a condition; empty for a leaf."""
    if isinstance(condition, AllOf):
        return condition.all
    if isinstance(condition, AnyOf):
        return condition.any
    return (condition.not_,) if isinstance(condition, Not) else ()


def leaves_of(condition: Condition) -> Iterable[Is | In | Bounds | OptionIs | PartIn]:
    """All leaves, left to right."""
    if isinstance(condition, Is | In | Bounds | OptionIs | PartIn):
        yield condition
    for part in children_of(condition):
        yield from leaves_of(part)


def findings_in(condition: Condition) -> tuple[str, ...]:
    """Names of the findings a condition itself looks at, in order of appearance, without repeats."""
    named = (leaf.finding for leaf in leaves_of(condition) if not isinstance(leaf, OptionIs | PartIn))
    return tuple(dict.fromkeys(named))


def evaluate(condition: Condition, known: Known, options: Mapping[str, str] | None = None) -> bool | None:
    """Kleene's strong three-valued logic: True, False, or None for unknown.

    Silence counts as unknown here; where a plan reads silence as a value, pass that value in `known`. So does a part
    of the decision that `expand_parts` has not expanded.
    If the result is not None, every completion of the unknown findings gives the same result.
    """
    if isinstance(condition, OptionIs):
        setting = (options or {}).get(condition.option)
        return None if setting is None else setting == condition.is_
    if isinstance(condition, PartIn):
        return None
    if isinstance(condition, Is | In | Bounds):
        return _evaluate_leaf(condition, known.get(condition.finding))
    results = [evaluate(part, known, options) for part in children_of(condition)]
    if isinstance(condition, Not):
        return None if results[0] is None else not results[0]
    decisive = isinstance(condition, AnyOf)
    if decisive in results:
        return decisive
    return None if None in results else not decisive


def _evaluate_leaf(condition: Is | In | Bounds, value: str | float | None) -> bool | None:
    if value is None or value == NOT_STATED:
        return None
    if isinstance(condition, Bounds):
        return condition.holds(float(value))
    return value == condition.is_ if isinstance(condition, Is) else value in condition.in_


@dataclass(frozen=True, slots=True)
class Silence:
    """What NOT_STATED means for the outcome.

    Attributes:
        reads_as: the value silence is read as, or None: unknown.
        if_stated: silence is read so only where the report states this other finding; else it is unknown.
        unless: silence is unknown all the same where this holds.

    The findings that `if_stated` and `unless` look at must themselves be silent without such conditions.
    """

    reads_as: str | None = None
    if_stated: str | None = None
    unless: Condition | None = None

    @property
    def looks_at(self) -> tuple[str, ...]:
        """Other findings on which the meaning of this silence depends."""
        stated = (self.if_stated,) if self.if_stated is not None else ()
        return tuple(dict.fromkeys((*stated, *(findings_in(self.unless) if self.unless is not None else ()))))


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers that a finding can be, both ends included; `whole` for counts."""

    minimum: float = -math.inf
    maximum: float = math.inf
    whole: bool = False

    def holds(self, number: float) -> bool:
        """Whether the finding can be this number."""
        return self.minimum <= number <= self.maximum and (not self.whole or number == math.floor(number))

    def __str__(self) -> str:
        return f"{'whole, ' if self.whole else ''}from {self.minimum:g} to {self.maximum:g}"


@dataclass(frozen=True, slots=True)
class Domain:
    """The values a finding can take.

    Attributes:
        finding: its name.
        values: its closed values, or None for a number.
        silence: what NOT_STATED means.
        prior: weight of each value where the truth is unknown; uniform where none is given. Touches probabilities
            only, never which outcomes are possible.
        numbers: of a number: which numbers there are.
    """

    finding: str
    values: tuple[str, ...] | None
    silence: Silence = field(default_factory=Silence)
    prior: Mapping[str, float] | None = None
    numbers: Numbers = Numbers()


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """One rule as the decision needs it: the first whose condition holds gives its outcome."""

    rule: str
    outcome: str
    when: Condition


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows for certain from what is known.

    Attributes:
        outcome: the outcome, when every completion of the unknown leads to it; otherwise None.
        possible: all outcomes some completion leads to, in the order of the rules.
        rule: the deciding rule, when every completion is decided by it; otherwise None.
        possible_rules: all rules that decide some completion.
        missing: findings that, once stated, would settle an open verdict whatever they say; none of them could be
            left out. Empty when `outcome` is given.
        gap: True when for some completion no rule holds at all.
    """

    outcome: str | None
    possible: tuple[str, ...]
    rule: str | None
    possible_rules: tuple[str, ...]
    missing: tuple[str, ...]
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Probability of every outcome and every rule; `no_rule` is the share that no rule decides. Sums to one."""

    outcomes: Mapping[str, float]
    rules: Mapping[str, float]
    no_rule: float


def expand_parts(condition: Condition, parts: Mapping[str, Sequence[DecisionRule]]) -> Condition:
    """The same condition over findings alone: a part becomes "a rule of it for these outcomes is first to hold".

    Args:
        condition: may look at parts.
        parts: name -> its rules, in order, themselves expanded.

    Raises:
        RuleError: unknown part, or an outcome that none of its rules gives.
    """
    if isinstance(condition, AllOf):
        return AllOf(all=tuple(expand_parts(part, parts) for part in condition.all))
    if isinstance(condition, AnyOf):
        return AnyOf(any=tuple(expand_parts(part, parts) for part in condition.any))
    if isinstance(condition, Not):
        return Not(**{"not": expand_parts(condition.not_, parts)})
    if not isinstance(condition, PartIn):
        return condition
    rules = parts.get(condition.part)
    if rules is None:
        raise RuleError(f"unknown part {condition.part!r}; parts before it: {', '.join(parts) or 'none'}")
    never = sorted(set(condition.in_) - {rule.outcome for rule in rules})
    if never:
        raise RuleError(f"no rule of part {condition.part!r} gives {', '.join(never)}")
    ways: list[Condition] = []
    for i, rule in enumerate(rules):
        if rule.outcome in condition.in_:
            earlier = tuple(before.when for before in rules[:i] if before.outcome not in condition.in_)
            ways.append(AllOf(all=(rule.when, Not(**{"not": AnyOf(any=earlier)}))) if earlier else rule.when)
    return AnyOf(any=tuple(ways))


def check_rules(rules: Sequence[DecisionRule], domains: Sequence[Domain], options: Mapping[str, str]) -> None:
    """Refuse rules that name what is not there.

    Raises:
        RuleError: names the rule and the unknown finding, value or option.
    """
    by_name = {domain.finding: domain for domain in domains}
    for rule in rules:
        _check_condition(rule.when, by_name, options, f"rule {rule.rule!r}")
    for domain in domains:
        where = f"finding {domain.finding!r}, not_stated"
        if domain.silence.unless is not None:
            _check_condition(domain.silence.unless, by_name, options, where)
        for name in domain.silence.looks_at:
            if name not in by_name:
                raise RuleError(f"{where}: unknown finding {name!r}; there are: {', '.join(by_name)}")
            if by_name[name].silence.looks_at or name == domain.finding:
                raise RuleError(f"{where}: looks at {name!r}, whose own silence has conditions")


def _check_condition(
    condition: Condition, by_name: Mapping[str, Domain], options: Mapping[str, str], where: str
) -> None:
    for leaf in leaves_of(condition):
        if isinstance(leaf, OptionIs):
            if leaf.option not in options:
                raise RuleError(f"{where}: unknown option {leaf.option!r}; there are: {', '.join(options) or 'none'}")
            continue
        if isinstance(leaf, PartIn):
            raise RuleError(f"{where}: looks at part {leaf.part!r}, which cannot be asked here")
        domain = by_name.get(leaf.finding)
        if domain is None:
            raise RuleError(f"{where}: unknown finding {leaf.finding!r}; there are: {', '.join(by_name)}")
        if isinstance(leaf, Bounds) != (domain.values is None):
            needs = "bounds (above, at_least, below, at_most)" if domain.values is None else "`is` or `in`"
            raise RuleError(f"{where}: finding {leaf.finding!r} needs {needs}")
        if isinstance(leaf, Bounds):
            continue
        for value in (leaf.is_,) if isinstance(leaf, Is) else leaf.in_:
            if value not in (domain.values or ()):
                has = ", ".join(domain.values or ())
                raise RuleError(f"{where}: finding {leaf.finding!r} has no value {value!r}; it has: {has}")
