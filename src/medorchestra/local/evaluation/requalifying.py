"""Whether another model, adapter or quantization may take the place of the one in use: accept, reject, too few cases.

Compares two runs on the same labelled cases. A new model need not be better; it must not be worse by more than a
margin that was set beforehand. Asks no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from medorchestra.errors import SettingsError
from medorchestra.intervals import Z_95
from medorchestra.local.engine.protocol import ModelIdentity
from medorchestra.local.evaluation.error_anatomy import is_read_right
from medorchestra.local.evaluation.measures import PairedDifference, Share, needed_pairs, paired_difference, share_of
from medorchestra.local.evaluation.predictions import LabelledCase, Prediction, StrategyRun

POWER = 0.8
"""Probability with which the number of cases needed leads to a verdict, if the difference is what it looks like."""
SIGNIFICANT = 0.05

Verdict = Literal["accept", "reject", "too few cases"]


@dataclass(frozen=True, slots=True)
class Requalification:
    """The verdict on a new model, and what it rests on.

    Attributes:
        verdict: `accept` where the new one is not worse by `margin` or more (lower bound of the difference above
            `-margin`), even if it is a little worse for certain; `reject` where it is worse for certain, beyond the
            margin (upper bound below `-margin`) or by the exact McNemar test; else `too few cases`.
        n: cases with a single true outcome.
        old, new: accuracies.
        difference: of the accuracies, new less old.
        low, high: the bounds that decide: 95 % score interval of the difference (`PairedDifference.score_interval`,
            which stays wide where few cases changed; the bootstrap does not). None without cases.
        margin: the loss of accuracy from which a new model is not accepted.
        needed: cases that would bring a verdict with 80 % probability if difference and changes are what they look
            like here, by the normal distribution; None where there is a verdict, and without cases.
        findings: finding -> difference of the shares read right, where both runs read it and it is labelled. They tell
            where to look and have no part in the verdict.
    """

    verdict: Verdict
    n: int
    old: Share
    new: Share
    difference: PairedDifference
    low: float | None
    high: float | None
    margin: float
    needed: int | None
    findings: Mapping[str, PairedDifference]


def requalify(
    cases: Sequence[LabelledCase], old: StrategyRun, new: StrategyRun, *, margin: float = 0.03, seed: int = 1
) -> Requalification:
    """Judge a new run against an old one.

    Args:
        cases: those that both decided.
        old, new: the runs, in the order of the cases.
        margin: the loss of accuracy from which a new model is not accepted, set before looking.
        seed: of the bootstrap in the differences.

    Raises:
        SettingsError: the margin does not lie between 0 and 1.
        ValueError: the runs are not on these cases in this order.
    """
    require_margin(margin)
    both = _paired(cases, old, new)
    hits = [(one.is_right(case), other.is_right(case)) for case, one, other in both if case.truth is not None]
    difference = paired_difference([one for one, _ in hits], [other for _, other in hits], seed=seed)
    low, high = difference.score_interval or (None, None)
    verdict = _verdict(difference, margin)
    return Requalification(
        verdict=verdict,
        n=len(hits),
        old=share_of(one for one, _ in hits),
        new=share_of(other for _, other in hits),
        difference=difference,
        low=low,
        high=high,
        margin=margin,
        needed=_needed(difference, margin) if verdict == "too few cases" else None,
        findings=_findings(both, seed),
    )


def require_margin(margin: float) -> None:
    """Refuse what is no loss of accuracy, before anything is run.

    Raises:
        SettingsError: the margin does not lie between 0 and 1.
    """
    if not 0 < margin < 1:
        raise SettingsError(f"margin {margin:g}: a loss of accuracy between 0 and 1, such as 0.03")


def require_two_models(old: ModelIdentity, new: ModelIdentity) -> None:
    """Refuse two model servers whose models cannot be told apart: kept answers of one would be taken for the other's,
    and any new model would be found as good as the old one.

    Raises:
        SettingsError: they tell the same of their models.
    """
    if not (old.is_of_server and new.is_of_server) or old.digest != new.digest or old.settings != new.settings:
        return
    raise SettingsError(
        f"--model and --against: both servers tell the same of their models ({new.name}, {new.digest[:19]}), so that "
        "kept answers of one would be taken for the other's; serve the new one under a name of its own (llama-server "
        "--alias, vLLM --served-model-name)"
    )


def _paired(
    cases: Sequence[LabelledCase], old: StrategyRun, new: StrategyRun
) -> list[tuple[LabelledCase, Prediction, Prediction]]:
    ids = [case.case_id for case in cases]
    for run in (old, new):
        if [said.case_id for said in run.predictions] != ids:
            raise ValueError(f"run {run.name!r} is not on these {len(ids)} cases in this order")
    return list(zip(cases, old.predictions, new.predictions, strict=True))


def _verdict(difference: PairedDifference, margin: float) -> Verdict:
    bounds = difference.score_interval
    if bounds is None:
        return "too few cases"
    low, high = bounds
    if low > -margin:
        return "accept"
    is_worse = high < 0 and difference.p_value is not None and difference.p_value < SIGNIFICANT
    return "reject" if is_worse or high < -margin else "too few cases"


def _needed(difference: PairedDifference, margin: float) -> int | None:
    """Cases for whichever verdict is nearer: not worse by the margin, or worse."""
    n = difference.n
    if n == 0:
        return None
    gain, loss = difference.gained / n, difference.lost / n
    # Where no case changed, the score interval reaches down to z2 / (n + z2): fewer cases never accept.
    fewest = math.floor(Z_95**2 * (1 - margin) / margin) + 1
    found = []
    if gain - loss > -margin:
        quantiles = Z_95 + NormalDist().inv_cdf(POWER)
        spread = max(0.0, gain + loss - (gain - loss) ** 2)
        found.append(max(fewest, math.ceil(quantiles**2 * spread / (margin + gain - loss) ** 2)))
    if gain < loss:
        to_reject = needed_pairs(gain, loss, power=POWER, alpha=SIGNIFICANT)
        found += [] if to_reject is None else [to_reject]
    return max(n + 1, min(found))


def _findings(both: Sequence[tuple[LabelledCase, Prediction, Prediction]], seed: int) -> dict[str, PairedDifference]:
    """In the order of the subtasks; an answer that failed is wrong."""
    hits: dict[str, list[tuple[bool, bool]]] = {}
    for case, one, other in both:
        if one.staged is None or other.staged is None:
            continue
        before = {answer.finding: answer for answer in one.staged.answers}
        after = {answer.finding: answer for answer in other.staged.answers}
        for name in before | after:
            if name is not None and name in case.labels.findings:
                truth = case.labels.findings[name]
                pair = (is_read_right(before.get(name), truth), is_read_right(after.get(name), truth))
                hits.setdefault(name, []).append(pair)
    return {
        name: paired_difference([one for one, _ in found], [other for _, other in found], seed=seed)
        for name, found in hits.items()
    }
