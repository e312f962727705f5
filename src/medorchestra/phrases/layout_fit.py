"""What of a phrase bank can stand in one layout, where, and in which reports. Pure.

Fragments of forms ("no contact") stand only in a field that is about what they state; sentences stand in sections, and
wording of any form in both. Knows phrases, layouts and targets; chooses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from medorchestra.phrases.phrase_bank import NUMBER, Among, Phrase, PhraseBank, Skeleton
from medorchestra.phrases.targets import Target, is_among
from medorchestra.plan import Plan
from medorchestra.rules import NOT_STATED


@dataclass(frozen=True, slots=True, eq=False)
class Saying:
    """A text that can stand in a report.

    Attributes:
        text: with its slots.
        states: what it states.
        place: number of its place in the layout.
        phrase: the phrase it is; None for what a form has for a value.
        closes: whether it belongs to the part that sums up.
    """

    text: str
    states: Mapping[str, str]
    place: int
    phrase: Phrase | None = None
    closes: bool = False

    @property
    def rest(self) -> bool:
        """Whether it is a blanket that must come after what it leaves out."""
        return self.phrase is not None and self.phrase.rest


class LayoutFit:
    """The sayings of a layout.

    Args:
        bank: the bank.
        plan: the plan it speaks of.
        skeleton: the layout.
        phrases: phrases and distractors that may be used.

    Attributes:
        options: (finding, value) -> what states it, alone or with others.
        alone: (finding, value) that some option states without anything else.
        blankets: blankets with exceptions.
        closing: what can be repeated in the part that sums up.
        distractors: what states nothing.
        speakable: finding -> values that have an option.
        placed: ids of the phrases that have a place here.
    """

    def __init__(self, bank: PhraseBank, plan: Plan, skeleton: Skeleton, phrases: Sequence[Phrase]) -> None:
        self.skeleton = skeleton
        self.options: dict[tuple[str, str], list[Saying]] = {}
        self.blankets: list[Saying] = []
        self.closing: list[Saying] = []
        self.distractors: list[Saying] = []
        self.placed: set[str] = set()
        self._kinds = {f.name: str(tuple(f.values) if f.values else f.number) for f in plan.findings}
        self._likes = frozenset((skeleton.style, *skeleton.phrase_styles))
        self._field_of = {name: i for i, place in enumerate(skeleton.places) for name in place.findings}
        self._section_of: dict[str, int] = {}
        for i, place in enumerate(skeleton.places):
            for name in place.sections:
                self._section_of.setdefault(name, i)
        for phrase in phrases:
            self._add(phrase, closes=phrase.section in bank.closing_sections)
        for i, place in enumerate(skeleton.places):
            for value, text in place.values.items():
                self._offer(Saying(text, {place.findings[0]: value}, i))
        self.alone = {
            stated for stated, sayings in self.options.items() if any(len(one.states) == 1 for one in sayings)
        }
        self.speakable: dict[str, set[str]] = {}
        for finding, value in self.options:
            self.speakable.setdefault(finding, set()).add(value)

    def _add(self, phrase: Phrase, *, closes: bool) -> None:
        place = self._section_of.get(phrase.section) if phrase.form != "structured" else None
        if phrase.states and not closes and any(name in self._field_of for name in phrase.states):
            place = self._field_for(phrase)
        if place is None or (closes and phrase.rest):
            return
        self.placed.add(phrase.id)
        saying = Saying(phrase.text, phrase.states, place, phrase, closes)
        if not phrase.states:
            self.distractors.append(saying)
        elif closes:
            self.closing.append(saying)
        elif phrase.rest:
            self.blankets.append(saying)
        else:
            self._offer(saying)

    def _field_for(self, phrase: Phrase) -> int | None:
        """The field for all that a phrase states; None where there is none in which it would be understood so."""
        fields = {self._field_of.get(name) for name in phrase.states}
        place = next(iter(fields))
        if len(fields) != 1 or place is None or phrase.rest or phrase.form == "free_text":
            return None
        if phrase.form == "structured":
            # "no contact" in a field for two vessels would speak of both.
            left_out = set(self.skeleton.places[place].findings) - set(phrase.states)
            if {self._kinds[name] for name in left_out} & {self._kinds[name] for name in phrase.states}:
                return None
        return place

    def _offer(self, saying: Saying) -> None:
        for stated in saying.states.items():
            self.options.setdefault(stated, []).append(saying)

    def liked(self, saying: Saying) -> bool:
        """Whether it is in one of the layout's styles, or in nobody's in particular."""
        styles = saying.phrase.styles if saying.phrase else ()
        return not styles or not self._likes.isdisjoint(styles)


def value_name(value: str | float) -> str:
    """The value as `states` has it: `number` for any number."""
    return NUMBER if isinstance(value, float | int) else value


def agrees(saying: Saying, target: Target) -> bool:
    """Whether all it states is what the report shall state."""
    return all(value_name(target[name]) == value for name, value in saying.states.items())


def contradicts(saying: Saying, target: Target, about: set[str]) -> bool:
    """Whether it says something else on some of these findings, and nothing else that is silent or a number."""
    if any(target[name] == NOT_STATED or value == NUMBER for name, value in saying.states.items()):
        return False
    differ = {name for name, value in saying.states.items() if value_name(target[name]) != value}
    return bool(differ) and differ <= about


def allowed(saying: Saying, target: Target) -> bool:
    """Whether the report is one in which it may stand."""
    phrase = saying.phrase
    if phrase is None or not (phrase.needs or phrase.not_with):
        return True
    return holds(phrase.needs, target) and not any(is_among(target[n], among) for n, among in phrase.not_with.items())


def holds(needs: Among, target: Mapping[str, str | float]) -> bool:
    """Whether each of these findings has one of its values."""
    return all(is_among(target[name], among) for name, among in needs.items())


def as_said(blanket: Saying, target: Target) -> Saying | None:
    """A blanket with exceptions as it is meant in this report: what it leaves out is not among its `states`.

    None where it has no exception here, or would state what is silent.
    """
    if any(target[name] == NOT_STATED for name in blanket.states):
        return None
    said = {name: value for name, value in blanket.states.items() if value_name(target[name]) == value}
    return replace(blanket, states=said) if 0 < len(said) < len(blanket.states) else None


def exceptions_come_first(sayings: Sequence[Saying], skeleton: Skeleton) -> bool:
    """Whether all that a blanket leaves out is said in an earlier place or section, or in its own."""

    def position(saying: Saying) -> tuple[int, int]:
        sections = skeleton.places[saying.place].sections
        return saying.place, sections.index(saying.phrase.section) if saying.phrase and sections else 0

    blanket = next((one for one in sayings if one.rest), None)
    if blanket is None or blanket.phrase is None:
        return True
    left_out = blanket.phrase.states.keys() - blanket.states.keys()
    exceptions = [one for one in sayings if one is not blanket and not left_out.isdisjoint(one.states)]
    return all(position(one) <= position(blanket) and not one.closes for one in exceptions)
