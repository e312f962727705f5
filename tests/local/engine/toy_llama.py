"""A stand-in for the module `llama_cpp`: its memory and its batches, and a model that is a function of what it sees.

Keeps llama.cpp's rules as ENGINE.md has them measured: a token sees the cells of its first sequence that do not stand
behind it; a sequence that was never forked is computed without the report and without complaint; a batch that is out
of order or too large for the memory comes back with a code. Every logit depends on every token seen and on its order,
so that nothing can be lost, doubled or swapped unnoticed. Exact: together or alone, the numbers are the same bits.
"""

from __future__ import annotations

import ctypes
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np

END_OF_TURN = 256
VOCABULARY = 257
_MOST_OUTPUTS_CODE = -3


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


class ToyLlama:
    """What `LlamaReader` calls of the module `llama_cpp`; bytes are tokens, and 256 ends a turn.

    Attributes:
        cells: (position, token, sequences) of all that is in memory.
        batches: tokens of every batch that was computed.
    """

    llama_token = ctypes.c_int32
    __version__ = "toy"

    def __init__(self) -> None:
        self.cells: list[tuple[int, int, set[int]]] = []
        self.batches: list[int] = []
        self._settings: Any = None
        self._logits: dict[int, Any] = {}
        self._kept: list[Any] = []

    def sequences(self) -> set[int]:
        """Those of which anything is in memory."""
        return {sequence for _, _, held in self.cells for sequence in held}

    # ---------------------------------------------------------- model and vocabulary

    def llama_model_default_params(self) -> Any:
        return SimpleNamespace()

    llama_context_default_params = llama_model_default_params

    def llama_model_load_from_file(self, path: bytes, parameters: Any) -> str:
        return "model"

    def _no(self, *_: Any) -> bool:
        return False

    llama_model_is_recurrent = llama_model_is_hybrid = llama_model_is_diffusion = llama_model_has_encoder = _no
    llama_supports_gpu_offload = llama_vocab_get_add_bos = _no

    def llama_init_from_model(self, model: str, parameters: Any) -> str:
        self._settings = parameters
        return "context"

    def llama_n_ctx(self, context: str) -> int:
        return int(self._settings.n_ctx)

    def llama_n_batch(self, context: str) -> int:
        return int(self._settings.n_batch)

    def llama_model_get_vocab(self, model: str) -> str:
        return "vocabulary"

    def llama_vocab_n_tokens(self, vocabulary: str) -> int:
        return VOCABULARY

    def llama_vocab_eos(self, vocabulary: str) -> int:
        return END_OF_TURN

    def llama_vocab_is_eog(self, vocabulary: str, token: int) -> bool:
        return token == END_OF_TURN

    def llama_tokenize(self, vocabulary: str, text: bytes, size: int, found: Any, room: int, *_: bool) -> int:
        found[:size] = list(text)
        return size

    def llama_token_to_piece(self, vocabulary: str, token: int, found: Any, *_: Any) -> int:
        piece = b"" if token == END_OF_TURN else bytes([token])
        found[: len(piece)] = piece
        return len(piece)

    def _nothing(self, *_: Any) -> None:
        return None

    llama_batch_free = llama_free = llama_model_free = _nothing

    # ------------------------------------------------------------------------ memory

    def llama_get_memory(self, context: str) -> str:
        return "memory"

    def llama_memory_clear(self, memory: str, data: bool) -> None:
        self.cells.clear()

    def _positions(self, sequence: int) -> list[int]:
        return [position for position, _, held in self.cells if sequence in held]

    def llama_memory_seq_pos_min(self, memory: str, sequence: int) -> int:
        return min(self._positions(sequence), default=-1)

    def llama_memory_seq_pos_max(self, memory: str, sequence: int) -> int:
        return max(self._positions(sequence), default=-1)

    def llama_memory_seq_cp(self, memory: str, source: int, target: int, start: int, end: int) -> None:
        for _, _, held in self.cells:
            if source in held:
                held.add(target)

    def llama_memory_seq_rm(self, memory: str, sequence: int, start: int, end: int) -> bool:
        for position, _, held in self.cells:
            if position >= start:
                held.discard(sequence)
        self.cells = [cell for cell in self.cells if cell[2]]
        return True

    # --------------------------------------------------------------------- computing

    def llama_batch_init(self, tokens: int, embeddings: int, sequences: int) -> _Batch:
        ids = [(ctypes.c_int32 * sequences)() for _ in range(tokens)]
        pointers = (ctypes.POINTER(ctypes.c_int32) * tokens)(
            *(ctypes.cast(one, ctypes.POINTER(ctypes.c_int32)) for one in ids)
        )
        numbers = [(ctypes.c_int32 * tokens)() for _ in range(3)]
        wanted = (ctypes.c_int8 * tokens)()
        self._kept += [ids, pointers, numbers, wanted]
        token, position, counts = (ctypes.cast(one, ctypes.POINTER(ctypes.c_int32)) for one in numbers)
        return _Batch(0, token, position, counts, pointers, ctypes.cast(wanted, ctypes.POINTER(ctypes.c_int8)))

    def llama_decode(self, context: str, batch: _Batch) -> int:
        count = batch.n_tokens
        if not 0 < count <= self._settings.n_batch:
            return -1
        if len(self.cells) + count > self._settings.n_ctx:
            return 1
        if sum(batch.logits[place] for place in range(count)) > self._settings.n_outputs_max:
            return _MOST_OUTPUTS_CODE
        added = []
        for place in range(count):
            held = {batch.seq_id[place][i] for i in range(batch.n_seq_id[place])}
            added.append((batch.pos[place], batch.token[place], held))
        if not self._is_consecutive(added):
            return -1
        self.cells += added
        self.batches.append(count)
        self._logits.clear()
        for place, (position, _, _) in enumerate(added):
            if batch.logits[place]:
                self._logits[place] = self._computed(batch.seq_id[place][0], position)
        self._logits[-1] = self._logits[max(self._logits)] if self._logits else None
        return 0

    def _is_consecutive(self, added: list[tuple[int, int, set[int]]]) -> bool:
        """Whether every sequence goes on where it ends in memory, token by token."""
        last = {sequence: max(self._positions(sequence), default=-1) for _, _, held in added for sequence in held}
        for position, _, held in added:
            if not held or not all(0 <= one < self._settings.n_seq_max for one in held):
                return False
            if any(last[sequence] not in (position - 1, -1) for sequence in held):
                return False
            last.update(dict.fromkeys(held, position))
        return True

    def _computed(self, sequence: int, position: int) -> Any:
        seen = sorted((at, token) for at, token, held in self.cells if sequence in held and at <= position)
        random = np.random.default_rng(zlib.crc32(repr(seen).encode()))
        return (3 * random.normal(size=VOCABULARY)).astype(np.float32)

    def llama_get_logits_ith(self, context: str, place: int) -> Any:
        found = self._logits.get(place)
        return None if found is None else found.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
