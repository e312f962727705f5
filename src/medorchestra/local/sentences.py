"""Cuts a report into sentences and lines, as character spans, and finds a plan's terms in them.

A line that was only wrapped goes on in the next one: "No evidence of" and "liver metastases" must never part. Knows
nothing of models or findings. Spans cover every character that is not white space; nothing is rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

# A sentence ends at . ! ? ; followed by white space and something that can begin a sentence, but not after these
# (the second kind only before a number: "metastases: no. Nodes: none", "contact with the CA. The SMA is free").
_ABBREVIATION = re.compile(r"\b(?:cf|dr|e\.g|i\.e|incl|resp|st|vs|[a-z])\.$", re.IGNORECASE)
_ABBREVIATION_BEFORE_NUMBER = re.compile(r"\b(?:approx|ca|fig|max|min|no|seg)\.$", re.IGNORECASE)
_BREAK = re.compile(r"(?:(?<=[.!?;])|(?<=[.!?][)\]\"']))[ \t]+(?=[A-ZÀ-ÖØ-Þ0-9(\[\"'<>*-])")
_LINE = re.compile(r"[^\r\n]+")

_NEXT_LINE = re.compile(r"\r\n|\r|\n")
_OWN_LINE = re.compile(r"[-*•·>]|\(?\d{1,2}[.)]\s|[^:]{1,50}:")
"""Begins a line that does not go on from the one before: a list's mark, or a label with a colon."""

_SHORTEST_WRAPPED = 40
"""Characters below which a line was not wrapped but ended."""

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
    for passage in _passages(text):
        begin = passage.start
        for gap in _BREAK.finditer(text, passage.start, passage.end):
            if not _is_abbreviation(text, begin, gap.start(), gap.end()):
                found.append(Sentence(begin, gap.start()))
                begin = gap.end()
        found.append(Sentence(begin, passage.end))
    pieces = (piece for sentence in found for piece in _pieces(text, sentence))
    return tuple(_trimmed(text, piece) for piece in pieces if text[piece.start : piece.end].strip())


def _passages(text: str) -> list[Sentence]:
    """Lines, together with those in which they go on."""
    lines = [Sentence(line.start(), line.end()) for line in _LINE.finditer(text)]
    width = max((line.end - line.start for line in lines), default=0)
    passages: list[Sentence] = []
    last: Sentence | None = None
    for line in lines:
        if last is not None and _goes_on(text, last, line, width):
            passages[-1] = Sentence(passages[-1].start, line.end)
        else:
            passages.append(line)
        last = line
    return passages


def _goes_on(text: str, line: Sentence, following: Sentence, width: int) -> bool:
    """Whether a line was wrapped: it is long, does not end, and the next one begins as no new line does.

    A next line that begins with a capital goes on only where its first word would not have fitted any more.
    """
    if _NEXT_LINE.fullmatch(text, line.end, following.start) is None:
        return False  # a blank line between them
    here, after = text[line.start : line.end].rstrip(), text[following.start : following.end].lstrip()
    if len(here) < _SHORTEST_WRAPPED or not after or _OWN_LINE.match(after):
        return False
    if here[-1] in ".!?:;" and not _is_abbreviation(text, line.start, line.start + len(here), following.start):
        return False
    first_word = after.split(maxsplit=1)[0]
    return after[0].islower() or after[0].isdigit() or len(here) + 1 + len(first_word) > width


def _is_abbreviation(text: str, begin: int, stop: int, after: int) -> bool:
    """Whether the full stop before `stop` belongs to an abbreviation; `after` is where the text goes on."""
    window = max(begin, stop - 12), stop
    if _ABBREVIATION.search(text, *window):
        return True
    return text[after : after + 1].isdigit() and _ABBREVIATION_BEFORE_NUMBER.search(text, *window) is not None


def _pieces(text: str, sentence: Sentence) -> Iterable[Sentence]:
    start = sentence.start
    while sentence.end - start > LONGEST:
        space = max(text.rfind(white, start + 1, start + LONGEST) for white in " \n\r\t")
        cut = space if space > start else start + LONGEST
        yield Sentence(start, cut)
        start = cut
    yield Sentence(start, sentence.end)


def _trimmed(text: str, sentence: Sentence) -> Sentence:
    piece = text[sentence.start : sentence.end]
    start = sentence.start + len(piece) - len(piece.lstrip())
    return Sentence(start, start + len(piece.strip()))


@lru_cache(maxsize=4096)
def _pattern(*terms: str) -> re.Pattern[str]:
    """Any of these terms as whole words, case-insensitive; a trailing * lets the word go on; spaces match any white
    space."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(_words, terms))})", re.IGNORECASE)


def _words(term: str) -> str:
    body, tail = (term[:-1], "") if term.endswith("*") else (term, r"(?!\w)")
    return r"\s+".join(re.escape(word) for word in body.split()) + tail


def has_term(text: str, term: str, start: int = 0, end: int | None = None) -> bool:
    """Whether the term occurs in `text[start:end]`."""
    return _pattern(term).search(text, start, len(text) if end is None else end) is not None


def has_any_term(text: str, terms: Iterable[str]) -> bool:
    """Whether one of the terms occurs. One pass over the text, where one term after the other would need as many."""
    wanted = tuple(terms)
    return bool(wanted) and _pattern(*wanted).search(text) is not None


def terms_in(text: str, sentence: Sentence, terms: Iterable[str]) -> tuple[int, ...]:
    """Positions (in `terms`) of the terms that the sentence has."""
    return tuple(i for i, term in enumerate(terms) if has_term(text, term, sentence.start, sentence.end))
