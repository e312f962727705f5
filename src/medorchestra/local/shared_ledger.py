"""One ledger for many workers, on one machine or several: each writes a file of its own and finds what all have kept.

The file that a run is resumed from, `ledger.sqlite`, is only read while workers run; their files lie beside it, in
`ledger.sqlite.workers/`. Knows no scheduler.

**Exactly once.** A worker that was killed has left its finished reports in its file. Whoever is given its reports next,
the same machine or another, finds them there: every look-up goes to the ledger and to the files of all workers, those
that appeared since included. What the ledger has stands before what a worker has. `gather` takes the files over into
the ledger before a run and after it, so that they do not pile up; a run that is killed before that loses nothing.

**Why a file for each.** Many writers on one file wait for each other's disk, and on a network drive trust its locks. A
file with one writer needs them only where others look into it while it is written.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from medorchestra.errors import StorageError
from medorchestra.local.answers import Answer
from medorchestra.local.ledger import Ledger, RunKey


class SharedLedger:
    """A worker's view of the ledger. For one thread of one process."""

    def __init__(self, path: Path, main: Ledger, opened: ExitStack) -> None:
        """Take an open ledger; `open` is the way to get one."""
        self.path = path
        self._main = main
        self._opened = opened
        self._own: Ledger | None = None
        self._others: dict[Path, Ledger] = {}

    @classmethod
    def open(cls, path: str | Path, *, existing: bool = False) -> Self:
        """Open the ledger for one more worker. Its own file is made with the first answer that it keeps.

        Args:
            path: of the ledger; all workers give the same.
            existing: it has been made by who started the workers, and must be there.

        Raises:
            StorageError: it cannot be used; or is not there, so that this machine sees another folder of this name.
        """
        path = Path(path)
        if existing and not path.is_file():
            raise StorageError(
                f"{path}: not there on this machine, where a worker is to write beside it. Give a folder that all "
                "machines of the cluster share, under the same path."
            )
        with ExitStack() as opened:
            main = opened.enter_context(Ledger.open(path))
            return cls(path, main, opened.pop_all())

    def find(self, report_digest: str, run_key: RunKey) -> dict[str, Answer]:
        """As `Ledger.find`: one look-up in an index for each file.

        Raises:
            StorageError: a file cannot be read, or what it holds is damaged.
        """
        self._look_for_others()
        found: dict[str, Answer] = {}
        for ledger in (self._main, self._own, *self._others.values()):
            if ledger is not None:
                found = ledger.find(report_digest, run_key) | found
        return found

    def add(self, report_digest: str, run_key: RunKey, answers: Mapping[str, Answer]) -> None:
        """As `Ledger.add`, into this worker's own file.

        Raises:
            StorageError: they cannot be written; the file stays as it was before.
        """
        if self._own is None:
            own = workers_folder(self.path) / f"{uuid.uuid4().hex}.sqlite"
            self._own = self._opened.enter_context(Ledger.open(own))
        self._own.add(report_digest, run_key, answers)

    def _look_for_others(self) -> None:
        own = None if self._own is None else self._own.path
        for path in worker_files(self.path):
            if path != own and path not in self._others:
                self._others[path] = self._opened.enter_context(Ledger.open(path))

    def close(self) -> None:
        """Close all files. Idempotent."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SharedLedger({str(self.path)!r}, {len(self._others)} other workers)"


def workers_folder(ledger: Path) -> Path:
    """Where the workers' files lie."""
    return ledger.with_name(f"{ledger.name}.workers")


def worker_files(ledger: Path) -> list[Path]:
    """The workers' files, in one order for all."""
    return sorted(workers_folder(ledger).glob("*.sqlite"))


def gather(ledger: str | Path) -> int:
    """Take all workers' files over into the ledger, which is made where there is none. Only while no worker runs.

    Each file goes once what it holds is safe in the ledger. A worker of a killed run that still writes into it writes
    for nobody: nothing waits for its answers any more.

    Returns:
        number of files taken over.

    Raises:
        StorageError: a file cannot be read or the ledger not written; what was not taken over stays where it is.
    """
    path = Path(ledger)
    files = worker_files(path)
    with Ledger.open(path) as main:
        for file in files:
            main.absorb(file)
            try:
                file.unlink()
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise StorageError(
                    f"{file}: cannot be removed: {reason}. Its answers are in {path}; remove it by hand."
                ) from None
    return len(files)
