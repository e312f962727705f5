"""Answers of a model become part of a bank, piece by piece; what is wrong is left out and named."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_phrase_bank import PLAN, PROVENANCE, among, frame, said

from medorchestra.errors import CaseError
from medorchestra.phrases.phrase_answers import (
    FrameAnswer,
    PhraseAnswers,
    PlaceAnswer,
    SkeletonAnswer,
    SkeletonAnswers,
    StatedAnswer,
    ValueTextAnswer,
    merge,
    new_bank,
)
from medorchestra.synthetic import SPLITS

EMPTY = new_bank(PLAN, frame(), PROVENANCE)


def layout(style, heading="Findings: ", form="free_text", **more):
    return SkeletonAnswer(form=form, style=style, places=[PlaceAnswer(heading=heading, sections=["arteries"])], **more)


def free(number, **more):
    return said(f"SMA is free, wording {number}.", "arteries", {"sma_contact": "none"}, **more)


def merged(*answers, bank=EMPTY):
    return merge(bank, PLAN, answers)


def test_every_piece_gets_an_id_and_a_split_at_its_shares():
    made = merged(PhraseAnswers(phrases=[free(i) for i in range(40)]))
    assert (made.added, made.problems) == (40, ())
    assert len({phrase.id for phrase in made.bank.phrases}) == 40
    assert Counter(phrase.split for phrase in made.bank.phrases) == {
        "development": 24,
        "calibration": 6,
        "held_out": 10,
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=40), st.integers(0, 40))
def test_merging_twice_is_merging_at_once_and_keeps_ids_and_splits(numbers, cut):
    pieces = [free(number) for number in numbers]
    once = merged(PhraseAnswers(phrases=pieces)).bank
    first = merged(PhraseAnswers(phrases=pieces[:cut])).bank
    assert merged(PhraseAnswers(phrases=pieces[cut:]), bank=first).bank == once
    assert len(once.phrases) == len(set(numbers))


def test_few_phrases_of_many_values_still_reach_every_split():
    findings = ("sma_contact", "ca_contact", "cha_contact")
    pieces = [
        said(f"{name} {value} {i}.", "arteries", {name: value})
        for name in findings
        for value in PLAN.finding(name).values or ()
        for i in range(4)
    ]
    made = merged(PhraseAnswers(phrases=pieces)).bank
    for name in findings:
        for value in PLAN.finding(name).values or ():
            assert {p.split for p in made.phrases if p.states == {name: value}} == set(SPLITS)


def test_a_style_with_its_layouts_belongs_to_one_split_and_takes_its_phrases_along():
    styles = [f"style {i}" for i in range(8)]
    layouts = [layout(style, heading=f"{style} {i}: ") for i in range(3) for style in styles]
    made = merged(SkeletonAnswers(skeletons=layouts))
    split_of = {skeleton.style: skeleton.split for skeleton in made.bank.skeletons}
    assert Counter(split_of.values()) == {"development": 5, "calibration": 1, "held_out": 2}
    assert {(s.style, s.split) for s in made.bank.skeletons} == set(split_of.items())
    held_out = next(style for style, split in split_of.items() if split == "held_out")
    after = merged(PhraseAnswers(phrases=[free(i, styles=[held_out]) for i in range(10)]), bank=made.bank)
    assert {phrase.split for phrase in after.bank.phrases} == {"held_out"}
    known = next(style for style, split in split_of.items() if split == "development")
    spread = merged(PhraseAnswers(phrases=[free(i, styles=[known]) for i in range(10)]), bank=made.bank)
    assert {phrase.split for phrase in spread.bank.phrases} == set(SPLITS)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (said("x.", "arteries", {"spleen": "large"}), "unknown finding 'spleen'; there are: exam_adequate, "),
        (said("x.", "kidneys", {"sma_contact": "none"}), "unknown section 'kidneys'; there are: technique, "),
        (said("x.", "arteries", {"sma_contact": "some"}), "finding sma_contact has no value 'some'; it has: "),
        (said("{inch}", "arteries", {"sma_contact": "none"}), "unknown slot {inch}; there are {cm}"),
        (said("{200-300}°", "arteries", {"sma_contact": "<=180"}), "degrees 200 to 300 do not fit"),
        (said("x.", "arteries", {}, needs=among(sma_contact=["odd"])), "finding sma_contact has no value 'odd'"),
        (free(0), "the same text is there already (p00001)"),
        (
            said("x.", "arteries", {}).model_copy(
                update={"states": [StatedAnswer(finding="sma_contact", value=value) for value in ("none", ">180")]}
            ),
            "states a finding twice",
        ),
        (said("entry", "arteries", {}, form="structured"), "a structured distractor has no place"),
    ],
)
def test_a_wrong_piece_is_left_out_and_named_by_its_number_and_the_rest_goes_in(wrong, says):
    made = merged(PhraseAnswers(phrases=[free(0), wrong, free(2)]))
    assert made.added == 2
    assert [phrase.text for phrase in made.bank.phrases] == [free(0).text, free(2).text]
    (problem,) = made.problems
    assert problem.startswith("phrase 2: ")
    assert says in problem


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (PlaceAnswer(sections=["kidneys"]), "unknown section 'kidneys'"),
        (PlaceAnswer(findings=["spleen"]), "unknown finding 'spleen'"),
        (PlaceAnswer(sections=["arteries"], silent="-"), "places.0: silent: only in a field"),
        (
            PlaceAnswer(findings=["sma_contact"], values=[ValueTextAnswer(value="odd", text="x")]),
            "finding sma_contact has no value 'odd'",
        ),
        (PlaceAnswer(heading="Findings: ", sections=["arteries"]), "the same layout is there already (s00001)"),
    ],
)
def test_a_wrong_layout_is_left_out_and_named(place, says):
    wrong = SkeletonAnswer(form="free_text", style="b", places=[place])
    made = merged(SkeletonAnswers(skeletons=[layout("a"), wrong]), PhraseAnswers(phrases=[free(1)]))
    assert made.added == 2
    (problem,) = made.problems
    assert problem.startswith("answer 1, skeleton 2: ")
    assert says in problem


def test_a_fragment_may_stand_in_fields_of_several_findings_but_not_twice_for_one():
    pieces = [
        said("no contact", "arteries", {name: "none"}, form="structured")
        for name in ("sma_contact", "ca_contact", "sma_contact")
    ]
    made = merged(PhraseAnswers(phrases=pieces))
    assert (made.added, len(made.problems)) == (2, 1)


def test_distractors_are_kept_apart():
    made = merged(PhraseAnswers(phrases=[said("Renal cyst.", "other", {}), free(1)]))
    assert [phrase.id for phrase in made.bank.distractors] == ["d00001"]
    assert [phrase.id for phrase in made.bank.phrases] == ["p00001"]


def test_a_frame_that_does_not_fit_together_is_refused():
    with pytest.raises(CaseError, match=r"frame of a phrase bank: .*unknown finding b"):
        new_bank(
            PLAN,
            FrameAnswer(findings=["a"], sections=["x"], numbers=[{"finding": "b", "low": 0, "high": 1}]),
            PROVENANCE,
        )


def test_no_problem_holds_the_text_of_a_phrase():
    wrong = [
        said("Zebra {inch}", "arteries", {"sma_contact": "none"}),
        said("Zebra.", "zoo", {"sma_contact": "none"}),
        said("Zebra {200-300}°", "arteries", {"sma_contact": "<=180"}),
    ]
    made = merged(PhraseAnswers(phrases=wrong))
    assert len(made.problems) == 3
    assert not any("Zebra" in problem for problem in made.problems)
