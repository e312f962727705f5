"""Answers of one report -> decision, by the plan's rules, with everything a person needs to check it.

Deterministic and free of models. The outcome is what follows for certain from the answered values; the probabilities
come from the scored distributions; the two can differ, and then a person is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medorchestra.decision_diagram import Situation
from medorchestra.diagram_flow import Distribution
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.plan import Calibration, Citation, Plan
from medorchestra.rules import NOT_STATED, Verdict, evaluate


@dataclass(frozen=True, slots=True)
class DecidingRule:
    """The rule that fired, with its place in the guideline."""

    id: str
    outcome: str
    citation: Citation
    note: str | None


@dataclass(frozen=True, slots=True)
class RaisedFlag:
    """A flag of the plan whose condition holds."""

    id: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class PartDecision:
    """What a part of the decision (T, N, M) comes to. Fields as in `Decision`."""

    outcome: str | None
    best_outcome: str
    probability: float
    possible_outcomes: tuple[str, ...]
    rule: DecidingRule | None
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the answers of one report lead to.

    Attributes:
        outcome: the outcome that follows for certain, or None while several are possible.
        best_outcome: the most probable outcome; always given. Where answers were chosen without probabilities, the
            outcome that follows from them.
        probability: of `best_outcome`.
        probabilities: of every outcome; with `undecided` they sum to one.
        undecided: probability that no rule holds.
        possible_outcomes: outcomes that some reading of what is unknown leads to.
        rule: the rule that decided; None while open, or when the outcome is certain but its rule is not.
        rests_on: findings that alone already force the outcome.
        assumed: silent findings that the plan reads as a value and on which the outcome rests: finding -> value.
        missing: findings that would settle an open decision.
        parts: the parts of the plan's decision, by name; empty where it has none.
        flags: flags of the plan that hold.
        review: whether a person has to look.
        review_reasons: why; ids and counts only.
        outcome_set: outcomes among which the true one is with the calibration's `set_coverage` (conformal prediction,
            for reports like the labelled ones); None where the calibration gives no sets or an answer no probability.
        skipped: findings that were not asked, because they could not change the decision.
        probability_between: bounds of `probability`, whatever the skipped findings would have said (in `probability`
            they count with their priors); None where none was skipped.
    """

    outcome: str | None
    best_outcome: str
    probability: float
    probabilities: Mapping[str, float]
    undecided: float
    possible_outcomes: tuple[str, ...]
    rule: DecidingRule | None
    rests_on: tuple[str, ...]
    assumed: Mapping[str, str]
    missing: tuple[str, ...]
    parts: Mapping[str, PartDecision]
    flags: tuple[RaisedFlag, ...]
    review: bool
    review_reasons: tuple[str, ...]
    outcome_set: tuple[str, ...] | None = None
    skipped: tuple[str, ...] = ()
    probability_between: tuple[float, float] | None = None


def outcome_set(probabilities: Mapping[str, float], calibration: Calibration) -> tuple[str, ...] | None:
    """The outcomes that are probable enough; never empty, and all of them where there were too few labels."""
    if calibration.set_coverage is None:
        return None
    floor = calibration.set_floor
    best = max(probabilities, key=probabilities.__getitem__)
    return tuple(name for name, share in probabilities.items() if name == best or floor is None or share >= floor)


def decide(
    plan: Plan,
    answers: Sequence[Answer],
    *,
    calibration: Calibration | None = None,
    scope_problems: Sequence[str] = (),
    doubts: Sequence[str] = (),
) -> Decision:
    """Merge the answers of one report into a decision.

    Args:
        plan: the plan that asked.
        answers: one for each of its subtasks (those that read no finding are left aside), calibrated.
        calibration: its thresholds, in place of the profile's.
        scope_problems: from `scope.scope_problems`.
        doubts: why every decision of this plan with this model goes to a person, if it does.

    Raises:
        ValueError: two answers read the same finding, or a finding of the plan has none.
    """
    by_finding = _by_finding(plan, answers)
    table = plan.decision_table
    known = {name: known_value(answer) for name, answer in by_finding.items()}
    situation = table.situation(known)
    verdict = situation.verdict()
    distributions = distributions_of(plan, by_finding)
    chances = table.probabilities(distributions)
    probabilities = {outcome.name: chances.outcomes.get(outcome.name, 0.0) for outcome in plan.outcomes}
    unscored = [answer.subtask for answer in by_finding.values() if is_unscored(plan, answer)]
    best = _best_outcome(verdict, probabilities, unscored=bool(unscored))
    assumed = {name: plan.finding(name).not_stated.reads_as or "" for name in situation.assumptions()}
    rests_on = situation.sufficient(last=plan.findings_of_rules[verdict.rule] if verdict.rule else ())
    flags = tuple(raised_flags(plan, known))
    skipped = tuple(name for name, answer in by_finding.items() if answer.status is AnswerStatus.SKIPPED)
    between = table.probability_bounds(distributions, skipped, of=best)[best] if skipped else None
    review_below = plan.profile.review_below if calibration is None else calibration.review_below
    reasons = [
        *_about_verdict(verdict, best, probabilities[best], review_below),
        *(f"flag {flag.id}: {flag.message}" for flag in flags),
        *_about_assumptions(plan, assumed),
        *([f"chosen without probabilities, which leave them out: {', '.join(unscored)}"] if unscored else []),
        *_about_answers(plan, list(by_finding.values()), situation, rests_on),
        *(f"scope: {problem}" for problem in scope_problems),
        *doubts,
    ]
    return Decision(
        outcome=verdict.outcome,
        best_outcome=best,
        probability=probabilities[best],
        probabilities=probabilities,
        undecided=chances.no_rule,
        possible_outcomes=tuple(o.name for o in plan.outcomes if o.name in verdict.possible),
        rule=_deciding_rule(plan, verdict),
        rests_on=rests_on,
        assumed=assumed,
        missing=verdict.missing,
        parts=_decide_parts(plan, known, distributions, unscored=bool(unscored)),
        flags=flags,
        review=bool(reasons),
        review_reasons=tuple(reasons),
        outcome_set=None if calibration is None or unscored else outcome_set(probabilities, calibration),
        skipped=skipped,
        probability_between=between,
    )


def _decide_parts(
    plan: Plan,
    known: Mapping[str, str | float | None],
    distributions: Mapping[str, Distribution],
    *,
    unscored: bool,
) -> dict[str, PartDecision]:
    decided: dict[str, PartDecision] = {}
    for part in plan.parts:
        table = plan.part_tables[part.name]
        verdict = table.decide(known)
        looked_at = {name: distributions[name] for name in table.looks_at if name in distributions}
        chances = table.probabilities(looked_at).outcomes
        of_part = {outcome.name: chances.get(outcome.name, 0.0) for outcome in part.outcomes}
        best = _best_outcome(verdict, of_part, unscored=unscored)
        decided[part.name] = PartDecision(
            outcome=verdict.outcome,
            best_outcome=best,
            probability=of_part[best],
            possible_outcomes=tuple(o.name for o in part.outcomes if o.name in verdict.possible),
            rule=_deciding_rule(plan, verdict),
            missing=verdict.missing,
        )
    return decided


def _deciding_rule(plan: Plan, verdict: Verdict) -> DecidingRule | None:
    if verdict.rule is None:
        return None
    rule = plan.rule(verdict.rule)
    return DecidingRule(rule.id, rule.outcome, rule.citation, rule.note)


def _by_finding(plan: Plan, answers: Sequence[Answer]) -> dict[str, Answer]:
    by_finding: dict[str, Answer] = {}
    for answer in answers:
        if answer.finding is None:
            continue
        if answer.finding in by_finding:
            raise ValueError(f"two answers read finding {answer.finding!r}")
        by_finding[answer.finding] = answer
    unanswered = plan.findings_asked - by_finding.keys()
    if unanswered:
        raise ValueError(f"no answer for: {', '.join(sorted(unanswered))}")
    return by_finding


def known_value(answer: Answer) -> str | float | None:
    """What the rules are told: a failed or skipped answer is unknown; silence is silence."""
    if answer.status is AnswerStatus.NOT_STATED:
        return NOT_STATED
    if answer.status is AnswerStatus.OK and isinstance(answer.value, str | float):
        return answer.value
    return None


def distributions_of(plan: Plan, by_finding: Mapping[str, Answer]) -> dict[str, Distribution]:
    """Scored probabilities where there are any; nothing for what is unknown, and for a value that was chosen without a
    probability: its prior counts then, since certainty would be invented. Silence in passages is certain."""
    distributions: dict[str, Distribution] = {}
    for name, answer in by_finding.items():
        value = known_value(answer)
        if value is None or is_unscored(plan, answer):
            continue
        if not answer.probabilities:
            distributions[name] = {value: 1.0}
        elif plan.finding(name).values is None:
            weights: dict[float | str, float] = {}
            for number, probability in answer.probabilities.items():
                weights[number if number == NOT_STATED else float(number)] = probability
            distributions[name] = weights
        else:
            distributions[name] = answer.probabilities
    return distributions


def is_unscored(plan: Plan, answer: Answer) -> bool:
    """Whether a value was chosen without a probability (see `Scored.scored`)."""
    if answer.probabilities or known_value(answer) is None:
        return False
    return plan.answer_kinds.get(answer.subtask) in ("choice", "number")


def _best_outcome(verdict: Verdict, chances: Mapping[str, float], *, unscored: bool) -> str:
    """The most probable outcome; where probabilities leave answers out, the one that follows, if one does."""
    if unscored and verdict.outcome is not None:
        return verdict.outcome
    return max(chances, key=chances.__getitem__)


def raised_flags(plan: Plan, known: Mapping[str, str | float | None]) -> list[RaisedFlag]:
    """The flags that hold for certain."""
    options = plan.option_settings
    return [
        RaisedFlag(flag.id, flag.kind, flag.message)
        for flag, when in plan.expanded_flags
        if evaluate(when, known, options) is True
    ]


def _about_verdict(verdict: Verdict, best: str, probability: float, review_below: float) -> list[str]:
    reasons: list[str] = []
    if verdict.outcome is None:
        missing = ", ".join(verdict.missing)
        reasons.append(f"open: {missing} would settle it" if missing else "open: no rule of the plan holds")
    elif verdict.outcome != best:
        reasons.append(f"the most probable values lead to {verdict.outcome}, the most probable outcome is {best}")
    if probability < review_below:
        reasons.append(f"probability {probability:.2f} is below {review_below:.2f}")
    elif review_below >= 1:  # no threshold held the risk: certainty is no reason to trust the model either
        reasons.append("every decision goes to a person: no probability is high enough for this plan and model")
    return reasons


def _about_assumptions(plan: Plan, assumed: Mapping[str, str]) -> list[str]:
    asked = [name for name in assumed if plan.finding(name).not_stated.review]
    return (
        [f"rests on silence read as a value: {', '.join(f'{name}={assumed[name]}' for name in asked)}"] if asked else []
    )


def _is_moot(plan: Plan, situation: Situation, name: str) -> bool:
    """Whether the plan would decide the same, and no less surely, had the report said nothing on this finding.

    That no sentence was found for such an answer is no reason to look: it says what silence would be read as.
    """
    return not plan.finding(name).not_stated.review and situation.outcome_if_silent(name) == situation.outcome


def _about_answers(plan: Plan, answers: Sequence[Answer], situation: Situation, rests_on: Sequence[str]) -> list[str]:
    reasons: list[str] = []
    failed = [f"{answer.subtask} ({answer.status.value})" for answer in answers if answer.status.is_failure]
    if failed:
        reasons.append(f"no reading of: {', '.join(failed)}")
    unquoted = [
        answer.subtask
        for answer in answers
        if answer.status is AnswerStatus.OK
        and not answer.quotes
        and answer.finding is not None
        and answer.finding in rests_on
        and not _is_moot(plan, situation, answer.finding)
    ]
    if unquoted:
        reasons.append(f"no supporting sentence found for: {', '.join(unquoted)}")
    # A focused plan reads in part by design; there only what did not fit is missing.
    focused = plan.profile.context == "focused"
    partly = [
        answer
        for answer in answers
        if answer.status in (AnswerStatus.OK, AnswerStatus.NOT_STATED)
        and not (answer.complete and (focused or answer.read_whole_report))
    ]
    if partly:
        least = min(answer.characters_read for answer in partly)
        most = max(answer.characters_read for answer in partly)
        reasons.append(
            f"report read in part: {len(partly)} answers from {least} to {most} of "
            f"{partly[0].characters_total} characters"
        )
    return reasons
