"""Stages a batch: every report through ledger, executor and aggregator, one result for each, in the input's order.

The per-report function is plain (`Stager.stage_one`), so that other schedulers can call it. Reads no source and
writes no result file; the only thing it writes is the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from medorchestra.local.aggregator import decide
from medorchestra.local.answer_calibration import calibrated
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.engine.protocol import Engine
from medorchestra.local.executor import Executor, Reading, describe_error
from medorchestra.local.lazy_asking import LazyAsking
from medorchestra.local.lazy_plan import LazyPlan
from medorchestra.local.ledger import AnswerStore, RunKey
from medorchestra.local.records import Report
from medorchestra.local.scope import scope_problems
from medorchestra.local.server_watch import ServerWatch
from medorchestra.local.staged_report import ReportStatus, StagedReport
from medorchestra.local.validation import doubt_of, validation_of
from medorchestra.plan import Plan, Subtask


class Stager:
    """A plan, an engine and (optionally) a ledger: stages reports one by one.

    Attributes:
        validated: whether the plan was rehearsed with this engine's model; every staged report carries it.
        lazy: the plan's rules, where questions that cannot change a decision any more are skipped; None: all are asked.
    """

    def __init__(self, plan: Plan, engine: Engine, ledger: AnswerStore | None = None, *, lazy: bool = False) -> None:
        self.plan = plan
        self.engine = engine
        self._ledger = ledger
        self._executor = Executor(plan, engine)
        self._watch = ServerWatch(engine, kept=ledger is not None)
        self._calibration = plan.calibration_for(engine.identity.digest, engine.identity.adapter_digest)
        doubt = doubt_of(plan, engine.identity)
        self._doubts = () if doubt is None else (doubt,)
        self._subtask_digests = {subtask.id: plan.subtask_digest(subtask) for subtask in plan.subtasks}
        identity = engine.identity
        self.validated = validation_of(plan, identity) is not None
        self.lazy = self._lazy_plan() if lazy else None
        # An answer is the same whether others were skipped or not: `lazy` is no part of the key.
        self.run_key = RunKey(
            plan=plan.questions_digest,  # what it asks, not its rules: see ledger.py
            model=identity.digest,
            adapter=identity.adapter_digest or "",
            settings=self._executor.settings_digest,
        )

    def _lazy_plan(self) -> LazyPlan:
        """Questions cost their tokens."""
        subtasks = [subtask for subtask in self.plan.subtasks if subtask.finding]
        costs = {s.finding or "": float(self.engine.count_tokens(self.plan.question(s))) for s in subtasks}
        return LazyPlan(self.plan, costs=costs)

    @property
    def digests(self) -> dict[str, str | None]:
        """Digests of plan, guideline, model, adapter and settings, for traces and run.json."""
        identity = self.engine.identity
        return {
            "plan": self.plan.digest,
            "guideline": self.plan.guideline.digest,
            "model": identity.digest,
            "adapter": identity.adapter_digest,
            "settings": self.run_key.settings,
        }

    def stage(self, reports: Iterable[Report]) -> Iterator[StagedReport]:
        """Stage reports in order. One bad report never stops the others.

        Raises:
            ModelError: the model's server is gone (see `server_watch`).
            StorageError: the ledger cannot be written any more; what was finished before is in it.
        """
        for report in reports:
            yield self.stage_one(report)

    def stage_one(self, report: Report) -> StagedReport:
        """Stage one report: answers that the ledger holds are taken from it, the others are asked and stored.

        Raises:
            ModelError: the model's server is gone: this report was one too many without an answer.
            StorageError: the ledger cannot be read or written.
        """
        started = time.perf_counter()
        if not report.text.strip():
            return StagedReport(self.plan, report, ReportStatus.EMPTY, validated=self.validated)
        stored = self._stored(report)
        missing = [subtask for subtask in self.plan.subtasks if subtask.id not in stored]
        answers, reading = dict(stored), None
        if missing:
            try:
                reading, skipped = self._read(report, missing, stored)
            except Exception as problem:  # noqa: BLE001 - text that the engine cannot take; the batch goes on
                seconds = time.perf_counter() - started
                error = describe_error(problem)
                return StagedReport(
                    self.plan, report, ReportStatus.FAILED, error=error, seconds=seconds, validated=self.validated
                )
            fresh = {answer.subtask: answer for answer in reading.answers}
            self._store(report, fresh)
            self._watch.note(report, reading)
            answers |= fresh | skipped
        ordered = tuple(answers[subtask.id] for subtask in self.plan.subtasks)
        staged = self._decided(report, ordered, started, len(stored))
        if reading is None:
            return staged
        return replace(staged, tokens=reading.tokens, seconds_in_model=reading.seconds_in_model)

    def _read(
        self, report: Report, missing: list[Subtask], stored: dict[str, Answer]
    ) -> tuple[Reading, dict[str, Answer]]:
        """What was asked, and the answers in place of what was skipped."""
        if self.lazy is None:
            return self._executor.read(report, missing), {}
        for_review = bool(self._doubts) or bool(scope_problems(report.text, self.plan.scope))
        asking = LazyAsking(self.lazy, list(stored.values()), calibration=self._calibration, for_review=for_review)
        reading = self._executor.read(report, missing, next_round=asking.next_round)
        return reading, asking.skipped({answer.subtask: answer for answer in reading.answers}, len(report.text))

    def decide_again(self, staged: StagedReport) -> StagedReport:
        """The same answers, decided by this stager's plan and calibration. Asks no model.

        Args:
            staged: from a stager without calibration, whose answers are the model's own. What it skipped stays unknown.
        """
        if not staged.answers:
            return staged
        again = self._decided(staged.report, staged.answers, time.perf_counter(), staged.resumed)
        return replace(again, tokens=staged.tokens, seconds=staged.seconds, seconds_in_model=staged.seconds_in_model)

    def _stored(self, report: Report) -> dict[str, Answer]:
        if self._ledger is None:
            return {}
        by_digest = self._ledger.find(report.digest, self.run_key)
        digests = self._subtask_digests.items()
        return {subtask: by_digest[digest] for subtask, digest in digests if digest in by_digest}

    def _store(self, report: Report, fresh: dict[str, Answer]) -> None:
        """Keep what was read. An engine's failure is not kept, so that the next run tries again."""
        if self._ledger is None:
            return
        kept = {
            self._subtask_digests[subtask]: answer
            for subtask, answer in fresh.items()
            if answer.status is not AnswerStatus.FAILED
        }
        if kept:
            self._ledger.add(report.digest, self.run_key, kept)

    def _decided(self, report: Report, answers: tuple[Answer, ...], started: float, resumed: int) -> StagedReport:
        """What follows from the answers; tokens and the time in the model are for the caller to add."""
        if self._calibration is not None:
            answers = tuple(calibrated(answer, self._calibration) for answer in answers)
        failures = [answer for answer in answers if answer.status.is_failure]
        asked = sum(answer.status is not AnswerStatus.SKIPPED for answer in answers)
        if len(failures) == asked:
            status, decision = ReportStatus.FAILED, None
            error = failures[0].error or failures[0].status.value
        else:
            try:
                decision = decide(
                    self.plan,
                    answers,
                    calibration=self._calibration,
                    scope_problems=scope_problems(report.text, self.plan.scope),
                    doubts=self._doubts,
                )
                status = ReportStatus.OPEN if decision.outcome is None else ReportStatus.DECIDED
                error = None
            except Exception as problem:  # noqa: BLE001 - becomes the status of this report; the batch goes on
                status, decision, error = ReportStatus.FAILED, None, describe_error(problem)
        seconds = time.perf_counter() - started
        return StagedReport(
            self.plan,
            report,
            status,
            decision,
            answers,
            error,
            seconds=seconds,
            resumed=resumed,
            validated=self.validated,
        )
