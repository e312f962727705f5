"""The contract: reading, refusing, writing, digests."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from medorchestra.errors import PlanError
from medorchestra.plan import Accuracy, Calibration, Plan, ValidationRecord
from medorchestra.plan_files import format_plan, parse_plan, read_plan, write_plan
from medorchestra.plan_yaml import MAX_PLAN_BYTES, dump_plan_yaml, parse_plan_yaml

CITATION = {"section": "1.1", "quote": "A word."}


def small_plan() -> dict:
    """A complete plan with one closed finding, one number and three rules."""
    return {
        "topic": "demo",
        "title": "Demonstration",
        "guideline": {"title": "A text", "edition": "first", "digest": "sha256:" + "0" * 64},
        "provenance": {"origin": "hand", "author": "tests", "made_on": "2026-11-24"},
        "scope": {"language": "en"},
        "profile": {"head": {"instructed": "Read this report."}},
        "outcomes": [{"name": "small", "description": "Small."}, {"name": "large", "description": "Large."}],
        "options": [{"name": "wording", "description": "Old or new.", "choices": ["old", "new"], "setting": "new"}],
        "findings": [
            {
                "name": "mass",
                "description": "A mass.",
                "values": {"yes": "There is one.", "no": "There is none."},
                "not_stated": {"reads_as": "no", "why": "It would be named."},
            },
            {
                "name": "size",
                "description": "Its size.",
                "number": {"unit": "cm", "minimum": 0, "maximum": 30},
                "not_stated": {"why": "Unknown."},
            },
        ],
        "subtasks": [
            {
                "id": "mass",
                "finding": "mass",
                "answer": "choice",
                "prompt": {"instructed": "Is there a mass?\nAnswer with {{ labels }}.", "compact": "Mass:"},
                "labels": {"yes": "yes", "no": "no", "not_stated": "not stated"},
                "citation": CITATION,
            },
            {
                "id": "size",
                "finding": "size",
                "answer": "number",
                "prompt": {"instructed": "How large is it in {{ unit }}?"},
                "labels": {"not_stated": "not stated"},
                "citation": CITATION,
            },
        ],
        "rules": [
            {"id": "none", "when": {"finding": "mass", "is": "no"}, "outcome": "small", "citation": CITATION},
            {"id": "big", "when": {"finding": "size", "above": 2}, "outcome": "large", "citation": CITATION},
            {"id": "rest", "when": {"finding": "size", "at_most": 2}, "outcome": "small", "citation": CITATION},
        ],
    }


def parsed(content: dict) -> Plan:
    return parse_plan(dump_plan_yaml(content))


def changed(path: str, value: object) -> dict:
    """The small plan with one place set (or removed, for None)."""
    content = small_plan()
    *steps, last = path.split(".")
    place = content
    for step in steps:
        place = place[int(step)] if step.isdigit() else place[step]
    if value is None:
        del place[int(last) if last.isdigit() else last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return content


def test_a_plan_survives_writing_and_reading(tmp_path):
    plan = parsed(small_plan())
    write_plan(plan, tmp_path / "plan.yaml")
    again = read_plan(tmp_path / "plan.yaml")
    assert again == plan
    assert again.digest == plan.digest


TEXT = st.text(min_size=1, max_size=60).filter(lambda text: text.strip() and "{" not in text and "%" not in text)


@given(title=TEXT, prompt=TEXT, label=TEXT)
def test_any_text_a_plan_may_hold_survives_writing_and_reading(title, prompt, label):
    content = small_plan()
    content["title"] = title
    content["subtasks"][0]["prompt"]["instructed"] = prompt
    content["subtasks"][0]["labels"]["yes"] = "yes " + label
    try:
        plan = Plan.model_validate(content)
    except ValidationError:
        return
    again = parse_plan(format_plan(plan))
    assert again == plan
    assert again.digest == plan.digest


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x85", "\u2028", "\u2029", "\ufeff", " \n ", "\n\n"])
def test_every_line_end_in_a_prompt_survives_writing_and_reading(end):
    plan = Plan.model_validate(changed("subtasks.0.prompt.instructed", f"Is there{end}a mass?{end}"))
    assert parse_plan(format_plan(plan)) == plan


def test_formatting_does_not_change_the_digest():
    content = small_plan()
    reordered = dict(reversed(content.items()))
    as_json = json.dumps(reordered)  # JSON is YAML in flow style
    assert parse_plan(as_json).digest == parsed(content).digest


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("title", "Another title"),
        ("subtasks.0.prompt.instructed", "Any mass?"),
        ("rules.1.when.above", 3),
        ("findings.0.not_stated.reads_as", "yes"),
        ("options.0.setting", "old"),
        ("profile.review_below", 0.5),
    ],
)
def test_every_change_of_content_changes_the_digest(path, value):
    assert parsed(changed(path, value)).digest != parsed(small_plan()).digest


def test_a_validation_record_does_not_change_the_digest():
    plan = parsed(small_plan())
    accuracy = {"n": 10, "correct": 5, "low": 0.2, "high": 0.8}
    record = {
        "measured_on": "2026-11-24",
        "plan_digest": plan.digest,
        "model": "m",
        "model_digest": "sha256:" + "1" * 64,
        "cases_digest": "sha256:" + "2" * 64,
        "outcome": accuracy,
        "findings": {"mass": accuracy},
    }
    assert parsed(small_plan() | {"validation": [record]}).digest == plan.digest


def calibration(plan):
    return Calibration.model_validate(
        {
            "made_on": "2026-11-24",
            "plan_digest": plan.digest,
            "model_digest": "sha256:" + "1" * 64,
            "labels": "local",
            "n": 200,
            "labels_digest": "sha256:" + "2" * 64,
            "temperatures": {"mass": 1.7},
            "risk": 0.05,
            "review_below": 0.7,
        }
    )


def test_a_calibration_does_not_change_the_digests_and_survives_writing_and_reading():
    plan = parsed(small_plan())
    calibrated = plan.model_copy(update={"calibrations": (calibration(plan),)})
    assert (calibrated.digest, calibrated.questions_digest) == (plan.digest, plan.questions_digest)
    assert parse_plan(format_plan(calibrated)) == calibrated


@pytest.mark.parametrize("temperature", [0, -1, 101, float("inf")])
def test_a_temperature_that_no_probability_survives_is_refused(temperature):
    content = calibration(parsed(small_plan())).model_dump(mode="json") | {"temperatures": {"mass": temperature}}
    with pytest.raises(ValidationError):
        Calibration.model_validate(content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("title", "Another title"),
        ("rules.1.when.above", 3),
        ("findings.0.not_stated.reads_as", "yes"),
        ("findings.0.not_stated.why", "It is always named."),
        ("outcomes.0.description", "Tiny."),
        ("options.0.setting", "old"),
        ("profile.review_below", 0.5),
        ("subtasks.0.citation.section", "2.1"),
        ("validation", [{"measured_on": "2026-11-24"}]),
    ],
)
def test_what_is_no_question_leaves_the_questions_digest_alone(path, value):
    plan = parsed(small_plan())
    content = changed(path, value)
    if path == "validation":
        accuracy = {"n": 10, "correct": 5, "low": 0.2, "high": 0.8}
        digests = {"plan_digest": plan.digest, "model_digest": plan.digest, "cases_digest": plan.digest}
        content["validation"][0] |= digests | {"model": "m", "outcome": accuracy, "findings": {"mass": accuracy}}
    assert parsed(content).questions_digest == plan.questions_digest


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("subtasks.0.prompt.instructed", "Any mass?"),
        ("subtasks.0.labels.yes", "present"),
        ("profile.head.instructed", "Read with care."),
        ("profile.prompt_form", "compact"),
        ("profile.context", "focused"),
        ("findings.1.number.maximum", 20),
        ("subtasks.1", None),
    ],
)
def test_every_change_of_a_question_changes_the_questions_digest(path, value):
    content = changed(path, value)
    if path == "subtasks.1":  # the rules must not ask what nobody reads
        content["rules"] = [content["rules"][0] | {"when": {"finding": "mass", "in": ["yes", "no"]}}]
    assert parsed(content).questions_digest != parsed(small_plan()).questions_digest


def test_another_order_of_the_questions_is_another_training():
    content = small_plan()
    content["subtasks"].reverse()
    assert parsed(content).questions_digest != parsed(small_plan()).questions_digest


def measured(low):
    return Accuracy(n=100, correct=90, low=low, high=0.99)


@pytest.mark.parametrize(
    ("outcome", "unreviewed", "well"),
    [
        (0.6, 0.85, True),  # what was wrong, a person would have seen
        (0.9, 0.7, False),  # what nobody would have seen was worse than the rest
        (0.8, None, True),  # an older record
        (0.79, None, False),
    ],
)
def test_a_plan_is_well_read_where_what_nobody_looks_at_is_right_often_enough(outcome, unreviewed, well):
    plan = parsed(small_plan())
    record = ValidationRecord(
        measured_on="2026-11-24",
        plan_digest=plan.digest,
        model="m",
        model_digest="sha256:" + "1" * 64,
        cases_digest="sha256:" + "2" * 64,
        outcome=measured(outcome),
        unreviewed=None if unreviewed is None else measured(unreviewed),
        findings={},
    )
    assert plan.profile.review_below == 0.8
    assert plan.is_well_read(record) is well


@pytest.mark.parametrize(("local", "well"), [(0.85, True), (0.7, False), (None, False)])
def test_on_a_hospitals_own_labels_it_rests_on_those_whatever_the_rehearsal_said(local, well):
    """Some few labelled reports, all right, are no proof; and a threshold that leaves nothing proves nothing."""
    plan = parsed(small_plan())
    pair = {"plan_digest": plan.digest, "model_digest": "sha256:" + "1" * 64}
    calibration = Calibration(
        made_on="2026-11-25",
        labels="local",
        n=200,
        labels_digest="sha256:" + "3" * 64,
        temperatures={},
        risk=0.05,
        review_below=0.9,
        unreviewed=None if local is None else measured(local),
        **pair,
    )
    outcome = measured(0.75 if well else 0.95)
    record = ValidationRecord(
        measured_on="2026-11-24", model="m", cases_digest="sha256:" + "2" * 64, outcome=outcome, findings={}, **pair
    )
    assert plan.is_well_read(record) is not well
    assert plan.model_copy(update={"calibrations": (calibration,)}).is_well_read(record) is well


def test_a_changed_prompt_changes_its_subtask_digest_and_no_other():
    before, after = parsed(small_plan()), parsed(changed("subtasks.0.prompt.instructed", "Any mass?"))
    assert before.subtask_digest(before.subtasks[0]) != after.subtask_digest(after.subtasks[0])
    assert before.subtask_digest(before.subtasks[1]) == after.subtask_digest(after.subtasks[1])


def test_the_prompt_form_changes_the_question():
    plan = parsed(small_plan())
    compact = plan.model_copy(update={"profile": plan.profile.model_copy(update={"prompt_form": "compact"})})
    assert plan.question(plan.subtasks[0]) == "Is there a mass?\nAnswer with yes; no; not stated."
    assert compact.question(compact.subtasks[0]) == "Mass:"
    assert compact.question(compact.subtasks[1]) == "How large is it in cm?"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("colour", "red", "colour: Extra inputs are not permitted"),
        ("findings.0.colour", "red", "findings.0.colour: Extra inputs are not permitted"),
        ("rules.0.when.finding", "spleen", "rule 'none': unknown finding 'spleen'"),
        ("rules.0.when.is", "maybe", "finding 'mass' has no value 'maybe'"),
        ("rules.0.outcome", "huge", "rule 'none': unknown outcome 'huge'"),
        ("rules.0.citation", None, "rules.0.citation: Field required"),
        ("rules.1.id", "none", "rule defined twice: none"),
        ("rules.0.when", {"finding": "mass", "above": 2}, "needs `is` or `in`"),
        ("rules.0.when", "mass == 'no'", "not a condition"),
        ("subtasks.0.prompt.instructed", "{{ report }}", "undeclared slot 'report'"),
        ("subtasks.0.prompt.instructed", "{{ x.__class__ }}", "Getattr is not allowed"),
        ("subtasks.0.prompt.compact", "{% for x in y %}{% endfor %}", "For is not allowed"),
        ("profile.head.instructed", "{{ labels }}", "undeclared slot 'labels'"),
        ("subtasks.0.finding", "spleen", "subtask 'mass': unknown finding 'spleen'"),
        ("subtasks.0.labels", {"yes": "yes", "no": "no"}, "labels must be given for exactly these values"),
        ("subtasks.0.labels.no", "yes", "two values have the same label"),
        ("subtasks.0.answer", "number", "does not fit finding 'mass'"),
        ("subtasks.1", None, "no subtask reads these findings of the rules: size"),
        ("findings.0.not_stated.reads_as", "maybe", "no value 'maybe'"),
        ("findings.0.not_stated.prior", {"yes": 0.5, "no": 0.4}, "sum to 1"),
        ("findings.0.values", {"yes": "x", "not_stated": "y"}, "`not_stated` is implied"),
        ("findings.0.number", {"unit": "cm", "minimum": 0, "maximum": 1}, "either values or number"),
        ("options.0.setting", "newest", "not one of the choices"),
        ("schema_version", 2, "schema_version"),
        ("guideline.digest", "md5:0", "guideline.digest"),
        ("topic", "Not A Name", "topic"),
    ],
)
def test_a_faulty_plan_is_refused_and_the_place_is_named(path, value, says):
    with pytest.raises(PlanError) as caught:
        parsed(changed(path, value))
    assert says in str(caught.value)
    assert str(caught.value).startswith("plan: ")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "line 1: anchors and aliases"),
        ("a: !!python/object/apply:os.system ['true']", "line 1: tags"),
        ("a: 1\na: 2", "the key 'a' is there twice"),
        ("1: x", "the key 1 must be text"),
        ("a: [", "not readable YAML"),
        ("a: \x00", "characters that YAML does not allow"),
        ("[" * 60 + "]" * 60, "nested deeper than"),
        ("a: " + "x" * MAX_PLAN_BYTES, "at most"),
        ("just text", "top level must be a mapping"),
        ("", "top level must be a mapping"),
    ],
)
def test_hostile_or_broken_yaml_is_refused(text, says):
    with pytest.raises(PlanError) as caught:
        parse_plan(text, where="plan.yaml")
    assert says in str(caught.value)
    assert str(caught.value).startswith("plan.yaml: ")


def test_yes_no_and_dates_stay_text():
    content = parse_plan_yaml("a: yes\nb: no\nc: on\nd: 2026-11-24\ne: true\nf: 1.5\ng: 1e3\nh: 012")
    assert content == {
        "a": "yes", "b": "no", "c": "on", "d": "2026-11-24", "e": True, "f": 1.5, "g": "1e3", "h": "012",
    }  # fmt: skip


def test_a_missing_plan_names_the_topics_there_are():
    with pytest.raises(PlanError, match="pancreatic_cancer"):
        read_plan("pancreas")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_a_plan_that_is_no_text_file_is_refused(tmp_path, content):
    path = tmp_path / "plan.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PlanError, match=r"plan\.yaml"):
        read_plan(path)


@pytest.mark.parametrize("text", ["a\x00b", "a\x1bb", "a\ud800b"])
def test_text_that_a_plan_file_cannot_hold_is_refused(text):
    with pytest.raises(ValidationError, match=r"control characters|surrogates|unicode"):
        Plan.model_validate(small_plan() | {"title": text})


def test_a_plan_cannot_be_changed():
    plan = parsed(small_plan())
    with pytest.raises(ValidationError):
        plan.title = "x"
