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
WRITTEN_LATER = "nat-"
"""Ids of cases that were written after the recorded run of the planner, to train and calibrate on."""


def cases_by_hand(split: Split | None = None) -> tuple[SyntheticCase, ...]:
    """The shipped cases that were written by hand and given to the planner, with the rules of the plan by hand."""
    given = [case for case in read_cases("pancreatic_cancer", split) if case.provenance == "hand"]
    return tuple(under_rules_of(PLAN_BY_HAND, case) for case in given if not case.id.startswith(WRITTEN_LATER))
