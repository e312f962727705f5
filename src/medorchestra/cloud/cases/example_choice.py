"""Solved examples for prompts, out of synthetic development cases: one sentence and its value. Asks nothing.

Chosen are sentences that stand for their finding alone in their report, so that the value is likely to be theirs;
values are balanced. Number findings get none: their answers are measurements of the report at hand, not labels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

from medorchestra.cloud.proof.cases import LONG_EXAMPLE
from medorchestra.plan import Example, Plan, Subtask
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import SyntheticCase

EXAMPLES_FOR_A_FINDING = 6
_SHORTEST, _LONGEST = 15, 300
"""Characters of a sentence that can serve as an example."""
_MOST_MENTIONS = 2
"""Sentences of one report that may bear on a finding for one of them to be its example."""
_TELLING_TERMS = 6
"""Focus terms, of the first, one of which an example must have."""

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+(?=[A-ZÀ-ÖØ-Þ])")


def choose_examples(plan: Plan, cases: Sequence[SyntheticCase]) -> Plan:
    """The plan with solved examples for its closed findings, the values in turn, verbatim from the cases.

    Args:
        plan: its focus terms find the sentences; examples it had are replaced.
        cases: of the development split.

    Raises:
        ValueError: a case is of another split.
    """
    foreign = [case.id for case in cases if case.split != "development"]
    if foreign:
        raise ValueError(f"{len(foreign)} cases are not of the development split, first: {foreign[0]}")
    subtasks = [
        subtask.model_copy(update={"examples": tuple(_examples(subtask, cases))})
        if subtask.answer == "choice"
        else subtask
        for subtask in plan.subtasks
    ]
    return Plan.model_validate(plan.model_dump(by_alias=True) | {"subtasks": subtasks})


def without_leaks(plan: Plan, cases: Sequence[SyntheticCase]) -> Plan:
    """The plan without examples of some length that stand word for word in a case of another split, too.

    Stock sentences do: shown in a prompt, they would make those cases easier than reports that nobody has seen.
    """
    elsewhere = [" ".join(case.text.split()) for case in cases if case.split != "development"]

    def leaks(example: Example) -> bool:
        words = example.text.split()
        return len(words) >= LONG_EXAMPLE and any(" ".join(words) in text for text in elsewhere)

    subtasks = [
        subtask.model_copy(update={"examples": tuple(one for one in subtask.examples if not leaks(one))})
        for subtask in plan.subtasks
    ]
    return Plan.model_validate(plan.model_dump(by_alias=True) | {"subtasks": subtasks})


def _examples(subtask: Subtask, cases: Sequence[SyntheticCase]) -> list[Example]:
    """The best candidates of every value, value after value, each from another case."""
    by_value: dict[str, list[tuple[tuple[int, int, int], str, str]]] = defaultdict(list)
    for case in cases:
        value = case.known().get(subtask.finding or "", NOT_STATED)
        best = min(_candidates(subtask, case), default=None)
        if best is not None and isinstance(value, str):
            by_value[value].append((best[0], case.id, best[1]))
    queues = [sorted(by_value[value]) for value in subtask.labels if value in by_value]
    chosen: list[Example] = []
    seen: set[str] = set()
    values = [value for value in subtask.labels if value in by_value]
    while any(queues) and len(chosen) < EXAMPLES_FOR_A_FINDING:
        for value, queue in zip(values, queues, strict=True):
            while queue:
                _, case_id, text = queue.pop(0)
                if text.casefold() not in seen:
                    seen.add(text.casefold())
                    chosen.append(Example(case=case_id, text=text, value=value))
                    break
    return chosen[:EXAMPLES_FOR_A_FINDING]


def _candidates(subtask: Subtask, case: SyntheticCase) -> Iterable[tuple[tuple[int, int, int], str]]:
    """Sentences that bear on the finding, with how well they stand for it: smaller is better."""
    found = []
    for sentence in _sentences(case.text):
        rank = next((i for i, term in enumerate(subtask.focus_terms) if _pattern(term).search(sentence)), None)
        if rank is not None:
            found.append((rank, sentence))
    if len(found) > _MOST_MENTIONS:
        return []
    return [
        ((len(found), rank, len(sentence)), sentence)
        for rank, sentence in found
        if rank < _TELLING_TERMS and _SHORTEST <= len(sentence) <= _LONGEST
    ]


def _sentences(text: str) -> list[str]:
    pieces = (piece.strip() for line in text.splitlines() for piece in _SENTENCE_END.split(line))
    return [piece for piece in pieces if piece]


@lru_cache(maxsize=4096)
def _pattern(term: str) -> re.Pattern[str]:
    """A focus term as a whole word; a trailing * lets the word go on."""
    body, tail = (term[:-1], "") if term.endswith("*") else (term, r"(?!\w)")
    words = r"\s+".join(re.escape(word) for word in body.split())
    return re.compile(rf"(?<!\w){words}{tail}", re.IGNORECASE)
