"""The strategies of an evaluation: what each shows the model, and how it reads the reply."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from local.small_batch import CONTENT, PLAN, plan_with
from noting_engine import CASES, GUIDELINE, TOO_LONG, Choosing, Noting, case_of, is_outcome_question, strategy
from plan_with_parts import plan_with_parts

from medorchestra.errors import SettingsError
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.engine.scripted import ScriptedEngine
from medorchestra.local.evaluation import strategies as strategies_module
from medorchestra.local.evaluation.predictions import LabelledCase
from medorchestra.local.evaluation.strategies import (
    STRATEGIES,
    TIED,
    findings_text,
    make_strategies,
    rules_text,
    sample_seed,
)
from medorchestra.local.ledger import Ledger
from medorchestra.local.staging import Stager

# ------------------------------------------------------------------------- making


def test_every_strategy_can_be_made_in_any_order():
    for names in (STRATEGIES, STRATEGIES[::-1]):
        made = make_strategies(names, PLAN, Noting(), guideline=GUIDELINE, ledger=None, store=None)
        assert tuple(one.name for one in made) == names
    assert make_strategies([], PLAN, Noting(), guideline="", ledger=None, store=None) == []


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(SettingsError, match="oracle: not known; choose from direct, guideline, orchestrated, orch"):
        strategy("oracle", Noting())


@pytest.mark.parametrize("options", [{"samples": 0}, {"seed": -1}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(SettingsError, match=next(iter(options))):
        strategy("self-consistency", Noting(), **options)


def test_a_guideline_without_text_is_refused_for_the_strategy_that_shows_it_and_no_other():
    with pytest.raises(SettingsError, match="guideline"):
        strategy("guideline", Noting(), guideline=" \n")
    assert strategy("direct", Noting(), guideline="").predict(CASES[0]).outcome == "resectable"
    assert not strategy("orchestrated-llm", Noting(), guideline="").reads_guideline


# -------------------------------------------------------------- report, then the outcome


def test_direct_shows_head_and_report_and_scores_the_outcomes():
    engine = Noting(lambda asked: {"locally advanced": 0.6, "metastatic": 0.3, "resectable": 0.1})
    said = strategy("direct", engine).predict(CASES[1])
    (conversation,), (asked,) = engine.conversations, engine.asked
    assert (conversation.head, conversation.report) == (PLAN.head(), CASES[1].report.text)
    assert asked.candidates == ("resectable", "locally advanced", "metastatic")
    assert asked.question.startswith("Resectability in short: which of these outcomes does the report lead to?")
    assert "locally advanced: An artery is encased." in asked.question
    assert (said.case_id, said.outcome) == ("case-1", "locally_advanced")
    assert said.probabilities == pytest.approx({"resectable": 0.1, "locally_advanced": 0.6, "metastatic": 0.3})
    assert (said.review, said.staged, said.error, said.is_open) == (None, None, None, False)
    assert said.seconds > 0
    words = f"{PLAN.head()} {CASES[1].report.text} {asked.question}"
    assert said.tokens == len(words.split())


def test_guideline_stands_before_the_report_as_it_is():
    engine = Noting()
    said = strategy("guideline", engine).predict(CASES[0])
    (conversation,), (asked,) = engine.conversations, engine.asked
    assert conversation.head == f"Guideline:\n\n{GUIDELINE}\n\n{PLAN.head()}"
    assert conversation.report == CASES[0].report.text
    direct = Noting()
    strategy("direct", direct).predict(CASES[0])
    assert asked == direct.asked[0]
    assert said.outcome == "resectable"


def test_labels_change_nothing():
    for name in STRATEGIES:
        labelled = replace(CASES[1].labels, outcome="metastatic", findings={"liver_mets": "yes", "sma_contact": ">180"})
        one, other = (strategy(name, Noting()).predict(case) for case in (CASES[1], LabelledCase(labelled)))
        assert (one.outcome, one.probabilities) == (other.outcome, other.probabilities)


# ---------------------------------------------------------------------- self-consistency


def votes(*names):
    """Answers the questions for the outcome with these, one after the other, each with its probability."""
    left = list(names)

    def outcome(asked):
        name, probability = left.pop(0)
        others = [candidate for candidate in asked.candidates if candidate != name]
        return {name: probability} | {other: (1 - probability) / len(others) for other in others}

    return outcome


def test_the_majority_decides_and_shares_of_votes_are_the_probabilities():
    engine = Noting(votes(("metastatic", 0.5), ("resectable", 0.99), ("metastatic", 0.5), ("locally advanced", 0.9)))
    said = strategy("self-consistency", engine, samples=4).predict(CASES[0])
    assert said.outcome == "metastatic"
    assert said.probabilities == {"resectable": 0.25, "locally_advanced": 0.25, "metastatic": 0.5}
    assert said.probability == 0.5


def test_of_equally_many_votes_the_surer_ones_decide():
    engine = Noting(votes(("metastatic", 0.9), ("resectable", 0.6), ("resectable", 0.6), ("metastatic", 0.5)))
    said = strategy("self-consistency", engine, samples=4).predict(CASES[0])
    # In sum: metastatic 0.9 + 0.2 + 0.2 + 0.5, resectable 0.05 + 0.6 + 0.6 + 0.25.
    assert said.outcome == "metastatic"
    assert said.probabilities["metastatic"] == said.probabilities["resectable"] == 0.5
    engine = Noting(votes(("metastatic", 0.6), ("resectable", 0.9)))
    assert strategy("self-consistency", engine, samples=2).predict(CASES[0]).outcome == "resectable"


def test_chosen_votes_decide_by_majority_alone_and_equally_many_decide_nothing():
    engine = Choosing(votes(("metastatic", 0.6), ("resectable", 0.9), ("metastatic", 0.6)))
    said = strategy("self-consistency", engine, samples=3).predict(CASES[0])
    assert (said.outcome, said.probability) == ("metastatic", 2 / 3)
    engine = Choosing(votes(("metastatic", 0.6), ("resectable", 0.9)))
    said = strategy("self-consistency", engine, samples=2).predict(CASES[0])
    assert (said.outcome, said.probabilities, said.error) == (None, {}, TIED)
    assert said.tokens > 0


def test_one_vote_without_probabilities_keeps_sums_from_deciding_between_equally_many():
    first = f"thought {sample_seed(1, 0)}\n"
    engine = Choosing(votes(("metastatic", 0.9), ("resectable", 0.6)), scores=lambda question: first in question)
    assert strategy("self-consistency", engine, samples=2).predict(CASES[0]).error == TIED


def test_every_sample_thinks_by_itself_and_answers_on_its_own_thoughts():
    engine = Noting()
    said = strategy("self-consistency", engine, samples=3, seed=7).predict(CASES[0])
    thinking, answering = engine.asked[0::2], engine.asked[1::2]
    assert len(engine.conversations) == 1, "the report is read once"
    assert [asked.seed for asked in thinking] == [sample_seed(7, sample) for sample in range(3)]
    assert {asked.temperature for asked in thinking} == {0.7}
    assert len({asked.question for asked in thinking}) == 1
    for thought, answer in zip(thinking, answering, strict=True):
        assert f"\nthought {thought.seed}\n\nResectability in short: which of these outcomes" in answer.question
    assert said.tokens == (
        len(f"{PLAN.head()} {CASES[0].report.text}".split())
        + sum(len(asked.question.split()) for asked in engine.asked)
        + 3 * 2  # words of a thought
    )


def test_the_same_seed_asks_the_same_and_neighbouring_seeds_share_no_sample():
    def seeds(seed):
        engine = Noting()
        strategy("self-consistency", engine, seed=seed).predict(CASES[0])
        return [asked.seed for asked in engine.asked if asked.candidates is None]

    assert seeds(1) == seeds(1)
    drawn = [seed for start in range(20) for seed in seeds(start)]
    assert len(drawn) == len(set(drawn)) == 100


def test_without_thoughts_the_question_is_asked_plainly():
    engine = Noting(thoughts=lambda asked: "  \n")
    strategy("self-consistency", engine, samples=1).predict(CASES[0])
    assert engine.asked[1].question.startswith("Resectability in short: which of these")


def test_thoughts_with_braces_stay_as_they_are():
    engine = Noting(thoughts=lambda asked: "The {artery} is {0} free.")
    assert strategy("self-consistency", engine, samples=1).predict(CASES[0]).error is None
    assert "The {artery} is {0} free." in engine.asked[1].question


# -------------------------------------------------------------------------- orchestrated


def test_orchestrated_decides_as_staging_does():
    for case in CASES:
        said = strategy("orchestrated", Noting()).predict(case)
        staged = Stager(PLAN, Noting()).stage_one(case.report)
        assert said.staged is not None
        assert (said.staged.decision, said.staged.answers[0].value) == (staged.decision, staged.answers[0].value)
        assert said.outcome == staged.decision.best_outcome
        assert said.probabilities == staged.decision.probabilities
        assert said.review == staged.review
        assert said.is_open == (staged.decision.outcome is None)
    assert strategy("orchestrated", Noting()).predict(CASES[4]).is_open, "the artery is not mentioned"


@pytest.mark.parametrize("name", ["direct", "guideline", "orchestrated-llm"])
def test_a_choice_without_probabilities_has_none(name):
    said = strategy(name, Choosing()).predict(CASES[0])
    assert (said.outcome, said.probabilities, said.probability) == ("resectable", {}, None)


def test_orchestrated_claims_no_probabilities_where_a_value_was_chosen_without_one():
    said = strategy("orchestrated", Choosing()).predict(CASES[0])
    assert (said.outcome, said.probabilities, said.review) == ("resectable", {}, True)
    assert said.staged.decision.probabilities, "made of priors there: nothing that the model said"
    said = strategy("orchestrated", Choosing(scores=lambda question: "liver" not in question)).predict(CASES[0])
    assert said.probabilities == {}, "one is enough"


def test_a_report_that_nothing_could_be_read_of_has_no_outcome_and_goes_to_a_person():
    def breaks(asked):
        raise RuntimeError(asked.report)

    said = strategy("orchestrated", ScriptedEngine(breaks)).predict(CASES[0])
    assert (said.outcome, said.review, said.probabilities) == (None, True, {})
    assert said.error.startswith("RuntimeError at ")
    assert said.staged is not None


def test_orchestrated_takes_finished_answers_from_the_ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        first = [strategy("orchestrated", Noting(), ledger=ledger).predict(case) for case in CASES]
        engine = Noting()
        again = [strategy("orchestrated", engine, ledger=ledger).predict(case) for case in CASES]
    assert engine.asked == []
    assert [one.probabilities for one in again] == [one.probabilities for one in first]
    assert all(one.tokens > 0 for one in first)
    assert all(one.tokens == 0 for one in again)


# ---------------------------------------------------------------------- orchestrated-llm


def test_the_model_decides_on_the_list_of_findings_with_the_guideline_before_it():
    engine = Noting(lambda asked: {"locally advanced": 1.0})
    made = strategy("orchestrated-llm", engine)
    said = made.predict(CASES[2])
    conversation, asked = engine.conversations[-1], engine.asked[-1]
    assert made.reads_guideline
    assert GUIDELINE in conversation.head
    assert conversation.report == "sma contact: >180\nliver mets: no\nsize cm: 2.2 cm"
    assert CASES[2].report.text not in conversation.head + conversation.report + asked.question
    assert "do the findings lead to" in asked.question
    assert (said.outcome, said.probability) == ("locally_advanced", 1.0)
    assert (said.staged, said.review, said.is_open) == (None, None, False)


def test_what_is_silent_and_what_could_not_be_read_are_told_apart():
    answers = (
        Answer("sma_contact", "sma_contact", AnswerStatus.TOO_LONG),
        Answer("liver_mets", "liver_mets", AnswerStatus.NOT_STATED),
        Answer("size", "size_cm", AnswerStatus.FAILED, error="RuntimeError at x.py:1"),
    )
    assert findings_text(PLAN, answers) == "sma contact: not known\nliver mets: not stated\nsize cm: not known"


def test_passages_and_counts_are_findings_too():
    plan = plan_with_parts()
    answers = (
        Answer("read_nodes", "nodes", AnswerStatus.OK, 3.0),
        Answer("nodes_passage", None, AnswerStatus.OK, ("Three nodes.", "None\nelsewhere.")),
        Answer("impression", None, AnswerStatus.OK, "A {strange}\nmass_effect."),
    )
    assert findings_text(plan, answers) == (
        "nodes: 3\nnodes passage: Three nodes. None elsewhere.\nimpression: A {strange} mass_effect."
    )


def test_where_the_guideline_does_not_fit_the_rules_are_shown_for_every_report():
    long = "The arteries decide. " * 500
    engine = Noting(context_tokens=500)
    made = strategy("orchestrated-llm", engine, guideline=long)
    assert not made.reads_guideline
    assert all(made.predict(case).outcome == "resectable" for case in CASES)
    heads = {one.head for one in engine.conversations if one.report.startswith("sma contact: ")}
    (head,) = heads
    assert "The first rule that holds decides." in head
    assert rules_text(PLAN) in head
    assert strategy("orchestrated-llm", Noting(context_tokens=8192), guideline=long).reads_guideline


def test_a_guideline_is_shown_only_where_it_fits_before_the_longest_findings():
    """Every number of words: whenever it is shown, no report is refused; and it is shown when there is room."""
    shown = []
    for words in range(1, 400, 7):
        engine = Noting(context_tokens=400)
        made = strategy("orchestrated-llm", engine, guideline="word " * words)
        shown.append(made.reads_guideline)
        assert all(made.predict(case).error is None for case in CASES)
    assert shown == sorted(shown, reverse=True)
    assert shown[0]
    assert not shown[-1]


def test_nothing_read_is_nothing_to_decide_on():
    def breaks(asked):
        if not is_outcome_question(asked):
            raise RuntimeError(asked.report)
        return "resectable"

    said = strategy("orchestrated-llm", ScriptedEngine(breaks)).predict(CASES[0])
    assert (said.outcome, said.staged) == (None, None)
    assert said.error.startswith("RuntimeError at ")


def test_reports_are_read_once_for_both_orchestrated_strategies():
    engine = Noting()
    made = make_strategies(
        ["orchestrated", "orchestrated-llm"], PLAN, engine, guideline=GUIDELINE, ledger=None, store=None
    )
    said = [[one.predict(case) for case in CASES] for one in made]
    asked = Counter("outcome" if is_outcome_question(one) else "subtask" for one in engine.asked)
    assert asked == {"subtask": 18, "outcome": 6}
    alone = Noting()
    by_itself = strategy("orchestrated-llm", alone)
    for case, shared in zip(CASES, said[1], strict=True):
        one = by_itself.predict(case)
        assert (one.outcome, one.probabilities) == (shared.outcome, shared.probabilities)
        assert 0 < shared.tokens < one.tokens, "what was read before costs nothing again"


def test_one_text_under_two_ids_keeps_its_ids():
    text = CASES[0].report.text
    made = strategy("orchestrated", Noting())
    said = [made.predict(case_of(text, case_id)) for case_id in ("a", "b")]
    assert [(one.case_id, one.staged.report_id) for one in said] == [("a", "a"), ("b", "b")]


# ------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("name", ["direct", "guideline", "self-consistency"])
def test_a_report_that_does_not_fit_is_an_error_and_no_exception(name):
    said = strategy(name, Noting(context_tokens=2000)).predict(TOO_LONG)
    assert (said.case_id, said.outcome, said.probabilities, said.tokens) == ("long", None, {}, 0)
    assert said.error.startswith("ContextTooSmallError at scripted.py:")


def test_findings_that_do_not_fit_either_are_an_error_and_no_exception(monkeypatch):
    monkeypatch.setattr(strategies_module, "FINDINGS_QUESTION", "which of these outcomes? " * 600)
    said = strategy("orchestrated-llm", Noting(context_tokens=900)).predict(CASES[0])
    assert said.outcome is None
    assert said.error.startswith("ContextTooSmallError at scripted.py:")
    assert said.tokens > 0, "the subtasks were read"


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_report_is_asked_nothing(name, text):
    engine = Noting()
    said = strategy(name, engine).predict(case_of(text))
    assert (said.outcome, said.error, engine.asked) == (None, "empty", [])


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_engine_that_fails_is_an_error_that_shows_nothing_of_the_report(name):
    def breaks(asked):
        raise ValueError(f"canary in {asked.report}")

    said = strategy(name, ScriptedEngine(breaks)).predict(case_of("Canary: the SMA is free."))
    assert said.outcome is None
    assert said.error.startswith("ValueError at test_strategies.py:")
    assert "anary" not in said.error + repr(said)


# ----------------------------------------------------------------------------- in words


def test_rules_are_told_in_their_order_with_what_silence_means():
    assert rules_text(PLAN) == (
        "Outcome:\n"
        "- metastatic, if liver mets is yes\n"
        "- locally advanced, if sma contact is >180\n"
        "- resectable, if sma contact is none or <=180\n"
        "What is not stated:\n"
        "- liver mets is read as no"
    )


def test_parts_come_before_the_outcome_and_bounds_are_told():
    lines = rules_text(plan_with_parts()).split("\n")
    assert lines[:5] == [
        "t category:",
        "- T4, if artery is yes",
        "- T1, if size is at most 2",
        "- T2, if size is above 2 and at most 4",
        "- T3, if size is above 4",
    ]
    assert "- II, if (t category is T3 and not (n category is N1 or N2))" in lines
    assert "- III, if (t category is T4 or n category is N2)" in lines
    assert lines[-2:] == ["What is not stated:", "- distant is read as no"]


OPTION = {"name": "strict", "description": "How strict.", "choices": ["on", "off"], "setting": "off"}


def with_option(when, setting="off", **silence):
    rule = {"id": "asked", "when": when, "outcome": "locally_advanced", "citation": CONTENT["rules"][0]["citation"]}
    sma, liver, size = CONTENT["findings"]
    findings = [sma, liver | {"not_stated": liver["not_stated"] | silence}, size]
    return plan_with(options=[OPTION | {"setting": setting}], rules=[rule, *CONTENT["rules"]], findings=findings)


ON = {"option": "strict", "is": "on"}
ENCASED = {"finding": "sma_contact", "is": ">180"}


@pytest.mark.parametrize(
    ("when", "setting", "line"),
    [
        ({"all": [ON, ENCASED]}, "on", "- locally advanced, if sma contact is >180"),
        ({"all": [ON, ENCASED]}, "off", None),
        ({"any": [{"not": ON}, ENCASED]}, "off", "- locally advanced, if nothing above holds"),
        ({"any": [{"not": ON}, ENCASED]}, "on", "- locally advanced, if sma contact is >180"),
        (
            {"all": [{"not": ENCASED}, {"finding": "size_cm", "at_least": 1.5}]},
            "off",
            "- locally advanced, if (not (sma contact is >180) and size cm is at least 1.5)",
        ),
    ],
)
def test_options_are_put_in_as_they_are_set(when, setting, line):
    lines = rules_text(with_option(when, setting)).split("\n")
    assert lines[1] == (line or "- metastatic, if liver mets is yes")


@pytest.mark.parametrize(
    ("silence", "told"),
    [
        ({"if_stated": "sma_contact"}, "- liver mets is read as no, if sma contact is stated"),
        ({"unless": ENCASED}, "- liver mets is read as no, unless sma contact is >180"),
        ({"unless": ON}, "- liver mets is read as no"),
        ({"unless": {"not": ON}}, None),
    ],
)
def test_exceptions_of_silence_are_told_and_silence_that_is_never_read_is_not(silence, told):
    text = rules_text(with_option(ENCASED, **silence))
    assert text.split("\n")[-1] == (told or "- resectable, if sma contact is none or <=180")


def test_every_outcome_label_is_its_own():
    names = [{"name": name, "description": "One."} for name in ("a_b", "a__b", "ab", "A_b")]
    rules = [rule | {"outcome": "ab"} for rule in CONTENT["rules"]]
    engine = Noting(lambda asked: {asked.candidates[1]: 1.0})
    said = strategy("direct", engine, plan_with(outcomes=names, rules=rules)).predict(CASES[0])
    assert said.outcome == "a__b"
    assert math.fsum(said.probabilities.values()) == 1
