"""A report that is open in an engine: what the engine took for it, and a second reading where the first was spoilt.

Is itself a `Session`, so that what asks questions need not know of either. Knows no questions and no answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Self

from medorchestra.errors import ContextTooSmallError, ServerFailedError
from medorchestra.local.engine.protocol import Choice, Conversation, Engine, Generated, Scored, Session

MOST_REPEATS = 3
"""How often a report is opened again at most. Once because questions failed together, and once for each that breaks the
engine's memory of the report; where even that does not help, reading it yet again would not either."""

MOST_SILENCES = 2
"""After so many questions in a row that a model server failed, none is sent any more: each takes minutes where it does
not answer. Once because questions failed together, and once for the first that was asked alone."""


class OpenReport:
    """An open report, inside its `with` block.

    Attributes:
        seconds: spent in the engine so far: opening, asking, closing. Neither counting tokens nor reading its answers.
        prefix_tokens: computed for head and report, as often as they were read. What an engine computed before it
            failed to open is not known and not in them.
    """

    def __init__(self, engine: Engine, conversation: Conversation) -> None:
        self.seconds = 0.0
        self.prefix_tokens = 0
        self._engine = engine
        self._conversation = conversation
        self._opened = ExitStack()
        self._session: Session | None = None
        self._spoilt = False
        self._repeats = 0
        self._silences = 0
        self._silent = ""

    @property
    def given_up(self) -> bool:
        """Whether the model's server failed so often that nothing is sent to it any more."""
        return self._silences >= MOST_SILENCES

    def __enter__(self) -> Self:
        """Open the report. Raises what the engine raises."""
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        with self._timed():
            self._opened.close()

    def mend(self) -> None:
        """Open the report again if a failure may have spoilt the reading, and it was not opened too often already.

        Raises:
            what the engine raises.
        """
        if self._spoilt and self._repeats < MOST_REPEATS and not self.given_up:
            self._repeats += 1
            self._session = None
            with self._timed():
                self._opened.close()  # an engine holds one report at a time
            self._open()

    def _open(self) -> None:
        with self._timed():
            session = self._opened.enter_context(self._engine.open(self._conversation))
        self.prefix_tokens += session.prefix_tokens
        self._session, self._spoilt = session, False

    def choose(self, question: str, candidates: Sequence[str]) -> Scored:
        """See `Session.choose`."""
        with self._asking() as session:
            return session.choose(question, candidates)

    def choose_all(self, choices: Sequence[Choice]) -> tuple[Scored, ...]:
        """See `Session.choose_all`."""
        with self._asking() as session:
            return session.choose_all(choices)

    def generate(
        self,
        question: str,
        *,
        max_tokens: int,
        grammar: str | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Generated:
        """See `Session.generate`."""
        with self._asking() as session:
            return session.generate(
                question, max_tokens=max_tokens, grammar=grammar, temperature=temperature, seed=seed
            )

    @contextmanager
    def _asking(self) -> Iterator[Session]:
        """The session, timed; notes whether it may have been spoilt."""
        if self._session is None:
            raise RuntimeError("the report is not open")
        if self.given_up:
            raise ServerFailedError(self._silent)
        try:
            with self._timed():
                yield self._session
        except (ContextTooSmallError, ValueError):
            raise  # an engine refuses such questions before it computes anything
        except Exception as error:
            self._spoilt = True
            if isinstance(error, ServerFailedError) and error.of_server:
                self._silences, self._silent = self._silences + 1, str(error)
            raise
        self._silences = 0

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started
