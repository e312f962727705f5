"""Validation records and calibrations in words: who was measured, how much was right, what goes to a person.

For the page, the terminal and the commands alike. Decides nothing and measures nothing.
"""

from __future__ import annotations

from medorchestra.plan import Accuracy, Calibration, Plan, ValidationRecord

UNREVIEWED = "the outcomes that nobody would look at"
NONE_LEFT = "none left without review, or not counted by this record"
"""A record without the number does not tell which of the two it is."""


def percent(share: float) -> str:
    """A share as a percentage, without rounding up to certainty."""
    if 0.9995 <= share < 1:
        return ">99.9 %"
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def short_digest(digest: str) -> str:
    """Enough of a digest to tell it from others."""
    return digest[:19]


def adapter_text(digest: str | None) -> str:
    """The adapter, or that there is none."""
    return "no adapter" if digest is None else f"adapter {short_digest(digest)}"


def accuracy_text(accuracy: Accuracy) -> str:
    """Right ones of all, their share and its interval."""
    interval = f"95 % interval {percent(accuracy.low)} to {percent(accuracy.high)}"
    return f"{accuracy.correct} of {accuracy.n}, {percent(accuracy.correct / accuracy.n)} ({interval})"


def deciding_share(record: ValidationRecord, plan: Plan) -> str:
    """The number on which it rests whether a model reads well enough, and of which outcomes."""
    accuracy = plan.deciding_accuracy(record)
    if accuracy is None:
        return f"none of {_deciding_outcomes(record, plan)}"
    return f"{percent(accuracy.correct / accuracy.n)} of {_deciding_outcomes(record, plan)}"


def _deciding_outcomes(record: ValidationRecord, plan: Plan) -> str:
    if plan.deciding_accuracy(record) is not record.deciding:
        return f"{UNREVIEWED}, by the hospital's own labels"
    return "all outcomes" if record.unreviewed is None else UNREVIEWED


def well_read_text(record: ValidationRecord, plan: Plan) -> str:
    """Why a model counts as reading well enough, or does not."""
    accuracy, asked = plan.deciding_accuracy(record), percent(plan.profile.review_below)
    if accuracy is None:
        return f"no threshold kept the risk that was asked for by the hospital's own labels; {asked} is asked for"
    return f"{percent(accuracy.low)} is the lower bound for {_deciding_outcomes(record, plan)}, {asked} is asked for"


def left_text(record: ValidationRecord) -> str | None:
    """How many of the cases were left without review; None where the record does not tell."""
    cases = {accuracy.n for accuracy in record.findings.values()}
    if record.unreviewed is None or len(cases) != 1 or max(cases) < record.unreviewed.n:
        return None
    return f"{record.unreviewed.n} of {max(cases)} cases"


def calibration_source(calibration: Calibration) -> str:
    """On what a calibration was fitted."""
    return f"{calibration.labels} labels, {calibration.n} reports, {calibration.made_on.isoformat()}"


def calibration_text(calibration: Calibration) -> str:
    """On what it was fitted, and what it does."""
    count = sum(temperature != 1 for temperature in calibration.temperatures.values())
    wrong = f"at most {percent(calibration.risk)} wrong among the others"
    told = [
        calibration_source(calibration),
        f"all to review, as no threshold leaves {wrong}"
        if calibration.review_below == 1
        else f"below {calibration.review_below:g} to review, chosen for {wrong}",
        f"{count} finding{'' if count == 1 else 's'} with a temperature",
    ]
    if calibration.set_coverage is not None:
        floor = calibration.set_floor
        held = "every outcome, as there are too few labels" if floor is None else f"outcomes from {floor:.2g}"
        told.append(f"sets that hold the true outcome of {percent(calibration.set_coverage)} of reports: {held}")
    return "; ".join(told)


def is_measured_before(record: ValidationRecord, calibration: Calibration) -> bool:
    """Whether the record knows nothing of the calibration; of the same day it is taken to know."""
    return record.measured_on < calibration.made_on
