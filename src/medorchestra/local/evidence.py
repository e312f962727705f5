"""Finds the sentences of a report that a choice rests on, and says how well they fit.

For a closed choice the model gives a value, not a place. The place is the sentence that names the finding (the
plan's focus terms, the most specific first) and, among several, the one that shares words with the value's label.
The score only ranks sentences: it never changes a value. No sentence found is shown as such.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from medorchestra.local.answers import Quote
from medorchestra.local.sentences import Sentence, terms_in

MAX_QUOTES = 2
TERM_SHARE = 0.7
"""Share of the score that comes from the terms; the rest comes from the label's words."""

_WORD = re.compile(r"\w+")


def term_score(text: str, sentence: Sentence, terms: Sequence[str]) -> float:
    """0 where no term occurs; else 0.5 to 1, higher for terms nearer the front of the plan's list."""
    found = terms_in(text, sentence, terms)
    return 1.0 - 0.5 * min(found) / len(terms) if found else 0.0


def supporting_quotes(text: str, sentences: Sequence[Sentence], terms: Sequence[str], label: str) -> tuple[Quote, ...]:
    """The best sentences for an answer, best first; empty when no sentence has a term.

    Args:
        text: the whole report.
        sentences: its sentences.
        terms: focus terms of the subtask.
        label: the label of the value that was chosen.
    """
    label_words = {word.lower() for word in _WORD.findall(label)}
    scored: list[Quote] = []
    for sentence in sentences:
        by_terms = term_score(text, sentence, terms)
        if by_terms == 0.0:
            continue
        words = {word.lower() for word in _WORD.findall(text[sentence.start : sentence.end])}
        shared = len(label_words & words) / len(label_words) if label_words else 0.0
        score = round(TERM_SHARE * by_terms + (1 - TERM_SHARE) * shared, 4)
        quoted = text[sentence.start : sentence.end]
        scored.append(Quote(sentence.start, sentence.end, quoted, score, "focus_terms"))
    return tuple(sorted(scored, key=lambda quote: (-quote.score, quote.start))[:MAX_QUOTES])
