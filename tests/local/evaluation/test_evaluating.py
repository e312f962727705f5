"""Evaluations run with scripted models: which runs there are, what is kept, and how a killed one goes on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from local.small_batch import PLAN
from small_study import GUIDELINE, Readers, interrupting, study_rows, write_rows

from medorchestra.errors import SettingsError, StorageError
from medorchestra.local.engine import llama_cpp
from medorchestra.local.evaluation.evaluating import (
    Contender,
    EvaluationSettings,
    contenders_of,
    evaluate_set,
    run_orchestrated,
)
from medorchestra.local.evaluation.labelled_set import LabelColumns, read_labelled_set
from medorchestra.local.evaluation.strategies import STRATEGIES
from medorchestra.plan import content_digest
from medorchestra.plan_files import read_plan

ALL = EvaluationSettings(strategies=STRATEGIES, samples=2)
ADAPTER = Path("tuned.gguf")


@pytest.fixture
def labelled(tmp_path):
    """Twelve cases: ten decided, two open; one reader, two groups."""
    path = write_rows(tmp_path / "cases.csv", study_rows())
    return read_labelled_set(PLAN, path, LabelColumns(readers=("reader_1",), groups=("ward", "sex")))


@pytest.fixture
def readers(monkeypatch):
    readers = Readers()
    monkeypatch.setattr(llama_cpp, "LlamaCppEngine", readers.open)
    return readers


def evaluated(labelled, settings=ALL, adapter=ADAPTER, **options):
    contenders = contenders_of(PLAN, "m.gguf", adapter)
    return evaluate_set(PLAN, labelled, contenders, settings, **{"guideline": GUIDELINE} | options)


def outcomes(runs):
    """What every run said of every case, without what it cost."""
    return {
        run.name: [replace(said, seconds=0.0, tokens=0, staged=None) for said in run.predictions] for run in runs.runs
    }


# ------------------------------------------------------------------------------ what is run


def test_all_strategies_are_run_with_and_without_the_adapter_in_one_evaluation(labelled, readers):
    made = evaluated(labelled).evaluation
    assert [run.name for run in made.runs] == [*STRATEGIES, *(f"{name} + adapter" for name in STRATEGIES)]
    assert readers.opened == [("m.gguf", None), ("m.gguf", "tuned.gguf")]
    right = {run.name: (run.outcome.accuracy.correct, run.outcome.accuracy.n) for run in made.runs}
    # What only looks at the liver misses the two encased arteries, and so does the model as it comes.
    assert {name: found for name, found in right.items() if found != (8, 10)} == {"orchestrated + adapter": (10, 10)}
    opened = {run.name: run.open_cases.correct for run in made.runs}
    assert {name for name, count in opened.items() if count} == {"orchestrated", "orchestrated + adapter"}
    assert {one.case_id for one in made.wrong if one.run == "orchestrated"} == {"case-2", "case-8"}


def test_every_run_is_compared_with_every_other_and_with_every_reader(labelled, readers):
    made = evaluated(labelled).evaluation
    assert len(made.comparisons) == 10 * 9 // 2 + 10
    found = {(one.before, one.after): one.difference for one in made.comparisons}
    adapted = found["orchestrated", "orchestrated + adapter"]
    assert (adapted.n, adapted.gained, adapted.lost, adapted.difference) == (10, 2, 0, 0.2)
    # The reader read eight of the ten and missed case-0; the run is right on all.
    human = found["reader_1", "orchestrated + adapter"]
    assert (human.n, human.gained, human.lost) == (8, 1, 0)


def test_readers_and_groups_of_the_file_get_the_same_statistics(labelled, readers):
    made = evaluated(labelled, EvaluationSettings(order=("resectable", "locally_advanced", "metastatic"))).evaluation
    (reader,) = made.readers
    assert (reader.name, reader.outcome.accuracy.correct, reader.outcome.accuracy.n) == ("reader_1", 7, 8)
    run = made.run("orchestrated + adapter")
    assert {name: sum(one.n for one in groups.values()) for name, groups in run.groups.items()} == {
        "ward": 10,
        "sex": 10,
    }
    assert "missing" in run.groups["sex"]
    assert (run.readers["reader_1"].n, run.readers["reader_1"].observed) == (8, 7 / 8)
    assert run.readers["reader_1"].weighted_n == 8
    assert made.order == ("resectable", "locally_advanced", "metastatic")


def test_findings_and_their_cost_are_measured_where_they_are_labelled(labelled, readers):
    made = evaluated(labelled, EvaluationSettings()).evaluation
    bare = made.run("orchestrated")
    assert (bare.findings["sma_contact"].correct, bare.findings["sma_contact"].n) == (8, 12)
    assert bare.anatomy.wrong == 2
    costs = {one.finding: (one.wrong, one.costs) for one in bare.anatomy.costs}
    assert costs["sma_contact"] == (4, 2), "two of the four misread arteries decide nothing: the liver does"
    assert made.run("orchestrated + adapter").anatomy.wrong == 0


def test_what_was_run_is_on_record(labelled, readers):
    settings = replace(ALL, command=("medorchestra", "evaluate", "cases.csv"))
    made = evaluated(labelled, settings).evaluation
    assert [(one["model"], one["adapter"]) for one in made.about["models"]] == readers.opened
    assert made.about["models"][1]["adapter_digest"] == content_digest("tuned.gguf")
    assert made.about["versions"]["numpy"]
    assert made.about["command"] == settings.command
    assert made.about["settings"] == {
        "strategies": ", ".join(STRATEGIES),
        "samples": 2,
        "repeats": 1,
        "seed": 1,
        "guideline_shown": content_digest(GUIDELINE),
    }
    assert (made.topic, made.plan_digest) == (PLAN.topic, PLAN.digest)
    assert made.labelled == {
        "name": "cases.csv",
        "digest": labelled.digest,
        "cases": 12,
        "decided": 10,
        "open": 2,
        "unlabelled": 0,
    }


def test_progress_is_told_after_every_prediction_under_the_name_of_its_run(labelled, readers):
    told = []
    evaluated(labelled, EvaluationSettings(), progress=lambda run, said: told.append((run, said.case_id)))
    ids = [case.case_id for case in labelled.cases]
    assert told == [(run, one) for run in ("orchestrated", "orchestrated + adapter") for one in ids]


def test_a_model_as_it_comes_is_asked_in_the_instructed_form_and_with_its_adapter_in_the_plans(readers):
    plan = read_plan("pancreatic_cancer")
    assert plan.profile.prompt_form != "instructed", "otherwise this shows nothing"
    bare, tuned = contenders_of(plan, "m.gguf", ADAPTER)
    assert (bare.plan.profile.prompt_form, bare.adapter) == ("instructed", None)
    assert bare.plan.questions_digest != plan.questions_digest
    assert (tuned.plan, tuned.adapter) == (plan, "tuned.gguf")
    assert [one.adapter for one in contenders_of(plan, "m.gguf", ADAPTER, bare=False)] == ["tuned.gguf"]
    (alone,) = contenders_of(plan, "m.gguf", None, bare=False)
    assert (alone.plan, alone.adapter) == (plan, None)
    assert readers.opened == [], "nothing is loaded yet"


def test_a_report_that_the_engine_cannot_take_is_a_prediction_without_outcome(labelled, readers):
    def breaks(asked):
        if "no. 3." in asked.report:
            raise ValueError(asked.report)

    readers.before = breaks
    made = evaluated(labelled, replace(ALL, strategies=("direct", "orchestrated")))
    for run in made.runs:
        failed = [said for said in run.predictions if said.error]
        assert [(said.case_id, said.outcome) for said in failed] == [("case-3", None)], run.name
        assert failed[0].error.startswith("ValueError at test_evaluating.py:")
    assert {run.failed for run in made.evaluation.runs} == {1}
    assert {run.outcome.accuracy.n for run in made.evaluation.runs} == {10}


# ------------------------------------------------------------------------------ repeats


def test_repeats_are_asked_afresh_and_tell_how_often_the_same_outcome_comes(labelled, readers):
    toss = Counter()

    def thoughts(asked):
        toss[asked.seed] += 1
        return f"thought {asked.seed}"

    readers.thoughts = thoughts
    settings = EvaluationSettings(strategies=("orchestrated", "self-consistency"), samples=2, repeats=3)
    made = evaluated(labelled, settings, adapter=None).evaluation
    assert [run.name for run in made.runs] == ["orchestrated", "self-consistency"]
    for run in made.runs:
        assert (run.repeatability.runs, run.repeatability.identical.correct, run.repeatability.n) == (3, 12, 12)
        assert run.repeatability.pairwise == 1.0
    assert len(toss) == 6, "two samples in each of three runs, each with a seed of its own"
    assert set(toss.values()) == {12}
    times = Counter((report, question) for _, _, report, question, _ in readers.asked if "touch the SMA" in question)
    assert set(times.values()) == {3}


def test_a_repeat_that_says_something_else_lowers_the_agreement_alone(labelled, readers):
    seen = Counter()

    def turns(asked):
        if "which of these outcomes" in asked.question and "no. 1." in asked.report:
            seen["times"] += 1
            if seen["times"] == 2:
                raise RuntimeError("out of order")

    readers.before = turns
    made = evaluated(labelled, EvaluationSettings(strategies=("direct",), repeats=2), adapter=None).evaluation
    (run,) = made.runs
    assert run.outcome.accuracy.correct == 8
    assert (run.repeatability.identical.correct, run.repeatability.n) == (11, 12)


# ------------------------------------------------------------------------------ going on


def test_with_a_folder_nothing_is_asked_again(labelled, readers, tmp_path):
    first = evaluated(labelled, folder=tmp_path / "out")
    readers.asked.clear()
    again = evaluated(labelled, folder=tmp_path / "out")
    assert readers.asked == []
    assert outcomes(again) == outcomes(first)
    assert {run.tokens for run in again.evaluation.runs} == {0}


@pytest.mark.parametrize("after", [0, 7, 30, 73, 101, 140, 215])
def test_an_evaluation_killed_in_its_middle_loses_nothing_and_asks_nothing_twice(labelled, readers, tmp_path, after):
    whole = evaluated(labelled)
    wanted = Counter(readers.asked)
    assert sum(wanted.values()) > 215, "otherwise the last kill shows nothing"
    readers.asked.clear()
    readers.before = interrupting(after)
    with pytest.raises(KeyboardInterrupt):
        evaluated(labelled, folder=tmp_path / "out")
    assert len(readers.asked) == after
    readers.before = lambda asked: None
    resumed = evaluated(labelled, folder=tmp_path / "out")
    asked = Counter(readers.asked)
    assert set(asked) == set(wanted)
    twice = asked - wanted
    assert len({(adapter, report) for _, adapter, report, _, _ in twice}) <= 1, "only the report in work is read again"
    assert sum(twice.values()) < 6
    assert outcomes(resumed) == outcomes(whole)


def test_another_adapter_model_or_guideline_finds_nothing_of_this_one(labelled, readers, tmp_path):
    settings = EvaluationSettings(strategies=("guideline", "orchestrated"))
    evaluated(labelled, settings, adapter=None, folder=tmp_path / "out")
    first = len(readers.asked)
    evaluated(labelled, settings, folder=tmp_path / "out")
    assert len(readers.asked) == 2 * first, "the adapter's answers are its own"
    readers.asked.clear()
    evaluated(labelled, settings, adapter=None, folder=tmp_path / "out", guideline="Arteries first.")
    assert len(readers.asked) == 12, "only what was shown the guideline"


def test_the_orchestrated_run_alone_goes_over_several_sets_and_goes_on(labelled, readers, tmp_path):
    few = replace(labelled, cases=labelled.cases[:3])
    runs = run_orchestrated(PLAN, [labelled, few], "m.gguf", ADAPTER, folder=tmp_path / "out")
    assert [len(run.predictions) for run in runs] == [12, 3]
    assert readers.opened == [("m.gguf", "tuned.gguf")]
    assert len(readers.asked) == len(set(readers.asked)), "the second set's reports were read in the first"
    readers.asked.clear()
    run_orchestrated(PLAN, [few], "m.gguf", ADAPTER, folder=tmp_path / "out")
    assert readers.asked == []


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"strategies": ("orchestrated", "oracle")}, "strategies: oracle; choose from direct, guideline,"),
        ({"strategies": ()}, "none, or one twice"),
        ({"strategies": ("direct", "direct")}, "none, or one twice"),
        ({"samples": 0}, "at least 1"),
        ({"repeats": 0}, "at least 1"),
    ],
)
def test_impossible_settings_are_refused(options, says):
    with pytest.raises(SettingsError, match=says):
        EvaluationSettings(**options)


def test_an_order_with_a_foreign_outcome_is_refused_before_a_model_is_opened(labelled, readers):
    with pytest.raises(SettingsError, match="order: curable: not outcomes of plan demo"):
        evaluated(labelled, EvaluationSettings(order=("resectable", "curable")))
    assert readers.opened == []


def test_two_runs_of_one_name_are_refused_before_a_model_is_opened(labelled, readers):
    one, other = (Contender(PLAN, lambda: readers.open("m.gguf"), name) for name in ("a.gguf", "b.gguf"))
    with pytest.raises(SettingsError, match=r"two runs have one name: orchestrated \+ adapter"):
        evaluate_set(PLAN, labelled, [one, other], EvaluationSettings(), guideline="")
    assert readers.opened == []


def test_an_empty_guideline_is_refused_before_a_report_is_read(labelled, readers):
    with pytest.raises(SettingsError, match="the guideline's text is empty"):
        evaluated(labelled, guideline=" \n")
    assert readers.asked == []


def test_a_folder_that_cannot_be_written_stops_before_a_report_is_read(labelled, readers, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match=r"out/ledger\.sqlite: the ledger cannot be made"):
        evaluated(labelled, folder=tmp_path / "out")
    assert readers.asked == []
