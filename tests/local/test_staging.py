"""One report through ledger, executor and aggregator."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_batch import CITATION, CONTENT, PLAN, plan_with, small_engine, small_reports, with_prompt

from medorchestra.errors import StorageError
from medorchestra.local import staging
from medorchestra.local.answers import AnswerStatus
from medorchestra.local.ledger import Ledger
from medorchestra.local.records import Report
from medorchestra.local.staged_report import ReportStatus
from medorchestra.local.staging import Stager
from medorchestra.plan import Calibration

REPORTS = small_reports(6)


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


class Questions(list):
    """An engine's questions, noted as they come."""

    def __call__(self, asked):
        self.append((asked.report, asked.question))


def stage(plan, ledger, reports=REPORTS, **options):
    """Stage with a new engine, as a new run would; returns the staged reports and the questions asked."""
    questions = Questions()
    stager = Stager(plan, small_engine(questions, **options), ledger)
    return list(stager.stage(reports)), questions


def test_every_report_gets_its_row_in_order_and_every_subtask_its_answer():
    staged, questions = stage(PLAN, None)
    assert [one.report_id for one in staged] == [report.report_id for report in REPORTS]
    assert [one.decision.outcome for one in staged] == [
        "resectable",
        "metastatic",
        "locally_advanced",
        "metastatic",
        None,
        "metastatic",
    ]
    assert all([a.subtask for a in one.answers] == ["sma_contact", "liver_mets", "size"] for one in staged)
    assert len(questions) == 18
    assert all(one.tokens > 0 and one.seconds > 0 and one.resumed == 0 for one in staged)


def test_an_artery_that_is_not_mentioned_leaves_the_case_open():
    (one,), _ = stage(PLAN, None, [REPORTS[4]])
    assert one.status is ReportStatus.OPEN
    assert one.decision.missing == ("sma_contact",)


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_an_empty_report_is_a_row_and_nothing_is_asked(ledger, text):
    (one,), questions = stage(PLAN, ledger, [Report("blank", text)])
    assert (one.status, one.decision, one.answers, questions) == (ReportStatus.EMPTY, None, (), [])


def test_finished_answers_come_from_the_ledger_and_are_not_asked_again(ledger):
    first, _ = stage(PLAN, ledger)
    again, questions = stage(PLAN, ledger)
    assert questions == []
    assert [one.answers for one in again] == [one.answers for one in first]
    assert [one.decision for one in again] == [one.decision for one in first]
    assert all(one.resumed == 3 and one.tokens == 0 for one in again)


def test_the_same_text_under_two_ids_is_read_once(ledger):
    twice = [Report("first", REPORTS[0].text), Report("second", REPORTS[0].text)]
    staged, questions = stage(PLAN, ledger, twice)
    assert len(questions) == 3
    assert [one.report_id for one in staged] == ["first", "second"]
    assert staged[0].decision == staged[1].decision


def test_the_ledger_holds_no_report_id_and_no_text_beside_quotes(ledger):
    report = Report("id-canary-4711", "Name canary-text. The SMA is free. The liver is normal. Mass of 2.1 cm.")
    (one,), _ = stage(PLAN, ledger, [report])
    content = ledger.path.read_bytes()
    assert one.answer("sma_contact").quotes[0].text.encode() in content
    assert b"canary" not in content


CHANGED = {
    "a prompt": with_prompt("sma_contact", "Does the tumour touch the SMA? {{ labels }}"),
    "the head": plan_with(profile={"head": {"instructed": "Read with care."}}),
    "the reading": plan_with(profile=CONTENT["profile"] | {"context": "focused"}),
    "a label": plan_with(
        subtasks=[
            s | {"labels": {"yes": "yes", "no": "absent", "not_stated": "not stated"}} if s["id"] == "liver_mets" else s
            for s in CONTENT["subtasks"]
        ]
    ),
    "the focus terms": plan_with(subtasks=[s | {"focus_terms": ["vessel*"]} for s in CONTENT["subtasks"]]),
    "the range of a number": plan_with(
        findings=[
            f | ({"number": {"unit": "mm", "minimum": 0, "maximum": 300}} if f["name"] == "size_cm" else {})
            for f in CONTENT["findings"]
        ]
    ),
}


@pytest.mark.parametrize("what", CHANGED)
def test_whatever_the_plan_asks_in_another_way_is_asked_again(ledger, what):
    stage(PLAN, ledger)
    staged, questions = stage(CHANGED[what], ledger)
    # "focused" asks only what the report has sentences for, so not all 18 questions reach the engine.
    assert len(questions) >= 12
    assert all(one.resumed == 0 for one in staged)
    _, of_the_old_plan = stage(PLAN, ledger)
    assert of_the_old_plan == [], "the old answers are still there for the old plan"


@pytest.mark.parametrize("options", [{"name": "other"}, {"script_digest": "other"}, {"context_tokens": 4096}])
def test_another_model_or_setting_never_finds_old_answers(ledger, options):
    stage(PLAN, ledger)
    staged, questions = stage(PLAN, ledger, **options)
    assert len(questions) == 18
    assert all(one.resumed == 0 for one in staged)


def test_another_adapter_never_finds_old_answers_of_the_bare_model(ledger):
    stage(PLAN, ledger)
    engine = small_engine()
    engine._identity = replace(engine.identity, adapter="tuned.gguf", adapter_digest="sha256:" + "a" * 64)
    adapted = Stager(PLAN, engine, ledger)
    assert all(one.resumed == 0 for one in adapted.stage(REPORTS))
    assert all(one.resumed == 3 for one in adapted.stage(REPORTS))


def test_a_mended_rule_decides_again_without_reading_again(ledger):
    before, _ = stage(PLAN, ledger)
    rules = [{"id": "all", "when": {"finding": "liver_mets", "in": ["yes", "no"]}, "outcome": "metastatic"}]
    mended = plan_with(rules=[rule | {"citation": CITATION} for rule in rules])
    after, questions = stage(mended, ledger)
    assert questions == []
    assert before[0].decision.outcome == "resectable"
    assert after[0].decision.outcome == "metastatic"


CALIBRATION = Calibration(
    made_on="2026-11-24",
    plan_digest=PLAN.digest,
    model_digest=small_engine().identity.digest,
    labels="local",
    n=200,
    labels_digest="sha256:" + "2" * 64,
    temperatures={"liver_mets": 4.0},
    risk=0.05,
    review_below=0.75,
    set_coverage=0.9,
    set_floor=0.2,
)
CALIBRATED = PLAN.model_copy(update={"calibrations": (CALIBRATION,)})


def test_answers_in_results_are_calibrated_and_the_ledger_keeps_what_the_model_said(ledger):
    first, _ = stage(CALIBRATED, ledger)
    tempered, raw = first[0].answer("liver_mets"), Stager(PLAN, small_engine()).stage_one(REPORTS[0])
    # The small reader is 0.9 sure, with 0.05 for each of the two others: eighteen to one, of which the fourth root.
    odds = 18**0.25
    assert tempered.probability == pytest.approx(odds / (odds + 2))
    assert (tempered.value, tempered.quotes) == ("no", raw.answer("liver_mets").quotes)
    assert first[0].answer("sma_contact").probabilities == raw.answer("sma_contact").probabilities
    assert first[0].decision.probability < raw.decision.probability
    assert first[0].decision.outcome == raw.decision.outcome == "resectable"
    bare, questions = stage(PLAN, ledger)
    assert questions == []
    assert bare[0].answer("liver_mets").probabilities == raw.answer("liver_mets").probabilities


def test_answers_from_the_ledger_are_calibrated_like_fresh_ones(ledger):
    stage(PLAN, ledger)
    resumed, questions = stage(CALIBRATED, ledger)
    fresh, _ = stage(CALIBRATED, None)
    assert questions == []
    assert [one.decision for one in resumed] == [one.decision for one in fresh]
    again, _ = stage(CALIBRATED, ledger)
    assert [one.decision for one in again] == [one.decision for one in fresh]


def test_threshold_and_sets_of_the_calibration_reach_the_decision():
    (bare,), _ = stage(PLAN, None, REPORTS[:1])
    (calibrated,), _ = stage(CALIBRATED, None, REPORTS[:1])
    assert not bare.review
    assert calibrated.decision.review_reasons == ("probability 0.72 is below 0.75",)
    assert calibrated.decision.outcome_set == ("resectable", "metastatic")
    assert bare.decision.outcome_set is None


@pytest.mark.parametrize("changes", [{"model_digest": "sha256:" + "3" * 64}, {"plan_digest": "sha256:" + "3" * 64}])
def test_a_calibration_of_another_model_or_plan_changes_nothing(changes):
    foreign = PLAN.model_copy(update={"calibrations": (CALIBRATION.model_copy(update=changes),)})
    assert [one.decision for one in stage(foreign, None)[0]] == [one.decision for one in stage(PLAN, None)[0]]


def test_the_same_answers_can_be_decided_again_by_a_calibration_without_asking():
    raw, _ = stage(PLAN, None, [*REPORTS, Report("blank", " ")])
    questions = Questions()
    stager = Stager(CALIBRATED, small_engine(questions))
    again = [stager.decide_again(one) for one in raw]
    assert questions == []
    fresh, _ = stage(CALIBRATED, None, [*REPORTS, Report("blank", " ")])
    assert [one.decision for one in again] == [one.decision for one in fresh]
    assert [(one.seconds, one.tokens, one.report) for one in again] == [(r.seconds, r.tokens, r.report) for r in raw]
    assert again[-1].status is ReportStatus.EMPTY


def test_a_failed_answer_is_not_kept_and_is_asked_again(ledger):
    def breaks_at_the_liver(asked):
        if "liver" in asked.question:
            raise RuntimeError("out of order: " + asked.report)

    stager = Stager(PLAN, small_engine(breaks_at_the_liver), ledger)
    one = stager.stage_one(REPORTS[0])
    failed = one.answer("liver_mets")
    assert failed.status is AnswerStatus.FAILED
    assert failed.error.startswith("RuntimeError at test_staging.py:")
    assert one.decision.outcome is None
    assert set(one.decision.possible_outcomes) == {"resectable", "metastatic"}
    (again,), questions = stage(PLAN, ledger, REPORTS[:1])
    assert [question for _, question in questions] == [PLAN.question(PLAN.subtasks[1])]
    assert (again.resumed, again.decision.outcome) == (2, "resectable")


def test_one_bad_report_never_stops_the_others():
    def breaks_at_the_second(asked):
        if asked.report == REPORTS[1].text:
            raise ValueError(asked.report)

    staged = list(Stager(PLAN, small_engine(breaks_at_the_second)).stage(REPORTS[:3]))
    assert [one.status for one in staged] == [ReportStatus.DECIDED, ReportStatus.FAILED, ReportStatus.DECIDED]
    assert staged[1].error.startswith("ValueError at ")
    assert "CT abdomen" not in staged[1].error


def test_a_text_that_the_engine_cannot_even_count_fails_alone(ledger):
    class Picky(type(small_engine())):
        def count_tokens(self, text):
            return len(text.encode()) // 4  # raises for a lone surrogate

    from small_batch import scripted_reading

    reports = [Report("odd", "The SMA is free.\ud800"), REPORTS[0]]
    staged = list(Stager(PLAN, Picky(scripted_reading), ledger).stage(reports))
    assert [one.status for one in staged] == [ReportStatus.FAILED, ReportStatus.DECIDED]
    assert staged[0].error.startswith("UnicodeEncodeError at ")


def test_a_lone_surrogate_in_a_report_is_no_reason_to_fail(ledger):
    (one,), _ = stage(PLAN, ledger, [Report("odd", REPORTS[0].text.replace("normal", "nor\ud800mal"))])
    assert one.decision is not None, one.error
    assert one.decision.outcome == "resectable"


def test_a_decision_that_cannot_be_made_is_a_failed_report_with_its_answers(monkeypatch):
    def broken(text, scope):
        raise LookupError(text)

    monkeypatch.setattr(staging, "scope_problems", broken)
    (one,), _ = stage(PLAN, None, REPORTS[:1])
    assert one.status is ReportStatus.FAILED
    assert one.error.startswith("LookupError at test_staging.py:")
    assert len(one.answers) == 3


def test_a_ledger_that_cannot_be_written_stops_the_batch_with_what_was_finished_in_it(ledger):
    finished = []
    stager = Stager(PLAN, small_engine(), ledger)
    ledger._connection.execute("PRAGMA max_page_count = 15")
    with pytest.raises(StorageError, match="the disk is full"):
        finished.extend(stager.stage(small_reports(100)))
    ledger._connection.execute("PRAGMA max_page_count = 1000")
    questions = Questions()
    again = list(Stager(PLAN, small_engine(questions), ledger).stage(small_reports(100)))
    resumed = [one.resumed for one in again]
    assert resumed == [3] * sum(1 for r in resumed if r) + [0] * sum(1 for r in resumed if not r)
    assert 0 < resumed.count(3) < 100
    assert len(questions) == 3 * resumed.count(0)


# --------------------------------------------------------------------- lazily


def lazily(ledger, reports=REPORTS, plan=PLAN):
    questions = Questions()
    stager = Stager(plan, small_engine(questions), ledger, lazy=True)
    return list(stager.stage(reports)), questions


def test_lazily_staged_reports_get_the_same_decisions_with_fewer_questions():
    full, asked = stage(PLAN, None)
    some, asked_lazily = lazily(None)
    assert [(one.status, one.decision.outcome, one.decision.rule) for one in some] == [
        (one.status, one.decision.outcome, one.decision.rule) for one in full
    ]
    assert [one.review for one in some] == [one.review for one in full]
    assert len(asked_lazily) < len(asked)
    assert all(len(one.answers) == 3 and one.answer("size_cm").status is AnswerStatus.SKIPPED for one in some)


def test_skipped_answers_are_not_kept_and_are_asked_when_everything_is(ledger):
    lazily(ledger)
    full, questions = stage(PLAN, ledger)
    assert [question for _, question in questions] == [PLAN.question(PLAN.subtasks[2])] * 6
    assert all(one.resumed == 2 for one in full)
    again, questions = lazily(ledger)
    assert questions == []
    assert all(one.decision.skipped == () and one.resumed == 3 for one in again)


def test_lazy_asking_changes_no_answer_and_so_no_key_of_the_ledger():
    assert Stager(PLAN, small_engine(), lazy=True).run_key == Stager(PLAN, small_engine()).run_key


def test_a_report_that_cannot_be_read_at_all_fails_lazily_too():
    def breaks(asked):
        raise RuntimeError(asked.report)

    (one,) = Stager(PLAN, small_engine(breaks), lazy=True).stage(REPORTS[:1])
    assert one.status is ReportStatus.FAILED
    assert [answer.status for answer in one.answers] == [AnswerStatus.FAILED] * 3


def test_a_plan_with_a_sure_reader_asks_no_artery_once_the_liver_decides():
    def sure(asked):
        return "yes" if "liver" in asked.question else asked.candidates[0]

    questions = Questions()

    def reply(asked):
        questions(asked)
        return sure(asked)

    engine = small_engine()
    engine._reply = reply
    stager = Stager(PLAN, engine, lazy=True)
    stager.lazy._cases = [{"liver_mets": "yes"}]  # a hospital of metastases: the liver is asked first
    one = stager.stage_one(REPORTS[1])
    assert [question for _, question in questions] == [PLAN.question(PLAN.subtasks[1])]
    assert (one.decision.outcome, one.decision.skipped) == ("metastatic", ("sma_contact", "size_cm"))
    assert one.decision.probability_between == pytest.approx((1.0, 1.0))
