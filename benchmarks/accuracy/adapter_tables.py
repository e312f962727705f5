"""The tables of `adapter.py`, in Markdown. Pure; counts nothing itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from adapter_measures import (
    FORMS,
    OUTCOME,
    SEEN,
    Confusion,
    Reader,
    Share,
    TrainedStyles,
    confusions,
    error_and_brier,
    findings_share,
    most_frequent,
    of_form,
    outcome_confusions,
    outcome_share,
    part_of,
    review_share,
    scored_finding,
    scored_outcome,
    share_of,
    unreviewed_share,
)

from medorchestra.plan import Finding, Plan
from medorchestra.rehearsal_scores import PairedComparison, compare_finding, compare_outcome
from medorchestra.synthetic import SyntheticCase

MOST_CONFUSIONS = 25
"""Confusions of findings that are listed."""


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table."""
    return [
        f"| {' | '.join(head)} |",
        f"| {' | '.join(['---'] * len(head))} |",
        *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows),
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def paired(comparison: PairedComparison) -> str:
    """Gains, losses and the p value of a paired comparison."""
    p = comparison.p_value
    told = "< 0.001" if p < 0.001 else f"{p:.3f}"
    return f"+{comparison.gained} −{comparison.lost}, p {told}"


def decimal(number: float | None) -> str:
    """Three decimals, or `none`."""
    return "none" if number is None else f"{number:.3f}"


# ------------------------------------------------------------------------------------------------ (a) right or wrong


def outcome_table(tuned: Reader, bare: Sequence[Reader]) -> list[str]:
    """The outcome by form: a constant answer, the base, base + adapter, and what the adapter gains, pair by pair."""
    rows = []
    for form in FORMS:
        scores = of_form(tuned.scores, form)
        value, frequent = most_frequent(reading.case.outcome or "" for reading in scores.decided)
        rows.append(
            [
                form.replace("_", " "),
                f"{len(scores.decided)} of {len(scores.readings)}",
                _constant(value, frequent),
                *(str(outcome_share(of_form(one.scores, form))) for one in bare),
                str(outcome_share(scores)),
                *(paired(compare_outcome(of_form(one.scores, form), scores)) for one in bare),
            ]
        )
    return markdown(_head(["reports", "n"], tuned, bare), rows)


def finding_table(plan: Plan, tuned: Reader, bare: Sequence[Reader]) -> list[str]:
    """Every finding, as in `outcome_table`; and all of them together."""
    rows = []
    for finding in plan.findings:
        value, frequent = most_frequent(reading.case.known()[finding.name] for reading in tuned.scores.readings)
        rows.append(
            [
                f"`{finding.name}`",
                _values(finding),
                _constant(value, frequent),
                *(str(_finding_share(one, finding.name)) for one in bare),
                str(_finding_share(tuned, finding.name)),
                *(paired(compare_finding(one.scores, tuned.scores, finding.name)) for one in bare),
            ]
        )
    names = [finding.name for finding in plan.findings]
    shares = [findings_share(one.scores, names) for one in (*bare, tuned)]
    # Answers to one report hang together: an interval that takes them as independent would be too narrow.
    rows.append(["**all findings**", "", "", *(percent(share) for share in shares), *("" for _ in bare)])
    return markdown(_head(["finding", "values"], tuned, bare), rows)


def _values(finding: Finding) -> str:
    return f"number ({finding.number.unit})" if finding.number is not None else str(len(finding.all_values))


def percent(share: Share) -> str:
    """A share without an interval, or `none`."""
    return f"{share.count} of {share.n}, {100 * share.count / share.n:.0f} %" if share.n else "none"


def _head(first: Sequence[str], tuned: Reader, bare: Sequence[Reader]) -> list[str]:
    gains = [f"adapter against {one.name}" for one in bare]
    return [*first, "most frequent value", *(one.name for one in bare), tuned.name, *gains]


def _constant(value: str | float | None, share: Share) -> str:
    return "none" if value is None else f"{share}: {value}"


def _finding_share(reader: Reader, name: str) -> Share:
    score = reader.scores.finding(name)
    return Share(score.correct, score.n)


# ------------------------------------------------------------------------------------------------ (b) selection


def selection_table(readers: Sequence[Reader]) -> list[str]:
    """What is sent to review, and how right the rest is, by form."""
    rows = []
    for reader in readers:
        for form in FORMS:
            scores, free = of_form(reader.scores, form), of_form(reader.unthresholded, form)
            rows.append(
                [
                    reader.name,
                    form.replace("_", " "),
                    str(len(scores.readings)),
                    f"{reader.review_below:.2f}",
                    str(review_share(scores)),
                    percent(review_share(free)),
                    str(unreviewed_share(scores)),
                ]
            )
    head = ["reader", "reports", "n", "review below", "sent to review", "sent whatever the probability"]
    return markdown([*head, "right of the rest"], rows)


def reason_table(readers: Sequence[Reader]) -> list[str]:
    """Why reports go to review; one may go for several reasons."""
    kinds = sorted({kind for one in readers for kind in one.reasons}, key=lambda kind: -readers[0].reasons.get(kind, 0))
    total = [len(one.scores.readings) for one in readers]
    rows = [
        [kind, *(percent(Share(one.reasons.get(kind, 0), n)) for one, n in zip(readers, total, strict=True))]
        for kind in kinds
    ]
    return markdown(["reason", *(one.name for one in readers)], rows)


def style_table(tuned: Reader, findings: Sequence[str], trained: TrainedStyles) -> list[str]:
    """Accuracy by style, those that training has not seen first; styles of a single report in one row."""
    counted = Counter(reading.case.style for reading in tuned.scores.readings)
    rows = []
    for seen in SEEN:
        styles = sorted((s for s in counted if trained.seen(s) == seen), key=lambda style: (-counted[style], style))
        if not styles:
            continue
        rows.append(_part_row(f"**{seen}: all**", tuned, findings, styles))
        rows += [_part_row(f"{seen}: {style}", tuned, findings, [style]) for style in styles if counted[style] > 1]
        single = [style for style in styles if counted[style] == 1]
        if single:
            rows.append(_part_row(f"{seen}: {len(single)} styles of one report each", tuned, findings, single))
    return markdown(["style", *_PART_HEAD], rows)


_PART_HEAD = ["reports", "outcome right", "findings right", "sent to review", "right of the rest"]


def _part_row(name: str, tuned: Reader, findings: Sequence[str], styles: Sequence[str]) -> list[str]:
    chosen = set(styles)
    return [name, *_part(tuned, findings, lambda case: case.style in chosen)]


def _part(tuned: Reader, findings: Sequence[str], keep: Callable[[SyntheticCase], bool]) -> list[str]:
    scores = part_of(tuned.scores, keep)
    return [
        str(len(scores.readings)),
        str(outcome_share(scores)),
        percent(findings_share(scores, findings)),
        percent(review_share(scores)),
        str(unreviewed_share(scores)),
    ]


def provenance_table(tuned: Reader, findings: Sequence[str]) -> list[str]:
    """Accuracy by who wrote the report, and by form."""
    rows = []
    for maker in ("hand", "planner", "composed"):
        for form in FORMS:

            def keep(case: SyntheticCase, maker: str = maker, form: str = form) -> bool:
                return case.provenance == maker and form in (case.form, "all")

            if any(keep(reading.case) for reading in tuned.scores.readings):
                rows.append([f"{maker}, {form.replace('_', ' ')}", *_part(tuned, findings, keep)])
    return markdown(["written by", *_PART_HEAD], rows)


# ------------------------------------------------------------------------------------------------ (c) calibration


def calibration_table(plan: Plan, reader: Reader) -> list[str]:
    """Calibration error and Brier score, before and after the calibration, of every finding and the outcome."""
    raw = reader.uncalibrated or reader.scores
    after = reader.scores if reader.uncalibrated is not None else None
    temperatures = {} if reader.calibration is None else reader.calibration.temperatures
    rows = []
    for name in (OUTCOME, *(finding.name for finding in plan.findings)):
        n, error, brier = error_and_brier(scored_outcome(raw) if name == OUTCOME else scored_finding(raw, name))
        error_after = brier_after = None
        if after is not None:
            scored = scored_outcome(after) if name == OUTCOME else scored_finding(after, name)
            _, error_after, brier_after = error_and_brier(scored)
        temperature = f"{temperatures.get(name, 1.0):.2f}" if reader.calibration and name != OUTCOME else "none"
        numbers = [decimal(number) for number in (error, error_after, brier, brier_after)]
        rows.append([name if name == OUTCOME else f"`{name}`", str(n), temperature, *numbers])
    head = ["finding", "n", "temperature", "ECE as it comes", "ECE calibrated", "Brier as it comes", "Brier calibrated"]
    return markdown(head, rows)


# ------------------------------------------------------------------------------------------------ (d) confusions


def confusion_tables(tuned: Reader, findings: Sequence[str]) -> list[str]:
    """The most frequent wrong readings of findings, and every wrong outcome."""
    found = confusions(tuned.scores, findings)
    total = sum(one.count for one in found)
    shown = found[:MOST_CONFUSIONS]
    lines = [
        f"Findings: {total} wrong readings; the {len(shown)} most frequent kinds are "
        f"{percent(Share(sum(one.count for one in shown), total))} of them.",
        "",
        *markdown(["finding", "expected", "read as", "n"], map(_confusion_row, shown)),
        "",
        "Outcome:",
        "",
        *markdown(["", "expected", "read as", "n"], map(_confusion_row, outcome_confusions(tuned.scores))),
    ]
    wrong = Counter(_wrong_findings(tuned, findings))
    right_anyway = share_of(
        reading.is_outcome_right
        for reading in tuned.scores.decided
        if any(not reading.is_right(name) for name in findings)
    )
    told = ", ".join(f"{name} {count}" for name, count in wrong.most_common(8)) or "none"
    return [
        *lines,
        "",
        f"Right outcome although at least one finding was misread: {right_anyway}.",
        f"Findings misread most often in the reports with a wrong outcome: {told}.",
    ]


def _confusion_row(one: Confusion) -> list[str]:
    name = one.finding if one.finding == OUTCOME else f"`{one.finding}`"
    return [name, one.expected, one.read, f"{one.count} of {one.expected_n}"]


def _wrong_findings(tuned: Reader, findings: Sequence[str]) -> list[str]:
    return [
        name
        for reading in tuned.scores.decided
        if not reading.is_outcome_right
        for name in findings
        if not reading.is_right(name)
    ]
