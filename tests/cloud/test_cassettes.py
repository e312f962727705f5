"""Recorded exchanges, replayed over a real loopback server."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from pathlib import Path

import pytest
from cloud.cassettes import (
    RecordingCloudModel,
    cassette_of_cache,
    cassette_of_relay,
    read_cassette,
    replaying,
    write_cassette,
)

from medorchestra.cloud.desk.client import ChatReply, ChatRequest, FinishReason, OpenAICloudModel, wire_body
from medorchestra.cloud.desk.reply_cache import ReplyCache
from medorchestra.cloud.desk.scripted_cloud import ScriptedCloudModel
from medorchestra.errors import CloudError

KEY = "sk-planted-0123456789abcdef"
SCHEMA = {"type": "object", "properties": {"size": {"type": "number"}}, "required": ["size"]}
REQUESTS = [
    ChatRequest("large-1", "You write plans.", "Größe ≤ 2 cm?", SCHEMA, "size", strict=True),
    ChatRequest("large-1", "You write cases.", "Tail.", temperature=0.8, sample=2),
    ChatRequest("large-1", "You write cases.", "Head.", max_output_tokens=5),
]
REPLIES = {
    REQUESTS[0].digest: ChatReply('{"size": 2}', 20, 5, "large-1-2026"),
    REQUESTS[1].digest: ChatReply("I cannot.", None, None, "large-1", FinishReason.REFUSED),
    REQUESTS[2].digest: ChatReply("A mass", 8, 5, "large-1", FinishReason.LENGTH),
}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_a_recorded_run_is_replayed_over_the_wire_reply_by_reply(tmp_path):
    recorded = tmp_path / "run.jsonl"
    recorder = RecordingCloudModel(ScriptedCloudModel(lambda request: REPLIES[request.digest]), recorded)
    said = [recorder.complete(request) for request in REQUESTS]
    cassette = read_cassette(recorded)
    write_cassette(cassette, tmp_path / "sorted.jsonl")
    assert read_cassette(tmp_path / "sorted.jsonl") == cassette == REPLIES
    with replaying(cassette) as server, OpenAICloudModel("large-1", base_url=server.url) as model:
        assert [model.complete(request) for request in REQUESTS] == said


def test_a_changed_prompt_is_not_on_the_cassette_and_fails_at_once():
    changed = ChatRequest("large-1", "You write plans.", "Another question.")
    with replaying(REPLIES) as server, OpenAICloudModel("large-1", base_url=server.url) as model:
        with pytest.raises(CloudError, match="not_on_cassette"):
            model.complete(changed)
        assert len(server.bodies) == 1


def test_keys_are_scrubbed_from_what_is_recorded(tmp_path):
    said = f"My key is {KEY}, the header was 'Authorization: Bearer abc.def', the house word is xyzzy-42."
    recorder = RecordingCloudModel(ScriptedCloudModel(lambda _: said), tmp_path / "c.jsonl", secrets=["xyzzy-42"])
    recorder.complete(REQUESTS[0])
    text = (tmp_path / "c.jsonl").read_text(encoding="utf-8")
    assert "planted" not in text
    assert "abc.def" not in text
    assert "xyzzy" not in text
    assert text.count("<key>") == 3


def test_the_cache_of_a_run_is_a_cassette_with_the_replies_that_were_set_aside(tmp_path):
    cache = ReplyCache(tmp_path)
    for request in REQUESTS:
        cache.store(request, "http://127.0.0.1:8790/v1", REPLIES[request.digest])
    cache.set_aside(REQUESTS[1], "http://127.0.0.1:8790/v1")
    assert cassette_of_cache(tmp_path) == REPLIES


def test_a_folder_of_the_relay_is_a_cassette_of_its_answered_requests(tmp_path):
    for number, request in enumerate(REQUESTS, start=1):
        body = json.dumps(wire_body(request), indent=2, ensure_ascii=False)
        (tmp_path / f"{number:04d}.request.json").write_text(body, encoding="utf-8")
    (tmp_path / "0001.reply.txt").write_text('{"size": 2}\n', encoding="utf-8")
    assert cassette_of_relay(tmp_path) == {REQUESTS[0].digest: ChatReply('{"size": 2}', None, None, "large-1")}


RELAY = Path(__file__).parents[3] / "shared" / "tools" / "relay.py"


@pytest.mark.skipif(not RELAY.exists(), reason="the relay is not part of the repository")
def test_the_relay_parks_requests_that_can_be_read_back(tmp_path):
    spec = importlib.util.spec_from_file_location("relay", RELAY)
    relay = importlib.util.module_from_spec(spec)
    sys.modules["relay"] = relay
    spec.loader.exec_module(relay)
    relay.ARGS = type("Args", (), {"dir": tmp_path, "wait": 5.0})
    relay.NUMBERS = iter(range(1, 9))
    server = relay.ThreadingHTTPServer(("127.0.0.1", 0), relay.Relay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "0001.reply.txt").write_text('{"size": 2}\n', encoding="utf-8")
    try:
        with OpenAICloudModel("large-1", base_url=f"http://127.0.0.1:{server.server_port}/v1") as model:
            reply = model.complete(REQUESTS[0])
    finally:
        server.shutdown()
        server.server_close()
    assert reply == ChatReply('{"size": 2}', None, None, "large-1")
    assert cassette_of_relay(tmp_path) == {REQUESTS[0].digest: reply}
