"""THE CONTRACT: a plan is data, readable by a clinician, and the only thing that crosses the privacy boundary.

Frozen models that refuse unknown fields; a digest that does not depend on formatting. Making a plan checks everything
that can be checked without a model: names, values, templates, sizes, rules. It runs no code from the plan. The pieces
are in `plan_pieces`, reading and writing in `plan_files`. Knows nothing of reports, models or networks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medorchestra.decision_diagram import DecisionTable
from medorchestra.errors import PlanError, RuleError
from medorchestra.plan_pieces import (
    Accuracy,
    Calibration,
    Citation,
    Example,
    ExecutionProfile,
    Finding,
    Flag,
    GuidelineReference,
    Line,
    Name,
    NotStated,
    NumberRange,
    Option,
    Outcome,
    Part,
    PlanPiece,
    PromptForms,
    Provenance,
    Rule,
    Scope,
    Subtask,
    TermGroup,
    Undecidable,
    ValidationRecord,
)
from medorchestra.rules import (
    NOT_STATED,
    Condition,
    DecisionRule,
    Domain,
    Numbers,
    Silence,
    check_rules,
    expand_parts,
    findings_in,
)
from medorchestra.templates import render_template

__all__ = [
    "Accuracy",
    "Calibration",
    "Citation",
    "Example",
    "ExecutionProfile",
    "Finding",
    "Flag",
    "GuidelineReference",
    "NotStated",
    "NumberRange",
    "Option",
    "Outcome",
    "Part",
    "Plan",
    "PromptForms",
    "Provenance",
    "Rule",
    "Scope",
    "Subtask",
    "TermGroup",
    "Undecidable",
    "ValidationRecord",
    "content_digest",
]


class Plan(PlanPiece):
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
    parts: Annotated[tuple[Part, ...], Field(max_length=20)] = ()
    """Decisions before the final one, in order."""
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=500)]
    """Of the final decision."""
    undecidable: Annotated[tuple[Undecidable, ...], Field(max_length=50)] = ()
    """Combinations that no rule is meant to decide."""
    flags: Annotated[tuple[Flag, ...], Field(max_length=200)] = ()
    validation: tuple[ValidationRecord, ...] = ()
    calibrations: tuple[Calibration, ...] = ()

    @model_validator(mode="after")
    def _hangs_together(self) -> Plan:
        for what, names in (
            ("outcome", [outcome.name for outcome in self.outcomes]),
            ("option", [option.name for option in self.options]),
            ("finding", [finding.name for finding in self.findings]),
            ("subtask", [subtask.id for subtask in self.subtasks]),
            ("part", [part.name for part in self.parts]),
            ("rule", [rule.id for rule in self.all_rules]),
            ("flag", [flag.id for flag in self.flags]),
        ):
            _refuse_repeats(what, names)
        for part in self.parts:
            _refuse_repeats(f"part {part.name!r}: outcome", [outcome.name for outcome in part.outcomes])
            _check_outcomes(part.rules, part.outcomes)
        _check_outcomes(self.rules, self.outcomes)
        try:
            self.decision_table, self.part_tables  # noqa: B018 - compiles, and so checks every name
            self._check_subtasks()
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
        unread = {name for rule in self._final_rules for name in findings_in(rule.when)}
        unread |= {name for rules in self._part_rules.values() for rule in rules for name in findings_in(rule.when)}
        unread -= read
        if unread:
            raise ValueError(f"no subtask reads these findings of the rules: {', '.join(sorted(unread))}")

    def _check_flags(self) -> None:
        as_rules = [DecisionRule(f"flag {flag.id}", "flag", when) for flag, when in self.expanded_flags]
        as_rules += [
            DecisionRule(f"undecidable {i}", "none", self.expanded(one.when)) for i, one in enumerate(self.undecidable)
        ]
        check_rules(as_rules, self.domains, self.option_settings)

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        """The rules of all parts, in order, then those of the final decision."""
        return (*(rule for part in self.parts for rule in part.rules), *self.rules)

    @cached_property
    def _part_rules(self) -> dict[str, list[DecisionRule]]:
        expanded: dict[str, list[DecisionRule]] = {}
        for part in self.parts:
            expanded[part.name] = _expanded_rules(part.rules, expanded)
        return expanded

    @property
    def _final_rules(self) -> list[DecisionRule]:
        return _expanded_rules(self.rules, self._part_rules)

    def expanded(self, condition: Condition) -> Condition:
        """The condition over findings alone, whatever parts it asks."""
        return expand_parts(condition, self._part_rules)

    @cached_property
    def expanded_flags(self) -> tuple[tuple[Flag, Condition], ...]:
        """Each flag with its condition over findings alone."""
        return tuple((flag, self.expanded(flag.when)) for flag in self.flags)

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
                finding.number.numbers if finding.number else Numbers(),
            )
            for finding in self.findings
        )

    @cached_property
    def decision_table(self) -> DecisionTable:
        """The rules of the final decision, compiled."""
        return DecisionTable(self._final_rules, self.domains, self.option_settings)

    @cached_property
    def part_tables(self) -> dict[str, DecisionTable]:
        """Part -> its rules, compiled."""
        settings = self.option_settings
        return {name: DecisionTable(rules, self.domains, settings) for name, rules in self._part_rules.items()}

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of the content: formatting does not change it, and neither does what was measured with models."""
        return content_digest(self.model_dump(mode="json", by_alias=True, exclude={"validation", "calibrations"}))

    @cached_property
    def questions_digest(self) -> str:
        """`sha256:…` of all questions, as they are asked: what an adapter is trained for. Rules play no part."""
        return content_digest([self.subtask_digest(subtask) for subtask in self.subtasks])

    def validation_for(self, model_digest: str, adapter_digest: str | None) -> ValidationRecord | None:
        """The newest rehearsal of this very plan with this model and adapter, or None."""
        fitting = [
            record
            for record in self.validation
            if (record.plan_digest, record.model_digest, record.adapter_digest)
            == (self.digest, model_digest, adapter_digest)
        ]
        return max(fitting, key=lambda record: record.measured_on, default=None)

    def calibration_for(self, model_digest: str, adapter_digest: str | None) -> Calibration | None:
        """The calibration of this very plan with this model and adapter: local labels before synthetic, the newest."""
        fitting = [
            one
            for one in self.calibrations
            if (one.plan_digest, one.model_digest, one.adapter_digest) == (self.digest, model_digest, adapter_digest)
        ]
        return max(fitting, key=lambda one: (one.labels == "local", one.made_on), default=None)

    def deciding_accuracy(self, record: ValidationRecord) -> Accuracy | None:
        """On which number it rests whether the pair of this record reads well enough.

        What nobody would look at: where a hospital has calibrated the pair on its own labels, of those (None where its
        threshold leaves nothing); else of the held-out cases.
        """
        calibration = self.calibration_for(record.model_digest, record.adapter_digest)
        if calibration is not None and calibration.labels == "local":
            return calibration.unreviewed
        return record.deciding

    def is_well_read(self, record: ValidationRecord) -> bool:
        """Whether the pair of this record needs no person for every decision.

        The lower bound of what was right has to reach the plan's own threshold for review.
        """
        measured = self.deciding_accuracy(record)
        return measured is not None and measured.low >= self.profile.review_below

    def finding(self, name: str) -> Finding:
        """The finding of this name (KeyError if there is none)."""
        return self._findings_by_name[name]

    @cached_property
    def _findings_by_name(self) -> dict[str, Finding]:
        return {finding.name: finding for finding in self.findings}

    def rule(self, rule_id: str) -> Rule:
        """The rule of this id, of a part or of the final decision (KeyError if there is none)."""
        return self._rules_by_id[rule_id]

    @cached_property
    def _rules_by_id(self) -> dict[str, Rule]:
        return {rule.id: rule for rule in self.all_rules}

    @cached_property
    def findings_of_rules(self) -> dict[str, tuple[str, ...]]:
        """Rule -> the findings that it looks at, by way of parts too."""
        return {rule.id: findings_in(self.expanded(rule.when)) for rule in self.all_rules}

    @cached_property
    def findings_asked(self) -> frozenset[str]:
        """The findings that a subtask reads."""
        return frozenset(subtask.finding for subtask in self.subtasks if subtask.finding)

    @cached_property
    def answer_kinds(self) -> dict[str, str]:
        """Subtask -> its type of answer."""
        return {subtask.id: subtask.answer for subtask in self.subtasks}

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
            "examples": "\n".join(
                f"{example.text} => {subtask.labels[example.value]}"
                for example in subtask.examples[: self.profile.examples]
            ),
        }
        return render_template(subtask.prompt.form(self.profile.prompt_form), slots)

    def subtask_digest(self, subtask: Subtask) -> str:
        """`sha256:…` of all in the plan that can change this subtask's answer: prompt, labels, focus terms, head."""
        finding = self.finding(subtask.finding) if subtask.finding else None
        return content_digest(
            {
                "head": self.head(),
                "question": self.question(subtask),
                "subtask": subtask.model_dump(mode="json", by_alias=True, exclude={"citation", "prompt", "examples"}),
                "finding": finding.model_dump(mode="json", include={"values", "number"}) if finding else None,
                "context": self.profile.context,
            }
        )


def _expanded_rules(rules: Sequence[Rule], parts: Mapping[str, Sequence[DecisionRule]]) -> list[DecisionRule]:
    expanded = []
    for rule in rules:
        try:
            expanded.append(DecisionRule(rule.id, rule.outcome, expand_parts(rule.when, parts)))
        except RuleError as error:
            raise RuleError(f"rule {rule.id!r}: {error}") from None
    return expanded


def _check_outcomes(rules: Sequence[Rule], outcomes: Sequence[Outcome]) -> None:
    names = {outcome.name for outcome in outcomes}
    for rule in rules:
        if rule.outcome not in names:
            raise ValueError(f"rule {rule.id!r}: unknown outcome {rule.outcome!r}; there are: {', '.join(names)}")


def _refuse_repeats(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{what} defined twice: {', '.join(repeated)}")


def content_digest(content: object) -> str:
    """`sha256:…` of JSON-ready data, in a canonical form."""
    canonical = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
