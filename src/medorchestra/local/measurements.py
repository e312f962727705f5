"""Finds the measurements that stand in a report, so that a number is chosen among them and never invented.

Knows units, nothing of models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from medorchestra.plan import NumberRange

_GAP = r"\s{0,6}"
"""White space inside a measurement; bounded, or a report full of blanks would take minutes."""
_NUMBER = r"\d{1,6}(?:[.,]\d{1,3})?"
_GROUPED = rf"(?:\d{{1,3}}(?:,\d{{3}})+(?:\.\d{{1,3}})?|{_NUMBER})"
"""With a comma for thousands, as laboratory values have it; in a length a comma is a decimal point."""
_UNIT = r"(?:[mc]ms?|millimet(?:er|re)s?|centimet(?:er|re)s?)"
_AXIS = rf"(?:{_GAP}\(?\b(?:AP|CC|LR|ML|RL|SI|TR|TV)\b\)?)?"
_SIDE = rf"{_NUMBER}(?:{_GAP}{_UNIT}(?!\w))?{_AXIS}"
_LENGTH = re.compile(
    rf"(?<![\w.,])(?:{_SIDE}{_GAP}(?:[x×*]|\bby\b){_GAP}){{0,2}}{_NUMBER}{_AXIS}[\])]?{_GAP}-?{_GAP}{_UNIT}(?![\w^]|/s)"
    rf"|\b(?P<before>mm|cm)\b[\])]?{_GAP}[:=]{_GAP}{_NUMBER}(?:{_GAP}[x×*/]{_GAP}{_NUMBER}){{0,2}}"
    rf"(?!\w|[.,]\d|{_GAP}(?:[%°]|{_UNIT}))",
    re.IGNORECASE,
)
"""With the unit behind, or before a colon as forms have it: `Size (mm): 24 x 19`."""
_LENGTH_PART = re.compile(rf"({_NUMBER})(?:{_AXIS}[\])]?{_GAP}-?{_GAP}({_UNIT}))?", re.IGNORECASE)
_COUNT = re.compile(
    rf"(?<![\w.,])\d{{1,4}}(?![\w.,]*\d)(?!{_GAP}(?:(?:mm|cm|degrees?)\b|[%°]|[x×*]{_GAP}\d))", re.IGNORECASE
)
_PERCENT = re.compile(rf"(?<![\w.,])({_NUMBER}){_GAP}%")
_ACTIVITY = re.compile(rf"(?<![\w.,])({_GROUPED}){_GAP}(?:U|IU|units?){_GAP}/{_GAP}mL", re.IGNORECASE)
_PATTERNS = {"cm": _LENGTH, "mm": _LENGTH, "count": _COUNT, "percent": _PERCENT, "unit_per_ml": _ACTIVITY}


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement at `text[start:end]`.

    Attributes:
        start, end: character span in the report, end exclusive.
        value: in the asked unit; of several dimensions the largest.
        words: as it stands there, on one line.
    """

    start: int
    end: int
    value: float
    words: str


def measurements_in(text: str, number: NumberRange) -> tuple[Measurement, ...]:
    """All measurements of the unit's kind whose value lies in the finding's range, in order."""
    found: list[Measurement] = []
    for match in _PATTERNS[number.unit].finditer(text):
        value = round(_value(match, number.unit), 4)
        if number.minimum <= value <= number.maximum:
            found.append(Measurement(match.start(), match.end(), value, " ".join(match[0].split())))
    return tuple(found)


def _value(match: re.Match[str], unit: str) -> float:
    if unit in ("cm", "mm"):
        return _largest(match[0], unit, match["before"])
    if unit == "unit_per_ml":
        digits = re.sub(r",(?=\d{3}(?!\d))", "", match[1])
        return float(digits.replace(",", "."))
    return float(match[1 if match.re.groups else 0].replace(",", "."))


def _largest(words: str, unit: str, unit_before: str | None) -> float:
    """The largest of several lengths; one without a unit has that of the next one."""
    largest, millimetres = 0.0, (unit_before or "").lower() == "mm"
    for number, own_unit in reversed(_LENGTH_PART.findall(words)):
        millimetres = own_unit.lower().startswith("m") if own_unit else millimetres
        factor = (1.0 if millimetres else 10.0) / (1.0 if unit == "mm" else 10.0)
        largest = max(largest, float(number.replace(",", ".")) * factor)
    return largest
