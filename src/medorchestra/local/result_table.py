"""Staged reports as flat rows and as an Arrow table: which columns there are, and what stands in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.records import Report
from medorchestra.local.staged_report import StagedReport
from medorchestra.local.trace import json_ready
from medorchestra.plan import Plan
from medorchestra.rules import NOT_STATED

_ARROW = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}


def result_columns(plan: Plan) -> dict[str, type]:
    """Columns of a result row beside the carried ones: name -> str, float or bool.

    `outcome_set` is there whether the plan's calibration gives sets or not: the columns depend on the plan's content
    alone, which a calibration is no part of (see `Plan.digest`), so that the tables of two runs fit together.
    """
    columns: dict[str, type] = {
        "report_id": str,
        "status": str,
        "outcome": str,
        "best_outcome": str,
        "possible_outcomes": str,
        "outcome_set": str,
        "probability": float,
        "review": bool,
        "review_reason": str,
        "rule": str,
        "missing": str,
        "skipped": str,
        "validated": bool,
    }
    columns |= {f"p.{outcome.name}": float for outcome in plan.outcomes}
    columns |= {f"part.{part.name}": str for part in plan.parts}
    columns |= {f"finding.{f.name}": str if f.values else float for f in plan.findings}
    return columns


def result_row(staged: StagedReport) -> dict[str, str | float | bool | None]:
    """One report as a flat row with the columns of `result_columns`; None where there is nothing to say."""
    plan = staged.plan
    row: dict[str, str | float | bool | None] = dict.fromkeys(result_columns(plan))
    row |= {"report_id": staged.report_id, "status": staged.status.value, "review": staged.review}
    row["validated"] = staged.validated
    decision = staged.decision
    if decision is None:
        row["review_reason"] = staged.error or staged.status.value
        return row
    row |= {
        "outcome": decision.outcome,
        "best_outcome": decision.best_outcome,
        "possible_outcomes": "|".join(decision.possible_outcomes),
        "outcome_set": None if decision.outcome_set is None else "|".join(decision.outcome_set),
        "probability": decision.probability,
        "review_reason": "; ".join(decision.review_reasons) or None,
        "rule": decision.rule.id if decision.rule else None,
        "missing": "|".join(decision.missing) or None,
        "skipped": "|".join(decision.skipped) or None,
    }
    row |= {f"p.{outcome}": probability for outcome, probability in decision.probabilities.items()}
    row |= {f"part.{name}": part.outcome for name, part in decision.parts.items()}
    for answer in staged.answers:
        if answer.finding is not None:
            row[f"finding.{answer.finding}"] = _finding_cell(answer, plan)
    return row


def _finding_cell(answer: Answer, plan: Plan) -> str | float | None:
    """The value read; `not_stated` for silence (None in a column of numbers); None for a failed or skipped answer.

    The column `skipped` tells the two apart.
    """
    if answer.status is AnswerStatus.OK and isinstance(answer.value, str | float):
        return answer.value
    closed = plan.finding(answer.finding or "").values is not None
    return NOT_STATED if answer.status is AnswerStatus.NOT_STATED and closed else None


def result_schema(plan: Plan, reports: Sequence[Report]) -> pa.Schema:
    """Schema of the result table: `report_id`, the carried columns (types as in the source), the result columns."""
    names = dict.fromkeys(name for report in reports for name in report.carried)
    return typed_result_schema(plan, {name: carried_type(reports, name) for name in names})


def typed_result_schema(plan: Plan, carried: Mapping[str, pa.DataType]) -> pa.Schema:
    """As `result_schema`, where the types of the carried columns are known before any report is: column -> type."""
    columns = result_columns(plan)
    fields = [pa.field("report_id", pa.string(), nullable=False)]
    fields += [pa.field(carried_name(name, columns), _kept_type(kind)) for name, kind in carried.items()]
    fields += [pa.field(name, _ARROW[kind]) for name, kind in columns.items() if name != "report_id"]
    return pa.schema(fields)


def carried_type(reports: Sequence[Report], name: str) -> pa.DataType:
    """The type that all values of a carried column have, text where there is none that every reader of Parquet knows.

    So mixed types and nested values of a JSONL column, and empty columns, are kept as text.
    """
    try:
        kind = pa.array([report.carried.get(name) for report in reports]).type
    except (pa.ArrowException, ValueError, OverflowError):
        return pa.string()
    return _kept_type(kind)


def _kept_type(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_nested(kind) or pa.types.is_null(kind) else kind


def carried_name(name: str, columns: Mapping[str, type]) -> str:
    """Name of a carried column in the results: its own, or `carried.<name>` where a result column has that name.

    A name that begins so already gets it once more: no two columns ever become one.
    """
    return f"carried.{name}" if name in columns or name.startswith("carried.") else name


def table_row(staged: StagedReport) -> dict[str, Any]:
    """A result row with the carried columns after the id."""
    columns = result_columns(staged.plan)
    carried = {carried_name(name, columns): value for name, value in staged.report.carried.items()}
    return {"report_id": staged.report_id} | carried | result_row(staged)


def arrow_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of this schema; what stands in a text column becomes text."""
    text = {column.name for column in schema if pa.types.is_string(column.type)}
    typed = [{name: cell_text(value) if name in text else value for name, value in row.items()} for row in rows]
    return pa.Table.from_pylist(typed, schema=schema)


def cell_text(value: object) -> str | None:
    """A value as text, for CSV and for text columns: nested values as JSON, None for what is missing."""
    if isinstance(value, str) and value.isascii():
        return str(value)
    plain = json_ready(value)
    if plain is None:
        return None
    if isinstance(plain, dict | list):
        return json.dumps(plain)
    # Arrow holds valid UTF-8 only: a lone surrogate becomes its escape.
    return str(plain).encode("utf-8", "backslashreplace").decode("utf-8")


def results_arrow(plan: Plan, staged: Sequence[StagedReport]) -> pa.Table:
    """All rows as a table."""
    schema = result_schema(plan, [one.report for one in staged])
    return arrow_rows((table_row(one) for one in staged), schema)
