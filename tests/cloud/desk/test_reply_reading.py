"""A model's reply, read as one object of a type or as a list of problems."""

from __future__ import annotations

import time
from enum import StrEnum

import pytest
from pydantic import BaseModel, ConfigDict, Field

from medorchestra.cloud.desk.reply_reading import MOST_PROBLEMS, listed, read_reply


class Location(StrEnum):
    HEAD = "head"
    TAIL = "tail"


class Tumour(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    size_cm: float = Field(gt=0)
    location: Location
    vessels: tuple[str, ...] = ()


GOOD = '{"size_cm": 2.1, "location": "head", "vessels": ["SMA"]}'


def test_a_bare_object_is_read_and_keeps_the_schema():
    reading = read_reply(f"  {GOOD}\n", Tumour)
    assert reading.answer == Tumour(size_cm=2.1, location=Location.HEAD, vessels=("SMA",))
    assert reading.problems == ()
    assert reading.schema_kept


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{GOOD}\n```",
        f"Here is the finding for {{location}}:\n{GOOD}\nI hope this helps {{}}.".replace("{}", "{"),
        f"<think>First {{'size': 3}}, no: {GOOD[:20]}</think>\n{GOOD}",
        f"\ufeff{GOOD}.",
    ],
)
def test_what_stands_around_one_object_is_passed_over_and_noticed(text):
    reading = read_reply(text, Tumour)
    assert reading.answer is not None
    assert reading.answer.size_cm == 2.1
    assert not reading.schema_kept


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no JSON object"),
        ("The tumour is 2.1 cm.", "holds no JSON object"),
        ('["head"]', "holds no JSON object"),
        (GOOD[:-1], "not valid JSON: Expecting ',' delimiter at line 1, column"),
        ("{'size_cm': 2.1}", "not valid JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        ('{"size_cm": NaN, "location": "head"}', "not valid JSON"),
        (f"{GOOD}\n{GOOD}", "holds 2 JSON objects: give one"),
        ('{"size_cm": 2, "size_cm": 3, "location": "head"}', "the key 'size_cm' is there twice"),
        ('Sure: {"a": {"size_cm": 2, "size_cm": 3}}', "the key 'size_cm' is there twice"),
        ('{"a":' * 100_000, "not valid JSON"),
    ],
)
def test_what_is_not_one_object_is_a_problem_that_says_why(text, problem):
    reading = read_reply(text, Tumour)
    assert reading.answer is None
    assert len(reading.problems) == 1
    assert problem in reading.problems[0]
    assert not reading.schema_kept


def test_every_field_that_is_wrong_is_named_with_its_place():
    reading = read_reply('{"size_cm": "2.1", "location": "neck", "vessels": ["SMA", 3], "grade": 1}', Tumour)
    places = [problem.split(":")[0] for problem in reading.problems]
    assert places == ["size_cm", "location", "vessels.1", "grade"]
    assert "'head' or 'tail'" in reading.problems[1]
    assert not reading.schema_kept


def test_a_value_out_of_bounds_breaks_the_contract_but_not_the_schema_that_was_sent():
    reading = read_reply('{"size_cm": -1, "location": "head"}', Tumour)
    assert reading.problems == ("size_cm: Input should be greater than 0",)
    assert reading.schema_kept


def test_a_reply_of_nothing_but_braces_is_read_quickly():
    started = time.perf_counter()
    assert read_reply('{"a":[' * 50_000 + "{" * 200_000, Tumour).answer is None
    assert time.perf_counter() - started < 2


def test_many_problems_are_cut_and_counted():
    problems = [f"problem {number}" for number in range(MOST_PROBLEMS + 7)]
    assert listed(problems)[-1] == "and 7 more of this kind"
    assert len(listed(problems)) == MOST_PROBLEMS + 1
    assert listed(problems[:3]) == tuple(problems[:3])
