"""The measures of an evaluation: twelve cases worked out by hand and with scikit-learn, and what always holds.

The twelve: a system and a reader on pancreatic carcinomas. The system comes to no decision on the tenth.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from sklearn import metrics
from sklearn.calibration import calibration_curve

from medorchestra.errors import SettingsError
from medorchestra.intervals import Z_95, wilson_interval
from medorchestra.local.calibrating import OPEN
from medorchestra.local.evaluation.measures import (
    PairedDifference,
    agreement,
    needed_pairs,
    paired_difference,
    reliability,
    repeatability,
    risk_coverage_of,
    score_outcomes,
    share_of,
)
from medorchestra.local.evaluation.predictions import NO_DECISION

R, B, L, M = OUTCOMES = ("resectable", "borderline", "locally_advanced", "metastatic")
TRUTHS = (R, R, R, R, B, B, B, L, L, L, M, M)
SYSTEM = (R, R, B, R, B, R, L, L, L, None, M, L)
READER = (R, R, R, B, B, B, B, L, B, L, M, M)
AGAIN = (R, R, R, R, B, R, L, L, L, L, M, L)
"""The system's second run."""
SURE = (0.95, 0.95, 0.55, 0.85, 0.65, 0.65, 0.85, 0.95, 0.75, None, 0.85, 0.55)
"""Probability that the system gave its outcome; the rest it gave the true one, or where it was right another."""


def right(said):
    return [one == truth for one, truth in zip(said, TRUTHS, strict=True)]


def named(said):
    return [NO_DECISION if one is None else one for one in said]


def scored():
    """Distribution and truth of the eleven cases with a decision."""
    found = []
    for truth, said, sure in zip(TRUTHS, SYSTEM, SURE, strict=True):
        if said is not None:
            other = truth if truth != said else next(outcome for outcome in OUTCOMES if outcome != said)
            found.append(({said: sure, other: 1 - sure}, truth))
    return found


def macro_averages(truths, said):
    """Precision, recall and F1 by scikit-learn; NaN where one is not defined."""
    how = {"labels": OUTCOMES, "average": "macro", "zero_division": math.nan}
    return [
        measure(truths, named(said), **how)
        for measure in (metrics.precision_score, metrics.recall_score, metrics.f1_score)
    ]


def fractions(*texts):
    return [float(Fraction(text)) for text in texts]


# ------------------------------------------------------------------------------ twelve cases: outcomes


def test_accuracy_of_the_twelve_counts_the_case_without_decision_as_wrong():
    accuracy = score_outcomes(TRUTHS, SYSTEM, OUTCOMES).accuracy
    assert (accuracy.correct, accuracy.n, accuracy.value) == (7, 12, float(Fraction(7, 12)))
    interval = stats.binomtest(7, 12).proportion_ci(0.95, method="wilson")
    assert (accuracy.low, accuracy.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert metrics.accuracy_score(TRUTHS, named(SYSTEM)) == pytest.approx(accuracy.value)


def test_classes_of_the_twelve_by_hand():
    classes = score_outcomes(TRUTHS, SYSTEM, OUTCOMES).classes
    assert list(classes) == list(OUTCOMES)
    assert [(score.support, score.predicted) for score in classes.values()] == [(4, 4), (3, 2), (3, 4), (2, 1)]
    assert [score.precision for score in classes.values()] == pytest.approx(fractions("3/4", "1/2", "1/2", "1"))
    assert [score.recall for score in classes.values()] == pytest.approx(fractions("3/4", "1/3", "2/3", "1/2"))
    assert [score.f1 for score in classes.values()] == pytest.approx(fractions("3/4", "2/5", "4/7", "2/3"))


def test_macro_averages_of_the_twelve_by_hand():
    scores = score_outcomes(TRUTHS, SYSTEM, OUTCOMES)
    found = [scores.macro_precision, scores.macro_recall, scores.macro_f1]
    assert found == pytest.approx(fractions("11/16", "9/16", "1003/1680"))


def test_confusion_of_the_twelve_by_hand():
    assert score_outcomes(TRUTHS, SYSTEM, OUTCOMES).confusion == {
        (R, R): 3,
        (R, B): 1,
        (B, B): 1,
        (B, R): 1,
        (B, L): 1,
        (L, L): 2,
        (L, NO_DECISION): 1,
        (M, M): 1,
        (M, L): 1,
    }


@pytest.mark.parametrize("said", [SYSTEM, READER, AGAIN])
def test_outcomes_of_the_twelve_agree_with_scikit_learn(said):
    scores = score_outcomes(TRUTHS, said, OUTCOMES)
    labels = [*OUTCOMES, NO_DECISION]
    matrix = metrics.confusion_matrix(TRUTHS, named(said), labels=labels)
    assert {
        (labels[row], labels[column]): matrix[row, column] for row, column in np.argwhere(matrix)
    } == scores.confusion
    found = [scores.macro_precision, scores.macro_recall, scores.macro_f1]
    assert found == pytest.approx(macro_averages(TRUTHS, said))


# ------------------------------------------------------------------------------ twelve cases: two who decide


def test_agreement_of_the_twelve_by_hand():
    found = agreement(SYSTEM, READER, OUTCOMES)
    assert (found.n, found.weighted_n) == (12, 11)
    # Same on 1, 2, 5, 8 and 11; by chance on (4*3 + 2*5 + 4*2 + 1*2) / 144 = 2/9 of the cases.
    assert [found.observed, found.kappa] == pytest.approx(fractions("5/12", "1/4"))
    # Six cases are one step apart; by chance the squared steps would be (108 + 24 + 76 + 48) / 11.
    assert found.weighted_kappa == pytest.approx(float(1 - 6 / Fraction(256, 11)))


def test_agreement_of_the_twelve_agrees_with_scikit_learn():
    found = agreement(SYSTEM, READER, OUTCOMES)
    assert found.kappa == pytest.approx(metrics.cohen_kappa_score(named(SYSTEM), named(READER)))
    both = [pair for pair in zip(SYSTEM, READER, strict=True) if pair[0] is not None]
    codes = [[OUTCOMES.index(pair[side]) for pair in both] for side in (0, 1)]
    assert found.weighted_kappa == pytest.approx(metrics.cohen_kappa_score(*codes, weights="quadratic"))


def test_difference_of_the_twelve_by_hand():
    found = paired_difference(right(SYSTEM), right(READER))
    # The reader mends 3, 6, 7, 10 and 12, and loses 4 and 9: 2 * (1 + 7 + 21) / 2^7.
    assert (found.n, found.gained, found.lost, found.difference) == (12, 5, 2, 0.25)
    assert found.p_value == pytest.approx(float(Fraction(29, 64)))
    assert found.p_value == pytest.approx(stats.binomtest(2, 7).pvalue)


def test_the_bootstrap_of_the_twelve_has_the_quantiles_of_all_resamples():
    found = paired_difference(right(SYSTEM), right(READER))
    chances = Counter()
    for gained in range(13):
        for lost in range(13 - gained):
            chances[gained - lost] += stats.multinomial.pmf(
                [gained, lost, 12 - gained - lost], 12, [5 / 12, 2 / 12, 5 / 12]
            )
    steps = sorted(chances)
    below = np.cumsum([chances[step] for step in steps])
    expected = [steps[int(np.searchsorted(below, quantile))] / 12 for quantile in (0.025, 0.975)]
    assert [found.low, found.high] == pytest.approx(expected)


def test_the_bootstrap_of_the_twelve_agrees_with_scipy():
    before, after = np.array(right(SYSTEM), float), np.array(right(READER), float)
    found = paired_difference(right(SYSTEM), right(READER))
    interval = stats.bootstrap(
        (before, after),
        lambda one, other, axis: np.mean(other - one, axis=axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(7),
    ).confidence_interval
    # One case more or less is what two series of resamples may differ by.
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1 / 12 + 1e-9)


# ------------------------------------------------------------------------------ twelve cases: probabilities


def test_reliability_of_the_twelve_by_hand():
    found = reliability(scored())
    assert found.n == 11
    assert [(one.low, one.high) for one in found.bins] == [(0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0)]
    assert [one.n for one in found.bins] == [2, 2, 1, 3, 3]
    assert [one.confidence for one in found.bins] == pytest.approx([0.55, 0.65, 0.75, 0.85, 0.95])
    assert [one.accuracy for one in found.bins] == pytest.approx(fractions("0", "1/2", "1", "2/3", "1"))
    # (1.10 + 0.30 + 0.25 + 0.55 + 0.15) / 11, and 3.975 / 11.
    assert [found.ece, found.brier] == pytest.approx(fractions("47/220", "159/440"))


def test_reliability_of_the_twelve_agrees_with_scikit_learn():
    found = reliability(scored())
    sure = [one for one in SURE if one is not None]
    hits = [hit for hit, one in zip(right(SYSTEM), SURE, strict=True) if one is not None]
    accuracies, confidences = calibration_curve(hits, sure, n_bins=10)
    assert [one.accuracy for one in found.bins] == pytest.approx(list(accuracies))
    assert [one.confidence for one in found.bins] == pytest.approx(list(confidences))
    table = [[distribution.get(outcome, 0.0) for outcome in sorted(OUTCOMES)] for distribution, _ in scored()]
    brier = metrics.brier_score_loss(
        [truth for _, truth in scored()], table, labels=sorted(OUTCOMES), scale_by_half=False
    )
    assert found.brier == pytest.approx(brier)


def test_risk_and_coverage_of_the_twelve_by_hand():
    sure = [one for one in SURE if one is not None]
    hits = [hit for hit, one in zip(right(SYSTEM), SURE, strict=True) if one is not None]
    found = risk_coverage_of(sure, hits)
    assert [share for point in found.points for share in point] == pytest.approx(
        fractions("3/11", "0", "6/11", "1/6", "7/11", "1/7", "9/11", "2/9", "1", "4/11")
    )
    risks = fractions("0", "0", "0", "1/12", "2/15", "1/6", "1/7", "3/16", "2/9", "3/10", "4/11")
    assert found.area == pytest.approx(sum(risks) / 11)


def test_repeatability_of_the_twelve_by_hand():
    found = repeatability([SYSTEM, READER, AGAIN])
    # All three the same on 1, 2, 5, 8 and 11; on each of the others two of the three are.
    assert (found.runs, found.n, found.identical.correct, found.identical.n) == (3, 12, 5, 12)
    assert found.pairwise == pytest.approx(float((5 + 7 * Fraction(1, 3)) / 12))


def test_cases_needed_to_show_the_difference_of_the_twelve_by_hand():
    # (1.959964 * sqrt(7/12) + 0.841621 * sqrt(7/12 - 1/16))^2 / (1/16) = 70.85
    assert needed_pairs(5 / 12, 2 / 12) == 71


# ------------------------------------------------------------------------------ what is not defined


def test_a_share_of_nothing_has_no_value_and_no_interval():
    found = share_of([])
    assert (found.correct, found.n, found.low, found.high, found.value) == (0, 0, None, None, None)


def test_without_cases_nothing_is_defined():
    scores = score_outcomes([], [], OUTCOMES)
    assert [scores.macro_precision, scores.macro_recall, scores.macro_f1, scores.accuracy.value] == [None] * 4
    assert list(scores.classes) == list(OUTCOMES)
    assert scores.classes[M].precision is scores.classes[M].recall is scores.classes[M].f1 is None
    assert agreement([], [], OUTCOMES).observed is None
    difference = paired_difference([], [])
    assert [difference.difference, difference.low, difference.p_value, difference.score_interval] == [None] * 4
    assert (reliability([]).ece, reliability([]).brier, reliability([]).bins) == (None, None, ())
    assert (risk_coverage_of([], []).points, risk_coverage_of([], []).area) == ((), None)
    assert repeatability([[], []]).pairwise is None


def test_an_outcome_that_is_never_predicted_has_no_precision_but_an_f1_of_nought():
    scores = score_outcomes([R, M], [R, R], [R, M])
    assert (scores.classes[M].precision, scores.classes[M].recall, scores.classes[M].f1) == (None, 0.0, 0.0)
    assert (scores.macro_precision, scores.macro_f1) == (0.5, pytest.approx(1 / 3))


def test_an_outcome_that_no_case_has_has_no_recall_and_one_that_is_absent_altogether_has_nothing():
    scores = score_outcomes([R, R], [R, B], OUTCOMES)
    assert (scores.classes[B].precision, scores.classes[B].recall, scores.classes[B].f1) == (0.0, None, 0.0)
    assert (scores.classes[M].precision, scores.classes[M].recall, scores.classes[M].f1) == (None, None, None)
    assert (scores.macro_recall, scores.macro_f1) == (0.5, pytest.approx(1 / 3))


def test_a_reader_who_left_a_decided_case_open_is_wrong_and_seen_in_the_confusion():
    scores = score_outcomes([R, R], [OPEN, R], OUTCOMES)
    assert (scores.accuracy.correct, scores.confusion) == (1, {(R, OPEN): 1, (R, R): 1})


def test_kappa_is_undefined_where_both_always_say_the_same_and_nought_where_only_one_does():
    assert agreement([R, R], [R, R], OUTCOMES).kappa is None
    assert agreement([R, R], [R, R], OUTCOMES).observed == 1.0
    assert agreement([R, R], [R, R], OUTCOMES).weighted_kappa is None
    assert agreement([R, R], [R, B], OUTCOMES).kappa == pytest.approx(0.0)


def test_no_decision_of_one_is_a_disagreement_and_of_both_no_case():
    found = agreement([R, None, None, B], [R, B, None, B])
    assert (found.n, found.observed) == (3, pytest.approx(2 / 3))
    assert (found.weighted_kappa, found.weighted_n) == (None, 0)


@pytest.mark.parametrize(("before", "after"), [([True] * 9, [True] * 9), ([False] * 9, [True] * 9)])
def test_the_bootstrap_says_nothing_where_all_cases_changed_alike_and_the_score_interval_does(before, after):
    found = paired_difference(before, after)
    assert (found.low, found.high) == (None, None)
    low, high = found.score_interval
    assert low < found.difference <= high
    assert high - low > 0.3


def test_one_run_has_no_repeatability():
    found = repeatability([SYSTEM])
    assert (found.runs, found.n, found.identical.n, found.pairwise) == (1, 12, 0, None)


def test_no_decision_twice_is_the_same():
    assert repeatability([[None, R], [None, B]]).pairwise == 0.5


def test_nothing_shows_a_difference_where_gain_and_loss_are_equal():
    assert needed_pairs(0.1, 0.1) is None


# ------------------------------------------------------------------------------ refusals


def test_what_is_no_outcome_is_refused_with_counts_and_without_its_words():
    with pytest.raises(ValueError, match="1 truths and 2 predictions of 3") as caught:
        score_outcomes([R, "tumour of the head", M], ["no idea", R, "unclear"], OUTCOMES)
    assert not any(word in str(caught.value) for word in ("tumour", "idea", "unclear"))


@pytest.mark.parametrize(
    "measure",
    [
        lambda: score_outcomes([R], [], OUTCOMES),
        lambda: agreement([R], []),
        lambda: paired_difference([True], []),
        lambda: risk_coverage_of([0.5], []),
        lambda: repeatability([[R], []]),
    ],
)
def test_sequences_of_different_length_are_refused(measure):
    with pytest.raises(ValueError, match="shorter"):
        measure()


@pytest.mark.parametrize("shares", [(-0.1, 0.2), (0.6, 0.5), (0.1, 0.2, 1.0), (0.1, 0.2, 0.8, 0.0), (math.nan, 0.1)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match="not shares"):
        needed_pairs(*shares)


def test_without_scikit_learn_the_extra_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(SettingsError, match=r"medorchestra\[evaluation\]"):
        score_outcomes([R], [R], OUTCOMES)


# ------------------------------------------------------------------------------ what always holds

SAID = st.sampled_from([*OUTCOMES, None])
CASES = st.lists(st.tuples(st.sampled_from(OUTCOMES), SAID), min_size=1, max_size=30)
CHANGES = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@st.composite
def counts(draw):
    """Cases, gained and lost."""
    n = draw(st.integers(1, 300))
    gained = draw(st.integers(0, n))
    return n, gained, draw(st.integers(0, n - gained))


def difference_of(n, gained, lost):
    return PairedDifference(n, gained, lost, (gained - lost) / n, None, None, None)


@given(st.lists(st.booleans(), min_size=1))
def test_a_share_lies_in_its_interval(hits):
    found = share_of(iter(hits))
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


@given(CASES)
def test_scores_agree_with_scikit_learn_and_with_their_own_counts(cases):
    truths, said = [truth for truth, _ in cases], [one for _, one in cases]
    scores = score_outcomes(truths, said, OUTCOMES)
    assert sum(scores.confusion.values()) == len(cases)
    assert scores.accuracy.correct == sum(scores.confusion.get((one, one), 0) for one in OUTCOMES)
    for outcome, score in scores.classes.items():
        hit, both = scores.confusion.get((outcome, outcome), 0), score.predicted + score.support
        assert (score.support, score.predicted) == (truths.count(outcome), said.count(outcome))
        assert score.precision == (pytest.approx(hit / score.predicted) if score.predicted else None)
        assert score.recall == (pytest.approx(hit / score.support) if score.support else None)
        assert score.f1 == (pytest.approx(2 * hit / both) if both else None)
    found = [scores.macro_precision, scores.macro_recall, scores.macro_f1]
    for macro, expected in zip(found, macro_averages(truths, said), strict=True):
        assert macro == (None if math.isnan(expected) else pytest.approx(expected))


@given(st.lists(st.tuples(SAID, SAID), max_size=30))
def test_agreement_is_the_same_both_ways_and_at_most_one(pairs):
    a, b = [one for one, _ in pairs], [other for _, other in pairs]
    found, turned = agreement(a, b, OUTCOMES), agreement(b, a, OUTCOMES)
    assert (found.n, found.weighted_n, found.observed) == (turned.n, turned.weighted_n, turned.observed)
    for one, other in ((found.kappa, turned.kappa), (found.weighted_kappa, turned.weighted_kappa)):
        assert one == (None if other is None else pytest.approx(other))
        assert one is None or -1 - 1e-9 <= one <= 1 + 1e-9


@given(CHANGES, st.integers(0, 5))
@settings(max_examples=50)
def test_a_difference_turned_round_changes_its_sign_and_one_seed_gives_one_interval(changes, seed):
    before, after = [one for one, _ in changes], [other for _, other in changes]
    found = paired_difference(before, after, seed=seed, resamples=500)
    turned = paired_difference(after, before, seed=seed, resamples=500)
    assert found == paired_difference(before, after, seed=seed, resamples=500)
    assert (found.gained, found.lost, found.p_value) == (turned.lost, turned.gained, turned.p_value)
    assert found.difference == -turned.difference == pytest.approx(np.mean(after) - np.mean(before))
    if found.low is not None:
        assert -1 <= found.low <= found.difference <= found.high <= 1


@given(counts())
def test_the_score_interval_holds_the_difference_and_holds_nought_as_mcnemars_test_does(found):
    n, gained, lost = found
    low, high = difference_of(*found).score_interval
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    turned_low, turned_high = difference_of(n, lost, gained).score_interval
    assert (low, high) == pytest.approx((-turned_high, -turned_low), abs=1e-9)
    assert (low <= 0 <= high) == ((gained - lost) ** 2 <= Z_95**2 * (gained + lost))


@given(st.integers(1, 2_000))
def test_the_score_interval_without_any_change_is_as_wide_as_wilsons_of_none(n):
    low, high = difference_of(n, 0, 0).score_interval
    assert high == pytest.approx(wilson_interval(0, n)[1], abs=1e-9)
    assert low == pytest.approx(-high, abs=1e-12)


@pytest.mark.parametrize("found", [(12, 5, 2), (21, 1, 7), (160, 40, 20), (60, 3, 0)])
def test_the_score_interval_ends_where_the_likeliest_shares_leave_the_counts_at_five_per_cent(found):
    n, gained, lost = found
    for bound in difference_of(*found).score_interval:

        def unlikely(share, bound=bound):
            return -(
                gained * math.log(share + bound)
                + lost * math.log(share)
                + (n - gained - lost) * math.log(1 - 2 * share - bound)
            )

        span = (max(0.0, -bound) + 1e-12, (1 - bound) / 2 - 1e-12)
        share = optimize.minimize_scalar(unlikely, bounds=span, method="bounded", options={"xatol": 1e-12}).x
        spread = math.sqrt(n * (2 * share + bound - bound**2))
        assert abs(gained - lost - n * bound) / spread == pytest.approx(Z_95, rel=1e-5)


@given(st.lists(st.tuples(st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any), st.sampled_from(OUTCOMES))))
def test_the_bins_hold_every_decision_and_add_up_to_the_calibration_error(cases):
    found = reliability(
        [
            ({outcome: share / sum(shares) for outcome, share in zip(OUTCOMES, shares, strict=True)}, truth)
            for shares, truth in cases
        ]
    )
    assert sum(one.n for one in found.bins) == found.n == len(cases)
    assert all(one.low <= one.confidence + 1e-9 and one.confidence - 1e-9 <= one.high <= 1 for one in found.bins)
    if cases:
        gaps = sum(one.n * abs(one.confidence - one.accuracy) for one in found.bins)
        assert found.ece == pytest.approx(gaps / found.n, abs=1e-9)


@given(st.lists(st.tuples(st.sampled_from([0.4, 0.6, 0.9]), st.booleans()), min_size=1, max_size=6))
@settings(max_examples=50)
def test_the_area_is_the_mean_over_all_orders_of_decisions_that_are_equally_sure(decisions):
    found = risk_coverage_of([sure for sure, _ in decisions], [hit for _, hit in decisions])
    areas = []
    for order in itertools.permutations(decisions):
        if list(order) == sorted(order, key=lambda one: -one[0]):
            wrong = list(itertools.accumulate(not hit for _, hit in order))
            areas.append(np.mean([missed / kept for kept, missed in enumerate(wrong, start=1)]))
    assert found.area == pytest.approx(np.mean(areas))
    assert found.points[-1] == (1.0, pytest.approx(np.mean([not hit for _, hit in decisions])))
    assert sorted(found.points) == list(found.points)


@given(st.integers(2, 5), st.lists(st.lists(SAID, min_size=5, max_size=5), min_size=1, max_size=12))
def test_repeatability_is_the_mean_agreement_of_all_pairs_of_runs(runs, cases):
    said = [[case[run] for case in cases] for run in range(runs)]
    found = repeatability(said)
    same = [one == other for a, b in itertools.combinations(said, 2) for one, other in zip(a, b, strict=True)]
    assert found.pairwise == pytest.approx(np.mean(same))
    assert found.identical.correct == sum(len(set(case[:runs])) == 1 for case in cases)


@pytest.mark.parametrize(("gain", "loss"), [(0.15, 0.05), (0.05, 0.15), (0.3, 0.15), (0.12, 0.02), (0.5, 0.2)])
def test_with_the_cases_needed_the_exact_test_finds_the_difference_about_as_often_as_wanted(gain, loss):
    n = needed_pairs(gain, loss)
    power = 0.0
    for changed in range(1, n + 1):
        gained = np.arange(changed + 1)
        p_values = np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(gained, changed - gained), changed, 0.5))
        found = stats.binom.pmf(gained, changed, gain / (gain + loss))[p_values < 0.05].sum()
        power += stats.binom.pmf(changed, n, gain + loss) * found
    assert 0.7 < power < 0.82
