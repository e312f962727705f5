"""The same reports and twelve findings, read by medorchestra and in the ways of its peers, beside the floor.

    python benchmarks/speed/peers.py [--reports 4] [--repeats 3] [--lengths 150 600] [--rows a b c e …]
        [--llama-server PATH] [--langextract-python PATH] --out benchmarks/speed/peers

Every row that reads with the adapter reads with the one file that medorchestra makes of model and adapter, so that
ratios compare ways of asking and nothing else. Same reports (synthetic ones of the calibration split), same findings,
two threads. Rows:

- a: medorchestra, its adapter and compact questions; a_unfused: with the adapter applied while reading;
  a_instructed: the bare model and the long questions;
- b, b_instructed: a chat completion with a JSON schema for every finding, each from the beginning (LLMAIx;
  llm_extractinator with a task for each finding), with the prompts of a and of a_instructed; b_reuse: with what the
  library keeps of the last request;
- c: one chat completion with one JSON schema for all findings (llm_extractinator, llmaix);
- d, d_instructed: llama-server with 8 slots and prompt cache, 8 clients (needs --llama-server, see
  build_llama_server.sh);
- e, e_instructed: the floor, the unique tokens computed once and nothing answered, for a and for a_instructed;
- f: langextract with its llama.cpp provider (needs --langextract-python, an interpreter that has both).

Every row is a process of its own with the model loaded before the clock starts. In every round each row reads the same
reports, in an order that is drawn anew. Writes peers.json and peers.md into `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peer_task import PeerTask, make_task, write_task
from peers_table import NAMES, Measured, goal_lines, summary_rows, table_lines

HERE = Path(__file__).parent
ROWS = tuple(NAMES)
CONTEXT_TOKENS = 4096


class RowFailedError(Exception):
    """The process of a row has ended before it was told to."""


class RowProcess:
    """The process of one row (`peer_worker.py`)."""

    def __init__(self, name: str, task: Path, python: str, llama_server: str | None) -> None:
        """Start it and wait until its model is loaded; `why_not` says why it cannot be measured."""
        server = ["--llama-server", llama_server] if llama_server else []
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [python, str(HERE / "peer_worker.py"), name, str(task), *server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        )
        try:
            first = self._answer()
        except RowFailedError as failure:
            first = {"ready": False, "why": str(failure)}
        self.why_not: str | None = None if first["ready"] else first["why"]
        self.versions: dict[str, str] = first.get("versions", {})

    def read(self, reports: list[str]) -> dict[str, Any]:
        """Read the reports of these ids."""
        return self._ask({"do": "read", "reports": reports})

    def end(self) -> float:
        """End the process; its peak memory in MB."""
        return float(self._ask({"do": "end"})["peak_mb"])

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        self._said.close()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            said = self._said.read().decode("utf-8", errors="replace").strip().splitlines()
            raise RowFailedError(f"ended with code {code}: {said[-1] if said else 'nothing said'}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def measure(task: PeerTask, args: argparse.Namespace) -> dict[str, Measured]:
    """All rows, round by round."""
    found = {name: Measured(name) for name in args.rows}
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        path = Path(folder) / "task.json"
        write_task(task, path)
        running: dict[str, RowProcess] = {}
        for name in args.rows:
            python = args.langextract_python if name == "f" else sys.executable
            if python is None:
                found[name].why_not = "not installed (give --langextract-python)"
                continue
            process = RowProcess(name, path, python, args.llama_server)
            opened.callback(process.close)
            found[name].why_not, found[name].versions = process.why_not, process.versions
            if process.why_not is None:
                running[name] = process
        for repeat in range(args.repeats):
            for length in map(str, args.lengths):
                order = list(running)
                chance.shuffle(order)
                for name in order:
                    ids = [report.id for report in task.reports[length]]
                    try:
                        found[name].rounds.setdefault(length, []).append(running[name].read(ids))
                    except RowFailedError as failure:  # the others are measured all the same
                        found[name].why_not = str(failure)
                        del running[name]
                    print(f"round {repeat + 1} of {args.repeats}, {length} tokens, {name}", file=sys.stderr)
        for name, process in running.items():
            found[name].peak_mb = process.end()
    return found


def machine() -> dict[str, str]:
    """What was measured on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {"processor": model, "cores": str(os.cpu_count()), "python": platform.python_version()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=4, help="for each length")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=[150, 600], help="tokens of a report")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-server")
    parser.add_argument("--langextract-python")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    task = make_task(
        topic="pancreatic_cancer",
        split="calibration",
        lengths=args.lengths,
        reports=args.reports,
        threads=args.threads,
        context_tokens=CONTEXT_TOKENS,
    )
    rows = summary_rows(task, measure(task, args))
    about = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python benchmarks/speed/peers.py " + _shown(sys.argv[1:]),
        "reports": args.reports,
        "repeats": args.repeats,
        "findings": task.findings,
        **machine(),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "peers.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    (args.out / "peers.md").write_text("\n".join(table_lines(task, rows, about)) + "\n", encoding="utf-8")
    print("\n".join(goal_lines(rows)))
    print(f"written: {args.out}/peers.json, peers.md")


def _shown(arguments: list[str]) -> str:
    """The arguments without this machine's folders."""
    return " ".join(
        "PATH" if before in ("--llama-server", "--langextract-python") else one
        for before, one in zip(["", *arguments], arguments, strict=False)
    )


if __name__ == "__main__":
    main()
