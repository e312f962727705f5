"""What every topic that comes with the library must hold: plan, proof, cases, phrase bank, validation record."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from medorchestra.cloud.guideline import read_guideline
from medorchestra.cloud.proof.proof import prove
from medorchestra.local.scope import scope_problems
from medorchestra.phrases.composition import compose_many
from medorchestra.phrases.phrase_bank import read_phrase_bank
from medorchestra.phrases.phrase_bank_check import check_bank
from medorchestra.plan_files import read_plan
from medorchestra.synthetic import check_case, read_cases
from medorchestra.topics import guideline_folder, topics

pytestmark = pytest.mark.parametrize("topic", topics())


def test_the_plan_was_made_by_the_planner_and_rehearsed_with_the_default_model(topic):
    plan = read_plan(topic)
    assert plan.topic == topic
    assert plan.provenance.origin == "planner"
    assert [record.plan_digest for record in plan.validation] == [plan.digest]
    assert set(plan.validation[0].findings) == {subtask.finding for subtask in plan.subtasks}


def test_the_proof_of_the_plan_holds_with_all_its_cases(topic):
    guideline = read_guideline(guideline_folder(topic) / "guideline.md")
    proof = prove(read_plan(topic), guideline, read_cases(topic))
    assert proof.problems == ()


def test_the_findings_of_every_case_lead_to_its_outcome(topic):
    plan = read_plan(topic)
    for case in read_cases(topic):
        check_case(case, plan)


def test_every_rule_that_the_default_options_leave_on_decides_a_case_in_development_and_held_out(topic):
    plan, cases = read_plan(topic), read_cases(topic)
    reachable = {rule.rule for rule in plan.decision_table.rules if plan.decision_table.example(rule.rule) is not None}
    decided = Counter((case.rule, case.split) for case in cases)
    assert [rule for rule in reachable if not decided[rule, "development"]] == []
    assert sum(case.split == "held_out" for case in cases) >= 15


def test_no_case_text_is_in_two_splits(topic):
    texts = {split: {case.text for case in read_cases(topic, split)} for split in ("development", "held_out")}
    for one, other in combinations(texts.values(), 2):
        assert not one & other
    assert len({case.text for case in read_cases(topic)}) == len(read_cases(topic))


def test_few_of_the_reports_in_scope_are_flagged_as_out_of_scope(topic):
    plan = read_plan(topic)
    # A tumour of another kind is rightly flagged.
    cases = [case for case in read_cases(topic) if case.outcome not in ("not_stageable", "not_staged")]
    flagged = [case.id for case in cases if scope_problems(case.text, plan.scope)]
    assert len(flagged) < 0.1 * len(cases), flagged


def test_the_phrase_bank_composes_labelled_reports_that_all_differ(topic):
    plan, bank = read_plan(topic), read_phrase_bank(topic)
    # Phrases that no layout has a place for are left lying; anything else would be a wrong label.
    assert [problem for problem in check_bank(bank, plan) if "fit no skeleton" not in problem] == []
    composed = compose_many(bank, plan, n=300, seed=7, split="development")
    assert len({case.text for case in composed}) == 300
    for case in composed:
        check_case(case, plan)
