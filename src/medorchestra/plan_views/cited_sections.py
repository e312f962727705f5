"""Citations of a plan laid beside the guideline's own text: where a quote stands, and whether it stands there at all.

Verbatim means word for word; line breaks count as spaces. Sections come as a mapping, so that neither side of the
privacy boundary has to be known here. Judges no meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

from medorchestra.plan import Citation, Plan

Sections: TypeAlias = Mapping[str, tuple[str, str]]
"""Number of a section -> its title and its text, in the order of the guideline."""

_WRAPPED = re.compile(r"(?<!\n)[ \t]*\n(?![ \t]*(?:\n|[-*+|>#]|\d+[.)]\s))")


@dataclass(frozen=True, slots=True)
class Citer:
    """What in a plan cites the guideline.

    Attributes:
        kind, name: a rule, a subtask or a flag.
        citation: its place.
    """

    kind: Literal["rule", "subtask", "flag"]
    name: str
    citation: Citation


@dataclass(frozen=True, slots=True)
class Quote:
    """One quote and all that cites it.

    Attributes:
        number: of the quote within its section, from 1.
        text: as the plan has it.
        citers: in the order rules, subtasks, flags.
        found: whether it stands in the section, word for word.
        elsewhere: sections in which it stands instead.
    """

    number: int
    text: str
    citers: tuple[Citer, ...]
    found: bool
    elsewhere: tuple[str, ...] = ()

    @property
    def by_rule(self) -> bool:
        """Whether a rule rests on it."""
        return any(citer.kind == "rule" for citer in self.citers)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of a section over which the same quotes lie. The pieces of a section, joined, are its unwrapped text."""

    text: str
    quotes: tuple[Quote, ...]
    ends: tuple[Quote, ...]


@dataclass(frozen=True, slots=True)
class CitedSection:
    """A section and its quotes.

    Attributes:
        number, title: as in the guideline.
        known: whether the guideline has it.
        stretches: its text, cut at the ends of the quotes.
        quotes: found ones in the order of the text, then those that are not there.
    """

    number: str
    title: str
    known: bool
    stretches: tuple[Stretch, ...]
    quotes: tuple[Quote, ...]

    @property
    def has_text(self) -> bool:
        """Whether there is more than a heading."""
        return any(stretch.text.strip() for stretch in self.stretches)


def citers_of(plan: Plan) -> tuple[Citer, ...]:
    """Everything in the plan that cites the guideline."""
    citers = [Citer("rule", rule.id, rule.citation) for rule in plan.all_rules]
    citers += [Citer("subtask", subtask.id, subtask.citation) for subtask in plan.subtasks]
    citers += [Citer("flag", flag.id, flag.citation) for flag in plan.flags if flag.citation is not None]
    return tuple(citers)


def place_of(quote: str, text: str) -> tuple[int, int] | None:
    """Start and end of the quote in the text, or None; white space of any kind and length is one space."""
    found = re.search(r"\s+".join(map(re.escape, quote.split())), text)
    return found.span() if found else None


def unwrapped(text: str) -> str:
    """The text without the line breaks inside its paragraphs; lists and tables keep theirs."""
    return _WRAPPED.sub(" ", text)


def cited_sections(plan: Plan, sections: Sections) -> tuple[CitedSection, ...]:
    """Every section of the guideline with the quotes of the plan, then sections that are cited and do not exist."""
    cited: dict[str, list[Citer]] = {}
    for citer in citers_of(plan):
        cited.setdefault(citer.citation.section, []).append(citer)
    texts = {number: unwrapped(text) for number, (_, text) in sections.items()}
    unknown = sorted(set(cited) - set(sections), key=lambda number: [int(part) for part in number.split(".")])
    laid = []
    for number in (*sections, *unknown):
        quotes = _quotes(number, cited.get(number, ()), texts)
        title, text = sections[number][0] if number in sections else "", texts.get(number, "")
        laid.append(CitedSection(number, title, number in sections, _stretches(text, quotes), quotes))
    return tuple(laid)


def _quotes(number: str, citers: Iterable[Citer], texts: Mapping[str, str]) -> tuple[Quote, ...]:
    by_words: dict[str, list[Citer]] = {}
    for citer in citers:
        by_words.setdefault(" ".join(citer.citation.quote.split()), []).append(citer)
    places = {words: place_of(words, texts.get(number, "")) for words in by_words}
    ordered = sorted(by_words, key=lambda words: places[words] or (len(texts.get(number, "")) + 1, 0))
    quotes = []
    for i, words in enumerate(ordered, start=1):
        found = places[words] is not None
        elsewhere = () if found else tuple(one for one, text in texts.items() if place_of(words, text))
        quotes.append(Quote(i, by_words[words][0].citation.quote, tuple(by_words[words]), found, elsewhere))
    return tuple(quotes)


def _stretches(text: str, quotes: Sequence[Quote]) -> tuple[Stretch, ...]:
    spans = [(quote, span) for quote in quotes if (span := place_of(quote.text, text)) is not None]
    cuts = sorted({0, len(text), *(edge for _, span in spans for edge in span)})
    return tuple(
        Stretch(
            text[start:end],
            tuple(quote for quote, (first, last) in spans if first <= start and end <= last),
            tuple(quote for quote, (_, last) in spans if last == end),
        )
        for start, end in pairwise(cuts)
    )
