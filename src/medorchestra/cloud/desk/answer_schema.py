"""The JSON schema of an answer, in two forms. Knows pydantic and JSON schema; sends nothing.

*Told*: pydantic's schema with bounds and descriptions, as text in the prompt. Always there, because servers that ignore
`response_format` without a word are common, and a reply made blind is a paid request thrown away.

*Sent*: the strictest common subset that hosted models enforce while decoding (every property required, no further ones,
no bounds, no defaults, `anyOf` for every union). Nothing is lost by leaving the bounds out, since pydantic checks every
reply. Where the subset cannot express the type (a mapping with free keys, a tuple, `Any`), the schema is sent with
`strict: false`, as a hint: refusing such types would bend the contract for the sake of one vendor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

# What decoders do not enforce, or refuse, or need not know: checked by pydantic on the reply.
_LEFT_OUT = frozenset(
    {"title", "default", "examples", "format", "pattern", "minLength", "maxLength", "minimum", "maximum"}
    | {"exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "uniqueItems", "discriminator"}
)
_KEPT = frozenset({"type", "description", "enum", "properties", "required", "additionalProperties"}) | frozenset(
    {"items", "anyOf", "$ref", "$defs"}
)


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """A type of answer, ready to be asked for.

    Attributes:
        name: its name on the wire.
        told: the whole schema as canonical text, for the prompt.
        sent: the schema for `response_format`.
        strict: whether `sent` is within the subset that servers enforce.
    """

    name: str
    told: str
    sent: Mapping[str, Any]
    strict: bool


def answer_schema(answer: type[BaseModel]) -> AnswerSchema:
    """Both forms of a pydantic model's schema."""
    schema = answer.model_json_schema()
    told = json.dumps(_without_titles(schema), ensure_ascii=False, separators=(",", ":"))
    name = re.sub(r"[^A-Za-z0-9_-]", "_", answer.__name__)[:64]
    if "$ref" in schema:  # a type that holds itself; servers want an object at the root
        schema = {**schema["$defs"][schema["$ref"].rsplit("/", 1)[-1]], "$defs": schema["$defs"]}
    try:
        strict = _strict(schema)
    except _InexpressibleError:
        return AnswerSchema(name, told, schema, strict=False)
    if strict.get("type") != "object":  # a union
        return AnswerSchema(name, told, schema, strict=False)
    return AnswerSchema(name, told, strict, strict=True)


class _InexpressibleError(Exception):
    """The strict subset has no words for this type."""


def _strict(node: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return {"$ref": node["$ref"]}  # nothing may stand beside a reference
    renamed = {"anyOf" if key == "oneOf" else key: value for key, value in node.items() if key not in _LEFT_OUT}
    if "const" in renamed:
        renamed["enum"] = [renamed.pop("const")]
    if not renamed.keys() <= _KEPT or not renamed.keys() & {"type", "enum", "anyOf"}:
        raise _InexpressibleError
    if "anyOf" in renamed:
        renamed["anyOf"] = [_strict(branch) for branch in renamed["anyOf"]]
    if "$defs" in renamed:
        renamed["$defs"] = {name: _strict(definition) for name, definition in renamed["$defs"].items()}
    if renamed.get("type") == "array":
        if not isinstance(renamed.get("items"), Mapping):
            raise _InexpressibleError
        renamed["items"] = _strict(renamed["items"])
    if renamed.get("type") == "object":
        properties = renamed.get("properties", {})
        if renamed.get("additionalProperties") or not properties:
            raise _InexpressibleError
        renamed["properties"] = {name: _strict(schema) for name, schema in properties.items()}
        renamed["required"] = list(properties)
        renamed["additionalProperties"] = False
    return renamed


def _without_titles(node: Any, *, names: bool = False) -> Any:
    """Without the titles that pydantic makes from the names, which are there already."""
    if isinstance(node, list):
        return [_without_titles(branch) for branch in node]
    if not isinstance(node, dict):
        return node
    # Below `properties` and `$defs`, keys are names: a field may be called title.
    return {
        key: _without_titles(value, names=not names and key in ("properties", "$defs"))
        for key, value in node.items()
        if names or key != "title" or not isinstance(value, str)
    }
