"""Whole batches: in a notebook, into files, killed and resumed, with changed prompts, on a full disk."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_batch import PLAN, calibrated_plan, small_engine, small_reports, with_prompt

from medorchestra.errors import ModelError, PlanError, SourceError, StorageError, UnvalidatedPlanError
from medorchestra.local.batch import as_batch, stage, stage_to_files
from medorchestra.local.connectors import batch_of
from medorchestra.local.ledger import Ledger
from medorchestra.local.staged_report import ReportStatus
from medorchestra.local.staging import Stager
from medorchestra.plan_files import read_plan, write_plan

REPORTS = small_reports(12)
BATCH = batch_of(REPORTS)


def questions_to(asked_before):
    return lambda asked: asked_before.append(asked.question)


def traces(folder):
    """results.jsonl without what differs between two runs: times, tokens and where an answer came from."""
    lines = (folder / "results.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    for trace in found:
        for name in ("seconds", "tokens", "resumed_answers"):
            del trace[name]
        for answer in trace["answers"]:
            del answer["seconds"]
    return found


def same_results(one, other):
    assert traces(one) == traces(other)
    assert (one / "results.csv").read_bytes() == (other / "results.csv").read_bytes()
    assert pq.read_table(one / "results.parquet").equals(pq.read_table(other / "results.parquet"))


# ---------------------------------------------------------------- in a notebook


@pytest.mark.parametrize(
    "reports",
    [
        REPORTS,
        BATCH,
        {report.report_id: report.text for report in REPORTS},
        [{"report_id": report.report_id, "text": report.text} for report in REPORTS],
    ],
    ids=["reports", "batch", "mapping", "rows"],
)
def test_a_batch_is_whatever_a_notebook_has_at_hand(reports):
    results = stage(reports, PLAN, model=small_engine(), unvalidated=True)
    assert [one.report_id for one in results] == [report.report_id for report in REPORTS]
    assert results.counts() == {
        "resectable": 2, "locally_advanced": 2, "metastatic": 6, "open": 2, "empty": 0, "failed": 0,
    }  # fmt: skip
    assert results.digests["plan"] == PLAN.digest


def test_a_batch_can_be_a_file_and_a_plan_a_path(tmp_path):
    write_plan(PLAN, tmp_path / "plan.yaml")
    (tmp_path / "reports.csv").write_text(f"report_id,text,ward\n1,{REPORTS[1].text.replace(',', ';')},W7\n", "utf-8")
    (one,) = stage(tmp_path / "reports.csv", tmp_path / "plan.yaml", model=small_engine(), unvalidated=True)
    assert (one.report_id, one.decision.outcome, dict(one.report.carried)) == ("1", "metastatic", {"ward": "W7"})


def test_what_is_no_batch_no_plan_or_no_model_is_refused_before_a_report_is_read(tmp_path):
    asked = []
    engine = small_engine(questions_to(asked))
    with pytest.raises(SourceError):
        stage(42, PLAN, model=engine, unvalidated=True)
    with pytest.raises(SourceError):
        stage(tmp_path / "missing.csv", PLAN, model=engine, unvalidated=True)
    with pytest.raises(PlanError):
        stage(REPORTS, tmp_path / "missing.yaml", model=engine, unvalidated=True)
    with pytest.raises(ModelError):
        stage(REPORTS, PLAN, model=tmp_path / "missing.gguf", unvalidated=True)
    assert asked == []


def test_a_notebook_resumes_with_a_ledger(tmp_path):
    asked = []
    first = stage(
        REPORTS[:5],
        PLAN,
        model=small_engine(questions_to(asked)),
        ledger=tmp_path / "a" / "ledger.sqlite",
        unvalidated=True,
    )
    assert len(asked) == 15
    second = stage(
        REPORTS,
        PLAN,
        model=small_engine(questions_to(asked)),
        ledger=tmp_path / "a" / "ledger.sqlite",
        unvalidated=True,
    )
    assert len(asked) == 36
    assert [one.decision for one in second[:5]] == [one.decision for one in first]


def test_progress_is_called_after_every_report_in_order(tmp_path):
    seen = []
    stage(REPORTS, PLAN, model=small_engine(), progress=seen.append, unvalidated=True)
    stage_to_files(BATCH, PLAN, tmp_path, model=small_engine(), progress=seen.append, unvalidated=True)
    assert [one.report_id for one in seen] == [report.report_id for report in REPORTS] * 2


def test_an_engine_that_was_given_stays_open():
    engine = small_engine()
    stage(REPORTS[:1], PLAN, model=engine, unvalidated=True)
    assert stage(REPORTS[1:2], PLAN, model=engine, unvalidated=True)[0].status is ReportStatus.DECIDED


def test_a_batch_passes_through_unchanged():
    assert as_batch(BATCH) is BATCH


# ------------------------------------------------------------------- into files


def test_the_files_of_a_run_are_there_and_say_the_same(tmp_path):
    summary = stage_to_files(BATCH, PLAN, tmp_path / "new" / "out", model=small_engine(), unvalidated=True)
    names = sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    assert names == ["ledger.sqlite", "results.csv", "results.jsonl", "results.parquet", "run.json"]
    assert (summary.reports, summary.failed_reports, summary.failed_answers) == (12, 0, 0)
    assert summary.statuses == {"decided": 10, "open": 2, "empty": 0, "failed": 0}
    assert summary.outcomes == {"resectable": 2, "locally_advanced": 2, "metastatic": 6}
    table = pq.read_table(tmp_path / "new" / "out" / "results.parquet").to_pylist()
    staged = stage(REPORTS, PLAN, model=small_engine(), unvalidated=True)
    assert table == staged.to_arrow().to_pylist()
    assert summary.review == sum(row["review"] for row in table) == len(staged.for_review())


def test_a_lazy_run_decides_the_same_and_counts_what_it_skipped(tmp_path):
    full = stage_to_files(BATCH, PLAN, tmp_path / "full", model=small_engine(), unvalidated=True)
    lazy = stage_to_files(BATCH, PLAN, tmp_path / "lazy", model=small_engine(), unvalidated=True, lazy=True)
    assert (lazy.outcomes, lazy.statuses, lazy.review) == (full.outcomes, full.statuses, full.review)
    assert lazy.failed_answers == full.run["counts"]["skipped_answers"] == 0
    table = pq.read_table(tmp_path / "lazy" / "results.parquet").to_pylist()
    assert lazy.run["counts"]["skipped_answers"] == sum(len(row["skipped"].split("|")) for row in table) >= 12
    assert lazy.run["counts"]["tokens_computed"] < full.run["counts"]["tokens_computed"]
    assert full.run["lazy"] is None
    assert lazy.run["lazy"]["expected_cost"] < lazy.run["lazy"]["cost_of_all"]
    assert lazy.run["settings_digest"] == full.run["settings_digest"]
    staged = stage(REPORTS, PLAN, model=small_engine(), unvalidated=True, lazy=True)
    assert table == staged.to_arrow().to_pylist()


def test_run_json_says_what_was_run_on_what_and_what_came_of_it(tmp_path):
    reports = [*REPORTS, small_reports(1)[0].__class__("blank", " ")]
    batch = batch_of(reports)
    engine = small_engine(context_tokens=512)
    summary = stage_to_files(batch, PLAN, tmp_path, model=engine, unvalidated=True)
    run = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert run == json.loads(json.dumps(summary.run))
    assert run["input"] == {"name": "in memory", "digest": batch.digest, "reports": 13, "notes": []}
    assert run["plan"]["digest"] == PLAN.digest
    assert run["plan"]["guideline"] == {
        "title": "A short guideline", "edition": "first", "digest": PLAN.guideline.digest,
    }  # fmt: skip
    assert run["plan"]["validated"] is False
    assert run["model"] == {
        "name": "scripted",
        "digest": engine.identity.digest,
        "adapter": None,
        "adapter_digest": None,
        "settings": {"engine": "scripted", "context_tokens": 512},
    }
    assert run["settings_digest"] == Stager(PLAN, engine).run_key.settings
    assert run["counts"]["reports"] == 13
    assert run["counts"]["statuses"] == {"decided": 10, "open": 2, "empty": 1, "failed": 0}
    assert run["counts"]["answers"] == 36
    assert run["counts"]["answers_from_ledger"] == 0
    assert run["counts"]["tokens_computed"] > 0
    assert run["times"]["started"].endswith("+00:00")
    times = run["times"]
    assert 0 < times["seconds_in_model"] < times["seconds"]
    assert times["share_in_model"] == pytest.approx(times["seconds_in_model"] / times["seconds"], abs=0.1)
    assert times["reports_per_minute"] == pytest.approx(60 * 13 / times["seconds"], rel=0.1)
    assert times["tokens_per_second"] > 0
    assert set(run["versions"]) >= {"python", "pyarrow", "pydantic", "llama-cpp-python"}


def test_a_plan_with_a_record_for_this_very_plan_and_model_is_validated(tmp_path):
    engine = small_engine()
    record = {
        "measured_on": "2026-11-24",
        "plan_digest": PLAN.digest,
        "model": "scripted",
        "model_digest": engine.identity.digest,
        "cases_digest": "sha256:" + "1" * 64,
        "outcome": {"n": 10, "correct": 9, "low": 0.6, "high": 0.98},
        "findings": {},
    }
    content = PLAN.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    validated = PLAN.__class__.model_validate(content | {"validation": [record]})
    run = stage_to_files(BATCH, validated, tmp_path, model=engine).run
    assert run["plan"]["validated"] is True
    told = {key: record[key] for key in ("measured_on", "cases_digest", "outcome")}
    assert run["plan"]["validation"] == told | {"unreviewed": None}
    measured = record | {"unreviewed": {"n": 6, "correct": 6, "low": 0.61, "high": 1.0}}
    counted = PLAN.__class__.model_validate(content | {"validation": [measured]})
    run = stage_to_files(BATCH, counted, tmp_path, model=engine).run
    assert run["plan"]["validation"] == told | {"unreviewed": measured["unreviewed"]}
    assert set(pq.read_table(tmp_path / "results.parquet")["validated"].to_pylist()) == {True}
    assert stage(REPORTS, validated, model=engine).validated
    other = small_engine(name="other")
    with pytest.raises(UnvalidatedPlanError, match="no validation record for model other"):
        stage(REPORTS, validated, model=other)
    assert stage_to_files(BATCH, validated, tmp_path, model=other, unvalidated=True).run["plan"]["validated"] is False
    assert set(pq.read_table(tmp_path / "results.parquet")["validated"].to_pylist()) == {False}


def test_run_json_names_the_calibration_that_decided_and_no_other(tmp_path):
    engine, other = small_engine(), small_engine(name="other")
    plan = calibrated_plan(engine, set_coverage=0.9, set_floor=0.2)
    run = stage_to_files(BATCH, plan, tmp_path, model=engine, unvalidated=True).run
    assert run["plan"]["calibration"] == {
        "made_on": "2026-11-24", "labels": "local", "n": 240, "labels_digest": "sha256:" + "5" * 64,
        "risk": 0.05, "review_below": 0.5, "set_coverage": 0.9, "set_floor": 0.2,
    }  # fmt: skip
    assert json.loads((tmp_path / "run.json").read_text("utf-8"))["plan"]["calibration"] == run["plan"]["calibration"]
    assert stage_to_files(BATCH, plan, tmp_path, model=other, unvalidated=True).run["plan"]["calibration"] is None


def test_a_plan_without_a_record_is_refused_before_anything_is_asked_or_written(tmp_path):
    asked = []
    for run in (
        lambda: stage(REPORTS, PLAN, model=small_engine(questions_to(asked)), ledger=tmp_path / "out" / "ledger"),
        lambda: stage_to_files(BATCH, PLAN, tmp_path / "out", model=small_engine(questions_to(asked))),
    ):
        with pytest.raises(UnvalidatedPlanError, match="it has none at all") as caught:
            run()
        assert "medorchestra plan rehearse PLAN --model MODEL --write" in str(caught.value)
        assert "--unvalidated" in str(caught.value)
    assert asked == []
    assert not (tmp_path / "out").exists()


def test_nothing_of_a_report_stands_in_run_json_or_in_file_names(tmp_path):
    text = "Canary Smith, born 1948. The SMA is free. The liver is normal."
    stage_to_files(batch_of({"case": text}), PLAN, tmp_path, model=small_engine(), unvalidated=True)
    run = (tmp_path / "run.json").read_text("utf-8")
    for piece in ("Canary", "1948", "SMA is free"):
        assert piece not in run
        assert not [path for path in tmp_path.iterdir() if piece in path.name]


def test_a_run_started_again_asks_nothing_and_writes_the_same_results(tmp_path):
    stage_to_files(BATCH, PLAN, tmp_path, model=small_engine(), unvalidated=True)
    first = traces(tmp_path), (tmp_path / "results.csv").read_bytes()
    asked = []
    summary = stage_to_files(BATCH, PLAN, tmp_path, model=small_engine(questions_to(asked)), unvalidated=True)
    assert asked == []
    assert summary.run["counts"]["answers_from_ledger"] == 36
    assert summary.run["counts"]["tokens_computed"] == 0
    assert (traces(tmp_path), (tmp_path / "results.csv").read_bytes()) == first


def test_a_changed_prompt_or_model_never_reuses_old_answers(tmp_path):
    stage_to_files(BATCH, PLAN, tmp_path, model=small_engine(), unvalidated=True)
    asked = []
    changed = with_prompt("liver_mets", "Any metastasis of the liver? {{ labels }}")
    summary = stage_to_files(BATCH, changed, tmp_path, model=small_engine(questions_to(asked)), unvalidated=True)
    assert (len(asked), summary.run["counts"]["answers_from_ledger"]) == (36, 0)
    summary = stage_to_files(
        BATCH, PLAN, tmp_path, model=small_engine(questions_to(asked), name="another"), unvalidated=True
    )
    assert (len(asked), summary.run["counts"]["answers_from_ledger"]) == (72, 0)


def test_failed_reports_are_rows_and_counted(tmp_path):
    def breaks_at_the_third(asked):
        if asked.report == REPORTS[2].text:
            raise RuntimeError(asked.report)

    summary = stage_to_files(BATCH, PLAN, tmp_path, model=small_engine(breaks_at_the_third), unvalidated=True)
    assert (summary.reports, summary.failed_reports, summary.failed_answers) == (12, 1, 3)
    failed = pq.read_table(tmp_path / "results.parquet").to_pylist()[2]
    assert (failed["status"], failed["outcome"], failed["review"]) == ("failed", None, True)
    assert failed["review_reason"].startswith("RuntimeError at test_batch.py:")
    again = stage_to_files(BATCH, PLAN, tmp_path, model=small_engine(), unvalidated=True)
    assert (again.failed_reports, again.run["counts"]["answers_from_ledger"]) == (0, 33)


def test_an_interrupted_run_leaves_its_answers_and_no_result_files(tmp_path):
    def stopped(staged):
        if staged.report_id == "case-4":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage_to_files(BATCH, PLAN, tmp_path, model=small_engine(), progress=stopped, unvalidated=True)
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.sqlite"]
    summary = stage_to_files(BATCH, PLAN, tmp_path, model=small_engine(), unvalidated=True)
    assert summary.run["counts"]["answers_from_ledger"] == 15


# --------------------------------------------------------------------- kill -9

CHILD = """
import os, signal, sys
from medorchestra.local.batch import stage_to_files
from medorchestra.local.connectors import batch_of
from small_batch import PLAN, small_engine, small_reports

out, log, last_question = sys.argv[1], sys.argv[2], int(sys.argv[3])
asked = []

def note_or_die(question):
    asked.append(question)
    if len(asked) == last_question:
        os.kill(os.getpid(), signal.SIGKILL)
    with open(log, "a") as file:
        file.write(question.report[:20] + "\\n")

stage_to_files(batch_of(small_reports(12)), PLAN, out, model=small_engine(note_or_die), unvalidated=True)
"""


def run_child(out, log, last_question):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", CHILD, str(out), str(log), str(last_question)]
    done = subprocess.run(command, check=False, timeout=120, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_after_kill_9_only_the_report_in_work_is_read_again_and_the_results_are_the_same(tmp_path):
    out, log = tmp_path / "killed", tmp_path / "questions"
    # The 17th question is the second one of the sixth report.
    assert run_child(out, log, 17) == (-signal.SIGKILL, "")
    before = log.read_text("utf-8").splitlines()
    assert len(before) == 16
    assert not [
        name for name in ("results.csv", "results.parquet", "results.jsonl", "run.json") if (out / name).exists()
    ]
    assert run_child(out, log, 0) == (0, "")
    after = log.read_text("utf-8").splitlines()[16:]
    assert set(before) & set(after) == {REPORTS[5].text[:20]}, "only the report in work"
    assert len(after) == 3 * 7
    assert json.loads((out / "run.json").read_text("utf-8"))["counts"]["answers_from_ledger"] == 15
    stage_to_files(BATCH, PLAN, tmp_path / "whole", model=small_engine(), unvalidated=True)
    same_results(out, tmp_path / "whole")
    assert not list(out.glob(".*")), "the half-written files of the killed run are gone"
    answers = sqlite3.connect(out / "ledger.sqlite")
    assert answers.execute("SELECT count(*) FROM answer").fetchone() == (36,)
    answers.close()


# ------------------------------------------------------------------ bad machines


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB: writing to it fails as on a full disk, because it is one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_the_run_with_its_ledger_readable_and_the_run_goes_on_elsewhere(small_disk, tmp_path):
    batch = batch_of(small_reports(300))
    with pytest.raises(StorageError, match=r"Make room.*run the same command again: finished answers stay"):
        stage_to_files(batch, PLAN, small_disk / "out", model=small_engine(), unvalidated=True)
    assert [path.name for path in (small_disk / "out").iterdir()] == ["ledger.sqlite"]
    moved = tmp_path / "roomy"
    moved.mkdir()
    (moved / "ledger.sqlite").write_bytes((small_disk / "out" / "ledger.sqlite").read_bytes())
    summary = stage_to_files(batch, PLAN, moved, model=small_engine(), unvalidated=True)
    assert summary.reports == 300
    assert 0 < summary.run["counts"]["answers_from_ledger"] < 900


def test_a_read_only_disk_is_named_before_a_report_is_read(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    asked = []
    with pytest.raises(StorageError, match=f"{small_disk}.*Read-only file system"):
        stage_to_files(BATCH, PLAN, small_disk / "out", model=small_engine(questions_to(asked)), unvalidated=True)
    assert asked == []


def test_an_output_folder_that_is_a_file_is_named_before_a_report_is_read(tmp_path):
    (tmp_path / "out").write_text("in the way")
    asked = []
    with pytest.raises(StorageError, match=r"out/ledger\.sqlite: the ledger cannot be made"):
        stage_to_files(BATCH, PLAN, tmp_path / "out", model=small_engine(questions_to(asked)), unvalidated=True)
    assert asked == []
    assert (tmp_path / "out").read_text() == "in the way"


def test_a_foreign_file_named_as_the_ledger_is_refused_and_left_alone(tmp_path):
    (tmp_path / "ledger.sqlite").write_text("not a ledger, but somebody's notes")
    with pytest.raises(StorageError, match="this file is not a ledger"):
        stage_to_files(BATCH, PLAN, tmp_path, model=small_engine(), unvalidated=True)
    assert (tmp_path / "ledger.sqlite").read_text() == "not a ledger, but somebody's notes"


# --------------------------------------------------------------- the first topic


def test_a_ledger_of_the_real_plan_finds_its_answers_by_subtask_digests(tmp_path):
    plan = read_plan("pancreatic_cancer")
    text = "CT abdomen. Hypoenhancing mass of the pancreatic head, 2.4 cm. The SMA is free. No liver metastases."
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        engine = small_engine()
        engine._reply = lambda asked: asked.candidates[-1]
        first = Stager(plan, engine, ledger).stage_one(batch_of({"a": text}).reports[0])
        again = Stager(plan, engine, ledger).stage_one(batch_of({"b": text}).reports[0])
    assert len(first.answers) == len(plan.subtasks)
    assert again.resumed == len(plan.subtasks)
    assert again.answers == first.answers
