"""One request over real loopback HTTP, against servers that misbehave."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from dataclasses import replace

import pytest
from cloud.loopback import (
    as_bytes,
    as_json,
    completion,
    failing,
    hang_up,
    hang_up_half_way,
    html,
    late,
    serving,
)

from medorchestra.cloud.desk import client
from medorchestra.cloud.desk.backoff import Backoff
from medorchestra.cloud.desk.client import ChatRequest, FinishReason, OpenAICloudModel, read_wire_body, wire_body
from medorchestra.errors import CloudError, SettingsError

KEY = "sk-planted-0123456789abcdef"
SCHEMA = {"type": "object", "properties": {"size": {"type": "number"}}, "required": ["size"]}
REQUEST = ChatRequest("large-1", "You write plans.", "The guideline.", SCHEMA, "size", strict=True)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def model(request):
    """Makes a model behind a server, and the list of the waits that it was made to take."""

    def make(server, **settings):
        waits = []
        backoff = Backoff(sleep=waits.append, jitter=lambda: 0.0, now=lambda: 1_000_000_000.0)
        settings = {"timeout": 5.0, "backoff": backoff, **settings}
        made = OpenAICloudModel("large-1", base_url=server.url, **settings)
        request.addfinalizer(made.close)
        return made, waits

    return make


def test_a_request_arrives_as_it_was_made_and_its_reply_comes_back(model):
    with serving(completion("hello")) as server:
        asked, waits = model(server)
        reply = asked.complete(REQUEST)
    assert (reply.text, reply.input_tokens, reply.output_tokens, reply.model) == ("hello", 100, 10, "large-1")
    assert reply.finish_reason is FinishReason.COMPLETE
    assert waits == []
    assert read_wire_body(server.bodies[0]) == REQUEST
    assert read_wire_body(server.bodies[0]).digest == REQUEST.digest
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "large-2"},
        {"system": "You write cases."},
        {"user": "Another guideline."},
        {"schema": None},
        {"schema_name": "other"},
        {"strict": False},
        {"max_output_tokens": 9},
        {"temperature": 0.5},
        {"sample": 1},
    ],
)
def test_every_field_of_a_request_changes_its_digest_and_travels(change):
    changed = replace(REQUEST, **change)
    assert changed.digest != REQUEST.digest
    travelled = read_wire_body(wire_body(changed))
    if change == {"schema": None}:  # a name without a schema names nothing
        travelled = replace(travelled, schema_name=changed.schema_name, strict=changed.strict)
    assert travelled == changed


def test_a_digest_does_not_depend_on_the_order_of_schema_keys():
    turned = dict(reversed(SCHEMA.items()))
    assert replace(REQUEST, schema=turned).digest == REQUEST.digest


@pytest.mark.parametrize(
    ("trouble", "waits"),
    [
        ([failing(429, retry_after="7")], [7.0]),
        ([failing(429, retry_after="Sun, 09 Sep 2001 01:46:52 GMT")], [12.0]),
        ([failing(429, retry_after_ms="250")], [0.25]),
        ([failing(429, retry_after="soon")], [0.5]),
        ([failing(429)] * 3, [0.5, 1.0, 2.0]),
        ([failing(500), failing(502), html(503), failing(529)], [0.5, 1.0, 2.0, 4.0]),
        ([failing(408), failing(409)], [0.5, 1.0]),
        ([hang_up, hang_up_half_way], [0.5, 1.0]),
        ([html(200)], [0.5]),
        ([as_bytes(200, b'{"choices": [', {"Content-Type": "application/json"})], [0.5]),
        ([as_json(200, {"choices": []})], [0.5]),
        ([as_json(200, {"choices": None})], [0.5]),
        ([as_json(200, [])], [0.5]),
        ([as_bytes(200, b"", {})], [0.5]),
    ],
)
def test_a_busy_or_broken_server_is_asked_again_after_a_growing_wait(trouble, waits, model):
    with serving([*trouble, completion("at last")]) as server:
        asked, waited = model(server)
        assert asked.complete(REQUEST).text == "at last"
    assert waited == waits
    assert len(server.bodies) == len(trouble) + 1
    assert all(body == server.bodies[0] for body in server.bodies)


def test_a_server_that_stays_silent_is_given_up_and_asked_again(model):
    with serving([late(0.3, completion("too late")), completion("in time")]) as server:
        asked, waited = model(server, timeout=0.1)
        assert asked.complete(REQUEST).text == "in time"
    assert waited == [0.5]


def test_a_slow_server_within_the_time_is_waited_for(model):
    with serving(late(0.1, completion("slow"))) as server:
        asked, waited = model(server, timeout=2.0)
        assert asked.complete(REQUEST).text == "slow"
    assert waited == []


def test_waits_stay_between_half_and_all_of_the_doubled_time():
    assert [Backoff(jitter=lambda: 0.0).seconds(n, None) for n in (1, 2, 9)] == [0.5, 1.0, 30.0]
    assert [Backoff(jitter=lambda: 1.0).seconds(n, None) for n in (1, 2, 9)] == [1.0, 2.0, 60.0]


@pytest.mark.parametrize(
    ("behave", "says"),
    [
        (failing(429), "too many requests .HTTP 429.; gave up after 3 attempts"),
        (failing(500), "the server failed .HTTP 500.; gave up after 3 attempts"),
        (hang_up, "cannot be reached .*gave up after 3 attempts"),
        (html(200), "an HTML page: check the base URL; gave up after 3 attempts"),
        (as_json(200, {"choices": []}), "answered without a message; gave up after 3 attempts"),
    ],
)
def test_attempts_are_bounded(behave, says, model):
    with serving(behave) as server:
        asked, waited = model(server, max_attempts=3)
        with pytest.raises(CloudError, match=says):
            asked.complete(REQUEST)
    assert len(server.bodies) == 3
    assert len(waited) == 2


def test_a_server_that_asks_for_an_hour_is_not_waited_for(model):
    with serving(failing(429, retry_after="3600")) as server:
        asked, waited = model(server)
        with pytest.raises(CloudError, match="asks to wait 3600 s"):
            asked.complete(REQUEST)
    assert waited == []


def test_nobody_at_the_address_is_a_clear_error(model):
    with serving(completion("")) as server:
        pass
    asked, _ = model(server, max_attempts=2)
    with pytest.raises(CloudError, match=r"cannot be reached .ConnectError.; gave up after 2 attempts"):
        asked.complete(REQUEST)


@pytest.mark.parametrize(
    ("behave", "says"),
    [
        (failing(401), "the key in OPENAI_API_KEY was not accepted"),
        (failing(403), "may not use large-1"),
        (failing(404), "no model large-1 there: check its name, and that the base URL"),
        (html(404), "no model large-1 there"),
        (failing(413), "smaller sections"),
        (
            failing(400, "context_length_exceeded"),
            "longer than large-1 can read: give the guideline in smaller sections",
        ),
        (failing(429, "insufficient_quota"), "quota is used up .HTTP 429, insufficient_quota."),
        (failing(400, "invalid_prompt"), "was not accepted.*HTTP 400, invalid_prompt"),
        (as_bytes(307, b"", {"Location": "http://127.0.0.1:9/v1/chat/completions"}), "redirects are not followed"),
    ],
)
def test_what_waiting_cannot_mend_fails_at_once_with_a_next_step(behave, says, model):
    with serving(behave) as server:
        asked, waited = model(server)
        with pytest.raises(CloudError, match=says):
            asked.complete(REQUEST)
    assert len(server.bodies) == 1
    assert waited == []


@pytest.mark.parametrize(
    ("message", "param", "sent_then"),
    [
        ("Invalid schema for response_format 'size'", "response_format", {"response_format": None}),
        ("json_schema is not supported by this backend", None, {"response_format": None}),
        ("Unsupported value: 'temperature' does not support 0", "temperature", {"temperature": None}),
        (
            "Unsupported parameter: 'max_completion_tokens'. Use 'max_tokens' instead.",
            "max_completion_tokens",
            {"max_completion_tokens": None, "max_tokens": 8192},
        ),
        ("seed: extra fields not permitted", None, {"seed": None}),
    ],
)
def test_a_parameter_that_the_server_does_not_know_is_left_out_from_then_on(message, param, sent_then, model):
    refusal = as_json(400, {"error": {"message": message, "param": param, "code": "unsupported_parameter"}})
    request = replace(REQUEST, sample=3)
    with serving([refusal, completion("yes")]) as server:
        asked, waited = model(server)
        assert asked.complete(request).text == "yes"
        assert asked.complete(request).text == "yes"
    assert waited == []
    assert len(server.bodies) == 3
    for body in server.bodies[1:]:
        assert {name: body.get(name) for name in sent_then} == sent_then
        assert body["messages"] == server.bodies[0]["messages"]


def test_a_server_that_refuses_every_optional_parameter_in_turn_is_still_asked(model):
    def fussy(connection):
        named = ("response_format", "temperature", "seed", "max_completion_tokens", "max_tokens")
        there = next((name for name in named if name in connection.body), None)
        if there is None:
            return completion("bare")(connection)
        return as_json(400, {"error": {"message": f"unknown: {there}", "param": there}})(connection)

    with serving(fussy) as server:
        asked, _ = model(server)
        assert asked.complete(replace(REQUEST, sample=1)).text == "bare"
    assert server.bodies[-1].keys() == {"model", "messages"}


def test_a_bad_request_that_is_about_no_parameter_is_not_sent_twice(model):
    with serving(as_json(400, {"error": {"message": "temperature", "param": "messages"}})) as server:
        asked, _ = model(server)
        with pytest.raises(CloudError, match="HTTP 400"):
            asked.complete(REQUEST)
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("behave", "reason", "text"),
    [
        (completion('{"size": 2', finish="length"), FinishReason.LENGTH, '{"size": 2'),
        (completion(None, refusal="I cannot help."), FinishReason.REFUSED, "I cannot help."),
        (completion(None, finish="content_filter"), FinishReason.REFUSED, ""),
        (completion("text", finish=None), FinishReason.COMPLETE, "text"),
        (completion(None), FinishReason.COMPLETE, ""),
    ],
)
def test_a_cut_off_or_refused_answer_is_a_value(behave, reason, text, model):
    with serving(behave) as server:
        reply = model(server)[0].complete(REQUEST)
    assert (reply.finish_reason, reply.text) == (reason, text)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}, "many"])
def test_tokens_that_the_server_did_not_count_are_unknown_not_zero(usage, model):
    with serving(completion("text", usage=usage)) as server:
        reply = model(server)[0].complete(REQUEST)
    assert (reply.input_tokens, reply.output_tokens) == (None, None)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_a_key_that_the_server_echoes_appears_nowhere(status, caplog, capsys, monkeypatch, model):
    monkeypatch.setenv("OPENAI_LOG", "debug")

    def echo(connection):
        said = connection.headers["Authorization"]
        error = {"message": said, "code": said, "type": said, "param": said}
        as_json(status, {"error": error}, {"X-Echo": said, "Retry-After": said})(connection)

    caplog.set_level(logging.DEBUG)
    with serving(echo) as server:
        asked, _ = model(server, max_attempts=2)
        with pytest.raises(CloudError) as caught:
            asked.complete(REQUEST)
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(asked) + repr(REQUEST) + caplog.text
    shown += "".join(capsys.readouterr())
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in shown
    assert "planted" not in shown
    assert error.__cause__ is None
    assert error.__context__ is None  # the SDK's exception holds the request with its headers


@pytest.mark.parametrize("code", ["word", "key_in_lower_case"])
def test_an_error_code_is_shown_only_if_it_is_a_plain_word_without_the_key(code, monkeypatch, model):
    monkeypatch.setenv("OPENAI_API_KEY", "key_in_lower_case")
    with serving(failing(400, code)) as server, pytest.raises(CloudError) as caught:
        model(server)[0].complete(REQUEST)
    assert ("word" in str(caught.value)) == (code == "word")
    assert "key_in_lower_case" not in str(caught.value)


def test_a_prompt_appears_in_no_log_and_no_repr(caplog, model):
    caplog.set_level(logging.DEBUG)
    with serving([failing(500), completion("The reply.")]) as server:
        reply = model(server)[0].complete(REQUEST)
    shown = caplog.text + repr(REQUEST) + repr(reply)
    assert "guideline" not in shown
    assert "The reply" not in shown


def test_without_a_key_nothing_is_built_and_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(CloudError, match="set the environment variable OPENAI_API_KEY"):
        OpenAICloudModel("large-1", base_url="http://127.0.0.1:9/v1")
    monkeypatch.setenv("HOUSE_KEY", KEY)
    assert repr(OpenAICloudModel("large-1", base_url="http://127.0.0.1:9/v1/", api_key_env="HOUSE_KEY")) == (
        "OpenAICloudModel('large-1', 'http://127.0.0.1:9/v1')"
    )


def test_the_extra_to_install_is_named_when_the_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(CloudError, match=r"pip install 'medorchestra\[cloud\]'"):
        OpenAICloudModel("large-1", base_url="http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"https://user:{KEY}@host.example/v1", "credentials"),
        (f"https://host.example/v1?key={KEY}", "credentials"),
        ("host.example/v1", "https://"),
        ("file:///etc/passwd", "https://"),
    ],
)
def test_an_address_that_cannot_be_written_into_a_log_is_refused_without_showing_it(url, says):
    with pytest.raises(SettingsError, match=says) as caught:
        OpenAICloudModel("large-1", base_url=url)
    assert KEY not in str(caught.value)


def test_hosted_models_can_be_switched_off_and_loopback_stays(monkeypatch, model):
    monkeypatch.setattr(client, "ALLOW_HOSTED_MODELS", False)
    with pytest.raises(CloudError, match=r"switched off here: api\.openai\.com"):
        OpenAICloudModel("large-1")
    with serving(completion("here")) as server:
        assert model(server)[0].complete(REQUEST).text == "here"


def test_the_address_may_come_from_the_environment(monkeypatch):
    with serving(completion("here")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        with OpenAICloudModel("large-1") as asked:
            assert asked.endpoint == server.url
            assert asked.complete(REQUEST).text == "here"


def test_many_threads_ask_one_model_and_each_gets_its_own_reply(model):
    def echo(connection):
        time.sleep(0.01)
        completion(connection.body["messages"][1]["content"])(connection)

    replies = {}
    with serving(echo) as server:
        asked, _ = model(server)
        requests = [replace(REQUEST, user=f"case {number}") for number in range(12)]

        def ask(request):
            replies[request.user] = asked.complete(request).text

        threads = [threading.Thread(target=ask, args=(request,)) for request in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert replies == {request.user: request.user for request in requests}
