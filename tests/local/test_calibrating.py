"""Fitting a calibration to labelled reports, with scripted readers that are sure with and without reason."""

from __future__ import annotations

import logging
import traceback
from dataclasses import replace
from datetime import date

import pytest
from small_batch import PLAN, small_engine, small_reports

from medorchestra.calibration import FEWEST_KEPT
from medorchestra.errors import CaseError, ModelError, SettingsError
from medorchestra.local.calibrating import (
    OPEN,
    CalibrationSettings,
    LabelledReport,
    _in_first_half,
    fit_calibration,
    with_calibration,
)
from medorchestra.local.engine.protocol import ModelIdentity
from medorchestra.local.engine.scripted import ScriptedEngine
from medorchestra.local.records import Report
from medorchestra.local.staging import Stager
from medorchestra.plan import Accuracy, Calibration, ValidationRecord
from medorchestra.plan_files import format_plan, parse_plan
from medorchestra.rules import NOT_STATED

CANARY = "Quillfeather"
CONTACT = {"free": "none", "encased": ">180"}
LABELS = {"none": "free", ">180": "encasement", NOT_STATED: "not stated"}


def labelled(report):
    """What is true of a small report."""
    contact = next((value for word, value in CONTACT.items() if f"SMA is {word}" in report.text), NOT_STATED)
    liver = "yes" if "Liver metastases" in report.text else "no"
    size = 2.0 + (int(report.report_id.removeprefix("case-")) % 10) / 10
    findings = {"sma_contact": contact, "liver_mets": liver, "size_cm": size}
    return LabelledReport(report, findings, PLAN.decision_table.decide(findings).outcome or OPEN)


REPORTS = small_reports(240)
LABELLED = [labelled(report) for report in REPORTS]
TRUTH = {one.report.text: one for one in LABELLED}


def number_of(asked):
    return int(asked.report.split("no. ")[1].split(".")[0])


def spread(meant, sure, candidates):
    others = [candidate for candidate in candidates if candidate != meant]
    return {meant: sure} | {other: (1 - sure) / len(others) for other in others}


def overconfident(asked):
    """Right on the liver and the size. Of the artery 0.98 sure where it is right, 0.9 where it guesses and mostly errs.

    It guesses in every fourth report.
    """
    true = TRUTH[asked.report].findings
    if "liver" in asked.question:
        return spread(true["liver_mets"], 0.999, asked.candidates)
    if "large" in asked.question:
        return spread(f"{true['size_cm']:.1f} cm", 0.999, asked.candidates)
    right = LABELS[true["sma_contact"]]
    if number_of(asked) // 6 % 4:
        return spread(right, 0.98, asked.candidates)
    if number_of(asked) // 24 % 3 == 0:
        return spread(right, 0.9, asked.candidates)
    return spread("encasement" if right == "free" else "free", 0.9, asked.candidates)


def always_wrong(asked):
    """And certain of it."""
    true = TRUTH[asked.report].findings
    if "liver" in asked.question:
        return "no" if true["liver_mets"] == "yes" else "yes"
    if "large" in asked.question:
        return "not stated"
    return "encasement" if true["sma_contact"] == "none" else "free"


def engine(reply=overconfident):
    return ScriptedEngine(reply, name=reply.__name__)


def staged_by(calibration, reader):
    plan = with_calibration(PLAN, calibration)
    return list(Stager(plan, reader).stage(REPORTS))


# ------------------------------------------------------------------------------ what is fitted


def test_an_overconfident_reader_gets_a_temperature_above_one_where_it_is_overconfident():
    calibration = fit_calibration(PLAN, LABELLED, engine()).calibration
    assert calibration.temperatures["sma_contact"] > 1.2
    assert calibration.temperatures["liver_mets"] <= 1.0
    assert calibration.temperatures["size_cm"] <= 1.0


def test_the_threshold_leaves_in_staging_what_it_left_in_fitting_and_no_more_wrong_ones_than_the_risk():
    fitted = fit_calibration(PLAN, LABELLED, engine(), CalibrationSettings(risk=0.05))
    staged = staged_by(fitted.calibration, engine())
    left = [(one, true) for one, true in zip(staged, LABELLED, strict=True) if not one.review]
    wrong = sum(one.decision.best_outcome != true.outcome for one, true in left)
    assert (len(left), wrong, len(staged)) == (fitted.threshold.kept, fitted.threshold.wrong, fitted.threshold.of)
    assert FEWEST_KEPT < len(left) < len(staged)
    assert wrong / len(left) <= 0.05
    assert fitted.calibration.review_below == fitted.threshold.review_below > 0


def test_a_stricter_risk_sends_more_to_a_person():
    kept = [
        fit_calibration(PLAN, LABELLED, engine(), CalibrationSettings(risk=risk)).threshold.kept
        for risk in (0.02, 0.05, 0.3)
    ]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]


def test_a_reader_that_is_always_wrong_and_certain_of_it_has_everything_reviewed():
    """Its probabilities are 1, and 1 is not below any threshold."""
    fitted = fit_calibration(PLAN, LABELLED, engine(always_wrong))
    assert fitted.threshold is None
    assert fitted.calibration.review_below == 1.0
    staged = staged_by(fitted.calibration, engine(always_wrong))
    assert max(one.decision.probability for one in staged) == pytest.approx(1.0)
    assert all(one.review for one in staged)
    told = "every decision goes to a person: no probability is high enough for this plan and model"
    assert any(one.decision.review_reasons == (told,) for one in staged)


def test_an_engine_that_fails_leaves_nothing_to_decide_and_everything_goes_to_review():
    fitted = fit_calibration(PLAN, LABELLED[:30], small_engine(lambda asked: 1 / 0))
    assert (fitted.threshold, fitted.decisions) == (None, ())
    assert (fitted.calibration.review_below, fitted.calibration.temperatures) == (1.0, {})


def test_a_calibration_says_what_it_was_fitted_to_and_with_what():
    reader = engine()
    reader._identity = replace(reader.identity, adapter="tuned.gguf", adapter_digest="sha256:" + "a" * 64)
    settings = CalibrationSettings(risk=0.1, set_coverage=0.9, labels="synthetic")
    calibration = fit_calibration(PLAN, LABELLED, reader, settings).calibration
    assert (calibration.plan_digest, calibration.model_digest) == (PLAN.digest, reader.identity.digest)
    assert calibration.adapter_digest == "sha256:" + "a" * 64
    assert (calibration.labels, calibration.n, calibration.risk) == ("synthetic", 240, 0.1)
    assert calibration.set_coverage == 0.9
    plan = with_calibration(PLAN, calibration)
    assert parse_plan(format_plan(plan)) == plan
    assert plan.digest == PLAN.digest


def test_the_labels_digest_knows_labels_and_not_their_order():
    digests = {
        fit_calibration(PLAN, some, engine()).calibration.labels_digest
        for some in (LABELLED[:40], LABELLED[39::-1], [replace(LABELLED[0], outcome=OPEN), *LABELLED[1:40]])
    }
    assert len(digests) == 2


def test_only_labelled_findings_get_a_temperature():
    bare = [replace(one, findings={"liver_mets": one.findings["liver_mets"]}) for one in LABELLED]
    assert set(fit_calibration(PLAN, bare, engine()).calibration.temperatures) == {"liver_mets"}


def test_a_number_is_calibrated_on_stated_ones_too_and_not_on_silence_alone():
    """Labels of silence alone would know only the reports in which no number can be misread."""

    def misreads_sizes(asked):
        if "large" in asked.question and number_of(asked) % 2:
            return spread("not stated", 0.99, asked.candidates)
        return overconfident(asked)

    assert fit_calibration(PLAN, LABELLED, engine(misreads_sizes)).calibration.temperatures["size_cm"] > 1.5


def test_a_number_is_the_offered_one_that_is_nearest():
    rounded = [replace(one, findings=one.findings | {"size_cm": one.findings["size_cm"] + 0.04}) for one in LABELLED]
    temperatures = [fit_calibration(PLAN, some, engine()).calibration.temperatures for some in (LABELLED, rounded)]
    assert temperatures[0]["size_cm"] == temperatures[1]["size_cm"] < 1.0


def test_sets_of_outcomes_hold_the_true_one_as_often_as_was_asked_for():
    fitted = fit_calibration(PLAN, LABELLED, engine(), CalibrationSettings(set_coverage=0.97))
    staged = staged_by(fitted.calibration, engine())
    told = [(one.decision, true) for one, true in zip(staged, LABELLED, strict=True) if true.outcome != OPEN]
    held = [true.outcome in decision.outcome_set for decision, true in told]
    assert sum(held) / len(held) >= 0.97
    assert {len(decision.outcome_set) for decision, _ in told} == {1, 2}


def test_sets_rest_on_other_reports_than_the_temperatures():
    """A reader that is right in the half that fits and wrong in the other one must not look right in both."""
    with_sets = CalibrationSettings(set_coverage=0.9)
    wrong = frozenset(one.report.text for one in LABELLED if not _in_first_half(one))
    assert 80 < len(wrong) < 160

    def wrong_in_the_second_half(asked):
        return always_wrong(asked) if asked.report in wrong else overconfident(asked)

    assert fit_calibration(PLAN, LABELLED, engine(wrong_in_the_second_half), with_sets).calibration.set_floor == 0.0
    alone = [one for one in LABELLED if _in_first_half(one)]
    sets, fitted = (fit_calibration(PLAN, which, engine(), with_sets) for which in (LABELLED, alone))
    assert sets.calibration.temperatures == fitted.calibration.temperatures


def test_a_calibration_tells_how_right_the_outcomes_were_that_it_leaves_to_nobody():
    fitted = fit_calibration(PLAN, LABELLED, engine(), CalibrationSettings(risk=0.05))
    told = fitted.calibration.unreviewed
    assert (told.n, told.correct) == (fitted.threshold.kept, fitted.threshold.kept - fitted.threshold.wrong)
    assert fit_calibration(PLAN, LABELLED, engine(always_wrong)).calibration.unreviewed is None


def test_too_few_labels_for_the_coverage_put_every_outcome_into_the_set():
    settings = CalibrationSettings(set_coverage=0.99)
    calibration = fit_calibration(PLAN, LABELLED[:24], engine(), settings).calibration
    assert calibration.set_floor is None
    names = tuple(outcome.name for outcome in PLAN.outcomes)
    assert all(one.decision.outcome_set == names for one in staged_by(calibration, engine())[:6])


def test_without_a_coverage_no_sets_are_given():
    calibration = fit_calibration(PLAN, LABELLED, engine()).calibration
    assert (calibration.set_coverage, calibration.set_floor) == (None, None)
    assert staged_by(calibration, engine())[0].decision.outcome_set is None


# ------------------------------------------------------------------------------ how it is fitted


def test_what_the_plan_says_of_the_model_already_changes_nothing():
    """Neither the doubt of a bad rehearsal, which sends all to review, nor temperatures fitted before."""
    reader = engine()
    poor = ValidationRecord(
        measured_on=date(2026, 11, 1),
        plan_digest=PLAN.digest,
        model="m",
        model_digest=reader.identity.digest,
        cases_digest="sha256:" + "1" * 64,
        outcome=Accuracy(n=100, correct=9, low=0.05, high=0.16),
        findings={},
    )
    first = fit_calibration(PLAN, LABELLED, reader)
    before = with_calibration(PLAN.model_copy(update={"validation": (poor,)}), first.calibration)
    assert fit_calibration(before, LABELLED, reader) == first


def test_finished_answers_come_from_the_ledger_and_give_the_same_calibration(tmp_path):
    asked = []

    def noted(question):
        asked.append(question)
        return overconfident(question)

    first = fit_calibration(PLAN, LABELLED[:60], engine(noted), ledger=tmp_path / "ledger.sqlite")
    assert len(asked) == 180
    again = fit_calibration(PLAN, LABELLED[:60], engine(noted), ledger=tmp_path / "ledger.sqlite")
    assert len(asked) == 180
    assert again == first


def test_progress_is_told_after_every_report():
    told = []
    fit_calibration(PLAN, LABELLED[:30], engine(), progress=told.append)
    assert [one.report_id for one in told] == [one.report.report_id for one in LABELLED[:30]]


# ------------------------------------------------------------------------------ what is refused


def refusal(some, settings=None):
    """The message; nothing must have been asked for it."""

    def never(asked):
        raise AssertionError("asked before the labels were checked")

    with pytest.raises(CaseError) as caught:
        fit_calibration(PLAN, some, small_engine(never), settings)
    return str(caught.value)


def test_too_few_labelled_outcomes_are_refused():
    told = LABELLED[: FEWEST_KEPT - 1]
    untold = [replace(one, outcome=None) for one in LABELLED[100:200]]
    assert refusal([*told, *untold]).startswith("19 labelled outcomes; at least 20 are needed")
    assert refusal([]).startswith("0 labelled outcomes")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"findings": {"sma_contact": CANARY}}, "sma_contact"),
        ({"findings": {"sma_contact": 3.0}}, "sma_contact"),
        ({"findings": {"size_cm": CANARY}}, "size_cm"),
        ({"findings": {"size_cm": 31.0}}, "size_cm"),
        ({"findings": {"size_cm": float("nan")}}, "size_cm"),
        ({"findings": {"ca_contact": "none"}}, "ca_contact"),
        ({"outcome": CANARY}, "outcome"),
    ],
)
def test_a_label_that_the_plan_does_not_have_is_refused_by_report_and_finding_and_not_shown(changes, named):
    said = refusal([*LABELLED[:40], replace(LABELLED[40], **changes)])
    assert said == f"report case-40: labels that the plan does not have: {named}"


@pytest.mark.parametrize("settings", [{"risk": 0.0}, {"risk": 1.0}, {"set_coverage": 0.0}, {"set_coverage": 90.0}])
def test_shares_that_are_none_are_refused(settings):
    with pytest.raises(SettingsError, match="between 0 and 1"):
        CalibrationSettings(**settings)


# ------------------------------------------------------------------------------ in the plan


def calibration(labels="local", **changes):
    content = {
        "made_on": date(2026, 11, 24),
        "plan_digest": PLAN.digest,
        "model_digest": "sha256:" + "1" * 64,
        "labels": labels,
        "n": 200,
        "labels_digest": "sha256:" + "2" * 64,
        "temperatures": {"sma_contact": 2.0},
        "risk": 0.05,
        "review_below": 0.7,
    }
    return Calibration.model_validate(content | changes)


def test_local_labels_win_over_synthetic_ones_however_old_they_are():
    local = calibration(made_on=date(2026, 1, 1))
    synthetic = calibration("synthetic")
    for order in ((local, synthetic), (synthetic, local)):
        plan = PLAN
        for one in order:
            plan = with_calibration(plan, one)
        assert len(plan.calibrations) == 2
        assert plan.calibration_for("sha256:" + "1" * 64, None) == local
    assert with_calibration(PLAN, synthetic).calibration_for("sha256:" + "1" * 64, None) == synthetic


def test_a_calibration_serves_its_own_plan_model_and_adapter_only():
    plan = with_calibration(PLAN, calibration(adapter_digest="sha256:" + "a" * 64))
    assert plan.calibration_for("sha256:" + "1" * 64, "sha256:" + "a" * 64) is not None
    assert plan.calibration_for("sha256:" + "1" * 64, None) is None
    assert plan.calibration_for("sha256:" + "3" * 64, "sha256:" + "a" * 64) is None
    changed = plan.model_copy(update={"title": "Another"})
    assert changed.calibration_for("sha256:" + "1" * 64, "sha256:" + "a" * 64) is None


def test_a_new_calibration_takes_the_place_of_the_old_one_of_its_kind_and_of_those_of_older_plans():
    old, new = calibration(made_on=date(2026, 1, 1)), calibration()
    kept = [calibration("synthetic"), calibration(model_digest="sha256:" + "3" * 64)]
    of_an_older_plan = calibration(plan_digest="sha256:" + "4" * 64, model_digest="sha256:" + "5" * 64)
    plan = PLAN.model_copy(update={"calibrations": (old, *kept, of_an_older_plan)})
    assert with_calibration(plan, new).calibrations == (*kept, new)


# ------------------------------------------------------------------------------ nothing is shown


def test_neither_report_text_nor_labels_stand_in_errors_reprs_logs_or_the_calibration(caplog):
    caplog.set_level(logging.DEBUG)
    known = [replace(one, report=Report(one.report.report_id, f"{one.report.text} {CANARY}.")) for one in LABELLED[:40]]
    failing = small_engine(lambda asked: {}[asked.report])  # raises with the report in the message
    shown = [repr(fit_calibration(PLAN, known, reader)) for reader in (failing, small_engine())]
    shown += [format_plan(with_calibration(PLAN, fit_calibration(PLAN, known, small_engine()).calibration))]
    shown += [repr(known), str(known[0]), caplog.text]
    try:
        fit_calibration(PLAN, [*known, replace(known[0], findings={"liver_mets": CANARY})], small_engine())
    except CaseError as error:
        shown.append("".join(traceback.format_exception(error)))
    assert len(shown) == 7
    assert not any(CANARY in text for text in shown)


def test_a_model_that_can_only_choose_is_refused_before_it_reads(monkeypatch):
    asked = []
    engine = small_engine(asked.append)
    chooses = ModelIdentity("reader-1", "sha256:1", settings={"engine": "server", "probabilities": False})
    monkeypatch.setattr(engine, "_identity", chooses)
    with pytest.raises(ModelError, match="reader-1: its server gives no probabilities that can be relied on"):
        fit_calibration(PLAN, LABELLED[:30], engine)
    assert asked == []
