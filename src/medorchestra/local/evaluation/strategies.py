"""The ways to come from a report to an outcome that an evaluation compares, all with the same model.

`direct` shows the model the report and asks for the outcome; `guideline` shows the guideline as well;
`self-consistency` lets it think several times and counts votes; `orchestrated` asks the plan's questions and lets its
rules decide; `orchestrated-llm` asks the same questions and lets the model decide on what was read, as the MedOrchestra
paper does. Outcomes are always scored among those of the plan, never written freely. Knows no labels and measures
nothing. What a report contains never raises: what went wrong is the prediction's error.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from medorchestra.errors import ServerFailedError, SettingsError
from medorchestra.local.aggregator import is_unscored
from medorchestra.local.answers import Answer, AnswerStatus
from medorchestra.local.engine.protocol import Conversation, Engine, Session
from medorchestra.local.evaluation.prediction_store import PredictionKey, PredictionStore
from medorchestra.local.evaluation.predictions import LabelledCase, Prediction
from medorchestra.local.executor import MARKUP_TOKENS, SHORT_ANSWER_TOKENS, describe_error
from medorchestra.local.html_view import spoken
from medorchestra.local.ledger import Ledger
from medorchestra.local.records import Report
from medorchestra.local.server_watch import ServerWatch
from medorchestra.local.staged_report import ReportStatus, StagedReport
from medorchestra.local.staging import Stager
from medorchestra.plan import Finding, Plan, content_digest
from medorchestra.rules import AllOf, AnyOf, Bounds, Condition, Is, Not, OptionIs, PartIn, children_of

STRATEGIES = ("direct", "guideline", "orchestrated", "orchestrated-llm", "self-consistency")
"""All there are."""

STRATEGIES_VERSION = 1
"""Part of every stored prediction's key: raise it when the same prompts would be asked or read differently."""

REPORT_QUESTION = "{title}: which of these outcomes does the report lead to? Answer with its name only.\n{outcomes}"
FINDINGS_QUESTION = "{title}: which of these outcomes do the findings lead to? Answer with its name only.\n{outcomes}"
THINKING_QUESTION = (
    "{title}: these are the possible outcomes.\n{outcomes}\n"
    "In two or three sentences: which statements of the report decide between them?"
)
THOUGHTS_FIRST = "Your thoughts on the report:\n{thoughts}\n\n{question}"
GUIDELINE_HEAD = "Guideline:\n\n{guideline}\n\n{head}"
GUIDELINE_OVER_FINDINGS = (
    "You decide by a guideline on findings that were read from a medical report. Use only these findings.\n\n"
    "Guideline:\n\n{guideline}\n\nFindings:"
)
RULES_OVER_FINDINGS = (
    "You decide by rules on findings that were read from a medical report. Use only these findings. "
    "The first rule that holds decides.\n\nRules:\n{rules}\n\nFindings:"
)

NOT_STATED_WORDS = "not stated"
NOT_READ_WORDS = "not known"
"""Of a finding that could not be read: unknown is not silence."""
TIED = "equally many votes, and no probabilities to tell between them"
"""Error of a vote that decides nothing."""


class Strategy(Protocol):
    """A way to come from a report to an outcome."""

    @property
    def name(self) -> str:
        """One of `STRATEGIES`."""
        ...

    def predict(self, case: LabelledCase) -> Prediction:
        """What it says of one report. Looks at the report only, never at its labels.

        Raises:
            ModelError: the model's server is gone (see `server_watch`).
            StorageError: what is kept cannot be read or written.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often and how freely a model thinks before it answers.

    Attributes:
        samples: votes for each report.
        seed: the same seed draws the same thoughts.
        temperature: above 0.
        max_tokens: of one thought; what is longer is cut off and used as it is.
    """

    samples: int = 5
    seed: int = 1
    temperature: float = 0.7
    max_tokens: int = 120


def make_strategies(  # noqa: PLR0913 - what is compared, with which model, and where it is kept
    names: Sequence[str],
    plan: Plan,
    engine: Engine,
    *,
    guideline: str,
    ledger: Ledger | None,
    store: PredictionStore | None,
    samples: int = 5,
    seed: int = 1,
) -> list[Strategy]:
    """The strategies of these names, in this order. They share one reading of every report by the plan's questions.

    What was read for an earlier strategy costs a later one nothing, with or without a ledger.

    Args:
        names: from `STRATEGIES`.
        plan: its outcomes, questions and rules.
        engine: the model; stays open as long as the strategies are used.
        guideline: text of the guideline.
        ledger: keeps answers to the plan's questions.
        store: keeps the predictions of all strategies but `orchestrated`, which needs only the ledger.
        samples: votes of `self-consistency`.
        seed: of its samples.

    Raises:
        SettingsError: an unknown name, no sample, a negative seed, or no guideline for `guideline`.
    """
    unknown = [name for name in names if name not in STRATEGIES]
    if unknown:
        raise SettingsError(f"strategies: {', '.join(unknown)}: not known; choose from {', '.join(STRATEGIES)}")
    if samples < 1 or seed < 0:
        raise SettingsError(f"samples={samples}, seed={seed}: at least 1 sample, and a seed of 0 or more")
    if "guideline" in names and not guideline.strip():
        raise SettingsError("strategy guideline: the guideline's text is empty; give it, or leave this strategy out")
    shared = SharedReading(Stager(plan, engine, ledger)) if {"orchestrated", "orchestrated-llm"} & {*names} else None
    made: list[Strategy] = []
    for name in names:
        choice = OutcomeChoice(plan, engine, strategy=name, store=store)
        if name == "orchestrated" and shared is not None:
            made.append(OrchestratedStrategy(shared))
        elif name == "orchestrated-llm" and shared is not None:
            made.append(SynthesisStrategy(shared, choice, guideline=guideline))
        else:
            head = plan.head()
            if name == "guideline":
                head = GUIDELINE_HEAD.format(guideline=guideline.strip(), head=head)
            sampling = Sampling(samples, seed) if name == "self-consistency" else None
            made.append(ReportStrategy(name, choice, head=head, sampling=sampling))
    return made


# ------------------------------------------------------------------- by the model


class OutcomeChoice:
    """Lets a model choose among the outcomes of a plan, behind a head and a text; keeps what it chose.

    Attributes:
        plan, engine, strategy: what is chosen, who chooses, for which strategy.
    """

    def __init__(self, plan: Plan, engine: Engine, *, strategy: str, store: PredictionStore | None = None) -> None:
        self.plan = plan
        self.engine = engine
        self.strategy = strategy
        self._store = store
        self._watch = ServerWatch(engine, kept=store is not None)
        self.labels = {outcome.name: spoken(outcome.name) for outcome in plan.outcomes}

    def rendered(self, question: str) -> str:
        """A question with the plan's title and the outcomes, each with its description."""
        outcomes = "\n".join(f"{self.labels[outcome.name]}: {outcome.description}" for outcome in self.plan.outcomes)
        return question.format(title=self.plan.title, outcomes=outcomes)

    def predict(
        self, case_id: str, text: str, *, head: str, question: str, sampling: Sampling | None = None
    ) -> Prediction:
        """What the model chooses.

        Args:
            case_id: of the case that the text belongs to.
            text: the report or what was read from it; stays text, whatever it contains.
            head: trusted text before it.
            question: rendered.
            sampling: lets the model think first, and vote.

        Raises:
            ModelError: the model's server is gone (see `server_watch`).
            StorageError: what is kept cannot be read or written.
        """
        started = time.perf_counter()
        asked = [STRATEGIES_VERSION, head, question, list(self.labels.items())]
        if sampling is not None:
            asked += [self.rendered(THINKING_QUESTION), THOUGHTS_FIRST, asdict(sampling)]
        key = self._key(text, content_digest(asked))
        kept = None if self._store is None else self._store.find(key, case_id)
        if kept is not None:
            return kept
        failed: tuple[str, bool] | None = None  # what is told of it, and whether the model's server is to blame
        try:
            with self.engine.open(Conversation(head, text)) as session:
                if sampling is None:
                    chosen = self._scored(session, question)
                else:
                    chosen = self._voted(session, question, sampling)
                tokens = chosen.tokens + session.prefix_tokens
        except Exception as problem:  # noqa: BLE001 - whatever an engine raises becomes an error of this case
            failed = describe_error(problem), isinstance(problem, ServerFailedError) and problem.of_server
        seconds = time.perf_counter() - started
        if failed is not None:  # here, where the error that may name the text is no longer the context of another
            error, of_server = failed
            if of_server:
                self._watch.note_lost(key.text, error)
            return Prediction(case_id, None, error=error, seconds=seconds)
        self._watch.note_answered()
        if chosen.tied:
            return Prediction(case_id, None, error=TIED, seconds=seconds, tokens=tokens)
        prediction = Prediction(case_id, chosen.outcome, probabilities=chosen.probabilities, tokens=tokens)
        if self._store is not None:
            self._store.add(key, prediction)
        return replace(prediction, seconds=seconds)

    def _key(self, text: str, settings: str) -> PredictionKey:
        identity = self.engine.identity
        return PredictionKey(
            text=content_digest(text),
            strategy=self.strategy,
            settings=settings,
            plan=self.plan.digest,
            model=identity.digest,
            adapter=identity.adapter_digest or "",
            engine=content_digest(dict(identity.settings)),
        )

    def _scored(self, session: Session, question: str) -> _Chosen:
        scored = session.choose(question, list(self.labels.values()))
        probabilities = dict(zip(self.labels, scored.probabilities, strict=True))
        outcome = max(probabilities, key=probabilities.__getitem__)
        return _Chosen(outcome, probabilities if scored.scored else {}, scored.tokens)

    def _voted(self, session: Session, question: str, sampling: Sampling) -> _Chosen:
        """Majority of the samples; of equally many votes, those with the higher sum of probabilities. Where a vote came
        without probabilities, equally many decide nothing."""
        thinking = self.rendered(THINKING_QUESTION)
        votes, sums, tokens = dict.fromkeys(self.labels, 0), dict.fromkeys(self.labels, 0.0), 0
        all_scored = True
        for sample in range(sampling.samples):
            written = session.generate(
                thinking,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                seed=sample_seed(sampling.seed, sample),
            )
            thoughts = written.text.strip()
            asked = THOUGHTS_FIRST.format(thoughts=thoughts, question=question) if thoughts else question
            chosen = self._scored(session, asked)
            tokens += written.tokens + chosen.tokens
            votes[chosen.outcome] += 1
            all_scored = all_scored and bool(chosen.probabilities)
            for name, probability in chosen.probabilities.items():
                sums[name] += probability
        winner = max(votes, key=lambda name: (votes[name], sums[name]))
        tied = not all_scored and [*votes.values()].count(votes[winner]) > 1
        return _Chosen(winner, {name: count / sampling.samples for name, count in votes.items()}, tokens, tied)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """An outcome, the probabilities of all (none where the engine gives none), and the tokens computed for them
    without head and text; whether another outcome had as many votes, and nothing tells between them."""

    outcome: str
    probabilities: dict[str, float]
    tokens: int
    tied: bool = False


def sample_seed(seed: int, sample: int) -> int:
    """The seed of one sample. Neighbouring seeds share none, so that repeated runs do not repeat each other's."""
    return int.from_bytes(hashlib.sha256(f"{seed} {sample}".encode()).digest()[:6])


class ReportStrategy:
    """The model reads the report and chooses: `direct`, `guideline`, `self-consistency`."""

    def __init__(self, name: str, choice: OutcomeChoice, *, head: str, sampling: Sampling | None = None) -> None:
        self.name = name
        self._choice = choice
        self._head = head
        self._sampling = sampling
        self._question = choice.rendered(REPORT_QUESTION)

    def predict(self, case: LabelledCase) -> Prediction:
        """See `Strategy.predict`. A report without text is asked nothing."""
        if not case.report.text.strip():
            return Prediction(case.case_id, None, error=ReportStatus.EMPTY.value)
        return self._choice.predict(
            case.case_id, case.report.text, head=self._head, question=self._question, sampling=self._sampling
        )


# --------------------------------------------------------------- by the plan's questions


class SharedReading:
    """A stager that stages every report once, for all strategies that ask it."""

    def __init__(self, stager: Stager) -> None:
        self.stager = stager
        self._staged: dict[tuple[str, str], StagedReport] = {}

    def staged(self, report: Report) -> StagedReport:
        """The staged report. Its tokens and seconds are those of this call: none when it was staged before.

        Raises:
            StorageError: the ledger cannot be read or written.
        """
        key = (report.report_id, report.digest)
        before = self._staged.get(key)
        if before is not None:
            return replace(before, tokens=0, seconds=0.0)
        staged = self.stager.stage_one(report)
        self._staged[key] = staged
        return staged


class OrchestratedStrategy:
    """The plan's questions, and its rules."""

    name = "orchestrated"

    def __init__(self, shared: SharedReading) -> None:
        self._shared = shared

    def predict(self, case: LabelledCase) -> Prediction:
        """See `Strategy.predict`. The most probable outcome; open where the rules leave several."""
        staged = self._shared.staged(case.report)
        said = Prediction(
            case.case_id,
            None,
            review=staged.review,
            staged=staged,
            seconds=staged.seconds,
            tokens=staged.tokens,
        )
        if staged.decision is None:
            return replace(said, error=staged.error or staged.status.value)
        # A value that was chosen without a probability counts with its prior there: nothing that the model said.
        unscored = any(is_unscored(staged.plan, answer) for answer in staged.answers if answer.finding is not None)
        return replace(
            said,
            outcome=staged.decision.best_outcome,
            is_open=staged.decision.outcome is None,
            probabilities={} if unscored else staged.decision.probabilities,
        )


class SynthesisStrategy:
    """The plan's questions, and then the model decides on the answers, by the guideline or, where that does not fit
    its context, by the plan's rules in words.

    Its predictions carry no staged report: the decision in there is that of the rules, and the findings are those of
    `orchestrated`.

    Attributes:
        reads_guideline: whether the model is shown the guideline; the same for all reports.
    """

    name = "orchestrated-llm"

    def __init__(self, shared: SharedReading, choice: OutcomeChoice, *, guideline: str) -> None:
        self._shared = shared
        self._choice = choice
        self._question = choice.rendered(FINDINGS_QUESTION)
        self._head = GUIDELINE_OVER_FINDINGS.format(guideline=guideline.strip())
        self.reads_guideline = bool(guideline.strip()) and self._fits(self._head)
        if not self.reads_guideline:
            self._head = RULES_OVER_FINDINGS.format(rules=rules_text(choice.plan))

    def predict(self, case: LabelledCase) -> Prediction:
        """See `Strategy.predict`. Without a single answer there is nothing to decide on."""
        staged = self._shared.staged(case.report)
        if staged.status.is_failure:
            error = staged.error or staged.status.value
            return Prediction(case.case_id, None, error=error, seconds=staged.seconds, tokens=staged.tokens)
        findings = findings_text(self._choice.plan, staged.answers)
        said = self._choice.predict(case.case_id, findings, head=self._head, question=self._question)
        return replace(said, seconds=said.seconds + staged.seconds, tokens=said.tokens + staged.tokens)

    def _fits(self, head: str) -> bool:
        """Whether head, the longest findings there can be, question and answer fit: then they do for every report."""
        engine = self._choice.engine
        labels = max(map(engine.count_tokens, self._choice.labels.values()))
        findings = _most_finding_tokens(self._choice.plan, engine)
        needed = engine.count_tokens(head) + findings + engine.count_tokens(self._question) + labels + MARKUP_TOKENS
        return needed <= engine.context_tokens


def findings_text(plan: Plan, answers: Sequence[Answer]) -> str:
    """`finding: value` lines, in the plan's order. Comes from a report and stays where reports stay."""
    findings = {finding.name: finding for finding in plan.findings}
    lines = []
    for answer in answers:
        finding = None if answer.finding is None else findings[answer.finding]
        lines.append(f"{spoken(answer.finding or answer.subtask)}: {_value_text(answer, finding)}")
    return "\n".join(lines)


def _value_text(answer: Answer, finding: Finding | None) -> str:
    if answer.status is AnswerStatus.NOT_STATED:
        return NOT_STATED_WORDS
    if answer.status.is_failure or answer.value is None:
        return NOT_READ_WORDS
    if isinstance(answer.value, float | int):
        return f"{answer.value:g} {_unit(finding)}".strip()
    if isinstance(answer.value, tuple):
        return " ".join(" ".join(answer.value).split())
    return " ".join(answer.value.split()) if finding is None else spoken(answer.value)


def _unit(finding: Finding | None) -> str:
    unit = "" if finding is None or finding.number is None else finding.number.unit
    return {"count": "", "percent": "%", "unit_per_ml": "U/ml"}.get(unit, unit)


def _most_finding_tokens(plan: Plan, engine: Engine) -> int:
    """Tokens of the longest list of findings there can be."""
    findings = {finding.name: finding for finding in plan.findings}
    total = 0
    for subtask in plan.subtasks:
        values = (findings[subtask.finding].values or {}) if subtask.finding else {}
        written = subtask.max_tokens if subtask.answer in ("spans", "text") else 0
        said = [engine.count_tokens(words) for words in (*map(spoken, values), NOT_STATED_WORDS, NOT_READ_WORDS)]
        name = engine.count_tokens(f"{spoken(subtask.finding or subtask.id)}: ") + 1  # and the end of its line
        total += name + max(*said, written, 0 if values else SHORT_ANSWER_TOKENS)
    return total


# ----------------------------------------------------------------------- in words


def rules_text(plan: Plan) -> str:
    """The rules of the plan, a line each, and how silence is read. Findings and values are named as in `findings_text`.

    Options are put in as they are set; a rule that they switch off is left out.
    """
    lines = []
    for title, rules in (*((spoken(part.name), part.rules) for part in plan.parts), ("Outcome", plan.rules)):
        lines.append(f"{title}:")
        for rule in rules:
            told = _condition_text(rule.when, plan)
            if told is not False:
                lines.append(f"- {spoken(rule.outcome)}, if {'nothing above holds' if told is True else told}")
    silences = [told for finding in plan.findings if (told := _silence_text(finding, plan))]
    return "\n".join([*lines, *(["What is not stated:", *silences] if silences else [])])


def _silence_text(finding: Finding, plan: Plan) -> str:
    """Empty where silence leaves the finding unknown."""
    silence = finding.not_stated
    exception = False if silence.unless is None else _condition_text(silence.unless, plan)
    if silence.reads_as is None or exception is True:
        return ""
    told = f"- {spoken(finding.name)} is read as {spoken(silence.reads_as)}"
    if silence.if_stated is not None:
        told += f", if {spoken(silence.if_stated)} is stated"
    return told if exception is False else f"{told}, unless {exception}"


def _condition_text(condition: Condition, plan: Plan) -> str | bool:
    """The condition in words; true or false where the options already settle it."""
    if isinstance(condition, OptionIs):
        return plan.option_settings[condition.option] == condition.is_
    if isinstance(condition, Not):
        inner = _condition_text(condition.not_, plan)
        return not inner if isinstance(inner, bool) else f"not ({inner})"
    if isinstance(condition, AllOf | AnyOf):
        decisive = isinstance(condition, AnyOf)
        parts = [_condition_text(part, plan) for part in children_of(condition)]
        if any(part is decisive for part in parts):
            return decisive
        told = [part for part in parts if isinstance(part, str)]
        if len(told) < 2:
            return told[0] if told else not decisive
        return f"({(' or ' if decisive else ' and ').join(told)})"
    if isinstance(condition, Bounds):
        bounds = (
            f"{spoken(field)} {bound:g}"
            for field in ("above", "at_least", "below", "at_most")
            if (bound := getattr(condition, field)) is not None
        )
        return f"{spoken(condition.finding)} is {' and '.join(bounds)}"
    if isinstance(condition, Is):
        return f"{spoken(condition.finding)} is {spoken(condition.is_)}"
    subject = condition.part if isinstance(condition, PartIn) else condition.finding
    return f"{spoken(subject)} is {' or '.join(map(spoken, condition.in_))}"
