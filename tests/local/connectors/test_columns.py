"""Which column holds ids and text, and how columns are named without giving away a report."""

from __future__ import annotations

import pytest

from medorchestra.errors import SourceError
from medorchestra.local.connectors.columns import ID_COLUMN, TEXT_COLUMN, find_column, refuse_repeats


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["text", "report_id"], "report_id"),
        (["Accession Number", "Report Text"], "Accession Number"),
        (["ACCESSION_NUMBER", "text"], "ACCESSION_NUMBER"),
        (["accessionNumber", "text"], "accessionNumber"),
        (["Accession #", "text"], "Accession #"),
        ([" Report ID ", "text"], " Report ID "),
        (["note_id", "note_text"], "note_id"),
        (["Accession Number", "report_id"], "report_id"),
        (["id", "Accession Number"], "Accession Number"),
    ],
)
def test_usual_names_of_the_id_column_are_found_the_most_expected_first(columns, found):
    assert find_column(columns, ID_COLUMN, None, "x.csv") == found


@pytest.mark.parametrize("name", ["text", "Text", "Report Text", "REPORT_TEXT", "report", "note_text"])
def test_usual_names_of_the_text_column_are_found(name):
    assert find_column(["report_id", name], TEXT_COLUMN, None, "x.csv") == name


def test_a_name_that_is_given_wins_and_may_differ_in_case():
    assert find_column(["report_id", "MRN"], ID_COLUMN, "mrn", "x.csv") == "MRN"
    assert find_column(["mrn", "MRN"], ID_COLUMN, "MRN", "x.csv") == "MRN"


def test_two_columns_that_fit_equally_are_not_chosen_between():
    with pytest.raises(SourceError, match=r"'Report-ID', 'REPORT ID' all look like .* report ids; choose one"):
        find_column(["Report-ID", "REPORT ID", "text"], ID_COLUMN, None, "x.csv")


def test_a_missing_column_lists_those_that_are_there():
    with pytest.raises(SourceError) as caught:
        find_column(["MRN", "Befund"], TEXT_COLUMN, None, "x.csv")
    assert str(caught.value) == (
        "x.csv: no column with the report text ('text' or 'Report Text'); the columns are: 'MRN', 'Befund'. "
        "Name it with --text-column (text_column= in Python)"
    )


def test_a_column_that_was_asked_for_and_is_not_there_is_named():
    with pytest.raises(SourceError, match=r"no column 'findings'; the columns are: 'report_id', 'text'"):
        find_column(["report_id", "text"], TEXT_COLUMN, "findings", "x.csv")


@pytest.mark.parametrize(
    "first_row",
    [
        ["A17", "CT ABDOMEN. MASS OF THE PANCREATIC HEAD."],
        ["00123", "mass in the head"],
        ["A17", "mass in the head\nSMA free"],
        ["A17", "a solid mass of the pancreatic head encases the artery and the vein"],
    ],
)
def test_without_a_header_row_no_value_of_the_first_report_is_shown(first_row):
    with pytest.raises(SourceError) as caught:
        find_column(first_row, ID_COLUMN, None, "x.csv")
    assert "2 (names withheld, they look like data: is the row with the names missing?)" in str(caught.value)
    assert not any(cell in str(caught.value) for cell in first_row)


def test_of_very_many_columns_the_first_are_listed():
    with pytest.raises(SourceError, match=r"'c39' and 60 more"):
        find_column([f"c{i}" for i in range(100)], ID_COLUMN, None, "x.parquet")


def test_doubled_columns_are_refused_by_name():
    with pytest.raises(SourceError, match=r"more than one column named 'text'"):
        refuse_repeats(["report_id", "text", "text"], "x.csv")
