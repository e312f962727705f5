"""Phrase banks: surface forms of finding values, from which labelled reports are composed. The contract and its file.

A bank holds *phrases* (text that states values of findings), *distractors* (text that states none) and *skeletons* (the
layouts of reports). Every piece belongs to one split from birth, so a held-out report shares no phrase and no layout
with one that prompts or adapters were fitted to. Knows what a bank may hold and how it lies on disk; it is held against
a plan in `phrase_bank_check`, and reports are made of it in `composition`. Knows no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints, ValidationError, model_validator

from medorchestra.errors import CaseError
from medorchestra.plan import content_digest
from medorchestra.plan_pieces import Name, PlanPiece, Provenance, ValueName
from medorchestra.synthetic import Form, Split
from medorchestra.topics import cases_folder, is_topic_name
from medorchestra.whole_files import write_whole

NUMBER: Literal["number"] = "number"
"""Stands for the value of a number finding in `states`: the number itself is in a slot."""

PieceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=60)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=80, strip_whitespace=True)]
PhraseText = Annotated[str, StringConstraints(min_length=1, max_length=800, strip_whitespace=True)]
Fixed = Annotated[str, StringConstraints(max_length=400)]
"""Text of a layout, kept to the letter: line breaks and blanks count."""
Among: TypeAlias = Mapping[Name, tuple[ValueName, ...]]
"""Finding -> values (`not_stated` among them, `number` for any stated number)."""

SLOT = re.compile(r"\{([^{}]*)\}")
UNITS: Mapping[str, str] = {
    "cm": "length",
    "mm": "length",
    "count": "count",
    "percent": "percent",
    "unit_per_ml": "unit_per_ml",
}
"""Unit -> what it measures: a finding in cm may be written in mm."""
_UNIT_SLOT = re.compile(r"(prior_)?(cm|mm|count|percent|unit_per_ml)([23])?\Z")
_RANGE_SLOT = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)-(\d{1,6}(?:\.\d{1,3})?)\Z")


@dataclass(frozen=True, slots=True)
class UnitSlot:
    """`{cm}`, `{mm}`: the finding's number in this unit. `{cm2}`, `{cm3}`: further dimensions, no longer than it.

    `{prior_cm}`: an earlier value, which is not the current one.
    """

    unit: str
    dimension: int = 1
    prior: bool = False

    @property
    def family(self) -> str:
        """What it measures."""
        return UNITS[self.unit]


@dataclass(frozen=True, slots=True)
class RangeSlot:
    """`{20-180}`: any number in this range, both ends included. It states nothing by itself."""

    low: float
    high: float
    decimals: int


def read_slot(inside: str) -> UnitSlot | RangeSlot | None:
    """What stands between the braces of a slot, or None where that is no slot."""
    if (unit := _UNIT_SLOT.match(inside)) is not None:
        if unit[1] and unit[3]:
            return None
        return UnitSlot(unit=unit[2], dimension=int(unit[3] or 1), prior=unit[1] is not None)
    if (span := _RANGE_SLOT.match(inside)) is None or float(span[1]) >= float(span[2]):
        return None
    decimals = max(len(end.partition(".")[2]) for end in (span[1], span[2]))
    return RangeSlot(low=float(span[1]), high=float(span[2]), decimals=decimals)


def slots_of(text: str) -> tuple[UnitSlot | RangeSlot, ...]:
    """The slots of a text, in order.

    Raises:
        ValueError: a brace that belongs to no slot.
    """
    if set(SLOT.sub("", text)) & set("{}"):
        raise ValueError("a brace that belongs to no slot")
    slots = []
    for inside in SLOT.findall(text):
        slot = read_slot(inside)
        if slot is None:
            raise ValueError(
                f"unknown slot {{{inside}}}; there are {{cm}}, {{mm2}}, {{prior_cm}}, {{count}}, {{20-180}}"
            )
        slots.append(slot)
    return tuple(slots)


class Phrase(PlanPiece):
    """One way of saying it: a sentence (free text) or the words a form has in one field (structured)."""

    id: PieceId
    split: Split
    text: PhraseText
    states: Mapping[Name, ValueName] = Field(default_factory=dict)
    """Finding -> the value it states (`number` for a number finding); all it states, and nothing else."""
    section: Name
    form: Literal["free_text", "structured", "any"] = "any"
    styles: tuple[Tag, ...] = ()
    """Who writes so; none: anybody."""
    needs: Among = Field(default_factory=dict)
    """It stands only in reports in which these findings have one of these values."""
    not_with: Among = Field(default_factory=dict)
    """It never stands in reports in which one of these findings has one of these values."""
    rest: bool = False
    """A blanket with exceptions ("the other arteries are free"): said after the findings it leaves out."""
    traps: tuple[Tag, ...] = ()
    """What a hasty reader gets wrong about it."""

    @cached_property
    def slots(self) -> tuple[UnitSlot | RangeSlot, ...]:
        """Its slots, in order."""
        return slots_of(self.text)

    @model_validator(mode="after")
    def _says_what_it_can(self) -> Phrase:
        self.slots  # noqa: B018 - refuses unknown slots
        if self.rest and (len(self.states) < 2 or NUMBER in self.states.values()):
            raise ValueError("rest: a blanket with exceptions states two findings or more, and no number")
        return self


class Place(PlanPiece):
    """One place of a layout: a section with its heading, a field of a form, or fixed words alone."""

    heading: Fixed = ""
    """To the letter, with what stands between it and the content (`"SMA: "`, `"\\nFINDINGS:\\n"`, `"- "`)."""
    sections: tuple[Name, ...] = ()
    """Phrases of these sections come here, section after section."""
    findings: tuple[Name, ...] = ()
    """A field: phrases that state nothing but these findings come here, of whatever section."""
    values: Mapping[ValueName, Fixed] = Field(default_factory=dict)
    """Of a field for one finding: what the form has for a value in place of a phrase (`number`: with its slot)."""
    silent: Fixed | None = None
    """What a field has where the report says nothing on it (`"not provided"`); None: the place is left out."""
    says: tuple[Fixed, ...] = ()
    """A field about something no finding asks (the splenic artery, the hospital's form): one of these fixed texts."""
    join: Fixed = " "
    """Between phrases; `{n}` counts them from 2 (`"\\n{n}. "`)."""
    end: Fixed = ""
    """After the content."""
    needs: Among = Field(default_factory=dict)
    """The place is there only in reports in which these findings have one of these values."""

    @model_validator(mode="after")
    def _one_kind(self) -> Place:
        if sum(map(bool, (self.sections, self.findings, self.says))) > 1:
            raise ValueError("a place has sections, findings or fixed texts (says), not several of them")
        if self.values and len(self.findings) != 1:
            raise ValueError("values: only in a field for exactly one finding")
        if self.needs and (self.sections or self.findings):
            raise ValueError("needs: only for places without phrases, which would be lost with the place")
        if self.silent is not None and not self.findings:
            raise ValueError("silent: only in a field")
        for text in (self.heading, self.end, *self.says, self.silent or ""):
            if set(text) & set("{}"):
                raise ValueError("slots stand in phrases and values only")
        if set(self.join.replace("{n}", "")) & set("{}"):
            raise ValueError("join: the only slot is {n}")
        for value, text in self.values.items():
            if any(isinstance(slot, UnitSlot) for slot in slots_of(text)) is not (value == NUMBER):
                raise ValueError(f"values: {value}: a slot with a unit belongs to `number`, and to nothing else")
        return self


class Skeleton(PlanPiece):
    """The layout of a report, and the habits of whoever fills it."""

    id: PieceId
    split: Split
    form: Form
    style: Tag
    """Who writes so; the style of the cases made of it."""
    phrase_styles: tuple[Tag, ...] = ()
    """Styles of phrases that fit; phrases of other styles are taken where there are none."""
    places: Annotated[tuple[Place, ...], Field(min_length=1, max_length=200)]
    join: Fixed = "\n"
    """Between places."""
    case: Literal["as_written", "upper", "lower"] = "as_written"
    decimal: Literal[".", ","] = "."
    wrap: Annotated[int, Field(ge=40, le=200)] | None = None
    """Lines of running text are broken at this width."""

    @model_validator(mode="after")
    def _one_field_each(self) -> Skeleton:
        fields = [name for place in self.places for name in place.findings]
        doubled = sorted({name for name in fields if fields.count(name) > 1})
        if doubled:
            raise ValueError(f"two fields for the same finding: {', '.join(doubled)}")
        return self

    @cached_property
    def takes_findings(self) -> frozenset[str]:
        """Findings that have a field."""
        return frozenset(name for place in self.places for name in place.findings)

    @cached_property
    def takes_sections(self) -> frozenset[str]:
        """Sections that have a place."""
        return frozenset(name for place in self.places for name in place.sections)


class Closing(PlanPiece):
    """The part that sums up: what it says must agree with the rest, or disagree on purpose."""

    sections: Annotated[tuple[Name, ...], Field(min_length=1)]
    finding: Name | None = None
    """The finding that asks whether it agrees; None: the plan asks for no such thing, and it always agrees."""
    agrees: ValueName | None = None
    """Value of that finding where the closing part states something, in agreement."""
    conflicts: ValueName | None = None
    """Value where it contradicts the findings on purpose; None: it never does."""
    about: tuple[Name, ...] = ()
    """Findings on which a contradiction counts."""

    @model_validator(mode="after")
    def _complete(self) -> Closing:
        if (self.finding is None) != (self.agrees is None) or (self.conflicts is not None and not self.about):
            raise ValueError("finding and agrees go together; conflicts needs `about`")
        return self


class Derived(PlanPiece):
    """A finding that follows from what else is stated, where no phrase states it."""

    finding: Name
    value: ValueName
    if_any_stated: Annotated[tuple[Name, ...], Field(min_length=1)]


class Dependency(PlanPiece):
    """A finding that a sensible report states only where another one is stated so."""

    finding: Name
    values: tuple[ValueName, ...] = ()
    """Only these values of it; none: all."""
    on: Name
    among: Annotated[tuple[ValueName, ...], Field(min_length=1)]


class NumberHabit(PlanPiece):
    """Which numbers reports usually have."""

    finding: Name
    low: float
    high: float
    decimals: Annotated[int, Field(ge=0, le=3)] = 0

    @model_validator(mode="after")
    def _ascending(self) -> NumberHabit:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self


class PhraseBank(PlanPiece):
    """All of it, for one topic."""

    schema_version: Literal[1] = 1
    topic: Name
    provenance: Provenance
    findings: Annotated[tuple[Name, ...], Field(min_length=1, max_length=200)]
    """Findings of the plan that it speaks of; all others stay silent in the reports made of it."""
    sections: Annotated[tuple[Name, ...], Field(min_length=1, max_length=60)]
    """In the order in which reports usually have them."""
    closing: Closing | None = None
    derived: Annotated[tuple[Derived, ...], Field(max_length=50)] = ()
    dependencies: Annotated[tuple[Dependency, ...], Field(max_length=500)] = ()
    numbers: Annotated[tuple[NumberHabit, ...], Field(max_length=50)] = ()
    synonyms: Annotated[tuple[Annotated[tuple[Tag, ...], Field(min_length=2)], ...], Field(max_length=500)] = ()
    """Sets of wordings that may stand for each other anywhere: full names and abbreviations."""
    protected: Annotated[tuple[Tag, ...], Field(max_length=1_000)] = ()
    """Words that never get a typing error, besides negations and whatever holds a digit or is an abbreviation."""
    phrases: Annotated[tuple[Phrase, ...], Field(max_length=50_000)] = ()
    distractors: Annotated[tuple[Phrase, ...], Field(max_length=20_000)] = ()
    """Phrases that state nothing: history, earlier values, other organs, vessels that do not decide."""
    skeletons: Annotated[tuple[Skeleton, ...], Field(max_length=2_000)] = ()

    @model_validator(mode="after")
    def _hangs_together(self) -> PhraseBank:
        ids = [phrase.id for phrase in (*self.phrases, *self.distractors)] + [one.id for one in self.skeletons]
        if len(set(ids)) != len(ids):
            doubled = sorted({one for one in ids if ids.count(one) > 1})
            raise ValueError(f"{len(doubled)} ids are there twice, first: {', '.join(doubled[:3])}")
        for phrase in self.phrases:
            if not phrase.states:
                raise ValueError(f"phrase {phrase.id}: states nothing; then it is a distractor")
        for phrase in self.distractors:
            if phrase.states or phrase.rest:
                raise ValueError(f"distractor {phrase.id}: states something; then it is a phrase")
        for phrase in (*self.phrases, *self.distractors):
            names = (*phrase.states, *phrase.needs, *phrase.not_with)
            self._check_names(f"phrase {phrase.id}", names, (phrase.section,))
        for skeleton in self.skeletons:
            needed = {name for place in skeleton.places for name in place.needs}
            self._check_names(f"skeleton {skeleton.id}", skeleton.takes_findings | needed, skeleton.takes_sections)
        if self.closing is not None:
            named = (self.closing.finding,) if self.closing.finding else ()
            self._check_names("closing", (*named, *self.closing.about), self.closing.sections)
        for derived in self.derived:
            self._check_names("derived", (derived.finding, *derived.if_any_stated), ())
        for dependency in self.dependencies:
            self._check_names("dependencies", (dependency.finding, dependency.on), ())
        self._check_names("numbers", [habit.finding for habit in self.numbers], ())
        return self

    def _check_names(self, where: str, findings: Iterable[str], sections: Iterable[str]) -> None:
        for what, names, there in (("finding", findings, self.findings), ("section", sections, self.sections)):
            unknown = sorted(set(names) - set(there))
            if unknown:
                raise ValueError(f"{where}: unknown {what} {', '.join(unknown)}; there are: {', '.join(there)}")

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of the content, whatever the formatting."""
        return content_digest(self.model_dump(mode="json"))

    @property
    def closing_sections(self) -> frozenset[str]:
        """Sections of the part that sums up."""
        return frozenset(self.closing.sections if self.closing else ())

    @property
    def unspoken(self) -> frozenset[str]:
        """Findings whose value follows from the rest of the report and is not drawn by itself."""
        closing = {self.closing.finding} if self.closing and self.closing.finding else set()
        return frozenset(closing | {derived.finding for derived in self.derived})


# ------------------------------------------------------------------------------------------------------------ files


def phrase_bank_path(topic: str) -> Path:
    """Where the phrase bank of a topic lies (it may not exist)."""
    return cases_folder(topic) / "phrase_bank.json"


def read_phrase_bank(source: str | Path) -> PhraseBank:
    """Read a phrase bank.

    Args:
        source: name of a topic that comes with the library, or path of a bank file.

    Raises:
        CaseError: not there, not readable, or not a valid bank; names file and place.
    """
    path = Path(source)
    if is_topic_name(str(source)) and not path.is_file():
        path = phrase_bank_path(str(source))
        if not path.is_file():
            raise CaseError(f"no phrase bank {str(source)!r}: neither a file nor a topic that has one")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        return PhraseBank.model_validate(content)
    except OSError as error:
        raise CaseError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CaseError(f"{path}: not a text file in UTF-8") from None
    except json.JSONDecodeError as error:
        raise CaseError(f"{path}: not JSON: {error.msg} at line {error.lineno}") from None
    except RecursionError:
        raise CaseError(f"{path}: nested too deeply") from None
    except ValidationError as error:
        raise CaseError(f"{path}: {wrong_places(error)}") from None


def wrong_places(error: ValidationError, most: int = 8) -> str:
    """Which places of a bank are wrong and why, never the phrase that stands there."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    places = (f"{'.'.join(map(str, p['loc'])) or 'bank'}: {p['msg'].removeprefix('Value error, ')}" for p in found)
    more = f"; and {len(found) - most} more" if len(found) > most else ""
    return "; ".join(list(places)[:most]) + more


def write_phrase_bank(bank: PhraseBank, path: str | Path) -> None:
    """Write a bank as JSON with one phrase or skeleton to a line; `read_phrase_bank` reads it back equal.

    Raises:
        StorageError: the file cannot be written. An older one is then still whole.
    """
    write_whole(Path(path), format_phrase_bank(bank))


def format_phrase_bank(bank: PhraseBank) -> str:
    """The bank as JSON text, defaults left out."""
    content = {"schema_version": bank.schema_version} | bank.model_dump(mode="json", exclude_defaults=True)
    entries = []
    for key, value in content.items():
        written = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value and not isinstance(value[0], str):
            written = "[\n" + ",\n".join(f"  {json.dumps(one, ensure_ascii=False)}" for one in value) + "\n ]"
        entries.append(f" {json.dumps(key)}: {written}")
    return "{\n" + ",\n".join(entries) + "\n}\n"
