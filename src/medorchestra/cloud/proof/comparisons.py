"""Comparisons with a number in English words and symbols: "more than 180 degrees", "> 2 to 4 cm", `<=180_smooth`.

A comparison is kept as what it says right below, at and right above its number: "more than 180" is (no, no, yes). Reads
text; knows nothing of plans. What has no comparison in it ("contact of 180 degrees") yields nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

Sides: TypeAlias = tuple[bool, bool, bool]
"""Whether it holds right below, at, and right above the number."""

ABOVE: Sides = (False, False, True)
AT_LEAST: Sides = (False, True, True)
BELOW: Sides = (True, False, False)
AT_MOST: Sides = (True, True, False)
EXACTLY: Sides = (False, True, False)

_WORDS = {
    ABOVE: "above",
    AT_LEAST: "at least",
    BELOW: "below",
    AT_MOST: "at most",
    EXACTLY: "exactly",
}

_NUMERALS = {"zero": 0.0, "one": 1.0, "two": 2.0, "three": 3.0, "four": 4.0, "five": 5.0, "six": 6.0, "seven": 7.0}
_NUMERALS |= {"eight": 8.0, "nine": 9.0, "ten": 10.0, "eleven": 11.0, "twelve": 12.0}
_UNITS = {
    "cm": r"cm|centimet(?:er|re)s?",
    "mm": r"mm|millimet(?:er|re)s?",
    "degrees": r"degrees?|deg|°|º",
    "percent": r"%|percent|per cent",
    "unit_per_ml": r"(?:U|IU|units?)\s*/\s*ml",
    "count": r"(?:(?:suspicious|enlarged|positive|regional|lymph)\s+)*(?:nodes?|lesions?|nodules?|metastas[ei]s)",
}
_UNIT = "(?:" + "|".join(f"(?P<{unit}{{n}}>(?:{words})(?![a-z]))" for unit, words in _UNITS.items()) + ")?"
_NUMBER = r"(?P<number{n}>\d+(?:[.,]\d+)?|\b(?:" + "|".join(_NUMERALS) + r")\b)"
_QUANTITY = _NUMBER + r"[\s_-]*" + _UNIT

_PREFIXES: tuple[tuple[Sides, str], ...] = (
    (
        AT_MOST,
        r"(?:no|not)\s+(?:more|greater|larger|bigger|higher)\s+than|(?:not|n't)\s+exceed(?:ing)?|at\s+most"
        r"|(?:less|smaller|lower|fewer)\s+than\s+or\s+equal\s+to|equal\s+to\s+or\s+(?:less|smaller|fewer|lower)\s+than"
        r"|(?:not|never)\s+(?:above|over|beyond)|up\s+to|a\s+maximum\s+of|≤|⩽|<=|=<|\ble(?=\s*\d)",
    ),
    (
        AT_LEAST,
        r"(?:no|not)\s+(?:less|smaller|fewer|lower)\s+than|at\s+least|a\s+minimum\s+of|not\s+(?:below|under)"
        r"|(?:more|greater|larger|bigger|higher)\s+than\s+or\s+equal\s+to"
        r"|equal\s+to\s+or\s+(?:more|greater|larger|bigger|higher)\s+than|≥|⩾|>=|=>|\bge(?=\s*\d)",
    ),
    (
        ABOVE,
        r"(?:more|greater|larger|bigger|higher)\s+than|above|over|exceed(?:s|ing)?|beyond|in\s+excess\s+of|>"
        r"|\bgt(?=\s*\d)",
    ),
    (BELOW, r"(?:less|smaller|fewer|lower)\s+than|below|under|<|\blt(?=\s*\d)"),
    (EXACTLY, r"exactly|precisely|equal\s+to|(?<![<>=])="),
)
_PREFIX = "|".join(rf"(?P<p{i}>{words})" for i, (_, words) in enumerate(_PREFIXES))
_SUFFIXES: tuple[tuple[Sides, str], ...] = (
    (AT_MOST, r"(?:or|and)\s+(?:less|fewer|smaller|below|under|lower)"),
    (AT_LEAST, r"(?:or|and)\s+(?:more|greater|larger|bigger|above|over|higher)(?!\s+than)"),
)
_SUFFIX = "|".join(rf"(?P<s{i}>{words})" for i, (_, words) in enumerate(_SUFFIXES))

_RANGE = re.compile(
    rf"(?P<between>\bbetween\s+)?(?:(?P<above>>|(?:more|greater|larger)\s+than)\s*)?{_QUANTITY.replace('{n}', '1')}"
    rf"\s*(?:\bto\b|\band\b|[-–—])\s*{_QUANTITY.replace('{n}', '2')}",
    re.IGNORECASE,
)
_PREFIXED = re.compile(rf"(?<![a-z])(?:{_PREFIX})\s*(?:a\s+|about\s+)?{_QUANTITY.replace('{n}', '')}", re.IGNORECASE)
_SUFFIXED = re.compile(rf"{_QUANTITY.replace('{n}', '')}\s*,?\s*(?:{_SUFFIX})\b", re.IGNORECASE)
_SIDE = re.compile(r"[^.;]{0,60}?\b(?P<side>lower|upper)\s+side\b", re.IGNORECASE)
_NEXT_UNIT = re.compile(rf"[^.;\d]{{0,25}}{_QUANTITY.replace('{n}', '')}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison with a number.

    Attributes:
        number: in `unit`.
        unit: cm, mm, degrees, percent, unit_per_ml, count, or None where none is named.
        sides: what it says around the number.
    """

    number: float
    unit: str | None
    sides: Sides

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit and self.unit != "count" else ""
        return f"{_WORDS.get(self.sides, 'around')} {self.number:g}{unit}"

    def in_unit(self, unit: str | None) -> Comparison | None:
        """The same in another unit; None where it is about something else. An unnamed unit fits any."""
        if unit is None or self.unit is None or self.unit == unit:
            return replace(self, unit=unit or self.unit)
        factor = {("mm", "cm"): 0.1, ("cm", "mm"): 10.0}.get((self.unit, unit))
        return None if factor is None else replace(self, number=round(self.number * factor, 9), unit=unit)


def comparisons_in(text: str) -> tuple[Comparison, ...]:
    """All comparisons of a text, without repeats. A range counts as two; its ends belong to it unless it says more.

    Underscores count as spaces, so that names of values are read too. "Exactly 180 degrees is on the lower side" tells
    of both sides of a number, where nothing else is said of it.
    """
    found: dict[Comparison, None] = {}
    told_by_side: list[Comparison] = []
    text = text.replace("_", " ")
    for comparison, follows in _found(text):
        side = _SIDE.match(text, follows) if comparison.sides == EXACTLY else None
        if side is None:
            found.setdefault(comparison)
        else:
            both = (AT_MOST, ABOVE) if side["side"].lower() == "lower" else (BELOW, AT_LEAST)
            told_by_side += [replace(comparison, sides=sides) for sides in both]
    numbers = {comparison.number for comparison in found}
    found |= dict.fromkeys(comparison for comparison in told_by_side if comparison.number not in numbers)
    return tuple(found)


def _found(text: str) -> Iterator[tuple[Comparison, int]]:
    """Comparisons, each with the place behind it."""
    taken: list[tuple[int, int]] = []
    for match in _RANGE.finditer(text):
        if re.search(r"\band\b", match[0], re.IGNORECASE) and not match["between"]:
            continue  # "2 and 3" is no range
        taken.append(match.span())
        unit = _unit(match, "2")
        low, high = _number(match["number1"]), _number(match["number2"])
        lows: tuple[Sides, ...] = (ABOVE if match["above"] else AT_LEAST,)
        highs: tuple[Sides, ...] = (AT_MOST,)
        if match["between"]:  # does not say on which side its ends are
            lows, highs = (ABOVE, AT_LEAST), (BELOW, AT_MOST)
        yield from ((Comparison(low, _unit(match, "1") or unit, sides), match.end()) for sides in lows)
        yield from ((Comparison(high, unit, sides), match.end()) for sides in highs)
    for pattern, names, kinds in ((_PREFIXED, "p", _PREFIXES), (_SUFFIXED, "s", _SUFFIXES)):
        for match in pattern.finditer(text):
            if any(start <= match.start("number") < end for start, end in taken):
                continue
            sides = next(kind for i, (kind, _) in enumerate(kinds) if match[f"{names}{i}"])
            unit = _unit(match, "") or _unit_that_follows(text[match.end("number") :])
            yield Comparison(_number(match["number"]), unit, sides), match.end()


def _number(words: str) -> float:
    return _NUMERALS[words.lower()] if words.lower() in _NUMERALS else float(words.replace(",", "."))


def _unit(match: re.Match[str], suffix: str) -> str | None:
    return next((unit for unit in _UNITS if match[f"{unit}{suffix}"]), None)


def _unit_that_follows(rest: str) -> str | None:
    """In `> 0.5 and < 1 cm` the first number has the unit of the next one."""
    match = _NEXT_UNIT.match(rest)
    return _unit(match, "") if match else None
