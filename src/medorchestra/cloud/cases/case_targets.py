"""What synthetic cases must cover, and complete assignments of findings that cover it. Pure and seeded.

A goal is something that at least some cases have to show: a rule that decides, a value, a number at a bound, silence on
a finding, an open decision, a flag. Targets for a goal are drawn as reports are: most findings unremarkable or not
mentioned. Knows plans and their tables; knows no style, no wording and no model.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

from medorchestra.decision_diagram import DecisionTable
from medorchestra.phrases.phrase_bank import Dependency, PhraseBank
from medorchestra.plan import Finding, Flag, NumberRange, Plan
from medorchestra.rule_expressions import number_cells
from medorchestra.rules import NOT_STATED, Bounds, Condition, DecisionRule, Verdict, evaluate, findings_in, leaves_of

Targets = Mapping[str, str | float]
"""Finding -> value, number or `not_stated`, for every finding of a plan."""

FINAL = ""
"""Stands for the final decision where a goal names a part."""
UNREMARKABLE = ("none", "no", "absent", "negative", "normal", "free", "unremarkable")
"""Names of values that reports mostly have, where the plan does not say what silence is read as."""

_MOST_EXAMPLES = 40
"""Ways to a rule that are tried; they come with few findings first."""
_MOST_DRAWS = 80
"""Assignments drawn for one goal before it is given up."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Something that cases have to show.

    Attributes:
        name: what it is, in words: `rule sma_over_180`, `value sma_contact=<=180`.
        times: cases that are wanted.
        pins: values that alone make it up (one way of several where `decides` is given).
        decides: (part or `FINAL`, rule): this rule decides.
        open_for: a decision stays open for want of this finding.
        holds: this condition holds by what is stated.
        undecided: the final decision has no rule where this condition holds.
    """

    name: str
    times: int
    pins: Mapping[str, str | float] = field(default_factory=dict)
    decides: tuple[str, str] | None = None
    open_for: str | None = None
    holds: Condition | None = None
    undecided: Condition | None = None

    def met_by(self, situation: Situation) -> bool:
        """Whether an assignment shows it."""
        if any(situation.targets[name] != value for name, value in self.pins.items()):
            return False
        if self.decides is not None:
            part, rule = self.decides
            return situation.verdict(part).rule == rule
        if self.open_for is not None:
            return any(self.open_for in situation.verdict(part).missing for part in situation.tables)
        if self.holds is not None:
            return situation.holds(self.holds)
        if self.undecided is not None:
            return situation.holds(self.undecided) and situation.verdict(FINAL).gap
        return True


class Situation:
    """An assignment and what the plan makes of it, worked out when asked for."""

    def __init__(self, plan: Plan, targets: Targets) -> None:
        self.targets = targets
        self.tables: Mapping[str, DecisionTable] = {FINAL: plan.decision_table, **plan.part_tables}
        self._options = plan.option_settings
        self._verdicts: dict[str, Verdict] = {}

    def verdict(self, part: str) -> Verdict:
        """Of a part, or of the final decision."""
        if part not in self._verdicts:
            self._verdicts[part] = self.tables[part].decide(self.targets)
        return self._verdicts[part]

    def holds(self, condition: Condition) -> bool:
        """Whether a condition (without parts) holds by what is stated, as flags are raised."""
        return evaluate(condition, self.targets, self._options) is True


# ---------------------------------------------------------------------------------------------------------------- goals


def goals_of(plan: Plan) -> tuple[Goal, ...]:
    """All that cases of this plan have to show, the most telling first.

    Some may be out of reach (a rule that an option switches off): `draw` then finds nothing for them.
    """
    return (
        *(Goal(f"rule {rule.id}", 6, decides=(FINAL, rule.id)) for rule in plan.rules),
        *(
            Goal(f"rule {rule.id} of {part.name}", 4, decides=(part.name, rule.id))
            for part in plan.parts
            for rule in part.rules
        ),
        *_value_goals(plan),
        *_number_goals(plan),
        *_flag_goals(plan),
        *(Goal(f"open for {name}", 3, open_for=name) for name in _may_be_missing(plan)),
        *(Goal(f"silence {finding.name}", 2, {finding.name: NOT_STATED}) for finding in plan.findings),
        *(
            Goal(f"undecidable {i}", 1, undecided=plan.expanded(one.when))
            for i, one in enumerate(plan.undecidable, start=1)
        ),
    )


def _value_goals(plan: Plan) -> Iterator[Goal]:
    for finding in plan.findings:
        for value in finding.values or ():
            # A comparator is worded in several ways, each of which has to occur.
            yield Goal(f"value {finding.name}={value}", 5 if has_comparator(value) else 3, {finding.name: value})


def has_comparator(value: str) -> bool:
    """Whether a value's name begins with a comparator and a number, such as `<=180`."""
    return value.startswith(("<", ">", "=")) and any(character.isdigit() for character in value)


def _number_goals(plan: Plan) -> Iterator[Goal]:
    for finding in plan.findings:
        if finding.number is None:
            continue
        for number in numbers_at_bounds(finding.number, bounds_of(plan, finding.name)):
            yield Goal(f"number {finding.name}={number:g}", 2, {finding.name: number})


def _flag_goals(plan: Plan) -> Iterator[Goal]:
    for flag in plan.flags:
        condition = plan.expanded(flag.when)
        if not _is_impossible(flag, condition):
            yield Goal(f"flag {flag.id}", 3, holds=condition)


def _is_impossible(flag: Flag, condition: Condition) -> bool:
    """Whether it names what cannot be true together. A contradiction that one finding reports can well be reported."""
    return flag.kind == "contradiction" and len(findings_in(condition)) > 1


def bounds_of(plan: Plan, finding: str) -> tuple[float, ...]:
    """The numbers at which the plan's rules, flags or silences change their mind on a number finding, ascending."""
    conditions = [
        *(rule.when for rule in plan.all_rules),
        *(flag.when for flag in plan.flags),
        *(one.when for one in plan.undecidable),
        *(one.not_stated.unless for one in plan.findings if one.not_stated.unless is not None),
    ]
    leaves = (leaf for condition in conditions for leaf in leaves_of(condition))
    named = (leaf.cuts for leaf in leaves if isinstance(leaf, Bounds) and leaf.finding == finding)
    return tuple(sorted({cut for cuts in named for cut in cuts}))


def step_of(number: NumberRange, bound: float) -> float:
    """The smallest difference that reports make: a tenth of a centimetre, one of anything else, or finer bounds."""
    decimals = max(1 if number.unit == "cm" else 0, _decimals(bound))
    return 1.0 if number.unit == "count" else float(10.0**-decimals)


def numbers_at_bounds(number: NumberRange, bounds: Sequence[float]) -> tuple[float, ...]:
    """Just below, at and just above each bound, as far as the finding can be that number; ascending."""
    near: set[float] = set()
    for bound in bounds:
        step = step_of(number, bound)
        decimals = _decimals(step)
        below, above = (math.ceil(bound) - 1, math.floor(bound) + 1) if step == 1.0 else (bound - step, bound + step)
        near |= {round(below, decimals), bound, round(above, decimals)}
    return tuple(one for one in sorted(near) if number.numbers.holds(one))


def _decimals(number: float) -> int:
    return len(f"{number:.6f}".rstrip("0").partition(".")[2])


def _may_be_missing(plan: Plan) -> tuple[str, ...]:
    """Findings whose silence can leave a decision open, as far as can be told without trying."""
    asked = {name for rule in plan.all_rules for name in findings_in(rule.when)}
    asked |= {
        name
        for finding in plan.findings
        if finding.not_stated.unless is not None
        for name in findings_in(finding.not_stated.unless)
    }

    def may_stay_unknown(finding: Finding) -> bool:
        silence = finding.not_stated
        return silence.reads_as is None or silence.unless is not None or silence.if_stated is not None

    return tuple(finding.name for finding in plan.findings if finding.name in asked and may_stay_unknown(finding))


# -------------------------------------------------------------------------------------------------------------- targets


@dataclass(frozen=True, slots=True)
class Mood:
    """How much a report says.

    Attributes:
        silent: factor on the share of findings that are not mentioned.
        remarkable: factor on the share of those that are out of the ordinary.
    """

    silent: float = 1.0
    remarkable: float = 1.0


MOODS = (Mood(), Mood(), Mood(silent=0.3), Mood(silent=2.5), Mood(remarkable=0.3), Mood(remarkable=2.0))
SPARSE = Mood(silent=6.0, remarkable=0.4)
"""Of reports that one or two findings decide, whatever the rest is: they mostly stop there."""


class TargetDrawing:
    """Draws targets for the goals of one plan.

    Args:
        plan: whose goals they are.
        frame: says how findings hang together; None: each stands by itself.
        forced: whether a goal that no natural draw meets is met by silencing what must not be stated beside it.
    """

    def __init__(self, plan: Plan, frame: PhraseBank | None = None, *, forced: bool = False) -> None:
        self._plan = plan
        self._forced = forced
        self._frame = frame
        self._dependencies = () if frame is None else frame.dependencies
        self._options = plan.option_settings
        self._numbers = {
            finding.name: bounds_of(plan, finding.name) for finding in plan.findings if finding.number is not None
        }
        self._examples: dict[str, tuple[Mapping[str, str | float], ...]] = {}

    @cached_property
    def _impossible(self) -> tuple[Condition, ...]:
        """What no report states together."""
        flags = ((flag, self._plan.expanded(flag.when)) for flag in self._plan.flags)
        return tuple(condition for flag, condition in flags if _is_impossible(flag, condition))

    def draw(self, goal: Goal | None, rng: random.Random) -> Situation | None:
        """Targets that meet the goal, as natural as may be; None where no draw met it.

        Args:
            goal: None for any report.
            rng: where the randomness comes from.
        """
        ways = self._ways(goal) if goal is not None else ({},)
        if not ways:
            return None
        for attempt in range(2 * _MOST_DRAWS if self._forced else _MOST_DRAWS):
            pins = rng.choice(ways)
            decided_early = goal is not None and goal.decides is not None and len(pins) <= 2
            mood = SPARSE if decided_early and rng.random() < 0.7 else rng.choice(MOODS)
            targets = self._filled(pins, mood, rng)
            if attempt >= _MOST_DRAWS:
                self._silence_what_stands_alone(targets, pins)
            situation = Situation(self._plan, targets)
            if self._is_possible(situation) and (goal is None or goal.met_by(situation)):
                return situation if goal is None else self._eased(goal, situation, pins, mood, rng)
        return None

    def _ways(self, goal: Goal) -> tuple[Mapping[str, str | float], ...]:
        """Values that lead to the goal."""
        if goal.open_for is not None:
            return ({goal.open_for: NOT_STATED},)
        if goal.decides is None and goal.holds is None and goal.undecided is None:
            return (goal.pins,)
        if goal.name not in self._examples:
            table, rule = self._table_of(goal)
            self._examples[goal.name] = tuple(islice(table.examples(rule), _MOST_EXAMPLES))
        return self._examples[goal.name]

    def _table_of(self, goal: Goal) -> tuple[DecisionTable, str | None]:
        if goal.decides is not None:
            part, rule = goal.decides
            return (self._plan.part_tables[part] if part else self._plan.decision_table), rule
        condition = goal.holds if goal.holds is not None else goal.undecided
        assert condition is not None  # noqa: S101 - goals of values and silences never come here
        rules = [DecisionRule("wanted", "wanted", condition)]
        return DecisionTable(rules, self._plan.domains, self._options), "wanted"

    def _is_possible(self, situation: Situation) -> bool:
        return not any(situation.holds(condition) for condition in self._impossible) and all(
            self._keeps(dependency, situation.targets) for dependency in self._dependencies
        )

    @staticmethod
    def _keeps(dependency: Dependency, targets: Targets) -> bool:
        """Whether a finding that only goes with another is silent, or the other is stated so."""
        value = targets[dependency.finding]
        applies = value != NOT_STATED and (not dependency.values or value in dependency.values)
        return not applies or targets[dependency.on] in dependency.among

    def _filled(self, pins: Mapping[str, str | float], mood: Mood, rng: random.Random) -> dict[str, str | float]:
        targets = dict(pins)
        # What another silence looks at comes first.
        for finding in sorted(self._plan.findings, key=lambda one: _looks_at_another(one)):
            if finding.name not in targets:
                targets[finding.name] = self._drawn(finding, targets, mood, rng)
        self._follow(targets)
        return {finding.name: targets[finding.name] for finding in self._plan.findings}

    def _silence_what_stands_alone(self, targets: dict[str, str | float], pins: Mapping[str, str | float]) -> None:
        """Leave unsaid what only goes with another finding, where that one is not stated so."""
        broken = True
        while broken:
            broken = False
            for dependency in self._dependencies:
                if dependency.finding not in pins and not self._keeps(dependency, targets):
                    targets[dependency.finding] = NOT_STATED
                    broken = True

    def _follow(self, targets: dict[str, str | float]) -> None:
        """Give a value to what no writer can leave unsaid, since it follows from the wording of the rest."""
        if self._frame is None:
            return
        for derived in self._frame.derived:
            if any(targets[name] != NOT_STATED for name in derived.if_any_stated):
                targets[derived.finding] = _said(targets[derived.finding], derived.value)
        closing = self._frame.closing
        if closing is not None and closing.finding is not None and closing.agrees is not None:
            targets[closing.finding] = _said(targets[closing.finding], closing.agrees)

    def _eased(
        self, goal: Goal, situation: Situation, pins: Mapping[str, str | float], mood: Mood, rng: random.Random
    ) -> Situation:
        """The same goal, pinned findings drawn anew where it stays met: not every "no" that a rule needs is said."""
        pinned = sorted(set(pins) - set(goal.pins))
        for name in rng.sample(pinned, len(pinned)):
            finding = self._plan.finding(name)
            fewer = {other: value for other, value in situation.targets.items() if other != name}
            value = self._drawn(finding, fewer, mood, rng)
            targets = {**situation.targets, name: value}
            self._follow(targets)
            proposed = Situation(self._plan, targets)
            if self._is_possible(proposed) and goal.met_by(proposed):
                situation = proposed
        return situation

    def _drawn(
        self, finding: Finding, targets: Mapping[str, str | float], mood: Mood, rng: random.Random
    ) -> str | float:
        silence = finding.not_stated
        if silence.if_stated is not None and targets.get(silence.if_stated, NOT_STATED) == NOT_STATED:
            return NOT_STATED
        unless = silence.unless
        # It is mostly spoken of where silence would leave the matter open.
        if unless is not None and evaluate(unless, targets, self._options) is not True and rng.random() < 0.8:
            return NOT_STATED
        weights = value_weights(finding, mood)
        value = rng.choices(list(weights), list(weights.values()))[0]
        if value is not None:
            return value
        assert finding.number is not None  # noqa: S101 - only a number's weights have None
        return usual_number(finding.number, self._numbers[finding.name], rng)


def _said(value: str | float, otherwise: str) -> str | float:
    return otherwise if value == NOT_STATED else value


def _looks_at_another(finding: Finding) -> bool:
    return finding.not_stated.if_stated is not None or finding.not_stated.unless is not None


def unremarkable_value(finding: Finding) -> str | None:
    """The value that most reports have: what silence is read as, a clear favourite of the weights, or a "none"."""
    silence = finding.not_stated
    if silence.reads_as is not None:
        return silence.reads_as
    if silence.prior:
        likely = max(silence.prior, key=lambda value: silence.prior[value] if silence.prior else 0.0)
        return likely if silence.prior[likely] >= 0.5 else None
    return next((value for value in finding.values or () if value in UNREMARKABLE), None)


def value_weights(finding: Finding, mood: Mood) -> dict[str | None, float]:
    """How often reports have each value, `not_stated`, or (None) a number. Judgement, and used for drawing only."""
    calm = unremarkable_value(finding)
    silent = (0.5 if finding.not_stated.reads_as is not None else 0.18) * mood.silent
    if finding.number is not None:
        return {NOT_STATED: silent, None: 1.0}
    values = list(finding.values or ())
    if calm is None:
        return {NOT_STATED: silent, **dict.fromkeys(values, 1.0 / len(values))}
    others = [value for value in values if value != calm]
    prior = finding.not_stated.prior or {}
    # Half by the plan's weights, half evenly: a rare value must be seen more often than it occurs.
    total = sum(prior.get(value, 0.0) for value in others)
    share = {v: 0.5 / len(others) + (0.5 * prior.get(v, 0.0) / total if total else 0.5 / len(others)) for v in others}
    remarkable = (0.12 if finding.not_stated.reads_as is not None else 0.25) * mood.remarkable
    return {NOT_STATED: silent, calm: 0.45, **{value: remarkable * share[value] for value in others}}


def usual_number(number: NumberRange, bounds: Sequence[float], rng: random.Random) -> float:
    """A believable number: around the bounds that the rules name, else in the lower part of the range."""
    step = step_of(number, bounds[0]) if bounds else step_of(number, number.minimum)
    if bounds:
        spread = max(bounds[-1] - bounds[0], bounds[-1] * 0.5, 2 * step)
        drawn = rng.uniform(bounds[0] - 0.4 * spread, bounds[-1] + 0.6 * spread)
    else:
        low = max(number.minimum, number.maximum * 1e-3, step)
        drawn = math.exp(rng.gauss((math.log(low) + math.log(max(number.maximum, low))) / 2, 0.5))
    inside = min(max(round(drawn / step) * step, number.minimum), number.maximum)
    rounded = round(inside, _decimals(step))
    if number.numbers.holds(rounded):
        return rounded
    return next(iter(number_cells((), number.numbers).values()), number.minimum)


def unmet_goals(plan: Plan, covered: Iterable[Targets]) -> tuple[str, ...]:
    """Names of the goals that none of these assignments shows."""
    situations = [Situation(plan, targets) for targets in covered]
    return tuple(goal.name for goal in goals_of(plan) if not any(map(goal.met_by, situations)))
