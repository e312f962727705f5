"""What a terminal shows while a model is made fit for a plan, and afterwards. Names and counts, no texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console

from medorchestra.calibration import risk_coverage
from medorchestra.finetune.training import TrainingProgress
from medorchestra.fitting import Fitted, FittingProgress
from medorchestra.intervals import wilson_interval
from medorchestra.local.calibrating import FittedCalibration
from medorchestra.local.staged_report import StagedReport
from medorchestra.plan_terminal import Told, record_line
from medorchestra.rehearsal_scores import CaseReading


class FittingDisplay(Told):
    """Shows how far training, calibration and rehearsal are; give `progress` to `fit`."""

    def __init__(self, *, quiet: bool, console: Console | None = None) -> None:
        super().__init__(quiet=quiet, console=console)
        self._read = {"calibrating": 0, "rehearsing": 0}

    def __enter__(self) -> Self:
        super().__enter__()
        self.say("composing reports and loading the model", lasting=True)
        return self

    @property
    def progress(self) -> FittingProgress:
        """What `fit` calls."""
        return FittingProgress(self._trained, self._calibrated, self._rehearsed)

    def _trained(self, done: TrainingProgress) -> None:
        minutes = done.seconds_left / 60
        line = (
            f"training: step {done.step} of {done.steps}, loss {done.loss:.3f}, "
            f"{done.tokens_per_second:.0f} tokens/s, about {minutes:.0f} min left"
        )
        self.say(line, lasting=done.step == done.steps)

    def _calibrated(self, _: StagedReport) -> None:
        self._count("calibrating")

    def _rehearsed(self, _: CaseReading) -> None:
        self._count("rehearsing")

    def _count(self, what: str) -> None:
        self._read[what] += 1
        self.say(f"{what}: {self._read[what]} reports read", lasting=False)


class ReadCount(Told):
    """Counts reports that are read; give `advance` to `fit_calibration`."""

    def __init__(self, total: int, *, quiet: bool, console: Console | None = None) -> None:
        super().__init__(quiet=quiet, console=console)
        self._total, self._done = total, 0

    def advance(self, _: StagedReport) -> None:
        """One report was read."""
        self._done += 1
        self.say(f"{self._done}/{self._total} reports", lasting=self._done == self._total)


def fitted_lines(fitted: Fitted) -> list[str]:
    """What a fitting came to."""
    record = fitted.adapter.record
    counted = ", ".join(f"{count} {kind}" for kind, count in record["data"].items() if count)
    lines = [
        f"adapter: {fitted.adapter.path} ({record['adapter_digest'][:19]}), trained on {counted} reports "
        f"({record['trained_on']}) in {record['seconds'] / 60:.0f} min; last loss {record['losses'][-1][1]:.3f}",
        *_quantization_lines(record),
        f"PyTorch and llama.cpp: right answers differ in probability by {fitted.adapter.parity:.3f} on average",
        *calibration_lines(fitted.calibration),
    ]
    if fitted.held_out is None:
        return [*lines, "not validated: there are no held-out cases with a certain outcome"]
    scores = fitted.held_out
    return [*lines, record_line(fitted.plan.validation[-1]), *scores.lines(fitted.plan)]


def _quantization_lines(record: Mapping[str, Any]) -> list[str]:
    """Nothing where the base was trained on as its file holds it; records from before 4-bit training do not say so."""
    if record.get("quantization", "none") == "none":
        return []
    return [
        f"trained on the base in 4 bits ({record['quantization']}): right answers differ in probability by "
        f"{record['difference_to_trained_base']:.3f} on average from those of the base that runs"
    ]


def calibration_lines(fitted: FittedCalibration) -> list[str]:
    """What a calibration came to."""
    calibration, threshold = fitted.calibration, fitted.threshold
    told = f"calibrated on {calibration.n} labelled reports ({calibration.labels})"
    if threshold is None:
        curve = risk_coverage(fitted.decisions)
        least = f"; the lowest share of wrong ones seen was {min(risk for _, risk in curve):.2f}" if curve else ""
        return [f"{told}: no threshold leaves at most {calibration.risk:.0%} wrong, all go to review{least}"]
    low, high = wilson_interval(threshold.wrong, threshold.kept) or (0.0, 1.0)
    return [
        f"{told}: below {calibration.review_below:.2f} to review; {threshold.kept} of {threshold.of} are left, "
        f"{threshold.wrong} of them wrong (95 % interval {100 * low:.0f} to {100 * high:.0f} %), counted on "
        "the reports that the threshold was chosen on"
    ]
