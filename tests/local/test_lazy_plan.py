"""Which findings still matter, and in which rounds they are asked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lazy_answers import values_of
from random_plans import plans
from small_batch import CITATION, CONTENT, PLAN, plan_with

from medorchestra.local.lazy_plan import LazyPlan, imagined_cases
from medorchestra.plan_files import read_plan
from medorchestra.rules import NOT_STATED

PANCREAS = read_plan("pancreatic_cancer")


def flagged(when):
    return plan_with(flags=[{"id": "look", "kind": "caution", "when": when, "message": "Look."}])


@pytest.mark.parametrize(
    ("answered", "matters"),
    [
        ({}, {"sma_contact", "liver_mets"}),
        ({"liver_mets": "yes"}, set()),
        ({"liver_mets": "no"}, {"sma_contact"}),
        ({"liver_mets": None}, {"sma_contact"}),
        ({"liver_mets": NOT_STATED}, {"sma_contact"}),
        ({"sma_contact": ">180"}, {"liver_mets"}),
        ({"liver_mets": "no", "sma_contact": None}, set()),
    ],
)
def test_a_finding_matters_while_an_answer_to_it_could_change_the_outcome(answered, matters):
    assert LazyPlan(PLAN).matters(answered) == matters


def test_a_number_that_no_rule_looks_at_never_matters():
    lazy = LazyPlan(PLAN)
    assert lazy.readable - lazy.decisive == {"size_cm"}


def test_a_flag_that_could_still_be_raised_keeps_its_findings_in_play():
    lazy = LazyPlan(
        flagged({"all": [{"finding": "liver_mets", "is": "yes"}, {"finding": "sma_contact", "is": "none"}]})
    )
    assert lazy.matters({"liver_mets": "yes"}) == {"sma_contact"}
    assert lazy.matters({"liver_mets": "yes", "sma_contact": None}) == set()


@pytest.mark.parametrize("value", [NOT_STATED, None])
def test_a_flag_that_an_unread_or_silent_finding_rules_out_asks_nothing_more(value):
    lazy = LazyPlan(flagged({"all": [{"finding": "liver_mets", "is": "yes"}, {"finding": "size_cm", "above": 4}]}))
    assert lazy.matters({"liver_mets": value, "sma_contact": "none"}) == set()


def test_a_part_of_the_decision_keeps_its_findings_in_play():
    part = {
        "name": "t",
        "title": "Tumour",
        "outcomes": [{"name": "t1", "description": "Small."}, {"name": "t2", "description": "Large."}],
        "rules": [
            {"id": "large", "when": {"finding": "size_cm", "above": 2}, "outcome": "t2", "citation": CITATION},
            {"id": "small", "when": {"finding": "size_cm", "at_most": 2}, "outcome": "t1", "citation": CITATION},
        ],
    }
    assert LazyPlan(plan_with(parts=[part])).matters({"liver_mets": "yes"}) == {"size_cm"}


def test_another_rule_of_the_same_outcome_matters_because_the_decision_cites_its_rule():
    rules = [
        {"id": "first", "when": {"finding": "liver_mets", "is": "yes"}, "outcome": "metastatic"},
        {"id": "second", "when": {"finding": "sma_contact", "is": ">180"}, "outcome": "metastatic"},
    ]
    lazy = LazyPlan(plan_with(rules=[*(rule | {"citation": CITATION} for rule in rules), CONTENT["rules"][2]]))
    assert lazy.matters({"sma_contact": ">180"}) == {"liver_mets"}
    assert lazy.matters({"liver_mets": "yes"}) == set()


@given(plans(), st.data())
def test_what_does_not_matter_changes_nothing_whatever_it_says(plan, data):
    lazy = LazyPlan(plan)
    answered = {}
    for name in data.draw(st.lists(st.sampled_from(sorted(lazy.readable)), max_size=4, unique=True)):
        answered[name] = data.draw(st.sampled_from([*values_of(plan, name), None]))
    vain = lazy.readable - answered.keys() - lazy.matters(answered)
    before = plan.decision_table.decide(answered)
    for name in vain:
        for value in (*values_of(plan, name), None):
            assert plan.decision_table.decide(answered | {name: value}) == before


# ------------------------------------------------------------------------ rounds


@settings(max_examples=20)
@given(plans())
def test_every_finding_stands_in_one_round_and_rounds_are_never_expected_to_cost_more_than_one(plan):
    lazy = LazyPlan(plan)
    rounds = lazy.rounds
    names = [name for group in rounds.findings for name in group]
    assert sorted(names) == sorted(lazy.readable)
    assert rounds.cost <= rounds.cost_of_all + 1e-9


def test_a_finding_that_settles_most_cases_is_asked_before_a_costly_one():
    metastatic = [{"liver_mets": "yes", "sma_contact": "none"}] * 9 + [{"liver_mets": "no", "sma_contact": "none"}]
    costs = {"liver_mets": 1.0, "sma_contact": 30.0, "size_cm": 1.0}
    lazy = LazyPlan(PLAN, costs=costs, cases=metastatic)
    assert lazy.rounds.findings == ({"liver_mets"}, {"sma_contact"}, {"size_cm"})
    # One round with one question in nine cases; in the tenth a second one. A round costs what a question does.
    per_round = 32 / 3
    assert lazy.rounds.cost == pytest.approx(0.9 * (1 + per_round) + 0.1 * (31 + 2 * per_round))


def test_where_hardly_any_case_is_settled_early_everything_that_matters_is_asked_at_once():
    clear = [{"liver_mets": "no", "sma_contact": "none"}] * 10
    assert LazyPlan(PLAN, cases=clear).rounds.findings == ({"liver_mets", "sma_contact"}, {"size_cm"})


def test_imagined_cases_are_the_same_every_time_and_every_outcome_is_equally_frequent():
    cases = imagined_cases(PANCREAS, 50)
    assert cases == imagined_cases(PANCREAS, 50)
    outcomes = [PANCREAS.decision_table.decide(case).outcome for case in cases]
    assert {outcome: outcomes.count(outcome) for outcome in set(outcomes)} == {
        outcome.name: 10 for outcome in PANCREAS.outcomes
    }


def test_the_rounds_of_the_first_topic_cost_clearly_less_than_asking_everything():
    rounds = LazyPlan(PANCREAS).rounds
    assert len(rounds.findings) >= 3
    assert rounds.cost < 0.85 * rounds.cost_of_all


def test_the_facts_for_run_json_name_rounds_and_what_the_expectation_rests_on():
    facts = LazyPlan(PLAN).facts()
    assert sorted(name for names in facts["rounds"] for name in names) == ["liver_mets", "size_cm", "sma_contact"]
    assert facts["expected_over"] == "imagined cases"
    assert facts["expected_cost"] < facts["cost_of_all"]
