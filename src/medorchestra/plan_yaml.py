"""YAML as a plan may use it: plain data, read without surprises and written to be read and diffed.

Stricter than YAML itself, because a plan is untrusted: no anchors or aliases (so no YAML bomb), no tags, no doubled
keys, bounded size and depth; `yes`, `no`, `on`, `off` and dates stay text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from medorchestra.errors import PlanError

MAX_PLAN_BYTES = 2_000_000
MAX_DEPTH = 40


class _PlanLoader(yaml.SafeLoader):
    """SafeLoader that keeps to YAML 1.2 scalars and refuses doubled keys."""


_PlanLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|false)$", "tf"),
    ("tag:yaml.org,2002:null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("tag:yaml.org,2002:int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("tag:yaml.org,2002:float", r"^-?(?:0|[1-9][0-9]*)\.[0-9]+$", "-0123456789"),
):
    _PlanLoader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def _mapping(loader: _PlanLoader, node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise PlanError(f"line {key_node.start_mark.line + 1}: the key {key!r} must be text (quote it)")
        if key in mapping:
            raise PlanError(f"line {key_node.start_mark.line + 1}: the key {key!r} is there twice")
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_PlanLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_plan_yaml(text: str) -> Any:
    """The data of a plan file.

    Raises:
        PlanError: with the line, for anything that is not plain bounded YAML.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_PLAN_BYTES:
        raise PlanError(f"a plan of {size} bytes; at most {MAX_PLAN_BYTES} are read")
    try:
        _refuse_references_and_depth(text)
        return yaml.load(text, Loader=_PlanLoader)  # noqa: S506 - a SafeLoader, made stricter
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise PlanError(f"line {line}: not readable YAML: {error.problem}") from None
    except yaml.YAMLError:
        raise PlanError("not readable YAML: it holds characters that YAML does not allow") from None


def _refuse_references_and_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_PlanLoader):
        line = event.start_mark.line + 1 if event.start_mark else "?"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise PlanError(f"line {line}: anchors and aliases (& and *) are not allowed in a plan")
        if getattr(event, "tag", None):
            raise PlanError(f"line {line}: tags (!…) are not allowed in a plan")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise PlanError(f"line {line}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


_OTHER_LINE_ENDS = re.compile("[\r\x85\u2028\u2029\ufeff]")


class _PlanDumper(yaml.SafeDumper):
    """Block text for prompts, lists indented under their key."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - aliases are not allowed in a plan
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _represent_text(dumper: _PlanDumper, text: str) -> yaml.ScalarNode:
    # Other line ends, and a byte order mark, are kept only as escapes, which only double quotes allow.
    style = '"' if _OTHER_LINE_ENDS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_PlanDumper.add_representer(str, _represent_text)


def is_yaml_text(text: str) -> bool:
    """Whether YAML can hold this text: no control characters, surrogates or non-characters."""
    return yaml.reader.Reader.NON_PRINTABLE.search(text) is None


def dump_plan_yaml(content: Any) -> str:
    """Human-readable YAML that `parse_plan_yaml` reads back to the same data."""
    return yaml.dump(content, Dumper=_PlanDumper, sort_keys=False, allow_unicode=True, width=110)
