"""Rules as rows of a decision table: what a row says is what its condition says, or it stays a sentence."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_with_parts import plan_with_parts
from strategies import conditions, domains, knowledge
from test_condition_text import PLAN, is_, not_, plan_of

from medorchestra.plan_files import read_plan
from medorchestra.plan_views.condition_cells import MOST_COLUMNS, rule_table
from medorchestra.plan_views.condition_text import value_text
from medorchestra.rules import AllOf, AnyOf, Bounds, In, OptionIs, evaluate, leaves_of
from medorchestra.topics import topics

PARTS = plan_with_parts()


def row_of(condition, plan=PLAN):
    """Column -> cell of the only row of a table."""
    table = rule_table([plan.rules[0].model_copy(update={"when": condition})], plan)
    cells = table.rows[0].cells
    return None if cells is None else {c.name: cell for c, cell in zip(table.columns, cells, strict=True) if cell}


def shown(cells):
    return {name: ("or " if cell.alternative else "") + cell.text for name, cell in cells.items()}


def demand(finding, text, values):
    """The condition that a cell states, read back from its text."""
    for word, join in ((" and ", lambda parts: AllOf(all=parts)), (" or ", lambda parts: AnyOf(any=parts))):
        parts = text.split(word)
        if len(parts) > 1 and "neither" not in text:
            return join(tuple(demand(finding, part, values) for part in parts))
    if not values:
        sign, number, *_ = text.split()
        field = {">": "above", "≥": "at_least", "<": "below", "≤": "at_most"}[sign]
        return Bounds(finding=finding, **{field: float(number)})
    words = re.split(r", | nor ", re.sub(r"^(not|neither) ", "", text))
    raw = {value_text(value, values): value for value in values}
    found = In(finding=finding, in_=tuple(raw[word] for word in words))
    return not_(found) if text.startswith(("not ", "neither ")) else found


@given(st.data())
def test_a_row_read_back_holds_exactly_where_its_rule_holds(data):
    table = data.draw(domains())
    condition = data.draw(conditions(table))
    plan = plan_of(table)
    cells = row_of(condition, plan)
    if cells is None:
        return
    read = {name: demand(name, cell.text, plan.finding(name).values) for name, cell in cells.items()}
    alternatives = tuple(read[name] for name, cell in cells.items() if cell.alternative)
    together = tuple(read[name] for name, cell in cells.items() if not cell.alternative)
    whole = AllOf(all=(*together, AnyOf(any=alternatives)) if alternatives else together)
    known = data.draw(knowledge(table))
    complete = all(isinstance(value, float) or (value and value != "not_stated") for value in known.values())
    if complete:  # "not no" is shown as "yes", which is the same where the value is known
        assert evaluate(whole, known) == evaluate(condition, known)


def test_metastasis_in_one_of_five_places_is_a_row_of_alternatives():
    cells = row_of(PLAN.rule("distant_metastasis").when)
    assert set(shown(cells).values()) == {"or yes"}
    assert len(cells) == 5


def test_a_denied_list_becomes_alternatives_that_the_option_settles():
    cells = row_of(PLAN.rule("ca_over_180").when)
    assert shown(cells) == {
        "ca_contact": ">180",
        "tumor_location": "or neither body nor tail",
        "aorta_contact": "or yes",
        "gda_contact": "or yes",
        "ca_over_180_body_tail": "or locally advanced",
    }
    assert cells["ca_over_180_body_tail"].as_set is True
    assert {name for name, cell in cells.items() if cell.idle} == {"tumor_location", "aorta_contact", "gda_contact"}


def test_the_same_row_under_the_other_setting_rests_on_the_findings():
    option = PLAN.options[0].model_copy(update={"setting": "borderline_resectable"})
    plan = PLAN.model_copy(update={"options": (option, PLAN.options[1])})
    cells = row_of(plan.rule("ca_over_180").when, plan)
    assert cells["ca_over_180_body_tail"].as_set is False
    assert {name for name, cell in cells.items() if cell.idle} == {"ca_over_180_body_tail"}


def test_a_rule_that_its_option_excludes_is_switched_off():
    rows = {row.rule.id: row for row in rule_table(PLAN.rules, PLAN).rows}
    assert [name for name, row in rows.items() if row.switched_off] == ["jejunal_branch"]


def test_numbers_and_parts_have_cells_too():
    assert shown(row_of(PARTS.rule("middle").when, PARTS)) == {"size": "> 2 and ≤ 4 cm"}
    assert shown(row_of(PARTS.rule("three").when, PARTS)) == {"t_category": "or T4", "n_category": "or N2"}
    assert shown(row_of(PARTS.rule("two_a").when, PARTS)) == {"t_category": "T3", "n_category": "N0"}


def test_either_value_of_one_finding_is_one_cell_and_no_alternative():
    condition = AnyOf(any=(is_("sma_contact", "none"), is_("sma_contact", "<=180")))
    assert shown(row_of(condition)) == {"sma_contact": "none or ≤180"}


@pytest.mark.parametrize(
    "condition",
    [
        # two lists of alternatives: which "or" belongs to which could not be told
        AllOf(
            all=(
                AnyOf(any=(is_("sma_contact", "none"), is_("ca_contact", "none"))),
                AnyOf(any=(is_("gda_contact", "no"), is_("ivc_contact", "no"))),
            )
        ),
        # an alternative that is itself a list
        AnyOf(any=(is_("sma_contact", "none"), AllOf(all=(is_("gda_contact", "no"), is_("ivc_contact", "no"))))),
        # a finding that is both demanded and one of the alternatives
        AllOf(
            all=(
                not_(is_("sma_contact", "none")),
                AnyOf(any=(is_("sma_contact", ">180"), is_("ca_contact", ">180"))),
            )
        ),
    ],
)
def test_what_does_not_fit_a_row_stays_a_sentence(condition):
    assert row_of(condition) is None


def test_too_many_columns_are_no_table():
    many = [f"f{i}" for i in range(MOST_COLUMNS + 1)]
    rules = [PLAN.rules[0].model_copy(update={"when": is_(name, "yes")}) for name in many]
    plan = PLAN.model_copy(
        update={"findings": tuple(PLAN.finding("aorta_contact").model_copy(update={"name": name}) for name in many)}
    )
    assert len(rule_table(rules[:-1], plan).columns) == MOST_COLUMNS
    table = rule_table(rules, plan)
    assert table.columns == ()
    assert all(row.cells is None for row in table.rows)


@pytest.mark.parametrize("topic", topics())
def test_a_shipped_plan_keeps_every_rule_in_order_and_every_finding_its_column(topic):
    plan = read_plan(topic)
    for rules in (plan.rules, *(part.rules for part in plan.parts)):
        table = rule_table(rules, plan)
        assert [row.rule for row in table.rows] == list(rules)
        for row in table.rows:
            if row.cells is None:
                continue
            filled = {column.name for column, cell in zip(table.columns, row.cells, strict=True) if cell}
            asked = {
                leaf.option if isinstance(leaf, OptionIs) else getattr(leaf, "finding", None) or leaf.part
                for leaf in leaves_of(row.rule.when)
            }
            assert filled == asked
