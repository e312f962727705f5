"""Reads a model's reply as one JSON object of a given type, or says what is wrong with it. Asks nobody."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

MOST_STARTS = 50
"""Braces at which an object is looked for, so that a reply of nothing but braces is read in linear time."""
MOST_PROBLEMS = 20
"""Problems that are listed; the rest is counted."""

_THOUGHTS = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_SHAPE_ERRORS = re.compile(r"missing|extra_forbidden|literal_error|enum|.*_type|.*_parsing")

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """A reply that has been read.

    Attributes:
        answer: the object, or None where there are problems.
        problems: what is wrong, in words that the model can act on.
        schema_kept: whether it was the bare object that the schema asks for, as far as shape goes.
    """

    answer: T | None
    problems: tuple[str, ...]
    schema_kept: bool


def read_reply(text: str, answer: type[T]) -> Reading[T]:
    """Read a reply. Prose, code fences and thoughts around one object are passed over; a second object is a problem."""
    bare = _THOUGHTS.sub("", text).removeprefix("\ufeff").strip()
    try:
        found = [bare] if _is_object(bare) else _objects_in(bare)
    except _DoubledKeyError as error:
        return Reading(None, (str(error),), schema_kept=False)
    if len(found) != 1:
        problem = f"the answer holds {len(found)} JSON objects: give one" if found else _why_not_json(bare)
        return Reading(None, (problem,), schema_kept=False)
    is_bare = found[0] == text.strip()
    try:
        return Reading(answer.model_validate_json(found[0]), (), is_bare)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        shaped = not any(_SHAPE_ERRORS.fullmatch(detail["type"]) for detail in details)
        problems = [f"{_place(detail['loc'])}: {detail['msg']}" for detail in details]
        return Reading(None, listed(problems), is_bare and shaped)


def listed(problems: Sequence[str]) -> tuple[str, ...]:
    """The first problems; a last line counts those that are left out."""
    if len(problems) <= MOST_PROBLEMS:
        return tuple(problems)
    return (*problems[:MOST_PROBLEMS], f"and {len(problems) - MOST_PROBLEMS} more of this kind")


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(step) for step in location) or "the object"


class _DoubledKeyError(ValueError):
    """JSON readers keep the last of two values silently; here that is a problem."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    doubled = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    if doubled:
        raise _DoubledKeyError(f"the key {doubled[0]!r} is there twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant)


def _is_object(text: str) -> bool:
    try:
        return isinstance(_DECODER.decode(text), dict)
    except _DoubledKeyError:
        raise
    except (ValueError, RecursionError):
        return False


def _objects_in(text: str) -> list[str]:
    """The JSON objects in running text, outermost ones only."""
    found: list[str] = []
    start = text.find("{")
    for _ in range(MOST_STARTS):
        if start < 0:
            break
        try:
            _, end = _DECODER.raw_decode(text, start)
        except _DoubledKeyError:
            raise
        except (ValueError, RecursionError):
            end = start + 1
        else:
            found.append(text[start:end])
        start = text.find("{", end)
    return found


def _why_not_json(text: str) -> str:
    start = text.find("{")
    if start < 0:
        return "the answer holds no JSON object"
    try:
        _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        return f"the answer is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError):
        pass
    return "the answer is not valid JSON"
