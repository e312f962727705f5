"""The process of one row of `peers.py`: takes commands on standard input, answers on standard output, one JSON a line.

    python peer_worker.py ROW TASK.json [--llama-server PATH]

Says `ready` (or why it cannot), then `read` reads reports by their ids, `end` says how much memory was taken and ends
the process; so does the end of the input. Whatever else is printed goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from peer_row import NotMeasuredError, Row
from peer_task import PeerTask, read_task


def make_row(name: str, task: PeerTask, llama_server: str | None) -> Row:
    """The row of this name; only what it needs is imported (KeyError if there is none)."""
    makers: dict[str, Callable[[], Row]] = {
        "a": lambda: _direct().Medorchestra(task, form="compact"),
        "a_unfused": lambda: _direct().Medorchestra(task, form="compact", fuse=False),
        "a_instructed": lambda: _direct().Medorchestra(task, form="instructed"),
        "b": lambda: _chat().OnePerFinding(task, form="compact"),
        "b_instructed": lambda: _chat().OnePerFinding(task, form="instructed"),
        "b_reuse": lambda: _chat().OnePerFinding(task, form="compact", reuse=True),
        "c": lambda: _chat().OneForAll(task),
        "d": lambda: _server().Server(task, form="compact", binary=llama_server),
        "d_instructed": lambda: _server().Server(task, form="instructed", binary=llama_server),
        "e": lambda: _direct().Floor(task, form="compact"),
        "e_instructed": lambda: _direct().Floor(task, form="instructed"),
        "f": lambda: _langextract().LangExtract(task),
    }
    return makers[name]()


def _direct() -> Any:
    import direct_rows

    return direct_rows


def _chat() -> Any:
    import chat_rows

    return chat_rows


def _server() -> Any:
    import server_row

    return server_row


def _langextract() -> Any:
    import langextract_row

    return langextract_row


def serve(row: Row, commands: TextIO, say: Callable[[dict[str, Any]], None]) -> None:
    """Obey until the input ends."""
    say({"ready": True, "versions": row.versions})
    for line in commands:
        command = json.loads(line)
        if command["do"] == "end":
            say({"peak_mb": row.peak_mb})
            return
        row.warm()
        say(asdict(row.read_all([row.task.report(report_id) for report_id in command["reports"]])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row")
    parser.add_argument("task", type=Path)
    parser.add_argument("--llama-server")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print; the parent reads answers only

    def say(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=answers, flush=True)

    try:
        row = make_row(args.row, read_task(args.task), args.llama_server)
    except NotMeasuredError as reason:
        say({"ready": False, "why": str(reason)})
        return
    try:
        serve(row, sys.stdin, say)
    finally:
        row.close()


if __name__ == "__main__":
    main()
