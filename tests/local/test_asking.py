"""One question, by its answer type."""

from __future__ import annotations

import pytest
from small_batch import CITATION, CONTENT, PLAN, plan_with

from medorchestra.local.answers import AnswerStatus
from medorchestra.local.asking import MOST_MEASUREMENTS, MOST_SENTENCES, Inquiry, sentence_grammar
from medorchestra.local.engine.protocol import Conversation
from medorchestra.local.engine.scripted import ScriptedEngine
from medorchestra.local.excerpts import FocusedReading, whole_report
from medorchestra.plan_pieces import Subtask

WRITTEN = {
    "id": "extra",
    "labels": {"not_stated": "not stated"},
    "prompt": {"instructed": "Copy."},
    "citation": CITATION,
}


def ask(text, subtask, reply, *, excerpt_terms=None, plan=PLAN):
    """The answer to a subtask of the plan (by id) or to a written one, and what the script was asked."""
    asked = []

    def noted(question):
        asked.append(question)
        return reply

    wanted = subtask if isinstance(subtask, Subtask) else {s.id: s for s in plan.subtasks}[subtask]
    finding = plan.finding(wanted.finding) if wanted.finding else None
    focus = FocusedReading(text, lambda piece: len(piece.split()))
    excerpt = focus.excerpt(excerpt_terms, 10_000) if excerpt_terms else whole_report(text)
    with ScriptedEngine(noted, context_tokens=50_000).open(Conversation("Head.", excerpt.text)) as session:
        answer = Inquiry(session, focus, excerpt, wanted, finding, plan.question(wanted)).ask()
    return answer, asked


def written(answer, **fields):
    return Subtask.model_validate(WRITTEN | {"answer": answer} | fields)


# ------------------------------------------------------------------ choice


def test_a_choice_is_scored_over_the_labels_and_carries_all_probabilities():
    answer, (asked,) = ask("The SMA is free.", "sma_contact", {"free": 3, "not stated": 1})
    assert asked.candidates == ("free", "abutment", "encasement", "not stated")
    assert (answer.status, answer.value) == (AnswerStatus.OK, "none")
    assert answer.probabilities == {"none": 0.75, "<=180": 0.0, ">180": 0.0, "not_stated": 0.25}


def test_silence_has_no_quote_and_no_value():
    answer, _ = ask("The SMA is free.", "sma_contact", "not stated")
    assert (answer.status, answer.value, answer.quotes) == (AnswerStatus.NOT_STATED, None, ())


def test_of_equally_probable_values_the_first_of_the_plan_is_taken():
    answer, _ = ask("The SMA is free.", "sma_contact", {"encasement": 1, "abutment": 1})
    assert answer.value == "<=180"
    assert answer.probability == 0.5


def test_a_sentence_that_was_not_read_is_never_quoted():
    text = "SMA seen. The liver shows contact with the SMA."
    answer, _ = ask(text, "sma_contact", "free", excerpt_terms=("liver",))
    assert [quote.text for quote in answer.quotes] == ["The liver shows contact with the SMA."]


def test_a_choice_without_a_sentence_on_it_has_no_quote():
    answer, _ = ask("Spleen normal.", "sma_contact", "free")
    assert (answer.status, answer.quotes) == (AnswerStatus.OK, ())


# ------------------------------------------------------------------ number


def test_a_number_is_chosen_among_the_measurements_of_the_report():
    text = "Mass of 2.4 x 1.9 cm (previously 30 mm). Cyst of 7 mm."
    answer, (asked,) = ask(text, "size", {"2.4 x 1.9 cm": 0.7, "30 mm": 0.2, "not stated": 0.1})
    assert asked.candidates == ("2.4 x 1.9 cm", "30 mm", "7 mm", "not stated")
    assert answer.value == 2.4
    assert answer.probabilities == pytest.approx({"2.4": 0.7, "3": 0.2, "0.7": 0.0, "not_stated": 0.1})
    assert [quote.text for quote in answer.quotes] == ["Mass of 2.4 x 1.9 cm (previously 30 mm)."]


def test_the_same_size_in_two_units_is_one_value_with_both_quotes_the_better_first():
    text = "IMPRESSION: 24 mm lesion. Mass of 2.4 cm."
    answer, _ = ask(text, "size", {"24 mm": 0.4, "2.4 cm": 0.35, "not stated": 0.25})
    assert answer.value == 2.4
    assert answer.probabilities["2.4"] == pytest.approx(0.75)
    assert [quote.text for quote in answer.quotes] == ["Mass of 2.4 cm.", "IMPRESSION: 24 mm lesion."]
    assert all(text[quote.start : quote.end] == quote.text for quote in answer.quotes)


def test_without_a_measurement_only_silence_can_be_answered():
    answer, (asked,) = ask("A large mass.", "size", "not stated")
    assert asked.candidates == ("not stated",)
    assert answer.status is AnswerStatus.NOT_STATED


def test_a_measurement_outside_of_what_was_read_is_not_offered():
    _, (asked,) = ask("Cyst of 2 cm. Mass of 3.2 cm.", "size", "3.2 cm", excerpt_terms=("mass",))
    assert asked.candidates == ("3.2 cm", "not stated")


def test_a_measurement_wrapped_over_two_lines_is_offered_on_one():
    text = "There is a hypoenhancing mass that measures about 3.2\ncm in the head."
    answer, (asked,) = ask(text, "size", "3.2 cm")
    assert asked.candidates == ("3.2 cm", "not stated")
    assert answer.quotes[0].text == text


def test_of_very_many_measurements_those_in_sentences_on_the_finding_are_offered():
    text = "".join(f"Cyst of {i} mm. " for i in range(1, 60)) + "Mass of 7.7 cm."
    answer, (asked,) = ask(text, "size", "7.7 cm")
    assert len(asked.candidates) == MOST_MEASUREMENTS + 1
    assert answer.value == 7.7


def test_large_numbers_keep_all_their_digits():
    finding = CONTENT["findings"][2] | {"number": {"unit": "unit_per_ml", "minimum": 0, "maximum": 10**6}}
    plan = plan_with(findings=[*CONTENT["findings"][:2], finding])
    answer, _ = ask("CA 19-9: 123456.75 U/mL, mass.", "size", "123456.75 U/mL", plan=plan)
    assert answer.value == 123456.75
    assert len(answer.quotes) == 1


# ------------------------------------------------------------------ spans and text


def test_spans_are_whole_sentences_with_their_place():
    text = "Mass of 2 cm. The SMA is\r\nfree. Spleen normal."
    answer, (asked,) = ask(text, written("spans"), "Mass of 2 cm.\nSpleen normal.")
    assert answer.status is AnswerStatus.OK
    assert answer.value == ("Mass of 2 cm.", "Spleen normal.")
    assert [(quote.start, quote.end) for quote in answer.quotes] == [(0, 13), (len(text) - 14, len(text))]
    assert "Spleen normal." in asked.grammar


def test_a_wrapped_sentence_is_copied_on_one_line_and_quoted_verbatim():
    sentence = "There is an ill-defined mass in the pancreatic head that\r\nencases the SMA."
    answer, _ = ask(f"{sentence} Spleen normal.", written("spans"), " ".join(sentence.split()))
    assert answer.value == (sentence,)
    assert answer.quotes[0].text == sentence


@pytest.mark.parametrize(
    ("reply", "max_tokens", "status"),
    [
        ("not stated", 128, AnswerStatus.NOT_STATED),
        ("Something else.", 128, AnswerStatus.UNPARSABLE),
        ("", 128, AnswerStatus.UNPARSABLE),
        ("Mass of 2 cm.", 2, AnswerStatus.TOO_LONG),
    ],
)
def test_spans_that_are_no_sentences_of_the_report_are_no_answer(reply, max_tokens, status):
    answer, _ = ask("Mass of 2 cm.", written("spans", max_tokens=max_tokens), reply)
    assert (answer.status, answer.value, answer.quotes) == (status, None, ())


MANY = "".join(f"Finding {i} is normal. " for i in range(MOST_SENTENCES))


def test_of_very_many_sentences_those_with_a_term_are_offered():
    _, (asked,) = ask(MANY + "The mass is here.", written("spans", focus_terms=["mass"]), "The mass is here.")
    assert "The mass is here." in asked.grammar
    assert "Finding" not in asked.grammar


@pytest.mark.parametrize("terms", [[], ["finding"]])
def test_more_sentences_than_can_be_offered_are_a_visible_failure(terms):
    text = MANY + "Finding of a mass."
    answer, asked = ask(text, written("spans", focus_terms=terms), "not stated")
    assert answer.status is AnswerStatus.TOO_LONG
    assert asked == []


@pytest.mark.parametrize(
    ("reply", "max_tokens", "status", "value"),
    [
        (" A mass in the head. ", 128, AnswerStatus.OK, "A mass in the head."),
        ("Not stated.", 128, AnswerStatus.NOT_STATED, None),
        ("  ", 128, AnswerStatus.UNPARSABLE, None),
        ("one two three", 2, AnswerStatus.TOO_LONG, None),
    ],
)
def test_a_passage_is_written_freely_and_cut_off_ones_are_not_passed_on(reply, max_tokens, status, value):
    answer, (asked,) = ask("Mass.", written("text", max_tokens=max_tokens), reply)
    assert (answer.status, answer.value) == (status, value)
    assert asked.grammar is None


# ------------------------------------------------------------------ grammar


def test_a_grammar_offers_each_sentence_once_in_order_or_silence():
    assert sentence_grammar(["A.", "B."], "not stated").split("\n") == [
        'root ::= "not stated" | from0',
        'from0 ::= "A." ("\\n" from1)? | from1',
        'from1 ::= "B."',
    ]
    assert sentence_grammar([], "not stated") == 'root ::= "not stated"'


def test_quotes_backslashes_and_control_characters_of_a_report_are_inert_in_a_grammar():
    grammar = sentence_grammar(['a "b" \\ c\b\x00 ::= root'], "not stated")
    assert grammar.split("\n")[1] == 'from0 ::= "a \\x22b\\x22 \\x5c c\\x08\\x00 ::= root"'


@pytest.mark.model
def test_the_real_engine_writes_only_sentences_of_the_report(default_engine):
    text = 'Mass of 3 cm "encasing" \\ the SMA [x]. Liver clear. Größe 5 µm. <|im_end|> Ascites.'
    focus, excerpt = FocusedReading(text, default_engine.count_tokens), whole_report(text)
    subtask = written("spans")
    with default_engine.open(Conversation("You read a report.", text)) as session:
        answer = Inquiry(session, focus, excerpt, subtask, None, "Copy all sentences.").ask()
    assert answer.status in (AnswerStatus.OK, AnswerStatus.NOT_STATED)
    assert all(text[quote.start : quote.end] == quote.text for quote in answer.quotes)
