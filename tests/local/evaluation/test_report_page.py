"""The page of an evaluation: stands alone, escapes everything, shows report text only where it is handed in."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from made_up_evaluation import OUTCOMES, made_up_evaluation, nothing_measured

from medorchestra.local.batch import DISCLAIMER
from medorchestra.local.evaluation import report_page
from medorchestra.local.evaluation.evaluation import Evaluation, WrongCase
from medorchestra.local.evaluation.measures import share_of
from medorchestra.local.evaluation.report_page import evaluation_page

HOSTILE = "<script>alert(1)</script> {{ 7*7 }} <!-- & \"quoted\" 'too' </td></svg>"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """What a browser makes of the page: tags, table rows, text of the reports, everything that is read."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.rows, self.reports, self.words = [], [], [], []
        self._open = []
        self.feed(html.replace("\r\n", "\n").replace("\r", "\n"))
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "pre":
            self.reports.append("")
        elif tag == "div" and {"td", "th"} & set(self._open):
            self.rows[-1][-1] += " "

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.words.append(data)
        if "pre" in self._open:
            self.reports[-1] += data
        elif "td" in self._open or ("th" in self._open and "tr" in self._open):
            self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def rows_of(self, name):
        return [[" ".join(cell.split()) for cell in row] for row in self.rows if row and row[0].strip() == name]


EVALUATION = made_up_evaluation()
PAGE = evaluation_page(EVALUATION)
SMALL = made_up_evaluation(runs=EVALUATION.runs[:1], readers=())


def test_the_page_stands_alone_without_script_and_its_links_lead_somewhere():
    page = Page(PAGE)
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "link", "img", "image", "iframe", "object", "base", "form"}
    )
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert set(ids.values()) == {1}
    for _, attributes in page.tags:
        assert not any(name == "src" or name.startswith("on") for name in attributes)
        for name, value in attributes.items():
            if name.endswith("href"):
                assert value.startswith("#")
                assert value[1:] in ids
            for target in re.findall(r"url\(#([^)]+)\)", value or ""):
                assert target in ids
    assert "url(" not in re.sub(r"url\(#", "", PAGE)
    assert "@import" not in PAGE


def test_the_same_evaluation_gives_the_same_page():
    assert evaluation_page(made_up_evaluation()) == PAGE


def test_the_page_has_every_picture():
    drawn = Counter(a["aria-label"] for tag, a in Page(PAGE).tags if tag == "svg")
    assert drawn == {
        "Accuracies with intervals": 1,
        "True outcomes against what was said": 4,
        "Risk and coverage": 1,
        "Stated against true probability": 3,
        "Findings and the decisions they cost": 2,
    }


def test_every_run_and_reader_stands_in_the_table_of_strategies_with_its_interval():
    page = Page(PAGE)
    assert page.rows_of("orchestrated + adapter")[0][1:4] == ["25 of 30", "83.3 %", "66.4 % to 92.7 %"]
    assert page.rows_of("direct")[0][1:4] == ["11 of 30", "36.7 %", "21.9 % to 54.5 %"]
    assert page.rows_of("reader_1")[0][1:4] == ["26 of 30", "86.7 %", "70.3 % to 94.7 %"]
    assert page.rows_of("direct")[1] == ["direct", "–", "–", "0 % 0 of 2 0 % to 65.8 %", "2", "1.30", "18,230"]


def test_the_tables_hold_what_was_measured():
    page = Page(PAGE)
    assert ["resectable", "8", "9", "77.8 %", "87.5 %", "0.824"] in page.rows_of("resectable")
    assert ["pv smv contact", "9", "30", "4", "1"] in page.rows_of("pv smv contact")
    assert any(row[1] == "orchestrated + adapter" and row[4] == "0.688" for row in page.rows_of("reader_1"))
    assert [row[1:] for row in page.rows_of("structured")] == [
        ["38.5 % 5 of 13 17.7 % to 64.5 %"] * 2 + ["84.6 % 11 of 13 57.8 % to 95.7 %"]
    ]
    assert "With every finding read right the rules would come to the true outcome in 29 of 30 cases" in page.text
    assert "Right decisions that rest on such a value: cha contact 2." in page.text


def test_every_wrong_decision_is_listed_with_its_cause_and_the_hardest_case_comes_first():
    page = Page(PAGE)
    said = Counter(wrong.case_id for wrong in EVALUATION.wrong)
    listed = [row[0].strip() for row in page.rows if row and row[0].strip() in said]
    assert sorted(listed) == sorted(said)
    assert [said[case_id] for case_id in listed] == sorted(said.values(), reverse=True)
    assert page.rows_of("case-006")[0][1:4] == ["resectable", "direct", "borderline"]
    adapted = next(row for row in page.rows if row[:2] == ["orchestrated + adapter", "borderline"])
    assert adapted[2] == "a finding was read with another value than it has: pv smv contact"


def test_a_long_list_of_wrong_decisions_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(report_page, "MOST_WRONG", 2)
    report_page._environment.cache_clear()
    try:
        wrong = tuple(WrongCase("direct", f"only-{place}", "resectable", "open") for place in range(5))
        page = Page(evaluation_page(replace(SMALL, wrong=wrong)))
    finally:
        report_page._environment.cache_clear()
    assert [row[0] for row in page.rows if row and row[0].startswith("only-")] == ["only-0", "only-1"]
    assert "3 more cases are not shown here" in page.text


def test_the_disclaimer_stands_there_once():
    assert PAGE.count(DISCLAIMER) == 1


def test_report_text_is_shown_only_where_it_is_handed_in_and_only_of_wrong_cases():
    assert "<pre" not in PAGE
    assert "must not leave" not in PAGE
    texts = {"case-002": "Canary of a wrong case.", "case-000": "Canary of a right case."}
    page = Page(evaluation_page(SMALL, texts=texts))
    assert page.reports == ["\nCanary of a wrong case."]
    assert "Canary of a right case" not in page.text
    assert "This page shows report text." in page.text


@pytest.mark.parametrize("text", ["", "\n\nIndented\r\nand\rtabbed\t", HOSTILE, "nul \x00 and half \ud800 a pair"])
def test_report_text_is_shown_to_the_letter_and_inert(text):
    html = evaluation_page(SMALL, texts={"case-002": text})
    (shown,) = Page(html).reports
    assert shown.startswith("\n")  # a browser drops the line end that follows <pre>
    assert shown[1:] == text.replace("\x00", "␀").replace("\ud800", "�")
    html.encode()


def test_everything_that_comes_from_a_file_is_escaped():
    run = replace(EVALUATION.runs[0], name=HOSTILE, groups={HOSTILE: {HOSTILE: share_of([True])}})
    hostile: Evaluation = made_up_evaluation(
        title=HOSTILE,
        topic=HOSTILE,
        runs=(run,),
        readers=(replace(EVALUATION.readers[0], name=HOSTILE),),
        wrong=(WrongCase(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        about={HOSTILE: {HOSTILE: [HOSTILE]}, "command": [HOSTILE]},
    )
    html = evaluation_page(hostile)
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<!--" not in html
    assert "49" not in page.rows_of(HOSTILE)[0][0]
    assert page.rows_of(HOSTILE)


def test_what_is_not_defined_is_a_dash_and_what_was_not_measured_has_no_section():
    page = Page(evaluation_page(nothing_measured()))
    assert not re.search(r"\b(nan|None|inf)\b", page.text)
    assert page.rows_of("direct")[0][1:] == ["none counted", "–", "–", "–"]
    assert page.rows_of("resectable")[0] == ["resectable", "0", "0", "–", "–", "–"]
    anchors = {attributes["id"] for tag, attributes in page.tags if tag == "section"}
    assert anchors == {"summary", "strategies", "comparisons", "readers", "outcomes", "what"}
    assert {a["href"][1:] for tag, a in page.tags if tag == "a"} == anchors - {"summary"}


def test_what_was_run_is_told_to_the_last_setting():
    page = Page(PAGE)
    assert page.rows_of("digest") == [["digest", EVALUATION.plan_digest]] * 2
    assert page.rows_of("settings, context") == [["settings, context", "2048"]] * 2
    assert page.rows_of("adapter") == [["adapter", "none"], ["adapter", "adapter.gguf"]]
    assert page.rows_of("command") == [["command", "medorchestra evaluate 'thirty cases.csv'"]]
    assert page.rows_of("made on") == [["made on", "2031-05-04"]]
    assert page.rows_of("scipy") == [["scipy", "none"]]


def test_an_order_of_the_outcomes_is_named_where_kappa_is_weighted_by_it():
    assert f"in the order {', '.join(OUTCOMES)}".replace("_", " ") in Page(PAGE).text
    unordered = replace(SMALL, order=(), readers=EVALUATION.readers)
    assert "there is no weighted kappa" in Page(evaluation_page(unordered)).text
