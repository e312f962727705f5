"""The compiled rules against brute force over every completion, on random tables."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import completions, domains, first_rule, knowledge, read_silences, rule_lists, values_of

from medorchestra import diagram_building
from medorchestra.decision_diagram import DecisionTable
from medorchestra.errors import RuleError
from medorchestra.rules import (
    NOT_STATED,
    AllOf,
    AnyOf,
    Bounds,
    DecisionRule,
    Domain,
    In,
    Is,
    Not,
    OptionIs,
    PartIn,
    Silence,
    expand_parts,
)


@st.composite
def tables(draw: st.DrawFn):
    """Domains, rules and what is known."""
    table = draw(domains())
    return table, draw(rule_lists(table)), draw(knowledge(table))


@given(tables())
def test_possible_outcomes_agree_with_brute_force(example):
    table, rules, known = example
    verdict = DecisionTable(rules, table).decide(known)
    decided_by = {first_rule(rules, truth) for truth in completions(table, known)}
    outcomes = {rule.outcome for rule in decided_by if rule}
    assert set(verdict.possible) == outcomes
    assert verdict.gap == (None in decided_by)
    assert set(verdict.possible_rules) == {rule.rule for rule in decided_by if rule}
    certain = len(outcomes) == 1 and None not in decided_by
    assert verdict.outcome == (next(iter(outcomes)) if certain else None)


@given(tables())
def test_missing_findings_settle_the_outcome_and_none_of_them_is_named_in_vain(example):
    table, rules, known = example
    verdict = DecisionTable(rules, table).decide(known)
    if verdict.outcome is not None:
        assert verdict.missing == ()
        return
    assert settled_by(rules, table, known, verdict.missing)
    if any(domain.silence.if_stated for domain in table):
        return  # naming one finding more is right there: stating it alone is no truth about the other
    for name in verdict.missing:
        others = tuple(other for other in verdict.missing if other != name)
        assert not settled_by(rules, table, known, others)


def settled_by(rules, table, known, names):
    """Whether stating these findings would leave one outcome, whatever they say."""
    of_name = {domain.finding: domain for domain in table}
    return all(
        len({rule and rule.outcome for rule in ends_of(rules, table, known | dict(zip(names, said, strict=True)))}) == 1
        for said in product(*(values_of(of_name[name]) for name in names))
    )


def ends_of(rules, table, known):
    """The rules that decide some truth; None among them where none does."""
    return [first_rule(rules, truth) for truth in completions(table, known)]


@given(tables(), st.data())
def test_stating_an_unknown_finding_never_enlarges_what_is_possible(example, data):
    table, rules, known = example
    unknown = [domain for domain in table if known[domain.finding] is None]
    if not unknown:
        return
    domain = data.draw(st.sampled_from(unknown))
    stated = known | {domain.finding: data.draw(st.sampled_from(values_of(domain)))}
    compiled = DecisionTable(rules, table)
    before, after = compiled.decide(known), compiled.decide(stated)
    assert set(after.possible) <= set(before.possible)
    assert after.gap <= before.gap


@given(tables(), st.randoms())
def test_the_order_of_the_findings_does_not_matter(example, random):
    table, rules, known = example
    shuffled = list(table)
    random.shuffle(shuffled)
    names = list(known)
    random.shuffle(names)
    first = DecisionTable(rules, table).decide(known)
    second = DecisionTable(rules, shuffled).decide({name: known[name] for name in names})
    assert (first.outcome, first.possible, first.rule, first.gap) == (
        second.outcome,
        second.possible,
        second.rule,
        second.gap,
    )
    assert set(first.missing) == set(second.missing)


@st.composite
def distributed_tables(draw: st.DrawFn):
    """Rules over closed findings with a random distribution for each (some left out: unknown)."""
    table = tuple(domain for domain in draw(domains()) if domain.values is not None)
    rules = draw(rule_lists(table))
    distributions = {}
    for domain in table:
        if draw(st.integers(0, 4)) == 0:
            continue
        values = [*domain.values, NOT_STATED]
        weights = draw(st.lists(st.integers(0, 9), min_size=len(values), max_size=len(values)).filter(any))
        distributions[domain.finding] = {v: w / sum(weights) for v, w in zip(values, weights, strict=True)}
    return table, rules, distributions


def weighted_truths(table, known):
    """Readings of a complete report; behind silence every truth weighs the same (uniform prior)."""
    silent = [domain for domain in table if known[domain.finding] == NOT_STATED]
    for combination in product(*(domain.values for domain in silent)):
        truth = known | {domain.finding: value for domain, value in zip(silent, combination, strict=True)}
        yield read_silences(table, truth, {d.finding for d in silent}), 1 / math.prod(len(d.values) for d in silent)


@given(distributed_tables())
def test_probabilities_agree_with_summing_over_every_combination(example):
    table, rules, distributions = example
    found = DecisionTable(rules, table).probabilities(distributions)
    expected: dict[str | None, float] = {}

    def go(rest, known, weight):
        if weight == 0.0:
            return
        if not rest:
            for truth, share in weighted_truths(table, known):
                rule = first_rule(rules, truth)
                name = rule.rule if rule else None
                expected[name] = expected.get(name, 0.0) + weight * share
            return
        domain, *others = rest
        options = distributions.get(domain.finding) or {v: 1 / len(domain.values) for v in domain.values}
        for value, chance in options.items():
            go(others, known | {domain.finding: value}, weight * chance)

    go(list(table), {}, 1.0)
    for rule in rules:
        assert math.isclose(found.rules[rule.rule], expected.get(rule.rule, 0.0), abs_tol=1e-9)
    assert math.isclose(found.no_rule, expected.get(None, 0.0), abs_tol=1e-9)


@given(distributed_tables(), st.data())
def test_whatever_unasked_findings_say_probabilities_stay_within_their_bounds(example, data):
    domains_, rules, distributions = example
    table = DecisionTable(rules, domains_)
    unasked = data.draw(st.lists(st.sampled_from([domain.finding for domain in domains_]), unique=True))
    asked = {name: chances for name, chances in distributions.items() if name not in unasked}
    bounds = table.probability_bounds(asked, unasked)
    found = table.probabilities(distributions).outcomes
    chances = table.chances_to_matter(asked, unasked)
    for outcome, probability in found.items():
        low, high = bounds[outcome]
        assert low - 1e-9 <= probability <= high + 1e-9
        # What is open is no more than the chance that an unasked finding is looked at.
        assert high - low <= sum(chances.values()) + 1e-9
    assert set(chances) <= set(unasked)


def test_bounds_are_as_wide_as_what_the_unasked_finding_decides():
    rules = [
        DecisionRule("spread", "comfort", Is(finding="liver", **{"is": "yes"})),
        DecisionRule("clear", "cure", Is(finding="artery", **{"is": "free"})),
        DecisionRule("encased", "control", Is(finding="artery", **{"is": "encased"})),
    ]
    table = DecisionTable(rules, [Domain("liver", ("yes", "no")), Domain("artery", ("free", "encased"))])
    liver = {"liver": {"yes": 0.9, "no": 0.1}}
    assert table.probability_bounds(liver, ["artery"]) == {
        "comfort": (pytest.approx(0.9), pytest.approx(0.9)),
        "cure": (0.0, pytest.approx(0.1)),
        "control": (0.0, pytest.approx(0.1)),
    }
    assert table.chances_to_matter(liver, ["artery"]) == {"artery": pytest.approx(0.1)}


@given(tables(), st.data())
def test_findings_on_which_nothing_depends_change_nothing(example, data):
    domains_, rules, known = example
    table = DecisionTable(rules, domains_)
    before = table.decide(known)
    for_outcomes, for_rules = set(table.depends_on(known)), set(table.depends_on(known, rules=True))
    assert for_outcomes <= for_rules
    for domain in domains_:
        if known[domain.finding] is not None:
            continue
        for value in (*values_of(domain), NOT_STATED):
            after = table.decide(known | {domain.finding: value})
            if domain.finding not in for_outcomes:
                assert (after.outcome, after.possible) == (before.outcome, before.possible)
            if domain.finding not in for_rules:
                assert after.possible_rules == before.possible_rules


@given(distributed_tables())
def test_probabilities_sum_to_one(example):
    table, rules, distributions = example
    found = DecisionTable(rules, table).probabilities(distributions)
    assert math.isclose(sum(found.outcomes.values()) + found.no_rule, 1.0, abs_tol=1e-9)
    assert math.isclose(sum(found.rules.values()) + found.no_rule, 1.0, abs_tol=1e-9)


@given(tables())
def test_sufficient_findings_force_the_outcome_and_none_can_be_dropped(example):
    table, rules, known = example
    compiled = DecisionTable(rules, table)
    outcome = compiled.decide(known).outcome
    kept = compiled.sufficient(known)
    if outcome is None:
        return
    assert compiled.decide({name: known[name] for name in kept}).outcome == outcome
    for dropped in kept:
        fewer = {name: known[name] for name in kept if name != dropped}
        assert compiled.decide(fewer).outcome is None


SMA = Domain("sma", ("none", "<=180", ">180"), prior={"none": 0.8, "<=180": 0.1, ">180": 0.1})
LIVER = Domain("liver", ("no", "yes"), Silence("no"))
RULES = (
    DecisionRule("liver", "metastatic", Is(finding="liver", is_="yes")),
    DecisionRule("encased", "locally_advanced", Is(finding="sma", is_=">180")),
    DecisionRule("clear", "resectable", Is(finding="sma", is_="none")),
)


def test_silence_that_reads_as_a_value_leads_where_the_value_leads_and_is_an_assumption():
    table = DecisionTable(RULES, (SMA, LIVER))
    verdict = table.decide({"sma": ">180", "liver": NOT_STATED})
    assert verdict.outcome == "locally_advanced"
    assert verdict.rule == "encased"
    assert table.assumptions({"sma": ">180", "liver": NOT_STATED}) == ("liver",)
    assert table.assumptions({"sma": ">180", "liver": "no"}) == ()


def test_a_failed_answer_is_unknown_where_silence_would_be_read_as_a_value():
    verdict = DecisionTable(RULES, (SMA, LIVER)).decide({"sma": ">180", "liver": None})
    assert verdict.possible == ("metastatic", "locally_advanced")
    assert verdict.missing == ("liver",)


def test_a_gap_is_open_and_never_filled():
    verdict = DecisionTable(RULES, (SMA, LIVER)).decide({"sma": "<=180", "liver": "no"})
    assert (verdict.outcome, verdict.possible, verdict.gap) == (None, (), True)


def test_priors_weigh_the_truth_behind_silence():
    found = DecisionTable(RULES, (SMA, LIVER)).probabilities({"sma": {NOT_STATED: 1.0}, "liver": {"no": 1.0}})
    assert found.outcomes["resectable"] == pytest.approx(0.8)
    assert found.no_rule == pytest.approx(0.1)


@pytest.mark.parametrize(("size", "outcome"), [(2.0, "small"), (2.0000001, "large"), (1.9, "small"), (30, "large")])
def test_numbers_fall_on_the_right_side_of_a_bound(size, outcome):
    rules = (
        DecisionRule("small", "small", Bounds(finding="size", at_most=2)),
        DecisionRule("large", "large", Bounds(finding="size", above=2)),
    )
    assert DecisionTable(rules, (Domain("size", None),)).decide({"size": size}).outcome == outcome


def test_an_option_folds_its_rule_away():
    rules = (
        DecisionRule(
            "old", "control", AllOf(all=(OptionIs(option="wording", is_="old"), Is(finding="liver", is_="yes")))
        ),
        DecisionRule("rest", "cure", In(finding="liver", in_=("yes", "no"))),
    )
    for setting, outcome in (("old", "control"), ("new", "cure")):
        assert DecisionTable(rules, (LIVER,), {"wording": setting}).decide({"liver": "yes"}).outcome == outcome


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (Is(finding="spleen", is_="yes"), "unknown finding 'spleen'"),
        (Is(finding="liver", is_="maybe"), "no value 'maybe'"),
        (Bounds(finding="liver", above=1), "needs `is` or `in`"),
        (Not(not_=OptionIs(option="x", is_="y")), "unknown option 'x'"),
    ],
)
def test_a_rule_that_names_what_is_not_there_is_refused(condition, says):
    with pytest.raises(RuleError, match=r"rule 'broken'") as caught:
        DecisionTable((DecisionRule("broken", "cure", condition),), (LIVER,))
    assert says in str(caught.value)


def test_silences_that_look_at_each_other_are_refused():
    first = Domain("first", ("no", "yes"), Silence("no", unless=Is(finding="second", is_="yes")))
    second = Domain("second", ("no", "yes"), Silence("no", unless=Is(finding="first", is_="yes")))
    with pytest.raises(RuleError, match="own silence has conditions"):
        DecisionTable((DecisionRule("r", "cure", Is(finding="first", is_="yes")),), (first, second))


def test_rules_too_entangled_to_compile_are_refused_instead_of_filling_the_memory(monkeypatch):
    monkeypatch.setattr(diagram_building, "MAX_STATES", 3)
    table = tuple(Domain(f"f{i}", ("a", "b", "c")) for i in range(8))
    pairs = tuple(AllOf(all=(Is(finding=f"f{i}", is_="a"), Is(finding=f"f{i + 4}", is_="b"))) for i in range(4))
    with pytest.raises(RuleError, match="too entangled"):
        DecisionTable((DecisionRule("r", "cure", AnyOf(any=pairs)),), table)


@pytest.mark.parametrize("distribution", [{"no": 0.5, "yes": 0.4}, {"no": 1.5, "yes": -0.5}])
def test_a_distribution_that_is_none_is_refused(distribution):
    with pytest.raises(ValueError, match="sum to 1"):
        DecisionTable(RULES, (SMA, LIVER)).probabilities({"liver": distribution})


@given(st.data())
def test_a_part_of_the_decision_may_be_asked_like_a_finding(data):
    """The final rules over parts decide as if each part had been decided first and its outcome put in."""
    table = data.draw(domains())
    part_rules = data.draw(rule_lists(table))
    outcome = data.draw(st.sampled_from(sorted({rule.outcome for rule in part_rules})))
    asked = PartIn(part="first", in_=(outcome,))
    when = data.draw(st.sampled_from([asked, Not(not_=asked)]))
    final = (DecisionRule("by_part", "yes", when), DecisionRule("else", "no", AnyOf(any=(when, Not(not_=when)))))
    expanded = [DecisionRule(r.rule, r.outcome, expand_parts(r.when, {"first": part_rules})) for r in final]
    compiled = DecisionTable(expanded, table)
    known = data.draw(knowledge(table))
    truths = completions(table, known)
    comes_out = {(rule := first_rule(part_rules, truth)) is not None and rule.outcome == outcome for truth in truths}
    expected = {("yes" if out is (when is asked) else "no") for out in comes_out}
    assert set(compiled.decide(known).possible) == expected


def test_a_part_that_is_not_there_or_never_gives_the_outcome_is_refused():
    rules = {"t": [DecisionRule("r", "T1", Is(finding="size", is_="small"))]}
    with pytest.raises(RuleError, match="unknown part 'n'"):
        expand_parts(PartIn(part="n", in_=("N0",)), rules)
    with pytest.raises(RuleError, match="gives T9"):
        expand_parts(PartIn(part="t", in_=("T1", "T9")), rules)


@given(tables(), st.data())
def test_examples_lead_where_they_say_none_of_their_findings_is_vain_and_together_they_are_all(example, data):
    table, rules, _ = example
    compiled = DecisionTable(rules, table)
    values = {domain.finding: compiled.stated_values(domain.finding) for domain in table}
    truths = [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]
    wanted = data.draw(st.sampled_from([None, *(rule.rule for rule in rules)]))

    def ends(among):
        return {first.rule if (first := first_rule(rules, truth)) else None for truth in among}

    found = list(compiled.examples(wanted))
    for one in found:
        assert ends(truth for truth in truths if one.items() <= truth.items()) == {wanted}
        for name in one:
            fewer = {other: value for other, value in one.items() if other != name}
            assert ends(truth for truth in truths if fewer.items() <= truth.items()) != {wanted}
    assert compiled.example(wanted) == (found[0] if found else None)
    for truth in truths:
        covered = any(one.items() <= truth.items() for one in found)
        assert covered == (ends([truth]) == {wanted})
