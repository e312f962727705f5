"""What the compiled rules say, against trying every completion of what is unknown: slow, simple, and without them.

The only thing taken from the compiled rules is where to look: samples begin at a combination that decides some rule,
for most random combinations end at the first few rules. Silence is read here anew, from its description in `rules`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from medorchestra.cloud.proof.problems import Problem, ProblemKind, ProofSettings, readable
from medorchestra.cloud.proof.rules import RuleList, option_settings_of, rule_lists_of
from medorchestra.decision_diagram import DecisionTable
from medorchestra.plan import Plan
from medorchestra.rule_expressions import number_cells
from medorchestra.rules import NOT_STATED, Bounds, DecisionRule, Domain, evaluate, findings_in, leaves_of

MOST_COMPLETIONS = 256
"""Of one sampled partial assignment."""

FEW_COMPLETIONS = 20_000
"""Of all partial assignments together: up to here all of them are tried."""

Partial = dict[str, str | float | None]
Truth = dict[str, str | float]


def prove_possibilities(plan: Plan, settings: ProofSettings) -> tuple[list[Problem], dict[str, int]]:
    """Compare which rules remain possible, on all partial assignments where they are few, else on a seeded sample."""
    problems: list[Problem] = []
    counts = {"partial assignments": 0, "completions tried": 0}
    options = option_settings_of(plan, settings.most_option_settings)
    lists = rule_lists_of(plan)
    each = max(1, settings.sampled // (len(options) * len(lists)))
    for decided in lists:
        for setting in options:
            trial = _Trial(decided, plan.domains, setting)
            partials = trial.all() if trial.few else trial.sample(each, random.Random(settings.seed))  # noqa: S311
            for partial in partials:
                difference, completions = trial.difference(partial)
                counts["partial assignments"] += 1
                counts["completions tried"] += completions
                if difference:
                    where = f"{decided.where}, {readable(_shown(partial))}"
                    problems.append(Problem(ProblemKind.WRONG_POSSIBILITIES, where, difference))
    return problems, counts


def _shown(partial: Partial) -> dict[str, str | float]:
    return {name: "unknown" if value is None else value for name, value in partial.items()}


@dataclass(frozen=True, slots=True)
class _State:
    """A finding as the truth has it, and whether the report is silent on it."""

    value: str | float
    silent: bool


class _Trial:
    """One rule list under one setting of the options."""

    def __init__(self, decided: RuleList, domains: Sequence[Domain], setting: Mapping[str, str]) -> None:
        self.rules = decided.rules
        self.setting = setting
        self.table = DecisionTable(decided.rules, domains, setting)
        names = {name for rule in decided.rules for name in findings_in(rule.when)}
        names |= {other for domain in domains if domain.finding in names for other in domain.silence.looks_at}
        self.domains = tuple(domain for domain in domains if domain.finding in names)
        self.values = {domain.finding: self._values(domain, domains) for domain in self.domains}
        self.few = math.prod(4 * len(values) for values in self.values.values()) <= FEW_COMPLETIONS

    def _values(self, domain: Domain, domains: Sequence[Domain]) -> tuple[str | float, ...]:
        """The closed values; of a number, one in every stretch that the conditions tell apart."""
        if domain.values is not None:
            return domain.values
        conditions = [rule.when for rule in self.rules]
        conditions += [other.silence.unless for other in domains if other.silence.unless is not None]
        bounds = (leaf for condition in conditions for leaf in leaves_of(condition) if isinstance(leaf, Bounds))
        cuts = sorted({cut for leaf in bounds if leaf.finding == domain.finding for cut in leaf.cuts})
        return tuple(number_cells(cuts, domain.numbers).values())

    # --------------------------------------------------------------- where to look

    def all(self) -> Iterator[Partial]:
        """All partial assignments: every finding a value, silent or unknown."""
        for combination in product(*((*values, NOT_STATED, None) for values in self.values.values())):
            yield dict(zip(self.values, combination, strict=True))

    def sample(self, count: int, draw: random.Random) -> Iterator[Partial]:
        """Partial assignments with at most `MOST_COMPLETIONS`: a rule's example, filled up, then partly forgotten."""
        starts = [example for rule in self.rules if (example := self.table.example(rule.rule)) is not None] or [{}]
        for _ in range(count):
            partial: Partial = {name: draw.choice(values) for name, values in self.values.items()}
            start = draw.choice(starts)
            partial |= start
            # Half of what is forgotten belongs to the example: those findings matter.
            names = draw.sample(list(start), len(start)) + draw.sample(list(self.values), len(self.values))
            draw.shuffle(names)
            completions = 1
            for name in names[: draw.randint(0, len(names))]:
                completions *= 2 * len(self.values[name])
                if completions > MOST_COMPLETIONS:
                    break
                partial[name] = draw.choice((NOT_STATED, None))
            yield partial

    # ---------------------------------------------------------------------- trying

    def difference(self, partial: Partial) -> tuple[str, int]:
        """What the compiled rules and the completions disagree on (empty: nothing), and how many completions."""
        readings = {tuple(reading.items()) for reading in self._readings(partial)}
        decided_by = {self._first(dict(reading)) for reading in readings}
        rules = {rule.rule for rule in decided_by if rule is not None}
        outcomes = {rule.outcome for rule in decided_by if rule is not None}
        gap = None in decided_by
        certain = next(iter(outcomes)) if len(outcomes) == 1 and not gap else None
        verdict = self.table.decide(partial)
        expected = (rules, outcomes, gap, certain)
        found = (set(verdict.possible_rules), set(verdict.possible), verdict.gap, verdict.outcome)
        if expected == found:
            return "", len(readings)
        return (
            f"completions are decided by {sorted(rules)}{' and by none' if gap else ''}; "
            f"the compiled rules allow {sorted(found[0])}{' and none' if found[2] else ''}"
        ), len(readings)

    def _first(self, truth: Truth) -> DecisionRule | None:
        return next((rule for rule in self.rules if evaluate(rule.when, truth, self.setting) is True), None)

    def _readings(self, partial: Partial) -> Iterator[Truth]:
        """Every completion of a partial assignment, as the plan reads it."""
        states = [self._states(domain.finding, partial[domain.finding]) for domain in self.domains]
        for combination in product(*states):
            yield self._read(dict(zip(self.values, combination, strict=True)))

    def _states(self, name: str, value: str | float | None) -> list[_State]:
        if value is not None and value != NOT_STATED:
            return [_State(value, silent=False)]
        silences = (True,) if value == NOT_STATED else (False, True)
        return [_State(truth, silent) for truth in self.values[name] for silent in silences]

    def _read(self, states: Mapping[str, _State]) -> Truth:
        """The truth, with silences read as the plan says: first those that look at no other finding."""
        read = {name: state.value for name, state in states.items()}
        for domain in sorted(self.domains, key=lambda domain: bool(domain.silence.looks_at)):
            silence = domain.silence
            if silence.reads_as is None or not states[domain.finding].silent:
                continue
            if silence.if_stated is not None and states[silence.if_stated].silent:
                continue
            if silence.unless is not None and evaluate(silence.unless, read, self.setting) is True:
                continue
            read[domain.finding] = silence.reads_as
        return read
