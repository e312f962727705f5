"""The planner's own instructions: packaged texts with named slots, rendered into pieces that may leave.

Only names, numbers and lists of names of a plan go into slots (`$name`). Guideline text, cases and plan parts are
pieces of their own and never pass through a prompt. `{{ … }}` in these texts is what the cloud model is to write: plain
text here.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from string import Template

from medorchestra.cloud.egress.gate import Instruction
from medorchestra.cloud.outgoing import Piece, PieceKind
from medorchestra.errors import SettingsError

PROMPTS = (
    "decompose",
    "merge",
    "write_subtasks",
    "revise_subtasks",
    "write_cases",
    "read_back",
    "write_frame",
    "write_phrases",
    "write_layouts",
)
"""Names of the packaged prompts (`prompts/<name>.md`)."""


@lru_cache(maxsize=len(PROMPTS))
def prompt_template(name: str) -> Template:
    """A packaged prompt with its slots unfilled.

    Raises:
        SettingsError: there is no such prompt.
    """
    if name not in PROMPTS:
        raise SettingsError(f"no prompt {name!r}; there are: {', '.join(PROMPTS)}")
    return Template(files("medorchestra.cloud").joinpath("prompts", f"{name}.md").read_text(encoding="utf-8").strip())


def instruction(name: str, **slots: str) -> Piece:
    """A packaged prompt with its slots filled.

    Raises:
        SettingsError: no such prompt, or other slots than it has.
    """
    template = prompt_template(name)
    if set(slots) != set(template.get_identifiers()):
        raise SettingsError(f"prompt {name!r} has the slots {template.get_identifiers()}, not {sorted(slots)}")
    return Piece(PieceKind.INSTRUCTION, name, template.substitute(slots))


def packaged_instructions() -> dict[str, Instruction]:
    """Every packaged prompt, as the egress gate holds outgoing instructions against it."""
    return {name: Instruction(prompt_template(name).template) for name in PROMPTS}
