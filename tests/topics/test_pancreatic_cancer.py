"""The first topic: plan against guideline, and the clinical facts of the table, one by one."""

from __future__ import annotations

import itertools

import pytest

from medorchestra.cloud.guideline import read_guideline
from medorchestra.plan_files import read_plan
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import check_case, read_cases
from medorchestra.topics import guideline_folder

PLAN = read_plan("pancreatic_cancer")
CASES = read_cases("pancreatic_cancer")
GUIDELINE = read_guideline(guideline_folder("pancreatic_cancer") / "guideline.md")

CLEAR = {
    "tumor_present": "yes",
    "sma_contact": "none",
    "ca_contact": "none",
    "cha_contact": "none",
    "pv_smv_contact": "none",
}


def decide(**findings):
    """The verdict for these findings; everything else is silent."""
    known = {finding.name: NOT_STATED for finding in PLAN.findings} | CLEAR | findings
    return PLAN.decision_table.decide(known)


def test_the_plan_is_made_from_this_guideline():
    assert PLAN.guideline.digest == GUIDELINE.digest
    assert (PLAN.guideline.title, PLAN.guideline.edition) == (GUIDELINE.title, GUIDELINE.edition)


def test_every_citation_stands_word_for_word_in_the_guideline():
    cited = [*PLAN.subtasks, *PLAN.rules, *(flag for flag in PLAN.flags if flag.citation)]
    wrong = [one.id for one in cited if not GUIDELINE.cites(one.citation.section, one.citation.quote)]
    assert len(cited) >= 40
    assert wrong == []


@pytest.mark.parametrize(
    ("findings", "outcome", "rule"),
    [
        ({}, "resectable", "resectable"),
        ({"tumor_present": "no"}, "not_stageable", "no_tumor"),
        ({"exam_adequate": "no", "liver_mets": "yes"}, "not_stageable", "inadequate_exam"),
        ({"liver_mets": "yes"}, "metastatic", "distant_metastasis"),
        ({"peritoneal_mets": "yes", "sma_contact": ">180"}, "metastatic", "distant_metastasis"),
        ({"lung_mets": "yes"}, "metastatic", "distant_metastasis"),
        ({"other_distant_mets": "yes"}, "metastatic", "distant_metastasis"),
        ({"nonregional_nodes": "yes"}, "metastatic", "distant_metastasis"),
        ({"regional_nodes": "yes"}, "resectable", "resectable"),
        ({"sma_contact": ">180"}, "locally_advanced", "sma_over_180"),
        ({"ca_contact": ">180", "tumor_location": "head"}, "locally_advanced", "ca_over_180"),
        ({"ca_contact": ">180", "tumor_location": "body", "gda_contact": "no"}, "locally_advanced", "ca_over_180"),
        ({"ca_contact": "<=180", "aorta_contact": "yes"}, "locally_advanced", "aorta"),
        ({"aorta_contact": "yes"}, "locally_advanced", "aorta"),
        ({"pv_smv_contact": ">180", "pv_smv_reconstructible": "no"}, "locally_advanced", "pv_smv_not_reconstructible"),
        (
            {"pv_smv_contact": "<=180_irregular", "pv_smv_reconstructible": "no"},
            "locally_advanced",
            "pv_smv_not_reconstructible",
        ),
        ({"cha_contact": "<=180", "cha_extension": "yes"}, "locally_advanced", "cha_with_extension"),
        ({"sma_contact": "<=180"}, "borderline_resectable", "sma_up_to_180"),
        ({"ca_contact": "<=180"}, "borderline_resectable", "ca_contact"),
        ({"cha_contact": ">180", "cha_extension": "no"}, "borderline_resectable", "cha_without_extension"),
        ({"cha_contact": "<=180"}, "borderline_resectable", "cha_without_extension"),
        ({"variant_artery_contact": "yes"}, "borderline_resectable", "variant_artery"),
        ({"pv_smv_contact": ">180", "pv_smv_reconstructible": "yes"}, "borderline_resectable", "pv_smv_over_180"),
        ({"pv_smv_contact": "<=180_irregular"}, "borderline_resectable", "pv_smv_irregular_or_occluded"),
        (
            {"pv_smv_contact": "occluded", "pv_smv_reconstructible": "yes"},
            "borderline_resectable",
            "pv_smv_irregular_or_occluded",
        ),
        ({"ivc_contact": "yes"}, "borderline_resectable", "ivc"),
        ({"pv_smv_contact": "<=180_smooth"}, "resectable", "resectable"),
        ({"gda_contact": "yes"}, "resectable", "resectable"),
        ({"jejunal_branch_contact": "yes"}, "resectable", "resectable"),
    ],
)
def test_each_row_of_the_table_decides_as_the_guideline_says(findings, outcome, rule):
    verdict = decide(**findings)
    assert (verdict.outcome, verdict.rule) == (outcome, rule)


@pytest.mark.parametrize(
    ("findings", "possible", "missing"),
    [
        ({"sma_contact": NOT_STATED}, {"locally_advanced", "borderline_resectable", "resectable"}, {"sma_contact"}),
        ({"ca_contact": NOT_STATED}, {"locally_advanced", "borderline_resectable", "resectable"}, {"ca_contact"}),
        (
            {"cha_contact": NOT_STATED},
            {"locally_advanced", "borderline_resectable", "resectable"},
            {"cha_contact", "cha_extension"},
        ),
        ({"pv_smv_contact": "occluded"}, {"locally_advanced", "borderline_resectable"}, {"pv_smv_reconstructible"}),
        ({"pv_smv_contact": ">180"}, {"locally_advanced", "borderline_resectable"}, {"pv_smv_reconstructible"}),
        ({"tumor_present": NOT_STATED}, {"not_stageable", "resectable"}, {"tumor_present"}),
        ({"liver_mets": None}, {"metastatic", "resectable"}, {"liver_mets"}),
    ],
)
def test_what_is_not_described_stays_open_and_is_named(findings, possible, missing):
    verdict = decide(**findings)
    assert verdict.outcome is None
    assert set(verdict.possible) == possible
    assert set(verdict.missing) == missing


def test_occlusion_without_a_word_on_reconstruction_is_decided_when_an_earlier_row_holds():
    assert decide(pv_smv_contact="occluded", sma_contact=">180").outcome == "locally_advanced"


def test_every_combination_of_stated_deciding_findings_is_decided():
    deciding = [
        "tumor_present", "liver_mets", "sma_contact", "ca_contact", "cha_contact", "cha_extension", "aorta_contact",
        "variant_artery_contact", "pv_smv_contact", "pv_smv_reconstructible", "ivc_contact",
    ]  # fmt: skip
    values = [tuple(PLAN.finding(name).values) for name in deciding]
    for combination in itertools.product(*values):
        verdict = decide(**dict(zip(deciding, combination, strict=True)))
        assert verdict.outcome is not None
        assert not verdict.gap


def with_option(name, setting):
    options = tuple(o.model_copy(update={"setting": setting}) if o.name == name else o for o in PLAN.options)
    return type(PLAN).model_validate(PLAN.model_copy(update={"options": options}).model_dump(by_alias=True))


@pytest.mark.parametrize(
    ("findings", "outcome"),
    [
        ({"tumor_location": "body", "gda_contact": "no", "aorta_contact": "no"}, "borderline_resectable"),
        ({"tumor_location": "head", "gda_contact": "no", "aorta_contact": "no"}, "locally_advanced"),
        ({"tumor_location": "tail", "gda_contact": "yes", "aorta_contact": "no"}, "locally_advanced"),
        ({"tumor_location": "tail", "gda_contact": "no", "aorta_contact": "yes"}, "locally_advanced"),
    ],
)
def test_the_option_for_coeliac_encasement_touches_body_and_tail_with_free_aorta_and_gda_only(findings, outcome):
    plan = with_option("ca_over_180_body_tail", "borderline_resectable")
    known = {finding.name: NOT_STATED for finding in plan.findings} | CLEAR | {"ca_contact": ">180"} | findings
    assert plan.decision_table.decide(known).outcome == outcome


def test_the_option_for_jejunal_branches_brings_back_the_older_wording():
    plan = with_option("first_jejunal_branch", "locally_advanced")
    known = {finding.name: NOT_STATED for finding in plan.findings} | CLEAR | {"jejunal_branch_contact": "yes"}
    assert plan.decision_table.decide(known).outcome == "locally_advanced"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_findings_of_every_case_lead_to_its_outcome(case):
    check_case(case, PLAN)


def test_the_cases_cover_every_rule_at_least_three_times_and_both_forms_evenly():
    decided = [case.rule for case in CASES if case.rule]
    options_off = {"jejunal_branch"}
    thin = {rule.id: decided.count(rule.id) for rule in PLAN.rules if decided.count(rule.id) < 3}
    assert set(thin) <= options_off
    forms = [case.form for case in CASES]
    assert len(CASES) >= 60
    assert forms.count("free_text") == forms.count("structured")
    assert {case.split for case in CASES} >= {"development", "held_out"}


def test_no_case_text_is_in_two_splits():
    texts = [case.text for case in CASES]
    assert len(set(texts)) == len(texts)
