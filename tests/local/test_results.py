"""Results of a batch in a notebook: iterate, filter, convert, print."""

from __future__ import annotations

import json
import sys

import pytest
from small_batch import PLAN, small_engine, small_reports

from medorchestra.errors import SettingsError
from medorchestra.local.batch import stage
from medorchestra.local.records import Report
from medorchestra.local.results import Results

BLANK = Report("blank", "", {"ward": "W9"})


@pytest.fixture(scope="module")
def results():
    """Six cases (one open) and a blank one."""
    return stage([*small_reports(6), BLANK], PLAN, model=small_engine(), unvalidated=True)


def test_results_are_a_sequence_in_the_order_of_the_input(results):
    assert len(results) == 7
    assert [one.report_id for one in results] == [*(f"case-{i}" for i in range(6)), "blank"]
    assert results[-1].report_id == "blank"
    assert isinstance(results[1:3], Results)
    assert [one.report_id for one in results[1:3]] == ["case-1", "case-2"]
    assert results[1:3].digests == results.digests


def test_a_report_is_found_by_its_id(results):
    assert results.by_id("case-2").decision.outcome == "locally_advanced"
    with pytest.raises(KeyError):
        results.by_id("case-99")


def test_every_report_is_counted_once(results):
    counts = results.counts()
    assert counts == {
        "resectable": 1, "locally_advanced": 1, "metastatic": 3, "open": 1, "empty": 1, "failed": 0,
    }  # fmt: skip
    assert sum(counts.values()) == len(results)


def test_review_holds_what_has_no_certain_decision(results):
    chosen = {one.report_id for one in results.for_review()}
    assert {"case-4", "blank"} <= chosen
    assert chosen == {one.report_id for one in results if one.review}
    assert len(results.filter(lambda one: not one.review)) + len(chosen) == len(results)


def test_the_table_has_one_row_for_every_report(results):
    table = results.to_arrow()
    assert table.column("report_id").to_pylist() == [one.report_id for one in results]
    frame = results.to_pandas()
    assert list(frame.columns) == table.column_names
    assert frame["ward"].tolist() == ["W0", "W1", "W2", "W0", "W1", "W2", "W9"]
    assert results.for_review().to_arrow().schema.names == table.schema.names


def test_without_pandas_the_extra_to_install_is_named(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SettingsError, match=r"pip install medorchestra\[pandas\]"):
        results.to_pandas()


def test_traces_are_ready_for_json(results):
    traces = json.loads(json.dumps(results.to_traces(), allow_nan=False))
    assert [trace["report_id"] for trace in traces] == [one.report_id for one in results]
    assert all(trace["digests"]["plan"] == PLAN.digest for trace in traces)


def test_results_print_as_counts_and_never_as_text(results):
    shown = repr(results)
    assert shown.startswith("Results(7 reports: resectable=1, locally_advanced=1, metastatic=3, open=1, empty=1; ")
    assert "SMA" not in shown
    assert (
        repr(stage([BLANK], PLAN, model=small_engine(), unvalidated=True))
        == "Results(1 reports: empty=1; 1 for review; plan not validated for this model)"
    )
