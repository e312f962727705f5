"""What became of a report, as a value."""

from __future__ import annotations

import pytest
from small_batch import PLAN, small_engine, small_reports

from medorchestra.local.records import Report
from medorchestra.local.staged_report import ReportStatus, StagedReport
from medorchestra.local.staging import Stager

REPORT = Report("case-7", "Mrs. Canary, born 1948. The SMA is encased over 270 degrees.")


def staged(report):
    return Stager(PLAN, small_engine()).stage_one(report)


def test_a_staged_report_prints_without_its_text():
    one = staged(REPORT)
    assert repr(one) == str(one) == "StagedReport('case-7', decided, outcome='locally_advanced')"


def test_only_empty_and_failed_reports_are_failures():
    assert {status for status in ReportStatus if status.is_failure} == {ReportStatus.EMPTY, ReportStatus.FAILED}


@pytest.mark.parametrize("status", [ReportStatus.EMPTY, ReportStatus.FAILED])
def test_a_report_without_a_decision_goes_to_a_person(status):
    assert StagedReport(PLAN, REPORT, status).review


def test_a_report_with_a_decision_goes_to_a_person_where_the_decision_says_so():
    surely_read, doubtful = staged(small_reports(1)[0]), staged(Report("case-8", "The liver is normal."))
    assert not surely_read.review, surely_read.decision.review_reasons
    assert doubtful.review
    assert doubtful.decision.review_reasons


def test_answers_are_found_by_their_finding():
    one = staged(REPORT)
    assert one.answer("sma_contact").value == ">180"
    with pytest.raises(KeyError):
        one.answer("shoe_size")
