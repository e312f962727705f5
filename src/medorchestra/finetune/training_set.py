"""Which labelled reports an adapter is trained on: those written in full, and composed ones by seed. Pure and seeded.

Only the development split is ever trained on: its cases, its phrases and its layouts.
"""

from __future__ import annotations

import difflib
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from medorchestra.errors import CaseError, SettingsError
from medorchestra.phrases.composition import Composer, CompositionSettings
from medorchestra.phrases.phrase_bank import PhraseBank
from medorchestra.plan import Plan
from medorchestra.synthetic import SyntheticCase, check_case


@dataclass(frozen=True, slots=True)
class TrainingSetSettings:
    """What is trained on.

    Attributes:
        composed: reports composed from the phrase bank.
        repeats: how often each report that was written in full is read.
        without_styles: styles of cases, layouts and phrases that are left out, to measure on them.
        composition: how composed reports are made; its own `without_styles` is overruled.
        seed: of composition and order.
    """

    composed: int = 500
    repeats: int = 2
    without_styles: frozenset[str] = frozenset()
    composition: CompositionSettings = field(default_factory=CompositionSettings)
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.composed, self.repeats) < 0 or self.composed + self.repeats == 0:
            raise SettingsError("composed reports and repeats must not be negative, and not both 0")


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Labelled reports, in the order in which they are read.

    Attributes:
        cases: with repeats.
        digest: `sha256:…` of texts and labels, in order.
    """

    cases: tuple[SyntheticCase, ...]
    digest: str

    @property
    def counts(self) -> dict[str, int]:
        """Different reports by who wrote them."""
        different = {case.id: case.provenance for case in self.cases}
        return {kind: sum(found == kind for found in different.values()) for kind in ("hand", "planner", "composed")}


def training_set(
    plan: Plan,
    cases: Sequence[SyntheticCase],
    bank: PhraseBank | None,
    settings: TrainingSetSettings | None = None,
) -> TrainingSet:
    """What to train on.

    Args:
        plan: whose findings are labelled.
        cases: all that there are; other splits than development are left alone.
        bank: for composed reports; None where there is none, then `composed` must be 0.
        settings: how much of what.

    Raises:
        CaseError: nothing to train on, a case contradicts the plan's rules, or one text has two sets of labels.
    """
    settings = settings or TrainingSetSettings()
    _refuse_unknown_styles(settings.without_styles, cases, bank)
    own = [case for case in cases if case.split == "development" and case.style not in settings.without_styles]
    for case in own:
        check_case(case, plan)
    made = list(own) * settings.repeats
    if settings.composed:
        if bank is None:
            raise CaseError("no phrase bank beside the cases, so no report can be composed; ask for 0 composed reports")
        made += _composed(plan, bank, settings)
    if not made:
        raise CaseError("no case of the development split to train on; check the folder and the styles left out")
    _refuse_contradictions(made)
    _refuse_leaks(made, cases)
    random.Random(f"order {settings.seed}").shuffle(made)  # noqa: S311 - not for secrets
    return TrainingSet(tuple(made), _digest(made))


def _composed(plan: Plan, bank: PhraseBank, settings: TrainingSetSettings) -> list[SyntheticCase]:
    how = {name: getattr(settings.composition, name) for name in CompositionSettings.__slots__}
    composer = Composer(
        bank, plan, "development", CompositionSettings(**how | {"without_styles": settings.without_styles})
    )
    return [report.case for report in islice(composer.stream(f"train-{settings.seed}"), settings.composed)]


def _refuse_contradictions(cases: Sequence[SyntheticCase]) -> None:
    labels: dict[str, SyntheticCase] = {}
    for case in cases:
        other = labels.setdefault(case.text, case)
        if other.findings != case.findings:
            names = sorted(name for name in case.findings if case.findings[name] != other.findings.get(name))
            raise CaseError(
                f"cases {other.id} and {case.id} have one text and different labels for {', '.join(names)}; correct one"
            )


def _refuse_unknown_styles(left_out: frozenset[str], cases: Sequence[SyntheticCase], bank: PhraseBank | None) -> None:
    known = {case.style for case in cases}
    if bank is not None:
        known |= {skeleton.style for skeleton in bank.skeletons}
        known |= {style for phrase in (*bank.phrases, *bank.distractors) for style in phrase.styles}
    unknown = sorted(left_out - known)
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], sorted(known), n=3, cutoff=0.0)
        raise SettingsError(
            f"no such style to leave out: {', '.join(unknown)}; there are {len(known)}, such as {', '.join(nearest)}"
        )


def _refuse_leaks(made: Sequence[SyntheticCase], cases: Sequence[SyntheticCase]) -> None:
    """What is measured on must not be trained on."""
    trained = {case.text for case in made}
    leaked = sorted(case.id for case in cases if case.split != "development" and case.text in trained)
    if leaked:
        raise CaseError(
            f"{len(leaked)} cases of other splits have the text of a trained one, first: {leaked[0]}; remove one"
        )


def _digest(cases: Sequence[SyntheticCase]) -> str:
    told = hashlib.sha256()
    for case in cases:
        told.update(case.model_dump_json(include={"text", "findings"}).encode("utf-8", "surrogatepass"))
    return "sha256:" + told.hexdigest()
