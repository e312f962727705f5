"""Making a model fit: every split for its own purpose, the calibration and the validation record in the plan."""

from __future__ import annotations

from itertools import islice

import pytest
from plan_by_hand import PLAN_BY_HAND, cases_by_hand
from small_phrase_bank import parts_bank, parts_plan, small_bank

from medorchestra.calibration import FEWEST_KEPT
from medorchestra.errors import CaseError, SettingsError
from medorchestra.finetune import finetuning
from medorchestra.finetune.branched_model import LoraSettings
from medorchestra.finetune.finetuning import FinetuneSettings
from medorchestra.finetune.training import TrainingSettings
from medorchestra.finetune.training_prompts import PromptMaker
from medorchestra.finetune.training_set import TrainingSetSettings, training_set
from medorchestra.fitting import FittingProgress, FittingSettings, calibration_set, fit
from medorchestra.local.engine.gguf_file import file_digest
from medorchestra.local.engine.model_files import find_model
from medorchestra.local.records import Report
from medorchestra.phrases.composition import Composer
from medorchestra.synthetic import cases_digest

CASES = cases_by_hand()
HERE = [case for case in CASES if case.split == "calibration"]


# -------------------------------------------------------------------------- the calibration set


def test_the_calibration_set_is_of_its_split_alone():
    found = calibration_set(PLAN_BY_HAND, CASES, small_bank(), 15)
    assert {case.split for case in found} == {"calibration"}
    assert found[: len(HERE)] == HERE
    composed = found[len(HERE) :]
    assert [case.provenance for case in composed] == ["composed"] * 15
    assert len({case.id for case in found}) == len(found)
    assert found == calibration_set(PLAN_BY_HAND, CASES, small_bank(), 15)


def test_the_phrases_that_are_trained_are_not_calibrated_with():
    bank = small_bank()
    kept = {"phrases", "distractors", "skeletons"}
    alone = bank.model_copy(
        update={part: tuple(one for one in getattr(bank, part) if one.split == "calibration") for part in kept}
    )
    assert calibration_set(PLAN_BY_HAND, (), alone, 25) == calibration_set(PLAN_BY_HAND, (), bank, 25)


def test_without_a_phrase_bank_the_calibration_set_is_that_of_the_full_reports():
    assert calibration_set(PLAN_BY_HAND, CASES, None, 120) == HERE


@pytest.mark.parametrize("kept", [0, FEWEST_KEPT - 1])
def test_too_few_cases_to_calibrate_with_are_refused_with_their_number(kept):
    with pytest.raises(CaseError, match=f"^{kept} cases of the calibration split; at least {FEWEST_KEPT} are needed"):
        calibration_set(PLAN_BY_HAND, HERE[:kept], None, 120)


# ------------------------------------------------------------------------------ before training


def test_a_real_report_is_refused_before_anything_is_made(tmp_path):
    report = Report("r-1", "CANARY: a real report.")
    with pytest.raises(TypeError, match="with synthetic cases only, there is a Report") as caught:
        fit(PLAN_BY_HAND, [*CASES, report], tmp_path / "adapter.gguf")
    assert "CANARY" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("risk", [0, 1, -0.1, 5])
def test_a_risk_that_cannot_be_is_refused_before_training_and_not_behind_it(risk):
    with pytest.raises(SettingsError, match="must lie between 0 and 1"):
        FittingSettings(risk=risk)


# ------------------------------------------------------------------------------------ all of it

TOY = parts_plan()
TOY_BANK = parts_bank()
SETTINGS = FittingSettings(
    finetune=FinetuneSettings(
        data=TrainingSetSettings(composed=4, repeats=1),
        training=TrainingSettings(batch=1, together=1, learning_rate=2e-3),
        lora=LoraSettings(rank=4, alpha=8),
    ),
    composed_calibration=FEWEST_KEPT,
)


def toy_cases():
    """Short reports of all splits."""
    return [
        report.case
        for split, count in (("development", 2), ("calibration", 4), ("held_out", 6))
        for report in islice(Composer(TOY_BANK, TOY, split).stream("full"), count)
    ]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """What came back, what was called on the way, and the reports that were trained on."""
    trained, seen = [], {"training": [], "calibrating": [], "rehearsing": []}
    prompts = PromptMaker.prompts

    def noted(maker, case):
        trained.append(case)
        return prompts(maker, case)

    out = tmp_path_factory.mktemp("fitted") / "toy.gguf"
    progress = FittingProgress(**{name: calls.append for name, calls in seen.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptMaker, "prompts", noted)
        patch.setattr(finetuning, "PARITY_CASES", 2)
        return fit(TOY, toy_cases(), out, bank=TOY_BANK, settings=SETTINGS, progress=progress), seen, trained


@pytest.mark.model
def test_no_report_of_the_other_splits_is_ever_trained_on(fitted):
    found, seen, trained = fitted
    assert {case.split for case in trained} == {"development"}
    wanted = training_set(TOY, toy_cases(), TOY_BANK, SETTINGS.finetune.data)
    assert {case.id for case in trained} == {case.id for case in wanted.cases}
    assert found.adapter.record["data_digest"] == wanted.digest
    texts = {case.text for case in trained}
    assert not texts & {reading.case.text for reading in found.held_out.readings}
    assert len(seen["training"]) == len(wanted.cases)


@pytest.mark.model
def test_the_plan_gets_the_calibration_of_the_pair(fitted):
    found, seen, _ = fitted
    base, adapter = file_digest(find_model("default")), found.adapter.record["adapter_digest"]
    calibration = found.plan.calibration_for(base, adapter)
    assert calibration == found.calibration.calibration
    assert (calibration.labels, calibration.n, calibration.risk) == ("synthetic", FEWEST_KEPT + 4, 0.05)
    assert len(seen["calibrating"]) == calibration.n
    assert found.plan.calibration_for(base, None) is None
    assert found.plan.digest == TOY.digest


@pytest.mark.model
def test_the_plan_gets_the_validation_record_of_the_held_out_cases(fitted):
    found, seen, _ = fitted
    base, adapter = file_digest(find_model("default")), found.adapter.record["adapter_digest"]
    held_out = [case for case in toy_cases() if case.split == "held_out"]
    record = found.plan.validation_for(base, adapter)
    assert record.cases_digest == cases_digest(held_out)
    assert record.outcome.n == sum(case.outcome is not None for case in held_out) > 0
    assert [reading.case for reading in found.held_out.readings] == held_out
    assert seen["rehearsing"] == list(found.held_out.readings)


@pytest.mark.model
def test_fitted_again_nothing_is_trained_and_the_same_comes_out(fitted, monkeypatch):
    found, _, _ = fitted
    steps = []
    monkeypatch.setattr(finetuning, "PARITY_CASES", 2)
    again = fit(
        TOY,
        toy_cases(),
        found.adapter.path,
        bank=TOY_BANK,
        settings=SETTINGS,
        progress=FittingProgress(training=steps.append),
    )
    assert steps == []
    assert again.adapter.record["adapter_digest"] == found.adapter.record["adapter_digest"]
    assert again.calibration.calibration.temperatures == found.calibration.calibration.temperatures
    for name in ("cases_digest", "adapter_digest", "outcome", "findings"):
        assert getattr(again.plan.validation[0], name) == getattr(found.plan.validation[0], name)


@pytest.mark.model
def test_without_held_out_cases_the_plan_is_calibrated_and_not_validated(fitted, monkeypatch):
    found, _, _ = fitted
    monkeypatch.setattr(finetuning, "PARITY_CASES", 1)
    cases = [case for case in toy_cases() if case.split != "held_out"]
    again = fit(TOY, cases, found.adapter.path, bank=TOY_BANK, settings=SETTINGS)
    assert again.held_out is None
    assert again.plan.validation == ()
    assert len(again.plan.calibrations) == 1
