"""What the tests of strategies share: cases, an engine that notes what it is asked, and a strategy made on it."""

from __future__ import annotations

from contextlib import contextmanager

from local.small_batch import PLAN, scripted_reading, small_reports

from medorchestra.local.calibrating import LabelledReport
from medorchestra.local.engine.protocol import Scored
from medorchestra.local.engine.scripted import ScriptedEngine
from medorchestra.local.evaluation.predictions import LabelledCase
from medorchestra.local.evaluation.strategies import STRATEGIES, make_strategies
from medorchestra.local.records import Report

GUIDELINE = "## 1. Order\n\nMetastases {decide} first, then the arteries."
BY_MODEL = [name for name in STRATEGIES if name != "orchestrated"]
CASES = [LabelledCase(LabelledReport(report, {}, "resectable")) for report in small_reports(6)]
TOO_LONG = LabelledCase(LabelledReport(Report("long", "The SMA is free. " * 3000), {}, "resectable"))


def case_of(text, case_id="one"):
    return LabelledCase(LabelledReport(Report(case_id, text), {}, "resectable"))


def is_outcome_question(asked):
    return "which of these outcomes" in asked.question


class Noting(ScriptedEngine):
    """Reads the small reports as they are meant, answers a question for the outcome by `outcome`, and notes it all."""

    def __init__(self, outcome=lambda asked: {"resectable": 0.7, "metastatic": 0.3}, thoughts=None, **options):
        self.asked, self.conversations = [], []
        self._outcome, self._thoughts = outcome, thoughts or (lambda asked: f"thought {asked.seed}")
        super().__init__(self._answer, **options)

    def _answer(self, asked):
        self.asked.append(asked)
        if asked.candidates is None:
            return self._thoughts(asked)
        return self._outcome(asked) if is_outcome_question(asked) else scripted_reading(asked)

    @contextmanager
    def open(self, conversation):
        self.conversations.append(conversation)
        with super().open(conversation) as session:
            yield session


class Choosing(Noting):
    """Can only choose, as a server without log-probabilities does.

    Args:
        scores: whether the answer to a question is scored all the same.
    """

    def __init__(self, *arguments, scores=lambda question: False, **options):
        super().__init__(*arguments, **options)
        self._scores = scores

    @contextmanager
    def open(self, conversation):
        with super().open(conversation) as session:
            score = session.choose

            def choose(question, candidates):
                scored = score(question, candidates)
                if self._scores(question):
                    return scored
                best = scored.probabilities.index(max(scored.probabilities))
                marks = tuple(float(place == best) for place in range(len(candidates)))
                return Scored(marks, scored.tokens, scored=False)

            session.choose = choose
            yield session


def strategy(name, engine, plan=PLAN, **options):
    settings = {"guideline": GUIDELINE, "ledger": None, "store": None} | options
    (made,) = make_strategies([name], plan, engine, **settings)
    return made
