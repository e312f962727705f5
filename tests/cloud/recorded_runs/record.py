"""Makes a shipped topic through a hosted model (or the relay) and keeps the exchanges for `test_recorded_runs.py`.

    python ../shared/tools/relay.py --dir RELAY_DIR --port 8790
    python tests/cloud/recorded_runs/record.py pancreatic_cancer --cloud NAME --base-url http://127.0.0.1:8790/v1 \
        --out RUN_DIR [--cases 400] [--rehearse-on 12] [--given synthetic_cases/pancreatic_cancer]

Needs the default local model. Run again on the same RUN_DIR, it repeats no answered request and no rehearsed case.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medorchestra import rehearsal
from medorchestra.cloud.desk.client import ChatReply, ChatRequest, OpenAICloudModel
from medorchestra.cloud.desk.cloud_desk import Effort
from medorchestra.cloud.desk.reply_cache import ReplyCache
from medorchestra.cloud.planner import PlannerSettings
from medorchestra.plan import Plan
from medorchestra.rehearsal import PlanMaking, PlanProgress, make_plan
from medorchestra.rehearsal_scores import RehearsalScores
from medorchestra.synthetic import SyntheticCase

HERE = Path(__file__).parent

SETTINGS: dict[str, dict[str, Any]] = {
    "pancreatic_cancer": {"prompt_forms": ("compact",), "contexts": ("full",), "revision_rounds": 0},
    "pancreatic_cancer_tnm": {"prompt_forms": ("compact",), "revision_rounds": 1},
}
"""How the shipped plans were made, where it is not the default: with the compact questions, for which a small model is
trained. pancreatic_cancer is run by such a model, over whole reports: what an untrained one makes of its questions is
measured, and no reason to choose or reword them.
"""


def readings_of(scores: RehearsalScores) -> list[dict[str, Any]]:
    """What a rehearsal read, without probabilities: enough for the planner's decisions."""
    return [
        {
            "case": reading.case.id,
            "answers": dict(reading.answers),
            "best_outcome": reading.best_outcome,
            "review": reading.review,
        }
        for reading in scores.readings
    ]


def keep_rehearsals(kept: list[list[dict[str, Any]]]) -> None:
    """From now on, every rehearsal of a making is noted in `kept`, in order."""
    rehearse = rehearsal.rehearse

    def noted(plan: Plan, cases: Sequence[SyntheticCase], *args: Any, **named: Any) -> RehearsalScores:
        scores = rehearse(plan, cases, *args, **named)
        kept.append(readings_of(scores))
        return scores

    rehearsal.rehearse = noted


def keep_requests(asked: set[str]) -> None:
    """From now on, the digest of every request is noted in `asked`: the folder of replies may hold older ones, too."""
    find = ReplyCache.find

    def noted(cache: ReplyCache, request: ChatRequest, endpoint: str) -> ChatReply | None:
        asked.add(request.digest)
        return find(cache, request, endpoint)

    ReplyCache.find = noted  # type: ignore[method-assign]


def write_compressed(path: Path, text: str) -> None:
    """Gzip without a time in it, so that the same content is the same file."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write(text.encode("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topic")
    parser.add_argument("--cloud", required=True)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--rehearse-on", type=int, default=12)
    parser.add_argument("--given", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("OPENAI_API_KEY", "relay-no-key")
    kept: list[list[dict[str, Any]]] = []
    keep_rehearsals(kept)
    asked: set[str] = set()
    keep_requests(asked)
    told = [""]

    def tell(progress: PlanProgress) -> None:
        total = progress.usage.total
        line = f"{progress.doing}: {total.requests} requests, {total.cached} cached, {progress.rehearsed} rehearsed"
        if line != told[0]:
            print(line, flush=True)
            told[0] = line

    with OpenAICloudModel(args.cloud, base_url=args.base_url, timeout=3_700) as cloud:
        settings = PlannerSettings(
            **SETTINGS.get(args.topic, {}), cases=args.cases, rehearsal_cases=args.rehearse_on, topic=args.topic
        )
        making = PlanMaking(planner=settings, effort=Effort(workers=16), progress=tell)
        guideline = Path("guidelines") / args.topic / "guideline.md"
        made = make_plan(guideline, cloud=cloud, out=args.out, cases=args.given or (), local="default", making=making)
    replies = {}
    for path in sorted((args.out / "replies").glob("*.json")):
        entry = json.loads(path.read_text(encoding="utf-8"))
        if entry["request"] in asked:
            replies[entry["request"]] = entry["reply"]
    lines = [json.dumps({"request": key, "reply": replies[key]}, ensure_ascii=False) for key in sorted(replies)]
    write_compressed(HERE / f"{args.topic}.replies.jsonl.gz", "\n".join(lines) + "\n")
    recorded = {
        "cloud": args.cloud,
        "cases": args.cases,
        "rehearsal_cases": args.rehearse_on,
        "rehearsals": kept,
    }
    write_compressed(HERE / f"{args.topic}.rehearsals.json.gz", json.dumps(recorded))
    print(made.plan.digest, made.run.proof.lines()[-1])


if __name__ == "__main__":
    main()
