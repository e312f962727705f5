"""Parquet files for Ray: ids looked over before anything is read, with the messages of `read_reports`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_batch import small_reports
from small_workers import table_of

from medorchestra.errors import SourceError
from medorchestra.local import ray_source
from medorchestra.local.batch import as_batch
from medorchestra.local.connectors import read_reports
from medorchestra.local.ray_source import look_over, reports_table
from medorchestra.local.scale_out import RowOptions

PLAIN = RowOptions()


def written(path, table):
    pq.write_table(table, path, row_group_size=3)
    return path


def test_a_file_that_is_in_order_is_described_as_read_reports_describes_it(tmp_path):
    path = written(tmp_path / "reports.parquet", table_of(small_reports(10)))
    batch = read_reports(path)
    assert look_over(path, PLAIN) == {"name": str(path), "digest": batch.digest, "reports": 10, "notes": []}


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["A-1", "A-2", "A-1", "A-3", "A-2"], r"2 ids stand for more than one report: 'A-1', 'A-2'"),
        (["A-1", None, " "], r"2 rows without an id in column 'report_id': row 2, row 3"),
        ([1.5, 2.5], r"row 1: an id of type float"),
        ([], "no reports in it"),
    ],
)
def test_ids_that_are_none_or_stand_twice_are_refused_before_any_report_is_read(tmp_path, ids, message):
    table = pa.table({"report_id": ids, "text": pa.array(["Mass."] * len(ids), pa.string())})
    path = written(tmp_path / "reports.parquet", table)
    with pytest.raises(SourceError, match=message):
        look_over(path, PLAIN)
    with pytest.raises(SourceError):
        read_reports(path)


def test_two_ids_that_only_look_alike_to_the_short_marks_are_no_repeat(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_source, "_mark", lambda report_id: 7)
    path = written(tmp_path / "reports.parquet", table_of(small_reports(4)))
    assert look_over(path, PLAIN)["reports"] == 4


def test_columns_are_found_or_asked_for_by_name(tmp_path):
    table = table_of(small_reports(2)).rename_columns(["key", "body", "ward", "age"])
    path = written(tmp_path / "reports.parquet", table)
    with pytest.raises(SourceError, match="no column with the report ids"):
        look_over(path, PLAIN)
    assert look_over(path, RowOptions(id_column="key", text_column="body"))["reports"] == 2


def test_what_is_no_parquet_file_is_refused_in_plain_words(tmp_path):
    path = tmp_path / "reports.parquet"
    path.write_text("id,text\n")
    with pytest.raises(SourceError, match="cannot be read as Parquet"):
        look_over(path, PLAIN)


def test_reports_in_memory_become_a_table_that_leads_back_to_them():
    reports = small_reports(5)
    table = reports_table(as_batch(reports), PLAIN)
    assert table.equals(table_of(reports))
    named = reports_table(as_batch(reports), RowOptions(id_column="key", text_column="body"))
    assert named.column_names[:2] == ["key", "body"]
