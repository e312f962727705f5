"""Rehearsal: a plan's subtasks, run with the local model on synthetic cases; and the whole way from guideline to plan.

The one module beside the command line that may hold both sides. It takes synthetic cases only: nothing here accepts a
`Report` from outside, and what goes to the cloud goes through the planner's desk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medorchestra.errors import CaseError, MedorchestraError, PlanError
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.calibrating import (
    OPEN,
    CalibrationSettings,
    FittedCalibration,
    LabelledReport,
    fit_calibration,
)
from medorchestra.local.engine.protocol import Engine
from medorchestra.local.engine_opening import opened_engine
from medorchestra.local.ledger import Ledger
from medorchestra.local.records import Report
from medorchestra.local.staged_report import StagedReport
from medorchestra.local.staging import Stager
from medorchestra.plan import Plan
from medorchestra.plan_files import format_plan
from medorchestra.rehearsal_scores import CaseReading, RehearsalScores
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import SyntheticCase, read_cases, write_cases
from medorchestra.whole_files import write_whole

if TYPE_CHECKING:  # the cloud side is loaded by `make_plan` alone: a rehearsal inside the hospital needs none of it
    from medorchestra.cloud.desk.client import CloudModel
    from medorchestra.cloud.desk.cloud_desk import CloudDesk, Effort
    from medorchestra.cloud.desk.prices import ListPrice
    from medorchestra.cloud.desk.usage import Budget, Usage
    from medorchestra.cloud.egress.gate import Allowed
    from medorchestra.cloud.guideline import Guideline
    from medorchestra.cloud.planner import PlannerSettings, PlanRun

Progress = Callable[[CaseReading], None]
"""Called after every case."""


def rehearse(
    plan: Plan,
    cases: Sequence[SyntheticCase],
    engine: Engine,
    *,
    ledger: str | Path | None = None,
    progress: Progress | None = None,
) -> RehearsalScores:
    """Run a plan on synthetic cases, as `stage` would on reports.

    Args:
        plan: the plan.
        cases: synthetic cases of this plan.
        engine: the local model.
        ledger: file in which finished answers are kept, so that a rehearsal can be resumed; default none.
        progress: called after every case.

    Raises:
        TypeError: one of the cases is not a synthetic case; a real report, above all.
        CaseError: there are none.
        StorageError: the ledger cannot be used.
    """
    _refuse_foreign(cases, "a plan is rehearsed on")
    if not cases:
        raise CaseError("no synthetic cases to rehearse on")
    with Ledger.open(Path(ledger)) if ledger is not None else nullcontext(None) as book:
        # What an earlier record says of the pair must not send cases to review that are there to measure it.
        stager = Stager(plan.model_copy(update={"validation": ()}), engine, book)
        readings: list[CaseReading] = []
        for case in cases:
            reading = _reading(case, stager.stage_one(Report(case.id, case.text)))
            readings.append(reading)
            if progress is not None:
                progress(reading)
    identity = engine.identity
    return RehearsalScores(plan.digest, identity.name, identity.digest, identity.adapter_digest, tuple(readings))


def calibrate_on_cases(
    plan: Plan,
    cases: Sequence[SyntheticCase],
    engine: Engine,
    *,
    risk: float = 0.05,
    ledger: str | Path | None = None,
    progress: Callable[[StagedReport], None] | None = None,
) -> FittedCalibration:
    """Fit temperatures and the threshold for review on synthetic cases of the calibration split.

    Args:
        plan: the plan, as it will run.
        cases: synthetic cases; those of other splits are refused.
        engine: the local model and adapter that will run it.
        risk: share of wrong outcomes accepted among those that nobody looks at.
        ledger, progress: as in `fit_calibration`.

    Raises:
        TypeError: one of the cases is not a synthetic case.
        CaseError: too few cases, or one of another split.
        StorageError: the ledger cannot be used.
    """
    _refuse_foreign(cases, "this calibrates on")
    others = sorted(case.id for case in cases if case.split != "calibration")
    if others:
        raise CaseError(f"{len(others)} of the cases are not of the calibration split, first: {others[0]}")
    labelled = [LabelledReport(Report(case.id, case.text), case.known(), case.outcome or OPEN) for case in cases]
    settings = CalibrationSettings(risk=risk, labels="synthetic")
    return fit_calibration(plan, labelled, engine, settings, ledger=ledger, progress=progress)


def validated(plan: Plan, scores: RehearsalScores, *, measured_on: date | None = None) -> Plan:
    """The plan with the record of a rehearsal on held-out cases, in place of an older one of the same pair.

    Args:
        plan: the plan that was rehearsed.
        scores: from `rehearse` on held-out cases.
        measured_on: default today (UTC).

    Raises:
        ValueError: the rehearsal was of another plan, or of cases that are not held out.
    """
    if scores.plan_digest != plan.digest:
        raise ValueError(f"the rehearsal was of plan {scores.plan_digest[:19]}, this plan is {plan.digest[:19]}")
    fitted = sorted(reading.case.id for reading in scores.readings if reading.case.split != "held_out")
    if fitted:
        raise ValueError(f"{len(fitted)} of the cases are not held out, first: {fitted[0]}")
    asked = [subtask.finding for subtask in plan.subtasks if subtask.finding is not None]
    record = scores.validation_record(asked, measured_on or datetime.now(UTC).date())
    same = (record.model_digest, record.adapter_digest)
    others = [
        old
        for old in plan.validation
        if (old.model_digest, old.adapter_digest) != same and old.plan_digest == plan.digest
    ]
    return plan.model_copy(update={"validation": (*others, record)})


def _refuse_foreign(cases: Sequence[object], what: str) -> None:
    foreign = sorted({type(case).__name__ for case in cases if not isinstance(case, SyntheticCase)})
    if foreign:
        raise TypeError(f"{what} synthetic cases only, there is a {', a '.join(foreign)}")


def _reading(case: SyntheticCase, staged: StagedReport) -> CaseReading:
    answers = {answer.finding: answer for answer in staged.answers if answer.finding is not None}
    return CaseReading(
        case=case,
        answers={finding: _value(answer) for finding, answer in answers.items()},
        probabilities={finding: dict(answer.probabilities) for finding, answer in answers.items()},
        best_outcome=staged.decision.best_outcome if staged.decision else None,
        review=staged.review,
        outcomes=dict(staged.decision.probabilities) if staged.decision else {},
    )


def _value(answer: Answer) -> str | float | None:
    if answer.status is AnswerStatus.NOT_STATED:
        return NOT_STATED
    if answer.status is AnswerStatus.OK and isinstance(answer.value, str | float):
        return answer.value
    return None


# -------------------------------------------------------------------- from guideline to plan


@dataclass(frozen=True, slots=True)
class PlanProgress:
    """How far the making of a plan is.

    Attributes:
        doing: what is being done; names and counts only.
        usage: what the cloud was asked for so far, by step.
        price: list price that the costs are told at; None where none is known.
        rehearsed: cases that the local model has read in the rehearsal that runs.
    """

    doing: str
    usage: Usage
    price: ListPrice | None
    rehearsed: int


@dataclass(frozen=True, slots=True)
class PlanMaking:
    """How a plan is made, beside its guideline, cases and models.

    Attributes:
        planner: how much the planner does; default as `PlannerSettings` has it.
        effort: how hard the cloud is tried; default as `Effort` has it.
        budget: what may be spent; default no limit.
        price: list price for the estimate of the costs; default the one known for the cloud model, if any.
        allowed: exact strings that may leave although they look like identifiers.
        progress: called when a step begins, after every reply and after every rehearsed case.
    """

    planner: PlannerSettings | None = None
    effort: Effort | None = None
    budget: Budget | None = None
    price: ListPrice | None = None
    allowed: tuple[Allowed, ...] = ()
    progress: Callable[[PlanProgress], None] | None = None


@dataclass(frozen=True, slots=True)
class MadePlan:
    """A plan whose proof holds, and how it came about.

    Attributes:
        plan: the plan; with a validation record where it was rehearsed on held-out cases.
        run: what the planner made, and every round.
        held_out: the rehearsal behind the validation record, or None.
        usage: what the cloud was asked for, by step.
        facts: the content of run.json.
    """

    plan: Plan
    run: PlanRun
    held_out: RehearsalScores | None
    usage: Usage
    facts: Mapping[str, Any]


def make_plan(
    guideline: str | Path | Guideline,
    *,
    cloud: str | CloudModel,
    out: str | Path,
    cases: str | Path | Sequence[SyntheticCase] = (),
    local: str | Path | Engine | None = None,
    making: PlanMaking | None = None,
) -> MadePlan:
    """Compile a guideline into a plan: proven, rehearsed with the local model, and validated on held-out cases.

    Writes into `out`: plan.yaml, cases/, phrase_bank.json, proof.txt, rounds.jsonl, run.json; and what makes the run
    resumable: egress.jsonl, replies/, rehearsal.sqlite. The same call again repeats no request that was answered. A
    plan whose proof does not hold stays plan.draft.yaml.

    Args:
        guideline: path of a guideline file, or one that is read already.
        cloud: name of a hosted model (its key in `OPENAI_API_KEY`, its server in `OPENAI_BASE_URL`), or a cloud model.
        out: folder; made if it is not there.
        cases: synthetic cases that are there already, or their folder. The planner sees those of the development split.
        local: the model that will run the plan, as `stage` takes it; None: neither rehearsal nor validation.
        making: how much is done, what may be spent, what is told.

    Raises:
        TypeError: guideline or cases are anything but that; a real report, above all.
        GuidelineError, CaseError, ModelError, SettingsError: before anything is sent.
        CloudError, BudgetError, EgressError, StorageError: stopped on the way; what was answered is kept.
        PlanError: the proof does not hold; names the draft and the faults.
    """
    from medorchestra.cloud.guideline import Guideline, read_guideline

    if isinstance(guideline, str | Path):
        guideline = read_guideline(guideline)
    if not isinstance(guideline, Guideline):
        raise TypeError(f"a plan is made from a guideline, not from a {type(guideline).__name__}")
    given = read_cases(cases) if isinstance(cases, str | Path) else tuple(cases)
    _refuse_foreign(given, "a plan is made from")
    with ExitStack() as opened:
        # The local model first: that it cannot be loaded should be known before anything is paid for.
        engine = opened.enter_context(opened_engine(local)) if local is not None else None
        maker = _Maker(guideline, given, engine, Path(out), making or PlanMaking())
        return maker.make(opened.enter_context(maker.desk(cloud)))


class _Maker:
    """One making of a plan: the planner on one side, the local model on the other, run.json between them."""

    def __init__(
        self,
        guideline: Guideline,
        cases: tuple[SyntheticCase, ...],
        engine: Engine | None,
        folder: Path,
        making: PlanMaking,
    ) -> None:
        self._guideline = guideline
        self._cases = cases
        self._engine = engine
        self._folder = folder
        self._making = making
        self._price = making.price
        self._doing = ""
        self._rehearsed = 0
        self._facts: dict[str, Any] = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "state": "stopped"}

    @contextmanager
    def desk(self, cloud: str | CloudModel) -> Iterator[CloudDesk]:
        """The door to the cloud, with all that a request passes: gate, log, cache, budget."""
        from medorchestra.cloud.desk.client import OpenAICloudModel
        from medorchestra.cloud.desk.cloud_desk import DESK_INSTRUCTIONS, CloudDesk
        from medorchestra.cloud.desk.prices import list_price
        from medorchestra.cloud.desk.reply_cache import ReplyCache
        from medorchestra.cloud.egress.gate import EgressGate
        from medorchestra.cloud.egress.log import SHORTEST_SECRET, EgressLog
        from medorchestra.cloud.prompt_texts import packaged_instructions

        making = self._making
        with ExitStack() as opened:
            model = opened.enter_context(OpenAICloudModel(cloud)) if isinstance(cloud, str) else cloud
            key = os.environ.get(model.api_key_env, "").strip() if isinstance(model, OpenAICloudModel) else ""
            gate = EgressGate(
                self._guideline,
                packaged_instructions() | DESK_INSTRUCTIONS,
                cases=[case for case in self._cases if case.split == "development"],
                allowed=making.allowed,
            )
            # What stands in for a key where a server wants none may be a short word, and no secret.
            secrets = [key] if len(key) >= SHORTEST_SECRET else []
            log = opened.enter_context(EgressLog.open(self._folder / "egress.jsonl", gate=gate, secrets=secrets))
            cache = ReplyCache(self._folder / "replies")
            desk = CloudDesk(model, gate=gate, log=log, cache=cache, budget=making.budget, effort=making.effort)
            desk.progress = lambda *_: self._tell(desk)
            self._price = making.price or list_price(model.name)
            self._facts["cloud"] = {"model": model.name, "endpoint": model.endpoint}
            try:
                yield desk
            finally:
                self._facts["egress_log_head"] = log.head
                self._write_facts(desk)

    def make(self, desk: CloudDesk) -> MadePlan:
        """Make, prove, validate and write the plan. However it ends, run.json says how far it came."""
        from medorchestra.cloud.planner import Planner, PlannerSettings
        from medorchestra.cloud.run_record import run_facts

        def begin(doing: str) -> None:
            self._doing, self._rehearsed = doing, 0
            self._tell(desk)

        def rehearsed(plan: Plan, cases: Sequence[SyntheticCase]) -> RehearsalScores:
            return self._rehearse(desk, plan, cases)

        settings = self._making.planner or PlannerSettings()
        planner = Planner(desk, self._guideline, self._folder, settings, begin)
        try:
            run = planner.run(self._cases, rehearsed if self._engine is not None else None)
            self._facts |= run_facts(run)
            write_cases(run.cases, self._folder / "cases")
            if not run.proof.holds:
                self._facts["state"] = "not proven"
                raise self._unproven(run)
            held_out = self._held_out(run, desk, begin)
        except MedorchestraError as error:
            self._facts["error"] = type(error).__name__
            raise
        plan = run.plan if held_out is None else validated(run.plan, held_out)
        write_whole(self._folder / "plan.yaml", format_plan(plan))
        self._facts["state"] = "proven" if held_out is None else "validated"
        return MadePlan(plan, run, held_out, desk.usage, self._facts)

    def _held_out(self, run: PlanRun, desk: CloudDesk, begin: Callable[[str], None]) -> RehearsalScores | None:
        """The one rehearsal on held-out cases; None without a local model, or without cases that can tell anything."""
        from medorchestra.cloud.run_record import score_facts

        cases = [case for case in run.cases if case.split == "held_out"]
        if self._engine is None or all(case.outcome is None for case in cases):
            return None
        begin(f"validating on {len(cases)} held-out cases")
        scores = self._rehearse(desk, run.plan, cases)
        self._facts["held_out"] = score_facts(scores, run.plan)
        return scores

    def _rehearse(self, desk: CloudDesk, plan: Plan, cases: Sequence[SyntheticCase]) -> RehearsalScores:
        if self._engine is None:
            raise ValueError("there is no local model to rehearse with")

        def count(_: CaseReading) -> None:
            self._rehearsed += 1
            self._tell(desk)

        self._rehearsed = 0
        return rehearse(plan, cases, self._engine, ledger=self._folder / "rehearsal.sqlite", progress=count)

    def _unproven(self, run: PlanRun) -> PlanError:
        """The error for a proof that does not hold. A plan of an earlier run must not be taken for this one."""
        earlier = self._folder / "plan.yaml"
        if earlier.is_file():
            earlier.replace(self._folder / "plan.previous.yaml")
        problems = run.proof.problems
        told = "; ".join(str(problem) for problem in problems[:3])
        return PlanError(
            f"{self._folder / 'plan.draft.yaml'}: the proof does not hold, {len(problems)} problems (all in "
            f"proof.txt): {told}. Start again with more cases or another cloud model, or mend the draft and run "
            f"`medorchestra plan check` on it"
        )

    def _tell(self, desk: CloudDesk) -> None:
        if self._making.progress is not None:
            self._making.progress(PlanProgress(self._doing, desk.usage, self._price, self._rehearsed))

    def _write_facts(self, desk: CloudDesk) -> None:
        from medorchestra.cloud.run_record import guideline_facts, usage_facts

        self._facts |= {
            "guideline": guideline_facts(self._guideline),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "usage": usage_facts(desk.usage, self._price),
        }
        write_whole(self._folder / "run.json", json.dumps(self._facts, indent=2, ensure_ascii=False) + "\n")
