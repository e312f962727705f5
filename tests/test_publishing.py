"""What of a plan may leave: the folder that `plan publish` writes, and what it refuses to put into it."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from local.engine.gguf_writing import TINY_ADAPTER, TINY_MODEL, adapter_tensors, model_tensors, write_gguf
from local.small_batch import plan_with

import medorchestra.publishing
from medorchestra import cli
from medorchestra.errors import CaseError, EgressError, GuidelineError, PlanError, SettingsError, StorageError
from medorchestra.local.adapters import TRAINED_ON_KEY, find_adapter
from medorchestra.local.batch import DISCLAIMER
from medorchestra.plan_files import read_plan, write_plan
from medorchestra.publishing import publish
from medorchestra.synthetic import labelled, read_cases, write_cases

TEXT = "---\ntitle: A short guideline\n---\n## 1. Vessels\n### 1.1 Contact\nContact of more than half is encasement.\n"
REFERENCE = {"title": "A short guideline", "edition": "first"}
MODEL, OTHER_MODEL = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def calibration(plan, labels, model=MODEL):
    return {
        "made_on": "2026-11-24",
        "plan_digest": plan.digest,
        "model_digest": model,
        "labels": labels,
        "n": 240,
        "labels_digest": "sha256:" + "3" * 64,
        "temperatures": {"sma_contact": 1.4},
        "risk": 0.05,
        "review_below": 0.7,
    }


def validation(plan):
    accuracy = {"n": 86, "correct": 71, "low": 0.73, "high": 0.89}
    return {
        "measured_on": "2026-11-24",
        "plan_digest": plan.digest,
        "model": "tiny",
        "model_digest": MODEL,
        "cases_digest": "sha256:" + "4" * 64,
        "outcome": accuracy,
        "findings": {"sma_contact": accuracy},
    }


def small_plan(*calibrations):
    """The small plan with a validation record and calibrations of these kinds of labels."""
    guideline = REFERENCE | {"digest": digest_of(TEXT.encode())}
    bare = plan_with(guideline=guideline)
    models = (MODEL, OTHER_MODEL, "sha256:" + "5" * 64)
    return plan_with(
        guideline=guideline,
        validation=[validation(bare)],
        calibrations=[calibration(bare, labels, model) for labels, model in zip(calibrations, models, strict=False)],
    )


def add_adapter(folder, name="tiny", says="synthetic", **record):
    """An adapter whose metadata says so (None: nothing), and its training record, with other fields where given."""
    path = folder / "adapters" / f"{name}.gguf"
    path.parent.mkdir(exist_ok=True)
    said = {} if says is None else {TRAINED_ON_KEY: says}
    write_gguf(path, {**TINY_ADAPTER, **said}, adapter_tensors(model_tensors()))
    facts = {"trained_on": says, "adapter_digest": digest_of(path.read_bytes())}
    path.with_suffix(".json").write_text(json.dumps(facts | record), encoding="utf-8")
    return path


@pytest.fixture
def made(tmp_path) -> Path:
    """The folder of a plan as `finetune` leaves it: plan, guideline, adapter, and what training left behind."""
    folder = tmp_path / "made"
    folder.mkdir()
    write_plan(small_plan("synthetic"), folder / "plan.yaml")
    (folder / "guideline.md").write_text(TEXT, encoding="utf-8")
    adapter = add_adapter(folder)
    adapter.with_suffix(".training").mkdir()
    (adapter.with_suffix(".training") / "answers.sqlite").write_bytes(b"answers")
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "shared" / "bundle"


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def names_in(folder):
    """Whatever lies in a folder, hidden files too."""
    return [path.name for path in folder.iterdir()]


def two_cases(folder):
    texts = {"syn-1": ("The SMA is free. No liver lesion.", "none"), "syn-2": ("The SMA is encased.", ">180")}
    cases = [
        labelled(
            small_plan(),
            {"sma_contact": value, "liver_mets": "no"},
            id=name,
            split="development" if name == "syn-1" else "held_out",
            form="free_text",
            style="terse",
            text=text,
        )
        for name, (text, value) in texts.items()
    ]
    write_cases(cases, folder)
    return tuple(cases)


# ------------------------------------------------------------------------------------ what goes in


def test_the_folder_holds_plan_guideline_adapter_and_record_and_nothing_that_training_left_behind(made, out):
    published = publish(made / "plan.yaml", out)
    expected = {"plan.yaml", "guideline.md", "adapters/tiny.gguf", "adapters/tiny.json"}
    assert files_in(out) == expected | {"manifest.json"}
    assert published.folder == out
    assert set(published.files) == expected
    for name in expected - {"plan.yaml"}:
        assert (out / name).read_bytes() == (made / name).read_bytes()
    assert read_plan(out / "plan.yaml") == read_plan(made / "plan.yaml")
    assert names_in(out.parent) == ["bundle"]


def test_the_manifest_names_every_file_with_the_digest_of_its_bytes(made, out, tmp_path):
    two_cases(tmp_path / "cases")
    publish(made / "plan.yaml", out, cases=tmp_path / "cases")
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["files"] == {
        name: digest_of((out / name).read_bytes()) for name in files_in(out) - {"manifest.json"}
    }
    assert manifest["medorchestra"] == version("medorchestra")
    assert manifest["notice"] == DISCLAIMER
    assert manifest["topic"] == "demo"
    assert manifest["plan_digest"] == read_plan(made / "plan.yaml").digest
    assert manifest["published"][:4].isdigit()


def test_a_published_plan_can_be_published_again(made, out, tmp_path):
    first = publish(made / "plan.yaml", out)
    assert publish(out / "plan.yaml", tmp_path / "again").files == first.files


def test_the_published_adapter_is_the_one_that_staging_finds(made, out, tmp_path):
    model = write_gguf(tmp_path / "model.gguf", TINY_MODEL, model_tensors())
    plan = read_plan(made / "plan.yaml")
    path = made / "adapters" / "tiny.gguf"
    said = {
        TRAINED_ON_KEY: "synthetic",
        "medorchestra.base_digest": digest_of(model.read_bytes()),
        "medorchestra.questions_digest": plan.questions_digest,
    }
    write_gguf(path, {**TINY_ADAPTER, **said}, adapter_tensors(model_tensors()))
    record = {"trained_on": "synthetic", "adapter_digest": digest_of(path.read_bytes())}
    path.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
    publish(made / "plan.yaml", out)
    assert find_adapter(plan, model, out / "plan.yaml") == out / "adapters" / "tiny.gguf"


def test_cases_go_along_only_where_they_are_asked_for(made, out, tmp_path):
    cases = two_cases(tmp_path / "cases")
    (tmp_path / "cases" / "notes.txt").write_text("not a case", encoding="utf-8")
    publish(made / "plan.yaml", out, cases=tmp_path / "cases")
    assert read_cases(out / "cases") == cases
    assert files_in(out / "cases") == {"development.jsonl", "held_out.jsonl"}
    publish(made / "plan.yaml", tmp_path / "without")
    assert not (tmp_path / "without" / "cases").exists()


def test_a_topic_that_comes_with_the_library_can_be_published(out):
    published = publish("pancreatic_cancer_tnm", out)
    assert {"plan.yaml", "guideline.md"} <= set(published.files)
    assert read_plan(out / "plan.yaml") == read_plan("pancreatic_cancer_tnm")


def test_a_plan_without_adapters_is_published_without_them(made, out):
    shutil.rmtree(made / "adapters")
    assert set(publish(made / "plan.yaml", out).files) == {"plan.yaml", "guideline.md"}
    assert not (out / "adapters").exists()


def test_calibrations_on_a_hospitals_own_reports_stay_and_are_counted(made, out):
    plan = small_plan("synthetic", "local", "local")
    write_plan(plan, made / "plan.yaml")
    published = publish(made / "plan.yaml", out)
    left = read_plan(out / "plan.yaml")
    assert published.local_calibrations == 2
    assert [one.labels for one in left.calibrations] == ["synthetic"]
    assert left.calibrations == plan.calibrations[:1]
    assert "local" not in (out / "plan.yaml").read_text(encoding="utf-8").split("calibrations:")[1]
    assert left.digest == plan.digest
    assert left.validation == plan.validation
    assert left.validation_for(MODEL, None) is not None


def test_a_comment_in_the_plan_file_stays(made, out):
    path = made / "plan.yaml"
    path.write_text(f"# thresholds tried on ward 3\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    publish(path, out)
    assert "ward 3" not in (out / "plan.yaml").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------ the guideline


def test_a_guideline_elsewhere_is_taken_when_it_is_named(made, out, tmp_path):
    elsewhere = (made / "guideline.md").rename(tmp_path / "text.md")
    publish(made / "plan.yaml", out, guideline=elsewhere)
    assert (out / "guideline.md").read_text(encoding="utf-8") == TEXT


def test_a_byte_order_mark_makes_no_other_text(made, out):
    (made / "guideline.md").write_text(TEXT, encoding="utf-8-sig")
    assert "guideline.md" in publish(made / "plan.yaml", out).files


def test_a_text_beside_the_plan_that_it_was_not_made_from_is_left_out(made, out):
    (made / "guideline.md").write_text(TEXT + "An edition later.\n", encoding="utf-8")
    assert "guideline.md" not in publish(made / "plan.yaml", out).files
    assert not (out / "guideline.md").exists()


@pytest.mark.parametrize(("text", "says"), [("another text", "not the text that the plan"), (None, "cannot be read")])
def test_a_named_guideline_that_is_not_the_plans_is_refused(made, out, tmp_path, text, says):
    named = tmp_path / "text.md"
    if text is not None:
        named.write_text(text, encoding="utf-8")
    with pytest.raises(GuidelineError, match=says):
        publish(made / "plan.yaml", out, guideline=named)
    assert not out.parent.exists()


# ------------------------------------------------------------------------------------ what must stay


def refused(made, out) -> str:
    """The message with which the adapters are refused; nothing is left behind."""
    before = files_in(made)
    with pytest.raises(EgressError) as error:
        publish(made / "plan.yaml", out)
    assert not out.parent.exists()
    assert files_in(made) == before
    return str(error.value)


@pytest.mark.parametrize(
    ("metadata", "record"), [("clinical", "clinical"), ("clinical", "synthetic"), ("synthetic", "clinical")]
)
def test_an_adapter_trained_on_clinical_text_never_leaves_whichever_of_the_two_says_so(made, out, metadata, record):
    path = add_adapter(made, "ward", metadata, trained_on=record)
    said = refused(made, out)
    assert "trained on clinical text" in said
    assert str(path) in said
    assert "1 of 2 adapters" in said


def test_an_adapter_trained_on_clinical_text_never_leaves_without_a_record_either(made, out):
    add_adapter(made, "ward", "clinical").with_suffix(".json").unlink()
    assert "trained on clinical text" in refused(made, out)


@pytest.mark.parametrize("said", [None, "", "Synthetic", "unknown"])
def test_an_adapter_that_does_not_say_what_it_was_trained_on_is_refused(made, out, said):
    add_adapter(made, "foreign", said, trained_on="synthetic")
    message = refused(made, out)
    assert "does not say what it was trained on" in message
    assert "foreign.gguf" in message


def test_an_adapter_that_is_not_the_one_of_its_record_is_refused(made, out):
    add_adapter(made, "tiny", adapter_digest="sha256:" + "0" * 64)
    assert "tiny.json is that of another file" in refused(made, out)


@pytest.mark.parametrize("record", ["{}", "[]", "no JSON", '{"trained_on": "synthetic"}'])
def test_an_adapter_whose_record_says_too_little_is_refused(made, out, record):
    (made / "adapters" / "tiny.json").write_text(record, encoding="utf-8")
    assert "tiny.json" in refused(made, out)


def test_an_adapter_without_a_record_is_refused(made, out):
    (made / "adapters" / "tiny.json").unlink()
    assert "has no readable training record tiny.json" in refused(made, out)


def test_a_record_that_does_not_say_synthetic_is_refused(made, out):
    add_adapter(made, "tiny", trained_on=None)
    assert "does not say that it was trained on synthetic text" in refused(made, out)


def test_a_model_or_a_damaged_file_among_the_adapters_is_refused_and_every_file_is_named(made, out):
    write_gguf(made / "adapters" / "base.gguf", {**TINY_MODEL, TRAINED_ON_KEY: "synthetic"}, model_tensors())
    (made / "adapters" / "cut.gguf").write_bytes((made / "adapters" / "tiny.gguf").read_bytes()[:200])
    add_adapter(made, "ward", "clinical")
    said = refused(made, out)
    assert "3 of 4 adapters" in said
    assert all(f"{name}.gguf)" in said for name in ("base", "cut", "ward"))
    assert "tiny.gguf" not in said
    assert "a model, not an adapter" in said
    assert "cut off" in said


def test_an_adapter_that_changes_while_it_is_copied_is_not_published(made, out, monkeypatch):
    def copy_half(source, to):
        Path(to).write_bytes(Path(source).read_bytes()[:100])

    monkeypatch.setattr(medorchestra.publishing.shutil, "copyfile", copy_half)
    with pytest.raises(EgressError, match="changed while it was copied"):
        publish(made / "plan.yaml", out)
    assert names_in(out.parent) == []


def test_a_plan_that_is_not_valid_is_refused(made, out):
    path = made / "plan.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("liver_mets", "liver", 1), encoding="utf-8")
    with pytest.raises(PlanError, match=r"plan\.yaml"):
        publish(path, out)
    assert not out.parent.exists()


def test_cases_that_cannot_be_read_are_refused(made, out, tmp_path):
    two_cases(tmp_path / "cases")
    (tmp_path / "cases" / "calibration.jsonl").write_text('{"id": "syn-3"}\n', encoding="utf-8")
    with pytest.raises(CaseError, match=r"calibration\.jsonl: line 1"):
        publish(made / "plan.yaml", out, cases=tmp_path / "cases")
    assert not out.parent.exists()


# ------------------------------------------------------------------------------------ writing


def test_an_empty_folder_is_taken(made, out):
    out.mkdir(parents=True)
    publish(made / "plan.yaml", out)
    assert (out / "manifest.json").is_file()


@pytest.mark.parametrize("there", ["folder", "file"])
def test_what_is_there_already_is_never_written_over(made, out, there):
    taken = out / "notes.txt" if there == "folder" else out
    taken.parent.mkdir(parents=True)
    taken.write_text("kept", encoding="utf-8")
    with pytest.raises(SettingsError, match="there is something already"):
        publish(made / "plan.yaml", out)
    assert taken.read_text(encoding="utf-8") == "kept"
    assert names_in(out.parent) == ["bundle"]


def test_a_full_disk_leaves_nothing_half_written(made, out, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(medorchestra.publishing.shutil, "copyfile", full)
    with pytest.raises(StorageError, match="No space left on device"):
        publish(made / "plan.yaml", out)
    assert names_in(out.parent) == []


# ------------------------------------------------------------------------------------ the command


def run(monkeypatch, capsys, *arguments):
    """Exit code, output and errors of `medorchestra plan publish …`."""
    monkeypatch.setattr(sys, "argv", ["medorchestra", "plan", "publish", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as stopped:
        code = stopped.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_lists_the_files_and_says_what_it_left_out(made, out, monkeypatch, capsys):
    write_plan(small_plan("local", "local"), made / "plan.yaml")
    (made / "guideline.md").unlink()
    code, said, errors = run(monkeypatch, capsys, made / "plan.yaml", "--out", out)
    assert (code, errors) == (0, "")
    assert f"{digest_of((out / 'plan.yaml').read_bytes())}  plan.yaml\n" in said
    assert "left out: 2 calibrations fitted to a hospital's own reports" in said
    assert "without a guideline" in said
    assert f"published: {out}\n" in said


def test_the_command_says_nothing_of_what_it_did_not_leave_out(made, out, monkeypatch, capsys):
    code, said, _ = run(monkeypatch, capsys, made / "plan.yaml", "--out", out)
    assert code == 0
    assert "left out" not in said
    assert "without" not in said


def test_the_command_refuses_with_one_message_and_exit_code_2(made, out, monkeypatch, capsys):
    path = add_adapter(made, "ward", "clinical")
    code, said, errors = run(monkeypatch, capsys, made / "plan.yaml", "--out", out)
    assert (code, said) == (2, "")
    assert errors.startswith("medorchestra: ")
    assert str(path) in errors
    assert "Traceback" not in errors
    assert not out.parent.exists()
