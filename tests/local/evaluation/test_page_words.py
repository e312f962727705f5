"""The sentences on top of an evaluation's page."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_evaluation import made_up_evaluation, nothing_measured

from medorchestra.local.evaluation.error_anatomy import ErrorKind
from medorchestra.local.evaluation.evaluation import Comparison
from medorchestra.local.evaluation.measures import paired_difference, share_of
from medorchestra.local.evaluation.page_words import (
    KIND_TEXT,
    best_run,
    number,
    p_text,
    percent,
    points,
    points_interval,
    share_text,
    summary_of,
)


def told(evaluation):
    return "\n".join(summary_of(evaluation)).replace("\N{NO-BREAK SPACE}", " ")


def test_the_summary_says_the_set_the_best_run_its_interval_and_that_cases_are_few():
    summary = told(made_up_evaluation())
    assert "32 reports with labels: 30 with a single true outcome, 2 that leave several possible." in summary
    assert "1 report without a label was left out." in summary
    assert (
        "Best of 3 runs: orchestrated + adapter, right on 25 of 30, 83.3 % (95 % interval 66.4 % to 92.7 %)." in summary
    )
    assert "30 cases are few" in summary
    assert "sends 16 of 32 reports to a person; of the others 13 of 15 (86.7 %) are right." in summary


def test_two_runs_that_the_test_does_not_tell_apart_are_not_ranked():
    summary = told(made_up_evaluation())
    assert (
        "3 right only by orchestrated + adapter, 4 right only by reader_1 (p = 1); these cases do not tell" in summary
    )
    # Both stand alike against it, and share a sentence.
    assert (
        "Against direct and orchestrated, on the same 30 cases: "
        "14 right only by orchestrated + adapter, 0 right only by each of them (p < 0.001); "
        "orchestrated + adapter is better" in summary
    )


@pytest.mark.parametrize("best_first", [True, False])
def test_a_comparison_reads_the_same_in_either_order(best_first):
    ours, theirs = [True] * 12, [True] * 2 + [False] * 10
    pair = [("orchestrated + adapter", ours), ("direct", theirs)]
    (before, one), (after, other) = pair if best_first else pair[::-1]
    summary = told(made_up_evaluation(comparisons=(Comparison(before, after, paired_difference(one, other)),)))
    assert (
        "Against direct, on the same 12 cases: 10 right only by orchestrated + adapter, 0 right only by direct "
        "(p = 0.002); orchestrated + adapter is better on such cases." in summary
    )


def test_a_reader_who_is_better_than_the_best_run_is_called_better():
    difference = paired_difference([True] * 10, [False] * 10)
    summary = told(made_up_evaluation(comparisons=(Comparison("reader_1", "orchestrated + adapter", difference),)))
    assert "reader_1 is better on such cases" in summary


def test_a_single_run_is_not_called_the_best_of_several():
    evaluation = made_up_evaluation()
    assert "Best of" not in told(replace(evaluation, runs=evaluation.runs[:1]))
    assert "direct, right on 11 of 30" in told(replace(evaluation, runs=evaluation.runs[:1]))


def test_a_run_that_sends_everything_to_a_person_is_said_to():
    evaluation = made_up_evaluation()
    run = replace(evaluation.runs[2], reviewed=share_of([True] * 32), unreviewed=share_of([]))
    assert "sends 32 of 32 reports to a person; every decision goes to a person." in told(
        replace(evaluation, runs=(run,))
    )


def test_of_equal_runs_the_first_is_the_best_and_of_none_there_is_none():
    evaluation = made_up_evaluation()
    assert best_run(replace(evaluation, runs=evaluation.runs[:2])).name == "direct"
    assert best_run(nothing_measured()) is None
    assert "No run could be measured" in told(nothing_measured())


def test_every_kind_of_error_has_its_words():
    assert set(KIND_TEXT) == set(ErrorKind)
    assert len(set(KIND_TEXT.values())) == len(ErrorKind)


def test_figures_claim_neither_certainty_nor_what_is_not_defined():
    assert [percent(share) for share in (None, 0.0, 0.0004, 0.5, 0.9996, 1.0)] == [
        "–", "0 %", "<0.1 %", "50 %", ">99.9 %", "100 %",
    ]  # fmt: skip
    assert [p_text(p) for p in (None, 0.0, 0.0009, 0.04, 1.0)] == ["–", "<0.001", "<0.001", "0.040", "1"]
    assert [points(share) for share in (None, 0.0, -0.00001, -0.125, 0.3)] == ["–", "0", "0", "−12.5", "+30.0"]
    assert points_interval((-0.1, 0.2)) == "−10.0 to +20.0"
    assert points_interval(None) == points_interval((None, None)) == number(None) == "–"
    assert number(-0.25) == "−0.250"
    assert share_text(share_of([])) == "none counted"
