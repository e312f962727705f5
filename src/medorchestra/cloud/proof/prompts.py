"""Every question renders in both prompt forms and stays small, and its labels can be told apart whatever the tokens.

Needs no cases; where the solved examples come from is checked in `proof_of_cases`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations
from typing import Literal

from medorchestra.cloud.proof.problems import Problem, ProblemKind, ProofSettings
from medorchestra.plan import Plan, Subtask

FORMS: tuple[Literal["instructed", "compact"], ...] = ("instructed", "compact")
_WORD = re.compile(r"[^\W_]+|[<>=≤≥]+")


def prove_prompts(plan: Plan, settings: ProofSettings) -> tuple[list[Problem], dict[str, int]]:
    """Every subtask in both forms with all its examples shown, and the head."""
    problems: list[Problem] = []
    longest = 0
    for form in FORMS:
        profile = plan.profile.model_copy(update={"prompt_form": form, "examples": 20})
        shown = plan.model_copy(update={"profile": profile})
        sizes = {"head": len(shown.head())}
        sizes |= {f"subtask {subtask.id}": len(shown.question(subtask)) for subtask in plan.subtasks}
        longest = max(longest, *sizes.values())
        for where, size in sizes.items():
            if size > settings.longest_question:
                message = f"{form} form renders to {size} characters; at most {settings.longest_question} are allowed"
                problems.append(Problem(ProblemKind.PROMPT, where, message))
            if size == 0:
                problems.append(Problem(ProblemKind.PROMPT, where, f"{form} form renders to nothing"))
    for subtask in plan.subtasks:
        problems += _labels_alike(subtask)
    return problems, {"questions rendered": len(FORMS) * len(plan.subtasks), "longest question, characters": longest}


def _labels_alike(subtask: Subtask) -> Iterator[Problem]:
    """Labels that are equal, or the beginning of another, word by word and without case and punctuation."""
    words = {value: _WORD.findall(label.casefold()) for value, label in subtask.labels.items()}
    for first, second in permutations(words, 2):
        where = f"subtask {subtask.id}"
        if words[first] == words[second]:
            if first < second:
                message = f"labels of {first} and {second} are the same but for case and punctuation"
                yield Problem(ProblemKind.LABEL, where, message)
        elif words[second][: len(words[first])] == words[first]:
            yield Problem(ProblemKind.LABEL, where, f"label of {first} is the beginning of the label of {second}")
