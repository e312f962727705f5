"""The full trace of a staged report, JSON-ready: from the outcome down to rule, guideline, quotes and digests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, time
from typing import Any

from medorchestra.local.aggregator import DecidingRule, Decision
from medorchestra.local.staged_report import StagedReport
from medorchestra.plan import Plan


def to_trace(staged: StagedReport, digests: Mapping[str, str | None]) -> dict[str, Any]:
    """Everything a decision rests on, JSON-ready: from the outcome down to quotes with spans and digests."""
    decision = staged.decision
    return {
        "report_id": staged.report_id,
        "report_digest": staged.report.digest,
        "carried": json_ready(staged.report.carried),
        "status": staged.status.value,
        "error": staged.error,
        "decision": None if decision is None else _decision_trace(decision, staged.plan),
        "answers": [answer.to_json() for answer in staged.answers],
        "tokens": staged.tokens,
        "seconds": round(staged.seconds, 4),
        "resumed_answers": staged.resumed,
        "validated": staged.validated,
        "digests": dict(digests),
    }


def _decision_trace(decision: Decision, plan: Plan) -> dict[str, Any]:
    return {
        "outcome": decision.outcome,
        "best_outcome": decision.best_outcome,
        "probability": decision.probability,
        "probabilities": dict(decision.probabilities),
        "probability_between": None if decision.probability_between is None else list(decision.probability_between),
        "undecided": decision.undecided,
        "possible_outcomes": list(decision.possible_outcomes),
        "outcome_set": None if decision.outcome_set is None else list(decision.outcome_set),
        "rule": _rule_trace(decision.rule, plan),
        "rests_on": list(decision.rests_on),
        "assumed": {
            name: {"read_as": value, "why": plan.finding(name).not_stated.why}
            for name, value in decision.assumed.items()
        },
        "missing": list(decision.missing),
        "skipped": list(decision.skipped),
        "parts": {
            name: {
                "outcome": part.outcome,
                "best_outcome": part.best_outcome,
                "probability": part.probability,
                "possible_outcomes": list(part.possible_outcomes),
                "rule": _rule_trace(part.rule, plan),
                "missing": list(part.missing),
            }
            for name, part in decision.parts.items()
        },
        "flags": [{"id": flag.id, "kind": flag.kind, "message": flag.message} for flag in decision.flags],
        "review": decision.review,
        "review_reasons": list(decision.review_reasons),
    }


def _rule_trace(rule: DecidingRule | None, plan: Plan) -> dict[str, Any] | None:
    if rule is None:
        return None
    return {
        "id": rule.id,
        "outcome": rule.outcome,
        "guideline": plan.guideline.title,
        "edition": plan.guideline.edition,
        "section": rule.citation.section,
        "quote": rule.citation.quote,
        "note": rule.note,
    }


def json_ready(value: object) -> Any:
    """A carried value (of a CSV, a data frame, a database) as JSON knows it.

    Dates and times in ISO 8601; what is missing (None, NaN, NaT, NA) is None; what JSON does not know, as text.
    """
    if value is None or type(value).__name__ == "NAType":  # pandas' NA is not even equal or unequal to itself
        return None
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, date | time):
        return None if value != value else value.isoformat()  # NaT differs from itself
    if isinstance(value, Mapping):
        return {str(name): json_ready(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(inner) for inner in value]
    unpack = getattr(value, "tolist", None)  # of numpy
    return json_ready(unpack()) if callable(unpack) else str(value)
