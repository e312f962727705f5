"""Step 3b of the planner: reports written in full from briefs, each read back by a reader who does not know the brief.

A report is kept when the reader finds in it what was asked for; the labels are then the reader's. Everything else is
rejected, with its reason, and asked for only once. Knows no local model.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from medorchestra.cloud.cases.case_briefs import CaseBrief
from medorchestra.cloud.cases.reading_back import (
    Disagreement,
    disagreements,
    findings_piece,
    patient,
    read_back,
    reading_sections,
)
from medorchestra.cloud.desk.cloud_desk import Ask, CloudDesk
from medorchestra.cloud.egress.identifiers import find_identifiers
from medorchestra.cloud.guideline import Guideline
from medorchestra.cloud.outgoing import Piece, PieceKind, guideline_piece
from medorchestra.cloud.prompt_texts import instruction
from medorchestra.plan import Plan
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import SyntheticCase, labelled
from medorchestra.synthetic import write_cases as write_case_files
from medorchestra.whole_files import write_whole

BRIEFS_IN_A_REQUEST = 8
REQUESTS_IN_A_WAVE = 8
"""Requests for reports after which those are read back and what was kept is written down."""
FEWEST_WORDS, MOST_WORDS = 0.5, 1.8
"""Of the length that was asked for."""
RUN = 8
"""Words in a run, for telling whether two reports were copied from each other."""
MOST_SHARED = 0.5
"""Share of its runs that a report may have in common with an earlier one."""

Reason = Literal["not_written", "unwritable", "unfit", "doubled", "not_read", "read_otherwise"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WrittenReport(_Answer):
    """The report for one brief."""

    brief: str = Field(description="id of the brief")
    text: str = Field(description="the report; empty where it cannot be written")
    unwritable: str | None = Field(default=None, description="why no honest report could state this; else null")


class WrittenReports(_Answer):
    """One report for each brief."""

    reports: list[WrittenReport]


@dataclass(frozen=True, slots=True)
class RejectedCase:
    """A report that was asked for and is not used.

    Attributes:
        brief: what was asked for.
        reason: why it is not used.
        detail: what is wrong with it, in words, counts and the writer's excuse.
        disagreements: what the reader found in it instead.
        text: the report, if one was written.
    """

    brief: CaseBrief
    reason: Reason
    detail: str = ""
    disagreements: tuple[Disagreement, ...] = ()
    text: str = field(default="", repr=False)

    def to_json(self) -> dict[str, object]:
        """JSON-ready, for `rejected.jsonl`."""
        return {
            "id": self.brief.id,
            "split": self.brief.split,
            "form": self.brief.form,
            "style": self.brief.style.name,
            "goal": self.brief.goal,
            "reason": self.reason,
            "detail": self.detail,
            "disagreements": [
                {"finding": one.finding, "wanted": one.wanted, "read": one.read} for one in self.disagreements
            ],
            "text": self.text,
        }


@dataclass(frozen=True, slots=True)
class CaseWriting:
    """What came of the reports that were asked for.

    Attributes:
        cases: those that may be used, in the order of their briefs.
        rejected: the others, in the order of their briefs.
    """

    cases: tuple[SyntheticCase, ...] = ()
    rejected: tuple[RejectedCase, ...] = ()

    def __add__(self, other: CaseWriting) -> CaseWriting:
        return CaseWriting(self.cases + other.cases, self.rejected + other.rejected)

    @property
    def by_reason(self) -> Mapping[str, int]:
        """Reason -> rejected reports, most frequent first."""
        return dict(Counter(one.reason for one in self.rejected).most_common())

    @property
    def by_finding(self) -> Mapping[str, int]:
        """Finding -> reports in which it was read otherwise than it was meant, most frequent first."""
        named = (gap.finding for one in self.rejected for gap in one.disagreements)
        return dict(Counter(named).most_common())


def write_cases(
    desk: CloudDesk,
    guideline: Guideline,
    plan: Plan,
    briefs: Sequence[CaseBrief],
    folder: str | Path | None = None,
    *,
    earlier: CaseWriting | None = None,
) -> CaseWriting:
    """Have reports written and read back.

    Args:
        desk: its gate gets to know every report before it is read back.
        guideline: says how reports are read.
        plan: whose findings the briefs name.
        briefs: what is asked for.
        folder: where `<split>.jsonl` and `rejected.jsonl` are written after every few requests; None: nowhere.
        earlier: what an earlier call has written into the same folder, and stays there.

    Returns:
        What came of these briefs, without what was there earlier. Every brief is in it once.

    Raises:
        CloudError: no usable answer within the desk's effort. What was answered so far is in the files and the cache.
        EgressError: something must not leave.
        StorageError: a file cannot be written.
    """
    so_far = earlier or CaseWriting()
    unlike = _Unlike(case.text for case in so_far.cases)
    done = CaseWriting()
    waves = _batches(briefs, BRIEFS_IN_A_REQUEST * REQUESTS_IN_A_WAVE)
    ahead = ThreadPoolExecutor(1, thread_name_prefix="case-writing")
    try:
        # Waves are written one after the other, while those before are read back.
        written = [ahead.submit(_written, desk, guideline, plan, wave) for wave in waves]
        for wave, texts in zip(waves, written, strict=True):
            done += _read_wave(desk, guideline, plan, wave, (texts.result(), unlike))
            if folder is not None:
                _write_files(so_far + done, Path(folder))
    finally:
        ahead.shutdown(wait=True, cancel_futures=True)
    return done


def _read_wave(
    desk: CloudDesk,
    guideline: Guideline,
    plan: Plan,
    briefs: Sequence[CaseBrief],
    texts: tuple[Mapping[str, WrittenReport], _Unlike],
) -> CaseWriting:
    """Have a wave of written reports read back, and keep those that were read as they were meant."""
    written, unlike = texts
    rejected: dict[str, RejectedCase] = {}
    drafts: dict[str, SyntheticCase] = {}
    for brief in briefs:
        refusal = _refusal(plan, brief, written.get(brief.id), unlike)
        if refusal is not None:
            rejected[brief.id] = refusal
        else:
            drafts[brief.id] = _case(plan, brief, written[brief.id].text, brief.targets)
    readings = read_back(desk, guideline, plan, list(drafts.values()))
    kept: list[SyntheticCase] = []
    for brief in briefs:
        if brief.id not in drafts:
            continue
        text, reading = drafts[brief.id].text, readings.get(brief.id)
        if reading is None:
            rejected[brief.id] = RejectedCase(brief, "not_read", "the reader gave no complete reading", text=text)
        elif gaps := disagreements(plan, brief.targets, reading):
            rejected[brief.id] = RejectedCase(brief, "read_otherwise", "", gaps, text)
        else:
            kept.append(_case(plan, brief, text, reading))
    return CaseWriting(tuple(kept), tuple(rejected[brief.id] for brief in briefs if brief.id in rejected))


def _case(plan: Plan, brief: CaseBrief, text: str, findings: Mapping[str, str | float]) -> SyntheticCase:
    foreign = "" if brief.language == plan.scope.language else f" ({brief.language})"
    return labelled(
        plan,
        findings,
        id=brief.id,
        split=brief.split,
        form=brief.form,
        style=brief.style.name + foreign,
        text=text,
        provenance="planner",
        traps=tuple(dict.fromkeys(trap.name for trap in brief.traps)),
    )


def _write_files(writing: CaseWriting, folder: Path) -> None:
    write_case_files(writing.cases, folder)
    lines = (json.dumps(one.to_json(), ensure_ascii=False) + "\n" for one in writing.rejected)
    write_whole(folder / "rejected.jsonl", "".join(lines))


# --------------------------------------------------------------------------------------------------------------- asking


def _written(
    desk: CloudDesk, guideline: Guideline, plan: Plan, briefs: Sequence[CaseBrief]
) -> dict[str, WrittenReport]:
    """Brief -> the report that was written for it; the first one where there are several."""
    material = [*map(guideline_piece, reading_sections(guideline, plan)), findings_piece(plan)]
    batches = _batches(briefs, BRIEFS_IN_A_REQUEST)
    asks = [
        Ask(
            "write cases",
            (
                instruction("write_cases", count=str(len(batch))),
                *material,
                Piece(PieceKind.PLAN, "briefs", "\n\n".join(map(_shown, batch))),
            ),
            WrittenReports,
            patient(_Check(plan, batch)),
        )
        for batch in batches
    ]
    written: dict[str, WrittenReport] = {}
    for answer in desk.ask_all(asks):
        for report in answer.reports:
            written.setdefault(report.brief, report)
    return written


def _batches(briefs: Sequence[CaseBrief], size: int) -> list[Sequence[CaseBrief]]:
    return [briefs[start : start + size] for start in range(0, len(briefs), size)]


def _shown(brief: CaseBrief) -> str:
    """A brief as the writer gets it."""
    stated: list[str] = []
    for name, value in brief.targets.items():
        if value != NOT_STATED:
            written = value if isinstance(value, str) else f"{value:.10g}"
            hint = f" ({brief.wording[name]})" if name in brief.wording else ""
            stated.append(f"- {name} = {written}{hint}")
    silent = [name for name, value in brief.targets.items() if value == NOT_STATED]
    lines = [
        f"brief {brief.id}",
        f"style: {brief.style.asks}",
        f"language: {brief.language}",
        f"length: about {brief.words} words",
        "stated:" if stated else "stated: nothing",
        *stated,
        f"silent: {', '.join(silent) or 'nothing'}",
        "traps:" if brief.traps else "traps: none",
        *(f"- {trap.asks}" for trap in brief.traps),
    ]
    return "\n".join(lines)


class _Check:
    """What is wrong with the reports of one request, in words that the writer can act on."""

    def __init__(self, plan: Plan, briefs: Sequence[CaseBrief]) -> None:
        self._plan = plan
        self._briefs = {brief.id: brief for brief in briefs}

    def __call__(self, answer: WrittenReports) -> list[str]:
        counted = Counter(report.brief for report in answer.reports)
        found = [f"brief {one}: no report" for one in self._briefs if one not in counted]
        found += [f"brief {one}: {counted[one]} reports" for one in self._briefs if counted[one] > 1]
        found += [f"{one!r}: there is no such brief" for one in counted if one not in self._briefs]
        seen: dict[str, str] = {}
        for report in answer.reports:
            brief = self._briefs.get(report.brief)
            if brief is None or report.unwritable:
                continue
            found += [f"brief {brief.id}: {problem}" for problem in report_problems(self._plan, brief, report.text)]
            other = seen.setdefault(_one_spaced(report.text), report.brief)
            if other != report.brief:
                found.append(f"brief {brief.id}: the same text as for brief {other}")
        return found


def report_problems(plan: Plan, brief: CaseBrief, text: str) -> list[str]:
    """What can be told to be wrong with a report without reading it: kinds and counts, never its words."""
    if not text.strip():
        return ["the text is empty"]
    found: list[str] = []
    words = len(text.split())
    low, high = round(brief.words * FEWEST_WORDS), round(brief.words * MOST_WORDS)
    # Languages without blanks between words have few of them.
    if not low <= words <= high and brief.language not in ("ja", "zh", "th"):
        found.append(f"{words} words; {low} to {high} are wanted")
    named = [name for name in _technical_names(plan) if _holds_word(text, name)]
    if named:
        found.append(f"names from the lists stand in it as they are: {', '.join(named)}; say them in plain words")
    kinds = Counter(one.kind.value for one in find_identifiers(text))
    if kinds:
        listed = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
        found.append(f"holds what looks like {listed}; leave it out")
    return found


def _technical_names(plan: Plan) -> Iterator[str]:
    """Names that no clinician writes: those with underscores."""
    names = (name for finding in plan.findings for name in (finding.name, *finding.all_values))
    outcomes = (outcome.name for outcome in plan.outcomes)
    return (name for name in dict.fromkeys((*names, *outcomes)) if "_" in name)


def _holds_word(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None


def _refusal(plan: Plan, brief: CaseBrief, report: WrittenReport | None, unlike: _Unlike) -> RejectedCase | None:
    """Why a report is not even read back; None where it is."""
    if report is None:
        return RejectedCase(brief, "not_written", "no report came")
    if report.unwritable and not report.text.strip():
        return RejectedCase(brief, "unwritable", report.unwritable)
    problems = report_problems(plan, brief, report.text)
    if problems:
        return RejectedCase(brief, "unfit", "; ".join(problems), text=report.text)
    shared = unlike.shared_then_kept(report.text)
    if shared > MOST_SHARED:
        detail = f"{shared:.0%} of its runs of {RUN} words stand in earlier reports"
        return RejectedCase(brief, "doubled", detail, text=report.text)
    return None


class _Unlike:
    """Remembers the runs of words of all reports, so that a copy is noticed, whichever split it is meant for."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._runs: set[tuple[str, ...]] = set()
        for text in texts:
            self._runs |= _runs(text)

    def shared_then_kept(self, text: str) -> float:
        """Share of the text's runs seen before; those of an acceptable text are seen from now on."""
        runs = _runs(text)
        shared = len(runs & self._runs) / len(runs)
        if shared <= MOST_SHARED:
            self._runs |= runs
        return shared


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold()) or [text]
    return {tuple(words[start : start + RUN]) for start in range(max(1, len(words) - RUN + 1))}


def _one_spaced(text: str) -> str:
    return " ".join(text.split()).casefold()
