"""A calibration, applied to the answers of one report."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.local.answer_calibration import calibrated
from medorchestra.local.answers import Answer, AnswerStatus, Quote
from medorchestra.plan import Calibration

CALIBRATION = Calibration(
    made_on=date(2026, 11, 24),
    plan_digest="sha256:" + "0" * 64,
    model_digest="sha256:" + "1" * 64,
    labels="local",
    n=200,
    labels_digest="sha256:" + "2" * 64,
    temperatures={"sma_contact": 2.0, "size_cm": 0.5},
    risk=0.05,
    review_below=0.7,
)
QUOTE = Quote(0, 16, "The SMA is free.", 0.9, "focus_terms")


def answer(subtask="sma_contact", finding="sma_contact", **changes):
    fields = {
        "status": AnswerStatus.OK,
        "value": "none",
        "probabilities": {"none": 0.9, "<=180": 0.1, ">180": 0.0, "not_stated": 0.0},
        "quotes": (QUOTE,),
        "characters_read": 16,
        "characters_total": 16,
        "tokens": 7,
    }
    return Answer(subtask, finding, **(fields | changes))


def test_probabilities_are_tempered_and_nothing_else_of_the_answer_changes():
    raw = answer()
    found = calibrated(raw, CALIBRATION)
    # Odds of nine to one become three to one.
    assert found.probabilities == pytest.approx({"none": 0.75, "<=180": 0.25, ">180": 0.0, "not_stated": 0.0})
    assert found.to_json() | {"probabilities": None} == raw.to_json() | {"probabilities": None}
    assert found.probability == pytest.approx(0.75)


def test_a_number_is_tempered_like_any_other_finding():
    number = answer("size", "size_cm", value=2.4, probabilities={"2.4": 0.75, "1.1": 0.25})
    assert calibrated(number, CALIBRATION).probabilities == pytest.approx({"2.4": 0.9, "1.1": 0.1})


def test_a_finding_that_the_calibration_does_not_name_stays_as_it_is():
    raw = answer("liver_mets", "liver_mets")
    assert calibrated(raw, CALIBRATION) is raw


@pytest.mark.parametrize("status", [AnswerStatus.FAILED, AnswerStatus.UNPARSABLE, AnswerStatus.TOO_LONG])
def test_a_failed_answer_stays_a_failure_without_probabilities(status):
    failed = answer(status=status, value=None, probabilities={}, quotes=(), error="ValueError at engine.py:1")
    assert calibrated(failed, CALIBRATION) is failed


def test_a_passage_that_reads_no_finding_stays_as_it_is():
    passage = answer("impression", None, value="Resectable mass.", probabilities={})
    assert calibrated(passage, CALIBRATION) is passage


@given(st.lists(st.floats(0.001, 1.0), min_size=4, max_size=4), st.floats(0.25, 20.0))
def test_the_value_given_remains_the_most_probable_one(shares, temperature):
    values = ("none", "<=180", ">180", "not_stated")
    probabilities = {value: share / sum(shares) for value, share in zip(values, shares, strict=True)}
    best = max(probabilities, key=probabilities.__getitem__)
    calibration = CALIBRATION.model_copy(update={"temperatures": {"sma_contact": temperature}})
    found = calibrated(answer(value=best, probabilities=probabilities), calibration)
    assert found.value == best
    assert found.probabilities[best] == max(found.probabilities.values()) == found.probability
