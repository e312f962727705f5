"""The ledger: finished answers on disk, append-only, so that a run can be stopped at any moment and go on later.

Knows digests and answers. Knows no plan, no engine and no report: beside quotes and written passages, which stand in
the answers, it holds no report text, and it holds no report id.

**The key** of an answer is the report's digest, the subtask's digest and the `RunKey`: what the plan asks, model,
adapter, settings. The subtask's digest covers its rendered prompt, labels, focus terms and values, so a changed prompt
never finds an old answer. What the plan asks as a whole is in the key as well, because the room that the longest
question takes decides how much of a long report is read for all others. The plan's rules, thresholds and citations are
left out on purpose: they are applied to answers afresh in every run and cannot change one, so a mended rule decides
again without one report being read again.

**One transaction for each report, behind a rollback journal** (`journal_mode=DELETE`), not a write-ahead log: a log
needs memory shared between the processes and so breaks on network drives, and it leaves two more files without which
a copy of the ledger is incomplete. What a log would gain, writing while others read, does not matter where a
transaction takes milliseconds and a report seconds. `synchronous=EXTRA` also holds through a power cut. Several
processes may write to one ledger; what two of them read at the same moment is kept once, the first answer stands. On
a network drive that depends on locks that work there: a local disk is the safe place.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from medorchestra.errors import StorageError
from medorchestra.local.answers import Answer

LEDGER_VERSION = 1
"""Of the tables below, kept in the file (`user_version`)."""

APPLICATION_ID = 0x6D6F6C67
"""Marks a SQLite file as a ledger (`application_id`; the letters "molg")."""

BUSY_SECONDS = 60.0
"""How long a look-up or a transaction waits for other processes."""

# Digests of 71 characters stand in the file once each; an answer's key is three small numbers. Reports are numbered as
# they come, so new answers go to the end of their table: few pages change in a transaction, however long the ledger.
_TABLES = (
    "CREATE TABLE run (id INTEGER PRIMARY KEY, plan TEXT NOT NULL, model TEXT NOT NULL, adapter TEXT NOT NULL,"
    " settings TEXT NOT NULL, UNIQUE (plan, model, adapter, settings))",
    "CREATE TABLE report (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE)",
    "CREATE TABLE subtask (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE)",
    "CREATE TABLE answer (report INTEGER NOT NULL REFERENCES report, run INTEGER NOT NULL REFERENCES run,"
    " subtask INTEGER NOT NULL REFERENCES subtask, content TEXT NOT NULL,"
    " PRIMARY KEY (report, run, subtask)) WITHOUT ROWID",
)
_APPEND_ONLY = tuple(
    f"CREATE TRIGGER {table}_{change.lower()} BEFORE {change} ON {table}"
    " BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    for table in ("run", "report", "subtask", "answer")
    for change in ("UPDATE", "DELETE")
)

_FIND = (
    "SELECT subtask.digest, answer.content FROM answer JOIN subtask ON subtask.id = answer.subtask"
    " WHERE answer.report = (SELECT id FROM report WHERE digest = ?) AND answer.run ="
    " (SELECT id FROM run WHERE plan = ? AND model = ? AND adapter = ? AND settings = ?)"
)
_ADD_RUN = "INSERT INTO run (plan, model, adapter, settings) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_ADD_REPORT = "INSERT INTO report (digest) VALUES (?) ON CONFLICT DO NOTHING"
_ADD_SUBTASK = "INSERT INTO subtask (digest) VALUES (?) ON CONFLICT DO NOTHING"
_ADD_ANSWER = (
    "INSERT INTO answer SELECT report.id, run.id, subtask.id, ? FROM report, run, subtask"
    " WHERE report.digest = ? AND plan = ? AND model = ? AND adapter = ? AND settings = ? AND subtask.digest = ?"
    " ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class RunKey:
    """Everything beside report and subtask on which an answer depends: four digests.

    Attributes:
        plan: of all that the plan asks (see above: not of its rules).
        model: of the model file.
        adapter: of the adapter file; empty where there is none.
        settings: of engine settings, engine version and executor version.
    """

    plan: str
    model: str
    adapter: str
    settings: str


class Ledger:
    """An open ledger file. For one thread of one process; others open their own."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Take an open connection; `Ledger.open` is the way to get one."""
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: str | Path) -> Ledger:
        """Open a ledger; make it, and its folder, where there is none. A new one is for its owner only (0600).

        Raises:
            StorageError: the path cannot be written, is not a ledger, or is one of another version.
        """
        path = Path(path)
        _make_private_file(path)
        with _explained(path):
            ledger = cls(path, sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None))
        try:
            with _explained(path):
                ledger._prepare()
        except BaseException:
            ledger.close()
            raise
        return ledger

    def find(self, report_digest: str, run_key: RunKey) -> dict[str, Answer]:
        """All answers to a report under a run key: subtask digest -> answer. One look-up in an index.

        Raises:
            StorageError: the ledger cannot be read, or what it holds is damaged.
        """
        with _explained(self.path):
            rows = self._connection.execute(_FIND, (report_digest, *astuple(run_key))).fetchall()
        try:
            return {subtask: Answer.from_json(json.loads(content)) for subtask, content in rows}
        except (ValueError, TypeError, KeyError):
            raise _storage_error(self.path, sqlite3.SQLITE_CORRUPT) from None

    def add(self, report_digest: str, run_key: RunKey, answers: Mapping[str, Answer]) -> None:
        """Keep answers to a report, all or none: subtask digest -> answer. What is there already stays as it is.

        Raises:
            StorageError: they cannot be written; the ledger stays as it was before.
        """
        key = astuple(run_key)
        # ASCII: a lone surrogate in a quote is no valid UTF-8, its escape is.
        rows = [
            (json.dumps(answer.to_json(), separators=(",", ":")), report_digest, *key, subtask)
            for subtask, answer in answers.items()
        ]
        with _explained(self.path), self._transaction():
            self._connection.execute(_ADD_RUN, key)
            self._connection.execute(_ADD_REPORT, (report_digest,))
            self._connection.executemany(_ADD_SUBTASK, [(subtask,) for subtask in answers])
            self._connection.executemany(_ADD_ANSWER, rows)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._connection.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r})"

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
        self._connection.execute("PRAGMA synchronous = EXTRA")
        self._connection.execute("PRAGMA temp_store = MEMORY")  # no quotes in temporary files
        if self._is_blank():
            with self._transaction():
                if self._is_blank():  # another process may have been first
                    for statement in (*_TABLES, *_APPEND_ONLY):
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    self._connection.execute(f"PRAGMA user_version = {LEDGER_VERSION}")
        if self._number("PRAGMA application_id") != APPLICATION_ID:
            raise _storage_error(self.path, sqlite3.SQLITE_NOTADB)
        version = self._number("PRAGMA user_version")
        if version != LEDGER_VERSION:
            raise StorageError(
                f"{self.path}: a ledger of version {version}; this medorchestra reads and writes version "
                f"{LEDGER_VERSION}. Go on with the medorchestra that made it, or give another folder or ledger file."
            )
        self._connection.execute("PRAGMA journal_mode = DELETE")  # after the checks: it would change a foreign file

    def _is_blank(self) -> bool:
        """No table and no mark: new, or left so by a process that was killed while it made the file."""
        return self._number("PRAGMA application_id") == self._number("SELECT count(*) FROM sqlite_master") == 0

    def _number(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])


def _make_private_file(path: Path) -> None:
    """Make an empty file that only its owner may read. SQLite gives its journal the same permissions."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Only ever a new file: closing one that this process has open elsewhere would drop SQLite's locks on it.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise StorageError(
            f"{path}: the ledger cannot be made: {error.strerror or type(error).__name__}. "
            "Give a folder that can be written."
        ) from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into a StorageError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _storage_error(path, getattr(error, "sqlite_errorcode", 0)) from None


_GO_ON = "then run the same command again: finished answers stay in the ledger"
_PROBLEMS = {
    sqlite3.SQLITE_FULL: ("the disk is full", f"Make room, {_GO_ON}"),
    sqlite3.SQLITE_IOERR: (
        "the disk cannot be read or written",
        f"Look at space, quota and mount (a local disk is the safe place), {_GO_ON}",
    ),
    sqlite3.SQLITE_BUSY: (
        f"other processes have held it for {BUSY_SECONDS:.0f} s",
        f"Let them finish (from a network drive, move it to a local disk), {_GO_ON}",
    ),
    sqlite3.SQLITE_NOTADB: ("this file is not a ledger", "Give another folder or ledger file; it was left as it is"),
    sqlite3.SQLITE_CORRUPT: (
        "the ledger is damaged",
        "Put a copy of it back, or move it away: all reports are then read again",
    ),
}
"""Result code of SQLite -> what is wrong, what to do."""


def _storage_error(path: Path, code: int) -> StorageError:
    """The error for a result code (its extended part, in the higher bits, is left aside)."""
    unforeseen = (f"cannot be used (SQLite result code {code})", f"See that file and folder can be written, {_GO_ON}")
    problem, step = _PROBLEMS.get(code & 0xFF, unforeseen)
    return StorageError(f"{path}: {problem}. {step}.")
