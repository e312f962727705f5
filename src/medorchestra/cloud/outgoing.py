"""What may leave the building: typed pieces of text, each of a closed set of kinds. Sends nothing, checks nothing.

The planner never builds a prompt from a string of its own: it lists pieces, and the egress gate can hold every piece
against the place it claims to come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from medorchestra.cloud.guideline import Section
from medorchestra.synthetic import SyntheticCase


class PieceKind(StrEnum):
    """Where a piece of outgoing text comes from."""

    INSTRUCTION = "instruction"
    """A packaged prompt of the planner (`cloud/prompts/`), its slots filled with names and numbers of the plan."""
    GUIDELINE = "guideline"
    """A section of the guideline, word for word."""
    CASE = "case"
    """The text of a synthetic case."""
    PLAN = "plan"
    """Parts of a plan in the making: written by the cloud model itself or by the plan's author."""
    PROBLEM = "problem"
    """Validation errors and failed proofs: names, values and counts of plan and cases."""
    REPLY = "reply"
    """An earlier answer of the cloud model, sent back to be mended."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of outgoing text.

    Attributes:
        kind: where it comes from.
        origin: the place: name of the prompt, number of the section, id of the case, step of the planner.
        text: what would be sent.
    """

    kind: PieceKind
    origin: str
    text: str

    def __repr__(self) -> str:
        return f"Piece({self.kind.value}, {self.origin!r}, {len(self.text)} characters)"


def guideline_piece(section: Section) -> Piece:
    """A section of the guideline with its number and heading."""
    return Piece(PieceKind.GUIDELINE, section.number, f"{section.number} {section.title}\n{section.text}")


def case_piece(case: SyntheticCase) -> Piece:
    """The text of a synthetic case, without its labels.

    Raises:
        TypeError: it is anything but a synthetic case; a real report, above all.
    """
    if not isinstance(case, SyntheticCase):
        raise TypeError(f"only a SyntheticCase may leave, not a {type(case).__name__}")
    return Piece(PieceKind.CASE, case.id, case.text)
