"""Rules compiled into a reduced, ordered, multi-valued decision diagram: its nodes, and ways through them.

Bryant 1986, in its multi-valued form: each inner node asks one variable, each path ends in a rule. The ground of
`decision_diagram`, which says what follows from it. Everything that depends on the rules alone is worked out here,
once: what is left for a report is to follow small numbers through tuples.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from medorchestra.errors import RuleError
from medorchestra.rule_expressions import Expr, Translation, Variable, variables_in
from medorchestra.rules import NOT_STATED, DecisionRule, Domain, Known, check_rules, findings_in

MAX_STATES = 50_000
"""A plan is untrusted: rules that need more states than this to compile are refused (pancreas: < 1000)."""

NO_RULE = -1

BEHIND_SILENCE = -1
"""The place of what no report says: the truth where the report is silent."""

Fixed: TypeAlias = list[int | None]
"""What is known, by place: the number of the finding's symbol, None for unknown. One more stands behind, always None:
`BEHIND_SILENCE` is its place."""


def end_of(rule: int) -> int:
    """The end for a rule, by its number."""
    return -rule - 2


@dataclass(frozen=True, slots=True)
class Node:
    """Asks `variable`; `children[i]` follows its i-th symbol (the last one is silence, for what the report says).

    A child >= 0 is a node; a child < 0 is an end: rule `-child - 2`, or no rule at `NO_RULE`.
    """

    variable: Variable
    children: tuple[int, ...]


class Diagram:
    """Compiled rules. Never changed once built.

    Attributes:
        rules: the rules, in order.
        outcomes: theirs, in the order of the rules.
        translation: values to symbols.
        places: finding -> its place, in the order in which the nodes ask.
        nodes: children stand before their parents.
        root: a node or an end.
        ends: all of them, whether they can be reached or not.
        numbers: finding -> value -> number of its symbol; of numbers, that of silence alone (see `number_of`).
        read_silences: (finding, place, number of its silence) where silence is read as a value, in the order of places.

    Raises:
        RuleError: a rule names an unknown finding, value or option, or the rules need more than `MAX_STATES` states.
    """

    def __init__(
        self, rules: Sequence[DecisionRule], domains: Sequence[Domain], options: Mapping[str, str] | None = None
    ) -> None:
        check_rules(rules, domains, options or {})
        self.rules = tuple(rules)
        self.outcomes = tuple(dict.fromkeys(rule.outcome for rule in rules))
        self.translation = Translation(rules, domains, options or {})
        self.places = {name: place for place, name in enumerate(self._asking_order(domains))}
        self.nodes: list[Node] = []
        self.root = _Building(self).root()
        self._outcome_of = {NO_RULE: None} | {end_of(i): rule.outcome for i, rule in enumerate(rules)}
        self.ends = tuple(self._outcome_of)
        self._ways = [(BEHIND_SILENCE if n.variable[1] else self.places[n.variable[0]], n.children) for n in self.nodes]
        self.numbers = {domain.finding: self._numbers_of(domain) for domain in domains}
        self.read_silences = tuple(
            (name, place, self.number_of(name, NOT_STATED))
            for name, place in self.places.items()
            if self.translation.domains[name].silence.reads_as is not None
        )

    def _numbers_of(self, domain: Domain) -> dict[str | float, int]:
        """Value -> number of its symbol, for what a dictionary can tell: of numbers, only that none is stated."""
        symbols = self.symbols((domain.finding, False))
        return {value: i for i, value in enumerate(symbols) if domain.values is not None or value == NOT_STATED}

    def _asking_order(self, domains: Sequence[Domain]) -> list[str]:
        """Findings in the order in which the rules first look at them.

        A finding whose silence looks at another comes before that other: once a variable is asked, nothing that is
        put in later may ask it again.
        """
        names: dict[str, None] = {}
        in_rules = (name for rule in self.rules for name in findings_in(rule.when))
        for name in (*in_rules, *(domain.finding for domain in domains)):
            names.update(dict.fromkeys(domain.finding for domain in domains if name in domain.silence.looks_at))
            names.setdefault(name)
        return list(names)

    def symbols(self, variable: Variable) -> tuple[str, ...]:
        """The symbols of a variable, in the order of its nodes' children."""
        stated = self.translation.symbols[variable[0]]
        return stated if variable[1] else (*stated, NOT_STATED)

    def number_of(self, finding: str, value: str | float) -> int:
        """The number of a value's symbol; raises RuleError for a finding or value that the rules do not have."""
        numbers = self.numbers.get(finding)
        if numbers is None:
            raise RuleError(f"unknown finding {finding!r}; there are: {', '.join(self.numbers)}")
        number = numbers.get(value)
        if number is not None:
            return number
        return self.symbols((finding, False)).index(self.translation.symbol_of(finding, value))

    def fixed(self, known: Known) -> Fixed:
        """What is known, put in its places. Silence on a finding that the rules do not have says nothing.

        Raises:
            RuleError: a finding or value that the rules do not have.
        """
        fixed: Fixed = [None] * (len(self.places) + 1)
        for name, value in known.items():
            if value is None or (value == NOT_STATED and name not in self.places):
                continue
            fixed[self.places[name]] = self.number_of(name, value)
        return fixed

    def outcome_of(self, end: int) -> str | None:
        """The outcome of an end; None for no rule."""
        return self._outcome_of[end]

    def outcomes_of(self, ends: Iterable[int]) -> set[str | None]:
        """The outcomes of these ends; None among them where no rule may hold."""
        return {self._outcome_of[end] for end in ends}

    def reached(self, fixed: Fixed) -> tuple[set[int], set[int]]:
        """(ends, nodes) that what is known leaves open."""
        ends: set[int] = set()
        nodes: set[int] = set()
        waiting = [self.root]
        while waiting:
            here = waiting.pop()
            if here < 0:
                ends.add(here)
            elif here not in nodes:
                nodes.add(here)
                waiting += self.open_children(here, fixed)
        return ends, nodes

    def nodes_if_only(self, ends: Container[int], fixed: Fixed, *, stated_only: bool = False) -> set[int] | None:
        """The nodes that what is known leaves open where no end but these is; None where another end is.

        With `stated_only`, nothing that is unknown is silent.
        """
        nodes: set[int] = set()
        waiting = [self.root]
        ways = self._ways
        while waiting:
            here = waiting.pop()
            if here < 0:
                if here not in ends:
                    return None
            elif here not in nodes:
                nodes.add(here)
                place, children = ways[here]
                number = fixed[place]
                if number is not None:
                    waiting.append(children[number])
                else:
                    waiting += children[:-1] if stated_only else children
        return nodes

    def open_children(self, here: int, fixed: Fixed) -> tuple[int, ...]:
        """The children of a node that what is known leaves open."""
        place, children = self._ways[here]
        number = fixed[place]
        return children if number is None else (children[number],)

    def places_asked(self, nodes: Iterable[int]) -> set[int]:
        """The places at which these nodes look; `BEHIND_SILENCE` may be among them."""
        return {self._ways[here][0] for here in nodes}


class _Building:
    """Builds the nodes of a diagram, one for each state of the rules: what is left of them as findings are put in."""

    def __init__(self, diagram: Diagram) -> None:
        self._diagram = diagram
        self._translation = diagram.translation
        self._unique: dict[Node, int] = {}
        self._states: dict[tuple[tuple[Expr, int], ...], int] = {}

    def root(self) -> int:
        rules = ((self._translation.expression(rule.when), i) for i, rule in enumerate(self._diagram.rules))
        return self._build(_settled(rules))

    def _build(self, state: tuple[tuple[Expr, int], ...]) -> int:
        if not state:
            return NO_RULE
        if state[0][0] is True:
            return end_of(state[0][1])
        found = self._states.get(state)
        if found is not None:
            return found
        if len(self._states) >= MAX_STATES:
            raise RuleError(
                f"rules too entangled: more than {MAX_STATES} states; split findings or simplify conditions"
            )
        variable = min(set().union(*(variables_in(expr) for expr, _ in state)), key=self._turn)
        children = tuple(
            self._build(_settled((self._translation.substitute(e, variable, symbol), rule) for e, rule in state))
            for symbol in self._diagram.symbols(variable)
        )
        node = self._states[state] = self._node(variable, children)
        return node

    def _turn(self, variable: Variable) -> tuple[int, bool]:
        """When a variable is asked: what the report says before what is behind its silence."""
        return self._diagram.places[variable[0]], variable[1]

    def _node(self, variable: Variable, children: tuple[int, ...]) -> int:
        if len(set(children)) == 1:
            return children[0]
        node = Node(variable, children)
        index = self._unique.get(node)
        if index is None:
            index = self._unique[node] = len(self._diagram.nodes)
            self._diagram.nodes.append(node)
        return index


def _settled(rules: Iterable[tuple[Expr, int]]) -> tuple[tuple[Expr, int], ...]:
    """Drop the rules that cannot hold and those behind one that holds for certain."""
    left: list[tuple[Expr, int]] = []
    for expr, rule in rules:
        if expr is False:
            continue
        left.append((expr, rule))
        if expr is True:
            break
    return tuple(left)
