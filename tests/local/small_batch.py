"""A small plan, small reports and a scripted reader: what the tests of batches share. Child processes import it too."""

from __future__ import annotations

import re
from collections.abc import Callable

from medorchestra.local.engine.scripted import Reply, ScriptedEngine, ScriptedQuestion
from medorchestra.local.records import Report
from medorchestra.plan import Calibration, Plan

CITATION = {"section": "1.1", "quote": "Contact of more than half of the vessel is encasement."}

CONTENT = {
    "topic": "demo",
    "title": "Resectability in short",
    "guideline": {"title": "A short guideline", "edition": "first", "digest": "sha256:" + "0" * 64},
    "provenance": {"origin": "hand", "author": "tests", "made_on": "2026-11-24"},
    "scope": {"language": "en"},
    "profile": {"head": {"instructed": "Read this report."}},
    "outcomes": [
        {"name": "resectable", "description": "Arteries free."},
        {"name": "locally_advanced", "description": "An artery is encased."},
        {"name": "metastatic", "description": "Distant disease."},
    ],
    "findings": [
        {
            "name": "sma_contact",
            "description": "Contact with the superior mesenteric artery.",
            "values": {"none": "No contact.", "<=180": "At most half.", ">180": "More than half."},
            "not_stated": {"why": "It has to be looked at."},
        },
        {
            "name": "liver_mets",
            "description": "Liver metastases.",
            "values": {"yes": "There are some.", "no": "There are none."},
            "not_stated": {"reads_as": "no", "why": "They would be named."},
        },
        {
            "name": "size_cm",
            "description": "Largest diameter.",
            "number": {"unit": "cm", "minimum": 0, "maximum": 30},
            "not_stated": {"why": "Decides nothing."},
        },
    ],
    "subtasks": [
        {
            "id": "sma_contact",
            "finding": "sma_contact",
            "answer": "choice",
            "prompt": {"instructed": "How far does it touch the SMA? {{ labels }}"},
            "labels": {"none": "free", "<=180": "abutment", ">180": "encasement", "not_stated": "not stated"},
            "focus_terms": ["SMA"],
            "citation": CITATION,
        },
        {
            "id": "liver_mets",
            "finding": "liver_mets",
            "answer": "choice",
            "prompt": {"instructed": "Are there liver metastases? {{ labels }}"},
            "labels": {"yes": "yes", "no": "no", "not_stated": "not stated"},
            "focus_terms": ["liver"],
            "citation": CITATION,
        },
        {
            "id": "size",
            "finding": "size_cm",
            "answer": "number",
            "prompt": {"instructed": "How large is the mass in {{ unit }}?"},
            "labels": {"not_stated": "not stated"},
            "focus_terms": ["mass"],
            "citation": CITATION,
        },
    ],
    "rules": [
        {"id": "liver", "when": {"finding": "liver_mets", "is": "yes"}, "outcome": "metastatic", "citation": CITATION},
        {
            "id": "encased",
            "when": {"finding": "sma_contact", "is": ">180"},
            "outcome": "locally_advanced",
            "citation": CITATION,
            "note": "Whatever the veins.",
        },
        {
            "id": "free",
            "when": {"finding": "sma_contact", "in": ["none", "<=180"]},
            "outcome": "resectable",
            "citation": CITATION,
        },
    ],
}


def plan_with(**changes: object) -> Plan:
    """The small plan with other top-level fields."""
    return Plan.model_validate(CONTENT | changes)


def with_prompt(subtask: str, prompt: str) -> Plan:
    """The small plan with another prompt for one subtask."""
    subtasks = [s | {"prompt": {"instructed": prompt}} if s["id"] == subtask else s for s in CONTENT["subtasks"]]
    return plan_with(subtasks=subtasks)


PLAN = plan_with()

PART = {
    "name": "m",
    "title": "Distant metastasis",
    "outcomes": [{"name": "m0", "description": "None."}, {"name": "m1", "description": "Distant disease."}],
    "rules": [
        {"id": "m_liver", "when": {"finding": "liver_mets", "is": "yes"}, "outcome": "m1", "citation": CITATION},
        {"id": "m_none", "when": {"finding": "liver_mets", "is": "no"}, "outcome": "m0", "citation": CITATION},
    ],
}
"""A part of the decision, for plans that have one."""


def calibrated_plan(engine: ScriptedEngine, **changes: object) -> Plan:
    """The small plan with a calibration for the engine's model; without changes it lets most decisions pass."""
    content = {
        "made_on": "2026-11-24",
        "plan_digest": PLAN.digest,
        "model_digest": engine.identity.digest,
        "adapter_digest": engine.identity.adapter_digest,
        "labels": "local",
        "n": 240,
        "labels_digest": "sha256:" + "5" * 64,
        "temperatures": {"sma_contact": 1.2},
        "risk": 0.05,
        "review_below": 0.5,
    }
    return PLAN.model_copy(update={"calibrations": (Calibration.model_validate(content | changes),)})


SMA = {"free": "The SMA is free.", "encasement": "The SMA is encased over 270 degrees.", "": ""}
SENTENCES = [
    (sma, liver) for sma in SMA for liver in ("The liver is normal, no metastases.", "Liver metastases in both lobes.")
]


def small_reports(count: int) -> list[Report]:
    """Different invented reports: arteries free, encased or not mentioned, with and without liver metastases."""
    made = []
    for number in range(count):
        sma, liver = SENTENCES[number % len(SENTENCES)]
        mass = f"Hypoenhancing mass of the pancreatic head, 2.{number % 10} cm."
        text = f"CT abdomen no. {number}. {mass} {SMA[sma]} {liver}"
        made.append(Report(f"case-{number}", text, {"ward": f"W{number % 3}", "age": 50 + number}))
    return made


def scripted_reading(asked: ScriptedQuestion) -> Reply:
    """Reads the small reports as they are meant, with a little doubt."""
    if "SMA" in asked.question:
        meant = next((label for label, words in SMA.items() if words and words in asked.report), "not stated")
    elif "liver" in asked.question:
        meant = "yes" if "Liver metastases" in asked.report else "no"
    else:
        size = re.search(r"2\.\d cm", asked.report)
        return size.group() if size else "not stated"
    others = [candidate for candidate in asked.candidates or () if candidate != meant]
    return {meant: 0.9} | {other: 0.1 / len(others) for other in others}


def small_engine(before: Callable[[ScriptedQuestion], None] = lambda asked: None, **options: object) -> ScriptedEngine:
    """A scripted reader of the small reports; `before` is called ahead of every answer and may raise or kill."""

    def reply(asked: ScriptedQuestion) -> Reply:
        before(asked)
        return scripted_reading(asked)

    return ScriptedEngine(reply, **options)  # type: ignore[arg-type]
