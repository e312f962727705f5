"""Stages the synthetic cases of a topic and measures what was read and decided.

    python benchmarks/accuracy/synthetic_cases.py [--topic NAME] [--split SPLIT] [--model NAME] [--adapter FILE]
        [--out FILE.md]

Three readers see the same reports in the same run: the model; a perfect reader (`perfect_reader`: the expected
findings, so that only plan, rules and aggregator can err); and the most frequent value of each finding (which needs
no reading at all). Splits are kept apart. Intervals: 95 % Wilson.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import medorchestra as mo
from medorchestra.intervals import wilson_interval
from medorchestra.local.answers import AnswerStatus
from medorchestra.local.engine.protocol import Engine
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import SyntheticCase, cases_digest


@dataclass(frozen=True)
class Share:
    """How many were right, with the interval."""

    correct: int
    n: int

    def __str__(self) -> str:
        interval = wilson_interval(self.correct, self.n)
        if interval is None:
            return "–"
        return f"{100 * self.correct / self.n:.0f} % ({100 * interval[0]:.0f}–{100 * interval[1]:.0f})"


def share_of(hits: Iterable[bool]) -> Share:
    """Count hits."""
    counted = list(hits)
    return Share(sum(counted), len(counted))


def stage_cases(cases: Sequence[SyntheticCase], plan: mo.Plan, engine: Engine) -> mo.Results:
    """The cases as a hospital would stage reports."""
    reports = [mo.Report(case.id, case.text) for case in cases]
    return mo.stage(reports, plan, model=engine, unvalidated=True)


def read_right(staged: mo.StagedReport, finding: str, expected: str | float) -> bool:
    """Whether the reading of one finding is the expected one."""
    answer = staged.answer(finding)
    if answer.status is AnswerStatus.NOT_STATED:
        return expected == NOT_STATED
    if answer.status is not AnswerStatus.OK:
        return False
    if isinstance(expected, float | int):
        return isinstance(answer.value, float) and abs(answer.value - expected) < 0.051
    return answer.value == expected


def finding_lines(plan: mo.Plan, cases: Sequence[SyntheticCase], results: mo.Results) -> list[str]:
    """A row for every finding: the model against the most frequent value."""
    lines = ["| finding | values | model | most frequent value |", "| --- | --- | --- | --- |"]
    for finding in plan.findings:
        expected = [case.known()[finding.name] for case in cases]
        hits = share_of(
            read_right(staged, finding.name, value) for staged, value in zip(results, expected, strict=True)
        )
        common, count = Counter(expected).most_common(1)[0]
        kinds = len(finding.all_values) if finding.values else "number"
        lines.append(f"| {finding.name} | {kinds} | {hits} | {Share(count, len(expected))}: {common} |")
    return lines


def outcome_lines(cases: Sequence[SyntheticCase], results: mo.Results, perfect: mo.Results) -> list[str]:
    """Rows for the decisions, by form."""
    lines = [
        "| reports | n | best outcome, model | outcome, perfect reader | most frequent outcome | sent to review |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for form in ("free_text", "structured", "all"):
        chosen = [i for i, case in enumerate(cases) if form in (case.form, "all")]
        decided = [i for i in chosen if cases[i].outcome is not None]
        right = share_of(results[i].decision.best_outcome == cases[i].outcome for i in decided if results[i].decision)
        ideal = share_of(perfect[i].decision.outcome == cases[i].outcome for i in chosen if perfect[i].decision)
        common = Counter(cases[i].outcome for i in decided).most_common(1)[0]
        review = share_of(results[i].review for i in chosen)
        frequent = f"{Share(common[1], len(decided))}: {common[0]}"
        lines.append(f"| {form} | {len(decided)} of {len(chosen)} | {right} | {ideal} | {frequent} | {review} |")
    return lines


def chapter(split: str, plan: mo.Plan, engine: Engine) -> list[str]:
    """Everything measured on one split."""
    cases = mo.read_cases(plan.topic, split)  # type: ignore[arg-type]
    results = stage_cases(cases, plan, engine)
    perfect = stage_cases(cases, plan, mo.perfect_reader(plan, cases))
    digests = results.digests
    return [
        f"## {split}: {len(cases)} cases",
        "",
        f"Cases `{cases_digest(cases)[:23]}`, plan `{plan.digest[:23]}`, model `{(digests['model'] or '')[:23]}`, "
        f"adapter `{(digests['adapter'] or 'none')[:23]}`.",
        "",
        "Outcome, over the cases whose expected outcome is certain (first number) of all:",
        "",
        *outcome_lines(cases, results, perfect),
        "",
        "Findings:",
        "",
        *finding_lines(plan, cases, results),
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topic", default="pancreatic_cancer")
    parser.add_argument("--model", default="default")
    parser.add_argument("--adapter")
    parser.add_argument("--split", action="append", choices=["development", "held_out"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    plan = mo.read_plan(args.topic)
    lines = [
        "# Accuracy on the synthetic cases",
        "",
        f"`python benchmarks/accuracy/synthetic_cases.py {' '.join(sys.argv[1:])}`, "
        f"{datetime.now(UTC):%Y-%m-%d}, medorchestra {mo.__version__}, llama-cpp-python "
        f"{version('llama-cpp-python')}, Python {platform.python_version()}, {platform.machine()}.",
        "",
        "The planner chose questions and profile on development cases; held-out cases were only ever measured on. The",
        "model is used as it comes.",
        "",
    ]
    with mo.LlamaCppEngine(args.model, adapter=args.adapter) as engine:
        for split in args.split or ["development", "held_out"]:
            lines += chapter(split, plan, engine)
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
