"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from medorchestra.errors import StorageError


def write_whole(path: Path, text: str) -> None:
    """Write beside and rename, so that a killed run leaves the old file. Makes the folder.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        beside = _beside(path)
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise _not_written(path, error) from None


def require_writable(path: Path) -> None:
    """Find out now whether a file can be written there, not after an hour of reading. Leaves nothing but its folder.

    Raises:
        StorageError: it cannot.
    """
    try:
        beside = _beside(path)
        beside.touch()
        beside.unlink()
    except OSError as error:
        raise _not_written(path, error) from None


def _beside(path: Path) -> Path:
    """A file of this process in the same folder, which is made."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}")


def _not_written(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: cannot be written: {error.strerror}; check folder and free space")
