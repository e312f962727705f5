"""Many reports, no model: what the machinery around the model costs, whether it stays flat, and what a million takes.

    python benchmarks/speed/many_reports.py [--counts 10000 100000] [--every 1000] [--workers 2]
        [--ledger-rows 1000 10000 100000 1000000] [--model-reports 6 | --model-seconds 1.2] [--threads 1] [--again]
        --out benchmarks/speed/many_reports

A scripted reader answers at once, so what is measured is all the rest: reading rows in batches as a worker of Ray or
Spark does, ledger, decision, result rows, traces, the three result files. For every number of reports, in a process and
a folder of its own:

- first run: reports a second, what of that workers do and what the process that writes the files does, and its memory
  as it goes, read every so many reports;
- gather: seconds for taking the workers' files over into the ledger;
- resume: the same command again, with every answer in the ledger: seconds, and how many were asked (must be none).

Then: the time of a look-up in ledgers of several sizes, in turn; seconds of the real model on a few reports, unless
given; and from all these one million reports (`many_reports_costs.py`).

Batches go to one of several `RowStager`s in turn, in this one process: each with a ledger file of its own, as workers
have; so the memory is that of the writing process and its workers together. Goals: memory in the last tenth of a run at
most 1.1 times that in its second tenth; look-ups that grow with the logarithm of the ledger at most; the resume of
100,000 reports in seconds, not minutes.

Writes many_reports.json, many_reports.md and memory.svg into `--out`, after every part: killed, it goes on where it
was. What is in the file already (from the same plan) is measured again only with `--again`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from many_reports_costs import costs_of, extrapolated
from many_reports_table import draw, table_lines
from peers import machine

import medorchestra as mo
from medorchestra.local.engine.scripted import ScriptedQuestion
from medorchestra.local.ledger import Ledger
from medorchestra.local.records import Report
from medorchestra.local.results_files import RESULT_FILES, RowsWriter
from medorchestra.local.scale_out import COUNTS, TRACE, EngineChoice, RowOptions, RowStager, StagingJob
from medorchestra.local.shared_ledger import gather
from medorchestra.local.staging import Stager

TOPIC = "pancreatic_cancer"
BATCH = 16
LOOK_UPS = 1_000
"""In each round and ledger."""
ROUNDS = 5
UNVALIDATED = RowOptions(unvalidated=True)

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

Made = TypeVar("Made")


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


class Run:
    """So many reports, staged into a folder; what it took, and where.

    Attributes:
        reader: asked.
        curve: (reports done, megabytes), every so many reports.
        seconds: of the workers, of these in the scripted reader, and of the process that writes.
        resumed: answers from the ledger.
    """

    def __init__(self, folder: Path, plan: mo.Plan, *, workers: int, every: int) -> None:
        self.reader = CountingReader()
        self.curve: list[tuple[int, float]] = [(0, round(memory_mb(), 1))]
        self.seconds = {"workers": 0.0, "reader": 0.0, "writing": 0.0, "all": 0.0}
        self.resumed = 0
        self._job = StagingJob(plan, self.reader, folder / "ledger.sqlite", UNVALIDATED)
        self._folder, self._workers, self._every = folder, workers, every

    def stage(self, count: int) -> None:
        """Stage the reports."""
        schema = self._job.schema(next(batches(1)).schema)
        done, started = 0, time.perf_counter()
        with ExitStack() as opened, RowsWriter(self._folder, schema) as writer:
            stagers = [opened.enter_context(RowStager(self._job)) for _ in range(self._workers)]
            for batch, stager in zip(batches(count), cycle(stagers), strict=False):
                begun = time.perf_counter()
                table = stager.table(batch, schema=schema, full=True)
                staged = time.perf_counter()
                writer.add_table(table.select(schema.names), table.column(f"{TRACE}line").to_pylist())
                self.seconds["writing"] += time.perf_counter() - staged
                self.seconds["workers"] += staged - begun
                self.seconds["reader"] += sum(table.column(f"{COUNTS}microseconds_in_model").to_pylist()) / 1e6
                self.resumed += sum(table.column(f"{COUNTS}resumed_answers").to_pylist())
                before, done = done, done + table.num_rows
                if done // self._every > before // self._every or done == count:
                    self.curve.append((done, round(memory_mb(), 1)))
        self.seconds["all"] = time.perf_counter() - started

    def told(self) -> dict[str, Any]:
        """All of it."""
        seconds = {name: round(value, 3) for name, value in self.seconds.items()}
        asked = {"asked": self.reader.asked, "answers_from_ledger": self.resumed}
        return {"seconds": seconds, **asked, "memory_mb": self.curve}


def measure(count: int, workers: int, every: int) -> dict[str, Any]:
    """All measurements for one number of reports."""
    plan = mo.read_plan(TOPIC)
    with tempfile.TemporaryDirectory(prefix="many_reports") as name:
        folder = Path(name)
        first = Run(folder, plan, workers=workers, every=every)
        first.stage(count)
        started = time.perf_counter()
        files = gather(folder / "ledger.sqlite")
        gathered = round(time.perf_counter() - started, 3)
        sizes = {
            "ledger_bytes": (folder / "ledger.sqlite").stat().st_size,
            "result_bytes": {file: (folder / file).stat().st_size for file in RESULT_FILES},
        }
        again = Run(folder, plan, workers=workers, every=every)
        again.stage(count)
    if again.reader.asked:
        sys.exit(f"{again.reader.asked} questions were asked again in the resume of {count} reports")
    return {
        "reports": count,
        "workers": workers,
        "subtasks": len(plan.subtasks),
        "first_run": first.told(),
        "memory_late_by_early": late_by_early(first.curve, count),
        "gather": {"files": files, "seconds": gathered},
        "resume": again.told(),
        **sizes,
    }


def late_by_early(curve: list[tuple[int, float]], count: int) -> float | None:
    """Memory in the last tenth of a run over that in its second tenth; None where it was read too seldom."""
    early = [megabytes for done, megabytes in curve if 0.1 * count < done <= 0.2 * count]
    late = [megabytes for done, megabytes in curve if done > 0.9 * count]
    return round(sum(late) / len(late) / (sum(early) / len(early)), 3) if early and late else None


def look_ups(sizes: list[int]) -> dict[str, Any]:
    """Microseconds of a look-up by rows of the ledger: of a report that is in it, drawn at random, and of one that is
    not. The ledgers are asked in turn, in an order drawn anew in each round."""
    plan, drawn = mo.read_plan(TOPIC), random.Random(0)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="many_reports") as name, ExitStack() as opened:
        ledgers, key = {}, None
        for rows in sizes:
            ledger = opened.enter_context(Ledger.open(Path(name) / f"{rows}.sqlite"))
            key = fill(ledger, plan, math.ceil(rows / len(plan.subtasks)))
            ledgers[rows] = ledger
            found[str(rows)] = {"reports": math.ceil(rows / len(plan.subtasks)), "there": [], "not_there": []}
        for _ in range(ROUNDS):
            for rows in drawn.sample(sizes, len(sizes)):
                numbers = [drawn.randrange(found[str(rows)]["reports"]) for _ in range(LOOK_UPS)]
                for where, begins in (("there", "R"), ("not_there", "absent")):
                    digests = [digest_of(begins, number) for number in numbers]
                    found[str(rows)][where].append(_median_microseconds(ledgers[rows], key, digests))
    return found


def _median_microseconds(ledger: Ledger, key: Any, digests: list[str]) -> float:
    times = []
    for digest in digests:
        started = time.perf_counter()
        ledger.find(digest, key)
        times.append(time.perf_counter() - started)
    return round(1e6 * sorted(times)[len(times) // 2], 2)


def digest_of(begins: str, number: int) -> str:
    """The digest of a short invented report."""
    return Report("R", f"{begins} {number}").digest


def fill(ledger: Ledger, plan: mo.Plan, reports: int) -> Any:
    """Put answers to so many reports into a ledger; the key under which they stand."""
    stager = Stager(plan, CountingReader()(plan))
    staged = stager.stage_one(Report("R", report_text(0)))
    digests = map(plan.subtask_digest, plan.subtasks)
    answers = dict(zip(digests, staged.answers, strict=True))
    for number in range(reports):
        ledger.add(digest_of("R", number), stager.run_key, answers)
    return stager.run_key


def model_seconds(reports: int, threads: int) -> dict[str, Any]:
    """What the default model with its adapter takes for reports of the development split, drawn at random."""
    plan = mo.read_plan(TOPIC)
    cases = random.Random(3).sample(list(mo.read_cases(TOPIC, "development")), reports + 1)
    seconds, tokens = [], []
    with closing(EngineChoice(threads=threads)(plan)) as engine:
        stager = Stager(plan, engine)
        for case in cases:
            staged = stager.stage_one(Report(case.id, case.text))
            seconds.append(round(staged.seconds_in_model, 4))
            tokens.append(staged.tokens)
    # The first one warms up.
    return {"threads": threads, "seconds": seconds[1:], "tokens": tokens[1:], "model": engine.identity.name}


def in_process(measured: Callable[..., Made], *given: Any) -> Made:
    """Measure in a process of its own: memory and speed owe nothing to what was measured before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measured, *given).result()


class Kept:
    """What was measured so far, in the folder's files."""

    def __init__(self, folder: Path, plan: mo.Plan) -> None:
        self.folder, self.path = folder, folder / "many_reports.json"
        self.told: dict[str, Any] = {"plan": plan.digest, "runs": {}, "commands": []}
        if self.path.is_file():
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found.get("plan") == plan.digest:
                self.told = found

    def keep(self) -> None:
        """Write all files."""
        command = "python benchmarks/speed/many_reports.py " + " ".join(sys.argv[1:])
        self.told["commands"] = list(dict.fromkeys([*self.told["commands"], command]))
        self.told["about"] = {"measured": datetime.now(UTC).isoformat(timespec="seconds"), **machine()}
        runs = self.told["runs"]
        self.told["runs"] = {count: runs[count] for count in sorted(runs, key=int)}
        if runs and "model" in self.told:
            self.told["million"] = extrapolated(costs_of(self.told), 1_000_000)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.told, indent=1) + "\n", encoding="utf-8")
        (self.folder / "many_reports.md").write_text("\n".join(table_lines(self.told)) + "\n", encoding="utf-8")
        if runs:
            draw(self.told["runs"], self.folder / "memory.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="*", default=[10_000, 100_000], help="of reports")
    parser.add_argument("--every", type=int, default=1_000, help="reports between two readings of the memory")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ledger-rows", type=int, nargs="*", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--model-reports", type=int, default=6, help="read with the real model; 0: none")
    parser.add_argument("--model-seconds", type=float, help="of a report, in place of a measurement")
    parser.add_argument("--threads", type=int, default=1, help="of a worker's model")
    parser.add_argument("--again", action="store_true", help="measure again what is there already")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    kept = Kept(args.out, mo.read_plan(TOPIC))
    told = kept.told
    if args.model_seconds is not None:
        told["model"] = {"threads": args.threads, "seconds": [args.model_seconds], "tokens": [], "model": "as given"}
    elif args.model_reports and (args.again or "model" not in told):
        told["model"] = in_process(model_seconds, args.model_reports, args.threads)
    for count in args.counts:
        if args.again or str(count) not in told["runs"]:
            told["runs"][str(count)] = in_process(measure, count, args.workers, args.every)
            kept.keep()
    if args.ledger_rows and (args.again or "look_ups" not in told):
        told["look_ups"] = in_process(look_ups, args.ledger_rows)
    kept.keep()
    print("\n".join(table_lines(told)))


if __name__ == "__main__":
    main()
