"""Rehearsal and the whole way from guideline to plan, with a scripted hosted model and a scripted local one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

import pytest
from cloud.toy.nodule import DECOMPOSITION, GUIDELINE, GUIDELINE_FILE, ToyCloud, toy_engine, toy_reading
from plan_by_hand import PLAN_BY_HAND, cases_by_hand

import medorchestra as mo
from medorchestra.cloud.desk.cloud_desk import Effort
from medorchestra.cloud.desk.usage import Budget
from medorchestra.cloud.egress.log import verify_log
from medorchestra.errors import BudgetError, CaseError, CloudError, GuidelineError, PlanError
from medorchestra.local.answer_key import perfect_reader
from medorchestra.local.records import Report
from medorchestra.plan import Accuracy, ValidationRecord
from medorchestra.rehearsal import PlanMaking, calibrate_on_cases, make_plan, rehearse, validated

PLAN = PLAN_BY_HAND
CASES = cases_by_hand("held_out")[:6]
DAY = date(2026, 11, 24)
CANARY = "CANARY-5530"


def few(**changes):
    """A making with so few cases that it is quick."""
    planner = {"cases": 24, "phrase_bank": False} | changes.pop("planner", {})
    return PlanMaking(planner=mo.PlannerSettings(**planner), **changes)


def made_into(out, cloud=None, **options):
    cloud = cloud or ToyCloud()
    options = {"local": toy_engine(), "making": few()} | options
    return make_plan(GUIDELINE_FILE, cloud=cloud.model(), out=out, **options), cloud


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a plan that was made, and what came back."""
    out = tmp_path_factory.mktemp("made")
    return out, *made_into(out)


# ------------------------------------------------------------------------------ rehearsing


def test_a_perfect_reader_gets_every_finding_and_outcome_right():
    seen = []
    scores = rehearse(PLAN, CASES, perfect_reader(PLAN, CASES), progress=seen.append)
    assert [reading.case.id for reading in scores.readings] == [case.id for case in CASES]
    assert seen == list(scores.readings)
    assert scores.outcome_correct == len(scores.decided) > 0
    assert all(scores.finding(finding.name).correct == len(CASES) for finding in PLAN.findings)
    assert scores.plan_digest == PLAN.digest


def test_an_engine_that_fails_gives_wrong_readings_and_not_fewer_of_them():
    scores = rehearse(PLAN, CASES, mo.ScriptedEngine(lambda asked: RuntimeError(asked.report)))
    assert len(scores.readings) == len(CASES)
    assert scores.outcome_correct == 0
    assert scores.finding("sma_contact").confusion.total() == len(CASES)
    assert all(answered == "no answer" for _, answered in scores.finding("sma_contact").confusion)


def test_a_rehearsal_goes_on_from_its_ledger(tmp_path):
    asked = []
    key = perfect_reader(PLAN, CASES)

    def noted(question):
        asked.append(question)
        return key._reply(question)

    first = rehearse(PLAN, CASES[:3], mo.ScriptedEngine(noted), ledger=tmp_path / "ledger.sqlite")
    assert len(asked) == 3 * len(PLAN.subtasks)
    again = rehearse(PLAN, CASES, mo.ScriptedEngine(noted), ledger=tmp_path / "ledger.sqlite")
    assert len(asked) == 6 * len(PLAN.subtasks)
    assert [one.answers for one in again.readings[:3]] == [one.answers for one in first.readings]


def test_a_real_report_is_never_rehearsed_and_its_text_is_not_in_the_error():
    report = Report("p1", f"CT abdomen. {CANARY}")
    with pytest.raises(TypeError, match="a plan is rehearsed on synthetic cases only, there is a Report") as caught:
        rehearse(PLAN, [*CASES, report], perfect_reader(PLAN, CASES))
    assert CANARY not in str(caught.value)


def test_without_cases_there_is_no_rehearsal():
    with pytest.raises(CaseError, match="no synthetic cases"):
        rehearse(PLAN, [], perfect_reader(PLAN, []))


# ------------------------------------------------------------------------------ the record


def record(plan_digest, model_digest, measured_on=date(2026, 1, 1)):
    return ValidationRecord(
        measured_on=measured_on,
        plan_digest=plan_digest,
        model="m",
        model_digest=model_digest,
        cases_digest="sha256:" + "1" * 64,
        outcome=Accuracy(n=2, correct=1, low=0.1, high=0.9),
        findings={},
    )


def test_a_held_out_rehearsal_becomes_the_plans_record_and_leaves_its_digest_alone():
    engine = perfect_reader(PLAN, CASES)
    plan = validated(PLAN, rehearse(PLAN, CASES, engine), measured_on=DAY)
    assert plan.digest == PLAN.digest
    found = plan.validation_for(engine.identity.digest, None)
    assert (found.measured_on, found.model, found.outcome.correct) == (DAY, "perfect_reader", found.outcome.n)
    assert set(found.findings) == {finding.name for finding in PLAN.findings}
    assert mo.stage({CASES[0].id: CASES[0].text}, plan, model=engine).validated


def test_a_new_record_takes_the_place_of_the_old_one_of_the_pair_and_of_those_of_older_plans():
    engine = perfect_reader(PLAN, CASES)
    of_another_model = record(PLAN.digest, "sha256:" + "2" * 64)
    older = [record(PLAN.digest, engine.identity.digest), record("sha256:" + "3" * 64, "sha256:" + "2" * 64)]
    before = PLAN.model_copy(update={"validation": (older[0], of_another_model, older[1])})
    after = validated(before, rehearse(before, CASES, engine), measured_on=DAY)
    assert after.validation[0] == of_another_model
    assert [one.measured_on for one in after.validation[1:]] == [DAY]


def test_cases_that_prompts_may_be_fitted_to_validate_nothing():
    fitted = cases_by_hand("development")[:2]
    scores = rehearse(PLAN, [*CASES, *fitted], perfect_reader(PLAN, [*CASES, *fitted]))
    with pytest.raises(ValueError, match="2 of the cases are not held out"):
        validated(PLAN, scores)


def test_a_rehearsal_of_another_plan_validates_nothing():
    scores = rehearse(PLAN, CASES, perfect_reader(PLAN, CASES))
    with pytest.raises(ValueError, match="the rehearsal was of plan"):
        validated(PLAN.model_copy(update={"title": "Another"}), scores)


def test_what_an_earlier_record_says_of_the_model_sends_no_case_to_review():
    """Else a model that once read badly could never be measured as one that reads well."""
    engine = perfect_reader(PLAN, CASES)
    poor = record(PLAN.digest, engine.identity.digest)
    before = PLAN.model_copy(update={"validation": (poor,)})
    assert all(one.review for one in mo.stage({case.id: case.text for case in CASES}, before, model=engine))
    scores = rehearse(before, CASES, engine)
    assert scores == rehearse(PLAN, CASES, engine)
    assert scores.unreviewed
    after = validated(before, scores, measured_on=DAY)
    assert [one.measured_on for one in after.validation] == [DAY]
    assert (after.validation[0].unreviewed.correct, after.validation[0].unreviewed.n) == (len(scores.unreviewed),) * 2


# ------------------------------------------------------------------------------ calibrating


CALIBRATION_CASES = cases_by_hand("calibration")[:24]


def test_a_perfect_reader_is_calibrated_with_nothing_wrong_and_nothing_held_back():
    engine = perfect_reader(PLAN, CALIBRATION_CASES)
    told = []
    fitted = calibrate_on_cases(PLAN, CALIBRATION_CASES, engine, risk=0.02, progress=told.append)
    assert [one.report_id for one in told] == [case.id for case in CALIBRATION_CASES]
    assert len(fitted.decisions) == len(CALIBRATION_CASES)
    assert all(one.right for one in fitted.decisions if not one.reviewed)
    calibration = fitted.calibration
    assert (calibration.labels, calibration.n, calibration.risk) == ("synthetic", 24, 0.02)
    assert (calibration.plan_digest, calibration.model_digest) == (PLAN.digest, engine.identity.digest)
    assert (calibration.temperatures, calibration.set_coverage) == ({}, None)


@pytest.mark.parametrize("split", ["development", "held_out"])
def test_cases_of_another_split_are_not_calibrated_on(split):
    others = sorted(cases_by_hand(split)[:2], key=lambda case: case.id)
    cases = [*CALIBRATION_CASES, *others]
    with pytest.raises(CaseError) as caught:
        calibrate_on_cases(PLAN, cases, perfect_reader(PLAN, cases))
    assert str(caught.value) == f"2 of the cases are not of the calibration split, first: {others[0].id}"


def test_a_real_report_is_never_calibrated_on_and_its_text_is_not_in_the_error():
    report = Report("p1", f"CT abdomen. {CANARY}")
    with pytest.raises(TypeError, match="this calibrates on synthetic cases only, there is a Report") as caught:
        calibrate_on_cases(PLAN, [*CALIBRATION_CASES, report], perfect_reader(PLAN, CALIBRATION_CASES))
    assert CANARY not in str(caught.value)


def test_a_calibration_on_too_few_cases_is_refused():
    with pytest.raises(CaseError, match="19 labelled outcomes; at least 20 are needed"):
        calibrate_on_cases(PLAN, CALIBRATION_CASES[:19], perfect_reader(PLAN, CALIBRATION_CASES))


# ------------------------------------------------------------------------------ from guideline to plan


def test_a_guideline_becomes_a_proven_and_validated_plan_with_all_that_belongs_to_it(finished):
    out, made, cloud = finished
    plan = mo.read_plan(out / "plan.yaml")
    assert plan == made.plan
    assert (plan.provenance.origin, plan.provenance.model) == ("planner", "toy-cloud")
    assert made.run.proof.holds
    assert made.held_out.outcome_correct == len(made.held_out.decided) > 0
    assert plan.validation_for(toy_engine().identity.digest, None) == plan.validation[0]
    assert mo.read_cases(out / "cases") == tuple(
        case for split in ("development", "calibration", "held_out") for case in made.run.cases if case.split == split
    )
    assert (out / "proof.txt").read_text("utf-8").startswith(f"Proof of lung_nodule ({plan.digest[:19]}…): holds")
    assert set(cloud.asked) == {"decompose", "write_subtasks", "write_frame", "write_cases", "read_back"}


def test_run_json_says_what_was_asked_what_it_cost_and_what_came_of_it(finished):
    out, made, cloud = finished
    run = json.loads((out / "run.json").read_text("utf-8"))
    assert run == json.loads(json.dumps(made.facts))
    assert run["state"] == "validated"
    assert run["guideline"]["digest"] == GUIDELINE.digest
    assert run["plan"]["digest"] == made.plan.digest
    assert run["cloud"] == {"model": "toy-cloud", "endpoint": "scripted://local"}
    assert (
        run["usage"]["total"]["requests"]
        == len(cloud.asked)
        == sum(step["requests"] for step in run["usage"]["steps"].values())
    )
    total = run["usage"]["total"]
    dollars = {one["at_the_price_of"]: one["sent"] for one in run["usage"]["dollars"]}
    # 2 and 10 dollars per million tokens
    assert dollars["gpt-6.2-sol"] == pytest.approx(
        (2 * total["input_tokens"] + 10 * total["output_tokens"]) / 1e6, abs=1e-4
    )
    assert run["cases"]["written"] == sum(run["cases"]["splits"].values()) == 24
    assert run["proof"] == {"holds": True, "checked": dict(made.run.proof.counts), "problems": {}}
    assert [one["kind"] for one in run["rounds"]] == ["profile", "profile", "profile"]
    assert run["held_out"]["outcome"] == [made.held_out.outcome_correct, len(made.held_out.decided)]
    check = verify_log(out / "egress.jsonl", head=run["egress_log_head"])
    assert check.intact
    assert check.requests == check.replies == len(cloud.asked)


def test_the_same_call_again_pays_for_nothing_and_makes_the_same_plan(finished, tmp_path):
    out, made, _ = finished
    shutil.copytree(out, tmp_path / "again")
    again, cloud = made_into(tmp_path / "again")
    assert cloud.asked == []
    assert again.plan == made.plan
    assert again.facts["usage"]["total"]["cached"] == made.facts["usage"]["total"]["requests"]


KILLED = """
import os, sys
from pathlib import Path
from cloud.toy.nodule import GUIDELINE_FILE, ToyCloud, toy_engine
from medorchestra import PlanMaking, PlannerSettings, make_plan
from medorchestra.cloud.desk.cloud_desk import Effort

def die(request, times):
    if times == 1:
        os._exit(9)

making = PlanMaking(planner=PlannerSettings(cases=24, phrase_bank=False), effort=Effort(workers=1))
make_plan(GUIDELINE_FILE, cloud=ToyCloud(write_cases=die).model(), out=sys.argv[1], local=toy_engine(), making=making)
"""


def test_a_run_that_was_killed_goes_on_and_repeats_no_request_that_was_answered(finished, tmp_path):
    out = tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    killed = subprocess.run([sys.executable, "-c", KILLED, out], env=environment, capture_output=True, check=False)
    assert killed.returncode == 9, killed.stderr
    assert not (out / "plan.yaml").exists()
    made, cloud = made_into(out, making=few(effort=Effort(workers=1)))
    entries = [json.loads(line) for line in (out / "egress.jsonl").read_text("utf-8").splitlines()]
    sent = Counter(entry["request_digest"] for entry in entries if entry["kind"] == "request")
    answered = {entry["number"] for entry in entries if entry["kind"] == "reply"}
    # Only the request that was under way when the process died was sent twice.
    assert sorted(sent.values()) == [1] * (len(sent) - 1) + [2]
    assert sum(sent.values()) == len(answered) + 1
    assert cloud.asked[0] == "write_cases"
    assert made.plan.digest == finished[1].plan.digest
    assert verify_log(out / "egress.jsonl").intact


def test_without_a_local_model_the_plan_is_proven_and_not_validated(tmp_path):
    made, _ = made_into(tmp_path, local=None)
    assert (made.held_out, made.run.development, made.plan.validation) == (None, None, ())
    assert made.facts["state"] == "proven"
    assert mo.read_plan(tmp_path / "plan.yaml") == made.plan


def test_a_phrase_bank_is_written_and_counted(tmp_path):
    made, cloud = made_into(tmp_path, local=None, making=few(planner={"phrase_bank": True}))
    assert (tmp_path / "phrase_bank.json").is_file()
    assert {"write_layouts", "write_phrases"} <= set(cloud.asked)
    assert made.facts["phrases"]["phrases"] == len(made.run.phrases.bank.phrases) > 50
    assert made.facts["phrases"]["composed_and_read_back"] == 40


def test_progress_tells_steps_and_costs_and_counts_rehearsed_cases(tmp_path):
    told = []
    made_into(tmp_path, making=few(progress=told.append))
    steps = list(dict.fromkeys(one.doing for one in told))
    assert steps[0] == "decomposing the guideline"
    assert any(step.startswith("writing 24 cases") for step in steps)
    assert steps[-1].startswith("validating on ")
    held_out = [one.rehearsed for one in told if one.doing == steps[-1]]
    assert held_out == list(range(len(held_out)))
    requests = [one.usage.total.requests for one in told]
    assert requests == sorted(requests)
    assert requests[-1] > 4


def test_cases_that_are_there_already_are_used_and_only_development_ones_ever_leave(finished, tmp_path):
    _, made, _ = finished
    # They were labelled by another plan, whose rules had other names.
    given = [case.model_copy(update={"id": f"given-{case.id}", "rule": "r7"}) for case in made.run.cases]
    again, cloud = made_into(tmp_path, cases=given, making=few(planner={"cases": 0}))
    assert cloud.asked == ["decompose", "write_subtasks"]
    labels = [(case.id, case.text, case.findings, case.outcome, case.possible_outcomes) for case in given]
    assert [(c.id, c.text, c.findings, c.outcome, c.possible_outcomes) for c in again.run.cases] == labels
    assert [case.rule for case in again.run.cases] == [case.rule for case in made.run.cases]
    sent = (tmp_path / "egress.jsonl").read_text("utf-8")
    assert "size_mm" in sent
    assert not any(case.text in sent for case in given if case.split != "development")


def test_a_revision_sees_development_cases_only_and_is_kept_because_it_gains(tmp_path):
    def misreads_until_asked_better(asked):
        if "calcified" in asked.question.split("\n")[0] and "Read again" not in asked.question:
            return "without calcification"
        return toy_reading(asked)

    engine = toy_engine(misreads_until_asked_better, "hasty")
    made, cloud = made_into(tmp_path, local=engine, making=few(planner={"cases": 40}))
    assert "revise_subtasks" in cloud.asked
    (kept,) = [one for one in made.run.rounds if one.kind == "subtasks"]
    assert kept.kept == ("calcified",)
    assert kept.comparisons["calcified"].gained > kept.comparisons["calcified"].lost == 0
    revised = next(subtask for subtask in made.plan.subtasks if subtask.finding == "calcified")
    assert revised.prompt.instructed.startswith("Read again.")
    entries = [json.loads(line) for line in (tmp_path / "egress.jsonl").read_text("utf-8").splitlines()]
    splits = {case.id: case.split for case in made.run.cases}
    for entry in entries:
        if entry["kind"] == "request" and entry["step"].startswith("revise"):
            shown = [piece["origin"] for piece in entry["pieces"] if piece["kind"] == "case"]
            assert shown
            assert {splits[case_id] for case_id in shown} == {"development"}
    assert (made.held_out.outcome_correct, made.facts["state"]) == (len(made.held_out.decided), "validated")


# ------------------------------------------------------------------------------ what it is not made from


def test_a_report_is_no_guideline_and_no_case_and_nothing_is_asked(tmp_path):
    report = Report("p1", f"CT chest. {CANARY}")
    cloud = ToyCloud()
    for wrong in ({"cases": [report]}, {"cases": (report,)}, {"guideline": report}, {"guideline": [report]}):
        call = {"guideline": GUIDELINE, "cloud": cloud.model(), "out": tmp_path / "out"} | wrong
        with pytest.raises(TypeError, match="a plan is made from") as caught:
            make_plan(call.pop("guideline"), **call)
        assert CANARY not in str(caught.value)
        assert "Report" in str(caught.value) or "list" in str(caught.value)
    assert cloud.asked == []
    assert not (tmp_path / "out").exists()


def test_a_file_or_folder_of_reports_is_refused_without_showing_a_word_of_it(tmp_path):
    cloud = ToyCloud()
    (tmp_path / "reports.csv").write_text(f"report_id,text\np1,{CANARY}\n", encoding="utf-8")
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "p1.txt").write_text(CANARY, encoding="utf-8")
    (tmp_path / "renamed").mkdir()
    (tmp_path / "renamed" / "development.jsonl").write_text(json.dumps({"report_id": "p1", "text": CANARY}) + "\n")
    for source in (tmp_path / "reports.csv", folder, tmp_path / "renamed"):
        with pytest.raises(CaseError) as caught:
            make_plan(GUIDELINE, cloud=cloud.model(), out=tmp_path / "out", cases=source)
        assert CANARY not in str(caught.value)
    with pytest.raises(GuidelineError) as refused:
        make_plan(tmp_path / "reports.csv", cloud=cloud.model(), out=tmp_path / "out")
    assert CANARY not in str(refused.value)
    assert cloud.asked == []


def test_the_type_checker_refuses_reports_where_cases_or_a_guideline_are_wanted(tmp_path):
    mypy = pytest.importorskip("mypy.api")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from medorchestra.local.records import Report\n"
        "from medorchestra.rehearsal import make_plan, rehearse\n"
        'report = Report("p1", "text")\n'
        'make_plan(report, cloud="large-1", out="o")\n'
        'make_plan("g.md", cloud="large-1", out="o", cases=[report])\n'
        'make_plan("g.md", cloud="large-1", out="o")\n',
        encoding="utf-8",
    )
    checkout = Path(__file__).parents[1]
    shown, _, _ = mypy.run(["--config-file", str(checkout / "pyproject.toml"), str(wrong)])
    lines = [line for line in shown.splitlines() if "wrong.py" in line and ": error:" in line]
    assert [line.split(":")[1] for line in lines] == ["4", "5"], shown
    assert all("arg-type" in line or "list-item" in line for line in lines)


# ------------------------------------------------------------------------------ when it does not come to a plan


def test_a_plan_whose_proof_does_not_hold_stays_a_draft_and_every_fault_is_named(finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    with pytest.raises(PlanError, match=r"plan\.draft\.yaml: the proof does not hold, \d+ problems") as caught:
        made_into(out, making=few(planner={"cases": 1, "coverage_rounds": 0, "seed": 5}))
    assert "uncovered_" in str(caught.value)
    assert "medorchestra plan check" in str(caught.value)
    assert not (out / "plan.yaml").exists()
    assert mo.read_plan(out / "plan.previous.yaml") == finished[1].plan
    assert mo.read_plan(out / "plan.draft.yaml").validation == ()
    run = json.loads((out / "run.json").read_text("utf-8"))
    assert (run["state"], run["error"], run["proof"]["holds"]) == ("not proven", "PlanError", False)
    assert sum(run["proof"]["problems"].values()) == (out / "proof.txt").read_text("utf-8").count("\n  - ")


def test_a_cloud_model_that_never_answers_usably_ends_the_run_with_a_record_of_what_was_spent(tmp_path):
    cloud = ToyCloud(write_subtasks=lambda request, times: "I would rather not answer in JSON.")
    with pytest.raises(CloudError, match="write subtasks 1: no usable answer from toy-cloud after 4 requests"):
        made_into(tmp_path, cloud)
    run = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert (run["state"], run["error"]) == ("stopped", "UnusableAnswerError")
    assert run["usage"]["total"]["requests"] == len(cloud.asked) == 5
    good = ToyCloud()
    made_into(tmp_path, good)
    assert "decompose" not in good.asked  # what was answered well is kept


def test_a_budget_is_never_overdrawn_and_more_of_it_goes_on_from_there(tmp_path):
    cloud = ToyCloud()
    with pytest.raises(BudgetError, match="the budget of 3 requests is used up; grant more and start again"):
        made_into(tmp_path, cloud, making=few(budget=Budget(max_requests=3)))
    assert len(cloud.asked) == 3
    more = ToyCloud()
    made, _ = made_into(tmp_path, more)
    assert made.facts["state"] == "validated"
    assert "decompose" not in more.asked


def test_a_local_model_that_is_not_there_is_told_before_anything_is_paid_for(tmp_path):
    cloud = ToyCloud()
    with pytest.raises(mo.MedorchestraError, match=r"missing\.gguf"):
        made_into(tmp_path, cloud, local=tmp_path / "missing.gguf")
    assert cloud.asked == []


def test_a_plan_that_decides_the_labelled_cases_otherwise_is_asked_for_again(finished, tmp_path):
    """The first answer swaps two outcomes: a valid plan, whose rules hold up, that contradicts the cases."""
    swapped = json.loads(json.dumps(DECOMPOSITION))
    by_id = {rule["id"]: rule for rule in swapped["rules"]}
    by_id["medium"]["outcome"], by_id["large"]["outcome"] = "biopsy", "follow_up"
    cloud = ToyCloud(decompose=lambda request, times: swapped if times == 0 else None)
    given = finished[1].run.cases
    made, _ = made_into(tmp_path, cloud, cases=given, making=few(planner={"cases": 0}))
    assert cloud.asked == ["decompose", "decompose", "write_subtasks"]
    assert {rule.id: rule.outcome for rule in made.plan.rules}["large"] == "biopsy"
