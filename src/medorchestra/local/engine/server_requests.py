"""Asks one model of a server: the likeliest next tokens, or a text, free or constrained. Writes request bodies, reads
replies, knows what the kinds of servers call things. Decides nothing and judges nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from medorchestra.errors import ModelError
from medorchestra.local.engine.server_client import ServerClient

Prompt = Sequence[int] | Sequence[Mapping[str, str]]
"""Token numbers (for `/v1/completions`), or messages (for `/v1/chat/completions`)."""


@dataclass(frozen=True, slots=True, repr=False)
class NextTokens:
    """The likeliest next tokens and their log-probabilities, before anything is forbidden.

    Attributes:
        logprobs: token -> natural logarithm of its probability; every other token is at most as probable.
        written: the token that the model wrote, where the reply says so.
        prompt_tokens: tokens of the prompt by the server's count; None where it does not say.
        tokens: tokens computed, or all of the prompt's where the server does not say what it had kept.
    """

    logprobs: Mapping[int, float]
    written: int | None
    prompt_tokens: int | None
    tokens: int | None


@dataclass(frozen=True, slots=True, repr=False)
class Written:
    """A text that the model wrote.

    Attributes:
        text: as it came.
        complete: False where `max_tokens` cut it off.
        prompt_tokens, tokens: as in `NextTokens`.
    """

    text: str
    complete: bool
    prompt_tokens: int | None
    tokens: int | None


@dataclass(frozen=True, slots=True)
class ChoiceForm:
    """How a kind of server is told to choose.

    Attributes:
        name: goes into the engine's identity.
        body: candidates -> what it adds to a request.
        read: what was written -> the candidate; raises ValueError, KeyError or TypeError where there is none.
    """

    name: str
    body: Callable[[Sequence[str]], dict[str, Any]]
    read: Callable[[str], str]


def choice_grammar(candidates: Sequence[str]) -> str:
    """GBNF that allows exactly the candidates."""
    return "root ::= " + " | ".join(_literal(candidate) for candidate in candidates)


def _literal(text: str) -> str:
    shown = "".join(f"\\x{ord(one):02x}" if one in '"\\' or ord(one) < 32 or ord(one) == 127 else one for one in text)
    return f'"{shown}"'


def _schema(candidates: Sequence[str]) -> dict[str, Any]:
    answer = {"type": "string", "enum": list(candidates)}
    schema = {"type": "object", "properties": {"answer": answer}, "required": ["answer"], "additionalProperties": False}
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    }


def _read_schema(text: str) -> str:
    answer = json.loads(text)["answer"]
    if not isinstance(answer, str):
        raise TypeError("the answer is no text")
    return answer


CHOICE_FORMS: Final = (
    ChoiceForm("grammar", lambda candidates: {"grammar": choice_grammar(candidates)}, str),
    ChoiceForm("structured_outputs", lambda candidates: {"structured_outputs": {"choice": list(candidates)}}, str),
    ChoiceForm("guided_choice", lambda candidates: {"guided_choice": list(candidates)}, str),
    ChoiceForm("json_schema", _schema, _read_schema),
)
"""llama-server; vLLM; older vLLM; Ollama and others. A server may ignore, without a word, what it does not know."""

GRAMMAR_FORMS: Final[Mapping[str, Callable[[str], dict[str, Any]]]] = {
    "grammar": lambda grammar: {"grammar": grammar},
    "structured_outputs": lambda grammar: {"structured_outputs": {"grammar": grammar}},
    "guided_grammar": lambda grammar: {"guided_grammar": grammar},
}


class ServerModel:
    """One model of a server."""

    def __init__(self, client: ServerClient, name: str) -> None:
        self.client = client
        self.name = name

    def next_tokens(self, prompt: Sequence[int], most: int) -> NextTokens:
        """The likeliest tokens behind a prompt.

        Args:
            prompt: token numbers.
            most: how many are asked for.

        Raises:
            ModelError: the server failed, or its reply has no log-probabilities by token number.
        """
        body = {
            "model": self.name,
            "prompt": list(prompt),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": most,
            "return_tokens_as_token_ids": True,  # vLLM; llama-server gives the numbers unasked
            "cache_prompt": True,
        }
        reply = self.client.post("/v1/completions", body)
        logprobs, written = _logprobs(self._choice(reply, "/v1/completions").get("logprobs"))
        if not logprobs:
            raise ModelError(
                f"model server {self.client.address} /v1/completions: no log-probabilities by token number"
            )
        return NextTokens(logprobs, written, *_usage(reply))

    def write(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        constraint: Mapping[str, Any] | None = None,
    ) -> Written:
        """What the model writes.

        Raises:
            ModelError: the server failed, or its reply has no text.
        """
        by_tokens = all(isinstance(part, int) for part in prompt)
        path = "/v1/completions" if by_tokens else "/v1/chat/completions"
        body = {
            "model": self.name,
            "prompt" if by_tokens else "messages": list(prompt),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "cache_prompt": True,
            **(constraint or {}),
        }
        reply = self.client.post(path, body)
        choice = self._choice(reply, path)
        message = choice.get("message")
        text = choice.get("text") if by_tokens else message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str):
            raise ModelError(f"model server {self.client.address} {path}: no text in the reply")
        return Written(text, choice.get("finish_reason") == "stop", *_usage(reply))

    def _choice(self, reply: Any, path: str) -> Mapping[str, Any]:
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise ModelError(f"model server {self.client.address} {path}: no `choices` in the reply")
        return choices[0]


def _logprobs(told: Any) -> tuple[dict[int, float], int | None]:
    """Token -> log-probability for the first place, and the token that was written there."""
    if not isinstance(told, dict):
        return {}, None
    content = told.get("content")
    if isinstance(content, list) and content and isinstance(content[0], dict):  # llama-server
        first = content[0]
        pairs = [(one.get("id"), one.get("logprob")) for one in _dicts(first.get("top_logprobs"))]
        written = first.get("id")
        return _numbers(pairs), written if type(written) is int else None
    tops, tokens = told.get("top_logprobs"), told.get("tokens")
    if isinstance(tops, list) and tops and isinstance(tops[0], dict):  # vLLM
        written = _token_id(tokens[0]) if isinstance(tokens, list) and tokens else None
        return _numbers([(_token_id(name), logprob) for name, logprob in tops[0].items()]), written
    return {}, None


def _numbers(pairs: Sequence[tuple[Any, Any]]) -> dict[int, float]:
    """The pairs that are a token number and a log-probability; those of impossible tokens are none."""
    return {
        token: float(logprob)
        for token, logprob in pairs
        if type(token) is int and isinstance(logprob, int | float) and math.isfinite(logprob)
    }


def _dicts(told: Any) -> list[dict[str, Any]]:
    return [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []


def _token_id(name: Any) -> int | None:
    number = str(name).removeprefix("token_id:")
    return int(number) if str(name).startswith("token_id:") and number.isdecimal() else None


def _usage(reply: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Tokens of the prompt, and tokens computed; None where the reply does not say."""
    usage = reply.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    prompt, written = _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")) or 0
    timings, details = reply.get("timings"), counts.get("prompt_tokens_details")
    if isinstance(timings, dict) and (computed := _count(timings.get("prompt_n"))) is not None:
        return prompt, computed + written
    if prompt is None:
        return None, None
    kept = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return prompt, prompt - (kept or 0) + written


def _count(told: Any) -> int | None:
    return told if type(told) is int and told >= 0 else None
