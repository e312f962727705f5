"""Picking tokens without a model: the likeliest, and drawn ones. Grammars are tested with the model."""

from __future__ import annotations

import numpy as np
import pytest

from medorchestra.local.engine.llama_reader import Logits
from medorchestra.local.engine.token_picker import GreedyPicker, SamplingPicker

LOGITS = np.log(np.array([0.1, 0.6, 0.3], dtype=np.float32))
DRAWS = 4_000


class OnlyEven:
    """Stands for a grammar that forbids odd tokens."""

    def pick(self, logits: Logits) -> int:
        allowed = np.where(np.arange(logits.size) % 2 == 0, logits, -np.inf)
        return int(np.argmax(allowed))


def shares(temperature: float, likeliest: GreedyPicker | OnlyEven, logits: Logits = LOGITS) -> list[float]:
    """How often each token is drawn."""
    picker = SamplingPicker(likeliest, temperature=temperature, seed=1)
    drawn = [picker.pick(logits) for _ in range(DRAWS)]
    return [drawn.count(token) / DRAWS for token in range(logits.size)]


def test_the_greedy_picker_takes_the_first_of_the_likeliest() -> None:
    assert GreedyPicker().pick(np.array([0.0, 2.0, 2.0], dtype=np.float32)) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_by_their_probability_at_the_temperature(temperature: float) -> None:
    weights = np.exp(LOGITS.astype(float) / temperature)
    # Four standard errors of a share of 4000 draws are at most 0.032.
    assert shares(temperature, GreedyPicker()) == pytest.approx(list(weights / weights.sum()), abs=0.032)


def test_what_is_forbidden_is_never_drawn_and_the_rest_keeps_its_proportions() -> None:
    drawn = shares(1.0, OnlyEven())
    assert drawn[1] == 0
    assert drawn == pytest.approx([0.25, 0, 0.75], abs=0.032)


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others() -> None:
    def drawn(seed: int) -> list[int]:
        picker = SamplingPicker(GreedyPicker(), temperature=1.0, seed=seed)
        return [picker.pick(LOGITS) for _ in range(50)]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300])
def test_a_temperature_near_0_draws_the_likeliest_whatever_the_size_of_the_logits(temperature: float) -> None:
    logits = LOGITS + np.float32(500)
    assert shares(temperature, GreedyPicker(), logits)[1] == 1


def test_an_impossible_token_stays_impossible() -> None:
    logits = np.array([-np.inf, 0.0, 0.0], dtype=np.float32)
    assert shares(5.0, GreedyPicker(), logits)[0] == 0
