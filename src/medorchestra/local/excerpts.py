"""What the model gets to read of a report: all of it, or the sentences that bear on a question. Never a silent cut.

Knows sentences and terms; the executor knows how much fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medorchestra.local.evidence import term_score
from medorchestra.local.sentences import Sentence, sentences_of

GAP = "\n"
"""Stands between chosen sentences."""


@dataclass(frozen=True, slots=True, repr=False)
class Excerpt:
    """The part of a report that is read.

    Attributes:
        text: what the model reads.
        characters: characters of the report in it.
        whole: True when it is the report itself, unchanged.
    """

    text: str
    characters: int
    whole: bool

    def __repr__(self) -> str:
        return f"Excerpt({self.characters} characters, whole={self.whole})"


def whole_report(text: str) -> Excerpt:
    """The report as it stands."""
    return Excerpt(text, len(text), True)


class FocusedReading:
    """A report's sentences, ranked for terms: builds excerpts of bounded length."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sentences: tuple[Sentence, ...] = sentences_of(text)

    def mentions(self, terms: Sequence[str]) -> bool:
        """Whether any sentence has one of the terms."""
        return any(term_score(self.text, sentence, terms) > 0 for sentence in self.sentences)

    def excerpt(self, terms: Sequence[str], longest: int) -> Excerpt | None:
        """The sentences that have one of the terms, best first until `longest` characters, in the report's order.

        Returns:
            None when no sentence has a term, or not even the best one fits.
        """
        ranked = [(term_score(self.text, sentence, terms), sentence) for sentence in self.sentences]
        ranked = sorted((pair for pair in ranked if pair[0] > 0), key=lambda pair: (-pair[0], pair[1].start))
        chosen: list[Sentence] = []
        used = 0
        for _, sentence in ranked:
            length = sentence.end - sentence.start + len(GAP)
            if used + length <= longest:
                chosen.append(sentence)
                used += length
        if not chosen:
            return None
        chosen.sort(key=lambda sentence: sentence.start)
        pieces = [self.text[sentence.start : sentence.end] for sentence in chosen]
        return Excerpt(GAP.join(pieces), sum(map(len, pieces)), False)
