"""Where the time of a staged report goes: the shares of llama.cpp, of the engine around it, and of everything else.

    python benchmarks/speed/where_time_goes.py [--reports 60] [--threads 2] [--context full|focused]
        --out benchmarks/speed/where_time_goes

Stages reports of the development split into files, as `medorchestra stage` does, with the model opened and one report
read before, and samples the stack meanwhile (`local/profiling.py`). A sample counts for the innermost function that a
part claims. The sampler makes Python's share look larger than it is (see there). Writes profile.speedscope.json (a
flame graph; no report text), where_time_goes.json and where_time_goes.md into `--out`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peers import machine

import medorchestra as mo
from medorchestra.local.batch import as_batch
from medorchestra.local.profiling import PROFILE_FILE, profiled
from medorchestra.local.scale_out import EngineChoice

TOPIC, SPLIT = "pancreatic_cancer", "development"
COMPUTES = "LlamaReader._compute"
PARTS: Mapping[str, tuple[str, ...]] = {
    "the engine around it: tokens, trees, logits": ("local/engine/", "/open_report.py"),
    "quotes for the answers": ("/evidence.py", "/excerpts.py", "/sentences.py", "/focus"),
    "language, scope": ("/scope.py", "py3langid/"),
    "decision: rules, probabilities, flags": ("/aggregator.py", "decision_diagram.py", "diagram_", "/rules.py"),
    "ledger": ("/ledger.py",),
    "result files": ("/results_files.py", "/result_table.py", "/trace.py", "pyarrow/"),
}
"""Part -> what stands in the file of a function that belongs to it."""
READING, ASKING, REST = "llama.cpp: the report", "llama.cpp: the questions", "the rest"
ORDER = (READING, ASKING, *PARTS, REST)


def part_of(stack: Iterable[tuple[str, str]]) -> str:
    """The part that a sample counts for.

    Args:
        stack: (name, file) of every function, from the outside in.
    """
    frames = list(stack)
    names = [name for name, _ in frames]
    if COMPUTES in names:
        return ASKING if "LlamaReader.look_along" in names else READING
    for _, file in reversed(frames):
        for part, marks in PARTS.items():
            if any(mark in file for mark in marks):
                return part
    return REST


def seconds_by_part(profile: Mapping[str, Any]) -> dict[str, float]:
    """Part -> seconds, of a speedscope file; every part is there."""
    frames = [(frame["name"], frame["file"]) for frame in profile["shared"]["frames"]]
    found = dict.fromkeys(ORDER, 0.0)
    sampled = profile["profiles"][0]
    for stack, seconds in zip(sampled["samples"], sampled["weights"], strict=True):
        found[part_of(frames[number] for number in stack)] += seconds
    return found


def table_lines(told: Mapping[str, Any]) -> list[str]:
    """The text of where_time_goes.md."""
    parts, reports = told["seconds"], told["reports"]
    whole = sum(parts.values())
    return [
        f"# Where the time goes, {told['measured'][:10]}",
        "",
        f"`{told['command']}`",
        "",
        f"{reports} reports of the development split, {told['model']} with the shipped adapter, {told['threads']} "
        f"threads, context {told['context']}; {told['processor']}, {told['cores']} cores.",
        "",
        "| part | share | ms a report |",
        "| --- | --- | --- |",
        *(f"| {part} | {100 * parts[part] / whole:.1f} % | {1000 * parts[part] / reports:.1f} |" for part in ORDER),
        f"| all | 100 % | {1000 * whole / reports:.0f} |",
        "",
        _tokens(told),
    ]


def _tokens(told: Mapping[str, Any]) -> str:
    """Tokens, and what one costs; excerpts are read by several questions, so that no token of the text has one cost."""
    parts, reports = told["seconds"], told["reports"]
    text, others = told["tokens"]["report"], told["tokens"]["computed"] - told["tokens"]["report"]
    if told["context"] != "full" or not text or not others:
        return f"Tokens computed a report: {(text + others) / reports:.0f}; its text has {text / reports:.0f}."
    return (
        f"Tokens a report: {text / reports:.0f} of the text, {others / reports:.0f} of chat markup and the "
        f"{told['subtasks']} questions. llama.cpp takes {1000 * parts[READING] / text:.2f} ms for a token of the text, "
        f"and {1000 * parts[ASKING] / others:.2f} ms for one of the others."
    )


def measure(reports: int, threads: int, context: str | None, out: Path) -> dict[str, Any]:
    """Stage them with a profile; what it says. The profile stays in `out`."""
    plan = mo.read_plan(TOPIC)
    if context is not None:
        plan = plan.model_copy(update={"profile": plan.profile.model_copy(update={"context": context})})
    cases = random.Random(5).sample(list(mo.read_cases(TOPIC, SPLIT)), reports + 1)
    with closing(EngineChoice(threads=threads)(plan)) as engine, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, *others = [mo.Report(case.id, case.text) for case in cases]
        mo.stage_to_files(as_batch([first]), plan, folder / "warm_up", model=engine, unvalidated=True)
        out.mkdir(parents=True, exist_ok=True)
        with profiled(out):
            mo.stage_to_files(as_batch(others), plan, folder / "staged", model=engine, unvalidated=True)
        rows = (folder / "staged" / "results.jsonl").read_text(encoding="utf-8").splitlines()
        tokens = {
            "report": sum(engine.count_tokens(case.text) for case in cases[1:]),
            "computed": sum(json.loads(row)["tokens"] for row in rows),
        }
        model = engine.identity.name
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python benchmarks/speed/where_time_goes.py " + " ".join(sys.argv[1:]),
        "model": model,
        "threads": threads,
        "context": plan.profile.context,
        "reports": reports,
        "subtasks": len(plan.subtasks),
        "tokens": tokens,
        "seconds": seconds_by_part(json.loads((out / PROFILE_FILE).read_text(encoding="ascii"))),
        **machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--context", choices=["full", "focused"], help="what a question reads; default: as the plan says"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    told = measure(args.reports, args.threads, args.context, args.out)
    (args.out / "where_time_goes.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    text = "\n".join(table_lines(told))
    (args.out / "where_time_goes.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
