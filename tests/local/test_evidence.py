"""The sentence an answer rests on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medorchestra.local.evidence import MAX_QUOTES, supporting_quotes
from medorchestra.local.sentences import sentences_of

TERMS = ("SMA", "superior mesenteric artery", "vascular", "arter*")


def quotes(text, label="more than 180 degrees"):
    return supporting_quotes(text, sentences_of(text), TERMS, label)


def test_the_sentence_that_names_the_vessel_beats_a_blanket_statement():
    text = "No vascular involvement elsewhere. Tumour encases the SMA by 200 degrees."
    assert quotes(text)[0].text == "Tumour encases the SMA by 200 degrees."


def test_among_sentences_on_the_vessel_the_one_in_the_words_of_the_label_wins():
    text = "SMA patent. SMA contact of more than 180 degrees."
    assert quotes(text)[0].text == "SMA contact of more than 180 degrees."


def test_a_blanket_statement_supports_where_nothing_else_does():
    assert quotes("Arterial anatomy is normal. Arteries are free.")[0].text == "Arterial anatomy is normal."


def test_no_sentence_found_is_no_quote():
    assert quotes("Liver normal. Spleen normal.") == ()


@given(st.lists(st.sampled_from(["SMA free.", "Liver normal.", "Arteries free.", "x"]), max_size=8))
def test_quotes_are_verbatim_ranked_and_few(lines):
    text = "\n".join(lines)
    found = quotes(text)
    assert len(found) <= MAX_QUOTES
    assert all(text[q.start : q.end] == q.text for q in found)
    assert [q.score for q in found] == sorted((q.score for q in found), reverse=True)
    assert all(0 < q.score <= 1 for q in found)
