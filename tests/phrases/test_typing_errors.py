"""Typing errors never touch what a sentence turns on."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.phrases.typing_errors import NEGATIONS, TypingErrors, words_of

ERRORS = TypingErrors(protected=("coeliac axis",), vocabulary=("casual", "causal", "regular", "irregular"))
SENTENCE = "No contact with the SMA, previously 95 degrees; irregular contour without thrombus of the coeliac axis."


@given(st.integers(0, 10**6))
def test_negations_numbers_abbreviations_and_protected_words_stay(seed):
    text = ERRORS.put_into(SENTENCE, random.Random(seed), 1.0)
    for kept in ("No ", " SMA,", " previously 95 ", " without ", " coeliac axis.", " the ", " of "):
        assert kept in text
    assert text != SENTENCE


@given(st.integers(0, 10**6), st.sampled_from(["causal", "irregular", "regular"]))
def test_no_word_becomes_another_word_that_occurs(seed, word):
    mistyped = ERRORS.put_into(word, random.Random(seed), 1.0)
    assert mistyped == word or mistyped not in ERRORS.vocabulary


@given(st.integers(0, 10**6), st.text(max_size=80), st.floats(0, 1))
def test_blanks_and_digits_and_first_letters_are_never_touched(seed, text, rate):
    mistyped = ERRORS.put_into(text, random.Random(seed), rate)
    assert re.findall(r"\s+", mistyped) == re.findall(r"\s+", text)
    assert re.findall(r"\d", mistyped) == re.findall(r"\d", text)
    assert [run[0] for run in mistyped.split()] == [run[0] for run in text.split()]


@pytest.mark.parametrize("word", sorted(NEGATIONS))
def test_a_negation_may_not_have_an_error(word):
    assert not ERRORS.may_have_one(word)
    assert not ERRORS.may_have_one(word.capitalize())


def test_at_rate_nought_nothing_happens_and_at_rate_one_most_words_are_mistyped():
    rng = random.Random(2)
    text = "hypodense lesion abutting vessel margin " * 20
    assert ERRORS.put_into(text, rng, 0.0) == text
    before, after = text.split(), ERRORS.put_into(text, rng, 1.0).split()
    changed = sum(old != new for old, new in zip(before, after, strict=True))
    assert changed > 80
    assert words_of("The SMA, 95°") == {"the", "sma"}
