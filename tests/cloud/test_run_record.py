"""The facts of run.json: sums, costs at list prices, and no text of a report."""

from __future__ import annotations

import json

import pytest

from medorchestra.cloud.desk.prices import LIST_PRICES, ListPrice
from medorchestra.cloud.desk.usage import StepUsage, Usage
from medorchestra.cloud.run_record import case_facts, usage_facts
from medorchestra.synthetic import cases_digest, read_cases

USAGE = Usage(
    {
        "decompose": StepUsage(requests=1, input_tokens=100_000, output_tokens=10_000, guessed=1, seconds=1.23456),
        "write cases": StepUsage(cached=3, cached_input_tokens=300_000, cached_output_tokens=30_000),
    }
)


def test_usage_is_told_by_step_and_in_all():
    facts = usage_facts(USAGE, None)
    assert list(facts["steps"]) == ["decompose", "write cases"]
    assert (facts["steps"]["decompose"]["requests"], facts["steps"]["write cases"]["cached"]) == (1, 3)
    assert (facts["total"]["input_tokens"], facts["total"]["cached_input_tokens"]) == (100_000, 300_000)
    assert facts["total"]["seconds"] == 1.235
    json.dumps(facts)


def test_the_costs_are_told_at_every_known_list_price_with_its_source_and_what_the_cache_saved():
    facts = usage_facts(USAGE, None)["dollars"]
    assert [one["at_the_price_of"] for one in facts] == [price.model for price in LIST_PRICES]
    assert len(facts) >= 2
    for one, price in zip(facts, LIST_PRICES, strict=True):
        assert one["sent"] == pytest.approx(0.1 * price.input + 0.01 * price.output)
        assert one["had_the_cache_been_empty"] == pytest.approx(0.4 * price.input + 0.04 * price.output)
        assert (one["source"], one["read_on"]) == (price.source, price.read_on)
        assert one["share_of_replies_with_guessed_tokens"] == 0.25


def test_a_price_that_was_given_stands_beside_the_known_ones_or_in_place_of_one():
    own = ListPrice("own-model", 1.0, 1.0, "given", "2026-11-24")
    assert usage_facts(USAGE, own)["dollars"][-1]["sent"] == pytest.approx(0.11)
    cheaper = ListPrice(LIST_PRICES[0].model, 0.0, 0.0, "given", "2026-11-24")
    facts = usage_facts(USAGE, cheaper)["dollars"]
    assert len(facts) == len(LIST_PRICES)
    assert facts[0]["sent"] == 0


def test_without_requests_no_share_is_claimed():
    (first, *_) = usage_facts(Usage(), None)["dollars"]
    assert (first["sent"], first["share_of_replies_with_guessed_tokens"]) == (0, None)


def test_cases_are_counted_by_split_and_only_their_digest_is_told():
    cases = read_cases("pancreatic_cancer")
    facts = case_facts(cases)
    assert facts["digest"] == cases_digest(cases)
    assert sum(facts["splits"].values()) == len(cases)
    assert facts["splits"]["held_out"] == len(read_cases("pancreatic_cancer", "held_out"))
    assert len(json.dumps(facts)) < 300
