"""One request to a hosted model and its reply, over the OpenAI wire format. Knows retries; knows no pieces, no plans.

What is sent is exactly what `ChatRequest` holds: the wire body can be read back into it (`wire_body`,
`read_wire_body`), so that a log or a cassette of one is a log of the other. What comes back is a value, also when it is
cut off or refused: only a reply that never came is an error.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from medorchestra.cloud.desk.backoff import Backoff
from medorchestra.errors import CloudError, SettingsError

if TYPE_CHECKING:
    import openai

ALLOW_HOSTED_MODELS = True
"""Tests set it to False: then only servers on the loopback interface can be asked."""

_DEFAULT_BASE_URL = "https://api.openai.com/v1"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
# The egress log is the record of what was sent. The libraries below would write request bodies (openai before 2.0) and
# response headers (httpcore) into any log that is set to DEBUG, and OPENAI_LOG sets one by itself.
_LOGGERS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
_PLAIN_CODE = re.compile(r"[a-z][a-z_]{2,59}")
_TRANSIENT = frozenset({408, 409, 425, 429})


class FinishReason(StrEnum):
    """Why a reply ended."""

    COMPLETE = "complete"
    """The model was done."""
    LENGTH = "length"
    """It was cut off at the limit of output tokens."""
    REFUSED = "refused"
    """The model declined, or a content filter held the answer back."""


@dataclass(frozen=True, slots=True, repr=False)
class ChatRequest:
    """Everything that can change a reply.

    Attributes:
        model: name of the hosted model.
        system, user: the two messages.
        schema: JSON schema of the answer in the form that is sent (see `answer_schema`), or None for free text.
        schema_name: its name on the wire: letters, digits, `_` and `-`.
        strict: ask the server to enforce the schema while decoding.
        max_output_tokens: where the reply is cut off, reasoning included.
        temperature: 0 for the most likely answer.
        sample: number of an independent sample; sent as the seed, 0 as none.
    """

    model: str
    system: str
    user: str
    schema: Mapping[str, Any] | None = None
    schema_name: str = "answer"
    strict: bool = False
    max_output_tokens: int = 8_192
    temperature: float = 0.0
    sample: int = 0

    @property
    def digest(self) -> str:
        """`sha256:…` of the wire body in canonical JSON."""
        text = json.dumps(wire_body(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def __repr__(self) -> str:
        return f"ChatRequest({self.model!r}, {len(self.system)} + {len(self.user)} characters, sample={self.sample})"


@dataclass(frozen=True, slots=True, repr=False)
class ChatReply:
    """What came back.

    Attributes:
        text: the message; of a refusal, what the model said instead.
        input_tokens, output_tokens: as the server counted them; None where it did not.
        model: the model that the server says it used.
        finish_reason: why it ended.
    """

    text: str
    input_tokens: int | None
    output_tokens: int | None
    model: str
    finish_reason: FinishReason = FinishReason.COMPLETE

    def __repr__(self) -> str:
        return f"ChatReply({self.model!r}, {self.finish_reason.value}, {len(self.text)} characters)"


class CloudModel(Protocol):
    """A hosted model, or what stands in for one."""

    @property
    def name(self) -> str:
        """The model's name in requests."""
        ...

    @property
    def endpoint(self) -> str:
        """Where requests go: an URL without credentials."""
        ...

    def complete(self, request: ChatRequest) -> ChatReply:
        """Ask once. May be called from several threads.

        Raises:
            CloudError: no reply came; the message says why and what to do, and holds neither key nor prompt.
        """
        ...


def wire_body(request: ChatRequest) -> dict[str, Any]:
    """The request as a chat-completions body. Every field of the request is in it."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [{"role": "system", "content": request.system}, {"role": "user", "content": request.user}],
        "max_completion_tokens": request.max_output_tokens,
        "temperature": request.temperature,
    }
    if request.sample:
        body["seed"] = request.sample
    if request.schema is not None:
        schema = {"name": request.schema_name, "strict": request.strict, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def read_wire_body(body: Mapping[str, Any]) -> ChatRequest:
    """The request that a chat-completions body was made from: the inverse of `wire_body`.

    Raises:
        KeyError, TypeError, ValueError: it was not made by `wire_body`.
    """
    system, user = (message["content"] for message in body["messages"])
    request = ChatRequest(
        model=body["model"],
        system=system,
        user=user,
        max_output_tokens=body["max_completion_tokens"],
        temperature=body["temperature"],
        sample=body.get("seed", 0),
    )
    if "response_format" in body:
        sent = body["response_format"]["json_schema"]
        request = replace(request, schema=sent["schema"], schema_name=sent["name"], strict=sent["strict"])
    return request


class OpenAICloudModel:
    """A model behind any server that speaks chat completions, through the `openai` package.

    Parameters that a server does not know (reasoning models refuse `temperature`, older servers refuse
    `max_completion_tokens` or a JSON schema) are left out once it has said so, for good. Redirects are not followed:
    the prompt goes to the endpoint that the egress log names, or nowhere. A context manager: leaving it closes the
    connections.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 900.0,
        max_attempts: int = 6,
        backoff: Backoff | None = None,
    ) -> None:
        """Find the key and build the client; sends nothing.

        Args:
            model: name of the model.
            base_url: where the server is, up to and including `/v1`; default `OPENAI_BASE_URL`, or OpenAI itself.
            api_key_env: name of the environment variable that holds the key. A key is taken from nowhere else.
            timeout: seconds that the server may stay silent before an attempt is given up.
            max_attempts: how often one request is sent at most when the server is busy, broken or out of reach.
            backoff: how long to wait between attempts.

        Raises:
            CloudError: no key, the `openai` package is missing, or hosted models are switched off.
            SettingsError: the URL is none, or holds credentials; no attempt is allowed.
        """
        self.name = model
        self.endpoint = _endpoint(base_url or os.environ.get("OPENAI_BASE_URL") or _DEFAULT_BASE_URL)
        if max_attempts < 1:
            raise SettingsError(f"max_attempts={max_attempts}: at least 1")
        key = os.environ.get(api_key_env, "").strip()
        if not key:
            raise CloudError(
                f"no key for {self.endpoint}: set the environment variable {api_key_env} (any text, if it wants none)"
            )
        self._client = _openai_client(self.endpoint, key, timeout)
        self.api_key_env = api_key_env
        self._max_attempts = max_attempts
        self._backoff = backoff or Backoff()
        self._left_out: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"OpenAICloudModel({self.name!r}, {self.endpoint!r})"

    def __enter__(self) -> OpenAICloudModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the server. Idempotent."""
        self._client.close()

    @property
    def left_out(self) -> frozenset[str]:
        """Parameters that the server has refused, and that are no longer sent."""
        return self._left_out

    def complete(self, request: ChatRequest) -> ChatReply:
        """Ask, and ask again while the server is busy, broken or out of reach.

        Raises:
            CloudError: no reply came within `max_attempts`, or the server will not take the request at all.
        """
        attempts = 0
        while True:
            outcome = self._attempt(request)
            if isinstance(outcome, ChatReply):
                return outcome
            if outcome.refused_parameter:
                self._left_out |= {outcome.refused_parameter}
                continue  # costs nothing, and can happen only once per parameter
            attempts += 1
            wait = self._backoff.seconds(attempts, outcome.retry_after)
            if not outcome.transient:
                raise CloudError(f"{self.endpoint}: {outcome.reason}")
            if attempts >= self._max_attempts:
                raise CloudError(f"{self.endpoint}: {outcome.reason}; gave up after {attempts} attempts, try later")
            if wait is None:
                raise CloudError(
                    f"{self.endpoint}: {outcome.reason}; asks to wait {outcome.retry_after:.0f} s, try then"
                )
            self._backoff.sleep(wait)

    def _attempt(self, request: ChatRequest) -> ChatReply | _Failure:
        """One request. Errors become values here: an exception of the SDK holds the request with its key."""
        import openai

        body = self._adapted(wire_body(request))
        try:
            raw = self._client.chat.completions.with_raw_response.create(**body)
            return _read_reply(raw.http_response.text, request.model)
        except openai.APITimeoutError:
            return _Failure("no answer in time", transient=True)
        except openai.APIStatusError as error:
            return self._status_failure(error, body)
        except openai.APIConnectionError as error:
            return _Failure(f"cannot be reached ({type(error.__cause__ or error).__name__})", transient=True)
        except openai.OpenAIError as error:
            return _Failure(f"the openai package failed ({type(error).__name__})")

    def _adapted(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body without what this server refuses; an older name of the limit in place of the newer one."""
        left_out = self._left_out
        kept = {key: value for key, value in body.items() if key not in left_out}
        if "max_completion_tokens" in left_out and "max_tokens" not in left_out:
            kept["max_tokens"] = body["max_completion_tokens"]
        if "response_format" in kept and _schema_key(kept) in left_out:
            del kept["response_format"]
        return kept

    def _status_failure(self, error: openai.APIStatusError, body: dict[str, Any]) -> _Failure:
        status = error.status_code
        code = _plain_code(error.code, self._client.api_key)
        if status in (400, 422) and (parameter := _refused_parameter(error, body)):
            return _Failure(f"does not take {parameter}", refused_parameter=parameter)
        said = f"HTTP {status}" + (f", {code}" if code else "")
        if status == 429 and code in ("insufficient_quota", "billing_hard_limit_reached"):
            return _Failure(f"the account's quota is used up ({said}): raise it, or use another key")
        if status in _TRANSIENT or status >= 500:
            busy = "too many requests" if status == 429 else "the server failed"
            return _Failure(f"{busy} ({said})", transient=True, retry_after=self._backoff.asked(error.response.headers))
        next_step = {
            401: f"the key in {self.api_key_env} was not accepted: check it",
            403: f"the key in {self.api_key_env} may not use {self.name}: check the account's rights",
            404: f"no model {self.name} there: check its name, and that the base URL ends as the server's manual says",
            413: "the request is too large: give the guideline in smaller sections",
        }.get(status)
        if code == "context_length_exceeded":
            next_step = f"the request is longer than {self.name} can read: give the guideline in smaller sections"
        if 300 <= status < 400:
            next_step = "it redirects elsewhere, and redirects are not followed: give the final address as base URL"
        return _Failure(f"{next_step or 'the request was not accepted: check model and base URL'} ({said})")


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt gave no reply."""

    reason: str
    transient: bool = False
    retry_after: float | None = None
    refused_parameter: str | None = None


def _openai_client(endpoint: str, key: str, timeout: float) -> openai.OpenAI:
    try:
        import openai
    except ImportError:
        raise CloudError("the openai package is missing: pip install 'medorchestra[cloud]'") from None
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    transport = openai.DefaultHttpxClient(follow_redirects=False)
    return openai.OpenAI(api_key=key, base_url=endpoint, timeout=timeout, max_retries=0, http_client=transport)


def _endpoint(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # The endpoint is written into logs and messages.
        raise SettingsError("the base URL holds credentials or a query: put the key into the environment instead")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError("the base URL must begin with https:// (or http://) and a host name")
    if not ALLOW_HOSTED_MODELS and parts.hostname not in _LOOPBACK:
        raise CloudError(f"hosted models are switched off here: {parts.hostname} is not on the loopback interface")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _refused_parameter(error: openai.APIStatusError, body: Mapping[str, Any]) -> str | None:
    """The optional parameter that a 400 or 422 is about, if it is about one that was sent."""
    said = f"{error.param or ''} {error.message}".lower()
    if "response_format" in body and re.search(r"response_format|json_schema|structured output|\bgrammar\b", said):
        return _schema_key(body)
    for name in ("max_completion_tokens", "temperature", "seed", "max_tokens"):
        # `error.param` alone where the server gives it: "use max_completion_tokens instead" names the wrong one.
        if name in body and (error.param == name or (not error.param and re.search(rf"\b{name}\b", said))):
            return name
    return None


def _schema_key(body: Mapping[str, Any]) -> str:
    # By schema: a server that cannot compile one may still enforce the others.
    return f"response_format:{body['response_format']['json_schema']['name']}"


def _plain_code(code: object, key: str) -> str | None:
    """The server's error code, if it is a plain word: servers have been seen to echo a key."""
    if isinstance(code, str) and _PLAIN_CODE.fullmatch(code) and key.lower() not in code:
        return code
    return None


def _read_reply(text: str, model: str) -> ChatReply | _Failure:
    """The reply in a body that came with status 200."""
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        finish = choice.get("finish_reason")
    except (ValueError, RecursionError):
        kind = "an HTML page" if text.lstrip()[:1] == "<" else "something that is not JSON"
        return _Failure(f"answered with {kind}: check the base URL", transient=True)
    except (LookupError, TypeError, AttributeError):
        return _Failure("answered without a message", transient=True)
    usage = body["usage"] if isinstance(body.get("usage"), dict) else {}
    reason = FinishReason.COMPLETE
    if refusal or finish == "content_filter":
        reason = FinishReason.REFUSED
    elif finish == "length":
        reason = FinishReason.LENGTH
    return ChatReply(
        text=_message_text(refusal or content),
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        model=body["model"] if isinstance(body.get("model"), str) else model,
        finish_reason=reason,
    )


def _message_text(content: object) -> str:
    if isinstance(content, list):  # some servers send parts
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _count(tokens: object) -> int | None:
    """A token count, or None: servers that do not count say nothing or 0."""
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0 else None
