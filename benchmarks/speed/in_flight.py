"""A llama.cpp context that holds several reports at once, for `reports_in_flight.py`.

The library reads one report at a time. Here each report is a sequence of its own, and one batch may hold tokens of
several of them: some of their text, or branches with questions on it. Knows tokens; knows no prompts and no answers,
and measures nothing.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medorchestra.local.engine.llama_reader import Logits
from medorchestra.local.engine.question_tree import QuestionTree

HEAD = 0
"""Sequence with what stands before every report; the reports are the sequences 1, 2 …, their branches follow."""

MOST_SEQUENCES = 256
"""More are refused by llama.cpp."""


@dataclass(frozen=True)
class FlightSettings:
    """How a context is made.

    Attributes:
        model, adapter: paths.
        threads: processor threads.
        batch_tokens: tokens in a batch, at most.
        context_tokens: tokens in memory, of all sequences together.
        sequences: at most; HEAD is one of them.
        unified: one memory for all sequences; else it is divided among them, each with its own part.
    """

    model: str
    adapter: str | None
    threads: int
    batch_tokens: int
    context_tokens: int
    sequences: int
    unified: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """A token in a batch.

    Attributes:
        token, position: in its sequences.
        sequences: to which it belongs.
        wanted: under which name the logits behind it are handed out; None: they are not computed.
    """

    token: int
    position: int
    sequences: tuple[int, ...]
    wanted: object = None


@dataclass(slots=True)
class Branches:
    """Questions on one report, as places; needs its sequences until all of them are computed.

    Attributes:
        report: its sequence.
        sequences: of the branches.
        places: parents before what follows them.
    """

    report: int
    sequences: range
    places: list[Place] = field(default_factory=list)


def report_places(sequence: int, start: int, tokens: Sequence[int]) -> list[Place]:
    """A report behind the head; the logits behind its last token are wanted under its sequence."""
    last = len(tokens) - 1
    return [
        Place(token, start + place, (sequence,), sequence if place == last else None)
        for place, token in enumerate(tokens)
    ]


def branches_of(tree: QuestionTree, report: int, length: int, first: int) -> Branches:
    """A tree of questions behind a report; logits are wanted under (report, path).

    Args:
        tree: the questions.
        report: the report's sequence.
        length: tokens before the questions.
        first: number of the first sequence that is free.
    """
    leaves = tree.leaves()
    through: list[list[int]] = [[] for _ in tree.tokens]
    for sequence, leaf in enumerate(leaves, start=first):
        node = leaf
        while node >= 0:
            through[node].append(sequence)
            node = tree.parents[node]
    looks = {node: (report, path) for path, node in tree.looks.items()}
    found = Branches(report, range(first, first + len(leaves)))
    positions: list[int] = []
    for node, (token, parent) in enumerate(zip(tree.tokens, tree.parents, strict=True)):
        positions.append(length if parent < 0 else positions[parent] + 1)
        found.places.append(Place(token, positions[node], tuple(through[node]), looks.get(node)))
    return found


def groups(needed: Sequence[int], room: int) -> Iterator[range]:
    """Which of several things in order go together, if each needs so much of the room.

    Raises:
        ValueError: one needs more than all the room.
    """
    start = taken = 0
    for number, one in enumerate(needed):
        if one > room:
            raise ValueError(f"number {number} needs {one} of {room}")
        if taken + one > room:
            yield range(start, number)
            start, taken = number, 0
        taken += one
    if start < len(needed):
        yield range(start, len(needed))


class Flight:
    """A model with memory for several reports.

    Attributes:
        library: llama.cpp.
        tokens_computed: so far.
        batches: computed so far.
    """

    def __init__(self, settings: FlightSettings) -> None:
        """Load the model.

        Raises:
            RuntimeError: llama.cpp cannot.
        """
        from medorchestra.local.engine.llama_library import load_library

        library = self.library = load_library()
        self.settings, self.tokens_computed, self.batches, self.head = settings, 0, 0, 0
        self._model = library.llama_model_load_from_file(
            os.fsencode(settings.model), library.llama_model_default_params()
        )
        self._context = library.llama_init_from_model(self._model, self._parameters()) if self._model else None
        if not self._context:
            raise RuntimeError(f"llama.cpp makes no context of {settings.context_tokens} tokens")
        if settings.adapter is not None:
            adapter = library.llama_adapter_lora_init(self._model, os.fsencode(settings.adapter))
            adapters = (library.llama_adapter_lora_p_ctypes * 1)(adapter)
            if not adapter or library.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0)):
                raise RuntimeError("llama.cpp cannot apply the adapter")
        self._memory = library.llama_get_memory(self._context)
        self._vocabulary = int(library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model)))
        self._batch = library.llama_batch_init(settings.batch_tokens, 0, settings.sequences)

    def _parameters(self) -> Any:
        library, settings = self.library, self.settings
        parameters = library.llama_context_default_params()
        parameters.n_ctx = settings.context_tokens
        parameters.n_batch = parameters.n_ubatch = settings.batch_tokens
        parameters.n_seq_max = settings.sequences
        parameters.kv_unified = settings.unified
        parameters.n_outputs_max = max(settings.sequences, min(MOST_SEQUENCES, settings.batch_tokens))
        parameters.n_threads = parameters.n_threads_batch = settings.threads
        parameters.offload_kqv = parameters.op_offload = False
        return parameters

    def read_head(self, tokens: Sequence[int]) -> None:
        """Forget everything and read what stands before every report."""
        self.library.llama_memory_clear(self._memory, False)
        self.head = len(tokens)
        self.compute([Place(token, place, (HEAD,)) for place, token in enumerate(tokens)])

    def forget_reports(self) -> None:
        """Forget everything but the head."""
        for sequence in range(1, self.settings.sequences):
            self.library.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def fork(self, source: int, targets: Iterable[int], length: int) -> None:
        """Let sequences begin with what another holds.

        Raises:
            RuntimeError: they do not: they would be read without it, silently.
        """
        library, memory = self.library, self._memory
        for target in targets:
            library.llama_memory_seq_cp(memory, source, target, -1, -1)
            if library.llama_memory_seq_pos_max(memory, target) != length - 1:
                raise RuntimeError(f"sequence {target} does not hold the {length} tokens of sequence {source}")

    def forget(self, sequences: Iterable[int]) -> None:
        """Forget what only these sequences hold."""
        for sequence in sequences:
            self.library.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def compute(self, places: Sequence[Place]) -> dict[object, Logits]:
        """Compute places, in batches as full as can be; the wanted logits, by their names.

        Raises:
            RuntimeError: llama.cpp failed.
        """
        found: dict[object, Logits] = {}
        for start in range(0, len(places), self.settings.batch_tokens):
            found |= self._compute(places[start : start + self.settings.batch_tokens])
        self.library.llama_synchronize(self._context)
        return found

    def _compute(self, places: Sequence[Place]) -> dict[object, Logits]:
        batch = self._batch
        for number, place in enumerate(places):
            batch.token[number], batch.pos[number] = place.token, place.position
            batch.logits[number] = place.wanted is not None
            batch.n_seq_id[number] = len(place.sequences)
            for one, sequence in enumerate(place.sequences):
                batch.seq_id[number][one] = sequence
        batch.n_tokens = len(places)
        if self.library.llama_decode(self._context, batch) != 0:
            raise RuntimeError(f"llama.cpp failed on {len(places)} tokens")
        self.tokens_computed += len(places)
        self.batches += 1
        return {place.wanted: self._logits(number) for number, place in enumerate(places) if place.wanted is not None}

    def _logits(self, place: int) -> Logits:
        found = self.library.llama_get_logits_ith(self._context, place)
        if not found:
            raise RuntimeError("llama.cpp gave no logits")
        return np.ctypeslib.as_array(found, shape=(self._vocabulary,)).copy()

    def close(self) -> None:
        """Give back the memory."""
        self.library.llama_batch_free(self._batch)
        self.library.llama_free(self._context)
        self.library.llama_model_free(self._model)
