"""Finds out, with invented text only, what a server can do, before it is shown a report: believes no documentation.

A server that ignores what it is asked for says nothing about it: so a constraint counts as honoured where nonsense that
no model would write was written under it, and log-probabilities where they hold together. What is missing becomes a
warning; a server with neither is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from medorchestra.errors import ModelError, SettingsError
from medorchestra.local.engine.server_client import ServerClient, ServerRefusedError
from medorchestra.local.engine.server_prompts import ServerPrompts, conversation, find_prompts, find_tokenizer
from medorchestra.local.engine.server_requests import (
    CHOICE_FORMS,
    GRAMMAR_FORMS,
    ChoiceForm,
    NextTokens,
    Prompt,
    ServerModel,
)

UNTOLD_CONTEXT_TOKENS: Final = 4096
"""Taken where a server does not say how many tokens fit: what Ollama runs a model with unless told otherwise."""

MOST_LIKELY: Final = (3000, 100, 20, 5)
"""How many of the likeliest tokens are asked for; of these, the most that the server gives. So many, since an adapter
learns which of the candidates is right, not that nothing else may be written: of 73 forks of three reports, with the
shipped plan and adapter, 100 left 49 open and 3000 left 3. llama-server took 10 ms longer for 3000 than for 100."""

MOST_VOCABULARY: Final = 200_000
"""Tokens; the reply that tells all of a larger vocabulary would be too long (see `server_client.MOST_BYTES`)."""

_HEAD: Final = "You read invented notes."
_REPORT: Final = "Invented note: the garden gate is green. The bench is made of oak."
_NONSENSE: Final = (("qvx-17", "jkw-42", "zpd-93"), ('≥ 2,5 "cm" \\ ü',))
"""Answers that no model would give unasked, and one that has to be written exactly."""
_GRAMMAR: Final = r'root ::= "qvx" ("-17" | "-42") "\n" "zpd"'
_WRITTEN_BY_GRAMMAR: Final = ("qvx-17\nzpd", "qvx-42\nzpd")
_PROBE_TOKENS: Final = 64


@dataclass(frozen=True, slots=True)
class ServerAbilities:
    """What a server can do.

    Attributes:
        model: which of its models was looked at.
        kind: `llama-server`, `vllm`, `ollama` or `other`.
        version: what it says of its own version, if anything.
        facts: what it tells of the model and does not change from start to start.
        context_tokens: tokens that prompt and answer may take together.
        prompts: how prompts are tokenized and put together; None: it is sent messages, and tokens are estimated.
        likeliest: how many of the likeliest next tokens it gives with their log-probabilities; 0: none to rely on.
        vocabulary: how many tokens the model knows, where it gives the log-probabilities of all of them; else 0.
        choice: how it is told to choose, or None.
        grammar: the field in which it takes a grammar, or None.
        warnings: what will be done without; each a sentence.
    """

    model: ServerModel
    kind: str
    version: str | None
    facts: Mapping[str, Any]
    context_tokens: int
    prompts: ServerPrompts | None
    likeliest: int
    vocabulary: int
    choice: ChoiceForm | None
    grammar: str | None
    warnings: tuple[str, ...]


def probe_server(client: ServerClient, model: str | None, context_tokens: int | None) -> ServerAbilities:
    """Look at a server.

    Args:
        client: the server.
        model: one of its models; None where it has only one.
        context_tokens: most tokens of prompt and answer; None: what the server says.

    Raises:
        ModelError: not reachable, no such model, or it honours neither log-probabilities nor constraints.
        SettingsError: more context than the server has.
    """
    entry = _model_entry(client, model)
    name = str(entry["id"])
    asked = ServerModel(client, name)
    kind, version, props = _kind(client, entry)
    warnings: list[str] = []
    tokenizer = find_tokenizer(client, name)
    prompts = find_prompts(tokenizer, props) if tokenizer is not None else None
    if prompts is None:
        warnings.append("it has no tokenizer to rely on: tokens are estimated, and values are chosen, not scored")
    likeliest = _likeliest(asked, prompts) if prompts is not None else 0
    vocabulary = _vocabulary(asked, prompts, entry) if prompts is not None and likeliest else 0
    if prompts is not None and not likeliest:
        warnings.append("its log-probabilities cannot be relied on: values are chosen, not scored")
    if not likeliest:
        warnings.append("without probabilities every decision goes to a person")
    choice = _choice_form(asked, prompts)
    if not likeliest and choice is None:
        raise ModelError(
            f"model server {client.address}: it gives no log-probabilities that can be relied on, and ignores every "
            f"known way of constraining an answer ({', '.join(form.name for form in CHOICE_FORMS)}); a value could "
            "be read from it by luck only. Use llama-server, vLLM or Ollama in a newer version, or a GGUF file"
        )
    if choice is None:
        warnings.append("it ignores constraints: a value whose likeliest tokens do not settle it gets no answer")
    grammar = _grammar_form(asked, prompts)
    if grammar is None:
        warnings.append("it takes no grammar: verbatim passages (`spans`) cannot be read with it")
    told = _told_context(entry, props)
    if told is None:
        checked = _checked_context(asked, context_tokens or UNTOLD_CONTEXT_TOKENS)
        warnings.append(f"it does not say how many tokens fit: {checked} are taken")
    elif context_tokens is not None and context_tokens > told:
        raise SettingsError(f"context_tokens={context_tokens}: model server {client.address} has {told}")
    else:
        checked = min(told, context_tokens or told)
    facts = _facts(client, entry, props)
    return ServerAbilities(
        asked, kind, version, facts, checked, prompts, likeliest, vocabulary, choice, grammar, tuple(warnings)
    )


# ------------------------------------------------------------ who it is


def _model_entry(client: ServerClient, model: str | None) -> Mapping[str, Any]:
    reply = client.get("/v1/models")
    listed = reply.get("data") if isinstance(reply, dict) else None
    entries = [one for one in listed or [] if isinstance(one, dict) and isinstance(one.get("id"), str)]
    if not entries:
        raise ModelError(f"model server {client.address}: /v1/models lists no model; is one loaded?")
    fitting = [one for one in entries if one["id"] == model] if model is not None else entries
    if len(fitting) != 1:
        names = ", ".join(sorted(str(one["id"])[:80] for one in entries)[:20])
        problem = f"has no model {model!r}" if model is not None else f"has {len(entries)} models"
        raise ModelError(f"model server {client.address} {problem}; name one behind the URL, as #MODEL: {names}")
    return dict(fitting[0])


def _asked_of(client: ServerClient, path: str) -> Mapping[str, Any]:
    """What the server has at a path of its own kind; empty where it has no such path."""
    try:
        reply = client.get(path)
    except ServerRefusedError:
        return {}
    except ModelError:  # a page instead of JSON
        return {}
    return reply if isinstance(reply, dict) else {}


def _kind(client: ServerClient, entry: Mapping[str, Any]) -> tuple[str, str | None, dict[str, Any]]:
    """Kind, version, and what llama-server says at /props."""
    props = _asked_of(client, "/props")
    if "default_generation_settings" in props:
        return "llama-server", _text(props.get("build_info")), dict(props)
    if (version := _text(_asked_of(client, "/api/version").get("version"))) is not None:
        return "ollama", version, {}
    version = _text(_asked_of(client, "/version").get("version"))
    return "vllm" if entry.get("owned_by") == "vllm" else "other", version, {}


def _text(told: Any) -> str | None:
    return told if isinstance(told, str) and told else None


def _facts(client: ServerClient, entry: Mapping[str, Any], props: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of the model itself: name, size, template, digest. No times, no paths, no sizes of this start."""
    meta = entry.get("meta")
    sizes = ("vocab_type", "n_vocab", "n_ctx_train", "n_embd", "n_params", "size")
    facts: dict[str, Any] = {"id": entry["id"], "root": entry.get("root")}
    facts |= {name: meta.get(name) for name in sizes} if isinstance(meta, dict) else {}
    facts["template"] = props.get("chat_template")
    listed = _asked_of(client, "/api/tags").get("models")  # Ollama, which tells the digest of its manifest
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict) and entry["id"] in (one.get("name"), one.get("model")):
            facts["digest"] = one.get("digest")
    return {name: fact for name, fact in facts.items() if fact is not None}


def _told_context(entry: Mapping[str, Any], props: Mapping[str, Any]) -> int | None:
    settings = props.get("default_generation_settings")
    for told in (settings.get("n_ctx") if isinstance(settings, dict) else None, entry.get("max_model_len")):
        if type(told) is int and told > 0:
            return told
    return None


# -------------------------------------------------------- what it can do


def probe_prompt(prompts: ServerPrompts | None, question: str) -> Prompt:
    """An invented conversation."""
    if prompts is None:
        return conversation(_HEAD, _REPORT, question)
    return prompts.prefix(_HEAD, _REPORT) + prompts.question(question)


def _likeliest(model: ServerModel, prompts: ServerPrompts) -> int:
    """The most of the likeliest tokens that can be had; 0 where they do not hold together."""
    prompt = [*prompts.prefix(_HEAD, _REPORT), *prompts.question("Is the gate green? Answer with yes or no.")]
    forced = [*prompt, *prompts.answer("yes")[:-1]]
    for most in MOST_LIKELY:
        try:
            if all(_hold_together(model.next_tokens(tokens, most), len(tokens)) for tokens in (prompt, forced)):
                return most
        except ServerRefusedError:
            continue  # so many are not given
        except ModelError:
            return 0
    return 0


def _vocabulary(model: ServerModel, prompts: ServerPrompts, entry: Mapping[str, Any]) -> int:
    """The tokens that the model knows, where all of them can be asked for at once; else 0."""
    meta = entry.get("meta")
    size = meta.get("n_vocab") if isinstance(meta, dict) else None
    if type(size) is not int or not 0 < size <= MOST_VOCABULARY:
        return 0
    prompt = [*prompts.prefix(_HEAD, _REPORT), *prompts.question("Is the gate green? Answer with yes or no.")]
    try:
        found = model.next_tokens(prompt, size)
    except ModelError:  # more than it gives
        return 0
    return size if _hold_together(found, len(prompt)) and len(found.logprobs) > size // 2 else 0


def _hold_together(found: NextTokens, prompt_tokens: int) -> bool:
    """Whether they are probabilities of different tokens, the written one the likeliest, behind exactly this prompt."""
    logprobs = found.logprobs
    if len(logprobs) < 2 or max(logprobs.values()) > 1e-3:
        return False
    if math.fsum(math.exp(value) for value in logprobs.values()) > 1.01 or len(set(logprobs.values())) < 2:
        return False
    if found.prompt_tokens is not None and found.prompt_tokens != prompt_tokens:
        return False
    highest = max(logprobs.values())
    return found.written is None or logprobs.get(found.written, -math.inf) >= highest - 0.1


def _choice_form(model: ServerModel, prompts: ServerPrompts | None) -> ChoiceForm | None:
    prompt = probe_prompt(prompts, "What colour has the gate? Answer with one word.")
    for form in CHOICE_FORMS:
        try:
            for candidates in _NONSENSE:
                written = model.write(prompt, max_tokens=_PROBE_TOKENS, constraint=form.body(candidates))
                if form.read(written.text) not in candidates:
                    break
            else:
                return form
        except (ServerRefusedError, ValueError, KeyError, TypeError):
            continue
    return None


def _grammar_form(model: ServerModel, prompts: ServerPrompts | None) -> str | None:
    prompt = probe_prompt(prompts, "What is the bench made of? Answer with one word.")
    for name, body in GRAMMAR_FORMS.items():
        try:
            written = model.write(prompt, max_tokens=_PROBE_TOKENS, constraint=body(_GRAMMAR))
        except ServerRefusedError:
            continue
        if written.text in _WRITTEN_BY_GRAMMAR:
            return name
    return None


def _checked_context(model: ServerModel, wanted: int) -> int:
    """Tokens that are really read: a server may cut a prompt that is too long, and say nothing.

    Raises:
        ModelError: it cuts off, or does not say how much it read.
    """
    words = wanted * 9 // 10
    text = " ".join(["gate"] * words)
    try:
        read = model.write(conversation("", text, "How many gates?"), max_tokens=1).prompt_tokens
    except ServerRefusedError as refused:
        if not refused.too_long:
            raise
        read = 0
    if read is None or read < words:
        told = "does not say how many tokens it read" if read is None else f"read {read} tokens"
        raise ModelError(
            f"model server {model.client.address}: of an invented prompt of {words} words it {told}; a long report "
            f"would be cut off without a word. Give it a context of {wanted} tokens (Ollama: OLLAMA_CONTEXT_LENGTH), "
            "or name a smaller one (--context)"
        )
    return wanted
