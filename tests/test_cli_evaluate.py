"""`medorchestra evaluate` and `requalify`: labelled reports, read by scripted models, into files and exit codes."""

from __future__ import annotations

import json
import sys

import pyarrow.parquet as pq
import pytest
from local.evaluation.small_study import CANARY, GUIDELINE, QUOTED, Readers, interrupting, study_rows, write_rows
from local.small_batch import PLAN

from medorchestra import cli
from medorchestra.local.engine import llama_cpp
from medorchestra.local.evaluation import evaluation_files
from medorchestra.local.evaluation.strategies import STRATEGIES
from medorchestra.plan_files import write_plan


@pytest.fixture
def folder(tmp_path):
    """plan.yaml, guideline.md, and cases.csv with twelve labelled reports."""
    write_plan(PLAN, tmp_path / "plan.yaml")
    (tmp_path / "guideline.md").write_text(GUIDELINE, "utf-8")
    write_rows(tmp_path / "cases.csv", study_rows())
    return tmp_path


@pytest.fixture
def readers(monkeypatch):
    """Scripted models in the place of llama.cpp."""
    readers = Readers()
    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", readers.open)
    return readers


@pytest.fixture(autouse=True)
def page(request, monkeypatch):
    """A page without pictures, which take the most time; tests that look at the page are marked to get the real one."""
    if "real_page" not in request.fixturenames:
        monkeypatch.setattr(evaluation_files, "evaluation_page", lambda made, *, texts=None: f"{made.title} {texts}")


@pytest.fixture
def real_page():
    """Asks for the page as it is."""


def run(capsys, *command):
    """Exit code, stdout and stderr. Nothing that a report says may be in them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medorchestra", *map(str, command)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    out, err = capsys.readouterr()
    assert CANARY not in out + err
    assert QUOTED not in out + err
    assert "Traceback" not in err
    assert "internal error" not in err
    return caught.value.code or 0, out, err


def evaluate(capsys, folder, *options, cases="cases.csv", plan="plan.yaml", adapter="none", out="out"):
    command = ["evaluate", folder / cases, "--plan", folder / plan, "--out", folder / out, "--adapter", adapter]
    return run(capsys, *command, *options)


def requalify(capsys, folder, *options):
    command = ["requalify", folder / "plan.yaml", "--model", "new.gguf", "--against", "old.gguf"]
    command += ["--out", folder / "out", "--adapter", "none", "--against-adapter", "none"]
    return run(capsys, *command, *options)


def saved(folder):
    return json.loads((folder / "out" / "evaluation.json").read_text("utf-8"))


# ------------------------------------------------------------------------------ evaluate


def test_all_strategies_are_measured_side_by_side_and_written(capsys, folder, readers):
    options = ["--strategies", "all", "--samples", "2", "--reader", "reader_1", "--group", "ward", "--group", "sex"]
    options += ["--order", "resectable, locally_advanced, metastatic"]
    code, out, err = evaluate(capsys, folder, *options, adapter=folder / "tuned.gguf")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "12 labelled reports, 10 with one true outcome, 2 open, 0 without a label"
    assert [line.split(":")[0] for line in lines[1:11]] == [
        *STRATEGIES,
        *(f"{name} + adapter" for name in STRATEGIES),
    ]
    assert lines[11].startswith("reader reader_1: right 7 of 8")
    assert "orchestrated + adapter less orchestrated: +20.0 points over 10 cases" in out
    assert "wrong decisions of orchestrated + adapter: 0 of 12" in out
    assert lines[-1] == f"written: {folder / 'out'}"
    assert "direct: 12/12 reports" in err
    found = saved(folder)
    assert [one["name"] for one in found["runs"]] == [line.split(":")[0] for line in lines[1:11]]
    assert list(found["runs"][0]["groups"]) == ["ward", "sex"]
    assert found["order"] == ["resectable", "locally_advanced", "metastatic"]
    assert found["about"]["settings"]["samples"] == 2
    assert found["about"]["command"][:3] == ["medorchestra", "evaluate", str(folder / "cases.csv")]
    assert pq.read_metadata(folder / "out" / "per_case.parquet").num_rows == 120
    assert (folder / "out" / "report.html").exists()


def test_without_options_the_plan_is_measured_with_the_adapter_that_lies_beside_it(capsys, folder, readers):
    code, out, _ = run(
        capsys, "evaluate", folder / "cases.csv", "--plan", folder / "plan.yaml", "--out", folder / "out", "-q"
    )
    assert code == 0
    assert readers.opened == [("default", None)], "none lies there"
    assert "orchestrated: right 8 of 10, 80 % (49 to 94)" in out


def test_the_model_as_it_comes_can_be_left_out(capsys, folder, readers):
    code, _, err = evaluate(capsys, folder, "--skip-bare", "--quiet", adapter=folder / "tuned.gguf")
    assert (code, err) == (0, "")
    assert readers.opened == [("default", "tuned.gguf")]


def test_labels_are_mapped_and_columns_named_by_options(capsys, folder, readers):
    written = {"resectable": "R0 > margin = free", "locally_advanced": "LAPC", "metastatic": "M1", "open": "open"}
    rows = [
        {"nr": row["report_id"], "Text": row["text"], "Board": written[row["outcome"]], "Gefäß": row["sma_contact"]}
        for row in study_rows()
    ]
    write_rows(folder / "own.csv", rows)
    (folder / "own.csv").write_bytes((folder / "own.csv").read_text("utf-8").encode("cp1252"))
    options = ["--id-column", "nr", "--text-column", "Text", "--outcome-column", "Board", "--encoding", "cp1252"]
    options += ["--finding", "sma_contact=Gefäß", "--map", "R0 > margin = free=resectable"]
    options += ["--map", "LAPC=locally_advanced", "--map", "M1=metastatic", "--model", "m.gguf"]
    code, out, err = evaluate(capsys, folder, *options, cases="own.csv")
    assert code == 0
    assert "orchestrated: right 8 of 10" in out
    assert "medorchestra: 1 of 3 findings are labelled" in err
    assert saved(folder)["runs"][0]["findings"]["sma_contact"]["n"] == 12
    assert readers.opened == [("m.gguf", None)]


def test_labels_of_another_file_are_joined_by_id(capsys, folder, readers):
    rows = study_rows()
    write_rows(folder / "reports.csv", [{"report_id": row["report_id"], "text": row["text"]} for row in rows])
    labels = write_rows(
        folder / "labels.csv", [{"id": row["report_id"], "outcome": row["outcome"]} for row in rows[:7]]
    )
    code, out, err = evaluate(capsys, folder, "--labels", labels, cases="reports.csv")
    assert code == 0
    assert out.startswith("7 labelled reports, 6 with one true outcome, 1 open, 5 without a label")
    assert f"medorchestra: 5 of 12 reports have no row in {labels}" in err


def test_runs_are_repeated_on_demand(capsys, folder, readers):
    code, _, err = evaluate(capsys, folder, "--runs", "3")
    assert code == 0
    assert err.count("orchestrated: 12/12 reports") == 3
    assert saved(folder)["runs"][0]["repeatability"]["runs"] == 3


def test_the_guideline_is_read_from_where_it_is_named(capsys, folder, readers):
    (folder / "guideline.md").rename(folder / "own.md")
    assert evaluate(capsys, folder, "--strategies", "guideline", "--guideline", folder / "own.md")[0] == 0


@pytest.mark.usefixtures("real_page")
def test_report_text_is_on_the_page_only_with_text(capsys, folder, readers):
    evaluate(capsys, folder)
    assert CANARY not in (folder / "out" / "report.html").read_text("utf-8")
    evaluate(capsys, folder, "--with-text")
    assert (folder / "out" / "report.html").read_text("utf-8").count(CANARY) == 2, "of the two wrong decisions"


def test_an_interrupted_evaluation_says_so_and_the_same_command_goes_on(capsys, folder, readers):
    readers.before = interrupting(20)
    options = ["--strategies", "direct,orchestrated", "--quiet"]
    code, out, err = evaluate(capsys, folder, *options)
    assert (code, out) == (130, "")
    assert err.strip() == "medorchestra: interrupted; run the same command again to go on"
    assert not (folder / "out" / "report.html").exists()
    readers.before = lambda asked: None
    code, out, _ = evaluate(capsys, folder, *options)
    assert code == 0
    assert "direct: right 8 of 10" in out
    # 12 outcomes and 36 findings; the report in work (two of whose three findings were read) is read again.
    assert len(readers.asked) == 12 + 36 + 2


# ------------------------------------------------------------------------------ gates


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["--min-accuracy", "0.8"], 0, "gate passed: accuracy of orchestrated: 0.8000 over 10 cases"),
        (["--min-accuracy", "0.81"], 3, "gate missed: accuracy of orchestrated: 0.8000 over 10 cases"),
        (
            ["--min-accuracy", "0.8", "--on", "lower-bound"],
            3,
            "gate missed: accuracy of orchestrated, lower bound: 0.4902 over 10 cases, asked for at least 0.8",
        ),
        (
            ["--min-accuracy", "0.49", "--on", "lower-bound"],
            0,
            "gate passed: accuracy of orchestrated, lower bound: 0.4902 over 10 cases, asked for at least 0.49",
        ),
        # Two misread arteries (60 % sure) and two open cases of twelve go to a person.
        (["--max-review", "0.34"], 0, "gate passed: review of orchestrated: 0.3333 over 12 cases"),
        (["--max-review", "0.33"], 3, "gate missed: review of orchestrated: 0.3333 over 12 cases"),
        (
            ["--max-review", "0.34", "--on", "lower-bound"],
            3,
            "gate missed: review of orchestrated, upper bound: 0.6094 over 12 cases",
        ),
        (["--min-unreviewed", "1"], 0, "gate passed: unreviewed of orchestrated: 1.0000 over 8 cases"),
        (["--min-accuracy", "0.8", "--max-review", "0.3"], 3, "gate passed: accuracy of orchestrated: 0.8000"),
        (["--strategies", "direct", "--max-review", "1"], 3, "gate missed: review of direct: not defined over 0 cases"),
    ],
)
def test_a_missed_gate_is_exit_code_3_and_everything_is_written_all_the_same(
    capsys, folder, readers, options, code, line
):
    ended, out, _ = evaluate(capsys, folder, *options)
    assert ended == code
    assert line in out
    assert (folder / "out" / "report.html").exists()


def test_gates_are_held_against_the_plan_with_the_adapter_among_all_strategies(capsys, folder, readers):
    options = ["--strategies", "all", "--samples", "1", "--min-accuracy", "0.95", "--max-review", "1"]
    code, out, _ = evaluate(capsys, folder, *options, adapter=folder / "tuned.gguf")
    assert code == 0
    assert "gate passed: accuracy of orchestrated + adapter: 1.0000 over 10 cases" in out
    assert "gate passed: review of orchestrated + adapter: 0.1667 over 12 cases" in out


# ------------------------------------------------------------------------------ bad input

BAD_OPTIONS = {
    "an unknown strategy": (["--strategies", "direct,oracle"], "strategies: oracle; choose from direct, guideline,"),
    "no strategy": (["--strategies", " , "], "none, or one twice; choose from"),
    "an order with a foreign outcome": (
        ["--order", "resectable,curable"],
        "order: curable: not outcomes of plan demo",
    ),
    "a map without sign": (["--map", CANARY], "--map LABEL=OUTCOME: number 1 is not of this form"),
    "a map without outcome": (["--map", "M1=metastatic", "--map", "x="], "--map LABEL=OUTCOME: number 2 is not"),
    "one label mapped twice": (["--map", "a=metastatic", "--map", "a=open"], "number 2 is not of this form, or names"),
    "a map to no outcome": (["--map", "M1=metastasised"], "nor `open`; nearest: metastatic"),
    "a finding that the plan has not": (
        ["--finding", "sma=sma_contact"],
        "no findings of plan demo; there are: sma_contact",
    ),
    "a finding without its column": (["--finding", "sma_contact=Gefäß"], "no column 'Gefäß' for finding sma_contact"),
    "no outcome column": (["--outcome-column", "Board"], "no column 'Board' with the outcomes"),
    "no reader column": (["--reader", "Board"], "no column 'Board', which --reader names"),
    "no group column": (["--group", "Board"], "no column 'Board', which --group names"),
    "a group of texts": (["--text-column", "ward", "--group", "text"], "column 'text': 12 cells are no groups"),
    "a reader who is the truth": (["--reader", "outcome"], "cannot be both the true outcome and a reader's"),
    "texts as outcomes": (["--text-column", "ward", "--outcome-column", "text"], "12 cells with 12 labels"),
    "no such encoding": (["--encoding", "klingon"], "klingon"),
    "a gate that is no share": (["--min-accuracy", "80"], "80 is no share; write 80 % as 0.8"),
    "a gate on something else": (["--min-accuracy", "0.8", "--on", "sideways"], "--on 'sideways': choose from point"),
    "no samples": (["--samples", "0"], "--samples"),
    "no runs": (["--runs", "0"], "--runs"),
    "labels that are not there": (["--labels", "nowhere.csv"], "nowhere.csv: cannot be read"),
    "a guideline that is not there": (
        ["--strategies", "guideline", "--guideline", "nowhere.md"],
        "nowhere.md: cannot be read as text",
    ),
    "no such plan": (["--plan", "nowhere.yaml"], "nowhere.yaml"),
    "no such topic": (["--plan", "nosuchtopic"], "nosuchtopic"),
}


def said(err):
    """Standard error without the frame and the line breaks that typer puts around its own messages."""
    return " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize("what", BAD_OPTIONS)
def test_bad_options_are_named_before_a_model_is_opened(capsys, folder, readers, what):
    options, says = BAD_OPTIONS[what]
    code, out, err = evaluate(capsys, folder, *options)
    assert (code, out) == (2, "")
    assert says in said(err)
    assert readers.opened == []
    assert not (folder / "out").exists()


def unknown_label(rows):
    rows[3]["outcome"] = rows[5]["outcome"] = f"{CANARY} resected"


def unknown_value(rows):
    rows[3]["sma_contact"] = CANARY


def unknown_reading(rows):
    rows[3]["reader_1"] = CANARY


def same_id(rows):
    rows[3]["report_id"] = "case-1"


def no_labels(rows):
    for row in rows:
        row["outcome"] = row["liver_mets"] = ""


BAD_CASES = {
    "unknown labels": (unknown_label, "column 'outcome': 2 cells with 1 label, neither outcomes of plan demo"),
    "an unknown value": (unknown_value, "column 'sma_contact': 1 cell with 1 label, neither values of sma_contact"),
    "an unknown reading": (unknown_reading, "column 'reader_1': 1 cell with 1 label, neither outcomes of plan demo"),
    "the same id twice": (same_id, "case-1"),
    "no labels at all": (no_labels, "none of 12 rows has an outcome in column 'outcome'"),
}


@pytest.mark.parametrize("what", BAD_CASES)
def test_bad_cases_are_counted_and_placed_and_never_shown(capsys, folder, readers, what):
    change, says = BAD_CASES[what]
    rows = study_rows()
    change(rows)
    write_rows(folder / "cases.csv", rows)
    code, out, err = evaluate(capsys, folder, "--reader", "reader_1")
    assert (code, out) == (2, "")
    assert f"{folder / 'cases.csv'}" in err
    assert says in said(err)
    assert readers.opened == []
    assert not (folder / "out").exists()


@pytest.mark.parametrize("content", ["", "\n", "report_id,text,outcome\n", None])
def test_a_file_without_cases_is_named(capsys, folder, readers, content):
    if content is None:
        (folder / "cases.csv").unlink()
    else:
        (folder / "cases.csv").write_text(content, "utf-8")
    code, out, err = evaluate(capsys, folder)
    assert (code, out) == (2, "")
    assert "cases.csv" in err
    assert readers.opened == []


def test_a_plan_without_its_guideline_is_refused_for_the_strategy_that_shows_it(capsys, folder, readers):
    (folder / "guideline.md").unlink()
    code, out, err = evaluate(capsys, folder, "--strategies", "all")
    assert (code, out) == (2, "")
    assert "plan demo: no guideline.md beside it or in its topic; name the guideline's text" in said(err)
    assert readers.opened == []


def test_a_folder_that_cannot_be_written_is_named_before_a_report_is_read(capsys, folder, readers):
    (folder / "out").write_text("a file")
    code, out, err = evaluate(capsys, folder)
    assert (code, out) == (2, "")
    assert "out/ledger.sqlite: the ledger cannot be made" in said(err)
    assert readers.asked == []


# ------------------------------------------------------------------------------ requalify


@pytest.fixture
def many(folder):
    """60 cases, 50 of them decided, on 10 of which only the arteries tell."""
    return write_rows(folder / "many.csv", study_rows(60))


def test_a_model_that_reads_as_well_is_accepted(capsys, folder, readers, many):
    code, out, err = requalify(capsys, folder, "--cases", many, "--margin", "0.1")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "many.csv: accept"
    assert lines[1] == "  in use: right 40 of 50, 80 % (67 to 89); new: right 40 of 50, 80 % (67 to 89)"
    assert "new less old: +0.0 points over 50 cases, 0 gained, 0 lost" in lines[2]
    assert readers.opened == [("old.gguf", None), ("new.gguf", None)]
    assert err.count("orchestrated: 60/60 reports") == 2


def test_a_model_that_reads_worse_is_rejected_with_what_it_reads_worse(capsys, folder, readers, many):
    readers.reads_well = lambda model, adapter: model == "old.gguf"
    code, out, _ = requalify(capsys, folder, "--cases", many)
    assert code == 3
    assert out.splitlines()[0] == "many.csv: reject"
    assert "new less old: -20.0 points over 50 cases" in out
    assert "  sma_contact: 20 read worse, 0 better" in out


def test_too_few_cases_to_tell_are_not_accepted_and_the_number_needed_is_told(capsys, folder, readers):
    code, out, _ = requalify(capsys, folder, "--cases", folder / "cases.csv")
    assert code == 3
    assert out.splitlines()[0] == "cases.csv: too few cases"
    assert "  about 125 cases would tell" in out


def test_reports_of_the_hospital_are_judged_by_themselves(capsys, folder, readers, many):
    options = ["--cases", many, "--labelled", folder / "cases.csv", "--margin", "0.1"]
    code, out, _ = requalify(capsys, folder, *options)
    assert code == 3, "accepted on one, too few on the other"
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [
        "many.csv: accept",
        "cases.csv: too few cases",
    ]


def test_another_adapter_of_the_same_model_is_judged_too(capsys, folder, readers, many):
    command = ["requalify", folder / "plan.yaml", "--model", "m.gguf", "--against", "m.gguf", "--out", folder / "out"]
    command += ["--adapter", "new.gguf", "--against-adapter", "none", "--cases", many]
    code, out, _ = run(capsys, *command)
    assert code == 0
    assert readers.opened == [("m.gguf", None), ("m.gguf", "new.gguf")]
    assert "many.csv: accept" in out
    assert "new less old: +20.0 points over 50 cases" in out


def test_an_interrupted_requalification_goes_on(capsys, folder, readers):
    options = ["--cases", folder / "cases.csv", "--quiet"]
    readers.before = interrupting(45)
    code, out, err = requalify(capsys, folder, *options)
    assert (code, out) == (130, "")
    assert err.strip() == "medorchestra: interrupted; run the same command again to go on"
    readers.before = lambda asked: None
    assert requalify(capsys, folder, *options)[0] == 3
    assert len(readers.asked) == len(set(readers.asked)) == 72


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--margin", "5"], "margin 5: a loss of accuracy between 0 and 1"),
        (["--margin", "0"], "margin 0: a loss of accuracy between 0 and 1"),
        ([], "held_out.jsonl"),
        (["--cases", "nowhere.csv"], "nowhere.csv"),
        (["--cases", "CASES", "--labelled", "nowhere.csv"], "nowhere.csv"),
        (["--cases", "CASES", "--labelled", "CASES", "--labels", "nowhere.csv"], "nowhere.csv: cannot be read"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_a_model_is_opened(capsys, folder, readers, options, says):
    options = [folder / "cases.csv" if one == "CASES" else one for one in options]
    code, out, err = requalify(capsys, folder, *options)
    assert (code, out) == (2, "")
    assert says in said(err)
    assert readers.opened == []


OWN_COLUMNS = ["--id-column", "nr", "--text-column", "Text", "--outcome-column", "Board", "--encoding", "cp1252"]
OWN_COLUMNS += ["--finding", "sma_contact=Gefäß", "--map", "LAPC=locally_advanced", "--map", "M1=metastatic"]


def test_reports_of_the_hospital_are_laid_out_by_the_options_of_evaluate(capsys, folder, readers, many):
    written = {"resectable": "resectable", "locally_advanced": "LAPC", "metastatic": "M1", "open": "open"}
    rows = [
        {"nr": row["report_id"], "Text": row["text"], "Board": written[row["outcome"]], "Gefäß": row["sma_contact"]}
        for row in study_rows(60)
    ]
    write_rows(folder / "own.csv", rows)
    (folder / "own.csv").write_bytes((folder / "own.csv").read_text("utf-8").encode("cp1252"))
    readers.reads_well = lambda model, adapter: model == "new.gguf"
    code, out, err = requalify(capsys, folder, "--cases", many, "--labelled", folder / "own.csv", *OWN_COLUMNS)
    assert code == 0
    _, own = out.split("own.csv: accept\n")
    assert "in use: right 40 of 50, 80 % (67 to 89); new: right 50 of 50" in own
    assert "medorchestra: 1 of 3 findings are labelled" in err


@pytest.mark.parametrize(
    "option", [*(OWN_COLUMNS[place : place + 2] for place in range(0, 12, 2)), ["--labels", "l.csv"]]
)
def test_options_on_labels_without_labelled_reports_are_refused(capsys, folder, readers, option):
    code, out, err = requalify(capsys, folder, "--cases", folder / "cases.csv", *option)
    assert (code, out) == (2, "")
    assert "options on labels, columns and encoding are about --labelled; name that file too" in said(err)
    assert readers.opened == []
