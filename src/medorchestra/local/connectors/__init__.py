"""Sources of reports: tables (CSV, TSV, Parquet, JSONL), folders of text files, and what a notebook has at hand.

Each kind has its module; this one tells them apart. Every text stays as it stands in its source: nothing is trimmed,
no line end is changed, no column becomes another type. What cannot be read whole is refused whole, with the place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medorchestra.errors import SourceError
from medorchestra.local.connectors.batches import ReportBatch, batch_of, content_digest_of, whole_batch
from medorchestra.local.connectors.delimited import delimited_rows
from medorchestra.local.connectors.json_lines import json_line_rows
from medorchestra.local.connectors.rows import Rows, reports_in
from medorchestra.local.connectors.tables import parquet_rows
from medorchestra.local.connectors.text_folder import reports_in_folder

__all__ = ["ReportBatch", "batch_of", "read_reports"]

_READERS: dict[str, Callable[[bytes, str, str], Rows]] = {
    ".csv": delimited_rows,
    ".tsv": delimited_rows,
    ".tab": delimited_rows,
    ".parquet": parquet_rows,
    ".pq": parquet_rows,
    ".jsonl": json_line_rows,
    ".ndjson": json_line_rows,
}
_LONGEST_PATH = 400
_MOST_WORDS = 12
"""Of a path that is not there; what has more is taken for a report."""

_KINDS = "CSV (.csv), TSV (.tsv), Parquet (.parquet), JSON lines (.jsonl), or a folder of .txt files"


def read_reports(
    source: str | Path,
    *,
    id_column: str | None = None,
    text_column: str | None = None,
    encoding: str = "utf-8",
) -> ReportBatch:
    """Read all reports of a file or folder.

    Args:
        source: a file, told by its suffix: .csv (delimiter comma, semicolon, tab or bar: whichever the header has),
            .tsv, .parquet, .jsonl; or a folder, whose .txt files are read, those in its folders too, with their path
            inside it, less the suffix, as id. Files with other suffixes are left out and counted in the notes; hidden
            ones (.name) are no reports.
        id_column: default `report_id`, `Accession Number` or a near variant. Ids stay text: 00123 keeps its zeros.
        text_column: default `text`, `Report Text` or a near variant.
        encoding: of text files; a byte order mark of UTF-8 is left out.

    Raises:
        SourceError: the source is not there, cannot be read, or holds a row that is not a report with an id of its
            own. A report without text is none of these: it becomes a row with a status.
        SettingsError: there is no such encoding.
    """
    path = _existing(source)
    if path.is_dir():
        return reports_in_folder(path, encoding=encoding)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        suffix = f"files of type {path.suffix!r}" if path.suffix else "files without a suffix"
        raise SourceError(f"{path}: {suffix} are not read; give {_KINDS}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from None
    rows = read(content, str(path), encoding) if content.strip() else Rows((), ())
    if not rows.columns:
        raise SourceError(f"{path}: the file is empty")
    reports = reports_in(rows, str(path), id_column=id_column, text_column=text_column)
    return whole_batch(reports, str(path), content_digest_of([content]))


def _existing(source: str | Path) -> Path:
    """The path, once it is there and is a file or folder."""
    path = Path(source)
    try:
        there, usable = path.exists(), path.is_file() or path.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        there, usable, reason = False, False, error.strerror or type(error).__name__
    else:
        reason = "no such file or folder"
    name = str(source)
    if not there and (len(name) > _LONGEST_PATH or len(name.split()) > _MOST_WORDS or not name.isprintable()):
        # Somebody gave a report instead of a path: the message must not repeat it.
        raise SourceError(f"a text of {len(name)} characters is no path; give {_KINDS}")
    if not there:
        raise SourceError(f"{path}: {reason}")
    if not usable:
        raise SourceError(f"{path}: neither a file nor a folder; give {_KINDS}")
    return path
