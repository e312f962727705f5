"""The pictures of an evaluation: one inline SVG each, that refers to nothing outside and changes with its numbers."""

from __future__ import annotations

import builtins
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib
import pytest
from made_up_evaluation import OUTCOMES, made_up_evaluation, nothing_measured

from medorchestra.errors import SettingsError
from medorchestra.local.evaluation.error_anatomy import FindingCost
from medorchestra.local.evaluation.measures import reliability, risk_coverage_of, score_outcomes, share_of
from medorchestra.local.evaluation.pictures import (
    MANY_OUTCOMES,
    MOST_BARS,
    confusion_picture,
    cost_picture,
    forest_picture,
    reliability_picture,
    risk_coverage_picture,
)

SVG = "{http://www.w3.org/2000/svg}"
BEST = made_up_evaluation().run("orchestrated + adapter")
BARE = made_up_evaluation().run("orchestrated")
PICTURES = {
    "confusion": lambda run: confusion_picture(run.outcome, OUTCOMES),
    "reliability": lambda run: reliability_picture(run.reliability),
    "risk and coverage": lambda run: risk_coverage_picture({"one": run.risk_coverage}),
    "forest": lambda run: forest_picture({"one": run.outcome.accuracy}),
    "cost": lambda run: cost_picture(run.anatomy.costs),
}
OTHER_COSTS = replace(BARE, anatomy=replace(BARE.anatomy, costs=(FindingCost("pv_smv_contact", 9, 30, 5, 1),)))
every_picture = pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)


def words_in(svg):
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def tags_in(svg):
    return {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(svg).iter()}


@every_picture
def test_the_same_numbers_give_the_same_picture_and_other_numbers_another(draw):
    assert draw(BEST) == draw(BEST)
    assert draw(BEST) != draw(OTHER_COSTS)


@every_picture
def test_a_picture_is_drawn_lines_and_words_that_refer_to_nothing_outside(draw):
    svg = draw(BEST)
    assert tags_in(svg) <= {"svg", "defs", "g", "path", "text", "tspan", "use", "clipPath", "rect", "pattern"}
    root = ElementTree.fromstring(svg)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(set(ids)) == len(ids)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.endswith(("href", "src")):
                assert value.removeprefix("#") in ids
            elif "url(" in value:
                assert value[value.index("url(#") + 5 : value.index(")")] in ids
    assert svg.startswith("<svg")
    assert root.get("role") == "img"
    assert root.get("aria-label")


@every_picture
def test_the_users_own_settings_of_matplotlib_change_no_picture_and_are_left_as_they_were(draw):
    usual = draw(BEST)
    with matplotlib.rc_context({"font.size": 31, "axes.facecolor": "black", "svg.fonttype": "path"}):
        assert draw(BEST) == usual
        assert matplotlib.rcParams["font.size"] == 31


def test_the_confusion_picture_counts_every_case_and_has_a_column_for_no_decision():
    words = words_in(confusion_picture(BARE.outcome, OUTCOMES))
    assert "no decision" in words
    assert sum(int(word) for word in words if word.isdigit()) == 30
    assert {"resectable (n = 8)", "borderline (n = 7)", "locally advanced (n = 7)", "metastatic (n = 8)"} <= set(words)
    assert "no decision" not in words_in(confusion_picture(BEST.outcome, OUTCOMES))


def test_of_many_outcomes_the_confusion_picture_leaves_out_those_that_nobody_met():
    stages = [f"stage_{place}" for place in range(MANY_OUTCOMES + 1)]
    words = words_in(confusion_picture(score_outcomes(["stage_1"], ["stage_2"], stages), stages))
    assert {"stage 1", "stage 2"} <= set(words)
    assert "stage 3" not in words
    few = stages[:MANY_OUTCOMES]
    assert "stage 3" in words_in(confusion_picture(score_outcomes(["stage_1"], ["stage_2"], few), few))


def test_the_forest_picture_says_every_accuracy_in_figures():
    words = words_in(forest_picture({"direct": share_of([True] * 3 + [False]), "nobody": share_of([])}))
    assert "75.0 %  (30.1 to 95.4)  3 of 4" in words
    assert "none counted" in words


def test_the_reliability_picture_says_how_many_decisions_are_behind_each_point():
    scored = [({"yes": 0.93, "no": 0.07}, "yes")] * 17 + [({"yes": 0.55, "no": 0.45}, "no")] * 13
    assert {"17", "13"} <= set(words_in(reliability_picture(reliability(scored))))


def test_the_risk_coverage_picture_names_every_run_even_one_without_probabilities():
    curves = {"sure": risk_coverage_of([0.9, 0.8], [True, False]), "silent": risk_coverage_of([], [])}
    words = words_in(risk_coverage_picture(curves))
    assert {"sure", "area 0.250", "silent: no probabilities"} <= set(words)


def test_the_cost_picture_draws_the_most_costly_findings_and_says_how_many_it_leaves_out():
    costs = [FindingCost(f"finding_{place}", 9, 30, 40 - place, 0) for place in range(MOST_BARS + 3)]
    words = words_in(cost_picture([*costs, FindingCost("idle", 1, 30, 0, 0)]))
    assert f"finding {MOST_BARS - 1}" in words
    assert f"finding {MOST_BARS}" not in words
    assert any("(3 findings with less are not drawn)" in word for word in words)


def test_a_picture_of_nothing_says_why_it_is_empty():
    run = nothing_measured().run("direct")
    assert words_in(reliability_picture(run.reliability)) == ["no decision came with a probability"]
    assert words_in(risk_coverage_picture({"direct": run.risk_coverage})) == ["no decision came with a probability"]
    assert words_in(cost_picture([])) == ["no finding alone changes a decision"]
    assert words_in(cost_picture([FindingCost("idle", 1, 30, 0, 0)])) == ["no finding alone changes a decision"]
    assert words_in(forest_picture({})) == ["nothing was run"]
    assert words_in(confusion_picture(score_outcomes([], [], []), [])) == ["no case with a single true outcome"]
    assert "0" in words_in(confusion_picture(run.outcome, OUTCOMES))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("</svg><script>alert(1)</script>", "</svg><script>alert(1)</script>"),
        ("$\\frac{1}{0}$ & co", "$\\frac{1}{0}$ & co"),
        ("放射線科 1", "放射線科 1"),
        ("a\x00b\ud800c\x1b", "a�b�c�"),
        ("x" * 100, "x" * 33 + "…"),
    ],
)
def test_a_name_from_a_file_stays_a_name(name, shown):
    for svg in (
        forest_picture({name: share_of([True, False])}),
        risk_coverage_picture({name: risk_coverage_of([0.9], [True])}),
    ):
        assert shown in words_in(svg)
        assert "<script" not in svg


def test_the_pictures_leave_pyplot_alone():
    program = (
        "import sys; from medorchestra.local.evaluation import pictures; before = 'matplotlib' in sys.modules; "
        "pictures.cost_picture([]); print(before, 'matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    usual = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return usual(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match=r"medorchestra\[evaluation\]"):
        cost_picture([])
