"""How well a model read synthetic cases, per finding and for the outcome, and whether another plan reads better.

Counts and compares readings; knows neither the model that made them nor the planner that learns from them, so that both
sides can use it. An undefined number is None.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from medorchestra.intervals import wilson_interval
from medorchestra.plan import Accuracy, Plan, ValidationRecord
from medorchestra.synthetic import SyntheticCase, cases_digest

SAME_NUMBER = 0.051
"""Numbers nearer than this (in the finding's unit) count as the same: reports round to one decimal."""

CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class CaseReading:
    """What was read in one synthetic case.

    Attributes:
        case: the case.
        answers: finding -> value, number or `not_stated`; None where no answer could be read.
        probabilities: finding -> probability of every value; empty where nothing was scored.
        best_outcome: the most probable outcome; None where there is no decision.
        review: whether the decision would go to a person.
        outcomes: outcome -> probability; empty where there is no decision.
    """

    case: SyntheticCase
    answers: Mapping[str, str | float | None]
    probabilities: Mapping[str, Mapping[str, float]]
    best_outcome: str | None
    review: bool
    outcomes: Mapping[str, float] = field(default_factory=dict)

    def is_right(self, finding: str) -> bool:
        """Whether the answer to a finding is the expected one."""
        expected, answered = self.case.known()[finding], self.answers.get(finding)
        if isinstance(expected, str) or isinstance(answered, str) or answered is None:
            return answered == expected
        return abs(answered - expected) < SAME_NUMBER

    @property
    def is_outcome_right(self) -> bool:
        """Whether the most probable outcome is the expected one."""
        return self.best_outcome == self.case.outcome


@dataclass(frozen=True, slots=True)
class FindingScore:
    """How one finding was read.

    Attributes:
        n, correct: readings, and right ones.
        interval: 95 % Wilson interval of their share, or None without readings.
        confusion: (expected, answered) -> count; numbers count as `number`, failed answers as `no answer`.
        calibration_error: expected calibration error over ten bins, or None where nothing was scored.
        brier: mean squared distance of the distribution from the truth (0 to 2), or None.
    """

    n: int
    correct: int
    interval: tuple[float, float] | None
    confusion: Mapping[tuple[str, str], int]
    calibration_error: float | None
    brier: float | None


@dataclass(frozen=True, slots=True)
class RehearsalScores:
    """A rehearsal: one plan, one model, synthetic cases.

    Attributes:
        plan_digest: of the plan that was rehearsed.
        model, model_digest, adapter_digest: who read.
        readings: one for each case.
    """

    plan_digest: str
    model: str
    model_digest: str
    adapter_digest: str | None
    readings: tuple[CaseReading, ...]

    def finding(self, name: str) -> FindingScore:
        """How a finding was read."""
        hits = [reading.is_right(name) for reading in self.readings]
        confusion = Counter(
            (_kind(reading.case.known()[name]), _kind(reading.answers.get(name))) for reading in self.readings
        )
        scored = [
            (reading.probabilities[name], truth)
            for reading in self.readings
            if reading.probabilities.get(name) and isinstance(truth := reading.case.known()[name], str)
        ]
        error, brier = calibration(scored)
        return FindingScore(len(hits), sum(hits), wilson_interval(sum(hits), len(hits)), confusion, error, brier)

    @property
    def decided(self) -> tuple[CaseReading, ...]:
        """Readings of the cases whose expected outcome is certain."""
        return tuple(reading for reading in self.readings if reading.case.outcome is not None)

    @property
    def outcome_correct(self) -> int:
        """Decided cases whose most probable outcome is right."""
        return sum(reading.is_outcome_right for reading in self.decided)

    @property
    def unreviewed(self) -> tuple[CaseReading, ...]:
        """Readings that nothing sends to a person; of an open case that is always wrong."""
        return tuple(reading for reading in self.readings if not reading.review)

    def validation_record(self, findings: Iterable[str], measured_on: date) -> ValidationRecord:
        """The record that goes into the plan.

        Raises:
            ValueError: no case with a certain outcome was read.
        """
        return ValidationRecord(
            measured_on=measured_on,
            plan_digest=self.plan_digest,
            model=self.model,
            model_digest=self.model_digest,
            adapter_digest=self.adapter_digest,
            cases_digest=cases_digest(reading.case for reading in self.readings),
            outcome=accuracy_of(self.outcome_correct, len(self.decided)),
            unreviewed=accuracy_of(sum(reading.is_outcome_right for reading in self.unreviewed), len(self.unreviewed))
            if self.unreviewed
            else None,
            findings={
                name: accuracy_of(sum(reading.is_right(name) for reading in self.readings), len(self.readings))
                for name in findings
            },
        )

    def lines(self, plan: Plan) -> list[str]:
        """A readable summary: outcome first, then the findings, worst first."""
        told = [f"outcome: {_share(self.outcome_correct, len(self.decided))}"]
        right = sum(reading.is_outcome_right for reading in self.unreviewed)
        told[0] += f"; of those that nobody would look at: {_share(right, len(self.unreviewed))}"
        scores = {finding.name: self.finding(finding.name) for finding in plan.findings}
        for name, score in sorted(scores.items(), key=lambda item: item[1].correct / max(item[1].n, 1)):
            told.append(f"{name}: {_share(score.correct, score.n)}")
        return told


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """The same cases read twice.

    Attributes:
        gained: right only the second time.
        lost: right only the first time.
        p_value: exact two-sided McNemar test.
    """

    gained: int
    lost: int

    @property
    def p_value(self) -> float:
        """Probability of a split at least this uneven if both were equally good (exact binomial; McNemar 1947)."""
        n, k = self.gained + self.lost, min(self.gained, self.lost)
        if n == 0:
            return 1.0
        return min(1.0, math.ldexp(sum(math.comb(n, i) for i in range(k + 1)), 1 - n))

    @property
    def loses(self) -> bool:
        """Whether the second reading lost more cases than it gained."""
        return self.lost > self.gained


def compare_finding(before: RehearsalScores, after: RehearsalScores, finding: str) -> PairedComparison:
    """One finding, read by two rehearsals on the same cases.

    Raises:
        ValueError: the cases are not the same.
    """
    pairs = [(a.is_right(finding), b.is_right(finding)) for a, b in _paired(before, after)]
    return PairedComparison(gained=pairs.count((False, True)), lost=pairs.count((True, False)))


def compare_outcome(before: RehearsalScores, after: RehearsalScores) -> PairedComparison:
    """The outcome, over the cases whose expected outcome is certain.

    Raises:
        ValueError: the cases are not the same.
    """
    pairs = [(a.is_outcome_right, b.is_outcome_right) for a, b in _paired(before, after) if a.case.outcome is not None]
    return PairedComparison(gained=pairs.count((False, True)), lost=pairs.count((True, False)))


def calibration(scored: Sequence[tuple[Mapping[str, float], str]]) -> tuple[float | None, float | None]:
    """Expected calibration error of the chosen value (ten bins of equal width), and multi-class Brier score.

    Args:
        scored: (distribution, true value) of each reading.

    Returns:
        (None, None) without readings.
    """
    if not scored:
        return None, None
    bins: dict[int, list[tuple[float, bool]]] = {}
    brier = 0.0
    for distribution, truth in scored:
        chosen = max(distribution, key=distribution.__getitem__)
        confidence = distribution[chosen]
        place = min(int(confidence * CALIBRATION_BINS), CALIBRATION_BINS - 1)
        bins.setdefault(place, []).append((confidence, chosen == truth))
        brier += sum((p - (value == truth)) ** 2 for value, p in distribution.items())
        brier += float(truth not in distribution)
    error = sum(abs(sum(c for c, _ in found) - sum(hit for _, hit in found)) for found in bins.values()) / len(scored)
    return error, brier / len(scored)


def _paired(before: RehearsalScores, after: RehearsalScores) -> list[tuple[CaseReading, CaseReading]]:
    if [reading.case.id for reading in before.readings] != [reading.case.id for reading in after.readings]:
        raise ValueError("the two rehearsals did not read the same cases in the same order")
    return list(zip(before.readings, after.readings, strict=True))


def _kind(value: str | float | None) -> str:
    if value is None:
        return "no answer"
    return value if isinstance(value, str) else "number"


def accuracy_of(correct: int, n: int) -> Accuracy:
    """A share with its interval, as records hold it.

    Raises:
        ValueError: nothing was counted.
    """
    interval = wilson_interval(correct, n)
    if interval is None:
        raise ValueError("no case with a certain outcome was read: an accuracy of nothing is no validation")
    return Accuracy(n=n, correct=correct, low=interval[0], high=interval[1])


def _share(correct: int, n: int) -> str:
    interval = wilson_interval(correct, n)
    if interval is None:
        return "no cases"
    low, high = (f"{100 * bound:.0f}" for bound in interval)
    return f"{correct} of {n}, {100 * correct / n:.0f} % (95 % interval {low} to {high})"
