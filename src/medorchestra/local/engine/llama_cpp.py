"""The engine that reads with a GGUF model through llama.cpp, on this machine, without a network.

A report is read once; every question is read behind it and forgotten again, so that its answer depends neither on
the other questions nor on their order: same model, settings and processor, same bits. Knows prompts and
tokens. Knows nothing of plans, rules or patients. One engine serves one thread at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Final, Self

from medorchestra.errors import ContextTooSmallError, ModelError, SettingsError
from medorchestra.local.engine.adapter_fit import BASE_DIGEST, check_adapter, check_model
from medorchestra.local.engine.chat import ChatFormat, Segment, chat_format
from medorchestra.local.engine.fused_model import FUSED_WEIGHTS, fused_model
from medorchestra.local.engine.gguf_file import GgufHeader, file_digest, read_gguf_header
from medorchestra.local.engine.label_trie import candidate_probabilities
from medorchestra.local.engine.llama_library import load_library
from medorchestra.local.engine.llama_reader import LlamaReader, Logits, ReaderSettings
from medorchestra.local.engine.model_files import find_model, require_loading_allowed
from medorchestra.local.engine.protocol import (
    Choice,
    Conversation,
    Generated,
    ModelIdentity,
    Scored,
    check_writing,
)
from medorchestra.local.engine.question_tree import TokenQuestion, question_trees
from medorchestra.local.engine.token_picker import GrammarPicker, GreedyPicker, SamplingPicker, TokenPicker

MOST_CONTEXT_TOKENS: Final = 8192
"""Default context of models trained for more: memory grows with it, and reports are shorter."""


class LlamaCppEngine:
    """A GGUF model, and if wanted a LoRA adapter, behind the `Engine` protocol.

    The report is tokenized by itself and without special tokens: whatever it contains, it stays text.
    """

    def __init__(
        self,
        model: str | Path = "default",
        *,
        adapter: str | Path | None = None,
        context_tokens: int | None = None,
        gpu_layers: int = 0,
        threads: int | None = None,
        fuse: bool = True,
    ) -> None:
        """Check the files and load them.

        Args:
            model: a path, or a name as `find_model` takes it.
            adapter: path of a LoRA adapter in GGUF form, trained on this model.
            context_tokens: most tokens of report, question and answer together; default: what the model was
                trained for, at most 8192.
            gpu_layers: layers computed on a GPU, -1 for all. Answers then depend on the GPU as well.
            threads: processor threads; default: one for each processor that this process may use.
            fuse: read with a fused copy of model and adapter where one can be made (see `fused_model`).

        Raises:
            ModelError: a file is missing, damaged or foreign, llama-cpp-python is missing, or loading is off.
            SettingsError: an option has an impossible value.
        """
        path = model if isinstance(model, Path) else find_model(model)
        header = read_gguf_header(path)
        check_model(header)
        settings = _reader_settings(header, context_tokens, gpu_layers, threads)
        adapter_path = None if adapter is None else Path(adapter)
        adapter_header = None if adapter_path is None else _fitting_adapter(adapter_path, header)
        require_loading_allowed()
        self._library = load_library()
        fused = None
        if fuse and adapter_header is not None:
            fused = fused_model(self._library, header, adapter_header, settings.threads)
        self._reader = LlamaReader(self._library, fused or path, settings)
        try:
            if adapter_path is not None and fused is None:
                self._reader.apply_adapter(adapter_path)
            self._chat = chat_format(header.chat_template, special_tokens=self._reader.special_texts())
            self._prompts = PromptTokens(self._reader, self._chat)
        except BaseException:
            self._reader.close()
            raise
        self._identity = _identity(self._library, self._reader, self._chat, (path, adapter_path), settings)
        if fused is not None:
            weights = {"weights": f"fused with the adapter, {FUSED_WEIGHTS}"}
            self._identity = replace(self._identity, settings={**self._identity.settings, **weights})
        self._context_tokens = settings.context_tokens
        self._head: list[int] = []
        self._session: LlamaSession | None = None

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is, how it is loaded, and on which kind of processor."""
        return self._identity

    @property
    def context_tokens(self) -> int:
        """Tokens that head, report, question and answer may take together."""
        return self._context_tokens

    @property
    def chat(self) -> ChatFormat:
        """How prompts are written for this model; training an adapter has to write them the same way."""
        return self._chat

    @property
    def prompts(self) -> PromptTokens:
        """The tokens of prompts, exactly as they are read."""
        return self._prompts

    @property
    def tokens_computed(self) -> int:
        """Tokens computed since the engine was made."""
        return self._reader.tokens_computed

    def count_tokens(self, text: str) -> int:
        """Tokens of a piece of plain text (special tokens not parsed)."""
        return len(self._reader.tokens(text, markup=False))

    @contextmanager
    def open(self, conversation: Conversation) -> Iterator[LlamaSession]:
        """Read the report once; the head only if it is not the one read before.

        Raises:
            ContextTooSmallError: they do not fit.
            ModelError: the engine is closed, or another report is still open.
        """
        if self._session is not None:
            raise ModelError("another report is still open in this engine; leave its `with` block first")
        head = self._prompts.head(conversation.head)
        report = self._prompts.report(conversation.report)
        needed = len(head) + len(report)
        if needed > self._context_tokens:
            raise ContextTooSmallError(needed, self._context_tokens)
        before = self._reader.tokens_computed
        self._read_head(head)
        self._reader.read(report)
        session = LlamaSession(
            self._library,
            self._reader,
            self._prompts,
            prefix_tokens=self._reader.tokens_computed - before,
            context_tokens=self._context_tokens,
        )
        self._session = session
        try:
            yield session
        finally:
            session.close()
            self._session = None

    def _read_head(self, head: list[int]) -> None:
        """Leave exactly the head in memory. It is always read by itself: what it is read with changes the last bits."""
        if head == self._head and self._reader.length >= len(head):
            self._reader.cut(len(head))
            return
        self._head = []
        self._reader.clear()
        self._reader.read(head)
        self._head = head

    def close(self) -> None:
        """Give back the memory. Idempotent."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PromptTokens:
    """Token numbers of the parts of a prompt.

    Parts are tokenized one by one, so that a prompt has the same tokens whether it is read at once or in parts.
    """

    def __init__(self, reader: LlamaReader, chat: ChatFormat) -> None:
        """Raises ModelError where neither the template nor the vocabulary says how a turn ends."""
        self._reader = reader
        self._chat = chat
        ending = reader.tokens(chat.ending.lstrip(), markup=True)
        end_of_turn = ending[0] if ending else reader.last_token
        if end_of_turn is None:
            raise ModelError("the model has no end-of-turn token; use a GGUF with a chat template")
        self.end_of_turn = end_of_turn
        # SentencePiece vocabularies begin every text with a space of their own.
        probe = reader.tokens("a", markup=False)
        self._lead_is_implied = chat.lead == " " and reader.text(probe[:1]).startswith(" ")

    def head(self, head: str) -> list[int]:
        """All that stands before the report, with the beginning-of-text token where the vocabulary asks for it."""
        tokens = self._of(self._chat.head_segments(head))
        first = self._reader.first_token
        return tokens if first is None or tokens[:1] == [first] else [first, *tokens]

    def report(self, report: str) -> list[int]:
        """The report, up to where a question begins."""
        return self._of(self._chat.report_segments(report))

    def question(self, question: str) -> list[int]:
        """A question, up to where the answer begins."""
        return self._of(self._chat.question_segments(question))

    def answer(self, candidate: str) -> tuple[int, ...]:
        """A candidate as the model would write it, and the end of its turn."""
        text = candidate if self._lead_is_implied else self._chat.answer_text(candidate)
        return (*self._reader.tokens(text, markup=False), self.end_of_turn)

    def written(self, tokens: Sequence[int]) -> str:
        """The text of tokens that the model wrote, without the space with which every answer begins."""
        return self._reader.text(tokens).removeprefix(self._chat.lead)

    def _of(self, segments: Iterable[Segment]) -> list[int]:
        return [token for piece in segments for token in self._reader.tokens(piece.text, markup=piece.markup)]


class LlamaSession:
    """A report that has been read. Made by `LlamaCppEngine.open`."""

    def __init__(
        self,
        library: ModuleType,
        reader: LlamaReader,
        prompts: PromptTokens,
        *,
        prefix_tokens: int,
        context_tokens: int,
    ) -> None:
        self._library = library
        self._reader = reader
        self._prompts = prompts
        self._prefix_tokens = prefix_tokens
        self._prefix = reader.length
        self._room = context_tokens - reader.length
        self._closed = False

    @property
    def prefix_tokens(self) -> int:
        """Tokens computed when the session was opened: those of the report, and of the head if it was new."""
        return self._prefix_tokens

    def choose(self, question: str, candidates: Sequence[str]) -> Scored:
        """Score a closed set of answers. See `Session.choose`.

        Raises:
            ContextTooSmallError: question and candidates do not fit behind the report.
            ModelError: the session or its engine is closed, or llama.cpp failed.
            ValueError: no candidate, an empty one, or two that are the same.
        """
        return self._score(self._as_tokens(Choice(question, tuple(candidates))))

    def choose_all(self, choices: Sequence[Choice]) -> tuple[Scored, ...]:
        """Score several closed sets of answers in as few computations as they fit into. See `Session.choose_all`.

        Raises:
            ContextTooSmallError, ModelError, ValueError: as `choose`.
        """
        asked = [self._as_tokens(choice) for choice in choices]
        limits = replace(self._reader.tree_limits, tokens=min(self._reader.tree_limits.tokens, self._room))
        trees, alone = question_trees(asked, limits)
        found = {number: self._score(asked[number]) for number in alone}
        for tree in trees:
            with self._behind_report():
                logits = self._reader.look_along(tree)
            for number, tokens in zip(tree.questions, tree.added, strict=True):
                found[number] = Scored(tuple(_probabilities(asked[number], logits)), tokens)
        return tuple(found[number] for number in range(len(asked)))

    def _as_tokens(self, choice: Choice) -> TokenQuestion:
        candidates = choice.candidates
        if not candidates or not all(candidates) or len(set(candidates)) < len(candidates):
            raise ValueError(f"{len(candidates)} candidates: each must be there once and hold text")
        asked = tuple(self._prompts.question(choice.question))
        answers = tuple(self._prompts.answer(candidate) for candidate in candidates)
        self._require_room(len(asked) + max(map(len, answers)))
        return TokenQuestion(asked, answers)

    def _score(self, question: TokenQuestion) -> Scored:
        before = self._reader.tokens_computed
        with self._behind_report():
            tree = _AnswerTree(self._reader, list(question.asked))
            probabilities = candidate_probabilities(question.answers, tree.logits_at)
        return Scored(tuple(probabilities), self._reader.tokens_computed - before)

    def generate(
        self,
        question: str,
        *,
        max_tokens: int,
        grammar: str | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Generated:
        """Write an answer, greedily or drawn. See `Session.generate`.

        Raises:
            ContextTooSmallError: question and `max_tokens` do not fit behind the report.
            ModelError: the grammar cannot be parsed or followed, the session or its engine is closed, or llama.cpp
                failed.
            ValueError: see `check_writing`.
        """
        check_writing(max_tokens, temperature, seed)
        asked = self._prompts.question(question)
        self._require_room(len(asked) + max_tokens)
        before = self._reader.tokens_computed
        with self._behind_report(), self._picker(grammar, temperature, seed) as picker:
            self._reader.read(asked)
            written, complete = self._write(picker, max_tokens)
        text = self._prompts.written(written)
        return Generated(text, complete, self._reader.tokens_computed - before)

    @contextmanager
    def _picker(self, grammar: str | None, temperature: float, seed: int) -> Iterator[TokenPicker]:
        allowed = (
            nullcontext(GreedyPicker()) if grammar is None else GrammarPicker(self._library, self._reader, grammar)
        )
        with allowed as likeliest:
            yield likeliest if temperature == 0 else SamplingPicker(likeliest, temperature=temperature, seed=seed)

    def _write(self, picker: TokenPicker, max_tokens: int) -> tuple[list[int], bool]:
        """Tokens written behind the question, and whether the model came to its end."""
        written: list[int] = []
        while True:
            token = picker.pick(self._reader.logits())
            if token == self._prompts.end_of_turn or self._reader.ends_generation(token):
                return written, True
            if len(written) == max_tokens:
                return written, False
            written.append(token)
            self._reader.read([token])

    @contextmanager
    def _behind_report(self) -> Iterator[None]:
        """Whatever is read inside is forgotten at the end."""
        self._require_open()
        self._reader.cut(self._prefix)
        try:
            yield
        finally:
            # After a failure of llama.cpp nothing is left to cut; the next question says so.
            if self._reader.length >= self._prefix:
                self._reader.cut(self._prefix)

    def _require_room(self, needed: int) -> None:
        if needed > self._room:
            raise ContextTooSmallError(needed, self._room)

    def _require_open(self) -> None:
        if self._closed:
            raise ModelError("this session is closed; open the report again")

    def close(self) -> None:
        """End the session. Idempotent."""
        self._closed = True


def _probabilities(question: TokenQuestion, logits: Mapping[tuple[int, ...], Logits]) -> list[float]:
    def logits_at(before: tuple[int, ...], possible: Sequence[int]) -> list[float]:
        found = logits[(*question.asked, *before)]
        return [float(found[token]) for token in possible]

    return candidate_probabilities(question.answers, logits_at)


class _AnswerTree:
    """Reads question and answers for `candidate_probabilities`, going back only as far as it must."""

    def __init__(self, reader: LlamaReader, asked: list[int]) -> None:
        self._reader = reader
        self._asked = asked
        self._start = reader.length
        self._there: list[int] = []

    def logits_at(self, answer: tuple[int, ...], possible: Sequence[int]) -> list[float]:
        """Logits of the possible next tokens behind the question and a part of an answer."""
        wanted = [*self._asked, *answer]
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._there, wanted, strict=False)))
        self._reader.cut(self._start + same)
        self._reader.read(wanted[same:])
        self._there = wanted
        logits = self._reader.logits()
        return [float(logits[token]) for token in possible]


def _reader_settings(
    header: GgufHeader, context_tokens: int | None, gpu_layers: int, threads: int | None
) -> ReaderSettings:
    trained = header.count(".context_length") or MOST_CONTEXT_TOKENS
    wanted = min(trained, MOST_CONTEXT_TOKENS) if context_tokens is None else context_tokens
    if not 1 <= wanted <= trained:
        raise SettingsError(
            f"context_tokens={wanted}: between 1 and {trained}, what {header.path.name} was trained for"
        )
    if gpu_layers < -1:
        raise SettingsError(f"gpu_layers={gpu_layers}: -1 for all, 0 for none, or a number of layers")
    if threads is not None and threads < 1:
        raise SettingsError(f"threads={threads}: at least 1")
    return ReaderSettings(wanted, gpu_layers, threads or _usable_processors())


def _fitting_adapter(path: Path, model: GgufHeader) -> GgufHeader:
    """The adapter's header. One that names another base is refused; one that names none passes by its shapes."""
    adapter = read_gguf_header(path)
    check_adapter(adapter, model)
    trained_on = adapter.text(BASE_DIGEST)
    if trained_on and trained_on != file_digest(model.path):
        raise ModelError(
            f"{path}: trained on another base ({trained_on[:19]}) than {model.path.name}, which is "
            f"{file_digest(model.path)[:19]}; name that base as the model, or train an adapter on this one"
        )
    return adapter


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _identity(
    library: ModuleType,
    reader: LlamaReader,
    chat: ChatFormat,
    paths: tuple[Path, Path | None],
    settings: ReaderSettings,
) -> ModelIdentity:
    model, adapter = paths
    return ModelIdentity(
        name=model.name,
        digest=file_digest(model),
        adapter=adapter.name if adapter else None,
        adapter_digest=file_digest(adapter) if adapter else None,
        settings={
            "engine": "llama.cpp",
            "llama_cpp": library.__version__,
            "context_tokens": settings.context_tokens,
            "batch_tokens": reader.batch_tokens,
            "chat": chat.name,
            "gpu_layers": settings.gpu_layers,
            "threads": settings.threads,
            "processor": library.llama_print_system_info().decode("utf-8", errors="replace").strip(" |"),
        },
    )
