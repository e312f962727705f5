"""What an evaluation comes to: scores of every run, of human readers, and how they differ. Data, and how it is counted.

Pure counting over labelled cases and predictions; asks no model, reads and writes no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from medorchestra.local.evaluation.error_anatomy import ErrorAnatomy, error_anatomy, is_read_right
from medorchestra.local.evaluation.labelled_set import LabelledSet
from medorchestra.local.evaluation.measures import (
    Agreement,
    OutcomeScores,
    PairedDifference,
    Reliability,
    Repeatability,
    RiskCoverage,
    Share,
    agreement,
    paired_difference,
    reliability,
    repeatability,
    risk_coverage_of,
    score_outcomes,
    share_of,
)
from medorchestra.local.evaluation.predictions import LabelledCase, Prediction, StrategyRun
from medorchestra.plan import Plan

JUDGED = "orchestrated"
"""The strategy that is used on reports of patients."""


@dataclass(frozen=True, slots=True)
class RunScores:
    """One strategy, with or without adapter, measured.

    Attributes:
        name: of the run (`StrategyRun.name`).
        strategy, adapter: what was run.
        outcome: over the cases with a single true outcome.
        open_cases: cases labelled as open that were left open.
        unreviewed: right among the decisions that nobody would look at (an open case there is wrong); None where the
            strategy never asks for review.
        reviewed: decisions sent to a person, of all; None where the strategy never asks.
        reliability: of the outcome's probability.
        risk_coverage: by the outcome's probability; decisions that are reviewed anyway are treated like the others.
        groups: subgroup column -> group -> accuracy.
        readers: human reader -> agreement of the run with this reader.
        findings: finding -> share read right, of those labelled; empty for strategies without subtasks.
        anatomy: of the wrong decisions; None without labelled findings or subtasks.
        repeatability: over repeated runs; None where it was run once.
        failed: cases without an outcome.
        seconds, tokens: of this run; what a ledger held cost nothing.
    """

    name: str
    strategy: str
    adapter: str | None
    outcome: OutcomeScores
    open_cases: Share
    unreviewed: Share | None
    reviewed: Share | None
    reliability: Reliability
    risk_coverage: RiskCoverage
    groups: Mapping[str, Mapping[str, Share]]
    readers: Mapping[str, Agreement]
    findings: Mapping[str, Share]
    anatomy: ErrorAnatomy | None
    repeatability: Repeatability | None
    failed: int
    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class ReaderScores:
    """A human reader, measured like a strategy: over the cases that this reader read."""

    name: str
    outcome: OutcomeScores
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs (or a reader and a run) on the same cases."""

    before: str
    after: str
    difference: PairedDifference


@dataclass(frozen=True, slots=True)
class WrongCase:
    """A case that a run decided wrongly. Ids and outcomes only."""

    run: str
    case_id: str
    truth: str
    predicted: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was measured.

    Attributes:
        title: what was evaluated, for a heading.
        made_on: the day.
        topic, plan_digest: the plan.
        labelled: name, digest and counts (`cases`, `decided`, `open`, `unlabelled`) of the labelled set.
        outcomes: of the plan, in its order.
        order: outcomes that have an order, for weighted kappa; may be empty.
        runs, readers, comparisons: what came of it.
        wrong: the wrong decisions of all runs.
        about: model, adapter, digests, versions, command and settings of the evaluation.
    """

    title: str
    made_on: date
    topic: str
    plan_digest: str
    labelled: Mapping[str, str | int]
    outcomes: tuple[str, ...]
    order: tuple[str, ...]
    runs: tuple[RunScores, ...]
    readers: tuple[ReaderScores, ...]
    comparisons: tuple[Comparison, ...]
    wrong: tuple[WrongCase, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def run(self, name: str) -> RunScores:
        """The run of this name (KeyError if there is none)."""
        return {run.name: run for run in self.runs}[name]

    @property
    def judged(self) -> RunScores:
        """The run that gates are held against: the plan with its rules, with the adapter where there is one.

        That is the last run of `orchestrated`; the last of all where it was not run (IndexError without runs).
        """
        return ([run for run in self.runs if run.strategy == JUDGED] or [*self.runs])[-1]


def score_run(
    plan: Plan, cases: Sequence[LabelledCase], repeats: Sequence[StrategyRun], order: Sequence[str] = ()
) -> RunScores:
    """Measure one strategy.

    Args:
        plan: the plan.
        cases: all cases.
        repeats: the strategy's runs, at least one, on these cases in this order; the first is measured, the others are
            compared with it.
        order: outcomes that have an order.
    """
    run = repeats[0]
    pairs = list(zip(cases, run.predictions, strict=True))
    decided = [(case, said) for case, said in pairs if case.truth is not None]
    scored = [(said.probabilities, case.truth or "") for case, said in decided if said.probabilities]
    certain = [(said.probability, said.is_right(case)) for case, said in decided if said.probability is not None]
    asks = any(said.review is not None for said in run.predictions)
    return RunScores(
        name=run.name,
        strategy=run.strategy,
        adapter=run.adapter,
        outcome=_outcome_scores(plan, decided),
        open_cases=share_of(said.is_open for case, said in pairs if case.truth is None),
        unreviewed=share_of(said.is_right(case) for case, said in pairs if not said.review) if asks else None,
        reviewed=share_of(bool(said.review) for said in run.predictions) if asks else None,
        reliability=reliability(scored),
        risk_coverage=risk_coverage_of([one for one, _ in certain], [right for _, right in certain]),
        groups=_groups(decided),
        readers={
            name: agreement(
                *_both((said.outcome, case.readers.get(name)) for case, said in decided if case.readers.get(name)),
                order,
            )
            for name in (cases[0].readers if cases else ())
        },
        findings=_findings(plan, pairs),
        anatomy=error_anatomy(plan, cases, run),
        repeatability=repeatability([[p.outcome for p in one.predictions] for one in repeats])
        if len(repeats) > 1
        else None,
        failed=sum(said.outcome is None for said in run.predictions),
        seconds=sum(said.seconds for said in run.predictions),
        tokens=sum(said.tokens for said in run.predictions),
    )


def score_readers(plan: Plan, labelled: LabelledSet, order: Sequence[str] = ()) -> tuple[ReaderScores, ...]:
    """Measure the human readers over the cases with a single true outcome that each of them read."""
    names = [outcome.name for outcome in plan.outcomes]
    found = []
    for name in labelled.readers:
        read = [
            (case.truth, said) for case in labelled.cases if case.truth is not None and (said := case.readers[name])
        ]
        truths, answers = [truth for truth, _ in read], [said for _, said in read]
        found.append(ReaderScores(name, score_outcomes(truths, answers, names), agreement(truths, answers, order)))
    return tuple(found)


def compare_runs(
    cases: Sequence[LabelledCase], before: StrategyRun, after: StrategyRun, *, seed: int = 1
) -> Comparison:
    """Two runs over the cases with a single true outcome."""
    hits = [
        (one.is_right(case), other.is_right(case))
        for case, one, other in zip(cases, before.predictions, after.predictions, strict=True)
        if case.truth is not None
    ]
    difference = paired_difference([one for one, _ in hits], [other for _, other in hits], seed=seed)
    return Comparison(before.name, after.name, difference)


def compare_reader(cases: Sequence[LabelledCase], reader: str, run: StrategyRun, *, seed: int = 1) -> Comparison:
    """A human reader and a run, over the cases that the reader read."""
    hits = [
        (case.readers[reader] == case.truth, said.is_right(case))
        for case, said in zip(cases, run.predictions, strict=True)
        if case.truth is not None and case.readers.get(reader)
    ]
    difference = paired_difference([one for one, _ in hits], [other for _, other in hits], seed=seed)
    return Comparison(reader, run.name, difference)


def wrong_cases(cases: Sequence[LabelledCase], run: StrategyRun, no_decision: str) -> tuple[WrongCase, ...]:
    """The wrong decisions of a run, in the order of the cases."""
    return tuple(
        WrongCase(run.name, case.case_id, case.labels.outcome or "", said.outcome or no_decision)
        for case, said in zip(cases, run.predictions, strict=True)
        if not said.is_right(case)
    )


def _outcome_scores(plan: Plan, decided: Sequence[tuple[LabelledCase, Prediction]]) -> OutcomeScores:
    truths = [case.truth or "" for case, _ in decided]
    return score_outcomes(truths, [said.outcome for _, said in decided], [outcome.name for outcome in plan.outcomes])


def _groups(decided: Sequence[tuple[LabelledCase, Prediction]]) -> dict[str, dict[str, Share]]:
    columns = decided[0][0].groups if decided else {}
    found: dict[str, dict[str, Share]] = {}
    for column in columns:
        hits: dict[str, list[bool]] = {}
        for case, said in decided:
            hits.setdefault(case.groups[column], []).append(said.is_right(case))
        found[column] = {group: share_of(hits[group]) for group in sorted(hits)}
    return found


def _both(pairs: Any) -> tuple[list[str | None], list[str | None]]:
    listed = list(pairs)
    return [one for one, _ in listed], [other for _, other in listed]


def _findings(plan: Plan, pairs: Sequence[tuple[LabelledCase, Prediction]]) -> dict[str, Share]:
    found: dict[str, Share] = {}
    for finding in plan.findings:
        hits = []
        for case, said in pairs:
            if said.staged is None or finding.name not in case.labels.findings:
                continue
            answers = {answer.finding: answer for answer in said.staged.answers}
            hits.append(is_read_right(answers.get(finding.name), case.labels.findings[finding.name]))
        if hits:
            found[finding.name] = share_of(hits)
    return found
