"""Writes the egress log: every request, with its whole text, on disk before it is sent. Sends nothing, checks no text.

Append-only and chained by digests (`medorchestra.egress_format` says how). One process writes a log at a time; its
threads may share it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from medorchestra.cloud.outgoing import Piece
from medorchestra.egress_format import (
    FORMAT,
    INTERRUPTED,
    OPENING,
    REPLY,
    REQUEST,
    LogCheck,
    digest_of,
    entry_line,
    read_lines,
    verify_log,
)
from medorchestra.errors import EgressError, SettingsError, StorageError

__all__ = ["EgressLog", "LogCheck", "verify_log"]

SHORTEST_SECRET = 8
"""Characters of the shortest key that is looked for: a shorter one would be found by chance."""


class _Describable(Protocol):
    def described(self) -> Mapping[str, Any]: ...


class EgressLog:
    """The open log of one process.

    Use as a context manager, or call `close`. The number of a request counts over the whole life of the file.
    """

    def __init__(self, path: Path, descriptor: int, check: LogCheck, secrets: Collection[str]) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        self._head = check.head
        self._requests = check.requests
        self._waiting = _waiting(path) if check.requests else set()
        self._secrets = tuple(secrets)
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | Path, *, gate: _Describable | None = None, secrets: Collection[str] = ()) -> EgressLog:
        """Open a log, or begin one, and go on where it ends; a half line of a killed process is closed off.

        Args:
            path: the file; it and its folder are made where missing, readable by its owner only.
            gate: what it lets through by name, and its instructions' digests, are written into the first entry.
            secrets: keys of the cloud; an entry that would hold one is refused.

        Raises:
            EgressError: the log does not hold together.
            StorageError: it cannot be written, or another process writes it.
            SettingsError: a key is too short to be told from ordinary text.
        """
        if any(len(secret) < SHORTEST_SECRET for secret in secrets):
            raise SettingsError(f"a key of fewer than {SHORTEST_SECRET} characters cannot be kept out of the log")
        path = Path(path)
        descriptor = _open_for_appending(path)
        try:
            check = verify_log(path)
            if not check.intact:
                raise EgressError(
                    f"{path}: the egress log does not hold together ({len(check.problems)} problems, first: "
                    f"{check.problems[0]}); keep it as evidence and begin another; nothing was sent"
                )
            log = cls(path, descriptor, check, secrets)
            log._finish_last_line(check)
            log._append({"kind": OPENING, **(gate.described() if gate is not None else {})})
        except BaseException:
            os.close(descriptor)
            raise
        return log

    def record_request(
        self, *, step: str, endpoint: str, model: str, request_digest: str, pieces: Sequence[Piece]
    ) -> int:
        """Write a request and wait until it is on disk. Send only after this has returned.

        Args:
            step: step of the planner.
            endpoint: where it goes; a user, password or query in the address is left out.
            model: the cloud model.
            request_digest: `sha256:…` of the request as it is sent.
            pieces: all of its text.

        Returns:
            The number of the request.

        Raises:
            EgressError: a piece holds a key; nothing was written.
            StorageError: it could not be written; the request must not be sent.
        """
        texts = [{"kind": piece.kind.value, "origin": piece.origin, "text": piece.text} for piece in pieces]
        for secret in self._secrets:
            if any(secret in field for text in texts for field in text.values()):
                raise EgressError(f"step {step}: the outgoing text holds the key of the cloud; nothing was sent")
        with self._lock:
            number = self._requests + 1
            self._append(
                {
                    "kind": REQUEST,
                    "number": number,
                    "step": step,
                    "endpoint": _bare_address(endpoint),
                    "model": model,
                    "request_digest": request_digest,
                    "pieces": texts,
                }
            )
            self._requests = number
            self._waiting.add(number)
            return number

    def record_reply(
        self, number: int, *, reply_digest: str | None, input_tokens: int | None, output_tokens: int | None
    ) -> None:
        """Write what became of a request.

        Args:
            number: of the request.
            reply_digest: `sha256:…` of the reply; None if none came.
            input_tokens, output_tokens: as the cloud counted them; None if it did not say.

        Raises:
            EgressError: no such request waits for a reply.
            StorageError: it could not be written.
        """
        with self._lock:
            if number not in self._waiting:
                raise EgressError(f"{self.path}: request {number} waits for no reply")
            self._append(
                {
                    "kind": REPLY,
                    "number": number,
                    "reply_digest": reply_digest,
                    "input_tokens": input_tokens,
                    "output_tokens": output_tokens,
                }
            )
            self._waiting.discard(number)

    @property
    def head(self) -> str:
        """Digest of the last entry: noted elsewhere, it proves later that nothing was cut off."""
        return self._head

    def close(self) -> None:
        """Give the file back to other processes."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def __enter__(self) -> EgressLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EgressLog({str(self.path)!r}, {self._requests} requests)"

    def _finish_last_line(self, check: LogCheck) -> None:
        last = deque(read_lines(self.path), maxlen=1)
        if not last or last[0].ended:
            return
        if check.unfinished_bytes:
            # One write with the line break: killed between two, it would leave a line that nothing explains.
            half_line = {"half_line": digest_of(last[0].raw), "bytes": len(last[0].raw)}
            self._append({"kind": INTERRUPTED, **half_line}, before=b"\n")
        else:
            self._write(b"\n")

    def _append(self, fields: Mapping[str, Any], *, before: bytes = b"") -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = entry_line({"format": FORMAT, "time": time, "previous": self._head, **fields})
        if any(secret.encode() in line for secret in self._secrets):
            raise EgressError("an entry of the egress log would hold the key of the cloud; nothing was sent")
        self._write(before + line + b"\n")
        self._head = json.loads(line)["digest"]

    def _write(self, content: bytes) -> None:
        if self._descriptor is None:
            raise StorageError(f"{self.path}: the egress log is closed; open it again before sending")
        try:
            while content:
                content = content[os.write(self._descriptor, content) :]
            os.fsync(self._descriptor)
        except OSError as error:
            # What stands in the file is unknown now; the next process reads it anew.
            os.close(self._descriptor)
            self._descriptor = None
            raise StorageError(
                f"{self.path}: the egress log cannot be written: {error.strerror}; nothing was sent"
            ) from None


def _open_for_appending(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(f"{path}: the egress log cannot be opened: {error.strerror}") from None
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise StorageError(f"{path}: another process writes this egress log; wait for it or name another") from None
    return descriptor


def _waiting(path: Path) -> set[int]:
    waiting: set[int] = set()
    for line in read_lines(path):
        if line.fields is not None and line.fields["kind"] == REQUEST:
            waiting.add(line.fields["number"])
        elif line.fields is not None and line.fields["kind"] == REPLY:
            waiting.discard(line.fields["number"])
    return waiting


def _bare_address(endpoint: str) -> str:
    """An address without user, password, query and fragment, where keys are carried."""
    parts = urlsplit(endpoint)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
