"""What `reports_in_flight.py` measured, as tables. Pure."""

from __future__ import annotations

import statistics
from typing import Any

from peers_table import spread

PARTS = {"text": ("text",), "questions": ("questions",), "both": ("text", "questions")}


def gain(rounds: list[dict[str, float]], part: str) -> list[float]:
    """Seconds of one after the other over seconds together, round by round."""
    return [_sum(one, "alone", part) / _sum(one, "together", part) for one in rounds]


def rate(rounds: list[dict[str, float]], way: str, tokens: int) -> list[float]:
    """Tokens of reports a second, round by round."""
    return [tokens / one[f"{way}_text"] for one in rounds]


def _sum(one: dict[str, float], way: str, part: str) -> float:
    return sum(one[f"{way}_{name}"] for name in PARTS[part])


def table_lines(rows: list[dict[str, Any]], about: dict[str, Any]) -> list[str]:
    """The tables as Markdown."""
    tree = about["tree"]
    lines = [
        f"# Several reports in one batch, {about['measured'][:10]}",
        "",
        f"`{about['command']}`",
        "",
        f"{about['model']} with {about['adapter'] or 'no adapter'}, {tree['questions']} questions on each report "
        f"({sum(tree['tokens'])} tokens in {len(tree['tokens'])} tree(s), {sum(tree['branches'])} branches), head of "
        f"{tree['head']} tokens read once; batches of {about['batch_tokens']} tokens, {about['threads']} threads, "
        f"{about['repeats']} rounds; {about['processor']}, {about['cores']} cores. Ratios: seconds of one report after "
        "the other over seconds together, within a round; median (lowest to highest); above 1 is faster together.",
    ]
    for length in dict.fromkeys(row["length"] for row in rows):
        lines += ["", f"## Reports of about {length} tokens", ""]
        lines += [
            "| together | tokens | text, tokens a second, one by one | together | ratio | ratio, memory divided | "
            "questions, ratio | text and questions, ratio | memory of the context MB | peak MB |",
            "| --- " * 10 + "|",
        ]
        lines += [_line(row) for row in rows if row["length"] == length]
    lines += ["", "## What moves", ""]
    lines += [f"- {_moved(row)}" for row in rows]
    lines += [
        "",
        "| length | together | the report stands | beside it | same bits as before | largest difference of a logit |",
        "| --- " * 6 + "|",
    ]
    lines += [_neighbours(row, one) for row in rows for one in row.get("neighbours", [])]
    return [*lines, "", *(f"- {line}" for line in conclusions(rows))]


def _line(row: dict[str, Any]) -> str:
    cells = [
        str(row["together"]),
        str(row["tokens"]),
        spread(rate(row["unified"], "alone", row["tokens"]), 0),
        spread(rate(row["unified"], "together", row["tokens"]), 0),
        spread(gain(row["unified"], "text")),
        spread(gain(row["divided"], "text")),
        spread(gain(row["unified"], "questions")),
        spread(gain(row["unified"], "both")),
        f"{row['memory_mb']:.0f}",
        f"{row['peak_mb']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _moved(row: dict[str, Any]) -> str:
    moved = row["moved"]
    return (
        f"{row['length']} tokens, {row['together']} together: {moved['changed']} of {moved['answers']} answers other "
        f"than one by one, largest difference of a probability {moved['largest']:.4f}"
    )


def _neighbours(row: dict[str, Any], one: dict[str, Any]) -> str:
    where = "first" if one["first"] else "last"
    same = "yes" if one["same"] else "no"
    return f"| {row['length']} | {row['together']} | {where} | {one['beside']} | {same} | {one['largest']:.4f} |"


def conclusions(rows: list[dict[str, Any]]) -> list[str]:
    """What the numbers say, in a line for each length, and on bits."""
    lines = []
    for length in dict.fromkeys(row["length"] for row in rows):
        several = [row for row in rows if row["length"] == length and row["together"] > 1]
        if several:
            best = max(several, key=lambda row: statistics.median(gain(row["unified"], "both")))
            ratio = statistics.median(gain(best["unified"], "both"))
            lines.append(
                f"{length} tokens: at best {ratio:.2f} times as fast for text and questions, with {best['together']} "
                "of them together"
            )
    exchanged = [one for row in rows for one in row.get("neighbours", [])]
    changed = [one for one in exchanged if one["beside"] not in ("the same again", "nothing")]
    if changed:
        kept = sum(one["same"] for one in changed)
        lines.append(
            f"with other neighbours, the logits behind a report had the same bits in {kept} of {len(changed)} trials"
            + ("" if kept == len(changed) else ": a resumed run, with other neighbours, would not repeat itself")
        )
    return lines
