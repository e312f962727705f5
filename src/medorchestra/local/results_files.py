"""Writes the results of a batch as it goes: results.parquet, results.csv, results.jsonl, and run.json at the end.

Files are written under a temporary name and take their final name when the batch is complete, so that a result file
that is there is whole.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import pyarrow.parquet as pq

from medorchestra.errors import StorageError
from medorchestra.local.records import Report
from medorchestra.local.result_table import arrow_rows, result_schema, table_row
from medorchestra.local.staged_report import StagedReport
from medorchestra.local.trace import to_trace
from medorchestra.plan import Plan

ROWS_A_GROUP = 1_000


class ResultsWriter:
    """Takes staged reports one by one and writes the three result files.

    Raises:
        StorageError: the folder or a file cannot be written.
    """

    def __init__(self, folder: Path, plan: Plan, reports: Sequence[Report], digests: Mapping[str, str | None]) -> None:
        self.folder = folder
        self._digests = digests
        self._schema = result_schema(plan, reports)
        self._waiting: list[dict[str, Any]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._parquet = pq.ParquetWriter(self._part("results.parquet"), self._schema)
            self._csv_file: TextIO = self._part("results.csv").open("w", encoding="utf-8", newline="")
            self._jsonl: TextIO = self._part("results.jsonl").open("w", encoding="utf-8")
        except OSError as error:
            raise _not_writable(folder, error) from None
        self._csv = csv.DictWriter(self._csv_file, self._schema.names)
        self._csv.writeheader()

    def _part(self, name: str) -> Path:
        return self.folder / f".{name}.part"

    def add(self, staged: StagedReport) -> None:
        """Write one report to all files."""
        row = table_row(staged)
        try:
            self._csv.writerow({name: "" if value is None else value for name, value in row.items()})
            trace = to_trace(staged, self._digests)
            self._jsonl.write(json.dumps(trace, ensure_ascii=False, default=str) + "\n")
            self._waiting.append(row)
            if len(self._waiting) >= ROWS_A_GROUP:
                self._flush()
        except OSError as error:
            raise _not_writable(self.folder, error) from None

    def _flush(self) -> None:
        if self._waiting:
            self._parquet.write_table(arrow_rows(self._waiting, self._schema))
            self._waiting = []

    def __enter__(self) -> ResultsWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
            self._parquet.close()
            self._csv_file.close()
            self._jsonl.close()
            for name in ("results.parquet", "results.csv", "results.jsonl"):
                if kind is None:
                    self._part(name).replace(self.folder / name)
                else:
                    self._part(name).unlink(missing_ok=True)
        except OSError as error:
            if kind is None:
                raise _not_writable(self.folder, error) from None


def write_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Write run.json whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    part = folder / ".run.json.part"
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(run, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / "run.json")
    except OSError as error:
        raise _not_writable(folder, error) from None


def _not_writable(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{folder}: cannot be written: {error.strerror or type(error).__name__}. "
        "Finished answers are in its ledger; free the folder and run the same command again."
    )
