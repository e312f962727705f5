"""Applies a plan's calibration to the answers of one report, after the ledger, which keeps what the model said.

Knows answers and calibrations; fits nothing.
"""

from __future__ import annotations

from dataclasses import replace

from medorchestra.calibration import tempered
from medorchestra.local.answers import Answer
from medorchestra.plan import Calibration


def calibrated(answer: Answer, calibration: Calibration) -> Answer:
    """The answer with its probabilities at the finding's temperature; its value stays."""
    temperature = calibration.temperatures.get(answer.finding or "", 1.0)
    if temperature == 1.0 or not answer.probabilities:
        return answer
    return replace(answer, probabilities=tempered(answer.probabilities, temperature))
