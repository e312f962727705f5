"""`medorchestra finetune`: what is missing or wrong is said before anything is trained, with exit code 2."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import ModuleType

import pytest
from local.engine.gguf_writing import TINY_MODEL, model_tensors, write_gguf
from plan_by_hand import PLAN_BY_HAND, cases_by_hand
from small_phrase_bank import parts_bank, small_bank

from medorchestra import cli
from medorchestra.finetune import branched_model, finetuning
from medorchestra.local.engine import model_files
from medorchestra.phrases.phrase_bank import write_phrase_bank
from medorchestra.plan_files import write_plan
from medorchestra.synthetic import write_cases

CASES = cases_by_hand()


@pytest.fixture
def folder(tmp_path):
    """A plan with its cases and phrase bank beside it, as the planner leaves them."""
    write_plan(PLAN_BY_HAND, tmp_path / "plan.yaml")
    write_cases(CASES, tmp_path / "cases")
    write_phrase_bank(small_bank(), tmp_path / "phrase_bank.json")
    return tmp_path


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A base that nothing may be trained on, with loading allowed: what is checked before it is loaded is seen."""
    monkeypatch.setattr(model_files, "ALLOW_MODEL_LOADING", True)
    monkeypatch.setattr(finetuning, "LlamaCppEngine", _not_to_be_loaded)
    return write_gguf(tmp_path / "base.gguf", TINY_MODEL, model_tensors())


def _not_to_be_loaded(*_, **__):
    raise AssertionError("a model was loaded")


def refused(capsys, plan, *options, out="adapter.gguf"):
    """What a command that fails says; it leaves no adapter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medorchestra", "finetune", str(plan), "--out", str(out), *map(str, options)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    said, err = capsys.readouterr()
    assert (caught.value.code, said) == (2, "")
    assert "Traceback" not in err
    assert not any(case.text[:40] in err for case in CASES)
    return " ".join(err.split())


# ---------------------------------------------------------------------------------- the options


def test_an_adapter_must_be_a_gguf(folder, capsys):
    err = refused(capsys, folder / "plan.yaml", "--composed", 2, out=folder / "adapter.bin")
    assert f"{folder / 'adapter.bin'}: name the adapter's file with the ending .gguf" in err
    assert not (folder / "adapter.bin").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--composed", 0, "--repeats", 0], "must not be negative, and not both 0"),
        (["--learning-rate", 8], "learning_rate and warmup between 0 and 1"),
        (["--risk", 5], "risk and set_coverage must lie between 0 and 1"),
        (["--rank", 0], "'--rank'"),
        (["--qlora", "maybe"], "'--qlora'"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_read(folder, capsys, options, said):
    assert said in refused(capsys, folder / "plan.yaml", *options, out=folder / "adapter.gguf")


def test_a_plan_that_is_not_there_is_named(tmp_path, capsys):
    assert "nowhere" in refused(capsys, tmp_path / "nowhere.yaml")


def test_a_base_that_is_not_there_is_named(folder, base, capsys):
    err = refused(capsys, folder / "plan.yaml", "--model", folder / "absent.gguf", out=folder / "adapter.gguf")
    assert "absent.gguf" in err
    assert "no such file" in err


# ------------------------------------------------------------------------------------- the cases


def test_a_plan_without_cases_is_refused(tmp_path, capsys):
    plan = PLAN_BY_HAND.model_copy(update={"topic": "a_topic_of_this_hospital"})
    write_plan(plan, tmp_path / "plan.yaml")
    err = refused(capsys, tmp_path / "plan.yaml", out=tmp_path / "adapter.gguf")
    assert "no synthetic cases" in err
    assert "a_topic_of_this_hospital" in err


def test_cases_without_a_phrase_bank_are_refused_with_the_way_out(folder, capsys):
    (folder / "phrase_bank.json").unlink()
    err = refused(capsys, folder / "plan.yaml", out=folder / "adapter.gguf")
    assert f"{folder / 'cases'}: no phrase_bank.json" in err
    assert "train on the full reports alone with --composed 0" in err


def test_a_phrase_bank_of_another_topic_is_refused(folder, capsys):
    write_phrase_bank(parts_bank(), folder / "phrase_bank.json")
    err = refused(capsys, folder / "plan.yaml", out=folder / "adapter.gguf")
    assert "phrase bank of topic 'toy', plan of topic 'pancreatic_cancer'" in err


def test_cases_of_the_development_split_are_needed(folder, base, capsys):
    (folder / "cases" / "development.jsonl").unlink()
    err = refused(capsys, folder / "plan.yaml", "--composed", 0, "--model", base, out=folder / "adapter.gguf")
    assert "no case of the development split to train on" in err


def test_too_few_cases_to_calibrate_with_are_told_before_training(folder, capsys):
    write_cases([case for case in CASES if case.split == "calibration"][:7], folder / "cases")
    (folder / "phrase_bank.json").unlink()
    err = refused(capsys, folder / "plan.yaml", "--composed", 0, out=folder / "adapter.gguf")
    assert "7 cases of the calibration split; at least 20 are needed" in err


def test_contradicting_labels_are_refused_by_id_and_finding(folder, base, capsys):
    first = next(case for case in CASES if case.split == "development" and case.outcome == "metastatic")
    other = next(case for case in CASES if case.split == "development" and case.outcome == "resectable")
    twin = other.model_copy(update={"id": "twin", "text": first.text})
    write_cases([*CASES, twin], folder / "cases")
    err = refused(capsys, folder / "plan.yaml", "--composed", 0, "--model", base, out=folder / "adapter.gguf")
    assert f"cases {first.id} and twin have one text and different labels for " in err
    assert "liver_mets" in err


def test_without_the_extra_the_command_says_what_to_install(folder, base, capsys, monkeypatch):
    for name in ("gguf", "peft", "transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(branched_model, "_keep_memory", _not_to_be_loaded)
    monkeypatch.setattr(finetuning, "LlamaCppEngine", lambda _: nullcontext())
    monkeypatch.setattr(finetuning, "PromptMaker", lambda *_: None)
    err = refused(capsys, folder / "plan.yaml", "--composed", 2, "--model", base, out=folder / "adapter.gguf")
    assert "training needs the package torch; run pip install 'medorchestra[finetune]'" in err


def test_4_bits_without_a_gpu_are_refused_before_anything_is_loaded(folder, base, capsys, monkeypatch):
    torch = pytest.importorskip("torch", reason="needs the extra `finetune`")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = ("--composed", 2, "--model", base, "--qlora", "on")
    err = refused(capsys, folder / "plan.yaml", *options, out=folder / "adapter.gguf")
    assert "qlora is on, and torch finds no CUDA GPU" in err
    assert not (folder / "adapter.training").exists()


def test_the_plan_is_left_as_it_was_by_a_command_that_fails(folder, capsys):
    before = (folder / "plan.yaml").read_bytes()
    refused(capsys, folder / "plan.yaml", "--composed", 2, "--write", out=folder / "adapter.bin")
    assert (folder / "plan.yaml").read_bytes() == before
