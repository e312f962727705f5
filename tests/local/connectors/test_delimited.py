"""CSV and TSV: what stands in a field comes out unchanged, and what is broken is named with its row."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.errors import SourceError
from medorchestra.local.connectors import read_reports
from medorchestra.local.connectors.delimited import delimited_rows


def read_csv(tmp_path, content, name="reports.csv", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_reports(path, **options).reports


def refusal(tmp_path, content, **options):
    with pytest.raises(SourceError) as caught:
        read_csv(tmp_path, content, **options)
    assert caught.value.__context__ is None  # nothing that holds the file hangs on the error
    return str(caught.value)


def test_texts_with_line_breaks_quotes_and_delimiters_stay_verbatim(tmp_path):
    text = 'FINDINGS:\r\nMass of 3 cm, "encasing" the SMA;\n\tliver clear\r\n'
    quoted = text.replace('"', '""')
    (report,) = read_csv(tmp_path, f'report_id,text\r\nA1,"{quoted}"\r\n')
    assert report.text == text


def test_leading_zeros_of_ids_and_carried_columns_stay(tmp_path):
    (report,) = read_csv(tmp_path, "report_id,MRN,Age,text\n00123,0042,7.0,Mass.\n")
    assert report.report_id == "00123"
    assert dict(report.carried) == {"MRN": "0042", "Age": "7.0"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_with_which_the_header_has_the_columns(tmp_path, delimiter):
    header = delimiter.join(["Accession Number", '"Exam, kind; of|it"', "Report Text"])
    row = delimiter.join(["A1", "CT", '"Mass; 3,2 cm | head\there"'])
    (report,) = read_csv(tmp_path, f"{header}\n{row}\n")
    assert (report.report_id, report.text) == ("A1", "Mass; 3,2 cm | head\there")
    assert dict(report.carried) == {"Exam, kind; of|it": "CT"}


def test_a_tsv_is_read(tmp_path):
    (report,) = read_csv(tmp_path, "report_id\ttext\nA1\tMass, 3 cm.\n", name="reports.TSV")
    assert report.text == "Mass, 3 cm."


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    (report,) = read_csv(tmp_path, b"\xef\xbb\xbfreport_id,text\nA1,Mass.\n")
    assert report.report_id == "A1"


def test_a_field_longer_than_the_csv_module_allows_is_read_and_its_limit_stays(tmp_path):
    before = csv.field_size_limit()
    text = "word " * 60_000
    (report,) = read_csv(tmp_path, f'report_id,text\nA1,"{text}"\n')
    assert report.text == text
    assert csv.field_size_limit() == before


def test_blank_lines_are_passed_over_and_an_empty_text_is_a_report(tmp_path):
    reports = read_csv(tmp_path, "\nreport_id,text\n\nA1,\n\nA2,Mass.\n\n")
    assert [(report.report_id, report.text) for report in reports] == [("A1", ""), ("A2", "Mass.")]


def test_an_index_column_without_a_name_is_carried(tmp_path):
    (report,) = read_csv(tmp_path, ",report_id,text\n0,A1,Mass.\n")
    assert dict(report.carried) == {"unnamed_1": "0"}


def test_a_column_may_be_chosen(tmp_path):
    content = "MRN,Befund,text\nM1,Raumforderung.,other\n"
    (report,) = read_csv(tmp_path, content, id_column="MRN", text_column="Befund")
    assert (report.report_id, report.text) == ("M1", "Raumforderung.")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        ("\ufeff", "the file is empty"),
        ("report_id,text\n", "a row with column names, but no reports behind it"),
        ("report_id,text,text\nA1,a,b\n", "more than one column named 'text'"),
        ("report_id,text\nA1,Mass.\nA2,Mass, 3 cm, ZEBRA\n", "row 2 (line 3): 4 fields, but 2 columns"),
        ('report_id,text\nA1,"Two\nlines."\nA2\n', "row 2 (line 4): 1 fields, but 2 columns"),
        ('report_id,text\nA1,"ZEBRA is open\nA2,Mass.\n', "row 1 (line 2): a quote that is never closed"),
        ('report_id,text\nA1,"The "ZEBRA" sign"\n', "row 1 (line 2): a quote inside a quoted field"),
        ("report_id,text\n,ZEBRA\nA2,x\n  ,y\n", "2 rows without an id in column 'report_id': row 1 (line 2), row 3"),
        ("report_id,text\nA1,ZEBRA\nA2,x\nA1,y\nA1,z\n", "1 id stands for more than one report (2 reports too many)"),
        ("MRN,Befund\nA1,ZEBRA\n", "the columns are: 'MRN', 'Befund'"),
        ("report_id,text\n" + "ZEBRA " * 50 + ",x\n", "row 1 (line 2): an id of 300 characters"),
    ],
)
def test_a_broken_table_is_refused_with_the_place_and_without_its_text(tmp_path, content, says):
    message = refusal(tmp_path, content)
    assert message.startswith(str(tmp_path / "reports.csv"))
    assert says in message
    assert "ZEBRA" not in message


def test_one_column_cannot_be_both(tmp_path):
    assert "cannot be both id and text" in refusal(tmp_path, "report_id,x\nA1,y\n", text_column="report_id")


def test_an_id_with_line_breaks_is_kept_and_cannot_forge_a_line_of_a_log(tmp_path):
    content = 'report_id,text\n"A1\n2026 ERROR \x1b[2J forged",x\n"A1\n2026 ERROR \x1b[2J forged",y\n'
    message = refusal(tmp_path, content)
    assert "\n" not in message
    assert "\x1b" not in message
    assert r"A1\n2026 ERROR \x1b[2J forged" in message
    (report,) = read_csv(tmp_path, content.rsplit('"A1', 1)[0])
    assert report.report_id == "A1\n2026 ERROR \x1b[2J forged"
    assert "\n" not in repr(report)


CELL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8), st.sampled_from(",;\t|"))
def test_whatever_the_csv_module_writes_is_read_back_unchanged(cells, delimiter):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(["report_id", "exam", "text"])
    writer.writerows([f"A{i}", *row] for i, row in enumerate(cells))
    rows = delimited_rows(buffer.getvalue().encode(), "x.csv", "utf-8").rows
    assert [(row.fields["exam"], row.fields["text"]) for row in rows] == cells
