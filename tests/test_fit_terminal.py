"""What is said of a model that was made fit; the rest of it is seen in the tests of the command."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from plan_by_hand import PLAN_BY_HAND

from medorchestra.finetune.finetuning import FinetunedAdapter
from medorchestra.fit_terminal import fitted_lines
from medorchestra.fitting import Fitted
from medorchestra.local.calibrating import FittedCalibration
from medorchestra.plan import Calibration

DIGEST = "sha256:" + "0" * 64
RECORD = {
    "data": {"hand": 0, "planner": 3, "composed": 5},
    "adapter_digest": DIGEST,
    "trained_on": "synthetic",
    "seconds": 120.0,
    "losses": [[20, 0.5]],
}


def said(record):
    calibration = Calibration(
        made_on=date(2026, 11, 25),
        plan_digest=DIGEST,
        model_digest=DIGEST,
        labels="synthetic",
        n=30,
        labels_digest=DIGEST,
        temperatures={},
        risk=0.05,
        review_below=1.0,
    )
    adapter = FinetunedAdapter(Path("adapter.gguf"), record, 0.01)
    return "\n".join(fitted_lines(Fitted(PLAN_BY_HAND, adapter, FittedCalibration(calibration, None, ()), None)))


def test_training_in_4_bits_is_told_with_what_it_changed():
    found = said(RECORD | {"quantization": "nf4", "difference_to_trained_base": 0.0321})
    assert "trained on the base in 4 bits (nf4): right answers differ in probability by 0.032" in found


@pytest.mark.parametrize("told", [{}, {"quantization": "none"}], ids=["an older record", "plain"])
def test_nothing_is_said_of_4_bits_where_there_were_none(told):
    found = said(RECORD | told)
    assert "4 bits" not in found
    assert "trained on 3 planner, 5 composed reports" in found
