"""What a notebook has at hand, as a batch."""

from __future__ import annotations

import pytest

from medorchestra.errors import SourceError
from medorchestra.local.connectors import ReportBatch, batch_of
from medorchestra.local.records import Report

TEXT = "Mass of ZEBRA."


@pytest.mark.parametrize(
    "reports",
    [
        [Report("A1", TEXT)],
        (Report("A1", TEXT) for _ in range(1)),
        {"A1": TEXT},
        [{"id": "A1", "text": TEXT}],
        [{"report_id": "A1", "text": TEXT}],
        ({"Accession Number": "A1", "Report Text": TEXT} for _ in range(1)),
    ],
)
def test_every_form_gives_the_same_batch(reports):
    batch = batch_of(reports)
    assert [(report.report_id, report.text) for report in batch.reports] == [("A1", TEXT)]
    assert batch.source == "in memory"
    assert batch.digest == batch_of({"A1": TEXT}).digest


def test_other_columns_are_carried_and_columns_may_be_named():
    batch = batch_of([{"MRN": 7, "Befund": TEXT, "age": 61}], id_column="MRN", text_column="Befund")
    assert (batch.reports[0].report_id, dict(batch.reports[0].carried)) == ("7", {"age": 61})


def test_a_report_without_text_stays_in_the_batch():
    assert [report.text for report in batch_of({"A1": None, "A2": "", "A3": float("nan")}).reports] == ["", "", ""]


def test_the_digest_covers_ids_texts_and_carried_values():
    digests = {
        batch_of([{"id": report_id, "text": text, "age": age}]).digest
        for report_id in ("A1", "A2")
        for text in ("x", "y")
        for age in (60, 61)
    }
    assert len(digests) == 8
    assert batch_of({"A1": "x", "A2": "y"}).digest != batch_of({"A2": "y", "A1": "x"}).digest


def test_a_batch_prints_without_its_reports():
    batch = batch_of({"A1": TEXT})
    assert repr(batch) == "ReportBatch(1 reports, source='in memory')"
    assert "ZEBRA" not in repr(batch.reports)


def test_a_batch_cannot_be_changed():
    with pytest.raises(AttributeError):
        batch_of({"A1": TEXT}).reports = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("reports", "says"),
    [
        ([], "no reports in it"),
        ({}, "no reports in it"),
        (TEXT.encode(), "bytes is nothing that reports are read from; give a path, Report objects"),
        (7, "int is nothing that reports are read from"),
        ([TEXT], "report 1 is a str, no report"),
        ([Report("A1", TEXT), {"id": "A2", "text": TEXT}], "report 1 is a Report, no report"),
        ([{1: "A1", 2: TEXT}], "report 1 is a dict, no report"),
        ({"report_id": "A1", "text": TEXT}, "give a list of them"),
        ([Report(" ", TEXT)], "report 1: an id must be text of 1 to 200 characters"),
        ([Report(7, TEXT)], "report 1: an id must be text"),  # type: ignore[arg-type]
        ([Report(TEXT * 20, TEXT)], "report 1: an id must be text of 1 to 200 characters"),
        ({"A1": 7}, "report 1: a value of type int"),
        ({"": TEXT}, "1 row without an id in column 'id': report 1"),
        ([{"id": "A1"}], "no column with the report text"),
    ],
)
def test_what_is_no_batch_is_refused_without_its_text(reports, says):
    with pytest.raises(SourceError) as caught:
        batch_of(reports)
    assert says in str(caught.value)
    assert "ZEBRA" not in str(caught.value)


def test_doubled_ids_are_counted_and_the_first_are_named():
    reports = [Report(f"A{i % 20}", "x") for i in range(47)]
    with pytest.raises(SourceError) as caught:
        batch_of(reports)
    assert str(caught.value) == (
        "in memory: 20 ids stand for more than one report (27 reports too many): "
        "'A0', 'A1', 'A2', 'A3', 'A4' and 15 more; make them unique in the source"
    )


def test_a_batch_is_a_batch():
    assert isinstance(batch_of({"A1": "x"}), ReportBatch)
