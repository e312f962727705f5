"""Citations beside the guideline: where a quote stands, word for word, or that it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_with_parts import GUIDELINE, SECTIONS, plan_with_parts

from medorchestra.cloud.guideline import Guideline, Section
from medorchestra.plan import Citation
from medorchestra.plan_views.cited_sections import cited_sections, citers_of, place_of, unwrapped

PLAN = plan_with_parts()


def with_citation(section, quote):
    """The plan with its first rule citing this."""
    rule = PLAN.rules[0].model_copy(update={"citation": Citation(section=section, quote=quote)})
    return PLAN.model_copy(update={"rules": (rule, *PLAN.rules[1:])})


def section_of(plan, number):
    return next(section for section in cited_sections(plan, SECTIONS) if section.number == number)


@given(st.text(" \n\tab.", max_size=30), st.text(" \n\tab.", min_size=1, max_size=6).filter(str.strip))
def test_a_quote_is_found_exactly_where_the_guideline_says_it_cites_it(text, quote):
    section = {"1": Section("1", "T", text)}
    guideline = Guideline("t", "e", "s", "l", section, "sha256:" + "0" * 64)
    assert (place_of(quote, text) is not None) == guideline.cites("1", quote)


@given(st.text("ab \n-*1.)|", max_size=40))
def test_unwrapping_changes_white_space_only(text):
    assert unwrapped(text).split() == text.split()


def test_lists_and_paragraphs_keep_their_lines():
    assert unwrapped("one\ntwo\n\nthree\n- four\n1. five") == "one two\n\nthree\n- four\n1. five"


def test_the_stretches_of_a_section_are_its_text_and_the_marked_ones_the_quote():
    for section in cited_sections(PLAN, SECTIONS):
        text = "".join(stretch.text for stretch in section.stretches)
        assert text == unwrapped(SECTIONS[section.number][1])
        for quote in section.quotes:
            marked = "".join(stretch.text for stretch in section.stretches if quote in stretch.quotes)
            assert marked.split() == quote.text.split()


def test_every_section_is_there_in_order_and_every_citer_once():
    laid = cited_sections(PLAN, SECTIONS)
    assert [section.number for section in laid] == list(GUIDELINE.sections)
    found = [citer for section in laid for quote in section.quotes for citer in quote.citers]
    assert sorted(map(repr, found)) == sorted(map(repr, citers_of(PLAN)))
    assert len(found) == len(PLAN.all_rules) + len(PLAN.subtasks)


def test_a_quote_of_another_section_is_not_found_but_its_place_is_told():
    section = section_of(with_citation("4.1", "Stage IV is any T and any N with M1."), "4.1")
    lost = section.quotes[-1]
    assert (lost.found, lost.elsewhere) == (False, ("5.1",))
    assert not any(lost in stretch.quotes for stretch in section.stretches)


@pytest.mark.parametrize("quote", ["Stage IV is any T and any N with M0.", "stage IV is any T", "Stage  IV isany T"])
def test_words_that_differ_in_one_letter_are_not_verbatim(quote):
    lost = section_of(with_citation("5.1", quote), "5.1").quotes[-1]
    assert (lost.found, lost.elsewhere) == (False, ())


def test_a_section_that_does_not_exist_is_listed_last_as_unknown():
    section = cited_sections(with_citation("9.9", "Anything."), SECTIONS)[-1]
    assert (section.number, section.known, section.has_text) == ("9.9", False, False)
    assert not section.quotes[0].found
