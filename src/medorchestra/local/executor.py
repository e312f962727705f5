"""Runs the subtasks of a plan on one report with one engine, and gives every subtask an answer.

The report is read once; every question branches off it. Closed values and measurements are scored, never written
freely. Whatever goes wrong with one subtask becomes the status of its answer; the others go on, and are read again
where it spoilt the reading (`open_report`). Knows nothing of batches, files or decisions.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from medorchestra.errors import ContextTooSmallError, ServerFailedError
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.asking import Inquiry
from medorchestra.local.engine.protocol import Conversation, Engine
from medorchestra.local.excerpts import Excerpt, FocusedReading, whole_report
from medorchestra.local.open_report import OpenReport
from medorchestra.local.records import Report
from medorchestra.plan import Finding, Plan, Subtask, content_digest
from medorchestra.rules import NOT_STATED

EXECUTOR_VERSION = 2
"""Part of every ledger key: raise it when the same engine would be asked differently, or answers read differently."""

MARKUP_TOKENS = 96
"""Allowance for the chat template's own tokens when a report is tried for size."""

SHORT_ANSWER_TOKENS = 32
"""Allowance for a label or a measurement that is scored."""


NextRound: TypeAlias = Callable[[Mapping[str, Answer]], Collection[str]]
"""Answers so far, by subtask -> ids of unanswered subtasks to ask together now; none when the others are left out."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All answers to one report.

    Attributes:
        answers: in the order of the subtasks asked.
        tokens: tokens computed, shared prefix included as often as it was read; without those of a computation that
            failed: an engine does not tell them.
        seconds: wall time.
        seconds_in_model: of these, inside the engine: reading the report and answering, without the choice of what is
            read and the search for evidence.
        lost: what the model's server did, where it failed and gave nothing at all for this report; else None.
    """

    answers: tuple[Answer, ...]
    tokens: int
    seconds: float
    seconds_in_model: float
    lost: str | None = None


@dataclass(slots=True)
class _Reading:
    """A reading under way: the report, the answers so far by subtask, and what its prefixes and the engine took."""

    focus: FocusedReading
    answers: dict[str, Answer] = field(default_factory=dict)
    prefix_tokens: int = 0
    seconds_in_model: float = 0.0
    server_failed: str | None = None
    given_up: bool = False

    def fail(self, subtask: Subtask, error: Exception) -> None:
        """An answer without a reading, where there is none yet."""
        if isinstance(error, ServerFailedError) and error.of_server:
            self.server_failed = str(error)
        self.answers.setdefault(subtask.id, _failure(subtask, error, len(self.focus.text)))


def describe_error(error: BaseException) -> str:
    """Class and place of an error, without its message: the message could hold report text."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


class Executor:
    """A plan, bound to an engine."""

    def __init__(self, plan: Plan, engine: Engine) -> None:
        self.plan = plan
        self.engine = engine
        self._head = plan.head()
        self._questions = {subtask.id: plan.question(subtask) for subtask in plan.subtasks}
        self._findings: dict[str, Finding] = {finding.name: finding for finding in plan.findings}
        self._reserve = MARKUP_TOKENS + max(self._tokens_behind_report(subtask) for subtask in plan.subtasks)

    @property
    def settings_digest(self) -> str:
        """`sha256:…` of everything beside plan, model and adapter that can change an answer."""
        settings = {"executor": EXECUTOR_VERSION, "engine": dict(self.engine.identity.settings)}
        return content_digest(settings)

    def read(
        self, report: Report, subtasks: Sequence[Subtask] | None = None, *, next_round: NextRound | None = None
    ) -> Reading:
        """Ask the subtasks (default: all of the plan) about a report.

        Args:
            report: the report.
            subtasks: of the plan.
            next_round: asked which of them come next until it names none; all come together where it is not given.

        Returns:
            one answer for each subtask, in their order, without those that `next_round` never named. Never raises for
            what a report contains.
        """
        asked = self.plan.subtasks if subtasks is None else tuple(subtasks)
        started = time.perf_counter()
        so_far = _Reading(self.focus(report.text))
        answers = so_far.answers
        try:
            readings = self.readings(so_far.focus, asked, answers)
        except Exception as error:  # noqa: BLE001 - text that the engine cannot take, such as half a character
            readings = []
            answers.clear()
            for subtask in asked:
                so_far.fail(subtask, error)
        if next_round is not None and len(readings) != 1:
            self._ask_in_rounds(so_far, readings, next_round)
        else:
            for excerpt, group in readings:
                self._ask_group(so_far, excerpt, group, next_round)
        ordered = tuple(answers[subtask.id] for subtask in asked if subtask.id in answers)
        answering = sum(answer.tokens for answer in ordered)
        tokens = so_far.prefix_tokens + answering
        lost = None if answering else so_far.server_failed
        return Reading(ordered, tokens, time.perf_counter() - started, so_far.seconds_in_model, lost)

    # --------------------------------------------------------- what is read

    def focus(self, text: str) -> FocusedReading:
        """The sentences of a report, counted by the engine."""
        return FocusedReading(text, self.engine.count_tokens)

    def _tokens_behind_report(self, subtask: Subtask) -> int:
        """Upper estimate of the tokens of a question and its answer."""
        written = subtask.max_tokens if subtask.answer in ("spans", "text") else 0
        labels = max((self.engine.count_tokens(label) for label in subtask.labels.values()), default=0)
        return self.engine.count_tokens(self._questions[subtask.id]) + max(written, labels, SHORT_ANSWER_TOKENS)

    def _room(self) -> int:
        """Tokens that a report may take."""
        return self.engine.context_tokens - self._reserve - self.engine.count_tokens(self._head)

    def readings(
        self, focus: FocusedReading, asked: Sequence[Subtask], answers: dict[str, Answer]
    ) -> list[tuple[Excerpt, list[Subtask]]]:
        """Which part of the report is read for which subtasks.

        Args:
            focus: the report.
            asked: subtasks of the plan.
            answers: takes the answers of the subtasks that nothing is read for.
        """
        room = self._room()
        whole = whole_report(focus.text) if self.engine.count_tokens(focus.text) <= room else None
        focused = self.plan.profile.context == "focused"
        shared = None if focused else whole or self._shared_excerpt(focus, room)
        groups: dict[str, tuple[Excerpt, list[Subtask]]] = {}
        for subtask in asked:
            terms = subtask.focus_terms
            excerpt = (shared or focus.excerpt(terms, room)) if terms else whole
            if excerpt is not None:
                groups.setdefault(excerpt.text, (excerpt, []))[1].append(subtask)
            elif focused and terms and not focus.mentions(terms):
                # Searched, not read: that this is silence is what the plan's profile says, proven in rehearsal.
                answers[subtask.id] = _unread(subtask, AnswerStatus.NOT_STATED, len(focus.text))
            else:
                answers[subtask.id] = _unread(subtask, AnswerStatus.TOO_LONG, len(focus.text))
        return list(groups.values())

    def _shared_excerpt(self, focus: FocusedReading, room: int) -> Excerpt | None:
        """For a report that is too long: all sentences that bear on any subtask, if they fit, read once for all.

        Of all subtasks of the plan, not of those asked now: an answer must not depend on what else is asked.
        """
        terms = dict.fromkeys(term for subtask in self.plan.subtasks for term in subtask.focus_terms)
        excerpt = focus.excerpt(tuple(terms), room)
        return excerpt if excerpt is not None and excerpt.complete else None

    # ---------------------------------------------------------------- asking

    def _ask_in_rounds(
        self, so_far: _Reading, readings: Sequence[tuple[Excerpt, list[Subtask]]], next_round: NextRound
    ) -> None:
        """Several excerpts in rounds: an engine holds one at a time, so each is read once for every round it is in."""
        while now := next_round(so_far.answers):
            for excerpt, group in readings:
                asked = [subtask for subtask in group if subtask.id in now]
                if asked:
                    self._ask_group(so_far, excerpt, asked)

    def _ask_group(
        self, so_far: _Reading, excerpt: Excerpt, group: Sequence[Subtask], next_round: NextRound | None = None
    ) -> None:
        """Read an excerpt once and ask its subtasks."""
        opened = OpenReport(self.engine, Conversation(self._head, excerpt.text))
        try:
            if so_far.given_up:
                raise ServerFailedError(so_far.server_failed or "")
            batches = _batches(group, so_far.answers, next_round)
            first = next(batches, None)
            if first is None:
                return
            with opened:
                for batch in chain([first], batches):
                    self._ask_batch(opened, so_far, excerpt, batch)
        except Exception as error:  # noqa: BLE001 - whatever an engine raises becomes a status; the batch goes on
            for subtask in group:
                so_far.fail(subtask, error)
        finally:
            so_far.prefix_tokens += opened.prefix_tokens
            so_far.seconds_in_model += opened.seconds
            so_far.given_up = so_far.given_up or opened.given_up

    def _ask_batch(self, opened: OpenReport, so_far: _Reading, excerpt: Excerpt, batch: Sequence[Subtask]) -> None:
        """Ask subtasks of an open report: together what can be, the others one by one."""
        inquiries = [self._inquiry(opened, so_far.focus, excerpt, subtask) for subtask in batch]
        opened.mend()
        so_far.answers |= self._ask_together(opened, inquiries)
        for inquiry in inquiries:
            if inquiry.subtask.id not in so_far.answers:
                opened.mend()
                try:
                    so_far.answers[inquiry.subtask.id] = self._ask(inquiry)
                except Exception as error:  # noqa: BLE001 - becomes a status; the others are asked all the same
                    so_far.fail(inquiry.subtask, error)

    def _inquiry(self, opened: OpenReport, focus: FocusedReading, excerpt: Excerpt, subtask: Subtask) -> Inquiry:
        finding = self._findings[subtask.finding] if subtask.finding else None
        return Inquiry(opened, focus, excerpt, subtask, finding, self._questions[subtask.id])

    def _ask_together(self, opened: OpenReport, inquiries: Sequence[Inquiry]) -> dict[str, Answer]:
        """The answers that are chosen, computed together; none where one of them goes wrong: each is asked alone then,
        so that only the one fails."""
        started = time.perf_counter()
        try:
            asked = [(inquiry, choice) for inquiry in inquiries if (choice := inquiry.choice()) is not None]
            scores = opened.choose_all([choice for _, choice in asked])
            found = {
                inquiry.subtask.id: inquiry.answer_to(scored)
                for (inquiry, _), scored in zip(asked, scores, strict=True)
            }
        except Exception:  # noqa: BLE001 - told by the one that fails when it is asked alone
            return {}
        seconds = (time.perf_counter() - started) / max(1, len(asked))
        return {inquiry.subtask.id: _read_of(inquiry, found[inquiry.subtask.id], seconds) for inquiry, _ in asked}

    def _ask(self, inquiry: Inquiry) -> Answer:
        started = time.perf_counter()
        return _read_of(inquiry, inquiry.ask(), time.perf_counter() - started)


def _batches(
    group: Sequence[Subtask], answers: Mapping[str, Answer], next_round: NextRound | None
) -> Iterator[list[Subtask]]:
    """What is asked together: everything, or round by round."""
    if next_round is None:
        yield list(group)
        return
    while now := next_round(answers):
        yield [subtask for subtask in group if subtask.id in now]


def _read_of(inquiry: Inquiry, answer: Answer, seconds: float) -> Answer:
    """The answer, with its time and with how much of the report was read for it."""
    return replace(
        answer,
        characters_read=inquiry.excerpt.characters,
        characters_total=len(inquiry.focus.text),
        complete=inquiry.excerpt.complete,
        seconds=seconds,
    )


def _unread(subtask: Subtask, status: AnswerStatus, total: int) -> Answer:
    """The answer to a subtask for which nothing was read."""
    silent: dict[str, float] = {NOT_STATED: 1.0} if status is AnswerStatus.NOT_STATED and subtask.finding else {}
    return Answer(subtask.id, subtask.finding, status, probabilities=silent, characters_total=total)


def _failure(subtask: Subtask, error: Exception, total: int) -> Answer:
    status = AnswerStatus.TOO_LONG if isinstance(error, ContextTooSmallError) else AnswerStatus.FAILED
    return replace(_unread(subtask, status, total), error=describe_error(error))
