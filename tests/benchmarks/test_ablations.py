"""`benchmarks/accuracy/ablations.py`: a setting differs in one thing, nothing is measured twice, and the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ablation_tables as tables
import ablations
import pytest
from adapter_measures import Share
from plan_by_hand import PLAN_BY_HAND as PLAN
from small_phrase_bank import small_bank

from medorchestra.errors import CaseError, SettingsError
from medorchestra.finetune.finetuning import FinetunedAdapter
from medorchestra.local.answer_key import perfect_reader
from medorchestra.phrases.composition import Composer
from medorchestra.synthetic import SyntheticCase

BANK = small_bank()


def composed(split: str, count: int, styles: tuple[str, ...]) -> list[SyntheticCase]:
    """Invented cases of a split, whose styles take turns."""
    composer = Composer(BANK, PLAN, "development")
    made = [composer.compose(seed).case for seed in range(count if split == "development" else 100 + count)][-count:]
    return [
        case.model_copy(update={"id": f"{split}-{number}", "split": split, "style": styles[number % len(styles)]})
        for number, case in enumerate(made)
    ]


CASES = (*composed("development", 10, ("dictation", "table")), *composed("calibration", 8, ("table", "letter")))


class Workshop:
    """Stands in for training and for the model: every adapter reads perfectly but for some findings of some cases."""

    def __init__(self, misread: dict[str, set[str]] | None = None) -> None:
        self.misread = misread or {}  # name of a setting -> cases whose reports it does not read at all
        self.trained: list[tuple[str, list[str]]] = []

    def train(self, plan: Any, cases: Any, out: Path, *, bank: Any, settings: Any, progress: Any) -> FinetunedAdapter:
        name = out.name.rsplit("-", 1)[0]
        self.trained.append((name, [case.id for case in cases if case.split == "development"]))
        data = {"hand": len(cases), "composed": settings.data.composed}
        facts = {"data": data, "tokens": 7, "seconds": 60.0, "device": "cpu", "losses": [[1, 0.5]]}
        return FinetunedAdapter(out, facts, 0.01)

    def open_engine(self, adapter: Path) -> Any:
        misread = self.misread.get(adapter.name.rsplit("-", 1)[0], set())
        wrong = [case.model_copy(update={"findings": UNREAD}) if case.id in misread else case for case in CASES]
        return perfect_reader(PLAN, wrong)

    @property
    def means(self) -> ablations.Means:
        return ablations.Means(train=self.train, open_engine=self.open_engine)


UNREAD = {finding.name: None if finding.number else "not_stated" for finding in PLAN.findings}


@pytest.fixture
def material(tmp_path: Path) -> ablations.Material:
    return ablations.Material(CASES, BANK, "sha256:base", tmp_path)


def settings() -> list[ablations.Ablation]:
    return ablations.ablations(PLAN, CASES, 20, 1)


def test_every_setting_differs_from_the_reference_in_what_it_says() -> None:
    reference, *others = settings()
    plain = reference.settings.facts()
    assert len({one.name for one in others}) == len(others) == 7
    for one in others:
        facts = one.settings.facts()
        changed = {section for section in facts if facts[section] != plain[section]}
        expected = {"rank_4": {"lora"}, "rank_64": {"lora"}, "context_focused": set()}.get(one.name, {"data"})
        assert changed == expected
        assert (one.plan == PLAN) == (one.name != "context_focused")
    by_name = {one.name: one for one in others}
    assert by_name["without_shared_styles"].settings.data.without_styles == {"table"}
    assert (by_name["half"].written, by_name["half"].settings.data.composed) == (5, 10)
    readings = {name: by_name[name].settings.data for name in ("full_only", "bank_only")}
    assert (readings["full_only"].composed, readings["full_only"].repeats) == (0, 3)
    assert (readings["bank_only"].composed, readings["bank_only"].repeats) == (30, 0)


def test_a_setting_is_trained_and_measured_once_and_again_where_it_changed(
    material: ablations.Material, tmp_path: Path
) -> None:
    workshop, out = Workshop(), tmp_path / "out"

    first = ablations.run_all(settings()[:2], material, out, workshop.means, quiet=True)
    ablations.run_all(settings()[:3], material, out, workshop.means, quiet=True)
    ablations.run_all(ablations.ablations(PLAN, CASES, 16, 1)[:1], material, out, workshop.means, quiet=True)

    assert [name for name, _ in workshop.trained] == ["reference", "full_only", "half", "reference"]
    assert len(workshop.trained[0][1]) == 10
    assert len(workshop.trained[2][1]) == 5
    assert len(ablations.read_rows(out / "ablations.jsonl")) == 4
    assert list(first) == ["reference", "full_only"]
    assert all(set(row["cases"]) == {f"calibration-{number}" for number in range(8)} for row in first.values())


def test_the_table_holds_what_each_setting_reads_wrongly(material: ablations.Material, tmp_path: Path) -> None:
    lost = {case.id for case in CASES if case.split == "calibration" and case.outcome is not None}
    lost = set(sorted(lost)[:2])
    out = tmp_path / "out"

    rows = ablations.run_all(settings()[:2], material, out, Workshop({"full_only": lost}).means, quiet=True)

    decided = sum(case.split == "calibration" and case.outcome is not None for case in CASES)
    assert tables.outcome_of(rows["reference"]) == Share(decided, decided)
    assert set(rows["full_only"]["wrong_outcomes"]) == lost
    comparison = tables.compared(rows["reference"], rows["full_only"])
    assert comparison is not None
    assert (comparison.gained, comparison.lost) == (0, 2)
    found = tables.findings_of(rows["full_only"])
    unread = sum(value != UNREAD[name] for case in CASES if case.id in lost for name, value in case.findings.items())
    assert (found.n - found.count, found.n) == (unread, 8 * len(PLAN.findings))
    written = (out / "ablations.md").read_text(encoding="utf-8")
    assert "+0 −2" in written
    assert CASES[-1].text not in written


def test_cases_are_drawn_by_seed_and_those_of_trained_styles_are_measured_first() -> None:
    drawn = ablations.some_of(CASES, 4, 5)
    assert drawn == ablations.some_of(CASES[::-1], 4, 5)
    own = [case for case in drawn if case.split == "development"]
    measured = [case for case in drawn if case.split == "calibration"]
    assert (len(own), len(measured)) == (4, 5)
    assert all(case.outcome is not None for case in measured)
    styles = {case.style for case in own}
    known = [case for case in CASES if case.split == "calibration" and case.outcome and case.style in styles]
    assert sum(case.style in styles for case in measured) == min(5, len(known))


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    spoilt = tmp_path / "ablations.jsonl"
    spoilt.write_text("{\n", encoding="utf-8")
    with pytest.raises(CaseError, match="not JSON lines"):
        ablations.read_rows(spoilt)
    with pytest.raises(SettingsError, match=r"no setting half_price; there are: reference"):
        ablations.chosen(settings(), ["half_price"])
    with pytest.raises(SettingsError, match="at least 8 of both"):
        ablations.ablations(PLAN, CASES, 4, 1)
