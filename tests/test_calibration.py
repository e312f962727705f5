"""Temperatures, thresholds, risk and coverage, and sets of outcomes: distributions and truths only."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.calibration import (
    FEWEST_FOR_TEMPERATURE,
    FEWEST_KEPT,
    LabelledDecision,
    choose_threshold,
    conformal_floor,
    fit_temperature,
    risk_coverage,
    tempered,
)

CONTACTS = ("none", "<=180", ">180", "not_stated")
SHARES = st.one_of(st.just(0.0), st.floats(1e-12, 1e-6), st.floats(1e-6, 1.0))
TEMPERATURES = st.floats(0.1, 50.0)


def softmax(logits):
    weights = {value: math.exp(logit) for value, logit in logits.items()}
    return {value: weight / sum(weights.values()) for value, weight in weights.items()}


@st.composite
def distributions(draw):
    """Of the contact of a vessel, with values that the model holds for impossible."""
    shares = draw(st.lists(SHARES, min_size=4, max_size=4).filter(lambda found: sum(found) > 0))
    return {value: share / math.fsum(shares) for value, share in zip(CONTACTS, shares, strict=True)}


def simulated(temperature, count=2_000, seed=1):
    """Answers whose logits were multiplied by `temperature` after the truth was drawn from them."""
    chance = random.Random(seed)
    scored = []
    for _ in range(count):
        logits = {value: chance.gauss(0.0, 1.5) for value in CONTACTS}
        (truth,) = chance.choices(CONTACTS, weights=softmax(logits).values())
        scored.append((softmax({value: logit * temperature for value, logit in logits.items()}), truth))
    return scored


def log_loss(scored, temperature):
    """As the fit counts it: no value below one in a million."""
    return -sum(math.log(max(tempered(distribution, temperature)[truth], 1e-6)) for distribution, truth in scored)


# ------------------------------------------------------------------------------ temperatures


@given(distributions(), TEMPERATURES)
def test_a_tempered_distribution_sums_to_one_and_keeps_its_order_and_what_is_impossible(distribution, temperature):
    found = tempered(distribution, temperature)
    assert list(found) == list(distribution)
    assert math.fsum(found.values()) == pytest.approx(1.0, abs=1e-12)
    for one in CONTACTS:
        assert distribution[one] > 0 or found[one] == 0
        for other in CONTACTS:
            if distribution[one] >= distribution[other]:
                assert found[one] >= found[other]


@given(distributions())
def test_a_temperature_of_one_changes_nothing(distribution):
    assert tempered(distribution, 1.0) == pytest.approx(distribution, rel=1e-12, abs=1e-15)


@given(distributions(), st.floats(1.0, 20.0))
def test_above_one_the_model_is_less_sure_and_below_one_surer(distribution, temperature):
    best = max(distribution.values())
    assert max(tempered(distribution, temperature).values()) <= best + 1e-12
    assert max(tempered(distribution, 1 / temperature).values()) >= best - 1e-12


def test_a_temperature_divides_the_logits():
    logits = {"none": 2.0, "<=180": 0.5, ">180": -1.0, "not_stated": 0.0}
    halved = {value: logit / 2 for value, logit in logits.items()}
    assert tempered(softmax(logits), 2.0) == pytest.approx(softmax(halved))


def test_a_very_sure_model_can_be_tempered_without_overflow():
    found = tempered({"yes": 1.0 - 1e-300, "no": 1e-300}, 0.25)
    assert found == {"yes": 1.0, "no": 0.0}
    assert tempered({}, 2.0) == {}


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="must be positive"):
        tempered({"yes": 1.0}, temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_the_temperature_that_simulated_answers_were_made_with_is_found_again(temperature):
    assert fit_temperature(simulated(temperature)) == pytest.approx(temperature, rel=0.1)


ANSWERS = st.lists(st.tuples(distributions(), st.sampled_from(CONTACTS)), min_size=20, max_size=60)


@given(ANSWERS)
def test_a_fitted_temperature_never_makes_the_labels_less_likely_and_is_one_that_a_plan_can_hold(scored):
    temperature = fit_temperature(scored)
    assert log_loss(scored, temperature) <= log_loss(scored, 1.0) + 1e-3
    assert 0.25 <= temperature <= 20.0


def test_a_reader_that_is_always_right_and_certain_keeps_its_probabilities():
    assert fit_temperature([({"yes": 1.0, "no": 0.0}, "yes")] * 100) == 1.0


def test_a_reader_that_is_now_and_then_wrong_beyond_all_doubt_is_not_taken_for_a_good_one():
    """The search once ended in the valley of the right answers: no temperature near 1 changes what the wrong ones cost.

    Twenty does: the wrong ones get a twentieth for the truth instead of the least that is counted.
    """
    doubtful = [({"yes": 0.9, "no": 0.1}, "yes")] * 40
    certain = [({"yes": 1.0, "no": math.exp(-60)}, "no")] * 10
    assert fit_temperature([*doubtful, *certain]) > 10


def test_few_labels_move_a_temperature_less_than_many():
    scored = simulated(4.0, 1_000)
    assert 1.0 < fit_temperature(scored[:FEWEST_FOR_TEMPERATURE]) < fit_temperature(scored)


def test_with_too_few_labels_the_temperature_stays_at_one():
    sure_and_wrong = [({"yes": 0.99, "no": 0.01}, "no")] * FEWEST_FOR_TEMPERATURE
    assert fit_temperature(sure_and_wrong) > 1.0
    assert fit_temperature(sure_and_wrong[1:]) == 1.0


# ------------------------------------------------------------------------------ thresholds


def decision(probability, right=True, reviewed=False):
    return LabelledDecision(probability, right, probability if right else 1 - probability, reviewed)


PROBABILITIES = st.one_of(st.integers(0, 20).map(lambda n: n / 20), st.floats(0.0, 1.0), st.floats(0.9999, 1.0))
"""With ties, and with overconfident ones that lie close together."""


@st.composite
def labelled_decisions(draw, least=0):
    count = draw(st.integers(least, 120))
    error = draw(st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]))
    chance = random.Random(draw(st.integers(0, 2**32)))
    found = draw(st.lists(PROBABILITIES, min_size=count, max_size=count))
    return [decision(one, chance.random() >= error, chance.random() < 0.2) for one in found]


RISKS = st.sampled_from([0.01, 0.05, 0.07, 0.1, 0.29])


def left_at(decisions, review_below):
    """What staging would leave unreviewed at this threshold."""
    return [one for one in decisions if not one.reviewed and not one.probability < review_below]


@given(labelled_decisions(), RISKS)
def test_a_threshold_leaves_what_it_says_and_never_more_wrong_than_the_risk(decisions, risk):
    threshold = choose_threshold(decisions, risk)
    if threshold is None:
        return
    left = left_at(decisions, threshold.review_below)
    assert (threshold.kept, threshold.of) == (len(left), len(decisions))
    assert threshold.wrong == sum(not one.right for one in left)
    assert threshold.kept >= FEWEST_KEPT
    assert threshold.wrong / threshold.kept <= risk
    assert 0 <= threshold.review_below < 1


@given(labelled_decisions(), RISKS)
def test_no_lower_threshold_would_do(decisions, risk):
    threshold = choose_threshold(decisions, risk)
    own = 2.0 if threshold is None else threshold.review_below
    for lower in {0.0, *(one.probability for one in decisions)}:
        left = left_at(decisions, lower)
        if any(0 < lower - one.probability < 1e-8 for one in decisions):
            continue  # as good as equal to one below: they stay together
        if lower < own - 1e-8 and len(left) >= FEWEST_KEPT and (threshold is None or len(left) > threshold.kept):
            assert sum(not one.right for one in left) / len(left) > risk


def test_decisions_of_the_same_probability_are_left_or_reviewed_together():
    sure, doubtful = [decision(0.95)] * 30, [decision(0.8)] * 10 + [decision(0.8, right=False)] * 5
    threshold = choose_threshold([*doubtful, *sure], 0.05)
    assert (threshold.kept, threshold.wrong, threshold.of) == (30, 0, 45)
    assert threshold.review_below == pytest.approx(0.875)


def test_sums_that_differ_in_the_last_digit_are_the_same_probability():
    sure = [decision(1.0)] * 25
    threshold = choose_threshold([*sure, decision(math.nextafter(1.0, 0.0), right=False)], 0.01)
    assert threshold is None
    above = [decision(math.nextafter(1.0, 2.0))] * 25
    threshold = choose_threshold([*above, *[decision(0.99999, right=False)] * 25], 0.05)
    assert threshold.review_below < 1
    assert len(left_at(above, threshold.review_below)) == 25


def test_overconfident_decisions_are_told_apart_beyond_four_digits():
    """Rounded to four digits, the threshold between the first two was 0.9999 and left the wrong ones unreviewed; that
    between the others was 1.0 and left nothing.
    """
    for upper, lower in ((0.99994, 0.99991), (0.99996, 0.99994)):
        decisions = [decision(upper)] * 25 + [decision(lower, right=False)] * 25
        threshold = choose_threshold(decisions, 0.05)
        assert lower < threshold.review_below < upper
        assert [one.right for one in left_at(decisions, threshold.review_below)] == [True] * 25


def test_wrong_decisions_that_a_person_sees_anyway_do_not_raise_the_threshold():
    seen = [decision(0.99, right=False, reviewed=True)] * 40
    threshold = choose_threshold([*seen, *[decision(0.7)] * 30], 0.05)
    assert (threshold.review_below, threshold.kept, threshold.wrong, threshold.of) == (0.0, 30, 0, 70)


def test_exactly_the_risk_is_within_the_risk():
    decisions = [decision(0.9, right=n >= 29) for n in range(100)]
    assert choose_threshold(decisions, 0.29).wrong == 29
    assert choose_threshold(decisions, 0.28) is None


def test_a_handful_of_right_decisions_is_no_proof():
    assert choose_threshold([decision(0.9)] * (FEWEST_KEPT - 1), 0.05) is None
    assert choose_threshold([decision(0.9)] * FEWEST_KEPT, 0.05).kept == FEWEST_KEPT
    assert choose_threshold([], 0.05) is None


# ------------------------------------------------------------------------------ risk and coverage


@given(labelled_decisions(least=1))
def test_coverage_grows_along_the_curve_and_ends_with_all_that_nothing_else_reviews(decisions):
    points = risk_coverage(decisions)
    shares = [share for share, _ in points]
    assert shares == sorted(set(shares))
    left = left_at(decisions, 0.0)
    if not left:
        assert points == []
        return
    share, risk = points[-1]
    assert share == pytest.approx(len(left) / len(decisions))
    assert risk == pytest.approx(sum(not one.right for one in left) / len(left))
    assert all(0 < share <= 1 and 0 <= risk <= 1 for share, risk in points)


@given(labelled_decisions(least=20), RISKS)
def test_the_chosen_threshold_is_the_furthest_point_of_the_curve_within_the_risk(decisions, risk):
    threshold = choose_threshold(decisions, risk)
    fitting = [
        share
        for share, wrong in risk_coverage(decisions)
        if wrong <= risk and round(share * len(decisions)) >= FEWEST_KEPT
    ]
    assert (threshold.kept / threshold.of if threshold else None) == (max(fitting) if fitting else None)


# ------------------------------------------------------------------------------ sets of outcomes


def truth_probabilities(chance, count):
    """Decisions of a model of uneven quality: that the true outcome had any probability, low ones included."""
    return [LabelledDecision(1.0, True, chance.betavariate(2, 1)) for _ in range(count)]


@pytest.mark.parametrize(("coverage", "labels"), [(0.9, 50), (0.8, 20)])
def test_sets_hold_the_true_outcome_as_often_as_promised_on_reports_like_the_labelled_ones(coverage, labels):
    chance = random.Random(7)
    held, rounds, new = 0, 400, 50
    for _ in range(rounds):
        floor = conformal_floor(truth_probabilities(chance, labels), coverage)
        held += sum(one.probability_of_truth >= floor for one in truth_probabilities(chance, new))
    share = held / (rounds * new)
    # Expected: ceil((n + 1) coverage) / (n + 1), the promise and at most 1 / (n + 1) above it.
    assert coverage - 0.01 <= share <= coverage + 1 / (labels + 1) + 0.01


@given(labelled_decisions(least=1), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_of_the_labelled_reports_themselves_at_least_the_promised_share_is_held(decisions, coverage):
    floor = conformal_floor(decisions, coverage)
    if floor is not None:
        held = sum(one.probability_of_truth >= floor for one in decisions)
        assert held / len(decisions) >= coverage


@pytest.mark.parametrize(("coverage", "fewest"), [(0.9, 9), (0.95, 19), (0.8, 4)])
def test_with_too_few_labels_there_is_no_floor(coverage, fewest):
    decisions = [decision(0.9)] * fewest
    assert conformal_floor(decisions, coverage) == 0.9
    assert conformal_floor(decisions[1:], coverage) is None
    assert conformal_floor([], coverage) is None


@pytest.mark.parametrize("coverage", [0.0, 1.0, 90.0, -0.1])
def test_a_coverage_that_is_no_share_is_refused(coverage):
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_floor([decision(0.9)] * 50, coverage)


def test_a_report_without_a_single_true_outcome_says_nothing_on_the_sets():
    known = [LabelledDecision(0.9, True, n / 40) for n in range(40)]
    open_ones = [LabelledDecision(0.9, False, None)] * 40
    assert conformal_floor([*known, *open_ones], 0.9) == conformal_floor(known, 0.9)
    assert conformal_floor(open_ones, 0.9) is None
