"""The default model in other quantizations, with the project's adapter: how fast it reads, and whether as well.

    python benchmarks/speed/quantizations.py [--rows F16 BF16 Q8_0 Q4_0 IQ4_NL Q5_1 Q4_K_M Q6_K] [--bare] [--reports 3]
        [--repeats 5] [--cases 40] [--threads 2] --out benchmarks/speed/quantizations

The other files are made here of the one that is shipped (Q4_1), by llama.cpp itself, in seconds. They hold what Q4_1
has left of the weights: F16 and Q8_0 made so are no more exact than it, and the small ones round what was rounded
before. The adapter was trained on the file as shipped and is used with all of them unchanged, applied while reading.
Row `fused` is what the library does by default: one Q8_0 file of the shipped one and the adapter.

Every row is a process of its own, all of them open from the beginning. In each round every row reads the same reports
of about 600 tokens, in an order that is drawn anew; ratios are those within a round. Then each row, one after the
other, reads the same cases of the calibration split (a choice is not made on held-out cases), without calibration,
since that belongs to one file. `--bare` adds each row without the adapter, for its speed alone. Writes
quantizations.json and quantizations.md into `--out`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peer_task import PeerTask, make_task
from peers import machine
from quantization_row import (
    BARE,
    DEFAULT,
    FUSED,
    RowSettings,
    adapter_naming,
    kind_of,
    open_row,
    peak,
    quantize,
    read_cases,
    read_round,
    weight_types,
)
from quantization_table import table_lines

TOPIC, SPLIT = "pancreatic_cancer", "calibration"
KINDS = ("F16", "BF16", "Q8_0", "Q4_0", "IQ4_NL", "Q5_1", "Q4_K_M", "Q6_K")
CONTEXT_TOKENS = 2048


def files_of(task: PeerTask, kinds: list[str], folder: Path, *, bare: bool) -> dict[str, tuple[RowSettings, Any]]:
    """Make the files: row -> how it is opened, and what there is to say of its file."""
    made: dict[str, tuple[RowSettings, Any]] = {}
    fused = Path(task.fused)
    model, adapter = Path(task.model), None if task.adapter is None else Path(task.adapter)
    for kind in (DEFAULT, *kinds):
        path = model if kind == DEFAULT else quantize(model, kind, folder, task.threads)
        fitting = adapter if adapter is None or kind == DEFAULT else adapter_naming(adapter, path, folder)
        shown = {"file_mb": path.stat().st_size / 1e6, "weights": weight_types(path)}
        settings = RowSettings(
            kind, str(path), None if fitting is None else str(fitting), task.threads, task.context_tokens, TOPIC
        )
        made[kind] = settings, shown
        if kind == DEFAULT:
            shown_fused = {"file_mb": fused.stat().st_size / 1e6, "weights": weight_types(fused)}
            made[FUSED] = replace(settings, name=FUSED, fuse=True), shown_fused
        if bare:
            made[f"{kind}{BARE}"] = replace(settings, name=f"{kind}{BARE}", adapter=None), shown
    return made


def measure(task: PeerTask, rows: dict[str, tuple[RowSettings, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """All rows: rounds of reading, peak memory of that, then the cases."""
    found: dict[str, Any] = {name: {**shown, "rounds": []} for name, (_, shown) in rows.items()}
    texts = [report.text for report in task.reports[str(args.tokens)]]
    chance = random.Random(0)
    with ExitStack() as opened:
        running = {}
        for name, (settings, _) in rows.items():
            context = multiprocessing.get_context("spawn")
            running[name] = opened.enter_context(ProcessPoolExecutor(1, context, open_row, (settings,)))
        for repeat in range(args.repeats):
            order = list(running)
            chance.shuffle(order)
            for name in order:
                whole = not name.endswith(BARE)
                asked = running[name].submit(read_round, task.warm_up.text, texts, whole=whole)
                found[name]["rounds"].append(asked.result())
                print(f"round {repeat + 1} of {args.repeats}, {name}", file=sys.stderr)
        for name, process in running.items():
            found[name]["peak_mb"] = process.submit(peak).result()
        ids = chosen_cases(args.cases)
        for name in (name for name in running if args.cases and kind_of(name) == name):
            found[name]["cases"] = running[name].submit(read_cases, TOPIC, SPLIT, ids).result()
            print(f"{len(ids)} cases, {name}", file=sys.stderr)
    return found


def chosen_cases(most: int) -> list[str]:
    """Ids of cases of the calibration split, drawn once and for all."""
    import medorchestra as mo

    ids = sorted(case.id for case in mo.read_cases(TOPIC, SPLIT))  # type: ignore[arg-type]
    return random.Random(1).sample(ids, min(most, len(ids)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(KINDS), metavar="TYPE", help="types of weights")
    parser.add_argument("--bare", action="store_true", help="each row without the adapter as well")
    parser.add_argument("--reports", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=600, help="of a report")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", type=int, default=40, help="of the calibration split; 0: none")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    task = make_task(
        topic=TOPIC,
        split=SPLIT,
        lengths=[args.tokens],
        reports=args.reports,
        threads=args.threads,
        context_tokens=CONTEXT_TOKENS,
    )
    with tempfile.TemporaryDirectory(prefix="quantizations") as folder:
        rows = files_of(task, args.rows, Path(folder), bare=args.bare)
        found = measure(task, rows, args)
    about = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python benchmarks/speed/quantizations.py " + " ".join(sys.argv[1:]),
        "model": Path(task.model).name,
        "adapter": None if task.adapter is None else Path(task.adapter).name,
        "threads": args.threads,
        "reports": [len(report.tokens) for report in task.reports[str(args.tokens)]],
        "harmless_tokens": [report.added for report in task.reports[str(args.tokens)]],
        "repeats": args.repeats,
        "llama_cpp": _llama_version(),
        **machine(),
    }
    lines = table_lines(found, about)
    args.out.mkdir(parents=True, exist_ok=True)
    told = json.dumps({"about": about, "rows": found}, indent=1)
    (args.out / "quantizations.json").write_text(told + "\n", encoding="utf-8")
    (args.out / "quantizations.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _llama_version() -> dict[str, str]:
    from medorchestra.local.engine.llama_library import load_library

    library = load_library()
    return {"version": library.__version__, "system": library.llama_print_system_info().decode().strip(" |")}


if __name__ == "__main__":
    main()
