"""What an adapter is trained on: the development split alone, the same for the same seed, no contradictions."""

from __future__ import annotations

import pytest
from plan_by_hand import PLAN_BY_HAND, cases_by_hand
from small_phrase_bank import parts_bank, small_bank

from medorchestra.errors import CaseError, SettingsError
from medorchestra.finetune.training_set import TrainingSetSettings, training_set
from medorchestra.synthetic import labelled

PLAN = PLAN_BY_HAND
CASES = cases_by_hand()
DEVELOPMENT = [case for case in CASES if case.split == "development"]
BANK = small_bank()
CANARY = "CANARY-7741"


def settings(**changes):
    return TrainingSetSettings(**{"composed": 8, "repeats": 1} | changes)


def canaries_in(bank, **wanted):
    """The bank with a canary in every phrase, distractor and layout whose fields are as wanted."""

    def marked(piece, where):
        if any(getattr(piece, name, None) != value for name, value in wanted.items()):
            return piece
        if where == "skeletons":
            title = piece.places[0].model_copy(update={"heading": CANARY})
            return piece.model_copy(update={"places": (title, *piece.places[1:])})
        return piece.model_copy(update={"text": f"{CANARY} {piece.text}"})

    parts = ("phrases", "distractors", "skeletons")
    return bank.model_copy(update={part: tuple(marked(one, part) for one in getattr(bank, part)) for part in parts})


def same_text(first, second):
    """Two reports of one text, each with its own labels."""
    fields = {"split": "development", "form": "free_text", "style": "toy", "text": f"{CANARY}: liver clear, SMA free."}
    return [labelled(PLAN, found, id=id_, **fields) for id_, found in (("case-a", first), ("case-b", second))]


# ----------------------------------------------------------------------------------- one split


def test_cases_of_the_other_splits_change_nothing():
    assert {case.split for case in CASES} == {"development", "calibration", "held_out"}
    found = training_set(PLAN, CASES, BANK, settings())
    assert found == training_set(PLAN, DEVELOPMENT, BANK, settings())
    assert {case.split for case in found.cases} == {"development"}
    assert {case.id for case in DEVELOPMENT} < {case.id for case in found.cases}


@pytest.mark.parametrize("split", ["calibration", "held_out"])
def test_phrases_and_layouts_of_the_other_splits_are_never_used(split):
    spoiled = canaries_in(BANK, split=split)
    assert spoiled != BANK
    few = settings(composed=60)
    assert training_set(PLAN, (), spoiled, few) == training_set(PLAN, (), BANK, few)


def test_phrases_of_the_development_split_are_used():
    spoiled = canaries_in(BANK, split="development")
    found = training_set(PLAN, (), spoiled, settings()).cases
    assert len(found) == 8
    assert all(CANARY.casefold() in case.text.casefold() for case in found)


def test_every_full_report_is_read_as_often_as_asked_and_every_composed_one_once():
    found = training_set(PLAN, CASES, BANK, settings(repeats=3))
    often = {case.id: sum(other.id == case.id for other in found.cases) for case in found.cases}
    assert {often[case.id] for case in DEVELOPMENT} == {3}
    assert {often[case.id] for case in found.cases if case.provenance == "composed"} == {1}
    assert found.counts == {"hand": len(DEVELOPMENT), "planner": 0, "composed": 8}


# ------------------------------------------------------------------------------ styles left out


def test_full_reports_of_a_style_that_is_left_out_are_not_read():
    out = DEVELOPMENT[0].style
    found = training_set(PLAN, CASES, None, settings(composed=0, without_styles=frozenset({out})))
    assert {case.id for case in found.cases} == {case.id for case in DEVELOPMENT if case.style != out}


def test_layouts_of_a_style_that_is_left_out_are_not_used():
    everything = training_set(PLAN, (), BANK, settings(composed=40))
    assert {case.style for case in everything.cases} == {
        "free REPORT",
        "form REPORT",
        "free RADIOLOGY",
        "form RADIOLOGY",
    }
    found = training_set(PLAN, (), BANK, settings(composed=40, without_styles=frozenset({"form REPORT"})))
    assert {case.style for case in found.cases} == {"free REPORT", "free RADIOLOGY", "form RADIOLOGY"}


def test_phrases_of_a_style_that_is_left_out_are_not_used():
    def styled(phrase):
        return phrase.model_copy(update={"styles": ("terse",)}) if "No change" in phrase.text else phrase

    bank = canaries_in(BANK.model_copy(update={"phrases": tuple(map(styled, BANK.phrases))}), styles=("terse",))
    assert any(CANARY in case.text.upper() for case in training_set(PLAN, (), bank, settings(composed=40)).cases)
    without = settings(composed=40, without_styles=frozenset({"terse"}))
    assert not any(CANARY in case.text.upper() for case in training_set(PLAN, (), bank, without).cases)


# ------------------------------------------------------------------------------------- the seed


def test_the_same_seed_gives_the_same_order_and_digest_and_another_seed_another():
    first, again, other = (training_set(PLAN, CASES, BANK, settings(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.digest.startswith("sha256:")
    assert other.digest != first.digest
    composed = [{case.text for case in one.cases if case.provenance == "composed"} for one in (first, other)]
    assert not composed[0] & composed[1]
    full = [[case.id for case in one.cases if case.provenance == "hand"] for one in (first, other)]
    assert full[0] != full[1]
    assert sorted(full[0]) == sorted(full[1])


def test_a_changed_label_changes_the_digest_and_an_id_does_not():
    first, second = same_text({"liver_mets": "no"}, {"liver_mets": "yes"})
    digests = {
        name: training_set(PLAN, [case], None, settings(composed=0)).digest
        for name, case in {
            "first": first,
            "renamed": first.model_copy(update={"id": "another"}),
            "relabelled": second,
        }.items()
    }
    assert digests["first"] == digests["renamed"] != digests["relabelled"]


# ------------------------------------------------------------------------------------ refusals


def test_one_text_with_contradicting_labels_is_refused_by_ids_and_findings_and_never_shown():
    cases = same_text({"liver_mets": "no", "sma_contact": "none"}, {"liver_mets": "yes", "sma_contact": ">180"})
    with pytest.raises(CaseError) as caught:
        training_set(PLAN, cases, None, settings(composed=0))
    said = str(caught.value)
    assert "case-a" in said
    assert "case-b" in said
    assert "different labels for liver_mets, sma_contact;" in said
    assert CANARY not in said


def test_one_text_twice_with_the_same_labels_is_no_contradiction():
    cases = same_text({"liver_mets": "no"}, {"liver_mets": "no"})
    assert len(training_set(PLAN, cases, None, settings(composed=0)).cases) == 2


def test_a_case_that_contradicts_the_rules_is_refused():
    wrong = DEVELOPMENT[0].model_copy(update={"outcome": "metastatic", "rule": "distant_metastasis"})
    with pytest.raises(CaseError, match=f"case {wrong.id}: expects metastatic"):
        training_set(PLAN, [wrong], None, settings(composed=0))


def test_composed_reports_without_a_phrase_bank_are_refused():
    with pytest.raises(CaseError, match="no phrase bank beside the cases"):
        training_set(PLAN, CASES, None, settings(composed=1))


def test_a_phrase_bank_of_another_topic_is_refused():
    with pytest.raises(CaseError, match="phrase bank of topic 'toy', plan of topic 'pancreatic_cancer'"):
        training_set(PLAN, CASES, parts_bank(), settings())


@pytest.mark.parametrize(
    ("cases", "changes"),
    [
        ((), {}),
        ([case for case in CASES if case.split != "development"], {}),
        (DEVELOPMENT, {"without_styles": frozenset(case.style for case in DEVELOPMENT)}),
    ],
    ids=["no case", "none of the development split", "every style left out"],
)
def test_a_plan_without_development_cases_is_refused(cases, changes):
    with pytest.raises(CaseError, match="no case of the development split"):
        training_set(PLAN, cases, BANK, settings(composed=0, **changes))


@pytest.mark.parametrize("changes", [{"composed": -1}, {"repeats": -1}, {"composed": 0, "repeats": 0}])
def test_amounts_that_cannot_be_are_refused(changes):
    with pytest.raises(SettingsError, match="not be negative, and not both 0"):
        settings(**changes)
