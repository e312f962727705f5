"""Phrase banks: asked for piece by piece, merged, held against the plan, and read back in composed reports."""

from __future__ import annotations

import json

import pytest
from cloud.case_writers import is_complaint, open_desk, sections_of
from cloud.phrase_writers import PhraseWriter
from cloud.sound_plan import GUIDELINE, content, sound_plan

from medorchestra.cloud.phrase_writing import PhraseAmounts, write_phrase_bank
from medorchestra.cloud.report_styles import REPORT_STYLES
from medorchestra.composition import compose_many
from medorchestra.errors import CaseError
from medorchestra.phrase_bank import read_phrase_bank
from medorchestra.phrase_bank_check import check_bank
from medorchestra.plan import Plan

PLAN = sound_plan()
FEW = PhraseAmounts(sentences=10, fields=3, layouts=1, distractors=8, read=20)


def write(tmp_path, *, folder=None, amounts=FEW, **changes):
    writer = PhraseWriter(PLAN, **changes)
    desk = open_desk(writer.model, tmp_path, GUIDELINE)
    return write_phrase_bank(desk, PLAN, folder, guideline=GUIDELINE, amounts=amounts), writer.model, desk


def test_a_bank_that_is_read_back_as_it_was_composed_is_whole_and_composes_reports_of_every_split(tmp_path):
    writing, model, _ = write(tmp_path)
    assert writing.dropped == ()
    assert writing.misread == {}
    assert writing.checked == 20
    assert writing.lacks == ()
    assert not any(is_complaint(request) for request in model.requests)
    assert writing.bank.provenance.origin == "planner"
    for split in ("development", "calibration", "held_out"):
        cases = compose_many(writing.bank, PLAN, n=20, split=split)
        assert len({case.text for case in cases}) > 15


def test_layouts_in_styles_kept_for_held_out_cases_are_of_that_split_alone(tmp_path):
    writing, _, _ = write(tmp_path)
    kept = {style.name for style in REPORT_STYLES if style.held_out_only}
    assert {one.split for one in writing.bank.skeletons if one.style in kept} == {"held_out"}
    others = {one.split for one in writing.bank.skeletons if one.style not in kept}
    assert others >= {"development", "calibration"}
    assert {one.style for one in writing.bank.skeletons} == {style.name for style in REPORT_STYLES}


def test_every_finding_is_asked_for_once_and_layouts_are_asked_for_in_every_style(tmp_path):
    _, model, _ = write(tmp_path)
    phrases = [request for request in model.requests if "# instruction: write_phrases" in request.system]
    layouts = [request for request in model.requests if "# instruction: write_layouts" in request.system]
    assert len(phrases) == 2  # four findings, two to a request
    assert sum("findings: size, nodes." in request.system for request in phrases) == 1
    shown = "\n".join(dict(sections_of(request))["plan: styles"] for request in layouts)
    assert all(f"- {style.name}: " in shown for style in REPORT_STYLES)


def test_a_phrase_that_says_something_else_than_it_states_is_found_by_the_reader_and_dropped(tmp_path):
    def lie(answer):
        for phrase in answer["phrases"]:
            if phrase["text"].startswith("F1 V0"):  # states "no contact", says "encased"
                phrase["text"] = phrase["text"].replace("F1 V0", "F1 V2")

    writing, _, _ = write(tmp_path, phrases=lie, amounts=PhraseAmounts(10, 3, 1, 8, read=40))
    dropped = [one for one in writing.dropped if one.reason == "read_otherwise"]
    assert writing.misread.keys() == {"contact"}
    assert dropped
    assert all(one.detail == "states contact=none, was read as >180" for one in dropped)
    assert not {one.id for one in dropped} & {phrase.id for phrase in writing.bank.phrases}
    assert check_bank(writing.bank, PLAN, minimum={}) == ()


def test_faults_go_back_to_the_writer_by_the_number_of_the_phrase(tmp_path):
    def spoil(answer):
        if not spoilt and answer["phrases"][0]["text"].startswith("F0"):
            spoilt.append(True)
            answer["phrases"][0]["states"] = [{"finding": "tumor", "value": "maybe"}]
            answer["phrases"][1]["text"] = "F0 V0 {inch}."
            answer["phrases"][2]["text"] += " MRN: 4711-0815"

    spoilt: list[bool] = []
    writing, model, _ = write(tmp_path, phrases=spoil)
    (complaint,) = [request for request in model.requests if is_complaint(request)]
    told = "\n".join(text for heading, text in sections_of(complaint) if heading.startswith("problem"))
    assert "phrase 1: finding tumor has no value 'maybe'" in told
    assert "phrase 2: bank: unknown slot {inch}" in told
    assert "phrase 3: holds what looks like 1 x record" in told
    assert writing.dropped == ()


def test_what_stays_faulty_is_left_out_and_told(tmp_path):
    def spoil(answer):
        if answer["phrases"][0]["text"].startswith("F0"):
            answer["phrases"][0]["states"] = [{"finding": "tumor", "value": "maybe"}]
            answer["phrases"][2]["text"] += " MRN: 4711-0815"

    writing, _, desk = write(tmp_path, phrases=spoil)
    assert sorted(one.detail.partition(";")[0] for one in writing.dropped) == [
        "finding tumor has no value 'maybe'",
        "held what looks like an identifier",
    ]
    assert desk.usage.steps["write phrases"].repairs == 2
    assert not any("4711" in phrase.text for phrase in writing.bank.phrases)


def test_too_few_phrases_are_asked_for_again_unless_the_value_cannot_be_said(tmp_path):
    def fewer(answer):
        abuts = {"finding": "contact", "value": "<=180"}
        kept = [one for one in answer["phrases"] if one["text"].startswith("Closing") or abuts not in one["states"]]
        if any(phrase["text"].startswith("F1") for phrase in kept):
            if spoilt:
                answer["unsayable"] = [{"finding": "contact", "value": "<=180", "why": "Needs a measurement."}]
            spoilt.append(True)
            answer["phrases"] = kept

    spoilt: list[bool] = []
    writing, model, _ = write(tmp_path, phrases=fewer)
    (complaint,) = [request for request in model.requests if is_complaint(request)]
    assert "contact = <=180: 1 different sentences, 10 wanted" in complaint.user
    assert writing.unsayable == {"contact=<=180": "Needs a measurement."}
    assert any("value <=180" in line for line in writing.lacks)


def test_a_layout_without_places_for_findings_goes_back(tmp_path):
    def spoil(answer):
        if not spoilt:
            spoilt.append(True)
            answer["skeletons"][0]["places"] = answer["skeletons"][0]["places"][:1]
            answer["skeletons"][1]["style"] = "nobody"
            answer["distractors"][0]["states"] = [{"finding": "tumor", "value": "no"}]

    spoilt: list[bool] = []
    _, model, _ = write(tmp_path, layouts=spoil)
    (complaint,) = [request for request in model.requests if is_complaint(request)]
    assert "skeleton 1: no place for tumor, contact, size, nodes" in complaint.user
    assert "skeleton 2: its style must be one of" in complaint.user
    assert "distractor 1: its states must be empty" in complaint.user


def test_a_phrase_inside_another_one_with_another_value_is_left_out(tmp_path):
    def nest(answer):
        if answer["phrases"][0]["text"].startswith("F0"):
            answer["phrases"][0]["text"] = "F0 V0 s0x seen."
            inside = next(one for one in answer["phrases"] if one["text"].startswith("F0 V1"))
            inside["text"] = "In no way F0 V0 s0x seen but F0 V1."

    writing, _, _ = write(tmp_path, phrases=nest)
    (dropped,) = [one for one in writing.dropped if one.reason == "faulty"]
    assert "with another value" in dropped.detail


def test_files_hold_the_bank_and_what_was_dropped(tmp_path):
    writing, _, _ = write(tmp_path, folder=tmp_path / "out")
    assert read_phrase_bank(tmp_path / "out" / "phrase_bank.json") == writing.bank
    lines = (tmp_path / "out" / "phrases_dropped.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [one.id for one in writing.dropped]


def test_a_second_run_asks_nothing_again(tmp_path):
    first, _, _ = write(tmp_path)
    second, model, _ = write(tmp_path)
    assert model.requests == ()
    assert second == first


def test_a_writer_without_a_single_phrase_is_refused(tmp_path):
    with pytest.raises(CaseError, match="nothing was written that states a finding"):
        write(tmp_path, phrases=lambda answer: answer.update(phrases=[]))


def test_a_finding_that_says_the_report_contradicts_itself_is_not_asked_for_and_stays_silent(tmp_path):
    changed = content()
    changed["flags"].append(
        {
            "id": "disagree",
            "kind": "contradiction",
            "when": {"finding": "tumor", "is": "no"},
            "message": "It disagrees.",
        }
    )
    plan = Plan.model_validate(changed)
    writer = PhraseWriter(plan)
    desk = open_desk(writer.model, tmp_path, GUIDELINE)
    bank = write_phrase_bank(desk, plan, guideline=GUIDELINE, amounts=FEW).bank
    assert bank.findings == ("contact", "size", "nodes")
    assert {case.findings["tumor"] for case in compose_many(bank, plan, n=10, split="development")} == {"not_stated"}
