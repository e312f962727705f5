"""A plan shown to the people who check it and sign it off: in a terminal, and as one page of HTML that stands alone.

The page (`plan_html/`) needs no network and no script, prints to A4, and follows the reader's light or dark theme. A
plan is untrusted: everything is escaped, prompts stand there as they are and inert, and hidden characters are made
visible. The sections of the guideline come in as a mapping. Decides nothing and measures nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from medorchestra.plan import Citation, Finding, Plan, ValidationRecord
from medorchestra.plan_views.cited_sections import Sections
from medorchestra.plan_views.condition_text import spoken, value_text
from medorchestra.plan_views.plan_page import DISCLAIMER, Decision, PlanPage
from medorchestra.plan_views.validation_text import (
    accuracy_text,
    adapter_text,
    calibration_text,
    deciding_share,
    left_text,
    percent,
    short_digest,
    well_read_text,
)
from medorchestra.plan_views.watched_text import on_one_line, visible, watched_in
from medorchestra.synthetic import SyntheticCase

_SIGNS = {"alarm": "!!", "look": "!", "fine": "✓"}
_STYLES = {"alarm": "bold red", "look": "yellow", "fine": "green"}
_SLOT = re.compile(r"\{\{\s*\w+\s*\}\}")


def plan_html(
    plan: Plan, sections: Sections, cases: Sequence[SyntheticCase] = (), *, guideline_digest: str | None = None
) -> str:
    """A complete HTML page for the person who signs the plan off.

    Args:
        plan: the plan.
        sections: number -> (title, text) of its guideline, in order; empty where the text is not at hand, and the page
            then says that no citation was compared.
        cases: synthetic cases that fit the plan: the page counts them for each rule and value and shows some.
        guideline_digest: of the text that the sections are from: the page says so where the plan names another.
    """
    page = PlanPage(plan, sections, cases=cases, guideline_digest=guideline_digest)
    return _environment().get_template("page.html").render(page=page, disclaimer=DISCLAIMER)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("medorchestra.plan_views", "plan_html"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "spoken": spoken,
        "watched": _watched,
        "percent": percent,
        "short_digest": short_digest,
        "adapter_text": adapter_text,
        "deciding_share": deciding_share,
        "left_text": left_text,
        "well_read_text": well_read_text,
        "calibration_text": calibration_text,
    }
    return environment


def _inert(value: object) -> object:
    """Escaped text without hidden characters, that a browser reads back to the same lines."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _escaped(value)


def _escaped(text: str) -> Markup:
    return escape(visible(text)).replace("\r", Markup("&#13;"))


def _watched(text: str) -> Markup:
    """Text for the model: places to look at and slots marked, all else as it is."""
    spans = [(place.start, place.end, place.kind) for place in watched_in(text)]
    spans += [
        (*slot.span(), "")
        for slot in _SLOT.finditer(text)
        if not any(start < slot.end() and slot.start() < end for start, end, _ in spans)
    ]
    marked, done = Markup(), 0
    for start, end, kind in sorted(spans):
        marked += _escaped(text[done:start])
        shown = _escaped(text[start:end])
        marked += (
            Markup('<mark class="mo-watch" title="{}">{}</mark>').format(kind, shown)
            if kind
            else Markup('<span class="mo-slot">{}</span>').format(shown)
        )
        done = end
    return marked + _escaped(text[done:])


def plan_lines(
    plan: Plan,
    sections: Sections | None = None,
    cases: Sequence[SyntheticCase] = (),
    *,
    guideline_digest: str | None = None,
) -> list[str]:
    """The plan as plain lines, for where the output is no terminal. Prompts are on the page only (`plan_html`).

    Args:
        plan, cases, guideline_digest: as for `plan_html`.
        sections: as there; None or empty: citations are shown, not compared.
    """
    page = PlanPage(plan, sections or {}, cases=cases, guideline_digest=guideline_digest)
    lines = [plan.title, *(f"{name}: {told}" for name, told in _facts(page)), ""]
    for notice in page.notices:
        lines += [f"{_SIGNS[notice.weight]} {notice.text}", *(f"- {one}" for one in notice.more)]
    for decision in page.decisions:
        lines += ["", decision.title]
        lines += [f"outcome {name}: {description}" for name, description in decision.outcomes]
        for i, row in enumerate(decision.table.rows, start=1):
            off = " (switched off by an option)" if row.switched_off else ""
            lines.append(f"{i}. {row.rule.id}: {page.when(row.rule.when)} -> {row.rule.outcome}{off}")
            lines.append(f"guideline {_cited(page, row.rule.citation)}")
    lines += ["", *_loose_lines(page), ""]
    lines += [f"finding {f.name} ({_range(f, page)}): {f.description} {_silence(f, page)}" for f in plan.findings]
    lines += [f"flag {flag.id} ({flag.kind}): {page.when(flag.when)}: {flag.message}" for flag in plan.flags]
    lines += ["", *_validation_lines(page), DISCLAIMER]
    return [on_one_line(line) for line in lines]


def plan_renderable(
    plan: Plan,
    sections: Sections | None = None,
    cases: Sequence[SyntheticCase] = (),
    *,
    guideline_digest: str | None = None,
) -> RenderableType:
    """The same for a terminal, in tables that take its width."""
    page = PlanPage(plan, sections or {}, cases=cases, guideline_digest=guideline_digest)
    shown: list[RenderableType] = [_text(plan.title, "bold"), _grid(_facts(page)), Text()]
    for notice in page.notices:
        shown.append(_text(f"{_SIGNS[notice.weight]} {notice.text}", _STYLES[notice.weight]))
        shown += [Padding(_text(one), (0, 0, 0, 4)) for one in notice.more]
    for decision in page.decisions:
        shown += [Text(), _text(decision.title, "bold"), _grid(decision.outcomes), _rule_table(decision, page)]
    shown += [Text(), *map(_text, _loose_lines(page)), Text(), _finding_table(page)]
    if plan.flags:
        rows = [(flag.kind, flag.message, page.when(flag.when)) for flag in plan.flags]
        shown += [Text(), _table("Flags", ("kind", "message", "raised when"), rows)]
    shown += [Text(), *(_text(line, "" if page.current_records else "yellow") for line in _validation_lines(page))]
    return Group(*shown, Text(DISCLAIMER, style="dim"))


def _text(line: str, style: str = "") -> Text:
    return Text(on_one_line(line), style=style)


def _grid(rows: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, told in rows:
        grid.add_row(_text(name, "dim"), _text(told))
    return grid


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title or None, title_justify="left", show_lines=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(_text, row))
    return table


def _rule_table(decision: Decision, page: PlanPage) -> Table:
    rows = []
    for i, row in enumerate(decision.table.rows, start=1):
        when = page.when(row.rule.when) + (" (switched off by an option)" if row.switched_off else "")
        rows.append((str(i), row.rule.id, when, row.rule.outcome, _cited(page, row.rule.citation)))
    return _table("", ("", "rule", "holds when", "outcome", "guideline"), rows)


def _finding_table(page: PlanPage) -> Table:
    rows = [(f.name, f.description, _range(f, page), _silence(f, page)) for f in page.plan.findings]
    return _table("Findings", ("finding", "what it is", "values", "when the report says nothing"), rows)


def _facts(page: PlanPage) -> list[tuple[str, str]]:
    plan, made = page.plan, page.plan.provenance
    model = f", model {made.model}" if made.model else ""
    facts = [
        ("topic", plan.topic),
        ("guideline", f"{plan.guideline.title}; {plan.guideline.edition}"),
        ("made", f"{'by hand' if made.origin == 'hand' else 'by a planner'}: {made.author}{model}, {made.made_on}"),
        ("digest", page.digest),
        ("guideline digest", plan.guideline.digest),
    ]
    return [*facts, ("note", made.note)] if made.note else facts


def _loose_lines(page: PlanPage) -> list[str]:
    """Options with what they do, and what is left undecided."""
    lines = []
    for option in page.plan.options:
        lines.append(f"option {option.name}: {option.setting} (of {', '.join(option.choices)}). {option.description}")
        for rule, effects in page.rules_of_option(option):
            lines += [f"with {choice}, rule {rule.id}: {told}" for choice, told in effects]
    return lines + [f"left undecided on purpose: {page.when(one.when)}: {one.why}" for one in page.plan.undecidable]


def _cited(page: PlanPage, citation: Citation) -> str:
    lost = "NOT FOUND THERE: " if page.is_lost(citation) else ""
    return f"{citation.section} {lost}“{citation.quote}”"


def _range(finding: Finding, page: PlanPage) -> str:
    if finding.number:
        return f"number, {page.numbers(finding)}"
    return ", ".join(value_text(value, finding.values or ()) for value in finding.values or ())


def _silence(finding: Finding, page: PlanPage) -> str:
    return f"{page.silence(finding)} {finding.not_stated.why}"


def _validation_lines(page: PlanPage) -> list[str]:
    lines = [line for record in page.current_records for line in _record_lines(record, page)]
    if not lines:
        others = " of this version of the plan, only of others" if page.plan.validation else ""
        lines.append(f"no validation record{others}: every result of it is unproven")
    return lines + [
        f"calibration without a validation record, model {short_digest(one.model_digest)}, "
        f"{adapter_text(one.adapter_digest)}: {calibration_text(one)}"
        for one in page.unproven_calibrations
    ]


def _record_lines(record: ValidationRecord, page: PlanPage) -> list[str]:
    """Who was measured, how well, whether that is enough, and what goes to a person."""
    where = f"validation with {record.model}, {adapter_text(record.adapter_digest)}, {record.measured_on}"
    told = [
        f"{score.title} {score.absent if score.accuracy is None else accuracy_text(score.accuracy)}"
        for score in page.scores(record)
    ]
    enough = "reads well enough" if page.plan.is_well_read(record) else "does not read well enough"
    told.append(f"{enough}: {well_read_text(record, page.plan)}")
    left = left_text(record)
    told += [f"left without review: {left}"] if left else []
    told.append(f"calibration: {page.calibration_told(record)}")
    return [f"{where}: {one}" for one in told]
