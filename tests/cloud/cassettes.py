"""Recorded exchanges with a hosted model: request digest -> reply, one JSON object a line, replayed over loopback HTTP.

Three ways to record one: `RecordingCloudModel` around a model while it is asked, `cassette_of_relay` from the folder of
`shared/tools/relay.py`, `cassette_of_cache` from the folder of a `ReplyCache`. All scrub what looks like a key.

    with replaying(read_cassette(path)) as server:
        model = OpenAICloudModel("large-1", base_url=server.url)

A request that is not on the cassette is answered with 404, which the client takes as final: a changed prompt shows.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from cloud.loopback import Behaviour, Connection, Told, as_json, completion, serving

from medorchestra.cloud.desk.client import ChatReply, ChatRequest, CloudModel, FinishReason, read_wire_body

Cassette = Mapping[str, ChatReply]
"""Request digest -> reply."""

_KEY_LIKE = re.compile(r"\bsk-[\w-]{8,}|(?i:\bbearer\s+\S+)")


class RecordingCloudModel:
    """Passes requests on to a model and writes down what came back."""

    def __init__(self, model: CloudModel, path: Path, secrets: Sequence[str] = ()) -> None:
        self.name = model.name
        self.endpoint = model.endpoint
        self._model = model
        self._path = path
        self._secrets = secrets
        self._lock = threading.Lock()

    def complete(self, request: ChatRequest) -> ChatReply:
        reply = self._model.complete(request)
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(_line(request.digest, _scrubbed(reply, self._secrets)))
        return reply


def cassette_of_relay(folder: Path) -> dict[str, ChatReply]:
    """The answered requests in a folder of the relay."""
    cassette = {}
    for path in sorted(folder.glob("*.request.json")):
        answer = path.with_name(path.name.replace(".request.json", ".reply.txt"))
        if answer.exists():
            request = read_wire_body(json.loads(path.read_text(encoding="utf-8")))
            text = answer.read_text(encoding="utf-8").strip()
            cassette[request.digest] = _scrubbed(ChatReply(text, None, None, request.model))
    return cassette


def cassette_of_cache(folder: Path) -> dict[str, ChatReply]:
    """All replies in a folder of a reply cache, those that were set aside included: a replay goes the same way."""
    cassette = {}
    for path in sorted(folder.glob("*.json")):
        entry = json.loads(path.read_text(encoding="utf-8"))
        cassette[entry["request"]] = _scrubbed(_reply(entry["reply"]))
    return cassette


def write_cassette(cassette: Cassette, path: Path) -> None:
    """Write a cassette, in the order of the digests, so that it can be diffed."""
    path.write_text("".join(_line(digest, cassette[digest]) for digest in sorted(cassette)), encoding="utf-8")


def read_cassette(path: Path) -> dict[str, ChatReply]:
    """Read a cassette; of two replies to one request, the last one counts."""
    return read_replies(path.read_text(encoding="utf-8"))


def read_replies(text: str) -> dict[str, ChatReply]:
    """The cassette in the text of its file."""
    lines = (json.loads(line) for line in text.split("\n") if line)
    return {line["request"]: _reply(line["reply"]) for line in lines}


@contextmanager
def replaying(cassette: Cassette) -> Iterator[Told]:
    """A loopback server that answers what is on the cassette."""

    def behave(connection: Connection) -> None:
        reply = cassette.get(read_wire_body(connection.body).digest)
        missing = as_json(404, {"error": {"message": "not on the cassette", "code": "not_on_cassette"}})
        (missing if reply is None else _wire(reply))(connection)

    with serving(behave) as server:
        yield server


def _wire(reply: ChatReply) -> Behaviour:
    usage = {"prompt_tokens": reply.input_tokens or 0, "completion_tokens": reply.output_tokens or 0}
    if reply.finish_reason is FinishReason.REFUSED:
        return completion(None, refusal=reply.text or "no", model=reply.model, usage=usage)
    finish = "length" if reply.finish_reason is FinishReason.LENGTH else "stop"
    return completion(reply.text, finish=finish, model=reply.model, usage=usage)


def _reply(facts: Mapping[str, object]) -> ChatReply:
    return ChatReply(**{**facts, "finish_reason": FinishReason(facts["finish_reason"])})


def _line(digest: str, reply: ChatReply) -> str:
    return json.dumps({"request": digest, "reply": asdict(reply)}, ensure_ascii=False) + "\n"


def _scrubbed(reply: ChatReply, secrets: Sequence[str] = ()) -> ChatReply:
    text = _KEY_LIKE.sub("<key>", reply.text)
    for secret in secrets:
        text = text.replace(secret, "<key>")
    return replace(reply, text=text)
