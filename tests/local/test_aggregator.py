"""Answers to decisions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_by_hand import PLAN_BY_HAND

from medorchestra.local.aggregator import decide, outcome_set
from medorchestra.local.answers import Answer, AnswerStatus, Quote
from medorchestra.plan import Calibration
from medorchestra.rules import NOT_STATED

PLAN = PLAN_BY_HAND
QUOTE = Quote(0, 4, "text", 0.9, "focus_terms")
CLEAR = {
    "tumor_present": "yes",
    "liver_mets": "no",
    "sma_contact": "none",
    "ca_contact": "none",
    "cha_contact": "none",
    "pv_smv_contact": "none",
}


def answer(name, value, *, sure=1.0, quotes=(QUOTE,)):
    """An answer with this value and probability; the rest is spread over the other values."""
    finding = PLAN.finding(name)
    if finding.values is None:
        stated = {} if value == NOT_STATED else {f"{value:g}": 1.0}
        chances = stated or {NOT_STATED: 1.0}
    else:
        rest = (1 - sure) / (len(finding.all_values) - 1)
        chances = {v: sure if v == value else rest for v in finding.all_values}
    status = AnswerStatus.NOT_STATED if value == NOT_STATED else AnswerStatus.OK
    shown = None if value == NOT_STATED else value
    return Answer(name, name, status, shown, chances, quotes if shown is not None else (), 10, 10)


def answers(**findings):
    values = {f.name: NOT_STATED for f in PLAN.findings} | CLEAR | findings
    return [answer(name, value) for name, value in values.items()]


def with_answer(all_answers, changed):
    return [changed if one.subtask == changed.subtask else one for one in all_answers]


def test_a_clear_case_is_decided_without_review():
    decision = decide(PLAN, answers())
    assert decision.outcome == decision.best_outcome == "resectable"
    assert decision.probability == pytest.approx(1.0)
    assert decision.rule.id == "resectable"
    assert decision.rule.citation.section == "5.1"
    assert not decision.review
    assert decision.review_reasons == ()
    assert "lung_mets" in decision.assumed
    assert "liver_mets" not in decision.assumed


def test_a_metastasis_needs_no_vessels():
    decision = decide(PLAN, answers(liver_mets="yes", sma_contact=NOT_STATED, pv_smv_contact=NOT_STATED))
    assert decision.outcome == "metastatic"
    assert decision.rests_on == ("tumor_present", "exam_adequate", "liver_mets")


def test_a_silent_deciding_vessel_leaves_the_case_open_and_says_what_is_missing():
    decision = decide(PLAN, answers(sma_contact=NOT_STATED))
    assert decision.outcome is None
    assert decision.rule is None
    assert decision.possible_outcomes == ("resectable", "borderline_resectable", "locally_advanced")
    assert decision.missing == ("sma_contact",)
    assert decision.best_outcome == "resectable"
    assert decision.review_reasons[0] == "open: sma_contact would settle it"


@pytest.mark.parametrize("status", [AnswerStatus.FAILED, AnswerStatus.UNPARSABLE, AnswerStatus.TOO_LONG])
def test_a_failed_answer_is_unknown_and_never_read_as_silence(status):
    failed = Answer("lung_mets", "lung_mets", status, characters_total=10)
    decision = decide(PLAN, with_answer(answers(), failed))
    assert set(decision.possible_outcomes) == {"metastatic", "resectable"}
    assert any("no reading of: lung_mets" in reason for reason in decision.review_reasons)


def test_an_unsure_reading_goes_to_a_person():
    decision = decide(PLAN, with_answer(answers(), answer("sma_contact", "none", sure=0.7)))
    assert decision.outcome == "resectable"
    # 0.1 goes to each other value; of the silent tenth the prior sends 0.8 to "none".
    assert decision.probability == pytest.approx(0.78)
    assert decision.review_reasons == ("probability 0.78 is below 0.80",)


def calibration(**changes):
    content = {
        "made_on": "2026-11-24",
        "plan_digest": PLAN.digest,
        "model_digest": "sha256:" + "1" * 64,
        "labels": "local",
        "n": 200,
        "labels_digest": "sha256:" + "2" * 64,
        "temperatures": {},
        "risk": 0.05,
        "review_below": 0.8,
    }
    return Calibration.model_validate(content | changes)


@pytest.mark.parametrize(("review_below", "review"), [(0.5, False), (0.77, False), (0.79, True), (0.95, True)])
def test_the_threshold_of_the_calibration_takes_the_place_of_the_profiles(review_below, review):
    unsure = with_answer(answers(), answer("sma_contact", "none", sure=0.7))
    decision = decide(PLAN, unsure, calibration=calibration(review_below=review_below))
    assert decision.review is review
    assert decision.review_reasons == ((f"probability 0.78 is below {review_below:.2f}",) if review else ())


def test_a_calibration_that_found_no_threshold_sends_even_a_certain_decision_to_a_person():
    decision = decide(PLAN, answers(), calibration=calibration(review_below=1.0))
    assert decision.probability == 1.0
    assert decision.review_reasons == (
        "every decision goes to a person: no probability is high enough for this plan and model",
    )


@pytest.mark.parametrize(
    ("floor", "expected"),
    [
        (0.9, ("resectable",)),
        (0.6, ("resectable",)),
        (0.3, ("resectable", "locally_advanced")),
        (0.0, ("resectable", "locally_advanced", "metastatic")),
        (None, ("resectable", "locally_advanced", "metastatic")),
    ],
)
def test_a_set_holds_what_is_probable_enough_and_the_likeliest_always(floor, expected):
    probabilities = {"resectable": 0.65, "locally_advanced": 0.3, "metastatic": 0.05}
    assert outcome_set(probabilities, calibration(set_coverage=0.9, set_floor=floor)) == expected


def test_without_a_coverage_there_are_no_sets_whatever_the_floor():
    assert outcome_set({"resectable": 1.0}, calibration(set_floor=0.5)) is None


def test_a_decision_carries_its_set_of_outcomes_only_where_the_calibration_gives_sets():
    unsure = with_answer(answers(), answer("sma_contact", "none", sure=0.7))
    with_sets = decide(PLAN, unsure, calibration=calibration(set_coverage=0.9, set_floor=0.1))
    assert with_sets.outcome_set == tuple(
        name for name, share in with_sets.probabilities.items() if share >= 0.1 or name == "resectable"
    )
    assert len(with_sets.outcome_set) > 1
    assert decide(PLAN, unsure, calibration=calibration()).outcome_set is None
    assert decide(PLAN, unsure).outcome_set is None


def test_where_values_and_probabilities_disagree_a_person_is_asked():
    unsure = [answer(f"{site}", "no", sure=0.55) for site in ("liver_mets", "peritoneal_mets", "lung_mets")]
    all_answers = answers()
    for one in unsure:
        spread = {"no": 0.55, "yes": 0.45, NOT_STATED: 0.0}
        all_answers = with_answer(all_answers, replace(one, probabilities=spread))
    decision = decide(PLAN, all_answers)
    assert decision.outcome == "resectable"
    assert decision.best_outcome == "metastatic"
    assert any("most probable outcome is metastatic" in reason for reason in decision.review_reasons)


@pytest.mark.parametrize(
    ("findings", "flag", "kind"),
    [
        ({"restaging": "yes"}, "restaging", "caution"),
        ({"impression_conflict": "yes"}, "impression_conflict", "contradiction"),
        ({"cha_extension": "yes"}, "extension_without_contact", "contradiction"),
        ({"pv_smv_reconstructible": "no"}, "free_vein_not_reconstructible", "contradiction"),
        ({"tumor_present": "no", "sma_contact": ">180"}, "contact_without_tumor", "contradiction"),
        ({"ca_contact": ">180", "tumor_location": "tail"}, "ca_over_180_body_tail", "caution"),
    ],
)
def test_contradictions_and_cautions_of_the_plan_are_flagged(findings, flag, kind):
    decision = decide(PLAN, answers(**findings))
    assert [(raised.id, raised.kind) for raised in decision.flags] == [(flag, kind)]
    assert decision.review


def test_silence_on_the_liver_is_read_as_no_but_a_person_looks():
    decision = decide(PLAN, answers(liver_mets=NOT_STATED))
    assert decision.outcome == "resectable"
    assert decision.assumed["liver_mets"] == "no"
    assert decision.review_reasons == ("rests on silence read as a value: liver_mets=no",)


def test_an_answer_without_a_supporting_sentence_is_shown_as_such():
    decision = decide(PLAN, with_answer(answers(), answer("sma_contact", "none", quotes=())))
    assert decision.review_reasons == ("no supporting sentence found for: sma_contact",)


def test_a_report_that_was_read_in_part_goes_to_a_person():
    partly = [replace(one, characters_read=4, characters_total=10) for one in answers()]
    decision = decide(PLAN, partly)
    assert decision.review_reasons == ("report read in part: 24 answers from 4 to 4 of 10 characters",)


def test_a_focused_plan_reads_in_part_by_design_and_tells_only_what_did_not_fit():
    focused = PLAN.model_copy(update={"profile": PLAN.profile.model_copy(update={"context": "focused"})})
    partly = [replace(answer, characters_read=4, characters_total=10) for answer in answers()]
    assert decide(focused, partly).review_reasons == ()
    cut = [replace(answer, complete=False) for answer in partly]
    assert "read in part" in decide(focused, cut).review_reasons[0]


def test_scope_problems_send_a_decided_case_to_a_person():
    decision = decide(PLAN, answers(), scope_problems=["language looks like 'de'"])
    assert decision.outcome == "resectable"
    assert decision.review_reasons == ("scope: language looks like 'de'",)


def test_a_number_reaches_the_rules_as_a_number():
    decision = decide(PLAN, answers(tumor_size_cm=3.2))
    assert decision.outcome == "resectable"


def test_missing_or_doubled_answers_are_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="no answer for: ca_contact"):
        decide(PLAN, [one for one in answers() if one.finding != "ca_contact"])
    with pytest.raises(ValueError, match="two answers read finding"):
        decide(PLAN, [*answers(), answers()[0]])


values = st.fixed_dictionaries({f.name: st.sampled_from(f.all_values) for f in PLAN.findings if f.values})


@given(values, st.randoms())
def test_the_order_of_the_answers_does_not_matter(findings, random):
    ordered = answers(**findings)
    shuffled = list(ordered)
    random.shuffle(shuffled)
    first, second = decide(PLAN, ordered), decide(PLAN, shuffled)
    assert (first.outcome, first.rule, first.possible_outcomes, first.missing, first.rests_on) == (
        second.outcome,
        second.rule,
        second.possible_outcomes,
        second.missing,
        second.rests_on,
    )
    assert first.probabilities == pytest.approx(second.probabilities)


@given(values, st.floats(0.3, 1.0))
def test_probabilities_sum_to_one_and_a_certain_reading_agrees_with_its_outcome(findings, sure):
    all_answers = [answer(name, value, sure=sure) for name, value in findings.items()]
    all_answers.append(answer("tumor_size_cm", NOT_STATED))
    decision = decide(PLAN, all_answers)
    assert math.isclose(sum(decision.probabilities.values()) + decision.undecided, 1.0, abs_tol=1e-9)
    if sure == 1.0 and decision.outcome is not None:
        assert decision.best_outcome == decision.outcome
        assert decision.probability == pytest.approx(1.0)


def test_a_missing_quote_counts_only_where_silence_would_be_read_otherwise():
    """That the examination was fit is what silence says, too; that the SMA is free is not."""
    fit = with_answer(answers(), answer("exam_adequate", "yes", quotes=()))
    assert not decide(PLAN, fit).review
    free = with_answer(answers(), answer("sma_contact", "none", quotes=()))
    assert "no supporting sentence found for: sma_contact" in decide(PLAN, free).review_reasons
    # The plan wants a person to see silence on the liver, and so a "no" that nothing in the report supports.
    liver = with_answer(answers(), answer("liver_mets", "no", quotes=()))
    assert decide(PLAN, liver).review
