"""The adapter beside a plan: found where it was trained for the very base and questions, passed over where not."""

from __future__ import annotations

import pytest
from local.engine.gguf_writing import TINY_ADAPTER, TINY_MODEL, adapter_tensors, model_tensors, write_gguf
from small_batch import CITATION, CONTENT, PLAN, plan_with, small_engine, with_prompt

from medorchestra.errors import ModelError, SettingsError
from medorchestra.local import adapters
from medorchestra.local.adapters import QUESTIONS_KEY, chosen_adapter, find_adapter
from medorchestra.local.engine.adapter_fit import BASE_DIGEST
from medorchestra.local.engine.gguf_file import file_digest
from medorchestra.plan_files import write_plan


@pytest.fixture
def model(tmp_path):
    return write_gguf(tmp_path / "base.gguf", TINY_MODEL, model_tensors())


@pytest.fixture
def plan_file(tmp_path):
    """A plan file with an empty folder of adapters beside it."""
    (tmp_path / "topic" / "adapters").mkdir(parents=True)
    write_plan(PLAN, tmp_path / "topic" / "plan.yaml")
    return tmp_path / "topic" / "plan.yaml"


@pytest.fixture
def adapter(model, plan_file):
    """Puts an adapter beside the plan that says it was trained for this; all else as given."""

    def make(name="tuned.gguf", *, plan=PLAN, base=None, tensors=None, **metadata):
        said = {BASE_DIGEST: base or file_digest(model), QUESTIONS_KEY: plan.questions_digest} | metadata
        tensors = adapter_tensors(model_tensors()) if tensors is None else tensors
        return write_gguf(plan_file.parent / "adapters" / name, {**TINY_ADAPTER, **said}, tensors)

    return make


# ------------------------------------------------------------------------------ finding


def test_an_adapter_trained_on_this_base_for_these_questions_is_found(model, plan_file, adapter):
    assert find_adapter(PLAN, model, plan_file) is None
    path = adapter()
    assert find_adapter(PLAN, model, plan_file) == path


def test_an_adapter_of_another_base_is_passed_over_though_its_shapes_fit(model, plan_file, adapter):
    adapter(base="sha256:" + "3" * 64)
    assert find_adapter(PLAN, model, plan_file) is None


def test_an_adapter_for_other_questions_is_passed_over(model, plan_file, adapter):
    adapter()
    assert find_adapter(with_prompt("sma_contact", "Does it touch the SMA? {{ labels }}"), model, plan_file) is None


def test_a_mended_rule_keeps_the_adapter(model, plan_file, adapter):
    path = adapter()
    mended = [*CONTENT["rules"][1:], CONTENT["rules"][0] | {"when": {"finding": "liver_mets", "in": ["yes"]}}]
    plan = plan_with(rules=[rule | {"citation": CITATION} for rule in mended])
    assert plan.digest != PLAN.digest
    assert find_adapter(plan, model, plan_file) == path


def test_the_one_that_fits_is_found_among_those_that_do_not(model, plan_file, adapter):
    adapter("another_base.gguf", base="sha256:" + "3" * 64)
    adapter("another_plan.gguf", plan=plan_with(profile={"head": {"instructed": "Read with care."}}))
    path = adapter("z.gguf")
    assert find_adapter(PLAN, model, plan_file) == path


def test_two_that_fit_are_refused_and_named(model, plan_file, adapter):
    adapter("first.gguf")
    adapter("second.gguf", **{"general.name": "another training"})
    with pytest.raises(ModelError, match=r"2 adapters fit .* \(first\.gguf, second\.gguf\); name one with --adapter"):
        find_adapter(PLAN, model, plan_file)


def test_an_adapter_that_says_nothing_and_a_whole_model_are_passed_over(model, plan_file, adapter):
    folder = plan_file.parent / "adapters"
    write_gguf(folder / "silent.gguf", TINY_ADAPTER, adapter_tensors(model_tensors()))
    said = {BASE_DIGEST: file_digest(model), QUESTIONS_KEY: PLAN.questions_digest}
    write_gguf(folder / "whole.gguf", {**TINY_MODEL, **said}, model_tensors())
    (folder / "tuned.training.json").write_text("{}", encoding="utf-8")
    assert find_adapter(PLAN, model, plan_file) is None


def test_a_damaged_file_beside_the_plan_is_told_and_not_passed_over(model, plan_file, adapter):
    path = adapter()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match=r"tuned\.gguf: "):
        find_adapter(PLAN, model, plan_file)


def test_without_a_plan_file_the_folder_of_its_topic_is_looked_in(model, plan_file, adapter, monkeypatch):
    path = adapter()
    monkeypatch.setattr(adapters, "guideline_folder", {"demo": plan_file.parent}.__getitem__)
    assert find_adapter(PLAN, model) == path


def test_a_copy_of_a_plan_elsewhere_keeps_the_adapter_of_its_topic_unless_one_of_its_own_fits(
    tmp_path, model, plan_file, adapter, monkeypatch
):
    """`calibrate --out` writes such a copy; without the adapter that it was fitted to it would be worth nothing."""
    path = adapter()
    monkeypatch.setattr(adapters, "guideline_folder", {"demo": plan_file.parent}.__getitem__)
    copy = tmp_path / "ward" / "plan.yaml"
    assert find_adapter(PLAN, model, copy) == path
    (tmp_path / "ward" / "adapters").mkdir(parents=True)
    own = tmp_path / "ward" / "adapters" / "own.gguf"
    own.write_bytes(path.read_bytes())
    assert find_adapter(PLAN, model, copy) == own


def test_a_plan_of_no_shipped_topic_has_no_adapter(model):
    assert find_adapter(PLAN, model) is None


def test_where_there_is_nothing_to_choose_from_the_model_is_not_even_read(tmp_path, plan_file):
    assert find_adapter(PLAN, tmp_path / "missing.gguf", plan_file) is None


# ------------------------------------------------------------------------------ choosing


@pytest.mark.parametrize("named", [None, "none"])
def test_none_means_none_even_where_one_lies_beside_the_plan(model, plan_file, adapter, named):
    adapter()
    assert chosen_adapter(PLAN, model, named, plan_file) is None


def test_auto_means_the_one_beside_the_plan_or_none(model, plan_file, adapter):
    assert chosen_adapter(PLAN, model, "auto", plan_file) is None
    path = adapter()
    assert chosen_adapter(PLAN, model, "auto", plan_file) == path
    assert chosen_adapter(PLAN, str(model), "auto", plan_file) == path


def test_a_path_means_that_file_whatever_lies_beside_the_plan(tmp_path, model, plan_file, adapter):
    adapter("first.gguf")
    adapter("second.gguf")
    own = tmp_path / "own.gguf"
    assert chosen_adapter(PLAN, model, own, plan_file) == own
    assert chosen_adapter(PLAN, model, str(own), plan_file) == own


def test_a_model_that_is_not_there_is_told_where_an_adapter_is_looked_for(plan_file, adapter):
    adapter()
    with pytest.raises(ModelError, match=r"missing\.gguf.*no such file"):
        chosen_adapter(PLAN, "missing.gguf", "auto", plan_file)


@pytest.mark.parametrize("named", [None, "none", "auto"])
def test_for_a_model_server_none_is_looked_for(plan_file, adapter, named):
    adapter()
    assert chosen_adapter(PLAN, "http://127.0.0.1:9#reader-1", named, plan_file) is None


def test_a_path_for_a_model_server_is_refused(plan_file, tmp_path):
    with pytest.raises(SettingsError, match="a model server reads with the adapter that it was started with"):
        chosen_adapter(PLAN, "http://127.0.0.1:9", tmp_path / "own.gguf", plan_file)


def test_an_engine_that_is_given_has_its_own(plan_file, adapter):
    adapter()
    assert chosen_adapter(PLAN, small_engine(), "auto", plan_file) is None
