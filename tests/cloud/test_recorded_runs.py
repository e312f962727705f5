"""The runs that made the shipped plans, replayed: real model answers over a real loopback server, without a network.

`recorded_runs/` holds the hosted model's replies by request digest, and what the local model read in each rehearsal
(which differs between processors). Everything else is computed anew: a changed prompt, brief, check or step asks
something that was not recorded, and fails.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from cloud.cassettes import read_replies, replaying
from cloud.recorded_runs.record import SETTINGS
from plan_by_hand import WRITTEN_LATER

from medorchestra import rehearsal
from medorchestra.cloud.desk.client import OpenAICloudModel
from medorchestra.cloud.desk.cloud_desk import Effort
from medorchestra.cloud.planner import PlannerSettings
from medorchestra.egress_format import verify_log
from medorchestra.local.engine.scripted import ScriptedEngine
from medorchestra.phrases.phrase_bank import read_phrase_bank
from medorchestra.plan_files import read_plan
from medorchestra.rehearsal import PlanMaking, make_plan
from medorchestra.rehearsal_scores import CaseReading, RehearsalScores
from medorchestra.synthetic import cases_digest, read_cases
from medorchestra.topics import guideline_folder, topics

RUNS = Path(__file__).parent / "recorded_runs"


def recorded_rehearsals(rehearsals):
    """Stands in for the local model: gives what was read in the recorded run, rehearsal by rehearsal."""
    left = iter(rehearsals)

    def rehearse(plan, cases, engine, *, ledger=None, progress=None):
        read = next(left)
        assert [one["case"] for one in read] == [case.id for case in cases]
        readings = tuple(
            CaseReading(case, one["answers"], {}, one["best_outcome"], one["review"])
            for case, one in zip(cases, read, strict=True)
        )
        return RehearsalScores(plan.digest, "recorded", "sha256:" + "0" * 64, None, readings)

    return rehearse


def content(plan):
    """The plan without the day it was made on and without what was measured with models."""
    return plan.model_dump(mode="json", exclude={"validation", "calibrations", "provenance"})


@pytest.mark.recorded
@pytest.mark.parametrize("topic", topics())
def test_a_recorded_run_makes_the_shipped_plan_cases_and_phrases_again(topic, tmp_path, monkeypatch):
    recorded = json.loads(gzip.decompress((RUNS / f"{topic}.rehearsals.json.gz").read_bytes()))
    replies = read_replies(gzip.decompress((RUNS / f"{topic}.replies.jsonl.gz").read_bytes()).decode("utf-8"))
    of_the_run = [case for case in read_cases(topic) if not case.id.startswith(WRITTEN_LATER)]
    given = [case for case in of_the_run if case.provenance == "hand"]
    counts = {"cases": recorded["cases"], "rehearsal_cases": recorded["rehearsal_cases"]}
    settings = PlannerSettings(**SETTINGS[topic], **counts, topic=topic)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789abcdef")
    monkeypatch.setattr(rehearsal, "rehearse", recorded_rehearsals(recorded["rehearsals"]))
    engine = ScriptedEngine(lambda asked: pytest.fail("the local model was asked"))
    with replaying(replies) as server, OpenAICloudModel(recorded["cloud"], base_url=server.url) as cloud:
        made = make_plan(
            guideline_folder(topic) / "guideline.md",
            cloud=cloud,
            out=tmp_path,
            cases=given,
            local=engine,
            making=PlanMaking(planner=settings, effort=Effort(workers=2)),
        )
    assert content(made.plan) == content(read_plan(topic))
    assert cases_digest(made.run.cases) == cases_digest(of_the_run)
    bank, shipped = read_phrase_bank(tmp_path / "phrase_bank.json"), read_phrase_bank(topic)
    # By digest: of what differs in thousands of phrases, pytest would look for the nearest pairs for an hour.
    assert bank.model_copy(update={"provenance": shipped.provenance}).digest == shipped.digest
    assert made.usage.total.requests == len(replies)
    assert verify_log(tmp_path / "egress.jsonl").problems == ()
    assert "sk-planted" not in (tmp_path / "egress.jsonl").read_text("utf-8")
