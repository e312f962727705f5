"""Cuts a report into sentences and lines, as character spans, and finds a plan's terms in them.

Knows nothing of models or findings. Spans cover every character that is not white space; nothing is rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

# A sentence ends at . ! ? ; followed by white space and something that can begin a sentence, but not after these.
_ABBREVIATION = re.compile(
    r"\b(?:approx|ca|cf|dr|e\.g|fig|i\.e|incl|max|min|no|resp|seg|st|vs|[a-z])\.$", re.IGNORECASE
)
_BREAK = re.compile(r"(?:(?<=[.!?;])|(?<=[.!?][)\]\"']))[ \t]+(?=[A-Z0-9(\[\"'<>*-])")
_LINE = re.compile(r"[^\r\n]+")

LONGEST = 600
"""Characters after which a run without a full stop is cut at white space, so that a quote stays readable."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence or line: `report.text[start:end]`, without surrounding white space."""

    start: int
    end: int


def sentences_of(text: str) -> tuple[Sentence, ...]:
    """The sentences and lines of a text, in order."""
    found: list[Sentence] = []
    for line in _LINE.finditer(text):
        begin = line.start()
        for gap in _BREAK.finditer(text, line.start(), line.end()):
            if not _ABBREVIATION.search(text, max(begin, gap.start() - 12), gap.start()):
                found.append(Sentence(begin, gap.start()))
                begin = gap.end()
        found.append(Sentence(begin, line.end()))
    pieces = (piece for sentence in found for piece in _pieces(text, sentence))
    return tuple(_trimmed(text, piece) for piece in pieces if text[piece.start : piece.end].strip())


def _pieces(text: str, sentence: Sentence) -> Iterable[Sentence]:
    start = sentence.start
    while sentence.end - start > LONGEST:
        space = text.rfind(" ", start + 1, start + LONGEST)
        cut = space if space > start else start + LONGEST
        yield Sentence(start, cut)
        start = cut
    yield Sentence(start, sentence.end)


def _trimmed(text: str, sentence: Sentence) -> Sentence:
    piece = text[sentence.start : sentence.end]
    start = sentence.start + len(piece) - len(piece.lstrip())
    return Sentence(start, start + len(piece.strip()))


@lru_cache(maxsize=4096)
def _pattern(term: str) -> re.Pattern[str]:
    """A term as a whole word, case-insensitive; a trailing * lets the word go on; spaces match any white space."""
    body, tail = (term[:-1], "") if term.endswith("*") else (term, r"(?!\w)")
    words = r"\s+".join(re.escape(word) for word in body.split())
    return re.compile(rf"(?<!\w){words}{tail}", re.IGNORECASE)


def has_term(text: str, term: str, start: int = 0, end: int | None = None) -> bool:
    """Whether the term occurs in `text[start:end]`."""
    return _pattern(term).search(text, start, len(text) if end is None else end) is not None


def terms_in(text: str, sentence: Sentence, terms: Iterable[str]) -> tuple[int, ...]:
    """Positions (in `terms`) of the terms that the sentence has."""
    return tuple(i for i, term in enumerate(terms) if has_term(text, term, sentence.start, sentence.end))
