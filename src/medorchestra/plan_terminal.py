"""What a terminal shows while a plan is made and rehearsed, and afterwards. Names, counts and costs, no texts.

Prints progress to stderr; results are returned as lines. Knows how to tell, not how to make.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from medorchestra.plan import Calibration, Plan, ValidationRecord
from medorchestra.plan_views.validation_text import (
    NONE_LEFT,
    UNREVIEWED,
    accuracy_text,
    adapter_text,
    calibration_text,
    left_text,
    short_digest,
)
from medorchestra.rehearsal_scores import CaseReading, FindingScore, RehearsalScores

if TYPE_CHECKING:
    from medorchestra.cloud.desk.prices import ListPrice
    from medorchestra.cloud.desk.usage import Usage
    from medorchestra.rehearsal import MadePlan, PlanProgress

PLAIN_EVERY_SECONDS = 10.0
"""How often a plain progress line is written."""
MOST_CONFUSIONS = 3
"""Wrong readings that are told of a finding."""


class Told:
    """One line that is shown as it changes in a terminal, and from time to time elsewhere."""

    def __init__(self, *, quiet: bool, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._quiet = quiet
        self._live: Status | None = None
        self._last = time.perf_counter()

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._live = self._console.status("")
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str, *, lasting: bool) -> None:
        """Show a line; a lasting one stays where there is no terminal and above the live line where there is one."""
        now = time.perf_counter()
        if self._quiet:
            return
        if self._live is not None:
            self._live.update(Text(line))
        if lasting or (self._live is None and now - self._last >= PLAIN_EVERY_SECONDS):
            self._last = now
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)


class MakingDisplay(Told):
    """Shows how far the making of a plan is; give `advance` to `PlanMaking` as its progress."""

    _doing = ""

    def advance(self, progress: PlanProgress) -> None:
        """A step began, a reply came, or a case was rehearsed."""
        line = f"{progress.doing} ({spent_line(progress.usage, progress.price)})"
        if progress.rehearsed:
            line = f"{progress.doing}: {progress.rehearsed} cases read"
        self.say(line, lasting=progress.doing != self._doing)
        self._doing = progress.doing


class CaseCount(Told):
    """Counts the cases of a rehearsal; give `advance` to `rehearse` as its progress."""

    def __init__(self, total: int, *, quiet: bool, console: Console | None = None) -> None:
        super().__init__(quiet=quiet, console=console)
        self._total = total
        self._done = 0
        self._started = time.perf_counter()

    def advance(self, _: CaseReading) -> None:
        """One case was read."""
        self._done += 1
        elapsed = time.perf_counter() - self._started
        left = (self._total - self._done) * elapsed / self._done
        self.say(f"{self._done}/{self._total} cases, about {left:.0f} s left", lasting=self._done == self._total)


def spent_line(usage: Usage, price: ListPrice | None) -> str:
    """Requests, tokens and, where a price is known, US dollars so far."""
    total = usage.total
    line = f"{total.requests} requests and {total.cached} kept replies, "
    line += f"{total.input_tokens:,} + {total.output_tokens:,} tokens"
    if price is None:
        return line
    return f"{line}, ${price.dollars(total.input_tokens, total.output_tokens):.2f} at the list price of {price.model}"


def made_lines(made: MadePlan, out: Path, price: ListPrice | None) -> list[str]:
    """What a making came to."""
    run, plan = made.run, made.plan
    splits = made.facts["cases"]["splits"]
    counted = ", ".join(f"{split} {count}" for split, count in splits.items())
    lines = [
        f"plan: {out / 'plan.yaml'} ({len(plan.findings)} findings, {len(plan.all_rules)} rules, {plan.digest[:19]})",
        *run.proof.lines(),
        f"cases: {len(run.cases)} ({counted}); {len(run.writing.rejected)} reports rejected on reading back",
    ]
    if run.rounds:
        kept = sum(bool(each.kept) for each in run.rounds)
        lines.append(f"rounds: {len(run.rounds)}, of these {kept} kept")
    record = plan.validation[-1] if made.held_out is not None else None
    if record is None:
        lines.append("not validated: no local model was named")
    else:
        lines.append(record_line(record, plan.calibration_for(record.model_digest, record.adapter_digest)))
    return [*lines, f"cloud: {made.facts['cloud']['model']}, {spent_line(made.usage, price)}"]


def record_line(record: ValidationRecord, calibration: Calibration | None = None) -> str:
    """A validation record on one line, with the calibration of the same model and adapter where that is to be told."""
    left = left_text(record)
    unreviewed = NONE_LEFT if record.unreviewed is None else f"{accuracy_text(record.unreviewed)} right"
    line = (
        f"validated for {record.model} ({short_digest(record.model_digest)}, {adapter_text(record.adapter_digest)}): "
        f"outcome {accuracy_text(record.outcome)} right; of {UNREVIEWED}: {unreviewed}"
        f"{f', left without review {left}' if left else ''}"
    )
    return line if calibration is None else f"{line}; calibration: {calibration_text(calibration)}"


def score_lines(scores: RehearsalScores, plan: Plan) -> list[str]:
    """A rehearsal: who read, the outcome, every finding with its calibration and what was confused, worst first."""
    adapter = f", adapter {scores.adapter_digest[:19]}" if scores.adapter_digest else ""
    reviewed = sum(reading.review for reading in scores.readings)
    lines = [
        f"model: {scores.model} ({scores.model_digest[:19]}{adapter})",
        f"cases: {len(scores.readings)}, for review by a person: {reviewed}",
    ]
    told = scores.lines(plan)
    findings = {finding.name: scores.finding(finding.name) for finding in plan.findings}
    lines.append(told[0])
    for line in told[1:]:
        lines.append(line + "".join(f"; {more}" for more in _about(findings[line.split(":")[0]])))
    return lines


def _about(score: FindingScore) -> Iterator[str]:
    """Calibration and the most frequent confusions of a finding."""
    if score.calibration_error is not None and score.brier is not None:
        yield f"calibration error {score.calibration_error:.2f}, Brier {score.brier:.2f}"
    wrong = {pair: count for pair, count in score.confusion.items() if pair[0] != pair[1]}
    for (expected, answered), count in sorted(wrong.items(), key=lambda item: -item[1])[:MOST_CONFUSIONS]:
        yield f"{expected} read as {answered} {count}x"
