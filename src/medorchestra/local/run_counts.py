"""What is counted of each report, and the counts of a whole run: without keeping its reports."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple, Self

from medorchestra.local.answers import AnswerStatus
from medorchestra.local.staged_report import ReportStatus, StagedReport
from medorchestra.plan import Plan


class ReportCounts(NamedTuple):
    """What a run counts of one report.

    Attributes:
        status: how its staging ended.
        outcome: its decided outcome; None where it has none.
        review: whether a person has to look.
        answers: all of them, failed and skipped ones included.
        failed_answers, skipped_answers, resumed_answers: those without a reading, not asked, and from the ledger.
        tokens: computed for it in this run.
        microseconds_in_model: what the engine took for it in this run.
    """

    status: str
    outcome: str | None
    review: bool
    answers: int
    failed_answers: int
    skipped_answers: int
    resumed_answers: int
    tokens: int
    microseconds_in_model: int

    @classmethod
    def of(cls, staged: StagedReport) -> Self:
        """The counts of a staged report."""
        return cls(
            status=staged.status.value,
            outcome=staged.decision.outcome if staged.decision is not None else None,
            review=staged.review,
            answers=len(staged.answers),
            failed_answers=sum(answer.status.is_failure for answer in staged.answers),
            skipped_answers=sum(answer.status is AnswerStatus.SKIPPED for answer in staged.answers),
            resumed_answers=staged.resumed,
            tokens=staged.tokens,
            microseconds_in_model=round(1e6 * staged.seconds_in_model),
        )

    @classmethod
    def numbers(cls) -> tuple[str, ...]:
        """The fields that a result row does not have."""
        return cls._fields[3:]


class RunCounts:
    """The sums of a run, report by report."""

    def __init__(self, plan: Plan) -> None:
        self.statuses = {status.value: 0 for status in ReportStatus}
        self.outcomes = {outcome.name: 0 for outcome in plan.outcomes}
        self.reports = self.review = self.failed_answers = self.resumed_answers = self.answers = self.tokens = 0
        self.skipped_answers = 0
        self.seconds_in_model = 0.0

    def add(self, report: ReportCounts) -> None:
        """One report more."""
        self.reports += 1
        self.statuses[report.status] += 1
        self.review += report.review
        self.answers += report.answers
        self.failed_answers += report.failed_answers
        self.skipped_answers += report.skipped_answers
        self.resumed_answers += report.resumed_answers
        self.tokens += report.tokens
        self.seconds_in_model += report.microseconds_in_model / 1e6
        if report.outcome is not None:
            self.outcomes[report.outcome] += 1

    def times(self, started_at: datetime, seconds: float, *, engines: int | None = 1) -> dict[str, Any]:
        """When a run began, how long it took and how fast it was, as run.json has it.

        Args:
            started_at: when.
            seconds: wall time of the whole run, loading the model included.
            engines: how many read side by side; None where that is not known: no share of the time can be told then.

        Returns:
            `tokens_per_second` counts the time in the model alone, and is None where nothing was computed; several
            engines' times are added up in `seconds_in_model`.
        """
        in_model = self.seconds_in_model
        return {
            "started": started_at.isoformat(timespec="seconds"),
            "seconds": round(seconds, 6),
            "seconds_in_model": round(in_model, 6),
            "share_in_model": round(in_model / (engines * seconds), 3) if engines and in_model and seconds else None,
            "reports_per_minute": round(60 * self.reports / seconds, 1) if seconds else None,
            "tokens_per_second": round(self.tokens / in_model, 1) if in_model and self.tokens else None,
        }

    def facts(self) -> dict[str, Any]:
        """The counts as run.json has them."""
        return {
            "counts": {
                "reports": self.reports,
                "statuses": self.statuses,
                "outcomes": self.outcomes,
                "review": self.review,
                "answers": self.answers,
                "failed_answers": self.failed_answers,
                "skipped_answers": self.skipped_answers,
                "answers_from_ledger": self.resumed_answers,
                "tokens_computed": self.tokens,
            }
        }
