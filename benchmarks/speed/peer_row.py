"""What a row of `peers.py` is: one way of reading reports, with a model of its own, in a process of its own."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peer_task import PeerTask, TaskReport, value_of

Answers = dict[str, str | None]
"""Finding -> value read; None where what the model wrote is no answer."""


class NotMeasuredError(Exception):
    """A row that cannot be measured here; the message says why and goes into the table."""


@dataclass
class RoundResult:
    """What a row did with some reports.

    Attributes:
        seconds: wall time for all of them.
        each: seconds of every report, in order; empty where reports are read at the same time.
        tokens: tokens that the model computed.
        answers: report -> finding -> value.
    """

    seconds: float
    each: list[float]
    tokens: int
    answers: dict[str, Answers] = field(default_factory=dict)


class Row(ABC):
    """One way of reading."""

    def __init__(self, task: PeerTask) -> None:
        self.task = task

    @property
    def versions(self) -> dict[str, str]:
        """What was measured, for the table's notes."""
        return {}

    @abstractmethod
    def warm(self) -> None:
        """Read the warm-up report, so that nothing is left in memory of a report that will be measured."""

    @abstractmethod
    def read_all(self, reports: Sequence[TaskReport]) -> RoundResult:
        """Read the reports; everything in here is measured."""

    @property
    def peak_mb(self) -> float:
        """Largest memory of the process that holds the model, in MB."""
        return peak_mb("self")

    def close(self) -> None:  # noqa: B027 - most rows start nothing
        """End what was started."""


class OneByOne(Row):
    """A row that reads one report after the other."""

    @abstractmethod
    def read(self, report: TaskReport) -> tuple[Answers, int]:
        """Answers, and tokens computed for them."""

    def read_all(self, reports: Sequence[TaskReport]) -> RoundResult:
        """Read the reports in order."""
        result = RoundResult(0.0, [], 0)
        for report in reports:
            started = time.perf_counter()
            answers, tokens = self.read(report)
            result.each.append(time.perf_counter() - started)
            result.tokens += tokens
            result.answers[report.id] = answers
        result.seconds = sum(result.each)
        return result


def peak_mb(process: str) -> float:
    """Peak resident memory of a process (a number, or `self`), from the kernel, in MB.

    Not `ru_maxrss`: a process inherits that from the one that started it.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:  # not Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if process == "self" else float("nan")
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) / 1024


def answer_schema(labels: Mapping[str, str]) -> dict[str, Any]:
    """JSON schema of an answer to one question."""
    answer = {"type": "string", "enum": list(labels.values())}
    return {"type": "object", "properties": {"answer": answer}, "required": ["answer"], "additionalProperties": False}


def all_answers_schema(labels: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """JSON schema of the answers to all questions."""
    properties = {finding: {"type": "string", "enum": list(own.values())} for finding, own in labels.items()}
    return {"type": "object", "properties": properties, "required": list(labels), "additionalProperties": False}


def read_json(content: str | None) -> dict[str, Any]:
    """The object that a model wrote; empty where it is none."""
    try:
        found = json.loads(content or "")
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def read_answer(content: str | None, labels: Mapping[str, str], key: str = "answer") -> str | None:
    """The value in what a model wrote, or None."""
    return value_of(read_json(content).get(key), labels)
