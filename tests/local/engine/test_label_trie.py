"""Probabilities of candidates, against the definition written out naively."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.local.engine.label_trie import Fork, candidate_probabilities, forks_towards

END = 0
Sequences = list[tuple[int, ...]]

sequences = st.lists(
    st.lists(st.integers(1, 4), min_size=1, max_size=5).map(lambda tokens: (*tokens, END)),
    min_size=1,
    max_size=12,
    unique=True,
)


def invented_logits(path: tuple[int, ...], tokens: Sequence[int]) -> list[float]:
    """Any model: logits that depend on everything read before."""
    return [4 * math.sin(17 * token + sum(place * read for place, read in enumerate(path, 3))) for token in tokens]


def by_definition(candidates: Sequences, candidate: tuple[int, ...]) -> float:
    probability = 1.0
    for length, token in enumerate(candidate):
        path = candidate[:length]
        possible = sorted({other[length] for other in candidates if other[:length] == path})
        weights = dict(zip(possible, map(math.exp, invented_logits(path, possible)), strict=True))
        probability *= weights[token] / sum(weights.values())
    return probability


@given(sequences)
def test_probabilities_are_those_of_writing_nothing_but_a_candidate(candidates: Sequences) -> None:
    found = candidate_probabilities(candidates, invented_logits)
    assert found == pytest.approx([by_definition(candidates, candidate) for candidate in candidates], abs=1e-12)
    assert math.fsum(found) == pytest.approx(1.0, abs=1e-12)


@given(sequences, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_changes_no_bit(candidates: Sequences, random: object) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    found = dict(zip(candidates, candidate_probabilities(candidates, invented_logits), strict=True))
    again = dict(zip(shuffled, candidate_probabilities(shuffled, invented_logits), strict=True))
    assert found == again


def test_the_model_is_asked_only_where_candidates_part() -> None:
    asked: list[tuple[tuple[int, ...], list[int]]] = []

    def logits_at(path: tuple[int, ...], tokens: Sequence[int]) -> list[float]:
        asked.append((path, list(tokens)))
        return [0.0] * len(tokens)

    found = candidate_probabilities([(7, 1, 2, END), (7, 1, 3, 5, END), (7, 1, 3, END)], logits_at)
    assert asked == [((7, 1), [2, 3]), ((7, 1, 3), [END, 5])]
    assert found == pytest.approx([0.5, 0.25, 0.25])


def test_a_single_candidate_is_certain_and_costs_nothing() -> None:
    def never(path: tuple[int, ...], tokens: Sequence[int]) -> list[float]:
        raise AssertionError("asked")

    assert candidate_probabilities([(5, END)], never) == [1.0]


def test_logits_far_apart_do_not_overflow() -> None:
    assert candidate_probabilities([(1, END), (2, END)], lambda path, tokens: [900.0, -900.0]) == [1.0, 0.0]


@pytest.mark.parametrize("candidates", [[], [(1, END), (1, END)], [(1,), (1, 2)]])
def test_candidates_that_cannot_be_told_apart_are_refused(candidates: Sequences) -> None:
    with pytest.raises(ValueError, match="candidate"):
        candidate_probabilities(candidates, invented_logits)


# --------------------------------------------------------------------- the choices towards one of them


@given(sequences, st.data())
def test_the_choices_towards_a_candidate_multiply_to_its_probability(
    candidates: Sequences, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(candidates) - 1))
    probability = 1.0
    for fork in forks_towards(candidates, index):
        weights = [math.exp(one) for one in invented_logits(candidates[index][: fork.written], fork.possible)]
        probability *= weights[fork.taken] / math.fsum(weights)
    assert probability == pytest.approx(candidate_probabilities(candidates, invented_logits)[index], abs=1e-12)


@given(sequences, st.data())
def test_every_choice_is_a_real_one_and_takes_the_candidates_own_token(
    candidates: Sequences, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(candidates) - 1))
    forks = forks_towards(candidates, index)
    own = candidates[index]
    assert all(len(fork.possible) > 1 and fork.possible[fork.taken] == own[fork.written] for fork in forks)
    assert all(list(fork.possible) == sorted(set(fork.possible)) for fork in forks)
    assert [fork.written for fork in forks] == sorted({fork.written for fork in forks})


@given(sequences, st.data(), st.randoms(use_true_random=False))
def test_the_order_of_the_other_candidates_changes_no_choice(
    candidates: Sequences, data: st.DataObject, random: object
) -> None:
    own = data.draw(st.sampled_from(candidates))
    shuffled = list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert forks_towards(candidates, candidates.index(own)) == forks_towards(shuffled, shuffled.index(own))


def test_choices_stand_only_where_candidates_part() -> None:
    candidates = [(7, 1, 2, END), (7, 1, 3, 5, END), (7, 1, 3, END)]
    parting = Fork(2, (2, 3), 1)
    assert forks_towards(candidates, 0) == (Fork(2, (2, 3), 0),)
    assert forks_towards(candidates, 1) == (parting, Fork(3, (END, 5), 1))
    assert forks_towards(candidates, 2) == (parting, Fork(3, (END, 5), 0))


def test_there_is_nothing_to_choose_with_a_single_candidate() -> None:
    assert forks_towards([(7, 1, END)], 0) == ()


@pytest.mark.parametrize(
    "candidates",
    [[], [(1, END), (1, END)], [(1, 2), (1,)], [(1,), (1, 2)], [(1, 2), (3, END), (1, 2, 4)]],
    ids=["none", "the same", "its beginning", "its continuation", "its continuation, later"],
)
def test_choices_towards_a_candidate_that_cannot_be_told_apart_are_refused(candidates: Sequences) -> None:
    with pytest.raises(ValueError, match="candidates"):
        forks_towards(candidates, 0)
