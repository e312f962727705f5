"""Validation records and calibrations in words: no number is rounded up, none is told that was not measured."""

from __future__ import annotations

from datetime import date

import pytest

from medorchestra.plan import Accuracy, Calibration, ValidationRecord
from medorchestra.plan_views.validation_text import accuracy_text, calibration_text, left_text, percent

DIGEST = "sha256:" + "a" * 64
CALIBRATION = Calibration(
    made_on=date(2026, 11, 24),
    plan_digest=DIGEST,
    model_digest=DIGEST,
    labels="local",
    n=412,
    labels_digest=DIGEST,
    temperatures={"sma_contact": 1.4, "liver_mets": 1},
    risk=0.05,
    review_below=0.9967,
)


def some(correct, n):
    return Accuracy(n=n, correct=correct, low=0.5, high=1.0)


def record_with(unreviewed, *findings):
    return ValidationRecord(
        measured_on=date(2026, 11, 24),
        plan_digest=DIGEST,
        model="Small model Q4",
        model_digest=DIGEST,
        cases_digest=DIGEST,
        outcome=some(90, 95),
        unreviewed=unreviewed,
        findings={f"finding_{i}": one for i, one in enumerate(findings)},
    )


def test_percentages_never_round_up_to_certainty():
    assert [percent(share) for share in (0, 0.5, 0.9321, 0.99996, 1)] == ["0 %", "50 %", "93.2 %", ">99.9 %", "100 %"]


def test_an_accuracy_is_told_as_counts_share_and_interval():
    told = accuracy_text(Accuracy(n=180, correct=171, low=0.9079, high=0.9732))
    assert told == "171 of 180, 95 % (95 % interval 90.8 % to 97.3 %)"


def test_a_threshold_just_below_one_is_not_told_as_one():
    assert calibration_text(CALIBRATION) == (
        "local labels, 412 reports, 2026-11-24; below 0.9967 to review, chosen for at most 5 % wrong among the others; "
        "1 finding with a temperature"
    )


def test_a_calibration_without_a_threshold_says_that_all_go_to_review():
    everything = CALIBRATION.model_copy(update={"review_below": 1.0})
    assert "; all to review, as no threshold leaves at most 5 % wrong among the others;" in calibration_text(everything)


@pytest.mark.parametrize(
    ("floor", "told"),
    [(0.123, "outcomes from 0.12"), (None, "every outcome, as there are too few labels")],
    ids=["enough labels", "too few labels"],
)
def test_a_calibration_with_sets_says_what_they_hold(floor, told):
    with_sets = CALIBRATION.model_copy(update={"set_coverage": 0.9, "set_floor": floor})
    assert calibration_text(with_sets).endswith(f"; sets that hold the true outcome of 90 % of reports: {told}")
    assert "sets" not in calibration_text(CALIBRATION)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (record_with(some(38, 39), some(80, 99), some(70, 99)), "39 of 99 cases"),
        (record_with(None, some(80, 99)), None),
        (record_with(some(38, 39)), None),
        (record_with(some(38, 39), some(80, 99), some(70, 98)), None),
        (record_with(some(38, 39), some(20, 30)), None),
    ],
    ids=["all on the same cases", "none left", "no findings", "on different cases", "fewer than were left"],
)
def test_how_many_were_left_is_told_only_where_the_record_shows_it(record, told):
    assert left_text(record) == told
