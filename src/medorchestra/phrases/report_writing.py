"""From chosen phrases to the text of a report: slots, synonyms, typing errors, places of the layout, and where each
phrase ended up. Pure and seeded.

Knows layouts and wording habits. What a report states was decided before (`composition`); nothing here changes it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from medorchestra.phrases.layout_fit import Saying, holds
from medorchestra.phrases.phrase_bank import NUMBER, SLOT, UNITS, PhraseBank, Place, Skeleton, UnitSlot, read_slot
from medorchestra.phrases.targets import Target, TargetDraw
from medorchestra.phrases.typing_errors import TypingErrors, words_of
from medorchestra.plan import Plan
from medorchestra.rules import NOT_STATED

_LITERAL_DECIMAL = re.compile(r"(?<![\d.])(\d+)\.(\d+)(?![\d.])")
_SENTENCE_END = (".", "!", "?", ":", ";")


@dataclass(frozen=True, slots=True)
class Passage:
    """Where a saying stands in the finished text.

    Attributes:
        phrase: id of the phrase; None for what a form has for a value.
        states: what it states; empty for a distractor.
        start: index of its first character.
        end: index after its last.
    """

    phrase: str | None
    states: Mapping[str, str]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class WritingHabits:
    """How untidily reports are written, as shares.

    Attributes:
        typing_errors: reports with typing errors.
        error_rate: words mistyped in such a report.
        synonyms: sets of synonyms for which a report has a wording of its own.
        joined: sentences that are joined to the one before.
        unpunctuated: reports whose lines have no full stop.
        short_numbers: reports that write 3 for 3.0.
    """

    typing_errors: float = 0.2
    error_rate: float = 0.03
    synonyms: float = 0.4
    joined: float = 0.12
    unpunctuated: float = 0.25
    short_numbers: float = 0.3


@dataclass(frozen=True, slots=True)
class _Hand:
    """The habits of one report, drawn once."""

    rng: random.Random
    target: Target
    skeleton: Skeleton
    wordings: Mapping[int, str]
    error_rate: float
    full_stops: bool
    short_numbers: bool


class ReportWriter:
    """Writes reports for one bank and plan."""

    def __init__(self, bank: PhraseBank, plan: Plan, draw: TargetDraw, habits: WritingHabits) -> None:
        self.habits = habits
        self._draw = draw
        self._rests_on: dict[str, set[str]] = {}
        for dependency in bank.dependencies:
            self._rests_on.setdefault(dependency.finding, set()).add(dependency.on)
        self._numbers = {f.name: f for f in plan.findings if f.number is not None and f.name in bank.findings}
        self._decimals = {habit.finding: habit.decimals for habit in bank.numbers}
        self._sets = bank.synonyms
        self._set_of = {wording.lower(): i for i, wordings in enumerate(bank.synonyms) for wording in wordings}
        longest_first = sorted(self._set_of, key=len, reverse=True)
        self._any_wording = re.compile(
            r"(?<![\w-])(?:" + "|".join(map(re.escape, longest_first)) + r")(?![\w-])" if longest_first else r"(?!)",
            re.IGNORECASE,
        )
        texts = [phrase.text for phrase in (*bank.phrases, *bank.distractors)]
        vocabulary = set().union(*map(words_of, (*texts, *self._set_of)))
        short = [w for wordings in bank.synonyms for w in wordings if " " not in w and len(w) <= 6]
        self._errors = TypingErrors((*bank.protected, *short), vocabulary)

    def write(
        self, rng: random.Random, skeleton: Skeleton, sayings: Sequence[Saying], target: Target
    ) -> tuple[str, tuple[Passage, ...]]:
        """The text, and where each saying stands in it, in the order of the text."""
        habits = self.habits
        hand = _Hand(
            rng,
            target,
            skeleton,
            {i: rng.choice(words) for i, words in enumerate(self._sets) if rng.random() < habits.synonyms},
            habits.error_rate if rng.random() < habits.typing_errors else 0.0,
            full_stops=rng.random() >= habits.unpunctuated,
            short_numbers=rng.random() < habits.short_numbers,
        )
        by_place: dict[int, list[Saying]] = {}
        for saying in sayings:
            by_place.setdefault(saying.place, []).append(saying)
        page = _Page()
        first = True
        for number, place in enumerate(skeleton.places):
            content = self._content(place, by_place.get(number, []), hand)
            if content is None:
                continue
            page.add("" if first else skeleton.join)
            first = False
            page.add(_in_case(place.heading, skeleton))
            page.add_content(content, _in_case(place.join, skeleton), skeleton.wrap if place.sections else None)
            page.add(_in_case(place.end, skeleton))
        return page.finished()

    # ----------------------------------------------------------------------------------------- places

    def _content(self, place: Place, sayings: Sequence[Saying], hand: _Hand) -> list[tuple[str, Saying | None]] | None:
        """What stands in a place, piece by piece; None where the place is left out."""
        if not holds(place.needs, hand.target):
            return None
        if place.says:
            return [(_in_case(hand.rng.choice(place.says), hand.skeleton), None)]
        if not place.findings and not place.sections:
            return []
        if not sayings:
            return None if place.silent is None else [(_in_case(place.silent, hand.skeleton), None)]
        if place.findings:
            return [(self._said(saying, hand).rstrip("."), saying) for saying in sayings]
        running = place.join == " "
        ordered = self._ordered(place, sayings, hand.rng)
        written: list[tuple[str, Saying | None]] = []
        for i, saying in enumerate(ordered):
            text = self._said(saying, hand)
            joins_next = running and i + 1 < len(ordered) and hand.rng.random() < self.habits.joined
            if i and written[-1][0].endswith(";"):
                text = _small_first(text)
            elif running:
                text = _capital_first(text, hand.skeleton)
            if joins_next:
                text = text.rstrip(".") + ";"
            elif running and not text.endswith(_SENTENCE_END):
                text += "."
            elif not running and not hand.full_stops:
                text = text.rstrip(".")
            written.append((text, saying))
        return written

    def _ordered(self, place: Place, sayings: Sequence[Saying], rng: random.Random) -> list[Saying]:
        """Section after section; within one by chance, but what rests on another ("it extends to …") right after that,
        and blankets with exceptions last.
        """
        shuffled = list(sayings)
        rng.shuffle(shuffled)
        rank = {section: i for i, section in enumerate(place.sections)}

        def section(saying: Saying) -> int:
            return rank.get(saying.phrase.section if saying.phrase else "", len(rank))

        stated_at: dict[tuple[int, str], int] = {}
        for i, saying in enumerate(shuffled):
            for name in saying.states:
                stated_at.setdefault((section(saying), name), i)

        def order(at: int) -> tuple[int, bool, int, bool]:
            saying = shuffled[at]
            bases = {base for name in saying.states for base in self._rests_on.get(name, ())} - saying.states.keys()
            places = [stated_at[section(saying), base] for base in bases if (section(saying), base) in stated_at]
            return (section(saying), saying.rest, max(places, default=at), bool(places))

        return [shuffled[at] for at in sorted(range(len(shuffled)), key=order)]

    # ----------------------------------------------------------------------------------------- wording

    def _said(self, saying: Saying, hand: _Hand) -> str:
        """The text of a saying as this hand writes it."""
        text = saying.text
        if hand.skeleton.decimal == ",":
            text = _LITERAL_DECIMAL.sub(r"\1,\2", _keeping_slots(text))
            text = text.replace("\0", ".")
        text = self._filled(text, saying, hand)
        text = self._any_wording.sub(lambda found: self._worded(found, hand.wordings), text)
        if hand.error_rate:
            text = self._errors.put_into(text, hand.rng, hand.error_rate)
        return _in_case(text, hand.skeleton)

    def _worded(self, found: re.Match[str], wordings: Mapping[int, str]) -> str:
        written = found[0]
        wording = wordings.get(self._set_of[written.lower()])
        if wording is None or wording.lower() == written.lower():
            return written
        sentence_start = written[:1].isupper() and not written[1:2].isupper()
        return wording[:1].upper() + wording[1:] if sentence_start else wording

    def _filled(self, text: str, saying: Saying, hand: _Hand) -> str:
        """The slots of a text filled with numbers; those of further dimensions never grow from one to the next."""
        longest: dict[str, float] = {}

        def fill(found: re.Match[str]) -> str:
            slot = read_slot(found[1])
            assert slot is not None  # noqa: S101 - checked when the phrase was made
            if not isinstance(slot, UnitSlot):
                return _written(_in_range(hand.rng, slot.low, slot.high, slot.decimals), slot.decimals, hand)
            number, decimals = self._number_for(slot, saying, hand)
            factor = {("cm", "mm"): 10.0, ("mm", "cm"): 0.1}
            unit = self._unit_for(slot)
            number *= factor.get((unit, slot.unit), 1.0)
            decimals += {("cm", "mm"): -1, ("mm", "cm"): 1}.get((unit, slot.unit), 0)
            decimals = max(decimals, 0)
            if slot.prior:
                number = _other_number(hand.rng, number, decimals)
            elif slot.dimension > 1:
                number = round(longest.get(slot.unit, number) * hand.rng.uniform(0.6, 0.98), decimals)
                number = max(number, 10.0**-decimals)
            if not slot.prior:
                longest[slot.unit] = number
            return _written(number, decimals, hand)

        return SLOT.sub(fill, text)

    def _finding_for(self, slot: UnitSlot, saying: Saying | None) -> str | None:
        """The number finding a slot is about: the one stated, else the first that is measured so."""
        fitting = [n for n, f in self._numbers.items() if f.number and UNITS[f.number.unit] == slot.family]
        stated = [name for name in fitting if saying is not None and saying.states.get(name) == NUMBER]
        return next(iter(stated or fitting), None)

    def _unit_for(self, slot: UnitSlot) -> str:
        name = self._finding_for(slot, None)
        finding = self._numbers.get(name or "")
        return finding.number.unit if finding and finding.number else slot.unit

    def _number_for(self, slot: UnitSlot, saying: Saying, hand: _Hand) -> tuple[float, int]:
        """The number behind a slot in its finding's unit, with its decimals; a usual one where none is stated."""
        name = self._finding_for(slot, saying)
        if name is None:
            return round(hand.rng.uniform(5, 40), 0), 0
        finding = self._numbers[name]
        value = hand.target[name]
        if value == NOT_STATED:
            drawn = self._draw.number(hand.rng, finding)
            value = drawn if drawn is not None else finding.number.minimum if finding.number else 1.0
        unit = finding.number.unit if finding.number else ""
        return float(value), self._decimals.get(name, 1 if unit == "cm" else 0)


def _keeping_slots(text: str) -> str:
    """The text with the points inside slots hidden."""
    return SLOT.sub(lambda found: found[0].replace(".", "\0"), text)


def _in_range(rng: random.Random, low: float, high: float, decimals: int) -> float:
    """A number of the range as people write it: round ones often, the ends now and then."""
    if decimals == 0 and high - low >= 20:
        draw = rng.random()
        if draw < 0.12:
            return rng.choice((low, high))
        for step, share in ((10, 0.6), (5, 0.8)):
            if draw < share:
                first, last = -(-low // step), high // step
                return step * rng.randint(int(first), int(last)) if first <= last else low
    return round(rng.uniform(low, high), decimals)


def _other_number(rng: random.Random, number: float, decimals: int) -> float:
    """A number near this one that is written otherwise."""
    step = 10.0**-decimals
    other = round(number * rng.choice((rng.uniform(1.1, 1.7), rng.uniform(0.5, 0.9))), decimals)
    other = max(other, step)
    return other if abs(other - number) > step / 2 else round(number + 2 * step, decimals)


def _written(number: float, decimals: int, hand: _Hand) -> str:
    text = f"{number:.{decimals}f}"
    if "." in text and hand.short_numbers and set(text.partition(".")[2]) == {"0"}:
        text = text.partition(".")[0]
    return text.replace(".", hand.skeleton.decimal)


def _in_case(text: str, skeleton: Skeleton) -> str:
    if skeleton.case == "as_written":
        return text
    return text.upper() if skeleton.case == "upper" else text.lower()


def _capital_first(text: str, skeleton: Skeleton) -> str:
    return text if skeleton.case == "lower" else text[:1].upper() + text[1:]


def _small_first(text: str) -> str:
    """A sentence as it goes on after a semicolon; abbreviations stay."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


class _Page:
    """Text in the making, with the passages in it."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._length = 0
        self._passages: list[Passage] = []

    def add(self, text: str) -> None:
        self._text.append(text)
        self._length += len(text)

    def add_content(self, content: Sequence[tuple[str, Saying | None]], join: str, wrap: int | None) -> None:
        pieces: list[str] = []
        at = self._length
        for number, (text, saying) in enumerate(content, start=1):
            between = join.replace("{n}", str(number)).replace("{N}", str(number)) if number > 1 else ""
            at += len(between)
            if saying is not None:
                phrase = saying.phrase.id if saying.phrase else None
                self._passages.append(Passage(phrase, saying.states, at, at + len(text)))
            at += len(text)
            pieces += [between, text]
        self.add(_wrapped("".join(pieces), wrap) if wrap else "".join(pieces))

    def finished(self) -> tuple[str, tuple[Passage, ...]]:
        text = "".join(self._text)
        lead = len(text) - len(text.lstrip())
        moved = (replace(one, start=one.start - lead, end=one.end - lead) for one in self._passages)
        return text.strip(), tuple(moved)


def _wrapped(text: str, width: int) -> str:
    """Blanks turned into line ends so that lines stay within the width; the length stays the same."""
    letters = list(text)
    line_start = 0
    last_blank = -1
    for i, letter in enumerate(letters):
        if letter == "\n":
            line_start, last_blank = i + 1, -1
        elif letter == " ":
            last_blank = i
        if i - line_start >= width and last_blank > line_start:
            letters[last_blank] = "\n"
            line_start, last_blank = last_blank + 1, -1
    return "".join(letters)
