"""Finds what could identify a person in a text that is about to leave. Decides nothing, keeps and shows no text.

Own recognisers: patterns with check digits where a number has them, labels where it has none, and names by context and
list (`person_names`). Presidio was measured and not taken: without a language model it sees no names, with one it takes
most texts about staging for personal (benchmarks/privacy/README.md). A year, a month with its year, an age and 'last
week' are no identifiers here; a day is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from medorchestra.cloud.egress.identifier_patterns import PATTERNS, PLACE_OF_PERSON, PUBLIC_NUMBER, IdentifierKind
from medorchestra.cloud.egress.person_names import find_person_names, word_list


@dataclass(frozen=True, slots=True)
class Identifier:
    """Where something that could identify a person stands. Holds no text, so its repr cannot show any.

    Attributes:
        kind: what it is.
        start, end: characters of the text, end exclusive.
    """

    kind: IdentifierKind
    start: int
    end: int


# One character for one, so that spans stay true: dashes, quotes, spaces and full-width digits as a keyboard has them.
_PLAIN = str.maketrans(
    "\u2010\u2011\u2012\u2013\u2014\u2212\u2018\u2019\u02bc\u00b4`\u00a0\u2007\u2009\u202f\u3000\uff0f\uff1a"
    + "".join(chr(0xFF10 + digit) for digit in range(10)),
    "------'''''     /:0123456789",
)
_PLACE_OF_PERSON = re.compile(PLACE_OF_PERSON)
_PUBLIC_NUMBER = re.compile(PUBLIC_NUMBER, re.IGNORECASE)


@lru_cache(maxsize=1)
def _compiled() -> tuple[tuple[IdentifierKind, re.Pattern[str]], ...]:
    return tuple((kind, re.compile(pattern)) for kind, patterns in PATTERNS.items() for pattern in patterns)


_NHS_NUMBER = re.compile(r"(?<![\w.-])\d{3}[ -]?\d{3}[ -]?\d{4}(?!\w)(?![.-]\w)")
_DNI = re.compile(r"(?<!\w)\d{8}-?[A-Z](?!\w)")
_NIR = re.compile(r"(?<!\w)[12] ?\d\d ?(?:0[1-9]|1[0-2]) ?\d{2} ?\d{3} ?\d{3} ?\d{2}(?!\w)")


def _is_nhs_number(digits: str) -> bool:
    """Check digit: weights 10 to 2, modulo 11 (NHS Data Dictionary)."""
    rest = -sum(int(digit) * weight for digit, weight in zip(digits, range(10, 1, -1), strict=False)) % 11
    return len(digits) == 10 and rest == int(digits[9])


def _with_check_digit(text: str) -> Iterator[tuple[int, int]]:
    for match in _NHS_NUMBER.finditer(text):
        if _is_nhs_number(re.sub(r"\D", "", match.group())):
            yield match.span()
    for match in _DNI.finditer(text):
        number = match.group().replace("-", "")
        if "TRWAGMYFPDXBNJZSQVHLCKE"[int(number[:8]) % 23] == number[8]:
            yield match.span()
    for match in _NIR.finditer(text):
        digits = match.group().replace(" ", "")
        if 97 - int(digits[:13]) % 97 == int(digits[13:]):
            yield match.span()


def _is_place(found: str) -> bool:
    words = re.findall(r"[A-Za-z]+", found)
    named = [word for word in words if word.lower() not in word_list("no_place_names") | word_list("not_names")]
    return any(word[0].isupper() and word.lower() not in word_list("eponyms") for word in named)


def _of_kinds(text: str) -> Iterator[Identifier]:
    for kind, pattern in _compiled():
        for match in pattern.finditer(text):
            start, end = match.span("place") if "place" in pattern.groupindex else match.span()
            if kind is IdentifierKind.PLACE and not _is_place(text[start:end]):
                continue
            if kind is IdentifierKind.RECORD_NUMBER and _is_no_number(text, start, end):
                continue
            yield Identifier(kind, start, end)
    yield from (Identifier(IdentifierKind.NATIONAL_ID, *span) for span in _with_check_digit(text))
    for start, end in find_person_names(text):
        yield Identifier(IdentifierKind.NAME, start, end)
        place = _PLACE_OF_PERSON.match(text, end)
        if place and _is_place(place["place"]):
            yield Identifier(IdentifierKind.PLACE, *place.span("place"))


def _is_no_number(text: str, start: int, end: int) -> bool:
    digits = sum(character.isdigit() for character in text[start:end])
    return digits < 3 or _PUBLIC_NUMBER.search(text[max(0, start - 60) : start]) is not None


def plain(text: str) -> str:
    """The same text, character for character, with the dashes, quotes, spaces and digits of a keyboard."""
    return text.translate(_PLAIN)


def find_identifiers(text: str) -> tuple[Identifier, ...]:
    """What in the text could identify a person, by place; where two overlap, the kind that comes first in the list.

    Returns:
        Identifiers that do not overlap. None found is no proof that there is none.
    """
    order = list(IdentifierKind)
    found = sorted(_of_kinds(plain(text)), key=lambda one: (order.index(one.kind), one.start, -one.end))
    kept: list[Identifier] = []
    taken = bytearray(len(text))
    for one in found:
        if not any(taken[one.start : one.end]):
            kept.append(one)
            taken[one.start : one.end] = b"\x01" * (one.end - one.start)
    return tuple(sorted(kept, key=lambda one: one.start))
