"""What is read of a report that is longer than the context, and by a plan that reads focused sentences only."""

from __future__ import annotations

from small_batch import CONTENT, PLAN
from watched_executor import FILLER, REPORT, WatchedEngine, focused, read, with_subtask

from medorchestra.local.aggregator import decide
from medorchestra.local.answers import AnswerStatus
from medorchestra.local.records import Report

# ------------------------------------------------------------------ reports longer than the context


def long_report(*sentences):
    """20,000 words and more, with these sentences far apart."""
    filler = FILLER * (20_000 // 12 // len(sentences) + 1)
    text = "".join(f"{sentence} {filler}" for sentence in sentences)
    assert len(text.split()) >= 20_000
    return Report("long", text)


LONG = long_report(
    "Mass of 2.4 cm in the head.", "The SMA is encased over 270 degrees.", "Liver metastases in both lobes."
)


def test_of_a_report_of_20000_words_every_sentence_that_bears_on_a_question_is_read_once():
    engine = WatchedEngine()
    answers, reading = read(LONG, engine=engine)
    assert engine.reports == [
        "Mass of 2.4 cm in the head.\nThe SMA is encased over 270 degrees.\nLiver metastases in both lobes."
    ]
    assert {name: answer.value for name, answer in answers.items()} == {
        "sma_contact": ">180",
        "liver_mets": "yes",
        "size": 2.4,
    }
    assert reading.tokens < 100
    for answer in answers.values():
        assert answer.characters_total == len(LONG.text)
        assert answer.characters_read == 27 + 36 + 31
        assert all(LONG.text[quote.start : quote.end] == quote.text for quote in answer.quotes)


def test_a_report_that_was_not_read_whole_goes_to_a_person_who_is_told_how_much_was_read():
    _, reading = read(LONG)
    decision = decide(PLAN, reading.answers)
    assert decision.outcome == "metastatic"
    assert decision.review
    partly = f"report read in part: 3 answers from 94 to 94 of {len(LONG.text)} characters"
    assert partly in decision.review_reasons


def test_where_too_many_sentences_bear_on_a_question_the_best_are_read_and_what_was_left_out_shows():
    text = "The SMA is free. " + "The liver has a normal size and contour, no metastases seen here. " * 1800
    engine = WatchedEngine()
    answers, _ = read(Report("r", text), engine=engine)
    assert len(engine.reports) == 2  # what bears on the SMA, what bears on the liver
    assert answers["sma_contact"].value == "none"
    assert answers["sma_contact"].characters_read == 16
    liver = answers["liver_mets"]
    assert liver.value == "no"
    assert 16 < liver.characters_read < len(text)
    assert len(engine.reports[1].split()) <= engine.context_tokens


def test_in_a_report_that_is_too_long_what_no_term_finds_is_unknown_and_not_silence():
    text = "The liver has a normal size and contour, no metastases seen here. " * 1800
    answers, reading = read(Report("r", text))
    assert answers["sma_contact"].status is AnswerStatus.TOO_LONG
    assert answers["sma_contact"].characters_read == 0
    decision = decide(PLAN, reading.answers)
    assert "sma_contact" in decision.missing
    assert any("no reading of: sma_contact (too_long)" in reason for reason in decision.review_reasons)


def test_what_is_read_of_a_long_report_does_not_depend_on_what_is_asked():
    everything, one = WatchedEngine(), WatchedEngine()
    read(LONG, engine=everything)
    read(LONG, engine=one, subtasks=PLAN.subtasks[:1])
    assert one.reports == everything.reports


def test_a_sentence_without_an_end_is_cut_into_pieces_that_fit():
    run_on = "SMA " + "and then the mass goes on " * 4000
    engine = WatchedEngine(context_tokens=400)
    answers, _ = read(Report("r", run_on), engine=engine)
    assert answers["sma_contact"].characters_read > 0
    assert all(len(one.split()) <= 400 for one in engine.reports)


def test_a_context_too_small_for_any_sentence_is_a_status_and_no_exception():
    answers, _ = read(engine=WatchedEngine(context_tokens=40))
    assert {answer.status for answer in answers.values()} == {AnswerStatus.TOO_LONG}


def test_a_subtask_without_focus_terms_needs_the_whole_report():
    plan = with_subtask(answer="text")
    answers, _ = read(LONG, plan)
    assert answers["extra"].status is AnswerStatus.TOO_LONG
    assert answers["sma_contact"].value == ">180"


# ------------------------------------------------------------------ focused profile


def test_a_focused_plan_reads_for_every_subtask_its_own_sentences():
    engine = WatchedEngine()
    answers, _ = read(plan=focused(), engine=engine)
    assert engine.reports == [
        "The SMA is free.",
        "The liver is normal, no metastases.",
        "Hypoenhancing mass of the pancreatic head, 2.0 cm.",
    ]
    assert answers["sma_contact"].value == "none"
    assert answers["sma_contact"].characters_read == 16
    assert answers["sma_contact"].characters_total == len(REPORT.text)


def test_in_a_focused_plan_what_no_sentence_names_is_not_stated_and_nothing_is_asked():
    engine = WatchedEngine()
    answers, _ = read(Report("r", "The SMA is free."), focused(), engine)
    assert answers["liver_mets"].status is AnswerStatus.NOT_STATED
    assert answers["liver_mets"].probabilities == {"not_stated": 1.0}
    assert answers["liver_mets"].characters_read == 0
    assert len(engine.questions) == 1


def test_in_a_focused_plan_a_subtask_without_terms_reads_the_whole_report():
    subtasks = [CONTENT["subtasks"][0] | {"focus_terms": []}, *CONTENT["subtasks"][1:]]
    engine = WatchedEngine()
    answers, _ = read(plan=focused(subtasks=subtasks), engine=engine)
    assert engine.reports[0] == REPORT.text
    assert answers["sma_contact"].value == "none"
