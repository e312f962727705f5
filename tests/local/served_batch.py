"""A model server that reads the small reports as they are meant, with and without probabilities."""

from __future__ import annotations

from contextlib import contextmanager

from local.engine.model_server import ANSWERS, allowed, model_server, text_of
from local.small_batch import PLAN, scripted_reading

from medorchestra.local.engine.scripted import ScriptedQuestion

SCORES = {"style": "vllm", "honours": ("structured_outputs",), "likeliest": 20, "context": 100_000}
"""Gives log-probabilities."""
CHOOSES = {"style": "ollama", "honours": ("response_format",), "likeliest": 0}
"""Can only choose."""
_A_LITTLE = {label: 0.02 for subtask in PLAN.subtasks for label in subtask.labels.values()} | {
    outcome.name.replace("_", " "): 0.02 for outcome in PLAN.outcomes
}
"""What it likes of everything it is offered: what a server leaves out counts for nothing."""


def thoughtful(body):
    """Text that is free is drawn: every seed writes its own."""
    return f"thought {body.get('seed')}"


def shown_to(server):
    """All that a server was sent, as text."""
    prompts = (body.get("prompt") for _, body, _ in server.requests)
    return str(server.requests) + "".join(text_of(prompt) for prompt in prompts if isinstance(prompt, list))


@contextmanager
def serving_reader(kind=SCORES, *, sees=lambda prompt: True, free_text=thoughtful, models=("reader-1",)):
    """The server; `url` is where.

    Args:
        kind: what it is and can do.
        sees: whether it sees that the artery is encased, for a prompt.
        free_text: what it writes for a request that nothing constrains.
    """
    with model_server(**kind, models=models) as server:
        constrained = server.written

        def liked(prompt):
            question = prompt.rsplit("<|im_start|>user\n", 1)[-1]
            if "Invented note" in prompt:
                return ANSWERS
            if "which of these outcomes" in question:
                spread = "Liver metastases" in prompt or "liver mets: yes" in prompt
                return _A_LITTLE | {"metastatic" if spread else "resectable": 0.9}
            if "SMA" in question and "encased" in prompt and not sees(prompt):
                return _A_LITTLE | {"abutment": 0.6, "encasement": 0.4}
            reply = scripted_reading(ScriptedQuestion(prompt, question, None, None))
            return _A_LITTLE | ({reply: 1.0} if isinstance(reply, str) else reply)

        def written(prompt, body):
            free = allowed(body, server.honours) is None
            return free_text(body) if free and "Invented note: the garden" not in prompt else constrained(prompt, body)

        server.liked, server.written = liked, written
        yield server
