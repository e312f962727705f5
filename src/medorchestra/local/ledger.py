"""The ledger: finished answers on disk, append-only, so that a run can be stopped at any moment and go on later.

Knows digests and answers. Knows no plan, no engine and no report: beside quotes and written passages, which stand in
the answers, it holds no report text, and it holds no report id.

**The key** of an answer is the report's digest, the subtask's digest and the `RunKey`: what the plan asks, model,
adapter, settings. The subtask's digest covers its rendered prompt, labels, focus terms and values, so a changed prompt
never finds an old answer. What the plan asks as a whole is in the key as well, because the room that the longest
question takes decides how much of a long report is read for all others. The plan's rules, thresholds and citations are
left out on purpose: they are applied to answers afresh in every run and cannot change one, so a mended rule decides
again without one report being read again.

**One transaction for each report.** What several processes read at the same moment is kept once: the first answer
stands. How the file itself is kept is in `private_store`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from medorchestra.local.answers import Answer
from medorchestra.local.private_store import PrivateStore, StoreKind, append_only

LEDGER_VERSION = 1
"""Of the tables below, kept in the file (`user_version`)."""

APPLICATION_ID = 0x6D6F6C67
"""Marks a SQLite file as a ledger (`application_id`; the letters "molg")."""

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

    @property
    def digests(self) -> tuple[str, str, str, str]:
        """All four, in this order."""
        return self.plan, self.model, self.adapter, self.settings


AT_ONCE = 2_000
"""Reports whose answers are taken over in one statement: SQLite holds these answers in memory, to sort them."""

_ABSORB_KEYS = (
    "INSERT INTO main.run (plan, model, adapter, settings)"
    " SELECT plan, model, adapter, settings FROM other.run WHERE true ON CONFLICT DO NOTHING",
    "INSERT INTO main.report (digest) SELECT digest FROM other.report ORDER BY id ON CONFLICT DO NOTHING",
    "INSERT INTO main.subtask (digest) SELECT digest FROM other.subtask WHERE true ON CONFLICT DO NOTHING",
)
# Through the small tables to the large one, in the order in which the rows will stand.
_ABSORB_ANSWERS = (
    "INSERT INTO main.answer SELECT report.id, run.id, subtask.id, theirs.content FROM other.answer theirs"
    " JOIN other.report old ON old.id = theirs.report JOIN main.report report ON report.digest = old.digest"
    " JOIN other.subtask asked ON asked.id = theirs.subtask JOIN main.subtask subtask ON subtask.digest = asked.digest"
    " JOIN other.run key ON key.id = theirs.run JOIN main.run run ON run.plan = key.plan AND run.model = key.model"
    " AND run.adapter = key.adapter AND run.settings = key.settings"
    " WHERE theirs.report BETWEEN ? AND ?"
    " ORDER BY report.id, run.id, subtask.id ON CONFLICT DO NOTHING"
)


class AnswerStore(Protocol):
    """Where finished answers are looked up and kept: a ledger, or several behind one front (`shared_ledger`)."""

    def find(self, report_digest: str, run_key: RunKey) -> dict[str, Answer]:
        """As `Ledger.find`."""
        ...

    def add(self, report_digest: str, run_key: RunKey, answers: Mapping[str, Answer]) -> None:
        """As `Ledger.add`."""
        ...


class Ledger(PrivateStore):
    """An open ledger file. For one thread of one process; others open their own."""

    KIND: ClassVar[StoreKind] = StoreKind(
        name="ledger",
        application_id=APPLICATION_ID,
        version=LEDGER_VERSION,
        tables=(*_TABLES, *append_only("ledger", "run", "report", "subtask", "answer")),
        kept="finished answers stay in the ledger",
        instead="another folder or ledger file",
    )

    def find(self, report_digest: str, run_key: RunKey) -> dict[str, Answer]:
        """All answers to a report under a run key: subtask digest -> answer. One look-up in an index.

        Raises:
            StorageError: the ledger cannot be read, or what it holds is damaged.
        """
        with self._explained():
            rows = self._connection.execute(_FIND, (report_digest, *run_key.digests)).fetchall()
        try:
            contents = json.loads(f"[{','.join(content for _, content in rows)}]")  # at once: a third less time
            return {subtask: Answer.from_json(one) for (subtask, _), one in zip(rows, contents, strict=True)}
        except (ValueError, TypeError, KeyError):
            raise self._damaged() from None

    def add(self, report_digest: str, run_key: RunKey, answers: Mapping[str, Answer]) -> None:
        """Keep answers to a report, all or none: subtask digest -> answer. What is there already stays as it is.

        Raises:
            StorageError: they cannot be written; the ledger stays as it was before.
        """
        key = run_key.digests
        # ASCII: a lone surrogate in a quote is no valid UTF-8, its escape is.
        rows = [
            (json.dumps(answer.to_json(), separators=(",", ":")), report_digest, *key, subtask)
            for subtask, answer in answers.items()
        ]
        with self._explained(), self._transaction():
            self._connection.execute(_ADD_RUN, key)
            self._connection.execute(_ADD_REPORT, (report_digest,))
            self._connection.executemany(_ADD_SUBTASK, [(subtask,) for subtask in answers])
            self._connection.executemany(_ADD_ANSWER, rows)

    def absorb(self, path: Path) -> None:
        """Take over all answers of another ledger file, all or none; what is here already stays as it is.

        Raises:
            StorageError: one of the two cannot be read or written; both stay as they were.
        """
        Ledger.open(path).close()  # is it one, and of this version? Rolls back what a killed writer left half done.
        with self._explained():
            self._connection.execute("ATTACH DATABASE ? AS other", (str(path),))
            try:
                with self._transaction():
                    for statement in _ABSORB_KEYS:
                        self._connection.execute(statement)
                    for first in range(1, self._number("SELECT coalesce(max(id), 0) FROM other.report") + 1, AT_ONCE):
                        self._connection.execute(_ABSORB_ANSWERS, (first, first + AT_ONCE - 1))
            finally:
                self._connection.execute("DETACH DATABASE other")
