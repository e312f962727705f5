"""The proof of a plan: every planted fault is found and named, a sound plan has none."""

from __future__ import annotations

from itertools import product

import pytest
from cloud.sound_plan import GUIDELINE, case, cited, content, rule, rule_in, sound_cases, sound_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import domains, first_rule, rule_lists, values_of

from medorchestra.cloud.guideline import read_guideline
from medorchestra.cloud.proof.proof import ProblemKind, ProofSettings, prove
from medorchestra.cloud.proof.rules import ProofOfList, RuleList
from medorchestra.decision_diagram import DecisionTable
from medorchestra.plan import Plan
from medorchestra.plan_files import read_plan
from medorchestra.rules import NOT_STATED, evaluate
from medorchestra.synthetic import read_cases
from medorchestra.topics import guideline_folder


def proof_of(changed, cases=None, **limits):
    plan = Plan.model_validate(changed)
    return prove(
        plan, GUIDELINE, None if cases is None else cases(plan), settings=ProofSettings(**{"sampled": 100} | limits)
    )


def only_problem(proof, kind):
    """The one problem of the proof, which must be of this kind."""
    assert [problem.kind for problem in proof.problems] == [kind], proof.lines()
    return proof.problems[0]


def of_kind(proof, kind):
    return [problem for problem in proof.problems if problem.kind is kind]


# -------------------------------------------------------------------- sound plans


def test_a_sound_plan_with_its_cases_proves_clean_and_says_how_much_was_checked():
    proof = prove(sound_plan(), GUIDELINE, sound_cases(sound_plan()))
    assert proof.holds, proof.lines()
    assert proof.counts["rules"] == 10
    assert proof.counts["decisions"] == 2
    assert proof.counts["option settings"] == 2
    sizes = 5  # below 2, 2, between, 4, above
    nodes = 5  # 0, 1, 2, 3, more: nothing lies between 0 and 1
    assert proof.counts["combinations"] == 2 * (2 * 3 * sizes * nodes + nodes)
    assert proof.counts["citations"] == 14
    assert proof.counts["cases"] == 8
    assert proof.lines()[0].endswith("holds")


def test_the_shipped_plan_proves_clean():
    plan = read_plan("pancreatic_cancer")
    guideline = read_guideline(guideline_folder("pancreatic_cancer") / "guideline.md")
    proof = prove(plan, guideline, read_cases("pancreatic_cancer"))
    assert proof.problems == ()
    assert proof.counts["combinations"] > 1_000_000


# -------------------------------------------------------------------------- rules


def test_a_rule_whose_condition_can_never_hold_is_found():
    changed = content()
    rule_in(changed, "medium")["when"] = {"all": [{"finding": "size", "above": 2}, {"finding": "size", "at_most": 2}]}
    problems = of_kind(proof_of(changed), ProblemKind.NEVER_HOLDS)
    assert [str(problem) for problem in problems] == [
        "rule medium: no combination of findings fulfils its condition [never_holds]"
    ]


def test_a_shadowed_rule_is_told_with_the_rules_that_shadow_it_and_a_combination():
    changed = content()
    either = {"all": [{"finding": "tumor", "is": "yes"}, {"finding": "contact", "in": ["<=180", ">180"]}]}
    changed["rules"].insert(4, rule("touching", either, "borderline", "3.2"))
    problem = only_problem(proof_of(changed), ProblemKind.SHADOWED)
    assert problem.where == "rule touching"
    assert "(encased, many_nodes, abuts)" in problem.message
    assert "tumor=yes, contact=>180: taken by rule encased" in problem.message


def test_a_rule_that_is_shadowed_only_in_part_is_no_fault():
    changed = content()
    changed["rules"].insert(4, rule("any_size", {"finding": "contact", "in": ["none", "<=180"]}, "borderline", "3.2"))
    shadowed = of_kind(proof_of(changed), ProblemKind.SHADOWED)
    assert [problem.where for problem in shadowed] == ["rule large", "rule medium", "rule small"]


def test_contradictory_rules_are_told_with_both_outcomes():
    changed = content()
    again = {"not": {"not": {"finding": "contact", "is": ">180"}}}
    changed["rules"].insert(2, rule("encased_again", again, "borderline", "3.1"))
    problem = only_problem(proof_of(changed), ProblemKind.CONTRADICTORY)
    assert problem.where == "rule encased_again"
    assert "the condition of rule encased and another outcome: contact=>180" in problem.message
    assert "advanced by rule encased, borderline by this one" in problem.message


def test_a_rule_of_a_part_that_never_decides_is_found():
    changed = content()
    rule_in(changed, "n2")["when"] = {"finding": "nodes", "at_least": 1, "at_most": 2}
    found = proof_of(changed)
    assert [problem.where for problem in of_kind(found, ProblemKind.SHADOWED)] == ["rule n2"]
    assert "part n, outcome N2" in {p.where for p in of_kind(found, ProblemKind.UNREACHABLE_OUTCOME)}


def test_a_rule_that_an_option_switches_off_by_default_is_no_fault():
    changed = content()
    changed["options"][0]["setting"] = "ignored"
    assert proof_of(changed).holds


def test_an_outcome_that_no_rule_gives_is_found():
    changed = content()
    changed["outcomes"].append({"name": "unheard_of", "description": "x"})
    assert (
        only_problem(proof_of(changed), ProblemKind.UNREACHABLE_OUTCOME).where == "final decision, outcome unheard_of"
    )


def test_a_flag_that_can_never_rise_is_found():
    changed = content()
    changed["flags"][0]["when"]["all"].append({"finding": "tumor", "is": "yes"})
    assert only_problem(proof_of(changed), ProblemKind.NEVER_HOLDS).where == "flag contact_without_tumor"


def test_a_gap_is_told_by_the_findings_that_matter():
    changed = content()
    rule_in(changed, "abuts")["when"] = {
        "all": [{"finding": "contact", "is": "<=180"}, {"finding": "size", "at_most": 2}]
    }
    rule_in(changed, "large")["when"]["all"] = [
        {"finding": "size", "above": rule_in(changed, "large")["when"].pop("above")},
        {"not": {"finding": "contact", "is": "<=180"}},
    ]
    del rule_in(changed, "large")["when"]["finding"]
    gaps = of_kind(proof_of(changed), ProblemKind.GAP)
    assert [str(gap) for gap in gaps] == [
        "final decision: tumor=yes, contact=<=180, nodes=0|1|2|3, size=5: no rule holds [gap]"
    ]


def test_a_number_that_no_rule_takes_is_named():
    changed = content()
    rule_in(changed, "small")["when"] = {"finding": "size", "below": 2}
    gaps = of_kind(proof_of(changed), ProblemKind.GAP)
    assert "size=2:" in gaps[0].message


def test_a_gap_that_only_another_setting_of_an_option_opens_is_found_and_the_setting_named():
    changed = content()
    rule_in(changed, "small")["when"] = {"all": [{"finding": "size", "at_most": 2}, {"option": "nodes", "is": "count"}]}
    gaps = of_kind(proof_of(changed), ProblemKind.GAP)
    assert [gap.message for gap in gaps] == ["tumor=yes, contact=none, size=1|2: no rule holds (with nodes=ignored)"]


def test_counts_have_no_gap_between_whole_numbers_and_none_beyond_their_range():
    changed = content()
    rule_in(changed, "n2")["when"] = {"finding": "nodes", "at_least": 4}
    assert proof_of(changed).holds


def test_a_gap_in_a_part_is_found():
    changed = content()
    rule_in(changed, "n1")["when"]["at_most"] = 2
    found = proof_of(changed)
    gaps = of_kind(found, ProblemKind.GAP)
    assert [str(gap) for gap in gaps] == ["part n: nodes=3: no rule holds [gap]"]


def test_a_gap_that_is_declared_on_purpose_is_no_fault():
    changed = content()
    rule_in(changed, "small")["when"] = {"finding": "size", "below": 2}
    changed["undecidable"] = [{"when": {"finding": "size", "at_least": 2, "at_most": 2}, "why": "Between two rows."}]
    assert not of_kind(proof_of(changed), ProblemKind.GAP)
    assert not of_kind(proof_of(changed), ProblemKind.DECIDED)


def test_what_is_declared_undecidable_but_decided_is_found_with_the_rule_that_decides_it():
    changed = content()
    changed["undecidable"] = [{"when": {"finding": "contact", "is": ">180"}, "why": "Claimed."}]
    problem = only_problem(proof_of(changed), ProblemKind.DECIDED)
    assert problem.where == "undecidable 1"
    assert "by rule" in problem.message
    assert "contact=>180" in problem.message


def test_compiled_rules_that_allow_too_little_are_found_by_trying_every_completion(monkeypatch):
    honest = DecisionTable.decide

    def credulous(self, known):
        """Takes silence on contact for none."""
        silent = known.get("contact") == NOT_STATED
        return honest(self, {**known, "contact": "none"} if silent else known)

    monkeypatch.setattr(DecisionTable, "decide", credulous)
    problems = of_kind(proof_of(content()), ProblemKind.WRONG_POSSIBILITIES)
    assert problems
    assert "completions are decided by" in problems[0].message


@st.composite
def tables(draw):
    table = draw(domains())
    return table, draw(rule_lists(table))


@given(tables())
@settings(max_examples=60)
def test_reachability_shadowing_and_gaps_agree_with_brute_force(example):
    table, rules = example
    names = [domain.finding for domain in table]
    truths = [dict(zip(names, values, strict=True)) for values in product(*map(values_of, table))]
    outcomes = tuple(dict.fromkeys(one.outcome for one in rules))
    proof = ProofOfList(RuleList("final decision", rules, outcomes), table, [{}])
    expected = {}
    for i, one in enumerate(rules):
        holding = [truth for truth in truths if evaluate(one.when, truth) is True]
        takers = {first.rule: first for truth in holding if (first := first_rule(rules, truth)) is not None}
        if one.rule in takers:
            continue
        same = any(
            earlier.outcome != one.outcome
            and all(evaluate(one.when, truth) == evaluate(earlier.when, truth) for truth in truths)
            for earlier in takers.values()
        )
        kind = ProblemKind.CONTRADICTORY if same else ProblemKind.SHADOWED if takers else ProblemKind.NEVER_HOLDS
        expected[f"rule {one.rule}"] = (kind, [earlier.rule for earlier in rules[:i] if earlier.rule in takers])
    found = {problem.where: problem for problem in proof.unreachable() if problem.where.startswith("rule ")}
    assert {where: problem.kind for where, problem in found.items()} == {w: kind for w, (kind, _) in expected.items()}
    for where, problem in found.items():
        if problem.kind is ProblemKind.SHADOWED:
            assert f"({', '.join(expected[where][1])})" in problem.message
    assert bool(proof.gaps(5)) == any(first_rule(rules, truth) is None for truth in truths)


# -------------------------------------------------------- guideline, bounds, prompts


def test_a_false_citation_is_found_and_where_its_words_really_stand():
    changed = content()
    rule_in(changed, "small")["citation"] = cited("2.2", "A tumour of 2 cm or less is resectable.")
    rule_in(changed, "no_tumor")["citation"] = cited("1.1", "A report without any tumour is not staged.")
    rule_in(changed, "abuts")["citation"] = cited("9.9", "Contact")
    found = {problem.where: problem.message for problem in of_kind(proof_of(changed), ProblemKind.CITATION)}
    assert found["rule small"].endswith("is not in section 2.2, but in 2.1")
    assert found["rule no_tumor"].endswith("is not in section 1.1, word for word")
    assert found["rule abuts"].endswith("the guideline has no section 9.9")


def test_a_plan_made_from_another_text_is_found():
    changed = content()
    changed["guideline"]["digest"] = "sha256:" + "b" * 64
    assert "made from sha256:bbb" in only_problem(proof_of(changed), ProblemKind.GUIDELINE).message


def test_a_rule_on_the_wrong_side_of_a_degree_boundary_is_found():
    changed = content()
    rule_in(changed, "encased")["when"]["is"] = "<=180"
    rule_in(changed, "abuts")["when"]["is"] = ">180"
    found = {problem.where: problem.message for problem in of_kind(proof_of(changed), ProblemKind.BOUNDARY)}
    assert set(found) == {"rule encased", "rule abuts"}
    assert found["rule abuts"] == "asks contact above 180 degrees, but section 3.2 says: at most 180 degrees"


def test_a_degree_value_whose_description_puts_180_on_the_other_side_is_found():
    changed = content()
    changed["findings"][1]["values"][">180"] = "180 degrees or more."
    found = {str(problem) for problem in of_kind(proof_of(changed), ProblemKind.BOUNDARY)}
    assert found == {
        "finding contact, value >180: its name says above 180, but it is described as at least 180 degrees [boundary]"
    }


def test_values_that_both_or_neither_take_in_the_boundary_are_found():
    changed = content()
    values = changed["findings"][1]["values"]
    changed["findings"][1]["values"] = {"none": "None.", "low": "180 degrees or less.", "high": "180 degrees or more."}
    labels = changed["subtasks"][1]["labels"]
    changed["subtasks"][1]["labels"] = {
        {"<=180": "low", ">180": "high"}.get(value, value): label for value, label in labels.items()
    }
    changed["subtasks"][1]["examples"] = []
    assert set(values) == {"none", "<=180", ">180"}
    for rule_id, value in (("encased", "high"), ("abuts", "low")):
        rule_in(changed, rule_id)["when"]["is"] = value
    changed["flags"] = []
    assert "180 belongs to two values" in only_problem(proof_of(changed), ProblemKind.BOUNDARY).message
    changed["findings"][1]["values"] |= {"low": "Less than 180 degrees.", "high": "More than 180 degrees."}
    assert "180 belongs to no value" in only_problem(proof_of(changed), ProblemKind.BOUNDARY).message


def test_a_label_that_contradicts_the_name_of_its_value_is_found():
    changed = content()
    changed["subtasks"][1]["labels"]["<=180"] = "less than 180 degrees"
    assert "labelled as below 180 degrees" in only_problem(proof_of(changed), ProblemKind.BOUNDARY).message


def test_a_number_bound_that_takes_in_what_the_guideline_leaves_out_is_found():
    changed = content()
    rule_in(changed, "small")["when"] = {"finding": "size", "below": 2}
    rule_in(changed, "medium")["when"] = {"finding": "size", "at_least": 2, "at_most": 4}
    found = {problem.where: problem.message for problem in proof_of(changed).problems}
    assert found == {
        "rule small": "asks size below 2 cm, but section 2.1 says: at most 2 cm",
        "rule medium": "asks size at least 2 cm, but section 2.2 says: above 2 cm, at most 4 cm",
    }


def test_a_number_bound_that_the_quote_does_not_name_is_found():
    changed = content()
    rule_in(changed, "large")["when"]["above"] = 3
    rule_in(changed, "medium")["when"]["at_most"] = 3
    found = {problem.where: problem.message for problem in proof_of(changed).problems}
    assert found["rule large"].startswith("asks size above 3 cm, a bound that its quote does not name")
    assert "rule medium" in found


def test_a_quote_cut_short_is_read_with_its_sentence():
    changed = content()
    rule_in(changed, "small")["citation"]["quote"] = "A tumour of"
    rule_in(changed, "small")["when"] = {"finding": "size", "below": 2}
    boundary = of_kind(proof_of(changed), ProblemKind.BOUNDARY)
    assert [problem.where for problem in boundary] == ["rule small"]


def test_a_question_that_is_too_long_is_found():
    changed = content()
    changed["subtasks"][0]["prompt"]["instructed"] = "word " * 300
    problem = only_problem(proof_of(changed, longest_question=1_000), ProblemKind.PROMPT)
    assert problem.message == "instructed form renders to 1500 characters; at most 1000 are allowed"


@pytest.mark.parametrize(
    ("label", "says"),
    [("No contact.", "are the same but for case"), ("no contact at all", "is the beginning of the label of <=180")],
)
def test_labels_that_cannot_be_told_apart_are_found(label, says):
    changed = content()
    changed["subtasks"][1]["labels"]["<=180"] = label
    assert says in only_problem(proof_of(changed), ProblemKind.LABEL).message


def test_no_is_not_the_beginning_of_not_stated():
    assert not of_kind(proof_of(content()), ProblemKind.LABEL)


# -------------------------------------------------------------------------- cases


def without(*ids):
    return lambda plan: [one for one in sound_cases(plan) if one.id not in ids]


def test_an_outcome_a_rule_and_a_value_without_a_case_are_found():
    found = {(p.kind, p.where) for p in proof_of(content(), without("none")).problems}
    assert found == {
        (ProblemKind.UNCOVERED_OUTCOME, "outcome not_staged"),
        (ProblemKind.UNCOVERED_RULE, "rule no_tumor"),
        (ProblemKind.UNCOVERED_VALUE, "finding tumor, value no"),
    }


def test_an_outcome_and_a_rule_of_a_part_without_a_case_are_found():
    found = {(p.kind, p.where) for p in proof_of(content(), without("nodal")).problems}
    assert (ProblemKind.UNCOVERED_OUTCOME, "part n, outcome N2") in found
    assert (ProblemKind.UNCOVERED_RULE, "rule n2") in found


def test_boundaries_that_no_case_lies_on_are_found():
    found = of_kind(proof_of(content(), without("small", "abutting")), ProblemKind.UNCOVERED_BOUNDARY)
    assert {problem.where for problem in found} == {
        "finding size, 2",
        "finding nodes, 1",
        "finding contact, value <=180",
    }


def test_more_cases_can_be_asked_for():
    proof = proof_of(content(), sound_cases, minimum_cases=2)
    assert ("rule no_tumor", "1 cases are decided by it, 2 wanted") in {(p.where, p.message) for p in proof.problems}
    assert proof.uncovered == proof.problems


def test_a_case_that_expects_what_its_findings_do_not_lead_to_is_found():
    def cases(plan):
        good = sound_cases(plan)
        return [*good, good[0].model_copy(update={"id": "wrong", "outcome": "advanced"})]

    problem = only_problem(proof_of(content(), cases), ProblemKind.CASE)
    assert problem.where == "case wrong"
    assert "expects advanced" in problem.message


def test_a_text_in_two_splits_and_an_id_that_is_there_twice_are_found():
    def cases(plan):
        good = sound_cases(plan)
        return [
            *good,
            good[0].model_copy(update={"id": "twin", "split": "held_out", "text": good[0].text.upper() + "\n"}),
            good[1].model_copy(update={"text": "Another."}),
        ]

    found = {problem.where: problem.message for problem in of_kind(proof_of(content(), cases), ProblemKind.SPLIT)}
    assert found == {
        "case twin": "has the text of case small; one is in development, the other in held_out",
        "case abutting": "this id is there 2 times",
    }


@pytest.mark.parametrize(
    ("example", "says"),
    [
        ({"case": "nowhere", "text": "x", "value": "none"}, "there is no such case"),
        ({"case": "encasing", "text": "270 degrees", "value": ">180"}, "the case is in held_out"),
        ({"case": "small", "text": "artery not free", "value": "none"}, "not in the case, word for word"),
        ({"case": "small", "text": "artery free", "value": ">180"}, "it shows >180, the case expects none"),
    ],
)
def test_an_example_that_leaks_or_is_wrong_is_found(example, says):
    changed = content()
    changed["subtasks"][1]["examples"] = [example]
    problem = only_problem(proof_of(changed, sound_cases), ProblemKind.EXAMPLE)
    assert says in problem.message


def test_an_example_whose_words_stand_in_a_held_out_case_too_is_found():
    def cases(plan):
        text = "Seen before: The tumour lies on the artery over 180 degrees exactly, no more."
        return [*sound_cases(plan), case(plan, "copy", text, "held_out", tumor="yes", contact="<=180")]

    assert (
        "stands in case copy of held_out too" in only_problem(proof_of(content(), cases), ProblemKind.EXAMPLE).message
    )


def test_messages_hold_no_text_of_a_case():
    def cases(plan):
        return [one.model_copy(update={"outcome": "advanced", "rule": None}) for one in sound_cases(plan)]

    lines = "\n".join(proof_of(content(), cases).lines())
    assert "expects advanced" in lines
    assert not any(one.text in lines for one in sound_cases(sound_plan()))
