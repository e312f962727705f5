"""The first topic: plan against guideline, and the clinical facts of the table, one by one."""

from __future__ import annotations

import itertools

import pytest
from plan_by_hand import PLAN_BY_HAND

from medorchestra.cloud.decomposition import under_rules_of
from medorchestra.cloud.guideline import read_guideline
from medorchestra.plan_files import read_plan
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import check_case, read_cases
from medorchestra.topics import guideline_folder

SHIPPED = read_plan("pancreatic_cancer")
CASES = read_cases("pancreatic_cancer")
GUIDELINE = read_guideline(guideline_folder("pancreatic_cancer") / "guideline.md")

pytestmark = pytest.mark.parametrize("plan", [SHIPPED, PLAN_BY_HAND], ids=["shipped", "by_hand"])
"""The clinical facts hold for the plan that the planner made as for the one written by hand, which came before it."""

CLEAR = {
    "tumor_present": "yes",
    "liver_mets": "no",
    "sma_contact": "none",
    "ca_contact": "none",
    "cha_contact": "none",
    "pv_smv_contact": "none",
}


def decide(plan, **findings):
    """The verdict for these findings; everything else is silent."""
    known = {finding.name: NOT_STATED for finding in plan.findings} | CLEAR | findings
    return plan.decision_table.decide(known)


def test_the_plan_is_made_from_this_guideline(plan):
    assert plan.guideline.digest == GUIDELINE.digest
    assert (plan.guideline.title, plan.guideline.edition) == (GUIDELINE.title, GUIDELINE.edition)


def test_every_citation_stands_word_for_word_in_the_guideline(plan):
    cited = [*plan.subtasks, *plan.rules, *(flag for flag in plan.flags if flag.citation)]
    wrong = [one.id for one in cited if not GUIDELINE.cites(one.citation.section, one.citation.quote)]
    assert len(cited) >= 40
    assert wrong == []


@pytest.mark.parametrize(
    ("findings", "outcome"),
    [
        ({}, "resectable"),
        ({"tumor_present": "no"}, "not_stageable"),
        ({"exam_adequate": "no", "liver_mets": "yes"}, "not_stageable"),
        ({"liver_mets": "yes"}, "metastatic"),
        ({"peritoneal_mets": "yes", "sma_contact": ">180"}, "metastatic"),
        ({"lung_mets": "yes"}, "metastatic"),
        ({"other_distant_mets": "yes"}, "metastatic"),
        ({"nonregional_nodes": "yes"}, "metastatic"),
        ({"regional_nodes": "yes"}, "resectable"),
        ({"sma_contact": ">180"}, "locally_advanced"),
        ({"ca_contact": ">180", "tumor_location": "head"}, "locally_advanced"),
        ({"ca_contact": ">180", "tumor_location": "body", "gda_contact": "no"}, "locally_advanced"),
        ({"ca_contact": "<=180", "aorta_contact": "yes"}, "locally_advanced"),
        ({"aorta_contact": "yes"}, "locally_advanced"),
        ({"pv_smv_contact": ">180", "pv_smv_reconstructible": "no"}, "locally_advanced"),
        (
            {"pv_smv_contact": "<=180_irregular", "pv_smv_reconstructible": "no"},
            "locally_advanced",
        ),
        ({"cha_contact": "<=180", "cha_extension": "yes"}, "locally_advanced"),
        ({"sma_contact": "<=180"}, "borderline_resectable"),
        ({"ca_contact": "<=180"}, "borderline_resectable"),
        ({"cha_contact": ">180", "cha_extension": "no"}, "borderline_resectable"),
        ({"cha_contact": "<=180"}, "borderline_resectable"),
        ({"variant_artery_contact": "yes"}, "borderline_resectable"),
        ({"pv_smv_contact": ">180", "pv_smv_reconstructible": "yes"}, "borderline_resectable"),
        ({"pv_smv_contact": "<=180_irregular"}, "borderline_resectable"),
        (
            {"pv_smv_contact": "occluded", "pv_smv_reconstructible": "yes"},
            "borderline_resectable",
        ),
        ({"ivc_contact": "yes"}, "borderline_resectable"),
        ({"pv_smv_contact": "<=180_smooth"}, "resectable"),
        ({"gda_contact": "yes"}, "resectable"),
        ({"jejunal_branch_contact": "yes"}, "resectable"),
    ],
)
def test_each_row_of_the_table_decides_as_the_guideline_says(plan, findings, outcome):
    assert decide(plan, **findings).outcome == outcome


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
def test_what_is_not_described_stays_open_and_is_named(plan, findings, possible, missing):
    verdict = decide(plan, **findings)
    assert verdict.outcome is None
    assert set(verdict.possible) == possible
    assert set(verdict.missing) == missing


def test_occlusion_without_a_word_on_reconstruction_is_decided_when_an_earlier_row_holds(plan):
    assert decide(plan, pv_smv_contact="occluded", sma_contact=">180").outcome == "locally_advanced"


def test_every_combination_of_stated_deciding_findings_is_decided(plan):
    deciding = [
        "tumor_present", "liver_mets", "sma_contact", "ca_contact", "cha_contact", "cha_extension", "aorta_contact",
        "variant_artery_contact", "pv_smv_contact", "pv_smv_reconstructible", "ivc_contact",
    ]  # fmt: skip
    values = [tuple(plan.finding(name).values) for name in deciding]
    for combination in itertools.product(*values):
        verdict = decide(plan, **dict(zip(deciding, combination, strict=True)))
        assert verdict.outcome is not None
        assert not verdict.gap


def with_other_edition(plan, named):
    """The plan with the option on this subject set to its other choice."""
    (option,) = [option for option in plan.options if named in option.name]
    (other,) = set(option.choices) - {option.setting}
    changed = tuple(o.model_copy(update={"setting": other}) if o is option else o for o in plan.options)
    return plan.model_copy(update={"options": changed})


@pytest.mark.parametrize(
    ("findings", "outcome"),
    [
        ({"tumor_location": "body", "gda_contact": "no", "aorta_contact": "no"}, "borderline_resectable"),
        ({"tumor_location": "head", "gda_contact": "no", "aorta_contact": "no"}, "locally_advanced"),
        ({"tumor_location": "tail", "gda_contact": "yes", "aorta_contact": "no"}, "locally_advanced"),
        ({"tumor_location": "tail", "gda_contact": "no", "aorta_contact": "yes"}, "locally_advanced"),
    ],
)
def test_the_option_for_coeliac_encasement_touches_body_and_tail_with_free_aorta_and_gda_only(plan, findings, outcome):
    assert decide(plan, ca_contact=">180", **findings).outcome == "locally_advanced"
    assert decide(with_other_edition(plan, "body_tail"), ca_contact=">180", **findings).outcome == outcome


def test_the_option_for_jejunal_branches_brings_back_the_older_wording(plan):
    older = with_other_edition(plan, "jejunal")
    assert decide(older, jejunal_branch_contact="yes").outcome == "locally_advanced"


def test_the_findings_of_every_case_written_by_hand_lead_to_its_outcome(plan):
    for case in CASES:
        if case.provenance == "hand":
            check_case(under_rules_of(plan, case), plan)
