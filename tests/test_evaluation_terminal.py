"""What a terminal shows of an evaluation: how far it is, and what came of it, in words that need no statistics."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from local.evaluation.made_up_evaluation import made_up_evaluation, nothing_measured
from rich.console import Console

from medorchestra import evaluation_terminal, plan_terminal
from medorchestra.evaluation_terminal import EvaluationDisplay, evaluation_lines, requalification_lines, share_text
from medorchestra.local.evaluation.measures import PairedDifference, paired_difference, share_of
from medorchestra.local.evaluation.predictions import Prediction
from medorchestra.local.evaluation.requalifying import Requalification

SAID = Prediction("case-canary", "resectable")


def shares(correct, n):
    return share_of([True] * correct + [False] * (n - correct))


def console(*, is_terminal=False):
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=120, color_system=None)


def shown(*runs, cases=3, is_terminal=False, quiet=False):
    """What is written while these runs read their reports."""
    to = console(is_terminal=is_terminal)
    with EvaluationDisplay(cases, quiet=quiet, console=to) as display:
        for run in runs:
            display.advance(run, SAID)
    return to.file.getvalue()


# ------------------------------------------------------------------------------ progress


def test_a_run_that_is_through_is_one_lasting_line():
    text = shown(*["direct"] * 3, *["orchestrated"] * 3)
    assert text.splitlines() == ["direct: 3/3 reports", "orchestrated: 3/3 reports"]
    assert "canary" not in text


def test_a_repeated_run_is_counted_afresh():
    text = shown(*["direct"] * 6)
    assert text.splitlines() == ["direct: 3/3 reports"] * 2


def test_a_long_run_says_from_time_to_time_how_far_it_is_and_how_long_it_will_take(monkeypatch):
    clock = [0.0]
    for module in (evaluation_terminal, plan_terminal):
        monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    to = console()
    with EvaluationDisplay(100, quiet=False, console=to) as display:
        clock[0] += 300.0  # the model is loaded and the first report is read
        for _ in range(4):
            display.advance("orchestrated", SAID)
            clock[0] += 6.0
    assert to.file.getvalue().splitlines() == [
        "orchestrated: 1/100 reports",
        "orchestrated: 3/100 reports, about 10 min left",
    ]


def test_a_terminal_shows_one_line_that_changes_and_quiet_shows_none():
    text = shown("direct", "direct", "direct", is_terminal=True)
    assert "direct: 3/3 reports" in text
    assert "\x1b[?25h" in text, "the cursor is back"
    assert shown("direct", "direct", "direct", is_terminal=True, quiet=True) == ""


# ------------------------------------------------------------------------------ an evaluation


def test_an_evaluation_is_told_run_by_run_with_readers_differences_and_causes():
    lines = evaluation_lines(made_up_evaluation())
    assert lines[0] == "32 labelled reports, 30 with one true outcome, 2 open, 1 without a label"
    assert lines[1] == "direct: right 11 of 30, 37 % (22 to 54); open cases left open 0 of 2; 2 without an outcome"
    # Every second of 32 goes to a person; of the 15 others the adapted run is right on 14.
    adapted = made_up_evaluation().runs[2]
    assert lines[3] == (
        f"orchestrated + adapter: right 25 of 30, 83 % (66 to 93); sent to a person 16 of 32, 50 % (34 to 66); "
        f"right among the others {share_text(adapted.unreviewed)}; open cases left open 1 of 2"
    )
    assert lines[4] == "reader reader_1: right 26 of 30, 87 % (70 to 95)"
    assert [line.split(": ")[0] for line in lines[5:8]] == [
        "orchestrated + adapter less direct",
        "orchestrated + adapter less orchestrated",
        "orchestrated + adapter less reader_1",
    ]
    assert lines[8].startswith("wrong decisions of orchestrated + adapter: 5 of 30: ")
    assert lines[9] == adapted.anatomy.conclusion
    assert lines[10] == "costs most decisions: pv_smv_contact 4, sma_contact 3, liver_mets 1"
    assert len(lines) == 11


def test_the_causes_are_those_of_the_plan_whatever_was_run_after_it():
    made = made_up_evaluation()
    lines = evaluation_lines(replace(made, runs=(*made.runs[1:], made.runs[0])))
    assert [line for line in lines if line.startswith("wrong decisions of")] == [
        line for line in evaluation_lines(made) if line.startswith("wrong decisions of")
    ]


def test_what_is_not_defined_is_said_and_no_number_is_made_up():
    lines = evaluation_lines(nothing_measured())
    assert lines == [
        "0 labelled reports, 0 with one true outcome, 0 open, 0 without a label",
        "direct: right no cases",
        "reader reader_1: right no cases",
        "direct less reader_1: no cases",
    ]
    assert evaluation_lines(replace(nothing_measured(), runs=(), readers=(), comparisons=())) == lines[:1]


def test_of_many_comparisons_only_those_of_the_judged_run_are_shown_and_the_others_counted():
    made = made_up_evaluation()
    among_others = replace(made.comparisons[0], before="direct", after="orchestrated")
    lines = evaluation_lines(replace(made, comparisons=(*made.comparisons, *[among_others] * 9)))
    assert [line.split(": ")[0] for line in lines if " less " in line] == [
        f"{made.judged.name} less {other}" for other in ("direct", "orchestrated", "reader_1")
    ]
    assert "9 comparisons of other runs: in report.html and evaluation.json" in lines


def test_a_difference_is_told_in_points_with_interval_counts_and_test():
    (line,) = [line for line in evaluation_lines(made_up_evaluation()) if " less direct: " in line]
    found = made_up_evaluation().comparisons[0].difference
    assert line == (
        f"orchestrated + adapter less direct: +46.7 points over 30 cases ({100 * found.low:+.1f} to "
        f"{100 * found.high:+.1f}), {found.gained} gained, {found.lost} lost, p = below 0.001"
    )


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (PairedDifference(0, 0, 0, None, None, None, None), "no cases"),
        (PairedDifference(5, 0, 0, 0.0, None, None, 1.0), "+0.0 points over 5 cases, 0 gained, 0 lost, p = 1.000"),
        (
            PairedDifference(40, 1, 7, -0.15, -0.275, -0.025, 0.0703),
            "-15.0 points over 40 cases (-27.5 to -2.5), 1 gained, 7 lost, p = 0.070",
        ),
    ],
)
def test_differences_without_a_spread_have_no_interval(difference, text):
    made = made_up_evaluation()
    comparisons = (replace(made.comparisons[0], difference=difference),)
    (line,) = [one for one in evaluation_lines(replace(made, comparisons=comparisons)) if " less direct: " in one]
    assert line == f"orchestrated + adapter less direct: {text}"


def test_a_share_is_told_with_its_counts_and_interval():
    assert share_text(shares(116, 160)) == "116 of 160, 72 % (65 to 79)"
    assert share_text(shares(0, 4)) == "0 of 4, 0 % (0 to 49)"
    assert share_text(shares(0, 0)) == "no cases"


# ------------------------------------------------------------------------------ a verdict


def judged(verdict, old, new, n, *, needed=None, findings=None):
    before, after = [i < old for i in range(n)], [i < new for i in range(n)]
    difference = paired_difference(before, after)
    low, high = difference.score_interval or (None, None)
    return Requalification(
        verdict, n, shares(old, n), shares(new, n), difference, low, high, 0.03, needed, findings or {}
    )


def test_a_verdict_says_what_it_rests_on():
    found = judged("accept", 180, 181, 200)
    lines = requalification_lines("held_out.jsonl", found)
    assert lines[0] == "held_out.jsonl: accept"
    assert lines[1] == "  in use: right 180 of 200, 90 % (85 to 93); new: right 181 of 200, 90 % (86 to 94)"
    assert lines[2].startswith("  new less old: +0.5 points over 200 cases (")
    assert lines[2].endswith(
        f"score interval {100 * found.low:.1f} to {100 * found.high:.1f}; accepted from above -3.0",
    )
    assert len(lines) == 3


def test_with_too_few_cases_it_says_how_many_would_tell():
    lines = requalification_lines("cases.csv", judged("too few cases", 12, 12, 12, needed=125))
    assert (lines[0], lines[3]) == ("cases.csv: too few cases", "  about 125 cases would tell")


def test_without_a_decided_case_there_is_no_interval():
    lines = requalification_lines("cases.csv", judged("too few cases", 0, 0, 0))
    assert lines[1:] == [
        "  in use: right no cases; new: right no cases",
        "  new less old: no cases; accepted from above -3.0",
    ]


def test_the_findings_that_lost_most_are_named_and_no_others():
    counts = {"sma": (0, 4), "smv": (3, 3), "liver": (1, 3), "size": (5, 0)} | {f"more_{i}": (0, 1) for i in range(9)}
    findings = {
        name: PairedDifference(50, gained, lost, (gained - lost) / 50, None, None, 1.0)
        for name, (gained, lost) in counts.items()
    }
    lines = requalification_lines("cases.csv", judged("reject", 40, 20, 50, findings=findings))[3:]
    assert lines[:2] == ["  sma: 4 read worse, 0 better", "  liver: 3 read worse, 1 better"]
    assert len(lines) == evaluation_terminal.MOST_COSTLY
