"""A plan in the words of the page that a clinician signs. Holds no markup (templates and style sheet: `plan_html/`).

Tells what the plan says and what a reader of it must not overlook; decides nothing and measures nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from medorchestra.plan import Accuracy, Calibration, Citation, Finding, Option, Plan, Rule, Subtask, ValidationRecord
from medorchestra.plan_views.cited_sections import CitedSection, Citer, Quote, Sections, cited_sections
from medorchestra.plan_views.condition_cells import RuleTable, rule_table
from medorchestra.plan_views.condition_text import (
    condition_clauses,
    condition_text,
    finding_titles,
    part_titles,
    prior_text,
    silence_text,
    spoken,
    unit_of,
    value_text,
    with_options,
)
from medorchestra.plan_views.validation_text import (
    NONE_LEFT,
    UNREVIEWED,
    adapter_text,
    calibration_source,
    calibration_text,
    deciding_share,
    is_measured_before,
    well_read_text,
)
from medorchestra.plan_views.watched_text import WatchedPlace, watched_places
from medorchestra.rules import Condition, OptionIs, findings_in, leaves_of
from medorchestra.synthetic import SPLITS, SyntheticCase

DISCLAIMER = "medorchestra supports clinicians and researchers; it is not a certified medical device."

MOST_PLACES = 20
"""Places in prompts that the list at the top names; all are marked where they stand."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to look at before signing.

    Attributes:
        weight: an alarm, something to look at, or good news.
        text: what it is.
        target: id of the place on the page.
        more: the places, one by one.
    """

    weight: Literal["alarm", "look", "fine"]
    text: str
    target: str
    more: tuple[str, ...] = ()


_WEIGHTS = ("alarm", "look", "fine")


@dataclass(frozen=True, slots=True)
class Decision:
    """The final decision or a part of it: its title, the id of its place on the page, its outcomes and its rules."""

    title: str
    anchor: str
    name: str | None
    outcomes: tuple[tuple[str, str], ...]
    table: RuleTable


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a finding: name, clinical description, what the model writes for it, cases that have it."""

    name: str
    description: str
    label: str | None
    cases: int | None


@dataclass(frozen=True, slots=True)
class Score:
    """One measured share, or None where there is none, and then why."""

    title: str
    name: str | None
    accuracy: Accuracy | None
    absent: str = "not measured"


class PlanPage:
    """One plan in the words of its template.

    Args:
        plan: the plan.
        sections: of its guideline; empty where the text is not at hand.
        cases: synthetic cases of the plan; may be none.
        guideline_digest: of the text that the sections are from; None: not known.
    """

    def __init__(
        self,
        plan: Plan,
        sections: Sections,
        *,
        cases: Sequence[SyntheticCase] = (),
        guideline_digest: str | None = None,
    ) -> None:
        self.plan = plan
        self.sections = sections
        self.cases = tuple(cases)
        self.other_guideline = guideline_digest is not None and guideline_digest != plan.guideline.digest
        self.titles = finding_titles(plan)
        self.part_titles = part_titles(plan)
        self.digest = plan.digest
        self._subtasks = {subtask.finding: subtask for subtask in plan.subtasks if subtask.finding}

    # What it is

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The parts in order, then the final decision."""
        plan = self.plan
        parts = [
            Decision(
                part.title,
                f"part-{part.name}",
                part.name,
                tuple((outcome.name, outcome.description) for outcome in part.outcomes),
                rule_table(part.rules, plan),
            )
            for part in plan.parts
        ]
        outcomes = tuple((outcome.name, outcome.description) for outcome in plan.outcomes)
        return (*parts, Decision("Final decision", "part-final", None, outcomes, rule_table(plan.rules, plan)))

    @cached_property
    def cited(self) -> tuple[CitedSection, ...]:
        """The guideline with the plan's quotes."""
        return cited_sections(self.plan, self.sections)

    @cached_property
    def watched(self) -> list[WatchedPlace]:
        """Places in the texts for the model that the reader must see."""
        return watched_places(self.plan)

    @cached_property
    def lost_quotes(self) -> list[tuple[CitedSection, Quote]]:
        """Quotes that do not stand where the plan says; empty without the guideline's text."""
        if not self.sections:
            return []
        return [(section, quote) for section in self.cited for quote in section.quotes if not quote.found]

    @cached_property
    def uncited(self) -> list[CitedSection]:
        """Sections with text on which nothing in the plan rests."""
        return [section for section in self.cited if section.known and section.has_text and not section.quotes]

    @property
    def current_records(self) -> list[ValidationRecord]:
        """Validation records of this very plan, the newest first."""
        fitting = [record for record in self.plan.validation if record.plan_digest == self.digest]
        return sorted(fitting, key=lambda record: record.measured_on, reverse=True)

    @property
    def old_records(self) -> list[ValidationRecord]:
        """Validation records of other versions of the plan: they say nothing of this one."""
        return [record for record in self.plan.validation if record.plan_digest != self.digest]

    def calibration_of(self, record: ValidationRecord) -> Calibration | None:
        """The calibration by which this plan decides with the model and adapter of one of its current records."""
        return self.plan.calibration_for(record.model_digest, record.adapter_digest)

    def calibration_told(self, record: ValidationRecord, *, brief: bool = False) -> str:
        """The same in words, and whether the record is older; brief: only on what it was fitted."""
        calibration = self.calibration_of(record)
        if calibration is None:
            return "none"
        newer = "; made after this record, which knows nothing of it" if is_measured_before(record, calibration) else ""
        return (calibration_source(calibration) if brief else calibration_text(calibration)) + newer

    @property
    def unproven_calibrations(self) -> list[Calibration]:
        """Calibrations of this very plan whose model and adapter have no validation record of it."""
        proven = {(record.model_digest, record.adapter_digest) for record in self.current_records}
        return [
            one
            for one in self.plan.calibrations
            if one.plan_digest == self.digest and (one.model_digest, one.adapter_digest) not in proven
        ]

    # What to look at

    @property
    def notices(self) -> list[Notice]:
        """What to look at before signing, the weightiest first."""
        notices = [*self._notices_of_citations(), self._notice_of_validation(), self._notice_of_prompts()]
        never = [
            f"{spoken(name)} ({decision.title})"
            for decision in self.decisions
            for name, _ in decision.outcomes
            if name not in {row.rule.outcome for row in decision.table.rows}
        ]
        if never:
            text = f"{_count(len(never), 'outcome')} that no rule gives"
            notices.append(Notice("look", text, "outcomes", tuple(never)))
        if self.cases and (bare := [rule.id for rule in self.plan.all_rules if not self.cases_of(rule.id)]):
            text = f"{_count(len(bare), 'rule')} by which no synthetic case is decided"
            notices.append(Notice("look", text, "decision", tuple(bare)))
        return sorted(notices, key=lambda notice: _WEIGHTS.index(notice.weight))

    def _notices_of_citations(self) -> list[Notice]:
        if not self.sections:
            text = "The guideline's text is not at hand: no citation could be compared with it."
            return [Notice("look", text, "guideline")]
        notices = []
        if self.other_guideline:
            text = "The guideline's text shown here is not the one the plan was made from: its digest is another."
            notices.append(Notice("alarm", text, "guideline"))
        total = sum(len(section.quotes) for section in self.cited)
        if self.lost_quotes:
            where = tuple(f"{section.number}: “{quote.text}”" for section, quote in self.lost_quotes)
            text = f"{len(self.lost_quotes)} of {total} quotes do not stand in the guideline where the plan says"
            notices.append(Notice("alarm", text, "guideline", where))
        else:
            text = f"All {total} quotes stand word for word in the sections that the plan names."
            notices.append(Notice("fine", text, "guideline"))
        if self.uncited:
            text = f"{_count(len(self.uncited), 'section')} of the guideline that nothing in the plan cites"
            more = tuple(f"{section.number} {section.title}" for section in self.uncited)
            notices.append(Notice("look", text, "guideline", more))
        return notices

    def _notice_of_validation(self) -> Notice:
        records = self.current_records
        if records:
            models = tuple(
                f"{record.model}, {adapter_text(record.adapter_digest)}, {record.measured_on}: "
                f"{deciding_share(record, self.plan)} right; {well_read_text(record, self.plan)}; "
                f"calibration: {self.calibration_told(record, brief=True)}"
                for record in records
            )
            text = f"{_count(len(records), 'validation record')} of this very plan"
            if any(self.plan.is_well_read(record) for record in records):
                return Notice("fine", text, "validation", models)
            return Notice("look", f"{text}, and no model that reads well enough", "validation", models)
        if self.plan.validation:
            return Notice("look", "No validation record of this version of the plan, only of others.", "validation")
        return Notice("look", "No validation record: no model has been measured on this plan.", "validation")

    def _notice_of_prompts(self) -> Notice:
        places = self.watched
        if not places:
            text = "No address, talk of sending or hidden character was found in what the plan tells the model."
            return Notice("fine", text, "questions")
        text = f"{_count(len(places), 'place')} in what the plan tells the model to look at closely"
        more = [f"{place.where}: “{place.text}” ({place.kind})" for place in places[:MOST_PLACES]]
        if len(places) > MOST_PLACES:
            more.append(f"and {len(places) - MOST_PLACES} more, marked below")
        return Notice("alarm", text, "questions", tuple(more))

    # Words

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Id and title of the page's sections."""
        options = [("options", "Options")] if self.plan.options else []
        undecided = [("undecidable", "Left undecided")] if self.plan.undecidable else []
        return [
            ("outcomes", "Outcomes"),
            ("decision", "How it decides"),
            *options,
            *undecided,
            ("flags", "Flags"),
            ("guideline", "The guideline, side by side"),
            ("questions", "Findings and questions"),
            ("scope", "Scope"),
            ("validation", "Validation"),
            ("signature", "Signature"),
        ]

    def when(self, condition: Condition) -> str:
        """A condition as a sentence."""
        return condition_text(condition, self.plan)

    def clauses(self, condition: Condition) -> tuple[str, tuple[str, ...]]:
        """A condition as a list."""
        return condition_clauses(condition, self.plan)

    def silence(self, finding: Finding) -> str:
        """What silence means."""
        return silence_text(finding, self.plan)

    def prior(self, finding: Finding) -> str:
        """Weights where the truth is unknown."""
        return prior_text(finding)

    def numbers(self, finding: Finding) -> str:
        """The range of a number, with its unit; empty for closed values."""
        if finding.number is None:
            return ""
        told = f"{finding.number.minimum:g} to {finding.number.maximum:g} {unit_of(finding.name, self.plan)}".strip()
        return f"{told}, whole numbers" if finding.number.numbers.whole else told

    # What hangs together

    def subtask_of(self, finding: Finding) -> Subtask | None:
        """The subtask that reads a finding."""
        return self._subtasks.get(finding.name)

    @property
    def loose_subtasks(self) -> list[Subtask]:
        """Subtasks that collect a passage and read no finding."""
        return [subtask for subtask in self.plan.subtasks if subtask.finding is None]

    def values(self, finding: Finding) -> list[Value]:
        """The values of a finding, `not_stated` last."""
        subtask = self.subtask_of(finding)
        labels = subtask.labels if subtask else {}
        seen: Counter[object] = Counter(case.known().get(finding.name) for case in self.cases)
        among = tuple(finding.values or ())
        rows = [
            Value(value_text(value, among), text, labels.get(value), seen[value] if self.cases else None)
            for value, text in (finding.values or {}).items()
        ]
        if finding.number is not None:
            numbers = sum(count for value, count in seen.items() if isinstance(value, float | int))
            rows.append(Value("a number", f"From {self.numbers(finding)}.", None, numbers if self.cases else None))
        silent = seen["not_stated"] if self.cases else None
        return [*rows, Value("not stated", "", labels.get("not_stated"), silent)]

    def asked_by(self, finding: Finding) -> list[tuple[str, str]]:
        """Id on the page and name of the rules, flags and silences that look at a finding."""
        found = [(f"rule-{rule.id}", rule.id) for rule in self.plan.all_rules if finding.name in findings_in(rule.when)]
        found += [(f"flag-{flag.id}", flag.id) for flag in self.plan.flags if finding.name in findings_in(flag.when)]
        found += [
            (f"finding-{domain.finding}", f"silence on {self.titles[domain.finding]}")
            for domain in self.plan.domains
            if finding.name in domain.silence.looks_at
        ]
        return found

    def rules_of_option(self, option: Option) -> list[tuple[Rule, list[tuple[str, str]]]]:
        """Rules that ask an option: what is left of their condition with each of its choices, the others as set."""
        found = []
        for rule in self.plan.all_rules:
            if not any(isinstance(leaf, OptionIs) and leaf.option == option.name for leaf in leaves_of(rule.when)):
                continue
            effects = []
            for choice in option.choices:
                left = with_options(rule.when, self.plan.option_settings | {option.name: choice})
                told = ("holds always" if left else "switched off") if isinstance(left, bool) else self.when(left)
                effects.append((choice, told))
            found.append((rule, effects))
        return found

    def is_lost(self, citation: Citation) -> bool:
        """Whether the guideline's text is at hand and does not have the quote where the citation says."""
        return any(citation == citer.citation for _, quote in self.lost_quotes for citer in quote.citers)

    def kind_of(self, citer: Citer) -> str:
        """What cites, in a word."""
        return "question" if citer.kind == "subtask" else citer.kind

    def anchor_of(self, citer: Citer) -> str:
        """Id of its place on the page."""
        return f"{citer.kind}-{citer.name}"

    def cites(self, citer: Citer) -> str:
        """What a citer says, in a few words."""
        if citer.kind == "rule":
            rule = self.plan.rule(citer.name)
            return f"{self.when(rule.when)} → {spoken(rule.outcome)}"
        if citer.kind == "flag":
            return next(flag.message for flag in self.plan.flags if flag.id == citer.name)
        subtask = next(subtask for subtask in self.plan.subtasks if subtask.id == citer.name)
        return self.titles[subtask.finding] if subtask.finding else spoken(subtask.id)

    # Cases and scores

    def cases_of(self, rule_id: str) -> int:
        """Synthetic cases that a rule decides, in the final decision or in its part."""
        return self._decided_by[rule_id]

    @cached_property
    def _decided_by(self) -> Counter[str]:
        counted: Counter[str] = Counter(case.rule for case in self.cases if case.rule is not None)
        for table in self.plan.part_tables.values():
            counted.update(rule for case in self.cases if (rule := table.decide(case.known()).rule) is not None)
        return counted

    @property
    def case_counts(self) -> list[tuple[str, dict[str, int]]]:
        """Outcome (then open ones) -> cases in each split."""
        names: list[str | None] = [*(outcome.name for outcome in self.plan.outcomes), None]
        counted = Counter((case.outcome, case.split) for case in self.cases)
        rows = [
            ("open" if name is None else name, {str(split): counted[name, split] for split in SPLITS}) for name in names
        ]
        return [(name, row) for name, row in rows if any(row.values()) or name != "open"]

    @property
    def examples(self) -> list[tuple[Rule, SyntheticCase]]:
        """For each rule of the final decision the shortest development case that it decides."""
        shown = []
        for rule in self.plan.rules:
            fitting = [case for case in self.cases if case.rule == rule.id and case.split == "development"]
            if fitting:
                shown.append((rule, min(fitting, key=lambda case: (len(case.text), case.id))))
        return shown

    def scores(self, record: ValidationRecord) -> list[Score]:
        """The outcome first, of all and of those that nobody would look at; then every finding in the plan's order."""
        named = {finding.name: record.findings.get(finding.name) for finding in self.plan.findings}
        others = {name: accuracy for name, accuracy in record.findings.items() if name not in named}
        rows = [Score(self.titles.get(name, spoken(name)), name, one) for name, one in (named | others).items()]
        unreviewed = Score(UNREVIEWED.removeprefix("the ").capitalize(), None, record.unreviewed, NONE_LEFT)
        return [Score("All outcomes", None, record.outcome), unreviewed, *rows]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
