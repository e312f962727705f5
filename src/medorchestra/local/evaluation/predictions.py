"""The words of an evaluation: a labelled case, what a strategy predicted for it, and a run of one strategy.

Plain data; prints without report text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from medorchestra.local.calibrating import OPEN, LabelledReport
from medorchestra.local.records import Report
from medorchestra.local.staged_report import StagedReport

NO_DECISION = "no decision"
"""Stands for the outcome of a report on which a strategy came to none. Never right."""


@dataclass(frozen=True, slots=True, repr=False)
class LabelledCase:
    """A report, what is true of it, what people said of it, and the groups it belongs to.

    Attributes:
        labels: the report with its outcome (`OPEN` where several remain possible) and as many findings as are labelled.
        readers: name of a human reader -> the outcome that this reader gave, `OPEN`, or None where none was given.
        groups: subgroup column -> this case's group, `missing` where the cell is empty.
    """

    labels: LabelledReport
    readers: Mapping[str, str | None] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def report(self) -> Report:
        """The report."""
        return self.labels.report

    @property
    def case_id(self) -> str:
        """The report's id."""
        return self.labels.report.report_id

    @property
    def truth(self) -> str | None:
        """The single true outcome; None where several remain possible."""
        return None if self.labels.outcome == OPEN else self.labels.outcome

    def __repr__(self) -> str:
        return f"LabelledCase({self.case_id!r}, outcome={self.labels.outcome!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """What one strategy said of one report.

    Attributes:
        case_id: id of the report.
        outcome: the most probable outcome; None where the strategy came to none.
        is_open: whether the strategy says that several outcomes remain possible (only rules can say so).
        probabilities: outcome -> probability; empty where nothing was scored.
        review: whether a person has to look; None where the strategy has no say in it.
        staged: answers and decision behind it; None for strategies without subtasks.
        error: why there is no outcome: kind and place, never report text.
        seconds: wall time in this run (0 where it was taken from a ledger).
        tokens: tokens computed in this run.
    """

    case_id: str
    outcome: str | None
    is_open: bool = False
    probabilities: Mapping[str, float] = field(default_factory=dict)
    review: bool | None = None
    staged: StagedReport | None = None
    error: str | None = None
    seconds: float = 0.0
    tokens: int = 0

    @property
    def probability(self) -> float | None:
        """Of the outcome; None where nothing was scored."""
        return None if self.outcome is None else self.probabilities.get(self.outcome)

    def is_right(self, case: LabelledCase) -> bool:
        """Whether this is the true outcome; of an open case, whether it was left open."""
        if case.truth is None:
            return self.is_open
        return self.outcome == case.truth

    def __repr__(self) -> str:
        return f"Prediction({self.case_id!r}, outcome={self.outcome!r}, review={self.review})"


@dataclass(frozen=True, slots=True)
class StrategyRun:
    """One strategy over all cases, in their order.

    Attributes:
        strategy: name of the strategy.
        adapter: file name of the adapter, or None.
        predictions: one for each case.
    """

    strategy: str
    adapter: str | None
    predictions: tuple[Prediction, ...]

    @property
    def name(self) -> str:
        """`orchestrated` or `orchestrated + adapter`: unique within an evaluation."""
        return run_name(self.strategy, self.adapter)


def run_name(strategy: str, adapter: str | None) -> str:
    """The name of a run."""
    return strategy if adapter is None else f"{strategy} + adapter"
