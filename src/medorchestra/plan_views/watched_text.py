"""Places in a plan's texts that the person who signs it has to see: addresses, talk of sending, hidden characters.

A prompt of a plan is only ever text before or after a report, and the side that runs it has no network; still nobody
should sign a prompt that asks for more than a finding. Marks places by a list of patterns and judges nothing: what is
not marked is not thereby harmless.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from medorchestra.plan import Plan

_WORD_ENDINGS = r"(?:s|es|d|ed|ted|ing|ting)?"
_TOP_DOMAINS = "com|org|net|io|dev|ai|app|cloud|info|biz|edu|gov|eu|uk|de|fr|cn|ru|me|sh|xyz"

_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("e-mail address", r"[^\s@<>()]{1,64}@[^\s@<>()]{1,200}\.\w+"),
        (
            "internet address",
            r"\b(?:https?|ftp|wss?|file|data|javascript):\S+|\bwww\.\S+|\bhttps?\b"
            rf"|\b[a-z0-9-]{{1,63}}(?:\.[a-z0-9-]{{1,63}}){{0,6}}\.(?:{_TOP_DOMAINS})\b(?:[/:]\S*)?"
            r"|\b\d{1,3}(?:\.\d{1,3}){3}\b(?:[/:]\S*)?",
        ),
        (
            "sending",
            rf"\b(?:send|upload|transmit|(?:e-?)?mail|fax|export|exfiltrate|exfiltrat|broadcast){_WORD_ENDINGS}\b"
            r"|\bsent\s+(?:to|by|over|via)\b|\bsubmit(?:s|ted|ting)?\s+(?:it|this|that|them|all|the\s+report|to)\b"
            rf"|\b(?:post|forward|report|copy|copie|share|shar|deliver|relay|hand){_WORD_ENDINGS}\s+"
            r"(?:(?:it|this|that|them|all|everything|the\s+\w+)\s+)?(?:to|with|on)\s+(?:the\s+|a\s+|an\s+)?"
            r"(?:server|service|url|address|site|web|web\s?site|endpoint|cloud|api|host|internet|us|me|third)\b",
        ),
        (
            "fetching",
            rf"\b(?:download|fetch|fetche|browse|click|curl|wget){_WORD_ENDINGS}\b"
            r"|\b(?:url|hyperlink|web\s?hook|web\s?site|endpoint|internet)s?\b",
        ),
        (
            "identity of the patient",
            r"\bpatient(?:['’]?s)?\s+(?:full\s+)?(?:names?|id|identifiers?|identity|address)\b"
            r"|\b(?:names?|identity|address)\s+of\s+the\s+patient\b|\bdate\s+of\s+birth\b|\bbirth\s?dates?\b"
            r"|\bMRN\b|\b(?:medical\s+record|social\s+security|insurance|phone|telephone|accession)\s+numbers?\b",
        ),
        (
            "other instructions",
            # "Ignore previous values" is what a good prompt says: only instructions are meant.
            r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,40}\b(?:instructions?|rules?|prompts?|above)\b"
            r"|\bsystem\s+prompt\b|\byou\s+are\s+now\b|\bjailbreak\w*\b|\bpasswords?\b|\bapi[\s_-]?keys?\b",
        ),
        (
            "code",
            r"<\|[^|\n]{0,40}\|>|\[/?INST\]|<</?SYS>>|<\s*/?\s*(?:script|iframe|img|a|form|link|style|s)\b[^>\n]{0,200}>?"
            r"|\b(?:eval|exec|import)\s*\(|\bsubprocess\b|\bbase64\b|!\[[^\]\n]{0,80}\]\(",
        ),
    )
)

HIDDEN = "hidden character"
"""Kind of a character that shows nothing or turns the direction of others."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A place to look at.

    Attributes:
        start, end: in characters.
        kind: why.
    """

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class WatchedPlace:
    """A place to look at in a plan: where it stands, what stands there, and why it is shown."""

    where: str
    text: str
    kind: str


def is_hidden(character: str) -> bool:
    """Whether it shows nothing by itself, and is no line break or tab (also in Unicode's format and unassigned)."""
    return unicodedata.category(character) in ("Cf", "Cc", "Co", "Cn", "Cs", "Zl", "Zp") and character not in "\n\t\r"


def visible(text: str) -> str:
    """The text with hidden characters as `⟨U+202E⟩`, so that nothing in it can hide or turn the rest."""
    return "".join(f"⟨U+{ord(one):04X}⟩" if is_hidden(one) else one for one in text)


def on_one_line(text: str) -> str:
    """The same for a terminal: white space becomes one space each."""
    return visible(" ".join(text.split()))


def watched_in(text: str) -> list[Watched]:
    """All places to look at, from left to right, none overlapping: where two do, the one that starts first is kept."""
    found = [Watched(*match.span(), kind) for kind, pattern in _PATTERNS for match in pattern.finditer(text)]
    found += [Watched(i, i + 1, HIDDEN) for i, one in enumerate(text) if is_hidden(one)]
    kept: list[Watched] = []
    for place in sorted(found, key=lambda place: (place.start, -place.end)):
        if not kept or place.start >= kept[-1].end:
            kept.append(place)
    return kept


def model_texts(plan: Plan) -> Iterator[tuple[str, str]]:
    """Where and what: every text of the plan that a model is given, by itself or in a slot of a prompt."""
    yield "title", plan.title
    yield "text before the report", plan.profile.head.instructed
    if plan.profile.head.compact is not None:
        yield "text before the report, compact", plan.profile.head.compact
    for finding in plan.findings:
        yield f"finding {finding.name}, description", finding.description
    for subtask in plan.subtasks:
        where = f"subtask {subtask.id}"
        yield f"{where}, prompt", subtask.prompt.instructed
        if subtask.prompt.compact is not None:
            yield f"{where}, compact prompt", subtask.prompt.compact
        yield from ((f"{where}, label of {value}", label) for value, label in subtask.labels.items())
        yield from ((f"{where}, example {example.case}", example.text) for example in subtask.examples)


def watched_places(plan: Plan) -> list[WatchedPlace]:
    """Every place to look at in what the plan tells a model."""
    return [
        WatchedPlace(where, visible(text[place.start : place.end]), place.kind)
        for where, text in model_texts(plan)
        for place in watched_in(text)
    ]
