"""Kleene logic of single conditions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from strategies import completions, conditions, domains, knowledge

from medorchestra.rules import (
    NOT_STATED,
    AllOf,
    AnyOf,
    Bounds,
    Condition,
    Domain,
    Is,
    Not,
    OptionIs,
    evaluate,
    findings_in,
)

ADAPTER = TypeAdapter(Condition)

YES, NO, UNKNOWN = Is(finding="a", is_="yes"), Is(finding="a", is_="no"), Is(finding="b", is_="yes")
KNOWN = {"a": "yes", "b": None}


@pytest.mark.parametrize(
    ("condition", "truth"),
    [
        (YES, True),
        (NO, False),
        (UNKNOWN, None),
        (Not(not_=UNKNOWN), None),
        (AllOf(all=(YES, UNKNOWN)), None),
        (AllOf(all=(NO, UNKNOWN)), False),
        (AnyOf(any=(YES, UNKNOWN)), True),
        (AnyOf(any=(NO, UNKNOWN)), None),
        (OptionIs(option="x", is_="on"), None),
    ],
)
def test_unknown_spreads_as_kleene_says(condition, truth):
    assert evaluate(condition, KNOWN) is truth


def test_silence_is_not_no():
    assert evaluate(Is(finding="a", is_="no"), {"a": NOT_STATED}) is None
    assert evaluate(Not(not_=Is(finding="a", is_="yes")), {"a": NOT_STATED}) is None
    assert evaluate(Bounds(finding="size", above=2), {"size": NOT_STATED}) is None


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"above": 2}, 2.1, 2.0),
        ({"at_least": 2}, 2.0, 1.9),
        ({"below": 2}, 1.9, 2.0),
        ({"at_most": 2}, 2.0, 2.1),
        ({"above": 2, "at_most": 4}, 4.0, 4.1),
    ],
)
def test_bounds_include_or_exclude_themselves(bounds, inside, outside):
    condition = Bounds(finding="size", **bounds)
    assert evaluate(condition, {"size": inside}) is True
    assert evaluate(condition, {"size": outside}) is False


@st.composite
def evaluations(draw: st.DrawFn):
    """A condition, what is known, and every truth that fits."""
    # Silence counts as unknown in `evaluate`, so the truths behind it are taken without what the plan reads into it.
    table = tuple(Domain(domain.finding, domain.values) for domain in draw(domains()))
    known = draw(knowledge(table))
    return draw(conditions(table)), known, completions(table, known)


@given(evaluations())
def test_what_kleene_calls_true_or_false_is_so_in_every_completion(example):
    condition, known, truths = example
    verdict = evaluate(condition, known)
    if verdict is not None:
        assert {evaluate(condition, truth) for truth in truths} == {verdict}


@given(domains().flatmap(conditions))
def test_a_condition_survives_json(condition):
    dumped = ADAPTER.dump_python(condition, mode="json", by_alias=True)
    assert ADAPTER.validate_python(dumped) == condition


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"finding": "a"},
        {"finding": "a", "is": "yes", "in": ["no"]},
        {"all": []},
        {"any": [{"finding": "a", "is": "x"}], "all": [{"finding": "a", "is": "x"}]},
        {"finding": "a", "above": float("inf")},
        "a == 'yes'",
        ["a"],
    ],
)
def test_what_is_not_a_condition_is_refused(broken):
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(broken)


def test_findings_are_named_once_in_order():
    condition = AllOf(all=(Is(finding="b", is_="x"), Not(not_=Is(finding="a", is_="x")), Is(finding="b", is_="y")))
    assert findings_in(condition) == ("b", "a")
