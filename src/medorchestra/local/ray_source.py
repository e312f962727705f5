"""Input files -> Ray datasets: Parquet is streamed, every other kind is read here as ever and handed over.

Ids are looked over before any report is read, as `read_reports` does: each there, each once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medorchestra.errors import SourceError
from medorchestra.local.batch import input_facts
from medorchestra.local.connectors import ReportBatch, read_reports
from medorchestra.local.connectors.columns import ID_COLUMN, TEXT_COLUMN, find_column, refuse_repeats
from medorchestra.local.connectors.rows import Row, Rows, reports_in, some
from medorchestra.local.ray_cluster import ray_module
from medorchestra.local.result_table import arrow_rows, carried_type

if TYPE_CHECKING:
    from ray.data import Dataset

    from medorchestra.local.scale_out import RowOptions

PARQUET: Final = (".parquet", ".pq")
ROWS_A_BLOCK: Final = 1_000
"""Of what is handed over from memory."""


def read_dataset(source: Path, options: RowOptions, *, encoding: str = "utf-8") -> tuple[Dataset, dict[str, Any]]:
    """A file or folder as a dataset with the columns that `options` name or imply, and what run.json says of it.

    A Parquet file has to be seen by all machines of the cluster under the same path; of it, only ids are read here.

    Raises:
        SourceError, SettingsError: as `read_reports`.
    """
    ray = ray_module()
    if source.suffix.lower() in PARQUET and source.is_file():
        facts = look_over(source, options)
        return ray.data.read_parquet(str(source.absolute())), facts
    batch = read_reports(source, id_column=options.id_column, text_column=options.text_column, encoding=encoding)
    table = reports_table(batch, options)
    blocks = [table.slice(start, ROWS_A_BLOCK) for start in range(0, table.num_rows, ROWS_A_BLOCK)]
    return ray.data.from_arrow(blocks), input_facts(batch)


def reports_table(batch: ReportBatch, options: RowOptions) -> pa.Table:
    """Reports in memory as a table; its first two columns are those of ids and texts that `options` lead to."""
    id_name, text_name = options.id_column or ID_COLUMN.names[0], options.text_column or TEXT_COLUMN.names[0]
    names = dict.fromkeys(name for report in batch.reports for name in report.carried)
    fields = [pa.field(id_name, pa.string()), pa.field(text_name, pa.string())]
    fields += [pa.field(name, carried_type(batch.reports, name)) for name in names]
    rows = ({id_name: one.report_id, text_name: one.text, **one.carried} for one in batch.reports)
    return arrow_rows(rows, pa.schema(fields))


def look_over(path: Path, options: RowOptions) -> dict[str, Any]:
    """Check the ids of a Parquet file, some thousand at a time; what run.json says of the file.

    Raises:
        SourceError: it is no Parquet file, has no such columns, no rows, an id that is none, or one that stands twice.
    """
    try:
        with pq.ParquetFile(path) as file:
            return _looked_over(file, path, options)
    except (pa.ArrowException, OSError):
        pass  # raised below: Arrow's messages may hold values
    raise SourceError(f"{path}: cannot be read as Parquet: damaged, cut off, or another kind of file")


def _looked_over(file: pq.ParquetFile, path: Path, options: RowOptions) -> dict[str, Any]:
    names, where = file.schema_arrow.names, str(path)
    refuse_repeats(names, where)
    id_name = find_column(names, ID_COLUMN, options.id_column, where)
    text_name = find_column(names, TEXT_COLUMN, options.text_column, where)
    marks = [np.array([_mark(one) for one in ids], np.uint64) for ids in _ids(file, where, id_name, text_name)]
    if not marks:
        raise SourceError(f"{where}: no reports in it")
    values, times = np.unique(np.concatenate(marks), return_counts=True)
    if suspects := {int(value) for value in values[times > 1]}:
        found = Counter(one for ids in _ids(file, where, id_name, text_name) for one in ids if _mark(one) in suspects)
        if repeated := [one for one, count in found.items() if count > 1]:
            stand = "id stands" if len(repeated) == 1 else "ids stand"
            raise SourceError(
                f"{where}: {len(repeated)} {stand} for more than one report: {some(map(repr, repeated))}; "
                "make them unique in the source"
            )
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"name": where, "digest": f"sha256:{digest}", "reports": int(times.sum()), "notes": []}


def _ids(file: pq.ParquetFile, where: str, id_name: str, text_name: str) -> Iterator[list[str]]:
    """The ids as `read_reports` takes them, checked, a batch at a time."""
    before = 0
    for batch in file.iter_batches(columns=[id_name]):
        ids = batch.column(0).to_pylist()
        rows = [Row(f"row {before + i}", {id_name: one, text_name: ""}) for i, one in enumerate(ids, start=1)]
        before += len(rows)
        reports = reports_in(Rows((id_name, text_name), rows), where, id_column=id_name, text_column=text_name)
        yield [report.report_id for report in reports]


def _mark(report_id: str) -> int:
    """Eight bytes in place of an id: a million ids then take eight megabytes."""
    digest = hashlib.blake2b(report_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
