"""Token numbers of the parts of a prompt, from a server that has a tokenizer and says how it writes a conversation.

The same parts as with a model on this machine: tokenized one by one, so that report text never becomes markup and
the prompt of a question begins with exactly the tokens of the report. Where a server cannot tell markup from text,
`without_markup` breaks up whatever in a report looks like it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from medorchestra.errors import ModelError
from medorchestra.local.engine.chat import ACKNOWLEDGEMENT, ChatFormat, Segment, chat_format
from medorchestra.local.engine.server_client import ServerClient

_PLACES: Final = (
    "medorchestraHead5c1e",
    "medorchestraReport5c1e",
    "medorchestraQuestion5c1e",
    "medorchestraAnswer5c1e",
)
"""Invented words in the places of head, report, question and answer."""

_MARKUP: Final = re.compile(r"<(?=[|｜/!?a-zA-Z_\[<])|(?<=[|｜>])>|\[(?=/?[A-Z_]{2,}\])")
"""Where the tokens that chat templates write begin: `<|im_start|>`, `<start_of_turn>`, `</s>`, `[INST]`, `<<SYS>>`."""


def without_markup(text: str) -> str:
    """Text in which nothing can be taken for a chat template's markup: a space breaks it up. `<180` stays as it is."""
    return _MARKUP.sub(lambda found: found[0] + " " if found[0] in "<[" else " " + found[0], text)


@dataclass(frozen=True, slots=True)
class _Words:
    """What one kind of server calls the fields of `/tokenize` and `/detokenize`."""

    text: str
    special: str


_KINDS: Final = (_Words("content", "add_special"), _Words("prompt", "add_special_tokens"))
"""llama-server; vLLM."""


class ServerTokenizer:
    """The tokenizer of a server."""

    def __init__(self, client: ServerClient, model: str, words: _Words) -> None:
        self._client = client
        self._model = model
        self._words = words
        # Labels and questions come again with every report; of the reports' sentences, few do.
        self._cached = lru_cache(maxsize=2048)(self._asked)

    def tokens(self, text: str, *, markup: bool) -> list[int]:
        """Token numbers of a text. Where the server can tell, special tokens count only in markup."""
        return list(self._cached(text, markup, False)) if text else []

    def beginning(self) -> list[int]:
        """The token with which the vocabulary begins every text, if any."""
        bare, begun = self._cached("a", False, False), self._cached("a", False, True)
        return [] if begun[:1] == bare[:1] else list(begun[:1])

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, markup included."""
        reply = self._client.post("/detokenize", {"model": self._model, "tokens": list(tokens)})
        text = reply.get(self._words.text) if isinstance(reply, dict) else None
        if not isinstance(text, str):
            raise ModelError(f"model server {self._client.address} /detokenize: no `{self._words.text}` in the reply")
        return text

    def conversation(self, messages: Sequence[dict[str, str]], *, answered: bool) -> list[int]:
        """Tokens of a whole conversation by the server's chat template (vLLM)."""
        body = {
            "model": self._model,
            "messages": list(messages),
            "add_generation_prompt": not answered,
            "add_special_tokens": False,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        return self._numbers(self._client.post("/tokenize", body))

    def _asked(self, text: str, markup: bool, special: bool) -> tuple[int, ...]:
        body = {"model": self._model, self._words.text: text, self._words.special: special, "parse_special": markup}
        return tuple(self._numbers(self._client.post("/tokenize", body)))

    def _numbers(self, reply: Any) -> list[int]:
        tokens = reply.get("tokens") if isinstance(reply, dict) else None
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise ModelError(f"model server {self._client.address} /tokenize: no list of token numbers in the reply")
        return tokens


def find_tokenizer(client: ServerClient, model: str) -> ServerTokenizer | None:
    """The server's tokenizer, or None where it has none of a known kind that gives text back unchanged."""
    text = "A lesion of 12 mm, Größe ≤ 3 cm."
    for words in _KINDS:
        tokenizer = ServerTokenizer(client, model, words)
        try:
            tokens = tokenizer.tokens(text, markup=False)
            if len(tokens) > 3 and tokenizer.text(tokens).strip() == text:
                return tokenizer
        except ModelError:
            continue
    return None


class ServerPrompts:
    """Token numbers of head, report, question and answer.

    Attributes:
        chat: how the parts are put together.
        tells_markup: whether report text is safe from being read as markup without `without_markup`.
        end_of_turn: the token with which an answer ends.
    """

    def __init__(self, tokenizer: ServerTokenizer, chat: ChatFormat, eos: str | None) -> None:
        """Raises ModelError where nothing says how a turn ends."""
        self.tokenizer = tokenizer
        self.chat = chat
        ending = chat.ending.lstrip() or eos or ""
        marked = tokenizer.tokens(ending, markup=True)
        if not marked:
            raise ModelError("the server does not say how its model ends a turn")
        self.end_of_turn = marked[0]
        self.tells_markup = self.end_of_turn not in tokenizer.tokens(ending, markup=False)

    def prefix(self, head: str, report: str) -> list[int]:
        """Head and report, up to where a question begins."""
        first, opening = self.tokenizer.beginning(), self._of(self.chat.head_segments(head))
        begun = opening if opening[: len(first)] == first else [*first, *opening]
        return begun + self._of(self.chat.report_segments(self.safe(report)))

    def question(self, question: str) -> list[int]:
        """A question, up to where the answer begins."""
        return self._of(self.chat.question_segments(self.safe(question)))

    def answer(self, candidate: str) -> tuple[int, ...]:
        """A candidate as the model would write it, and the end of its turn."""
        return (*self.tokenizer.tokens(self.chat.answer_text(self.safe(candidate)), markup=False), self.end_of_turn)

    def safe(self, text: str) -> str:
        """Text as it may be sent."""
        return text if self.tells_markup else without_markup(text)

    def _of(self, segments: Sequence[Segment]) -> list[int]:
        return [token for piece in segments for token in self.tokenizer.tokens(piece.text, markup=piece.markup)]


def find_prompts(tokenizer: ServerTokenizer, props: dict[str, Any]) -> ServerPrompts | None:
    """How the server writes a conversation, or None where it does not say.

    Args:
        tokenizer: the server's.
        props: what llama-server says of itself at `/props`; empty for another.
    """
    try:
        if "chat_template" in props:
            special = {name: str(props.get(name) or "") for name in ("bos_token", "eos_token")}
            chat = chat_format(str(props["chat_template"] or "") or None, special_tokens=special)
            return ServerPrompts(tokenizer, chat, special["eos_token"])
        chat_told = _told_format(tokenizer)
        return None if chat_told is None else ServerPrompts(tokenizer, chat_told, None)
    except ModelError:
        return None


def conversation(head: str, report: str, question: str) -> list[dict[str, str]]:
    """The one shape of a conversation, as messages; nothing in report or question is taken for markup."""
    read = without_markup(report)
    return [
        {"role": "user", "content": f"{head}\n\n{read}" if head else read},
        {"role": "assistant", "content": ACKNOWLEDGEMENT},
        {"role": "user", "content": without_markup(question)},
    ]


def _told_format(tokenizer: ServerTokenizer) -> ChatFormat | None:
    """The format, from how the server writes a conversation over placeholders; None where that cannot be relied on."""
    head, report, question, answer = _PLACES
    asked = conversation(head, report, question)
    prompt = _written(tokenizer, asked, answered=False)
    full = _written(tokenizer, [*asked, {"role": "assistant", "content": answer}], answered=True)
    if prompt is None or full is None or full.count(answer) != 1:
        return None
    found = re.fullmatch(f"(.*){head}\n\n{report}(.*){question}(.*)", prompt, re.DOTALL)
    if found is None:
        return None
    opening, seam, reply = found.groups()
    return ChatFormat("told by the server", opening, seam, reply, lead="", ending=full.partition(answer)[2])


def _written(tokenizer: ServerTokenizer, messages: list[dict[str, str]], *, answered: bool) -> str | None:
    """The text of a conversation, if its tokens come out of it again."""
    tokens = tokenizer.conversation(messages, answered=answered)
    text = tokenizer.text(tokens)
    return text if tokenizer.tokens(text, markup=True) == tokens else None
