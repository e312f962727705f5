"""Step 3a of the planner: what synthetic reports are asked for. Pure and seeded; asks nothing.

A brief says what a report states and leaves unsaid, who writes it, and what makes it hard to read. First come briefs
that cover the plan (every rule, value, bound, silence, flag), then more of the kind that hospitals have. Each is of a
split from birth, stratified by rule and form, so that nothing that was fitted to one split can have seen another. The
first briefs are the same however many are asked for.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from medorchestra.cloud.cases.case_targets import (
    FINAL,
    Goal,
    Situation,
    TargetDrawing,
    Targets,
    goals_of,
)
from medorchestra.cloud.cases.reading_traps import Trap, choose_traps, wordings_of
from medorchestra.cloud.cases.report_styles import ReportStyle, styles_for
from medorchestra.errors import SettingsError
from medorchestra.phrases.phrase_bank import PhraseBank
from medorchestra.plan import Plan
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import SPLITS, Form, Split

SHARES: Mapping[Split, float] = {"development": 0.5, "calibration": 0.2, "held_out": 0.3}
"""Of all cases, and as nearly as may be of each rule and form."""
_DIRECTED = 0.7
"""Share of the briefs after full cover that still aim at some rule, so that rare ones are seen more than once."""
_MOST_FAILURES = 100
"""Draws in a row without an assignment that is free of the plan's contradictions, after which there are no more."""


@dataclass(frozen=True, slots=True)
class CaseBrief:
    """What one synthetic report is asked to be.

    Attributes:
        id: of the case to be; says nothing of what is in it.
        split: from birth.
        style: who writes so.
        language: ISO 639-1 code of the report.
        words: about how long.
        targets: finding -> value, number or `not_stated`, for every finding.
        wording: finding -> how its value is to be worded, where that matters.
        traps: what shall make it hard to read.
        goal: what it was made for; empty for one that was drawn freely.
    """

    id: str
    split: Split
    style: ReportStyle
    language: str
    words: int
    targets: Targets
    wording: Mapping[str, str]
    traps: tuple[Trap, ...]
    goal: str

    @property
    def form(self) -> Form:
        """Free text or structured."""
        return self.style.form


def case_briefs(  # noqa: PLR0913 - each says what another part of a run knows
    plan: Plan,
    count: int = 320,
    *,
    seed: int = 1,
    prefix: str = "",
    covered: Sequence[Targets] = (),
    frame: PhraseBank | None = None,
    forced: bool = False,
    languages: Sequence[str] = (),
) -> tuple[CaseBrief, ...]:
    """Briefs for so many reports: those that cover the plan first, then freely drawn ones.

    What cannot be reached at all (a rule that an option switches off) is left out; `unmet_goals` names it. Where
    `count` is too small to cover everything, the most telling goals come first.

    Args:
        plan: its findings, rules and flags; prompts play no part.
        count: number of briefs.
        seed: same seed, same briefs.
        prefix: of the ids, which are unique within one call only.
        covered: findings of cases that are there already, so that what they cover need not be made again.
        frame: says how findings hang together; its phrases play no part. None: each finding stands by itself.
        forced: whether goals that no natural draw reaches are reached by leaving unsaid what stands in their way.
        languages: ISO 639-1 codes, taken in turn; default the plan's own.

    Raises:
        SettingsError: a negative count.
    """
    if count < 0:
        raise SettingsError(f"{count} cases cannot be asked for; give 0 or more")
    birth = _Birth(plan, seed, prefix, tuple(languages) or (plan.scope.language,))
    wanted = _wanted(plan, seed, covered, TargetDrawing(plan, frame, forced=forced))
    return tuple(birth.brief(goal, situation) for _, (goal, situation) in zip(range(count), wanted, strict=False))


def _wanted(
    plan: Plan, seed: int, covered: Sequence[Targets], drawing: TargetDrawing
) -> Iterator[tuple[Goal | None, Situation]]:
    """Goals with targets for them, without end unless the plan's contradictions leave next to nothing."""
    goals = goals_of(plan)
    met: Counter[str] = Counter()
    for targets in covered:
        situation = Situation(plan, {finding.name: targets[finding.name] for finding in plan.findings})
        met.update(goal.name for goal in goals if goal.met_by(situation))
    unreachable: set[str] = set()
    for times in range(1, max(goal.times for goal in goals) + 1):
        for goal in goals:
            if met[goal.name] >= min(times, goal.times) or goal.name in unreachable:
                continue
            drawn = drawing.draw(goal, _chance(seed, goal.name, times))
            if drawn is None:
                unreachable.add(goal.name)
                continue
            met.update(other.name for other in goals if other.met_by(drawn))
            yield goal, drawn
    rng = _chance(seed, "freely")
    reachable = [goal for goal in goals if goal.decides is not None and goal.name not in unreachable]
    failed = 0
    while failed < _MOST_FAILURES:
        aim = rng.choice(reachable) if reachable and rng.random() < _DIRECTED else None
        drawn = drawing.draw(aim, rng)
        failed = failed + 1 if drawn is None else 0
        if drawn is not None:
            yield aim, drawn


def _chance(*key: object) -> random.Random:
    return random.Random(" ".join(map(str, key)))  # noqa: S311 - not for secrets


class _Birth:
    """Gives targets everything else a brief has: split, style, length, wording, traps."""

    def __init__(self, plan: Plan, seed: int, prefix: str, languages: Sequence[str]) -> None:
        self._plan = plan
        self._seed = seed
        self._prefix = prefix
        self._languages = languages
        self._born = 0
        self._by_rule: Counter[str] = Counter()
        self._by_stratum: Counter[tuple[str, Form, Split]] = Counter()
        self._by_split: Counter[Split] = Counter()
        self._style_used: Counter[str] = Counter()
        self._wording_used: Counter[tuple[str, str]] = Counter()

    def brief(self, goal: Goal | None, situation: Situation) -> CaseBrief:
        """The next brief. Counts what it used, so that splits, styles and wordings are spread evenly."""
        self._born += 1
        rng = _chance(self._seed, "brief", self._born)
        rule = situation.verdict(FINAL).rule or "open"
        form = self._form(rule)
        split = self._split(rule, form)
        style = self._style(form, split, rng)
        wording = self._wording(situation.targets, rng)
        return CaseBrief(
            id=f"{self._prefix}{self._born:04d}",
            split=split,
            style=style,
            language=self._languages[(self._born - 1) % len(self._languages)],
            words=self._words(style, situation.targets, rng),
            targets=situation.targets,
            wording=wording,
            traps=choose_traps(self._plan, situation.targets, wording, rng),
            goal=goal.name if goal is not None else "",
        )

    def _form(self, rule: str) -> Form:
        self._by_rule[rule] += 1
        return "free_text" if self._by_rule[rule] % 2 else "structured"

    def _split(self, rule: str, form: Form) -> Split:
        """The split that is furthest behind its share, in the stratum and in all."""
        in_stratum = sum(self._by_stratum[(rule, form, split)] for split in SPLITS) + 1
        in_all = sum(self._by_split.values()) + 1

        def behind(split: Split) -> float:
            share = SHARES[split]
            here = share * in_stratum - self._by_stratum[(rule, form, split)]
            return here + share * in_all - self._by_split[split]

        chosen = max(SPLITS, key=behind)
        self._by_stratum[(rule, form, chosen)] += 1
        self._by_split[chosen] += 1
        return chosen

    def _style(self, form: Form, split: Split, rng: random.Random) -> ReportStyle:
        styles = styles_for(form, held_out=split == "held_out")
        least = min(self._style_used[style.name] for style in styles)
        style = rng.choice([style for style in styles if self._style_used[style.name] == least])
        self._style_used[style.name] += 1
        return style

    def _words(self, style: ReportStyle, targets: Targets, rng: random.Random) -> int:
        low, high = style.words
        stated = sum(value != NOT_STATED for value in targets.values())
        return 10 * round(min(max((40 + 9 * stated) * rng.uniform(0.75, 1.35), low), high) / 10)

    def _wording(self, targets: Targets, rng: random.Random) -> dict[str, str]:
        """Comparators and bounds are worded in turn, so that every way occurs."""
        wording: dict[str, str] = {}
        for finding in self._plan.findings:
            value = targets[finding.name]
            ways = wordings_of(finding, value, rng)
            if ways:
                key = (finding.name, str(value) if finding.values else "")
                wording[finding.name] = ways[self._wording_used[key] % len(ways)]
                self._wording_used[key] += 1
        return wording
