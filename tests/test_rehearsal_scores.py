"""Scores of a rehearsal against numbers worked out by hand: hits, intervals, McNemar, calibration, records."""

from __future__ import annotations

from datetime import date

import pytest

from medorchestra.plan_files import read_plan
from medorchestra.rehearsal_scores import (
    CaseReading,
    PairedComparison,
    RehearsalScores,
    calibration,
    compare_finding,
    compare_outcome,
)
from medorchestra.synthetic import SyntheticCase, cases_digest

MODEL = "sha256:" + "a" * 64
PLAN_DIGEST = "sha256:" + "b" * 64


def case(case_id="c1", *, outcome="resectable", sma="none", size=None):
    return SyntheticCase(
        id=case_id,
        split="held_out",
        form="free_text",
        style="plain",
        text="CT abdomen.",
        findings={"sma_contact": sma, "size_cm": size},
        outcome=outcome,
        possible_outcomes=(outcome,) if outcome else ("resectable", "locally_advanced"),
        rule=None,
    )


def reading(of=None, *, sma="none", size="not_stated", probabilities=None, outcome="resectable", review=False):
    scored = {} if probabilities is None else {"sma_contact": probabilities}
    return CaseReading(of or case(), {"sma_contact": sma, "size_cm": size}, scored, outcome, review)


def scores(*readings):
    return RehearsalScores(PLAN_DIGEST, "small.gguf", MODEL, None, tuple(readings))


def many(*answers):
    """One reading for each answer on the SMA, which is free in truth."""
    return scores(*(reading(case(f"c{i}"), sma=answer) for i, answer in enumerate(answers)))


# ------------------------------------------------------------------------------ one reading


@pytest.mark.parametrize(
    ("expected", "answered", "right"),
    [
        (2.0, 2.0, True),
        (2.0, 2.05, True),  # two decimals against one
        (2.0, 2.1, False),
        (None, "not_stated", True),
        (None, 2.0, False),
        (2.0, "not_stated", False),
        (2.0, None, False),
    ],
)
def test_a_size_is_right_to_the_decimal_that_reports_give(expected, answered, right):
    assert reading(case(size=expected), size=answered).is_right("size_cm") is right


@pytest.mark.parametrize(
    ("expected", "answered", "right"),
    [("none", "none", True), ("none", ">180", False), ("not_stated", "not_stated", True), ("not_stated", None, False)],
)
def test_a_closed_value_is_right_or_wrong_and_no_answer_is_wrong(expected, answered, right):
    assert reading(case(sma=expected), sma=answered).is_right("sma_contact") is right


def test_no_decision_is_no_right_outcome():
    assert reading().is_outcome_right
    assert not reading(outcome=None).is_outcome_right
    assert not reading(outcome="metastatic").is_outcome_right


# ------------------------------------------------------------------------------ one finding


def test_eight_of_ten_have_the_wilson_interval_of_eight_of_ten():
    score = many(*["none"] * 8, ">180", None).finding("sma_contact")
    assert (score.n, score.correct) == (10, 8)
    # (0.8 + 3.8415/20 -+ 1.96 sqrt(0.016 + 3.8415/400)) / 1.38415
    assert score.interval == pytest.approx((0.4902, 0.9433), abs=5e-5)
    assert score.confusion == {("none", "none"): 8, ("none", ">180"): 1, ("none", "no answer"): 1}
    assert (score.calibration_error, score.brier) == (None, None)  # nothing was scored


def test_numbers_are_confused_with_silence_only():
    found = scores(reading(case(size=2.0), size=3.0), reading(case(size=2.0), size="not_stated"))
    assert found.finding("size_cm").confusion == {("number", "number"): 1, ("number", "not_stated"): 1}


def test_without_readings_nothing_is_claimed():
    score = scores().finding("sma_contact")
    assert (score.n, score.interval, score.calibration_error) == (0, None, None)
    assert scores().lines(read_plan("pancreatic_cancer"))[0].startswith("outcome: no cases;")


# ------------------------------------------------------------------------------ calibration


def test_calibration_error_and_brier_score_by_hand():
    sure_right = ({"none": 0.9, ">180": 0.1}, "none")
    sure_wrong = ({"none": 0.9, ">180": 0.1}, ">180")
    unsure_right = ({"none": 0.4, ">180": 0.6}, ">180")
    error, brier = calibration([sure_right, sure_wrong, unsure_right])
    # bin 0.9: said 1.8, hit 1; bin 0.6: said 0.6, hit 1; over three readings
    assert error == pytest.approx((0.8 + 0.4) / 3)
    # 0.01 + 0.01, 0.81 + 0.81, 0.16 + 0.16
    assert brier == pytest.approx((0.02 + 1.62 + 0.32) / 3)


def test_a_value_that_was_not_even_among_the_candidates_counts_as_surely_denied():
    assert calibration([({"none": 1.0}, ">180")]) == (1.0, 2.0)


def test_perfect_certainty_that_is_right_has_no_error():
    assert calibration([({"none": 1.0, ">180": 0.0}, "none")] * 5) == (0.0, 0.0)
    assert calibration([]) == (None, None)


def test_a_finding_takes_its_calibration_from_the_readings_that_were_scored():
    score = scores(reading(probabilities={"none": 0.7, ">180": 0.3}), reading(case("c2"))).finding("sma_contact")
    assert score.calibration_error == pytest.approx(0.3)
    assert score.brier == pytest.approx(0.18)


# ------------------------------------------------------------------------------ comparisons


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (8, 2, 112 / 1024),  # 2 (1 + 10 + 45) / 2^10
        (2, 8, 112 / 1024),
        (6, 0, 2 / 64),
        (5, 5, 1.0),
        (1, 0, 1.0),
        (0, 0, 1.0),
    ],
)
def test_the_exact_mcnemar_test_by_hand(gained, lost, p):
    assert PairedComparison(gained, lost).p_value == pytest.approx(p)


def test_a_thousand_pairs_do_not_overflow():
    assert 0 < PairedComparison(700, 300).p_value < 1e-30


def test_only_more_lost_than_gained_is_a_loss():
    assert PairedComparison(1, 2).loses
    assert not PairedComparison(2, 2).loses


def test_two_rehearsals_are_compared_case_by_case():
    before, after = many("none", "none", ">180", ">180"), many("none", ">180", "none", None)
    assert compare_finding(before, after, "sma_contact") == PairedComparison(gained=1, lost=1)


def test_the_outcome_is_compared_only_where_it_is_certain():
    open_case = case("open", outcome=None)
    before = scores(reading(case("a"), outcome="metastatic"), reading(open_case, outcome="metastatic"))
    after = scores(reading(case("a")), reading(open_case))
    assert compare_outcome(before, after) == PairedComparison(gained=1, lost=0)
    assert (before.outcome_correct, len(before.decided), after.outcome_correct) == (0, 1, 1)


def test_rehearsals_on_other_cases_are_not_compared():
    with pytest.raises(ValueError, match="did not read the same cases"):
        compare_outcome(many("none"), many("none", "none"))


# ------------------------------------------------------------------------------ record and lines


def test_the_record_counts_the_outcome_over_decided_cases_and_every_finding_over_all():
    read = scores(reading(case("a")), reading(case("b"), sma=">180", outcome=None), reading(case("o", outcome=None)))
    record = read.validation_record(["sma_contact"], date(2026, 11, 24))
    assert (record.outcome.n, record.outcome.correct) == (2, 1)
    assert (record.findings["sma_contact"].n, record.findings["sma_contact"].correct) == (3, 2)
    assert set(record.findings) == {"sma_contact"}
    assert record.cases_digest == cases_digest(one.case for one in read.readings)
    assert (record.plan_digest, record.model, record.model_digest) == (PLAN_DIGEST, "small.gguf", MODEL)
    assert (record.outcome.low, record.outcome.high) == pytest.approx((0.0945, 0.9055), abs=5e-5)


def test_an_accuracy_of_nothing_is_no_validation():
    with pytest.raises(ValueError, match="accuracy of nothing"):
        scores(reading(case(outcome=None))).validation_record(["sma_contact"], date(2026, 11, 24))
