"""The planner: from guideline text to a proven, rehearsed plan, with a record of every round. Composes the steps.

Steps: decompose, write subtasks, write cases and read them back, write phrases, prove, rehearse, revise. What is paid
for is kept: the same call on the same folder repeats no answered request. Knows no local model: rehearsal comes in as a
function that takes a plan and synthetic cases. Freezing the plan with a held-out rehearsal is `rehearsal`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from medorchestra.cloud.cases.case_briefs import case_briefs
from medorchestra.cloud.cases.case_targets import unmet_goals
from medorchestra.cloud.cases.case_writing import CaseWriting, write_cases
from medorchestra.cloud.cases.example_choice import choose_examples, without_leaks
from medorchestra.cloud.cases.frame_writing import write_frame
from medorchestra.cloud.cases.phrase_writing import PhraseBankWriting, write_phrase_bank
from medorchestra.cloud.decomposition import Decomposition, decompose, plan_of, under_rules_of
from medorchestra.cloud.desk.cloud_desk import CloudDesk
from medorchestra.cloud.guideline import Guideline
from medorchestra.cloud.proof.proof import Proof, prove
from medorchestra.cloud.subtask_writing import Failure, revise_subtasks, with_subtasks, write_subtasks
from medorchestra.errors import SettingsError, StorageError, UnusableAnswerError
from medorchestra.plan import Plan, Subtask
from medorchestra.plan_files import write_plan
from medorchestra.rehearsal_scores import PairedComparison, RehearsalScores, compare_finding, compare_outcome
from medorchestra.synthetic import SyntheticCase

SIGNIFICANT = 0.05
"""Two-sided p below which a loss of outcomes stands against a profile that reads more findings right."""

Rehearse = Callable[[Plan, Sequence[SyntheticCase]], RehearsalScores]
"""Runs a plan on synthetic cases with the local model that will run it."""

Context = Literal["full", "focused"]
PromptForm = Literal["instructed", "compact"]


@dataclass(frozen=True, slots=True)
class PlannerSettings:
    """How much the planner does.

    Attributes:
        cases: reports asked for, to be written in full.
        phrase_bank: whether a phrase bank is written too.
        coverage_rounds: further requests for cases where outcomes, rules or values are not covered yet.
        revision_rounds: rounds of revising subtasks after a rehearsal.
        findings_a_round: subtasks revised in one round, those read worst first.
        good_enough: findings read at least so well are left alone.
        rehearsal_cases: development cases that a rehearsal reads (each costs local time); None for all.
        prompt_forms: forms of the questions that are tried, from the first on. The compact one costs a small part of
            the tokens: it is taken where it does not read worse. It alone, for a model that will be trained for it.
        example_counts: numbers of solved examples in an instructed prompt that are tried.
        contexts: what the model reads of a report: the choices that are tried, from the first on.
        seed: of briefs and phrases.
        topic: the plan's short name; default the one that the cloud model gives it.
    """

    cases: int = 320
    phrase_bank: bool = True
    coverage_rounds: int = 2
    revision_rounds: int = 2
    findings_a_round: int = 6
    good_enough: float = 0.9
    rehearsal_cases: int | None = None
    prompt_forms: tuple[PromptForm, ...] = ("instructed", "compact")
    example_counts: tuple[int, ...] = (0, 3)
    contexts: tuple[Context, ...] = ("full", "focused")
    seed: int = 1
    topic: str | None = None

    def __post_init__(self) -> None:
        if min(self.cases, self.coverage_rounds, self.revision_rounds) < 0 or self.findings_a_round < 1:
            raise SettingsError("cases and rounds must not be negative, findings_a_round at least 1")
        if not self.example_counts or not self.contexts or not self.prompt_forms:
            raise SettingsError("prompt_forms, example_counts and contexts must name at least one choice each")
        if self.rehearsal_cases is not None and self.rehearsal_cases < 1:
            raise SettingsError("rehearsal_cases must be at least 1, or None for all")


@dataclass(frozen=True, slots=True)
class Round:
    """One attempt to make the plan better, kept or not.

    Attributes:
        kind: what was tried.
        changed: settings as `name=value`, or the findings whose subtasks were new.
        kept: of `changed`, what stayed.
        comparisons: finding, or `outcome` -> cases gained and lost on the same development cases.
    """

    kind: Literal["profile", "subtasks"]
    changed: tuple[str, ...]
    kept: tuple[str, ...]
    comparisons: Mapping[str, PairedComparison]

    def to_json(self) -> dict[str, object]:
        """JSON-ready, for `rounds.jsonl`."""
        compared = {
            name: {"gained": one.gained, "lost": one.lost, "p": round(one.p_value, 4)}
            for name, one in self.comparisons.items()
        }
        return {"kind": self.kind, "changed": self.changed, "kept": self.kept, "compared": compared}


@dataclass(frozen=True, slots=True)
class PlanRun:
    """What a run of the planner made.

    Attributes:
        plan: the plan, without a validation record yet.
        proof: of this plan with all cases.
        cases: all synthetic cases, given and written.
        writing: what came of the reports that were asked for.
        phrases: the phrase bank, or None where none was asked for.
        rounds: every round, in order.
        development: the rehearsal of this plan on development cases, or None without a local model or such cases.
    """

    plan: Plan
    proof: Proof
    cases: tuple[SyntheticCase, ...]
    writing: CaseWriting
    phrases: PhraseBankWriting | None
    rounds: tuple[Round, ...]
    development: RehearsalScores | None


@dataclass(slots=True)
class Planner:
    """One run of the planner.

    Attributes:
        desk: the door to the cloud.
        guideline: the text the plan is made from.
        folder: where plan, cases and records are written; made if it is not there.
        settings: how much is done.
        say: called with a line on what is being done; ids and counts only.
    """

    desk: CloudDesk
    guideline: Guideline
    folder: Path
    settings: PlannerSettings = field(default_factory=PlannerSettings)
    say: Callable[[str], None] = lambda _: None
    _rounds: list[Round] = field(default_factory=list)

    def run(self, cases: Sequence[SyntheticCase] = (), rehearse: Rehearse | None = None) -> PlanRun:
        """Go all the way to a proven plan, rehearsed where there is a local model.

        Args:
            cases: synthetic cases that are there already; the plan then uses their names of findings and outcomes. Only
                those of the development split influence anything.
            rehearse: runs a plan on cases with the local model.

        Raises:
            CloudError: a step got no usable answer; what was answered is kept.
            EgressError, BudgetError: nothing that must not leave has left.
            StorageError: the folder cannot be written.
        """
        foreign = sorted({type(case).__name__ for case in cases if not isinstance(case, SyntheticCase)})
        if foreign:
            raise TypeError(f"a plan is made from synthetic cases only, not from {', '.join(foreign)}")
        self.say("decomposing the guideline")
        decomposition = decompose(self.desk, self.guideline, _development(cases))
        if self.settings.topic is not None:
            decomposition = decomposition.model_copy(update={"topic": self.settings.topic})
        self.say(f"{len(decomposition.findings)} findings, {len(decomposition.rules)} rules; writing subtasks")
        subtasks = write_subtasks(self.desk, self.guideline, decomposition)
        plan = plan_of(decomposition, self.guideline, subtasks, model=self.desk.model_name)
        self._keep(plan)
        cases = [under_rules_of(plan, case) for case in cases]
        with ThreadPoolExecutor(1, thread_name_prefix="phrases") as beside:
            # Phrases depend on nothing that comes after the plan's first draft.
            phrase_writing = beside.submit(self._write_phrases, plan)
            writing = self._write_cases(plan, cases)
            everything = (*cases, *writing.cases)
            own = _development(everything)
            plan = without_leaks(choose_examples(plan, own), everything)
            self._keep(plan)
            development = None
            if rehearse is not None and own:
                plan, development = self._improve(plan, decomposition, own, rehearse)
                self._keep(plan)
            phrases = phrase_writing.result()
        proof = prove(plan, self.guideline, everything)
        self._write("proof.txt", "\n".join(proof.lines()) + "\n")
        return PlanRun(plan, proof, everything, writing, phrases, tuple(self._rounds), development)

    # ------------------------------------------------------- cases and phrases

    def _write_phrases(self, plan: Plan) -> PhraseBankWriting | None:
        if not self.settings.phrase_bank:
            return None
        return write_phrase_bank(self.desk, plan, self.folder, guideline=self.guideline, seed=self.settings.seed)

    def _write_cases(self, plan: Plan, given: Sequence[SyntheticCase]) -> CaseWriting:
        """Write the cases asked for, then more where something is not covered yet."""
        settings = self.settings
        writing = CaseWriting((), ())
        count = settings.cases
        frame = write_frame(self.desk, plan, self.guideline).bank if count else None
        forced = False
        for attempt in range(settings.coverage_rounds + 1):
            if count == 0:
                break
            self.say(f"writing {count} cases and reading them back")
            briefs = case_briefs(
                plan,
                count,
                seed=settings.seed,
                prefix=f"{attempt + 1}-",
                covered=[case.known() for case in (*given, *writing.cases)],
                frame=frame,
                forced=forced,
            )
            writing += write_cases(self.desk, self.guideline, plan, briefs, self.folder / "cases", earlier=writing)
            proof = prove(plan, self.guideline, (*given, *writing.cases))
            uncovered = proof.uncovered
            if not uncovered:
                break
            # Natural reports first; what the plan cannot do without, by whatever it takes.
            forced = any(problem in proof.problems for problem in uncovered)
            # Briefs come goal by goal: fewer than there are goals left would not reach the last of them.
            left = unmet_goals(plan, [case.known() for case in (*given, *writing.cases)])
            count = min(settings.cases, max(4 * len(uncovered), len(writing.rejected), len(left)))
        return writing

    # ---------------------------------------------------------- improvement

    def _improve(
        self, plan: Plan, decomposition: Decomposition, cases: Sequence[SyntheticCase], rehearse: Rehearse
    ) -> tuple[Plan, RehearsalScores]:
        """Choose the profile, then revise what is read worst; a change stays only if it does not lose cases."""
        start = {"prompt_form": self.settings.prompt_forms[0], "context": self.settings.contexts[0]}
        plan = _with(plan, profile=plan.profile.model_copy(update=start))
        chosen = _spread(cases, self.settings.rehearsal_cases)
        self.say(f"rehearsing on {len(chosen)} development cases")
        scores = rehearse(plan, chosen)
        for form in self.settings.prompt_forms:
            plan, scores = self._try_profile(plan, scores, {"prompt_form": form}, rehearse)
        for context in self.settings.contexts:
            plan, scores = self._try_profile(plan, scores, {"context": context}, rehearse)
        for count in self.settings.example_counts if plan.profile.prompt_form == "instructed" else ():
            plan, scores = self._try_profile(plan, scores, {"examples": count}, rehearse)
        for _ in range(self.settings.revision_rounds):
            failing = self._failing(plan, scores)
            if not failing:
                break
            self.say(f"revising the subtasks of {', '.join(failing)}")
            try:
                revised = revise_subtasks(self.desk, self.guideline, decomposition, plan, failing)
            except UnusableAnswerError:
                # The plan stands as it is: a revision may only make it better.
                self._record(Round("subtasks", tuple(failing), (), {}))
                break
            plan, scores, kept = self._try_subtasks(plan, scores, revised, rehearse)
            if not kept:
                break
        return plan, scores

    def _try_profile(
        self, plan: Plan, scores: RehearsalScores, change: Mapping[str, object], rehearse: Rehearse
    ) -> tuple[Plan, RehearsalScores]:
        profile = plan.profile.model_copy(update=dict(change))
        if profile == plan.profile:
            return plan, scores
        candidate = _with(plan, profile=profile)
        new = rehearse(candidate, [reading.case for reading in scores.readings])
        outcome = compare_outcome(scores, new)
        comparisons = {finding.name: compare_finding(scores, new, finding.name) for finding in plan.findings}
        gained = sum(one.gained - one.lost for one in comparisons.values())
        cheaper = profile.prompt_form == "compact" != plan.profile.prompt_form
        # All findings of a case tell more of the reading than its one outcome, which a few cases leave to chance.
        loses = outcome.loses and outcome.p_value < SIGNIFICANT
        better = (gained > 0 or (cheaper and gained == 0)) and not loses
        changed = tuple(f"{name}={value}" for name, value in change.items())
        comparisons = {"outcome": outcome} | {name: one for name, one in comparisons.items() if one.gained or one.lost}
        self._record(Round("profile", changed, changed if better else (), comparisons))
        return (candidate, new) if better else (plan, scores)

    def _failing(self, plan: Plan, scores: RehearsalScores) -> dict[str, list[Failure]]:
        """The findings read worst, with the cases on which they were misread."""
        shares = {finding.name: scores.finding(finding.name) for finding in plan.findings}
        worst = sorted(shares, key=lambda name: shares[name].correct)
        failing = [name for name in worst if shares[name].correct < self.settings.good_enough * shares[name].n]
        return {
            name: [
                Failure(reading.case, reading.case.known()[name], reading.answers.get(name))
                for reading in scores.readings
                if not reading.is_right(name)
            ]
            for name in failing[: self.settings.findings_a_round]
        }

    def _try_subtasks(
        self, plan: Plan, scores: RehearsalScores, revised: Sequence[Subtask], rehearse: Rehearse
    ) -> tuple[Plan, RehearsalScores, tuple[str, ...]]:
        """Keep the revised subtasks that gain cases, and only if the outcome does not lose any on the whole."""
        old = {subtask.id: subtask for subtask in plan.subtasks}
        fitted = [_with_examples(subtask, old[subtask.id]) for subtask in revised]
        candidate = with_subtasks(plan, fitted)
        cases = [reading.case for reading in scores.readings]
        new = rehearse(candidate, cases)
        names = [subtask.finding or "" for subtask in fitted]
        comparisons = {name: compare_finding(scores, new, name) for name in names}
        kept = tuple(name for name in names if comparisons[name].gained > comparisons[name].lost)
        if kept and len(kept) < len(names):
            candidate = with_subtasks(plan, [subtask for subtask in fitted if subtask.finding in kept])
            new = rehearse(candidate, cases)
        comparisons["outcome"] = compare_outcome(scores, new)
        if comparisons["outcome"].loses:
            kept = ()
        self._record(Round("subtasks", tuple(names), kept, comparisons))
        return (candidate, new, kept) if kept else (plan, scores, ())

    # --------------------------------------------------------------- records

    def _record(self, one: Round) -> None:
        self._rounds.append(one)
        kept = ", ".join(one.kept) or "nothing"
        self.say(f"round {len(self._rounds)}: {one.kind} {', '.join(one.changed)}: kept {kept}")
        self._write("rounds.jsonl", "".join(json.dumps(each.to_json()) + "\n" for each in self._rounds))

    def _keep(self, plan: Plan) -> None:
        self._write("plan.draft.yaml", None)
        write_plan(plan, self.folder / "plan.draft.yaml")

    def _write(self, name: str, text: str | None) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if text is not None:
                (self.folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{self.folder / name}: cannot be written: {error.strerror}") from None


def _development(cases: Sequence[SyntheticCase]) -> tuple[SyntheticCase, ...]:
    return tuple(case for case in cases if case.split == "development")


def _spread(cases: Sequence[SyntheticCase], most: int | None) -> list[SyntheticCase]:
    """At most so many cases, evenly over the deciding rules and forms."""
    ordered = sorted(cases, key=lambda case: (case.rule or "", case.form, case.id))
    if most is None or most >= len(ordered):
        return ordered
    return [ordered[i * len(ordered) // most] for i in range(most)]


def _with(plan: Plan, **changes: object) -> Plan:
    """The plan with some fields changed, checked anew."""
    return Plan.model_validate(plan.model_dump(by_alias=True) | changes)


def _with_examples(subtask: Subtask, old: Subtask) -> Subtask:
    return subtask.model_copy(update={"examples": old.examples})
