"""The pictures of an evaluation, each one inline SVG: the same numbers give the same picture, letter for letter.

Draws and counts nothing. Words stay words, which can be searched, copied and read aloud. Colours are those of Okabe and
Ito (jfly.uni-koeln.de/color), and no meaning hangs on a colour alone. Nothing is drawn as a bitmap, nothing refers to
what lies outside the picture; matplotlib is loaded inside, without pyplot.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any
from xml.sax.saxutils import quoteattr

from medorchestra.errors import SettingsError
from medorchestra.intervals import wilson_interval
from medorchestra.local.evaluation.error_anatomy import FindingCost
from medorchestra.local.evaluation.measures import OutcomeScores, Reliability, ReliabilityBin, RiskCoverage, Share

MOST_BARS = 20
"""Findings that the picture of costs shows."""
MANY_OUTCOMES = 8
"""With more of them, outcomes that no case has and nobody said are left out of the picture."""

_BLUE, _VERMILION, _GREEN, _PURPLE, _ORANGE, _SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
_INK, _MUTED, _GRID = "#1d2127", "#5f6670", "#dcdfe3"
_CURVES = ((_BLUE, "-"), (_VERMILION, "--"), (_GREEN, "-."), (_PURPLE, ":"), (_ORANGE, (0, (7, 2))), (_INK, "-"))
_MARKERS = "osD^vX"
_LONGEST_NAME = 34
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_LOOK: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "medorchestra",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def confusion_picture(scores: OutcomeScores, outcomes: Sequence[str]) -> str:
    """How many cases of each true outcome (rows) got which outcome (columns).

    Args:
        scores: their `confusion` is drawn; the tint is the share of the row.
        outcomes: in their order. What else was said (`open`, `no decision`) gets columns after them.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    counts = {pair: count for pair, count in scores.confusion.items() if count}
    met = {name for pair in counts for name in pair}
    rows = [name for name in outcomes if name in met or len(outcomes) <= MANY_OUTCOMES]
    columns = [*rows, *sorted({said for _, said in counts} - set(outcomes))]
    totals = {row: sum(count for (truth, _), count in counts.items() if truth == row) for row in rows}

    def draw(axes: Any) -> None:
        from matplotlib.patches import Rectangle

        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                count = counts.get((row, column), 0)
                share = count / totals[row] if totals[row] else 0.0
                axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=_tint(share), edgecolor=_GRID))
                look = {"color": "white" if share > 0.6 else _INK if count else _MUTED}
                axes.text(x, y, str(count), ha="center", va="center", weight="bold" if row == column else None, **look)
        for place in range(len(rows)):
            frame: Any = {"facecolor": "none", "edgecolor": _INK, "linewidth": 1.4, "zorder": 3}
            axes.add_patch(Rectangle((place - 0.5, place - 0.5), 1, 1, **frame))
        axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5), aspect="equal")
        axes.xaxis.set_label_position("top")
        axes.xaxis.tick_top()
        turned = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(columns)), [_name(_words(name)) for name in columns], **turned)
        axes.set_yticks(range(len(rows)), [f"{_name(_words(name))} (n = {totals[name]})" for name in rows])
        axes.set(xlabel="said", ylabel="true")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    if not rows or not columns:
        return _nothing("no case with a single true outcome")
    longest = max(len(_name(_words(name))) for name in columns)
    size = (0.5 * len(columns) + 0.075 * longest + 1.3 + 0.06 * longest, 0.5 * len(rows) + 0.055 * longest + 0.5)
    return _svg("True outcomes against what was said", size, draw)


def reliability_picture(reliability: Reliability) -> str:
    """How often decisions are right, against the probability that they were given, with 95 % Wilson intervals.

    Raises:
        SettingsError: matplotlib is not installed.
    """

    def draw(axes: Any) -> None:
        axes.plot([0, 100], [0, 100], color=_MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label="as stated")
        _bins(axes, reliability.bins)
        axes.set(xlim=(0, 102), ylim=(-13, 102), xlabel="mean stated probability (%)", ylabel="right (%)")
        axes.set_xticks(range(0, 101, 20))
        axes.set_yticks(range(0, 101, 20))
        axes.grid(visible=True)
        axes.figure.legend(loc="outside upper left", ncols=2, columnspacing=1.0)

    if not reliability.bins:
        return _nothing("no decision came with a probability")
    return _svg("Stated against true probability", (3.4, 3.5), draw)


def _bins(axes: Any, bins: Sequence[ReliabilityBin]) -> None:
    """Points, larger where more decisions stand behind them, and those numbers along the lower edge."""
    stated, right = [100 * one.confidence for one in bins], [100 * one.accuracy for one in bins]
    bounds = [wilson_interval(round(one.accuracy * one.n), one.n) or (0.0, 1.0) for one in bins]
    below = [max(0.0, at - 100 * low) for at, (low, _) in zip(right, bounds, strict=True)]
    above = [max(0.0, 100 * high - at) for at, (_, high) in zip(right, bounds, strict=True)]
    axes.errorbar(stated, right, yerr=[below, above], color=_BLUE, linewidth=1.0, elinewidth=1.0, capsize=2)
    most = max(one.n for one in bins)
    sizes = [14 + 60 * one.n / most for one in bins]
    axes.scatter(stated, right, s=sizes, color=_BLUE, zorder=3, clip_on=False, label="measured, 95 % interval")
    axes.text(1, -7, "n", ha="left", va="center", fontsize=7.5, color=_MUTED)
    for one in bins:
        axes.text(min(100 * one.confidence, 99), -7, str(one.n), ha="center", va="center", fontsize=7.5, color=_MUTED)


def risk_coverage_picture(curves: Mapping[str, RiskCoverage]) -> str:
    """How many are wrong among the surest decisions, for each run.

    Args:
        curves: name of the run -> its curve.

    Raises:
        SettingsError: matplotlib is not installed.
    """

    def draw(axes: Any) -> None:
        for place, (name, curve) in enumerate(curves.items()):
            color, line = _CURVES[place % len(_CURVES)]
            look = {"color": color, "linestyle": line, "linewidth": 1.8}
            if not curve.points or curve.area is None:
                axes.plot([], [], label=f"{_name(name)}: no probabilities", **look)
                continue
            few = len(curve.points) < 12
            every = 1 if few else max(1, len(curve.points) // 8)
            axes.plot(
                [100 * coverage for coverage, _ in curve.points],
                [100 * risk for _, risk in curve.points],
                label=f"{_name(name)}\narea {curve.area:.3f}",
                marker=_MARKERS[place % len(_MARKERS)],
                markersize=4,
                markevery=every,
                **look,
            )
        highest = max((100 * risk for curve in curves.values() for _, risk in curve.points), default=0.0)
        axes.set(xlim=(0, 100), ylim=(0, min(101.0, max(20.0, 1.1 * highest))))
        axes.set(xlabel="decisions kept, surest first (%)", ylabel="wrong among those kept (%)")
        axes.grid(visible=True)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), labelspacing=0.7)

    if not any(curve.points for curve in curves.values()):
        return _nothing("no decision came with a probability")
    return _svg("Risk and coverage", (7.0, max(3.2, 0.4 * len(curves) + 0.6)), draw)


def forest_picture(shares: Mapping[str, Share]) -> str:
    """Accuracies one below the other, each with its 95 % interval and in figures.

    Args:
        shares: name of a run or a reader -> its accuracy.

    Raises:
        SettingsError: matplotlib is not installed.
    """

    def draw(axes: Any) -> None:
        for place, share in enumerate(shares.values()):
            text = "none counted"
            if share.value is not None and share.low is not None and share.high is not None:
                axes.plot([100 * share.low, 100 * share.high], [place, place], color=_BLUE, linewidth=1.6, marker="|")
                axes.plot(100 * share.value, place, color=_BLUE, marker="s", markersize=6, clip_on=False)
                interval = f"{100 * share.low:.1f} to {100 * share.high:.1f}"
                text = f"{100 * share.value:.1f} %  ({interval})  {share.correct} of {share.n}"
            axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
        axes.set(xlim=(0, 100), ylim=(len(shares) - 0.4, -0.6), xlabel="right (%), with 95 % interval")
        axes.set_yticks(range(len(shares)), [_name(name) for name in shares])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=True, axis="x")

    if not shares:
        return _nothing("nothing was run")
    return _svg("Accuracies with intervals", (7.0, 0.32 * len(shares) + 0.7), draw)


def cost_picture(costs: Sequence[FindingCost]) -> str:
    """Which finding costs how many decisions: mended to the right, broken to the left. At most `MOST_BARS` findings.

    Args:
        costs: the most costly first; findings that neither mend nor break a decision are not drawn.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    telling = [cost for cost in costs if cost.costs or cost.breaks]
    shown = telling[:MOST_BARS]

    def draw(axes: Any) -> None:
        places = range(len(shown))
        mended, broken = [cost.costs for cost in shown], [-cost.breaks for cost in shown]
        axes.barh(places, mended, color=_BLUE, height=0.62, label="wrong decisions that it would mend")
        if any(broken):
            look = {"color": "white", "edgecolor": _VERMILION, "hatch": "////", "height": 0.62}
            axes.barh(places, broken, label="right decisions that it would break", **look)
        widest = max(cost.costs + cost.breaks for cost in shown)
        for place, cost in enumerate(shown):
            axes.text(cost.costs + 0.02 * widest, place, str(cost.costs), va="center", fontsize=8.5)
            if cost.breaks:
                left = -cost.breaks - 0.02 * widest
                axes.text(left, place, str(cost.breaks), va="center", ha="right", fontsize=8.5)
        lowest, highest = min(broken), max(mended)
        axes.axvline(0, color=_MUTED, linewidth=0.8)
        room = 0.1 * widest
        axes.set(xlim=(lowest - room if lowest else 0, highest + room), ylim=(len(shown) - 0.4, -0.6))
        axes.set_yticks(places, [_name(_words(cost.finding)) for cost in shown])
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
        more = f" ({len(telling) - len(shown)} findings with less are not drawn)" if len(telling) > len(shown) else ""
        axes.set_xlabel(f"decisions that change when this finding alone is put right{more}")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=True, axis="x")
        axes.figure.legend(loc="outside upper left", ncols=2)

    if not shown:
        return _nothing("no finding alone changes a decision")
    return _svg("Findings and the decisions they cost", (7.0, 0.28 * len(shown) + 1.1), draw)


def _svg(title: str, size: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """One drawing as an inline SVG, in inches of `size`, whatever the user's own matplotlib settings are."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise SettingsError("matplotlib is not installed; run `pip install medorchestra[evaluation]`") from None
    written = StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has more fonts than it is measured with
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_LOOK)
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _inline(written.getvalue(), title)


def _inline(svg: str, title: str) -> str:
    """What an HTML page takes: no prolog, no style sheet that would reach the rest of the page, no id without use."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style\b.*?</style>|<metadata\b.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', svg)
    look = f"width:{width[1] if width else 500}pt;max-width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt"
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label={quoteattr(title)} style="{look}"', 1).strip()


def _nothing(why: str) -> str:
    """Says in place of a picture why there is none."""

    def draw(axes: Any) -> None:
        axes.text(0.5, 0.5, why, ha="center", va="center", color=_MUTED, transform=axes.transAxes)
        axes.set_axis_off()

    return _svg(why, (3.4, 0.6), draw)


def _tint(share: float) -> tuple[float, float, float]:
    """Between white and blue."""
    parts = (int(_BLUE[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (1 - share * (1 - part) for part in parts)
    return red, green, blue


def _words(name: str) -> str:
    return name.replace("_", " ")


def _name(name: str) -> str:
    """A name on one line that the font can show, cut where it is long."""
    seen = _UNSEEN.sub("�", name)
    return seen if len(seen) <= _LONGEST_NAME else f"{seen[: _LONGEST_NAME - 1]}…"
