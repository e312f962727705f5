"""Phrase banks: asked for piece by piece, merged, held against the plan, and read back in composed reports."""

from __future__ import annotations

import json

import pytest
from cloud.case_writers import is_complaint, open_desk, sections_of
from cloud.phrase_writers import PhraseWriter
from cloud.sound_plan import GUIDELINE, content, sound_plan, subtask

from medorchestra.cloud.cases.frame_writing import write_frame
from medorchestra.cloud.cases.phrase_writing import PhraseAmounts, write_phrase_bank
from medorchestra.cloud.cases.report_styles import REPORT_STYLES
from medorchestra.errors import CaseError
from medorchestra.phrases.composition import compose_many
from medorchestra.phrases.phrase_bank import read_phrase_bank
from medorchestra.phrases.phrase_bank_check import check_bank
from medorchestra.plan import Plan

PLAN = sound_plan()
FEW = PhraseAmounts(sentences=10, fields=3, layouts=1, distractors=8, read=20)


def plan_with(*names, contradiction=None):
    """The plan with more findings, each yes or no; with one of them, the report contradicts itself."""
    changed = content()
    for name in names:
        silence = {"reads_as": "no", "why": "Rare."}
        changed["findings"].append(
            {"name": name, "description": name, "values": {"yes": "Yes.", "no": "No."}, "not_stated": silence}
        )
        changed["subtasks"].append(subtask(name, {"yes": "yes", "no": "no", "not_stated": "not stated"}, "1.1"))
    if contradiction:
        when = {"finding": contradiction, "is": "yes"}
        changed["flags"].append({"id": "two", "kind": "contradiction", "when": when, "message": "It disagrees."})
    return Plan.model_validate(changed)


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


def frame_of(request):
    return "# instruction: write_frame" in request.system


def test_the_frame_is_asked_for_once_before_anything_else_with_guideline_and_all_findings(tmp_path):
    _, model, _ = write(tmp_path)
    first, *others = model.requests
    assert frame_of(first)
    assert not any(frame_of(request) for request in others)
    shown = dict(sections_of(first))
    assert [one["name"] for one in json.loads(shown["plan: findings"])] == ["tumor", "contact", "size", "nodes"]
    assert {f"guideline: {number}" for number in GUIDELINE.sections} <= shown.keys()


def test_no_composed_report_states_what_rests_on_a_finding_that_is_not_so(tmp_path):
    def with_tumour(answer):
        answer["dependencies"] = [{"finding": name, "on": "tumor", "among": ["yes"]} for name in ("contact", "size")]

    writing, model, _ = write(tmp_path, frame=with_tumour)
    assert not any(is_complaint(request) for request in model.requests)
    assert writing.dropped == ()
    assert writing.lacks == ()
    bound = [case.known() for case in compose_many(writing.bank, PLAN, n=60, split="development")]
    stated = [one for one in bound if {one["contact"], one["size"]} != {"not_stated"}]
    assert len(stated) > 20
    assert {one["tumor"] for one in stated} == {"yes"}
    # Without the answer they would.
    free, _, _ = write(tmp_path / "free")
    cases = [case.known() for case in compose_many(free.bank, PLAN, n=60, split="development")]
    assert any(one["contact"] != "not_stated" and one["tumor"] != "yes" for one in cases)


def test_a_finding_that_follows_from_others_needs_no_phrase_for_what_follows(tmp_path):
    def follows(answer):
        answer["derived"] = [{"finding": "nodes_named", "value": "no", "if_any_stated": ["nodes"]}]

    def without_it(answer):
        answer["phrases"] = [
            one for one in answer["phrases"] if {"finding": "nodes_named", "value": "no"} not in one["states"]
        ]

    plan = plan_with("nodes_named")
    writer = PhraseWriter(plan, frame=follows, phrases=without_it)
    bank = write_phrase_bank(open_desk(writer.model, tmp_path, GUIDELINE), plan, guideline=GUIDELINE, amounts=FEW).bank
    assert not any(is_complaint(request) for request in writer.model.requests)
    cases = [case.known() for case in compose_many(bank, plan, n=60, split="development")]
    told = [case["nodes_named"] for case in cases if case["nodes"] != "not_stated"]
    assert len(told) > 10
    assert told.count("no") > 0.8 * len(told)
    assert "not_stated" not in told


def test_the_finding_that_compares_findings_and_conclusion_gets_no_phrases_and_is_set_by_the_program(tmp_path):
    def compares(answer):
        answer["agreement"] = {"finding": "conflict", "agrees": "no", "conflicts": "yes", "about": ["contact"]}

    def many_conclusions(answer):
        closing = [one for one in answer["phrases"] if one["text"].startswith("Closing")]
        answer["phrases"] += [
            one | {"text": one["text"].replace("c1x", f"c{k}x")} for one in closing for k in range(2, 9)
        ]

    plan = plan_with("conflict", contradiction="conflict")
    writer = PhraseWriter(plan, frame=compares, phrases=many_conclusions)
    bank = write_phrase_bank(open_desk(writer.model, tmp_path, GUIDELINE), plan, guideline=GUIDELINE, amounts=FEW).bank
    later = [request for request in writer.model.requests if "# instruction: write_" in request.system][1:]
    assert len(later) > 4
    assert not any("conflict" in dict(sections_of(request))["plan: findings"] for request in later)
    assert not any("conflict" in phrase.states for phrase in bank.phrases)
    assert "conflict" not in bank.sections
    cases = compose_many(bank, plan, n=150, split="development")
    assert {case.findings["conflict"] for case in cases} == {"not_stated", "no", "yes"}


def test_numbers_are_as_usual_as_the_answer_says(tmp_path):
    def small(answer):
        answer["numbers"][0] = {"finding": "size", "low": 1.5, "high": 4.5, "decimals": 1}

    writing, _, _ = write(tmp_path, frame=small)
    assert [(one.finding, one.low, one.high, one.decimals) for one in writing.bank.numbers] == [
        ("size", 1.5, 4.5, 1),
        ("nodes", 0, 9, 0),
    ]


def test_what_rests_on_a_finding_may_stand_beside_silence_that_the_plan_reads_as_the_needed_value(tmp_path):
    """Nobody writes that the examination was fit; the vessels are described all the same."""
    changed = content()
    changed["findings"][0]["not_stated"] = {"reads_as": "yes", "why": "Reports without one say so."}

    def on_tumour(answer):
        answer["dependencies"] = [{"finding": "contact", "on": "tumor", "among": ["yes"]}]

    for plan, among in ((Plan.model_validate(changed), ("yes", "not_stated")), (PLAN, ("yes",))):
        desk = open_desk(PhraseWriter(plan, frame=on_tumour).model, tmp_path / str(len(among)), GUIDELINE)
        assert [one.among for one in write_frame(desk, plan, GUIDELINE).bank.dependencies] == [among]


def test_an_empty_frame_is_asked_for_again_and_then_taken_from_the_plan(tmp_path):
    changed = content()
    changed["findings"][1]["not_stated"] = {"reads_as": "none", "if_stated": "tumor", "why": "Seen with the tumour."}
    plan = Plan.model_validate(changed)
    writer = PhraseWriter(plan, frame=lambda answer: answer.clear())
    writing = write_phrase_bank(open_desk(writer.model, tmp_path, GUIDELINE), plan, guideline=GUIDELINE, amounts=FEW)
    asked = [request for request in writer.model.requests if frame_of(request)]
    assert [is_complaint(request) for request in asked] == [False, True, True]
    assert "numbers: no entry for size" in asked[1].user
    assert [(one.finding, one.on, one.among) for one in writing.bank.dependencies] == [
        ("contact", "tumor", ("yes", "no")),
    ]
    assert [(one.finding, one.low, one.high) for one in writing.bank.numbers] == [
        ("size", 2 * 0.4, 4 * 1.8),
        ("nodes", 0, 3 * 1.8),
    ]
    assert writing.dropped == ()


FAULTS = {
    "dependency 1: there is no finding 'vein'": {
        "dependencies": [{"finding": "vein", "on": "tumor", "among": ["yes"]}],
    },
    "dependency 1: finding tumor has no value 'maybe'; it has: yes, no, not_stated": {
        "dependencies": [{"finding": "contact", "on": "tumor", "among": ["yes", "maybe"]}],
    },
    "dependency 1: finding contact has no value 'not_stated'; it has: none, <=180, >180": {
        "dependencies": [{"finding": "contact", "values": ["not_stated"], "on": "tumor", "among": ["yes"]}],
    },
    "dependency 1: finding size has no value '2'; it has: number, not_stated": {
        "dependencies": [{"finding": "contact", "on": "size", "among": ["2"]}],
    },
    "dependency 1: tumor rests on itself": {"dependencies": [{"finding": "tumor", "on": "tumor", "among": ["yes"]}]},
    "dependency 1: `among` is empty: no report could state it": {
        "dependencies": [{"finding": "contact", "on": "tumor", "among": []}],
    },
    "dependency 1: named is derived; name what it is derived from": {
        "dependencies": [{"finding": "contact", "on": "named", "among": ["yes"]}],
        "derived": [{"finding": "named", "value": "no", "if_any_stated": ["contact"]}],
    },
    "derived 1: size is a number": {"derived": [{"finding": "size", "value": "number", "if_any_stated": ["tumor"]}]},
    "derived 1: finding named has no value 'not_stated'; it has: yes, no": {
        "derived": [{"finding": "named", "value": "not_stated", "if_any_stated": ["tumor"]}],
    },
    "derived 1: `if_any_stated` needs findings, none of which is derived": {
        "derived": [{"finding": "named", "value": "no", "if_any_stated": []}],
    },
    "derived 2: named stands in `derived` 2 times": {
        "derived": [{"finding": "named", "value": value, "if_any_stated": ["tumor"]} for value in ("no", "yes")],
    },
    "derived 1: disagree says that the report contradicts itself: it belongs to `agreement`, or nowhere": {
        "derived": [{"finding": "disagree", "value": "no", "if_any_stated": ["tumor"]}],
    },
    "derived 1: disagree belongs to `agreement` alone": {
        "derived": [{"finding": "disagree", "value": "no", "if_any_stated": ["tumor"]}],
        "agreement": {"finding": "disagree", "agrees": "no"},
    },
    "agreement: there is no finding 'peace'": {"agreement": {"finding": "peace", "agrees": "no"}},
    "agreement: `agrees` and `conflicts` are the same value": {
        "agreement": {"finding": "disagree", "agrees": "no", "conflicts": "no", "about": ["tumor"]},
    },
    "agreement: `about` is empty: name the findings on which a contradiction counts": {
        "agreement": {"finding": "disagree", "agrees": "no", "conflicts": "yes"},
    },
    "agreement: there is no finding 'vein'": {
        "agreement": {"finding": "disagree", "agrees": "no", "conflicts": "yes", "about": ["vein"]},
    },
    "number 3: 'tumor' is no number finding": {"numbers": [{"finding": "tumor", "low": 1, "high": 2}]},
    "number 3: size stands in `numbers` 2 times": {"numbers": [{"finding": "size", "low": 1, "high": 2}]},
    "number 1: size: low must be below high, and both within": {"low": 0.05},
    "number 1: size: 4 decimals; 0 to 3 are possible": {"decimals": 4},
    "rule encased: no report could come under it with these": {
        "dependencies": [{"finding": "contact", "on": "tumor", "among": ["no"]}],
    },
    "rule abuts: no report could come under it with these": {
        "derived": [{"finding": "contact", "value": "none", "if_any_stated": ["tumor"]}],
    },
}


@pytest.mark.parametrize(("problem", "fault"), FAULTS.items(), ids=FAULTS)
def test_a_frame_that_does_not_fit_the_plan_goes_back_and_what_stays_wrong_is_left_out_and_told(
    tmp_path, problem, fault
):
    def spoil(answer):
        answer["numbers"][0].update({key: fault[key] for key in ("low", "decimals") if key in fault})
        answer["numbers"] += fault.get("numbers", [])
        answer.update({key: fault[key] for key in ("dependencies", "derived", "agreement") if key in fault})

    plan = plan_with("named", "disagree", contradiction="disagree")
    writer = PhraseWriter(plan, frame=spoil)
    writing = write_frame(open_desk(writer.model, tmp_path, GUIDELINE), plan, GUIDELINE)
    asked = writer.model.requests
    assert [is_complaint(request) for request in asked] == [False, True, True]
    assert problem in asked[1].user
    assert any(problem in line for line in writing.left_out)
    assert check_bank(writing.bank, plan, minimum={}) == ()


def test_a_wrong_piece_of_the_frame_costs_the_others_nothing(tmp_path):
    def spoil(answer):
        answer["dependencies"] = [
            {"finding": "contact", "on": "tumor", "among": ["maybe"]},
            {"finding": "size", "on": "tumor", "among": ["yes"]},
        ]

    writing, _, desk = write(tmp_path, frame=spoil)
    assert [(one.id, one.reason) for one in writing.dropped] == [("dependency 1", "faulty")]
    assert [one.finding for one in writing.bank.dependencies] == ["size"]
    assert desk.usage.steps["write frame"].repairs == 2


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
    assert len(phrases) == 4  # four findings, one to a request
    assert sum("findings: nodes." in request.system for request in phrases) == 1
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
