"""Whether a new model may take the place of an old one: made-up hits and misses on resectability."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local.small_batch import PLAN

from medorchestra.errors import SettingsError
from medorchestra.intervals import Z_95
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.calibrating import OPEN, LabelledReport
from medorchestra.local.engine.protocol import ModelIdentity
from medorchestra.local.evaluation.measures import needed_pairs
from medorchestra.local.evaluation.predictions import LabelledCase, Prediction, StrategyRun
from medorchestra.local.evaluation.requalifying import requalify, require_two_models
from medorchestra.local.records import Report
from medorchestra.local.staged_report import ReportStatus, StagedReport


def case(number, outcome="resectable", **findings):
    return LabelledCase(LabelledReport(Report(f"case-{number}", "text"), findings, outcome))


def counted(both=0, gained=0, lost=0, neither=0):
    """Cases and two runs with these counts: both right, only the new, only the old, neither."""
    hits = [(True, True)] * both + [(False, True)] * gained + [(True, False)] * lost + [(False, False)] * neither
    cases = [case(number) for number in range(len(hits))]
    return cases, *(run(cases, [pair[place] for pair in hits]) for place in (0, 1))


def run(cases, hits):
    predictions = [
        Prediction(of.case_id, "resectable" if hit else "metastatic") for of, hit in zip(cases, hits, strict=True)
    ]
    return StrategyRun("orchestrated", None, tuple(predictions))


def test_a_model_that_decides_the_same_on_many_cases_is_accepted():
    found = requalify(*counted(both=200, neither=20))
    assert (found.verdict, found.n, found.needed) == ("accept", 220, None)
    assert (found.old, found.difference.difference) == (found.new, 0.0)


def test_a_model_that_decides_the_same_on_a_handful_of_cases_is_not_accepted():
    """The bootstrap sees no spread where nothing changed; twelve cases prove nothing all the same."""
    found = requalify(*counted(both=12))
    assert found.verdict == "too few cases"
    assert found.low == pytest.approx(-(Z_95**2) / (12 + Z_95**2))
    assert found.needed == 125  # z2 (1 - 0.03) / 0.03 = 124.2


@pytest.mark.parametrize("margin", [0.02, 0.03, 0.05, 0.1])
def test_where_nothing_changes_exactly_the_number_needed_is_enough(margin):
    needed = requalify(*counted(both=5), margin=margin).needed
    assert requalify(*counted(both=needed), margin=margin).verdict == "accept"
    assert requalify(*counted(both=needed - 1), margin=margin).verdict == "too few cases"


def test_a_better_model_is_accepted():
    found = requalify(*counted(both=70, gained=25, lost=3, neither=2))
    assert (found.verdict, found.old.correct, found.new.correct) == ("accept", 73, 95)
    assert found.low > 0


def test_a_much_worse_model_is_rejected():
    found = requalify(*counted(both=70, gained=3, lost=25, neither=2))
    assert found.verdict == "reject"
    assert found.high < 0
    assert found.needed is None


def test_a_model_that_is_worse_for_certain_but_by_less_than_the_margin_is_accepted():
    found = requalify(*counted(both=1970, gained=1, lost=12, neither=17))
    assert found.difference.p_value < 0.05
    assert found.high < 0
    assert found.verdict == "accept"


def test_an_interval_on_both_sides_of_the_margin_is_too_few_cases():
    found = requalify(*counted(both=80, gained=6, lost=7, neither=7))
    assert found.verdict == "too few cases"
    assert found.low < -0.03 < found.high
    gain, loss, quantiles = 0.06, 0.07, Z_95 + 0.8416212335729143
    spread = gain + loss - (gain - loss) ** 2
    assert found.needed == math.ceil(quantiles**2 * spread / (0.03 - 0.01) ** 2) == 2549


def test_a_model_that_looks_worse_needs_the_cases_that_would_show_it():
    found = requalify(*counted(both=16, gained=1, lost=3))
    assert found.verdict == "too few cases"
    assert found.needed == needed_pairs(0.05, 0.15) > 20


def test_a_wider_margin_accepts_what_a_narrower_one_does_not():
    verdicts = [requalify(*counted(both=90, gained=5, lost=5), margin=margin).verdict for margin in (0.02, 0.1)]
    assert verdicts == ["too few cases", "accept"]


def test_cases_that_are_labelled_as_open_have_no_part_in_the_verdict():
    cases, old, new = counted(both=3)
    of = case("open", OPEN)
    left_open, decided = Prediction(of.case_id, "resectable", is_open=True), Prediction(of.case_id, "resectable")
    found = requalify(
        [*cases, of],
        StrategyRun("orchestrated", None, (*old.predictions, left_open)),
        StrategyRun("orchestrated", None, (*new.predictions, decided)),
    )
    assert (found.n, found.difference.lost) == (3, 0)


def test_no_decision_is_a_wrong_one():
    of = case(1)
    old = StrategyRun("orchestrated", None, (Prediction(of.case_id, "resectable"),))
    new = StrategyRun("orchestrated", None, (Prediction(of.case_id, None, error="RuntimeError"),))
    assert requalify([of], old, new).difference.lost == 1


def test_without_cases_there_is_no_number():
    nothing = StrategyRun("orchestrated", None, ())
    found = requalify([], nothing, nothing)
    assert (found.verdict, found.n, found.needed) == ("too few cases", 0, None)
    assert (found.old.value, found.low, found.high, found.difference.difference) == (None, None, None, None)


@pytest.mark.parametrize("margin", [0.0, -0.03, 1.0, 3.0, math.nan])
def test_a_margin_that_is_no_share_is_refused(margin):
    with pytest.raises(SettingsError, match="margin"):
        requalify(*counted(both=3), margin=margin)


def test_runs_on_other_cases_are_refused():
    cases, old, new = counted(both=3)
    with pytest.raises(ValueError, match="3 cases in this order"):
        requalify(cases, old, StrategyRun("orchestrated", None, new.predictions[::-1]))
    with pytest.raises(ValueError, match="3 cases in this order"):
        requalify(cases, StrategyRun("orchestrated", None, old.predictions[:2]), new)


def reading(of, **values):
    """A prediction with answers behind it; None is an answer that failed."""
    answers = tuple(
        Answer(name, name, AnswerStatus.FAILED) if value is None else Answer(name, name, AnswerStatus.OK, value)
        for name, value in values.items()
    )
    staged = StagedReport(PLAN, of.report, ReportStatus.DECIDED, answers=answers)
    return Prediction(of.case_id, "resectable", staged=staged)


def test_findings_are_compared_where_they_are_labelled_and_both_read_them():
    cases = [case(1, sma_contact="none", size_cm=2.4), case(2, sma_contact=">180"), case(3, sma_contact="none")]
    old = (
        reading(cases[0], sma_contact="none", liver_mets="no", size_cm=2.4),
        reading(cases[1], sma_contact="none"),
        reading(cases[2], sma_contact="none"),
    )
    new = (
        reading(cases[0], sma_contact="none", liver_mets="no", size_cm=None),
        reading(cases[1], sma_contact=">180"),
        Prediction(cases[2].case_id, None),
    )
    found = requalify(cases, *(StrategyRun("orchestrated", None, one) for one in (old, new))).findings
    assert {name: (one.n, one.gained, one.lost) for name, one in found.items()} == {
        "sma_contact": (2, 1, 0),
        "size_cm": (1, 0, 1),
    }


@given(*(st.integers(0, 60) for _ in range(4)))
def test_the_verdict_follows_the_bounds_and_asks_for_more_cases_only_where_there_is_none(both, gained, lost, neither):
    found = requalify(*counted(both, gained, lost, neither))
    if found.n == 0:
        return
    assert (found.verdict == "accept") == (found.low > -0.03)
    if found.verdict == "reject":
        assert found.high < -0.03 or (found.high < 0 and found.difference.p_value < 0.05)
    assert (found.needed is not None) == (found.verdict == "too few cases")
    assert found.needed is None or found.needed > found.n


SERVED = {"engine": "server", "context_tokens": 8192}


@pytest.mark.parametrize(
    "new",
    [
        ModelIdentity("reader", "sha256:2", settings=SERVED),
        ModelIdentity("reader", "sha256:1", settings=SERVED | {"context_tokens": 4096}),
        ModelIdentity("reader.gguf", "sha256:1", settings={"engine": "llama.cpp"}),
    ],
)
def test_models_that_tell_themselves_apart_may_be_compared(new):
    require_two_models(ModelIdentity("reader", "sha256:1", settings=SERVED), new)


def test_two_servers_that_tell_the_same_are_refused_since_kept_answers_would_be_mixed_up():
    one, other = (ModelIdentity("reader", "sha256:1", settings=dict(SERVED)) for _ in range(2))
    with pytest.raises(SettingsError, match="kept answers of one would be taken for the other's; serve the new one"):
        require_two_models(one, other)
