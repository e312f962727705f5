"""What a proof can find wrong with a plan, in words: kinds, problems, limits. Finds nothing itself.

Problems go back to the cloud model: they hold names, values and counts of plan and cases, never the text of a case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ProblemKind(StrEnum):
    """What is wrong."""

    NEVER_HOLDS = "never_holds"
    """No combination of findings fulfils the condition."""
    SHADOWED = "shadowed"
    """Whenever the rule holds, an earlier rule is first."""
    CONTRADICTORY = "contradictory"
    """An earlier rule has the same condition and another outcome."""
    UNREACHABLE_OUTCOME = "unreachable_outcome"
    """No rule that can decide gives the outcome."""
    GAP = "gap"
    """No rule holds for a combination of stated findings that is not declared undecidable."""
    DECIDED = "decided"
    """Declared undecidable, and in fact always decided."""
    WRONG_POSSIBILITIES = "wrong_possibilities"
    """With unknown findings, the compiled rules allow other rules than trying every completion does."""
    TOO_ENTANGLED = "too_entangled"
    """The rules could not be compiled for this question, so that it is not proven."""
    GUIDELINE = "guideline"
    """The plan was made from another text."""
    CITATION = "citation"
    """A quote that is not in its section word for word."""
    BOUNDARY = "boundary"
    """A bound that contradicts the guideline's words or the value's own description."""
    PROMPT = "prompt"
    """A question that does not render, or is too long."""
    LABEL = "label"
    """Labels that cannot be told apart."""
    EXAMPLE = "example"
    """A solved example that does not come from a development case, or is wrong."""
    CASE = "case"
    """A case whose findings do not lead to what it expects."""
    SPLIT = "split"
    """Splits that share a case."""
    UNCOVERED_OUTCOME = "uncovered_outcome"
    UNCOVERED_RULE = "uncovered_rule"
    UNCOVERED_VALUE = "uncovered_value"
    UNCOVERED_SILENCE = "uncovered_silence"
    """No case is silent on a finding whose silence is read as a value, whatever else is stated: told, and no fault."""
    UNCOVERED_BOUNDARY = "uncovered_boundary"


UNCOVERED = frozenset(
    {
        ProblemKind.UNCOVERED_OUTCOME,
        ProblemKind.UNCOVERED_RULE,
        ProblemKind.UNCOVERED_VALUE,
        ProblemKind.UNCOVERED_SILENCE,
        ProblemKind.UNCOVERED_BOUNDARY,
    }
)
"""What more cases would mend."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault.

    Attributes:
        kind: what is wrong.
        where: the place in plan or cases: `rule sma_over_180`, `case dev-f01`.
        message: what and why, with a counter-example where there is one.
    """

    kind: ProblemKind
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message} [{self.kind}]"


@dataclass(frozen=True, slots=True)
class ProofSettings:
    """How far a proof goes.

    Attributes:
        minimum_cases: cases wanted for every outcome, rule, value and boundary.
        longest_question: most characters of a rendered question.
        sampled: partial assignments that are tried by every completion, where there are too many to try all.
        seed: of that sample.
        most_option_settings: settings of the options that are proven; where there are more, the plan's own and every
            single change of it.
        most_gaps: gaps named for each decision; those that differ in one finding only are told as one.
    """

    minimum_cases: int = 1
    longest_question: int = 4_000
    sampled: int = 1_000
    seed: int = 0
    most_option_settings: int = 64
    most_gaps: int = 5


def readable(assignment: Mapping[str, str | float | tuple[str | float, ...]]) -> str:
    """`sma_contact=<=180, nodes=0|1|2`; several values stand for any of them."""
    told = (f"{name}={_value(value)}" for name, value in assignment.items())
    return ", ".join(told) or "whatever the findings"


def _value(value: str | float | tuple[str | float, ...]) -> str:
    if isinstance(value, tuple):
        return "|".join(_value(one) for one in value)
    return value if isinstance(value, str) else f"{value:g}"
