"""Result files: whole or not there, whatever happens while they are written."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_batch import PLAN, small_engine, small_reports

from medorchestra.errors import StorageError
from medorchestra.local import results_files
from medorchestra.local.records import Report
from medorchestra.local.results_files import ResultsWriter, write_run
from medorchestra.local.staging import Stager

REPORTS = [*small_reports(5), Report("blank", "")]
STAGER = Stager(PLAN, small_engine())
STAGED = [STAGER.stage_one(report) for report in REPORTS]
FILES = ["results.csv", "results.jsonl", "results.parquet"]


def write(folder, staged=STAGED):
    with ResultsWriter(folder, PLAN, REPORTS, STAGER.digests) as writer:
        for one in staged:
            writer.add(one)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def largest_file(size):
    """Let no file of this process grow beyond a size: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_three_files_hold_the_same_rows(tmp_path):
    write(tmp_path / "new" / "out")
    folder = tmp_path / "new" / "out"
    assert names(folder) == FILES
    table = pq.read_table(folder / "results.parquet")
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    traces = [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]
    assert list(rows[0]) == table.column_names
    assert [row["report_id"] for row in rows] == table.column("report_id").to_pylist()
    assert [trace["report_id"] for trace in traces] == [report.report_id for report in REPORTS]
    outcomes = table.column("outcome").to_pylist()
    assert outcomes == ["resectable", "metastatic", "locally_advanced", "metastatic", None, None]
    assert [row["outcome"] or None for row in rows] == outcomes
    assert [float(row["probability"] or -1) for row in rows] == [
        p or -1 for p in table.column("probability").to_pylist()
    ]
    assert table.schema.field("age").type == "int64"


def test_a_batch_longer_than_a_row_group_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(results_files, "ROWS_A_GROUP", 2)
    write(tmp_path)
    file = pq.ParquetFile(tmp_path / "results.parquet")
    assert file.num_row_groups == 3
    assert file.read().column("report_id").to_pylist() == [report.report_id for report in REPORTS]
    file.close()


def test_line_breaks_umlauts_and_characters_that_are_no_unicode_survive(tmp_path):
    text = 'Größe 2.1 cm.\r\nThe SMA is free. The "liver" \ud800 is normal.'
    report = Report("röntgen\n7", text, {"odd": "a\ud800", "list": [1, "ü"]})
    with ResultsWriter(tmp_path, PLAN, [report], STAGER.digests) as writer:
        writer.add(STAGER.stage_one(report))
    (trace,) = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text("utf-8").split("\n") if line]
    assert trace["carried"] == {"odd": "a\ud800", "list": [1, "ü"]}
    quotes = [quote for answer in trace["answers"] for quote in answer["quotes"]]
    assert any("\ud800" in quote["text"] for quote in quotes)
    assert all(text[quote["start"] : quote["end"]] == quote["text"] for quote in quotes)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["report_id"], row["odd"]) == ("röntgen\n7", "a\\ud800")
    (row,) = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert (row["report_id"], row["odd"]) == ("röntgen\n7", "a\\ud800")


def test_a_batch_that_breaks_off_leaves_no_new_file_and_keeps_the_old_ones(tmp_path):
    write(tmp_path, STAGED[:1])
    write_run(tmp_path, {"reports": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken_off():
        yield STAGED[0]
        raise LookupError("something else")

    with pytest.raises(LookupError):
        write(tmp_path, broken_off())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_run_json_never_stands_beside_results_it_does_not_describe(tmp_path):
    write(tmp_path, STAGED[:1])
    write_run(tmp_path, {"reports": 1})
    write(tmp_path)
    assert names(tmp_path) == FILES
    write_run(tmp_path, {"reports": 6, "plan": "Größe"})
    assert json.loads((tmp_path / "run.json").read_text("utf-8")) == {"reports": 6, "plan": "Größe"}


# ----------------------------------------------------------------- bad machines


def disk_full(folder):
    return rf"{folder}: results cannot be written: .*File too large\. Make room.*finished answers stay in the ledger"


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path):
    write(tmp_path, STAGED[:1])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with largest_file(20_000), pytest.raises(StorageError, match=disk_full(tmp_path)):
        write(tmp_path, STAGED * 100)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_disk_that_becomes_full_with_the_last_byte_leaves_no_half_file(tmp_path):
    """So little is written that it all waits in buffers until the files are closed."""
    writer = ResultsWriter(tmp_path, PLAN, REPORTS, STAGER.digests)
    writer.add(STAGED[0])
    with largest_file(100), pytest.raises(StorageError, match=disk_full(tmp_path)):
        writer.__exit__(None)
    assert names(tmp_path) == []


def test_a_disk_that_is_full_from_the_start_leaves_no_file(tmp_path):
    with largest_file(0), pytest.raises(StorageError, match=disk_full(tmp_path)):
        write(tmp_path)
    assert names(tmp_path) == []


def test_a_full_disk_keeps_the_old_run_json_whole(tmp_path):
    write_run(tmp_path, {"reports": 1})
    with largest_file(10), pytest.raises(StorageError, match=disk_full(tmp_path)):
        write_run(tmp_path, {"reports": 2, "note": "longer than ten bytes"})
    assert names(tmp_path) == ["run.json"]
    assert json.loads((tmp_path / "run.json").read_text("utf-8")) == {"reports": 1}


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(StorageError, match=r"/out: results cannot be written: File exists\. Make room, or a folder"):
        write(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "in the way"


def test_a_folder_that_even_root_cannot_write_is_named():
    with pytest.raises(StorageError, match="/proc/self/medorchestra: results cannot be written"):
        write(Path("/proc/self/medorchestra"))


def test_a_second_run_into_the_same_folder_is_kept_out_until_the_first_has_ended(tmp_path):
    with ResultsWriter(tmp_path, PLAN, REPORTS, STAGER.digests) as writer:
        with pytest.raises(StorageError, match="another run is writing its results here"):
            write(tmp_path)
        for one in STAGED:
            writer.add(one)
    assert pq.read_table(tmp_path / "results.parquet").num_rows == 6
    write(tmp_path, STAGED[:1])
    assert pq.read_table(tmp_path / "results.parquet").num_rows == 1


CHILD = """
import os, signal, sys
from pathlib import Path
from medorchestra.local.results_files import ResultsWriter
from medorchestra.local.staging import Stager
from small_batch import PLAN, small_engine, small_reports

reports = small_reports(40)
stager = Stager(PLAN, small_engine())
with ResultsWriter(Path(sys.argv[1]), PLAN, reports, stager.digests) as writer:
    for number, report in enumerate(reports):
        writer.add(stager.stage_one(report))
        if number == 30:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_leaves_no_result_file_and_the_next_run_clears_up(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    killed = subprocess.run(command, check=False, timeout=60, env=environment, capture_output=True, text=True)
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, "")
    left = names(tmp_path)
    assert left, "otherwise this shows nothing"
    assert not set(left) & set(FILES)
    assert all(name.startswith(".") for name in left)
    write(tmp_path)
    assert names(tmp_path) == FILES
