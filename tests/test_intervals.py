"""Wilson intervals against published values."""

from __future__ import annotations

import pytest

from medorchestra.intervals import wilson_interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 1998;17:857-872, table I, method 3 (score without continuity correction).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_agree_with_newcombe(correct, n, low, high):
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_nothing_counted_is_undefined_and_not_zero():
    assert wilson_interval(0, 0) is None


@pytest.mark.parametrize(("correct", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(correct, n):
    with pytest.raises(ValueError, match="of 3"):
        wilson_interval(correct, n)
