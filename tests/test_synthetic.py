"""Reading and checking synthetic cases."""

from __future__ import annotations

import json

import pytest

from medorchestra.errors import CaseError
from medorchestra.plan_files import read_plan
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import cases_digest, check_case, read_cases

PLAN = read_plan("pancreatic_cancer")
FINDINGS = {f.name: NOT_STATED if f.values else None for f in PLAN.findings} | {"tumor_present": "no"}
CASE = {
    "id": "a",
    "form": "free_text",
    "style": "terse",
    "text": "No pancreatic mass.",
    "findings": FINDINGS,
    "outcome": "not_stageable",
    "possible_outcomes": ["not_stageable"],
    "rule": "no_tumor",
}


def folder_with(tmp_path, **files):
    for name, cases in files.items():
        lines = [case if isinstance(case, str) else json.dumps(case) for case in cases]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_the_file_says_which_split_a_case_belongs_to(tmp_path):
    folder = folder_with(tmp_path, development=[CASE], held_out=[CASE | {"id": "b"}])
    assert [(case.id, case.split) for case in read_cases(folder)] == [("a", "development"), ("b", "held_out")]
    assert [case.id for case in read_cases(folder, "held_out")] == ["b"]


def test_the_digest_does_not_depend_on_the_order(tmp_path):
    cases = read_cases(folder_with(tmp_path, development=[CASE, CASE | {"id": "b"}]))
    assert cases_digest(cases) == cases_digest(reversed(cases))
    assert cases_digest(cases) != cases_digest(cases[:1])


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"development": ["{not json"]}, "line 1"),
        ({"development": [CASE | {"colour": "red"}]}, "line 1: colour"),
        ({"development": [CASE, {k: v for k, v in CASE.items() if k != "text"}]}, "line 2: text"),
        ({"development": [CASE], "held_out": [CASE]}, "1 case ids are there twice, first: a"),
        ({"development": [CASE | {"split": "held_out"}]}, "line 1"),
        ({}, "none of these files"),
    ],
)
def test_a_faulty_file_is_refused_and_the_line_is_named(tmp_path, files, says):
    with pytest.raises(CaseError, match=says):
        read_cases(folder_with(tmp_path, **files))


def test_an_unknown_topic_is_refused():
    with pytest.raises(CaseError, match="neither a folder nor a topic"):
        read_cases("kidney")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"outcome": "resectable"}, "expects resectable"),
        ({"rule": "resectable"}, "rule resectable"),
        ({"possible_outcomes": ["resectable"]}, "possible"),
        ({"findings": FINDINGS | {"spleen": "yes"}}, "not in the plan: ['spleen']"),
        ({"findings": {"tumor_present": "no"}}, "findings missing"),
        ({"findings": FINDINGS | {"sma_contact": "some"}}, "no value 'some'"),
    ],
)
def test_a_case_that_contradicts_the_plan_is_refused_by_name(tmp_path, change, says):
    (case,) = read_cases(folder_with(tmp_path, development=[CASE | change]))
    with pytest.raises(CaseError) as caught:
        check_case(case, PLAN)
    assert says in str(caught.value)
    assert "case a" in str(caught.value)


def test_the_case_itself_fits_the_plan(tmp_path):
    (case,) = read_cases(folder_with(tmp_path, development=[CASE]))
    check_case(case, PLAN)
