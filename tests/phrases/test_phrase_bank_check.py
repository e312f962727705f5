"""Problems of a phrase bank are found and named; a sound bank has none."""

from __future__ import annotations

import pytest
from small_phrase_bank import PLAN, PROVENANCE, frame, parts_bank, parts_plan, phrases, skeletons, small_bank

from medorchestra.phrases.phrase_answers import merge, new_bank
from medorchestra.phrases.phrase_bank import Phrase, Skeleton
from medorchestra.phrases.phrase_bank_check import capacity, check_bank

BANK = small_bank()
FEW = {"development": 2, "calibration": 1, "held_out": 1}


def added(*pieces, **more):
    """The bank with some phrases more."""
    made = [
        Phrase.model_validate({"id": f"x{i}", "split": "development", "section": "arteries"} | piece)
        for i, piece in enumerate(pieces)
    ]
    return BANK.model_copy(update={"phrases": (*BANK.phrases, *made)} | more)


def with_layout(*places, **more):
    fields = {"id": "x0", "split": "development", "form": "structured", "style": "x", "places": places} | more
    return BANK.model_copy(update={"skeletons": (*BANK.skeletons, Skeleton.model_validate(fields))})


def test_the_small_banks_lack_only_the_rules_they_do_not_speak_of():
    problems = check_bank(BANK, PLAN, minimum=FEW)
    unspoken = ("aorta", "variant_artery", "ivc")
    assert len(problems) == 9
    assert all(any(line.startswith(f"rule {rule}: no report of ") for rule in unspoken) for line in problems)
    assert check_bank(parts_bank(), parts_plan(), minimum={"development": 1, "held_out": 1}) == ()


@pytest.mark.parametrize(
    ("piece", "says"),
    [
        ({"text": "x.", "states": {"sma_contact": "some"}}, "phrase x0: finding sma_contact has no value 'some'"),
        ({"text": "x.", "states": {"sma_contact": "number"}}, "has no value 'number'"),
        ({"text": "x.", "states": {"sma_contact": "not_stated"}}, "states that a finding is not stated"),
        ({"text": "x.", "states": {"sma_contact": "none"}, "needs": {"sma_contact": ["<=180"]}}, "needs other values"),
        (
            {"text": "x.", "states": {"sma_contact": "none"}, "not_with": {"sma_contact": ["none"]}},
            "must not stand with what it states",
        ),
        ({"text": "x.", "states": {"sma_contact": "none"}, "needs": {"ca_contact": ["a"]}}, "x0, needs: finding ca"),
        ({"text": "Mass.", "states": {"tumor_size_cm": "number"}}, "states a number (length) but has no slot for it"),
        ({"text": "{cm2} cm", "states": {"tumor_size_cm": "number"}}, "has no slot for it"),
        ({"text": "{prior_cm} cm", "states": {"tumor_size_cm": "number"}}, "has no slot for it"),
        ({"text": "{cm} x {mm2}", "states": {"tumor_size_cm": "number"}}, "dimensions in two units"),
        ({"text": "{cm} cm contact", "states": {"sma_contact": "none"}}, "a slot for a number (length)"),
        ({"text": "{count} nodes", "states": {"sma_contact": "none"}}, "a slot for a number (count)"),
        ({"text": "{150-200}°", "states": {"sma_contact": "<=180"}}, "degrees 150 to 200 do not fit"),
        ({"text": "{180-270} degrees", "states": {"sma_contact": ">180"}}, "degrees 180 to 270 do not fit"),
        ({"text": "190 to 220 deg", "states": {"sma_contact": "<=180"}}, "degrees 190 to 220 do not fit"),
        (
            {"text": "x.", "states": {"cha_contact": "none", "cha_extension": "yes"}},
            "contradicts itself (flag extension_without_contact)",
        ),
        (
            {"text": "x.", "states": {"cha_contact": "none", "cha_extension": "no"}},
            "states cha_extension without the cha_contact that it depends on",
        ),
    ],
)
def test_a_faulty_phrase_is_named(piece, says):
    problems = check_bank(added(piece), PLAN)
    assert any("x0" in line and says in line for line in problems), problems


@pytest.mark.parametrize(
    "piece",
    [
        {"text": "Contact of {20-180}° with the SMA (arc).", "states": {"sma_contact": "<=180"}},
        {
            "text": "SMA {181-300} degrees, CHA {20-90} degrees.",
            "states": {"sma_contact": ">180", "cha_contact": "<=180"},
        },
        {"text": "SMA contact 90°, previously 200°.", "states": {"sma_contact": "<=180"}},
        {"text": "{mm} x {mm2} x {mm3} mm, before {prior_mm} mm.", "states": {"tumor_size_cm": "number"}},
    ],
)
def test_a_sound_phrase_is_let_through(piece):
    assert [line for line in check_bank(added(piece), PLAN, minimum={}) if "x0" in line] == []


def test_texts_that_say_two_things_or_are_in_two_splits_are_found():
    text = BANK.phrases[0].text
    assert BANK.phrases[0].states == {"sma_contact": "none"}
    contrary = check_bank(added({"text": f" {text.upper()}", "states": {"sma_contact": "<=180"}}), PLAN, minimum={})
    assert "phrases p00001 and x0: the same text states different things" in contrary
    other = next(split for split in ("held_out", "development") if split != BANK.phrases[0].split)
    twice = check_bank(added({"text": text, "states": {"sma_contact": "none"}, "split": other}), PLAN, minimum={})
    assert "phrases p00001 and x0: the same text in two splits" in twice


def test_a_sentence_that_stands_whole_in_one_with_another_value_is_found():
    pair = (
        {"text": "Tumour abuts the trunk.", "states": {"ca_contact": "<=180"}},
        {"text": "By no means can one say: tumour abuts the trunk.", "states": {"ca_contact": "none"}},
    )
    assert "phrases x0 and x1: the first is whole in the second, with another value" in check_bank(
        added(*pair), PLAN, minimum={}
    )


def test_values_without_enough_phrases_are_counted_by_split():
    kept = tuple(p for p in BANK.phrases if p.states != {"liver_mets": "yes"} or p.split != "held_out")
    thin = BANK.model_copy(update={"phrases": kept})
    lines = check_bank(thin, PLAN, minimum=FEW)
    assert "finding liver_mets, value yes: 0 phrases in held_out, 1 wanted" in lines
    assert any(line.startswith("rule distant_metastasis: no report of held_out") for line in lines)


def test_phrases_without_a_place_are_counted():
    lost = {"text": "in two parts", "states": {"sma_contact": "none", "liver_mets": "no"}, "form": "structured"}
    lines = check_bank(added(lost), PLAN, minimum={"development": 1})
    assert "1 phrases of development fit no skeleton of it (section, form or fields): x0" in lines


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"findings": ["sma_contact"], "values": {"maybe": "x"}}, "finding sma_contact has no value 'maybe'"),
        ({"findings": ["sma_contact"], "values": {"none": "x", ">180": "X."}}, "the same text for two values"),
        ({"findings": ["sma_contact"], "values": {"none": "-"}, "silent": "-"}, "the same text for two values"),
        ({"findings": ["sma_contact"], "values": {"not_stated": "-"}}, "what it has for silence is `silent`"),
        ({"findings": ["tumor_size_cm"], "values": {"number": "{count}"}}, "no slot in a unit of cm"),
        ({"says": ["x"], "needs": {"sma_contact": ["often"]}}, "finding sma_contact has no value 'often'"),
    ],
)
def test_a_faulty_layout_is_named(place, says):
    problems = check_bank(with_layout(place), PLAN)
    assert any("skeleton x0" in line and says in line for line in problems), problems


def test_a_doubled_layout_is_counted():
    first = BANK.skeletons[0]
    again = BANK.model_copy(update={"skeletons": (*BANK.skeletons, first.model_copy(update={"id": "x0"}))})
    assert "1 skeletons have the same layout as another" in check_bank(again, PLAN, minimum={})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"findings": ("spleen",)}, "findings: not in the plan: spleen"),
        ({"topic": "kidney"}, "bank of topic 'kidney', plan of topic 'pancreatic_cancer'"),
        ({"synonyms": (("SMA", "sma"), ("SMA", "AMS"))}, "synonyms: 1 wordings are in more than one set"),
    ],
)
def test_a_frame_that_does_not_fit_the_plan_is_refused_first(change, says):
    assert any(says in line for line in check_bank(BANK.model_copy(update=change), PLAN))


def test_no_problem_line_holds_the_text_of_a_phrase():
    secret = "Zebra crossing near the SMA"
    lines = check_bank(
        added(
            {"text": f"{secret} {{150-250}}°", "states": {"sma_contact": "<=180"}},
            {"text": secret, "states": {"sma_contact": "odd"}},
        ),
        PLAN,
    )
    assert len(lines) >= 2
    assert not any("Zebra" in line for line in lines)


def test_capacity_counts_what_was_composed():
    bank = merge(new_bank(PLAN, frame(), PROVENANCE), PLAN, [phrases(), skeletons()]).bank
    seen = capacity(bank, PLAN, n=150, split="held_out")
    assert seen.composed == 150 == sum(seen.rules.values())
    assert 140 <= seen.distinct_wordings <= seen.distinct <= 150
    assert all(sum(counts.values()) == 150 for counts in seen.values.values())
    assert seen.values["lung_mets"] == {"not_stated": 150}
    assert 0 < seen.phrases_used <= sum(p.split == "held_out" for p in (*bank.phrases, *bank.distractors))
