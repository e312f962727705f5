"""An answer key: the script with which `ScriptedEngine` answers every question as the synthetic cases expect.

Shows what plan, executor and aggregator do when the reading is perfect. Knows plans and cases; no real model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from medorchestra.local.engine.scripted import ScriptedEngine, ScriptedQuestion
from medorchestra.local.measurements import measurements_in
from medorchestra.plan import Plan, Subtask, content_digest
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import SyntheticCase


def perfect_reader(plan: Plan, cases: Iterable[SyntheticCase]) -> ScriptedEngine:
    """An engine that gives the expected value to every question on these cases' reports.

    A report that is not among the cases raises KeyError in the engine, and so gets failed answers.
    """
    expected = {case.text: case.known() for case in cases}
    subtasks = {plan.question(subtask): subtask for subtask in plan.subtasks}

    def reply(question: ScriptedQuestion) -> str:
        subtask = subtasks[question.question]
        value = expected[question.report][subtask.finding or ""]
        return _label(plan, subtask, value, question.report)

    return ScriptedEngine(reply, name="perfect_reader", script_digest=content_digest(_key(expected)))


def _key(expected: Mapping[str, Mapping[str, str | float]]) -> list[list[object]]:
    return [[text, sorted(findings.items())] for text, findings in sorted(expected.items())]


def _label(plan: Plan, subtask: Subtask, value: str | float, report: str) -> str:
    """What a perfect reader answers: the label, or the measurement as it stands in the report."""
    if value == NOT_STATED or isinstance(value, str):
        return subtask.labels[str(value)]
    number = plan.finding(subtask.finding or "").number
    if number is not None:
        for place in measurements_in(report, number):
            if abs(place.value - value) < 1e-6:
                return place.words
    return subtask.labels[NOT_STATED]
