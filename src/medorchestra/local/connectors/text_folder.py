"""A folder of .txt files -> reports: one file, one report. Ids are paths inside the folder, without the suffix."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from medorchestra.errors import SourceError
from medorchestra.local.connectors.batches import ReportBatch, content_digest_of, whole_batch
from medorchestra.local.connectors.decoding import text_in
from medorchestra.local.connectors.rows import some
from medorchestra.local.records import Report


def reports_in_folder(folder: Path, *, encoding: str) -> ReportBatch:
    """All .txt files of a folder and of the folders in it, sorted by path; hidden files are no reports.

    Raises:
        SourceError: no .txt file, one that cannot be read or is not text, or two that have the same id.
        SettingsError: there is no such encoding.
    """
    chosen, others = _files(folder)
    if not chosen:
        held = f"it holds {_counted(others)}" if others else "it is empty"
        raise SourceError(
            f"{folder}: no .txt file in this folder; {held}. A table is given by its file, not its folder"
        )
    reports: list[Report] = []
    parts: list[bytes] = []
    for path in chosen:
        name = path.relative_to(folder)
        where = str(path) if str(path).isprintable() else repr(str(path))
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SourceError(f"{where}: cannot be read: {error.strerror or type(error).__name__}") from None
        reports.append(Report(name.with_suffix("").as_posix(), text_in(content, where, encoding)))
        parts += [name.as_posix().encode("utf-8", "surrogatepass"), content]
    notes = (f"left out, because they are no .txt files: {_counted(others)}",) if others else ()
    return whole_batch(reports, str(folder), content_digest_of(parts), notes=notes)


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The .txt files, and all others."""
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    found.sort(key=lambda path: path.relative_to(folder).as_posix())
    chosen = [path for path in found if path.suffix.lower() == ".txt"]
    return chosen, [path for path in found if path.suffix.lower() != ".txt"]


def _counted(files: list[Path]) -> str:
    kinds = Counter(path.suffix.lower() or "no suffix" for path in files)
    return some(f"{count} {kind!r}" for kind, count in kinds.most_common())
