"""The pictures of `adapter.py`: risk against coverage, and stated against true probability. SVG, the same for the same
numbers. Counts nothing itself; matplotlib is loaded here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from adapter_measures import (
    Bin,
    CurvePoint,
    Reader,
    bins_of,
    curve_of,
    of_form,
    scored_finding,
    scored_outcome,
    unreviewed_share,
)

from medorchestra.errors import SettingsError
from medorchestra.intervals import wilson_interval
from medorchestra.plan import Plan

GOAL_LEFT, GOAL_WRONG = 0.65, 0.05
"""The goal: at most 35 % sent to review, at least 95 % right of the rest."""
TUNED, BARE, MUTED = "#0b5fa5", ("#b5520b", "#8a7a00"), "#6b6b6b"
FORM_LOOK = {"free_text": (":", "#5b8fc0"), "structured": ("--", "#5b8fc0")}


@contextmanager
def figure(path: Path, size: tuple[float, float], columns: int) -> Iterator[list[Any]]:
    """The axes of one row of drawings; written to `path` at the end.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise SettingsError("pictures need matplotlib: pip install 'medorchestra[dev]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings: Any = {"svg.hashsalt": path.name, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(settings):
        drawing, axes = pyplot.subplots(1, columns, figsize=size, squeeze=False, layout="constrained")
        try:
            yield list(axes[0])
            # Without its own date, a picture of the same numbers is the same file.
            drawing.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
        finally:
            pyplot.close(drawing)


# ------------------------------------------------------------------------------------------------ risk and coverage


def draw_risk_coverage(
    path: Path, tuned: Reader, others: Sequence[Reader], made_on: date, *, most_left: float | None = None
) -> None:
    """Share of wrong decisions among those left unreviewed, against the share left.

    Args:
        path: the picture.
        tuned: drawn by form, and with intervals.
        others: drawn as one curve each.
        made_on: stands in the picture.
        most_left: share that a perfect reader leaves, which the plan itself sends no further; None: not drawn.
    """
    n = len(tuned.scores.readings)
    points = curve_of(tuned.unthresholded)
    alone = curve_of(tuned.unthresholded, all_reasons=False)
    with figure(path, (10.5, 5.0), 1) as (axes,):
        axes.fill_between([100 * GOAL_LEFT, 100], 0, 100 * GOAL_WRONG, color="#2e8b57", alpha=0.15, linewidth=0)
        axes.text(99.5, 100 * GOAL_WRONG - 0.4, "goal", color="#2e6b47", ha="right", va="top", fontsize=9)
        limit = None
        if most_left is not None:
            label = f"most that a perfect reader leaves: {100 * most_left:.0f} %"
            limit = axes.axvline(100 * most_left, color=MUTED, linewidth=1.0, linestyle=(0, (5, 3)), label=label)
        for one, color in zip(others, BARE, strict=False):
            _curve(axes, curve_of(one.unthresholded), f"{one.name} (n = {n})", color=color, linewidth=1.5)
        for form, (line, color) in FORM_LOOK.items():
            scores = of_form(tuned.unthresholded, form)
            if scores.readings:
                label = f"{tuned.name}, {form.replace('_', ' ')} (n = {len(scores.readings)})"
                _curve(axes, curve_of(scores), label, color=color, linewidth=1.3, linestyle=line)
        label = f"{tuned.name}, probability the only\nreason for review (n = {n})"
        _curve(axes, alone, label, color="#7d4aa0", linewidth=1.2)
        _curve(axes, points, f"{tuned.name}, all (n = {n})", color=TUNED, linewidth=2.4)
        _band(axes, points)
        _operating_point(axes, tuned)
        highest = max((max(line.get_ydata(), default=0.0) for line in axes.lines if line is not limit), default=0.0)
        axes.set(xlim=(0, 100), ylim=(0, min(101.0, max(25.0, 1.15 * highest))))
        axes.set(xlabel="left unreviewed, surest first (% of reports)", ylabel="wrong outcomes among those left (%)")
        axes.set_title(f"Risk and coverage on held-out synthetic cases, {made_on}", loc="left", fontsize=11)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9, labelspacing=0.8)


def _curve(axes: Any, points: Sequence[CurvePoint], label: str, **look: Any) -> None:
    """A curve; without points (all goes to review for other reasons), its name alone."""
    if not points:
        axes.plot([], [], label=f"{label}: all sent to review", **look)
        return
    left = [100 * point.left / point.of for point in points]
    wrong = [100 * point.wrong / point.left for point in points]
    few = {"marker": "o", "markersize": 4} if len(points) < 4 else {}
    axes.plot(left, wrong, label=label, **few, **look)


def _band(axes: Any, points: Sequence[CurvePoint]) -> None:
    """95 % Wilson interval at every point."""
    bounds = [(point, wilson_interval(point.wrong, point.left)) for point in points]
    found = [(100 * point.left / point.of, *interval) for point, interval in bounds if interval is not None]
    if len(found) > 1:
        left, low, high = zip(*found, strict=True)
        axes.fill_between(
            left,
            [100 * bound for bound in low],
            [100 * bound for bound in high],
            color=TUNED,
            alpha=0.12,
            linewidth=0,
            label="95 % Wilson interval, all",
        )


def _operating_point(axes: Any, tuned: Reader) -> None:
    """Where the threshold of plan or calibration stands."""
    left = len(tuned.scores.unreviewed)
    if not left:
        axes.plot([], [], " ", label=f"at the threshold {tuned.review_below:.2f}:\nall sent to review")
        return
    wrong = left - unreviewed_share(tuned.scores).count
    label = f"at the threshold {tuned.review_below:.2f}:\n{left} left, {wrong} of them wrong"
    at = (100 * left / len(tuned.scores.readings), 100 * wrong / left)
    look = {"marker": "o", "markersize": 9, "markerfacecolor": "white", "markeredgewidth": 2.2}
    axes.plot(*at, color=TUNED, linestyle="", clip_on=False, zorder=5, label=label, **look)


# ------------------------------------------------------------------------------------------------ reliability


def draw_reliability(path: Path, plan: Plan, tuned: Reader, made_on: date) -> None:
    """How often answers are right, against the probability that they were given: findings, and the outcome."""
    panels = {
        "Findings, all answers": lambda scores: [
            one for finding in plan.findings for one in scored_finding(scores, finding.name)
        ],
        "Outcome, cases whose outcome is certain": scored_outcome,
    }
    with figure(path, (10.5, 5.4), 2) as found:
        for axes, (title, scored) in zip(found, panels.items(), strict=True):
            kinds = [("as it comes", tuned.uncalibrated or tuned.scores, BARE[0])]
            if tuned.uncalibrated is not None:
                kinds.append(("calibrated", tuned.scores, TUNED))
            axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="as stated")
            for place, (label, scores, color) in enumerate(kinds):
                _reliability(axes, bins_of(scored(scores)), label, color)
                _counts(axes, bins_of(scored(scores)), -7 - 6 * place, color)
            axes.set(xlim=(0, 102), ylim=(-17, 102), xlabel="mean stated probability in each tenth (%)")
            axes.set_yticks(range(0, 101, 20))
            axes.set_ylabel("right (%), 95 % Wilson interval")
            axes.set_title(f"{title} (n = {len(scored(tuned.scores))})", loc="left", fontsize=10.5)
            axes.grid(color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.legend(loc="upper left", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
        found[0].figure.suptitle(f"{tuned.name}: stated against true probability, held-out synthetic cases, {made_on}")


def _reliability(axes: Any, bins: Sequence[Bin], label: str, color: str) -> None:
    """The points of one reader, larger where more answers stand behind them."""
    if not bins:
        axes.plot([], [], color=color, label=f"{label}: none")
        return
    stated = [100 * one.confidence for one in bins]
    share = [100 * one.right.count / one.right.n for one in bins]
    bounds = [one.right.interval or (0.0, 1.0) for one in bins]
    below = [max(0.0, at - 100 * low) for at, (low, _) in zip(share, bounds, strict=True)]
    above = [max(0.0, 100 * high - at) for at, (_, high) in zip(share, bounds, strict=True)]
    most = max(one.right.n for one in bins)
    axes.errorbar(stated, share, yerr=[below, above], color=color, alpha=0.75, linewidth=0.9, elinewidth=1.0, capsize=2)
    sizes = [14 + 70 * one.right.n / most for one in bins]
    axes.scatter(stated, share, s=sizes, color=color, zorder=3, clip_on=False, label=label)


def _counts(axes: Any, bins: Sequence[Bin], height: float, color: str) -> None:
    """How many answers stand behind every point, along the lower edge."""
    axes.text(1, height, "n:", ha="left", va="center", fontsize=7.5, color=color)
    for one in bins:
        place = min(100 * one.confidence, 98.0)
        axes.text(place, height, str(one.right.n), ha="center", va="center", fontsize=7.5, color=color)
