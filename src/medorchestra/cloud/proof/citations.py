"""Every quote stands word for word in the section it names, and the plan was made from this very guideline."""

from __future__ import annotations

from collections.abc import Iterator

from medorchestra.cloud.guideline import Guideline
from medorchestra.cloud.proof.problems import Problem, ProblemKind
from medorchestra.plan import Citation, Plan

SHOWN = 60
"""Characters of a quote in a message."""


def prove_citations(plan: Plan, guideline: Guideline) -> tuple[list[Problem], dict[str, int]]:
    """Every citation of subtasks, rules and flags, and the guideline the plan refers to."""
    problems = list(_another_guideline(plan, guideline))
    citations = list(citations_of(plan))
    for where, citation in citations:
        if guideline.cites(citation.section, citation.quote):
            continue
        quote = " ".join(citation.quote.split())
        shown = quote if len(quote) <= SHOWN else quote[:SHOWN] + "…"
        problems.append(Problem(ProblemKind.CITATION, where, f'"{shown}" {_not_there(citation, guideline)}'))
    return problems, {"citations": len(citations)}


def citations_of(plan: Plan) -> Iterator[tuple[str, Citation]]:
    """Every citation of the plan with the place it stands at."""
    for subtask in plan.subtasks:
        yield f"subtask {subtask.id}", subtask.citation
    for rule in plan.all_rules:
        yield f"rule {rule.id}", rule.citation
    for flag in plan.flags:
        if flag.citation is not None:
            yield f"flag {flag.id}", flag.citation


def _not_there(citation: Citation, guideline: Guideline) -> str:
    if citation.section not in guideline.sections:
        return f"cannot be there: the guideline has no section {citation.section}"
    elsewhere = [number for number in guideline.sections if guideline.cites(number, citation.quote)]
    if elsewhere:
        return f"is not in section {citation.section}, but in {', '.join(elsewhere)}"
    return f"is not in section {citation.section}, word for word"


def _another_guideline(plan: Plan, guideline: Guideline) -> Iterator[Problem]:
    if plan.guideline.digest != guideline.digest:
        message = f"the plan was made from {plan.guideline.digest}, this text is {guideline.digest}"
        yield Problem(ProblemKind.GUIDELINE, "guideline", message)
    for what, said, true in (
        ("title", plan.guideline.title, guideline.title),
        ("edition", plan.guideline.edition, guideline.edition),
    ):
        if " ".join(said.split()) != " ".join(true.split()):
            yield Problem(ProblemKind.GUIDELINE, "guideline", f"the plan names {what} {said!r}, the text {true!r}")
