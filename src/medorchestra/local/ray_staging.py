"""Stages reports on Ray Data: model actors on every machine of a cluster, the result files where the run was started.

Reports stream in block by block, result rows stream out; nothing is held as a whole, neither here nor there. What a
worker does is in `scale_out`, how nothing is read twice is in `shared_ledger`.

**Ray is not told more than it has to know.** Report text goes to it as blocks of a dataset, and only so: a worker's
errors come back as rows, without text, and are raised here, so that Ray has no exception to log.

**A worker that is killed** is replaced by Ray, and its reports are given to a worker again, for ever if need be. A
report that ends every process that reads it must not keep a cluster busy for ever: `Tries` counts.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from medorchestra import errors
from medorchestra.errors import MedorchestraError, SourceError, StorageError
from medorchestra.local.batch import RunSummary, run_facts, summary_of
from medorchestra.local.connectors.rows import some
from medorchestra.local.engine.protocol import ModelIdentity
from medorchestra.local.executor import describe_error
from medorchestra.local.ray_cluster import ActorPool, ray_module, without_report_text
from medorchestra.local.results_files import RowsWriter, write_run
from medorchestra.local.run_counts import ReportCounts, RunCounts
from medorchestra.local.scale_out import (
    COUNTS,
    TRACE,
    EngineChoice,
    EngineMaker,
    RowOptions,
    RowStager,
    StagingJob,
    full_schema,
    require_same_model,
)
from medorchestra.local.shared_ledger import gather, workers_folder
from medorchestra.plan import Plan
from medorchestra.plan_files import plan_path, read_plan

if TYPE_CHECKING:
    from ray.data import Dataset

RETRIES = 5
"""How often the reports of a worker that died are tried again before the run is stopped."""

ERROR = f"{TRACE}error"
"""Column of a row in place of a batch that could not be staged: kind and message of the error, as JSON."""

Progress = Callable[[int, int], None]
"""Called as rows come in: reports done since the last call, tokens computed for them."""


def stage_dataset(  # noqa: PLR0913 - as `stage`
    dataset: Dataset,
    plan: Plan | str | Path = "pancreatic_cancer",
    *,
    out: str | Path,
    model: str | Path | EngineMaker = "default",
    adapter: str | Path = "auto",
    actors: int | None = None,
    threads_per_actor: int = 1,
    id_column: str | None = None,
    text_column: str | None = None,
    unvalidated: bool = False,
    lazy: bool = False,
    progress: Progress | None = None,
) -> RunSummary:
    """Stage a Ray dataset into a folder: the same files as `stage_to_files` writes, rows in the dataset's order.

    Started again, it goes on where it stopped: finished answers are in the folder's ledger. Two rows with the same id
    are two rows of the results: no one looks over the ids of a stream.

    Args:
        dataset: rows with an id and a text, read in blocks, say by `ray.data.read_parquet`.
        plan: a plan, its path, or the name of a topic.
        out: folder; all machines of the cluster must see it under this path. Their workers keep their answers there.
        model, adapter, unvalidated, lazy: as in `stage`; a path must be the same on all machines. Instead of a model:
            a function of a module that makes an engine for a plan.
        actors: workers; None: as many as the cluster has processors for.
        threads_per_actor: processor threads of each.
        id_column, text_column: as in `read_reports`.
        progress: called as rows come in.

    Raises:
        SourceError: there is no such column, or a row is no report.
        UnvalidatedPlanError, ModelError: before any report is read.
        SettingsError: the cluster has no room for so many workers.
        StorageError: a file cannot be written, or Ray gave up; what was finished stays in the ledger.
    """
    the_plan = plan if isinstance(plan, Plan) else read_plan(plan)
    maker: EngineMaker
    if isinstance(model, str | Path):
        beside = None if isinstance(plan, Plan) else plan_path(plan)
        maker = EngineChoice(str(model), str(adapter), beside, threads=threads_per_actor)
    else:
        maker = model
    options = RowOptions(id_column=id_column, text_column=text_column, unvalidated=unvalidated, lazy=lazy)
    job = StagingJob(the_plan, maker, options=options)
    pool = ActorPool(actors=actors, threads=threads_per_actor)
    return RayRun(job, Path(out), pool).stage(dataset, progress=progress)


@dataclass(frozen=True, slots=True)
class RayRun:
    """A run on the cluster that this process is connected to.

    Attributes:
        job: what the workers work on; its ledger is the one of the folder.
        folder: for the results and the ledger.
        pool: the workers.
        source: what run.json says of the input (see `input_facts`); how many reports it had is added.
    """

    job: StagingJob
    folder: Path
    pool: ActorPool
    source: Mapping[str, Any] = field(default_factory=lambda: {"name": "a Ray dataset", "digest": None, "notes": []})

    def stage(self, dataset: Dataset, *, progress: Progress | None = None) -> RunSummary:
        """Stage a dataset into the folder. See `stage_dataset`."""
        started_at, started = datetime.now(UTC), time.perf_counter()
        folder = self.folder.expanduser().absolute()
        job = replace(self.job, ledger=folder / "ledger.sqlite")
        with without_report_text(folder):
            schema = job.schema(_arrow_schema(dataset))
            counts = RunCounts(job.plan)
            with RowsWriter(folder, schema) as writer:
                gather(folder / "ledger.sqlite")
                workers_folder(folder / "ledger.sqlite").mkdir(exist_ok=True)
                identity, facts = self._begun(job)
                with tempfile.TemporaryDirectory(
                    prefix="tries-", dir=workers_folder(folder / "ledger.sqlite")
                ) as tries:
                    for table in self._staged(dataset, _WorkerJob(job, schema, identity, Tries(Path(tries)))):
                        _write(table, schema, writer, counts)
                        if progress is not None:
                            progress(table.num_rows, sum(table.column(f"{COUNTS}tokens").to_pylist()))
                gather(folder / "ledger.sqlite")
        times = counts.times(started_at, time.perf_counter() - started, engines=None)
        run = facts | {"input": dict(self.source) | {"reports": counts.reports}, "times": times} | counts.facts()
        write_run(folder, run)
        return summary_of(counts, run)

    def _begun(self, job: StagingJob) -> tuple[ModelIdentity, dict[str, Any]]:
        """What one worker says of its model, before any report is read: whether it may read at all is seen here."""
        ray = ray_module()
        look = ray.remote(num_cpus=self.pool.threads, num_gpus=self.pool.gpus, max_retries=1)(_look)
        found = ray.get(look.remote(job))
        if isinstance(found, str):
            raise _error(found)
        identity, facts = found
        return identity, facts

    def _staged(self, dataset: Dataset, work: _WorkerJob) -> Iterator[pa.Table]:
        """The result rows, in the dataset's order, as the workers finish them."""
        ray = ray_module()
        most = self.pool.most(ray.cluster_resources().get("CPU", 0))
        staged = dataset.repartition(target_num_rows_per_block=self.pool.reports_at_a_time).map_batches(
            _Worker,
            fn_constructor_args=(work,),
            batch_size=self.pool.reports_at_a_time,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=self.pool.actors or 1, max_size=most, max_tasks_in_flight_per_actor=2
            ),
            num_cpus=self.pool.threads,
            num_gpus=self.pool.gpus or None,
        )
        staged.context.execution_options.preserve_order = True
        staged.context.enable_progress_bars = False
        yield from staged.iter_batches(batch_size=None, batch_format="pyarrow")


@dataclass(frozen=True, slots=True)
class Tries:
    """How often the reports of a batch were begun and never ended, because the worker died.

    Attributes:
        folder: of one run, seen by all machines; a file for each batch that is under way, a byte for each try.
    """

    folder: Path

    @contextmanager
    def of(self, report_ids: Sequence[str]) -> Iterator[None]:
        """Count a try; forget the batch when it ends, well or with an error.

        Raises:
            StorageError: it was tried too often.
        """
        name = hashlib.sha256("\n".join(report_ids).encode("utf-8", "surrogatepass")).hexdigest()
        file = self.folder / name
        with file.open("ab") as tried:
            tried.write(b".")
        if file.stat().st_size > 1 + RETRIES:
            raise StorageError(
                f"{1 + RETRIES} workers died one after the other over the same {len(report_ids)} reports: "
                f"{some(map(repr, report_ids))}. Look at the memory of the machines; or take these reports out and "
                "stage them alone."
            )
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _WorkerJob:
    """A job, the schema of its result, the model that the run began with, and what ended its workers so far."""

    job: StagingJob
    schema: pa.Schema
    identity: ModelIdentity
    tries: Tries


class _Worker:
    """The actor. Raises nothing: what goes wrong is its answer."""

    def __init__(self, work: _WorkerJob) -> None:
        self._schema, self._tries = work.schema, work.tries
        self._problem: str | None = None
        # Ray makes an actor in one thread and calls it in others; a ledger is for one.
        self._thread = ThreadPoolExecutor(max_workers=1)
        try:
            self._stager = self._thread.submit(RowStager, work.job, ledger_made=True).result()
            require_same_model(self._stager.stager.engine.identity, work.identity)
        except Exception as error:  # noqa: BLE001 - told in place of the first batch
            self._problem = _told(error)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Result rows with traces and counts; one row with the error where there can be none."""
        if self._problem is None:
            try:
                return self._thread.submit(self._table, batch).result()
            except Exception as error:  # noqa: BLE001 - told in place of the batch
                self._problem = _told(error)
        schema = pa.schema([*full_schema(self._schema), pa.field(ERROR, pa.string())])
        return pa.Table.from_pylist([{"report_id": "", ERROR: self._problem}], schema=schema)

    def _table(self, batch: pa.Table) -> pa.Table:
        with self._tries.of([report.report_id for report in self._stager.reports(batch)]):
            table = self._stager.table(batch, schema=self._schema, full=True)
        return table.append_column(ERROR, pa.nulls(table.num_rows, pa.string()))


def _look(job: StagingJob) -> tuple[ModelIdentity, dict[str, Any]] | str:
    """On a worker: the model's identity, and what run.json says of it."""
    try:
        with RowStager(job, ledger_made=True) as worker:
            return worker.stager.engine.identity, run_facts(worker.stager, {})
    except Exception as error:  # noqa: BLE001 - raised again where the run was started
        return _told(error)


def _told(error: Exception) -> str:
    """An error as text without report text, for `_error`."""
    known = isinstance(error, MedorchestraError)
    place = f"{describe_error(error)} (message withheld: it could hold report text)"
    return json.dumps([type(error).__name__, str(error) if known else place])


def _error(told: str) -> MedorchestraError:
    """The error that a worker told of."""
    kind, message = json.loads(told)
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, MedorchestraError):
        return known(message)
    return MedorchestraError(f"a worker failed: {message}; what was finished is in the ledger")


def _write(table: pa.Table, schema: pa.Schema, writer: RowsWriter, counts: RunCounts) -> None:
    """A block of rows into the files and the counts."""
    told = [one for one in table.column(ERROR).to_pylist() if one is not None]
    if told:
        raise _error(told[0])
    writer.add_table(table.select(schema.names).cast(schema), table.column(f"{TRACE}line").to_pylist())
    named = ("status", "outcome", "review")
    columns = [*named, *(f"{COUNTS}{name}" for name in ReportCounts.numbers())]
    for row in zip(*(table.column(name).to_pylist() for name in columns), strict=True):
        counts.add(ReportCounts(*row))


def _arrow_schema(dataset: Dataset) -> pa.Schema:
    """Names and types of a dataset's columns."""
    schema = dataset.schema()
    if schema is None:
        raise SourceError("the dataset has no rows, so no columns either: nothing to stage")
    return pa.schema(list(zip(schema.names, schema.types, strict=True)))
