"""Prompt templates of a plan: text with named slots, and nothing else.

A plan comes from outside, so its templates are untrusted. `check_template` accepts literal text and `{{ slot }}`
for slots it is told of; attribute access, calls, filters, tests, control structures and unknown names are refused
before anything is rendered. `render_template` renders in Jinja's sandbox all the same. Report text is never a slot:
the executor joins it to the prompt outside of Jinja.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

QUESTION_SLOTS = ("labels", "description", "unit", "examples")
"""Slots of a subtask's prompt: its value labels, its finding's description, its number's unit, its solved examples."""

HEAD_SLOTS = ("title",)
"""Slots of the head, the text before the report: the title of the plan."""

MAX_TEMPLATE_CHARACTERS = 8_000

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)


def check_template(source: str, slots: Collection[str]) -> None:
    """Refuse a template that is more than text with these slots.

    Raises:
        ValueError: says what is not allowed and on which line.
    """
    if len(source) > MAX_TEMPLATE_CHARACTERS:
        raise ValueError(f"template of {len(source)} characters; at most {MAX_TEMPLATE_CHARACTERS} are allowed")
    try:
        tree = _ENVIRONMENT.parse(source)
    except TemplateSyntaxError as error:
        raise ValueError(f"template line {error.lineno}: {error.message}") from None
    for node in tree.body:
        parts = node.nodes if isinstance(node, nodes.Output) else [node]
        for part in parts:
            if isinstance(part, nodes.TemplateData):
                continue
            if not isinstance(part, nodes.Name):
                kind = type(part).__name__
                raise ValueError(f"template line {part.lineno}: {kind} is not allowed, only {{{{ slot }}}}")
            if part.name not in slots:
                raise ValueError(
                    f"template line {part.lineno}: undeclared slot {part.name!r}; slots: {', '.join(slots)}"
                )


@lru_cache(maxsize=1024)
def _compiled(source: str) -> Template:
    return _ENVIRONMENT.from_string(source)


def render_template(source: str, slots: dict[str, str]) -> str:
    """The template with its slots filled. It must have passed `check_template`."""
    return _compiled(source).render(slots)
