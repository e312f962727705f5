"""What a person sees while a batch is staged, and what a log gets."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from small_batch import PLAN, calibrated_plan, small_engine, small_reports

from medorchestra.local import terminal
from medorchestra.local.batch import RunSummary
from medorchestra.local.records import Report
from medorchestra.local.staged_report import ReportStatus, StagedReport
from medorchestra.local.staging import Stager
from medorchestra.local.terminal import ProgressDisplay, decision_view, print_summary

STAGED = list(Stager(PLAN, small_engine()).stage([*small_reports(5), Report("blank", " ")]))


def console(*, is_terminal=False):
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=120, color_system=None)


def shown(view):
    to = console()
    to.print(view)
    return to.file.getvalue()


def run(*, is_terminal=False, staged=STAGED, **options):
    to = console(is_terminal=is_terminal)
    with ProgressDisplay(len(staged), console=to, **options) as display:
        for one in staged:
            display.advance(one)
    return to.file.getvalue()


# ------------------------------------------------------------------ progress


def test_outside_of_a_terminal_a_short_run_is_one_plain_line():
    assert run().count("\n") == 1
    assert run().startswith("staged 6/6 reports, ")
    assert run().rstrip().endswith("about 0 s left")
    assert "\x1b" not in run()


def test_a_long_run_says_from_time_to_time_how_far_it_is(monkeypatch):
    clock = iter(range(0, 10_000, 4))  # the display looks at the clock three times at most for each report
    monkeypatch.setattr(terminal.time, "perf_counter", lambda: float(next(clock)))
    lines = run().splitlines()
    assert 2 <= len(lines) < len(STAGED) + 1
    assert lines[-1].startswith("staged 6/6 reports, ")
    assert "reports/min" in lines[0]
    assert int(lines[0].split("about ")[1].split(" s")[0]) > 0


def test_the_progress_says_what_share_of_the_time_the_model_took(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(terminal.time, "perf_counter", lambda: float(next(clock)))
    line = run(staged=[replace(STAGED[0], seconds_in_model=1.0)])
    assert line.startswith("staged 1/1 reports, 60.0 reports/min, ")
    assert "100% in the model" in line
    assert "in the model" not in run(staged=[replace(STAGED[0], seconds_in_model=0.0)])


def test_in_a_terminal_a_bar_counts_and_is_gone_at_the_end():
    shown_there = run(is_terminal=True)
    assert "staging" in shown_there
    assert "0/6" in shown_there or "6/6" in shown_there
    assert "staged 6/6" not in shown_there


@pytest.mark.parametrize("is_terminal", [False, True])
def test_quiet_shows_no_progress(is_terminal):
    assert run(is_terminal=is_terminal, quiet=True) == ""


def test_progress_never_shows_report_text():
    assert not any(word in run() for word in ("SMA", "liver", "mass"))


# ------------------------------------------------------------------ decisions


def test_decisions_are_shown_with_rule_and_quotes_only_where_asked_for():
    text = run(show_decisions=True)
    assert "case-0  resectable" in text
    assert "rule: free, guideline section 1.1" in text
    assert 'rests on sma_contact: none (0.90)  "The SMA is free."' in text
    assert "case-4  open: resectable | locally_advanced" in text
    assert "missing: sma_contact" in text
    assert "blank  empty: the report has no text" in text


def test_quiet_decisions_are_still_shown_where_asked_for():
    assert "case-0  resectable" in run(show_decisions=True, quiet=True)


def test_a_failed_report_is_shown_with_its_kind_of_error():
    failed = StagedReport(PLAN, Report("r1", "Mass."), ReportStatus.FAILED, error="ModelError at x.py:1")
    assert "r1  failed: ModelError at x.py:1" in shown(decision_view(failed))


def test_an_answer_without_a_sentence_on_it_says_so():
    one = STAGED[0]
    unquoted = replace(one, answers=tuple(replace(answer, quotes=()) for answer in one.answers))
    assert "rests on sma_contact: none (0.90)  (no supporting sentence found)" in shown(decision_view(unquoted))


def test_an_outcome_set_is_shown_where_the_calibration_gives_one():
    engine, report = small_engine(), small_reports(1)[0]
    (staged,) = Stager(calibrated_plan(engine, set_coverage=0.95), engine).stage([report])
    assert "calibrated outcome set: resectable | locally_advanced | metastatic" in shown(decision_view(staged))
    (staged,) = Stager(calibrated_plan(engine), engine).stage([report])
    assert "outcome set" not in shown(decision_view(staged))


def test_a_report_cannot_steer_the_terminal_or_the_markup():
    text = "The SMA is free.\x1b[2J[bold red]\x07"
    report = Report("r\n1 \x1b[31m [link]", text)
    (staged,) = Stager(PLAN, small_engine()).stage([report])
    view = shown(decision_view(staged))
    assert "\x1b" not in view
    assert "\x07" not in view
    assert r"r\n1 \x1b[31m [link]" in view
    assert r"The SMA is free.\x1b[2J[bold red]\x07" in view


def test_a_long_quote_is_shortened():
    text = "The SMA is free. " + "The liver is normal and " * 20 + "no metastases."
    (staged,) = Stager(PLAN, small_engine()).stage([Report("r1", text)])
    quotes = [line for line in shown(decision_view(staged)).splitlines() if "…" in line]
    assert all(len(line) < 160 for line in quotes)


# ------------------------------------------------------------------ summary


def summary(**changes):
    values = {
        "reports": 6,
        "statuses": {"decided": 4, "open": 1, "empty": 1, "failed": 0},
        "outcomes": {"resectable": 1, "locally_advanced": 1, "metastatic": 2},
        "review": 2,
        "failed_answers": 0,
        "run": {"plan": {"validated": True}},
    }
    return RunSummary(**values | changes)


def printed(of, folder, *, is_terminal=False):
    to = console(is_terminal=is_terminal)
    print_summary(of, folder, console=to)
    return to.file.getvalue()


def test_outside_of_a_terminal_the_summary_is_plain_lines(tmp_path):
    assert printed(summary(), tmp_path).splitlines() == [
        "reports: 6",
        "resectable: 1",
        "locally_advanced: 1",
        "metastatic: 2",
        "open (several outcomes possible): 1",
        "empty: 1",
        "failed: 0",
        "for review by a person: 2",
        f"results: {tmp_path}",
        "medorchestra supports clinicians and researchers; it is not a certified medical device.",
    ]


def test_in_a_terminal_the_summary_is_a_table(tmp_path):
    text = printed(summary(), tmp_path, is_terminal=True)
    assert "│ locally_advanced" in text
    assert "│ for review by a person" in text


def test_failures_are_left_out_where_there_are_none(tmp_path):
    text = printed(summary(statuses={"decided": 5, "open": 1, "empty": 0, "failed": 0}), tmp_path)
    assert "failed" not in text
    assert "empty" not in text


def test_unread_answers_and_an_unvalidated_plan_are_named(tmp_path):
    text = printed(summary(failed_answers=3, run={"plan": {"validated": False}}), tmp_path)
    assert "3 answers could not be read; see results.jsonl" in text
    assert "This plan has no validation record for this model: every result is marked, treat it as unproven." in text


def test_a_folder_with_brackets_in_its_name_is_shown_as_it_is(tmp_path):
    folder = tmp_path / ("[bold]out[/bold]" * 8)
    assert f"results: {folder}\n" in printed(summary(), folder)
