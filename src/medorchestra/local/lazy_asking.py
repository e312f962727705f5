"""The questions of one report in rounds: what is asked next, and what need not be asked at all.

First the rounds of the plan (`lazy_plan`), until no question can change outcome, rules, parts, flags or assumptions for
the values read. Then, because the model is never quite sure of those values, whatever could still change on which side
of the thresholds the probabilities fall: the most probable outcome, the calibrated set of outcomes, and the review. So
the decision, and whether a person has to look, are those of asking everything, but for what only asking could tell: a
skipped question can neither fail nor lack its sentence. The probabilities themselves are not the same: a skipped
finding counts with its prior, and `Decision.probability_between` says between which bounds the probability lies
whatever it would have said.

Knows answers and a plan. Asks nothing itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from medorchestra.local.aggregator import distributions_of, is_unscored, known_value, raised_flags
from medorchestra.local.answer_calibration import calibrated
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.lazy_plan import LazyPlan
from medorchestra.plan import Calibration
from medorchestra.rules import Known

LEAST_CHANCE = 0.01
"""Where probabilities are open, findings that matter with less than this chance wait until nothing else is left."""

ROUNDING = 1e-9
"""A probability this near to a threshold is on neither side of it."""


class LazyAsking:
    """What to ask of one report, given the answers so far."""

    def __init__(
        self, lazy: LazyPlan, stored: Sequence[Answer], *, calibration: Calibration | None, for_review: bool
    ) -> None:
        """Begin a report.

        Args:
            lazy: the plan.
            stored: answers that are there already.
            calibration: what its probabilities are calibrated with.
            for_review: whether a person has to look in any case, for reasons outside the answers.
        """
        self._lazy = lazy
        self._plan = lazy.plan
        self._stored = {answer.subtask: answer for answer in stored}
        self._calibration = calibration
        self._for_review = for_review
        self._rounds = list(lazy.rounds.findings)
        self._subtasks = {subtask.finding: subtask.id for subtask in lazy.plan.subtasks if subtask.finding}

    def next_round(self, fresh: Mapping[str, Answer]) -> frozenset[str]:
        """Ids of the subtasks to ask next; none when the rest may be skipped.

        Args:
            fresh: all answers beside the stored ones so far, by subtask.
        """
        answers = {**self._stored, **fresh}
        without_finding = {s.id for s in self._plan.subtasks if s.finding is None and s.id not in answers}
        return frozenset(without_finding | {self._subtasks[name] for name in self._next_findings(answers)})

    def _next_findings(self, answers: Mapping[str, Answer]) -> Collection[str]:
        by_finding = {answer.finding: answer for answer in answers.values() if answer.finding is not None}
        known = {name: known_value(answer) for name, answer in by_finding.items()}
        still = self._lazy.matters(known)
        while self._rounds:
            now = self._rounds.pop(0) & still
            if now:
                return now
        unasked = self._lazy.readable - by_finding.keys()
        if still or not unasked:
            return still
        if all(answer.status.is_failure for answer in by_finding.values()):
            return unasked  # nothing was read at all: what could be read is worth more than what is saved
        return self._for_probabilities(by_finding, known, unasked)

    def _for_probabilities(
        self, by_finding: Mapping[str, Answer], known: Known, unasked: frozenset[str]
    ) -> Collection[str]:
        """What has to be asked so that no threshold lies between the bounds of a probability."""
        plan, calibration = self._plan, self._calibration
        if calibration is not None:
            by_finding = {name: calibrated(answer, calibration) for name, answer in by_finding.items()}
        if any(is_unscored(plan, answer) for answer in by_finding.values()):
            self._for_review = True  # as the aggregator says
            if plan.decision_table.decide(known).outcome is not None:
                return ()
        distributions = distributions_of(plan, by_finding)
        found = plan.decision_table.probability_bounds(distributions, unasked)
        if self._is_settled({outcome.name: found.get(outcome.name, (0.0, 0.0)) for outcome in plan.outcomes}, known):
            return ()
        chances = plan.decision_table.chances_to_matter(distributions, unasked)
        return {name for name, chance in chances.items() if chance >= LEAST_CHANCE} or chances.keys()

    def _is_settled(self, bounds: Mapping[str, tuple[float, float]], known: Known) -> bool:
        best = max(bounds, key=lambda name: bounds[name][0])
        least, most = bounds[best]
        if any(high >= least - ROUNDING for name, (_, high) in bounds.items() if name != best):
            return False
        calibration, plan = self._calibration, self._plan
        if calibration is not None and calibration.set_coverage is not None and calibration.set_floor is not None:
            floor = calibration.set_floor
            if any(_parts(floor, *between) for name, between in bounds.items() if name != best):
                return False
        if self._for_review or plan.decision_table.decide(known).outcome != best or raised_flags(plan, known):
            return True
        return not _parts(plan.profile.review_below if calibration is None else calibration.review_below, least, most)

    def skipped(self, fresh: Mapping[str, Answer], characters: int) -> dict[str, Answer]:
        """The answers to the subtasks that were not asked, by subtask.

        Args:
            fresh: as in `next_round`.
            characters: of the report.
        """
        answers = {**self._stored, **fresh}
        known = {answer.finding: known_value(answer) for answer in answers.values() if answer.finding is not None}
        settled_by = ", ".join(self._plan.decision_table.sufficient(known)) or ", ".join(sorted(known))
        left_out: dict[str, Answer] = {}
        for name, subtask in self._subtasks.items():
            if subtask in answers:
                continue
            reason = (
                f"cannot change the decision any more: it rests on {settled_by}"
                if name in self._lazy.decisive
                else "no rule and no flag of the plan looks at it"
            )
            left_out[subtask] = Answer(subtask, name, AnswerStatus.SKIPPED, reason=reason, characters_total=characters)
        return left_out


def _parts(threshold: float, low: float, high: float) -> bool:
    """Whether a threshold (from which on something holds) may part what lies between the bounds."""
    return low - ROUNDING < threshold <= high + ROUNDING
