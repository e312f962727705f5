"""Whole batches: `stage` for notebooks, `stage_to_files` for ETL. Both return; neither prints.

Puts source, plan, engine, ledger, stager and result files together, and closes what it opened.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medorchestra.local.adapters import chosen_adapter
from medorchestra.local.connectors import ReportBatch, batch_of, read_reports
from medorchestra.local.engine.protocol import Engine
from medorchestra.local.engine_opening import opened_engine
from medorchestra.local.ledger import Ledger
from medorchestra.local.results import Results
from medorchestra.local.results_files import ResultsWriter, write_run
from medorchestra.local.run_counts import ReportCounts, RunCounts
from medorchestra.local.staged_report import StagedReport
from medorchestra.local.staging import Stager
from medorchestra.local.validation import require_validation, validation_of
from medorchestra.plan import Plan
from medorchestra.plan_files import plan_path, read_plan

DISCLAIMER = "medorchestra supports clinicians and researchers; it is not a certified medical device."

_OF_THE_RECORD = {"measured_on", "cases_digest", "outcome", "unreviewed"}
_OF_THE_CALIBRATION = {
    "made_on",
    "labels",
    "n",
    "labels_digest",
    "risk",
    "review_below",
    "set_coverage",
    "set_floor",
}
"""What run.json tells of them; all else is in the plan."""

Progress = Callable[[StagedReport], None]
"""Called after every report, in order."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run to files came to; the content of run.json.

    Attributes:
        reports: number of reports in the input.
        statuses: status -> count.
        outcomes: outcome -> count of decided reports.
        review: reports a person has to look at.
        failed_answers: answers without a reading, over all reports.
        run: everything that is in run.json.
    """

    reports: int
    statuses: Mapping[str, int]
    outcomes: Mapping[str, int]
    review: int
    failed_answers: int
    run: Mapping[str, Any]

    @property
    def failed_reports(self) -> int:
        """Reports without a decision."""
        return self.statuses["empty"] + self.statuses["failed"]


def stage(  # noqa: PLR0913 - each with a default that is right for most
    reports: object,
    plan: Plan | str | Path = "pancreatic_cancer",
    *,
    model: str | Path | Engine = "default",
    adapter: str | Path | None = "auto",
    ledger: str | Path | None = None,
    unvalidated: bool = False,
    lazy: bool = False,
    progress: Progress | None = None,
) -> Results:
    """Stage a batch and return its results.

    Args:
        reports: path of a CSV, TSV, Parquet, JSONL file or a folder of .txt; or `Report`s, a mapping id -> text, a
            list of mappings with id and text, a pandas data frame.
        plan: a plan, its path, or the name of a topic.
        model: `default`, path of a GGUF file, `hf:owner/repo/file.gguf`, `http://HOST:PORT#MODEL` for a model server
            on this machine or named in MEDORCHESTRA_SERVERS, or an engine (left open for the caller).
        adapter: path of a LoRA adapter for the model; `auto`: the one that lies beside the plan for this model, if
            there is one; `none`. An engine that is given has its own.
        ledger: file in which finished answers are kept, so that a run can be resumed; default none.
        unvalidated: run the plan also where it has no validation record for this model; every result is marked.
        lazy: skip questions that cannot change a report's decision any more (see `lazy_asking`): fewer tokens, the same
            decisions and reviews; probabilities are then known between bounds only.
        progress: called after every report.

    Raises:
        UnvalidatedPlanError: the plan has no validation record for this model and adapter.
        PlanError, SourceError, ModelError, StorageError: before any report is read; later only where the ledger
            cannot be written any more (StorageError) or the model's server is gone (ModelError, see `server_watch`).
            What is wrong with one report is a status of its row instead.
    """
    the_plan = plan if isinstance(plan, Plan) else read_plan(plan)
    batch = as_batch(reports)
    with opened_engine(model, _adapter(the_plan, model, adapter, plan)) as engine:
        require_validation(the_plan, engine.identity, unvalidated=unvalidated)
        with Ledger.open(Path(ledger)) if ledger is not None else nullcontext(None) as book:
            stager = Stager(the_plan, engine, book, lazy=lazy)
            staged = tuple(_watched(stager.stage(batch.reports), progress))
            return Results(the_plan, staged, stager.digests)


def stage_to_files(  # noqa: PLR0913 - as `stage`
    batch: ReportBatch,
    plan: Plan,
    out: str | Path,
    *,
    model: str | Path | Engine = "default",
    adapter: str | Path | None = "auto",
    unvalidated: bool = False,
    lazy: bool = False,
    progress: Progress | None = None,
) -> RunSummary:
    """Stage a batch into a folder: results.parquet, .csv, .jsonl, run.json; ledger.sqlite makes it resumable.

    Args:
        batch: from `read_reports`.
        plan, model, adapter, unvalidated, lazy, progress: as in `stage`.
        out: folder; made if it is not there.

    Raises:
        UnvalidatedPlanError, ModelError, StorageError: as in `stage`.
    """
    folder = Path(out)
    started_at, started = datetime.now(UTC), time.perf_counter()
    with opened_engine(model, _adapter(plan, model, adapter, None)) as engine:
        require_validation(plan, engine.identity, unvalidated=unvalidated)
        with Ledger.open(folder / "ledger.sqlite") as book:
            stager = Stager(plan, engine, book, lazy=lazy)
            counts = RunCounts(plan)
            with ResultsWriter(folder, plan, batch.reports, stager.digests) as writer:
                for staged in _watched(stager.stage(batch.reports), progress):
                    writer.add(staged)
                    counts.add(ReportCounts.of(staged))
            seconds = time.perf_counter() - started
            times = counts.times(started_at, seconds)
            run = run_facts(stager, input_facts(batch)) | {"times": times} | counts.facts()
            write_run(folder, run)
    return summary_of(counts, run)


def as_batch(reports: object) -> ReportBatch:
    """A batch from what a notebook has at hand (see `stage`).

    Raises:
        SourceError: it is none of these.
    """
    if isinstance(reports, ReportBatch):
        return reports
    if isinstance(reports, str | Path):
        return read_reports(reports)
    return batch_of(reports)


def _adapter(plan: Plan, model: str | Path | Engine, named: str | Path | None, source: object) -> Path | None:
    """The adapter meant by the arguments of `stage`."""
    return chosen_adapter(plan, model, named, plan_path(source) if isinstance(source, str | Path) else None)


def _watched(staged: Iterator[StagedReport], progress: Progress | None) -> Iterator[StagedReport]:
    for one in staged:
        yield one
        if progress is not None:
            progress(one)


def summary_of(counts: RunCounts, run: Mapping[str, Any]) -> RunSummary:
    """The summary of a run with these counts and this run.json."""
    return RunSummary(counts.reports, counts.statuses, counts.outcomes, counts.review, counts.failed_answers, run)


def input_facts(batch: ReportBatch) -> dict[str, Any]:
    """What run.json says of a batch."""
    return {"name": batch.source, "digest": batch.digest, "reports": len(batch.reports), "notes": list(batch.notes)}


def run_facts(stager: Stager, source: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json says of input, plan, model and versions; times and counts come on top.

    Args:
        stager: what stages the reports.
        source: of the input (see `input_facts`).
    """
    identity, plan = stager.engine.identity, stager.plan
    record = validation_of(plan, identity)
    calibration = plan.calibration_for(identity.digest, identity.adapter_digest)
    return {
        "medorchestra": _version("medorchestra"),
        "notice": DISCLAIMER,
        "input": dict(source),
        "plan": {
            "topic": plan.topic,
            "digest": plan.digest,
            "origin": plan.provenance.origin,
            "validated": stager.validated,
            "validation": record and record.model_dump(mode="json", include=_OF_THE_RECORD),
            "calibration": calibration and calibration.model_dump(mode="json", include=_OF_THE_CALIBRATION),
            "guideline": plan.guideline.model_dump(),
            "options": plan.option_settings,
            "profile": plan.profile.model_dump(mode="json", exclude={"head"}),
        },
        "model": {
            "name": identity.name,
            "digest": identity.digest,
            "adapter": identity.adapter,
            "adapter_digest": identity.adapter_digest,
            "settings": dict(identity.settings),
        },
        "settings_digest": stager.run_key.settings,
        "lazy": None if stager.lazy is None else stager.lazy.facts(),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("llama-cpp-python", "numpy", "pyarrow", "pydantic")},
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
