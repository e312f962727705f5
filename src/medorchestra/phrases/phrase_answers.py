"""Phrases as a model is asked for them: flat answer forms, and how answers become part of a phrase bank.

An answer may hold a few phrases of a few findings, some distractors, some skeletons, or the frame of a new bank. What
is wrong with one piece leaves that piece out, with a line that says why; the rest goes in. Splits are given at birth.
Knows the forms; asks no model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medorchestra.errors import CaseError
from medorchestra.phrases.phrase_bank import Phrase, PhraseBank, Skeleton, wrong_places
from medorchestra.phrases.phrase_bank_check import phrase_problems, skeleton_problems
from medorchestra.plan import Plan
from medorchestra.plan_pieces import Provenance
from medorchestra.synthetic import SPLITS, Form, Split

SHARES: Mapping[Split, float] = {"development": 0.6, "calibration": 0.15, "held_out": 0.25}
"""Split -> share of the phrases that say the same, and of the layouts."""


class _AnswerPiece(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class StatedAnswer(_AnswerPiece):
    finding: str = Field(description="name of a finding")
    value: str = Field(description="the value stated; `number` for a finding that is a number (it stands in a slot)")


class AmongAnswer(_AnswerPiece):
    finding: str = Field(description="name of a finding")
    values: list[str] = Field(description="values of it; `not_stated` where the report says nothing on it")


class PhraseAnswer(_AnswerPiece):
    text: str = Field(
        description="the wording. Numbers only as slots: {cm} {mm} {count} {percent} the number of the finding stated; "
        "{cm2} {mm2} a second, shorter dimension; {prior_cm} {prior_mm} an earlier one; {20-180} any number in a range"
    )
    states: list[StatedAnswer] = Field(
        default_factory=list, description="everything it states, and nothing else; empty for a distractor"
    )
    section: str = Field(description="the section in which it would stand")
    form: Literal["free_text", "structured", "any"] = Field(
        default="any",
        description="free_text: a sentence that names what it speaks of. structured: words in a field of a form, whose "
        "label names it ('no contact'). any: fits both and names what it speaks of",
    )
    styles: list[str] = Field(default_factory=list, description="styles of reporting it belongs to; empty: any style")
    needs: list[AmongAnswer] = Field(
        default_factory=list, description="it may stand only in reports in which these findings have these values"
    )
    not_with: list[AmongAnswer] = Field(
        default_factory=list, description="it must not stand in reports in which a finding has one of these values"
    )
    rest: bool = Field(
        default=False,
        description="true only for a blanket statement with exceptions said before it ('the other arteries are free')",
    )
    traps: list[str] = Field(default_factory=list, description="names of reading traps in it, if any")


class PhraseAnswers(_AnswerPiece):
    phrases: list[PhraseAnswer] = Field(description="phrases that state values, or distractors that state none")


class ValueTextAnswer(_AnswerPiece):
    value: str = Field(description="value of the field's finding; `number` for a number")
    text: str = Field(description="what the form has for it, for a number with its slot: '{mm} mm'")


class PlaceAnswer(_AnswerPiece):
    heading: str = Field(
        default="", description="heading or field label, to the letter, with colon, blanks and line breaks after it"
    )
    sections: list[str] = Field(default_factory=list, description="sections whose phrases stand here, in order")
    findings: list[str] = Field(default_factory=list, description="for a field of a form: the findings it is about")
    values: list[ValueTextAnswer] = Field(
        default_factory=list, description="for a field about one finding: what the form has for its values"
    )
    silent: str | None = Field(
        default=None, description="what the field has where nothing is reported ('not provided'); null: field left out"
    )
    says: list[str] = Field(
        default_factory=list, description="for a field about something no finding asks: possible contents of it"
    )
    needs: list[AmongAnswer] = Field(
        default_factory=list, description="with `says` only: the field is there only where findings have these values"
    )
    join: str = Field(default=" ", description="between phrases; '\\n- ' for bullets, '\\n{n}. ' for a numbered list")
    end: str = Field(default="", description="after the content, to the letter")


class SkeletonAnswer(_AnswerPiece):
    form: Form = Field(description="free_text: sentences in sections. structured: a form with fields")
    style: str = Field(description="who writes so: kind of hospital, country, dictation habit or template")
    phrase_styles: list[str] = Field(default_factory=list, description="further styles of phrases that fit")
    places: list[PlaceAnswer] = Field(description="the report from top to bottom")
    join: str = Field(default="\n", description="between places; usually one line break")
    case: Literal["as_written", "upper", "lower"] = "as_written"
    decimal: Literal[".", ","] = Field(default=".", description="decimal point or comma")
    wrap: int | None = Field(default=None, description="width at which lines are broken (40 to 200), or null")


class SkeletonAnswers(_AnswerPiece):
    skeletons: list[SkeletonAnswer]


class ClosingAnswer(_AnswerPiece):
    sections: list[str] = Field(description="sections that sum up (impression, conclusion)")
    finding: str | None = Field(default=None, description="the finding that asks whether they agree with the rest")
    agrees: str | None = Field(default=None, description="its value where they agree")
    conflicts: str | None = Field(default=None, description="its value where they contradict; null: never")
    about: list[str] = Field(default_factory=list, description="findings on which a contradiction counts")


class DerivedAnswer(_AnswerPiece):
    finding: str
    value: str = Field(description="the value it has where no phrase states it and one of the others is stated")
    if_any_stated: list[str] = Field(description="those others")


class DependencyAnswer(_AnswerPiece):
    finding: str = Field(description="a finding that is stated only where another one has certain values")
    values: list[str] = Field(default_factory=list, description="only these values of it; empty: all")
    on: str = Field(description="the other finding")
    among: list[str] = Field(description="the values the other one must have; `not_stated` may be among them")


class NumberHabitAnswer(_AnswerPiece):
    finding: str
    low: float = Field(description="smallest usual number, in the finding's unit")
    high: float
    decimals: int = Field(default=0, description="decimals with which it is reported")


class FrameAnswer(_AnswerPiece):
    """What a bank needs before its first phrase."""

    findings: list[str] = Field(description="findings that the phrases will speak of")
    sections: list[str] = Field(description="sections of reports, lower case with underscores, in usual order")
    closing: ClosingAnswer | None = None
    derived: list[DerivedAnswer] = Field(default_factory=list)
    dependencies: list[DependencyAnswer] = Field(default_factory=list)
    numbers: list[NumberHabitAnswer] = Field(default_factory=list)
    synonyms: list[list[str]] = Field(
        default_factory=list, description="sets of wordings that mean the same in every sentence, each in one set"
    )
    protected: list[str] = Field(default_factory=list, description="words that a typing error would make ambiguous")


Answer: TypeAlias = PhraseAnswers | SkeletonAnswers


@dataclass(frozen=True, slots=True)
class Merged:
    """A bank after answers went in.

    Attributes:
        bank: with all pieces that are right.
        added: how many went in.
        problems: one line for each piece that did not, by its number in its answer.
    """

    bank: PhraseBank
    added: int
    problems: tuple[str, ...]


def new_bank(plan: Plan, frame: FrameAnswer, provenance: Provenance) -> PhraseBank:
    """A bank with a frame and no phrase yet.

    Raises:
        CaseError: the frame does not fit together; says where. `check_bank` says whether it fits the plan.
    """
    try:
        fields = frame.model_dump(mode="json") | {"topic": plan.topic, "provenance": provenance}
        return PhraseBank.model_validate(fields)
    except ValidationError as error:
        raise CaseError(f"frame of a phrase bank: {wrong_places(error)}") from None


def merge(bank: PhraseBank, plan: Plan, answers: Sequence[Answer], *, shares: Mapping[Split, float] = SHARES) -> Merged:
    """Put answers into a bank: ids and splits are given, wrong or doubled pieces are left out and named.

    A style goes to one split with all its layouts. A phrase whose styles have no layout outside one split that is not
    development goes to that split; every other phrase goes where those that say the same are too few.

    Args:
        bank: the bank so far; its pieces keep their ids and splits.
        plan: the plan.
        answers: in order; the same answers in the same order give the same bank.
        shares: split -> share of the pieces.
    """
    growing = _Growing(bank, plan, dict(shares))
    # Layouts first: they decide which styles belong to which split.
    for kind in (SkeletonAnswers, PhraseAnswers):
        for number, answer in enumerate(answers, start=1):
            if isinstance(answer, kind):
                growing.add(answer, f"answer {number}, " if len(answers) > 1 else "")
    return growing.merged()


@dataclass
class _Growing:
    bank: PhraseBank
    plan: Plan
    shares: dict[Split, float]
    problems: list[str] = field(default_factory=list)
    added: int = 0

    def __post_init__(self) -> None:
        self.phrases = list(self.bank.phrases)
        self.distractors = list(self.bank.distractors)
        self.skeletons = list(self.bank.skeletons)
        self._numbers = {
            letter: max((int(one.id[1:]) for one in pieces if one.id[:1] == letter and one.id[1:].isdigit()), default=0)
            for letter, pieces in (("p", self.phrases), ("d", self.distractors), ("s", self.skeletons))
        }
        self._texts = {_key(phrase): phrase.id for phrase in (*self.phrases, *self.distractors)}
        self._layouts = {_layout(skeleton): skeleton.id for skeleton in self.skeletons}
        self._split_counts: dict[str, Counter[Split]] = {}
        for phrase in (*self.phrases, *self.distractors):
            self._count(_strata(phrase), phrase.split)
        self._split_of_style: dict[str, Split] = {}
        for skeleton in self.skeletons:
            if skeleton.style not in self._split_of_style:
                self._split_of_style[skeleton.style] = skeleton.split
                self._count((f"layout {skeleton.form}",), skeleton.split)

    def add(self, answer: Answer, where: str) -> None:
        """Put in what is right of one answer."""
        if isinstance(answer, SkeletonAnswers):
            for number, skeleton in enumerate(answer.skeletons, start=1):
                self._add_skeleton(skeleton, f"{where}skeleton {number}")
        else:
            for number, phrase in enumerate(answer.phrases, start=1):
                self._add_phrase(phrase, f"{where}phrase {number}")

    def merged(self) -> Merged:
        """The bank with all that went in."""
        pieces = {
            "phrases": tuple(self.phrases),
            "distractors": tuple(self.distractors),
            "skeletons": tuple(self.skeletons),
        }
        bank = PhraseBank.model_validate(dict(self.bank) | pieces)
        return Merged(bank, self.added, tuple(self.problems))

    # ------------------------------------------------------------------------------------------ pieces

    def _add_phrase(self, answer: PhraseAnswer, where: str) -> None:
        letter = "p" if answer.states else "d"
        fields = answer.model_dump(mode="json")
        for mapped in ("needs", "not_with"):
            fields[mapped] = {one["finding"]: one["values"] for one in fields[mapped]}
        fields["states"] = {one.finding: one.value for one in answer.states}
        if len(fields["states"]) != len(answer.states):
            self.problems.append(f"{where}: states a finding twice")
            return
        unknown = self._unknown({*fields["states"], *fields["needs"], *fields["not_with"]}, {answer.section})
        if unknown:
            self.problems.append(f"{where}: {unknown}")
            return
        try:
            phrase = Phrase.model_validate(fields | {"id": self._next_id(letter), "split": "development"})
        except ValidationError as error:
            self.problems.append(f"{where}: {wrong_places(error)}")
            return
        problems = phrase_problems(phrase, self.bank, self.plan)
        doubled = self._texts.get(_key(phrase))
        if doubled is not None:
            problems.append(f"{phrase.id}: the same text is there already ({doubled})")
        if problems:
            self.problems += [f"{where}: {problem.partition(': ')[2]}" for problem in problems]
            return
        phrase = phrase.model_copy(update={"split": self._split_for(_strata(phrase), phrase.styles)})
        (self.phrases if phrase.states else self.distractors).append(phrase)
        self._count(_strata(phrase), phrase.split)
        self._texts[_key(phrase)] = phrase.id
        self._numbers[letter] += 1
        self.added += 1

    def _add_skeleton(self, answer: SkeletonAnswer, where: str) -> None:
        fields = answer.model_dump(mode="json")
        for place in fields["places"]:
            place["needs"] = {one["finding"]: one["values"] for one in place["needs"]}
            place["values"] = {one["value"]: one["text"] for one in place["values"]}
        findings = {name for place in fields["places"] for name in (*place["findings"], *place["needs"])}
        unknown = self._unknown(findings, {name for place in fields["places"] for name in place["sections"]})
        if unknown:
            self.problems.append(f"{where}: {unknown}")
            return
        known = self._split_of_style.get(answer.style)
        split = known or self._split_for((f"layout {answer.form}",), ())
        try:
            skeleton = Skeleton.model_validate(fields | {"id": self._next_id("s"), "split": split})
        except ValidationError as error:
            self.problems.append(f"{where}: {wrong_places(error)}")
            return
        alone = self.bank.model_copy(update={"skeletons": (skeleton,)})
        problems = skeleton_problems(alone, self.plan)
        doubled = self._layouts.get(_layout(skeleton))
        if doubled is not None:
            problems.append(f"{skeleton.id}: the same layout is there already ({doubled})")
        if problems:
            self.problems += [f"{where}: {problem.partition(': ')[2]}" for problem in problems]
            return
        self.skeletons.append(skeleton)
        if known is None:
            self._split_of_style[skeleton.style] = split
            self._count((f"layout {skeleton.form}",), split)
        self._layouts[_layout(skeleton)] = skeleton.id
        self._numbers["s"] += 1
        self.added += 1

    def _unknown(self, findings: set[str], sections: set[str]) -> str:
        """What a piece names that the bank does not have; empty where it has all."""
        lines = []
        for what, names, there in (
            ("finding", findings, self.bank.findings),
            ("section", sections, self.bank.sections),
        ):
            missing = sorted(names - set(there))
            if missing:
                lines.append(f"unknown {what} {', '.join(map(repr, missing))}; there are: {', '.join(there)}")
        return "; ".join(lines)

    # ------------------------------------------------------------------------------------------ splits

    def _next_id(self, letter: str) -> str:
        return f"{letter}{self._numbers[letter] + 1:05d}"

    def _count(self, strata: Sequence[str], split: Split) -> None:
        for stratum in strata:
            self._split_counts.setdefault(stratum, Counter())[split] += 1

    def _split_for(self, strata: Sequence[str], styles: Sequence[str]) -> Split:
        """The split of a new piece: its styles' own where they have one, else where its like are fewest."""
        of_styles = {self._split_of_style.get(style, "development") for style in styles}
        if len(of_styles) == 1 and "development" not in of_styles:
            return of_styles.pop()

        def lacking(split: Split) -> float:
            counts = [self._split_counts.get(stratum, Counter()) for stratum in strata]
            share = self.shares.get(split, 0.0)
            return sum(share * (sum(count.values()) + 1) - count[split] for count in counts)

        return max(SPLITS, key=lacking)


def _strata(phrase: Phrase) -> tuple[str, ...]:
    """What a phrase adds to: every value it states, in its form and section; for a distractor, its section.

    The section keeps the sentences of the conclusion apart, of which there are few: every split needs some.
    """
    stated = tuple(f"{name}={value} {phrase.form} {phrase.section}" for name, value in phrase.states.items())
    return stated or (f"nothing {phrase.section}",)


def _key(phrase: Phrase) -> tuple[Any, ...]:
    """What makes two phrases the same."""
    kind = tuple(sorted(phrase.states)) if phrase.form == "structured" else ()
    return (" ".join(phrase.text.lower().split()).rstrip("."), kind)


def _layout(skeleton: Skeleton) -> str:
    return skeleton.model_dump_json(include={"places", "join"})
