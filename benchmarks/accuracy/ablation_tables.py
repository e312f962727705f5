"""The tables of `ablations.py`, in Markdown, from the rows of ablations.jsonl. Pure; knows no model and no report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from adapter_measures import FORMS, Share, share_of
from adapter_tables import markdown, paired, percent

from medorchestra.rehearsal_scores import PairedComparison

REFERENCE = "reference"
WITHOUT_STYLES = "without_shared_styles"
Row = dict[str, Any]
"""A measured setting, as it stands in ablations.jsonl."""


def outcome_of(row: Row, form: str = "all", style: str | None = None) -> Share:
    """Right outcomes of the cases of a form (and a style) whose expected outcome is certain."""
    wrong = set(row["wrong_outcomes"])
    return share_of(case not in wrong for case in _cases(row, form, style) if row["cases"][case]["decided"])


def findings_of(row: Row, style: str | None = None) -> Share:
    """Right readings over all findings."""
    chosen = set(_cases(row, "all", style))
    wrong = sum(len(chosen.intersection(ids)) for ids in row["wrong_findings"].values())
    n = len(chosen) * len(row["wrong_findings"])
    return Share(n - wrong, n)


def compared(before: Row, after: Row, style: str | None = None) -> PairedComparison | None:
    """The outcome of two settings, case by case; None where they were not measured on the same cases."""
    if before["cases"] != after["cases"]:
        return None
    decided = {case for case in _cases(before, "all", style) if before["cases"][case]["decided"]}
    old, new = decided.intersection(before["wrong_outcomes"]), decided.intersection(after["wrong_outcomes"])
    return PairedComparison(gained=len(old - new), lost=len(new - old))


def _cases(row: Row, form: str, style: str | None) -> list[str]:
    return [
        case
        for case, facts in row["cases"].items()
        if form in (facts["form"], "all") and style in (facts["style"], None)
    ]


def table_lines(rows: Sequence[Row]) -> list[str]:
    """The text of ablations.md."""
    reference = next((row for row in rows if row["name"] == REFERENCE), None)
    cases = len(rows[0]["cases"]) if rows else 0
    return [
        "# Ablations on the calibration split",
        "",
        f"`python benchmarks/accuracy/ablations.py`, {datetime.now(UTC):%Y-%m-%d}. Every setting differs from the",
        f"reference in one thing. {cases} cases that no setting was trained on, all written in full; held-out cases",
        "were not read. Intervals: 95 % Wilson; `+a −b`: outcomes that only this setting, or only the reference, has",
        "right; p: exact two-sided McNemar test, not corrected for the number of settings. One seed each: what lies",
        "within the intervals may be chance.",
        "",
        *_settings_table(rows, reference),
        "",
        "Styles left out: cases of the styles that both splits have, read with and without these styles in training.",
        "",
        *_styles_table(next((row for row in rows if row["name"] == WITHOUT_STYLES), None), reference),
        "",
        "Right readings by finding (%):",
        "",
        *_findings_table(rows),
    ]


def _settings_table(rows: Sequence[Row], reference: Row | None) -> list[str]:
    lines = []
    for row in rows:
        trained = ", ".join(f"{n} {kind}" for kind, n in row["trained_on"].items() if n)
        loss = "none" if row["last_loss"] is None else f"{row['last_loss']:.3f}"
        shares = [str(outcome_of(row, form)) for form in FORMS]
        against = "" if row is reference else _told(reference, row)
        minutes = f"{row['seconds'] / 60:.0f} ({row['device']})"
        lines.append([row["name"], row["differs"], trained, minutes, loss, percent(findings_of(row)), *shares, against])
    head = ["setting", "differs in", "trained on", "min", "last loss", "findings right"]
    return markdown([*head, *(f"outcome, {form.replace('_', ' ')}" for form in FORMS), "against the reference"], lines)


def _told(reference: Row | None, row: Row, style: str | None = None) -> str:
    comparison = None if reference is None else compared(reference, row, style)
    return "none" if comparison is None else paired(comparison)


def _styles_table(row: Row | None, reference: Row | None) -> list[str]:
    if row is None or reference is None:
        return ["none: not measured yet"]
    left_out = set(row["settings"]["data"]["without_styles"])
    lines = []
    sums = [Share(0, 0)] * 4
    gained = lost = 0
    for style in sorted({facts["style"] for facts in row["cases"].values()} & left_out):
        comparison = compared(reference, row, style)
        if comparison is None:
            return ["none: measured on other cases than the reference"]
        shares = [outcome_of(reference, style=style), outcome_of(row, style=style)]
        shares += [findings_of(reference, style), findings_of(row, style)]
        sums = [Share(a.count + b.count, a.n + b.n) for a, b in zip(sums, shares, strict=True)]
        gained, lost = gained + comparison.gained, lost + comparison.lost
        number = str(len(_cases(row, "all", style)))
        lines.append([style, number, *map(str, shares[:2]), *map(percent, shares[2:]), paired(comparison)])
    pooled = paired(PairedComparison(gained=gained, lost=lost))
    number = str(sum(int(line[1]) for line in lines))
    lines.append(["**all of these**", number, *map(str, sums[:2]), *map(percent, sums[2:]), pooled])
    head = ["style", "reports", "outcome, trained on it", "outcome, without it"]
    return markdown([*head, "findings, trained on it", "findings, without it", "without against with"], lines)


def _findings_table(rows: Sequence[Row]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row["wrong_findings"]))
    lines = []
    for name in names:
        cells = []
        for row in rows:
            n = len(row["cases"])
            wrong = row["wrong_findings"].get(name)
            cells.append("none" if wrong is None or not n else f"{100 * (n - len(wrong)) / n:.0f}")
        lines.append([f"`{name}`", *cells])
    return markdown(["finding", *(row["name"] for row in rows)], lines)
