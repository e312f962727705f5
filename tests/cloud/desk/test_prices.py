"""What a run costs at list prices."""

from __future__ import annotations

from datetime import date

import pytest

from medorchestra.cloud.desk.prices import LIST_PRICES, ListPrice, estimate, list_price
from medorchestra.cloud.desk.usage import StepUsage, Usage, estimated_tokens

PRICE = ListPrice("large-1", 2.0, 10.0, "https://host.example/prices", "2026-11-24")


def test_input_and_output_have_their_own_price_per_million():
    usage = StepUsage(requests=3, input_tokens=1_500_000, output_tokens=200_000)
    assert estimate(usage, PRICE).dollars == pytest.approx(1.5 * 2 + 0.2 * 10)


def test_what_the_cache_saved_is_told_apart_from_what_was_paid():
    usage = StepUsage(requests=1, cached=3, input_tokens=1_000_000, cached_output_tokens=1_000_000, guessed=1)
    cost = estimate(usage, PRICE)
    assert (cost.dollars, cost.saved, cost.guessed) == (2.0, 10.0, 0.25)
    assert estimate(StepUsage(), PRICE).guessed is None


def test_steps_add_up_field_by_field():
    usage = Usage({"a": StepUsage(requests=1, seconds=0.5), "b": StepUsage(requests=2, repairs=1, seconds=1.5)})
    assert usage.total == StepUsage(requests=3, repairs=1, seconds=2.0)
    assert Usage().total == StepUsage()


def test_every_list_price_names_the_page_and_the_day_it_was_read():
    assert len({price.model for price in LIST_PRICES}) == len(LIST_PRICES) >= 2
    for price in LIST_PRICES:
        assert 0 < price.input < price.output
        assert price.source.startswith("https://")
        assert date(2026, 1, 1) < date.fromisoformat(price.read_on)
        assert list_price(price.model) is price
    assert list_price("a model nobody sells") is None


def test_tokens_are_estimated_by_length_in_bytes_and_rounded_up():
    assert [estimated_tokens(text) for text in ("", "a", "abcd", "abcde", "≤180")] == [0, 1, 1, 2, 2]
