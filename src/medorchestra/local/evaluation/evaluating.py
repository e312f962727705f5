"""Runs an evaluation: every strategy, with and without adapter, over the same labelled reports, and measures them.

Opens what it is told to open, one engine at a time; what was finished is kept in the folder, so that a run that was
killed goes on where it was. Knows no file formats and prints nothing.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medorchestra.errors import SettingsError
from medorchestra.local.engine.protocol import Engine
from medorchestra.local.engine_opening import opened_engine
from medorchestra.local.evaluation.evaluation import (
    Comparison,
    Evaluation,
    RunScores,
    compare_reader,
    compare_runs,
    score_readers,
    score_run,
    wrong_cases,
)
from medorchestra.local.evaluation.labelled_set import LabelledSet
from medorchestra.local.evaluation.prediction_store import PredictionStore
from medorchestra.local.evaluation.predictions import NO_DECISION, Prediction, StrategyRun, run_name
from medorchestra.local.evaluation.sampling_check import require_sampling
from medorchestra.local.evaluation.strategies import STRATEGIES, make_strategies
from medorchestra.local.ledger import Ledger
from medorchestra.plan import Plan, content_digest

_MEASURED_WITH = ("medorchestra", "llama-cpp-python", "numpy", "scipy", "scikit-learn")

Progress = Callable[[str, Prediction], None]
"""Called after every prediction with the name of the run."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A model that is evaluated.

    Attributes:
        plan: the plan as this model runs it; a model as it comes is asked in the instructed form.
        open_engine: opens it; what it opened is closed when its strategies are through.
        adapter: file name of its adapter, or None. What a model server was started with, nobody here is told.
    """

    plan: Plan
    open_engine: Callable[[], AbstractContextManager[Engine]]
    adapter: str | None = None


def contenders_of(
    plan: Plan, model: str | Path | Engine, adapter: Path | None, *, bare: bool = True
) -> list[Contender]:
    """A model as it comes and, where there is one, with its adapter. A model server and an engine that is given are one
    contender, just as they are, and run the plan as `stage` would run it.

    As it comes a model is asked in the instructed form, which is made for such models; with the adapter in the plan's
    own.

    Args:
        plan: the plan, as it will be run.
        model: as `opened_engine` takes it.
        adapter: from `chosen_adapter`: None for a server and for an engine that is given.
        bare: whether the model as it comes is measured too; without adapter it always is.
    """
    if adapter is None:
        own = None if isinstance(model, str | Path) else model.identity.adapter
        return [Contender(plan, lambda: opened_engine(model), own)]
    found = []
    if bare:
        instructed = plan.profile.model_copy(update={"prompt_form": "instructed"})
        as_it_comes = plan.model_copy(update={"profile": instructed})
        found.append(Contender(as_it_comes, lambda: opened_engine(model)))
    return [*found, Contender(plan, lambda: opened_engine(model, adapter), adapter.name)]


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """What is run and how it is counted.

    Attributes:
        strategies: names from `STRATEGIES`.
        samples: of self-consistency.
        repeats: how often everything is run; from the second time on nothing is taken from the folder.
        order: outcomes in their order, for weighted kappa.
        seed: of bootstrap and sampling.
        command: the command line that asked for it, for the record; empty where there is none.
    """

    strategies: tuple[str, ...] = ("orchestrated",)
    samples: int = 5
    repeats: int = 1
    order: tuple[str, ...] = ()
    seed: int = 1
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.strategies if name not in STRATEGIES]
        if unknown or not self.strategies or len(set(self.strategies)) < len(self.strategies):
            raise SettingsError(
                f"strategies: {', '.join(unknown) or 'none, or one twice'}; choose from {', '.join(STRATEGIES)}"
            )
        if self.samples < 1 or self.repeats < 1:
            raise SettingsError("samples and repeats must be at least 1")


@dataclass(frozen=True, slots=True)
class EvaluationRuns:
    """An evaluation and the predictions behind it.

    Attributes:
        evaluation: the measures.
        runs: the first run of each strategy, in the order of `evaluation.runs`.
    """

    evaluation: Evaluation
    runs: tuple[StrategyRun, ...]


def evaluate_set(  # noqa: PLR0913 - plan, set and contenders are what is measured, the rest is how
    plan: Plan,
    labelled: LabelledSet,
    contenders: Sequence[Contender],
    settings: EvaluationSettings,
    *,
    guideline: str,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> EvaluationRuns:
    """Run strategies and measure them.

    Args:
        plan: whose outcomes are labelled.
        labelled: the reports and what is true of them.
        contenders: the models, in the order in which they are compared.
        settings: what is run.
        guideline: its text, for the strategies that show it to the model.
        folder: keeps finished answers and predictions; None: nothing is kept.
        progress: called after every prediction.

    Raises:
        SettingsError: an outcome of the order is not the plan's, or a strategy would be run twice under one name.
        ModelError, StorageError: an engine cannot be opened, or does not draw what self-consistency counts; or the
            folder cannot be written.
    """
    strange = [name for name in settings.order if name not in {outcome.name for outcome in plan.outcomes}]
    if strange:
        raise SettingsError(f"order: {', '.join(strange)}: not outcomes of plan {plan.topic}")
    names = [run_name(strategy, one.adapter) for one in contenders for strategy in settings.strategies]
    if len(set(names)) < len(names):
        raise SettingsError(f"two runs have one name: {', '.join(names)}; give each model its own evaluation")
    repeated: list[list[StrategyRun]] = []
    about = _settings_facts(settings, guideline) | {"models": [], "versions": _versions()}
    for contender in contenders:
        with contender.open_engine() as engine:
            if "self-consistency" in settings.strategies:
                require_sampling(engine)
            about["models"].append(_model_facts(contender, engine))
            repeated += _runs_of(contender, engine, labelled, settings, guideline, folder, progress)
    return EvaluationRuns(
        _measured(plan, labelled, repeated, settings, about), tuple(repeats[0] for repeats in repeated)
    )


def run_orchestrated(
    plan: Plan,
    sets: Sequence[LabelledSet],
    model: str | Path | Engine,
    adapter: Path | None,
    *,
    folder: Path,
    progress: Progress | None = None,
) -> list[StrategyRun]:
    """The plan with one model and adapter over several labelled sets: one run for each.

    Raises:
        ModelError, StorageError: the model cannot be opened, or the folder cannot be written.
    """
    (contender,) = contenders_of(plan, model, adapter, bare=False)
    with contender.open_engine() as engine:
        return [
            runs[0]
            for one in sets
            for runs in _runs_of(contender, engine, one, EvaluationSettings(), "", folder, progress)
        ]


def _runs_of(  # noqa: PLR0913 - the parts of `evaluate_set`
    contender: Contender,
    engine: Engine,
    labelled: LabelledSet,
    settings: EvaluationSettings,
    guideline: str,
    folder: Path | None,
    progress: Progress | None,
) -> list[list[StrategyRun]]:
    """Every strategy of a contender, as often as wanted."""
    found: dict[str, list[StrategyRun]] = {name: [] for name in settings.strategies}
    for repeat in range(settings.repeats):
        with _kept(folder if repeat == 0 else None) as (ledger, store):
            strategies = make_strategies(
                settings.strategies,
                contender.plan,
                engine,
                guideline=guideline,
                ledger=ledger,
                store=store,
                samples=settings.samples,
                seed=settings.seed + repeat,
            )
            for strategy in strategies:
                said = []
                for case in labelled.cases:
                    said.append(strategy.predict(case))
                    if progress is not None:
                        progress(run_name(strategy.name, contender.adapter), said[-1])
                found[strategy.name].append(StrategyRun(strategy.name, contender.adapter, tuple(said)))
    return list(found.values())


@contextmanager
def _kept(folder: Path | None) -> Iterator[tuple[Ledger | None, PredictionStore | None]]:
    if folder is None:
        yield None, None
        return
    with Ledger.open(folder / "ledger.sqlite") as ledger, PredictionStore.open(folder / "predictions.sqlite") as store:
        yield ledger, store


def _measured(
    plan: Plan,
    labelled: LabelledSet,
    repeated: Sequence[Sequence[StrategyRun]],
    settings: EvaluationSettings,
    about: dict[str, Any],
) -> Evaluation:
    cases, runs = labelled.cases, [repeats[0] for repeats in repeated]
    scores: list[RunScores] = [score_run(plan, cases, repeats, settings.order) for repeats in repeated]
    comparisons: list[Comparison] = [
        compare_runs(cases, before, after, seed=settings.seed)
        for place, before in enumerate(runs)
        for after in runs[place + 1 :]
    ]
    comparisons += [
        compare_reader(cases, reader, run, seed=settings.seed) for reader in labelled.readers for run in runs
    ]
    decided = sum(case.truth is not None for case in cases)
    return Evaluation(
        title=f"{plan.title}: {labelled.name}",
        made_on=datetime.now(UTC).date(),
        topic=plan.topic,
        plan_digest=plan.digest,
        labelled={
            "name": labelled.name,
            "digest": labelled.digest,
            "cases": len(cases),
            "decided": decided,
            "open": len(cases) - decided,
            "unlabelled": labelled.unlabelled,
        },
        outcomes=tuple(outcome.name for outcome in plan.outcomes),
        order=settings.order,
        runs=tuple(scores),
        readers=score_readers(plan, labelled, settings.order),
        comparisons=tuple(comparisons),
        wrong=tuple(wrong for run in runs for wrong in wrong_cases(cases, run, NO_DECISION)),
        about=about,
    )


def _settings_facts(settings: EvaluationSettings, guideline: str) -> dict[str, Any]:
    found: dict[str, Any] = {"command": settings.command} if settings.command else {}
    found["settings"] = {
        "strategies": ", ".join(settings.strategies),
        "samples": settings.samples,
        "repeats": settings.repeats,
        "seed": settings.seed,
        "guideline_shown": content_digest(guideline) if guideline else None,
    }
    return found


def _model_facts(contender: Contender, engine: Engine) -> dict[str, Any]:
    identity = engine.identity
    return {
        "model": identity.name,
        "model_digest": identity.digest,
        "adapter": identity.adapter,
        "adapter_digest": identity.adapter_digest,
        "plan_digest": contender.plan.digest,
        "prompt_form": contender.plan.profile.prompt_form,
        "context": contender.plan.profile.context,
        "settings": dict(identity.settings),
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _MEASURED_WITH:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
