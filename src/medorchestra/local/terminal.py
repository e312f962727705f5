"""What a staging run shows in a terminal: progress, every decision where asked for, and a summary.

Ids and counts only, unless `show_decisions` asks for the quotes. Plain lines where the output is not a terminal.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from medorchestra.local.answers import AnswerStatus
from medorchestra.local.batch import DISCLAIMER, RunSummary
from medorchestra.local.staged_report import ReportStatus, StagedReport

PLAIN_EVERY_SECONDS = 10.0
"""How often a plain progress line is written."""


def print_note(note: str) -> None:
    """What a person should know of the run that begins, on a line of stderr."""
    sys.stderr.write(f"medorchestra: {note}\n")


class ProgressDisplay:
    """Shows how far a run is; give `advance` to `stage_to_files` as its progress."""

    def __init__(
        self, total: int, *, show_decisions: bool = False, quiet: bool = False, console: Console | None = None
    ) -> None:
        """Take the number of reports.

        Args:
            total: reports in the batch.
            show_decisions: print every decision with its quotes, which are report text, to stdout.
            quiet: no progress.
            console: for both; default: decisions to stdout, progress to stderr.
        """
        self._console = console or Console()
        self._errors = console or Console(stderr=True)
        self._total = total
        self._quiet = quiet
        self._show_decisions = show_decisions
        self._done = self._tokens = 0
        self._in_model = 0.0
        self._started = self._last_line = time.perf_counter()
        self._bar = Progress(
            TextColumn("staging"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._errors,
            disable=quiet or not self._errors.is_terminal,
            transient=True,
            # Decisions that go to a file must not be caught by the bar and end up on the terminal.
            redirect_stdout=self._console.is_terminal,
        )
        self._task = self._bar.add_task("staging", total=total, rate="")

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._bar.stop()

    def advance(self, staged: StagedReport) -> None:
        """One report is done."""
        if self._show_decisions:
            self._console.print(decision_view(staged))
        self._in_model += staged.seconds_in_model
        self.count(1, staged.tokens)

    def count(self, reports: int, tokens: int) -> None:
        """So many reports more are done, and so many tokens were computed for them."""
        self._done += reports
        self._tokens += tokens
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        rate = f"{60 * self._done / elapsed:.1f} reports/min, {self._tokens / elapsed:.0f} tokens/s"
        if self._in_model:
            rate += f", {self._in_model / elapsed:.0%} in the model"
        self._bar.update(self._task, advance=reports, rate=rate)
        now = time.perf_counter()
        last = self._done == self._total
        if not (self._quiet or self._errors.is_terminal) and (last or now - self._last_line >= PLAIN_EVERY_SECONDS):
            self._last_line = now
            left = (self._total - self._done) * elapsed / self._done
            self._errors.print(
                f"staged {self._done}/{self._total} reports, {rate}, about {left:.0f} s left",
                highlight=False,
                soft_wrap=True,
            )


def decision_view(staged: StagedReport) -> Group:
    """One report with everything its decision rests on, report text included."""
    title = Text(f"{_on_one_line(staged.report_id)}  ", style="bold")
    mark = Text() if staged.validated else Text("  (plan not validated for this model)", style="yellow")
    decision = staged.decision
    if decision is None:
        reason = staged.error or "the report has no text"
        return Group(title + Text(f"{staged.status.value}: {reason}", style="red") + mark, Text())
    if decision.outcome is not None:
        title += Text(decision.outcome, style="bold green")
    else:
        title += Text("open: " + " | ".join(decision.possible_outcomes), style="bold yellow")
    title += mark
    lines: list[Text] = [Text(f"most probable: {decision.best_outcome} ({decision.probability:.2f})")]
    if decision.outcome_set is not None:
        lines.append(Text(f"calibrated outcome set: {' | '.join(decision.outcome_set)}"))
    if decision.rule is not None:
        lines.append(Text(f"rule: {decision.rule.id}, guideline section {decision.rule.citation.section}"))
    for name in decision.rests_on:
        answer = staged.answer(name)
        chance = f" ({answer.probability:.2f})" if answer.probability is not None else ""
        value = answer.value if answer.status is AnswerStatus.OK else answer.status.value
        if name in decision.assumed:
            value = f"{value}, read as {decision.assumed[name]}"
        quote = ""
        if answer.quotes:
            quote = f'  "{_shortened(answer.quotes[0].text)}"'
        elif answer.status is AnswerStatus.OK:
            quote = "  (no supporting sentence found)"
        lines.append(Text(f"rests on {name}: {value}{chance}{quote}"))
    if decision.missing:
        lines.append(Text(f"missing: {', '.join(decision.missing)}"))
    if decision.review:
        lines += [Text(f"review: {reason}", style="yellow") for reason in decision.review_reasons]
    return Group(title, *(Padding(line, (0, 0, 0, 4)) for line in lines), Text())


def _shortened(text: str, longest: int = 100) -> str:
    flat = _on_one_line(" ".join(text.split()))
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def _on_one_line(text: str) -> str:
    """Control characters as their escapes: a report must not be able to steer the terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def print_summary(summary: RunSummary, out: Path, *, console: Console | None = None) -> None:
    """Outcomes, review and failures (a table in a terminal, plain lines elsewhere), then where the files lie."""
    console = console or Console()
    sections = _counts(summary)
    if console.is_terminal:
        console.print(_table(summary.reports, sections))
    else:
        lines = [f"{name}: {count}" for section in sections for name, count in section.items()]
        console.print("\n".join([f"reports: {summary.reports}", *lines]), highlight=False, soft_wrap=True)
    if summary.failed_answers:
        console.print(
            f"{summary.failed_answers} answers could not be read; see results.jsonl", highlight=False, soft_wrap=True
        )
    if not summary.run["plan"]["validated"]:
        console.print(
            "This plan has no validation record for this model: every result is marked, treat it as unproven.",
            soft_wrap=True,
        )
    console.print(f"results: {escape(str(out))}", highlight=False, soft_wrap=True)
    console.print(DISCLAIMER, highlight=False, soft_wrap=True)


def _counts(summary: RunSummary) -> list[dict[str, int]]:
    """What is counted, in sections: outcomes and open ones, failures if there are any, review."""
    opened = {"open (several outcomes possible)": summary.statuses[ReportStatus.OPEN]}
    failed = {name.value: summary.statuses[name] for name in (ReportStatus.EMPTY, ReportStatus.FAILED)}
    sections = [{**summary.outcomes, **opened}, {"for review by a person": summary.review}]
    return [sections[0], failed, sections[1]] if summary.failed_reports else sections


def _table(reports: int, sections: list[dict[str, int]]) -> Table:
    table = Table(title=f"{reports} reports", title_justify="left")
    table.add_column("outcome")
    table.add_column("reports", justify="right")
    for section in sections:
        for name, count in section.items():
            table.add_row(name, str(count))
        table.add_section()
    return table
