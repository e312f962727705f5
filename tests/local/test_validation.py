"""The validation gate: which pairs of plan and model may run, what a refusal says, and how the others are marked."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from small_batch import PLAN, plan_with, small_engine, small_reports

from medorchestra.errors import PlanError, UnvalidatedPlanError
from medorchestra.local.batch import stage
from medorchestra.local.engine.protocol import ModelIdentity
from medorchestra.local.records import Report
from medorchestra.local.staging import Stager
from medorchestra.local.terminal import decision_view
from medorchestra.local.validation import doubt_of, require_validation, validation_of
from medorchestra.plan import Accuracy, ValidationRecord

MODEL = ModelIdentity("small.gguf", "sha256:" + "a" * 64)
TUNED = ModelIdentity("small.gguf", "sha256:" + "a" * 64, "tuned.gguf", "sha256:" + "b" * 64)


def record(identity, plan=PLAN, measured_on="2026-11-24"):
    return ValidationRecord(
        measured_on=measured_on,
        plan_digest=plan.digest,
        model=identity.name,
        model_digest=identity.digest,
        adapter_digest=identity.adapter_digest,
        cases_digest="sha256:" + "1" * 64,
        outcome=Accuracy(n=10, correct=9, low=0.6, high=0.98),
        findings={},
    )


def recorded(*records):
    return PLAN.model_copy(update={"validation": records})


def refusal(plan, identity):
    with pytest.raises(UnvalidatedPlanError) as caught:
        require_validation(plan, identity, unvalidated=False)
    assert isinstance(caught.value, PlanError)
    require_validation(plan, identity, unvalidated=True)
    return str(caught.value)


def test_a_plan_runs_with_the_model_and_adapter_of_its_record():
    require_validation(recorded(record(MODEL)), MODEL, unvalidated=False)
    require_validation(recorded(record(MODEL), record(TUNED)), TUNED, unvalidated=False)


def test_the_bare_model_is_no_validation_of_the_tuned_one_and_the_other_way_round():
    said = refusal(recorded(record(MODEL)), TUNED)
    assert "model small.gguf (sha256:aaaaaaaaaaaa, adapter tuned.gguf)" in said
    assert "its records: small.gguf (sha256:aaaaaaaaaaaa, no adapter)" in said
    assert "(sha256:aaaaaaaaaaaa, no adapter); its records: small.gguf (sha256:aaaaaaaaaaaa, an adapter)" in refusal(
        recorded(record(TUNED)), MODEL
    )


def test_a_record_of_the_plan_before_it_was_changed_counts_no_more():
    older = plan_with(title="As it was before")
    assert "its records: 1 made before the plan was changed" in refusal(recorded(record(MODEL, older)), MODEL)


def test_of_several_records_the_newest_is_told():
    plan = recorded(record(MODEL), record(MODEL, measured_on="2026-12-01"), record(MODEL, measured_on="2026-10-01"))
    assert validation_of(plan, MODEL).measured_on.isoformat() == "2026-12-01"
    assert validation_of(plan, TUNED) is None


def test_every_result_of_an_unvalidated_run_is_marked_wherever_it_is_shown():
    reports = [*small_reports(2), Report("blank", " ")]
    engine = small_engine()
    marked = stage(reports, PLAN, model=engine, unvalidated=True)
    clean = stage(reports, recorded(record(engine.identity)), model=engine)
    for results, says in ((marked, True), (clean, False)):
        assert results.validated is not says
        assert [trace["validated"] for trace in results.to_traces()] == [not says] * 3
        assert results.to_arrow()["validated"].to_pylist() == [not says] * 3
        assert ("plan not validated for this model" in repr(results)) is says
        assert ("not validated</span>" in results._repr_html_()) is says
        for staged in results:
            console = Console(file=io.StringIO(), width=120, color_system=None)
            console.print(decision_view(staged))
            assert ("(plan not validated for this model)" in console.file.getvalue()) is says
            assert ("not validated</span>" in staged._repr_html_()) is says


def test_being_unvalidated_alone_sends_no_report_to_a_person():
    (staged,) = Stager(PLAN, small_engine()).stage(small_reports(1))
    assert not staged.validated
    assert not staged.review


def test_a_model_that_read_badly_in_rehearsal_sends_every_decision_to_a_person():
    """The embedded default once called every report not stageable, with 0.86, and nobody was asked to look."""
    engine = small_engine()
    poor = record(engine.identity).model_copy(update={"outcome": Accuracy(n=100, correct=9, low=0.05, high=0.16)})
    good = record(engine.identity).model_copy(update={"outcome": Accuracy(n=100, correct=97, low=0.92, high=0.99)})
    staged = stage(small_reports(3), recorded(poor), model=engine)
    told = "in rehearsal this model got 9 % of the outcomes right (5 to 16 %), 80 % are asked for"
    assert {told in one.decision.review_reasons for one in staged if one.decision} == {True}
    unseen = poor.model_copy(
        update={"outcome": good.outcome, "unreviewed": Accuracy(n=50, correct=30, low=0.46, high=0.72)}
    )
    doubted = stage(small_reports(3), recorded(unseen), model=engine)
    told = "got 60 % of the outcomes that nobody would have looked at right (46 to 72 %), 80 % are asked for"
    assert all(one.decision.review_reasons[-1].endswith(told) for one in doubted)
    trusted = stage(small_reports(3), recorded(good), model=engine)
    assert not any(
        "in rehearsal" in reason for one in trusted if one.decision for reason in one.decision.review_reasons
    )


ALL_RIGHT = Accuracy(n=400, correct=390, low=0.95, high=0.99)
MANY_WRONG = Accuracy(n=40, correct=24, low=0.45, high=0.74)


@pytest.mark.parametrize(
    ("outcome", "unreviewed", "told"),
    [
        (ALL_RIGHT, MANY_WRONG, "60 % of the outcomes that nobody would have looked at right (45 to 74 %)"),
        (MANY_WRONG, None, "60 % of the outcomes right (45 to 74 %)"),
        (MANY_WRONG, ALL_RIGHT, None),
        (ALL_RIGHT, None, None),
    ],
    ids=["unreviewed poor", "only all outcomes, poor", "unreviewed good", "only all outcomes, good"],
)
def test_a_doubt_names_the_number_by_which_the_model_reads_badly(outcome, unreviewed, told):
    measured = record(MODEL).model_copy(update={"outcome": outcome, "unreviewed": unreviewed})
    doubt = doubt_of(recorded(measured), MODEL)
    assert (doubt is None) is PLAN.is_well_read(measured)
    assert doubt == (told and f"in rehearsal this model got {told}, 80 % are asked for")
