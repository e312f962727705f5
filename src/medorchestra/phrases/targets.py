"""Targets by chance: complete sets of findings that a report shall state so that a wanted rule decides it.

Drawn evenly over rules (or outcomes), not over values, so that rare rules come up as often as common ones; consistent
(no contradiction of the plan, no value without the one it rests on); silent here and there without losing the rule.
Pure and seeded: the caller hands in the generator. Knows plans; writes no report.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from medorchestra.decision_diagram import DecisionTable
from medorchestra.plan import Plan
from medorchestra.plan_pieces import Finding
from medorchestra.rules import (
    NOT_STATED,
    AllOf,
    Bounds,
    Condition,
    DecisionRule,
    In,
    Is,
    Not,
    OptionIs,
    PartIn,
    Verdict,
    children_of,
    evaluate,
    findings_in,
    leaves_of,
)

Target: TypeAlias = dict[str, str | float]
"""Every finding of the plan -> value, number or `not_stated`."""
Speakable: TypeAlias = Mapping[str, Collection[str]]
"""Finding -> values that can be put into words (of a number finding: anything that is not empty); absent: none."""

AT_BOUNDARY = 0.3
"""Share of numbers that stand at, just below or just above a bound that the rules name."""
QUIET = 0.5
"""Share of findings that get the value reports mostly have, before the wanted rule is seen to."""


class StatedOnlyWith(Protocol):
    """A finding (or these values of it) that is stated only where another one has one of these values."""

    @property
    def finding(self) -> str: ...
    @property
    def values(self) -> tuple[str, ...]: ...
    @property
    def on(self) -> str: ...
    @property
    def among(self) -> tuple[str, ...]: ...


class UsualNumbers(Protocol):
    """Which numbers reports usually have."""

    @property
    def finding(self) -> str: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def decimals(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Stratum:
    """A rule that shall decide: of a part of the plan, or of the final decision (part None)."""

    part: str | None
    rule: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What a target shall be like.

    Attributes:
        stratum: the rule that shall decide it.
        silence: share of the findings that shall be silent, where the rule bears it.
        open_case: leave out a fact on which the outcome depends, so that several remain possible.
    """

    stratum: Stratum
    silence: float = 0.0
    open_case: bool = False


class TargetDraw:
    """Draws targets for one plan.

    Args:
        plan: the plan.
        dependencies: findings that are stated only with others.
        numbers: usual numbers; for a number finding without, the plan's whole range is usual.
        apart: findings that are never drawn and stay silent: they follow from the rest of a report.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        dependencies: Sequence[StatedOnlyWith] = (),
        numbers: Sequence[UsualNumbers] = (),
        apart: Collection[str] = (),
    ) -> None:
        self.plan = plan
        self.options = plan.option_settings
        self.findings = {finding.name: finding for finding in plan.findings}
        self.apart = frozenset(apart)
        self._silences = sorted(
            ((d.finding, d.silence) for d in plan.domains if d.silence.reads_as is not None),
            key=lambda silence: bool(silence[1].looks_at),
        )
        self.dependencies = tuple(dependencies)
        self.usual = {habit.finding: (habit.low, habit.high, habit.decimals) for habit in numbers}
        contradictions = (plan.expanded(flag.when) for flag in plan.flags if flag.kind == "contradiction")
        self.contradictions = tuple(c for c in contradictions if not set(findings_in(c)) <= self.apart)
        self._tables: dict[str | None, DecisionTable] = {None: plan.decision_table} | dict(plan.part_tables)
        self.cuts = _cuts(self._tables.values())
        self._rules: dict[Stratum, tuple[DecisionRule, tuple[DecisionRule, ...]]] = {}
        for part, table in self._tables.items():
            for i, rule in enumerate(table.rules):
                if evaluate(rule.when, {}, self.options) is not False:
                    self._rules[Stratum(part, rule.rule, rule.outcome)] = (rule, table.rules[:i])

    @property
    def strata(self) -> tuple[Stratum, ...]:
        """The rules that the plan's options do not switch off."""
        return tuple(self._rules)

    def reachable(
        self, speakable: Speakable, *, among: Sequence[Stratum] | None = None, attempts: int = 30
    ) -> tuple[Stratum, ...]:
        """The rules (of these) for which a target was found with these values, within some attempts each."""
        found = []
        for stratum in self.strata if among is None else among:
            rng = random.Random(f"reachable:{stratum.part}:{stratum.rule}")  # noqa: S311 - not for secrets
            if any(self.draw(rng, Wish(stratum), speakable) is not None for _ in range(attempts)):
                found.append(stratum)
        return tuple(found)

    def draw(self, rng: random.Random, wish: Wish, speakable: Speakable) -> Target | None:
        """A target that the wanted rule decides (or that is open, if wished); None where this try found none.

        A None says nothing for certain: try again, a few times.
        """
        attempt = _Attempt(self, rng, {n: v for n, v in speakable.items() if n not in self.apart and v})
        rule, earlier = self._rules[wish.stratum]
        if not attempt.satisfy(rule.when, True):
            return None
        for _ in range(4):
            whole = attempt.mend_dependencies()
            wrong = [before.when for before in earlier if attempt.holds(before.when) is not False]
            contradictory = [condition for condition in self.contradictions if attempt.holds(condition) is True]
            if whole and not wrong and not contradictory:
                break
            for condition in (*wrong, *contradictory):
                if not attempt.satisfy(condition, False, fix=False) and condition in contradictory:
                    attempt.silence(condition)
        target = attempt.target
        table = self._tables[wish.stratum.part]
        if table.decide(target).rule != rule.rule or not self.consistent(target):
            return None

        def kept(verdict: Verdict) -> bool:
            return verdict.rule == rule.rule

        if wish.open_case:
            if not self._open(rng, table, target):
                return None

            def kept(verdict: Verdict) -> bool:
                return verdict.outcome is None

        self._hush(rng, wish.silence, target, lambda known: kept(table.decide(known)))
        return target

    def consistent(self, target: Target) -> bool:
        """Whether nothing in it contradicts the plan's flags or the dependencies."""
        known = self.read(target)
        if any(evaluate(condition, known, self.options) is True for condition in self.contradictions):
            return False
        return not any(breaks(dependency, target) for dependency in self.dependencies)

    def read(self, target: Mapping[str, str | float]) -> dict[str, str | float]:
        """The target with silences read as values where the plan does so."""
        known = dict(target)
        for name, silence in self._silences:
            if known[name] != NOT_STATED or silence.reads_as is None:
                continue
            if silence.if_stated is not None and target[silence.if_stated] == NOT_STATED:
                continue
            if silence.unless is None or evaluate(silence.unless, known, self.options) is False:
                known[name] = silence.reads_as
        return known

    def _open(self, rng: random.Random, table: DecisionTable, target: Target) -> bool:
        """Silence one fact on which the outcome rests; False where that opens nothing."""
        names = [name for name in table.sufficient(target) if target[name] != NOT_STATED]
        rng.shuffle(names)
        for name in names:
            quieter = target | {name: NOT_STATED}
            if self.consistent(quieter) and table.decide(quieter).outcome is None:
                target[name] = NOT_STATED
                return True
        return False

    def _hush(self, rng: random.Random, share: float, target: Target, kept: Callable[[Target], bool]) -> None:
        """Silence about this share of the findings; all at once where that is borne, else one by one."""
        names = [name for name, value in target.items() if value != NOT_STATED and rng.random() < share]
        quieter = target | dict.fromkeys(names, NOT_STATED)
        if self.consistent(quieter) and kept(quieter):
            target.update(quieter)
            return
        for name in names:
            quieter = target | {name: NOT_STATED}
            if self.consistent(quieter) and kept(quieter):
                target[name] = NOT_STATED

    def number(
        self, rng: random.Random, finding: Finding, holds: Callable[[float], bool] | None = None
    ) -> float | None:
        """A number of this finding, at a bound of the rules now and then; None where none that holds was found."""
        assert finding.number is not None  # noqa: S101 - only number findings come here
        low, high, decimals = self.usual.get(
            finding.name, (finding.number.minimum, finding.number.maximum, 1 if finding.number.unit == "cm" else 0)
        )
        step = 10.0**-decimals
        cuts = self.cuts.get(finding.name, ())
        for attempt in range(40):
            if attempt == 20:
                low, high = finding.number.minimum, finding.number.maximum
            if cuts and rng.random() < (AT_BOUNDARY if attempt < 10 else 0.6):
                number = rng.choice(cuts) + rng.choice((-step, 0.0, step))
            elif low > 0 and high / low > 5:
                number = math.exp(rng.uniform(math.log(low), math.log(high)))
            else:
                number = rng.uniform(low, high)
            number = round(number, decimals)
            if finding.number.minimum <= number <= finding.number.maximum and (holds is None or holds(number)):
                return number
        return None


def breaks(dependency: StatedOnlyWith, target: Mapping[str, str | float]) -> bool:
    """Whether the target states the finding although the other one is not as it must be."""
    value = target[dependency.finding]
    if value == NOT_STATED or (dependency.values and value not in dependency.values):
        return False
    return not is_among(target[dependency.on], dependency.among)


def is_among(value: str | float, among: Collection[str]) -> bool:
    """Whether a value is one of these; `number` stands for any stated number."""
    return ("number" if isinstance(value, float | int) else value) in among


def _cuts(tables: Collection[DecisionTable]) -> dict[str, tuple[float, ...]]:
    cuts: dict[str, set[float]] = {}
    for table in tables:
        for rule in table.rules:
            for leaf in leaves_of(rule.when):
                if isinstance(leaf, Bounds):
                    cuts.setdefault(leaf.finding, set()).update(leaf.cuts)
    return {finding: tuple(sorted(found)) for finding, found in cuts.items()}


class _Attempt:
    """A target in the making. What the wanted rule needs is fixed; the rest bends to it."""

    def __init__(self, draw: TargetDraw, rng: random.Random, speakable: Speakable) -> None:
        self.draw, self.rng, self.speakable = draw, rng, speakable
        self.fixed: set[str] = set()
        self.target: Target = dict.fromkeys(draw.findings, NOT_STATED)
        for name in speakable:
            self.target[name] = self._any_value(draw.findings[name])

    def _any_value(self, finding: Finding) -> str | float:
        if finding.number is not None:
            number = self.draw.number(self.rng, finding)
            return NOT_STATED if number is None else number
        values = sorted(self.speakable[finding.name])
        quiet = _quiet_value(finding)
        return quiet if quiet in values and self.rng.random() < QUIET else self.rng.choice(values)

    def holds(self, condition: Condition) -> bool | None:
        """The condition as the rules would see it."""
        return evaluate(condition, self.draw.read(self.target), self.draw.options)

    def satisfy(self, condition: Condition, truth: bool, *, fix: bool = True) -> bool:
        """Make the condition true (or false); False where what is fixed or cannot be said forbids it.

        With `fix`, what it looks at bends to nothing else from then on.
        """
        if isinstance(condition, Not):
            return self.satisfy(condition.not_, not truth, fix=fix)
        if isinstance(condition, OptionIs | PartIn):
            return evaluate(condition, {}, self.draw.options) is truth
        if isinstance(condition, Is | In | Bounds):
            return self._satisfy_leaf(condition, truth, fix)
        ways = list(children_of(condition))
        if isinstance(condition, AllOf) is truth:
            return all(self.satisfy(way, truth, fix=fix) for way in ways)
        if not truth and any(self.holds(way) is truth for way in ways):
            return True
        self.rng.shuffle(ways)
        return any(self.satisfy(way, truth, fix=fix) for way in ways)

    def silence(self, condition: Condition) -> None:
        """Say nothing on what a condition looks at, as far as that is not fixed: no value of it would do."""
        for name in findings_in(condition):
            if name not in self.fixed:
                self.target[name] = NOT_STATED

    def _satisfy_leaf(self, leaf: Is | In | Bounds, truth: bool, fix: bool) -> bool:
        name = leaf.finding
        if self.holds(leaf) is not truth:
            if name in self.fixed or name not in self.speakable:
                return False
            value = self._value_for(leaf, truth)
            if value is None:
                return False
            self.target[name] = value
        if fix:
            self.fixed.add(name)
        return True

    def _value_for(self, leaf: Is | In | Bounds, truth: bool) -> str | float | None:
        """A value that makes the leaf true (or false); the quiet one where it is to be false."""
        finding = self.draw.findings[leaf.finding]
        if isinstance(leaf, Bounds):
            return self.draw.number(self.rng, finding, lambda number: leaf.holds(number) is truth)
        wanted = {leaf.is_} if isinstance(leaf, Is) else set(leaf.in_)
        fitting = [value for value in sorted(self.speakable[leaf.finding]) if (value in wanted) is truth]
        quiet = _quiet_value(finding)
        if quiet in fitting and not truth:
            return quiet
        return self.rng.choice(fitting) if fitting else None

    def mend_dependencies(self) -> bool:
        """See to it that nothing is stated without what it rests on; True where nothing had to be done."""
        whole = True
        for _ in range(4):
            broken = [dependency for dependency in self.draw.dependencies if breaks(dependency, self.target)]
            if not broken:
                return whole
            whole = False
            for dependency in sorted(broken, key=lambda one: one.finding not in self.fixed):
                if breaks(dependency, self.target):  # mending another may have mended this one
                    self._mend(dependency)
        return False

    def _mend(self, dependency: StatedOnlyWith) -> None:
        if dependency.finding not in self.fixed:
            self.target[dependency.finding] = NOT_STATED
            return
        fitting = sorted(set(dependency.among) & set(self.speakable.get(dependency.on, ())))
        if dependency.on not in self.fixed and fitting:
            self.target[dependency.on] = self.rng.choice(fitting)


def _quiet_value(finding: Finding) -> str | None:
    """The value that reports mostly have, as far as the plan says; None where it does not."""
    silence = finding.not_stated
    if silence.reads_as is not None:
        return silence.reads_as
    return max(silence.prior, key=silence.prior.__getitem__) if silence.prior else None


Evenly: TypeAlias = Literal["rule", "outcome"]


def pick_stratum(rng: random.Random, strata: Sequence[Stratum], *, evenly: Evenly) -> Stratum:
    """A rule by chance: all rules alike, or all outcomes (of a part) alike and then the rules that lead there."""
    if evenly == "rule":
        return rng.choice(strata)
    ends = list(dict.fromkeys((stratum.part, stratum.outcome) for stratum in strata))
    end = rng.choice(ends)
    return rng.choice([stratum for stratum in strata if (stratum.part, stratum.outcome) == end])
