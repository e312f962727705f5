"""Rows (b) and (c) of `peers.py`: chat completions under a JSON schema with llama-cpp-python's `Llama`.

What they copy, as read in the sources on 2026-11-25:

- LLMAIx (github.com/KatherLab/LLMAIx, webapp/llm_processing/routes.py): for every report, for every variable wanted,
  one request with the report and the variable in its prompt and a grammar or JSON schema beside it: row (b). Its
  completion mode lets the server keep the prompt (`cache_prompt`): row (b_reuse), and with a server row (d).
- llm_extractinator 0.7.1 (PyPI): one chat for a report, all fields of a task described in the system message, the
  report as the user's, the task's JSON schema as the output format: row (c). It works as row (b) where each finding
  is a task of its own.
- llmaix (github.com/KatherLab/llmaixlib, extract.py): one chat for a report with one JSON schema: row (c).

The requests of (b) hold exactly what medorchestra's prompts hold, in the same order. Answers are short JSON objects
with a single key, which is to the peers' advantage. No request samples: temperature 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from peer_row import Answers, OneByOne, all_answers_schema, answer_schema, read_answer, read_json
from peer_task import PeerTask, TaskReport, value_of

ANSWER_TOKENS = 48
"""Most tokens of one answer in JSON; the longest label takes less than half of it."""
ALL_ANSWERS_TOKENS = 512


class TokenCount:
    """Counts the tokens that any `Llama` of this process computes, prompt and answers alike."""

    def __init__(self) -> None:
        import llama_cpp

        self.computed = 0
        evaluate: Callable[..., Any] = llama_cpp.Llama.eval

        def counted(llama: Any, tokens: Any) -> Any:
            self.computed += len(tokens)
            return evaluate(llama, tokens)

        llama_cpp.Llama.eval = counted

    @contextmanager
    def during(self) -> Iterator[list[int]]:
        """A list that holds, afterwards, how many were computed meanwhile."""
        before, found = self.computed, [0]
        yield found
        found[0] = self.computed - before


class _Chat(OneByOne):
    """A model behind `Llama.create_chat_completion`."""

    def __init__(self, task: PeerTask, *, model: str) -> None:
        super().__init__(task)
        import llama_cpp

        self.count = TokenCount()
        self.llama = llama_cpp.Llama(
            model_path=model,
            n_ctx=task.context_tokens,
            n_batch=512,
            n_ubatch=512,
            n_threads=task.threads,
            n_threads_batch=task.threads,
            flash_attn=True,  # what llama.cpp chooses by itself, and so medorchestra's setting
            verbose=False,
        )

    @property
    def versions(self) -> dict[str, str]:
        """Of the library."""
        import llama_cpp

        return {"llama-cpp-python": llama_cpp.__version__}

    def ask(self, messages: list[dict[str, str]], schema: dict[str, Any], most: int) -> str | None:
        """What the model writes."""
        response: Any = self.llama.create_chat_completion(
            messages=messages,  # type: ignore[arg-type]
            response_format={"type": "json_object", "schema": schema},
            temperature=0.0,
            max_tokens=most,
        )
        content: str | None = response["choices"][0]["message"]["content"]
        return content

    def close(self) -> None:
        """Give back the memory."""
        self.llama.close()


class OnePerFinding(_Chat):
    """(b): one chat completion for each finding; `reuse` leaves the library what it has read of the last request."""

    def __init__(self, task: PeerTask, *, form: str, reuse: bool = False) -> None:
        super().__init__(task, model=task.fused if form == "compact" else task.model)
        self._form = form
        self._reuse = reuse

    def warm(self) -> None:
        """One question on the warm-up report."""
        self._ask(self.task.warm_up, self.task.findings[0])

    def read(self, report: TaskReport) -> tuple[Answers, int]:
        """All questions on a report."""
        with self.count.during() as tokens:
            answers: Answers = {finding: self._ask(report, finding) for finding in self.task.findings}
        return answers, tokens[0]

    def _ask(self, report: TaskReport, finding: str) -> str | None:
        if not self._reuse:
            self.llama.reset()  # else the library would go on behind what both prompts begin with
        messages = [
            {"role": "user", "content": f"{self.task.heads[self._form]}\n\n{report.text}"},
            {"role": "assistant", "content": self.task.acknowledgement},
            {"role": "user", "content": self.task.questions[self._form][finding]},
        ]
        labels = self.task.labels[finding]
        return read_answer(self.ask(messages, answer_schema(labels), ANSWER_TOKENS), labels)


class OneForAll(_Chat):
    """(c): one chat completion with all findings in one JSON schema, as the model comes."""

    def __init__(self, task: PeerTask) -> None:
        super().__init__(task, model=task.model)
        fields = [
            f"- {finding} (one of: {'; '.join(labels.values())}): {task.descriptions[finding]}"
            for finding, labels in task.labels.items()
        ]
        self._instructions = "\n".join(
            [
                "Fill in these fields from the medical report that follows. Use only what the report says.",
                *fields,
                "Answer in JSON.",
            ]
        )

    def warm(self) -> None:
        """The warm-up report; leaves the instructions in memory, as any report before would."""
        self.read(self.task.warm_up)

    def read(self, report: TaskReport) -> tuple[Answers, int]:
        """All findings of a report at once."""
        messages = [
            {"role": "system", "content": self._instructions},
            {"role": "user", "content": report.text},
        ]
        with self.count.during() as tokens:
            written = read_json(self.ask(messages, all_answers_schema(self.task.labels), ALL_ANSWERS_TOKENS))
        answers: Answers = {
            finding: value_of(written.get(finding), labels) for finding, labels in self.task.labels.items()
        }
        return answers, tokens[0]
