"""Many reports, no model: what the machinery around the model costs, and whether it stays flat.

    python benchmarks/speed/many_reports.py [--reports 10000 100000] [--workers 2] [--out FILE.json] [--picture PNG]

A scripted reader answers at once, so what is measured is all the rest: reading rows in batches as a worker of Ray or
Spark does, ledger, decision, result rows, traces, the three result files. For every number of reports, in folders of
their own:

- first run: reports a second, and the memory of the process that stages and writes, as it goes;
- look-ups: microseconds for one report in a ledger of this size, reports drawn at random;
- resume: the same command again, with every answer in the ledger: seconds, and how many were asked (must be none);
- gather: seconds for taking the workers' files over into the ledger.

Batches go to one of several `RowStager`s in turn, in this one process: each with a ledger file of its own, as workers
have. Goals: memory in the last tenth of a run at most 1.1 times that in its second tenth; look-ups that grow with the
logarithm at most; the resume of 100,000 reports in seconds, not minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

import medorchestra as mo
from medorchestra.local.engine.scripted import ScriptedQuestion
from medorchestra.local.records import Report
from medorchestra.local.results_files import RowsWriter
from medorchestra.local.scale_out import COUNTS, TRACE, RowOptions, RowStager, StagingJob
from medorchestra.local.shared_ledger import SharedLedger, gather

BATCH = 16
POINTS = 20
"""Memory readings in a run."""

LOOK_UPS = 2_000

SENTENCES = (
    "Hypodense mass of the pancreatic head.",
    "The SMA is free of tumour, a fat plane is kept.",
    "Solid tumour surrounds the SMA for 220 degrees over 3 cm.",
    "The coeliac trunk is not involved.",
    "Abutment of the portal vein without narrowing.",
    "Liver: two 3 mm hypodensities, too small to characterise.",
    "Several liver metastases in both lobes.",
    "No peritoneal disease. No ascites.",
    "The lung bases are clear.",
    "Technique: biphasic contrast-enhanced CT.",
)


class CountingReader:
    """Makes scripted engines that count what they are asked; the answer depends on report and question alone."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, plan: mo.Plan) -> mo.ScriptedEngine:  # noqa: ARG002 - as any maker of engines
        return mo.ScriptedEngine(self._reply)

    def _reply(self, asked: ScriptedQuestion) -> str | dict[str, float]:
        self.asked += 1
        if asked.candidates is None:
            return "not stated"
        drawn = random.Random(asked.report[:40] + asked.question)
        weights = [drawn.random() for _ in asked.candidates]
        return dict(zip(asked.candidates, weights, strict=True))


def report_text(number: int) -> str:
    """An invented report; no two are alike."""
    drawn = random.Random(number)
    return f"CT of the abdomen no. {number}. " + " ".join(drawn.sample(SENTENCES, 6))


def batches(count: int) -> Iterator[pa.Table]:
    """Rows with reports, made as they are asked for."""
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        yield pa.table(
            {"report_id": [f"R-{number}" for number in numbers], "text": [report_text(number) for number in numbers]}
        )


def memory_mb() -> float:
    """Megabytes that this process has in memory now (Linux; elsewhere not a number)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return math.nan
    return pages * 4096 / 2**20


def run(folder: Path, count: int, workers: int, plan: mo.Plan) -> dict[str, Any]:
    """Stage so many reports into a folder: seconds, questions asked, answers from the ledger, memory on the way."""
    reader = CountingReader()
    job = StagingJob(plan, reader, folder / "ledger.sqlite", RowOptions(unvalidated=True))
    schema = job.schema(next(batches(1)).schema)
    every = max(count // BATCH // POINTS, 1)
    curve: list[tuple[int, float]] = []
    resumed = done = 0
    started = time.perf_counter()
    with ExitStack() as opened, RowsWriter(folder, schema) as writer:
        stagers = [opened.enter_context(RowStager(job)) for _ in range(workers)]
        for i, (batch, stager) in enumerate(zip(batches(count), itertools.cycle(stagers), strict=False)):
            table = stager.table(batch, schema=schema, full=True)
            writer.add_table(table.select(schema.names), table.column(f"{TRACE}line").to_pylist())
            resumed += sum(table.column(f"{COUNTS}resumed_answers").to_pylist())
            done += table.num_rows
            if i % every == 0:
                curve.append((done, round(memory_mb(), 1)))
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "asked": reader.asked,
        "answers_from_ledger": resumed,
        "memory_mb": curve,
    }


def look_up_microseconds(folder: Path, count: int, plan: mo.Plan) -> float:
    """The median time of a look-up for a report drawn at random."""
    job = StagingJob(plan, CountingReader(), None, RowOptions(unvalidated=True))
    drawn = random.Random(count)
    times = []
    with RowStager(job) as worker, SharedLedger.open(folder / "ledger.sqlite") as ledger:
        for _ in range(LOOK_UPS):
            digest = Report("R", report_text(drawn.randrange(count))).digest
            started = time.perf_counter()
            found = ledger.find(digest, worker.stager.run_key)
            times.append(time.perf_counter() - started)
            assert len(found) == len(plan.subtasks)
    return round(1e6 * sorted(times)[LOOK_UPS // 2], 1)


def measure(count: int, workers: int, plan: mo.Plan) -> dict[str, Any]:
    """All measurements for one number of reports."""
    with tempfile.TemporaryDirectory(prefix="many_reports") as name:
        folder = Path(name)
        first = run(folder, count, workers, plan)
        started = time.perf_counter()
        files = gather(folder / "ledger.sqlite")
        gathered = round(time.perf_counter() - started, 2)
        look_up = look_up_microseconds(folder, count, plan)
        again = run(folder, count, workers, plan)
        ledger_mb = round((folder / "ledger.sqlite").stat().st_size / 2**20, 1)
    if again["asked"]:
        sys.exit(f"{again['asked']} questions were asked again in the resume of {count} reports")
    tenth = max(POINTS // 10, 1)
    early = [mb for _, mb in first["memory_mb"][tenth : 2 * tenth]]
    late = [mb for _, mb in first["memory_mb"][-tenth:]]
    return {
        "reports": count,
        "workers": workers,
        "subtasks": len(plan.subtasks),
        "first_run": first,
        "first_run_reports_a_second": round(count / first["seconds"], 1),
        "memory_late_by_early": round(sum(late) * len(early) / (sum(early) * len(late)), 3),
        "gather": {"files": files, "seconds": gathered},
        "look_up_microseconds": look_up,
        "resume": {key: again[key] for key in ("seconds", "asked", "answers_from_ledger")},
        "ledger_mb": ledger_mb,
    }


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Memory over reports done, one line for each number of reports."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for result in results:
        done, megabytes = zip(*result["first_run"]["memory_mb"], strict=True)
        axes.plot([100 * one / result["reports"] for one in done], megabytes, label=f"{result['reports']:,} reports")
    axes.set_xlabel("% of the reports done")
    axes.set_ylabel("memory of the process (MB)")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file for all numbers")
    parser.add_argument("--picture", type=Path, help="PNG file for the memory curves")
    options = parser.parse_args()
    plan = mo.read_plan("pancreatic_cancer")
    results = []
    for count in options.reports:
        results.append(measure(count, options.workers, plan))
        shown = {key: value for key, value in results[-1].items() if key != "first_run"}
        print(json.dumps(shown), flush=True)
    if options.out:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "plan": plan.digest}
        options.out.write_text(json.dumps({"of": machine, "results": results}, indent=1) + "\n", encoding="utf-8")
    if options.picture:
        draw(results, options.picture)


if __name__ == "__main__":
    main()
