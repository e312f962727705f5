"""Paths: which kind of source, and what is wrong with those that are none."""

from __future__ import annotations

import hashlib
import os

import pytest

from medorchestra.errors import SourceError
from medorchestra.local.connectors import read_reports

CSV = b"report_id,text\nA1,Mass.\n"


def test_the_digest_is_that_of_the_file(tmp_path):
    path = tmp_path / "reports.csv"
    path.write_bytes(CSV)
    batch = read_reports(str(path))
    assert batch.digest == "sha256:" + hashlib.sha256(CSV).hexdigest()
    assert batch.source == str(path)
    assert batch.notes == ()


def test_the_same_reports_are_read_from_every_kind_of_table(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "a.tsv").write_bytes(CSV.replace(b",", b"\t"))
    (tmp_path / "a.jsonl").write_bytes(b'{"report_id": "A1", "text": "Mass."}\n')
    pq.write_table(pa.table({"report_id": ["A1"], "text": ["Mass."]}), tmp_path / "a.parquet")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "A1.txt").write_bytes(b"Mass.")
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet", "a"):
        assert [(one.report_id, one.text) for one in read_reports(tmp_path / name).reports] == [("A1", "Mass.")], name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("reports.xlsx", "files of type '.xlsx' are not read; give CSV (.csv)"),
        ("report.txt", "files of type '.txt' are not read"),
        ("reports.csv.gz", "files of type '.gz' are not read"),
        ("reports", "files without a suffix are not read"),
    ],
)
def test_other_kinds_of_files_are_refused_with_the_kinds_that_are_read(tmp_path, name, says):
    (tmp_path / name).write_bytes(CSV)
    with pytest.raises(SourceError) as caught:
        read_reports(tmp_path / name)
    assert says in str(caught.value)
    assert "a folder of .txt files" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"missing\.csv: no such file or folder"):
        read_reports(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    "report",
    ["ZEBRA in the pancreatic head that encases the SMA by 200 degrees, liver clear.", "ZEBRA\nSMA free", "Z" * 900],
)
def test_a_report_given_instead_of_a_path_is_not_repeated(report):
    with pytest.raises(SourceError) as caught:
        read_reports(report)
    assert "ZEBRA" not in str(caught.value)
    assert f"a text of {len(report)} characters is no path" in str(caught.value)


def test_a_pipe_is_no_source(tmp_path):
    os.mkfifo(tmp_path / "reports.csv")
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        read_reports(tmp_path / "reports.csv")
