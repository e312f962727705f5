"""Step 3c of the planner: the wording from which labelled reports are composed by the thousand.

Asks how findings hang together (`frame_writing`), then for layouts, distractors and phrases, a few findings at a time,
and merges them into a phrase bank. Then composes some reports and has them read back by a reader who does not know what
they were meant to say: phrases that were read otherwise are dropped. Knows no local model.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from medorchestra.cloud.cases.frame_writing import write_frame
from medorchestra.cloud.cases.reading_back import disagreements, findings_piece, patient, read_back, reading_sections
from medorchestra.cloud.cases.report_styles import ReportStyle, styles_for
from medorchestra.cloud.desk.cloud_desk import Ask, CloudDesk
from medorchestra.cloud.egress.identifiers import find_identifiers
from medorchestra.cloud.guideline import Guideline
from medorchestra.cloud.outgoing import Piece, PieceKind, guideline_piece
from medorchestra.cloud.prompt_texts import instruction
from medorchestra.errors import CaseError
from medorchestra.phrases.composition import ComposedReport, Composer
from medorchestra.phrases.phrase_answers import (
    SHARES,
    Answer,
    PhraseAnswer,
    PhraseAnswers,
    SkeletonAnswer,
    SkeletonAnswers,
    merge,
)
from medorchestra.phrases.phrase_bank import NUMBER, PhraseBank
from medorchestra.phrases.phrase_bank import write_phrase_bank as write_bank_file
from medorchestra.phrases.phrase_bank_check import check_bank
from medorchestra.plan import Finding, Plan
from medorchestra.synthetic import SPLITS, Form, Split
from medorchestra.whole_files import write_whole

FINDINGS_IN_A_REQUEST = 1
STYLES_IN_A_REQUEST = 4
PHRASE_STYLES: Mapping[str, str] = {
    "US": "terse, telegraphic, abbreviations",
    "UK": "full sentences, British spelling",
    "Asia": "precise terms, simple grammar, some articles missing",
    "Europe": "translated, nominal, long",
}
"""Ways of wording, each of which fits several layouts."""

DropReason = Literal["faulty", "read_otherwise"]
_IDS = re.compile(r"(?:phrases?|distractor|skeleton) ([A-Za-z0-9_.-]+)")


@dataclass(frozen=True, slots=True)
class PhraseAmounts:
    """How much is asked for.

    Attributes:
        sentences, fields: phrases for each value.
        layouts: for each style.
        distractors: in each request for layouts.
        read: composed reports that are read back.
    """

    sentences: int = 16
    fields: int = 6
    layouts: int = 2
    distractors: int = 20
    read: int = 40


@dataclass(frozen=True, slots=True)
class DroppedPiece:
    """A phrase, distractor, layout or piece of the frame that was written and is not used.

    Attributes:
        id: of the piece; `faulty` ones that never had one are numbered within their answer.
        reason: why.
        detail: what is wrong, in names and counts.
    """

    id: str
    reason: DropReason
    detail: str


@dataclass(frozen=True, slots=True)
class PhraseBankWriting:
    """What came of the wording that was asked for.

    Attributes:
        bank: what may be used.
        dropped: what may not.
        checked: composed reports that were read back.
        misread: finding -> composed reports in which it was read otherwise than composed.
        unsayable: `finding=value` -> why no phrase can state it, in the writer's words.
        lacks: what `check_bank` still finds wanting: values with few phrases, rules without reports.
    """

    bank: PhraseBank
    dropped: tuple[DroppedPiece, ...]
    checked: int
    misread: Mapping[str, int]
    unsayable: Mapping[str, str] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()


class UnsayableValue(BaseModel):
    """A value that no phrase can state by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    finding: str
    value: str
    why: str


class WrittenPhrases(BaseModel):
    """Phrases for a few findings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phrases: list[PhraseAnswer]
    unsayable: list[UnsayableValue] = Field(default_factory=list)


class WrittenLayouts(BaseModel):
    """Layouts in a few styles, and sentences that answer no finding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    skeletons: list[SkeletonAnswer]
    distractors: list[PhraseAnswer]


def write_phrase_bank(
    desk: CloudDesk,
    plan: Plan,
    folder: str | Path | None = None,
    *,
    guideline: Guideline | None = None,
    seed: int = 1,
    amounts: PhraseAmounts | None = None,
) -> PhraseBankWriting:
    """Have a phrase bank written and read back.

    Args:
        desk: its gate gets to know the composed reports that are read back.
        plan: whose findings the phrases state.
        folder: where `phrase_bank.json` and `phrases_dropped.jsonl` are written; None: nowhere.
        guideline: says how reports are read; None leaves that to the descriptions of the values.
        seed: of the composed reports that are read back.
        amounts: how much is asked for.

    Raises:
        CloudError: no usable answer within the desk's effort. What was answered so far is in the cache.
        CaseError: what was written does not suffice for a single report.
        EgressError: something must not leave.
        StorageError: a file cannot be written.
    """
    frame = write_frame(desk, plan, guideline)
    request = _Request(plan, guideline, amounts or PhraseAmounts(), frame.bank)
    held_out, others = request.layouts(desk)
    phrases = request.phrases(desk)
    unsayable = {f"{one.finding}={one.value}": one.why for answer in phrases for one in answer.unsayable}
    # Layouts come first: they decide which styles belong to which split.
    bank, dropped = _merged(request.bank, plan, held_out, {"held_out": 1.0})
    written: list[Answer] = [*others, *(PhraseAnswers(phrases=answer.phrases) for answer in phrases)]
    bank, more = _merged(bank, plan, written, SHARES)
    _check_said(bank)
    bank, faulty = _without_faults(bank, plan)
    reports = _sample(bank, plan, request.amounts.read, seed)
    bank, misread, suspects = _read(desk, guideline, bank, plan, reports)
    writing = PhraseBankWriting(
        bank,
        (*map(_left_out, frame.left_out), *dropped, *more, *faulty, *suspects),
        len(reports),
        misread,
        unsayable,
        check_bank(bank, plan),
    )
    if folder is not None:
        _write_files(writing, Path(folder))
    return writing


def _write_files(writing: PhraseBankWriting, folder: Path) -> None:
    lines = (
        json.dumps({"id": one.id, "reason": one.reason, "detail": one.detail}, ensure_ascii=False) + "\n"
        for one in writing.dropped
    )
    write_whole(folder / "phrases_dropped.jsonl", "".join(lines))
    write_bank_file(writing.bank, folder / "phrase_bank.json")


# -------------------------------------------------------------------------------------------------------------- asking


class _Request:
    """What is asked for one bank."""

    def __init__(self, plan: Plan, guideline: Guideline | None, amounts: PhraseAmounts, bank: PhraseBank) -> None:
        self.bank = bank
        self.amounts = amounts
        self._plan = plan
        sections = [] if guideline is None else reading_sections(guideline, plan)
        self._guideline = [guideline_piece(section) for section in sections]
        self._history, *self._spoken, self._other, self._closing = bank.sections
        self._following = {(one.finding, one.value) for one in bank.derived}

    def layouts(self, desk: CloudDesk) -> tuple[list[Answer], list[Answer]]:
        """Layouts and distractors: those in styles that are kept for held-out cases, and all others."""
        forms: tuple[Form, ...] = ("free_text", "structured")
        asked = [
            (form, styles)
            for form in forms
            for kept in (True, False)
            for styles in _batches([s for s in styles_for(form, held_out=True) if s.held_out_only is kept])
        ]
        answers = desk.ask_all([self._layout_ask(form, styles) for form, styles in asked])
        split: tuple[list[Answer], list[Answer]] = ([], [])
        for (_, styles), answer in zip(asked, answers, strict=True):
            names = {style.name for style in styles}
            skeletons = [skeleton for skeleton in answer.skeletons if skeleton.style in names]
            # Distractors have the layouts' own shares of the splits, whatever style was asked for.
            split[1].append(PhraseAnswers(phrases=answer.distractors))
            split[0 if styles[0].held_out_only else 1].append(SkeletonAnswers(skeletons=skeletons))
        return split

    def _layout_ask(self, form: Form, styles: Sequence[ReportStyle]) -> Ask[WrittenLayouts]:
        asked = instruction(
            "write_layouts",
            count=str(self.amounts.layouts),
            form=form,
            phrase_styles=", ".join(PHRASE_STYLES),
            distractors=str(self.amounts.distractors),
            history=self._history,
            other=self._other,
            closing=self._closing,
        )
        shown = "\n".join(f"- {style.name}: {style.asks}" for style in styles)
        pieces = (asked, findings_piece(self._plan, self._spoken), Piece(PieceKind.PLAN, "styles", shown))
        return Ask("write layouts", pieces, WrittenLayouts, patient(self._layout_problems(form, styles)))

    def _layout_problems(self, form: Form, styles: Sequence[ReportStyle]) -> Callable[[WrittenLayouts], list[str]]:
        names = {style.name for style in styles}

        def problems(answer: WrittenLayouts) -> list[str]:
            found = list(merge(self.bank, self._plan, [SkeletonAnswers(skeletons=answer.skeletons)]).problems)
            for number, skeleton in enumerate(answer.skeletons, start=1):
                found += [f"skeleton {number}: {problem}" for problem in self._gaps_in(skeleton, form, names)]
            counted = Counter(skeleton.style for skeleton in answer.skeletons)
            wanted = self.amounts.layouts
            found += [f"style {name!r}: {counted[name]} layouts, {wanted} wanted" for name in names_missing(counted)]
            told = merge(self.bank, self._plan, [PhraseAnswers(phrases=answer.distractors)]).problems
            found += [line.replace("phrase ", "distractor ", 1) for line in told]
            found += [
                f"distractor {i}: its states must be empty" for i, one in _numbered(answer.distractors) if one.states
            ]
            found += _named_persons("distractor", [one.text for one in answer.distractors])
            return found

        def names_missing(counted: Counter[str]) -> list[str]:
            return [style.name for style in styles if counted[style.name] < self.amounts.layouts]

        return problems

    def _gaps_in(self, skeleton: SkeletonAnswer, form: Form, names: set[str]) -> list[str]:
        placed = Counter(name for place in skeleton.places for name in (*place.sections, *place.findings))
        missing = [name for name in self._spoken if name not in placed]
        found = [f"{name} has {count} places" for name, count in placed.items() if count > 1]
        if len(missing) > 2:
            found.append(f"no place for {', '.join(missing)}; at most two findings may be left out")
        if skeleton.form != form:
            found.append(f"its form must be {form}")
        if skeleton.style not in names:
            found.append(f"its style must be one of: {', '.join(sorted(names))}")
        if self._other not in placed and self._closing not in placed:
            found.append(f"no place for {self._other} or {self._closing}")
        foreign = [name for name in skeleton.phrase_styles if name not in PHRASE_STYLES]
        if foreign:
            found.append(f"unknown phrase_styles {', '.join(foreign)}; there are: {', '.join(PHRASE_STYLES)}")
        return found

    def phrases(self, desk: CloudDesk) -> list[WrittenPhrases]:
        """Phrases for all findings, a few at a time."""
        findings, size = [self._plan.finding(name) for name in self._spoken], FINDINGS_IN_A_REQUEST
        batches = [findings[start : start + size] for start in range(0, len(findings), size)]
        return desk.ask_all([self._phrase_ask(batch) for batch in batches])

    def _phrase_ask(self, findings: Sequence[Finding]) -> Ask[WrittenPhrases]:
        asked = instruction(
            "write_phrases",
            findings=", ".join(finding.name for finding in findings),
            sentences=str(self.amounts.sentences),
            fields=str(self.amounts.fields),
            styles="; ".join(f"{name} ({what})" for name, what in PHRASE_STYLES.items()),
            closing=self._closing,
        )
        pieces = (asked, *self._guideline, findings_piece(self._plan, self._spoken))
        return Ask("write phrases", pieces, WrittenPhrases, patient(self._phrase_problems(findings)))

    def _phrase_problems(self, findings: Sequence[Finding]) -> Callable[[WrittenPhrases], list[str]]:
        def problems(answer: WrittenPhrases) -> list[str]:
            found = list(merge(self.bank, self._plan, [PhraseAnswers(phrases=answer.phrases)]).problems)
            found += [f"phrase {i}: states nothing" for i, one in _numbered(answer.phrases) if not one.states]
            found += _named_persons("phrase", [one.text for one in answer.phrases])
            return [*found, *self._too_few(answer, findings)]

        return problems

    def _too_few(self, answer: WrittenPhrases, findings: Sequence[Finding]) -> list[str]:
        """Values with fewer phrases than were asked for."""
        forms = {"free_text": ("sentences",), "structured": ("form entries",), "any": ("sentences", "form entries")}
        texts: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        for phrase in answer.phrases:
            for stated in phrase.states:
                for what in forms[phrase.form]:
                    texts[stated.finding, stated.value, what].add(phrase.text.casefold())
        excused = {(one.finding, one.value) for one in answer.unsayable} | self._following
        wanted = {"sentences": self.amounts.sentences, "form entries": self.amounts.fields}
        return [
            f"{finding.name} = {value}: {len(texts[finding.name, value, what])} different {what}, {least} wanted"
            for finding in findings
            for value in finding.values or (NUMBER,)
            for what, least in wanted.items()
            if (finding.name, value) not in excused and len(texts[finding.name, value, what]) < least
        ]


def _batches(styles: Sequence[ReportStyle]) -> list[Sequence[ReportStyle]]:
    return [styles[start : start + STYLES_IN_A_REQUEST] for start in range(0, len(styles), STYLES_IN_A_REQUEST)]


def _numbered(phrases: Sequence[PhraseAnswer]) -> list[tuple[int, PhraseAnswer]]:
    return list(enumerate(phrases, start=1))


def _named_persons(what: str, texts: Sequence[str]) -> list[str]:
    found = []
    for number, text in enumerate(texts, start=1):
        kinds = Counter(one.kind.value for one in find_identifiers(text))
        found += [f"{what} {number}: holds what looks like {n} x {kind}; leave it out" for kind, n in kinds.items()]
    return found


# ------------------------------------------------------------------------------------------------------------ checking


def _merged(
    bank: PhraseBank, plan: Plan, answers: Sequence[Answer], shares: Mapping[Split, float]
) -> tuple[PhraseBank, list[DroppedPiece]]:
    """The bank with all that is right, and what was left out. What could belong to a person is left out, too."""
    harmless = [
        PhraseAnswers(phrases=[one for one in answer.phrases if not find_identifiers(one.text)])
        if isinstance(answer, PhraseAnswers)
        else answer
        for answer in answers
    ]
    merged = merge(bank, plan, harmless, shares=shares)
    dropped = [_left_out(line) for line in merged.problems]
    for answer, kept in zip(answers, harmless, strict=True):
        if isinstance(answer, PhraseAnswers) and isinstance(kept, PhraseAnswers):
            lost = len(answer.phrases) - len(kept.phrases)
            dropped += [DroppedPiece("phrase", "faulty", "held what looks like an identifier")] * lost
    return merged.bank, dropped


def _left_out(line: str) -> DroppedPiece:
    """`piece: problem`, as frame and merging tell it."""
    piece, _, problem = line.partition(": ")
    return DroppedPiece(piece, "faulty", problem)


def _check_said(bank: PhraseBank) -> None:
    """Refuse a bank that says nothing."""
    if not bank.phrases and not any(place.values for skeleton in bank.skeletons for place in skeleton.places):
        raise CaseError(f"phrase bank of {bank.topic}: nothing was written that states a finding; ask anew")


def _without(bank: PhraseBank, ids: set[str]) -> PhraseBank:
    pieces = {
        kind: tuple(piece for piece in getattr(bank, kind) if piece.id not in ids)
        for kind in ("phrases", "distractors", "skeletons")
    }
    return PhraseBank.model_validate(dict(bank) | pieces)


def _without_faults(bank: PhraseBank, plan: Plan) -> tuple[PhraseBank, list[DroppedPiece]]:
    """The bank without pieces that are wrong beside others: doubled texts, texts inside texts of another value."""
    dropped: list[DroppedPiece] = []
    while faults := check_bank(bank, plan, minimum={}):
        named = {found[1]: line for line in faults if (found := _IDS.match(line)) is not None}
        if not named:
            raise CaseError(f"phrase bank of {bank.topic}: {faults[0]}")
        dropped += [DroppedPiece(piece, "faulty", line) for piece, line in named.items()]
        bank = _without(bank, set(named))
    return bank, dropped


def _sample(bank: PhraseBank, plan: Plan, count: int, seed: int) -> list[ComposedReport]:
    """Composed reports of all splits that the bank has layouts for, by their shares."""
    reports: list[ComposedReport] = []
    for split in SPLITS:
        if any(skeleton.split == split for skeleton in bank.skeletons):
            wanted = max(1, round(count * SHARES[split]))
            reports += islice(Composer(bank, plan, split).stream(f"read-{seed}"), wanted)
    if not reports:
        raise CaseError(f"phrase bank of {bank.topic}: no layout was written; ask anew")
    return reports[:count]


def _read(
    desk: CloudDesk, guideline: Guideline | None, bank: PhraseBank, plan: Plan, reports: Sequence[ComposedReport]
) -> tuple[PhraseBank, Mapping[str, int], list[DroppedPiece]]:
    """Drop the phrases that state a finding in a report in which it was read otherwise.

    A finding that was composed as silent and read as a value points to no phrase: it is only counted.
    """
    readings = read_back(desk, guideline, plan, [report.case for report in reports])
    misread: Counter[str] = Counter()
    suspects: dict[str, DroppedPiece] = {}
    for report in reports:
        if report.case.id not in readings:
            continue
        for gap in disagreements(plan, report.case.known(), readings[report.case.id]):
            misread[gap.finding] += 1
            detail = f"states {gap.finding}={gap.wanted}, was read as {gap.read}"
            for passage in report.passages:
                if passage.phrase is not None and gap.finding in passage.states:
                    suspects.setdefault(passage.phrase, DroppedPiece(passage.phrase, "read_otherwise", detail))
    return _without(bank, set(suspects)), dict(misread.most_common()), list(suspects.values())
