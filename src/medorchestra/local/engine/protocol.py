"""What an engine has to do for the executor. Knows prompts and tokens; knows nothing of plans, rules or patients.

A conversation has one shape, for every engine: a fixed head (who reads, how to answer), the report, then one
question. The report is read once (`Engine.open`); each question branches off that reading and leaves no mark on
it, so an answer does not depend on which other questions were asked, or in which order.

Report text is passed as text and never becomes markup: an engine must not parse special tokens, templates or
JSON in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model answers: written into run.json and into every ledger key.

    Attributes:
        name: file name of the model, or the name of a scripted engine.
        digest: `sha256:…` of the model file (or of the script).
        adapter: file name of the LoRA adapter, or None.
        adapter_digest: `sha256:…` of the adapter file, or None.
        settings: everything else that can change an answer: context size, chat format, batch size,
            version of the library that computes, processor back end.
    """

    name: str
    digest: str
    adapter: str | None = None
    adapter_digest: str | None = None
    settings: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class Conversation:
    """The part of a prompt that all questions on a report share.

    Attributes:
        head: trusted text of the plan that stands before the report.
        report: untrusted text of the report, or the part of it that fits.
    """

    head: str
    report: str

    def __repr__(self) -> str:
        return f"Conversation(head={len(self.head)} characters, report={len(self.report)} characters)"


@dataclass(frozen=True, slots=True, repr=False)
class Scored:
    """Probabilities over the candidates of `Session.choose`, in their order, summing to one."""

    probabilities: tuple[float, ...]
    tokens: int

    def __repr__(self) -> str:
        return f"Scored({len(self.probabilities)} candidates, tokens={self.tokens})"


@dataclass(frozen=True, slots=True, repr=False)
class Generated:
    """Text written by the model.

    Attributes:
        text: what it wrote, without end-of-turn tokens.
        complete: False when `max_tokens` cut it off.
        tokens: tokens computed for question and answer.
    """

    text: str
    complete: bool
    tokens: int

    def __repr__(self) -> str:
        return f"Generated({len(self.text)} characters, complete={self.complete}, tokens={self.tokens})"


class Session(Protocol):
    """A report that has been read, ready for questions."""

    @property
    def prefix_tokens(self) -> int:
        """Tokens computed for head and report when the session was opened."""
        ...

    def choose(self, question: str, candidates: Sequence[str]) -> Scored:
        """Score a closed set of answers.

        The probability of a candidate is that of the model writing it when it may write nothing but one of the
        candidates: at every token where candidates part, the probabilities of the branches are renormalised.

        Raises:
            ContextTooSmallError: question and candidates do not fit behind the report.
            ValueError: no candidate, an empty one, or two that are the same.
        """
        ...

    def generate(self, question: str, *, max_tokens: int, grammar: str | None = None) -> Generated:
        """Write an answer greedily (deterministic), under a GBNF grammar where one is given.

        Raises:
            ContextTooSmallError: question and `max_tokens` do not fit behind the report.
            ModelError: the grammar cannot be parsed.
        """
        ...


class Engine(Protocol):
    """A model that reads reports and answers questions on them."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is."""
        ...

    @property
    def context_tokens(self) -> int:
        """Tokens that head, report, question and answer may take together."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a piece of plain text (special tokens not parsed)."""
        ...

    def open(self, conversation: Conversation) -> AbstractContextManager[Session]:
        """Read head and report once.

        Raises:
            ContextTooSmallError: they do not fit.
        """
        ...

    def close(self) -> None:
        """Give back the memory. Idempotent."""
        ...
