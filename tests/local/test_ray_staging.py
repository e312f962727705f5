"""Ray Data on a real Ray on this machine: the files of one machine, a killed worker, errors and logs without text."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from small_batch import PLAN, small_engine, small_reports
from small_workers import Watched, table_of, timeless
from typer.testing import CliRunner

from medorchestra.cli import app
from medorchestra.errors import (
    MedorchestraError,
    ModelError,
    ServerFailedError,
    SettingsError,
    SourceError,
    StorageError,
    UnvalidatedPlanError,
)
from medorchestra.local.batch import as_batch, stage_to_files
from medorchestra.local.connectors import read_reports
from medorchestra.local.ray_cluster import ActorPool, connected, ray_module
from medorchestra.local.ray_source import read_dataset
from medorchestra.local.ray_staging import RETRIES, RayRun, Tries, stage_dataset
from medorchestra.local.shared_ledger import worker_files

# Ray's own imports warn of what others have deprecated; that is not ours to mend.
on_ray = [pytest.mark.ray, pytest.mark.filterwarnings("default")]
POOL = ActorPool(actors=2, reports_at_a_time=3)
CANARY = "Zebrafinch"


def marked(test):
    for mark in on_ray:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def ray_here():
    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parent)]))  # for Ray's processes
        with connected("local", POOL):
            yield ray_module()


@pytest.fixture
def watched(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    return Watched(folder)


def dataset(ray, reports, blocks=2):
    table = table_of(reports)
    size = -(-table.num_rows // blocks)
    return ray.data.from_arrow([table.slice(start, size) for start in range(0, table.num_rows, size)])


@marked
def test_a_killed_worker_loses_nothing_and_the_files_are_those_of_one_machine(ray_here, tmp_path, watched):
    reports = small_reports(24)
    deadly = Watched(watched.notes, dies_at=10)
    seen = []
    run = RayRun(deadly.job(None), tmp_path / "many", POOL)
    summary = run.stage(dataset(ray_here, reports), progress=lambda count, tokens: seen.append(count))
    one = stage_to_files(as_batch(reports), PLAN, tmp_path / "one", model=small_engine(), unvalidated=True)

    assert (watched.notes / "died").exists()
    times = deadly.times_asked()
    assert set(times) == set(range(24))
    assert {number for number, count in times.items() if count > 1} <= {10}  # the one that was under way
    assert (summary.reports, summary.outcomes, summary.statuses) == (24, one.outcomes, one.statuses)
    assert sum(seen) == 24
    many, single = tmp_path / "many", tmp_path / "one"
    assert pq.read_table(many / "results.parquet").equals(pq.read_table(single / "results.parquet"))
    assert (many / "results.csv").read_text("utf-8") == (single / "results.csv").read_text("utf-8")
    lines = [(folder / "results.jsonl").read_text("utf-8") for folder in (many, single)]
    assert timeless(lines[0]) == timeless(lines[1])
    assert worker_files(many / "ledger.sqlite") == []
    assert not list(many.glob("ledger.sqlite.workers/*"))

    again = run.stage(dataset(ray_here, reports))
    assert again.run["counts"]["answers_from_ledger"] == 72
    assert again.run["counts"]["tokens_computed"] == 0
    assert deadly.times_asked() == times


@marked
def test_errors_of_workers_come_back_as_they_are_and_ray_s_logs_hold_no_report_text(ray_here, tmp_path, watched):
    reports = small_reports(4)
    with pytest.raises(UnvalidatedPlanError):
        stage_dataset(dataset(ray_here, reports), PLAN, out=tmp_path / "a", model=watched, actors=1)
    with pytest.raises(SettingsError, match="9 workers of 1 threads need 10 processors"):
        stage_dataset(dataset(ray_here, reports), PLAN, out=tmp_path / "b", model=watched, actors=9, unvalidated=True)

    marked_table = table_of(reports).to_pylist()
    for row in marked_table:
        row["text"] += f" {CANARY}"
    marked_table[2]["report_id"] = None
    with pytest.raises(SourceError, match="1 row without an id"):
        stage_dataset(
            ray_here.data.from_items(marked_table), PLAN, out=tmp_path / "c", model=watched, actors=1, unvalidated=True
        )
    assert not (tmp_path / "c" / "results.parquet").exists()

    with pytest.raises(MedorchestraError, match=r"a worker failed: ZeroDivisionError at .*message withheld"):
        stage_dataset(dataset(ray_here, reports), PLAN, out=tmp_path / "d", model=broken, actors=1, unvalidated=True)
    logs = Path(ray_here._private.worker._global_node.get_logs_dir_path())
    held = [path for path in logs.rglob("*") if path.is_file() and CANARY in path.read_text("utf-8", "replace")]
    assert held == []
    assert next(logs.rglob("*.log"))
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert (logs.parents[2].stat().st_mode & 0o077) == 0


@marked
def test_a_worker_whose_model_server_is_gone_ends_the_run_with_what_to_do(ray_here, tmp_path):
    with pytest.raises(ModelError, match=r"failed for 5 reports in a row.*not reachable.*the same command goes on"):
        stage_dataset(
            dataset(ray_here, small_reports(12)), PLAN, out=tmp_path / "out", model=gone, actors=1, unvalidated=True
        )
    assert not (tmp_path / "out" / "results.parquet").exists()


def gone(plan):
    return small_engine(_no_reply)


def _no_reply(asked):
    raise ServerFailedError("model server http://10.0.0.7:8080: not reachable")


def test_reports_that_end_every_worker_stop_the_run_and_are_named(tmp_path):
    tries = Tries(tmp_path)
    died = [tries.of(["case-7", "case-8"]) for _ in range(1 + RETRIES)]
    for one in died:
        one.__enter__()  # and never left
    with (
        pytest.raises(StorageError, match=r"6 workers died .* 2 reports: 'case-7', 'case-8'"),
        tries.of(["case-7", "case-8"]),
    ):
        raise AssertionError
    with tries.of(["case-9"]):
        pass
    with pytest.raises(SourceError), tries.of(["case-9"]):
        raise SourceError
    assert len(list(tmp_path.iterdir())) == 1


def broken(plan):
    return 1 / 0


@marked
def test_parquet_is_streamed_and_other_files_are_handed_over_with_the_facts_of_the_input(ray_here, tmp_path, watched):
    reports = small_reports(7)
    pq.write_table(table_of(reports), tmp_path / "reports.parquet", row_group_size=2)
    csv.write_csv(table_of(reports), tmp_path / "reports.csv")
    found = []
    for name in ("reports.parquet", "reports.csv"):
        job = watched.job(None)
        rows, facts = read_dataset(tmp_path / name, job.options)
        summary = RayRun(job, tmp_path / f"of {name}", POOL, facts).stage(rows)
        batch = read_reports(tmp_path / name)
        assert summary.run["input"] == {"name": batch.source, "digest": batch.digest, "reports": 7, "notes": []}
        found.append(pq.read_table(tmp_path / f"of {name}" / "results.parquet"))
    typed = found[0].schema.get_field_index("age")
    assert found[1].set_column(typed, "age", found[1].column("age").cast("int64")).equals(found[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray", "local", "--show"], "--show with --ray"),
        (["--actors", "2"], "--actors goes with --ray"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_read(tmp_path, options, message):
    asked = CliRunner().invoke(app, ["stage", str(tmp_path / "none.csv"), "--out", str(tmp_path / "out"), *options])
    assert message in str(asked.exception)
    assert not (tmp_path / "out").exists()


def test_a_pool_takes_what_the_cluster_has_and_says_where_that_is_not_enough():
    assert ActorPool().most(16) == 15
    assert ActorPool(threads=4).most(16) == 3
    assert ActorPool(actors=3, threads=4).most(16) == 3
    assert ActorPool(actors=2, threads=2).processors == 5
    with pytest.raises(SettingsError, match=r"4 workers of 4 threads need 17 processors.*has 16"):
        ActorPool(actors=4, threads=4).most(16)
    with pytest.raises(SettingsError, match="1 workers of 2 threads need 3"):
        ActorPool(threads=2).most(2)
    for wrong in ({"actors": 0}, {"threads": 0}, {"reports_at_a_time": 0}, {"gpus": -1.0}):
        with pytest.raises(SettingsError):
            ActorPool(**wrong)
