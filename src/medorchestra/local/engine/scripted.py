"""An engine whose answers are written by hand: for tests, examples and trying out a plan. Public.

Counts whitespace-separated words as tokens and refuses prompts that are too long, as a real engine does. Reads
nothing: what it answers is up to the script.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from medorchestra.errors import ContextTooSmallError, ModelError
from medorchestra.local.engine.protocol import Choice, Conversation, Generated, ModelIdentity, Scored, check_writing


@dataclass(frozen=True, slots=True, repr=False)
class ScriptedQuestion:
    """What a script is asked.

    Attributes:
        report: text of the report that is open.
        question: text of the question.
        candidates: for a choice, else None.
        grammar: for a generation under one, else None.
        temperature: of a generation; 0 where the likeliest text is wanted, and for a choice.
        seed: of a generation; tells samples apart.
    """

    report: str
    question: str
    candidates: tuple[str, ...] | None
    grammar: str | None
    temperature: float = 0.0
    seed: int = 0

    def __repr__(self) -> str:
        return f"ScriptedQuestion(report={len(self.report)} characters, question={len(self.question)} characters)"


Reply = str | Mapping[str, float] | Exception
"""A candidate (certain), candidate -> probability (those left out have 0), the text of a generation, or an
exception to raise."""


class ScriptedEngine:
    """Asks a function instead of a model.

    >>> engine = ScriptedEngine(lambda asked: "yes" if "mass" in asked.report else "no")
    >>> with engine.open(Conversation("You read reports.", "A mass of 2 cm.")) as session:
    ...     session.choose("Is there a mass?", ["yes", "no"]).probabilities
    (1.0, 0.0)
    """

    def __init__(
        self,
        reply: Callable[[ScriptedQuestion], Reply],
        *,
        name: str = "scripted",
        context_tokens: int = 8192,
        script_digest: str = "",
    ) -> None:
        """Take a script.

        Args:
            reply: called once for every question.
            name: the model's name in the identity.
            context_tokens: words that head, report, question and answer may take together.
            script_digest: tells scripts of the same name apart in ledgers.
        """
        self._reply = reply
        self._context_tokens = context_tokens
        digest = hashlib.sha256(f"{name}\n{script_digest}".encode()).hexdigest()
        self._identity = ModelIdentity(
            name, f"sha256:{digest}", settings={"engine": "scripted", "context_tokens": context_tokens}
        )
        self._head: str | None = None
        self._session: ScriptedSession | None = None
        self._closed = False

    @property
    def identity(self) -> ModelIdentity:
        """Name and digest of the script."""
        return self._identity

    @property
    def context_tokens(self) -> int:
        """Words that head, report, question and answer may take together."""
        return self._context_tokens

    def count_tokens(self, text: str) -> int:
        """Whitespace-separated words."""
        return len(text.split())

    @contextmanager
    def open(self, conversation: Conversation) -> Iterator[ScriptedSession]:
        """Begin a report. Like a real engine, takes one at a time and counts the same head only once.

        Raises:
            ContextTooSmallError: head and report do not fit.
            ModelError: the engine is closed, or another report is still open.
        """
        if self._closed:
            raise ModelError(f"the engine {self._identity.name} is closed; make a new one")
        if self._session is not None:
            raise ModelError("another report is still open in this engine; leave its `with` block first")
        head, report = self.count_tokens(conversation.head), self.count_tokens(conversation.report)
        if head + report > self._context_tokens:
            raise ContextTooSmallError(head + report, self._context_tokens)
        computed = report if conversation.head == self._head else head + report
        self._head = conversation.head
        self._session = ScriptedSession(
            self._reply, conversation.report, computed, self._context_tokens - head - report
        )
        try:
            yield self._session
        finally:
            self._session.close()
            self._session = None

    def close(self) -> None:
        """Nothing is held; `open` raises from now on. Idempotent."""
        self._closed = True
        if self._session is not None:
            self._session.close()


class ScriptedSession:
    """A report, ready for the script. Made by `ScriptedEngine.open`."""

    def __init__(self, reply: Callable[[ScriptedQuestion], Reply], report: str, prefix_tokens: int, room: int) -> None:
        self._reply = reply
        self._report = report
        self._prefix_tokens = prefix_tokens
        self._room = room
        self._closed = False

    @property
    def prefix_tokens(self) -> int:
        """Words of the report, and of the head if it was new."""
        return self._prefix_tokens

    def choose(self, question: str, candidates: Sequence[str]) -> Scored:
        """What the script says of the candidates.

        Raises:
            ContextTooSmallError: question and candidates do not fit.
            ModelError: the session is closed.
            ValueError: no candidate, an empty one, two that are the same, or a script that does not answer with them.
            Exception: the one the script asks for.
        """
        if not candidates or not all(candidates) or len(set(candidates)) < len(candidates):
            raise ValueError(f"{len(candidates)} candidates: each must be there once and hold text")
        tokens = self._fitting(question, max(len(candidate.split()) for candidate in candidates))
        reply = self._ask(ScriptedQuestion(self._report, question, tuple(candidates), None))
        weights = {reply: 1.0} if isinstance(reply, str) else reply
        total = math.fsum(weights.values())
        if not weights.keys() <= set(candidates) or total <= 0 or min(weights.values()) < 0:
            raise ValueError("the script must reply with candidates, and with probabilities above 0 in sum")
        return Scored(tuple(weights.get(candidate, 0.0) / total for candidate in candidates), tokens)

    def choose_all(self, choices: Sequence[Choice]) -> tuple[Scored, ...]:
        """One after the other. See `Session.choose_all`."""
        return tuple(self.choose(one.question, one.candidates) for one in choices)

    def generate(
        self,
        question: str,
        *,
        max_tokens: int,
        grammar: str | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Generated:
        """What the script writes, cut off behind `max_tokens` words.

        Grammar, temperature and seed are shown to the script; what it makes of them is up to it.

        Raises:
            ContextTooSmallError: question and `max_tokens` do not fit.
            ModelError: the session is closed.
            ValueError: see `check_writing`; or the script does not reply with text.
            Exception: the one the script asks for.
        """
        check_writing(max_tokens, temperature, seed)
        asked = self._fitting(question, max_tokens)
        reply = self._ask(ScriptedQuestion(self._report, question, None, grammar, temperature, seed))
        if not isinstance(reply, str):
            raise ValueError("the script must reply with text where text is to be written")
        words = reply.split()
        complete = len(words) <= max_tokens
        text = reply if complete else " ".join(words[:max_tokens])
        return Generated(text, complete, asked + min(len(words), max_tokens))

    def _fitting(self, question: str, answer: int) -> int:
        """Words of the question, once it is clear that it fits."""
        asked = len(question.split())
        if asked + answer > self._room:
            raise ContextTooSmallError(asked + answer, self._room)
        return asked

    def _ask(self, asked: ScriptedQuestion) -> str | Mapping[str, float]:
        if self._closed:
            raise ModelError("this session is closed; open the report again")
        reply = self._reply(asked)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        """End the session. Idempotent."""
        self._closed = True
