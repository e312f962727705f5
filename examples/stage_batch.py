"""Stages the reports of a day: what a scheduler runs.

    python stage_batch.py /data/reports.csv --out /data/staging

Everything goes into a folder of the day (`/data/staging/2026-11-24`): results.parquet, results.csv, results.jsonl,
run.json, and review.csv, the worklist of reports that a person has to look at. Run again for the same day it goes on
where it stopped and reads no report twice. Log and worklist hold ids, counts and reasons, never report text.

Exit codes: 0 all reports staged; 1 some reports or answers could not be read, they are in the worklist; 2 stopped.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from datetime import date
from pathlib import Path

import medorchestra as mo
from medorchestra.local.connectors import ReportBatch
from medorchestra.local.engine.protocol import Engine

log = logging.getLogger("stage_batch")

WORKLIST_COLUMNS = ("report_id", "status", "best_outcome", "probability", "reasons")


def stage_day(
    batch: ReportBatch, plan: mo.Plan, folder: Path, *, model: str | Engine = "default", unvalidated: bool = False
) -> int:
    """Stage a batch into a folder and write its worklist; gives the exit code."""
    worklist: list[dict[str, str]] = []

    def note(staged: mo.StagedReport) -> None:
        log.info("%s: %s%s", staged.report_id, staged.status, ", for review" if staged.review else "")
        if staged.review:
            worklist.append(worklist_row(staged))

    summary = mo.stage_to_files(batch, plan, folder, model=model, unvalidated=unvalidated, progress=note)
    write_worklist(folder / "review.csv", worklist)
    log.info("%d reports, %d for review, %d failed", summary.reports, summary.review, summary.failed_reports)
    return 1 if summary.failed_reports or summary.failed_answers else 0


def worklist_row(staged: mo.StagedReport) -> dict[str, str]:
    """Why a person has to look at this report."""
    row = {"report_id": staged.report_id, "status": staged.status.value}
    decision = staged.decision
    if decision is None:
        return row | {"reasons": staged.error or staged.status.value}
    likely = {"best_outcome": decision.best_outcome, "probability": f"{decision.probability:.3f}"}
    return row | likely | {"reasons": "; ".join(decision.review_reasons)}


def write_worklist(path: Path, rows: list[dict[str, str]]) -> None:
    """Write the worklist whole or not at all: who picks it up never sees half of it."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, WORKLIST_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, stage, and turn what stops the run into exit code 2."""
    parser = argparse.ArgumentParser(description="Stage the reports of a day.")
    parser.add_argument("source", type=Path, help="CSV, TSV, Parquet, JSONL, or a folder of .txt files")
    parser.add_argument("--out", type=Path, required=True, help="folder in which the day's folder is made")
    parser.add_argument("--day", type=date.fromisoformat, default=date.today(), help="YYYY-MM-DD; default today")
    parser.add_argument("--plan", default="pancreatic_cancer", help="topic or path of a plan")
    parser.add_argument("--model", default="default", help="'default' or path of a GGUF file")
    parser.add_argument("--unvalidated", action="store_true", help="run a plan that was not rehearsed with this model")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        plan, batch = mo.read_plan(asked.plan), mo.read_reports(asked.source)
        folder = asked.out / asked.day.isoformat()
        return stage_day(batch, plan, folder, model=asked.model, unvalidated=asked.unvalidated)
    except (mo.MedorchestraError, OSError) as error:
        log.error("stopped: %s", error)
    except Exception as error:  # noqa: BLE001 - a traceback's message could hold report text, so only its kind is logged
        log.error("stopped: %s", type(error).__name__)
    return 2


if __name__ == "__main__":
    sys.exit(main())
