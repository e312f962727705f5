"""The proof of a plan: what can be known of it without a model, before it is used. Every fault with a counter-example.

Composes the proofs of rules, possibilities, bounds, citations, prompts and cases; each lies in a module of its own.
Changes nothing and asks no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medorchestra.cloud.guideline import Guideline
from medorchestra.cloud.proof.bounds import prove_bounds
from medorchestra.cloud.proof.cases import prove_cases
from medorchestra.cloud.proof.citations import prove_citations
from medorchestra.cloud.proof.enumeration import prove_possibilities
from medorchestra.cloud.proof.problems import UNCOVERED, Problem, ProblemKind, ProofSettings
from medorchestra.cloud.proof.prompts import prove_prompts
from medorchestra.cloud.proof.rules import prove_rules
from medorchestra.plan import Plan
from medorchestra.synthetic import SyntheticCase

__all__ = ["Problem", "ProblemKind", "Proof", "ProofSettings", "prove"]


@dataclass(frozen=True, slots=True)
class Proof:
    """What was checked and what was found.

    Attributes:
        topic, plan_digest: of the plan.
        problems: in the order of the checks.
        notices: what is worth knowing and no fault.
        counts: what was checked -> how much of it.
    """

    topic: str
    plan_digest: str
    problems: tuple[Problem, ...]
    notices: tuple[Problem, ...]
    counts: Mapping[str, int]

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.problems

    @property
    def uncovered(self) -> tuple[Problem, ...]:
        """What more cases would mend."""
        return tuple(problem for problem in (*self.problems, *self.notices) if problem.kind in UNCOVERED)

    def lines(self) -> list[str]:
        """For a terminal: the result, every problem, what was checked."""
        found = len(self.problems)
        result = "holds" if self.holds else f"{found} problem{'s' if found != 1 else ''}"
        lines = [f"Proof of {self.topic} ({self.plan_digest[:19]}…): {result}"]
        lines += [f"  - {problem}" for problem in self.problems]
        lines += [f"  note: {notice}" for notice in self.notices]
        checked = ", ".join(f"{what} {count:,}" for what, count in self.counts.items())
        return [*lines, f"  checked: {checked}"]


def prove(
    plan: Plan,
    guideline: Guideline,
    cases: Sequence[SyntheticCase] | None = None,
    *,
    settings: ProofSettings | None = None,
) -> Proof:
    """Prove a plan against its guideline and, where given, its synthetic cases.

    Args:
        cases: of all splits. Without them, coverage, splits and the origin of examples stay unchecked.
    """
    settings = settings or ProofSettings()
    proofs = [
        prove_citations(plan, guideline),
        prove_rules(plan, settings),
        prove_possibilities(plan, settings),
        prove_bounds(plan, guideline),
        prove_prompts(plan, settings),
    ]
    if cases is not None:
        proofs.append(prove_cases(plan, cases, settings))
    found = [problem for problems, _ in proofs for problem in problems]
    notices = tuple(problem for problem in found if problem.kind is ProblemKind.UNCOVERED_SILENCE)
    problems = tuple(problem for problem in found if problem not in notices)
    counts = {what: count for _, counted in proofs for what, count in counted.items()}
    return Proof(plan.topic, plan.digest, problems, notices, counts)
