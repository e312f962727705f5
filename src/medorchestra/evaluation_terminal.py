"""What a terminal shows while strategies are measured, and afterwards. Names, counts and shares, no texts."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console

from medorchestra.local.evaluation.error_anatomy import ErrorAnatomy
from medorchestra.local.evaluation.evaluation import Comparison, Evaluation, RunScores
from medorchestra.local.evaluation.measures import PairedDifference, Share
from medorchestra.local.evaluation.predictions import Prediction
from medorchestra.local.evaluation.requalifying import Requalification
from medorchestra.plan_terminal import Told

MOST_COMPARISONS = 10
"""With more of them, those of the judged run alone are shown."""

MOST_COSTLY = 5
"""Findings that are named as costing most decisions."""


class EvaluationDisplay(Told):
    """Shows how far an evaluation is; give `advance` to `evaluate`.

    Args:
        cases: reports that every run reads.
    """

    def __init__(self, cases: int, *, quiet: bool, console: Console | None = None) -> None:
        super().__init__(quiet=quiet, console=console)
        self._cases, self._run, self._done, self._started = cases, "", 0, time.perf_counter()

    def advance(self, run: str, _: Prediction) -> None:
        """One report was read in one run."""
        if run != self._run or self._done == self._cases:
            self._run, self._done, self._started = run, 0, time.perf_counter()
        self._done += 1
        line = f"{run}: {self._done}/{self._cases} reports"
        if 1 < self._done < self._cases:  # counted from the end of the first report: before it the model is loaded
            seconds = (time.perf_counter() - self._started) / (self._done - 1) * (self._cases - self._done)
            line += f", about {seconds / 60:.0f} min left"
        self.say(line, lasting=self._done == self._cases)


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """What an evaluation came to: runs, readers, differences, and what the errors of the judged run are made of."""
    counts = evaluation.labelled
    lines = [
        f"{counts['cases']} labelled reports, {counts['decided']} with one true outcome, {counts['open']} open, "
        f"{counts['unlabelled']} without a label"
    ]
    for run in evaluation.runs:
        lines.append(_run_line(run))
    lines += [f"reader {one.name}: right {share_text(one.outcome.accuracy)}" for one in evaluation.readers]
    lines += _comparison_lines(evaluation)
    if evaluation.runs and evaluation.judged.anatomy is not None:
        lines += _anatomy_lines(evaluation.judged.name, evaluation.judged.anatomy)
    return lines


def requalification_lines(name: str, judged: Requalification) -> list[str]:
    """A verdict and what it rests on."""
    lines = [
        f"{name}: {judged.verdict}",
        f"  in use: right {share_text(judged.old)}; new: right {share_text(judged.new)}",
        f"  new less old: {_difference_text(judged.difference)}"
        + ("" if judged.low is None else f", score interval {100 * judged.low:.1f} to {100 * (judged.high or 0):.1f}")
        + f"; accepted from above {-100 * judged.margin:.1f}",
    ]
    if judged.needed is not None:
        lines.append(f"  about {judged.needed} cases would tell")
    worse = [(key, one) for key, one in judged.findings.items() if one.lost > one.gained]
    worse.sort(key=lambda pair: pair[1].gained - pair[1].lost)
    lines += [f"  {key}: {one.lost} read worse, {one.gained} better" for key, one in worse[:MOST_COSTLY]]
    return lines


def share_text(share: Share) -> str:
    """`116 of 160, 72 % (65 to 79)`."""
    if share.value is None:
        return "no cases"
    return (
        f"{share.correct} of {share.n}, {100 * share.value:.0f} % "
        f"({100 * (share.low or 0):.0f} to {100 * (share.high or 0):.0f})"
    )


def _run_line(run: RunScores) -> str:
    line = f"{run.name}: right {share_text(run.outcome.accuracy)}"
    if run.unreviewed is not None and run.reviewed is not None:
        line += f"; sent to a person {share_text(run.reviewed)}; right among the others {share_text(run.unreviewed)}"
    if run.open_cases.n:
        line += f"; open cases left open {run.open_cases.correct} of {run.open_cases.n}"
    if run.failed:
        line += f"; {run.failed} without an outcome"
    return line


def _comparison_lines(evaluation: Evaluation) -> Iterable[str]:
    """All of them where they are few, else those of the judged run."""
    shown = evaluation.comparisons
    if len(shown) > MOST_COMPARISONS:
        shown = tuple(one for one in shown if evaluation.judged.name in (one.before, one.after))
    yield from map(_comparison_line, shown)
    if more := len(evaluation.comparisons) - len(shown):
        yield f"{more} comparisons of other runs: in report.html and evaluation.json"


def _comparison_line(one: Comparison) -> str:
    return f"{one.after} less {one.before}: {_difference_text(one.difference)}"


def _difference_text(difference: PairedDifference) -> str:
    if difference.difference is None:
        return "no cases"
    text = f"{100 * difference.difference:+.1f} points over {difference.n} cases"
    if difference.low is not None and difference.high is not None:
        text += f" ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    return f"{text}, {difference.gained} gained, {difference.lost} lost, p = {_p_text(difference.p_value)}"


def _p_text(value: float | None) -> str:
    if value is None:
        return "not defined"
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _anatomy_lines(name: str, anatomy: ErrorAnatomy) -> Iterable[str]:
    kinds = ", ".join(f"{count} {kind.value.replace('_', ' ')}" for kind, count in anatomy.kinds.items() if count)
    yield f"wrong decisions of {name}: {anatomy.wrong} of {anatomy.n}" + (f": {kinds}" if kinds else "")
    yield anatomy.conclusion
    costly = [one for one in anatomy.costs if one.costs][:MOST_COSTLY]
    if costly:
        yield "costs most decisions: " + ", ".join(f"{one.finding} {one.costs}" for one in costly)
