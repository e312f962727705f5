"""Lays many questions on one report out as one tree of tokens, so that they can be computed together.

What questions begin with alike stands in the tree once; no question sees another, since every token sees the report and
its own way back to it. Knows token numbers only, and how much fits into one computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medorchestra.local.engine.label_trie import forks_in

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """What one computation can take.

    Attributes:
        tokens: in the tree.
        leaves: ends of the tree; each needs a sequence of its own in the model's memory.
        looks: places whose next token is looked at.
    """

    tokens: int
    leaves: int
    looks: int


@dataclass(frozen=True, slots=True)
class TokenQuestion:
    """A question as tokens, with the answers it can have.

    Attributes:
        asked: the question.
        answers: each ends with an end-of-turn token.
    """

    asked: Path
    answers: tuple[Path, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Question and as much of an answer as stands before a choice, for every choice."""
        return tuple((*self.asked, *before) for before in forks_in(self.answers))


@dataclass(slots=True)
class QuestionTree:
    """Questions that are computed together.

    Attributes:
        tokens: token of every node; a node comes behind the one it follows.
        parents: the node that it follows; -1: the report.
        looks: path -> node at whose end the next token is looked at.
        questions: which of the questions are in the tree.
        added: tokens that each of them brought in, in the same order.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    looks: dict[Path, int] = field(default_factory=dict)
    questions: list[int] = field(default_factory=list)
    added: list[int] = field(default_factory=list)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def leaves(self) -> list[int]:
        """Nodes that nothing follows."""
        followed = {parent for parent in self.parents if parent >= 0}
        return [node for node in range(len(self.tokens)) if node not in followed]

    def add(self, number: int, question: TokenQuestion) -> None:
        """Take a question in."""
        before = len(self.tokens)
        for path in question.paths:
            node = -1
            for token in path:
                node = self._step(node, token)
            self.looks[path] = node
        self.questions.append(number)
        self.added.append(len(self.tokens) - before)

    def _step(self, node: int, token: int) -> int:
        found = self._children.get((node, token))
        if found is None:
            found = self._children[node, token] = len(self.tokens)
            self.tokens.append(token)
            self.parents.append(node)
        return found

    def with_room(self, question: TokenQuestion, limits: TreeLimits) -> bool:
        """Whether a question still fits."""
        paths = question.paths
        new: set[Path] = set()
        for path in paths:
            node, depth = -1, 0
            while depth < len(path) and (node, path[depth]) in self._children:
                node, depth = self._children[node, path[depth]], depth + 1
            new.update(path[: end + 1] for end in range(depth, len(path)))
        looks = len(self.looks.keys() | set(paths))
        # Every leaf is a look, so there are never more leaves than looks.
        return len(self.tokens) + len(new) <= limits.tokens and looks <= min(limits.looks, limits.leaves)


def question_trees(questions: Sequence[TokenQuestion], limits: TreeLimits) -> tuple[list[QuestionTree], list[int]]:
    """Questions in as few trees as come about by filling one after the other.

    Returns:
        the trees, and the questions that are too large for any: they have to be asked by themselves.
    """
    trees: list[QuestionTree] = []
    alone: list[int] = []
    for number, question in enumerate(questions):
        if not QuestionTree().with_room(question, limits):
            alone.append(number)
            continue
        if not trees or not trees[-1].with_room(question, limits):
            trees.append(QuestionTree())
        trees[-1].add(number, question)
    return trees, alone
