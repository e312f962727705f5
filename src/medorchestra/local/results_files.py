"""Writes the results of a batch as it goes: results.parquet, results.csv, results.jsonl, and run.json at the end.

Files are written under a temporary name and take their final name when the batch is complete: a result file that is
there is whole, and a run.json that is there belongs to the result files beside it. One run at a time writes into a
folder.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from medorchestra.errors import StorageError
from medorchestra.local.connectors.tables import table_rows
from medorchestra.local.records import Report
from medorchestra.local.result_table import arrow_rows, cell_text, result_schema, table_row
from medorchestra.local.staged_report import StagedReport
from medorchestra.local.trace import to_trace
from medorchestra.plan import Plan

ROWS_A_GROUP = 1_000

RESULT_FILES = ("results.parquet", "results.csv", "results.jsonl")
RUN_FILE = "run.json"


class RowsWriter:
    """Takes result rows with their traces, whoever staged them, and writes the three result files.

    Raises:
        StorageError: the folder or a file cannot be written, or another run is writing into the folder.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder = folder
        self._schema = schema
        self._waiting: list[pa.Table] = []
        with _explained(folder), ExitStack() as opened:
            folder.mkdir(parents=True, exist_ok=True)
            opened.enter_context(_claimed(folder))
            opened.callback(self._remove_parts)
            self._parquet = opened.enter_context(pq.ParquetWriter(self._part("results.parquet"), self._schema))
            self._csv_file = opened.enter_context(self._text_file("results.csv"))
            self._jsonl = opened.enter_context(self._text_file("results.jsonl"))
            self._csv = csv.DictWriter(self._csv_file, self._schema.names)
            self._csv.writeheader()
            self._opened = opened.pop_all()

    def _part(self, name: str) -> Path:
        return self.folder / f".{name}.part"

    def _text_file(self, name: str) -> TextIO:
        # A lone surrogate is no valid UTF-8; its escape is, and in JSON it reads back as the same character.
        return self._part(name).open("w", encoding="utf-8", errors="backslashreplace", newline="")

    def _remove_parts(self) -> None:
        for name in RESULT_FILES:
            self._part(name).unlink(missing_ok=True)

    def add_table(self, table: pa.Table, traces: Iterable[str]) -> None:
        """Write several reports to all files: rows of the writer's schema, and a line of JSON for each."""
        for row, trace in zip(table_rows(table, "results").rows, traces, strict=True):
            self._write_lines(row.fields, trace)
        self._waiting.append(table)
        if sum(waiting.num_rows for waiting in self._waiting) >= ROWS_A_GROUP:
            self._flush()

    def _write_lines(self, row: Mapping[str, object], trace: str) -> None:
        with _explained(self.folder):
            self._csv.writerow({name: cell_text(value) for name, value in row.items()})
            self._jsonl.write(f"{trace}\n")

    def _flush(self) -> None:
        if self._waiting:
            with _explained(self.folder):
                self._parquet.write_table(pa.concat_tables(self._waiting))
            self._waiting = []

    def _finish(self) -> None:
        """Close the files, and give them their names only once all of them are on the disk."""
        self._flush()
        for file in (self._parquet, self._csv_file, self._jsonl):
            file.close()
        for name in RESULT_FILES:
            _sync(self._part(name))
        (self.folder / RUN_FILE).unlink(missing_ok=True)  # it describes the files that are now replaced
        for name in RESULT_FILES:
            self._part(name).replace(self.folder / name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            with _explained(self.folder), self._opened:
                if kind is None:
                    self._finish()
        except StorageError:
            if kind is None:  # else the error that ended the batch is the one to show
                raise


class ResultsWriter(RowsWriter):
    """Takes staged reports one by one and writes the three result files.

    Raises:
        StorageError: as `RowsWriter`.
    """

    def __init__(self, folder: Path, plan: Plan, reports: Sequence[Report], digests: Mapping[str, str | None]) -> None:
        super().__init__(folder, result_schema(plan, reports))
        self._digests = digests
        self._rows: list[dict[str, Any]] = []

    def add(self, staged: StagedReport) -> None:
        """Write one report to all files."""
        row = table_row(staged)
        self._write_lines(row, trace_line(staged, self._digests))
        self._rows.append(row)
        if len(self._rows) >= ROWS_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._waiting.append(arrow_rows(self._rows, self._schema))
            self._rows = []
        super()._flush()


def trace_line(staged: StagedReport, digests: Mapping[str, str | None]) -> str:
    """The full trace as one line of results.jsonl."""
    return json.dumps(to_trace(staged, digests), ensure_ascii=False)


def write_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Write run.json whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    part = folder / f".{RUN_FILE}.part"
    with _explained(folder):
        try:
            part.write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n", "utf-8", "backslashreplace")
            _sync(part)
            part.replace(folder / RUN_FILE)
        finally:
            part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have a file on the disk before it takes its name: a power cut could else leave the name without the content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder. The lock goes with the process, however it ends."""
    if sys.platform == "win32":  # no such lock there: two runs at a time are for the user to avoid
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"{folder}: another run is writing its results here. Wait until it has ended, or give another folder."
            ) from None
        except OSError:
            pass  # a file system without locks: as above
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{folder}: results cannot be written: {error.strerror or type(error).__name__}. Make room, or a folder "
            "that can be written, then run the same command again: finished answers stay in the ledger."
        ) from None
