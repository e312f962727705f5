"""What `quantizations.py` measured, as a table: rates, ratios within a round, right readings, differences. Pure."""

from __future__ import annotations

import statistics
from typing import Any

from peers_table import spread
from quantization_row import BARE, DEFAULT

from medorchestra.intervals import wilson_interval
from medorchestra.rehearsal_scores import PairedComparison

NOTES = (
    "All files but the default's were made of the default's Q4_1 weights, so none is more exact than it: F16, BF16 and "
    "Q8_0 hold the same weights in a wider form, the others round them a second time. Made of the original weights, "
    "they could read better than here.",
    "The adapter was trained on the default file. Another base would get an adapter of its own, trained on it.",
    "Peak memory counts the mapped file and, where llama.cpp repacks weights for the processor, their copy.",
    "Read without calibration, which belongs to one file; the calibration split is what calibrations are fitted on and "
    "nothing else, so that shares here are those of a choice, not of a validation. Intervals take the answers to one "
    "report for independent, which they are not: they are too narrow.",
    "Gained: right in this row and wrong in the default's; lost: the reverse; in brackets behind them the p-value of "
    "McNemar's exact test.",
)


def rates(row: dict[str, Any]) -> list[float]:
    """Tokens a second, round by round."""
    return [one["tokens"] / one["seconds"] for one in row["rounds"]]


def ratios(row: dict[str, Any], other: dict[str, Any], what: str) -> list[float]:
    """How many times faster a row is than another, round by round: seconds of the other over its own."""
    pairs = zip(other["rounds"], row["rounds"], strict=True)
    return [theirs[what] / own[what] for theirs, own in pairs]


def changed(cases: dict[str, Any], reference: dict[str, Any]) -> dict[str, int]:
    """Answers other than the reference's; of these, right only here, and right only there."""
    found = {"asked": 0, "other": 0, "gained": 0, "lost": 0}
    for case_id, answers in cases["answers"].items():
        right, right_there = set(cases["right"][case_id]), set(reference["right"][case_id])
        found["asked"] += len(answers)
        found["other"] += sum(said != reference["answers"][case_id][finding] for finding, said in answers.items())
        found["gained"] += len(right - right_there)
        found["lost"] += len(right_there - right)
    return found


def share(right: int, n: int) -> str:
    """`right of n, share % (95 % interval)`."""
    interval = wilson_interval(right, n)
    if interval is None:
        return ""
    return f"{right} of {n}, {100 * right / n:.1f} % ({100 * interval[0]:.0f}–{100 * interval[1]:.0f})"


def table_lines(rows: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """The table as Markdown."""
    tokens = statistics.mean(about["reports"])
    adapter = about["adapter"] or "no adapter: none fits"
    lines = [
        f"# The default model in other quantizations, {about['measured'][:10]}",
        "",
        f"`{about['command']}`",
        "",
        f"{about['model']} with {adapter}; {len(about['reports'])} reports of {tokens:.0f} tokens on average "
        f"({statistics.mean(about['harmless_tokens']):.0f} of them harmless sentences added at the end), "
        f"{about['repeats']} rounds with the rows in an order drawn anew, {about['threads']} threads; "
        f"{about['processor']}, {about['cores']} cores; llama-cpp-python {about['llama_cpp']['version']} "
        f"({about['llama_cpp']['system']}). Rates and ratios: median (lowest to highest) of the rounds; ratios are "
        "the default's seconds over the row's in the same round, above 1 is faster.",
        "",
        "| | weights are | file MB | peak MB | report tokens a second | times the default's rate | whole report, times "
        "faster | findings right | answers other than the default's: gained, lost (p) | outcomes right |",
        "| --- " * 10 + "|",
    ]
    lines += [_line(name, row, rows[DEFAULT]) for name, row in rows.items()]
    return [*lines, "", *(f"- {note}" for note in NOTES), *_findings(rows)]


def _line(name: str, row: dict[str, Any], reference: dict[str, Any]) -> str:
    weights = ", ".join(f"{kind} {100 * part:.0f} %" for kind, part in row["weights"].items() if part >= 0.005)
    whole = "" if name.endswith(BARE) else spread(ratios(row, reference, "whole"))
    cells = [
        name.replace(BARE, ", without adapter"),
        weights,
        f"{row['file_mb']:.0f}",
        f"{row['peak_mb']:.0f}",
        spread(rates(row), 0),
        spread(ratios(row, reference, "seconds")),
        whole,
        *_reading(row.get("cases"), reference.get("cases")),
    ]
    return f"| {' | '.join(cells)} |"


def _reading(cases: dict[str, Any] | None, reference: dict[str, Any] | None) -> list[str]:
    if cases is None or reference is None:
        return ["", "", ""]
    told = changed(cases, reference)
    right = sum(map(len, cases["right"].values()))
    return [
        share(right, told["asked"]),
        f"{told['other']}: {told['gained']}, {told['lost']} ({_compared(told).p_value:.2f})",
        share(len(cases["outcomes_right"]), len(cases["outcomes"])),
    ]


def _compared(told: dict[str, int]) -> PairedComparison:
    return PairedComparison(gained=told["gained"], lost=told["lost"])


def _findings(rows: dict[str, Any]) -> list[str]:
    """Which row is fastest, and which of those that do not read worse."""
    with_adapter = {name: row for name, row in rows.items() if not name.endswith(BARE)}
    reference = rows[DEFAULT]
    speed = {name: statistics.median(ratios(row, reference, "whole")) for name, row in with_adapter.items()}
    fastest = max(speed, key=lambda name: speed[name])
    lines = ["", f"Fastest for whole reports: {fastest}, {speed[fastest]:.2f} times the default."]
    if "cases" in reference:
        told = {name: changed(row["cases"], reference["cases"]) for name, row in with_adapter.items()}
        kept = {name: speed[name] for name, one in told.items() if not _compared(one).loses}
        best = max(kept, key=lambda name: kept[name])
        lines.append(f"Fastest of those that lose no more readings than they gain: {best}, {kept[best]:.2f} times.")
    return lines
