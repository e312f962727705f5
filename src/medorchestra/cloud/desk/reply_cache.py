"""Replies on disk, so that a run that was killed repeats no paid request. Knows no prompts: requests are digests here.

One file per reply, written under a temporary name, synced and renamed: a file that is there is whole. A damaged one is
passed over, and the request is sent again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medorchestra.cloud.desk.client import ChatReply, ChatRequest, FinishReason
from medorchestra.errors import StorageError

_FORMAT = 1


class ReplyCache:
    """Request -> reply, by the digest of the request and the endpoint. May be used by several threads and processes."""

    def __init__(self, folder: str | Path) -> None:
        """Use a folder; made if it is not there.

        Raises:
            StorageError: it cannot be made.
        """
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot be made: {error.strerror}") from None

    def find(self, request: ChatRequest, endpoint: str) -> ChatReply | None:
        """The reply to this very request from this endpoint, or None."""
        try:
            entry = json.loads(self._path(request, endpoint).read_text(encoding="utf-8"))
            reply = entry["reply"]
            whole = entry["checksum"] == _checksum(reply) and entry["request"] == request.digest
            reason = FinishReason(reply["finish_reason"])
            return ChatReply(**{**reply, "finish_reason": reason}) if whole else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None

    def store(self, request: ChatRequest, endpoint: str, reply: ChatReply) -> None:
        """Keep a reply; one that is there already is replaced.

        Raises:
            StorageError: it cannot be written.
        """
        facts = asdict(reply)
        entry = {
            "format": _FORMAT,
            "request": request.digest,
            "endpoint": endpoint,
            "model": request.model,
            "reply": facts,
            "checksum": _checksum(facts),
        }
        path = self._path(request, endpoint)
        part: str | None = None
        try:
            handle, part = tempfile.mkstemp(prefix=f".{path.stem[:16]}.", suffix=".part", dir=self.folder)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(entry, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(path)
        except OSError as error:
            if part is not None:
                Path(part).unlink(missing_ok=True)
            raise StorageError(f"{path}: cannot be written: {error.strerror}; free the disk and start again") from None

    def set_aside(self, request: ChatRequest, endpoint: str) -> None:
        """Rename a reply that came to nothing, so that the next run asks again; it stays in the folder to be looked at.

        Raises:
            StorageError: it is there, but cannot be renamed.
        """
        path = self._path(request, endpoint)
        try:
            path.replace(path.with_suffix(".unusable.json"))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{path}: cannot be renamed: {error.strerror}") from None

    def _path(self, request: ChatRequest, endpoint: str) -> Path:
        key = hashlib.sha256(f"{endpoint}\n{request.digest}".encode()).hexdigest()
        return self.folder / f"{key}.json"


def _checksum(reply: dict[str, Any]) -> str:
    text = json.dumps(reply, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
