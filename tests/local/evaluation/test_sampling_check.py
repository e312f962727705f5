"""Whether a model server draws what it writes, asked with an invented text before a report is read."""

from __future__ import annotations

import pytest
from local.served_batch import CHOOSES, SCORES, serving_reader
from local.small_batch import small_engine

from medorchestra.errors import ModelError
from medorchestra.local.engine_opening import opened_engine
from medorchestra.local.evaluation.sampling_check import require_sampling


@pytest.mark.parametrize("kind", [SCORES, CHOOSES])
def test_a_server_that_heeds_the_seed_passes(kind):
    with serving_reader(kind) as server, opened_engine(server.url) as engine:
        before = len(server.requests)
        require_sampling(engine)
        asked = [body for _, body, _ in server.requests[before:] if "temperature" in body]
    assert len(asked) == 3
    assert {body["temperature"] for body in asked} == {1.5}


@pytest.mark.parametrize("kind", [SCORES, CHOOSES])
def test_a_server_that_always_writes_the_same_is_refused(kind):
    written = "Quillfeather"
    with (
        serving_reader(kind, free_text=lambda body: written) as server,
        opened_engine(server.url) as engine,
        pytest.raises(ModelError, match=r"reader-1: it wrote the same for 3 seeds at temperature 1\.5") as refused,
    ):
        require_sampling(engine)
    assert written not in str(refused.value)


def test_an_engine_on_this_machine_is_not_asked():
    asked = []
    require_sampling(small_engine(asked.append))
    assert asked == []
