"""Wrong decisions and their causes, on the pancreas plan by hand; readings are made up, the rules decide."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_by_hand import PLAN_BY_HAND as PLAN

from medorchestra.local.aggregator import decide
from medorchestra.local.answers import Answer, AnswerStatus, Quote
from medorchestra.local.calibrating import OPEN, LabelledReport
from medorchestra.local.evaluation.error_anatomy import (
    CaseError,
    ErrorKind,
    FindingCost,
    error_anatomy,
    is_read_right,
)
from medorchestra.local.evaluation.predictions import NO_DECISION, LabelledCase, Prediction, StrategyRun
from medorchestra.local.records import Report
from medorchestra.local.staged_report import ReportStatus, StagedReport
from medorchestra.rules import NOT_STATED

QUOTE = Quote(0, 4, "text", 0.9, "focus_terms")
CLEAR = {finding.name: NOT_STATED for finding in PLAN.findings} | {
    "tumor_present": "yes",
    "tumor_size_cm": 2.4,
    "liver_mets": "no",
    "sma_contact": "none",
    "ca_contact": "none",
    "cha_contact": "none",
    "pv_smv_contact": "none",
}
"""A resectable carcinoma."""
SUBTASKS = {subtask.finding: subtask.id for subtask in PLAN.subtasks}


def answer(name, value, *, sure=None, quotes=(QUOTE,)):
    """An answer; `sure` is the probability of its value, what is left goes to the finding's first other value."""
    if isinstance(value, AnswerStatus):
        return Answer(SUBTASKS[name], name, value)
    silent = value == NOT_STATED
    chances = {}
    if sure is not None:
        other = next(one for one in PLAN.finding(name).all_values if one != value)
        chances = {value: sure, other: 1 - sure}
    status = AnswerStatus.NOT_STATED if silent else AnswerStatus.OK
    return Answer(SUBTASKS[name], name, status, None if silent else value, chances, () if silent else quotes, 4, 4)


def outcome_of(findings):
    return decide(PLAN, [answer(name, value) for name, value in findings.items()]).outcome or OPEN


def case(number=1, *, outcome=None, labels=None, **true):
    """A labelled case: `CLEAR` with what is true instead; `labels` are the findings that are labelled, default all."""
    findings = CLEAR | true
    kept = findings if labels is None else {name: findings[name] for name in labels}
    return LabelledCase(
        LabelledReport(Report(f"case-{number}", "text"), kept, outcome or outcome_of(findings)),
    )


def said(of, *changed, scope=(), **read):
    """What the rules make of `CLEAR` with these values, or answers, read instead."""
    answers = {name: answer(name, value) for name, value in (CLEAR | read).items()}
    answers |= {one.finding: one for one in changed}
    decision = decide(PLAN, list(answers.values()), scope_problems=scope)
    status = ReportStatus.OPEN if decision.outcome is None else ReportStatus.DECIDED
    staged = StagedReport(PLAN, of.report, status, decision, tuple(answers.values()))
    return Prediction(
        of.case_id,
        decision.best_outcome,
        is_open=decision.outcome is None,
        probabilities=decision.probabilities,
        review=decision.review,
        staged=staged,
    )


def anatomy(*pairs):
    return error_anatomy(PLAN, [one for one, _ in pairs], run_of(*(other for _, other in pairs)))


def run_of(*predictions):
    return StrategyRun("orchestrated", None, tuple(predictions))


def only_error(of, prediction):
    """The error of a single case."""
    found = anatomy((of, prediction))
    assert found.wrong == 1
    assert found.kinds == {found.errors[0].kind: 1}
    return found.errors[0]


# ------------------------------------------------------------------------------ causes


def test_an_encased_artery_read_as_free_is_a_misread_finding():
    of = case(sma_contact=">180")
    assert only_error(of, said(of)) == CaseError(
        "case-1", "locally_advanced", "resectable", ErrorKind.FINDING_MISREAD, ("sma_contact",)
    )


def test_a_stated_metastasis_that_was_read_as_not_stated_is_missed():
    of = case(liver_mets="yes")
    error = only_error(of, said(of, liver_mets=NOT_STATED))
    assert (error.kind, error.findings, error.truth) == (ErrorKind.FINDING_MISSED, ("liver_mets",), "metastatic")


def test_a_metastasis_on_which_the_report_is_silent_is_invented():
    of = case(lung_mets=NOT_STATED)
    error = only_error(of, said(of, lung_mets="yes"))
    assert (error.kind, error.findings) == (ErrorKind.FINDING_INVENTED, ("lung_mets",))


def test_a_misread_finding_that_changes_nothing_is_no_cause():
    of = case(sma_contact=">180", tumor_location="head")
    error = only_error(of, said(of, tumor_location="tail", tumor_size_cm=9.0))
    assert error.findings == ("sma_contact",)


def test_two_metastases_invented_together_are_found_together():
    """Either of them alone would still make the case metastatic."""
    of = case()
    found = anatomy((of, said(of, liver_mets="yes", lung_mets="yes")))
    error = found.errors[0]
    assert error.findings == ("liver_mets", "lung_mets")
    # The liver was stated to be free, of the lungs nothing is said: each was read wrong in its own way.
    assert error.kind is ErrorKind.FINDING_MISREAD
    assert [cost.costs for cost in found.costs if cost.finding in error.findings] == [0, 0]


def test_findings_invented_together_are_called_invented():
    of = case()
    error = only_error(of, said(of, other_distant_mets="yes", lung_mets="yes"))
    assert (error.kind, set(error.findings)) == (ErrorKind.FINDING_INVENTED, {"other_distant_mets", "lung_mets"})


def test_of_four_misread_findings_the_three_that_count_are_found():
    of = case()
    metastases = ("liver_mets", "peritoneal_mets", "lung_mets")
    error = only_error(of, said(of, tumor_location="tail", **dict.fromkeys(metastases, "yes")))
    assert set(error.findings) == set(metastases)


def test_a_finding_read_right_but_unsurely_is_told_from_a_misread_one():
    of = case()
    unsure = [
        answer(name, "none", sure=0.55) if PLAN.finding(name).values else None
        for name in ("sma_contact", "ca_contact", "cha_contact")
    ]
    scored = [replace(answer(name, value), probabilities={str(value): 1.0}) for name, value in CLEAR.items()]
    error = only_error(of, said(of, *scored, *unsure))
    assert error.predicted != "resectable"
    assert error.kind is ErrorKind.FINDING_UNSURE
    assert set(error.findings) <= {"sma_contact", "ca_contact", "cha_contact"}


def test_what_was_read_wrong_is_blamed_before_what_was_read_unsurely():
    of = case(sma_contact=">180")
    error = only_error(of, said(of, answer("ca_contact", "none", sure=0.9)))
    assert error.findings == ("sma_contact",)


def test_a_single_answer_that_failed_is_the_cause_where_it_alone_mends_the_decision():
    of = case(liver_mets="yes")
    error = only_error(of, said(of, liver_mets=AnswerStatus.UNPARSABLE))
    assert (error.kind, error.findings) == (ErrorKind.UNREADABLE, ("liver_mets",))


@pytest.mark.parametrize("with_staged", [True, False])
def test_a_report_without_any_reading_is_unreadable(with_staged):
    of, other = case(1), case(2)
    staged = StagedReport(PLAN, of.report, ReportStatus.FAILED, error="RuntimeError") if with_staged else None
    found = anatomy((of, Prediction(of.case_id, None, staged=staged)), (other, said(other)))
    assert found.errors == (CaseError("case-1", "resectable", NO_DECISION, ErrorKind.UNREADABLE, ()),)
    assert found.with_gold_findings.correct == 2


def test_right_findings_with_another_label_are_a_gap_of_the_rules():
    of = case(outcome="borderline_resectable")
    found = anatomy((of, said(of)))
    assert found.kinds == {ErrorKind.RULE_GAP: 1}
    assert (found.errors[0].findings, found.unexplained) == ((), 0)
    assert (found.with_gold_findings.correct, found.with_gold_findings.n) == (0, 1)


def test_a_misread_finding_hides_no_gap_of_the_rules():
    of = case(outcome="borderline_resectable")
    assert only_error(of, said(of, liver_mets="yes")).kind is ErrorKind.RULE_GAP


def test_a_report_of_another_exam_that_no_finding_mends_is_a_wrong_exam():
    of = case(outcome="not_stageable")
    prediction = said(of, scope=("no word for pancreas found",))
    found = anatomy((of, prediction))
    assert (found.kinds, found.scope_doubts) == ({ErrorKind.WRONG_EXAM: 1}, 1)


def test_a_doubt_of_scope_does_not_excuse_a_misread_finding():
    of = case(sma_contact=">180")
    found = anatomy((of, said(of, scope=("no word for pancreas found",))))
    assert (found.kinds, found.scope_doubts) == ({ErrorKind.FINDING_MISREAD: 1}, 1)


def test_an_outcome_that_the_rules_did_not_make_is_an_error_of_synthesis():
    of = case(sma_contact="<=180")
    prediction = replace(said(of, sma_contact="<=180"), outcome="metastatic", is_open=False)
    found = anatomy((of, prediction))
    assert (found.kinds, found.errors[0].findings) == ({ErrorKind.SYNTHESIS: 1}, ())
    assert all((cost.costs, cost.breaks) == (0, 0) for cost in found.costs)


def test_an_open_case_that_was_decided_is_wrong_and_its_missing_finding_is_the_cause():
    of = case(sma_contact=NOT_STATED)
    assert of.truth is None
    found = anatomy((of, said(of, sma_contact="none")))
    assert found.errors == (CaseError("case-1", OPEN, "resectable", ErrorKind.FINDING_INVENTED, ("sma_contact",)),)
    assert found.with_gold_findings.n == 0


def test_an_open_case_that_was_left_open_is_right():
    of = case(sma_contact=NOT_STATED)
    assert anatomy((of, said(of, sma_contact=NOT_STATED))).wrong == 0


# ------------------------------------------------------------------------------ labels of some findings only


def test_what_is_not_labelled_is_not_blamed():
    of = case(sma_contact=">180", labels=["liver_mets", "tumor_present"])
    found = anatomy((of, said(of)))
    assert (found.kinds, found.unexplained) == ({ErrorKind.NO_LABELS: 1}, 1)
    assert found.with_gold_findings.n == 0
    assert found.with_gold_findings.value is None


def test_a_labelled_finding_is_blamed_though_others_are_not_labelled():
    of = case(sma_contact=">180", labels=["sma_contact"])
    assert only_error(of, said(of)).findings == ("sma_contact",)


def test_labels_that_settle_the_outcome_alone_are_enough_to_blame_the_rules():
    labels = ["tumor_present", "exam_adequate", "liver_mets"]
    of = case(liver_mets="yes", exam_adequate="yes", labels=labels, outcome="resectable")
    found = anatomy((of, said(of, liver_mets="yes", exam_adequate="yes")))
    assert found.kinds == {ErrorKind.RULE_GAP: 1}
    assert (found.with_gold_findings.correct, found.with_gold_findings.n) == (0, 1)


def test_a_case_without_labelled_findings_is_counted_and_not_explained():
    labelled, bare = case(1, sma_contact=">180"), case(2, sma_contact=">180", labels=[])
    found = anatomy((labelled, said(labelled)), (bare, said(bare)))
    assert (found.n, found.wrong) == (2, 2)
    assert found.kinds == {ErrorKind.FINDING_MISREAD: 1, ErrorKind.NO_LABELS: 1}
    assert found.with_gold_findings.n == 1


def test_without_labelled_findings_or_without_answers_there_is_no_anatomy():
    bare, of = case(labels=[]), case()
    assert anatomy((bare, said(bare))) is None
    assert anatomy((of, Prediction(of.case_id, "metastatic"))) is None
    assert error_anatomy(PLAN, [], run_of()) is None


def test_a_run_on_other_cases_is_refused():
    of = case()
    with pytest.raises(ValueError, match="shorter"):
        error_anatomy(PLAN, [of, of], run_of(said(of)))


# ------------------------------------------------------------------------------ costs


def test_costs_and_breaks_are_counted_over_the_cases():
    encased, free, both = case(1, sma_contact=">180"), case(2), case(3, liver_mets="yes", lung_mets="no")
    found = anatomy(
        (encased, said(encased)),
        (free, said(free, ca_contact="<=180", sma_contact="<=180")),
        # Metastatic for the wrong reason: the lungs were misread, and so was the liver.
        (both, said(both, liver_mets="no", lung_mets="yes")),
    )
    costs = {cost.finding: cost for cost in found.costs}
    assert found.costs[0] == FindingCost("sma_contact", wrong=2, n=3, costs=1, breaks=0)
    assert costs["ca_contact"] == FindingCost("ca_contact", wrong=1, n=3, costs=0, breaks=0)
    assert costs["lung_mets"] == FindingCost("lung_mets", wrong=1, n=3, costs=0, breaks=1)
    assert costs["liver_mets"] == FindingCost("liver_mets", wrong=1, n=3, costs=0, breaks=0)
    assert [error.findings for error in found.errors] == [("sma_contact",), ("sma_contact", "ca_contact")]
    assert list(found.costs) == sorted(found.costs, key=lambda cost: (-cost.costs, -cost.wrong))
    assert (found.with_gold_findings.correct, found.with_gold_findings.n) == (3, 3)


def test_a_finding_is_counted_only_where_it_is_labelled():
    of, other = case(1, labels=["sma_contact"]), case(2)
    found = anatomy((of, said(of)), (other, said(other)))
    counted = {cost.finding: cost.n for cost in found.costs}
    assert counted == dict.fromkeys(CLEAR, 1) | {"sma_contact": 2}


@pytest.mark.parametrize(
    ("read", "true", "right"),
    [
        (2.4, 2.4, True),
        (2.4, 2.44, True),
        (2.4, 2.5, False),
        (24.0, 2.4, False),
        (2.0, 2, True),
        (NOT_STATED, NOT_STATED, True),
        (NOT_STATED, 2.4, False),
        (2.4, NOT_STATED, False),
        (AnswerStatus.FAILED, NOT_STATED, False),
        (AnswerStatus.TOO_LONG, 2.4, False),
    ],
)
def test_a_size_is_read_right_within_a_rounding(read, true, right):
    assert is_read_right(answer("tumor_size_cm", read), true) is right


def test_an_answer_that_is_not_there_is_not_right():
    assert not is_read_right(None, NOT_STATED)


# ------------------------------------------------------------------------------ evidence


def test_right_values_without_a_place_in_the_report_are_counted_apart():
    of = case(liver_mets="yes")
    found = anatomy(
        (of, said(of, answer("liver_mets", "yes", quotes=()), answer("tumor_size_cm", 2.4, quotes=()))),
    )
    assert found.wrong == 0
    assert found.kinds == {}
    assert found.quotes_missing == 2  # the size decides nothing, so no decision rests on it
    assert found.evidence == {"liver_mets": 1}


def test_silence_needs_no_quote_and_a_wrong_value_is_not_counted_as_evidence():
    of = case()
    found = anatomy((of, said(of, answer("sma_contact", "<=180", quotes=()))))
    assert (found.quotes_missing, found.evidence) == (0, {})


# ------------------------------------------------------------------------------ the conclusion


def test_the_conclusion_says_where_errors_come_from_and_what_a_perfect_reader_would_reach():
    encased, gap, right = case(1, sma_contact=">180"), case(2, outcome="metastatic"), case(3)
    found = anatomy((encased, said(encased)), (gap, said(gap)), (right, said(right)))
    assert found.conclusion == (
        "Of 3 decisions 2 are wrong: 1 from how findings were read (the most costly is sma_contact: put right alone it "
        "mends 1), 1 from rules that do not follow the labels. With every finding read right the rules would come to "
        "the true outcome in 2 of 3 cases (67 %)."
    )


def test_the_conclusion_claims_nothing_where_nothing_is_known():
    right, bare = case(1), case(2, sma_contact=">180", labels=["liver_mets"])
    assert anatomy((right, said(right))).conclusion.startswith("None of 1 decisions is wrong. ")
    assert anatomy((bare, said(bare))).conclusion == (
        "Of 1 decisions 1 are wrong: 1 for reasons that the labels do not tell. What reading without error would "
        "reach is unknown: in no case are all deciding findings labelled."
    )


# ------------------------------------------------------------------------------ what always holds

CONTACTS = ("sma_contact", "ca_contact")
VALUES = st.fixed_dictionaries(
    {name: st.sampled_from(["none", "<=180", ">180", NOT_STATED]) for name in CONTACTS}
    | {name: st.sampled_from(["yes", "no", NOT_STATED]) for name in ("liver_mets", "lung_mets", "aorta_contact")}
)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=3))
@settings(max_examples=40)
def test_with_full_labels_every_wrong_decision_is_mended_by_the_findings_told_and_by_no_fewer(drawn):
    cases = [case(number, **true) for number, (true, _) in enumerate(drawn)]
    predictions = [said(of, **read) for of, (_, read) in zip(cases, drawn, strict=True)]
    found = error_anatomy(PLAN, cases, run_of(*predictions))
    assert sum(found.kinds.values()) == found.wrong == len(found.errors)
    assert found.with_gold_findings.correct == found.with_gold_findings.n
    by_id = {of.case_id: (of, read) for of, (_, read) in zip(cases, drawn, strict=True)}
    for error in found.errors:
        of, read = by_id[error.case_id]

        def mends(names, of=of, read=read):
            values = CLEAR | read | {name: of.labels.findings[name] for name in names}
            return said(of, **values).is_right(of)

        assert mends(error.findings)
        fewest = next(
            size for size in range(len(CLEAR)) if any(mends(names) for names in combinations(drawn[0][0], size))
        )
        assert len(error.findings) == fewest or fewest > 2
    alone = sum(len(error.findings) == 1 for error in found.errors)
    assert sum(cost.costs for cost in found.costs) >= alone


@given(VALUES)
@settings(max_examples=40)
def test_a_perfect_reader_makes_no_error(true):
    of = case(**true)
    found = anatomy((of, said(of, **true)))
    assert (found.wrong, found.kinds, found.quotes_missing) == (0, {}, 0)
    assert all((cost.wrong, cost.costs, cost.breaks) == (0, 0, 0) for cost in found.costs)
