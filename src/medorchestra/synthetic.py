"""Synthetic cases: invented reports with their expected findings and outcome. They may leave the building.

A `SyntheticCase` shares nothing with `local.records.Report`, on purpose. Cases lie in JSONL files, one file for each
split: development (prompts and rules may be fitted to it), calibration, held_out (only ever measured on). Knows plans;
knows no model, and writes no report.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from medorchestra.errors import CaseError, RuleError
from medorchestra.plan import Plan
from medorchestra.rules import NOT_STATED
from medorchestra.topics import cases_folder, is_topic_name
from medorchestra.whole_files import write_whole

Split = Literal["development", "calibration", "held_out"]
SPLITS: tuple[Split, ...] = ("development", "calibration", "held_out")
Form = Literal["free_text", "structured"]
CaseProvenance = Literal["hand", "planner", "composed"]


class SyntheticCase(BaseModel):
    """An invented report and what a careful reader finds in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: Annotated[str, StringConstraints(min_length=1, max_length=80)]
    split: Split
    form: Form
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
    parts: Mapping[str, str | None] = Field(default_factory=dict)
    """Part of the plan -> its expected outcome (None where open); empty for a plan without parts."""
    provenance: CaseProvenance = "hand"
    """Who wrote the text: a person (or a model acting as one), the planner's cloud model, or a phrase bank by seed."""
    traps: tuple[str, ...] = ()
    note: str = ""

    def known(self) -> dict[str, str | float]:
        """The expected findings as the rules take them: a number that is not stated becomes `not_stated`."""
        return {name: NOT_STATED if value is None else value for name, value in self.findings.items()}

    def _at_default(self) -> set[str]:
        """Later fields that stand at their default: left out of files and digests, so that older ones stay valid."""
        return {name for name in _LATER_FIELDS if getattr(self, name) == _LATER_FIELDS[name]}


_LATER_FIELDS: Mapping[str, object] = {"parts": {}, "provenance": "hand"}


class CaseFields(TypedDict):
    """What `labelled` has to be told of a case besides its findings."""

    id: str
    split: Split
    form: Form
    style: str
    text: str
    provenance: NotRequired[CaseProvenance]
    traps: NotRequired[tuple[str, ...]]
    note: NotRequired[str]


def labelled(plan: Plan, findings: Mapping[str, str | float | None], **fields: Unpack[CaseFields]) -> SyntheticCase:
    """A case whose outcome, possible outcomes, rule and parts are what the plan's tables make of its findings.

    Args:
        plan: the plan.
        findings: finding -> value, `not_stated`, or a number; None or left out is silence.
        fields: the rest of the case.

    Raises:
        CaseError: a finding or value that the plan does not have, or a field of the case is wrong.
    """
    labels: dict[str, str | float | None] = {}
    for finding in plan.findings:
        value = findings.get(finding.name)
        silence = NOT_STATED if finding.values else None
        labels[finding.name] = silence if value is None or value == NOT_STATED else value
    where = f"case {fields['id']}"
    extra = sorted(set(findings) - set(labels))
    if extra:
        raise CaseError(f"{where}: not in the plan: {extra}")
    known = {name: NOT_STATED if value is None else value for name, value in labels.items()}
    try:
        verdict = plan.decision_table.decide(known)
        parts = {name: table.decide(known).outcome for name, table in plan.part_tables.items()}
    except (RuleError, ValueError) as error:
        raise CaseError(f"{where}: {error}") from None
    try:
        return SyntheticCase(
            **fields,
            findings=labels,
            outcome=verdict.outcome,
            possible_outcomes=verdict.possible,
            rule=verdict.rule,
            parts=parts,
        )
    except ValidationError as error:
        raise CaseError(f"{where}: {_wrong_fields(error)}") from None


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
    tables = plan.part_tables
    if set(case.parts) != set(tables):
        missing, extra = sorted(set(tables) - set(case.parts)), sorted(set(case.parts) - set(tables))
        raise CaseError(f"case {case.id}: parts missing: {missing or 'none'}; not in the plan: {extra or 'none'}")
    for name, table in tables.items():
        outcome = table.decide(case.known()).outcome
        if case.parts[name] != outcome:
            raise CaseError(f"case {case.id}: part {name}: expects {case.parts[name]}; its findings lead to {outcome}")


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
            raise CaseError(f"{path}: line {number}: {_wrong_fields(error)}") from None


def _wrong_fields(error: ValidationError) -> str:
    """Which fields are wrong and why, never what stands in them."""
    places = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, place['loc'])) or 'line'}: {place['msg']}" for place in places[:5])


def write_cases(cases: Iterable[SyntheticCase], folder: str | Path) -> tuple[Path, ...]:
    """Write cases as `<split>.jsonl`, one file for each split that occurs; `read_cases` reads them back equal.

    A file is replaced as a whole or not at all. Files of splits that do not occur are left as they are.

    Args:
        cases: in the order in which they shall stand.
        folder: made if it is not there.

    Returns:
        the files written, in the order development, calibration, held_out.

    Raises:
        CaseError: two cases have the same id.
        StorageError: a file cannot be written.
    """
    cases, folder = tuple(cases), Path(folder)
    _refuse_doubled_ids(cases, folder)
    written: list[Path] = []
    for split in SPLITS:
        lines = [_line(case) for case in cases if case.split == split]
        if lines:
            written.append(folder / f"{split}.jsonl")
            write_whole(written[-1], "\n".join(lines) + "\n")
    return tuple(written)


def _line(case: SyntheticCase) -> str:
    return json.dumps(case.model_dump(mode="json", exclude={"split", *case._at_default()}), ensure_ascii=False)


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
    lines = sorted(case.model_dump_json(exclude=case._at_default()) for case in cases)
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()
