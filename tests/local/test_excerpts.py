"""What is read of a report that is not read whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.local.excerpts import GAP, FocusedReading, whole_report
from medorchestra.local.measurements import measurements_in
from medorchestra.plan_pieces import NumberRange

TEXT = (
    "CT abdomen. Mass of 3 cm in the head. The SMA is encased over 200 degrees. Spleen normal.\n"
    "No arterial variant. The liver is clear."
)
TERMS = ("SMA", "arter*")


def words(text):
    return len(text.split())


def test_the_whole_report_is_read_as_it_stands():
    excerpt = whole_report(TEXT)
    assert (excerpt.text, excerpt.characters, excerpt.complete) == (TEXT, len(TEXT), True)
    assert excerpt.holds(0, len(TEXT))


def test_sentences_with_a_term_are_read_in_the_order_of_the_report():
    excerpt = FocusedReading("No arterial variant. Spleen normal. SMA free.", words).excerpt(TERMS, 100)
    assert excerpt.text == "No arterial variant.\nSMA free."
    assert excerpt.complete
    assert excerpt.characters == len(excerpt.text) - len(GAP)


def test_where_room_is_short_the_best_sentences_are_kept_and_the_rest_is_known_to_be_missing():
    excerpt = FocusedReading(TEXT, words).excerpt(TERMS, 8)
    assert excerpt.text == "The SMA is encased over 200 degrees."
    assert not excerpt.complete


def test_a_shorter_sentence_takes_the_room_that_a_better_but_longer_one_cannot_have():
    excerpt = FocusedReading(TEXT, words).excerpt(TERMS, 7)
    assert excerpt.text == "No arterial variant."
    assert not excerpt.complete


@pytest.mark.parametrize(("terms", "room"), [(("spine",), 100), ((), 100), (TERMS, 3), (TERMS, 0), (TERMS, -5)])
def test_no_term_or_no_room_is_no_excerpt(terms, room):
    assert FocusedReading(TEXT, words).excerpt(terms, room) is None


def test_a_place_is_in_an_excerpt_only_where_it_stands_uncut():
    text = "A cyst of 2 cm. The mass measures 3.2 cm."
    excerpt = FocusedReading(text, words).excerpt(("mass",), 100)
    assert "2 cm" in excerpt.text
    held = [place.words for place in measurements_in(text, NumberRange(unit="cm", minimum=0, maximum=9))]
    assert held == ["2 cm", "3.2 cm"]
    places = measurements_in(text, NumberRange(unit="cm", minimum=0, maximum=9))
    assert [excerpt.holds(place.start, place.end) for place in places] == [False, True]
    assert not excerpt.holds(10, 20)


def test_a_negation_wrapped_onto_the_line_before_is_read_with_its_object():
    text = "Unremarkable spleen and kidneys. There is no evidence of\nliver metastases or peritoneal disease."
    excerpt = FocusedReading(text, words).excerpt(("liver",), 100)
    assert excerpt.text == "There is no evidence of\nliver metastases or peritoneal disease."


def test_an_excerpt_prints_without_its_text():
    assert repr(whole_report("ZEBRA")) == "Excerpt(5 characters, 1 spans, complete=True)"


@given(
    st.lists(st.sampled_from(["SMA free.", "No arterial contact at all.", "Liver clear."]), max_size=12),
    st.integers(0, 30),
)
def test_an_excerpt_never_costs_more_than_its_room_and_stands_in_the_report(lines, room):
    text = "\n".join(lines)
    focus = FocusedReading(text, words)
    excerpt = focus.excerpt(TERMS, room)
    named = [one for one in focus.sentences if "Liver" not in text[one.start : one.end]]
    if excerpt is None:
        assert all(words(text[one.start : one.end]) + 1 > room for one in named)
        return
    assert words(excerpt.text) + len(excerpt.spans) <= room
    assert excerpt.text == GAP.join(text[span.start : span.end] for span in excerpt.spans)
    assert excerpt.complete == (len(excerpt.spans) == len(named))
