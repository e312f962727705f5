"""What a million reports take, from costs that were counted: time on so many workers, disk, the time of a resume.

Every worker takes the next batch when it has ended one; its batch takes what the model takes for its reports (drawn
from those that were measured) and what a worker does beside. One process writes all result files, batch by batch, in
the order of the reports, as `ray_staging` does. Measures nothing. Left out, and so to be added: loading the model, what
the scheduler itself takes to hand batches about, machines that fail, and that workers side by side on one machine share
its memory bandwidth: the seconds of the model should be measured as crowded as it will be.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

BATCH = 16
"""Reports that a worker takes at a time."""

WORKERS = (1, 8, 64)


@dataclass(frozen=True)
class Costs:
    """Of a report.

    Attributes:
        model_seconds: in the model, for each of some reports.
        worker_seconds: of a worker beside the model: reading the row, ledger, decision, result row, trace.
        writing_seconds: of the one process that writes.
        gather_seconds: for the worker's answers to go into the common ledger.
        resume_seconds: of a report that is finished already, workers and writing together in one process.
        ledger_bytes, result_bytes: on disk.
        measured_on: reports on which all but the model was measured.
    """

    model_seconds: tuple[float, ...]
    worker_seconds: float
    writing_seconds: float
    gather_seconds: float
    resume_seconds: float
    ledger_bytes: float
    result_bytes: float
    measured_on: int

    @property
    def model_mean(self) -> float:
        """Mean of the model's seconds."""
        return statistics.mean(self.model_seconds)

    @property
    def most_workers(self) -> float:
        """With more workers than this, the one process that writes is what takes the time."""
        return (self.model_mean + self.worker_seconds) / self.writing_seconds


@dataclass(frozen=True)
class Simulated:
    """A run on so many workers.

    Attributes:
        workers: how many.
        hours: until the files are whole and the ledger is gathered.
        workers_busy: share of the time in which workers work, on average.
        writer_busy: share of the time in which the one process writes.
        model_share: share of the workers' working time that is the model's.
    """

    workers: int
    hours: float
    workers_busy: float
    writer_busy: float
    model_share: float


def costs_of(told: dict[str, Any]) -> Costs:
    """The costs in what `many_reports.py` has measured: of its largest run, since there all grows that grows."""
    run = told["runs"][max(told["runs"], key=int)]
    count, first = run["reports"], run["first_run"]["seconds"]
    return Costs(
        model_seconds=tuple(told["model"]["seconds"]),
        worker_seconds=(first["workers"] - first["reader"]) / count,
        writing_seconds=first["writing"] / count,
        gather_seconds=run["gather"]["seconds"] / count,
        resume_seconds=run["resume"]["seconds"]["all"] / count,
        ledger_bytes=run["ledger_bytes"] / count,
        result_bytes=sum(run["result_bytes"].values()) / count,
        measured_on=count,
    )


def simulate(costs: Costs, reports: int, workers: int, *, seed: int = 0) -> Simulated:
    """Hand out batches to workers, and write what they make in order."""
    chance = random.Random(seed)
    free = [0.0] * workers
    working = in_model = finished = written = 0.0
    for start in range(0, reports, BATCH):
        size = min(BATCH, reports - start)
        model = math.fsum(chance.choices(costs.model_seconds, k=size))
        taken = model + size * costs.worker_seconds
        in_model, working = in_model + model, working + taken
        ended = free[0] + taken
        heapq.heapreplace(free, ended)
        finished = max(finished, ended)  # an earlier batch that is not there yet keeps this one waiting
        written = max(written, finished) + size * costs.writing_seconds
    seconds = written + reports * costs.gather_seconds
    return Simulated(
        workers,
        seconds / 3600,
        working / (workers * seconds),
        reports * costs.writing_seconds / seconds,
        in_model / working,
    )


def extrapolated(costs: Costs, reports: int, workers: Sequence[int] = WORKERS) -> dict[str, Any]:
    """So many reports: the costs of one, time by workers, disk, resume."""
    return {
        "reports": reports,
        "costs_of_a_report": asdict(costs),
        "simulated": [asdict(simulate(costs, reports, one)) for one in workers],
        "most_workers": costs.most_workers,
        "ledger_gb": reports * costs.ledger_bytes / 1e9,
        "results_gb": reports * costs.result_bytes / 1e9,
        "resume_minutes": reports * costs.resume_seconds / 60,
        "gather_minutes": reports * costs.gather_seconds / 60,
    }


def growth(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Least squares line of values over the logarithm of sizes: value at size 1, and what a tenfold size adds.

    Raises:
        statistics.StatisticsError: fewer than two sizes.
    """
    line = statistics.linear_regression([math.log10(size) for size in sizes], values)
    return line.intercept, line.slope
