"""Predictions of the strategies whose work the ledger cannot hold, on disk, append-only: a run can go on later.

Knows digests, outcomes and probabilities. Holds no report text, no report id, and nothing of a prediction that failed:
the next run tries that again. What `orchestrated` reads stands in the ledger.

One transaction for each prediction, behind a rollback journal, as in the ledger (see there for the reasons); several
processes may write to one file, and the first prediction under a key stands.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from medorchestra.errors import StorageError
from medorchestra.local.evaluation.predictions import Prediction
from medorchestra.local.ledger import BUSY_SECONDS
from medorchestra.plan import content_digest

STORE_VERSION = 1
"""Of the table below, kept in the file (`user_version`)."""

APPLICATION_ID = 0x6D6F7072
"""Marks a SQLite file as a prediction store (`application_id`; the letters "mopr")."""

_STATEMENTS = (
    "CREATE TABLE prediction (key TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID",
    *(
        f"CREATE TRIGGER prediction_{change.lower()} BEFORE {change} ON prediction"
        " BEGIN SELECT RAISE(ABORT, 'the prediction store is append-only'); END"
        for change in ("UPDATE", "DELETE")
    ),
)


@dataclass(frozen=True, slots=True)
class PredictionKey:
    """Everything on which a prediction depends.

    Attributes:
        text: digest of what the model reads: the report, or the list of its findings.
        strategy: name of the strategy.
        settings: digest of the strategy's own settings and of all that it says to the model.
        plan: digest of the plan.
        model: digest of the model file.
        adapter: digest of the adapter file; empty where there is none.
        engine: digest of the engine's settings.
    """

    text: str
    strategy: str
    settings: str
    plan: str
    model: str
    adapter: str
    engine: str

    @property
    def digest(self) -> str:
        """`sha256:…` of all of them."""
        return content_digest(asdict(self))


class PredictionStore:
    """An open file of predictions. For one thread of one process; others open their own."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Take an open connection; `PredictionStore.open` is the way to get one."""
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: str | Path) -> PredictionStore:
        """Open a store; make it, and its folder, where there is none. A new one is for its owner only (0600).

        Raises:
            StorageError: the path cannot be written, is no prediction store, or is one of another version.
        """
        path = Path(path)
        _make_private_file(path)
        with _explained(path):
            store = cls(path, sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None))
        try:
            with _explained(path):
                store._prepare()
        except BaseException:
            store.close()
            raise
        return store

    def find(self, key: PredictionKey, case_id: str) -> Prediction | None:
        """The prediction under this key, for the case that asks; None where there is none. It cost nothing in this run.

        Raises:
            StorageError: the store cannot be read, or what it holds is damaged.
        """
        with _explained(self.path):
            row = self._connection.execute("SELECT content FROM prediction WHERE key = ?", (key.digest,)).fetchone()
        if row is None:
            return None
        try:
            content = json.loads(row[0])
            outcome, probabilities = content["outcome"], dict(content["probabilities"])
            if outcome not in probabilities:
                raise ValueError("an outcome without its probability")
        except (ValueError, TypeError, KeyError):
            raise _storage_error(self.path, sqlite3.SQLITE_CORRUPT) from None
        return Prediction(case_id, outcome, probabilities=probabilities)

    def add(self, key: PredictionKey, prediction: Prediction) -> None:
        """Keep outcome and probabilities of a prediction. What is there already stays as it is.

        Raises:
            StorageError: it cannot be written; the store stays as it was before.
            ValueError: it has no scored outcome, or more to it than a store holds.
        """
        if prediction.probability is None or prediction.is_open or prediction.staged is not None:
            raise ValueError(f"{prediction!r}: only an outcome with its probabilities can be kept")
        content = {"outcome": prediction.outcome, "probabilities": dict(prediction.probabilities)}
        row = (key.digest, json.dumps(content, separators=(",", ":")))
        with _explained(self.path), self._transaction():
            self._connection.execute("INSERT INTO prediction VALUES (?, ?) ON CONFLICT DO NOTHING", row)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._connection.close()

    def __enter__(self) -> PredictionStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"PredictionStore({str(self.path)!r})"

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
        """Settings of the connection, the table of a new file, checks of an old one."""
        self._connection.execute("PRAGMA synchronous = EXTRA")
        if self._is_blank():
            with self._transaction():
                if self._is_blank():  # another process may have been first
                    for statement in _STATEMENTS:
                        self._connection.execute(statement)
                    self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    self._connection.execute(f"PRAGMA user_version = {STORE_VERSION}")
        if self._number("PRAGMA application_id") != APPLICATION_ID:
            raise _storage_error(self.path, sqlite3.SQLITE_NOTADB)
        version = self._number("PRAGMA user_version")
        if version != STORE_VERSION:
            raise StorageError(
                f"{self.path}: a prediction store of version {version}; this medorchestra reads and writes version "
                f"{STORE_VERSION}. Go on with the medorchestra that made it, or give another folder."
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
            f"{path}: the prediction store cannot be made: {error.strerror or type(error).__name__}. "
            "Give a folder that can be written."
        ) from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite into a StorageError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _storage_error(path, getattr(error, "sqlite_errorcode", 0)) from None


_GO_ON = "then run the same command again: finished predictions are kept"
_PROBLEMS = {
    sqlite3.SQLITE_FULL: ("the disk is full", f"Make room, {_GO_ON}"),
    sqlite3.SQLITE_IOERR: ("the disk cannot be read or written", f"Look at space, quota and mount, {_GO_ON}"),
    sqlite3.SQLITE_BUSY: (
        f"other processes have held it for {BUSY_SECONDS:.0f} s",
        f"Let them finish (from a network drive, move it to a local disk), {_GO_ON}",
    ),
    sqlite3.SQLITE_NOTADB: ("this file is not a prediction store", "Give another folder; it was left as it is"),
    sqlite3.SQLITE_CORRUPT: (
        "the prediction store is damaged",
        "Put a copy of it back, or move it away: all reports are then read again",
    ),
}
"""Result code of SQLite -> what is wrong, what to do."""


def _storage_error(path: Path, code: int) -> StorageError:
    """The error for a result code (its extended part, in the higher bits, is left aside)."""
    unforeseen = (f"cannot be used (SQLite result code {code})", f"See that file and folder can be written, {_GO_ON}")
    problem, step = _PROBLEMS.get(code & 0xFF, unforeseen)
    return StorageError(f"{path}: {problem}. {step}.")
