"""The engine that asks a model server on the hospital's own network: llama-server, vLLM, Ollama or one like them.

The same conversation as with a model on this machine. Values are scored along their token tree where the server gives
log-probabilities by token number; else they are chosen under a constraint, and `Scored.scored` is False. Report text
stands in request bodies only. Knows prompts; knows nothing of plans, rules or patients.

Which model answers is what the server says: it may be given other weights under the same name, and nobody here would
notice. `identity.digest` is a digest of what it tells (name, sizes, chat template, and where it has one the digest of
its weights): it pins a plan's validation less firmly than the digest of a file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TypeVar

from medorchestra.errors import ContextTooSmallError, ModelError, SettingsError
from medorchestra.local.engine.label_trie import candidate_probabilities, forks_in
from medorchestra.local.engine.protocol import Choice, Conversation, Generated, ModelIdentity, Scored, check_writing
from medorchestra.local.engine.server_address import allowed_address
from medorchestra.local.engine.server_client import Patience, ServerClient, ServerRefusedError
from medorchestra.local.engine.server_probe import ServerAbilities, probe_server
from medorchestra.local.engine.server_prompts import conversation as messages_of
from medorchestra.local.engine.server_requests import GRAMMAR_FORMS, NextTokens, Prompt, Written

BYTES_PER_TOKEN: Final = 2
"""For servers without a tokenizer. Text of any European language has more bytes to a token: a generous estimate."""

MOST_UNTOLD: Final = 0.01
"""Tokens outside the likeliest may lead to candidates that are at most this probable together: each such token then
counts with what it has at most, and no probability is wrong by more."""

_Found = TypeVar("_Found")
_Asked = TypeVar("_Asked")


class ServerEngine:
    """A model behind a server, as an `Engine`. Several reports may be open at once, in several threads.

    Attributes:
        warnings: what is done without because the server cannot do it; each a sentence, without report text.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        allow: Iterable[str] = (),
        timeout_s: float = 120.0,
        concurrency: int = 8,
        context_tokens: int | None = None,
    ) -> None:
        """Look at the server with invented text, and refuse one that cannot be relied on.

        Args:
            url: `http://HOST:PORT`; `#MODEL` behind it names a model.
            model: which of the server's models; None: the one of the URL, or the only one.
            allow: servers that may be spoken to, as `HOST:PORT`, beside this machine and those of the environment
                variable MEDORCHESTRA_SERVERS.
            timeout_s: seconds to wait for one reply.
            concurrency: how many questions are asked at once.
            context_tokens: most tokens of prompt and answer together; None: what the server says.

        Raises:
            SettingsError: an option is impossible, or the server is neither this machine nor allowed: nothing is sent.
            ModelError: not reachable, or it can neither be constrained nor gives log-probabilities.
        """
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise SettingsError(f"timeout_s={timeout_s}: seconds, above 0")
        if concurrency < 1:
            raise SettingsError(f"concurrency={concurrency}: at least 1")
        if context_tokens is not None and context_tokens < 256:
            raise SettingsError(f"context_tokens={context_tokens}: at least 256")
        address = allowed_address(url, allow)
        client = ServerClient(address, Patience(timeout_s))
        self._abilities = probe_server(client, model or address.model, context_tokens)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="medorchestra-server")
        self._closed = False
        self._identity = _identity(self._abilities)
        self.warnings = tuple(f"model server {address}: {warning}" for warning in self._abilities.warnings)

    @property
    def identity(self) -> ModelIdentity:
        """What the server says which model it is, and how it is asked."""
        return self._identity

    @property
    def context_tokens(self) -> int:
        """Tokens that head, report, question and answer may take together."""
        return self._abilities.context_tokens

    def count_tokens(self, text: str) -> int:
        """Tokens of a piece of plain text; a generous estimate where the server has no tokenizer."""
        prompts = self._abilities.prompts
        if prompts is None:
            return math.ceil(len(text.encode("utf-8", errors="replace")) / BYTES_PER_TOKEN)
        return len(prompts.tokenizer.tokens(prompts.safe(text), markup=False))

    @contextmanager
    def open(self, conversation: Conversation) -> Iterator[ServerSession]:
        """Prepare a report. Nothing is computed yet: the first question reads it, and the server keeps it or not.

        Raises:
            ContextTooSmallError: head and report do not fit.
            ModelError: the engine is closed, or the server's tokenizer failed.
        """
        self.require_open()
        prompts = self._abilities.prompts
        if prompts is None:
            prefix, length = None, self.count_tokens(conversation.head) + self.count_tokens(conversation.report)
        else:
            prefix = tuple(prompts.prefix(conversation.head, conversation.report))
            length = len(prefix)
        if length > self.context_tokens:
            raise ContextTooSmallError(length, self.context_tokens)
        session = ServerSession(self, self._abilities, conversation, prefix, length)
        try:
            yield session
        finally:
            session.close()

    def at_once(self, ask: Callable[[_Asked], _Found], asked: Sequence[_Asked]) -> list[_Found]:
        """What `ask` makes of each, in their order.

        The first alone: it leaves the report's tokens in the server's cache, for the others to find.
        """
        if not asked:
            return []
        first = ask(asked[0])
        return [first, *self._threads.map(ask, asked[1:])]

    def require_open(self) -> None:
        """Raises ModelError once the engine is closed."""
        if self._closed:
            raise ModelError(f"the engine {self._identity.name} is closed; make a new one")

    def close(self) -> None:
        """End the threads. Idempotent."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ServerSession:
    """A report, ready for questions. Made by `ServerEngine.open`."""

    def __init__(
        self,
        engine: ServerEngine,
        abilities: ServerAbilities,
        conversation: Conversation,
        prefix: tuple[int, ...] | None,
        length: int,
    ) -> None:
        self._engine = engine
        self._abilities = abilities
        self._conversation = conversation
        self._prefix = prefix
        self._length = length
        self._room = abilities.context_tokens - length
        self._closed = False

    @property
    def prefix_tokens(self) -> int:
        """None is computed when a report is opened; the first question counts them."""
        return 0

    def choose(self, question: str, candidates: Sequence[str]) -> Scored:
        """Score a closed set of answers, or choose from it where the server has no probabilities. See
        `Session.choose`.

        Raises:
            ContextTooSmallError: question and candidates do not fit behind the report.
            ModelError: the session is closed, or the server failed.
            ValueError: no candidate, an empty one, or two that are the same.
        """
        return self.choose_all([Choice(question, tuple(candidates))])[0]

    def choose_all(self, choices: Sequence[Choice]) -> tuple[Scored, ...]:
        """Score several closed sets of answers, several requests at once. See `Session.choose_all`.

        Raises:
            ContextTooSmallError, ModelError, ValueError: as `choose`.
        """
        self._require_open()
        for choice in choices:
            candidates = choice.candidates
            if not candidates or not all(candidates) or len(set(candidates)) < len(candidates):
                raise ValueError(f"{len(candidates)} candidates: each must be there once and hold text")
        if self._prefix is None or not self._abilities.likeliest:
            return tuple(self._engine.at_once(self._chosen, list(choices)))
        return self._scored(list(choices))

    def generate(
        self,
        question: str,
        *,
        max_tokens: int,
        grammar: str | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Generated:
        """Write an answer. See `Session.generate`; that a seed draws the same tokens again is up to the server.

        Raises:
            ContextTooSmallError: question and `max_tokens` do not fit behind the report.
            ModelError: the server takes no grammar, or failed, or the session is closed.
            ValueError: see `check_writing`.
        """
        check_writing(max_tokens, temperature, seed)
        self._require_open()
        form = self._abilities.grammar
        if grammar is not None and form is None:
            raise ModelError(f"model server of {self._engine.identity.name}: takes no grammar; use another server")
        prompt, length = self._prompt(question, max_tokens)
        constraint = GRAMMAR_FORMS[form](grammar) if grammar is not None and form is not None else None
        written = self._write(prompt, length, max_tokens, constraint, temperature, seed)
        return Generated(written.text, written.complete, self._computed(written.tokens, length))

    # ------------------------------------------------------------- scoring

    def _scored(self, choices: list[Choice]) -> tuple[Scored, ...]:
        """By the log-probabilities at every place where the candidates' tokens part."""
        prompts = self._abilities.prompts
        assert prompts is not None and self._prefix is not None  # noqa: S101, PT018 - asked only where they are there
        answers = [tuple(prompts.answer(candidate) for candidate in choice.candidates) for choice in choices]
        starts: list[tuple[int, ...]] = []
        for choice, sequences in zip(choices, answers, strict=True):
            asked = prompts.question(choice.question)
            self._require_room(len(asked) + max(map(len, sequences)))
            starts.append((*self._prefix, *asked))
        places = [(number, fork) for number, sequences in enumerate(answers) for fork in forks_in(sequences)]
        likeliest = self._abilities.likeliest
        looked = self._engine.at_once(lambda place: self._next(starts[place[0]] + place[1], likeliest), places)
        found = dict(zip(places, looked, strict=True))
        scores: list[Scored] = []
        for number, (choice, sequences) in enumerate(zip(choices, answers, strict=True)):
            here = {fork: tokens for (owner, fork), tokens in found.items() if owner == number}
            tokens = sum(self._computed(one.tokens, len(starts[number])) for one in here.values())
            probabilities, further = self._probabilities(starts[number], sequences, here)
            tokens += further
            if probabilities is not None:
                scores.append(Scored(tuple(probabilities), tokens))
            else:
                chosen = self._chosen(choice)
                scores.append(Scored(chosen.probabilities, tokens + chosen.tokens, scored=False))
        return tuple(scores)

    def _probabilities(
        self, start: tuple[int, ...], sequences: Sequence[tuple[int, ...]], found: dict[tuple[int, ...], NextTokens]
    ) -> tuple[list[float] | None, int]:
        """Probability of each candidate, None where too much stays untold; and the further tokens computed for it.

        Where the likeliest tokens leave too much open, all are asked for where it matters: a reply of megabytes.
        """
        probabilities, untold = _read_tree(sequences, found)
        tokens = 0
        if math.fsum(untold.values()) > MOST_UNTOLD and self._abilities.vocabulary:
            for fork in [fork for fork, share in untold.items() if share > MOST_UNTOLD / len(untold)]:
                found[fork] = self._next(start + fork, self._abilities.vocabulary)
                tokens += self._computed(found[fork].tokens, len(start))
            probabilities, untold = _read_tree(sequences, found)
        return probabilities if math.fsum(untold.values()) <= MOST_UNTOLD else None, tokens

    def _next(self, prompt: tuple[int, ...], most: int) -> NextTokens:
        try:
            return self._abilities.model.next_tokens(prompt, most)
        except ServerRefusedError as refused:
            if not refused.too_long:
                raise
        raise ContextTooSmallError(len(prompt), self._abilities.context_tokens)

    def _chosen(self, choice: Choice) -> Scored:
        """One candidate, chosen under a constraint: no probabilities."""
        form = self._abilities.choice
        if form is None:
            raise ModelError(
                f"model server of {self._engine.identity.name}: the {self._abilities.likeliest} likeliest tokens leave "
                f"out too much of {len(choice.candidates)} candidates, and it cannot be made to choose"
            )
        most = max(self._engine.count_tokens(candidate) for candidate in choice.candidates) + 16
        prompt, length = self._prompt(choice.question, most)
        written = self._write(prompt, length, 4 * most, form.body(choice.candidates))
        try:
            chosen = choice.candidates.index(form.read(written.text))
        except (ValueError, KeyError, TypeError):
            chosen = None
        if chosen is None:  # raised here, where the error that names the text is no longer its context
            raise ModelError(
                f"model server of {self._engine.identity.name}: {len(written.text)} characters that are none of "
                f"{len(choice.candidates)} candidates; it ignores the constraint that it honoured at first"
            )
        marks = tuple(float(number == chosen) for number in range(len(choice.candidates)))
        return Scored(marks, self._computed(written.tokens, length), scored=False)

    # -------------------------------------------------------------- asking

    def _prompt(self, question: str, answer_tokens: int) -> tuple[Prompt, int]:
        """The prompt for a question and its tokens, once it is clear that an answer fits behind it."""
        prompts = self._abilities.prompts
        if prompts is None or self._prefix is None:
            asked = self._engine.count_tokens(question)
            self._require_room(asked + answer_tokens)
            head, report = self._conversation.head, self._conversation.report
            return messages_of(head, report, question), self._length + asked
        tokens = prompts.question(question)
        self._require_room(len(tokens) + answer_tokens)
        return (*self._prefix, *tokens), self._length + len(tokens)

    def _write(
        self,
        prompt: Prompt,
        length: int,
        max_tokens: int,
        constraint: Mapping[str, object] | None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Written:
        most = min(max_tokens, max(1, self._abilities.context_tokens - length))
        try:
            return self._abilities.model.write(
                prompt, max_tokens=most, temperature=temperature, seed=seed, constraint=constraint
            )
        except ServerRefusedError as refused:
            if not refused.too_long:
                raise
        raise ContextTooSmallError(length + most, self._abilities.context_tokens)

    def _computed(self, told: int | None, length: int) -> int:
        """Tokens computed: all of the prompt, where the server does not say."""
        return length if told is None else told

    def _require_room(self, needed: int) -> None:
        if needed > self._room:
            raise ContextTooSmallError(needed, self._room)

    def _require_open(self) -> None:
        if self._closed:
            raise ModelError("this session is closed; open the report again")
        self._engine.require_open()

    def close(self) -> None:
        """End the session. Idempotent."""
        self._closed = True


def _read_tree(
    sequences: Sequence[tuple[int, ...]], found: Mapping[tuple[int, ...], NextTokens]
) -> tuple[list[float], dict[tuple[int, ...], float]]:
    """Probability of each candidate, and how much of it each fork's untold tokens lead to, at most."""
    shares: dict[tuple[int, ...], float] = {}  # fork -> of those that come there

    def logits_at(before: tuple[int, ...], possible: Sequence[int]) -> list[float]:
        told = found[before].logprobs
        at_most = min(told.values())  # so probable is a token that is not among the likeliest, or less
        known = math.fsum(math.exp(told[token]) for token in possible if token in told)
        untold = math.exp(at_most) * sum(token not in told for token in possible)
        shares[before] = untold / (known + untold) if untold else 0.0
        return [told.get(token, at_most) for token in possible]

    probabilities = candidate_probabilities(sequences, logits_at)
    reached = {
        fork: math.fsum(
            probability
            for sequence, probability in zip(sequences, probabilities, strict=True)
            if sequence[: len(fork)] == fork
        )
        for fork in shares
    }
    return probabilities, {fork: share * reached[fork] for fork, share in shares.items()}


def _identity(abilities: ServerAbilities) -> ModelIdentity:
    told = json.dumps(abilities.facts, sort_keys=True, ensure_ascii=True).encode()
    prompts = abilities.prompts
    return ModelIdentity(
        name=abilities.model.name,
        digest=f"sha256:{hashlib.sha256(told).hexdigest()}",
        settings={
            "engine": "server",
            "server": abilities.kind,
            "server_version": abilities.version,
            "digest_of": "what the server tells of its model, not its file",
            "context_tokens": abilities.context_tokens,
            "chat": prompts.chat.name if prompts is not None else "by the server",
            "report_markup": "told apart" if prompts is not None and prompts.tells_markup else "broken up",
            "probabilities": bool(abilities.likeliest),
            "likeliest_tokens": abilities.likeliest,
            "whole_vocabulary": bool(abilities.vocabulary),
            "choice": abilities.choice.name if abilities.choice is not None else None,
            "grammar": abilities.grammar,
        },
    )
