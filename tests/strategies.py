"""Hypothesis strategies for the whole test suite, in one place."""

from __future__ import annotations

from itertools import product

from hypothesis import strategies as st

from medorchestra.local.answers import Answer, AnswerStatus, Quote
from medorchestra.rules import (
    NOT_STATED,
    AllOf,
    AnyOf,
    Bounds,
    Condition,
    DecisionRule,
    Domain,
    In,
    Is,
    Not,
    Silence,
    evaluate,
)

OUTCOMES = ("cure", "control", "comfort")
NUMBER = "size"
"""Name of the one number finding in random tables."""
CUTS = (1.0, 2.0)


@st.composite
def domains(draw: st.DrawFn) -> tuple[Domain, ...]:
    """Three closed findings with two or three values and any kind of silence, and one number."""
    closed: list[Domain] = []
    for name in ("vessel", "vein", "node"):
        values = tuple(f"{name}_{i}" for i in range(draw(st.integers(2, 3))))
        unless = if_stated = None
        reads_as = draw(st.sampled_from([None, *values]))
        plain = [domain for domain in closed if not domain.silence.looks_at]
        if reads_as is not None and plain:
            other = draw(st.sampled_from(plain))
            kind = draw(st.sampled_from(["always", "unless", "if_stated", "both"]))
            if kind in ("unless", "both"):
                unless = In(finding=other.finding, in_=(draw(st.sampled_from(other.values or ())),))
            if kind in ("if_stated", "both"):
                if_stated = other.finding
        closed.append(Domain(name, values, Silence(reads_as, if_stated, unless)))
    return (*closed, Domain(NUMBER, None))


def leaves(table: tuple[Domain, ...]) -> st.SearchStrategy[Condition]:
    """A condition on one finding of the table."""

    def leaf(domain: Domain) -> st.SearchStrategy[Condition]:
        if domain.values is None:
            bound = st.sampled_from(CUTS)
            return st.one_of(
                st.builds(lambda b: Bounds(finding=domain.finding, above=b), bound),
                st.builds(lambda b: Bounds(finding=domain.finding, at_least=b), bound),
                st.builds(lambda b: Bounds(finding=domain.finding, at_most=b), bound),
            )
        values = st.sampled_from(domain.values)
        return st.one_of(
            st.builds(lambda v: Is(finding=domain.finding, is_=v), values),
            st.builds(
                lambda vs: In(finding=domain.finding, in_=tuple(vs)),
                st.lists(values, min_size=1, max_size=2, unique=True),
            ),
        )

    return st.sampled_from(table).flatmap(leaf)


def conditions(table: tuple[Domain, ...]) -> st.SearchStrategy[Condition]:
    """Trees of all, any and not over the table's findings."""
    return st.recursive(
        leaves(table),
        lambda inner: st.one_of(
            st.builds(lambda parts: AllOf(all=tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
            st.builds(lambda parts: AnyOf(any=tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
            st.builds(lambda part: Not(not_=part), inner),
        ),
        max_leaves=5,
    )


@st.composite
def rule_lists(draw: st.DrawFn, table: tuple[Domain, ...]) -> tuple[DecisionRule, ...]:
    """One to five rules; they may leave gaps."""
    count = draw(st.integers(1, 5))
    return tuple(
        DecisionRule(f"rule_{i}", draw(st.sampled_from(OUTCOMES)), draw(conditions(table))) for i in range(count)
    )


SAMPLE_NUMBERS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""One number in every cell between the cuts, and the cuts."""


def values_of(domain: Domain) -> tuple[str | float, ...]:
    """All stated values that make a difference."""
    return domain.values if domain.values is not None else SAMPLE_NUMBERS


@st.composite
def knowledge(draw: st.DrawFn, table: tuple[Domain, ...]) -> dict[str, str | float | None]:
    """A value, silence or nothing known, for every finding."""
    return {d.finding: draw(st.sampled_from([*values_of(d), NOT_STATED, None])) for d in table}


def completions(table: tuple[Domain, ...], known: dict[str, str | float | None]) -> list[dict[str, str | float]]:
    """All truths that fit what is known, worked out the slow way: the oracle for the decision diagram."""

    def truths(domain: Domain) -> list[tuple[str | float, bool]]:
        """(truth, whether the report is silent); what is unknown may be stated or silent."""
        value = known.get(domain.finding)
        if value is not None and value != NOT_STATED:
            return [(value, False)]
        silences = (True,) if value == NOT_STATED else (False, True)
        return [(truth, silent) for truth in values_of(domain) for silent in silences]

    found: list[dict[str, str | float]] = []
    for combination in product(*(truths(domain) for domain in table)):
        truth = {d.finding: value for d, (value, _) in zip(table, combination, strict=True)}
        silent = {d.finding for d, (_, is_silent) in zip(table, combination, strict=True) if is_silent}
        read = read_silences(table, truth, silent)
        if read not in found:
            found.append(read)
    return found


def read_silences(table: tuple[Domain, ...], truth: dict[str, str | float], silent: set[str]) -> dict[str, str | float]:
    """The truth with silences read as values where the table says so: those without conditions first."""
    read = dict(truth)
    for domain in sorted(table, key=lambda d: bool(d.silence.looks_at)):
        silence = domain.silence
        if domain.finding not in silent or silence.reads_as is None:
            continue
        unknown = silence.unless is not None and evaluate(silence.unless, read) is True
        if not unknown and silence.if_stated not in silent:
            read[domain.finding] = silence.reads_as
    return read


def first_rule(rules: tuple[DecisionRule, ...], truth: dict[str, str | float]) -> DecisionRule | None:
    """The rule that decides a complete truth."""
    return next((rule for rule in rules if evaluate(rule.when, truth) is True), None)


quotes = st.builds(
    Quote,
    start=st.integers(0, 10_000),
    end=st.integers(0, 10_000),
    text=st.text(),
    score=st.floats(0, 1),
    found_by=st.sampled_from(["focus_terms", "model"]),
)
"""A quote of any text; its span fits no report."""


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """An answer of any type and status, with whatever text a report can hold."""
    values = st.one_of(
        st.none(), st.text(), st.floats(allow_nan=False), st.lists(st.text(), min_size=1, max_size=3).map(tuple)
    )
    return Answer(
        subtask=draw(st.text(min_size=1)),
        finding=draw(st.none() | st.text(min_size=1)),
        status=draw(st.sampled_from(AnswerStatus)),
        value=draw(values),
        probabilities=draw(st.dictionaries(st.text(), st.floats(0, 1), max_size=5)),
        quotes=tuple(draw(st.lists(quotes, max_size=3))),
        characters_read=draw(st.integers(0, 100_000)),
        characters_total=draw(st.integers(0, 100_000)),
        seconds=draw(st.floats(0, 1e6)),
        tokens=draw(st.integers(0, 100_000)),
        error=draw(st.none() | st.text()),
    )
