"""What an engine has to do for the executor. Knows prompts and tokens; knows nothing of plans, rules or patients.

A conversation has one shape, for every engine: a fixed head (who reads, how to answer), the report, then one
question. The report is read once (`Engine.open`); each question branches off that reading and leaves no mark on
it, so an answer does not depend on which other questions were asked, or in which order (but for rounding, where
questions are computed together: `Session.choose_all`).

Report text is passed as text and never becomes markup: an engine must not parse special tokens, templates or
JSON in it.
"""

from __future__ import annotations

import math
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

    @property
    def gives_probabilities(self) -> bool:
        """False where the engine says of itself that it can only choose (see `Scored.scored`)."""
        return self.settings.get("probabilities") is not False

    @property
    def is_of_server(self) -> bool:
        """Whether a model server answers: the digest is then of what it tells of its model, not of the weights."""
        return self.settings.get("engine") == "server"


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
class Choice:
    """A question with a closed set of answers.

    Attributes:
        question: as it is asked.
        candidates: what there is to choose from.
    """

    question: str
    candidates: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Choice(question={len(self.question)} characters, {len(self.candidates)} candidates)"


@dataclass(frozen=True, slots=True, repr=False)
class Scored:
    """What `Session.choose` makes of the candidates.

    Attributes:
        probabilities: of the candidates, in their order, summing to one.
        tokens: tokens computed for question and answers.
        scored: False where the engine can only choose: the 1 in `probabilities` then marks the chosen one, and is no
            probability. Such an answer carries none.
    """

    probabilities: tuple[float, ...]
    tokens: int
    scored: bool = True

    def __repr__(self) -> str:
        return f"Scored({len(self.probabilities)} candidates, tokens={self.tokens}, scored={self.scored})"


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

    def choose_all(self, choices: Sequence[Choice]) -> tuple[Scored, ...]:
        """Score several closed sets of answers, together where the engine can: faster than one by one.

        None sees another. Computed together or alone, the probabilities are the same up to what rounding does in the
        model's arithmetic: with quantized weights that can tip two values that are about equally probable.

        Returns:
            one for each choice, in their order; a token that several share is counted with the first of them.

        Raises:
            as `choose`, for the first that cannot be asked; none is answered then.
        """
        ...

    def generate(
        self,
        question: str,
        *,
        max_tokens: int,
        grammar: str | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Generated:
        """Write an answer, under a GBNF grammar where one is given.

        At temperature 0 the likeliest token is written every time (greedy); the seed then plays no part. Above 0 every
        token is drawn by its probability at that temperature; the same seed draws the same tokens.

        Raises:
            ContextTooSmallError: question and `max_tokens` do not fit behind the report.
            ModelError: the grammar cannot be parsed.
            ValueError: see `check_writing`.
        """
        ...


def check_writing(max_tokens: int, temperature: float, seed: int) -> None:
    """Refuse what no engine can write with.

    Raises:
        ValueError: `max_tokens` is less than one, the temperature is negative or no number, or the seed is negative.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens={max_tokens}: at least 1")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature}: 0 for the likeliest token, or a number above 0")
    if seed < 0:
        raise ValueError(f"seed={seed}: at least 0")


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
