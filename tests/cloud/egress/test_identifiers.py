"""What could identify a person is found; what only looks like it in a report, a guideline or a plan is not."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.cloud.egress.identifiers import Identifier, IdentifierKind, find_identifiers, plain
from medorchestra.cloud.guideline import read_guideline
from medorchestra.synthetic import read_cases
from medorchestra.topics import topics

ROOT = Path(__file__).parents[3]
QUERIES = ROOT / "tests" / "data" / "phi_queries" / "synthetic_dataset.txt"


def found(text):
    return [(one.kind.value, text[one.start : one.end]) for one in find_identifiers(text)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Patient: Jane Doe\nCT pancreas", "name", "Jane Doe"),
        ("PATIENT NAME: PRIYANKA RAMASWAMY", "name", "PRIYANKA RAMASWAMY"),
        ("patient name: jane doe", "name", "jane doe"),
        ("Telephoned to Dr. O'Brien at 14:20", "name", "Dr. O'Brien"),
        ("Discussed with Mrs. van der Berg", "name", "Mrs. van der Berg"),
        ("MR SMITH WAS SCANNED", "name", "MR SMITH"),
        ("Befund an Herr Müller", "name", "Herr Müller"),
        ("John Smith, 54-year-old with jaundice", "name", "John Smith"),
        ("54-year-old man, Tariq Okonjo, with jaundice", "name", "Tariq Okonjo"),
        ("follow-up of Anna S., treated before", "name", "Anna S"),
        ("seen by Nomvula Dlamini, who agreed", "name", "Nomvula Dlamini"),
        ("Finalised Ngozi Adeyemi, FRCR", "name", "Ngozi Adeyemi"),
        ("SMITH, JOHN  CT ABDOMEN", "name", "SMITH, JOHN"),
        ("DOE^JANE^A", "name", "DOE^JANE^A"),
        ("Dictated: J. Smith", "name", "J. Smith"),
        ("as in Robert's notes", "name", "Robert"),
        ("姓名:王小明", "name", "姓名:王小明"),
        ("DOB 12/03/1951", "date_of_birth", "DOB 12/03/1951"),
        ("born March 1951", "date_of_birth", "born March 1951"),
        ("geb. 12.03.1951", "date_of_birth", "geb. 12.03.1951"),
        ("CT of 3 March 2024", "date", "3 March 2024"),
        ("on Sept 15 2022.", "date", "Sept 15 2022"),
        ("on Nov 11th '23", "date", "Nov 11th '23"),
        ("2024-03-12T10:20", "date", "2024-03-12"),
        ("vom 12.03.2024", "date", "12.03.2024"),
        ("2024년 3월 12일", "date", "2024년 3월 12일"),
        ("MRN 12345, stable", "record_number", "MRN 12345"),
        ("insurance is QX-789012", "record_number", "insurance is QX-789012"),
        ("Accession: A23-0045678", "record_number", "Accession: A23-0045678"),
        ("study 1.2.840.113619.2.55.3.604688119.971", "record_number", "1.2.840.113619.2.55.3.604688119.971"),
        ("scan of 20240312", "record_number", "20240312"),
        ("SSN 123-45-6789", "national_id", "123-45-6789"),
        ("943 476 5919", "national_id", "943 476 5919"),
        ("900101-1234567", "national_id", "900101-1234567"),
        ("12345678Z", "national_id", "12345678Z"),
        ("call (123) 456-7890", "phone", "(123) 456-7890"),
        ("+44 20 7946 0958", "phone", "+44 20 7946 0958"),
        ("bleep 1234", "phone", "bleep 1234"),
        ("to lisa.m@example.com now", "email", "lisa.m@example.com"),
        ("https://pacs.example.org/study/1", "url", "https://pacs.example.org/study/1"),
        ("10.20.30.40", "url", "10.20.30.40"),
        ("221B Baker Street", "address", "221B Baker Street"),
        ("London NW1 6XE", "address", "NW1 6XE"),
        ("in Brooklyn, NY with pain", "address", "Brooklyn, NY"),
        ("CT from Cedar Creek Clinic", "place", "Cedar Creek Clinic"),
        ("admitted to Stanford on call", "place", "Stanford"),
        ("key sk-proj-abcdefghijklmnop1234", "secret", "sk-proj-abcdefghijklmnop1234"),
    ],
)
def test_an_identifier_is_found_with_its_kind_and_place(text, kind, value):
    assert any(one == kind and value in span for one, span in found(text)), found(text)


@pytest.mark.parametrize(
    "text",
    [
        "CT PANCREAS PROTOCOL. COMPARISON: CT 12/2023 and MRI of March 2022.",
        "MR Pancreas with MRCP. MR ABDOMEN WITHOUT CONTRAST. MR. Liver: no focal lesion. DR CHEST.",
        "Whipple procedure, Billroth II, Roux-en-Y. Couinaud segments IVa, V and VIII. 45 Hounsfield Units.",
        "Bosniak IIF cyst. Bismuth-Corlette type IIIa. Todani type I. Michels III. Gleason 3+4. Child-Pugh B.",
        "Segments 4/5/8, 2.4 x 1.9 cm, contact 90-120 degrees, image 45/120, L4/5, 10-12-15 mm, 3/12/24 mm.",
        "Pouch of Douglas, Morison's pouch, Ampulla of Vater, Gastrocolic Trunk of Henle, Arc of Riolan, Allen Test.",
        "Virchow node. Sister Mary Joseph nodule. Jackson Pratt drain. Kelly Clamp. Denver Shunt. Charcot Triad.",
        "CA 19-9 1,240 U/mL, CEA 4.5, 120 kVp, DLP 1234 mGycm, 100 mL at 3.5 mL/s, T2 2CM, L4 5MM.",
        "Superior Mesenteric Artery: Contact <= 180 degrees. Replaced Right Hepatic Artery. Celiac Axis: Not Provided.",
        "54-year-old male, Crohn disease. 65-year-old woman, CT Abdomen requested. 71M, painless jaundice.",
        "Radiologist: not stated. Reported by: Consultant Radiologist. Clinician: Oncology MDT. Patient: Male, adult.",
        "Discussed with Referring Team. Seen by Pancreatic MDT. Seen in Segment VI. Evaluated at MRI.",
        "Outside Hospital CT. The University Hospital protocol. Imaging at the Referring Hospital. II. Clinical data.",
        "Hepatitis B carrier. Vitamin D. Factor V Leiden. E. coli, H. pylori, C. difficile. Frank Ascites. Stage IV.",
        "Wilson disease, Budd-Chiari, Peutz-Jeghers, Lynch Syndrome, Von Hippel-Lindau, MD Anderson criteria.",
        "May 2.4 cm node. Mark the duct. Dec 10 cm. In 2021 and last month. A 64-year-old, seen last week.",
        "doi:10.1148/radiol.2351011234 PMID 31234567 NCT01234567 arXiv:2505.23806",
        'rule 3: sma_contact = "<=180", probability 0.8333333333, unit: 100, order: 1000, reference: 2019',
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        '{"name": "Borderline resectable", "label": "Locally advanced", "cites": ["3.1"]}',
        "Patient name: not provided. Patient positioned supine. Patient is a 64-year-old man.",
    ],
)
def test_words_of_staging_are_no_identifiers(text):
    assert found(text) == []


def test_typographic_dashes_spaces_and_digits_hide_nothing():
    assert found("MRN\u00a0123456") == [("record_number", "MRN\u00a0123456")]
    assert found("123\u201145\u20136789") == [("national_id", "123\u201145\u20136789")]
    assert found("on 12\uff0f03\uff0f2024") == [("date", "12\uff0f03\uff0f2024")]
    assert found("MRN \uff11\uff12\uff13\uff14\uff15") == [("record_number", "MRN \uff11\uff12\uff13\uff14\uff15")]


def test_only_the_right_check_digit_makes_an_nhs_number():
    assert [kind for kind, _ in found("943 476 5919 and 943 476 5918")] == ["national_id", "phone"]


def test_an_identifier_shows_no_text():
    assert repr(find_identifiers("MRN 12345")[0]) == (
        "Identifier(kind=<IdentifierKind.RECORD_NUMBER: 'record_number'>, start=0, end=9)"
    )


def test_where_two_overlap_the_more_telling_kind_stays():
    text = "DOB 12/03/1951"
    assert find_identifiers(text) == (Identifier(IdentifierKind.DATE_OF_BIRTH, 0, len(text)),)


@given(st.text(max_size=300))
def test_spans_lie_in_the_text_in_order_and_do_not_overlap(text):
    spans = [(one.start, one.end) for one in find_identifiers(text)]
    assert len(plain(text)) == len(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(one[1] <= two[0] for one, two in pairwise(spans))


@pytest.mark.parametrize(
    "piece", ["1", "A ", "Dr. ", "a@", "1-", "Hospital ", "A. ", "54-year-old ", "MRN ", "1.2", ":-"]
)
def test_no_text_makes_the_scan_slow(piece):
    text = piece * (20_000 // len(piece)) + "a"
    start = time.perf_counter()
    find_identifiers(text)
    assert time.perf_counter() - start < 5  # about 0.1 s; a pattern that backtracks takes minutes


@pytest.mark.parametrize("topic", topics())
def test_no_synthetic_case_raises_a_false_alarm(topic):
    alarms = {case.id: [one.kind.value for one in find_identifiers(case.text)] for case in read_cases(topic)}
    assert {case_id: kinds for case_id, kinds in alarms.items() if kinds} == {}


@pytest.mark.parametrize("topic", topics())
def test_no_guideline_raises_a_false_alarm(topic):
    guideline = read_guideline(ROOT / "guidelines" / topic / "guideline.md")
    assert [found(f"{section.title}\n{section.text}") for section in guideline.sections.values()] == [
        [] for _ in guideline.sections
    ]


def test_every_query_with_identifiers_raises_an_alarm_and_few_without():
    """Both halves together, as a floor against regressions; benchmarks/privacy has the figures of each."""
    missed, alarms, with_tags, without = 0, 0, 0, 0
    for block in QUERIES.read_text(encoding="utf-8").split("===QUERY===")[1:]:
        query, _, lines = block.partition("===PHI_TAGS===")
        tags = [json.loads(line) for line in lines.splitlines() if line.strip()]
        hit = bool(find_identifiers(query.strip()))
        with_tags, without = with_tags + bool(tags), without + (not tags)
        missed += bool(tags) and not hit
        alarms += hit and not tags
    assert (with_tags, without) == (414, 112)
    assert missed <= 4
    assert alarms <= 8
