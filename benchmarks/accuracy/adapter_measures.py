"""What `adapter.py` and `ablations.py` count: shares, selection, calibration, confusions. Pure but for `measure`.

An undefined number is None, and is written `none`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import medorchestra as mo
from medorchestra.calibration import LabelledDecision, risk_coverage
from medorchestra.intervals import wilson_interval
from medorchestra.local.engine.protocol import Engine
from medorchestra.phrases.phrase_bank import PhraseBank
from medorchestra.plan import Calibration
from medorchestra.rehearsal_scores import SAME_NUMBER, CaseReading, RehearsalScores, calibration
from medorchestra.synthetic import SyntheticCase

FORMS = ("free_text", "structured", "all")
BINS = 10
OUTCOME = "outcome"
"""Stands for the outcome where findings are listed."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many."""

    count: int
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % Wilson interval, or None where nothing was counted."""
        return wilson_interval(self.count, self.n)

    def __str__(self) -> str:
        interval = self.interval
        if interval is None:
            return "none"
        low, high = (f"{100 * bound:.0f}" for bound in interval)
        return f"{self.count} of {self.n}, {100 * self.count / self.n:.0f} % ({low}–{high})"


def share_of(hits: Iterable[bool]) -> Share:
    """Count hits."""
    counted = list(hits)
    return Share(sum(counted), len(counted))


@dataclass(frozen=True, slots=True)
class Reader:
    """One model (with or without adapter) and what it read in the cases.

    Attributes:
        name: in tables and pictures.
        scores: as the plan would run, with its calibration of this pair where it has one.
        uncalibrated: the same answers without the calibration; None where there is none.
        unthresholded: the same answers, with no decision sent to review for its probability alone.
        calibration: that of the pair, or None.
        review_below: the probability below which decisions go to review.
        reasons: kind of reason -> reports that go to review for it (among others, it may be).
    """

    name: str
    scores: RehearsalScores
    uncalibrated: RehearsalScores | None
    unthresholded: RehearsalScores
    calibration: Calibration | None
    review_below: float
    reasons: Mapping[str, int]


REASONS = {
    "open": "open: several outcomes remain possible",
    "the most probable values": "most probable values and most probable outcome disagree",
    "probability": "probability below the threshold",
    "flag": "a flag of the plan",
    "rests on silence": "rests on silence that the plan reads as a value",
    "no reading": "a question without an answer",
    "no supporting": "no supporting sentence found",
    "report read": "report read in part",
    "scope": "outside the scope",
}
"""How a reason for review begins -> its kind."""


def measure(
    name: str,
    plan: mo.Plan,
    cases: Sequence[SyntheticCase],
    engine: Engine,
    *,
    ledger: Path | None = None,
    progress: Callable[[CaseReading], None] | None = None,
) -> Reader:
    """Rehearse a plan as it would run, and decide the same answers again without calibration and threshold.

    Args:
        name: of the reader.
        plan, cases, engine, ledger, progress: as in `rehearse`. Only with a ledger is every question asked once alone.
    """
    identity = engine.identity
    found = plan.calibration_for(identity.digest, identity.adapter_digest)
    scores = mo.rehearse(plan, cases, engine, ledger=ledger, progress=progress)
    if found is None:
        profile = plan.profile.model_copy(update={"review_below": 0.0})
        free = plan.model_copy(update={"profile": profile})
        uncalibrated = None
    else:
        free = plan.model_copy(update={"calibrations": (found.model_copy(update={"review_below": 0.0}),)})
        bare = plan.model_copy(update={"calibrations": ()})
        uncalibrated = mo.rehearse(bare, cases, engine, ledger=ledger)
    return Reader(
        name=name,
        scores=scores,
        uncalibrated=uncalibrated,
        unthresholded=mo.rehearse(free, cases, engine, ledger=ledger),
        calibration=found,
        review_below=plan.profile.review_below if found is None else found.review_below,
        reasons=_reasons(plan, cases, engine, ledger),
    )


def _reasons(plan: mo.Plan, cases: Sequence[SyntheticCase], engine: Engine, ledger: Path | None) -> dict[str, int]:
    """Why reports go to review; what an earlier record says of the pair is left aside, as in a rehearsal."""
    reports = [mo.Report(case.id, case.text) for case in cases]
    bare = plan.model_copy(update={"validation": ()})
    counted: Counter[str] = Counter()
    for staged in mo.stage(reports, bare, model=engine, ledger=ledger, unvalidated=True):
        told = staged.decision.review_reasons if staged.decision else ("no decision",)
        counted.update({_reason_kind(reason) for reason in told})
    return dict(counted)


def _reason_kind(reason: str) -> str:
    return next((kind for begins, kind in REASONS.items() if reason.startswith(begins)), "another")


# ------------------------------------------------------------------------------------------------ parts of a rehearsal


def part_of(scores: RehearsalScores, keep: Callable[[SyntheticCase], bool]) -> RehearsalScores:
    """The readings of some of the cases."""
    return replace(scores, readings=tuple(reading for reading in scores.readings if keep(reading.case)))


def of_form(scores: RehearsalScores, form: str) -> RehearsalScores:
    """The readings of one form, or `all`."""
    return part_of(scores, lambda case: form in (case.form, "all"))


def outcome_share(scores: RehearsalScores) -> Share:
    """Right outcomes among the cases whose expected outcome is certain."""
    return Share(scores.outcome_correct, len(scores.decided))


def findings_share(scores: RehearsalScores, findings: Sequence[str]) -> Share:
    """Right readings over all findings of all cases."""
    return share_of(reading.is_right(name) for reading in scores.readings for name in findings)


def review_share(scores: RehearsalScores) -> Share:
    """Cases sent to review."""
    return share_of(reading.review for reading in scores.readings)


def unreviewed_share(scores: RehearsalScores) -> Share:
    """Right outcomes among the cases that nobody would look at; an open case among them is wrong."""
    return share_of(is_left_right(reading) for reading in scores.unreviewed)


def is_left_right(reading: CaseReading) -> bool:
    """Whether leaving this case to the machine would be right."""
    return reading.case.outcome is not None and reading.is_outcome_right


def most_frequent(values: Iterable[str | float]) -> tuple[str | float | None, Share]:
    """The value that a reader who reads nothing would best say always, and how often it is right.

    (None, an empty share) without values.
    """
    counted = Counter(values)
    if not counted:
        return None, Share(0, 0)
    value, count = counted.most_common(1)[0]
    return value, Share(count, counted.total())


# ------------------------------------------------------------------------------------------------ risk and calibration


def decisions_of(scores: RehearsalScores, *, all_reasons: bool = True) -> list[LabelledDecision]:
    """The decisions for a risk-coverage curve.

    Args:
        scores: of a rehearsal without threshold.
        all_reasons: whether the other reasons for review count, too. A report without a decision is reviewed anyway.
    """
    made = []
    for reading in scores.readings:
        made.append(
            LabelledDecision(
                probability=_surety(reading),
                right=is_left_right(reading),
                probability_of_truth=reading.outcomes.get(reading.case.outcome or "", _surety(reading)),
                reviewed=reading.review if all_reasons else not reading.outcomes,
            )
        )
    return made


def _surety(reading: CaseReading) -> float:
    return max(reading.outcomes.values(), default=0.0)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A point of a risk-coverage curve: cases left unreviewed, wrong ones among them, of all."""

    left: int
    wrong: int
    of: int


def curve_of(scores: RehearsalScores, *, all_reasons: bool = True) -> list[CurvePoint]:
    """The risk-coverage curve in counts, from the surest decision on; arguments as in `decisions_of`."""
    decisions = decisions_of(scores, all_reasons=all_reasons)
    points = []
    for coverage, risk in risk_coverage(decisions):
        left = round(coverage * len(decisions))
        points.append(CurvePoint(left, round(risk * left), len(decisions)))
    return points


def scored_finding(scores: RehearsalScores, finding: str) -> list[tuple[Mapping[str, float], str]]:
    """(distribution, true value) of every scored answer to a finding; of a number, the key that stands for it."""
    found = []
    for reading in scores.readings:
        distribution = reading.probabilities.get(finding)
        if distribution:
            found.append((distribution, _key_of(distribution, reading.case.known()[finding])))
    return found


def scored_outcome(scores: RehearsalScores) -> list[tuple[Mapping[str, float], str]]:
    """(distribution, true outcome) of every decision on a case whose expected outcome is certain."""
    return [
        (reading.outcomes, reading.case.outcome)
        for reading in scores.readings
        if reading.outcomes and reading.case.outcome is not None
    ]


def _key_of(distribution: Mapping[str, float], truth: str | float) -> str:
    if isinstance(truth, str):
        return truth
    for key in distribution:
        number = _as_number(key)
        if number is not None and abs(number - truth) < SAME_NUMBER:
            return key
    return f"{truth:.10g}"  # none of the measurements that were offered


def _as_number(key: str) -> float | None:
    try:
        return float(key)
    except ValueError:
        return None


def error_and_brier(scored: Sequence[tuple[Mapping[str, float], str]]) -> tuple[int, float | None, float | None]:
    """(n, expected calibration error, Brier score); both None without readings."""
    return len(scored), *calibration(scored)


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers whose probability lies in one tenth.

    Attributes:
        confidence: their mean probability.
        right: how many were right.
    """

    confidence: float
    right: Share


def bins_of(scored: Sequence[tuple[Mapping[str, float], str]]) -> list[Bin]:
    """The bins of a reliability picture that hold anything, from unsure to sure."""
    found: dict[int, list[tuple[float, bool]]] = {}
    for distribution, truth in scored:
        chosen = max(distribution, key=distribution.__getitem__)
        confidence = distribution[chosen]
        found.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, chosen == truth))
    return [
        Bin(sum(sure for sure, _ in found[place]) / len(found[place]), share_of(hit for _, hit in found[place]))
        for place in sorted(found)
    ]


# ------------------------------------------------------------------------------------------------ what went wrong


@dataclass(frozen=True, slots=True)
class Confusion:
    """A wrong reading that came up: of a finding, or (`OUTCOME`) of the decision.

    Attributes:
        count: how often.
        expected_n: how often this was expected.
    """

    finding: str
    expected: str
    read: str
    count: int
    expected_n: int


def confusions(scores: RehearsalScores, findings: Sequence[str]) -> list[Confusion]:
    """Wrong readings of findings, the most frequent first."""
    wrong: Counter[tuple[str, str, str]] = Counter()
    expected: Counter[tuple[str, str]] = Counter()
    for reading in scores.readings:
        for name in findings:
            truth = _kind(reading.case.known()[name])
            expected[name, truth] += 1
            if not reading.is_right(name):
                read = _kind(reading.answers.get(name))
                wrong[name, truth, "another number" if read == truth == "a number" else read] += 1
    return _ordered(wrong, expected)


def outcome_confusions(scores: RehearsalScores) -> list[Confusion]:
    """Wrong outcomes of the cases whose expected outcome is certain, the most frequent first."""
    wrong: Counter[tuple[str, str, str]] = Counter()
    expected: Counter[tuple[str, str]] = Counter()
    for reading in scores.decided:
        truth = reading.case.outcome or ""
        expected[OUTCOME, truth] += 1
        if not reading.is_outcome_right:
            wrong[OUTCOME, truth, reading.best_outcome or "no decision"] += 1
    return _ordered(wrong, expected)


def _ordered(wrong: Counter[tuple[str, str, str]], expected: Counter[tuple[str, str]]) -> list[Confusion]:
    made = [Confusion(*key, count, expected[key[:2]]) for key, count in wrong.items()]
    return sorted(made, key=lambda one: (-one.count, one.finding, one.expected, one.read))


def _kind(value: str | float | None) -> str:
    if value is None:
        return "no answer"
    return value if isinstance(value, str) else "a number"


def error_rows(reader: Reader, findings: Sequence[str], trained: TrainedStyles) -> list[dict[str, object]]:
    """What there is to read of every wrong outcome, and of every open case that nobody would look at.

    Those that nobody would look at come first, the surest of them before the others. Holds texts of synthetic cases.
    """
    rows: list[dict[str, object]] = []
    for reading in sorted(reader.scores.readings, key=lambda one: (one.review, -_surety(one), one.case.id)):
        case = reading.case
        left_open = case.outcome is None and not reading.review
        if not left_open and (case.outcome is None or reading.is_outcome_right):
            continue
        row: dict[str, object] = {
            "id": case.id,
            "what": "open, but left unreviewed" if left_open else "wrong outcome",
            "review": reading.review,
            "expected": case.outcome or list(case.possible_outcomes),
            "read": reading.best_outcome,
            "probability": max(reading.outcomes.values(), default=None),
            "wrong_findings": {name: _misread(reading, name) for name in findings if not reading.is_right(name)},
            "rule": case.rule,
            "form": case.form,
            "style": case.style,
            "style_seen": trained.seen(case.style),
            "provenance": case.provenance,
            "traps": list(case.traps),
            "note": case.note,
            "text": case.text,
        }
        rows.append(row)
    return rows


def _misread(reading: CaseReading, finding: str) -> dict[str, object]:
    expected, read = reading.case.known()[finding], reading.answers.get(finding)
    distribution = reading.probabilities.get(finding) or {}
    return {
        "expected": expected,
        "read": read,
        "probability_of_read": max(distribution.values(), default=None),
        "probability_of_expected": distribution.get(_key_of(distribution, expected)) if distribution else None,
    }


# ------------------------------------------------------------------------------------------------ styles


@dataclass(frozen=True, slots=True)
class TrainedStyles:
    """Styles that training has seen.

    Attributes:
        written: of development cases, and of development layouts and phrases that state something.
        distractors: of development phrases that state nothing, and of nothing else.
    """

    written: frozenset[str]
    distractors: frozenset[str]

    def seen(self, style: str) -> str:
        """`in training`, `held out`, or that only phrases which state nothing are of this style."""
        if style in self.written:
            return "in training"
        return "held out but for phrases that state nothing" if style in self.distractors else "held out"


SEEN = ("held out", "held out but for phrases that state nothing", "in training")


def trained_styles(
    cases: Iterable[SyntheticCase], bank: PhraseBank | None, without: Iterable[str] = ()
) -> TrainedStyles:
    """Which styles training has seen.

    Args:
        cases: all; those of the development split count.
        bank: the phrase bank, None where no report was composed.
        without: styles that were left out of training.
    """
    left_out = frozenset(without)
    written = {case.style for case in cases if case.split == "development"}
    distractors: set[str] = set()
    if bank is not None:
        written |= {skeleton.style for skeleton in bank.skeletons if skeleton.split == "development"}
        written |= {style for one in bank.phrases if one.split == "development" for style in one.styles}
        distractors |= {style for one in bank.distractors if one.split == "development" for style in one.styles}
    return TrainedStyles(frozenset(written) - left_out, frozenset(distractors - written) - left_out)
