"""A hosted model whose replies are written by hand: for tests, examples and trying out the planner. Public.

Reaches nothing and reads nothing: what it replies is up to the script.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from medorchestra.cloud.desk.client import ChatReply, ChatRequest

CloudReply = str | ChatReply | Exception
"""The text of a complete reply, a reply with everything else, or an exception to raise."""


class ScriptedCloudModel:
    """Asks a function instead of a hosted model, and remembers what was asked.

    >>> model = ScriptedCloudModel(lambda request: '{"greeting": "hello"}')
    >>> model.complete(ChatRequest("scripted", "Answer in JSON.", "Greet.")).text
    '{"greeting": "hello"}'
    >>> len(model.requests)
    1
    """

    def __init__(self, reply: Callable[[ChatRequest], CloudReply], *, name: str = "scripted") -> None:
        """Take a script.

        Args:
            reply: called once for every request, from the thread that asks.
            name: the model's name.
        """
        self.name = name
        self.endpoint = "scripted://local"
        self._reply = reply
        self._requests: list[ChatRequest] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"ScriptedCloudModel({self.name!r})"

    @property
    def requests(self) -> tuple[ChatRequest, ...]:
        """What was asked so far, in the order of asking."""
        with self._lock:
            return tuple(self._requests)

    def complete(self, request: ChatRequest) -> ChatReply:
        """What the script says. A text becomes a complete reply without token counts: nobody counted.

        Raises:
            Exception: the one the script asks for.
        """
        with self._lock:
            self._requests.append(request)
        reply = self._reply(request)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, str):
            return ChatReply(reply, None, None, self.name)
        return reply
