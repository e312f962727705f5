"""One llama.cpp model and what it has read: read on, look at the next token, look along branches, cut back.

Knows tokens and memory. Knows nothing of chats, questions or candidates. Every return code is checked here: several
of llama.cpp's failures are silent, and several of its mistakes end the process.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from medorchestra.errors import ModelError
from medorchestra.local.engine.llama_library import complaints
from medorchestra.local.engine.question_tree import Path as TokenPath
from medorchestra.local.engine.question_tree import QuestionTree, TreeLimits

BATCH_TOKENS: Final = 512
"""Tokens given to llama.cpp at a time. More than the context was made for would abort the process."""

BRANCHES: Final = 96
"""Ways to go on from what has been read that can be computed together, and places in them that are looked at."""

_SEQUENCE: Final = 0
"""Of what has been read; branches off it are the sequences 1, 2 …"""
_NO_TOKEN: Final = -1

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """How a model is loaded.

    Attributes:
        context_tokens: size of its memory.
        gpu_layers: layers computed on a GPU; -1 for all, 0 for none.
        threads: processor threads.
    """

    context_tokens: int
    gpu_layers: int
    threads: int


class LlamaReader:
    """A loaded model and what it has read.

    Attributes:
        length: tokens in memory.
        tokens_computed: tokens computed since the model was loaded.
    """

    def __init__(self, library: ModuleType, path: Path, settings: ReaderSettings) -> None:
        """Load a model whose header has been checked.

        Raises:
            ModelError: llama.cpp cannot load it, or it cannot take back what it has read.
        """
        self._library = library
        self._path = path
        self.length = 0
        self.tokens_computed = 0
        self._release = weakref.finalize(self, _release, library, owned := _Owned())
        try:
            self._model = owned.model = self._load_model(settings)
            self._require_rewindable()
            self._context = owned.context = self._make_context(settings)
        except BaseException:
            self._release()
            raise
        self._vocab = library.llama_model_get_vocab(self._model)
        self._memory = library.llama_get_memory(self._context)
        self.vocabulary_size = int(library.llama_vocab_n_tokens(self._vocab))
        self.batch_tokens = min(BATCH_TOKENS, int(library.llama_n_batch(self._context)))
        self._batch = owned.batch = library.llama_batch_init(self.batch_tokens, 0, BRANCHES)
        self._batch_tokens_view = np.ctypeslib.as_array(self._batch.token, shape=(self.batch_tokens,))
        self._batch_positions = np.ctypeslib.as_array(self._batch.pos, shape=(self.batch_tokens,))
        self._batch_wanted = np.ctypeslib.as_array(self._batch.logits, shape=(self.batch_tokens,))
        self._tree_limits = TreeLimits(self.batch_tokens, BRANCHES, BRANCHES)

    # ------------------------------------------------------------- loading

    def _load_model(self, settings: ReaderSettings) -> Any:
        library = self._library
        if settings.gpu_layers != 0 and not library.llama_supports_gpu_offload():
            raise ModelError(
                f"gpu_layers={settings.gpu_layers}, but llama-cpp-python was built without GPU support; "
                "use gpu_layers=0 or rebuild it (for example CMAKE_ARGS='-DGGML_CUDA=on')"
            )
        parameters = library.llama_model_default_params()
        parameters.n_gpu_layers = settings.gpu_layers
        with complaints() as lines:
            model = library.llama_model_load_from_file(os.fsencode(self._path), parameters)
        if not model:
            raise ModelError(
                f"{self._path}: llama.cpp cannot load this model ({_reason(lines)}); try another GGUF of it, or a "
                "newer llama-cpp-python"
            )
        return model

    def _require_rewindable(self) -> None:
        """Answers are independent because the model forgets each question: only a transformer's memory can."""
        library, model = self._library, self._model
        checks = (library.llama_model_is_recurrent, library.llama_model_is_hybrid, library.llama_model_is_diffusion)
        if any(check(model) for check in checks) or library.llama_model_has_encoder(model):
            raise ModelError(
                f"{self._path}: its architecture cannot go back to the report after a question; use a "
                "decoder-only transformer (Llama, Qwen, Gemma, Phi ...)"
            )

    def _make_context(self, settings: ReaderSettings) -> Any:
        library = self._library
        parameters = library.llama_context_default_params()
        parameters.n_ctx = settings.context_tokens
        parameters.n_batch = parameters.n_ubatch = min(BATCH_TOKENS, settings.context_tokens)
        parameters.n_seq_max = 1 + BRANCHES
        parameters.kv_unified = True  # else the context is divided among the sequences
        # Not less than n_seq_max, or llama.cpp ends the process; its default, a whole batch, takes 100 MB and more.
        parameters.n_outputs_max = 1 + BRANCHES
        parameters.n_threads = parameters.n_threads_batch = settings.threads
        parameters.offload_kqv = parameters.op_offload = settings.gpu_layers != 0
        parameters.swa_full = True  # a sliding window that has slid on cannot be cut back
        with complaints() as lines:
            context = library.llama_init_from_model(self._model, parameters)
        if not context or library.llama_n_ctx(context) < settings.context_tokens:
            raise ModelError(
                f"{self._path}: no context of {settings.context_tokens} tokens ({_reason(lines)}); "
                "use a smaller context_tokens"
            )
        return context

    def apply_adapter(self, path: Path) -> None:
        """Use a LoRA adapter from now on. Its header must have been checked: llama.cpp crashes on a foreign one.

        Raises:
            ModelError: llama.cpp cannot load it.
        """
        library = self._library
        with complaints() as lines:
            adapter = library.llama_adapter_lora_init(self._model, os.fsencode(path))  # freed with the model
        if not adapter:
            raise ModelError(f"{path}: llama.cpp cannot load this adapter ({_reason(lines)}); convert it again")
        adapters = (library.llama_adapter_lora_p_ctypes * 1)(adapter)
        if library.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0)) != 0:
            raise ModelError(f"{path}: llama.cpp cannot apply this adapter; convert it again")

    def close(self) -> None:
        """Give back the memory. Idempotent."""
        self._release()

    def _require_open(self) -> None:
        if not self._release.alive:
            raise ModelError(f"the engine for {self._path.name} is closed; make a new one")

    # -------------------------------------------------------------- tokens

    def tokens(self, text: str, *, markup: bool) -> list[int]:
        """Token numbers of a text; nothing is added before or behind.

        Args:
            text: any text.
            markup: whether special tokens written out in the text count as such.
        """
        self._require_open()
        encoded = text.encode("utf-8", errors="replace")
        room = len(encoded) + 8
        while True:
            found = (self._library.llama_token * room)()
            count = self._library.llama_tokenize(self._vocab, encoded, len(encoded), found, room, False, markup)
            if count >= 0:
                return list(found[:count])
            if -count <= room:
                raise ModelError(f"{self._path.name}: a text of {len(encoded)} bytes cannot be tokenized")
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; none for a special token."""
        self._require_open()
        room = 64
        while True:
            found = ctypes.create_string_buffer(room)
            count = int(self._library.llama_token_to_piece(self._vocab, token, found, room, 0, False))
            if count >= 0:
                return found.raw[:count]
            room = -count

    def text(self, tokens: Sequence[int]) -> str:
        """The text of some tokens, special tokens left out."""
        return b"".join(map(self.piece, tokens)).decode("utf-8", errors="replace")

    def ends_generation(self, token: int) -> bool:
        """Whether the model means with this token that it is done."""
        self._require_open()
        return bool(self._library.llama_vocab_is_eog(self._vocab, token))

    def is_control(self, token: int) -> bool:
        """Whether a token is markup rather than text."""
        self._require_open()
        return bool(self._library.llama_vocab_is_control(self._vocab, token))

    @property
    def first_token(self) -> int | None:
        """The token that the vocabulary wants before everything else, or None."""
        self._require_open()
        wanted = bool(self._library.llama_vocab_get_add_bos(self._vocab))
        return self._special(self._library.llama_vocab_bos) if wanted else None

    @property
    def last_token(self) -> int | None:
        """The vocabulary's own end-of-sequence token, or None."""
        self._require_open()
        return self._special(self._library.llama_vocab_eos)

    def _special(self, which: Any) -> int | None:
        token = int(which(self._vocab))
        return None if token == _NO_TOKEN else token

    def special_texts(self) -> dict[str, str]:
        """`bos_token` and `eos_token` as the model's chat template writes them."""
        self._require_open()
        library = self._library
        known = {"bos_token": library.llama_vocab_bos, "eos_token": library.llama_vocab_eos}
        texts = {}
        for name, which in known.items():
            token = self._special(which)
            written = b"" if token is None else library.llama_vocab_get_text(self._vocab, token) or b""
            texts[name] = written.decode("utf-8", errors="replace")
        return texts

    @property
    def vocabulary(self) -> Any:
        """llama.cpp's vocabulary, for making a grammar."""
        self._require_open()
        return self._vocab

    # ------------------------------------------------------------- reading

    def read(self, tokens: Sequence[int]) -> None:
        """Read on behind what is in memory; `logits` then speaks of the token after the last one.

        Raises:
            ModelError: llama.cpp failed; nothing is in memory then.
        """
        self._require_open()
        for start in range(0, len(tokens), self.batch_tokens):
            chunk = tokens[start : start + self.batch_tokens]
            self._decode(chunk, last=start + len(chunk) == len(tokens))

    def _decode(self, chunk: Sequence[int], *, last: bool) -> None:
        count = len(chunk)
        self._batch_tokens_view[:count] = chunk
        self._batch_positions[:count] = np.arange(self.length, self.length + count)
        self._batch_wanted[:count] = 0
        self._batch_wanted[count - 1] = last
        for place in range(count):
            self._batch.n_seq_id[place] = 1
            self._batch.seq_id[place][0] = _SEQUENCE
        self.length += count
        self._compute(count)

    def _compute(self, count: int) -> None:
        """Have the batch computed; `length` is what shall be in memory of the sequence read so far."""
        self._batch.n_tokens = count
        returned = self._library.llama_decode(self._context, self._batch)
        self.tokens_computed += count
        held = self._held(_SEQUENCE)
        if returned != 0 or held != (0, self.length - 1):
            self.clear()
            raise ModelError(
                f"{self._path.name}: llama.cpp failed on {count} tokens (code {returned}, memory {held}); "
                "open the report again, with a smaller context_tokens if memory is short"
            )

    def _held(self, sequence: int) -> tuple[int, int]:
        """First and last position that is in memory of a sequence."""
        library = self._library
        return (
            library.llama_memory_seq_pos_min(self._memory, sequence),
            library.llama_memory_seq_pos_max(self._memory, sequence),
        )

    @property
    def tree_limits(self) -> TreeLimits:
        """What `look_along` takes at once, beside the room in memory."""
        return self._tree_limits

    def look_along(self, tree: QuestionTree) -> dict[TokenPath, Logits]:
        """Compute a tree behind what has been read, and forget it again.

        Returns:
            for each of the tree's looks, the logits of the token to come next.

        Raises:
            ModelError: llama.cpp failed to compute, and nothing is in memory then; or to fork, and what has been read
                is still there.
        """
        self._require_open()
        if not tree.tokens:  # of questions with a single answer; llama.cpp takes an empty batch for a failure
            return {}
        library = self._library
        leaves = tree.leaves()
        through: list[list[int]] = [[] for _ in tree.tokens]
        for sequence, leaf in enumerate(leaves, start=1):
            node = leaf
            while node >= 0:
                through[node].append(sequence)
                node = tree.parents[node]
        depths: list[int] = []
        for node, parent in enumerate(tree.parents):
            depths.append(self.length if parent < 0 else depths[parent] + 1)
            self._batch_tokens_view[node], self._batch_positions[node] = tree.tokens[node], depths[node]
            self._batch_wanted[node] = 0
            self._batch.n_seq_id[node] = len(through[node])
            for place, sequence in enumerate(through[node]):
                self._batch.seq_id[node][place] = sequence
        for node in tree.looks.values():
            self._batch_wanted[node] = 1
        try:
            for sequence in range(1, len(leaves) + 1):
                library.llama_memory_seq_cp(self._memory, _SEQUENCE, sequence, -1, -1)
                if self._held(sequence) != (0, self.length - 1):  # it would be read without the report, silently
                    raise ModelError(f"{self._path.name}: llama.cpp did not fork the report; open the report again")
            self._compute(len(tree.tokens))
            return {path: self._logits_at(node) for path, node in tree.looks.items()}
        finally:
            for sequence in range(1, len(leaves) + 1):
                library.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def logits(self) -> Logits:
        """Logits of every token of the vocabulary to come next, shape (vocabulary_size,).

        Raises:
            ModelError: nothing has been read since the last cut, or the model computed no numbers.
        """
        self._require_open()
        return self._logits_at(-1)

    def _logits_at(self, place: int) -> Logits:
        found = self._library.llama_get_logits_ith(self._context, place)
        if not found:
            raise ModelError(f"{self._path.name}: llama.cpp gave no logits; open the report again")
        logits = np.ctypeslib.as_array(found, shape=(self.vocabulary_size,)).copy()
        if not np.isfinite(logits.max()):
            raise ModelError(f"{self._path.name}: the model computed no finite number; try another quantization of it")
        return logits

    def cut(self, length: int) -> None:
        """Forget everything behind the first `length` tokens.

        Raises:
            ModelError: there are not that many, or the memory cannot be cut there.
        """
        self._require_open()
        if length > self.length:
            raise ModelError(f"{self._path.name}: the reading was lost after a failure; open the report again")
        if not self._library.llama_memory_seq_rm(self._memory, _SEQUENCE, length, -1):
            self.clear()
            raise ModelError(f"{self._path.name}: llama.cpp cannot forget a question; use another architecture")
        self.length = length

    def clear(self) -> None:
        """Forget everything."""
        self._require_open()
        self._library.llama_memory_clear(self._memory, False)
        self.length = 0


@dataclass(slots=True)
class _Owned:
    """What llama.cpp has allocated for a reader."""

    model: Any = None
    context: Any = None
    batch: Any = None


def _release(library: ModuleType, owned: _Owned) -> None:
    if owned.batch is not None:
        library.llama_batch_free(owned.batch)
    if owned.context:
        library.llama_free(owned.context)
    if owned.model:
        library.llama_model_free(owned.model)


def _reason(lines: Sequence[str]) -> str:
    return "; ".join(lines)[:300] or "it gives no reason"
