"""Writes an evaluation into a folder: evaluation.json, per_case.parquet, report.html. Report text on demand only.

Each file is there as a whole or not at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medorchestra.errors import StorageError
from medorchestra.local.evaluation.error_anatomy import ErrorAnatomy
from medorchestra.local.evaluation.evaluation import Evaluation
from medorchestra.local.evaluation.measures import PairedDifference, Share
from medorchestra.local.evaluation.predictions import LabelledCase, Prediction, StrategyRun
from medorchestra.local.evaluation.report_page import evaluation_page
from medorchestra.plan import Plan

_WORKED_OUT: Mapping[type, tuple[str, ...]] = {
    Share: ("value",),
    PairedDifference: ("score_interval",),
    ErrorAnatomy: ("conclusion",),
}
"""What a pipeline wants besides the fields."""

EVALUATION_FILE, TABLE_FILE, PAGE_FILE = "evaluation.json", "per_case.parquet", "report.html"


def write_evaluation(
    folder: Path,
    plan: Plan,
    cases: Sequence[LabelledCase],
    runs: Sequence[StrategyRun],
    evaluation: Evaluation,
    *,
    with_text: bool = False,
) -> None:
    """Write all files.

    Args:
        folder: made if it is not there.
        plan: whose findings have columns.
        cases, runs: rows of the table: one for each case and run.
        evaluation: the measures.
        with_text: put the text of wrongly decided reports into the page.

    Raises:
        StorageError: a file cannot be written.
    """
    wrong = {one.case_id for one in evaluation.wrong}
    texts = {case.case_id: case.report.text for case in cases if case.case_id in wrong} if with_text else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / EVALUATION_FILE, evaluation_json(evaluation).encode())
        _write_table(folder / TABLE_FILE, case_table(plan, cases, runs))
        page = evaluation_page(evaluation, texts=texts)
        _write(folder / PAGE_FILE, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be written: {error.strerror or type(error).__name__}; check folder and free space"
        ) from None


def evaluation_json(evaluation: Evaluation) -> str:
    """Everything that was measured, as JSON; what is undefined is null."""
    return json.dumps(_plain(evaluation), indent=1, allow_nan=False) + "\n"


def case_table(plan: Plan, cases: Sequence[LabelledCase], runs: Sequence[StrategyRun]) -> pa.Table:
    """One row for each case and run: outcome, probability, review, and every finding with its label. No report text."""
    rows = [_row(plan, case, run, said) for run in runs for case, said in zip(cases, run.predictions, strict=True)]
    return pa.Table.from_pylist(rows, schema=_schema(plan, cases))


def _schema(plan: Plan, cases: Sequence[LabelledCase]) -> pa.Schema:
    text, yes_no, number = pa.string(), pa.bool_(), pa.float64()
    columns: list[tuple[str, pa.DataType]] = [
        ("case_id", text),
        ("run", text),
        ("label", text),
        ("outcome", text),
        ("right", yes_no),
        ("is_open", yes_no),
        ("probability", number),
        ("review", yes_no),
        ("error", text),
        ("seconds", number),
        ("tokens", pa.int64()),
    ]
    columns += [(f"probability_{outcome.name}", number) for outcome in plan.outcomes]
    columns += [(f"reader_{name}", text) for name in (cases[0].readers if cases else ())]
    columns += [(f"group_{name}", text) for name in (cases[0].groups if cases else ())]
    for finding in plan.findings:
        columns += [(f"{finding.name}_label", text), (finding.name, text), (f"{finding.name}_probability", number)]
    return pa.schema(columns)


def _row(plan: Plan, case: LabelledCase, run: StrategyRun, said: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case_id": _storable(case.case_id),
        "run": run.name,
        "label": case.labels.outcome,
        "outcome": said.outcome,
        "right": said.is_right(case),
        "is_open": said.is_open,
        "probability": said.probability,
        "review": said.review,
        "error": said.error,
        "seconds": said.seconds,
        "tokens": said.tokens,
    }
    row |= {f"probability_{name}": share for name, share in said.probabilities.items()}
    row |= {f"reader_{name}": answer for name, answer in case.readers.items()}
    row |= {f"group_{name}": _storable(group) for name, group in case.groups.items()}
    answers = {} if said.staged is None else {answer.finding: answer for answer in said.staged.answers}
    for finding in plan.findings:
        label, answer = case.labels.findings.get(finding.name), answers.get(finding.name)
        row[f"{finding.name}_label"] = None if label is None else str(label)
        if answer is not None:
            row[finding.name] = answer.status.value if answer.value is None else str(answer.value)
            row[f"{finding.name}_probability"] = answer.probability
    return row


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Any:
    """JSON-ready: dataclasses become objects, keys of two become `a -> b`, what is no number becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        worked_out = _WORKED_OUT.get(type(value), ())
        return {name: _plain(getattr(value, name)) for name in (*value.__dataclass_fields__, *worked_out)}
    if isinstance(value, Mapping):
        return {_key(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _key(key: Any) -> str:
    if isinstance(key, tuple):
        return " -> ".join(map(str, key))
    return str(key.value if isinstance(key, Enum) else key)


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _write_table(path: Path, table: pa.Table) -> None:
    beside = path.with_name(f".{path.name}.part")
    try:
        pq.write_table(table, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
