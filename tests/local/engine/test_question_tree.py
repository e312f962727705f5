"""The tree of tokens of many questions, against the set of all their beginnings, counted naively."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medorchestra.local.engine.label_trie import candidate_probabilities, forks_in, forks_towards
from medorchestra.local.engine.question_tree import (
    Path,
    QuestionTree,
    TokenQuestion,
    TreeLimits,
    question_trees,
)

END = 0
ROOMY = TreeLimits(tokens=10_000, leaves=1_000, looks=1_000)

answers = st.lists(
    st.lists(st.integers(1, 3), min_size=1, max_size=4).map(lambda tokens: (*tokens, END)),
    min_size=1,
    max_size=6,
    unique=True,
)
# Few different tokens, so that questions often begin alike, end within each other, or are the same.
asked = st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple)
questions = st.builds(TokenQuestion, asked, answers.map(tuple))
limits = st.builds(TreeLimits, tokens=st.integers(0, 40), leaves=st.integers(0, 8), looks=st.integers(0, 8))


def beginnings(paths: Sequence[Path]) -> set[Path]:
    """All that any of the paths begins with, itself included: one for each token that has to be computed."""
    return {path[:length] for path in paths for length in range(1, len(path) + 1)}


def fits(together: Sequence[TokenQuestion], limits: TreeLimits) -> bool:
    """Whether questions may be computed together; every end of the tree is a look, so looks keep both limits."""
    paths = [path for question in together for path in question.paths]
    return len(beginnings(paths)) <= limits.tokens and len(set(paths)) <= min(limits.leaves, limits.looks)


def way_to(tree: QuestionTree, node: int) -> Path:
    """Tokens from the report to a node, found by going back."""
    back: list[int] = []
    while node >= 0:
        back.append(tree.tokens[node])
        node = tree.parents[node]
    return tuple(reversed(back))


def paths_of(tree: QuestionTree, all_questions: Sequence[TokenQuestion]) -> list[Path]:
    return [path for number in tree.questions for path in all_questions[number].paths]


# ------------------------------------------------------------------ where a model has to choose


def forks_by_definition(sequences: Sequence[Path]) -> set[Path]:
    found = set()
    for before in {sequence[:length] for sequence in sequences for length in range(len(sequence))}:
        if len({sequence[len(before)] for sequence in sequences if sequence[: len(before)] == before}) > 1:
            found.add(before)
    return found


@given(answers)
def test_forks_are_the_places_where_answers_go_on_differently_each_once(sequences: list[Path]) -> None:
    found = forks_in(sequences)
    assert set(found) == forks_by_definition(sequences)
    assert len(set(found)) == len(found) <= max(0, len(sequences) - 1)


@given(answers)
def test_forks_are_those_that_lead_to_any_of_the_answers(sequences: list[Path]) -> None:
    towards = {sequence[: fork.written] for i, sequence in enumerate(sequences) for fork in forks_towards(sequences, i)}
    assert set(forks_in(sequences)) == towards


@given(answers)
def test_forks_are_all_that_the_probabilities_need(sequences: list[Path]) -> None:
    there = dict.fromkeys(forks_in(sequences), 0)

    def logits_at(before: Path, possible: Sequence[int]) -> list[float]:
        there[before] += 1
        return [0.0] * len(possible)

    candidate_probabilities(sequences, logits_at)
    assert set(there.values()) <= {1}


def test_a_single_answer_has_no_fork_and_its_question_no_path() -> None:
    assert forks_in([(7, 1, END)]) == ()
    assert TokenQuestion((4, 5), ((7, 1, END),)).paths == ()


@pytest.mark.parametrize("sequences", [[], [(1, END), (1, END)], [(1,), (1, 2)]])
def test_forks_of_answers_that_cannot_be_told_apart_are_refused(sequences: list[Path]) -> None:
    with pytest.raises(ValueError, match="candidate"):
        forks_in(sequences)


def test_a_question_is_looked_at_where_its_answers_part() -> None:
    question = TokenQuestion((4, 5), ((7, 1, 2, END), (7, 1, 3, 5, END), (7, 1, 3, END)))
    assert question.paths == ((4, 5, 7, 1), (4, 5, 7, 1, 3))


# ------------------------------------------------------------------ one tree


@given(st.lists(questions, max_size=8))
def test_every_beginning_stands_in_the_tree_once_and_nothing_else_does(all_questions: list[TokenQuestion]) -> None:
    tree = QuestionTree()
    for number, question in enumerate(all_questions):
        tree.add(number, question)
    ways = [way_to(tree, node) for node in range(len(tree.tokens))]
    assert len(set(ways)) == len(ways)
    assert set(ways) == beginnings(paths_of(tree, all_questions))


@given(st.lists(questions, max_size=8))
def test_every_path_ends_at_a_look_of_its_own(all_questions: list[TokenQuestion]) -> None:
    tree = QuestionTree()
    for number, question in enumerate(all_questions):
        tree.add(number, question)
    assert tree.looks.keys() == set(paths_of(tree, all_questions))
    assert all(way_to(tree, node) == path for path, node in tree.looks.items())
    assert len(set(tree.looks.values())) == len(tree.looks)


@given(st.lists(questions, max_size=8))
def test_parents_come_before_children_and_every_leaf_is_looked_at(all_questions: list[TokenQuestion]) -> None:
    tree = QuestionTree()
    for number, question in enumerate(all_questions):
        tree.add(number, question)
    assert len(tree.parents) == len(tree.tokens)
    assert all(-1 <= parent < node for node, parent in enumerate(tree.parents))
    leaves = tree.leaves()
    assert leaves == [node for node in range(len(tree.tokens)) if node not in tree.parents]
    assert set(leaves) <= set(tree.looks.values())


@given(st.lists(questions, max_size=8))
def test_a_shared_token_is_counted_with_the_first_question_that_has_it(all_questions: list[TokenQuestion]) -> None:
    tree = QuestionTree()
    for number, question in enumerate(all_questions):
        tree.add(number, question)
    assert sum(tree.added) == len(tree.tokens)
    for place, question in enumerate(all_questions):
        before = beginnings([path for earlier in all_questions[:place] for path in earlier.paths])
        assert tree.added[place] == len(beginnings(question.paths) - before)


@given(st.lists(questions, max_size=6), questions, limits)
def test_there_is_room_for_a_question_exactly_where_all_of_them_fit(
    there: list[TokenQuestion], one_more: TokenQuestion, limits: TreeLimits
) -> None:
    tree = QuestionTree()
    for number, question in enumerate(there):
        tree.add(number, question)
    before = (list(tree.tokens), dict(tree.looks))
    assert tree.with_room(one_more, limits) is fits([*there, one_more], limits)
    assert (tree.tokens, tree.looks) == before, "only asked, not taken in"


def test_what_two_questions_begin_with_alike_is_in_the_tree_once() -> None:
    sma = TokenQuestion((8, 9, 1), ((5, END), (6, END)))
    liver = TokenQuestion((8, 9, 2), ((5, END), (7, 3, END), (7, 4, END)))
    tree = QuestionTree()
    tree.add(0, sma)
    tree.add(1, liver)
    assert tree.tokens == [8, 9, 1, 2, 7]
    assert tree.parents == [-1, 0, 1, 1, 3]
    assert tree.looks == {(8, 9, 1): 2, (8, 9, 2): 3, (8, 9, 2, 7): 4}
    assert tree.leaves() == [2, 4]
    assert (tree.questions, tree.added) == ([0, 1], [3, 2])


def test_the_same_question_again_costs_nothing_and_other_answers_to_it_only_what_they_add() -> None:
    tree = QuestionTree()
    tree.add(0, TokenQuestion((8, 9), ((5, END), (6, END))))
    tree.add(1, TokenQuestion((8, 9), ((5, END), (6, END))))
    tree.add(2, TokenQuestion((8, 9), ((5, 1, END), (5, 2, END))))
    assert tree.added == [2, 0, 1]


def test_a_question_that_begins_another_is_looked_at_on_the_way() -> None:
    tree = QuestionTree()
    tree.add(0, TokenQuestion((8,), ((5, END), (6, END))))
    tree.add(1, TokenQuestion((8, 9), ((5, END), (6, END))))
    assert tree.looks == {(8,): 0, (8, 9): 1}
    assert tree.leaves() == [1]


# ------------------------------------------------------------------ as many trees as it takes


@given(st.lists(questions, max_size=12), limits)
def test_every_question_is_in_exactly_one_tree_or_alone(all_questions: list[TokenQuestion], limits: TreeLimits) -> None:
    trees, alone = question_trees(all_questions, limits)
    assert sorted([*alone, *(number for tree in trees for number in tree.questions)]) == list(range(len(all_questions)))
    assert alone == [number for number, question in enumerate(all_questions) if not fits([question], limits)]
    assert all(tree.questions and len(tree.added) == len(tree.questions) for tree in trees)


@given(st.lists(questions, max_size=12), limits)
def test_no_tree_exceeds_a_limit(all_questions: list[TokenQuestion], limits: TreeLimits) -> None:
    for tree in question_trees(all_questions, limits)[0]:
        assert len(tree.tokens) <= limits.tokens
        assert len(tree.leaves()) <= len(tree.looks) <= min(limits.leaves, limits.looks)
        assert tree.looks.keys() == set(paths_of(tree, all_questions))
        assert sum(tree.added) == len(tree.tokens) == len(beginnings(paths_of(tree, all_questions)))


@given(st.lists(questions, max_size=12), limits)
def test_questions_keep_their_order_and_a_new_tree_begins_only_where_the_last_is_full(
    all_questions: list[TokenQuestion], limits: TreeLimits
) -> None:
    trees, _ = question_trees(all_questions, limits)
    order = [number for tree in trees for number in tree.questions]
    assert order == sorted(order)
    for tree, following in pairwise(trees):
        there = [all_questions[number] for number in tree.questions]
        assert not fits([*there, all_questions[following.questions[0]]], limits)


@given(st.lists(questions, min_size=1, max_size=8))
def test_with_room_enough_one_tree_holds_them_all(all_questions: list[TokenQuestion]) -> None:
    trees, alone = question_trees(all_questions, ROOMY)
    assert ([tree.questions for tree in trees], alone) == ([list(range(len(all_questions)))], [])


def test_no_questions_make_no_tree() -> None:
    assert question_trees([], ROOMY) == ([], [])


@pytest.mark.parametrize(
    "limits", [TreeLimits(4, 9, 9), TreeLimits(99, 1, 9), TreeLimits(99, 9, 1)], ids=["tokens", "leaves", "looks"]
)
def test_whichever_limit_is_reached_the_next_question_opens_a_tree_and_one_that_is_too_large_is_alone(
    limits: TreeLimits,
) -> None:
    small = [TokenQuestion((1, 2, token), ((5, END), (6, END))) for token in (3, 4)]
    large = TokenQuestion((1, 2, 3, 4), ((5, 1, END), (5, 2, END), (6, END)))
    trees, alone = question_trees([small[0], large, small[1]], limits)
    if limits.tokens == 4:
        assert ([tree.questions for tree in trees], alone) == ([[0, 2]], [1]), "four tokens: 1 2 and both ends"
    else:
        assert ([tree.questions for tree in trees], alone) == ([[0], [2]], [1])
