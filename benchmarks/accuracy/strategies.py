"""The MedOrchestra paper's comparison (arXiv 2505.23806) on held-out synthetic cases: all strategies, with and without
the adapter, same model, same reports.

    python benchmarks/accuracy/strategies.py [--topic pancreatic_cancer] [--model default|FILE.gguf]
        [--adapter auto|none|FILE] [--cases 30] [--samples 3] [--out benchmarks/accuracy/strategies]

Takes as many held-out cases as wanted, by the digest of their ids (so that more cases are the same ones and others),
and writes results.md, report.html, evaluation.json and per_case.parquet into `--out`. What is finished is kept in
`--work` and not computed again. `--model` takes any GGUF, for a larger open model: nothing is trained for it, so give
`--adapter none`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

import medorchestra as mo
from medorchestra.evaluation_terminal import EvaluationDisplay, evaluation_lines, share_text
from medorchestra.local.evaluation.evaluation import Evaluation
from medorchestra.local.evaluation.strategies import STRATEGIES
from medorchestra.topics import cases_folder

ORDER = ("resectable", "borderline_resectable", "locally_advanced", "metastatic")
FILES = ("report.html", "evaluation.json", "per_case.parquet")


def some_cases(source: Path, number: int, to: Path) -> None:
    """Write some of the cases, as they stand, into a file of their own."""
    lines = [line for line in source.read_text(encoding="utf-8").split("\n") if line.strip()]
    lines.sort(key=lambda line: hashlib.sha256(json.loads(line)["id"].encode()).hexdigest())
    to.write_text("\n".join(lines[:number]) + "\n", encoding="utf-8")


def results_text(evaluation: Evaluation, command: str) -> str:
    """The table of strategies, and what the terminal tells."""
    rows = [
        "| strategy | outcome right | free text | structured | sent to a person | seconds a report |",
        "| --- " * 6 + "|",
    ]
    for run in evaluation.runs:
        forms = run.groups.get("form", {})
        cells = [share_text(forms[form]) if form in forms else "none" for form in ("free_text", "structured")]
        reviewed = "does not ask" if run.reviewed is None else share_text(run.reviewed)
        seconds = run.seconds / int(evaluation.labelled["cases"])
        right = share_text(run.outcome.accuracy)
        rows.append(f"| {run.name} | {right} | {cells[0]} | {cells[1]} | {reviewed} | {seconds:.1f} |")
    told = [f"- {line}" for line in evaluation_lines(evaluation)]
    about = [f"- {key}: {value}" for key, value in evaluation.about["versions"].items()]
    for one in evaluation.about["models"]:
        adapter = "no adapter" if one["adapter"] is None else f"adapter {one['adapter_digest'][:19]}"
        about.append(f"- {one['model']} {one['model_digest'][:19]}, {adapter}, {one['prompt_form']} questions")
    head = f"# Strategies side by side, {evaluation.made_on.isoformat()}\n\n`{command}`\n\nIntervals: 95 % Wilson."
    return "\n".join([head, "", *rows, "", "## In words", "", *told, "", "## What was run", "", *about, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topic", default="pancreatic_cancer")
    parser.add_argument("--model", default="default")
    parser.add_argument("--adapter", default="auto")
    parser.add_argument("--cases", type=int, default=30)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/accuracy/strategies/.work"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/accuracy/strategies"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    labelled = options.work / "held_out.jsonl"
    some_cases(cases_folder(options.topic) / "held_out.jsonl", options.cases, labelled)
    with EvaluationDisplay(options.cases, quiet=False) as display:
        evaluation = mo.evaluate(
            labelled,
            options.topic,
            model=options.model,
            adapter=options.adapter,
            settings=mo.EvaluationSettings(
                strategies=tuple(options.strategies.split(",")), samples=options.samples, order=ORDER
            ),
            columns=mo.LabelColumns(groups=("form",)),
            out=options.work,
            progress=display.advance,
        )
    options.out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(options.work / name, options.out / name)
    command = " ".join(["python", *sys.argv])
    (options.out / "results.md").write_text(results_text(evaluation, command), encoding="utf-8")


if __name__ == "__main__":
    main()
