"""A desk with a recording gate and log, for the tests of the desk, and what they ask."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from medorchestra.cloud.desk.backoff import Backoff
from medorchestra.cloud.desk.client import OpenAICloudModel
from medorchestra.cloud.desk.cloud_desk import (
    CloudDesk,
)
from medorchestra.cloud.desk.scripted_cloud import ScriptedCloudModel
from medorchestra.cloud.outgoing import Piece, PieceKind
from medorchestra.errors import EgressError

KEY = "sk-planted-0123456789abcdef"
GOOD = '{"name": "sma_contact", "values": ["none", "<=180", ">180"]}'
LATE = '{"name": "ca_contact", "values": ["none", "<=180"]}'


class Finding(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    values: list[str] = Field(min_length=2)


PIECES = (
    Piece(PieceKind.INSTRUCTION, "decompose", "List one finding."),
    Piece(PieceKind.GUIDELINE, "3.1", "Contact of more than 180 degrees is locally advanced."),
)


@dataclass
class Boundary:
    """A gate and a log in one, which remember the order of things."""

    refuse: str | None = None
    events: list[tuple] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, pieces):
        self.events.append(("check", tuple(piece.kind.value for piece in pieces)))
        for piece in pieces:
            if self.refuse is not None and self.refuse in piece.text:
                raise EgressError(f"{piece.kind.value} {piece.origin}: a telephone number")

    def record_request(self, *, step, endpoint, model, request_digest, pieces):
        with self.lock:
            self.events.append(("request", step, endpoint, model, request_digest, tuple(pieces)))
            return sum(event[0] == "request" for event in self.events)

    def record_reply(self, number, *, reply_digest, input_tokens, output_tokens):
        self.events.append(("reply", number, reply_digest is not None, input_tokens, output_tokens))

    def names(self):
        return [event[0] for event in self.events]


def desk(model, boundary, **settings):
    if not hasattr(model, "complete"):
        replies = iter(() if callable(model) else model)
        model = ScriptedCloudModel(model if callable(model) else lambda _: next(replies))
    return CloudDesk(model, gate=boundary, log=boundary, **settings), model


def hosted(server, request, **settings):
    settings = {"timeout": 5.0, "backoff": Backoff(sleep=lambda _: None), **settings}
    model = OpenAICloudModel("large-1", base_url=server.url, **settings)
    request.addfinalizer(model.close)
    return model
