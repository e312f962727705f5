"""Report first and read once, against one fresh call for every question: tokens counted, wall time in one run.

    python benchmarks/speed/prefix_sharing.py [--repeats 3] [--reports 4] [--out FILE.md]

Both sides ask the same questions with the same tokens of the same model on the same reports, one after the other in
random order, with the same number of threads; the naive side computes the whole prompt anew for every question, as a
caller does who sends one completion per question. Only the first answer token is computed on the naive side (that is
to its advantage: label tries need more).
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import medorchestra as mo
from medorchestra.local.engine.protocol import Conversation
from medorchestra.local.executor import Executor

REPORTS = Path(__file__).parents[2] / "examples" / "pancreas_reports.csv"


def read_demo_reports() -> list[mo.Report]:
    """The reports of the demo."""
    with REPORTS.open(encoding="utf-8", newline="") as file:
        return [mo.Report(row["Accession Number"], row["Report Text"]) for row in csv.DictReader(file)]


def shared(executor: Executor, report: mo.Report) -> tuple[int, float]:
    """Tokens and seconds of medorchestra's way."""
    reading = executor.read(report)
    return reading.tokens, reading.seconds


def naive(plan: mo.Plan, engine: mo.LlamaCppEngine, report: mo.Report) -> tuple[int, float]:
    """Tokens and seconds of a fresh context for every question."""
    started, before = time.perf_counter(), engine.tokens_computed
    for i, subtask in enumerate(plan.subtasks):
        # A head that differs by a trailing space each time keeps the engine from reusing the one it has read.
        head = plan.head() + " " * (i % 2)
        with engine.open(Conversation(head, report.text)) as session:
            session.choose(plan.question(subtask), ["A", "B"])
    return engine.tokens_computed - before, time.perf_counter() - started


def measure(repeats: int, most: int, form: str) -> list[str]:
    """The table for one form of the questions; the whole report is read on both sides."""
    plan = mo.read_plan("pancreatic_cancer")
    profile = plan.profile.model_copy(update={"context": "full", "prompt_form": form})
    plan = plan.model_copy(update={"profile": profile})
    reports = [report for report in read_demo_reports() if report.text.strip()][:most]
    rows: dict[str, list[tuple[int, float]]] = {"shared": [], "naive": []}
    with mo.LlamaCppEngine("default") as engine:
        executor = Executor(plan, engine)
        shared(executor, reports[0])  # warm up
        jobs = [(name, report) for name in rows for report in reports for _ in range(repeats)]
        random.Random(7).shuffle(jobs)
        for name, report in jobs:
            rows[name].append(shared(executor, report) if name == "shared" else naive(plan, engine, report))
    return [f"## {form} questions", "", *table(rows, len(plan.subtasks), len(reports), repeats), ""]


def table(rows: dict[str, list[tuple[int, float]]], questions: int, reports: int, repeats: int) -> list[str]:
    """Tokens and times per report, and their ratios."""

    def mean(name: str, column: int) -> float:
        return statistics.fmean(row[column] for row in rows[name])

    lines = [
        f"{reports} reports, {questions} questions each, {repeats} repeats, default model, random order.",
        "",
        "| way | tokens computed per report | seconds per report |",
        "| --- | --- | --- |",
    ]
    labels: Sequence[tuple[str, str]] = (("shared", "medorchestra"), ("naive", "one fresh call for every question"))
    lines += [f"| {label} | {mean(name, 0):.0f} | {mean(name, 1):.2f} |" for name, label in labels]
    tokens, seconds = mean("naive", 0) / mean("shared", 0), mean("naive", 1) / mean("shared", 1)
    return [*lines, f"| ratio | {tokens:.1f} | {seconds:.1f} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--reports", type=int, default=4)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    chapters = [measure(args.repeats, args.reports, form) for form in ("compact", "instructed")]
    text = "\n".join(["# Prefix sharing", "", *(line for chapter in chapters for line in chapter)])
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
