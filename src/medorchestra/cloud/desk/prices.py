"""List prices of hosted models, with where and when they were read, and what a run costs at them. Fetches nothing.

Prices change: an estimate names its price list, and a caller may give another one.
"""

from __future__ import annotations

from dataclasses import dataclass

from medorchestra.cloud.desk.usage import StepUsage

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class ListPrice:
    """What a host asks for a model.

    Attributes:
        model: the model's name in requests.
        input, output: US dollars per million tokens, standard tier, prompt not cached by the host.
        source: the page that says so.
        read_on: ISO date on which a copy of it was read.
        note: what the price leaves out.
    """

    model: str
    input: float
    output: float
    source: str
    read_on: str
    note: str = ""

    def dollars(self, input_tokens: int, output_tokens: int) -> float:
        """US dollars for so many tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / _MILLION


# Read in stored copies of the hosts' own pages. The copies carry no date; by the accounts of others the models were
# released on 17 November and 22 September 2026.
LIST_PRICES = (
    ListPrice(
        model="gpt-6.2-sol",
        input=2.00,
        output=10.00,
        source="https://developers.openai.com/api/docs/models/gpt-6.2-sol",
        read_on="2026-11-24",
        note="requests with more than 272,000 input tokens cost more",
    ),
    ListPrice(
        model="claude-opus-5-5",
        input=4.00,
        output=20.00,
        source="https://platform.claude.com/docs/en/models/opus-5-5/overview",
        read_on="2026-11-24",
    ),
)


def list_price(model: str) -> ListPrice | None:
    """The list price of a model, or None where none is known."""
    return next((price for price in LIST_PRICES if price.model == model), None)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What requests cost at one list price.

    Attributes:
        price: the list price.
        dollars: US dollars for the requests that were sent.
        saved: US dollars that replies from the cache would have cost.
        guessed: share of the replies whose tokens were estimated from their length, as the server counted none; None
            without any reply.
    """

    price: ListPrice
    dollars: float
    saved: float
    guessed: float | None


def estimate(usage: StepUsage, price: ListPrice) -> Estimate:
    """What a step, or a whole run (`Usage.total`), costs at a list price."""
    replies = usage.requests + usage.cached
    return Estimate(
        price,
        price.dollars(usage.input_tokens, usage.output_tokens),
        price.dollars(usage.cached_input_tokens, usage.cached_output_tokens),
        usage.guessed / replies if replies else None,
    )
