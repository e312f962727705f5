"""Workers on the small reports that write down what they are asked: child processes and Ray's actors import it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from small_batch import PLAN, small_engine

from medorchestra.local.engine.scripted import ScriptedEngine, ScriptedQuestion
from medorchestra.local.records import Report
from medorchestra.local.scale_out import RowOptions, StagingJob
from medorchestra.plan import Plan


@dataclass(frozen=True)
class Watched:
    """Makes scripted readers that note every question in a file of their process, and die once where they shall.

    Attributes:
        notes: folder of those files.
        dies_at: number of the report at whose second question the process is killed, the first time only.
        name: of the model.
    """

    notes: Path
    dies_at: int | None = None
    name: str = "scripted"

    def __call__(self, plan: Plan) -> ScriptedEngine:
        return small_engine(self._note, name=self.name)

    def _note(self, asked: ScriptedQuestion) -> None:
        number = int(re.search(r"no\. (\d+)\.", asked.report)[1])
        with (self.notes / f"{os.getpid()}.asked").open("a", encoding="utf-8") as file:
            file.write(f"{number} {asked.question[:20]}\n")
        if number == self.dies_at and "liver" in asked.question:
            try:
                (self.notes / "died").touch(exist_ok=False)
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

    def times_asked(self) -> Counter[int]:
        """Report number -> how often its most asked question was asked."""
        asked = Counter(line for file in self.notes.glob("*.asked") for line in file.read_text("utf-8").splitlines())
        most: Counter[int] = Counter()
        for line, times in asked.items():
            number = int(line.split()[0])
            most[number] = max(most[number], times)
        return most

    def job(self, ledger: Path | None, **options: object) -> StagingJob:
        """A job with the small plan."""
        return StagingJob(PLAN, self, ledger, RowOptions(unvalidated=True, **options))  # type: ignore[arg-type]


def rows_of(reports: list[Report]) -> list[dict[str, object]]:
    """Reports as rows of a table."""
    return [{"report_id": one.report_id, "text": one.text, **one.carried} for one in reports]


def table_of(reports: list[Report]) -> pa.Table:
    """Reports as a table."""
    return pa.Table.from_pylist(rows_of(reports))


OF_THE_RUN = {"seconds", "tokens", "resumed_answers"}
"""What a trace says of the run that made it, at its top and in its answers."""


def timeless(lines: str) -> list[dict[str, object]]:
    """Traces without what differs from run to run."""
    traces = [
        json.loads(line, object_hook=lambda one: {k: one[k] for k in one.keys() - OF_THE_RUN})
        for line in lines.splitlines()
    ]
    assert traces
    return traces
