"""What a notebook shows: one report with its quotes highlighted, a batch as a table."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_by_hand import PLAN_BY_HAND, cases_by_hand

from medorchestra.local.aggregator import decide
from medorchestra.local.answer_key import perfect_reader
from medorchestra.local.answers import Answer, AnswerStatus, Quote
from medorchestra.local.batch import DISCLAIMER, stage
from medorchestra.local.html_view import MOST_ROWS, chance, pieces_of, results_html, staged_report_html
from medorchestra.local.records import Report
from medorchestra.local.results import Results
from medorchestra.local.staged_report import ReportStatus, StagedReport
from medorchestra.rules import NOT_STATED

PLAN = PLAN_BY_HAND
CASES = {case.id: case for case in cases_by_hand("held_out")}
CLEAR = {
    "tumor_present": "yes",
    "liver_mets": "no",
    "sma_contact": "none",
    "ca_contact": "none",
    "cha_contact": "none",
    "pv_smv_contact": "none",
}
INERT = "<script>alert(1)</script> {{ 7*7 }} <|im_end|> <!-- & \"quoted\" 'too' </div></mark>"


class Shown(HTMLParser):
    """What a browser has in the document: text with the title of the highlight around it, classes, tags."""

    def __init__(self, html: str, *, inside: str = "medorchestra") -> None:
        super().__init__(convert_charrefs=True)
        self.characters: list[str] = []
        self.highlights: list[str | None] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._inside, self._open, self._depth, self._title = inside, [], None, None
        # A browser does this to line ends before it parses anything (HTML standard, preprocessing the input stream).
        self.feed(html.replace("\r\n", "\n").replace("\r", "\n"))
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "wbr":
            return
        self._open.append(tag)
        if self._inside in (attributes.get("class") or "").split():
            self._depth = len(self._open)
        if tag == "mark":
            self._title = attributes["title"] if self._depth and "title" in attributes else None

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "mark":
            self._title = None
        if self._depth is not None and len(self._open) < self._depth:
            self._depth = None

    def handle_data(self, data):
        if self._depth is not None and self._open[-1] != "style":
            self.characters += data
            self.highlights += [self._title] * len(data)

    @property
    def text(self) -> str:
        return "".join(self.characters)

    def table_rows(self) -> int:
        return sum(tag == "tr" for tag, _ in self.tags)


def certain_answer(name, value):
    stated = value != NOT_STATED
    finding = PLAN.finding(name)
    chances = {v: float(v == value) for v in finding.all_values} if finding.values else {str(value): 1.0}
    status = AnswerStatus.OK if stated else AnswerStatus.NOT_STATED
    return Answer(name, name, status, value if stated else None, chances, (), 10, 10)


def answers_with(**findings):
    values = {f.name: NOT_STATED for f in PLAN.findings} | CLEAR | findings
    return tuple(certain_answer(name, value) for name, value in values.items())


def staged_from(text, answers, *, report_id="R1"):
    decision = decide(PLAN, answers)
    status = ReportStatus.OPEN if decision.outcome is None else ReportStatus.DECIDED
    return StagedReport(PLAN, Report(report_id, text), status, decision, tuple(answers))


def quoted(answer, text, *spans):
    return replace(answer, quotes=tuple(Quote(a, b, text[a:b], 0.8, "focus_terms") for a, b in spans))


CLEAR_ANSWERS = answers_with()
CLEAR_STAGED = staged_from("", CLEAR_ANSWERS)


def staged_case(case_id):
    case = CASES[case_id]
    return stage({case.id: case.text}, PLAN, model=perfect_reader(PLAN, [case]), unvalidated=True)[0]


report_texts = st.text(
    st.one_of(st.sampled_from("\r\n\t <>&\"'{}|$ 😀é"), st.characters(codec="utf-8", exclude_characters="\x00")),
    max_size=80,
)


@st.composite
def quoted_reports(draw):
    text = draw(report_texts)
    places = st.integers(0, len(text))
    spans = st.tuples(places, places).map(sorted).filter(lambda span: span[0] < span[1])
    quotes = st.lists(spans, max_size=3) if text else st.just([])
    chosen = draw(st.lists(st.sampled_from(range(len(CLEAR_ANSWERS))), max_size=6, unique=True))
    answers = list(CLEAR_ANSWERS)
    for place in chosen:
        answers[place] = quoted(answers[place], text, *draw(quotes))
    return text, tuple(answers)


@given(quoted_reports())
def test_the_highlighted_report_is_the_report_and_exactly_its_quotes_are_highlighted(quoted_report):
    text, answers = quoted_report
    staged = replace(CLEAR_STAGED, report=Report("R1", text), answers=answers)
    shown = Shown(staged_report_html(staged), inside="mo-report")
    assert shown.text == text
    covered = {place for a in answers for q in a.quotes for place in range(q.start, q.end)}
    assert {place for place, title in enumerate(shown.highlights) if title is not None} == covered


@given(quoted_reports())
def test_a_highlight_names_every_finding_whose_quote_lies_over_it(quoted_report):
    text, answers = quoted_report
    pieces = pieces_of(text, answers)
    assert "".join(piece.text for piece in pieces) == text
    start = 0
    for piece in pieces:
        covering = {a.subtask for a in answers if any(q.start <= start < q.end for q in a.quotes)}
        assert {answer.subtask for answer in piece.quoted_for} == covering
        start += len(piece.text)
    best_ends = [answer.subtask for piece in pieces for answer in piece.ends]
    assert sorted(best_ends) == sorted(a.subtask for a in answers if a.quotes)


def test_overlapping_quotes_carry_both_findings_where_they_overlap():
    text = "Fat planes around SMA and celiac axis are clear."
    sma, ca = (next(a for a in CLEAR_ANSWERS if a.finding == name) for name in ("sma_contact", "ca_contact"))
    answers = [quoted(sma, text, (0, 21)), quoted(ca, text, (18, 48))]
    others = [a for a in CLEAR_ANSWERS if a.finding not in ("sma_contact", "ca_contact")]
    shown = Shown(staged_report_html(staged_from(text, answers + others)), inside="mo-report")
    both = "SMA contact: no contact · CA contact: no contact"
    assert dict.fromkeys(shown.highlights) == dict.fromkeys(["SMA contact: no contact", both, "CA contact: no contact"])
    assert shown.highlights[18:21] == [both] * 3


def test_emoji_tabs_and_windows_line_ends_do_not_shift_a_highlight():
    text = "\r\nFINDINGS 😀:\r\n\tSMA: no contact.\r\n\tLiver:\tclear.\r\n"
    start = text.index("SMA")
    sma = next(a for a in CLEAR_ANSWERS if a.finding == "sma_contact")
    answers = [quoted(sma, text, (start, start + 16)), *(a for a in CLEAR_ANSWERS if a.finding != "sma_contact")]
    html = staged_report_html(staged_from(text, answers))
    shown = Shown(html, inside="mo-report")
    assert "\r" not in html
    assert shown.text == text
    lit = "".join(c for c, title in zip(shown.characters, shown.highlights, strict=True) if title)
    assert lit == "SMA: no contact."


def test_markup_in_a_report_is_shown_and_does_nothing():
    staged = staged_from(INERT, CLEAR_ANSWERS, report_id="<img src=x onerror=alert(1)>")
    html = staged_report_html(staged)
    assert Shown(html, inside="mo-report").text == INERT
    assert "<script" not in html
    assert "<img" not in html
    assert "<img" not in results_html(Results(PLAN, (staged,)))
    assert Shown(results_html(Results(PLAN, (staged,)))).text.count("<img src=x onerror=alert(1)>") == 1


def test_a_passage_the_model_wrote_is_as_inert_as_the_report():
    subtask = PLAN.subtasks[0].model_copy(update={"id": "passage", "finding": None, "answer": "text", "labels": {}})
    plan = PLAN.model_copy(update={"subtasks": (*PLAN.subtasks, subtask)})
    passage = Answer("passage", None, AnswerStatus.OK, INERT)
    html = staged_report_html(replace(CLEAR_STAGED, plan=plan, answers=(*CLEAR_ANSWERS, passage)))
    assert "<script" not in html
    assert INERT in Shown(html).text


def test_characters_that_html_cannot_hold_are_replaced_one_for_one():
    shown = Shown(staged_report_html(staged_from("a\x00b\ud800c", CLEAR_ANSWERS)), inside="mo-report")
    assert shown.text == "a␀b�c"


@pytest.mark.parametrize("case_id", sorted(CASES))
def test_every_held_out_case_is_shown_whole_and_self_contained(case_id):
    staged = staged_case(case_id)
    html = staged_report_html(staged)
    shown = Shown(html)
    assert Shown(html, inside="mo-report").text == CASES[case_id].text
    assert not any("id" in attributes or "src" in attributes or "href" in attributes for _, attributes in shown.tags)
    assert not any(name.startswith("on") for _, attributes in shown.tags for name in attributes)
    assert "http" not in html.replace(CASES[case_id].text, "")
    assert "url(" not in html
    assert "@import" not in html
    assert shown.text.count(DISCLAIMER) == 1


def test_every_selector_of_the_style_sheet_is_bound_to_the_one_class():
    html = staged_report_html(CLEAR_STAGED)
    style = re.sub(r"/\*.*?\*/", "", html.split("<style>")[1].split("</style>")[0], flags=re.DOTALL)
    selectors = [one.strip() for block in re.findall(r"([^{}]+)\{", style) for one in block.split(",")]
    assert len(selectors) > 20
    assert [one for one in selectors if not one.startswith(".medorchestra")] == []


def test_an_encased_artery_is_shown_with_its_rule_its_guideline_and_its_probabilities():
    shown = Shown(staged_report_html(staged_case("held-f02"))).text
    assert "locally advanced" in shown
    assert "Guideline section 3.1" in shown
    assert "Contact with the superior mesenteric artery of more than 180 degrees is locally advanced." in shown
    for outcome in PLAN.outcomes:
        assert outcome.name.replace("_", " ") in shown
    table = shown[shown.index("Findings\n") :]
    assert table.index("deciding") < table.index("SMA contact") < table.index("excludes earlier rules")
    assert table.index("excludes earlier rules") < table.index("Liver metastases") < table.index("not decisive")
    assert "no reason for review" in shown


def test_an_open_vein_says_what_would_settle_it():
    shown = Shown(staged_report_html(staged_case("held-f07"))).text
    assert "open" in shown
    assert "borderline resectable or locally advanced" in shown
    assert "PV/SMV reconstructible" in shown
    assert PLAN.finding("pv_smv_reconstructible").description in shown
    assert "for review" in shown
    table = shown[shown.index("Findings\n") :]
    assert table.index("would settle it") < table.index("weighed with it") < table.index("not decisive")
    assert table.index("weighed with it") < table.index("PV/SMV contact") < table.index("not decisive")


def test_an_outcome_set_is_shown_with_the_report_and_in_the_batch_where_there_is_one():
    chosen = ("resectable", "borderline_resectable")
    staged = replace(CLEAR_STAGED, decision=replace(CLEAR_STAGED.decision, outcome_set=chosen))
    assert "Calibrated outcome set: resectable or borderline resectable\n" in Shown(staged_report_html(staged)).text
    assert "calibrated set: resectable or borderline resectable" in Shown(results_html(Results(PLAN, (staged,)))).text
    assert "outcome set" not in Shown(staged_report_html(CLEAR_STAGED)).text
    assert "calibrated set" not in Shown(results_html(Results(PLAN, (CLEAR_STAGED,)))).text


def test_silence_that_the_plan_reads_as_a_value_is_marked():
    assert "not stated, read as no" in Shown(staged_report_html(CLEAR_STAGED)).text


def test_a_failed_reading_is_shown_as_such_and_a_flag_with_its_message():
    answers = [
        replace(a, status=AnswerStatus.UNPARSABLE, value=None, probabilities={}) if a.finding == "ivc_contact" else a
        for a in answers_with(restaging="yes")
    ]
    shown = Shown(staged_report_html(staged_from("CT", answers))).text
    assert "no reading: unparsable" in shown
    assert shown.count("Restaging after treatment: the table describes the status at diagnosis.") == 1


def test_an_empty_and_a_failed_report_are_shown_without_a_decision():
    empty = StagedReport(PLAN, Report("E1", "  "), ReportStatus.EMPTY)
    failed = StagedReport(PLAN, Report("F1", "A mass."), ReportStatus.FAILED, error="ModelError at read")
    assert "the report has no text" in Shown(staged_report_html(empty)).text
    shown = Shown(staged_report_html(failed)).text
    assert "ModelError at read" in shown
    assert "A mass." in shown
    assert "probability" not in shown


def test_certainty_is_not_claimed_by_rounding():
    assert [chance(p) for p in (0.0, 0.004, 0.5, 0.994, 0.996, 1.0)] == [
        "0.00",
        "<0.01",
        "0.50",
        "0.99",
        ">0.99",
        "1.00",
    ]


def test_a_batch_is_counted_and_every_report_has_a_row():
    cases = list(CASES.values())
    results = stage({case.id: case.text for case in cases}, PLAN, model=perfect_reader(PLAN, cases), unvalidated=True)
    shown = Shown(results_html(results))
    assert shown.table_rows() == len(cases) + 1
    assert f"{len(results.for_review())} for review" in " ".join(shown.text.split())
    for staged in results:
        assert staged.report_id in shown.text
        assert all(reason in shown.text for reason in staged.decision.review_reasons)
    assert shown.text.count(DISCLAIMER) == 1


def test_a_batch_shows_no_report_text():
    text = "CANARY-7731 mass of the pancreatic head."
    answers = [quoted(a, text, (0, 11)) for a in CLEAR_ANSWERS]
    assert "CANARY" not in results_html(Results(PLAN, (staged_from(text, answers),)))


def test_a_large_batch_shows_its_first_rows_and_how_many_more_there_are():
    staged = tuple(replace(CLEAR_STAGED, report=Report(f"R{number:04}", "")) for number in range(MOST_ROWS + 37))
    shown = Shown(results_html(Results(PLAN, staged)))
    assert shown.table_rows() == MOST_ROWS + 1
    assert "R0199" in shown.text
    assert "R0200" not in shown.text
    assert "37 more reports" in shown.text


def test_an_empty_batch_and_failures_can_be_shown():
    assert "0 reports" in Shown(results_html(Results(PLAN, ()))).text
    empty = StagedReport(PLAN, Report("E1", ""), ReportStatus.EMPTY)
    shown = Shown(results_html(Results(PLAN, (empty,))))
    assert "1 report" in shown.text
    assert "empty" in shown.text


def test_a_skipped_finding_says_why_it_was_not_asked_and_the_probability_has_its_bounds():
    case = next(case for case in CASES.values() if case.outcome == "metastatic")
    engine = perfect_reader(PLAN, [case])
    (one,) = stage([Report(case.id, case.text)], PLAN, model=engine, unvalidated=True, lazy=True)
    html = staged_report_html(one)
    assert "tumor_size_cm" in one.decision.skipped
    assert "not asked: no rule and no flag of the plan looks at it" in html
    assert f"{len(one.decision.skipped)} not asked: between " in html
    (full,) = stage([Report(case.id, case.text)], PLAN, model=engine, unvalidated=True)
    assert "not asked" not in staged_report_html(full)
