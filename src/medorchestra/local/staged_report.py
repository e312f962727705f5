"""What became of one report: its status, its decision, its answers. Prints without report text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from medorchestra.local.aggregator import Decision
from medorchestra.local.answers import Answer
from medorchestra.local.records import Report
from medorchestra.plan import Plan


class ReportStatus(StrEnum):
    """How the staging of one report ended."""

    DECIDED = "decided"
    """One outcome follows for certain from the answers."""
    OPEN = "open"
    """Several outcomes remain possible; `missing` says what would settle it."""
    EMPTY = "empty"
    """The report has no text. Nothing was asked."""
    FAILED = "failed"
    """No answer could be read; `error` says why."""

    @property
    def is_failure(self) -> bool:
        """True where there is no decision at all."""
        return self in (ReportStatus.EMPTY, ReportStatus.FAILED)


@dataclass(frozen=True, slots=True, repr=False)
class StagedReport:
    """What became of one report.

    Attributes:
        plan: the plan that was run.
        report: the report.
        status: see `ReportStatus`.
        decision: the decision; None for a failure.
        answers: one for each subtask, in the plan's order; none where nothing could be asked.
        error: kind of error where the status is `failed`. Never report text.
        tokens: tokens computed for it in this run (0 when all came from the ledger).
        seconds: wall time in this run.
        resumed: how many answers came from the ledger.
        validated: whether the plan was rehearsed with the model that read it.
        seconds_in_model: of `seconds`, those inside the engine.
    """

    plan: Plan
    report: Report
    status: ReportStatus
    decision: Decision | None = None
    answers: tuple[Answer, ...] = ()
    error: str | None = None
    tokens: int = 0
    seconds: float = 0.0
    resumed: int = 0
    validated: bool = False
    seconds_in_model: float = 0.0

    @property
    def report_id(self) -> str:
        """The report's id."""
        return self.report.report_id

    @property
    def review(self) -> bool:
        """Whether a person has to look: failures always, decisions where they say so."""
        return self.decision is None or self.decision.review

    def answer(self, finding: str) -> Answer:
        """The answer to a finding (KeyError if no subtask reads it)."""
        return {answer.finding: answer for answer in self.answers}[finding]

    def __repr__(self) -> str:
        outcome = self.decision.outcome if self.decision else None
        return f"StagedReport({self.report_id!r}, {self.status.value}, outcome={outcome!r})"

    def _repr_html_(self) -> str:
        from medorchestra.local.html_view import staged_report_html

        return staged_report_html(self)
