"""What the model answered to one subtask: value, probabilities, quote, status. A failed answer is a value too.

Knows nothing of engines and rules. `Answer` and `Quote` print without report text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

NO_PROBABILITIES: Mapping[str, float] = MappingProxyType({})


class AnswerStatus(StrEnum):
    """How the reading of one subtask ended."""

    OK = "ok"
    """A value was read."""
    NOT_STATED = "not_stated"
    """The model read the report and found nothing on it. This is an answer, not a failure."""
    UNPARSABLE = "unparsable"
    """What the model wrote cannot be read as an answer."""
    TOO_LONG = "too_long"
    """The answer, or a report that could not be narrowed to the context, did not fit."""
    FAILED = "failed"
    """The engine raised; `Answer.error` names the kind of error."""
    SKIPPED = "skipped"
    """Not asked, because nothing it could say would change the decision; `Answer.reason` says why. The finding is
    unknown: no failure, no silence, no value."""

    @property
    def is_failure(self) -> bool:
        """True where no reading happened: the finding is then unknown, never read as silence."""
        return self in _FAILURES


_FAILURES = (AnswerStatus.UNPARSABLE, AnswerStatus.TOO_LONG, AnswerStatus.FAILED)


@dataclass(frozen=True, slots=True, repr=False)
class Quote:
    """A verbatim piece of the report: `report.text[start:end] == text`.

    Attributes:
        start, end: character span in the report, end exclusive.
        text: the characters of that span.
        score: how well it supports the answer, 0 to 1 (see `evidence.py`).
        found_by: `focus_terms` or `model`.
    """

    start: int
    end: int
    text: str
    score: float
    found_by: str

    def __repr__(self) -> str:
        return f"Quote({self.start}:{self.end}, score={self.score:.2f}, found_by={self.found_by!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """The answer to one subtask for one report.

    Attributes:
        subtask: id of the subtask.
        finding: the finding it reads, or None for a free passage.
        status: see `AnswerStatus`.
        value: the value (`choice`), the number in the finding's unit (`number`), the quotes' texts (`spans`),
            the passage (`text`); None unless the status is `ok`.
        probabilities: of every value of the finding and `not_stated`, summing to one; empty unless scored.
        quotes: where in the report the answer rests, best first; empty when no place was found.
        characters_read, characters_total: how much of the report the model saw for this answer.
        complete: False where text that bears on the question was left out for want of room.
        seconds: time spent on this subtask, without the report's shared prefix.
        tokens: tokens computed for this subtask, without the report's shared prefix.
        error: kind of error (a class name and a place in the code), for a failed answer. Never report text.
        reason: why it was not asked, for a skipped one. Never report text.
    """

    subtask: str
    finding: str | None
    status: AnswerStatus
    value: str | float | tuple[str, ...] | None = None
    probabilities: Mapping[str, float] = field(default_factory=lambda: NO_PROBABILITIES)
    quotes: tuple[Quote, ...] = ()
    characters_read: int = 0
    characters_total: int = 0
    complete: bool = True
    seconds: float = 0.0
    tokens: int = 0
    error: str | None = None
    reason: str | None = None

    @property
    def probability(self) -> float | None:
        """Probability of the value given (of silence for `not_stated`), or None where nothing was scored."""
        if not self.probabilities:
            return None
        return max(self.probabilities.values())

    @property
    def read_whole_report(self) -> bool:
        """True when the model saw every character of the report."""
        return self.characters_read >= self.characters_total

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form; `from_json` reads it back to an equal answer. Only a skipped one has a `reason` in it."""
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        reason = {} if self.reason is None else {"reason": self.reason}
        return {
            "subtask": self.subtask,
            "finding": self.finding,
            "status": self.status.value,
            "value": value,
            "probabilities": dict(self.probabilities),
            "quotes": [
                {"start": q.start, "end": q.end, "text": q.text, "score": q.score, "found_by": q.found_by}
                for q in self.quotes
            ],
            "characters_read": self.characters_read,
            "characters_total": self.characters_total,
            "complete": self.complete,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "error": self.error,
            **reason,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Answer:
        """The answer that `to_json` wrote."""
        value, quotes = stored["value"], stored["quotes"]
        return cls(
            **{
                **stored,
                "value": tuple(value) if isinstance(value, list) else value,
                "status": AnswerStatus(stored["status"]),
                "quotes": tuple([Quote(**quote) for quote in quotes]) if quotes else (),
            }
        )

    def __repr__(self) -> str:
        return (
            f"Answer(subtask={self.subtask!r}, status={self.status.value!r}, "
            f"probability={self.probability}, quotes={len(self.quotes)})"
        )
