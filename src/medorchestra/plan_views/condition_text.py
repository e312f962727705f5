"""Conditions and silences of a plan as sentences, for the people who check them. Says what stands there, no more.

The sentences are exact: `, and` and `, or` join clauses, brackets hold what belongs together, and findings have a title
that is theirs alone. Shortens nothing; settles nothing but options, and those only where it is asked to.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from medorchestra.plan import Finding, Plan
from medorchestra.rules import AllOf, AnyOf, Bounds, Condition, In, Is, Not, OptionIs, PartIn, children_of

UNITS: Mapping[str, str] = {"percent": "%", "unit_per_ml": "U/ml", "count": ""}
"""Units that are written otherwise than the plan names them."""

_LONGEST_TITLE = 40
_PLAIN_TITLE = re.compile(r"\w(?:[\w /.'+()-]*[\w.')])?")
_BOUNDS = (
    ("above", "above", "at most"),
    ("at_least", "at least", "below"),
    ("below", "below", "at least"),
    ("at_most", "at most", "above"),
)
"""Field, its words, and the words of its opposite."""


def spoken(name: str) -> str:
    """A name of the plan as words."""
    return name.replace("_", " ")


def value_text(value: str, among: Iterable[str]) -> str:
    """A value as it is read: `<=180_smooth` becomes `≤180 smooth`; raw where another value would read the same.

    Args:
        value: its name in the plan.
        among: all values of its finding.
    """
    read = _readable(value)
    return value if any(other != value and _readable(other) == read for other in among) else read


def _readable(value: str) -> str:
    return spoken(value).replace("<=", "≤").replace(">=", "≥")


def finding_titles(plan: Plan) -> dict[str, str]:
    """Finding -> its title: the compact prompt where that is a plain name of its own, else the name in words."""
    short = {subtask.finding: (subtask.prompt.compact or "").strip().removesuffix(":") for subtask in plan.subtasks}
    return _own_titles({finding.name: short.get(finding.name, "") for finding in plan.findings})


def part_titles(plan: Plan) -> dict[str, str]:
    """Part -> its title in the plan where that is short and its own, else the name in words."""
    return _own_titles({part.name: part.title for part in plan.parts})


def _own_titles(wanted: Mapping[str, str]) -> dict[str, str]:
    """The wanted titles, where they are plain and cannot be taken for the title of another."""
    taken = Counter(title.casefold() for title in wanted.values())
    taken.update({spoken(name) for name in wanted})
    titles = {}
    for name, title in wanted.items():
        free = taken[title.casefold()] == (2 if title.casefold() == spoken(name) else 1)
        plain = len(title) <= _LONGEST_TITLE and _PLAIN_TITLE.fullmatch(title) is not None
        titles[name] = title if plain and free else spoken(name)
    return titles


def condition_text(condition: Condition, plan: Plan) -> str:
    """The condition as a sentence: `SMA contact is >180, and not (tumour location is body or tail)`.

    Args:
        condition: of a rule, a flag, an undecidable combination or a silence of this plan.
        plan: gives the titles, and the units of numbers.
    """
    return _Words(plan).sentence(condition)


def condition_clauses(condition: Condition, plan: Plan) -> tuple[Literal["all", "any"], tuple[str, ...]]:
    """The condition as a list: its clauses, and whether all or any of them must hold. One clause: `all`."""
    words, flat = _Words(plan), _flat(condition)
    clauses = (
        tuple(map(words.clause, children_of(flat))) if isinstance(flat, AllOf | AnyOf) else (words.sentence(flat),)
    )
    return ("any" if isinstance(flat, AnyOf) else "all"), clauses


def with_options(condition: Condition, settings: Mapping[str, str]) -> Condition | bool:
    """What is left of a condition once the options are set: a condition without options, or always true or false."""
    if isinstance(condition, OptionIs):
        return condition if condition.option not in settings else settings[condition.option] == condition.is_
    if isinstance(condition, Not):
        inner = with_options(condition.not_, settings)
        return not inner if isinstance(inner, bool) else Not(**{"not": inner})
    if not isinstance(condition, AllOf | AnyOf):
        return condition
    decisive = isinstance(condition, AnyOf)
    parts = [with_options(part, settings) for part in children_of(condition)]
    if any(part is decisive for part in parts):
        return decisive
    left = tuple(part for part in parts if not isinstance(part, bool))
    if not left:
        return not decisive
    return AnyOf(any=left) if decisive else AllOf(all=left)


def silence_text(finding: Finding, plan: Plan) -> str:
    """What a report's silence on this finding means for the outcome, in whole sentences (without the reason)."""
    silence, titles = finding.not_stated, finding_titles(plan)
    if silence.reads_as is None:
        told = "Silence leaves it unknown: every value remains possible."
    else:
        told = f"Silence is read as “{value_text(silence.reads_as, finding.values or ())}”"
        if silence.if_stated is not None:
            told += f", but only where the report states {titles.get(silence.if_stated, spoken(silence.if_stated))}"
        if silence.unless is not None:
            told += f", except where {condition_text(silence.unless, plan)}"
        told += "; else it is unknown." if silence.if_stated or silence.unless else "."
    if silence.review:
        told += " A decision that rests on this goes to a person."
    return told


def prior_text(finding: Finding) -> str:
    """The weights that probabilities take where the truth is unknown; empty where the plan gives none."""
    weights = (finding.not_stated.prior or {}).items()
    return ", ".join(f"{value_text(value, finding.values or ())} {100 * weight:g} %" for value, weight in weights)


def listed(words: Sequence[str], last: str) -> str:
    """`a, b or c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def values_asked(leaf: Is | In | OptionIs | PartIn, plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The values of which this leaf asks for one, and all values there are."""
    asked = leaf.in_ if isinstance(leaf, In | PartIn) else (leaf.is_,)
    if isinstance(leaf, OptionIs):
        return asked, next((option.choices for option in plan.options if option.name == leaf.option), ())
    if isinstance(leaf, PartIn):
        outcomes = (outcome.name for part in plan.parts if part.name == leaf.part for outcome in part.outcomes)
        return asked, tuple(outcomes)
    finding = next((finding for finding in plan.findings if finding.name == leaf.finding), None)
    return asked, tuple((finding.values if finding else None) or ())


def unit_of(finding: str, plan: Plan) -> str:
    """The unit of a number as it is written; empty for counts and for what is no number."""
    number = next((one.number for one in plan.findings if one.name == finding), None)
    return "" if number is None else UNITS.get(number.unit, number.unit)


class _Words:
    """The words of one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._titles = finding_titles(plan)
        self._part_titles = part_titles(plan)

    def sentence(self, condition: Condition) -> str:
        """The whole condition."""
        flat = _flat(condition)
        if isinstance(flat, AllOf | AnyOf):
            return (", and " if isinstance(flat, AllOf) else ", or ").join(map(self.clause, children_of(flat)))
        if isinstance(flat, Not):
            inner = flat.not_
            return f"not ({self.sentence(inner)})" if isinstance(inner, AllOf | AnyOf) else self._leaf(inner, False)
        return self._leaf(flat, True)

    def clause(self, condition: Condition) -> str:
        """The same, in brackets where it stands among others and could be misread."""
        told = self.sentence(condition)
        return f"({told})" if isinstance(_flat(condition), AllOf | AnyOf) else told

    def _leaf(self, leaf: Condition, holds: bool) -> str:
        if isinstance(leaf, Bounds):
            return f"{self._finding(leaf.finding)} is {self._bounds(leaf, holds)}"
        if not isinstance(leaf, Is | In | OptionIs | PartIn):
            raise TypeError(f"not a leaf of a condition: {type(leaf).__name__}")
        if isinstance(leaf, OptionIs):
            title = f"the option {leaf.option}"
        elif isinstance(leaf, PartIn):
            title = self._part_titles.get(leaf.part, spoken(leaf.part))
        else:
            title = self._finding(leaf.finding)
        asked, among = values_asked(leaf, self._plan)
        read = [value_text(value, among) for value in asked]
        if holds:
            return f"{title} is {listed(read, 'or')}"
        return f"{title} is not {read[0]}" if len(read) == 1 else f"{title} is neither {listed(read, 'nor')}"

    def _finding(self, name: str) -> str:
        return self._titles.get(name, spoken(name))

    def _bounds(self, leaf: Bounds, holds: bool) -> str:
        told = [
            f"{words if holds else opposite} {getattr(leaf, field):.12g}"
            for field, words, opposite in _BOUNDS
            if getattr(leaf, field) is not None
        ]
        return f"{(' and ' if holds else ' or ').join(told)} {unit_of(leaf.finding, self._plan)}".strip()


def _flat(condition: Condition) -> Condition:
    """The same condition without joins of one, joins inside joins of their kind, and double negation."""
    if isinstance(condition, Not):
        inner = _flat(condition.not_)
        return inner.not_ if isinstance(inner, Not) else Not(**{"not": inner})
    if not isinstance(condition, AllOf | AnyOf):
        return condition
    parts: list[Condition] = []
    for part in map(_flat, children_of(condition)):
        parts.extend(children_of(part) if type(part) is type(condition) else (part,))
    if len(parts) == 1:
        return parts[0]
    return AllOf(all=tuple(parts)) if isinstance(condition, AllOf) else AnyOf(any=tuple(parts))
