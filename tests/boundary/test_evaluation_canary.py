"""No report text out of an evaluation where nobody asked for it: two words of every report are looked for afterwards.

One stands in sentences that no answer rests on; it may be in no file at all. The other stands in a sentence that is
quoted; it may be in ledger.sqlite, which keeps answers with their quotes. With `with_text` both may be in report.html.
"""

from __future__ import annotations

import gc
import logging
import sqlite3
import traceback

import pyarrow.parquet as pq
import pytest
from local.evaluation.small_study import CANARY, GUIDELINE, QUOTED, Readers, study_rows, write_rows
from local.small_batch import PLAN

import medorchestra as mo
from medorchestra.errors import MedorchestraError, ModelError, StorageError
from medorchestra.evaluation_terminal import evaluation_lines
from medorchestra.local.engine import llama_cpp
from medorchestra.local.evaluation.labelled_set import read_labelled_set
from medorchestra.local.evaluation.prediction_store import PredictionStore
from medorchestra.local.evaluation.strategies import STRATEGIES
from medorchestra.local.ledger import Ledger
from medorchestra.plan_files import write_plan

ALL = mo.EvaluationSettings(strategies=STRATEGIES, samples=1)


@pytest.fixture
def folder(tmp_path):
    """plan.yaml, guideline.md and cases.csv."""
    write_plan(PLAN, tmp_path / "plan.yaml")
    (tmp_path / "guideline.md").write_text(GUIDELINE, "utf-8")
    write_rows(tmp_path / "cases.csv", study_rows(6))
    return tmp_path


@pytest.fixture
def readers(monkeypatch):
    """Scripted models in the place of llama.cpp, who write the report where they are asked for text."""
    readers = Readers()
    readers.thoughts = lambda asked: asked.report
    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", readers.open)
    return readers


def evaluate(folder, **options):
    options = {"settings": ALL, "adapter": None, "out": folder / "out"} | options
    return mo.evaluate(folder / "cases.csv", folder / "plan.yaml", **options)


def content_of(path):
    """Everything that stands in a file, as text: of tables and databases also the rows."""
    text = path.read_bytes().decode("utf-8", "replace")
    if path.suffix == ".parquet":
        text += str(pq.read_table(path).to_pylist())
    if path.suffix == ".sqlite":
        connection = sqlite3.connect(path)
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        text += str([connection.execute(f"SELECT * FROM {name}").fetchall() for (name,) in tables])
        connection.close()
    return text


def files_with(folder, word):
    return {path.name for path in folder.rglob("*") if path.is_file() and word in content_of(path)}


def clean(text):
    return CANARY not in str(text) and QUOTED not in str(text)


def everything_said(error):
    """An exception as a traceback shows it, and what it and those it chains carry along."""
    told = "".join(traceback.format_exception(error))
    while error is not None:
        told += repr(error) + repr(error.args) + repr(vars(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return told


def at_every_third_question(make):
    asked = []

    def before(question):
        asked.append(question)
        if len(asked) % 3 == 0:
            raise make(question.report)

    return before


BEHAVIOURS = {
    "answers": lambda asked: None,
    "raises with the report": at_every_third_question(ValueError),
    "raises one of ours": at_every_third_question(ModelError),
    "raises an error of the system": at_every_third_question(lambda report: OSError(5, report, report)),
}


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_no_file_log_or_stream_holds_report_text_but_the_ledger_its_quotes(folder, readers, capfd, caplog, behaviour):
    caplog.set_level(logging.DEBUG)
    readers.before = BEHAVIOURS[behaviour]
    told = []
    made = evaluate(folder, progress=lambda run, said: told.append(f"{run} {said}"))
    assert {path.name for path in (folder / "out").iterdir()} == {
        *("evaluation.json", "per_case.parquet", "report.html", "ledger.sqlite", "predictions.sqlite"),
    }
    assert files_with(folder / "out", "case-2") >= {"evaluation.json", "per_case.parquet", "report.html"}
    assert files_with(folder / "out", CANARY) == set()
    quoted = files_with(folder / "out", QUOTED)
    assert quoted == {"ledger.sqlite"} if behaviour == "answers" else quoted <= {"ledger.sqlite"}
    assert clean("".join(capfd.readouterr()))
    assert clean(caplog.text)
    assert clean([*told, *evaluation_lines(made), repr(made)])
    assert len(told) == 30


def test_with_text_the_page_alone_holds_wrongly_decided_reports(folder, readers):
    evaluate(folder, with_text=True, settings=mo.EvaluationSettings())
    assert files_with(folder / "out", CANARY) == {"report.html"}
    assert files_with(folder / "out", QUOTED) == {"report.html", "ledger.sqlite"}


REPRS_SEEN = {"LabelledCase", "LabelledReport", "LabelledSet", "SharedReading", "OutcomeChoice", "PredictionStore"}


def test_no_live_object_of_an_evaluation_prints_report_text(folder, readers):
    seen = {}

    def before(asked):
        if asked.candidates is not None and "thoughts on the report" not in asked.question:
            return
        for thing in gc.get_objects():
            kind = type(thing)
            if str(kind.__module__).startswith("medorchestra.") and len(seen.setdefault(kind.__name__, [])) < 50:
                seen[kind.__name__].append(repr(thing))

    readers.before = before
    evaluate(folder, settings=mo.EvaluationSettings(strategies=("orchestrated", "self-consistency"), samples=1))
    assert set(seen) >= REPRS_SEEN
    for name, reprs in seen.items():
        assert clean(reprs), name


@pytest.mark.parametrize("kind", [Ledger, PredictionStore])
def test_a_full_disk_is_an_error_without_report_text(folder, readers, capfd, monkeypatch, kind):
    prepare = kind._prepare

    def prepare_small(store):
        prepare(store)
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")

    write_rows(folder / "cases.csv", study_rows(60))
    monkeypatch.setattr(kind, "_prepare", prepare_small)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        evaluate(folder, settings=mo.EvaluationSettings(strategies=("orchestrated", "direct")))
    assert clean(everything_said(caught.value))
    assert clean("".join(capfd.readouterr()))


def test_a_page_that_cannot_be_written_is_an_error_without_report_text(folder, readers):
    (folder / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be written") as caught:
        evaluate(folder, with_text=True, settings=mo.EvaluationSettings())
    assert clean(everything_said(caught.value))
    assert files_with(folder / "out", CANARY) == set()


def whole_report(rows, column):
    for row in rows:
        row[column] = 2 * row["text"]


@pytest.mark.parametrize("column", ["outcome", "sma_contact", "size_cm", "reader_1", "ward", "report_id"])
def test_reports_in_a_wrong_column_are_refused_without_being_shown(tmp_path, column):
    rows = study_rows(6)
    whole_report(rows, column)
    path = write_rows(tmp_path / "cases.csv", rows)
    with pytest.raises(MedorchestraError) as caught:
        read_labelled_set(PLAN, path, mo.LabelColumns(readers=("reader_1",), groups=("ward",)))
    assert clean(everything_said(caught.value))


def test_the_folder_that_this_test_looks_through_would_show_a_leak(folder, readers):
    """The search itself: a word that was planted in every kind of file is found."""
    evaluate(folder, settings=mo.EvaluationSettings(strategies=("direct",)))
    assert files_with(folder / "out", "metastatic") == {
        *("evaluation.json", "per_case.parquet", "report.html", "predictions.sqlite"),
    }
