"""The numbers of an evaluation: accuracy, classes, agreement, differences, reliability, risk, coverage, repeatability.

Pure counting over plain sequences; knows neither reports nor plans nor models. A number that is not defined is None. An
answer of None is `no decision`: it is never right, and agrees with nothing but another `no decision` of a repeated run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Any

import numpy as np

from medorchestra.calibration import LabelledDecision, risk_coverage
from medorchestra.errors import SettingsError
from medorchestra.intervals import Z_95, wilson_interval
from medorchestra.local.calibrating import OPEN
from medorchestra.local.evaluation.predictions import NO_DECISION
from medorchestra.rehearsal_scores import CALIBRATION_BINS, PairedComparison, calibration

_HALVINGS = 60
"""Steps that find a bound between -1 and 1 to the last digit of a float."""
_ROUNDING = 1e-9
"""What shares of one whole may add up to beyond 1."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of cases.

    Attributes:
        correct: cases for which it holds.
        n: cases that were counted.
        low, high: 95 % Wilson interval; None where nothing was counted.
    """

    correct: int
    n: int
    low: float | None
    high: float | None

    @property
    def value(self) -> float | None:
        """The share, 0 to 1; None where nothing was counted."""
        return self.correct / self.n if self.n else None


def share_of(hits: Iterable[bool]) -> Share:
    """The share of hits."""
    found = list(hits)
    return _share(sum(found), len(found))


def _share(correct: int, n: int) -> Share:
    low, high = wilson_interval(correct, n) or (None, None)
    return Share(correct, n, low, high)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well one outcome is found.

    Attributes:
        precision: of the cases that got this outcome, those that have it; None where no case got it.
        recall: of the cases that have this outcome, those that got it; None where no case has it.
        f1: twice the cases that have it and got it, by the sum of `support` and `predicted`; None where that sum is 0.
        support: cases that have it.
        predicted: cases that got it.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int


@dataclass(frozen=True, slots=True)
class OutcomeScores:
    """Predicted outcomes against the true ones.

    Attributes:
        accuracy: cases with the right outcome; a case without decision is wrong.
        classes: outcome -> its score, every outcome in the given order.
        macro_precision, macro_recall, macro_f1: mean over the outcomes for which the number is defined; an outcome that
            was never predicted has no precision and is missing in that mean (its F1 is 0 and counts). None where it is
            defined for none.
        confusion: (true, predicted) -> cases; predicted may be `NO_DECISION`, or `OPEN` where a reader said so.
    """

    accuracy: Share
    classes: Mapping[str, ClassScore]
    macro_precision: float | None
    macro_recall: float | None
    macro_f1: float | None
    confusion: Mapping[tuple[str, str], int]


def score_outcomes(truths: Sequence[str], predicted: Sequence[str | None], outcomes: Sequence[str]) -> OutcomeScores:
    """Measure predicted outcomes.

    Args:
        truths: the true outcome of every case.
        predicted: what was said of it: an outcome, `OPEN`, or None for no decision.
        outcomes: all outcomes, in the order of the plan.

    Raises:
        ValueError: the two differ in length, or hold what is not an outcome.
        SettingsError: scikit-learn is not installed.
    """
    pairs = list(zip(truths, predicted, strict=True))
    strange = sum(truth not in outcomes for truth, _ in pairs)
    strange_said = sum(said is not None and said != OPEN and said not in outcomes for _, said in pairs)
    if strange or strange_said:
        raise ValueError(f"{strange} truths and {strange_said} predictions of {len(pairs)} are none of the outcomes")
    named = [(truth, NO_DECISION if said is None else said) for truth, said in pairs]
    classes = _classes(named, outcomes)
    return OutcomeScores(
        accuracy=share_of(truth == said for truth, said in named),
        classes=classes,
        macro_precision=_mean(score.precision for score in classes.values()),
        macro_recall=_mean(score.recall for score in classes.values()),
        macro_f1=_mean(score.f1 for score in classes.values()),
        confusion=dict(Counter(named)),
    )


def _classes(named: Sequence[tuple[str, str]], outcomes: Sequence[str]) -> dict[str, ClassScore]:
    if not named:
        return {outcome: ClassScore(None, None, None, 0, 0) for outcome in outcomes}
    truths, said = [truth for truth, _ in named], [said for _, said in named]
    columns = _metrics().precision_recall_fscore_support(
        truths, said, labels=list(outcomes), average=None, zero_division=math.nan
    )
    given = Counter(said)
    return {
        outcome: ClassScore(_number(precision), _number(recall), _number(f1), int(support), given[outcome])
        for outcome, precision, recall, f1, support in zip(outcomes, *columns, strict=True)
    }


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two agree, whoever is right.

    Attributes:
        n: cases of which at least one said something; no decision of the other is then a disagreement.
        observed: share of them on which both say the same; None without cases.
        kappa: Cohen's kappa (Cohen 1960): agreement beyond chance, 1 at most; None where both say one and the same of
            every case, so that nothing is beyond chance.
        weighted_kappa: with quadratic weights (Cohen 1968): outcomes further apart in the order disagree more; None
            without order, or as above.
        weighted_n: cases behind it: both said an outcome of the order.
    """

    n: int
    observed: float | None
    kappa: float | None
    weighted_kappa: float | None
    weighted_n: int


def agreement(a: Sequence[str | None], b: Sequence[str | None], order: Sequence[str] = ()) -> Agreement:
    """How far two agree on the same cases.

    Args:
        a, b: what each said of every case; None for no decision. Cases of which neither said anything are left aside.
        order: outcomes that have an order, lowest first.

    Raises:
        ValueError: the two differ in length.
        SettingsError: scikit-learn is not installed.
    """
    pairs = [(one or NO_DECISION, other or NO_DECISION) for one, other in zip(a, b, strict=True) if one or other]
    ordered = [(one, other) for one, other in pairs if one in order and other in order]
    return Agreement(
        n=len(pairs),
        observed=sum(one == other for one, other in pairs) / len(pairs) if pairs else None,
        kappa=_kappa(pairs),
        weighted_kappa=_kappa(ordered, labels=list(order), weights="quadratic"),
        weighted_n=len(ordered),
    )


def _kappa(pairs: Sequence[tuple[str, str]], **how: Any) -> float | None:
    if len({said for pair in pairs for said in pair}) < 2:
        return None
    return float(_metrics().cohen_kappa_score([one for one, _ in pairs], [other for _, other in pairs], **how))


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The same cases decided twice: how much better the second is.

    Attributes:
        n: cases.
        gained: right only the second time.
        lost: right only the first time.
        difference: of the two accuracies, second less first; None without cases.
        low, high: 95 % interval by the bootstrap (percentiles of the difference over resampled cases). None where no
            case, or every case, changed in the same way: resampling then shows no spread. With few changed cases it is
            too narrow; `score_interval` is not.
        p_value: exact two-sided McNemar test; None without cases.
    """

    n: int
    gained: int
    lost: int
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None

    @property
    def score_interval(self) -> tuple[float, float] | None:
        """95 % score interval of the difference (Tango, Statistics in Medicine 1998;17:891-908), None without cases.

        It keeps a width where no case changed (then as wide as the Wilson interval of none of n), so that a claim such
        as "not worse by more than a margin" cannot be made from a handful of cases.
        """
        if self.n == 0:
            return None
        observed = (self.gained - self.lost) / self.n
        return self._bound(-1.0, observed), self._bound(1.0, observed)

    def _bound(self, outside: float, inside: float) -> float:
        """Where the true difference stops being compatible with the counts, by halving."""
        for _ in range(_HALVINGS):
            middle = (outside + inside) / 2
            if self._is_compatible(middle):
                inside = middle
            else:
                outside = middle
        return inside

    def _is_compatible(self, difference: float) -> bool:
        """Whether the score test keeps this true difference at 5 %."""
        n, gained, lost = self.n, self.gained, self.lost
        linear = (2 * n - gained + lost) * difference - gained - lost
        constant = -lost * difference * (1 - difference)
        # Share of lost cases that is likeliest under this difference: root of 2n x^2 + linear x + constant.
        likeliest = (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
        variance = n * (2 * likeliest + difference * (1 - difference))
        return (gained - lost - n * difference) ** 2 <= Z_95**2 * variance


def paired_difference(
    before: Sequence[bool], after: Sequence[bool], *, seed: int = 1, resamples: int = 10_000
) -> PairedDifference:
    """Compare two who decided the same cases.

    Args:
        before, after: whether each case was decided rightly, the first and the second time.
        seed: of the bootstrap; one seed gives one result.
        resamples: of the bootstrap.

    Raises:
        ValueError: the two differ in length.
    """
    pairs = Counter((bool(one), bool(other)) for one, other in zip(before, after, strict=True))
    n, gained, lost = pairs.total(), pairs[False, True], pairs[True, False]
    if n == 0:
        return PairedDifference(0, 0, 0, None, None, None, None)
    low = high = None
    if gained + lost > 0 and n not in (gained, lost):
        # Drawing n cases with replacement changes nothing but how many of each kind there are: the counts are drawn.
        shares = [gained / n, lost / n, (n - gained - lost) / n]
        drawn = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
        low, high = (float(bound) for bound in np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.025, 0.975]))
    return PairedDifference(n, gained, lost, (gained - lost) / n, low, high, PairedComparison(gained, lost).p_value)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Decisions of about the same probability.

    Attributes:
        low, high: bounds of the probability; `high` belongs to the next bin, but for 1.
        n: decisions, at least one.
        confidence: their mean probability.
        accuracy: share of right ones.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Whether probabilities mean what they say.

    Attributes:
        n: decisions.
        ece: expected calibration error: mean distance of confidence and accuracy over the bins, weighted by decisions.
        brier: mean squared distance of the distribution from the truth, 0 to 2.
        bins: those with decisions, lowest first.
    """

    n: int
    ece: float | None
    brier: float | None
    bins: tuple[ReliabilityBin, ...]


def reliability(scored: Sequence[tuple[Mapping[str, float], str]]) -> Reliability:
    """Measure probabilities as `rehearsal_scores.calibration` does, with the bins behind it.

    Args:
        scored: (outcome -> probability, true outcome) of each decision; no distribution is empty.
    """
    ece, brier = calibration(scored)
    found: dict[int, list[tuple[float, bool]]] = {}
    for distribution, truth in scored:
        chosen = max(distribution, key=distribution.__getitem__)
        place = min(int(distribution[chosen] * CALIBRATION_BINS), CALIBRATION_BINS - 1)
        found.setdefault(place, []).append((distribution[chosen], chosen == truth))
    bins = tuple(
        ReliabilityBin(
            low=place / CALIBRATION_BINS,
            high=(place + 1) / CALIBRATION_BINS,
            n=len(decisions),
            confidence=fmean(confidence for confidence, _ in decisions),
            accuracy=fmean(right for _, right in decisions),
        )
        for place, decisions in sorted(found.items())
    )
    return Reliability(len(scored), ece, brier, bins)


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """How many are wrong among the surest decisions.

    Attributes:
        points: (share of decisions that are kept, share of wrong ones among them), surest first; decisions of one
            probability come in together.
        area: mean of that risk over keeping 1, 2, ... all decisions (area under the curve; Geifman et al., arXiv
            1805.08206), mean over the orders of those of one probability; smaller is better. None without decisions.
    """

    points: tuple[tuple[float, float], ...]
    area: float | None


def risk_coverage_of(confidences: Sequence[float], rights: Sequence[bool]) -> RiskCoverage:
    """Risk and coverage of decisions.

    Args:
        confidences: probability of every decision.
        rights: whether it is right.

    Raises:
        ValueError: the two differ in length.
    """
    decisions = [LabelledDecision(one, bool(right), None) for one, right in zip(confidences, rights, strict=True)]
    if not decisions:
        return RiskCoverage((), None)
    points, n = risk_coverage(decisions), len(decisions)
    risks: list[float] = []
    wrong_before = 0
    for coverage, risk in points:
        kept, before = round(coverage * n), len(risks)
        wrong = round(risk * kept)
        each = (wrong - wrong_before) / (kept - before)
        risks += [(wrong_before + each * (place - before)) / place for place in range(before + 1, kept + 1)]
        wrong_before = wrong
    return RiskCoverage(tuple(points), fmean(risks))


@dataclass(frozen=True, slots=True)
class Repeatability:
    """Whether runs over the same cases say the same, right or wrong; no decision twice is the same.

    Attributes:
        runs: how many.
        n: cases.
        identical: cases of which all runs say the same.
        pairwise: share of the pairs of runs that say the same of a case, mean over cases. None, and `identical` of
            nothing, without cases or with fewer than two runs.
    """

    runs: int
    n: int
    identical: Share
    pairwise: float | None


def repeatability(runs: Sequence[Sequence[str | None]]) -> Repeatability:
    """Compare runs.

    Args:
        runs: for each run, what it said of every case.

    Raises:
        ValueError: the runs differ in length.
    """
    said = [Counter(case) for case in zip(*runs, strict=True)]
    if len(runs) < 2 or not said:
        return Repeatability(len(runs), len(said), share_of([]), None)
    pairs = math.comb(len(runs), 2)
    alike = [sum(math.comb(times, 2) for times in case.values()) for case in said]
    return Repeatability(
        runs=len(runs),
        n=len(said),
        identical=share_of(same == pairs for same in alike),
        pairwise=sum(alike) / (pairs * len(said)),
    )


def needed_pairs(gain: float, loss: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Cases that a two-sided McNemar test needs (Connor, Biometrics 1987;43:207-211).

    By the normal distribution: the exact test needs a few more.

    Args:
        gain: expected share of cases that only the second gets right.
        loss: expected share of cases that only the first gets right.
        power: wanted probability of finding the difference.
        alpha: accepted probability of finding one that is not there.

    Returns:
        None where gain and loss are equal: there is nothing to find.

    Raises:
        ValueError: impossible shares, or power or alpha not between 0 and 1.
    """
    if not (gain >= 0 and loss >= 0 and gain + loss <= 1 + _ROUNDING and 0 < power < 1 and 0 < alpha < 1):
        raise ValueError(f"gain {gain}, loss {loss}, power {power}, alpha {alpha}: not shares that go together")
    if gain == loss:
        return None
    changed, difference = gain + loss, gain - loss
    normal = NormalDist()
    root = normal.inv_cdf(1 - alpha / 2) * math.sqrt(changed) + normal.inv_cdf(power) * math.sqrt(
        max(0.0, changed - difference**2)
    )
    return math.ceil((root / difference) ** 2)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _metrics() -> Any:
    try:
        from sklearn import metrics
    except ImportError:
        raise SettingsError("scikit-learn is not installed; run `pip install medorchestra[evaluation]`") from None
    return metrics
