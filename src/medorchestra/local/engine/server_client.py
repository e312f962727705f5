"""Speaks HTTP to one allowed model server: the only module of the local side that speaks to anybody.

JSON in and out, a new connection for every request, no redirects, no proxies, no key. What a server says may repeat
what it was asked: a reply's body never gets into a message, and neither does what http.client or json says of it.
Knows nothing of models.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address
from typing import Any, Final

from medorchestra.errors import ModelError, ServerFailedError
from medorchestra.local.engine.server_address import ServerAddress

MOST_BYTES: Final = 32 * 2**20
"""Of a reply; a longer one is refused."""

_PASSES: Final = frozenset({429, 502, 503, 504})
"""Too many requests, bad gateway, still loading, gateway time-out: what may be over in a moment."""

_OF_THE_REQUEST: Final = frozenset({400, 413, 422})
"""Bad request, too long, not to be processed: the same server may answer the next one."""


class ServerRefusedError(ServerFailedError):
    """The server answered with an error status.

    Attributes:
        status: of HTTP.
        too_long: whether it seems to say that the prompt does not fit its context.
    """

    def __init__(self, message: str, status: int, *, too_long: bool = False) -> None:
        super().__init__(message, of_server=status not in _OF_THE_REQUEST)
        self.status = status
        self.too_long = too_long


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server, and how often to try again.

    Attributes:
        timeout_s: seconds without a byte after which a request has failed, and those a whole reply may take.
        attempts: how often a request is sent at most.
        first: seconds before the second attempt; doubled before each further one.
        longest: most seconds between two attempts, whatever the server asks for.
        sleep: waits so many seconds.
    """

    timeout_s: float = 120.0
    attempts: int = 5
    first: float = 0.5
    longest: float = 30.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, failed: int, asked: float | None) -> None:
        """Wait after so many failed attempts: as long as the server asks, or doubling, with jitter."""
        doubled = self.first * 2.0 ** (failed - 1) * (0.5 + 0.5 * random.random())  # noqa: S311 - nothing secret
        self.sleep(min(self.longest, doubled if asked is None else asked))


@dataclass(frozen=True, slots=True, repr=False)
class _Reply:
    status: int
    body: bytes
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class _Trouble:
    """No whole reply: what is said of it, and whether another attempt may help."""

    what: str
    passes: bool


class ServerClient:
    """Sends requests to one server. Any number of threads may use it at once."""

    def __init__(self, address: ServerAddress, patience: Patience | None = None) -> None:
        self.address = address
        self._patience = patience or Patience()

    def get(self, path: str) -> Any:
        """The JSON that the server has at a path.

        Raises:
            ServerRefusedError, ServerFailedError, ModelError: as `post`.
        """
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that the server replies with.

        Raises:
            ServerRefusedError: an error status, or a redirect, which is never followed.
            ServerFailedError: no whole reply in time, after as many attempts as are allowed.
            ModelError: a reply that is not JSON.
        """
        return self._ask("POST", path, json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        failed = 0
        while True:
            reply = self._attempt(method, path, body)
            failed += 1
            passes = reply.passes if isinstance(reply, _Trouble) else reply.status in _PASSES
            if not passes or failed >= self._patience.attempts:
                break
            self._patience.wait(failed, None if isinstance(reply, _Trouble) else reply.retry_after)
        where = f"model server {self.address} {path}"
        tried = f" after {failed} attempts" if failed > 1 else ""
        if isinstance(reply, _Trouble):
            raise ServerFailedError(f"{where}: {reply.what}{tried}; see whether it runs and what its log says")
        self._require_success(where, tried, reply)
        return _as_json(where, reply.body)

    def _require_success(self, where: str, tried: str, reply: _Reply) -> None:
        status = reply.status
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise ServerRefusedError(f"{where}: redirects ({status}), which is never followed; name the server", status)
        if status in (401, 403):
            raise ServerRefusedError(f"{where}: wants a key ({status}); medorchestra sends none", status)
        too_long = status in (400, 413) and b"context" in reply.body.lower()
        raise ServerRefusedError(
            f"{where}: HTTP status {status}{tried} ({len(reply.body)} bytes, withheld: they could repeat report text); "
            "see the server's log",
            status,
            too_long=too_long,
        )

    def _attempt(self, method: str, path: str, body: bytes | None) -> _Reply | _Trouble:
        """One request. Errors are told by kind: their own messages may hold what the server said."""
        deadline = time.monotonic() + self._patience.timeout_s
        connection = self._connection()
        try:
            connection.connect()
            if self.address.must_be_local and not _is_local(connection):
                return _Trouble(
                    f"the name {self.address.host} leads to another machine; nothing was sent", passes=False
                )
            headers = {"Accept": "application/json", "Connection": "close"}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, self.address.path + path, body, headers)
            return self._read(connection, deadline)
        except TimeoutError:
            return _Trouble(f"no reply within {self._patience.timeout_s:g} s", passes=False)
        except HTTPException as error:
            return _Trouble(f"no whole reply ({type(error).__name__})", passes=True)
        except OSError as error:
            return _Trouble(f"not reachable ({type(error).__name__})", passes=isinstance(error, ConnectionError))
        finally:
            connection.close()

    def _read(self, connection: HTTPConnection, deadline: float) -> _Reply | _Trouble:
        response = connection.getresponse()
        pieces: list[bytes] = []
        size = 0
        while piece := response.read1(65536):
            pieces.append(piece)
            size += len(piece)
            if size > MOST_BYTES:
                return _Trouble(f"a reply of more than {MOST_BYTES} bytes", passes=False)
            if time.monotonic() > deadline:
                raise TimeoutError
        if response.length:  # read1 does not tell a body that ends too early
            return _Trouble("no whole reply (it ends too early)", passes=True)
        return _Reply(response.status, b"".join(pieces), _seconds(response.getheader("Retry-After")))

    def _connection(self) -> HTTPConnection:
        kind = HTTPSConnection if self.address.secure else HTTPConnection
        return kind(self.address.host, self.address.port, timeout=self._patience.timeout_s)


def _is_local(connection: HTTPConnection) -> bool:
    return bool(ip_address(connection.sock.getpeername()[0].partition("%")[0]).is_loopback)


def _seconds(asked: str | None) -> float | None:
    """`Retry-After` in seconds; a date is not understood and counts as none."""
    return float(asked) if asked is not None and asked.strip().isdecimal() else None


def _as_json(where: str, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        pass  # raised below, where the error that holds the body is no longer its context
    raise ModelError(f"{where}: a reply that is not JSON ({len(body)} bytes, withheld); is this a model server?")
