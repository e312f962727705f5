"""Rows of results: the columns, what stands in them, and carried columns of any kind."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_by_hand import PLAN_BY_HAND
from small_batch import PART, PLAN, calibrated_plan, plan_with, small_engine, small_reports

from medorchestra.local.answers import AnswerStatus
from medorchestra.local.records import Report
from medorchestra.local.result_table import (
    arrow_rows,
    carried_name,
    cell_text,
    result_columns,
    result_row,
    result_schema,
    results_arrow,
    table_row,
)
from medorchestra.local.staged_report import ReportStatus, StagedReport
from medorchestra.local.staging import Stager


def staged(report):
    return Stager(PLAN, small_engine()).stage_one(report)


CASES = [staged(report) for report in small_reports(6)]


def test_the_columns_are_those_the_documentation_names():
    columns = list(result_columns(PLAN_BY_HAND))
    assert columns[:13] == [
        "report_id", "status", "outcome", "best_outcome", "possible_outcomes", "outcome_set",
        "probability", "review", "review_reason", "rule", "missing", "skipped",
        "validated",
    ]  # fmt: skip
    outcomes = ["resectable", "borderline_resectable", "locally_advanced", "metastatic", "not_stageable"]
    assert columns[13:18] == [f"p.{outcome}" for outcome in outcomes]
    assert {"finding.sma_contact", "finding.tumor_size_cm", "finding.liver_mets"} < set(columns[18:])


def test_a_decided_report_shows_outcome_rule_and_findings():
    row = result_row(CASES[2])
    assert (row["status"], row["outcome"], row["best_outcome"]) == ("decided", "locally_advanced", "locally_advanced")
    assert (row["rule"], row["possible_outcomes"], row["missing"]) == ("encased", "locally_advanced", None)
    assert (row["finding.sma_contact"], row["finding.liver_mets"], row["finding.size_cm"]) == (">180", "no", 2.2)
    assert row["probability"] == row["p.locally_advanced"] == max(row[f"p.{o.name}"] for o in PLAN.outcomes)


def test_a_skipped_finding_is_named_in_its_own_column_and_has_no_value():
    row = result_row(Stager(PLAN, small_engine(), lazy=True).stage_one(small_reports(2)[1]))
    assert (row["outcome"], row["rule"], row["missing"]) == ("metastatic", "liver", None)
    assert (row["skipped"], row["finding.size_cm"], row["finding.liver_mets"]) == ("size_cm", None, "yes")
    assert result_row(CASES[1])["skipped"] is None


def test_an_open_report_has_no_outcome_but_a_best_one_and_says_what_is_missing():
    row = result_row(CASES[4])
    assert (row["status"], row["outcome"], row["rule"]) == ("open", None, None)
    assert row["best_outcome"] in ("resectable", "locally_advanced")
    assert row["possible_outcomes"] == "resectable|locally_advanced"
    assert (row["missing"], row["finding.sma_contact"]) == ("sma_contact", "not_stated")
    assert row["review"] is True


def test_a_part_of_the_decision_has_its_own_column():
    plan = plan_with(parts=[PART])
    rows = [result_row(one) for one in Stager(plan, small_engine()).stage(small_reports(2))]
    assert [row["part.m"] for row in rows] == ["m0", "m1"]
    assert "part.m" in result_columns(plan)
    assert not [name for name in result_columns(PLAN) if name.startswith("part.")]


def test_a_calibration_with_sets_fills_their_column_and_changes_no_other_thing_of_the_schema():
    engine, report = small_engine(), small_reports(1)[0]
    wide = Stager(calibrated_plan(engine, set_coverage=0.95), engine).stage_one(report)
    narrow = Stager(calibrated_plan(engine, set_coverage=0.9, set_floor=0.3), engine).stage_one(report)
    without = Stager(calibrated_plan(engine), engine).stage_one(report)
    assert result_row(wide)["outcome_set"] == "resectable|locally_advanced|metastatic"
    assert result_row(narrow)["outcome_set"] == "resectable"
    assert result_row(without)["outcome_set"] is None
    schemas = [results_arrow(one.plan, [one]).schema for one in (wide, narrow, without)]
    assert schemas == [results_arrow(PLAN, [CASES[0]]).schema] * 3
    assert schemas[0].field("outcome_set").type == pa.string()
    assert schemas[0].field("outcome_set").nullable


def test_a_failed_or_empty_report_has_a_reason_and_no_invented_values():
    for one in (
        StagedReport(PLAN, Report("x", ""), ReportStatus.EMPTY),
        StagedReport(PLAN, Report("x", "y"), ReportStatus.FAILED, error="RuntimeError at engine.py:7"),
    ):
        row = result_row(one)
        assert row["review_reason"] == (one.error or "empty")
        filled = {name for name, value in row.items() if value is not None}
        assert filled == {"report_id", "status", "review", "review_reason", "validated"}


@pytest.mark.parametrize(
    ("status", "closed", "number"),
    [
        (AnswerStatus.NOT_STATED, "not_stated", None),
        (AnswerStatus.FAILED, None, None),
        (AnswerStatus.TOO_LONG, None, None),
    ],
)
def test_silence_and_failure_stay_apart_in_the_cells_of_findings(status, closed, number):
    answers = tuple(replace(answer, status=status, value=None) for answer in CASES[0].answers)
    row = result_row(replace(CASES[0], answers=answers))
    assert (row["finding.sma_contact"], row["finding.size_cm"]) == (closed, number)


def test_every_row_has_exactly_the_columns_of_its_schema():
    schema = result_schema(PLAN, [one.report for one in CASES])
    for one in CASES:
        assert list(table_row(one)) == schema.names


# ---------------------------------------------------------------- carried columns


def carrying(*values):
    """A table of results whose reports carry these values in the column `extra`."""
    reports = [replace(CASES[0].report, report_id=f"r{i}", carried={"extra": v}) for i, v in enumerate(values)]
    return results_arrow(PLAN, [replace(CASES[0], report=report) for report in reports])


@pytest.mark.parametrize(
    "values",
    [
        (1, None, 3),
        (1.5, 2.0),
        (True, False),
        ("a", None),
        (dt.date(2026, 11, 24), None),
        (dt.datetime(2026, 11, 24, 8, 30), None),
        (Decimal("1.50"), Decimal("2.25")),
    ],
)
def test_carried_values_of_one_type_keep_it(values):
    assert carrying(*values).column("extra").to_pylist() == list(values)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((1, "a", None), ["1", "a", None]),
        ((1, True), ["1", "True"]),
        ((2**70,), [str(2**70)]),
        (({"lobe": "left"}, [1, "x"]), ['{"lobe": "left"}', '[1, "x"]']),
        (({}, {}), ["{}", "{}"]),
        ((float("nan"), "a"), [None, "a"]),
        ((pd.NA, pd.NaT, "a"), [None, None, "a"]),
        ((None, None), [None, None]),
        (("a\ud800", "b"), ["a\\ud800", "b"]),
    ],
    ids=str,
)
def test_carried_values_without_a_common_plain_type_are_kept_as_text(values, texts, tmp_path):
    table = carrying(*values)
    assert table.schema.field("extra").type == pa.string()
    pq.write_table(table, tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").column("extra").to_pylist() == texts


def test_a_carried_column_named_as_a_result_column_gets_another_name_and_none_is_lost():
    carried = {"status": "inpatient", "carried.status": "from an earlier run", "p.resectable": 0.5}
    one = replace(CASES[0], report=replace(CASES[0].report, carried=carried))
    (row,) = results_arrow(PLAN, [one]).to_pylist()
    assert row["status"] == "decided"
    assert row["carried.status"] == "inpatient"
    assert row["carried.carried.status"] == "from an earlier run"
    assert row["carried.p.resectable"] == 0.5


@given(st.sets(st.sampled_from(["status", "outcome", "ward"]).flatmap(
    lambda name: st.integers(0, 3).map(lambda times: "carried." * times + name)
)))  # fmt: skip
def test_no_two_carried_columns_ever_become_one(names):
    columns = result_columns(PLAN)
    renamed = {carried_name(name, columns) for name in names}
    assert len(renamed) == len(names)
    assert not renamed & set(columns)


def test_columns_that_only_some_reports_carry_are_empty_for_the_others():
    other = replace(CASES[1], report=replace(CASES[1].report, carried={"scanner": "CT2"}))
    table = results_arrow(PLAN, [CASES[0], other])
    assert table.column("ward").to_pylist() == ["W0", None]
    assert table.column("scanner").to_pylist() == [None, "CT2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (float("nan"), None),
        (np.int64(3), "3"),
        (np.float64(0.5), "0.5"),
        (0.1, "0.1"),
        (True, "True"),
        (dt.datetime(2026, 11, 24, 8, 30), "2026-11-24T08:30:00"),
        ({"a": [1, None]}, '{"a": [1, null]}'),
    ],
    ids=str,
)
def test_cells_are_text_that_can_be_read_back(value, text):
    assert cell_text(value) == text


def test_rows_can_be_written_in_groups_with_one_schema():
    schema = result_schema(PLAN, [one.report for one in CASES])
    groups = [arrow_rows([table_row(one)], schema) for one in CASES]
    assert pa.concat_tables(groups).equals(results_arrow(PLAN, CASES))
