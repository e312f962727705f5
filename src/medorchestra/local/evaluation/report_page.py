"""An evaluation as one page of HTML that stands alone: words first, then tables and pictures, then what was run.

No script, no network, prints to A4. Everything is escaped. Shows ids and outcomes; report text only where it is handed
in. Measures nothing: `evaluation` does. Templates and style sheet: `html/`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeGuard

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from medorchestra.local.batch import DISCLAIMER
from medorchestra.local.evaluation.error_anatomy import CaseError
from medorchestra.local.evaluation.evaluation import Evaluation, RunScores, WrongCase
from medorchestra.local.evaluation.measures import OutcomeScores, Share
from medorchestra.local.evaluation.page_words import (
    KIND_TEXT,
    NONE,
    interval_text,
    number,
    p_text,
    percent,
    points,
    points_interval,
    summary_of,
)
from medorchestra.local.evaluation.pictures import (
    confusion_picture,
    cost_picture,
    forest_picture,
    reliability_picture,
    risk_coverage_picture,
)
from medorchestra.local.html_view import inert, spoken

MOST_WRONG = 500
"""Cases that the table of wrong decisions shows; a browser becomes slow with more."""
SIDE_BY_SIDE = 4
"""Runs that stand beside each other in a table that fits on A4."""

_TAG = re.compile("<[^>]*>")
_POINTS_TO = re.compile(r'(\bid="|\burl\(#|\bhref="#)')


def evaluation_page(evaluation: Evaluation, *, texts: Mapping[str, str] | None = None) -> str:
    """A complete HTML page.

    Args:
        evaluation: what was measured.
        texts: case id -> report text, shown with the wrong decisions. None: the page holds no report text.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    view = _EvaluationView(evaluation, texts)
    return _environment().get_template("page.html").render(view=view, evaluation=evaluation, disclaimer=DISCLAIMER)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("medorchestra.local.evaluation", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "spoken": spoken,
        "percent": percent,
        "points": points,
        "points_interval": points_interval,
        "p_text": p_text,
        "number": number,
        "interval": lambda share: interval_text(share.low, share.high),
        "kind_text": KIND_TEXT.__getitem__,
    }
    environment.globals |= {"dash": NONE, "side_by_side": SIDE_BY_SIDE, "most_wrong": MOST_WRONG}
    return environment


@dataclass(frozen=True, slots=True)
class _Mistake:
    """What one run said wrongly of a case, and why."""

    wrong: WrongCase
    error: CaseError | None


@dataclass(frozen=True, slots=True, repr=False)
class _MissedCase:
    """A case that at least one run decided wrongly.

    Attributes:
        text: the report's text where the page shows texts.
    """

    case_id: str
    truth: str
    mistakes: tuple[_Mistake, ...]
    text: str | None


class _EvaluationView:
    """An evaluation in the words of its template."""

    def __init__(self, evaluation: Evaluation, texts: Mapping[str, str] | None) -> None:
        self.evaluation = evaluation
        self.shows_text = texts is not None
        self._texts = texts or {}
        self._pictures = 0

    @property
    def summary(self) -> list[str]:
        """What was found, in sentences."""
        return summary_of(self.evaluation)

    @property
    def contents(self) -> list[tuple[str, str]]:
        """Anchor and title of every section that the page has."""
        runs = self.evaluation.runs
        sections = [
            ("strategies", "Strategies", True),
            ("comparisons", "Comparisons", bool(self.evaluation.comparisons)),
            ("readers", "Readers", bool(self.evaluation.readers)),
            ("outcomes", "Outcomes", bool(runs)),
            ("probabilities", "Probabilities", any(run.reliability.n for run in runs)),
            ("groups", "Groups", bool(self.groups)),
            ("findings", "Findings", bool(self.findings)),
            ("causes", "Why decisions are wrong", bool(self.explained)),
            ("repeats", "Repeated runs", bool(self.repeated)),
            ("wrong", "Wrong decisions", bool(self.evaluation.wrong)),
            ("what", "What was run", True),
        ]
        return [(anchor, title) for anchor, title, there in sections if there]

    def has(self, anchor: str) -> bool:
        """Whether the page has this section."""
        return anchor in dict(self.contents)

    @property
    def scored(self) -> list[tuple[str, OutcomeScores]]:
        """Runs, then readers."""
        runs = [(run.name, run.outcome) for run in self.evaluation.runs]
        return runs + [(reader.name, reader.outcome) for reader in self.evaluation.readers]

    @property
    def groups(self) -> dict[str, dict[str, dict[str, Share]]]:
        """Column -> group -> run -> accuracy."""
        found: dict[str, dict[str, dict[str, Share]]] = {}
        for run in self.evaluation.runs:
            for column, groups in run.groups.items():
                for group, share in groups.items():
                    found.setdefault(column, {}).setdefault(group, {})[run.name] = share
        return found

    @property
    def findings(self) -> dict[str, dict[str, Share]]:
        """Finding -> run -> share read right."""
        found: dict[str, dict[str, Share]] = {}
        for run in self.evaluation.runs:
            for finding, share in run.findings.items():
                found.setdefault(finding, {})[run.name] = share
        return found

    @property
    def reading(self) -> list[str]:
        """Names of the runs that read findings."""
        return [run.name for run in self.evaluation.runs if run.findings]

    @property
    def explained(self) -> list[RunScores]:
        """Runs whose wrong decisions were explained."""
        return [run for run in self.evaluation.runs if run.anatomy is not None]

    @property
    def repeated(self) -> list[RunScores]:
        """Runs that were repeated."""
        return [run for run in self.evaluation.runs if run.repeatability is not None]

    @property
    def missed(self) -> list[_MissedCase]:
        """Cases that were decided wrongly, those that most runs got wrong first."""
        errors = {
            (run.name, error.case_id): error
            for run in self.evaluation.runs
            if run.anatomy is not None
            for error in run.anatomy.errors
        }
        by_case: dict[str, list[_Mistake]] = {}
        for wrong in self.evaluation.wrong:
            mistake = _Mistake(wrong, errors.get((wrong.run, wrong.case_id)))
            by_case.setdefault(wrong.case_id, []).append(mistake)
        ordered = sorted(by_case.items(), key=lambda pair: -len(pair[1]))
        return [
            _MissedCase(case_id, mistakes[0].wrong.truth, tuple(mistakes), self._texts.get(case_id))
            for case_id, mistakes in ordered
        ]

    @property
    def facts(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """What was run: title and rows of each table."""
        evaluation = self.evaluation
        plan = [("topic", evaluation.topic), ("digest", evaluation.plan_digest)]
        labelled = [(spoken(name), _fact(value)) for name, value in evaluation.labelled.items()]
        tables = [("Plan", plan), ("Labelled set", labelled)]
        general = []
        for name, value in evaluation.about.items():
            title = spoken(name).capitalize()
            if isinstance(value, Mapping):
                tables.append((title, list(_rows(value))))
            elif _is_many(value) and all(isinstance(one, Mapping) for one in value):
                several = len(value) > 1
                tables += [
                    (f"{title.removesuffix('s')}{f' {place}' if several else ''}", list(_rows(one)))
                    for place, one in enumerate(value, 1)
                ]
            else:
                general.append((spoken(name), _command(value) if name == "command" else _fact(value)))
        return [("Evaluation", [("made on", evaluation.made_on.isoformat()), *general]), *tables]

    def forest(self) -> Markup:
        """Accuracies of runs and readers."""
        return self._placed(forest_picture({name: scores.accuracy for name, scores in self.scored}))

    def confusion(self, scores: OutcomeScores) -> Markup:
        """True outcomes against what was said."""
        return self._placed(confusion_picture(scores, self.evaluation.outcomes))

    def reliability(self, run: RunScores) -> Markup:
        """Stated against true probability."""
        return self._placed(reliability_picture(run.reliability))

    def risk_coverage(self) -> Markup:
        """Risk and coverage of all runs."""
        return self._placed(risk_coverage_picture({run.name: run.risk_coverage for run in self.evaluation.runs}))

    def cost(self, run: RunScores) -> Markup:
        """Which finding costs how many decisions."""
        return self._placed(cost_picture(run.anatomy.costs if run.anatomy else ()))

    def _placed(self, svg: str) -> Markup:
        """A picture whose ids are its own on this page. The pictures escape their words themselves."""
        self._pictures += 1
        mark = rf"\g<1>picture{self._pictures}-"
        return Markup(_TAG.sub(lambda tag: _POINTS_TO.sub(mark, tag[0]), svg))  # noqa: S704 - made by `pictures`


def _rows(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Facts within facts, as rows of one table."""
    for name, value in facts.items():
        title = f"{before}{spoken(str(name))}"
        if isinstance(value, Mapping):
            yield from _rows(value, f"{title}, ")
        else:
            yield title, _fact(value)


def _fact(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_many(value):
        return ", ".join(_fact(one) for one in value) or "none"
    return str(value)


def _command(value: object) -> str:
    return shlex.join(str(word) for word in value) if _is_many(value) else _fact(value)


def _is_many(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)
