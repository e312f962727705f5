"""Hypothesis strategies for whole plans, out of the random tables in `strategies`."""

from __future__ import annotations

from datetime import date

from hypothesis import strategies as st
from strategies import NUMBER, OUTCOMES, conditions, domains, rule_lists

from medorchestra.plan import (
    Citation,
    ExecutionProfile,
    Finding,
    Flag,
    GuidelineReference,
    NotStated,
    NumberRange,
    Outcome,
    Part,
    Plan,
    PromptForms,
    Provenance,
    Rule,
    Scope,
    Subtask,
)
from medorchestra.rules import NOT_STATED, Domain

CITATION = Citation(section="1", quote="As it is written.")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Three closed findings and a number, one to five rules, sometimes a part and a flag of either kind."""
    table = draw(domains())
    parts = [_part(table, draw)] if draw(st.booleans()) else []
    flags = [
        Flag(
            id=f"flag_{i}",
            kind=draw(st.sampled_from(["caution", "contradiction"])),
            when=draw(conditions(table)),
            message="Look at it.",
        )
        for i in range(draw(st.integers(0, 2)))
    ]
    return Plan(
        topic="random_topic",
        title="A random plan",
        guideline=GuidelineReference(title="T", edition="E", digest="sha256:" + "0" * 64),
        provenance=Provenance(origin="hand", author="the tests", made_on=date(2026, 11, 24)),
        scope=Scope(language="en"),
        profile=ExecutionProfile(head=PromptForms(instructed="Report:")),
        outcomes=tuple(Outcome(name=name, description=name) for name in OUTCOMES),
        findings=tuple(_finding(domain) for domain in table),
        subtasks=tuple(_subtask(domain) for domain in table),
        parts=tuple(parts),
        rules=tuple(
            Rule(id=rule.rule, when=rule.when, outcome=rule.outcome, citation=CITATION)
            for rule in draw(rule_lists(table))
        ),
        flags=tuple(flags),
    )


def _part(table: tuple[Domain, ...], draw: st.DrawFn) -> Part:
    rules = draw(rule_lists(table))
    return Part(
        name="extent",
        title="Extent",
        outcomes=tuple(Outcome(name=name, description=name) for name in OUTCOMES),
        rules=tuple(
            Rule(id=f"extent_{rule.rule}", when=rule.when, outcome=rule.outcome, citation=CITATION) for rule in rules
        ),
    )


def _finding(domain: Domain) -> Finding:
    silence = domain.silence
    return Finding(
        name=domain.finding,
        description=f"What is said of the {domain.finding}.",
        values=None if domain.values is None else {value: f"It is {value}." for value in domain.values},
        number=NumberRange(unit="cm", minimum=0.1, maximum=20.0) if domain.finding == NUMBER else None,
        not_stated=NotStated(
            reads_as=silence.reads_as, if_stated=silence.if_stated, unless=silence.unless, why="It is a test."
        ),
    )


def _subtask(domain: Domain) -> Subtask:
    return Subtask(
        id=domain.finding,
        finding=domain.finding,
        answer="choice" if domain.values is not None else "number",
        prompt=PromptForms(instructed="Which of {{ labels }}?"),
        labels={value: value.replace("_", " ") for value in (*(domain.values or ()), NOT_STATED)},
        focus_terms=(domain.finding,),
        citation=CITATION,
    )
