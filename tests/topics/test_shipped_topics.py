"""What every topic that comes with the library must hold: plan, proof, cases, phrase bank, validation record."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations

import pytest
from plan_by_hand import WRITTEN_LATER

from medorchestra.cloud.guideline import read_guideline
from medorchestra.cloud.proof.proof import prove
from medorchestra.local.adapters import find_adapter
from medorchestra.local.engine.gguf_file import file_digest
from medorchestra.local.engine.model_files import find_model
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
    assert plan.validation[0].adapter_digest is None  # the model as it comes
    for record in plan.validation:
        assert record.plan_digest == plan.digest
        assert set(record.findings) == {subtask.finding for subtask in plan.subtasks}


def test_an_adapter_that_is_shipped_fits_the_plan_and_was_calibrated_and_validated_with_it(topic):
    plan = read_plan(topic)
    adapter = find_adapter(plan, "default")
    shipped = sorted((guideline_folder(topic) / "adapters").glob("*.gguf"))
    assert shipped == ([] if adapter is None else [adapter])
    for path in shipped:
        pair = (file_digest(find_model("default")), file_digest(path))
        assert plan.validation_for(*pair) is not None
        assert plan.calibration_for(*pair) is not None
        assert json.loads(path.with_suffix(".json").read_text("utf-8"))["adapter_digest"] == pair[1]


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
    # A tumour of another kind is rightly flagged. So is a report that never names the organ, which one in six of the
    # natural cases does not; on a hospital's system the name of the examination does.
    cases = [case for case in read_cases(topic) if case.outcome not in ("not_stageable", "not_staged")]
    named = {True: "Pancreas, tumour staging.\n", False: ""}
    texts = {case.id: named[case.id.startswith(WRITTEN_LATER)] + case.text for case in cases}
    flagged = [case for case, text in texts.items() if scope_problems(text, plan.scope)]
    assert len(flagged) < 0.1 * len(cases), flagged


def test_the_phrase_bank_composes_labelled_reports_that_all_differ(topic):
    plan, bank = read_plan(topic), read_phrase_bank(topic)
    # Phrases that no layout has a place for are left lying; anything else would be a wrong label.
    assert [problem for problem in check_bank(bank, plan) if "fit no skeleton" not in problem] == []
    composed = compose_many(bank, plan, n=300, seed=7, split="development")
    assert len({case.text for case in composed}) == 300
    for case in composed:
        check_case(case, plan)
