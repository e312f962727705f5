"""Which server may be spoken to: one on this machine, or one that is on an explicit allow-list. Opens nothing.

Judged by what is written, before any name is looked up: asking for a foreign name would already tell somebody. Only
the name `localhost` is believed to be this machine, and the client holds it against the address it connects to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from medorchestra.errors import SettingsError

ENVIRONMENT: Final = "MEDORCHESTRA_SERVERS"
"""Environment variable with allowed servers: `HOST:PORT`, separated by commas or spaces."""

_FORM: Final = "write it as `http://HOST:PORT` or `http://HOST:PORT#MODEL`, without a user, a password or a query"
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[a-z0-9._~-]+)*)/?(?:#(?P<model>\S+))?",
    re.IGNORECASE | re.ASCII,
)
_ALLOWED: Final = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+):(?P<port>[0-9]{1,5})", re.IGNORECASE | re.ASCII)
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server that may be spoken to. Made by `allowed_address`.

    Attributes:
        secure: speak TLS.
        host: name or address, lower case, without brackets.
        port: 1 to 65535.
        path: before `/v1/…`; empty unless the server stands behind a reverse proxy.
        model: the model meant, where the URL names one behind `#`.
        must_be_local: allowed only because it names this machine: the address it leads to has to be one of this
            machine's own.
    """

    secure: bool
    host: str
    port: int
    path: str
    model: str | None
    must_be_local: bool

    def __str__(self) -> str:
        """`host:port`, as messages name it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_server_url(model: object) -> bool:
    """Whether a model is named by the URL of a server."""
    return isinstance(model, str) and not isinstance(model, Path) and model.lower().startswith(("http://", "https://"))


def allowed_address(url: str, allow: Iterable[str] = ()) -> ServerAddress:
    """The server's address, once it is clear that it may be spoken to.

    Args:
        url: `http://HOST:PORT`, with a path before `/v1` if need be; `#MODEL` names one of its models.
        allow: servers on the hospital's network, each as `HOST:PORT`, exactly as the URL writes it. Those of the
            environment variable `MEDORCHESTRA_SERVERS` are allowed as well.

    Raises:
        SettingsError: no such URL, no such entry, or a server that is neither this machine nor allowed.
    """
    found = _URL.fullmatch(url)
    port = int(found["port"] or _PORTS[found["scheme"].lower()]) if found else 0
    if found is None or not 1 <= port <= 65535:
        raise SettingsError(f"the URL of a model server ({len(url)} characters) cannot be read; {_FORM}")
    secure, host = found["scheme"].lower() == "https", found["host"].lower().strip("[]")
    path = re.sub(r"/v1$", "", found["path"])
    listed = (host, port) in allowed_servers(allow)
    if not listed and not _is_this_machine(host, secure=secure):
        raise SettingsError(
            f"model server {host}:{port} is neither on this machine nor allowed, so nothing was sent to it; if it is "
            f"on the hospital's own network, allow it: `--allow-server {host}:{port}`, or {ENVIRONMENT}={host}:{port}"
        )
    return ServerAddress(secure, host, port, path, found["model"], must_be_local=not listed)


def allowed_servers(allow: Iterable[str] = ()) -> frozenset[tuple[str, int]]:
    """Host and port of every allowed server, those of the environment included.

    Raises:
        SettingsError: an entry is not `HOST:PORT`.
    """
    if isinstance(allow, str):
        raise SettingsError("allow: a list of `HOST:PORT`, not one text")
    servers: set[tuple[str, int]] = set()
    of_environment = [(entry, ENVIRONMENT) for entry in re.split(r"[,\s]+", os.environ.get(ENVIRONMENT, "")) if entry]
    for entry, where in [*((entry, "allowed server") for entry in allow), *of_environment]:
        found = _ALLOWED.fullmatch(entry)
        if found is None or not 1 <= int(found["port"]) <= 65535:
            raise SettingsError(f"{where}: `{entry}` is not HOST:PORT, such as `llm.hospital.example:8000`")
        servers.add((found["host"].lower().strip("[]"), int(found["port"])))
    return frozenset(servers)


def _is_this_machine(host: str, *, secure: bool) -> bool:
    """By what is written. Abbreviated addresses (`127.1`, `0x7f000001`) are names, and not believed.

    `localhost` over TLS would greet before it can be seen where it leads.
    """
    if host == "localhost":
        return not secure
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
