"""The full trace of a staged report, JSON-ready: from the outcome down to rule, guideline, quotes and digests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medorchestra.local.aggregator import Decision
from medorchestra.local.staged_report import StagedReport
from medorchestra.plan import Plan


def to_trace(staged: StagedReport, digests: Mapping[str, str | None]) -> dict[str, Any]:
    """Everything a decision rests on, JSON-ready: from the outcome down to quotes with spans and digests."""
    decision = staged.decision
    return {
        "report_id": staged.report_id,
        "report_digest": staged.report.digest,
        "carried": dict(staged.report.carried),
        "status": staged.status.value,
        "error": staged.error,
        "decision": None if decision is None else _decision_trace(decision, staged.plan),
        "answers": [answer.to_json() for answer in staged.answers],
        "tokens": staged.tokens,
        "seconds": round(staged.seconds, 4),
        "resumed_answers": staged.resumed,
        "digests": dict(digests),
    }


def _decision_trace(decision: Decision, plan: Plan) -> dict[str, Any]:
    rule = decision.rule
    return {
        "outcome": decision.outcome,
        "best_outcome": decision.best_outcome,
        "probability": decision.probability,
        "probabilities": dict(decision.probabilities),
        "undecided": decision.undecided,
        "possible_outcomes": list(decision.possible_outcomes),
        "rule": None
        if rule is None
        else {
            "id": rule.id,
            "outcome": rule.outcome,
            "guideline": plan.guideline.title,
            "edition": plan.guideline.edition,
            "section": rule.citation.section,
            "quote": rule.citation.quote,
            "note": rule.note,
        },
        "rests_on": list(decision.rests_on),
        "assumed": {
            name: {"read_as": value, "why": plan.finding(name).not_stated.why}
            for name, value in decision.assumed.items()
        },
        "missing": list(decision.missing),
        "flags": [{"id": flag.id, "kind": flag.kind, "message": flag.message} for flag in decision.flags],
        "review": decision.review,
        "review_reasons": list(decision.review_reasons),
    }
