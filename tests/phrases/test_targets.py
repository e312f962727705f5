"""Targets are decided by the wanted rule, consistent, and no value is drawn that cannot be said."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from cloud.toy.nodule import DECOMPOSITION, GUIDELINE, toy_subtasks
from hypothesis import given, settings
from hypothesis import strategies as st
from small_phrase_bank import PLAN, frame, parts_plan

from medorchestra.cloud.decomposition import Decomposition, plan_of
from medorchestra.phrases.phrase_bank import NUMBER, Dependency, NumberHabit
from medorchestra.phrases.targets import TargetDraw, Wish, breaks, pick_stratum
from medorchestra.rules import NOT_STATED, evaluate

APART = {"equivocal_vessel_wording", "impression_conflict"}
DEPENDENCIES = [Dependency.model_validate(one.model_dump()) for one in frame().dependencies]
NUMBERS = [NumberHabit.model_validate(one.model_dump()) for one in frame().numbers]
DRAW = TargetDraw(PLAN, dependencies=DEPENDENCIES, numbers=NUMBERS, apart=APART)
ALL = {finding.name: tuple(finding.values or (NUMBER,)) for finding in PLAN.findings}
MANY = settings(max_examples=200, deadline=None)
strata = st.sampled_from(DRAW.strata)


def drawn(seed, wish, speakable=ALL, draw=DRAW):
    rng = random.Random(seed)
    return next((target for _ in range(12) if (target := draw.draw(rng, wish, speakable)) is not None), None)


def test_a_rule_that_an_option_switches_off_is_no_stratum():
    assert {stratum.rule for stratum in DRAW.strata} == {rule.id for rule in PLAN.rules} - {"jejunal_branch"}
    assert DRAW.reachable(ALL) == DRAW.strata


@MANY
@given(st.integers(0, 10**6), strata, st.floats(0, 1))
def test_the_wanted_rule_decides_whatever_is_left_out(seed, stratum, silence):
    target = drawn(seed, Wish(stratum, silence))
    assert target is not None
    assert set(target) == set(ALL)
    verdict = PLAN.decision_table.decide(target)
    assert (verdict.rule, verdict.outcome) == (stratum.rule, stratum.outcome)
    assert not any(breaks(dependency, target) for dependency in DEPENDENCIES)
    assert all(target[name] == NOT_STATED for name in APART)
    for flag in PLAN.flags:
        if flag.kind == "contradiction":
            assert evaluate(flag.when, target) is not True


@MANY
@given(st.integers(0, 10**6), st.sampled_from([s for s in DRAW.strata if s.outcome == "borderline_resectable"]))
def test_an_open_target_leaves_several_outcomes(seed, stratum):
    target = drawn(seed, Wish(stratum, 0.3, open_case=True))
    if target is not None:
        assert PLAN.decision_table.decide(target).outcome is None
        assert not any(breaks(dependency, target) for dependency in DEPENDENCIES)


def test_nearly_every_rule_of_resection_can_be_opened():
    wanted = [s for s in DRAW.strata if s.outcome in ("borderline_resectable", "resectable")]
    opened = [s for s in wanted if any(drawn(seed, Wish(s, open_case=True)) for seed in range(5))]
    assert opened == wanted


@MANY
@given(st.integers(0, 10**6), st.data())
def test_no_value_is_drawn_that_cannot_be_said(seed, data):
    mute = data.draw(st.sets(st.sampled_from(sorted((n, v) for n, values in ALL.items() for v in values))))
    speakable = {name: {value for value in values if (name, value) not in mute} for name, values in ALL.items()}
    stratum = data.draw(strata)
    target = drawn(seed, Wish(stratum), speakable)
    for name, value in (target or {}).items():
        said = NUMBER if isinstance(value, float) else value
        assert said == NOT_STATED or said in speakable[name]


def test_rules_whose_values_cannot_be_said_are_not_reachable():
    without = ALL | {"ivc_contact": ("no",), "aorta_contact": ()}
    assert {s.rule for s in DRAW.strata} - {s.rule for s in DRAW.reachable(without)} == {"ivc", "aorta"}


def test_silence_has_about_the_wished_share_where_no_rule_needs_the_finding():
    wish = Wish(next(s for s in DRAW.strata if s.rule == "distant_metastasis"), 0.4)
    targets = [drawn(seed, wish) for seed in range(200)]
    silent = sum(target["gda_contact"] == NOT_STATED for target in targets)
    assert 50 <= silent <= 110


def test_numbers_stand_at_the_bounds_of_the_rules_often_and_in_range_always():
    plan = parts_plan()
    draw = TargetDraw(plan, numbers=[NumberHabit(finding="size", low=0.5, high=6, decimals=1)])
    parts = {stratum.rule: stratum for stratum in draw.strata}
    assert {(s.part, s.rule) for s in draw.strata} == {
        ("t_category", "t1"), ("t_category", "t2"), (None, "nodal"), (None, "large"), (None, "small"),
    }  # fmt: skip
    sizes = [drawn(seed, Wish(parts["t2"]), {"size": {NUMBER}}, draw)["size"] for seed in range(200)]
    assert all(2.0 < size <= 20 for size in sizes)
    assert 40 <= Counter(sizes)[2.1] <= 140
    counts = {drawn(seed, Wish(parts["nodal"]), {"nodes": {NUMBER}}, draw)["nodes"] for seed in range(100)}
    assert {4, 5} <= counts
    assert all(count == int(count) and 4 <= count <= 40 for count in counts)


def test_a_finding_is_silent_where_a_contradiction_excludes_every_value_of_it():
    """No nodule, and its size: there is no size that would do."""
    plan = plan_of(Decomposition.model_validate(DECOMPOSITION), GUIDELINE, toy_subtasks(), model="toy")
    draw = TargetDraw(plan)
    absent = next(stratum for stratum in draw.strata if stratum.rule == "absent")
    speakable = {finding.name: tuple(finding.values or (NUMBER,)) for finding in plan.findings}
    assert absent in draw.reachable(speakable)
    target = drawn(1, Wish(absent), speakable, draw)
    assert (target["nodule"], target["size_mm"]) == ("no", NOT_STATED)


@pytest.mark.parametrize(("evenly", "least"), [("rule", 40), ("outcome", 130)])
def test_strata_are_picked_evenly(evenly, least):
    rng = random.Random(5)
    picked = [pick_stratum(rng, DRAW.strata, evenly=evenly) for _ in range(1000)]
    assert min(Counter(getattr(stratum, evenly) for stratum in picked).values()) >= least
