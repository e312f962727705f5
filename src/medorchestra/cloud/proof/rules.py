"""Every rule can decide, every combination is decided: exact, on the compiled rules, for every setting of the options.

Counter-examples name only the findings that matter. Whether the compiled rules are themselves right is checked apart,
in `proof_by_enumeration`. Knows plans; knows neither guideline nor cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product

from medorchestra.cloud.proof.problems import Problem, ProblemKind, ProofSettings, readable
from medorchestra.decision_diagram import DecisionTable
from medorchestra.errors import RuleError
from medorchestra.plan import Plan
from medorchestra.rules import AllOf, Condition, DecisionRule, Domain, Not, findings_in

MOST_GAP_EXAMPLES = 100
"""Looked at for each decision and setting."""


@dataclass(frozen=True, slots=True)
class RuleList:
    """The rules of one decision: a part of the plan, or the final one.

    Attributes:
        where: `part t_category`, or `final decision`.
        rules: in order, over findings alone.
        outcomes: all it may come out as.
    """

    where: str
    rules: tuple[DecisionRule, ...]
    outcomes: tuple[str, ...]


def rule_lists_of(plan: Plan) -> tuple[RuleList, ...]:
    """The parts in order, then the final decision."""
    parts = [
        RuleList(f"part {part.name}", plan.part_tables[part.name].rules, tuple(o.name for o in part.outcomes))
        for part in plan.parts
    ]
    outcomes = tuple(outcome.name for outcome in plan.outcomes)
    return (*parts, RuleList("final decision", plan.decision_table.rules, outcomes))


def option_settings_of(plan: Plan, most: int) -> tuple[dict[str, str], ...]:
    """The plan's own setting of its options, then all others; of more than `most`, those with one change only."""
    own = plan.option_settings
    if math.prod(len(option.choices) for option in plan.options) <= most:
        choices = [option.choices for option in plan.options]
        others: Iterable[dict[str, str]] = (dict(zip(own, setting, strict=True)) for setting in product(*choices))
    else:
        others = (own | {option.name: choice} for option in plan.options for choice in option.choices)
    return (own, *(setting for setting in others if setting != own))


def prove_rules(plan: Plan, settings: ProofSettings) -> tuple[list[Problem], dict[str, int]]:
    """Reachability, shadowing, gaps and declared gaps of every decision of the plan."""
    options = option_settings_of(plan, settings.most_option_settings)
    lists = rule_lists_of(plan)
    undecidable = [
        DecisionRule(f"undecidable {i}", "none", plan.expanded(one.when))
        for i, one in enumerate(plan.undecidable, start=1)
    ]
    proofs = [ProofOfList(one, plan.domains, options, undecidable) for one in lists]
    problems: list[Problem] = []
    for proof in proofs:
        try:
            problems += proof.unreachable()
            problems += proof.gaps(settings.most_gaps)
        except RuleError as error:
            problems.append(Problem(ProblemKind.TOO_ENTANGLED, proof.decided.where, str(error)))
    problems += _declared_gaps(proofs)
    problems += _flags_that_never_rise(plan, options)
    counts = {
        "rules": len(plan.all_rules),
        "decisions": len(lists),
        "option settings": len(options),
        "option settings there are": math.prod(len(option.choices) for option in plan.options),
        "combinations": sum(proof.combinations() for proof in proofs),
    }
    return problems, counts


class ProofOfList:
    """The proof of one rule list under all settings of the options, the plan's own first.

    Args:
        undecidable: conditions under which no rule needs to hold.
    """

    def __init__(
        self,
        decided: RuleList,
        domains: Sequence[Domain],
        options: Sequence[Mapping[str, str]],
        undecidable: Sequence[DecisionRule] = (),
    ) -> None:
        self.decided = decided
        self.domains = domains
        self.options = options
        self.undecidable = tuple(undecidable)
        self.tables = [self._table(self.decided.rules, setting) for setting in options]

    def _table(self, rules: Sequence[DecisionRule], setting: Mapping[str, str]) -> DecisionTable:
        return DecisionTable(rules, self.domains, setting)

    def combinations(self) -> int:
        """How many combinations of stated findings the decision was proven on, over all settings of the options."""
        asked = {name for rule in self.decided.rules for name in findings_in(rule.when)}
        return sum(math.prod(len(table.stated_values(name)) for name in asked) for table in self.tables)

    # ----------------------------------------------------------------- reachability

    def unreachable(self) -> list[Problem]:
        """Rules that never decide and outcomes that never come out."""
        deciding = {
            rule.rule
            for rule in self.decided.rules
            if any(table.example(rule.rule) is not None for table in self.tables)
        }
        problems = [self._why_never(i, rule) for i, rule in enumerate(self.decided.rules) if rule.rule not in deciding]
        given = {rule.outcome for rule in self.decided.rules if rule.rule in deciding}
        for outcome in self.decided.outcomes:
            if outcome not in given:
                problems.append(
                    Problem(
                        ProblemKind.UNREACHABLE_OUTCOME,
                        f"{self.decided.where}, outcome {outcome}",
                        "no rule that can decide gives it",
                    )
                )
        return problems

    def _why_never(self, index: int, rule: DecisionRule) -> Problem:
        where = f"rule {rule.rule}"
        for setting in self.options:
            takers = self._takers(index, rule, setting)
            if takers:
                break
        else:
            return Problem(ProblemKind.NEVER_HOLDS, where, "no combination of findings fulfils its condition")
        for taker, example in takers:
            if taker.outcome != rule.outcome and _same(rule.when, taker.when, self.domains, setting):
                return Problem(
                    ProblemKind.CONTRADICTORY,
                    where,
                    f"has the condition of rule {taker.rule} and another outcome: {readable(example)}: "
                    f"{taker.outcome} by rule {taker.rule}, {rule.outcome} by this one",
                )
        names = ", ".join(taker.rule for taker, _ in takers)
        taker, example = takers[0]
        return Problem(
            ProblemKind.SHADOWED,
            where,
            f"never decides: whenever it holds, so does an earlier rule ({names}); "
            f"{readable(example)}: taken by rule {taker.rule}",
        )

    def _takers(
        self, index: int, rule: DecisionRule, setting: Mapping[str, str]
    ) -> list[tuple[DecisionRule, dict[str, str | float]]]:
        """The earlier rules that are first to hold somewhere this one holds, each with a place where it is."""
        earlier = self.decided.rules[:index]
        if not earlier:
            return []
        both = [DecisionRule(one.rule, one.outcome, AllOf(all=(rule.when, one.when))) for one in earlier]
        table = self._table(both, setting)
        found = ((one, table.example(one.rule)) for one in earlier)
        return [(one, example) for one, example in found if example is not None]

    # ------------------------------------------------------------------------- gaps

    def gaps(self, most: int) -> list[Problem]:
        """Combinations of stated findings that no rule decides and nobody declared undecidable."""
        problems: list[Problem] = []
        told: list[dict[str, str | float]] = []
        for setting, closed in zip(self.options, self._with_declared(), strict=True):
            examples = [
                example
                for example in islice(closed.examples(None), MOST_GAP_EXAMPLES)
                if not any(example.items() <= earlier.items() for earlier in told)
            ]
            told += examples
            other = {name: choice for name, choice in setting.items() if self.options[0][name] != choice}
            by_option = f" (with {readable(other)})" if other else ""
            gaps = _merged(examples)
            for gap in gaps[:most]:
                message = f"{readable(gap)}: no rule holds{by_option}"
                problems.append(Problem(ProblemKind.GAP, self.decided.where, message))
            if len(gaps) > most:
                message = f"further combinations that no rule decides{by_option}: {len(gaps) - most} or more"
                problems.append(Problem(ProblemKind.GAP, self.decided.where, message))
        return problems

    def _with_declared(self) -> Iterator[DecisionTable]:
        if not self.undecidable:
            yield from self.tables
        else:
            for setting in self.options:
                yield self._table((*self.decided.rules, *self.undecidable), setting)

    def undecided(self, declared: DecisionRule) -> bool:
        """Whether some combination declared undecidable is left undecided here."""
        return any(
            self._table((*self.decided.rules, declared), setting).example(declared.rule) is not None
            for setting in self.options
        )

    def decided_example(self, declared: DecisionRule) -> tuple[DecisionRule, dict[str, str | float]] | None:
        """A rule that decides a combination declared undecidable, and the combination."""
        takers = self._takers(len(self.decided.rules), declared, self.options[0])
        return takers[0] if takers else None


def _merged(examples: Sequence[Mapping[str, str | float]]) -> list[dict[str, tuple[str | float, ...]]]:
    """Combinations that differ in the values of one finding only, told as one."""
    merged: list[dict[str, tuple[str | float, ...]]] = [
        {name: (value,) for name, value in example.items()} for example in examples
    ]
    for name in dict.fromkeys(name for example in examples for name in example):
        groups: dict[tuple[object, ...], dict[str, tuple[str | float, ...]]] = {}
        for one in merged:
            others = frozenset((other, values) for other, values in one.items() if other != name)
            group = groups.setdefault((others, name in one), one)
            if group is not one and name in one:
                group[name] = (*group[name], *one[name])
        merged = list(groups.values())
    return merged


def _same(first: Condition, second: Condition, domains: Sequence[Domain], setting: Mapping[str, str]) -> bool:
    """Whether two conditions hold for the same combinations of findings."""
    apart = (
        DecisionRule("first", "differ", AllOf(all=(first, Not(**{"not": second})))),
        DecisionRule("second", "differ", AllOf(all=(second, Not(**{"not": first})))),
    )
    table = DecisionTable(apart, domains, setting)
    return table.example("first") is None and table.example("second") is None


def _declared_gaps(proofs: Sequence[ProofOfList]) -> list[Problem]:
    problems: list[Problem] = []
    final = proofs[-1]
    for i, declared in enumerate(final.undecidable):
        where = f"undecidable {i + 1}"
        try:
            if any(proof.undecided(declared) for proof in proofs):
                continue
            taken = final.decided_example(declared)
        except RuleError as error:
            problems.append(Problem(ProblemKind.TOO_ENTANGLED, where, str(error)))
            continue
        if taken is None:
            problems.append(Problem(ProblemKind.NEVER_HOLDS, where, "no combination of findings fulfils its condition"))
        else:
            rule, example = taken
            message = (
                f"declared undecidable, but always decided; {readable(example)}: {rule.outcome} by rule {rule.rule}"
            )
            problems.append(Problem(ProblemKind.DECIDED, where, message))
    return problems


def _flags_that_never_rise(plan: Plan, options: Sequence[Mapping[str, str]]) -> list[Problem]:
    problems: list[Problem] = []
    for flag in plan.flags:
        rule = DecisionRule(flag.id, "flag", plan.expanded(flag.when))
        if all(DecisionTable((rule,), plan.domains, setting).example(flag.id) is None for setting in options):
            message = "no combination of findings fulfils its condition"
            problems.append(Problem(ProblemKind.NEVER_HOLDS, f"flag {flag.id}", message))
    return problems
