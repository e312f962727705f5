"""Which findings can still change a decision, and in which rounds to ask them. Pure: knows a plan, no model, no report.

A finding still matters while some value or silence of it could change which rules of the final decision or of a part
are possible, whether a flag is raised, or on which silences read as a value the decision rests. That is asked of the
compiled rules, so it holds for every completion of what is not known yet: a finding that no longer matters can be left
out, and outcome, rules, parts, flags, assumptions and what is missing come out as with it.

Every round is one batch, and a round more costs about as much as one question. The first round holds the findings on
which decisions most often rest, the later ones only what then still matters. Which rounds cost least is counted over
cases: those that are given, else imagined ones (`imagined_cases`), in which every outcome is equally frequent, within
it every rule, and what a rule does not rest on takes each of its values, or silence, with equal probability. A wrong
guess costs questions; it never changes a decision.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice, pairwise, product
from typing import Any, TypeVar

from medorchestra.plan import Plan
from medorchestra.rules import NOT_STATED, AllOf, AnyOf, Condition, Known, Not, OptionIs, evaluate, findings_in

IMAGINED_CASES = 40
"""How many cases are imagined where none are given."""

EXAMPLES_OF_A_RULE = 4
"""From how many of the ways that lead to a rule the imagined cases are drawn."""

SHARES = (0.9, 0.6, 0.3)
"""Rounds that are tried: findings that are needed in at least this share of the cases, then all others."""

MOST_BEGINNINGS = 4
"""Also tried, with what is nearly always needed: what the first rules look at, up to as many changes of outcome."""

Possible = frozenset[bool | None]
One = TypeVar("One")


@dataclass(frozen=True, slots=True)
class Rounds:
    """In which rounds findings are asked.

    Attributes:
        findings: for each round, what is asked in it as far as it still matters; every finding stands in one.
        cost: expected cost of a report asked in these rounds, in tokens (or whatever `costs` counts).
        cost_of_all: the same when everything is asked together.
    """

    findings: tuple[frozenset[str], ...]
    cost: float
    cost_of_all: float


class LazyPlan:
    """A plan's rules, asked which findings still matter."""

    def __init__(
        self, plan: Plan, *, costs: Mapping[str, float] | None = None, cases: Sequence[Known] | None = None
    ) -> None:
        """Take a plan.

        Args:
            plan: the plan.
            costs: finding -> cost of its question; 1 where none is given.
            cases: values and silences of cases like the reports to come; a finding left out is silent there.
        """
        self.plan = plan
        self.readable = frozenset(subtask.finding for subtask in plan.subtasks if subtask.finding)
        self._costs = {name: (costs or {}).get(name, 1.0) for name in self.readable}
        self._cases = cases
        self._flags = [plan.expanded(flag.when) for flag in plan.flags]
        self._silence = {finding.name: finding.not_stated for finding in plan.findings}

    @cached_property
    def decisive(self) -> frozenset[str]:
        """Findings that matter as long as nothing is known; no rule and no flag ever looks at the others."""
        return self.matters({})

    def matters(self, answered: Known) -> frozenset[str]:
        """The findings not asked yet that can still change the decision.

        Args:
            answered: every finding asked so far -> its value, `NOT_STATED`, or None where nothing could be read.
        """
        unasked = self.readable - answered.keys()
        found: set[str] = set()
        if not unasked:
            return frozenset()
        for table in (self.plan.decision_table, *self.plan.part_tables.values()):
            found.update(table.depends_on(answered, rules=True))
        # What would settle an open case is told with a look at what the meaning of its silences depends on.
        found.update(name for one in tuple(found) if (name := self._silence[one].if_stated) is not None)
        for name, value in answered.items():
            if value == NOT_STATED and self._silence[name].reads_as is not None:
                # Whether a decision rests on this silence depends on what would follow without it.
                fewer = {other: known for other, known in answered.items() if other != name}
                found.update(self.plan.decision_table.depends_on(fewer))
        for condition in self._flags:
            possible, open_findings = self._possible(condition, answered, unasked)
            if True in possible:
                found.update(open_findings)
        return frozenset(found & unasked)

    def _possible(
        self, condition: Condition, answered: Known, unasked: Collection[str]
    ) -> tuple[Possible, frozenset[str]]:
        """What a condition can still evaluate to, and the unasked findings on which that depends.

        Of a condition that names a finding twice, more may seem possible than is: that asks a question in vain.
        """
        if isinstance(condition, Not):
            inner, names = self._possible(condition.not_, answered, unasked)
            return frozenset(None if one is None else not one for one in inner), names
        if isinstance(condition, AllOf | AnyOf):
            decisive = isinstance(condition, AnyOf)
            parts = condition.any if isinstance(condition, AnyOf) else condition.all
            seen = [self._possible(part, answered, unasked) for part in parts]
            joined = frozenset(_joined(values, decisive) for values in product(*(values for values, _ in seen)))
            names = frozenset[str]().union(*(open_names for _, open_names in seen))
            return joined, names if len(joined) > 1 else frozenset()
        named = findings_in(condition)
        if isinstance(condition, OptionIs) or named[0] not in unasked:
            return frozenset({evaluate(condition, answered, self.plan.option_settings)}), frozenset()
        return frozenset({True, False, None}), frozenset(named)

    # ------------------------------------------------------------------------ rounds

    @cached_property
    def rounds(self) -> Rounds:
        """The rounds of least expected cost, of those that take findings by how often they are needed, or by rules."""
        cases = [self._completed(case) for case in self._cases] if self._cases else imagined_cases(self.plan)
        seen = _Memory(self)
        needed: Counter[str] = Counter()
        for case in cases:
            needed.update(self._needed(case, seen))
        candidates: list[tuple[frozenset[str], ...]] = [self._grouped(())]
        for shares in _one_or_two(SHARES):
            candidates.append(
                self._grouped({name for name in needed if needed[name] >= s * len(cases)} for s in shares)
            )
        always = {name for name in needed if needed[name] >= SHARES[0] * len(cases)}
        for several in _one_or_two(self._beginnings()):
            candidates.append(self._grouped(always | names for names in several))
        costs = {rounds: self._expected_cost(rounds, cases, seen) for rounds in dict.fromkeys(candidates)}
        best = min(costs, key=costs.__getitem__)
        rest = self.readable - frozenset[str]().union(*best)
        in_full = sum(self._costs.values()) + self._cost_of_a_round
        return Rounds((*best, rest) if rest else best, costs[best], in_full)

    def facts(self) -> dict[str, Any]:
        """The rounds as run.json has them."""
        rounds = self.rounds
        return {
            "rounds": [sorted(names) for names in rounds.findings],
            "expected_cost": round(rounds.cost, 1),
            "cost_of_all": round(rounds.cost_of_all, 1),
            "expected_over": "given cases" if self._cases else "imagined cases",
        }

    @property
    def _cost_of_a_round(self) -> float:
        return sum(self._costs.values()) / max(1, len(self._costs))

    def _beginnings(self) -> list[frozenset[str]]:
        """What the first rules look at, up to where the next one gives another outcome."""
        beginnings: list[frozenset[str]] = []
        seen: frozenset[str] = frozenset()
        for rule, following in pairwise(self.plan.rules):
            seen |= frozenset(findings_in(self.plan.expanded(rule.when)))
            if following.outcome != rule.outcome:
                beginnings.append(seen)
        return beginnings[:MOST_BEGINNINGS]

    def _grouped(self, firsts: Iterable[Collection[str]]) -> tuple[frozenset[str], ...]:
        """Rounds that each take what they name and no earlier one has; the last one takes all that is left."""
        left, groups = self.decisive, []
        for first in firsts:
            groups.append(left.intersection(first))
            left -= groups[-1]
        return tuple(group for group in (*groups, left) if group)

    def _completed(self, case: Known) -> dict[str, str | float | None]:
        return {name: case.get(name, NOT_STATED) for name in self.readable}

    def _needed(self, case: Known, seen: _Memory) -> frozenset[str]:
        """Findings that together leave nothing that matters: what the outcome rests on first, then one by one."""
        verdict = self.plan.decision_table.decide(case)
        looked_at = findings_in(self.plan.expanded(self.plan.rule(verdict.rule).when)) if verdict.rule else ()
        asked = frozenset(self.plan.decision_table.sufficient(case, last=looked_at))
        while still := seen.matters(case, asked):
            asked |= {min(still)}
        return asked

    def _expected_cost(self, rounds: Sequence[frozenset[str]], cases: Sequence[Known], seen: _Memory) -> float:
        total = 0.0
        for case in cases:
            asked: frozenset[str] = frozenset()
            for group in (*rounds, self.readable):
                now = group & seen.matters(case, asked)
                if now:
                    total += self._cost_of_a_round + sum(self._costs[name] for name in now)
                    asked |= now
        return total / max(1, len(cases))


class _Memory:
    """`LazyPlan.matters` for parts of whole cases, worked out once for each."""

    def __init__(self, lazy: LazyPlan) -> None:
        self._lazy = lazy
        self._found: dict[frozenset[tuple[str, str | float | None]], frozenset[str]] = {}

    def matters(self, case: Known, asked: frozenset[str]) -> frozenset[str]:
        answered = {name: case[name] for name in asked}
        key = frozenset(answered.items())
        if key not in self._found:
            self._found[key] = self._lazy.matters(answered)
        return self._found[key]


def _joined(values: Iterable[bool | None], decisive: bool) -> bool | None:
    """Kleene's `any` (where True is decisive) or `all`."""
    found = set(values)
    return decisive if decisive in found else None if None in found else not decisive


def imagined_cases(plan: Plan, count: int = IMAGINED_CASES) -> list[Known]:
    """Cases for a plan without any: outcomes equally frequent, the rules of an outcome too, the rest uniform.

    The same ones every time.
    """
    chance = random.Random(0)  # noqa: S311 - cases to count over, no secret
    table = plan.decision_table
    ways: dict[str, list[list[dict[str, str | float]]]] = {}
    for rule in plan.rules:
        found = list(islice(table.examples(rule.id), EXAMPLES_OF_A_RULE))
        if found:
            ways.setdefault(rule.outcome, []).append(found)
    readable = [subtask.finding for subtask in plan.subtasks if subtask.finding]
    cases: list[Known] = []
    for outcome in islice(_over_and_over(list(ways)), count):
        fixed = chance.choice(chance.choice(ways[outcome])) if outcome is not None else {}
        rest = {name: chance.choice((*table.stated_values(name), NOT_STATED)) for name in readable}
        cases.append(rest | {name: value for name, value in fixed.items() if name in rest})
    return cases


def _over_and_over(outcomes: Sequence[str]) -> Iterator[str | None]:
    while True:
        yield from outcomes or (None,)


def _one_or_two(of: Sequence[One]) -> Iterator[tuple[One, ...]]:
    yield from combinations(of, 1)
    yield from combinations(of, 2)
