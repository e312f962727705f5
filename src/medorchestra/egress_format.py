"""The egress log as a file: its entries, its chain of digests, and the check that it is whole. Writes nothing.

JSON lines in canonical form (keys sorted, no spaces, ASCII). Each entry holds the digest of the one before it, and its
own; a line that a killed process left half written is followed by an `interrupted` entry that holds its digest. Both
sides read it: the cloud side writes the log, the hospital checks it against its reports.

A chain shows that a log was changed, not that its end was cut off or that it was written anew as a whole: for that,
note its head (`LogCheck.head`) elsewhere and compare.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medorchestra.errors import EgressError, StorageError

FORMAT = 1
FIRST_PREVIOUS = "sha256:" + hashlib.sha256(b"medorchestra egress log").hexdigest()
"""What the first entry holds as the digest of the one before it."""

OPENING = "opening"
"""A process began to write: what its gate lets through by name, and why."""
REQUEST = "request"
"""Written before the request is sent: number, time, endpoint, model, step, digest, pieces with their whole text."""
REPLY = "reply"
"""What became of a request: number, time, digest of the reply (null: none came), tokens."""
INTERRUPTED = "interrupted"
"""The line before this one was left half written: its bytes and its digest."""
KINDS = (OPENING, REQUEST, REPLY, INTERRUPTED)


@dataclass(frozen=True, slots=True, repr=False)
class LogLine:
    """One line of the file.

    Attributes:
        number: of the line, from 1.
        raw: its bytes, without the line break.
        fields: the entry; None where the line is not an entry in canonical form with its own digest.
        ended: whether a line break follows.
    """

    number: int
    raw: bytes
    fields: Mapping[str, Any] | None
    ended: bool

    def __repr__(self) -> str:
        return f"LogLine({self.number}, {len(self.raw)} bytes, entry={self.fields is not None})"


@dataclass(frozen=True, slots=True)
class LogCheck:
    """What a check of the whole log found.

    Attributes:
        entries, requests, replies: how many the log holds.
        interruptions: lines left half written by a killed process, properly closed off by the next one.
        unfinished_bytes: bytes of a last line without a line break that is no entry: the trace of a killed process,
            whose request was never sent. 0 where the log ends with an entry.
        head: digest of the last entry; note it elsewhere to prove later that nothing was cut off.
        problems: what does not hold together, by line; empty for a log that is whole.
    """

    entries: int
    requests: int
    replies: int
    interruptions: int
    unfinished_bytes: int
    head: str
    problems: tuple[str, ...]

    @property
    def intact(self) -> bool:
        return not self.problems


def digest_of(content: bytes) -> str:
    """`sha256:…` of bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def entry_line(fields: Mapping[str, Any]) -> bytes:
    """The line of an entry, without the line break: canonical, with its own digest added."""
    return _canonical({**fields, "digest": digest_of(_canonical(fields))})


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def read_lines(path: str | Path) -> Iterator[LogLine]:
    """The lines of a log, one at a time.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                raw = line.removesuffix(b"\n")
                yield LogLine(number, raw, _entry(raw), ended=raw != line)
    except OSError as error:
        raise StorageError(f"{path}: the egress log cannot be read: {error.strerror}") from None


def _entry(raw: bytes) -> Mapping[str, Any] | None:
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.get("kind") not in KINDS or fields.get("format") != FORMAT:
        return None
    without = {name: value for name, value in fields.items() if name != "digest"}
    try:
        # Byte for byte: a blank, another order of keys or a doubled key is a change too.
        return fields if entry_line(without) == raw else None
    except ValueError:
        return None


def verify_log(path: str | Path, *, head: str | None = None) -> LogCheck:
    """Check that no entry was changed, removed, added or reordered. Linear; holds one line at a time.

    Args:
        path: the log.
        head: digest of an entry noted earlier; it must still be in the log, which shows that nothing up to it was cut
            off or written anew.

    Raises:
        StorageError: the file cannot be read.
    """
    chain = _Chain()
    seen_head = head in (None, FIRST_PREVIOUS)
    for line in read_lines(path):
        chain.take(line)
        seen_head = seen_head or chain.head == head
    if not seen_head:
        chain.problems.append("the head that was noted is not in this log: its end was cut off, or it was written anew")
    return chain.check()


class _Chain:
    """Follows the chain line by line."""

    def __init__(self) -> None:
        self.head = FIRST_PREVIOUS
        self.problems: list[str] = []
        self._counts = dict.fromkeys(KINDS, 0)
        self._replied: set[int] = set()
        self._broken: LogLine | None = None

    def take(self, line: LogLine) -> None:
        if line.fields is None:
            self._close_broken("is no entry, or was changed")
            self._broken = line
            return
        fields = line.fields
        if self._broken is not None:
            if fields["kind"] == INTERRUPTED and fields.get("half_line") == digest_of(self._broken.raw):
                self._broken = None
            else:
                self._close_broken("is no entry, or was changed")
        elif fields["kind"] == INTERRUPTED:
            self.problems.append(f"line {line.number}: the half line that it closes off is missing")
        if fields.get("previous") != self.head:
            self.problems.append(
                f"line {line.number}: does not follow from the line before it: one was changed, removed, added or moved"
            )
        self._count(line.number, fields)
        self.head = fields["digest"]

    def _count(self, line_number: int, fields: Mapping[str, Any]) -> None:
        kind, number = fields["kind"], fields.get("number")
        self._counts[kind] += 1
        if kind == REQUEST and number != self._counts[REQUEST]:
            self.problems.append(f"line {line_number}: request {number} where {self._counts[REQUEST]} was expected")
        if kind == REPLY:
            if not isinstance(number, int) or not 1 <= number <= self._counts[REQUEST] or number in self._replied:
                self.problems.append(f"line {line_number}: a reply to request {number}, which waits for none")
            else:
                self._replied.add(number)

    def _close_broken(self, problem: str) -> None:
        if self._broken is not None:
            self.problems.append(f"line {self._broken.number}: {problem}")
            self._broken = None

    def check(self) -> LogCheck:
        unfinished = 0
        if self._broken is not None and not self._broken.ended:
            unfinished = len(self._broken.raw)
        else:
            self._close_broken("is no entry, or was changed")
        return LogCheck(
            entries=sum(self._counts.values()),
            requests=self._counts[REQUEST],
            replies=self._counts[REPLY],
            interruptions=self._counts[INTERRUPTED],
            unfinished_bytes=unfinished,
            head=self.head,
            problems=tuple(self.problems),
        )


def read_requests(path: str | Path) -> Iterator[Mapping[str, Any]]:
    """The requests of a log that holds together, in order.

    Raises:
        StorageError: the file cannot be read.
        EgressError: the log does not hold together; run `medorchestra egress verify`.
    """
    check = verify_log(path)
    if not check.intact:
        raise EgressError(
            f"{path}: the egress log does not hold together ({len(check.problems)} problems, first: "
            f"{check.problems[0]}); see `medorchestra egress verify {path}`"
        )
    for line in read_lines(path):
        if line.fields is not None and line.fields["kind"] == REQUEST:
            yield line.fields
