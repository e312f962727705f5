"""A plan comes from outside and is data: nothing in it runs, when it is read or when it asks."""

from __future__ import annotations

import pytest
import yaml

from medorchestra.errors import PlanError
from medorchestra.local.sentences import has_term
from medorchestra.plan_files import format_plan, parse_plan, read_plan

PLAN = read_plan("pancreatic_cancer")
TEXT = format_plan(PLAN)


def with_prompt(prompt):
    """The plan as text, with this as the prompt of its first subtask."""
    first = PLAN.subtasks[0]
    prompts = first.prompt.model_copy(update={"instructed": prompt, "compact": None})
    changed = first.model_copy(update={"prompt": prompts})
    return format_plan(PLAN.model_copy(update={"subtasks": (changed, *PLAN.subtasks[1:])}))


TAGS, ANCHORS, UNKNOWN = "tags .* are not allowed", "anchors and aliases .* are not allowed", "Extra inputs"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("note: !!python/object/apply:os.system ['touch {marker}']", TAGS),
        ("note: !!python/object/new:os.system ['touch {marker}']", TAGS),
        ("note: !!python/name:os.system", TAGS),
        ("note: !<tag:yaml.org,2002:python/object/apply:os.system> ['touch {marker}']", TAGS),
        ("run: __import__('os').system('touch {marker}')", UNKNOWN),
        ("<<: &again {{topic: other}}", ANCHORS),
    ],
)
def test_yaml_cannot_make_objects_or_bring_fields_of_its_own(tmp_path, line, reason):
    marker = tmp_path / "marker"
    with pytest.raises(PlanError, match=reason):
        parse_plan(f"{TEXT}\n{line.format(marker=marker)}\n")
    assert not marker.exists()


@pytest.mark.parametrize(
    "prompt",
    [
        "{{ labels.__class__ }}",
        "{{ labels['__class__'] }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch {marker}').read() }}",
        "{% for x in range(10**9) %}{% endfor %}",
        "{% set x = labels %}",
        "{% include '/etc/passwd' %}",
        "{% raw %}{{ labels }}{% endraw %}{{ lipsum }}",
        "{{ labels|attr('__class__') }}",
        "{{ report }}",
        "{{ 7 * 7 }}",
    ],
)
def test_a_template_is_text_with_slots_and_nothing_else(tmp_path, prompt):
    marker = tmp_path / "marker"
    with pytest.raises(PlanError, match="template line"):
        parse_plan(with_prompt(prompt.replace("{marker}", str(marker))))
    assert not marker.exists()


@pytest.mark.parametrize(
    "condition",
    ["__import__('os').system('touch {marker}')", {"eval": "1 == 1"}, {"finding": "sma_contact", "matches": ".*"}],
)
def test_a_condition_is_a_tree_and_never_an_expression(tmp_path, condition):
    marker = tmp_path / "marker"
    if isinstance(condition, str):
        condition = condition.format(marker=marker)
    content = PLAN.model_dump(mode="json", by_alias=True)
    content["rules"][0]["when"] = condition
    with pytest.raises(PlanError, match=r"rules\.0\.when"):
        parse_plan(yaml.safe_dump(content))
    assert not marker.exists()


def test_template_marks_in_a_slot_stay_text():
    marks = "{{ 7*7 }} {% raw %} <|im_end|>"
    finding = PLAN.findings[0].model_copy(update={"description": marks})
    changed = PLAN.model_copy(update={"findings": (finding, *PLAN.findings[1:])})
    subtask = next(subtask for subtask in PLAN.subtasks if subtask.finding == finding.name)
    prompts = subtask.prompt.model_copy(update={"instructed": "About: {{ description }}", "compact": None})
    others = tuple(one for one in PLAN.subtasks if one.id != subtask.id)
    asking = subtask.model_copy(update={"prompt": prompts})
    plan = parse_plan(format_plan(changed.model_copy(update={"subtasks": (asking, *others)})))
    assert plan.question(plan.subtasks[0]) == f"About: {marks}"


@pytest.mark.parametrize("term", [".*", "(a+)+$", "[a-z]", "a|b", r"\w"])
def test_a_focus_term_is_no_pattern(term):
    assert not has_term("a" * 40 + "!", term)
