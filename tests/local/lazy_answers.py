"""Answers of all kinds to any plan, and the lazy way through them: what the tests of lazy asking share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from medorchestra.local.aggregator import Decision, decide
from medorchestra.local.answer_calibration import calibrated
from medorchestra.local.answers import Answer, AnswerStatus, Quote
from medorchestra.local.lazy_asking import LazyAsking
from medorchestra.local.lazy_plan import LazyPlan
from medorchestra.plan import Calibration, Plan
from medorchestra.rules import NOT_STATED

QUOTE = Quote(0, 4, "text", 0.9, "focus_terms")


def values_of(plan: Plan, name: str) -> tuple[str | float, ...]:
    """All values of a finding that make a difference, and silence."""
    return (*plan.decision_table.stated_values(name), NOT_STATED)


def answer_of(plan: Plan, subtask: str, value: str | float | None, sure: float = 1.0) -> Answer:
    """An answer with this value, this probability, a quote where one belongs; None: it failed."""
    finding = next(one.finding for one in plan.subtasks if one.id == subtask)
    if value is None:
        return Answer(subtask, finding, AnswerStatus.FAILED, characters_total=10, error="RuntimeError at here.py:1")
    keys = [one if isinstance(one, str) else f"{one:.10g}" for one in values_of(plan, finding or "")]
    likeliest = value if isinstance(value, str) else f"{value:.10g}"
    keys = list(dict.fromkeys([*keys, likeliest]))
    rest = (1.0 - sure) / (len(keys) - 1)
    chances = {key: sure if key == likeliest else rest for key in keys}
    if value == NOT_STATED:
        return Answer(subtask, finding, AnswerStatus.NOT_STATED, None, chances, (), 10, 10)
    return Answer(subtask, finding, AnswerStatus.OK, value, chances, (QUOTE,), 10, 10)


@st.composite
def all_answers(draw: st.DrawFn, plan: Plan, *, failing: bool = True) -> tuple[Answer, ...]:
    """One answer for each subtask: a value, silence or a failure; more or less sure of it."""
    found = []
    sure = draw(st.sampled_from([1.0, 0.999, 0.95, 0.8, 0.6]))
    for subtask in plan.subtasks:
        choices = values_of(plan, subtask.finding or "")
        value = draw(st.sampled_from([*choices, None] if failing else choices))
        found.append(answer_of(plan, subtask.id, value, sure))
    return tuple(found)


def lazily(
    lazy: LazyPlan,
    answers: Sequence[Answer],
    *,
    calibration: Calibration | None = None,
    doubts: Sequence[str] = (),
    watch: Callable[[frozenset[str]], None] = lambda asked: None,
) -> tuple[Answer, ...]:
    """The answers that lazy asking comes to, if these are what would be answered; `watch` sees every round."""
    asking = LazyAsking(lazy, (), calibration=calibration, for_review=bool(doubts))
    would_be = {answer.subtask: answer for answer in answers}
    asked: dict[str, Answer] = {}
    while now := asking.next_round(asked):
        assert not now & asked.keys(), "asked twice"
        watch(now)
        asked |= {subtask: would_be[subtask] for subtask in now}
    both = asked | asking.skipped(asked, 10)
    return tuple(both[answer.subtask] for answer in answers)


def both_ways(
    lazy: LazyPlan, answers: Sequence[Answer], *, calibration: Calibration | None = None, doubts: Sequence[str] = ()
) -> tuple[Decision, Decision]:
    """The decision on all answers, and the one on those that lazy asking comes to; calibrated as a stager would."""
    some = lazily(lazy, answers, calibration=calibration, doubts=doubts)
    full_and_lazy = []
    for found in (answers, some):
        read = found if calibration is None else [calibrated(answer, calibration) for answer in found]
        full_and_lazy.append(decide(lazy.plan, read, calibration=calibration, doubts=doubts))
    return full_and_lazy[0], full_and_lazy[1]


def what_is_decided(decision: Decision) -> dict[str, object]:
    """Everything of a decision that must not depend on what was skipped."""
    return {
        "outcome": decision.outcome,
        "best_outcome": decision.best_outcome,
        "possible": decision.possible_outcomes,
        "rule": decision.rule,
        "assumed": decision.assumed,
        "missing": decision.missing,
        "flags": decision.flags,
        "set": decision.outcome_set,
        "parts": {
            name: (part.outcome, part.possible_outcomes, part.rule, part.missing)
            for name, part in decision.parts.items()
        },
    }
