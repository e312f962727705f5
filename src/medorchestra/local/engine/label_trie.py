"""Walks the tree of candidate answers, token by token, and gives every candidate its probability.

Knows token numbers only; whoever asks a model sits behind a callable. Every sequence ends with an end-of-turn token,
so that no candidate is the beginning of another ('no', 'not stated'), and a model that writes 'no' must stop there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LogitsAt = Callable[[tuple[int, ...], Sequence[int]], Sequence[float]]
"""(tokens of the answer so far, possible next tokens) -> their logits. Called depth first."""


def candidate_probabilities(sequences: Sequence[tuple[int, ...]], logits_at: LogitsAt) -> list[float]:
    """Probability of each token sequence if nothing else may be written.

    Where sequences part, the probabilities of the branches are renormalised; tokens on which all agree are certain
    and need no logits.

    Returns:
        probabilities in the order of the sequences, summing to one.

    Raises:
        ValueError: no sequence, two that are the same, or one that is the beginning of another.
    """
    if not sequences:
        raise ValueError("no candidates")
    logarithms = [0.0] * len(sequences)
    _descend(sequences, list(range(len(sequences))), 0, logits_at, logarithms)
    probabilities = [math.exp(logarithm) for logarithm in logarithms]
    total = math.fsum(probabilities)
    return [probability / total for probability in probabilities]


@dataclass(frozen=True, slots=True)
class Fork:
    """A place at which a model that writes one of the sequences has to choose.

    Attributes:
        written: tokens of the sequence before it.
        possible: next tokens of all sequences that agree up to here, ascending.
        taken: which of them is the sequence's own, as an index.
    """

    written: int
    possible: tuple[int, ...]
    taken: int


def forks_towards(sequences: Sequence[tuple[int, ...]], index: int) -> tuple[Fork, ...]:
    """The choices that lead to one of the sequences, in order.

    The product of the probabilities of these choices, each among its possible tokens alone, is what
    `candidate_probabilities` gives the sequence: so a model is trained on exactly what it is asked.

    Raises:
        ValueError: no sequence, or one that is the same as the wanted one, its beginning or its continuation.
    """
    if not sequences:
        raise ValueError("no candidates")
    own, forks = sequences[index], []
    members, shared = list(range(len(sequences))), 0
    while len(members) > 1:
        if any(len(sequences[member]) <= shared for member in members):
            raise ValueError(f"of candidates {members}, one is the beginning of another, or they are the same")
        possible = sorted({sequences[member][shared] for member in members})
        if len(possible) > 1:
            forks.append(Fork(shared, tuple(possible), possible.index(own[shared])))
        members = [member for member in members if sequences[member][shared] == own[shared]]
        shared += 1
    return tuple(forks)


def forks_in(sequences: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """All places at which a model that writes one of the sequences has to choose: the tokens before each.

    Raises:
        ValueError: no sequence, two that are the same, or one that is the beginning of another.
    """
    found: dict[tuple[int, ...], None] = {}

    def note(before: tuple[int, ...], possible: Sequence[int]) -> Sequence[float]:
        found[before] = None
        return [0.0] * len(possible)

    candidate_probabilities(sequences, note)
    return tuple(found)


def _descend(
    sequences: Sequence[tuple[int, ...]],
    members: list[int],
    shared: int,
    logits_at: LogitsAt,
    logarithms: list[float],
) -> None:
    """Share out the probability that `members`, which agree on `shared` tokens, have together."""
    if len(members) == 1:
        return
    first = sequences[members[0]]
    while len({sequences[member][shared : shared + 1] for member in members}) == 1:
        if shared >= len(first):
            raise ValueError(f"candidates {members} are the same to the model")
        shared += 1
    branches: dict[int, list[int]] = {}
    for member in members:
        if len(sequences[member]) <= shared:
            raise ValueError(f"candidate {member} is the beginning of another")
        branches.setdefault(sequences[member][shared], []).append(member)
    tokens = sorted(branches)  # the order of the candidates must not matter
    logits = logits_at(first[:shared], tokens)
    highest = max(logits)
    norm = highest + math.log(math.fsum(math.exp(logit - highest) for logit in logits))
    for token, logit in zip(tokens, logits, strict=True):
        for member in branches[token]:
            logarithms[member] += logit - norm
        _descend(sequences, branches[token], shared + 1, logits_at, logarithms)
