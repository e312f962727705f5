"""A small guideline, plan and set of cases that prove clean: tests plant one fault in it at a time.

Has a part, a number in cm, a count, a value with a boundary in its name, an option and a solved example.
"""

from __future__ import annotations

import copy
from typing import Any

from medorchestra.cloud.guideline import Guideline, Section
from medorchestra.plan import Plan
from medorchestra.synthetic import Split, SyntheticCase, labelled

SECTIONS = {
    "1.1": "A report without a tumour is not staged.",
    "2.1": "A tumour of 2 cm or less is resectable.",
    "2.2": "A tumour of more than 2 cm, up to 4 cm, is borderline.",
    "2.3": "A tumour of more than 4 cm is borderline.",
    "3.1": "Contact of more than 180 degrees is advanced. Exactly 180 degrees is on the lower side.",
    "3.2": "Contact of 180 degrees or less is borderline.",
    "4.1": "No positive node is N0.",
    "4.2": "1 to 3 positive nodes are N1.",
    "4.3": "Four or more positive nodes are N2, which is advanced where nodes count.",
}
GUIDELINE = Guideline(
    title="A small guideline",
    edition="first",
    source="invented",
    licence="Apache-2.0",
    sections={number: Section(number, f"Section {number}", text) for number, text in SECTIONS.items()},
    digest="sha256:" + "a" * 64,
)


def cited(section: str, quote: str | None = None) -> dict[str, str]:
    return {"section": section, "quote": quote or SECTIONS[section]}


def rule(rule_id: str, when: dict, outcome: str, section: str, quote: str | None = None) -> dict[str, Any]:
    return {"id": rule_id, "when": when, "outcome": outcome, "citation": cited(section, quote)}


def subtask(finding: str, labels: dict[str, str], section: str) -> dict[str, Any]:
    return {
        "id": finding,
        "finding": finding,
        "answer": "choice" if len(labels) > 1 else "number",
        "prompt": {"instructed": "What is said? One of: {{ labels }}.\n{{ examples }}", "compact": f"{finding}:"},
        "labels": labels,
        "citation": cited(section),
    }


CONTENT: dict[str, Any] = {
    "topic": "small",
    "title": "A small plan",
    "guideline": {"title": GUIDELINE.title, "edition": GUIDELINE.edition, "digest": GUIDELINE.digest},
    "provenance": {"origin": "hand", "author": "tests", "made_on": "2026-01-01"},
    "scope": {"language": "en"},
    "profile": {"head": {"instructed": "Read the report."}},
    "outcomes": [{"name": n, "description": n} for n in ("not_staged", "advanced", "borderline", "resectable")],
    "options": [
        {"name": "nodes", "description": "Do nodes count?", "choices": ["count", "ignored"], "setting": "count"},
    ],
    "findings": [
        {
            "name": "tumor",
            "description": "A tumour is described.",
            "values": {"yes": "Described.", "no": "None."},
            "not_stated": {"why": "Unknown."},
        },
        {
            "name": "contact",
            "description": "Contact with the artery.",
            "values": {"none": "None.", "<=180": "At most 180 degrees.", ">180": "More than 180 degrees."},
            "not_stated": {"why": "Unknown."},
        },
        {
            "name": "size",
            "description": "Largest diameter.",
            "number": {"unit": "cm", "minimum": 0.1, "maximum": 30},
            "not_stated": {"why": "Unknown."},
        },
        {
            "name": "nodes",
            "description": "Positive nodes.",
            "number": {"unit": "count", "minimum": 0, "maximum": 90},
            "not_stated": {"why": "Unknown."},
        },
    ],
    "subtasks": [
        subtask("tumor", {"yes": "yes", "no": "no", "not_stated": "not stated"}, "1.1"),
        subtask(
            "contact",
            {
                "none": "no contact",
                "<=180": "180 degrees or less",
                ">180": "more than 180 degrees",
                "not_stated": "not stated",
            },
            "3.1",
        ),
        subtask("size", {"not_stated": "not stated"}, "2.1"),
        subtask("nodes", {"not_stated": "not stated"}, "4.1"),
    ],
    "parts": [
        {
            "name": "n",
            "title": "Nodes",
            "outcomes": [{"name": name, "description": name} for name in ("N0", "N1", "N2")],
            "rules": [
                rule("n0", {"finding": "nodes", "at_most": 0}, "N0", "4.1"),
                rule("n1", {"finding": "nodes", "at_least": 1, "at_most": 3}, "N1", "4.2"),
                rule("n2", {"finding": "nodes", "above": 3}, "N2", "4.3"),
            ],
        }
    ],
    "rules": [
        rule("no_tumor", {"finding": "tumor", "is": "no"}, "not_staged", "1.1"),
        rule("encased", {"finding": "contact", "is": ">180"}, "advanced", "3.1"),
        rule(
            "many_nodes", {"all": [{"part": "n", "in": ["N2"]}, {"option": "nodes", "is": "count"}]}, "advanced", "4.3"
        ),
        rule("abuts", {"finding": "contact", "is": "<=180"}, "borderline", "3.2"),
        rule("large", {"finding": "size", "above": 4}, "borderline", "2.3"),
        rule("medium", {"finding": "size", "above": 2, "at_most": 4}, "borderline", "2.2"),
        rule("small", {"finding": "size", "at_most": 2}, "resectable", "2.1"),
    ],
    "flags": [
        {
            "id": "contact_without_tumor",
            "kind": "contradiction",
            "when": {"all": [{"finding": "tumor", "is": "no"}, {"finding": "contact", "in": ["<=180", ">180"]}]},
            "message": "Contact, but no tumour.",
        }
    ],
}
CONTENT["subtasks"][1]["examples"] = [
    {"case": "abutting", "text": "The tumour lies on the artery over 180 degrees exactly, no more.", "value": "<=180"}
]


def content() -> dict[str, Any]:
    """A copy of the sound plan's content, to be changed."""
    return copy.deepcopy(CONTENT)


def rule_in(changed: dict[str, Any], rule_id: str) -> dict[str, Any]:
    """The rule of this id in the content."""
    rules = [*changed["rules"], *(one for part in changed["parts"] for one in part["rules"])]
    return next(one for one in rules if one["id"] == rule_id)


def sound_plan() -> Plan:
    return Plan.model_validate(content())


def case(plan: Plan, case_id: str, text: str, split: Split = "development", **findings: str | float) -> SyntheticCase:
    """A case labelled by the plan."""
    return labelled(plan, findings, id=case_id, split=split, form="free_text", style="terse", text=text)


def sound_cases(plan: Plan) -> list[SyntheticCase]:
    """Cases that cover the sound plan."""
    return [
        case(plan, "small", "Mass of 2.0 cm, artery free, no node.", tumor="yes", contact="none", size=2.0, nodes=0),
        case(
            plan,
            "abutting",
            "Mass of 3 cm. The tumour lies on the artery over 180 degrees exactly, no more. One node.",
            tumor="yes",
            contact="<=180",
            size=3.0,
            nodes=1,
        ),
        case(
            plan,
            "encasing",
            "Mass of 5 cm around the artery, 270 degrees. Three nodes.",
            "held_out",
            tumor="yes",
            contact=">180",
            size=5.0,
            nodes=3,
        ),
        case(
            plan,
            "nodal",
            "Mass of 3.1 cm, artery free, four nodes.",
            "calibration",
            tumor="yes",
            contact="none",
            size=3.1,
            nodes=4,
        ),
        case(plan, "medium", "Mass of 4.0 cm, artery free. No node.", tumor="yes", contact="none", size=4.0, nodes=0),
        case(plan, "large", "Mass of 6 cm, artery free, two nodes.", tumor="yes", contact="none", size=6.0, nodes=2),
        case(plan, "none", "Normal pancreas.", tumor="no"),
        case(plan, "open", "Nothing is said of the pancreas.", "held_out"),
    ]
