"""Finds the measurements that stand in a report, so that a number is chosen among them and never invented.

Knows units, nothing of models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from medorchestra.plan import NumberRange

_NUMBER = r"\d{1,6}(?:[.,]\d{1,3})?"
_LENGTH = re.compile(
    rf"(?<![\w.,])(?P<numbers>{_NUMBER}(?:\s*(?:mm|cm)?\s*[x×*]\s*{_NUMBER}){{0,2}})\s*-?\s*(?P<unit>mm|cm)(?!\w)",
    re.IGNORECASE,
)
_COUNT = re.compile(r"(?<![\w.,])(?P<numbers>\d{1,4})(?![\w.,]*\d)(?!\s*(?:mm|cm|%)\b)")
_PERCENT = re.compile(rf"(?<![\w.,])(?P<numbers>{_NUMBER})\s*%")
_ACTIVITY = re.compile(rf"(?<![\w.,])(?P<numbers>{_NUMBER})\s*(?:U|IU|units?)\s*/\s*mL", re.IGNORECASE)
_PATTERNS = {"cm": _LENGTH, "mm": _LENGTH, "count": _COUNT, "percent": _PERCENT, "unit_per_ml": _ACTIVITY}
_CENTIMETRES = {"mm": 0.1, "cm": 1.0}


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement at `text[start:end]`. Of several dimensions the largest counts; `value` is in the asked unit."""

    start: int
    end: int
    value: float


def measurements_in(text: str, number: NumberRange) -> tuple[Measurement, ...]:
    """All measurements of the unit's kind whose value lies in the finding's range, in order."""
    found: list[Measurement] = []
    for match in _PATTERNS[number.unit].finditer(text):
        largest = max(float(piece.replace(",", ".")) for piece in re.findall(_NUMBER, match["numbers"]))
        if number.unit in _CENTIMETRES:
            largest *= _CENTIMETRES[match["unit"].lower()] / _CENTIMETRES[number.unit]
        value = round(largest, 4)
        if number.minimum <= value <= number.maximum:
            found.append(Measurement(match.start(), match.end(), value))
    return tuple(found)
