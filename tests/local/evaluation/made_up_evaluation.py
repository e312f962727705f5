"""Small made-up evaluations for the tests of what is shown: the counts go together, the accuracies mean nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from medorchestra.local.evaluation.error_anatomy import CaseError, ErrorAnatomy, ErrorKind, FindingCost
from medorchestra.local.evaluation.evaluation import Comparison, Evaluation, ReaderScores, RunScores, WrongCase
from medorchestra.local.evaluation.measures import (
    Agreement,
    agreement,
    paired_difference,
    reliability,
    repeatability,
    risk_coverage_of,
    score_outcomes,
    share_of,
)
from medorchestra.local.evaluation.predictions import NO_DECISION

OUTCOMES = ("resectable", "borderline", "locally_advanced", "metastatic")
R, B, L, M = OUTCOMES
TRUTHS = (R,) * 8 + (B,) * 7 + (L,) * 7 + (M,) * 8
ADAPTED = (R, R, R, R, R, R, B, R, B, B, R, B, B, L, B, L, L, B, L, L, L, L, M, M, M, M, M, M, M, R)
BARE = (R, R, B, B, R, M, B, R, R, R, R, B, None, L, R, L, R, B, R, R, M, L, M, R, M, B, M, None, M, R)
READER = (R, R, R, R, R, R, R, B, B, B, B, B, R, L, B, L, L, L, L, B, L, L, M, M, M, M, M, M, M, M)
CERTAINTY = (0.97, 0.92, 0.71, 0.88, 0.55, 0.64, 0.52, 0.99, 0.81, 0.43)
DIGEST = "sha256:" + "3fa9c1" * 10 + "07d2"


def certainty(place, said):
    chosen = CERTAINTY[place % len(CERTAINTY)]
    return {name: chosen if name == said else (1 - chosen) / 3 for name in OUTCOMES}


def wrong_of(name, said):
    return tuple(
        WrongCase(name, f"case-{place:03}", truth, answer or NO_DECISION)
        for place, (truth, answer) in enumerate(zip(TRUTHS, said, strict=True))
        if truth != answer
    )


def anatomy_of(name, said):
    wrong = wrong_of(name, said)
    kinds = (ErrorKind.FINDING_MISREAD, ErrorKind.FINDING_MISSED, ErrorKind.FINDING_INVENTED, ErrorKind.RULE_GAP)
    errors = tuple(
        CaseError(
            one.case_id,
            one.truth,
            one.predicted,
            ErrorKind.UNREADABLE if one.predicted == NO_DECISION else kinds[place % len(kinds)],
            ("pv_smv_contact",) if place % len(kinds) < 2 else ("sma_contact", "liver_mets")[: 3 - place % len(kinds)],
        )
        for place, one in enumerate(wrong)
    )
    counted = [error.kind for error in errors]
    return ErrorAnatomy(
        n=len(said),
        wrong=len(wrong),
        kinds={kind: counted.count(kind) for kind in dict.fromkeys(counted)},
        errors=errors,
        costs=(
            FindingCost("pv_smv_contact", 9, 30, 4, 1),
            FindingCost("sma_contact", 6, 30, 3, 0),
            FindingCost("liver_mets", 3, 30, 1, 2),
            FindingCost("tumor_size_mm", 2, 28, 0, 0),
        ),
        with_gold_findings=share_of([True] * 29 + [False]),
        unexplained=0,
        quotes_missing=3,
        evidence={"cha_contact": 2},
        scope_doubts=1,
    )


def run_of(strategy, adapter, said, *, subtasks):
    name = strategy if adapter is None else f"{strategy} + adapter"
    scored = [
        (certainty(place, one), truth) for place, (one, truth) in enumerate(zip(said, TRUTHS, strict=True)) if one
    ]
    rights = [one == truth for one, truth in zip(said, TRUTHS, strict=True)]
    return RunScores(
        name=name,
        strategy=strategy,
        adapter=adapter,
        outcome=score_outcomes(TRUTHS, said, OUTCOMES),
        open_cases=share_of([True, False] if subtasks else [False, False]),
        unreviewed=share_of(rights[::2]) if subtasks else None,
        reviewed=share_of([place % 2 == 1 for place in range(32)]) if subtasks else None,
        reliability=reliability(scored),
        risk_coverage=risk_coverage_of(
            [max(one.values()) for one, _ in scored], [max(one, key=one.get) == truth for one, truth in scored]
        ),
        groups={
            "form": {"free_text": share_of(rights[:17]), "structured": share_of(rights[17:])},
            "sex": {"f": share_of(rights[::3]), "m": share_of(rights[1::3]), "missing": share_of(rights[2::3])},
        },
        readers={"reader_1": agreement(said, READER, OUTCOMES)},
        findings={
            "pv_smv_contact": share_of([place % 4 > 0 for place in range(30)]),
            "sma_contact": share_of([place % 5 > 0 for place in range(30)]),
            "tumor_size_mm": share_of([True] * 26 + [False] * 2),
        }
        if subtasks
        else {},
        anatomy=anatomy_of(name, said) if subtasks else None,
        repeatability=repeatability([said, (*said[:-2], L, None)]),
        failed=sum(one is None for one in said),
        seconds=41.5,
        tokens=18_230,
    )


def made_up_evaluation(**changes):
    """Two strategies, one of them with and without adapter, and one reader, on 30 decided and 2 open cases."""
    runs = (
        run_of("direct", None, BARE, subtasks=False),
        run_of("orchestrated", None, BARE, subtasks=True),
        run_of("orchestrated", "adapter.gguf", ADAPTED, subtasks=True),
    )
    hits = {
        "direct": [one == truth for one, truth in zip(BARE, TRUTHS, strict=True)],
        "orchestrated": [one == truth for one, truth in zip(BARE, TRUTHS, strict=True)],
        "orchestrated + adapter": [one == truth for one, truth in zip(ADAPTED, TRUTHS, strict=True)],
        "reader_1": [one == truth for one, truth in zip(READER, TRUTHS, strict=True)],
    }
    pairs = [("direct", "orchestrated + adapter"), ("orchestrated", "orchestrated + adapter")]
    pairs += [("reader_1", "orchestrated + adapter")]
    made = Evaluation(
        title="Resectability of pancreatic cancer: thirty_cases.csv",
        made_on=date(2031, 5, 4),
        topic="pancreatic_cancer",
        plan_digest=DIGEST,
        labelled={
            "name": "thirty_cases.csv",
            "digest": DIGEST,
            "cases": 32,
            "decided": 30,
            "open": 2,
            "unlabelled": 1,
        },
        outcomes=OUTCOMES,
        order=OUTCOMES,
        runs=runs,
        readers=(
            ReaderScores("reader_1", score_outcomes(TRUTHS, READER, OUTCOMES), agreement(TRUTHS, READER, OUTCOMES)),
        ),
        comparisons=tuple(Comparison(one, two, paired_difference(hits[one], hits[two])) for one, two in pairs),
        wrong=tuple(
            one
            for name, said in (("direct", BARE), ("orchestrated", BARE), ("orchestrated + adapter", ADAPTED))
            for one in wrong_of(name, said)
        ),
        about={
            "models": [
                {"model": "SmolLM2-135M", "adapter": None, "settings": {"context": 2048, "threads": 2}},
                {"model": "SmolLM2-135M", "adapter": "adapter.gguf", "settings": {"context": 2048, "threads": 2}},
            ],
            "versions": {"python": "3.12.1", "scipy": None},
            "command": ["medorchestra", "evaluate", "thirty cases.csv"],
        },
    )
    return replace(made, **changes)


def nothing_measured():
    """A run over a set in which no case has a single true outcome."""
    empty = RunScores(
        name="direct",
        strategy="direct",
        adapter=None,
        outcome=score_outcomes([], [], OUTCOMES),
        open_cases=share_of([]),
        unreviewed=None,
        reviewed=None,
        reliability=reliability([]),
        risk_coverage=risk_coverage_of([], []),
        groups={},
        readers={"reader_1": Agreement(0, None, None, None, 0)},
        findings={},
        anatomy=None,
        repeatability=None,
        failed=0,
        seconds=0.0,
        tokens=0,
    )
    labelled = {"name": "none.csv", "digest": DIGEST, "cases": 0, "decided": 0, "open": 0, "unlabelled": 0}
    reader = ReaderScores("reader_1", score_outcomes([], [], OUTCOMES), Agreement(0, None, None, None, 0))
    differs = Comparison("reader_1", "direct", paired_difference([], []))
    return made_up_evaluation(
        runs=(empty,), readers=(reader,), comparisons=(differs,), wrong=(), labelled=labelled, about={}, order=()
    )
