"""Reading and checking synthetic cases."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from plan_by_hand import PLAN_BY_HAND
from small_phrase_bank import parts_plan

from medorchestra.errors import CaseError, StorageError
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import cases_digest, check_case, labelled, read_cases, write_cases

PLAN = PLAN_BY_HAND
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


def labelled_case(plan=PLAN, findings=None, **more):
    fields = {"id": "a", "split": "development", "form": "free_text", "style": "terse", "text": "No pancreatic mass."}
    return labelled(plan, {"tumor_present": "no"} if findings is None else findings, **(fields | more))


def test_a_labelled_case_gets_its_outcome_from_the_plan():
    case = labelled_case()
    check_case(case, PLAN)
    assert (case.outcome, case.rule, case.parts) == ("not_stageable", "no_tumor", {})
    assert case.findings["tumor_size_cm"] is None
    assert case.findings["sma_contact"] == NOT_STATED
    open_case = labelled_case(findings={"tumor_present": "yes", "sma_contact": "<=180"})
    check_case(open_case, PLAN)
    assert (open_case.outcome, open_case.rule) == (None, None)
    assert "borderline_resectable" in open_case.possible_outcomes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"findings": {"spleen": "large"}}, "case a: not in the plan: ['spleen']"),
        ({"findings": {"sma_contact": "some"}}, "case a: finding 'sma_contact' has no value 'some'"),
        ({"style": 3}, "case a: style: Input should be a valid string"),
    ],
)
def test_a_label_that_the_plan_does_not_have_is_refused(change, says):
    with pytest.raises(CaseError) as caught:
        labelled_case(**change)
    assert says in str(caught.value)
    assert "pancreatic" not in str(caught.value)


def test_parts_of_the_plan_are_labelled_and_checked():
    plan = parts_plan()
    case = labelled_case(plan, {"size": 2.1, "nodes": None})
    assert case.parts == {"t_category": "T2"}
    assert (case.outcome, case.rule) == ("late", None)  # by the nodes or by the size
    check_case(case, plan)
    assert labelled_case(plan, {"nodes": 5}).parts == {"t_category": None}
    with pytest.raises(CaseError, match="part t_category: expects T1; its findings lead to T2"):
        check_case(case.model_copy(update={"parts": {"t_category": "T1"}}), plan)
    with pytest.raises(CaseError, match=r"parts missing: .'t_category'."):
        check_case(case.model_copy(update={"parts": {}}), plan)
    with pytest.raises(CaseError, match=r"not in the plan: .'m_category'."):
        check_case(labelled_case().model_copy(update={"parts": {"m_category": "M0"}}), PLAN)


def test_written_cases_are_read_back_equal(tmp_path):
    cases = (
        labelled_case(note="umlaut: ä, line \u2028 separator", traps=("b", "a")),
        labelled_case(id="b", split="held_out", provenance="composed"),
        labelled_case(id="c", text="one\ntwo"),
    )
    written = write_cases(cases, tmp_path / "new" / "folder")
    assert [path.name for path in written] == ["development.jsonl", "held_out.jsonl"]
    back = read_cases(tmp_path / "new" / "folder")
    assert back == (cases[0], cases[2], cases[1])
    assert cases_digest(back) == cases_digest(cases)
    parts = labelled_case(parts_plan(), {"size": 1.0, "nodes": 0})
    write_cases([parts], tmp_path)
    assert read_cases(tmp_path) == (parts,)


def test_later_fields_leave_older_files_and_digests_as_they_were(tmp_path):
    (case,) = read_cases(folder_with(tmp_path, development=[CASE]))
    before = {name: value for name, value in case.model_dump().items() if name not in ("parts", "provenance")}
    assert (
        cases_digest([case])
        == "sha256:" + hashlib.sha256(json.dumps(before, separators=(",", ":")).encode()).hexdigest()
    )
    write_cases([case], tmp_path)
    fields = json.loads((tmp_path / "development.jsonl").read_text(encoding="utf-8"))
    assert set(fields) == set(before) - {"split"}
    assert cases_digest([case.model_copy(update={"provenance": "planner"})]) != cases_digest([case])


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    write_cases([labelled_case()], tmp_path)
    before = (tmp_path / "development.jsonl").read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match=r"development\.jsonl: cannot be written: No space left"):
        write_cases([labelled_case(id="b")], tmp_path)
    assert (tmp_path / "development.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["development.jsonl"]


def test_cases_with_the_same_id_are_not_written(tmp_path):
    with pytest.raises(CaseError, match="1 case ids are there twice, first: a"):
        write_cases([labelled_case(), labelled_case(split="held_out")], tmp_path)
    assert list(tmp_path.iterdir()) == []
