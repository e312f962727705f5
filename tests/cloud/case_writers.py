"""A scripted cloud model that writes reports from briefs and reads them back, by a code of its own. Honest unless told.

Its reports say `<finding> is <value>` in words; its reader knows nothing but what stands in the report.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

from medorchestra.cloud.desk.client import ChatRequest
from medorchestra.cloud.desk.cloud_desk import DESK_INSTRUCTIONS, CloudDesk, Effort
from medorchestra.cloud.desk.reply_cache import ReplyCache
from medorchestra.cloud.desk.scripted_cloud import ScriptedCloudModel
from medorchestra.cloud.egress.gate import EgressGate
from medorchestra.cloud.egress.log import EgressLog
from medorchestra.cloud.guideline import Guideline
from medorchestra.cloud.prompt_texts import packaged_instructions
from medorchestra.plan import Plan

Change = Callable[[dict], None]
"""Changes an answer (of the writer or of the reader) before it is given."""


def sections_of(request: ChatRequest) -> list[tuple[str, str]]:
    """Heading and text of every piece of the user message."""
    pieces = re.split(r"(?m)^# ((?:guideline|case|plan|problem|reply): .*)$", request.user)
    return [(heading, text.strip()) for heading, text in zip(pieces[1::2], pieces[2::2], strict=True)]


def is_complaint(request: ChatRequest) -> bool:
    return any(heading.startswith("problem") for heading, _ in sections_of(request))


def said(words: str) -> str:
    return words.replace("_", " ")


def report(brief: str, stated: dict[str, str], words: int) -> str:
    """A report that states so much, padded with words that no other report has."""
    rng = random.Random(brief)
    lines = [f"{said(name)} is {said(value)}" for name, value in stated.items()]
    used = sum(len(line.split()) for line in lines)
    letters = "bdfgklmnprst"
    padding = ["".join(rng.choice(letters) + rng.choice("aeiou") for _ in range(4)) for _ in range(words - used)]
    return "\n".join([*lines, "remark: " + " ".join(padding)])


def read_briefs(request: ChatRequest) -> list[tuple[str, dict[str, str], int]]:
    """Id, stated findings and length of every brief."""
    text = dict(sections_of(request))["plan: briefs"]
    briefs = []
    for block in re.split(r"(?m)^brief ", text)[1:]:
        stated = re.search(r"(?ms)^stated:.*?$(.*?)^silent:", block)
        lines = re.findall(r"(?m)^- (\w+) = (\S+)", stated[1] if stated else "")
        words = re.search(r"about (\d+) words", block)
        briefs.append((block.split()[0], dict(lines), int(words[1])))
    return briefs


def written(request: ChatRequest) -> dict:
    """What an honest writer answers."""
    return {
        "reports": [
            {"brief": one, "text": report(one, stated, words), "unwritable": None}
            for one, stated, words in read_briefs(request)
        ]
    }


def read(request: ChatRequest) -> dict:
    """What an honest reader answers, from the reports and the list of findings alone."""
    pieces = sections_of(request)
    findings = json.loads(dict(pieces)["plan: findings"])
    answers = []
    for heading, text in pieces:
        if not heading.startswith("case: "):
            continue
        lines = dict(line.split(" is ", 1) for line in text.splitlines() if " is " in line)
        values = []
        for finding in findings:
            known = {said(value): value for value in finding.get("values", ())}
            words = lines.get(said(finding["name"]))
            value = "not_stated" if words is None else known.get(words, words)
            values.append({"name": finding["name"], "value": value})
        answers.append({"case": heading.removeprefix("case: "), "findings": values})
    return {"reports": answers}


def writer_and_reader(*, writes: Change = lambda _: None, reads: Change = lambda _: None) -> ScriptedCloudModel:
    def reply(request: ChatRequest) -> str:
        if "# instruction: write_cases" in request.system:
            answer = written(request)
            writes(answer)
        else:
            assert "# instruction: read_back" in request.system
            answer = read(request)
            reads(answer)
        return json.dumps(answer)

    return ScriptedCloudModel(reply)


def open_desk(model, folder, guideline: Guideline, *, max_repairs: int = 3, workers: int = 4) -> CloudDesk:
    """A desk with the real gate, log and cache."""
    gate = EgressGate(guideline, {**packaged_instructions(), **DESK_INSTRUCTIONS})
    opened = len(list(folder.glob("egress-*.jsonl")))  # a log has one writer, and nobody closes that of a dead run
    log = EgressLog.open(folder / f"egress-{opened}.jsonl", gate=gate)
    effort = Effort(max_repairs=max_repairs, workers=workers)
    return CloudDesk(model, gate=gate, log=log, cache=ReplyCache(folder / "replies"), effort=effort)


def values_by_name(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {finding.name: finding.all_values for finding in plan.findings}
