"""Turns a labelled case into the very tokens that the executor would read, with the answers that it should choose.

The executor itself says what is read of a report for which questions, and the engine itself says which tokens that is:
training cannot drift away from inference. Knows no weights and no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from medorchestra.errors import PlanError
from medorchestra.local.answers import Answer
from medorchestra.local.asking import offered_measurements
from medorchestra.local.engine.label_trie import forks_towards
from medorchestra.local.engine.llama_cpp import LlamaCppEngine
from medorchestra.local.excerpts import Excerpt, FocusedReading
from medorchestra.local.executor import Executor
from medorchestra.plan import Plan, Subtask
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import SyntheticCase

SAME_NUMBER = 1e-6
"""A measurement is the labelled number where they differ by less, in the finding's unit."""


@dataclass(frozen=True, slots=True, repr=False)
class Branch:
    """One question, and as much of the right answer as the model has to choose.

    Attributes:
        subtask: its id.
        question: as it is asked.
        candidates: what there is to choose from.
        right: which of them is right, as an index.
        tokens: question, then the answer up to its last fork.
        forks: (position in `tokens` whose logits choose, tokens to choose among, index of the right one).
    """

    subtask: str
    question: str
    candidates: tuple[str, ...]
    right: int
    tokens: tuple[int, ...]
    forks: tuple[tuple[int, tuple[int, ...], int], ...]


@dataclass(frozen=True, slots=True, repr=False)
class BranchedPrompt:
    """A report, read once, and the questions that branch off it.

    Attributes:
        case: id of the case.
        text: what is read of the report.
        prefix: tokens that all questions share.
        branches: none of them sees another.
    """

    case: str
    text: str
    prefix: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def length(self) -> int:
        """Tokens computed for it."""
        return len(self.prefix) + sum(len(branch.tokens) for branch in self.branches)


class PromptMaker:
    """Writes the training prompts of one plan for one model.

    Attributes:
        unanswerable: subtask -> labels that no answer could have met, so that the question was left out: a number that
            is not among the measurements it would offer, or a stated fact in a report of which nothing would be read
            for it. Counted as often as it was met.
    """

    def __init__(self, plan: Plan, engine: LlamaCppEngine) -> None:
        """Raises PlanError where the plan has a subtask whose answer is not chosen from a closed set."""
        written = [subtask.id for subtask in plan.subtasks if subtask.answer not in ("choice", "number")]
        if written:
            raise PlanError(
                f"plan {plan.topic}: answers of {', '.join(written)} are written freely; only chosen answers "
                "can be trained so far"
            )
        self._plan = plan
        self._executor = Executor(plan, engine)
        self._prompts = engine.prompts
        self._head = self._prompts.head(plan.head())
        self._questions = {subtask.id: plan.question(subtask) for subtask in plan.subtasks}
        self.unanswerable: dict[str, int] = {}

    def prompts(self, case: SyntheticCase) -> tuple[BranchedPrompt, ...]:
        """The prompts of one case: one for each part of the report that is read for some questions."""
        focus = self._executor.focus(case.text)
        unread: dict[str, Answer] = {}
        asked = [subtask for subtask in self._plan.subtasks if subtask.finding is not None]
        made = []
        labels = case.known()
        readings = self._executor.readings(focus, asked, unread)
        for subtask in asked:  # the executor would not ask: where something is stated, its answer would be wrong
            if subtask.id in unread and labels[subtask.finding or ""] != NOT_STATED:
                self._leave_out(subtask)
        for excerpt, group in readings:
            branches = tuple(self._branches(case, focus, excerpt, group))
            if branches:
                prefix = (*self._head, *self._prompts.report(excerpt.text))
                made.append(BranchedPrompt(case.id, excerpt.text, prefix, branches))
        return tuple(made)

    def _branches(
        self, case: SyntheticCase, focus: FocusedReading, excerpt: Excerpt, group: Sequence[Subtask]
    ) -> Iterable[Branch]:
        labels = case.known()
        for subtask in group:
            candidates, right = self._candidates(subtask, focus, excerpt, labels)
            if right is None:
                self._leave_out(subtask)
                continue
            answers = [self._prompts.answer(candidate) for candidate in candidates]
            forks = forks_towards(answers, right)
            if not forks:  # without a choice there is nothing to learn
                continue
            asked = self._prompts.question(self._questions[subtask.id])
            yield Branch(
                subtask=subtask.id,
                question=self._questions[subtask.id],
                candidates=tuple(candidates),
                right=right,
                tokens=(*asked, *answers[right][: forks[-1].written]),
                forks=tuple((len(asked) + fork.written - 1, fork.possible, fork.taken) for fork in forks),
            )

    def _leave_out(self, subtask: Subtask) -> None:
        self.unanswerable[subtask.id] = self.unanswerable.get(subtask.id, 0) + 1

    def _candidates(
        self, subtask: Subtask, focus: FocusedReading, excerpt: Excerpt, labels: Mapping[str, str | float]
    ) -> tuple[list[str], int | None]:
        """What the question offers, and which of it is right; None where nothing is."""
        finding = self._plan.finding(subtask.finding or "")
        truth = labels[finding.name]
        if finding.values is not None:
            values = list(finding.all_values)
            return [subtask.labels[value] for value in values], values.index(str(truth))
        places = offered_measurements(focus, excerpt, subtask, finding)
        candidates = [*places, subtask.labels[NOT_STATED]]
        if truth == NOT_STATED:
            return candidates, len(places)
        for i, found in enumerate(places.values()):
            if abs(found[0].value - float(truth)) < SAME_NUMBER:
                return candidates, i
        return candidates, None
