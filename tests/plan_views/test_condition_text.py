"""Conditions as sentences: exact enough to be read back by a machine, plain enough for a clinician."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_by_hand import PLAN_BY_HAND
from plan_with_parts import plan_with_parts
from strategies import conditions, domains, knowledge

from medorchestra.plan import Finding, NotStated, NumberRange, Plan
from medorchestra.plan_files import read_plan
from medorchestra.plan_views.condition_text import (
    condition_clauses,
    condition_text,
    finding_titles,
    listed,
    part_titles,
    prior_text,
    silence_text,
    value_text,
    with_options,
)
from medorchestra.rules import (
    AllOf,
    AnyOf,
    Bounds,
    In,
    Is,
    Not,
    OptionIs,
    PartIn,
    evaluate,
    findings_in,
    leaves_of,
)
from medorchestra.topics import topics

PLAN = PLAN_BY_HAND
PARTS = plan_with_parts()


def is_(finding, value):
    return Is(finding=finding, is_=value)


def not_(condition):
    return Not(not_=condition)


def plan_of(table) -> Plan:
    """A plan with just these findings, as far as sentences look at one: it could not be written down."""
    findings = tuple(
        Finding(
            name=domain.finding,
            description=".",
            values=dict.fromkeys(domain.values, ".") if domain.values else None,
            number=None if domain.values else NumberRange(unit="cm", minimum=-9, maximum=9),
            not_stated=NotStated(why="."),
        )
        for domain in table
    )
    return PARTS.model_copy(update={"findings": findings, "subtasks": (), "parts": (), "options": ()})


class Reader:
    """Reads a sentence back into a condition: the oracle that it says what the condition says, and only that."""

    def __init__(self, plan, text):
        self.titles = {title: name for name, title in finding_titles(plan).items()}
        self.values = {f.name: {value_text(value, f.values): value for value in f.values or ()} for f in plan.findings}
        self.read = self.joined(text)

    def joined(self, text):
        for word, join in ((", and ", lambda parts: AllOf(all=parts)), (", or ", lambda parts: AnyOf(any=parts))):
            parts = self.split(text, word)
            if len(parts) > 1:
                return join(tuple(map(self.clause, parts)))
        return self.clause(text)

    @staticmethod
    def split(text, word):
        parts, depth, start = [], 0, 0
        for i, one in enumerate(text):
            depth += (one == "(") - (one == ")")
            if depth == 0 and text.startswith(word, i):
                parts.append(text[start:i])
                start = i + len(word)
        return [*parts, text[start:]]

    def clause(self, text):
        if text.startswith("not ("):
            return not_(self.joined(text[5:-1]))
        if text.startswith("("):
            return self.joined(text[1:-1])
        title, told = text.split(" is ", 1)
        finding = self.titles[title]
        if not self.values[finding]:
            return self.number(finding, told.removesuffix(" cm"))
        negated = re.match(r"(?:not|neither) ", told)
        words = re.split(r", | or | nor ", told[negated.end() :] if negated else told)
        condition = In(finding=finding, in_=tuple(self.values[finding][word] for word in words))
        return not_(condition) if negated else condition

    @staticmethod
    def number(finding, told):
        fields = {"above": "above", "at least": "at_least", "below": "below", "at most": "at_most"}
        bounds = [
            Bounds(finding=finding, **{fields[words]: float(number)})
            for words, number in re.findall(r"(above|at least|below|at most) (-?[\d.]+)", told)
        ]
        return AnyOf(any=tuple(bounds)) if " or " in told else AllOf(all=tuple(bounds))


@given(st.data())
def test_a_sentence_read_back_holds_exactly_where_the_condition_holds(data):
    table = data.draw(domains())
    condition = data.draw(conditions(table))
    plan = plan_of(table)
    read = Reader(plan, condition_text(condition, plan)).read
    for _ in range(5):
        known = data.draw(knowledge(table))
        assert evaluate(read, known) == evaluate(condition, known)


@given(st.data())
def test_a_sentence_names_every_finding_and_every_value_of_its_condition(data):
    table = data.draw(domains())
    condition = data.draw(conditions(table))
    plan = plan_of(table)
    text = condition_text(condition, plan)
    titles = finding_titles(plan)
    for name in findings_in(condition):
        assert titles[name] in text
    for leaf in leaves_of(condition):
        if isinstance(leaf, Bounds):
            assert all(f"{cut:g}" in text for cut in leaf.cuts)
            continue
        for value in (leaf.is_,) if isinstance(leaf, Is) else leaf.in_:
            assert value_text(value, plan.finding(leaf.finding).values) in text


@given(st.data())
def test_the_clauses_of_a_condition_joined_by_their_word_are_its_sentence(data):
    table = data.draw(domains())
    condition = data.draw(conditions(table))
    plan = plan_of(table)
    kind, clauses = condition_clauses(condition, plan)
    assert (", and " if kind == "all" else ", or ").join(clauses) == condition_text(condition, plan)


@given(st.data())
def test_a_condition_with_its_options_set_holds_where_the_condition_holds_under_these_settings(data):
    table = data.draw(domains())
    old = OptionIs(option="wording", is_="old")
    inner = data.draw(conditions(table))
    condition = data.draw(
        st.sampled_from([AllOf(all=(old, inner)), AnyOf(any=(not_(old), inner)), not_(AnyOf(any=(inner, old))), inner])
    )
    settings = {"wording": data.draw(st.sampled_from(["old", "new"]))}
    left = with_options(condition, settings)
    known = data.draw(knowledge(table))
    assert (left if isinstance(left, bool) else evaluate(left, known)) == evaluate(condition, known, settings)
    assert isinstance(left, bool) or not any(isinstance(leaf, OptionIs) for leaf in leaves_of(left))


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        (is_("sma_contact", ">180"), "SMA contact is >180"),
        (not_(is_("sma_contact", ">180")), "SMA contact is not >180"),
        (
            In(finding="pv_smv_contact", in_=("<=180_irregular", "occluded")),
            "PV/SMV contact is ≤180 irregular or occluded",
        ),
        (
            not_(In(finding="tumor_location", in_=("body", "tail", "neck"))),
            "Tumour location is neither body, tail nor neck",
        ),
        (not_(not_(is_("aorta_contact", "no"))), "Aorta contact is no"),
        (AllOf(all=(is_("aorta_contact", "no"),)), "Aorta contact is no"),
        (
            AllOf(all=(is_("ca_contact", "none"), AnyOf(any=(is_("gda_contact", "no"), is_("ivc_contact", "no"))))),
            "CA contact is none, and (GDA contact is no, or IVC contact is no)",
        ),
        (
            AllOf(all=(is_("ca_contact", "none"), AllOf(all=(is_("gda_contact", "no"), is_("ivc_contact", "no"))))),
            "CA contact is none, and GDA contact is no, and IVC contact is no",
        ),
        (
            PLAN.rule("ca_over_180").when,
            "CA contact is >180, and not (the option ca_over_180_body_tail is borderline resectable, "
            "and Tumour location is body or tail, and Aorta contact is no, and GDA contact is no)",
        ),
        (Bounds(finding="tumor_size_cm", above=2, at_most=4), "Tumour size is above 2 and at most 4 cm"),
        (not_(Bounds(finding="tumor_size_cm", above=2, at_most=4)), "Tumour size is at most 2 or above 4 cm"),
    ],
)
def test_conditions_on_vessels_and_sizes_read_like_this(condition, sentence):
    assert condition_text(condition, PLAN) == sentence


def test_parts_of_a_decision_are_called_by_their_title_and_counts_have_no_unit():
    assert condition_text(PARTS.rule("two_a").when, PARTS) == (
        "Primary tumour (T) is T3, and Regional nodes (N) is neither N1 nor N2"
    )
    assert condition_text(PARTS.rule("few_nodes").when, PARTS) == "nodes is at least 1 and below 4"


def test_a_part_whose_title_is_a_story_is_called_by_its_name():
    part = PARTS.parts[0].model_copy(update={"title": "T is T1, or whatever else, and so on"})
    plan = PARTS.model_copy(update={"parts": (part, PARTS.parts[1])})
    assert part_titles(plan)["t_category"] == "t category"
    assert condition_text(PartIn(part="t_category", in_=("T4",)), plan) == "t category is T4"


@pytest.mark.parametrize("title", ["CA contact:", "ca contact:", "SMA contact is none, or CA contact", "<b>SMA</b>"])
def test_a_compact_prompt_cannot_lend_a_finding_the_name_of_another_or_a_false_sentence(title):
    subtasks = [
        s.model_copy(update={"prompt": s.prompt.model_copy(update={"compact": title})}) if s.id == "sma_contact" else s
        for s in PLAN.subtasks
    ]
    titles = finding_titles(PLAN.model_copy(update={"subtasks": tuple(subtasks)}))
    assert titles["sma_contact"] == "sma contact"
    assert len({shown.casefold() for shown in titles.values()}) == len(PLAN.findings)


def test_values_that_would_read_the_same_are_shown_raw():
    assert value_text("<=180_smooth", ["<=180_smooth", ">180"]) == "≤180 smooth"
    assert value_text("<=180", ["<=180", "≤180"]) == "<=180"
    assert [listed(["a", "b", "c"][:n], "or") for n in (1, 2, 3)] == ["a", "a or b", "a, b or c"]


@pytest.mark.parametrize(
    ("finding", "words"),
    [
        ("sma_contact", "Silence leaves it unknown: every value remains possible."),
        ("aorta_contact", "Silence is read as “no”."),
        ("liver_mets", "Silence is read as “no”. A decision that rests on this goes to a person."),
        ("cha_extension", "“no”, but only where the report states CHA contact; else it is unknown."),
        ("pv_smv_reconstructible", "“yes”, except where PV/SMV contact is >180 or occluded; else it is unknown."),
    ],
)
def test_silence_is_told_in_words(finding, words):
    assert words in silence_text(PLAN.finding(finding), PLAN)


def test_weights_of_the_unknown_are_told_only_where_the_plan_gives_them():
    assert prior_text(PLAN.finding("sma_contact")) == "none 80 %, ≤180 12 %, >180 8 %"
    assert prior_text(PLAN.finding("aorta_contact")) == ""


@pytest.mark.parametrize("topic", topics())
def test_every_condition_of_a_shipped_plan_becomes_a_sentence_of_its_own(topic):
    plan = read_plan(topic)
    for rules in (plan.rules, *(part.rules for part in plan.parts)):
        sentences = {condition_text(rule.when, plan) for rule in rules}
        assert len(sentences) == len(rules)
    for flag in plan.flags:
        assert all(finding_titles(plan)[name] in condition_text(flag.when, plan) for name in findings_in(flag.when))
