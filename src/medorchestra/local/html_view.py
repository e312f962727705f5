"""What a notebook shows: the results of a batch as a table, one report with its quotes highlighted.

Only `staged_report_html` shows report text. Both give a self-contained fragment: one scoped style sheet, no script, no
id, no external resource, everything escaped. Text keeps the page's own colour and colours are only tints over the
page's own ground, so light and dark themes need no detection. Decides nothing. Templates and style sheet: `html/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from medorchestra.local.aggregator import Decision
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.batch import DISCLAIMER
from medorchestra.local.results import Results
from medorchestra.local.staged_report import ReportStatus, StagedReport
from medorchestra.plan import Plan, Subtask
from medorchestra.rules import NOT_STATED, findings_in

MOST_ROWS = 200
"""Rows a results table shows; notebooks become slow with more."""

Role = Literal["missing", "deciding", "supporting", "other"]
"""What a finding is for the decision: it would settle an open one; the rule looks at it; it excludes earlier rules;
none of these. For an open decision the deciding ones are those that are weighed together with what is missing."""

_ROLES: tuple[Role, ...] = ("missing", "deciding", "supporting", "other")
_DECIDED: dict[Role, str] = {"deciding": "deciding", "supporting": "excludes earlier rules", "other": "not decisive"}
_OPEN: dict[Role, str] = {"missing": "would settle it", "deciding": "weighed with it", "other": "not decisive"}
_UNITS = {"percent": "%", "unit_per_ml": "U/ml", "count": ""}
_LONGEST_NAME = 40
_NOT_IN_HTML = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True, repr=False)
class Piece:
    """A stretch of a report over which the same quotes lie. The pieces of a report, joined, are its text.

    Attributes:
        text: its characters.
        quoted_for: the answers that quote it.
        best_for: those of them whose best quote it belongs to.
        ends: those of them whose best quote ends here.
    """

    text: str
    quoted_for: tuple[Answer, ...]
    best_for: tuple[Answer, ...]
    ends: tuple[Answer, ...]


def pieces_of(text: str, answers: Sequence[Answer]) -> list[Piece]:
    """A report cut at the ends of all quotes, however they overlap."""
    quotes = [quote for answer in answers for quote in answer.quotes]
    cuts = sorted({0, len(text), *(place for quote in quotes for place in (quote.start, quote.end))})
    pieces: list[Piece] = []
    for start, end in pairwise(cuts):
        quoted_for = tuple(a for a in answers if any(q.start <= start and end <= q.end for q in a.quotes))
        best_for = tuple(a for a in quoted_for if a.quotes[0].start <= start and end <= a.quotes[0].end)
        ends = tuple(answer for answer in best_for if answer.quotes[0].end == end)
        pieces.append(Piece(text[start:end], quoted_for, best_for, ends))
    return pieces


def staged_report_html(staged: StagedReport) -> str:
    """One report: its decision, what that rests on, and its text with every quote highlighted. Shows report text!

    Characters that HTML cannot hold (NUL, lone surrogates) are shown as one replacement character each, so that the
    spans still fit.
    """
    view = _ReportView(staged)
    return _environment().get_template("staged_report.html").render(view=view, disclaimer=DISCLAIMER)


def results_html(results: Results) -> str:
    """A batch: counts and one row for each report (at most `MOST_ROWS`), without report text."""
    rows = [_result_line(staged) for staged in results.staged[:MOST_ROWS]]
    counts = {spoken(name): count for name, count in results.counts().items() if count}
    return (
        _environment()
        .get_template("results.html")
        .render(
            results=results,
            rows=rows,
            counts=counts,
            for_review=len(results.for_review()),
            more=len(results) - len(rows),
            disclaimer=DISCLAIMER,
        )
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("medorchestra.local", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"spoken": spoken, "chance": chance}
    return environment


def inert(value: object) -> object:
    """Escaped text that a browser reads back to the same characters: raw carriage returns would become line feeds."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    held = _NOT_IN_HTML.sub(lambda found: "␀" if found[0] == "\x00" else "�", value)
    return escape(held).replace("\r", Markup("&#13;"))


def spoken(name: str) -> str:
    """A name of the plan as words."""
    return name.replace("_", " ")


def chance(probability: float) -> str:
    """Two decimals, without claiming a certainty that is not there."""
    if 0 < probability < 0.005:
        return "<0.01"
    return ">0.99" if 0.995 <= probability < 1 - 1e-9 else f"{probability:.2f}"


@dataclass(frozen=True, slots=True, repr=False)
class _Reading:
    """One row of the table of findings."""

    name: str
    title: str
    value: str | None
    remark: str
    failed: bool
    probability: float | None
    spread: str


class _ReportView:
    """One staged report in the words of its template."""

    def __init__(self, staged: StagedReport) -> None:
        self.staged = staged
        self.plan = staged.plan
        self.decision = staged.decision
        self._subtasks = {subtask.id: subtask for subtask in self.plan.subtasks}
        self._names = {f.name: spoken(f.name) for f in self.plan.findings}
        self._names |= {subtask.finding or subtask.id: _short_name(subtask) for subtask in self.plan.subtasks}
        self._roles = {} if staged.decision is None else roles_of(self.plan, staged.decision)

    @property
    def state(self) -> str:
        """Colour of the whole: failed, open, review or clear."""
        if self.decision is None:
            return "failed"
        if self.staged.status is ReportStatus.OPEN:
            return "open"
        return "review" if self.decision.review else "clear"

    @property
    def failure(self) -> str:
        """What went wrong, where there is no decision."""
        if self.staged.status is ReportStatus.EMPTY:
            return "the report has no text, nothing was asked"
        return f"no answer could be read: {self.staged.error or 'kind of error not known'}"

    @property
    def reasons(self) -> list[str]:
        """Reasons for review, without those that repeat a flag: flags are shown as such."""
        if self.decision is None:
            return []
        flagged = {f"flag {flag.id}: {flag.message}" for flag in self.decision.flags}
        return [reason for reason in self.decision.review_reasons if reason not in flagged]

    @property
    def chances(self) -> list[tuple[str, str, float]]:
        """Outcome, description and probability, in the plan's order; then the share that no rule decides."""
        if self.decision is None:
            return []
        chances = [(o.name, o.description, self.decision.probabilities[o.name]) for o in self.plan.outcomes]
        if self.decision.undecided >= 0.005:
            chances.append(("no_rule_holds", "No rule of the plan holds.", self.decision.undecided))
        return chances

    @property
    def pieces(self) -> list[Piece]:
        """The report's text, cut for highlighting."""
        return pieces_of(self.staged.report.text, self.staged.answers)

    @property
    def legend(self) -> list[tuple[Role, str]]:
        """Roles that have quotes, with what they are called; empty for a failure."""
        quoted = {self.role(answer) for answer in self.staged.answers if answer.quotes}
        return [(role, self._called(role)) for role in _ROLES if role in quoted and self.decision]

    @property
    def groups(self) -> list[tuple[Role, str, list[_Reading]]]:
        """Rows of the table of findings by role, the weightiest first."""
        by_role: dict[Role, list[_Reading]] = {role: [] for role in _ROLES}
        for answer in self.staged.answers:
            by_role[self.role(answer)].append(self._reading(answer))
        return [(role, self._called(role), readings) for role, readings in by_role.items() if readings]

    def _called(self, role: Role) -> str:
        return (_OPEN if self.staged.status is ReportStatus.OPEN else _DECIDED).get(role, "")

    def role(self, answer: Answer) -> Role:
        """What an answer is for the decision."""
        return self._roles.get(answer.finding or "", "other")

    def emphasis(self, piece: Piece) -> str:
        """Classes of a highlight: the weightiest role of its answers, weaker where only second-best quotes have it."""
        role = next(role for role in _ROLES if role in map(self.role, piece.quoted_for))
        return f"mo-{role}" if role in map(self.role, piece.best_for) else f"mo-{role} mo-second"

    def badge(self, answer: Answer) -> str:
        """Finding and value, as they stand beside a quote."""
        return f"{self.name(answer)}: {self.value(answer)}"

    def name(self, answer: Answer) -> str:
        """What an answer reads, in words."""
        return self._names[answer.finding or answer.subtask]

    def finding_name(self, finding: str) -> str:
        """A finding in words."""
        return self._names[finding]

    def value(self, answer: Answer) -> str:
        """The value in the words of the plan's labels, a number with its unit, a passage as it was written."""
        value = answer.value
        if value is None:
            return spoken(answer.status.value)
        if isinstance(value, tuple):
            return f"{len(value)} passages" if len(value) != 1 else "1 passage"
        if isinstance(value, str):
            return self._subtasks[answer.subtask].labels.get(value, value)
        number = self.plan.finding(answer.finding or "").number
        unit = "" if number is None else _UNITS.get(number.unit, number.unit)
        return f"{value:g} {unit}".strip()

    def _reading(self, answer: Answer) -> _Reading:
        finding = self.plan.finding(answer.finding) if answer.finding else None
        stated = answer.status is AnswerStatus.OK
        labels = self._subtasks[answer.subtask].labels
        spread = (f"{labels.get(value, value)} {chance(p)}" for value, p in _likeliest(answer.probabilities))
        return _Reading(
            name=self.name(answer),
            title=f"{answer.finding}: {finding.description}" if finding else answer.subtask,
            value=self.value(answer) if stated else None,
            remark=self._remark(answer),
            failed=answer.status.is_failure,
            probability=answer.probability,
            spread=", ".join(spread),
        )

    def _remark(self, answer: Answer) -> str:
        """The status, as far as the value does not say it."""
        assumed = self.decision.assumed if self.decision else {}
        if answer.status is AnswerStatus.NOT_STATED:
            read_as = assumed.get(answer.finding or "")
            silent = spoken(NOT_STATED)
            label = self._subtasks[answer.subtask].labels.get(read_as, read_as) if read_as else None
            return f"{silent}, read as {label}" if label else silent
        if answer.status is AnswerStatus.SKIPPED:
            return f"not asked: {answer.reason}" if answer.reason else "not asked"
        if answer.status.is_failure:
            return f"no reading: {spoken(answer.status.value)}"
        if not answer.quotes:
            return "no place found"
        return "" if answer.read_whole_report else "report read in part"


def roles_of(plan: Plan, decision: Decision) -> Mapping[str, Role]:
    """What each finding is for a decision; those left out are `other`."""
    missing = set(decision.missing)
    if decision.rule is not None:
        looked_at = set(findings_in(plan.rule(decision.rule.id).when))
        deciding = looked_at & set(decision.rests_on)
    elif decision.outcome is None:
        by_rules = [set(findings_in(rule.when)) for rule in plan.rules]
        by_silence = [{domain.finding, *domain.silence.looks_at} for domain in plan.domains]
        deciding = set().union(*(together for together in by_rules + by_silence if together & missing))
    else:
        deciding = set(decision.rests_on)
    roles: dict[str, Role] = dict.fromkeys(decision.rests_on, "supporting")
    roles |= dict.fromkeys(deciding, "deciding")
    roles |= dict.fromkeys(missing, "missing")
    return roles


def _short_name(subtask: Subtask) -> str:
    """The compact prompt where that is a plain name (`SMA contact:`), else the name in the plan."""
    short = (subtask.prompt.compact or "").strip().removesuffix(":")
    plain = 0 < len(short) <= _LONGEST_NAME and not set("{}\n") & set(short)
    return short if plain else spoken(subtask.finding or subtask.id)


def _likeliest(probabilities: Mapping[str, float], most: int = 5) -> list[tuple[str, float]]:
    return sorted(probabilities.items(), key=lambda pair: -pair[1])[:most]


@dataclass(frozen=True, slots=True, repr=False)
class _ResultLine:
    """One row of a results table."""

    report_id: str
    status: str
    outcomes: tuple[str, ...]
    best: str | None
    probability: float | None
    review: bool
    reasons: tuple[str, ...]
    rule: str | None
    section: str | None
    outcome_set: tuple[str, ...] | None = None


def _result_line(staged: StagedReport) -> _ResultLine:
    decision = staged.decision
    if decision is None:
        reason = staged.error or staged.status.value
        return _ResultLine(staged.report_id, staged.status.value, (), None, None, True, (reason,), None, None)
    return _ResultLine(
        report_id=staged.report_id,
        status=staged.status.value,
        outcomes=(decision.outcome,) if decision.outcome else decision.possible_outcomes,
        best=decision.best_outcome if decision.best_outcome != decision.outcome else None,
        probability=decision.probability,
        review=decision.review,
        reasons=decision.review_reasons,
        rule=decision.rule.id if decision.rule else None,
        section=decision.rule.citation.section if decision.rule else None,
        outcome_set=decision.outcome_set,
    )
