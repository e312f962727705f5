"""Evaluations of a model server, and of an engine that is given: one contender, measured as it is."""

from __future__ import annotations

from contextlib import closing

import pytest
from local.served_batch import CHOOSES, serving_reader, shown_to
from local.small_batch import PLAN, small_engine
from small_study import GUIDELINE, study_rows, write_rows

import medorchestra as mo
from medorchestra.errors import ModelError, SettingsError
from medorchestra.local.engine.protocol import ModelIdentity
from medorchestra.local.engine.server_client import Patience
from medorchestra.local.evaluation.evaluating import contenders_of
from medorchestra.local.evaluation.strategies import STRATEGIES
from medorchestra.local.server_watch import LOOK_AFTER
from medorchestra.plan_files import write_plan


@pytest.fixture(autouse=True)
def nothing_allowed(monkeypatch):
    monkeypatch.delenv("MEDORCHESTRA_SERVERS", raising=False)


@pytest.fixture
def folder(tmp_path):
    """plan.yaml, guideline.md and cases.csv."""
    write_plan(PLAN, tmp_path / "plan.yaml")
    (tmp_path / "guideline.md").write_text(GUIDELINE, "utf-8")
    write_rows(tmp_path / "cases.csv", study_rows())
    return tmp_path


def evaluate(folder, model, *strategies, **options):
    settings = mo.EvaluationSettings(strategies=strategies or ("orchestrated",), samples=2)
    return mo.evaluate(folder / "cases.csv", folder / "plan.yaml", model=model, settings=settings, **options)


def test_a_server_is_one_run_of_each_strategy_read_by_the_plan_as_it_stands(folder):
    with serving_reader() as server:
        made = evaluate(folder, server.url, *STRATEGIES)
    assert [run.name for run in made.runs] == list(STRATEGIES)
    run = made.run("orchestrated")
    assert (run.outcome.accuracy.correct, run.outcome.accuracy.n) == (10, 10)
    assert run.reliability.n == 10
    (model,) = made.about["models"]
    assert (model["model"], model["adapter"], model["plan_digest"]) == ("reader-1", None, PLAN.digest)
    assert model["settings"]["digest_of"] == "what the server tells of its model, not its file"


def test_without_probabilities_there_is_nothing_to_calibrate_and_all_goes_to_a_person(folder):
    with serving_reader(CHOOSES) as server:
        made = evaluate(folder, server.url, "direct", "orchestrated")
    direct, run = made.runs
    assert (run.outcome.accuracy.correct, direct.outcome.accuracy.correct) == (10, 8)
    for one in (direct, run):
        assert (one.reliability.n, one.reliability.ece, one.risk_coverage.area) == (0, None, None)
    assert (run.reviewed.correct, run.reviewed.n) == (12, 12)
    assert run.unreviewed.n == 0


def test_votes_of_a_server_that_does_not_draw_are_refused_before_a_report_is_read(folder):
    with serving_reader(free_text=lambda body: "always this") as server:
        with pytest.raises(ModelError, match="leave this strategy out"):
            evaluate(folder, server.url, "orchestrated", "self-consistency")
        assert "Hypoenhancing" not in shown_to(server)
        assert [run.name for run in evaluate(folder, server.url, "orchestrated").runs] == ["orchestrated"]
        assert "Hypoenhancing" in shown_to(server)


@pytest.mark.parametrize("strategy", ["direct", "guideline", "orchestrated-llm"])
def test_a_server_that_goes_away_ends_the_evaluation_and_the_next_goes_on(folder, monkeypatch, strategy):
    monkeypatch.setattr(Patience, "wait", lambda *_: None)
    done = []
    kept = {"out": folder / "out", "progress": lambda *told: done.append(told)}
    with serving_reader() as server:

        def dies(handler, body):
            if len(done) < 4:
                return False
            handler.say(500, b"{}")
            return True

        server.fault = dies
        with pytest.raises(ModelError, match=f"failed for {LOOK_AFTER} reports in a row") as caught:
            evaluate(folder, server.url, strategy, **kept)
        assert "Hypoenhancing" not in str(caught.value)
        assert len(done) == 4 + LOOK_AFTER - 1
        server.fault = None
        before = len(server.requests)
        (run,) = evaluate(folder, server.url, strategy, **kept).runs
        rest = len(server.requests) - before
        (whole,) = evaluate(folder, server.url, strategy).runs
        assert rest < len(server.requests) - before - rest, "what was finished is not asked again"
    assert run.outcome == whole.outcome


def test_an_adapter_for_a_server_is_refused_before_it_is_asked(folder):
    with pytest.raises(SettingsError, match=r"adapter tuned\.gguf: a model server reads with the adapter"):
        evaluate(folder, "http://127.0.0.1:9", adapter="tuned.gguf")


def test_an_engine_that_is_given_is_measured_as_it_is_and_stays_open(folder):
    with closing(small_engine()) as engine:
        made = evaluate(folder, engine, adapter="auto")
        assert [run.name for run in made.runs] == ["orchestrated"]
        assert made.judged.outcome.accuracy.correct == 10
        assert [run.name for run in evaluate(folder, engine).runs] == ["orchestrated"], "it is still open"


def test_the_adapter_of_an_engine_that_is_given_is_named(monkeypatch):
    engine = small_engine()
    (bare,) = contenders_of(PLAN, engine, None)
    assert bare.adapter is None
    monkeypatch.setattr(engine, "_identity", ModelIdentity("m.gguf", "sha256:1", "tuned.gguf", "sha256:2"))
    (tuned,) = contenders_of(PLAN, engine, None, bare=True)
    assert (tuned.adapter, tuned.plan) == ("tuned.gguf", PLAN)
