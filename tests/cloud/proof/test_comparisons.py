"""Comparisons read from English words and symbols."""

from __future__ import annotations

import pytest

from medorchestra.cloud.proof.comparisons import comparisons_in


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("more than 180 degrees", ["above 180 degrees"]),
        ("contact of 180 degrees or less with the artery", ["at most 180 degrees"]),
        ("at most 180°", ["at most 180 degrees"]),
        ("not more than 180 degrees", ["at most 180 degrees"]),
        ("greater than or equal to 180 degrees", ["at least 180 degrees"]),
        ("less than 1 cm", ["below 1 cm"]),
        ("does not exceed 4 cm", ["at most 4 cm"]),
        ("exactly 3 nodes", ["exactly 3"]),
        ("four or more nodes", ["at least 4"]),
        ("≥ 20 mm", ["at least 20 mm"]),
        ("> 2 to 4 cm", ["above 2 cm", "at most 4 cm"]),
        ("1 to 2 cm", ["at least 1 cm", "at most 2 cm"]),
        ("2-4 cm", ["at least 2 cm", "at most 4 cm"]),
        ("> 0.5 and < 1 cm", ["above 0.5 cm", "below 1 cm"]),
        ("larger than 2 cm but not larger than 4 cm", ["above 2 cm", "at most 4 cm"]),
        ("<=180_smooth", ["at most 180"]),
        (">180", ["above 180"]),
        ("le_180", ["at most 180"]),
        ("4_or_more", ["at least 4"]),
    ],
)
def test_a_comparison_is_read(text, says):
    assert [str(comparison) for comparison in comparisons_in(text)] == says


@pytest.mark.parametrize("text", ["contact of 180 degrees", "station 16", "one of them", "a mass of 2.1 x 1.7 cm"])
def test_a_number_without_a_comparison_says_nothing(text):
    assert comparisons_in(text) == ()


def test_the_ends_of_between_may_lie_on_either_side():
    found = {str(comparison) for comparison in comparisons_in("between 2 and 4 cm")}
    assert found == {"above 2 cm", "at least 2 cm", "below 4 cm", "at most 4 cm"}


def test_a_side_tells_where_a_number_belongs_only_where_nothing_else_is_said_of_it():
    side = "Exactly 180 degrees is on the {} side."
    assert [str(one) for one in comparisons_in(side.format("lower"))] == ["at most 180 degrees", "above 180 degrees"]
    assert [str(one) for one in comparisons_in(side.format("upper"))] == ["below 180 degrees", "at least 180 degrees"]
    both = "More than 180 degrees. " + side.format("lower")
    assert [str(one) for one in comparisons_in(both)] == ["above 180 degrees"]


def test_lengths_are_brought_to_one_unit_and_degrees_are_no_length():
    (comparison,) = comparisons_in("more than 20 mm")
    assert str(comparison.in_unit("cm")) == "above 2 cm"
    assert comparison.in_unit("degrees") is None
