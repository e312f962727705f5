"""Step 1: what is asked, which answers are taken, and what a model that errs is told until it mends its plan."""

from __future__ import annotations

import dataclasses
import json

import pytest
from cloud.toy.nodule import DECOMPOSITION, GUIDELINE, ToyCloud, decomposition_with, toy_desk

from medorchestra.cloud import decomposition as module
from medorchestra.cloud.decomposition import (
    Decomposition,
    decompose,
    decomposition_faults,
    guideline_chunks,
    plan_of,
    relevant_sections,
    under_rules_of,
)
from medorchestra.cloud.desk.cloud_desk import Effort
from medorchestra.cloud.guideline import Section
from medorchestra.errors import CloudError
from medorchestra.synthetic import SyntheticCase, check_case

GOOD = Decomposition.model_validate(DECOMPOSITION)


def rule(rule_id):
    return next(one for one in DECOMPOSITION["rules"] if one["id"] == rule_id)


def with_rule(rule_id, **changes):
    rules = [one | changes if one["id"] == rule_id else one for one in DECOMPOSITION["rules"]]
    return decomposition_with(rules=rules)


def with_finding(of, **changes):
    findings = [one | changes if one["name"] == of else one for one in DECOMPOSITION["findings"]]
    return decomposition_with(findings=findings)


def asked_of(cloud, tmp_path, **options):
    """What `decompose` comes to with this cloud, and its requests."""
    model = cloud.model()
    cloud.model = lambda: model
    with toy_desk(cloud, tmp_path, **options.pop("desk", {})) as desk:
        answer = decompose(desk, GUIDELINE, options.pop("cases", ()))
    return answer, model.requests


def case(findings, outcome="biopsy", rule_id="large", split="development", case_id="c1"):
    return SyntheticCase(
        id=case_id,
        split=split,
        form="free_text",
        style="plain",
        text="CT of the chest. A solitary nodule is seen. It measures 9 mm.",
        findings=findings,
        outcome=outcome,
        possible_outcomes=(outcome,),
        rule=rule_id,
    )


LARGE = {"nodule": "yes", "calcified": "not_stated", "growth": "no", "size_mm": 9.0}


# ------------------------------------------------------------------------------ a good answer


def test_the_whole_guideline_is_read_and_a_good_answer_is_taken_at_once(tmp_path):
    answer, requests = asked_of(ToyCloud(), tmp_path)
    assert answer == GOOD
    (request,) = requests
    for section in GUIDELINE.sections.values():
        assert f"# guideline: {section.number}\n{section.number} {section.title}\n{section.text}" in request.user


def test_a_decomposition_with_its_subtasks_is_a_plan_of_the_planner():
    plan = plan_of(GOOD, GUIDELINE, module._stub_subtasks(GOOD), model="large-1")
    assert (plan.provenance.origin, plan.provenance.model) == ("planner", "large-1")
    assert plan.guideline.digest == GUIDELINE.digest
    silent = {"calcified": "not_stated", "growth": "not_stated"}
    assert plan.decision_table.decide({"nodule": "yes", "size_mm": 7.9, **silent}).rule == "medium"
    assert decomposition_faults(GOOD, GUIDELINE) == []


# ------------------------------------------------------------------------------ answers that do not hold up

UNREACHABLE = with_rule("medium", when={"finding": "size_mm", "at_least": 9})
CONTRADICTORY = decomposition_with(
    rules=[*DECOMPOSITION["rules"], rule("grown") | {"id": "g2", "outcome": "follow_up"}]
)
HALLUCINATED = with_rule("grown", citation={"section": "3", "quote": "Growing nodules are resected within two weeks."})

FAULTY = {
    "a citation of a rule that stands nowhere": (HALLUCINATED, "rule grown"),
    "a citation of a finding from another section": (
        with_finding("growth", citation={"section": "4", "quote": "has grown since an earlier examination"}),
        "finding 'growth': its citation does not stand word for word in section 4",
    ),
    "a section that is not there": (
        with_rule("grown", citation={"section": "9", "quote": "goes to biopsy"}),
        "rule grown",
    ),
    "two rules with the same condition and other outcomes": (CONTRADICTORY, "rule g2"),
    "a rule that never decides": (UNREACHABLE, "rule medium"),
    "a gap": (with_rule("small", when={"finding": "size_mm", "below": 4}), "size_mm"),
    "a bound that is not the guideline's": (
        with_rule("large", when={"finding": "size_mm", "at_least": 7}),
        "rule large",
    ),
    "an unknown finding": (with_rule("grown", when={"finding": "speed", "is": "fast"}), "unknown finding 'speed'"),
    "an unknown value": (with_rule("grown", when={"finding": "growth", "is": "slow"}), "has no value 'slow'"),
    "an unknown outcome": (with_rule("grown", outcome="surgery"), "unknown outcome 'surgery'"),
    "an outcome that nothing leads to": (
        decomposition_with(outcomes=[*DECOMPOSITION["outcomes"], {"name": "surgery", "description": "Resection."}]),
        "surgery",
    ),
    "a finding that is there twice": (
        decomposition_with(findings=[*DECOMPOSITION["findings"], DECOMPOSITION["findings"][0]]),
        "finding defined twice: nodule",
    ),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_fault_is_named_to_the_model_and_the_mended_answer_is_taken(tmp_path, fault):
    wrong, named = FAULTY[fault]
    cloud = ToyCloud(decompose=lambda request, times: wrong if times == 0 else None)
    answer, requests = asked_of(cloud, tmp_path)
    assert answer == GOOD
    assert len(requests) == 2
    problems = requests[1].user.split("# problem: decompose\n")[1]
    assert named in problems
    assert "# reply: decompose" in requests[1].user


def test_a_model_that_insists_on_contradictory_rules_is_refused_with_the_fault_and_the_effort_is_bounded(tmp_path):
    cloud = ToyCloud(decompose=lambda request, times: CONTRADICTORY)
    with pytest.raises(CloudError, match="decompose: no usable answer from toy-cloud after 3 requests") as caught:
        asked_of(cloud, tmp_path, desk={"effort": Effort(max_repairs=2)})
    assert "rule g2" in str(caught.value)
    assert cloud.asked == ["decompose"] * 3


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (decomposition_with(topic="../../etc"), "topic: "),
        (decomposition_with(title="x" * 3_000), "title: "),
        (decomposition_with(plan_hook="__import__('os').system('true')"), "plan_hook: "),
        (decomposition_with(scope=DECOMPOSITION["scope"] | {"language": "klingon"}), "scope.language: "),
        (with_finding("growth", name="Growth of it"), "findings.2.name: "),
        (with_finding("growth", not_stated={"reads_as": "slow", "why": "so"}), "findings.2: not_stated.reads_as"),
    ],
    ids=["path", "endless title", "unknown field", "no language", "no name", "silence read as nothing there is"],
)
def test_what_no_plan_may_hold_is_not_taken_and_its_place_is_named(tmp_path, wrong, place):
    cloud = ToyCloud(decompose=lambda request, times: wrong if times == 0 else None)
    answer, requests = asked_of(cloud, tmp_path)
    assert answer == GOOD
    assert place in requests[1].user.split("# problem: decompose\n")[1]


# ------------------------------------------------------------------------------ labelled cases


def test_the_names_of_labelled_cases_are_told_and_not_their_texts(tmp_path):
    _, requests = asked_of(ToyCloud(), tmp_path, cases=[case(LARGE)])
    told = requests[0].user.split("# plan: names that labelled cases use\n")[1]
    assert (
        json.loads(told)
        == {
            "findings": {"nodule": ["yes"], "calcified": [], "growth": ["no"], "size_mm": "number"},
            "parts": [],
            "outcomes": ["biopsy"],
        }
        or json.loads(told)["findings"]["size_mm"] == "number"
    )
    assert "It measures" not in requests[0].user


def test_a_plan_that_decides_a_labelled_case_otherwise_is_told_the_case_and_both_outcomes():
    (fault,) = decomposition_faults(GOOD, GUIDELINE, [case(LARGE, outcome="follow_up")])
    assert fault.startswith("case c1: expects follow_up")
    assert "lead to biopsy" in fault
    assert "measures" not in fault


def test_the_rule_names_of_another_plan_are_no_fault():
    assert decomposition_faults(GOOD, GUIDELINE, [case(LARGE, rule_id="r17")]) == []


def test_other_findings_than_those_of_the_cases_are_a_fault():
    (fault,) = decomposition_faults(GOOD, GUIDELINE, [case({"nodule": "yes", "spiculated": "yes"})])
    assert "the plan lacks: spiculated" in fault
    assert "do not have: calcified, growth, size_mm" in fault


def test_a_case_under_this_plans_rules_keeps_what_it_expects():
    plan = plan_of(GOOD, GUIDELINE, module._stub_subtasks(GOOD), model="large-1")
    check_case(under_rules_of(plan, case(LARGE, rule_id="r17")), plan)
    foreign = case(LARGE | {"growth": "slow"}, rule_id="r17")
    assert under_rules_of(plan, foreign) is foreign


# ------------------------------------------------------------------------------ long guidelines


def test_a_long_guideline_is_cut_between_sections_only():
    sections = list(GUIDELINE.sections.values())
    chunks = guideline_chunks(GUIDELINE, longest=300)
    assert [section for chunk in chunks for section in chunk] == sections
    assert len(chunks) > 1
    assert all(sum(len(s.title) + len(s.text) for s in chunk) <= 300 for chunk in chunks)
    assert guideline_chunks(GUIDELINE, longest=1) == [[section] for section in sections]  # a section is never cut


def test_a_long_guideline_is_read_in_parts_and_merged(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "guideline_chunks", lambda guideline: guideline_chunks(guideline, 300))
    cloud = ToyCloud(merge=lambda request, times: DECOMPOSITION)
    answer, requests = asked_of(cloud, tmp_path)
    parts = len(guideline_chunks(GUIDELINE, 300))
    assert answer == GOOD
    assert sorted(cloud.asked) == ["decompose"] * parts + ["merge"]
    merge = next(request for request in requests if request.system.startswith("# instruction: merge"))
    assert [f"# plan: part {i}" in merge.user for i in range(1, parts + 2)] == [True] * parts + [False]
    assert "# guideline" not in merge.user


def test_of_a_long_guideline_later_steps_get_the_sections_that_are_cited():
    filler = {f"{n}": Section(f"{n}", "More", "Text on something else. " * 1_000) for n in range(6, 12)}
    long = dataclasses.replace(GUIDELINE, sections={**GUIDELINE.sections, **filler})
    assert [section.number for section in relevant_sections(long, GOOD)] == ["1", "2", "3", "4"]
    assert len(relevant_sections(GUIDELINE, GOOD)) == 5
