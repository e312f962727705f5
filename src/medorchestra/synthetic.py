"""Synthetic cases: invented reports with their expected findings and outcome. They may leave the building.

A `SyntheticCase` shares nothing with `local.records.Report`, on purpose. Cases lie in JSONL files, one file for each
split: development (prompts and rules may be fitted to it), calibration, held_out (only ever measured on). Knows plans;
knows no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from medorchestra.errors import CaseError, RuleError
from medorchestra.plan import Plan
from medorchestra.rules import NOT_STATED
from medorchestra.topics import cases_folder, is_topic_name

Split = Literal["development", "calibration", "held_out"]
SPLITS: tuple[Split, ...] = ("development", "calibration", "held_out")


class SyntheticCase(BaseModel):
    """An invented report and what a careful reader finds in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: Annotated[str, StringConstraints(min_length=1, max_length=80)]
    split: Split
    form: Literal["free_text", "structured"]
    style: str
    """Who writes so: dictation habit or template."""
    text: Annotated[str, StringConstraints(min_length=1)]
    findings: Mapping[str, str | float | None]
    """Finding -> value, `not_stated`, or a number (None for a number that is not stated)."""
    outcome: str | None
    """Expected outcome; None where several remain possible."""
    possible_outcomes: tuple[str, ...]
    rule: str | None
    """The rule that decides; None where open or where it cannot be told which of several."""
    traps: tuple[str, ...] = ()
    note: str = ""

    def known(self) -> dict[str, str | float]:
        """The expected findings as the rules take them: a number that is not stated becomes `not_stated`."""
        return {name: NOT_STATED if value is None else value for name, value in self.findings.items()}


def check_case(case: SyntheticCase, plan: Plan) -> None:
    """Check that a case fits a plan and that its findings lead by the rules to its outcome.

    Raises:
        CaseError: names the case and what disagrees.
    """
    asked = {finding.name for finding in plan.findings}
    if set(case.findings) != asked:
        missing, extra = sorted(asked - set(case.findings)), sorted(set(case.findings) - asked)
        raise CaseError(f"case {case.id}: findings missing: {missing or 'none'}; not in the plan: {extra or 'none'}")
    try:
        verdict = plan.decision_table.decide(case.known())
    except (RuleError, ValueError) as error:
        raise CaseError(f"case {case.id}: {error}") from None
    expected = (case.outcome, set(case.possible_outcomes), case.rule)
    found = (verdict.outcome, set(verdict.possible), verdict.rule)
    if expected != found:
        raise CaseError(
            f"case {case.id}: expects {case.outcome}, possible {sorted(case.possible_outcomes)}, rule {case.rule}; "
            f"its findings lead to {verdict.outcome}, {sorted(verdict.possible)}, {verdict.rule}"
        )


def read_cases(source: str | Path, split: Split | None = None) -> tuple[SyntheticCase, ...]:
    """Read synthetic cases.

    Args:
        source: name of a topic that comes with the library, or a folder with `<split>.jsonl` files.
        split: only this split; default all, in the order development, calibration, held_out.

    Raises:
        CaseError: no such folder or split, or a line that is not a valid case (names file, line, field).
    """
    folder = Path(source)
    if is_topic_name(str(source)) and not folder.is_dir():
        folder = cases_folder(str(source))
    if not folder.is_dir():
        raise CaseError(f"no synthetic cases {str(source)!r}: neither a folder nor a topic that has cases")
    wanted = SPLITS if split is None else (split,)
    paths = [folder / f"{name}.jsonl" for name in wanted]
    there = [path for path in paths if path.is_file()]
    if not there:
        raise CaseError(f"{folder}: none of these files is there: {', '.join(path.name for path in paths)}")
    cases = [case for path in there for case in _cases_in(path)]
    _refuse_doubled_ids(cases, folder)
    return tuple(cases)


def _cases_in(path: Path) -> Iterable[SyntheticCase]:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise CaseError(f"{path}: line {number}: not JSON: {error.msg} at column {error.colno}") from None
        # A case does not name its split: the file does, so that no case can be in two.
        if not isinstance(fields, dict) or "split" in fields:
            raise CaseError(f"{path}: line {number}: must be a JSON object without `split` (the file name says it)")
        try:
            yield SyntheticCase.model_validate(fields | {"split": path.stem})
        except ValidationError as error:
            places = error.errors(include_url=False, include_input=False, include_context=False)
            wrong = "; ".join(f"{'.'.join(map(str, place['loc'])) or 'line'}: {place['msg']}" for place in places[:5])
            raise CaseError(f"{path}: line {number}: {wrong}") from None


def _refuse_doubled_ids(cases: Iterable[SyntheticCase], folder: Path) -> None:
    seen: set[str] = set()
    doubled: list[str] = []
    for case in cases:
        if case.id in seen:
            doubled.append(case.id)
        seen.add(case.id)
    if doubled:
        raise CaseError(f"{folder}: {len(doubled)} case ids are there twice, first: {', '.join(doubled[:3])}")


def cases_digest(cases: Iterable[SyntheticCase]) -> str:
    """`sha256:…` of a set of cases, whatever their order."""
    lines = sorted(case.model_dump_json() for case in cases)
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()
