"""The order of the batches and the learning rate: a matter of the seed and the step alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_by_hand import cases_by_hand

from medorchestra.errors import SettingsError
from medorchestra.finetune.training import WINDOW, TrainingSettings, batches_of, rate_at

CASE = cases_by_hand("development")[0]

lengths = st.lists(st.integers(1, 60), max_size=90)


def cases_of(lengths):
    """Cases that differ in the length of their text and in their id."""
    return [CASE.model_copy(update={"id": f"case {i}", "text": "x" * length}) for i, length in enumerate(lengths)]


def ids(batches):
    return [[case.id for case in batch] for batch in batches]


# --------------------------------------------------------------------------------- the batches


@given(lengths, st.integers(1, 5), st.integers(0, 3))
def test_every_case_is_in_one_batch_and_none_is_too_large(lengths, batch, seed):
    batches = batches_of(cases_of(lengths), TrainingSettings(batch=batch, seed=seed))
    assert sorted(id_ for one in ids(batches) for id_ in one) == sorted(f"case {i}" for i in range(len(lengths)))
    assert all(1 <= len(one) <= batch for one in batches)
    assert len(batches) >= len(lengths) / batch


def test_a_case_that_is_there_twice_is_read_twice():
    batches = batches_of([CASE, CASE, CASE], TrainingSettings(batch=2))
    assert sorted(map(len, batches)) == [1, 2]


@given(lengths, st.integers(1, 5))
def test_no_case_moves_further_than_its_window(lengths, batch):
    batches = batches_of(cases_of(lengths), TrainingSettings(batch=batch))
    read = [case.id for one in batches for case in one]
    size = batch * WINDOW
    for start in range(0, len(lengths), size):
        assert sorted(read[start : start + size]) == sorted(
            f"case {i}" for i in range(len(lengths))[start : start + size]
        )


def test_cases_of_about_the_same_length_are_together():
    mixed = cases_of([5, 900, 6, 901, 7, 902, 8, 903])
    found = batches_of(mixed, TrainingSettings(batch=4))
    assert {frozenset(len(case.text) for case in batch) for batch in found} == {
        frozenset({5, 6, 7, 8}),
        frozenset({900, 901, 902, 903}),
    }


def test_the_seed_alone_decides_the_order():
    cases = cases_of(range(1, 61))
    first, again, other = (ids(batches_of(cases, TrainingSettings(batch=2, seed=seed))) for seed in (1, 1, 2))
    assert first == again != other
    changed = TrainingSettings(batch=2, seed=1, learning_rate=0.01, warmup=0.5, together=7, save_every=0.0)
    assert ids(batches_of(cases, changed)) == first


# ----------------------------------------------------------------------------------- the rate


@given(st.integers(1, 400), st.floats(0, 0.9), st.floats(1e-5, 0.9))
def test_the_rate_rises_to_its_highest_and_then_falls_to_a_twentieth_and_no_further(steps, warmup, highest):
    settings = TrainingSettings(warmup=warmup, learning_rate=highest)
    rates = [rate_at(step, steps, settings) for step in range(steps)]
    rising = [rate for step, rate in enumerate(rates) if step < warmup * steps]
    falling = rates[len(rising) :]
    assert all(before < after for before, after in pairwise(rising))
    assert all(before > after for before, after in pairwise(falling))
    assert all(highest / 20 < rate <= highest * (1 + 1e-9) for rate in falling)
    assert all(0 < rate <= highest for rate in rising)


def test_the_rate_of_a_long_training_step_by_step():
    settings = TrainingSettings(learning_rate=1e-3, warmup=0.1)
    rates = [rate_at(step, 1000, settings) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-3 / 101)
    assert rates[49] == pytest.approx(50e-3 / 101)
    assert rates[100] == pytest.approx(1e-3)
    assert rates[550] == pytest.approx(1e-3 * (0.05 + 0.95 / 2))
    assert rates[-1] == pytest.approx(1e-3 / 20, rel=1e-3)


def test_without_warm_up_the_first_step_has_the_highest_rate():
    assert rate_at(0, 10, TrainingSettings(warmup=0.0, learning_rate=0.5)) == 0.5


# -------------------------------------------------------------------------------- the settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0},
        {"together": 0},
        {"learning_rate": 0.0},
        {"learning_rate": -1e-3},
        {"learning_rate": 1.0},
        {"learning_rate": float("nan")},
        {"warmup": -0.1},
        {"warmup": 1.0},
    ],
)
def test_settings_that_cannot_train_are_refused(wrong):
    with pytest.raises(SettingsError, match="at least 1, learning_rate and warmup between 0 and 1"):
        TrainingSettings(**wrong)
