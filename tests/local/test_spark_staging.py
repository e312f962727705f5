"""Spark's `mapInPandas` on a Spark of this machine, by the example's ten lines: the rows of one machine, none twice."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import traceback
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_batch import PLAN, small_engine, small_reports
from small_workers import Watched, table_of

from medorchestra.errors import MedorchestraError, SourceError
from medorchestra.local import scale_out
from medorchestra.local.batch import stage_to_files
from medorchestra.local.connectors import read_reports
from medorchestra.local.scale_out import RowStager, StagingJob, stage_frames
from medorchestra.plan_files import write_plan

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "stage_on_spark.py"
CANARY = "Zebrafinch"
REPORTS = 10
BEYOND_FLOATS = 2**53 + 1
"""A number that a float has no place for: whoever takes it for one makes it another record's number."""

LOGS = """
<Configuration>
<Appenders><File name="file" fileName="{file}"><PatternLayout pattern="%d %p %c %m%n%ex"/></File></Appenders>
<Loggers><Root level="info"><AppenderRef ref="file"/></Root></Loggers></Configuration>
"""


def on_spark(test):
    # Which pandas it supports is PySpark's to say; that what is used here works with the one installed, the tests show.
    old = "ignore:PySpark does not yet fully support pandas:FutureWarning"
    return pytest.mark.spark(pytest.mark.filterwarnings(old)(test))


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return tmp_path_factory.mktemp("logs") / "spark.log"


@pytest.fixture(scope="module")
def spark(tmp_path_factory, logs):
    """Spark in this process and its JVM: two tasks at a time, heard on this machine only, all it says in a file."""
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        pytest.fail("Spark needs Java 17 or newer; on Debian: apt-get install default-jre-headless")
    own, here = tmp_path_factory.mktemp("spark"), Path(__file__).parent
    said = own / "log4j2.xml"
    said.write_text(LOGS.format(file=logs), encoding="utf-8")
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "512m",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={said} -XX:TieredStopAtLevel=1",
        "spark.local.dir": str(own),
        "spark.sql.warehouse.dir": str(own / "warehouse"),
        "spark.sql.shuffle.partitions": "1",
        # Not this machine's, not UTC: what loses a time zone on its way is seen.
        "spark.sql.session.timeZone": "America/New_York",
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYSPARK_PYTHON", sys.executable)
        patched.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patched.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parent)]))  # for Spark's Python workers
        session = sql.SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
        yield session
        session.stop()


@pytest.fixture
def example(spark):
    spec = importlib.util.spec_from_file_location("stage_on_spark", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def watched(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    return Watched(folder)


def hospital_table():
    """Reports with the columns that a hospital's table has, gaps in all of them, one text null and one blank."""
    table = table_of(small_reports(REPORTS))
    texts = table.column("text").to_pylist()
    texts[3], texts[7] = None, "  "
    table = table.set_column(table.column_names.index("text"), "text", pa.array(texts))
    moment = datetime(2026, 3, 8, 6, 59, 59, 123456, tzinfo=UTC)  # a second before New York's clocks go forward
    columns = {
        "record": (BEYOND_FLOATS, pa.int64()),
        "beds": (3, pa.int32()),
        "signed": (moment, pa.timestamp("us", "UTC")),
        "printed": (datetime(2026, 3, 8, 2, 30), pa.timestamp("us")),
        "born": (date(1650, 1, 1), pa.date32()),
        "dose": (Decimal("12.50"), pa.decimal128(10, 2)),
        "weight": (71.5, pa.float64()),
        "urgent": (True, pa.bool_()),
        "status": ("final", pa.string()),
        "codes": (["C25", "K86"], pa.list_(pa.string())),
        "seen by": ({"name": "Dr. M", "role": None}, pa.struct([("name", pa.string()), ("role", pa.string())])),
        "nothing": (None, pa.string()),
    }
    for name, (value, kind) in columns.items():
        values = [None if number % 4 == 1 else value for number in range(REPORTS)]
        table = table.append_column(name, pa.array(values, kind))
    return table


def sorted_rows(path):
    rows = pq.read_table(path).to_pylist()
    for row in rows:  # Spark writes moments in a form of its own, which has no zone in the file
        for name, value in row.items():
            if isinstance(value, datetime):
                row[name] = pd.Timestamp(value).tz_localize(None).to_pydatetime()
    return sorted(rows, key=lambda row: row["report_id"])


@on_spark
def test_the_example_makes_the_rows_of_one_machine_and_reads_nothing_twice(
    spark, example, watched, tmp_path, monkeypatch, capsys
):
    table = hospital_table()
    (tmp_path / "reports").mkdir()
    pq.write_table(table.slice(0, 6), tmp_path / "reports" / "a.parquet")
    pq.write_table(table.slice(6), tmp_path / "reports" / "b.parquet")
    pq.write_table(table, tmp_path / "all.parquet")
    write_plan(PLAN, tmp_path / "plan.yaml")
    monkeypatch.setattr(example, "EngineChoice", lambda model, threads: watched)
    asked = [str(tmp_path / "reports"), "--out", str(tmp_path / "out"), "--plan", str(tmp_path / "plan.yaml")]
    example.main([*asked, "--unvalidated"])

    alone = tmp_path / "one"
    stage_to_files(read_reports(tmp_path / "all.parquet"), PLAN, alone, model=small_engine(), unvalidated=True)
    found, wanted = (
        sorted_rows(folder / name) for folder, name in ((tmp_path / "out", "results"), (alone, "results.parquet"))
    )
    assert [row["report_id"] for row in found] == sorted(f"case-{number}" for number in range(REPORTS))
    assert [list(row) for row in found] == [list(row) for row in wanted]
    assert found == wanted
    by_id = {row["report_id"]: row for row in found}
    assert {name for name, row in by_id.items() if row["status"] == "empty"} == {"case-3", "case-7"}
    assert by_id["case-2"]["record"] == BEYOND_FLOATS
    assert by_id["case-2"]["carried.status"] == "final"
    assert {row["outcome"] for row in found} == {"resectable", "locally_advanced", "metastatic", None}
    assert "empty" in capsys.readouterr().out

    kinds = dict(spark.read.parquet(f"file://{tmp_path}/out/results").dtypes)
    assert [kinds[name] for name in ("record", "signed", "printed", "born", "dose", "codes")] == [
        "bigint",
        "timestamp",
        "timestamp_ntz",
        "date",
        "decimal(10,2)",
        "string",
    ]

    times = watched.times_asked()
    assert times == dict.fromkeys({*range(REPORTS)} - {3, 7}, 1)
    example.main([*asked, "--unvalidated"])
    assert watched.times_asked() == times
    assert sorted_rows(tmp_path / "out" / "results") == wanted


@on_spark
def test_what_stops_spark_is_the_library_s_message_and_nothing_holds_report_text(
    spark, example, watched, tmp_path, logs
):
    from pyspark.errors import PythonException

    rows = [{"report_id": f"case-{n}", "text": f"CT no. {n}. {CANARY}. The SMA is free."} for n in range(3)]
    source, bad = tmp_path / "reports.parquet", tmp_path / "bad.parquet"
    pq.write_table(pa.Table.from_pylist(rows), source)
    pq.write_table(pa.Table.from_pylist([*rows, {"report_id": None, "text": CANARY}]), bad)
    unvalidated, broken = StagingJob(PLAN, watched), StagingJob(PLAN, failing)

    for job, path, message in [
        (unvalidated, source, "UnvalidatedPlanError: plan demo .* has no validation record for model scripted"),
        (watched.job(None), bad, "SourceError: a batch of reports: 1 row without an id .*: row 4"),
        (broken, source, r"MedorchestraError: a worker failed: ZeroDivisionError at .*message withheld"),
    ]:
        with pytest.raises(PythonException, match=message) as raised:
            example.stage_on_spark(spark, f"file://{path}", job, f"file://{tmp_path}/out")
        assert CANARY not in "".join(traceback.format_exception(raised.value))
        assert not list((tmp_path / "out").glob("*.parquet"))

    telling = example.stage_on_spark(
        spark, f"file://{source}", Telling(watched.notes).job(None), f"file://{tmp_path}/out"
    )
    found = [(row["report_id"], row["status"], row["outcome"]) for row in telling.collect()]
    assert sorted(found) == [(row["report_id"], "failed", None) for row in rows]
    assert CANARY not in str(telling.collect())

    with pytest.raises(SourceError, match="id"):
        example.stage_on_spark(spark, f"file://{source}", watched.job(None, id_column="MRN"), f"file://{tmp_path}/out")
    assert "UnvalidatedPlanError" in logs.read_text("utf-8")
    assert CANARY not in logs.read_text("utf-8")


def failing(plan):
    return 1 / 0


class Telling(Watched):
    """Its reader fails, with the report in the message."""

    def _note(self, asked):
        raise ValueError(asked.report)


def test_an_error_nobody_foresaw_reaches_spark_without_its_message(watched, monkeypatch):
    def fail(stager, frame):
        raise ValueError(CANARY)

    monkeypatch.setattr(scale_out, "_OPEN", [])
    monkeypatch.setattr(RowStager, "frame", fail)
    with pytest.raises(
        MedorchestraError, match=r"ValueError at test_spark_staging.py:\d+ \(message withheld"
    ) as raised:
        list(stage_frames([table_of(small_reports(1)).to_pandas()], watched.job(None)))
    assert CANARY not in "".join(traceback.format_exception(raised.value))
    scale_out._OPEN.pop().close()


def test_whole_numbers_that_a_frame_has_rounded_are_refused_and_those_it_has_kept_are_staged(watched):
    frame = table_of(small_reports(3)).to_pandas()
    with RowStager(watched.job(None)) as worker:
        frame["record"] = pd.array([BEYOND_FLOATS, None, 7], "Int64")
        assert worker.frame(frame)["record"].tolist() == [BEYOND_FLOATS, None, 7]
        for values in ([1.5, None, 1e300], [1.0, None, float("inf")], [float(2**52), None, 1.0], [2.0**60] * 3):
            frame["record"] = values
            assert worker.frame(frame)["record"].isna().sum() == values.count(None)
        frame["record"] = [float(BEYOND_FLOATS), None, 7.0]
        with pytest.raises(SourceError, match=r"'record' holds whole numbers of 2\^53 and more beside missing"):
            worker.frame(frame)
