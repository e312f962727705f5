"""A hospital's labels of its own reports: what is taken from the file, and that what stands in it is never shown."""

from __future__ import annotations

import csv
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_batch import PLAN, small_reports

from medorchestra.errors import SourceError
from medorchestra.local.calibrating import OPEN
from medorchestra.local.labels import read_labelled

REPORTS = small_reports(6)
CANARY = "Quillfeather"


@pytest.fixture
def file(tmp_path):
    """Writes the labels file: its lines, or its bytes."""

    def write(*lines):
        path = tmp_path / "labels.csv"
        if isinstance(lines[0], bytes):
            path.write_bytes(lines[0])
        else:
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


def labels_of(path):
    return {one.report.report_id: (one.findings, one.outcome) for one in read_labelled(PLAN, REPORTS, path)}


def refusal(path, reports=REPORTS):
    with pytest.raises(SourceError) as caught:
        read_labelled(PLAN, reports, path)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


# ------------------------------------------------------------------------------ what is read


def test_outcomes_and_findings_are_read_as_they_are_labelled_in_the_order_of_the_reports(file):
    path = file(
        "id,outcome,sma_contact,liver_mets,size_cm",
        "case-2,locally_advanced,>180,no,2.2",
        "case-0,resectable,none,no,2",
        "case-1,metastatic,not_stated,yes,not_stated",
    )
    assert labels_of(path) == {
        "case-0": ({"sma_contact": "none", "liver_mets": "no", "size_cm": 2.0}, "resectable"),
        "case-1": ({"sma_contact": "not_stated", "liver_mets": "yes", "size_cm": "not_stated"}, "metastatic"),
        "case-2": ({"sma_contact": ">180", "liver_mets": "no", "size_cm": 2.2}, "locally_advanced"),
    }
    assert [one.report for one in read_labelled(PLAN, REPORTS, path)] == REPORTS[:3]


def test_an_empty_cell_is_not_labelled_and_no_silence_and_no_no(file):
    path = file("outcome,id,liver_mets", "resectable,case-0,", ",case-1, yes ", ",case-2")
    assert labels_of(path) == {
        "case-0": ({}, "resectable"),
        "case-1": ({"liver_mets": "yes"}, None),
        "case-2": ({}, None),
    }


def test_a_file_as_spreadsheets_write_it_is_read(file):
    content = '\ufeffid,outcome\r\ncase-0,"resectable"\r\n\r\n case-1 ,metastatic\r\n'
    assert {case: outcome for case, (_, outcome) in labels_of(file(content.encode())).items()} == {
        "case-0": "resectable",
        "case-1": "metastatic",
    }


def test_the_rules_give_the_outcome_where_all_findings_are_labelled(file):
    path = file(
        "id,sma_contact,liver_mets,size_cm,outcome",
        "case-0,none,no,2.0,",
        "case-1,not_stated,yes,2.1,",
        "case-4,not_stated,no,2.4,",
        "case-5,not_stated,yes,2.5,locally_advanced",
        "case-3,>180,,2.3,",
    )
    outcomes = {case: outcome for case, (_, outcome) in labels_of(path).items()}
    assert outcomes == {
        "case-0": "resectable",
        "case-1": "metastatic",
        "case-3": None,
        "case-4": OPEN,
        "case-5": "locally_advanced",
    }


def test_an_open_decision_can_be_labelled_as_such(file):
    assert labels_of(file("id,outcome", "case-4,open"))["case-4"] == ({}, OPEN)


@given(st.lists(st.sampled_from([*(o.name for o in PLAN.outcomes), OPEN, ""]), min_size=6, max_size=6))
def test_whatever_was_labelled_comes_back(tmp_path_factory, outcomes):
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    with path.open("w", encoding="utf-8", newline="") as opened:
        rows = zip((report.report_id for report in REPORTS), outcomes, strict=True)
        csv.writer(opened).writerows([("id", "outcome"), *rows])
    assert [one.outcome for one in read_labelled(PLAN, REPORTS, path)] == [outcome or None for outcome in outcomes]


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("id", "0 are something else, 0 are there again"),
        ("case,outcome", "1 are something else"),
        ("outcome,liver_mets", "0 are something else"),
        (f"id,outcome,{CANARY}", "1 are something else"),
        ("id;outcome", "1 are something else"),
        ("id,outcome,liver_mets,liver_mets", "0 are something else, 1 are there again"),
        ("id,outcome,id", "1 are there again"),
    ],
)
def test_columns_that_are_missing_foreign_or_there_twice_are_refused(file, header, says):
    said = refusal(file(header, f"case-0,{CANARY}"))
    assert said.startswith("columns must be `id`, `outcome` and names of findings of plan demo, each once; ")
    assert says in said


def test_an_empty_file_is_refused(file):
    assert refusal(file(b"")).startswith("columns must be")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (f"case-1,,{CANARY},", "row 3: column liver_mets: none of its values, nor `not_stated`"),
        ("case-1,,YES,", "row 3: column liver_mets: none of its values, nor `not_stated`"),
        (f"case-1,,,{CANARY}", "row 3: column size_cm: none of its values, nor `not_stated`"),
        ("case-1,,,31", "row 3: column size_cm: none of its values, nor `not_stated`"),
        ("case-1,,,nan", "row 3: column size_cm: none of its values, nor `not_stated`"),
        ("case-1,,,inf", "row 3: column size_cm: none of its values, nor `not_stated`"),
        ("case-1,,,-1", "row 3: column size_cm: none of its values, nor `not_stated`"),
        (f"case-1,{CANARY},yes,2", "row 3: column outcome: none of the plan's outcomes, nor `open`"),
        ("case-1,not_stated,yes,2", "row 3: column outcome: none of the plan's outcomes, nor `open`"),
        (f",{CANARY},yes,2", "row 3: the id is empty"),
        ("  ,resectable,yes,2", "row 3: the id is empty"),
        (f"case-0,{CANARY},,", "row 3: the id is there twice"),
        (f"case-1,resectable,yes,2,{CANARY}", "row 3: more cells than columns; quote what holds a comma"),
        (f"case-1,resectable,yes,2,{CANARY},1", "row 3: more cells than columns; quote what holds a comma"),
    ],
)
def test_a_bad_row_is_named_by_row_and_column_and_its_content_is_not_shown(file, row, says):
    assert refusal(file("id,outcome,liver_mets,size_cm", "case-0,resectable,no,2.0", row)) == says


def test_labels_of_reports_that_are_not_there_are_counted_and_not_dropped(file):
    path = file("id,outcome", "case-0,resectable", f"{CANARY}-1,metastatic", f"{CANARY}-2,metastatic")
    assert refusal(path) == "2 labelled ids are not among the reports; check the column `id`"


@pytest.mark.parametrize(
    "content",
    [
        f"id,outcome\ncase-0,{CANARY}\xe9\n".encode("latin-1"),
        f"id,outcome\ncase-0,{CANARY}\n".encode("utf-16"),
        b"id,outcome\ncase-0," + b"x" * 200_000 + b"\n",
    ],
)
def test_a_file_that_is_no_csv_in_utf_8_is_refused(file, content):
    assert refusal(file(content)).startswith("cannot be read as a CSV in UTF-8 (")


def test_a_file_that_is_not_there_or_is_a_folder_is_refused(tmp_path):
    assert refusal(tmp_path / "missing.csv") == "cannot be read as a CSV in UTF-8 (FileNotFoundError)"
    assert refusal(tmp_path).startswith("cannot be read as a CSV in UTF-8 (")
