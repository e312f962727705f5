"""The plan of `pancreatic_cancer` that was written by hand, and the cases that were: what tests of the machinery use.

The shipped plan is made by the planner and may be made anew; what it must hold is in `tests/topics/`.
"""

from __future__ import annotations

from pathlib import Path

from medorchestra.cloud.decomposition import under_rules_of
from medorchestra.plan_files import read_plan
from medorchestra.synthetic import Split, SyntheticCase, read_cases

BY_HAND = Path(__file__).parent / "data" / "pancreatic_cancer_by_hand" / "plan.yaml"
PLAN_BY_HAND = read_plan(BY_HAND)


def cases_by_hand(split: Split | None = None) -> tuple[SyntheticCase, ...]:
    """The shipped cases that were written by hand, with the rules of the plan by hand."""
    cases = read_cases("pancreatic_cancer", split)
    return tuple(under_rules_of(PLAN_BY_HAND, case) for case in cases if case.provenance == "hand")
