"""Numbers cut into cells: every number that a finding can be has one, and no other cell exists."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.decision_diagram import DecisionTable
from medorchestra.errors import RuleError
from medorchestra.rule_expressions import number_cells
from medorchestra.rules import Bounds, DecisionRule, Domain, Numbers


@pytest.mark.parametrize(
    ("cuts", "numbers", "cells"),
    [
        ((), Numbers(), {0: 0.0}),
        ((2.0, 4.0), Numbers(0.1, 30.0), {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0}),
        ((0.5, 1.0), Numbers(0.1, 30.0), {0: 0.1, 1: 0.5, 2: 0.6, 3: 1.0, 4: 2.0}),
        ((0.0, 1.0, 3.0, 4.0), Numbers(0, 90, whole=True), {1: 0.0, 3: 1.0, 4: 2.0, 5: 3.0, 7: 4.0, 8: 5.0}),
        ((2.5,), Numbers(0, 90, whole=True), {0: 0.0, 2: 3.0}),
        ((40.0,), Numbers(0.1, 30.0), {0: 1.0}),
    ],
)
def test_only_cells_that_hold_a_number_exist(cuts, numbers, cells):
    assert number_cells(cuts, numbers) == cells


@given(
    st.lists(st.floats(-50, 50).map(lambda cut: round(cut, 3)), max_size=5, unique=True).map(sorted),
    st.floats(-60, 60),
    st.floats(0.001, 60),
    st.booleans(),
    st.floats(-60, 120),
)
def test_every_number_that_a_finding_can_be_has_a_cell(cuts, minimum, width, whole, number):
    numbers = Numbers(minimum, minimum + width, whole)
    number = math.floor(number) if whole else number
    if not numbers.holds(number):
        return
    cells = number_cells(cuts, numbers)
    place = 2 * sum(cut < number for cut in cuts) + (number in cuts)
    assert place in cells
    assert all(numbers.holds(sample) for sample in cells.values())
    assert list(cells.values()) == sorted(cells.values())


NODES = Domain("nodes", None, numbers=Numbers(0, 90, whole=True))
BY_COUNT = (
    DecisionRule("n0", "N0", Bounds(finding="nodes", at_most=0)),
    DecisionRule("n1", "N1", Bounds(finding="nodes", at_least=1, at_most=3)),
    DecisionRule("n2", "N2", Bounds(finding="nodes", at_least=4)),
)


def test_an_unknown_count_lies_on_no_number_between_whole_ones():
    verdict = DecisionTable(BY_COUNT, (NODES,)).decide({})
    assert verdict.possible == ("N0", "N1", "N2")
    assert not verdict.gap


@pytest.mark.parametrize("number", [3.5, -1, 91])
def test_a_number_that_the_finding_cannot_be_is_refused(number):
    with pytest.raises(RuleError, match="it is whole, from 0 to 90"):
        DecisionTable(BY_COUNT, (NODES,)).decide({"nodes": number})


def test_a_range_without_a_number_is_refused():
    empty = Domain("nodes", None, numbers=Numbers(0.2, 0.8, whole=True))
    with pytest.raises(RuleError, match="no number lies in its range"):
        DecisionTable(BY_COUNT, (empty,))
