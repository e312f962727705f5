"""How runs, readers and their differences are counted: small sets whose every number is worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from local.small_batch import PLAN, small_reports
from made_up_evaluation import made_up_evaluation, nothing_measured
from noting_engine import Noting, strategy

from medorchestra.local.calibrating import OPEN, LabelledReport
from medorchestra.local.evaluation.evaluation import (
    compare_reader,
    compare_runs,
    score_readers,
    score_run,
    wrong_cases,
)
from medorchestra.local.evaluation.labelled_set import LabelledSet
from medorchestra.local.evaluation.predictions import NO_DECISION, LabelledCase, Prediction, StrategyRun
from medorchestra.local.records import Report

R, L, M = "resectable", "locally_advanced", "metastatic"


def case(number, truth, reader=None, **groups):
    report = Report(f"case-{number}", "text")
    return LabelledCase(LabelledReport(report, {}, truth), {"reader_1": reader}, groups)


def said(number, outcome, probability=None, **rest):
    if probability is not None:
        others = [name for name in (R, L, M) if name != outcome]
        rest["probabilities"] = {outcome: probability} | dict.fromkeys(others, (1 - probability) / 2)
    return Prediction(f"case-{number}", outcome, **rest)


def run_of(*predictions, name="orchestrated", adapter=None):
    return StrategyRun(name, adapter, predictions)


# Six decided cases and two open ones. Right on 0, 2 and 5; case 4 failed; of the open ones 6 was left open.
CASES = (
    case(0, R, R, ward="A"),
    case(1, R, None, ward="A"),
    case(2, M, L, ward="B"),
    case(3, L, L, ward="B"),
    case(4, L, OPEN, ward="missing"),
    case(5, M, M, ward="A"),
    case(6, OPEN, OPEN, ward="C"),
    case(7, OPEN, R, ward="A"),
)
RUN = run_of(
    said(0, R, 0.9, review=False, seconds=1.5, tokens=100),
    said(1, M, 0.5, review=True, seconds=0.5, tokens=50),
    said(2, M, 0.8, review=False),
    said(3, R, 0.6, review=False),
    said(4, None, review=True, error="ValueError at x.py:1"),
    said(5, M, 0.7, review=True),
    said(6, R, 0.5, review=True, is_open=True),
    said(7, R, 0.9, review=False),
)


def test_accuracy_counts_the_cases_with_a_single_true_outcome_and_no_decision_is_wrong():
    scores = score_run(PLAN, CASES, [RUN])
    assert (scores.outcome.accuracy.correct, scores.outcome.accuracy.n) == (3, 6)
    assert scores.outcome.confusion == {(R, R): 1, (R, M): 1, (M, M): 2, (L, R): 1, (L, NO_DECISION): 1}
    assert (scores.failed, scores.seconds, scores.tokens) == (1, 2.0, 150)
    assert (scores.name, scores.strategy, scores.adapter) == ("orchestrated", "orchestrated", None)


def test_an_open_case_is_right_where_it_was_left_open_and_counted_by_itself():
    scores = score_run(PLAN, CASES, [RUN])
    assert (scores.open_cases.correct, scores.open_cases.n) == (1, 2)


def test_among_what_nobody_looks_at_a_decided_open_case_is_wrong():
    scores = score_run(PLAN, CASES, [RUN])
    # 0 and 2 right, 3 wrong, 7 open but decided.
    assert (scores.unreviewed.correct, scores.unreviewed.n) == (2, 4)
    assert (scores.reviewed.correct, scores.reviewed.n) == (4, 8)


def test_a_strategy_that_never_asks_for_review_has_no_such_shares():
    scores = score_run(PLAN, CASES, [run_of(*(replace(one, review=None) for one in RUN.predictions))])
    assert (scores.unreviewed, scores.reviewed) == (None, None)


def test_probabilities_are_measured_over_decided_cases_that_have_one():
    scores = score_run(PLAN, CASES, [RUN])
    assert scores.reliability.n == 5
    # Surest first: 0.9 right, 0.8 right, 0.7 right, 0.6 wrong, 0.5 wrong; risks 0, 0, 0, 1/4, 2/5.
    assert scores.risk_coverage.points[-1] == pytest.approx((1.0, 0.4))
    assert scores.risk_coverage.area == pytest.approx((0.25 + 0.4) / 5)


def test_groups_are_counted_over_decided_cases_in_the_order_of_their_names():
    found = score_run(PLAN, CASES, [RUN]).groups
    assert list(found["ward"]) == ["A", "B", "missing"]
    assert {group: (one.correct, one.n) for group, one in found["ward"].items()} == {
        "A": (2, 3),
        "B": (1, 2),
        "missing": (0, 1),
    }


def test_agreement_with_a_reader_is_over_what_the_reader_read():
    found = score_run(PLAN, CASES, [RUN], (R, L, M)).readers["reader_1"]
    # Read and decided: 0 (same), 2, 3, 4 (reader left it open, the run failed), 5 (same).
    assert (found.n, found.observed) == (5, 0.4)
    assert found.weighted_n == 4


def test_findings_are_counted_where_they_are_labelled_and_were_asked_for():
    reports = small_reports(3)  # free; free with liver metastases; encased
    labels = ({"sma_contact": "none", "liver_mets": "no"}, {"sma_contact": ">180", "liver_mets": "yes"}, {})
    cases = [LabelledCase(LabelledReport(one, found, R)) for one, found in zip(reports, labels, strict=True)]
    asks = strategy("orchestrated", Noting())
    scores = score_run(PLAN, cases, [run_of(*map(asks.predict, cases))])
    assert {name: (one.correct, one.n) for name, one in scores.findings.items()} == {
        "sma_contact": (1, 2),
        "liver_mets": (2, 2),
    }
    assert scores.anatomy is not None
    direct = score_run(PLAN, cases, [run_of(*(said(number, R) for number in range(3)), name="direct")])
    assert (direct.findings, direct.anatomy) == ({}, None)


def test_repeats_are_compared_with_the_first_run_that_alone_is_measured():
    other = list(RUN.predictions)
    other[0] = said(0, M, 0.9, review=False)
    scores = score_run(PLAN, CASES, [RUN, RUN, run_of(*other)])
    assert scores.outcome.accuracy.correct == 3
    assert (scores.repeatability.runs, scores.repeatability.identical.correct, scores.repeatability.n) == (3, 7, 8)
    assert score_run(PLAN, CASES, [RUN]).repeatability is None


def test_readers_are_measured_over_decided_cases_that_they_read():
    labelled = LabelledSet("cases.csv", "sha256:0", CASES, ("reader_1",), ("ward",), (), 0)
    (found,) = score_readers(PLAN, labelled)
    # 0, 3 and 5 right; 2 wrong; 4 left open, which is wrong.
    assert (found.name, found.outcome.accuracy.correct, found.outcome.accuracy.n) == ("reader_1", 3, 5)
    assert found.agreement.observed == 0.6
    assert found.outcome.confusion[L, OPEN] == 1


def test_two_runs_differ_over_decided_cases():
    other = run_of(*(said(number, R) for number in range(8)), name="direct")
    found = compare_runs(CASES, other, RUN)
    # The other is right on 0 and 1: gained 2 and 5, lost 1.
    assert (found.before, found.after) == ("direct", "orchestrated")
    assert (found.difference.n, found.difference.gained, found.difference.lost) == (6, 2, 1)
    assert found.difference.difference == pytest.approx(1 / 6)
    assert found.difference.p_value == 1.0


def test_a_reader_is_compared_over_what_the_reader_read():
    found = compare_reader(CASES, "reader_1", RUN)
    assert (found.before, found.after) == ("reader_1", "orchestrated")
    assert (found.difference.n, found.difference.gained, found.difference.lost) == (5, 1, 1)


def test_wrong_decisions_keep_their_order_and_an_open_case_that_was_decided_is_one():
    found = wrong_cases(CASES, RUN, NO_DECISION)
    assert [(one.case_id, one.truth, one.predicted) for one in found] == [
        ("case-1", R, M),
        ("case-3", L, R),
        ("case-4", L, NO_DECISION),
        ("case-7", OPEN, R),
    ]
    assert {one.run for one in found} == {"orchestrated"}


def test_of_a_set_without_a_decided_case_nothing_is_defined():
    scores = score_run(PLAN, CASES[6:], [run_of(*RUN.predictions[6:])])
    assert scores.outcome.accuracy.value is None
    assert (scores.outcome.macro_f1, scores.reliability.ece, scores.risk_coverage.area) == (None, None, None)
    assert scores.groups == {}
    assert scores.readers["reader_1"].kappa is None
    assert compare_runs(CASES[6:], run_of(*RUN.predictions[6:]), run_of(*RUN.predictions[6:])).difference.n == 0


def test_runs_that_are_not_on_the_cases_are_refused():
    with pytest.raises(ValueError, match="zip"):
        score_run(PLAN, CASES, [run_of(*RUN.predictions[:3])])


def test_gates_are_held_against_the_rules_of_the_plan_with_the_adapter_whatever_was_run_after_it():
    made = made_up_evaluation()
    direct, bare, adapted = made.runs
    assert made.judged.name == "orchestrated + adapter"
    assert replace(made, runs=(bare, adapted, direct)).judged.name == "orchestrated + adapter"
    assert replace(made, runs=(bare, direct)).judged.name == "orchestrated"
    assert nothing_measured().judged.name == "direct"


def test_a_run_is_found_by_its_name():
    made = made_up_evaluation()
    assert made.run("orchestrated + adapter") is made.runs[2]
    with pytest.raises(KeyError):
        made.run("orchestrated + other")
