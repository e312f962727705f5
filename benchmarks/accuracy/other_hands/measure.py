"""Measures the shipped plan, model and adapter on reports that other sessions wrote and labelled (see README.md).

    python benchmarks/accuracy/other_hands/measure.py [--plan NAME_OR_PATH] [--adapter auto|none|FILE] [--out FILE.md]

A report labelled `open` counts as right where the decision stays open. Intervals: 95 % Wilson.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import medorchestra as mo
from medorchestra.intervals import wilson_interval
from medorchestra.local.adapters import chosen_adapter
from medorchestra.plan_files import plan_path

HERE = Path(__file__).parent
OPEN = "open"


def share(hits: Iterable[bool]) -> str:
    """`12 of 36, 33 % (20–50)`."""
    counted = list(hits)
    interval = wilson_interval(sum(counted), len(counted))
    if interval is None:
        return "none"
    low, high = (f"{100 * bound:.0f}" for bound in interval)
    return f"{sum(counted)} of {len(counted)}, {100 * sum(counted) / len(counted):.0f} % ({low}–{high})"


def is_right(staged: mo.StagedReport, outcome: str) -> bool:
    """Whether the outcome is the labelled one."""
    if staged.decision is None:
        return False
    return staged.decision.outcome is None if outcome == OPEN else staged.decision.best_outcome == outcome


def read_right(staged: mo.StagedReport, finding: str, label: str) -> bool:
    """Whether a finding was read as labelled."""
    answer = staged.answer(finding)
    return (answer.value or answer.status.value) == label


def lines_of(labels: dict[str, dict[str, Any]], results: mo.Results) -> list[str]:
    """The table."""
    told = ["| reports | outcome right | sent to review | right among the others |", "| --- | --- | --- | --- |"]
    for form in ("free_text", "structured", "all"):
        chosen = [staged for staged in results if form in ("all", labels[staged.report_id]["form"])]
        hits = [(is_right(staged, labels[staged.report_id]["outcome"]), staged.review) for staged in chosen]
        told.append(
            f"| {form} | {share(hit for hit, _ in hits)} | {share(review for _, review in hits)} "
            f"| {share(hit for hit, review in hits if not review)} |"
        )
    most, _ = Counter(one["outcome"] for one in labels.values()).most_common(1)[0]
    told += ["", f"Always {most}: {share(one['outcome'] == most for one in labels.values())}.", ""]
    told += ["| finding | read right |", "| --- | --- |"]
    names = list(next(iter(labels.values()))["findings"])
    for name in names:
        told.append(
            f"| {name} | {share(read_right(s, name, labels[s.report_id]['findings'][name]) for s in results)} |"
        )
    confused = Counter(
        (label, "open" if staged.decision is None or staged.decision.outcome is None else staged.decision.best_outcome)
        for staged in results
        if not is_right(staged, label := labels[staged.report_id]["outcome"])
    )
    told += ["", "Wrong, label → decision: " + "; ".join(f"{a} → {b} {n}x" for (a, b), n in confused.most_common(10))]
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plan", default="pancreatic_cancer")
    parser.add_argument("--adapter", default="auto")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = (HERE / "reports.jsonl").read_text(encoding="utf-8").splitlines()
    labels = {one["id"]: one for one in map(json.loads, lines)}
    plan = mo.read_plan(args.plan)
    adapter = chosen_adapter(plan, "default", args.adapter, plan_path(args.plan))
    reports = [mo.Report(one["id"], one["text"]) for one in labels.values()]
    with mo.LlamaCppEngine("default", adapter=adapter) as engine:
        results = mo.stage(reports, plan, model=engine, unvalidated=True)
        digests = f"model {engine.identity.digest[:19]}, adapter {(engine.identity.adapter_digest or 'none')[:19]}"
    told = [
        f"# Reports by other hands, {datetime.now(UTC).date()}",
        "",
        f"Plan {plan.digest[:19]}, {digests}; `python benchmarks/accuracy/other_hands/measure.py`.",
        "",
        *lines_of(labels, results),
    ]
    print("\n".join(told))
    if args.out is not None:
        args.out.write_text("\n".join(told) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
