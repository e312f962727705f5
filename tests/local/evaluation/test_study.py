"""`evaluate`: from a file of labelled reports to an evaluation, with models that are scripted."""

from __future__ import annotations

import pytest
from local.engine.gguf_writing import TINY_ADAPTER, TINY_MODEL, adapter_tensors, model_tensors, write_gguf
from local.small_batch import PLAN
from small_study import CANARY, GUIDELINE, Readers, study_rows, write_rows

import medorchestra as mo
from medorchestra.errors import PlanError, SettingsError, SourceError
from medorchestra.local.adapters import QUESTIONS_KEY
from medorchestra.local.engine import llama_cpp
from medorchestra.local.engine.adapter_fit import BASE_DIGEST
from medorchestra.local.engine.gguf_file import file_digest
from medorchestra.local.evaluation import study
from medorchestra.local.evaluation.labelled_set import LabelColumns, read_labelled_set
from medorchestra.local.evaluation.study import evaluate, guideline_text
from medorchestra.plan_files import read_plan, write_plan

FILES = {"evaluation.json", "per_case.parquet", "report.html"}


@pytest.fixture
def folder(tmp_path):
    """plan.yaml, guideline.md and cases.csv."""
    write_plan(PLAN, tmp_path / "plan.yaml")
    (tmp_path / "guideline.md").write_text(GUIDELINE, "utf-8")
    write_rows(tmp_path / "cases.csv", study_rows())
    return tmp_path


@pytest.fixture
def readers(monkeypatch):
    readers = Readers()
    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", readers.open)
    return readers


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_file_and_a_plan_are_enough(folder, readers):
    before = names(folder)
    made = evaluate(folder / "cases.csv", folder / "plan.yaml", model="m.gguf")
    (run,) = made.runs
    assert (run.name, run.outcome.accuracy.correct, run.outcome.accuracy.n) == ("orchestrated", 8, 10)
    assert readers.opened == [("m.gguf", None)]
    assert names(folder) == before, "without a folder nothing is written"


def test_it_is_reached_through_the_front_door(folder, readers):
    assert mo.evaluate is evaluate
    made = mo.evaluate(
        folder / "cases.csv", PLAN, columns=mo.LabelColumns(), settings=mo.EvaluationSettings(strategies=("direct",))
    )
    assert [run.name for run in made.runs] == ["direct"]


def test_with_a_folder_files_are_written_and_the_same_call_asks_nothing_again(folder, readers):
    settings = mo.EvaluationSettings(strategies=("direct", "orchestrated"))
    options = {"adapter": folder / "own.gguf", "settings": settings, "out": folder / "out"}
    first = evaluate(folder / "cases.csv", folder / "plan.yaml", **options)
    assert [run.name for run in first.runs] == [
        *("direct", "orchestrated", "direct + adapter", "orchestrated + adapter"),
    ]
    assert names(folder / "out") == FILES | {"ledger.sqlite", "predictions.sqlite"}
    asked = len(readers.asked)
    again = evaluate(folder / "cases.csv", folder / "plan.yaml", **options)
    assert len(readers.asked) == asked
    assert [run.outcome for run in again.runs] == [run.outcome for run in first.runs]
    assert again.comparisons == first.comparisons


def test_report_text_is_written_only_on_demand(folder, readers):
    for out, with_text in (("without", False), ("with", True)):
        evaluate(folder / "cases.csv", folder / "plan.yaml", out=folder / out, with_text=with_text)
        assert (CANARY in (folder / out / "report.html").read_text("utf-8")) is with_text


def test_a_set_that_was_read_is_taken_as_it_is_and_its_notes_are_told(folder, readers):
    rows = study_rows()
    rows[0]["outcome"] = rows[0]["sma_contact"] = ""
    path = write_rows(folder / "cases.csv", rows)
    labelled = read_labelled_set(PLAN, path)
    told = []
    made = evaluate(labelled, PLAN, notes=told.append)
    assert told == list(labelled.notes) == ["1 of 12 rows have no outcome and are left out"]
    assert made.labelled["unlabelled"] == 1
    assert evaluate(path, PLAN).labelled == made.labelled


def test_labels_of_another_file_and_columns_are_passed_on(folder, readers):
    rows = study_rows()
    write_rows(folder / "reports.csv", [{"report_id": row["report_id"], "text": row["text"]} for row in rows])
    write_rows(folder / "labels.csv", [{"id": row["report_id"], "Befund": row["outcome"]} for row in rows])
    made = evaluate(
        folder / "reports.csv", PLAN, labels=str(folder / "labels.csv"), columns=LabelColumns(outcome="Befund")
    )
    assert made.labelled["name"] == "reports.csv with labels.csv"
    assert made.runs[0].outcome.accuracy.correct == 8


def test_the_adapter_beside_the_plan_is_measured_beside_the_model_as_it_comes(folder, readers):
    model = write_gguf(folder / "base.gguf", TINY_MODEL, model_tensors())
    said = {BASE_DIGEST: file_digest(model), QUESTIONS_KEY: PLAN.questions_digest}
    (folder / "adapters").mkdir()
    write_gguf(folder / "adapters" / "a.gguf", TINY_ADAPTER | said, adapter_tensors(model_tensors()))
    for options, expected in (
        ({}, [None, "a.gguf"]),
        ({"bare": False}, ["a.gguf"]),
        ({"adapter": "none", "bare": False}, [None]),
        ({"adapter": folder / "own.gguf"}, [None, "own.gguf"]),
    ):
        readers.opened.clear()
        evaluate(folder / "cases.csv", folder / "plan.yaml", model=model, **options)
        assert readers.opened == [(str(model), one) for one in expected]


@pytest.mark.parametrize(
    ("labelled", "plan", "error"),
    [("nowhere.csv", "plan.yaml", SourceError), ("cases.csv", "nowhere.yaml", PlanError)],
)
def test_what_is_not_there_is_named_before_a_model_is_opened(folder, readers, labelled, plan, error):
    with pytest.raises(error, match="nowhere"):
        evaluate(folder / labelled, folder / plan)
    assert readers.opened == []


# ------------------------------------------------------------------------------ the guideline


def test_the_guideline_is_that_which_is_named_else_beside_the_plan_else_of_its_topic(folder, monkeypatch):
    own, topic = folder / "own.md", folder / "topics" / "demo"
    own.write_text("Arteries first.", "utf-8")
    topic.mkdir(parents=True)
    (topic / "guideline.md").write_text("Of the topic.", "utf-8")
    monkeypatch.setattr(study, "guideline_folder", lambda name: folder / "topics" / name)
    beside = folder / "plan.yaml"
    assert guideline_text(PLAN, own, beside) == "Arteries first."
    assert guideline_text(PLAN, None, beside) == GUIDELINE
    assert guideline_text(PLAN) == "Of the topic."
    (folder / "guideline.md").unlink()
    assert guideline_text(PLAN, None, beside) == "Of the topic."


def test_the_shipped_topic_has_its_guideline():
    assert "1" in guideline_text(read_plan("pancreatic_cancer"))


@pytest.mark.parametrize("strategy", ["guideline", "orchestrated-llm"])
def test_a_guideline_that_is_nowhere_is_asked_for_before_a_model_is_opened(folder, readers, strategy):
    (folder / "guideline.md").unlink()
    settings = mo.EvaluationSettings(strategies=("direct", strategy))
    with pytest.raises(SettingsError, match=r"plan demo: no guideline\.md beside it or in its topic"):
        evaluate(folder / "cases.csv", folder / "plan.yaml", settings=settings)
    assert readers.opened == []


def test_a_strategy_that_shows_no_guideline_needs_none(folder, readers):
    (folder / "guideline.md").unlink()
    settings = mo.EvaluationSettings(strategies=("direct", "orchestrated", "self-consistency"), samples=1)
    assert len(evaluate(folder / "cases.csv", folder / "plan.yaml", settings=settings).runs) == 3


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_a_guideline_that_cannot_be_read_is_named(folder, readers, content):
    path = folder / "own.md"
    if content is not None:
        path.write_bytes(content)
    settings = mo.EvaluationSettings(strategies=("guideline",))
    with pytest.raises(SettingsError, match=r"own\.md: cannot be read as text in UTF-8"):
        evaluate(folder / "cases.csv", folder / "plan.yaml", settings=settings, guideline=path)
    assert readers.opened == []


def test_the_guideline_reaches_the_model(folder, readers, monkeypatch):
    heads = []
    opened = readers.open

    def watched(model, **options):
        engine = opened(model, **options)
        begin = engine.open
        engine.open = lambda conversation: heads.append(conversation.head) or begin(conversation)
        return engine

    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", watched)
    settings = mo.EvaluationSettings(strategies=("guideline",))
    evaluate(folder / "cases.csv", folder / "plan.yaml", settings=settings)
    assert len(heads) == 12
    assert all(GUIDELINE in head for head in heads)
