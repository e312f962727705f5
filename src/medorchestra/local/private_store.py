"""A small append-only SQLite file for its owner only: what ledger and prediction store have in common. Knows no table.

**Behind a rollback journal** (`journal_mode=DELETE`), not a write-ahead log: a log needs memory shared between the
processes and so breaks on network drives, and it leaves two more files without which a copy of the file is incomplete.
What a log would gain, writing while others read, does not matter where a transaction takes milliseconds and a report
seconds. `synchronous=EXTRA` also holds through a power cut. Several processes may write to one file. On a network drive
that depends on locks that work there: a local disk is the safe place.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from medorchestra.errors import StorageError

BUSY_SECONDS = 60.0
"""How long a look-up or a transaction waits for other processes."""


@dataclass(frozen=True, slots=True)
class StoreKind:
    """What tells one kind of file from another.

    Attributes:
        name: as messages call it: `ledger`.
        application_id: marks a SQLite file as one of this kind.
        version: of its tables, kept in the file (`user_version`).
        tables: statements that make them; nothing in them can be changed or deleted.
        kept: what stands in it when a run stops, for messages: `finished answers stay in the ledger`.
        instead: what to give where a file cannot be used, for messages: `another folder`.
    """

    name: str
    application_id: int
    version: int
    tables: tuple[str, ...]
    kept: str
    instead: str


def append_only(name: str, *tables: str) -> tuple[str, ...]:
    """Statements that let no row of these tables be changed or deleted."""
    return tuple(
        f"CREATE TRIGGER {table}_{change.lower()} BEFORE {change} ON {table}"
        f" BEGIN SELECT RAISE(ABORT, 'the {name} is append-only'); END"
        for table in tables
        for change in ("UPDATE", "DELETE")
    )


class PrivateStore:
    """An open file. For one thread of one process; others open their own.

    Attributes:
        KIND: of the file; each subclass has its own.
        path: of the file.
    """

    KIND: ClassVar[StoreKind]

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Take an open connection; `open` is the way to get one."""
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a file; make it, and its folder, where there is none. A new one is for its owner only (0600).

        Raises:
            StorageError: the path cannot be written, is a file of another kind, or is one of another version.
        """
        path = Path(path)
        _make_private_file(path, cls.KIND)
        with _explained(path, cls.KIND):
            store = cls(path, sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None))
        try:
            with store._explained():
                store._prepare()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of SQLite into a StorageError that says what to do."""
        with _explained(self.path, self.KIND):
            yield

    def _damaged(self) -> StorageError:
        """The error for content that cannot be read back."""
        return _storage_error(self.path, self.KIND, sqlite3.SQLITE_CORRUPT)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all or nothing. Takes the write lock at once: two readers that both turn writer would deadlock."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # on some errors SQLite has rolled back by itself
                with suppress(sqlite3.Error):  # what cannot be rolled back now is rolled back at the next opening
                    self._connection.execute("ROLLBACK")
            raise

    def _prepare(self) -> None:
        """Settings of the connection, tables of a new file, checks of an old one."""
        kind = self.KIND
        self._connection.execute("PRAGMA synchronous = EXTRA")
        self._connection.execute("PRAGMA temp_store = MEMORY")  # no quotes in temporary files
        if self._is_blank():
            with self._transaction():
                if self._is_blank():  # another process may have been first
                    for statement in kind.tables:
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA application_id = {kind.application_id}")
                    self._connection.execute(f"PRAGMA user_version = {kind.version}")
        if self._number("PRAGMA application_id") != kind.application_id:
            raise _storage_error(self.path, kind, sqlite3.SQLITE_NOTADB)
        version = self._number("PRAGMA user_version")
        if version != kind.version:
            raise StorageError(
                f"{self.path}: a {kind.name} of version {version}; this medorchestra reads and writes version "
                f"{kind.version}. Go on with the medorchestra that made it, or give {kind.instead}."
            )
        self._connection.execute("PRAGMA journal_mode = DELETE")  # after the checks: it would change a foreign file

    def _is_blank(self) -> bool:
        """No table and no mark: new, or left so by a process that was killed while it made the file."""
        return self._number("PRAGMA application_id") == self._number("SELECT count(*) FROM sqlite_master") == 0

    def _number(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])


def _make_private_file(path: Path, kind: StoreKind) -> None:
    """Make an empty file that only its owner may read. SQLite gives its journal the same permissions."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Only ever a new file: closing one that this process has open elsewhere would drop SQLite's locks on it.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StorageError(
            f"{path}: the {kind.name} cannot be made: {error.strerror or type(error).__name__}. "
            "Give a folder that can be written."
        ) from None


@contextmanager
def _explained(path: Path, kind: StoreKind) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _storage_error(path, kind, getattr(error, "sqlite_errorcode", 0)) from None


def _storage_error(path: Path, kind: StoreKind, code: int) -> StorageError:
    """The error for a result code of SQLite (its extended part, in the higher bits, is left aside)."""
    go_on = f"then run the same command again: {kind.kept}"
    problems = {
        sqlite3.SQLITE_FULL: ("the disk is full", f"Make room, {go_on}"),
        sqlite3.SQLITE_IOERR: (
            "the disk cannot be read or written",
            f"Look at space, quota and mount (a local disk is the safe place), {go_on}",
        ),
        sqlite3.SQLITE_BUSY: (
            f"other processes have held it for {BUSY_SECONDS:.0f} s",
            f"Let them finish (from a network drive, move it to a local disk), {go_on}",
        ),
        sqlite3.SQLITE_NOTADB: (f"this file is not a {kind.name}", f"Give {kind.instead}; it was left as it is"),
        sqlite3.SQLITE_CORRUPT: (
            f"the {kind.name} is damaged",
            "Put a copy of it back, or move it away: all reports are then read again",
        ),
    }
    unforeseen = (f"cannot be used (SQLite result code {code})", f"See that file and folder can be written, {go_on}")
    problem, step = problems.get(code & 0xFF, unforeseen)
    return StorageError(f"{path}: {problem}. {step}.")
