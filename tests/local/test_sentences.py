"""Sentences as spans, and a plan's terms in them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.local.sentences import LONGEST, Sentence, has_term, sentences_of, terms_in


def pieces(text):
    return [text[s.start : s.end] for s in sentences_of(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SMA is free. No liver lesion.", ["SMA is free.", "No liver lesion."]),
        ("SMA: none\r\nCA: none\n\n  CHA: <=180", ["SMA: none", "CA: none", "CHA: <=180"]),
        ("A mass of 2.4 cm in the head. It abuts the SMV.", ["A mass of 2.4 cm in the head.", "It abuts the SMV."]),
        ("Mass approx. 3 cm. (See image 4.) Free SMA", ["Mass approx. 3 cm.", "(See image 4.)", "Free SMA"]),
        ("NO MASS. NO NODES; LIVER CLEAR", ["NO MASS.", "NO NODES;", "LIVER CLEAR"]),
        ("lower case. follows here", ["lower case. follows here"]),
        ("Metastases: no. Nodes: none", ["Metastases: no.", "Nodes: none"]),
        ("No contact with the CA. The SMA is free.", ["No contact with the CA.", "The SMA is free."]),
        (
            "Mass of ca. 3 cm in seg. 4 on image no. 12. SMA free",
            ["Mass of ca. 3 cm in seg. 4 on image no. 12.", "SMA free"],
        ),
        ("Étude du foie. Être prudent. Ödem.", ["Étude du foie.", "Être prudent.", "Ödem."]),
        ("   \n\t\n", []),
    ],
)
def test_reports_are_cut_where_a_reader_would_cut_them(text, expected):
    assert pieces(text) == expected


WRAPPED = """\
FINDINGS: There is an ill-defined mass in the head with no evidence of
liver metastases. The mass abuts the superior mesenteric artery over
120 degrees. There is no contact with the celiac axis. No enlarged
lymph nodes are seen. Measures approx.
3 cm."""

CAPITALS = """\
THERE IS NO EVIDENCE OF DISTANT METASTASIS AND IN PARTICULAR NONE OF
LIVER METASTASES. THE SUPERIOR MESENTERIC ARTERY IS NOT ENCASED BY THE
TUMOR."""


def test_a_wrapped_line_goes_on_in_the_next_so_that_no_negation_is_lost():
    assert [piece.replace("\n", " ") for piece in pieces(WRAPPED)] == [
        "FINDINGS: There is an ill-defined mass in the head with no evidence of liver metastases.",
        "The mass abuts the superior mesenteric artery over 120 degrees.",
        "There is no contact with the celiac axis.",
        "No enlarged lymph nodes are seen.",
        "Measures approx.",
        "3 cm.",
    ]
    assert [piece.replace("\n", " ") for piece in pieces(CAPITALS)] == [
        "THERE IS NO EVIDENCE OF DISTANT METASTASIS AND IN PARTICULAR NONE OF LIVER METASTASES.",
        "THE SUPERIOR MESENTERIC ARTERY IS NOT ENCASED BY THE TUMOR.",
    ]
    assert pieces(WRAPPED.replace("\n", "\r\n"))[0].endswith("no evidence of\r\nliver metastases.")


@pytest.mark.parametrize(
    "lines",
    [
        ["Liver metastases: two lesions in segment VI, consistent with metastases", "Peritoneal metastases: absent"],
        ["no ascites", "no enlarged nodes", "liver clear"],
        ["The mass abuts the portal vein with preserved lumen and contour here:", "smooth contour"],
        ["- contact with the superior mesenteric artery of about 90 degrees", "- celiac axis free of tumour"],
        ["contact with the superior mesenteric artery of about 90 degrees", "2) celiac axis free of tumour"],
        ["SMA: no contact of solid tumour, fat plane preserved all round it", "celiac axis: no contact"],
    ],
)
def test_lines_of_a_list_or_template_stay_apart(lines):
    assert pieces("\n".join(lines)) == lines


def test_a_blank_line_ends_a_sentence():
    long = "There is an ill-defined mass of the head which shows no evidence of"
    assert pieces(f"{long}\n\nliver metastases.") == [long, "liver metastases."]


def test_a_run_without_a_full_stop_is_cut_so_that_quotes_stay_readable():
    assert all(len(piece) <= LONGEST for piece in pieces("word " * 1000))
    assert "".join(pieces("x" * 2000)) == "x" * 2000


@given(st.text(alphabet=st.sampled_from("aB .,;:\n\r\t?!1°é膵"), max_size=300))
def test_spans_are_in_order_and_lose_only_white_space(text):
    found = sentences_of(text)
    assert all(first.end <= second.start for first, second in pairwise(found))
    assert "".join("".join(pieces(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "term", "found"),
    [
        ("The SMA is free", "SMA", True),
        ("the sma is free", "SMA", True),
        ("SMALL lesion", "SMA", False),
        ("pancreatic head", "pancrea*", True),
        ("peripancreatic fat", "pancrea*", False),
        ("common  hepatic\nartery", "common hepatic", True),
        ("SMV/PV", "PV", True),
        ("a.b", "a*b", False),
    ],
)
def test_terms_are_whole_words_and_a_star_lets_them_go_on(text, term, found):
    assert has_term(text, term) is found


def test_terms_are_looked_for_inside_the_sentence_only():
    text = "SMA free. CHA free."
    assert terms_in(text, Sentence(10, 19), ["SMA", "CHA"]) == (1,)
