"""A real HTTP server on the loopback interface that behaves, or misbehaves, as a test tells it to."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Connection"], None]
"""What the server does with one request."""


class Connection(BaseHTTPRequestHandler):
    """One request; `body` is what was sent."""

    protocol_version = "HTTP/1.1"
    server: Loopback
    body: dict[str, Any]

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told.behaviour_for(self)(self)

    def reply(self, status: int, payload: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(payload)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)


@dataclass
class Told:
    """What the server was told to do, and what it was asked."""

    behave: Behaviour | Sequence[Behaviour]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def behaviour_for(self, connection: Connection) -> Behaviour:
        with self.lock:
            self.bodies.append(connection.body)
            self.headers.append({name.lower(): value for name, value in connection.headers.items()})
            if callable(self.behave):
                return self.behave
            # The last behaviour goes on for ever.
            return self.behave[min(len(self.bodies), len(self.behave)) - 1]


class Loopback(ThreadingHTTPServer):
    daemon_threads = True
    told: Told

    def handle_error(self, *_: object) -> None:
        """Clients that went away are part of the tests."""


@contextmanager
def serving(behave: Behaviour | Sequence[Behaviour]) -> Iterator[Told]:
    """A server that handles requests by one behaviour, or by one after the other."""
    server = Loopback(("127.0.0.1", 0), Connection)
    server.told = Told(behave)
    server.told.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str | None, *, finish: str | None = "stop", refusal: str | None = None, **more: Any) -> Behaviour:
    """A chat completion; `more` replaces parts of its body."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "large-1", "choices": [choice]}
    return as_json(200, {**body, "usage": usage, **more})


def as_json(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Behaviour:
    payload = json.dumps(body).encode()
    return as_bytes(status, payload, {"Content-Type": "application/json", **(headers or {})})


def as_bytes(status: int, payload: bytes, headers: Mapping[str, str]) -> Behaviour:
    return lambda connection: connection.reply(status, payload, headers)


def html(status: int) -> Behaviour:
    return as_bytes(status, b"<html><body>Bad gateway</body></html>", {"Content-Type": "text/html"})


def failing(status: int, code: str | None = None, **headers: str) -> Behaviour:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return as_json(status, {"error": {"message": "as told", "type": "error", "param": None, "code": code}}, named)


def late(seconds: float, then: Behaviour) -> Behaviour:
    def behave(connection: Connection) -> None:
        time.sleep(seconds)
        then(connection)

    return behave


def hang_up(connection: Connection) -> None:
    """Reset the connection instead of closing it."""
    connection.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.connection.close()
    connection.close_connection = True


def hang_up_half_way(connection: Connection) -> None:
    """Promise a long body, send a piece of it, reset."""
    connection.send_response(200)
    connection.send_header("Content-Type", "application/json")
    connection.send_header("Content-Length", "100000")
    connection.end_headers()
    connection.wfile.write(b'{"choices": [')
    connection.wfile.flush()
    hang_up(connection)
