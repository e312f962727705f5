"""Reports the plan is not for are flagged; those it is for are not."""

from __future__ import annotations

import pytest
from plan_by_hand import PLAN_BY_HAND, cases_by_hand

from medorchestra.local.scope import scope_problems

SCOPE = PLAN_BY_HAND.scope

GERMAN = (
    "CT Abdomen. Raumforderung im Pankreaskopf von 3,2 cm mit Kontakt zur Arteria mesenterica superior. "
    "Die Leber ist frei von Metastasen. Kein Aszites."
)
FRENCH = (
    "TDM abdominale. Masse hypodense de la tête du pancréas de 3 cm au contact de l'artère mésentérique supérieure. "
    "Pas de métastase hépatique."
)
RECTUM = (
    "MRI rectum. There is a 4 cm rectal tumour at 6 cm from the anal verge with extramural invasion. "
    "The pancreas is unremarkable."
)
KNEE = "MRI of the left knee. There is a tear of the medial meniscus. The ligaments are intact. No joint effusion."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GERMAN, "language looks like 'de'"),
        (FRENCH, "language looks like 'fr'"),
        (RECTUM, "pancreas is unremarkable"),
        (RECTUM, "rectal tumour"),
        (KNEE, "no word for pancreas"),
        (KNEE, "no word for tumour"),
        ("膵頭部に腫瘤を認める。上腸間膜動脈に接している。", "language looks like"),
    ],
)
def test_a_report_of_another_kind_is_flagged_with_the_reason(text, says):
    assert any(says in problem for problem in scope_problems(text, SCOPE))


@pytest.mark.parametrize(
    "text",
    [
        "SMA: no contact. CA: no contact. PV/SMV: <180 smooth. Uncinate mass 2 cm. Liver: no mets.",
        "CT ABDOMEN W/ CONTRAST. 3.2 CM HYPODENSE MASS IN PANCREATIC HEAD. SMA FREE.",
    ],
)
def test_terse_and_upper_case_reports_are_not_flagged(text):
    assert scope_problems(text, SCOPE) == ()


def test_free_text_on_a_tumour_is_hardly_ever_flagged_and_forms_only_where_they_do_not_name_the_organ():
    cases = [c for c in cases_by_hand("development") if c.findings["tumor_present"] == "yes"]
    problems = {case.id: scope_problems(case.text, SCOPE) for case in cases}
    free = [case.id for case in cases if case.form == "free_text"]
    assert sum(bool(problems[name]) for name in free) <= len(free) // 10
    unnamed = ("no word for pancreas found",)
    forms = [problems[case.id] for case in cases if case.form == "structured"]
    assert sum(found not in ((), unnamed) for found in forms) <= len(forms) // 10


def test_a_problem_never_quotes_the_report():
    secret = "ZEBRA-4711"
    problems = scope_problems(f"{KNEE} {secret}", SCOPE)
    assert problems
    assert all(secret not in problem for problem in problems)
