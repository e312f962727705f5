"""The trace: from the outcome down to rule, guideline, quotes and digests."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from small_batch import PART, PLAN, calibrated_plan, plan_with, small_engine, small_reports

from medorchestra.local.records import Report
from medorchestra.local.staging import Stager
from medorchestra.local.trace import json_ready, to_trace

REPORTS = small_reports(6)
STAGER = Stager(PLAN, small_engine())


def trace_of(report):
    trace = to_trace(STAGER.stage_one(report), STAGER.digests)
    assert json.loads(json.dumps(trace, allow_nan=False)) == trace, "JSON-ready means: reads back equal"
    return trace


def test_a_decision_is_traced_to_its_rule_and_the_words_of_the_guideline():
    decision = trace_of(REPORTS[2])["decision"]
    assert decision["outcome"] == "locally_advanced"
    assert decision["rule"] == {
        "id": "encased",
        "outcome": "locally_advanced",
        "guideline": "A short guideline",
        "edition": "first",
        "section": "1.1",
        "quote": "Contact of more than half of the vessel is encasement.",
        "note": "Whatever the veins.",
    }
    assert decision["rests_on"] == ["liver_mets", "sma_contact"]


def test_every_quote_stands_verbatim_at_its_place_in_the_report():
    quotes = 0
    for report in REPORTS:
        for answer in trace_of(report)["answers"]:
            for quote in answer["quotes"]:
                quotes += 1
                assert report.text[quote["start"] : quote["end"]] == quote["text"]
    assert quotes >= len(REPORTS)


def test_an_open_decision_has_no_rule_and_names_what_is_missing():
    decision = trace_of(REPORTS[4])["decision"]
    assert (decision["outcome"], decision["rule"], decision["missing"]) == (None, None, ["sma_contact"])
    assert decision["possible_outcomes"] == ["resectable", "locally_advanced"]


def test_what_was_skipped_is_traced_with_its_reason_and_with_the_bounds_of_the_probability():
    stager = Stager(PLAN, small_engine(), lazy=True)
    trace = to_trace(stager.stage_one(REPORTS[0]), stager.digests)
    assert trace["decision"]["skipped"] == ["size_cm"]
    assert trace["decision"]["probability_between"] == pytest.approx([trace["decision"]["probability"]] * 2)
    (skipped,) = (answer for answer in trace["answers"] if answer["status"] == "skipped")
    assert (skipped["subtask"], skipped["reason"]) == ("size", "no rule and no flag of the plan looks at it")
    everything = trace_of(REPORTS[0])
    assert (everything["decision"]["skipped"], everything["decision"]["probability_between"]) == ([], None)
    assert not any("reason" in answer for answer in everything["answers"])


def test_an_outcome_set_is_traced_where_the_calibration_gives_one():
    engine = small_engine()
    plan = calibrated_plan(engine, set_coverage=0.9, set_floor=0.01)
    decision = to_trace(Stager(plan, engine).stage_one(REPORTS[4]), {})["decision"]
    shares = decision["probabilities"]
    assert decision["outcome_set"] == [name for name in shares if shares[name] >= 0.01]
    assert len(decision["outcome_set"]) > 1
    assert trace_of(REPORTS[4])["decision"]["outcome_set"] is None


def test_silence_read_as_a_value_is_traced_with_its_reason():
    silent = Report("x", "CT abdomen. The SMA is free. Mass of the pancreatic head, 2.1 cm.")

    def reply_silent(asked):
        return "not stated" if "liver" in asked.question else "free" if "SMA" in asked.question else "2.1 cm"

    engine = small_engine()
    engine._reply = reply_silent
    decision = to_trace(Stager(PLAN, engine).stage_one(silent), {})["decision"]
    assert decision["outcome"] == "resectable"
    assert decision["assumed"] == {"liver_mets": {"read_as": "no", "why": "They would be named."}}


def test_the_parts_of_a_decision_are_traced_to_their_own_rules():
    one = Stager(plan_with(parts=[PART]), small_engine()).stage_one(REPORTS[1])
    part = to_trace(one, {})["decision"]["parts"]["m"]
    assert (part["outcome"], part["possible_outcomes"], part["missing"]) == ("m1", ["m1"], [])
    assert (part["rule"]["id"], part["rule"]["section"]) == ("m_liver", "1.1")
    assert part["probability"] == pytest.approx(0.9)


def test_an_empty_report_has_a_trace_without_decision_and_answers():
    trace = trace_of(Report("blank", " "))
    assert (trace["status"], trace["decision"], trace["answers"]) == ("empty", None, [])


def test_the_digests_say_what_was_run_on_what():
    trace = trace_of(REPORTS[0])
    assert trace["report_digest"] == REPORTS[0].digest
    assert trace["digests"] == {
        "plan": PLAN.digest,
        "guideline": PLAN.guideline.digest,
        "model": STAGER.engine.identity.digest,
        "adapter": None,
        "settings": STAGER.run_key.settings,
    }


def test_carried_columns_of_any_kind_are_traced():
    carried = {
        "ward": "W7",
        "age": np.int64(64),
        "bmi": float("nan"),
        "dose": float("inf"),
        "seen": dt.datetime(2026, 11, 24, 8, 30, tzinfo=dt.UTC),
        "taken": pd.NaT,
        "sex": pd.NA,
        "charge": Decimal("1.50"),
        "codes": np.array([1, 2]),
        "nested": {"a": [dt.date(2026, 11, 24), None]},
    }
    assert trace_of(replace(REPORTS[0], carried=carried))["carried"] == {
        "ward": "W7",
        "age": 64,
        "bmi": None,
        "dose": "inf",
        "seen": "2026-11-24T08:30:00+00:00",
        "taken": None,
        "sex": None,
        "charge": "1.50",
        "codes": [1, 2],
        "nested": {"a": ["2026-11-24", None]},
    }


@pytest.mark.parametrize("value", ["text", 3, 2.5, True, None, [1, "a"], {"a": 1}])
def test_what_json_knows_already_stays_as_it_is(value):
    assert json_ready(value) == value
    assert type(json_ready(value)) is type(value)
