"""Counts the synthetic cases of a topic and writes the tables into its README, between the two `counts` marks.

python benchmarks/accuracy/count_cases.py pancreatic_cancer [--check]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import medorchestra as mo
from medorchestra.synthetic import SPLITS, SyntheticCase
from medorchestra.topics import cases_folder

BEGIN, END = "<!-- counts -->", "<!-- end of counts -->"
Row = tuple[str, Callable[[SyntheticCase], bool]]


def table(head: str, rows: Iterable[Row], cases: Sequence[SyntheticCase]) -> str:
    """A row for each kind of case, a column for each split."""
    lines = ["| " + " | ".join([head, *SPLITS, "all"]) + " |", "| --- |" + " ---: |" * (len(SPLITS) + 1)]
    for name, holds in rows:
        counts = [sum(case.split == split and holds(case) for case in cases) for split in SPLITS]
        lines.append("| " + " | ".join([name, *map(str, counts), str(sum(counts))]) + " |")
    return "\n".join(lines)


def counts(topic: str) -> str:
    """All tables of a topic."""
    plan, cases = mo.read_plan(topic), mo.read_cases(topic)
    made: list[Row] = [
        (f"{maker}, {form.replace('_', ' ')}", lambda case, k=(maker, form): (case.provenance, case.form) == k)
        for maker in ("hand", "planner")
        for form in ("free_text", "structured")
    ]
    outcomes: list[Row] = [(f"`{o.name}`", lambda case, o=o.name: case.outcome == o) for o in plan.outcomes]
    rules: list[Row] = [(f"`{r.id}`", lambda case, r=r.id: case.rule == r) for r in plan.rules]
    unknown: Row = ("open, or not of one rule", lambda case: case.rule is None)
    return "\n\n".join(
        [
            table("made by", [*made, ("**all**", lambda _: True)], cases),
            table("outcome", [*outcomes, ("open", lambda case: case.outcome is None)], cases),
            table("rule that decides", [*rules, unknown], cases),
        ]
    )


def with_counts(readme: str, tables: str) -> str:
    """The README with these tables between its marks (ValueError where a mark is missing)."""
    before, _, rest = readme.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"the README needs the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topic")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the tables are out of date")
    args = parser.parse_args()
    path: Path = cases_folder(args.topic) / "README.md"
    before = path.read_text(encoding="utf-8")
    after = with_counts(before, counts(args.topic))
    if args.check:
        sys.exit(before != after)
    path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
