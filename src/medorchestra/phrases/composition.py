"""Composed reports: thousands of labelled reports from a phrase bank, by seed, exact by construction.

A layout of the wanted split is chosen, a target is drawn (what the report shall state, decided by a wanted rule), every
stated finding is covered by a phrase that states it and nothing against the target, distractors and a closing part are
added, and the report is written down. What the target leaves silent, no phrase states: so the labels are what the text
says, as far as the bank's own `states` are right. Knows no model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from medorchestra.errors import CaseError, SettingsError
from medorchestra.phrases.layout_fit import (
    LayoutFit,
    Saying,
    agrees,
    allowed,
    as_said,
    contradicts,
    exceptions_come_first,
    value_name,
)
from medorchestra.phrases.phrase_bank import PhraseBank, Skeleton
from medorchestra.phrases.report_writing import Passage, ReportWriter, WritingHabits
from medorchestra.phrases.targets import Evenly, Stratum, Target, TargetDraw, Wish, pick_stratum
from medorchestra.plan import Plan
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import Split, SyntheticCase, labelled

ATTEMPTS = 60
"""Targets and layouts tried for one report before the bank is called too small for it."""
COVERINGS = 5
"""Choices of phrases tried for one target."""


@dataclass(frozen=True, slots=True)
class CompositionSettings:
    """What composed reports are like; shares lie between 0 and 1.

    Attributes:
        evenly: over rules, or over outcomes.
        open_cases: share of reports in which a fact is missing on which the outcome depends.
        silence: share of findings that are silent where the rule bears it, on average; it differs between reports.
        distractors: phrases that state nothing, on average.
        closing: share of reports whose closing part says something of the findings.
        closing_only: share of findings said in the closing part alone.
        conflicts: share of reports whose closing part contradicts the findings.
        blankets: how often a phrase for several findings is taken where one fits.
        derived: share of reports in which a finding that usually follows from others is stated by a phrase.
        own_style: share of phrases taken from the layout's own styles, where there are any.
        without_styles: styles (of layouts and phrases) that are left out.
        only_styles: if given, only layouts of these styles.
        habits: how untidily they are written.
    """

    evenly: Evenly = "rule"
    open_cases: float = 0.12
    silence: float = 0.3
    distractors: float = 3.0
    closing: float = 0.7
    closing_only: float = 0.04
    conflicts: float = 0.03
    blankets: float = 0.4
    derived: float = 0.06
    own_style: float = 0.8
    without_styles: frozenset[str] = frozenset()
    only_styles: frozenset[str] = frozenset()
    habits: WritingHabits = field(default_factory=WritingHabits)


@dataclass(frozen=True, slots=True)
class ComposedReport:
    """A composed case and how it came about.

    Attributes:
        case: the labelled report.
        stratum: the rule it was made for (an open case: the rule it was before a fact was left out).
        skeleton: id of the layout.
        passages: where each phrase stands in the text, in the order of the text.
    """

    case: SyntheticCase
    stratum: Stratum
    skeleton: str
    passages: tuple[Passage, ...]


class Composer:
    """Composes reports of one split from one bank.

    Args:
        bank: the phrase bank.
        plan: the plan it speaks of.
        split: whose phrases and layouts are used, and no others.
        settings: what the reports shall be like.

    Attributes:
        strata: the rules under which its reports come.
        never: rules under which none can come: no layout has phrases for what they need.

    Raises:
        CaseError: the bank is for another topic, or has no layout or no rule for this split.
    """

    def __init__(self, bank: PhraseBank, plan: Plan, split: Split, settings: CompositionSettings | None = None) -> None:
        if bank.topic != plan.topic:
            raise CaseError(f"phrase bank of topic {bank.topic!r}, plan of topic {plan.topic!r}")
        self.bank, self.plan, self.split = bank, plan, split
        self.settings = settings or CompositionSettings()
        _check_shares(self.settings)
        self._draw = TargetDraw(plan, dependencies=bank.dependencies, numbers=bank.numbers, apart=bank.unspoken)
        self._writer = ReportWriter(bank, plan, self._draw, self.settings.habits)
        out = self.settings.without_styles
        self._phrases = [
            phrase
            for phrase in (*bank.phrases, *bank.distractors)
            if phrase.split == split and (not phrase.styles or not out.issuperset(phrase.styles))
        ]
        self._fits: dict[str, LayoutFit] = {}
        self._layouts_for = self._layouts(bank)
        self.strata = tuple(self._layouts_for)
        self.never = tuple(stratum for stratum in self._draw.strata if stratum not in self._layouts_for)
        if not self.strata:
            raise CaseError(
                f"phrase bank of {bank.topic}: split {split} has no skeleton in the wanted styles that has phrases for "
                "any rule of the plan"
            )

    def _layouts(self, bank: PhraseBank) -> dict[Stratum, list[list[Skeleton]]]:
        """Rule -> the layouts in which a report can come under it, style by style."""
        out, only = self.settings.without_styles, self.settings.only_styles
        found: dict[Stratum, dict[str, list[Skeleton]]] = {}
        for skeleton in bank.skeletons:
            if skeleton.split != self.split or skeleton.style in out or (only and skeleton.style not in only):
                continue
            for stratum in self._draw.reachable(self._fit(skeleton).speakable):
                found.setdefault(stratum, {}).setdefault(skeleton.style, []).append(skeleton)
        return {stratum: list(found[stratum].values()) for stratum in self._draw.strata if stratum in found}

    def _fit(self, skeleton: Skeleton) -> LayoutFit:
        if skeleton.id not in self._fits:
            self._fits[skeleton.id] = LayoutFit(self.bank, self.plan, skeleton, self._phrases)
        return self._fits[skeleton.id]

    def compose(self, seed: int | str) -> ComposedReport:
        """The report of this seed: the same whenever bank, plan, split and settings are the same.

        Raises:
            CaseError: no target and layout were found that the bank has phrases for.
        """
        rng = random.Random(f"{self.split}:{seed}")  # noqa: S311 - not for secrets
        stratum = self.strata[0]
        wish = Wish(stratum)
        for attempt in range(ATTEMPTS):
            if attempt % 10 == 0:
                stratum = pick_stratum(rng, self.strata, evenly=self.settings.evenly)
                wish = self._wish(rng, stratum)
            elif attempt % 10 == 5:  # not every rule has a fact that opens it
                wish = replace(wish, open_case=False)
            fit = self._fit(rng.choice(rng.choice(self._layouts_for[stratum])))
            target = self._draw.draw(rng, wish, fit.speakable)
            sayings = None if target is None else self._say(rng, fit, target)
            if target is not None and sayings is not None:
                return self._report(rng, seed, stratum, fit, (target, sayings))
        raise CaseError(
            f"phrase bank of {self.bank.topic}: seed {seed} of split {self.split}: no report within {ATTEMPTS} "
            "attempts; `check_bank` says which phrases are missing"
        )

    def stream(self, seed: int | str = 0) -> Iterator[ComposedReport]:
        """Reports without end, from the seeds `seed-0`, `seed-1` … ; the same text may come again.

        Raises:
            CaseError: as in `compose`.
        """
        number = 0
        while True:
            yield self.compose(f"{seed}-{number}")
            number += 1

    def _wish(self, rng: random.Random, stratum: Stratum) -> Wish:
        settings = self.settings
        # Reports differ in how much they leave out, not only in what.
        silence = min(1.0, settings.silence * rng.choice((0.1, 0.5, 1.0, 2.4)))
        return Wish(stratum, silence, rng.random() < settings.open_cases)

    def _report(
        self,
        rng: random.Random,
        seed: int | str,
        stratum: Stratum,
        fit: LayoutFit,
        content: tuple[Target, list[Saying]],
    ) -> ComposedReport:
        target, sayings = content
        text, passages = self._writer.write(rng, fit.skeleton, sayings, target)
        case = labelled(
            self.plan,
            target,
            id=f"composed-{self.split}-{seed}",
            split=self.split,
            form=fit.skeleton.form,
            style=fit.skeleton.style,
            text=text,
            provenance="composed",
            traps=tuple(sorted({trap for saying in sayings if saying.phrase for trap in saying.phrase.traps})),
        )
        return ComposedReport(case, stratum, fit.skeleton.id, passages)

    # ------------------------------------------------------------------------------------------- choosing

    def _say(self, rng: random.Random, fit: LayoutFit, target: Target) -> list[Saying] | None:
        """What the report says, and the target completed by what follows from it; None where phrases are missing."""
        self._state_derived(rng, fit, target)
        sayings = self._covering(rng, fit, target)
        if sayings is None:
            return None
        self._close(rng, fit, target, sayings)
        for derived in self.bank.derived:
            if target[derived.finding] == NOT_STATED and any(
                target[name] != NOT_STATED for name in derived.if_any_stated
            ):
                target[derived.finding] = derived.value
        self._distract(rng, fit, target, sayings)
        # What was chosen before the closing part and the derived findings were known must still be in its place.
        return sayings if sayings and all(allowed(saying, target) for saying in sayings) else None

    def _state_derived(self, rng: random.Random, fit: LayoutFit, target: Target) -> None:
        """Now and then, a phrase that states a derived finding, for which others have to be silent."""
        names = {derived.finding for derived in self.bank.derived}
        options = [one for stated, found in fit.options.items() if stated[0] in names for one in found]
        if not options or rng.random() >= self.settings.derived:
            return
        saying = rng.choice(options)
        needs = saying.phrase.needs if saying.phrase else {}
        quieter = target | {name: NOT_STATED for name, among in needs.items() if NOT_STATED in among}
        if self._draw.consistent(quieter):
            target.update(quieter)
            if allowed(saying, target):
                target.update(saying.states)

    def _covering(self, rng: random.Random, fit: LayoutFit, target: Target) -> list[Saying] | None:
        """Phrases that state every stated finding, and nothing else; None where there are none.

        Each is stated once, as far as some tries can tell: what is said twice in the body reads like two things.
        """
        for attempt in range(COVERINGS):
            sayings = self._covered_once(rng, fit, target, twice=attempt + 1 == COVERINGS)
            if sayings is not None and exceptions_come_first(sayings, fit.skeleton):
                return sayings
        return None

    def _covered_once(self, rng: random.Random, fit: LayoutFit, target: Target, *, twice: bool) -> list[Saying] | None:
        """One try at a covering; with `twice`, a finding may be said again along with another."""
        left = [name for name, value in target.items() if value != NOT_STATED]
        rng.shuffle(left)
        left.sort(key=lambda name: (name, value_name(target[name])) in fit.alone)
        sayings: list[Saying] = []
        covered: set[str] = set()
        if fit.blankets and rng.random() < self.settings.blankets:
            blanket = rng.choice(fit.blankets)
            said = as_said(blanket, target) if allowed(blanket, target) else None
            if said is not None:
                sayings.append(said)
                covered.update(said.states)
        for name in left:
            if name in covered:
                continue
            options = self._options(rng, fit, name, target)
            fitting = [one for one in options if covered.isdisjoint(one.states)] or (options if twice else [])
            if not fitting:
                return None
            sayings.append(self._one_of(rng, fit, fitting))
            covered.update(sayings[-1].states)
        return sayings

    def _options(self, rng: random.Random, fit: LayoutFit, name: str, target: Target) -> list[Saying]:
        """What states this finding, and whatever else it states, as the target has it."""
        stated = (name, value_name(target[name]))
        if fit.closing and rng.random() < self.settings.closing_only:
            closing = [one for one in fit.closing if one.states == dict((stated,)) and allowed(one, target)]
            if closing:
                return closing
        return [
            one
            for one in fit.options.get(stated, [])
            if (len(one.states) == 1 or agrees(one, target)) and allowed(one, target)
        ]

    def _one_of(self, rng: random.Random, fit: LayoutFit, fitting: list[Saying]) -> Saying:
        """One by chance: blankets at their share, the layout's own style at its share."""
        several = [one for one in fitting if len(one.states) > 1]
        if several and len(several) < len(fitting):
            single = [one for one in fitting if len(one.states) == 1]
            fitting = several if rng.random() < self.settings.blankets else single
        liked = [one for one in fitting if fit.liked(one)]
        return rng.choice(liked if liked and rng.random() < self.settings.own_style else fitting)

    def _close(self, rng: random.Random, fit: LayoutFit, target: Target, sayings: list[Saying]) -> None:
        """The closing part: what it repeats, or contradicts on purpose, and what that makes of the closing finding."""
        closing = self.bank.closing
        if closing is None:
            return
        already = {name for one in sayings if one.closes for name in one.states}
        closes = bool(already)
        if fit.closing and rng.random() < self.settings.closing:
            wanted = rng.randint(1, 3)
            for one in rng.sample(fit.closing, len(fit.closing)):
                if wanted and already.isdisjoint(one.states) and agrees(one, target) and allowed(one, target):
                    sayings.append(one)
                    already.update(one.states)
                    wanted -= 1
                    closes = True
        conflict = None
        if closes and closing.conflicts is not None and rng.random() < self.settings.conflicts:
            said_before = {name for one in sayings if not one.closes for name in one.states}
            contrary = [
                one
                for one in fit.closing
                if already.isdisjoint(one.states)
                and allowed(one, target)
                and contradicts(one, target, said_before & set(closing.about))
            ]
            conflict = rng.choice(contrary) if contrary else None
        if conflict is not None:
            sayings.append(conflict)
        if closing.finding is not None and closing.agrees is not None and closes:
            target[closing.finding] = closing.conflicts if conflict and closing.conflicts else closing.agrees

    def _distract(self, rng: random.Random, fit: LayoutFit, target: Target, sayings: list[Saying]) -> None:
        wanted = min(len(fit.distractors), int(rng.uniform(0, 2 * self.settings.distractors) + 0.5))
        for one in rng.sample(fit.distractors, len(fit.distractors)):
            if wanted == 0:
                return
            if allowed(one, target) and (fit.liked(one) or rng.random() >= self.settings.own_style):
                sayings.append(one)
                wanted -= 1


def _check_shares(settings: CompositionSettings) -> None:
    shares = ("open_cases", "silence", "closing", "closing_only", "conflicts", "blankets", "derived", "own_style")
    wrong = [name for name in shares if not 0 <= getattr(settings, name) <= 1]
    if wrong or settings.distractors < 0:
        raise SettingsError(f"composition: shares lie between 0 and 1: {', '.join(wrong) or 'distractors (0 or more)'}")


# ----------------------------------------------------------------------------------------------------------- many


def compose(bank: PhraseBank, plan: Plan, seed: int | str, *, split: Split) -> SyntheticCase:
    """One labelled report by seed. For many, `compose_many` or a `Composer` is far quicker.

    Raises:
        CaseError: the bank does not suffice.
    """
    return Composer(bank, plan, split).compose(seed).case


def compose_many(
    bank: PhraseBank,
    plan: Plan,
    *,
    n: int,
    seed: int | str = 0,
    split: Split,
    settings: CompositionSettings | None = None,
) -> tuple[SyntheticCase, ...]:
    """Labelled reports by seed, no two with the same text.

    Args:
        bank: the phrase bank.
        plan: the plan it speaks of.
        n: how many.
        seed: of the whole set; a longer set of the same seed begins with the shorter one.
        split: whose phrases and layouts are used.
        settings: what they shall be like.

    Raises:
        CaseError: the bank does not suffice for so many distinct reports.
    """
    found: dict[str, SyntheticCase] = {}
    for tried, report in enumerate(Composer(bank, plan, split, settings).stream(seed)):
        if len(found) >= n:
            break
        if tried >= 20 * n + 100:
            raise CaseError(f"phrase bank of {bank.topic}: {len(found)} distinct reports in {tried} seeds, {n} wanted")
        found.setdefault(report.case.text, report.case)
    return tuple(found.values())
