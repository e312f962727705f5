"""One report in rounds: the same decision and the same review as when everything is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lazy_answers import all_answers, answer_of, both_ways, lazily, values_of, what_is_decided
from random_plans import plans
from small_batch import CITATION, CONTENT, PLAN, plan_with

from medorchestra.local.aggregator import decide
from medorchestra.local.answers import AnswerStatus
from medorchestra.local.lazy_asking import LazyAsking
from medorchestra.local.lazy_plan import LazyPlan
from medorchestra.plan import Calibration
from medorchestra.plan_files import read_plan
from medorchestra.rules import NOT_STATED

PANCREAS = LazyPlan(read_plan("pancreatic_cancer"))
SMALL = LazyPlan(PLAN)


def calibration_of(plan, **changes):
    content = {
        "made_on": "2026-11-24",
        "plan_digest": plan.digest,
        "model_digest": "sha256:" + "1" * 64,
        "labels": "local",
        "n": 240,
        "labels_digest": "sha256:" + "5" * 64,
        "temperatures": dict.fromkeys(LazyPlan(plan).readable, 1.7),
        "risk": 0.05,
        "review_below": 0.6,
        "set_coverage": 0.9,
        "set_floor": 0.1,
    }
    return Calibration.model_validate(content | changes)


def small_answers(sure=1.0, **values):
    """Answers to the small plan, by subtask: free artery, clear liver, 2 cm, unless told otherwise."""
    read = {"sma_contact": "none", "liver_mets": "no", "size": 2.0} | values
    return tuple(answer_of(PLAN, name, value, sure) for name, value in read.items())


def check_both_ways(lazy, answers, **options):
    """The promise of lazy asking, for one report."""
    full, lazily_decided = both_ways(lazy, answers, **options)
    assert what_is_decided(lazily_decided) == what_is_decided(full)
    skipped = set(lazily_decided.skipped)
    if not any(answer.finding in skipped and answer.status.is_failure for answer in answers):
        assert lazily_decided.review is full.review
    if skipped:
        low, high = lazily_decided.probability_between
        assert low - 1e-9 <= full.probability <= high + 1e-9
        assert low - 1e-9 <= lazily_decided.probability <= high + 1e-9
    else:
        assert lazily_decided.probability_between is None
        assert lazily_decided.probability == pytest.approx(full.probability)


@given(plans(), st.data())
def test_with_or_without_lazy_the_decision_is_the_same_for_any_plan_and_any_answers(plan, data):
    looked_at = data.draw(st.booleans())
    findings = tuple(
        one.model_copy(update={"not_stated": one.not_stated.model_copy(update={"review": looked_at})})
        for one in plan.findings
    )
    plan = plan.model_copy(update={"findings": findings})
    calibration = calibration_of(plan) if data.draw(st.booleans()) else None
    doubts = data.draw(st.sampled_from([(), ("not well read",)]))
    # The rounds follow from one case, so that they are worked out fast: whatever they are, the promise holds.
    case = {one.name: data.draw(st.sampled_from(values_of(plan, one.name))) for one in findings}
    check_both_ways(LazyPlan(plan, cases=[case]), data.draw(all_answers(plan)), calibration=calibration, doubts=doubts)


@settings(max_examples=50)
@given(all_answers(PANCREAS.plan), st.booleans())
def test_with_or_without_lazy_the_decision_on_a_pancreas_is_the_same(answers, calibrates):
    check_both_ways(PANCREAS, answers, calibration=calibration_of(PANCREAS.plan) if calibrates else None)


def test_a_liver_metastasis_ends_the_questions_and_the_others_say_why_they_were_skipped():
    rounds = []
    lazy = LazyPlan(PLAN, cases=[{"liver_mets": "yes"}])
    answers = lazily(lazy, small_answers(liver_mets="yes"), watch=rounds.append)
    assert rounds == [{"liver_mets"}]
    by_name = {answer.subtask: answer for answer in answers}
    assert by_name["sma_contact"].status is AnswerStatus.SKIPPED
    assert by_name["sma_contact"].reason == "cannot change the decision any more: it rests on liver_mets"
    assert by_name["size"].reason == "no rule and no flag of the plan looks at it"
    for skipped in (by_name["sma_contact"], by_name["size"]):
        assert not skipped.status.is_failure
        assert (skipped.value, dict(skipped.probabilities), skipped.quotes) == (None, {}, ())


def test_where_what_is_skipped_could_make_another_outcome_more_probable_it_is_asked():
    rounds = []
    lazy = LazyPlan(PLAN, cases=[{"liver_mets": "yes"}])
    lazily(lazy, small_answers(0.45, liver_mets="yes"), watch=rounds.append)
    assert rounds == [{"liver_mets"}, {"sma_contact"}]


def test_where_the_threshold_for_review_lies_between_the_bounds_more_is_asked():
    rules = [
        CONTENT["rules"][0],
        {"id": "large", "when": {"finding": "sma_contact", "is": ">180"}, "outcome": "metastatic"},
        CONTENT["rules"][2],
    ]
    lazy = LazyPlan(plan_with(rules=[rule | {"citation": CITATION} for rule in rules]), cases=[{"liver_mets": "yes"}])
    rounds = []
    lazily(lazy, small_answers(0.7, liver_mets="yes"), watch=rounds.append)
    assert rounds == [{"liver_mets"}, {"sma_contact"}]  # metastatic with 0.7 at least and 1.0 at most; review below 0.8
    rounds.clear()
    lazily(lazy, small_answers(0.9, liver_mets="yes"), watch=rounds.append)
    assert rounds == [{"liver_mets"}]


def test_an_engine_without_probabilities_is_asked_nothing_for_their_sake():
    rounds = []
    answers = [replace(answer, probabilities={}) for answer in small_answers(liver_mets="yes")]
    lazy = LazyPlan(PLAN, cases=[{"liver_mets": "yes"}])
    decision = decide(PLAN, lazily(lazy, answers, watch=rounds.append))
    assert rounds == [{"liver_mets"}]
    assert (decision.outcome, decision.best_outcome, decision.review) == ("metastatic", "metastatic", True)


def test_a_report_that_goes_to_a_person_anyway_needs_no_more_questions_for_its_probability():
    rules = [CONTENT["rules"][0], CONTENT["rules"][1] | {"outcome": "metastatic"}, CONTENT["rules"][2]]
    lazy = LazyPlan(plan_with(rules=rules), cases=[{"liver_mets": "yes"}])
    rounds = []
    lazily(lazy, small_answers(0.7, liver_mets="yes"), watch=rounds.append, doubts=["not validated"])
    assert rounds == [{"liver_mets"}]


@pytest.mark.parametrize("skipped", ["sma_contact", "liver_mets"])
def test_a_skipped_finding_is_never_read_as_silence_or_no(skipped):
    answers = [
        replace(a, status=AnswerStatus.SKIPPED, value=None, probabilities={}, quotes=()) if a.finding == skipped else a
        for a in small_answers()
    ]
    decision = decide(PLAN, answers)
    assert decision.outcome is None
    assert decision.missing == (skipped,)
    assert decision.skipped == (skipped,)
    assert decision.assumed == {}
    assert not any("no reading" in reason or "in part" in reason for reason in decision.review_reasons)


def test_a_failed_finding_is_unknown_and_what_could_still_settle_the_case_is_asked():
    answers = small_answers(liver_mets=None, sma_contact=NOT_STATED)
    assert {a.subtask for a in lazily(SMALL, answers) if a.status is AnswerStatus.SKIPPED} == {"size"}


def test_where_nothing_could_be_read_everything_is_asked():
    answers = small_answers(liver_mets=None, sma_contact=None, size=2.0)
    assert all(answer.status is not AnswerStatus.SKIPPED for answer in lazily(SMALL, answers))


def test_a_stored_answer_is_known_before_the_first_round():
    stored = [one for one in small_answers(liver_mets="yes") if one.subtask == "liver_mets"]
    asking = LazyAsking(SMALL, stored, calibration=None, for_review=False)
    assert asking.next_round({}) == set()
    assert set(asking.skipped({}, 10)) == {"sma_contact", "size"}


def test_a_passage_that_reads_no_finding_is_asked_in_the_first_round_and_never_skipped():
    extra = {"id": "summary", "answer": "text", "prompt": {"instructed": "Copy."}, "labels": {}, "citation": CITATION}
    plan = plan_with(subtasks=[*CONTENT["subtasks"], extra])
    asking = LazyAsking(LazyPlan(plan), small_answers(liver_mets="yes"), calibration=None, for_review=False)
    assert asking.next_round({}) == {"summary"}
    assert asking.skipped({}, 10).keys() == set()
