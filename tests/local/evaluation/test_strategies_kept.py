"""What strategies keep in the prediction store, when it is asked for again, and what never gets into it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from local.small_batch import CONTENT, PLAN, plan_with
from noting_engine import BY_MODEL, CASES, Noting, case_of, is_outcome_question, strategy

from medorchestra.errors import StorageError
from medorchestra.local.calibrating import LabelledReport
from medorchestra.local.evaluation.prediction_store import PredictionStore
from medorchestra.local.evaluation.predictions import LabelledCase
from medorchestra.local.records import Report

SPREAD = {"name": "metastatic", "description": "It has spread."}


@pytest.fixture
def store(tmp_path):
    with PredictionStore.open(tmp_path / "predictions.sqlite") as store:
        yield store


@pytest.mark.parametrize("name", BY_MODEL)
def test_a_kept_prediction_is_not_asked_for_again(name, store):
    first = [strategy(name, Noting(), store=store).predict(case) for case in CASES]
    engine = Noting()
    again = [strategy(name, engine, store=store).predict(case) for case in CASES]
    assert not [asked for asked in engine.asked if is_outcome_question(asked) or asked.candidates is None]
    assert [(one.case_id, one.outcome) for one in again] == [(one.case_id, one.outcome) for one in first]
    assert [one.probabilities for one in again] == [one.probabilities for one in first]
    if name != "orchestrated-llm":  # which reads its findings afresh without a ledger
        assert all((one.tokens, one.seconds) == (0, 0.0) for one in again)
    assert all(one.tokens > 0 for one in first)


@pytest.mark.parametrize("name", BY_MODEL)
@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("model", {"engine": {"name": "other"}}),
        ("engine settings", {"engine": {"context_tokens": 4096}}),
        ("rules", {"plan": plan_with(rules=CONTENT["rules"][:2])}),
        ("an outcome's description", {"plan": plan_with(outcomes=[*CONTENT["outcomes"][:2], SPREAD])}),
        ("report", {"case": CASES[1]}),
    ],
)
def test_whatever_changes_an_answer_is_asked_again(name, what, changed, store):
    strategy(name, Noting(), store=store).predict(CASES[0])
    engine = Noting(**changed.get("engine", {}))
    strategy(name, engine, changed.get("plan", PLAN), store=store).predict(changed.get("case", CASES[0]))
    assert [asked for asked in engine.asked if is_outcome_question(asked)], what


def test_another_adapter_is_asked_again(store):
    strategy("direct", Noting(), store=store).predict(CASES[0])
    engine = Noting()
    engine._identity = replace(engine.identity, adapter="tuned.gguf", adapter_digest="sha256:" + "a" * 64)
    strategy("direct", engine, store=store).predict(CASES[0])
    assert len(engine.asked) == 1


@pytest.mark.parametrize("options", [{"samples": 4}, {"seed": 2}])
def test_other_samples_are_asked_again(options, store):
    strategy("self-consistency", Noting(), store=store).predict(CASES[0])
    engine = Noting()
    strategy("self-consistency", engine, store=store, **options).predict(CASES[0])
    assert engine.asked


def test_another_guideline_is_asked_again_by_the_strategies_that_show_it_and_by_no_other(store):
    asked_again = {}
    for name in BY_MODEL:
        strategy(name, Noting(), store=store).predict(CASES[0])
        engine = Noting()
        strategy(name, engine, store=store, guideline="Arteries first.").predict(CASES[0])
        asked_again[name] = any(is_outcome_question(asked) for asked in engine.asked)
    assert asked_again == {"direct": False, "guideline": True, "orchestrated-llm": True, "self-consistency": False}


def test_findings_that_could_be_read_only_later_are_decided_on_afresh(store):
    class Broken(Noting):
        def _answer(self, asked):
            if "liver" in asked.question and not is_outcome_question(asked):
                raise RuntimeError("out of order")
            return super()._answer(asked)

    strategy("orchestrated-llm", Broken(), store=store).predict(CASES[0])
    engine = Noting()
    strategy("orchestrated-llm", engine, store=store).predict(CASES[0])
    assert "liver mets: no\n" in engine.conversations[-1].report
    assert is_outcome_question(engine.asked[-1])


def test_what_failed_is_not_kept(store):
    def breaks(asked):
        raise RuntimeError("out of order")

    assert strategy("direct", Noting(breaks), store=store).predict(CASES[0]).error
    assert strategy("direct", Noting(), store=store).predict(CASES[0]).outcome == "resectable"


def test_the_store_holds_no_report_text_no_id_and_no_thoughts(store):
    report = Report("id-canary-4711", "Canary-name. The SMA is free. The liver is normal. Mass of 2.1 cm.")
    for name in BY_MODEL:
        engine = Noting(thoughts=lambda asked: "canary-thought")
        assert strategy(name, engine, store=store).predict(LabelledCase(LabelledReport(report, {}, None))).outcome
    content = store.path.read_bytes()
    assert b"resectable" in content
    assert b"anary" not in content
    assert b"SMA" not in content


def test_a_store_that_cannot_be_written_stops_the_run(store):
    store._connection.execute("PRAGMA max_page_count = 5")
    made = strategy("direct", Noting(), store=store)
    cases = [case_of(f"Report {number}.") for number in range(1000)]
    with pytest.raises(StorageError, match="the disk is full"):
        [made.predict(case) for case in cases]
