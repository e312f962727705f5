"""Publishes a plan: the folder that may leave the building or be shared, with all that it needs and a manifest.

Decides what goes in, and refuses what must stay: adapters that are not known to be trained on synthetic text alone, and
calibrations that were fitted to a hospital's own reports. Writes a folder; sends nothing. Whether cases are invented is
not to be seen from them: whoever names their folder says so.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from medorchestra.errors import EgressError, GuidelineError, ModelError, SettingsError, StorageError
from medorchestra.local.adapters import FOLDER, TRAINED_ON_KEY
from medorchestra.local.engine.gguf_file import file_digest, read_gguf_header
from medorchestra.plan import Plan
from medorchestra.plan_files import format_plan, plan_path, read_plan
from medorchestra.plan_views.plan_page import DISCLAIMER
from medorchestra.synthetic import SyntheticCase, read_cases, write_cases
from medorchestra.topics import guideline_folder

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class Published:
    """A plan that was published.

    Attributes:
        folder: where it lies.
        files: path in the folder -> `sha256:…` of its bytes; all files but the manifest.
        local_calibrations: how many were left out, because they were fitted to a hospital's own reports.
    """

    folder: Path
    files: Mapping[str, str]
    local_calibrations: int


@dataclass(frozen=True, slots=True)
class _Adapter:
    """An adapter that may leave: where it lies, its digest, and the bytes of its training record."""

    path: Path
    digest: str
    record: bytes


@dataclass(frozen=True, slots=True)
class _Bundle:
    """What will lie in the folder."""

    plan: Plan
    guideline: bytes | None
    adapters: Sequence[_Adapter]
    cases: Sequence[SyntheticCase]


def publish(
    source: str | Path, out: str | Path, *, guideline: str | Path | None = None, cases: str | Path | None = None
) -> Published:
    """Write the folder of a plan that may leave; it is there as a whole or not at all.

    It holds plan.yaml with its validation records and the calibrations on synthetic cases, guideline.md, `adapters/`
    with their training records, `cases/` where asked for, and manifest.json.

    Args:
        source: path of a plan file, or name of a topic; its adapters lie in `adapters/` beside it.
        out: a new or an empty folder.
        guideline: the text that the plan was made from; default guideline.md beside the plan, or its topic's, where
            that is the very text. Without one, the folder has none.
        cases: folder of synthetic cases, or name of a topic; default none.

    Raises:
        EgressError: an adapter must not leave, or it cannot be told; names each with the reason.
        PlanError, CaseError, GuidelineError: not there, not valid, or not the text that the plan was made from.
        SettingsError: there is something in `out`.
        StorageError: it cannot be written.
    """
    plan, path, folder = read_plan(source), plan_path(source), Path(out).resolve()
    _refuse_taken(folder)
    kept = tuple(one for one in plan.calibrations if one.labels == "synthetic")
    bundle = _Bundle(
        plan.model_copy(update={"calibrations": kept}),
        _guideline_text(plan, path, guideline),
        _adapters_that_may_leave(path.parent / FOLDER),
        () if cases is None else read_cases(cases),
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
            written = Path(beside) / folder.name
            files = _write(bundle, written)
            written.replace(folder)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror}; check folder and free space") from None
    return Published(folder, files, len(plan.calibrations) - len(kept))


def _refuse_taken(folder: Path) -> None:
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read: {error.strerror}; name another folder") from None
    if taken:
        raise SettingsError(f"{folder}: there is something already; name a new or an empty folder with --out")


# ------------------------------------------------------------------------------------ what goes in


def _guideline_text(plan: Plan, plan_file: Path, given: str | Path | None) -> bytes | None:
    """The text that the plan was made from, or None where none was named and none is found."""
    beside = (plan_file.parent / "guideline.md", guideline_folder(plan.topic) / "guideline.md")
    for place in beside if given is None else (Path(given),):
        if given is None and not place.is_file():
            continue
        try:
            text = place.read_bytes()
        except OSError as error:
            raise GuidelineError(f"{place}: cannot be read: {error.strerror}") from None
        digest = hashlib.sha256(text.removeprefix(codecs.BOM_UTF8)).hexdigest()
        if plan.guideline.digest == f"sha256:{digest}":
            return text
    if given is not None:
        raise GuidelineError(
            f"{given}: not the text that the plan was made from (its digest is another than the plan's); name that "
            "text, or leave --guideline out"
        )
    return None


def _adapters_that_may_leave(folder: Path) -> list[_Adapter]:
    """The adapters in a folder, all of them.

    Raises:
        EgressError: one of them must stay, or it cannot be told.
    """
    leaving: list[_Adapter] = []
    staying: list[str] = []
    for path in sorted(folder.glob("*.gguf")) if folder.is_dir() else ():
        try:
            leaving.append(_checked_adapter(path))
        except (EgressError, ModelError) as error:
            staying.append(f"  {str(error).removeprefix(f'{path}: ')} ({path})")
    if staying:
        count = f"{len(staying)} of {len(leaving) + len(staying)} adapters"
        raise EgressError(
            f"{folder}: nothing was published, {count} must stay:\n"
            + "\n".join(staying)
            + "\nmove them out of that folder, or train them anew on synthetic cases with `medorchestra finetune`"
        )
    return leaving


def _checked_adapter(path: Path) -> _Adapter:
    """An adapter of which file and record both say that it was trained on synthetic text alone."""
    header, record_path = read_gguf_header(path), path.with_suffix(".json")
    said, (text, record) = header.text(TRAINED_ON_KEY), _training_record(record_path)
    if "clinical" in (said, record.get("trained_on")):
        raise EgressError("trained on clinical text: it must never leave the hospital")
    if not header.is_adapter:
        raise EgressError("a model, not an adapter")
    if said != "synthetic":
        raise EgressError(f"does not say what it was trained on (no `{TRAINED_ON_KEY}` in its metadata)")
    if not record:
        raise EgressError(f"has no readable training record {record_path.name} beside it")
    digest = file_digest(path)
    if record.get("adapter_digest") != digest:
        raise EgressError(f"its training record {record_path.name} is that of another file (the digests differ)")
    if record.get("trained_on") != said:
        raise EgressError(f"its training record {record_path.name} does not say that it was trained on synthetic text")
    return _Adapter(path, digest, text)


def _training_record(path: Path) -> tuple[bytes, dict[str, Any]]:
    """A record's bytes and content; empty where it is not there or not a record."""
    try:
        text = path.read_bytes()
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return b"", {}
    return (text, content) if isinstance(content, dict) else (b"", {})


# ------------------------------------------------------------------------------------ writing


def _write(bundle: _Bundle, folder: Path) -> dict[str, str]:
    """Write all files of the bundle into a new folder, the manifest last; the others' digests."""
    folder.mkdir()
    (folder / "plan.yaml").write_text(format_plan(bundle.plan), encoding="utf-8")
    if bundle.guideline is not None:
        (folder / "guideline.md").write_bytes(bundle.guideline)
    if bundle.adapters:
        (folder / FOLDER).mkdir()
    for adapter in bundle.adapters:
        copy = folder / FOLDER / adapter.path.name
        shutil.copyfile(adapter.path, copy)
        if file_digest(copy) != adapter.digest:
            raise EgressError(f"{adapter.path}: changed while it was copied; run the command again")
        copy.with_suffix(".json").write_bytes(adapter.record)
    write_cases(bundle.cases, folder / "cases")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}
    manifest = {
        "schema_version": 1,
        "topic": bundle.plan.topic,
        "plan_digest": bundle.plan.digest,
        "published": datetime.now(UTC).isoformat(timespec="seconds"),
        "medorchestra": _version(),
        "notice": DISCLAIMER,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return files


def _version() -> str | None:
    try:
        return version("medorchestra")
    except PackageNotFoundError:
        return None
