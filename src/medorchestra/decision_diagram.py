"""Exact decisions and probabilities from compiled rules, whatever is unknown.

A rule list over closed findings is a function from findings to the first rule that holds, compiled once into a diagram
(`diagram_building`). Then
    - the outcomes that remain possible are the ends that can be reached with what is known;
    - the probability of an outcome is the flow from the root to its ends, one multiplication per edge (`diagram_flow`);
    - the findings that would settle an open case are among those the diagram still asks once the known ones are
      put in, because in a reduced diagram a variable appears only if the result depends on it.

Silence is a value of its own. Where the plan reads it as a value, it leads where that value leads; where it is
unknown, a second variable (the truth behind the silence) is asked instead. Numbers are cut into the cells between
the bounds that the rules name. Distributions of different findings are taken as independent.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property

from medorchestra.diagram_building import NO_RULE, Diagram, Fixed, end_of
from medorchestra.diagram_flow import Distribution, Flow
from medorchestra.rule_expressions import Variable
from medorchestra.rules import NOT_STATED, DecisionRule, Domain, Known, Probabilities, Verdict


class Situation:
    """What is known of one report, put into the rules; says what follows for certain, over all that is unknown."""

    __slots__ = ("_asked", "_diagram", "_ends", "_fixed", "_outcomes")

    def __init__(self, diagram: Diagram, fixed: Fixed) -> None:
        self._diagram = diagram
        self._fixed = fixed
        self._ends, nodes = diagram.reached(fixed)
        self._asked = diagram.places_asked(nodes)
        """Places at which the ways that are still open look; what is known elsewhere changes nothing."""
        self._outcomes = diagram.outcomes_of(self._ends)

    @property
    def outcome(self) -> str | None:
        """The outcome that follows, if one does."""
        return next(iter(self._outcomes)) if len(self._outcomes) == 1 else None

    def verdict(self) -> Verdict:
        """Everything that follows."""
        diagram, ends = self._diagram, self._ends
        rules = tuple(diagram.rules[-end - 2].rule for end in sorted(ends, reverse=True) if end != NO_RULE)
        gap = NO_RULE in ends
        outcome = self.outcome
        return Verdict(
            outcome=outcome,
            possible=tuple(one for one in diagram.outcomes if one in self._outcomes),
            rule=rules[0] if len(rules) == 1 and not gap else None,
            possible_rules=rules,
            missing=() if outcome is not None else self._missing(),
            gap=gap,
        )

    def _missing(self) -> tuple[str, ...]:
        """Findings whose truth would settle the outcome, none of them in vain, in the order of the rules.

        The outcome may depend on a finding only by way of another's silence: the truth of that other is then enough.
        But where silence counts only because yet another finding is not stated, stating that one is no truth about it.
        """
        diagram = self._diagram
        missing = self.depends_on()
        for name in missing:
            if_stated = diagram.translation.domains[name].silence.if_stated
            if if_stated is not None and not self._states(if_stated):
                continue
            fewer = tuple(other for other in missing if other != name)
            if set(self.depends_on(fewer)) <= set(fewer):
                missing = fewer
        return missing

    def _states(self, finding: str) -> bool:
        """Whether the report is known to state the finding."""
        number = self._fixed[self._diagram.places[finding]]
        return number is not None and number != self._diagram.number_of(finding, NOT_STATED)

    def depends_on(
        self, stated: Collection[str] = (), seen_as: Callable[[int], object] | None = None
    ) -> tuple[str, ...]:
        """Findings on which the end depends when some more are stated, in the order the rules ask them.

        Args:
            stated: findings of which no silence is considered.
            seen_as: what of an end counts; its outcome unless given.
        """
        diagram, fixed = self._diagram, self._fixed
        seen_as = seen_as or diagram.outcome_of
        asked: dict[int, tuple[Variable, tuple[object, ...]]] = {}
        unique: dict[tuple[Variable, tuple[object, ...]], int] = {}
        reduced: dict[int, object] = {}

        def restrict(here: int) -> object:
            if here < 0:
                return "end", seen_as(here)
            if here not in reduced:
                node = diagram.nodes[here]
                stated_here = node.variable[0] in stated
                open_children = node.children[:-1] if stated_here else diagram.open_children(here, fixed)
                children = tuple(restrict(child) for child in open_children)
                if len(set(children)) == 1:
                    reduced[here] = children[0]
                else:
                    key = (node.variable, children)
                    reduced[here] = unique.setdefault(key, len(unique))
                    asked[unique[key]] = key
            return reduced[here]

        found: set[str] = set()
        waiting = [restrict(diagram.root)]
        seen: set[object] = set()
        while waiting:
            here = waiting.pop()
            if isinstance(here, int) and here not in seen:
                seen.add(here)
                found.add(asked[here][0][0])
                waiting.extend(asked[here][1])
        return tuple(sorted(found, key=diagram.places.__getitem__))

    def sufficient(self, *, last: Collection[str] = ()) -> tuple[str, ...]:
        """As `DecisionTable.sufficient`."""
        if len(self._outcomes) != 1:
            return ()
        diagram = self._diagram
        same = {end for end in diagram.ends if diagram.outcome_of(end) in self._outcomes}
        fixed, asked = list(self._fixed), self._asked
        known = [name for name, place in diagram.places.items() if fixed[place] is not None]
        for name in sorted(known, key=lambda one: (one in last, -diagram.places[one])):
            place = diagram.places[name]
            number, fixed[place] = fixed[place], None
            if place not in asked:
                continue
            nodes = diagram.nodes_if_only(same, fixed)
            if nodes is None:
                fixed[place] = number
            else:
                asked = diagram.places_asked(nodes)
        return tuple(name for name in known if fixed[diagram.places[name]] is not None)

    def assumptions(self) -> tuple[str, ...]:
        """As `DecisionTable.assumptions`."""
        fixed, asked, outcomes = self._fixed, self._asked, self._outcomes
        silent = ((name, place) for name, place, silence in self._diagram.read_silences if fixed[place] == silence)
        return tuple(name for name, place in silent if place in asked and self._outcomes_with(place, None) != outcomes)

    def outcome_if_silent(self, finding: str) -> str | None:
        """The outcome that would follow, had the report said nothing on this finding."""
        diagram = self._diagram
        place = diagram.places[finding]
        outcomes = self._outcomes
        if place in self._asked:
            outcomes = self._outcomes_with(place, diagram.number_of(finding, NOT_STATED))
        return next(iter(outcomes)) if len(outcomes) == 1 else None

    def _outcomes_with(self, place: int, number: int | None) -> set[str | None]:
        """The outcomes that would be left open with something else at this place."""
        fixed = list(self._fixed)
        fixed[place] = number
        return self._diagram.outcomes_of(self._diagram.reached(fixed)[0])


class DecisionTable:
    """Compiled rules. Build once per plan; thread-safe to use.

    Attributes:
        rules: the rules, in order.

    Raises:
        RuleError: a rule names an unknown finding, value or option, or the rules need too many states.
    """

    def __init__(
        self, rules: Sequence[DecisionRule], domains: Sequence[Domain], options: Mapping[str, str] | None = None
    ) -> None:
        self._diagram = Diagram(rules, domains, options)
        self.rules = self._diagram.rules

    @property
    def size(self) -> int:
        """Number of inner nodes."""
        return len(self._diagram.nodes)

    @cached_property
    def _flow(self) -> Flow:
        return Flow(self._diagram)

    @property
    def looks_at(self) -> Collection[str]:
        """The findings on which its decision can depend."""
        return self._flow.slots.keys()

    # ------------------------------------------------------------------ decisions

    def situation(self, known: Known) -> Situation:
        """What is known, put into the rules: for several questions about one report.

        Args:
            known: finding -> value, number, `NOT_STATED`, or None for unknown. Findings left out are unknown.

        Raises:
            RuleError: a finding or value the plan does not have.
        """
        return Situation(self._diagram, self._diagram.fixed(known))

    def decide(self, known: Known) -> Verdict:
        """What follows for certain, over all completions of the unknown. Takes and raises what `situation` does."""
        return self.situation(known).verdict()

    def depends_on(self, known: Known, *, rules: bool = False) -> tuple[str, ...]:
        """Findings on which it still depends what becomes possible: no other can change that, whatever is known of it.

        Args:
            known: as in `situation`.
            rules: ask for which rules are possible, not only which outcomes.

        Returns:
            names in the order of the rules; those of silent findings whose truth matters are among them.
        """
        return self.situation(known).depends_on((), (lambda end: end) if rules else None)

    def sufficient(self, known: Known, *, last: Sequence[str] = ()) -> tuple[str, ...]:
        """Findings that alone already force the verdict's outcome: dropping any one of them would open it.

        Args:
            known: as in `situation`.
            last: findings to keep where there is a choice (those of the deciding rule, say).

        Returns:
            names in the order of the rules; empty when the outcome is open.
        """
        return self.situation(known).sufficient(last=last)

    def assumptions(self, known: Known) -> tuple[str, ...]:
        """Silent findings whose reading as a value the verdict rests on: unknown, they would leave more possible."""
        return self.situation(known).assumptions()

    # ------------------------------------------------------------------- examples

    def stated_values(self, finding: str) -> tuple[str | float, ...]:
        """The values of a finding that can make a difference; of a number, one for each stretch between bounds.

        Raises:
            KeyError: no such finding.
        """
        symbols = self._diagram.translation.symbols[finding]
        return tuple(self._diagram.translation.value_of(finding, symbol) for symbol in symbols)

    def examples(self, rule: str | None) -> Iterator[dict[str, str | float]]:
        """Stated findings that alone lead to this rule (None: to no rule), those with few findings first.

        No finding in an example could be left out: some completion of the others would then end elsewhere. Together
        the examples cover every combination of stated findings that ends there.

        Args:
            rule: id of a rule of this table.

        Raises:
            KeyError: no such rule.
        """
        goal = NO_RULE if rule is None else {r.rule: end_of(i) for i, r in enumerate(self.rules)}[rule]
        distance = self._distances(goal)
        found: list[set[tuple[str, str]]] = []
        counter = 0
        heap: list[tuple[int, int, int, dict[str, str]]] = []
        root = self._diagram.root
        if root in distance:
            heap.append((distance[root], counter, root, {}))
        while heap:
            total, _, here, asked = heapq.heappop(heap)
            if any(earlier <= set(asked.items()) for earlier in found):
                continue
            if here == goal:
                needed = self._without_vain(asked, goal)
                found.append(set(needed.items()))
                yield {name: self._diagram.translation.value_of(name, symbol) for name, symbol in needed.items()}
                continue
            node = self._diagram.nodes[here]
            depth = total - distance[here]
            for symbol, child in zip(self._diagram.symbols(node.variable), node.children[:-1], strict=False):
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
        for here, node in enumerate(self._diagram.nodes):  # children come before their parents
            if node.variable[1]:
                continue
            reached = [distance[child] for child in node.children[:-1] if child in distance]
            if reached:
                distance[here] = 1 + min(reached)
        return distance

    def _without_vain(self, asked: Mapping[str, str], goal: int) -> dict[str, str]:
        """As few of these answers as still force this end, whatever else is stated."""
        needed = dict(asked)
        value_of = self._diagram.translation.value_of
        fixed = self._diagram.fixed({name: value_of(name, symbol) for name, symbol in asked.items()})
        for name in reversed(tuple(asked)):
            place = self._diagram.places[name]
            number, fixed[place] = fixed[place], None
            if self._diagram.nodes_if_only({goal}, fixed, stated_only=True) is None:
                fixed[place] = number
            else:
                del needed[name]
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
        return self._flow.probabilities(distributions)

    def probability_bounds(
        self, distributions: Mapping[str, Distribution], unasked: Collection[str], *, of: str | None = None
    ) -> dict[str, tuple[float, float]]:
        """Outcome -> between what its probability lies, whatever distributions the unasked findings have.

        Args:
            distributions: as in `probabilities`.
            unasked: findings without one that may still get any.
            of: the one outcome that is asked for; all of the rules unless given.

        Raises:
            as `probabilities`.
        """
        return self._flow.bounds(self._diagram.outcomes if of is None else (of,), distributions, unasked)

    def chances_to_matter(
        self, distributions: Mapping[str, Distribution], unasked: Collection[str]
    ) -> dict[str, float]:
        """Unasked finding -> probability that the rules come to look at it; more than that at most, never less.

        Args:
            distributions, unasked: as in `probability_bounds`. Findings that are never looked at are left out.
        """
        return self._flow.chances_to_matter(distributions, unasked)
