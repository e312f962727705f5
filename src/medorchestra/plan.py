"""THE CONTRACT: a plan is data, readable by a clinician, and the only thing that crosses the privacy boundary.

Frozen models that refuse unknown fields; YAML on disk; a digest that does not depend on formatting. Reading a plan
checks everything that can be checked without a model: names, values, templates, sizes, rules. It runs no code from
the plan. Knows nothing of reports, models or networks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from medorchestra.decision_diagram import DecisionTable
from medorchestra.errors import PlanError
from medorchestra.plan_yaml import dump_plan_yaml, is_yaml_text, parse_plan_yaml
from medorchestra.rules import NOT_STATED, Condition, DecisionRule, Domain, Silence, check_rules, findings_in
from medorchestra.templates import HEAD_SLOTS, QUESTION_SLOTS, check_template, render_template
from medorchestra.topics import guideline_folder, is_topic_name, topics

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
ValueName = Annotated[str, StringConstraints(pattern=r"^[^\s|,;]+$", max_length=64)]


def _writable(text: str) -> str:
    if not is_yaml_text(text):
        raise ValueError("holds control characters that a plan file cannot hold")
    return text


Line = Annotated[
    str, StringConstraints(min_length=1, max_length=2_000, strip_whitespace=True), AfterValidator(_writable)
]
PromptText = Annotated[str, StringConstraints(min_length=1), AfterValidator(_writable)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class Citation(_Model):
    """A place in the guideline, with its words."""

    section: Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)*$")]
    """Number of the section, as in the guideline's heading."""
    quote: Line
    """Verbatim from that section."""


class GuidelineReference(_Model):
    """Which text the plan was made from."""

    title: Line
    edition: Line
    digest: Digest
    """Of the guideline file's text."""


class Option(_Model):
    """A choice that the guideline leaves open or that its editions differ on; rules may ask its setting."""

    name: Name
    description: Line
    choices: Annotated[tuple[ValueName, ...], Field(min_length=2)]
    setting: ValueName

    @model_validator(mode="after")
    def _setting_is_a_choice(self) -> Option:
        if self.setting not in self.choices:
            raise ValueError(f"setting {self.setting!r} is not one of the choices: {', '.join(self.choices)}")
        return self


class NotStated(_Model):
    """What a report's silence on a finding means for the outcome. The finding itself stays `not_stated`."""

    reads_as: ValueName | None = None
    """The value that silence is read as; None: unknown."""
    if_stated: Name | None = None
    """Silence is read so only where the report states this other finding."""
    unless: Condition | None = None
    """Where this holds, silence is unknown all the same."""
    review: bool = False
    """Whether a decision that rests on this reading goes to a person."""
    prior: Mapping[str, Probability] | None = None
    """Weights of the values where silence is unknown: for `best_outcome` and probabilities only."""
    why: Line
    """The reason, for the clinician who signs the plan off."""


class NumberRange(_Model):
    """A finding that is a number."""

    unit: Literal["cm", "mm", "count", "percent", "unit_per_ml"]
    minimum: float
    maximum: float


class Finding(_Model):
    """One fact with a closed set of values (or a number), read from a report."""

    name: Name
    description: Line
    values: Annotated[Mapping[ValueName, Line], Field(min_length=2, max_length=40)] | None = None
    """Value -> clinical description; without `not_stated`, which every finding has."""
    number: NumberRange | None = None
    not_stated: NotStated

    @model_validator(mode="after")
    def _closed_or_number(self) -> Finding:
        if (self.values is None) == (self.number is None):
            raise ValueError("give either values or number")
        values = self.values or {}
        if NOT_STATED in values:
            raise ValueError("`not_stated` is implied: leave it out of the values")
        silence = self.not_stated
        if silence.reads_as is not None and silence.reads_as not in values:
            raise ValueError(f"not_stated.reads_as: no value {silence.reads_as!r}; there are: {', '.join(values)}")
        if silence.reads_as is None and (silence.unless is not None or silence.if_stated is not None):
            raise ValueError("not_stated: if_stated and unless make sense only with reads_as")
        if silence.prior is not None:
            unknown = sorted(set(silence.prior) - set(values))
            if unknown or abs(sum(silence.prior.values()) - 1) > 1e-9:
                raise ValueError("not_stated.prior must name values of the finding only, and sum to 1")
        return self

    @property
    def all_values(self) -> tuple[str, ...]:
        """The closed values and `not_stated`."""
        return (*(self.values or ()), NOT_STATED)


class PromptForms(_Model):
    """The same prompt twice: for a model as it comes, and (a few tokens) for one tuned on the plan."""

    instructed: PromptText
    compact: PromptText | None = None

    def form(self, name: Literal["instructed", "compact"]) -> str:
        """The prompt in this form; the instructed one where there is no compact one."""
        return self.compact if name == "compact" and self.compact is not None else self.instructed

    def check(self, slots: tuple[str, ...]) -> None:
        """Refuse templates that are more than text with these slots (ValueError)."""
        check_template(self.instructed, slots)
        if self.compact is not None:
            check_template(self.compact, slots)


class Subtask(_Model):
    """The small question that reads one finding, or collects a passage."""

    id: Name
    finding: Name | None = None
    """The finding it reads; None for `spans` and `text` that stand for themselves."""
    answer: Literal["choice", "number", "spans", "text"]
    prompt: PromptForms
    """Templates with the slots `labels`, `description`, `unit`."""
    labels: Mapping[ValueName, Line] = Field(default_factory=dict)
    """What the model writes for each value and for `not_stated`."""
    focus_terms: Annotated[tuple[Line, ...], Field(max_length=100)] = ()
    """Words by which the sentences are found that bear on it; a trailing `*` matches word endings."""
    max_tokens: Annotated[int, Field(ge=1, le=1024)] = 128
    """Longest written answer (`spans`, `text`)."""
    citation: Citation

    @model_validator(mode="after")
    def _prompt_is_inert(self) -> Subtask:
        self.prompt.check(QUESTION_SLOTS)
        if self.answer in ("choice", "number") and self.finding is None:
            raise ValueError(f"answer type {self.answer!r} needs a finding")
        if len(set(self.labels.values())) != len(self.labels):
            raise ValueError("two values have the same label")
        return self


class Outcome(_Model):
    """One possible result of the plan."""

    name: Name
    description: Line


class Rule(_Model):
    """One row of the decision table: the first whose condition holds decides."""

    id: Name
    when: Condition
    outcome: Name
    citation: Citation
    note: Line | None = None


class Flag(_Model):
    """A combination that a person has to see, whatever the outcome."""

    id: Name
    kind: Literal["contradiction", "caution"]
    when: Condition
    message: Line
    citation: Citation | None = None


class TermGroup(_Model):
    """Words of which a report in scope names at least one."""

    name: Name
    terms: Annotated[tuple[Line, ...], Field(min_length=1, max_length=100)]


class Scope(_Model):
    """Which reports the plan is for. A report outside is staged only with a flag; scope never decides a value."""

    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
    requires: tuple[TermGroup, ...] = ()
    excludes: Annotated[tuple[Line, ...], Field(max_length=100)] = ()
    """Phrases that say the plan's subject is absent."""
    competing: Annotated[tuple[Line, ...], Field(max_length=100)] = ()
    """Terms of other subjects a report may really be about."""


class ExecutionProfile(_Model):
    """How the subtasks are run; chosen in rehearsal."""

    head: PromptForms
    """Text before the report; slot `title`."""
    prompt_form: Literal["instructed", "compact"] = "instructed"
    context: Literal["full", "focused"] = "full"
    """Whole report, or only the sentences around focus terms."""
    review_below: Probability = 0.8
    """Decisions with a lower probability go to a person."""

    @model_validator(mode="after")
    def _head_is_inert(self) -> ExecutionProfile:
        self.head.check(HEAD_SLOTS)
        return self


class Accuracy(_Model):
    """A measured share with its 95 % Wilson interval."""

    n: Annotated[int, Field(ge=1)]
    correct: Annotated[int, Field(ge=0)]
    low: Probability
    high: Probability


class ValidationRecord(_Model):
    """One rehearsal of this plan with one model, on synthetic cases held out from its making."""

    measured_on: date
    plan_digest: Digest
    model: Line
    model_digest: Digest
    adapter_digest: Digest | None = None
    cases_digest: Digest
    outcome: Accuracy
    findings: Mapping[Name, Accuracy]


class Provenance(_Model):
    """Who made the plan."""

    origin: Literal["hand", "planner"]
    author: Line
    made_on: date
    model: Line | None = None
    note: Line | None = None


class Plan(_Model):
    """A guideline compiled into findings, subtasks and rules."""

    schema_version: Literal[1] = 1
    topic: Name
    title: Line
    guideline: GuidelineReference
    provenance: Provenance
    scope: Scope
    profile: ExecutionProfile
    outcomes: Annotated[tuple[Outcome, ...], Field(min_length=2, max_length=50)]
    options: Annotated[tuple[Option, ...], Field(max_length=50)] = ()
    findings: Annotated[tuple[Finding, ...], Field(min_length=1, max_length=200)]
    subtasks: Annotated[tuple[Subtask, ...], Field(min_length=1, max_length=300)]
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=500)]
    flags: Annotated[tuple[Flag, ...], Field(max_length=200)] = ()
    validation: tuple[ValidationRecord, ...] = ()

    @model_validator(mode="after")
    def _hangs_together(self) -> Plan:
        for what, names in (
            ("outcome", [outcome.name for outcome in self.outcomes]),
            ("option", [option.name for option in self.options]),
            ("finding", [finding.name for finding in self.findings]),
            ("subtask", [subtask.id for subtask in self.subtasks]),
            ("rule", [rule.id for rule in self.rules]),
            ("flag", [flag.id for flag in self.flags]),
        ):
            _refuse_repeats(what, names)
        self._check_subtasks()
        outcomes = {outcome.name for outcome in self.outcomes}
        for rule in self.rules:
            if rule.outcome not in outcomes:
                raise ValueError(
                    f"rule {rule.id!r}: unknown outcome {rule.outcome!r}; there are: {', '.join(outcomes)}"
                )
        try:
            self.decision_table  # noqa: B018 - compiles, and so checks every name in rules and silences
            self._check_flags()
        except PlanError as error:
            raise ValueError(str(error)) from None
        return self

    def _check_subtasks(self) -> None:
        findings = {finding.name: finding for finding in self.findings}
        read: set[str] = set()
        for subtask in self.subtasks:
            if subtask.finding is None:
                continue
            where = f"subtask {subtask.id!r}"
            finding = findings.get(subtask.finding)
            if finding is None:
                raise ValueError(f"{where}: unknown finding {subtask.finding!r}; there are: {', '.join(findings)}")
            if subtask.finding in read:
                raise ValueError(f"{where}: finding {subtask.finding!r} is read by another subtask already")
            read.add(subtask.finding)
            if subtask.answer not in (("choice",) if finding.values else ("number",)):
                raise ValueError(f"{where}: answer type {subtask.answer!r} does not fit finding {subtask.finding!r}")
            needed = set(finding.all_values) if finding.values else {NOT_STATED}
            if set(subtask.labels) != needed:
                raise ValueError(f"{where}: labels must be given for exactly these values: {', '.join(sorted(needed))}")
        unread = {name for rule in self.rules for name in findings_in(rule.when)} & (set(findings) - read)
        if unread:
            raise ValueError(f"no subtask reads these findings of the rules: {', '.join(sorted(unread))}")

    def _check_flags(self) -> None:
        as_rules = [DecisionRule(f"flag {flag.id}", "flag", flag.when) for flag in self.flags]
        check_rules(as_rules, self.domains, self.option_settings)

    @property
    def option_settings(self) -> dict[str, str]:
        """Option -> its setting."""
        return {option.name: option.setting for option in self.options}

    @property
    def domains(self) -> tuple[Domain, ...]:
        """The findings as the rules see them."""
        return tuple(
            Domain(
                finding.name,
                tuple(finding.values) if finding.values else None,
                Silence(finding.not_stated.reads_as, finding.not_stated.if_stated, finding.not_stated.unless),
                finding.not_stated.prior,
            )
            for finding in self.findings
        )

    @cached_property
    def decision_table(self) -> DecisionTable:
        """The rules, compiled."""
        rules = [DecisionRule(rule.id, rule.outcome, rule.when) for rule in self.rules]
        return DecisionTable(rules, self.domains, self.option_settings)

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of the content: formatting does not change it, and neither do validation records."""
        return content_digest(self.model_dump(mode="json", by_alias=True, exclude={"validation"}))

    def finding(self, name: str) -> Finding:
        """The finding of this name (KeyError if there is none)."""
        return {finding.name: finding for finding in self.findings}[name]

    def rule(self, rule_id: str) -> Rule:
        """The rule of this id (KeyError if there is none)."""
        return {rule.id: rule for rule in self.rules}[rule_id]

    def head(self) -> str:
        """The rendered text before the report."""
        return render_template(self.profile.head.form(self.profile.prompt_form), {"title": self.title})

    def question(self, subtask: Subtask) -> str:
        """The rendered question of a subtask, in the profile's prompt form."""
        finding = self.finding(subtask.finding) if subtask.finding else None
        slots = {
            "labels": "; ".join(subtask.labels.values()),
            "description": finding.description if finding else "",
            "unit": finding.number.unit if finding and finding.number else "",
        }
        return render_template(subtask.prompt.form(self.profile.prompt_form), slots)

    def subtask_digest(self, subtask: Subtask) -> str:
        """`sha256:…` of all in the plan that can change this subtask's answer: prompt, labels, focus terms, head."""
        finding = self.finding(subtask.finding) if subtask.finding else None
        return content_digest(
            {
                "head": self.head(),
                "question": self.question(subtask),
                "subtask": subtask.model_dump(mode="json", by_alias=True, exclude={"citation", "prompt"}),
                "finding": finding.model_dump(mode="json", include={"values", "number"}) if finding else None,
                "context": self.profile.context,
            }
        )


def _refuse_repeats(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{what} defined twice: {', '.join(repeated)}")


def content_digest(content: object) -> str:
    """`sha256:…` of JSON-ready data, in a canonical form."""
    canonical = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def read_plan(source: str | Path) -> Plan:
    """Read and check a plan.

    Args:
        source: name of a topic that comes with the library (`pancreatic_cancer`), or path of a plan file.

    Raises:
        PlanError: not there, not readable, or not a valid plan; names file and place.
    """
    path = Path(source)
    if is_topic_name(str(source)) and not path.is_file():
        path = guideline_folder(str(source)) / "plan.yaml"
        if not path.is_file():
            raise PlanError(f"no plan {str(source)!r}: neither a file nor one of the topics: {', '.join(topics())}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PlanError(f"{path}: not a text file in UTF-8") from None
    return parse_plan(text, where=str(path))


def parse_plan(text: str, *, where: str = "plan") -> Plan:
    """The plan in this YAML text; `where` names it in errors.

    Raises:
        PlanError: not a valid plan.
    """
    try:
        content = parse_plan_yaml(text)
        if not isinstance(content, dict):
            raise PlanError("not a plan: the top level must be a mapping")
        return Plan.model_validate(content)
    except PlanError as error:
        raise PlanError(f"{where}: {error}") from None
    except ValidationError as error:
        raise PlanError(_describe(error, where)) from None
    except RecursionError:
        raise PlanError(f"{where}: nested too deeply") from None


def _describe(error: ValidationError, where: str, most: int = 8) -> str:
    """One line for each place that is wrong."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{where}: {len(found)} place{'s' if len(found) != 1 else ''} to mend"]
    for place in found[:most]:
        location = ".".join(str(part) for part in place["loc"]) or "plan"
        lines.append(f"  {location}: {place['msg'].removeprefix('Value error, ')}")
    if len(found) > most:
        lines.append(f"  … and {len(found) - most} more")
    return "\n".join(lines)


def write_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan as YAML that `read_plan` reads back to an equal plan with the same digest.

    Raises:
        PlanError: the file cannot be written.
    """
    try:
        Path(path).write_text(format_plan(plan), encoding="utf-8")
    except OSError as error:
        raise PlanError(f"{path}: cannot be written: {error.strerror}") from None


def format_plan(plan: Plan) -> str:
    """The plan as YAML text."""
    content = plan.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return dump_plan_yaml({"schema_version": plan.schema_version} | content)
