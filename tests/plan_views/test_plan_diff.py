"""What changed between two plans, and what it does to decisions and cases."""

from __future__ import annotations

from itertools import product

from cloud.sound_plan import content, rule_in, sound_cases, sound_plan

from medorchestra.plan import Plan
from medorchestra.plan_views.plan_diff import NO_OUTCOME, diff_plans

PLAN = sound_plan()


def diff_with(changed, cases=()):
    return diff_plans(PLAN, Plan.model_validate(changed), cases)


def told(diff):
    return {change.what: change.how for change in diff.changes}


def test_a_plan_is_the_same_as_itself():
    diff = diff_plans(PLAN, sound_plan(), sound_cases(PLAN))
    assert diff.same
    assert diff.combinations == 2 * 3 * 5 * 5
    assert diff.lines()[-1] == "cases: 0 of 8 come out otherwise"


def test_findings_added_removed_and_changed_are_named():
    changed = content()
    changed["findings"][0]["description"] = "A solid tumour is described."
    changed["findings"][1]["values"]["none"] = "No contact."
    changed["findings"][2]["number"]["maximum"] = 40
    changed["findings"][3]["not_stated"]["why"] = "Because."
    changed["findings"].append({"name": "vein", "description": "x", "values": {"a": "a", "b": "b"},
                                "not_stated": {"why": "x"}})  # fmt: skip
    assert told(diff_with(changed)) == {
        "finding vein": "added",
        "finding tumor": "description: 'A tumour is described.' -> 'A solid tumour is described.'",
        "finding contact": "described anew: none",
        "finding size": "number: unit='cm' minimum=0.1 maximum=30.0 -> unit='cm' minimum=0.1 maximum=40.0",
        "finding nodes": "silence: why: 'Unknown.' -> 'Because.'",
    }
    assert told(diff_plans(Plan.model_validate(changed), PLAN))["finding vein"] == "removed"


def test_rules_added_removed_changed_and_moved_are_named():
    changed = content()
    rule_in(changed, "small")["when"] = {"finding": "size", "below": 2}
    rule_in(changed, "medium")["outcome"] = "resectable"
    changed["rules"].append({**rule_in(changed, "small"), "id": "tiny"})
    changed["rules"].remove(rule_in(changed, "large"))
    changed["rules"].insert(0, changed["rules"].pop(1))
    diff = told(diff_with(changed))
    assert diff["rule tiny"] == "added"
    assert diff["rule large"] == "removed"
    assert diff["rule small"] == "condition: size is at most 2 cm -> size is below 2 cm"
    assert diff["rule medium"] == "outcome: borderline -> resectable"
    moved = {what: how for what, how in diff.items() if how.startswith("moved")}
    assert moved in ({"rule encased": "moved, now first"}, {"rule no_tumor": "moved, now after rule encased"})


def test_prompts_are_shown_as_a_diff_and_labels_options_and_profile_are_named():
    changed = content()
    changed["subtasks"][0]["prompt"]["instructed"] += "\nRead twice."
    changed["subtasks"][0]["labels"]["no"] = "none"
    changed["options"][0]["setting"] = "ignored"
    changed["profile"]["context"] = "focused"
    changed["profile"]["head"]["instructed"] = "Read."
    diff = diff_with(changed)
    assert told(diff)["option nodes"] == "setting: 'count' -> 'ignored'"
    assert told(diff)["profile"] == "context: 'full' -> 'focused'"
    assert told(diff)["subtask tumor"] == "labels changed"
    prompts = {change.what: change.lines for change in diff.changes if change.lines}
    assert "+Read twice." in prompts["subtask tumor"]
    assert prompts["profile, head"][-2:] == ("-Read the report.", "+Read.")
    assert "    +Read twice." in diff.lines()


def test_decisions_that_differ_are_counted_exactly_and_shown_by_an_example():
    changed = content()
    rule_in(changed, "small")["when"] = {"finding": "size", "below": 2}
    rule_in(changed, "abuts")["outcome"] = "advanced"
    after = Plan.model_validate(changed)
    diff = diff_plans(PLAN, after, sound_cases(PLAN))
    # Brute force over one value for each stretch between bounds.
    values = {"tumor": ("yes", "no"), "contact": ("none", "<=180", ">180"), "size": (1.0, 2.0, 3.0, 4.0, 5.0),
              "nodes": (0, 1, 2, 3, 5)}  # fmt: skip
    expected: dict[tuple[str, str], int] = {}
    for combination in product(*values.values()):
        known = dict(zip(values, combination, strict=True))
        first, second = (plan.decision_table.decide(known).outcome or NO_OUTCOME for plan in (PLAN, after))
        if first != second:
            expected[(first, second)] = expected.get((first, second), 0) + 1
    assert {(one.before, one.after): one.combinations for one in diff.decisions} == expected
    assert ("resectable", NO_OUTCOME) in expected
    for one in diff.decisions:
        verdicts = [plan.decision_table.decide(one.example) for plan in (PLAN, after)]
        assert tuple(verdict.outcome or NO_OUTCOME for verdict in verdicts) == (one.before, one.after)
    before = {case.case: case.before for case in diff.cases}
    everything = "not_staged or advanced or borderline or resectable"
    assert before == {"abutting": "borderline", "small": "resectable", "open": everything}
    assert {case.case: case.after for case in diff.cases} == {
        "abutting": "advanced",
        "small": NO_OUTCOME,
        "open": f"{everything} or {NO_OUTCOME}",
    }
    assert "    abutting: borderline -> advanced" in diff.lines()


def test_a_setting_of_an_option_changes_decisions():
    changed = content()
    changed["options"][0]["setting"] = "ignored"
    pairs = {(one.before, one.after) for one in diff_with(changed).decisions}
    assert pairs == {("advanced", "borderline"), ("advanced", "resectable")}


def test_values_that_one_plan_does_not_know_are_not_compared():
    changed = content()
    finding = changed["findings"][1]["values"]
    finding["occluded"] = "Occluded."
    changed["subtasks"][1]["labels"]["occluded"] = "occluded"
    rule_in(changed, "encased")["when"] = {"finding": "contact", "in": [">180", "occluded"]}
    diff = diff_with(changed)
    assert told(diff)["finding contact"] == "values added: occluded"
    assert diff.decisions == ()


def test_a_finding_that_turned_from_closed_to_number_is_said_to_be_incomparable():
    changed = content()
    changed["findings"][2] |= {"values": {"big": "Large.", "little": "Small."}, "number": None}
    changed["subtasks"][2] |= {"answer": "choice", "labels": {v: v for v in ("big", "little", "not_stated")}}
    for rule_id, value in (("large", "big"), ("medium", "big"), ("small", "little")):
        rule_in(changed, rule_id)["when"] = {"finding": "size", "is": value}
    diff = diff_with(changed, sound_cases(PLAN))
    assert diff.decisions is None
    assert not diff.same
    assert "finding 'size' has no value that both plans know" in "\n".join(diff.lines())
    assert ("large", "borderline", "does not fit") in {(case.case, case.before, case.after) for case in diff.cases}
