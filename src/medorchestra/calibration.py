"""Makes probabilities mean what they say, and decides which decisions a person has to look at. Pure arithmetic.

Temperatures for findings (Guo et al., arXiv 1706.04599), a threshold on the outcome's probability for a stated risk
(selective classification, Geifman & El-Yaniv, arXiv 1705.08500) and a quantile for sets of outcomes with finite-sample
coverage (split conformal prediction; Vovk et al. 2005, Angelopoulos & Bates, arXiv 2107.07511). Knows distributions
and truths; knows neither reports nor models, so that synthetic cases and a hospital's own labels are treated alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

FEWEST_FOR_TEMPERATURE = 20
"""Labelled answers below which a finding keeps its temperature of 1."""
FEWEST_KEPT = 20
"""Decisions that must be left unreviewed before a threshold is believed."""
_LOWEST, _HIGHEST = 0.25, 20.0
_FLOOR = 1e-6
"""Probability that any value keeps, so that one wrong certainty does not count as infinitely bad."""
_SAME = 1e-9
"""Probabilities nearer than this are one: sums of the same shares differ by less."""
_PRIOR_STRENGTH = 2.0
"""Pull of the logarithm of a temperature towards 0, in answers: few labels move it little."""

Distribution = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LabelledDecision:
    """What was decided on a report whose outcome is known.

    Attributes:
        probability: of the most probable outcome.
        right: whether that is the true one.
        probability_of_truth: that the true outcome had; None where several outcomes remain possible.
        reviewed: whether a person looks at it whatever its probability.
    """

    probability: float
    right: bool
    probability_of_truth: float | None
    reviewed: bool = False


@dataclass(frozen=True, slots=True)
class Threshold:
    """A probability below which decisions go to a person.

    Attributes:
        review_below: the threshold.
        kept: decisions at or above it that nothing else sends to a person.
        wrong: of those.
        of: all decisions.
    """

    review_below: float
    kept: int
    wrong: int
    of: int


def tempered(distribution: Distribution, temperature: float) -> dict[str, float]:
    """The distribution with its logits divided by a temperature: above 1 less sure, below 1 surer; same order.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: must be positive")
    if not distribution:
        return {}
    highest = max(distribution.values())
    weights = {
        value: (share / highest) ** (1 / temperature) if share > 0 else 0.0 for value, share in distribution.items()
    }
    total = math.fsum(weights.values())
    return {value: weight / total for value, weight in weights.items()}


def fit_temperature(scored: Sequence[tuple[Distribution, str]]) -> float:
    """The temperature at which the labels are likeliest, pulled a little towards 1.

    Args:
        scored: (distribution, true value) of each labelled answer.

    Returns:
        1.0 where there are fewer than `FEWEST_FOR_TEMPERATURE`.
    """
    if len(scored) < FEWEST_FOR_TEMPERATURE:
        return 1.0

    def badness(logarithm: float) -> float:
        lost = -sum(
            math.log(max(tempered(distribution, math.exp(logarithm)).get(truth, 0.0), _FLOOR))
            for distribution, truth in scored
        )
        return lost + _PRIOR_STRENGTH * logarithm**2

    return round(math.exp(_lowest(badness, math.log(_LOWEST), math.log(_HIGHEST))), 4)


def _lowest(function: Callable[[float], float], low: float, high: float, places: int = 24, steps: int = 40) -> float:
    """Where a function is lowest: the best of some places, and golden-section search around it.

    `_FLOOR` gives the loss plateaus, on which the search alone would end in the wrong valley.
    """
    apart = (high - low) / places
    best = min((low + n * apart for n in range(places + 1)), key=function)
    low, high = max(low, best - apart), min(high, best + apart)
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(steps):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def choose_threshold(decisions: Sequence[LabelledDecision], risk: float) -> Threshold | None:
    """The lowest threshold at which at most `risk` of the decisions left unreviewed are wrong.

    Args:
        decisions: labelled ones; those that are reviewed anyway count for nothing but `of`.
        risk: share of wrong decisions that is accepted among those that nobody looks at.

    Returns:
        None where no threshold leaves `FEWEST_KEPT` decisions at that risk.
    """
    best = None
    for step in _steps(decisions):
        if step.kept >= FEWEST_KEPT and step.wrong / step.kept <= risk:
            best = step
    return best


def risk_coverage(decisions: Sequence[LabelledDecision]) -> list[tuple[float, float]]:
    """(share of decisions left unreviewed, share of wrong ones among them), from the surest on.

    Decisions that are reviewed anyway count in the share and are never left.
    """
    return [(step.kept / step.of, step.wrong / step.kept) for step in _steps(decisions)]


def _steps(decisions: Sequence[LabelledDecision]) -> Iterator[Threshold]:
    """Every threshold that makes a difference, from the highest on. Decisions of one probability stay together."""
    kept = sorted((one for one in decisions if not one.reviewed), key=lambda one: -one.probability)
    wrong = 0
    for n, one in enumerate(kept, start=1):
        wrong += not one.right
        if n == len(kept):
            yield Threshold(0.0, n, wrong, len(decisions))
        elif one.probability - kept[n].probability > _SAME:
            yield Threshold(_between(min(one.probability, 1.0), kept[n].probability), n, wrong, len(decisions))


def _between(upper: float, lower: float) -> float:
    """A number with few digits above the one and below the other, which are further apart than `_SAME`."""
    middle = (upper + lower) / 2
    rounded = (round(middle, digits) for digits in range(4, 12))
    return next((short for short in rounded if lower < short < upper), middle)


def conformal_floor(decisions: Sequence[LabelledDecision], coverage: float) -> float | None:
    """Probability that an outcome must have to be in the set that holds the true one with this coverage.

    Split conformal prediction with one minus the true outcome's probability as score; valid for exchangeable reports.

    Args:
        decisions: labelled ones, that nothing was fitted to; those without a single true outcome are left aside.
        coverage: wanted share of sets that hold the truth, between 0 and 1.

    Returns:
        None where there are too few labels for this coverage: every outcome is in the set then.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage {coverage}: between 0 and 1")
    known = [one.probability_of_truth for one in decisions if one.probability_of_truth is not None]
    n = len(known)
    place = math.ceil((n + 1) * coverage)
    if place > n:
        return None
    return sorted(known, reverse=True)[place - 1]
