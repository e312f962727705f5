"""Stops a run whose model server is gone, before all reports that are left fail one by one.

A report is lost where the server failed and gave nothing at all for it (`Reading.lost`). A report that always makes it
fail is one lost report and stops nothing; nor do several, as long as the server still answers a short question on an
invented note, which it is asked before a run is stopped. Counts in one process: each worker of a scheduler has its own.
An engine in this process never loses a report. Knows nothing of HTTP.
"""

from __future__ import annotations

from typing import Final

from medorchestra.errors import ModelError, ServerFailedError
from medorchestra.local.engine.protocol import Conversation, Engine
from medorchestra.local.executor import Reading
from medorchestra.local.records import Report

LOOK_AFTER: Final = 5
"""After so many different reports lost in a row, and after as many again, the server is asked aside."""

STOP_AFTER: Final = 25
"""So many end the run even where the server answers aside: it cannot read reports as they are. A multiple of the other:
the server is asked aside then too."""

_NOTE: Final = Conversation("You read invented notes.", "Invented note: the garden gate is green.")
_QUESTION: Final = "Is the gate green? Answer yes or no."


class ServerWatch:
    """Counts reports that are lost in a row."""

    def __init__(self, engine: Engine, *, kept: bool) -> None:
        """Watch an engine.

        Args:
            engine: what reads the reports.
            kept: whether finished answers are in a ledger: what a message may promise.
        """
        self._engine = engine
        self._kept = kept
        self._lost: set[str] = set()  # digests: one text under many ids is one report
        self._look_at = LOOK_AFTER

    def note(self, report: Report, reading: Reading) -> None:
        """One report was read, or lost.

        Raises:
            ModelError: too many were lost in a row.
        """
        if reading.lost is not None:
            self.note_lost(report.digest, reading.lost)
        elif reading.tokens:  # else nothing was asked, which tells nothing
            self.note_answered()

    def note_answered(self) -> None:
        """The server answered about a report."""
        self._lost.clear()
        self._look_at = LOOK_AFTER

    def note_lost(self, digest: str, problem: str) -> None:
        """The server failed and gave nothing for a report.

        Args:
            digest: of the report's text.
            problem: what the server did, without report text.

        Raises:
            ModelError: too many were lost in a row.
        """
        self._lost.add(digest)
        lost = len(self._lost)
        if lost < self._look_at:
            return
        if not self._answers():
            raise ModelError(f"{self._told(problem)} {self._next_step()}")
        if lost >= STOP_AFTER:
            raise ModelError(
                f"{self._told(problem)} It still answers a short question: see in its log what it lacks for whole "
                f"reports (memory, context). {self._next_step()}"
            )
        self._look_at = lost + LOOK_AFTER

    def _answers(self) -> bool:
        """Whether the server answers at all; what it answers does not matter."""
        try:
            with self._engine.open(_NOTE) as session:
                session.choose(_QUESTION, ("yes", "no"))
        except ServerFailedError as error:
            return not error.of_server
        except Exception:  # noqa: BLE001 - an answer that cannot be used is one
            return True
        return True

    def _told(self, problem: str) -> str:
        return f"stopped: the model server failed for {len(self._lost)} reports in a row, the last time so: {problem}."

    def _next_step(self) -> str:
        if self._kept:
            return (
                "Finished answers are in the ledger; once the server reads again, the same command goes on from here."
            )
        return "Without a ledger nothing was kept; give one (ledger=), and the next run can go on where it stopped."
