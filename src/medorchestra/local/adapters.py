"""Finds the adapter that was trained for a plan and a model: it lies in `adapters/` beside the plan, or in its topic.

Reads headers only; loads nothing. An adapter says itself, in its metadata, for which base and which questions it was
trained; one that says something else is passed over, since a wrong adapter is worse than none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from medorchestra.errors import ModelError, SettingsError
from medorchestra.local.engine.adapter_fit import BASE_DIGEST
from medorchestra.local.engine.gguf_file import file_digest, read_gguf_header
from medorchestra.local.engine.model_files import find_model
from medorchestra.local.engine.protocol import Engine
from medorchestra.local.engine.server_address import is_server_url
from medorchestra.plan import Plan
from medorchestra.topics import guideline_folder

FOLDER: Final = "adapters"
QUESTIONS_KEY: Final = "medorchestra.questions_digest"
TRAINED_ON_KEY: Final = "medorchestra.trained_on"


def find_adapter(plan: Plan, model: str | Path, beside: Path | None = None) -> Path | None:
    """The adapter for this plan and model, or None.

    Args:
        plan: the plan, as it will be run.
        model: the GGUF that will run it, as `find_model` takes it; looked for only where there is an adapter at all.
        beside: the plan's file. Where nothing that fits lies beside it (it is a copy with a calibration of its own,
            say), and without it, the topic's folder is looked in.

    Raises:
        ModelError: several adapters fit, so that one has to be named; a file there is no whole GGUF; or there is no
            such model.
    """
    folders = dict.fromkeys(([beside.parent] if beside is not None else []) + [guideline_folder(plan.topic)])
    for folder in folders:
        fitting = _fitting(plan, model, folder / FOLDER)
        if len(fitting) > 1:
            names = ", ".join(path.name for path in fitting)
            raise ModelError(
                f"{folder / FOLDER}: {len(fitting)} adapters fit this plan and model ({names}); name one with --adapter"
            )
        if fitting:
            return fitting[0]
    return None


def _fitting(plan: Plan, model: str | Path, folder: Path) -> list[Path]:
    headers = [read_gguf_header(path) for path in (sorted(folder.glob("*.gguf")) if folder.is_dir() else [])]
    asked = [one for one in headers if one.is_adapter and one.text(QUESTIONS_KEY) == plan.questions_digest]
    if not asked:
        return []
    digest = file_digest(model if isinstance(model, Path) else find_model(model))
    return [header.path for header in asked if header.text(BASE_DIGEST) == digest]


def chosen_adapter(
    plan: Plan, model: str | Path | Engine, named: str | Path | None, beside: Path | None = None
) -> Path | None:
    """The adapter that a user means. None for a model server and for an engine that is given: they have their own.

    Args:
        plan: the plan, as it will be run.
        model: as `opened_engine` takes it.
        named: `auto`: the one found beside the plan, if any; `none` or None: none; else a path.
        beside: the plan's file.

    Raises:
        SettingsError: a path for a model server.
        ModelError: as in `find_adapter` and `find_model`.
    """
    if not isinstance(model, str | Path):
        return None
    if is_server_url(model):
        no_adapter(named)
        return None
    if named is None or named == "none":
        return None
    if named != "auto":
        return Path(named)
    return find_adapter(plan, model, beside)


def no_adapter(named: str | Path | None) -> None:
    """Refuse an adapter for a model server.

    Raises:
        SettingsError: one is named: it has to be loaded there.
    """
    if named not in (None, "auto", "none"):
        raise SettingsError(
            f"adapter {named}: a model server reads with the adapter that it was started with; load it there "
            "(llama-server --lora, vLLM --lora-modules), and leave it out here"
        )
