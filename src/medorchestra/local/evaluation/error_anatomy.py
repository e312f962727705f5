"""Why decisions are wrong: the rules are asked again with findings put right, and what mends a decision was its error.

Needs labelled findings and the answers behind a run; asks no model. `decide` is the only judge: no cause is told that
does not change its decision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations

from medorchestra.local.aggregator import Decision, decide
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.evaluation.measures import Share, share_of
from medorchestra.local.evaluation.predictions import NO_DECISION, LabelledCase, Prediction, StrategyRun
from medorchestra.plan import Plan, Subtask
from medorchestra.rehearsal_scores import SAME_NUMBER
from medorchestra.rules import NOT_STATED, findings_in

CERTAIN = 1 - 1e-9
"""Probability from which a value counts as certain: putting it right changes nothing."""
_SCOPE = "scope:"
"""How reasons for review begin that doubt whether the plan is for this report."""


class ErrorKind(StrEnum):
    """What made a decision wrong."""

    FINDING_MISREAD = "finding_misread"
    """A stated value was read as another one; or several findings were read wrong, each in its own way."""
    FINDING_MISSED = "finding_missed"
    """Read as not stated though the report states it."""
    FINDING_INVENTED = "finding_invented"
    """Read as stated though the report is silent."""
    FINDING_UNSURE = "finding_unsure"
    """Read right, but so unsurely that another outcome became more probable."""
    UNREADABLE = "unreadable"
    """No answer could be read: of the whole report, or of the findings that would mend the decision."""
    SYNTHESIS = "synthesis"
    """The rules make another outcome of the same answers: the error lies in what else made the decision."""
    WRONG_EXAM = "wrong_exam"
    """Labelled findings do not mend it, and the report does not look like one that the plan is for."""
    RULE_GAP = "rule_gap"
    """On the labelled findings the rules come to another outcome: rules, guideline or label are at fault."""
    NO_LABELS = "no_labels"
    """What would explain it is not labelled."""
    EVIDENCE_WRONG = "evidence_wrong"
    """A right decision rests on a value for which no place in the report is shown. Counted in `ErrorAnatomy.evidence`,
    never as the cause of a wrong decision."""


_READING = (
    ErrorKind.FINDING_MISREAD,
    ErrorKind.FINDING_MISSED,
    ErrorKind.FINDING_INVENTED,
    ErrorKind.FINDING_UNSURE,
)
_IN_WORDS = {
    ErrorKind.UNREADABLE: "from answers that could not be read",
    ErrorKind.SYNTHESIS: "from what was made of the findings",
    ErrorKind.WRONG_EXAM: "from reports that do not look like the plan's",
    ErrorKind.RULE_GAP: "from rules that do not follow the labels",
    ErrorKind.NO_LABELS: "for reasons that the labels do not tell",
}


@dataclass(frozen=True, slots=True)
class CaseError:
    """A wrong decision and its cause.

    Attributes:
        case_id: of the report.
        truth: the true outcome, or `OPEN`.
        predicted: the outcome given, or `NO_DECISION`.
        kind: the cause.
        findings: those that mend the decision when they are put right together, in the plan's order; empty where none
            do. What was read wrong is tried before what was read right but unsurely. The smallest such set where one
            or two suffice; of three or more, none can be left out.
    """

    case_id: str
    truth: str
    predicted: str
    kind: ErrorKind
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FindingCost:
    """What the reading of one finding costs.

    Attributes:
        finding: its name.
        wrong: cases in which it was read wrong, or not at all.
        n: cases in which it is labelled.
        costs: wrong decisions that become right when it alone is put right.
        breaks: right decisions that become wrong when it alone is put right: there, two errors make up for each other.
    """

    finding: str
    wrong: int
    n: int
    costs: int
    breaks: int


@dataclass(frozen=True, slots=True)
class ErrorAnatomy:
    """The wrong decisions of a run, explained.

    Attributes:
        n: cases.
        wrong: wrong decisions; an open case that was not left open is one.
        kinds: cause -> wrong decisions, those that occur; they add up to `wrong`.
        errors: every wrong decision, in the order of the cases.
        costs: of every labelled finding, most costly first. Decisions that the rules did not make count for nothing.
        with_gold_findings: accuracy of the rules on the labelled findings, over the cases with a single true outcome
            and all deciding findings labelled: what a perfect reader would reach.
        unexplained: wrong decisions whose cause the labels do not tell.
        quotes_missing: stated values that were read right, but without a place in the report.
        evidence: finding -> right decisions that rest on its right value without a place in the report.
        scope_doubts: wrong decisions on reports that do not look like the plan's, whatever their cause.
    """

    n: int
    wrong: int
    kinds: Mapping[ErrorKind, int]
    errors: tuple[CaseError, ...]
    costs: tuple[FindingCost, ...]
    with_gold_findings: Share
    unexplained: int
    quotes_missing: int
    evidence: Mapping[str, int] = field(default_factory=dict)
    scope_doubts: int = 0

    @property
    def conclusion(self) -> str:
        """Two sentences: where the errors come from, and what reading without error would reach."""
        return f"{self._where_from()} {self._reachable()}"

    def _where_from(self) -> str:
        if not self.wrong:
            return f"None of {self.n} decisions is wrong."
        reading = sum(self.kinds.get(kind, 0) for kind in _READING)
        told = [f"{reading} from how findings were read{self._most_costly()}"] if reading else []
        told += [f"{self.kinds[kind]} {words}" for kind, words in _IN_WORDS.items() if self.kinds.get(kind)]
        return f"Of {self.n} decisions {self.wrong} are wrong: {', '.join(told)}."

    def _most_costly(self) -> str:
        if not self.costs or not self.costs[0].costs:
            return ""
        return f" (the most costly is {self.costs[0].finding}: put right alone it mends {self.costs[0].costs})"

    def _reachable(self) -> str:
        share = self.with_gold_findings
        if share.value is None:
            return "What reading without error would reach is unknown: in no case are all deciding findings labelled."
        return (
            f"With every finding read right the rules would come to the true outcome in {share.correct} of {share.n} "
            f"cases ({100 * share.value:.0f} %)."
        )


def error_anatomy(plan: Plan, cases: Sequence[LabelledCase], run: StrategyRun) -> ErrorAnatomy | None:
    """Explain the wrong decisions of a run.

    Args:
        plan: whose rules decide.
        cases: with as many findings as are labelled.
        run: on these cases, in their order.

    Returns:
        None where no finding is labelled, or no answer stands behind the run.

    Raises:
        ValueError: the run has another number of cases.
    """
    pairs = list(zip(cases, run.predictions, strict=True))
    readings = [_Reading(plan, case, said) for case, said in pairs]
    if not any(one.gold for one in readings) or not any(one.read for one in readings):
        return None
    wrong = [one for one in readings if not one.is_right]
    deciding = _deciding_findings(plan)
    errors = tuple(_explained(one, deciding) for one in wrong)
    kinds = Counter(error.kind for error in errors)
    settled = [one for one in readings if one.case.truth is not None and one.gold and one.is_settled(deciding)]
    right_values = [
        (one, name)
        for one in readings
        for name in one.read_and_labelled
        if one.is_stated(name) and one.is_right_of(name)
    ]
    unquoted = [(one, name) for one, name in right_values if not one.read[name].quotes]
    evidence = Counter(name for one, name in unquoted if one.is_right and one.is_by_rules and name in one.rests_on)
    return ErrorAnatomy(
        n=len(readings),
        wrong=len(wrong),
        kinds={kind: kinds[kind] for kind in ErrorKind if kinds[kind]},
        errors=errors,
        costs=_costs(plan, readings),
        with_gold_findings=share_of(one.is_right_on_labels() for one in settled),
        unexplained=kinds[ErrorKind.NO_LABELS],
        quotes_missing=len(unquoted),
        evidence={finding.name: evidence[finding.name] for finding in plan.findings if evidence[finding.name]},
        scope_doubts=sum(one.is_out_of_scope for one in wrong),
    )


def is_read_right(answer: Answer | None, truth: str | float) -> bool:
    """Whether an answer is the labelled value; an answer that failed, or is missing, never is."""
    if answer is None or answer.status.is_failure:
        return False
    read = NOT_STATED if answer.status is AnswerStatus.NOT_STATED else answer.value
    if isinstance(read, int | float) and not isinstance(truth, str):
        return abs(read - truth) < SAME_NUMBER
    return read == truth


class _Reading:
    """One case of a run: what was read, what is true, and what the rules make of any mixture of the two."""

    def __init__(self, plan: Plan, case: LabelledCase, said: Prediction) -> None:
        self.plan, self.case, self.said = plan, case, said
        self.is_right = said.is_right(case)
        self.subtasks = {subtask.finding: subtask for subtask in plan.subtasks if subtask.finding is not None}
        answers = () if said.staged is None else said.staged.answers
        self.read = {answer.finding: answer for answer in answers if answer.finding is not None}
        self.gold = {name: case.labels.findings[name] for name in self.subtasks if name in case.labels.findings}
        self._found: dict[frozenset[str], bool] = {}

    @property
    def decision(self) -> Decision | None:
        """What the rules decided; None where nothing was read."""
        return None if self.said.staged is None else self.said.staged.decision

    @property
    def rests_on(self) -> tuple[str, ...]:
        """Findings that force the outcome."""
        return () if self.decision is None else self.decision.rests_on

    @property
    def is_out_of_scope(self) -> bool:
        """Whether the report does not look like one that the plan is for."""
        return self.decision is not None and any(one.startswith(_SCOPE) for one in self.decision.review_reasons)

    @property
    def is_by_rules(self) -> bool:
        """Whether the rules said what the run says. Of an open case it matters only whether it was left open."""
        if self.decision is None:
            return False
        if self.case.truth is None:
            return self.said.is_open == (self.decision.outcome is None)
        return self.said.outcome == self.decision.best_outcome

    @property
    def read_and_labelled(self) -> list[str]:
        """Findings of which answer and truth are there, in the plan's order of subtasks."""
        return [name for name in self.gold if name in self.read]

    def is_right_of(self, name: str) -> bool:
        """Whether a labelled finding was read right."""
        return is_read_right(self.read.get(name), self.gold[name])

    def is_stated(self, name: str) -> bool:
        """Whether a value was read."""
        return self.read[name].status is AnswerStatus.OK

    def kind_of(self, name: str) -> ErrorKind:
        """What is wrong with the answer to a labelled finding."""
        answer = self.read[name]
        if answer.status.is_failure:
            return ErrorKind.UNREADABLE
        if self.is_right_of(name):
            return ErrorKind.FINDING_UNSURE
        if answer.status is AnswerStatus.NOT_STATED:
            return ErrorKind.FINDING_MISSED
        return ErrorKind.FINDING_INVENTED if self.gold[name] == NOT_STATED else ErrorKind.FINDING_MISREAD

    def misread(self) -> list[str]:
        """Labelled findings that were read wrong."""
        return [name for name in self.read_and_labelled if not self.is_right_of(name)]

    def unsure(self) -> list[str]:
        """Labelled findings that were read right, but not with certainty."""
        return [
            name
            for name in self.read_and_labelled
            if self.is_right_of(name) and (self.read[name].probability or 1.0) < CERTAIN
        ]

    def is_mended_by(self, names: Collection[str]) -> bool:
        """Whether the decision is right once these findings are put right."""
        key = frozenset(names)
        if key not in self._found:
            answers = [
                _true_answer(self.subtasks[name], self.gold[name]) if name in key else answer
                for name, answer in self.read.items()
            ]
            self._found[key] = self._is_true(decide(self.plan, answers))
        return self._found[key]

    def is_right_on_labels(self) -> bool:
        """Whether the rules decide rightly on what is labelled, whatever was read; the rest is unknown."""
        return self._is_true(decide(self.plan, self._true_answers()))

    def is_settled(self, deciding: Collection[str]) -> bool:
        """Whether what is labelled settles the decision: nothing that is not labelled could change it."""
        if all(name in self.gold for name in deciding):
            return True
        return decide(self.plan, self._true_answers()).outcome is not None

    def _true_answers(self) -> list[Answer]:
        return [
            _true_answer(subtask, self.gold[name])
            if name in self.gold
            else Answer(subtask.id, name, AnswerStatus.FAILED)
            for name, subtask in self.subtasks.items()
        ]

    def _is_true(self, decision: Decision) -> bool:
        truth = self.case.truth
        return decision.outcome is None if truth is None else decision.best_outcome == truth


def _true_answer(subtask: Subtask, truth: str | float) -> Answer:
    """The labelled value as an answer that leaves no doubt."""
    if truth == NOT_STATED:
        return Answer(subtask.id, subtask.finding, AnswerStatus.NOT_STATED)
    return Answer(subtask.id, subtask.finding, AnswerStatus.OK, truth if isinstance(truth, str) else float(truth))


def _deciding_findings(plan: Plan) -> frozenset[str]:
    """Findings on which the outcome can depend: those of the rules, and those that their silence looks at."""
    named = {name for rule in plan.decision_table.rules for name in findings_in(rule.when)}
    return frozenset(named | {other for one in plan.domains if one.finding in named for other in one.silence.looks_at})


def _explained(reading: _Reading, deciding: Collection[str]) -> CaseError:
    kind, findings = _cause(reading, deciding)
    return CaseError(
        reading.case.case_id,
        reading.case.labels.outcome or "",
        reading.said.outcome or NO_DECISION,
        kind,
        tuple(name for name in reading.gold if name in findings),
    )


def _cause(reading: _Reading, deciding: Collection[str]) -> tuple[ErrorKind, Collection[str]]:
    if reading.said.outcome is None or reading.decision is None:
        return ErrorKind.UNREADABLE, ()
    if not reading.is_by_rules:
        return ErrorKind.SYNTHESIS, ()
    findings = _mending(reading)
    if findings:
        kinds = {reading.kind_of(name) for name in findings}
        if len(kinds) > 1:
            kinds.discard(ErrorKind.FINDING_UNSURE)
        return (kinds.pop() if len(kinds) == 1 else ErrorKind.FINDING_MISREAD), findings
    if reading.is_out_of_scope:
        return ErrorKind.WRONG_EXAM, ()
    return (ErrorKind.RULE_GAP if reading.gold and reading.is_settled(deciding) else ErrorKind.NO_LABELS), ()


def _mending(reading: _Reading) -> tuple[str, ...]:
    """The fewest findings that mend a decision; none where all labelled ones together do not."""
    misread, unsure = reading.misread(), reading.unsure()
    if not reading.is_mended_by([*misread, *unsure]):
        return ()
    enough = misread if misread and reading.is_mended_by(misread) else [*misread, *unsure]
    for names in _small_sets(enough):
        if reading.is_mended_by(names):
            return names
    kept = tuple(enough)
    while True:
        fewer = ((*kept[:place], *kept[place + 1 :]) for place in reversed(range(len(kept))))
        mended = next((names for names in fewer if reading.is_mended_by(names)), None)
        if mended is None:
            return kept
        kept = mended


def _small_sets(names: Sequence[str]) -> Iterable[tuple[str, ...]]:
    for size in (1, 2):
        yield from combinations(names, size)


def _costs(plan: Plan, readings: Sequence[_Reading]) -> tuple[FindingCost, ...]:
    """Of every finding that is labelled somewhere."""
    labelled: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    costs: Counter[str] = Counter()
    breaks: Counter[str] = Counter()
    for one in readings:
        if one.said.staged is None:
            continue
        labelled.update(list(one.gold))
        wrong.update(name for name in one.gold if not one.is_right_of(name))
        if not one.is_by_rules:
            continue
        if one.is_right:
            breaks.update(name for name in one.misread() if not one.is_mended_by([name]))
        else:
            costs.update(name for name in [*one.misread(), *one.unsure()] if one.is_mended_by([name]))
    names = [finding.name for finding in plan.findings if labelled[finding.name]]
    found = [FindingCost(name, wrong[name], labelled[name], costs[name], breaks[name]) for name in names]
    return tuple(sorted(found, key=lambda cost: (-cost.costs, -cost.wrong)))
