"""The counts of a run, and what run.json tells of its time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from small_batch import PLAN, small_engine, small_reports

from medorchestra.local.run_counts import ReportCounts, RunCounts
from medorchestra.local.staging import Stager

STAGED = list(Stager(PLAN, small_engine()).stage(small_reports(4)))
BEGAN = datetime(2026, 11, 25, 8, 30, tzinfo=UTC)


def counted(*, tokens, seconds_in_model):
    counts = RunCounts(PLAN)
    for one in STAGED:
        counts.add(ReportCounts.of(replace(one, tokens=tokens, seconds_in_model=seconds_in_model)))
    return counts


def test_rates_are_of_the_whole_time_and_tokens_of_the_time_in_the_model():
    assert counted(tokens=100, seconds_in_model=0.5).times(BEGAN, 4.0) == {
        "started": "2026-11-25T08:30:00+00:00",
        "seconds": 4.0,
        "seconds_in_model": 2.0,
        "share_in_model": 0.5,
        "reports_per_minute": 60.0,
        "tokens_per_second": 200.0,
    }


def test_of_a_run_whose_answers_were_all_there_no_rate_of_the_model_is_told():
    times = counted(tokens=0, seconds_in_model=0.0).times(BEGAN, 4.0)
    assert times["share_in_model"] is None
    assert times["tokens_per_second"] is None
    assert times["reports_per_minute"] == 60.0


@pytest.mark.parametrize(("engines", "share"), [(1, 1.5), (2, 0.75), (None, None)])
def test_engines_side_by_side_share_the_time_and_where_their_number_is_unknown_no_share_is_told(engines, share):
    times = counted(tokens=100, seconds_in_model=1.5).times(BEGAN, 4.0, engines=engines)
    assert times["share_in_model"] == share
    assert times["seconds_in_model"] == 6.0
