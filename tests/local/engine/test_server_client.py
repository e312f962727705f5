"""A server that misbehaves, over real HTTP: a later good reply, or a clear error without a word of report or reply."""

from __future__ import annotations

import time
import traceback

import pytest
from local.engine.model_server import model_server

from medorchestra.errors import ModelError
from medorchestra.local.engine import server_client
from medorchestra.local.engine.server_address import allowed_address
from medorchestra.local.engine.server_client import Patience, ServerClient, ServerRefusedError

CANARY = "Quillfeather"
REPORT = {"model": "reader-1", "messages": [{"role": "user", "content": f"Liver free, {CANARY}."}]}
CHAT = "/v1/chat/completions"


def client_of(server, waits=None, **patience):
    sleep = [].append if waits is None else waits.append
    return ServerClient(allowed_address(server.url), Patience(sleep=sleep, first=0.01, **patience))


def faulty(*faults):
    """One fault after the other, then none."""
    left = list(faults)

    def fault(connection, body):
        if not left:
            return False
        left.pop(0)(connection)
        return True

    return fault


PAGE = f"<html>{CANARY}</html>".encode()


def saying(status, content=PAGE, **headers):
    return lambda connection: connection.say(status, content, **headers)


def reset(connection):
    connection.reset()


def half_a_reply(connection):
    connection.send_response(200)
    connection.send_header("Content-Length", "100000")
    connection.end_headers()
    connection.wfile.write(f'{{"choices": "{CANARY}'.encode())
    connection.wfile.flush()
    connection.close_connection = True


def half_a_chunk(connection):
    connection.send_response(200)
    connection.send_header("Transfer-Encoding", "chunked")
    connection.end_headers()
    connection.wfile.write(f"fff\r\n{CANARY}".encode())
    connection.wfile.flush()
    connection.reset()


def no_http(connection):
    connection.wfile.write(f"{CANARY} 200 fine\r\n\r\n".encode())
    connection.wfile.flush()
    connection.close_connection = True


def silent(connection):
    time.sleep(0.4)
    connection.close_connection = True


def dripping(connection):
    connection.send_response(200)
    connection.send_header("Content-Length", "100000")
    connection.end_headers()
    for _ in range(30):
        connection.wfile.write(b" ")
        connection.wfile.flush()
        time.sleep(0.02)


def everything_said(error):
    """An exception as a traceback shows it, and what it and those it chains carry along."""
    said = ""
    while error is not None:
        said += "".join(traceback.format_exception(error)) + repr(error.args) + repr(vars(error))
        said += repr(getattr(error, "doc", ""))
        error = error.__cause__ or error.__context__
    return said


@pytest.mark.parametrize(
    "fault",
    [saying(429), saying(502), saying(503), saying(504), reset, half_a_reply, half_a_chunk, no_http],
)
def test_what_may_pass_is_tried_again(fault):
    waits = []
    with model_server(fault=faulty(fault, fault)) as server:
        reply = client_of(server, waits).post(CHAT, REPORT)
    assert reply["choices"][0]["message"]["content"] == "Hello there."
    assert len(server.requests) == 3
    assert len(waits) == 2
    assert waits[0] < waits[1] * 2.1  # doubled, give or take half


def test_a_server_that_says_how_long_to_wait_is_waited_for_but_not_for_ever():
    waits = []
    with model_server(fault=faulty(saying(429, Retry_After="7"), saying(503, Retry_After="3600"))) as server:
        client_of(server, waits).post(CHAT, REPORT)
    assert waits == [7.0, 30.0]


LASTING = {
    "bad gateway": (saying(502), "HTTP status 502 after 3 attempts"),
    "busy": (saying(503), "HTTP status 503 after 3 attempts"),
    "an error of its own": (saying(500), "HTTP status 500 "),
    "not there": (saying(404), "HTTP status 404 "),
    "wants a key": (saying(401), "wants a key"),
    "no JSON": (saying(200), "not JSON"),
    "half a JSON": (saying(200, f'{{"choices": [{{"text": "{CANARY}'.encode()), "not JSON"),
    "JSON too deep": (saying(200, b"[" * 200_000), "not JSON"),
    "connection reset": (reset, "after 3 attempts"),
    "half a reply": (half_a_reply, "no whole reply .* after 3 attempts"),
    "half a chunk": (half_a_chunk, "after 3 attempts"),
    "no HTTP": (no_http, "no whole reply .BadStatusLine. after 3 attempts"),
    "silence": (silent, "no reply within 0.2 s"),
    "a drip": (dripping, "no reply within 0.2 s"),
}


@pytest.mark.parametrize("what", LASTING)
def test_what_lasts_is_an_error_without_a_word_of_report_or_reply(what, capfd, caplog):
    caplog.set_level("DEBUG")
    fault, says = LASTING[what]
    timeout_s = 0.2 if "0.2 s" in says else 20.0
    with (
        model_server(fault=faulty(*[fault] * 9)) as server,
        pytest.raises(ModelError, match=says) as caught,
    ):
        client_of(server, attempts=3, timeout_s=timeout_s).post(CHAT, REPORT)
    assert server.url.removeprefix("http://") in str(caught.value)
    for said in (everything_said(caught.value), caplog.text, *capfd.readouterr()):
        assert CANARY not in said
    assert not any(CANARY in f"{path}{headers}" for path, _, headers in server.requests)


def test_a_time_out_is_not_tried_again():
    with model_server(fault=faulty(*[silent] * 5)) as server, pytest.raises(ModelError, match=r"within 0\.1 s"):
        client_of(server, timeout_s=0.1).post(CHAT, REPORT)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(status):
    with model_server() as other, model_server() as server:
        server.fault = faulty(saying(status, Location=f"{other.url}{CHAT}"))
        with pytest.raises(ServerRefusedError, match=f"redirects .{status}., which is never followed") as caught:
            client_of(server).post(CHAT, REPORT)
        assert other.requests == []
        assert other.url not in str(caught.value)


def test_a_proxy_of_the_environment_gets_nothing(monkeypatch):
    with model_server() as proxy, model_server() as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        client_of(server).post(CHAT, REPORT)
        assert proxy.requests == []
        assert len(server.requests) == 1


def test_a_local_name_that_leads_elsewhere_gets_not_a_byte(monkeypatch):
    monkeypatch.setattr(server_client, "_is_local", lambda connection: False)
    with model_server() as server, pytest.raises(ModelError, match="leads to another machine; nothing was sent"):
        client_of(server).post(CHAT, REPORT)
    assert server.requests == []


def test_a_server_that_does_not_run_is_said_to_be_not_reachable():
    with model_server() as server:
        pass
    with pytest.raises(ModelError, match=r"not reachable \(ConnectionRefusedError\) after 2 attempts"):
        client_of(server, attempts=2).get("/v1/models")


def test_a_reply_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(server_client, "MOST_BYTES", 1000)
    with (
        model_server(fault=faulty(saying(200, b" " * 5000))) as server,
        pytest.raises(ModelError, match="than 1000"),
    ):
        client_of(server).post(CHAT, REPORT)
