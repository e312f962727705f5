"""The sentences and figures of an evaluation's page: what was found, in words, before any table.

Says no more than the numbers: two runs that a test does not tell apart are not ranked. Knows no HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medorchestra.local.evaluation.error_anatomy import ErrorKind
from medorchestra.local.evaluation.evaluation import Evaluation, RunScores
from medorchestra.local.evaluation.measures import PairedDifference, Share

FEW_CASES = 100
"""With fewer cases an interval spans about 20 points, and the summary says so."""
NONE = "–"
"""Stands for a number that is not defined."""

KIND_TEXT = {
    ErrorKind.FINDING_MISREAD: "a finding was read with another value than it has",
    ErrorKind.FINDING_MISSED: "a finding that the report states was read as not stated",
    ErrorKind.FINDING_INVENTED: "a finding on which the report is silent was given a value",
    ErrorKind.FINDING_UNSURE: "a finding was read right, but too unsurely",
    ErrorKind.UNREADABLE: "no answer could be read",
    ErrorKind.SYNTHESIS: "the answers would decide rightly by the rules, but something else decided",
    ErrorKind.WRONG_EXAM: "the report does not look like one that the plan is for",
    ErrorKind.RULE_GAP: "even on the labelled findings the rules come to another outcome",
    ErrorKind.NO_LABELS: "what would explain it is not labelled",
    ErrorKind.EVIDENCE_WRONG: "right, but no place in the report is shown for a value",
}
"""Kinds of error in words."""


def percent(share: float | None) -> str:
    """A share as a percentage, without rounding up to certainty or down to never."""
    if share is None:
        return NONE
    if 0.9995 <= share < 1:
        return ">99.9 %"
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def interval_text(low: float | None, high: float | None) -> str:
    """The bounds of a share."""
    return NONE if low is None or high is None else f"{percent(low)} to {percent(high)}"


def share_text(share: Share) -> str:
    """Right ones of all, their share and its interval."""
    if share.value is None:
        return "none counted"
    interval = interval_text(share.low, share.high)
    return f"{share.correct} of {share.n}, {percent(share.value)} (95 % interval {interval})"


def points(difference: float | None) -> str:
    """A difference of two shares in percentage points, with its sign."""
    if difference is None:
        return NONE
    shown = f"{100 * difference:+.1f}"
    return "0" if shown in ("+0.0", "-0.0") else shown.replace("-", "−")


def points_interval(bounds: tuple[float | None, float | None] | None) -> str:
    """The bounds of a difference in percentage points."""
    if bounds is None or bounds[0] is None or bounds[1] is None:
        return NONE
    return f"{points(bounds[0])} to {points(bounds[1])}"


def p_text(p_value: float | None) -> str:
    """A p-value, without claiming 0."""
    if p_value is None:
        return NONE
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 1 else "1"


def number(value: float | None) -> str:
    """A measure between -1 and 2, three decimals."""
    return NONE if value is None else f"{value:.3f}".replace("-", "−")


def best_run(evaluation: Evaluation) -> RunScores | None:
    """The run with the highest accuracy, the first of several; None where none could be measured."""
    measured = [run for run in evaluation.runs if run.outcome.accuracy.value is not None]
    return max(measured, key=lambda run: run.outcome.accuracy.value or 0.0, default=None)


def summary_of(evaluation: Evaluation) -> list[str]:
    """What was found, in sentences: the set, the best run and how it stands against the others, review, causes."""
    found = [_set_text(evaluation)]
    best = best_run(evaluation)
    if best is None:
        return [*found, "No run could be measured: there is no case with a single true outcome."]
    found.append(_best_text(evaluation, best))
    found += _beside_text(evaluation, best)
    if best.reviewed is not None and best.unreviewed is not None and best.reviewed.n:
        kept = (
            "every decision goes to a person" if not best.unreviewed.n else f"of the others {_right(best.unreviewed)}"
        )
        found.append(f"{best.name} sends {best.reviewed.correct} of {best.reviewed.n} reports to a person; {kept}.")
    if best.open_cases.n:
        found.append(
            f"Of the {_reports(best.open_cases.n)} that leave several outcomes possible, {best.name} left "
            f"{best.open_cases.correct} open."
        )
    if best.failed:
        found.append(f"{best.name} came to no decision on {_reports(best.failed)}; each counts as wrong.")
    if best.anatomy is not None and best.anatomy.wrong:
        found.append(f"{best.name}: {best.anatomy.conclusion}")
    return found


def _set_text(evaluation: Evaluation) -> str:
    facts = evaluation.labelled
    text = f"{_reports(int(facts['cases']))} with labels: {facts['decided']} with a single true outcome"
    text += f", {facts['open']} that leave several possible." if facts["open"] else "."
    if unlabelled := int(facts["unlabelled"]):
        text += f" {_reports(unlabelled)} without a label {'was' if unlabelled == 1 else 'were'} left out."
    return text


def _best_text(evaluation: Evaluation, best: RunScores) -> str:
    accuracy = best.outcome.accuracy
    several = len(evaluation.runs) > 1
    text = f"{f'Best of {len(evaluation.runs)} runs: ' if several else ''}{best.name}, right on {share_text(accuracy)}."
    if several:
        text += " The best of several, picked on the cases it is measured on, looks a little better than it is."
    if accuracy.n < FEW_CASES:
        text += f" {accuracy.n} cases are few: look at the interval, not at the share."
    return text


def _beside_text(evaluation: Evaluation, best: RunScores) -> Iterator[str]:
    """How the best run stands against every other run and reader, as far as it was compared; those against whom it
    stands alike share a sentence."""
    alike: dict[tuple[int, int, int], list[tuple[str, PairedDifference]]] = {}
    for comparison in evaluation.comparisons:
        if best.name in (comparison.before, comparison.after):
            second = comparison.after == best.name
            other, found = comparison.before if second else comparison.after, comparison.difference
            gained, lost = (found.gained, found.lost) if second else (found.lost, found.gained)
            alike.setdefault((found.n, gained, lost), []).append((other, found))
    for (cases, gained, lost), others in alike.items():
        names = [other for other, _ in others]
        yield _comparison_text(best.name, names, others[0][1], gained, lost) if cases else _no_case_text(names)


def _no_case_text(others: Sequence[str]) -> str:
    return f"Against {_listed(others)} there is no case to compare on."


def _comparison_text(best: str, others: Sequence[str], found: PairedDifference, gained: int, lost: int) -> str:
    each = others[0] if len(others) == 1 else "each of them"
    return (
        f"Against {_listed(others)}, on the same {found.n} cases: {gained} right only by {best}, {lost} right only by "
        f"{each} (p\N{NO-BREAK SPACE}{_p_sign(found)}); {_verdict(best, each, gained, lost, found)}."
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _p_sign(found: PairedDifference) -> str:
    shown = p_text(found.p_value)
    return shown.replace("<", "<\N{NO-BREAK SPACE}") if shown.startswith("<") else f"=\N{NO-BREAK SPACE}{shown}"


def _verdict(best: str, other: str, gained: int, lost: int, found: PairedDifference) -> str:
    if found.p_value is None or found.p_value >= 0.05:
        return "these cases do not tell the two apart"
    return f"{best if gained > lost else other} is better on such cases"


def _right(share: Share) -> str:
    return f"{_right_of(share)} are right"


def _right_of(share: Share) -> str:
    return f"{share.correct} of {share.n} ({percent(share.value)})"


def _reports(count: int) -> str:
    return "1 report" if count == 1 else f"{count} reports"
