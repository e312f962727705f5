"""What the cloud was asked for so far, by step, and how much more may be asked. Sends nothing.

Servers that do not count tokens (local ones, the relay) are common; their tokens are estimated from the length of the
text, and every total says how many of its replies were estimated.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from medorchestra.cloud.desk.client import ChatReply, ChatRequest
from medorchestra.errors import BudgetError, SettingsError

if TYPE_CHECKING:
    from medorchestra.cloud.desk.prices import ListPrice

BYTES_A_TOKEN = 4
"""Rule of thumb for English, where no server counts."""


def estimated_tokens(text: str) -> int:
    """Tokens of a text, by its length in UTF-8."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN)


@dataclass(frozen=True, slots=True)
class StepUsage:
    """What a step took.

    Attributes:
        requests: sent, and answered or not.
        cached: answered from the cache instead.
        failed: sent, but no reply came.
        input_tokens, output_tokens: of the requests that were sent and answered.
        cached_input_tokens, cached_output_tokens: of the replies from the cache, when they were paid.
        guessed: replies, sent for or cached, whose tokens were estimated because the server counted none.
        repairs: re-asks because a reply could not be used.
        schema_ignored: replies that were not the bare object that the schema asks for.
        seconds: waited for replies, summed over requests (which may run at the same time).
    """

    requests: int = 0
    cached: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cached_output_tokens: int = 0
    guessed: int = 0
    repairs: int = 0
    schema_ignored: int = 0
    seconds: float = 0.0

    def __add__(self, other: StepUsage) -> StepUsage:
        sums = {each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(StepUsage)}
        return StepUsage(**sums)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run took, by step, in the order in which the steps began."""

    steps: Mapping[str, StepUsage] = field(default_factory=dict)

    @property
    def total(self) -> StepUsage:
        """All steps together."""
        return sum(self.steps.values(), StepUsage())


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent; None sets no limit. Replies from the cache are free.

    Attributes:
        max_requests: requests sent.
        max_tokens: input and output tokens together.
        max_cost: US dollars at `price`.
        price: list price that `max_cost` is held against.
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    price: ListPrice | None = None

    def __post_init__(self) -> None:
        if self.max_cost is not None and self.price is None:
            raise SettingsError("max_cost needs a price: give the model's list price in US dollars per million tokens")


class Purse:
    """Keeps a budget while many threads spend from it, and adds up what they spent.

    Before a request is sent, its estimated input and its whole limit of output tokens are set aside, and given back
    when the reply has been counted: requests that run at the same time do not overdraw the budget. What can: an input
    larger than estimated, and attempts that a server bills although it answered them with an error.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._change = threading.Condition()
        self._steps: dict[str, StepUsage] = {}
        self._open: list[tuple[int, int]] = []  # input and output tokens set aside

    @property
    def usage(self) -> Usage:
        """What has been spent so far."""
        with self._change:
            return Usage(dict(self._steps))

    def add(self, step: str, spent: StepUsage) -> None:
        """Book what a step took."""
        with self._change:
            self._steps[step] = self._steps.get(step, StepUsage()) + spent

    @contextmanager
    def set_aside(self, step: str, request: ChatRequest) -> Iterator[None]:
        """Hold back what a request may take while it runs.

        Raises:
            BudgetError: it may take more than is left, also when all requests that still run have been counted.
        """
        aside = (estimated_tokens(request.system + request.user), request.max_output_tokens)
        with self._change:
            while (lacking := self._lacking(aside)) is not None:
                if not self._open:
                    raise BudgetError(f"{step}: {lacking}; grant more and start again: what was answered is kept")
                self._change.wait()
            self._open.append(aside)
        try:
            yield
        finally:
            with self._change:
                self._open.remove(aside)
                self._change.notify_all()

    def _lacking(self, aside: tuple[int, int]) -> str | None:
        budget, total = self._budget, sum(self._steps.values(), StepUsage())
        requests = total.requests + len(self._open) + 1
        if budget.max_requests is not None and requests > budget.max_requests:
            return f"the budget of {budget.max_requests} requests is used up"
        input_tokens = total.input_tokens + sum(tokens for tokens, _ in self._open) + aside[0]
        output_tokens = total.output_tokens + sum(tokens for _, tokens in self._open) + aside[1]
        if budget.max_tokens is not None and input_tokens + output_tokens > budget.max_tokens:
            return (
                f"{total.input_tokens + total.output_tokens} of {budget.max_tokens} tokens are spent, and the next "
                f"request may take {sum(aside)}"
            )
        if budget.max_cost is not None and budget.price is not None:
            spent = budget.price.dollars(total.input_tokens, total.output_tokens)
            if budget.price.dollars(input_tokens, output_tokens) > budget.max_cost:
                may = budget.price.dollars(*aside)
                return f"${spent:.4f} of ${budget.max_cost:.4f} are spent, and the next request may take ${may:.4f}"
        return None


def counted(request: ChatRequest, reply: ChatReply) -> tuple[int, int, bool]:
    """Input tokens, output tokens, and whether one of them had to be estimated."""
    said_in, said_out = reply.input_tokens, reply.output_tokens
    input_tokens = estimated_tokens(request.system + request.user) if said_in is None else said_in
    output_tokens = estimated_tokens(reply.text) if said_out is None else said_out
    return input_tokens, output_tokens, said_in is None or said_out is None
