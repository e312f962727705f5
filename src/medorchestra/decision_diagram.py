"""Rules compiled once into a decision diagram: exact decisions and probabilities, whatever is unknown.

A rule list over closed findings is a function from findings to the first rule that holds. It is compiled into a
reduced, ordered, multi-valued decision diagram (Bryant 1986, in its multi-valued form): each inner node asks one
variable, each path ends in a rule. Then
    - the outcomes that remain possible are the ends that can be reached with what is known;
    - the probability of an outcome is the flow from the root to its ends, one multiplication per edge;
    - the findings that would settle an open case are among those the diagram still asks once the known ones are
      put in, because in a reduced diagram a variable appears only if the result depends on it.

Silence is a value of its own. Where the plan reads it as a value, it leads where that value leads; where it is
unknown, a second variable (the truth behind the silence) is asked instead. Numbers are cut into the cells between
the bounds that the rules name. Distributions of different findings are taken as independent.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from medorchestra.errors import RuleError
from medorchestra.rule_expressions import Expr, Translation, Variable, variables_in
from medorchestra.rules import (
    NOT_STATED,
    DecisionRule,
    Domain,
    Known,
    Probabilities,
    Verdict,
    check_rules,
    findings_in,
)

MAX_STATES = 50_000
"""A plan is untrusted: rules that need more states than this to compile are refused (pancreas: < 1000)."""

NO_RULE = -1

Distribution: TypeAlias = Mapping[str, float] | Mapping[float | str, float]
"""Probability of each value of a finding (numbers for a number finding) and of `NOT_STATED`."""


@dataclass(frozen=True, slots=True)
class _Node:
    """Asks `variable`; `children[i]` follows its i-th symbol (the last one is silence, for what the report says).

    A child >= 0 is a node; a child < 0 is an end: rule `-child - 2`, or no rule at `NO_RULE`.
    """

    variable: Variable
    children: tuple[int, ...]


def _end(rule: int) -> int:
    return -rule - 2


class DecisionTable:
    """Compiled rules. Build once per plan; thread-safe to use.

    Raises:
        RuleError: a rule names an unknown finding, value or option, or the rules need more than `MAX_STATES` states.
    """

    def __init__(
        self, rules: Sequence[DecisionRule], domains: Sequence[Domain], options: Mapping[str, str] | None = None
    ) -> None:
        check_rules(rules, domains, options or {})
        self.rules = tuple(rules)
        self._translation = Translation(rules, domains, options or {})
        self._outcomes = tuple(dict.fromkeys(rule.outcome for rule in rules))
        self._order = self._variable_order(domains)
        self._nodes: list[_Node] = []
        self._unique: dict[_Node, int] = {}
        self._states: dict[tuple[tuple[Expr, int], ...], int] = {}
        self._root = self._build(
            self._settle((self._translation.expression(rule.when), i) for i, rule in enumerate(rules))
        )
        self._states.clear()

    @property
    def size(self) -> int:
        """Number of inner nodes."""
        return len(self._nodes)

    def _variable_order(self, domains: Sequence[Domain]) -> dict[Variable, int]:
        """Findings in the order in which the rules first look at them.

        A finding whose silence looks at another comes before that other: once a variable is asked, nothing that is
        put in later may ask it again.
        """
        names: dict[str, None] = {}
        in_rules = (name for rule in self.rules for name in findings_in(rule.when))
        for name in (*in_rules, *(domain.finding for domain in domains)):
            names.update(dict.fromkeys(domain.finding for domain in domains if name in domain.silence.looks_at))
            names.setdefault(name)
        return {variable: i for i, variable in enumerate((n, behind) for n in names for behind in (False, True))}

    @staticmethod
    def _settle(rules: Iterable[tuple[Expr, int]]) -> tuple[tuple[Expr, int], ...]:
        """Drop the rules that cannot hold and those behind one that holds for certain."""
        left: list[tuple[Expr, int]] = []
        for expr, rule in rules:
            if expr is False:
                continue
            left.append((expr, rule))
            if expr is True:
                break
        return tuple(left)

    def _build(self, state: tuple[tuple[Expr, int], ...]) -> int:
        if not state:
            return NO_RULE
        if state[0][0] is True:
            return _end(state[0][1])
        found = self._states.get(state)
        if found is not None:
            return found
        if len(self._states) >= MAX_STATES:
            raise RuleError(
                f"rules too entangled: more than {MAX_STATES} states; split findings or simplify conditions"
            )
        variable = min(set().union(*(variables_in(expr) for expr, _ in state)), key=self._order.__getitem__)
        children = tuple(
            self._build(self._settle((self._translation.substitute(e, variable, symbol), rule) for e, rule in state))
            for symbol in self._symbols(variable)
        )
        node = self._node(variable, children)
        self._states[state] = node
        return node

    def _symbols(self, variable: Variable) -> tuple[str, ...]:
        stated = self._translation.symbols[variable[0]]
        return stated if variable[1] else (*stated, NOT_STATED)

    def _node(self, variable: Variable, children: tuple[int, ...]) -> int:
        if len(set(children)) == 1:
            return children[0]
        node = _Node(variable, children)
        index = self._unique.get(node)
        if index is None:
            index = self._unique[node] = len(self._nodes)
            self._nodes.append(node)
        return index

    # ------------------------------------------------------------------ decisions

    def _open_children(self, node: _Node, fixed: Mapping[str, str]) -> Sequence[int]:
        """The children that what is known leaves open."""
        finding, behind_silence = node.variable
        if behind_silence:
            return node.children
        symbol = fixed.get(finding)
        if symbol is None:
            return node.children  # the report may state any value, or be silent
        return (node.children[self._symbols(node.variable).index(symbol)],)

    def _fixed(self, known: Known) -> dict[str, str]:
        return {name: self._translation.symbol_of(name, value) for name, value in known.items() if value is not None}

    def _reach(self, fixed: Mapping[str, str], *, stated_only: bool = False) -> set[int]:
        """All ends that can be reached; with `stated_only`, while no finding is silent."""
        ends: set[int] = set()
        seen: set[int] = set()
        stack = [self._root]
        while stack:
            here = stack.pop()
            if here < 0:
                ends.add(here)
            elif here not in seen:
                seen.add(here)
                node = self._nodes[here]
                silent_last = stated_only and node.variable[0] not in fixed
                stack.extend(node.children[:-1] if silent_last else self._open_children(node, fixed))
        return ends

    def _outcome_of(self, end: int) -> str | None:
        return None if end == NO_RULE else self.rules[-end - 2].outcome

    def decide(self, known: Known) -> Verdict:
        """What follows for certain, over all completions of the unknown.

        Args:
            known: finding -> value, number, `NOT_STATED`, or None for unknown. Findings left out are unknown.

        Raises:
            RuleError: a finding or value the plan does not have.
        """
        fixed = self._fixed(known)
        ends = self._reach(fixed)
        rules = tuple(rule.rule for i, rule in enumerate(self.rules) if _end(i) in ends)
        reached = {self._outcome_of(end) for end in ends}
        possible = tuple(outcome for outcome in self._outcomes if outcome in reached)
        gap = NO_RULE in ends
        certain = len(possible) == 1 and not gap
        return Verdict(
            outcome=possible[0] if certain else None,
            possible=possible,
            rule=rules[0] if len(rules) == 1 and not gap else None,
            possible_rules=rules,
            missing=() if certain else self._undecided_findings(fixed),
            gap=gap,
        )

    def _undecided_findings(self, fixed: Mapping[str, str]) -> tuple[str, ...]:
        """Findings whose truth would settle the outcome, none of them in vain, in the order of the rules.

        The outcome may depend on a finding only by way of another's silence: the truth of that other is then enough.
        But where silence counts only because yet another finding is not stated, stating that one is no truth about it.
        """
        missing = self._depends_on(fixed, ())
        for name in missing:
            if_stated = self._translation.domains[name].silence.if_stated
            if if_stated is not None and fixed.get(if_stated, NOT_STATED) == NOT_STATED:
                continue
            fewer = tuple(other for other in missing if other != name)
            if set(self._depends_on(fixed, fewer)) <= set(fewer):
                missing = fewer
        return missing

    def depends_on(self, known: Known, *, rules: bool = False) -> tuple[str, ...]:
        """Findings on which it still depends what becomes possible: no other can change that, whatever is known of it.

        Args:
            known: as in `decide`.
            rules: ask for which rules are possible, not only which outcomes.

        Returns:
            names in the order of the rules; those of silent findings whose truth matters are among them.
        """
        return self._depends_on(self._fixed(known), (), (lambda end: end) if rules else self._outcome_of)

    def _depends_on(
        self, fixed: Mapping[str, str], stated: Collection[str], seen_as: Callable[[int], object] | None = None
    ) -> tuple[str, ...]:
        """Findings on which the end depends when some more are stated, in the order the rules ask them.

        Args:
            fixed: finding -> symbol.
            stated: findings of which no silence is considered.
            seen_as: what of an end counts; its outcome unless given.
        """
        seen_as = seen_as or self._outcome_of
        asked: dict[int, tuple[Variable, tuple[object, ...]]] = {}
        unique: dict[tuple[Variable, tuple[object, ...]], int] = {}
        reduced: dict[int, object] = {}

        def restrict(here: int) -> object:
            if here < 0:
                return "end", seen_as(here)
            if here not in reduced:
                node = self._nodes[here]
                stated_here = node.variable[0] in stated
                open_children = node.children[:-1] if stated_here else self._open_children(node, fixed)
                children = tuple(restrict(child) for child in open_children)
                if len(set(children)) == 1:
                    reduced[here] = children[0]
                else:
                    key = (node.variable, children)
                    reduced[here] = unique.setdefault(key, len(unique))
                    asked[unique[key]] = key
            return reduced[here]

        found: set[Variable] = set()
        stack = [restrict(self._root)]
        seen: set[object] = set()
        while stack:
            here = stack.pop()
            if isinstance(here, int) and here not in seen:
                seen.add(here)
                found.add(asked[here][0])
                stack.extend(asked[here][1])
        return tuple(dict.fromkeys(name for name, _ in sorted(found, key=self._order.__getitem__)))

    def sufficient(self, known: Known, *, last: Sequence[str] = ()) -> tuple[str, ...]:
        """Findings that alone already force the verdict's outcome: dropping any one of them would open it.

        Args:
            known: as in `decide`.
            last: findings to keep where there is a choice (those of the deciding rule, say).

        Returns:
            names in the order of the rules; empty when the outcome is open.
        """
        fixed = self._fixed(known)
        outcomes = {self._outcome_of(end) for end in self._reach(fixed)}
        if len(outcomes) != 1:
            return ()
        for name in sorted(fixed, key=lambda n: (n in last, -self._order.get((n, False), -1))):
            fewer = {other: symbol for other, symbol in fixed.items() if other != name}
            if {self._outcome_of(end) for end in self._reach(fewer)} == outcomes:
                fixed = fewer
        return tuple(sorted(fixed, key=lambda n: self._order[(n, False)]))

    def assumptions(self, known: Known) -> tuple[str, ...]:
        """Silent findings whose reading as a value the verdict rests on: unknown, they would leave more possible."""
        fixed = self._fixed(known)
        outcomes = {self._outcome_of(end) for end in self._reach(fixed)}
        material: list[str] = []
        for name, symbol in fixed.items():
            if symbol != NOT_STATED or self._translation.domains[name].silence.reads_as is None:
                continue
            fewer = {other: s for other, s in fixed.items() if other != name}
            if {self._outcome_of(end) for end in self._reach(fewer)} != outcomes:
                material.append(name)
        return tuple(sorted(material, key=lambda n: self._order[(n, False)]))

    # ------------------------------------------------------------------- examples

    def stated_values(self, finding: str) -> tuple[str | float, ...]:
        """The values of a finding that can make a difference; of a number, one for each stretch between bounds.

        Raises:
            KeyError: no such finding.
        """
        symbols = self._translation.symbols[finding]
        return tuple(self._translation.value_of(finding, symbol) for symbol in symbols)

    def examples(self, rule: str | None) -> Iterator[dict[str, str | float]]:
        """Stated findings that alone lead to this rule (None: to no rule), those with few findings first.

        No finding in an example could be left out: some completion of the others would then end elsewhere. Together
        the examples cover every combination of stated findings that ends there.

        Args:
            rule: id of a rule of this table.

        Raises:
            KeyError: no such rule.
        """
        goal = NO_RULE if rule is None else {r.rule: _end(i) for i, r in enumerate(self.rules)}[rule]
        distance = self._distances(goal)
        found: list[set[tuple[str, str]]] = []
        counter = 0
        heap: list[tuple[int, int, int, dict[str, str]]] = []
        if self._root in distance:
            heap.append((distance[self._root], counter, self._root, {}))
        while heap:
            total, _, here, asked = heapq.heappop(heap)
            if any(earlier <= set(asked.items()) for earlier in found):
                continue
            if here == goal:
                needed = self._without_vain(asked, goal)
                found.append(set(needed.items()))
                yield {name: self._translation.value_of(name, symbol) for name, symbol in needed.items()}
                continue
            node = self._nodes[here]
            depth = total - distance[here]
            for symbol, child in zip(self._symbols(node.variable), node.children[:-1], strict=False):
                if child in distance:
                    counter += 1
                    one_more = asked | {node.variable[0]: symbol}
                    heapq.heappush(heap, (depth + 1 + distance[child], counter, child, one_more))

    def example(self, rule: str | None) -> dict[str, str | float] | None:
        """The first of `examples`, or None where no combination of stated findings ends there."""
        return next(self.examples(rule), None)

    def _distances(self, goal: int) -> dict[int, int]:
        """Fewest stated answers that lead from a node to this end; nodes that do not lead there are left out."""
        distance = {goal: 0}
        for here, node in enumerate(self._nodes):  # children come before their parents
            if node.variable[1]:
                continue
            reached = [distance[child] for child in node.children[:-1] if child in distance]
            if reached:
                distance[here] = 1 + min(reached)
        return distance

    def _without_vain(self, asked: Mapping[str, str], goal: int) -> dict[str, str]:
        """As few of these answers as still force this end, whatever else is stated."""
        needed = dict(asked)
        for name in reversed(tuple(asked)):
            fewer = {other: symbol for other, symbol in needed.items() if other != name}
            if self._reach(fewer, stated_only=True) == {goal}:
                needed = fewer
        return needed

    # -------------------------------------------------------------- probabilities

    def probabilities(self, distributions: Mapping[str, Distribution]) -> Probabilities:
        """Probability of every outcome, exact under independence of the findings.

        Args:
            distributions: finding -> probability of each value (numbers for a number finding) and of `NOT_STATED`;
                must sum to one (within 1e-6). A finding left out is unknown: its prior is used.

        Raises:
            RuleError: an unknown finding or value.
            ValueError: a negative probability, or a sum that is not one.
        """
        weights = self._all_weights(distributions)
        flow = [0.0] * len(self._nodes)
        ends: dict[int, float] = {}
        if self._root < 0:
            ends[self._root] = 1.0
        else:
            flow[self._root] = 1.0
        # A node is always stored after its children, so walking backwards visits parents first.
        for here in range(len(self._nodes) - 1, -1, -1):
            if flow[here] == 0.0:
                continue
            node = self._nodes[here]
            for child, weight in zip(node.children, weights[node.variable], strict=True):
                if weight == 0.0:
                    continue
                if child < 0:
                    ends[child] = ends.get(child, 0.0) + flow[here] * weight
                else:
                    flow[child] += flow[here] * weight
        by_rule = {rule.rule: ends.get(_end(i), 0.0) for i, rule in enumerate(self.rules)}
        by_outcome = dict.fromkeys(self._outcomes, 0.0)
        for rule in self.rules:
            by_outcome[rule.outcome] += by_rule[rule.rule]
        return Probabilities(by_outcome, by_rule, ends.get(NO_RULE, 0.0))

    def probability_bounds(
        self, distributions: Mapping[str, Distribution], unasked: Collection[str]
    ) -> dict[str, tuple[float, float]]:
        """Outcome -> between what its probability lies, whatever distributions the unasked findings have.

        Args:
            distributions: as in `probabilities`.
            unasked: findings without one that may still get any.

        Raises:
            as `probabilities`.
        """
        weights = self._all_weights(distributions)
        ends = {end: [float(self._outcome_of(end) == name) for name in self._outcomes] for end in self._ends()}
        low, high = dict(ends), dict(ends)
        for here, node in enumerate(self._nodes):  # children come before their parents
            lows, highs = [low[child] for child in node.children], [high[child] for child in node.children]
            finding, behind_silence = node.variable
            if finding in unasked and not behind_silence:
                low[here] = [min(column) for column in zip(*lows, strict=True)]
                high[here] = [max(column) for column in zip(*highs, strict=True)]
            else:
                low[here], high[here] = _mean(lows, weights[node.variable]), _mean(highs, weights[node.variable])
        return dict(zip(self._outcomes, zip(low[self._root], high[self._root], strict=True), strict=True))

    def chances_to_matter(
        self, distributions: Mapping[str, Distribution], unasked: Collection[str]
    ) -> dict[str, float]:
        """Unasked finding -> probability that the rules come to look at it; more than that at most, never less.

        Args:
            distributions, unasked: as in `probability_bounds`. Findings that are never looked at are left out.
        """
        weights = self._all_weights(distributions)
        flow = [0.0] * len(self._nodes)
        if self._root >= 0:
            flow[self._root] = 1.0
        chances: dict[str, float] = {}
        for here in range(len(self._nodes) - 1, -1, -1):  # parents come before their children
            node = self._nodes[here]
            finding, behind_silence = node.variable
            is_open = finding in unasked and not behind_silence
            if is_open and flow[here] > 0.0:
                chances[finding] = min(1.0, chances.get(finding, 0.0) + flow[here])
            for child, weight in zip(node.children, weights[node.variable], strict=True):
                if child >= 0:
                    flow[child] += flow[here] * (1.0 if is_open else weight)
        return chances

    def _ends(self) -> list[int]:
        return [NO_RULE, *(_end(i) for i in range(len(self.rules)))]

    def _all_weights(self, distributions: Mapping[str, Distribution]) -> dict[Variable, tuple[float, ...]]:
        """Variable -> weight of each of its symbols: from the distributions, else from the priors."""
        given = {(finding, False): self._weights(finding, one) for finding, one in distributions.items()}
        asked = dict.fromkeys(node.variable for node in self._nodes)
        return {variable: self._prior(variable) for variable in asked if variable not in given} | given

    def _weights(self, finding: str, distribution: Distribution) -> tuple[float, ...]:
        total = sum(distribution.values())
        if abs(total - 1.0) > 1e-6 or min(distribution.values(), default=0.0) < 0.0:
            raise ValueError(f"probabilities of finding {finding!r} must be non-negative and sum to 1, not {total!r}")
        by_symbol: dict[str, float] = {}
        for value, probability in distribution.items():
            symbol = self._translation.symbol_of(finding, value)
            by_symbol[symbol] = by_symbol.get(symbol, 0.0) + probability / total
        return tuple(by_symbol.get(symbol, 0.0) for symbol in self._symbols((finding, False)))

    def _prior(self, variable: Variable) -> tuple[float, ...]:
        domain = self._translation.domains[variable[0]]
        stated = self._translation.symbols[variable[0]]
        raw = [(domain.prior or {}).get(symbol, 0.0) if domain.prior else 1.0 for symbol in stated]
        total = sum(raw)
        weights = tuple(weight / total for weight in raw)
        return weights if variable[1] else (*weights, 0.0)


def _mean(rows: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
    """The weighted sum of the rows, column by column."""
    return [
        sum(weight * one for weight, one in zip(weights, column, strict=True)) for column in zip(*rows, strict=True)
    ]
