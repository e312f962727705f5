"""A model server that goes away in the middle of a run ends it; a report that no server can read does not."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from local.engine.model_server import text_of
from local.served_batch import CHOOSES, SCORES, serving_reader
from small_batch import PLAN, small_engine, small_reports

from medorchestra.errors import ModelError, ServerFailedError
from medorchestra.local.engine.server import ServerEngine
from medorchestra.local.engine.server_client import Patience, ServerRefusedError
from medorchestra.local.executor import Reading
from medorchestra.local.ledger import Ledger
from medorchestra.local.records import Report
from medorchestra.local.scale_out import RowOptions, RowStager, StagingJob
from medorchestra.local.server_watch import LOOK_AFTER, STOP_AFTER, ServerWatch
from medorchestra.local.staged_report import ReportStatus
from medorchestra.local.staging import Stager

GONE = "model server http://10.0.0.7:8080 /v1/completions: not reachable (ConnectionRefusedError) after 5 attempts"
REPORTS = small_reports(40)
KINDS = pytest.mark.parametrize("kind", [SCORES, CHOOSES], ids=["scores", "chooses"])


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.delenv("MEDORCHESTRA_SERVERS", raising=False)
    monkeypatch.setattr(Patience, "wait", lambda *_: None)


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def failing(status, *, when=lambda text: True):
    """Answers with a status (None: breaks the connection) where `when` says so of the text that is sent."""

    def fault(handler, body):
        prompt = body.get("prompt")
        text = text_of(prompt) if isinstance(prompt, list) else str(body)
        if not when(text):
            return False
        if status is None:
            handler.reset()
        else:
            handler.say(status, b"{}")
        return True

    return fault


def about(reports):
    openings = [report.text.partition(" Hypoenhancing")[0] for report in reports]
    return lambda text: any(opening in text for opening in openings)


# ------------------------------------------------------- over real HTTP


@KINDS
@pytest.mark.parametrize("status", [None, 500, 503], ids=["reset", "500", "503"])
def test_a_server_that_goes_away_ends_the_run_and_the_same_run_goes_on(ledger, kind, status):
    with serving_reader(kind) as server, ServerEngine(server.url) as engine:
        stager = Stager(PLAN, engine, ledger)
        staged = list(stager.stage(REPORTS[:3]))
        server.fault, before = failing(status), len(server.requests)
        with pytest.raises(ModelError, match=f"for {LOOK_AFTER} reports in a row") as caught:
            staged.extend(stager.stage(REPORTS[3:]))
        asked = len(server.requests) - before
        server.fault = None
        again = list(Stager(PLAN, engine, ledger).stage(REPORTS[:9]))
    assert [one.status for one in staged[3:]] == [ReportStatus.FAILED] * (LOOK_AFTER - 1)
    assert all(ledger.find(report.digest, stager.run_key) == {} for report in REPORTS[10:])
    assert [one.resumed for one in again] == [3] * 3 + [0] * 6
    assert not any(one.status is ReportStatus.FAILED for one in again)
    assert asked <= (2 * LOOK_AFTER + 1) * 5  # two questions for each report and one aside, each five times
    assert "Finished answers are in the ledger" in str(caught.value)
    assert "CT abdomen" not in str(caught.value)


@KINDS
def test_one_report_that_the_server_always_fails_at_stops_nothing_however_often_it_comes(ledger, kind):
    bad = REPORTS[1]
    reports = [REPORTS[0], *(Report(f"copy-{i}", bad.text) for i in range(STOP_AFTER + 2)), REPORTS[2], bad]
    with serving_reader(kind) as server, ServerEngine(server.url) as engine:
        server.fault = failing(500, when=about([bad]))
        staged = list(Stager(PLAN, engine, ledger).stage(reports))
    failed = [one.report_id for one in staged if one.status is ReportStatus.FAILED]
    assert len(failed) == STOP_AFTER + 3
    assert staged[-2].decision is not None


@KINDS
def test_several_bad_reports_in_a_row_stop_nothing_while_the_server_answers_aside(kind):
    bad = REPORTS[2 : 2 + LOOK_AFTER + 2]
    with serving_reader(kind) as server, ServerEngine(server.url) as engine:
        server.fault = failing(500, when=about(bad))
        staged = list(Stager(PLAN, engine).stage(REPORTS[:12]))
    failed = [one.report_id for one in staged if one.status is ReportStatus.FAILED]
    assert failed == [report.report_id for report in bad]


def test_a_server_that_can_read_nothing_but_short_notes_ends_the_run_too():
    with serving_reader(CHOOSES) as server, ServerEngine(server.url) as engine:
        server.fault = failing(500, when=lambda text: "CT abdomen" in text)
        with pytest.raises(ModelError, match=f"for {STOP_AFTER} reports in a row.*still answers a short question"):
            list(Stager(PLAN, engine).stage(REPORTS))


def test_requests_that_are_refused_for_what_is_in_them_end_no_run():
    with serving_reader(CHOOSES) as server, ServerEngine(server.url) as engine:
        server.fault = failing(400, when=lambda text: "CT abdomen" in text)
        staged = list(Stager(PLAN, engine).stage(REPORTS))
    assert [one.status for one in staged] == [ReportStatus.FAILED] * len(REPORTS)


# ------------------------------------------------------------- in scripts


class Away:
    """A server that is there or not; notes what it is asked."""

    def __init__(self):
        self.gone, self.questions = False, []

    def __call__(self, asked):
        self.questions.append(asked.report)
        if self.gone:
            raise ServerFailedError(GONE)


def test_of_a_lost_report_two_questions_are_sent_and_no_more():
    server = Away()
    server.gone = True
    (staged,) = Stager(PLAN, small_engine(server)).stage(REPORTS[:1])
    assert len(PLAN.subtasks) > 2
    assert len(server.questions) == 2
    assert {answer.error.split(" ")[0] for answer in staged.answers} == {"ServerFailedError"}


def test_without_a_ledger_the_message_promises_none():
    server = Away()
    server.gone = True
    with pytest.raises(ModelError, match="Without a ledger nothing was kept") as caught:
        list(Stager(PLAN, small_engine(server)).stage(REPORTS))
    assert GONE in str(caught.value)


def test_an_engine_on_this_machine_is_never_stopped():
    def fail(asked):
        raise ModelError("out of memory")

    staged = list(Stager(PLAN, small_engine(fail)).stage(REPORTS))
    assert {one.status for one in staged} == {ReportStatus.FAILED}


def test_a_worker_counts_over_its_batches_and_stops_at_once_when_they_are_given_to_it_again():
    server = Away()
    job = StagingJob(PLAN, lambda plan: small_engine(server), options=RowOptions(unvalidated=True))
    rows = [{"report_id": one.report_id, "text": one.text} for one in REPORTS[:9]]
    batches = [pa.Table.from_pylist(rows[start : start + 3]) for start in (0, 3, 6)]
    with RowStager(job) as worker:
        worker.table(batches[0])
        server.gone = True
        worker.table(batches[1])
        for _ in range(2):
            with pytest.raises(ModelError, match="reports in a row"):
                worker.table(batches[2])
        server.gone = False
        assert worker.table(batches[2]).column("status").to_pylist() != ["failed"] * 3


LOST, READ, UNASKED = Reading((), 0, 0.0, 0.0, GONE), Reading((), 9, 0.0, 0.0), Reading((), 0, 0.0, 0.0)


@given(st.lists(st.sampled_from([LOST, READ, UNASKED]), max_size=60), st.booleans())
def test_a_run_is_stopped_by_reports_lost_in_a_row_and_by_nothing_else(readings, answers_aside):
    server = Away()
    server.gone = not answers_aside
    watch, stopped = ServerWatch(small_engine(server), kept=True), None
    for i, reading in enumerate(readings):
        try:
            watch.note(Report(str(i), f"Report {i}."), reading)
        except ModelError:
            stopped = i
            break
    most, row, expected = (STOP_AFTER if answers_aside else LOOK_AFTER), 0, None
    for i, reading in enumerate(readings):
        row = row + 1 if reading is LOST else 0 if reading is READ else row
        if row == most:
            expected = i
            break
    assert stopped == expected


@pytest.mark.parametrize(
    ("status", "of_server"),
    [(400, False), (413, False), (422, False), (401, True), (404, True), (429, True), (500, True)],
)
def test_a_status_tells_of_the_server_or_of_the_request(status, of_server):
    assert ServerRefusedError("m", status).of_server is of_server
