"""Whether a report is one that the plan is for. Outside its scope a report is staged only with a flag.

Scope never decides a value: it says in what respect a report does not look like one of the plan's, by the plan's own
terms and by language. Knows nothing of models.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from medorchestra.local.sentences import has_any_term, has_term
from medorchestra.plan import Scope

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

LANGUAGES = [
    "en",
    "de",
    "fr",
    "es",
    "it",
    "pt",
    "nl",
    "pl",
    "tr",
    "ru",
    "ja",
    "zh",
    "ko",
    "sv",
    "da",
    "no",
    "fi",
    "cs",
    "hu",
    "ro",
    "el",
    "ar",
    "he",
    "uk",
    "vi",
    "th",
    "hi",
]

SURE_OF_ANOTHER_LANGUAGE = 0.9
"""Reports are terse: below this probability another language is not believed."""


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier


def language_of(text: str) -> tuple[str, float]:
    """Most probable language (ISO 639-1) of a text and its probability."""
    # Naive Bayes over byte n-grams: all-upper-case text has other n-grams than the training text.
    language, probability = _identifier().classify(text.lower())
    return str(language), float(probability)


def scope_problems(text: str, scope: Scope) -> tuple[str, ...]:
    """Why the report does not look like one of the plan's; empty when it does. Names terms of the plan only."""
    problems: list[str] = []
    language, probability = language_of(text)
    if language != scope.language and probability >= SURE_OF_ANOTHER_LANGUAGE:
        problems.append(f"language looks like {language!r}, the plan is for {scope.language!r}")
    for group in scope.requires:
        if not has_any_term(text, group.terms):
            problems.append(f"no word for {group.name} found")
    if has_any_term(text, scope.excludes):
        absent = next(phrase for phrase in scope.excludes if has_term(text, phrase))
        problems.append(f"says {absent!r}")
    if has_any_term(text, scope.competing):
        competing = [term for term in scope.competing if has_term(text, term)]
        problems.append(f"may be about something else: names {', '.join(map(repr, competing[:3]))}")
    return tuple(problems)
