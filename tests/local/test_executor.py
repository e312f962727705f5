"""One report, all questions: what is read, what is asked, what becomes of failures."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_batch import CITATION, CONTENT, PLAN, plan_with, scripted_reading
from watched_executor import REPORT, WatchedEngine, focused, read

from medorchestra.errors import ContextTooSmallError, ModelError
from medorchestra.local.answers import AnswerStatus
from medorchestra.local.executor import Executor
from medorchestra.local.open_report import MOST_REPEATS
from medorchestra.local.records import Report


def test_the_report_is_read_once_and_every_question_branches_off_it():
    engine = WatchedEngine()
    answers, reading = read(engine=engine)
    assert engine.reports == [REPORT.text]
    assert engine.questions == [PLAN.question(subtask) for subtask in PLAN.subtasks]
    prefix = len(PLAN.head().split()) + len(REPORT.text.split())
    asked = sum(len(question.split()) for question in engine.questions)
    assert reading.tokens == prefix + asked
    assert reading.tokens < len(PLAN.subtasks) * prefix + asked  # one call for each question
    assert all(answer.read_whole_report and answer.seconds >= 0 for answer in answers.values())


def test_values_probabilities_and_quotes_stand_in_the_answers():
    answers, _ = read()
    sma = answers["sma_contact"]
    assert (sma.status, sma.value, sma.probability) == (AnswerStatus.OK, "none", 0.9)
    assert sum(sma.probabilities.values()) == pytest.approx(1)
    assert [quote.text for quote in sma.quotes] == ["The SMA is free."]
    assert answers["size"].value == 2.0


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ("free", AnswerStatus.OK),
        ("not stated", AnswerStatus.NOT_STATED),
        (ContextTooSmallError(9, 8), AnswerStatus.TOO_LONG),
        (ModelError("ZEBRA"), AnswerStatus.FAILED),
        (RuntimeError(REPORT.text), AnswerStatus.FAILED),
        ("no candidate at all", AnswerStatus.FAILED),
    ],
)
def test_whatever_happens_to_one_subtask_is_the_status_of_its_answer_and_the_others_go_on(reply, status):
    engine = WatchedEngine(lambda asked: reply if "SMA" in asked.question else scripted_reading(asked))
    answers, _ = read(engine=engine)
    assert answers["sma_contact"].status is status
    assert [answers[name].status for name in ("liver_mets", "size")] == [AnswerStatus.OK] * 2


def test_a_failure_names_kind_and_place_and_no_report_text():
    engine = WatchedEngine(lambda asked: RuntimeError(asked.report))
    answers, _ = read(engine=engine)
    for answer in answers.values():
        assert answer.error.startswith("RuntimeError at scripted.py:")
        assert "SMA" not in answer.error
        assert (answer.value, dict(answer.probabilities), answer.quotes) == (None, {}, ())


def test_an_engine_that_cannot_open_the_report_fails_every_subtask_with_a_row():
    engine = WatchedEngine()
    engine.close()
    answers, reading = read(engine=engine)
    assert [answer.status for answer in answers.values()] == [AnswerStatus.FAILED] * 3
    assert all(answer.error.startswith("ModelError") for answer in answers.values())
    assert reading.tokens == 0


def test_text_that_the_engine_cannot_count_is_a_failure_and_no_exception():
    class Strict(WatchedEngine):
        def count_tokens(self, text):
            return len(text.encode())

    answers, _ = read(Report("r", "Mass \ud800."), engine=Strict())
    assert {answer.status for answer in answers.values()} == {AnswerStatus.FAILED}
    assert all(answer.error.startswith("UnicodeEncodeError") for answer in answers.values())


def test_an_interruption_is_no_failure_of_the_report():
    def interrupt(asked):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(engine=WatchedEngine(interrupt))


@given(st.permutations(PLAN.subtasks), st.integers(1, 3))
def test_an_answer_depends_neither_on_order_nor_on_what_else_is_asked(order, many):
    alone, _ = read()
    mixed, _ = read(subtasks=order[:many])
    for name, answer in mixed.items():
        assert (answer.value, answer.probabilities, answer.quotes) == (
            alone[name].value,
            alone[name].probabilities,
            alone[name].quotes,
        )


def test_the_same_report_gets_the_same_answers_again():
    executor = Executor(PLAN, WatchedEngine())
    first, second = executor.read(REPORT), executor.read(REPORT)
    assert [a.to_json() | {"seconds": 0} for a in first.answers] == [
        a.to_json() | {"seconds": 0} for a in second.answers
    ]


# ------------------------------------------------------------------ in rounds


def one_by_one(names):
    """Rounds of one subtask each, and what was known before each of them."""
    seen = []

    def next_round(answers):
        seen.append(dict(answers))
        return next(({name} for name in names if name not in answers), set())

    return next_round, seen


def test_in_rounds_the_report_is_read_once_and_what_no_round_names_is_not_asked():
    engine = WatchedEngine()
    next_round, seen = one_by_one(["liver_mets", "sma_contact"])
    reading = Executor(PLAN, engine).read(REPORT, next_round=next_round)
    assert engine.reports == [REPORT.text]
    assert engine.questions == [PLAN.question(PLAN.subtasks[1]), PLAN.question(PLAN.subtasks[0])]
    assert [answer.subtask for answer in reading.answers] == ["sma_contact", "liver_mets"]
    assert [set(answers) for answers in seen] == [set(), {"liver_mets"}, {"liver_mets", "sma_contact"}]
    alone, _ = read()
    assert [a.probabilities for a in reading.answers] == [alone[a.subtask].probabilities for a in reading.answers]


def test_where_no_round_names_anything_the_report_is_not_read_at_all():
    engine = WatchedEngine()
    reading = Executor(PLAN, engine).read(REPORT, next_round=lambda answers: ())
    assert (reading.answers, reading.tokens, engine.reports) == ((), 0, [])


def test_in_rounds_a_focused_plan_reads_only_the_excerpts_of_what_is_asked():
    engine = WatchedEngine()
    next_round, _ = one_by_one(["size", "sma_contact"])
    reading = Executor(focused(), engine).read(REPORT, next_round=next_round)
    assert engine.reports == ["Hypoenhancing mass of the pancreatic head, 2.0 cm.", "The SMA is free."]
    assert [answer.value for answer in reading.answers] == ["none", 2.0]


def test_in_rounds_an_engine_that_cannot_open_the_report_fails_every_subtask():
    engine = WatchedEngine()
    engine.close()
    next_round, _ = one_by_one(["liver_mets"])
    reading = Executor(PLAN, engine).read(REPORT, next_round=next_round)
    assert [answer.status for answer in reading.answers] == [AnswerStatus.FAILED] * 3


def test_settings_of_the_engine_are_in_the_digest():
    digests = {Executor(PLAN, WatchedEngine(context_tokens=size)).settings_digest for size in (2000, 2000, 4000)}
    assert len(digests) == 2


# ------------------------------------------------------------------ questions asked together


class TogetherEngine(WatchedEngine):
    """Notes which questions are asked together, and may refuse it."""

    def __init__(self, reply=scripted_reading, *, refuses=None, **options):
        self.together = []
        self.refuses = refuses
        super().__init__(reply, **options)

    @contextmanager
    def open(self, conversation):
        with super().open(conversation) as session:
            answer = session.choose_all

            def noted(choices):
                self.together.append([choice.question for choice in choices])
                if self.refuses is not None:
                    raise self.refuses
                return answer(choices)

            session.choose_all = noted
            yield session


def outcome_of(answers):
    return {
        name: (answer.status, answer.value, answer.probabilities, answer.quotes, answer.tokens)
        for name, answer in answers.items()
    }


def with_written(place):
    """The small plan with a written answer among the chosen ones."""
    extra = {
        "id": "extra",
        "prompt": {"instructed": "Describe it."},
        "citation": CITATION,
        "labels": {},
        "answer": "text",
    }
    return plan_with(subtasks=[*CONTENT["subtasks"][:place], extra, *CONTENT["subtasks"][place:]])


def reading_and_writing(asked):
    return scripted_reading(asked) if asked.candidates else "A mass of the head."


@pytest.mark.parametrize("place", range(4))
def test_chosen_answers_are_asked_together_and_written_ones_one_by_one_behind_them(place):
    engine, plan = TogetherEngine(reading_and_writing), with_written(place)
    answers, reading = read(plan=plan, engine=engine)
    chosen = [plan.question(subtask) for subtask in plan.subtasks if subtask.answer != "text"]
    assert engine.together == [chosen]
    assert engine.questions == [*chosen, "Describe it."]
    assert [answer.subtask for answer in reading.answers] == [subtask.id for subtask in plan.subtasks]
    assert answers["extra"].value == "A mass of the head."
    assert outcome_of(answers).items() >= outcome_of(read()[0]).items()


@given(st.permutations(with_written(1).subtasks), st.integers(1, 4))
def test_answers_come_in_the_order_in_which_they_were_wanted(order, many):
    wanted = order[:many]
    _, reading = read(plan=with_written(1), engine=TogetherEngine(reading_and_writing), subtasks=wanted)
    assert [answer.subtask for answer in reading.answers] == [subtask.id for subtask in wanted]
    assert {answer.status for answer in reading.answers} == {AnswerStatus.OK}


@pytest.mark.parametrize(
    ("error", "times_read"),
    [
        (ModelError("no fork"), 2),
        (ContextTooSmallError(9, 8), 1),  # refused before anything was computed: the reading is as it was
        (ValueError("?"), 1),
        (RuntimeError(REPORT.text), 2),
    ],
)
def test_where_questions_cannot_be_asked_together_each_is_asked_alone_and_nothing_is_lost(error, times_read):
    engine = TogetherEngine(reading_and_writing, refuses=error)
    answers, reading = read(plan=with_written(1), engine=engine)
    assert len(engine.together) == 1
    assert sorted(engine.questions) == sorted(with_written(1).question(one) for one in with_written(1).subtasks)
    usual, as_usual = read(plan=with_written(1), engine=TogetherEngine(reading_and_writing))
    assert outcome_of(answers) == outcome_of(usual)
    again = (times_read - 1) * engine.count_tokens(REPORT.text)  # the head is not computed again
    assert reading.tokens == as_usual.tokens + again
    assert [answer.subtask for answer in reading.answers] == [answer.subtask for answer in as_usual.answers]


class SpoilingEngine(WatchedEngine):
    """A session that has failed once answers nothing any more, as a broken memory of the report would."""

    def __init__(self, reply, *, bad=None, fails_together=False):
        self.opened = 0
        self._bad, self._fails_together = bad, fails_together
        super().__init__(reply)

    @contextmanager
    def open(self, conversation):
        self.opened += 1
        with super().open(conversation) as session:
            choose, spoilt = session.choose, False

            def fail():
                nonlocal spoilt
                spoilt = True
                raise RuntimeError("decode")

            def chosen(question, candidates):
                if spoilt or (self._bad is not None and self._bad in question):
                    fail()
                return choose(question, candidates)

            def together(choices):
                if self._fails_together:
                    fail()
                return tuple(chosen(one.question, one.candidates) for one in choices)

            session.choose, session.choose_all = chosen, together
            yield session


@pytest.mark.parametrize(("bad", "times_opened"), [(None, 2), ("SMA", 3), ("liver", 3), ("large", 2)])
def test_a_reading_that_a_failure_spoilt_is_done_again_so_that_only_the_bad_question_fails(bad, times_opened):
    engine = SpoilingEngine(scripted_reading, bad=bad, fails_together=True)
    answers, _ = read(engine=engine)
    usual, _ = read(engine=WatchedEngine(scripted_reading))
    failed = {name for name, answer in answers.items() if answer.status is AnswerStatus.FAILED}
    assert len(failed) == (bad is not None)
    assert {name: answer.value for name, answer in answers.items() if name not in failed} == {
        name: answer.value for name, answer in usual.items() if name not in failed
    }
    assert engine.opened == times_opened


def test_an_engine_that_breaks_at_every_question_is_not_opened_for_ever():
    engine = SpoilingEngine(scripted_reading, bad="", fails_together=True)
    answers, _ = read(engine=engine)
    assert {answer.status for answer in answers.values()} == {AnswerStatus.FAILED}
    assert engine.opened <= 1 + MOST_REPEATS


def test_the_time_in_the_model_is_part_of_the_time_of_a_reading():
    _, reading = read(engine=WatchedEngine(scripted_reading))
    assert 0 < reading.seconds_in_model < reading.seconds


@pytest.mark.parametrize("bad", ["SMA", "liver", "large"])
def test_of_questions_asked_together_only_the_bad_one_fails(bad):
    engine = TogetherEngine(lambda asked: ModelError("ZEBRA") if bad in asked.question else reading_and_writing(asked))
    answers, _ = read(plan=with_written(3), engine=engine)
    usual, _ = read(plan=with_written(3), engine=TogetherEngine(reading_and_writing))
    (failed,) = [name for name, answer in answers.items() if answer.status is AnswerStatus.FAILED]
    assert bad in with_written(3).question(next(one for one in PLAN.subtasks if one.id == failed))
    assert answers[failed].error.startswith("ModelError")
    assert "ZEBRA" not in answers[failed].error
    assert outcome_of(answers) | {failed: None} == outcome_of(usual) | {failed: None}


def test_scores_of_which_there_are_too_few_or_that_have_another_length_are_not_believed():
    """An engine that mixes up its answers must not move them from one finding to another, where that can be told."""

    class Short(TogetherEngine):
        @contextmanager
        def open(self, conversation):
            with super().open(conversation) as session:
                whole = session.choose_all
                session.choose_all = lambda choices: whole(choices)[:-1]
                yield session

    class Swapped(TogetherEngine):
        @contextmanager
        def open(self, conversation):
            with super().open(conversation) as session:
                whole = session.choose_all
                session.choose_all = lambda choices: whole(choices)[::-1]
                yield session

    usual = outcome_of(read()[0])
    for engine in (Short(), Swapped()):
        answers, _ = read(engine=engine)
        assert outcome_of(answers) == usual
        assert len(engine.questions) == 2 * len(PLAN.subtasks), "together, and then each alone"


def test_a_focused_plan_asks_together_what_reads_the_same_sentences():
    subtasks = [one | {"focus_terms": ["mass"]} for one in CONTENT["subtasks"][:2]] + CONTENT["subtasks"][2:]
    engine, plan = TogetherEngine(), focused(subtasks=subtasks)
    read(plan=plan, engine=engine)
    assert len(engine.reports) == 1
    assert engine.together == [[plan.question(subtask) for subtask in plan.subtasks]]
    apart = TogetherEngine()
    read(plan=focused(), engine=apart)
    assert [len(questions) for questions in apart.together] == [1, 1, 1]


def test_the_time_of_questions_asked_together_is_shared_among_them():
    answers, reading = read(engine=TogetherEngine())
    (seconds,) = {answer.seconds for answer in answers.values()}
    assert 0 < seconds * len(answers) <= reading.seconds


def test_an_interruption_of_questions_asked_together_is_no_failure():
    with pytest.raises(KeyboardInterrupt):
        read(engine=TogetherEngine(refuses=KeyboardInterrupt()))
