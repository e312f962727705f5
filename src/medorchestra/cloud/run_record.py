"""What a run of the planner came to, as facts for run.json. Counts and names, no texts.

Computes nothing that the run does not know already, and writes no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from medorchestra.cloud.cases.phrase_writing import PhraseBankWriting
from medorchestra.cloud.desk.prices import LIST_PRICES, ListPrice, estimate
from medorchestra.cloud.desk.usage import Usage
from medorchestra.cloud.guideline import Guideline
from medorchestra.cloud.planner import PlanRun
from medorchestra.plan import Plan
from medorchestra.rehearsal_scores import RehearsalScores
from medorchestra.synthetic import SPLITS, SyntheticCase, cases_digest


def guideline_facts(guideline: Guideline) -> dict[str, Any]:
    """Which text the plan was made from."""
    return {"title": guideline.title, "edition": guideline.edition, "digest": guideline.digest}


def usage_facts(usage: Usage, price: ListPrice | None) -> dict[str, Any]:
    """What the cloud was asked for, by step and in all, and what that costs at every list price that is known.

    Args:
        price: the price that was given for the model that was asked, beside the known ones.
    """
    prices = {each.model: each for each in (*LIST_PRICES, *((price,) if price is not None else ()))}
    estimates = [estimate(usage.total, each) for each in prices.values()]
    return {
        "steps": {step: _rounded(asdict(spent)) for step, spent in usage.steps.items()},
        "total": _rounded(asdict(usage.total)),
        "dollars": [
            {
                "at_the_price_of": each.price.model,
                "source": each.price.source,
                "read_on": each.price.read_on,
                "sent": round(each.dollars, 4),
                "had_the_cache_been_empty": round(each.dollars + each.saved, 4),
                "share_of_replies_with_guessed_tokens": each.guessed,
            }
            for each in estimates
        ],
    }


def run_facts(run: PlanRun) -> dict[str, Any]:
    """Cases, proof, rounds and development scores of a run."""
    written, rejected = len(run.writing.cases), len(run.writing.rejected)
    proof = run.proof
    return {
        "cases": case_facts(run.cases) | {"written": written, "rejected": rejected},
        "proof": {
            "holds": proof.holds,
            "checked": dict(proof.counts),
            "problems": dict(Counter(str(problem.kind) for problem in proof.problems)),
        },
        "phrases": None if run.phrases is None else phrase_facts(run.phrases),
        "plan": plan_facts(run.plan),
        "rounds": [each.to_json() for each in run.rounds],
        "development": None if run.development is None else score_facts(run.development, run.plan),
    }


def case_facts(cases: Iterable[SyntheticCase]) -> dict[str, Any]:
    """How many cases there are in each split, and their digest."""
    cases = tuple(cases)
    splits = Counter(case.split for case in cases)
    return {"digest": cases_digest(cases), "splits": {split: splits[split] for split in SPLITS}}


def phrase_facts(writing: PhraseBankWriting) -> dict[str, Any]:
    """How large a phrase bank is, what was left out of it, and how its composed reports were read back."""
    bank = writing.bank
    return {
        "phrases": len(bank.phrases),
        "distractors": len(bank.distractors),
        "layouts": len(bank.skeletons),
        "dropped": dict(Counter(each.reason for each in writing.dropped)),
        "composed_and_read_back": writing.checked,
        "findings_read_otherwise": sum(writing.misread.values()),
        "unsayable": dict(writing.unsayable),
        "lacks": len(writing.lacks),
    }


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Which plan it is, and how large."""
    return {
        "topic": plan.topic,
        "digest": plan.digest,
        "findings": len(plan.findings),
        "rules": len(plan.all_rules),
        "parts": [part.name for part in plan.parts],
        "outcomes": [outcome.name for outcome in plan.outcomes],
        "profile": plan.profile.model_dump(mode="json", exclude={"head"}),
    }


def score_facts(scores: RehearsalScores, plan: Plan) -> dict[str, Any]:
    """How a rehearsal went: right ones and how many there were, of the outcome and of each finding."""
    findings = {finding.name: scores.finding(finding.name) for finding in plan.findings}
    return {
        "model": scores.model,
        "model_digest": scores.model_digest,
        "adapter_digest": scores.adapter_digest,
        "cases": cases_digest(reading.case for reading in scores.readings),
        "outcome": [scores.outcome_correct, len(scores.decided)],
        "findings": {name: [score.correct, score.n] for name, score in findings.items()},
    }


def _rounded(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in facts.items()}
