"""The synthetic cases cover the plan and agree with it, and nothing leaks between their splits or into the prompts.

Messages name cases by id and never show their text: they go back to the cloud model and into logs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from medorchestra.cloud.proof.bounds import bounds_of
from medorchestra.cloud.proof.comparisons import comparisons_in
from medorchestra.cloud.proof.problems import Problem, ProblemKind, ProofSettings
from medorchestra.decision_diagram import DecisionTable
from medorchestra.errors import CaseError
from medorchestra.plan import Example, Plan, Subtask
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import SyntheticCase, check_case

LONG_EXAMPLE = 8
"""Words from which an example that also stands in a case of another split counts as leaked; shorter ones are phrases
that many reports have."""


def prove_cases(
    plan: Plan, cases: Sequence[SyntheticCase], settings: ProofSettings
) -> tuple[list[Problem], dict[str, int]]:
    """Agreement of every case with the rules, coverage, disjoint splits, and examples out of development alone."""
    problems: list[Problem] = []
    sound: list[SyntheticCase] = []
    for case in cases:
        try:
            check_case(case, plan)
        except CaseError as error:
            message = str(error).removeprefix(f"case {case.id}: ")
            problems.append(Problem(ProblemKind.CASE, f"case {case.id}", message))
        else:
            sound.append(case)
    problems += _shared_between_splits(cases)
    problems += _foreign_examples(plan, cases)
    problems += _uncovered_decisions(plan, sound, settings.minimum_cases)
    problems += _uncovered_values(plan, sound, settings.minimum_cases)
    boundaries = _boundary_cases(plan, sound)
    for where, (bound, count) in boundaries.items():
        if count < settings.minimum_cases:
            message = f"{count} cases lie exactly at {bound}, {settings.minimum_cases} wanted"
            problems.append(Problem(ProblemKind.UNCOVERED_BOUNDARY, where, message))
    examples = sum(len(subtask.examples) for subtask in plan.subtasks)
    return problems, {"cases": len(cases), "boundaries": len(boundaries), "examples": examples}


# --------------------------------------------------------------------------- leaks


def _one_spaced(text: str) -> str:
    return " ".join(text.split())


def _shared_between_splits(cases: Sequence[SyntheticCase]) -> Iterator[Problem]:
    """Ids that are there twice, and texts that stand in two splits."""
    ids = Counter(case.id for case in cases)
    for case_id in (case_id for case_id, count in ids.items() if count > 1):
        yield Problem(ProblemKind.SPLIT, f"case {case_id}", f"this id is there {ids[case_id]} times")
    first: dict[str, SyntheticCase] = {}
    for case in cases:
        other = first.setdefault(_one_spaced(case.text).casefold(), case)
        if other.split != case.split:
            message = f"has the text of case {other.id}; one is in {other.split}, the other in {case.split}"
            yield Problem(ProblemKind.SPLIT, f"case {case.id}", message)


def _foreign_examples(plan: Plan, cases: Sequence[SyntheticCase]) -> Iterator[Problem]:
    by_id = {case.id: case for case in cases}
    elsewhere = [(case, _one_spaced(case.text)) for case in cases if case.split != "development"]
    for subtask in plan.subtasks:
        for example in subtask.examples:
            where = f"subtask {subtask.id}, example of case {example.case}"
            fault = _fault_of(example, subtask, by_id.get(example.case))
            if fault:
                yield Problem(ProblemKind.EXAMPLE, where, fault)
                continue
            text = _one_spaced(example.text)
            if len(text.split()) >= LONG_EXAMPLE:
                for case, case_text in elsewhere:
                    if text in case_text:
                        message = f"its text stands in case {case.id} of {case.split} too"
                        yield Problem(ProblemKind.EXAMPLE, where, message)


def _fault_of(example: Example, subtask: Subtask, case: SyntheticCase | None) -> str:
    if case is None:
        return "there is no such case"
    if case.split != "development":
        return f"the case is in {case.split}: examples come from development alone"
    if _one_spaced(example.text) not in _one_spaced(case.text):
        return "its text is not in the case, word for word"
    expected = case.known().get(subtask.finding or "")
    # A passage may be silent on what the report states elsewhere.
    if expected is not None and example.value not in (NOT_STATED, expected):
        return f"it shows {example.value}, the case expects {expected}"
    return ""


# ------------------------------------------------------------------------- coverage


def _uncovered_decisions(plan: Plan, cases: Sequence[SyntheticCase], minimum: int) -> Iterator[Problem]:
    """Outcomes and rules, of every part and the final decision, that too few cases come to."""
    lists: list[tuple[str, DecisionTable]] = [(f"part {name}, ", table) for name, table in plan.part_tables.items()]
    lists.append(("", plan.decision_table))
    for where, table in lists:
        verdicts = [table.decide(case.known()) for case in cases]
        outcomes = Counter(verdict.outcome for verdict in verdicts)
        rules = Counter(verdict.rule for verdict in verdicts)
        # A rule that the options switch off needs no cases; one that never decides is found by the proof of the rules.
        deciding = [rule for rule in table.rules if table.example(rule.rule) is not None]
        for outcome in dict.fromkeys(rule.outcome for rule in deciding):
            if outcomes[outcome] < minimum:
                message = f"{outcomes[outcome]} cases come out so, {minimum} wanted"
                yield Problem(ProblemKind.UNCOVERED_OUTCOME, f"{where}outcome {outcome}", message)
        for rule in deciding:
            if rules[rule.rule] < minimum:
                message = f"{rules[rule.rule]} cases are decided by it, {minimum} wanted"
                yield Problem(ProblemKind.UNCOVERED_RULE, f"rule {rule.rule}", message)


def _uncovered_values(plan: Plan, cases: Sequence[SyntheticCase], minimum: int) -> Iterator[Problem]:
    """Values, silence included, that too few cases have; of a number, being stated or not."""
    for finding in plan.findings:
        known = [case.known()[finding.name] for case in cases]
        if finding.values is None:
            known = [NOT_STATED if value == NOT_STATED else "stated" for value in known]
        counts = Counter(known)
        for value in finding.all_values if finding.values is not None else ("stated", NOT_STATED):
            if counts[value] < minimum:
                message = f"{counts[value]} cases have it, {minimum} wanted"
                silence = finding.not_stated
                # Where "no" takes in absence, nobody is silent; and such a silence leads where its value leads.
                harmless = value == NOT_STATED and silence.reads_as is not None and silence.unless is None
                kind = ProblemKind.UNCOVERED_SILENCE if harmless else ProblemKind.UNCOVERED_VALUE
                yield Problem(kind, f"finding {finding.name}, value {value}", message)


def _boundary_cases(plan: Plan, cases: Sequence[SyntheticCase]) -> Mapping[str, tuple[str, int]]:
    """Place -> (boundary, how many cases lie exactly on it).

    Of a number: the bounds of the rules. Of a value whose name says that it takes in its boundary (`<=180`): cases
    with this value whose text has that number, which is as far as it can be told.
    """
    found: dict[str, tuple[str, int]] = {}
    for rule in plan.all_rules:
        for name, number in bounds_of(rule.when, plan):
            kind = plan.finding(name).number
            if kind is not None and kind.numbers.holds(number):
                count = sum(case.known()[name] == number for case in cases)
                found[f"finding {name}, {number:g}"] = (f"{number:g} {kind.unit}", count)
    for finding in plan.findings:
        for value in finding.values or ():
            for comparison in comparisons_in(value):
                if comparison.sides[1]:
                    named = re.compile(rf"(?<![\d.,]){re.escape(f'{comparison.number:g}')}(?![.,]?\d)")
                    having = [case for case in cases if case.known()[finding.name] == value]
                    count = sum(bool(named.search(case.text)) for case in having)
                    found[f"finding {finding.name}, value {value}"] = (f"{comparison.number:g}", count)
    return found
