"""A plan that decides in parts: T and N of a pancreatic cancer, then its stage group, after that topic's guideline.

For tests of what has to cope with parts, numbers, an undecidable combination and a passage that no rule looks at.
"""

from __future__ import annotations

from typing import Any

from medorchestra.cloud.guideline import read_guideline
from medorchestra.plan import Plan
from medorchestra.topics import guideline_folder

GUIDELINE = read_guideline(guideline_folder("pancreatic_cancer_tnm") / "guideline.md")
SECTIONS = {number: (section.title, section.text) for number, section in GUIDELINE.sections.items()}


def _cite(section: str, quote: str) -> dict[str, str]:
    return {"section": section, "quote": quote}


ARTERY = _cite("2.1", "is T4, whatever its\nsize")
SIZE = _cite("2.2", "Without involvement of these arteries the largest diameter decides.")
NODES = _cite("3.1", "N0 is no suspicious regional lymph node. N1 is one to three suspicious regional nodes.")
DISTANT = _cite("4.1", "M0 is no distant metastasis.")
GROUP = _cite("5.1", "Stage IV is any T and any N with M1.")
ORDER = _cite("5.2", "M1 decides first, then T4, then N2, then N1, then the size.")


def _rule(rule_id: str, outcome: str, when: Any, citation: dict[str, str]) -> dict[str, Any]:
    return {"id": rule_id, "when": when, "outcome": outcome, "citation": citation}


def _outcomes(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "description": f"Category {name}."} for name in names]


def _in(part: str, *outcomes: str) -> dict[str, Any]:
    return {"part": part, "in": list(outcomes)}


_PARTS = [
    {
        "name": "t_category",
        "title": "Primary tumour (T)",
        "outcomes": _outcomes("T1", "T2", "T3", "T4"),
        "rules": [
            _rule("artery", "T4", {"finding": "artery", "is": "yes"}, ARTERY),
            _rule("small", "T1", {"finding": "size", "at_most": 2}, SIZE),
            _rule("middle", "T2", {"finding": "size", "above": 2, "at_most": 4}, SIZE),
            _rule("large", "T3", {"finding": "size", "above": 4}, SIZE),
        ],
    },
    {
        "name": "n_category",
        "title": "Regional nodes (N)",
        "outcomes": _outcomes("N0", "N1", "N2"),
        "rules": [
            _rule("no_nodes", "N0", {"finding": "nodes", "at_most": 0}, NODES),
            _rule("few_nodes", "N1", {"finding": "nodes", "at_least": 1, "below": 4}, NODES),
            _rule("many_nodes", "N2", {"finding": "nodes", "at_least": 4}, NODES),
        ],
    },
]
_RULES = [
    _rule("distant", "IV", {"finding": "distant", "is": "yes"}, GROUP),
    _rule("three", "III", {"any": [_in("t_category", "T4"), _in("n_category", "N2")]}, ORDER),
    _rule("two_b", "II", _in("n_category", "N1"), ORDER),
    _rule("two_a", "II", {"all": [_in("t_category", "T3"), {"not": _in("n_category", "N1", "N2")}]}, ORDER),
    _rule("one", "I", {"all": [_in("t_category", "T1", "T2"), _in("n_category", "N0")]}, ORDER),
]


def _yes_no(name: str, description: str, reads_as: str | None) -> dict[str, Any]:
    silence = {"why": "M0 is assumed."} | ({"reads_as": reads_as, "review": True} if reads_as else {})
    values = {"yes": f"{description} Stated.", "no": f"{description} Excluded."}
    return {"name": name, "description": description, "values": values, "not_stated": silence}


def _number(name: str, description: str, unit: str, maximum: float) -> dict[str, Any]:
    number = {"unit": unit, "minimum": 0, "maximum": maximum}
    return {"name": name, "description": description, "number": number, "not_stated": {"why": "It decides."}}


def _subtask(name: str, answer: str, prompt: str, citation: dict[str, str]) -> dict[str, Any]:
    labels = {"not_stated": "not stated"} | ({"yes": "yes", "no": "no"} if answer == "choice" else {})
    return {
        "id": f"read_{name}",
        "finding": name,
        "answer": answer,
        "prompt": {"instructed": prompt},
        "labels": labels,
        "focus_terms": ["tumour*", "node*"],
        "citation": citation,
    }


def plan_with_parts() -> Plan:
    """The plan."""
    return Plan.model_validate(
        {
            "topic": "tnm_in_parts",
            "title": "Stage group in parts",
            "guideline": {"title": GUIDELINE.title, "edition": GUIDELINE.edition, "digest": GUIDELINE.digest},
            "provenance": {"origin": "planner", "author": "tests", "made_on": "2026-11-24", "model": "scripted"},
            "scope": {"language": "en"},
            "profile": {"head": {"instructed": "Read this report on {{ title }}."}},
            "outcomes": _outcomes("I", "II", "III", "IV"),
            "findings": [
                _yes_no("artery", "An artery is involved.", None),
                _number("size", "Largest diameter of the tumour.", "cm", 30),
                _number("nodes", "Suspicious regional nodes.", "count", 60),
                _yes_no("distant", "Distant metastasis.", "no"),
            ],
            "subtasks": [
                _subtask("artery", "choice", "Is an artery involved? Answer with one of: {{ labels }}.", ARTERY),
                _subtask("size", "number", "How large is the tumour in {{ unit }}?", SIZE),
                _subtask("nodes", "number", "How many regional nodes are suspicious?", NODES),
                _subtask("distant", "choice", "Is there distant metastasis? {{ labels }}", DISTANT),
                {
                    "id": "nodes_passage",
                    "answer": "spans",
                    "prompt": {"instructed": "Copy the words on lymph nodes."},
                    "citation": NODES,
                },
            ],
            "parts": _PARTS,
            "rules": _RULES,
            "undecidable": [
                {"when": {"all": [{"finding": "artery", "is": "no"}, _in("t_category", "T4")]}, "why": "Cannot be."}
            ],
            "flags": [
                {
                    "id": "node_without_artery",
                    "kind": "caution",
                    "when": {"all": [{"finding": "nodes", "above": 10}, {"finding": "artery", "is": "no"}]},
                    "message": "Many nodes and no artery.",
                }
            ],
        }
    )
