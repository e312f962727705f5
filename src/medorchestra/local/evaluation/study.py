"""`evaluate`: from labelled reports to an evaluation and its files, for notebooks and the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from medorchestra.errors import SettingsError
from medorchestra.local.adapters import chosen_adapter
from medorchestra.local.engine.protocol import Engine
from medorchestra.local.evaluation.evaluating import EvaluationSettings, Progress, contenders_of, evaluate_set
from medorchestra.local.evaluation.evaluation import Evaluation
from medorchestra.local.evaluation.evaluation_files import write_evaluation
from medorchestra.local.evaluation.labelled_set import LabelColumns, LabelledSet, read_labelled_set
from medorchestra.plan import Plan
from medorchestra.plan_files import plan_path, read_plan
from medorchestra.topics import guideline_folder

GUIDELINE = "guideline.md"
SHOWS_GUIDELINE = ("guideline", "orchestrated-llm")
"""Strategies that show the guideline to the model."""


def evaluate(  # noqa: PLR0913 - each with a default that is right for most
    labelled: str | Path | LabelledSet,
    plan: Plan | str | Path = "pancreatic_cancer",
    *,
    model: str | Path | Engine = "default",
    adapter: str | Path | None = "auto",
    bare: bool = True,
    settings: EvaluationSettings | None = None,
    columns: LabelColumns | None = None,
    labels: str | Path | None = None,
    guideline: str | Path | None = None,
    out: str | Path | None = None,
    with_text: bool = False,
    progress: Progress | None = None,
    notes: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measure strategies on labelled reports, side by side.

    Args:
        labelled: a file with reports and labels (see `read_labelled_set`), or a set that was read.
        plan: a plan, its path, or the name of a topic.
        model: as `stage` takes it. A model server, and an engine that is given, is measured as it is: one run of each
            strategy.
        adapter: `auto`: the one beside the plan; `none` or None: none; else a path.
        bare: measure the model without the adapter too; it is then asked in the plan's instructed form.
        settings: strategies, samples, repeats, order.
        columns: how the file is laid out.
        labels: a CSV with ids and labels, where they are not in the file.
        guideline: its text file; default guideline.md beside the plan, or its topic's.
        out: folder for report.html, evaluation.json and per_case.parquet, and for answers, so that a run that was
            killed goes on; None: nothing is written.
        with_text: put the text of wrongly decided reports into report.html.
        progress: called after every prediction with the name of the run.
        notes: called with what was left out or worked out while the file was read.

    Raises:
        SourceError: the file or its labels cannot be used.
        PlanError, ModelError, SettingsError, StorageError: before a report is read, or when the folder cannot be
            written. What is wrong with one report is a prediction without outcome.
    """
    _require_packages(("sklearn", "matplotlib"))
    settings = settings or EvaluationSettings()
    the_plan = plan if isinstance(plan, Plan) else read_plan(plan)
    beside = None if isinstance(plan, Plan) else plan_path(plan)
    if not isinstance(labelled, LabelledSet):
        labelled = read_labelled_set(the_plan, labelled, columns, labels=None if labels is None else Path(labels))
    if notes is not None:
        for note in labelled.notes:
            notes(note)
    shown = any(name in SHOWS_GUIDELINE for name in settings.strategies)
    text = guideline_text(the_plan, guideline, beside) if shown else ""
    contenders = contenders_of(the_plan, model, chosen_adapter(the_plan, model, adapter, beside), bare=bare)
    folder = None if out is None else Path(out)
    made = evaluate_set(the_plan, labelled, contenders, settings, guideline=text, folder=folder, progress=progress)
    if folder is not None:
        write_evaluation(folder, the_plan, labelled.cases, made.runs, made.evaluation, with_text=with_text)
    return made.evaluation


def _require_packages(names: Sequence[str]) -> None:
    """Better before hours of reading than behind them."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise SettingsError(f"measuring needs {', '.join(missing)}; run pip install 'medorchestra[evaluation]'")


def guideline_text(plan: Plan, named: str | Path | None = None, beside: Path | None = None) -> str:
    """The text of the guideline that a plan was made from.

    Args:
        plan: the plan.
        named: its file.
        beside: the plan's file; without `named`, guideline.md is looked for beside it and then in the plan's topic.

    Raises:
        SettingsError: there is none, or it cannot be read.
    """
    places = (
        [guideline_folder(plan.topic) / GUIDELINE]
        if beside is None
        else [
            beside.parent / GUIDELINE,
            guideline_folder(plan.topic) / GUIDELINE,
        ]
    )
    path = Path(named) if named is not None else next((one for one in places if one.is_file()), None)
    if path is None:
        raise SettingsError(f"plan {plan.topic}: no {GUIDELINE} beside it or in its topic; name the guideline's text")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read as text in UTF-8 ({type(error).__name__})") from None
