"""Reports written from briefs and read back: what is kept, what is rejected and why, and that nothing is lost."""

from __future__ import annotations

import json

import pytest
from cloud.case_writers import is_complaint, open_desk, read, said, sections_of, writer_and_reader, written
from plan_by_hand import PLAN_BY_HAND

from medorchestra.cloud.cases import case_writing
from medorchestra.cloud.cases.case_briefs import case_briefs
from medorchestra.cloud.cases.case_writing import CaseWriting, write_cases
from medorchestra.cloud.desk.scripted_cloud import ScriptedCloudModel
from medorchestra.cloud.egress.log import verify_log
from medorchestra.cloud.guideline import read_guideline
from medorchestra.errors import CloudError
from medorchestra.rules import NOT_STATED
from medorchestra.synthetic import check_case, read_cases
from medorchestra.topics import guideline_folder

PLAN = PLAN_BY_HAND
GUIDELINE = read_guideline(guideline_folder("pancreatic_cancer") / "guideline.md")
BRIEFS = case_briefs(PLAN, 20, seed=3)


def write(tmp_path, *, briefs=BRIEFS, folder=None, earlier=None, **changes):
    model = writer_and_reader(**changes)
    desk = open_desk(model, tmp_path, GUIDELINE)
    return write_cases(desk, GUIDELINE, PLAN, briefs, folder, earlier=earlier), model, desk


def test_reports_that_are_read_as_they_were_meant_are_kept_with_their_split_form_and_style(tmp_path):
    writing, model, _ = write(tmp_path)
    assert writing.rejected == ()
    assert [case.id for case in writing.cases] == [brief.id for brief in BRIEFS]
    for case, brief in zip(writing.cases, BRIEFS, strict=True):
        assert (case.split, case.form, case.style) == (brief.split, brief.form, brief.style.name)
        assert case.known() == dict(brief.targets)
        assert case.provenance == "planner"
        assert set(case.traps) == {trap.name for trap in brief.traps}
        check_case(case, PLAN)
    assert len(model.requests) == 3 + 3  # eight to a request, and as many read back


def test_the_reader_sees_neither_briefs_nor_targets_nor_styles(tmp_path):
    _, model, _ = write(tmp_path)
    readings = [request for request in model.requests if "read_back" in request.system]
    assert readings
    for request in readings:
        kinds = {heading.split(":")[0] for heading, _ in sections_of(request)}
        assert kinds == {"guideline", "plan", "case"}
        assert [heading for heading, _ in sections_of(request) if heading.startswith("plan")] == ["plan: findings"]
        assert not any(brief.style.name in request.user or brief.style.asks in request.user for brief in BRIEFS)


def test_the_writer_gets_what_is_stated_how_it_is_worded_what_is_silent_and_the_traps(tmp_path):
    _, model, _ = write(tmp_path)
    shown = next(
        text
        for request in model.requests
        for heading, text in sections_of(request)
        if heading == "plan: briefs" and f"brief {BRIEFS[0].id}\n" in text
    )
    for brief in BRIEFS[:8]:
        block = shown[shown.index(f"brief {brief.id}\n") :].split("\n\nbrief ")[0]
        for name, value in brief.targets.items():
            if value != NOT_STATED:
                hint = f" ({brief.wording[name]})" if name in brief.wording else ""
                assert (
                    f"\n- {name} = {value:g}{hint}\n" in block
                    if isinstance(value, float)
                    else (f"\n- {name} = {value}{hint}\n" in block)
                )
            else:
                assert name in block[block.index("\nsilent: ") :]
        assert all(f"\n- {trap.asks}" in block for trap in brief.traps)
        assert f"style: {brief.style.asks}\n" in block


def test_a_report_that_states_another_value_is_rejected_and_the_finding_is_counted(tmp_path):
    liar = next(brief for brief in BRIEFS if brief.targets["sma_contact"] == "none")

    def lie(answer):
        for one in answer["reports"]:
            if one["brief"] == liar.id:
                one["text"] = one["text"].replace("sma contact is none", "sma contact is >180")

    writing, _, _ = write(tmp_path, writes=lie)
    (rejected,) = writing.rejected
    assert (rejected.brief.id, rejected.reason) == (liar.id, "read_otherwise")
    assert [(gap.finding, gap.wanted, gap.read) for gap in rejected.disagreements] == [("sma_contact", "none", ">180")]
    assert liar.id not in {case.id for case in writing.cases}
    assert writing.by_finding == {"sma_contact": 1}
    assert writing.by_reason == {"read_otherwise": 1}


def test_silence_agrees_with_the_value_it_is_read_as_and_the_readers_value_is_the_label(tmp_path):
    quiet = next(brief for brief in BRIEFS if brief.targets["liver_mets"] == NOT_STATED)
    open_vessel = next(brief for brief in BRIEFS if brief.targets["ca_contact"] == NOT_STATED and brief != quiet)

    def add(answer):
        for one in answer["reports"]:
            if one["brief"] == quiet.id:
                one["text"] += "\nliver mets is no"
            if one["brief"] == open_vessel.id:
                one["text"] += "\nca contact is none"

    writing, _, _ = write(tmp_path, writes=add)
    kept = {case.id: case for case in writing.cases}
    assert kept[quiet.id].findings["liver_mets"] == "no"
    # A vessel that is not described stays unknown: silence is not "none".
    assert [(one.brief.id, one.disagreements[0].finding) for one in writing.rejected] == [
        (open_vessel.id, "ca_contact")
    ]


def test_a_silence_with_conditions_agrees_only_where_it_is_read_so():
    from medorchestra.cloud.cases.reading_back import disagreements

    known = {finding.name: NOT_STATED for finding in PLAN.findings}
    stated = known | {"cha_contact": "<=180", "pv_smv_contact": "none"}
    no, yes = {"cha_extension": "no"}, {"pv_smv_reconstructible": "yes"}
    assert disagreements(PLAN, stated, stated | no | yes) == ()
    assert [gap.finding for gap in disagreements(PLAN, known, known | no)] == ["cha_extension"]
    occluded = stated | {"pv_smv_contact": "occluded"}
    assert [gap.finding for gap in disagreements(PLAN, occluded, occluded | yes)] == ["pv_smv_reconstructible"]
    assert [gap.finding for gap in disagreements(PLAN, stated | {"tumor_size_cm": 2.0}, stated)] == ["tumor_size_cm"]
    small = stated | {"tumor_size_cm": 2.1}
    assert disagreements(PLAN, small, stated | {"tumor_size_cm": 21 / 10}) == ()


def test_what_is_missing_doubled_or_unfit_goes_back_once_and_is_mended(tmp_path):
    first, second, third = (brief.id for brief in BRIEFS[:3])

    def spoil(answer):
        if {one["brief"] for one in answer["reports"]} >= {first} and not spoilt:
            spoilt.append(True)
            answer["reports"] = [one for one in answer["reports"] if one["brief"] != first]
            answer["reports"][0]["text"] = "Too short."
            answer["reports"][1]["text"] += "\nsma_contact is fine"
            answer["reports"].append(answer["reports"][2])

    spoilt: list[bool] = []
    writing, model, desk = write(tmp_path, writes=spoil)
    assert writing.rejected == ()
    (complaint,) = [request for request in model.requests if is_complaint(request)]
    told = "\n".join(text for heading, text in sections_of(complaint) if heading.startswith("problem"))
    assert f"brief {first}: no report" in told
    assert f"brief {second}: 2 words" in told
    assert f"brief {third}: names from the lists stand in it as they are: sma_contact" in told
    assert ": 2 reports" in told
    assert desk.usage.steps["write cases"].repairs == 1


def test_what_stays_wrong_costs_its_cases_and_not_the_run(tmp_path):
    missing, persons, declined, copied = (brief.id for brief in BRIEFS[:4])

    def spoil(answer):
        by_id = {one["brief"]: one for one in answer["reports"]}
        if missing in by_id:
            by_id[persons]["text"] += " MRN: 4711-0815"
            by_id[declined] |= {"text": "", "unwritable": "An artery cannot be free and encased."}
            by_id[copied]["text"] = by_id[BRIEFS[4].id]["text"]
            answer["reports"] = [one for one in answer["reports"] if one["brief"] != missing]

    writing, model, _ = write(tmp_path, writes=spoil)
    reasons = {one.brief.id: one.reason for one in writing.rejected}
    assert reasons[missing] == "not_written"
    assert reasons[persons] == "unfit"
    assert reasons[declined] == "unwritable"
    assert reasons.get(copied) in ("unfit", "read_otherwise", "doubled")
    assert len(writing.cases) + len(writing.rejected) == len(BRIEFS)
    assert {one.brief.id: one.detail for one in writing.rejected}[declined].startswith("An artery")
    # What could belong to a person never left again, not even to be read.
    assert not any("4711-0815" in request.user for request in model.requests)


def test_a_copy_of_an_earlier_report_is_rejected_also_across_calls(tmp_path):
    briefs = case_briefs(PLAN, 4, seed=3, prefix="r1-")
    earlier, _, _ = write(tmp_path / "a")
    texts = {case.id: case.text for case in earlier.cases}

    def copy(answer):
        for one in answer["reports"]:
            one["text"] = texts[one["brief"].removeprefix("r1-")]

    writing, _, _ = write(tmp_path / "b", briefs=briefs, earlier=earlier, writes=copy)
    assert {one.reason for one in writing.rejected} == {"doubled"}
    assert writing.cases == ()


def test_a_report_that_the_reader_leaves_out_is_not_used(tmp_path):
    left_out = BRIEFS[2].id

    def omit(answer):
        answer["reports"] = [one for one in answer["reports"] if one["case"] != left_out]

    writing, _, _ = write(tmp_path, reads=omit)
    assert [(one.brief.id, one.reason) for one in writing.rejected] == [(left_out, "not_read")]


def test_a_reading_with_impossible_values_is_asked_for_again(tmp_path):
    def misread(answer):
        if not spoilt:
            spoilt.append(True)
            answer["reports"][0]["findings"][0]["value"] = "perhaps"
            answer["reports"][0]["findings"].pop()

    spoilt: list[bool] = []
    writing, model, _ = write(tmp_path, reads=misread)
    assert writing.rejected == ()
    (complaint,) = [request for request in model.requests if is_complaint(request)]
    assert "'perhaps' is none of its values; it has yes, no, not_stated" in complaint.user
    assert "finding impression_conflict: missing" in complaint.user


def test_files_hold_every_case_by_split_and_every_rejected_report_with_its_reason(tmp_path):
    def lie(answer):
        answer["reports"][0]["text"] += "\ntumor location is tail\ntumor size cm is 29.5"

    folder = tmp_path / "cases"
    writing, _, _ = write(tmp_path, folder=folder, writes=lie)
    assert sorted(read_cases(folder), key=lambda case: case.id) == sorted(writing.cases, key=lambda case: case.id)
    lines = [json.loads(line) for line in (folder / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [one.brief.id for one in writing.rejected]
    assert len(lines) == 3
    assert {line["reason"] for line in lines} == {"read_otherwise"}
    assert all(line["text"] and line["disagreements"] for line in lines)


def test_earlier_cases_stay_in_the_files_beside_new_ones(tmp_path):
    folder = tmp_path / "cases"
    first, _, _ = write(tmp_path, folder=folder)
    more = case_briefs(PLAN, 4, seed=9, prefix="r1-")
    second, _, _ = write(tmp_path / "more", briefs=more, folder=folder, earlier=first)
    assert {case.id for case in read_cases(folder)} == {case.id for case in (first + second).cases}
    assert len(second.cases) == 4


def test_a_killed_run_keeps_what_was_read_back_and_goes_on_without_asking_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(case_writing, "REQUESTS_IN_A_WAVE", 1)
    folder = tmp_path / "cases"
    asked: list[str] = []

    def dying(request):
        if "write_cases" in request.system:
            asked.append("write")
            if len(asked) == 3:
                raise CloudError("connection lost")
        return json.dumps(written(request) if "write_cases" in request.system else read(request))

    with pytest.raises(CloudError, match="write cases: connection lost"):
        write_cases(open_desk(ScriptedCloudModel(dying), tmp_path, GUIDELINE), GUIDELINE, PLAN, BRIEFS, folder)
    assert len(read_cases(folder)) == 16
    again = writer_and_reader()
    writing = write_cases(open_desk(again, tmp_path, GUIDELINE), GUIDELINE, PLAN, BRIEFS, folder)
    assert len(writing.cases) == 20
    assert len(again.requests) == 2  # the last four briefs, written and read back
    assert verify_log(tmp_path / "egress-1.jsonl").problems == ()


def test_a_report_in_another_language_says_so_in_its_style(tmp_path):
    writing, _, _ = write(tmp_path, briefs=case_briefs(PLAN, 2, languages=("de",)))
    assert all(case.style.endswith(" (de)") for case in writing.cases)


def test_no_briefs_ask_for_nothing(tmp_path):
    writing, model, _ = write(tmp_path, briefs=())
    assert writing == CaseWriting()
    assert model.requests == ()


def test_the_scripted_writer_says_names_in_words():
    assert said("<=180_smooth") == "<=180 smooth"
