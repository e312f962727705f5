"""The rules of a plan as a decision table: one row for each rule, one column for each thing the rules look at.

A condition fits a row when it is a list of demands that must all hold, with at most one list of alternatives of which
one is enough. What does not fit stays a sentence (see `condition_text`). Evaluates options only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from medorchestra.plan import Plan, Rule
from medorchestra.plan_views.condition_text import (
    finding_titles,
    listed,
    part_titles,
    spoken,
    unit_of,
    value_text,
    values_asked,
)
from medorchestra.rules import (
    AllOf,
    AnyOf,
    Bounds,
    Condition,
    In,
    Is,
    Not,
    OptionIs,
    PartIn,
    evaluate,
    leaves_of,
)

Choice: TypeAlias = "list[tuple[Condition, bool]]"
"""Conditions, and whether each must hold or must not hold, of which one is enough."""
ColumnKey: TypeAlias = tuple[Literal["part", "finding", "option"], str]

MOST_COLUMNS = 26
"""A table with more is not read any more: its conditions become sentences."""

_SIGNS = (("above", ">", "≤"), ("at_least", "≥", "<"), ("below", "<", "≥"), ("at_most", "≤", ">"))


@dataclass(frozen=True, slots=True)
class Column:
    """What the cells of a column are about.

    Attributes:
        kind, name: a part, a finding or an option of the plan.
        title: as people call it.
        setting: of an option.
    """

    kind: Literal["part", "finding", "option"]
    name: str
    title: str
    setting: str | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """What a rule demands of one column.

    Attributes:
        text: the demand: `>180`, `neither body nor tail`, `> 2 and ≤ 4 cm`.
        alternative: whether this is one of several of which one is enough.
        as_set: of an option: whether it is set so.
        idle: one of several alternatives that no longer matter, because an option settles the matter.
    """

    text: str
    alternative: bool
    as_set: bool | None = None
    idle: bool = False


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule of the table.

    Attributes:
        rule: of the plan.
        cells: one for each column; None: not looked at. None as a whole where the condition does not fit a row.
        switched_off: whether the settings of the options alone make it impossible.
    """

    rule: Rule
    cells: tuple[Cell | None, ...] | None
    switched_off: bool


@dataclass(frozen=True, slots=True)
class RuleTable:
    """The rules of one decision.

    Attributes:
        columns: parts first, then findings in the order in which the rules come to them, options last. Empty where
            there would be more than `MOST_COLUMNS`.
        rows: in the order in which they decide.
    """

    columns: tuple[Column, ...]
    rows: tuple[RuleRow, ...]


def rule_table(rules: Sequence[Rule], plan: Plan) -> RuleTable:
    """The table of these rules of the plan: of its final decision, or of one part."""
    found = list(dict.fromkeys(_key(leaf) for rule in rules for leaf in leaves_of(rule.when)))
    kinds = ("part", "finding", "option")
    keys = sorted(found, key=lambda key: kinds.index(key[0]))
    keys = keys if len(keys) <= MOST_COLUMNS else []
    settings = plan.option_settings
    rows: list[RuleRow] = []
    for rule in rules:
        demands = _demands(rule.when, plan) if keys else None
        cells = None if demands is None else tuple(demands.get(key) for key in keys)
        rows.append(RuleRow(rule, cells, evaluate(rule.when, {}, settings) is False))
    return RuleTable(_columns(keys, plan), tuple(rows))


def _columns(keys: Iterable[ColumnKey], plan: Plan) -> tuple[Column, ...]:
    titles = {"finding": finding_titles(plan), "part": part_titles(plan)}
    settings = plan.option_settings
    return tuple(
        Column(
            kind, name, titles.get(kind, {}).get(name, spoken(name)), settings.get(name) if kind == "option" else None
        )
        for kind, name in keys
    )


def _key(leaf: Condition) -> ColumnKey:
    if isinstance(leaf, OptionIs):
        return "option", leaf.option
    if isinstance(leaf, PartIn):
        return "part", leaf.part
    if isinstance(leaf, Is | In | Bounds):
        return "finding", leaf.finding
    raise TypeError(f"not a leaf of a condition: {type(leaf).__name__}")


def _demands(condition: Condition, plan: Plan) -> dict[ColumnKey, Cell] | None:
    """Column -> what is demanded of it; None where the condition does not fit a row."""
    choices = [_members(*member, every=False) for member in _members(condition, True, every=True)]
    if any(isinstance(part, AllOf | AnyOf) for choice in choices for part, _ in choice):
        return None
    told: dict[ColumnKey, list[str]] = {}
    cells: dict[ColumnKey, Cell] = {}
    for choice in choices:
        by_column: dict[ColumnKey, list[str]] = {}
        for leaf, holds in choice:
            by_column.setdefault(_key(leaf), []).append(_demand(leaf, holds, plan))
        if len(by_column) == 1:
            ((key, texts),) = by_column.items()
            told.setdefault(key, []).append(_joined(texts, "or"))
        elif any(cell.alternative for cell in cells.values()):
            return None  # a second list of alternatives could not be told from the first
        else:
            cells |= {key: Cell(_joined(texts, "or"), True) for key, texts in by_column.items()}
    if set(told) & set(cells):
        return None
    cells |= {key: Cell(_joined(texts, "and"), False) for key, texts in told.items()}
    return None if any(not cell.text for cell in cells.values()) else _with_options(choices, cells, plan)


def _with_options(choices: Sequence[Choice], cells: Mapping[ColumnKey, Cell], plan: Plan) -> dict[ColumnKey, Cell]:
    """The same cells, told how the options are set."""
    settings = plan.option_settings
    as_set: dict[ColumnKey, bool] = {}
    for choice in choices:
        met: dict[ColumnKey, bool] = {}
        for leaf, holds in choice:
            if isinstance(leaf, OptionIs):
                met[_key(leaf)] = met.get(_key(leaf), False) or (settings[leaf.option] == leaf.is_) is holds
        for key, is_met in met.items():
            as_set[key] = as_set.get(key, True) and is_met
    settled = any(is_met and cells[key].alternative for key, is_met in as_set.items())
    return {
        key: replace(
            cell,
            as_set=as_set.get(key),
            idle=cell.alternative and (as_set[key] is False if key in as_set else settled),
        )
        for key, cell in cells.items()
    }


def _joined(texts: Sequence[str], word: Literal["and", "or"]) -> str:
    """The texts joined by the word; empty where that could be read in two ways."""
    other = " or " if word == "and" else " and "
    mixed = len(texts) > 1 and any(other in text or " nor " in text or not text for text in texts)
    return "" if mixed else f" {word} ".join(texts)


def _members(condition: Condition, holds: bool, *, every: bool) -> Choice:
    """The conditions of which all (or one) must hold (or not hold), with joins of the same kind opened up."""
    if isinstance(condition, Not):
        return _members(condition.not_, not holds, every=every)
    if isinstance(condition, AllOf | AnyOf) and (isinstance(condition, AllOf) is holds) is every:
        parts = condition.all if isinstance(condition, AllOf) else condition.any
        return [member for part in parts for member in _members(part, holds, every=every)]
    return [(condition, holds)]


def _demand(leaf: Condition, holds: bool, plan: Plan) -> str:
    if isinstance(leaf, Bounds):
        return _range(leaf, holds, plan)
    if not isinstance(leaf, Is | In | OptionIs | PartIn):
        raise TypeError(f"not a leaf of a condition: {type(leaf).__name__}")
    asked, among = values_asked(leaf, plan)
    others = tuple(value for value in among if value not in asked)
    if not holds and len(others) == 1:  # "not no" of yes and no
        asked, holds = others, True
    read = [value_text(value, among) for value in asked]
    if holds:
        return listed(read, "or")
    return f"not {read[0]}" if len(read) == 1 else f"neither {listed(read, 'nor')}"


def _range(leaf: Bounds, holds: bool, plan: Plan) -> str:
    told = [
        f"{sign if holds else opposite} {getattr(leaf, field):.12g}"
        for field, sign, opposite in _SIGNS
        if getattr(leaf, field) is not None
    ]
    return f"{(' and ' if holds else ' or ').join(told)} {unit_of(leaf.finding, plan)}".strip()
