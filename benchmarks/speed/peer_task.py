"""What every way of reading is given in `peers.py`: the same reports, findings, questions and answers to choose from.

Made once with the model's own tokenizer, then handed to each row's process as a JSON file, so that a process holds
nothing but its own way. Loads no model weights for reading and measures nothing.

Findings: the first twelve of the plan's subtasks with closed values. Reports: those of a split whose token count is
nearest to the wanted one; where that is more than a sentence short, sentences on organs that no finding asks about are
added at the end, so that the expected findings stay what they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a row's process reads a task without loading the library
    import medorchestra as mo
    from medorchestra.plan import Subtask
    from medorchestra.synthetic import SyntheticCase

FINDINGS = 12
FORMS = ("compact", "instructed")
WARM_UP = "warm-up"
"""Id of the report that is read before every measurement and never measured."""

EXAMPLE_WORDS = 120
"""Longest report that is shown as a solved example."""

HARMLESS = (
    "The spleen is of normal size and enhances evenly.",
    "Both kidneys enhance symmetrically, and the collecting systems are not dilated.",
    "A simple cortical cyst of 11 mm lies at the upper pole of the left kidney.",
    "The urinary bladder is moderately filled, with a thin wall.",
    "A few diverticula of the sigmoid colon are seen without signs of inflammation.",
    "The appendix is slender.",
    "The stomach is partly collapsed.",
    "Degenerative changes of the lower lumbar spine with narrowed disc spaces.",
    "A small umbilical hernia contains fat only.",
    "Calcified plaques of the iliac arteries without relevant narrowing.",
    "A port catheter is not seen.",
    "The adrenal glands are slender.",
)
"""On organs that none of the twelve findings is about."""


@dataclass(frozen=True)
class TaskReport:
    """A report to read.

    Attributes:
        id: of the synthetic case.
        text: as it is read.
        tokens: token numbers of the report, up to where a question begins.
        expected: finding -> value.
        added: tokens of harmless sentences among them.
    """

    id: str
    text: str
    tokens: list[int]
    expected: dict[str, str]
    added: int = 0


@dataclass(frozen=True)
class PeerTask:
    """Everything a row needs.

    Attributes:
        model, adapter: paths.
        fused: path of what the library makes of both; the model of every row that reads with the adapter.
        threads, context_tokens: the same for every row.
        topic: of the plan.
        split: of the synthetic cases.
        acknowledgement: what the assistant says between report and question.
        heads: form -> text before the report.
        questions: form -> finding -> question.
        labels: finding -> value -> what the model writes for it, `not_stated` included.
        descriptions: finding -> what it means.
        head_tokens: form -> token numbers before the report.
        question_tokens: form -> finding -> token numbers from the report's end to where the answer begins.
        reports: length wanted -> reports.
        warm_up: a report that is not measured.
        example: a solved report for peers that need one: `text` and `extractions` (`finding`, `words`, `label`).
    """

    model: str
    adapter: str | None
    fused: str
    threads: int
    context_tokens: int
    topic: str
    split: str
    acknowledgement: str
    heads: dict[str, str]
    questions: dict[str, dict[str, str]]
    labels: dict[str, dict[str, str]]
    descriptions: dict[str, str]
    head_tokens: dict[str, list[int]]
    question_tokens: dict[str, dict[str, list[int]]]
    reports: dict[str, list[TaskReport]]
    warm_up: TaskReport
    example: dict[str, Any]

    @property
    def findings(self) -> list[str]:
        """The findings asked for, in the plan's order."""
        return list(self.labels)

    def unique_tokens(self, form: str, report: TaskReport) -> int:
        """The least there is to compute: the report and `unique_question_tokens`; the head is read once for all."""
        return len(report.tokens) + len(self.unique_question_tokens(form))

    def unique_question_tokens(self, form: str) -> list[int]:
        """Every question once, and once only what questions begin with alike."""
        questions = self.question_tokens[form].values()
        beginnings = {tuple(tokens[:end]): None for tokens in questions for end in range(1, len(tokens) + 1)}
        return [beginning[-1] for beginning in beginnings]

    def report(self, report_id: str) -> TaskReport:
        """The report of this id (KeyError if there is none)."""
        known = {report.id: report for reports in self.reports.values() for report in reports}
        return (known | {WARM_UP: self.warm_up})[report_id]


def write_task(task: PeerTask, path: Path) -> None:
    """Write a task for the rows' processes."""
    path.write_text(json.dumps(asdict(task)), encoding="utf-8")


def read_task(path: Path) -> PeerTask:
    """Read a task written by `write_task`."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["reports"] = {
        length: [TaskReport(**report) for report in reports] for length, reports in fields["reports"].items()
    }
    fields["warm_up"] = TaskReport(**fields["warm_up"])
    return PeerTask(**fields)


def chosen_subtasks(plan: mo.Plan) -> list[Subtask]:
    """The first twelve subtasks with closed values, in the plan's order."""
    return [subtask for subtask in plan.subtasks if subtask.answer == "choice" and subtask.finding][:FINDINGS]


def finding_of(subtask: Subtask) -> str:
    """The finding that a subtask reads."""
    assert subtask.finding is not None
    return subtask.finding


def lengthened(text: str, target: int, count: Callable[[str], int]) -> str:
    """The report with harmless sentences behind it, as long as that brings it nearer to the target."""
    chosen = text
    for sentence in HARMLESS:
        longer = f"{chosen}\n{sentence}"
        if abs(count(longer) - target) >= abs(count(chosen) - target):
            break
        chosen = longer
    return chosen


def nearest_cases(
    cases: Sequence[SyntheticCase], target: int, most: int, count: Callable[[str], int]
) -> list[SyntheticCase]:
    """The cases whose reports are nearest to so many tokens; of two equally near ones the one with the smaller id."""
    return sorted(cases, key=lambda case: (abs(count(case.text) - target), case.id))[:most]


def solved_example(cases: Sequence[SyntheticCase], subtasks: Sequence[Subtask], taken: Sequence[str]) -> dict[str, Any]:
    """A short report with words of its own for as many of the findings as possible: what few-shot peers are shown.

    Args:
        cases: to choose from.
        subtasks: the findings asked for.
        taken: ids of the measured reports, which must not be shown.
    """
    from medorchestra.local.evidence import supporting_quotes
    from medorchestra.local.sentences import sentences_of
    from medorchestra.rules import NOT_STATED

    best: dict[str, Any] = {"text": "", "extractions": []}
    for case in cases:
        if case.id in taken or len(case.text.split()) > EXAMPLE_WORDS:
            continue
        known, sentences, found = case.known(), sentences_of(case.text), []
        for subtask in subtasks:
            value = known[finding_of(subtask)]
            label = subtask.labels[str(value)]
            quotes = supporting_quotes(case.text, sentences, subtask.focus_terms, label)
            if value != NOT_STATED and quotes:
                found.append({"finding": finding_of(subtask), "words": quotes[0].text, "label": label})
        if len(found) > len(best["extractions"]):
            best = {"text": case.text, "extractions": sorted(found, key=lambda one: case.text.find(one["words"]))}
    return best


def in_form(plan: mo.Plan, form: str) -> mo.Plan:
    """The plan with the whole report read and its questions in this form."""
    profile = plan.profile.model_copy(update={"context": "full", "prompt_form": form})
    return plan.model_copy(update={"profile": profile})


@dataclass
class _Chooser:
    """Chooses reports with a model's tokenizer; no report twice."""

    engine: mo.LlamaCppEngine
    cases: Sequence[SyntheticCase]
    subtasks: Sequence[Subtask]
    taken: list[str]

    def choose(self, target: int, most: int, *, lengthen: bool = True) -> list[TaskReport]:
        """So many reports near to the target."""
        rest = [case for case in self.cases if case.id not in self.taken]
        count = self.engine.count_tokens
        nearest = nearest_cases(rest, target, most, count)
        self.taken += [case.id for case in nearest]
        return [self._report(case, lengthened(case.text, target, count) if lengthen else case.text) for case in nearest]

    def _report(self, case: SyntheticCase, text: str) -> TaskReport:
        known = case.known()
        expected = {finding: str(known[finding]) for finding in map(finding_of, self.subtasks)}
        added = self.engine.count_tokens(text) - self.engine.count_tokens(case.text)
        return TaskReport(case.id, text, self.engine.prompts.report(text), expected, added)


def make_task(
    *, topic: str, split: str, lengths: Sequence[int], reports: int, threads: int, context_tokens: int
) -> PeerTask:
    """Choose findings and reports, and write every prompt once.

    Raises:
        SystemExit: the split has too few reports.
    """
    import medorchestra as mo
    from medorchestra.local.adapters import find_adapter
    from medorchestra.local.engine.chat import ACKNOWLEDGEMENT
    from medorchestra.local.engine.model_files import find_model

    plan = mo.read_plan(topic)
    cases = mo.read_cases(topic, split)  # type: ignore[arg-type]
    if len(cases) < reports * len(lengths) + 2:
        raise SystemExit(f"split {split} of {topic} has only {len(cases)} reports; give a smaller --reports")
    subtasks, model = chosen_subtasks(plan), find_model("default")
    adapter = find_adapter(plan, model)
    asked = {form: in_form(plan, form) for form in FORMS}
    questions = {form: {finding_of(one): asked[form].question(one) for one in subtasks} for form in FORMS}
    with mo.LlamaCppEngine(model, context_tokens=512, threads=1) as engine:
        chooser = _Chooser(engine, cases, subtasks, [])
        # Long reports are rare: they are chosen first.
        chosen = {length: chooser.choose(length, reports) for length in sorted(lengths, reverse=True)}
        warm_up = replace(chooser.choose(100, 1, lengthen=False)[0], id=WARM_UP)
        return PeerTask(
            model=str(model),
            adapter=None if adapter is None else str(adapter),
            fused=fused_path(model, adapter, threads),
            threads=threads,
            context_tokens=context_tokens,
            topic=topic,
            split=split,
            acknowledgement=ACKNOWLEDGEMENT,
            heads={form: asked[form].head() for form in FORMS},
            questions=questions,
            labels={finding_of(one): dict(one.labels) for one in subtasks},
            descriptions={name: plan.finding(name).description for name in map(finding_of, subtasks)},
            head_tokens={form: engine.prompts.head(asked[form].head()) for form in FORMS},
            question_tokens={
                form: {name: engine.prompts.question(text) for name, text in questions[form].items()} for form in FORMS
            },
            reports={str(length): chosen[length] for length in lengths},
            warm_up=warm_up,
            example=solved_example(cases, subtasks, chooser.taken),
        )


def fused_path(model: Path, adapter: Path | None, threads: int) -> str:
    """The file that the library reads with.

    Raises:
        SystemExit: it cannot be made, so that rows would not read with the same file.
    """
    from medorchestra.local.engine.fused_model import fused_model
    from medorchestra.local.engine.gguf_file import read_gguf_header
    from medorchestra.local.engine.llama_library import load_library

    if adapter is None:
        return str(model)
    fused = fused_model(load_library(), read_gguf_header(model), read_gguf_header(adapter), threads)
    if fused is None:
        raise SystemExit(f"{adapter.name} cannot be fused with {model.name}; see medorchestra.local.engine.fused_model")
    return str(fused)


def value_of(label: object, labels: Mapping[str, str]) -> str | None:
    """The value that a label stands for, or None where it is none of them."""
    wanted = str(label).strip().lower()
    return next((value for value, written in labels.items() if written.lower() == wanted), None)
