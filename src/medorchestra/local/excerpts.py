"""What the model gets to read of a report: all of it, or the sentences that bear on a question. Never a silent cut.

Knows sentences, terms and what a sentence costs; the executor knows how much fits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from medorchestra.local.evidence import term_score
from medorchestra.local.sentences import Sentence, sentences_of

GAP = "\n"
"""Stands between chosen sentences."""


@dataclass(frozen=True, slots=True, repr=False)
class Excerpt:
    """The part of a report that is read.

    Attributes:
        text: what the model reads.
        spans: where that stands in the report, in its order.
        complete: True when nothing that bears on the question was left out for want of room.
    """

    text: str
    spans: tuple[Sentence, ...]
    complete: bool

    @property
    def characters(self) -> int:
        """Characters of the report in it."""
        return sum(span.end - span.start for span in self.spans)

    def holds(self, start: int, end: int) -> bool:
        """Whether `report.text[start:end]` is in it, uncut."""
        before = bisect_right(self.spans, start, key=lambda span: span.start)
        return before > 0 and end <= self.spans[before - 1].end

    def __repr__(self) -> str:
        return f"Excerpt({self.characters} characters, {len(self.spans)} spans, complete={self.complete})"


def whole_report(text: str) -> Excerpt:
    """The report as it stands."""
    return Excerpt(text, (Sentence(0, len(text)),), True)


class FocusedReading:
    """A report's sentences, ranked for terms: builds excerpts of bounded length."""

    def __init__(self, text: str, count_tokens: Callable[[str], int]) -> None:
        """Take a report and the way to count what its sentences cost."""
        self.text = text
        self.sentences: tuple[Sentence, ...] = sentences_of(text)
        self._count_tokens = count_tokens

    @cached_property
    def _costs(self) -> dict[Sentence, int]:
        """Tokens of every sentence and the gap behind it. Counted one by one they are never fewer than together."""
        gap = max(self._count_tokens(GAP), 1)
        return {one: self._count_tokens(self.text[one.start : one.end]) + gap for one in self.sentences}

    def mentions(self, terms: Sequence[str]) -> bool:
        """Whether any sentence has one of the terms."""
        return any(term_score(self.text, sentence, terms) > 0 for sentence in self.sentences)

    def excerpt(self, terms: Sequence[str], room: int) -> Excerpt | None:
        """The sentences that have one of the terms, best first while there is room, in the report's order.

        Args:
            terms: the most specific first.
            room: tokens that the excerpt may take.

        Returns:
            None when no sentence has a term, or not even the shortest one fits.
        """
        ranked = [(term_score(self.text, sentence, terms), sentence) for sentence in self.sentences]
        ranked = sorted((pair for pair in ranked if pair[0] > 0), key=lambda pair: (-pair[0], pair[1].start))
        chosen: list[Sentence] = []
        for _, sentence in ranked:
            if self._costs[sentence] <= room:
                chosen.append(sentence)
                room -= self._costs[sentence]
        if not chosen:
            return None
        chosen.sort(key=lambda sentence: sentence.start)
        pieces = [self.text[sentence.start : sentence.end] for sentence in chosen]
        return Excerpt(GAP.join(pieces), tuple(chosen), len(chosen) == len(ranked))
