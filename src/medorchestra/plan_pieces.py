"""The pieces a plan is made of: findings, subtasks, rules, options, flags, scope, profile, records. Frozen, and strict.

Each piece checks itself; how the pieces hang together is checked by `Plan`. Import them from `medorchestra.plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from medorchestra.plan_yaml import is_yaml_text
from medorchestra.rules import NOT_STATED, Condition, Numbers
from medorchestra.templates import HEAD_SLOTS, QUESTION_SLOTS, check_template

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
OutcomeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]
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


class PlanPiece(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed (unchecked, as in pydantic), without what was worked out from the old."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            for name in copied.__dict__.keys() - type(self).model_fields.keys():
                del copied.__dict__[name]  # a cached digest or table of the original
        return copied


class Citation(PlanPiece):
    """A place in the guideline, with its words."""

    section: Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)*$")]
    """Number of the section, as in the guideline's heading."""
    quote: Line
    """Verbatim from that section."""


class GuidelineReference(PlanPiece):
    """Which text the plan was made from."""

    title: Line
    edition: Line
    digest: Digest
    """Of the guideline file's text."""


class Option(PlanPiece):
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


class NotStated(PlanPiece):
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


class NumberRange(PlanPiece):
    """A finding that is a number."""

    unit: Literal["cm", "mm", "count", "percent", "unit_per_ml"]
    minimum: float
    maximum: float

    @model_validator(mode="after")
    def _holds_a_number(self) -> NumberRange:
        if self.minimum >= self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is not below maximum {self.maximum:g}")
        return self

    @property
    def numbers(self) -> Numbers:
        """The numbers there are, as the rules see them: counts are whole."""
        return Numbers(self.minimum, self.maximum, whole=self.unit == "count")


class Finding(PlanPiece):
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


class PromptForms(PlanPiece):
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


class Example(PlanPiece):
    """A solved example for a prompt, out of a synthetic development case."""

    case: Line
    """Id of the case."""
    text: Line
    """Verbatim from it."""
    value: ValueName


class Subtask(PlanPiece):
    """The small question that reads one finding, or collects a passage."""

    id: Name
    finding: Name | None = None
    """The finding it reads; None for `spans` and `text` that stand for themselves."""
    answer: Literal["choice", "number", "spans", "text"]
    prompt: PromptForms
    """Templates with the slots `labels`, `description`, `unit`, `examples`."""
    labels: Mapping[ValueName, Line] = Field(default_factory=dict)
    """What the model writes for each value and for `not_stated`."""
    focus_terms: Annotated[tuple[Line, ...], Field(max_length=100)] = ()
    """Words by which the sentences are found that bear on it; a trailing `*` matches word endings."""
    examples: Annotated[tuple[Example, ...], Field(max_length=20)] = ()
    """Solved examples, best first; the profile says how many are shown."""
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
        foreign = sorted({example.value for example in self.examples} - set(self.labels))
        if foreign:
            raise ValueError(f"examples of values without a label: {', '.join(foreign)}")
        return self


class Outcome(PlanPiece):
    """One possible result of the plan."""

    name: OutcomeName
    description: Line


class Rule(PlanPiece):
    """One row of the decision table: the first whose condition holds decides."""

    id: Name
    when: Condition
    outcome: OutcomeName
    citation: Citation
    note: Line | None = None


class Part(PlanPiece):
    """A decision of its own (T, N or M), reported beside the final one; later parts and the final rules may ask it."""

    name: Name
    title: Line
    outcomes: Annotated[tuple[Outcome, ...], Field(min_length=2, max_length=50)]
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=200)]


class Undecidable(PlanPiece):
    """A combination of stated findings that the guideline leaves without an outcome, on purpose."""

    when: Condition
    why: Line


class Flag(PlanPiece):
    """A combination that a person has to see, whatever the outcome."""

    id: Name
    kind: Literal["contradiction", "caution"]
    when: Condition
    message: Line
    citation: Citation | None = None


class TermGroup(PlanPiece):
    """Words of which a report in scope names at least one."""

    name: Name
    terms: Annotated[tuple[Line, ...], Field(min_length=1, max_length=100)]


class Scope(PlanPiece):
    """Which reports the plan is for. A report outside is staged only with a flag; scope never decides a value."""

    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
    requires: tuple[TermGroup, ...] = ()
    excludes: Annotated[tuple[Line, ...], Field(max_length=100)] = ()
    """Phrases that say the plan's subject is absent."""
    competing: Annotated[tuple[Line, ...], Field(max_length=100)] = ()
    """Terms of other subjects a report may really be about."""


class ExecutionProfile(PlanPiece):
    """How the subtasks are run; chosen in rehearsal."""

    head: PromptForms
    """Text before the report; slot `title`."""
    prompt_form: Literal["instructed", "compact"] = "instructed"
    context: Literal["full", "focused"] = "full"
    """Whole report, or only the sentences around focus terms."""
    examples: Annotated[int, Field(ge=0, le=20)] = 0
    """How many solved examples an instructed prompt shows."""
    review_below: Probability = 0.8
    """Decisions with a lower probability go to a person."""

    @model_validator(mode="after")
    def _head_is_inert(self) -> ExecutionProfile:
        self.head.check(HEAD_SLOTS)
        return self


class Accuracy(PlanPiece):
    """A measured share with its 95 % Wilson interval."""

    n: Annotated[int, Field(ge=1)]
    correct: Annotated[int, Field(ge=0)]
    low: Probability
    high: Probability


class ValidationRecord(PlanPiece):
    """One rehearsal of this plan with one model, on synthetic cases held out from its making."""

    measured_on: date
    plan_digest: Digest
    model: Line
    model_digest: Digest
    adapter_digest: Digest | None = None
    cases_digest: Digest
    outcome: Accuracy
    unreviewed: Accuracy | None = None
    """Of the outcomes that nothing sent to a person; None where there was none, or an older record did not count it."""
    findings: Mapping[Name, Accuracy]

    @property
    def deciding(self) -> Accuracy:
        """On which it rests whether the model reads well enough: what nobody would look at; of an older record, all."""
        return self.unreviewed or self.outcome


class Calibration(PlanPiece):
    """What makes the probabilities of one model on this plan mean what they say; fitted on labelled reports."""

    made_on: date
    plan_digest: Digest
    model_digest: Digest
    adapter_digest: Digest | None = None
    labels: Literal["synthetic", "local"]
    """Synthetic cases of the calibration split, or a hospital's own labelled reports."""
    n: Annotated[int, Field(ge=1)]
    """Labelled reports."""
    labels_digest: Digest
    temperatures: Mapping[Name, Annotated[float, Field(gt=0, le=100)]]
    """Finding -> what its logits are divided by; 1 for a finding that is not named."""
    risk: Probability
    """Share of wrong outcomes accepted among those that nobody looks at."""
    review_below: Probability
    """Decisions with a lower probability go to a person; at 1 all do: no threshold held the risk."""
    unreviewed: Accuracy | None = None
    """Of the outcomes that this threshold leaves to nobody, on the labels it was chosen on; None: it leaves none."""
    set_coverage: Probability | None = None
    """Share of reports whose set of outcomes shall hold the true one; None: no sets are given."""
    set_floor: Probability | None = None
    """Probability from which an outcome is in that set; None: too few labels, every outcome is in it."""


class Provenance(PlanPiece):
    """Who made the plan."""

    origin: Literal["hand", "planner"]
    author: Line
    made_on: date
    model: Line | None = None
    note: Line | None = None
