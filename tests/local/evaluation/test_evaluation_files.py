"""What an evaluation leaves in its folder: whole files or none, null for what is undefined, and no report text."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import closing
from dataclasses import fields, replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local.small_batch import PLAN
from made_up_evaluation import made_up_evaluation, nothing_measured
from small_study import CANARY, GUIDELINE, QUOTED, Readers, study_rows, write_rows

from medorchestra.errors import StorageError
from medorchestra.local.calibrating import LabelledReport
from medorchestra.local.evaluation import evaluation_files
from medorchestra.local.evaluation.error_anatomy import ErrorKind
from medorchestra.local.evaluation.evaluating import Contender, EvaluationSettings, evaluate_set
from medorchestra.local.evaluation.evaluation import Evaluation
from medorchestra.local.evaluation.evaluation_files import (
    EVALUATION_FILE,
    PAGE_FILE,
    TABLE_FILE,
    case_table,
    evaluation_json,
    write_evaluation,
)
from medorchestra.local.evaluation.labelled_set import LabelColumns, read_labelled_set
from medorchestra.local.evaluation.predictions import LabelledCase, Prediction, StrategyRun
from medorchestra.local.records import Report

FILES = {EVALUATION_FILE, TABLE_FILE, PAGE_FILE}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Cases, runs and evaluation of a small set: `direct` and `orchestrated`, as the model comes."""
    path = write_rows(tmp_path_factory.mktemp("study") / "cases.csv", study_rows())
    labelled = read_labelled_set(PLAN, path, LabelColumns(readers=("reader_1",), groups=("ward",)))
    readers = Readers()

    def fails(asked):
        if "no. 7." in asked.report:
            raise ValueError(asked.report)

    readers.before = fails
    contender = Contender(PLAN, lambda: closing(readers.open("m.gguf")))
    settings = EvaluationSettings(strategies=("direct", "orchestrated"))
    made = evaluate_set(PLAN, labelled, [contender], settings, guideline=GUIDELINE)
    return SimpleNamespace(cases=labelled.cases, runs=made.runs, evaluation=made.evaluation)


def write(study, folder, **options):
    write_evaluation(folder, PLAN, study.cases, study.runs, study.evaluation, **options)
    return folder


def strict(text):
    """JSON as the standard has it: no NaN, no infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def rows_of(table):
    return {(row["run"], row["case_id"]): row for row in table.to_pylist()}


# ------------------------------------------------------------------------------ evaluation.json


def test_everything_that_was_measured_reads_back(study):
    made = study.evaluation
    found = strict(evaluation_json(made))
    assert set(found) == {field.name for field in fields(Evaluation)}
    assert found["made_on"] == made.made_on.isoformat()
    assert found["labelled"]["cases"] == 12
    assert found["outcomes"] == ["resectable", "locally_advanced", "metastatic"]
    direct, orchestrated = found["runs"]
    # The failed report is metastatic: one right less than the eight of the liver.
    assert direct["outcome"]["accuracy"] == {
        "correct": 7,
        "n": 10,
        "low": made.runs[0].outcome.accuracy.low,
        "high": made.runs[0].outcome.accuracy.high,
        "value": 0.7,
    }
    assert direct["outcome"]["confusion"]["metastatic -> no decision"] == 1
    assert direct["outcome"]["classes"]["metastatic"]["support"] == 6
    assert orchestrated["findings"]["sma_contact"]["n"] == 12
    assert orchestrated["anatomy"]["kinds"] == {"finding_misread": 2, "unreadable": 1}
    assert found["comparisons"][0]["difference"]["n"] == 10
    assert found["about"]["models"][0]["model"] == "m.gguf"


def test_what_is_not_defined_is_null():
    found = strict(evaluation_json(nothing_measured()))
    (run,) = found["runs"]
    assert run["outcome"]["accuracy"] == {"correct": 0, "n": 0, "low": None, "high": None, "value": None}
    assert run["outcome"]["macro_f1"] is None
    assert run["outcome"]["classes"]["resectable"]["precision"] is None
    assert (run["reliability"]["ece"], run["risk_coverage"]["area"]) == (None, None)
    assert (run["unreviewed"], run["anatomy"], run["repeatability"]) == (None, None, None)
    assert run["readers"]["reader_1"]["kappa"] is None
    assert found["comparisons"][0]["difference"]["p_value"] is None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_becomes_null_however_deep_it_stands(number):
    found = strict(evaluation_json(made_up_evaluation(about={"models": [{"settings": {"rope": number}}]})))
    assert found["about"] == {"models": [{"settings": {"rope": None}}]}


def test_kinds_of_error_and_pairs_of_outcomes_are_words():
    found = strict(evaluation_json(made_up_evaluation()))
    anatomy = found["runs"][2]["anatomy"]
    assert set(anatomy["kinds"]) <= {kind.value for kind in ErrorKind}
    assert anatomy["errors"][0]["kind"] in anatomy["kinds"]
    assert found["runs"][2]["outcome"]["confusion"]["metastatic -> resectable"] == 1


# ------------------------------------------------------------------------------ per_case.parquet


def test_the_table_has_a_row_for_every_case_of_every_run(study):
    table = case_table(PLAN, study.cases, study.runs)
    assert table.num_rows == 24
    assert Counter(table["run"].to_pylist()) == {"direct": 12, "orchestrated": 12}
    assert table.column_names == [
        *("case_id", "run", "label", "outcome", "right", "is_open", "probability", "review", "error"),
        *("seconds", "tokens"),
        *("probability_resectable", "probability_locally_advanced", "probability_metastatic"),
        *("reader_reader_1", "group_ward"),
        *("sma_contact_label", "sma_contact", "sma_contact_probability"),
        *("liver_mets_label", "liver_mets", "liver_mets_probability"),
        *("size_cm_label", "size_cm", "size_cm_probability"),
    ]


def test_a_row_says_what_was_said_and_what_is_true(study):
    rows = rows_of(case_table(PLAN, study.cases, study.runs))
    encased = rows["orchestrated", "case-2"]
    assert (encased["label"], encased["outcome"], encased["right"]) == ("locally_advanced", "resectable", False)
    assert (encased["sma_contact_label"], encased["sma_contact"]) == (">180", "<=180")
    assert encased["sma_contact_probability"] == pytest.approx(0.6)
    assert (encased["group_ward"], encased["reader_reader_1"], encased["error"]) == ("W2", "locally_advanced", None)
    assert (encased["size_cm_label"], encased["size_cm"]) == ("2.2", "2.2")
    chosen = encased["probability_resectable"]
    assert encased["probability"] == chosen > encased["probability_locally_advanced"]
    opened = rows["orchestrated", "case-4"]
    assert (opened["label"], opened["is_open"], opened["right"]) == ("open", True, True)
    assert (opened["sma_contact_label"], opened["sma_contact"]) == ("not_stated", "not_stated")


def test_what_a_strategy_has_no_say_in_is_null(study):
    rows = rows_of(case_table(PLAN, study.cases, study.runs))
    direct = rows["direct", "case-0"]
    assert (direct["outcome"], direct["right"], direct["review"]) == ("resectable", True, None)
    assert (direct["sma_contact_label"], direct["sma_contact"], direct["sma_contact_probability"]) == (
        *("none", None, None),
    )
    failed = rows["direct", "case-7"]
    assert (failed["outcome"], failed["probability"], failed["right"]) == (None, None, False)
    assert failed["error"].startswith("ValueError at test_evaluation_files.py:")
    assert rows["direct", "case-1"]["reader_reader_1"] is None


def test_a_table_of_empty_columns_keeps_their_types():
    cases = [LabelledCase(LabelledReport(Report("one", "text"), {}, "resectable"))]
    table = case_table(PLAN, cases, [StrategyRun("direct", None, (Prediction("one", None, error="empty"),))])
    assert table.schema.field("probability").type == pa.float64()
    assert table.schema.field("review").type == pa.bool_()
    assert table["probability_metastatic"].to_pylist() == [None]
    assert case_table(PLAN, [], []).num_rows == 0


def test_ids_and_groups_that_are_no_valid_unicode_are_written_as_escapes(tmp_path, study):
    odd = replace(
        study.cases[0],
        labels=replace(study.cases[0].labels, report=Report("a\ud800", "text")),
        groups={"ward": "W\udfff"},
    )
    run = StrategyRun("direct", None, (Prediction("a\ud800", "metastatic"),))
    settings = {"wrong": (), "runs": ()}
    write_evaluation(tmp_path, PLAN, [odd], [run], replace(study.evaluation, **settings))
    (row,) = pq.read_table(tmp_path / TABLE_FILE).to_pylist()
    assert (row["case_id"], row["group_ward"]) == ("a\\ud800", "W\\udfff")


# ------------------------------------------------------------------------------ the folder


def test_the_folder_holds_three_files_and_nothing_half_written(study, tmp_path):
    folder = write(study, tmp_path / "new" / "out")
    assert {path.name for path in folder.iterdir()} == FILES
    assert strict((folder / EVALUATION_FILE).read_text("utf-8")) == strict(evaluation_json(study.evaluation))
    assert pq.read_table(folder / TABLE_FILE).equals(case_table(PLAN, study.cases, study.runs))
    assert (folder / PAGE_FILE).read_text("utf-8").startswith("<!DOCTYPE html>")


def contents(folder):
    return "".join(
        str(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text("utf-8")
        for path in folder.iterdir()
    )


def test_report_text_is_in_no_file_unless_asked_for_and_then_only_of_wrong_decisions_on_the_page(study, tmp_path):
    said = contents(write(study, tmp_path / "without"))
    assert "case-2" in said
    assert CANARY not in said
    assert QUOTED not in said
    folder = write(study, tmp_path / "with", with_text=True)
    page = (folder / PAGE_FILE).read_text("utf-8")
    wrong = {one.case_id for one in study.evaluation.wrong}
    assert 0 < len(wrong) < 12
    assert page.count(CANARY) == len(wrong)
    (folder / PAGE_FILE).unlink()
    assert CANARY not in contents(folder)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_cannot_be_written_is_an_error_that_names_the_folder(study, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(StorageError, match=f"{tmp_path}: cannot be written: Is a directory; check folder and free"):
        write(study, tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_a_file_in_the_place_of_the_folder_is_named(study, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match="out: cannot be written: "):
        write(study, tmp_path / "out")


def test_a_disk_that_becomes_full_leaves_the_earlier_file_whole(study, tmp_path, monkeypatch):
    write(study, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(table, path):
        path.write_bytes(b"PAR1")
        raise OSError("no space")  # without a number, as pyarrow raises it

    monkeypatch.setattr(evaluation_files.pq, "write_table", full)
    with pytest.raises(StorageError, match="cannot be written: OSError; check folder and free space"):
        write(study, tmp_path, with_text=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
