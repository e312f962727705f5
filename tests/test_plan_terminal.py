"""What a person sees while a plan is made, and what a log gets."""

from __future__ import annotations

import io
from datetime import date

import pytest
from rich.console import Console

from medorchestra import plan_terminal
from medorchestra.cloud.desk.prices import ListPrice
from medorchestra.cloud.desk.usage import StepUsage, Usage
from medorchestra.plan import Accuracy, Calibration, ValidationRecord
from medorchestra.plan_terminal import CaseCount, MakingDisplay, record_line, spent_line
from medorchestra.rehearsal import PlanProgress

PRICE = ListPrice("large-1", 2.0, 10.0, "https://example.org/prices", "2026-11-24")
USAGE = Usage(
    {
        "decompose": StepUsage(requests=1, input_tokens=20_000, output_tokens=4_000),
        "write cases": StepUsage(requests=2, cached=3, input_tokens=30_000, output_tokens=6_000),
    }
)


def console(*, is_terminal=False):
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=120, color_system=None)


def step(doing, rehearsed=0, price=None):
    return PlanProgress(doing, USAGE, price, rehearsed)


def shown(*steps, is_terminal=False, quiet=False):
    to = console(is_terminal=is_terminal)
    with MakingDisplay(quiet=quiet, console=to) as display:
        for one in steps:
            display.advance(one)
    return to.file.getvalue()


def test_what_was_spent_is_requests_tokens_and_dollars_where_a_price_is_known():
    line = "3 requests and 3 kept replies, 50,000 + 10,000 tokens"
    assert spent_line(USAGE, None) == line
    # 0.05 x 2 + 0.01 x 10
    assert spent_line(USAGE, PRICE) == f"{line}, $0.20 at the list price of large-1"


def test_outside_of_a_terminal_every_step_is_one_line():
    text = shown(step("decomposing"), step("writing cases"), step("writing cases"), step("writing cases"))
    assert [line.split(" (")[0] for line in text.splitlines()] == ["decomposing", "writing cases"]
    assert "\x1b" not in text


def test_a_long_step_says_from_time_to_time_how_far_it_is(monkeypatch):
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr(plan_terminal.time, "perf_counter", lambda: float(next(clock)))
    lines = shown(*[step("writing cases")] * 12).splitlines()
    assert 3 <= len(lines) <= 6


def test_a_rehearsal_counts_its_cases():
    assert shown(step("rehearsing on 9 development cases", 1)) == "rehearsing on 9 development cases: 1 cases read\n"


def test_in_a_terminal_the_line_changes_in_place_and_brackets_are_no_markup():
    text = shown(step("reading [bold]x[/bold]"), is_terminal=True)
    assert "[bold]x[/bold]" in text


@pytest.mark.parametrize("is_terminal", [False, True])
def test_quiet_says_nothing(is_terminal):
    assert shown(step("decomposing"), is_terminal=is_terminal, quiet=True) == ""


def test_a_count_of_cases_ends_with_the_last_one():
    to = console()
    with CaseCount(3, quiet=False, console=to) as count:
        for _ in range(3):
            count.advance(None)
    assert to.file.getvalue() == "3/3 cases, about 0 s left\n"


RECORD = ValidationRecord(
    measured_on=date(2026, 11, 24),
    plan_digest="sha256:" + "0" * 64,
    model="small.gguf",
    model_digest="sha256:" + "a" * 64,
    adapter_digest="sha256:" + "b" * 64,
    cases_digest="sha256:" + "c" * 64,
    outcome=Accuracy(n=80, correct=60, low=0.645, high=0.832),
    unreviewed=Accuracy(n=50, correct=49, low=0.895, high=0.996),
    findings={"sma_contact": Accuracy(n=90, correct=81, low=0.821, high=0.947)},
)


def test_a_validation_record_tells_model_adapter_all_outcomes_and_those_that_nobody_would_look_at():
    assert record_line(RECORD) == (
        "validated for small.gguf (sha256:aaaaaaaaaaaa, adapter sha256:bbbbbbbbbbbb): "
        "outcome 60 of 80, 75 % (95 % interval 64.5 % to 83.2 %) right; of the outcomes that nobody would look at: "
        "49 of 50, 98 % (95 % interval 89.5 % to 99.6 %) right, left without review 50 of 90 cases"
    )


def test_a_validation_record_without_a_number_of_the_unreviewed_claims_none():
    line = record_line(RECORD.model_copy(update={"unreviewed": None, "adapter_digest": None}))
    assert line.startswith("validated for small.gguf (sha256:aaaaaaaaaaaa, no adapter): outcome 60 of 80, ")
    assert line.endswith(
        "; of the outcomes that nobody would look at: none left without review, or not counted by this record"
    )


def test_a_validation_record_is_told_with_its_calibration_where_there_is_one():
    calibration = Calibration(
        made_on=date(2026, 11, 24),
        plan_digest=RECORD.plan_digest,
        model_digest=RECORD.model_digest,
        adapter_digest=RECORD.adapter_digest,
        labels="synthetic",
        n=300,
        labels_digest="sha256:" + "d" * 64,
        temperatures={"sma_contact": 1.4},
        risk=0.05,
        review_below=0.62,
    )
    told = "; calibration: synthetic labels, 300 reports, 2026-11-24; below 0.62 to review, "
    assert record_line(RECORD, calibration).startswith(record_line(RECORD) + told)
