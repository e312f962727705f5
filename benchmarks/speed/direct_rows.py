"""Rows (a) and (e) of `peers.py`: medorchestra, and the floor below which nobody can go.

The floor reads the unique tokens of a report once (the report, then every question, one behind the other) through
llama.cpp's own functions, as llama-bench does: nothing is answered, no logits are taken, and nothing but that is
computed. Same file, threads and batch as medorchestra.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from peer_row import Answers, OneByOne
from peer_task import FORMS, PeerTask, TaskReport, in_form

BATCH_TOKENS = 512


class Medorchestra(OneByOne):
    """(a): the executor of the library, asked for the twelve findings; compact questions with the adapter."""

    def __init__(self, task: PeerTask, *, form: str, fuse: bool = True) -> None:
        super().__init__(task)
        import medorchestra as mo
        from medorchestra.local.executor import Executor

        assert form in FORMS
        plan = in_form(mo.read_plan(task.topic), form)
        self._engine = mo.LlamaCppEngine(
            task.model,
            adapter=task.adapter if form == "compact" else None,
            context_tokens=task.context_tokens,
            threads=task.threads,
            fuse=fuse,
        )
        self._executor = Executor(plan, self._engine)
        self._subtasks = [subtask for subtask in plan.subtasks if subtask.finding in task.labels]

    @property
    def versions(self) -> dict[str, str]:
        """Of the library."""
        import medorchestra as mo

        return {"medorchestra": mo.__version__}

    def warm(self) -> None:
        """One question on the warm-up report."""
        self._read(self.task.warm_up, self._subtasks[:1])

    def read(self, report: TaskReport) -> tuple[Answers, int]:
        """All questions on a report."""
        return self._read(report, self._subtasks)

    def _read(self, report: TaskReport, subtasks: Sequence[Any]) -> tuple[Answers, int]:
        import medorchestra as mo
        from medorchestra.local.answers import AnswerStatus
        from medorchestra.rules import NOT_STATED

        before = self._engine.tokens_computed
        reading = self._executor.read(mo.Report(report.id, report.text), subtasks)
        answers: Answers = {}
        for answer in reading.answers:
            silent = answer.status is AnswerStatus.NOT_STATED
            value = NOT_STATED if silent else answer.value
            answers[str(answer.finding)] = value if isinstance(value, str) else None
        return answers, self._engine.tokens_computed - before

    def close(self) -> None:
        """Give back the memory."""
        self._engine.close()


class Floor(OneByOne):
    """(e): the unique tokens of a report, computed once and thrown away."""

    def __init__(self, task: PeerTask, *, form: str) -> None:
        super().__init__(task)
        import llama_cpp

        self._library = llama_cpp
        self._form = form
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            os.fsencode(task.fused if form == "compact" else task.model), llama_cpp.llama_model_default_params()
        )
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = task.context_tokens
        parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
        parameters.n_threads = parameters.n_threads_batch = task.threads
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._model or not self._context:
            raise RuntimeError("llama.cpp cannot load the model")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)

    def warm(self) -> None:
        """Compute the warm-up report."""
        self._compute(self.task.warm_up.tokens)

    def read(self, report: TaskReport) -> tuple[Answers, int]:
        """No answers; as many tokens as there are different ones."""
        tokens = [*report.tokens, *self.task.unique_question_tokens(self._form)]
        self._compute(tokens)
        return {}, len(tokens)

    def _compute(self, tokens: Sequence[int]) -> None:
        library, batch = self._library, self._batch
        library.llama_memory_clear(self._memory, False)
        for start in range(0, len(tokens), BATCH_TOKENS):
            chunk = tokens[start : start + BATCH_TOKENS]
            for place, token in enumerate(chunk):
                batch.token[place], batch.pos[place], batch.logits[place] = token, start + place, 0
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
            batch.logits[len(chunk) - 1] = start + len(chunk) == len(tokens)
            batch.n_tokens = len(chunk)
            if library.llama_decode(self._context, batch) != 0:
                raise RuntimeError(f"llama.cpp failed on {len(chunk)} tokens")
        library.llama_synchronize(self._context)

    def close(self) -> None:
        """Give back the memory."""
        self._library.llama_batch_free(self._batch)
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)
