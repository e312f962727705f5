"""Solved examples: out of development cases, verbatim, balanced over values, and about their finding."""

from __future__ import annotations

from collections import Counter

import pytest
from plan_by_hand import PLAN_BY_HAND, cases_by_hand

from medorchestra.cloud.cases.example_choice import EXAMPLES_FOR_A_FINDING, choose_examples, without_leaks
from medorchestra.synthetic import labelled

PLAN = PLAN_BY_HAND
CASES = cases_by_hand("development")


def examples_of(plan, finding):
    return next(subtask.examples for subtask in plan.subtasks if subtask.finding == finding)


def a_case(case_id, text, **findings):
    return labelled(PLAN, findings, id=case_id, split="development", form="free_text", style="s", text=text)


def test_examples_stand_word_for_word_in_development_cases_that_have_their_value():
    by_id = {case.id: case for case in CASES}
    plan = choose_examples(PLAN, CASES)
    chosen = [(subtask, example) for subtask in plan.subtasks for example in subtask.examples]
    assert len(chosen) > 60
    for subtask, example in chosen:
        case = by_id[example.case]
        assert example.text in case.text
        assert case.known()[subtask.finding] == example.value
        assert "\n" not in example.text
    assert max(len(subtask.examples) for subtask in plan.subtasks) == EXAMPLES_FOR_A_FINDING


def test_numbers_get_no_examples_because_their_answers_are_measurements():
    assert examples_of(choose_examples(PLAN, CASES), "tumor_size_cm") == ()


def test_values_are_balanced_as_far_as_there_are_sentences():
    texts = {
        "none": "The SMA is free of tumour {}.",
        "<=180": "Tumour abuts the SMA, case {}.",
        ">180": "The SMA is encased, case {}.",
    }
    cases = [
        a_case(f"{value}-{n}", text.format(n), sma_contact=value)
        for value, text in texts.items()
        for n in range(5 if value == "none" else 2)
    ]
    counted = Counter(example.value for example in examples_of(choose_examples(PLAN, cases), "sma_contact"))
    assert counted == {"none": 2, "<=180": 2, ">180": 2}


def test_a_report_that_speaks_of_the_finding_all_over_gives_no_example():
    text = "The SMA is seen well. Fat around the SMA is normal. No tumour touches the SMA. The SMA is clear."
    assert examples_of(choose_examples(PLAN, [a_case("many", text, sma_contact="none")]), "sma_contact") == ()


def test_a_report_silent_on_the_finding_gives_an_example_of_not_stated():
    case = a_case("silent", "The SMA is patent and of normal calibre. Liver normal.", liver_mets="no")
    (example,) = examples_of(choose_examples(PLAN, [case]), "sma_contact")
    assert (example.value, example.text) == ("not_stated", "The SMA is patent and of normal calibre.")


def test_cases_of_another_split_are_refused():
    with pytest.raises(ValueError, match="not of the development split, first: cal-"):
        choose_examples(PLAN, cases_by_hand("calibration"))


def test_a_long_example_that_stands_in_a_case_of_another_split_is_taken_out_and_a_short_one_stays():
    long, short = "The SMA is free of tumour over the whole of its visible course.", "The SMA is clear of tumour."
    cases = [a_case("long", long, sma_contact="none"), a_case("short", short, sma_contact="none")]
    held_out = [
        case.model_copy(update={"id": f"h-{case.id}", "split": "held_out", "text": f"Liver normal. {case.text}"})
        for case in cases
    ]
    plan = choose_examples(PLAN, cases)
    assert {example.text for example in examples_of(plan, "sma_contact")} == {long, short}
    kept = without_leaks(plan, [*cases, *held_out])
    assert [example.text for example in examples_of(kept, "sma_contact")] == [short]
