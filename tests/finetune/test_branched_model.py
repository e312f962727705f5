"""The model in PyTorch: what it needs is asked for clearly, and its branches do not see one another."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from types import ModuleType

import pytest
from plan_by_hand import PLAN_BY_HAND
from small_phrase_bank import small_bank

from medorchestra.errors import ModelError
from medorchestra.finetune import branched_model
from medorchestra.finetune.branched_model import BranchedModel, LoraSettings, require_torch
from medorchestra.finetune.training_prompts import PromptMaker
from medorchestra.local.engine.model_files import find_model
from medorchestra.phrases.composition import Composer

PACKAGES = ("gguf", "peft", "torch", "transformers")
COMPACT = PLAN_BY_HAND.profile.model_copy(update={"prompt_form": "compact"})
PLAN = PLAN_BY_HAND.model_copy(update={"profile": COMPACT})


@pytest.fixture
def packages(monkeypatch):
    """Empty modules in the place of the extra's packages, which take long to load."""
    found = {name: ModuleType(name) for name in PACKAGES}
    for name, module in found.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(branched_model, "_keep_memory", lambda: None)
    return found


@pytest.mark.parametrize("missing", PACKAGES)
def test_a_missing_package_of_the_extra_is_named_with_the_command_that_installs_it(packages, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelError) as caught:
        require_torch()
    assert str(caught.value).startswith(
        f"training needs the package {missing}; run pip install 'medorchestra[finetune]'"
    )


def test_torch_is_handed_out_and_nothing_may_be_looked_up(packages):
    assert require_torch() is packages["torch"]
    assert os.environ["HF_HUB_OFFLINE"] == "1"


# ------------------------------------------------------------------------------- the real model


@pytest.fixture(scope="module")
def model():
    return BranchedModel(find_model("default"), LoraSettings(rank=4, alpha=8), seed=1, dtype="float32")


@pytest.fixture(scope="module")
def prompts(default_engine):
    """Two reports of different length, with all their questions."""
    maker = PromptMaker(PLAN, default_engine)
    composer = Composer(small_bank(), PLAN, "development")
    found = [prompt for seed in (1, 4) for prompt in maker.prompts(composer.compose(seed).case)]
    assert len({prompt.length for prompt in found}) == 2
    return found


@pytest.mark.model
def test_no_question_sees_another_and_no_report_its_neighbour_in_the_batch(model, prompts):
    model.train(training=False)
    with model.torch.no_grad():
        together = [float(loss) for loss in model.losses(prompts)]
        alone = [
            float(loss)
            for prompt in prompts
            for branch in prompt.branches[::5]
            for loss in model.losses([replace(prompt, branches=(branch,))])
        ]
    places, start = [], 0
    for prompt in prompts:
        places += range(start, start + len(prompt.branches))[::5]
        start += len(prompt.branches)
    assert len(together) == start
    assert [together[place] for place in places] == pytest.approx(alone, abs=1e-3)
    assert max(alone) - min(alone) > 0.1  # or the comparison could not fail


@pytest.mark.model
def test_a_fresh_adapter_changes_nothing_and_the_masters_decide(model, prompts):
    model.train(training=False)
    before = {name: weights.clone() for name, weights in model.masters.items()}

    def losses():
        with model.torch.no_grad():
            return [float(loss) for loss in model.losses(prompts[:1])]

    fresh = losses()
    try:
        for name, weights in model.masters.items():
            if ".lora_A." in name:
                weights.add_(1.0)
        model.copy_masters()
        assert losses() == fresh  # the second factor is still 0
        model.load({name: weights + 0.01 for name, weights in before.items()})
        assert losses() != pytest.approx(fresh, abs=1e-2)
    finally:
        model.load(before)
    assert losses() == fresh


@pytest.mark.model
def test_a_file_that_transformers_cannot_read_is_refused(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF but nothing else")
    with pytest.raises(ModelError, match="transformers cannot load it for training"):
        BranchedModel(path, LoraSettings(), seed=1)
