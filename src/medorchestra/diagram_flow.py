"""Probabilities that flow through a decision diagram: from the root along every edge, by its weight, to the ends.

Exact where the distributions of different findings are independent. Knows nothing of what is certain: that is
`decision_diagram`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeAlias

from medorchestra.diagram_building import NO_RULE, Diagram, end_of
from medorchestra.rule_expressions import Variable
from medorchestra.rules import NOT_STATED, Probabilities

Distribution: TypeAlias = Mapping[str, float] | Mapping[float | str, float]
"""Probability of each value of a finding (numbers for a number finding) and of `NOT_STATED`."""


class Flow:
    """The edges of a diagram, and where in a list of weights each has its own. Never changed once made.

    Attributes:
        slots: finding -> the first of its weights, one for each symbol; only findings that the diagram asks.
    """

    def __init__(self, diagram: Diagram) -> None:
        self._diagram = diagram
        self._priors: list[float] = []
        first: dict[Variable, int] = {}
        for variable in dict.fromkeys(node.variable for node in diagram.nodes):
            first[variable] = len(self._priors)
            self._priors += self._prior(variable)
        self.slots = {finding: slot for (finding, behind_silence), slot in first.items() if not behind_silence}
        # Parents before their children: a node is always stored after its children.
        self._nodes = [(here, first[node.variable], node.children) for here, node in enumerate(diagram.nodes)][::-1]
        self._edges = [
            (here, child, slot) for here, start, children in self._nodes for slot, child in enumerate(children, start)
        ]

    def probabilities(self, distributions: Mapping[str, Distribution]) -> Probabilities:
        """As `DecisionTable.probabilities`."""
        diagram = self._diagram
        weights = self._weights(distributions)
        flow = self._from_the_root()
        for here, child, slot in self._edges:
            flow[child] += flow[here] * weights[slot]
        by_rule = {rule.rule: flow[end_of(i)] for i, rule in enumerate(diagram.rules)}
        by_outcome = dict.fromkeys(diagram.outcomes, 0.0)
        for rule in diagram.rules:
            by_outcome[rule.outcome] += by_rule[rule.rule]
        return Probabilities(by_outcome, by_rule, flow[NO_RULE])

    def _from_the_root(self) -> list[float]:
        """What has come to each node so far, and behind them to each end: their numbers count from the list's end."""
        flow = [0.0] * (len(self._diagram.nodes) + len(self._diagram.ends))
        flow[self._diagram.root] = 1.0
        return flow

    def bounds(
        self, outcomes: Collection[str], distributions: Mapping[str, Distribution], unasked: Collection[str]
    ) -> dict[str, tuple[float, float]]:
        """As `DecisionTable.probability_bounds`, for these outcomes; zero for one that no rule has."""
        weights = self._weights(distributions)
        opened = {self.slots[name] for name in unasked if name in self.slots}
        return {outcome: self._bounds(outcome, weights, opened) for outcome in outcomes}

    def _bounds(self, outcome: str, weights: list[float], opened: set[int]) -> tuple[float, float]:
        """Of one outcome, where any weight may stand at the slots of what is open."""
        diagram = self._diagram
        low = [0.0] * (len(diagram.nodes) + len(diagram.ends))
        for end in diagram.ends:
            low[end] = float(diagram.outcome_of(end) == outcome)
        high = list(low)
        for here, start, children in reversed(self._nodes):
            if start in opened:
                low[here] = min(low[child] for child in children)
                high[here] = max(high[child] for child in children)
            else:
                shares = weights[start : start + len(children)]
                low[here] = sum(share * low[child] for share, child in zip(shares, children, strict=True))
                high[here] = sum(share * high[child] for share, child in zip(shares, children, strict=True))
        return low[diagram.root], high[diagram.root]

    def chances_to_matter(
        self, distributions: Mapping[str, Distribution], unasked: Collection[str]
    ) -> dict[str, float]:
        """As `DecisionTable.chances_to_matter`."""
        weights = self._weights(distributions)
        opened = {self.slots[name]: name for name in unasked if name in self.slots}
        flow = self._from_the_root()
        chances: dict[str, float] = {}
        for here, start, children in self._nodes:
            finding = opened.get(start)
            if finding is not None and flow[here] > 0.0:
                chances[finding] = min(1.0, chances.get(finding, 0.0) + flow[here])
            for slot, child in enumerate(children, start):
                flow[child] += flow[here] * (weights[slot] if finding is None else 1.0)
        return chances

    def _weights(self, distributions: Mapping[str, Distribution]) -> list[float]:
        """The weight of each slot: from the distributions, else from the priors."""
        weights = list(self._priors)
        for finding, distribution in distributions.items():
            given = self._given(finding, distribution)
            start = self.slots.get(finding)
            if start is not None:
                weights[start : start + len(given)] = given
        return weights

    def _given(self, finding: str, distribution: Distribution) -> list[float]:
        """A distribution as weights of the finding's symbols."""
        shares = distribution.values()
        total = sum(shares)
        if abs(total - 1.0) > 1e-6 or min(shares, default=0.0) < 0.0:
            raise ValueError(f"probabilities of finding {finding!r} must be non-negative and sum to 1, not {total!r}")
        number_of = self._diagram.number_of
        weights = [0.0] * (1 + number_of(finding, NOT_STATED))
        numbers = self._diagram.numbers[finding]
        for value, share in distribution.items():
            number = numbers.get(value)
            weights[number_of(finding, value) if number is None else number] += share / total
        return weights

    def _prior(self, variable: Variable) -> list[float]:
        """The weights of a variable of which nothing is known: the report then states it."""
        domain = self._diagram.translation.domains[variable[0]]
        stated = self._diagram.translation.symbols[variable[0]]
        raw = [(domain.prior or {}).get(symbol, 0.0) if domain.prior else 1.0 for symbol in stated]
        total = sum(raw)
        weights = [weight / total for weight in raw]
        return weights if variable[1] else [*weights, 0.0]
