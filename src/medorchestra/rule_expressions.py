"""Conditions as expressions over symbols: numbers cut into cells, options put in, silence read as the plan reads it.

The ground floor of `decision_diagram`. Numbers fall into cells: the bounds that the rules name, and the stretches
between them. A cell that no number of the finding's range lies in (between 3 and 4 nodes, below 0 cm) does not exist.
Decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from medorchestra.errors import RuleError
from medorchestra.rules import (
    NOT_STATED,
    AllOf,
    AnyOf,
    Bounds,
    Condition,
    DecisionRule,
    Domain,
    Is,
    Not,
    Numbers,
    OptionIs,
    PartIn,
    leaves_of,
)

Variable: TypeAlias = tuple[str, bool]
"""(finding, behind_silence): what the report says, or the truth where the report is silent."""


@dataclass(frozen=True, slots=True)
class Atom:
    """The variable is one of these symbols.

    `of_report` asks what the report says rather than what is true: silence is then just another symbol.
    """

    variable: Variable
    symbols: frozenset[str]
    of_report: bool = False


@dataclass(frozen=True, slots=True)
class Join:
    """All (`every`) or any of the parts hold."""

    every: bool
    parts: frozenset[Expr]


Expr: TypeAlias = bool | Atom | Join
"""A condition in negation normal form: negation is pushed into the atoms."""


def join(parts: Iterable[Expr], *, every: bool) -> Expr:
    """`all` or `any` of the parts, flattened and folded."""
    absorbing = not every
    flat: set[Expr] = set()
    for part in parts:
        if isinstance(part, bool):
            if part is absorbing:
                return absorbing
        elif isinstance(part, Join) and part.every is every:
            flat.update(part.parts)
        else:
            flat.add(part)
    if not flat:
        return not absorbing
    return next(iter(flat)) if len(flat) == 1 else Join(every, frozenset(flat))


def _cell_of(number: float, cuts: Sequence[float]) -> int:
    """The cell of a number: even cells lie between cuts, odd cells are the cuts themselves."""
    index = 0
    for cut in cuts:
        if number < cut:
            break
        index += 1 if number == cut else 2
    return index


def number_cells(cuts: Sequence[float], numbers: Numbers) -> dict[int, float]:
    """Cell -> one number in it, for the cells that hold a number of this kind, in order.

    Args:
        cuts: the bounds that conditions name, ascending.
        numbers: which numbers there are.
    """
    cells: dict[int, float] = {}
    edges = [-math.inf, *cuts, math.inf]
    for i, (low, high) in enumerate(pairwise(edges)):
        between = _readable_between(low, high, numbers)
        if between is not None:
            cells[2 * i] = between
        if high < math.inf and numbers.holds(high):
            cells[2 * i + 1] = high
    return cells


def _readable_between(low: float, high: float, numbers: Numbers) -> float | None:
    """A number strictly between, with as few decimals as there can be; None where there is none."""
    low_end, high_end = max(low, numbers.minimum), min(high, numbers.maximum)
    if low_end > high_end:
        return None
    anchor = low_end if low_end > -math.inf else (high_end - 1.0 if high_end < math.inf else 0.0)
    for decimals in range(1 if numbers.whole else 12):
        step = 10.0**-decimals
        for candidate in (round(math.floor(anchor / step) * step + k * step, decimals) for k in (0, 1, 2)):
            if low < candidate < high and numbers.holds(candidate):
                return candidate
    middle = (max(low_end, -1e300) + min(high_end, 1e300)) / 2
    return middle if low < middle < high and numbers.holds(middle) else None


class Translation:
    """Conditions to expressions over symbols, and what silence does to an expression."""

    def __init__(self, rules: Sequence[DecisionRule], domains: Sequence[Domain], options: Mapping[str, str]) -> None:
        self.options = options
        self.domains = {domain.finding: domain for domain in domains}
        conditions = [rule.when for rule in rules]
        conditions += [domain.silence.unless for domain in domains if domain.silence.unless is not None]
        self.cuts: dict[str, tuple[float, ...]] = {}
        for condition in conditions:
            for leaf in leaves_of(condition):
                if isinstance(leaf, Bounds):
                    merged = {*self.cuts.get(leaf.finding, ()), *leaf.cuts}
                    self.cuts[leaf.finding] = tuple(sorted(merged))
        self.samples: dict[str, dict[str, float]] = {}
        self.symbols = {name: self._symbols(domain) for name, domain in self.domains.items()}

    def _symbols(self, domain: Domain) -> tuple[str, ...]:
        if domain.values is not None:
            return domain.values
        cells = number_cells(self.cuts.get(domain.finding, ()), domain.numbers)
        self.samples[domain.finding] = {f"cell {i}": sample for i, sample in cells.items()}
        if not cells:
            raise RuleError(f"finding {domain.finding!r}: no number lies in its range")
        return tuple(self.samples[domain.finding])

    def symbol_of(self, finding: str, value: str | float) -> str:
        """The symbol of a value; raises RuleError for a value the finding does not have."""
        if value == NOT_STATED:
            return NOT_STATED
        domain = self.domains.get(finding)
        if domain is None:
            raise RuleError(f"unknown finding {finding!r}; there are: {', '.join(self.domains)}")
        if domain.values is None:
            if not domain.numbers.holds(float(value)):
                raise RuleError(f"finding {finding!r} cannot be {value!r}: it is {domain.numbers}")
            return f"cell {_cell_of(float(value), self.cuts.get(finding, ()))}"
        if value not in domain.values:
            raise RuleError(f"finding {finding!r} has no value {value!r}; it has: {', '.join(domain.values)}")
        return str(value)

    def value_of(self, finding: str, symbol: str) -> str | float:
        """A value that has this symbol: for a cell of a number, one that is quickly read."""
        return self.samples[finding][symbol] if finding in self.samples else symbol

    def expression(self, condition: Condition, *, negated: bool = False) -> Expr:
        """The condition in negation normal form."""
        if isinstance(condition, Not):
            return self.expression(condition.not_, negated=not negated)
        if isinstance(condition, AllOf | AnyOf):
            parts = condition.all if isinstance(condition, AllOf) else condition.any
            every = isinstance(condition, AllOf) is not negated
            return join((self.expression(part, negated=negated) for part in parts), every=every)
        if isinstance(condition, OptionIs):
            return (self.options[condition.option] == condition.is_) is not negated
        if isinstance(condition, PartIn):
            raise RuleError(f"part {condition.part!r} is not expanded; see rules.expand_parts")
        symbols = self.symbols[condition.finding]
        if isinstance(condition, Bounds):
            samples = self.samples[condition.finding]
            chosen = {symbol for symbol, sample in samples.items() if condition.holds(sample)}
        else:
            chosen = {condition.is_} if isinstance(condition, Is) else set(condition.in_)
        kept = frozenset(symbol for symbol in symbols if (symbol in chosen) is not negated)
        if not kept or len(kept) == len(symbols):
            return bool(kept)
        return Atom((condition.finding, False), kept)

    def substitute(self, expr: Expr, variable: Variable, symbol: str) -> Expr:
        """The expression once the variable is known to be this symbol (or silent)."""
        if isinstance(expr, bool):
            return expr
        if isinstance(expr, Join):
            return join((self.substitute(part, variable, symbol) for part in expr.parts), every=expr.every)
        if expr.variable != variable:
            return expr
        if symbol != NOT_STATED or expr.of_report:
            return symbol in expr.symbols
        silence = self.domains[variable[0]].silence
        truth = Atom((variable[0], True), expr.symbols)
        if silence.reads_as is None:
            return truth
        constant = silence.reads_as in expr.symbols
        unknown = [self.expression(silence.unless)] if silence.unless is not None else []
        known = [self.expression(silence.unless, negated=True)] if silence.unless is not None else []
        if silence.if_stated is not None:
            stated = self.symbols[silence.if_stated]
            unknown.append(Atom((silence.if_stated, False), frozenset({NOT_STATED}), of_report=True))
            known.append(Atom((silence.if_stated, False), frozenset(stated), of_report=True))
        read_as_unknown = join((join(unknown, every=False), truth), every=True)
        read_as_value = join((*known, constant), every=True)
        return join((read_as_unknown, read_as_value), every=False)


def variables_in(expr: Expr) -> set[Variable]:
    """All variables that the expression asks."""
    if isinstance(expr, bool):
        return set()
    if isinstance(expr, Atom):
        return {expr.variable}
    return set().union(*map(variables_in, expr.parts))
