"""Decides whether pieces of text may leave. Sends nothing, writes nothing, changes nothing: what fails is refused.

Each piece is held against the place that it claims to come from: guideline text stands word for word in the guideline,
a case is one that was registered, an instruction is a packaged prompt with its slots filled. Everything is scanned for
identifiers (JSON with its escapes undone, too), and everything is bounded in size. What remains possible: text of a
plan, a problem or a reply is scanned only, for it has no place to be held against.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

from medorchestra.cloud.egress.identifiers import find_identifiers
from medorchestra.cloud.guideline import Guideline
from medorchestra.cloud.outgoing import Piece, PieceKind
from medorchestra.egress_format import digest_of
from medorchestra.errors import EgressError, SettingsError
from medorchestra.synthetic import SyntheticCase

MOST_CHARACTERS = 600_000
"""Of one request, all its pieces together: about 150,000 tokens."""
MOST_SLOT_CHARACTERS = 4_000
"""That the slots of one instruction may hold together, where the instruction does not say otherwise."""

HOLD_JSON = frozenset({PieceKind.PLAN, PieceKind.REPLY})
"""Kinds whose text may be JSON, in which a line break is a backslash and an n: `\\nMRN` hides a label from the scan."""
MOST_ESCAPED = 3
"""Times that escapes are undone."""
_JSON_ESCAPE = re.compile(r"""\\(["\\/bfnrt]|u[0-9A-Fa-f]{4})""")
_ESCAPED = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Instruction:
    """A packaged prompt of the planner.

    Attributes:
        template: its text with `$slot` or `${slot}` for each slot and `$$` for a dollar, as `string.Template` has it.
        most_slot_characters: that its slots may hold together.
    """

    template: str
    most_slot_characters: int = MOST_SLOT_CHARACTERS

    @property
    def digest(self) -> str:
        """`sha256:…` of the template."""
        return digest_of(self.template.encode())

    def literals(self) -> tuple[str, ...]:
        """The text between the slots, in order; first and last may be empty.

        Raises:
            SettingsError: a dollar begins neither a slot nor another dollar.
        """
        text = self.template.strip()
        literals, position = [""], 0
        for match in Template.pattern.finditer(text):
            literals[-1] += text[position : match.start()]
            position = match.end()
            if match["invalid"] is not None:
                raise SettingsError(f"a '$' at character {match.start()} begins no slot; a dollar is written '$$'")
            if match["escaped"] is not None:
                literals[-1] += "$"
            else:
                literals.append("")
        literals[-1] += text[position:]
        return tuple(literals)


@dataclass(frozen=True, slots=True)
class Allowed:
    """One exact string that may leave although it looks like an identifier, such as an author of the guideline.

    Attributes:
        text: the string, letter for letter.
        reason: why; both are written into the egress log.
    """

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Clearance:
    """What was let through.

    Attributes:
        pieces, characters: how many.
        allowed: how often each allowed string was made use of, in the order of the gate's list.
    """

    pieces: int
    characters: int
    allowed: tuple[int, ...]


class EgressGate:
    """The gate of one planner run.

    Args:
        guideline: the only guideline whose text may leave.
        instructions: name -> packaged prompt. An instruction that is not among them is refused.
        cases: synthetic cases that may leave; more can be registered later.
        allowed: exact strings that the scan lets through.
        most_characters: of one request.

    Raises:
        TypeError: a case is anything but a SyntheticCase.
        SettingsError: a template has a '$' that begins no slot, or an allowed string has no text or no reason.
    """

    def __init__(
        self,
        guideline: Guideline,
        instructions: Mapping[str, Instruction],
        *,
        cases: Iterable[SyntheticCase] = (),
        allowed: Sequence[Allowed] = (),
        most_characters: int = MOST_CHARACTERS,
    ) -> None:
        if any(not one.text.strip() or not one.reason.strip() for one in allowed):
            raise SettingsError("an allowed string needs its text and a reason")
        self._sections = {
            section.number: _one_spaced(f"{section.number} {section.title}\n{section.text}")
            for section in guideline.sections.values()
        }
        self._guideline_digest = guideline.digest
        self._instructions = dict(instructions)
        self._literals = {name: instruction.literals() for name, instruction in instructions.items()}
        self._allowed = tuple(allowed)
        self._most_characters = most_characters
        self._cases: dict[str, str] = {}
        for case in cases:
            self.register(case)

    def register(self, case: SyntheticCase) -> None:
        """Let the text of a synthetic case leave, if the scan finds nothing in it.

        Raises:
            TypeError: it is anything but a SyntheticCase; a real report, above all.
            EgressError: another case has the same id.
        """
        if not isinstance(case, SyntheticCase):
            raise TypeError(f"only a SyntheticCase may leave, not a {type(case).__name__}")
        if self._cases.setdefault(case.id, case.text) != case.text:
            raise EgressError(f"case {case.id}: another case with this id and another text is registered")

    def check(self, pieces: Sequence[Piece]) -> Clearance:
        """Let all pieces of one request pass, or none.

        Returns:
            What passed.

        Raises:
            EgressError: names kind and origin of each piece that must not leave, and what is wrong with it in kinds
                and counts; never its text.
        """
        characters = sum(len(piece.text) for piece in pieces)
        problems: list[str] = []
        if characters > self._most_characters:
            problems.append(
                f"the request has {characters} characters; at most {self._most_characters} may leave at once"
            )
        used = [0] * len(self._allowed)
        for piece in pieces:
            found = [problem for problem in (self._provenance(piece), self._scan(piece, used)) if problem]
            problems += [f"{piece.kind.value} {piece.origin!r}: {problem}" for problem in found]
        if problems:
            more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise EgressError(f"must not leave, nothing was sent: {'; '.join(problems[:10])}{more}")
        return Clearance(len(pieces), characters, tuple(used))

    def described(self) -> dict[str, Any]:
        """What the gate holds pieces against, for the egress log."""
        return {
            "guideline": self._guideline_digest,
            "instructions": {name: instruction.digest for name, instruction in sorted(self._instructions.items())},
            "allowed": [{"text": one.text, "reason": one.reason} for one in self._allowed],
        }

    def _provenance(self, piece: Piece) -> str | None:
        """What is wrong with the place that the piece claims to come from."""
        if piece.kind is PieceKind.GUIDELINE:
            section = self._sections.get(piece.origin)
            if section is None or not piece.text.strip() or _one_spaced(piece.text) not in section:
                return "does not stand word for word in this section of the guideline"
        elif piece.kind is PieceKind.CASE:
            if piece.origin not in self._cases:
                return "no synthetic case with this id is registered"
            if piece.text != self._cases[piece.origin]:
                return "is not the text of the registered case with this id"
        elif piece.kind is PieceKind.INSTRUCTION:
            return self._instruction_problem(piece)
        return None

    def _instruction_problem(self, piece: Piece) -> str | None:
        instruction = self._instructions.get(piece.origin)
        if instruction is None:
            return "no packaged prompt has this name"
        filled = _slot_characters(self._literals[piece.origin], piece.text.strip())
        if filled is None:
            return "is not the packaged prompt with its slots filled"
        if filled > instruction.most_slot_characters:
            return f"its slots hold {filled} characters; at most {instruction.most_slot_characters} are allowed"
        return None

    def _scan(self, piece: Piece, used: list[int]) -> str | None:
        """What the scan finds, by kind and count; counts the uses of allowed strings."""
        kinds: Counter[str] = Counter()
        covers: Counter[int] = Counter()
        for text in _readings(piece.text) if piece.kind in HOLD_JSON else (piece.text,):
            found, covering = self._find(text)
            # The larger count: what is found in several readings of the text is there once.
            kinds |= found
            covers |= covering
        for index, count in covers.items():
            used[index] += count
        # The origin of a piece leaves too, as its heading.
        kinds += Counter(identifier.kind.value for identifier in find_identifiers(piece.origin))
        if not kinds:
            return None
        return "holds what looks like " + ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))

    def _find(self, text: str) -> tuple[Counter[str], Counter[int]]:
        """Identifiers by kind, and those that an allowed string covers by its index."""
        places = [
            (index, match.start(), match.end())
            for index, one in enumerate(self._allowed)
            for match in re.finditer(re.escape(one.text), text)
        ]
        kinds: Counter[str] = Counter()
        covers: Counter[int] = Counter()
        for identifier in find_identifiers(text):
            cover = next((at for at, start, end in places if start <= identifier.start and identifier.end <= end), None)
            if cover is None:
                kinds[identifier.kind.value] += 1
            else:
                covers[cover] += 1
        return kinds, covers


def _readings(text: str) -> Iterator[str]:
    """The text as it stands, and with JSON escapes undone, once for each time that JSON may have been put into JSON.

    Whole JSON is not needed: a reply that goes back may be cut off, or be no JSON at all.
    """
    yield text
    for _ in range(MOST_ESCAPED):
        undone = _JSON_ESCAPE.sub(lambda match: _ESCAPED.get(match[1]) or chr(int(match[1][1:], 16)), text)
        if undone == text:
            return
        text = undone
        yield text


def _one_spaced(text: str) -> str:
    return " ".join(text.split())


def _slot_characters(literals: Sequence[str], text: str) -> int | None:
    """How many characters the slots hold if the text is these literals with slots between them, else None.

    Each literal is taken at its first place after the one before it, the last at the end: if there is any way to fit
    them, this one does.
    """
    if len(literals) == 1:
        return 0 if text == literals[0] else None
    first, *between, last = literals
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return None
    position, end = len(first), len(text) - len(last)
    for literal in between:
        found = text.find(literal, position, end)
        if found < 0:
            return None
        position = found + len(literal)
    return len(text) - sum(len(literal) for literal in literals)
