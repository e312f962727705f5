"""Parquet files and data frames: values keep the types they have."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medorchestra.errors import SourceError
from medorchestra.local.connectors import batch_of, read_reports


def parquet(tmp_path, table):
    path = tmp_path / "reports.parquet"
    pq.write_table(table, path)
    return path


def test_ids_texts_and_carried_types_come_through(tmp_path):
    carried = {
        "age": pa.array([61, None], pa.int16()),
        "day": pa.array([date(2026, 1, 2), None]),
        "dose": pa.array([Decimal("1.50"), None]),
        "seen": pa.array([datetime(2026, 1, 2, 3, 4, tzinfo=UTC), None], pa.timestamp("ns", "UTC")),
        "exam": pa.array(["CT", "CT"]).dictionary_encode(),
        "tags": pa.array([["a"], []]),
    }
    table = pa.table({"report_id": ["001", "002"], "text": pa.array(["Mass.\r\n", None], pa.large_string())} | carried)
    first, second = read_reports(parquet(tmp_path, table)).reports
    assert (first.report_id, first.text, second.text) == ("001", "Mass.\r\n", "")
    assert dict(first.carried) == {
        "age": 61,
        "day": date(2026, 1, 2),
        "dose": Decimal("1.50"),
        "seen": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "exam": "CT",
        "tags": ["a"],
    }
    assert second.carried["age"] is None


def test_ids_of_a_number_column_become_text(tmp_path):
    path = parquet(tmp_path, pa.table({"Accession Number": [7, 8], "Report Text": ["x", "y"]}))
    assert [report.report_id for report in read_reports(path).reports] == ["7", "8"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pa.table({"report_id": ["1"], "text": [b"ZEBRA"]}), "row 1: a value of type bytes in column 'text'"),
        (pa.table({"report_id": [1.0], "text": ["ZEBRA"]}), "row 1: an id of type float"),
        (pa.table({"report_id": [None, "2"], "text": ["ZEBRA", "y"]}), "1 row without an id"),
        (pa.table({"report_id": ["1", "1"], "text": ["ZEBRA", "y"]}), "1 id stands for more than one report"),
        (pa.table({"report_id": pa.array([], pa.string()), "text": pa.array([], pa.string())}), "no reports in it"),
        (pa.table({"MRN": ["1"], "text": ["ZEBRA"]}), "the columns are: 'MRN', 'text'"),
        (pa.table([["1"], ["ZEBRA"], ["y"]], names=["report_id", "text", "text"]), "more than one column named 'text'"),
    ],
)
def test_a_table_that_is_no_batch_is_refused_without_its_text(tmp_path, table, says):
    with pytest.raises(SourceError) as caught:
        read_reports(parquet(tmp_path, table))
    assert says in str(caught.value)
    assert "ZEBRA" not in str(caught.value)
    with pytest.raises(SourceError) as in_memory:
        batch_of(table)
    assert says in str(in_memory.value)


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-20], lambda whole: b"report_id,text\nA1,ZEBRA\n", lambda _: b"\1"]
)
def test_a_damaged_parquet_file_is_refused(tmp_path, damage):
    path = parquet(tmp_path, pa.table({"report_id": ["1"], "text": ["ZEBRA"]}))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=r"reports\.parquet: cannot be read as Parquet") as caught:
        read_reports(path)
    assert caught.value.__context__ is None


def test_a_data_frame_keeps_types_and_missing_values_are_none():
    frame = pd.DataFrame(
        {
            "report_id": ["001", "002"],
            "text": ["Mass.", None],
            "age": [61, None],
            "grade": pd.array([2, None], "Int64"),
            "seen": pd.to_datetime(["2026-01-02", None]),
        }
    )
    first, second = batch_of(frame).reports
    assert (first.report_id, first.text, second.text) == ("001", "Mass.", "")
    assert dict(first.carried) == {"age": 61.0, "grade": 2, "seen": datetime(2026, 1, 2)}
    assert dict(second.carried) == {"age": None, "grade": None, "seen": None}


def test_the_index_of_a_data_frame_may_hold_the_ids():
    frame = pd.DataFrame({"text": ["x"]}, index=pd.Index([41], name="report_id"))
    assert batch_of(frame).reports[0].report_id == "41"


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (pd.DataFrame({0: ["1"], 1: ["ZEBRA"]}), "names of all columns must be text"),
        (pd.DataFrame([["1", "ZEBRA", "y"]], columns=["report_id", "text", "text"]), "more than one column"),
        (pd.DataFrame({"report_id": [None], "text": ["ZEBRA"]}), "1 row without an id"),
        (pd.DataFrame({"report_id": [1.0, None], "text": ["ZEBRA", "y"]}), "row 1: an id of type float"),
        (pd.DataFrame(), "no column with the report ids"),
    ],
)
def test_a_data_frame_that_is_no_batch_is_refused_without_its_text(frame, says):
    with pytest.raises(SourceError) as caught:
        batch_of(frame)
    assert says in str(caught.value)
    assert "ZEBRA" not in str(caught.value)


def test_anything_that_hands_itself_over_as_an_arrow_table_is_one():
    batch = pa.RecordBatch.from_pydict({"report_id": ["1"], "text": ["Mass."]})
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch])
    assert batch_of(reader).reports[0].text == "Mass."


def test_an_arrow_array_is_no_table():
    with pytest.raises(SourceError, match="pandas data frame or an Arrow table"):
        batch_of(pa.chunked_array([["ZEBRA"]]))
