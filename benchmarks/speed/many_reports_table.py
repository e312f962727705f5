"""What `many_reports.py` measured: tables, its goals, and its memory as a picture. Pure but for the picture."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from many_reports_costs import growth
from peers_table import spread

MOST_GROWTH = 1.1
"""Memory in the last tenth of a run over that in its second tenth, at most."""


def table_lines(told: dict[str, Any]) -> list[str]:
    """All tables as Markdown."""
    about = told["about"]
    return [
        f"# Many reports, {about['measured'][:10]}",
        "",
        *(f"`{command}`" for command in told["commands"]),
        "",
        f"A scripted reader in place of the model; {about['processor']}, {about['cores']} cores, "
        f"Python {about['python']}.",
        *_run_lines(told["runs"], told.get("look_ups") or {}),
        *(_look_up_lines(told["look_ups"], told) if told.get("look_ups") else []),
        *(_million_lines(told) if "million" in told else []),
    ]


def _run_lines(runs: dict[str, Any], look_ups: dict[str, Any]) -> list[str]:
    if not runs:
        return []
    lines = [
        "",
        "## Runs",
        "",
        "| reports | reports a second | workers, ms a report | writing, ms a report | memory MB: before, second tenth, "
        "last tenth, most | late by early | gather s | resume s | asked again | ledger MB | results MB |",
        "| --- " * 11 + "|",
    ]
    lines += [_run_line(run) for run in runs.values()]

    def known(run: dict[str, Any]) -> str:
        """After how long a resume knows what is finished: one look-up for each report, in the largest ledger."""
        if not look_ups:
            return ""
        microseconds = statistics.median(look_ups[max(look_ups, key=int)]["there"])
        told = f"{run['reports'] * microseconds / 1e6:.1f} s"
        return f" (looking up what is finished takes about {told} of it; the rest decides anew and writes the files)"

    lines += [
        "",
        "Workers: beside the reader. Memory of one process that is writer and workers: ![memory](memory.svg)",
        "",
    ]
    for run in runs.values():
        ratio = run["memory_late_by_early"]
        if ratio is not None:
            reached = "reached" if ratio <= MOST_GROWTH else "missed"
            lines.append(f"- {run['reports']:,} reports: memory at most {MOST_GROWTH} times: {ratio:.3f}, {reached}")
        seconds = run["resume"]["seconds"]["all"]
        reached = "reached" if seconds < 60 else "missed"
        lines.append(f"- {run['reports']:,} reports: resume within a minute: {seconds:.1f} s, {reached}{known(run)}")
    return lines


def _run_line(run: dict[str, Any]) -> str:
    count, seconds = run["reports"], run["first_run"]["seconds"]
    curve = [(done, megabytes) for done, megabytes in run["first_run"]["memory_mb"]]
    early = [megabytes for done, megabytes in curve if 0.1 * count < done <= 0.2 * count]
    late = [megabytes for done, megabytes in curve if done > 0.9 * count]
    memory = [[curve[0][1]], early, late, [max(megabytes for _, megabytes in curve)]]
    ratio = run["memory_late_by_early"]
    cells = [
        f"{count:,}",
        f"{count / seconds['all']:.0f}",
        f"{1e3 * (seconds['workers'] - seconds['reader']) / count:.2f}",
        f"{1e3 * seconds['writing'] / count:.2f}",
        ", ".join(f"{statistics.mean(values):.0f}" if values else "–" for values in memory),
        "" if ratio is None else f"{ratio:.3f}",
        f"{run['gather']['seconds']:.1f}",
        f"{run['resume']['seconds']['all']:.1f}",
        str(run["resume"]["asked"]),
        f"{run['ledger_bytes'] / 1e6:.0f}",
        f"{sum(run['result_bytes'].values()) / 1e6:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _look_up_lines(found: dict[str, Any], told: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "## Look-ups",
        "",
        "Microseconds to find the answers to one report, or that there are none; medians, over several rounds with the "
        "ledgers in turn: median (lowest to highest).",
        "",
        "| rows of the ledger | reports in it | there | not there |",
        "| --- " * 4 + "|",
    ]
    for rows, one in found.items():
        there, absent = spread(one["there"], 0), spread(one["not_there"], 1)
        lines.append(f"| {int(rows):,} | {one['reports']:,} | {there} | {absent} |")
    sizes = sorted(map(int, found))
    if len(sizes) > 1:
        lines += ["", *(_growth_line(found, sizes, where, told) for where in ("there", "not_there"))]
    return lines


def _growth_line(found: dict[str, Any], sizes: list[int], where: str, told: dict[str, Any]) -> str:
    values = [statistics.median(found[str(size)][where]) for size in sizes]
    start, slope = growth(sizes, values)
    ratio, allowed = values[-1] / values[0], math.log(sizes[-1]) / math.log(sizes[0])
    subtasks = next((run["subtasks"] for run in told["runs"].values()), None)
    million = ""
    if subtasks:
        rows = 1_000_000 * subtasks
        million = f"; on that line {start + slope * math.log10(rows):.0f} µs at {rows:,} rows, a million reports"
    reached = "reached" if ratio <= allowed else "missed"
    return (
        f"- {where.replace('_', ' ')}: {slope:+.1f} µs for ten times the rows; the largest ledger takes {ratio:.2f} "
        f"times the smallest, the logarithm allows {allowed:.2f}: {reached}{million}"
    )


def _million_lines(told: dict[str, Any]) -> list[str]:
    million, model = told["million"], told["model"]
    costs = million["costs_of_a_report"]
    measured = f"{model['model']}, {model['threads']} thread(s) each"
    if model["tokens"]:
        measured += (
            f", {len(model['tokens'])} reports of {statistics.mean(model['tokens']):.0f} tokens computed on average"
        )
    lines = [
        "",
        f"## {million['reports']:,} reports",
        "",
        f"Costs of a report, measured on {costs['measured_on']:,} reports but for the model: "
        f"{statistics.mean(costs['model_seconds']):.2f} s in the model ({measured}), "
        f"{1e3 * costs['worker_seconds']:.2f} ms of a worker beside it, {1e3 * costs['writing_seconds']:.2f} ms of the "
        f"one process that writes, {1e3 * costs['gather_seconds']:.2f} ms to gather, {costs['ledger_bytes']:.0f} bytes "
        f"of ledger, {costs['result_bytes']:.0f} bytes of results. Simulated, batch by batch:",
        "",
        "| workers | hours | days | workers busy | writer busy | of the workers' time in the model |",
        "| --- " * 6 + "|",
    ]
    for one in million["simulated"]:
        shares = " | ".join(f"{100 * one[name]:.1f} %" for name in ("workers_busy", "writer_busy", "model_share"))
        lines.append(f"| {one['workers']} | {one['hours']:.1f} | {one['hours'] / 24:.1f} | {shares} |")
    return [
        *lines,
        "",
        f"The writing process becomes the limit with more than {million['most_workers']:.0f} workers. Disk: "
        f"{million['ledger_gb']:.1f} GB of ledger, {million['results_gb']:.1f} GB of results. Gathering the ledger: "
        f"{million['gather_minutes']:.1f} minutes (in the hours above). A resume with everything finished: "
        f"{million['resume_minutes']:.1f} minutes in one process. Left out: loading the model, the scheduler's own "
        "work, failing machines, and that workers on one machine share its memory bandwidth.",
    ]


def draw(runs: dict[str, Any], path: Path) -> None:
    """Memory over reports done, a line for each number of reports; the resume dashed."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "memory"  # the same numbers, the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for number, run in enumerate(runs.values()):
        for part, style in (("first_run", "-"), ("resume", "--")):
            done, megabytes = zip(*run[part]["memory_mb"], strict=True)
            label = f"{run['reports']:,} reports, {part.replace('_', ' ')}"
            shares = [100 * one / run["reports"] for one in done]
            axes.plot(shares, megabytes, style, color=f"C{number}", label=label)
    axes.set_xlabel("% of the reports done")
    axes.set_ylabel("memory of the process (MB)")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
