"""Fits a calibration: reads labelled reports with the local model, and compares what it says with what is true.

Labelled reports are synthetic cases (through `rehearsal`) or a hospital's own, which stay here: what comes out holds
temperatures, thresholds, counts and a digest. Knows no file formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from medorchestra.calibration import (
    FEWEST_KEPT,
    LabelledDecision,
    Threshold,
    choose_threshold,
    conformal_floor,
    fit_temperature,
)
from medorchestra.errors import CaseError, ModelError, SettingsError
from medorchestra.local.engine.protocol import Engine
from medorchestra.local.ledger import Ledger
from medorchestra.local.records import Report
from medorchestra.local.staged_report import StagedReport
from medorchestra.local.staging import Stager
from medorchestra.plan import Calibration, Finding, Plan
from medorchestra.rehearsal_scores import SAME_NUMBER, accuracy_of
from medorchestra.rules import NOT_STATED

OPEN = "open"
"""Stands for the outcome of a report that leaves several possible."""


@dataclass(frozen=True, slots=True, repr=False)
class LabelledReport:
    """A report and what is true of it.

    Attributes:
        report: the report.
        findings: finding -> value, number or `not_stated`; as many as are labelled.
        outcome: the true outcome, `OPEN`, or None where it is not labelled.
    """

    report: Report
    findings: Mapping[str, str | float]
    outcome: str | None


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """What is asked of a calibration.

    Attributes:
        risk: share of wrong outcomes accepted among those that nobody looks at.
        set_coverage: share of reports whose set of outcomes shall hold the true one; None: no sets.
        labels: whose labels they are.
    """

    risk: float = 0.05
    set_coverage: float | None = None
    labels: Literal["synthetic", "local"] = "local"

    def __post_init__(self) -> None:
        if not 0 < self.risk < 1 or not (self.set_coverage is None or 0 < self.set_coverage < 1):
            raise SettingsError("risk and set_coverage must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class FittedCalibration:
    """A calibration and how it was found.

    Attributes:
        calibration: goes into the plan.
        threshold: what its threshold leaves unreviewed; None where no threshold holds the risk, so that every decision
            goes to a person.
        decisions: labelled decisions behind it, for a risk-coverage curve.
    """

    calibration: Calibration
    threshold: Threshold | None
    decisions: tuple[LabelledDecision, ...]


def fit_calibration(
    plan: Plan,
    labelled: Sequence[LabelledReport],
    engine: Engine,
    settings: CalibrationSettings | None = None,
    *,
    ledger: str | Path | None = None,
    progress: Callable[[StagedReport], None] | None = None,
) -> FittedCalibration:
    """Read labelled reports and fit temperatures and thresholds to them.

    Args:
        plan: what is asked.
        labelled: at least `FEWEST_KEPT`, with labelled outcomes; nothing else may have been fitted to them.
        engine: the model and adapter that will run the plan.
        settings: the risk, above all.
        ledger: keeps finished answers, so that it can be resumed.
        progress: called after every report.

    Raises:
        CaseError: too few labelled outcomes, or a label that the plan does not have.
        ModelError: the engine gives no probabilities: there is nothing to calibrate.
        StorageError: the ledger cannot be used.
    """
    settings = settings or CalibrationSettings()
    _check(plan, labelled)
    if not engine.identity.gives_probabilities:
        raise ModelError(
            f"model {engine.identity.name}: its server gives no probabilities that can be relied on, so there is "
            "nothing to calibrate, and every decision goes to a person; use a server that gives log-probabilities "
            "(llama-server, vLLM), or a GGUF file"
        )
    bare = plan.model_copy(update={"validation": (), "calibrations": ()})
    with Ledger.open(Path(ledger)) if ledger is not None else nullcontext(None) as book:
        stager = Stager(bare, engine, book)
        staged = []
        for one in labelled:
            staged.append(stager.stage_one(one.report))
            if progress is not None:
                progress(staged[-1])
    identity = engine.identity
    # Sets keep their promise only on labels that nothing was fitted to: temperatures then get the other half alone.
    sets = settings.set_coverage is not None
    fitted = [pair for pair in zip(labelled, staged, strict=True) if not sets or _in_first_half(pair[0])]
    never = Calibration(
        made_on=datetime.now(UTC).date(),
        plan_digest=plan.digest,
        model_digest=identity.digest,
        adapter_digest=identity.adapter_digest,
        labels=settings.labels,
        n=len(labelled),
        labels_digest=_digest(labelled),
        temperatures=_temperatures(plan, fitted),
        risk=settings.risk,
        review_below=0.0,
        set_coverage=settings.set_coverage,
    )
    again = Stager(bare.model_copy(update={"calibrations": (never,)}), engine)
    decided = [(one, _decision(one, again.decide_again(old))) for one, old in zip(labelled, staged, strict=True)]
    return _with_thresholds(never, [(one, decision) for one, decision in decided if decision is not None])


def _with_thresholds(
    calibration: Calibration, decided: Sequence[tuple[LabelledReport, LabelledDecision]]
) -> FittedCalibration:
    """The calibration with the thresholds that the labelled decisions, made with its temperatures, allow."""
    decisions = tuple(decision for _, decision in decided)
    threshold = choose_threshold(decisions, calibration.risk)
    found: dict[str, object] = {"review_below": 1.0 if threshold is None else threshold.review_below}
    if threshold is not None:
        found["unreviewed"] = accuracy_of(threshold.kept - threshold.wrong, threshold.kept)
    if calibration.set_coverage is not None:
        unseen = [decision for one, decision in decided if not _in_first_half(one)]
        found["set_floor"] = conformal_floor(unseen, calibration.set_coverage)
    return FittedCalibration(calibration.model_copy(update=found), threshold, decisions)


def with_calibration(plan: Plan, calibration: Calibration) -> Plan:
    """The plan with a calibration, in place of an older one of the same pair and kind of labels."""
    same = (calibration.model_digest, calibration.adapter_digest, calibration.labels)
    others = [
        old
        for old in plan.calibrations
        if (old.model_digest, old.adapter_digest, old.labels) != same and old.plan_digest == plan.digest
    ]
    return plan.model_copy(update={"calibrations": (*others, calibration)})


def _check(plan: Plan, labelled: Sequence[LabelledReport]) -> None:
    told = sum(one.outcome is not None for one in labelled)
    if told < FEWEST_KEPT:
        raise CaseError(f"{told} labelled outcomes; at least {FEWEST_KEPT} are needed, better some hundreds")
    outcomes = {outcome.name for outcome in plan.outcomes} | {OPEN}
    findings = {finding.name: finding for finding in plan.findings}
    for one in labelled:
        wrong = [name for name in one.findings if name not in findings]
        wrong += [
            name for name, value in one.findings.items() if name in findings and not _can_be(findings[name], value)
        ]
        if one.outcome is not None and one.outcome not in outcomes:
            wrong.append("outcome")
        if wrong:
            raise CaseError(f"report {one.report.report_id}: labels that the plan does not have: {', '.join(wrong)}")


def _can_be(finding: Finding, value: str | float) -> bool:
    if isinstance(value, str):
        return value in finding.all_values
    return finding.number is not None and finding.number.numbers.holds(value)


def _in_first_half(one: LabelledReport) -> bool:
    """A half that depends on the report's id alone."""
    return hashlib.sha256(one.report.report_id.encode("utf-8", "surrogatepass")).digest()[0] % 2 == 0


def _temperatures(plan: Plan, read_labels: Sequence[tuple[LabelledReport, StagedReport]]) -> dict[str, float]:
    scored: dict[str, list[tuple[Mapping[str, float], str]]] = {finding.name: [] for finding in plan.findings}
    for one, read in read_labels:
        for answer in read.answers:
            if answer.finding is None or answer.finding not in one.findings:
                continue
            truth = _offered(one.findings[answer.finding], answer.probabilities)
            if truth is not None:
                scored[answer.finding].append((answer.probabilities, truth))
    fitted = {name: fit_temperature(found) for name, found in scored.items()}
    return {name: temperature for name, temperature in fitted.items() if temperature != 1.0}


def _offered(truth: str | float, probabilities: Mapping[str, float]) -> str | None:
    """The true value as the answer has it; None where it was not among what the model chose from."""
    if isinstance(truth, str):
        return truth if truth in probabilities else None
    near = {key: abs(float(key) - truth) for key in probabilities if key != NOT_STATED}
    nearest = min(near, key=near.__getitem__, default=None)
    return nearest if nearest is not None and near[nearest] < SAME_NUMBER else None


def _decision(one: LabelledReport, staged: StagedReport) -> LabelledDecision | None:
    if one.outcome is None or staged.decision is None:
        return None
    return LabelledDecision(
        probability=staged.decision.probability,
        right=staged.decision.best_outcome == one.outcome,
        probability_of_truth=staged.decision.probabilities.get(one.outcome),
        reviewed=staged.review,
    )


def _digest(labelled: Sequence[LabelledReport]) -> str:
    """Of ids and labels, whatever their order; no text is in it."""
    lines = sorted(f"{one.report.report_id} {sorted(one.findings.items())} {one.outcome}" for one in labelled)
    return "sha256:" + hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
