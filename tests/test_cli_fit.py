"""`medorchestra calibrate`: labelled reports of a hospital's own, read by a scripted model, into a calibrated plan."""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime

import pytest
from local.engine.gguf_writing import TINY_ADAPTER, TINY_MODEL, adapter_tensors, model_tensors, write_gguf
from local.small_batch import PLAN, scripted_reading, small_engine, small_reports

from medorchestra import cli
from medorchestra.local.adapters import QUESTIONS_KEY
from medorchestra.local.engine import llama_cpp
from medorchestra.local.engine.adapter_fit import BASE_DIGEST
from medorchestra.local.engine.gguf_file import file_digest
from medorchestra.local.engine.scripted import ScriptedEngine
from medorchestra.plan_files import read_plan, write_plan

CANARY = "Quillfeather"
REPORTS = small_reports(30)
LABEL = {"The SMA is free.": "none", "The SMA is encased": ">180"}


def truth(report):
    """Contact and liver, as the report means them."""
    contact = next((value for words, value in LABEL.items() if words in report.text), "not_stated")
    return contact, "yes" if "Liver metastases" in report.text else "no"


@pytest.fixture
def folder(tmp_path):
    """plan.yaml, reports.csv and labels.csv (two findings and the size, no outcome: the rules give it)."""
    write_plan(PLAN, tmp_path / "plan.yaml")
    written = [(report.report_id, f"{report.text} {CANARY}.") for report in REPORTS]
    write_csv(tmp_path / "reports.csv", [("report_id", "text"), *written])
    labels = [(report.report_id, *truth(report), 2.0 + n % 10 / 10) for n, report in enumerate(REPORTS)]
    write_csv(tmp_path / "labels.csv", [("id", "sma_contact", "liver_mets", "size_cm"), *labels])
    return tmp_path


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def engines(monkeypatch):
    """Puts a scripted reader in the place of llama.cpp; notes what engines and answers are asked for."""
    made = {"engines": [], "questions": 0}

    def counted(asked):
        made["questions"] += 1
        return scripted_reading(asked)

    def make(model, *, adapter=None, **_):
        made["engines"].append({"model": model, "adapter": adapter})
        return ScriptedEngine(counted)

    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", make)
    return made


def reading(monkeypatch, reply):
    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", lambda model, **_: ScriptedEngine(reply))


def run(capsys, folder, *options, labels="labels.csv", adapter="none"):
    """Exit code, stdout and stderr of the command on the folder's files."""
    command = ["calibrate", folder / "plan.yaml", folder / "reports.csv", "--labels", folder / labels]
    command += ["--out", folder / "calibrated.yaml", "--adapter", adapter, *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medorchestra", *map(str, command)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    out, err = capsys.readouterr()
    assert CANARY not in out + err
    assert "Traceback" not in err
    return caught.value.code or 0, out, err


def refused(capsys, folder, *options, **names):
    """What a command that writes nothing says on stderr."""
    code, out, err = run(capsys, folder, *options, **names)
    assert (code, out) == (2, "")
    assert not (folder / "calibrated.yaml").exists()
    return " ".join(err.split())


# ------------------------------------------------------------------------------ a run


def test_labelled_reports_become_a_calibration_in_a_plan_of_its_own(capsys, folder, engines):
    code, out, err = run(capsys, folder)
    assert code == 0
    assert out.splitlines() == [
        "calibrated on 30 labelled reports (local): below 0.00 to review; 25 of 30 are left, 0 of them wrong "
        "(95 % interval 0 to 13 %), counted on the reports that the threshold was chosen on",
        f"written: {folder / 'calibrated.yaml'}",
    ]
    assert "30/30 reports" in err
    assert read_plan(folder / "plan.yaml") == PLAN
    plan = read_plan(folder / "calibrated.yaml")
    (calibration,) = plan.calibrations
    assert plan.digest == calibration.plan_digest == PLAN.digest
    assert plan.calibration_for(small_engine().identity.digest, None) == calibration
    assert (calibration.labels, calibration.n, calibration.review_below) == ("local", 30, 0.0)
    assert calibration.made_on == datetime.now(UTC).date()
    # The reader is 0.9 sure and always right on both.
    assert all(calibration.temperatures[finding] < 1 for finding in ("sma_contact", "liver_mets"))
    assert engines["engines"] == [{"model": "default", "adapter": None}]
    assert CANARY not in (folder / "calibrated.yaml").read_text("utf-8")


def test_options_reach_the_calibration(capsys, folder, engines):
    code, _, err = run(capsys, folder, "--risk", "0.02", "--set-coverage", "0.9", "--model", "m.gguf", "--quiet")
    assert (code, err) == (0, "")
    (calibration,) = read_plan(folder / "calibrated.yaml").calibrations
    assert (calibration.risk, calibration.set_coverage) == (0.02, 0.9)
    assert calibration.set_floor > 0.5
    assert engines["engines"][0]["model"] == "m.gguf"


def test_with_a_ledger_the_same_command_asks_nothing_again(capsys, folder, engines):
    run(capsys, folder, "--ledger", folder / "ledger.sqlite")
    first = read_plan(folder / "calibrated.yaml")
    assert engines["questions"] == 90
    run(capsys, folder, "--ledger", folder / "ledger.sqlite")
    assert engines["questions"] == 90
    assert read_plan(folder / "calibrated.yaml") == first


def test_reports_without_a_label_are_not_read(capsys, folder, engines):
    with (folder / "reports.csv").open("a", encoding="utf-8") as file:
        file.write(f"unlabelled,The SMA is free {CANARY}.\n")
    code, out, _ = run(capsys, folder)
    assert (code, engines["questions"]) == (0, 90)
    assert "30 labelled reports" in out


def test_files_that_are_no_reports_are_named_on_stderr_as_in_staging(capsys, folder, engines):
    (folder / "texts").mkdir()
    for report in REPORTS:
        (folder / "texts" / f"{report.report_id}.txt").write_text(report.text, encoding="utf-8")
    (folder / "texts" / "notes.docx").write_bytes(b"PK")
    (folder / "reports.csv").unlink()
    (folder / "texts").rename(folder / "reports.csv")
    code, _, err = run(capsys, folder, "--quiet")
    assert code == 0
    assert err.startswith("medorchestra: ")
    assert "1 " in err


def test_a_model_that_nothing_can_be_left_to_is_told_and_sends_everything_to_review(capsys, folder, monkeypatch):
    reading(monkeypatch, lambda asked: asked.candidates[0] if "SMA" not in asked.question else "encasement")
    code, out, _ = run(capsys, folder)
    assert code == 0
    assert "no threshold leaves at most 5% wrong, all go to review; the lowest share of wrong ones seen was 0." in out
    assert read_plan(folder / "calibrated.yaml").calibrations[0].review_below == 1.0


def test_the_adapter_beside_the_plan_is_used_and_the_calibration_made_for_it(capsys, folder, engines):
    model = write_gguf(folder / "base.gguf", TINY_MODEL, model_tensors())
    said = {BASE_DIGEST: file_digest(model), QUESTIONS_KEY: PLAN.questions_digest}
    (folder / "adapters").mkdir()
    beside = write_gguf(folder / "adapters" / "a.gguf", TINY_ADAPTER | said, adapter_tensors(model_tensors()))
    for named, expected in (("auto", beside), ("none", None), (folder / "own.gguf", folder / "own.gguf")):
        engines["engines"].clear()
        assert run(capsys, folder, "--model", model, adapter=named)[0] == 0
        assert engines["engines"] == [{"model": str(model), "adapter": expected}]


# ------------------------------------------------------------------------------ what is refused


def test_too_few_labels_are_refused(capsys, folder, engines):
    lines = (folder / "labels.csv").read_text("utf-8").splitlines()
    (folder / "few.csv").write_text("\n".join(lines[:20]), encoding="utf-8")
    assert "19 labelled outcomes; at least 20 are needed" in refused(capsys, folder, "--quiet", labels="few.csv")
    assert engines["questions"] == 0


def test_a_label_that_the_plan_does_not_have_is_named_by_place_before_a_model_is_loaded(capsys, folder, engines):
    with (folder / "labels.csv").open("a", encoding="utf-8") as file:
        file.write(f"case-99,{CANARY},no,2\n")
    said = refused(capsys, folder)
    assert "labels.csv: row 32: column sma_contact: none of its values" in said
    assert engines["engines"] == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--risk", "5"], "risk and set_coverage must lie between 0 and 1"),
        (["--set-coverage", "90"], "risk and set_coverage must lie between 0 and 1"),
        (["--text-column", "Befund"], "Befund"),
    ],
)
def test_impossible_options_are_refused_before_a_model_is_loaded(capsys, folder, engines, options, says):
    assert says in refused(capsys, folder, *options)
    assert engines["engines"] == []


def test_files_that_are_not_there_are_named(capsys, folder, engines):
    assert "missing.csv" in refused(capsys, folder, labels="missing.csv")
    assert engines["engines"] == []


def test_an_interrupted_run_says_how_it_goes_on_and_writes_nothing(capsys, folder, monkeypatch):
    def interrupted(asked):
        if "no. 3." in asked.report:
            raise KeyboardInterrupt
        return scripted_reading(asked)

    reading(monkeypatch, interrupted)
    code, out, err = run(capsys, folder, "--ledger", folder / "ledger.sqlite")
    assert (code, out) == (130, "")
    assert "interrupted; with --ledger, the same command goes on where it was" in err
    assert not (folder / "calibrated.yaml").exists()


def test_an_engine_that_throws_the_report_back_shows_nothing_of_it(capsys, folder, monkeypatch):
    reading(monkeypatch, lambda asked: RuntimeError(asked.report))
    code, out, _ = run(capsys, folder)
    assert code == 0
    assert "all go to review" in out


@pytest.mark.model
def test_the_default_model_is_calibrated_and_its_calibration_serves_it(capsys, folder, default_engine):
    code, out, _ = run(capsys, folder, "--quiet")
    assert code == 0
    assert out.startswith("calibrated on 30 labelled reports (local): ")
    plan = read_plan(folder / "calibrated.yaml")
    identity = default_engine.identity
    assert plan.calibration_for(identity.digest, identity.adapter_digest) == plan.calibrations[0]


@pytest.mark.parametrize("where", ["reports.csv/sub/calibrated.yaml", "."])
def test_where_the_plan_cannot_be_written_no_report_is_read(capsys, folder, engines, where):
    code, out, err = run(capsys, folder, "--out", folder / where)
    assert (code, out) == (2, "")
    assert "cannot be written" in " ".join(err.split())
    assert engines == {"engines": [], "questions": 0}
