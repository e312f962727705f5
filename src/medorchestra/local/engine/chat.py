"""Turns head, report and question into the pieces of a prompt, by the chat template that the model carries.

The conversation is always: the user gives head and report, the assistant says it has read it, the user asks. That
alternation pleases every template known, and puts the template's own markup between report and question, so that a
report can be read before its questions are known. The template is rendered once, over placeholders: neither report
nor question ever passes through Jinja. Knows no tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from medorchestra.errors import ModelError

ACKNOWLEDGEMENT: Final = "I have read the report."
_GAP: Final = "\n\n"

_HEAD, _REPORT, _QUESTION, _ANSWER = _PLACEHOLDERS = tuple(
    f"medorchestra{part}placeholder7f3a" for part in ("Head", "Report", "Question", "Answer")
)
"""Letters and digits only, without space around them: they come through `trim`, escaping and quoting unchanged."""

_TODAY: Final = datetime(2024, 7, 26)
"""The day for templates that tell the model the date: always the same, or an answer would depend on the day."""


@dataclass(frozen=True, slots=True, repr=False)
class Segment:
    """A piece of a prompt, tokenized by itself.

    Attributes:
        text: may hold report text.
        markup: written by the chat template, so that special tokens in it count. In any other piece they are
            characters like all others.
    """

    text: str
    markup: bool

    def __repr__(self) -> str:
        return f"Segment({len(self.text)} characters, markup={self.markup})"


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """What a model's template writes around head, report, question and answer.

    Attributes:
        name: `template sha256:…` or `plain`; part of the engine's identity.
        opening: before the head.
        seam: between report and question; holds the acknowledgement.
        reply: between question and answer.
        lead: space with which the answer itself begins. The model writes it, so it belongs to every candidate.
        ending: after the answer; its first token ends the turn. Empty: the vocabulary's end-of-sequence token does.
    """

    name: str
    opening: str
    seam: str
    reply: str
    lead: str
    ending: str

    def head_segments(self, head: str) -> tuple[Segment, ...]:
        """All that stands before the report."""
        return _pieces((self.opening, True), (head + _GAP if head else "", False))

    def report_segments(self, report: str) -> tuple[Segment, ...]:
        """The report, up to where a question begins."""
        return _pieces((report, False), (self.seam, True))

    def question_segments(self, question: str) -> tuple[Segment, ...]:
        """A question, up to where the answer begins."""
        return _pieces((question, False), (self.reply, True))

    def answer_text(self, candidate: str) -> str:
        """A candidate, as the model would write it behind `reply`."""
        return self.lead + candidate


PLAIN_FORMAT: Final = ChatFormat(
    name="plain", opening="", seam=f"{_GAP}Question: ", reply="\nAnswer:", lead=" ", ending=""
)
"""For models without a chat template: head, blank line, report, blank line, `Question: …`, `Answer:`."""


def chat_format(template: str | None, *, special_tokens: Mapping[str, str]) -> ChatFormat:
    """The format of a model's conversations.

    Args:
        template: Jinja source from the GGUF, or None where it has none (then `PLAIN_FORMAT`).
        special_tokens: `bos_token` and `eos_token` as text, for templates that name them.

    Raises:
        ModelError: the template is broken, refuses the conversation, or changes what it is given.
    """
    if template is None:
        return PLAIN_FORMAT
    name = f"template sha256:{hashlib.sha256(template.encode()).hexdigest()[:16]}"
    asked = [
        {"role": "user", "content": f"{_HEAD}{_GAP}{_REPORT}"},
        {"role": "assistant", "content": ACKNOWLEDGEMENT},
        {"role": "user", "content": _QUESTION},
    ]
    prompt = _render(template, name, special_tokens, asked, add_generation_prompt=True)
    opening, gap, seam, reply = _split(prompt, (_HEAD, _REPORT, _QUESTION), name)
    if gap != _GAP:
        raise ModelError(f"chat {name} changes the blank line between head and report; {_REMEDY}")
    answered = [*asked, {"role": "assistant", "content": _ANSWER}]
    full = _render(template, name, special_tokens, answered, add_generation_prompt=False)
    reply, lead, ending = _around_answer(prompt, reply, full)
    return ChatFormat(name, opening, seam, reply, lead, ending)


_REMEDY: Final = "use a GGUF with another template (`tokenizer.chat_template`) or none"


def _around_answer(prompt: str, reply: str, full: str) -> tuple[str, str, str]:
    """How an answer begins and ends, as (reply, lead, ending).

    Told from how the template writes an answer already given. Where that differs from the prompt for a new one
    (some templates drop or add an empty passage for thinking), the prompt is believed and nothing is added.
    """
    before, _, ending = full.partition(_ANSWER)
    if full.count(_ANSWER) != 1 or not before.startswith(prompt):
        return reply, "", ending if full.count(_ANSWER) == 1 else ""
    lead = before.removeprefix(prompt)
    if lead.strip():  # markup, not space: the template puts it there itself, so the model need not write it
        return reply + lead, "", ending
    return reply, lead, ending


def _split(prompt: str, placeholders: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The text around the placeholders, which must stand in the prompt once each and in this order."""
    parts: list[str] = []
    rest = prompt
    for placeholder in placeholders:
        if prompt.count(placeholder) != 1 or placeholder not in rest:
            raise ModelError(f"chat {name} drops, doubles or reorders what it is given; {_REMEDY}")
        before, _, rest = rest.partition(placeholder)
        parts.append(before)
    return (*parts, rest)


def _render(
    template: str,
    name: str,
    special_tokens: Mapping[str, str],
    messages: list[dict[str, str]],
    *,
    add_generation_prompt: bool,
) -> str:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals.update(raise_exception=_refuse, strftime_now=_TODAY.strftime)
    settings: dict[str, Any] = {"tools": None, "documents": None, "enable_thinking": False}
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=add_generation_prompt, **settings, **special_tokens
        )
    except Exception as error:  # a template fails in any way that an expression can
        raise ModelError(f"chat {name} cannot be rendered: {type(error).__name__}: {error}; {_REMEDY}") from error


def _refuse(message: str) -> NoReturn:
    """What templates call on a conversation they do not accept."""
    raise jinja2.TemplateError(message)


def _pieces(*pieces: tuple[str, bool]) -> tuple[Segment, ...]:
    return tuple(Segment(text, markup) for text, markup in pieces if text)
