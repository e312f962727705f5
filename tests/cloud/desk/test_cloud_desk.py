"""The one door to the cloud: order of gate, log, sending and cache; repair; budgets; many asks at once."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

import pytest
from cloud.desk.small_desk import GOOD, KEY, LATE, PIECES, Boundary, Finding, desk, hosted
from cloud.loopback import completion, serving

from medorchestra.cloud.desk.client import ChatReply, FinishReason, read_wire_body
from medorchestra.cloud.desk.cloud_desk import (
    CUT_OFF,
    DECLINED,
    DESK_INSTRUCTIONS,
    PERSONAL,
    SAMPLE_TEMPERATURE,
    Ask,
    CloudDesk,
    Effort,
)
from medorchestra.cloud.desk.prices import ListPrice
from medorchestra.cloud.desk.reply_cache import ReplyCache
from medorchestra.cloud.desk.scripted_cloud import ScriptedCloudModel
from medorchestra.cloud.desk.usage import Budget, StepUsage
from medorchestra.cloud.egress.gate import EgressGate, Instruction
from medorchestra.cloud.egress.log import EgressLog, verify_log
from medorchestra.cloud.guideline import Guideline, Section
from medorchestra.cloud.outgoing import Piece, PieceKind, guideline_piece
from medorchestra.errors import BudgetError, CloudError, EgressError, SettingsError, StorageError


@pytest.fixture
def boundary():
    return Boundary()


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_an_answer_comes_back_as_its_type_and_every_piece_was_sent_under_its_heading(boundary):
    asked, model = desk([GOOD], boundary)
    finding = asked.ask("decompose", PIECES, Finding)
    assert finding == Finding(name="sma_contact", values=["none", "<=180", ">180"])
    (request,) = model.requests
    assert request.system.startswith("# instruction: decompose\nList one finding.\n\n# instruction: answer form\n")
    assert '"minItems":2' in request.system  # the schema is told, whatever the server makes of response_format
    assert request.user == "# guideline: 3.1\nContact of more than 180 degrees is locally advanced."
    assert request.schema["required"] == ["name", "values"]
    assert request.strict
    assert request.temperature == 0


def test_a_question_of_instructions_alone_still_has_a_message_of_the_user(boundary):
    asked, model = desk([GOOD], boundary)
    asked.ask("styles", PIECES[:1], Finding)
    assert model.requests[0].user == "# instruction: decompose\nList one finding."
    assert "answer form" in model.requests[0].system


def test_the_gate_comes_before_the_log_and_the_log_before_sending(boundary):
    def reply(request):
        assert boundary.names() == ["check", "request"]
        logged = boundary.events[1]
        assert logged[1:5] == ("decompose", "scripted://local", "scripted", request.digest)
        sent = request.system + request.user
        assert all(piece.text in sent for piece in logged[5])
        assert len(sent) == len("\n\n".join(f"# {p.kind.value}: {p.origin}\n{p.text}" for p in logged[5])) - 2
        return GOOD

    asked, _ = desk(reply, boundary)
    asked.ask("decompose", PIECES, Finding)
    assert boundary.names() == ["check", "request", "reply"]
    assert boundary.events[-1] == ("reply", 1, True, None, None)


def test_what_the_gate_refuses_is_neither_logged_nor_sent(boundary):
    boundary.refuse = "180 degrees"
    asked, model = desk([], boundary)
    with pytest.raises(EgressError, match=r"guideline 3\.1: a telephone number"):
        asked.ask("decompose", PIECES, Finding)
    assert boundary.names() == ["check"]
    assert model.requests == ()
    assert asked.usage.total == StepUsage()


def test_what_cannot_be_logged_is_not_sent(boundary, monkeypatch):
    def full(**_):
        raise StorageError("egress.log: disk full")

    monkeypatch.setattr(boundary, "record_request", full)
    asked, model = desk([], boundary)
    with pytest.raises(StorageError, match="disk full"):
        asked.ask("decompose", PIECES, Finding)
    assert model.requests == ()


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        ("No JSON today.", "holds no JSON object"),
        (GOOD[:-2], "not valid JSON"),
        ('{"name": "sma_contact"}', "values: Field required"),
        ('{"name": "sma_contact", "values": ["none"]}', "values: List should have at least 2 items"),
        ('{"finding": "sma_contact", "values": ["none", "some"]}', "finding: Extra inputs are not permitted"),
    ],
)
def test_a_reply_that_cannot_be_used_goes_back_with_what_is_wrong(boundary, first, problem):
    asked, model = desk([first, GOOD], boundary)
    assert asked.ask("decompose", PIECES, Finding).name == "sma_contact"
    again = model.requests[1].user
    assert again.startswith(model.requests[0].user)
    assert f"# reply: decompose\n{first}" in again
    assert problem in again.split("# problem: decompose")[1]
    assert asked.usage.steps["decompose"].repairs == 1
    assert asked.usage.steps["decompose"].requests == 2


def test_problems_that_only_the_planner_sees_are_mended_too(boundary):
    def check(finding):
        return [] if ">180" in finding.values else [f"{finding.name}: no value above 180 degrees"]

    asked, model = desk([LATE, GOOD], boundary)
    assert asked.ask("decompose", PIECES, Finding, check=check).name == "sma_contact"
    assert "- ca_contact: no value above 180 degrees" in model.requests[1].user


def test_only_the_last_reply_is_sent_back(boundary):
    asked, model = desk(["first", "second", GOOD], boundary)
    asked.ask("decompose", PIECES, Finding)
    assert "second" in model.requests[2].user
    assert "first" not in model.requests[2].user


def test_an_answer_that_never_gets_right_ends_after_bounded_rounds_with_step_and_problems(boundary):
    asked, model = desk(lambda _: "never", boundary, effort=Effort(max_repairs=3))
    says = "decompose: no usable answer from scripted after 4 requests; 1 problems in the last: the answer holds"
    with pytest.raises(CloudError, match=says):
        asked.ask("decompose", PIECES, Finding)
    assert len(model.requests) == 4


def test_a_mistake_that_is_made_twice_is_not_asked_for_a_third_time_at_temperature_0(boundary, tmp_path):
    asked, model = desk(["never", "never", GOOD], boundary, cache=ReplyCache(tmp_path))
    assert asked.ask("decompose", PIECES, Finding).name == "sma_contact"
    assert [request.temperature for request in model.requests] == [0, 0, SAMPLE_TEMPERATURE]
    assert len({request.digest for request in model.requests}) == 3


def test_a_reply_that_must_not_leave_again_is_mended_without_being_sent_back(boundary):
    boundary.refuse = "555-0142"
    asked, model = desk(['{"name": "call 555-0142"}', GOOD], boundary)
    assert asked.ask("decompose", PIECES, Finding).name == "sma_contact"
    assert "555-0142" not in model.requests[1].user
    assert PERSONAL in model.requests[1].user
    assert "values: Field required" in model.requests[1].user


def cut(text, tokens=None):
    return ChatReply(text, None, tokens, "scripted", FinishReason.LENGTH)


def test_a_cut_off_answer_gets_more_room_and_then_is_asked_to_be_shorter(boundary):
    effort = Effort(max_output_tokens=100, most_output_tokens=300)
    asked, model = desk([cut("{"), cut("{"), cut("{"), GOOD], boundary, effort=effort)
    assert asked.ask("decompose", PIECES, Finding).name == "sma_contact"
    assert [request.max_output_tokens for request in model.requests] == [100, 200, 300, 300]
    assert [CUT_OFF in request.user for request in model.requests] == [False, False, False, True]


def test_an_answer_that_is_always_cut_off_says_so(boundary):
    asked, _ = desk(lambda _: cut("{"), boundary, effort=Effort(1, 100, 100))
    with pytest.raises(CloudError, match=r"decompose: .* after 2 requests; .*cut off at 100 tokens"):
        asked.ask("decompose", PIECES, Finding)


def test_a_refusal_is_answered_once_with_what_the_texts_are(boundary):
    refused = ChatReply("I cannot.", 5, 2, "scripted", FinishReason.REFUSED)
    asked, model = desk([refused, GOOD], boundary)
    assert asked.ask("decompose", PIECES, Finding).name == "sma_contact"
    assert DECLINED in model.requests[1].user
    asked, model = desk(lambda _: refused, boundary)
    with pytest.raises(CloudError, match=r"decompose: .* after 2 requests; .*the model declined"):
        asked.ask("decompose", PIECES, Finding)
    assert len(model.requests) == 2


def test_an_independent_sample_is_another_request_and_is_drawn(boundary, tmp_path):
    asked, model = desk([GOOD, LATE], boundary, cache=ReplyCache(tmp_path))
    names = [asked.ask("decompose", PIECES, Finding, sample=number).name for number in (0, 1, 0, 1)]
    assert names == ["sma_contact", "ca_contact", "sma_contact", "ca_contact"]
    assert [(request.sample, request.temperature) for request in model.requests] == [(0, 0.0), (1, SAMPLE_TEMPERATURE)]


def test_a_run_that_was_killed_repeats_no_paid_request(boundary, tmp_path):
    class KilledError(BaseException):
        pass

    def killed_at_third(request, count=Counter()):  # noqa: B006 - the count is meant to last
        count["asked"] += 1
        if count["asked"] == 3:
            raise KilledError
        return "no JSON" if count["asked"] == 1 else GOOD

    def run(asked):
        steps = ("decompose", "subtasks")
        return [asked.ask(step, [*PIECES, Piece(PieceKind.PLAN, "outcomes", step)], Finding).name for step in steps]

    first, _ = desk(killed_at_third, boundary, cache=ReplyCache(tmp_path))
    with pytest.raises(KilledError):
        run(first)
    assert boundary.events[-1] == ("reply", 3, False, None, None)  # sent, and no reply came
    second, model = desk([LATE], boundary, cache=ReplyCache(tmp_path))
    assert run(second) == ["sma_contact", "ca_contact"]
    assert len(model.requests) == 1
    assert second.usage.steps["decompose"].cached == 2
    assert second.usage.steps["decompose"].requests == 0


def test_a_reply_is_kept_before_it_is_read(boundary, tmp_path):
    def check(_):
        raise ZeroDivisionError

    asked, _ = desk([GOOD], boundary, cache=ReplyCache(tmp_path))
    with pytest.raises(ZeroDivisionError):
        asked.ask("decompose", PIECES, Finding, check=check)
    again, model = desk([], boundary, cache=ReplyCache(tmp_path))
    assert again.ask("decompose", PIECES, Finding).name == "sma_contact"
    assert model.requests == ()


def test_replies_that_came_to_nothing_are_asked_for_anew_by_the_next_run_and_kept(boundary, tmp_path):
    asked, _ = desk(lambda _: "never", boundary, cache=ReplyCache(tmp_path), effort=Effort(max_repairs=1))
    with pytest.raises(CloudError, match="its replies are kept in"):
        asked.ask("decompose", PIECES, Finding)
    assert len(list(tmp_path.glob("*.unusable.json"))) == 2
    again, model = desk([GOOD], boundary, cache=ReplyCache(tmp_path))
    assert again.ask("decompose", PIECES, Finding).name == "sma_contact"
    assert len(model.requests) == 1


def test_usage_is_added_up_by_step_and_says_what_was_guessed(boundary, tmp_path):
    told = ChatReply(GOOD, 700, 30, "scripted")
    asked, model = desk([told, GOOD], boundary, cache=ReplyCache(tmp_path))
    seen = []
    asked.progress = lambda step, usage: seen.append((step, usage.total.requests, usage.total.cached))
    asked.ask("decompose", PIECES, Finding)
    asked.ask("subtasks", PIECES, Finding, sample=1)
    asked.ask("subtasks", PIECES, Finding, sample=1)
    first, second = asked.usage.steps["decompose"], asked.usage.steps["subtasks"]
    assert (first.requests, first.input_tokens, first.output_tokens, first.guessed) == (1, 700, 30, 0)
    sent = model.requests[1].system + model.requests[1].user
    assert second.input_tokens == -(-len(sent.encode()) // 4)
    assert (second.requests, second.cached, second.guessed) == (1, 1, 2)
    assert second.cached_input_tokens == second.input_tokens
    assert asked.usage.total.input_tokens == 700 + second.input_tokens
    assert seen == [("decompose", 1, 0), ("subtasks", 2, 0), ("subtasks", 2, 1)]


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (Budget(max_requests=1), "the budget of 1 requests is used up"),
        (Budget(max_tokens=1_800), "1030 of 1800 tokens are spent, and the next request may take"),
        (Budget(max_cost=0.01, price=ListPrice("scripted", 5.0, 10.0, "here", "2026-11-24")), r"\$0.0053 of \$0.0100"),
    ],
)
def test_a_budget_stops_before_sending_and_keeps_what_was_answered(boundary, tmp_path, budget, says):
    told = ChatReply("not yet", 1_000, 30, "scripted")
    effort = Effort(max_output_tokens=700)
    asked, model = desk([told], boundary, budget=budget, cache=ReplyCache(tmp_path), effort=effort)
    with pytest.raises(BudgetError, match=f"decompose: {says}.*grant more and start again"):
        asked.ask("decompose", PIECES, Finding)
    assert len(model.requests) == 1
    assert boundary.names() == [
        "check",
        "request",
        "reply",
        "check",
        "check",
    ]  # the second check: may the reply go back
    again, model = desk([GOOD], boundary, cache=ReplyCache(tmp_path), effort=effort)
    assert again.ask("decompose", PIECES, Finding).name == "sma_contact"
    assert len(model.requests) == 1


def test_requests_that_run_at_the_same_time_do_not_overdraw_the_budget(boundary):
    def reply(_):
        time.sleep(0.02)
        return ChatReply(GOOD, 100, 10, "scripted")

    # Room for one request's worst case at a time, and for all of what they really take.
    effort = Effort(max_output_tokens=1_000, workers=4)
    asked, _ = desk(reply, boundary, budget=Budget(max_tokens=2_000), effort=effort)
    findings = asked.ask_all([Ask("decompose", PIECES, Finding, sample=number) for number in range(4)])
    assert len(findings) == 4
    assert asked.usage.total.input_tokens + asked.usage.total.output_tokens == 440


def test_a_budget_in_money_needs_a_price():
    with pytest.raises(SettingsError, match="needs a price"):
        Budget(max_cost=1.0)


def test_answers_of_many_asks_come_in_their_order_whichever_is_done_first(boundary):
    running, most = Counter(), []
    lock = threading.Lock()

    def reply(request):
        with lock:
            running["now"] += 1
            most.append(running["now"])
        time.sleep(0.03 if request.sample % 2 == 0 else 0.005)
        with lock:
            running["now"] -= 1
        return json.dumps({"name": f"finding_{request.sample}", "values": ["a", "b"]})

    asked, _ = desk(reply, boundary, effort=Effort(workers=3))
    answers = asked.ask_all([Ask("decompose", PIECES, Finding, sample=number) for number in range(9)])
    assert [answer.name for answer in answers] == [f"finding_{number}" for number in range(9)]
    assert max(most) == 3
    assert asked.ask_all([]) == []


def test_after_a_failure_nothing_new_is_begun_and_what_ran_is_kept(boundary, tmp_path):
    started = threading.Barrier(2, timeout=5)

    def reply(request):
        if request.sample > 1:
            return GOOD
        started.wait()
        if request.sample == 0:
            return CloudError("the key was not accepted")
        time.sleep(0.05)
        return GOOD

    asked, model = desk(reply, boundary, cache=ReplyCache(tmp_path), effort=Effort(workers=2))
    asks = [Ask("decompose", PIECES, Finding, sample=number) for number in range(50)]
    with pytest.raises(CloudError, match="decompose: the key was not accepted"):
        asked.ask_all(asks)
    assert len(model.requests) < 50
    again, second = desk([], boundary, cache=ReplyCache(tmp_path))
    assert again.ask("decompose", PIECES, Finding, sample=1).name == "sma_contact"
    assert second.requests == ()


def test_the_same_question_from_two_threads_is_paid_once(boundary, tmp_path):
    def reply(_):
        time.sleep(0.05)
        return GOOD

    asked, model = desk(reply, boundary, cache=ReplyCache(tmp_path))
    answers = asked.ask_all([Ask("decompose", PIECES, Finding)] * 4)
    assert len(answers) == 4
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "settings",
    [{"max_repairs": -1}, {"workers": 0}, {"max_output_tokens": 0}, {"max_output_tokens": 9, "most_output_tokens": 8}],
)
def test_an_impossible_effort_is_refused(settings):
    with pytest.raises(SettingsError):
        Effort(**settings)


def test_no_text_stands_in_the_repr_of_a_question():
    assert repr(Ask("decompose", PIECES, Finding)) == "Ask('decompose', 2 pieces, Finding, sample=0)"


GUIDELINE = Guideline(
    title="Resectability",
    edition="1",
    source="invented",
    licence="CC0",
    sections={"3.1": Section("3.1", "Arteries", "Contact of more than 180 degrees is locally advanced.")},
    digest="sha256:" + "0" * 64,
)


def test_everything_the_desk_sends_of_its_own_passes_the_real_gate_and_stands_in_the_real_log(tmp_path, request):
    decompose = Instruction("List one finding.")
    gate = EgressGate(GUIDELINE, {"decompose": decompose, **DESK_INSTRUCTIONS})
    pieces = [Piece(PieceKind.INSTRUCTION, "decompose", decompose.template), guideline_piece(GUIDELINE.sections["3.1"])]
    behaviours = [
        completion(None, refusal="No."),
        completion("{", finish="length"),
        completion('{"name": "Mrs Jane Smith, born 03/04/1951", "values": ["none"]}'),
        completion('{"name": "sma_contact", "values": ["none"]}'),
        completion(GOOD),
    ]
    effort = Effort(max_repairs=4, max_output_tokens=1_000, most_output_tokens=1_000)
    path = tmp_path / "egress.log"
    with serving(behaviours) as server, EgressLog.open(path, gate=gate, secrets=[KEY]) as log:
        asked = CloudDesk(hosted(server, request), gate=gate, log=log, effort=effort)
        assert asked.ask("decompose", pieces, Finding).name == "sma_contact"
    check = verify_log(path)
    assert check.intact
    assert check.requests == 5
    users = [body["messages"][1]["content"] for body in server.bodies]
    assert [marker in user for marker, user in zip((DECLINED, CUT_OFF, PERSONAL), users[1:4], strict=True)] == [
        True
    ] * 3
    assert "Jane" not in "".join(users)
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    sent = [entry for entry in entries if entry["kind"] == "request"]
    for entry, body in zip(sent, server.bodies, strict=True):
        assert entry["request_digest"] == read_wire_body(body).digest
        wire = [message["content"] for message in body["messages"]]
        assert all(piece["text"] in wire[0] + wire[1] for piece in entry["pieces"])
    assert "Jane" not in json.dumps(entries)


def test_a_desk_whose_gate_does_not_know_its_form_sends_nothing(boundary):
    gate = EgressGate(GUIDELINE, {})
    model = ScriptedCloudModel(lambda _: GOOD)
    with pytest.raises(EgressError, match="instruction 'answer form': no packaged prompt has this name"):
        CloudDesk(model, gate=gate, log=boundary).ask("decompose", PIECES[1:], Finding)
    assert model.requests == ()
