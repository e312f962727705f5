"""JSON schemas in the form that hosted models enforce."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

from medorchestra.cloud.desk.answer_schema import answer_schema


class Side(StrEnum):
    LEFT = "left"
    RIGHT = "right"


class Node(BaseModel):
    """A lymph node."""

    title: str = Field(description="station", min_length=1, max_length=9, pattern="^[a-z]")
    size_mm: float | None = Field(default=None, ge=0)
    side: Side = Side.LEFT


class Choice(BaseModel):
    kind: Literal["choice"]
    values: list[str] = Field(min_length=2)


class Number(BaseModel):
    kind: Literal["number"]
    unit: str


class Finding(BaseModel):
    nodes: list[Node] = Field(default=[], max_length=5)
    answer: Annotated[Choice | Number, Field(discriminator="kind")]
    worst: Node = Field(description="the largest one")


class Condition(BaseModel):
    all_of: list[Condition] = []
    finding: str | None = None


class WithMapping(BaseModel):
    values: dict[str, str]


class WithTuple(BaseModel):
    size: tuple[int, int]


class WithAny(BaseModel):
    value: Any


class Empty(BaseModel):
    pass


def nodes_of(schema):
    """Every part of a schema that is a schema itself."""
    yield schema
    for key in ("properties", "$defs"):
        for part in schema.get(key, {}).values():
            yield from nodes_of(part)
    for part in schema.get("anyOf", ()):
        yield from nodes_of(part)
    if "items" in schema:
        yield from nodes_of(schema["items"])


@pytest.mark.parametrize("answer", [Node, Finding, Condition])
def test_a_sent_schema_keeps_to_the_subset_that_is_enforced(answer):
    schema = answer_schema(answer)
    assert schema.strict
    allowed = {"type", "description", "enum", "properties", "required", "additionalProperties", "items", "anyOf"}
    for node in nodes_of(schema.sent):
        assert node.keys() <= allowed | {"$ref", "$defs"}
        assert "$ref" not in node or len(node) == 1
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert node["required"] == list(node["properties"])


def test_a_sent_schema_takes_what_the_type_takes_and_refuses_other_shapes():
    sent = answer_schema(Finding).sent
    node = {"title": "hilar", "size_mm": None, "side": "left"}
    good = {"nodes": [node], "answer": {"kind": "number", "unit": "cm"}, "worst": node}
    jsonschema.validate(good, sent)
    Finding.model_validate(good)
    for wrong in (
        {**good, "more": 1},
        {**good, "answer": {"kind": "number", "values": ["a", "b"]}},
        {**good, "worst": {**node, "side": "middle"}},
        {"nodes": [], "worst": node},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, sent)


def test_bounds_are_told_in_the_prompt_though_not_sent():
    schema = answer_schema(Node)
    assert json.loads(schema.told)["properties"]["title"]["maxLength"] == 9
    assert "maxLength" not in json.dumps(schema.sent)
    assert json.loads(schema.told)["properties"]["title"]["description"] == "station"


def test_a_field_called_title_is_not_taken_for_a_title():
    schema = answer_schema(Node)
    assert set(schema.sent["properties"]) == {"title", "size_mm", "side"}
    assert set(json.loads(schema.told)["properties"]) == {"title", "size_mm", "side"}
    assert "title" not in json.loads(schema.told)


@pytest.mark.parametrize("answer", [WithMapping, WithTuple, WithAny, Empty])
def test_a_type_that_the_subset_cannot_express_is_sent_as_a_hint(answer):
    schema = answer_schema(answer)
    assert not schema.strict
    assert schema.sent == answer.model_json_schema()


def test_a_name_holds_only_what_the_wire_takes():
    generic = type("Page[Finding]", (BaseModel,), {})
    assert answer_schema(generic).name == "Page_Finding_"
