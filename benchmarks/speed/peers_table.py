"""What `peers.py` measured, as rows, as a table, and against its goals. Measures nothing."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from peer_task import PeerTask

from medorchestra.intervals import wilson_interval

FLOOR_OF = {"a": "e", "a_unfused": "e", "a_instructed": "e_instructed"}
OWN_PROMPTS = {"c", "f"}
"""Rows whose prompts are not those of (a): the unique tokens of (a) are no measure for them."""
COMPACT = {"a", "a_unfused", "b", "b_reuse", "d", "e"}
NAMES = {
    "a": "(a) medorchestra, adapter, compact questions",
    "a_unfused": "(a) the same, the adapter applied while reading",
    "a_instructed": "(a) medorchestra, bare model, instructed questions",
    "b": "(b) one chat completion for each finding, adapter, compact",
    "b_instructed": "(b) one chat completion for each finding, bare, instructed",
    "b_reuse": "(b) the same, adapter, with the library's reuse of the last prompt",
    "c": "(c) one chat completion for all findings, bare",
    "d": "(d) llama-server, 8 slots, 8 clients, adapter, compact",
    "d_instructed": "(d) llama-server, 8 slots, 8 clients, bare, instructed",
    "e": "(e) floor of (a) with adapter",
    "e_instructed": "(e) floor of (a), bare, instructed",
    "f": "(f) langextract with its llama.cpp provider, bare",
}


@dataclass
class Measured:
    """One row: length -> its rounds, as `peer_row.RoundResult` has them."""

    name: str
    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    peak_mb: float | None = None
    why_not: str | None = None
    versions: dict[str, str] = field(default_factory=dict)


def summary_rows(task: PeerTask, found: dict[str, Measured]) -> list[dict[str, Any]]:
    """A row for each way and length. Ratios are those of the same round, so that a slow moment hits both alike."""
    rows: list[dict[str, Any]] = []
    for length, reports in task.reports.items():
        for name, measured in found.items():
            row: dict[str, Any] = {"row": name, "length": length, "why_not": measured.why_not}
            rows.append(row | {"versions": measured.versions, "peak_mb": measured.peak_mb})
            rounds = measured.rounds.get(length, [])
            if not rounds:
                continue
            seconds = [one["seconds"] for one in rounds]
            form = "compact" if name in COMPACT else "instructed"
            unique = sum(task.unique_tokens(form, report) for report in reports)
            tokens = statistics.median(one["tokens"] for one in rounds)
            right, asked = _right(task, reports, rounds[0]["answers"])
            rows[-1] |= {
                "seconds_a_report": [one / len(reports) for one in seconds],
                "tokens_a_report": tokens / len(reports),
                "tokens_to_unique": None if name in OWN_PROMPTS else tokens / unique,
                "right": right if asked else None,
                "asked": asked,
                "times_a": _ratios(seconds, found.get("a"), length),
                "times_a_instructed": _ratios(seconds, found.get("a_instructed"), length),
                "times_floor": _ratios(seconds, found.get(FLOOR_OF.get(name, "")), length),
            }
    return rows


def _ratios(seconds: list[float], other: Measured | None, length: str) -> list[float] | None:
    """Seconds over those of another row, round by round; one of them may have failed at some round."""
    if other is None or length not in other.rounds:
        return None
    return [
        one / two["seconds"] for one, two in zip(seconds, other.rounds[length], strict=False)
    ]  # one may have failed


def _right(task: PeerTask, reports: list[Any], answers: dict[str, dict[str, str | None]]) -> tuple[int, int]:
    pairs = [
        (answers[report.id].get(finding), report.expected[finding])
        for report in reports
        if answers.get(report.id)
        for finding in task.findings
    ]
    return sum(said == expected for said, expected in pairs), len(pairs)


def spread(values: list[float] | None, digits: int = 2) -> str:
    """`median (lowest to highest)`."""
    if not values:
        return ""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def table_lines(task: PeerTask, rows: list[dict[str, Any]], about: dict[str, Any]) -> list[str]:
    """The table as Markdown."""
    lines = [
        f"# medorchestra beside its peers, {about['measured'][:10]}",
        "",
        f"`{about['command']}`",
        "",
        f"{about['reports']} reports for each length, {len(task.findings)} findings, {task.threads} threads, "
        f"{about['repeats']} rounds with the rows in an order drawn anew; {about['processor']}, {about['cores']} "
        "cores. Seconds and ratios: median (lowest to highest) of the rounds; ratios within a round. Reports are those "
        "of the calibration split: no adapter was trained on them, and they are too few to tell how well it reads.",
    ]
    for length, reports in task.reports.items():
        tokens = statistics.mean(len(report.tokens) for report in reports)
        added = sum(report.added for report in reports) / len(reports)
        lines += ["", f"## Reports of about {length} tokens", ""]
        lines += [f"{tokens:.0f} tokens on average, {added:.0f} of them harmless sentences added at the end.", ""]
        lines += [
            "| | seconds a report | times (a) | times (a) instructed | times its floor | tokens a report "
            "| of the unique ones | findings right | peak MB |",
            "| --- " * 9 + "|",
        ]
        lines += [_line(row) for row in rows if row["length"] == length]
    lines += ["", "## Goals", "", *(f"- {line}" for line in goal_lines(rows)), "", "## Versions", ""]
    versions = {name: version for row in rows for name, version in row["versions"].items()}
    lines += [f"- {name}: {version}" for name, version in (versions | {"python": about["python"]}).items()]
    return [*lines, f"- findings: {', '.join(task.findings)}"]


def _line(row: dict[str, Any]) -> str:
    name = NAMES[row["row"]]
    if row.get("why_not"):
        return f"| {name} | not measured: {row['why_not']} |" + " |" * 7
    interval = wilson_interval(row["right"], row["asked"]) if row["asked"] else None
    right = (
        ""
        if interval is None
        else f"{row['right']} of {row['asked']}, {100 * row['right'] / row['asked']:.0f} % "
        f"({100 * interval[0]:.0f}–{100 * interval[1]:.0f})"
    )
    cells = [
        name,
        spread(row["seconds_a_report"]),
        spread(row["times_a"], 1),
        spread(row["times_a_instructed"], 1),
        spread(row["times_floor"]),
        f"{row['tokens_a_report']:.0f}",
        "" if row["tokens_to_unique"] is None else f"{row['tokens_to_unique']:.2f}",
        right,
        f"{row['peak_mb']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def goal_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The issue's goals: reached or missed, at each length."""
    measured = {(row["row"], row["length"]): row for row in rows if row.get("seconds_a_report")}
    lines = []
    for length in dict.fromkeys(row["length"] for row in rows):
        own = measured.get(("a", length))
        if own is None:
            continue
        lines.append(_goal(f"{length}: tokens at most 1.05 times the unique ones", own["tokens_to_unique"], 1.05))
        if own["times_floor"]:
            lines.append(_goal(f"{length}: at most 1.25 times the floor", statistics.median(own["times_floor"]), 1.25))
        for name, least, goal in (("b", 12.0, "at least 12 times faster than (b)"), ("d", 1.0, "faster than (d)")):
            other = measured.get((name, length))
            if other is not None and other["times_a"] and (name != "b" or length == "600"):
                ratio = statistics.median(other["times_a"])
                lines.append(f"{length}: {goal}: {ratio:.1f}, {'reached' if ratio >= least else 'missed'}")
    return lines


def _goal(what: str, value: float, most: float) -> str:
    return f"{what}: {value:.2f}, {'reached' if value <= most else 'missed'}"
