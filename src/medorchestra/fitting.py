"""Makes a model fit for a plan, the whole way: train an adapter, calibrate, rehearse on held-out cases, keep records.

Composes `finetune` and `rehearsal`; takes synthetic cases only, each split for its own purpose: development for
training, calibration for temperatures and the threshold, held-out for the one measurement that goes into the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from medorchestra.calibration import FEWEST_KEPT
from medorchestra.errors import CaseError
from medorchestra.finetune.finetuning import FinetunedAdapter, FinetuneSettings, finetune
from medorchestra.finetune.training import TrainingProgress
from medorchestra.local.calibrating import CalibrationSettings, FittedCalibration, with_calibration
from medorchestra.local.engine.llama_cpp import LlamaCppEngine
from medorchestra.local.staged_report import StagedReport
from medorchestra.phrases.composition import Composer
from medorchestra.phrases.phrase_bank import PhraseBank
from medorchestra.plan import Plan
from medorchestra.rehearsal import calibrate_on_cases, rehearse, validated
from medorchestra.rehearsal_scores import CaseReading, RehearsalScores
from medorchestra.synthetic import SyntheticCase


@dataclass(frozen=True, slots=True)
class FittingSettings:
    """How a model is made fit.

    Attributes:
        finetune: how the adapter is made.
        composed_calibration: composed reports of the calibration split, beside those written in full.
        risk: share of wrong outcomes accepted among those that nobody looks at.
    """

    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    composed_calibration: int = 60
    risk: float = 0.05

    def __post_init__(self) -> None:
        CalibrationSettings(risk=self.risk)  # refuses an impossible risk before training, not behind it


@dataclass(frozen=True, slots=True)
class Fitted:
    """A plan with a model that fits it.

    Attributes:
        plan: with the calibration and, where there are held-out cases, the validation record of the pair.
        adapter: the adapter and its training record.
        calibration: how probabilities and threshold were found.
        held_out: the rehearsal behind the validation record, or None.
    """

    plan: Plan
    adapter: FinetunedAdapter
    calibration: FittedCalibration
    held_out: RehearsalScores | None


@dataclass(frozen=True, slots=True)
class FittingProgress:
    """What to call on the way; all None: nothing.

    Attributes:
        training: after every step.
        calibrating: after every report that is read for the calibration.
        rehearsing: after every held-out case.
    """

    training: Callable[[TrainingProgress], None] | None = None
    calibrating: Callable[[StagedReport], None] | None = None
    rehearsing: Callable[[CaseReading], None] | None = None


def fit(  # noqa: PLR0913 - plan, cases and bank are what is learned; base and path where it goes
    plan: Plan,
    cases: Sequence[SyntheticCase],
    out: str | Path,
    *,
    bank: PhraseBank | None = None,
    base: str | Path = "default",
    settings: FittingSettings | None = None,
    progress: FittingProgress | None = None,
) -> Fitted:
    """Train, calibrate and rehearse. Called again after it was killed, it goes on where it was.

    Args:
        plan, cases, out, bank, base: as in `finetune`.
        settings: how.
        progress: what to call on the way.

    Raises:
        MedorchestraError: as in `finetune`, `calibrate_on_cases` and `rehearse`.
    """
    settings, progress = settings or FittingSettings(), progress or FittingProgress()
    foreign = sorted({type(case).__name__ for case in cases if not isinstance(case, SyntheticCase)})
    if foreign:
        raise TypeError(f"a model is made fit with synthetic cases only, there is a {', a '.join(foreign)}")
    calibration_cases = calibration_set(plan, cases, bank, settings.composed_calibration)
    adapter = finetune(plan, cases, out, bank=bank, base=base, settings=settings.finetune, progress=progress.training)
    ledger = adapter.path.with_suffix(".training") / "answers.sqlite"
    with LlamaCppEngine(base, adapter=adapter.path) as engine:
        fitted = calibrate_on_cases(
            plan, calibration_cases, engine, risk=settings.risk, ledger=ledger, progress=progress.calibrating
        )
        plan = with_calibration(plan, fitted.calibration)
        held_out = [case for case in cases if case.split == "held_out"]
        if all(case.outcome is None for case in held_out):
            return Fitted(plan, adapter, fitted, None)
        scores = rehearse(plan, held_out, engine, ledger=ledger, progress=progress.rehearsing)
    return Fitted(validated(plan, scores), adapter, fitted, scores)


def calibration_set(
    plan: Plan, cases: Sequence[SyntheticCase], bank: PhraseBank | None, composed: int
) -> list[SyntheticCase]:
    """The cases of the calibration split, and composed reports of that split.

    Raises:
        CaseError: they are too few to calibrate with, which is better known before training than behind it.
    """
    found = [case for case in cases if case.split == "calibration"]
    if bank is not None and composed:
        composer = Composer(bank, plan, "calibration")
        found += [report.case for report in islice(composer.stream("calibration"), composed)]
    if len(found) < FEWEST_KEPT:
        raise CaseError(
            f"{len(found)} cases of the calibration split; at least {FEWEST_KEPT} are needed, since a model that is "
            "not calibrated sends everything to review; add cases, or a phrase bank"
        )
    return found
