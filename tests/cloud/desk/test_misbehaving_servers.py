"""A hosted model that misbehaves, over real HTTP: a repaired answer or a clear error, and nothing is lost."""

from __future__ import annotations

import pytest
from cloud.desk.small_desk import GOOD, KEY, LATE, PIECES, Boundary, Finding, desk, hosted
from cloud.loopback import as_json, completion, failing, hang_up, html, late, serving

from medorchestra.cloud.outgoing import case_piece
from medorchestra.errors import CloudError


@pytest.fixture
def boundary():
    return Boundary()


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


MISBEHAVIOURS = {
    "prose around the object": [completion(f"Sure! Here it is:\n```json\n{GOOD}\n```\nAnything else?")],
    "invalid JSON": [completion(GOOD[:-1]), completion(GOOD)],
    "schema ignored": [completion("The finding is contact with the SMA."), completion(GOOD)],
    "schema refused": [as_json(400, {"error": {"message": "x", "param": "response_format"}}), completion(GOOD)],
    "cut off": [completion(GOOD[:9], finish="length"), completion(GOOD)],
    "refusal": [completion(None, refusal="No."), completion(GOOD)],
    "content filter": [completion("", finish="content_filter"), completion(GOOD)],
    "rate limit with Retry-After": [failing(429, retry_after="2"), completion(GOOD)],
    "rate limit without Retry-After": [failing(429), failing(429), completion(GOOD)],
    "server errors": [failing(500), failing(503), completion(GOOD)],
    "time-out": [late(0.3, completion(LATE)), completion(GOOD)],
    "connection reset": [hang_up, completion(GOOD)],
    "empty choices": [as_json(200, {"choices": []}), completion(GOOD)],
    "HTML error page": [html(502), html(200), completion(GOOD)],
    "empty message": [completion(None), completion(GOOD)],
    "two objects": [completion(LATE + GOOD), completion(GOOD)],
}


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_a_misbehaving_server_ends_in_a_repaired_answer(name, boundary, request):
    with serving(MISBEHAVIOURS[name]) as server:
        model = hosted(server, request, timeout=0.15 if name == "time-out" else 5.0)
        asked, _ = desk(model, boundary)
        assert asked.ask("decompose", PIECES, Finding).name == "sma_contact"
        assert len(server.bodies) == len(MISBEHAVIOURS[name])
    sent = [event[4] for event in boundary.events if event[0] == "request"]
    answered = [event for event in boundary.events if event[0] == "reply"]
    assert len(sent) == len(answered) == asked.usage.total.requests


@pytest.mark.parametrize(
    ("behave", "says"),
    [
        (
            completion("no"),
            "decompose: no usable answer from large-1 after 4 requests; 1 problems in the last: the answer",
        ),
        (
            completion("{", finish="length"),
            "decompose: no usable answer from large-1 after 4 requests.*cut off at 65536",
        ),
        (completion(None, refusal="No."), "decompose: no usable answer from large-1 after 2 requests.*declined"),
        (failing(429), "decompose: http://127.0.0.1:.*too many requests .HTTP 429.; gave up after 6 attempts"),
        (failing(500), "decompose: http://127.0.0.1:.*the server failed .HTTP 500.; gave up after 6 attempts"),
        (failing(401), "decompose: http://127.0.0.1:.*the key in OPENAI_API_KEY was not accepted"),
        (hang_up, "decompose: http://127.0.0.1:.*cannot be reached"),
        (as_json(200, {"choices": []}), "decompose: http://127.0.0.1:.*without a message"),
        (html(200), "decompose: http://127.0.0.1:.*an HTML page"),
    ],
)
def test_a_server_that_goes_on_misbehaving_ends_in_a_clear_error(behave, says, boundary, request):
    with serving(behave) as server:
        asked, _ = desk(hosted(server, request), boundary)
        with pytest.raises(CloudError, match=says) as caught:
            asked.ask("decompose", PIECES, Finding)
    assert "sk-planted" not in str(caught.value)
    assert boundary.names().count("request") == boundary.names().count("reply") == asked.usage.total.requests


def test_a_server_that_ignores_the_schema_is_noticed(boundary, request):
    with serving([completion("The finding is contact."), completion(f"Here: {GOOD}"), completion(GOOD)]) as server:
        asked, _ = desk(hosted(server, request), boundary)
        asked.ask("decompose", PIECES, Finding)
        assert asked.usage.steps["decompose"].schema_ignored == 2
        asked.ask("subtasks", PIECES, Finding)
        assert asked.usage.steps["subtasks"].schema_ignored == 0


def test_only_a_synthetic_case_becomes_a_piece():
    with pytest.raises(TypeError, match="only a SyntheticCase may leave, not a str"):
        case_piece("CT of the abdomen.")
