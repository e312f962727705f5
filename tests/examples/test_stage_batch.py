"""The scheduled batch: its folder, worklist, log and exit codes; and the reports it is shown with."""

from __future__ import annotations

import csv
import importlib.util
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from plan_by_hand import PLAN_BY_HAND, cases_by_hand

import medorchestra as mo
from medorchestra.local.scope import scope_problems

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DEMO_REPORTS = EXAMPLES / "pancreas_reports.csv"
PLAN = PLAN_BY_HAND
CASES = {case.id: case for case in cases_by_hand("held_out")}
CANARY = "CANARY-7731"


@pytest.fixture(scope="module")
def stage_batch():
    spec = importlib.util.spec_from_file_location("stage_batch", EXAMPLES / "stage_batch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("report_id", "text"), *rows])
    return path


def demo_rows():
    with DEMO_REPORTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def staged(stage_batch, source, folder, cases):
    reader = mo.perfect_reader(PLAN, cases)
    return stage_batch.stage_day(mo.read_reports(source), PLAN, folder, model=reader, unvalidated=True)


def test_a_day_without_failures_ends_with_0_and_lists_only_what_a_person_has_to_look_at(stage_batch, tmp_path):
    encased, open_vein = CASES["held-f02"], CASES["held-f07"]
    source = written(tmp_path / "day.csv", [(case.id, case.text) for case in (encased, open_vein)])
    assert staged(stage_batch, source, tmp_path / "out", [encased, open_vein]) == 0
    names = {"results.parquet", "results.csv", "results.jsonl", "run.json", "ledger.sqlite", "review.csv"}
    assert names <= {path.name for path in (tmp_path / "out").iterdir()}
    (row,) = rows_of(tmp_path / "out" / "review.csv")
    assert row["report_id"] == "held-f07"
    assert row["best_outcome"] == "borderline_resectable"
    assert "pv_smv_reconstructible" in row["reasons"]


def test_an_empty_report_ends_with_1_and_is_on_the_worklist(stage_batch, tmp_path):
    encased = CASES["held-f02"]
    source = written(tmp_path / "day.csv", [("full", encased.text), ("bare", "")])
    assert staged(stage_batch, source, tmp_path / "out", [encased]) == 1
    (row,) = rows_of(tmp_path / "out" / "review.csv")
    assert row == {"report_id": "bare", "status": "empty", "best_outcome": "", "probability": "", "reasons": "empty"}


def test_the_same_day_again_reads_no_report_twice_and_gives_the_same_worklist(stage_batch, tmp_path):
    case = CASES["held-f07"]
    source = written(tmp_path / "day.csv", [(case.id, case.text)])
    staged(stage_batch, source, tmp_path / "out", [case])
    worklist = (tmp_path / "out" / "review.csv").read_bytes()
    staged(stage_batch, source, tmp_path / "out", [case])
    counts = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["counts"]
    assert counts["answers_from_ledger"] == counts["answers"] == len(PLAN.subtasks)
    assert counts["tokens_computed"] == 0
    assert (tmp_path / "out" / "review.csv").read_bytes() == worklist


def test_log_and_worklist_hold_no_report_text(stage_batch, tmp_path, caplog):
    case = CASES["held-f07"].model_copy(update={"text": f"{CASES['held-f07'].text}\n{CANARY}"})
    source = written(tmp_path / "day.csv", [(case.id, case.text), ("unknown to the script", f"{CANARY} mass")])
    with caplog.at_level(logging.DEBUG):
        assert staged(stage_batch, source, tmp_path / "out", [case]) == 1
    assert "held-f07" in caplog.text
    assert CANARY not in caplog.text
    assert CANARY not in (tmp_path / "out" / "review.csv").read_text(encoding="utf-8")


def test_bad_input_ends_with_2_and_a_message_that_names_the_file(stage_batch, tmp_path, caplog):
    arguments = [str(tmp_path / "missing.csv"), "--out", str(tmp_path / "staging")]
    assert stage_batch.main(arguments) == 2
    assert "missing.csv" in caplog.text
    assert not (tmp_path / "staging").exists()


def test_an_error_nobody_foresaw_ends_with_2_and_its_message_is_withheld(stage_batch, tmp_path, caplog, monkeypatch):
    def fail(*_, **__):
        raise ValueError(CANARY)

    monkeypatch.setattr(stage_batch, "stage_day", fail)
    source = written(tmp_path / "day.csv", [("a", "CT")])
    assert stage_batch.main([str(source), "--out", str(tmp_path)]) == 2
    assert "ValueError" in caplog.text
    assert CANARY not in caplog.text


@pytest.mark.model
def test_the_script_stages_with_the_default_model_into_the_folder_of_the_day(tmp_path):
    source = written(tmp_path / "day.csv", [("mri", demo_rows()[7]["Report Text"]), ("bare", "")])
    command = [sys.executable, EXAMPLES / "stage_batch.py", source, "--out", tmp_path, "--day", "2026-11-24"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 1, run.stderr
    assert "2 reports" in run.stderr
    assert [row["report_id"] for row in rows_of(tmp_path / "2026-11-24" / "results.csv")] == ["mri", "bare"]


def test_the_demo_reports_differ_from_every_synthetic_case():
    def runs(text, length=8):
        words = text.lower().split()
        return {tuple(words[place : place + length]) for place in range(len(words) - length + 1)}

    known = set().union(*(runs(case.text) for case in cases_by_hand()))
    for row in demo_rows():
        own = runs(row["Report Text"])
        assert len(own & known) <= len(own) / 20, row["Accession Number"]


def test_the_demo_reports_hold_one_that_is_empty_and_one_from_another_organ():
    problems = {row["Accession Number"]: scope_problems(row["Report Text"], PLAN.scope) for row in demo_rows()}
    assert [row["Accession Number"] for row in demo_rows() if not row["Report Text"]] == ["DEMO-010"]
    assert any("pancreas" in problem for problem in problems["DEMO-009"])
    assert all(not problems[f"DEMO-00{number}"] for number in range(1, 8))
