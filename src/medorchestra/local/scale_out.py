"""Stages rows on any worker of any scheduler: opens the engine once, turns batches of rows into result rows.

A `StagingJob` says everything a worker has to know and can be sent to it (pickle). A `RowStager` is the worker: what it
makes has the columns of results.parquet, and with the traces and counts beside them, where asked for, all that the
result files need. `ray_staging` runs it on Ray Data; for Spark, `stage_frames` is a function for `mapInPandas`:

    from functools import partial
    from pyspark.sql.pandas.types import from_arrow_schema
    import medorchestra as mo
    from medorchestra.local.scale_out import EngineChoice, StagingJob, stage_frames

    plan = mo.read_plan("pancreatic_cancer")
    job = StagingJob(plan, EngineChoice(threads=1), ledger="/shared/run/ledger.sqlite")
    schema = from_arrow_schema(job.schema(reports.limit(0).toArrow().schema), prefer_timestamp_ntz=True)
    staged = reports.mapInPandas(partial(stage_frames, job=job), schema)
    staged.write.parquet("/shared/run/results")

Knows no scheduler, writes no result file. Errors name columns, rows and counts, never report text.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from medorchestra.errors import MedorchestraError, ModelError, SourceError
from medorchestra.local.adapters import chosen_adapter, no_adapter
from medorchestra.local.connectors.batches import batch_of
from medorchestra.local.connectors.columns import ID_COLUMN, TEXT_COLUMN, find_column
from medorchestra.local.connectors.rows import reports_in
from medorchestra.local.connectors.tables import table_rows
from medorchestra.local.engine.protocol import Engine, ModelIdentity
from medorchestra.local.engine.server_address import is_server_url
from medorchestra.local.executor import describe_error
from medorchestra.local.records import Report
from medorchestra.local.result_table import arrow_rows, cell_text, result_row, table_row, typed_result_schema
from medorchestra.local.results_files import trace_line
from medorchestra.local.run_counts import ReportCounts
from medorchestra.local.shared_ledger import SharedLedger
from medorchestra.local.staged_report import StagedReport
from medorchestra.local.staging import Stager
from medorchestra.local.validation import require_validation
from medorchestra.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

TRACE = "trace."
COUNTS = "counts."
"""Begin the names of columns that go beside the result's own, for the result files: no result column is named so."""

IN_A_BATCH = "a batch of reports"
"""What messages call rows that a scheduler hands over: which of them they are, only it knows."""

_ROUNDED_FROM = float(2**53)
"""From here on a float does not hold every whole number."""

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")

EngineMaker: TypeAlias = Callable[[Plan], Engine]
"""Opens an engine on a worker. Must survive pickle: a function of a module, or an `EngineChoice`."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which model reads, as options of `stage`; called on a worker, opens it there.

    Attributes:
        model: `default`, a path, `hf:…` or a model server, as in `stage`. A path must be the same on all machines.
        adapter: `auto`, `none` or a path, as in `stage`.
        plan_file: beside which adapters are looked for.
        context_tokens, gpu_layers, threads: as `LlamaCppEngine` takes them; threads are those of one worker.
        servers: model servers that may be spoken to, as `ServerEngine` takes them.
    """

    model: str = "default"
    adapter: str | None = "auto"
    plan_file: Path | None = None
    context_tokens: int | None = None
    gpu_layers: int = 0
    threads: int | None = None
    servers: tuple[str, ...] = ()

    def __call__(self, plan: Plan) -> Engine:
        """The engine, loaded.

        Raises:
            ModelError, SettingsError: as the engines raise them.
        """
        # Workers lie beside others: threads that spin while they wait would take the processor from them. Read when
        # llama.cpp's OpenMP library is loaded, so in time.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        if is_server_url(self.model):
            from medorchestra.local.engine.server import ServerEngine

            no_adapter(self.adapter)
            return ServerEngine(self.model, allow=self.servers, context_tokens=self.context_tokens)
        from medorchestra.local.engine.llama_cpp import LlamaCppEngine

        adapter = chosen_adapter(plan, self.model, self.adapter, self.plan_file)
        return LlamaCppEngine(
            self.model,
            adapter=adapter,
            context_tokens=self.context_tokens,
            gpu_layers=self.gpu_layers,
            threads=self.threads,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """How rows are read and staged.

    Attributes:
        id_column, text_column: as in `read_reports`.
        unvalidated, lazy: as in `stage`.
    """

    id_column: str | None = None
    text_column: str | None = None
    unvalidated: bool = False
    lazy: bool = False


@dataclass(frozen=True, slots=True)
class StagingJob:
    """Everything a worker has to know.

    Attributes:
        plan: the plan.
        engine: opens the engine on the worker.
        ledger: path of the ledger that all workers share (see `shared_ledger`); None: nothing is kept.
        options: see `RowOptions`.
    """

    plan: Plan
    engine: EngineMaker
    ledger: str | Path | None = None
    options: RowOptions = RowOptions()

    def schema(self, columns: pa.Schema) -> pa.Schema:
        """The schema of the result rows: of results.parquet.

        Args:
            columns: of the rows with the reports; all but id and text are carried into the results.

        Raises:
            SourceError: there is no column with ids, or none with texts.
        """
        return typed_result_schema(self.plan, {name: columns.field(name).type for name in self.carried(columns.names)})

    def carried(self, names: list[str]) -> list[str]:
        """The columns that are carried into the results. Raises as `schema`."""
        taken = {
            find_column(names, ID_COLUMN, self.options.id_column, IN_A_BATCH),
            find_column(names, TEXT_COLUMN, self.options.text_column, IN_A_BATCH),
        }
        return [name for name in names if name not in taken]


class RowStager:
    """A worker: engine and ledger, opened once. For one thread of one process.

    Attributes:
        job: what it works on.
        stager: what stages one report.
    """

    def __init__(self, job: StagingJob, *, ledger_made: bool = False) -> None:
        """Open the engine and the ledger.

        Args:
            job: what to work on.
            ledger_made: as `existing` of `SharedLedger.open`.

        Raises:
            UnvalidatedPlanError, ModelError, SettingsError, StorageError: as `stage`.
        """
        self.job = job
        with ExitStack() as opened:
            engine = job.engine(job.plan)
            opened.callback(engine.close)
            require_validation(job.plan, engine.identity, unvalidated=job.options.unvalidated)
            ledger = None
            if job.ledger is not None:
                ledger = opened.enter_context(SharedLedger.open(job.ledger, existing=ledger_made))
            self.stager = Stager(job.plan, engine, ledger, lazy=job.options.lazy)
            self._opened = opened.pop_all()

    def table(self, batch: pa.Table, *, schema: pa.Schema | None = None, full: bool = False) -> pa.Table:
        """The result rows of a batch, in its order.

        Args:
            batch: rows with the reports.
            schema: of the result (see `StagingJob.schema`); None: as the batch's own columns have it.
            full: with the columns of traces and counts behind (see `full_schema`).

        Raises:
            SourceError: a row is no report (see `read_reports`), or a carried value does not fit the schema.
            StorageError: the ledger cannot be read or written.
        """
        schema = schema or self.job.schema(batch.schema)
        staged = [self.stager.stage_one(report) for report in self.reports(batch)]
        names = self.job.carried(batch.column_names)
        return self._assembled(batch, staged, names, full_schema(schema) if full else schema)

    def reports(self, batch: pa.Table) -> tuple[Report, ...]:
        """The reports of a batch. Raises SourceError where a row is none."""
        ids, texts = self.job.options.id_column, self.job.options.text_column
        return reports_in(table_rows(batch, IN_A_BATCH), IN_A_BATCH, id_column=ids, text_column=texts)

    def _assembled(self, batch: pa.Table, staged: list[StagedReport], names: list[str], schema: pa.Schema) -> pa.Table:
        """Carried columns as they came, between the id and what was found."""
        rows = [result_row(one) for one in staged]
        if f"{TRACE}line" in schema.names:
            rows = [row | self._beside(one) for row, one in zip(rows, staged, strict=True)]
        carried = range(1, 1 + len(names))
        own = pa.schema([field for i, field in enumerate(schema) if i not in carried])
        table = arrow_rows(rows, own)
        for i, name in zip(carried, names, strict=True):
            table = table.add_column(i, schema.field(i), _kept(batch.column(name), schema.field(i)))
        return table

    def _beside(self, staged: StagedReport) -> dict[str, Any]:
        counts = ReportCounts.of(staged)
        numbers = {f"{COUNTS}{name}": getattr(counts, name) for name in ReportCounts.numbers()}
        return {f"{TRACE}line": cell_text(trace_line(staged, self.stager.digests))} | numbers

    def frame(self, frame: pd.DataFrame) -> pd.DataFrame:
        """As `table`, for pandas; whole numbers with gaps come out as objects, so that none is rounded.

        Raises:
            SourceError: as `table`; or a column has values of several types, or was rounded on its way here.
        """
        try:
            batch = pa.Table.from_pandas(frame, preserve_index=False)
        except (pa.ArrowException, TypeError, ValueError):
            batch = None  # raised below: Arrow's messages may hold values
        if batch is None:
            raise SourceError(f"{IN_A_BATCH}: a column holds values of several types; give it one, text if need be")
        _require_unrounded(batch)
        return self.table(batch).to_pandas(integer_object_nulls=True)

    def close(self) -> None:
        """Close engine and ledger. Idempotent."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def full_schema(schema: pa.Schema) -> pa.Schema:
    """A result's schema with the columns for the other result files behind: the trace as a line of JSON, and counts."""
    numbers = [pa.field(f"{COUNTS}{name}", pa.int64()) for name in ReportCounts.numbers()]
    return pa.schema([*schema, pa.field(f"{TRACE}line", pa.string()), *numbers])


def _kept(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """A carried column in the type that the results have for it."""
    if column.type == field.type:
        return column
    if pa.types.is_string(field.type):
        return pa.chunked_array([[cell_text(value) for value in column.to_pylist()]], field.type)
    try:
        return column.cast(field.type)
    except pa.ArrowException:
        pass  # its message may hold values
    raise SourceError(
        f"{IN_A_BATCH}: carried column {field.name!r} is {column.type} here and {field.type} elsewhere; "
        "give it one type in the source"
    )


def _require_unrounded(batch: pa.Table) -> None:
    """Refuse whole numbers that a data frame had to hold as floats, for gaps between them, and so has rounded.

    A record's number that is another record's number is worse than a run that stops.
    """
    for name in batch.column_names:
        column = batch.column(name)
        if not pa.types.is_float64(column.type) or not column.null_count:
            continue
        largest = pc.max(pc.abs(column)).as_py()
        if largest is None or not _ROUNDED_FROM <= largest < math.inf:
            continue
        if pc.all(pc.equal(pc.trunc(column), column)).as_py():
            raise SourceError(
                f"{IN_A_BATCH}: column {name!r} holds whole numbers of 2^53 and more beside missing values, which "
                "pandas rounds as floats; make it text, or let the frame hold it as Int64"
            )


def require_same_model(found: ModelIdentity, wanted: ModelIdentity) -> None:
    """Refuse a worker that has another model or adapter under the same name.

    Raises:
        ModelError: the digests differ.
    """
    if (found.digest, found.adapter_digest) != (wanted.digest, wanted.adapter_digest):
        raise ModelError(
            f"model {found.name} with adapter {found.adapter} is another file on this machine ({found.digest[:19]}, "
            f"{(found.adapter_digest or 'no adapter')[:19]}) than where the run began ({wanted.digest[:19]}, "
            f"{(wanted.adapter_digest or 'no adapter')[:19]}); give all machines the same files"
        )


def stage_rows(rows: Iterable[Mapping[str, object]], job: StagingJob) -> Iterator[dict[str, Any]]:
    """Stage rows one by one, as they come: mappings with id and text in, result rows out.

    The engine is opened with the first row and closed after the last.

    Raises:
        UnvalidatedPlanError, ModelError, SettingsError, StorageError: as `stage`.
        SourceError: a row is no report.
    """
    options = job.options
    with RowStager(job) as worker:
        for row in rows:
            batch = batch_of([row], id_column=options.id_column, text_column=options.text_column)
            yield table_row(worker.stager.stage_one(batch.reports[0]))


_OPEN: list[RowStager] = []
"""The worker of this process, at most one: Spark runs task after task in one Python process."""


def stage_frames(frames: Iterable[pd.DataFrame], job: StagingJob) -> Iterator[pd.DataFrame]:
    """Data frames with reports in, data frames with result rows out: for Spark's `mapInPandas`.

    The engine is opened once in a process and stays open for the next call with the same job.

    Raises:
        as `stage_rows`.
        MedorchestraError: what nobody foresaw, by kind and place.
    """
    worker = _without_report_text(_worker_for, job)
    for frame in frames:
        yield _without_report_text(worker.frame, frame)


def _worker_for(job: StagingJob) -> RowStager:
    """The worker of this process, opened where there is none for this job."""
    while _OPEN and _OPEN[0].job != job:
        _OPEN.pop().close()
    if not _OPEN:
        _OPEN.append(RowStager(job))
    return _OPEN[0]


def _without_report_text(step: Callable[[_Given], _Made], given: _Given) -> _Made:
    """A step whose errors may be seen: Spark puts messages, with all that led to them, into its logs."""
    try:
        return step(given)
    except MedorchestraError as error:
        raise error from None
    except Exception as error:  # noqa: BLE001 - raised below, without its message
        place = describe_error(error)
    raise MedorchestraError(f"a worker failed: {place} (message withheld: it could hold report text)")
