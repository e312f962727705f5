"""An executor over the small plan, whose engine notes what it is given to read."""

from __future__ import annotations

from contextlib import contextmanager

from small_batch import CITATION, CONTENT, PLAN, plan_with, scripted_reading, small_reports

from medorchestra.local.engine.scripted import ScriptedEngine
from medorchestra.local.executor import Executor

REPORT = small_reports(1)[0]
FILLER = "The spleen, kidneys and adrenals show no abnormality on this examination today. "
"""Twelve words on nothing that the small plan asks."""


class WatchedEngine(ScriptedEngine):
    """Notes what it is given to read and what it is asked."""

    def __init__(self, reply=scripted_reading, **options):
        self.reports, self.questions = [], []

        def noted(asked):
            self.questions.append(asked.question)
            return reply(asked)

        super().__init__(noted, **options)

    @contextmanager
    def open(self, conversation):
        self.reports.append(conversation.report)
        with super().open(conversation) as session:
            yield session


def read(report=REPORT, plan=PLAN, engine=None, subtasks=None):
    """Answers by subtask, and the reading."""
    reading = Executor(plan, engine or WatchedEngine()).read(report, subtasks)
    return {answer.subtask: answer for answer in reading.answers}, reading


def focused(**changes):
    return plan_with(profile=CONTENT["profile"] | {"context": "focused"}, **changes)


def with_subtask(**subtask):
    """The small plan with one more subtask that reads no finding."""
    extra = {"id": "extra", "prompt": {"instructed": "Copy."}, "citation": CITATION, "labels": {}} | subtask
    return plan_with(subtasks=[*CONTENT["subtasks"], extra])
