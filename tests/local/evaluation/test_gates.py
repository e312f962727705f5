"""Gates: what a run has to reach so that a pipeline lets its model in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from medorchestra.errors import SettingsError
from medorchestra.local.evaluation.gates import Gate, check_gates, gates_from
from medorchestra.local.evaluation.measures import share_of


def share(correct, n):
    return share_of([True] * correct + [False] * (n - correct))


def scores(accuracy=(85, 100), unreviewed=(48, 50), review=(50, 100)):
    """Of a run, as far as gates look at it; None where the strategy never asks for review."""
    return SimpleNamespace(
        name="orchestrated + adapter",
        outcome=SimpleNamespace(accuracy=share(*accuracy)),
        unreviewed=None if unreviewed is None else share(*unreviewed),
        reviewed=None if review is None else share(*review),
    )


def passed(gates, run):
    return [one.passed for one in check_gates(gates, run)]


def test_without_options_there_is_no_gate():
    assert gates_from() == ()
    assert check_gates((), scores()) == ()


def test_options_become_gates_in_a_fixed_order():
    assert gates_from(min_accuracy=0.8, min_unreviewed=0.95, max_review=0.4, on="lower-bound") == (
        Gate("accuracy", at_least=0.8, on="lower-bound"),
        Gate("unreviewed", at_least=0.95, on="lower-bound"),
        Gate("review", at_most=0.4, on="lower-bound"),
    )


def test_a_bound_of_zero_is_a_gate():
    assert gates_from(max_review=0.0) == (Gate("review", at_most=0.0),)


def test_the_share_passes_where_the_lower_bound_does_not():
    """85 of 100: the Wilson interval is 0.767 to 0.907."""
    point, bound = (gates_from(min_accuracy=0.8, on=on) for on in ("point", "lower-bound"))
    assert passed(point, scores()) == [True]
    assert passed(bound, scores()) == [False]
    assert check_gates(bound, scores())[0].measured == pytest.approx(0.7672, abs=1e-4)


def test_reaching_the_bound_is_enough():
    assert passed(gates_from(min_accuracy=0.85, max_review=0.5), scores()) == [True, True]
    assert passed(gates_from(min_accuracy=0.86, max_review=0.49), scores()) == [False, False]


def test_at_most_is_held_against_the_upper_end_of_the_interval():
    """50 of 100: the Wilson interval is 0.404 to 0.596."""
    gates = gates_from(max_review=0.55, on="lower-bound")
    result = check_gates(gates, scores())[0]
    assert not result.passed
    assert result.measured == pytest.approx(0.5962, abs=1e-4)
    assert "upper bound" in result.line


@pytest.mark.parametrize("run", [scores(unreviewed=None, review=None), scores(unreviewed=(0, 0), review=(0, 0))])
@pytest.mark.parametrize("on", ["point", "lower-bound"])
def test_what_is_not_defined_does_not_pass_even_the_lowest_gate(run, on):
    results = check_gates(gates_from(min_unreviewed=0.0, max_review=1.0, on=on), run)
    assert [(one.passed, one.measured, one.n) for one in results] == [(False, None, 0)] * 2
    assert "not defined" in results[0].line


def test_the_line_says_what_was_measured_and_what_was_asked():
    told = [one.line for one in check_gates(gates_from(min_accuracy=0.9, max_review=0.6), scores())]
    assert told == [
        "missed: accuracy of orchestrated + adapter: 0.8500 over 100 cases, asked for at least 0.9",
        "passed: review of orchestrated + adapter: 0.5000 over 100 cases, asked for at most 0.6",
    ]


@pytest.mark.parametrize("bound", [80, -0.1, 1.01, float("nan")])
def test_a_bound_that_is_no_share_is_refused(bound):
    with pytest.raises(SettingsError, match=r"write 80 % as 0\.8"):
        gates_from(min_accuracy=bound)


@pytest.mark.parametrize("bounds", [{}, {"at_least": 0.5, "at_most": 0.9}])
def test_a_gate_has_one_bound(bounds):
    with pytest.raises(SettingsError, match="either at_least or at_most"):
        Gate("accuracy", **bounds)


def test_an_unknown_way_of_measuring_is_refused_with_those_there_are():
    with pytest.raises(SettingsError, match="point, lower-bound"):
        gates_from(min_accuracy=0.8, on="upper")
    with pytest.raises(SettingsError, match="point, lower-bound"):
        Gate("accuracy", at_least=0.8, on="upper")
