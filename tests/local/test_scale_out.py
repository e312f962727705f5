"""Rows on any worker: the same rows as results.parquet, the engine opened once, nothing read twice."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_batch import PLAN, small_engine, small_reports
from small_workers import Watched, rows_of, table_of, timeless

from medorchestra.errors import ModelError, SettingsError, SourceError, UnvalidatedPlanError
from medorchestra.local import scale_out
from medorchestra.local.batch import as_batch, stage_to_files
from medorchestra.local.engine.protocol import ModelIdentity
from medorchestra.local.records import Report
from medorchestra.local.run_counts import ReportCounts, RunCounts
from medorchestra.local.scale_out import (
    COUNTS,
    TRACE,
    EngineChoice,
    RowStager,
    StagingJob,
    full_schema,
    require_same_model,
    stage_frames,
    stage_rows,
)
from medorchestra.local.shared_ledger import gather, worker_files

REPORTS = [*small_reports(8), Report("blank", "  ", {"ward": "W0", "age": 58})]
CANARY = "Zebrafinch"


@pytest.fixture
def watched(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    return Watched(folder)


@pytest.fixture
def expected(tmp_path):
    """What one machine makes of the reports."""
    stage_to_files(as_batch(REPORTS), PLAN, tmp_path / "one", model=small_engine(), unvalidated=True)
    return tmp_path / "one"


def test_a_batch_becomes_the_rows_of_results_parquet(watched, expected):
    with RowStager(watched.job(None)) as worker:
        found = worker.table(table_of(REPORTS))
    assert found.equals(pq.read_table(expected / "results.parquet"))


def test_traces_and_counts_beside_the_rows_are_those_of_the_other_result_files(watched, expected):
    job = watched.job(None)
    with RowStager(job) as worker:
        found = worker.table(table_of(REPORTS), full=True)
    assert found.schema == full_schema(job.schema(table_of(REPORTS).schema))
    lines = (expected / "results.jsonl").read_text("utf-8")
    assert timeless("\n".join(found.column(f"{TRACE}line").to_pylist())) == timeless(lines)
    counts = RunCounts(PLAN)
    names = ["status", "outcome", "review", *(f"{COUNTS}{name}" for name in ReportCounts.numbers())]
    for row in zip(*(found.column(name).to_pylist() for name in names), strict=True):
        counts.add(ReportCounts(*row))
    assert counts.facts()["counts"] == json.loads((expected / "run.json").read_text("utf-8"))["counts"]


def test_a_job_can_be_sent_to_a_worker(watched, tmp_path):
    for job in (watched.job(tmp_path / "ledger.sqlite"), StagingJob(PLAN, EngineChoice("/models/a.gguf", threads=2))):
        assert pickle.loads(pickle.dumps(job)) == job


def test_carried_columns_keep_type_and_value_and_get_out_of_the_way(watched):
    moments = pa.array([datetime(2026, 3, 1, tzinfo=UTC)], pa.timestamp("ns", "UTC"))
    batch = pa.table(
        {
            "id": ["A-1"],
            "seen": moments,
            "text": ["CT no. 1. The SMA is free."],
            "status": ["final"],
            "codes": [["C25", "K86"]],
            "none": pa.nulls(1),
        }
    )
    with RowStager(watched.job(None)) as worker:
        row = worker.table(batch)
    assert row.schema.names[:5] == ["report_id", "seen", "carried.status", "codes", "none"]
    assert row.column("seen").type == moments.type
    kept = row.select(["seen", "carried.status", "codes", "none"]).to_pylist()[0]
    assert kept["seen"] == datetime(2026, 3, 1, tzinfo=UTC)
    assert (kept["carried.status"], kept["codes"], kept["none"]) == ("final", '["C25", "K86"]', None)
    assert row.column("status").to_pylist() == ["decided"]


def test_an_empty_batch_gives_no_rows_of_the_same_schema(watched):
    job, batch = watched.job(None), table_of(REPORTS)
    with RowStager(job) as worker:
        found = worker.table(batch.slice(0, 0))
    assert (found.num_rows, found.schema) == (0, job.schema(batch.schema))


def test_blocks_of_one_column_in_several_types_come_out_in_one(watched):
    job, batch = watched.job(None), table_of(REPORTS[:2])
    wanted = job.schema(batch.schema)
    narrow = batch.set_column(batch.column_names.index("age"), "age", batch.column("age").cast(pa.int8()))
    with RowStager(job) as worker:
        assert worker.table(narrow, schema=wanted).schema == wanted
        text = batch.set_column(batch.column_names.index("age"), "age", pa.array([CANARY, CANARY]))
        with pytest.raises(SourceError, match="carried column 'age' is string here and int64 elsewhere") as raised:
            worker.table(text, schema=wanted)
    assert CANARY not in str(raised.value)


def test_a_row_that_is_no_report_is_named_without_its_text(watched):
    batch = pa.table({"report_id": ["A-1", None], "text": [f"CT no. 1. {CANARY}", f"CT no. 2. {CANARY}"]})
    with RowStager(watched.job(None)) as worker, pytest.raises(SourceError, match=r"1 row without an id.*row 2") as bad:
        worker.table(batch)
    assert CANARY not in str(bad.value)


def test_a_finished_report_is_read_by_no_worker_again(watched, tmp_path):
    job = watched.job(tmp_path / "ledger.sqlite")
    with RowStager(job) as first, RowStager(job) as second:
        rows = first.table(table_of(REPORTS[:5]))
        assert second.table(table_of(REPORTS[:5])).equals(rows)
        second.table(table_of(REPORTS[5:]))
    gather(job.ledger)
    with RowStager(job) as third:
        again = third.table(table_of(REPORTS), full=True)
    assert set(watched.times_asked().values()) == {1}
    assert again.column(f"{COUNTS}tokens").to_pylist() == [0] * len(REPORTS)


def test_a_worker_that_is_killed_loses_nothing_and_repeats_nothing_that_was_finished(tmp_path, watched):
    deadly = Watched(watched.notes, dies_at=5)
    program = f"""
from pathlib import Path
from small_batch import small_reports
from small_workers import Watched, table_of
from medorchestra.local.scale_out import RowStager
job = Watched(Path({str(watched.notes)!r}), dies_at=5).job({str(tmp_path / "ledger.sqlite")!r})
with RowStager(job) as worker:
    worker.table(table_of(small_reports(8)))
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent, check=False)
    assert ran.returncode == -9
    job = deadly.job(tmp_path / "ledger.sqlite")
    with RowStager(job) as heir:
        rows = heir.table(table_of(small_reports(8)), full=True)
    assert rows.column("report_id").to_pylist() == [one.report_id for one in small_reports(8)]
    times = deadly.times_asked()
    assert {number for number, count in times.items() if count == 1} == {0, 1, 2, 3, 4, 6, 7}
    assert times[5] == 2  # it was under way
    assert rows.column(f"{COUNTS}resumed_answers").to_pylist() == [3] * 5 + [0] * 3
    assert len(worker_files(job.ledger)) == 2


def test_rows_come_and_go_one_by_one(watched):
    taken = []

    def stream():
        for row in rows_of(REPORTS):
            taken.append(row["report_id"])
            yield row

    found = stage_rows(stream(), watched.job(None))
    assert next(found)["report_id"] == "case-0"
    assert taken == ["case-0"]
    assert [row["outcome"] for row in found][:2] == ["metastatic", "locally_advanced"]


def test_frames_are_staged_as_spark_does_it_with_one_engine_for_the_process(watched, expected, monkeypatch):
    made = []

    class Counting(Watched):
        def __call__(self, plan):
            made.append(1)
            return super().__call__(plan)

    monkeypatch.setattr(scale_out, "_OPEN", [])
    frame = table_of(REPORTS).to_pandas()
    job = Counting(watched.notes).job(None)
    parts = [*stage_frames(iter([frame[:4], frame[4:6]]), job), *stage_frames(iter([frame[6:]]), job)]
    assert len(made) == 1
    wanted = pq.read_table(expected / "results.parquet").to_pandas()
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), wanted)

    other = Counting(watched.notes).job(None, lazy=True)
    assert len(next(stage_frames([frame], other))) == len(frame)
    assert len(made) == 2
    scale_out._OPEN.pop().close()


def test_a_frame_with_mixed_values_is_refused_without_showing_them(watched):
    frame = pd.DataFrame({"report_id": ["a", "b"], "text": ["CT no. 1.", "CT no. 2."], "mixed": [CANARY, 7.5]})
    with RowStager(watched.job(None)) as worker, pytest.raises(SourceError, match="values of several types") as raised:
        worker.frame(frame)
    assert CANARY not in str(raised.value)


def test_a_plan_without_a_record_for_the_model_is_refused_and_the_engine_closed(watched):
    engines = []

    def maker(plan):
        engines.append(small_engine())
        return engines[0]

    with pytest.raises(UnvalidatedPlanError):
        RowStager(StagingJob(PLAN, maker))
    assert engines[0]._closed


def test_a_worker_with_another_model_under_the_same_name_is_refused():
    here = ModelIdentity("reader.gguf", "sha256:" + "1" * 64)
    require_same_model(here, ModelIdentity("copy.gguf", "sha256:" + "1" * 64, settings={"threads": 2}))
    with pytest.raises(ModelError, match=r"another file on this machine.*all machines the same files"):
        require_same_model(here, ModelIdentity("reader.gguf", "sha256:" + "2" * 64))
    with pytest.raises(ModelError, match="no adapter"):
        require_same_model(here, ModelIdentity("reader.gguf", here.digest, "a.gguf", "sha256:" + "3" * 64))


def test_an_adapter_for_a_model_server_is_refused_before_the_server_is_asked():
    with pytest.raises(SettingsError, match="load it there"):
        EngineChoice("http://127.0.0.1:9#reader", adapter="a.gguf")(PLAN)


def test_a_worker_s_threads_wait_without_spinning(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with pytest.raises(ModelError):
        EngineChoice("/nowhere/reader.gguf", adapter="none")(PLAN)
    assert scale_out.os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.delenv("OMP_WAIT_POLICY")
