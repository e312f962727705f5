"""Answers are values that survive JSON and print without report text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from strategies import answers

from medorchestra.local.answers import Answer, AnswerStatus, Quote


@given(answers())
def test_an_answer_survives_json(answer):
    assert Answer.from_json(json.loads(json.dumps(answer.to_json()))) == answer


@pytest.mark.parametrize("value", ["<=180", 2.4, ("The SMA is free.", "No ascites."), None])
def test_a_value_comes_back_in_its_own_type(value):
    answer = Answer("sma_contact", "sma_contact", AnswerStatus.OK, value)
    back = Answer.from_json(json.loads(json.dumps(answer.to_json()))).value
    assert (back, type(back)) == (value, type(value))


def test_a_stored_answer_with_an_unknown_status_or_field_is_refused():
    stored = Answer("sma_contact", "sma_contact", AnswerStatus.OK, "none").to_json()
    with pytest.raises(ValueError, match="guessed"):
        Answer.from_json(stored | {"status": "guessed"})
    with pytest.raises(TypeError):
        Answer.from_json(stored | {"confidence": 1})


def test_silence_is_an_answer_and_only_readings_that_did_not_happen_are_failures():
    failures = {status for status in AnswerStatus if status.is_failure}
    assert failures == {AnswerStatus.UNPARSABLE, AnswerStatus.TOO_LONG, AnswerStatus.FAILED}


def test_a_skipped_answer_is_no_failure_and_keeps_its_reason():
    answer = Answer("sma_contact", "sma_contact", AnswerStatus.SKIPPED, reason="it rests on liver_mets")
    assert not answer.status.is_failure
    assert answer.probability is None
    assert Answer.from_json(json.loads(json.dumps(answer.to_json()))) == answer


def test_the_probability_is_that_of_the_value_and_unknown_where_nothing_was_scored():
    scored = Answer("liver_mets", "liver_mets", AnswerStatus.OK, "no", {"no": 0.7, "yes": 0.2, "not_stated": 0.1})
    assert scored.probability == 0.7
    assert Answer("history", None, AnswerStatus.OK, "Known PDAC.").probability is None


def test_an_answer_read_from_a_part_of_the_report_says_so():
    assert Answer("size", "size", AnswerStatus.OK, 2.4, characters_read=900, characters_total=900).read_whole_report
    assert not Answer("size", "size", AnswerStatus.OK, 2.4, characters_read=90, characters_total=900).read_whole_report


def test_answers_and_quotes_print_without_report_text():
    quote = Quote(0, 17, "Mrs. Canary, 1948", 0.9, "model")
    answer = Answer("history", None, AnswerStatus.OK, "Mrs. Canary, 1948", quotes=(quote,))
    for shown in (repr(quote), str(quote), repr(answer), f"{answer}"):
        assert "Canary" not in shown
        assert "1948" not in shown
