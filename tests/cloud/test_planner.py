"""The planner's steps in order, its records, and that neither a bad nor a busy cloud model makes it lose or loop."""

from __future__ import annotations

import json

import pytest
from cloud.toy.nodule import (
    DECOMPOSITION,
    GUIDELINE,
    SUBTASKS,
    ToyCloud,
    report_text,
    subtasks_with,
    toy_desk,
    toy_engine,
    toy_reading,
)

from medorchestra.cloud.decomposition import Decomposition
from medorchestra.cloud.desk.client import ChatReply, FinishReason
from medorchestra.cloud.desk.cloud_desk import Effort
from medorchestra.cloud.planner import Planner, PlannerSettings
from medorchestra.errors import CloudError, SettingsError, StorageError, UnusableAnswerError
from medorchestra.local.records import Report
from medorchestra.plan_files import read_plan
from medorchestra.rehearsal import rehearse
from medorchestra.synthetic import read_cases

FEW = PlannerSettings(cases=24, phrase_bank=False, good_enough=1.0)


def run(folder, cloud=None, *, settings=FEW, engine=None, cases=(), told=None):
    """One run of the planner, with a scripted local model unless there is none."""
    cloud = cloud or ToyCloud()
    engine = engine or toy_engine()
    with toy_desk(cloud, folder, effort=Effort(workers=1)) as desk:
        planner = Planner(desk, GUIDELINE, folder, settings, (told if told is not None else []).append)
        return planner.run(cases, lambda plan, chosen: rehearse(plan, chosen, engine))


def by_id(cases):
    return {case.id: case for case in cases}


def misread(right):
    """Some other answer than the right one, on calcification or growth."""
    return "not stated" if right != "not stated" else "calcified"


def hasty(finding, label, until="Read again"):
    """A local model that gives one answer on a finding until its question says otherwise."""

    def reading(asked):
        about = {"calcified": "calcified?", "growth": "grown", "nodule": "a nodule in"}[finding]
        if about in asked.question.split("\n")[0] and until not in asked.question:
            return label
        return toy_reading(asked)

    return toy_engine(reading, f"hasty on {finding}")


# ------------------------------------------------------------------------------ the way


def test_the_steps_come_in_order_and_leave_their_records(tmp_path):
    told = []
    made = run(tmp_path, told=told)
    assert [line.split()[0] for line in told] == [
        "decomposing",
        "4",
        "writing",
        "rehearsing",
        "round",
        "round",
        "round",
    ]
    assert read_plan(tmp_path / "plan.draft.yaml") == made.plan
    assert by_id(read_cases(tmp_path / "cases")) == by_id(made.cases)
    rounds = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text("utf-8").splitlines()]
    assert rounds == [json.loads(json.dumps(one.to_json())) for one in made.rounds]
    assert made.development.plan_digest == made.plan.digest
    assert {reading.case.split for reading in made.development.readings} == {"development"}


def test_the_examples_of_prompts_come_from_development_cases(tmp_path):
    made = run(tmp_path)
    splits = {case.id: case.split for case in made.cases}
    examples = [example for subtask in made.plan.subtasks for example in subtask.examples]
    assert examples
    assert {splits[example.case] for example in examples} == {"development"}


def test_what_is_not_covered_is_asked_for_again_a_bounded_number_of_times(tmp_path):
    """The first reports all come without a nodule: every other rule stays uncovered."""

    def only_absent(request, times):
        if times >= 3:
            return None
        good = ToyCloud()._write_cases(request)
        for report in good["reports"]:
            report["text"] = report_text({"nodule": "no"}, 100, report["brief"])
        return good

    cloud, told = ToyCloud(write_cases=only_absent), []
    made = run(tmp_path, cloud, told=told)
    assert made.proof.holds
    assert sum(line.startswith("writing ") for line in told) == 2
    assert len({case.id for case in made.cases}) == len(made.cases)
    assert by_id(read_cases(tmp_path / "cases")) == by_id(made.cases)  # the first round is still there

    def always_absent(request, times):
        return only_absent(request, 0)

    cloud, told = ToyCloud(write_cases=always_absent), []
    made = run(tmp_path / "never", cloud, settings=PlannerSettings(cases=8, phrase_bank=False), told=told)
    assert not made.proof.holds
    assert {problem.where for problem in made.proof.uncovered} >= {"rule grown", "rule large"}
    assert sum(line.startswith("writing ") for line in told) == 3  # the first, and two rounds of coverage


def test_a_report_that_is_read_back_otherwise_is_no_case_and_stays_on_record(tmp_path):
    def one_wrong(request, times):
        answer = ToyCloud()._read_back(request)
        if times == 0:
            answer["reports"][0]["findings"][0]["value"] = "not_stated"
        return answer

    made = run(tmp_path, ToyCloud(read_back=one_wrong))
    (rejected,) = made.writing.rejected
    assert rejected.reason == "read_otherwise"
    assert rejected.brief.id not in {case.id for case in made.cases}
    assert json.loads((tmp_path / "cases" / "rejected.jsonl").read_text("utf-8"))["id"] == rejected.brief.id


def test_without_development_cases_nothing_is_rehearsed(tmp_path):
    made = run(tmp_path, settings=PlannerSettings(cases=0, phrase_bank=False))
    assert (made.development, made.rounds, made.cases) == (None, (), ())
    assert not made.proof.holds  # nothing covers its rules


def test_a_real_report_is_refused_before_anything_is_asked(tmp_path):
    cloud = ToyCloud()
    with pytest.raises(TypeError, match="synthetic cases only, not from Report"):
        run(tmp_path, cloud, cases=[Report("p1", "CT chest.")])
    assert cloud.asked == []


# ------------------------------------------------------------------------------ profile and revision


def test_a_profile_is_kept_only_if_it_reads_better(tmp_path):
    def reads_only_with_examples(asked):
        return toy_reading(asked) if "=>" in asked.question or "diameter" in asked.question else "not stated"

    made = run(tmp_path, engine=toy_engine(reads_only_with_examples, "needs examples"))
    assert made.plan.profile.examples == 3
    assert made.plan.profile.context == "full"
    kept = {one.changed: one.kept for one in made.rounds if one.kind == "profile"}
    assert kept == {("prompt_form=compact",): (), ("context=focused",): (), ("examples=3",): ("examples=3",)}


def test_a_revision_that_gains_is_kept_with_its_paired_comparison(tmp_path):
    made = run(tmp_path, engine=hasty("calcified", "without calcification"))
    (one,) = [each for each in made.rounds if each.kind == "subtasks"]
    assert (one.changed, one.kept) == (("calcified",), ("calcified",))
    assert one.comparisons["calcified"].lost == 0 < one.comparisons["calcified"].gained
    assert made.development.finding("calcified").correct == len(made.development.readings)
    revised = next(subtask for subtask in made.plan.subtasks if subtask.finding == "calcified")
    assert revised.examples  # those chosen before stay with it


def test_a_revision_that_loses_is_not_kept_and_revising_stops(tmp_path):
    def worse_when_asked_again(asked):
        right = toy_reading(asked)
        if "calcified?" not in asked.question:
            return right
        misreads = (0, 1, 2) if "Read again" in asked.question else (0,)
        return misread(right) if len(asked.report) % 4 in misreads else right

    cloud = ToyCloud()
    made = run(tmp_path, cloud, engine=toy_engine(worse_when_asked_again, "worse"))
    (one,) = [each for each in made.rounds if each.kind == "subtasks"]
    assert one.kept == ()
    assert one.comparisons["calcified"].loses
    assert cloud.asked.count("revise_subtasks") == 1
    assert not any("Read again" in subtask.prompt.instructed for subtask in made.plan.subtasks)


def test_of_two_revisions_the_one_that_gains_is_kept_alone(tmp_path):
    def reading(asked):
        first = asked.question.split("\n")[0]
        again = "Read again" in asked.question
        if "calcified?" in first and not again:
            return "without calcification"  # better when asked again
        if "grown" in first:
            return "grown" if again else "stable"  # right now and then before, never when asked again
        return toy_reading(asked)

    made = run(
        tmp_path,
        engine=toy_engine(reading, "two"),
        settings=PlannerSettings(cases=40, phrase_bank=False, good_enough=1.0),
    )
    first = next(each for each in made.rounds if each.kind == "subtasks")
    assert set(first.changed) == {"calcified", "growth"}
    assert first.kept == ("calcified",)
    again = {subtask.finding for subtask in made.plan.subtasks if "Read again" in subtask.prompt.instructed}
    assert again == {"calcified"}
    assert made.development.plan_digest == made.plan.digest


def test_a_cloud_model_that_always_finds_something_to_improve_is_asked_a_bounded_number_of_times(tmp_path):
    """Each revision reads one more case right: it could go on for ever."""
    version = iter(range(1, 1_000))

    def once_more(request, times):
        number = next(version)
        changed = subtasks_with("growth", instructed=f"Version {number}: has it grown? {{{{ labels }}}}")
        return {"subtasks": [one for one in changed["subtasks"] if one["finding"] == "growth"]}

    def a_little_better_each_time(asked):
        if "grown?" not in asked.question:
            return toy_reading(asked)
        number = int(asked.question.split(":")[0].removeprefix("Version ")) if "Version" in asked.question else 0
        wrong = len(asked.report) % 4 >= number
        right = toy_reading(asked)
        return right if not wrong else "grown" if right != "grown" else "stable"

    subtasks = subtasks_with("growth", instructed="Has it grown? {{ labels }}")
    cloud = ToyCloud(write_subtasks=lambda request, times: subtasks, revise_subtasks=once_more)
    bounded = PlannerSettings(
        cases=24, phrase_bank=False, revision_rounds=3, good_enough=1.0, example_counts=(0,), contexts=("full",)
    )
    made = run(tmp_path, cloud, engine=toy_engine(a_little_better_each_time, "slow learner"), settings=bounded)
    assert cloud.asked.count("revise_subtasks") == 3
    assert [one.kind for one in made.rounds].count("subtasks") == 3


def test_a_revision_without_a_usable_answer_costs_the_revision_and_not_the_plan(tmp_path):
    harmful = {"subtasks": [SUBTASKS["subtasks"][1] | {"instructed": "{{ ''.__class__ }} {{ labels }}"}]}
    cloud = ToyCloud(revise_subtasks=lambda request, times: harmful)
    made = run(tmp_path, cloud, engine=hasty("calcified", "without calcification"))
    assert [(one.kind, one.kept) for one in made.rounds][-1] == ("subtasks", ())
    assert made.proof.holds
    assert "__class__" not in (tmp_path / "plan.draft.yaml").read_text("utf-8")


def test_a_rehearsal_reads_a_spread_of_cases_where_it_may_not_read_all(tmp_path):
    settings = PlannerSettings(cases=40, phrase_bank=False, rehearsal_cases=6)
    made = run(tmp_path, settings=settings)
    rules = [reading.case.rule for reading in made.development.readings]
    assert len(rules) == 6
    assert len(set(rules)) >= 5


# ------------------------------------------------------------------------------ a cloud model that misbehaves

MISBEHAVING = {
    "no JSON": lambda request, times: "Certainly! Here is the plan you asked for." if times == 0 else None,
    "JSON cut off": lambda request, times: json.dumps(DECOMPOSITION)[:700] if times == 0 else None,
    "JSON in a fence with prose": lambda request, times: f"Here:\n```json\n{json.dumps(DECOMPOSITION)}\n```",
    "another form": lambda request, times: {"plan": DECOMPOSITION} if times == 0 else None,
    "cut off at the limit": (
        lambda request, times: ChatReply('{"topic": "lung', 10, 10, "m", FinishReason.LENGTH) if times == 0 else None
    ),
    "a refusal": (
        lambda request, times: ChatReply("I cannot help.", 10, 10, "m", FinishReason.REFUSED) if times == 0 else None
    ),
    "an empty answer": lambda request, times: "" if times == 0 else None,
}


@pytest.mark.parametrize("how", MISBEHAVING)
def test_one_bad_answer_is_mended_and_the_plan_is_the_same(tmp_path, how):
    cloud = ToyCloud(decompose=MISBEHAVING[how])
    made = run(tmp_path, cloud)
    assert made.proof.holds
    assert made.plan.rules == tuple(Decomposition.model_validate(DECOMPOSITION).rules)
    assert cloud.asked.count("decompose") <= 2


@pytest.mark.parametrize(
    "step", ["decompose", "write_subtasks", "write_cases", "read_back"], ids=lambda step: step.replace("_", " ")
)
def test_an_outage_at_any_step_stops_the_run_and_the_next_one_pays_only_for_what_is_missing(tmp_path, step):
    def out_of_order(request, times):
        return CloudError("cannot be reached; gave up after 6 attempts, try later")

    broken = ToyCloud(**{step: out_of_order})
    with pytest.raises(CloudError, match="cannot be reached") as caught:
        run(tmp_path, broken)
    assert not isinstance(caught.value, UnusableAnswerError)
    answered = broken.asked.index(step)
    mended = ToyCloud()
    made = run(tmp_path, mended)
    assert made.proof.holds
    whole = ToyCloud()
    run(tmp_path / "whole", whole)
    assert len(mended.asked) == len(whole.asked) - answered


def test_reports_with_what_looks_like_a_patient_never_leave_again_and_are_never_kept(tmp_path):
    """The cloud model writes a record number into a report: it is told, and mends it."""

    def careless(request, times):
        answer = ToyCloud()._write_cases(request)
        if times == 0:
            answer["reports"][0]["text"] += " MRN 48213377, date of birth 04/11/1951."
        return answer

    made = run(tmp_path, ToyCloud(write_cases=careless))
    assert made.proof.holds
    assert not any("48213377" in case.text for case in made.cases)
    assert "48213377" not in (tmp_path / "egress.jsonl").read_text("utf-8")


# ------------------------------------------------------------------------------ settings and records


@pytest.mark.parametrize(
    "wrong",
    [
        {"cases": -1},
        {"revision_rounds": -1},
        {"findings_a_round": 0},
        {"example_counts": ()},
        {"contexts": ()},
        {"rehearsal_cases": 0},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(SettingsError):
        PlannerSettings(**wrong)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    with toy_desk(ToyCloud(), tmp_path) as desk, pytest.raises(StorageError, match="file"):
        Planner(desk, GUIDELINE, blocked, FEW).run()


def test_the_compact_form_is_taken_where_it_does_not_read_worse(tmp_path):
    made = run(tmp_path, engine=toy_engine(lambda asked: "not stated", "reads nothing in any form"))
    assert made.plan.profile.prompt_form == "compact"
    assert [one.changed for one in made.rounds if one.kind == "profile"] == [
        ("prompt_form=compact",),
        ("context=focused",),
    ]
